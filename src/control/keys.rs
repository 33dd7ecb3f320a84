//! API keys: who may ask the HTTP side for what.
//!
//! Owns the comparison, which takes the same time whichever key is presented, and the brake on guessing. Keys are kept
//! as SHA-256 hashes, so that neither length nor content shows in the time a comparison takes or in a core dump.
//! Never trusts a forwarded address, never logs a key, never blocks a right one.
#![forbid(unsafe_code)]

use crate::config::{ApiKey, Scope};
use crate::time::{Duration, Instant, seconds};
use crate::turn::credential::Secret;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use core::fmt;
use core::net::{IpAddr, Ipv6Addr};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroizing;

/// A key as a request has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    id: Option<String>,
    secret: Secret,
}

impl Presented {
    /// A key without its name.
    pub fn bare(secret: &str) -> Self {
        Self { id: None, secret: Secret::new(secret) }
    }

    /// The key that the headers carry, if any: `Authorization` first, then `X-API-Key`.
    pub fn in_headers(headers: &HeaderMap) -> Result<Option<Self>, Denied> {
        if let Some(value) = headers.get(AUTHORIZATION) {
            return value.to_str().ok().and_then(authorization).map(Some).ok_or(Denied::Unreadable);
        }
        let Some(value) = headers.get("x-api-key") else { return Ok(None) };
        let secret = value.to_str().map_err(|_| Denied::Unreadable)?;
        Ok(Some(Self::bare(secret.trim())))
    }
}

fn authorization(value: &str) -> Option<Presented> {
    let (scheme, rest) = value.trim().split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Presented::bare(rest));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = Zeroizing::new(STANDARD.decode(rest).ok()?);
    let (id, secret) = core::str::from_utf8(&pair).ok()?.split_once(':')?;
    Some(Presented { id: Some(id.into()), secret: Secret::new(secret) })
}

/// Why a request may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No key at all.
    Missing,
    /// An `Authorization` or `X-API-Key` header that is neither form.
    Unreadable,
    /// No such key.
    Wrong,
    /// The key is right but lacks this scope.
    Scope(Scope),
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(
                "this needs an API key of [[http.keys]]: send it as \"Authorization: Bearer SECRET\", \
                 as Basic \"id:secret\", or as \"X-API-Key: SECRET\"",
            ),
            Self::Unreadable => f.write_str(
                "the key cannot be read: Authorization must be \"Bearer SECRET\", or \"Basic\" and base64 of \"id:secret\"",
            ),
            Self::Wrong => f.write_str("no key of [[http.keys]] is this one: compare its secret (and its id, with Basic)"),
            Self::Scope(needed) => write!(
                f,
                "the key is right but lacks a scope: add \"{}\" to the scopes of its [[http.keys]] entry",
                needed.label()
            ),
        }
    }
}

/// All keys that are in force.
#[derive(Clone, Default)]
pub struct Keyring(Vec<Entry>);

#[derive(Clone)]
struct Entry {
    id: [u8; 32],
    secret: [u8; 32],
    scopes: Vec<Scope>,
}

impl Keyring {
    /// The keyring of these keys. An empty secret opens nothing.
    pub fn new(keys: &[ApiKey]) -> Self {
        let usable = keys.iter().filter(|key| !key.secret.expose().is_empty());
        let entry = |key: &ApiKey| Entry {
            id: hash(key.id.as_bytes()),
            secret: hash(key.secret.expose()),
            scopes: key.scopes.clone(),
        };
        Self(usable.map(entry).collect())
    }

