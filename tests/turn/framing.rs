//! STUN itself, RFC 8489 §5–§8, §12, §14: what is answered, what is not, and how small.

use crate::support::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::SocketAddr;
use turnserver::turn::refusal::Dropped;
use turnserver::turn::tally::Transport;
use turnserver::turn::{FiveTuple, Verdict};
use turnserver::wire::codes::{Attribute, Class, Method};

#[test]
fn s01_s47_only_stun_and_channel_data_are_looked_at() {
    let mut t = Turn::allocated("alice");
    for first in 4..=255u8 {
        let mut packet = [first; 64];
        packet[1..].fill(0);
        let why = if (64..128).contains(&first) { Dropped::NoChannel } else { Dropped::Noise };
        t.says(bytes(&packet)).hears(dropped(why));
    }
    t.says(bytes(&[])).hears(silence());
}

#[test]
fn s02_s39_stun_without_the_cookie_is_another_protocol() {
    // The decision: RFC 3489 is not spoken, and no option turns it on.
    let mut t = Turn::new();
    t.joins("alice");
    let mut classic = binding_bytes();
    classic[4] ^= 1;
    t.says(bytes(&classic)).hears(dropped(Dropped::ClassicStun));
}

#[test]
fn s03_s04_s14_a_message_that_disagrees_with_itself_is_not_answered() {
    let mut t = Turn::new();
    t.joins("alice");
    for length in [1, 2, 3, 4, 8, 0xFC] {
        let mut packet = binding_bytes();
        packet[3] = length;
        t.says(bytes(&packet)).hears(dropped(Dropped::Malformed));
    }
    let whole = binding_bytes();
    t.says(bytes(&whole[..19])).hears(dropped(Dropped::Malformed));
    t.says(bytes(&[whole, vec![0; 4]].concat())).hears(dropped(Dropped::Malformed));
}

#[test]
fn s05_a_method_that_is_not_here_is_not_answered() {
    let mut t = Turn::allocated("alice");
    for method in [0x002, 0x005, 0x00D, 0x00E, 0x0FF] {
        t.says(request(Method::new(method))).hears(dropped(Dropped::UnknownMethod));
        t.says(request(Method::new(method)).unsigned()).hears(dropped(Dropped::UnknownMethod));
    }
    t.says(request(Method::new(0xFFF))).hears(dropped(Dropped::Noise)); // its first byte is that of a TLS record
}

#[test]
fn s06_a_response_is_never_answered_whoever_made_it() {
    let mut t = Turn::allocated("alice");
    for class in [Class::Success, Class::Error] {
        for method in [Method::BINDING, Method::ALLOCATE, Method::REFRESH, Method::SEND, Method::DATA] {
            t.says(message(method, class)).hears(dropped(Dropped::Unexpected));
        }
    }
}

#[test]
fn s07_an_indication_is_never_answered() {
    let mut t = Turn::new();
    t.joins("alice");
    t.says(message(Method::BINDING, Class::Indication)).hears(silence());
    t.says(message(Method::BINDING, Class::Indication).with(Attribute(0x7777), b"odd")).hears(silence());
    t.says(send(PEER_A, b"hello")).hears(silence());
    t.says(send(PEER_A, b"hello").with(Attribute(0x7777), b"odd")).hears(silence());
    for method in [Method::ALLOCATE, Method::REFRESH, Method::DATA, Method::CONNECTION_ATTEMPT, Method::new(0x0BC)] {
        t.says(message(method, Class::Indication)).hears(dropped(Dropped::Unexpected));
    }
}

#[test]
fn s08_optional_attributes_nobody_knows_are_ignored() {
    let mut t = Turn::new();
    t.joins("alice");
    t.says(binding().with(Attribute(0xC057), &[0; 8]).with(Attribute(0xFF00), b"x")).hears(success());
    t.first().allocates();
    t.says(refresh().with(Attribute(0xC057), &[0; 8])).hears(success());
}

#[test]
fn s09_s35_required_attributes_nobody_knows_are_all_named() {
    let mut t = Turn::new();
    t.joins("alice");
    let outcome = t.says(binding().with(Attribute(0x7777), b"").with(Attribute(0x7778), b"value"));
    assert_eq!(outcome.hears(error(420)).get(Attribute::UNKNOWN_ATTRIBUTES), Some(vec![0x77, 0x77, 0x77, 0x78]));
    let outcome = t.says(binding().with(Attribute(0x7777), b""));
    let outcome = outcome.hears(error(420));
    assert_eq!(outcome.get(Attribute::UNKNOWN_ATTRIBUTES), Some(vec![0x77, 0x77]));
    assert_eq!(outcome.bytes[outcome.bytes.len() - 2..], [0, 0]);
}

