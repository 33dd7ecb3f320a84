//! Third-party authorisation: clients with tokens that somebody else has sealed for this server (RFC 7635).

use crate::support::*;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes128Gcm, Aes256Gcm, Nonce};
use turnserver::turn::policy::{AeadKey, OAuth, OAuthKey};
use turnserver::turn::refusal::{AuthFailure, Ended};
use turnserver::turn::tally::Transport;
use turnserver::wire::codes::{Attribute, Method};
use turnserver::wire::integrity::{Algorithm, Key, PasswordAlgorithm};

const NAME: &str = "turn.example.org";
const KEY_NORTH: [u8; 32] = [0x4E; 32];
const KEY_SOUTH: [u8; 16] = [0x53; 16];
/// The keys that the tokens of this chapter give to their bearers.
const MAC: [u8; 20] = [0x11; 20];
const MAC_2: [u8; 20] = [0x22; 20];
const LONG_MAC: [u8; 32] = [0x33; 32];

/// A token as an authorisation server makes it.
#[derive(Clone, Debug)]
struct Token {
    kid: &'static str,
    /// The associated data.
    name: &'static str,
    nonce: Vec<u8>,
    mac_key: Vec<u8>,
    /// What stands for the length of `mac_key`.
    key_length: u16,
    /// Unix seconds.
    made: u64,
    lifetime: u32,
}

/// A token that "north" has just sealed.
fn token(t: &Turn, mac_key: &[u8], lifetime: u32) -> Token {
    let (mac_key, key_length) = (mac_key.to_vec(), mac_key.len() as u16);
    Token { kid: "north", name: NAME, nonce: vec![9; 12], mac_key, key_length, made: t.now.unix.0, lifetime }
}

impl Token {
    fn plain(&self) -> Vec<u8> {
        let parts: [&[u8]; 4] = [
            &self.key_length.to_be_bytes(),
            &self.mac_key,
            &(self.made << 16).to_be_bytes(),
            &self.lifetime.to_be_bytes(),
        ];
        parts.concat()
    }

    fn sealed(&self) -> Vec<u8> {
        self.sealed_around(&self.plain())
    }

    /// With anything inside.
    fn sealed_around(&self, plain: &[u8]) -> Vec<u8> {
        let nonce = Nonce::from(<[u8; 12]>::try_from(&self.nonce[..]).expect("GCM takes twelve bytes"));
        let payload = Payload { msg: plain, aad: self.name.as_bytes() };
        let sealed = match self.kid {
            "south" => Aes128Gcm::new(&KEY_SOUTH.into()).encrypt(&nonce, payload),
            _ => Aes256Gcm::new(&KEY_NORTH.into()).encrypt(&nonce, payload),
        };
        [&[0, 12], &self.nonce[..], &sealed.expect("it can be sealed")].concat()
    }

    /// Shown with a request, and signed with its key.
    fn on(&self, ask: Ask) -> Ask {
        let key = Key::from_bytes(&self.mac_key).unwrap_or_else(|| Key::from_bytes(&[]).expect("no bytes are few"));
        ask.with(Attribute::ACCESS_TOKEN, &self.sealed()).keyed(key)
    }
}

/// A server that takes tokens, and a client of "north" without one.
fn authorising() -> Turn {
    let mut t = Turn::with(|world| {
        let keys = vec![
            OAuthKey { kid: "north".into(), key: AeadKey::A256Gcm(KEY_NORTH) },
            OAuthKey { kid: "south".into(), key: AeadKey::A128Gcm(KEY_SOUTH) },
        ];
        world.policy.auth.oauth = Some(OAuth { server_name: NAME.into(), keys });
    });
    let key = |bytes: &[u8]| Key::from_bytes(bytes).expect("a short key");
    t.token_keys = vec![key(&MAC), key(&MAC_2), key(&LONG_MAC)];
    joins(&mut t, "alice", "north");
    t
}

fn joins(t: &mut Turn, name: &str, kid: &str) {
    t.joins_as(name, kid, "", Transport::Tcp).learns_a_nonce();
}

