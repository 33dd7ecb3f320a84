//! The law of relaying, pure: driven by (now, input), it answers with one verdict.
//!
//! An allocation's life:
//!
//! ```text
//!             Allocate, authenticated                Bound(Ok): the success response leaves
//!   (nothing) ─────────────────────────▶ Binding ───────────────────────────────────────────▶ Live
//!       ▲                                   │ Bound(Err): 486, 508 or 500                       │ Refresh: lives on
//!       │                                   ▼                                                   │ CreatePermission,
//!       └───────────────────────────────── gone ◀───────────────────────────────────────────────┘ ChannelBind: opens
//!                                          Refresh(0), expiry, disconnect, revocation
//! ```
//!
//! A [`Server`] owns every allocation whose client the kernel hashed to its worker. [`Server::handle`] takes one packet
//! in a [`Packet`](crate::wire::Packet) slot and leaves in it the packet that goes out, if one does: answers are
//! written where the question was. What the shell must do to the world comes out as [`Effect`]s. Success is never
//! promised before the relay socket exists: Allocate yields [`Effect::Bind`], and the answer is written when the shell
//! comes back with [`Input::Bound`].
//!
//! Never does I/O, reads a clock, logs, or takes a lock. Chance comes from the seed alone, so a run can be repeated.
#![forbid(unsafe_code)]

mod allocate;
mod allocation;
mod auth;
pub mod credential;
mod discovery;
pub mod limits;
mod mobility;
pub mod opaque;
pub mod peers;
mod permit;
pub mod policy;
pub mod ports;
pub mod refusal;
mod relay;
mod server;
mod streams;
mod table;
pub mod tally;
mod tcp;
mod ticket;
mod token;
mod wheel;

use crate::time::{Duration, Instant, Now};
use crate::wire::icmp::Icmp;
use crate::wire::stun::Family;
use core::net::SocketAddr;
use peers::RelayAddress;
use ports::Want;
use refusal::{Dropped, Ended};
use tally::Transport;

pub use allocation::Protocol;
pub use server::{Place, Server};
pub use streams::StreamId;

/// Who a client is: its address, ours, and the protocol between (RFC 8656 §2). The server's side is the address that
/// was asked, also on a wildcard listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// Datagrams or a connection.
    pub transport: Transport,
    /// The client's side.
    pub client: SocketAddr,
    /// Our side.
    pub server: SocketAddr,
}

/// How the shell finds its way back to a client: a listener or a connection, by the shell's own count. The core only
/// keeps it and hands it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link(pub u32);

/// A client, and the way back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Who.
    pub tuple: FiveTuple,
    /// By which socket.
    pub link: Link,
}

/// An allocation of one worker. The generation makes a reused index another id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId {
    /// Which slot of the worker's table.
    pub index: u32,
    /// Which use of that slot.
    pub generation: u32,
}

/// One thing that happened.
#[derive(Debug)]
pub enum Input {
    /// The packet came from a client.
    Client(Path),
    /// The packet came from a peer to a relay address.
    Peer {
        /// Whose relay address.
        relay: RelayId,
        /// From where, as clients would name that address.
        from: SocketAddr,
    },
    /// An ICMP error came back for what a relay address has sent.
    Icmp {
        /// Whose relay address.
        relay: RelayId,
        /// Where that was sent to.
        peer: SocketAddr,
        /// What happened to it.
        icmp: Icmp,
    },
    /// The shell has tried what [`Effect::Bind`] asked for.
    Bound {
        /// For which allocation.
        relay: RelayId,
        /// The relay address, or why there is none.
        result: Result<Bound, BindError>,
        /// The one of the other family, where [`Bind::also`] asked for it.
        also: Option<Result<Bound, BindError>>,
    },
    /// The shell has tried what [`Effect::Connect`] asked for: whether the peer took the connection.
    Connected {
        /// For which allocation.
        relay: RelayId,
        /// Which connection.
        stream: StreamId,
        /// Whether there is one.
        is_open: bool,
    },
    /// A peer has connected to a relay address (RFC 6062 §5.3). [`Effect::Accept`] keeps the connection.
    Incoming {
        /// Whose relay address.
        relay: RelayId,
        /// From where, as clients would name that address.
        from: SocketAddr,
    },
    /// Bytes went between a client's connection and a peer's.
    Carried {
        /// For which allocation.
        relay: RelayId,
        /// By which of its connections.
        stream: StreamId,
        /// To the peer.
        to_peer: u64,
        /// To the client.
        to_client: u64,
    },
    /// A connection with a peer is over.
    StreamClosed {
        /// Of which allocation.
        relay: RelayId,
        /// Which connection.
        stream: StreamId,
    },
    /// A client's connection is gone.
    Closed(FiveTuple),
}

