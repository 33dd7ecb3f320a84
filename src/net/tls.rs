//! TLS for connections of clients: bytes of the wire in, bytes of messages out, and back (RFC 8656 §3.1, RFC 7443).
//!
//! Owns the certificates that handshakes are made with, and the state of each session. A session is a transformer: it
//! has no socket, and keeps no more of what is on its way through than one record, or one message of the handshake
//! (64 KiB at most). TLS 1.2 and 1.3 only; no renegotiation, no early data, no certificates of clients. Never opens a
//! file, never reads more than it was given.

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{
    Accepted, Acceptor, ClientHello, ProducesTickets, ResolvesServerCert, ServerConfig, ServerConnection,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, Error, InconsistentKeys, RootCertStore, SignatureAlgorithm};
use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

/// What a client may ask for by ALPN (RFC 7443 §3). One that asks for nothing gets TURN as well: browsers do not ask.
const PROTOCOLS: [&[u8]; 2] = [b"stun.turn", b"stun.nat-discovery"];
/// What browsers ask for (RFC 7301 §6, RFC 9113 §3.2).
const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";
/// The longest first flight of a client that is kept to be passed on.
const MAX_HELLO: usize = 16 << 10; // browsers send 2 KiB with a post-quantum key share
/// Tickets for a client that comes again, which mobile ones do often.
const TICKETS: usize = 1; // each is some 200 bytes, and a client uses one
/// The most plaintext that one record holds (RFC 8446 §5.1).
const RECORD: usize = 1 << 14;
/// The most that a record is longer than its plaintext (RFC 5246 §6.2.3), and its head.
const RECORD_EXCESS: usize = 2048 + 5;
/// Bytes of the wire that [`Session::receive`] takes at once.
pub const WIRE_ROOM: usize = 40 << 10; // two records and a half: few reads for a fast client
/// Room for the plaintext of that: what was given, and the record that lay half inside already.
pub const CLEAR_ROOM: usize = WIRE_ROOM + RECORD + RECORD_EXCESS;

/// The oldest version a client may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// A certificate with those that vouch for it, and its key.
#[derive(Debug)]
pub struct Pair {
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<PrivateKeyDer<'static>>,
    certified: Arc<CertifiedKey>,
    /// DNS names, in lower case, wildcards as they are written.
    names: Vec<String>,
    label: Option<String>,
    not_after: u64,
}

/// What a key signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA, the only one that DTLS can use here.
    Ecdsa,
    /// RSA.
    Rsa,
    /// Anything else, such as Ed25519.
    Other,
}

/// Why a certificate and a key are no pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PairError {
    /// There is no certificate in what should hold one.
    NoCertificate,
    /// There is one that cannot be read.
    BadCertificate(String),
    /// There is no key in what should hold one.
    NoKey,
    /// There is one under a passphrase.
    EncryptedKey,
    /// There is one that cannot be used.
    BadKey(String),
    /// Both are right, and do not belong together.
    Mismatch,
}

impl PairError {
    /// Whether the key's file is to be mended, or else the certificate's.
    pub const fn is_about_key(&self) -> bool {
        matches!(self, Self::NoKey | Self::EncryptedKey | Self::BadKey(_) | Self::Mismatch)
    }
}

impl fmt::Display for PairError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("holds no certificate; it must be PEM, with the server's own one first"),
            Self::BadCertificate(why) => write!(f, "a certificate in it cannot be read: {why}"),
            Self::NoKey => f.write_str("holds no private key; it must be PEM: PKCS#8, PKCS#1 (RSA) or SEC1 (EC)"),
            Self::EncryptedKey => f.write_str(
                "the key is under a passphrase, which nobody could type at a start; write it without one: \
                 openssl pkey -in FILE -out NEW",
            ),
            Self::BadKey(why) => write!(
                f,
                "the key in it cannot be used: {why}; RSA (2048 bits or more), EC (P-256, P-384) and Ed25519 can"
            ),
            Self::Mismatch => f.write_str("the key does not belong to the certificate"),
        }
    }
}

impl std::error::Error for PairError {}

