//! The other side: a TURN client without sockets or clock, for tests, benches and tools.
//!
//! Owns the credential, the last challenge and the transaction count of one client. It shares the codec with the server
//! and nothing else: a witness must not share the judge's mind, so this module never names `turn`.
#![forbid(unsafe_code)]

use crate::wire::channel::{self, ChannelData, ChannelNumber};
use crate::wire::codes::{Attribute, Class, ErrorCode, HEADER, Method, PROTOCOL_UDP};
use crate::wire::integrity::{Algorithm, Key};
use crate::wire::reply::Reply;
use crate::wire::stun::{Family, Message, TransactionId};
use crate::wire::{self, Kind};
use core::fmt;
use core::net::SocketAddr;
use core::ops::Range;
use zeroize::Zeroizing;

/// A client with a long-term credential.
#[derive(Clone)]
pub struct Client {
    username: String,
    password: Zeroizing<String>,
    challenge: Option<Challenge>,
    seed: u32,
    count: u64,
}

#[derive(Clone, Debug)]
struct Challenge {
    realm: String,
    nonce: Vec<u8>,
    key: Key,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("username", &self.username).field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// What a message from the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A success response.
    Success(Success),
    /// An error response.
    Error {
        /// To which method.
        method: Method,
        /// The code.
        code: ErrorCode,
        /// The next request carries a new realm and nonce: worth another try.
        is_challenge: bool,
    },
    /// Data from a peer, in a Data indication.
    Data {
        /// From whom.
        peer: SocketAddr,
        /// Where in the message the payload lies.
        payload: Range<usize>,
    },
    /// An ICMP error about something that was sent to a peer (RFC 8656 §11.5).
    Icmp {
        /// To whom.
        peer: SocketAddr,
        /// Its type, by the family of the peer.
        kind: u8,
        /// Its code.
        code: u8,
        /// The MTU it tells, or 0.
        mtu: u32,
    },
    /// Data from the peer of a channel.
    ChannelData {
        /// On which channel.
        number: ChannelNumber,
        /// Where in the message the payload lies.
        payload: Range<usize>,
    },
}

/// What a success response says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Success {
    /// To which method.
    pub method: Method,
    /// To which request.
    pub transaction: TransactionId,
    /// XOR-MAPPED-ADDRESS.
    pub mapped: Option<SocketAddr>,
    /// XOR-RELAYED-ADDRESS.
    pub relayed: Option<SocketAddr>,
    /// LIFETIME in seconds.
    pub lifetime: Option<u32>,
    /// RESERVATION-TOKEN.
    pub token: Option<[u8; 8]>,
    /// Whether the answer was signed with our key.
    pub is_signed: bool,
}

/// Bytes that are no message a client expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unexpected;

/// Room for any request of a client.
const REQUEST: usize = 2048;

impl Client {
    /// A client that has not been challenged yet. Different seeds make different transaction ids.
    pub fn new(username: &str, password: &str, seed: u32) -> Self {
        Self { username: username.into(), password: Zeroizing::new(password.into()), challenge: None, seed, count: 0 }
    }

    /// A Binding request, without credentials.
    pub fn binding(&mut self) -> Vec<u8> {
        let transaction = self.transaction();
        build(|buf| Reply::new(buf, Method::BINDING, Class::Request, transaction).finish())
    }

    /// An Allocate request for a UDP relay address.
    pub fn allocate(&mut self, family: Option<Family>) -> Vec<u8> {
        self.request(Method::ALLOCATE, |request| {
            request.bytes(Attribute::REQUESTED_TRANSPORT, &[PROTOCOL_UDP, 0, 0, 0]);
            if let Some(family) = family {
                let number = if family == Family::V4 { 1 } else { 2 };
                request.bytes(Attribute::REQUESTED_ADDRESS_FAMILY, &[number, 0, 0, 0]);
            }
        })
    }

    /// A Refresh request; a lifetime of 0 ends the allocation.
    pub fn refresh(&mut self, lifetime: Option<u32>) -> Vec<u8> {
        self.request(Method::REFRESH, |request| {
            if let Some(lifetime) = lifetime {
                request.number(Attribute::LIFETIME, lifetime);
            }
        })
    }

    /// A CreatePermission request for these peers.
    pub fn create_permission(&mut self, peers: &[SocketAddr]) -> Vec<u8> {
        self.request(Method::CREATE_PERMISSION, |request| {
            for peer in peers {
                request.xor_address(Attribute::XOR_PEER_ADDRESS, *peer);
            }
        })
    }

    /// A ChannelBind request. Any number can be asked for, also one that no server grants.
    pub fn channel_bind(&mut self, number: u16, peer: SocketAddr) -> Vec<u8> {
        self.request(Method::CHANNEL_BIND, |request| {
            let [n0, n1] = number.to_be_bytes();
            request.bytes(Attribute::CHANNEL_NUMBER, &[n0, n1, 0, 0]);
            request.xor_address(Attribute::XOR_PEER_ADDRESS, peer);
        })
    }

