//! SHA-256 beside MD5 and SHA-1: algorithms to choose from, hidden names, and the nonces that promise them (RFC 8489
//! §9.2, §14.6, §18.5).

use crate::support::*;
use base64::Engine as _;
use std::collections::BTreeSet;
use turnserver::time::Instant;
use turnserver::turn::FiveTuple;
use turnserver::turn::credential::{self, Secret};
use turnserver::turn::policy::UserKeys;
use turnserver::turn::refusal::{AuthFailure, Ended};
use turnserver::turn::tally::Transport;
use turnserver::wire::codes::{Attribute, Method};
use turnserver::wire::integrity::{Algorithm, Key, PasswordAlgorithm};

const WHOLE: (Algorithm, usize) = (Algorithm::Sha256, 32);
const OLD: (Algorithm, usize) = (Algorithm::Sha1, 20);

fn challenged() -> Turn {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    t
}

#[test]
fn a18_a22_whoever_chooses_sha256_is_answered_with_it_good_and_bad() {
    let mut t = challenged();
    t.says(refresh().sha256()).hears(error(437)).signed_with(Algorithm::Sha256);
    t.says(allocate().sha256()).hears(success()).signed_with(Algorithm::Sha256);
    t.says(create_permission(&[PRIVATE]).sha256()).hears(error(403)).signed_with(Algorithm::Sha256);
    t.says(channel_bind(0x4000, PEER_A).sha256()).hears(success()).signed_with(Algorithm::Sha256);
    t.says(refresh().sha256().with(Attribute(0x7777), b"odd")).hears(error(420)).signed_with(Algorithm::Sha256);
    t.says(refresh_for(0).sha256()).hears(success()).signed_with(Algorithm::Sha256);
    t.is_as_new();
}

#[test]
fn a09_a18_a_client_that_knows_no_algorithms_is_spoken_to_as_ever() {
    let mut t = challenged();
    t.says(allocate()).hears(success()).signed_with(Algorithm::Sha1);
    t.says(refresh()).hears(success()).signed_with(Algorithm::Sha1);
    t.says(create_permission(&[PRIVATE])).hears(error(403)).signed_with(Algorithm::Sha1);
}

#[test]
fn a18_whoever_chooses_an_algorithm_is_answered_as_it_signed() {
    // The decision: who signs the old way reads the old way, whatever it has chosen beside.
    let mut t = challenged();
    t.says(allocate().choosing(PasswordAlgorithm::Md5)).hears(success()).signed_with(Algorithm::Sha1);
    let both = refresh().choosing(PasswordAlgorithm::Md5).signed(&[WHOLE]);
    t.says(both).hears(success()).signed_with(Algorithm::Sha256);
}

#[test]
fn a09_a_new_signature_under_the_old_key_is_taken() {
    let mut t = challenged();
    t.says(allocate().signed(&[WHOLE])).hears(success()).signed_with(Algorithm::Sha256);
    t.says(refresh().signed(&[WHOLE])).hears(success()).signed_with(Algorithm::Sha256);
}

#[test]
fn a22_the_key_is_of_the_algorithm_that_was_chosen_and_of_no_other() {
    let mut t = challenged();
    let (md5, sha256) =
        (Key::md5("alice", REALM, &password_of("alice")), Key::sha256("alice", REALM, &password_of("alice")));
    t.says(allocate().sha256().keyed(md5.clone())).hears(error(401)).unsigned();
    t.says(allocate().choosing(PasswordAlgorithm::Md5).keyed(sha256.clone())).hears(error(401));
    t.says(allocate().keyed(sha256.clone())).hears(error(401));
    t.says(allocate().sha256().keyed(sha256)).hears(success());
    t.says(refresh().sha256().keyed(md5)).hears(error(401));
}

#[test]
fn a10_one_of_the_two_attributes_alone_is_a_bad_request() {
    let mut t = challenged();
    for missing in [Attribute::PASSWORD_ALGORITHM, Attribute::PASSWORD_ALGORITHMS] {
        let outcome = t.says(allocate().sha256().without(missing)).hears(error(400)).unsigned();
        assert_eq!(outcome.attributes(), [Attribute::ERROR_CODE]);
    }
    t.is_as_new();
}

