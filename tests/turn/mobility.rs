//! Allocations that move to another client address (RFC 8016).

use crate::support::*;
use turnserver::turn::refusal::{Dropped, Ended};
use turnserver::turn::tally::Transport;
use turnserver::turn::{Effect, FiveTuple, Place, Verdict};
use turnserver::wire::codes::{Attribute, Method};

fn allocate_mobile() -> Ask {
    allocate().with(Attribute::MOBILITY_TICKET, &[])
}

/// A client that may move, with a permission and a channel, and a place it has not moved to yet.
fn mobile_over(transport: Transport) -> Turn {
    let mut t = Turn::with(|world| world.policy.auth.mobility = true);
    t.joins_as("home", "alice", &password_of("alice"), transport).obtains(allocate_mobile());
    t.says(create_permission(&[PEER_A])).hears(success());
    t.says(channel_bind(0x4000, PEER_B)).hears(success());
    place(&mut t, "train", Transport::Udp);
    t
}

fn mobile() -> Turn {
    mobile_over(Transport::Udp)
}

/// Another path of the same user.
fn place(t: &mut Turn, name: &str, transport: Transport) {
    t.joins_as(name, "alice", &password_of("alice"), transport).learns_a_nonce();
}

fn moves(t: &mut Turn, from: &str, to: &str) -> Outcome {
    t.client(to).says_with_ticket_of(from, refresh()).hears(success()).signed()
}

/// The peer's data takes this way.
#[track_caller]
fn hears_peers(t: &mut Turn, name: &str) {
    let path = t.path_of(name);
    t.peer(PEER_A).sends_to("home", b"fro").hears(data(PEER_A, b"fro")).comes_by(path);
    t.peer(PEER_B).sends_to("home", b"fro").hears(channel(0x4000, b"fro")).comes_by(path);
}

/// It has nothing any more.
#[track_caller]
fn is_left(t: &mut Turn, name: &str) {
    t.client(name).says(refresh()).hears(error(437));
    t.client(name).says(send(PEER_A, b"to")).hears(dropped(Dropped::NoAllocation));
    t.client(name).says(channel_data(0x4000, b"to")).hears(dropped(Dropped::NoAllocation));
}

#[test]
fn m01_who_asks_for_a_ticket_gets_one_and_nobody_else() {
    let mut t = Turn::with(|world| world.policy.auth.mobility = true);
    let granted = t.joins("alice").obtains(allocate_mobile());
    assert!(granted.get(Attribute::MOBILITY_TICKET).is_some_and(|ticket| ticket.len() >= 16));
    assert!(t.first().repeats().hears(success()).get(Attribute::MOBILITY_TICKET).is_some());
    assert_eq!(t.joins("bob").allocates().get(Attribute::MOBILITY_TICKET), None);
    assert_eq!(t.client("bob").says(refresh()).get(Attribute::MOBILITY_TICKET), None);
    let asks_late = refresh().with(Attribute::MOBILITY_TICKET, &[]);
    assert_eq!(t.client("bob").says(asks_late).hears(success()).get(Attribute::MOBILITY_TICKET), None);
}

#[test]
fn m02_where_nothing_may_move_nobody_gets_a_ticket() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    t.says(allocate_mobile()).hears(error(405)).signed();
    t.says(allocate().with(Attribute::MOBILITY_TICKET, b"ticket")).hears(error(405)).signed();
    t.is_as_new();
    t.says(allocate()).hears(success());
    let outcome = t.says(refresh().with(Attribute::MOBILITY_TICKET, b"ticket")).hears(success());
    assert_eq!(outcome.get(Attribute::MOBILITY_TICKET), None);
}

#[test]
fn m02_tickets_end_when_the_operator_wants_no_more_moves() {
    let mut t = mobile();
    t.reloads(|world| world.policy.auth.mobility = false);
    t.client("train").says_with_ticket_of("home", refresh()).hears(error(405)).signed();
    hears_peers(&mut t, "home");
}

