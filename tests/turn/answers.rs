//! What all answers have in common, whatever was asked (RFC 8489 §5, §6.3), and that TURN's requests are STUN
//! (RFC 8656 §5).

use crate::support::*;
use std::collections::BTreeMap;
use turnserver::turn::policy::Redirect;
use turnserver::turn::refusal::Dropped;
use turnserver::turn::{BindError, StreamId, Verdict};
use turnserver::wire::codes::{Attribute, Class, Method};

const UNKNOWN: Attribute = Attribute(0x7777);

/// One request of each kind beside Binding.
fn turn_requests() -> [Ask; 6] {
    [
        allocate(),
        refresh_for(700),
        create_permission(&[PEER_A]),
        channel_bind(0x4000, PEER_A),
        connect(PEER_A),
        connection_bind(StreamId(7)),
    ]
}

/// The two bits of the class, and the rest of the message type (RFC 8489 §5).
fn class_and_method(message: &[u8]) -> (u16, u16) {
    let kind = u16::from_be_bytes([message[0], message[1]]);
    (kind & 0x0110, kind & !0x0110)
}

#[test]
fn s16_an_answer_has_the_method_and_the_transaction_of_its_question() {
    let mut t = Turn::new();
    t.joins_by_tcp("alice").learns_a_nonce();
    for is_signed in [false, true] {
        for ask in [binding()].into_iter().chain(turn_requests()) {
            let question = if is_signed { ask } else { ask.unsigned() }.bytes(t.first().party());
            let answer = t.first().says_bytes(&question);
            assert!(matches!(answer.verdict, Verdict::ToClient(_)), "every request is answered");
            let ((asked, method), (class, same)) = (class_and_method(&question), class_and_method(&answer.bytes));
            assert!(asked == 0 && [0x0100, 0x0110].contains(&class), "{class:#x}");
            assert_eq!(method, same);
            assert_eq!(question[4..20], answer.bytes[4..20], "cookie and transaction");
        }
    }
}

#[test]
fn s17_every_error_is_told_in_the_form_that_clients_read() {
    let mut told = BTreeMap::new();
    let mut reads = |outcome: Outcome| {
        let value = outcome.get(Attribute::ERROR_CODE).expect("an error has a code");
        let [0, 0, class @ 3..=6, number @ 0..=99, reason @ ..] = &value[..] else { panic!("{value:?}") };
        let reason = std::str::from_utf8(reason).expect("a reason is UTF-8");
        assert!(reason.chars().count() < 128);
        told.insert(u16::from(*class) * 100 + u16::from(*number), reason.to_owned());
    };
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    reads(t.says(allocate().unsigned()));
    reads(t.says(allocate().but(Attribute::NONCE, b"old")));
    reads(t.says(request(Method::ALLOCATE)));
    reads(t.says(allocate().with(UNKNOWN, b"")));
    reads(t.says(allocate().with(Attribute::MOBILITY_TICKET, b"")));
    reads(t.says(allocate().with(Attribute::REQUESTED_ADDRESS_FAMILY, &[9, 0, 0, 0])));
    reads(t.says(request(Method::ALLOCATE).with(Attribute::REQUESTED_TRANSPORT, &[132, 0, 0, 0])));
    reads(t.says(refresh()));
    for why in [BindError::Quota, BindError::NoPort, BindError::System] {
        t.bind_fails = Some(why);
        reads(t.says(allocate()));
    }
    t.bind_fails = None;
    t.first().allocates();
    reads(t.says(create_permission(&[PRIVATE])));
    reads(t.says(create_permission(&[PEER_V6])));
    reads(t.says(refresh().by_user("bob", &password_of("bob"))));
    let tcp = request(Method::ALLOCATE).with(Attribute::REQUESTED_TRANSPORT, &[6, 0, 0, 0]);
    t.joins_by_tcp("carol").obtains(tcp);
    t.client("carol").says(connect(PEER_A)).hears(silence());
    reads(t.shell_connects(false));
    t.client("carol").says(connect(PEER_A)).hears(silence());
    reads(t.client("carol").says(connect(PEER_A)));
    t.joins("bob").learns_a_nonce();
    t.reloads(|world| {
        world.policy.draining = true;
        world.policy.redirect = Redirect { servers: vec!["20.0.9.1:3478".parse().expect("an address")], domain: None };
    });
    reads(t.client("bob").says(allocate()));
    let codes: Vec<u16> = told.keys().copied().collect();
    assert_eq!(codes, [300, 400, 401, 403, 405, 420, 437, 438, 440, 441, 442, 443, 446, 447, 486, 500, 508]);
    // What strangers can hear has no reason: the number says it, and a challenge must stay short.
    let silent = told.iter().filter(|(_, reason)| reason.is_empty()).map(|(code, _)| *code);
    assert_eq!(silent.collect::<Vec<_>>(), [400, 401, 420, 438]);
}