#[test]
fn a11_another_offer_than_ours_betrays_somebody_on_the_way() {
    let mut t = challenged();
    let others: [&[u8]; 7] = [
        &[],
        &[0, 1, 0, 0],
        &[0, 2, 0, 0],
        &[0, 1, 0, 0, 0, 2, 0, 0],
        &[0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0],
        &[0, 2, 0, 0, 0, 1, 0],
        &[0, 2, 0, 4, 0, 1, 0, 0],
    ];
    for offer in others {
        for hash in [PasswordAlgorithm::Md5, PasswordAlgorithm::Sha256] {
            let ask = allocate().choosing(hash).but(Attribute::PASSWORD_ALGORITHMS, offer);
            t.says(ask).hears(error(400)).unsigned();
        }
    }
    t.is_as_new();
}

#[test]
fn a12_an_algorithm_that_was_not_offered_is_a_bad_request() {
    let mut t = challenged();
    let others: [&[u8]; 7] =
        [&[], &[0, 0, 0, 0], &[0, 3, 0, 0], &[0xFF, 0xFF, 0, 0], &[0, 2], &[0, 2, 0, 1], &[0, 2, 0, 4, 1, 1, 1, 1]];
    for chosen in others {
        t.says(allocate().sha256().but(Attribute::PASSWORD_ALGORITHM, chosen)).hears(error(400)).unsigned();
    }
    t.is_as_new();
}

#[test]
fn a11_a_nonce_stripped_of_its_promise_is_refused_and_so_is_the_bid_down() {
    let mut t = challenged();
    let nonce = t.first().party().nonce.clone();
    for features in [b"AAAA", b"gAAA", b"AAAB", b"////"] {
        let mut stripped = nonce.clone();
        stripped[9..13].copy_from_slice(features);
        t.says(allocate().but(Attribute::NONCE, &stripped)).hears(error(438));
        t.says(allocate().signed(&[WHOLE]).but(Attribute::NONCE, &stripped)).hears(error(438));
    }
    t.is_as_new();
}

#[test]
fn a20_of_two_signatures_the_stronger_decides() {
    let mut t = challenged();
    let both = || allocate().choosing(PasswordAlgorithm::Sha256).signed(&[OLD, WHOLE]);
    t.says(both().forged()).hears(error(401));
    t.says(both().first_forged()).hears(success()).signed_with(Algorithm::Sha256);
    t.says(refresh().choosing(PasswordAlgorithm::Sha256).signed(&[OLD, WHOLE])).hears(success());
}

#[test]
fn a20_an_old_signature_behind_the_new_one_is_not_there() {
    let mut t = challenged();
    let both = || allocate().choosing(PasswordAlgorithm::Sha256).signed(&[WHOLE, OLD]);
    t.says(both().first_forged()).hears(error(401));
    t.says(both().forged()).hears(success()).signed_with(Algorithm::Sha256);
}

#[test]
fn s30_what_stands_behind_the_new_signature_is_not_there() {
    let mut t = challenged();
    let behind = |attribute, value: &[u8]| allocate().sha256().then(attribute, value);
    t.says(behind(Attribute::LIFETIME, &3000u32.to_be_bytes())).hears(success()).for_seconds(600);
    t.says(refresh().sha256().then(Attribute::LIFETIME, &[0; 4])).hears(success()).for_seconds(600);
    t.says(refresh().sha256().then(Attribute(0x7777), b"odd")).hears(success());
    t.says(refresh().sha256().then(Attribute(0x7777), b"odd").fingerprinted()).hears(success());
    t.says(
        channel_bind(0x4000, PEER_A)
            .sha256()
            .without(Attribute::CHANNEL_NUMBER)
            .then(Attribute::CHANNEL_NUMBER, &[0x40, 0, 0, 0]),
    )
    .hears(error(400));
    assert_eq!(t.gauges(), (1, 0, 0));
}

#[test]
fn s31_a_signature_may_be_cut_to_sixteen_bytes_and_no_further() {
    // The decision: no policy asks for the whole value; what is shorter than the RFC permits, or longer, counts as
    // wrong.
    let mut t = challenged();
    t.says(allocate().sha256()).hears(success());
    for size in [16, 20, 24, 28, 32] {
        let cut = || refresh().choosing(PasswordAlgorithm::Sha256).signed(&[(Algorithm::Sha256, size)]);
        t.says(cut()).hears(success()).signed_with(Algorithm::Sha256);
        t.says(cut().forged()).hears(error(401)).unsigned();
    }
    for size in [0, 1, 4, 8, 12, 15, 17, 18, 30, 31, 33, 36, 64] {
        let cut = refresh_for(0).choosing(PasswordAlgorithm::Sha256).signed(&[(Algorithm::Sha256, size)]);
        t.says(cut).hears(error(401)).unsigned();
    }
    assert_eq!(t.gauges(), (1, 0, 0));
}

