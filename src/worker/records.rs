//! Records of DTLS clients: what a datagram brings, what an engine says, what leaves under encryption.
//!
//! Messages and ciphertext lie in the slots that all packets lie in. A datagram that brings one message and is answered
//! by one needs no other slot than its own; a handshake and a datagram of many records take spare ones.
#![forbid(unsafe_code)]

use super::Worker;
use super::associations::Stage;
use super::mailbox::Command;
use super::sockets;
use crate::net::dtls::{Event, Failed, Heard, MAX_MESSAGE};
use crate::turn::refusal::Dropped;
use crate::turn::tally::Transport;
use crate::turn::{FiveTuple, Input, Path, Verdict};
use crate::wire::Packet;

/// Datagrams taken from a DTLS listener at once: each may bring eight messages or a flight.
pub(super) const DEPTH: usize = 32;
/// Slots beside theirs: half of the datagrams bring eight messages. What finds none is lost, as on the way.
pub(super) const SPARE: usize = 128;
/// Slots that one look at an association may need: a flight of the longest certificate.
const FLIGHT: usize = 12;

impl Worker {
    /// The datagram in `slot`, from a client of a DTLS listener.
    pub(super) fn read_record(&mut self, listener: u32, slot: usize, tuple: FiveTuple) {
        let now = self.now.mono;
        let (Some(dtls), Some(packet)) = (&self.dtls, self.slots.get_mut(slot)) else { return };
        let place = self.associations.find(&tuple);
        let hello = match dtls.hear(now, tuple.client, packet.data()) {
            Heard::Proven(hello) => hello,
            Heard::Unanswerable => {
                self.tally.count_drop(Dropped::Dtls);
                return;
            }
            Heard::Unproven(_) | Heard::TooOld(_)
                if tuple.client.port() == 0 || self.policy.peers.is_own_service(tuple.client) =>
            {
                self.tally.count_drop(Dropped::BadSource);
                return;
            }
            Heard::Unproven(request) => {
                packet.fill(&request);
                self.push_record(listener, slot, &tuple);
                return;
            }
            Heard::TooOld(alert) => {
                packet.fill(&alert);
                self.tally.count_drop(Dropped::Dtls);
                self.push_record(listener, slot, &tuple);
                return;
            }
            Heard::Record => {
                let Some(index) = place else {
                    self.tally.count_drop(Dropped::Dtls);
                    return;
                };
                let stage = self.associations.stage(index, packet.data());
                let Some(engine) = self.associations.engine(index, stage) else { return };
                let result = engine.receive(now, packet.data());
                if !self.hear_out(index, stage, Some(slot), result) && stage == Stage::Open {
                    self.tally.count_drop(Dropped::Dtls);
                }
                return;
            }
        };
        if let Some((index, stage)) = place.and_then(|index| Some((index, self.associations.stage_of(index, &hello)?)))
        {
            // Our flight is late, or the hello is: the engine knows which.
            let Some(engine) = self.associations.engine(index, stage) else { return };
            let result = engine.receive(now, packet.data());
            self.hear_out(index, stage, Some(slot), result);
            return;
        }
        if self.associations.is_full() && !place.is_some_and(|index| self.associations.has_handshake(index)) {
            self.tally.count_drop(Dropped::HalfOpen);
            return;
        }
        let admission = match place {
            Some(_) => None, // a client that begins anew is not counted twice
            None => {
                let limit = self.policy.limits.connections_per_ip;
                let Some(admission) = self.ledger.connect(tuple.client.ip(), limit) else {
                    self.tally.limited_connections.add(1);
                    return;
                };
                Some(admission)
            }
        };
        let Ok(engine) = dtls.accept(now, &hello) else {
            self.tally.count_drop(Dropped::Dtls);
            return;
        };
        let index = match (place, admission) {
            (Some(index), _) => index,
            (None, Some(admission)) => self.associations.add(tuple, listener, admission, now),
            (None, None) => return,
        };
        self.associations.begin(index, engine);
        if !self.hear_out(index, Stage::Handshake, Some(slot), Ok(())) {
            // A hello that the engine cannot read has no answer, and will have none.
            self.tally.count_drop(Dropped::Dtls);
            self.end_association(index, Stage::Handshake);
        }
    }

    /// Encrypts the message in `slot` for its client.
    pub(super) fn seal(&mut self, slot: usize, path: &Path) {
        let (_, index) = sockets::link_parts(path.link);
        let Some(packet) = self.slots.get_mut(slot) else { return };
        if packet.len() > MAX_MESSAGE {
            self.tally.count_drop(Dropped::TooLarge);
            return;
        }
        let Some(engine) = self.associations.open(index, &path.tuple) else {
            self.tally.count_drop(Dropped::Dtls);
            return;
        };
        match engine.send(packet.data()).and_then(|()| engine.poll(&mut self.engine_room)) {
            Ok(Event::Packet(len)) => {
                packet.fill(self.engine_room.get(..len).unwrap_or_default());
                if let Some((tuple, listener)) = self.associations.owner(index) {
                    self.push_record(listener, slot, &tuple);
                }
            }
            Ok(Event::Message(_) | Event::Open | Event::Closed | Event::Idle) => {
                self.tally.count_drop(Dropped::SendFailed);
            }
            Err(Failed) => self.lost.push((index, path.tuple)),
        }
    }

