//! Locks and atomics: those of the standard library.
//!
//! Owns nothing. Built with `--cfg turnserver_loom` they are loom's, which tries every order in which threads can meet;
//! the models are in `src/worker/threads.rs`. What the workers share names its locks and atomics through here. Never used
//! for an `Arc`: nothing is decided by a count of owners.
#![forbid(unsafe_code)]

#[cfg(turnserver_loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(all(turnserver_loom, feature = "server"))]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(turnserver_loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(all(not(turnserver_loom), feature = "server"))]
pub(crate) use std::sync::{Mutex, MutexGuard};
