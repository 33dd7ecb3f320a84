//! Quotas, bandwidth, and how much a stranger is answered.

use crate::support::*;
use turnserver::time::Instant;
use turnserver::turn::Verdict;
use turnserver::turn::limits::SharedBucket;
use turnserver::turn::refusal::Dropped;
use turnserver::turn::tally::Transport;
use turnserver::wire::codes::Attribute;

#[test]
fn t13_l31_x04_a_user_has_so_many_allocations_wherever_they_come_from() {
    // Each client of a world has an address of its own.
    let mut t = Turn::with(|world| world.policy.limits.allocations_per_user = 9);
    for at in 0..9 {
        t.joins_as(&at.to_string(), "alice", &password_of("alice"), Transport::Udp).allocates();
    }
    t.joins_as("9", "alice", &password_of("alice"), Transport::Tcp).learns_a_nonce();
    t.client("9").says(allocate()).hears(error(486)).signed();
    t.joins("bob").allocates();
    t.client("1").says(refresh_for(0)).hears(success());
    t.client("9").says(allocate()).hears(success());
}

#[test]
fn v06_by_default_a_browser_has_an_allocation_of_each_family() {
    let mut t = Turn::new();
    for (name, family, peer) in [("v4", 1, PEER_A), ("v6", 2, PEER_V6)] {
        let ask = allocate().with(Attribute::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]);
        t.joins_as(name, "alice", &password_of("alice"), Transport::Udp).obtains(ask);
        t.client(name).says(create_permission(&[peer])).hears(success());
    }
    for (name, peer) in [("v4", PEER_A), ("v6", PEER_V6)] {
        t.client(name).says(send(peer, b"to")).reaches(peer, b"to");
        t.peer(peer).sends_to(name, b"fro").hears(data(peer, b"fro"));
    }
    assert_eq!(t.gauges().0, 2);
}

#[test]
fn t13_all_credentials_of_one_user_share_one_quota() {
    let mut t = Turn::with(|world| world.policy.limits.allocations_per_user = 2);
    for (at, ttl) in [10, 20, 30].into_iter().enumerate() {
        let (user, password) = minted(&t, "dave", minutes(ttl));
        let mut client = t.joins_as(&at.to_string(), &user, &password, Transport::Udp);
        client.learns_a_nonce();
        client.says(allocate()).hears(if at < 2 { success() } else { error(486) });
    }
}

#[test]
fn a_repeated_allocate_is_counted_once() {
    let mut t = Turn::with(|world| world.policy.limits.allocations_per_user = 1);
    t.joins("alice").allocates();
    t.first().repeats().hears(success());
    t.says(refresh_for(0)).hears(success());
    t.first().allocates();
}

#[test]
fn l44_the_quota_is_told_before_the_lack_of_ports() {
    let mut t = Turn::with(|world| {
        world.policy.limits.allocations_per_user = 1;
        world.relay_ports = 50_000..=50_000;
    });
    t.joins("alice").allocates();
    t.joins_as("phone", "alice", &password_of("alice"), Transport::Udp).learns_a_nonce();
    t.client("phone").says(allocate()).hears(error(486));
    t.joins("bob").learns_a_nonce();
    t.client("bob").says(allocate()).hears(error(508));
}

#[test]
fn the_whole_server_has_so_many_allocations() {
    let mut t = Turn::with(|world| world.policy.limits.allocations = 2);
    t.joins("alice").allocates();
    t.joins("bob").allocates();
    t.joins("carol").learns_a_nonce();
    t.client("carol").says(allocate()).hears(error(486));
    assert_eq!(t.tally.limited_quota.get(), 1);
}

#[test]
fn t14_x04_data_over_the_rate_is_dropped_and_requests_are_not() {
    // The decision: the rate is the allocation's; a quota of allocations makes it the user's.
    let rate = 100_000;
    let mut t = Turn::with(|world| world.policy.limits.bandwidth_per_allocation = Some(rate));
    t.joins("alice").allocates();
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    let (mut up, mut down) = (0, 0);
    for _ in 0..10_000 {
        t.passes(core::time::Duration::from_millis(1));
        if let Verdict::ToPeer { .. } = t.says(channel_data(0x4000, &[0; 200])).verdict {
            up += 200;
        }
        if let Verdict::ToClient(_) = t.peer(PEER_A).sends(&[0; 200]).verdict {
            down += 200;
        }
    }
    for relayed in [up, down] {
        let ten_seconds_and_a_full_bucket = 11 * rate;
        assert!(relayed <= ten_seconds_and_a_full_bucket && relayed >= 10 * rate * 95 / 100, "{relayed}");
    }
    t.says(refresh()).hears(success());
    assert!(t.tally.limited_bandwidth.get() > 0);
}

