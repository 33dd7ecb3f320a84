//! Refresh, RFC 8656 §8.

use crate::support::*;
use turnserver::turn::refusal::{Dropped, Ended};
use turnserver::turn::tally::Transport;
use turnserver::wire::codes::Attribute;

#[test]
fn r01_r04_a_refresh_without_a_lifetime_is_for_ten_minutes() {
    let mut t = Turn::allocated("alice");
    t.waits(seconds(300));
    let outcome = t.says(refresh()).hears(success()).for_seconds(600);
    assert_eq!(outcome.attributes(), [Attribute::LIFETIME, Attribute::SOFTWARE]);
    t.waits(seconds(599));
    t.says(refresh()).hears(success());
}

#[test]
fn r02_r11_a_lifetime_of_zero_ends_it_at_once_and_only_once() {
    let mut t = Turn::allocated("alice");
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.says(refresh_for(0)).hears(success()).for_seconds(0);
    assert_eq!(t.ended[0].2, Ended::Released);
    t.is_as_new();
    t.says(create_permission(&[PEER_A])).hears(error(437));
    t.peer(PEER_A).sends(b"late").hears(dropped(Dropped::NoAllocation));
    t.says(channel_data(0x4000, b"late")).hears(dropped(Dropped::NoAllocation));
    t.says(refresh_for(0)).hears(error(437));
}

#[test]
fn t11_the_same_release_again_finds_nothing() {
    // The decision: 437, which clients take for the end they have asked for.
    let mut t = Turn::allocated("alice");
    t.says(refresh_for(0)).hears(success());
    t.first().repeats().hears(error(437));
    t.is_as_new();
}

#[test]
fn r05_v03_a_refresh_of_the_other_family_is_a_mismatch() {
    let mut t = Turn::allocated("alice");
    for family in [0, 2, 3] {
        t.says(refresh_for(0).with(Attribute::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0])).hears(error(443));
    }
    assert_eq!(t.gauges().0, 1);
    t.says(refresh().with(Attribute::REQUESTED_ADDRESS_FAMILY, &[1, 255, 255, 255])).hears(success());
}

#[test]
fn r08_a_refresh_needs_the_right_key_and_a_fresh_nonce() {
    let mut t = Turn::allocated("alice");
    t.says(refresh_for(0).forged()).hears(error(401));
    t.says(refresh_for(0).unsigned()).hears(error(401));
    t.says(refresh_for(0).but(Attribute::NONCE, b"old")).hears(error(438));
    t.says(refresh_for(0).by_user("bob", &password_of("bob"))).hears(error(441));
    assert_eq!(t.gauges().0, 1);
}

#[test]
fn r09_a_refresh_keeps_neither_permissions_nor_channels() {
    let mut t = Turn::allocated("alice");
    t.says(create_permission(&[PEER_A])).hears(success());
    t.says(channel_bind(0x4000, PEER_B)).hears(success());
    t.waits(seconds(200));
    t.says(refresh()).hears(success());
    t.waits(seconds(99));
    t.peer(PEER_A).sends(b"in time").hears(data(PEER_A, b"in time"));
    t.waits(seconds(2));
    t.peer(PEER_A).sends(b"late").hears(dropped(Dropped::NoPermission));
    t.says(refresh()).hears(success());
    t.waits(seconds(298));
    t.says(create_permission(&[PEER_B])).hears(success());
    t.says(channel_data(0x4000, b"in time")).reaches(PEER_B, b"in time");
    t.waits(seconds(2));
    t.says(channel_data(0x4000, b"late")).hears(dropped(Dropped::NoChannel));
}

#[test]
fn r10_one_second_before_the_end_is_early_enough_and_one_after_is_not() {
    let mut t = Turn::allocated("alice");
    t.waits(seconds(599));
    t.says(refresh()).hears(success());
    t.waits(seconds(601));
    t.says(refresh()).hears(error(437));
}

#[test]
fn a_shorter_lifetime_counts_from_now() {
    let mut t = Turn::allocated("alice");
    t.says(refresh_for(3600)).hears(success());
    t.says(refresh_for(700)).hears(success()).for_seconds(700);
    t.waits(seconds(701));
    t.is_as_new();
}

#[test]
fn l41_a_lifetime_of_another_size_is_a_bad_request() {
    let mut t = Turn::allocated("alice");
    for len in [0, 2, 8] {
        t.says(refresh().with(Attribute::LIFETIME, &[0; 8][..len])).hears(error(400)).signed();
    }
    assert_eq!(t.gauges().0, 1);
}

#[test]
fn what_is_over_all_at_once_ends_a_part_at_a_time_and_relays_nothing_meanwhile() {
    let mut t = Turn::new();
    let names: Vec<String> = (0..100).map(|number| format!("phone {number}")).collect();
    for name in &names {
        t.joins_as(name, "alice", &password_of("alice"), Transport::Udp).allocates();
        t.client(name).says(channel_bind(0x4000, PEER_A)).hears(success());
    }
    t.passes(minutes(10));
    t.ticks();
    let left = t.sockets();
    assert!((68..100).contains(&left), "{left} of 100 are left after one tick");
    for name in &names {
        t.client(name).says(channel_data(0x4000, b"late")).hears(dropped(Dropped::NoAllocation));
    }
    for _ in 0..3 {
        t.ticks();
    }
    t.is_as_new();
}
