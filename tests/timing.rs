//! How long a no takes tells a stranger nothing: the instructions of both sides of each pair are counted.
//!
//! Callgrind counts, so the figure is the same on a busy machine and an idle one, and no clock is read. What a cache or a
//! branch predictor adds is not in it; `cargo run --release --example timing` measures that with a clock, for people.

#![cfg(feature = "server")]
#![forbid(unsafe_code)]

#[path = "timing/cases.rs"]
mod cases;
#[path = "support/skip.rs"]
mod skip;
#[path = "support/temp.rs"]
mod temp;

use cases::{Pair, World};
use std::path::Path;
use std::process::Command;

/// How often each request of a pair is asked, alternately: once to see the figure, once more to see it again.
const ROUNDS: usize = 2;
/// Requests that [`World::new`] asks by itself.
const ASKED_AT_FIRST: usize = 3;
/// What the counts of a pair may differ by, in a debug build: the search for a name ends a comparison sooner where there
/// is one, 113 instructions in 86,000. A hash more or less is thirty times as much.
const TOLERANCE: f64 = 0.002;

#[test]
fn a_no_takes_as_many_instructions_whatever_was_wrong() {
    if !skip::has("valgrind") {
        return;
    }
    let folder = temp::TempDir::new("timing");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--toggle-collect=timing::cases::World::ask"]);
    valgrind.arg("--dump-after=timing::cases::World::ask");
    valgrind.arg(format!("--callgrind-out-file={}", folder.path().join("count").display()));
    valgrind.arg(std::env::current_exe().expect("the test has a file"));
    let output = valgrind.args(["--exact", "asks_each_pair_for_the_counter"]).output();
    let output = output.expect("valgrind runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let asked = ASKED_AT_FIRST + 2 * ROUNDS;
    for (at, pair) in Pair::ALL.into_iter().enumerate() {
        let first = asked * at + ASKED_AT_FIRST;
        let counts: Vec<u64> = (first..first + 2 * ROUNDS).map(|call| count(folder.path(), call + 1)).collect();
        println!("{pair:?}: {counts:?}");
        let (least, most) = (counts.iter().min().expect("some"), counts.iter().max().expect("some"));
        assert!(*least > 1_000, "something was counted: {pair:?} {counts:?}");
        let difference = (most - least) as f64 / *least as f64;
        assert!(difference <= TOLERANCE, "{pair:?} can be told apart: {counts:?}, {:.3} %", 100.0 * difference);
    }
}

/// Instructions of the `call`th call, counted from 1.
fn count(folder: &Path, call: usize) -> u64 {
    let file = folder.join(format!("count.{call}"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    totals.and_then(|count| count.trim().parse().ok()).unwrap_or_else(|| panic!("no total in {}", file.display()))
}

/// The test beside it runs this one under valgrind; by itself it shows that every pair can be asked.
#[test]
fn asks_each_pair_for_the_counter() {
    for pair in Pair::ALL {
        let mut world = World::new(pair);
        for side in [0, 1].repeat(ROUNDS) {
            world.fill(side);
            world.ask();
        }
    }
}
