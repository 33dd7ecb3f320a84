//! Three codecs, the same bytes: ours, webrtc-rs's `stun`, and `stun-types`. Whoever disagrees is wrong about the RFC.

use crate::sample::{REALM, Sample, USER, address, key, sample};
use proptest::prelude::*;
use stun::message::{Getter, Setter};
use stun_types::attribute::{Attribute as _, AttributeType, RawAttribute};
use stun_types::message::{
    IntegrityAlgorithm, LongTermKeyCredentials, MessageClass, MessageHeader, MessageType, MessageWrite,
    MessageWriteExt, MessageWriteVec,
};
use turnserver::wire::codes::{Attribute, Class, Method, message_type};
use turnserver::wire::integrity::Algorithm;
use turnserver::wire::reply::Reply;
use turnserver::wire::stun::Message;

type Attributes = Vec<(u16, Vec<u8>)>;

fn ours(bytes: &[u8]) -> Attributes {
    let message = Message::parse(bytes).expect("a sound message");
    message.attributes().map(|(attribute, value)| (attribute.0, value.to_vec())).collect()
}

/// Only the attributes that our reader shows: `stun` lists the three that end a message, too.
fn without_ends(attributes: impl Iterator<Item = (u16, Vec<u8>)>) -> Attributes {
    let ends = [Attribute::MESSAGE_INTEGRITY, Attribute::MESSAGE_INTEGRITY_SHA256, Attribute::FINGERPRINT];
    attributes.take_while(|(kind, _)| !ends.contains(&Attribute(*kind))).collect()
}

fn stun_decode(bytes: &[u8]) -> stun::message::Message {
    let mut message = stun::message::Message::new();
    message.unmarshal_binary(bytes).expect("`stun` reads it");
    message
}

fn stun_attributes(message: &stun::message::Message) -> Attributes {
    without_ends(message.attributes.0.iter().map(|raw| (raw.typ.value(), raw.value.clone())))
}

fn stun_key(password: &str) -> stun::integrity::MessageIntegrity {
    stun::integrity::MessageIntegrity::new_long_term_integrity(USER.into(), REALM.into(), password.into())
}

fn types_key(password: &str) -> LongTermKeyCredentials {
    LongTermKeyCredentials::new(USER.into(), password.into(), REALM.into())
}

fn types_attributes(message: &stun_types::message::Message<'_>) -> Attributes {
    without_ends(message.iter_attributes().map(|(_, raw)| (raw.get_type().value(), raw.value.to_vec())))
}

fn types_class(class: Class) -> MessageClass {
    match class {
        Class::Request => MessageClass::Request,
        Class::Indication => MessageClass::Indication,
        Class::Success => MessageClass::Success,
        Class::Error => MessageClass::Error,
    }
}

/// `stun` knows no MESSAGE-INTEGRITY-SHA256: such samples are signed with SHA-1 there.
fn with_sha1(mut sample: Sample) -> Sample {
    if let Some((algorithm, _)) = &mut sample.signed {
        *algorithm = Algorithm::Sha1;
    }
    sample
}

