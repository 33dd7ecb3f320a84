//! No bytes make the parser panic, and no bytes that break a rule become a message.

use crate::sample::{key, sample};
use proptest::collection::vec;
use proptest::prelude::*;
use turnserver::wire::channel::ChannelData;
use turnserver::wire::codes::{Attribute, Class, MAGIC_COOKIE, Method};
use turnserver::wire::integrity::Algorithm;
use turnserver::wire::reply::Reply;
use turnserver::wire::stun::{Malformed, Message};
use turnserver::wire::{Kind, classify, is_http, stream};

/// Does to `bytes` whatever the crate can do to bytes from the network. Returns whether they are a STUN message.
fn look_at(bytes: &[u8]) -> bool {
    let _ = classify(bytes);
    let _ = stream::next(bytes);
    if let Ok(head) = ChannelData::parse(bytes) {
        assert!(4 + head.length <= bytes.len());
    }
    let Ok(message) = Message::parse(bytes) else { return false };
    let read: usize = message.attributes().map(|(_, value)| 4 + value.len().next_multiple_of(4)).sum();
    assert!(20 + read <= bytes.len());
    for (attribute, value) in message.attributes() {
        let range = message.range(attribute).expect("it is there");
        assert!(bytes.get(range).is_some());
        assert_eq!(
            message.bytes::<4>(attribute).is_some_and(|value| value.is_ok()),
            message.get(attribute).is_some_and(|value| value.len() == 4)
        );
        let _ = (message.text(attribute), message.xor_address(attribute), value);
    }
    for algorithm in [Algorithm::Sha1, Algorithm::Sha256] {
        let _ = message.verify(algorithm, &key(algorithm, "x"));
    }
    let _ = message.unknown_required(&[Attribute::DATA]).count();
    true
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
        look_at(&bytes);
    }

    #[test]
    fn no_bytes_behind_a_sound_header_make_it_panic(kind in 0u16..0x4000, body in vec(any::<u8>(), 0..200), lie in -8i32..8) {
        let mut bytes = kind.to_be_bytes().to_vec();
        let length = if lie < 4 { body.len() as i32 } else { body.len() as i32 + lie };
        bytes.extend((length as u16).to_be_bytes());
        bytes.extend(MAGIC_COOKIE.to_be_bytes());
        bytes.extend([9; 12]);
        bytes.extend(&body);
        let is_message = look_at(&bytes);
        prop_assert!(!is_message || length as usize == body.len());
    }

    #[test]
    fn no_flipped_bit_makes_it_panic_or_keeps_a_fingerprint_true(sample in sample()) {
        let bytes = sample.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            look_at(&flipped);
            // A flip may make the FINGERPRINT part of another value: then nothing promises anything. It is never true.
            prop_assert!(!Message::parse(&flipped).is_ok_and(|message| message.has_fingerprint()), "bit {bit}");
        }
    }

    #[test]
    fn s04_no_truncation_and_no_surplus_is_a_message(sample in sample(), surplus in vec(any::<u8>(), 1..8)) {
        let bytes = sample.encode();
        for len in 0..bytes.len() {
            prop_assert!(!look_at(&bytes[..len]));
        }
        let longer: Vec<u8> = bytes.iter().copied().chain(surplus).collect();
        prop_assert!(!look_at(&longer));
    }
}

#[test]
fn s01_the_two_top_bits_are_zero() {
    for top in [0x40, 0x80, 0xC0] {
        let mut bytes = binding();
        bytes[0] |= top;
        assert_eq!(Message::parse(&bytes).err(), Some(Malformed::Header));
    }
}

#[test]
fn s02_a_cookie_off_by_one_bit_is_no_cookie() {
    for bit in 0..32 {
        let mut bytes = binding();
        bytes[4 + bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Message::parse(&bytes).err(), Some(Malformed::Cookie));
    }
}

#[test]
fn s03_a_length_that_is_no_multiple_of_four_is_refused_even_where_the_bytes_are_there() {
    for extra in 1..4u8 {
        let mut bytes = binding();
        bytes[3] = extra;
        bytes.resize(20 + usize::from(extra), 0);
        assert_eq!(Message::parse(&bytes).err(), Some(Malformed::Header));
    }
}

#[test]
fn s14_an_attribute_past_the_end_breaks_the_message() {
    for length in [1u16, 5, 8, 0xFFFC, 0xFFFF] {
        let mut bytes = binding();
        bytes.extend([0x80, 0x22]);
        bytes.extend(length.to_be_bytes());
        bytes[3] = 4;
        assert_eq!(Message::parse(&bytes).err(), Some(Malformed::Attribute), "{length}");
    }
}

