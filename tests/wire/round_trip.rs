//! What is written comes back the same, whatever it is.

use crate::sample::{address, key, sample};
use proptest::prelude::*;
use turnserver::wire::codes::{Attribute, Class, ErrorCode, Method, message_type, split_type};
use turnserver::wire::integrity::Algorithm;
use turnserver::wire::reply::Reply;
use turnserver::wire::stun::{Family, Message, xor_address, xor_address_value};

#[test]
fn every_message_type_comes_apart_into_what_it_was_made_of() {
    for bits in 0..0x1000 {
        for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
            let whole = message_type(Method::new(bits), class);
            assert_eq!(whole & 0xC000, 0);
            assert_eq!(split_type(whole), (Method::new(bits), class));
        }
    }
}

proptest! {
    #[test]
    fn a_message_read_is_the_message_written(sample in sample()) {
        let bytes = sample.encode();
        let message = Message::parse(&bytes).expect("what we write we can read");
        prop_assert_eq!((message.method, message.class), (sample.method, sample.class));
        prop_assert_eq!(message.transaction, sample.transaction);
        prop_assert_eq!(message.has_fingerprint(), sample.fingerprint);
        let seen: Vec<_> = message.attributes().map(|(attribute, value)| (attribute, value.to_vec())).collect();
        prop_assert_eq!(&seen, &sample.attributes);
        for (attribute, _) in &sample.attributes {
            let first = sample.attributes.iter().find(|(kind, _)| kind == attribute).map(|(_, value)| value.as_slice());
            prop_assert_eq!(message.get(*attribute), first, "of equal attributes the first counts");
            let range = message.range(*attribute).expect("it is there");
            prop_assert_eq!(bytes.get(range), first);
        }
        for algorithm in [Algorithm::Sha1, Algorithm::Sha256] {
            let signed = sample.signed.as_ref().filter(|(with, _)| *with == algorithm);
            prop_assert_eq!(message.is_signed(algorithm), signed.is_some());
            let password = signed.map_or("none", |(_, password)| password);
            prop_assert_eq!(message.verify(algorithm, &key(algorithm, password)), signed.is_some());
            let other = key(algorithm, "a password that no sample has");
            prop_assert!(!message.verify(algorithm, &other));
        }
    }

    #[test]
    fn s13_padding_is_written_as_zeros_over_whatever_was_there(sample in sample()) {
        let bytes = sample.encode();
        let mut at = 20;
        while at < bytes.len() {
            let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
            let padding = &bytes[at + 4 + length..at + 4 + length.next_multiple_of(4)];
            prop_assert!(padding.iter().all(|byte| *byte == 0));
            at += 4 + length.next_multiple_of(4);
        }
        prop_assert_eq!(at, bytes.len());
    }

    #[test]
    fn an_address_read_is_the_address_written(address in address(), transaction: [u8; 12]) {
        let (value, len) = xor_address_value(address, &transaction);
        prop_assert_eq!(len, if address.is_ipv4() { 8 } else { 20 });
        prop_assert_eq!(xor_address(&value[..len], &transaction), Ok(address));
        for wrong in (0..len).chain(len + 1..=20) {
            prop_assert!(xor_address(&value[..wrong], &transaction).is_err());
        }
    }

    #[test]
    fn an_error_code_is_a_hundreds_digit_and_the_rest(code in 300u16..700, reason in "[ -~]{0,127}") {
        let mut buf = [0; 256];
        let len = Reply::error(&mut buf, Method::ALLOCATE, [1; 12], ErrorCode(code), &reason).finish().expect("it fits");
        let message = Message::parse(&buf[..len]).expect("what we write we can read");
        let value = message.get(Attribute::ERROR_CODE).expect("it is there");
        prop_assert_eq!(&value[..4], &[0, 0, (code / 100) as u8, (code % 100) as u8]);
        prop_assert_eq!(&value[4..], reason.as_bytes());
    }

    #[test]
    fn what_does_not_fit_is_told_and_never_cut(sample in sample(), room in 0usize..200) {
        let whole = sample.encode();
        let mut buf = vec![0; room];
        let mut reply = Reply::new(&mut buf, sample.method, sample.class, sample.transaction);
        for (attribute, value) in &sample.attributes {
            reply.bytes(*attribute, value);
        }
        if let Some((algorithm, password)) = &sample.signed {
            reply.sign(*algorithm, &key(*algorithm, password));
        }
        if sample.fingerprint {
            reply.fingerprint();
        }
        let finished = reply.finish();
        prop_assert_eq!(finished, (room >= whole.len()).then_some(whole.len()));
        if finished.is_some() {
            prop_assert_eq!(&buf[..whole.len()], whole.as_slice());
        }
    }
}

#[test]
fn every_kind_of_value_is_written_as_long_as_it_says() {
    let mut buf = [0xAA; 128];
    let mut reply = Reply::success(&mut buf, Method::ALLOCATE, [1; 12]);
    assert_eq!(reply.len(), 20);
    assert_eq!(reply.zeros(Attribute::PADDING, 6).len(), 20 + 4 + 8);
    assert_eq!(reply.types(Attribute::UNKNOWN_ATTRIBUTES, &[Attribute(1), Attribute(2), Attribute(3)]).len(), 32 + 12);
    reply.address_error(Attribute::ADDRESS_ERROR_CODE, Family::V6, ErrorCode(440), "no");
    assert_eq!(reply.len(), 44 + 12);
    let len = reply.finish().expect("it fits");
    let message = Message::parse(&buf[..len]).expect("what we write we can read");
    assert_eq!(message.get(Attribute::PADDING), Some(&[0; 6][..]));
    assert_eq!(message.get(Attribute::UNKNOWN_ATTRIBUTES), Some(&[0, 1, 0, 2, 0, 3][..]));
    assert_eq!(message.get(Attribute::ADDRESS_ERROR_CODE), Some(&[2, 0, 4, 40, b'n', b'o'][..]));
    let mut small = [0; 29];
    assert_eq!(Reply::success(&mut small, Method::BINDING, [1; 12]).zeros(Attribute::PADDING, 6).finish(), None);
}

#[test]
fn a_message_longer_than_its_length_field_can_tell_is_not_finished() {
    let mut buf = vec![0; 80_000];
    let value = vec![0; 40_000];
    let mut reply = Reply::success(&mut buf, Method::BINDING, [0; 12]);
    assert!(reply.bytes(Attribute::DATA, &value).finish().is_some());
    assert_eq!(reply.bytes(Attribute::DATA, &value).finish(), None);
    let mut reply = Reply::success(&mut buf, Method::BINDING, [0; 12]);
    assert_eq!(reply.bytes(Attribute::DATA, &[0; 65_536]).finish(), None);
}
