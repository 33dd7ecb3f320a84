//! What keys say of each other: contradictions are mistakes, risks are warnings.
#![forbid(unsafe_code)]

use super::fallback::WebPlace;
use super::keys::Config;
use super::load::Origin;
use super::mistake::{Mistake, Source};
use super::units::duration_text;
use super::values::Password;
use crate::time::{Duration, minutes, seconds};
use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

/// A configuration whose keys are right one by one.
pub(super) struct Cross<'a> {
    pub(super) config: &'a Config,
    pub(super) origins: &'a BTreeMap<&'static str, Origin>,
    /// Keys that stand at their default because what was written is wrong; nothing is said of them twice.
    pub(super) broken: &'a BTreeSet<&'static str>,
}

type Findings = Vec<Mistake>;

impl Cross<'_> {
    /// The mistakes and the warnings.
    pub(super) fn check(&self) -> (Findings, Findings) {
        let mistakes = [
            self.listeners(),
            self.certificates(),
            self.lifetimes(),
            self.channels(),
            self.externals(),
            self.key_ids(),
            self.discovery(),
            self.proxies(),
            self.web_server(),
        ]
        .concat();
        let warnings = [
            self.open_peers(),
            self.short_lifetime(),
            self.long_nonce(),
            self.relay_ports_taken(),
            self.equal_secrets(),
            self.short_secrets(),
            self.sha256_users(),
            self.nobody_to_name(),
            self.nobody_to_tell(),
        ]
        .concat();
        (mistakes, warnings)
    }

    fn listeners(&self) -> Findings {
        let (listen, http) = (&self.config.listen, &self.config.http);
        let mut found = Vec::new();
        let lists = [
            ("listen.udp", &listen.udp),
            ("listen.tcp", &listen.tcp),
            ("listen.tls", &listen.tls),
            ("listen.dtls", &listen.dtls),
        ];
        if lists.iter().all(|(key, list)| list.addresses.is_empty() && self.intact(&[key])) {
            let nothing = self.at("listen.udp", "no listener is left: nobody could reach the server");
            found.push(nothing.hint("leave out listen.udp or listen.tcp to get its default"));
        }
        for address in &listen.dtls.addresses {
            let taken = listen.udp.addresses.iter().any(|other| collide(*address, *other));
            if taken && self.intact(&["listen.udp", "listen.dtls"]) {
                found.push(self.at("listen.dtls", format!("listen.udp has port {} too", address.port())));
            }
        }
        // All that share TCP's ports; of two, the one that comes later is told.
        let (tcp, tls) = (&listen.tcp.addresses, &listen.tls.addresses);
        let over_tcp = [("listen.tcp", tcp), ("listen.tls", tls), ("http.listen", &http.listen.addresses)];
        for (i, (key, list)) in over_tcp.iter().enumerate() {
            for (other, taken) in over_tcp.iter().take(i).filter(|(other, _)| self.intact(&[key, other])) {
                let both = |address: &&SocketAddr| taken.iter().any(|taken| collide(**address, *taken));
                for address in list.iter().filter(both) {
                    found.push(self.at(key, format!("{other} has port {} too", address.port())));
                }
            }
        }
        found
    }

    fn certificates(&self) -> Findings {
        let (cert, key) = (&self.config.tls.cert.0, &self.config.tls.key.0);
        let mut found = Vec::new();
        if !self.intact(&["tls.cert", "tls.key"]) {
            return found;
        }
        match (cert.len(), key.len()) {
            (0, 0) => {
                let listen = &self.config.listen;
                for (key, list) in [("listen.tls", &listen.tls), ("listen.dtls", &listen.dtls)] {
                    if !list.addresses.is_empty() {
                        let without = self.at(key, "there is no certificate for it");
                        found.push(without.hint("set tls.cert and tls.key"));
                    }
                }
            }
            (_, 0) => found.push(self.at("tls.cert", "tls.key is missing").hint("name the file of its private key")),
            (0, _) => {
                found
                    .push(self.at("tls.key", "tls.cert is missing").hint("name the file of the certificate it is for"));
            }
            (certs, keys) if certs != keys => {
                let message = format!("{keys} for {certs} in tls.cert");
                found.push(self.at("tls.key", message).hint("each certificate needs its key, in the same order"));
            }
            _ => {}
        }
        found
    }

    fn proxies(&self) -> Findings {
        let listen = &self.config.listen;
        let lacks = listen.proxy_protocol && listen.proxy_trusted.is_empty();
        if !lacks || !self.intact(&["listen.proxy_protocol", "listen.proxy_trusted"]) {
            return Vec::new();
        }
        let nobody = self.at("listen.proxy_protocol", "listen.proxy_trusted is empty, so nobody may send the header");
        vec![nobody.hint("name the load balancers: listen.proxy_trusted = [\"10.0.0.0/24\"]")]
    }

    fn web_server(&self) -> Findings {
        const KEY: &str = "listen.https_fallback";
        let (listen, http) = (&self.config.listen, &self.config.http.listen);
        let Some(web) = &listen.https_fallback else { return Vec::new() };
        let mut found = Vec::new();
        let has_tls = !self.config.tls.cert.0.is_empty();
        let is_served = !listen.tls.addresses.is_empty() || (listen.detect && !listen.tcp.addresses.is_empty());
        if !(has_tls && is_served) && self.intact(&["tls.cert", "listen.tls", "listen.tcp", "listen.detect"]) {
            let nobody = self.at(KEY, "nothing speaks TLS here, so no browser could come");
            found.push(nobody.hint("set tls.cert, tls.key and listen.tls"));
        }
        let lists = [
            ("listen.tcp", &listen.tcp.addresses),
            ("listen.tls", &listen.tls.addresses),
            ("http.listen", &http.addresses),
        ];
        for (key, list) in lists.iter().filter(|(key, _)| self.intact(&[key])) {
            if let WebPlace::Address(address) = web.place
                && list.iter().any(|own| collide_here(address, *own))
            {
                let message = format!("that is {key}: connections would come back, as if they were of this host");
                found.push(self.at(KEY, message).hint("name a web server of its own"));
            }
        }
        if matches!(&web.place, WebPlace::File(path) if http.sockets.contains(path)) {
            let message = "that is http.listen: connections would come back, as if they were of this host";
            found.push(self.at(KEY, message).hint("name a web server of its own"));
        }
        found
    }

    fn nobody_to_tell(&self) -> Findings {
        let listen = &self.config.listen;
        let idle = listen.https_fallback_proxy && listen.https_fallback.is_none();
        self.only_if(
            idle && self.intact(&["listen.https_fallback"]),
            "listen.https_fallback_proxy",
            "without listen.https_fallback there is no web server to tell",
        )
    }

    fn lifetimes(&self) -> Findings {
        let limits = &self.config.limits;
        let mut found = Vec::new();
        if limits.allocation_lifetime < LIFETIME_MIN {
            let message = format!("shorter than {}: clients could not refresh in time", duration_text(LIFETIME_MIN));
            found.push(self.at("limits.allocation_lifetime", message));
        }
        let keys = ["limits.max_allocation_lifetime", "limits.allocation_lifetime"];
        if limits.max_allocation_lifetime < limits.allocation_lifetime && self.intact(&keys) {
            let blamed = keys.into_iter().find(|key| self.origins.contains_key(key)).unwrap_or(keys[0]);
            let message = format!(
                "the longest lifetime ({}) is shorter than the usual one ({})",
                duration_text(limits.max_allocation_lifetime),
                duration_text(limits.allocation_lifetime)
            );
            found.push(self.at(blamed, message));
        }
        found
    }

    fn channels(&self) -> Findings {
        let key = "limits.channels_per_allocation";
        let excess = self.config.limits.channels_per_allocation.get() > CHANNELS_MAX;
        self.only_if(excess, key, format!("{CHANNELS_MAX} is the most, as many as RFC 8656 §12 has channel numbers"))
    }

    fn externals(&self) -> Findings {
        let all = &self.config.relay.external;
        let mut found = Vec::new();
        for (i, one) in all.iter().enumerate() {
            let same_place = |other: &&super::values::External| {
                other.local == one.local && (one.local.is_some() || other.external.is_ipv4() == one.external.is_ipv4())
            };
            if all.iter().take(i).find(same_place).is_some() {
                let message = format!("{} is the second answer for the same relay address", one.external);
                found.push(self.at("relay.external", message).hint("write \"local=external\" for each"));
            }
        }
        found
    }

    fn key_ids(&self) -> Findings {
        let mut seen = BTreeSet::new();
        let twice = self.config.http.keys.iter().filter(|key| !seen.insert(&key.id));
        twice.map(|key| self.at("http.keys", format!("the id {:?} is there twice", key.id))).collect()
    }

    fn discovery(&self) -> Findings {
        let lacks = self.config.auth.nat_discovery && self.config.discovery_sockets().is_empty();
        if !lacks || !self.intact(&["auth.nat_discovery", "listen.udp"]) {
            return Vec::new();
        }
        let message = "listen.udp has no two addresses of one family with the same port (RFC 5780 §6); 0.0.0.0 and [::] do not count";
        let example =
            self.config.listen.udp.addresses.iter().map(SocketAddr::port).find(|port| (1..u16::MAX).contains(port));
        let port = example.unwrap_or(3478);
        let hint = format!(
            "write listen.udp = [\"198.51.100.7:{port}\", \"198.51.100.8:{port}\"] with addresses of this host"
        );
        vec![self.at("auth.nat_discovery", message).hint(hint)]
    }

    fn sha256_users(&self) -> Findings {
        let users = self.config.auth.users.iter();
        let names: Vec<&str> = users
            .filter(|(_, password)| matches!(password, Password::Sha256(_)))
            .map(|(name, _)| name.as_str())
            .collect();
        let message = format!("only clients of RFC 8489 can log in as {}, which browsers are not", names.join(", "));
        let hint = "with the password itself, or \"hmac:\", the others can too";
        if names.is_empty() { Vec::new() } else { vec![self.at("auth.users", message).hint(hint)] }
    }

    fn nobody_to_name(&self) -> Findings {
        let auth = &self.config.auth;
        let idle = auth.oauth_server_name.is_some() && auth.oauth.as_slice().is_empty();
        self.only_if(
            idle && self.intact(&["auth.oauth"]),
            "auth.oauth_server_name",
            "without auth.oauth nobody is told this name",
        )
    }

    fn open_peers(&self) -> Findings {
        let message =
            "without \"special-purpose\" clients may reach private networks and cloud metadata through this server";
        self.only_if(!self.config.peers.deny.special_purpose && self.intact(&["peers.deny"]), "peers.deny", message)
    }

    fn short_lifetime(&self) -> Findings {
        let short = self.config.limits.allocation_lifetime < LIFETIME_USUAL;
        let message = "clients may count on the usual 10 minutes (RFC 8656 §3.2)";
        self.only_if(short, "limits.allocation_lifetime", message)
    }

    fn long_nonce(&self) -> Findings {
        let long = self.config.auth.nonce_lifetime > NONCE_USUAL;
        self.only_if(long, "auth.nonce_lifetime", "a nonce should be replaced at least once an hour (RFC 8656 §5)")
    }

    fn relay_ports_taken(&self) -> Findings {
        let (relay, listen) = (self.config.relay.ports.range(), &self.config.listen);
        let mut found = Vec::new();
        for (key, name, list) in [
            ("listen.udp", "UDP", &listen.udp),
            ("listen.tcp", "TCP", &listen.tcp),
            ("listen.tls", "TLS", &listen.tls),
            ("listen.dtls", "DTLS", &listen.dtls),
        ] {
            let added = if key == "listen.udp" { self.config.discovery_listeners() } else { Vec::new() };
            let ports = list.addresses.iter().chain(&added).map(SocketAddr::port);
            let ports: BTreeSet<u16> = ports.filter(|port| relay.contains(port)).collect();
            let message =
                |port| format!("the {name} listener's port {port} lies in relay.ports, so no allocation can have it");
            found.extend(ports.into_iter().map(|port| self.at(key, message(port))));
        }
        found
    }

    fn equal_secrets(&self) -> Findings {
        let secrets = &self.config.auth.secrets;
        let keys = &self.config.http.keys;
        let mut found = Vec::new();
        if secrets.iter().enumerate().any(|(i, secret)| secrets.iter().take(i).any(|other| other == secret)) {
            found.push(self.at("auth.secrets", "the same secret is there twice"));
        }
        for (i, key) in keys.iter().enumerate() {
            if let Some(other) = keys.iter().take(i).find(|other| other.secret == key.secret) {
                let message = format!("{:?} and {:?} have the same secret", other.id, key.id);
                found.push(self.at("http.keys", message));
            }
            if secrets.contains(&key.secret) {
                found.push(self.at("http.keys", format!("{:?} has the secret of auth.secrets", key.id)));
            }
        }
        found
    }

    fn short_secrets(&self) -> Findings {
        let is_short = |secret: &crate::turn::credential::Secret| secret.expose().len() < SECRET_USUAL;
        let make = "make one with `openssl rand -base64 32`";
        let mut found = Vec::new();
        if self.config.auth.secrets.iter().any(is_short) {
            let message = format!("a secret of fewer than {SECRET_USUAL} characters can be guessed");
            found.push(self.at("auth.secrets", message).hint(make));
        }
        for key in self.config.http.keys.iter().filter(|key| is_short(&key.secret)) {
            let message =
                format!("the secret of {:?} has fewer than {SECRET_USUAL} characters and can be guessed", key.id);
            found.push(self.at("http.keys", message).hint(make));
        }
        found
    }

    fn only_if(&self, found: bool, key: &str, message: impl Into<String>) -> Findings {
        if found { vec![self.at(key, message)] } else { Vec::new() }
    }

    fn at(&self, key: &str, message: impl Into<String>) -> Mistake {
        match self.origins.get(key) {
            Some(origin) => Mistake::new(origin.source.clone(), key, message).given(&origin.given),
            None => Mistake::new(Source::Default, key, message),
        }
    }

    fn intact(&self, keys: &[&str]) -> bool {
        keys.iter().all(|key| !self.broken.contains(key))
    }
}

const LIFETIME_MIN: Duration = seconds(30); // a lost refresh is sent again for up to 39.5 s (RFC 8489 §6.2.1), most sooner
const LIFETIME_USUAL: Duration = minutes(10); // RFC 8656 §3.2
const NONCE_USUAL: Duration = minutes(60); // RFC 8656 §5
const CHANNELS_MAX: u32 = 0x1000; // 0x4000 to 0x4FFF, RFC 8656 §12
const SECRET_USUAL: usize = 16; // 96 bits in base64

/// Whether both cannot be bound at once.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let same_host =
        a.ip() == b.ip() || (a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified()));
    a.port() == b.port() && a.port() != 0 && same_host
}

/// Whether `address`, which somebody connects to, may be answered by a socket of ours on `own`.
fn collide_here(address: SocketAddr, own: SocketAddr) -> bool {
    let is_here = own.ip() == address.ip() || (own.ip().is_unspecified() && address.ip().is_loopback());
    own.port() == address.port() && own.port() != 0 && is_here
}
