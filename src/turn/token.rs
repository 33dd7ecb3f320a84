//! Access tokens of third-party authorisation (RFC 7635 §6.2): opened here, made elsewhere.
//!
//! A token is what an authorisation server sealed for us: a key for the client's messages, the moment it was made, and
//! how long it lives. The layout is checked against the opened size before anything is read. Never keeps a token.
#![forbid(unsafe_code)]

use super::policy::{AeadKey, OAuth};
use crate::time::{Duration, UnixSeconds, seconds};
use crate::wire::integrity::Key;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes128Gcm, Aes256Gcm, Nonce};
use zeroize::Zeroizing;

/// How far the clocks of server and authorisation server may be apart (RFC 7635 §7).
const DELTA: Duration = seconds(5);
/// Bytes of the nonce that AES-GCM takes (RFC 5116 §5.1).
const NONCE_LEN: usize = 12;

/// What a token says.
#[derive(Debug)]
pub(super) struct Token {
    /// What the client's messages are signed with.
    pub(super) key: Key,
    /// When the token ends.
    pub(super) expires: UnixSeconds,
}

/// Opens a token that was sealed with the key `kid`. `None` when anything about it is wrong.
pub(super) fn open(oauth: &OAuth, kid: &str, token: &[u8], now: UnixSeconds) -> Option<Token> {
    // An id that nobody has costs the work of one that somebody has.
    let named = oauth.keys.iter().find(|key| key.kid == kid);
    let key = &named.or_else(|| oauth.keys.first())?.key;
    let ([l0, l1], rest) = token.split_first_chunk::<2>()?;
    let (nonce, sealed) = rest.split_at_checked(usize::from(u16::from_be_bytes([*l0, *l1])))?;
    let nonce: &[u8; NONCE_LEN] = nonce.try_into().ok()?;
    let payload = Payload { msg: sealed, aad: oauth.server_name.as_bytes() };
    let opened = Zeroizing::new(decrypt(key, nonce, payload).filter(|_| named.is_some())?);
    let ([k0, k1], rest) = opened.split_first_chunk::<2>()?;
    let (mac_key, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*k0, *k1])))?;
    let (timestamp, rest) = rest.split_first_chunk::<8>()?;
    let (lifetime, _) = rest.split_first_chunk::<4>()?;
    // 48 bits of seconds, 16 of 1/64000 s (RFC 7635 §6.2).
    let made = u64::from_be_bytes(*timestamp) >> 16;
    let lifetime = u64::from(u32::from_be_bytes(*lifetime));
    let is_fresh = lifetime + DELTA.as_secs() > now.0.abs_diff(made);
    let key = Key::from_bytes(mac_key).filter(|_| !mac_key.is_empty() && is_fresh)?;
    Some(Token { key, expires: UnixSeconds(made.saturating_add(lifetime)) })
}

fn decrypt(key: &AeadKey, nonce: &[u8; NONCE_LEN], payload: Payload<'_, '_>) -> Option<Vec<u8>> {
    let nonce = Nonce::from(*nonce);
    match key {
        AeadKey::A128Gcm(key) => Aes128Gcm::new(key.into()).decrypt(&nonce, payload).ok(),
        AeadKey::A256Gcm(key) => Aes256Gcm::new(key.into()).decrypt(&nonce, payload).ok(),
    }
}