#[test]
fn s45_an_answer_is_sent_once_for_each_time_that_it_is_asked_for() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    let answer = t.says(allocate()).hears(success());
    // Every tick of the world fails when a timer makes a packet.
    t.waits(seconds(599));
    let again = t.first().repeats().hears(success()).for_seconds(1);
    assert_eq!(again.relayed(), answer.relayed());
    t.waits(minutes(5));
    assert_eq!(t.server.deadline(), None, "nothing is left to be done");
}

#[test]
fn t17_a_turn_request_that_is_no_sound_stun_is_not_answered() {
    for ask in turn_requests() {
        let mut t = Turn::new();
        t.joins_by_tcp("alice").learns_a_nonce();
        let sound = ask.clone().bytes(t.first().party());
        let wrong = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut packet = sound.clone();
            change(&mut packet);
            bytes(&packet)
        };
        t.says(wrong(&|packet| packet[4] ^= 1)).hears(dropped(Dropped::ClassicStun));
        for more in [1, 2, 3, 4] {
            t.says(wrong(&|packet| packet[3] = packet[3].wrapping_add(more))).hears(dropped(Dropped::Malformed));
        }
        t.says(wrong(&|packet| packet.truncate(sound.len() - 1))).hears(dropped(Dropped::Malformed));
        t.says(wrong(&|packet| packet.extend([0; 4]))).hears(dropped(Dropped::Malformed));
        t.says(wrong(&|packet| packet[22..24].fill(0xFF))).hears(dropped(Dropped::Malformed));
        t.says(wrong(&|packet| packet[0] |= 0x80)).hears(dropped(Dropped::Noise));
        let mut fingerprint = ask.clone().fingerprinted().bytes(t.first().party());
        *fingerprint.last_mut().expect("it has bytes") ^= 1;
        t.says(bytes(&fingerprint)).hears(dropped(Dropped::Fingerprint));
        let method = Method::new(class_and_method(&sound).1 & 0xF);
        for class in [Class::Indication, Class::Success, Class::Error] {
            t.says(message(method, class)).hears(dropped(Dropped::Unexpected));
        }
        t.is_as_new();
    }
}

#[test]
fn t17_what_nobody_knows_is_named_or_ignored_in_every_turn_request() {
    for ask in turn_requests() {
        let mut t = Turn::new();
        t.joins_by_tcp("alice").learns_a_nonce();
        let outcome = t.says(ask.clone().with(UNKNOWN, b"").with(Attribute(0x7778), b"x")).hears(error(420)).signed();
        assert_eq!(outcome.get(Attribute::UNKNOWN_ATTRIBUTES), Some(vec![0x77, 0x77, 0x77, 0x78]));
        let plain = t.says(ask.clone()).code();
        let mut t = Turn::new();
        t.joins_by_tcp("alice").learns_a_nonce();
        let optional = t.says(ask.clone().with(Attribute(0xC057), &[0; 8]).with(Attribute(0xFF00), b"x")).code();
        assert_eq!(plain, optional);
        let mut t = Turn::new();
        t.joins_by_tcp("alice").learns_a_nonce();
        assert_eq!(t.says(ask.then(UNKNOWN, b"odd")).code(), plain, "what nobody signed does not count");
    }
}
