//! Allocate, RFC 8656 §7.

use crate::support::*;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use turnserver::turn::peers::RelayAddress;
use turnserver::turn::refusal::{Dropped, Ended};
use turnserver::turn::tally::Transport;
use turnserver::turn::{BindError, FiveTuple};
use turnserver::wire::codes::{Attribute, Method};
use turnserver::wire::stun::Family;

const EVEN: [u8; 1] = [0];
const PAIR: [u8; 1] = [0x80];
const V4: [u8; 4] = [1, 0, 0, 0];
const V6: [u8; 4] = [2, 0, 0, 0];

#[test]
fn t01_without_an_allocation_there_is_nothing_to_change() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    t.says(refresh()).hears(error(437)).signed();
    t.says(create_permission(&[PEER_A])).hears(error(437)).signed();
    t.says(channel_bind(0x4000, PEER_A)).hears(error(437)).signed();
}

#[test]
fn t02_t03_without_an_allocation_data_goes_nowhere() {
    let mut t = Turn::new();
    t.joins("alice");
    t.says(send(PEER_A, b"hello")).hears(dropped(Dropped::NoAllocation));
    t.says(channel_data(0x4000, b"hello")).hears(dropped(Dropped::NoAllocation));
    t.is_as_new();
}

#[test]
fn t04_another_users_allocation_is_not_yours() {
    let mut t = Turn::allocated("alice");
    let bob = |ask: Ask| ask.by_user("bob", &password_of("bob"));
    t.says(bob(refresh_for(0))).hears(error(441));
    t.says(bob(create_permission(&[PEER_A]))).hears(error(441));
    t.says(bob(channel_bind(0x4000, PEER_A))).hears(error(441));
    t.says(bob(allocate())).hears(error(437));
    assert_eq!(t.gauges(), (1, 0, 0));
    t.says(refresh()).hears(success());
}

#[test]
fn t07_the_server_side_and_the_transport_are_part_of_who_one_is() {
    let mut t = Turn::new();
    let client = "30.0.0.1:4000".parse().unwrap();
    let mut relayed = BTreeSet::new();
    for (name, transport, server) in [
        ("udp", Transport::Udp, SERVER),
        ("tcp", Transport::Tcp, SERVER),
        ("other port", Transport::Udp, SocketAddr::new(SERVER.ip(), 3479)),
    ] {
        t.joins_at(name, "alice", &password_of("alice"), FiveTuple { transport, client, server }).allocates();
        relayed.insert(t.client(name).relayed());
    }
    assert_eq!(relayed.len(), 3);
    t.client("udp").says(refresh_for(0)).hears(success());
    t.client("tcp").says(refresh()).hears(success());
    t.client("other port").says(refresh()).hears(success());
}

#[test]
fn t09_l40_the_same_allocate_again_is_answered_again_with_the_time_left() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    let first = t.says(allocate().with(Attribute::EVEN_PORT, &PAIR)).hears(success()).for_seconds(600);
    for (wait, left) in [(0, 600), (39, 561), (61, 500)] {
        t.waits(seconds(wait));
        let again = t.first().repeats().hears(success()).for_seconds(left);
        for attribute in [Attribute::XOR_RELAYED_ADDRESS, Attribute::RESERVATION_TOKEN, Attribute::XOR_MAPPED_ADDRESS] {
            assert_eq!(again.get(attribute), first.get(attribute));
        }
    }
    assert_eq!((t.gauges().0, t.tally.allocations_total.get()), (1, 1));
}

#[test]
fn t09_an_allocate_repeated_while_its_socket_is_made_gets_one_socket_and_one_answer() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    t.shell_is_slow = true;
    t.says(allocate()).hears(silence());
    t.first().repeats().hears(silence());
    t.says(allocate()).hears(error(437));
    t.says(refresh()).hears(error(437));
    assert_eq!(t.waiting.len(), 1);
    t.shell_binds().hears(success());
    t.first().repeats().hears(success());
    assert_eq!(t.sockets(), 1);
}

