//! TLS as a client: whom to believe, and a session with a server.
//!
//! A session is a transformer, as [`super::tls::Session`] is: it has no socket. Never opens a file; the certificates to
//! believe come in as bytes.

use super::tls::{provider, take_output};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

/// What a client asks for by ALPN (RFC 7443 §3).
const PROTOCOL: &[u8] = b"stun.turn";

/// Whom a client believes, and whom it asks for.
#[derive(Debug)]
pub struct Trust {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// Why nobody can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustError {
    /// No server can have this name.
    Name(String),
    /// There is no certificate in what should hold some.
    NoCertificate,
    /// There is one that cannot be read or used.
    BadCertificate(String),
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name} is neither a host name nor an address"),
            Self::NoCertificate => f.write_str("holds no certificate; it must be PEM"),
            Self::BadCertificate(why) => write!(f, "a certificate in it cannot be used: {why}"),
        }
    }
}

impl std::error::Error for TrustError {}

impl Trust {
    /// Believes whom the certificates in `pem` vouch for, if that is `name`.
    pub fn in_authorities(pem: &[u8], name: &str) -> Result<Self, TrustError> {
        let bad = |why: String| TrustError::BadCertificate(why);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| bad(format!("{error:?}")))?;
            // A bundle of a system holds old ones that no library takes any more.
            let _unusable = roots.add(certificate);
        }
        if roots.is_empty() {
            return Err(TrustError::NoCertificate);
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        Self::with(verifier.map_err(|error| bad(error.to_string()))?, name)
    }

    /// Believes everybody.
    pub fn in_anybody(name: &str) -> Result<Self, TrustError> {
        Self::with(Arc::new(Anybody(provider())), name)
    }

    fn with(verifier: Arc<dyn ServerCertVerifier>, name: &str) -> Result<Self, TrustError> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| TrustError::Name(name.to_owned()))?;
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.map_err(|error| TrustError::BadCertificate(error.to_string()))?;
        let mut config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self { config: Arc::new(config), name })
    }

    /// A session that begins.
    pub fn session(&self) -> Result<Session, Error> {
        let mut connection = ClientConnection::new(self.config.clone(), self.name.clone())?;
        // Whoever sends bounds what waits.
        connection.set_buffer_limit(None);
        Ok(Session(connection))
    }
}

/// Believes any certificate; the handshake must still be signed by its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// One connection's TLS, seen from the client.
#[derive(Debug)]
pub struct Session(ClientConnection);

impl Session {
    /// Takes bytes of the wire and appends their plaintext to `clear`. What is to be sent because of it comes from
    /// [`Session::take_output`].
    pub fn receive(&mut self, mut wire: &[u8], clear: &mut Vec<u8>) -> io::Result<()> {
        while !wire.is_empty() {
            self.0.read_tls(&mut wire)?;
            let state = self.0.process_new_packets().map_err(io::Error::other)?;
            let count = state.plaintext_bytes_to_read();
            let start = clear.len();
            clear.resize(start + count, 0);
            self.0.reader().read_exact(clear.get_mut(start..).unwrap_or_default())?;
            if state.peer_has_closed() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Appends the records of `clear` to `wire`; before the handshake is over they wait inside.
    pub fn send(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> io::Result<()> {
        self.0.writer().write_all(clear)?;
        self.take_output(wire);
        Ok(())
    }

    /// Appends what the session itself has to say.
    pub fn take_output(&mut self, wire: &mut Vec<u8>) {
        take_output(&mut self.0, wire);
    }
}
