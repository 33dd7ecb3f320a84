//! Who asks, and with which key: long-term credentials of RFC 8489 §9.2, tokens of RFC 7635.
//!
//! Nonces are stateless: the moment they were made and a MAC over that moment and the client's address, so a challenge
//! costs no memory and a nonce works for nobody else. The order of checks is the RFC's: integrity present, attributes
//! complete, algorithms, user, HMAC, nonce. An unknown user and a wrong password get the same answer after the same
//! hashes: one key of a static user, or of nobody, then every secret. Only a yes comes sooner.
#![forbid(unsafe_code)]

use super::FiveTuple;
use super::allocation::{Allocation, Identity};
use super::policy::{Auth, Policy};
use super::refusal::{AuthFailure, Refusal};
use super::{credential, token};
use crate::time::{Duration, Instant, Now, minutes};
use crate::wire::codes::{Attribute, HEADER};
use crate::wire::integrity::{Algorithm, Key, PasswordAlgorithm, equal, hmac_sha1, userhash};
use crate::wire::stun::Message;
use core::net::IpAddr;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What every nonce of an RFC 8489 server begins with (§9.2).
const NONCE_COOKIE: &[u8; 9] = b"obMatJos2";
/// Its 24 feature bits when we offer nothing.
const PLAIN: &[u8; 4] = b"AAAA";
/// Its feature bits when we offer password algorithms. The first bit is the top one for some readers of RFC 8489 §18.1
/// and the lowest for others: both are set. "Username anonymity" stays clear although USERHASH is accepted: whoever saw
/// it would send the hash of a time-limited name, which no server can know.
const ALGORITHMS: &[u8; 4] = b"gAAB";
/// What follows: six bits of time and 36 of MAC, in base64. A forged nonce opens nothing by itself, and a longer one
/// would make a challenge more than 2.9 times the shortest Allocate.
const NONCE_TAIL: usize = 7;
/// Bytes of a nonce on the wire.
pub(super) const NONCE_LEN: usize = NONCE_COOKIE.len() + PLAIN.len() + NONCE_TAIL;
/// A nonce's life is told in so many steps; more than the six bits can count would make old ones young again.
const NONCE_STEPS: u64 = 60;
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// PASSWORD-ALGORITHMS as we offer it: SHA-256, then MD5, without parameters (RFC 8489 §14.11).
pub(super) const OFFER: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];
/// Longest USERNAME (RFC 8489 §14.3: fewer than 509 bytes).
const MAX_USERNAME: usize = 508;
/// Longest REALM and NONCE (RFC 8489 §14.9, §14.10: fewer than 128 characters, at most 763 bytes).
const MAX_TEXT: usize = 763;
/// A name that no user can have: a control character has no place in one (RFC 8265 §4.2).
const NOBODY: &str = "\u{7}nobody";
/// How far a backend's clock may run ahead of ours before its longest credentials are refused.
const CLOCK_SKEW: Duration = minutes(5);

/// Somebody who has shown the right key.
#[derive(Debug)]
pub(super) struct Asker<'m> {
    pub(super) username: Cow<'m, str>,
    pub(super) identity: Identity,
    pub(super) key: Key,
    /// What made the key.
    pub(super) hash: PasswordAlgorithm,
    /// What the request was signed with, and so is the answer. RFC 8489 §9.2.4 has SHA-256 in the answer to whoever chooses
    /// a password algorithm; such a client signs with it, and one that does not would not read it.
    pub(super) integrity: Algorithm,
}

/// What follows from the users of a policy, worked out once.
#[derive(Debug, Default)]
pub(super) struct Directory {
    by_hash: BTreeMap<[u8; 32], String>,
    /// Whether every user can log in with SHA-256. If one could not, offering it would lock that one out.
    pub(super) offers_algorithms: bool,
}

impl Directory {
    pub(super) fn new(policy: &Policy) -> Self {
        let users = &policy.auth.users;
        Self {
            by_hash: users.keys().map(|name| (userhash(name, &policy.realm), name.clone())).collect(),
            offers_algorithms: users.values().all(|keys| keys.sha256.is_some()),
        }
    }
}

/// How a request says who it is from.
enum Name<'m> {
    Plain(&'m str),
    /// USERHASH.
    Hash([u8; 32]),
}

/// Which names a request may mean.
#[derive(Clone, Copy)]
enum Kind {
    /// A static user's or a time-limited one.
    Any,
    /// A static user's: nobody can tell a time-limited name by its hash. The secrets are not tried, because the hashes
    /// they take are as long as the name, and would tell one that was found.
    Static,
}

/// What is common to all ways of checking one request.
struct Proof<'a, 'm> {
    policy: &'a Policy,
    now: Now,
    message: &'a Message<'m>,
    /// Which attribute is checked: SHA-256 where both are present.
    integrity: Algorithm,
    hash: PasswordAlgorithm,
}

