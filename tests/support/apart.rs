//! Tests that run in a network of their own.
//!
//! Such a test starts itself once more, alone, in a network namespace that nothing leads out of and that ends with it.

#![allow(dead_code, reason = "every test target uses its own part of this")]

use crate::skip::{has, skip};
use std::process::Command;

/// Names the test that runs apart, in its own process.
const NAME: &str = "TURNSERVER_TEST_APART";

/// Whether this process is the one apart. The other one waits for it and takes its outcome for its own; where this host
/// does not permit such networks the test is skipped.
pub(crate) fn is_apart() -> bool {
    let test = std::thread::current().name().expect("a test runs on a thread with its name").to_owned();
    if std::env::var(NAME).is_ok_and(|name| name == test) {
        run("ip", &["link", "set", "lo", "up"]);
        return true;
    }
    if !has("unshare") || !has("ip") {
        return false;
    }
    if !Command::new("unshare").args(["-n", "true"]).status().is_ok_and(|status| status.success()) {
        skip("a network namespace needs root");
        return false;
    }
    let program = std::env::current_exe().expect("a test knows its program");
    let mut apart = Command::new("unshare");
    apart.arg("-n").arg(program).args(["--exact", &test, "--nocapture", "--test-threads=1"]).env(NAME, &test);
    assert!(apart.status().expect("unshare starts").success(), "it fails in a network of its own; see above");
    false
}

/// Runs a command that has to succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().expect("the program starts");
    assert!(status.success(), "{program} {arguments:?}: {status}");
}
