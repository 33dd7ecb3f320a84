//! turnserver: a STUN/TURN relay. This page is the map; nothing else lives here.
//!
//! # Floors
//!
//! ```text
//! 4   main  cli  log                               verbs and text for people
//! 3   control ── mailbox ──▶ worker                tokio, HTTP, stores  |  one OS thread per core, no async
//!     load                                         many clients at once, and what a server made of them
//! 2   net                                          sockets, epoll, TLS, DTLS, the clock; the only `unsafe`
//! 1   turn   client   config                       the law of relaying, pure: no I/O, no clock, no lock, no log
//! 0   wire   time   sync                           bytes, instants, the locks and atomics that threads share
//! ```
//!
//! A module names only lower floors. Two arrows run sideways, one way each: `config → turn` (it builds a
//! [`turn::policy::Policy`]) and `control → worker::Handle`. `tests/tidy.rs` holds this table. Without the feature
//! `server` the crate is floors 0 and 1 alone.
//!
//! # Five invariants
//!
//! 1. *One in, at most one out.* No input makes two packets and no timer makes any. Amplification is impossible by type,
//!    and an answer needs no queue: it is written where the request was. Under DTLS this holds for messages; the flights
//!    of a handshake, and their second tries, go only to an address that has proven itself.
//! 2. *One owner.* All state of an allocation sits in one `Allocation`; an index points at it and decides nothing.
//! 3. *Derived things decide nothing.* What the shell holds (relay sockets, who lives on which port) follows the core's effects.
//! 4. *One clock.* Monotonic nanoseconds, handed in as an argument; wall time rides beside it for credentials only.
//! 5. *Nothing before proof.* An unauthenticated datagram leaves no state: nonces are MACs, budgets are tables of fixed
//!    size. A TCP connection costs its descriptor and a bounded buffer, counted per network; a DTLS
//!    handshake begins behind a cookie.
//!
//! # A packet's life
//!
//! *Client to peer:* `worker` wakes in epoll → [`net::udp::Batch::receive`] fills slots → [`turn::Server::handle`] finds
//! the allocation by 5-tuple, checks channel, permission and budget, trims the head in place → `ToPeer` → after the
//! wake-up one call for each relay socket. A train of datagrams (UDP_GRO) is taken to pieces first; a run of equal ones to
//! one place leaves as a train (UDP_SEGMENT).
//!
//! *Peer to client:* the relay socket is readable → `Input::Peer` → permission, channel → the head is put before the
//! payload in place → `ToClient` → one `sendmmsg` on the listener.
//!
//! *Relay to relay:* a peer that is a live relay address of this server gets the packet as [`turn::Input::Peer`] at once, or
//! by mailbox where another worker has it; the system never sees it.
//!
//! *Request:* the same door; authentication, then the chapter's function, then the answer over the request. Allocate
//! yields [`turn::Effect::Bind`] first: the worker books quota and port in the ledger, makes the socket, and comes back
//! with [`turn::Input::Bound`], whose packet is the answer.
//!
//! *TCP:* bytes are framed by [`wire::stream`], each message goes through the same door. *TLS:* the same, with a
//! [`net::tls::Session`] between socket and frames; what leaves is encrypted when the socket has room for it.
//!
//! *DTLS:* a hello without a cookie is answered from its bytes alone ([`net::dtls::Shared::hear`]); records go to the
//! engine of their association, each message through the same door, and its answer is encrypted where it lies.
//!
//! *A peer's connection* (RFC 6062): the core decides about it and never sees its bytes. Once joined to the client's, bytes
//! go from the one to the other in the worker, and [`turn::Input::Carried`] keeps the account.
//!
//! *Between workers:* an allocation stays with the worker it began on. A client that moves, or opens another connection, may
//! reach another worker; ids and tickets name the right one, and what came goes there by mailbox.

pub mod client;
pub mod config;
mod sync;
pub mod time;
pub mod turn;
pub mod wire;

#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod control;
#[cfg(feature = "server")]
pub mod load;
#[cfg(feature = "server")]
pub mod log;
#[cfg(feature = "server")]
pub mod net;
#[cfg(feature = "server")]
pub mod worker;
