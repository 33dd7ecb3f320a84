//! The crate `turn-client-proto`, over UDP, TCP and TLS, with real sockets under it.

use crate::pair::Authority;
use crate::server::{Server, Setup, until};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use turn_client_proto::api::{TurnConfig, TurnEvent, TurnRecvRet};
use turn_client_proto::prelude::*;
use turn_client_proto::stun::Instant;
use turn_client_proto::stun::agent::Transmit;
use turn_client_proto::stun::auth::Feature;
use turn_client_proto::tcp::TurnClientTcp;
use turn_client_proto::types::stun::message::IntegrityAlgorithm;
use turn_client_proto::types::{TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;

/// How long one read may wait before the client is asked what it wants.
const READ: Duration = Duration::from_millis(20);

/// The socket under the client.
enum Wire {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    fn udp(server: &Server) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(server.address()).expect("loopback is there");
        socket.set_read_timeout(Some(READ)).expect("a time-out can be set");
        Self::Udp(socket)
    }

    fn tcp(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address()).expect("the server listens");
        stream.set_read_timeout(Some(READ)).expect("a time-out can be set");
        Self::Tcp(stream)
    }

    fn tls(server: &Server, authority: &Authority) -> Self {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("a certificate");
        roots.add(authority).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.expect("the provider has them").with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"stun.turn".to_vec()];
        let name = ServerName::try_from("turn.example.org").expect("a name");
        let session = ClientConnection::new(Arc::new(config), name).expect("a client");
        let stream = TcpStream::connect(server.tls_address()).expect("the server listens");
        stream.set_read_timeout(Some(READ)).expect("a time-out can be set");
        Self::Tls(Box::new(StreamOwned::new(session, stream)))
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Udp(socket) => socket.local_addr(),
            Self::Tcp(stream) => stream.local_addr(),
            Self::Tls(stream) => stream.sock.local_addr(),
        }
        .expect("a connected socket has an address")
    }

    fn write(&mut self, bytes: &[u8]) {
        match self {
            Self::Udp(socket) => drop(socket.send(bytes).expect("loopback is there")),
            Self::Tcp(stream) => stream.write_all(bytes).expect("the server reads"),
            // A read that found nothing may have left the handshake half done; writing goes on with it.
            Self::Tls(stream) => {
                stream.write_all(bytes).expect("the server reads");
                stream.flush().expect("the server reads");
            }
        }
    }

    fn read(&mut self, room: &mut [u8]) -> usize {
        match self {
            Self::Udp(socket) => socket.recv(room),
            Self::Tcp(stream) => stream.read(room),
            Self::Tls(stream) => stream.read(room),
        }
        .unwrap_or(0)
    }
}

/// A client, its socket, and what it has told.
struct Driver<C> {
    client: C,
    wire: Wire,
    events: Vec<TurnEvent>,
    heard: Vec<(SocketAddr, Vec<u8>)>,
}

impl<C: TurnClientApi> Driver<C> {
    fn new(client: C, wire: Wire) -> Self {
        Self { client, wire, events: Vec::new(), heard: Vec::new() }
    }

    /// Lets the client send and receive until `done`.
    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        until(what, || {
            self.turn();
            done(self)
        });
    }

    fn turn(&mut self) {
        self.flush();
        let mut room = [0; 65_536];
        let len = self.wire.read(&mut room);
        let (local, remote) = (self.wire.address(), self.client.remote_addr());
        if len > 0 {
            let came = Transmit::new(room[..len].to_vec(), self.client.transport(), remote, local);
            if let TurnRecvRet::PeerData(data) = self.client.recv(came, now()) {
                self.heard.push((data.peer, data.data().to_vec()));
            }
        }
        while let Some(data) = self.client.poll_recv(now()) {
            self.heard.push((data.peer, data.data().to_vec()));
        }
        self.flush();
    }

    fn flush(&mut self) {
        let _ = self.client.poll(now());
        while let Some(wanted) = self.client.poll_transmit(now()) {
            self.wire.write(wanted.data.as_ref());
        }
        while let Some(event) = self.client.poll_event() {
            self.events.push(event);
        }
    }

    fn send(&mut self, peer: SocketAddr, bytes: &[u8]) {
        let sent = self.client.send_to(TransportType::Udp, peer, bytes.to_vec(), now()).expect("the client sends");
        if let Some(wanted) = sent {
            let bytes = wanted.data.build();
            self.wire.write(&bytes);
        }
    }

    fn relayed(&self) -> Option<SocketAddr> {
        self.client.relayed_addresses().next().map(|(_, address)| address)
    }
}

