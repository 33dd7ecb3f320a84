//! turnserver.
#[cfg(feature = "server")]
pub mod net;
pub mod time;
pub mod turn;
pub mod wire;
#[cfg(feature = "server")]
pub mod worker;

#[cfg(feature = "server")]
pub mod cli;
