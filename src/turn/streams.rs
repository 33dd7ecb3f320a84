//! Connections between an allocation and its peers (RFC 6062): which there are, and what each waits for.
//!
//! Owns no socket: the shell has those, by the same ids. Every state but an open connection has an end: an attempt ends
//! when the shell says how it went, a connection nobody binds after thirty seconds. Never sees a byte of what flows.
#![forbid(unsafe_code)]

use super::is_over;
use crate::time::{Duration, Instant, Now, seconds};
use crate::wire::integrity::{Algorithm, Key};
use crate::wire::stun::TransactionId;
use core::net::SocketAddr;

/// How long a connection waits for its ConnectionBind (RFC 6062 §5.2, §5.3: at least 30 s).
const BIND_WAIT: Duration = seconds(30);
/// Connections of one allocation that nobody has bound yet: attempts under way, and those that wait.
const MAX_PENDING: usize = 16;
/// Connections of one allocation, bound ones included.
const MAX_STREAMS: usize = 128;

/// A CONNECTION-ID. Its top byte names the worker that has the allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl StreamId {
    /// Which worker made it.
    pub const fn worker(self) -> u8 {
        (self.0 >> 24) as u8
    }
}

/// A connection to or from a peer.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) peer: SocketAddr,
    /// Whether the client asked for it; otherwise the peer came by itself.
    pub(super) is_ours: bool,
    pub(super) state: State,
}

/// What a connection waits for.
#[derive(Debug)]
pub(super) enum State {
    /// For the peer to take it; then this Connect is answered.
    Connecting(Pending),
    /// For a ConnectionBind, until this moment.
    Waiting(Instant),
    /// For nothing: it is joined to a connection of the client.
    Open,
}

/// A Connect whose answer is due later.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) transaction: TransactionId,
    pub(super) fingerprint: bool,
    /// What the answer is signed with: the allocation's own key may be another by then.
    pub(super) key: Key,
    pub(super) integrity: Algorithm,
}

/// The connections of one allocation; few, so a list does.
#[derive(Debug, Default)]
pub(super) struct Streams(Vec<Stream>);

impl Streams {
    /// Whether one more would be too many.
    pub(super) fn is_full(&self) -> bool {
        let pending = self.0.iter().filter(|stream| !matches!(stream.state, State::Open)).count();
        pending >= MAX_PENDING || self.0.len() >= MAX_STREAMS
    }

    /// Whether there is one with this peer, in any state (RFC 6062 §5.2). Two relays of ours that connect to each other have
    /// two: there one that the peer made does not count.
    pub(super) fn has(&self, peer: SocketAddr, is_own_relay: bool) -> bool {
        self.0.iter().any(|stream| stream.peer == peer && (stream.is_ours || !is_own_relay))
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.0.iter_mut().find(|stream| stream.id == id)
    }

    pub(super) fn insert(&mut self, id: StreamId, peer: SocketAddr, state: State) {
        let is_ours = matches!(state, State::Connecting(_));
        self.0.push(Stream { id, peer, is_ours, state });
    }

    pub(super) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let at = self.0.iter().position(|stream| stream.id == id)?;
        Some(self.0.swap_remove(at))
    }

    /// Takes out those for which `is_kept` does not hold.
    pub(super) fn take_unless(&mut self, is_kept: impl Fn(&Stream) -> bool) -> Vec<StreamId> {
        self.0.extract_if(.., |stream| !is_kept(stream)).map(|stream| stream.id).collect()
    }

    /// Takes out those that waited too long.
    pub(super) fn take_overdue(&mut self, now: Now) -> Vec<StreamId> {
        self.take_unless(|stream| !matches!(stream.state, State::Waiting(until) if is_over(until, now)))
    }

    /// When [`Streams::take_overdue`] has something to take.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let until = |stream: &Stream| match stream.state {
            State::Waiting(until) => Some(until),
            State::Connecting(_) | State::Open => None,
        };
        self.0.iter().filter_map(until).min()
    }
}

/// A state that lasts until a ConnectionBind, or half a minute.
pub(super) fn waiting(now: Now) -> State {
    State::Waiting(now.mono + BIND_WAIT)
}
