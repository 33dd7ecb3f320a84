//! docs/conformance.md is true: every statement has a test, and every test that names a statement names one there is.
//!
//! Reads `tests/conformance/rows.toml`, and the names of tests in `tests` and `src`, as text: a name that begins with ids
//! of rows, such as `s01_s47_only_stun_and_channel_data_are_looked_at`, is a test of those rows. `UPDATE=1 cargo test
//! --test conformance` writes the page anew.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const ROWS: &str = "tests/conformance/rows.toml";
const PAGE: &str = "docs/conformance.md";

struct Chapter {
    title: String,
    rows: Vec<Row>,
}

/// One thing that is asked of the server.
struct Row {
    id: String,
    section: String,
    level: String,
    statement: String,
    verdict: String,
}

/// A test that names rows.
struct Test {
    name: String,
    file: String,
}

fn chapters() -> Vec<Chapter> {
    let text = fs::read_to_string(Path::new(ROOT).join(ROWS)).expect("the rows are there");
    let table: toml::Table = text.parse().expect("the rows are TOML");
    let chapters = table["chapter"].as_array().expect("there are chapters");
    let text = |value: &toml::Value| value.as_str().expect("a text").to_owned();
    let row = |row: &toml::Value| {
        let cells: Vec<String> = row.as_array().expect("a row is a list").iter().map(text).collect();
        let [id, section, level, statement, verdict @ ..] = &cells[..] else { panic!("{cells:?} lacks a cell") };
        let verdict = match verdict {
            [] => "holds".to_owned(),
            [verdict] => verdict.clone(),
            _ => panic!("{cells:?} has a cell too many"),
        };
        let [id, section, level, statement] = [id, section, level, statement].map(String::clone);
        Row { id, section, level, statement, verdict }
    };
    let chapter = |chapter: &toml::Value| Chapter {
        title: text(&chapter["title"]),
        rows: chapter["rows"].as_array().expect("a chapter has rows").iter().map(row).collect(),
    };
    chapters.iter().map(chapter).collect()
}

/// Whether this part of a name has the shape of an id: a letter and two digits.
fn is_id(part: &str) -> bool {
    matches!(part.as_bytes(), [b'a'..=b'z', b'0'..=b'9', b'0'..=b'9'])
}

/// The ids that a name begins with, as the rows write them. A name of ids alone, such as `u24`, has no moral and is no test.
fn ids(name: &str) -> Vec<String> {
    let ids: Vec<String> = name.split('_').take_while(|part| is_id(part)).map(str::to_uppercase).collect();
    if ids.len() == name.split('_').count() { Vec::new() } else { ids }
}

/// Every function whose name begins with an id. It must be a test.
fn tests() -> Vec<Test> {
    let mut found = Vec::new();
    for file in files() {
        let path = Path::new(ROOT).join(&file);
        let text = fs::read_to_string(path).expect("a source file is text");
        let mut before = "";
        for line in text.lines().map(str::trim) {
            let function = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
            let name = function.and_then(|rest| rest.split(['(', '<']).next()).unwrap_or_default();
            if !ids(name).is_empty() {
                assert!(before.starts_with("#[") && before.ends_with("test]"), "{file}: {name} is no test");
                found.push(Test { name: name.to_owned(), file: file.clone() });
            }
            before = line;
        }
    }
    found
}

/// Every source file of the program and its tests, from the root, in order.
fn files() -> Vec<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![PathBuf::from("src"), PathBuf::from("tests")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(Path::new(ROOT).join(&folder)).expect("the sources can be read") {
            let path = folder.join(entry.expect("the sources can be read").file_name());
            if Path::new(ROOT).join(&path).is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.insert(path.to_str().expect("names are ASCII").replace('\\', "/"));
            }
        }
    }
    found.into_iter().collect()
}

/// The tests of each row.
fn by_row(tests: &[Test]) -> BTreeMap<String, Vec<&Test>> {
    let mut rows = BTreeMap::<_, Vec<_>>::new();
    for test in tests {
        ids(&test.name).into_iter().for_each(|id| rows.entry(id).or_default().push(test));
    }
    rows
}

