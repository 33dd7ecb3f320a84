//! Messages out of a byte stream (RFC 8489 §6.2.2, RFC 8656 §12.5).
//!
//! Owns nothing: it looks at the bytes received so far and says where the first message ends. The message types share
//! one rule: the length is in bytes 2–3, and every message starts at a multiple of four.

use super::{channel, codes};

/// What the first bytes of a stream hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole message: `message` bytes of it, the next one `next` bytes from the start.
    Whole {
        /// Bytes of the message itself, padding left out.
        message: usize,
        /// Bytes to skip to reach the next message.
        next: usize,
    },
    /// More bytes are needed: `total` in all, as far as one can tell.
    Partial {
        /// Bytes from the start of the message to the start of the next.
        total: usize,
    },
    /// Neither STUN nor ChannelData: a stream cannot recover from that.
    Noise,
}

/// Finds the first message in `bytes`.
pub fn next(bytes: &[u8]) -> Frame {
    let Some(first) = bytes.first() else { return Frame::Partial { total: channel::HEAD } };
    let head = match first {
        0..=0x3F => codes::HEADER,
        0x40..=0x7F => channel::HEAD,
        _ => return Frame::Noise,
    };
    let [_, _, l0, l1, ..] = bytes else { return Frame::Partial { total: head } };
    let length = usize::from(u16::from_be_bytes([*l0, *l1]));
    if head == codes::HEADER {
        let cookie = codes::MAGIC_COOKIE.to_be_bytes();
        let seen = bytes.get(4..bytes.len().min(8)).unwrap_or_default();
        // STUN is told from noise as early as its bytes allow, so that noise never makes us wait for its "length".
        if length % 4 != 0 || !cookie.starts_with(seen) {
            return Frame::Noise;
        }
    }
    let message = head + length;
    let next = message.next_multiple_of(4);
    if bytes.len() < next { Frame::Partial { total: next } } else { Frame::Whole { message, next } }
}
