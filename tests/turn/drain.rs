//! A server that is about to stop sends new clients elsewhere (RFC 8489 §10, RFC 8656 §7.2); and allocations that end
//! with the credential that made them.

use crate::support::*;
use std::net::SocketAddr;
use turnserver::turn::FiveTuple;
use turnserver::turn::policy::Redirect;
use turnserver::turn::refusal::Ended;
use turnserver::turn::tally::Transport;
use turnserver::wire::codes::{Attribute, Method};
use turnserver::wire::integrity::Algorithm;

/// 20.0.9.1:3478 and [2a00:99::1]:5349, as ALTERNATE-SERVER says them.
const V4_VALUE: [u8; 8] = [0, 1, 0x0D, 0x96, 20, 0, 9, 1];
const V6_VALUE: [u8; 20] = [0, 2, 0x14, 0xE5, 0x2A, 0, 0, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

fn elsewhere() -> Redirect {
    let servers = ["20.0.9.1:3478", "[2a00:99::1]:5349", "20.0.9.2:3478"];
    let servers = servers.iter().map(|server| server.parse().expect("an address")).collect();
    Redirect { servers, domain: Some("turn.example.net".into()) }
}

fn drains(t: &mut Turn, redirect: Redirect) {
    t.reloads(|world| {
        world.policy.draining = true;
        world.policy.redirect = redirect;
    });
}

/// A server that drains, and a client that comes too late.
fn draining() -> Turn {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    drains(&mut t, elsewhere());
    t
}

fn over_v6(t: &mut Turn, name: &str) {
    let client: SocketAddr = "[2a00:30::1]:4000".parse().expect("an address");
    let tuple = FiveTuple { transport: Transport::Udp, client, server: SERVER_V6 };
    t.joins_at(name, name, &password_of(name), tuple).learns_a_nonce();
}

#[test]
fn s41_l32_a_client_is_sent_to_a_server_of_its_own_family() {
    let mut t = draining();
    let outcome = t.says(allocate()).hears(error(300)).signed();
    assert_eq!(outcome.get(Attribute::ALTERNATE_SERVER), Some(V4_VALUE.into()));
    assert_eq!(outcome.get(Attribute::ALTERNATE_DOMAIN), Some(b"turn.example.net".into()));
    assert_eq!(outcome.attributes().iter().filter(|kind| **kind == Attribute::ALTERNATE_SERVER).count(), 1);
    over_v6(&mut t, "bob");
    let outcome = t.client("bob").says(allocate()).hears(error(300)).signed();
    assert_eq!(outcome.get(Attribute::ALTERNATE_SERVER), Some(V6_VALUE.into()));
    t.is_as_new();
}

#[test]
fn s42_the_name_in_the_certificate_is_told_where_there_is_one() {
    let mut t = draining();
    t.joins_by_tcp("bob").learns_a_nonce();
    let outcome = t.client("bob").says(allocate().sha256()).hears(error(300)).signed_with(Algorithm::Sha256);
    assert_eq!(outcome.get(Attribute::ALTERNATE_DOMAIN), Some(b"turn.example.net".into()));
    drains(&mut t, Redirect { domain: None, ..elsewhere() });
    let outcome = t.client("bob").says(allocate().sha256()).hears(error(300));
    assert_eq!(outcome.get(Attribute::ALTERNATE_DOMAIN), None);
    assert_eq!(outcome.get(Attribute::ALTERNATE_SERVER), Some(V4_VALUE.into()));
}

#[test]
fn l32_without_a_server_of_its_family_a_client_is_told_there_is_no_room() {
    // The decision: 300 where there is a server to name, 508 where there is none.
    let mut t = draining();
    drains(&mut t, Redirect::default());
    let outcome = t.says(allocate()).hears(error(508)).signed();
    assert_eq!(outcome.get(Attribute::ALTERNATE_SERVER), None);
    let servers = vec!["20.0.9.1:3478".parse().expect("an address")];
    drains(&mut t, Redirect { servers, domain: Some("turn.example.net".into()) });
    over_v6(&mut t, "bob");
    let outcome = t.client("bob").says(allocate()).hears(error(508)).signed();
    assert_eq!(outcome.get(Attribute::ALTERNATE_DOMAIN), None);
}

#[test]
fn a01_a_stranger_is_challenged_before_it_is_sent_anywhere() {
    let mut t = draining();
    let outcome = t.says(allocate().unsigned()).hears(error(401)).unsigned();
    assert_eq!(outcome.get(Attribute::ALTERNATE_SERVER), None);
    t.says(allocate().forged()).hears(error(401));
    t.says(request(Method::ALLOCATE)).hears(error(400));
    t.says(refresh()).hears(error(437));
    t.says(binding()).hears(success()); // a Binding is not redirected (S38)
}

#[test]
fn l32_every_kind_of_allocation_is_sent_away() {
    let mut t = draining();
    t.joins_by_tcp("bob").learns_a_nonce();
    let asks = [
        allocate(),
        allocate().with(Attribute::EVEN_PORT, &[0x80]),
        allocate().with(Attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]),
        allocate().with(Attribute::RESERVATION_TOKEN, &[7; 8]),
        request(Method::ALLOCATE).with(Attribute::REQUESTED_TRANSPORT, &[6, 0, 0, 0]),
    ];
    for ask in asks {
        t.client("bob").says(ask).hears(error(300));
    }
    t.is_as_new();
}

