//! DTLS 1.2 for clients, as a transformer of bytes: datagrams in, messages and datagrams out (RFC 7350, RFC 6347).
//!
//! Owns what all handshakes share (the certificate, the key of the cookies) and wraps the engine of one association.
//! A client proves its address before anything is kept for it: [`Shared::hear`] answers a first ClientHello from its
//! bytes alone. Only ECDSA certificates: the engine has no RSA. Never reads a socket or a clock, never knows what the
//! messages say. An engine that fails, or panics, is thrown away and takes nothing with it.
#![forbid(unsafe_code)]

use super::hello::{self, Hello, REFUSAL_LEN, VERIFY_LEN};
use crate::time::{Duration, Instant, seconds};
use crate::wire::integrity::SHA256_LEN;
use dimpl::crypto::{Buf, CryptoProvider, Dtls12CipherSuite, HmacProvider, rust_crypto};
use dimpl::{Config, CryptoError, Dtls, DtlsCertificate, HashAlgorithm, Output};
use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use zeroize::Zeroizing;

/// A handshake that takes longer is given up.
pub const HANDSHAKE_TIME: Duration = seconds(10);
/// The longest message of one record (RFC 6347 §4.1, RFC 5246 §6.2.1).
pub const MAX_MESSAGE: usize = 1 << 14;
/// Room that any output of an engine fits into: a record's length has 16 bits.
pub const ROOM: usize = 66 << 10;
/// Bytes of a datagram in a handshake: the longest flight of a client without a certificate is a tenth of it.
const MAX_HANDSHAKE_DATAGRAM: usize = 4 << 10;
/// Datagrams of a handshake that wait for one before them. With the line above: 32 KiB before a client is known.
const MAX_OUT_OF_ORDER: usize = 8;
/// Datagrams of one flight: a certificate of 11 KiB.
const MAX_FLIGHT: usize = 12;

/// The suite of every client that has it. The engine makes its nonces from record numbers; those of AES-GCM it draws by
/// chance, 64 bits each, so that two of a very long call could be the same.
const CHACHA20_POLY1305: [u8; 2] = [0xCC, 0xA9];
/// The suites of the engine that have forward secrecy.
const SUITES: [Dtls12CipherSuite; 3] = [
    Dtls12CipherSuite::ECDHE_ECDSA_AES256_GCM_SHA384,
    Dtls12CipherSuite::ECDHE_ECDSA_AES128_GCM_SHA256,
    Dtls12CipherSuite::ECDHE_ECDSA_CHACHA20_POLY1305_SHA256,
];

const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;

/// A certificate and its private key, seen to fit together.
pub struct Identity {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    unsent: usize,
}

/// Why a certificate cannot be used for DTLS. The sentence says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// There is no certificate.
    NoCertificate,
    /// The private key is of a kind the engine does not have.
    KeyKind(&'static str),
    /// The private key cannot be read.
    KeyUnreadable,
    /// The first certificate is not the private key's.
    Mismatch,
}

/// What the handshakes of every worker share.
pub struct Shared {
    identity: RwLock<Arc<Identity>>,
    cookie_key: Zeroizing<[u8; 32]>,
    /// For clients that have ChaCha20-Poly1305.
    chacha20: Arc<Config>,
    /// For the others.
    any: Arc<Config>,
    clock: Clock,
}

/// What a datagram is, before any association is looked for.
#[derive(Clone, Copy, Debug)]
pub enum Heard<'a> {
    /// A ClientHello without proof: this is its answer, and all that becomes of it.
    Unproven([u8; VERIFY_LEN]),
    /// A ClientHello whose sender has proven its address.
    Proven(Hello<'a>),
    /// A ClientHello of a client that knows no DTLS 1.2: this is its answer.
    TooOld([u8; REFUSAL_LEN]),
    /// A ClientHello that gets no answer: broken, in fragments, or shorter than the answer.
    Unanswerable,
    /// Any other record.
    Record,
}

/// One end of an association.
pub struct Engine {
    dtls: Dtls,
    clock: Clock,
    random: [u8; 32],
    /// What the numbers of unencrypted records are moved by, so that they go on from the client's hello.
    renumber: u64,
    deadline: Option<Instant>,
    is_open: bool,
}

/// What an engine has to say. Lengths count from the start of the room it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A datagram for the client.
    Packet(usize),
    /// A message of the client.
    Message(usize),
    /// The handshake is over.
    Open,
    /// The client has said goodbye.
    Closed,
    /// Nothing more for now.
    Idle,
}

/// An association cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

