//! From text to values: environment over file over default, and every mistake on the way.
//!
//! A type reads itself from a [`Given`], which knows where the value stands and whether it may be shown. A key that
//! cannot be read counts as its default for the rest of the reading, so that one slip does not hide the next.
#![forbid(unsafe_code)]

use super::check;
use super::keys::{Config, Key, LISTEN_TLS, SECTIONS};
use super::mistake::{Mistake, Source};
use super::near::nearest;
use super::units::Fault;
use super::values::HIDDEN;
use core::num::NonZero;
use core::ops::Range;
use std::collections::{BTreeMap, BTreeSet};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};
use zeroize::Zeroizing;

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// What one should think about.
    pub warnings: Vec<Mistake>,
    /// Where each key that is not a default was written, by dotted path.
    pub origins: BTreeMap<&'static str, Origin>,
}

/// Where a key was written, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The place.
    pub source: Source,
    /// What stands there, as far as it may be shown.
    pub given: String,
}

/// Reads a configuration from an optional file (its name and text) and the environment.
pub fn load(
    file: Option<(&str, &str)>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, Vec<Mistake>> {
    let written = file.map(|(name, text)| Written { place: Place::File(name.into()), text: own(text) });
    let (root, syntax) = match &written {
        Some(written) => DeTable::parse_recoverable(&written.text),
        None => (Spanned::new(0..0, DeTable::new()), Vec::new()),
    };
    let mut reader = Reader {
        file: written.as_ref().map(|written| (written, root.get_ref())),
        environment: BTreeMap::new(),
        origins: BTreeMap::new(),
        broken: BTreeSet::new(),
        mistakes: Vec::new(),
    };
    reader.take_environment(environment);
    let mut config = Config::read(&mut reader);
    if config.listen.tls.is_default && !config.tls.cert.0.is_empty() {
        config.listen.tls.addresses = LISTEN_TLS.to_vec();
    }
    if config.listen.dtls.is_default && !config.tls.cert.0.is_empty() {
        config.listen.dtls.addresses = LISTEN_TLS.to_vec();
    }
    reader.report_unknown();
    let mut mistakes = reader.mistakes;
    if let Some(written) = written.as_ref().filter(|_| !syntax.is_empty()) {
        mistakes = beside_syntax_mistakes(written, &syntax, mistakes);
    }
    let cross = check::Cross { config: &config, origins: &reader.origins, broken: &reader.broken };
    let (wrong, mut warnings) = cross.check();
    if syntax.is_empty() {
        mistakes.extend(wrong);
    }
    if mistakes.is_empty() {
        warnings.sort();
        return Ok(Loaded { config, warnings, origins: reader.origins });
    }
    mistakes.sort();
    mistakes.dedup();
    Err(mistakes)
}

impl Loaded {
    /// The same mistake, with the place where its key was written.
    pub fn locate(&self, mistake: Mistake) -> Mistake {
        match self.origins.get(mistake.key.as_str()) {
            Some(origin) => Mistake { source: origin.source.clone(), ..mistake },
            None => mistake,
        }
    }
}

/// A key's value, or all that is wrong with it.
pub(super) type Reading<T> = Result<T, Vec<Mistake>>;

/// A type that a key can have.
pub(super) trait Value: Sized {
    /// Whether what was written is never shown.
    const SECRET: bool = false;
    /// Whether it is a text in quotes.
    const WORD: bool = false;
    /// Whether an environment variable may list several, separated by commas.
    const LIST: bool = false;

    fn read(given: &Given<'_>) -> Reading<Self>;

    /// The value as TOML; what is secret is hidden.
    fn show(&self) -> toml::Value;
}

/// A type that is written as a text in quotes.
pub(super) trait Word: Sized {
    fn parse(text: &str) -> Result<Self, Fault>;

    fn word(&self) -> String;
}

/// All good ones, or all mistakes.
pub(super) fn gather<T, C: FromIterator<T>>(readings: impl IntoIterator<Item = Reading<T>>) -> Reading<C> {
    let mut mistakes = Vec::new();
    let good: Vec<T> =
        readings.into_iter().filter_map(|reading| reading.map_err(|m| mistakes.extend(m)).ok()).collect();
    if mistakes.is_empty() { Ok(good.into_iter().collect()) } else { Err(mistakes) }
}

/// A text and where it is from.
struct Written {
    place: Place,
    /// May hold any secret.
    text: Zeroizing<String>,
}

enum Place {
    File(String),
    Environment(String),
    Default,
}

fn own(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

impl Written {
    fn source(&self, at: usize) -> Source {
        match &self.place {
            Place::File(name) => {
                let line = self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
                Source::File { name: name.clone(), line }
            }
            Place::Environment(name) => Source::Environment(name.clone()),
            Place::Default => Source::Default,
        }
    }
}

/// A value as somebody wrote it.
#[derive(Clone)]
pub(super) struct Given<'a> {
    key: String,
    value: &'a DeValue<'a>,
    span: Range<usize>,
    written: &'a Written,
    secret: bool,
}

impl<'a> Given<'a> {
    /// A mistake at this value.
    pub(super) fn wrong(&self, message: impl Into<String>) -> Mistake {
        Mistake::new(self.source(), &self.key, message).given(self.shown())
    }

    /// The mistake that `fault` is at this value.
    pub(super) fn fault(&self, fault: Fault) -> Mistake {
        let Fault { message, hint } = fault;
        // A sentence about a secret may quote it.
        let mistake = self.wrong(message);
        Mistake { hint: hint.filter(|_| !self.secret), ..mistake }
    }

    /// The mistake of a key nobody knows. Its value may be a secret under a mistyped name, so it is not shown.
    pub(super) fn unknown(&self, meant: Option<&str>) -> Mistake {
        unknown(self.source(), &self.key, meant)
    }

    /// The same value, which may be shown although what is around it may not.
    pub(super) fn open(&self) -> Self {
        Self { secret: false, ..self.clone() }
    }

    pub(super) fn is_default(&self) -> bool {
        matches!(self.written.place, Place::Default)
    }

    pub(super) fn text(&self) -> Reading<&'a str> {
        self.value.as_str().ok_or_else(|| self.not_a("a text in quotes").into())
    }

    pub(super) fn word<T: Word>(&self) -> Reading<T> {
        T::parse(self.text()?).map_err(|fault| self.fault(fault).into())
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.as_table().is_some()
    }

    /// The digits of a bare whole number.
    pub(super) fn integer(&self) -> Option<String> {
        let integer = self.value.as_integer()?;
        i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|number| number.to_string())
    }

    pub(super) fn items(&self) -> Reading<Vec<Self>> {
        let Some(array) = self.value.as_array() else {
            return Err(match self.value.as_str() {
                Some(_) => self.not_a("a list").hint(format!("put it in brackets: [{}]", self.shown())),
                None => self.not_a("a list"),
            }
            .into());
        };
        Ok(array.iter().map(|item| self.inner(self.key.clone(), item)).collect())
    }

    pub(super) fn entries(&self) -> Reading<Vec<(String, Self)>> {
        let table = self.value.as_table().ok_or_else(|| self.not_a("a table"))?;
        let entry = |(name, value): (&Spanned<_>, &'a _)| {
            let name: &std::borrow::Cow<'_, str> = name.get_ref();
            (name.to_string(), self.inner(format!("{}.{name}", self.key), value))
        };
        Ok(table.iter().map(entry).collect())
    }

    fn inner(&self, key: String, value: &'a Spanned<DeValue<'a>>) -> Self {
        Self { key, value: value.get_ref(), span: value.span(), written: self.written, secret: self.secret }
    }

    fn not_a(&self, what: &str) -> Mistake {
        let kind = match self.value.type_str() {
            "string" => "text",
            "array" => "list",
            kind => kind,
        };
        self.wrong(format!("must be {what}, not {} {kind}", if kind.starts_with(['a', 'i']) { "an" } else { "a" }))
    }

    fn source(&self) -> Source {
        self.written.source(self.span.start)
    }

    fn shown(&self) -> String {
        if self.secret {
            return HIDDEN.into();
        }
        let text = match self.value.as_str() {
            Some(text) => format!("{text:?}"),
            None => self
                .written
                .text
                .get(self.span.clone())
                .unwrap_or(HIDDEN)
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
        };
        match text.char_indices().nth(SHOWN_MAX) {
            Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
            None => text,
        }
    }
}

