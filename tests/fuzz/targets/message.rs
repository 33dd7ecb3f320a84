//! Any bytes as a message of STUN: every accessor gives an answer, and none reaches outside.

use super::strict;
use turnserver::wire::codes::Attribute;
use turnserver::wire::integrity::{Algorithm, Key};
use turnserver::wire::stun::{Message, xor_address};
use turnserver::wire::{self, Kind};

pub(crate) fn run(bytes: &[u8]) {
    let kind = wire::classify(bytes);
    assert_eq!(kind.is_none(), bytes.is_empty());
    let _ = xor_address(bytes, &[7; 12]);
    let Ok(message) = Message::parse(bytes) else { return };
    // The classifier knows the methods below 0x080 alone; the rest of the 14 bits are nobody's.
    assert!(kind == Some(Kind::Stun) || bytes[0] > 3);
    assert_eq!(message.len(), bytes.len());
    for (attribute, value) in message.attributes() {
        assert!(strict::attributes(bytes).any(|(kind, seen, _)| kind == attribute.0 && seen == value));
        looks_at(&message, bytes, attribute);
    }
    for attribute in Attribute::ALL {
        looks_at(&message, bytes, *attribute);
    }
    assert!(message.unknown_required(Attribute::ALL).all(|attribute| attribute.name().is_none()));
    let last = strict::attributes(bytes).last().map(|(kind, _, _)| Attribute(kind));
    assert_eq!(message.has_fingerprint(), last == Some(Attribute::FINGERPRINT));
    let key = Key::md5("alice", "example.org", "a password that no corpus has");
    for algorithm in [Algorithm::Sha1, Algorithm::Sha256] {
        assert!(!message.verify(algorithm, &key), "signed with a key that nobody has");
    }
}

fn looks_at(message: &Message<'_>, bytes: &[u8], attribute: Attribute) {
    let value = message.get(attribute);
    let range = message.range(attribute);
    assert_eq!(range.map(|range| &bytes[range]), value);
    let text = message.text(attribute);
    assert_eq!(text.is_some(), value.is_some());
    if let (Some(Ok(text)), Some(value)) = (text, value) {
        assert_eq!(text.as_bytes(), value);
    }
    let four = message.bytes::<4>(attribute).and_then(Result::ok);
    assert!(four.is_none_or(|four| value == Some(&four)));
    assert_eq!(message.xor_address(attribute).is_some(), value.is_some());
    let _ = format!("{attribute:?}");
}
