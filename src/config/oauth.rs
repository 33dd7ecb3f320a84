//! Third-party authorisation (RFC 7635): the keys that access tokens are sealed with, and the name of this server.
//!
//! A key is as long as its algorithm needs when it leaves here. Never shows one.
#![forbid(unsafe_code)]

use super::load::{Given, Reading, Value, Word, gather};
use super::near::nearest;
use super::units::Fault;
use super::values::{HIDDEN, USER_MAX};
use crate::turn::policy::{AeadKey, OAuthKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

/// The keys shared with authorisation servers, each with another key id (RFC 7635).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuthKeys(Vec<OAuthKey>);

/// The name that the server has towards authorisation servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerName(String);

impl OAuthKeys {
    /// The keys.
    pub fn as_slice(&self) -> &[OAuthKey] {
        &self.0
    }
}

impl Value for OAuthKeys {
    const SECRET: bool = true;

    fn read(given: &Given<'_>) -> Reading<Self> {
        let tables = if given.is_table() { vec![given.clone()] } else { given.items()? };
        let keys: Vec<OAuthKey> = gather(tables.iter().map(oauth_key))?;
        let twice = |(i, key): &(usize, &OAuthKey)| keys.iter().take(*i).any(|other| other.kid == key.kid);
        if let Some((_, key)) = keys.iter().enumerate().find(twice) {
            return Err(given.wrong(format!("the kid {:?} is there twice", key.kid)).into());
        }
        Ok(Self(keys))
    }

    fn show(&self) -> toml::Value {
        let table = |key: &OAuthKey| {
            let algorithm = match key.key {
                AeadKey::A128Gcm(_) => A128GCM,
                AeadKey::A256Gcm(_) => A256GCM,
            };
            let entries = [("kid", key.kid.as_str()), ("key", HIDDEN), ("algorithm", algorithm)];
            toml::Value::Table(entries.map(|(name, value)| (name.to_owned(), value.into())).into_iter().collect())
        };
        toml::Value::Array(self.0.iter().map(table).collect())
    }
}

fn oauth_key(given: &Given<'_>) -> Reading<OAuthKey> {
    let (mut kid, mut key, mut algorithm) = (None, None, None);
    let mut mistakes = Vec::new();
    for (name, given) in given.entries()? {
        let read = match name.as_str() {
            "kid" => given.open().kid().map(|read| kid = Some(read)),
            "key" => given.base64().map(|read| key = Some((given.clone(), read))),
            "algorithm" => given.open().text().map(|read| algorithm = Some((given.open(), read))),
            _ => Err(given.unknown(nearest(&name, OAUTH_FIELDS)).into()),
        };
        mistakes.extend(read.err().into_iter().flatten());
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let (Some(kid), Some((at_key, key)), Some((at_algorithm, algorithm))) = (kid, key, algorithm) else {
        let complete = "write { kid = \"…\", key = \"base64…\", algorithm = \"A256GCM\" }";
        return Err(given.wrong("kid, key or algorithm is missing").hint(complete).into());
    };
    if key.len() > OAUTH_KEY_MAX {
        let message = format!("the key has {} bytes; at most {OAUTH_KEY_MAX} are possible", key.len());
        return Err(at_key.wrong(message).into());
    }
    let too_short = |needed: usize| {
        let message = format!("the key has {} bytes; {algorithm} needs {needed}", key.len());
        at_key.wrong(message).hint(format!("make one with `openssl rand -base64 {needed}`"))
    };
    // coturn takes the beginning of a key that is longer than its algorithm needs.
    let key = match algorithm {
        A128GCM => AeadKey::A128Gcm(*key.first_chunk().ok_or_else(|| too_short(16))?),
        A256GCM => AeadKey::A256Gcm(*key.first_chunk().ok_or_else(|| too_short(32))?),
        _ => return Err(at_algorithm.fault(Fault::one_of(algorithm, &[A128GCM, A256GCM])).into()),
    };
    Ok(OAuthKey { kid, key })
}

const OAUTH_FIELDS: [&str; 3] = ["kid", "key", "algorithm"];
const OAUTH_KEY_MAX: usize = 33; // 44 characters of base64, the most that coturn takes
const A128GCM: &str = "A128GCM";
const A256GCM: &str = "A256GCM";

impl ServerName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Word for ServerName {
    fn parse(text: &str) -> Result<Self, Fault> {
        if text.len() > SERVER_NAME_MAX || text.chars().any(char::is_control) {
            let message = format!("a server name has at most {SERVER_NAME_MAX} bytes and no control characters");
            return Err(Fault::new(message));
        }
        Ok(Self(text.into()))
    }

    fn word(&self) -> String {
        self.0.clone()
    }
}

const SERVER_NAME_MAX: usize = 255; // as THIRD-PARTY-AUTHORIZATION of coturn; a DNS name has no more

impl Given<'_> {
    /// A key id: what clients send as USERNAME.
    fn kid(&self) -> Reading<String> {
        let text = self.text()?;
        if text.is_empty() || text.len() > USER_MAX || text.chars().any(char::is_control) {
            return Err(self.wrong(format!("a kid has 1 to {USER_MAX} bytes and no control characters")).into());
        }
        Ok(text.into())
    }

    /// Bytes in base64, with or without the padding.
    fn base64(&self) -> Reading<Zeroizing<Vec<u8>>> {
        let text = self.text()?.trim_end_matches('=');
        let bytes = STANDARD_NO_PAD.decode(text).map(Zeroizing::new);
        let make = "make one with `openssl rand -base64 32`";
        bytes.map_err(|_| self.wrong("the key is not base64").hint(make).into())
    }
}
