//! What crosses the relay beside the payload: marks of the IP header (RFC 8656 §13–§16) and ICMP errors (§11.5).

use crate::support::*;
use std::net::SocketAddr;
use turnserver::turn::FiveTuple;
use turnserver::turn::refusal::Dropped;
use turnserver::turn::tally::Transport;
use turnserver::wire::codes::Attribute;
use turnserver::wire::icmp::Icmp;
use turnserver::wire::packet::Marks;
use turnserver::wire::stun::Family;

/// Expedited forwarding, ECT(0).
const MARKED: Marks = Marks { class: 0xB8 | 2, ttl: Some(64), whole: false };
const UNREACHABLE: Icmp = Icmp { family: Family::V4, kind: 3, code: 3, mtu: 0 };

/// A client with both families, a permission for a peer of each, and a channel to PEER_B.
fn relaying() -> Turn {
    let mut t = Turn::new();
    opens(&mut t.joins("alice"));
    t
}

fn opens(client: &mut Voice<'_>) {
    client.obtains(allocate().with(Attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]));
    client.says(create_permission(&[PEER_A, PEER_V6])).hears(success());
    client.says(channel_bind(0x4000, PEER_B)).hears(success());
}

fn whole(peer: SocketAddr) -> Ask {
    send(peer, b"to").with(Attribute::DONT_FRAGMENT, &[])
}

#[test]
fn h01_h02_class_and_congestion_marks_cross_as_they_came() {
    let mut t = relaying();
    for class in 0..=255 {
        t.arriving = Marks { class, ..MARKED };
        t.says(send(PEER_A, b"to")).reaches(PEER_A, b"to");
        assert_eq!(t.marks().class, class);
        t.says(channel_data(0x4000, b"to")).reaches(PEER_B, b"to");
        assert_eq!(t.marks().class, class);
        t.peer(PEER_A).sends(b"fro").hears(data(PEER_A, b"fro"));
        assert_eq!(t.marks().class, class);
        t.peer(PEER_B).sends(b"fro").hears(channel(0x4000, b"fro"));
        assert_eq!(t.marks().class, class);
    }
}

#[test]
fn h04_each_way_through_costs_a_hop() {
    let mut t = relaying();
    for (came, leaves) in [(None, None), (Some(2), Some(1)), (Some(64), Some(63)), (Some(255), Some(254))] {
        t.arriving = Marks { ttl: came, ..MARKED };
        t.says(send(PEER_A, b"to")).reaches(PEER_A, b"to");
        assert_eq!(t.marks().ttl, leaves);
        t.peer(PEER_B).sends(b"fro").hears(channel(0x4000, b"fro"));
        assert_eq!(t.marks().ttl, leaves);
    }
}

#[test]
fn h04_x01_what_has_no_hop_left_ends_here() {
    let mut t = relaying();
    for ttl in [0, 1] {
        t.arriving = Marks { ttl: Some(ttl), ..MARKED };
        t.says(send(PEER_A, b"to")).hears(dropped(Dropped::Ttl));
        t.says(channel_data(0x4000, b"to")).hears(dropped(Dropped::Ttl));
        t.peer(PEER_A).sends(b"fro").hears(dropped(Dropped::Ttl));
        t.peer(PEER_B).sends(b"fro").hears(dropped(Dropped::Ttl));
    }
    t.says(refresh_for(0)).hears(success());
    let usage = t.ended[0].1;
    assert_eq!((usage.packets_to_peer, usage.packets_to_client), (0, 0));
}

#[test]
fn h04_an_answer_is_a_packet_of_its_own() {
    let mut t = Turn::new();
    t.joins("alice");
    t.arriving = Marks { class: 0xFF, ttl: Some(1), whole: true };
    t.says(binding()).hears(success());
    assert_eq!(t.marks(), Marks::default());
    t.first().allocates();
    assert_eq!(t.marks(), Marks::default());
    t.says(create_permission(&[PRIVATE])).hears(error(403));
    assert_eq!(t.marks(), Marks::default());
}

#[test]
fn h03_d06_a_send_says_itself_whether_it_may_be_cut() {
    let mut t = relaying();
    for came in [false, true] {
        t.arriving = Marks { whole: came, ..MARKED };
        t.says(whole(PEER_A)).reaches(PEER_A, b"to");
        assert!(t.marks().whole);
        t.says(send(PEER_A, b"to")).reaches(PEER_A, b"to");
        assert!(!t.marks().whole);
        t.says(channel_data(0x4000, b"to")).reaches(PEER_B, b"to");
        assert_eq!(t.marks().whole, came);
    }
}

#[test]
fn h05_h06_with_ipv6_on_either_side_dont_fragment_means_nothing_and_the_packet_passes() {
    let mut t = relaying();
    let client = "[2a00:30::1]:4000".parse().expect("an address");
    let tuple = FiveTuple { transport: Transport::Udp, client, server: SERVER_V6 };
    opens(&mut t.joins_at("v6", "alice", &password_of("alice"), tuple));
    t.arriving = MARKED;
    for (name, peer, is_heeded) in
        [("alice", PEER_A, true), ("alice", PEER_V6, false), ("v6", PEER_V6, false), ("v6", PEER_A, false)]
    {
        t.client(name).says(whole(peer)).reaches(peer, b"to");
        assert_eq!(t.marks(), Marks { class: MARKED.class, ttl: Some(63), whole: is_heeded });
    }
}