fn signed_with(ask: Ask, mac_key: &[u8]) -> Ask {
    ask.keyed(Key::from_bytes(mac_key).expect("a short key"))
}

#[test]
fn o01_a_challenge_names_the_server_that_tokens_must_be_for() {
    let mut t = authorising();
    let outcome = t.says(allocate().unsigned()).hears(error(401)).unsigned();
    assert_eq!(outcome.get(Attribute::THIRD_PARTY_AUTHORIZATION), Some(NAME.into()));
    let mut t = Turn::new();
    t.joins("alice");
    let outcome = t.says(allocate().unsigned()).hears(error(401));
    assert_eq!(outcome.get(Attribute::THIRD_PARTY_AUTHORIZATION), None);
}

#[test]
fn class_04_the_name_in_a_challenge_counts_when_the_offer_must_fit() {
    for (name, is_offered) in [(None, true), (Some("t.org"), false), (Some(NAME), false)] {
        let mut t = Turn::with(|world| {
            world.policy.auth.oauth = name.map(|name| OAuth { server_name: name.into(), keys: Vec::new() });
        });
        t.joins("alice");
        let challenge = t.says(allocate()).hears(error(401));
        assert_eq!(challenge.get(Attribute::PASSWORD_ALGORITHMS).is_some(), is_offered, "{name:?}");
    }
}

#[test]
fn s09_a_server_that_takes_no_tokens_does_not_know_what_they_are() {
    let mut t = Turn::new();
    t.joins("alice").learns_a_nonce();
    let outcome = t.says(allocate().with(Attribute::ACCESS_TOKEN, &[7; 60])).hears(error(420)).signed();
    assert_eq!(outcome.get(Attribute::UNKNOWN_ATTRIBUTES), Some(vec![0, 0x1B]));
}

#[test]
fn o02_the_key_id_says_whose_token_it_is() {
    let mut t = authorising();
    joins(&mut t, "bob", "south");
    joins(&mut t, "carol", "west");
    let north = token(&t, &MAC, 600);
    let south = Token { kid: "south", ..north.clone() };
    for (name, wrong) in [("alice", &south), ("bob", &north), ("carol", &north), ("carol", &south)] {
        t.client(name).says(wrong.on(allocate())).hears(error(401)).unsigned();
    }
    t.client("alice").says(north.on(allocate())).hears(success()).signed();
    t.client("bob").says(south.on(allocate())).hears(success()).signed();
    assert_eq!(t.tally.auth_failures[AuthFailure::Token as usize].get(), 4);
}

#[test]
fn a_wrong_token_is_told_like_one_with_an_id_that_nobody_has() {
    let mut t = authorising();
    t.joins_as("carol", "west", "", Transport::Tcp).learns_a_nonce();
    let ask = || allocate().with(Attribute::ACCESS_TOKEN, &[&[0, 12][..], &[9; 12 + 64]].concat());
    let wrong = t.client("alice").says(ask()).hears(error(401)).unsigned();
    let unknown = t.client("carol").says(ask()).hears(error(401)).unsigned();
    assert_eq!(wrong.bytes.len(), unknown.bytes.len());
    assert_eq!(wrong.attributes(), unknown.attributes());
    for attribute in wrong.attributes().into_iter().filter(|attribute| *attribute != Attribute::NONCE) {
        assert_eq!(wrong.get(attribute), unknown.get(attribute));
    }
}

#[test]
fn o03_a_token_with_any_byte_changed_is_none() {
    let mut t = authorising();
    let sound = token(&t, &MAC, 600).sealed();
    let shows = |token: &[u8]| signed_with(allocate().with(Attribute::ACCESS_TOKEN, token), &MAC);
    for at in 0..sound.len() {
        for bits in [0x01, 0x80, 0xFF] {
            let mut bent = sound.clone();
            bent[at] ^= bits;
            t.says(shows(&bent)).hears(error(401)).unsigned();
        }
    }
    for len in 0..sound.len() {
        t.says(shows(&sound[..len])).hears(error(401)).unsigned();
    }
    t.says(shows(&[&sound[..], &[0]].concat())).hears(error(401));
    t.is_as_new();
    t.says(shows(&sound)).hears(success());
}