    /// What time brings to associations: second tries, the end of handshakes, the end of silence.
    pub(super) fn tick_associations(&mut self) {
        for (index, tuple) in core::mem::take(&mut self.lost) {
            if self.associations.find(&tuple) == Some(index) {
                self.end_association(index, Stage::Open);
            }
        }
        let due = self.associations.due(self.now.mono);
        for &(index, stage) in &due {
            match stage {
                Stage::Open => self.say_goodbye(index),
                Stage::Handshake => {
                    self.make_room(FLIGHT);
                    let Some(engine) = self.associations.engine(index, stage) else { continue };
                    let result = engine.tick(self.now.mono);
                    self.hear_out(index, stage, None, result);
                }
            }
        }
        if !due.is_empty() {
            self.flush();
        }
    }

    /// Says goodbye to every client, as when the server stops.
    pub(super) fn end_associations(&mut self) {
        for index in self.associations.all_open() {
            self.say_goodbye(index);
        }
    }

    fn say_goodbye(&mut self, index: u32) {
        self.make_room(FLIGHT);
        let Some(engine) = self.associations.engine(index, Stage::Open) else { return };
        let result = engine.close();
        self.hear_out(index, Stage::Open, None, result);
        self.end_association(index, Stage::Open);
    }

    /// Asks an engine until it is idle, then does what came of it. `own` is the slot of the datagram it was given, free
    /// to be used. Whether there was anything.
    fn hear_out(&mut self, index: u32, stage: Stage, own: Option<usize>, result: Result<(), Failed>) -> bool {
        let Some((tuple, listener)) = self.associations.owner(index) else { return false };
        let (mut stage, mut own) = (stage, own);
        let mut is_over = result.is_err();
        let mut is_anything = false;
        let mut messages = core::mem::take(&mut self.messages);
        while let Some(engine) = self.associations.engine(index, stage) {
            let event = engine.poll(&mut self.engine_room);
            is_anything |= event != Ok(Event::Idle);
            match event {
                Ok(Event::Idle) => break,
                Ok(Event::Packet(len)) => {
                    if let Some(slot) = self.keep_said(&mut own, len) {
                        self.push_record(listener, slot, &tuple);
                    }
                }
                Ok(Event::Message(len)) => messages.extend(self.keep_said(&mut own, len)),
                Ok(Event::Open) => {
                    self.open_association(index, tuple);
                    stage = Stage::Open;
                }
                Ok(Event::Closed) => is_over = true,
                Err(Failed) => {
                    is_over = true;
                    break;
                }
            }
        }
        self.associations.note_deadline(index, self.now.mono);
        let mut was_useful = false;
        for slot in messages.drain(..) {
            was_useful |= self.client_message(slot, Path { tuple, link: sockets::link(self.place(), index) });
        }
        self.messages = messages;
        if was_useful {
            self.associations.note_message(index, self.now.mono);
        }
        if is_over {
            self.end_association(index, stage);
        }
        is_anything || is_over
    }

    /// Puts the first `len` bytes of what an engine said into a slot.
    fn keep_said(&mut self, own: &mut Option<usize>, len: usize) -> Option<usize> {
        let Some(slot) = own.take().or_else(|| (self.used < self.slots.len()).then_some(self.used)) else {
            self.tally.count_drop(Dropped::SendBuffer);
            return None;
        };
        self.used = self.used.max(slot + 1);
        self.slots.get_mut(slot)?.fill(self.engine_room.get(..len).unwrap_or_default());
        Some(slot)
    }

    /// A handshake is complete: what the client had before ends.
    fn open_association(&mut self, index: u32, tuple: FiveTuple) {
        if self.associations.promote(index, self.now.mono) {
            self.end_allocation_of(tuple);
        } else {
            self.tally.connections[Transport::Dtls as usize].add(1);
            self.tally.connections_total.add(1);
        }
    }

    fn end_association(&mut self, index: u32, stage: Stage) {
        if let Some(tuple) = self.associations.end(index, stage) {
            self.tally.connections[Transport::Dtls as usize].sub(1);
            self.end_allocation_of(tuple);
        }
    }

    fn end_allocation_of(&mut self, tuple: FiveTuple) {
        if let Some(worker) = self.routes.remove(&tuple) {
            self.tell(worker, Command::Closed(tuple));
            return;
        }
        let mut none = Packet::new(Box::default());
        let verdict = self.server.handle(self.now, Input::Closed(tuple), &mut none, &mut self.effects);
        debug_assert_eq!(verdict, Verdict::Nothing, "a closed association is answered by nobody");
        self.perform_without_packet();
    }

    fn push_record(&mut self, listener: u32, slot: usize, tuple: &FiveTuple) {
        let is_wildcard = self.udp.get(listener as usize).is_some_and(|listener| listener.is_wildcard);
        let source = is_wildcard.then(|| tuple.server.ip());
        self.outbox.push_to_client(listener, slot, tuple.client, source);
    }
}
