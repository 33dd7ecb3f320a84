//! NAT behaviour discovery (RFC 5780).

use crate::support::*;
use std::net::SocketAddr;
use turnserver::turn::policy::Discovery;
use turnserver::turn::refusal::Dropped;
use turnserver::turn::tally::Transport;
use turnserver::turn::{FiveTuple, Verdict};
use turnserver::wire::codes::{Attribute, Class, Method};

const CHANGE_IP: u8 = 4;
const CHANGE_PORT: u8 = 2;
/// The parties: one client, by the socket it asks.
const NAMES: [[&str; 2]; 2] = [["first", "first, other port"], ["other", "other, other port"]];

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn sockets() -> [[SocketAddr; 2]; 2] {
    [[SERVER, at("20.0.0.1:3479")], [at("20.0.0.2:3478"), at("20.0.0.2:3479")]]
}

fn sockets_v6() -> [[SocketAddr; 2]; 2] {
    [[SERVER_V6, at("[2a00:20::1]:3479")], [at("[2a00:20::2]:3478"), at("[2a00:20::2]:3479")]]
}

/// A server with all eight sockets, and a client that may ask each of the IPv4 ones.
fn discovering() -> Turn {
    let mut t = Turn::with(|world| {
        world.policy.nat_discovery =
            [sockets(), sockets_v6()].map(|sockets| Discovery { sockets, told: sockets }).into();
    });
    for (address, port) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        joins(&mut t, NAMES[address][port], "30.0.0.1:4000", sockets()[address][port], Transport::Udp);
    }
    t
}

fn joins(t: &mut Turn, name: &str, client: &str, server: SocketAddr, transport: Transport) {
    let tuple = FiveTuple { transport, client: at(client), server };
    let _ = t.joins_at(name, "alice", &password_of("alice"), tuple);
}

fn change(flags: u8) -> Ask {
    binding().with(Attribute::CHANGE_REQUEST, &[0, 0, 0, flags])
}

fn response_port(port: u16) -> Ask {
    let [p0, p1] = port.to_be_bytes();
    binding().with(Attribute::RESPONSE_PORT, &[p0, p1, 0, 0])
}

/// The socket an answer leaves from, and where it goes.
fn way(outcome: &Outcome) -> (SocketAddr, SocketAddr) {
    let Verdict::ToClient(path) = outcome.verdict else { panic!("no answer: {:?}", outcome.verdict) };
    (path.tuple.server, path.tuple.client)
}

/// An address that is not combined with the cookie.
fn plain(outcome: &Outcome, attribute: Attribute) -> SocketAddr {
    let value = outcome.get(attribute).expect("it is told");
    let port = u16::from_be_bytes([value[2], value[3]]);
    match value[1] {
        1 => SocketAddr::from((<[u8; 4]>::try_from(&value[4..]).expect("an address"), port)),
        2 => SocketAddr::from((<[u8; 16]>::try_from(&value[4..]).expect("an address"), port)),
        family => panic!("no family: {family}"),
    }
}

#[test]
fn k10_where_discovery_is_off_an_answer_says_one_address() {
    let mut t = Turn::new();
    t.joins("alice");
    let outcome = t.says(binding()).hears(success());
    assert_eq!(outcome.attributes(), [Attribute::XOR_MAPPED_ADDRESS]);
    assert_eq!(outcome.bytes.len(), 32);
}

#[test]
fn k08_where_discovery_is_off_its_questions_are_not_understood() {
    let mut t = Turn::new();
    t.joins("alice");
    let ask = change(0).with(Attribute::PADDING, &[0; 4]).with(Attribute::RESPONSE_PORT, &[0x10, 0, 0, 0]);
    let outcome = t.says(ask).hears(error(420));
    assert_eq!(outcome.get(Attribute::UNKNOWN_ATTRIBUTES), Some(vec![0, 3, 0, 0x26, 0, 0x27]));
}

