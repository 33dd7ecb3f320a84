//! A STUN message as it lies in the bytes: parsed once, then only looked at.
//!
//! [`Message::parse`] accepts a message only when the header is right, every attribute lies inside it, and a
//! FINGERPRINT, if there is one, is last and true (RFC 8489 §5, §14.7). What stands after MESSAGE-INTEGRITY does not
//! exist for the reader (§9): nobody signed it. Of equal attributes the first counts (§14). Never allocates; never decides
//! who may do what.
#![forbid(unsafe_code)]

use super::codes::{Attribute, Class, HEADER, MAGIC_COOKIE, Method, split_type};
use super::integrity::{self, Algorithm, Key, SHA1_LEN, SHA256_LEN};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::Range;

/// The 96 bits that tie an answer to its question (RFC 8489 §5).
pub type TransactionId = [u8; 12];

/// A message whose structure is known to be sound.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// What is asked or answered.
    pub method: Method,
    /// Request, indication, success or error.
    pub class: Class,
    /// Which question it is.
    pub transaction: TransactionId,
    bytes: &'a [u8],
    /// Where the readable attributes end: at the first integrity attribute, or at the end.
    readable: usize,
    integrity: Option<Signed<'a>>,
    integrity_sha256: Option<Signed<'a>>,
    fingerprint: bool,
}

/// An integrity attribute: where its header starts, and the value it carries.
#[derive(Clone, Copy, Debug)]
struct Signed<'a> {
    at: usize,
    value: &'a [u8],
}

/// Why bytes are no STUN message. Such a message is dropped without an answer (RFC 8489 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Too short, top bits set, or the length field disagrees with the bytes.
    Header,
    /// No magic cookie: classic STUN (RFC 3489) or something else.
    Cookie,
    /// An attribute runs past the end.
    Attribute,
    /// FINGERPRINT is wrong, or not the last attribute.
    Fingerprint,
}

/// An attribute value of the wrong size or content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadValue;

/// An address family as TURN attributes name it (RFC 8489 §14.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// 0x01.
    V4,
    /// 0x02.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }

    /// The family of this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::V4),
            2 => Some(Self::V6),
            _ => None,
        }
    }

    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }

    /// The name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

