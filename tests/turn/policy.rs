//! Rules that change while the server runs: what they no longer permit ends at once.

use crate::support::*;
use turnserver::turn::credential::Secret;
use turnserver::turn::refusal::{Dropped, Ended};
use turnserver::turn::tally::Transport;

#[test]
fn d04_x03_a_new_rule_ends_permissions_and_channels_and_leaves_the_others() {
    let mut t = Turn::allocated("alice");
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.says(channel_bind(0x4001, PEER_B)).hears(success());
    t.reloads(|world| world.deny.push("11.0.0.1/32".parse().expect("a prefix")));
    t.says(channel_data(0x4000, b"hello")).hears(dropped(Dropped::NoChannel));
    t.peer(PEER_A).sends(b"hello").hears(dropped(Dropped::NoPermission));
    t.says(channel_bind(0x4000, PEER_A)).hears(error(403));
    t.says(channel_data(0x4001, b"hello")).reaches(PEER_B, b"hello");
    assert_eq!(t.gauges(), (1, 1, 1));
}

#[test]
fn a_rule_taken_back_gives_nothing_back_by_itself() {
    let mut t = Turn::allocated("alice");
    t.says(create_permission(&[PEER_A])).hears(success());
    t.reloads(|world| world.deny.push("11.0.0.0/8".parse().expect("a prefix")));
    t.reloads(|world| world.deny.clear());
    t.peer(PEER_A).sends(b"hello").hears(dropped(Dropped::NoPermission));
    t.says(create_permission(&[PEER_A])).hears(success());
    t.peer(PEER_A).sends(b"hello").hears(data(PEER_A, b"hello"));
}

#[test]
fn an_address_opened_by_name_is_open_from_then_on() {
    let mut t = Turn::allocated("alice");
    t.says(create_permission(&[PRIVATE])).hears(error(403));
    t.reloads(|world| world.allow.push("10.0.0.0/8".parse().expect("a prefix")));
    t.says(create_permission(&[PRIVATE])).hears(success());
    t.says(send(PRIVATE, b"hello")).reaches(PRIVATE, b"hello");
}

#[test]
fn a_user_taken_away_is_gone_at_once_and_one_with_a_new_password_too() {
    let mut t = Turn::allocated("alice");
    t.joins("bob").allocates();
    t.joins("carol").allocates();
    t.reloads(|world| {
        world.policy.auth.users.remove("alice");
        world.policy.auth.users.insert("bob".into(), keys_of("bob", "another"));
    });
    let ended: Vec<_> = t.ended.iter().map(|(session, _, why)| (&*session.user, *why)).collect();
    assert_eq!(ended, [("alice", Ended::Revoked), ("bob", Ended::Revoked)]);
    t.client("alice").says(refresh()).hears(error(401));
    t.client("carol").says(refresh()).hears(success());
}

#[test]
fn a_user_taken_away_while_the_socket_is_made_gets_none() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    t.shell_is_slow = true;
    t.says(allocate()).hears(silence());
    t.reloads(|world| {
        world.policy.auth.users.clear();
    });
    t.shell_binds().hears(dropped(Dropped::NoAllocation));
    assert_eq!((t.gauges(), t.sockets()), ((0, 0, 0), 0));
}

#[test]
fn a_reload_that_changes_nothing_changes_nothing() {
    let mut t = Turn::allocated("alice");
    let (user, password) = minted(&t, "dave", minutes(10));
    t.joins_as("dave", &user, &password, Transport::Udp).allocates();
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.reloads(|_| {});
    t.reloads(|world| world.policy.auth.secrets = vec![Secret::new("south")]);
    assert_eq!(t.gauges(), (2, 1, 1));
    t.says(channel_data(0x4000, b"hello")).reaches(PEER_A, b"hello");
}

#[test]
fn a_new_limit_holds_from_the_next_refresh() {
    let mut t = Turn::allocated("alice");
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.reloads(|world| world.policy.limits.allocation_lifetime = minutes(20));
    t.says(refresh()).hears(success()).for_seconds(1200);
    t.says(channel_data(0x4000, b"hello")).reaches(PEER_A, b"hello");
}
