//! The systemd unit: it is one, and it keeps its promise of little exposure.
#![expect(clippy::unwrap_used, reason = "a story that cannot go on ends there")]

use std::io::Write as _;
use std::process::{Command, Output};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/turnserver.service");
const EXPOSURE_MAX: f64 = 2.5;

/// The output of systemd-analyze; `None` where there is none.
fn analyze(args: &[&str]) -> Option<Output> {
    match Command::new("systemd-analyze").args(args).arg(UNIT).output() {
        Ok(output) => Some(output),
        Err(error) => {
            skip(&format!("unit_file: systemd-analyze: {error}"));
            None
        }
    }
}

/// A skipped test says so, and in CI it is a failure.
fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("skipped: {why}");
    if let Some(list) = std::env::var_os("TURNSERVER_SKIPS") {
        let mut list = std::fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
        writeln!(list, "{why}").unwrap();
    }
}

#[test]
fn the_unit_exposes_little_and_says_how_much() {
    let Some(output) = analyze(&["security", "--offline=true", "--no-pager"]) else { return };
    let report = String::from_utf8_lossy(&output.stdout);
    let figure = report.split_once("exposure level for turnserver.service: ").map(|(_, rest)| rest);
    let figure = figure.and_then(|rest| rest.split_whitespace().next()).unwrap_or_else(|| panic!("{report}"));
    assert!(figure.parse::<f64>().unwrap() <= EXPOSURE_MAX, "{report}");
    let unit = std::fs::read_to_string(UNIT).unwrap();
    assert!(unit.contains(&format!("exposure {figure}.")), "the unit's comment should say exposure {figure}");
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let Some(output) = analyze(&["verify", "--man=no"]) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    // The program need not be installed where the test runs.
    let complaints: Vec<&str> =
        said.lines().filter(|line| !line.contains("/usr/bin/turnserver is not executable")).collect();
    assert!(complaints.is_empty(), "{said}");
}
