//! What is read is written back as it was, and what is written is read back.

use super::script::Script;
use super::strict;
use turnserver::wire::codes::{Attribute, Class, Method};
use turnserver::wire::integrity::{Algorithm, Key};
use turnserver::wire::reply::Reply;
use turnserver::wire::stun::{Message, xor_address, xor_address_value};

/// Room for what is written; more attributes than fit are a story, too.
const ROOM: usize = 4096;

pub(crate) fn run(bytes: &[u8]) {
    if let Ok(message) = Message::parse(bytes) {
        reads_and_writes(&message, bytes);
    }
    writes_and_reads(Script::new(bytes));
}

fn reads_and_writes(message: &Message<'_>, bytes: &[u8]) {
    let mut buf = vec![0xAA; bytes.len()];
    let mut reply = Reply::new(&mut buf, message.method, message.class, message.transaction);
    for (attribute, value) in message.attributes() {
        reply.bytes(attribute, value);
    }
    let len = reply.finish().expect("it is no longer than it was");
    let again = Message::parse(&buf[..len]).expect("what we write is STUN");
    assert_eq!((again.method, again.class, again.transaction), (message.method, message.class, message.transaction));
    assert!(again.attributes().eq(message.attributes()));
    if len == bytes.len() && strict::is_padded_with_zeros(bytes) {
        assert_eq!(buf, bytes, "nothing was left out, and not a byte differs");
    }
}

fn writes_and_reads(mut script: Script<'_>) {
    let method = Method::new(script.u16());
    let class = *script.pick(&[Class::Request, Class::Indication, Class::Success, Class::Error]);
    let (transaction, ends, room) = (script.array(), script.byte(), usize::from(script.u16()) % ROOM);
    let key = Key::sha256("alice", "example.org", "secret");
    let mut buf = vec![0xAA; room];
    let mut reply = Reply::new(&mut buf, method, class, transaction);
    let mut written: Vec<(Attribute, Vec<u8>)> = Vec::new();
    while !script.is_over() {
        let attribute = match script.byte() {
            known @ 0..128 => Attribute::ALL[usize::from(known) % Attribute::ALL.len()],
            _ => Attribute(script.u16()),
        };
        if ENDS.contains(&attribute) {
            continue;
        }
        if script.yes() {
            let address = script.address();
            reply.xor_address(attribute, address);
            let (value, len) = xor_address_value(address, &transaction);
            assert_eq!(xor_address(&value[..len], &transaction), Ok(address));
            written.push((attribute, value[..len].into()));
        } else {
            let value = script.counted();
            reply.bytes(attribute, value);
            written.push((attribute, value.into()));
        }
    }
    let signed = [None, Some(Algorithm::Sha1), Some(Algorithm::Sha256)][usize::from(ends % 3)];
    if let Some(algorithm) = signed {
        reply.sign(algorithm, &key);
    }
    let has_fingerprint = ends >= 128;
    if has_fingerprint {
        reply.fingerprint();
    }
    let Some(len) = reply.finish() else { return };
    let bytes = &buf[..len];
    let message = Message::parse(bytes).expect("what we write is STUN");
    assert!(strict::is_padded_with_zeros(bytes));
    assert_eq!((message.method, message.class, message.transaction), (method, class, transaction));
    assert_eq!(message.has_fingerprint(), has_fingerprint);
    assert!(message.attributes().eq(written.iter().map(|(attribute, value)| (*attribute, value.as_slice()))));
    for algorithm in [Algorithm::Sha1, Algorithm::Sha256] {
        assert_eq!(message.verify(algorithm, &key), signed == Some(algorithm));
    }
}

/// What only [`Reply::sign`] and [`Reply::fingerprint`] write.
const ENDS: [Attribute; 3] =
    [Attribute::MESSAGE_INTEGRITY, Attribute::MESSAGE_INTEGRITY_SHA256, Attribute::FINGERPRINT];
