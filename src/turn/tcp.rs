//! TCP relays: Connect, ConnectionAttempt, ConnectionBind (RFC 6062).
//!
//! Peers are vetted as for datagrams. A connection is joined to the client's own second connection, which shows its id
//! and the allocation's credential; from then on bytes pass that nobody here reads.
#![forbid(unsafe_code)]

use super::allocation::Protocol;
use super::auth::Asker;
use super::peers::Destination;
use super::permit::vet;
use super::refusal::{Dropped, Refusal};
use super::server::{Answer, Body, Decided, Question, Server};
use super::streams::{Pending, State, StreamId, waiting};
use super::{Effect, FiveTuple, RelayId, Verdict, is_over};
use crate::time::Now;
use crate::wire::Packet;
use crate::wire::codes::{Attribute, Class, Method};
use crate::wire::packet::Marks;
use crate::wire::reply::Reply;
use crate::wire::stun::{Family, Message, TransactionId};
use core::net::SocketAddr;
use rand_chacha::rand_core::Rng;

impl Server {
    pub(super) fn connect(
        &mut self,
        now: Now,
        question: &Question,
        message: &Message<'_>,
        asker: &Asker<'_>,
        effects: &mut Vec<Effect>,
    ) -> Decided {
        let relay = self.own(now, &question.path.tuple, asker, effects)?;
        let peer = message.xor_address(Attribute::XOR_PEER_ADDRESS).and_then(Result::ok).ok_or(Refusal::BadRequest)?;
        let destination = self.policy.peers.vet(peer);
        let stream = self.stream_id();
        let allocation = self.table.get_mut(relay).ok_or(Refusal::AllocationMismatch)?;
        if allocation.protocol != Protocol::Tcp {
            return Err(Refusal::AllocationMismatch);
        }
        vet(peer.ip(), allocation, now, destination.is_some())?;
        let destination = destination.ok_or(Refusal::PeerForbidden)?;
        if allocation.streams.has(peer, matches!(destination, Destination::OwnRelay { .. })) {
            return Err(Refusal::ConnectionExists);
        }
        if allocation.streams.is_full() {
            return Err(Refusal::InsufficientCapacity);
        }
        let pending = Pending {
            transaction: question.transaction,
            fingerprint: question.fingerprint,
            key: asker.key.clone(),
            integrity: asker.integrity,
        };
        allocation.streams.insert(stream, peer, State::Connecting(pending));
        self.streams.insert(stream, relay);
        effects.push(Effect::Connect { relay, stream, peer, destination });
        Ok(None)
    }

    /// The shell has tried to connect: now the answer is due.
    pub(super) fn connected(
        &mut self,
        now: Now,
        relay: RelayId,
        id: StreamId,
        is_open: bool,
        packet: &mut Packet,
    ) -> Verdict {
        let Some(allocation) = self.table.get_mut(relay) else { return Dropped::NoAllocation.into() };
        let Some(stream) = allocation.streams.get_mut(id) else { return Verdict::Nothing };
        let state = core::mem::replace(&mut stream.state, waiting(now));
        let State::Connecting(pending) = state else {
            stream.state = state;
            return Verdict::Nothing;
        };
        if !is_open {
            allocation.streams.remove(id);
            self.streams.remove(&id);
        }
        let question = Question {
            path: allocation.path,
            method: Method::CONNECT,
            transaction: pending.transaction,
            len: 0,
            fingerprint: pending.fingerprint,
        };
        let result = if is_open { Ok(Body::Connected(id)) } else { Err(Refusal::ConnectionFailed) };
        let answer = Answer { signature: Some((pending.key, pending.integrity)), result };
        self.schedule(relay);
        self.write(now, &question, answer, packet)
    }

    /// A peer has connected: the client is told, if the peer has a permission.
    pub(super) fn incoming(
        &mut self,
        now: Now,
        relay: RelayId,
        from: SocketAddr,
        packet: &mut Packet,
        effects: &mut Vec<Effect>,
    ) -> Verdict {
        let stream = self.stream_id();
        let mut transaction: TransactionId = [0; 12];
        self.rng.fill_bytes(&mut transaction);
        let Some(allocation) = self.table.get_mut(relay).filter(|held| held.leg(Family::of(from.ip()), now).is_some())
        else {
            return Dropped::NoAllocation.into();
        };
        if !allocation.permits(from.ip(), now) {
            return Dropped::NoPermission.into();
        }
        if allocation.streams.is_full() {
            return Dropped::Overflow.into();
        }
        allocation.streams.insert(stream, from, waiting(now));
        self.streams.insert(stream, relay);
        effects.push(Effect::Accept { relay, stream });
        let mut attempt = Reply::new(packet.space(), Method::CONNECTION_ATTEMPT, Class::Indication, transaction);
        attempt.xor_address(Attribute::XOR_PEER_ADDRESS, from).number(Attribute::CONNECTION_ID, stream.0);
        let Some(len) = attempt.finish() else { return Dropped::Overflow.into() };
        packet.set_len(len);
        packet.marks = Marks::default();
        let path = allocation.path;
        self.schedule(relay);
        Verdict::ToClient(path)
    }

