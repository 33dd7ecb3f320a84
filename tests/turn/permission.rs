//! Permissions and CreatePermission, RFC 8656 §9, §10.

use crate::support::*;
use turnserver::turn::refusal::Dropped;
use turnserver::wire::codes::Attribute;

const FAMILY_THREE: [u8; 8] = [0, 3, 0, 0, 1, 1, 1, 1];

#[test]
fn p01_a_permission_lasts_five_minutes() {
    let mut t = Turn::allocated("alice");
    t.says(create_permission(&[PEER_A])).hears(success());
    t.waits(seconds(299));
    t.peer(PEER_A).sends(b"in time").hears(data(PEER_A, b"in time"));
    t.waits(seconds(2));
    t.peer(PEER_A).sends(b"late").hears(dropped(Dropped::NoPermission));
    assert_eq!(t.gauges(), (1, 0, 0));
}

#[test]
fn p02_c10_asking_again_makes_it_five_minutes_again() {
    for ask in [create_permission(&[PEER_A2]), channel_bind(0x4000, PEER_A2)] {
        let mut t = Turn::allocated("alice");
        t.says(create_permission(&[PEER_A])).hears(success());
        t.waits(seconds(200));
        t.says(ask).hears(success());
        t.waits(seconds(299));
        t.peer(PEER_A).sends(b"in time").hears(data(PEER_A, b"in time"));
        t.waits(seconds(2));
        t.peer(PEER_A).sends(b"late").hears(silence());
    }
}

#[test]
fn p03_a_permission_is_for_an_address_whatever_the_port() {
    let mut t = Turn::allocated("alice");
    t.says(create_permission(&[PEER_A])).hears(success());
    t.peer(PEER_A2).sends(b"hello").hears(data(PEER_A2, b"hello"));
    t.says(send(PEER_A2, b"hello")).reaches(PEER_A2, b"hello");
}

#[test]
fn p04_x07_a_stranger_is_not_heard() {
    let mut t = Turn::allocated("alice");
    t.says(create_permission(&[PEER_A])).hears(success());
    t.peer(PEER_B).sends(b"hello").hears(dropped(Dropped::NoPermission));
}

#[test]
fn p05_the_permission_of_one_allocation_is_none_of_another() {
    let mut t = Turn::allocated("alice");
    t.joins_as("phone", "alice", &password_of("alice"), turnserver::turn::tally::Transport::Udp).allocates();
    t.says(create_permission(&[PEER_A])).hears(success());
    t.peer(PEER_A).sends_to("phone", b"hello").hears(dropped(Dropped::NoPermission));
    t.client("phone").says(send(PEER_A, b"hello")).hears(dropped(Dropped::NoPermission));
}

#[test]
fn p06_c23_data_keeps_no_permission_alive() {
    let mut t = Turn::allocated("alice");
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    for _ in 0..30 {
        t.says(channel_data(0x4000, b"hello")).reaches(PEER_A, b"hello");
        t.says(send(PEER_A, b"hello")).reaches(PEER_A, b"hello");
        t.peer(PEER_A).sends(b"hello").hears(channel(0x4000, b"hello"));
        t.waits(seconds(10));
    }
    t.says(channel_data(0x4000, b"late")).hears(dropped(Dropped::NoPermission));
    t.says(send(PEER_A, b"late")).hears(dropped(Dropped::NoPermission));
    t.peer(PEER_A).sends(b"late").hears(dropped(Dropped::NoPermission));
}

#[test]
fn p07_a_permission_for_nobody_is_a_bad_request() {
    let mut t = Turn::allocated("alice");
    t.says(create_permission(&[])).hears(error(400)).signed();
}

#[test]
fn p08_one_address_that_is_none_spoils_the_whole_list() {
    let mut t = Turn::allocated("alice");
    let good = || create_permission(&[PEER_A]);
    t.says(good().with(Attribute::XOR_PEER_ADDRESS, &FAMILY_THREE)).hears(error(400));
    for len in [0, 4, 7, 9, 19, 20] {
        t.says(
            good().with(
                Attribute::XOR_PEER_ADDRESS,
                &[0, 1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..len],
            ),
        )
        .hears(error(400));
    }
    t.peer(PEER_A).sends(b"hello").hears(dropped(Dropped::NoPermission));
    assert_eq!(t.gauges(), (1, 0, 0));
}

