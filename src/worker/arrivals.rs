//! What one receiving call has brought, datagram by datagram; the trains among it in pieces.
//!
//! A datagram stays in the slot it came in. One of a train is copied to a slot of its own, because what is put before it
//! would overwrite the one before. When there are no more slots, what waits to be sent is sent, and what nobody has looked
//! at yet moves to the beginning.
#![forbid(unsafe_code)]

use super::Worker;
use super::sockets::Haul;
use crate::net::udp::Meta;
use crate::turn::refusal::Dropped;
use core::ops::Range;

/// A received batch that is being looked at.
#[derive(Debug)]
pub(super) struct Arrivals {
    /// Places in the batch that nobody has looked at.
    places: Range<usize>,
    /// The slot of the first of them.
    slot: usize,
    /// Slots that must be free whenever a datagram of a train is looked at.
    spare: usize,
    train: Option<Train>,
    /// What has come so far.
    pub(super) haul: Haul,
}

/// A train that is being taken to pieces.
#[derive(Debug)]
struct Train {
    slot: usize,
    meta: Meta,
    at: usize,
}

impl Worker {
    /// The batch that the last call has put into the first `count` free slots.
    pub(super) fn arrivals(&mut self, count: usize, spare: usize) -> Arrivals {
        let slot = self.used;
        self.used += count;
        let haul = Haul { wakeup: self.wakeup, filled: count, datagrams: 0, overflowed: 0 };
        Arrivals { places: 0..count, slot, spare, train: None, haul }
    }

    /// The next datagram, and what is known of it.
    pub(super) fn next_arrival(&mut self, arrivals: &mut Arrivals) -> Option<(usize, Meta)> {
        loop {
            if arrivals.train.is_some() {
                if let Some(piece) = self.next_piece(arrivals) {
                    arrivals.haul.datagrams += 1;
                    return Some(piece);
                }
                arrivals.train = None;
            }
            let place = arrivals.places.next()?;
            let slot = arrivals.slot;
            arrivals.slot += 1;
            let Some(meta) = self.inbound.meta(place) else { continue };
            arrivals.haul.overflowed = arrivals.haul.overflowed.max(meta.overflowed);
            if meta.truncated {
                self.tally.count_drop(Dropped::TooLarge);
            } else if meta.segment > 0 {
                arrivals.train = Some(Train { slot, meta, at: 0 });
            } else {
                arrivals.haul.datagrams += 1;
                return Some((slot, meta));
            }
        }
    }

    fn next_piece(&mut self, arrivals: &mut Arrivals) -> Option<(usize, Meta)> {
        if self.used + 1 + arrivals.spare > self.slots.len() {
            self.clear_but(arrivals);
        }
        let train = arrivals.train.as_mut()?;
        let piece = self.used;
        let [whole, to] = self.slots.get_disjoint_mut([train.slot, piece]).ok()?;
        let end = (train.at + train.meta.segment).min(whole.len());
        let bytes = whole.data().get(train.at..end).filter(|bytes| !bytes.is_empty())?;
        to.fill(bytes);
        to.marks = whole.marks;
        train.at = end;
        self.used += 1;
        Some((piece, train.meta))
    }

    /// Sends what waits and moves what is left of the batch, the train first, to the beginning.
    fn clear_but(&mut self, arrivals: &mut Arrivals) {
        self.send_outbox();
        let Some(train) = &mut arrivals.train else { return };
        self.slots.swap(0, train.slot);
        train.slot = 0;
        let left = arrivals.places.len();
        (0..left).for_each(|at| self.slots.swap(1 + at, arrivals.slot + at));
        arrivals.slot = 1;
        self.used = 1 + left;
    }
}