impl Identity {
    /// Takes a chain of certificates in DER, the server's own first, and its private key (PKCS#8 or SEC 1, in DER).
    pub fn new(chain: Vec<Vec<u8>>, key: &[u8]) -> Result<Self, IdentityError> {
        let unsent = chain.len().saturating_sub(1);
        let certificate = chain.into_iter().next().ok_or(IdentityError::NoCertificate)?;
        let provider = rust_crypto::default_provider();
        let mut signer = match (provider.key_provider.load_private_key(key), kind(key)) {
            (Ok(signer), _) => signer,
            (Err(_), Some(kind)) => return Err(IdentityError::KeyKind(kind)),
            (Err(_), None) => return Err(IdentityError::KeyUnreadable),
        };
        // Signing once tells at the start what else each client would find out alone.
        let (mut signature, hash) = (Buf::new(), signer.hash_algorithm());
        signer.sign(b"turnserver", hash, &mut signature).map_err(|_| IdentityError::KeyUnreadable)?;
        provider
            .signature_verification
            .verify_signature(&certificate, b"turnserver", &signature, hash, signer.algorithm())
            .map_err(|_| IdentityError::Mismatch)?;
        Ok(Self { certificate, key: Zeroizing::new(key.to_vec()), unsent })
    }

    /// Certificates of the chain that clients do not get: the engine sends the server's own alone, so a client that
    /// checks it has to know its issuer.
    pub fn unsent(&self) -> usize {
        self.unsent
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(…)")
    }
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ADVICE: &str = "DTLS needs an ECDSA certificate on P-256 or P-384, for example from `certbot --key-type \
                              ecdsa`";
        match self {
            Self::NoCertificate => f.write_str("there is no certificate"),
            Self::KeyKind(kind) => write!(f, "the private key is {kind}; {ADVICE}"),
            Self::KeyUnreadable => write!(f, "the private key cannot be read; {ADVICE}"),
            Self::Mismatch => {
                f.write_str("the first certificate is not that of the private key: put the server's own first")
            }
        }
    }
}

impl std::error::Error for IdentityError {}

impl Shared {
    /// Handshakes with this certificate, and cookies with a key of their own.
    pub fn new(identity: Identity) -> io::Result<Self> {
        let mut cookie_key = Zeroizing::new([0; 32]);
        getrandom::fill(cookie_key.as_mut()).map_err(io::Error::other)?;
        let (chacha20, any) = (config(&[Dtls12CipherSuite::ECDHE_ECDSA_CHACHA20_POLY1305_SHA256])?, config(&SUITES)?);
        let identity = RwLock::new(Arc::new(identity));
        Ok(Self { identity, cookie_key, chacha20, any, clock: Clock::start() })
    }

    /// Another certificate for the handshakes to come; open associations live on.
    pub fn set_identity(&self, identity: Identity) {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(identity);
    }

    /// Says what a datagram is, and what a client without proof is answered.
    pub fn hear<'a>(&self, now: Instant, from: SocketAddr, datagram: &'a [u8]) -> Heard<'a> {
        if !hello::is_hello(datagram) {
            return Heard::Record;
        }
        if !(VERIFY_LEN..=MAX_HANDSHAKE_DATAGRAM).contains(&datagram.len()) {
            return Heard::Unanswerable;
        }
        if let Some(alert) = hello::refusal(datagram) {
            return Heard::TooOld(alert);
        }
        let Some(hello) = Hello::parse(datagram) else { return Heard::Unanswerable };
        let key = &self.cookie_key[..];
        if hello.is_proven(key, from, now) {
            Heard::Proven(hello)
        } else {
            Heard::Unproven(hello.verify_request(key, from, now))
        }
    }

    /// Begins the handshake of a client that has proven its address.
    pub fn accept(&self, now: Instant, hello: &Hello<'_>) -> Result<Engine, Failed> {
        let cookie = hello.cookie.try_into().map_err(|_| Failed)?;
        let identity = Arc::clone(&self.identity.read().unwrap_or_else(PoisonError::into_inner));
        let config = if hello.offers(CHACHA20_POLY1305) { &self.chacha20 } else { &self.any };
        let (config, clock) = (Arc::clone(config), self.clock);
        let certificate =
            DtlsCertificate { certificate: identity.certificate.clone(), private_key: identity.key.to_vec() };
        let [s0, s1, s2, s3, s4, s5] = hello.sequence;
        let sequence = u64::from_be_bytes([0, 0, s0, s1, s2, s3, s4, s5]);
        let dtls = catch_unwind(AssertUnwindSafe(|| Dtls::new_12(config, certificate, clock.at(now))));
        let mut engine = Engine {
            dtls: dtls.map_err(|_| Failed)?,
            clock,
            random: hello.random,
            renumber: sequence.wrapping_sub(hello.number.into()),
            deadline: None,
            is_open: false,
        };
        engine.tick(now)?;
        // The engine counts messages from its first one, and the transcript holds the numbers: it has to have heard, and
        // asked for proof, as often as the client was asked.
        let mut room = [0; 256];
        for number in 0..hello.number {
            engine.guarded(|dtls| dtls.handle_packet(&hello::opener(number)))?;
            while engine.poll(&mut room)? != Event::Idle {}
        }
        PROVEN.set(Some(cookie));
        let result = engine.guarded(|dtls| dtls.handle_packet(hello.record));
        PROVEN.set(None);
        result.map(|()| engine)
    }
}

