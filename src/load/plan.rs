//! What is to be done to a server: how many clients, which packets, how fast and for how long.
//!
//! Owns the rules that a plan must keep, and how its clients are dealt to threads. Never resolves a name and never opens
//! anything.
#![forbid(unsafe_code)]

use super::Failure;
use super::stamp::Stamp;
use crate::net::trust::Trust;
use crate::time::Duration;
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::ops::Range;
use serde::Serialize;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A load, wholly described.
#[derive(Clone)]
pub struct Plan {
    /// Where the server listens.
    pub server: SocketAddr,
    /// How clients reach it.
    pub transport: Transport,
    /// The user name of every client.
    pub username: String,
    /// Its password.
    pub password: Zeroizing<String>,
    /// What the clients do.
    pub kind: Kind,
    /// How many there are.
    pub clients: usize,
    /// How many threads play them.
    pub threads: usize,
    /// Bytes of payload in a packet.
    pub size: usize,
    /// Packets a second and client; `None` is as fast as the server takes them.
    pub rate: Option<u32>,
    /// Packets or requests of one client under way at once where no rate is set; `None` is a fair share of
    /// 128.
    pub window: Option<usize>,
    /// How long the load lasts.
    pub lasts: Duration,
    /// After how many packets or requests it ends, if that is sooner.
    pub packets: Option<u64>,
    /// Which way packets go.
    pub direction: Direction,
    /// How they are framed between client and server.
    pub mode: Mode,
    /// Who is on the other side.
    pub peer: Peer,
    /// How many sockets the other side has, for each thread.
    pub peers: usize,
    /// Whether packets of one client that leave together leave as a train (UDP_SEGMENT), and may arrive as one (UDP_GRO).
    pub trains: bool,
    /// The server's process, where its CPU and memory are to be told.
    pub server_pid: Option<u32>,
}

/// How clients reach the server.
#[derive(Clone, Debug)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A connection.
    Tcp,
    /// A connection under TLS, and whom it believes.
    Tls(Arc<Trust>),
}

impl Transport {
    /// Its name in a report.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls(_) => "tls",
        }
    }

    /// Whether what is sent arrives, or the connection ends.
    pub const fn is_reliable(&self) -> bool {
        !matches!(self, Self::Udp)
    }
}

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Allocate, and have data relayed.
    Relay,
    /// Ask for their address, again and again.
    Binding,
    /// Allocate as fast as the server lets them.
    Allocate,
    /// Allocate, then refresh again and again.
    Refresh,
}

impl Kind {
    /// Whether it wants allocations.
    pub const fn allocates(self) -> bool {
        !matches!(self, Self::Binding)
    }
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From clients to peers.
    Up,
    /// From peers to clients.
    Down,
    /// From clients to peers and back.
    Echo,
}

/// How packets are framed between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// ChannelData.
    Channel,
    /// Send and Data indications.
    Send,
}

/// Who is on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Sockets of our own, on the address that the server is reached from.
    Auto,
    /// Sockets of our own on this address.
    At(IpAddr),
    /// Another client of the same server: packets go from relay address to relay address.
    SameServer,
}

/// Packets under way in all on one thread: few enough for the usual buffer of a UDP socket (212992 bytes), enough to keep
/// a server busy.
pub(super) const UNDER_WAY: usize = 128;
/// The most of one client.
pub(super) const WINDOW_MAX: usize = 64;
/// The largest payload: one UDP datagram with the largest head.
pub(super) const SIZE_MAX: usize = 65_507 - 64;
/// Clients of one thread: what a stamp can number.
pub(super) const CLIENTS_MAX: usize = 1 << 24;

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, transport, kind, clients, .. } = self;
        let mut shown = f.debug_struct("Plan");
        shown.field("server", server).field("transport", transport).field("kind", kind).field("clients", clients);
        shown.finish_non_exhaustive()
    }
}

impl Plan {
    /// A plan with nothing out of the ordinary: 100 clients that send 160 bytes up for 10 seconds.
    pub fn new(server: SocketAddr, username: &str, password: &str) -> Self {
        Self {
            server,
            transport: Transport::Udp,
            username: username.into(),
            password: Zeroizing::new(password.into()),
            kind: Kind::Relay,
            clients: 100,
            threads: 1,
            size: 160,
            rate: None,
            window: None,
            lasts: Duration::from_secs(10),
            packets: None,
            direction: Direction::Up,
            mode: Mode::Channel,
            peer: Peer::Auto,
            peers: 1,
            trains: false,
            server_pid: None,
        }
    }

