//! May this address be relayed to? One function, [`Peers::vet`], asked on every path.
//!
//! Rules are prefixes and the most specific one wins; at equal length a rule the operator wrote beats the built-in set
//! "special-purpose", and `deny` beats `allow`. Three things no rule can open: forms that hide another address
//! (IPv4-mapped and -translated, NAT64, 6to4, Teredo), unspecified and multicast addresses, and this server's own
//! listener and HTTP ports. Own relay ports lead to live allocations only, whatever the rules say.
//! Never resolves a name, never asks the system: the addresses of the host come in as values.
#![forbid(unsafe_code)]

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::RangeInclusive;
use core::str::FromStr;

/// An address prefix, `10.0.0.0/8`. Bits beyond the length are always zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why a text is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixError {
    /// Not an IP address. Names are not looked up: an answer may change behind our back.
    Address,
    /// The length is no number, or longer than the address.
    Length,
    /// Bits beyond the length are set; the prefix that was probably meant.
    HostBits(Prefix),
}

impl Prefix {
    /// The prefix of this length; `None` when it is longer than the address or has bits beyond the length.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let prefix = Self::truncated(address, length)?;
        (prefix.address == address).then_some(prefix)
    }

    /// Whether `ip` lies inside. Addresses of the other family never do.
    pub fn contains(&self, ip: IpAddr) -> bool {
        Self::truncated(ip, self.length).is_some_and(|prefix| prefix == *self)
    }

    /// How many bits the prefix fixes.
    pub const fn length(&self) -> u8 {
        self.length
    }

    fn truncated(address: IpAddr, length: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(ip) => {
                let host_bits = 32u32.checked_sub(length.into())?;
                let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(ip) & mask))
            }
            IpAddr::V6(ip) => {
                let host_bits = 128u32.checked_sub(length.into())?;
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(ip) & mask))
            }
        };
        Some(Self { address, length })
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// Reads `10.0.0.0/8`, or a bare address as a prefix of full length.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let Some((address, length)) = text.split_once('/') else {
            return text.parse::<IpAddr>().map(Self::from).map_err(|_| PrefixError::Address);
        };
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Address)?;
        let length = length.parse().map_err(|_| PrefixError::Length)?;
        let prefix = Self::truncated(address, length).ok_or(PrefixError::Length)?;
        if prefix.address == address { Ok(prefix) } else { Err(PrefixError::HostBits(prefix)) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What kind of place an address that may be relayed to is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Another host, or this one because `allow` opens it.
    Elsewhere,
    /// A port of this server's own relay range, reachable while an allocation lives there.
    OwnRelay {
        /// The local address that the port is bound to.
        local: SocketAddr,
        /// Whether `allow` opens the address, so that another program on a port without an allocation is a peer too.
        opened: bool,
    },
}

/// A local address that relay sockets bind, and what clients are told it is (1:1 NAT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// Where the sockets are.
    pub local: IpAddr,
    /// What clients and peers see.
    pub external: IpAddr,
}

/// What belongs to this server itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Addresses of the host's interfaces.
    pub interfaces: Vec<IpAddr>,
    /// Where relay sockets are bound.
    pub relays: Vec<RelayAddress>,
    /// The ports relay sockets are taken from.
    pub relay_ports: RangeInclusive<u16>,
    /// Listener and HTTP sockets, and the web server that shares a port with us, on whatever host. An unspecified
    /// address means every address of this one.
    pub services: Vec<SocketAddr>,
}

impl Default for Own {
    fn default() -> Self {
        Self { interfaces: Vec::new(), relays: Vec::new(), relay_ports: 49152..=65535, services: Vec::new() }
    }
}

/// The rules in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// Longest prefix first; of equal prefixes the one that wins stands first.
    rules: Vec<Rule>,
    own: Own,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    prefix: Prefix,
    verdict: RuleVerdict,
}

/// In the order of precedence at equal length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RuleVerdict {
    Deny,
    Allow,
    SpecialPurpose,
    /// Global unicast: what the special-purpose set leaves open.
    Global,
}

impl Peers {
    /// The rules of the configuration: `special_purpose` adds the built-in set to `deny`.
    pub fn new(allow: &[Prefix], deny: &[Prefix], special_purpose: bool, own: Own) -> Self {
        let rule = |verdict| move |prefix: &Prefix| Rule { prefix: *prefix, verdict };
        let mut rules: Vec<Rule> = Vec::new();
        rules.extend(allow.iter().map(rule(RuleVerdict::Allow)));
        rules.extend(deny.iter().map(rule(RuleVerdict::Deny)));
        if special_purpose {
            rules.extend(SPECIAL_PURPOSE.iter().map(builtin(RuleVerdict::SpecialPurpose)));
            rules.extend(GLOBAL.iter().map(builtin(RuleVerdict::Global)));
        }
        rules.sort_by_key(|rule| (core::cmp::Reverse(rule.prefix.length), rule.verdict));
        Self { rules, own }
    }

