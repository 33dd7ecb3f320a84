//! The sockets of a worker: listeners, relay sockets, and what waits to be sent on them.
#![forbid(unsafe_code)]

use super::conns::ConnId;
use super::ledger::{Claim, Purpose};
use super::peers::PeerId;
use crate::net::poll::{Interest, Poll};
use crate::net::tcp;
use crate::net::tls::Certificates;
use crate::net::udp::{self, Abilities, BATCH, Batch, Modes, Outgoing};
use crate::time::{Duration, Instant};
use crate::turn::refusal::Dropped;
use crate::turn::tally::Transport;
use crate::turn::{Link, Protocol, RelayId};
use crate::wire::Packet;
use crate::wire::stun::Family;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Why the workers did not start.
#[derive(Debug)]
pub enum StartError {
    /// A listener could not be opened.
    Listen {
        /// For which transport.
        transport: Transport,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something else: a thread, epoll, chance.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { transport, address, source } => {
                let key = transport.label();
                write!(f, "listen.{key} = \"{address}\": {source}")?;
                let name = if transport.is_stream() { "TCP" } else { "UDP" };
                let (port, ip) = (address.port(), address.ip());
                match source.raw_os_error() {
                    Some(libc::EADDRINUSE) => write!(
                        f,
                        "; another program has this {name} port: end it (ss -lnp 'sport = {port}' names it) or choose \
                         another port"
                    ),
                    Some(libc::EADDRNOTAVAIL) => {
                        write!(
                            f,
                            "; no interface of this host has {ip}: use 0.0.0.0 or [::] for all, or set listen.freebind = true if \
                             the address comes later"
                        )
                    }
                    Some(libc::EACCES) => write!(f, "; ports below 1024 need CAP_NET_BIND_SERVICE"),
                    _ => Ok(()),
                }
            }
            Self::System(error) => write!(f, "the workers cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// What an epoll event means, packed into its 64 bits: a kind, a generation of 24 bits, an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Mailbox,
    Udp(u32),
    Tcp(u32),
    Relay(RelayId, Family),
    Conn(ConnId),
    /// A connection with a peer.
    Peer(PeerId),
}

const GENERATION: u32 = 0x00FF_FFFF;

impl From<Token> for u64 {
    fn from(token: Token) -> Self {
        let (kind, generation, index) = match token {
            Token::Mailbox => (0, 0, 0),
            Token::Udp(index) => (1, 0, index),
            Token::Tcp(index) => (2, 0, index),
            Token::Relay(RelayId { index, generation }, Family::V4) => (3, generation, index),
            Token::Relay(RelayId { index, generation }, Family::V6) => (5, generation, index),
            Token::Peer(PeerId { index, generation }) => (6, generation, index),
            Token::Conn(ConnId { index, generation }) => (4, generation, index),
        };
        kind << 56 | Self::from(generation & GENERATION) << 32 | Self::from(index)
    }
}

impl From<u64> for Token {
    fn from(bits: u64) -> Self {
        let index = bits as u32;
        let generation = (bits >> 32) as u32 & GENERATION;
        match bits >> 56 {
            1 => Self::Udp(index),
            2 => Self::Tcp(index),
            3 => Self::Relay(RelayId { index, generation }, Family::V4),
            5 => Self::Relay(RelayId { index, generation }, Family::V6),
            6 => Self::Peer(PeerId { index, generation }),
            4 => Self::Conn(ConnId { index, generation }),
            _ => Self::Mailbox,
        }
    }
}

/// How the core finds its way back to a client: which worker has the listener or the connection, and where there.
pub(super) const fn link(worker: u8, index: u32) -> Link {
    Link((worker as u32) << 24 | index & GENERATION)
}

/// The worker and the place of a link.
pub(super) const fn link_parts(link: Link) -> (u8, u32) {
    ((link.0 >> 24) as u8, link.0 & GENERATION)
}

/// The time a listener without descriptors waits before it looks again.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// One worker's listeners.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) udp: Vec<UdpListener>,
    pub(super) tcp: Vec<TcpListener>,
    /// Whether relay sockets may bind addresses that no interface has yet, as these could.
    pub(super) freebind: bool,
    pub(super) abilities: Abilities,
}

/// A socket that datagrams of clients come to, bare or under DTLS.
#[derive(Debug)]
pub(super) struct UdpListener {
    /// What the configuration says is spoken there.
    pub(super) transport: Transport,
    pub(super) socket: OwnedFd,
    pub(super) address: SocketAddr,
    /// Bound to every address: answers must say which of them they leave from.
    pub(super) is_wildcard: bool,
    modes: Modes,
    /// Datagrams, or trains of them, asked for at once.
    pub(super) depth: usize,
    /// Datagrams it has had no room for, as far as they are counted.
    pub(super) overflowed: u32,
}

/// A socket that connections of clients come to, bare or under TLS.
#[derive(Debug)]
pub(super) struct TcpListener {
    /// What the configuration says is spoken there.
    pub(super) transport: Transport,
    pub(super) socket: std::net::TcpListener,
    pub(super) address: SocketAddr,
    /// What handshakes are made with, where TLS may be spoken.
    pub(super) certificates: Option<Arc<Certificates>>,
    /// Out of descriptors: not looked at before this moment.
    pub(super) paused_until: Option<Instant>,
}

impl Share {
    pub(super) fn addresses(&self) -> Vec<(Transport, SocketAddr)> {
        let udp = self.udp.iter().map(|listener| (listener.transport, listener.address));
        let tcp = self.tcp.iter().map(|listener| (listener.transport, listener.address));
        udp.chain(tcp).collect()
    }
}

/// Opens every listener once for each worker.
pub(super) fn open(
    listeners: &[(Transport, SocketAddr)],
    certificates: Option<&Arc<Certificates>>,
    workers: usize,
    freebind: bool,
    detect: bool,
    abilities: Abilities,
) -> Result<Vec<Share>, StartError> {
    let share = || Share { udp: Vec::new(), tcp: Vec::new(), freebind, abilities };
    let mut shares: Vec<Share> = (0..workers).map(|_| share()).collect();
    for &(transport, address) in listeners {
        let error = |source| StartError::Listen { transport, address, source };
        let probed = if transport.is_stream() { tcp::probe(address, freebind) } else { udp::probe(address, freebind) };
        if is_without_ipv6(probed, address).map_err(error)? {
            continue;
        }
        let certificates = certificates.filter(|_| transport == Transport::Tls || detect);
        if transport == Transport::Tls && certificates.is_none() {
            return Err(error(io::Error::other("there is no certificate")));
        }
        let mut address = address;
        for share in &mut shares {
            // Port 0 becomes a real one with the first worker's socket, and the others join it there.
            if transport.is_stream() {
                let socket = tcp::listen(address, freebind).map_err(error)?;
                address = socket.local_addr().map_err(error)?;
                let certificates = certificates.cloned();
                share.tcp.push(TcpListener { transport, socket, address, certificates, paused_until: None });
            } else {
                let socket = udp::listen(address, freebind).map_err(error)?;
                address = udp::local_address(socket.as_fd()).map_err(error)?;
                let is_wildcard = address.ip().is_unspecified();
                if abilities.receives_trains {
                    udp::receive_trains(socket.as_fd()).map_err(error)?;
                }
                share.udp.push(UdpListener {
                    transport,
                    socket,
                    address,
                    is_wildcard,
                    modes: Modes::default(),
                    depth: BATCH,
                    overflowed: 0,
                });
            }
        }
    }
    Ok(shares)
}

/// `[::]` on a host without IPv6 is no mistake: IPv4 alone is what there is.
fn is_without_ipv6(probed: io::Result<()>, address: SocketAddr) -> io::Result<bool> {
    match probed {
        Ok(()) => Ok(false),
        Err(error) if address.ip().is_unspecified() && address.is_ipv6() => match error.raw_os_error() {
            Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) => {
                tracing::warn!(listener = %address, "this host has no IPv6: the listener is left out");
                Ok(true)
            }
            _ => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// What one look at a socket brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Haul {
    /// Counted by the worker.
    pub(super) wakeup: u32,
    /// Datagrams and trains.
    pub(super) filled: usize,
    /// Datagrams, those of trains counted each.
    pub(super) datagrams: usize,
    /// The socket's own count of those it had no room for.
    pub(super) overflowed: u32,
}

impl UdpListener {
    /// Learns from what a turn brought: trains must not make one so long that the others wait. Returns how many datagrams
    /// the socket has lost since the last one.
    pub(super) fn note(&mut self, haul: &Haul) -> u32 {
        let is_long = haul.datagrams > MAX_TURN;
        self.depth = if is_long { (self.depth / 2).max(1) } else { (self.depth * 2).min(BATCH) };
        news(&mut self.overflowed, haul.overflowed)
    }
}

impl TcpListener {
    /// Takes the next connection. Without descriptors the listener rests a moment, so that the worker does not spin.
    pub(super) fn accept(&mut self, poll: &Poll, now: Instant) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        match tcp::accept(&self.socket) {
            Ok(accepted) => Ok(Some(accepted)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => {
                Ok(None)
            }
            Err(error) => {
                let _ = poll.remove(self.socket.as_fd());
                self.paused_until = Some(now + ACCEPT_PAUSE);
                Err(error)
            }
        }
    }

    /// Looks again at a listener that rested long enough.
    pub(super) fn resume(&mut self, poll: &Poll, at: u32, now: Instant) {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
            if poll.add(self.socket.as_fd(), Token::Tcp(at).into(), Interest::Read).is_err() {
                self.paused_until = Some(now + ACCEPT_PAUSE);
            }
        }
    }
}

/// Datagrams, or trains of them, of one relay socket in one turn: a flood there must not keep the others waiting.
const MAX_DEPTH: u8 = 16;
/// Datagrams of one socket after which it takes fewer trains in its next haul.
const MAX_TURN: usize = 256;

/// The relay sockets of a worker, by the index of their allocation and by family.
#[derive(Debug, Default)]
pub(super) struct Relays {
    slots: Vec<Option<Relay>>,
}

#[derive(Debug)]
struct Relay {
    generation: u32,
    legs: [Option<Leg>; 2],
}

#[derive(Debug)]
struct Leg {
    /// Closed before the claim gives the port back: fields are dropped in this order.
    socket: RelaySocket,
    claim: Claim,
}

/// What an allocation relays by.
#[derive(Debug)]
pub(super) enum RelaySocket {
    Datagrams {
        socket: OwnedFd,
        /// Datagrams asked for at once: doubled while they all come in one wake-up after the other, one again when not, and
        /// half when trains made a turn too long. A second look that finds nothing would cost as much as a packet.
        depth: u8,
        /// The wake-up in which it was last ready.
        ready: u32,
        modes: Modes,
        /// Datagrams it has had no room for, as far as they are counted.
        overflowed: u32,
    },
    /// For the connections of peers (RFC 6062).
    Connections(std::net::TcpListener),
}

impl RelaySocket {
    /// Makes one on this address.
    pub(super) fn open(
        protocol: Protocol,
        address: SocketAddr,
        purpose: Purpose,
        freebind: bool,
        abilities: Abilities,
    ) -> io::Result<Self> {
        Ok(match protocol {
            Protocol::Udp => {
                let socket = match purpose {
                    Purpose::Relay => udp::relay(address, freebind)?,
                    Purpose::Hold => udp::hold(address, freebind)?,
                    Purpose::TakeOver => udp::relay_on_held(address, freebind)?,
                };
                if abilities.receives_trains {
                    udp::receive_trains(socket.as_fd())?;
                }
                Self::Datagrams { socket, depth: 1, ready: 0, modes: Modes::default(), overflowed: 0 }
            }
            Protocol::Tcp => {
                // Connections leave from the same port as well, so it is shared; but never with a listener.
                tcp::probe(address, freebind)?;
                Self::Connections(tcp::listen(address, freebind)?)
            }
        })
    }
}

impl AsFd for RelaySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Datagrams { socket, .. } => socket.as_fd(),
            Self::Connections(listener) => listener.as_fd(),
        }
    }
}