#[test]
fn a_client_gone_before_its_socket_was_made_leaves_none() {
    let mut t = Turn::new();
    t.joins_by_tcp("alice").learns_a_nonce();
    t.shell_is_slow = true;
    t.says(allocate()).hears(silence());
    t.first().leaves();
    t.shell_binds().hears(dropped(Dropped::NoAllocation));
    assert_eq!((t.gauges(), t.sockets(), t.ports.used()), ((0, 0, 0), 0, 0));
}

#[test]
fn t10_l02_a_second_allocate_is_a_mismatch_and_harms_nothing() {
    let mut t = Turn::allocated("alice");
    let relayed = t.first().relayed();
    t.says(allocate()).hears(error(437));
    t.says(request(Method::ALLOCATE)).hears(error(437)); // in use comes before what is missing
    t.says(create_permission(&[PEER_A])).hears(success());
    t.peer(PEER_A).sends(b"hello").hears(data(PEER_A, b"hello"));
    assert_eq!((t.first().relayed(), t.gauges().0), (relayed, 1));
}

#[test]
fn t15_data_keeps_no_allocation_alive() {
    let mut t = Turn::allocated("alice");
    for _ in 0..11 {
        t.says(channel_bind(0x4000, PEER_A)).hears(success());
        t.says(channel_data(0x4000, b"hello")).reaches(PEER_A, b"hello");
        t.peer(PEER_A).sends(b"hello").hears(channel(0x4000, b"hello"));
        t.waits(seconds(54));
    }
    t.waits(seconds(6));
    t.says(channel_data(0x4000, b"hello")).hears(silence());
}

#[test]
fn t16_when_time_is_up_everything_is_given_back() {
    let mut t = Turn::allocated("alice");
    t.says(create_permission(&[PEER_A, PEER_B])).hears(success());
    t.says(channel_bind(0x4000, PEER_C)).hears(success());
    t.waits(seconds(599));
    assert_eq!(t.gauges().0, 1);
    t.waits(seconds(2));
    t.is_as_new();
    assert_eq!(t.ended.len(), 1);
    assert_eq!(t.ended[0].2, Ended::Expired);
    t.says(refresh()).hears(error(437));
}

#[test]
fn t16_a_second_late_is_late_even_if_nobody_looked() {
    let mut t = Turn::allocated("alice");
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.passes(seconds(600));
    t.says(channel_data(0x4000, b"hello")).hears(silence());
    t.peer(PEER_A).sends(b"hello").hears(silence());
    t.says(refresh()).hears(error(437));
    t.is_as_new();
}

#[test]
fn an_allocation_of_a_day_ends_after_a_day() {
    let mut t = Turn::with(|world| world.policy.limits.max_allocation_lifetime = minutes(24 * 60));
    t.joins("alice").learns_a_nonce();
    let day = 24 * 3600;
    t.says(allocate().with(Attribute::LIFETIME, &u32::to_be_bytes(day))).hears(success()).for_seconds(day);
    t.waits(minutes(24 * 60) - seconds(1));
    assert_eq!(t.gauges().0, 1);
    t.waits(seconds(2));
    t.is_as_new();
}

#[test]
fn l03_l04_l12_l41_what_is_missing_or_of_another_size_is_a_bad_request() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    let bare = || request(Method::ALLOCATE);
    t.says(bare()).hears(error(400));
    for len in [0, 1, 3, 5, 8] {
        t.says(bare().with(Attribute::REQUESTED_TRANSPORT, &[17; 8][..len])).hears(error(400));
        t.says(allocate().with(Attribute::LIFETIME, &[0; 8][..len])).hears(error(400));
        t.says(allocate().with(Attribute::REQUESTED_ADDRESS_FAMILY, &[1; 8][..len])).hears(error(400));
    }
    for len in [0, 4, 7, 12] {
        t.says(allocate().with(Attribute::RESERVATION_TOKEN, &[0; 12][..len])).hears(error(400));
    }
    for len in [0, 2, 4] {
        t.says(allocate().with(Attribute::EVEN_PORT, &[0; 4][..len])).hears(error(400));
    }
    t.is_as_new();
}

