//! Where the allocations are: a slab, and one index from 5-tuple to slot.
//!
//! The slab is the only owner; the index holds slot numbers and compares against the slab, so the two cannot disagree
//! about a key. Relay sockets carry their [`RelayId`] and need no index.
#![forbid(unsafe_code)]

use super::allocation::Allocation;
use super::{FiveTuple, RelayId};
use core::hash::BuildHasher;
use foldhash::fast::FixedState;
use hashbrown::HashTable;

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
        let matches = |index: &u32| self.slots.get(*index as usize).is_some_and(|slot| slot.is_on(tuple));
        let index = *self.by_tuple.find(self.hash.hash_one(tuple), matches)?;
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
        let hash = self.hash.hash_one(allocation.path.tuple);
        slot.allocation = Some(Box::new(allocation));
        let (slots, hasher) = (&self.slots, &self.hash);
        self.by_tuple.insert_unique(hash, index, |index| {
            slots[*index as usize].allocation.as_ref().map_or(0, |held| hasher.hash_one(held.path.tuple))
        });
        id
    }

    /// Takes the allocation out.
    pub(super) fn remove(&mut self, id: RelayId) -> Option<Box<Allocation>> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let allocation = slot.allocation.take()?;
        slot.generation = (slot.generation + 1) & GENERATION;
        let hash = self.hash.hash_one(allocation.path.tuple);
        if let Ok(entry) = self.by_tuple.find_entry(hash, |index| *index == id.index) {
            entry.remove();
        }
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
}

impl Slot {
    fn is_on(&self, tuple: &FiveTuple) -> bool {
        self.allocation.as_ref().is_some_and(|allocation| allocation.path.tuple == *tuple)
    }
}