#[test]
fn s10_who_asks_is_settled_before_what_is_not_understood() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    t.says(allocate().with(Attribute(0x7777), b"").unsigned()).hears(error(401));
    t.says(allocate().with(Attribute(0x7777), b"")).hears(error(420)).signed();
    t.is_as_new();
}

#[test]
fn s11_known_attributes_in_the_wrong_place_are_ignored() {
    let mut t = Turn::allocated("alice");
    let odd = |ask: Ask| ask.with(Attribute::LIFETIME, &[0, 0, 9, 9]).with(Attribute::CHANNEL_NUMBER, &[0x40, 0, 0, 0]);
    t.says(odd(binding())).hears(success());
    t.says(odd(create_permission(&[PEER_A]))).hears(success());
    t.says(odd(send(PEER_A, b"hello"))).reaches(PEER_A, b"hello");
}

#[test]
fn s12_of_two_equal_attributes_the_first_counts() {
    // The decision: the RFC permits to ignore the others, and they are ignored.
    let mut t = Turn::allocated("alice");
    t.says(refresh_for(700).with(Attribute::LIFETIME, &3000u32.to_be_bytes())).hears(success()).for_seconds(700);
    t.says(create_permission(&[PEER_A, PEER_B])).hears(success());
    t.says(send(PEER_A, b"hello").with_peer(PEER_B)).reaches(PEER_A, b"hello");
}

#[test]
fn s15_s37_binding_tells_where_the_request_came_from_over_udp_and_tcp() {
    let mut t = Turn::new();
    t.joins("alice");
    t.joins_by_tcp("bob");
    t.joins_at("carol", "carol", "", v6_tuple());
    for name in ["alice", "bob", "carol"] {
        let from = t.client(name).party().path.tuple.client;
        let outcome = t.client(name).says(binding()).hears(success());
        assert_eq!(outcome.address(Attribute::XOR_MAPPED_ADDRESS), Some(from));
        assert_eq!(outcome.attributes(), [Attribute::XOR_MAPPED_ADDRESS]);
    }
}

#[test]
fn s20_a_binding_sent_again_is_answered_again() {
    let mut t = Turn::new();
    t.joins("alice");
    let first = t.says(binding()).hears(success()).bytes;
    for _ in 0..2 {
        assert_eq!(t.first().repeats().hears(success()).bytes, first);
    }
}

#[test]
fn s24_the_longest_realm_stays_far_under_any_mtu() {
    // The decision: the realm is in ASCII. One of 127 characters of four bytes makes a longer challenge.
    let mut t = Turn::with(|world| world.policy.realm = "r".repeat(127));
    t.joins("alice");
    assert!(t.says(allocate().fingerprinted()).hears(error(401)).bytes.len() <= 548);
}

#[test]
fn s25_s27_a_fingerprint_is_answered_with_one_and_needed_by_nobody() {
    let mut t = Turn::new();
    t.joins("alice");
    t.says(binding().fingerprinted()).hears(success());
    t.says(binding()).hears(success());
    t.says(allocate().fingerprinted()).hears(error(401));
    t.says(allocate().fingerprinted()).hears(success());
    t.says(refresh().fingerprinted()).hears(success());
    t.says(create_permission(&[PRIVATE]).fingerprinted()).hears(error(403));
}

#[test]
fn s25_s26_a_wrong_or_misplaced_fingerprint_is_not_answered() {
    let mut t = Turn::new();
    t.joins("alice");
    let mut packet = binding().fingerprinted().bytes(t.first().party());
    packet[27] ^= 1;
    t.says(bytes(&packet)).hears(dropped(Dropped::Fingerprint));
    packet[27] ^= 1;
    packet.extend([0x80, 0x22, 0, 0]);
    packet[3] += 4;
    t.says(bytes(&packet)).hears(dropped(Dropped::Fingerprint));
}

#[test]
fn s29_what_nobody_signed_does_not_count() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    let ask = allocate().then(Attribute::LIFETIME, &3600u32.to_be_bytes()).then(Attribute(0x7777), b"odd");
    t.says(ask).hears(success()).for_seconds(600);
    t.says(create_permission(&[PEER_A]).then(Attribute::XOR_PEER_ADDRESS, &[0; 8])).hears(success());
    t.says(create_permission(&[]).then(Attribute::XOR_PEER_ADDRESS, &[0, 1, 0, 0, 1, 1, 1, 1])).hears(error(400));
    assert_eq!(t.gauges(), (1, 1, 0));
}

