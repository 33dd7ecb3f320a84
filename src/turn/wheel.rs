//! When to look at which allocation again: a wheel of one-second slots.
//!
//! An entry is a promise to look, not a verdict: whoever comes up is checked against its own deadlines and put back if
//! it lives on, so a Refresh has nothing to do here. Never reads a clock.
#![forbid(unsafe_code)]

use super::RelayId;
use crate::time::{Instant, seconds};

/// Slots: over an hour at one a second; a later deadline comes up early and is put back.
const SLOTS: u64 = 4096;

/// The wheel of one worker.
#[derive(Debug)]
pub(super) struct Wheel {
    slots: Vec<Vec<RelayId>>,
    /// The second that comes up next.
    next: u64,
    entries: usize,
}

impl Wheel {
    pub(super) fn new(now: Instant) -> Self {
        Self { slots: vec![Vec::new(); SLOTS as usize], next: now.as_secs(), entries: 0 }
    }

    /// Promises to name `id` in the first whole second after `at`. Returns that second.
    pub(super) fn insert(&mut self, id: RelayId, at: Instant) -> u64 {
        // `next` itself may have been looked at already in this very second.
        let due = (at.as_secs() + 1).max(self.next);
        let slot = due.min(self.next + SLOTS - 1);
        self.slots[(slot % SLOTS) as usize].push(id);
        self.entries += 1;
        due
    }

    /// Takes everything that is due by `now` into `due`.
    pub(super) fn advance(&mut self, now: Instant, due: &mut Vec<RelayId>) {
        let end = now.as_secs() + 1;
        if end > self.next + SLOTS {
            self.next = end - SLOTS;
        }
        while self.next < end {
            let slot = &mut self.slots[(self.next % SLOTS) as usize];
            self.entries -= slot.len();
            due.append(slot);
            if slot.capacity() > 64 {
                *slot = Vec::new();
            }
            self.next += 1;
        }
    }

    /// When something comes up next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.entries == 0 {
            return None;
        }
        let second = (self.next..self.next + SLOTS).find(|at| !self.slots[(at % SLOTS) as usize].is_empty())?;
        Some(Instant(0) + seconds(second))
    }
}
