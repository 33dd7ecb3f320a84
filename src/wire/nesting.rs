//! Relayed messages inside relayed messages: how deep they lie in each other.
//!
//! A relay takes one head off what a client sends, and puts one before what a peer sends. Where that goes to another relay,
//! or comes back to the first, the next head comes off or is put on there. So the heads in a packet say how often it can
//! be relayed to peers, and how often it has been relayed to clients (RFC 8656 §21.1.7). Reads no further than it is asked to.
#![forbid(unsafe_code)]

use super::channel::{ChannelData, HEAD};
use super::codes::{Attribute, Class, Method, message_type};
use super::stun::Message;
use super::{Kind, classify};

/// Whether more than `most` heads of ChannelData, Send or Data indications lie in each other at the front of `bytes`.
pub fn is_deeper_than(bytes: &[u8], most: usize) -> bool {
    let mut inner = bytes;
    for _ in 0..most {
        let Some(payload) = payload(inner) else { return false };
        inner = payload;
    }
    payload(inner).is_some()
}

/// What lies behind the first head.
fn payload(bytes: &[u8]) -> Option<&[u8]> {
    match classify(bytes)? {
        Kind::ChannelData => {
            let head = ChannelData::parse(bytes).ok()?;
            bytes.get(HEAD..HEAD + head.length)
        }
        Kind::Stun if bytes.starts_with(&SEND) || bytes.starts_with(&DATA) => {
            Message::parse(bytes).ok()?.get(Attribute::DATA)
        }
        Kind::Stun | Kind::Tls | Kind::Other => None,
    }
}

const SEND: [u8; 2] = message_type(Method::SEND, Class::Indication).to_be_bytes();
const DATA: [u8; 2] = message_type(Method::DATA, Class::Indication).to_be_bytes();

#[cfg(test)]
mod tests {
    use super::super::channel::{ChannelNumber, head};
    use super::super::reply::Reply;
    use super::*;

    fn in_channel(payload: &[u8]) -> Vec<u8> {
        [&head(ChannelNumber::MIN, payload.len() as u16), payload].concat()
    }

    fn in_indication(method: Method, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; payload.len() + 64];
        let mut indication = Reply::new(&mut bytes, method, Class::Indication, [7; 12]);
        let peer = "11.0.0.1:80".parse().expect("an address");
        let len = indication.xor_address(Attribute::XOR_PEER_ADDRESS, peer).bytes(Attribute::DATA, payload).finish();
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
            bytes = match depth % 3 {
                0 => in_channel(&bytes),
                1 => in_indication(Method::SEND, &bytes),
                _ => in_indication(Method::DATA, &bytes),
            };
        }
    }

    #[test]
    fn what_calls_are_made_of_has_no_head() {
        for bytes in
            [&b""[..], &[0x80, 0x60, 0, 1], &[0x16, 0xFE, 0xFD, 0], &[0x00, 0x01, 0, 0], &[0x40, 0x00, 0xFF, 0xFF]]
        {
            assert!(!is_deeper_than(bytes, 0), "{bytes:?}");
        }
        // DATA in what no relay takes off or puts on is nobody's payload.
        for method in [Method::BINDING, Method::ALLOCATE] {
            assert!(!is_deeper_than(&in_indication(method, b"media"), 0), "{method:?}");
        }
    }
}
