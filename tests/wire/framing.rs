//! Messages out of a byte stream: however the network cuts it, the same messages come out.

use crate::sample::{Sample, sample};
use proptest::collection::vec;
use proptest::prelude::*;
use turnserver::client;
use turnserver::wire::channel::{ChannelData, ChannelNumber};
use turnserver::wire::codes::MAGIC_COOKIE;
use turnserver::wire::stream::{self, Frame};

#[derive(Clone, Debug)]
enum Said {
    Stun(Sample),
    ChannelData(u16, Vec<u8>),
}

impl Said {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Stun(sample) => sample.encode(),
            Self::ChannelData(number, payload) => {
                client::channel_data(ChannelNumber::new(*number).expect("the strategy keeps the range"), payload)
            }
        }
    }
}

fn said() -> impl Strategy<Value = Said> {
    let channel_data = (0x4000u16..=0x7FFF, vec(any::<u8>(), 0..60));
    prop_oneof![
        sample().prop_map(Said::Stun),
        channel_data.prop_map(|(number, payload)| Said::ChannelData(number, payload)),
    ]
}

/// Takes every whole message off the front of `buffer`.
fn take_all(buffer: &mut Vec<u8>, messages: &mut Vec<Vec<u8>>) {
    loop {
        match stream::next(buffer) {
            Frame::Whole { message, next } => {
                assert!(message <= next && next <= buffer.len() && next % 4 == 0);
                messages.push(buffer[..message].to_vec());
                buffer.drain(..next);
            }
            Frame::Partial { total } => {
                assert!(total > buffer.len(), "waiting for bytes that are there already");
                return;
            }
            Frame::Noise => panic!("sound messages taken for noise"),
        }
    }
}

proptest! {
    #[test]
    fn s23_c20_any_cut_of_a_stream_gives_the_same_messages(said in vec(said(), 1..8), cuts in vec(1usize..50, 1..20)) {
        let mut stream = Vec::new();
        for message in &said {
            stream.extend(message.bytes());
            stream.resize(stream.len().next_multiple_of(4), 0x20); // what padding holds is nobody's business
        }
        let (mut buffer, mut messages) = (Vec::new(), Vec::new());
        let mut cuts = cuts.iter().cycle();
        while !stream.is_empty() {
            let cut = (*cuts.next().expect("a cycle has no end")).min(stream.len());
            buffer.extend(stream.drain(..cut));
            take_all(&mut buffer, &mut messages);
        }
        prop_assert!(buffer.is_empty());
        let expected: Vec<_> = said.iter().map(Said::bytes).collect();
        prop_assert_eq!(messages, expected);
    }

    #[test]
    fn noise_is_told_as_soon_as_it_cannot_be_anything_else(bytes in vec(any::<u8>(), 0..30)) {
        let is_possible = could_become_a_message(&bytes);
        prop_assert_eq!(stream::next(&bytes) == Frame::Noise, !is_possible);
    }

    #[test]
    fn a_wrong_cookie_is_told_at_its_first_wrong_byte(at in 0usize..4, wrong in 1u8..=255) {
        let mut bytes = vec![0, 1, 0xFF, 0xFC];
        bytes.extend(MAGIC_COOKIE.to_be_bytes());
        bytes[4 + at] ^= wrong;
        for len in 1..4 + at + 1 {
            let is_waiting = matches!(stream::next(&bytes[..len]), Frame::Partial { .. });
            prop_assert!(is_waiting);
        }
        prop_assert_eq!(stream::next(&bytes[..4 + at + 1]), Frame::Noise);
    }

    #[test]
    fn channel_data_read_is_channel_data_written(number in 0x4000u16..=0x7FFF, payload in vec(any::<u8>(), 0..100), padding in 0usize..4) {
        let number = ChannelNumber::new(number).expect("in the range");
        let mut bytes = client::channel_data(number, &payload);
        bytes.resize(bytes.len() + padding, 0);
        let head = ChannelData::parse(&bytes).expect("what we write we can read");
        prop_assert_eq!(head, ChannelData { number, length: payload.len() });
        for len in 0..4 + payload.len() {
            prop_assert!(ChannelData::parse(&bytes[..len]).is_err());
        }
    }
}

/// The rule of the stream, said another way: some bytes after these would make a message of them.
fn could_become_a_message(bytes: &[u8]) -> bool {
    let Some(first) = bytes.first() else { return true };
    if (0x40..0x80).contains(first) {
        return true;
    }
    let cookie = MAGIC_COOKIE.to_be_bytes();
    let is_cookie = bytes.iter().skip(4).zip(cookie).all(|(seen, right)| *seen == right);
    let is_length = bytes.len() < 4 || bytes[3].is_multiple_of(4);
    *first < 0x40 && is_length && is_cookie
}

#[test]
fn c28_a_length_is_believed_to_the_last_byte_and_no_further() {
    let longest = [0x40, 0, 0xFF, 0xFF];
    assert_eq!(stream::next(&longest), Frame::Partial { total: 65_540 });
    let mut whole = longest.to_vec();
    whole.resize(65_540, 0);
    assert_eq!(stream::next(&whole), Frame::Whole { message: 65_539, next: 65_540 });
}
