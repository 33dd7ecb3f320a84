//! All that may change while the server runs, as one value.
//!
//! A worker holds an `Arc<Policy>` and swaps it whole, between two batches; there is no other way to change a worker.
#![forbid(unsafe_code)]

use super::credential::Secret;
use super::peers::{Own, Peers, RelayAddress};
use crate::time::{Duration, minutes, seconds};
use crate::wire::integrity::Key;
use crate::wire::stun::Family;
use std::collections::BTreeMap;

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
}

/// Credentials, as the workers know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Secrets of time-limited credentials, newest first; all verify.
    pub secrets: Vec<Secret>,
    /// Keys of the static users; the passwords themselves are not kept.
    pub users: BTreeMap<String, Key>,
    /// The longest life of a time-limited credential.
    pub max_ttl: Duration,
    /// Whether a Binding request needs no credential.
    pub anonymous_stun: bool,
    /// How long a nonce may be used.
    pub nonce_lifetime: Duration,
    /// What the nonces of all workers are signed with.
    pub nonce_key: Secret,
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
    /// TCP connections from one IPv4 address or IPv6 /64.
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
            },
            peers: Peers::new(&[], &[], true, Own::default()),
            relays: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl Policy {
    /// Whether there is a relay address of this family.
    pub fn relays_family(&self, family: Family) -> bool {
        self.relays.iter().any(|relay| Family::of(relay.local) == family)
    }
}
