//! Channels and ChannelData, RFC 8656 §12.

use crate::support::*;
use turnserver::turn::refusal::Dropped;
use turnserver::wire::channel::ChannelNumber;
use turnserver::wire::codes::{Attribute, Method};

#[test]
fn c15_a_channel_number_rests_five_minutes_before_it_means_someone_else() {
    let mut t = Turn::allocated("alice");
    t.says(refresh_for(3600)).hears(success());
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.waits(minutes(10));
    t.says(channel_bind(0x4000, PEER_B)).hears(error(400));
    t.waits(minutes(5));
    t.says(channel_bind(0x4000, PEER_B)).hears(success());
}

#[test]
fn c01_a_channel_needs_a_number_and_a_peer() {
    let mut t = Turn::allocated("alice");
    let bare = || request(Method::CHANNEL_BIND);
    t.says(bare()).hears(error(400)).signed();
    t.says(bare().with_peer(PEER_A)).hears(error(400));
    t.says(bare().with(Attribute::CHANNEL_NUMBER, &[0x40, 0, 0, 0])).hears(error(400));
    t.says(bare().with(Attribute::CHANNEL_NUMBER, &[0x40, 0]).with_peer(PEER_A)).hears(error(400));
    let odd = channel_bind(0x4000, PEER_A).without(Attribute::XOR_PEER_ADDRESS).with(Attribute::DATA, b"");
    t.says(odd).hears(error(400));
    assert_eq!(t.gauges(), (1, 0, 0));
}

#[test]
fn c02_the_numbers_of_the_old_rfc_are_channels_and_no_others() {
    // The decision: clients of RFC 5766, coturn's among them, use numbers up to 0x7FFF; nothing else begins so.
    let mut t = Turn::allocated("alice");
    for number in [0x0000, 0x3FFF, 0x8000, 0xFFFF] {
        t.says(channel_bind(number, PEER_A)).hears(error(400));
    }
    for (host, number) in [(1, 0x4000), (2, 0x4FFF), (3, 0x5000), (4, 0x7FFE), (5, 0x7FFF)] {
        let peer = peer_at(host, 9);
        t.says(channel_bind(number, peer)).hears(success());
        t.says(channel_data(number, b"hello")).reaches(peer, b"hello");
        t.peer(peer).sends(b"hello").hears(channel(number, b"hello"));
    }
}

#[test]
fn c03_c04_a_number_means_one_peer_and_a_peer_has_one_number() {
    let mut t = Turn::allocated("alice");
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.says(channel_bind(0x4001, PEER_B)).hears(success());
    t.says(channel_bind(0x4000, PEER_C)).hears(error(400)).signed();
    t.says(channel_bind(0x4002, PEER_A)).hears(error(400));
    t.says(channel_bind(0x4000, PEER_B)).hears(error(400));
    t.says(channel_data(0x4000, b"hello")).reaches(PEER_A, b"hello");
    t.says(channel_data(0x4001, b"hello")).reaches(PEER_B, b"hello");
    t.peer(PEER_C).sends(b"hello").hears(dropped(Dropped::NoPermission));
    assert_eq!(t.gauges(), (1, 2, 2));
}

#[test]
fn c05_c06_a_channel_lasts_ten_minutes_from_the_last_time_it_was_bound() {
    let mut t = Turn::allocated("alice");
    t.says(refresh_for(3600)).hears(success());
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.waits(seconds(500));
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.waits(seconds(400));
    t.says(create_permission(&[PEER_A])).hears(success());
    t.waits(seconds(199));
    t.says(channel_data(0x4000, b"in time")).reaches(PEER_A, b"in time");
    t.peer(PEER_A).sends(b"in time").hears(channel(0x4000, b"in time"));
    t.waits(seconds(2));
    t.says(channel_data(0x4000, b"late")).hears(dropped(Dropped::NoChannel));
    t.peer(PEER_A).sends(b"late").hears(data(PEER_A, b"late"));
}

#[test]
fn c06_c23_data_keeps_no_channel_alive() {
    let mut t = Turn::allocated("alice");
    t.says(refresh_for(3600)).hears(success());
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    for _ in 0..599 {
        t.says(create_permission(&[PEER_A])).hears(success());
        t.says(channel_data(0x4000, b"to")).reaches(PEER_A, b"to");
        t.peer(PEER_A).sends(b"fro").hears(channel(0x4000, b"fro"));
        t.waits(seconds(1));
    }
    t.says(channel_data(0x4000, b"in time")).reaches(PEER_A, b"in time");
    t.waits(seconds(2));
    t.says(channel_data(0x4000, b"late")).hears(dropped(Dropped::NoChannel));
    t.peer(PEER_A).sends(b"late").hears(data(PEER_A, b"late"));
}

