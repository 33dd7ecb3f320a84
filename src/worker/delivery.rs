//! Packets out: each goes to the outbox of its socket or to its connection, and leaves at the end of the wake-up.
#![forbid(unsafe_code)]

use super::ledger::Home;
use super::mailbox::{Command, Enclosed};
use super::sockets::{self, Token};
use super::{BANDWIDTH_SLICES, Worker};
use crate::net::udp::HOPS;
use crate::turn::peers::Destination;
use crate::turn::refusal::Dropped;
use crate::turn::tally::Transport;
use crate::turn::{Input, Path, Protocol, RelayId, Verdict};
use crate::wire::Packet;
use crate::wire::packet::{MAX_PAYLOAD, Marks};
use crate::wire::stun::Family;
use std::net::SocketAddr;

/// Bytes for another worker after which they are handed over before the end of the wake-up.
const PARCEL: usize = 64 << 10;

impl Worker {
    /// Puts the packet in `slot` on its way.
    pub(super) fn deliver(&mut self, slot: usize, verdict: Verdict, is_data: bool) {
        match verdict {
            Verdict::Nothing => {}
            Verdict::Dropped(why) => self.tally.count_drop(why),
            Verdict::ToClient(_) if !self.may_spend(slot, is_data) => {}
            Verdict::ToPeer { relay, peer, destination } => self.deliver_to_peer(slot, relay, peer, destination),
            Verdict::ToClient(path) => self.deliver_to_client(slot, path, is_data),
            // Nothing is sent for these: the one is asked for by those who read, the other is handed over where it came.
            Verdict::Wait(_) | Verdict::Elsewhere(_) => {}
        }
    }

    fn deliver_to_peer(&mut self, slot: usize, relay: RelayId, peer: SocketAddr, destination: Destination) {
        if let Destination::OwnRelay { local, .. } = destination
            && let Some(home) = self.ledger.home(local, Protocol::Udp)
        {
            // It spends the server's bandwidth once, on its way out: half of what was spent here would be for packets that
            // find none left there.
            self.hand_to_relay(slot, relay, local, home);
            return;
        }
        if !self.may_spend(slot, true) {
            return;
        }
        match self.reachable(peer, destination, Protocol::Udp) {
            Some(to) => self.outbox.push_to_peer(relay, slot, to),
            None => self.tally.count_drop(Dropped::NoRelay),
        }
    }

    /// From one relay address to another without the way through the system. What the packet would gain and lose on that
    /// way is the same here: the other allocation asks for its permission, charges its account and counts for itself.
    fn hand_to_relay(&mut self, slot: usize, relay: RelayId, to: SocketAddr, home: Home) {
        let (from, place) = (self.relays.told(relay, Family::of(to.ip())), self.place());
        let (Some(from), Some(packet)) = (from, self.slots.get_mut(slot)) else { return };
        let longest = if to.is_ipv4() { MAX_PAYLOAD } else { MAX_PAYLOAD + 20 }; // IPv6 does not count its header
        if packet.len() > longest {
            self.tally.count_drop(Dropped::TooLarge);
            return;
        }
        let marks = Marks { ttl: packet.marks.ttl.or(Some(HOPS)), whole: false, ..packet.marks };
        if home.worker == place {
            packet.marks = marks;
            self.dispatch(slot, Input::Peer { relay: home.relay, from });
            return;
        }
        let bytes = self.slots.get(slot).map(Packet::data).unwrap_or_default();
        let Some(parcel) = self.parcels.get_mut(usize::from(home.worker)) else { return };
        parcel.packets.push(Enclosed { to: home.relay, from, marks, len: bytes.len() });
        parcel.bytes.extend_from_slice(bytes);
        if parcel.bytes.len() >= PARCEL {
            self.hand_parcels();
        }
    }