impl Pair {
    /// Reads a pair from the text of two PEM files and makes sure that both belong together.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, PairError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates).collect();
        let chain = chain.map_err(|error| PairError::BadCertificate(error.to_string()))?;
        let leaf = chain.first().ok_or(PairError::NoCertificate)?;
        let (_, leaf) =
            X509Certificate::from_der(leaf).map_err(|error| PairError::BadCertificate(error.to_string()))?;
        let (names, label) = names(&leaf);
        let not_after = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
        let key = match PrivateKeyDer::pem_slice_iter(key).next() {
            Some(Ok(key)) => Zeroizing::new(key),
            Some(Err(error)) => return Err(PairError::BadKey(error.to_string())),
            None if is_encrypted(key) => return Err(PairError::EncryptedKey),
            None => return Err(PairError::NoKey),
        };
        let certified = CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider());
        let certified = certified.map_err(|error| {
            if error == Error::InconsistentKeys(InconsistentKeys::KeyMismatch) {
                PairError::Mismatch
            } else if let Error::InvalidCertificate(why) = error {
                PairError::BadCertificate(format!("{why:?}"))
            } else if let Error::General(why) = error {
                PairError::BadKey(why)
            } else {
                PairError::BadKey(error.to_string())
            }
        })?;
        Ok(Self { chain, key, certified: Arc::new(certified), names, label, not_after })
    }

    /// The certificates as they are sent, the server's own one first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The key.
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// What the key signs with.
    pub fn algorithm(&self) -> Algorithm {
        let algorithm = self.certified.key.algorithm();
        if algorithm == SignatureAlgorithm::ECDSA {
            Algorithm::Ecdsa
        } else if algorithm == SignatureAlgorithm::RSA {
            Algorithm::Rsa
        } else {
            Algorithm::Other
        }
    }

    /// What people call it: its first DNS name, else its common name. `None` when it has neither; never an IP address.
    pub fn name(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// When it ends, in seconds since 1970.
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// Whether this name, in lower case, is one of the certificate's own (RFC 9525 §6.3: `*` stands for one label).
    fn is_for(&self, name: &str) -> bool {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|own| match own.strip_prefix("*.") {
            Some(own) => parent == Some(own),
            None => own == name,
        })
    }
}

/// The DNS names of a certificate, and what to call it.
fn names(leaf: &X509Certificate<'_>) -> (Vec<String>, Option<String>) {
    let alternatives = leaf.subject_alternative_name().ok().flatten();
    let alternatives = alternatives.iter().flat_map(|extension| &extension.value.general_names);
    let names: Vec<String> = alternatives
        .filter_map(|name| if let GeneralName::DNSName(name) = name { Some(*name) } else { None })
        .map(|name| name.trim_end_matches('.').to_lowercase())
        .collect();
    let common = leaf.subject().iter_common_name().find_map(|name| name.as_str().ok());
    let common = common.filter(|name| name.parse::<IpAddr>().is_err()).map(str::to_owned);
    let label = names.first().cloned().or(common);
    (names, label)
}

fn is_encrypted(pem: &[u8]) -> bool {
    const MARK: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
    pem.windows(MARK.len()).any(|part| part == MARK)
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Every pair that handshakes may use, the same for all workers. New ones take their place all at once: handshakes that
/// begin later see them, open connections live on with what they began with.
#[derive(Debug)]
pub struct Certificates {
    current: RwLock<Current>,
    /// Outlives the pairs: a client's ticket is good after a renewal.
    tickets: Arc<dyn ProducesTickets>,
}

#[derive(Debug)]
struct Current {
    pairs: Arc<[Pair]>,
    config: Arc<ServerConfig>,
    /// The same for a web server behind us.
    http1: Arc<ServerConfig>,
    http2: Arc<ServerConfig>,
}

/// Why pairs cannot be put in force.
#[derive(Clone, Debug, PartialEq)]
pub enum CertificatesError {
    /// There is none.
    NoPair,
    /// The library refuses: no randomness, or a provider without a cipher.
    Engine(Error),
}

impl fmt::Display for CertificatesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPair => f.write_str("there is no certificate to serve TLS with; set tls.cert and tls.key"),
            Self::Engine(error) => write!(f, "TLS cannot be served: {error}"),
        }
    }
}