#[test]
fn a_network_gets_so_many_answers_a_second_and_its_neighbour_its_own() {
    let mut t = Turn::with(|world| world.policy.limits.unauthenticated_per_ip = 10);
    t.joins("alice");
    t.joins("bob");
    let answered = |t: &mut Turn, name: &str, ask: fn() -> Ask| {
        (0..1000).filter(|_| matches!(t.client(name).says(ask()).verdict, Verdict::ToClient(_))).count()
    };
    assert_eq!(answered(&mut t, "alice", || allocate().unsigned()), 10);
    assert_eq!(answered(&mut t, "alice", binding), 0, "one budget for all that nobody signed");
    assert_eq!(answered(&mut t, "bob", binding), 10);
    t.passes(seconds(1));
    assert_eq!(answered(&mut t, "alice", binding), 10);
    assert_eq!(t.dropped(Dropped::UnauthenticatedLimit), 0, "drops are counted by the shell");
    assert_eq!(t.tally.limited_unauthenticated.get(), 990 + 1000 + 990 + 990);
}

#[test]
fn all_of_an_ipv6_64_is_one_network_and_a_port_is_none() {
    let mut t = Turn::with(|world| world.policy.limits.unauthenticated_per_ip = 10);
    let ask = [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[5; 12]].concat();
    let mut answered = |client: String| {
        let client = client.parse().expect("an address");
        let tuple = turnserver::turn::FiveTuple { transport: Transport::Udp, client, server: SERVER_V6 };
        matches!(t.datagram(tuple, &ask).verdict, Verdict::ToClient(_))
    };
    assert_eq!((1..1000).filter(|at| answered(format!("[2a00:40::{at:x}]:{at}"))).count(), 10);
    assert_eq!((1..1000).filter(|at| answered(format!("30.1.1.1:{at}"))).count(), 10);
    let others = (1..1000).filter(|at| answered(format!("[2a00:40:0:{at:x}::1]:1"))).count();
    assert!(others > 990, "{others}: a few may share a bucket with one that is empty");
}

#[test]
fn whoever_has_signed_is_not_held_up_by_strangers_behind_the_same_address() {
    let mut t = Turn::with(|world| world.policy.limits.unauthenticated_per_ip = 10);
    t.joins("alice").allocates();
    for _ in 0..100 {
        let _ = t.says(binding());
    }
    t.says(binding()).hears(dropped(Dropped::UnauthenticatedLimit));
    t.says(refresh()).hears(success());
    t.says(create_permission(&[PRIVATE])).hears(error(403));
}

#[test]
fn a_connection_cannot_be_forged_and_is_not_held_up() {
    let mut t = Turn::with(|world| world.policy.limits.unauthenticated_per_ip = 1);
    t.joins_by_tcp("alice");
    for _ in 0..100 {
        t.says(binding()).hears(success());
        t.says(allocate().unsigned()).hears(error(401));
    }
}

#[test]
fn x01_a_wrong_signature_is_a_strangers() {
    let mut t = Turn::with(|world| world.policy.limits.unauthenticated_per_ip = 10);
    t.joins("alice").learns_a_nonce();
    let answers = (0..100).filter(|_| matches!(t.says(allocate().forged()).verdict, Verdict::ToClient(_))).count();
    assert_eq!(answers, 9);
    t.passes(seconds(1));
    let answers = (0..100).filter(|_| {
        let outcome = t.says(allocate().but(Attribute::NONCE, b"old"));
        matches!(outcome.verdict, Verdict::ToClient(_))
    });
    assert_eq!(answers.count(), 10);
}

#[test]
fn a_datagram_too_long_for_any_message_costs_no_bandwidth() {
    let mut t = Turn::with(|world| world.policy.limits.bandwidth_per_allocation = Some(100_000));
    t.joins("alice").obtains(allocate().with(Attribute::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]));
    t.says(create_permission(&[PEER_V6])).hears(success());
    t.peer(PEER_V6).sends(&[7; 65_507]).hears(dropped(Dropped::TooLarge));
    t.peer(PEER_V6).sends(&[7; 60_000]).hears(data(PEER_V6, &[7; 60_000]));
}

#[test]
fn what_is_spent_from_a_shared_bucket_is_waited_for_until_half_of_it_is_left() {
    let (bucket, noon) = (SharedBucket::default(), Instant(1_000_000_000_000));
    let half = core::time::Duration::from_millis(500);
    assert_eq!(bucket.charge(noon, 1000, 500), None);
    assert_eq!(bucket.charge(noon, 1000, 500), Some(noon + half));
    assert_eq!(bucket.charge(noon, 1000, 2000), Some(noon + half * 5));
    assert!(!bucket.take(noon + seconds(2), 1000, 1), "others took it all");
    assert!(bucket.take(noon + seconds(3), 1000, 1000), "it is full again");
    assert_eq!(bucket.charge(noon + seconds(9), 1000, 0), None);
}
