//! turnserver.
pub mod config;
pub mod time;
pub mod turn;
pub mod wire;

#[cfg(feature = "server")]
pub mod cli;