impl std::error::Error for CertificatesError {}

impl Certificates {
    /// The pairs to begin with; the first is for clients that name no server, or one that no pair is for.
    pub fn new(pairs: Vec<Pair>, min_version: MinVersion) -> Result<Self, CertificatesError> {
        let tickets = ring::Ticketer::new().map_err(CertificatesError::Engine)?;
        let current = Current::new(pairs, min_version, &tickets)?;
        Ok(Self { current: RwLock::new(current), tickets })
    }

    /// Puts other pairs in force.
    pub fn replace(&self, pairs: Vec<Pair>, min_version: MinVersion) -> Result<(), CertificatesError> {
        let next = Current::new(pairs, min_version, &self.tickets)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// The pairs in force, in their order.
    pub fn pairs(&self) -> Arc<[Pair]> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).pairs)
    }

    /// The server's side of a handshake that begins.
    pub fn session(&self) -> Result<Session, Error> {
        let config = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).config);
        Ok(Session::new(ServerConnection::new(config)?))
    }

    /// The same for a client that has said its first word. An error comes with the alert for the client.
    pub fn answer(&self, hello: Accepted, with: Protocol) -> Result<Session, (Error, Vec<u8>)> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let config = Arc::clone(match with {
            Protocol::Turn => &current.config,
            Protocol::Http1 => &current.http1,
            Protocol::Http2 => &current.http2,
        });
        drop(current);
        let made = hello.into_connection(config).map(Session::new);
        made.map_err(|(error, mut alert)| {
            let mut wire = Vec::new();
            let _ = alert.write_all(&mut wire); // into memory
            (error, wire)
        })
    }
}

impl Current {
    fn new(
        pairs: Vec<Pair>,
        min_version: MinVersion,
        tickets: &Arc<dyn ProducesTickets>,
    ) -> Result<Self, CertificatesError> {
        if pairs.is_empty() {
            return Err(CertificatesError::NoPair);
        }
        let pairs: Arc<[Pair]> = pairs.into();
        let versions: &[_] = match min_version {
            MinVersion::Tls12 => &[&TLS13, &TLS12],
            MinVersion::Tls13 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(versions).map_err(CertificatesError::Engine)?;
        let by_name = ByName(Arc::clone(&pairs));
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(by_name));
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        config.ticketer = Arc::clone(tickets);
        config.send_tls13_tickets = TICKETS;
        let for_web = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        let (http1, http2) = (for_web(HTTP1), for_web(HTTP2));
        Ok(Self { pairs, config: Arc::new(config), http1, http2 })
    }
}

/// Finds the pair that a client asks for.
#[derive(Debug)]
struct ByName(Arc<[Pair]>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(|name| name.trim_end_matches('.').to_lowercase());
        let named = || self.0.iter().filter(|pair| name.as_deref().is_some_and(|name| pair.is_for(name)));
        // Of an RSA and an ECDSA pair for one name, the client must be able to verify the one it gets.
        let can_verify = |pair: &&Pair| pair.certified.key.choose_scheme(hello.signature_schemes()).is_some();
        let found = named().find(can_verify).or_else(|| named().next());
        let found = found.or_else(|| self.0.iter().find(can_verify)).or_else(|| self.0.first());
        found.map(|pair| Arc::clone(&pair.certified))
    }
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TURN and STUN, or whatever a client without ALPN says.
    Turn,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// A client's first word, before it is decided who answers it. Keeps it as it came, 16 KiB at most.
#[derive(Default)]
pub struct Hello {
    acceptor: Acceptor,
    raw: Vec<u8>,
}

/// What came of bytes for a [`Hello`].
pub enum Heard {
    /// It is not whole.
    Partial,
    /// It is.
    Whole {
        /// What it asks for.
        offer: Offer,
        /// For [`Certificates::answer`].
        hello: Box<Accepted>,
        /// How many of the bytes stand behind it; they are for the session that answers.
        rest: usize,
    },
    /// It is none; with the alert for the client.
    Failed(Error, Vec<u8>),
}

