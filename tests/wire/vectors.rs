//! The vectors of RFC 5769 and RFC 8489 B.1, and some of our own: bytes that every implementation must agree on.

use serde_json::Value;
use turnserver::turn::credential::{self, Secret};
use turnserver::wire::channel::ChannelData;
use turnserver::wire::codes::{Attribute, Class, Method};
use turnserver::wire::integrity::{Algorithm, Key, SHA1_LEN, SHA256_LEN, userhash};
use turnserver::wire::reply::Reply;
use turnserver::wire::stun::{Malformed, Message};

const ICE_CONTROLLED: Attribute = Attribute(0x8029);

#[test]
fn s13_s15_every_stun_vector_says_what_its_source_says() {
    for vector in stun_vectors() {
        let bytes = hex(&vector, "bytes");
        let message = match Message::parse(&bytes) {
            Ok(message) => message,
            Err(why) => {
                assert_eq!((text(&vector, "expect"), why), (Some("discard"), Malformed::Header), "{}", id(&vector));
                continue;
            }
        };
        assert_ne!(text(&vector, "expect"), Some("discard"), "{}", id(&vector));
        assert_eq!(message.transaction.as_slice(), hex(&vector, "transaction_id"), "{}", id(&vector));
        assert_eq!(message.has_fingerprint(), vector["fingerprint"] == true, "{}", id(&vector));
        let attributes = [
            ("username", Attribute::USERNAME),
            ("realm", Attribute::REALM),
            ("nonce", Attribute::NONCE),
            ("software", Attribute::SOFTWARE),
        ];
        for (name, attribute) in attributes {
            let (Some(expected), Some(seen)) = (text(&vector, name), message.text(attribute)) else { continue };
            assert_eq!(seen, Ok(expected), "{} of {}", name, id(&vector));
        }
        if let Some(priority) = vector.get("priority") {
            assert_eq!(message.get(Attribute::PRIORITY), Some(unhex(priority).as_slice()));
            assert_eq!(message.get(ICE_CONTROLLED), Some(hex(&vector, "ice_controlled").as_slice()));
        }
        if let Some(ip) = text(&vector, "xor_mapped_address") {
            let address =
                message.xor_address(Attribute::XOR_MAPPED_ADDRESS).expect("it is there").expect("it is sound");
            assert_eq!(address.ip().to_string(), ip);
            assert_eq!(u64::from(address.port()), vector["xor_mapped_port"]);
        }
    }
}

#[test]
fn a22_s13_s28_every_stun_vector_is_verified_with_its_own_key_and_no_other() {
    for vector in stun_vectors() {
        let bytes = hex(&vector, "bytes");
        let Ok(message) = Message::parse(&bytes) else { continue };
        let (algorithm, key) = key_of(&vector);
        assert!(message.is_signed(algorithm), "{}", id(&vector));
        assert_eq!(message.verify(algorithm, &key), vector.get("valid") != Some(&false.into()), "{}", id(&vector));
        let other = Key::from_bytes(b"another key").expect("it is short");
        assert!(!message.verify(algorithm, &other), "{}", id(&vector));
    }
}

#[test]
fn s28_a_signed_vector_dies_of_any_flipped_bit_in_what_it_covers() {
    for vector in stun_vectors() {
        let (algorithm, key) = key_of(&vector);
        let bytes = hex(&vector, "bytes");
        let Ok(message) = Message::parse(&bytes) else { continue };
        let covered = 20 + message.attributes().map(|(_, value)| 4 + value.len().next_multiple_of(4)).sum::<usize>();
        for bit in 0..covered * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let is_good = Message::parse(&bytes).is_ok_and(|message| message.verify(algorithm, &key));
            assert!(!is_good, "bit {bit} of {}", id(&vector));
        }
    }
}

