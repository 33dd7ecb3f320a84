//! Mobility tickets (RFC 8016 §3): which allocation, and which of its tickets, sealed so that nobody else can make one.
//!
//! A ticket carries no right by itself: its bearer must show the allocation's credential, too. It names the worker that
//! has the allocation, because a client on a new path may reach another.
#![forbid(unsafe_code)]

use super::RelayId;
use super::credential::Secret;
use crate::wire::integrity::hmac_sha256;
use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};

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

/// Bytes of the nonce before the sealed part.
const NONCE_LEN: usize = 12;
/// Bytes of the sealed part: worker, index, generation, serial, and AES-GCM's tag.
const SEALED_LEN: usize = 1 + 4 + 4 + 4 + 16;
/// Bytes of a ticket on the wire.
pub(super) const TICKET_LEN: usize = NONCE_LEN + SEALED_LEN;

impl Ticket {
    /// Seals it. `nonce` is fresh chance.
    pub(super) fn seal(self, key: &Secret, nonce: [u8; NONCE_LEN]) -> Option<[u8; TICKET_LEN]> {
        let mut plain = [0; 13];
        let parts: [&[u8]; 4] = [
            &[self.worker],
            &self.relay.index.to_be_bytes(),
            &self.relay.generation.to_be_bytes(),
            &self.serial.to_be_bytes(),
        ];
        plain.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        let sealed = cipher(key).encrypt(&Nonce::from(nonce), plain.as_slice()).ok()?;
        let mut ticket = [0; TICKET_LEN];
        ticket.iter_mut().zip(nonce.iter().chain(&sealed)).for_each(|(to, from)| *to = *from);
        (sealed.len() == SEALED_LEN).then_some(ticket)
    }

    /// Opens a ticket of ours; `None` for anything else.
    pub(super) fn open(key: &Secret, ticket: &[u8]) -> Option<Self> {
        let (nonce, sealed) = ticket.split_first_chunk::<NONCE_LEN>()?;
        let plain = cipher(key).decrypt(&Nonce::from(*nonce), sealed).ok()?;
        let [worker, i0, i1, i2, i3, g0, g1, g2, g3, s0, s1, s2, s3] = plain.try_into().ok()?;
        let relay =
            RelayId { index: u32::from_be_bytes([i0, i1, i2, i3]), generation: u32::from_be_bytes([g0, g1, g2, g3]) };
        Some(Self { worker, relay, serial: u32::from_be_bytes([s0, s1, s2, s3]) })
    }
}

/// The key of tickets is made from the key of nonces: all workers share that one, and it ends with the process.
fn cipher(key: &Secret) -> Aes256Gcm {
    Aes256Gcm::new(&hmac_sha256(key.expose(), &[b"mobility ticket"]).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m10_a_ticket_opens_as_it_was_sealed_and_no_other_way() {
        let key = Secret::new("k");
        let ticket = Ticket { worker: 3, relay: RelayId { index: 70_000, generation: 9 }, serial: 2 };
        let sealed = ticket.seal(&key, [5; NONCE_LEN]).unwrap();
        assert_eq!(Ticket::open(&key, &sealed), Some(ticket));
        assert_eq!(Ticket::open(&Secret::new("j"), &sealed), None);
        for bit in 0..sealed.len() * 8 {
            let mut bent = sealed;
            bent[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Ticket::open(&key, &bent), None, "bit {bit}");
        }
        assert_eq!(Ticket::open(&key, &sealed[..TICKET_LEN - 1]), None);
        assert_eq!(Ticket::open(&key, &[]), None);
    }
}
