//! Long-term credentials, RFC 8489 §9.2, and time-limited ones.

use crate::support::*;
use std::collections::{BTreeMap, BTreeSet};
use turnserver::turn::FiveTuple;
use turnserver::turn::credential::{self, Secret};
use turnserver::turn::refusal::AuthFailure;
use turnserver::turn::tally::Transport;
use turnserver::wire::codes::{Attribute, Method};
use turnserver::wire::integrity::PasswordAlgorithm;

#[test]
fn a01_l01_without_a_signature_one_is_told_realm_and_nonce_and_no_more() {
    let mut t = Turn::new();
    t.joins("alice");
    for method in [Method::ALLOCATE, Method::REFRESH, Method::CREATE_PERMISSION, Method::CHANNEL_BIND] {
        let outcome = t.says(request(method).with(Attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]).unsigned());
        let outcome = outcome.hears(error(401)).unsigned();
        let said = [Attribute::ERROR_CODE, Attribute::REALM, Attribute::NONCE, Attribute::PASSWORD_ALGORITHMS];
        assert_eq!(outcome.attributes(), said);
        assert_eq!(outcome.get(Attribute::REALM), Some(REALM.into()));
    }
    t.is_as_new();
}

#[test]
fn a02_two_ports_never_get_the_same_nonce() {
    let mut t = Turn::new();
    let nonces: BTreeSet<_> = (1..=10_000).map(|port| nonce_for(&mut t, &format!("30.0.0.1:{port}"))).collect();
    assert_eq!(nonces.len(), 10_000);
}

#[test]
fn a27_ten_thousand_nonces_have_nothing_in_common_but_their_head_and_the_time() {
    const HEAD: usize = 14; // the cookie, the features, one digit of time
    let mut t = Turn::new();
    let nonces: Vec<_> = (1..=10_000).map(|port| nonce_for(&mut t, &format!("30.0.0.1:{port}"))).collect();
    // 64 letters, 63 degrees of freedom: 120 is exceeded once in fifty thousand runs, and this run has one key.
    for at in HEAD..nonces[0].len() {
        let mut seen = BTreeMap::<u8, f64>::new();
        nonces.iter().for_each(|nonce| *seen.entry(nonce[at]).or_default() += 1.0);
        let expected = nonces.len() as f64 / 64.0;
        let chi_square: f64 = seen.values().map(|count| (count - expected).powi(2) / expected).sum();
        assert!(seen.len() == 64 && chi_square < 120.0, "letter {at}: {chi_square}");
    }
    // A counter would go up, or down, more often than not.
    let ups = nonces.windows(2).filter(|pair| pair[0][HEAD..] < pair[1][HEAD..]).count();
    assert!((4_800..5_200).contains(&ups), "{ups}");
}

#[test]
fn a03_a04_a_nonce_begins_with_the_cookie_and_promises_algorithms_in_both_readings() {
    // The decision: the first bit is set at both ends, for readers count from either.
    let mut t = Turn::new();
    let nonce = nonce_for(&mut t, "30.0.0.1:1");
    assert!(nonce.starts_with(b"obMatJos2gAAB"));
    assert!(nonce.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte)));
}

#[test]
fn a06_a07_a08_a_signature_without_name_realm_or_nonce_is_a_bad_request() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    for missing in [Attribute::USERNAME, Attribute::REALM, Attribute::NONCE] {
        let outcome = t.says(allocate().without(missing)).hears(error(400)).unsigned();
        assert_eq!(outcome.attributes(), [Attribute::ERROR_CODE]);
    }
    t.is_as_new();
}

#[test]
fn a13_a14_a_wrong_password_is_told_like_an_unknown_user() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    let wrong = t.says(allocate().by_user("alice", "wrong")).hears(error(401)).unsigned();
    let flipped = t.says(allocate().forged()).hears(error(401)).unsigned();
    let unknown = t.says(allocate().by_user("nobody", "wrong")).hears(error(401)).unsigned();
    let expired = t.says(allocate().by_user("1:alice", "wrong")).hears(error(401)).unsigned();
    for other in [&flipped, &unknown, &expired] {
        assert_eq!(wrong.bytes[..8], other.bytes[..8]);
        assert_eq!(wrong.bytes[20..], other.bytes[20..], "but for the transaction, not one byte differs");
    }
    let failures = |why: AuthFailure| t.tally.auth_failures[why as usize].get();
    assert_eq!((failures(AuthFailure::WrongPassword), failures(AuthFailure::UnknownUser)), (3, 1));
    t.is_as_new();
}