    pub(super) fn connection_bind(
        &mut self,
        now: Now,
        question: &Question,
        message: &Message<'_>,
        asker: &Asker<'_>,
        effects: &mut Vec<Effect>,
    ) -> Decided {
        let tuple = question.path.tuple;
        if !tuple.transport.is_stream() || self.table.find(&tuple).is_some() {
            return Err(Refusal::BadRequest);
        }
        let id = message.bytes::<4>(Attribute::CONNECTION_ID).and_then(Result::ok).ok_or(Refusal::BadRequest)?;
        let id = StreamId(u32::from_be_bytes(id));
        let relay = *self.streams.get(&id).ok_or(Refusal::BadRequest)?;
        let allocation = self.table.get_mut(relay).ok_or(Refusal::BadRequest)?;
        // Nobody learns which ids exist of others: the same answer as for an id that does not (RFC 6062 §5.4).
        let is_own = allocation.is_of(asker) && !allocation.is_over(now);
        let stream = allocation.streams.get_mut(id).filter(|_| is_own).ok_or(Refusal::BadRequest)?;
        if !matches!(stream.state, State::Waiting(until) if !is_over(until, now)) {
            return Err(Refusal::BadRequest);
        }
        stream.state = State::Open;
        effects.push(Effect::Join { relay, stream: id, path: question.path });
        Ok(Some(Body::Done))
    }

    /// The 5-tuple of the allocation that a ConnectionBind speaks of: its client goes on with the nonce it has.
    pub(super) fn control_tuple(&self, message: &Message<'_>) -> Option<&FiveTuple> {
        let id = message.bytes::<4>(Attribute::CONNECTION_ID).filter(|_| message.method == Method::CONNECTION_BIND)?;
        let relay = self.streams.get(&StreamId(u32::from_be_bytes(id.ok()?)))?;
        self.table.get(*relay).map(|allocation| &allocation.path.tuple)
    }

    /// The worker that has the connection a ConnectionBind asks for, when it is another than this.
    pub(super) fn stream_home(&self, message: &Message<'_>) -> Option<u8> {
        let id = message.bytes::<4>(Attribute::CONNECTION_ID)?.ok()?;
        let worker = StreamId(u32::from_be_bytes(id)).worker();
        (worker != self.place.number && worker < self.place.count).then_some(worker)
    }

    /// Bytes went through joined connections.
    pub(super) fn carried(&mut self, now: Now, relay: RelayId, to_peer: u64, to_client: u64) -> Verdict {
        let Some(allocation) = self.table.get_mut(relay) else { return Dropped::NoAllocation.into() };
        allocation.usage.bytes_to_peer += to_peer;
        allocation.usage.bytes_to_client += to_client;
        self.tally.to_peer.bytes.add(to_peer);
        self.tally.to_client.bytes.add(to_client);
        let Some(rate) = self.policy.limits.bandwidth_per_allocation else { return Verdict::Nothing };
        let upward = allocation.upward.charge(now.mono, rate, to_peer);
        let downward = allocation.downward.charge(now.mono, rate, to_client);
        match upward.max(downward) {
            Some(until) => Verdict::Wait(until),
            None => Verdict::Nothing,
        }
    }

    /// A connection with a peer is over.
    pub(super) fn stream_closed(&mut self, relay: RelayId, id: StreamId) {
        self.streams.remove(&id);
        let Some(allocation) = self.table.get_mut(relay) else { return };
        allocation.streams.remove(id);
    }

    /// Closes connections of an allocation that were taken off its list.
    pub(super) fn close_streams(&mut self, relay: RelayId, ids: Vec<StreamId>, effects: &mut Vec<Effect>) {
        for id in ids {
            self.streams.remove(&id);
            effects.push(Effect::Close { relay, stream: id });
        }
    }

    /// An id that no connection of this worker has.
    fn stream_id(&mut self) -> StreamId {
        loop {
            let [.., b1, b2, b3] = self.rng.next_u32().to_be_bytes();
            let id = StreamId(u32::from_be_bytes([self.place.number, b1, b2, b3]));
            if !self.streams.contains_key(&id) {
                return id;
            }
        }
    }
}