#[test]
fn l05_what_is_neither_udp_nor_tcp_is_not_relayed_and_tcp_only_where_it_is_on() {
    let mut t = Turn::with(|world| world.policy.tcp_relays = false);
    t.joins("alice").learns_a_nonce();
    for protocol in [0, 1, 6, 16, 18, 132, 255] {
        let ask = request(Method::ALLOCATE).with(Attribute::REQUESTED_TRANSPORT, &[protocol, 0, 0, 0]);
        t.says(ask).hears(error(442));
    }
    t.is_as_new();
}

#[test]
fn l06_l17_l25_reserved_bits_mean_nothing() {
    let mut t = Turn::new();
    for name in ["transport", "family", "even", "pair"] {
        t.joins_as(name, "alice", &password_of("alice"), Transport::Udp).learns_a_nonce();
    }
    let ask = request(Method::ALLOCATE).with(Attribute::REQUESTED_TRANSPORT, &[17, 255, 255, 255]);
    t.client("transport").says(ask).hears(success());
    let ask = allocate().with(Attribute::REQUESTED_ADDRESS_FAMILY, &[2, 255, 255, 255]);
    t.client("family").says(ask).hears(success());
    assert_eq!(family(t.client("family").relayed()), Family::V6);
    let outcome = t.client("even").says(allocate().with(Attribute::EVEN_PORT, &[0x7F])).hears(success());
    assert_eq!(outcome.get(Attribute::RESERVATION_TOKEN), None);
    let outcome = t.client("pair").says(allocate().with(Attribute::EVEN_PORT, &[0xFF])).hears(success());
    assert!(outcome.get(Attribute::RESERVATION_TOKEN).is_some());
}

#[test]
fn l07_an_allocation_may_say_that_it_will_send_what_nobody_may_cut() {
    // The decision: wherever this runs DF can be set, so nobody is told 420.
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    t.says(allocate().with(Attribute::DONT_FRAGMENT, &[])).hears(success());
}

#[test]
fn l08_l09_a_reserved_port_is_what_it_is() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    let token = || allocate().with(Attribute::RESERVATION_TOKEN, &[1; 8]);
    t.says(token().with(Attribute::EVEN_PORT, &EVEN)).hears(error(400));
    t.says(token().with(Attribute::REQUESTED_ADDRESS_FAMILY, &V4)).hears(error(400));
    t.says(token().with(Attribute::REQUESTED_ADDRESS_FAMILY, &[9, 0, 0, 0])).hears(error(400));
}

#[test]
fn l11_l22_a_token_is_good_once_and_for_thirty_seconds() {
    let mut t = Turn::new();
    for name in ["one", "two", "three"] {
        t.joins_as(name, "alice", &password_of("alice"), Transport::Udp).learns_a_nonce();
    }
    t.client("one").says(allocate().with(Attribute::RESERVATION_TOKEN, &[1; 8])).hears(error(508));
    t.client("one").says(allocate().with(Attribute::EVEN_PORT, &PAIR)).hears(success());
    let token = t.client("one").party().token.expect("a pair comes with a token");
    t.waits(seconds(29));
    t.client("two").says(allocate().with(Attribute::RESERVATION_TOKEN, &token)).hears(success());
    t.client("three").says(allocate().with(Attribute::RESERVATION_TOKEN, &token)).hears(error(508));
    t.client("three").says(allocate().with(Attribute::EVEN_PORT, &PAIR)).hears(success());
    let token = t.client("three").party().token.expect("a pair comes with a token");
    t.waits(seconds(31));
    t.joins_as("four", "alice", &password_of("alice"), Transport::Udp).learns_a_nonce();
    t.client("four").says(allocate().with(Attribute::RESERVATION_TOKEN, &token)).hears(error(508));
}

#[test]
fn l14_v02_a_family_that_is_not_here_is_not_supported() {
    let mut t = Turn::with(|world| world.relays.truncate(1));
    t.joins("alice").learns_a_nonce();
    for family in [0, 2, 3, 255] {
        t.says(allocate().with(Attribute::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0])).hears(error(440));
    }
    t.says(allocate().with(Attribute::REQUESTED_ADDRESS_FAMILY, &V4)).hears(success());
}

