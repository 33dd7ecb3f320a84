//! Messages of every shape: what the properties of the codec are asked about.

use proptest::collection::vec;
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};
use turnserver::wire::codes::{Attribute, Class, Method};
use turnserver::wire::integrity::{Algorithm, Key};
use turnserver::wire::reply::Reply;
use turnserver::wire::stun::TransactionId;

/// A message as a person would list it.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) method: Method,
    pub(crate) class: Class,
    pub(crate) transaction: TransactionId,
    pub(crate) attributes: Vec<(Attribute, Vec<u8>)>,
    pub(crate) signed: Option<(Algorithm, String)>,
    pub(crate) fingerprint: bool,
}

pub(crate) const REALM: &str = "example.org";
pub(crate) const USER: &str = "alice";

impl Sample {
    /// The bytes as this crate writes them.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut buf = vec![0xAA; 4096];
        let mut reply = Reply::new(&mut buf, self.method, self.class, self.transaction);
        for (attribute, value) in &self.attributes {
            reply.bytes(*attribute, value);
        }
        if let Some((algorithm, password)) = &self.signed {
            reply.sign(*algorithm, &key(*algorithm, password));
        }
        if self.fingerprint {
            reply.fingerprint();
        }
        let len = reply.finish().expect("a sample fits into 4,096 bytes");
        buf.truncate(len);
        buf
    }
}

pub(crate) fn key(algorithm: Algorithm, password: &str) -> Key {
    match algorithm {
        Algorithm::Sha1 => Key::md5(USER, REALM, password),
        Algorithm::Sha256 => Key::sha256(USER, REALM, password),
    }
}

pub(crate) fn sample() -> impl Strategy<Value = Sample> {
    let algorithm = prop_oneof![Just(Algorithm::Sha1), Just(Algorithm::Sha256)];
    let signed = prop::option::of((algorithm, "[a-z]{0,12}"));
    (0u16..0x1000, class(), any::<TransactionId>(), vec(attribute(), 0..8), signed, any::<bool>()).prop_map(
        |(method, class, transaction, attributes, signed, fingerprint)| Sample {
            method: Method::new(method),
            class,
            transaction,
            attributes,
            signed,
            fingerprint,
        },
    )
}

pub(crate) fn class() -> impl Strategy<Value = Class> {
    prop_oneof![Just(Class::Request), Just(Class::Indication), Just(Class::Success), Just(Class::Error)]
}

/// Any attribute but the three that end a message.
fn attribute() -> impl Strategy<Value = (Attribute, Vec<u8>)> {
    let ends = [Attribute::MESSAGE_INTEGRITY, Attribute::MESSAGE_INTEGRITY_SHA256, Attribute::FINGERPRINT];
    let known = prop::sample::select(Attribute::ALL);
    let kind = prop_oneof![known, any::<u16>().prop_map(Attribute)];
    (kind.prop_filter("ends the message", move |kind| !ends.contains(kind)), vec(any::<u8>(), 0..40))
}

pub(crate) fn address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)];
    (ip, any::<u16>()).prop_map(SocketAddr::from)
}