/// What a client asks for by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// TURN, wherever it stands in the list, or nothing that a web server speaks. No browser asks for TURN, and coturn's
    /// client names HTTP before it.
    Turn,
    /// HTTP; at least one of these.
    Http {
        /// HTTP/1.1 is among them.
        http1: bool,
        /// HTTP/2 is, ...
        http2: bool,
        /// ... and before HTTP/1.1.
        prefers_http2: bool,
    },
}

impl Offer {
    fn of(hello: &ClientHello<'_>) -> Self {
        let (mut http1, mut http2, mut prefers_http2) = (false, false, false);
        for name in hello.alpn().into_iter().flatten() {
            if PROTOCOLS.contains(&name) {
                return Self::Turn;
            }
            prefers_http2 |= name == HTTP2 && !http1;
            http1 |= name == HTTP1;
            http2 |= name == HTTP2;
        }
        if http1 || http2 { Self::Http { http1, http2, prefers_http2 } } else { Self::Turn }
    }
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello").field("len", &self.raw.len()).finish_non_exhaustive()
    }
}

impl Hello {
    /// Takes more bytes of the wire.
    pub fn hear(&mut self, mut wire: &[u8]) -> Heard {
        if self.raw.len() + wire.len() > MAX_HELLO {
            return Heard::Failed(Error::General("the first flight is too long".into()), Vec::new());
        }
        self.raw.extend_from_slice(wire);
        while !wire.is_empty() {
            if let Err(error) = self.acceptor.read_tls(&mut wire) {
                return Heard::Failed(Error::General(error.to_string()), Vec::new());
            }
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(hello)) => {
                    let offer = Offer::of(&hello.client_hello());
                    return Heard::Whole { offer, hello: hello.into(), rest: wire.len() };
                }
                Err((error, mut alert)) => {
                    let mut wire = Vec::new();
                    let _ = alert.write_all(&mut wire); // into memory
                    return Heard::Failed(error, wire);
                }
            }
        }
        Heard::Partial
    }

    /// The bytes as they came.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }
}

/// The first word of a client that only wants to know whether TLS is spoken.
pub(super) fn a_hello() -> std::io::Result<Vec<u8>> {
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = config.map_err(std::io::Error::other)?;
    let mut config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = vec![HTTP1.to_vec()];
    let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
    let mut client = ClientConnection::new(Arc::new(config), name).map_err(std::io::Error::other)?;
    let mut wire = Vec::new();
    client.write_tls(&mut wire)?;
    Ok(wire)
}

/// One client's TLS, from its first byte on.
#[derive(Debug)]
pub struct Session(ServerConnection);

/// What came out of bytes of the wire.
#[derive(Debug)]
pub struct Received {
    /// How many bytes of plaintext.
    pub len: usize,
    /// What ended the session after those.
    pub over: Option<Over>,
}

/// Why a session can receive nothing more.
#[derive(Debug)]
pub enum Over {
    /// The client said so (close_notify).
    Closed,
    /// The handshake or a record is not what it must be; an alert for the client is to be sent.
    Failed(Error),
}

impl Session {
    fn new(mut connection: ServerConnection) -> Self {
        connection.set_buffer_limit(Some(RECORD + RECORD_EXCESS));
        Self(connection)
    }

    /// Whether no data can flow yet.
    pub fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// Takes all of `wire`, at most [`WIRE_ROOM`] bytes, and writes its plaintext to `clear`, which has [`CLEAR_ROOM`].
    /// What is to be sent because of it comes from [`Session::take_output`].
    pub fn receive(&mut self, mut wire: &[u8], clear: &mut [u8]) -> Received {
        let mut len = 0;
        while !wire.is_empty() {
            match self.0.read_tls(&mut wire) {
                Ok(0) => return Received { len, over: Some(Over::Closed) },
                Ok(_) => {}
                Err(error) => return Received { len, over: Some(Over::Failed(Error::General(error.to_string()))) },
            }
            let state = self.0.process_new_packets();
            // What stood before a broken record, or before the end, counts.
            while let Ok(count @ 1..) = self.0.reader().read(clear.get_mut(len..).unwrap_or_default()) {
                len += count;
            }
            match state {
                Err(error) => return Received { len, over: Some(Over::Failed(error)) },
                Ok(state) if state.peer_has_closed() => return Received { len, over: Some(Over::Closed) },
                Ok(_) => {}
            }
        }
        Received { len, over: None }
    }

