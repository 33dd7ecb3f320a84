//! TCP and TLS clients of one worker: framing, back-pressure, time limits.
//!
//! Owns every connection and what is half received or not yet sent on it. Both are bounded: a message is at most
//! [`MAX_MESSAGE`] bytes, and a client that does not read loses data first and its connection then. A connection lives in
//! stages: what it is, where that is open (`opening`); a TLS handshake where one is wanted, at most [`HANDSHAKE`] long;
//! then messages. One that says nothing
//! worth an answer for [`IDLE`] and carries no allocation is closed. Never decides what a message means.
#![forbid(unsafe_code)]

use super::ledger::Admission;
use super::opening::{self, OPENING_ROOM, Opening};
use super::peers::PeerId;
use crate::net::poll::{Interest, Poll};
use crate::net::tls::{self, Over, Session};
use crate::time::{Duration, Instant, seconds};
use crate::turn::FiveTuple;
use crate::wire::packet::MAX_MESSAGE;
use crate::wire::stream::{self, Frame};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;

/// Bytes waiting for a client that takes them slowly, encrypted or not yet; data beyond that is dropped.
const MAX_UNSENT_DATA: usize = 256 << 10;
/// With this many bytes waiting, nothing more is read from the client.
pub(super) const MAX_UNREAD: usize = 128 << 10;
/// With this many bytes waiting, not even answers are queued: the connection ends.
const MAX_UNSENT: usize = 384 << 10;
/// Without an allocation, time from one whole message to the next, or to the first.
const IDLE: Duration = seconds(60);
/// Bytes encrypted ahead of what the client takes: a record makes a message of four bytes eight times as long.
const ENCRYPTED: usize = 64 << 10;
/// From the accept to the end of the TLS handshake.
const HANDSHAKE: Duration = seconds(10); // some ten round trips of a bad mobile network
/// Reads of one connection before the others get their turn.
pub(super) const READS_PER_TURN: usize = 4;

/// Uses of a slot before its ids repeat: what a poll token has room for.
const GENERATION: u32 = 0x00FF_FFFF;

/// The connections of one worker.
#[derive(Debug, Default)]
pub(super) struct Conns {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    /// Connections with something to send since the last flush.
    dirty: Vec<u32>,
    /// When those whose time is over are looked for next.
    next_check: Option<Instant>,
    /// Where the bytes of a TLS connection are read to; empty until there is one.
    wire: Box<[u8]>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    conn: Option<Conn>,
}

#[derive(Debug)]
struct Conn {
    stream: TcpStream,
    tuple: FiveTuple,
    /// What is to be found out before anything else.
    opening: Option<Opening>,
    tls: Option<Box<Secure>>,
    says: Says,
    /// The start of a message whose end has not come.
    partial: Vec<u8>,
    /// What the client has not taken, as it stands on the wire, from `sent` on.
    unsent: Vec<u8>,
    sent: usize,
    is_dirty: bool,
    /// What it is watched for.
    interest: Option<Interest>,
    /// The peer's connection that its bytes go to and come from, once it is no TURN connection any more.
    joined: Option<Joined>,
    last_message: Instant,
    /// Allocations on this connection: it has no time limit while there is one.
    allocations: u32,
    admission: Admission,
}

/// What a client has shown to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// Nothing so far.
    Nothing,
    /// Messages of ours, from the first on.
    Messages,
    /// It has agreed by ALPN to speak HTTP.
    Http,
}

/// What being joined to a peer's connection adds (RFC 6062).
#[derive(Clone, Copy, Debug)]
struct Joined {
    peer: PeerId,
    /// The peer takes no more for now.
    is_held_back: bool,
    /// The client has said its last.
    is_ended: bool,
    /// The peer has said its last; so will we, once everything is sent.
    is_last_said: bool,
}

/// A connection at its beginning.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) tuple: FiveTuple,
    /// The server's side of the handshake, where TLS is spoken.
    pub(super) session: Option<Session>,
    /// What is to be found out of it.
    pub(super) opening: Option<Opening>,
    pub(super) admission: Admission,
}

/// What TLS adds to a connection.
#[derive(Debug)]
struct Secure {
    session: Session,
    /// Whole messages that are to be encrypted as soon as the wire is free.
    clear: Vec<u8>,
    /// Whether the client has sent anything: one that only connects has not failed at TLS.
    has_begun: bool,
}

/// A connection, as tokens and links name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// Bytes read from a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// How many lie in the room, those kept from before included.
    pub(super) len: usize,
    /// The kernel has no more of them.
    pub(super) is_all: bool,
    /// What ended the connection after them.
    pub(super) end: Option<End>,
}

