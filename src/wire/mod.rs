//! Bytes ⇄ meaning: STUN messages, ChannelData, and how both lie in a datagram or a stream.
//!
//! Everything here is a view of bytes somebody else owns. A message is parsed once, by [`stun::Message::parse`]; what
//! comes after trusts the slices and checks no length again. Never allocates, logs or reads a clock, and never knows
//! what a permission is. No input makes any function here panic.
#![forbid(unsafe_code)]

pub mod channel;
pub mod codes;
pub mod icmp;
pub mod integrity;
pub mod packet;
pub mod reply;
pub mod stream;
pub mod stun;

pub use packet::Packet;

/// What the first byte of a datagram or of a connection promises (RFC 7983 §7, RFC 8656 §12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 0–3: a STUN message.
    Stun,
    /// 64–127: ChannelData; RFC 8656's own numbers end at 79, see [`channel::ChannelNumber`].
    ChannelData,
    /// 20–63: a (D)TLS record.
    Tls,
    /// Anything else: ZRTP, RTP, HTTP, noise.
    Other,
}

/// Tells by the first byte what `bytes` claims to be; `None` when there is no byte.
pub fn classify(bytes: &[u8]) -> Option<Kind> {
    Some(match bytes.first()? {
        0..=3 => Kind::Stun,
        20..=63 => Kind::Tls,
        64..=127 => Kind::ChannelData,
        _ => Kind::Other,
    })
}