/// What an answer says, but for the nonce, which is the client's own.
fn but_nonce(outcome: &Outcome) -> (usize, Vec<(Attribute, Vec<u8>)>) {
    let said = outcome.attributes().into_iter().filter(|attribute| *attribute != Attribute::NONCE);
    let value = |attribute| outcome.get(attribute).expect("it is there");
    (outcome.bytes.len(), said.map(|attribute| (attribute, value(attribute))).collect())
}

#[test]
fn a_no_is_the_same_for_every_kind_of_somebody_and_for_nobody() {
    for has_secrets in [true, false] {
        let mut t = Turn::with(|world| {
            if !has_secrets {
                world.policy.auth.secrets = Vec::new();
            }
        });
        let (dave, _) = minted(&t, "dave", minutes(10));
        let now = t.now.unix.0;
        let names = ["alice", "nobody", "", ":", &dave, &format!("{}:late", now - 1), &format!("{}:far", now + 90_000)];
        let mut heard = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let mut client = t.joins_as(&at.to_string(), name, "wrong", Transport::Tcp);
            client.learns_a_nonce();
            heard.push(client.says(allocate()).hears(error(401)).unsigned());
            heard.push(client.says(allocate().sha256()).hears(error(401)).unsigned());
            heard.push(client.says(allocate().hidden()).hears(error(401)).unsigned());
            heard.push(
                client.says(allocate().choosing(PasswordAlgorithm::Sha256).sha256()).hears(error(401)).unsigned(),
            );
        }
        assert!(heard.iter().all(|outcome| but_nonce(outcome) == but_nonce(&heard[0])));
        t.is_as_new();
    }
}

#[test]
fn a15_a27_a_nonce_is_good_for_an_hour_and_the_next_one_at_once() {
    let mut t = Turn::allocated("alice");
    t.says(refresh_for(3600)).hears(success());
    t.waits(minutes(59));
    t.says(refresh_for(3600)).hears(success());
    t.waits(minutes(1) + seconds(1));
    t.says(refresh_for(3600)).hears(error(438)).unsigned();
    t.says(refresh_for(3600)).hears(success());
}

#[test]
fn a16_a_wrong_password_with_a_stale_nonce_is_a_wrong_password() {
    // The decision: the order of the RFC, also for a nonce that never was ours.
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    t.waits(minutes(61));
    t.says(allocate().by_user("alice", "wrong")).hears(error(401));
}

#[test]
fn a17_t12_whoever_is_known_gets_signed_answers_good_and_bad() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    t.says(refresh()).hears(error(437)).signed();
    t.says(request(Method::ALLOCATE)).hears(error(400)).signed();
    t.says(allocate()).hears(success()).signed();
    t.says(allocate()).hears(error(437)).signed();
    t.says(create_permission(&[PRIVATE])).hears(error(403)).signed();
    t.says(create_permission(&[PEER_V6])).hears(error(443)).signed();
    t.says(channel_bind(0x3FFF, PEER_A)).hears(error(400)).signed();
    t.says(channel_bind(0x4000, PEER_A)).hears(success()).signed();
    t.says(refresh().by_user("bob", &password_of("bob"))).hears(error(441)).signed();
}

#[test]
fn a19_a_yes_repeats_nothing_of_the_credential() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    let all = [
        t.says(allocate()).hears(success()),
        t.says(refresh()).hears(success()),
        t.says(create_permission(&[PEER_A])).hears(success()),
        t.says(channel_bind(0x4000, PEER_A)).hears(success()),
    ];
    for attribute in [Attribute::REALM, Attribute::NONCE, Attribute::USERNAME, Attribute::USERHASH] {
        assert!(all.iter().all(|outcome| outcome.get(attribute).is_none()));
    }
}

#[test]
fn a24_a_name_outside_ascii_is_a_name() {
    let (user, password) = ("マトリックス", "TheMatrIX");
    let mut t = Turn::with(|world| {
        let key = keys_of(user, password);
        world.policy.auth.users.insert(user.into(), key);
    });
    t.joins_as("neo", user, password, Transport::Udp).allocates().signed();
}

