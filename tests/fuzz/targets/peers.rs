//! The peer filter against a model that knows prefixes as numbers and nothing of its order of rules.

use super::script::Script;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use turnserver::turn::peers::{Destination, Own, Peers, Prefix, RelayAddress};

/// The built-in set as the tests of the server have it.
static SPECIAL_PURPOSE: LazyLock<Vec<Range>> = LazyLock::new(|| {
    let file = include_str!("../../turn/deny-ranges.json");
    let ranges = file.lines().filter_map(|line| line.trim().strip_prefix("\"net\": \"")?.split('"').next());
    ranges.map(Range::of).collect()
});

/// Rules of the operator, of each kind.
const RULES: usize = 4;

/// What no rule opens: forms that hide another address or name no single host.
static NEVER: LazyLock<Vec<Range>> = LazyLock::new(|| NEVER_OPEN.map(Range::of).into());
const NEVER_OPEN: [&str; 11] = [
    "0.0.0.0/32",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/96",
    "::ffff:0:0/96",
    "::ffff:0:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "2001::/32",
    "2002::/16",
    "ff00::/8",
];

pub(crate) fn run(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes)
        && let Ok(prefix) = text.parse::<Prefix>()
    {
        assert_eq!(prefix.to_string().parse(), Ok(prefix));
    }
    let mut script = Script::new(bytes);
    let special_purpose = script.yes();
    let allow: Vec<Prefix> = (0..script.byte() % RULES as u8).filter_map(|_| prefix(&mut script)).collect();
    let deny: Vec<Prefix> = (0..script.byte() % RULES as u8).filter_map(|_| prefix(&mut script)).collect();
    let relays: Vec<RelayAddress> = (0..script.byte() % 3).map(|_| relay(&mut script)).collect();
    let (low, high) = (script.u16(), script.u16());
    let own = Own {
        interfaces: (0..script.byte() % 3).map(|_| script.ip()).collect(),
        relays,
        relay_ports: low..=high,
        services: (0..script.byte() % 3).map(|_| script.address()).collect(),
    };
    let model = Model { allow, deny, special_purpose, own };
    let peers = Peers::new(&model.allow, &model.deny, special_purpose, model.own.clone());
    let named = model.addresses();
    loop {
        let peer = match script.byte() {
            own @ 0..128 if !named.is_empty() => {
                let (ip, port) = named[usize::from(own) % named.len()];
                SocketAddr::new(ip, if script.yes() { port } else { script.u16() })
            }
            _ => script.address(),
        };
        let vetted = peers.vet(peer);
        assert_eq!(vetted, model.vet(peer), "{peer} by {model:?}");
        assert!(vetted.is_none() || peers.vet_address(peer.ip()), "a port of an address that has none");
        assert_eq!(peers.is_own_service(peer), model.is_own(peer.ip()) && model.is_service(peer));
        if let Some(seen) = peers.seen_as(peer) {
            assert_eq!(seen.port(), peer.port());
            assert!(seen == peer || peers.own_relay(peer).is_some());
        }
        if script.is_over() {
            return;
        }
    }
}

/// Around a range of the built-in set, or anywhere.
fn prefix(script: &mut Script<'_>) -> Option<Prefix> {
    let ip = script.ip();
    let length = script.byte() % if ip.is_ipv4() { 33 } else { 129 };
    let (bits, width) = bits(ip);
    let host = u32::from(width - length);
    let kept = bits.checked_shr(host).unwrap_or(0).checked_shl(host).unwrap_or(0);
    Prefix::new(if ip.is_ipv4() { IpAddr::V4((kept as u32).into()) } else { IpAddr::V6(kept.into()) }, length)
}

fn relay(script: &mut Script<'_>) -> RelayAddress {
    let local = script.ip();
    RelayAddress { local, external: if script.yes() { local } else { script.ip() } }
}

/// An address as a number, and how many bits it has.
fn bits(ip: IpAddr) -> (u128, u8) {
    match ip {
        IpAddr::V4(ip) => (u32::from(ip).into(), 32),
        IpAddr::V6(ip) => (ip.into(), 128),
    }
}

/// A prefix as a number.
struct Range {
    bits: u128,
    width: u8,
    length: u8,
}