#[test]
fn m03_a_new_allocation_has_no_ticket_to_show() {
    let mut t = Turn::with(|world| world.policy.auth.mobility = true);
    t.joins("alice").learns_a_nonce();
    t.says(allocate().with(Attribute::MOBILITY_TICKET, b"ticket")).hears(error(400)).signed();
    t.is_as_new();
}

#[test]
fn m04_a_ticket_in_any_other_request_means_nothing() {
    // The decision: tickets always are understood, so only their place can be wrong.
    let mut t = mobile();
    let ticket = t.first().party().ticket.clone();
    let permit = || create_permission(&[PEER_A]).with(Attribute::MOBILITY_TICKET, &ticket);
    t.says(permit()).hears(success());
    t.client("train").says(permit()).hears(error(437));
    t.client("train").says(send(PEER_A, b"to").with(Attribute::MOBILITY_TICKET, &ticket)).hears(silence());
    hears_peers(&mut t, "home");
}

#[test]
fn m05_a_ticket_moves_the_allocation_and_is_changed_for_another() {
    let mut t = mobile();
    let (old, relayed) = (t.first().party().ticket.clone(), t.first().relayed());
    t.waits(minutes(4));
    let outcome = t.client("train").says_with_ticket_of("home", refresh_for(1200)).hears(success());
    assert_ne!(outcome.for_seconds(1200).get(Attribute::MOBILITY_TICKET).expect("the next ticket"), old);
    assert_eq!(t.deeds, [Effect::Attached(t.path_of("train"))]);
    t.client("train").says(send(PEER_A, b"to")).reaches(PEER_A, b"to");
    assert_eq!(t.deeds[1..], [Effect::Detached(t.path_of("home"))]);
    t.client("train").says(refresh_for(0)).hears(success());
    let (session, usage, _) = &t.ended[0];
    assert_eq!((session.relay, session.path, usage.packets_to_peer), (relayed, t.path_of("train"), 1));
    t.is_as_new();
}

#[test]
fn m05_it_can_move_again_and_back_and_over_every_transport() {
    let mut t = mobile();
    place(&mut t, "hotel", Transport::Tcp);
    let v6 = FiveTuple {
        transport: Transport::Udp,
        client: "[2a00:30::1]:4000".parse().expect("an address"),
        server: SERVER_V6,
    };
    t.joins_at("v6", "alice", &password_of("alice"), v6).learns_a_nonce();
    for (from, to) in [("home", "train"), ("train", "hotel"), ("hotel", "v6"), ("v6", "home"), ("home", "hotel")] {
        moves(&mut t, from, to);
        hears_peers(&mut t, from);
        t.client(to).says(channel_data(0x4000, b"to")).reaches(PEER_B, b"to");
        hears_peers(&mut t, to);
        is_left(&mut t, from);
        assert_eq!((t.gauges(), t.sockets()), ((1, 2, 1), 1));
    }
    t.client("hotel").says(refresh_for(0)).hears(success());
    t.is_as_new();
}

#[test]
fn m06_another_user_moves_nothing() {
    let mut t = mobile();
    t.joins("bob").learns_a_nonce();
    t.client("bob").says_with_ticket_of("home", refresh()).hears(error(441)).signed();
    t.client("bob").says_with_ticket_of("home", refresh_for(0)).hears(error(441)).signed();
    t.client("train").says_with_ticket_of("home", refresh().forged()).hears(error(401));
    assert_eq!(t.deeds, []);
    hears_peers(&mut t, "home");
    moves(&mut t, "home", "train");
}

#[test]
fn m07_m10_a_ticket_with_any_bit_changed_opens_nothing() {
    let mut t = mobile();
    let ticket = t.first().party().ticket.clone();
    let shown = |ticket: &[u8]| refresh().with(Attribute::MOBILITY_TICKET, ticket);
    for bit in 0..ticket.len() * 8 {
        let mut bent = ticket.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        t.client("train").says(shown(&bent)).hears(error(437)).signed();
    }
    for invented in [&b""[..], b"ticket", &ticket[1..], &ticket[..ticket.len() - 1], &[7; 1000]] {
        t.client("train").says(shown(invented)).hears(error(437)).signed();
    }
    assert_eq!(t.deeds, []);
    hears_peers(&mut t, "home");
}

