//! The documentation is true: it names every key, route, metric and log event there is, and none that is not.

#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "a story that cannot go on ends there")]

#[path = "support/pair.rs"]
mod pair;
#[path = "support/server.rs"]
mod server;
#[path = "support/skip.rs"]
mod skip;
#[path = "support/temp.rs"]
mod temp;

use server::{Server, Setup};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::Command;
use turnserver::config::{self, Mistake, SECTIONS};
use turnserver::turn::refusal::{AuthFailure, Dropped, Ended};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A document of this project.
struct Page {
    file: PathBuf,
    text: String,
}

/// A fenced piece of a document.
struct Block<'a> {
    language: &'a str,
    text: String,
}

impl Page {
    fn read(file: &str) -> Self {
        let file = Path::new(ROOT).join(file);
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Self { file, text }
    }

    fn all() -> Vec<Self> {
        let names = std::fs::read_dir(Path::new(ROOT).join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.filter_map(|name| name.into_string().ok()).filter(|name| name.ends_with(".md"));
        let others = ["README.md", "CHANGELOG.md", "SECURITY.md"].map(str::to_owned);
        let names = names.map(|name| format!("docs/{name}")).chain(others);
        names.map(|name| Self::read(&name)).collect()
    }

    fn name(&self) -> String {
        self.file.display().to_string()
    }

    /// Lines outside fenced blocks.
    fn prose(&self) -> impl Iterator<Item = &str> {
        let mut is_fenced = false;
        self.text.lines().filter(move |line| {
            let is_fence = line.trim_start().starts_with("```");
            is_fenced ^= is_fence;
            !is_fenced && !is_fence
        })
    }

    fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks: Vec<Block<'_>> = Vec::new();
        let mut is_open = false;
        for line in self.text.lines() {
            if let Some(language) = line.trim_start().strip_prefix("```") {
                is_open = !is_open;
                if is_open {
                    blocks.push(Block { language: language.trim(), text: String::new() });
                }
            } else if let (true, Some(block)) = (is_open, blocks.last_mut()) {
                block.text += line;
                block.text.push('\n');
            }
        }
        assert!(!is_open, "{}: a block has no end", self.name());
        blocks
    }

    /// What stands between backticks, and every line of a block that is not `text`, which is output.
    fn code(&self) -> Vec<String> {
        let spans = self.prose().flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned);
        let blocks = self.blocks().into_iter().filter(|block| block.language != "text");
        let lines = blocks.flat_map(|block| block.text.lines().map(str::to_owned).collect::<Vec<_>>());
        spans.chain(lines).collect()
    }

    fn headings(&self) -> Vec<&str> {
        self.prose().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim()).collect()
    }

    /// The cells of the first column in a table, without backticks, until the table under `heading` ends.
    fn rows(&self, heading: &str) -> Vec<Vec<String>> {
        let lines = self.prose().skip_while(|line| line.trim_start_matches('#').trim() != heading);
        let table = lines.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|')).skip(2);
        table.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect()).collect()
    }

    fn column(&self, heading: &str) -> BTreeSet<String> {
        let rows = self.rows(heading);
        assert!(!rows.is_empty(), "{}: no table under {heading:?}", self.name());
        rows.into_iter().map(|row| row[0].clone()).collect()
    }
}

/// Path and default of every key.
fn keys() -> Vec<(&'static str, &'static str)> {
    SECTIONS.iter().flat_map(|section| section.keys).map(|key| (key.path, key.default)).collect()
}

#[track_caller]
fn same<T: Ord + Debug>(documented: &BTreeSet<T>, real: &BTreeSet<T>) {
    let missing: Vec<_> = real.difference(documented).collect();
    let invented: Vec<_> = documented.difference(real).collect();
    assert!(missing.is_empty() && invented.is_empty(), "not documented: {missing:?}; does not exist: {invented:?}");
}

fn labels<const N: usize>(labels: [&str; N]) -> BTreeSet<String> {
    labels.into_iter().map(str::to_owned).collect()
}

#[test]
fn every_key_stands_in_the_reference_in_its_order_with_its_default() {
    let page = Page::read("docs/configuration.md");
    let lines: Vec<&str> = page.prose().collect();
    let heading = |line: &&str| line.strip_prefix("### `")?.strip_suffix('`').map(str::to_owned);
    let documented: Vec<String> = lines.iter().filter_map(heading).collect();
    assert_eq!(documented, keys().iter().map(|(path, _)| *path).collect::<Vec<_>>());
    for (path, default) in keys() {
        let at = lines.iter().position(|line| *line == format!("### `{path}`")).unwrap();
        let default = format!("default `{default}`");
        assert!(lines[at + 2].contains(&default), "{path}: {:?} lacks {default:?}", lines[at + 2]);
    }
}