#[test]
fn c07_c08_a_peer_that_is_not_permitted_gets_no_channel_and_no_permission() {
    let mut t = Turn::allocated("alice");
    t.says(channel_bind(0x4000, PEER_V6)).hears(error(443)).signed();
    t.says(channel_bind(0x4000, PRIVATE)).hears(error(403)).signed();
    t.says(channel_bind(0x4000, peer_at(1, 0))).hears(error(403));
    t.peer(PEER_V6).sends(b"hello").hears(silence());
    t.peer(PRIVATE).sends(b"hello").hears(silence());
    assert_eq!(t.gauges(), (1, 0, 0));
}

#[test]
fn c09_a_full_table_takes_no_more_channels_and_loses_none() {
    let mut t = Turn::with(|world| world.policy.limits.channels_per_allocation = 2);
    t.joins("alice").allocates();
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.says(channel_bind(0x4001, PEER_B)).hears(success());
    t.says(channel_bind(0x4002, PEER_C)).hears(error(508)).signed();
    t.says(channel_bind(0x4001, PEER_B)).hears(success());
    t.peer(PEER_C).sends(b"hello").hears(dropped(Dropped::NoPermission));
    assert_eq!(t.gauges(), (1, 2, 2));
}

#[test]
fn c10_a_channel_lets_its_peers_address_in() {
    let mut t = Turn::allocated("alice");
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.peer(PEER_A2).sends(b"hello").hears(data(PEER_A2, b"hello"));
}

#[test]
fn c11_c27_binding_thrice_is_binding_once() {
    let mut t = Turn::allocated("alice");
    assert_eq!(t.says(channel_bind(0x4000, PEER_A)).hears(success()).signed().attributes(), []);
    t.first().repeats().hears(success());
    t.first().repeats().hears(success());
    assert_eq!(t.gauges(), (1, 1, 1));
}

#[test]
fn c12_reserved_bits_of_a_channel_number_mean_nothing() {
    let mut t = Turn::allocated("alice");
    let ask = request(Method::CHANNEL_BIND).with(Attribute::CHANNEL_NUMBER, &[0x40, 0, 0xFF, 0xFF]).with_peer(PEER_A);
    t.says(ask).hears(success());
    t.says(channel_data(0x4000, b"hello")).reaches(PEER_A, b"hello");
}

#[test]
fn c13_two_ports_of_one_host_are_two_peers() {
    let mut t = Turn::allocated("alice");
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.says(channel_bind(0x4001, PEER_A2)).hears(success());
    t.peer(PEER_A).sends(b"hello").hears(channel(0x4000, b"hello"));
    t.peer(PEER_A2).sends(b"hello").hears(channel(0x4001, b"hello"));
    assert_eq!(t.gauges(), (1, 1, 2));
}

#[test]
fn c14_a_number_is_an_allocations_own() {
    let mut t = Turn::allocated("alice");
    t.joins("bob").allocates();
    t.client("alice").says(channel_bind(0x4000, PEER_A)).hears(success());
    t.client("bob").says(channel_bind(0x4000, PEER_B)).hears(success());
    t.client("alice").says(channel_data(0x4000, b"a")).reaches(PEER_A, b"a");
    t.client("bob").says(channel_data(0x4000, b"b")).reaches(PEER_B, b"b");
}

#[test]
fn c15_a_number_at_rest_is_still_its_peers() {
    // The decision: the five minutes that clients have to wait are kept here, for those who do not.
    let mut t = Turn::allocated("alice");
    t.says(refresh_for(3600)).hears(success());
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.waits(seconds(700));
    t.says(channel_bind(0x4000, PEER_B)).hears(error(400));
    t.says(channel_bind(0x4001, PEER_A)).hears(error(400));
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.says(channel_data(0x4000, b"hello")).reaches(PEER_A, b"hello");
    t.waits(seconds(899));
    t.says(channel_bind(0x4000, PEER_B)).hears(error(400));
    t.waits(seconds(2));
    t.says(channel_bind(0x4001, PEER_A)).hears(success());
    t.says(channel_bind(0x4000, PEER_B)).hears(success());
}

#[test]
fn c16_a_number_nobody_bound_means_nobody() {
    let mut t = Turn::allocated("alice");
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.says(channel_data(0x4001, b"hello")).hears(dropped(Dropped::NoChannel));
}