#[test]
fn a24_what_clients_send_is_taken_byte_for_byte() {
    // The decision: whoever signs with the decomposed name has signed with another name, as with any other server.
    let mut t = Turn::with(|world| {
        let key = keys_of("Amélie", "p");
        world.policy.auth.users.insert("Amélie".into(), key);
    });
    t.joins_as("composed", "Amélie", "p", Transport::Udp).allocates();
    t.joins_as("decomposed", "Ame\u{301}lie", "p", Transport::Udp).learns_a_nonce();
    t.client("decomposed").says(allocate()).hears(error(401));
}

#[test]
fn a24_a_minted_name_is_in_the_form_that_clients_sign_with() {
    let mut t = Turn::new();
    let (user, password) = minted(&t, "Ame\u{301}lie", minutes(10));
    assert!(user.ends_with(":Amélie"));
    t.joins_as("amélie", &user, &password, Transport::Udp).allocates();
}

#[test]
fn a25_another_realm_is_told_the_right_one() {
    // The decision: 401, by which a client can mend it; coturn says 437 or 441.
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    let outcome = t.says(allocate().but(Attribute::REALM, b"example.net")).hears(error(401));
    assert_eq!(outcome.get(Attribute::REALM), Some(REALM.into()));
}

#[test]
fn a26_an_indication_is_not_authenticated_and_needs_not_be() {
    let mut t = Turn::allocated("alice");
    t.says(create_permission(&[PEER_A])).hears(success());
    t.says(send(PEER_A, b"hello").with(Attribute::MESSAGE_INTEGRITY, &[7; 20])).reaches(PEER_A, b"hello");
}

#[test]
fn a28_neither_passwords_nor_secrets_show_in_debug_output() {
    let t = Turn::allocated("alice");
    let shown = format!("{:?} {:?}", t.policy, t.server);
    let key = turnserver::wire::integrity::Key::md5("alice", REALM, &password_of("alice"));
    for hidden in [password_of("alice"), SECRET.into(), "a key for nonces".into(), format!("{:?}", key.expose())] {
        assert!(!shown.contains(&hidden));
    }
}

#[test]
fn a30_a_nonce_works_for_its_address_and_port_alone() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    let nonce = t.first().party().nonce.clone();
    let own = t.first().party().path.tuple;
    let mut other_port = own.client;
    other_port.set_port(own.client.port() + 1);
    let mut other_host = own.client;
    other_host.set_ip("30.9.9.9".parse().unwrap());
    for client in [other_port, other_host] {
        let mut thief = t.joins_at("thief", "alice", &password_of("alice"), FiveTuple { client, ..own });
        thief.learns_a_nonce();
        thief.says(allocate().but(Attribute::NONCE, &nonce)).hears(error(438));
        thief.says(allocate()).hears(success());
    }
    t.first().says(allocate().but(Attribute::NONCE, &nonce)).hears(success());
}

#[test]
fn a30_another_server_with_the_same_nonce_key_takes_the_nonce() {
    let mut one = Turn::new();
    let nonce = nonce_for(&mut one, "30.0.0.0:4000");
    let mut two = Turn::new();
    two.joins("alice").learns_a_nonce();
    assert_eq!(two.first().party().path.tuple.client.to_string(), "30.0.0.0:4000");
    two.says(allocate().but(Attribute::NONCE, &nonce)).hears(success());
}

#[test]
fn a30_no_changed_or_invented_nonce_is_taken() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    let nonce = t.first().party().nonce.clone();
    for at in 0..nonce.len() {
        let mut changed = nonce.clone();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        t.says(allocate().but(Attribute::NONCE, &changed)).hears(error(438));
    }
    for invented in [&b""[..], b"obMatJos2AAAA", b"nonce", &[0xFF; 29], &[b'A'; 700]] {
        t.says(allocate().but(Attribute::NONCE, invented)).hears(error(438));
    }
    t.is_as_new();
}

#[test]
fn a31_after_a_new_nonce_key_each_client_needs_one_more_round() {
    let mut t = Turn::allocated("alice");
    t.reloads(|world| world.policy.auth.nonce_key = Secret::new("another"));
    t.says(refresh()).hears(error(438));
    t.says(refresh()).hears(success());
}