fn now() -> Instant {
    let now = turnserver::net::clock::now().mono.0;
    Instant::from_nanos(i64::try_from(now).expect("this machine has not run for three centuries"))
}

/// What this client does by itself: it repeats PASSWORD-ALGORITHMS, chooses MD5 and signs with MESSAGE-INTEGRITY, and so
/// must the answer be.
fn config(password: &str) -> TurnConfig {
    TurnConfig::new(TurnCredentials::new("u", password))
}

fn data_goes_both_ways<C: TurnClientApi>(mut driver: Driver<C>) {
    driver.until("the allocation is made", |driver| driver.relayed().is_some());
    let relayed = driver.relayed().expect("a relay address");
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    peer.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out can be set");
    let address = peer.local_addr().expect("a bound socket");
    let mut room = [0; 2000];

    driver.client.create_permission(TransportType::Udp, address.ip(), now()).expect("a permission is asked for");
    driver.until("the permission is there", |driver| driver.client.have_permission(TransportType::Udp, address.ip()));
    for len in [0, 1, 2, 3, 4, 900] {
        let sent = vec![7; len];
        driver.send(address, &sent);
        let (got, from) = peer.recv_from(&mut room).expect("a Send indication is relayed");
        assert_eq!((&room[..got], from), (&sent[..], relayed));
        peer.send_to(&sent, relayed).expect("loopback is there");
        driver.until("the Data indication comes", |driver| driver.heard.last() == Some(&(address, sent.clone())));
        driver.heard.clear();
    }

    driver.client.bind_channel(TransportType::Udp, address, now()).expect("a channel is asked for");
    let is_bound = |event: &TurnEvent| matches!(event, TurnEvent::ChannelCreated(_, peer) if *peer == address);
    driver.until("the channel is bound", |driver| driver.events.iter().any(is_bound));
    // Over TCP this client neither pads ChannelData nor expects padding (RFC 8656 §12.5 wants it): whole words alone.
    for len in [4, 8, 12, 400, 1200] {
        let sent = vec![9; len];
        driver.send(address, &sent);
        let (got, from) = peer.recv_from(&mut room).expect("ChannelData is relayed");
        assert_eq!((&room[..got], from), (&sent[..], relayed));
        peer.send_to(&sent, relayed).expect("loopback is there");
        driver.until("the ChannelData comes", |driver| driver.heard.last() == Some(&(address, sent.clone())));
        driver.heard.clear();
    }
    driver.client.delete(now()).expect("the allocation can be given back");
    driver.until("the allocation is gone", |driver| driver.relayed().is_none());
}

fn a_wrong_password_gets_nothing<C: TurnClientApi>(server: &Server, mut driver: Driver<C>) {
    // Over TCP this client takes the second 401 without a word, so the server's own count is the witness.
    let refused = || server.metric("turnserver_allocation_failures_total{code=\"401\"}") >= 1.0;
    driver.until("the second request is refused with 401", |_| refused());
    assert_eq!(driver.relayed(), None);
    assert!(server.metric("turnserver_allocations_total") < 1.0);
}

fn opened() -> Server {
    Server::start_with(&Setup { allow: vec!["127.0.0.0/8"], ..Setup::default() })
}