/// Why nothing more is to be expected of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client closed it, or it broke.
    Gone,
    /// What came is neither STUN nor ChannelData.
    Noise,
    /// The TLS handshake or a record failed.
    Tls,
    /// The TLS handshake took too long.
    HandshakeTimeout,
    /// Nothing worth an answer came for too long.
    Idle,
    /// The PROXY header is missing, wrong, late, or not for its sender to send.
    Proxy,
    /// The web server cannot take it.
    Web,
}

impl Conns {
    /// Takes a connection in and has it watched. `token` makes the poll token of an id.
    pub(super) fn add(
        &mut self,
        poll: &Poll,
        token: impl FnOnce(ConnId) -> u64,
        accepted: Accepted,
        now: Instant,
    ) -> io::Result<ConnId> {
        let Accepted { stream, tuple, session, opening, admission } = accepted;
        let index = self.vacant.last().copied().unwrap_or(self.slots.len() as u32);
        if index as usize == self.slots.len() {
            self.slots.push(Slot::default());
            self.vacant.push(index);
        }
        let slot = &mut self.slots[index as usize];
        let id = ConnId { index, generation: slot.generation };
        poll.add(stream.as_fd(), token(id), Interest::Read)?;
        self.vacant.pop();
        let conn = Conn {
            stream,
            tuple,
            opening,
            tls: session.map(Secure::new),
            says: Says::Nothing,
            partial: Vec::new(),
            unsent: Vec::new(),
            sent: 0,
            is_dirty: false,
            interest: Some(Interest::Read),
            joined: None,
            last_message: now,
            allocations: 0,
            admission,
        };
        let limit = conn.limit();
        if conn.tls.is_some() && self.wire.is_empty() {
            self.wire = vec![0; tls::WIRE_ROOM].into();
        }
        slot.conn = Some(conn);
        self.note(limit);
        Ok(id)
    }

    fn note(&mut self, limit: Option<(Instant, End)>) {
        if let Some((check, _)) = limit {
            self.next_check = Some(self.next_check.map_or(check, |next| next.min(check)));
        }
    }

    /// Whether something is to be found out of a connection.
    pub(super) fn is_opening(&self, id: ConnId) -> bool {
        self.get(id).is_some_and(|conn| conn.opening.is_some())
    }

    /// What is to be found out. Whoever takes it goes on with the connection, or puts it back, or closes the connection.
    pub(super) fn take_opening(&mut self, id: ConnId) -> Option<Opening> {
        self.get_mut(id)?.opening.take()
    }

    /// Reads what has come for an opening, behind what was kept.
    pub(super) fn read_opening(&mut self, id: ConnId, room: &mut [u8]) -> Result<Option<Received>, End> {
        let Some(conn) = self.get_mut(id) else { return Ok(None) };
        let held = conn.partial.len();
        let (head, space) = room.split_at_mut_checked(held).ok_or(End::Noise)?;
        head.copy_from_slice(&conn.partial);
        release(&mut conn.partial);
        let space = space.get_mut(..OPENING_ROOM).unwrap_or_default();
        let lost = match &conn.opening {
            Some(Opening::Header(_)) if held > 0 => End::Proxy,
            Some(Opening::Hello(hello, _)) if !hello.raw().is_empty() => End::Tls,
            Some(_) | None => End::Gone,
        };
        let count = read_some(&mut conn.stream, space).map_err(|_| lost)?;
        if count.is_none() {
            conn.partial.extend_from_slice(head);
        }
        Ok(count.map(|count| Received { len: held + count, is_all: count < OPENING_ROOM, end: None }))
    }

    /// More bytes are needed for an opening; these are kept.
    pub(super) fn wait_opening(&mut self, id: ConnId, opening: Opening, bytes: &[u8]) {
        let Some(conn) = self.get_mut(id) else { return };
        conn.partial.extend_from_slice(bytes);
        conn.opening = Some(opening);
        let limit = conn.limit();
        self.note(limit);
    }

    /// A stage of an opening is over; the next one has its own time.
    pub(super) fn begin_again(&mut self, id: ConnId, now: Instant) {
        if let Some(conn) = self.get_mut(id) {
            conn.last_message = now;
        }
    }

    /// A proxy says whose a connection is. `false` when that one has as many as permitted.
    pub(super) fn introduce(&mut self, id: ConnId, tuple: FiveTuple, limit: u32) -> bool {
        self.rename(id, tuple);
        self.get_mut(id).is_some_and(|conn| conn.admission.name(tuple.client.ip(), limit))
    }