    /// The host has other addresses.
    pub fn set_interfaces(&mut self, interfaces: Vec<IpAddr>) {
        self.own.interfaces = interfaces;
    }

    /// The ports relay sockets are taken from.
    pub fn relay_ports(&self) -> RangeInclusive<u16> {
        self.own.relay_ports.clone()
    }

    /// Whether data may go to `peer`, and what kind of place it is. `None` is a refusal.
    pub fn vet(&self, peer: SocketAddr) -> Option<Destination> {
        if is_never(peer.ip()) || peer.port() == 0 {
            return None;
        }
        if let Some(local) = self.own_relay(peer) {
            let opened = self.is_opened(peer.ip()) && !self.is_service(peer);
            return Some(Destination::OwnRelay { local, opened });
        }
        if self.is_own(peer.ip()) && (!self.is_opened(peer.ip()) || self.is_service(peer)) {
            return None;
        }
        (self.permits(peer.ip()) && !self.own.services.contains(&peer)).then_some(Destination::Elsewhere)
    }

    /// Whether a permission for `ip` may be made: some port of it may be relayed to.
    pub fn vet_address(&self, ip: IpAddr) -> bool {
        if is_never(ip) {
            return false;
        }
        if self.own.relays.iter().any(|relay| relay.local == ip || relay.external == ip) {
            return true;
        }
        self.permits(ip) && (!self.is_own(ip) || self.is_opened(ip))
    }

    /// The address that peers and clients know a socket on this host by: a relay address becomes its external form.
    /// `None` for a source that nobody outside can truly have: one of our own external addresses.
    pub fn seen_as(&self, from: SocketAddr) -> Option<SocketAddr> {
        for relay in &self.own.relays {
            if relay.local == from.ip() && self.own.relay_ports.contains(&from.port()) {
                return Some(SocketAddr::new(relay.external, from.port()));
            }
            if relay.external == from.ip() && self.own.relay_ports.contains(&from.port()) {
                return None;
            }
        }
        Some(from)
    }

    /// Whether `from` is one of our own listener or HTTP sockets: such a source is never accepted as a client.
    pub fn is_own_service(&self, from: SocketAddr) -> bool {
        self.own.services.iter().any(|service| service.port() == from.port())
            && self.is_own(from.ip())
            && self.is_service(from)
    }

    /// The local form of a relay address of ours, external or local; `None` for any other address.
    pub fn own_relay(&self, peer: SocketAddr) -> Option<SocketAddr> {
        if !self.own.relay_ports.contains(&peer.port()) {
            return None;
        }
        let own = |relay: &&RelayAddress| relay.external == peer.ip() || relay.local == peer.ip();
        self.own.relays.iter().find(own).map(|relay| SocketAddr::new(relay.local, peer.port()))
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        ip.is_loopback()
            || self.own.interfaces.contains(&ip)
            || self.own.relays.iter().any(|relay| relay.local == ip || relay.external == ip)
            || self.own.services.iter().any(|service| service.ip() == ip)
    }

    fn is_service(&self, peer: SocketAddr) -> bool {
        let external = self.own.relays.iter().any(|relay| relay.external == peer.ip() && relay.local != peer.ip());
        self.own.services.iter().any(|service| {
            // Behind 1:1 NAT every listener may answer on the external address.
            let same_host = service.ip() == peer.ip() || service.ip().is_unspecified() || external;
            service.port() == peer.port() && same_host
        })
    }

    /// Whether the operator opened this address by name.
    fn is_opened(&self, ip: IpAddr) -> bool {
        self.rule(ip).is_some_and(|verdict| verdict == RuleVerdict::Allow)
    }

    fn permits(&self, ip: IpAddr) -> bool {
        !matches!(self.rule(ip), Some(RuleVerdict::Deny | RuleVerdict::SpecialPurpose))
    }

    fn rule(&self, ip: IpAddr) -> Option<RuleVerdict> {
        self.rules.iter().find(|rule| rule.prefix.contains(ip)).map(|rule| rule.verdict)
    }
}