/// A relay socket that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Where it is bound, and what clients are told.
    pub address: RelayAddress,
    /// Its port.
    pub port: u16,
}

impl Bound {
    /// The relay address as clients and peers know it.
    pub const fn told(&self) -> SocketAddr {
        SocketAddr::new(self.address.external, self.port)
    }
}

/// Why there is no relay socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindError {
    /// The user or the server has its full number of allocations.
    Quota,
    /// No port is free, or the reservation is unknown or over.
    NoPort,
    /// No file descriptor or memory.
    NoResources,
    /// The operating system refused for another reason.
    System,
}

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It leaves from a relay address to a peer.
    ToPeer {
        /// From whose relay address.
        relay: RelayId,
        /// To where.
        peer: SocketAddr,
        /// What kind of place that is.
        destination: peers::Destination,
    },
    /// It leaves to a client.
    ToClient(Path),
    /// The packet belongs to another worker: one with that number has the allocation it speaks of.
    Elsewhere(u8),
    /// The allocation has used up its bandwidth: nothing more may be read for it before this moment.
    Wait(Instant),
    /// Nothing leaves, and nothing is wrong.
    Nothing,
    /// Nothing leaves, for this reason.
    Dropped(Dropped),
}

impl From<Dropped> for Verdict {
    fn from(why: Dropped) -> Self {
        Self::Dropped(why)
    }
}

/// What the shell has to do to the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make a relay socket and come back with [`Input::Bound`], the same packet in hand.
    Bind(Bind),
    /// Close the relay socket of this family: the allocation lives on with the other.
    Unbind {
        /// Of which allocation.
        relay: RelayId,
        /// Which of its relay addresses.
        family: Family,
    },
    /// Connect from the relay address to a peer and come back with [`Input::Connected`]; give up after 30 s.
    Connect {
        /// For which allocation.
        relay: RelayId,
        /// What the connection is called.
        stream: StreamId,
        /// To where.
        peer: SocketAddr,
        /// What kind of place that is.
        destination: peers::Destination,
    },
    /// Keep the connection that [`Input::Incoming`] told of, and read nothing from it before it is joined.
    Accept {
        /// For which allocation.
        relay: RelayId,
        /// What the connection is called.
        stream: StreamId,
    },
    /// Join the client's connection and the peer's, once the answer has left: bytes flow both ways, unchanged.
    Join {
        /// For which allocation.
        relay: RelayId,
        /// The peer's connection.
        stream: StreamId,
        /// The client's.
        path: Path,
    },
    /// Close the connection with a peer, and the client's that is joined to it.
    Close {
        /// Of which allocation.
        relay: RelayId,
        /// Which connection.
        stream: StreamId,
    },
    /// A path leads to an allocation, too (RFC 8016).
    Attached(Path),
    /// A path does not lead to an allocation any more.
    Detached(Path),
    /// An allocation is live.
    Began {
        /// Which.
        relay: RelayId,
        /// Of whom and where.
        session: Session,
    },
    /// An allocation is over: close its relay socket.
    Ended {
        /// Which.
        relay: RelayId,
        /// Of whom and where.
        session: Session,
        /// How much it relayed.
        usage: Usage,
        /// How long it lived.
        lived: Duration,
        /// Why.
        why: Ended,
    },
}

/// A relay socket wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// For which allocation.
    pub relay: RelayId,
    /// Of which family.
    pub family: Family,
    /// Of which other family as well, if that can be had; the allocation does not depend on it.
    pub also: Option<Family>,
    /// For datagrams or for connections.
    pub protocol: Protocol,
    /// Which port.
    pub want: Want,
    /// Who the quota counts.
    pub user: Box<str>,
    /// 256 bits of chance for the choice of the port.
    pub chance: [u8; 32],
}

/// An allocation as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The user name of its credential.
    pub user: Box<str>,
    /// Its client, and the way back to it.
    pub path: Path,
    /// Its relay address as clients know it.
    pub relay: SocketAddr,
    /// The other one of a dual allocation.
    pub second_relay: Option<SocketAddr>,
}

/// What an allocation relayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Packets from the client to peers.
    pub packets_to_peer: u64,
    /// Payload bytes from the client to peers.
    pub bytes_to_peer: u64,
    /// Packets from peers to the client.
    pub packets_to_client: u64,
    /// Payload bytes from peers to the client.
    pub bytes_to_client: u64,
}

/// When a deadline is over.
fn is_over(deadline: Instant, now: Now) -> bool {
    deadline <= now.mono
}