const SHOWN_MAX: usize = 80; // characters; enough to find the place

impl<T: Word> Value for Option<T> {
    const WORD: bool = true;

    fn read(given: &Given<'_>) -> Reading<Self> {
        if given.text()?.is_empty() { Ok(None) } else { Ok(Some(given.word()?)) }
    }

    fn show(&self) -> toml::Value {
        self.as_ref().map(T::word).unwrap_or_default().into()
    }
}

impl<T: Value> Value for Vec<T> {
    const SECRET: bool = T::SECRET;
    const LIST: bool = T::WORD;

    fn read(given: &Given<'_>) -> Reading<Self> {
        gather(given.items()?.iter().map(T::read))
    }

    fn show(&self) -> toml::Value {
        toml::Value::Array(self.iter().map(T::show).collect())
    }
}

impl Value for bool {
    fn read(given: &Given<'_>) -> Reading<Self> {
        Ok(given.value.as_bool().ok_or_else(|| given.not_a("true or false"))?)
    }

    fn show(&self) -> toml::Value {
        (*self).into()
    }
}

impl Value for u32 {
    fn read(given: &Given<'_>) -> Reading<Self> {
        let number = given.integer().ok_or_else(|| given.not_a("a whole number"))?;
        Ok(number.parse().map_err(|_| given.wrong("must lie between 0 and 4294967295"))?)
    }

