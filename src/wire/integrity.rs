//! Keys, MESSAGE-INTEGRITY and FINGERPRINT.
//!
//! A [`Key`] is wiped when dropped and never shows its bytes. Every comparison of secret bytes takes the same time
//! wherever they differ. MD5 and SHA-1 are what every TURN client speaks; SHA-256 stands beside them (RFC 8489).
#![forbid(unsafe_code)]

use core::fmt;
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of a MESSAGE-INTEGRITY value (RFC 8489 §14.5).
pub const SHA1_LEN: usize = 20;
/// Bytes of a whole MESSAGE-INTEGRITY-SHA256 value (RFC 8489 §14.6).
pub const SHA256_LEN: usize = 32;
/// What the CRC-32 of a FINGERPRINT is combined with (RFC 8489 §14.7).
pub const FINGERPRINT_XOR: u32 = 0x5354_554E;

/// The key of a long-term credential (RFC 8489 §9.2.2, §18.5.1), at most 32 bytes.
#[derive(Clone, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Key {
    bytes: [u8; 32],
    len: u8,
}

/// Which integrity attribute: independent of the hash that makes the key, see [`PasswordAlgorithm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// MESSAGE-INTEGRITY, HMAC-SHA1.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256, HMAC-SHA256.
    Sha256,
}

/// Which hash makes the key of a long-term credential (RFC 8489 §18.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordAlgorithm {
    /// 0x0001, what every client before RFC 8489 uses.
    Md5,
    /// 0x0002.
    Sha256,
}

impl PasswordAlgorithm {
    /// The number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Self::Md5 => 1,
            Self::Sha256 => 2,
        }
    }

    /// The algorithm of this number, if it is one of these.
    pub const fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Md5),
            2 => Some(Self::Sha256),
            _ => None,
        }
    }

    /// The key of a credential.
    pub fn key(self, user: &str, realm: &str, password: &str) -> Key {
        match self {
            Self::Md5 => Key::md5(user, realm, password),
            Self::Sha256 => Key::sha256(user, realm, password),
        }
    }
}

impl Key {
    /// What a name without a key is held against, so that it takes as long. It opens nothing.
    pub const NOBODYS: Self = Self { bytes: [0; 32], len: 16 };

    /// MD5(user ":" realm ":" password), RFC 8489 §18.5.1.1.
    pub fn md5(user: &str, realm: &str, password: &str) -> Self {
        let hash: [u8; 16] =
            parts(user, realm, password).iter().fold(Md5::new(), Digest::chain_update).finalize().into();
        Self::of(&*Zeroizing::new(hash))
    }

    /// SHA-256(user ":" realm ":" password), RFC 8489 §18.5.1.2.
    pub fn sha256(user: &str, realm: &str, password: &str) -> Self {
        let hash: [u8; 32] =
            parts(user, realm, password).iter().fold(Sha256::new(), Digest::chain_update).finalize().into();
        Self::of(&*Zeroizing::new(hash))
    }

    /// A key from its own bytes: an MD5 or SHA-256 value computed elsewhere, or a short-term password.
    /// `None` when there are more than 32.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= 32).then(|| Self::of(bytes))
    }

    /// The bytes of the key. Whoever asks must not show them.
    pub fn expose(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    fn of(from: &[u8]) -> Self {
        let mut bytes = [0; 32];
        let len = from.len().min(32);
        bytes.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        Self { bytes, len: len as u8 }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        equal(self.expose(), other.expose())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// HMAC-SHA1 over the concatenation of `parts`.
pub fn hmac_sha1(key: &[u8], parts: &[&[u8]]) -> [u8; SHA1_LEN] {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// HMAC-SHA256 over the concatenation of `parts`.
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; SHA256_LEN] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// USERHASH: SHA-256(user ":" realm), RFC 8489 §14.4.
pub fn userhash(user: &str, realm: &str) -> [u8; SHA256_LEN] {
    [user.as_bytes(), b":", realm.as_bytes()].iter().fold(Sha256::new(), Digest::chain_update).finalize().into()
}

/// Whether two secrets are equal, in time that depends on their lengths alone.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// The FINGERPRINT of the concatenation of `parts` (RFC 8489 §14.7).
pub fn fingerprint(parts: &[&[u8]]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    parts.iter().for_each(|part| crc.update(part));
    crc.finalize() ^ FINGERPRINT_XOR
}

fn parts<'a>(user: &'a str, realm: &'a str, password: &'a str) -> [&'a [u8]; 5] {
    [user.as_bytes(), b":", realm.as_bytes(), b":", password.as_bytes()]
}