    pub(super) fn deliver_to_client(&mut self, slot: usize, path: Path, is_data: bool) {
        let (worker, index) = sockets::link_parts(path.link);
        // An answer about an allocation that has moved goes the way that its route has gone: the client may ask again as
        // soon as it has it, and its worker has to know by then where the allocation is.
        if path.tuple.transport == Transport::Udp && (is_data || worker == self.place()) {
            let Some((listener, is_wildcard)) = self.listener(index, path.tuple.server) else { return };
            let source = is_wildcard.then(|| path.tuple.server.ip());
            self.outbox.push_to_client(listener, slot, path.tuple.client, source);
            return;
        }
        let bytes = self.slots.get(slot).map(Packet::data).unwrap_or_default();
        if worker != self.place() {
            let deliver = Command::Deliver { path, bytes: bytes.into(), is_data };
            if !self.hand(worker, deliver) {
                self.tally.count_drop(Dropped::Handover);
            }
            return;
        }
        if path.tuple.transport == Transport::Dtls {
            self.seal(slot, &path);
            return;
        }
        match self.conns.push(&self.poll, |id| Token::Conn(id).into(), index, &path.tuple, bytes, is_data) {
            Ok(true) => {}
            Ok(false) => self.tally.count_drop(Dropped::SlowClient),
            Err(_) => self.broken.extend(self.conns.id(index)),
        }
    }

    /// The listener an answer leaves by: the one that was asked, or another that has this address (RFC 5780). Every worker
    /// has the same listeners in the same order.
    fn listener(&self, index: u32, server: SocketAddr) -> Option<(u32, bool)> {
        let asked = self.udp.get(index as usize)?;
        if asked.is_wildcard || asked.address == server {
            return Some((index, asked.is_wildcard));
        }
        let other = self.udp.iter().position(|listener| listener.address == server)?;
        Some((other as u32, false))
    }

    /// Where a peer is to be reached from here: an allocation of ours by its local address, while it lives.
    pub(super) fn reachable(&self, peer: SocketAddr, destination: Destination, by: Protocol) -> Option<SocketAddr> {
        match destination {
            Destination::Elsewhere => Some(peer),
            Destination::OwnRelay { local, .. } if self.ledger.is_live(local, by) => Some(local),
            Destination::OwnRelay { opened: true, .. } => Some(peer),
            Destination::OwnRelay { opened: false, .. } => None,
        }
    }

    /// Whether the server's bandwidth has room for the data in `slot`; counts the drop when not. Answers are free: a call
    /// must not end because others are loud.
    pub(super) fn may_spend(&mut self, slot: usize, is_data: bool) -> bool {
        let Some(rate) = self.policy.limits.bandwidth.filter(|_| is_data) else { return true };
        let bytes = self.slots.get(slot).map_or(0, Packet::len) as u64;
        if self.drawn < bytes {
            let slice = (rate / BANDWIDTH_SLICES).max(bytes);
            if !self.ledger.draw(self.now.mono, rate, slice) {
                self.tally.limited_bandwidth.add(1);
                self.tally.count_drop(Dropped::Bandwidth);
                return false;
            }
            self.drawn += slice;
        }
        self.drawn -= bytes;
        true
    }

    /// Makes sure that `count` slots are free.
    pub(super) fn make_room(&mut self, count: usize) {
        if self.used + count > self.slots.len() {
            self.flush();
        }
    }

    /// Sends everything that waits; every slot is free after.
    pub(super) fn flush(&mut self) {
        // First what another thread can begin with.
        self.hand_parcels();
        self.send_outbox();
        self.used = 0;
        let mut broken = core::mem::take(&mut self.broken);
        let mut relieved = core::mem::take(&mut self.relieved);
        self.conns.flush(&self.poll, |id| Token::Conn(id).into(), &mut broken, &mut relieved);
        for id in broken.drain(..) {
            self.close(id);
        }
        // A client that took everything at once says nothing later that would let its peer be read on.
        for id in relieved.drain(..) {
            self.balance(id);
        }
        (self.broken, self.relieved) = (broken, relieved);
    }

    pub(super) fn send_outbox(&mut self) {
        self.outbox.send(&mut self.outbound, &self.slots, &self.udp, &self.relays, |why| self.tally.count_drop(why));
    }
}
