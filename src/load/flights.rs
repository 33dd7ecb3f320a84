//! The packets that are under way in a closed loop.
//!
//! A place for each, numbered; the number travels in the packet's stamp. What is not back in time is written off, so that
//! a loss costs a place for that long and never stalls the loop; should it come after all, its place knows it no more.
//! Never reads a clock.
#![forbid(unsafe_code)]

use crate::time::{Duration, Instant};

/// Silence after which a packet counts as lost.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);
/// No place: of packets that are not waited for.
pub(super) const NOWHERE: u16 = u16::MAX;

/// The places.
#[derive(Debug)]
pub struct Flights {
    places: Vec<Option<Flight>>,
    free: Vec<u16>,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    client: u32,
    sequence: u32,
    sent: Instant,
}

impl Flights {
    /// Room for `count` packets, at most 65,535.
    pub fn new(count: usize) -> Self {
        let count = u16::try_from(count).unwrap_or(NOWHERE);
        Self { places: vec![None; count.into()], free: (0..count).rev().collect() }
    }

    /// How many are under way.
    pub fn under_way(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// How many more may be.
    pub fn room(&self) -> usize {
        self.free.len()
    }

    /// A packet leaves; `None` when there is no place.
    pub fn begin(&mut self, client: u32, sequence: u32, sent: Instant) -> Option<u16> {
        let slot = self.free.pop()?;
        *self.places.get_mut(usize::from(slot))? = Some(Flight { client, sequence, sent });
        Some(slot)
    }

    /// A packet has arrived, or has not left. `false` when nobody waits for it: it was written off, or came twice.
    pub fn end(&mut self, slot: u16, client: u32, sequence: u32) -> bool {
        let Some(place) = self.places.get_mut(usize::from(slot)) else { return false };
        if !place.is_some_and(|flight| flight.client == client && flight.sequence == sequence) {
            return false;
        }
        *place = None;
        self.free.push(slot);
        true
    }

    /// Gives up what has been under way for too long and names its client.
    pub fn write_off(&mut self, now: Instant, mut lost: impl FnMut(u32)) {
        for (slot, place) in (0u16..).zip(&mut self.places) {
            if place.is_some_and(|flight| now.since(flight.sent) > PATIENCE)
                && let Some(flight) = place.take()
            {
                self.free.push(slot);
                lost(flight.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant(1_000_000_000);

    #[test]
    fn there_are_never_more_under_way_than_places() {
        let mut flights = Flights::new(2);
        let first = flights.begin(7, 1, START).unwrap();
        flights.begin(7, 2, START).unwrap();
        assert_eq!((flights.begin(7, 3, START), flights.under_way(), flights.room()), (None, 2, 0));
        assert!(flights.end(first, 7, 1));
        assert!(flights.begin(7, 3, START).is_some());
    }

    #[test]
    fn what_is_written_off_is_not_counted_when_it_comes_after_all() {
        let mut flights = Flights::new(2);
        let (old, new) = (flights.begin(7, 1, START).unwrap(), flights.begin(8, 1, START + PATIENCE).unwrap());
        let mut lost = Vec::new();
        flights.write_off(START + PATIENCE, |client| lost.push(client));
        assert!(lost.is_empty());
        flights.write_off(START + PATIENCE + Duration::from_nanos(1), |client| lost.push(client));
        assert_eq!((lost, flights.under_way()), (vec![7], 1));
        assert!(!flights.end(old, 7, 1));
        let again = flights.begin(7, 2, START + PATIENCE).unwrap();
        assert_eq!(again, old);
        assert!(!flights.end(old, 7, 1), "its place has another packet");
        assert!(flights.end(old, 7, 2) && flights.end(new, 8, 1));
        assert!(!flights.end(new, 8, 1), "twice");
        assert!(!flights.end(NOWHERE, 8, 1));
    }
}