    /// Gives a connection that the core has not heard of another name.
    pub(super) fn rename(&mut self, id: ConnId, tuple: FiveTuple) {
        if let Some(conn) = self.get_mut(id) {
            conn.tuple = tuple;
        }
    }

    /// Lets a connection go on to the web server; `false` when too many do so.
    pub(super) fn go_on(&mut self, id: ConnId) -> bool {
        self.get_mut(id).is_some_and(|conn| conn.admission.go_on())
    }

    /// All that was open of a connection is known.
    pub(super) fn begin(&mut self, id: ConnId, session: Option<Session>, says: Says, now: Instant) {
        if session.is_some() && self.wire.is_empty() {
            self.wire = vec![0; tls::WIRE_ROOM].into();
        }
        let Some(conn) = self.get_mut(id) else { return };
        (conn.tls, conn.says, conn.last_message) = (session.map(Secure::new), says, now);
        let limit = conn.limit();
        self.note(limit);
    }

    /// What a client has shown to speak.
    pub(super) fn says(&self, id: ConnId) -> Says {
        self.get(id).map_or(Says::Messages, |conn| conn.says)
    }

    /// The client has shown to speak as clients of ours do.
    pub(super) fn says_messages(&mut self, id: ConnId) {
        if let Some(conn) = self.get_mut(id) {
            conn.says = Says::Messages;
        }
    }

    /// Gives a TLS connection bytes of the wire that were read before its session was made.
    pub(super) fn feed(&mut self, id: ConnId, wire: &[u8], room: &mut [u8]) -> Result<Option<Received>, End> {
        let Self { slots, dirty, .. } = self;
        let Some(conn) = live_mut(slots, id) else { return Ok(None) };
        conn.decrypt(id, wire, room, dirty)
            .map(|received| received.map(|(len, end)| Received { len, is_all: false, end }))
    }

    /// Who is on a connection.
    pub(super) fn tuple(&self, id: ConnId) -> Option<FiveTuple> {
        self.get(id).map(|conn| conn.tuple)
    }

    /// The id of the connection in this slot.
    pub(super) fn id(&self, index: u32) -> Option<ConnId> {
        let slot = self.slots.get(index as usize)?;
        slot.conn.as_ref().map(|_| ConnId { index, generation: slot.generation })
    }

    /// Notes that an allocation on this connection began (+1) or ended (-1).
    pub(super) fn count_allocation(&mut self, index: u32, tuple: &FiveTuple, began: bool, now: Instant) {
        let conn = self.slots.get_mut(index as usize).and_then(|slot| slot.conn.as_mut());
        if let Some(conn) = conn.filter(|conn| conn.tuple == *tuple) {
            conn.allocations = if began { conn.allocations + 1 } else { conn.allocations.saturating_sub(1) };
            conn.last_message = now;
            let check = now + IDLE;
            self.next_check = Some(self.next_check.map_or(check, |next| next.min(check)));
        }
    }

    /// Reads what has come into `room`, behind the start of a message that was kept. `None`: nothing came.
    pub(super) fn read(&mut self, id: ConnId, room: &mut [u8]) -> Result<Option<Received>, End> {
        let Self { slots, wire, dirty, .. } = self;
        let Some(conn) = live_mut(slots, id) else { return Ok(None) };
        let held = conn.partial.len();
        let (head, space) = room.split_at_mut_checked(held).ok_or(End::Noise)?;
        head.copy_from_slice(&conn.partial);
        let Some(tls) = &mut conn.tls else {
            let wanted = space.len();
            let count = read_some(&mut conn.stream, space)?;
            return Ok(count.map(|count| Received { len: held + count, is_all: count < wanted, end: None }));
        };
        let lost = |tls: &Secure| if tls.has_begun && tls.session.is_handshaking() { End::Tls } else { End::Gone };
        let count = read_some(&mut conn.stream, wire).map_err(|_| lost(tls))?;
        let Some(count) = count else { return Ok(None) };
        let is_all = count < wire.len();
        let received = conn.decrypt(id, wire.get(..count).unwrap_or_default(), space, dirty)?;
        Ok(received.map(|(len, end)| Received { len: held + len, is_all, end }))
    }

    /// Keeps the start of a message for the next read. `was_useful`: what stood before it was answered or relayed.
    pub(super) fn keep(&mut self, id: ConnId, rest: &[u8], was_useful: bool, now: Instant) {
        let Some(conn) = self.get_mut(id) else { return };
        if was_useful {
            conn.last_message = now;
        }
        conn.partial.clear();
        if rest.is_empty() {
            release(&mut conn.partial);
        }
        conn.partial.extend_from_slice(rest);
    }

