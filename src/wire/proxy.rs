//! The PROXY protocol, versions 1 and 2: what a proxy says of the client before the client's own bytes come.
//!
//! A view of the first bytes of a connection, and the writer of a header for a server behind us. A header is believed
//! whole or not at all: one that is longer than it may be, names a client that cannot be, or is of no known form is
//! [`Header::Broken`]. Never decides who may send one.
#![forbid(unsafe_code)]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::str::FromStr;

/// The longest line of version 1, its end included.
pub const MAX_V1: usize = 107;
/// The longest header of version 2 that is read: 16 bytes, and 520 of addresses and extensions.
pub const MAX_V2: usize = 536;
/// The longest header that [`write()`] makes: 16 bytes, two IPv6 addresses, two ports.
pub const MAX_WRITTEN: usize = V2_HEAD + V6_ADDRESSES;

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEAD: usize = 16;
const V4_ADDRESSES: usize = 12;
const V6_ADDRESSES: usize = 36;

/// What the first bytes of a connection are to this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// No header begins so.
    Absent,
    /// The start of one.
    Partial,
    /// A whole one.
    Whole {
        /// Its bytes; what comes after is the client's.
        len: usize,
        /// Of whom it speaks; `None` is the connection itself (LOCAL, UNKNOWN): a proxy that looks whether we live.
        ends: Option<Ends>,
    },
    /// One that cannot be believed.
    Broken,
}

/// The two ends of the connection that the proxy has with the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client's own address.
    pub source: SocketAddr,
    /// The address that the client came to.
    pub destination: SocketAddr,
}

/// Looks at the first bytes of a connection.
pub fn parse(bytes: &[u8]) -> Header {
    match is_header(bytes) {
        Some(true) if bytes.starts_with(V1) => text(bytes),
        Some(true) => binary(bytes),
        Some(false) => Header::Absent,
        None => Header::Partial,
    }
}

/// Whether the first bytes of a connection are the start of a header, right or wrong; `None` while they may become one.
pub fn is_header(bytes: &[u8]) -> Option<bool> {
    if bytes.starts_with(V1) || bytes.starts_with(V2) {
        return Some(true);
    }
    // Also no bytes at all.
    if V1.starts_with(bytes) || V2.starts_with(bytes) { None } else { Some(false) }
}

fn text(bytes: &[u8]) -> Header {
    let seen = bytes.get(..bytes.len().min(MAX_V1)).unwrap_or(bytes);
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return if seen.len() < MAX_V1 { Header::Partial } else { Header::Broken };
    };
    let line = bytes.get(V1.len()..end).and_then(|line| str::from_utf8(line).ok());
    let ends = line.map(|line| line.split(' ')).and_then(|mut words| {
        let ends = match words.next()? {
            // What stands after it means nothing.
            "UNKNOWN" => return Some(None),
            "TCP4" => line_ends::<Ipv4Addr>(&mut words)?,
            "TCP6" => line_ends::<Ipv6Addr>(&mut words)?,
            _ => return None,
        };
        words.next().is_none().then_some(Some(ends))
    });
    ends.map_or(Header::Broken, |ends| Header::Whole { len: end + 2, ends })
}

fn line_ends<'a, A: FromStr + Into<IpAddr>>(words: &mut impl Iterator<Item = &'a str>) -> Option<Ends> {
    let mut address = || words.next()?.parse::<A>().ok().map(Into::into);
    let (source, destination) = (address()?, address()?);
    let mut port = || words.next().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok();
    Ends::new(source, port()?, destination, port()?)
}

fn binary(bytes: &[u8]) -> Header {
    let Some((head, rest)) = bytes.split_first_chunk::<V2_HEAD>() else {
        // Said as early as the bytes allow.
        return if bytes.get(V2.len()).is_some_and(|version| version >> 4 != 2) {
            Header::Broken
        } else {
            Header::Partial
        };
    };
    let [.., command, family, l0, l1] = *head;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let len = V2_HEAD + length;
    if !matches!(command, 0x20 | 0x21) || len > MAX_V2 {
        return Header::Broken;
    }
    let Some(body) = rest.get(..length) else { return Header::Partial };
    if command == 0x20 {
        return Header::Whole { len, ends: None };
    }
    let ends = match family {
        0x00 => return Header::Whole { len, ends: None },
        0x11 => body.first_chunk::<V4_ADDRESSES>().and_then(|body| {
            let [a, b, c, d, e, f, g, h, p0, p1, q0, q1] = *body;
            let (source, destination) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
            Ends::new(source.into(), be(p0, p1), destination.into(), be(q0, q1))
        }),
        0x21 => body.split_first_chunk::<16>().and_then(|(source, rest)| {
            let (destination, rest) = rest.split_first_chunk::<16>()?;
            let [p0, p1, q0, q1] = *rest.first_chunk::<4>()?;
            Ends::new(Ipv6Addr::from(*source).into(), be(p0, p1), Ipv6Addr::from(*destination).into(), be(q0, q1))
        }),
        // Datagrams and unix-domain sockets are no client of a stream that comes over IP.
        _ => None,
    };
    ends.map_or(Header::Broken, |ends| Header::Whole { len, ends: Some(ends) })
}

const fn be(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

impl Ends {
    /// Two ends that can be: one host cannot be everybody, or nobody. IPv4 in the clothes of IPv6 is IPv4.
    fn new(source: IpAddr, from: u16, destination: IpAddr, to: u16) -> Option<Self> {
        let (source, destination) = (source.to_canonical(), destination.to_canonical());
        let is_host = |ip: IpAddr| {
            let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
            !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
        };
        let can_be = is_host(source) && is_host(destination) && from != 0 && to != 0;
        (can_be && source.is_ipv4() == destination.is_ipv4())
            .then_some(Self { source: SocketAddr::new(source, from), destination: SocketAddr::new(destination, to) })
    }
}

/// Writes a header of version 2 into `room` and returns it; without ends it speaks of the connection itself.
pub fn write(room: &mut [u8; MAX_WRITTEN], ends: Option<Ends>) -> &[u8] {
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        if let Some(place) = room.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
            at += bytes.len();
        }
    };
    put(V2);
    match ends {
        None => put(&[0x20, 0, 0, 0]),
        Some(Ends { source: SocketAddr::V4(source), destination: SocketAddr::V4(destination) }) => {
            put(&[0x21, 0x11, 0, V4_ADDRESSES as u8]);
            put(&source.ip().octets());
            put(&destination.ip().octets());
            put(&source.port().to_be_bytes());
            put(&destination.port().to_be_bytes());
        }
        Some(Ends { source, destination }) => {
            put(&[0x21, 0x21, 0, V6_ADDRESSES as u8]);
            put(&wide(source.ip()).octets());
            put(&wide(destination.ip()).octets());
            put(&source.port().to_be_bytes());
            put(&destination.port().to_be_bytes());
        }
    }
    room.get(..at).unwrap_or_default()
}

fn wide(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}
