//! One packet in a slot with room before and behind it.
//!
//! Owns the borders of the packet inside its buffer. Framing moves a border and writes the head in place, so the
//! payload of a relayed packet is never copied. Never grows: the buffer is what the caller gave.
#![forbid(unsafe_code)]

use core::ops::Range;

/// Room kept before a packet: the largest head is that of a Data indication with an IPv6 peer, 20 + 24 + 4 bytes.
pub const HEADROOM: usize = 64;
/// The longest message on a stream: a head of 20 bytes and all that a 16-bit length can tell.
pub const MAX_MESSAGE: usize = 20 + 65_535 + 1;
/// Room kept behind it: padding to four bytes.
pub const TAILROOM: usize = 4;
/// The largest UDP payload over IPv4 (65,535 - 20 - 8).
pub const MAX_PAYLOAD: usize = 65_507;
/// Bytes of a slot. Any datagram and any answer fits into half of it; the whole is above the size from which allocators
/// map fresh pages, so that the part of a slot no packet has reached costs address space and no memory.
pub const SLOT: usize = 136 << 10;
const _: () = assert!(HEADROOM + MAX_PAYLOAD + TAILROOM <= SLOT, "a slot takes the largest datagram");

/// What of a packet's IP header crosses the relay (RFC 8656 §14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// DSCP and ECN: the traffic class, or the type of service.
    pub class: u8,
    /// Time to live, or hop limit; `None` is what the system likes.
    pub ttl: Option<u8>,
    /// Nobody on the way may cut the packet.
    pub whole: bool,
}

/// A slot and the borders of the packet in it.
#[derive(Debug)]
pub struct Packet {
    /// Those it came with, until somebody decides which it leaves with.
    pub marks: Marks,
    buf: Box<[u8]>,
    at: Range<usize>,
}

impl Packet {
    /// Makes a slot of `buf`; the packet in it is empty.
    pub fn new(buf: Box<[u8]>) -> Self {
        let start = HEADROOM.min(buf.len());
        Self { marks: Marks::default(), buf, at: start..start }
    }

    /// The packet's bytes.
    pub fn data(&self) -> &[u8] {
        self.buf.get(self.at.clone()).unwrap_or_default()
    }

    /// The packet's bytes, to be changed in place.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.buf.get_mut(self.at.clone()).unwrap_or_default()
    }

    /// The length of the packet in bytes.
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether the packet has no byte.
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// The whole space a packet may be received into; [`Packet::set_len`] tells how much of it was filled.
    pub fn space(&mut self) -> &mut [u8] {
        let start = HEADROOM.min(self.buf.len());
        let end = self.buf.len().saturating_sub(TAILROOM).min(start + MAX_MESSAGE).max(start);
        self.buf.get_mut(start..end).unwrap_or_default()
    }

    /// Says that the first `len` bytes of [`Packet::space`] are the packet.
    pub fn set_len(&mut self, len: usize) {
        let start = HEADROOM.min(self.buf.len());
        self.at = start..(start + len).min(self.buf.len());
    }

    /// Replaces the packet by a copy of `bytes`, cut at the size of the slot.
    pub fn fill(&mut self, bytes: &[u8]) {
        let space = self.space();
        let len = bytes.len().min(space.len());
        if let (Some(to), Some(from)) = (space.get_mut(..len), bytes.get(..len)) {
            to.copy_from_slice(from);
        }
        self.set_len(len);
        self.marks = Marks::default();
    }

    /// Makes the packet empty.
    pub fn clear(&mut self) {
        self.set_len(0);
    }

    /// Keeps only `range` of the packet, counted from its first byte. A range beyond the packet is cut to fit.
    pub fn keep(&mut self, range: Range<usize>) {
        let end = (self.at.start + range.end).min(self.at.end);
        let start = (self.at.start + range.start).min(end);
        self.at = start..end;
    }

    /// Puts `head` before the packet. `false`, and nothing changed, when the room before it is too small.
    #[must_use]
    pub fn prepend(&mut self, head: &[u8]) -> bool {
        let Some(start) = self.at.start.checked_sub(head.len()) else { return false };
        let Some(room) = self.buf.get_mut(start..self.at.start) else { return false };
        room.copy_from_slice(head);
        self.at.start = start;
        true
    }

    /// Appends zero bytes until the length is a multiple of four.
    pub fn pad(&mut self) {
        let padding = self.len().wrapping_neg() % 4;
        let Some(room) = self.buf.get_mut(self.at.end..self.at.end + padding) else { return };
        room.fill(0);
        self.at.end += padding;
    }
}