impl Relays {
    pub(super) fn insert(&mut self, id: RelayId, family: Family, socket: RelaySocket, claim: Claim) {
        let index = id.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        let relay = self.slots[index].take().filter(|relay| relay.generation == id.generation);
        let mut relay = relay.unwrap_or(Relay { generation: id.generation, legs: [None, None] });
        relay.legs[family as usize] = Some(Leg { socket, claim });
        self.slots[index] = Some(relay);
    }

    /// Closes the relay sockets of an allocation and gives their ports back.
    pub(super) fn remove(&mut self, id: RelayId) {
        if self.get(id).is_some() {
            self.slots[id.index as usize] = None;
        }
    }

    /// Closes the relay socket of one family. What is left counts in the books as the allocation.
    pub(super) fn remove_leg(&mut self, id: RelayId, family: Family) {
        let Some(relay) = self.get_mut(id) else { return };
        let gone = relay.legs[family as usize].take();
        if let (Some(mut gone), Some(left)) = (gone, relay.legs[family.other() as usize].as_mut()) {
            gone.claim.hand_account_to(&mut left.claim);
        }
    }

    pub(super) fn socket(&self, id: RelayId, family: Family) -> Option<&RelaySocket> {
        self.get(id)?.legs[family as usize].as_ref().map(|leg| &leg.socket)
    }

