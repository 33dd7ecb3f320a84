//! Mobility tickets (RFC 8016 §3): which allocation, and which of its tickets, sealed so that nobody else can make one.
//!
//! A ticket carries no right by itself: its bearer must show the allocation's credential, too. It names the worker that
//! has the allocation, because a client on a new path may reach another.
#![forbid(unsafe_code)]

use super::RelayId;
use super::credential::Secret;
use crate::wire::integrity::{equal, hmac_sha256};

/// What stands in a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// The worker that has the allocation.
    pub(super) worker: u8,
    /// The allocation.
    pub(super) relay: RelayId,
    /// Which of its tickets: the last one made is the only one that opens.
    pub(super) serial: u32,
}

/// Bytes of the tag before the hidden part.
const TAG_LEN: usize = 16;
/// Bytes of the hidden part: worker, index, generation, serial, variant.
const HIDDEN_LEN: usize = 1 + 4 + 4 + 4 + 1;
/// Bytes of a ticket on the wire. coturn's client has no room for more than 32.
pub(super) const TICKET_LEN: usize = TAG_LEN + HIDDEN_LEN;

impl Ticket {
    /// Seals it: a tag over what it says, and that hidden under a mask which the tag determines (the SIV construction of
    /// RFC 5297 §1.3, with HMAC-SHA-256 for both). No two tickets say the same, so none needs a nonce.
    ///
    /// coturn's client takes a ticket to end at its first zero, so it is the first variant that has none; one in nine
    /// has. `None` when all 256 have, which no key will live to see.
    pub(super) fn seal(self, key: &Secret) -> Option<[u8; TICKET_LEN]> {
        (0..=u8::MAX).map(|variant| self.variant(key, variant)).find(|ticket| !ticket.contains(&0))
    }

    fn variant(self, key: &Secret, variant: u8) -> [u8; TICKET_LEN] {
        let mut plain = [0; HIDDEN_LEN];
        let parts: [&[u8]; 5] = [
            &[self.worker],
            &self.relay.index.to_be_bytes(),
            &self.relay.generation.to_be_bytes(),
            &self.serial.to_be_bytes(),
            &[variant],
        ];
        plain.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        let tag = tag(key, &plain);
        let mut ticket = [0; TICKET_LEN];
        ticket.iter_mut().zip(tag.into_iter().chain(masked(key, &tag, plain))).for_each(|(to, from)| *to = from);
        ticket
    }

    /// Opens a ticket of ours; `None` for anything else.
    pub(super) fn open(key: &Secret, ticket: &[u8]) -> Option<Self> {
        let (shown, hidden) = ticket.split_first_chunk::<TAG_LEN>()?;
        let plain = masked(key, shown, hidden.try_into().ok()?);
        let [worker, i0, i1, i2, i3, g0, g1, g2, g3, s0, s1, s2, s3, _] = plain;
        let relay =
            RelayId { index: u32::from_be_bytes([i0, i1, i2, i3]), generation: u32::from_be_bytes([g0, g1, g2, g3]) };
        equal(&tag(key, &plain), shown).then_some(Self { worker, relay, serial: u32::from_be_bytes([s0, s1, s2, s3]) })
    }
}

// The keys of tickets are made from the key of nonces: all workers share that one, and it ends with the process.

fn tag(key: &Secret, plain: &[u8; HIDDEN_LEN]) -> [u8; TAG_LEN] {
    let key = hmac_sha256(key.expose(), &[b"mobility ticket: tag"]);
    let whole = hmac_sha256(&key, &[plain]);
    *whole.first_chunk().expect("32 bytes hold 16")
}

/// Hides, and shows again.
fn masked(key: &Secret, tag: &[u8; TAG_LEN], mut bytes: [u8; HIDDEN_LEN]) -> [u8; HIDDEN_LEN] {
    let key = hmac_sha256(key.expose(), &[b"mobility ticket: mask"]);
    bytes.iter_mut().zip(hmac_sha256(&key, &[tag])).for_each(|(byte, mask)| *byte ^= mask);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m10_a_ticket_opens_as_it_was_sealed_and_no_other_way() {
        let key = Secret::new("k");
        let ticket = Ticket { worker: 3, relay: RelayId { index: 70_000, generation: 9 }, serial: 2 };
        let sealed = ticket.seal(&key).unwrap();
        assert_eq!(Ticket::open(&key, &sealed), Some(ticket));
        assert_eq!(Ticket::open(&Secret::new("j"), &sealed), None);
        for bit in 0..sealed.len() * 8 {
            let mut bent = sealed;
            bent[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Ticket::open(&key, &bent), None, "bit {bit}");
        }
        assert_eq!(Ticket::open(&key, &sealed[..TICKET_LEN - 1]), None);
        assert_eq!(Ticket::open(&key, &[]), None);
        assert_eq!(Ticket::open(&key, &[&sealed[..], &[0]].concat()), None);
    }

    #[test]
    fn m10_tickets_of_one_allocation_have_nothing_in_common() {
        let key = Secret::new("k");
        let relay = RelayId { index: 1, generation: 1 };
        let [one, two] = [1, 2].map(|serial| Ticket { worker: 0, relay, serial }.seal(&key).unwrap());
        // Bytes fall together by chance: one of 256.
        assert!(one.iter().zip(&two).filter(|(one, two)| one == two).count() < 5);
    }

    #[test]
    fn a_ticket_fits_into_coturns_client() {
        const { assert!(TICKET_LEN <= 32) };
        let key = Secret::new("k");
        let relay = RelayId { index: 0, generation: 0 };
        for serial in 0..1000 {
            let ticket = Ticket { worker: 0, relay, serial };
            let sealed = ticket.seal(&key).unwrap();
            assert!(!sealed.contains(&0));
            assert_eq!(Ticket::open(&key, &sealed), Some(ticket));
        }
    }
}
