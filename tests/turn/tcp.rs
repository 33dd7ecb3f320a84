//! TCP relays: Connect, ConnectionAttempt, ConnectionBind (RFC 6062).

use crate::support::*;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use turnserver::turn::refusal::{Dropped, Ended};
use turnserver::turn::tally::Transport;
use turnserver::turn::{Effect, Input, Place, Protocol, StreamId, Verdict};
use turnserver::wire::codes::{Attribute, Method};
use turnserver::wire::integrity::Algorithm;

const TCP: [u8; 4] = [6, 0, 0, 0];

fn allocate_tcp() -> Ask {
    request(Method::ALLOCATE).with(Attribute::REQUESTED_TRANSPORT, &TCP)
}

/// A server with one client that has a TCP relay, and a second connection of the same user.
fn dialling() -> Turn {
    let mut t = Turn::new();
    t.joins_by_tcp("alice").obtains(allocate_tcp());
    second_connection(&mut t, "data", "alice");
    t
}

fn second_connection(t: &mut Turn, name: &str, user: &str) {
    t.joins_as(name, user, &password_of(user), Transport::Tcp).learns_a_nonce();
}

/// A connection that waits to be bound.
fn connected(t: &mut Turn, peer: SocketAddr) -> StreamId {
    t.says(connect(peer)).hears(silence());
    t.shell_connects(true).hears(success()).signed().connection()
}

/// A connection that is joined to one of the client's.
fn joined(t: &mut Turn, peer: SocketAddr) -> StreamId {
    let stream = connected(t, peer);
    t.client("data").says(connection_bind(stream)).hears(success());
    stream
}

fn nothing_was_asked_of_the_shell(t: &Turn) {
    assert_eq!(t.deeds, []);
}

#[test]
fn the_nonce_of_the_first_connection_is_good_for_binding_on_the_second_and_for_nothing_else() {
    let mut t = dialling();
    let stream = connected(&mut t, PEER_A);
    let nonce = t.client("alice").party().nonce.clone();
    assert_ne!(nonce, t.client("data").party().nonce);
    t.client("data").says(allocate().but(Attribute::NONCE, &nonce)).hears(error(438));
    t.client("data").says(connection_bind(StreamId(7)).but(Attribute::NONCE, &nonce)).hears(error(438));
    t.client("data").says(connection_bind(stream).but(Attribute::NONCE, &nonce)).hears(success()).signed();
}

#[test]
fn j01_a_tcp_relay_is_for_clients_over_tcp_and_only_where_there_are_any() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    t.says(allocate_tcp()).hears(error(400));
    t.reloads(|world| world.policy.tcp_relays = false);
    t.says(allocate_tcp()).hears(error(442));
    second_connection(&mut t, "bob", "bob");
    t.client("bob").says(allocate_tcp()).hears(error(442));
    t.reloads(|world| world.policy.tcp_relays = true);
    t.client("bob").says(allocate_tcp()).hears(success());
}

#[test]
fn j02_what_concerns_datagrams_is_a_bad_request() {
    let mut t = Turn::new();
    t.joins_by_tcp("alice").learns_a_nonce();
    let odd: [(Attribute, &[u8]); 4] = [
        (Attribute::DONT_FRAGMENT, &[]),
        (Attribute::EVEN_PORT, &[0]),
        (Attribute::EVEN_PORT, &[0x80]),
        (Attribute::RESERVATION_TOKEN, &[7; 8]),
    ];
    for (attribute, value) in odd {
        t.says(allocate_tcp().with(attribute, value)).hears(error(400)).signed();
    }
    t.is_as_new();
}

#[test]
fn j03_the_shell_is_asked_for_a_socket_that_listens() {
    let mut t = Turn::new();
    t.shell_is_slow = true;
    t.joins_by_tcp("alice").learns_a_nonce();
    t.says(allocate_tcp()).hears(silence());
    t.says(connect(PEER_A)).hears(error(437)); // not before there is one
    assert_eq!(t.waiting[0].protocol, Protocol::Tcp);
    t.shell_binds().hears(success());
    t.says(connect(PEER_A)).hears(silence());
    assert_eq!(t.deeds.len(), 1);
}

#[test]
fn j04_who_has_no_tcp_relay_has_nowhere_to_connect_from() {
    let mut t = Turn::new();
    t.joins_by_tcp("alice").learns_a_nonce();
    t.says(connect(PEER_A)).hears(error(437)).signed();
    t.says(allocate()).hears(success());
    t.says(connect(PEER_A)).hears(error(437)).signed();
    nothing_was_asked_of_the_shell(&t);
}

