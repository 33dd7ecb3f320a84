//! Whoever lies about an address: UDP datagrams with any source, written into IP packets by hand.
//!
//! Never sends more at once than the smallest buffer of a server holds: what is told here of a flood is told of all of
//! it, and nothing of it is lost on the way.

use crate::namespace::Counted;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `IPPROTO_RAW`: the packet comes with its IP header.
const WITH_HEADER: i32 = 255;
const UDP: u8 = 17;
const UDP_HEAD: usize = 8;
/// A raw socket of each family.
pub(crate) struct Forger {
    v4: Socket,
    v6: Socket,
    /// Hops that the next datagram may make.
    pub(crate) hops: u8,
    room: Vec<u8>,
}

impl Forger {
    pub(crate) fn new() -> Self {
        let raw = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(WITH_HEADER)));
        let open = |domain| raw(domain).expect("whoever makes a network may forge packets in it");
        Self { v4: open(Domain::IPV4), v6: open(Domain::IPV6), hops: 64, room: Vec::new() }
    }

    /// Sends one datagram that claims to come from `from`.
    pub(crate) fn sends(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        self.room.clear();
        let length = (UDP_HEAD + payload.len()) as u16;
        let udp = [from.port().to_be_bytes(), to.port().to_be_bytes(), length.to_be_bytes(), [0; 2]].concat();
        let socket = match (from.ip(), to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                // The kernel fills in total length, identification and checksum. UDP over IPv4 may go without its own.
                self.room.extend([0x45, 0, 0, 0, 0, 0, 0, 0, self.hops, UDP, 0, 0]);
                self.room.extend(source.octets().into_iter().chain(destination.octets()));
                self.room.extend(udp);
                &self.v4
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let [l0, l1] = length.to_be_bytes();
                self.room.extend([0x60, 0, 0, 0, l0, l1, UDP, self.hops]);
                self.room.extend(source.octets().into_iter().chain(destination.octets()));
                self.room.extend(&udp[..6]);
                self.room.extend(checksum(source, destination, &udp, payload).to_be_bytes());
                &self.v6
            }
            _ => panic!("{from} and {to} are of two families"),
        };
        self.room.extend_from_slice(payload);
        // A raw IPv6 socket takes no port.
        let door = SocketAddr::new(to.ip(), 0);
        socket.send_to(&self.room, &SockAddr::from(door)).expect("loopback is there");
    }
}

/// The checksum that UDP over IPv6 must have (RFC 8200 §8.1).
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, head: &[u8], payload: &[u8]) -> u16 {
    let pseudo = [&source.octets()[..], &destination.octets()[..], &head[4..6], &[0, UDP]].concat();
    let words = [&pseudo, head, payload];
    let words = words.iter().flat_map(|part| part.chunks(2));
    let sum: u64 = words.map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0))).sum();
    let mut folded = sum;
    while folded > 0xFFFF {
        folded = (folded & 0xFFFF) + (folded >> 16);
    }
    match !(folded as u16) {
        0 => 0xFFFF,
        sum => sum,
    }
}

/// Holds a flood back to what the server reads: everything sent is read before the next handful leaves.
pub(crate) struct Pace {
    start: Counted,
    /// To sockets of the server.
    pub(crate) sent: u64,
    /// By sockets of the test.
    pub(crate) heard: u64,
}

impl Pace {
    /// Datagrams on the way at once. A buffer of 416 KiB, which is what Linux makes of the most that it grants unasked, holds
    /// some 500 small ones.
    pub(crate) const HANDFUL: u64 = 256;

    pub(crate) fn new() -> Self {
        Self { start: Counted::read(), sent: 0, heard: 0 }
    }

    /// Whether the server has read all that was sent to it. What the test's own sockets read is in the count as well.
    pub(crate) fn is_done(&self) -> bool {
        Counted::read().read - self.start.read >= self.sent + self.heard
    }

    /// Datagrams that no program has seen.
    pub(crate) fn lost(&self) -> u64 {
        Counted::read().lost - self.start.lost
    }
}

/// A message type, a length and the cookie, and whatever else: a header of STUN with this in it.
pub(crate) fn stun(kind: u16, transaction: [u8; 12], attributes: &[u8]) -> Vec<u8> {
    let length = (attributes.len() as u16).to_be_bytes();
    [&kind.to_be_bytes()[..], &length, &[0x21, 0x12, 0xA4, 0x42], &transaction, attributes].concat()
}

/// The wildcard address of the family of `ip`.
pub(crate) fn any(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}
