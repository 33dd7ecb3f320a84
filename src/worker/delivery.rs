//! Packets out: each goes to the outbox of its socket or to its connection, and leaves at the end of the wake-up.
#![forbid(unsafe_code)]

use super::sockets::Token;
use super::{BANDWIDTH_SLICES, Worker};
use crate::turn::peers::Destination;
use crate::turn::refusal::Dropped;
use crate::turn::tally::Transport;
use crate::turn::{RelayId, Verdict};
use crate::wire::Packet;
use std::net::SocketAddr;

impl Worker {
    /// Puts the packet in `slot` on its way.
    pub(super) fn deliver(&mut self, slot: usize, verdict: Verdict, is_data: bool) {
        match verdict {
            Verdict::Nothing => {}
            Verdict::Dropped(why) => self.tally.count_drop(why),
            Verdict::ToPeer { .. } if !self.may_spend(slot, true) => {}
            Verdict::ToClient(_) if !self.may_spend(slot, is_data) => {}
            Verdict::ToPeer { relay, peer, destination } => self.deliver_to_peer(slot, relay, peer, destination),
            Verdict::ToClient(path) if path.tuple.transport == Transport::Udp => {
                let is_wildcard = self.udp.get(path.link.0 as usize).is_some_and(|listener| listener.is_wildcard);
                let source = is_wildcard.then(|| path.tuple.server.ip());
                self.outbox.push_to_client(path.link.0, slot, path.tuple.client, source);
            }
            Verdict::ToClient(path) if path.tuple.transport == Transport::Dtls => self.seal(slot, &path),
            Verdict::ToClient(path) => {
                let bytes = self.slots.get(slot).map(Packet::data).unwrap_or_default();
                match self.conns.queue(path.link.0, &path.tuple, bytes, is_data) {
                    Ok(true) => {}
                    Ok(false) => self.tally.count_drop(Dropped::SlowClient),
                    Err(_) => self.broken.extend(self.conns.id(path.link.0)),
                }
            }
        }
    }

    pub(super) fn deliver_to_peer(&mut self, slot: usize, relay: RelayId, peer: SocketAddr, destination: Destination) {
        let to = match destination {
            Destination::Elsewhere => peer,
            Destination::OwnRelay { local, .. } if self.ledger.is_live(local) => local,
            Destination::OwnRelay { opened: true, .. } => peer,
            Destination::OwnRelay { opened: false, .. } => {
                self.tally.count_drop(Dropped::NoRelay);
                return;
            }
        };
        self.outbox.push_to_peer(relay, slot, to);
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
        self.send_outbox();
        self.used = 0;
        let mut broken = core::mem::take(&mut self.broken);
        self.conns.flush(&self.poll, |id| Token::Conn(id).into(), &mut broken);
        for id in broken.drain(..) {
            self.close(id);
        }
        self.broken = broken;
    }

    pub(super) fn send_outbox(&mut self) {
        self.outbox.send(&mut self.outbound, &self.slots, &self.udp, &self.relays, |why| self.tally.count_drop(why));
    }
}