    /// Queues bytes for a client. `Ok(false)`: data that the client is too slow for, dropped. `Err`: it must go.
    pub(super) fn queue(&mut self, index: u32, tuple: &FiveTuple, bytes: &[u8], is_data: bool) -> Result<bool, End> {
        let Some(slot) = self.slots.get_mut(index as usize) else { return Ok(false) };
        let Some(conn) = slot.conn.as_mut().filter(|conn| conn.tuple == *tuple) else { return Ok(false) };
        let waiting = conn.waiting();
        if is_data && waiting + bytes.len() > MAX_UNSENT_DATA {
            return Ok(false);
        }
        if waiting + bytes.len() > MAX_UNSENT {
            return Err(End::Gone);
        }
        let queue = conn.tls.as_mut().map_or(&mut conn.unsent, |tls| &mut tls.clear);
        queue.extend_from_slice(bytes);
        if !conn.is_dirty {
            conn.is_dirty = true;
            self.dirty.push(index);
        }
        Ok(true)
    }

    /// The same, with a write in between where what was queued since the last one leaves no room: in one wake-up more may
    /// come than is kept for a client that is fast enough for it.
    pub(super) fn push(
        &mut self,
        poll: &Poll,
        token: impl Fn(ConnId) -> u64,
        index: u32,
        tuple: &FiveTuple,
        bytes: &[u8],
        is_data: bool,
    ) -> Result<bool, End> {
        if self.queue(index, tuple, bytes, is_data)? {
            return Ok(true);
        }
        let Some(id) = self.id(index) else { return Ok(false) };
        if !self.get_mut(id).is_some_and(|conn| conn.is_dirty) {
            return Ok(false);
        }
        self.write(poll, token, id)?;
        self.queue(index, tuple, bytes, is_data)
    }

    /// Sends what was queued, one write a connection. Those that broke are told to `broken`, and `relieved` hears of the
    /// peers whose clients have room again, or all they will get.
    pub(super) fn flush(
        &mut self,
        poll: &Poll,
        token: impl Fn(ConnId) -> u64,
        broken: &mut Vec<ConnId>,
        relieved: &mut Vec<PeerId>,
    ) {
        let mut dirty = core::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            let Some(id) = self.id(index) else { continue };
            if self.write(poll, &token, id).is_err() {
                broken.push(id);
            } else {
                relieved.extend(self.joined(id));
            }
        }
        self.dirty = dirty;
    }

    /// Writes what waits on one connection, and watches for room while something is left.
    pub(super) fn write(&mut self, poll: &Poll, token: impl Fn(ConnId) -> u64, id: ConnId) -> Result<(), End> {
        let Some(conn) = self.get_mut(id) else { return Ok(()) };
        conn.is_dirty = false;
        while conn.has_unsent()? {
            match conn.stream.write(conn.unsent.get(conn.sent..).unwrap_or_default()) {
                Ok(0) => return Err(End::Gone),
                Ok(count) => conn.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(End::Gone),
            }
        }
        if conn.sent > MAX_UNSENT {
            conn.unsent.drain(..conn.sent);
            conn.sent = 0;
        }
        conn.say_last();
        conn.watch(poll, token(id))
    }

    /// Makes a connection one end of a joined pair: what comes on it is no message any more.
    pub(super) fn join(&mut self, id: ConnId, peer: PeerId) {
        if let Some(conn) = self.get_mut(id) {
            conn.joined = Some(Joined { peer, is_held_back: false, is_ended: false, is_last_said: false });
        }
    }

    /// The peer's connection that this one is joined to.
    pub(super) fn joined(&self, id: ConnId) -> Option<PeerId> {
        self.get(id)?.joined.map(|joined| joined.peer)
    }

    /// Bytes that a client has not taken, encrypted or not yet.
    pub(super) fn waiting(&self, id: ConnId) -> usize {
        self.get(id).map_or(0, Conn::waiting)
    }

    /// Reads from a joined client only while its peer takes what it says.
    pub(super) fn hold_back(&mut self, poll: &Poll, token: u64, id: ConnId, is_held_back: bool) -> Result<(), End> {
        let Some(conn) = self.get_mut(id) else { return Ok(()) };
        if let Some(joined) = &mut conn.joined {
            joined.is_held_back = is_held_back;
        }
        conn.watch(poll, token)
    }

    /// The joined client has said its last, and may still listen.
    pub(super) fn end_reading(&mut self, poll: &Poll, token: u64, id: ConnId) -> Result<(), End> {
        let Some(conn) = self.get_mut(id) else { return Ok(()) };
        if let Some(joined) = &mut conn.joined {
            joined.is_ended = true;
        }
        conn.watch(poll, token)
    }

    /// The peer of a joined client has said its last: the client hears so once it has everything.
    pub(super) fn end_sending(&mut self, id: ConnId) {
        let Some(conn) = self.get_mut(id) else { return };
        if let Some(joined) = &mut conn.joined {
            joined.is_last_said = true;
        }
        if !conn.is_dirty {
            conn.is_dirty = true;
            self.dirty.push(id.index);
        }
    }

    /// Closes a connection, with a word of goodbye where TLS has one; its descriptor and its place in the books are free
    /// after.
    pub(super) fn close(&mut self, id: ConnId) -> Option<FiveTuple> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let mut conn = slot.conn.take()?;
        conn.say_goodbye();
        slot.generation = (slot.generation + 1) & GENERATION;
        self.vacant.push(id.index);
        Some(conn.tuple)
    }

    /// Says goodbye on every connection: the worker ends, and its sockets with it.
    pub(super) fn say_goodbye(&mut self) {
        self.slots.iter_mut().filter_map(|slot| slot.conn.as_mut()).for_each(Conn::say_goodbye);
    }

    /// When [`Conns::overdue`] has to look next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next_check
    }

    /// The connections whose time is over, and why.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<(ConnId, End)> {
        if self.next_check.is_none_or(|check| check > now) {
            return Vec::new();
        }
        let mut overdue = Vec::new();
        let mut next: Option<Instant> = None;
        for (index, slot) in self.slots.iter().enumerate() {
            let Some((limit, end)) = slot.conn.as_ref().and_then(Conn::limit) else { continue };
            if limit <= now {
                overdue.push((ConnId { index: index as u32, generation: slot.generation }, end));
            } else {
                next = Some(next.map_or(limit, |next| next.min(limit)));
            }
        }
        // Once a second at most: each look is at every connection.
        self.next_check = next.map(|check| check.max(now + seconds(1)));
        overdue
    }

    fn get(&self, id: ConnId) -> Option<&Conn> {
        let slot = self.slots.get(id.index as usize)?;
        slot.conn.as_ref().filter(|_| slot.generation == id.generation)
    }

    fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        live_mut(&mut self.slots, id)
    }
}