/// RFC 5769 §2.1 pads with spaces, so its bytes cannot come out again; the others of one piece can.
#[test]
fn what_is_written_again_is_the_same_bytes() {
    let mut written = 0;
    for vector in stun_vectors() {
        let is_whole =
            !id(&vector).contains("trailing") && !id(&vector).contains("trunc") && vector.get("valid").is_none();
        if !is_whole || id(&vector) == "rfc5769-2.1" {
            continue;
        }
        let bytes = hex(&vector, "bytes");
        let Ok(message) = Message::parse(&bytes) else { continue };
        let (algorithm, key) = key_of(&vector);
        let mut again = [0xAA; 512];
        let mut reply = Reply::new(&mut again, message.method, message.class, message.transaction);
        if let Some(Ok(mapped)) = message.xor_address(Attribute::XOR_MAPPED_ADDRESS) {
            reply.bytes(Attribute::SOFTWARE, message.get(Attribute::SOFTWARE).expect("the RFC has one"));
            reply.xor_address(Attribute::XOR_MAPPED_ADDRESS, mapped);
        } else {
            message.attributes().for_each(|(attribute, value)| {
                reply.bytes(attribute, value);
            });
        }
        reply.sign(algorithm, &key);
        if message.has_fingerprint() {
            reply.fingerprint();
        }
        let len = reply.finish().expect("512 bytes hold any vector");
        // RFC 5769 §2.2 pads SOFTWARE with a space: everything but padding and what covers it is the same.
        if id(&vector).starts_with("rfc5769-2.2") || id(&vector).starts_with("rfc5769-2.3") {
            let end = len - 8 - 4 - SHA1_LEN;
            let is_padding = |at: usize| at == 20 + 4 + 11;
            assert!((0..end).all(|at| is_padding(at) || again[at] == bytes[at]), "{}", id(&vector));
            assert_eq!(len, bytes.len());
        } else {
            assert_eq!(&again[..len], bytes, "{}", id(&vector));
        }
        written += 1;
    }
    assert_eq!(written, 7);
}

#[test]
fn s29_what_stands_after_the_signature_is_not_there() {
    for (name, hidden) in [("lifetime", Attribute::LIFETIME), ("unknown-required", Attribute(0x7777))] {
        let vector = stun_vectors().into_iter().find(|vector| id(vector).ends_with(name)).expect("it is in the file");
        let bytes = hex(&vector, "bytes");
        let message = Message::parse(&bytes).expect("it is sound");
        assert_eq!(message.get(hidden), None);
        assert_eq!(message.unknown_required(&[]).find(|seen| *seen == hidden), None);
    }
}

#[test]
fn s31_a_shortened_sha256_of_sixteen_bytes_counts_and_of_twelve_does_not() {
    for (name, counts) in [("own-allocate-mi256", true), ("own-allocate-mi256-trunc16", true)]
        .into_iter()
        .chain([("own-allocate-mi256-trunc12", false)])
    {
        let vector = stun_vectors().into_iter().find(|vector| id(vector) == name).expect("it is in the file");
        let bytes = hex(&vector, "bytes");
        let (algorithm, key) = key_of(&vector);
        assert_eq!(Message::parse(&bytes).expect("it is sound").verify(algorithm, &key), counts, "{name}");
    }
}

#[test]
fn s31_s32_an_integrity_value_of_a_wrong_length_never_counts() {
    let key = Key::md5("alice", "example.org", "secret");
    for (algorithm, attribute, right) in [
        (Algorithm::Sha1, Attribute::MESSAGE_INTEGRITY, vec![SHA1_LEN]),
        (Algorithm::Sha256, Attribute::MESSAGE_INTEGRITY_SHA256, vec![16, 20, 24, 28, SHA256_LEN]),
    ] {
        for len in 0..=40usize {
            // The true HMAC for a message whose integrity value has this length, cut or stretched to it.
            let mut buf = [0; 256];
            let mut reply = Reply::new(&mut buf, Method::ALLOCATE, Class::Request, [7; 12]);
            reply.bytes(Attribute::USERNAME, b"alice").bytes(attribute, &[0; 40][..len]);
            let end = reply.finish().expect("it fits");
            let at = 20 + 4 + 8;
            let length = (at - 20 + 4 + len) as u16;
            let mut text = buf[..at].to_vec();
            text[2..4].copy_from_slice(&length.to_be_bytes());
            let mac: Vec<u8> = match algorithm {
                Algorithm::Sha1 => turnserver::wire::integrity::hmac_sha1(key.expose(), &[&text]).to_vec(),
                Algorithm::Sha256 => turnserver::wire::integrity::hmac_sha256(key.expose(), &[&text]).to_vec(),
            };
            for (to, from) in buf[at + 4..at + 4 + len].iter_mut().zip(mac.iter().cycle()) {
                *to = *from;
            }
            let message = Message::parse(&buf[..end]).expect("it is sound");
            assert_eq!(message.verify(algorithm, &key), right.contains(&len), "{algorithm:?} of {len} bytes");
        }
    }
}