#[test]
fn s32_the_old_signature_is_twenty_bytes_and_nothing_else() {
    // The decision: another size is a wrong signature, and 401.
    let mut t = challenged();
    for size in [0, 4, 12, 16, 19, 21, 24, 32] {
        t.says(allocate().signed(&[(Algorithm::Sha1, size)])).hears(error(401)).unsigned();
    }
    t.says(allocate().signed(&[OLD])).hears(success());
}

#[test]
fn a23_a_hash_stands_for_the_name_of_a_user() {
    let mut t = challenged();
    t.says(allocate().sha256().hidden()).hears(success());
    t.says(refresh().sha256().hidden()).hears(success());
    t.says(refresh().hidden()).hears(success()).signed_with(Algorithm::Sha1);
    t.says(refresh().sha256()).hears(success());
    t.waits(minutes(10) + seconds(1));
    assert_eq!(&*t.ended[0].0.user, "alice");
}

#[test]
fn a05_hidden_names_are_taken_and_not_promised() {
    // The decision: who saw the promise would send the hash of a time-limited name, which nobody can look up. The bit
    // of user names is the second, counted from the top by some and from the bottom by others.
    let mut t = challenged();
    let nonce = t.first().party().nonce.clone();
    let features = base64::engine::general_purpose::STANDARD.decode(&nonce[9..13]).expect("base64");
    assert_eq!(features, [0b1000_0000, 0, 0b0000_0001]);
    assert_eq!((features[0] & 0b0100_0000, features[2] & 0b0000_0010), (0, 0));
    t.says(allocate().sha256().hidden()).hears(success());
}

#[test]
fn a23_a_time_limited_name_can_be_hidden_once_it_has_an_allocation() {
    let mut t = Turn::new();
    let (user, password) = minted(&t, "dave", minutes(30));
    t.joins_as("dave", &user, &password, Transport::Udp).learns_a_nonce();
    t.says(allocate().sha256().hidden()).hears(error(401)); // nobody can tell what it is the hash of
    t.says(allocate().sha256()).hears(success());
    t.says(refresh().sha256().hidden()).hears(success());
    t.says(create_permission(&[PEER_A]).hidden()).hears(success());
}

#[test]
fn a13_a23_an_unknown_hash_is_told_what_an_unknown_user_is_told() {
    let mut t = challenged();
    let unknown = t.says(allocate().sha256().by_user("nobody", "wrong")).hears(error(401)).unsigned();
    for hash in [[0; 32], [0xFF; 32]] {
        let hidden = t.says(allocate().sha256().hidden().but(Attribute::USERHASH, &hash)).hears(error(401));
        assert_eq!(unknown.bytes[..8], hidden.bytes[..8]);
        assert_eq!(unknown.bytes[20..], hidden.bytes[20..], "but for the transaction, not one byte differs");
    }
    let forged = t.says(allocate().sha256().hidden().forged()).hears(error(401));
    assert_eq!(unknown.bytes[20..], forged.bytes[20..]);
    let failures = |why: AuthFailure| t.tally.auth_failures[why as usize].get();
    assert_eq!((failures(AuthFailure::WrongPassword), failures(AuthFailure::UnknownUser)), (1, 3));
}

#[test]
fn s34_a_hash_is_32_bytes() {
    let mut t = challenged();
    for len in [0, 16, 31, 33, 64] {
        t.says(allocate().hidden().but(Attribute::USERHASH, &vec![7; len])).hears(error(400)).unsigned();
    }
}

#[test]
fn a04_a_user_with_only_an_old_key_makes_the_offer_vanish() {
    let only_md5 = UserKeys { md5: Some(Key::md5("old", REALM, "p")), sha256: None };
    let mut t = Turn::with(|world| drop(world.policy.auth.users.insert("old".into(), only_md5.clone())));
    t.joins_as("old", "old", "p", Transport::Udp).learns_a_nonce();
    assert!(t.first().party().nonce.starts_with(b"obMatJos2AAAA"));
    t.says(allocate().sha256()).hears(error(401)); // what was never offered cannot be chosen: the key is the old one
    t.says(allocate()).hears(success());
    t.joins("alice").learns_a_nonce();
    t.client("alice").says(allocate().choosing(PasswordAlgorithm::Md5)).hears(success()).signed_with(Algorithm::Sha1);
    t.client("alice").says(refresh().signed(&[WHOLE])).hears(success()).signed_with(Algorithm::Sha256);
}

