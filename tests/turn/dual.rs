//! Two relay addresses in one allocation, one of each family (RFC 8656 §7.2, §8.2).

use crate::support::*;
use std::net::{IpAddr, SocketAddr};
use turnserver::turn::peers::RelayAddress;
use turnserver::turn::refusal::{Dropped, Ended};
use turnserver::turn::tally::Transport;
use turnserver::turn::{BindError, FiveTuple};
use turnserver::wire::codes::Attribute;
use turnserver::wire::stun::Family;

const V4: [u8; 4] = [1, 0, 0, 0];
const V6: [u8; 4] = [2, 0, 0, 0];

fn also(value: [u8; 4]) -> Ask {
    allocate().with(Attribute::ADDITIONAL_ADDRESS_FAMILY, &value)
}

fn refresh_of(family: [u8; 4], lifetime: u32) -> Ask {
    refresh_for(lifetime).with(Attribute::REQUESTED_ADDRESS_FAMILY, &family)
}

/// A server with one client that has both relay addresses.
fn dual() -> Turn {
    let mut t = Turn::new();
    t.joins("alice").obtains(also(V6));
    t
}

fn on_v4_only() -> Turn {
    let mut t = Turn::with(|world| world.relays = vec![RelayAddress { local: HOST.into(), external: HOST.into() }]);
    t.joins("alice").learns_a_nonce();
    t
}

fn families(outcome: &Outcome) -> Vec<Family> {
    outcome.relayed().into_iter().map(family).collect()
}

#[test]
fn l10_l13_l18_l26_what_contradicts_itself_is_a_bad_request() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    let odd = [
        also(V6).with(Attribute::RESERVATION_TOKEN, &[7; 8]),
        also(V6).with(Attribute::REQUESTED_ADDRESS_FAMILY, &V4),
        also(V6).with(Attribute::REQUESTED_ADDRESS_FAMILY, &V6),
        also(V6).with(Attribute::EVEN_PORT, &[0x80]),
        also(V4),
        also([0, 0, 0, 0]),
        also([3, 0, 0, 0]),
        allocate().with(Attribute::ADDITIONAL_ADDRESS_FAMILY, &[2]),
        allocate().with(Attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0, 0]),
        allocate().with(Attribute::ADDITIONAL_ADDRESS_FAMILY_DRAFT, &V4),
    ];
    for ask in odd {
        t.says(ask).hears(error(400)).signed();
    }
    t.is_as_new();
}

#[test]
fn l27_both_families_are_told_and_the_reserved_bits_do_not_count() {
    let mut t = Turn::new();
    let granted = t.joins("alice").obtains(also([2, 0xFF, 0xFF, 0xFF]));
    assert_eq!(families(&granted), [Family::V4, Family::V6]);
    assert!(granted.get(Attribute::ADDRESS_ERROR_CODE).is_none());
    assert_eq!((t.ports.used(), t.gauges()), (2, (1, 0, 0)));
    let again = t.first().repeats().hears(success());
    assert_eq!(again.relayed(), granted.relayed());
    t.waits(minutes(10) + seconds(1));
    let (session, _, why) = &t.ended[0];
    assert_eq!((vec![session.relay, session.second_relay.unwrap()], *why), (granted.relayed(), Ended::Expired));
    t.is_as_new();
}

#[test]
fn l27_p10_both_relay_both_ways_each_to_its_own_family() {
    let mut t = dual();
    t.says(send(PEER_V6, b"early")).hears(dropped(Dropped::NoPermission));
    t.says(create_permission(&[PEER_A, PEER_V6])).hears(success());
    for peer in [PEER_A, PEER_V6] {
        t.says(send(peer, b"to")).reaches(peer, b"to");
        t.peer(peer).sends(b"fro").hears(data(peer, b"fro"));
    }
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.says(channel_bind(0x4001, PEER_V6)).hears(success());
    for (number, peer) in [(0x4000, PEER_A), (0x4001, PEER_V6)] {
        t.says(channel_data(number, b"to")).reaches(peer, b"to");
        t.peer(peer).sends(b"fro").hears(channel(number, b"fro"));
    }
}

#[test]
fn v05_a_client_over_ipv6_and_one_over_tcp_have_both_as_well() {
    let mut t = Turn::new();
    let client = "[2a00:30::1]:4000".parse().expect("an address");
    let tuple = FiveTuple { transport: Transport::Udp, client, server: SERVER_V6 };
    t.joins_at("alice", "alice", &password_of("alice"), tuple).obtains(also(V6));
    t.joins_by_tcp("bob").obtains(also(V6));
    for name in ["alice", "bob"] {
        t.client(name).says(create_permission(&[PEER_A, PEER_V6])).hears(success());
        for peer in [PEER_A, PEER_V6] {
            t.client(name).says(send(peer, b"to")).reaches(peer, b"to");
            t.peer(peer).sends_to(name, b"fro").hears(data(peer, b"fro"));
        }
    }
}

