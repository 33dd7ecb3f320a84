//! A TURN client with a real socket, and the peer it talks to.
//!
//! A request is sent again when no answer comes, as the RFC says; data that comes in between is kept for who asks.

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use turnserver::client::{self, Client, Heard, Success};
use turnserver::wire::channel::ChannelNumber;
use turnserver::wire::codes::ErrorCode;
use turnserver::wire::stun::Family;

/// How long an answer may take before the request is sent again.
const PATIENCE: Duration = Duration::from_secs(3);
const TRIES: u32 = 6;

pub(crate) const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(crate) const CHANNEL: u16 = 0x4001;

/// A client on a socket of its own.
pub(crate) struct Caller {
    pub(crate) client: Client,
    pub(crate) wire: Wire,
    /// Messages sent, those sent again included.
    pub(crate) sent: u32,
    kept: VecDeque<Vec<u8>>,
}

pub(crate) enum Wire {
    Udp(UdpSocket),
    /// The stream, and what has come of the next message.
    Tcp(TcpStream, Vec<u8>),
    /// The same under TLS.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>, Vec<u8>),
}

/// Data from a peer, and how it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Data {
    From(SocketAddr, Vec<u8>),
    On(u16, Vec<u8>),
}

impl Caller {
    /// A client over UDP from the loopback address of the server's family. Its socket takes answers from the very
    /// address it asks and from no other.
    pub(crate) fn udp(server: SocketAddr) -> Self {
        let any: IpAddr = if server.is_ipv4() { V4 } else { "::1".parse().expect("an address") };
        let socket = UdpSocket::bind((any, 0)).expect("a socket");
        socket.connect(server).expect("loopback is there");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        Self::on(Wire::Udp(socket))
    }

    pub(crate) fn tcp(server: SocketAddr) -> Self {
        Self::on(Wire::Tcp(connected(server), Vec::new()))
    }

    /// A client under TLS that believes this authority alone and asks for the server by this name. It shakes hands when
    /// it first says something.
    pub(crate) fn tls(server: SocketAddr, authority: &str, name: &str) -> Self {
        Self::on(Wire::Tls(Box::new(StreamOwned::new(tls_client(authority, name), connected(server))), Vec::new()))
    }

    /// Shakes hands now; the error is what the client made of it.
    pub(crate) fn shakes_hands(&mut self) -> io::Result<()> {
        let Wire::Tls(stream, _) = &mut self.wire else { return Ok(()) };
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(())
    }

    /// The certificate that the server has shown, once hands are shaken.
    pub(crate) fn certificate(&self) -> Option<Vec<u8>> {
        let Wire::Tls(stream, _) = &self.wire else { return None };
        stream.conn.peer_certificates()?.first().map(|certificate| certificate.to_vec())
    }

    fn on(wire: Wire) -> Self {
        let mut seed = [0; 4];
        getrandom::fill(&mut seed).expect("the system gives chance");
        Self { client: Client::new("u", "p", u32::from_ne_bytes(seed)), wire, sent: 0, kept: VecDeque::new() }
    }

    /// Another credential than the static one.
    pub(crate) fn with(mut self, username: &str, password: &str) -> Self {
        self.client = Client::new(username, password, 7);
        self
    }

    pub(crate) fn local(&self) -> SocketAddr {
        match &self.wire {
            Wire::Udp(socket) => socket.local_addr(),
            Wire::Tcp(stream, _) => stream.local_addr(),
            Wire::Tls(stream, _) => stream.sock.local_addr(),
        }
        .expect("a connected socket has an address")
    }

    /// Sends one message; over a stream with its padding.
    pub(crate) fn says(&mut self, message: &[u8]) {
        self.sent += 1;
        match &mut self.wire {
            Wire::Udp(socket) => drop(socket.send(message)),
            Wire::Tcp(stream, _) => stream.write_all(&padded(message)).expect("the server reads"),
            Wire::Tls(stream, _) => stream.write_all(&padded(message)).expect("the server reads"),
        }
    }