#[test]
fn a31_a_hundred_clients_need_a_hundred_rounds_and_no_more() {
    let mut t = Turn::new();
    let names: Vec<String> = (0..100).map(|at| at.to_string()).collect();
    for name in &names {
        t.joins_as(name, "alice", &password_of("alice"), Transport::Udp).allocates();
        t.client(name).says(channel_bind(0x4000, PEER_A)).hears(success());
    }
    t.reloads(|world| world.policy.auth.nonce_key = Secret::new("another"));
    let mut rounds = 0;
    for ask in [refresh(), create_permission(&[PEER_A]), channel_bind(0x4000, PEER_A), refresh()] {
        for name in &names {
            let outcome = t.client(name).says(ask.clone());
            if outcome.code() == Some(438) {
                rounds += 1;
                t.client(name).says(ask.clone()).hears(success());
            }
            t.client(name).says(channel_data(0x4000, b"on it goes")).reaches(PEER_A, b"on it goes");
        }
    }
    assert_eq!(rounds, 100);
}

#[test]
fn a32_a_credential_with_an_expiry_is_good_until_then() {
    let mut t = Turn::new();
    let (user, password) = minted(&t, "dave", minutes(10));
    t.joins_as("dave", &user, &password, Transport::Udp).allocates();
    t.joins_as("eve", &user, &password, Transport::Udp).learns_a_nonce();
    t.waits(minutes(10) - seconds(1));
    t.client("eve").says(allocate()).hears(success());
    t.joins_as("frank", &user, &password, Transport::Udp).learns_a_nonce();
    t.waits(seconds(1));
    t.client("frank").says(allocate()).hears(error(401));
}

#[test]
fn a32_a_bare_expiry_is_a_name_too() {
    let mut t = Turn::new();
    let user = (t.now.unix.0 + 60).to_string();
    let password = credential::password(&Secret::new(SECRET), &user);
    t.joins_as("dave", &user, &password, Transport::Udp).allocates();
}

#[test]
fn a32_a_name_without_a_sound_expiry_is_nobody() {
    let mut t = Turn::new();
    let now = t.now.unix.0;
    let names = [
        "".into(),
        ":".into(),
        ":dave".into(),
        "dave".into(),
        "-1:dave".into(),
        format!("+{now}:dave"),
        format!(" {}:dave", now + 60),
        format!("{}x:dave", now + 60),
        "9223372036854775808:dave".into(),
        "18446744073709551615:dave".into(),
        "18446744073709551616:dave".into(),
        "0:dave".into(),
        format!("{}:dave", now - 1),
        format!("{now}:dave"),
        format!("0x{now:x}:dave"),
    ];
    for (at, user) in names.iter().enumerate() {
        let password = credential::password(&Secret::new(SECRET), user);
        let mut client = t.joins_as(&at.to_string(), user, &password, Transport::Udp);
        client.learns_a_nonce();
        client.says(allocate()).hears(error(401));
    }
    t.is_as_new();
}

#[test]
fn a32_a_credential_may_not_live_longer_than_the_operator_says() {
    let mut t = Turn::with(|world| world.policy.auth.max_ttl = minutes(60));
    // Five minutes more are for clocks that differ.
    let (user, password) = minted(&t, "dave", seconds(65 * 60 + 1));
    t.joins_as("dave", &user, &password, Transport::Udp).learns_a_nonce();
    t.says(allocate()).hears(error(401));
    let (user, password) = minted(&t, "erin", minutes(65));
    t.joins_as("erin", &user, &password, Transport::Udp).allocates();
}

#[test]
fn a32_while_secrets_rotate_both_are_good() {
    let mut t = Turn::new();
    let (user, password) = minted(&t, "dave", minutes(10));
    t.reloads(|world| world.policy.auth.secrets = vec![Secret::new("south"), Secret::new(SECRET)]);
    t.joins_as("dave", &user, &password, Transport::Udp).allocates();
    let password = credential::password(&Secret::new("south"), &user);
    t.joins_as("erin", &user, &password, Transport::Udp).allocates();
    t.reloads(|world| world.policy.auth.secrets = vec![Secret::new("south")]);
    let (user, password) = minted(&t, "frank", minutes(10));
    t.joins_as("frank", &user, &password, Transport::Udp).learns_a_nonce();
    t.client("frank").says(allocate()).hears(error(401));
    t.client("dave").says(refresh()).hears(success()); // a live call is not cut by a rotation
}