fn live_mut(slots: &mut [Slot], id: ConnId) -> Option<&mut Conn> {
    let slot = slots.get_mut(id.index as usize)?;
    slot.conn.as_mut().filter(|_| slot.generation == id.generation)
}

/// Reads once. `None`: nothing has come.
fn read_some(stream: &mut TcpStream, room: &mut [u8]) -> Result<Option<usize>, End> {
    match stream.read(room) {
        Ok(0) => Err(End::Gone),
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(_) => Err(End::Gone),
    }
}

impl Conn {
    /// Writes the plaintext of `wire` to `room`. How long it is, and what ended the connection after it.
    fn decrypt(
        &mut self,
        id: ConnId,
        wire: &[u8],
        room: &mut [u8],
        dirty: &mut Vec<u32>,
    ) -> Result<Option<(usize, Option<End>)>, End> {
        let Some(tls) = &mut self.tls else { return Ok(None) };
        tls.has_begun = true;
        let received = tls.session.receive(wire, room);
        tls.session.take_output(&mut self.unsent);
        if !self.unsent.is_empty() && !self.is_dirty {
            self.is_dirty = true;
            dirty.push(id.index);
        }
        if self.waiting() > MAX_UNSENT {
            return Err(End::Gone);
        }
        let end = received.over.map(|over| match over {
            Over::Closed => End::Gone,
            Over::Failed(error) => {
                opening::log_failure(self.tuple.client, &error);
                End::Tls
            }
        });
        Ok(Some((received.len, end)))
    }

    /// Bytes that the client has not taken, encrypted or not yet.
    fn waiting(&self) -> usize {
        self.unsent.len() - self.sent + self.tls.as_ref().map_or(0, |tls| tls.clear.len())
    }

    /// Tells a joined client that nothing more comes, once it has everything.
    fn say_last(&mut self) {
        if !self.joined.is_some_and(|joined| joined.is_last_said) || self.waiting() > 0 {
            return;
        }
        if let Some(joined) = &mut self.joined {
            joined.is_last_said = false;
        }
        self.say_goodbye();
        let _ = self.stream.shutdown(Shutdown::Write); // a client that is gone already needs no farewell
    }

