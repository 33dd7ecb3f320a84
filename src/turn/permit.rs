//! CreatePermission and ChannelBind: who may speak through an allocation (RFC 8656 §9, §10, §12).
//!
//! A request is checked whole before any of it takes effect.
#![forbid(unsafe_code)]

use super::Effect;
use super::allocation::{Allocation, Channel, Protocol, TableError};
use super::auth::Asker;
use super::refusal::Refusal;
use super::server::{Body, Decided, Question, Server};
use crate::time::Now;
use crate::wire::channel::ChannelNumber;
use crate::wire::codes::Attribute;
use crate::wire::stun::{Family, Message, xor_address};
use core::net::{IpAddr, SocketAddr};

impl Server {
    pub(super) fn create_permission(
        &mut self,
        now: Now,
        question: &Question,
        message: &Message<'_>,
        asker: &Asker<'_>,
        effects: &mut Vec<Effect>,
    ) -> Decided {
        let id = self.own(now, &question.path.tuple, asker, effects)?;
        let allocation = self.table.get_mut(id).ok_or(Refusal::AllocationMismatch)?;
        let mut count = 0;
        for peer in peers(message) {
            let ip = peer.ok_or(Refusal::BadRequest)?.ip();
            vet(ip, allocation, now, self.policy.peers.vet_address(ip))?;
            count += 1;
        }
        if count == 0 {
            return Err(Refusal::BadRequest);
        }
        let limit = self.policy.limits.permissions_per_allocation;
        let ips = peers(message).flatten().map(|peer| peer.ip());
        let mut swept = Default::default();
        // The second count is quadratic in one request's addresses; the first bound keeps that small.
        let is_full = |with: usize| with > limit;
        if count > limit || is_full(allocation.permissions_with(ips.clone())) {
            swept = allocation.sweep(now);
            if count > limit || is_full(allocation.permissions_with(ips.clone())) {
                self.forget(swept);
                return Err(Refusal::InsufficientCapacity);
            }
        }
        let new = ips.map(|ip| u64::from(allocation.permit(ip, now))).sum();
        self.forget(swept);
        self.tally.permissions.add(new);
        self.schedule(id);
        Ok(Some(Body::Done))
    }

    pub(super) fn channel_bind(
        &mut self,
        now: Now,
        question: &Question,
        message: &Message<'_>,
        asker: &Asker<'_>,
        effects: &mut Vec<Effect>,
    ) -> Decided {
        let id = self.own(now, &question.path.tuple, asker, effects)?;
        let allocation = self.table.get_mut(id).ok_or(Refusal::AllocationMismatch)?;
        if allocation.protocol == Protocol::Tcp {
            return Err(Refusal::BadRequest); // there is no ChannelData between connections (RFC 6062 §5)
        }
        let number = message.bytes::<4>(Attribute::CHANNEL_NUMBER).and_then(Result::ok).ok_or(Refusal::BadRequest)?;
        let [n0, n1, _, _] = number;
        let number = ChannelNumber::new(u16::from_be_bytes([n0, n1])).ok_or(Refusal::BadRequest)?;
        let peer = message.xor_address(Attribute::XOR_PEER_ADDRESS).and_then(Result::ok).ok_or(Refusal::BadRequest)?;
        let destination = self.policy.peers.vet(peer);
        vet(peer.ip(), allocation, now, destination.is_some())?;
        let destination = destination.ok_or(Refusal::PeerForbidden)?;
        let swept = allocation.sweep(now);
        let limits = &self.policy.limits;
        let is_full = allocation.permissions_with(core::iter::once(peer.ip())) > limits.permissions_per_allocation;
        let channel = Channel { number, peer, destination, expires: now.mono };
        let bound =
            if is_full { Err(TableError::Full) } else { allocation.bind(channel, limits.channels_per_allocation, now) };
        let permitted = bound.is_ok() && allocation.permit(peer.ip(), now);
        self.forget(swept);
        let is_new = bound.map_err(|why| match why {
            TableError::Taken => Refusal::BadRequest,
            TableError::Full => Refusal::InsufficientCapacity,
        })?;
        self.tally.permissions.add(permitted.into());
        self.tally.channels.add(is_new.into());
        self.schedule(id);
        Ok(Some(Body::Done))
    }
}

/// The peers a request names, in order; `None` for a value that is no address.
fn peers<'m>(message: &Message<'m>) -> impl Iterator<Item = Option<SocketAddr>> + Clone + use<'m> {
    let transaction = message.transaction;
    message
        .attributes()
        .filter(|(attribute, _)| *attribute == Attribute::XOR_PEER_ADDRESS)
        .map(move |(_, value)| xor_address(value, &transaction).ok())
}

/// Whether the allocation has a relay address that this peer can be reached from, and the rules permit the peer.
pub(super) fn vet(ip: IpAddr, allocation: &Allocation, now: Now, is_permitted: bool) -> Result<(), Refusal> {
    if allocation.leg(Family::of(ip), now).is_none() {
        return Err(Refusal::PeerFamilyMismatch);
    }
    if is_permitted { Ok(()) } else { Err(Refusal::PeerForbidden) }
}
