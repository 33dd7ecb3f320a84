//! Where the allocations are: a slab, and one index from 5-tuple to slot.
//!
//! The slab is the only owner; the index holds slot numbers and compares against the slab, so the two cannot disagree
//! about a key. An allocation on the move stands there twice, once for each of its paths; one whose
//! connection closed and that may move, not at all. Relay sockets carry their
//! [`RelayId`] and need no index.
#![forbid(unsafe_code)]

use super::allocation::Allocation;
use super::{FiveTuple, Path, RelayId};
use crate::wire::stun::TransactionId;
use core::hash::BuildHasher;
use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Marks an entry of the index that stands for the path an allocation moves to.
const NEXT: u32 = 1 << 31;

/// Uses of a slot before its ids repeat: 2^24, so that an id and a kind fit the 64 bits of an epoll event.
const GENERATION: u32 = 0x00FF_FFFF;

/// Every allocation of one worker.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    by_tuple: HashTable<u32>,
    hash: FixedState,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    allocation: Option<Box<Allocation>>,
    /// The second in which the wheel names this slot next; it outlives the allocation.
    due: u64,
}

/// No second: the wheel has not promised to name the slot.
pub(super) const NOT_DUE: u64 = u64::MAX;

impl Table {
    /// The seed keeps clients from choosing 5-tuples that collide.
    pub(super) fn new(seed: u64) -> Self {
        Self { slots: Vec::new(), vacant: Vec::new(), by_tuple: HashTable::new(), hash: FixedState::with_seed(seed) }
    }

    /// The allocation on this 5-tuple.
    pub(super) fn find(&self, tuple: &FiveTuple) -> Option<RelayId> {
        let matches = |entry: &u32| self.key(*entry) == Some(tuple);
        let index = *self.by_tuple.find(self.hash.hash_one(tuple), matches)? & !NEXT;
        Some(RelayId { index, generation: self.slots.get(index as usize)?.generation })
    }

    /// The allocation with this id, while it lives.
    pub(super) fn get(&self, id: RelayId) -> Option<&Allocation> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        slot.allocation.as_deref()
    }

    /// The allocation with this id, to be changed.
    pub(super) fn get_mut(&mut self, id: RelayId) -> Option<&mut Allocation> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        slot.allocation.as_deref_mut()
    }

    /// Takes an allocation in. Its 5-tuple must not be in use.
    pub(super) fn insert(&mut self, allocation: Allocation) -> RelayId {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, allocation: None, due: NOT_DUE });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        let id = RelayId { index, generation: slot.generation };
        slot.allocation = Some(Box::new(allocation));
        self.index(index);
        id
    }

    /// Lets an allocation be found by the path it moves to, and no longer by the one it was to move to before. The
    /// 5-tuple must not be in use.
    pub(super) fn set_next(&mut self, id: RelayId, next: Option<(Path, TransactionId)>) {
        self.unindex(id.index | NEXT);
        let Some(mobility) = self.get_mut(id).and_then(|allocation| allocation.mobility.as_mut()) else { return };
        mobility.next = next;
        if next.is_some() {
            self.index(id.index | NEXT);
        }
    }

    /// Lets an allocation whose connection closed be found by its ticket alone: whoever has the 5-tuple next may be another.
    pub(super) fn set_adrift(&mut self, id: RelayId) {
        self.unindex(id.index);
    }

    /// Ends the move of an allocation: the path it moved to is its path now.
    pub(super) fn settle(&mut self, id: RelayId) {
        let Some((next, _)) = self.get(id).and_then(|held| held.mobility.as_ref()).and_then(|mobility| mobility.next)
        else {
            return;
        };
        self.set_next(id, None);
        self.unindex(id.index);
        if let Some(allocation) = self.get_mut(id) {
            allocation.path = next;
            self.index(id.index);
        }
    }

    /// Takes the allocation out.
    pub(super) fn remove(&mut self, id: RelayId) -> Option<Box<Allocation>> {
        self.get(id)?;
        self.unindex(id.index);
        self.unindex(id.index | NEXT);
        let slot = self.slots.get_mut(id.index as usize)?;
        let allocation = slot.allocation.take()?;
        slot.generation = (slot.generation + 1) & GENERATION;
        self.vacant.push(id.index);
        Some(allocation)
    }

    /// The id of what is in a slot.
    pub(super) fn id(&self, index: u32) -> Option<RelayId> {
        let slot = self.slots.get(index as usize)?;
        slot.allocation.as_ref().map(|_| RelayId { index, generation: slot.generation })
    }

    /// When the wheel names a slot next.
    pub(super) fn due(&mut self, index: u32) -> Option<&mut u64> {
        self.slots.get_mut(index as usize).map(|slot| &mut slot.due)
    }

    /// The ids of all allocations, in slot order.
    pub(super) fn ids(&self) -> impl Iterator<Item = RelayId> + '_ {
        let id = |(index, slot): (usize, &Slot)| {
            slot.allocation.is_some().then_some(RelayId { index: index as u32, generation: slot.generation })
        };
        self.slots.iter().enumerate().filter_map(id)
    }

    /// The 5-tuple that an entry of the index stands for.
    fn key(&self, entry: u32) -> Option<&FiveTuple> {
        key(&self.slots, entry)
    }

    fn index(&mut self, entry: u32) {
        let (slots, hasher) = (&self.slots, &self.hash);
        let hash = |entry: &u32| key(slots, *entry).map_or(0, |tuple| hasher.hash_one(tuple));
        self.by_tuple.insert_unique(hash(&entry), entry, hash);
    }

    fn unindex(&mut self, entry: u32) {
        let Some(hash) = self.key(entry).map(|tuple| self.hash.hash_one(tuple)) else { return };
        if let Ok(found) = self.by_tuple.find_entry(hash, |other| *other == entry) {
            found.remove();
        }
    }
}

fn key(slots: &[Slot], entry: u32) -> Option<&FiveTuple> {
    let allocation = slots.get((entry & !NEXT) as usize)?.allocation.as_ref()?;
    if entry & NEXT == 0 {
        return Some(&allocation.path.tuple);
    }
    let (next, _) = allocation.mobility.as_ref()?.next.as_ref()?;
    Some(&next.tuple)
}