impl Range {
    fn of(text: &str) -> Self {
        let (address, length) = text.split_once('/').expect("a range has a length");
        let (bits, width) = bits(address.parse().expect("a range has an address"));
        Self { bits, width, length: length.parse().expect("a length is a number") }
    }

    fn holds(&self, ip: IpAddr) -> bool {
        let (bits, width) = bits(ip);
        let host = u32::from(self.width - self.length);
        width == self.width && (host == 128 || bits >> host == self.bits >> host)
    }
}

#[derive(Debug)]
struct Model {
    allow: Vec<Prefix>,
    deny: Vec<Prefix>,
    special_purpose: bool,
    own: Own,
}

/// In the order of precedence at equal length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    Open,
    Special,
    Allow,
    Deny,
}

impl Model {
    /// Addresses that the configuration speaks of, with a port of theirs.
    fn addresses(&self) -> Vec<(IpAddr, u16)> {
        let port = *self.own.relay_ports.start();
        let relays = self.own.relays.iter().flat_map(|relay| [(relay.local, port), (relay.external, port)]);
        let services = self.own.services.iter().map(|service| (service.ip(), service.port()));
        let interfaces = self
            .own
            .interfaces
            .iter()
            .flat_map(|ip| self.own.services.first().map(|service| (*ip, service.port())).or(Some((*ip, port))));
        relays.chain(services).chain(interfaces).collect()
    }

    /// The longest rule about an address, by its length and rank.
    fn rule(&self, ip: IpAddr) -> (u8, Rule) {
        let of = |rule, list: &[Prefix]| {
            let ranges = list.iter().map(|prefix| Range::of(&prefix.to_string()));
            ranges.filter(|range| range.holds(ip)).map(|range| (range.length, rule)).max()
        };
        let built_in = self.special_purpose.then(|| self.built_in(ip)).flatten();
        [of(Rule::Allow, &self.allow), of(Rule::Deny, &self.deny), built_in]
            .into_iter()
            .flatten()
            .max()
            .unwrap_or((0, Rule::Open))
    }

    fn built_in(&self, ip: IpAddr) -> Option<(u8, Rule)> {
        let special = SPECIAL_PURPOSE.iter().filter(|range| range.holds(ip)).map(|range| (range.length, Rule::Special));
        let global = matches!(ip, IpAddr::V6(ip) if ip.octets()[0] >> 5 == 1).then_some((3, Rule::Open));
        let outside = ip.is_ipv6().then_some((0, Rule::Special));
        special.chain(global).chain(outside).max()
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        let own = &self.own;
        let relays = own.relays.iter().flat_map(|relay| [relay.local, relay.external]);
        let mut all =
            own.interfaces.iter().copied().chain(relays).chain(own.services.iter().map(|service| service.ip()));
        ip.is_loopback() || all.any(|seen| seen == ip)
    }

    fn is_service(&self, peer: SocketAddr) -> bool {
        let is_mapped =
            self.own.relays.iter().any(|relay| relay.external == peer.ip() && relay.local != relay.external);
        self.own
            .services
            .iter()
            .filter(|service| service.port() == peer.port())
            .any(|service| is_mapped || service.ip() == peer.ip() || service.ip().is_unspecified())
    }

    fn vet(&self, peer: SocketAddr) -> Option<Destination> {
        let ip = peer.ip();
        let is_never = NEVER.iter().any(|range| range.holds(ip)) && ip != IpAddr::V6(1.into());
        if is_never || peer.port() == 0 {
            return None;
        }
        let (_, rule) = self.rule(ip);
        let mut relays = self.own.relays.iter().filter(|relay| [relay.local, relay.external].contains(&ip));
        if self.own.relay_ports.contains(&peer.port())
            && let Some(relay) = relays.next()
        {
            let local = SocketAddr::new(relay.local, peer.port());
            return Some(Destination::OwnRelay { local, opened: rule == Rule::Allow && !self.is_service(peer) });
        }
        let is_open = match self.is_own(ip) {
            true => rule == Rule::Allow && !self.is_service(peer),
            false => matches!(rule, Rule::Allow | Rule::Open),
        };
        (is_open && !self.own.services.contains(&peer)).then_some(Destination::Elsewhere)
    }
}