/// Finds out who signed `message`. `known` is the allocation on the same 5-tuple; `tuples` are those whose nonce will do:
/// the request's own, and for a ConnectionBind the one of the allocation that it speaks of.
pub(super) fn authenticate<'m>(
    policy: &Policy,
    directory: &Directory,
    now: Now,
    tuples: [&FiveTuple; 2],
    message: &Message<'m>,
    known: Option<&Allocation>,
) -> Result<Asker<'m>, Refusal> {
    let integrity = match (message.is_signed(Algorithm::Sha256), message.is_signed(Algorithm::Sha1)) {
        (true, _) => Algorithm::Sha256,
        (false, true) => Algorithm::Sha1,
        (false, false) => return Err(Refusal::Unauthenticated(AuthFailure::Missing)),
    };
    let name = name(message)?;
    let (Some(Ok(realm)), Some(nonce)) = (message.text(Attribute::REALM), message.get(Attribute::NONCE)) else {
        return Err(Refusal::BadRequest);
    };
    if realm.len() > MAX_TEXT || nonce.len() > MAX_TEXT {
        return Err(Refusal::BadRequest);
    }
    let hash = chosen_algorithm(message, nonce)?.unwrap_or(PasswordAlgorithm::Md5);
    if realm != policy.realm {
        return Err(Refusal::Unauthenticated(AuthFailure::WrongRealm));
    }
    let proof = Proof { policy, now, message, integrity, hash };
    let (username, kind) = match name {
        Name::Plain(name) => (Cow::Borrowed(name), Kind::Any),
        Name::Hash(hash) => match known.filter(|known| userhash(&known.user, realm) == hash) {
            Some(known) => (Cow::Owned(known.user.to_string()), Kind::Any),
            // An unknown hash is looked up as a name that nobody can have: the same work as for any other.
            None => {
                let user = directory.by_hash.get(&hash).map_or(NOBODY, String::as_str);
                (Cow::Owned(user.to_owned()), Kind::Static)
            }
        },
    };
    let asker = match (message.get(Attribute::ACCESS_TOKEN), known) {
        (Some(token), _) if policy.auth.oauth.is_some() => proof.by_token(username, token),
        // The key is kept with the allocation, so a Refresh costs one HMAC whatever the credential is.
        (_, Some(known)) if *known.user == *username && known.hash == hash && proof.holds(&known.key) => {
            Ok(proof.asker(username, known.identity, known.key.clone()))
        }
        // The key of a token goes on without it, whichever key id stands beside.
        (_, Some(known)) if matches!(known.identity, Identity::Token { .. }) && proof.holds(&known.key) => {
            Ok(proof.asker(Cow::Owned(known.user.to_string()), known.identity, known.key.clone()))
        }
        _ => proof.look_up(username, kind),
    };
    let asker = asker.map_err(Refusal::Unauthenticated)?;
    if !tuples.into_iter().any(|tuple| is_ours(&policy.auth, now.mono, tuple, nonce)) {
        return Err(Refusal::StaleNonce);
    }
    Ok(asker)
}

/// A nonce for this client, good from now. It says whether password algorithms are offered beside it.
pub(super) fn nonce(auth: &Auth, is_offered: bool, now: Instant, tuple: &FiveTuple) -> [u8; NONCE_LEN] {
    let features = if is_offered { ALGORITHMS } else { PLAIN };
    nonce_of(auth, features, now.as_secs() / step(auth), tuple)
}

/// Bytes of a challenge that offers password algorithms: head, ERROR-CODE, REALM, NONCE, PASSWORD-ALGORITHMS, and what
/// third-party authorisation adds.
pub(super) fn challenge_len(policy: &Policy) -> usize {
    let attribute = |length: usize| 4 + length.next_multiple_of(4);
    let oauth = policy.auth.oauth.as_ref().map_or(0, |oauth| attribute(oauth.server_name.len()));
    HEADER + attribute(4) + attribute(policy.realm.len()) + attribute(NONCE_LEN) + attribute(OFFER.len()) + oauth
}

fn name<'m>(message: &Message<'m>) -> Result<Name<'m>, Refusal> {
    match (message.text(Attribute::USERNAME), message.bytes::<32>(Attribute::USERHASH)) {
        (Some(Ok(name)), _) if name.len() <= MAX_USERNAME => Ok(Name::Plain(name)),
        (None, Some(Ok(hash))) => Ok(Name::Hash(hash)),
        _ => Err(Refusal::BadRequest),
    }
}

/// What PASSWORD-ALGORITHM chooses out of our offer; `None` for a client that does not speak of it. Whoever repeats
/// another offer than ours has been lied to on the way (RFC 8489 §9.2.1, bid-down).
fn chosen_algorithm(message: &Message<'_>, nonce: &[u8]) -> Result<Option<PasswordAlgorithm>, Refusal> {
    if !nonce.strip_prefix(NONCE_COOKIE).is_some_and(|rest| rest.starts_with(ALGORITHMS)) {
        return Ok(None);
    }
    match (message.get(Attribute::PASSWORD_ALGORITHMS), message.bytes::<4>(Attribute::PASSWORD_ALGORITHM)) {
        (None, None) => Ok(None),
        (Some(offer), Some(Ok([n0, n1, 0, 0]))) if offer == OFFER => {
            let chosen = PasswordAlgorithm::from_number(u16::from_be_bytes([n0, n1]));
            chosen.map(Some).ok_or(Refusal::BadRequest)
        }
        _ => Err(Refusal::BadRequest),
    }
}

