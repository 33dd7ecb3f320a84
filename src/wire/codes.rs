//! The numbers of the STUN and TURN registries: methods, attributes, error codes.
//!
//! Owns the tables and nothing else: RFC 8489 §18, RFC 8656 §18, RFC 6062 §6, RFC 5780 §7, RFC 8016 §5, RFC 7635 §6.
#![forbid(unsafe_code)]

use core::fmt;

/// A STUN method: twelve bits (RFC 8489 §5).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Method(u16);

impl Method {
    /// RFC 8489 §12.
    pub const BINDING: Self = Self(0x001);
    /// RFC 8656 §7.
    pub const ALLOCATE: Self = Self(0x003);
    /// RFC 8656 §8.
    pub const REFRESH: Self = Self(0x004);
    /// RFC 8656 §11: indication only.
    pub const SEND: Self = Self(0x006);
    /// RFC 8656 §11: indication only.
    pub const DATA: Self = Self(0x007);
    /// RFC 8656 §10.
    pub const CREATE_PERMISSION: Self = Self(0x008);
    /// RFC 8656 §12.
    pub const CHANNEL_BIND: Self = Self(0x009);
    /// RFC 6062 §5.2.
    pub const CONNECT: Self = Self(0x00A);
    /// RFC 6062 §5.4.
    pub const CONNECTION_BIND: Self = Self(0x00B);
    /// RFC 6062 §5.3: indication only.
    pub const CONNECTION_ATTEMPT: Self = Self(0x00C);

    /// Stands for every number without a name.
    pub const OTHER: Self = Self(0xFFF);

    /// The method of these twelve bits; higher bits are cut off.
    pub const fn new(bits: u16) -> Self {
        Self(bits & 0x0FFF)
    }

    /// The twelve bits.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The registry's name, in the spelling of the metrics; `"other"` for a number without one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BINDING => "binding",
            Self::ALLOCATE => "allocate",
            Self::REFRESH => "refresh",
            Self::SEND => "send",
            Self::DATA => "data",
            Self::CREATE_PERMISSION => "create_permission",
            Self::CHANNEL_BIND => "channel_bind",
            Self::CONNECT => "connect",
            Self::CONNECTION_BIND => "connection_bind",
            Self::CONNECTION_ATTEMPT => "connection_attempt",
            _ => "other",
        }
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:#05x})", self.name(), self.0)
    }
}

/// The class of a message (RFC 8489 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Never gets one.
    Indication,
    /// A yes.
    Success,
    /// A no, with an ERROR-CODE.
    Error,
}

/// The 14-bit message type: method and class, interleaved (RFC 8489 §5, figure 3).
pub const fn message_type(method: Method, class: Class) -> u16 {
    let m = method.0;
    let c = match class {
        Class::Request => 0x0000,
        Class::Indication => 0x0010,
        Class::Success => 0x0100,
        Class::Error => 0x0110,
    };
    (m & 0x000F) | ((m & 0x0070) << 1) | ((m & 0x0F80) << 2) | c
}

/// Takes a message type apart; the two top bits must be zero already.
pub const fn split_type(bits: u16) -> (Method, Class) {
    let method = (bits & 0x000F) | ((bits & 0x00E0) >> 1) | ((bits & 0x3E00) >> 2);
    let class = match bits & 0x0110 {
        0x0000 => Class::Request,
        0x0010 => Class::Indication,
        0x0100 => Class::Success,
        _ => Class::Error,
    };
    (Method(method), class)
}

/// An attribute type (RFC 8489 §14).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attribute(pub u16);

impl Attribute {
    /// Below 0x8000: who does not understand it must not go on (RFC 8489 §14).
    pub const fn is_comprehension_required(self) -> bool {
        self.0 < 0x8000
    }
}

macro_rules! attributes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        impl Attribute {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// The registry's name, `None` for a number that this program has no name for.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($text),)*
                    _ => None,
                }
            }

            /// Every attribute that has a name here.
            pub const ALL: &'static [Self] = &[$(Self($number)),*];
        }
    };
}