#[test]
fn c18_c22_every_channel_data_vector_carries_its_payload_or_is_none() {
    for vector in list("channel_data") {
        let bytes = hex(&vector, "bytes");
        let seen = ChannelData::parse(&bytes).ok().map(|head| (head.number.get(), bytes[4..4 + head.length].to_vec()));
        let expected = vector["data"].as_str().map(|_| {
            let number = vector["channel"].as_u64().expect("a number") as u16;
            (number, hex(&vector, "data"))
        });
        assert_eq!(seen, expected, "{}", id(&vector));
    }
}

#[test]
fn a21_the_md5_key_is_the_rfcs() {
    let vector = list("keys").into_iter().find(|key| id(key) == "rfc8489-9.2.2-md5-key").expect("it is in the file");
    assert_eq!(Key::md5("user", "realm", "pass").expose(), hex(&vector, "hex"));
}

#[test]
fn a23_the_hash_of_a_name_is_the_rfcs() {
    let vector = list("keys").into_iter().find(|key| id(key) == "userhash").expect("it is in the file");
    let (user, realm) = vector["input"].as_str().and_then(|input| input.split_once(':')).expect("a name and a realm");
    assert_eq!(userhash(user, realm).as_slice(), hex(&vector, "hex"));
}

#[test]
fn a32_a_rest_password_is_the_one_coturn_would_make() {
    let vector = list("keys").into_iter().find(|key| id(key) == "rest-api-password").expect("it is in the file");
    let password = credential::password(&Secret::new("north"), vector["input"].as_str().expect("a text"));
    assert_eq!(Some(password.as_str()), text(&vector, "text"));
}

fn stun_vectors() -> Vec<Value> {
    let vectors: Vec<Value> = list("rfc_vectors").into_iter().chain(list("own_vectors")).collect();
    assert_eq!(vectors.len(), 14, "a vector that nobody looks at proves nothing");
    vectors
}

fn list(name: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("vectors.json")).expect("the file is JSON");
    all[name].as_array().cloned().expect("the file has this list")
}

/// What the vector is signed with, as its `integrity` says.
fn key_of(vector: &Value) -> (Algorithm, Key) {
    let part = |name| text(vector, name).unwrap_or_default();
    let (user, realm, password) = (part("username"), part("realm"), part("password"));
    match part("integrity") {
        "SHA1-short-term" => (Algorithm::Sha1, Key::from_bytes(password.as_bytes()).expect("22 bytes")),
        "SHA1-long-term-MD5" => (Algorithm::Sha1, Key::md5(user, realm, password)),
        other if other.starts_with("SHA256-long-term-SHA256") => {
            (Algorithm::Sha256, Key::sha256(user, realm, password))
        }
        other => panic!("no key for {other}"),
    }
}

fn id(vector: &Value) -> &str {
    text(vector, "id").unwrap_or_default()
}

fn text<'v>(vector: &'v Value, name: &str) -> Option<&'v str> {
    vector.get(name).and_then(Value::as_str)
}

fn hex(vector: &Value, name: &str) -> Vec<u8> {
    unhex(&vector[name])
}

fn unhex(value: &Value) -> Vec<u8> {
    let digits = value.as_str().expect("hexadecimal digits");
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("two digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}