impl Proof<'_, '_> {
    fn holds(&self, key: &Key) -> bool {
        self.message.verify(self.integrity, key)
    }

    fn asker<'m>(&self, username: Cow<'m, str>, identity: Identity, key: Key) -> Asker<'m> {
        Asker { username, identity, key, hash: self.hash, integrity: self.integrity }
    }

    fn by_token<'m>(&self, kid: Cow<'m, str>, token: &[u8]) -> Result<Asker<'m>, AuthFailure> {
        let oauth = self.policy.auth.oauth.as_ref().ok_or(AuthFailure::Token)?;
        let token = token::open(oauth, &kid, token, self.now.unix).ok_or(AuthFailure::Token)?;
        // coturn, and clients that were tried with it alone, cut a key for HMAC-SHA1 to the length of an MD5 value.
        let cut = token.key.expose().get(..16).filter(|_| self.integrity == Algorithm::Sha1).and_then(Key::from_bytes);
        let key = [Some(token.key), cut].into_iter().flatten().find(|key| self.holds(key)).ok_or(AuthFailure::Token)?;
        Ok(self.asker(kid, Identity::Token { expires: token.expires }, key))
    }

    fn look_up<'m>(&self, username: Cow<'m, str>, kind: Kind) -> Result<Asker<'m>, AuthFailure> {
        let auth = &self.policy.auth;
        let keys = auth.users.get(&*username);
        let key = keys.and_then(|keys| match self.hash {
            PasswordAlgorithm::Md5 => keys.md5.as_ref(),
            PasswordAlgorithm::Sha256 => keys.sha256.as_ref(),
        });
        // How long a no takes tells nobody which it was: a name that is no user's is held against a key that is
        // nobody's, and every secret is tried for every name.
        let is_right = self.holds(key.unwrap_or(&Key::NOBODYS));
        if let Some(key) = key.filter(|_| is_right) {
            return Ok(self.asker(username, Identity::Static, key.clone()));
        }
        let expires = credential::expiry(&username, auth.separator);
        let found = match kind {
            Kind::Any => self.by_secret(&username),
            Kind::Static => None,
        };
        if keys.is_some() {
            return Err(AuthFailure::WrongPassword);
        }
        let expires = expires.ok_or(AuthFailure::UnknownUser)?;
        let key = found.ok_or(AuthFailure::WrongPassword)?;
        if expires <= self.now.unix {
            return Err(AuthFailure::Expired);
        }
        let latest = self.now.unix.0.saturating_add(auth.max_ttl.saturating_add(CLOCK_SKEW).as_secs());
        if expires.0 > latest {
            return Err(AuthFailure::TtlTooLong);
        }
        Ok(self.asker(username, Identity::TimeLimited { expires }, key))
    }

    /// The key that a secret gives to this name, if the message is signed with it. Goes on to the last secret, whichever
    /// is right.
    fn by_secret(&self, username: &str) -> Option<Key> {
        let mut found = None;
        for secret in &self.policy.auth.secrets {
            let password = credential::password(secret, username);
            let key = self.hash.key(username, &self.policy.realm, &password);
            if self.holds(&key) {
                found = Some(key);
            }
        }
        found
    }
}

/// Seconds of one step of a nonce's life.
fn step(auth: &Auth) -> u64 {
    auth.nonce_lifetime.as_secs().div_ceil(NONCE_STEPS).max(1)
}

fn is_ours(auth: &Auth, now: Instant, tuple: &FiveTuple, nonce: &[u8]) -> bool {
    let Some((features, [low, ..])) =
        nonce.strip_prefix(NONCE_COOKIE).and_then(<[u8]>::split_first_chunk::<{ PLAIN.len() }>)
    else {
        return false;
    };
    let Some(low) = BASE64.iter().position(|digit| digit == low) else { return false };
    let (now, step) = (now.as_secs(), step(auth));
    // The latest moment whose last six bits are these.
    let made = (now / step).wrapping_sub((now / step).wrapping_sub(low as u64) % 64);
    let is_young = now.checked_sub(made.wrapping_mul(step)).is_some_and(|age| age <= auth.nonce_lifetime.as_secs());
    equal(&nonce_of(auth, features, made, tuple), nonce) && is_young
}

fn nonce_of(auth: &Auth, features: &[u8; 4], made: u64, tuple: &FiveTuple) -> [u8; NONCE_LEN] {
    let port = tuple.client.port().to_be_bytes();
    let ip = match tuple.client.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let mac = hmac_sha1(auth.nonce_key.expose(), &[features, &made.to_be_bytes(), &ip, &port]);
    let digit = |bits: u8| BASE64[usize::from(bits % 64)];
    let tail = core::iter::once(digit((made % 64) as u8)).chain(mac.into_iter().map(digit));
    let mut nonce = [0; NONCE_LEN];
    let bytes = NONCE_COOKIE.iter().chain(features).copied().chain(tail);
    nonce.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    nonce
}