#[test]
fn t04_another_user_connects_nothing() {
    let mut t = dialling();
    t.says(connect(PEER_A).by_user("bob", &password_of("bob"))).hears(error(441)).signed();
    nothing_was_asked_of_the_shell(&t);
}

#[test]
fn j05_j06_one_peer_gets_one_connection_at_a_time() {
    let mut t = dialling();
    t.says(connect(PEER_A)).hears(silence());
    t.says(connect(PEER_A)).hears(error(446)).signed(); // under way
    t.says(connect(PEER_A2)).hears(silence()); // another port is another peer
    t.shell_connects(true).hears(success());
    t.says(connect(PEER_A2)).hears(error(446)); // waits to be bound
    let stream = joined(&mut t, PEER_B);
    t.says(connect(PEER_B)).hears(error(446)); // bytes flow
    let relay = t.first().relay();
    assert_eq!(t.handles(Input::StreamClosed { relay, stream }), Verdict::Nothing);
    t.says(connect(PEER_B)).hears(silence());
    t.shell_connects(true).hears(success());
}

#[test]
fn j07_a_connect_without_a_peer_is_a_bad_request() {
    let mut t = dialling();
    t.says(request(Method::CONNECT)).hears(error(400)).signed();
    for value in [&[0, 3, 1, 1, 1, 1, 1, 1][..], &[0, 1, 1, 1, 1, 1, 1], &[]] {
        t.says(request(Method::CONNECT).with(Attribute::XOR_PEER_ADDRESS, value)).hears(error(400)).signed();
    }
    nothing_was_asked_of_the_shell(&t);
}

#[test]
fn j08_no_connection_leaves_for_where_no_datagram_may_go() {
    let mut t = dialling();
    let denied = [
        "10.0.0.1:80",
        "127.0.0.1:80",
        "169.254.169.254:80",
        "0.0.0.0:80",
        "224.0.0.1:80",
        "255.255.255.255:80",
        "20.0.0.1:22",
        "20.0.0.1:3478",
        "20.0.0.1:8080",
        "11.0.0.1:0",
    ];
    for peer in denied {
        t.says(connect(peer.parse().expect("an address"))).hears(error(403)).signed();
    }
    t.says(connect(PEER_V6)).hears(error(443)).signed();
    t.reloads(|world| world.deny.push("11.0.0.1/32".parse().expect("a prefix")));
    t.says(connect(PEER_A)).hears(error(403));
    nothing_was_asked_of_the_shell(&t);
}

#[test]
fn j09_a_peer_that_does_not_answer_is_a_failure_and_may_be_tried_again() {
    let mut t = dialling();
    t.says(connect(PEER_A)).hears(silence());
    t.waits(seconds(30));
    t.says(create_permission(&[PEER_B])).hears(success()); // nobody waits for it
    t.says(connect(PEER_A)).hears(error(446));
    t.says(connect(PEER_B)).hears(silence());
    t.shell_connects(false).hears(error(447)).signed();
    t.says(connect(PEER_B)).hears(silence());
    t.shell_connects(true).hears(success());
}

#[test]
fn a18_a_connect_is_answered_as_it_was_asked() {
    let mut t = dialling();
    t.says(connect(PEER_A).sha256().fingerprinted()).hears(silence());
    t.shell_connects(true).hears(success()).signed_with(Algorithm::Sha256);
    t.says(connect(PEER_B).sha256()).hears(silence());
    t.shell_connects(false).hears(error(447)).signed_with(Algorithm::Sha256);
}

#[test]
fn j10_j22_sixteen_connections_may_wait_and_each_has_its_own_id() {
    let mut t = dialling();
    let ids: BTreeSet<_> = (1..=16).map(|port| connected(&mut t, peer_at(9, port))).collect();
    assert_eq!(ids.len(), 16);
    t.says(connect(PEER_A)).hears(error(508)).signed();
    t.says(create_permission(&[PEER_B])).hears(success());
    t.deeds.clear();
    t.peer(PEER_B).connects_to("alice").hears(dropped(Dropped::Overflow));
    nothing_was_asked_of_the_shell(&t);
    t.client("data").says(connection_bind(*ids.first().expect("sixteen"))).hears(success());
    t.peer(PEER_B).connects_to("alice").hears(attempt(PEER_B));
    t.says(connect(PEER_A)).hears(error(508));
}