#[test]
fn o03_a_token_for_another_server_is_none() {
    let mut t = authorising();
    let mut elsewhere = token(&t, &MAC, 600);
    for name in ["turn.example.net", "", "TURN.example.org"] {
        elsewhere.name = name;
        t.says(elsewhere.on(allocate())).hears(error(401)).unsigned();
    }
    t.reloads(|world| world.policy.auth.oauth.as_mut().expect("it is on").server_name = "TURN.example.org".into());
    t.says(elsewhere.on(allocate())).hears(success());
}

#[test]
fn o04_the_key_in_the_token_signs_and_nothing_else_does() {
    let mut t = authorising();
    let shown = token(&t, &MAC, 600);
    t.says(signed_with(shown.on(allocate()), &MAC_2)).hears(error(401)).unsigned();
    t.says(shown.on(allocate()).forged()).hears(error(401)).unsigned();
    t.says(allocate().with(Attribute::ACCESS_TOKEN, &shown.sealed()).keyed(Key::md5("north", REALM, "")))
        .hears(error(401));
    t.says(shown.on(refresh())).hears(error(437)).signed();
    t.says(shown.on(allocate())).hears(success()).signed();
}

#[test]
fn o04_what_follows_the_token_needs_its_key_alone() {
    let mut t = authorising();
    t.says(token(&t, &MAC, 600).on(allocate())).hears(success());
    t.first().repeats().hears(success());
    t.says(signed_with(create_permission(&[PEER_A]), &MAC)).hears(success()).signed();
    t.says(signed_with(channel_bind(0x4000, PRIVATE), &MAC)).hears(error(403)).signed();
    t.says(signed_with(refresh(), &MAC)).hears(success()).signed();
    t.says(signed_with(refresh(), &MAC_2)).hears(error(401)).unsigned();
    let renamed = |name: &[u8]| signed_with(refresh(), &MAC).but(Attribute::USERNAME, name);
    t.says(renamed(b"south")).hears(success()).signed(); // a key id without a token means nothing
    joins(&mut t, "bob", "north");
    t.client("bob").says(signed_with(allocate(), &MAC)).hears(error(401)); // a key without its token is nobody's
}

#[test]
fn o04_a_longer_key_signs_with_sha256() {
    let mut t = authorising();
    let whole = [(Algorithm::Sha256, 32)];
    let shown = token(&t, &LONG_MAC, 600);
    t.says(shown.on(allocate()).signed(&whole)).hears(success()).signed_with(Algorithm::Sha256);
    t.says(signed_with(refresh(), &LONG_MAC).signed(&whole)).hears(success()).signed_with(Algorithm::Sha256);
    joins(&mut t, "bob", "north");
    let chosen = shown.on(allocate().choosing(PasswordAlgorithm::Sha256)).signed(&whole);
    t.client("bob").says(chosen).hears(success()).signed_with(Algorithm::Sha256);
    let chosen = signed_with(refresh().choosing(PasswordAlgorithm::Sha256), &LONG_MAC).signed(&whole);
    t.client("bob").says(chosen).hears(success()).signed_with(Algorithm::Sha256);
}

#[test]
fn o05_a_token_from_before_its_time_or_after_it_is_none() {
    let mut t = authorising();
    let now = t.now.unix.0;
    let sound = token(&t, &MAC, 600);
    for made in [now - 605, now - 606, now - 100_000, now + 605, now + 606, now * 2, 0, (1 << 48) - 1] {
        t.says(Token { made, ..sound.clone() }.on(refresh())).hears(error(401)).unsigned();
    }
    for made in [now - 604, now - 600, now - 1, now, now + 1, now + 604] {
        t.says(Token { made, ..sound.clone() }.on(refresh())).hears(error(437)).signed();
    }
    t.says(Token { made: (1 << 48) - 1, lifetime: u32::MAX, ..sound }.on(refresh())).hears(error(401));
}

