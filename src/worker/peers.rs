//! Connections with peers (RFC 6062), and with the web server behind us: attempts, those that wait for their client,
//! those that are joined to one.
//!
//! Owns every such socket, a peer's by the id the core gave it, and what the other side has not taken yet. Nothing is read from a peer
//! before its connection is joined: the kernel's window holds the peer back. A joined connection moves to the worker
//! that has the client's; `home` is the one that has the allocation and keeps the account.
#![forbid(unsafe_code)]

use super::conns::ConnId;
use crate::net::poll::{Interest, Poll};
use crate::net::web;
use crate::time::{Duration, Instant, minutes, seconds};
use crate::turn::{RelayId, StreamId};
use socket2::SockRef;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;

/// How long a peer may take to take a connection (RFC 6062 §5.2: at least 30 s).
const CONNECT: Duration = seconds(30);
/// How long nothing may go between a browser and the web server.
const WEB_IDLE: Duration = minutes(5); // longer than web servers keep a silent connection
/// Bytes waiting for a peer that takes them slowly; with more, nothing is read from its client.
pub(super) const MAX_UNSENT: usize = 256 << 10;
/// Uses of a slot before its ids repeat: what a poll token has room for.
const GENERATION: u32 = 0x00FF_FFFF;

/// A connection with a peer, as poll tokens name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// Whose a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The worker that has the allocation.
    pub(super) home: u8,
    pub(super) relay: RelayId,
    pub(super) stream: StreamId,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It is with a peer.
    Relay(Owner),
    /// It is with the web server, for this client. The core knows nothing of it.
    Web(ConnId),
}

/// The connections of one worker with peers.
#[derive(Debug, Default)]
pub(super) struct PeerConns {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    by_stream: BTreeMap<StreamId, u32>,
    /// When those whose time is over are looked for next.
    next_check: Option<Instant>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    peer: Option<Peer>,
}

#[derive(Debug)]
struct Peer {
    stream: TcpStream,
    purpose: Purpose,
    state: State,
    /// What the peer has not taken, from `sent` on.
    unsent: Vec<u8>,
    sent: usize,
    /// The client has said its last; so will we, once everything is sent.
    is_last_said: bool,
    interest: Option<Interest>,
    /// Nothing is read before this moment: the allocation's bandwidth is used up.
    rests_until: Option<Instant>,
    /// When bytes have last gone to or from a browser.
    last_moved: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Until this moment.
    Connecting(Instant),
    /// Until the core says otherwise.
    Held,
    Joined {
        conn: ConnId,
        /// The peer has said its last.
        is_ended: bool,
        /// The client takes no more for now.
        is_blocked: bool,
    },
}

/// What came of looking at a connection that was being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Open,
    Failed,
}

/// What time has brought to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The attempt took too long; it is closed.
    Failed(Purpose),
    /// It has rested long enough.
    Rested(PeerId),
    /// Nothing has gone through for too long.
    Idle(PeerId),
}

impl PeerConns {
    /// Takes an attempt in, and has it watched for its end.
    pub(super) fn add_attempt(
        &mut self,
        poll: &Poll,
        token: impl FnOnce(PeerId) -> u64,
        stream: TcpStream,
        owner: Owner,
        now: Instant,
    ) -> io::Result<()> {
        let id = self.insert(stream, Purpose::Relay(owner), State::Connecting(now + CONNECT), now);
        self.note(now + CONNECT);
        self.watch(poll, token(id), id, Some(Interest::Write))
    }

    /// Takes an attempt at the web server in, with what it is to hear first: it is joined to its client from the start.
    pub(super) fn add_web(
        &mut self,
        poll: &Poll,
        token: impl FnOnce(PeerId) -> u64,
        stream: TcpStream,
        conn: ConnId,
        first: Vec<u8>,
        now: Instant,
    ) -> io::Result<PeerId> {
        let until = now + web::CONNECT;
        let id = self.insert(stream, Purpose::Web(conn), State::Connecting(until), now);
        self.note(until);
        if let Some(peer) = self.get_mut(id) {
            peer.unsent = first;
        }
        if let Err(error) = self.watch(poll, token(id), id, Some(Interest::Write)) {
            self.remove(id);
            return Err(error);
        }
        Ok(id)
    }