#[test]
fn l28_l30_a_family_this_server_has_not_is_named_with_440() {
    let mut t = on_v4_only();
    let granted = t.says(also(V6)).hears(success());
    assert_eq!(families(&granted), [Family::V4]);
    let why = granted.get(Attribute::ADDRESS_ERROR_CODE).expect("the reason");
    assert_eq!(why[..4], [2, 0, 4, 40]);
    assert!(std::str::from_utf8(&why[4..]).is_ok_and(|reason| reason.chars().count() < 128));
    let again = t.first().repeats().hears(success());
    assert_eq!(again.get(Attribute::ADDRESS_ERROR_CODE), Some(why));
    t.says(create_permission(&[PEER_V6])).hears(error(443));
    t.says(refresh_of(V6, 600)).hears(error(443));
}

#[test]
fn l28_a_server_without_ipv4_grants_the_other_family() {
    let mut t =
        Turn::with(|world| world.relays = vec![RelayAddress { local: HOST_V6.into(), external: HOST_V6.into() }]);
    t.joins("alice").learns_a_nonce();
    let granted = t.says(also(V6)).hears(success());
    assert_eq!(families(&granted), [Family::V6]);
    assert_eq!(granted.get(Attribute::ADDRESS_ERROR_CODE).expect("the reason")[..4], [1, 0, 4, 40]);
    t.says(create_permission(&[PEER_A])).hears(error(443));
    t.says(create_permission(&[PEER_V6])).hears(success());
}

#[test]
fn l28_a_family_without_a_free_port_is_named_with_508() {
    let mut t = Turn::with(|world| world.relay_ports = 50_000..=50_000);
    let v6 = allocate().with(Attribute::REQUESTED_ADDRESS_FAMILY, &V6);
    t.joins("bob").obtains(v6);
    t.joins("alice").learns_a_nonce();
    let granted = t.client("alice").says(also(V6)).hears(success());
    assert_eq!(families(&granted), [Family::V4]);
    assert_eq!(granted.get(Attribute::ADDRESS_ERROR_CODE).expect("the reason")[..4], [2, 0, 5, 8]);
}

#[test]
fn l28_who_speaks_the_numbers_of_the_draft_is_answered_in_them() {
    let mut t = on_v4_only();
    let granted = t.says(allocate().with(Attribute::ADDITIONAL_ADDRESS_FAMILY_DRAFT, &V6)).hears(success());
    assert!(granted.get(Attribute::ADDRESS_ERROR_CODE).is_none());
    assert_eq!(granted.get(Attribute::ADDRESS_ERROR_CODE_DRAFT).expect("the reason")[..4], [2, 0, 4, 40]);
    assert_eq!((Attribute::ADDITIONAL_ADDRESS_FAMILY_DRAFT.0, Attribute::ADDRESS_ERROR_CODE_DRAFT.0), (0x8032, 0x8033));
    let mut t = Turn::new();
    let granted = t.joins("bob").obtains(allocate().with(Attribute::ADDITIONAL_ADDRESS_FAMILY_DRAFT, &V6));
    assert_eq!(families(&granted), [Family::V4, Family::V6]);
}

#[test]
fn l29_without_any_port_there_is_no_room() {
    let mut t = Turn::with(|world| world.relay_ports = 50_000..=50_000);
    t.joins("bob").obtains(also(V6));
    t.joins("alice").learns_a_nonce();
    t.client("alice").says(also(V6)).hears(error(508));
    assert_eq!(t.gauges(), (1, 0, 0));
    let mut t = Turn::with(|world| world.relays.clear());
    t.joins("alice").learns_a_nonce();
    t.says(also(V6)).hears(error(508));
}

#[test]
fn l46_a_dual_allocate_that_fails_leaves_nothing_behind() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    for (why, code) in [(BindError::Quota, 486), (BindError::NoResources, 508), (BindError::System, 500)] {
        t.bind_fails = Some(why);
        t.says(also(V6)).hears(error(code));
        t.is_as_new();
    }
}

#[test]
fn r05_a_refresh_of_a_family_that_is_not_there_changes_nothing() {
    let mut t = Turn::allocated("alice");
    for family in [V6, [3, 0, 0, 0], [0, 0, 0, 0]] {
        t.says(refresh_of(family, 0)).hears(error(443));
        t.says(refresh_of(family, 3600)).hears(error(443));
    }
    t.says(refresh_of(V4, 700)).hears(success()).for_seconds(700);
    t.says(refresh_of(V4, 0)).hears(success()).for_seconds(0);
    t.is_as_new();
}

