//! Why a load did not happen, and what to mend.
//!
//! A refusal carries the server's own error code. What helps against it is said for this server and for coturn, whose
//! options stand in parentheses.
#![forbid(unsafe_code)]

use super::plan::{Direction, Kind, Plan};
use crate::wire::codes::{ErrorCode, Method};
use core::fmt;
use core::net::{IpAddr, SocketAddr};

/// Why there is no report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The plan is to be mended.
    Wrong(String),
    /// The server said no.
    Refused(Refusal),
    /// Something else went wrong on the way.
    Failed(String),
}

/// A no of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// To which request.
    pub method: Method,
    /// With which code.
    pub code: ErrorCode,
    /// The peer that it was about.
    pub peer: Option<SocketAddr>,
    /// How many clients had got as far before.
    pub before: usize,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(what) | Self::Failed(what) => f.write_str(what),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, code: ErrorCode(code), peer, before } = *self;
        write!(f, "the server refuses {} with {code}", spoken(method))?;
        if before > 0 {
            write!(f, " after {before} clients")?;
        }
        f.write_str(": ")?;
        match (code, peer) {
            (300, _) => f.write_str("it sends new clients to another server: it is draining, or it is the wrong one"),
            (401, _) => f.write_str(
                "the credential is not good there: compare --secret with auth.secrets (coturn: static-auth-secret with \
                 use-auth-secret), --username and --password with auth.users (coturn: user), and both clocks",
            ),
            (403, Some(peer)) => Permit(peer.ip()).fmt(f),
            (403, None) => f.write_str("it is forbidden to this user or from this address"),
            (437, _) => f.write_str("an allocation of before still has the port: try again in a moment"),
            (440, _) => f.write_str(
                "it has no relay address of that family: --peer with an address of the other, or relay.addresses there \
                 (coturn: relay-ip)",
            ),
            (442, _) => f.write_str("it relays no UDP to this user"),
            (443, _) => f.write_str("the peer's address is of another family than the relay address: change --peer"),
            (486, _) => f.write_str(
                "a quota is reached: fewer --clients, or more in limits.allocations_per_user and limits.allocations \
                 (coturn: user-quota, total-quota)",
            ),
            (508, _) => f.write_str(
                "it has no more relay ports: fewer --clients, or a wider relay.ports (coturn: min-port, max-port); \
                 ports just released rest for a while",
            ),
            _ => f.write_str("look into its log"),
        }
    }
}

/// How an operator lets packets for this address pass.
struct Permit(IpAddr);

impl fmt::Display for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.0;
        let length = if peer.is_ipv4() { 32 } else { 128 };
        write!(
            f,
            "it does not relay to {peer}. While you measure, permit it there: peers.allow = [\"{peer}/{length}\"]"
        )?;
        if peer.is_loopback() {
            f.write_str(" (coturn: --allow-loopback-peers)")?;
        } else {
            write!(f, " (coturn: --allowed-peer-ip={peer})")?;
        }
        f.write_str("; or name another address of this host with --peer, or --peer same-server")
    }
}

impl Failure {
    /// A load of which nothing came back. Some servers refuse a peer without a word: they drop what is for it.
    pub(super) fn nothing_arrived(plan: &Plan, sent: u64, peer: Option<IpAddr>) -> Self {
        let (server, transport) = (plan.server, plan.transport.name());
        Self::Failed(match (plan.kind, plan.direction, peer) {
            (Kind::Relay, Direction::Up | Direction::Echo, Some(peer)) => {
                format!("not one of {sent} packets arrived; if {server} drops them, {}", Permit(peer))
            }
            (Kind::Relay, ..) => format!(
                "not one of {sent} packets arrived: do firewalls let them reach the relay addresses of {server}, and is the \
                 address that it tells its clients the right one (relay.external; coturn: external-ip)?"
            ),
            (Kind::Binding | Kind::Allocate | Kind::Refresh, ..) => format!(
                "not one of {sent} requests was answered over {transport}: does a server run on {server}, and do firewalls let \
                 it through?"
            ),
        })
    }

    /// A load after which no allocation could be released: to whoever only listens, a server that has ended is a silent one.
    pub(super) fn nobody_released(plan: &Plan, unreleased: usize) -> Self {
        let server = plan.server;
        Self::Failed(format!(
            "not one of {unreleased} allocations could be released: {server} has ended, or no longer answers us, and what \
             was measured is worth nothing"
        ))
    }
}

/// A method as the RFCs write it.
pub(super) fn spoken(method: Method) -> &'static str {
    match method {
        Method::BINDING => "Binding",
        Method::ALLOCATE => "Allocate",
        Method::REFRESH => "Refresh",
        Method::CREATE_PERMISSION => "CreatePermission",
        Method::CHANNEL_BIND => "ChannelBind",
        _ => "a request",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(code: u16, peer: Option<&str>) -> String {
        let peer = peer.map(|peer| peer.parse().unwrap());
        Failure::Refused(Refusal { method: Method::CHANNEL_BIND, code: ErrorCode(code), peer, before: 0 }).to_string()
    }

    #[test]
    fn a_refusal_names_its_code_and_what_to_mend() {
        for (code, peer, words) in [
            (401, None, ["401", "auth.secrets"]),
            (403, Some("127.0.0.1:9"), ["peers.allow = [\"127.0.0.1/32\"]", "--allow-loopback-peers"]),
            (403, Some("[2001:db8::1]:9"), ["[\"2001:db8::1/128\"]", "--allowed-peer-ip=2001:db8::1)"]),
            (486, None, ["486", "limits.allocations_per_user"]),
            (508, None, ["508", "relay.ports"]),
        ] {
            let told = told(code, peer);
            assert!(told.starts_with("the server refuses ChannelBind with "), "{told}");
            assert!(words.iter().all(|word| told.contains(word)), "{told}");
        }
    }
}