    /// Whether the key opens what needs `needed`; an admin's opens everything. Looks at every key, whichever matches.
    pub fn check(&self, presented: Option<&Presented>, needed: Scope) -> Result<(), Denied> {
        let presented = presented.ok_or(Denied::Missing)?;
        let secret = hash(presented.secret.expose());
        let id = presented.id.as_ref().map(|id| hash(id.as_bytes()));
        let (mut known, mut granted) = (Choice::from(0), Choice::from(0));
        for key in &self.0 {
            let same_id = id.as_ref().map_or_else(|| Choice::from(1), |id| key.id.ct_eq(id));
            let same = key.secret.ct_eq(&secret) & same_id;
            let grants = key.scopes.iter().any(|scope| *scope == needed || *scope == Scope::Admin);
            known |= same;
            granted |= same & Choice::from(u8::from(grants));
        }
        match (bool::from(known), bool::from(granted)) {
            (_, true) => Ok(()),
            (true, false) => Err(Denied::Scope(needed)),
            (false, false) => Err(Denied::Wrong),
        }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.0.len())
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Slows whoever guesses keys. One IPv4 address or IPv6 /64 gets a few wrong ones, then is told to wait.
#[derive(Debug, Default)]
pub struct Brake(BTreeMap<IpAddr, Guesses>);

#[derive(Debug)]
struct Guesses {
    since: Instant,
    count: u32,
}

const FREE_GUESSES: u32 = 5; // a person who mistypes, a deployment with yesterday's key
const WINDOW: Duration = seconds(30);
const ADDRESSES: usize = 4096; // some 200 KiB; the oldest gives way

impl Brake {
    /// Notes a wrong key; the time to wait when the free guesses are used up.
    pub fn wrong_key(&mut self, from: IpAddr, now: Instant) -> Option<Duration> {
        let from = network(from);
        if self.0.len() >= ADDRESSES && !self.0.contains_key(&from) {
            self.make_room(now);
        }
        let guesses = self.0.entry(from).or_insert(Guesses { since: now, count: 0 });
        if now - guesses.since >= WINDOW {
            *guesses = Guesses { since: now, count: 0 };
        }
        guesses.count = guesses.count.saturating_add(1);
        (guesses.count > FREE_GUESSES).then(|| WINDOW.saturating_sub(now - guesses.since))
    }

    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, guesses| now - guesses.since < WINDOW);
        let oldest = self.0.iter().min_by_key(|(_, guesses)| guesses.since).map(|(address, _)| *address);
        if let Some(oldest) = oldest.filter(|_| self.0.len() >= ADDRESSES) {
            self.0.remove(&oldest);
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring() -> Keyring {
        let key =
            |id: &str, secret: &str, scope| ApiKey { id: id.into(), secret: Secret::new(secret), scopes: vec![scope] };
        Keyring::new(&[
            key("signaling", "m", Scope::Mint),
            key("prometheus", "r", Scope::Read),
            key("operator", "a", Scope::Admin),
            key("forgotten", "", Scope::Admin),
        ])
    }

    #[test]
    fn an_admin_may_read_and_mint_but_a_reader_may_not_mint() {
        let check = |secret, needed| keyring().check(Some(&Presented::bare(secret)), needed);
        assert_eq!(check("a", Scope::Mint), Ok(()));
        assert_eq!(check("a", Scope::Read), Ok(()));
        assert_eq!(check("m", Scope::Mint), Ok(()));
        assert_eq!(check("r", Scope::Mint), Err(Denied::Scope(Scope::Mint)));
        assert_eq!(check("m", Scope::Admin), Err(Denied::Scope(Scope::Admin)));
    }

    #[test]
    fn an_empty_secret_opens_nothing() {
        assert_eq!(keyring().check(Some(&Presented::bare("")), Scope::Admin), Err(Denied::Wrong));
        assert_eq!(keyring().check(None, Scope::Admin), Err(Denied::Missing));
    }

    #[test]
    fn with_basic_the_id_must_belong_to_the_secret() {
        let pair = |id: &str, secret| Presented { id: Some(id.into()), secret: Secret::new(secret) };
        assert_eq!(keyring().check(Some(&pair("operator", "a")), Scope::Admin), Ok(()));
        assert_eq!(keyring().check(Some(&pair("signaling", "a")), Scope::Admin), Err(Denied::Wrong));
    }

    #[test]
    fn nothing_printed_for_a_developer_shows_a_key() {
        let key = ApiKey { id: "id".into(), secret: Secret::new("hush"), scopes: vec![Scope::Mint] };
        let shown = format!("{key:?} {:?} {:?}", Keyring::new(core::slice::from_ref(&key)), Presented::bare("hush"));
        assert!(!shown.contains("hush"), "{shown}");
    }

    #[test]
    fn the_sixth_wrong_key_waits_until_the_window_of_the_first_is_over() {
        let (mut brake, address) = (Brake::default(), IpAddr::from([192, 0, 2, 1]));
        for _ in 0..FREE_GUESSES {
            assert_eq!(brake.wrong_key(address, Instant(0)), None);
        }
        assert_eq!(brake.wrong_key(address, Instant::default() + seconds(10)), Some(seconds(20)));
        assert_eq!(brake.wrong_key(IpAddr::from([192, 0, 2, 2]), Instant(0)), None);
        assert_eq!(brake.wrong_key(address, Instant::default() + seconds(30)), None);
    }

    #[test]
    fn an_ipv6_guesser_gains_nothing_from_a_whole_subnet() {
        let mut brake = Brake::default();
        let address = |host: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host]);
        let waits: Vec<bool> = (0..6).map(|host| brake.wrong_key(address(host), Instant(0)).is_some()).collect();
        assert_eq!(waits, [false, false, false, false, false, true]);
    }

    #[test]
    fn the_table_of_guessers_never_grows_beyond_its_bound() {
        let mut brake = Brake::default();
        for host in 0..2 * u32::try_from(ADDRESSES).unwrap() {
            brake.wrong_key(IpAddr::V4(host.into()), Instant(host.into()));
        }
        assert_eq!(brake.0.len(), ADDRESSES);
    }
}
