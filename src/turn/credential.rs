//! Time-limited HMAC credentials: minted here, verified here, and nowhere else.
//!
//! The user name says when it ends: `<unix expiry>:<user>`, or the bare expiry; another separator than the colon may be
//! agreed upon, and the first one splits. The password is
//! base64(HMAC-SHA1(secret, user name)), byte for byte as coturn's `use-auth-secret` and
//! draft-uberti-behave-turn-rest-00 have it, so every server that holds the secret can mint and any can verify.
//! Never stores anything; a secret is wiped when dropped and never shown.
#![forbid(unsafe_code)]

use super::opaque::OpaqueString;
use crate::time::{Duration, UnixSeconds};
use crate::wire::integrity::{equal, hmac_sha1};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use core::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A shared secret of the TURN REST scheme.
#[derive(Clone, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// The secret whose bytes are those of `text`.
    pub fn new(text: &str) -> Self {
        Self(text.as_bytes().into())
    }

    /// The bytes. Whoever asks must not show them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        equal(&self.0, &other.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The usual separator between the expiry and the user.
pub const SEPARATOR: char = ':';

/// A credential made for somebody.
#[derive(Clone, PartialEq, Eq)]
pub struct Minted {
    /// `<expiry>:<user>`, or the bare expiry.
    pub username: String,
    /// base64(HMAC-SHA1(secret, username)).
    pub password: Zeroizing<String>,
    /// When it ends.
    pub expires: UnixSeconds,
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { username, password: _, expires } = self;
        f.debug_struct("Minted").field("username", username).field("expires", expires).finish_non_exhaustive()
    }
}

/// Makes a credential that lives for `ttl` from `now`. Without a user the name is a bare expiry.
pub fn mint(secret: &Secret, user: Option<&OpaqueString>, separator: char, ttl: Duration, now: UnixSeconds) -> Minted {
    let expires = UnixSeconds(now.0.saturating_add(ttl.as_secs()));
    let username = match user {
        Some(user) => format!("{}{separator}{}", expires.0, user.as_str()),
        None => expires.0.to_string(),
    };
    let password = password(secret, &username);
    Minted { username, password, expires }
}

/// The password that belongs to a time-limited user name.
pub fn password(secret: &Secret, username: &str) -> Zeroizing<String> {
    let mac = Zeroizing::new(hmac_sha1(secret.expose(), &[username.as_bytes()]));
    Zeroizing::new(STANDARD.encode(*mac))
}

/// When a user name says it ends; `None` when it does not start with a number that ends at the first separator.
pub fn expiry(username: &str, separator: char) -> Option<UnixSeconds> {
    let digits = username.split(separator).next()?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok().map(UnixSeconds)).flatten()
}

/// The user behind a user name, as quotas count: what follows the expiry, or the whole name.
pub fn user(username: &str, separator: char) -> &str {
    match username.split_once(separator) {
        Some((_, user)) if !user.is_empty() && expiry(username, separator).is_some() => user,
        _ => username,
    }
}