#[test]
fn k01_k02_k03_the_flags_choose_the_socket_and_the_answer_names_it() {
    let mut t = discovering();
    for (address, port) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for flags in [0, CHANGE_IP, CHANGE_PORT, CHANGE_IP | CHANGE_PORT] {
            let outcome = t.client(NAMES[address][port]).says(change(flags)).hears(success());
            let from = (address ^ usize::from(flags & CHANGE_IP != 0), port ^ usize::from(flags & CHANGE_PORT != 0));
            let from = sockets()[from.0][from.1];
            assert_eq!(way(&outcome), (from, at("30.0.0.1:4000")));
            assert_eq!(plain(&outcome, Attribute::RESPONSE_ORIGIN), from);
            assert_eq!(plain(&outcome, Attribute::OTHER_ADDRESS), sockets()[address ^ 1][port ^ 1]);
        }
    }
}

#[test]
fn k03_bits_that_mean_nothing_change_nothing() {
    let mut t = discovering();
    let outcome = t.says(binding().with(Attribute::CHANGE_REQUEST, &[0xFF, 0xFF, 0xFF, 0xF9])).hears(success());
    assert_eq!(way(&outcome).0, SERVER);
    for value in [&[][..], &[6], &[0, 0, 0, 0, 6]] {
        t.says(binding().with(Attribute::CHANGE_REQUEST, value)).hears(error(400));
    }
}

#[test]
fn k04_both_forms_of_the_mapped_address_are_told() {
    let mut t = discovering();
    let outcome = t.says(binding()).hears(success());
    assert_eq!(plain(&outcome, Attribute::MAPPED_ADDRESS), at("30.0.0.1:4000"));
    assert_eq!(outcome.address(Attribute::XOR_MAPPED_ADDRESS), Some(at("30.0.0.1:4000")));
}

#[test]
fn k01_each_family_has_its_own_four_sockets() {
    let mut t = discovering();
    joins(&mut t, "v6", "[2a00:30::1]:4000", sockets_v6()[0][0], Transport::Udp);
    let outcome = t.client("v6").says(change(CHANGE_IP)).hears(success());
    assert_eq!(way(&outcome), (sockets_v6()[1][0], at("[2a00:30::1]:4000")));
    assert_eq!(plain(&outcome, Attribute::OTHER_ADDRESS), sockets_v6()[1][1]);
}

#[test]
fn k02_behind_a_translation_clients_are_told_the_outer_addresses() {
    let outer = [[at("40.0.0.1:3478"), at("40.0.0.1:3479")], [at("40.0.0.2:3478"), at("40.0.0.2:3479")]];
    let mut t = Turn::with(|world| world.policy.nat_discovery = vec![Discovery { sockets: sockets(), told: outer }]);
    joins(&mut t, "alice", "30.0.0.1:4000", SERVER, Transport::Udp);
    let outcome = t.says(change(CHANGE_PORT)).hears(success());
    assert_eq!(way(&outcome).0, sockets()[0][1]);
    assert_eq!(plain(&outcome, Attribute::RESPONSE_ORIGIN), outer[0][1]);
    assert_eq!(plain(&outcome, Attribute::OTHER_ADDRESS), outer[1][1]);
}

#[test]
fn k05_an_answer_may_go_to_another_port_and_never_to_another_host() {
    let mut t = discovering();
    for port in [1, 4000, 4001, 65_535] {
        let outcome = t.says(response_port(port)).hears(success());
        assert_eq!(way(&outcome), (SERVER, SocketAddr::new(at("30.0.0.1:1").ip(), port)));
        assert_eq!(outcome.address(Attribute::XOR_MAPPED_ADDRESS), Some(at("30.0.0.1:4000")));
    }
    t.says(response_port(0)).hears(error(400)); // nobody can be answered there
    t.says(binding().with(Attribute::RESPONSE_PORT, &[1])).hears(error(400));
    let outcome = t.says(response_port(5000).with(Attribute::CHANGE_REQUEST, &[0, 0, 0, 6])).hears(success());
    assert_eq!(way(&outcome), (sockets()[1][1], at("30.0.0.1:5000")));
}

#[test]
fn k05_a_refusal_goes_back_to_where_the_question_came_from() {
    let mut t = discovering();
    let odd = response_port(5000).with(Attribute::CHANGE_REQUEST, &[0, 0, 0, 6]).with(Attribute(0x7777), b"odd");
    let outcome = t.says(odd).hears(error(420));
    assert_eq!(way(&outcome), (SERVER, at("30.0.0.1:4000")));
    assert_eq!(outcome.get(Attribute::UNKNOWN_ATTRIBUTES), Some(vec![0x77, 0x77]));
}