#[test]
fn s36_x02_strangers_are_not_told_the_name_of_the_program() {
    // The decision: SOFTWARE is for users, and has no version.
    let mut t = Turn::new();
    t.joins("alice");
    assert_eq!(t.says(binding()).hears(success()).get(Attribute::SOFTWARE), None);
    assert_eq!(t.says(allocate()).hears(error(401)).get(Attribute::SOFTWARE), None);
    let software = t.says(allocate()).hears(success()).get(Attribute::SOFTWARE).expect("a user may know");
    assert!(!software.iter().any(u8::is_ascii_digit), "a version tells attackers what to try");
}

#[test]
fn s38_binding_looks_at_no_credential() {
    // The decision: a signature that nobody asked for is not looked at, right or wrong.
    let mut t = Turn::new();
    t.joins("alice");
    t.says(binding().with(Attribute::USERNAME, b"nobody").with(Attribute::MESSAGE_INTEGRITY, &[7; 20]))
        .hears(success());
    t.says(binding().with(Attribute::MESSAGE_INTEGRITY, &[7; 20])).hears(success());
}

#[test]
fn s38_binding_asks_for_a_credential_where_strangers_are_not_served() {
    let mut t = Turn::with(|world| world.policy.auth.anonymous_stun = false);
    t.joins("alice").learns_a_nonce();
    t.says(request(Method::BINDING)).hears(success()).signed();
    t.says(request(Method::BINDING).forged()).hears(error(401));
}

#[test]
fn a_binding_that_needs_a_credential_is_challenged_with_at_most_four_times_its_bytes() {
    for (realm, times) in [("example.org", 3.4), ("a realm of 24 characters", 4.0)] {
        let mut t = Turn::with(|world| {
            world.policy.auth.anonymous_stun = false;
            world.policy.realm = realm.into();
        });
        t.joins("alice");
        assert_eq!(t.says(binding()).hears(error(401)).amplification(), times);
    }
}

#[test]
fn s46_the_smallest_exchange_is_twenty_bytes_for_thirty_two_or_forty_four() {
    let mut t = Turn::new();
    t.joins("alice");
    t.joins_at("bob", "bob", "", v6_tuple());
    assert_eq!(t.client("alice").says(binding()).hears(success()).bytes.len(), 32);
    assert_eq!(t.client("bob").says(binding()).hears(success()).bytes.len(), 44);
}

#[test]
fn s48_a_source_nobody_can_answer_is_not_answered() {
    let mut t = Turn::new();
    let tuple = FiveTuple { transport: Transport::Udp, client: "30.0.0.1:0".parse().unwrap(), server: SERVER };
    t.datagram(tuple, &binding_bytes()).hears(dropped(Dropped::BadSource));
}

#[test]
fn x01_our_own_listeners_are_no_clients() {
    let mut t = Turn::new();
    for client in [SERVER, SERVER_V6, HTTP] {
        let tuple = FiveTuple { transport: Transport::Udp, client, server: SERVER };
        t.datagram(tuple, &binding_bytes()).hears(dropped(Dropped::BadSource));
    }
    // A program on this host that talks to the server is a client like any other.
    let tuple = FiveTuple { transport: Transport::Udp, client: SocketAddr::new(SERVER.ip(), 5555), server: SERVER };
    t.datagram(tuple, &binding_bytes()).hears(success());
}

#[test]
fn x01_listeners_that_clients_are_sent_to_are_no_clients() {
    let mut t = Turn::new();
    let door: SocketAddr = "20.0.9.1:3478".parse().expect("an address");
    let from = |transport, port| FiveTuple { transport, client: SocketAddr::new(door.ip(), port), server: SERVER };
    t.datagram(from(Transport::Udp, door.port()), &binding_bytes()).hears(success());
    t.reloads(|world| world.policy.redirect.servers.push(door));
    t.datagram(from(Transport::Udp, door.port()), &binding_bytes()).hears(dropped(Dropped::BadSource));
    // Another program on that host is a client like any other, and nobody forges a connection.
    t.datagram(from(Transport::Udp, 5555), &binding_bytes()).hears(success());
    t.datagram(from(Transport::Tcp, door.port()), &binding_bytes()).hears(success());
}

/// What an unknown datagram can be.
#[derive(Clone, Debug)]
struct Stranger {
    method: u16,
    class: Class,
    attributes: Vec<(u16, Vec<u8>)>,
    fingerprint: bool,
}

