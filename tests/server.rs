//! The real program over real sockets, all of it on loopback.
//!
//! Each file has one noun of what the shell does beside the law of relaying, which `tests/turn` tells without sockets.

#![cfg(feature = "server")]

#[path = "server/addresses.rs"]
mod addresses;
#[path = "server/batches.rs"]
mod batches;
#[path = "server/binding.rs"]
mod binding;
#[path = "server/caller.rs"]
mod caller;
#[path = "server/connections.rs"]
mod connections;
#[path = "server/descriptors.rs"]
mod descriptors;
#[path = "server/drain.rs"]
mod drain;
#[path = "server/framing.rs"]
mod framing;
#[path = "server/junk.rs"]
mod junk;
#[path = "server/life.rs"]
mod life;
#[path = "server/limits.rs"]
mod limits;
#[path = "server/loops.rs"]
mod loops;
#[path = "server/moves.rs"]
mod moves;
#[path = "support/namespace.rs"]
mod namespace;
#[path = "server/numbers.rs"]
mod numbers;
#[path = "support/pair.rs"]
mod pair;
#[path = "server/peers.rs"]
mod peers;
#[path = "server/port.rs"]
mod port;
#[path = "server/ports.rs"]
mod ports;
#[path = "server/relayed.rs"]
mod relayed;
#[path = "server/secrets.rs"]
mod secrets;
#[path = "support/server.rs"]
mod server;
#[path = "support/skip.rs"]
mod skip;
#[path = "server/status.rs"]
mod status;
#[path = "support/temp.rs"]
mod temp;
#[path = "server/tls.rs"]
mod tls;
#[path = "server/trains.rs"]
mod trains;
