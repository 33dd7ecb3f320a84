//! When to look at which slot of the table again: a wheel of one-second notches.
//!
//! An entry is a promise to look, not a verdict: what is in the slot by then is checked against its own deadlines and
//! put back if it lives on, so a Refresh has nothing to do here. A slot that is promised a look already gets no second
//! promise for later, whoever has moved in meanwhile: allocating and releasing in a loop grows nothing. Never reads a
//! clock.
#![forbid(unsafe_code)]

use crate::time::{Instant, seconds};

/// Notches: over an hour at one a second; a later deadline comes up early and is put back.
const NOTCHES: u64 = 4096;

/// The wheel of one worker.
#[derive(Debug)]
pub(super) struct Wheel {
    notches: Vec<Vec<u32>>,
    /// Which notches have entries, a bit each.
    used: [u64; NOTCHES as usize / 64],
    /// The second that comes up next.
    next: u64,
}

impl Wheel {
    pub(super) fn new(now: Instant) -> Self {
        Self { notches: vec![Vec::new(); NOTCHES as usize], used: [0; NOTCHES as usize / 64], next: now.as_secs() }
    }

    /// Promises to name `slot` in the first whole second after `at`, or sooner when that is further away than the wheel
    /// reaches. Returns the second in which it will.
    pub(super) fn insert(&mut self, slot: u32, at: Instant) -> u64 {
        // `next` itself may have been looked at already in this very second.
        let due = (at.as_secs() + 1).clamp(self.next, self.next + NOTCHES - 1);
        let notch = due % NOTCHES;
        self.notches[notch as usize].push(slot);
        self.used[notch as usize / 64] |= 1 << (notch % 64);
        due
    }

    /// Takes everything that is due by `now` into `due`.
    pub(super) fn advance(&mut self, now: Instant, due: &mut Vec<u32>) {
        let end = now.as_secs() + 1;
        if end > self.next + NOTCHES {
            self.next = end - NOTCHES;
        }
        while self.next < end {
            let at = (self.next % NOTCHES) as usize;
            due.append(&mut self.notches[at]);
            if self.notches[at].capacity() > 64 {
                self.notches[at] = Vec::new();
            }
            self.used[at / 64] &= !(1 << (at % 64));
            self.next += 1;
        }
    }

    /// When something comes up next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let words = self.used.len() as u64;
        let first = self.next % NOTCHES;
        // The word of `next` is looked at twice: its later bits come first, its earlier ones last.
        (0..=words).find_map(|step| {
            let word = (first / 64 + step) % words;
            let ahead = u64::MAX << (first % 64);
            let mask = if step == 0 {
                ahead
            } else if step == words {
                !ahead
            } else {
                u64::MAX
            };
            let bits = self.used[word as usize] & mask;
            let notch = (bits != 0).then(|| word * 64 + u64::from(bits.trailing_zeros()))?;
            Some(Instant(0) + seconds(self.next + (notch + NOTCHES - first) % NOTCHES))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Instant {
        Instant(0) + seconds(second)
    }

    #[test]
    fn the_nearest_notch_is_found_wherever_the_wheel_stands() {
        for start in [0, 1, 63, 64, 4031, 4095, 4096, 9_999] {
            for ahead in [0, 1, 62, 63, 64, 65, 1_000, 4_030, 4_094] {
                let mut wheel = Wheel::new(at(start));
                assert_eq!(wheel.deadline(), None);
                let due = wheel.insert(7, at(start + ahead));
                assert_eq!(wheel.deadline(), Some(at(due)), "start {start}, ahead {ahead}");
                let mut named = Vec::new();
                wheel.advance(at(due - 1), &mut named);
                assert!(named.is_empty(), "start {start}, ahead {ahead}");
                wheel.advance(at(due), &mut named);
                assert_eq!((named.as_slice(), wheel.deadline()), (&[7][..], None), "start {start}, ahead {ahead}");
            }
        }
    }

    #[test]
    fn a_clock_that_leaps_further_than_the_wheel_reaches_leaves_nobody_behind() {
        for leap in [NOTCHES - 1, NOTCHES, NOTCHES + 1, 3 * NOTCHES + 7] {
            let mut wheel = Wheel::new(at(100));
            for ahead in [0, 1, 2_000, NOTCHES - 3] {
                wheel.insert(ahead as u32, at(100 + ahead));
            }
            let mut due = Vec::new();
            wheel.advance(at(100 + leap), &mut due);
            due.sort_unstable();
            assert_eq!(due, [0, 1, 2_000, NOTCHES as u32 - 3], "a leap of {leap}");
            let soon = wheel.insert(9, at(100 + leap));
            assert_eq!(soon, 100 + leap + 1, "what comes next is as near as ever");
        }
    }

    #[test]
    fn a_notch_keeps_room_for_a_few_and_not_for_a_crowd() {
        let room_after = |entries: u32| {
            let mut wheel = Wheel::new(at(0));
            for slot in 0..entries {
                wheel.insert(slot, at(7));
            }
            wheel.advance(at(8), &mut Vec::new());
            wheel.notches[8].capacity()
        };
        assert!(room_after(4) >= 4 && room_after(64) >= 64);
        assert_eq!(room_after(65), 0);
    }
}