    /// Takes a connection in that a peer has made. Nobody watches it before it is joined.
    pub(super) fn add_held(&mut self, stream: TcpStream, owner: Owner, now: Instant) {
        self.insert(stream, Purpose::Relay(owner), State::Held, now);
    }

    /// Joins a held connection to a client's.
    pub(super) fn join(
        &mut self,
        poll: &Poll,
        token: impl FnOnce(PeerId) -> u64,
        stream: StreamId,
        conn: ConnId,
    ) -> Option<PeerId> {
        let id = self.find(stream)?;
        let peer = self.get_mut(id).filter(|peer| peer.state == State::Held)?;
        peer.state = State::Joined { conn, is_ended: false, is_blocked: false };
        self.watch(poll, token(id), id, Some(Interest::Read)).ok()?;
        Some(id)
    }

    /// Takes a held connection out, so that another worker can have it.
    pub(super) fn take(&mut self, stream: StreamId) -> Option<(TcpStream, Owner)> {
        let id = self.find(stream)?;
        let peer = self.remove(id)?;
        match peer.purpose {
            Purpose::Relay(owner) => Some((peer.stream, owner)),
            Purpose::Web(_) => None,
        }
    }

    /// Looks at an attempt that epoll has something to say of. `None` for a connection that is none.
    pub(super) fn attempt(&mut self, poll: &Poll, token: u64, id: PeerId, now: Instant) -> Option<(Purpose, Attempt)> {
        let peer = self.get_mut(id).filter(|peer| matches!(peer.state, State::Connecting(_)))?;
        let purpose = peer.purpose;
        let is_open = matches!(peer.stream.take_error(), Ok(None)) && is_connected(&peer.stream);
        (peer.state, peer.last_moved) = match purpose {
            Purpose::Relay(_) => (State::Held, now),
            Purpose::Web(conn) => (State::Joined { conn, is_ended: false, is_blocked: false }, now),
        };
        let watched = match purpose {
            Purpose::Relay(_) => self.watch(poll, token, id, None),
            // Whoever balances the pair says what it is watched for.
            Purpose::Web(_) => {
                self.note(now + WEB_IDLE);
                Ok(())
            }
        };
        if is_open && watched.is_ok() {
            return Some((purpose, Attempt::Open));
        }
        self.remove(id);
        Some((purpose, Attempt::Failed))
    }

