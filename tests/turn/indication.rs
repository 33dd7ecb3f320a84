//! Send and Data, RFC 8656 §11.

use crate::support::*;
use turnserver::turn::Verdict;
use turnserver::turn::refusal::Dropped;
use turnserver::wire::codes::{Attribute, Class, Method};
use turnserver::wire::packet::MAX_PAYLOAD;

fn permitted() -> Turn {
    let mut t = Turn::allocated("alice");
    t.says(create_permission(&[PEER_A])).hears(success());
    t
}

#[test]
fn d01_a_send_without_peer_or_data_goes_nowhere() {
    let mut t = permitted();
    let bare = || message(Method::SEND, Class::Indication);
    t.says(bare()).hears(dropped(Dropped::BadIndication));
    t.says(bare().with_peer(PEER_A)).hears(dropped(Dropped::BadIndication));
    t.says(bare().with(Attribute::DATA, b"hello")).hears(dropped(Dropped::BadIndication));
    let odd = bare().with(Attribute::XOR_PEER_ADDRESS, &[0, 1, 0]).with(Attribute::DATA, b"hello");
    t.says(odd).hears(dropped(Dropped::BadIndication));
    for address in [&[0, 3, 0, 0, 1, 1, 1, 1][..], &[0, 1, 0, 0, 1, 1, 1], &[0, 1, 0, 0, 1, 1, 1, 1, 1], &[]] {
        let odd = bare().with(Attribute::XOR_PEER_ADDRESS, address).with(Attribute::DATA, b"hello");
        t.says(odd).hears(dropped(Dropped::BadIndication));
    }
}

#[test]
fn d02_d09_an_empty_datagram_is_a_datagram() {
    let mut t = permitted();
    t.says(send(PEER_A, b"")).reaches(PEER_A, b"");
    t.peer(PEER_A).sends(b"").hears(data(PEER_A, b""));
}

#[test]
fn d03_a_send_opens_nothing() {
    let mut t = Turn::allocated("alice");
    t.says(send(PEER_A, b"hello")).hears(dropped(Dropped::NoPermission));
    t.peer(PEER_A).sends(b"hello").hears(dropped(Dropped::NoPermission));
}

#[test]
fn d04_a_permission_from_before_a_rule_does_not_survive_it() {
    let mut t = permitted();
    t.reloads(|world| world.deny.push("11.0.0.1".parse().expect("a prefix")));
    t.says(send(PEER_A, b"hello")).hears(silence());
    t.peer(PEER_A).sends(b"hello").hears(silence());
    assert_eq!(t.gauges(), (1, 0, 0));
}

#[test]
fn d05_d15_every_size_arrives_as_it_was_sent() {
    let mut t = permitted();
    let payload: Vec<u8> = (0..MAX_PAYLOAD).map(|at| (at % 251) as u8).collect();
    for size in (0..=1473).chain([9000, MAX_PAYLOAD - 1, MAX_PAYLOAD]) {
        t.says(send(PEER_A, &payload[..size])).reaches(PEER_A, &payload[..size]);
        t.peer(PEER_A).sends(&payload[..size.min(65_400)]).hears(data(PEER_A, &payload[..size.min(65_400)]));
    }
}

#[test]
fn d06_a_send_that_must_not_be_cut_says_so_to_the_shell() {
    let mut t = permitted();
    t.says(send(PEER_A, b"hello").with(Attribute::DONT_FRAGMENT, &[])).reaches(PEER_A, b"hello");
    assert!(t.marks().whole);
    t.says(send(PEER_A, b"hello")).reaches(PEER_A, b"hello");
    assert!(!t.marks().whole);
}

#[test]
fn d07_a_send_with_a_demand_nobody_understands_goes_nowhere() {
    let mut t = permitted();
    t.says(send(PEER_A, b"hello").with(Attribute(0x7777), b"odd")).hears(dropped(Dropped::BadIndication));
    t.says(send(PEER_A, b"hello").with(Attribute(0xC057), b"odd")).reaches(PEER_A, b"hello");
}

#[test]
fn d08_what_a_peer_sends_arrives_with_its_address() {
    let mut t = permitted();
    let outcome = t.peer(PEER_A2).sends(b"hello").hears(data(PEER_A2, b"hello"));
    assert_eq!(outcome.attributes(), [Attribute::XOR_PEER_ADDRESS, Attribute::DATA]);
    assert_eq!(outcome.bytes.len(), 20 + 12 + 4 + 8);
    let again = t.peer(PEER_A2).sends(b"hello").hears(data(PEER_A2, b"hello"));
    assert_ne!(outcome.bytes[8..20], again.bytes[8..20], "each indication has its own transaction");
}

#[test]
fn d08_v05_an_ipv6_peer_has_a_longer_head_and_the_same_bytes() {
    let mut t = Turn::new();
    let ask = allocate().with(Attribute::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    t.joins("alice").learns_a_nonce().says(ask).hears(success());
    t.says(create_permission(&[PEER_V6])).hears(success());
    t.peer(PEER_V6).sends(b"hello").hears(data(PEER_V6, b"hello"));
    t.says(send(PEER_V6, b"hello")).reaches(PEER_V6, b"hello");
    t.says(send(PEER_A, b"hello")).hears(dropped(Dropped::NoPermission));
}

#[test]
fn d10_c24_a_bound_peer_arrives_as_channel_data_and_its_other_ports_do_not() {
    let mut t = permitted();
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.peer(PEER_A).sends(b"hello").hears(channel(0x4000, b"hello"));
    t.peer(PEER_A2).sends(b"hello").hears(data(PEER_A2, b"hello"));
}

#[test]
fn d16_indications_are_never_answered_however_many() {
    let mut t = Turn::with(|world| world.policy.limits.bandwidth_per_allocation = Some(100));
    t.joins("alice").allocates();
    t.says(create_permission(&[PEER_A])).hears(success());
    let arrived = (0..1000).filter(|_| {
        let outcome = t.says(send(PEER_A, &[0; 10]));
        assert!(!matches!(outcome.verdict, Verdict::ToClient(_)));
        matches!(outcome.verdict, Verdict::ToPeer { .. })
    });
    assert_eq!(arrived.count(), 10);
}

#[test]
fn a_send_to_port_zero_goes_nowhere() {
    let mut t = permitted();
    t.says(send(peer_at(1, 0), b"hello")).hears(dropped(Dropped::PeerDenied));
}

#[test]
fn d15_over_a_connection_data_comes_padded_and_counted_without_the_padding() {
    let mut t = Turn::new();
    t.joins_by_tcp("alice").allocates();
    t.says(create_permission(&[PEER_A])).hears(success());
    for size in 0..9 {
        let outcome = t.peer(PEER_A).sends(&[7; 9][..size]).hears(data(PEER_A, &[7; 9][..size]));
        assert_eq!(outcome.bytes.len() % 4, 0);
    }
}