fn stranger() -> impl Strategy<Value = Stranger> {
    let method = prop_oneof![4 => prop::sample::select(vec![1u16, 3, 4, 8, 9]), 1 => 0u16..0x1000];
    let class = prop_oneof![5 => Just(Class::Request), 1 => Just(Class::Indication), 1 => Just(Class::Success)];
    let known = prop::sample::select(Attribute::ALL).prop_map(|attribute| attribute.0);
    let kind = prop_oneof![3 => known, 1 => any::<u16>()];
    let kind = kind.prop_filter("another field says it", |kind| *kind != Attribute::FINGERPRINT.0);
    (method, class, vec((kind, vec(any::<u8>(), 0..24)), 0..6), any::<bool>())
        .prop_map(|(method, class, attributes, fingerprint)| Stranger { method, class, attributes, fingerprint })
}

impl Stranger {
    fn bytes(&self, party: &mut Party) -> Vec<u8> {
        let bare = message(Method::new(self.method), self.class);
        let ask = self.attributes.iter().fold(bare, |ask, (kind, value)| ask.with(Attribute(*kind), value));
        if self.fingerprint { ask.fingerprinted() } else { ask }.bytes(party)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn class_4_no_stranger_gets_more_than_three_times_what_it_spent(ask in stranger()) {
        let mut t = world();
        let bytes = ask.bytes(t.first().party());
        let outcome = t.first().says_bytes(&bytes);
        let bound = if ask.method == 1 { 1.6 } else { 2.9 };
        prop_assert!(outcome.amplification() <= bound, "{} for {:?}", outcome.amplification(), ask);
        prop_assert!(ask.class == Class::Request || outcome.amplification() == 0.0);
        t.is_as_new();
    }
}

thread_local! {
    static WORLD: std::cell::RefCell<Option<Turn>> = const { std::cell::RefCell::new(None) };
}

/// A new world is a slab of memory: these stories change nothing in it, so one is enough for all.
fn world() -> BorrowedWorld {
    let mut turn = WORLD.take().unwrap_or_else(|| {
        let mut turn = Turn::with(|world| world.policy.limits.unauthenticated_per_ip = u32::MAX);
        turn.joins("alice");
        turn
    });
    turn.passes(seconds(1));
    BorrowedWorld(Some(turn))
}

struct BorrowedWorld(Option<Turn>);

impl std::ops::Deref for BorrowedWorld {
    type Target = Turn;

    fn deref(&self) -> &Turn {
        self.0.as_ref().expect("given back only when dropped")
    }
}

impl std::ops::DerefMut for BorrowedWorld {
    fn deref_mut(&mut self) -> &mut Turn {
        self.0.as_mut().expect("given back only when dropped")
    }
}

impl Drop for BorrowedWorld {
    fn drop(&mut self) {
        WORLD.set(self.0.take());
    }
}

#[test]
fn a06_what_is_shorter_than_any_allocate_is_not_worth_a_challenge() {
    // The decision: it is a bad request with or without a signature, and a challenge would be many times its size.
    let mut t = Turn::new();
    t.joins("alice");
    t.says(request(Method::ALLOCATE).unsigned()).hears(error(400));
    t.says(refresh().unsigned()).hears(error(400));
    t.says(refresh_for(600).unsigned()).hears(error(401));
    t.says(allocate().unsigned()).hears(error(401));
}

#[test]
fn class_4_the_shortest_questions_get_short_answers() {
    let mut t = Turn::new();
    t.joins("alice");
    for method in 0..0x1000 {
        t.passes(seconds(1));
        let bare = t.says(message(Method::new(method), Class::Request));
        assert!(bare.amplification() <= if method == 1 { 1.6 } else { 2.9 }, "{method:#05x}: {}", bare.amplification());
    }
    let unknown = t.says(binding().with(Attribute(0x7777), b""));
    assert!(unknown.hears(error(420)).amplification() <= 1.6);
}

fn binding_bytes() -> Vec<u8> {
    let mut bytes = vec![0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
    bytes.extend([5; 12]);
    bytes
}

fn v6_tuple() -> FiveTuple {
    FiveTuple { transport: Transport::Udp, client: "[2a00:30::1]:4000".parse().expect("an address"), server: SERVER_V6 }
}

#[test]
fn s06_an_answer_of_the_server_sent_back_to_it_ends_there() {
    let mut t = Turn::new();
    t.joins("alice");
    for ask in [binding(), allocate(), allocate()] {
        let answer = t.says(ask);
        assert!(matches!(answer.verdict, Verdict::ToClient(_)));
        t.says(bytes(&answer.bytes)).hears(dropped(Dropped::Unexpected));
    }
}
