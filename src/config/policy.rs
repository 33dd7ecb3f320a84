//! What a configuration means on this host: the workers' [`Policy`] and the URIs that clients are given.
//!
//! Resolves "auto" and external addresses. What the host looks like is handed in; this file never asks.
#![forbid(unsafe_code)]

use super::fallback::WebPlace;
use super::keys::{Config, Listen};
use super::mistake::{Mistake, Source};
use super::values::{External, Password, RelayFrom};
use crate::turn::credential::Secret;
use crate::turn::peers::{Own, Peers, RelayAddress};
use crate::turn::policy::{Auth, Limits, OAuth, Policy, UserKeys};
use crate::turn::tally::Transport;
use crate::wire::integrity::Key;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::collections::BTreeMap;

/// What the configuration needs to know of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// The addresses of its interfaces.
    pub interfaces: Vec<IpAddr>,
    /// The address that packets to the IPv4 internet leave from.
    pub default_v4: Option<IpAddr>,
    /// The address that packets to the IPv6 internet leave from.
    pub default_v6: Option<IpAddr>,
}

impl Config {
    /// The rules for the workers. `more_secrets` are those of `auth.secret_file` or the state directory; they count
    /// after the ones written in the configuration.
    pub fn policy(&self, host: &Host, nonce_key: Secret, more_secrets: &[Secret]) -> Result<Policy, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let relays = noted(self.relays(host), &mut mistakes);
        let redirect = noted(self.redirect(host), &mut mistakes);
        let nat_discovery = noted(self.discoveries(), &mut mistakes);
        mistakes.extend(self.own_web_server(host));
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let realm = self.realm_on(host);
        let own = Own {
            interfaces: host.interfaces.clone(),
            relays: relays.clone(),
            relay_ports: self.relay.ports.range(),
            services: self.services(),
        };
        let mut secrets: Vec<Secret> = Vec::new();
        for secret in self.auth.secrets.iter().chain(more_secrets) {
            if !secrets.contains(secret) {
                secrets.push(secret.clone());
            }
        }
        let deny = &self.peers.deny;
        Ok(Policy {
            auth: Auth {
                secrets,
                users: self.users(&realm),
                max_ttl: self.auth.max_ttl,
                anonymous_stun: self.auth.anonymous_stun,
                nonce_lifetime: self.auth.nonce_lifetime,
                nonce_key,
                separator: self.auth.username_separator.as_char(),
                strict_expiry: self.auth.strict_expiry,
                mobility: self.auth.mobility,
                oauth: self.oauth(&realm),
            },
            realm,
            peers: Peers::new(&self.peers.allow, &deny.prefixes, deny.special_purpose, own),
            relays,
            limits: self.limits(),
            tcp_relays: self.relay.tcp,
            nat_discovery,
            draining: false,
            redirect,
        })
    }

    /// What clients are given to reach the server: `http.uris`, or every listener: STUN, then TURN over UDP, TCP, TLS.
    pub fn uris(&self, policy: &Policy) -> Vec<String> {
        if !self.http.uris.is_empty() {
            return self.http.uris.iter().map(|uri| uri.as_str().to_owned()).collect();
        }
        let place =
            |listener: &SocketAddr| Some(format!("{}:{}", self.host_in_uri(listener, policy)?, listener.port()));
        let udp: Vec<String> = self.listen.udp.addresses.iter().filter_map(place).collect();
        let tcp: Vec<String> = self.listen.tcp.addresses.iter().filter_map(place).collect();
        let tls: Vec<String> = self.listen.tls.addresses.iter().filter_map(place).collect();
        let turn = |place: &String, transport: Transport| format!("turn:{place}?transport={}", transport.label());
        let stun = udp.iter().map(|place| format!("stun:{place}"));
        let turn_udp = udp.iter().map(|place| turn(place, Transport::Udp));
        let turn_tcp = tcp.iter().map(|place| turn(place, Transport::Tcp));
        let turn_tls = tls.iter().map(|place| format!("turns:{place}?transport=tcp"));
        let mut uris: Vec<String> = Vec::new();
        for uri in stun.chain(turn_udp).chain(turn_tcp).chain(turn_tls) {
            if !uris.contains(&uri) {
                uris.push(uri);
            }
        }
        uris
    }

    /// Connections to this host's own address come back to a wildcard listener.
    fn own_web_server(&self, host: &Host) -> Option<Mistake> {
        let WebPlace::Address(address) = self.listen.https_fallback.as_ref()?.place else { return None };
        let lists = [&self.listen.tcp.addresses, &self.listen.tls.addresses, &self.http.listen.addresses];
        let mut listeners = lists.into_iter().flatten();
        let is_own = |own: &SocketAddr| own.ip().is_unspecified() && own.port() == address.port();
        let comes_back = host.interfaces.contains(&address.ip()) && listeners.any(is_own);
        let message = "a listener of this server has that port on every address";
        let mistake = || Mistake::new(Source::Default, "listen.https_fallback", message).hint("name another port");
        comes_back.then(mistake)
    }

    /// The addresses that relay sockets bind, and what clients are told they are.
    fn relays(&self, host: &Host) -> Result<Vec<RelayAddress>, Vec<Mistake>> {
        let mut locals: Vec<IpAddr> = Vec::new();
        for from in &self.relay.addresses {
            let meant = match from {
                RelayFrom::Auto => automatic(host),
                RelayFrom::Address(ip) => vec![*ip],
            };
            meant.into_iter().for_each(|ip| {
                if !locals.contains(&ip) {
                    locals.push(ip)
                }
            });
        }
        if locals.is_empty() {
            let nothing = Mistake::new(Source::Default, "relay.addresses", "there is no relay address");
            return Err(nothing.hint("write [\"auto\"] or addresses of this host").into());
        }
        let mut mistakes = Vec::new();
        for External { local, external } in &self.relay.external {
            let family: Vec<IpAddr> = locals.iter().copied().filter(|ip| ip.is_ipv4() == external.is_ipv4()).collect();
            let wrong =
                |message| Mistake::new(Source::Default, "relay.external", message).given(format!("\"{external}\""));
            match (local, family.as_slice()) {
                (Some(local), _) if !locals.contains(local) => {
                    let listed = locals.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
                    let mistake =
                        wrong(format!("{local} is no relay address")).given(format!("\"{local}={external}\""));
                    mistakes.push(mistake.hint(format!("the relay addresses are {listed}")));
                }
                (None, []) => mistakes.push(wrong("there is no relay address of this family".into())),
                (None, [first, _, ..]) => {
                    let mistake = wrong("there are several relay addresses of this family".into());
                    mistakes.push(mistake.hint(format!("write which one is meant: \"{first}={external}\"")));
                }
                (Some(_), _) | (None, [_]) => {}
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(locals.into_iter().map(|local| RelayAddress { local, external: self.external_of(local) }).collect())
    }

    pub(super) fn external_of(&self, local: IpAddr) -> IpAddr {
        let all = &self.relay.external;
        let named = all.iter().find(|external| external.local == Some(local));
        let family = |one: &&External| one.local.is_none() && one.external.is_ipv4() == local.is_ipv4();
        named.or_else(|| all.iter().find(family)).map_or(local, |found| found.external)
    }

    fn realm_on(&self, host: &Host) -> String {
        match &self.realm {
            Some(realm) => realm.as_str().to_owned(),
            None if host.name.is_empty() => "localhost".into(),
            None => host.name.chars().take(127).collect(), // RFC 8489 §14.9
        }
    }

    fn users(&self, realm: &str) -> BTreeMap<String, UserKeys> {
        let keys = |name: &str, password: &Password| match password {
            Password::Hmac(key) => UserKeys { md5: Some(key.clone()), sha256: None },
            Password::Sha256(key) => UserKeys { md5: None, sha256: Some(key.clone()) },
            Password::Plain(secret) => {
                let password = String::from_utf8_lossy(secret.expose());
                let (md5, sha256) = (Key::md5(name, realm, &password), Key::sha256(name, realm, &password));
                UserKeys { md5: Some(md5), sha256: Some(sha256) }
            }
        };
        self.auth.users.iter().map(|(name, password)| (name.clone(), keys(name, password))).collect()
    }

    fn oauth(&self, realm: &str) -> Option<OAuth> {
        let keys = self.auth.oauth.as_slice();
        if keys.is_empty() {
            return None;
        }
        let server_name = self.auth.oauth_server_name.as_ref().map_or(realm, |name| name.as_str()).to_owned();
        Some(OAuth { server_name, keys: keys.to_vec() })
    }

    fn limits(&self) -> Limits {
        let limits = &self.limits;
        Limits {
            allocations: limits.allocations,
            allocations_per_user: limits.allocations_per_user,
            bandwidth_per_allocation: limits.bandwidth_per_allocation.map(|rate| rate.0),
            bandwidth: limits.bandwidth.map(|rate| rate.0),
            connections_per_ip: limits.connections_per_ip.get(),
            unauthenticated_per_ip: limits.unauthenticated_per_ip.0,
            allocation_lifetime: limits.allocation_lifetime,
            max_allocation_lifetime: limits.max_allocation_lifetime,
            permissions_per_allocation: limits.permissions_per_allocation.get() as usize,
            channels_per_allocation: limits.channels_per_allocation.get() as usize,
        }
    }

    /// Every socket that serves others than peers, and the web server behind us, to which a relay would be a side door.
    fn services(&self) -> Vec<SocketAddr> {
        let Listen { udp, tcp, tls, dtls, .. } = &self.listen;
        let http = &self.http.listen.addresses;
        let lists = [&udp.addresses, &tcp.addresses, &tls.addresses, &dtls.addresses, http];
        let written = lists.into_iter().flat_map(|list| list.iter().copied());
        let web = self.listen.https_fallback.as_ref().and_then(|web| match &web.place {
            WebPlace::Address(address) => Some(*address),
            WebPlace::File(_) => None,
        });
        let mut services: Vec<SocketAddr> = written.chain(self.discovery_listeners()).chain(web).collect();
        services.sort();
        services.dedup();
        services
    }

    /// How clients call a listener; `None` for a wildcard of a family that this host has no address of.
    fn host_in_uri(&self, listener: &SocketAddr, policy: &Policy) -> Option<String> {
        if let Some(name) = &self.http.name {
            return Some(name.for_uri());
        }
        let ip = listener.ip();
        let relay = policy
            .relays
            .iter()
            .find(|relay| relay.local == ip || (ip.is_unspecified() && relay.local.is_ipv4() == ip.is_ipv4()));
        match relay.map(|relay| relay.external) {
            Some(external) => Some(in_uri(external)),
            None => (!ip.is_unspecified()).then(|| in_uri(self.external_of(ip))),
        }
    }
}

impl Listen {
    /// Every listener that was written, with what is spoken there.
    pub fn all(&self) -> Vec<(Transport, SocketAddr)> {
        let (udp, tcp) = ((Transport::Udp, &self.udp), (Transport::Tcp, &self.tcp));
        let lists = [udp, tcp, (Transport::Tls, &self.tls), (Transport::Dtls, &self.dtls)];
        lists.iter().flat_map(|(with, list)| list.addresses.iter().map(|address| (*with, *address))).collect()
    }
}

/// What was read; of what cannot be, the mistakes are kept, so that one does not hide the next.
fn noted<T: Default>(read: Result<T, Vec<Mistake>>, mistakes: &mut Vec<Mistake>) -> T {
    read.unwrap_or_else(|more| {
        mistakes.extend(more);
        T::default()
    })
}

fn in_uri(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The default route's addresses; without a route the first of each family that others may reach; else loopback.
fn automatic(host: &Host) -> Vec<IpAddr> {
    let routed: Vec<IpAddr> = [host.default_v4, host.default_v6].into_iter().flatten().collect();
    if !routed.is_empty() {
        return routed;
    }
    let is_link_local = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let reachable: Vec<IpAddr> =
        host.interfaces.iter().copied().filter(|ip| !ip.is_loopback() && !is_link_local(ip)).collect();
    let first = |v4: bool| reachable.iter().copied().find(|ip| ip.is_ipv4() == v4);
    let found: Vec<IpAddr> = [first(true), first(false)].into_iter().flatten().collect();
    if found.is_empty() { vec![IpAddr::V4(Ipv4Addr::LOCALHOST)] } else { found }
}
