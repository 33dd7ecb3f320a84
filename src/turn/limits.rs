//! Budgets: how much per second, for whom.
//!
//! A bucket is eight bytes of state; the table of unauthenticated sources has a fixed size, so that a flood from any
//! number of addresses grows nothing. Never reads a clock.
#![forbid(unsafe_code)]

use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;
use crate::time::Instant;
use core::hash::BuildHasher;
use core::net::IpAddr;
use foldhash::fast::FixedState;

/// A token bucket that holds one second's worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    /// When the bucket is full again, on the monotonic clock; in the past when it is full.
    full_at: Instant,
}

const SECOND: u64 = 1_000_000_000;

impl Bucket {
    /// Takes `amount` out of a bucket that fills at `rate` a second. `false`, and nothing taken, when it does not hold
    /// as much. What is larger than a whole second's worth passes only from a full bucket.
    pub(super) fn take(&mut self, now: Instant, rate: u64, amount: u64) -> bool {
        let Some(full_at) = taken(self.full_at.0, now, rate, amount) else { return false };
        self.full_at = Instant(full_at);
        true
    }
}

impl Bucket {
    /// Takes `amount` out of a bucket that fills at `rate` a second, whether it holds as much or not. When it is over a
    /// second's worth in debt, the moment when it no longer is.
    pub(super) fn charge(&mut self, now: Instant, rate: u64, amount: u64) -> Option<Instant> {
        let full_at = self.full_at.0.max(now.0).saturating_add(cost(rate, amount));
        self.full_at = Instant(full_at);
        (full_at - now.0 > SECOND).then(|| Instant(full_at - SECOND))
    }
}

/// A bucket that several threads take from; the same rule.
#[derive(Debug, Default)]
pub struct SharedBucket(AtomicU64);

impl SharedBucket {
    /// Takes `amount` out of a bucket that fills at `rate` a second.
    pub fn take(&self, now: Instant, rate: u64, amount: u64) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |full_at| taken(full_at, now, rate, amount)).is_ok()
    }

    /// Takes `amount`, which has been spent already. When the bucket is over half empty, the moment when it no longer is:
    /// whoever can wait leaves the rest to those who cannot.
    pub fn charge(&self, now: Instant, rate: u64, amount: u64) -> Option<Instant> {
        const HALF: u64 = SECOND / 2;
        let after = |full_at: u64| full_at.max(now.0).saturating_add(cost(rate, amount));
        let before = self.0.fetch_update(Relaxed, Relaxed, |full_at| Some(after(full_at)));
        let full_at = after(before.unwrap_or_else(|full_at| full_at));
        (full_at - now.0 > HALF).then(|| Instant(full_at - HALF))
    }
}

/// When a bucket is full again after `amount` is taken; `None` when it does not hold as much.
fn taken(full_at: u64, now: Instant, rate: u64, amount: u64) -> Option<u64> {
    let cost = cost(rate, amount);
    let debt = full_at.saturating_sub(now.0);
    (debt == 0 || debt.saturating_add(cost) <= SECOND).then(|| now.0.saturating_add(debt).saturating_add(cost))
}

/// How long a bucket that fills at `rate` a second takes for `amount`, in nanoseconds.
fn cost(rate: u64, amount: u64) -> u64 {
    u64::try_from(u128::from(amount) * u128::from(SECOND) / u128::from(rate.max(1))).unwrap_or(u64::MAX)
}

/// Answers to unauthenticated datagrams, by source network: one IPv4 address or one IPv6 /64. All workers share it,
/// because one source can reach each of them.
#[derive(Debug)]
pub struct Strangers {
    buckets: Box<[SharedBucket]>,
    hash: FixedState,
}

/// Networks that share a bucket share its rate: a collision errs on the quiet side.
const STRANGER_BUCKETS: usize = if cfg!(turnserver_loom) { 2 } else { 8192 };

impl Strangers {
    /// A table in which nobody has been answered. The seed keeps sources from choosing whose bucket they share.
    pub fn new(seed: u64) -> Self {
        let buckets = (0..STRANGER_BUCKETS).map(|_| SharedBucket::default()).collect();
        Self { buckets, hash: FixedState::with_seed(seed) }
    }

    /// Whether one more answer may go to `source`.
    pub fn may_answer(&self, now: Instant, source: IpAddr, rate: u32) -> bool {
        let network = match source {
            IpAddr::V4(ip) => u64::from(u32::from(ip)),
            IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64,
        };
        let at = self.hash.hash_one((source.is_ipv4(), network)) as usize % STRANGER_BUCKETS;
        self.buckets[at].take(now, rate.into(), 1)
    }
}