#[test]
fn no_document_names_a_key_that_does_not_exist() {
    let known: BTreeSet<&str> = keys().iter().map(|(path, _)| *path).collect();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for page in Page::all() {
        for code in page.code() {
            for word in code.split(|c: char| !is_word(c) && c != '.') {
                let section = SECTIONS.iter().find(|section| word.split('.').next() == Some(section.name));
                let is_key = section.is_some_and(|section| !section.name.is_empty()) && word.matches('.').count() == 1;
                let is_key = is_key && !word.ends_with(".rs"); // the end of a path
                assert!(!is_key || known.contains(word), "{}: there is no key {word} ({code:?})", page.name());
            }
        }
        for variable in page.text.split("TURNSERVER__").skip(1) {
            let name = variable.split(|c| !is_word(c)).next().unwrap();
            let path = name.to_lowercase().replace("__", ".");
            assert!(known.contains(path.as_str()), "{}: TURNSERVER__{name} sets no key", page.name());
        }
    }
}

#[test]
fn every_snippet_of_toml_is_a_configuration_and_every_json_is_json() {
    let mut count = 0;
    for page in Page::all() {
        for block in page.blocks() {
            let text = &block.text;
            if block.language == "toml" {
                let loaded = config::load(Some(("snippet", text)), []);
                let told = |all: Vec<Mistake>| all.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n");
                let loaded = loaded.map_err(told).unwrap_or_else(|told| panic!("{}: {told}\n{text}", page.name()));
                assert!(loaded.warnings.is_empty(), "{}: {}", page.name(), told(loaded.warnings));
                count += 1;
            } else if block.language == "json" {
                let parsed = serde_json::from_str::<serde_json::Value>(text);
                parsed.unwrap_or_else(|error| panic!("{}: {error}\n{text}", page.name()));
                count += 1;
            }
        }
    }
    assert!(count > 10, "only {count} snippets found");
}

#[test]
fn every_verb_that_a_document_uses_is_one() {
    let help = Command::new(env!("CARGO_BIN_EXE_turnserver")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let verbs: BTreeSet<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(verbs.contains("serve"), "{help}");
    for page in Page::all() {
        for code in page.code() {
            let words: Vec<&str> = code.split_whitespace().collect();
            for pair in words.windows(2).filter(|pair| pair[0] == "turnserver" || pair[0].ends_with("/turnserver")) {
                let is_verb = pair[1].bytes().all(|byte| byte.is_ascii_lowercase());
                let is_call = is_verb && (words[0] == pair[0] || words[0].contains("TURNSERVER__"));
                assert!(!is_call || verbs.contains(pair[1]), "{}: no verb {:?} in {code:?}", page.name(), pair[1]);
            }
        }
    }
}

#[test]
fn every_route_is_described_and_no_document_calls_another() {
    let server = Server::start();
    let (_, document) = server.request("GET", "/openapi.json", "").unwrap();
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    let mut routes = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let methods = methods.as_object().unwrap().keys();
        routes.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
    }
    let page = Page::read("docs/http-api.md");
    let headings = page.headings().into_iter().map(|heading| heading.replace('`', ""));
    same(&headings.filter(|heading| heading.contains(" /")).collect(), &routes);

    let paths: BTreeSet<&str> = routes.iter().filter_map(|route| route.split(' ').nth(1)).collect();
    for page in Page::all() {
        for code in page.code() {
            let called = ["GET /", "POST /", "127.0.0.1:3480/"].into_iter();
            for rest in called.flat_map(|start| code.split(start).skip(1)) {
                let path: String =
                    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "/-_.".contains(*c)).collect();
                let path = format!("/{path}");
                assert!(paths.contains(path.as_str()), "{}: no route {path} in {code:?}", page.name());
            }
        }
    }
}