    /// The relay address of this family as clients and peers know it.
    pub(super) fn told(&self, id: RelayId, family: Family) -> Option<SocketAddr> {
        self.get(id)?.legs[family as usize].as_ref()?.claim.told()
    }

    pub(super) fn depth(&self, id: RelayId, family: Family) -> usize {
        match self.socket(id, family) {
            Some(RelaySocket::Datagrams { depth, .. }) => (*depth).into(),
            Some(RelaySocket::Connections(_)) | None => 1,
        }
    }

    /// Learns from what a turn brought. Returns how many datagrams the socket has lost since the last one.
    pub(super) fn note(&mut self, id: RelayId, family: Family, haul: &Haul) -> u32 {
        let leg = self.get_mut(id).and_then(|relay| relay.legs[family as usize].as_mut());
        let Some(Leg { socket: RelaySocket::Datagrams { depth, ready, overflowed, .. }, .. }) = leg else { return 0 };
        let was_ready = core::mem::replace(ready, haul.wakeup) == haul.wakeup.wrapping_sub(1);
        *depth = match haul.filled >= usize::from(*depth) {
            _ if haul.datagrams > MAX_TURN => (*depth / 2).max(1),
            true if was_ready => (*depth * 2).min(MAX_DEPTH),
            true => *depth,
            false => 1,
        };
        news(overflowed, haul.overflowed)
    }

