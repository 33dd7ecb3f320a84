//! NAT behaviour discovery (RFC 5780): answers that leave from other sockets than the question came to.
//!
//! Off by default, because it lets a forged question send its answer to another port or from another address. It never
//! answers to another host, and an answer is never longer than its question.
#![forbid(unsafe_code)]

use super::policy::{Discovery, Policy};
use super::refusal::Refusal;
use super::tally::Transport;
use super::{FiveTuple, Path};
use crate::wire::codes::{Attribute, Method};
use crate::wire::reply::Reply;
use crate::wire::stun::Message;
use core::net::SocketAddr;

/// CHANGE-REQUEST: answer from the other address (RFC 5780 §7.2).
const CHANGE_IP: u8 = 0x04;
/// CHANGE-REQUEST: answer from the other port.
const CHANGE_PORT: u8 = 0x02;

/// The attributes that are understood where discovery is on.
pub(super) const ATTRIBUTES: [Attribute; 3] = [Attribute::CHANGE_REQUEST, Attribute::RESPONSE_PORT, Attribute::PADDING];

/// How a Binding with discovery is answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Discovered {
    /// The socket the answer leaves from.
    from: SocketAddr,
    origin: SocketAddr,
    other: SocketAddr,
    /// RESPONSE-PORT.
    to_port: Option<u16>,
    /// The length of a question with PADDING, which the answer may have, too.
    padded: Option<usize>,
}

/// Whether discovery is spoken on the socket this request came to. Only over UDP (RFC 5780 §6).
pub(super) fn is_on(policy: &Policy, tuple: &FiveTuple) -> bool {
    sockets(policy, tuple).is_some()
}

/// What a Binding asks for; `None` where discovery is not spoken.
pub(super) fn read(policy: &Policy, tuple: &FiveTuple, message: &Message<'_>) -> Result<Option<Discovered>, Refusal> {
    let Some((discovery, address, port)) = sockets(policy, tuple).filter(|_| message.method == Method::BINDING) else {
        return Ok(None);
    };
    let change = message.bytes::<4>(Attribute::CHANGE_REQUEST).transpose().map_err(|_| Refusal::BadRequest)?;
    let [.., flags] = change.unwrap_or_default();
    let to_port = message.bytes::<4>(Attribute::RESPONSE_PORT).transpose().map_err(|_| Refusal::BadRequest)?;
    let to_port = to_port.map(|[p0, p1, ..]| u16::from_be_bytes([p0, p1]));
    let is_padded = message.get(Attribute::PADDING).is_some();
    if to_port == Some(0) || (to_port.is_some() && is_padded) {
        return Err(Refusal::BadRequest);
    }
    let from = (address ^ usize::from(flags & CHANGE_IP != 0), port ^ usize::from(flags & CHANGE_PORT != 0));
    Ok(Some(Discovered {
        from: discovery.sockets[from.0][from.1],
        origin: discovery.told[from.0][from.1],
        other: discovery.told[address ^ 1][port ^ 1],
        to_port,
        padded: is_padded.then_some(message.len()),
    }))
}

impl Discovered {
    /// Writes what a Binding success says (RFC 5780 §6.1).
    pub(super) fn write(&self, reply: &mut Reply<'_>, client: SocketAddr, has_fingerprint: bool) {
        reply.address(Attribute::MAPPED_ADDRESS, client);
        reply.address(Attribute::RESPONSE_ORIGIN, self.origin);
        reply.address(Attribute::OTHER_ADDRESS, self.other);
        if let Some(length) = self.padded {
            let after = 4 + if has_fingerprint { 8 } else { 0 };
            let count = length.saturating_sub(reply.len() + after);
            reply.zeros(Attribute::PADDING, count - count % 4);
        }
    }

    /// The way the answer goes.
    pub(super) fn path(&self, asked: Path) -> Path {
        let client =
            SocketAddr::new(asked.tuple.client.ip(), self.to_port.unwrap_or_else(|| asked.tuple.client.port()));
        Path { tuple: FiveTuple { client, server: self.from, ..asked.tuple }, link: asked.link }
    }
}

/// The sockets of discovery that the one which was asked belongs to, and its place among them.
fn sockets<'p>(policy: &'p Policy, tuple: &FiveTuple) -> Option<(&'p Discovery, usize, usize)> {
    if tuple.transport != Transport::Udp {
        return None;
    }
    policy.nat_discovery.iter().find_map(|discovery| {
        let places = [(0, 0), (0, 1), (1, 0), (1, 1)];
        let (address, port) = places.into_iter().find(|(a, p)| discovery.sockets[*a][*p] == tuple.server)?;
        Some((discovery, address, port))
    })
}
