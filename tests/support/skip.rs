//! Tests that need a program which may be missing.
//!
//! A missing program is a counted skip, so that the rest can be run anywhere; under `CI` it is a failure.

#![allow(dead_code, reason = "every test target uses its own part of this")]

use std::io::Write as _;

/// Whether `program` is on the path. When it is not, says which test is skipped, and where that is counted.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !found {
        skip(&format!("{program} is not installed"));
    }
    found
}

/// Counts a skip.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "under CI nothing is skipped, but {why}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("skipped {test}: {why}");
    if let Some(file) = std::env::var_os("TURNSERVER_SKIPS") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(file);
        writeln!(file.expect("the list of skips can be opened"), "{test}: {why}").expect("a skip is noted");
    }
}