#[test]
fn j22_an_allocation_has_no_more_than_128_connections() {
    let mut t = dialling();
    let streams: Vec<_> = (1..=128).map(|port| joined(&mut t, peer_at(9, port))).collect();
    t.says(connect(PEER_A)).hears(error(508));
    let relay = t.first().relay();
    assert_eq!(t.handles(Input::StreamClosed { relay, stream: streams[7] }), Verdict::Nothing);
    joined(&mut t, PEER_A);
    t.says(connect(PEER_B)).hears(error(508));
}

#[test]
fn j11_a_connection_that_nobody_binds_in_half_a_minute_is_closed() {
    let mut t = dialling();
    t.says(create_permission(&[PEER_B])).hears(success());
    let asked = connected(&mut t, PEER_A);
    let came = t.peer(PEER_B).connects_to("alice").hears(attempt(PEER_B)).connection();
    t.waits(seconds(29));
    assert_eq!(t.closed(), []);
    t.waits(seconds(2));
    assert_eq!(t.closed(), [asked, came]);
    for late in [asked, came] {
        t.client("data").says(connection_bind(late)).hears(error(400));
    }
    assert_eq!(connected(&mut t, PEER_A).worker(), 0);
}

#[test]
fn j11_half_a_minute_is_over_to_the_second() {
    let mut t = dialling();
    let stream = connected(&mut t, PEER_A);
    t.passes(seconds(30)); // and nobody wakes the server
    t.client("data").says(connection_bind(stream)).hears(error(400));
    t.ticks();
    t.waits(seconds(1));
    assert_eq!(t.closed(), [stream]);
}

#[test]
fn j12_x07_a_stranger_connects_to_nobody_and_the_client_hears_nothing() {
    let mut t = dialling();
    t.peer(PEER_A).connects_to("alice").hears(dropped(Dropped::NoPermission));
    t.says(create_permission(&[PEER_A])).hears(success());
    t.waits(minutes(5));
    t.peer(PEER_A).connects_to("alice").hears(dropped(Dropped::NoPermission));
    nothing_was_asked_of_the_shell(&t);
}

#[test]
fn j13_a_peer_with_a_permission_is_announced_on_the_control_connection() {
    let mut t = dialling();
    t.says(create_permission(&[PEER_A])).hears(success());
    let path = t.path_of("alice");
    let outcome = t.peer(PEER_A2).connects_to("alice").hears(attempt(PEER_A2)).comes_by(path);
    assert_eq!(outcome.attributes(), [Attribute::XOR_PEER_ADDRESS, Attribute::CONNECTION_ID]);
    let (relay, stream) = (t.first().relay(), outcome.connection());
    assert_eq!(t.deeds, [Effect::Accept { relay, stream }]);
    t.client("data").says(connection_bind(stream)).hears(success());
    t.says(connect(PEER_A2)).hears(error(446));
}

#[test]
fn j14_a_connection_is_bound_to_another_connection_and_to_nothing_else() {
    let mut t = dialling();
    let stream = connected(&mut t, PEER_A);
    t.joins_as("udp", "alice", &password_of("alice"), Transport::Udp).learns_a_nonce();
    t.client("udp").says(connection_bind(stream)).hears(error(400)).signed();
    t.client("alice").says(connection_bind(stream)).hears(error(400)).signed();
    second_connection(&mut t, "other", "alice");
    t.client("other").says(allocate()).hears(success());
    t.client("other").says(connection_bind(stream)).hears(error(400)).signed();
    t.client("data").says(connection_bind(stream)).hears(success()).signed();
}

#[test]
fn j15_j16_nobody_learns_which_connections_there_are() {
    // The decision: 400 whatever is wrong with the id, so that nobody learns whose it is.
    let mut t = dialling();
    let used = joined(&mut t, PEER_A);
    let overdue = connected(&mut t, PEER_B);
    t.waits(seconds(31));
    let of_alice = connected(&mut t, PEER_C);
    t.says(connect(PEER_A2)).hears(silence());
    let pending = match t.deeds.last() {
        Some(Effect::Connect { stream, .. }) => *stream,
        other => panic!("the shell was asked for {other:?}"),
    };
    second_connection(&mut t, "spare", "alice");
    second_connection(&mut t, "thief", "bob");
    let unknown = StreamId(0x0012_3456);
    let asked = [("spare", unknown), ("spare", used), ("spare", overdue), ("spare", pending), ("thief", of_alice)];
    let mut answers = Vec::new();
    for (name, stream) in asked {
        let outcome = t.client(name).says(connection_bind(stream)).hears(error(400)).signed();
        answers.push((outcome.bytes[..8].to_vec(), outcome.bytes[20..outcome.bytes.len() - 20].to_vec()));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "but for transaction and signature, all are equal");
    for value in [&[][..], &[0; 3], &[0; 8]] {
        let odd = request(Method::CONNECTION_BIND).with(Attribute::CONNECTION_ID, value);
        t.client("spare").says(odd).hears(error(400)).signed();
    }
    t.client("spare").says(request(Method::CONNECTION_BIND)).hears(error(400)).signed();
    t.client("spare").says(connection_bind(of_alice).forged()).hears(error(401)).unsigned();
    t.client("spare").says(connection_bind(of_alice)).hears(success());
}

