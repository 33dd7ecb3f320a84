//! Joined connections (RFC 6062 §5.5): bytes go between a client's connection and a peer's, or the web server's,
//! unchanged.
//!
//! Each side is read only as far as the other takes it. When one has said its last, the other hears so once it has
//! everything; when both have, or one breaks, both close. The account is kept by the worker that has the allocation.
#![forbid(unsafe_code)]

use super::Worker;
use super::conns::{self, READS_PER_TURN};
use super::mailbox::Command;
use super::peers::{self, Attempt, Due, Owner, PeerId, Purpose};
use super::sockets::{self, ACCEPT_PAUSE, RelaySocket, Token};
use crate::net::poll::Interest;
use crate::net::tcp;
use crate::time::Instant;
use crate::turn::refusal::Dropped;
use crate::turn::{Input, Path, Protocol, RelayId, StreamId, Verdict};
use crate::wire::stun::Family;
use std::io;
use std::os::fd::AsFd;

/// Connections accepted from the peers of one allocation before the others get their turn.
const ACCEPTS_PER_TURN: usize = 16;

impl Worker {
    /// Peers connect to a relay address.
    pub(super) fn accept_peers(&mut self, relay: RelayId, family: Family) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(RelaySocket::Connections(listener)) = self.relays.socket(relay, family) else { return };
            let (stream, from) = match tcp::accept(listener) {
                Ok(accepted) => accepted,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => {
                    return;
                }
                // Out of descriptors: the peer waits in the backlog, and nobody looks there for a moment.
                Err(_) => {
                    if self.poll.remove(listener.as_fd()).is_ok() {
                        self.resting.push((relay, family));
                        self.rest_until.get_or_insert(self.now.mono + ACCEPT_PAUSE);
                    }
                    return;
                }
            };
            let Some(from) = self.known_as(sockets::plain(from), Protocol::Tcp) else {
                self.tally.count_drop(Dropped::BadSource);
                continue;
            };
            self.make_room(1);
            let slot = self.used;
            self.used += 1;
            self.accepted = Some(stream);
            self.dispatch(slot, Input::Incoming { relay, from });
            self.accepted = None; // nobody wanted it: it is closed
        }
    }

    /// Something is to be done with a peer's connection.
    pub(super) fn peer_ready(&mut self, id: PeerId, readable: bool, writable: bool) {
        let token = Token::Peer(id).into();
        match self.peers.attempt(&self.poll, token, id, self.now.mono) {
            None => {}
            Some((Purpose::Relay(owner), attempt)) => {
                self.connected(owner, attempt);
                return;
            }
            Some((Purpose::Web(conn), Attempt::Failed)) => {
                self.web_is_lost(conn);
                return;
            }
            Some((Purpose::Web(_), Attempt::Open)) => {} // what waits for it is sent, and its client read on
        }
        if writable && self.peers.push(id).is_err() {
            self.close_joined(id);
            return;
        }
        if readable {
            self.read_peer(id);
        }
        self.balance(id);
    }

    /// The attempts at connections that took too long, and the connections whose rest or time is over.
    pub(super) fn tick_peers(&mut self) {
        for due in self.peers.due(self.now.mono) {
            match due {
                Due::Failed(Purpose::Relay(owner)) => self.connected(owner, Attempt::Failed),
                Due::Failed(Purpose::Web(conn)) => self.web_is_lost(conn),
                Due::Rested(id) => self.balance(id),
                Due::Idle(id) => self.close_joined(id),
            }
        }
        if self.rest_until.is_some_and(|until| until <= self.now.mono) {
            self.rest_until = None;
            self.look_again();
        }
    }

    /// Looks again at the relay addresses that had no descriptor for the peers who connect there.
    fn look_again(&mut self) {
        for (relay, family) in core::mem::take(&mut self.resting) {
            let Some(socket) = self.relays.socket(relay, family) else { continue };
            if self.poll.add(socket.as_fd(), Token::Relay(relay, family).into(), Interest::Read).is_err() {
                self.resting.push((relay, family));
                self.rest_until = Some(self.now.mono + ACCEPT_PAUSE);
            }
        }
    }

    /// Joins a held connection to a client's of this worker.
    pub(super) fn join_here(&mut self, owner: Owner, path: Path) {
        let (_, index) = sockets::link_parts(path.link);
        let conn = self.conns.id(index).filter(|id| self.conns.tuple(*id) == Some(path.tuple));
        let joined = conn.and_then(|conn| {
            let peer = self.peers.join(&self.poll, |id| Token::Peer(id).into(), owner.stream, conn)?;
            self.conns.join(conn, peer);
            Some(peer)
        });
        if joined.is_none() {
            self.close_stream(owner.stream);
            let _nothing = self.report(owner, Input::StreamClosed { relay: owner.relay, stream: owner.stream });
        }
    }

    /// Bytes of a joined client for its peer.
    pub(super) fn send_to_peer(&mut self, id: PeerId, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let Some((purpose, _)) = self.peers.joined(id) else { return };
        if self.peers.send(id, bytes).is_err() {
            self.close_joined(id);
            return;
        }
        self.account(id, purpose, bytes.len() as u64, 0);
        self.balance(id);
    }

    /// A joined client has said its last. Whether the connection goes on in the other direction.
    pub(super) fn client_ended(&mut self, id: PeerId) -> bool {
        if self.peers.end_sending(id).is_err() {
            self.close_joined(id);
            return false;
        }
        self.balance(id);
        self.peers.joined(id).is_some()
    }

    /// Lets each side of a joined pair be read as far as the other takes it.
    pub(super) fn balance(&mut self, id: PeerId) {
        let Some((_, conn)) = self.peers.joined(id) else { return };
        if self.peers.is_done(id) && self.conns.waiting(conn) == 0 {
            self.close_joined(id);
            return;
        }
        self.peers.set_blocked(id, self.conns.waiting(conn) >= conns::MAX_UNREAD);
        let is_full = self.peers.waiting(id) >= peers::MAX_UNSENT;
        let is_held_back = is_full || self.peers.is_resting(id) || self.peers.is_connecting(id);
        let token = Token::Conn(conn).into();
        let watched = self.conns.hold_back(&self.poll, token, conn, is_held_back);
        if watched.is_err() || self.peers.rewatch(&self.poll, Token::Peer(id).into(), id).is_err() {
            self.close_joined(id);
        }
    }

    /// Closes the connection with a peer, wherever it is, and the client's that is joined to it.
    pub(super) fn close_stream(&mut self, stream: StreamId) {
        if let Some(worker) = self.away.remove(&stream) {
            self.tell(worker, Command::CloseStream(stream));
        } else if let Some(id) = self.peers.find(stream) {
            self.close_both(id);
        }
    }

    /// A joined pair is over: both sides close, and the core hears of it.
    pub(super) fn close_joined(&mut self, id: PeerId) {
        let Some((purpose, _)) = self.peers.joined(id) else { return };
        self.close_both(id);
        let Purpose::Relay(owner) = purpose else { return };
        let _nothing = self.report(owner, Input::StreamClosed { relay: owner.relay, stream: owner.stream });
    }

    fn close_both(&mut self, id: PeerId) {
        if let Some(conn) = self.peers.close(id) {
            let _ = self.conns.write(&self.poll, |id| Token::Conn(id).into(), conn);
            self.drop_conn(conn);
        }
    }

    fn connected(&mut self, owner: Owner, attempt: Attempt) {
        self.make_room(1);
        let slot = self.used;
        self.used += 1;
        let (relay, stream) = (owner.relay, owner.stream);
        self.dispatch(slot, Input::Connected { relay, stream, is_open: attempt == Attempt::Open });
    }

    fn read_peer(&mut self, id: PeerId) {
        let Some((purpose, conn)) = self.peers.joined(id) else { return };
        let mut room = core::mem::take(&mut self.room);
        for _ in 0..READS_PER_TURN {
            if self.conns.waiting(conn) >= conns::MAX_UNREAD || self.peers.is_resting(id) {
                break;
            }
            match self.peers.read(id, &mut room) {
                Ok(0) => {
                    self.peers.end_reading(id);
                    self.conns.end_sending(conn);
                    break;
                }
                Ok(count) => {
                    let bytes = room.get(..count).unwrap_or_default();
                    let tuple = self.conns.tuple(conn);
                    let queued = tuple.map(|tuple| self.conns.queue(conn.index, &tuple, bytes, false));
                    if !matches!(queued, Some(Ok(true))) {
                        self.close_joined(id);
                        break;
                    }
                    self.account(id, purpose, 0, count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.close_joined(id);
                    break;
                }
            }
        }
        self.room = room;
    }

    /// Tells the core what went through, and lets the pair rest when the bandwidth of the allocation or of the server is
    /// used up. What browsers and the web server say belongs to no allocation.
    fn account(&mut self, id: PeerId, purpose: Purpose, to_peer: u64, to_client: u64) {
        let Purpose::Relay(owner) = purpose else {
            self.peers.touch(id, self.now.mono);
            return;
        };
        let carried = Input::Carried { relay: owner.relay, stream: owner.stream, to_peer, to_client };
        let own = if let Verdict::Wait(until) = self.report(owner, carried) { Some(until) } else { None };
        let rate = self.policy.limits.bandwidth;
        let shared = rate.and_then(|rate| self.ledger.charge(self.now.mono, rate, to_peer + to_client));
        if let Some(until) = own.max(shared) {
            self.peers.rest(id, until);
        }
    }

    /// Tells the worker that has the allocation what became of its connection.
    fn report(&mut self, owner: Owner, input: Input) -> Verdict {
        if owner.home != self.place() {
            self.tell(owner.home, Command::Told(input));
            return Verdict::Nothing;
        }
        self.told(input)
    }

    /// What another worker has to say of a connection that an allocation here gave away.
    pub(super) fn told_from_afar(&mut self, input: Input) {
        let carried =
            if let Input::Carried { stream, .. } = &input { self.away.get(stream).zip(Some(*stream)) } else { None };
        let carried = carried.map(|(worker, stream)| (*worker, stream));
        if let (Verdict::Wait(until), Some((worker, stream))) = (self.told(input), carried) {
            self.tell(worker, Command::Rest { stream, until });
        }
    }

    /// The pair rests until this moment.
    pub(super) fn rest(&mut self, stream: StreamId, until: Instant) {
        if let Some(id) = self.peers.find(stream) {
            self.peers.rest(id, until);
            self.balance(id);
        }
    }

    /// Something that makes no packet is for the core to know.
    pub(super) fn told(&mut self, input: Input) -> Verdict {
        if let Input::StreamClosed { stream, .. } = &input {
            self.away.remove(stream);
        }
        let mut none = crate::wire::Packet::new(Box::default());
        let verdict = self.server.handle(self.now, input, &mut none, &mut self.effects);
        self.perform_without_packet();
        verdict
    }
}