    fn show(&self) -> toml::Value {
        i64::from(*self).into()
    }
}

impl Value for NonZero<u32> {
    fn read(given: &Given<'_>) -> Reading<Self> {
        Ok(Self::new(u32::read(given)?).ok_or_else(|| given.wrong("cannot be 0"))?)
    }

    fn show(&self) -> toml::Value {
        i64::from(self.get()).into()
    }
}

/// Types that are a word and nothing else.
macro_rules! words {
    ($($name:ty),+) => { $(
        impl Value for $name {
            const WORD: bool = true;

            fn read(given: &Given<'_>) -> Reading<Self> {
                given.word()
            }

            fn show(&self) -> toml::Value {
                self.word().into()
            }
        }
    )+ };
}

words!(
    super::values::RelayFrom,
    super::values::External,
    super::values::Ports,
    super::values::Separator,
    super::values::Uri,
    super::values::Scope,
    super::values::Level,
    super::values::LogFormat,
    super::values::TlsVersion,
    super::units::Rhythm,
    crate::turn::peers::Prefix
);

/// Reads keys, each from the place that has the last word.
pub(super) struct Reader<'a> {
    file: Option<(&'a Written, &'a DeTable<'a>)>,
    /// Variables not read yet, by dotted path in lower case.
    environment: BTreeMap<String, Written>,
    origins: BTreeMap<&'static str, Origin>,
    broken: BTreeSet<&'static str>,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    /// The value of a key; its default when what was written cannot be read.
    pub(super) fn key<T: Value>(&mut self, path: &'static str, default: &'static str) -> T {
        let (reading, origin) = match self.environment.remove(path) {
            Some(written) => read_variable(path, &written),
            None => match self.read_file(path) {
                Some(found) => found,
                None => return read_default(path, default),
            },
        };
        self.origins.insert(path, origin);
        reading.unwrap_or_else(|mistakes| {
            self.broken.insert(path);
            self.mistakes.extend(mistakes);
            read_default(path, default)
        })
    }

    fn read_file<T: Value>(&self, path: &str) -> Option<(Reading<T>, Origin)> {
        let (written, root) = self.file?;
        let (table, name) = match path.split_once('.') {
            Some((section, name)) => (entry(root, section)?.get_ref().as_table()?, name),
            None => (root, path),
        };
        let value = entry(table, name)?;
        let given = Given { key: path.into(), value: value.get_ref(), span: value.span(), written, secret: T::SECRET };
        Some((T::read(&given), Origin { source: given.source(), given: given.shown() }))
    }

    fn take_environment(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
        let mut environment: Vec<(String, String)> = environment.into_iter().collect();
        environment.sort(); // the order of an environment means nothing
        for (name, text) in environment {
            let Some(rest) = strip_prefix_ignoring_case(&name, PREFIX) else { continue };
            let path = rest.to_lowercase().replace("__", ".");
            let source = Source::Environment(name.clone());
            if self.environment.contains_key(&path) {
                self.mistakes.push(Mistake::new(source, path, "set twice, in different capitals"));
                continue;
            }
            self.environment.insert(path, Written { place: Place::Environment(name), text: Zeroizing::new(text) });
        }
    }

    /// Every key nobody asked for.
    fn report_unknown(&mut self) {
        for (path, written) in &self.environment {
            let source = written.source(0);
            self.mistakes.push(match known_above(path) {
                Some(key) => Mistake::new(source, path, format!("{} is set as a whole", key.path))
                    .hint(format!("{PREFIX}{} takes TOML", key.path.to_uppercase().replace('.', "__"))),
                None => unknown(source, path, meant(path)),
            });
        }
        let Some((written, root)) = self.file else { return };
        for (name, value) in root.iter() {
            let source = written.source(name.span().start);
            let name = name.get_ref().as_ref();
            let section = SECTIONS.iter().find(|section| !name.is_empty() && section.name == name);
            match (section, value.get_ref().as_table()) {
                (Some(section), Some(table)) => {
                    let known = |name: &str| section.keys.iter().any(|key| key.name == name);
                    for (key, _) in table.iter().filter(|(key, _)| !known(key.get_ref())) {
                        let path = format!("{name}.{}", key.get_ref());
                        self.mistakes.push(unknown(written.source(key.span().start), &path, meant(&path)));
                    }
                }
                (Some(_), None) => {
                    let mistake = Mistake::new(source, name, "a section, not a key");
                    self.mistakes.push(mistake.hint(format!("write [{name}] and its keys below")));
                }
                (None, _)
                    if SECTIONS
                        .iter()
                        .any(|section| section.name.is_empty() && section.keys.iter().any(|key| key.name == name)) => {}
                (None, Some(_)) => {
                    let meant = nearest(name, SECTIONS.iter().map(|section| section.name));
                    let mistake = Mistake::new(source, name, "unknown section");
                    self.mistakes.push(match meant {
                        Some(meant) => mistake.hint(format!("did you mean [{meant}]?")),
                        None => mistake,
                    });
                }
                (None, None) => self.mistakes.push(unknown(source, name, meant(name))),
            }
        }
    }
}