#[test]
fn a04_a_nonce_keeps_its_promise_when_the_users_change() {
    let mut t = challenged();
    t.says(allocate().sha256()).hears(success());
    let only_md5 = UserKeys { md5: Some(Key::md5("old", REALM, "p")), sha256: None };
    t.reloads(|world| drop(world.policy.auth.users.insert("old".into(), only_md5)));
    t.says(refresh().sha256()).hears(success());
    t.joins("bob").learns_a_nonce();
    assert!(t.client("bob").party().nonce.starts_with(b"obMatJos2AAAA"));
    t.reloads(|world| drop(world.policy.auth.users.remove("old")));
    t.client("bob").says(allocate()).hears(success());
}

#[test]
fn a22_a32_a_time_limited_credential_signs_with_sha256_too() {
    let mut t = Turn::new();
    let (user, password) = minted(&t, "dave", minutes(10));
    t.joins_as("dave", &user, &password, Transport::Udp).learns_a_nonce();
    t.says(allocate().sha256().forged()).hears(error(401));
    t.says(allocate().sha256()).hears(success()).signed_with(Algorithm::Sha256);
    t.reloads(|world| world.policy.auth.secrets = vec![Secret::new("south")]);
    t.says(refresh().sha256()).hears(success()); // a live call is not cut by a rotation
    let password = credential::password(&Secret::new("south"), &user);
    t.joins_as("erin", &user, &password, Transport::Udp).learns_a_nonce();
    t.client("erin").says(allocate().sha256()).hears(success());
    t.client("dave").says(refresh()).hears(error(401)); // the other hash needs a secret that is still there
}

#[test]
fn a18_one_allocation_may_be_spoken_for_in_both_ways() {
    let mut t = challenged();
    t.says(allocate()).hears(success()).signed_with(Algorithm::Sha1);
    t.says(refresh().sha256()).hears(success()).signed_with(Algorithm::Sha256);
    t.says(refresh()).hears(success()).signed_with(Algorithm::Sha1);
    t.says(refresh().sha256().by_user("bob", &password_of("bob"))).hears(error(401));
    let bob = refresh().sha256().by_user("bob", "").keyed(Key::sha256("bob", REALM, &password_of("bob")));
    t.says(bob).hears(error(441)).signed_with(Algorithm::Sha256);
}

#[test]
fn t09_a_repeated_allocate_is_answered_and_signed_as_before() {
    let mut t = challenged();
    let first = t.says(allocate().sha256().fingerprinted()).hears(success()).signed_with(Algorithm::Sha256);
    let again = t.first().repeats().hears(success());
    assert_eq!(first.bytes, again.bytes);
}

#[test]
fn a_new_password_ends_what_the_old_one_began_with_either_hash() {
    let mut t = challenged();
    t.says(allocate().sha256()).hears(success());
    t.reloads(|_| {});
    t.says(refresh().sha256()).hears(success());
    t.reloads(|world| drop(world.policy.auth.users.insert("alice".into(), keys_of("alice", "another"))));
    assert_eq!(t.ended[0].2, Ended::Revoked);
    t.is_as_new();
}

#[test]
fn a27_a_nonce_is_twenty_characters_of_base64() {
    let mut t = Turn::new();
    let mut seen = BTreeSet::new();
    for port in 1..=500 {
        let client = format!("30.0.0.1:{port}").parse().expect("an address");
        let tuple = FiveTuple { transport: Transport::Udp, client, server: SERVER };
        t.waits(seconds(1));
        let name = port.to_string();
        t.joins_at(&name, "alice", &password_of("alice"), tuple).learns_a_nonce();
        let nonce = t.client(&name).party().nonce.clone();
        assert_eq!(nonce.len(), 20);
        assert!(nonce.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte)));
        seen.insert(nonce);
    }
    assert_eq!(seen.len(), 500);
}

