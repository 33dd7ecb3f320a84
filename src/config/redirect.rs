//! Where clients are sent while the server drains (RFC 8489 §10).
//!
//! Addresses must be those of other servers. Never looks a name up.
#![forbid(unsafe_code)]

use super::keys::Config;
use super::load::{Given, Reading, Value, Word};
use super::mistake::{Mistake, Source};
use super::policy::Host;
use super::units::Fault;
use crate::turn::policy;
use core::net::{IpAddr, SocketAddr};

/// Where clients are sent while the server drains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirects {
    /// Other servers, without duplicates.
    pub servers: Vec<SocketAddr>,
    /// The name in the certificate of those servers; never alone.
    pub domain: Option<String>,
}

impl Value for Redirects {
    const LIST: bool = true;

    fn read(given: &Given<'_>) -> Reading<Self> {
        let mut read = Self::default();
        let mut mistakes = Vec::new();
        for item in given.items()? {
            match item.text().and_then(|text| Ok(redirect(text).map_err(|fault| item.fault(fault))?)) {
                Err(wrong) => mistakes.extend(wrong),
                Ok(Redirect::Server(server)) if read.servers.contains(&server) => {
                    mistakes.push(item.wrong("listed twice"));
                }
                Ok(Redirect::Server(server)) => read.servers.push(server),
                Ok(Redirect::Domain(_)) if read.domain.is_some() => {
                    mistakes.push(item.wrong("the second name: there is one for all addresses"));
                }
                Ok(Redirect::Domain(name)) => read.domain = Some(name),
            }
        }
        if mistakes.is_empty() && read.servers.is_empty() && read.domain.is_some() {
            let alone = given.wrong("a name alone leads nowhere: clients are told an address (RFC 8489 §14.15)");
            mistakes.push(alone.hint("add the \"ip:port\" of the other server"));
        }
        if mistakes.is_empty() { Ok(read) } else { Err(mistakes) }
    }

    fn show(&self) -> toml::Value {
        self.servers.iter().map(SocketAddr::to_string).chain(self.domain.clone()).collect::<Vec<_>>().into()
    }
}

/// What one entry of `limits.redirect` is.
enum Redirect {
    Server(SocketAddr),
    Domain(String),
}

fn redirect(text: &str) -> Result<Redirect, Fault> {
    let is_name = text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
        && text.bytes().any(|b| b.is_ascii_alphabetic());
    if is_name && text.len() <= DOMAIN_MAX {
        return Ok(Redirect::Domain(text.into()));
    }
    let server = SocketAddr::parse(text).map_err(|fault| match fault.hint {
        Some(_) => fault,
        None => fault.hint("a name stands alone, without a port, beside the addresses it belongs to"),
    })?;
    let ip = server.ip().to_canonical();
    if ip != server.ip() {
        return Err(Fault::new("an IPv4 address is written as one").meant(SocketAddr::new(ip, server.port())));
    }
    if ip.is_unspecified() || ip.is_multicast() || server.port() == 0 {
        return Err(Fault::new("nobody can reach that address"));
    }
    Ok(Redirect::Server(server))
}

const DOMAIN_MAX: usize = 255; // RFC 8489 §14.16

impl Config {
    /// Other servers. One of our own addresses among them would send clients in a circle.
    pub(super) fn redirect(&self, host: &Host) -> Result<policy::Redirect, Vec<Mistake>> {
        let redirect = &self.limits.redirect;
        let own = |server: &&SocketAddr| {
            self.listen.all().iter().any(|(_, listener)| {
                let ip = listener.ip();
                let is_here = |local: &IpAddr| server.ip() == *local || server.ip() == self.external_of(*local);
                let is_wild = ip.is_unspecified() && ip.is_ipv4() == server.is_ipv4();
                let reaches =
                    is_here(&ip) || (is_wild && (server.ip().is_loopback() || host.interfaces.iter().any(is_here)));
                listener.port() == server.port() && reaches
            })
        };
        let circle = |server: &SocketAddr| {
            Mistake::new(Source::Default, "limits.redirect", "that is this server itself")
                .given(format!("\"{server}\""))
                .hint("name other servers, or nobody")
        };
        let mistakes: Vec<Mistake> = redirect.servers.iter().filter(own).map(circle).collect();
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(policy::Redirect { servers: redirect.servers.clone(), domain: redirect.domain.clone() })
    }
}
