//! What one worker has done, in numbers.
//!
//! One writer, any number of readers: the worker that owns a tally adds without a locked instruction, the control side
//! reads and sums over the workers. No label names a user or an address, so the size is fixed.
#![forbid(unsafe_code)]

use super::refusal::{AuthFailure, Dropped, Refusal};
use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;
use crate::time::Duration;
use crate::wire::codes::{ErrorCode, Method};
use crate::wire::stun::Family;

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owner of the tally may call this: it is a load and a store, not a locked add.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes `n` off a number that goes both ways.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).saturating_sub(n), Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How a client reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A byte stream.
    Tcp,
    /// A byte stream under TLS.
    Tls,
    /// Datagrams under DTLS (RFC 7350).
    Dtls,
}

impl Transport {
    /// Every transport, in the order of the metrics.
    pub const ALL: [Self; 4] = [Self::Udp, Self::Tcp, Self::Tls, Self::Dtls];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Dtls => "dtls",
        }
    }

    /// Whether what is said is encrypted.
    pub const fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Dtls)
    }

    /// Whether messages lie in a byte stream, so that ChannelData is padded (RFC 8656 §12.5).
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }
}

/// The methods that requests are counted by; the last stands for all others.
pub const METHODS: [Method; 8] = [
    Method::BINDING,
    Method::ALLOCATE,
    Method::REFRESH,
    Method::CREATE_PERMISSION,
    Method::CHANNEL_BIND,
    Method::CONNECT,
    Method::CONNECTION_BIND,
    Method::OTHER,
];

/// The error codes that answers are counted by.
pub const CODES: [ErrorCode; 17] = [
    ErrorCode::TRY_ALTERNATE,
    ErrorCode::BAD_REQUEST,
    ErrorCode::UNAUTHENTICATED,
    ErrorCode::FORBIDDEN,
    ErrorCode::MOBILITY_FORBIDDEN,
    ErrorCode::UNKNOWN_ATTRIBUTE,
    ErrorCode::ALLOCATION_MISMATCH,
    ErrorCode::STALE_NONCE,
    ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED,
    ErrorCode::WRONG_CREDENTIALS,
    ErrorCode::UNSUPPORTED_TRANSPORT,
    ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH,
    ErrorCode::CONNECTION_ALREADY_EXISTS,
    ErrorCode::CONNECTION_TIMEOUT_OR_FAILURE,
    ErrorCode::ALLOCATION_QUOTA_REACHED,
    ErrorCode::SERVER_ERROR,
    ErrorCode::INSUFFICIENT_CAPACITY,
];

/// Upper bounds of the allocation duration histogram, in seconds; a last bucket without a bound follows.
pub const DURATION_BOUNDS: [u64; 9] = [1, 10, 30, 60, 300, 600, 1800, 3600, 14400];

/// Packets and bytes of one direction.
#[derive(Debug, Default)]
pub struct Flow {
    /// Datagrams.
    pub packets: Counter,
    /// Payload bytes, without any framing.
    pub bytes: Counter,
}

/// The tally of one worker.
#[derive(Debug, Default)]
#[repr(align(128))] // two cache lines, so that no two workers' tallies share one
pub struct Tally {
    /// Live allocations, by [`Transport::ALL`] and family (IPv4, IPv6).
    pub allocations: [[Counter; 2]; Transport::ALL.len()],
    /// Allocations ever made.
    pub allocations_total: Counter,
    /// Allocate requests refused, by [`CODES`].
    pub allocation_failures: [Counter; CODES.len()],
    /// Lifetimes of ended allocations, by [`DURATION_BOUNDS`] (not cumulative).
    pub durations: [Counter; DURATION_BOUNDS.len() + 1],
    /// The sum of those lifetimes in milliseconds.
    pub durations_ms: Counter,
    /// Live permissions.
    pub permissions: Counter,
    /// Bound channels.
    pub channels: Counter,
    /// Relayed from clients to peers.
    pub to_peer: Flow,
    /// Relayed from peers to clients.
    pub to_client: Flow,
    /// Dropped packets, by [`Dropped::ALL`].
    pub dropped: [Counter; Dropped::ALL.len()],
    /// Requests, by [`METHODS`] and [`Transport::ALL`].
    pub requests: [[Counter; Transport::ALL.len()]; METHODS.len()],
    /// Success responses, by [`METHODS`].
    pub successes: [Counter; METHODS.len()],
    /// Error responses, by [`METHODS`] and [`CODES`].
    pub errors: [[Counter; CODES.len()]; METHODS.len()],
    /// Failed authentications, by [`AuthFailure::ALL`].
    pub auth_failures: [Counter; AuthFailure::ALL.len()],
    /// Requests and data refused because of the peer's address.
    pub peer_denied: Counter,
    /// Unauthenticated requests left unanswered by `limits.unauthenticated_per_ip`.
    pub limited_unauthenticated: Counter,
    /// Packets dropped by `limits.bandwidth…`.
    pub limited_bandwidth: Counter,
    /// Connections refused by `limits.connections_per_ip`.
    pub limited_connections: Counter,
    /// Allocations refused by `limits.allocations…`.
    pub limited_quota: Counter,
    /// Open client connections, by [`Transport::ALL`] (UDP has none).
    pub connections: [Counter; Transport::ALL.len()],
    /// Client connections there have ever been.
    pub connections_total: Counter,
}

impl Tally {
    /// Live allocations of this transport and family.
    pub fn allocations_of(&self, transport: Transport, family: Family) -> &Counter {
        let [v4, v6] = &self.allocations[transport as usize];
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    /// Counts a packet that goes nowhere.
    pub fn count_drop(&self, why: Dropped) {
        self.dropped[why as usize].add(1);
    }

    /// Counts packets that go nowhere.
    pub fn count_drops(&self, why: Dropped, count: u64) {
        if count > 0 {
            self.dropped[why as usize].add(count);
        }
    }

    /// Counts a request.
    pub fn request(&self, method: Method, transport: Transport) {
        self.requests[method_index(method)][transport as usize].add(1);
    }

    /// Counts a success response.
    pub fn success(&self, method: Method) {
        self.successes[method_index(method)].add(1);
    }

    /// Counts an error response, and what it says of authentication and peers.
    pub fn refusal(&self, method: Method, refusal: Refusal) {
        if let Some(code) = CODES.iter().position(|code| *code == refusal.code()) {
            self.errors[method_index(method)][code].add(1);
            if method == Method::ALLOCATE && refusal != Refusal::Unauthenticated(AuthFailure::Missing) {
                self.allocation_failures[code].add(1);
            }
        }
        if let Refusal::Unauthenticated(why) = refusal {
            self.auth_failures[why as usize].add(1);
        }
        if refusal == Refusal::PeerForbidden {
            self.peer_denied.add(1);
        }
        if refusal == Refusal::QuotaReached {
            self.limited_quota.add(1);
        }
    }

    /// Counts an allocation that ended after `lived`.
    pub fn ended(&self, lived: Duration) {
        let bucket = DURATION_BOUNDS.iter().position(|bound| lived.as_secs() < *bound).unwrap_or(DURATION_BOUNDS.len());
        self.durations[bucket].add(1);
        self.durations_ms.add(u64::try_from(lived.as_millis()).unwrap_or(u64::MAX));
    }
}

fn method_index(method: Method) -> usize {
    METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1)
}