#[test]
fn a15_a27_a_nonce_dies_when_its_time_is_over_and_hardly_sooner() {
    for life in [1, 59, 60, 61, 63, 64, 65, 100, 119, 120, 600, 3600, 86_400] {
        let mut t = Turn::with(|world| world.policy.auth.nonce_lifetime = seconds(life));
        t.joins("alice").learns_a_nonce();
        let nonce = t.first().party().nonce.clone();
        t.says(refresh()).hears(error(437));
        t.waits(seconds(life - life.div_ceil(60)));
        t.says(refresh()).hears(error(437));
        t.waits(seconds(life.div_ceil(60) + 1));
        t.says(refresh()).hears(error(438));
        t.says(refresh()).hears(error(437));
        for _ in 0..130 {
            t.waits(seconds(life.div_ceil(60)));
            t.says(refresh().but(Attribute::NONCE, &nonce)).hears(error(438));
        }
    }
}

#[test]
fn a27_a_nonce_is_as_good_on_a_clock_that_just_began_and_on_one_far_ahead() {
    let mut t = Turn::new();
    for (name, mono) in [("first", 0), ("second", 1), ("early", 59_000_000_000), ("late", u64::MAX / 2)] {
        t.now.mono = Instant(mono);
        t.joins_as(name, "alice", &password_of("alice"), Transport::Udp).learns_a_nonce();
        t.client(name).says(refresh().sha256()).hears(error(437));
        t.client(name).says(refresh().but(Attribute::NONCE, b"obMatJos2gAAB+123456")).hears(error(438));
    }
}

#[test]
fn no_stranger_gets_three_times_what_it_sends() {
    let mut t = challenged();
    let methods = [
        Method::BINDING,
        Method::ALLOCATE,
        Method::REFRESH,
        Method::CREATE_PERMISSION,
        Method::CHANNEL_BIND,
        Method::CONNECT,
        Method::CONNECTION_BIND,
        Method::new(0xFFF),
    ];
    let mut most = 0.0f64;
    for method in methods {
        for filler in (0..=180).step_by(4) {
            let plain = request(method).unsigned();
            let longer = if filler == 0 { plain } else { plain.with(Attribute(0xC000), &vec![7; filler - 4]) };
            let odd = request(method).unsigned().with(Attribute(0x7777), &vec![7; filler]);
            let forged = request(method).with(Attribute(0xC000), &vec![7; filler]).sha256().forged();
            for ask in [longer.clone(), longer.fingerprinted(), odd.clone(), odd.fingerprinted(), forged] {
                t.passes(core::time::Duration::from_millis(20)); // one network gets a hundred answers a second
                most = most.max(t.says(ask).amplification());
            }
        }
    }
    assert!(most <= 2.9, "{most}");
}

#[test]
fn a_long_realm_leaves_no_room_for_the_offer_in_the_answer_to_the_shortest_request() {
    for (len, is_offered) in [(12, true), (13, false), (24, false)] {
        let mut t = Turn::with(|world| world.policy.realm = "r".repeat(len));
        t.joins("alice");
        let shortest = request(Method::ALLOCATE).with(Attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]).unsigned();
        let outcome = t.says(shortest).hears(error(401)).unsigned();
        assert!(outcome.amplification() <= 2.9, "{} with a realm of {len}", outcome.amplification());
        assert_eq!(outcome.get(Attribute::PASSWORD_ALGORITHMS).is_some(), is_offered, "a realm of {len}");
        let longer = request(Method::ALLOCATE).with(Attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        let longer = longer.with(Attribute::SOFTWARE, b"a client that says so").unsigned();
        assert!(t.says(longer).hears(error(401)).get(Attribute::PASSWORD_ALGORITHMS).is_some());
    }
}

#[test]
fn a_fingerprint_counts_on_both_sides_when_the_offer_must_fit() {
    for (len, is_offered) in [(12, true), (28, true), (29, false)] {
        let mut t = Turn::with(|world| world.policy.realm = "r".repeat(len));
        t.joins("alice");
        let shortest = request(Method::ALLOCATE).with(Attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]).unsigned();
        let outcome = t.says(shortest.fingerprinted()).hears(error(401));
        assert!(outcome.amplification() <= 2.9, "{} with a realm of {len}", outcome.amplification());
        assert_eq!(outcome.get(Attribute::PASSWORD_ALGORITHMS).is_some(), is_offered, "a realm of {len}");
    }
}