#[test]
fn o06_an_allocation_lives_no_longer_than_its_token() {
    let mut t = authorising();
    let ask = |lifetime: u32| allocate().with(Attribute::LIFETIME, &lifetime.to_be_bytes());
    for (at, (life, wanted, granted)) in
        [(700, 3600, 700), (700, 0, 600), (100, 3600, 100), (1, 600, 1), (u32::MAX, u32::MAX, 3600)]
            .into_iter()
            .enumerate()
    {
        let name = at.to_string();
        joins(&mut t, &name, "north");
        let shown = token(&t, &MAC, life);
        t.client(&name).says(shown.on(ask(wanted))).hears(success()).for_seconds(granted);
    }
    t.waits(seconds(101));
    assert_eq!(t.ended.iter().filter(|(_, _, why)| *why == Ended::Expired).count(), 2);
}

#[test]
fn o06_a_token_with_nothing_left_allocates_nothing() {
    let mut t = authorising();
    let shown = token(&t, &MAC, 600);
    for age in [600, 601, 604] {
        let spent = Token { made: t.now.unix.0 - age, ..shown.clone() };
        t.says(spent.on(allocate())).hears(error(401)).unsigned();
    }
    t.is_as_new();
}

#[test]
fn o06_a_refresh_gets_what_is_left_and_nothing_after_that() {
    let mut t = authorising();
    t.says(token(&t, &MAC, 400).on(allocate())).hears(success()).for_seconds(400);
    t.waits(seconds(300));
    t.says(signed_with(refresh_for(3600), &MAC)).hears(success()).for_seconds(100);
    t.says(signed_with(create_permission(&[PEER_A]), &MAC)).hears(success());
    t.waits(seconds(99));
    t.says(send(PEER_A, b"to")).reaches(PEER_A, b"to");
    t.passes(seconds(1)); // and nobody wakes the server
    t.says(send(PEER_A, b"to")).hears(silence());
    t.says(signed_with(refresh(), &MAC)).hears(error(401));
    t.is_as_new();
}

#[test]
fn o07_a_new_token_makes_the_call_longer_and_its_key_the_only_one() {
    let mut t = authorising();
    t.says(token(&t, &MAC, 400).on(allocate())).hears(success()).for_seconds(400);
    t.waits(seconds(300));
    let new = token(&t, &MAC_2, 900);
    t.says(new.on(refresh_for(3600))).hears(success()).signed().for_seconds(900);
    t.says(signed_with(refresh_for(3600), &MAC)).hears(error(401)).unsigned();
    t.says(signed_with(refresh_for(3600), &MAC_2)).hears(success()).for_seconds(900);
    t.waits(seconds(800));
    t.says(signed_with(refresh_for(0), &MAC_2)).hears(success());
    t.is_as_new();
}

#[test]
fn o07_the_next_token_may_be_sealed_with_another_key_of_ours() {
    let mut t = authorising();
    t.says(token(&t, &MAC, 400).on(allocate())).hears(success());
    let south = Token { kid: "south", ..token(&t, &MAC_2, 900) };
    let foreign = refresh().with(Attribute::ACCESS_TOKEN, &south.sealed()).but(Attribute::USERNAME, b"south");
    t.says(signed_with(foreign, &MAC_2)).hears(success());
    t.says(signed_with(refresh(), &MAC)).hears(error(401));
    t.says(signed_with(refresh(), &MAC_2)).hears(success());
}

#[test]
fn o08_a_key_length_that_the_token_does_not_hold_is_refused() {
    let mut t = authorising();
    let sound = token(&t, &MAC, 600);
    for key_length in [0, 21, 28, 32, 33, 255, 32_767, 65_535] {
        t.says(Token { key_length, ..sound.clone() }.on(allocate())).hears(error(401)).unsigned();
    }
    for mac_key in [&[][..], &[0x44; 33], &[0x44; 64], &[0x44; 1000]] {
        let (mac_key, key_length) = (mac_key.to_vec(), mac_key.len() as u16);
        t.says(Token { mac_key, key_length, ..sound.clone() }.on(allocate())).hears(error(401)).unsigned();
    }
    let plain = sound.plain();
    for len in 0..plain.len() {
        let cut = allocate().with(Attribute::ACCESS_TOKEN, &sound.sealed_around(&plain[..len]));
        t.says(signed_with(cut, &MAC)).hears(error(401)).unsigned();
    }
    t.is_as_new();
}

