//! An allocation on the move (RFC 8016): Refresh with a ticket from another path.
//!
//! Until the client speaks on the new path, peers' data goes to the old one, and both may send. One move is pending at
//! a time; another takes its place. The allocation stays what it is: same relay address, same quota, same owner.
#![forbid(unsafe_code)]

use super::allocation::{Mobility, Protocol};
use super::auth::Asker;
use super::refusal::Refusal;
use super::server::{Question, Server};
use super::ticket::{TICKET_LEN, Ticket};
use super::{Effect, RelayId};
use crate::time::Now;
use crate::wire::codes::Attribute;
use crate::wire::stun::Message;

impl Server {
    /// Whether an Allocate asks for a ticket (RFC 8016 §3.1).
    pub(super) fn wants_ticket(&self, message: &Message<'_>) -> Result<bool, Refusal> {
        match message.get(Attribute::MOBILITY_TICKET) {
            None => Ok(false),
            Some(_) if !self.policy.auth.mobility => Err(Refusal::MobilityForbidden),
            Some([]) => Ok(true),
            Some(_) => Err(Refusal::BadRequest),
        }
    }

    /// The worker that has the allocation of this ticket, when it is another than this.
    pub(super) fn ticket_home(&self, message: &Message<'_>) -> Option<u8> {
        let ticket = Ticket::open(&self.policy.auth.nonce_key, message.get(Attribute::MOBILITY_TICKET)?)?;
        (ticket.worker != self.place.number && ticket.worker < self.place.count).then_some(ticket.worker)
    }

    /// The allocation of a ticket, which the asker may move to the path the ticket is shown on (RFC 8016 §3.2).
    pub(super) fn ticketed(
        &mut self,
        now: Now,
        question: &Question,
        asker: &Asker<'_>,
        ticket: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<RelayId, Refusal> {
        if !self.policy.auth.mobility {
            return Err(Refusal::MobilityForbidden);
        }
        let ticket = Ticket::open(&self.policy.auth.nonce_key, ticket).ok_or(Refusal::AllocationMismatch)?;
        let here = self.table.find(&question.path.tuple);
        if ticket.worker != self.place.number || here.is_some_and(|here| here != ticket.relay) {
            return Err(Refusal::AllocationMismatch);
        }
        if !self.is_live(now, ticket.relay, effects) {
            return Err(Refusal::AllocationMismatch);
        }
        let allocation = self.table.get(ticket.relay).ok_or(Refusal::AllocationMismatch)?;
        let mobility = allocation.mobility.as_deref().ok_or(Refusal::AllocationMismatch)?;
        if !allocation.is_of(asker) {
            return Err(Refusal::WrongCredentials);
        }
        let is_repeat = mobility.next == Some((question.path, question.transaction));
        if mobility.serial != ticket.serial.wrapping_add(u32::from(is_repeat)) {
            return Err(Refusal::AllocationMismatch);
        }
        // Peers' connections are announced and bound over connections only (RFC 6062 §5).
        if allocation.protocol == Protocol::Tcp && !question.path.tuple.transport.is_stream() {
            return Err(Refusal::BadRequest);
        }
        Ok(ticket.relay)
    }

    /// Lets an allocation be reached on another path, too. The same request again changes nothing.
    pub(super) fn move_here(&mut self, id: RelayId, question: &Question, effects: &mut Vec<Effect>) {
        let next = Some((question.path, question.transaction));
        let Some(mobility) = self.table.get_mut(id).and_then(|held| held.mobility.as_mut()) else { return };
        let before = mobility.next;
        if before == next {
            return;
        }
        mobility.serial = mobility.serial.wrapping_add(1);
        self.table.set_next(id, next);
        effects.extend(before.map(|(path, _)| Effect::Detached(path)));
        effects.push(Effect::Attached(question.path));
    }

    /// The client speaks on the path it moves to: that is its path now.
    pub(super) fn settle(&mut self, id: RelayId, effects: &mut Vec<Effect>) {
        let Some(allocation) = self.table.get(id) else { return };
        let Some((next, _)) = allocation.mobility.as_deref().and_then(|mobility| mobility.next) else { return };
        let old = allocation.path;
        if let Some(family) = allocation.counted {
            self.tally.allocations_of(old.tuple.transport, family).sub(1);
            self.tally.allocations_of(next.tuple.transport, family).add(1);
        }
        self.table.settle(id);
        effects.push(Effect::Detached(old));
    }

    /// The ticket an allocation can move with next; `None` for one that may not move.
    pub(super) fn ticket(&self, id: RelayId) -> Option<[u8; TICKET_LEN]> {
        let serial = self.table.get(id)?.mobility.as_deref()?.serial;
        Ticket { worker: self.place.number, relay: id, serial }.seal(&self.policy.auth.nonce_key)
    }
}

/// The state of an allocation that has its first ticket.
pub(super) fn begun() -> Option<Box<Mobility>> {
    Some(Box::new(Mobility { serial: 0, next: None }))
}