#[test]
fn h07_from_a_connection_packets_leave_unmarked() {
    let mut t = Turn::new();
    opens(&mut t.joins_by_tcp("alice"));
    t.says(send(PEER_A, b"to")).reaches(PEER_A, b"to");
    assert_eq!(t.marks(), Marks::default());
    t.says(channel_data(0x4000, b"to")).reaches(PEER_B, b"to");
    assert_eq!(t.marks(), Marks::default());
    t.says(whole(PEER_A)).reaches(PEER_A, b"to");
    assert_eq!(t.marks(), Marks { whole: true, ..Marks::default() });
}

#[test]
fn d11_d13_a_client_hears_what_became_of_its_packet() {
    let mut t = relaying();
    let path = t.path_of("alice");
    let outcome = t.peer(PEER_A).refuses("alice", UNREACHABLE).hears(icmp(PEER_A, [0, 0, 6, 3, 0, 0, 0, 0]));
    assert_eq!(outcome.clone().comes_by(path).attributes(), [Attribute::XOR_PEER_ADDRESS, Attribute::ICMP]);
    assert_eq!(outcome.bytes.len(), 20 + 12 + 12);
    assert_eq!(t.marks(), Marks::default());
    let gone = Icmp { family: Family::V6, kind: 1, code: 4, mtu: 0 };
    t.peer(PEER_V6).refuses("alice", gone).hears(icmp(PEER_V6, [0, 0, 2, 4, 0, 0, 0, 0]));
    let exceeded = Icmp { family: Family::V4, kind: 11, code: 0, mtu: 0 };
    t.peer(PEER_A).refuses("alice", exceeded).hears(icmp(PEER_A, [0, 0, 22, 0, 0, 0, 0, 0]));
}

#[test]
fn d13_an_error_whose_port_nobody_knows_has_port_zero() {
    let mut t = relaying();
    let peer = peer_at(1, 0);
    t.peer(peer).refuses("alice", UNREACHABLE).hears(icmp(peer, [0, 0, 6, 3, 0, 0, 0, 0]));
}

#[test]
fn d13_an_error_is_told_the_same_way_where_a_channel_is_bound() {
    let mut t = relaying();
    t.peer(PEER_B).refuses("alice", UNREACHABLE).hears(icmp(PEER_B, [0, 0, 6, 3, 0, 0, 0, 0]));
}

#[test]
fn d14_a_packet_that_was_too_big_learns_what_would_have_fitted() {
    let mut t = relaying();
    let too_big = Icmp { family: Family::V4, kind: 3, code: 4, mtu: 1400 };
    t.peer(PEER_A).refuses("alice", too_big).hears(icmp(PEER_A, [0, 0, 6, 4, 0, 0, 5, 0x78]));
    let too_big = Icmp { family: Family::V6, kind: 2, code: 0, mtu: 1280 };
    t.peer(PEER_V6).refuses("alice", too_big).hears(icmp(PEER_V6, [0, 0, 4, 0, 0, 0, 5, 0]));
    let with_mtu = Icmp { mtu: 1400, ..UNREACHABLE };
    t.peer(PEER_A).refuses("alice", with_mtu).hears(icmp(PEER_A, [0, 0, 6, 3, 0, 0, 0, 0]));
}

#[test]
fn d11_what_is_no_error_is_not_told() {
    let mut t = relaying();
    for kind in 0..=255 {
        let (v4, v6) = (Icmp { kind, ..UNREACHABLE }, Icmp { kind, family: Family::V6, ..UNREACHABLE });
        if ![3, 11].contains(&kind) {
            t.peer(PEER_A).refuses("alice", v4).hears(dropped(Dropped::Unexpected));
        }
        if ![1, 2, 3].contains(&kind) {
            t.peer(PEER_V6).refuses("alice", v6).hears(dropped(Dropped::Unexpected));
        }
    }
}

#[test]
fn d12_the_peer_that_was_meant_needs_the_permission_whoever_sent_the_error() {
    let mut t = relaying();
    t.peer(PEER_C).refuses("alice", UNREACHABLE).hears(dropped(Dropped::NoPermission));
    t.waits(minutes(5));
    t.peer(PEER_A).refuses("alice", UNREACHABLE).hears(dropped(Dropped::NoPermission));
    t.says(create_permission(&[PEER_A])).hears(success());
    t.reloads(|world| world.deny.push("11.0.0.1/32".parse().expect("a prefix")));
    t.peer(PEER_A).refuses("alice", UNREACHABLE).hears(dropped(Dropped::NoPermission));
}

#[test]
fn d12_an_error_for_an_address_that_is_gone_reaches_nobody() {
    let mut t = relaying();
    t.says(refresh_for(0).with(Attribute::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0])).hears(success());
    let gone = Icmp { family: Family::V6, kind: 1, code: 4, mtu: 0 };
    t.peer(PEER_V6).refuses("alice", gone).hears(dropped(Dropped::NoAllocation));
    t.says(refresh_for(0)).hears(success());
    t.peer(PEER_A).refuses("alice", UNREACHABLE).hears(dropped(Dropped::NoAllocation));
    t.first().allocates();
    t.says(create_permission(&[PEER_A])).hears(success());
    t.passes(minutes(10)); // and nobody wakes the server
    t.peer(PEER_A).refuses("alice", UNREACHABLE).hears(silence());
}

#[test]
fn d11_over_a_connection_an_error_is_a_whole_message_too() {
    let mut t = Turn::new();
    opens(&mut t.joins_by_tcp("alice"));
    t.peer(PEER_A).refuses("alice", UNREACHABLE).hears(icmp(PEER_A, [0, 0, 6, 3, 0, 0, 0, 0]));
    t.says(refresh_for(0)).hears(success());
    assert_eq!(t.ended[0].1.packets_to_client, 0, "an error is no data");
}