impl<'a> Message<'a> {
    /// Reads one message that fills `bytes` exactly.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (head, attributes) = bytes.split_at_checked(HEADER).ok_or(Malformed::Header)?;
        let [t0, t1, l0, l1, c0, c1, c2, c3, transaction @ ..] = head else { return Err(Malformed::Header) };
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        if t0 & 0xC0 != 0 || length % 4 != 0 || length != attributes.len() {
            return Err(Malformed::Header);
        }
        if u32::from_be_bytes([*c0, *c1, *c2, *c3]) != MAGIC_COOKIE {
            return Err(Malformed::Cookie);
        }
        let (method, class) = split_type(u16::from_be_bytes([*t0, *t1]));
        let transaction = transaction.try_into().map_err(|_| Malformed::Header)?;
        let mut message = Self {
            method,
            class,
            transaction,
            bytes,
            readable: bytes.len(),
            integrity: None,
            integrity_sha256: None,
            fingerprint: false,
        };
        message.scan()?;
        Ok(message)
    }

    /// The length of the whole message in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a message has at least its header")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Walks over all attributes once: checks that they fit, and finds the three that end the readable part.
    fn scan(&mut self) -> Result<(), Malformed> {
        let mut at = HEADER;
        while at < self.bytes.len() {
            if self.fingerprint {
                return Err(Malformed::Fingerprint);
            }
            let (attribute, value, next) = attribute_at(self.bytes, at).ok_or(Malformed::Attribute)?;
            match attribute {
                Attribute::MESSAGE_INTEGRITY if self.integrity.is_none() && self.integrity_sha256.is_none() => {
                    self.integrity = Some(Signed { at, value });
                    self.readable = self.readable.min(at);
                }
                Attribute::MESSAGE_INTEGRITY_SHA256 if self.integrity_sha256.is_none() => {
                    self.integrity_sha256 = Some(Signed { at, value });
                    self.readable = self.readable.min(at);
                }
                Attribute::FINGERPRINT => {
                    self.check_fingerprint(at, value)?;
                    self.readable = self.readable.min(at);
                }
                _ => {}
            }
            at = next;
        }
        Ok(())
    }

    fn check_fingerprint(&mut self, at: usize, value: &[u8]) -> Result<(), Malformed> {
        // FINGERPRINT is the last attribute, so the length field already counts it and nothing else.
        let covered = self.bytes.get(..at).ok_or(Malformed::Fingerprint)?;
        if value != integrity::fingerprint(&[covered]).to_be_bytes() {
            return Err(Malformed::Fingerprint);
        }
        self.fingerprint = true;
        Ok(())
    }

    /// The attributes that count, in order; those after an integrity attribute are not among them.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { bytes: self.bytes.get(..self.readable).unwrap_or_default(), at: HEADER }
    }

    /// The value of the first attribute of this type.
    pub fn get(&self, wanted: Attribute) -> Option<&'a [u8]> {
        self.attributes().find(|(attribute, _)| *attribute == wanted).map(|(_, value)| value)
    }

    /// Where in the message's bytes the value of the first attribute of this type lies.
    pub fn range(&self, wanted: Attribute) -> Option<Range<usize>> {
        let mut attributes = self.attributes();
        loop {
            let start = attributes.at + 4;
            let (attribute, value) = attributes.next()?;
            if attribute == wanted {
                return Some(start..start + value.len());
            }
        }
    }

    /// The value of the first attribute of this type as text; a value that is not UTF-8 is a [`BadValue`].
    pub fn text(&self, wanted: Attribute) -> Option<Result<&'a str, BadValue>> {
        self.get(wanted).map(|value| core::str::from_utf8(value).map_err(|_| BadValue))
    }

    /// The value of the first attribute of this type, which must be `N` bytes long.
    pub fn bytes<const N: usize>(&self, wanted: Attribute) -> Option<Result<[u8; N], BadValue>> {
        self.get(wanted).map(|value| value.try_into().map_err(|_| BadValue))
    }

    /// The address in the first XOR-… attribute of this type.
    pub fn xor_address(&self, wanted: Attribute) -> Option<Result<SocketAddr, BadValue>> {
        self.get(wanted).map(|value| xor_address(value, &self.transaction))
    }

    /// Every comprehension-required attribute that is not in `understood` (RFC 8489 §6.3.1).
    pub fn unknown_required(&self, understood: &'a [Attribute]) -> impl Iterator<Item = Attribute> + use<'a> {
        self.attributes()
            .map(|(attribute, _)| attribute)
            .filter(move |attribute| attribute.is_comprehension_required() && !understood.contains(attribute))
    }

    /// Whether there is an integrity attribute of this kind.
    pub fn is_signed(&self, algorithm: Algorithm) -> bool {
        self.signature(algorithm).is_some()
    }

    /// Whether there is a FINGERPRINT; if so, it is right.
    pub fn has_fingerprint(&self) -> bool {
        self.fingerprint
    }

    /// Whether the message was signed with `key`. `false` without an integrity attribute, or with one of a wrong size.
    pub fn verify(&self, algorithm: Algorithm, key: &Key) -> bool {
        let Some(Signed { at, value }) = self.signature(algorithm) else { return false };
        let Some(covered) = self.bytes.get(..at) else { return false };
        let [t0, t1, _, _, rest @ ..] = covered else { return false };
        // The HMAC is over a length field that ends with the integrity attribute itself (RFC 8489 §14.5).
        let length = ((at - HEADER + 4 + value.len()) as u16).to_be_bytes();
        let parts: [&[u8]; 3] = [&[*t0, *t1], &length, rest];
        match algorithm {
            Algorithm::Sha1 => {
                value.len() == SHA1_LEN && integrity::equal(&integrity::hmac_sha1(key.expose(), &parts), value)
            }
            Algorithm::Sha256 => {
                let whole = integrity::hmac_sha256(key.expose(), &parts);
                // A shortened value of 16 to 32 bytes is allowed (RFC 8489 §14.6).
                let sizes = 16..=SHA256_LEN;
                sizes.contains(&value.len())
                    && value.len() % 4 == 0
                    && whole.get(..value.len()).is_some_and(|expected| integrity::equal(expected, value))
            }
        }
    }

    fn signature(&self, algorithm: Algorithm) -> Option<Signed<'a>> {
        match algorithm {
            Algorithm::Sha1 => self.integrity,
            Algorithm::Sha256 => self.integrity_sha256,
        }
    }
}

