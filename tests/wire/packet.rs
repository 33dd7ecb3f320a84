//! The borders of a packet in its slot, against a model that copies.

use proptest::collection::vec;
use proptest::prelude::*;
use std::ops::Range;
use turnserver::wire::packet::{HEADROOM, MAX_MESSAGE, MAX_PAYLOAD, Packet, SLOT, TAILROOM};

#[derive(Clone, Debug)]
enum Move {
    Fill(Vec<u8>),
    Keep(Range<usize>),
    Prepend(Vec<u8>),
    Pad,
    SetLen(usize),
    Clear,
    Turn(u8),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        vec(any::<u8>(), 0..80).prop_map(Move::Fill),
        (0usize..100, 0usize..100).prop_map(|(a, b)| Move::Keep(a.min(b)..a.max(b))),
        vec(any::<u8>(), 0..50).prop_map(Move::Prepend),
        Just(Move::Pad),
        (0usize..100).prop_map(Move::SetLen),
        Just(Move::Clear),
        any::<u8>().prop_map(Move::Turn),
    ]
}

/// A slot that copies: bytes before, the packet, and what lies behind.
#[derive(Debug)]
struct Model {
    slot: Vec<u8>,
    start: usize,
    len: usize,
}

impl Model {
    fn data(&self) -> &[u8] {
        &self.slot[self.start..self.start + self.len]
    }

    fn set_len(&mut self, len: usize) {
        self.start = HEADROOM.min(self.slot.len());
        self.len = len.min(self.slot.len() - self.start);
    }

    fn make(&mut self, what: &Move) {
        match what {
            Move::Fill(bytes) => {
                let start = HEADROOM.min(self.slot.len());
                let room = (self.slot.len() - start).saturating_sub(TAILROOM);
                let len = bytes.len().min(room);
                self.slot[start..start + len].copy_from_slice(&bytes[..len]);
                self.set_len(len);
            }
            Move::Keep(range) => {
                let end = range.end.min(self.len);
                let start = range.start.min(end);
                (self.start, self.len) = (self.start + start, end - start);
            }
            Move::Prepend(head) => {
                if head.len() <= self.start {
                    self.start -= head.len();
                    self.len += head.len();
                    self.slot[self.start..self.start + head.len()].copy_from_slice(head);
                }
            }
            Move::Pad => {
                let padded = self.len.next_multiple_of(4);
                if self.start + padded <= self.slot.len() {
                    self.slot[self.start + self.len..self.start + padded].fill(0);
                    self.len = padded;
                }
            }
            Move::SetLen(len) => self.set_len(*len),
            Move::Clear => self.set_len(0),
            Move::Turn(bits) => {
                self.slot[self.start..self.start + self.len].iter_mut().for_each(|byte| *byte ^= bits);
            }
        }
    }
}

fn make(packet: &mut Packet, what: &Move) -> bool {
    match what {
        Move::Fill(bytes) => packet.fill(bytes),
        Move::Keep(range) => packet.keep(range.clone()),
        Move::Prepend(head) => return packet.prepend(head),
        Move::Pad => packet.pad(),
        Move::SetLen(len) => packet.set_len(*len),
        Move::Clear => packet.clear(),
        Move::Turn(bits) => packet.data_mut().iter_mut().for_each(|byte| *byte ^= bits),
    }
    true
}

proptest! {
    #[test]
    fn every_move_of_a_border_is_what_a_copy_would_do(size in 0usize..200, moves in vec(moves(), 0..30)) {
        let mut packet = Packet::new(vec![0xAA; size].into());
        let mut model = Model { slot: vec![0xAA; size], start: HEADROOM.min(size), len: 0 };
        for what in moves {
            let before = packet.data().to_vec();
            let fits = make(&mut packet, &what);
            model.make(&what);
            prop_assert_eq!(packet.data(), model.data(), "{:?}", what);
            prop_assert_eq!((packet.len(), packet.is_empty()), (model.len, model.len == 0));
            if !fits {
                prop_assert_eq!(packet.data(), before.as_slice(), "a head that does not fit changes nothing");
            }
        }
    }

    #[test]
    fn the_payload_stays_where_it_is_when_heads_change(payload in vec(any::<u8>(), 0..100), head in vec(any::<u8>(), 0..=48)) {
        let mut packet = Packet::new(vec![0xAA; SLOT].into());
        packet.fill(&payload);
        let place = packet.data().as_ptr();
        prop_assert!(packet.prepend(&head));
        packet.keep(head.len()..head.len() + payload.len());
        prop_assert_eq!(packet.data(), payload.as_slice());
        prop_assert_eq!(packet.data().as_ptr(), place);
    }
}

#[test]
fn a_slot_takes_the_longest_message_of_a_stream_and_no_byte_more() {
    let longest = (20 + usize::from(u16::MAX)).next_multiple_of(4);
    assert_eq!(MAX_MESSAGE, longest);
    assert_eq!(Packet::new(vec![0; SLOT].into()).space().len(), longest);
    // A slot that is just too small for that is used to its end, but for the room of the padding.
    let size = HEADROOM + longest + TAILROOM;
    assert_eq!(Packet::new(vec![0; size].into()).space().len(), longest);
    assert_eq!(Packet::new(vec![0; size - 1].into()).space().len(), longest - 1);
}

#[test]
fn the_largest_datagram_takes_the_largest_head_and_its_padding() {
    let mut packet = Packet::new(vec![0xAA; SLOT].into());
    packet.fill(&vec![1; MAX_PAYLOAD]);
    packet.pad();
    assert!(packet.prepend(&[2; 48]));
    assert_eq!(packet.len(), 48 + MAX_PAYLOAD.next_multiple_of(4));
    assert_eq!(packet.data().last(), Some(&0));
}