#[test]
fn the_first_signature_of_a_kind_counts_and_none_of_sha1_behind_sha256() {
    use Algorithm::{Sha1, Sha256};
    let signed = |signatures: &[(Algorithm, &str)]| {
        let mut buf = [0; 256];
        let mut request = Reply::new(&mut buf, Method::BINDING, Class::Request, [3; 12]);
        for (algorithm, password) in signatures {
            request.sign(*algorithm, &key(*algorithm, password));
        }
        let len = request.finish().expect("it fits");
        buf[..len].to_vec()
    };
    let is_by = |bytes: &[u8], algorithm, password| {
        let message = Message::parse(bytes).expect("signatures break nothing");
        message.verify(algorithm, &key(algorithm, password))
    };
    for algorithm in [Sha1, Sha256] {
        let bytes = signed(&[(algorithm, "first"), (algorithm, "second")]);
        assert!(is_by(&bytes, algorithm, "first") && !is_by(&bytes, algorithm, "second"), "{algorithm:?}");
    }
    let bytes = signed(&[(Sha1, "first"), (Sha256, "second")]);
    assert!(is_by(&bytes, Sha1, "first") && is_by(&bytes, Sha256, "second"));
    let bytes = signed(&[(Sha256, "first"), (Sha1, "second")]);
    assert!(is_by(&bytes, Sha256, "first"));
    assert!(!Message::parse(&bytes).expect("signatures break nothing").is_signed(Sha1));
}

#[test]
fn what_must_be_understood_and_is_not_is_named() {
    let mut buf = [0; 256];
    let mut request = Reply::new(&mut buf, Method::BINDING, Class::Request, [3; 12]);
    for attribute in [Attribute::USERNAME, Attribute(0x7777), Attribute::SOFTWARE, Attribute(0x8777)] {
        request.bytes(attribute, "Amélie".as_bytes());
    }
    let len = request.bytes(Attribute::REALM, &[0xFF]).finish().expect("it fits");
    let message = Message::parse(&buf[..len]).expect("what we write we can read");
    let unknown: Vec<_> = message.unknown_required(&[Attribute::USERNAME, Attribute::REALM]).collect();
    assert_eq!((message.len(), unknown), (len, vec![Attribute(0x7777)]));
    assert_eq!(message.text(Attribute::USERNAME), Some(Ok("Amélie")));
    assert!(message.text(Attribute::REALM).is_some_and(|text| text.is_err()));
    assert_eq!(message.text(Attribute::NONCE), None);
}

#[test]
fn s25_a_fingerprint_must_be_right() {
    let bytes = with_fingerprint();
    assert!(Message::parse(&bytes).expect("it is right").has_fingerprint());
    for bit in 0..32 {
        let mut bytes = bytes.clone();
        let at = bytes.len() - 4 + bit / 8;
        bytes[at] ^= 1 << (bit % 8);
        assert_eq!(Message::parse(&bytes).err(), Some(Malformed::Fingerprint));
    }
}

#[test]
fn s26_nothing_follows_a_fingerprint() {
    // The decision: a message that goes on behind its fingerprint is dropped, for nobody can say what covers the
    // rest.
    let mut bytes = with_fingerprint();
    bytes.extend([0x80, 0x22, 0, 0]);
    bytes[3] += 4;
    assert_eq!(Message::parse(&bytes).err(), Some(Malformed::Fingerprint));
}

#[test]
fn s47_the_first_byte_decides() {
    for first in 0..=255u8 {
        let expected = match first {
            0..=3 => Kind::Stun,
            20..=63 => Kind::Tls,
            64..=127 => Kind::ChannelData,
            _ => Kind::Other,
        };
        assert_eq!(classify(&[first, 1, 2, 3]), Some(expected));
    }
    assert_eq!(classify(&[]), None);
}

#[test]
fn c02_c17_channels_are_0x4000_to_0x7fff_and_no_others() {
    // The decision: those of RFC 5766, not of RFC 8656 alone.
    for number in 0..=u16::MAX {
        let [n0, n1] = number.to_be_bytes();
        let is_channel = ChannelData::parse(&[n0, n1, 0, 0]).is_ok();
        assert_eq!(is_channel, (0x4000..=0x7FFF).contains(&number), "{number:#06x}");
    }
}

fn binding() -> Vec<u8> {
    let mut buf = [0; 20];
    Reply::new(&mut buf, Method::BINDING, Class::Request, [3; 12]).finish().expect("it fits");
    buf.to_vec()
}

fn with_fingerprint() -> Vec<u8> {
    let mut buf = [0; 28];
    Reply::new(&mut buf, Method::BINDING, Class::Request, [3; 12]).fingerprint().finish().expect("it fits");
    buf.to_vec()
}

#[test]
fn a_browser_is_told_by_its_first_word_and_as_long_as_there_is_doubt_nothing_is() {
    for start in
        ["GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "CONNECT ", "OPTIONS ", "TRACE ", "PATCH ", "PRI * HTTP/2.0"]
    {
        for end in 0..start.len() {
            assert_eq!(is_http(&start.as_bytes()[..end]), None, "{start}");
        }
        assert_eq!(is_http(start.as_bytes()), Some(true));
        assert_eq!(is_http(format!("{start}/ HTTP/1.1\r\n").as_bytes()), Some(true));
    }
    for other in ["GETS", "get /", "QUIT ", "PRI *  ", "\0\x01", "@\0\0\x04"] {
        assert_eq!(is_http(other.as_bytes()), Some(false), "{other:?}");
    }
}