#[test]
fn l15_no_family_asked_for_is_ipv4_and_may_not_be_here() {
    let mut t = Turn::with(|world| {
        world.relays.remove(0);
    });
    t.joins("alice").learns_a_nonce();
    t.says(allocate()).hears(error(440));
    t.says(allocate().with(Attribute::REQUESTED_ADDRESS_FAMILY, &V6)).hears(success());
}

#[test]
fn l16_v01_no_family_asked_for_is_ipv4_also_for_a_client_over_ipv6() {
    let mut t = Turn::new();
    let client = "[2a00:30::1]:4000".parse().unwrap();
    let tuple = FiveTuple { transport: Transport::Udp, client, server: SERVER_V6 };
    let outcome = t.joins_at("alice", "alice", &password_of("alice"), tuple).allocates();
    assert_eq!(family(t.first().relayed()), Family::V4);
    assert_eq!(outcome.address(Attribute::XOR_MAPPED_ADDRESS), Some(client));
}

#[test]
fn l19_an_even_port_that_is_not_to_be_had_is_not_promised() {
    let mut t = Turn::with(|world| world.relay_ports = 50_001..=50_001);
    t.joins("alice").learns_a_nonce();
    t.says(allocate().with(Attribute::EVEN_PORT, &EVEN)).hears(error(508));
    t.says(allocate().with(Attribute::EVEN_PORT, &PAIR)).hears(error(508));
    t.says(allocate()).hears(success());
    let mut t = Turn::with(|world| world.relay_ports = 50_000..=50_000);
    t.joins("alice").learns_a_nonce();
    t.says(allocate().with(Attribute::EVEN_PORT, &PAIR)).hears(error(508));
    t.says(allocate().with(Attribute::EVEN_PORT, &EVEN)).hears(success());
}

#[test]
fn l20_an_even_port_leaves_its_neighbour_free() {
    let mut t = Turn::with(|world| world.relay_ports = 50_000..=50_009);
    for at in 0..5 {
        t.joins_as(&at.to_string(), "alice", &password_of("alice"), Transport::Udp).learns_a_nonce();
        t.client(&at.to_string()).says(allocate().with(Attribute::EVEN_PORT, &EVEN)).hears(success());
        assert_eq!(t.client(&at.to_string()).relayed().port() % 2, 0);
    }
    for at in 5..10 {
        t.joins_as(&at.to_string(), "alice", &password_of("alice"), Transport::Udp).allocates();
    }
}

#[test]
fn l20_an_even_port_released_is_there_again_when_no_other_is() {
    let mut t = Turn::with(|world| world.relay_ports = 50_000..=50_199);
    t.joins("alice").learns_a_nonce();
    for _ in 0..300 {
        t.says(allocate().with(Attribute::EVEN_PORT, &EVEN)).hears(success());
        t.says(refresh_for(0)).hears(success());
    }
    for _ in 0..300 {
        t.says(allocate().with(Attribute::EVEN_PORT, &PAIR)).hears(success());
        t.says(refresh_for(0)).hears(success());
        t.waits(seconds(1)); // each second port is held for thirty seconds
    }
}

#[test]
fn l21_l23_the_second_port_of_a_pair_is_had_with_the_token_from_anywhere() {
    let mut t = Turn::with(|world| world.relay_ports = 50_000..=50_003);
    t.joins("alice").learns_a_nonce();
    t.says(allocate().with(Attribute::EVEN_PORT, &PAIR)).hears(success());
    let first = t.first().relayed();
    let token = t.first().party().token.expect("a pair comes with a token");
    assert_eq!(first.port() % 2, 0);
    for name in ["b", "c"] {
        t.joins_as(name, "bob", &password_of("bob"), Transport::Udp).allocates();
        assert_ne!(t.client(name).relayed().port(), first.port() + 1, "it is held back");
    }
    t.joins_as("phone", "alice", &password_of("alice"), Transport::Tcp).learns_a_nonce();
    t.client("phone").says(allocate()).hears(error(508));
    t.client("phone").says(allocate().with(Attribute::RESERVATION_TOKEN, &token)).hears(success());
    assert_eq!(t.client("phone").relayed(), SocketAddr::new(first.ip(), first.port() + 1));
}