#[test]
fn j16_another_credential_of_the_same_person_is_another_credential() {
    let mut t = Turn::new();
    let (user, password) = minted(&t, "dave", minutes(10));
    let (later, later_password) = minted(&t, "dave", minutes(20));
    t.joins_as("dave", &user, &password, Transport::Tcp).obtains(allocate_tcp());
    t.joins_as("data", &user, &password, Transport::Tcp).learns_a_nonce();
    t.joins_as("later", &later, &later_password, Transport::Tcp).learns_a_nonce();
    let stream = connected(&mut t, PEER_A);
    t.client("later").says(connection_bind(stream)).hears(error(400));
    t.client("data").says(connection_bind(stream)).hears(success());
}

#[test]
fn j17_the_shell_is_told_what_to_join_and_tells_what_it_carried() {
    let mut t = dialling();
    let stream = connected(&mut t, PEER_A);
    t.deeds.clear();
    t.client("data").says(connection_bind(stream)).hears(success());
    let (relay, path) = (t.first().relay(), t.path_of("data"));
    assert_eq!(t.deeds, [Effect::Join { relay, stream, path }]);
    let carried = Input::Carried { relay, stream, to_peer: 3_000_000_000, to_client: 5_000_000_000 };
    assert_eq!(t.handles(carried), Verdict::Nothing);
    t.says(refresh_for(0)).hears(success());
    let usage = t.ended[0].1;
    assert_eq!((usage.bytes_to_peer, usage.bytes_to_client), (3_000_000_000, 5_000_000_000));
    let carried = Input::Carried { relay, stream, to_peer: 1, to_client: 1 };
    assert_eq!(t.handles(carried), Verdict::Dropped(Dropped::NoAllocation));
}

#[test]
fn t14_connections_wait_when_the_bandwidth_is_used_up() {
    let mut t = dialling();
    t.reloads(|world| world.policy.limits.bandwidth_per_allocation = Some(1000));
    let stream = joined(&mut t, PEER_A);
    let relay = t.first().relay();
    let carries = |t: &mut Turn, to_peer, to_client| t.handles(Input::Carried { relay, stream, to_peer, to_client });
    assert_eq!(carries(&mut t, 1000, 1000), Verdict::Nothing);
    assert_eq!(carries(&mut t, 500, 2000), Verdict::Wait(t.now.mono + seconds(2)));
    t.waits(seconds(2));
    assert_eq!(carries(&mut t, 0, 1000), Verdict::Wait(t.now.mono + seconds(1)));
    t.says(refresh()).hears(success()); // control never waits
}

#[test]
fn j18_connections_end_with_their_allocation_however_it_ends() {
    let ends: [fn(&mut Turn); 5] = [
        |t| drop(t.says(refresh_for(0)).hears(success())),
        |t| t.waits(minutes(10)),
        |t| t.client("alice").leaves(),
        |t| t.stops(),
        |t| t.reloads(|world| drop(world.policy.auth.users.remove("alice"))),
    ];
    for end in ends {
        let mut t = dialling();
        let active = joined(&mut t, PEER_A);
        t.waits(seconds(1));
        t.says(refresh_for(600)).hears(success());
        t.waits(seconds(590));
        let waiting = connected(&mut t, PEER_B);
        end(&mut t);
        t.waits(seconds(1));
        assert_eq!((t.closed(), t.ended.len()), (vec![active, waiting], 1));
        t.is_as_new();
    }
}

