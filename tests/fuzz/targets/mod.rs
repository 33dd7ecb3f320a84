//! What no bytes may break, as plain functions.
//!
//! Each target takes bytes and panics when a promise does not hold. libFuzzer calls them through `fuzz_targets`, ordinary
//! tests through `tests/fuzz.rs`; neither knows more of a target than its name. Never opens a socket, asks no clock what to
//! find, and does the same for the same bytes.

mod bodies;
mod channel;
mod config;
mod credentials;
mod framing;
mod message;
mod opening;
mod peers;
mod round_trip;
mod script;
mod server;
mod strict;

/// The name of a corpus, and what its inputs are for.
type Target = (&'static str, fn(&[u8]));

/// Every target.
pub(crate) const ALL: &[Target] = &[
    ("message", message::run),
    ("round_trip", round_trip::run),
    ("framing", framing::run),
    ("channel", channel::run),
    ("server", server::run),
    ("peers", peers::run),
    ("credentials", credentials::run),
    ("config", config::run),
    ("opening", opening::run),
    ("bodies", bodies::run),
];

/// Runs the target of this name.
pub(crate) fn run(name: &str, bytes: &[u8]) {
    let (_, target) = ALL.iter().find(|(known, _)| *known == name).expect("a target is in the list");
    target(bytes);
}
