//! Allocate and Refresh (RFC 8656 §7, §8).
//!
//! The checks stand in the order of §7.2. A refused Allocate leaves nothing behind.
#![forbid(unsafe_code)]

use super::allocation::{Allocation, Identity};
use super::auth::Asker;
use super::ports::{Token, Want};
use super::refusal::{AuthFailure, Dropped, Ended, Refusal};
use super::server::{Answer, Body, Decided, Question, Server, whole_seconds};
use super::{Bind, BindError, Bound, Effect, FiveTuple, RelayId, Verdict, credential};
use crate::time::{Duration, Now, seconds};
use crate::wire::Packet;
use crate::wire::codes::{Attribute, Method, PROTOCOL_UDP};
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
    left: Duration,
    token: Option<Token>,
}

/// What an Allocate asks for.
#[derive(Clone, Copy, Debug)]
struct Wish {
    family: Family,
    want: Want,
    lifetime: Option<Duration>,
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
            let is_repeat = allocation.transaction == message.transaction && *allocation.user == *asker.username;
            return match allocation.bound {
                Some(_) if is_repeat => Ok(Some(Body::Allocated(allocated(allocation, now)?))),
                None if is_repeat => Ok(None),
                _ => Err(Refusal::AllocationMismatch),
            };
        }
        let wish = self.wish(message)?;
        let lifetime = self.lifetime(wish.lifetime);
        let mut allocation = Allocation::new(question.path, asker.username, asker.identity, asker.key.clone(), now);
        allocation.family = wish.family;
        allocation.transaction = message.transaction;
        allocation.fingerprint = question.fingerprint;
        allocation.token = if let Want::Pair(token) = wish.want { Some(token) } else { None };
        allocation.lifetime = lifetime;
        let relay = self.table.insert(allocation);
        let mut chance = [0; 32];
        self.rng.fill_bytes(&mut chance);
        let user = match asker.identity {
            Identity::Static => asker.username,
            Identity::TimeLimited { .. } => credential::user(asker.username, self.policy.auth.separator),
        };
        effects.push(Effect::Bind(Bind { relay, family: wish.family, want: wish.want, user: user.into(), chance }));
        Ok(None)
    }

    /// The shell has tried to make the socket: now the answer is due.
    pub(super) fn bound(
        &mut self,
        now: Now,
        id: RelayId,
        result: Result<Bound, BindError>,
        packet: &mut Packet,
        effects: &mut Vec<Effect>,
    ) -> Verdict {
        let Some(allocation) = self.table.get_mut(id) else { return Dropped::NoAllocation.into() };
        let question = Question {
            path: allocation.path,
            method: Method::ALLOCATE,
            transaction: allocation.transaction,
            fingerprint: allocation.fingerprint,
        };
        let key = Some(allocation.key.clone());
        let bound = match result {
            Ok(bound) => bound,
            Err(why) => {
                self.table.remove(id);
                let refusal = match why {
                    BindError::Quota => Refusal::QuotaReached,
                    BindError::NoPort | BindError::NoResources => Refusal::InsufficientCapacity,
                    BindError::System => Refusal::ServerError,
                };
                return self.write(now, &question, Answer { key, result: Err(refusal) }, packet);
            }
        };
        allocation.bound = Some(bound);
        allocation.family = Family::of(bound.address.local);
        allocation.born = now.mono;
        allocation.expires = now.mono + allocation.lifetime;
        let (family, session) = (allocation.family, allocation.session());
        let body = allocated(allocation, now);
        self.tally.allocations_of(question.path.tuple.transport, family).add(1);
        self.tally.allocations_total.add(1);
        self.schedule(id);
        effects.push(Effect::Began { relay: id, session });
        self.write(now, &question, Answer { key, result: body.map(Body::Allocated) }, packet)
    }

    pub(super) fn refresh(
        &mut self,
        now: Now,
        question: &Question,
        message: &Message<'_>,
        asker: &Asker<'_>,
        effects: &mut Vec<Effect>,
    ) -> Decided {
        let id = self.own(now, &question.path.tuple, asker, effects)?;
        let wanted = lifetime(message)?;
        let family = requested_family(message)?;
        let allocation = self.table.get_mut(id).ok_or(Refusal::AllocationMismatch)?;
        if family.is_some_and(|family| family != Some(allocation.family)) {
            return Err(Refusal::PeerFamilyMismatch);
        }
        if wanted == Some(Duration::ZERO) {
            self.end(now, id, Ended::Released, effects);
            return Ok(Some(Body::Refreshed(Duration::ZERO)));
        }
        // The call goes on until here with a credential whose time is over, and no further.
        if let Identity::TimeLimited { expires } = asker.identity
            && expires <= now.unix
        {
            return Err(Refusal::Unauthenticated(AuthFailure::Expired));
        }
        allocation.key = asker.key.clone();
        let granted = self.lifetime(wanted);
        if let Some(allocation) = self.table.get_mut(id) {
            allocation.expires = now.mono + granted;
        }
        self.schedule(id);
        Ok(Some(Body::Refreshed(granted)))
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
        if allocation.bound.is_none() {
            return Err(Refusal::AllocationMismatch);
        }
        if *allocation.user != *asker.username {
            return Err(Refusal::WrongCredentials);
        }
        Ok(id)
    }

    fn wish(&mut self, message: &Message<'_>) -> Result<Wish, Refusal> {
        let transport = message.bytes::<4>(Attribute::REQUESTED_TRANSPORT).ok_or(Refusal::BadRequest)?;
        let [protocol, ..] = transport.map_err(|_| Refusal::BadRequest)?;
        if protocol != PROTOCOL_UDP {
            return Err(Refusal::UnsupportedTransport);
        }
        let lifetime = lifetime(message)?;
        let token = message.bytes::<8>(Attribute::RESERVATION_TOKEN).transpose().map_err(|_| Refusal::BadRequest)?;
        let even = message.bytes::<1>(Attribute::EVEN_PORT).transpose().map_err(|_| Refusal::BadRequest)?;
        let family = requested_family(message)?;
        if token.is_some() && (even.is_some() || family.is_some()) {
            return Err(Refusal::BadRequest);
        }
        // No family asked for is IPv4, also for a client that comes over IPv6 (RFC 8656 §7.2).
        let family = family.unwrap_or(Some(Family::V4)).ok_or(Refusal::FamilyNotSupported)?;
        if token.is_none() && !self.policy.relays_family(family) {
            return Err(Refusal::FamilyNotSupported);
        }
        let want = match (token, even) {
            (Some(token), _) => Want::Reserved(token),
            (None, Some([bits])) if bits & RESERVE != 0 => Want::Pair(self.rng.next_u64().to_be_bytes()),
            (None, Some(_)) => Want::Even,
            (None, None) => Want::Any,
        };
        Ok(Wish { family, want, lifetime })
    }

    /// The lifetime granted: never under the default, never over the maximum (RFC 8656 §7.2, §8.2).
    fn lifetime(&self, wanted: Option<Duration>) -> Duration {
        let limits = &self.policy.limits;
        wanted.unwrap_or(limits.allocation_lifetime).min(limits.max_allocation_lifetime).max(limits.allocation_lifetime)
    }
}

/// Writes what a successful Allocate says (RFC 8656 §7.2).
pub(super) fn write(allocated: &Allocated, reply: &mut Reply<'_>, tuple: &FiveTuple) {
    reply.xor_address(Attribute::XOR_RELAYED_ADDRESS, allocated.relayed);
    reply.number(Attribute::LIFETIME, whole_seconds(allocated.left));
    if let Some(token) = &allocated.token {
        reply.bytes(Attribute::RESERVATION_TOKEN, token);
    }
    reply.xor_address(Attribute::XOR_MAPPED_ADDRESS, tuple.client);
}

fn allocated(allocation: &Allocation, now: Now) -> Result<Allocated, Refusal> {
    let relayed = allocation.relayed().ok_or(Refusal::AllocationMismatch)?;
    Ok(Allocated { relayed, left: allocation.expires - now.mono, token: allocation.token })
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
    Ok(value.map(|[family, ..]| match family {
        1 => Some(Family::V4),
        2 => Some(Family::V6),
        _ => None,
    }))
}