/// What the name of every variable begins with, in any case.
const PREFIX: &str = "TURNSERVER__";

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn entry<'a>(table: &'a DeTable<'a>, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
    table.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value)
}

fn read_default<T: Value>(path: &str, default: &'static str) -> T {
    let written = Written { place: Place::Default, text: own(default) };
    let value = DeValue::parse(&written.text).expect("the example, defaults and all, is parsed by a test");
    let given =
        Given { key: path.into(), value: value.get_ref(), span: value.span(), written: &written, secret: false };
    T::read(&given).expect("every default is read whenever anything is")
}

/// A variable holds TOML, or a bare text, or texts separated by commas: whichever the type takes.
fn read_variable<T: Value>(path: &str, written: &Written) -> (Reading<T>, Origin) {
    let all = 0..written.text.len();
    let read = |value: &DeValue<'_>| {
        // Texts are cut from the variable itself: it has no lines to tell apart.
        T::read(&Given { key: path.into(), value, span: all.clone(), written, secret: T::SECRET })
    };
    let text = DeValue::String(written.text.as_str().into());
    let given = Given { key: path.into(), value: &text, span: all.clone(), written, secret: T::SECRET };
    let origin = Origin { source: given.source(), given: given.shown() };
    let toml = DeValue::parse(&written.text);
    let as_toml = toml.as_ref().ok().map(|value| read(value.get_ref()));
    if let Some(Ok(value)) = as_toml {
        return (Ok(value), origin);
    }
    let is_bracketed = written.text.trim_start().starts_with(['[', '{']);
    let reading = match as_toml {
        Some(mistakes) if is_bracketed || !(T::LIST || T::WORD) => mistakes,
        None if is_bracketed && !T::WORD => Err(given.wrong("not valid TOML").into()),
        _ if T::LIST => {
            let mut list = DeArray::new();
            let items = written.text.split(',').map(str::trim).filter(|item| !item.is_empty());
            items.for_each(|item| list.push(Spanned::new(all.clone(), DeValue::String(item.into()))));
            read(&DeValue::Array(list))
        }
        _ => read(&text),
    };
    (reading, origin)
}

