//! A DTLS client without a thread of its own: the engine, a socket, and every datagram in the test's hand.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use turnserver::client::{Client, Heard, Success};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the socket is looked at before time is told to the engine.
const LOOK: Duration = Duration::from_millis(100);

/// A client that speaks TURN under DTLS.
pub(crate) struct Phone {
    pub(crate) socket: UdpSocket,
    dtls: dimpl::Dtls,
    pub(crate) turn: Client,
    /// The certificate that the server showed.
    pub(crate) shown: Option<Vec<u8>>,
    pub(crate) is_open: bool,
    pub(crate) is_closed: bool,
    heard: Vec<Vec<u8>>,
}

impl Phone {
    /// A client that has said nothing yet.
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self::on(socket(server))
    }

    /// A new client on an old one's socket.
    pub(crate) fn on(socket: UdpSocket) -> Self {
        let (config, certificate) = means();
        let mut dtls = dimpl::Dtls::new_12(config, certificate, clock());
        dtls.set_active(true);
        let turn = Client::new("u", "p", u32::from(socket.local_addr().unwrap().port()));
        Self { socket, dtls, turn, shown: None, is_open: false, is_closed: false, heard: Vec::new() }
    }

    /// A client whose handshake is complete.
    pub(crate) fn opened(server: SocketAddr) -> Self {
        let mut phone = Self::new(server);
        phone.opens();
        phone
    }

    pub(crate) fn opens(&mut self) {
        self.goes_on_until("the handshake is complete", |phone| phone.is_open);
    }

    /// The datagrams of what the engine has to say now, not sent.
    pub(crate) fn written(&mut self) -> Vec<Vec<u8>> {
        self.dtls.handle_timeout(clock()).unwrap();
        let mut room = vec![0; 70_000];
        let mut datagrams = Vec::new();
        loop {
            match self.dtls.poll_output(&mut room) {
                dimpl::Output::Packet(bytes) => datagrams.push(bytes.to_vec()),
                dimpl::Output::ApplicationData(bytes) => self.heard.push(bytes.to_vec()),
                dimpl::Output::PeerCert(der) => self.shown = Some(der.to_vec()),
                dimpl::Output::Connected => self.is_open = true,
                dimpl::Output::CloseNotify => self.is_closed = true,
                dimpl::Output::Timeout(_) => return datagrams,
                dimpl::Output::BufferTooSmall { .. } | dimpl::Output::KeyingMaterial(..) | _ => {}
            }
        }
    }

    pub(crate) fn sends(&mut self) {
        for datagram in self.written() {
            self.socket.send(&datagram).unwrap();
        }
    }

    /// Takes what has come to the socket within [`LOOK`].
    pub(crate) fn takes(&mut self) {
        let mut room = vec![0; 70_000];
        self.socket.set_read_timeout(Some(LOOK)).unwrap();
        if let Ok(count) = self.socket.recv(&mut room) {
            self.dtls.handle_packet(&room[..count]).unwrap();
        }
    }

    #[track_caller]
    pub(crate) fn goes_on_until(&mut self, what: &str, is_true: impl Fn(&Self) -> bool) {
        let begin = clock();
        loop {
            self.sends();
            if is_true(self) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "it never came that {what}");
            self.takes();
        }
    }

    /// Sends messages under encryption, each in a record of its own, all in one datagram.
    pub(crate) fn says(&mut self, messages: &[&[u8]]) {
        for message in messages {
            self.dtls.send_application_data(message).unwrap();
        }
        self.sends();
    }

    /// Hands the engine a datagram that was taken from the socket.
    pub(crate) fn hears_datagram(&mut self, datagram: &[u8]) {
        self.dtls.handle_packet(datagram).unwrap();
    }

    pub(crate) fn closes(&mut self) {
        self.dtls.close().unwrap();
        self.sends();
    }

    /// The next message from the server.
    #[track_caller]
    pub(crate) fn hears(&mut self) -> Vec<u8> {
        self.goes_on_until("a message comes", |phone| !phone.heard.is_empty());
        self.heard.remove(0)
    }

    /// What a request succeeds with, once its challenge is met.
    #[track_caller]
    pub(crate) fn asks(&mut self, make: impl Fn(&mut Client) -> Vec<u8>) -> Success {
        loop {
            let request = make(&mut self.turn);
            self.says(&[&request]);
            let answer = self.hears();
            match self.turn.hear(&answer).unwrap() {
                Heard::Success(success) => return success,
                Heard::Error { is_challenge: true, .. } => {}
                other @ (Heard::Error { .. } | Heard::Data { .. } | Heard::Icmp { .. } | Heard::ChannelData { .. }) => {
                    panic!("{other:?}")
                }
            }
        }
    }

    /// Allocates; the relay address.
    #[track_caller]
    pub(crate) fn allocates(&mut self) -> SocketAddr {
        self.asks(|client| client.allocate(None)).relayed.unwrap()
    }

    /// Whether a Binding request is still answered.
    #[track_caller]
    pub(crate) fn is_served(&mut self) -> bool {
        self.asks(Client::binding).mapped == self.socket.local_addr().ok()
    }
}