    /// Appends the records of `clear` to `wire`, behind whatever was to be sent before.
    pub fn send(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> Result<(), std::io::Error> {
        for piece in clear.chunks(RECORD) {
            self.take_output(wire);
            self.0.writer().write_all(piece)?;
        }
        self.take_output(wire);
        Ok(())
    }

    /// Appends what the session itself has to say: its part of the handshake, alerts, tickets.
    pub fn take_output(&mut self, wire: &mut Vec<u8>) {
        take_output(&mut self.0, wire);
    }

    /// Says goodbye (close_notify), unless an alert has said it already.
    pub fn close(&mut self, wire: &mut Vec<u8>) {
        self.0.send_close_notify();
        self.take_output(wire);
    }
}

/// Appends what either side of a session has to say.
pub(super) fn take_output<D>(session: &mut rustls::ConnectionCommon<D>, wire: &mut Vec<u8>) {
    while session.wants_write() {
        if !matches!(session.write_tls(wire), Ok(1..)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn pem(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(2033, 5, 18);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn pair(names: &[&str]) -> Pair {
        let (cert, key) = pem(names);
        Pair::from_pem(cert.as_bytes(), key.as_bytes()).unwrap()
    }

    fn served(names: &[&str]) -> Certificates {
        Certificates::new(vec![pair(names)], MinVersion::Tls12).unwrap()
    }

    fn client(of: &Certificates, name: &str, alpn: &[&str]) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        of.pairs().iter().for_each(|pair| roots.add(pair.chain()[0].clone()).unwrap());
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap()
    }

    /// Carries bytes both ways until neither side has any; what the server heard, and how it ended.
    fn talk(server: &mut Session, client: &mut ClientConnection) -> (Vec<u8>, Option<Over>) {
        let (mut heard, mut clear) = (Vec::new(), vec![0; CLEAR_ROOM]);
        loop {
            let (mut up, mut down) = (Vec::new(), Vec::new());
            while client.wants_write() {
                client.write_tls(&mut up).unwrap();
            }
            for piece in up.chunks(WIRE_ROOM) {
                let received = server.receive(piece, &mut clear);
                heard.extend_from_slice(&clear[..received.len]);
                if received.over.is_some() {
                    return (heard, received.over);
                }
            }
            server.take_output(&mut down);
            let mut down = down.as_slice();
            while !down.is_empty() {
                client.read_tls(&mut down).unwrap();
                client.process_new_packets().unwrap();
            }
            if !client.wants_write() {
                return (heard, None);
            }
        }
    }

    #[test]
    fn what_goes_in_clear_comes_out_clear_whatever_its_length() {
        let certificates = served(&["a.example"]);
        let (mut server, mut client) = (certificates.session().unwrap(), client(&certificates, "a.example", &[]));
        assert!(server.is_handshaking());
        talk(&mut server, &mut client);
        assert!(!server.is_handshaking());
        for len in [1, RECORD - 1, RECORD, RECORD + 1, 3 * RECORD] {
            client.writer().write_all(&vec![7; len]).unwrap();
            let (heard, over) = talk(&mut server, &mut client);
            assert_eq!((heard, over.is_none()), (vec![7; len], true));
            let mut wire = Vec::new();
            server.send(&vec![9; len], &mut wire).unwrap();
            let (mut wire, mut back) = (wire.as_slice(), Vec::new());
            while !wire.is_empty() {
                client.read_tls(&mut wire).unwrap();
                client.process_new_packets().unwrap();
                let _no_more_now = client.reader().read_to_end(&mut back);
            }
            assert_eq!(back, vec![9; len]);
        }
        client.send_close_notify();
        assert!(matches!(talk(&mut server, &mut client), (_, Some(Over::Closed))));
    }

    #[test]
    fn all_that_one_read_can_bring_fits_behind_a_record_that_lay_half_inside() {
        let certificates = served(&["a.example"]);
        let (mut server, mut client) = (certificates.session().unwrap(), client(&certificates, "a.example", &[]));
        talk(&mut server, &mut client);
        client.set_buffer_limit(None);
        client.writer().write_all(&[7; 16 * RECORD]).unwrap();
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let (mut total, mut clear) = (0, vec![0; CLEAR_ROOM]);
        // The worst cut: all but one byte of a record is inside when a full read comes.
        let (first, rest) = wire.split_at(RECORD + 21);
        for piece in core::iter::once(first).chain(rest.chunks(WIRE_ROOM)) {
            let received = server.receive(piece, &mut clear);
            assert!(received.over.is_none(), "{received:?}");
            total += received.len;
        }
        assert_eq!(total, 16 * RECORD);
    }

    #[test]
    fn a_byte_at_a_time_is_as_good_as_all_at_once_and_garbage_is_an_error() {
        let certificates = served(&["a.example"]);
        let (mut server, mut client) = (certificates.session().unwrap(), client(&certificates, "a.example", &[]));
        let (mut hello, mut clear) = (Vec::new(), vec![0; CLEAR_ROOM]);
        client.write_tls(&mut hello).unwrap();
        let mut answer = Vec::new();
        for byte in &hello {
            assert!(answer.is_empty());
            assert!(server.receive(&[*byte], &mut clear).over.is_none());
            server.take_output(&mut answer);
        }
        assert!(answer.len() > 100, "the server's flight comes with the last byte");
        let mut server = certificates.session().unwrap();
        assert!(matches!(server.receive(b"GET / HTTP/1.1\r\n\r\n", &mut clear).over, Some(Over::Failed(_))));
        let mut alert = Vec::new();
        server.take_output(&mut alert);
        server.close(&mut alert);
        assert_eq!((alert.len(), alert[0]), (7, 21), "one alert and no goodbye after it");
    }

    #[test]
    fn alpn_knows_turn_and_discovery_and_nothing_else() {
        let certificates = served(&["a.example"]);
        for (offer, is_taken) in [
            (&[][..], true),
            (&["stun.turn"], true),
            (&["stun.nat-discovery"], true),
            (&["http/1.1", "stun.turn"], true),
            (&["h2", "http/1.1"], false),
        ] {
            let (mut server, mut client) = (certificates.session().unwrap(), client(&certificates, "a.example", offer));
            let (_, over) = talk(&mut server, &mut client);
            assert_eq!(over.is_none(), is_taken, "{offer:?}: {over:?}");
            assert!(is_taken || matches!(over, Some(Over::Failed(Error::NoApplicationProtocol))));
        }
    }

    #[test]
    fn a_first_word_is_kept_as_it_came_and_says_who_answers_it() {
        let certificates = served(&["a.example"]);
        let http = |http1, http2, prefers_http2| Offer::Http { http1, http2, prefers_http2 };
        for (alpn, expected) in [
            (&[][..], Offer::Turn),
            (&["stun.turn"], Offer::Turn),
            (&["http/1.1", "stun.turn"], Offer::Turn),
            (&["acme-tls/1"], Offer::Turn),
            (&["h2", "http/1.1"], http(true, true, true)),
            (&["http/1.1", "h2"], http(true, true, false)),
            (&["h2"], http(false, true, true)),
        ] {
            let mut caller = client(&certificates, "a.example", alpn);
            let (mut wire, mut hello, mut heard) = (Vec::new(), Hello::default(), None);
            caller.write_tls(&mut wire).unwrap();
            for byte in &wire {
                assert!(heard.is_none(), "it ends with its last byte");
                match hello.hear(&[*byte]) {
                    Heard::Partial => {}
                    Heard::Whole { offer, hello, rest } => heard = Some((offer, hello, rest)),
                    Heard::Failed(error, _) => panic!("{error}"),
                }
            }
            let (offer, accepted, rest) = heard.expect("it is whole");
            assert_eq!((offer, rest, hello.raw()), (expected, 0, wire.as_slice()));
            let with = if offer == Offer::Turn { Protocol::Turn } else { Protocol::Http2 };
            let session = certificates.answer(*accepted, with);
            assert_eq!(session.is_ok(), !alpn.contains(&"acme-tls/1"), "{alpn:?}");
            let Ok(mut session) = session else { continue };
            if alpn != ["http/1.1", "h2"] {
                talk(&mut session, &mut caller);
                assert!(!session.is_handshaking(), "{alpn:?}");
            }
        }
    }

    #[test]
    fn a_first_word_without_end_or_sense_is_none() {
        let mut endless = Hello::default();
        // A message of 60,000 bytes in records of 1,000.
        let record = [&[22, 3, 1, 3, 0xE8][..], &[1, 0, 0xEA, 0x60], &[7; 996]].concat();
        let heard = (0..40).map(|_| endless.hear(&record)).position(|heard| matches!(heard, Heard::Failed(..)));
        assert!(heard.is_some_and(|at| at * record.len() <= MAX_HELLO));
        assert!(matches!(Hello::default().hear(b"GET / HTTP/1.1\r\n\r\n"), Heard::Failed(..)));
        let Heard::Failed(_, alert) = Hello::default().hear(&[22, 3, 1, 0, 6, 1, 0, 0, 2, 0xFF, 0xFF]) else {
            panic!("that is no hello");
        };
        assert_eq!((alert.len(), alert[0]), (7, 21), "the client is told");
    }

    #[test]
    fn a_pair_is_found_by_name_and_the_first_is_for_everybody_else() {
        let one = pair(&["a.example", "*.B.example", "192.0.2.1"]);
        for name in ["a.example", "x.b.example"] {
            assert!(one.is_for(name), "{name}");
        }
        for name in ["b.example", "x.y.b.example", "xa.example", "", ".b.example.", "192.0.2.1"] {
            assert!(!one.is_for(name), "{name}");
        }
        assert_eq!((one.name(), one.not_after()), (Some("a.example"), 1_999_987_200));
        assert_eq!((one.algorithm(), one.chain().len()), (Algorithm::Ecdsa, 1));
        assert!(matches!(one.key(), PrivateKeyDer::Pkcs8(_)));
    }

    #[test]
    fn an_open_session_outlives_its_certificate_and_a_new_one_sees_the_next() {
        let certificates = served(&["a.example"]);
        let (mut old, mut caller) = (certificates.session().unwrap(), client(&certificates, "a.example", &[]));
        talk(&mut old, &mut caller);
        certificates.replace(vec![pair(&["b.example"])], MinVersion::Tls13).unwrap();
        caller.writer().write_all(b"still here").unwrap();
        assert_eq!(talk(&mut old, &mut caller).0, b"still here");
        let (mut new, mut caller) = (certificates.session().unwrap(), client(&certificates, "b.example", &[]));
        talk(&mut new, &mut caller);
        assert!(!new.is_handshaking() && certificates.pairs()[0].name() == Some("b.example"));
        assert_eq!(certificates.replace(Vec::new(), MinVersion::Tls12), Err(CertificatesError::NoPair));
    }

    #[test]
    fn what_is_no_pair_is_said_in_a_word() {
        let ((cert, key), (_, other)) = (pem(&["a.example"]), pem(&["b.example"]));
        let refused = |cert: &str, key: &str| Pair::from_pem(cert.as_bytes(), key.as_bytes()).unwrap_err();
        assert_eq!(refused(&cert, &other), PairError::Mismatch);
        assert_eq!(refused("", &key), PairError::NoCertificate);
        assert_eq!(refused(&key, &key), PairError::NoCertificate);
        assert_eq!(refused(&cert, &cert), PairError::NoKey);
        let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert_eq!(refused(&cert, locked), PairError::EncryptedKey);
        let cut = cert.replace("-----END", "-----DNE");
        assert!(matches!(refused(&cut, &key), PairError::BadCertificate(_)));
        let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(refused(empty, &key), PairError::BadCertificate(_)));
        let empty = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(matches!(refused(&cert, empty), PairError::BadKey(_)));
        // Certificate and key in one file, as some programs want them.
        let both = cert + &key;
        assert!(Pair::from_pem(both.as_bytes(), both.as_bytes()).is_ok());
    }
}
