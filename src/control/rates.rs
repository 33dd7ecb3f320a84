//! How fast the server relays: what the tallies say now against what they said some seconds ago.
//!
//! Owns a few readings, taken while the supervisor looks around. Never reads a clock or a tally itself.
#![forbid(unsafe_code)]

use crate::time::{Duration, Instant, seconds};
use std::collections::VecDeque;

/// What was relayed, both ways, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// From clients to peers.
    pub to_peer: Volume,
    /// From peers to clients.
    pub to_client: Volume,
}

/// Packets and bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Datagrams.
    pub packets: u64,
    /// Payload bytes, without any framing.
    pub bytes: u64,
}

impl Relayed {
    /// What has been added to `earlier`.
    fn since(self, earlier: Self) -> Self {
        let added = |now: Volume, then: Volume| Volume {
            packets: now.packets.wrapping_sub(then.packets),
            bytes: now.bytes.wrapping_sub(then.bytes),
        };
        Self { to_peer: added(self.to_peer, earlier.to_peer), to_client: added(self.to_client, earlier.to_client) }
    }
}

/// Readings of the last seconds, the oldest first.
#[derive(Debug)]
pub struct Rates(VecDeque<(Instant, Relayed)>);

/// Between two readings at least, and the least time that says anything about a rate.
const STEP: Duration = seconds(1);
/// With the supervisor's look around every two seconds they reach back about ten.
const READINGS: usize = 5;

impl Rates {
    /// Those of a server that begins now.
    pub fn new(now: Instant) -> Self {
        Self(VecDeque::from([(now, Relayed::default())]))
    }

    /// Keeps a reading, unless the last one is hardly older.
    pub fn note(&mut self, now: Instant, relayed: Relayed) {
        if self.0.back().is_some_and(|(last, _)| now.since(*last) < STEP) {
            return;
        }
        if self.0.len() == READINGS {
            self.0.pop_front();
        }
        self.0.push_back((now, relayed));
    }

    /// What was relayed since the oldest reading, and how long ago that was; `None` when it is too young.
    pub fn lately(&self, now: Instant, relayed: Relayed) -> Option<(Duration, Relayed)> {
        let (then, before) = self.0.front()?;
        let passed = now.since(*then);
        (passed >= STEP).then(|| (passed, relayed.since(*before)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::default() + Duration::from_millis(millis)
    }

    fn relayed(packets: u64) -> Relayed {
        Relayed { to_peer: Volume { packets, bytes: 100 * packets }, to_client: Volume::default() }
    }

    #[test]
    fn a_server_that_has_just_begun_has_no_rate() {
        let rates = Rates::new(at(5000));
        assert_eq!(rates.lately(at(5999), relayed(7)), None);
        assert_eq!(rates.lately(at(6000), relayed(7)), Some((seconds(1), relayed(7))));
    }

    #[test]
    fn what_is_long_ago_counts_no_more() {
        let mut rates = Rates::new(at(0));
        for second in (2..=60).step_by(2) {
            rates.note(at(second * 1000), relayed(1000));
        }
        let (passed, lately) = rates.lately(at(61_000), relayed(1009)).unwrap();
        assert_eq!((passed, lately), (seconds(9), relayed(9)));
    }

    #[test]
    fn a_watchdog_in_a_hurry_does_not_shorten_what_is_looked_at() {
        let mut rates = Rates::new(at(0));
        (1..=600).for_each(|look| rates.note(at(100 * look), relayed(look)));
        let (passed, _) = rates.lately(at(60_000), relayed(600)).unwrap();
        assert_eq!(passed, seconds(4));
        assert_eq!(rates.0.len(), READINGS);
    }
}
