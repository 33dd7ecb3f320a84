//! `turn:` and `turns:` URIs (RFC 7065).
//!
//! Owns what they may say and the default ports. Never resolves a name.
#![forbid(unsafe_code)]

use core::net::{IpAddr, Ipv6Addr};
use core::str::FromStr;

/// Where a server is and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    /// A name, or an address without brackets.
    pub host: String,
    /// The port, or the default one.
    pub port: u16,
    /// By what.
    pub way: Way,
}

/// How a URI says a server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `turn:` over UDP.
    Udp,
    /// `turn:` over TCP.
    Tcp,
    /// `turns:` over TCP.
    Tls,
}

const PORT: u16 = 3478; // RFC 8656 §3.1
const PORT_TLS: u16 = 5349;

impl FromStr for Uri {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXAMPLE: &str = "such as turn:turn.example.org:3478?transport=udp";
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(format!("no URI of a TURN server, {EXAMPLE}"));
        };
        let is_secure = match scheme.to_ascii_lowercase().as_str() {
            "turn" => false,
            "turns" => true,
            "stun" | "stuns" => return Err(format!("a stun URI names no relay; write turn:{rest}")),
            _ => return Err(format!("{scheme}: is no scheme of a TURN server, {EXAMPLE}")),
        };
        if rest.starts_with("//") || rest.contains('@') {
            return Err("the URI holds no // and no user: the credential has options of its own".into());
        }
        let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
        let transport = match query.map(|query| query.split_once('=').unwrap_or((query, ""))) {
            None => None,
            Some(("transport", transport)) => Some(transport.to_ascii_lowercase()),
            Some((name, _)) => return Err(format!("?{name}: only ?transport= may follow the port")),
        };
        const DTLS: &str = "a load over DTLS is not in this version; use turns: with ?transport=tcp, or turn:";
        let way = match (is_secure, transport.as_deref()) {
            (false, None | Some("udp")) => Way::Udp,
            (false, Some("tcp")) => Way::Tcp,
            (true, None | Some("tcp")) => Way::Tls,
            (true, Some("udp")) | (_, Some("dtls")) => return Err(DTLS.into()),
            (false, Some("tls")) => return Err("TLS has a scheme of its own: write turns: with ?transport=tcp".into()),
            (_, Some(other)) => return Err(format!("?transport={other}: it is udp or tcp")),
        };
        let (host, port) = split(place)?;
        let default = if is_secure { PORT_TLS } else { PORT };
        let port = match port {
            None => default,
            Some(port) => match port.parse() {
                Ok(port @ 1..) => port,
                _ => return Err(format!("{port:?} is no port")),
            },
        };
        Ok(Self { host: host.into(), port, way })
    }
}

fn split(place: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = place.strip_prefix('[') {
        let Some((ip, rest)) = rest.split_once(']') else { return Err("an IPv6 address ends with ]".into()) };
        if ip.parse::<Ipv6Addr>().is_err() {
            return Err(format!("[{ip}] is no IPv6 address"));
        }
        return match rest.strip_prefix(':') {
            Some(port) => Ok((ip, Some(port))),
            None if rest.is_empty() => Ok((ip, None)),
            None => Err(format!("{rest:?} stands where a port should")),
        };
    }
    if place.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
        return Err(format!("an IPv6 address stands in brackets: [{place}]"));
    }
    let (host, port) = place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port)));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || !byte.is_ascii();
    if host.is_empty() || !host.bytes().all(is_name) {
        return Err(format!("{host:?} is no host"));
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_one_is_read() {
        for (text, host, port, way) in [
            ("turn:example.org", "example.org", 3478, Way::Udp),
            ("TURN:example.org:1?transport=UDP", "example.org", 1, Way::Udp),
            ("turn:192.0.2.1:3479?transport=tcp", "192.0.2.1", 3479, Way::Tcp),
            ("turns:example.org", "example.org", 5349, Way::Tls),
            ("turns:[2001:db8::1]?transport=tcp", "2001:db8::1", 5349, Way::Tls),
            ("turn:[::1]:443", "::1", 443, Way::Udp),
        ] {
            assert_eq!(text.parse(), Ok(Uri { host: host.into(), port, way }), "{text}");
        }
    }

    #[test]
    fn what_is_none_says_why() {
        for (text, word) in [
            ("example.org", "such as"),
            ("http:example.org", "scheme"),
            ("stun:example.org", "turn:example.org"),
            ("turn://example.org", "no //"),
            ("turn:u:p@example.org", "no user"),
            ("turns:example.org?transport=udp", "DTLS"),
            ("turn:example.org?transport=dtls", "DTLS"),
            ("turn:example.org?transport=tls", "turns:"),
            ("turn:example.org?transport=sctp", "sctp"),
            ("turn:example.org?ttl=1", "?ttl"),
            ("turn:::1", "brackets"),
            ("turn:[::1", "]"),
            ("turn:[::1]3478", "port"),
            ("turn:example.org:0", "no port"),
            ("turn::3478", "no host"),
        ] {
            let told = text.parse::<Uri>().unwrap_err();
            assert!(told.contains(word), "{text}: {told}");
        }
    }
}
