//! The rules of a simulated server, in plain values: the world makes a policy of them, the auditor reads them itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use turnserver::time::{minutes, seconds};
use turnserver::turn::credential::Secret;
use turnserver::turn::peers::{Own, Peers, RelayAddress};
use turnserver::turn::policy::{Limits, Policy, Redirect, UserKeys};
use turnserver::wire::integrity::Key;

use crate::chance::Chance;

/// What an operator would have written.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) realm: &'static str,
    /// Static users and their passwords.
    pub(crate) users: BTreeMap<String, String>,
    /// Secrets of time-limited credentials.
    pub(crate) secrets: Vec<String>,
    pub(crate) nonce_key: String,
    pub(crate) nonce_lifetime: u64,
    pub(crate) strict_expiry: bool,
    pub(crate) anonymous_stun: bool,
    pub(crate) mobility: bool,
    pub(crate) tcp_relays: bool,
    pub(crate) draining: bool,
    pub(crate) redirect: Vec<SocketAddr>,
    /// Hosts that a rule denies, and a private one that a rule allows.
    pub(crate) denied: Vec<IpAddr>,
    pub(crate) private_allowed: bool,
    pub(crate) relays: Vec<RelayAddress>,
    pub(crate) relay_ports: RangeInclusive<u16>,
    pub(crate) listeners: Vec<SocketAddr>,
    pub(crate) interfaces: Vec<IpAddr>,
    pub(crate) allocations: u32,
    pub(crate) allocations_per_user: u32,
    pub(crate) bandwidth: Option<u64>,
    pub(crate) unauthenticated: u32,
    pub(crate) lifetime: u64,
    pub(crate) max_lifetime: u64,
    pub(crate) permissions: usize,
    pub(crate) channels: usize,
}

/// The users of every world.
pub(crate) const USERS: [&str; 3] = ["alice", "bob", "zoë"];
/// A host in a private network, opened by some rules.
pub(crate) const PRIVATE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));

pub(crate) fn password_of(user: &str) -> String {
    format!("the password of {user}")
}

pub(crate) fn secret_of(number: u64) -> String {
    format!("time-limited secret {number}")
}

pub(crate) const fn host_v4(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(20, 0, 0, 1 + host as u8)
}

pub(crate) const fn host_v6(host: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2a00, 0x20, 0, 0, 0, 0, 0, 1 + host as u16)
}

impl Rules {
    /// The rules of one host of a world.
    pub(crate) fn draw(chance: &mut Chance, host: usize, nonce_key: &str) -> Self {
        let (v4, v6) = *chance.pick(&[(true, true), (true, true), (true, true), (true, false), (false, true)]);
        let is_translated = chance.one_in(4);
        let mut relays = Vec::new();
        if v4 {
            let external = host_v4(host).into();
            let local = if is_translated { Ipv4Addr::new(172, 16, 0, 1 + host as u8).into() } else { external };
            relays.push(RelayAddress { local, external });
        }
        if v6 {
            relays.push(RelayAddress { local: host_v6(host).into(), external: host_v6(host).into() });
        }
        let first = chance.between(49_152, 60_000) as u16;
        let count = *chance.pick(&[4, 9, 40, 2000]);
        let lifetime = *chance.pick(&[600, 600, 600, 900]);
        let listener = |ip: IpAddr| SocketAddr::new(ip, 3478);
        Self {
            realm: chance.pick::<&str>(&["example.org", "turn.test"]),
            users: USERS.iter().map(|user| (user.to_string(), password_of(user))).collect(),
            secrets: (0..chance.below(3)).map(secret_of).collect(),
            nonce_key: nonce_key.into(),
            nonce_lifetime: *chance.pick(&[3600, 3600, 600, 60]),
            strict_expiry: chance.one_in(3),
            anonymous_stun: !chance.one_in(4),
            mobility: chance.one_in(2),
            tcp_relays: !chance.one_in(3),
            draining: false,
            redirect: Vec::new(),
            denied: Vec::new(),
            private_allowed: chance.one_in(4),
            relays,
            relay_ports: first..=first + count,
            listeners: vec![listener(host_v4(host).into()), listener(host_v6(host).into())],
            interfaces: vec![host_v4(host).into(), host_v6(host).into()],
            allocations: *chance.pick(&[0, 0, 0, 3]),
            allocations_per_user: *chance.pick(&[0, 0, 1, 2, 4]),
            bandwidth: *chance.pick(&[None, None, None, Some(4000), Some(100_000)]),
            unauthenticated: *chance.pick(&[10, 100, 100]),
            lifetime,
            max_lifetime: *chance.pick(&[3600, 1200, lifetime]),
            permissions: *chance.pick(&[2, 8, 256]),
            channels: *chance.pick(&[2, 8, 256]),
        }
    }

    pub(crate) fn policy(&self) -> Policy {
        let keys = |user: &str, password: &str| UserKeys {
            md5: Some(Key::md5(user, self.realm, password)),
            sha256: Some(Key::sha256(user, self.realm, password)),
        };
        let own = Own {
            interfaces: self.interfaces.clone(),
            relays: self.relays.clone(),
            relay_ports: self.relay_ports.clone(),
            services: self.listeners.clone(),
        };
        let allow = if self.private_allowed { vec![PRIVATE.into()] } else { Vec::new() };
        let deny: Vec<_> = self.denied.iter().map(|ip| (*ip).into()).collect();
        let mut policy = Policy {
            realm: self.realm.into(),
            peers: Peers::new(&allow, &deny, true, own),
            relays: self.relays.clone(),
            tcp_relays: self.tcp_relays,
            draining: self.draining,
            redirect: Redirect { servers: self.redirect.clone(), domain: None },
            limits: Limits {
                allocations: self.allocations,
                allocations_per_user: self.allocations_per_user,
                bandwidth_per_allocation: self.bandwidth,
                unauthenticated_per_ip: self.unauthenticated,
                allocation_lifetime: seconds(self.lifetime),
                max_allocation_lifetime: seconds(self.max_lifetime),
                permissions_per_allocation: self.permissions,
                channels_per_allocation: self.channels,
                ..Limits::default()
            },
            ..Policy::default()
        };
        policy.auth.users = self.users.iter().map(|(user, password)| (user.clone(), keys(user, password))).collect();
        policy.auth.secrets = self.secrets.iter().map(|secret| Secret::new(secret)).collect();
        policy.auth.nonce_key = Secret::new(&self.nonce_key);
        policy.auth.nonce_lifetime = seconds(self.nonce_lifetime);
        policy.auth.strict_expiry = self.strict_expiry;
        policy.auth.anonymous_stun = self.anonymous_stun;
        policy.auth.mobility = self.mobility;
        policy.auth.max_ttl = minutes(24 * 60);
        policy
    }
}
