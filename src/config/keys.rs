//! Every key once: its name, type, default and reason.
//!
//! The table below makes the structs, the reader and the example file, so none of them can forget a key.
//! No default lives outside this file. What may stand behind a key is in `values`.
#![forbid(unsafe_code)]

use super::fallback::WebServer;
use super::load::{Reader, Value};
use super::oauth::{OAuthKeys, ServerName};
use super::redirect::Redirects;
use super::units::{Rate, Rhythm};
use super::values::{
    ApiKey, Deny, External, HttpListeners, Level, Listeners, LogFormat, Password, Paths, Ports, PublicName, Realm,
    RelayFrom, Separator, TlsVersion, Uri,
};
use crate::time::Duration;
use crate::turn::credential::Secret;
use crate::turn::peers::Prefix;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::num::NonZero;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A section of the file, as the example shows it. The first has no name: its keys stand at the top.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// The name in brackets.
    pub name: &'static str,
    /// What it is about, line by line, each with its leading space.
    pub about: &'static [&'static str],
    /// Its keys.
    pub keys: &'static [Key],
}

/// A key of the file, as the example shows it.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The name within its section.
    pub name: &'static str,
    /// The dotted path.
    pub path: &'static str,
    /// The default, as TOML.
    pub default: &'static str,
    /// What it does and why one would change it.
    pub why: &'static [&'static str],
}

