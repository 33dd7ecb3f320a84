//! turnserver.
pub mod config;
pub mod time;
pub mod turn;
pub mod wire;

#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod control;
#[cfg(feature = "server")]
pub mod log;