#[test]
fn data_goes_both_ways_over_udp() {
    let server = opened();
    let wire = Wire::udp(&server);
    let client = TurnClientUdp::allocate(wire.address(), server.address(), config("p"));
    data_goes_both_ways(Driver::new(client, wire));
}

#[test]
fn data_goes_both_ways_over_tcp() {
    let server = opened();
    let wire = Wire::tcp(&server);
    let client = TurnClientTcp::allocate(wire.address(), server.address(), config("p"));
    data_goes_both_ways(Driver::new(client, wire));
}

#[test]
fn data_goes_both_ways_under_tls() {
    let authority = Authority::new();
    let tls = authority.pair("server", &["turn.example.org"]).lines();
    let server = Server::start_with(&Setup { allow: vec!["127.0.0.0/8"], tls, ..Setup::default() });
    let wire = Wire::tls(&server, &authority);
    let client = TurnClientTcp::allocate(wire.address(), server.tls_address(), config("p"));
    data_goes_both_ways(Driver::new(client, wire));
}

#[test]
fn a_wrong_password_gets_nothing_over_udp() {
    let server = Server::start();
    let wire = Wire::udp(&server);
    let client = TurnClientUdp::allocate(wire.address(), server.address(), config("wrong"));
    a_wrong_password_gets_nothing(&server, Driver::new(client, wire));
}

#[test]
fn a_wrong_password_gets_nothing_over_tcp() {
    let server = Server::start();
    let wire = Wire::tcp(&server);
    let client = TurnClientTcp::allocate(wire.address(), server.address(), config("wrong"));
    a_wrong_password_gets_nothing(&server, Driver::new(client, wire));
}

/// SHA-256 of `u:test.example:p`: who has this alone for a password logs in with SHA-256 or not at all.
const HASHED: &str = "sha256:1ae5147478623772136a9a59360c7490ede40a6f6b3390158c49cabf4a87a7ae";

/// A server whose user has no key for MD5, and a client that signs with SHA-256 (RFC 8489 §14.6).
fn with_sha256(authority: &Authority) -> (Server, TurnConfig) {
    let tls = authority.pair("server", &["turn.example.org"]).lines();
    let setup = Setup { allow: vec!["127.0.0.0/8"], password: HASHED, tls, ..Setup::default() };
    let mut config = config("p");
    config.set_supported_integrity(IntegrityAlgorithm::Sha256);
    (Server::start_with(&setup), config)
}

#[test]
fn a22_sha256_alone_is_enough_over_udp() {
    let authority = Authority::new();
    let (server, config) = with_sha256(&authority);
    let wire = Wire::udp(&server);
    let client = TurnClientUdp::allocate(wire.address(), server.address(), config);
    data_goes_both_ways(Driver::new(client, wire));
}

#[test]
fn a22_sha256_alone_is_enough_under_tls() {
    let authority = Authority::new();
    let (server, config) = with_sha256(&authority);
    let wire = Wire::tls(&server, &authority);
    let client = TurnClientTcp::allocate(wire.address(), server.tls_address(), config);
    data_goes_both_ways(Driver::new(client, wire));
}

#[test]
fn a23_a_hashed_user_name_is_as_good_as_a_plain_one() {
    let authority = Authority::new();
    let (server, mut config) = with_sha256(&authority);
    config.set_anonymous_username(Feature::Required);
    let wire = Wire::udp(&server);
    let client = TurnClientUdp::allocate(wire.address(), server.address(), config);
    data_goes_both_ways(Driver::new(client, wire));
}

#[test]
fn a_client_without_sha256_cannot_use_a_hash_made_with_it() {
    let authority = Authority::new();
    let (server, _) = with_sha256(&authority);
    let wire = Wire::udp(&server);
    let client = TurnClientUdp::allocate(wire.address(), server.address(), config("p"));
    a_wrong_password_gets_nothing(&server, Driver::new(client, wire));
}