    /// Has it watched for what can be done with it.
    fn watch(&mut self, poll: &Poll, token: u64) -> Result<(), End> {
        let waiting = self.waiting();
        // Whoever does not take answers may not ask for more.
        let reads = waiting < MAX_UNREAD && self.joined.is_none_or(|joined| !joined.is_held_back && !joined.is_ended);
        let interest = match (reads, waiting > 0) {
            (true, true) => Some(Interest::ReadWrite),
            (true, false) => Some(Interest::Read),
            (false, true) => Some(Interest::Write),
            (false, false) => None,
        };
        let watched = match (self.interest, interest) {
            (before, now) if before == now => Ok(()),
            (None, Some(interest)) => poll.add(self.stream.as_fd(), token, interest),
            (_, Some(interest)) => poll.modify(self.stream.as_fd(), token, interest),
            (_, None) => poll.remove(self.stream.as_fd()),
        };
        self.interest = interest;
        watched.map_err(|_| End::Gone)
    }

    /// Whether there is something for the wire. What waits to be encrypted is so once all before it has left.
    fn has_unsent(&mut self) -> Result<bool, End> {
        if self.sent < self.unsent.len() {
            return Ok(true);
        }
        release(&mut self.unsent);
        self.sent = 0;
        let Some(tls) = self.tls.as_mut().filter(|tls| !tls.clear.is_empty()) else { return Ok(false) };
        tls.encrypt(&mut self.unsent, self.joined.is_none())?;
        Ok(!self.unsent.is_empty())
    }

    /// When its time is over, and what that is called. None for one that carries an allocation.
    fn limit(&self) -> Option<(Instant, End)> {
        match self.opening {
            None => {}
            Some(Opening::Header(_)) => return Some((self.last_message + opening::HEADER, End::Proxy)),
            Some(Opening::Word { .. }) if !self.tuple.transport.is_secure() => {
                return Some((self.last_message + IDLE, End::Idle));
            }
            Some(Opening::Word { .. } | Opening::Hello(..)) => {
                return Some((self.last_message + HANDSHAKE, End::HandshakeTimeout));
            }
        }
        if self.tls.as_ref().is_some_and(|tls| tls.session.is_handshaking()) {
            return Some((self.last_message + HANDSHAKE, End::HandshakeTimeout));
        }
        let is_busy = self.allocations > 0 || self.joined.is_some();
        (!is_busy).then_some((self.last_message + IDLE, End::Idle))
    }

    /// Sends the last word of TLS, as far as the socket takes it at once.
    fn say_goodbye(&mut self) {
        let Some(tls) = &mut self.tls else { return };
        tls.session.close(&mut self.unsent);
        let _ = self.stream.write(self.unsent.get(self.sent..).unwrap_or_default());
    }
}

impl Secure {
    fn new(session: Session) -> Box<Self> {
        Box::new(Self { session, clear: Vec::new(), has_begun: false })
    }

    /// Encrypts what waits, as far as [`ENCRYPTED`] permits. Each message has a record of its own: there are clients,
    /// coturn's among them, that take one for the other. What goes through a joined pair is no message.
    fn encrypt(&mut self, wire: &mut Vec<u8>, is_messages: bool) -> Result<(), End> {
        let mut rest = self.clear.as_slice();
        while !rest.is_empty() && wire.len() < ENCRYPTED {
            let len = match stream::next(rest) {
                Frame::Whole { next, .. } if is_messages => next.min(rest.len()),
                Frame::Whole { .. } | Frame::Partial { .. } | Frame::Noise => rest.len().min(ENCRYPTED),
            };
            let (message, after) = rest.split_at(len);
            self.session.send(message, wire).map_err(|_| End::Gone)?;
            rest = after;
        }
        let done = self.clear.len() - rest.len();
        self.clear.drain(..done);
        if self.clear.is_empty() {
            release(&mut self.clear);
        }
        Ok(())
    }
}

/// Empties a buffer, and gives its memory back when it is much.
fn release(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > KEPT {
        *buffer = Vec::new();
    }
}

/// Memory that an empty buffer of a connection may keep.
const KEPT: usize = 4096;