    /// A Send indication.
    pub fn send(&mut self, peer: SocketAddr, payload: &[u8]) -> Vec<u8> {
        let transaction = self.transaction();
        let mut bytes = vec![0; HEADER + 24 + 8 + payload.len()];
        let len = Reply::new(&mut bytes, Method::SEND, Class::Indication, transaction)
            .xor_address(Attribute::XOR_PEER_ADDRESS, peer)
            .bytes(Attribute::DATA, payload)
            .finish();
        bytes.truncate(len.unwrap_or(0));
        bytes
    }

    /// A request of any method: `attributes` adds to it, then come the credential and the signature, if there was a
    /// challenge.
    pub fn request(&mut self, method: Method, attributes: impl FnOnce(&mut Reply<'_>)) -> Vec<u8> {
        let transaction = self.transaction();
        build(|buf| {
            let mut request = Reply::new(buf, method, Class::Request, transaction);
            attributes(&mut request);
            if let Some(challenge) = &self.challenge {
                request.bytes(Attribute::USERNAME, self.username.as_bytes());
                request.bytes(Attribute::REALM, challenge.realm.as_bytes());
                request.bytes(Attribute::NONCE, &challenge.nonce);
                request.sign(Algorithm::Sha1, &challenge.key);
            }
            request.finish()
        })
    }

    /// Reads one message of the server, and remembers the challenge in it.
    pub fn hear(&mut self, bytes: &[u8]) -> Result<Heard, Unexpected> {
        match wire::classify(bytes) {
            Some(Kind::ChannelData) => {
                let head = ChannelData::parse(bytes).map_err(|_| Unexpected)?;
                let payload = channel::HEAD..channel::HEAD + head.length;
                Ok(Heard::ChannelData { number: head.number, payload })
            }
            Some(Kind::Stun) => self.hear_stun(&Message::parse(bytes).map_err(|_| Unexpected)?),
            Some(Kind::Tls | Kind::Other) | None => Err(Unexpected),
        }
    }

    fn hear_stun(&mut self, message: &Message<'_>) -> Result<Heard, Unexpected> {
        match (message.class, message.method) {
            (Class::Indication, Method::DATA) => {
                let peer = message.xor_address(Attribute::XOR_PEER_ADDRESS).and_then(Result::ok).ok_or(Unexpected)?;
                if let Some(payload) = message.range(Attribute::DATA) {
                    return Ok(Heard::Data { peer, payload });
                }
                let icmp = message.bytes::<8>(Attribute::ICMP).and_then(Result::ok).ok_or(Unexpected)?;
                let [_, _, k0, k1, mtu @ ..] = icmp;
                let kind_and_code = u16::from_be_bytes([k0, k1]);
                let (kind, code) = ((kind_and_code >> 9) as u8, kind_and_code as u8);
                Ok(Heard::Icmp { peer, kind, code, mtu: u32::from_be_bytes(mtu) })
            }
            (Class::Success, method) => {
                let address = |attribute| message.xor_address(attribute).and_then(Result::ok);
                let key = self.challenge.as_ref().map(|challenge| &challenge.key);
                Ok(Heard::Success(Success {
                    method,
                    transaction: message.transaction,
                    mapped: address(Attribute::XOR_MAPPED_ADDRESS),
                    relayed: address(Attribute::XOR_RELAYED_ADDRESS),
                    lifetime: message.bytes(Attribute::LIFETIME).and_then(Result::ok).map(u32::from_be_bytes),
                    token: message.bytes(Attribute::RESERVATION_TOKEN).and_then(Result::ok),
                    is_signed: key.is_some_and(|key| message.verify(Algorithm::Sha1, key)),
                }))
            }
            (Class::Error, method) => {
                let Some([_, _, class, number, ..]) = message.get(Attribute::ERROR_CODE) else {
                    return Err(Unexpected);
                };
                let code = ErrorCode(u16::from(*class) * 100 + u16::from(*number));
                let may_retry = matches!(code, ErrorCode::UNAUTHENTICATED | ErrorCode::STALE_NONCE);
                Ok(Heard::Error { method, code, is_challenge: may_retry && self.remember(message) })
            }
            (Class::Request | Class::Indication, _) => Err(Unexpected),
        }
    }

    fn remember(&mut self, message: &Message<'_>) -> bool {
        let (Some(Ok(realm)), Some(nonce)) = (message.text(Attribute::REALM), message.get(Attribute::NONCE)) else {
            return false;
        };
        let key = Key::md5(&self.username, realm, &self.password);
        self.challenge = Some(Challenge { realm: realm.into(), nonce: nonce.into(), key });
        true
    }

    fn transaction(&mut self) -> TransactionId {
        self.count += 1;
        let mut transaction = [0; 12];
        let bytes = self.seed.to_be_bytes().into_iter().chain(self.count.to_be_bytes());
        transaction.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        transaction
    }
}

/// A ChannelData message; over a stream the caller pads it to four bytes.
pub fn channel_data(number: ChannelNumber, payload: &[u8]) -> Vec<u8> {
    let mut bytes = channel::head(number, payload.len() as u16).to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

fn build(write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Vec<u8> {
    let mut bytes = vec![0; REQUEST];
    let len = write(&mut bytes).unwrap_or(0);
    bytes.truncate(len);
    bytes
}