#[test]
fn o08_a_nonce_length_that_the_token_does_not_hold_is_refused() {
    let mut t = authorising();
    let sound = token(&t, &MAC, 600).sealed();
    for length in [0u16, 1, 11, 13, 62, 63, 64, 255, 65_535] {
        let bent = [&length.to_be_bytes()[..], &sound[2..]].concat();
        t.says(signed_with(allocate().with(Attribute::ACCESS_TOKEN, &bent), &MAC)).hears(error(401)).unsigned();
    }
}

#[test]
fn a15_a_token_is_no_nonce() {
    let mut t = authorising();
    let shown = token(&t, &MAC, 100_000);
    t.waits(minutes(61));
    t.says(shown.on(allocate())).hears(error(438)).unsigned();
    t.says(shown.on(allocate())).hears(success());
}

#[test]
fn other_credentials_are_good_where_tokens_are() {
    let mut t = authorising();
    t.joins("bob").allocates();
    let (user, password) = minted(&t, "dave", minutes(10));
    t.joins_as("dave", &user, &password, Transport::Udp).allocates();
    t.client("bob").says(refresh().with(Attribute::ACCESS_TOKEN, &[7; 60])).hears(error(401)); // not by token and by name
}

#[test]
fn j16_the_bearer_of_another_token_binds_nobody_elses_connection() {
    let mut t = authorising();
    let tcp = request(Method::ALLOCATE).with(Attribute::REQUESTED_TRANSPORT, &[6, 0, 0, 0]);
    let own = token(&t, &MAC, 600);
    t.says(own.on(tcp)).hears(success());
    t.says(signed_with(connect(PEER_A), &MAC)).hears(silence());
    let stream = t.shell_connects(true).hears(success()).connection();
    joins(&mut t, "thief", "north");
    joins(&mut t, "data", "north");
    let other = token(&t, &MAC_2, 600);
    t.client("thief").says(other.on(connection_bind(stream))).hears(error(400)).signed();
    t.client("data").says(own.on(connection_bind(stream))).hears(success()).signed();
}

#[test]
fn m06_the_bearer_of_another_token_moves_nobody_elses_allocation() {
    let mut t = authorising();
    t.reloads(|world| world.policy.auth.mobility = true);
    let (own, other) = (token(&t, &MAC, 600), token(&t, &MAC_2, 600));
    t.says(own.on(allocate().with(Attribute::MOBILITY_TICKET, &[]))).hears(success());
    joins(&mut t, "train", "north");
    t.client("train").says_with_ticket_of("alice", other.on(refresh())).hears(error(441)).signed();
    t.client("train").says_with_ticket_of("alice", own.on(refresh())).hears(success()).signed();
}

#[test]
fn a_key_taken_out_of_the_configuration_opens_no_new_token_and_ends_no_call() {
    let mut t = authorising();
    let shown = token(&t, &MAC, 2000);
    t.says(shown.on(allocate())).hears(success());
    t.reloads(|world| world.policy.auth.oauth.as_mut().expect("it is on").keys.remove(0).kid.clear());
    assert_eq!(t.gauges().0, 1);
    t.says(signed_with(refresh(), &MAC)).hears(success());
    joins(&mut t, "late", "north");
    t.client("late").says(shown.on(allocate())).hears(error(401));
    t.reloads(|world| world.policy.auth.oauth = None);
    t.says(signed_with(refresh(), &MAC)).hears(success());
}

#[test]
fn a28_no_key_of_an_authorisation_server_shows_in_debug_output() {
    let t = authorising();
    let shown = format!("{:?} {:?}", t.policy, t.server);
    assert!(shown.contains("A256Gcm(…)") && !shown.contains("78, 78, 78") && !shown.contains("83, 83, 83"));
}
