//! Floods and loops: the real program against whoever sends much, lies about addresses, or hopes for an echo.
//!
//! What must have every address runs in a network of its own (`namespace`). `TURNSERVER_FLOOD` is how many forged
//! messages a flood has, a million if unset; one network alone sends a fiftieth of that.

#![cfg(feature = "server")]
#![forbid(unsafe_code)]

#[allow(dead_code, reason = "the caller knows more than these stories ask of it")]
#[path = "server/caller.rs"]
mod caller;
#[path = "flood/forger.rs"]
mod forger;
#[path = "flood/lines.rs"]
mod lines;
#[path = "flood/loops.rs"]
mod loops;
#[path = "support/namespace.rs"]
mod namespace;
#[path = "support/pair.rs"]
mod pair;
#[path = "flood/reflection.rs"]
mod reflection;
#[path = "support/server.rs"]
mod server;
#[path = "support/shapes.rs"]
mod shapes;
#[path = "support/skip.rs"]
mod skip;
#[path = "flood/strangers.rs"]
mod strangers;
#[path = "support/temp.rs"]
mod temp;
