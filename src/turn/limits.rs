//! Budgets: how much per second, for whom.
//!
//! A [`Bucket`] is eight bytes of state; the table of unauthenticated sources has a fixed size, so that a flood from any
//! number of addresses grows nothing. Never reads a clock.
#![forbid(unsafe_code)]

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
        let cost = u64::try_from(u128::from(amount) * u128::from(SECOND) / u128::from(rate.max(1))).unwrap_or(u64::MAX);
        let debt = self.full_at.0.saturating_sub(now.0);
        if debt > 0 && debt.saturating_add(cost) > SECOND {
            return false;
        }
        self.full_at = Instant(now.0.saturating_add(debt).saturating_add(cost));
        true
    }
}

/// Answers to unauthenticated datagrams, by source network: one IPv4 address or one IPv6 /64.
#[derive(Debug)]
pub(super) struct Strangers {
    buckets: Box<[Bucket]>,
    hash: FixedState,
}

/// Networks that share a bucket share its rate: a collision errs on the quiet side.
const STRANGER_BUCKETS: usize = 8192;

impl Strangers {
    pub(super) fn new(seed: u64) -> Self {
        Self { buckets: vec![Bucket::default(); STRANGER_BUCKETS].into(), hash: FixedState::with_seed(seed) }
    }

    /// Whether one more answer may go to `source`.
    pub(super) fn may_answer(&mut self, now: Instant, source: IpAddr, rate: u32) -> bool {
        let network = match source {
            IpAddr::V4(ip) => u64::from(u32::from(ip)),
            IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64,
        };
        let at = self.hash.hash_one((source.is_ipv4(), network)) as usize % STRANGER_BUCKETS;
        self.buckets[at].take(now, rate.into(), 1)
    }
}