#[test]
fn c17_what_looks_like_media_is_not_relayed() {
    let mut t = Turn::allocated("alice");
    for first in [0x80, 0x90, 0xBF, 0xC0, 0xFF] {
        t.says(bytes(&[first, 0, 0, 1, 7])).hears(dropped(Dropped::Noise));
    }
}

#[test]
fn c18_a_datagram_shorter_than_it_says_is_dropped() {
    let mut t = Turn::allocated("alice");
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    for short in [&[0x40, 0, 0, 10, 1, 2][..], &[0x40, 0, 0, 1], &[0x40, 0, 0], &[0x40, 0], &[0x40]] {
        t.says(bytes(short)).hears(dropped(Dropped::BadChannelData));
    }
}

#[test]
fn c19_c20_c21_padding_is_for_the_stream_and_not_for_the_peer() {
    let mut t = Turn::allocated("alice");
    t.joins_by_tcp("bob").allocates();
    for name in ["alice", "bob"] {
        t.client(name).says(channel_bind(0x4000, PEER_A)).hears(success());
        for size in 0..9usize {
            let payload = &[7; 9][..size];
            let mut padded = turnserver::client::channel_data(ChannelNumber::MIN, payload);
            padded.resize(padded.len().next_multiple_of(4), 0x20);
            t.client(name).says_bytes(&padded).reaches(PEER_A, payload);
            let outcome = t.peer(PEER_A).sends_to(name, payload).hears(channel(0x4000, payload));
            let expected = if name == "bob" { (4 + size).next_multiple_of(4) } else { 4 + size };
            assert_eq!(outcome.bytes.len(), expected);
        }
    }
}

#[test]
fn c22_nothing_at_all_is_relayed_as_nothing_at_all() {
    let mut t = Turn::allocated("alice");
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.says(channel_data(0x4000, b"")).reaches(PEER_A, b"");
    t.peer(PEER_A).sends(b"").hears(channel(0x4000, b""));
}

#[test]
fn c25_h09_every_size_arrives_as_it_was_sent() {
    let mut t = Turn::allocated("alice");
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    let payload: Vec<u8> = (0..65_507).map(|at| (at % 251) as u8).collect();
    for size in [1, 1400, 1472, 1500, 9000, 65_506, 65_507] {
        t.says(channel_data(0x4000, &payload[..size])).reaches(PEER_A, &payload[..size]);
        t.peer(PEER_A).sends(&payload[..size]).hears(channel(0x4000, &payload[..size]));
    }
}

#[test]
fn c26_a_channel_without_its_permission_is_silent_both_ways_until_bound_again() {
    let mut t = Turn::allocated("alice");
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.waits(seconds(301));
    t.says(channel_data(0x4000, b"hello")).hears(dropped(Dropped::NoPermission));
    t.peer(PEER_A).sends(b"hello").hears(dropped(Dropped::NoPermission));
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.says(channel_data(0x4000, b"hello")).reaches(PEER_A, b"hello");
    t.peer(PEER_A).sends(b"hello").hears(channel(0x4000, b"hello"));
}

#[test]
fn an_allocation_that_is_over_is_none_whatever_of_its_channels_was_left() {
    let mut t = Turn::allocated("alice");
    t.waits(seconds(100));
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.passes(seconds(500));
    t.says(channel_data(0x4000, b"late")).hears(dropped(Dropped::NoAllocation));
}

#[test]
fn x01_a_packet_of_more_than_eight_heads_does_not_begin_to_go_round() {
    let mut t = Turn::allocated("alice");
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    let wrapped = |heads: usize| {
        let number = ChannelNumber::new(0x4000).expect("a channel");
        (0..heads).fold(b"round".to_vec(), |inner, _| turnserver::client::channel_data(number, &inner))
    };
    t.says(bytes(&wrapped(8))).reaches(PEER_A, &wrapped(7));
    t.says(bytes(&wrapped(9))).hears(dropped(Dropped::Nested));
    t.says(send(PEER_A, &wrapped(7))).reaches(PEER_A, &wrapped(7));
    t.says(send(PEER_A, &wrapped(8))).hears(dropped(Dropped::Nested));
    // From a peer a packet gets one head more, and goes round as well.
    t.peer(PEER_A).sends(&wrapped(7)).hears(channel(0x4000, &wrapped(7)));
    t.peer(PEER_A).sends(&wrapped(8)).hears(dropped(Dropped::Nested));
}
