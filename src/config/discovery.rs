//! NAT discovery (RFC 5780): which four sockets it takes, and which of them nobody wrote.
//!
//! Two addresses of one family and two ports on each. The second port is the operator's where one is listed for both
//! addresses, else the one above the first. Never picks a wildcard: clients must be told where to send.
#![forbid(unsafe_code)]

use super::keys::{Config, Listen};
use super::mistake::{Mistake, Source};
use crate::turn::policy::Discovery;
use crate::turn::tally::Transport;
use core::net::SocketAddr;

impl Config {
    /// Every listener of clients, with what is spoken there: those written, and those that NAT discovery adds.
    pub fn listeners(&self) -> Vec<(Transport, SocketAddr)> {
        let added = self.discovery_listeners().into_iter().map(|address| (Transport::Udp, address));
        self.listen.all().into_iter().chain(added).collect()
    }

    /// The UDP listeners that nobody wrote and that NAT discovery needs.
    pub fn discovery_listeners(&self) -> Vec<SocketAddr> {
        let all = self.discovery_sockets().into_iter().flatten().flatten();
        all.filter(|socket| !self.listen.udp.addresses.contains(socket)).collect()
    }

    /// The four sockets of NAT discovery, for each family that has two addresses with a common port.
    pub(super) fn discovery_sockets(&self) -> Vec<[[SocketAddr; 2]; 2]> {
        if !self.auth.nat_discovery {
            return Vec::new();
        }
        [true, false].into_iter().filter_map(|is_v4| self.listen.discovery(is_v4)).collect()
    }

    /// The same with what clients are told they are. Two addresses with one name would not be two.
    pub(super) fn discoveries(&self) -> Result<Vec<Discovery>, Vec<Mistake>> {
        let told = |socket: SocketAddr| SocketAddr::new(self.external_of(socket.ip()), socket.port());
        let discovery =
            |sockets: [[SocketAddr; 2]; 2]| Discovery { sockets, told: sockets.map(|ports| ports.map(told)) };
        let all: Vec<Discovery> = self.discovery_sockets().into_iter().map(discovery).collect();
        let is_one = |of: &&Discovery| of.told[0][0] == of.told[1][0];
        let merged = |of: &Discovery| {
            let [[one, _], [other, _]] = of.sockets.map(|ports| ports.map(|socket| socket.ip()));
            let message = format!("clients would be told {} for both {one} and {other}", of.told[0][0].ip());
            let hint = format!("write \"{one}=…\" and \"{other}=…\", and both into relay.addresses");
            Mistake::new(Source::Default, "relay.external", message).hint(hint)
        };
        let mistakes: Vec<Mistake> = all.iter().filter(is_one).map(merged).collect();
        if mistakes.is_empty() { Ok(all) } else { Err(mistakes) }
    }
}

impl Listen {
    /// Two addresses of this family, two ports on each: the first two specific addresses with a port in common, and the
    /// second such port, or the one above the first.
    fn discovery(&self, is_v4: bool) -> Option<[[SocketAddr; 2]; 2]> {
        let is_usable = |at: &&SocketAddr| at.is_ipv4() == is_v4 && !at.ip().is_unspecified() && at.port() != 0;
        let usable: Vec<SocketAddr> = self.udp.addresses.iter().filter(is_usable).copied().collect();
        let pair = |first: &SocketAddr| {
            let other = usable.iter().find(|other| other.ip() != first.ip() && other.port() == first.port())?;
            Some((first.ip(), other.ip(), first.port()))
        };
        let (one, other, port) = usable.iter().find_map(pair)?;
        let is_common = |port: &u16| [one, other].iter().all(|ip| usable.contains(&SocketAddr::new(*ip, *port)));
        let second = usable.iter().map(SocketAddr::port).find(|next| *next != port && is_common(next));
        let second = second.or_else(|| port.checked_add(1))?;
        Some([one, other].map(|ip| [port, second].map(|port| SocketAddr::new(ip, port))))
    }
}