#[test]
fn k06_an_answer_to_another_port_is_not_padded() {
    let mut t = discovering();
    t.says(response_port(5000).with(Attribute::PADDING, &[0; 100])).hears(error(400));
}

#[test]
fn k07_padding_makes_an_answer_as_long_as_its_question_and_no_longer() {
    // Not as long as the MTU, as the RFC has it: that would be an amplifier for whoever can lie about an address.
    let mut t = discovering();
    joins(&mut t, "v6", "[2a00:30::1]:4000", sockets_v6()[0][0], Transport::Udp);
    for name in ["first", "v6"] {
        let bare = t.client(name).says(binding()).bytes.len();
        for size in (0..200).chain([1000, 1440, 1472, 9000, 60_000]) {
            let ask = binding().with(Attribute::PADDING, &vec![7; size]);
            for (ask, fingerprint) in [(ask.clone(), 0), (ask.fingerprinted(), 8)] {
                t.passes(core::time::Duration::from_millis(20)); // one network gets a hundred answers a second
                let outcome = t.client(name).says(ask).hears(success());
                let padding = outcome.get(Attribute::PADDING).expect("it was asked for");
                assert!(padding.iter().all(|byte| *byte == 0) && padding.len().is_multiple_of(4));
                let (asked, least) = (24 + size.next_multiple_of(4) + fingerprint, bare + 4 + fingerprint);
                assert_eq!(outcome.bytes.len(), asked.max(least));
            }
        }
    }
}

#[test]
fn k09_discovery_is_spoken_over_udp_alone() {
    // The decision: elsewhere its attributes are unknown ones.
    let mut t = discovering();
    joins(&mut t, "tcp", "30.0.0.1:4001", SERVER, Transport::Tcp);
    let outcome = t.client("tcp").says(binding()).hears(success());
    assert_eq!(outcome.attributes(), [Attribute::XOR_MAPPED_ADDRESS]);
    for ask in [change(0), response_port(5000), binding().with(Attribute::PADDING, &[0; 100])] {
        t.client("tcp").says(ask).hears(error(420));
    }
}

#[test]
fn k08_a_listener_beside_the_four_sockets_knows_nothing_of_discovery() {
    let mut t = discovering();
    joins(&mut t, "elsewhere", "30.0.0.1:4000", at("20.0.0.1:5349"), Transport::Udp);
    let outcome = t.client("elsewhere").says(binding()).hears(success());
    assert_eq!(outcome.attributes(), [Attribute::XOR_MAPPED_ADDRESS]);
    t.client("elsewhere").says(change(0)).hears(error(420));
}

#[test]
fn k08_only_a_binding_discovers() {
    let mut t = discovering();
    t.first().learns_a_nonce();
    t.says(allocate().with(Attribute::CHANGE_REQUEST, &[0, 0, 0, 6])).hears(error(420)).signed();
    let outcome = t.says(allocate()).hears(success());
    assert_eq!(way(&outcome), (SERVER, at("30.0.0.1:4000")));
    assert_eq!(outcome.get(Attribute::OTHER_ADDRESS), None);
    let ask = message(Method::BINDING, Class::Indication).with(Attribute::CHANGE_REQUEST, &[0, 0, 0, 6]);
    t.says(ask).hears(silence());
}

#[test]
fn one_network_is_answered_so_often_wherever_the_answers_go() {
    let mut t = discovering();
    t.reloads(|world| world.policy.limits.unauthenticated_per_ip = 10);
    let answered = (1..=100u16).filter(|port| !matches!(t.says(response_port(*port)).verdict, Verdict::Dropped(_)));
    assert_eq!(answered.count(), 10);
    t.says(response_port(5000)).hears(dropped(Dropped::UnauthenticatedLimit));
}

#[test]
fn where_a_binding_needs_a_credential_so_does_discovery() {
    let mut t = discovering();
    t.reloads(|world| world.policy.auth.anonymous_stun = false);
    t.says(change(CHANGE_IP)).hears(error(401));
    let signed = request(Method::BINDING).with(Attribute::CHANGE_REQUEST, &[0, 0, 0, CHANGE_IP]);
    let outcome = t.says(signed).hears(success()).signed();
    assert_eq!(way(&outcome), (sockets()[1][0], at("30.0.0.1:4000")));
}