#[test]
fn l32_whoever_is_here_already_notices_nothing() {
    let mut t = Turn::allocated("alice");
    drains(&mut t, elsewhere());
    t.first().repeats().hears(success()); // the first answer was lost
    t.says(allocate()).hears(error(437));
    t.says(create_permission(&[PEER_A])).hears(success());
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    for _ in 0..5 {
        t.waits(minutes(9));
        t.says(refresh()).hears(success());
        t.says(channel_bind(0x4000, PEER_A)).hears(success());
        t.says(channel_data(0x4000, b"to")).reaches(PEER_A, b"to");
        t.peer(PEER_A).sends(b"fro").hears(channel(0x4000, b"fro"));
    }
    t.says(refresh_for(0)).hears(success());
    t.is_as_new();
    t.says(allocate()).hears(error(300));
}

#[test]
fn l32_what_was_promised_before_the_drain_is_kept() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    t.shell_is_slow = true;
    t.says(allocate()).hears(silence());
    drains(&mut t, elsewhere());
    t.first().repeats().hears(silence());
    t.shell_binds().hears(success());
    t.first().repeats().hears(success());
}

#[test]
fn l32_connections_are_made_and_bound_while_the_server_drains() {
    let mut t = Turn::new();
    t.joins_by_tcp("alice").obtains(request(Method::ALLOCATE).with(Attribute::REQUESTED_TRANSPORT, &[6, 0, 0, 0]));
    t.joins_as("data", "alice", &password_of("alice"), Transport::Tcp).learns_a_nonce();
    drains(&mut t, elsewhere());
    t.says(connect(PEER_A)).hears(silence());
    let stream = t.shell_connects(true).hears(success()).connection();
    t.client("data").says(connection_bind(stream)).hears(success());
}

#[test]
fn m05_an_allocation_moves_while_the_server_drains() {
    let mut t = Turn::with(|world| world.policy.auth.mobility = true);
    t.joins("alice").obtains(allocate().with(Attribute::MOBILITY_TICKET, &[]));
    t.joins_as("train", "alice", &password_of("alice"), Transport::Udp).learns_a_nonce();
    drains(&mut t, elsewhere());
    t.client("train").says_with_ticket_of("alice", refresh()).hears(success());
}

#[test]
fn a_server_that_drains_no_more_takes_clients_again() {
    let mut t = draining();
    t.says(allocate()).hears(error(300));
    t.reloads(|world| world.policy.draining = false);
    t.says(allocate()).hears(success());
}

/// A server on which a call ends with its credential, and a client whose credential lives for `life` seconds.
fn strict(life: u64) -> Turn {
    let mut t = Turn::with(|world| world.policy.auth.strict_expiry = true);
    let (user, password) = minted(&t, "dave", seconds(life));
    t.joins_as("dave", &user, &password, Transport::Udp).learns_a_nonce();
    t
}

#[test]
fn a33_where_the_operator_is_strict_an_allocation_ends_with_its_credential() {
    let mut t = strict(400);
    t.says(allocate()).hears(success()).for_seconds(400);
    t.first().repeats().hears(success()).for_seconds(400);
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.waits(seconds(250));
    t.says(refresh_for(3600)).hears(success()).for_seconds(150);
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.waits(seconds(149));
    t.says(refresh()).hears(success()).for_seconds(1);
    t.says(channel_data(0x4000, b"to")).reaches(PEER_A, b"to");
    t.passes(seconds(1)); // and nobody wakes the server
    t.says(channel_data(0x4000, b"to")).hears(silence());
    t.says(refresh()).hears(error(401));
    assert_eq!(t.ended[0].2, Ended::Expired);
    t.is_as_new();
}

#[test]
fn l37_a_strict_server_grants_no_more_than_the_usual_either() {
    let mut t = strict(10_000);
    t.says(allocate()).hears(success()).for_seconds(600);
    t.says(refresh_for(99_999)).hears(success()).for_seconds(3600);
    t.joins("alice").allocates().for_seconds(600); // who has no credential that ends
}

#[test]
fn a33_strictness_begins_with_the_next_refresh() {
    let mut t = strict(700);
    t.reloads(|world| world.policy.auth.strict_expiry = false);
    t.says(allocate().with(Attribute::LIFETIME, &3600u32.to_be_bytes())).hears(success()).for_seconds(3600);
    t.reloads(|world| world.policy.auth.strict_expiry = true);
    assert_eq!(t.gauges().0, 1);
    t.says(refresh_for(3600)).hears(success()).for_seconds(700);
    t.waits(seconds(701));
    t.is_as_new();
}
