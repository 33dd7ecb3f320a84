//! Allocate and Refresh (RFC 8656 §7, §8).
//!
//! The checks stand in the order of §7.2. A refused Allocate leaves nothing behind.
#![forbid(unsafe_code)]

use super::allocation::{Allocation, Also, Asked, Identity, Protocol};
use super::auth::Asker;
use super::ports::{Token, Want};
use super::refusal::{AuthFailure, Dropped, Ended, Refusal};
use super::server::{Answer, Body, Decided, Question, Server, whole_seconds};
use super::tally::Transport;
use super::ticket::TICKET_LEN;
use super::{Bind, BindError, Bound, Effect, FiveTuple, RelayId, Verdict, credential, mobility};
use crate::time::{Duration, Now, UnixSeconds, seconds};
use crate::wire::Packet;
use crate::wire::codes::{Attribute, Method, PROTOCOL_TCP, PROTOCOL_UDP};
use crate::wire::reply::Reply;
use crate::wire::stun::{Family, Message};
use core::net::SocketAddr;
use rand_chacha::rand_core::Rng;

/// EVEN-PORT's R bit (RFC 8656 §18.7).
const RESERVE: u8 = 0x80;

/// What a successful Allocate tells the client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allocated {
    relayed: SocketAddr,
    second: Option<SocketAddr>,
    /// The family that could not be had, in which dialect the client asked, and why.
    missing: Option<(Also, Family, Refusal)>,
    left: Duration,
    token: Option<Token>,
    ticket: Option<[u8; TICKET_LEN]>,
}

/// What an Allocate asks for.
#[derive(Clone, Copy, Debug)]
struct Wish {
    protocol: Protocol,
    family: Family,
    also: Option<Also>,
    want: Want,
    lifetime: Option<Duration>,
    is_mobile: bool,
}

impl Server {
    pub(super) fn allocate(
        &mut self,
        now: Now,
        question: &Question,
        message: &Message<'_>,
        asker: &Asker<'_>,
        effects: &mut Vec<Effect>,
    ) -> Decided {
        if let Some(id) = self.live(now, &question.path.tuple, effects) {
            let allocation = self.table.get(id).ok_or(Refusal::AllocationMismatch)?;
            // The same request again: the first answer was lost (RFC 8656 §7.2).
            let is_repeat = allocation.asked.transaction == message.transaction && *allocation.user == *asker.username;
            return match allocation.is_bound() {
                true if is_repeat => Ok(Some(Body::Allocated(self.allocated(id, now)?))),
                false if is_repeat => Ok(None),
                _ => Err(Refusal::AllocationMismatch),
            };
        }
        // A token is taken for some seconds after its end, as clocks differ; it makes nothing that would live for none.
        if asker.identity.is_over(now) {
            return Err(Refusal::Unauthenticated(AuthFailure::Expired));
        }
        let wish = self.wish(message, question.path.tuple.transport)?;
        if self.policy.draining {
            return Err(self.farewell(&question.path.tuple));
        }
        let asked = Asked {
            transaction: message.transaction,
            fingerprint: question.fingerprint,
            integrity: asker.integrity,
            also: wish.also,
            also_failed: None,
        };
        let mut allocation = Allocation::new(question.path, asker, wish.protocol, asked, now);
        allocation.token = if let Want::Pair(token) = wish.want { Some(token) } else { None };
        allocation.lifetime = self.lifetime(now, wish.lifetime, asker.identity);
        allocation.mobility = if wish.is_mobile { mobility::begun() } else { None };
        let relay = self.table.insert(allocation);
        let mut chance = [0; 32];
        self.rng.fill_bytes(&mut chance);
        let user = match asker.identity {
            Identity::Static | Identity::Token { .. } => &asker.username,
            Identity::TimeLimited { .. } => credential::user(&asker.username, self.policy.auth.separator),
        };
        effects.push(Effect::Bind(Bind {
            relay,
            family: wish.family,
            also: wish.also.map(|_| wish.family.other()),
            protocol: wish.protocol,
            want: wish.want,
            user: user.into(),
            chance,
        }));
        Ok(None)
    }