proptest! {
    #[test]
    fn webrtc_rs_reads_what_we_write(sample in sample().prop_map(with_sha1)) {
        let bytes = sample.encode();
        let mut theirs = stun_decode(&bytes);
        prop_assert_eq!(theirs.transaction_id.0, sample.transaction);
        prop_assert_eq!(theirs.typ.value(), message_type(sample.method, sample.class));
        prop_assert_eq!(stun_attributes(&theirs), ours(&bytes));
        if let Some((_, password)) = &sample.signed {
            prop_assert!(stun_key(password).check(&mut theirs).is_ok());
            prop_assert!(stun_key("wrong one").check(&mut theirs).is_err());
        }
        if sample.fingerprint {
            prop_assert!(stun::fingerprint::FINGERPRINT.check(&theirs).is_ok());
        }
    }

    #[test]
    fn we_read_what_webrtc_rs_writes(sample in sample().prop_map(with_sha1)) {
        let mut theirs = stun::message::Message::new();
        theirs.transaction_id = stun::agent::TransactionId(sample.transaction);
        theirs.typ.read_value(message_type(sample.method, sample.class));
        theirs.write_header();
        for (attribute, value) in &sample.attributes {
            theirs.add(stun::attributes::AttrType(attribute.0), value);
        }
        if let Some((_, password)) = &sample.signed {
            stun_key(password).add_to(&mut theirs).expect("`stun` signs it");
        }
        if sample.fingerprint {
            stun::fingerprint::FINGERPRINT.add_to(&mut theirs).expect("`stun` takes its fingerprint");
        }
        let message = Message::parse(&theirs.raw).expect("we read what `stun` writes");
        prop_assert_eq!((message.method, message.class, message.transaction), (sample.method, sample.class, sample.transaction));
        prop_assert_eq!(ours(&theirs.raw), stun_attributes(&theirs));
        prop_assert_eq!(message.has_fingerprint(), sample.fingerprint);
        let password = sample.signed.as_ref().map_or("", |(_, password)| password);
        prop_assert_eq!(message.verify(Algorithm::Sha1, &key(Algorithm::Sha1, password)), sample.signed.is_some());
        prop_assert!(!message.verify(Algorithm::Sha1, &key(Algorithm::Sha1, "wrong one")));
    }

    #[test]
    fn stun_types_reads_what_we_write(sample in sample()) {
        let bytes = sample.encode();
        let theirs = stun_types::message::Message::from_bytes(&bytes).expect("`stun-types` reads it");
        prop_assert_eq!(theirs.method().value(), sample.method.bits());
        prop_assert_eq!(theirs.class(), types_class(sample.class));
        prop_assert_eq!(types_attributes(&theirs), ours(&bytes));
        if let Some((_, password)) = &sample.signed {
            prop_assert!(theirs.validate_integrity(&types_key(password).into()).is_ok());
            prop_assert!(theirs.validate_integrity(&types_key("wrong one").into()).is_err());
        }
    }

    #[test]
    fn we_read_what_stun_types_writes(sample in sample()) {
        let method = stun_types::message::Method::new(sample.method.bits());
        let kind = MessageType::from_class_method(types_class(sample.class), method);
        let mut id = [0; 16];
        id[4..].copy_from_slice(&sample.transaction);
        let mut theirs =
            stun_types::message::Message::builder(kind, u128::from_be_bytes(id).into(), MessageWriteVec::new());
        for (attribute, value) in &sample.attributes {
            let raw = RawAttribute::new(AttributeType::new(attribute.0), value);
            theirs.add_attribute(&raw).expect("`stun-types` takes it");
        }
        if let Some((algorithm, password)) = &sample.signed {
            let algorithm = match algorithm {
                Algorithm::Sha1 => IntegrityAlgorithm::Sha1,
                Algorithm::Sha256 => IntegrityAlgorithm::Sha256,
            };
            theirs.add_message_integrity(&types_key(password).into(), algorithm).expect("`stun-types` signs it");
        }
        if sample.fingerprint {
            theirs.add_fingerprint().expect("`stun-types` takes its fingerprint");
        }
        let bytes = theirs.finish();
        prop_assert_eq!(&bytes, &sample.encode(), "two writers, the same bytes");
    }

    #[test]
    fn all_three_name_the_same_address(address in address(), transaction: [u8; 12]) {
        let mut buf = [0; 64];
        let len = Reply::success(&mut buf, Method::BINDING, transaction)
            .xor_address(Attribute::XOR_MAPPED_ADDRESS, address)
            .finish()
            .expect("it fits");
        let mut theirs = stun::xoraddr::XorMappedAddress::default();
        theirs.get_from(&stun_decode(&buf[..len])).expect("`stun` reads it");
        prop_assert_eq!((theirs.ip, theirs.port), (address.ip(), address.port()));
        let other = stun_types::message::Message::from_bytes(&buf[..len]).expect("`stun-types` reads it");
        let mapped = other.attribute::<stun_types::attribute::XorMappedAddress>().expect("it is there");
        prop_assert_eq!(mapped.addr(other.transaction_id()), address);
    }

    /// Flipped bits: where all can read the message, all say the same about its signature.
    #[test]
    fn all_agree_about_a_forged_signature(sample in sample().prop_map(with_sha1), bit in 0usize..4096) {
        let Some((_, password)) = &sample.signed else { return Ok(()) };
        let mut bytes = sample.encode();
        let bit = 160 + bit % ((bytes.len() - 20) * 8); // the head is not in question here
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(message) = Message::parse(&bytes) else { return Ok(()) };
        let verdict = message.verify(Algorithm::Sha1, &key(Algorithm::Sha1, password));
        let Ok(other) = stun_types::message::Message::from_bytes(&bytes) else { return Ok(()) };
        prop_assert_eq!(MessageHeader::from_bytes(&bytes).map(|head| usize::from(head.data_length()) + 20).ok(), Some(bytes.len()));
        prop_assert_eq!(other.validate_integrity(&types_key(password).into()).is_ok(), verdict);
    }
}