/// What engines go by that speak these suites.
fn config(suites: &[Dtls12CipherSuite]) -> io::Result<Arc<Config>> {
    let provider = CryptoProvider { hmac_provider: &Hmac, ..rust_crypto::default_provider() };
    let config = Config::builder()
        .with_crypto_provider(provider)
        .dtls12_cipher_suites(suites)
        .dtls13_cipher_suites(&[])
        .require_client_certificate(false)
        // The engine's own question is answered by `Hmac`: what it does after a cookie is what the client expects.
        .use_server_cookie(true)
        .handshake_timeout(HANDSHAKE_TIME)
        .max_queue_rx(MAX_OUT_OF_ORDER)
        .max_queue_tx(MAX_FLIGHT)
        .build();
    config.map(Arc::new).map_err(io::Error::other)
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared(…)")
    }
}

impl Engine {
    /// Whether this is the handshake of that hello, said once more.
    pub fn is_of(&self, hello: &Hello<'_>) -> bool {
        self.random == hello.random
    }

    /// Takes a datagram in. What comes of it, [`Engine::poll`] tells; nothing, when it was not the client's.
    pub fn receive(&mut self, now: Instant, datagram: &[u8]) -> Result<(), Failed> {
        if !self.is_open && datagram.len() > MAX_HANDSHAKE_DATAGRAM {
            return Ok(());
        }
        self.tick(now)?;
        self.guarded(|dtls| dtls.handle_packet(datagram))
    }

    /// Encrypts a message of at most [`MAX_MESSAGE`] bytes; the datagram comes out of [`Engine::poll`].
    pub fn send(&mut self, message: &[u8]) -> Result<(), Failed> {
        self.guarded(|dtls| dtls.send_application_data(message)).map(drop)
    }

    /// Says goodbye; the datagram comes out of [`Engine::poll`].
    pub fn close(&mut self) -> Result<(), Failed> {
        self.guarded(Dtls::close)
    }

    /// Tells the time: a flight that got no answer is sent again, a handshake that took too long has failed.
    pub fn tick(&mut self, now: Instant) -> Result<(), Failed> {
        let now = self.clock.at(now);
        self.guarded(|dtls| dtls.handle_timeout(now))
    }

    /// When a handshake wants [`Engine::tick`] next.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The next thing the engine has to say, in `room`; to be asked until it is idle.
    pub fn poll(&mut self, room: &mut [u8]) -> Result<Event, Failed> {
        loop {
            let (dtls, clock) = (&mut self.dtls, self.clock);
            let next = catch_unwind(AssertUnwindSafe(|| match dtls.poll_output(room) {
                Output::Packet(bytes) => Next::Said(Event::Packet(bytes.len())),
                Output::ApplicationData(bytes) => Next::Said(Event::Message(bytes.len())),
                Output::Connected => Next::Said(Event::Open),
                Output::CloseNotify => Next::Said(Event::Closed),
                Output::Timeout(at) => Next::Due(clock.back(at)),
                Output::BufferTooSmall { .. } => Next::TooLong,
                Output::PeerCert(_) | Output::KeyingMaterial(..) | _ => Next::Other,
            }));
            match next.map_err(|_| Failed)? {
                Next::Said(event) => {
                    self.is_open |= event == Event::Open;
                    if let Event::Packet(len) = event {
                        renumber(room.get_mut(..len).unwrap_or_default(), self.renumber);
                    }
                    return Ok(event);
                }
                Next::Due(at) => {
                    self.deadline = Some(at);
                    return Ok(Event::Idle);
                }
                Next::TooLong => return Err(Failed),
                Next::Other => {} // certificates of clients, keys for SRTP: nothing we asked for
            }
        }
    }

    /// The engine reads what the network says and is not ours: if it fails in any way, it alone is lost.
    fn guarded<T>(&mut self, act: impl FnOnce(&mut Dtls) -> Result<T, dimpl::Error>) -> Result<T, Failed> {
        let dtls = &mut self.dtls;
        catch_unwind(AssertUnwindSafe(|| act(dtls))).map_err(|_| Failed)?.map_err(|_| Failed)
    }
}