#[test]
fn a33_an_expired_credential_ends_with_the_allocation_and_not_before() {
    // The decision: a call lives on to the end of its allocation, and is not refreshed.
    let mut t = Turn::new();
    let (user, password) = minted(&t, "dave", minutes(5));
    t.joins_as("dave", &user, &password, Transport::Udp).allocates();
    t.waits(minutes(5));
    t.says(create_permission(&[PEER_A])).hears(success());
    t.says(channel_bind(0x4000, PEER_A)).hears(success());
    t.says(channel_data(0x4000, b"still here")).reaches(PEER_A, b"still here");
    t.says(refresh()).hears(error(401)).unsigned();
    t.says(create_permission(&[PEER_A])).hears(success());
    t.says(refresh_for(0)).hears(success()).for_seconds(0);
    t.is_as_new();
}

#[test]
fn a33_a_wall_clock_that_jumps_moves_no_timer() {
    let mut t = Turn::allocated("alice");
    t.now.unix.0 += 3600;
    t.waits(minutes(9));
    t.now.unix.0 = 0;
    t.says(refresh()).hears(success());
}

#[test]
fn s33_a_name_of_508_bytes_is_a_name_and_of_509_is_none() {
    let user = |len: usize| "u".repeat(len);
    let mut t = Turn::with(|world| {
        for len in [508, 509] {
            let key = keys_of(&user(len), "p");
            world.policy.auth.users.insert(user(len), key);
        }
    });
    t.joins_as("long", &user(508), "p", Transport::Udp).allocates();
    t.joins_as("longer", &user(509), "p", Transport::Udp).learns_a_nonce();
    t.client("longer").says(allocate()).hears(error(400));
    for (len, code) in [(763, 401), (764, 400), (1200, 400), (2000, 400)] {
        for attribute in [Attribute::REALM, Attribute::NONCE] {
            let ask = allocate().by_user("alice", "x").but(attribute, &vec![b'r'; len]);
            t.client("longer").says(ask).hears(error(code));
        }
    }
}

#[test]
fn a_name_that_is_no_text_is_a_bad_request() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    t.says(allocate().but(Attribute::USERNAME, &[0xC3, 0x28])).hears(error(400));
    t.says(allocate().but(Attribute::REALM, &[0xC3, 0x28])).hears(error(400));
    t.says(allocate().but(Attribute::USERNAME, b"alice\0")).hears(error(401));
}

/// The nonce that a challenge to this address carries.
fn nonce_for(t: &mut Turn, client: &str) -> Vec<u8> {
    t.passes(core::time::Duration::from_millis(20)); // one network gets a hundred answers a second
    let mut ask = vec![0, 3, 0, 8, 0x21, 0x12, 0xA4, 0x42];
    ask.extend([9; 12]);
    ask.extend([0, 0x19, 0, 4, 17, 0, 0, 0]);
    let tuple = FiveTuple { transport: Transport::Udp, client: client.parse().expect("an address"), server: SERVER };
    t.datagram(tuple, &ask).hears(error(401)).get(Attribute::NONCE).expect("a challenge has a nonce")
}

#[test]
fn a31_a_name_that_says_no_expiry_is_whole_the_users() {
    for (name, ends, user) in [
        ("1700000600:alice", Some(1_700_000_600), "alice"),
        ("1700000600:a:b", Some(1_700_000_600), "a:b"),
        ("1700000600", Some(1_700_000_600), "1700000600"),
        ("1700000600:", Some(1_700_000_600), "1700000600:"),
        (":alice", None, ":alice"),
        ("alice", None, "alice"),
        ("alice:1700000600", None, "alice:1700000600"),
        ("+17:alice", None, "+17:alice"),
        ("17a:alice", None, "17a:alice"),
        ("", None, ""),
        ("99999999999999999999:alice", None, "99999999999999999999:alice"),
    ] {
        assert_eq!(credential::expiry(name, ':').map(|ends| ends.0), ends, "{name}");
        assert_eq!(credential::user(name, ':'), user);
    }
    assert_eq!(credential::user("1700000600.alice", '.'), "alice");
}

#[test]
fn a28_a_secret_says_that_it_is_one_and_no_more() {
    assert_eq!(format!("{:?}", Secret::new("north")), "Secret(…)");
}
