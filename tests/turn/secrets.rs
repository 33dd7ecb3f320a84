//! Values that hold secrets, or that secrets are made of: what they show, and when they are the same.

use crate::support::*;
use std::net::IpAddr;
use turnserver::turn::credential::{self, Secret};
use turnserver::turn::opaque::{Forbidden, OpaqueString};
use turnserver::turn::peers::{Own, Peers, RelayAddress};
use turnserver::turn::policy::AeadKey;

#[test]
fn nothing_that_holds_a_secret_shows_it_and_the_same_secret_is_the_same() {
    let secret = Secret::new("north");
    assert_eq!(secret, Secret::new("north"));
    assert_ne!(secret, Secret::new("south"));
    let (short, long) = (AeadKey::A128Gcm([7; 16]), AeadKey::A256Gcm([7; 32]));
    assert_eq!(short, AeadKey::A128Gcm([7; 16]));
    assert_ne!(short, AeadKey::A128Gcm([8; 16]));
    assert_ne!(short, long);
    let name = OpaqueString::new("alice").expect("a name");
    assert_eq!(name, OpaqueString::new("alice").expect("a name"));
    assert_ne!(name, OpaqueString::new("alicf").expect("a name"));
    let minted = credential::mint(&secret, Some(&name), ':', seconds(60), Turn::new().now.unix);
    for shown in [format!("{secret:?}"), format!("{short:?} {long:?}"), format!("{name:?}"), format!("{minted:?}")] {
        let is_told = ["north", "[7", minted.password.as_str()].into_iter().any(|secret| shown.contains(secret));
        assert!(!is_told, "{shown}");
    }
}

#[test]
fn a_credential_for_nobody_is_a_bare_expiry() {
    let now = Turn::new().now.unix;
    let minted = credential::mint(&Secret::new("north"), None, ':', seconds(60), now);
    assert_eq!(minted.username, minted.expires.0.to_string());
    assert_eq!(credential::user(&minted.username, ':'), minted.username);
    assert_eq!(credential::user("1700000060:alice", ':'), "alice");
}

#[test]
fn a_name_that_cannot_be_one_is_told_by_the_place_of_what_is_wrong() {
    let why = |text: &str| OpaqueString::new(text).expect_err("it cannot be a name");
    assert_eq!(why(""), Forbidden::Empty);
    assert_eq!(why("a\nb"), Forbidden::Character(2));
    assert!(why("a\nb").to_string().starts_with("character 2 may not stand in it"));
    assert_eq!(why("").to_string(), "cannot be empty");
    assert!(Forbidden::Text.to_string().contains("RFC 8265"));
}

#[test]
fn an_address_that_the_host_gets_is_no_peer_and_is_one_again_when_it_goes() {
    let relay: IpAddr = "20.0.0.1".parse().expect("an address");
    let own = Own { relays: vec![RelayAddress { local: relay, external: relay }], ..Own::default() };
    let mut peers = Peers::new(&[], &[], true, own);
    assert!(peers.vet(PEER_A).is_some() && peers.vet_address(PEER_A.ip()));
    peers.set_interfaces(vec![relay, PEER_A.ip()]);
    assert!(peers.vet(PEER_A).is_none() && !peers.vet_address(PEER_A.ip()));
    peers.set_interfaces(vec![relay]);
    assert!(peers.vet(PEER_A).is_some() && peers.vet_address(PEER_A.ip()));
}