    /// The next message; `None` when none comes in time or the connection has ended.
    pub(crate) fn hears(&mut self) -> Option<Vec<u8>> {
        self.wire.next().ok()
    }

    /// Whether the server has closed the connection, without a byte more.
    pub(crate) fn is_cut_off(&mut self) -> bool {
        let (read, rest) = match &mut self.wire {
            Wire::Udp(_) => return false,
            Wire::Tcp(stream, rest) => (stream.read(&mut [0; 1]), rest),
            // Only a close_notify makes this end an ordinary one.
            Wire::Tls(stream, rest) => (stream.read(&mut [0; 1]), rest),
        };
        match read {
            Ok(count) => count == 0 && rest.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// The answer to one request; data that comes before it is kept.
    pub(crate) fn answer(&mut self, request: &[u8]) -> Heard {
        for _ in 0..TRIES {
            self.says(request);
            while let Some(message) = self.hears() {
                if message.get(8..20) == request.get(8..20) {
                    return self.client.hear(&message).expect("the server speaks STUN");
                }
                self.kept.push_back(message);
            }
        }
        panic!("no answer came in {TRIES} times {PATIENCE:?}");
    }

    /// The answer to a request, once challenges are met.
    pub(crate) fn ask(&mut self, make: impl Fn(&mut Client) -> Vec<u8>) -> Result<Success, ErrorCode> {
        let mut may_retry = true;
        loop {
            let request = make(&mut self.client);
            match self.answer(&request) {
                Heard::Success(success) => return Ok(success),
                Heard::Error { is_challenge: true, .. } if may_retry => may_retry = false,
                Heard::Error { code, .. } => return Err(code),
                Heard::Data { .. } | Heard::Icmp { .. } | Heard::ChannelData { .. } => {
                    unreachable!("data has no transaction of ours")
                }
            }
        }
    }

    /// Whether a Binding request is answered.
    pub(crate) fn binding(&mut self) -> Result<SocketAddr, ErrorCode> {
        self.ask(Client::binding).map(|success| success.mapped.expect("a Binding tells the address"))
    }

    pub(crate) fn allocate(&mut self) -> Result<SocketAddr, ErrorCode> {
        self.allocate_of(None)
    }

    pub(crate) fn allocate_of(&mut self, family: Option<Family>) -> Result<SocketAddr, ErrorCode> {
        self.ask(|client| client.allocate(family)).map(|success| {
            assert!(success.is_signed, "an authenticated answer is signed");
            success.relayed.expect("an Allocate tells the relay address")
        })
    }

    pub(crate) fn refresh(&mut self, lifetime: Option<u32>) -> Result<u32, ErrorCode> {
        self.ask(|client| client.refresh(lifetime)).map(|success| success.lifetime.expect("a Refresh tells it"))
    }

    /// Ends the allocation.
    pub(crate) fn release(&mut self) {
        assert_eq!(self.refresh(Some(0)), Ok(0));
    }

    pub(crate) fn permit(&mut self, peer: SocketAddr) -> Result<(), ErrorCode> {
        self.ask(|client| client.create_permission(&[peer])).map(drop)
    }

    pub(crate) fn bind(&mut self, number: u16, peer: SocketAddr) -> Result<(), ErrorCode> {
        self.ask(|client| client.channel_bind(number, peer)).map(drop)
    }

    pub(crate) fn sends_to(&mut self, peer: SocketAddr, payload: &[u8]) {
        let message = self.client.send(peer, payload);
        self.says(&message);
    }

    pub(crate) fn sends_on(&mut self, number: u16, payload: &[u8]) {
        self.says(&channel_data(number, payload));
    }

    /// Whether data comes in time.
    pub(crate) fn has_data(&mut self) -> bool {
        if self.kept.is_empty() {
            let next = self.hears();
            self.kept.extend(next);
        }
        !self.kept.is_empty()
    }

    /// Whether data came before the last answer.
    pub(crate) fn has_kept_data(&self) -> bool {
        !self.kept.is_empty()
    }

    /// The next data from a peer.
    pub(crate) fn data(&mut self) -> Data {
        loop {
            let message = self.kept.pop_front().or_else(|| self.hears()).expect("data comes in time");
            match self.client.hear(&message).expect("the server speaks STUN") {
                Heard::Data { peer, payload } => return Data::From(peer, message[payload].to_vec()),
                Heard::ChannelData { number, payload } => return Data::On(number.get(), message[payload].to_vec()),
                Heard::Icmp { .. } => {} // of a peer that is not there
                other @ (Heard::Success(_) | Heard::Error { .. }) => panic!("no data: {other:?}"),
            }
        }
    }
}

impl Wire {
    fn next(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Udp(socket) => {
                let mut room = vec![0; 65_536];
                let len = socket.recv(&mut room)?;
                room.truncate(len);
                Ok(room)
            }
            Self::Tcp(stream, rest) => next_of(stream, rest),
            Self::Tls(stream, rest) => next_of(stream, rest),
        }
    }
}

fn next_of(stream: &mut impl io::Read, rest: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    loop {
        if let Some(message) = cut(rest) {
            return Ok(message);
        }
        let mut room = [0; 65_536];
        let len = stream.read(&mut room)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        rest.extend_from_slice(&room[..len]);
    }
}

fn connected(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).expect("the server listens");
    stream.set_nodelay(true).expect("a stream can be told not to wait");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
    stream
}

