//! The systemd unit: it is one, and it keeps its promise of little exposure.
#![expect(clippy::unwrap_used, reason = "a story that cannot go on ends there")]

#[path = "support/skip.rs"]
mod skip;

use std::process::{Command, Output};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/turnserver.service");
const EXPOSURE_MAX: f64 = 2.5;

/// The output of systemd-analyze; `None` where there is none.
fn analyze(args: &[&str]) -> Option<Output> {
    let output = || Command::new("systemd-analyze").args(args).arg(UNIT).output().unwrap();
    skip::has("systemd-analyze").then(output)
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
        said.lines().filter(|line| !line.contains("/usr/local/bin/turnserver is not executable")).collect();
    assert!(complaints.is_empty(), "{said}");
}
