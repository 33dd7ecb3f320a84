//! The law of relaying.
#![forbid(unsafe_code)]

pub mod credential;
pub mod peers;
pub mod policy;
pub mod refusal;
pub mod tally;