    /// The shell has tried to make the socket: now the answer is due.
    pub(super) fn bound(
        &mut self,
        now: Now,
        id: RelayId,
        result: Result<Bound, BindError>,
        also: Option<Result<Bound, BindError>>,
        packet: &mut Packet,
        effects: &mut Vec<Effect>,
    ) -> Verdict {
        let Some(allocation) = self.table.get_mut(id) else { return Dropped::NoAllocation.into() };
        let question = Question {
            path: allocation.path,
            method: Method::ALLOCATE,
            transaction: allocation.asked.transaction,
            len: 0,
            fingerprint: allocation.asked.fingerprint,
        };
        let signature = Some((allocation.key.clone(), allocation.asked.integrity));
        let expires = now.mono + allocation.lifetime;
        let mut failed = None;
        for result in core::iter::once(result).chain(also) {
            match result {
                Ok(bound) => allocation.add_leg(bound, expires),
                Err(why) => failed = failed.or(Some(why)),
            }
        }
        allocation.asked.also_failed = failed;
        if let Some(why) = failed.filter(|_| !allocation.is_bound()) {
            self.table.remove(id);
            return self.write(now, &question, Answer { signature, result: Err(refusal(why)) }, packet);
        }
        allocation.born = now.mono;
        let family = allocation.legs().next().map(|leg| Family::of(leg.bound.address.local)).unwrap_or(Family::V4);
        allocation.counted = Some(family);
        let session = allocation.session();
        let body = self.allocated(id, now);
        self.tally.allocations_of(question.path.tuple.transport, family).add(1);
        self.tally.allocations_total.add(1);
        self.schedule(id);
        effects.push(Effect::Began { relay: id, session });
        self.write(now, &question, Answer { signature, result: body.map(Body::Allocated) }, packet)
    }

    pub(super) fn refresh(
        &mut self,
        now: Now,
        question: &Question,
        message: &Message<'_>,
        asker: &Asker<'_>,
        effects: &mut Vec<Effect>,
    ) -> Decided {
        let wanted = lifetime(message)?;
        let family = requested_family(message)?;
        let tuple = &question.path.tuple;
        let ticket = message.get(Attribute::MOBILITY_TICKET);
        let here = self.live(now, tuple, effects).and_then(|id| self.table.get(id));
        // On its own path a ticket moves nothing.
        let shown = ticket.filter(|_| here.is_none_or(|here| here.is_moving_to(tuple)));
        let id = match shown {
            Some(ticket) => self.ticketed(now, question, asker, ticket, effects)?,
            None => self.own(now, tuple, asker, effects)?,
        };
        let allocation = self.table.get_mut(id).ok_or(Refusal::AllocationMismatch)?;
        if family.is_some_and(|family| !family.is_some_and(|family| allocation.has_leg(family))) {
            return Err(Refusal::PeerFamilyMismatch);
        }
        let family = family.flatten();
        if wanted == Some(Duration::ZERO) {
            self.release(now, id, family, effects);
            return Ok(Some(Body::Refreshed { left: Duration::ZERO, ticket: None }));
        }
        // The call goes on until here with a credential whose time is over, and no further.
        if asker.identity.is_over(now) {
            return Err(Refusal::Unauthenticated(AuthFailure::Expired));
        }
        allocation.key = asker.key.clone();
        allocation.hash = asker.hash;
        allocation.identity = asker.identity;
        let granted = self.lifetime(now, wanted, asker.identity);
        if let Some(allocation) = self.table.get_mut(id) {
            allocation.extend(family, now.mono + granted);
        }
        if shown.is_some() {
            self.move_here(id, question, effects);
        }
        self.schedule(id);
        let ticket = ticket.and_then(|_| self.ticket(id));
        Ok(Some(Body::Refreshed { left: granted, ticket }))
    }

    /// Ends the allocation, or one relay address of a dual one (RFC 8656 §8.2).
    fn release(&mut self, now: Now, id: RelayId, family: Option<Family>, effects: &mut Vec<Effect>) {
        let is_dual = self.table.get(id).is_some_and(|allocation| allocation.legs().count() > 1);
        match family.filter(|_| is_dual) {
            Some(family) => self.end_leg(id, family, effects),
            None => self.end(now, id, Ended::Released, effects),
        }
    }