#[test]
fn j21_a_data_connection_that_closes_ends_nothing_but_itself() {
    let mut t = dialling();
    let stream = joined(&mut t, PEER_A);
    t.client("data").leaves();
    let relay = t.first().relay();
    assert_eq!(t.handles(Input::StreamClosed { relay, stream }), Verdict::Nothing);
    assert_eq!(t.handles(Input::StreamClosed { relay, stream }), Verdict::Nothing);
    t.says(connect(PEER_A)).hears(silence());
    t.client("alice").leaves();
    assert_eq!(t.ended[0].2, Ended::Disconnected);
    t.shell_connects(true).hears(dropped(Dropped::NoAllocation));
    t.is_as_new();
}

#[test]
fn j20_there_are_no_datagrams_between_connections() {
    // The decision: 400, for the request makes no sense there.
    let mut t = dialling();
    t.says(create_permission(&[PEER_A])).hears(success());
    t.says(channel_bind(0x4000, PEER_A)).hears(error(400)).signed();
    t.says(send(PEER_A, b"hello")).hears(dropped(Dropped::BadIndication));
    t.says(channel_data(0x4000, b"hello")).hears(dropped(Dropped::NoChannel));
    assert_eq!(t.gauges(), (1, 1, 0));
}

#[test]
fn x03_a_new_rule_cuts_connections_that_stand_and_those_that_are_being_made() {
    let mut t = dialling();
    let cut = joined(&mut t, PEER_A);
    let kept = connected(&mut t, PEER_B);
    t.says(connect(PEER_A2)).hears(silence());
    t.deeds.retain(|deed| !matches!(deed, Effect::Connect { peer, .. } if *peer != PEER_A2));
    t.reloads(|world| world.deny.push("11.0.0.1/32".parse().expect("a prefix")));
    let closed = t.closed();
    assert_eq!((closed.len(), closed[0]), (2, cut));
    t.shell_connects(true).hears(silence());
    second_connection(&mut t, "late", "alice");
    t.client("late").says(connection_bind(closed[1])).hears(error(400));
    t.client("late").says(connection_bind(kept)).hears(success());
    t.says(connect(PEER_A)).hears(error(403));
}

#[test]
fn r06_connections_end_with_the_family_they_are_of() {
    let mut t = Turn::new();
    let dual = allocate_tcp().with(Attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    t.joins_by_tcp("alice").obtains(dual);
    second_connection(&mut t, "data", "alice");
    let (old, new) = (joined(&mut t, PEER_A), connected(&mut t, PEER_V6));
    t.says(refresh_for(0).with(Attribute::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0])).hears(success());
    assert_eq!(t.closed(), [new]);
    t.says(connect(PEER_V6)).hears(error(443));
    t.says(refresh_for(0)).hears(success());
    assert_eq!(t.closed(), [old]);
    t.is_as_new();
}

#[test]
fn a_family_that_is_over_takes_no_connection() {
    let mut t = Turn::new();
    let dual = allocate_tcp().with(Attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    t.joins_by_tcp("alice").obtains(dual);
    t.says(refresh_for(1200).with(Attribute::REQUESTED_ADDRESS_FAMILY, &[1, 0, 0, 0])).hears(success());
    t.passes(minutes(9));
    t.says(create_permission(&[PEER_A, PEER_V6])).hears(success());
    t.passes(minutes(1)); // and nobody wakes the server
    t.peer(PEER_V6).connects_to("alice").hears(dropped(Dropped::NoAllocation));
    t.peer(PEER_A).connects_to("alice").hears(attempt(PEER_A));
}

#[test]
fn a_connection_of_another_worker_is_bound_there() {
    let of = |number| Turn::with(|world| world.place = Place { number, count: 3 });
    let (mut here, mut there) = (of(0), of(2));
    there.joins_by_tcp("alice").obtains(allocate_tcp());
    let stream = connected(&mut there, PEER_A);
    assert_eq!(stream.worker(), 2);
    here.joins_by_tcp("data").learns_a_nonce();
    second_connection(&mut here, "control", "alice");
    here.client("control").says(allocate_tcp()).hears(success());
    second_connection(&mut here, "data-2", "alice");
    assert_eq!(here.client("data-2").says(connection_bind(stream)).verdict, Verdict::Elsewhere(2));
    here.client("control").says(connection_bind(stream)).hears(error(400)); // it has an allocation here
    here.client("data-2").says(connection_bind(StreamId(0x0300_0001))).hears(error(400)); // there is no such worker
    here.client("data-2").says(connection_bind(StreamId(1))).hears(error(400));
    here.joins_as("udp", "alice", &password_of("alice"), Transport::Udp).learns_a_nonce();
    here.client("udp").says(connection_bind(stream)).hears(error(400));
}
