//! Connections of clients: accepted, read message by message, closed.
#![forbid(unsafe_code)]

use super::conns::{Accepted, ConnId, End, READS_PER_TURN, Received, Says};
use super::mailbox::Command;
use super::opening::Opening;
use super::peers::PeerId;
use super::sockets::{self, Token};
use super::{ACCEPTS_PER_TURN, Worker};
use crate::turn::refusal::Dropped;
use crate::turn::{FiveTuple, Input, Path, Verdict};
use crate::wire::Packet;
use crate::wire::stream::{self, Frame};

impl Worker {
    pub(super) fn accept(&mut self, at: u32) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = self.tcp.get_mut(at as usize) else { return };
            let (stream, from) = match listener.accept(&self.poll, self.now.mono) {
                Ok(Some(accepted)) => accepted,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(listener = %listener.address, %error, "a TCP client cannot be accepted");
                    return;
                }
            };
            let transport = listener.transport;
            let certificates = listener.certificates.clone();
            let opening = self.entry.opening(from.ip(), transport, certificates.as_ref());
            let admission = match &opening {
                // It counts for whomever the proxy names.
                Some(Opening::Header(_)) => self.ledger.connect_unnamed(),
                Some(_) | None => self.ledger.connect(from.ip(), self.policy.limits.connections_per_ip),
            };
            let Some(admission) = admission else {
                self.tally.limited_connections.add(1);
                continue;
            };
            // The connection's own local address: the listener may be a wildcard.
            let Ok(server) = stream.local_addr() else { continue };
            let certificates = certificates.filter(|_| opening.is_none());
            let session = match certificates.map(|certificates| certificates.session()).transpose() {
                Ok(session) => session,
                Err(error) => {
                    tracing::warn!(client = %from, %error, "a TLS session cannot be made");
                    continue;
                }
            };
            let tuple = FiveTuple { transport, client: sockets::plain(from), server: sockets::plain(server) };
            let accepted = Accepted { stream, tuple, session, opening, admission };
            let token = |id| Token::Conn(id).into();
            match self.conns.add(&self.poll, token, accepted, self.now.mono) {
                Ok(_) => {
                    self.tally.connections[transport as usize].add(1);
                    self.tally.connections_total.add(1);
                }
                Err(error) => tracing::warn!(client = %from, %error, "a TCP client cannot be watched"),
            }
        }
    }

    pub(super) fn read_conn(&mut self, id: ConnId) {
        let mut room = core::mem::take(&mut self.room);
        for _ in 0..READS_PER_TURN {
            match self.read_messages(id, &mut room) {
                Ok(true) => {}
                Ok(false) => break,
                Err(end) => {
                    self.count_end(end);
                    // What stood before the end has its answer.
                    let _ = self.conns.write(&self.poll, |id| Token::Conn(id).into(), id);
                    self.close(id);
                    break;
                }
            }
        }
        self.room = room;
    }

    /// Reads once and handles every whole message. `true` when more may be waiting.
    pub(super) fn read_messages(&mut self, id: ConnId, room: &mut [u8]) -> Result<bool, End> {
        let Some(tuple) = self.conns.tuple(id) else { return Ok(false) };
        if let Some(peer) = self.conns.joined(id) {
            return self.read_joined(id, peer, room);
        }
        let is_opening = self.conns.is_opening(id);
        let received = if is_opening { self.open(id, room)? } else { self.conns.read(id, room)? };
        let Some(received) = received else { return Ok(false) };
        let tuple = self.conns.tuple(id).unwrap_or(tuple);
        let mut bytes = room.get(..received.len).unwrap_or_default();
        if self.conns.says(id) != Says::Messages && !bytes.is_empty() {
            let is_for_web = match self.conns.says(id) {
                Says::Http => Some(true),
                Says::Nothing | Says::Messages => self.is_for_web(id, bytes)?,
            };
            match is_for_web {
                Some(false) => self.conns.says_messages(id),
                Some(true) => {
                    self.join_web(id, bytes)?;
                    return self.after_joined(id, &received);
                }
                None => {
                    self.conns.keep(id, bytes, false, self.now.mono);
                    return received.end.map_or(Ok(!received.is_all), Err);
                }
            }
        }
        let mut was_useful = false;
        while let Frame::Whole { message, next } = stream::next(bytes) {
            self.make_room(1);
            if self.conns.tuple(id).is_none() {
                return Ok(false); // it broke while answers to its own messages were sent
            }
            let slot = self.used;
            self.used += 1;
            let (whole, rest) = bytes.split_at(next.min(bytes.len()));
            bytes = rest;
            if let Some(packet) = self.slots.get_mut(slot) {
                packet.fill(whole.get(..message).unwrap_or(whole));
            }
            // Only what was worth an answer or was relayed keeps a connection open.
            was_useful |= self.client_message(slot, Path { tuple, link: sockets::link(self.place(), id.index) });
            if let Some(peer) = self.conns.joined(id) {
                self.conns.keep(id, &[], true, self.now.mono);
                self.send_to_peer(peer, bytes);
                return received.end.map_or(Ok(!received.is_all), Err);
            }
        }
        if stream::next(bytes) == Frame::Noise {
            return Err(End::Noise);
        }
        self.conns.keep(id, bytes, was_useful, self.now.mono);
        received.end.map_or(Ok(!received.is_all), Err)
    }

    /// Reads once from a connection that is joined to a peer's.
    fn read_joined(&mut self, id: ConnId, peer: PeerId, room: &mut [u8]) -> Result<bool, End> {
        let received = match self.conns.read(id, room) {
            Ok(Some(received)) => received,
            Ok(None) => return Ok(false),
            Err(End::Gone) => Received { len: 0, is_all: true, end: Some(End::Gone) },
            Err(end) => return Err(end),
        };
        self.send_to_peer(peer, room.get(..received.len).unwrap_or_default());
        self.after_joined(id, &received)
    }

    /// What stands behind bytes that have gone to the other side of a joined pair.
    fn after_joined(&mut self, id: ConnId, received: &Received) -> Result<bool, End> {
        let Some(peer) = self.conns.joined(id) else { return Ok(false) };
        match received.end {
            None => Ok(!received.is_all && !self.peers.is_connecting(peer)),
            Some(End::Gone) => {
                let token = Token::Conn(id).into();
                if self.client_ended(peer) {
                    self.conns.end_reading(&self.poll, token, id)?;
                }
                Ok(false)
            }
            Some(end) => Err(end),
        }
    }

    pub(super) fn write_conn(&mut self, id: ConnId) {
        if self.conns.write(&self.poll, |id| Token::Conn(id).into(), id).is_err() {
            self.close(id);
        } else if let Some(peer) = self.conns.joined(id) {
            self.balance(peer);
        }
    }

    /// Closes the connections whose time is over.
    pub(super) fn close_overdue(&mut self) {
        for (id, end) in self.conns.overdue(self.now.mono) {
            self.count_end(end);
            self.close(id);
        }
    }

    fn count_end(&mut self, end: End) {
        match end {
            End::Gone | End::Idle => {}
            End::Noise => self.tally.count_drop(Dropped::Noise),
            End::Tls => self.tally.count_drop(Dropped::Tls),
            End::HandshakeTimeout => self.tally.count_drop(Dropped::HandshakeTimeout),
            End::Proxy => self.tally.count_drop(Dropped::Proxy),
            End::Web => self.tally.count_drop(Dropped::Web),
        }
    }

    /// Closes a connection, and what depends on it.
    pub(super) fn close(&mut self, id: ConnId) {
        if let Some(peer) = self.conns.joined(id) {
            self.close_joined(peer);
            return;
        }
        let Some(tuple) = self.drop_conn(id) else { return };
        if let Some(worker) = self.routes.remove(&tuple) {
            self.tell(worker, Command::Closed(tuple));
            return;
        }
        let mut none = Packet::new(Box::default());
        let verdict = self.server.handle(self.now, Input::Closed(tuple), &mut none, &mut self.effects);
        debug_assert_eq!(verdict, Verdict::Nothing, "a closed connection is answered by nobody");
        self.perform_without_packet();
    }

    /// Closes a connection that nothing depends on.
    pub(super) fn drop_conn(&mut self, id: ConnId) -> Option<FiveTuple> {
        let tuple = self.conns.close(id)?;
        self.tally.connections[tuple.transport as usize].sub(1);
        if self.introduced.get(&tuple) == Some(&id) {
            self.introduced.remove(&tuple);
        }
        Some(tuple)
    }
}