#[test]
fn r06_one_family_goes_with_its_permissions_and_channels_and_the_other_stays() {
    for (gone, kept) in [((V6, PEER_V6, 0x4001), (V4, PEER_A, 0x4000)), ((V4, PEER_A, 0x4000), (V6, PEER_V6, 0x4001))] {
        let mut t = dual();
        t.says(channel_bind(0x4000, PEER_A)).hears(success());
        t.says(channel_bind(0x4001, PEER_V6)).hears(success());
        t.says(refresh_of(gone.0, 0)).hears(success()).for_seconds(0);
        assert_eq!((t.gauges(), t.ports.used(), t.sockets()), ((1, 1, 1), 1, 1));
        t.says(channel_data(gone.2, b"to")).hears(dropped(Dropped::NoChannel));
        t.says(send(gone.1, b"to")).hears(dropped(Dropped::NoPermission));
        t.peer(gone.1).sends(b"fro").hears(dropped(Dropped::NoAllocation));
        t.says(channel_bind(gone.2, gone.1)).hears(error(443));
        t.says(create_permission(&[gone.1, kept.1])).hears(error(443));
        t.says(refresh_of(gone.0, 600)).hears(error(443));
        t.says(channel_data(kept.2, b"to")).reaches(kept.1, b"to");
        t.peer(kept.1).sends(b"fro").hears(channel(kept.2, b"fro"));
        t.says(refresh()).hears(success());
        t.says(refresh_of(kept.0, 0)).hears(success());
        t.is_as_new();
    }
}

#[test]
fn r07_a_refresh_that_names_no_family_means_both() {
    let mut t = dual();
    t.waits(minutes(9));
    t.says(refresh_for(1200)).hears(success()).for_seconds(1200);
    t.waits(minutes(19));
    assert_eq!((t.gauges(), t.ports.used()), ((1, 0, 0), 2));
    t.says(refresh_for(0)).hears(success()).for_seconds(0);
    assert_eq!(t.ended[0].2, Ended::Released);
    t.is_as_new();
}

#[test]
fn one_family_can_run_out_before_the_other() {
    let mut t = dual();
    t.says(channel_bind(0x4001, PEER_V6)).hears(success());
    t.says(refresh_of(V4, 1200)).hears(success()).for_seconds(1200);
    t.waits(minutes(10) + seconds(1));
    assert_eq!((t.gauges(), t.ports.used(), t.ended.len()), ((1, 0, 0), 1, 0));
    t.says(create_permission(&[PEER_V6])).hears(error(443));
    t.says(create_permission(&[PEER_A])).hears(success());
    t.says(send(PEER_A, b"to")).reaches(PEER_A, b"to");
    t.waits(minutes(10));
    assert_eq!(t.ended[0].2, Ended::Expired);
    t.is_as_new();
}

#[test]
fn r10_a_family_is_over_to_the_second_and_no_refresh_brings_it_back() {
    for (ask, after) in [(refresh_of(V6, 600), error(443)), (refresh_for(600), success())] {
        let mut t = dual();
        t.says(refresh_of(V4, 1200)).hears(success());
        t.says(create_permission(&[PEER_V6])).hears(success());
        t.passes(minutes(5) - seconds(1));
        t.says(create_permission(&[PEER_V6])).hears(success());
        t.passes(minutes(5) + seconds(1)); // and nobody wakes the server
        t.says(send(PEER_V6, b"late")).hears(silence());
        t.peer(PEER_V6).sends(b"late").hears(dropped(Dropped::NoAllocation));
        t.says(ask).hears(after);
        t.says(create_permission(&[PEER_V6])).hears(error(443));
        assert_eq!(t.ports.used(), 1);
    }
}

#[test]
fn r06_what_is_released_twice_is_released_once() {
    let mut t = dual();
    t.says(refresh_of(V6, 0)).hears(success());
    t.says(refresh_of(V6, 0)).hears(error(443));
    t.says(refresh_of(V4, 0)).hears(success());
    t.says(refresh_of(V4, 0)).hears(error(437));
    t.is_as_new();
}

#[test]
fn t13_both_families_count_as_one_allocation() {
    let mut t = Turn::with(|world| world.policy.limits.allocations_per_user = 2);
    for name in ["desk", "phone"] {
        t.joins_as(name, "alice", &password_of("alice"), Transport::Udp).obtains(also(V6));
    }
    t.joins_as("tablet", "alice", &password_of("alice"), Transport::Udp).learns_a_nonce();
    t.client("tablet").says(also(V6)).hears(error(486));
    t.client("desk").says(refresh_of(V6, 0)).hears(success());
    t.client("tablet").says(also(V6)).hears(error(486)); // half of an allocation is one
    t.client("desk").says(refresh_of(V4, 0)).hears(success());
    t.client("tablet").says(also(V6)).hears(success());
    assert_eq!((t.gauges().0, t.ports.used()), (2, 4));
    t.stops();
    t.is_as_new();
}

#[test]
fn p08_a_permission_for_one_family_says_nothing_about_the_other() {
    let mut t = dual();
    let mapped: IpAddr = "::ffff:11.0.0.1".parse().expect("an address");
    t.says(create_permission(&[PEER_A])).hears(success());
    t.says(create_permission(&[SocketAddr::new(mapped, 1111)])).hears(error(403));
    t.peer(PEER_V6).sends(b"fro").hears(dropped(Dropped::NoPermission));
    t.says(send(PEER_V6, b"to")).hears(dropped(Dropped::NoPermission));
}