#[test]
fn m07_a_used_ticket_is_worth_nothing() {
    // The decision: 437, as coturn answers.
    let mut t = mobile();
    let used = t.first().party().ticket.clone();
    moves(&mut t, "home", "train");
    place(&mut t, "hotel", Transport::Udp);
    let shown = || refresh().with(Attribute::MOBILITY_TICKET, &used);
    t.client("hotel").says(shown()).hears(error(437));
    t.client("train").says(send(PEER_A, b"to")).reaches(PEER_A, b"to");
    t.client("hotel").says(shown()).hears(error(437));
    is_left(&mut t, "home");
    hears_peers(&mut t, "train");
}

#[test]
fn m07_a_ticket_ends_with_its_allocation() {
    let mut t = mobile();
    t.says(refresh_for(0)).hears(success());
    t.client("train").says_with_ticket_of("home", refresh()).hears(error(437));
    t.first().allocates(); // the same slot, another allocation
    t.client("train").says_with_ticket_of("home", refresh()).hears(error(437));
    let mut t = mobile();
    t.passes(minutes(10)); // and nobody wakes the server
    t.client("train").says_with_ticket_of("home", refresh()).hears(error(437));
    t.is_as_new();
}

#[test]
fn m08_until_the_client_speaks_on_the_new_path_nothing_changes_on_the_old_one() {
    let mut t = mobile();
    moves(&mut t, "home", "train");
    hears_peers(&mut t, "home");
    t.says(send(PEER_A, b"to")).reaches(PEER_A, b"to");
    t.says(channel_data(0x4000, b"to")).reaches(PEER_B, b"to");
    t.says(create_permission(&[PEER_C])).hears(success());
    t.says(refresh()).hears(success());
    t.client("train").says(send(PRIVATE, b"nowhere")).hears(dropped(Dropped::NoPermission));
    t.client("train").says(channel_data(0x4001, b"nowhere")).hears(dropped(Dropped::NoChannel));
    hears_peers(&mut t, "home");
}