macro_rules! keys {
    (
        { $( $(#[doc = $root_why:literal])+ $root:ident: $root_type:ty = $root_default:literal, )+ }
        $(
            $(#[doc = $about:literal])+
            $section:ident: $name:ident {
                $( $(#[doc = $why:literal])+ $key:ident: $type:ty = $default:literal, )+
            }
        )+
    ) => {
        /// The settings in force. [`load`](fn@super::load) makes it from file, environment and defaults.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $( $(#[doc = $root_why])+ pub $root: $root_type, )+
            $( $(#[doc = $about])+ pub $section: $name, )+
        }

        $(
            $(#[doc = $about])+
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $name {
                $( $(#[doc = $why])+ pub $key: $type, )+
            }
        )+

        /// All keys, in the order of the example.
        pub const SECTIONS: &[Section] = &[
            Section { name: "", about: &[], keys: &[$( Key {
                name: stringify!($root),
                path: stringify!($root),
                default: $root_default,
                why: &[$($root_why),+],
            } ),+] },
            $( Section { name: stringify!($section), about: &[$($about),+], keys: &[$( Key {
                name: stringify!($key),
                path: concat!(stringify!($section), ".", stringify!($key)),
                default: $default,
                why: &[$($why),+],
            } ),+] } ),+
        ];

        impl Config {
            /// Reads every key; one that cannot be read counts as its default, and the reader keeps the mistake.
            pub(super) fn read(from: &mut Reader<'_>) -> Self {
                Self {
                    $( $root: from.key(stringify!($root), $root_default), )+
                    $( $section: $name {
                        $( $key: from.key(concat!(stringify!($section), ".", stringify!($key)), $default), )+
                    }, )+
                }
            }

            /// Every key's dotted path and value, in the order of the example; what is secret shows as `"…"`.
            pub fn effective(&self) -> Vec<(&'static str, toml::Value)> {
                vec![
                    $( (stringify!($root), self.$root.show()), )+
                    $( $( (concat!(stringify!($section), ".", stringify!($key)), self.$section.$key.show()), )+ )+
                ]
            }
        }
    };
}

/// What `listen.tls` and `listen.dtls` are when there are certificates and nobody wrote it.
pub(super) const LISTEN_TLS: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), TLS_PORT),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), TLS_PORT),
];
const TLS_PORT: u16 = 5349; // RFC 8656 §23

keys! {
    {
        /// The realm that clients log in to, under 128 characters; "" is the name of this host.
        realm: Option<Realm> = r#""""#,
    }

    /// Where clients reach the server: lists of "ip:port"; an empty list turns the transport off.
    listen: Listen {
        /// STUN and TURN over UDP, the way nearly every client comes.
        udp: Listeners = r#"["0.0.0.0:3478", "[::]:3478"]"#,
        /// STUN and TURN over TCP, for networks that block UDP.
        tcp: Listeners = r#"["0.0.0.0:3478", "[::]:3478"]"#,
        /// The same under TLS; left out, it is port 5349 of every address as soon as tls.cert is set.
        tls: Listeners = "[]",
        /// STUN and TURN over DTLS (RFC 7350), on UDP ports; left out, it is the same ports once tls.cert is ECDSA.
        dtls: Listeners = "[]",
        /// Whether each listener tells by the first bytes whether TLS, or DTLS, or plain TURN is spoken.
        detect: bool = "false",
        /// Whether load balancers tell the client's address first (PROXY protocol 1 or 2), over TCP and TLS.
        proxy_protocol: bool = "false",
        /// The load balancers: prefixes such as "10.0.0.0/24". Each connection from there must begin with that header.
        proxy_trusted: Vec<Prefix> = "[]",
        /// A web server for the browsers that come to a TLS port: "ip:port", "unix:/path", or "https://ip:port" and
        /// "http://ip:port" to say what it speaks; "" is none.
        https_fallback: Option<WebServer> = r#""""#,
        /// Whether it is told the client's address first (PROXY protocol 2).
        https_fallback_proxy: bool = "false",
        /// Whether addresses may be bound that no interface has yet: listeners, relay addresses and HTTP.
        freebind: bool = "false",
    }

    /// The certificates of TLS listeners. The files are watched: a renewal is taken over without dropping anyone.
    tls: Tls {
        /// A PEM file with the certificate and those that vouch for it, or a list of files; "" is none.
        cert: Paths = r#""""#,
        /// A PEM file with its private key, or a list of files in the order of the certificates; "" is none.
        key: Paths = r#""""#,
        /// The oldest version of TLS that clients may speak: "1.2" or "1.3".
        min_version: TlsVersion = r#""1.2""#,
    }

    /// Where relayed traffic leaves and arrives.
    relay: Relay {
        /// Local addresses that relay sockets bind; "auto" is the default route's, IPv4 and IPv6.
        addresses: Vec<RelayFrom> = r#"["auto"]"#,
        /// What clients are told behind 1:1 NAT: "203.0.113.5", or "10.0.0.5=203.0.113.5" for one of several.
        external: Vec<External> = "[]",
        /// Ports that allocations get, on UDP and, for TCP relays, on TCP; open them in the firewall.
        ports: Ports = r#""49152-65535""#,
        /// Whether clients may ask for TCP relays (RFC 6062).
        tcp: bool = "true",
    }

    /// Who may use the server. Without secrets and users, one secret is made and kept in the state directory.
    auth: Auth {
        /// TURN REST shared secrets, newest first: all verify, the first mints.
        secrets: Vec<Secret> = "[]",
        /// A file with one more secret a line, newest first; "" is none.
        secret_file: Option<PathBuf> = r#""""#,
        /// Users with fixed passwords: { alice = "password" }, or "hmac:" and the hex of MD5(user:realm:password), or
        /// "sha256:" and that of SHA-256(user:realm:password), which most clients cannot use.
        users: BTreeMap<String, Password> = "{}",
        /// Time-limited credentials live at most this long, whether minted here or elsewhere.
        max_ttl: Duration = r#""24h""#,
        /// What stands between expiry and user in time-limited names; the first one splits.
        username_separator: Separator = r#"":""#,
        /// Whether an allocation ends when its time-limited credential does; false: at the next refresh after that.
        strict_expiry: bool = "false",
        /// Whether STUN binding requests need no credential; WebRTC clients send none.
        anonymous_stun: bool = "true",
        /// How long a nonce may be used before clients must take a new one.
        nonce_lifetime: Duration = r#""1h""#,
        /// Whether clients may find out how their NAT behaves (RFC 5780); takes two addresses in listen.udp.
        nat_discovery: bool = "false",
        /// Whether an allocation may move with its client to another address (RFC 8016).
        mobility: bool = "false",
        /// Keys shared with authorisation servers (RFC 7635): { kid = "…", key = "base64…", algorithm = "A256GCM" }, or a
        /// list of such; A256GCM takes 32 bytes, A128GCM 16.
        oauth: OAuthKeys = "[]",
        /// The name those servers know this one by; "" is the realm.
        oauth_server_name: Option<ServerName> = r#""""#,
    }

    /// Who may be relayed to; the most specific prefix wins.
    peers: PeerRules {
        /// Prefixes to open, such as "10.20.0.0/16"; never opens this server's own listener and HTTP ports.
        allow: Vec<Prefix> = "[]",
        /// Prefixes to close; "special-purpose" is every range that is not global (private, loopback, metadata, …).
        deny: Deny = r#"["special-purpose"]"#,
    }

    /// How much of everything. Zero and "" mean no limit, where a line says so.
    limits: Limits {
        /// Allocations on the whole server; 0 is no limit.
        allocations: u32 = "0",
        /// Allocations of one user; 0 is no limit.
        allocations_per_user: u32 = "0",
        /// Through one allocation, each way, such as "4 Mbit/s"; "" is no limit.
        bandwidth_per_allocation: Option<Rate> = r#""""#,
        /// Through the whole server, both ways together; "" is no limit.
        bandwidth: Option<Rate> = r#""""#,
        /// TCP and TLS connections and DTLS associations from one IPv4 address or IPv6 /64.
        connections_per_ip: NonZero<u32> = "256",
        /// Replies to requests without valid credentials, to one IPv4 address or IPv6 /64: no use as an amplifier.
        unauthenticated_per_ip: Rhythm = r#""100/s""#,
        /// Lifetime of an allocation whose client asks for none (RFC 8656: 10 minutes).
        allocation_lifetime: Duration = r#""10m""#,
        /// The longest lifetime a client can get before it must refresh.
        max_allocation_lifetime: Duration = r#""1h""#,
        /// Peers that one allocation may admit at a time.
        permissions_per_allocation: NonZero<u32> = "256",
        /// Channels that one allocation may bind at a time, at most 4096.
        channels_per_allocation: NonZero<u32> = "256",
        /// Where clients are sent while the server drains: "ip:port" of others, and at most one name, which stands in their
        /// certificates.
        redirect: Redirects = "[]",
    }

    /// Minting API, metrics, health and the test page.
    http: Http {
        /// Where it listens, "ip:port" or "unix:/path"; an empty list turns it off. Put TLS in front before it leaves
        /// this host.
        listen: HttpListeners = r#"["127.0.0.1:3480"]"#,
        /// Whether /metrics needs no key from anywhere; false: from loopback only.
        metrics_public: bool = "false",
        /// What minted answers list; [] is every listener, by the name below or its external address.
        uris: Vec<Uri> = "[]",
        /// The host name put into those URIs; "" is the address.
        name: Option<PublicName> = r#""""#,
        /// API keys: [{ id = "signaling", secret = "…", scopes = ["mint"] }]; scopes are mint, read and admin.
        keys: Vec<ApiKey> = "[]",
    }

    /// The threads that relay.
    data_plane: DataPlane {
        /// How many; 0 is one per core.
        workers: u32 = "0",
    }

    /// What is told on standard error.
    log: Log {
        /// error, warn, info, debug or trace.
        level: Level = r#""info""#,
        /// auto, human, json or logfmt; auto is human on a terminal and json elsewhere.
        format: LogFormat = r#""auto""#,
    }
}