#[test]
fn l21_a_token_of_an_ipv6_pair_gives_an_ipv6_port() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    let ask = allocate().with(Attribute::EVEN_PORT, &PAIR).with(Attribute::REQUESTED_ADDRESS_FAMILY, &V6);
    t.says(ask).hears(success());
    let token = t.first().party().token.expect("a pair comes with a token");
    t.joins_as("phone", "alice", &password_of("alice"), Transport::Udp).learns_a_nonce();
    t.client("phone").says(allocate().with(Attribute::RESERVATION_TOKEN, &token)).hears(success());
    assert_eq!(family(t.client("phone").relayed()), Family::V6);
    t.client("phone").says(create_permission(&[PEER_V6])).hears(success());
}

#[test]
fn l24_a_token_is_its_users_own() {
    // The decision: a token is of use to the user who got it alone.
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    t.joins("bob").learns_a_nonce();
    t.client("alice").says(allocate().with(Attribute::EVEN_PORT, &PAIR)).hears(success());
    let token = t.client("alice").party().token.expect("a pair comes with a token");
    t.client("bob").says(allocate().with(Attribute::RESERVATION_TOKEN, &token)).hears(error(508));
}

#[test]
fn l33_a_new_allocation_lets_nobody_in() {
    let mut t = Turn::allocated("alice");
    t.peer(PEER_A).sends(b"hello").hears(dropped(Dropped::NoPermission));
}

#[test]
fn l37_l38_r01_r03_a_lifetime_is_between_ten_minutes_and_an_hour() {
    let cases = [(0, 600), (1, 600), (599, 600), (600, 600), (900, 900), (86_400, 3600), (u32::MAX, 3600)];
    let mut t = Turn::new();
    t.joins("bob").allocates().for_seconds(600);
    for (at, (asked, granted)) in cases.into_iter().enumerate() {
        let name = at.to_string();
        t.joins_as(&name, "alice", &password_of("alice"), Transport::Udp).learns_a_nonce();
        let ask = allocate().with(Attribute::LIFETIME, &asked.to_be_bytes());
        t.client(&name).says(ask).hears(success()).for_seconds(granted);
        if asked != 0 {
            t.client(&name).says(refresh_for(asked)).hears(success()).for_seconds(granted);
        }
        t.client(&name).says(refresh()).hears(success()).for_seconds(600);
    }
}

#[test]
fn l39_l42_a_yes_says_where_the_relay_is_and_for_how_long() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    let outcome = t.says(allocate()).hears(success());
    let said =
        [Attribute::XOR_RELAYED_ADDRESS, Attribute::LIFETIME, Attribute::XOR_MAPPED_ADDRESS, Attribute::SOFTWARE];
    assert_eq!(outcome.attributes(), said);
    assert_eq!(outcome.address(Attribute::XOR_MAPPED_ADDRESS), Some(t.first().party().path.tuple.client));
}

#[test]
fn l43_when_no_port_is_left_one_is_told_and_when_one_is_again_one_gets_it() {
    let mut t = Turn::with(|world| world.relay_ports = 50_000..=50_009);
    for at in 0..10 {
        t.joins_as(&at.to_string(), "alice", &password_of("alice"), Transport::Udp).allocates();
    }
    t.joins("bob").learns_a_nonce();
    t.client("bob").says(allocate()).hears(error(508)).signed();
    t.client("3").says(refresh_for(0)).hears(success());
    let freed = t.client("3").relayed();
    t.client("bob").says(allocate()).hears(success());
    assert_eq!(t.client("bob").relayed(), freed);
}