    fn get(&self, id: RelayId) -> Option<&Relay> {
        self.slots.get(id.index as usize)?.as_ref().filter(|relay| relay.generation == id.generation)
    }

    fn get_mut(&mut self, id: RelayId) -> Option<&mut Relay> {
        self.slots.get_mut(id.index as usize)?.as_mut().filter(|relay| relay.generation == id.generation)
    }
}

/// How many more a socket has lost than were known; it tells nothing while it has lost none.
pub(super) fn news(known: &mut u32, told: u32) -> u32 {
    if told == 0 {
        return 0;
    }
    let before = core::mem::replace(known, told);
    told.wrapping_sub(before)
}

/// Datagrams that wait for the end of the wake-up, in the order they came.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: Vec<Waiting>,
    /// By socket, then by place in the queue: see [`key`].
    order: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    by: By,
    slot: u32,
    to: SocketAddr,
    source: Option<IpAddr>,
}

/// Which socket a datagram leaves by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Listener(u32),
    /// The one of the destination's family: IPv6 or not.
    Relay(RelayId, bool),
}

/// Bits of a place in the queue, which is no longer than there are slots.
const PLACE_BITS: u32 = 24;
const PLACE: u64 = (1 << PLACE_BITS) - 1;

/// A number that sorts by socket and keeps the order of each: allocations of one slot of the table never wait together,
/// for what one has to send leaves before it ends.
fn key(by: By, place: usize) -> u64 {
    let socket = match by {
        By::Listener(at) => u64::from(at) << 1,
        By::Relay(id, is_ipv6) => 1 << 33 | u64::from(id.index) << 1 | u64::from(is_ipv6),
    };
    socket << PLACE_BITS | place as u64
}