/// A socket that hears the server alone.
pub(crate) fn socket(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The answer to one datagram.
#[track_caller]
pub(crate) fn answer(socket: &UdpSocket, datagram: &[u8]) -> Vec<u8> {
    socket.send(datagram).unwrap();
    next(socket)
}

/// The next datagram.
#[track_caller]
pub(crate) fn next(socket: &UdpSocket) -> Vec<u8> {
    let mut room = vec![0; 70_000];
    let count = socket.recv(&mut room).unwrap();
    room[..count].to_vec()
}

/// A ClientHello of the test's own making.
pub(crate) fn hello(number: u8, random: [u8; 32], cookie: &[u8], padding: usize) -> Vec<u8> {
    let mut extensions = vec![
        0, 23, 0, 0, // extended master secret
        0, 10, 0, 4, 0, 2, 0, 23, // P-256
        0, 13, 0, 4, 0, 2, 4, 3, // ECDSA with SHA-256
        0, 21,
    ];
    extensions.extend((padding as u16).to_be_bytes());
    extensions.resize(extensions.len() + padding, 0);
    let mut body = [&[0xFE, 0xFD][..], &random, &[0, cookie.len() as u8], cookie].concat();
    body.extend([0, 2, 0xC0, 0x2B, 1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    record(number, &body)
}

/// The same without extensions: as short as a hello can be.
pub(crate) fn bare_hello(number: u8, cookie: &[u8]) -> Vec<u8> {
    let body = [&[0xFE, 0xFD][..], &[9; 32], &[0, cookie.len() as u8], cookie, &[0, 2, 0xC0, 0x2B, 1, 0]].concat();
    record(number, &body)
}

fn record(number: u8, body: &[u8]) -> Vec<u8> {
    let length = &(body.len() as u32).to_be_bytes()[1..];
    let message = [&[1], length, &[0, number, 0, 0, 0], length, body].concat();
    let length = (message.len() as u16).to_be_bytes();
    [&[22, 0xFE, 0xFF, 0, 0, 0, 0, 0, 0, 0, number][..], &length, &message].concat()
}

/// The cookie in a HelloVerifyRequest.
#[track_caller]
pub(crate) fn cookie_in(request: &[u8]) -> Vec<u8> {
    assert!(is_verify_request(request), "{request:?}");
    request[28..].to_vec()
}

pub(crate) fn is_verify_request(datagram: &[u8]) -> bool {
    datagram.len() == 60 && datagram[0] == 22 && datagram[13] == 3 && datagram[27] == 32
}

fn means() -> (Arc<dimpl::Config>, dimpl::DtlsCertificate) {
    static MEANS: OnceLock<(Arc<dimpl::Config>, dimpl::DtlsCertificate)> = OnceLock::new();
    MEANS
        .get_or_init(|| {
            let made = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
            let certificate = dimpl::DtlsCertificate {
                certificate: made.cert.der().to_vec(),
                private_key: made.signing_key.serialized_der().to_vec(),
            };
            (Arc::new(dimpl::Config::builder().dtls13_cipher_suites(&[]).build().unwrap()), certificate)
        })
        .clone()
}

#[expect(clippy::disallowed_methods, reason = "the client's engine lives in real time")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}
