//! Relayed messages inside relayed messages: how deep they lie in each other.
//!
//! A relay takes one head off and sends the rest on. Where that goes to another relay, or comes back to the first, the
//! next head comes off there, so the heads in a packet say how often it can be relayed (RFC 8656 §21.1.7). Reads no further
//! than it is asked to.
#![forbid(unsafe_code)]

use super::channel::{ChannelData, HEAD};
use super::codes::{Attribute, Class, Method, message_type};
use super::stun::Message;
use super::{Kind, classify};

/// Whether more than `most` heads of ChannelData or Send indications lie in each other at the front of `bytes`.
pub fn is_deeper_than(bytes: &[u8], most: usize) -> bool {
    let mut inner = bytes;
    for _ in 0..most {
        let Some(payload) = payload(inner) else { return false };
        inner = payload;
    }
    payload(inner).is_some()
}

/// What a relay would send on.
fn payload(bytes: &[u8]) -> Option<&[u8]> {
    match classify(bytes)? {
        Kind::ChannelData => {
            let head = ChannelData::parse(bytes).ok()?;
            bytes.get(HEAD..HEAD + head.length)
        }
        Kind::Stun if bytes.starts_with(&SEND) => Message::parse(bytes).ok()?.get(Attribute::DATA),
        Kind::Stun | Kind::Tls | Kind::Other => None,
    }
}

const SEND: [u8; 2] = message_type(Method::SEND, Class::Indication).to_be_bytes();

#[cfg(test)]
mod tests {
    use super::super::channel::{ChannelNumber, head};
    use super::super::reply::Reply;
    use super::*;

    fn in_channel(payload: &[u8]) -> Vec<u8> {
        [&head(ChannelNumber::MIN, payload.len() as u16), payload].concat()
    }

    fn in_send(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; payload.len() + 64];
        let mut send = Reply::new(&mut bytes, Method::SEND, Class::Indication, [7; 12]);
        let peer = "11.0.0.1:80".parse().expect("an address");
        let len = send.xor_address(Attribute::XOR_PEER_ADDRESS, peer).bytes(Attribute::DATA, payload).finish();
        bytes.truncate(len.expect("it fits"));
        bytes
    }

    #[test]
    fn heads_are_counted_whatever_they_are_of() {
        let mut bytes = b"media".to_vec();
        for depth in 0..20 {
            for most in 0..20 {
                assert_eq!(is_deeper_than(&bytes, most), depth > most, "{depth} heads, {most} at most");
            }
            bytes = if depth % 2 == 0 { in_channel(&bytes) } else { in_send(&bytes) };
        }
    }

    #[test]
    fn what_calls_are_made_of_has_no_head() {
        for bytes in
            [&b""[..], &[0x80, 0x60, 0, 1], &[0x16, 0xFE, 0xFD, 0], &[0x00, 0x01, 0, 0], &[0x40, 0x00, 0xFF, 0xFF]]
        {
            assert!(!is_deeper_than(bytes, 0), "{bytes:?}");
        }
    }
}