attributes! {
    /// RFC 8489 §14.1.
    MAPPED_ADDRESS = 0x0001, "MAPPED-ADDRESS";
    /// RFC 5780 §7.2.
    CHANGE_REQUEST = 0x0003, "CHANGE-REQUEST";
    /// RFC 8489 §14.3.
    USERNAME = 0x0006, "USERNAME";
    /// RFC 8489 §14.5.
    MESSAGE_INTEGRITY = 0x0008, "MESSAGE-INTEGRITY";
    /// RFC 8489 §14.8.
    ERROR_CODE = 0x0009, "ERROR-CODE";
    /// RFC 8489 §14.13.
    UNKNOWN_ATTRIBUTES = 0x000A, "UNKNOWN-ATTRIBUTES";
    /// RFC 8656 §18.1.
    CHANNEL_NUMBER = 0x000C, "CHANNEL-NUMBER";
    /// RFC 8656 §18.2.
    LIFETIME = 0x000D, "LIFETIME";
    /// RFC 8656 §18.3.
    XOR_PEER_ADDRESS = 0x0012, "XOR-PEER-ADDRESS";
    /// RFC 8656 §18.4.
    DATA = 0x0013, "DATA";
    /// RFC 8489 §14.9.
    REALM = 0x0014, "REALM";
    /// RFC 8489 §14.10.
    NONCE = 0x0015, "NONCE";
    /// RFC 8656 §18.5.
    XOR_RELAYED_ADDRESS = 0x0016, "XOR-RELAYED-ADDRESS";
    /// RFC 8656 §18.6.
    REQUESTED_ADDRESS_FAMILY = 0x0017, "REQUESTED-ADDRESS-FAMILY";
    /// RFC 8656 §18.7.
    EVEN_PORT = 0x0018, "EVEN-PORT";
    /// RFC 8656 §18.8.
    REQUESTED_TRANSPORT = 0x0019, "REQUESTED-TRANSPORT";
    /// RFC 8656 §18.9.
    DONT_FRAGMENT = 0x001A, "DONT-FRAGMENT";
    /// RFC 7635 §6.2.
    ACCESS_TOKEN = 0x001B, "ACCESS-TOKEN";
    /// RFC 8489 §14.6.
    MESSAGE_INTEGRITY_SHA256 = 0x001C, "MESSAGE-INTEGRITY-SHA256";
    /// RFC 8489 §14.12.
    PASSWORD_ALGORITHM = 0x001D, "PASSWORD-ALGORITHM";
    /// RFC 8489 §14.4.
    USERHASH = 0x001E, "USERHASH";
    /// RFC 8489 §14.2.
    XOR_MAPPED_ADDRESS = 0x0020, "XOR-MAPPED-ADDRESS";
    /// RFC 8656 §18.10.
    RESERVATION_TOKEN = 0x0022, "RESERVATION-TOKEN";
    /// RFC 8445 §16.1.
    PRIORITY = 0x0024, "PRIORITY";
    /// RFC 8445 §16.1.
    USE_CANDIDATE = 0x0025, "USE-CANDIDATE";
    /// RFC 5780 §7.6.
    PADDING = 0x0026, "PADDING";
    /// RFC 5780 §7.5.
    RESPONSE_PORT = 0x0027, "RESPONSE-PORT";
    /// RFC 6062 §6.2.1.
    CONNECTION_ID = 0x002A, "CONNECTION-ID";
    /// RFC 8656 §18.11.
    ADDITIONAL_ADDRESS_FAMILY = 0x8000, "ADDITIONAL-ADDRESS-FAMILY";
    /// RFC 8656 §18.12.
    ADDRESS_ERROR_CODE = 0x8001, "ADDRESS-ERROR-CODE";
    /// RFC 8489 §14.11.
    PASSWORD_ALGORITHMS = 0x8002, "PASSWORD-ALGORITHMS";
    /// RFC 8489 §14.16.
    ALTERNATE_DOMAIN = 0x8003, "ALTERNATE-DOMAIN";
    /// RFC 8656 §18.13.
    ICMP = 0x8004, "ICMP";
    /// RFC 8489 §14.14.
    SOFTWARE = 0x8022, "SOFTWARE";
    /// RFC 8489 §14.15.
    ALTERNATE_SERVER = 0x8023, "ALTERNATE-SERVER";
    /// RFC 8489 §14.7.
    FINGERPRINT = 0x8028, "FINGERPRINT";
    /// RFC 5780 §7.3.
    RESPONSE_ORIGIN = 0x802B, "RESPONSE-ORIGIN";
    /// RFC 5780 §7.4.
    OTHER_ADDRESS = 0x802C, "OTHER-ADDRESS";
    /// RFC 7635 §6.1.
    THIRD_PARTY_AUTHORIZATION = 0x802E, "THIRD-PARTY-AUTHORIZATION";
    /// RFC 8016 §5.
    MOBILITY_TICKET = 0x8030, "MOBILITY-TICKET";
    /// ADDITIONAL-ADDRESS-FAMILY as drafts of RFC 8656 numbered it; coturn's client still sends this one.
    ADDITIONAL_ADDRESS_FAMILY_DRAFT = 0x8032, "ADDITIONAL-ADDRESS-FAMILY (draft)";
    /// ADDRESS-ERROR-CODE as drafts of RFC 8656 numbered it.
    ADDRESS_ERROR_CODE_DRAFT = 0x8033, "ADDRESS-ERROR-CODE (draft)";
}

