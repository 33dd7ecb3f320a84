//! What the compiler does not hold: which module may name which, and what no file may say.
//!
//! Reads `src` as text. The floor table is that of `src/lib.rs`; code after a file's `#[cfg(test)]` is exempt where a
//! rule is about what the program does.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A module, its floor, and every other module it may name.
const MAY_NAME: &[(&str, u8, &[&str])] = &[
    ("wire", 0, &[]),
    ("time", 0, &[]),
    ("sync", 0, &[]),
    ("turn", 1, &["wire", "time", "sync"]),
    ("client", 1, &["wire", "time"]),
    ("config", 1, &["turn", "wire", "time"]),
    ("net", 2, &["wire", "time"]),
    ("kernel", 2, &["turn", "wire", "time"]),
    ("load", 3, &["client", "wire", "net", "time"]),
    ("worker", 3, &["turn", "wire", "net", "kernel", "time", "sync"]),
    ("control", 3, &["worker", "config", "turn", "wire", "net", "time"]),
    ("log", 4, &["config", "net", "time"]),
    ("cli", 4, &["log", "control", "worker", "load", "net", "kernel", "config", "client", "turn", "wire", "time"]),
];
/// The crate's root, and the parts of the program that hold no law: they name what they like.
const ROOTS: &[&str] = &["lib", "main"];

/// What a pure floor never says: it would make two runs differ.
const IMPURE: &[&str] = &["Instant::now", "SystemTime::now", "thread_rng", "rand::rng", "HashMap", "HashSet"];

/// Every way to write it; a content security policy has the word, too.
const UNSAFE: &[&str] = &["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern", "unsafe("];

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The module on the top level that the file belongs to.
    fn module(&self) -> String {
        let inside = self.path.strip_prefix(root()).expect("it was found there");
        let first = inside.components().next().expect("a file has a name");
        Path::new(first.as_os_str()).file_stem().expect("a file has a name").to_string_lossy().into_owned()
    }

    fn floor(&self) -> Option<u8> {
        let module = self.module();
        MAY_NAME.iter().find(|(name, _, _)| *name == module).map(|(_, floor, _)| *floor)
    }

    /// Lines of the program itself, with their numbers: no comments, nothing after `#[cfg(test)]`.
    fn program(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        let lines = lines.take_while(|(_, line)| line.trim() != "#[cfg(test)]");
        lines.filter(|(_, line)| !line.trim_start().starts_with("//")).map(|(at, line)| (at, code_of(line)))
    }

    fn complaint(&self, at: usize, what: &str) -> String {
        format!("{}:{at}: {what}", self.path.display())
    }
}

/// The line without a comment at its end.
fn code_of(line: &str) -> &str {
    line.split(" // ").next().unwrap_or(line)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut open = vec![root()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is text");
                found.push(Source { path, text });
            }
        }
    }
    assert!(found.len() > 20, "the sources are somewhere else");
    found
}

#[track_caller]
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// The modules that a line names: what follows `crate::`, also inside the braces of `use crate::{a, b::c}`.
fn named(line: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for rest in line.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => names.push(word(rest)),
            Some(list) => names.extend(top_level(list).into_iter().map(word)),
        }
    }
    names
}

fn word(text: &str) -> &str {
    let text = text.trim_start();
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or(text)
}

/// The parts of a list that stand outside inner braces.
fn top_level(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&list[start..at]);
                return parts;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    parts
}

#[test]
fn a_module_names_only_the_floors_below_it() {
    let mut complaints = Vec::new();
    for source in sources() {
        let module = source.module();
        if ROOTS.contains(&module.as_str()) {
            continue;
        }
        let Some((_, _, may_name)) = MAY_NAME.iter().find(|(name, _, _)| *name == module) else {
            complaints.push(source.complaint(1, "this module stands on no floor: put it into the table"));
            continue;
        };
        // Braces may run over several lines: one line of text, and the number of the first.
        let program: String = source.program().map(|(_, line)| line.trim()).collect::<Vec<_>>().join(" ");
        for name in named(&program) {
            let is_module = MAY_NAME.iter().any(|(other, _, _)| *other == name);
            if is_module && name != module && !may_name.contains(&name) {
                complaints.push(source.complaint(1, &format!("`{module}` may not name `{name}`")));
            }
        }
    }
    none(complaints);
}

#[test]
fn the_pure_floors_read_no_clock_and_have_no_order_of_their_own() {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| source.floor().is_some_and(|floor| floor < 2)) {
        for (at, line) in source.program() {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                complaints.push(source.complaint(at, &format!("`{word}` in the pure core")));
            }
        }
    }
    none(complaints);
}

#[test]
fn unsafe_lives_in_net_and_kernel_alone() {
    let mut complaints = Vec::new();
    for source in sources() {
        let floor = source.floor();
        if floor == Some(2) {
            continue;
        }
        if floor.is_some() && !source.text.lines().any(|line| line == "#![forbid(unsafe_code)]") {
            complaints.push(source.complaint(1, "no `#![forbid(unsafe_code)]` at its head"));
        }
        for (at, line) in source.program() {
            if UNSAFE.iter().any(|word| line.contains(word)) {
                complaints.push(source.complaint(at, "`unsafe` outside net and kernel"));
            }
        }
    }
    none(complaints);
}

/// Places with `unsafe` in each file that has any. The figures go down, or a reviewer has seen why one goes up.
const UNSAFE_PLACES: &[(&str, usize)] =
    &[("net/clock.rs", 1), ("net/cmsg.rs", 12), ("net/mod.rs", 5), ("net/poll.rs", 10), ("net/udp.rs", 11)];

