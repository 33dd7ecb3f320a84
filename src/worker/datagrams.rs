//! Datagrams in: from clients on the listeners, from peers on the relay sockets. What is DTLS goes on to `records`.
#![forbid(unsafe_code)]

use super::sockets::{self, RelaySocket};
use super::{Worker, records};
use crate::net::udp::{self, BATCH};
use crate::turn::refusal::Dropped;
use crate::turn::tally::Transport;
use crate::turn::{FiveTuple, Input, Path, Protocol, RelayId};
use crate::wire::stun::Family;
use crate::wire::{self, Kind};
use std::net::SocketAddr;
use std::os::fd::AsFd;

impl Worker {
    /// One batch from a UDP listener.
    pub(super) fn read_listener(&mut self, at: u32) {
        let Some(listener) = self.udp.get(at as usize) else { return };
        let (transport, bound, is_wildcard) = (listener.transport, listener.address, listener.is_wildcard);
        let detects = self.entry.detect && self.dtls.is_some();
        let has_records = transport == Transport::Dtls || detects;
        let spare = if has_records { records::SPARE } else { 0 };
        let depth = listener.depth.min(if transport == Transport::Dtls { records::DEPTH } else { BATCH });
        self.make_room(depth + spare);
        let Some(listener) = self.udp.get(at as usize) else { return };
        let slots = self.slots.get_mut(self.used..self.used + depth).unwrap_or_default();
        // An error here is a leftover of an earlier datagram's fate, or nothing to read after all: epoll tells again.
        let Ok(count) = self.inbound.receive(listener.socket.as_fd(), slots) else { return };
        let mut arrivals = self.arrivals(count, spare);
        while let Some((slot, meta)) = self.next_arrival(&mut arrivals) {
            if self.policy.peers.own_relay(meta.from).is_some_and(|local| self.ledger.is_live(local, Protocol::Udp)) {
                // A relay of ours as a client of ours would be the start of a loop (RFC 8656 §21.1.7).
                self.tally.count_drop(Dropped::BadSource);
                continue;
            }
            let ip = if is_wildcard { meta.to.unwrap_or_else(|| bound.ip()) } else { bound.ip() };
            let server = SocketAddr::new(ip, bound.port());
            let transport = match self.slots.get(slot).and_then(|packet| wire::classify(packet.data())) {
                Some(Kind::Tls) if detects => Transport::Dtls,
                Some(_) if detects => Transport::Udp,
                _ => transport,
            };
            let tuple = FiveTuple { transport, client: meta.from, server };
            if transport == Transport::Dtls {
                self.read_record(at, slot, tuple);
            } else {
                self.client_message(slot, Path { tuple, link: sockets::link(self.place(), at) });
            }
        }
        if let Some(listener) = self.udp.get_mut(at as usize) {
            let lost = listener.note(&arrivals.haul);
            self.tally.count_drops(Dropped::ReceiveBuffer, lost.into());
        }
    }

    /// Something waits on a relay socket: datagrams, or the connections of peers.
    pub(super) fn read_relay(&mut self, id: RelayId, family: Family) {
        match self.relays.socket(id, family) {
            Some(RelaySocket::Datagrams { .. }) => self.read_peers(id, family),
            Some(RelaySocket::Connections(_)) => self.accept_peers(id, family),
            None => {}
        }
    }

    /// What came back of what a relay socket has sent.
    pub(super) fn read_errors(&mut self, id: RelayId, family: Family) {
        let Some(RelaySocket::Datagrams { socket, .. }) = self.relays.socket(id, family) else { return };
        let mut errors = Vec::new();
        udp::errors(socket.as_fd(), |peer, icmp| errors.push((peer, icmp)));
        for (peer, icmp) in errors {
            let Some(peer) = self.known_as(peer, Protocol::Udp) else { continue };
            self.make_room(1);
            let slot = self.used;
            self.used += 1;
            self.dispatch(slot, Input::Icmp { relay: id, peer, icmp });
        }
    }

    /// A few datagrams from a relay socket: one, unless it has shown that more wait.
    fn read_peers(&mut self, id: RelayId, family: Family) {
        let depth = self.relays.depth(id, family);
        self.make_room(depth);
        let Some(socket) = self.relays.socket(id, family) else { return };
        let slots = self.slots.get_mut(self.used..self.used + depth).unwrap_or_default();
        let Ok(count) = self.inbound.receive(socket.as_fd(), slots) else { return };
        let mut arrivals = self.arrivals(count, 0);
        while let Some((slot, meta)) = self.next_arrival(&mut arrivals) {
            let Some(from) = self.known_as(meta.from, Protocol::Udp) else {
                self.tally.count_drop(Dropped::BadSource);
                continue;
            };
            self.dispatch(slot, Input::Peer { relay: id, from });
        }
        let lost = self.relays.note(id, family, &arrivals.haul);
        self.tally.count_drops(Dropped::ReceiveBuffer, lost.into());
    }

    /// The name of a peer towards clients: another allocation of ours is known by its external address. `None` for a
    /// datagram from the network that claims to come from us.
    pub(super) fn known_as(&self, from: SocketAddr, protocol: Protocol) -> Option<SocketAddr> {
        match self.policy.peers.own_relay(from) {
            None => Some(from),
            Some(local) if local != from => None,
            Some(local) if self.ledger.is_live(local, protocol) => self.policy.peers.seen_as(from),
            Some(_) => Some(from),
        }
    }
}