impl fmt::Debug for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#06x}", self.0),
        }
    }
}

/// An error code of ERROR-CODE: 300 to 699 (RFC 8489 §14.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// RFC 8489 §10.
    pub const TRY_ALTERNATE: Self = Self(300);
    /// RFC 8489 §14.8.
    pub const BAD_REQUEST: Self = Self(400);
    /// RFC 8489 §14.8.
    pub const UNAUTHENTICATED: Self = Self(401);
    /// RFC 8656 §19.
    pub const FORBIDDEN: Self = Self(403);
    /// RFC 8016 §5.
    pub const MOBILITY_FORBIDDEN: Self = Self(405);
    /// RFC 8489 §14.8.
    pub const UNKNOWN_ATTRIBUTE: Self = Self(420);
    /// RFC 8656 §19.
    pub const ALLOCATION_MISMATCH: Self = Self(437);
    /// RFC 8489 §14.8.
    pub const STALE_NONCE: Self = Self(438);
    /// RFC 8656 §19.
    pub const ADDRESS_FAMILY_NOT_SUPPORTED: Self = Self(440);
    /// RFC 8656 §19.
    pub const WRONG_CREDENTIALS: Self = Self(441);
    /// RFC 8656 §19.
    pub const UNSUPPORTED_TRANSPORT: Self = Self(442);
    /// RFC 8656 §19.
    pub const PEER_ADDRESS_FAMILY_MISMATCH: Self = Self(443);
    /// RFC 6062 §6.3.
    pub const CONNECTION_ALREADY_EXISTS: Self = Self(446);
    /// RFC 6062 §6.3.
    pub const CONNECTION_TIMEOUT_OR_FAILURE: Self = Self(447);
    /// RFC 8656 §19.
    pub const ALLOCATION_QUOTA_REACHED: Self = Self(486);
    /// RFC 8489 §14.8.
    pub const SERVER_ERROR: Self = Self(500);
    /// RFC 8656 §19.
    pub const INSUFFICIENT_CAPACITY: Self = Self(508);
}

/// The fixed value that tells STUN from everything else (RFC 8489 §5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;
/// Bytes of a STUN header.
pub const HEADER: usize = 20;
/// REQUESTED-TRANSPORT for a UDP relay (RFC 8656 §18.8, the IANA protocol number).
pub const PROTOCOL_UDP: u8 = 17;
/// REQUESTED-TRANSPORT for a TCP relay (RFC 6062 §5.1, the IANA protocol number).
pub const PROTOCOL_TCP: u8 = 6;
