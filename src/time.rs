//! The one clock of the relay, as values.
//!
//! `Instant` counts nanoseconds of CLOCK_MONOTONIC, because three parties must agree on it: the core, the next process
//! after an upgrade and, later, the kernel program. Wall time rides beside it for the expiry of credentials only.
//! Never reads a clock: `now` comes in as an argument.
#![forbid(unsafe_code)]

use core::ops::{Add, AddAssign, Sub};
pub use core::time::Duration;

/// A moment on the monotonic clock, in nanoseconds since an arbitrary start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

/// Wall time in whole seconds since 1970 (64 bits: 2038 and 2106 are ordinary years).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub u64);

/// What time it is, on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For every timer.
    pub mono: Instant,
    /// For the expiry of credentials.
    pub unix: UnixSeconds,
}

impl Instant {
    /// The time from `earlier` to `self`, zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds since the start of the clock.
    pub fn as_secs(self) -> u64 {
        self.0 / NANOS
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates: a lifetime from the network can never wrap the clock.
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub<Self> for Instant {
    type Output = Duration;

    fn sub(self, rhs: Self) -> Duration {
        self.since(rhs)
    }
}

/// `n` seconds.
pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// `n` minutes.
pub const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

const NANOS: u64 = 1_000_000_000;
