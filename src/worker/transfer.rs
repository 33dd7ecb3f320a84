//! What workers hand each other: word of the control side, and what reached one and belongs to another.
//!
//! A client keeps its worker as long as it keeps its path. One that moves (RFC 8016), or opens a second connection
//! (RFC 6062), may reach another worker than the one that has its allocation. A path then stays with the worker that the
//! kernel chose, which hands on what comes; the allocation never moves.
#![forbid(unsafe_code)]

use super::Worker;
use super::mailbox::{Command, Parcel};
use super::peers::Owner;
use super::sockets;
use crate::turn::refusal::Dropped;
use crate::turn::tally::Transport;
use crate::turn::{Input, Path};
use std::net::TcpStream;
use std::sync::Arc;

impl Worker {
    /// This worker's number, as links and ids carry it.
    pub(super) fn place(&self) -> u8 {
        self.number as u8
    }

    /// Tells a worker something that must not be lost.
    pub(super) fn tell(&self, worker: u8, command: Command) {
        if let Some(mailbox) = self.mailboxes.get(usize::from(worker)) {
            mailbox.post(command);
        }
    }

    /// Hands a worker a packet; `false` when that one cannot follow.
    pub(super) fn hand(&self, worker: u8, command: Command) -> bool {
        self.mailboxes.get(usize::from(worker)).is_some_and(|mailbox| mailbox.hand(command))
    }

    /// A message of a client: for an allocation here, or for one of another worker. Whether a packet leaves.
    pub(super) fn client_message(&mut self, slot: usize, path: Path) -> bool {
        if !self.routes.is_empty()
            && let Some(worker) = self.routes.get(&path.tuple).copied()
        {
            return self.hand_over(worker, slot, path);
        }
        self.dispatch(slot, Input::Client(path))
    }

    /// Lets another worker handle the message in `slot`. It counts as useful: that one has something it speaks of.
    pub(super) fn hand_over(&mut self, worker: u8, slot: usize, path: Path) -> bool {
        let Some(packet) = self.slots.get(slot) else { return false };
        let command = Command::Packet { path, marks: packet.marks, bytes: packet.data().into() };
        let is_taken = self.hand(worker, command);
        if !is_taken {
            self.tally.count_drop(Dropped::Handover);
        }
        is_taken
    }

    /// Reads the letter box. `false` when that says to end.
    pub(super) fn read_mail(&mut self) -> bool {
        for command in self.mailbox.take() {
            match command {
                Command::SetPolicy(policy) => {
                    self.policy = Arc::clone(&policy);
                    self.server.set_policy(self.now, policy, &mut self.effects);
                    self.perform_without_packet();
                }
                Command::Stop => {
                    self.flush();
                    self.server.end_all(self.now, &mut self.effects);
                    self.perform_without_packet();
                    self.conns.say_goodbye();
                    self.end_associations();
                    return false;
                }
                Command::Packet { path, marks, bytes } => {
                    let slot = self.filled(&bytes);
                    if let Some(packet) = self.slots.get_mut(slot) {
                        packet.marks = marks;
                    }
                    self.dispatch(slot, Input::Client(path));
                }
                Command::Parcel(parcel) => self.unpack(&parcel),
                Command::Deliver { path, bytes, is_data } => self.deliver_here(path, &bytes, is_data),
                // The client may have gone since it asked: then nobody would ever take the route away.
                Command::Route { path, to } if !self.has_client(&path) => self.tell(to, Command::Closed(path.tuple)),
                Command::Route { path, to } => {
                    self.routes.insert(path.tuple, to);
                    self.count_on_conn(path, true);
                }
                Command::Unroute { path } => {
                    if self.routes.remove(&path.tuple).is_some() {
                        self.count_on_conn(path, false);
                    }
                }
                Command::Closed(tuple) => {
                    let _nothing = self.told(Input::Closed(tuple));
                }
                Command::Join { stream, owner, path, answer } => {
                    self.deliver_here(path, &answer, false);
                    self.take_in(stream, owner, path);
                }
                Command::CloseStream(stream) => self.close_stream(stream),
                Command::Told(input) => self.told_from_afar(input),
                Command::Rest { stream, until } => self.rest(stream, until),
            }
        }
        true
    }

    /// What relay addresses of another worker sent to relay addresses here.
    fn unpack(&mut self, parcel: &Parcel) {
        let mut rest = &*parcel.bytes;
        for packet in &parcel.packets {
            let Some((bytes, behind)) = rest.split_at_checked(packet.len) else { return };
            rest = behind;
            let slot = self.filled(bytes);
            if let Some(filled) = self.slots.get_mut(slot) {
                filled.marks = packet.marks;
            }
            self.dispatch(slot, Input::Peer { relay: packet.to, from: packet.from });
        }
    }

    /// Gives the other workers what this one has for their relay addresses.
    pub(super) fn hand_parcels(&mut self) {
        for (worker, parcel) in self.parcels.iter_mut().enumerate().filter(|(_, parcel)| !parcel.packets.is_empty()) {
            let parcel = core::mem::take(parcel);
            let count = parcel.packets.len() as u64;
            if !self.mailboxes.get(worker).is_some_and(|mailbox| mailbox.hand_parcel(parcel)) {
                self.tally.count_drops(Dropped::Handover, count);
            }
        }
    }

    /// Whether a client's connection or association, where it has one, is still there.
    fn has_client(&self, path: &Path) -> bool {
        let (_, index) = sockets::link_parts(path.link);
        match path.tuple.transport {
            Transport::Udp => true,
            Transport::Tcp | Transport::Tls => {
                self.conns.id(index).is_some_and(|id| self.conns.tuple(id) == Some(path.tuple))
            }
            Transport::Dtls => self.associations.find(&path.tuple) == Some(index),
        }
    }

    /// A slot with a copy of these bytes.
    fn filled(&mut self, bytes: &[u8]) -> usize {
        self.make_room(1);
        let slot = self.used;
        self.used += 1;
        if let Some(packet) = self.slots.get_mut(slot) {
            packet.fill(bytes);
        }
        slot
    }

    /// A packet of another worker's allocation for a client of this worker.
    fn deliver_here(&mut self, path: Path, bytes: &[u8], is_data: bool) {
        let slot = self.filled(bytes);
        self.deliver_to_client(slot, path, is_data);
    }

    /// A peer's connection that joins a client's of this worker.
    fn take_in(&mut self, stream: TcpStream, owner: Owner, path: Path) {
        self.peers.add_held(stream, owner, self.now.mono);
        self.join_here(owner, path);
    }
}