    /// Says what is wrong with it.
    pub fn check(&self) -> Result<(), Failure> {
        let wrong = |what: String| Err(Failure::Wrong(what));
        if self.clients == 0 || self.threads == 0 || self.peers == 0 {
            return wrong("--clients, --threads and --peers: at least 1 is needed".into());
        }
        let unit = if self.peer == Peer::SameServer { 2 } else { 1 };
        if self.kind == Kind::Relay && !self.clients.is_multiple_of(unit) {
            return wrong("--peer same-server: clients come in pairs, so --clients must be even".into());
        }
        if self.clients / unit < self.threads {
            return wrong(format!("--threads {}: there is not a client for each", self.threads));
        }
        if self.clients / self.threads >= CLIENTS_MAX {
            return wrong(format!("--clients: a thread takes fewer than {CLIENTS_MAX}; add --threads"));
        }
        if self.size < Stamp::LEN || self.size > SIZE_MAX {
            return wrong(format!("--size: from {} bytes, which a stamp takes, to {SIZE_MAX}", Stamp::LEN));
        }
        if self.rate == Some(0) || self.packets == Some(0) || self.lasts.is_zero() {
            return wrong("--rate, --packets and --seconds: at least 1 is needed".into());
        }
        if self.window.is_some_and(|window| !(1..=WINDOW_MAX).contains(&window)) {
            return wrong(format!("--window: from 1 to {WINDOW_MAX}"));
        }
        if self.rate.is_some() && self.window.is_some() {
            return wrong("--window is for a load without --rate: a paced one waits for nobody".into());
        }
        if self.rate.is_some() && self.kind != Kind::Relay {
            return wrong("--rate is for --kind relay: the other kinds go as fast as the server answers".into());
        }
        Ok(())
    }

    /// The clients of a thread. Pairs stay together.
    pub fn share(&self, thread: usize) -> Range<usize> {
        let unit = if self.kind == Kind::Relay && self.peer == Peer::SameServer { 2 } else { 1 };
        let units = self.clients / unit;
        let border = |thread: usize| units * thread / self.threads * unit;
        border(thread)..border(thread + 1)
    }

    /// Packets that a thread may send.
    pub(super) fn quota(&self, thread: usize) -> u64 {
        let threads = self.threads as u64;
        self.packets.map_or(u64::MAX, |packets| packets / threads + u64::from((thread as u64) < packets % threads))
    }

    /// Packets under way of one client, and of all on one thread, where no rate is set.
    pub(super) fn windows(&self, clients: usize) -> (usize, usize) {
        match self.window {
            Some(window) => (window, (window * clients).min(usize::from(u16::MAX) - 1)),
            None => ((UNDER_WAY / clients.max(1)).clamp(1, WINDOW_MAX), UNDER_WAY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::new("127.0.0.1:3478".parse().unwrap(), "u", "p")
    }

    #[test]
    fn every_client_and_every_packet_has_one_thread() {
        for (clients, threads, peer) in [(100, 1, Peer::Auto), (101, 3, Peer::Auto), (10, 4, Peer::SameServer)] {
            let plan = Plan { clients, threads, peer, packets: Some(103), ..plan() };
            plan.check().unwrap();
            let shares: Vec<_> = (0..threads).map(|thread| plan.share(thread)).collect();
            assert_eq!((shares[0].start, shares[threads - 1].end), (0, clients));
            assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(peer != Peer::SameServer || shares.iter().all(|share| share.len() % 2 == 0));
            assert_eq!((0..threads).map(|thread| plan.quota(thread)).sum::<u64>(), 103);
        }
    }

    #[test]
    fn a_window_is_a_fair_share_and_never_none() {
        assert_eq!(plan().windows(1), (64, 128));
        assert_eq!(plan().windows(100), (1, 128));
        assert_eq!(plan().windows(10_000), (1, 128));
        assert_eq!(Plan { window: Some(4), ..plan() }.windows(100), (4, 400));
    }

    #[test]
    fn what_cannot_be_done_is_said_before_anything_is_opened() {
        for (plan, word) in [
            (Plan { clients: 0, ..plan() }, "--clients"),
            (Plan { size: 15, ..plan() }, "--size: from 16 bytes"),
            (Plan { size: 70_000, ..plan() }, "--size"),
            (Plan { clients: 3, peer: Peer::SameServer, ..plan() }, "even"),
            (Plan { threads: 101, ..plan() }, "--threads 101"),
            (Plan { rate: Some(50), window: Some(2), ..plan() }, "--window"),
            (Plan { rate: Some(50), kind: Kind::Binding, ..plan() }, "--rate"),
            (Plan { window: Some(65), ..plan() }, "--window"),
        ] {
            let told = plan.check().unwrap_err().to_string();
            assert!(told.contains(word), "{told}");
        }
    }
}