#[test]
fn l44_the_first_fault_in_the_rfcs_order_is_the_one_told() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    let bare = || request(Method::ALLOCATE);
    let udp = [17, 0, 0, 0];
    let sctp = [132, 0, 0, 0];
    t.says(bare().with(Attribute::RESERVATION_TOKEN, &[1; 8]).with(Attribute::EVEN_PORT, &EVEN)).hears(error(400));
    let bad_family =
        bare().with(Attribute::REQUESTED_TRANSPORT, &sctp).with(Attribute::REQUESTED_ADDRESS_FAMILY, &[9; 4]);
    t.says(bad_family).hears(error(442));
    t.says(bare().with(Attribute(0x7777), b"").with(Attribute::REQUESTED_TRANSPORT, &sctp)).hears(error(420));
    t.says(bare().with(Attribute::REQUESTED_TRANSPORT, &sctp).forged()).hears(error(401));
    t.bind_fails = Some(BindError::NoPort);
    let family = bare().with(Attribute::REQUESTED_TRANSPORT, &udp).with(Attribute::REQUESTED_ADDRESS_FAMILY, &[9; 4]);
    t.says(family).hears(error(440));
    t.is_as_new();
}

#[test]
fn l45_behind_one_to_one_nat_clients_are_told_the_outer_address() {
    let external: IpAddr = "21.0.0.1".parse().unwrap();
    let mut t = Turn::with(|world| world.relays = vec![RelayAddress { local: HOST.into(), external }]);
    t.joins("alice").allocates();
    assert_eq!(t.first().relayed().ip(), external);
}

#[test]
fn l46_a_refused_allocate_leaves_nothing_behind() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    t.says(allocate()).hears(success());
    t.says(refresh_for(0)).hears(success());
    let refused =
        [(BindError::Quota, 486), (BindError::NoPort, 508), (BindError::NoResources, 508), (BindError::System, 500)];
    for round in 0..2500 {
        for (why, code) in refused {
            t.bind_fails = Some(why);
            let pair = allocate().with(Attribute::EVEN_PORT, &PAIR);
            t.says(if round % 2 == 0 { allocate() } else { pair }).hears(error(code)).signed();
        }
    }
    t.is_as_new();
    t.bind_fails = None;
    t.says(allocate()).hears(success());
    assert_eq!(t.first().slot(), 0, "the table has grown");
    t.says(refresh_for(0)).hears(success());
    t.is_as_new();
}

#[test]
fn ten_thousand_strangers_leave_nothing_behind() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    let plain = allocate().unsigned().bytes(t.first().party());
    let forged = allocate().forged().bytes(t.first().party());
    for number in 0..5000u32 {
        let client = SocketAddr::new(IpAddr::from((0x1E10_0000 + number).to_be_bytes()), 4000);
        let tuple = FiveTuple { transport: Transport::Udp, client, server: SERVER };
        t.datagram(tuple, &plain).hears(error(401));
        t.datagram(tuple, &forged).hears(error(401));
    }
    t.is_as_new();
    assert_eq!(t.server.deadline(), None);
    t.says(allocate()).hears(success());
    assert_eq!(t.first().slot(), 0, "the table has grown");
}

#[test]
fn t06_j21_the_allocation_of_a_connection_ends_with_it() {
    let mut t = Turn::new();
    t.joins_by_tcp("alice").allocates();
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.first().leaves();
    t.is_as_new();
    assert_eq!(t.ended[0].2, Ended::Disconnected);
    t.first().leaves(); // nothing is left to end
}

#[test]
fn when_the_server_stops_everything_ends_with_what_it_relayed() {
    let mut t = Turn::allocated("alice");
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.says(channel_data(0x4000, b"12345")).reaches(PEER_A, b"12345");
    t.peer(PEER_A).sends(b"123").hears(channel(0x4000, b"123"));
    t.stops();
    t.is_as_new();
    let (session, usage, why) = t.ended[0].clone();
    assert_eq!((session.relay, why), (t.first().relayed(), Ended::Stopped));
    assert_eq!((usage.packets_to_peer, usage.bytes_to_peer), (1, 5));
    assert_eq!((usage.packets_to_client, usage.bytes_to_client), (1, 3));
}