#[track_caller]
fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_row_has_a_test_and_an_id_of_its_own() {
    let (chapters, tests) = (chapters(), tests());
    let tests = by_row(&tests);
    let mut seen = BTreeSet::new();
    let mut complaints = Vec::new();
    for row in chapters.iter().flat_map(|chapter| &chapter.rows) {
        if !seen.insert(&row.id) {
            complaints.push(format!("{} stands there twice", row.id));
        }
        let is_applicable = !row.verdict.starts_with("not applicable: ");
        if is_applicable && !tests.contains_key(&row.id) {
            complaints.push(format!("{} has no test: {}", row.id, row.statement));
        }
    }
    none(&complaints);
}

#[test]
fn every_test_that_is_named_like_a_row_names_one() {
    let chapters = chapters();
    let known: BTreeSet<&str> = chapters.iter().flat_map(|chapter| &chapter.rows).map(|row| row.id.as_str()).collect();
    let mut complaints = Vec::new();
    for test in tests() {
        for id in ids(&test.name).iter().filter(|id| !known.contains(id.as_str())) {
            complaints.push(format!("{}: {} names {id}, which is no row", test.file, test.name));
        }
    }
    none(&complaints);
}

#[test]
fn every_verdict_says_why() {
    const KINDS: [&str; 3] = ["decided: ", "differs: ", "not applicable: "];
    let mut complaints = Vec::new();
    for row in chapters().iter().flat_map(|chapter| &chapter.rows) {
        let says_why = KINDS.iter().any(|kind| row.verdict.strip_prefix(kind).is_some_and(|why| !why.is_empty()));
        if row.verdict != "holds" && !says_why {
            complaints.push(format!("{}: {:?} is no verdict", row.id, row.verdict));
        }
        if row.id.len() != 3 || !is_id(&row.id.to_lowercase()) {
            complaints.push(format!("{:?} is no id", row.id));
        }
    }
    none(&complaints);
}

#[test]
fn the_page_is_true() {
    let (chapters, tests) = (chapters(), tests());
    let page = page(&chapters, &by_row(&tests));
    let path = Path::new(ROOT).join(PAGE);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &page).expect("the page is written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "{PAGE} is not what {ROWS} and the tests say: UPDATE=1 cargo test --test conformance");
}

fn page(chapters: &[Chapter], tests: &BTreeMap<String, Vec<&Test>>) -> String {
    let rows = || chapters.iter().flat_map(|chapter| &chapter.rows);
    let count = |kind: &str| rows().filter(|row| row.verdict.starts_with(kind)).count();
    let mut text = HEAD.to_owned();
    text += &format!(
        "Of {} statements {} hold as they stand. In {} the RFC leaves room, or we read it in a way that has to be told, and\n\
         the row says what was decided; {} differ from the RFC, and {} do not apply.\n",
        rows().count(),
        count("holds"),
        count("decided: "),
        count("differs: "),
        count("not applicable: "),
    );
    for Chapter { title, rows } in chapters {
        text += &format!("\n## {title}\n\n| row | RFC | level | statement | tests | verdict |\n");
        text += "| --- | --- | --- | --- | --- | --- |\n";
        for row in rows {
            let Row { id, section, level, statement, verdict } = row;
            let section = if section.starts_with(|c: char| c.is_ascii_digit()) { section } else { "-" };
            let link = |test: &&Test| format!("[`{}`](../{})", test.name, test.file);
            let tests: Vec<String> = tests.get(id).into_iter().flatten().map(link).collect();
            let tests = tests.join("<br>");
            text += &format!("| {id} | {section} | {level} | {statement} | {tests} | {verdict} |\n");
        }
    }
    text
}

const HEAD: &str = "\
# Conformance

What RFC 8489 (STUN), RFC 8656 (TURN), RFC 6062 (TCP relays), RFC 5780 (NAT discovery), RFC 8016 (mobility) and RFC 7635
(third-party tokens) ask of a server, statement by statement, with the tests that show it. Where `safety` or `practice`
stands for the level, no RFC asks for it: what attackers do, or what other servers and browsers do, asks for it.

A test belongs to the rows that its name begins with. This page is made of `tests/conformance/rows.toml` and those names,
and a test fails when it is not what they say: `UPDATE=1 cargo test --test conformance` writes it anew.

";

#[test]
fn a_name_begins_with_the_rows_it_is_about() {
    assert_eq!(ids("s01_s47_only_stun_is_looked_at"), ["S01", "S47"]);
    assert_eq!(ids("a24_the_2_of_x03"), ["A24"]);
    assert_eq!(ids("class_4_the_shortest"), Vec::<String>::new());
    assert_eq!([ids("s1_is_none"), ids("u24")], [const { Vec::<String>::new() }; 2]);
}
