//! DTLS clients of one worker: who has an association, who is in a handshake, whose time is over.
//!
//! Owns every engine. A client that begins anew keeps its open association until the new handshake is complete: a hello
//! alone, even one that proves its address, ends nothing (RFC 6347 §4.2.8). Bounded twice: handshakes by [`HALF_OPEN`],
//! associations by the ledger, as connections are. Never decides what a message means.
#![forbid(unsafe_code)]

use super::ledger::Admission;
use crate::net::dtls::{self, Engine};
use crate::net::hello::Hello;
use crate::time::{Duration, Instant, seconds};
use crate::turn::FiveTuple;
use std::collections::HashMap;

/// Handshakes of one worker at once. Each keeps what [`dtls`] bounds and ends within [`dtls::HANDSHAKE_TIME`].
pub(super) const HALF_OPEN: usize = 1024;
/// Without an allocation, time from one useful message to the next, or to the first.
const IDLE: Duration = seconds(60);
/// Between two looks at every association; a flight is sent again up to this much late.
const LOOK: Duration = Duration::from_millis(100);

/// The associations of one worker.
#[derive(Debug, Default)]
pub(super) struct Associations {
    slots: Vec<Option<Association>>,
    vacant: Vec<u32>,
    by_tuple: HashMap<FiveTuple, u32>,
    half_open: usize,
    /// When those whose time is over are looked for next.
    next_check: Option<Instant>,
}

#[derive(Debug)]
struct Association {
    tuple: FiveTuple,
    listener: u32,
    open: Option<Engine>,
    handshake: Option<Engine>,
    last_message: Instant,
    /// Allocations on the open association: it has no time limit while there is one.
    allocations: u32,
    _admission: Admission,
}

/// Which of a client's two engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Handshake,
    Open,
}

impl Associations {
    /// The place of a client.
    pub(super) fn find(&self, tuple: &FiveTuple) -> Option<u32> {
        self.by_tuple.get(tuple).copied()
    }

    /// Whose place this is, and by which listener its datagrams leave.
    pub(super) fn owner(&self, index: u32) -> Option<(FiveTuple, u32)> {
        self.get(index).map(|association| (association.tuple, association.listener))
    }

    /// Whether no further client may begin a handshake.
    pub(super) fn is_full(&self) -> bool {
        self.half_open >= HALF_OPEN
    }

    /// Whose engine a datagram from a client in this place is for.
    pub(super) fn stage(&self, index: u32, datagram: &[u8]) -> Stage {
        match self.get(index) {
            Some(Association { open: Some(_), handshake: None, .. }) => Stage::Open,
            Some(Association { open: Some(_), .. }) if dtls::is_of_open(datagram) => Stage::Open,
            _ => Stage::Handshake,
        }
    }

    /// Which engine a hello began that comes again, if one did.
    pub(super) fn stage_of(&self, index: u32, hello: &Hello<'_>) -> Option<Stage> {
        let association = self.get(index)?;
        let began = |engine: &Option<Engine>| engine.as_ref().is_some_and(|engine| engine.is_of(hello));
        let is_handshake = began(&association.handshake).then_some(Stage::Handshake);
        is_handshake.or_else(|| began(&association.open).then_some(Stage::Open))
    }

    /// Whether a client in this place is in a handshake.
    pub(super) fn has_handshake(&self, index: u32) -> bool {
        self.get(index).is_some_and(|association| association.handshake.is_some())
    }

    /// Takes a client in.
    pub(super) fn add(&mut self, tuple: FiveTuple, listener: u32, admission: Admission, now: Instant) -> u32 {
        let association = Association {
            tuple,
            listener,
            open: None,
            handshake: None,
            last_message: now,
            allocations: 0,
            _admission: admission,
        };
        let index = self.vacant.pop().unwrap_or(self.slots.len() as u32);
        if index as usize == self.slots.len() {
            self.slots.push(None);
        }
        if let Some(slot) = self.slots.get_mut(index as usize) {
            *slot = Some(association);
        }
        self.by_tuple.insert(tuple, index);
        index
    }

    /// Begins a handshake; one that the client has begun before is forgotten.
    pub(super) fn begin(&mut self, index: u32, engine: Engine) {
        let Some(association) = self.get_mut(index) else { return };
        if association.handshake.replace(engine).is_none() {
            self.half_open += 1;
        }
    }

