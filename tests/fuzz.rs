//! Every fuzz target, without a fuzzer: the kept corpora, and a bounded number of changes to them.
//!
//! The same targets run under libFuzzer, see docs/testing.md. Chance comes from a seed: a failure is the same the next
//! time, and the bytes that made it are printed. `FUZZ_RUNS` is how many changed inputs each target gets.
#![forbid(unsafe_code)]

#[path = "fuzz/targets/mod.rs"]
mod targets;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::path::Path;
use std::{env, fs, thread};

/// Changed inputs for each target, unless `FUZZ_RUNS` says another number: some seconds for all of them.
const RUNS: usize = 1000;
/// The longest input that is made up, in bytes.
const LONGEST: usize = 4096;
/// What parsers make much of.
const MAGIC: [&[u8]; 8] = [
    &[0x21, 0x12, 0xA4, 0x42],
    &[0, 0, 0, 0],
    &[0xFF, 0xFF, 0xFF, 0xFF],
    &[0x7F, 0xFF],
    &[0x40, 0],
    b"\r\n",
    b"\n[",
    b" = \"",
];

macro_rules! replays {
    ($($story:ident: $target:literal;)*) => {
        $(#[test] fn $story() { replays($target); })*

        #[test]
        fn every_target_is_replayed_and_has_a_corpus_and_a_program() {
            let names: Vec<_> = targets::ALL.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$($target),*]);
            for name in names {
                assert!(fs::exists(root().join(format!("fuzz_targets/{name}.rs"))).is_ok_and(|exists| exists));
                assert!(!corpus(name).is_empty(), "{name}");
            }
        }
    };
}

replays! {
    no_bytes_harm_the_reader_of_messages: "message";
    what_is_read_is_written_back_as_it_was: "round_trip";
    no_cut_of_a_stream_changes_what_was_said: "framing";
    channel_data_is_what_it_says: "channel";
    no_story_breaks_the_law_of_the_server: "server";
    the_peer_filter_agrees_with_a_plain_model: "peers";
    only_what_was_made_here_opens: "credentials";
    no_text_harms_the_reader_of_the_configuration: "config";
    what_a_connection_opens_with_is_told_once: "opening";
    no_body_breaks_the_http_side_or_shows_a_secret: "bodies";
}

fn replays(name: &str) {
    let corpus = corpus(name);
    for bytes in &corpus {
        runs(name, bytes);
    }
    let runs_wanted = env::var("FUZZ_RUNS").map_or(RUNS, |runs| runs.parse().expect("FUZZ_RUNS is a number"));
    let mut rng = ChaCha8Rng::from_seed([42; 32]);
    for _ in 0..runs_wanted {
        runs(name, &changed(&mut rng, &corpus));
    }
}

/// Runs a target; when it fails, the bytes are said.
fn runs(name: &str, bytes: &[u8]) {
    let said = Said { name, bytes };
    targets::run(name, bytes);
    drop(said);
}

struct Said<'a> {
    name: &'a str,
    bytes: &'a [u8],
}

impl Drop for Said<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let hex: String = self.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("the target `{}` fails on these bytes: {hex}", self.name);
        }
    }
}

/// An input of the corpus with a few things done to it.
fn changed(rng: &mut ChaCha8Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut below = |bound: usize| rng.next_u32() as usize % bound.max(1);
    let mut bytes = corpus[below(corpus.len())].clone();
    for _ in 0..=below(4) {
        let at = below(bytes.len() + 1);
        match below(7) {
            0 => bytes.insert(at, below(256) as u8),
            1 => bytes.truncate(at),
            2 => drop(bytes.splice(at.., corpus[below(corpus.len())].iter().copied())),
            3 => drop(bytes.splice(at..at, MAGIC[below(MAGIC.len())].iter().copied())),
            4 => {
                let end = at + below(bytes.len() - at + 1).min(64);
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            5 => drop(bytes.splice(at..(at + below(8)).min(bytes.len()), [])),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << below(8);
                }
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

/// The kept inputs of a target, in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = root().join("corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("the corpus can be read").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).expect("the corpus can be read")).collect()
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}
