//! Every "no" the core can say, in one file: what goes on the wire, what the metrics call it, what a person reads.
#![forbid(unsafe_code)]

use crate::wire::codes::ErrorCode;

/// A request that gets an error response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// An attribute is missing or has an impossible value.
    BadRequest,
    /// No credential, an unknown user, or a wrong password: told apart in the metrics only.
    Unauthenticated(AuthFailure),
    /// The nonce is too old, or was given to somebody else.
    StaleNonce,
    /// Comprehension-required attributes that this server does not know.
    UnknownAttributes,
    /// No allocation on this 5-tuple, or one already.
    AllocationMismatch,
    /// Another user's allocation.
    WrongCredentials,
    /// The peer address is one this server does not relay to.
    PeerForbidden,
    /// A relay address of this family is not to be had here.
    FamilyNotSupported,
    /// A peer of the other family than the relay address.
    PeerFamilyMismatch,
    /// A relay protocol other than UDP.
    UnsupportedTransport,
    /// The user, or the server, has as many allocations as the configuration permits.
    QuotaReached,
    /// No relay port, no file descriptor, or a table of the allocation is full.
    InsufficientCapacity,
    /// The operating system would not make the relay socket.
    ServerError,
    /// The server takes no new allocations and names another (RFC 8489 §10).
    TryAlternate,
    /// Mobility is off (RFC 8016 §3.1).
    MobilityForbidden,
    /// There is a connection with this peer, or an attempt at one (RFC 6062 §5.2).
    ConnectionExists,
    /// The peer did not take the connection (RFC 6062 §5.2).
    ConnectionFailed,
}

impl Refusal {
    /// The code on the wire.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::BadRequest => ErrorCode::BAD_REQUEST,
            Self::Unauthenticated(_) => ErrorCode::UNAUTHENTICATED,
            Self::StaleNonce => ErrorCode::STALE_NONCE,
            Self::UnknownAttributes => ErrorCode::UNKNOWN_ATTRIBUTE,
            Self::AllocationMismatch => ErrorCode::ALLOCATION_MISMATCH,
            Self::WrongCredentials => ErrorCode::WRONG_CREDENTIALS,
            Self::PeerForbidden => ErrorCode::FORBIDDEN,
            Self::FamilyNotSupported => ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED,
            Self::PeerFamilyMismatch => ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH,
            Self::UnsupportedTransport => ErrorCode::UNSUPPORTED_TRANSPORT,
            Self::QuotaReached => ErrorCode::ALLOCATION_QUOTA_REACHED,
            Self::InsufficientCapacity => ErrorCode::INSUFFICIENT_CAPACITY,
            Self::ServerError => ErrorCode::SERVER_ERROR,
            Self::TryAlternate => ErrorCode::TRY_ALTERNATE,
            Self::MobilityForbidden => ErrorCode::MOBILITY_FORBIDDEN,
            Self::ConnectionExists => ErrorCode::CONNECTION_ALREADY_EXISTS,
            Self::ConnectionFailed => ErrorCode::CONNECTION_TIMEOUT_OR_FAILURE,
        }
    }

    /// The reason phrase. Empty where nobody is authenticated: a challenge must stay small (no amplification).
    pub const fn reason(self) -> &'static str {
        match self {
            Self::BadRequest | Self::Unauthenticated(_) | Self::StaleNonce | Self::UnknownAttributes => "",
            Self::AllocationMismatch => "Allocation Mismatch",
            Self::WrongCredentials => "Wrong Credentials",
            Self::PeerForbidden => "Forbidden",
            Self::FamilyNotSupported => "Address Family not Supported",
            Self::PeerFamilyMismatch => "Peer Address Family Mismatch",
            Self::UnsupportedTransport => "Unsupported Transport Protocol",
            Self::QuotaReached => "Allocation Quota Reached",
            Self::InsufficientCapacity => "Insufficient Capacity",
            Self::ServerError => "Server Error",
            Self::TryAlternate => "Try Alternate",
            Self::MobilityForbidden => "Mobility Forbidden",
            Self::ConnectionExists => "Connection Already Exists",
            Self::ConnectionFailed => "Connection Timeout or Failure",
        }
    }
}

/// Why a request is not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthFailure {
    /// No integrity attribute: the ordinary first step of every client.
    Missing,
    /// Neither a static user nor a time-limited name.
    UnknownUser,
    /// No secret, or the password, gives this integrity value.
    WrongPassword,
    /// The time-limited name has run out.
    Expired,
    /// The time-limited name lives longer than `auth.max_ttl` permits.
    TtlTooLong,
    /// The realm is not this server's.
    WrongRealm,
    /// The access token is not one of ours, is over, or did not sign this message (RFC 7635).
    Token,
}

impl AuthFailure {
    /// Every value, in the order of the metrics.
    pub const ALL: [Self; 7] = [
        Self::Missing,
        Self::UnknownUser,
        Self::WrongPassword,
        Self::Expired,
        Self::TtlTooLong,
        Self::WrongRealm,
        Self::Token,
    ];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::UnknownUser => "unknown_user",
            Self::WrongPassword => "wrong_password",
            Self::Expired => "expired",
            Self::TtlTooLong => "ttl_too_long",
            Self::WrongRealm => "wrong_realm",
            Self::Token => "token",
        }
    }
}

