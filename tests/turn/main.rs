//! Conversations with the server in simulated time, a chapter of the RFCs each.
//!
//! `support` is the world: a clock, clients by name, peers, and the shell's part. Every packet the server emits in any
//! story is read strictly there. Never sleeps, never opens a socket.
#![forbid(unsafe_code)]

mod allocate;
mod answers;
mod auth;
mod channel;
mod discovery;
mod drain;
mod dual;
mod framing;
mod headers;
mod indication;
mod journeys;
mod limits;
mod mobility;
mod noise;
mod peers;
mod permission;
mod policy;
mod ports;
mod probes;
mod reflection;
mod refresh;
mod refusal;
mod secrets;
mod sha256;
#[path = "../support/shapes.rs"]
mod shapes;
mod support;
mod tally;
mod tcp;
mod token;
mod worlds;
