//! Writes a message into the caller's buffer: head, attributes, integrity, fingerprint, in this order.
//!
//! Keeps the length field true after every attribute, pads with zeros (RFC 8489 §14), and never allocates. What does
//! not fit makes [`Reply::finish`] return `None`; nothing is ever cut in the middle.
#![forbid(unsafe_code)]

use super::codes::{Attribute, Class, ErrorCode, HEADER, MAGIC_COOKIE, Method, message_type};
use super::integrity::{self, Algorithm, Key, SHA1_LEN, SHA256_LEN};
use super::stun::{Family, TransactionId, xor_address_value};
use core::net::{IpAddr, SocketAddr};

/// A message being written.
#[derive(Debug)]
pub struct Reply<'b> {
    buf: &'b mut [u8],
    len: usize,
    transaction: TransactionId,
    overflow: bool,
}

impl<'b> Reply<'b> {
    /// Starts a message of any class.
    pub fn new(buf: &'b mut [u8], method: Method, class: Class, transaction: TransactionId) -> Self {
        let mut reply = Self { buf, len: 0, transaction, overflow: false };
        reply.put(&message_type(method, class).to_be_bytes());
        reply.put(&[0, 0]);
        reply.put(&MAGIC_COOKIE.to_be_bytes());
        reply.put(&transaction);
        reply
    }

    /// Starts a success response.
    pub fn success(buf: &'b mut [u8], method: Method, transaction: TransactionId) -> Self {
        Self::new(buf, method, Class::Success, transaction)
    }

    /// Starts an error response; ERROR-CODE is its first attribute (RFC 8489 §14.8).
    pub fn error(buf: &'b mut [u8], method: Method, transaction: TransactionId, code: ErrorCode, reason: &str) -> Self {
        let mut reply = Self::new(buf, method, Class::Error, transaction);
        let head = [0, 0, (code.0 / 100) as u8, (code.0 % 100) as u8];
        reply.attribute(Attribute::ERROR_CODE, &[&head, reason.as_bytes()]);
        reply
    }

    /// Adds an attribute whose value is `value`.
    pub fn bytes(&mut self, attribute: Attribute, value: &[u8]) -> &mut Self {
        self.attribute(attribute, &[value])
    }

    /// Adds a 32-bit number.
    pub fn number(&mut self, attribute: Attribute, value: u32) -> &mut Self {
        self.bytes(attribute, &value.to_be_bytes())
    }

    /// Adds an address as it is (RFC 8489 §14.1).
    pub fn address(&mut self, attribute: Attribute, address: SocketAddr) -> &mut Self {
        let port = address.port().to_be_bytes();
        match address.ip() {
            IpAddr::V4(ip) => self.attribute(attribute, &[&[0, 1], &port, &ip.octets()]),
            IpAddr::V6(ip) => self.attribute(attribute, &[&[0, 2], &port, &ip.octets()]),
        }
    }

    /// Adds ADDRESS-ERROR-CODE: which family of relay address is not to be had, and why (RFC 8656 §18.12).
    pub fn address_error(&mut self, attribute: Attribute, family: Family, code: ErrorCode, why: &str) -> &mut Self {
        let head = [family.number(), 0, (code.0 / 100) as u8, (code.0 % 100) as u8];
        self.attribute(attribute, &[&head, why.as_bytes()])
    }

    /// How many bytes are written so far.
    #[expect(clippy::len_without_is_empty, reason = "a message has at least its header")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds an attribute of `count` zero bytes.
    pub fn zeros(&mut self, attribute: Attribute, count: usize) -> &mut Self {
        self.header(attribute, count);
        match self.buf.get_mut(self.len..self.len + count) {
            Some(room) => {
                room.fill(0);
                self.len += count;
            }
            None => self.overflow = true,
        }
        self.pad()
    }

    /// Adds an address, combined with cookie and transaction id (RFC 8489 §14.2).
    pub fn xor_address(&mut self, attribute: Attribute, address: SocketAddr) -> &mut Self {
        let (value, len) = xor_address_value(address, &self.transaction);
        self.bytes(attribute, value.get(..len).unwrap_or_default())
    }

    /// Adds a list of attribute types (UNKNOWN-ATTRIBUTES).
    pub fn types(&mut self, attribute: Attribute, types: &[Attribute]) -> &mut Self {
        self.header(attribute, types.len() * 2);
        types.iter().for_each(|listed| self.put(&listed.0.to_be_bytes()));
        self.pad()
    }

    /// Signs what is written so far.
    pub fn sign(&mut self, algorithm: Algorithm, key: &Key) -> &mut Self {
        let (attribute, size) = match algorithm {
            Algorithm::Sha1 => (Attribute::MESSAGE_INTEGRITY, SHA1_LEN),
            Algorithm::Sha256 => (Attribute::MESSAGE_INTEGRITY_SHA256, SHA256_LEN),
        };
        let covered = self.len;
        // The HMAC is over a length field that already counts the integrity attribute (RFC 8489 §14.5).
        self.set_length(covered + 4 + size);
        let text = self.buf.get(..covered).unwrap_or_default();
        match algorithm {
            Algorithm::Sha1 => self.bytes(attribute, &integrity::hmac_sha1(key.expose(), &[text])),
            Algorithm::Sha256 => self.bytes(attribute, &integrity::hmac_sha256(key.expose(), &[text])),
        }
    }

    /// Adds FINGERPRINT; nothing may follow it.
    pub fn fingerprint(&mut self) -> &mut Self {
        self.set_length(self.len + 8);
        let crc = integrity::fingerprint(&[self.buf.get(..self.len).unwrap_or_default()]);
        self.number(Attribute::FINGERPRINT, crc)
    }

    /// The length of the finished message in bytes; `None` when it did not fit.
    pub fn finish(&self) -> Option<usize> {
        (!self.overflow).then_some(self.len)
    }

    fn attribute(&mut self, attribute: Attribute, parts: &[&[u8]]) -> &mut Self {
        self.header(attribute, parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| self.put(part));
        self.pad()
    }

    fn header(&mut self, attribute: Attribute, length: usize) {
        self.put(&attribute.0.to_be_bytes());
        // What is too long for this field is too long for the message's: `set_length` says so.
        self.put(&u16::try_from(length).unwrap_or_default().to_be_bytes());
    }

    fn pad(&mut self) -> &mut Self {
        let padding = self.len.wrapping_neg() % 4;
        self.put([0; 3].get(..padding).unwrap_or_default());
        self.set_length(self.len);
        self
    }

    fn put(&mut self, bytes: &[u8]) {
        let Some(room) = self.buf.get_mut(self.len..self.len + bytes.len()) else {
            self.overflow = true;
            return;
        };
        room.copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn set_length(&mut self, end: usize) {
        let Ok(length) = u16::try_from(end - HEADER.min(end)) else {
            self.overflow = true;
            return;
        };
        if let Some([_, _, l0, l1, ..]) = self.buf.get_mut(..end.min(4)) {
            [*l0, *l1] = length.to_be_bytes();
        }
    }
}