/// Why a packet goes nowhere and is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Dropped {
    /// Neither STUN nor ChannelData.
    Noise,
    /// STUN whose structure is broken.
    Malformed,
    /// STUN without the magic cookie (RFC 3489).
    ClassicStun,
    /// FINGERPRINT present and wrong.
    Fingerprint,
    /// A response, or an indication that clients do not send.
    Unexpected,
    /// A method this server does not have.
    UnknownMethod,
    /// ChannelData shorter than its length, or with a number outside 0x4000–0x7FFF.
    BadChannelData,
    /// A Send indication without peer address or data, or with an unknown required attribute.
    BadIndication,
    /// Data from a client without an allocation.
    NoAllocation,
    /// The channel is not bound.
    NoChannel,
    /// The peer has no live permission.
    NoPermission,
    /// The peer is one this server does not relay to.
    PeerDenied,
    /// One of this server's own relay ports that no allocation lives on.
    NoRelay,
    /// The source cannot be answered (port 0) or claims to be a listener: ours, or one that clients are sent to.
    BadSource,
    /// More unauthenticated requests from one network than `limits.unauthenticated_per_ip`.
    UnauthenticatedLimit,
    /// More than the allocation's, or the server's, bandwidth.
    Bandwidth,
    /// Larger than any datagram, or than the slot it came in.
    TooLarge,
    /// A socket had no room for it: more came in than was read.
    ReceiveBuffer,
    /// The operating system had no room for it.
    SendBuffer,
    /// The operating system refused to send it: no route, a filter, an unreachable peer.
    SendFailed,
    /// The client's connection does not take more bytes.
    SlowClient,
    /// The answer did not fit.
    Overflow,
    /// A connection whose TLS handshake or record failed.
    Tls,
    /// A connection whose TLS handshake took too long.
    HandshakeTimeout,
    /// Its time to live was used up.
    Ttl,
    /// More relayed messages inside each other than any call needs: it would go round.
    Nested,
    /// The worker that has the allocation could not take it in time.
    Handover,
    /// A DTLS record that belongs to no association, or that is not its client's.
    Dtls,
    /// A DTLS client beyond the handshakes that one worker has in hand.
    HalfOpen,
    /// A connection whose PROXY header was missing, wrong, late, or not for its sender to send.
    Proxy,
    /// A connection for the web server behind us that could not be passed on.
    Web,
}

impl Dropped {
    /// Every value, in the order of the metrics.
    pub const ALL: [Self; 31] = [
        Self::Noise,
        Self::Malformed,
        Self::ClassicStun,
        Self::Fingerprint,
        Self::Unexpected,
        Self::UnknownMethod,
        Self::BadChannelData,
        Self::BadIndication,
        Self::NoAllocation,
        Self::NoChannel,
        Self::NoPermission,
        Self::PeerDenied,
        Self::NoRelay,
        Self::BadSource,
        Self::UnauthenticatedLimit,
        Self::Bandwidth,
        Self::TooLarge,
        Self::ReceiveBuffer,
        Self::SendBuffer,
        Self::SendFailed,
        Self::SlowClient,
        Self::Overflow,
        Self::Tls,
        Self::HandshakeTimeout,
        Self::Ttl,
        Self::Nested,
        Self::Handover,
        Self::Dtls,
        Self::HalfOpen,
        Self::Proxy,
        Self::Web,
    ];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Malformed => "malformed",
            Self::ClassicStun => "classic_stun",
            Self::Fingerprint => "fingerprint",
            Self::Unexpected => "unexpected",
            Self::UnknownMethod => "unknown_method",
            Self::BadChannelData => "bad_channel_data",
            Self::BadIndication => "bad_indication",
            Self::NoAllocation => "no_allocation",
            Self::NoChannel => "no_channel",
            Self::NoPermission => "no_permission",
            Self::PeerDenied => "peer_denied",
            Self::NoRelay => "no_relay",
            Self::BadSource => "bad_source",
            Self::UnauthenticatedLimit => "unauthenticated_limit",
            Self::Bandwidth => "bandwidth",
            Self::TooLarge => "too_large",
            Self::ReceiveBuffer => "receive_buffer",
            Self::SendBuffer => "send_buffer",
            Self::SendFailed => "send_failed",
            Self::SlowClient => "slow_client",
            Self::Overflow => "overflow",
            Self::Tls => "tls",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Ttl => "ttl",
            Self::Nested => "nested",
            Self::Handover => "handover",
            Self::Dtls => "dtls",
            Self::HalfOpen => "half_open",
            Self::Proxy => "proxy",
            Self::Web => "web",
        }
    }
}

/// Why an allocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// Refresh with lifetime 0.
    Released,
    /// Not refreshed in time.
    Expired,
    /// The client's connection closed, or its DTLS association.
    Disconnected,
    /// The running policy no longer permits it.
    Revoked,
    /// The server stops.
    Stopped,
}

impl Ended {
    /// The word in the log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Disconnected => "disconnected",
            Self::Revoked => "revoked",
            Self::Stopped => "stopped",
        }
    }
}
