//! All that may change while the server runs, as one value.
//!
//! A worker holds an `Arc<Policy>` and swaps it whole, between two batches; there is no other way to change a worker.
#![forbid(unsafe_code)]

use super::credential::{self, Secret};
use super::peers::{Own, Peers, RelayAddress};
use crate::time::{Duration, minutes, seconds};
use crate::wire::integrity::{Key, equal};
use crate::wire::stun::Family;
use core::fmt;
use core::net::SocketAddr;
use std::collections::BTreeMap;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The rules that every worker follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The realm of every challenge, under 128 characters (RFC 8489 §14.9).
    pub realm: String,
    /// Who may ask for what.
    pub auth: Auth,
    /// Who may be relayed to.
    pub peers: Peers,
    /// Where relay sockets are bound.
    pub relays: Vec<RelayAddress>,
    /// How much of everything.
    pub limits: Limits,
    /// Whether clients may have TCP relays (RFC 6062).
    pub tcp_relays: bool,
    /// The sockets of NAT behaviour discovery (RFC 5780), one set for each family that has it; empty when it is off.
    pub nat_discovery: Vec<Discovery>,
    /// Whether new allocations are turned away, because the server is about to stop.
    pub draining: bool,
    /// Where they are sent then.
    pub redirect: Redirect,
}

/// The four sockets of NAT behaviour discovery: two addresses, two ports on each (RFC 5780 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// The listeners, `[address][port]`.
    pub sockets: [[SocketAddr; 2]; 2],
    /// What clients are told they are (1:1 NAT).
    pub told: [[SocketAddr; 2]; 2],
}

/// Another server (RFC 8489 §10). Without any address clients are told that there is no room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirect {
    /// ALTERNATE-SERVER: the first of the client's own family is told. None of them is ever a client over UDP.
    pub servers: Vec<SocketAddr>,
    /// ALTERNATE-DOMAIN: the name in the certificate of those servers.
    pub domain: Option<String>,
}

/// Credentials, as the workers know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Secrets of time-limited credentials, newest first; all verify.
    pub secrets: Vec<Secret>,
    /// Keys of the static users; the passwords themselves are not kept.
    pub users: BTreeMap<String, UserKeys>,
    /// What stands between expiry and user in a time-limited name.
    pub separator: char,
    /// Whether an allocation ends when its time-limited credential does, not at its next refresh.
    pub strict_expiry: bool,
    /// Whether allocations may move to another client address (RFC 8016).
    pub mobility: bool,
    /// Third-party authorisation (RFC 7635).
    pub oauth: Option<OAuth>,
    /// The longest life of a time-limited credential.
    pub max_ttl: Duration,
    /// Whether a Binding request needs no credential.
    pub anonymous_stun: bool,
    /// How long a nonce may be used.
    pub nonce_lifetime: Duration,
    /// What the nonces of all workers are signed with.
    pub nonce_key: Secret,
}

/// The keys of one user: one for each hash, because neither can be made from the other (RFC 8489 §18.5.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserKeys {
    /// For MESSAGE-INTEGRITY.
    pub md5: Option<Key>,
    /// For MESSAGE-INTEGRITY-SHA256.
    pub sha256: Option<Key>,
}

/// Who may hand out access tokens, and under which name we know ourselves (RFC 7635).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuth {
    /// THIRD-PARTY-AUTHORIZATION, also the associated data of every token.
    pub server_name: String,
    /// The keys shared with authorisation servers.
    pub keys: Vec<OAuthKey>,
}

/// A key shared with an authorisation server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuthKey {
    /// The key id, which clients send as USERNAME.
    pub kid: String,
    /// The key.
    pub key: AeadKey,
}

/// A key that seals tokens, and its algorithm (RFC 7635 §4.1).
#[derive(Clone, Eq, Zeroize, ZeroizeOnDrop)]
pub enum AeadKey {
    /// AES-128 in Galois counter mode.
    A128Gcm([u8; 16]),
    /// AES-256 in Galois counter mode.
    A256Gcm([u8; 32]),
}

impl AeadKey {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::A128Gcm(key) => key,
            Self::A256Gcm(key) => key,
        }
    }
}

impl PartialEq for AeadKey {
    fn eq(&self, other: &Self) -> bool {
        equal(self.bytes(), other.bytes())
    }
}

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A128Gcm(_) => "A128Gcm(…)",
            Self::A256Gcm(_) => "A256Gcm(…)",
        })
    }
}

/// Bounds. Zero or `None` means none, where the field says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Allocations on the whole server; 0 is none.
    pub allocations: u32,
    /// Allocations of one user; 0 is none.
    pub allocations_per_user: u32,
    /// Bytes per second through one allocation, each way; `None` is no limit.
    pub bandwidth_per_allocation: Option<u64>,
    /// Bytes per second through the whole server, both ways together; `None` is no limit.
    pub bandwidth: Option<u64>,
    /// TCP and TLS connections and DTLS associations from one IPv4 address or IPv6 /64.
    pub connections_per_ip: u32,
    /// Answers per second to unauthenticated requests from one IPv4 address or IPv6 /64.
    pub unauthenticated_per_ip: u32,
    /// The lifetime of an allocation whose client asks for none.
    pub allocation_lifetime: Duration,
    /// The longest lifetime a client can get.
    pub max_allocation_lifetime: Duration,
    /// Live permissions of one allocation.
    pub permissions_per_allocation: usize,
    /// Bound channels of one allocation.
    pub channels_per_allocation: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allocations: 0,
            allocations_per_user: 0,
            bandwidth_per_allocation: None,
            bandwidth: None,
            connections_per_ip: 256,
            unauthenticated_per_ip: 100,
            allocation_lifetime: minutes(10),
            max_allocation_lifetime: minutes(60),
            permissions_per_allocation: 256,
            channels_per_allocation: 256,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            realm: "localhost".into(),
            auth: Auth {
                secrets: Vec::new(),
                users: BTreeMap::new(),
                max_ttl: seconds(24 * 3600),
                anonymous_stun: true,
                nonce_lifetime: minutes(60),
                nonce_key: Secret::new(""),
                separator: credential::SEPARATOR,
                strict_expiry: false,
                mobility: false,
                oauth: None,
            },
            peers: Peers::new(&[], &[], true, Own::default()),
            relays: Vec::new(),
            limits: Limits::default(),
            tcp_relays: true,
            nat_discovery: Vec::new(),
            draining: false,
            redirect: Redirect::default(),
        }
    }
}

impl Policy {
    /// Whether there is a relay address of this family.
    pub fn relays_family(&self, family: Family) -> bool {
        self.relays.iter().any(|relay| Family::of(relay.local) == family)
    }

    /// Whether a datagram from there claims to come from a listener: one of this server, or of one that clients are sent to.
    /// Such a client would close a circle of relays in which nothing grows or shrinks.
    pub fn is_door(&self, from: SocketAddr) -> bool {
        self.peers.is_own_service(from) || self.redirect.servers.contains(&from)
    }
}
