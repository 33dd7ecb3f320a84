//! When each packet of a paced load is due.
//!
//! The clients take turns, evenly: no two packets are due at once and no client has bursts. The schedule waits for
//! nobody, so a late packet makes the ones behind it no later. Never reads a clock.
#![forbid(unsafe_code)]

use crate::time::{Duration, Instant};

/// The schedule of one thread.
#[derive(Debug)]
pub struct Pace {
    start: Instant,
    clients: u64,
    /// Packets a second of all clients together.
    rate: u64,
    next: u64,
}

const SECOND: u128 = 1_000_000_000; // nanoseconds

impl Pace {
    /// `rate` packets a second from each of so many clients.
    pub fn new(start: Instant, clients: usize, rate: u32) -> Self {
        let clients = clients.max(1) as u64;
        Self { start, clients, rate: u64::from(rate.max(1)) * clients, next: 0 }
    }

    /// When the next packet is due.
    pub fn due(&self) -> Instant {
        let after = u128::from(self.next) * SECOND / u128::from(self.rate);
        self.start + Duration::from_nanos(u64::try_from(after).unwrap_or(u64::MAX))
    }

    /// Whose packet is due now, and since when; then the next one is.
    pub fn take(&mut self, now: Instant) -> Option<(usize, Instant)> {
        let due = self.due();
        if due > now {
            return None;
        }
        let client = (self.next % self.clients) as usize;
        self.next += 1;
        Some((client, due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::seconds;

    const START: Instant = Instant(5_000);

    #[test]
    fn each_client_has_its_rate_and_its_turn() {
        let mut pace = Pace::new(START, 3, 50);
        let (mut counts, mut last) = ([0; 3], None);
        // The end of the second belongs to the next one.
        let end = Instant((START + seconds(1)).0 - 1);
        while let Some((client, due)) = pace.take(end) {
            counts[client] += 1;
            assert!(last.is_none_or(|last| due > last));
            last = Some(due);
        }
        assert_eq!(counts, [50; 3]);
        assert_eq!(pace.due(), START + seconds(1));
    }

    #[test]
    fn a_late_packet_makes_no_other_late_and_long_runs_drift_nowhere() {
        let mut pace = Pace::new(START, 7, 3);
        assert_eq!(pace.take(START), Some((0, START)));
        assert_eq!(pace.take(START), None);
        let late = START + seconds(1000);
        let mut count = 1;
        while pace.take(late).is_some() {
            count += 1;
        }
        assert_eq!((count, pace.due().since(late).as_millis()), (21_001, 47));
    }
}