fn unknown(source: Source, path: &str, meant: Option<&str>) -> Mistake {
    let mistake = Mistake::new(source, path, "unknown key");
    match meant {
        Some(meant) => mistake.hint(format!("did you mean {meant}?")),
        None => mistake,
    }
}

fn all_keys() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

/// The key that a path reaches into, as `auth.users.alice` does.
fn known_above(path: &str) -> Option<&'static Key> {
    all_keys().find(|key| path.strip_prefix(key.path).is_some_and(|rest| rest.starts_with('.')))
}

/// The known key that an unknown path probably means: mistyped in its section, else in another one.
fn meant(path: &str) -> Option<&'static str> {
    let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
    let here: Vec<&'static Key> =
        all_keys().filter(|key| key.path.rsplit_once('.').unwrap_or(("", "")).0 == section).collect();
    let all: Vec<&'static Key> = all_keys().collect();
    let near =
        |keys: &[&'static Key]| nearest(name, keys.iter().map(|key| key.name)).and_then(|near| named(near, keys));
    near(&here).or_else(|| named(name, &all)).or_else(|| near(&all))
}

fn named(name: &str, keys: &[&'static Key]) -> Option<&'static str> {
    keys.iter().find(|key| key.name == name).map(|key| key.path)
}

/// The syntax mistakes, and of the others those that no recovery from a syntax mistake can have made.
fn beside_syntax_mistakes(written: &Written, syntax: &[toml::de::Error], others: Vec<Mistake>) -> Vec<Mistake> {
    let lines = |range: Range<usize>| (written.source(range.start), written.source(range.end));
    let broken: Vec<(Source, Source)> = syntax.iter().map(|error| lines(error.span().unwrap_or_default())).collect();
    // The parser's message names what it wants and never quotes what stands there, which may be a secret.
    let mut mistakes: Vec<Mistake> = Vec::new();
    for (error, (source, _)) in syntax.iter().zip(&broken) {
        if mistakes.iter().all(|mistake| mistake.source != *source) {
            mistakes.push(Mistake::new(source.clone(), "", format!("not valid TOML: {}", error.message())));
        }
    }
    let is_apart =
        |mistake: &Mistake| broken.iter().all(|(first, last)| mistake.source < *first || mistake.source > *last);
    mistakes.extend(others.into_iter().filter(is_apart));
    mistakes
}