/// Forms that no rule opens: they hide another address, or name no single host.
fn is_never(ip: IpAddr) -> bool {
    if ip == IpAddr::V6(Ipv6Addr::LOCALHOST) {
        return false;
    }
    ip.is_unspecified()
        || ip.is_multicast()
        || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
        || NEVER.iter().map(builtin(RuleVerdict::Deny)).any(|rule| rule.prefix.contains(ip))
}

type Builtin = (IpAddr, u8);

fn builtin(verdict: RuleVerdict) -> impl Fn(&Builtin) -> Rule {
    move |&(address, length)| Rule { prefix: Prefix { address, length }, verdict }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Builtin {
    (IpAddr::V4(Ipv4Addr::new(a, b, c, d)), length)
}

const fn v6(head: [u16; 4], length: u8) -> Builtin {
    let [a, b, c, d] = head;
    (IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)), length)
}

/// IPv6 forms that carry an IPv4 address.
const NEVER: &[Builtin] = &[
    v6([0, 0, 0, 0], 96), // IPv4-compatible; ::1 alone is the host's own
    (IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)), 96), // IPv4-mapped (CVE-2026-27624)
    (IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0)), 96), // IPv4-translated (SIIT)
    v6([0x64, 0xff9b, 0, 0], 96), // NAT64, RFC 6052
    v6([0x64, 0xff9b, 1, 0], 48), // NAT64 local use, RFC 8215
    v6([0x2001, 0, 0, 0], 32), // Teredo
    v6([0x2002, 0, 0, 0], 16), // 6to4
];

/// IPv6 space in use as global unicast; the rest of ::/0 is special.
const GLOBAL: &[Builtin] = &[v6([0x2000, 0, 0, 0], 3)];

/// The set "special-purpose": every range that is not global unicast (IANA special-purpose registries), and the
/// platform addresses of clouds that look public.
const SPECIAL_PURPOSE: &[Builtin] = &[
    v4(0, 0, 0, 0, 8),                 // this network; 0.0.0.0 reaches loopback on Linux (CVE-2020-26262)
    v4(10, 0, 0, 0, 8),                // private, RFC 1918
    v4(100, 64, 0, 0, 10),             // shared (carrier NAT), RFC 6598; Alibaba's metadata service
    v4(127, 0, 0, 0, 8),               // loopback
    v4(169, 254, 0, 0, 16),            // link-local; the metadata services of most clouds
    v4(172, 16, 0, 0, 12),             // private, RFC 1918
    v4(192, 0, 0, 0, 24),              // protocol assignments; Oracle's metadata service
    v4(192, 0, 2, 0, 24),              // documentation
    v4(192, 31, 196, 0, 24),           // AS112
    v4(192, 52, 193, 0, 24),           // AMT
    v4(192, 88, 99, 0, 24),            // 6to4 relay anycast
    v4(192, 168, 0, 0, 16),            // private, RFC 1918
    v4(192, 175, 48, 0, 24),           // AS112
    v4(198, 18, 0, 0, 15),             // benchmarking
    v4(198, 51, 100, 0, 24),           // documentation
    v4(203, 0, 113, 0, 24),            // documentation
    v4(224, 0, 0, 0, 4),               // multicast
    v4(240, 0, 0, 0, 4),               // reserved, broadcast
    v4(168, 63, 129, 16, 32),          // Azure's platform endpoint
    v6([0, 0, 0, 0], 0),               // whatever is outside 2000::/3
    v6([0, 0, 0, 0], 96),              // IPv4-compatible, unspecified, loopback
    v6([0x100, 0, 0, 0], 64),          // discard only
    v6([0x100, 0, 0, 1], 64),          // dummy prefix, RFC 9780
    v6([0x2001, 0, 0, 0], 23),         // protocol assignments: Teredo, ORCHID, DRIP, benchmarking
    v6([0x2001, 0xdb8, 0, 0], 32),     // documentation
    v6([0x2002, 0, 0, 0], 16),         // 6to4
    v6([0x2620, 0x4f, 0x8000, 0], 48), // AS112
    v6([0x3fff, 0, 0, 0], 20),         // documentation, RFC 9637
    v6([0x3ffe, 0, 0, 0], 16),         // 6bone, returned
    v6([0x5f00, 0, 0, 0], 16),         // segment routing, RFC 9602
    v6([0xfc00, 0, 0, 0], 7),          // unique local; metadata of AWS, Google, Oracle
    v6([0xfe80, 0, 0, 0], 10),         // link-local
    v6([0xfec0, 0, 0, 0], 10),         // site-local
    v6([0xff00, 0, 0, 0], 8),          // multicast
];