    /// The allocation on this 5-tuple, which must be the asker's own.
    pub(super) fn own(
        &mut self,
        now: Now,
        tuple: &FiveTuple,
        asker: &Asker<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<RelayId, Refusal> {
        let id = self.live(now, tuple, effects).ok_or(Refusal::AllocationMismatch)?;
        let allocation = self.table.get(id).ok_or(Refusal::AllocationMismatch)?;
        if !allocation.is_bound() {
            return Err(Refusal::AllocationMismatch);
        }
        // A key id is no user: bearers of tokens are told apart by their path alone (RFC 7635 §9).
        let are_tokens =
            matches!((allocation.identity, asker.identity), (Identity::Token { .. }, Identity::Token { .. }));
        if *allocation.user != *asker.username && !are_tokens {
            return Err(Refusal::WrongCredentials);
        }
        if allocation.is_moving_to(tuple) {
            self.settle(id, effects);
        }
        Ok(id)
    }

    /// What a client is told that comes while the server drains.
    fn farewell(&self, tuple: &FiveTuple) -> Refusal {
        match self.alternate(tuple.client.ip()) {
            Some(_) => Refusal::TryAlternate,
            None => Refusal::InsufficientCapacity,
        }
    }

    /// The checks stand in the order of RFC 8656 §7.2.
    fn wish(&mut self, message: &Message<'_>, transport: Transport) -> Result<Wish, Refusal> {
        let protocol = message.bytes::<4>(Attribute::REQUESTED_TRANSPORT).ok_or(Refusal::BadRequest)?;
        let [protocol, ..] = protocol.map_err(|_| Refusal::BadRequest)?;
        let protocol = match protocol {
            PROTOCOL_UDP => Protocol::Udp,
            PROTOCOL_TCP if self.policy.tcp_relays => Protocol::Tcp,
            _ => return Err(Refusal::UnsupportedTransport),
        };
        let lifetime = lifetime(message)?;
        let whole = message.get(Attribute::DONT_FRAGMENT);
        let token = message.bytes::<8>(Attribute::RESERVATION_TOKEN).transpose().map_err(|_| Refusal::BadRequest)?;
        let even = message.bytes::<1>(Attribute::EVEN_PORT).transpose().map_err(|_| Refusal::BadRequest)?;
        let family = requested_family(message)?;
        let also = additional_family(message)?;
        let is_mobile = self.wants_ticket(message)?;
        // RFC 6062 §5.1: over a connection only, and without what concerns datagrams.
        let is_odd = !transport.is_stream() || whole.is_some() || token.is_some() || even.is_some();
        if protocol == Protocol::Tcp && is_odd {
            return Err(Refusal::BadRequest);
        }
        if token.is_some() && (even.is_some() || family.is_some() || also.is_some()) {
            return Err(Refusal::BadRequest);
        }
        let is_pair = even.is_some_and(|[bits]| bits & RESERVE != 0);
        if also.is_some() && (family.is_some() || is_pair) {
            return Err(Refusal::BadRequest);
        }
        // No family asked for is IPv4, also for a client that comes over IPv6 (RFC 8656 §7.2).
        let family = family.unwrap_or(Some(Family::V4)).ok_or(Refusal::FamilyNotSupported)?;
        if token.is_none() && also.is_none() && !self.policy.relays_family(family) {
            return Err(Refusal::FamilyNotSupported);
        }
        let want = match (token, even) {
            (Some(token), _) => Want::Reserved(token),
            (None, Some(_)) if is_pair => Want::Pair(self.rng.next_u64().to_be_bytes()),
            (None, Some(_)) => Want::Even,
            (None, None) => Want::Any,
        };
        Ok(Wish { protocol, family, also, want, lifetime, is_mobile })
    }

    fn allocated(&mut self, id: RelayId, now: Now) -> Result<Allocated, Refusal> {
        let ticket = self.ticket(id);
        let allocation = self.table.get(id).ok_or(Refusal::AllocationMismatch)?;
        let mut relayed = allocation.legs().map(|leg| leg.bound.told());
        let (first, second) = (relayed.next().ok_or(Refusal::AllocationMismatch)?, relayed.next());
        let missing = allocation.asked.also.zip(allocation.asked.also_failed).map(|(also, why)| {
            let family = Family::of(first.ip()).other();
            let is_unknown = why == BindError::NoPort && !self.policy.relays_family(family);
            (also, family, if is_unknown { Refusal::FamilyNotSupported } else { refusal(why) })
        });
        let left = allocation.expires() - now.mono;
        Ok(Allocated { relayed: first, second, missing, left, token: allocation.token, ticket })
    }

    /// The lifetime granted: never under the default, never over the maximum (RFC 8656 §7.2, §8.2).
    /// A token's bearer gets no more than the token has left (RFC 7635 §9); with `strict_expiry` so does the holder of a
    /// time-limited credential.
    fn lifetime(&self, now: Now, wanted: Option<Duration>, identity: Identity) -> Duration {
        let limits = &self.policy.limits;
        let usual = wanted.unwrap_or(limits.allocation_lifetime);
        let usual = usual.min(limits.max_allocation_lifetime).max(limits.allocation_lifetime);
        match identity {
            Identity::TimeLimited { expires } if self.policy.auth.strict_expiry => usual.min(left(expires, now)),
            Identity::Token { expires } => usual.min(left(expires, now)),
            Identity::Static | Identity::TimeLimited { .. } => usual,
        }
    }
}

/// Writes what a successful Allocate says (RFC 8656 §7.2).
pub(super) fn write(allocated: &Allocated, reply: &mut Reply<'_>, tuple: &FiveTuple) {
    reply.xor_address(Attribute::XOR_RELAYED_ADDRESS, allocated.relayed);
    if let Some(second) = allocated.second {
        reply.xor_address(Attribute::XOR_RELAYED_ADDRESS, second);
    }
    if let Some((also, family, why)) = allocated.missing {
        let attribute = if also.is_draft { Attribute::ADDRESS_ERROR_CODE_DRAFT } else { Attribute::ADDRESS_ERROR_CODE };
        reply.address_error(attribute, family, why.code(), why.reason());
    }
    reply.number(Attribute::LIFETIME, whole_seconds(allocated.left));
    if let Some(token) = &allocated.token {
        reply.bytes(Attribute::RESERVATION_TOKEN, token);
    }
    if let Some(ticket) = &allocated.ticket {
        reply.bytes(Attribute::MOBILITY_TICKET, ticket);
    }
    reply.xor_address(Attribute::XOR_MAPPED_ADDRESS, tuple.client);
}

const fn refusal(why: BindError) -> Refusal {
    match why {
        BindError::Quota => Refusal::QuotaReached,
        BindError::NoPort | BindError::NoResources => Refusal::InsufficientCapacity,
        BindError::System => Refusal::ServerError,
    }
}

/// The time from now to a moment of wall time.
fn left(expires: UnixSeconds, now: Now) -> Duration {
    seconds(expires.0.saturating_sub(now.unix.0))
}

/// LIFETIME: `None` when absent, 400 when its value is not four bytes.
fn lifetime(message: &Message<'_>) -> Result<Option<Duration>, Refusal> {
    let value = message.bytes::<4>(Attribute::LIFETIME).transpose().map_err(|_| Refusal::BadRequest)?;
    Ok(value.map(|bytes| seconds(u32::from_be_bytes(bytes).into())))
}

/// REQUESTED-ADDRESS-FAMILY: `None` when absent, `Some(None)` for a number that is no family. The 24 reserved bits do
/// not count (RFC 8656 §18.6).
fn requested_family(message: &Message<'_>) -> Result<Option<Option<Family>>, Refusal> {
    let value = message.bytes::<4>(Attribute::REQUESTED_ADDRESS_FAMILY).transpose().map_err(|_| Refusal::BadRequest)?;
    Ok(value.map(|[family, ..]| Family::from_number(family)))
}

/// ADDITIONAL-ADDRESS-FAMILY: nothing but IPv6 may be asked for in addition (RFC 8656 §7.2).
fn additional_family(message: &Message<'_>) -> Result<Option<Also>, Refusal> {
    let numbers = [(Attribute::ADDITIONAL_ADDRESS_FAMILY, false), (Attribute::ADDITIONAL_ADDRESS_FAMILY_DRAFT, true)];
    for (attribute, is_draft) in numbers {
        match message.bytes::<4>(attribute) {
            Some(Ok([2, ..])) => return Ok(Some(Also { is_draft })),
            Some(_) => return Err(Refusal::BadRequest),
            None => {}
        }
    }
    Ok(None)
}