    pub(super) fn engine(&mut self, index: u32, stage: Stage) -> Option<&mut Engine> {
        let association = self.get_mut(index)?;
        match stage {
            Stage::Handshake => association.handshake.as_mut(),
            Stage::Open => association.open.as_mut(),
        }
    }

    /// The open association of exactly this client.
    pub(super) fn open(&mut self, index: u32, tuple: &FiveTuple) -> Option<&mut Engine> {
        self.get_mut(index).filter(|association| association.tuple == *tuple)?.open.as_mut()
    }

    /// A handshake is complete. Whether it takes the place of an open association.
    pub(super) fn promote(&mut self, index: u32, now: Instant) -> bool {
        let Some(association) = self.get_mut(index) else { return false };
        let Some(engine) = association.handshake.take() else { return false };
        association.allocations = 0;
        association.last_message = now;
        let is_replaced = association.open.replace(engine).is_some();
        self.half_open -= 1;
        self.check_at(now + IDLE);
        is_replaced
    }

    /// Notes when a handshake wants to be looked at; not at once, or an engine that is late would keep us awake.
    pub(super) fn note_deadline(&mut self, index: u32, now: Instant) {
        let engine = self.get(index).and_then(|association| association.handshake.as_ref());
        if let Some(deadline) = engine.and_then(Engine::deadline) {
            self.check_at(deadline.max(now + LOOK));
        }
    }

    /// Notes that a message was answered or relayed.
    pub(super) fn note_message(&mut self, index: u32, now: Instant) {
        if let Some(association) = self.get_mut(index) {
            association.last_message = now;
        }
    }

    /// Notes that an allocation on this association began or ended.
    pub(super) fn count_allocation(&mut self, index: u32, tuple: &FiveTuple, began: bool, now: Instant) {
        let Some(association) = self.get_mut(index).filter(|association| association.tuple == *tuple) else { return };
        let has = association.allocations;
        association.allocations = if began { has + 1 } else { has.saturating_sub(1) };
        association.last_message = now;
        self.check_at(now + IDLE);
    }

    /// Ends a handshake, or everything in this place where nothing else is left; what was open there.
    pub(super) fn end(&mut self, index: u32, stage: Stage) -> Option<FiveTuple> {
        let association = self.slots.get_mut(index as usize)?.as_mut()?;
        if stage == Stage::Handshake {
            self.half_open -= usize::from(association.handshake.take().is_some());
            if association.open.is_some() {
                return None;
            }
        }
        let association = self.slots.get_mut(index as usize)?.take()?;
        self.half_open -= usize::from(association.handshake.is_some());
        self.by_tuple.remove(&association.tuple);
        self.vacant.push(index);
        association.open.is_some().then_some(association.tuple)
    }

    /// The places of all open associations.
    pub(super) fn all_open(&self) -> Vec<u32> {
        let is_open = |slot: &Option<Association>| slot.as_ref().is_some_and(|association| association.open.is_some());
        self.slots.iter().enumerate().filter(|(_, slot)| is_open(slot)).map(|(index, _)| index as u32).collect()
    }

    /// When [`Associations::due`] has to look next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next_check
    }

    /// The handshakes that wait for time to pass, and the open associations that were silent for too long.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(u32, Stage)> {
        if self.next_check.is_none_or(|check| check > now) {
            return Vec::new();
        }
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        for (index, slot) in self.slots.iter().enumerate() {
            let Some(association) = slot else { continue };
            let is_idle = association.open.is_some() && association.allocations == 0;
            let idle = is_idle.then(|| (association.last_message + IDLE, Stage::Open));
            let handshake = association.handshake.as_ref().and_then(Engine::deadline);
            for (at, stage) in handshake.map(|at| (at, Stage::Handshake)).into_iter().chain(idle) {
                if at <= now {
                    due.push((index as u32, stage));
                } else {
                    next = Some(next.map_or(at, |next| next.min(at)));
                }
            }
        }
        self.next_check = next.map(|check| check.max(now + LOOK));
        due
    }

    fn check_at(&mut self, at: Instant) {
        self.next_check = Some(self.next_check.map_or(at, |next| next.min(at)));
    }

    fn get(&self, index: u32) -> Option<&Association> {
        self.slots.get(index as usize)?.as_ref()
    }

    fn get_mut(&mut self, index: u32) -> Option<&mut Association> {
        self.slots.get_mut(index as usize)?.as_mut()
    }
}
