//! Every published flaw of TURN servers, tried on ours: the real program over real sockets, all of it on loopback.
//!
//! `script` is the part that can be pointed at any server, `coturn` shows that it finds what is there, `flaws` has one
//! test a row of `docs/flaws.md`.

#![cfg(feature = "server")]
#![forbid(unsafe_code)]

#[path = "adversary/chance.rs"]
mod chance;
#[path = "adversary/coturn.rs"]
mod coturn;
#[path = "adversary/flaws.rs"]
mod flaws;
#[path = "support/pair.rs"]
mod pair;
#[path = "adversary/script/mod.rs"]
mod script;
#[path = "support/server.rs"]
mod server;
#[path = "support/skip.rs"]
mod skip;
#[path = "support/temp.rs"]
mod temp;
#[path = "adversary/visitor.rs"]
mod visitor;