#[test]
fn unsafe_grows_in_no_file_and_every_block_says_what_it_promises() {
    let mut complaints = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        let is_unsafe = |line: &str| {
            let code = code_of(line);
            !code.trim_start().starts_with("//") && UNSAFE.iter().any(|word| code.contains(word))
        };
        let places: Vec<usize> = (0..lines.len()).filter(|at| is_unsafe(lines[*at])).collect();
        let limit = UNSAFE_PLACES.iter().find(|(file, _)| source.path.ends_with(file)).map_or(0, |(_, limit)| *limit);
        let is_of_net = source.floor() == Some(2);
        if is_of_net && places.len() != limit {
            let what = format!("{} places with `unsafe`, and {limit} in the table of tests/tidy.rs", places.len());
            complaints.push(source.complaint(1, &what));
        }
        for at in places.into_iter().filter(|_| is_of_net) {
            // A statement may begin a few lines above its `unsafe`; its promise stands before the statement.
            let said = lines[at.saturating_sub(PROMISE_LINES)..at].iter().any(|line| line.contains("// SAFETY: "));
            if !said {
                complaints.push(source.complaint(at + 1, "`unsafe` without a `// SAFETY:` line before it"));
            }
        }
    }
    none(complaints);
}

/// How far above its `unsafe` a promise may begin.
const PROMISE_LINES: usize = 5;

#[test]
fn whatever_is_wiped_is_compared_in_constant_time() {
    let mut complaints = Vec::new();
    for source in sources() {
        for (at, line) in source.program() {
            let derives = line.trim().starts_with("#[derive(") && line.contains("ZeroizeOnDrop");
            if derives && ["PartialEq", "PartialOrd", "Hash", "Debug"].iter().any(|name| line.contains(name)) {
                let what = "a secret derives what stops at the first difference, or what shows it: write it by hand";
                complaints.push(source.complaint(at, what));
            }
        }
    }
    none(complaints);
}

#[test]
fn a29_whatever_proves_something_is_compared_in_constant_time() {
    let mut complaints = Vec::new();
    let sources = sources();
    for (file, compared) in COMPARED {
        let is_there =
            |source: &Source| source.path.ends_with(file) && source.program().any(|(_, line)| line.contains(compared));
        if !sources.iter().any(is_there) {
            complaints.push(format!("{file}: `{compared}` is not there; where is it compared?"));
        }
    }
    for source in &sources {
        for (at, line) in source.program() {
            for (left, right) in
                line.match_indices("==").chain(line.match_indices("!=")).map(|(at, _)| line.split_at(at))
            {
                let operands = [left.trim_end().rsplit(' ').next(), right.split(' ').nth(1)];
                if operands.into_iter().flatten().any(|operand| PROOFS.iter().any(|proof| operand.contains(proof))) {
                    complaints.push(source.complaint(at, "compare what proves something with `integrity::equal`"));
                }
            }
        }
    }
    none(complaints);
}

/// Every place where something that a stranger sends is held against a secret.
const COMPARED: &[(&str, &str)] = &[
    ("wire/integrity.rs", "a.ct_eq(b).into()"),
    ("wire/integrity.rs", "equal(self.expose(), other.expose())"),
    ("turn/credential.rs", "equal(&self.0, &other.0)"),
    ("turn/opaque.rs", "equal(self.0.as_bytes(), other.0.as_bytes())"),
    ("turn/policy.rs", "equal(self.bytes(), other.bytes())"),
    ("wire/stun.rs", "integrity::equal(&integrity::hmac_sha1("),
    ("wire/stun.rs", "integrity::equal(expected, value)"),
    ("turn/auth.rs", "equal(&nonce_of("),
    ("turn/allocation.rs", "equal(self.key.expose(), asker.key.expose())"),
    ("turn/ports.rs", "equal(&held.token, &token)"),
    ("turn/ticket.rs", "equal(&tag("),
    ("net/hello.rs", "integrity::equal(self.cookie"),
    ("control/keys.rs", "key.secret.ct_eq(&secret)"),
];

/// What no `==` has beside it.
const PROOFS: &[&str] = &["expose()", "hmac_sha", "nonce_of(", "tag(", "cookie_of(", ".token", ".password", ".secret."];

#[test]
fn every_file_is_named_by_a_mod() {
    let sources = sources();
    let mut declared = BTreeSet::new();
    for source in &sources {
        let stem = source.path.file_stem().expect("a file has a name");
        let is_own_folder = stem == "mod" || stem == "lib" || stem == "main";
        let parent = source.path.parent().expect("a file has a folder");
        let folder = if is_own_folder { parent.to_path_buf() } else { parent.join(stem) };
        for line in source.text.lines() {
            let Some((head, name)) = line.trim().split_once("mod ") else { continue };
            let Some(name) = name.strip_suffix(';') else { continue };
            if head.is_empty() || head.starts_with("pub") {
                declared.insert(folder.join(format!("{name}.rs")));
                declared.insert(folder.join(name).join("mod.rs"));
            }
        }
    }
    let is_root = |path: &Path| [root().join("lib.rs"), root().join("main.rs")].iter().any(|root| root == path);
    let dead = sources.iter().filter(|source| !is_root(&source.path) && !declared.contains(&source.path));
    none(dead.map(|source| source.complaint(1, "no `mod` names this file")).collect());
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//!"));
    none(silent.map(|source| source.complaint(1, "no `//!` on its first line")).collect());
}

#[test]
fn the_reader_of_names_reads_them_all() {
    assert_eq!(named("use crate::wire::stun::Message;"), ["wire"]);
    assert_eq!(
        named("use crate::{time::{Now, minutes}, turn::{self, Bind}}; crate::net::udp()"),
        ["time", "turn", "net"]
    );
    assert_eq!(named("pub(crate) fn nothing() {}"), Vec::<&str>::new());
}