/// An output of the engine, without the borrow.
enum Next {
    Said(Event),
    Due(Instant),
    TooLong,
    Other,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("is_open", &self.is_open).finish_non_exhaustive()
    }
}

/// Whether a datagram's first record belongs to an association that is open already, where another handshake of the
/// same client is on its way: data and encrypted alerts do.
pub fn is_of_open(datagram: &[u8]) -> bool {
    match datagram {
        [APPLICATION_DATA, ..] => true,
        [ALERT, _, _, e0, e1, ..] => [*e0, *e1] != [0, 0],
        _ => false,
    }
}

/// Adds to the sequence numbers of unencrypted records. The first one repeats the number of the client's hello
/// (RFC 6347 §4.2.1): a lower one would look like a replay of our request for proof.
fn renumber(mut datagram: &mut [u8], by: u64) {
    const LOW_48: u64 = (1 << 48) - 1;
    while let [_, _, _, e0, e1, n0, n1, n2, n3, n4, n5, l0, l1, rest @ ..] = datagram {
        if [*e0, *e1] == [0, 0] {
            let number = u64::from_be_bytes([0, 0, *n0, *n1, *n2, *n3, *n4, *n5]).wrapping_add(by) & LOW_48;
            [_, _, *n0, *n1, *n2, *n3, *n4, *n5] = number.to_be_bytes();
        }
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        datagram = rest.get_mut(length..).unwrap_or_default();
    }
}

/// What a private key is, when it is one of those DTLS cannot use.
fn kind(key: &[u8]) -> Option<&'static str> {
    const RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01]; // 1.2.840.113549.1.1
    const EC: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01]; // 1.2.840.10045.2.1
    const EDWARDS: &[u8] = &[0x2B, 0x65]; // 1.3.101
    let (0x30, mut inside, _) = element(key)? else { return None };
    let (0x02, _version, rest) = element(inside)? else { return None };
    inside = rest;
    match element(inside)? {
        (0x02, ..) => Some("an RSA key"), // PKCS#1: the modulus follows
        (0x04, ..) => Some("an EC key on another curve"),
        (0x30, algorithm, _) => match element(algorithm)? {
            (0x06, oid, _) if oid.starts_with(RSA) => Some("an RSA key"),
            (0x06, oid, _) if oid == EC => Some("an EC key on another curve"),
            (0x06, oid, _) if oid.starts_with(EDWARDS) => Some("an Ed25519 or Ed448 key"),
            _ => None,
        },
        _ => None,
    }
}

/// The first element of DER bytes: tag, content, what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// Our clock as the engine's: both count the same nanoseconds, from two moments that were one.
#[derive(Clone, Copy, Debug)]
struct Clock {
    ours: Instant,
    theirs: std::time::Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the engine takes instants that only the system's clock can make")]
    fn start() -> Self {
        Self { theirs: std::time::Instant::now(), ours: super::clock::now().mono }
    }

    fn at(self, now: Instant) -> std::time::Instant {
        self.theirs + (now - self.ours)
    }

    fn back(self, at: std::time::Instant) -> Instant {
        self.ours + at.saturating_duration_since(self.theirs)
    }
}

thread_local! {
    /// The cookie of the hello that is being handed to an engine: one that [`Shared::hear`] found good.
    static PROVEN: Cell<Option<[u8; SHA256_LEN]>> = const { Cell::new(None) };
}

/// HMAC for the engine. `hmac_sha256` is what it makes cookies with, and nothing else: its keys come from `hmac`. It
/// cannot know ours, which were made before it, so for the hello in hand it is told the cookie that stands in it.
#[derive(Debug)]
struct Hmac;

impl HmacProvider for Hmac {
    fn hmac_sha256(&self, key: &[u8], data: &[u8]) -> Result<[u8; SHA256_LEN], CryptoError> {
        if let Some(cookie) = PROVEN.take() {
            return Ok(cookie);
        }
        let mut out = [0; SHA256_LEN];
        self.hmac(HashAlgorithm::SHA256, key, data, &mut out).map(|_| out)
    }

    fn hmac(&self, hash: HashAlgorithm, key: &[u8], data: &[u8], out: &mut [u8]) -> Result<usize, CryptoError> {
        static PROVIDER: OnceLock<&dyn HmacProvider> = OnceLock::new();
        PROVIDER.get_or_init(|| rust_crypto::default_provider().hmac_provider).hmac(hash, key, data, out)
    }
}