#[test]
fn every_metric_is_described_with_its_type_and_labels() {
    let authority = pair::Authority::new();
    let tls = authority.pair("server", &["turn.example.org"]).lines();
    let server = Server::start_with(&Setup { tls, ..Setup::default() });
    let (_, text) = server.request("GET", "/metrics", "").unwrap();
    let mut real: BTreeMap<&str, (&str, BTreeSet<&str>)> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            real.insert(name, (kind, BTreeSet::new()));
        } else if let Some((name, rest)) = line.split_once('{') {
            let Some((_, labels)) = real.get_mut(name) else { continue }; // the buckets of a histogram
            let pairs = rest.split('}').next().unwrap().split("\",");
            labels.extend(pairs.filter_map(|pair| pair.split_once('=')).map(|(label, _)| label));
        }
    }
    let page = Page::read("docs/metrics.md");
    let rows = page.rows("Metrics");
    let mut documented = BTreeMap::new();
    for row in &rows {
        let [name, kind, labels, _meaning] = row.as_slice() else { panic!("a row with other cells: {row:?}") };
        let labels = labels.split(", ").filter(|label| !label.is_empty()).collect();
        documented.insert(name.as_str(), (kind.as_str(), labels));
    }
    assert_eq!(documented, real);

    let alerts = Page::read("docs/alerts.yml");
    let names = alerts.text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    names.filter(|name| name.starts_with("turnserver_")).for_each(|name| assert!(real.contains_key(name), "{name}"));
}

#[test]
fn prometheus_takes_the_alert_rules() {
    if !skip::has("promtool") {
        return;
    }
    let output =
        Command::new("promtool").args(["check", "rules", "docs/alerts.yml"]).current_dir(ROOT).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_reason_is_explained() {
    let operations = Page::read("docs/operations.md");
    same(&operations.column("Dropped packets"), &labels(Dropped::ALL.map(Dropped::label)));
    let metrics = Page::read("docs/metrics.md");
    same(&metrics.column("Failed authentications"), &labels(AuthFailure::ALL.map(AuthFailure::label)));
    let ended = [Ended::Released, Ended::Expired, Ended::Disconnected, Ended::Revoked, Ended::Stopped];
    for reason in ended.map(Ended::label) {
        assert!(operations.text.contains(&format!("`{reason}`")), "{reason} is not explained");
    }
}

#[test]
fn every_log_event_is_explained_at_its_level() {
    let mut real = BTreeSet::new();
    sources(&Path::new(ROOT).join("src"), &mut |text| {
        for rest in text.split("tracing::").skip(1) {
            let Some((level, rest)) = rest.split_once("!(") else { continue };
            if !["error", "warn", "info", "debug", "trace"].contains(&level) {
                continue;
            }
            // The message is the last text of the call.
            let call = rest.split(");").next().unwrap();
            let message = call.rsplit('"').nth(1).unwrap_or_else(|| panic!("no message in {call:?}"));
            real.insert((message.to_owned(), level.to_owned()));
        }
    });
    // The log's own.
    real.insert(("lines of the log were lost".into(), "warn".into()));
    real.insert(("more like this were left out".into(), "warn".into()));
    let page = Page::read("docs/operations.md");
    let rows = page.rows("Log events");
    same(&rows.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect(), &real);
}

fn sources(folder: &Path, read: &mut impl FnMut(&str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, read);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            read(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_link_within_the_project_leads_somewhere() {
    for page in Page::all() {
        for rest in page.prose().flat_map(|line| line.split("](").skip(1)) {
            let target = rest.split(')').next().unwrap();
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.file.clone() } else { page.file.parent().unwrap().join(file) };
            assert!(path.exists(), "{}: {target} does not exist", page.name());
            if !anchor.is_empty() {
                let text = std::fs::read_to_string(&path).unwrap();
                let other = Page { file: path, text };
                let anchors: Vec<String> = other.headings().into_iter().map(anchor_of).collect();
                assert!(anchors.iter().any(|one| one == anchor), "{}: no {target} among {anchors:?}", page.name());
            }
        }
    }
}

#[test]
fn every_source_file_that_a_document_names_is_there() {
    let mut count = 0;
    for page in Page::all() {
        for code in page.code() {
            let is_path = |word: &&str| ["src/", "tests/", "examples/"].iter().any(|folder| word.starts_with(folder));
            let words = code.split_whitespace().map(|word| word.trim_start_matches("./"));
            for path in words.filter(is_path) {
                assert!(Path::new(ROOT).join(path).exists(), "{}: there is no {path}", page.name());
                count += 1;
            }
        }
    }
    assert!(count > 20, "{count} files are named");
}

/// The anchor of a heading, as code hosts make it.
fn anchor_of(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