/// Room for one read: a partial message and the longest rest of it, and more.
pub(super) const READ_ROOM: usize = MAX_MESSAGE + (64 << 10);
const _: () =
    assert!(READ_ROOM - MAX_MESSAGE >= tls::CLEAR_ROOM, "what one read decrypts fits behind a partial message");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls::{Certificates, MinVersion, Pair};
    use crate::turn::tally::Transport;
    use crate::worker::ledger::Ledger;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::Arc;

    const START: Instant = Instant(0);

    /// A worker's connections, one of them, and the other end of it.
    struct World {
        conns: Conns,
        poll: Poll,
        id: ConnId,
        tuple: FiveTuple,
        stream: TcpStream,
        client: ClientConnection,
        room: Vec<u8>,
    }

    impl World {
        fn new(is_secure: bool) -> Self {
            let key = rcgen::KeyPair::generate().unwrap();
            let cert = rcgen::CertificateParams::new(vec!["a.example".into()]).unwrap().self_signed(&key).unwrap();
            let pair = Pair::from_pem(cert.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
            let certificates = Certificates::new(vec![pair], MinVersion::Tls12).unwrap();
            let mut roots = RootCertStore::empty();
            roots.add(cert.der().clone()).unwrap();
            let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
            let config = config.with_safe_default_protocol_versions().unwrap();
            let config = config.with_root_certificates(roots).with_no_client_auth();
            let name = ServerName::try_from("a.example").unwrap();
            let client = ClientConnection::new(Arc::new(config), name).unwrap();

            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            other.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let (stream, from) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            let transport = if is_secure { Transport::Tls } else { Transport::Tcp };
            let tuple = FiveTuple { transport, client: from, server: listener.local_addr().unwrap() };
            let admission = Arc::new(Ledger::new(&[], 50_000..=50_001, 100, 0)).connect(from.ip(), 1).unwrap();
            let session = is_secure.then(|| certificates.session().unwrap());
            let (mut conns, poll) = (Conns::default(), Poll::new().unwrap());
            let accepted = Accepted { stream, tuple, session, opening: None, admission };
            let id = conns.add(&poll, |_| 0, accepted, START).unwrap();
            Self { conns, poll, id, tuple, stream: other, client, room: vec![0; READ_ROOM] }
        }

        fn shakes_hands(&mut self) {
            while self.client.is_handshaking() || self.client.wants_write() || self.is_handshaking() {
                while self.client.wants_write() {
                    self.client.write_tls(&mut self.stream).unwrap();
                }
                while self.conns.read(self.id, &mut self.room).unwrap().is_none() {
                    std::thread::yield_now();
                }
                self.conns.write(&self.poll, |_| 0, self.id).unwrap();
                if self.client.is_handshaking() {
                    self.client.read_tls(&mut self.stream).unwrap();
                    self.client.process_new_packets().unwrap();
                }
            }
        }

        fn is_handshaking(&self) -> bool {
            self.conns.get(self.id).unwrap().tls.as_ref().unwrap().session.is_handshaking()
        }

        fn overdue(&mut self, at: Duration) -> Option<End> {
            self.conns.overdue(START + at).first().map(|(_, end)| *end)
        }

        fn waiting(&self) -> usize {
            self.conns.get(self.id).unwrap().waiting()
        }

        /// Queues messages like this one, and writes after each, until data is refused.
        fn floods(&mut self, message: &[u8]) {
            while self.conns.queue(self.id.index, &self.tuple, message, true).unwrap() {
                self.conns.write(&self.poll, |_| 0, self.id).unwrap();
            }
        }
    }

    #[test]
    fn a_handshake_has_ten_seconds_however_slowly_its_bytes_come() {
        let mut w = World::new(true);
        assert_eq!(w.conns.deadline(), Some(START + HANDSHAKE));
        let mut hello = Vec::new();
        w.client.write_tls(&mut hello).unwrap();
        for (second, byte) in hello.iter().enumerate().take(9) {
            w.stream.write_all(&[*byte]).unwrap();
            let received = loop {
                match w.conns.read(w.id, &mut w.room).unwrap() {
                    Some(received) => break received,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!((received.len, received.end), (0, None));
            w.conns.keep(w.id, &[], false, START + seconds(second as u64));
            assert_eq!(w.overdue(seconds(second as u64)), None);
        }
        assert_eq!(w.overdue(HANDSHAKE), Some(End::HandshakeTimeout));
    }

    #[test]
    fn after_the_handshake_the_first_message_has_a_minute_as_without_tls() {
        let mut w = World::new(true);
        w.shakes_hands();
        // Half a record is no message.
        w.stream.write_all(&[23, 3, 3, 0, 64, 1, 2, 3]).unwrap();
        while w.conns.read(w.id, &mut w.room).unwrap().is_none() {
            std::thread::yield_now();
        }
        assert_eq!((w.overdue(HANDSHAKE), w.overdue(seconds(59))), (None, None));
        assert_eq!(w.overdue(IDLE), Some(End::Idle));
        let mut plain = World::new(false);
        assert_eq!((plain.conns.deadline(), plain.overdue(HANDSHAKE)), (Some(START + IDLE), None));
        assert_eq!(plain.overdue(IDLE), Some(End::Idle));
    }

    #[test]
    fn c28_a_frame_that_is_never_finished_is_no_message() {
        let mut w = World::new(false);
        for second in [10, 30, 59] {
            w.stream.write_all(&[0x40, 0, 0xFF, 0xFF, 0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42]).unwrap();
            let received = loop {
                match w.conns.read(w.id, &mut w.room).unwrap() {
                    Some(received) => break received,
                    None => std::thread::yield_now(),
                }
            };
            let rest = w.room[..received.len].to_vec();
            w.conns.keep(w.id, &rest, false, START + seconds(second));
            assert_eq!(w.overdue(seconds(second)), None);
        }
        assert_eq!(w.overdue(IDLE), Some(End::Idle));
    }

    #[test]
    fn an_allocation_takes_the_limit_away_until_it_ends() {
        let mut w = World::new(true);
        w.shakes_hands();
        w.conns.count_allocation(w.id.index, &w.tuple, true, START + seconds(5));
        assert_eq!(w.overdue(seconds(600)), None);
        w.conns.count_allocation(w.id.index, &w.tuple, false, START + seconds(700));
        assert_eq!(w.overdue(seconds(759)), None);
        assert_eq!(w.overdue(seconds(761)), Some(End::Idle));
    }

    #[test]
    fn whoever_does_not_read_loses_data_first_and_the_connection_then() {
        // Messages of four bytes, and long ones: encryption adds much to the former.
        for (is_secure, message) in [
            (true, vec![0x40, 1, 0, 0]),
            (true, [&[0x40, 1, 4, 0][..], &[7; 1024]].concat()),
            (false, vec![0x40, 1, 0, 0]),
        ] {
            let mut w = World::new(is_secure);
            if is_secure {
                w.shakes_hands();
            }
            w.floods(&message);
            let waiting = w.waiting();
            assert!(waiting <= MAX_UNSENT_DATA && waiting > MAX_UNSENT_DATA - message.len(), "{waiting}");
            assert_eq!(w.conns.get(w.id).unwrap().interest, Some(Interest::Write), "it may not ask for more");
            // Answers go on for a while.
            while w.conns.queue(w.id.index, &w.tuple, &[0; 100], false).is_ok() {
                w.conns.write(&w.poll, |_| 0, w.id).unwrap();
            }
            let waiting = w.waiting();
            assert!(waiting <= MAX_UNSENT && waiting > MAX_UNSENT - 100, "{waiting}");
            let conn = w.conns.get(w.id).unwrap();
            let memory = conn.unsent.capacity() + conn.tls.as_ref().map_or(0, |tls| tls.clear.capacity());
            assert!(memory <= 3 * MAX_UNSENT, "{memory} bytes of memory for {waiting}");
        }
    }

    #[test]
    fn each_message_has_a_record_of_its_own() {
        let mut w = World::new(true);
        w.shakes_hands();
        for i in 0..3 {
            assert_eq!(w.conns.queue(w.id.index, &w.tuple, &[0x40, 1, 0, 1, i, 0, 0, 0], true), Ok(true));
        }
        w.conns.write(&w.poll, |_| 0, w.id).unwrap();
        let mut wire = Vec::new();
        while wire.windows(3).filter(|head| **head == [23, 3, 3]).count() < 4 {
            let mut room = [0; 4096];
            let count = w.stream.read(&mut room).unwrap();
            assert!(count > 0);
            wire.extend_from_slice(&room[..count]);
        }
        let mut records = Vec::new();
        let mut rest = wire.as_slice();
        while let [kind, _, _, l0, l1, after @ ..] = rest {
            let len = usize::from(u16::from_be_bytes([*l0, *l1]));
            records.push((*kind, len));
            rest = &after[len..];
        }
        // The ticket comes first; 8 bytes, their kind and a tag of 16 make 25.
        assert_eq!(records[records.len() - 3..], [(23, 25); 3], "{records:?}");
    }

    #[test]
    fn an_empty_connection_keeps_no_buffers() {
        let mut w = World::new(true);
        w.shakes_hands();
        w.conns.queue(w.id.index, &w.tuple, &[0; 100_000], true).unwrap();
        while w.waiting() > 0 {
            w.conns.write(&w.poll, |_| 0, w.id).unwrap();
            let _count = w.stream.read(&mut w.room).unwrap();
        }
        w.conns.write(&w.poll, |_| 0, w.id).unwrap();
        let conn = w.conns.get(w.id).unwrap();
        assert!(conn.unsent.capacity() <= KEPT && conn.tls.as_ref().unwrap().clear.capacity() <= KEPT);
        assert_eq!(conn.interest, Some(Interest::Read));
    }
}