/// The readable attributes of a message, as (type, value without padding).
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (Attribute, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (attribute, value, next) = attribute_at(self.bytes, self.at)?;
        self.at = next;
        Some((attribute, value))
    }
}

/// The attribute at an offset, and where the next one starts. `None` when it does not fit, padding included.
fn attribute_at(bytes: &[u8], at: usize) -> Option<(Attribute, &[u8], usize)> {
    let [t0, t1, l0, l1, rest @ ..] = bytes.get(at..)? else { return None };
    let length = usize::from(u16::from_be_bytes([*l0, *l1]));
    let padded = length.next_multiple_of(4);
    if rest.len() < padded {
        return None;
    }
    Some((Attribute(u16::from_be_bytes([*t0, *t1])), rest.get(..length)?, at + 4 + padded))
}

/// Reads the value of an XOR-… address attribute (RFC 8489 §14.2).
pub fn xor_address(value: &[u8], transaction: &TransactionId) -> Result<SocketAddr, BadValue> {
    let cookie = MAGIC_COOKIE.to_be_bytes();
    match value {
        [_, 1, p0, p1, ip @ ..] => {
            let ip: [u8; 4] = ip.try_into().map_err(|_| BadValue)?;
            let ip = u32::from_be_bytes(ip) ^ MAGIC_COOKIE;
            Ok(SocketAddr::new(Ipv4Addr::from(ip).into(), xor_port([*p0, *p1], cookie)))
        }
        [_, 2, p0, p1, ip @ ..] => {
            let ip: [u8; 16] = ip.try_into().map_err(|_| BadValue)?;
            let ip = u128::from_be_bytes(ip) ^ mask_v6(transaction);
            Ok(SocketAddr::new(Ipv6Addr::from(ip).into(), xor_port([*p0, *p1], cookie)))
        }
        _ => Err(BadValue),
    }
}

/// Writes the value of an XOR-… address attribute; the result is its bytes and how many of them count.
pub fn xor_address_value(address: SocketAddr, transaction: &TransactionId) -> ([u8; 20], usize) {
    let mut value = [0; 20];
    let port = address.port() ^ (MAGIC_COOKIE >> 16) as u16;
    let (family, ip, len): (u8, [u8; 16], usize) = match address.ip() {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            let xored = (u32::from(ip) ^ MAGIC_COOKIE).to_be_bytes();
            bytes.iter_mut().zip(xored).for_each(|(to, from)| *to = from);
            (1, bytes, 8)
        }
        IpAddr::V6(ip) => (2, (u128::from(ip) ^ mask_v6(transaction)).to_be_bytes(), 20),
    };
    let [p0, p1] = port.to_be_bytes();
    let head = [0, family, p0, p1];
    value.iter_mut().zip(head.into_iter().chain(ip)).for_each(|(to, from)| *to = from);
    (value, len)
}

fn xor_port(port: [u8; 2], cookie: [u8; 4]) -> u16 {
    u16::from_be_bytes(port) ^ u16::from_be_bytes([cookie[0], cookie[1]])
}

fn mask_v6(transaction: &TransactionId) -> u128 {
    let mut mask = [0; 16];
    let bytes = MAGIC_COOKIE.to_be_bytes().into_iter().chain(*transaction);
    mask.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    u128::from_be_bytes(mask)
}