#[test]
fn m08_m09_whatever_the_client_says_first_on_the_new_path_ends_the_old_one() {
    let says: [fn(&mut Voice<'_>); 5] = [
        |train| drop(train.says(send(PEER_A, b"to")).reaches(PEER_A, b"to")),
        |train| drop(train.says(channel_data(0x4000, b"to")).reaches(PEER_B, b"to")),
        |train| drop(train.says(create_permission(&[PEER_C])).hears(success())),
        |train| drop(train.says(channel_bind(0x4001, PEER_C)).hears(success())),
        |train| drop(train.says(refresh()).hears(success())),
    ];
    for say in says {
        let mut t = mobile();
        moves(&mut t, "home", "train");
        say(&mut t.client("train"));
        hears_peers(&mut t, "train");
        is_left(&mut t, "home");
        t.first().allocates(); // the old path is free for another
        hears_nothing_of_the_other(&mut t);
    }
}

/// What the peer sends to the allocation that moved away.
fn hears_nothing_of_the_other(t: &mut Turn) {
    let path = t.path_of("train");
    t.peer(PEER_A).sends_to("train", b"fro").hears(data(PEER_A, b"fro")).comes_by(path);
    t.peer(PEER_A).sends_to("home", b"fro").hears(dropped(Dropped::NoPermission));
}

#[test]
fn t10_where_an_allocation_moves_to_there_is_no_room_for_another() {
    let mut t = mobile();
    moves(&mut t, "home", "train");
    t.client("train").says(allocate()).hears(error(437));
    t.client("train").says(request(Method::REFRESH).by_user("bob", &password_of("bob"))).hears(error(441));
    hears_peers(&mut t, "home");
}

#[test]
fn m11_two_allocations_never_move_to_one_place() {
    let mut t = mobile();
    place(&mut t, "other", Transport::Udp);
    t.client("other").says(allocate_mobile()).hears(success());
    moves(&mut t, "home", "train");
    t.client("train").says_with_ticket_of("other", refresh()).hears(error(437));
    t.client("other").says(refresh()).hears(success());
    t.client("train").says(send(PEER_A, b"to")).reaches(PEER_A, b"to");
    // On the path of an allocation another's ticket moves nothing: it is that allocation's Refresh.
    t.client("train").says(refresh().with(Attribute::MOBILITY_TICKET, b"of another")).hears(success());
    t.client("other").says(refresh_for(0)).hears(success());
    hears_peers(&mut t, "train");
    t.client("train").says(refresh_for(0)).hears(success());
    t.is_as_new();
}

#[test]
fn s20_a_repeated_move_is_one_move() {
    let mut t = mobile();
    moves(&mut t, "home", "train");
    let before = t.deeds.clone();
    let again = t.client("train").repeats().hears(success());
    assert!(again.get(Attribute::MOBILITY_TICKET).is_some());
    assert_eq!(t.deeds, before);
    place(&mut t, "hotel", Transport::Udp);
    moves(&mut t, "train", "hotel"); // the ticket of the repeated answer is as good as the first
    t.client("train").repeats().hears(error(437));
    t.client("hotel").says(send(PEER_A, b"to")).reaches(PEER_A, b"to");
    t.client("hotel").repeats().reaches(PEER_A, b"to");
    hears_peers(&mut t, "hotel");
}

#[test]
fn s20_a_move_repeated_after_the_client_has_spoken_is_a_refresh() {
    let mut t = mobile();
    place(&mut t, "hotel", Transport::Udp);
    moves(&mut t, "home", "train");
    let same = refresh().with(Attribute::MOBILITY_TICKET, &t.first().party().ticket.clone());
    t.client("train").says(send(PEER_A, b"to")).reaches(PEER_A, b"to");
    t.client("train").says(same).hears(success());
    moves(&mut t, "train", "hotel");
}

#[test]
fn m05_a_move_that_is_refused_has_not_happened() {
    let mut t = mobile();
    let other_family = refresh().with(Attribute::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    t.client("train").says_with_ticket_of("home", other_family).hears(error(443));
    let odd = refresh().with(Attribute::LIFETIME, &[0; 3]);
    t.client("train").says_with_ticket_of("home", odd).hears(error(400));
    assert_eq!(t.deeds, []);
    is_left(&mut t, "train");
    moves(&mut t, "home", "train"); // and the ticket is as good as before
}

#[test]
fn a33_a_credential_whose_time_is_over_moves_nothing() {
    let mut t = Turn::with(|world| world.policy.auth.mobility = true);
    let (user, password) = minted(&t, "dave", minutes(5));
    t.joins_as("home", &user, &password, Transport::Udp).obtains(allocate_mobile());
    t.joins_as("train", &user, &password, Transport::Udp).learns_a_nonce();
    t.joins_as("hotel", &user, &password, Transport::Udp).learns_a_nonce();
    t.client("train").says_with_ticket_of("home", refresh()).hears(success());
    t.waits(minutes(5));
    t.client("hotel").says_with_ticket_of("train", refresh()).hears(error(401));
    t.client("train").says_with_ticket_of("train", refresh()).hears(error(401));
    t.client("train").says_with_ticket_of("train", refresh_for(0)).hears(success());
    t.is_as_new();
}

#[test]
fn r02_an_allocation_can_be_released_from_afar() {
    let mut t = mobile();
    t.client("train").says_with_ticket_of("home", refresh_for(0)).hears(success()).for_seconds(0);
    assert_eq!((t.ended[0].2, t.deeds.len()), (Ended::Released, 0));
    t.is_as_new();
    let mut t = mobile();
    moves(&mut t, "home", "train");
    t.says(refresh_for(0)).hears(success());
    assert_eq!(t.deeds[1..], [Effect::Detached(t.path_of("train"))]);
    t.is_as_new();
}

#[test]
fn m08_a_connection_that_closes_leaves_its_allocation_time_to_move() {
    let mut t = mobile_over(Transport::Tcp);
    t.first().leaves();
    assert_eq!(t.gauges(), (1, 2, 1));
    t.waits(minutes(4));
    moves(&mut t, "home", "train");
    t.client("train").says(send(PEER_A, b"to")).reaches(PEER_A, b"to");
    hears_peers(&mut t, "train");
    let mut t = mobile_over(Transport::Tcp);
    t.first().leaves();
    t.waits(minutes(10) + seconds(1));
    assert_eq!(t.ended[0].2, Ended::Expired);
    t.is_as_new();
}

#[test]
fn class_18_whoever_has_the_5_tuple_of_a_closed_connection_next_is_another() {
    let mut t = mobile_over(Transport::Tcp);
    let ticket = t.first().party().ticket.clone();
    t.first().leaves();
    is_left(&mut t, "home");
    t.first().says(allocate()).hears(success());
    t.first().says(refresh_for(0)).hears(success());
    // The client itself may come back there, with its ticket.
    let back = refresh().with(Attribute::MOBILITY_TICKET, &ticket);
    t.first().says(back).hears(success());
    t.first().says(create_permission(&[PEER_A])).hears(success());
    assert_eq!((t.gauges(), t.sockets()), ((1, 2, 1), 1));
    t.first().says(refresh_for(0)).hears(success());
    t.is_as_new();
}

#[test]
fn class_18_an_allocation_adrift_and_another_on_its_old_path_do_not_meet() {
    let mut t = mobile_over(Transport::Tcp);
    let ticket = t.first().party().ticket.clone();
    t.first().leaves();
    t.first().says(allocate()).hears(success());
    t.client("train").says(refresh().with(Attribute::MOBILITY_TICKET, &ticket)).hears(success());
    t.client("train").says(create_permission(&[PEER_A])).hears(success());
    t.first().says(send(PEER_A, b"to")).hears(dropped(Dropped::NoPermission));
    t.client("train").says(refresh_for(0)).hears(success());
    assert_eq!(t.gauges(), (1, 0, 0));
    t.first().says(refresh()).hears(success());
    t.first().leaves();
    t.is_as_new();
}

#[test]
fn m08_a_new_connection_that_closes_unused_leaves_the_old_path_as_it_was() {
    let mut t = mobile();
    place(&mut t, "hotel", Transport::Tcp);
    moves(&mut t, "home", "hotel");
    t.client("hotel").leaves();
    hears_peers(&mut t, "home");
    t.client("hotel").says(send(PEER_A, b"to")).hears(dropped(Dropped::NoAllocation));
    moves(&mut t, "hotel", "train");
    t.client("train").says(send(PEER_A, b"to")).reaches(PEER_A, b"to");
    t.first().leaves(); // nobody's path any more
    hears_peers(&mut t, "train");
}

#[test]
fn t13_m11_on_the_move_it_is_one_allocation_of_its_user() {
    let mut t = mobile();
    t.reloads(|world| world.policy.limits.allocations_per_user = 1);
    place(&mut t, "hotel", Transport::Udp);
    let more = |t: &mut Turn, expected| drop(t.client("hotel").says(allocate()).hears(expected));
    more(&mut t, error(486));
    moves(&mut t, "home", "train");
    more(&mut t, error(486));
    t.client("train").says(send(PEER_A, b"to")).reaches(PEER_A, b"to");
    more(&mut t, error(486));
    t.first().says(allocate()).hears(error(486));
    t.client("train").says(refresh_for(0)).hears(success());
    more(&mut t, success());
}

#[test]
fn m11_ten_thousand_moves_grow_nothing() {
    let mut t = mobile();
    let names: Vec<_> = (0..50).map(|at| format!("place {at}")).collect();
    names.iter().for_each(|name| place(&mut t, name, Transport::Udp));
    let mut last = "home";
    let mut size = 0;
    for round in 0..200 {
        for name in &names {
            moves(&mut t, last, name);
            last = name;
        }
        let count = |is: fn(&Effect) -> bool| t.deeds.iter().filter(|deed| is(deed)).count();
        let attached = count(|deed| matches!(deed, Effect::Attached(_)));
        assert_eq!(attached - count(|deed| matches!(deed, Effect::Detached(_))), usize::from(round == 0));
        t.deeds.clear();
        if round == 0 {
            size = format!("{:?}", t.server).len();
        }
    }
    let grown = format!("{:?}", t.server).len().abs_diff(size);
    assert!(grown < 100, "{grown} characters more than after the first moves");
    hears_peers(&mut t, "home");
    t.says(refresh_for(0)).hears(success());
    names.iter().for_each(|name| is_left(&mut t, name));
    t.is_as_new();
}

#[test]
fn of_two_workers_each_knows_the_others_tickets() {
    let [mut here, mut there] = [0, 1].map(|number| {
        Turn::with(|world| {
            world.policy.auth.mobility = true;
            world.place = Place { number, count: 2 };
        })
    });
    there.joins("alice").obtains(allocate_mobile());
    let ticket = there.first().party().ticket.clone();
    here.joins("alice").learns_a_nonce();
    let shown = here.says(refresh().with(Attribute::MOBILITY_TICKET, &ticket));
    assert_eq!(shown.verdict, Verdict::Elsewhere(1));
}

#[test]
fn a_ticket_of_another_worker_is_shown_there() {
    let of = |number| {
        Turn::with(|world| {
            world.policy.auth.mobility = true;
            world.place = Place { number, count: 3 };
        })
    };
    let (mut here, mut there) = (of(0), of(2));
    there.joins("alice").obtains(allocate_mobile());
    let ticket = there.first().party().ticket.clone();
    let shown = || refresh().with(Attribute::MOBILITY_TICKET, &ticket);
    here.joins("alice").learns_a_nonce();
    assert_eq!(here.says(shown()).verdict, Verdict::Elsewhere(2));
    let mut fewer = Turn::with(|world| {
        world.policy.auth.mobility = true;
        world.place = Place { number: 0, count: 2 };
    });
    fewer.joins("alice").learns_a_nonce();
    fewer.says(shown()).hears(error(437)); // workers are counted from 0
    let mut bent = ticket.clone();
    bent[20] ^= 1;
    here.says(refresh().with(Attribute::MOBILITY_TICKET, &bent)).hears(error(437));
    here.says(allocate()).hears(success());
    here.says(shown()).hears(success()); // it has an allocation here, which is meant
    let mut alone = Turn::with(|world| world.policy.auth.mobility = true);
    alone.joins("alice").learns_a_nonce();
    alone.says(shown()).hears(error(437)); // there is no such worker
}

#[test]
fn j01_a_tcp_relay_moves_to_connections_only() {
    let mut t = Turn::with(|world| world.policy.auth.mobility = true);
    let tcp = request(Method::ALLOCATE)
        .with(Attribute::REQUESTED_TRANSPORT, &[6, 0, 0, 0])
        .with(Attribute::MOBILITY_TICKET, &[]);
    t.joins_as("home", "alice", &password_of("alice"), Transport::Tcp).obtains(tcp);
    place(&mut t, "train", Transport::Udp);
    place(&mut t, "hotel", Transport::Tcp);
    t.client("train").says_with_ticket_of("home", refresh()).hears(error(400));
    moves(&mut t, "home", "hotel");
    t.client("hotel").says(create_permission(&[PEER_A])).hears(success());
    let path = t.path_of("hotel");
    t.peer(PEER_A).connects_to("home").hears(attempt(PEER_A)).comes_by(path);
}