#[test]
fn p09_several_peers_in_one_request_are_all_let_in() {
    let mut t = Turn::allocated("alice");
    t.says(create_permission(&[PEER_A, PEER_B, PEER_C, PEER_A2])).hears(success());
    for peer in [PEER_A, PEER_B, PEER_C] {
        t.peer(peer).sends(b"hello").hears(data(peer, b"hello"));
    }
    assert_eq!(t.gauges(), (1, 3, 0));
}

#[test]
fn p10_v04_a_peer_of_the_other_family_is_a_mismatch_and_spoils_the_list() {
    let mut t = Turn::allocated("alice");
    t.says(create_permission(&[PEER_A, PEER_V6])).hears(error(443));
    t.peer(PEER_A).sends(b"hello").hears(silence());
    let ask = allocate().with(Attribute::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    t.joins("bob").learns_a_nonce().says(ask).hears(success());
    t.client("bob").says(create_permission(&[PEER_A])).hears(error(443));
    t.client("bob").says(create_permission(&[PEER_V6])).hears(success());
    for (name, own, other) in [("alice", PEER_A, PEER_V6), ("bob", PEER_V6, PEER_A)] {
        t.client(name).says(channel_bind(0x4000, other)).hears(error(443)).signed();
        t.client(name).says(create_permission(&[own])).hears(success());
        t.client(name).says(send(other, b"hello")).hears(silence());
        t.client(name).says(send(own, b"hello")).reaches(own, b"hello");
    }
}

#[test]
fn p11_a_forbidden_peer_spoils_the_list() {
    // The decision: all of the list or nobody.
    let mut t = Turn::allocated("alice");
    t.says(create_permission(&[PEER_A, PRIVATE, PEER_B])).hears(error(403)).signed();
    t.peer(PEER_A).sends(b"hello").hears(silence());
    assert_eq!(t.gauges(), (1, 0, 0));
    assert_eq!(t.tally.peer_denied.get(), 1);
}

#[test]
fn p12_a_full_table_takes_no_more_and_loses_nothing() {
    let mut t = Turn::with(|world| world.policy.limits.permissions_per_allocation = 4);
    t.joins("alice").allocates();
    let peers: Vec<_> = (1..=6).map(|host| peer_at(host, 1)).collect();
    t.says(create_permission(&peers[..5])).hears(error(508));
    t.says(create_permission(&peers[..4])).hears(success());
    t.says(create_permission(&peers[4..5])).hears(error(508)).signed();
    t.says(create_permission(&peers[3..5])).hears(error(508));
    t.says(create_permission(&peers[..4])).hears(success());
    t.says(channel_bind(0x4000, peers[4])).hears(error(508));
    t.says(channel_bind(0x4000, peers[0])).hears(success());
    t.peer(peers[3]).sends(b"hello").hears(data(peers[3], b"hello"));
    assert_eq!(t.gauges(), (1, 4, 1));
    t.passes(seconds(300)); // what is over makes room, also before anybody has swept
    t.says(create_permission(&peers[2..6])).hears(success());
    t.says(refresh()).hears(success());
    t.passes(seconds(300));
    t.says(create_permission(&peers[..1])).hears(success()); // one is enough to look who is still there
}

#[test]
fn p13_a_permission_has_no_port() {
    let mut t = Turn::allocated("alice");
    t.says(create_permission(&[peer_at(1, 0), peer_at(2, 65535)])).hears(success());
    t.peer(PEER_A).sends(b"hello").hears(data(PEER_A, b"hello"));
}

#[test]
fn p14_p15_asking_thrice_is_asking_once() {
    let mut t = Turn::allocated("alice");
    assert_eq!(t.says(create_permission(&[PEER_A])).hears(success()).signed().attributes(), []);
    t.first().repeats().hears(success());
    t.first().repeats().hears(success());
    assert_eq!(t.gauges(), (1, 1, 0));
}

#[test]
fn p16_a_new_allocation_on_the_same_5_tuple_knows_nobody() {
    let mut t = Turn::allocated("alice");
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.says(refresh_for(0)).hears(success());
    t.first().allocates();
    t.peer(PEER_A).sends(b"hello").hears(dropped(Dropped::NoPermission));
    t.says(channel_data(0x4000, b"hello")).hears(dropped(Dropped::NoChannel));
    t.says(send(PEER_A, b"hello")).hears(dropped(Dropped::NoPermission));
}