    /// When [`PeerConns::due`] has something to say next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next_check
    }

    /// The connections that time has brought something to.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        if self.next_check.is_none_or(|check| check > now) {
            return due;
        }
        let (mut next, mut failed): (Option<Instant>, Vec<PeerId>) = (None, Vec::new());
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let id = PeerId { index: index as u32, generation: slot.generation };
            let Some((peer, limit)) = slot.peer.as_mut().and_then(|peer| peer.limit().map(|limit| (peer, limit)))
            else {
                continue;
            };
            if limit > now {
                next = Some(next.map_or(limit, |next| next.min(limit)));
            } else if matches!(peer.state, State::Connecting(_)) {
                failed.push(id);
            } else if peer.rests_until.take().is_some() {
                due.push(Due::Rested(id));
            } else {
                due.push(Due::Idle(id));
            }
        }
        self.next_check = next;
        due.extend(failed.into_iter().filter_map(|id| self.remove(id)).map(|peer| Due::Failed(peer.purpose)));
        due
    }

    /// What a connection is for, and which client's it is joined to.
    pub(super) fn joined(&self, id: PeerId) -> Option<(Purpose, ConnId)> {
        let peer = self.get(id)?;
        peer.conn().map(|conn| (peer.purpose, conn))
    }

    /// Whether the connection is not made yet.
    pub(super) fn is_connecting(&self, id: PeerId) -> bool {
        self.get(id).is_some_and(|peer| matches!(peer.state, State::Connecting(_)))
    }

    /// Bytes have gone through.
    pub(super) fn touch(&mut self, id: PeerId, now: Instant) {
        if let Some(peer) = self.get_mut(id) {
            peer.last_moved = now;
        }
    }

    /// Reads what a peer has sent. `Ok(0)`: it has said its last. `Err`: nothing, for now or for ever.
    pub(super) fn read(&mut self, id: PeerId, room: &mut [u8]) -> io::Result<usize> {
        let peer = self.get_mut(id).ok_or(io::ErrorKind::NotFound)?;
        loop {
            match peer.stream.read(room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    /// Queues bytes for a peer and sends what it takes. `Err` when the connection is broken.
    pub(super) fn send(&mut self, id: PeerId, bytes: &[u8]) -> io::Result<()> {
        let peer = self.get_mut(id).ok_or(io::ErrorKind::NotFound)?;
        peer.unsent.extend_from_slice(bytes);
        peer.push()
    }

    /// Sends what waits. `Err` when the connection is broken.
    pub(super) fn push(&mut self, id: PeerId) -> io::Result<()> {
        self.get_mut(id).ok_or(io::ErrorKind::NotFound)?.push()
    }

    /// How many bytes wait for a peer.
    pub(super) fn waiting(&self, id: PeerId) -> usize {
        self.get(id).map_or(0, |peer| peer.unsent.len() - peer.sent)
    }

    /// The client has said its last: the peer hears so once it has everything.
    pub(super) fn end_sending(&mut self, id: PeerId) -> io::Result<()> {
        let peer = self.get_mut(id).ok_or(io::ErrorKind::NotFound)?;
        peer.is_last_said = true;
        peer.push()
    }

    /// The peer has said its last.
    pub(super) fn end_reading(&mut self, id: PeerId) {
        if let Some(Peer { state: State::Joined { is_ended, .. }, .. }) = self.get_mut(id) {
            *is_ended = true;
        }
    }

    /// Whether both sides have said their last and everything is sent.
    pub(super) fn is_done(&self, id: PeerId) -> bool {
        self.get(id).is_some_and(|peer| {
            let is_ended = matches!(peer.state, State::Joined { is_ended: true, .. });
            is_ended && peer.is_last_said && peer.sent == peer.unsent.len()
        })
    }

    /// Whether the client's connection takes no more for now.
    pub(super) fn set_blocked(&mut self, id: PeerId, blocked: bool) {
        if let Some(Peer { state: State::Joined { is_blocked, .. }, .. }) = self.get_mut(id) {
            *is_blocked = blocked;
        }
    }

    /// Nothing is read before this moment.
    pub(super) fn rest(&mut self, id: PeerId, until: Instant) {
        if let Some(peer) = self.get_mut(id) {
            peer.rests_until = Some(until);
            self.note(until);
        }
    }

    /// Whether nothing may be read now.
    pub(super) fn is_resting(&self, id: PeerId) -> bool {
        self.get(id).is_some_and(|peer| peer.rests_until.is_some())
    }

    /// Watches a joined connection for what can be done with it.
    pub(super) fn rewatch(&mut self, poll: &Poll, token: u64, id: PeerId) -> io::Result<()> {
        let Some(peer) = self.get(id) else { return Ok(()) };
        let State::Joined { is_ended, is_blocked, .. } = peer.state else { return Ok(()) };
        let reads = !is_ended && !is_blocked && peer.rests_until.is_none();
        let writes = peer.sent < peer.unsent.len();
        let interest = match (reads, writes) {
            (true, true) => Some(Interest::ReadWrite),
            (true, false) => Some(Interest::Read),
            (false, true) => Some(Interest::Write),
            (false, false) => None,
        };
        self.watch(poll, token, id, interest)
    }

    /// Closes a connection. Which client's it was joined to.
    pub(super) fn close(&mut self, id: PeerId) -> Option<ConnId> {
        self.remove(id)?.conn()
    }

    /// The connection of this name.
    pub(super) fn find(&self, stream: StreamId) -> Option<PeerId> {
        let index = *self.by_stream.get(&stream)?;
        Some(PeerId { index, generation: self.slots.get(index as usize)?.generation })
    }

    fn note(&mut self, check: Instant) {
        self.next_check = Some(self.next_check.map_or(check, |next| next.min(check)));
    }

    fn insert(&mut self, stream: TcpStream, purpose: Purpose, state: State, now: Instant) -> PeerId {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.peer = Some(Peer {
            stream,
            purpose,
            state,
            unsent: Vec::new(),
            sent: 0,
            is_last_said: false,
            interest: None,
            rests_until: None,
            last_moved: now,
        });
        let id = PeerId { index, generation: slot.generation };
        if let Purpose::Relay(owner) = purpose {
            self.by_stream.insert(owner.stream, index);
        }
        id
    }

    fn remove(&mut self, id: PeerId) -> Option<Peer> {
        let slot = self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        let peer = slot.peer.take()?;
        slot.generation = (slot.generation + 1) & GENERATION;
        self.vacant.push(id.index);
        if let Purpose::Relay(owner) = peer.purpose {
            self.by_stream.remove(&owner.stream);
        }
        Some(peer)
    }

    fn watch(&mut self, poll: &Poll, token: u64, id: PeerId, interest: Option<Interest>) -> io::Result<()> {
        let Some(peer) = self.get_mut(id).filter(|peer| peer.interest != interest) else { return Ok(()) };
        match (peer.interest, interest) {
            (None, Some(interest)) => poll.add(peer.stream.as_fd(), token, interest)?,
            (Some(_), Some(interest)) => poll.modify(peer.stream.as_fd(), token, interest)?,
            (Some(_), None) => poll.remove(peer.stream.as_fd())?,
            (None, None) => {}
        }
        peer.interest = interest;
        Ok(())
    }

    fn get(&self, id: PeerId) -> Option<&Peer> {
        let slot = self.slots.get(id.index as usize)?;
        slot.peer.as_ref().filter(|_| slot.generation == id.generation)
    }

    fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.peer.as_mut().filter(|_| slot.generation == id.generation)
    }
}

/// Whether a socket has another end, of whatever family.
fn is_connected(stream: &TcpStream) -> bool {
    SockRef::from(stream).peer_addr().is_ok()
}

impl Peer {
    /// The client's connection that it is joined to.
    fn conn(&self) -> Option<ConnId> {
        match (self.state, self.purpose) {
            (State::Joined { conn, .. }, _) | (_, Purpose::Web(conn)) => Some(conn),
            (State::Connecting(_) | State::Held, Purpose::Relay(_)) => None,
        }
    }

    /// When time brings something to it.
    fn limit(&self) -> Option<Instant> {
        match (self.state, self.purpose) {
            (State::Connecting(until), _) => Some(until),
            (_, Purpose::Web(_)) => Some(self.last_moved + WEB_IDLE),
            (_, Purpose::Relay(_)) => self.rests_until,
        }
    }

    fn push(&mut self) -> io::Result<()> {
        if matches!(self.state, State::Connecting(_)) {
            return Ok(()); // it goes once somebody is there
        }
        while self.sent < self.unsent.len() {
            match self.stream.write(self.unsent.get(self.sent..).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.sent == self.unsent.len() {
            self.unsent.clear();
            self.sent = 0;
            if self.unsent.capacity() > 4096 {
                self.unsent = Vec::new();
            }
            if self.is_last_said {
                let _ = self.stream.shutdown(Shutdown::Write); // a peer that is gone already needs no farewell
            }
        } else if self.sent > MAX_UNSENT {
            self.unsent.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::web::{Place, Web};
    use std::net::{Ipv4Addr, TcpListener};

    const START: Instant = Instant(0);

    #[test]
    fn a_web_server_has_five_seconds_and_a_silent_pair_five_minutes() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let web = Web::new(Place::Address(listener.local_addr().unwrap()), Some(false), false);
        let (poll, conn) = (Poll::new().unwrap(), ConnId { index: 1, generation: 2 });
        let mut peers = PeerConns::default();
        let attempt = |peers: &mut PeerConns| {
            peers.add_web(&poll, |_| 0, web.connect().unwrap(), conn, b"first".to_vec(), START).unwrap()
        };
        attempt(&mut peers);
        assert_eq!((peers.deadline(), peers.due(START + seconds(4))), (Some(START + web::CONNECT), Vec::new()));
        assert_eq!(peers.due(START + web::CONNECT), [Due::Failed(Purpose::Web(conn))]);
        assert_eq!(peers.deadline(), None);

        let id = attempt(&mut peers);
        let (mut other, _) = listener.accept().map(|_| listener.accept().unwrap()).unwrap();
        assert!(peers.is_connecting(id) && peers.joined(id) == Some((Purpose::Web(conn), conn)));
        assert_eq!(peers.attempt(&poll, 0, id, START), Some((Purpose::Web(conn), Attempt::Open)));
        peers.push(id).unwrap();
        let mut first = [0; 5];
        other.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"first");
        peers.touch(id, START + seconds(100));
        assert_eq!(peers.due(START + WEB_IDLE), []);
        assert_eq!(peers.deadline(), Some(START + seconds(100) + WEB_IDLE));
        assert_eq!(peers.due(START + seconds(100) + WEB_IDLE), [Due::Idle(id)]);
    }
}
