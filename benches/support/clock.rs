//! The clock of the benches: they alone measure time.

#![allow(dead_code, reason = "every bench uses its own part of this")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::time::Instant;

/// How long something takes, in seconds.
pub(crate) fn timed<T>(what: impl FnOnce() -> T) -> f64 {
    let start = now();
    std::hint::black_box(what());
    start.elapsed().as_secs_f64()
}

/// What time it is.
pub(crate) fn now() -> Instant {
    Instant::now()
}
