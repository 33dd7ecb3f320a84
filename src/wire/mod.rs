//! Bytes ⇄ meaning: STUN messages, ChannelData, how both lie in a datagram or a stream, and what may stand before them.
//!
//! Everything here is a view of bytes somebody else owns. A message is parsed once, by [`stun::Message::parse`]; what
//! comes after trusts the slices and checks no length again. Never allocates, logs or reads a clock, and never knows
//! what a permission is. No input makes any function here panic.
#![forbid(unsafe_code)]

pub mod channel;
pub mod codes;
pub mod icmp;
pub mod integrity;
pub mod nesting;
pub mod packet;
pub mod proxy;
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

/// What a request of HTTP can begin with: the methods of RFC 9110, PATCH, and the preface of HTTP/2 (RFC 9113 §3.4).
const HTTP: [&[u8]; 10] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"CONNECT ",
    b"OPTIONS ",
    b"TRACE ",
    b"PATCH ",
    b"PRI * HTTP/2.0",
];

/// Whether the first bytes of a stream are a request of HTTP; `None` while they may become one. Its letters would pass
/// for ChannelData, which nobody sends before a message of STUN.
pub fn is_http(bytes: &[u8]) -> Option<bool> {
    if HTTP.iter().any(|start| bytes.starts_with(start)) {
        return Some(true);
    }
    if HTTP.iter().any(|start| start.starts_with(bytes)) { None } else { Some(false) }
}