impl Outbox {
    pub(super) fn push_to_client(&mut self, listener: u32, slot: usize, to: SocketAddr, source: Option<IpAddr>) {
        self.push(Waiting { by: By::Listener(listener), slot: slot as u32, to, source });
    }

    pub(super) fn push_to_peer(&mut self, relay: RelayId, slot: usize, to: SocketAddr) {
        self.push(Waiting { by: By::Relay(relay, to.is_ipv6()), slot: slot as u32, to, source: None });
    }

    fn push(&mut self, waiting: Waiting) {
        self.order.push(key(waiting.by, self.queue.len()));
        self.queue.push(waiting);
    }

    /// Sends everything, one call a socket; the order within a socket is kept. `dropped` hears of each that could not go.
    pub(super) fn send(
        &mut self,
        batch: &mut Batch,
        slots: &[Packet],
        listeners: &[UdpListener],
        relays: &Relays,
        mut dropped: impl FnMut(Dropped),
    ) {
        self.order.sort_unstable();
        let waiting = |key: &u64| self.queue.get((key & PLACE) as usize);
        for run in self.order.chunk_by(|a, b| a >> PLACE_BITS == b >> PLACE_BITS) {
            let socket = match run.first().and_then(waiting).map(|waiting| waiting.by) {
                Some(By::Listener(at)) => {
                    listeners.get(at as usize).map(|listener| (listener.socket.as_fd(), &listener.modes))
                }
                Some(By::Relay(id, is_ipv6)) => {
                    match relays.socket(id, if is_ipv6 { Family::V6 } else { Family::V4 }) {
                        Some(RelaySocket::Datagrams { socket, modes, .. }) => Some((socket.as_fd(), modes)),
                        Some(RelaySocket::Connections(_)) | None => None,
                    }
                }
                None => None,
            };
            let Some((socket, modes)) = socket else { continue };
            let packets = run.iter().filter_map(waiting);
            let packets = packets.filter_map(|waiting| slots.get(waiting.slot as usize).zip(Some(waiting)));
            let packets = packets.map(|(packet, waiting)| Outgoing {
                data: packet.data(),
                to: waiting.to,
                source: waiting.source,
                marks: packet.marks,
            });
            batch.send(socket, modes, packets, |_, error| dropped(reason(&error)));
        }
        self.queue.clear();
        self.order.clear();
    }
}

fn reason(error: &io::Error) -> Dropped {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => Dropped::TooLarge,
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Dropped::SendBuffer,
        _ => Dropped::SendFailed,
    }
}

/// An address without IPv6's flow label, which differs between packets of one client.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(mut v6) => {
            v6.set_flowinfo(0);
            v6.into()
        }
        SocketAddr::V4(_) => address,
    }
}

/// An allocation's name in the log: worker, slot, and which use of that slot.
pub(super) fn name(worker: usize, id: RelayId) -> String {
    format!("{worker}-{:x}-{:x}", id.index, id.generation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_relay_address_shares_no_port_with_a_listener() {
        let listener = tcp::listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), false).unwrap();
        let taken = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()));
        let error = RelaySocket::open(Protocol::Tcp, taken, Purpose::Relay, false, Abilities::probe()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
