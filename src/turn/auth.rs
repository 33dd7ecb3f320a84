//! Who asks, and with which key: long-term credentials of RFC 8489 §9.2.
//!
//! Nonces are stateless: the moment they were made and a MAC over that moment and the client's address, so a challenge
//! costs no memory and a nonce works for nobody else. The order of checks is the RFC's: integrity present, attributes
//! complete, user, HMAC, nonce. An unknown user and a wrong password cost the same work and get the same answer.
#![forbid(unsafe_code)]

use super::FiveTuple;
use super::allocation::{Allocation, Identity};
use super::credential;
use super::policy::{Auth, Policy};
use super::refusal::{AuthFailure, Refusal};
use crate::time::{Duration, Instant, Now, minutes};
use crate::wire::codes::Attribute;
use crate::wire::integrity::{Algorithm, Key, equal, hmac_sha1};
use crate::wire::stun::Message;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use core::net::IpAddr;

/// The prefix of a nonce whose server follows RFC 8489 (§9.2), and its 24 feature bits: none is set.
const NONCE_COOKIE: &[u8; 13] = b"obMatJos2AAAA";
/// Bytes of a nonce on the wire: the cookie, then 4 bytes of time and 8 of MAC in base64.
pub(super) const NONCE_LEN: usize = 29;
/// Bytes of the MAC in a nonce. A forged nonce opens nothing by itself, so 64 bits are enough.
const NONCE_MAC: usize = 8;
/// Longest USERNAME (RFC 8489 §14.3: fewer than 509 bytes).
const MAX_USERNAME: usize = 508;
/// How far a backend's clock may run ahead of ours before its longest credentials are refused.
const CLOCK_SKEW: Duration = minutes(5);

/// Somebody who has shown the right key.
#[derive(Debug)]
pub(super) struct Asker<'m> {
    pub(super) username: &'m str,
    pub(super) identity: Identity,
    pub(super) key: Key,
}

/// Finds out who signed `message`. `known` is the allocation on the same 5-tuple.
pub(super) fn authenticate<'m>(
    policy: &Policy,
    now: Now,
    tuple: &FiveTuple,
    message: &Message<'m>,
    known: Option<&Allocation>,
) -> Result<Asker<'m>, Refusal> {
    if !message.is_signed(Algorithm::Sha1) {
        return Err(Refusal::Unauthenticated(AuthFailure::Missing));
    }
    let (Some(Ok(username)), Some(Ok(realm)), Some(nonce)) =
        (message.text(Attribute::USERNAME), message.text(Attribute::REALM), message.get(Attribute::NONCE))
    else {
        return Err(Refusal::BadRequest);
    };
    if username.len() > MAX_USERNAME {
        return Err(Refusal::BadRequest);
    }
    if realm != policy.realm {
        return Err(Refusal::Unauthenticated(AuthFailure::WrongRealm));
    }
    let asker = match known {
        // The key is kept with the allocation, so a Refresh costs one HMAC whatever the credential is.
        Some(known) if *known.user == *username && message.verify(Algorithm::Sha1, &known.key) => {
            Asker { username, identity: known.identity, key: known.key.clone() }
        }
        _ => look_up(policy, now, username, message).map_err(Refusal::Unauthenticated)?,
    };
    if !is_ours(&policy.auth, now.mono, tuple, nonce) {
        return Err(Refusal::StaleNonce);
    }
    Ok(asker)
}

/// A nonce for this client, good from now.
pub(super) fn nonce(auth: &Auth, now: Instant, tuple: &FiveTuple) -> [u8; NONCE_LEN] {
    nonce_of(auth, now.as_secs() as u32, tuple)
}

fn look_up<'m>(policy: &Policy, now: Now, username: &'m str, message: &Message<'_>) -> Result<Asker<'m>, AuthFailure> {
    if let Some(key) = policy.auth.users.get(username).and_then(|keys| keys.md5.as_ref()) {
        if !message.verify(Algorithm::Sha1, key) {
            return Err(AuthFailure::WrongPassword);
        }
        return Ok(Asker { username, identity: Identity::Static, key: key.clone() });
    }
    let expires = credential::expiry(username, policy.auth.separator);
    // Every secret is tried, also for a name that can't be right: how long the answer takes tells nobody which it was.
    let mut found = None;
    for secret in &policy.auth.secrets {
        let key = Key::md5(username, &policy.realm, &credential::password(secret, username));
        if message.verify(Algorithm::Sha1, &key) {
            found = Some(key);
        }
    }
    if policy.auth.secrets.is_empty() {
        let key = Key::md5(username, &policy.realm, "");
        core::hint::black_box(message.verify(Algorithm::Sha1, &key));
    }
    let expires = expires.ok_or(AuthFailure::UnknownUser)?;
    let key = found.ok_or(AuthFailure::WrongPassword)?;
    if expires <= now.unix {
        return Err(AuthFailure::Expired);
    }
    let latest = now.unix.0.saturating_add(policy.auth.max_ttl.saturating_add(CLOCK_SKEW).as_secs());
    if expires.0 > latest {
        return Err(AuthFailure::TtlTooLong);
    }
    Ok(Asker { username, identity: Identity::TimeLimited { expires }, key })
}

fn is_ours(auth: &Auth, now: Instant, tuple: &FiveTuple, nonce: &[u8]) -> bool {
    let Some(encoded) = nonce.strip_prefix(NONCE_COOKIE) else { return false };
    let mut decoded = [0; 4 + NONCE_MAC];
    if STANDARD.decode_slice(encoded, &mut decoded) != Ok(decoded.len()) {
        return false;
    }
    let [t0, t1, t2, t3, ..] = decoded;
    let made = u32::from_be_bytes([t0, t1, t2, t3]);
    let age = (now.as_secs() as u32).wrapping_sub(made);
    equal(&nonce_of(auth, made, tuple), nonce) && u64::from(age) <= auth.nonce_lifetime.as_secs()
}

fn nonce_of(auth: &Auth, made: u32, tuple: &FiveTuple) -> [u8; NONCE_LEN] {
    let made = made.to_be_bytes();
    let port = tuple.client.port().to_be_bytes();
    let ip = match tuple.client.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let mac = hmac_sha1(auth.nonce_key.expose(), &[&made, &ip, &port]);
    let mut raw = [0; 4 + NONCE_MAC];
    raw.iter_mut().zip(made.iter().chain(&mac)).for_each(|(to, from)| *to = *from);
    let mut encoded = [0; 16];
    let _ = STANDARD.encode_slice(raw, &mut encoded); // 12 bytes are 16 characters: it always fits
    let mut nonce = [0; NONCE_LEN];
    nonce.iter_mut().zip(NONCE_COOKIE.iter().chain(&encoded)).for_each(|(to, from)| *to = *from);
    nonce
}