fn tls_client(authority: &str, name: &str) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(authority.as_bytes()).expect("a certificate");
    roots.add(authority).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("the provider has them").with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    ClientConnection::new(Arc::new(config), name).expect("a client")
}

/// Takes the first whole message off a stream's bytes. Written here once more: the server's own framing is on trial.
fn cut(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let [first, _, l0, l1, ..] = bytes[..] else { return None };
    let head = if first >= 0x40 { 4 } else { 20 };
    let len = head + usize::from(u16::from_be_bytes([l0, l1]));
    if bytes.len() < len.next_multiple_of(4) {
        return None;
    }
    let message: Vec<u8> = bytes.drain(..len.next_multiple_of(4)).collect();
    assert!(message[len..].iter().all(|byte| *byte == 0), "padding is zero");
    Some(message[..len].to_vec())
}

pub(crate) fn channel_data(number: u16, payload: &[u8]) -> Vec<u8> {
    client::channel_data(ChannelNumber::new(number).expect("a channel number"), payload)
}

/// A message as it stands in a stream.
pub(crate) fn padded(message: &[u8]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    bytes.resize(message.len().next_multiple_of(4), 0);
    bytes
}

/// A peer on loopback.
pub(crate) struct Peer(pub(crate) UdpSocket);

impl Peer {
    /// One on a port outside the relay range.
    pub(crate) fn new() -> Self {
        Self::at(SocketAddr::new(V4, crate::server::free_port()))
    }

    pub(crate) fn at(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        Self(socket)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("a bound socket has an address")
    }

    pub(crate) fn says(&self, to: SocketAddr, payload: &[u8]) {
        self.0.send_to(payload, to).expect("loopback is there");
    }

    /// The next datagram and where it came from.
    pub(crate) fn hears(&self) -> (SocketAddr, Vec<u8>) {
        let mut room = vec![0; 65_536];
        let (len, from) = self.0.recv_from(&mut room).expect("a datagram comes in time");
        room.truncate(len);
        (from, room)
    }

    /// Whether nothing waits. Ask only after something sent later has arrived elsewhere.
    pub(crate) fn hears_nothing(&self) -> bool {
        self.0.set_nonblocking(true).expect("a socket can be told not to wait");
        let nothing = self.0.recv(&mut [0; 16]).is_err();
        self.0.set_nonblocking(false).expect("a socket can be told to wait");
        nothing
    }
}
