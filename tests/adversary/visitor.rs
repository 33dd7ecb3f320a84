//! A client that can be sent to any server: it assumes nothing of who answers, and never fails a test by itself.
//!
//! What does not come in time is `None`. Silence is never waited for: a Binding request sent behind the question is
//! answered after it, over the same socket.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;
use turnserver::client::Client;
use turnserver::turn::credential::{self, Secret};
use turnserver::wire::codes::{Attribute, Class, Method, PROTOCOL_TCP, PROTOCOL_UDP};
use turnserver::wire::integrity::{Algorithm, Key};
use turnserver::wire::reply::Reply;
use turnserver::wire::stun::{Message, TransactionId};

/// How long an answer may take before the request is sent again.
const PATIENCE: Duration = Duration::from_secs(1);
const TRIES: u32 = 10;

/// REQUESTED-ADDRESS-FAMILY.
pub(crate) const V6: [u8; 4] = [2, 0, 0, 0];

/// One client on a socket of its own. Its allocation ends with it.
pub(crate) struct Visitor {
    pub(crate) client: Client,
    wire: Wire,
    kept: VecDeque<Vec<u8>>,
    has_allocation: bool,
    /// Messages sent again, for want of an answer.
    pub(crate) repeated: u32,
}

enum Wire {
    Udp(UdpSocket),
    Tcp(TcpStream, Vec<u8>),
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub(crate) struct Answer(pub(crate) Vec<u8>);

impl Answer {
    pub(crate) fn message(&self) -> Option<Message<'_>> {
        Message::parse(&self.0).ok()
    }

    /// 200 for a success, else the error code; 0 for what is neither.
    pub(crate) fn code(&self) -> u16 {
        let Some(message) = self.message() else { return 0 };
        match (message.class, message.get(Attribute::ERROR_CODE)) {
            (Class::Success, _) => 200,
            (Class::Error, Some([_, _, class, number, ..])) => u16::from(*class) * 100 + u16::from(*number),
            _ => 0,
        }
    }

    pub(crate) fn get(&self, attribute: Attribute) -> Option<Vec<u8>> {
        self.message()?.get(attribute).map(<[u8]>::to_vec)
    }

    /// LIFETIME in seconds.
    pub(crate) fn lifetime(&self) -> Option<u32> {
        self.get(Attribute::LIFETIME)?.try_into().ok().map(u32::from_be_bytes)
    }
}

impl Visitor {
    pub(crate) fn udp(server: SocketAddr, username: &str, password: &str) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        socket.connect(server).expect("loopback is there");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        Self::on(Wire::Udp(socket), username, password)
    }

    pub(crate) fn tcp(server: SocketAddr, username: &str, password: &str) -> Option<Self> {
        let stream = TcpStream::connect(server).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Self::on(Wire::Tcp(stream, Vec::new()), username, password))
    }

    fn on(wire: Wire, username: &str, password: &str) -> Self {
        let mut seed = [0; 4];
        getrandom::fill(&mut seed).expect("the system gives chance");
        let client = Client::new(username, password, u32::from_ne_bytes(seed));
        Self { client, wire, kept: VecDeque::new(), has_allocation: false, repeated: 0 }
    }

    pub(crate) fn says(&mut self, message: &[u8]) {
        let _unsent = match &mut self.wire {
            Wire::Udp(socket) => socket.send(message).map(drop),
            Wire::Tcp(stream, _) => stream.write_all(message),
        };
    }

    pub(crate) fn hears(&mut self) -> Option<Vec<u8>> {
        let mut room = vec![0; 65_536];
        match &mut self.wire {
            Wire::Udp(socket) => {
                let len = socket.recv(&mut room).ok()?;
                room.truncate(len);
                Some(room)
            }
            Wire::Tcp(stream, rest) => loop {
                if let Some(message) = cut(rest) {
                    return Some(message);
                }
                let len = stream.read(&mut room).ok().filter(|len| *len > 0)?;
                rest.extend_from_slice(&room[..len]);
            },
        }
    }

    /// The answer to one message; whatever else comes is kept.
    pub(crate) fn answer(&mut self, request: &[u8]) -> Option<Answer> {
        let tries = if matches!(self.wire, Wire::Udp(_)) { TRIES } else { 1 };
        for at in 0..tries {
            self.repeated += u32::from(at > 0);
            self.says(request);
            while let Some(message) = self.hears() {
                if message.get(8..20) == request.get(8..20) {
                    return Some(Answer(message));
                }
                self.kept.push_back(message);
            }
        }
        None
    }

    /// Sends one message, and a Binding request behind it: the answer to the first, if it came before that of the
    /// second. `Err` when not even the second is answered.
    pub(crate) fn tries(&mut self, request: &[u8]) -> Result<Option<Answer>, Gone> {
        self.says(request);
        let is_answer = |message: &Vec<u8>| message.get(8..20) == request.get(8..20);
        self.is_served().ok_or(Gone)?;
        let at = self.kept.iter().position(is_answer);
        Ok(at.and_then(|at| self.kept.remove(at)).map(Answer))
    }

    /// Whether a Binding request is answered.
    pub(crate) fn is_served(&mut self) -> Option<()> {
        let binding = self.client.binding();
        self.answer(&binding).map(drop)
    }

    /// The answer to a request, once a challenge is met.
    pub(crate) fn asks(&mut self, make: impl Fn(&mut Client) -> Vec<u8>) -> Option<Answer> {
        for _ in 0..2 {
            let request = make(&mut self.client);
            let answer = self.answer(&request)?;
            let heard = self.client.hear(&answer.0);
            let is_challenge =
                matches!(heard, Ok(turnserver::client::Heard::Error { is_challenge: true, .. })) && answer.code() != 0;
            if !is_challenge {
                return Some(answer);
            }
        }
        // A second challenge is the answer.
        let request = make(&mut self.client);
        self.answer(&request)
    }

    /// Asks once without credentials, so that the next request bears them. The challenge.
    pub(crate) fn learns(&mut self) -> Option<Answer> {
        let request = self.client.allocate(None);
        let answer = self.answer(&request)?;
        let _heard = self.client.hear(&answer.0);
        Some(answer)
    }

    /// An allocation for datagrams, with more attributes.
    pub(crate) fn allocates(&mut self, more: &[(Attribute, &[u8])]) -> Option<Answer> {
        self.allocates_for(PROTOCOL_UDP, more)
    }

    /// An allocation for connections.
    pub(crate) fn allocates_tcp(&mut self) -> Option<Answer> {
        self.allocates_for(PROTOCOL_TCP, &[])
    }

    fn allocates_for(&mut self, protocol: u8, more: &[(Attribute, &[u8])]) -> Option<Answer> {
        let answer = self.asks(|client| {
            client.request(Method::ALLOCATE, |request| {
                request.bytes(Attribute::REQUESTED_TRANSPORT, &[protocol, 0, 0, 0]);
                for (attribute, value) in more {
                    request.bytes(*attribute, value);
                }
            })
        })?;
        self.has_allocation |= answer.code() == 200;
        Some(answer)
    }

    pub(crate) fn permits(&mut self, peer: SocketAddr) -> Option<Answer> {
        self.asks(|client| client.create_permission(&[peer]))
    }

    pub(crate) fn binds(&mut self, number: u16, peer: SocketAddr) -> Option<Answer> {
        self.asks(|client| client.channel_bind(number, peer))
    }

    pub(crate) fn connects(&mut self, peer: SocketAddr) -> Option<Answer> {
        self.asks(|client| {
            client.request(Method::CONNECT, |request| {
                request.xor_address(Attribute::XOR_PEER_ADDRESS, peer);
            })
        })
    }

    pub(crate) fn refreshes(&mut self, lifetime: Option<u32>) -> Option<Answer> {
        self.asks(|client| client.refresh(lifetime))
    }

    /// A Data indication or ChannelData, if one has come by now.
    pub(crate) fn has_data(&mut self) -> bool {
        self.kept
            .iter()
            .any(|message| message.starts_with(&[0x00, 0x17]) || message.first().is_some_and(|b| *b >= 0x40))
    }

    /// Forgets what has come by now, without waiting for more; how many bytes that was.
    pub(crate) fn takes_what_came(&mut self) -> usize {
        if let Wire::Udp(socket) = &self.wire {
            let mut room = [0; 2048];
            socket.set_nonblocking(true).expect("a socket can be told not to wait");
            while let Ok(len) = socket.recv(&mut room) {
                self.kept.push_back(room[..len].to_vec());
            }
            socket.set_nonblocking(false).expect("a socket can be told to wait");
        }
        self.kept.drain(..).map(|message| message.len()).sum()
    }

    /// Ends the allocation, and hears that it has.
    pub(crate) fn releases(&mut self) -> Option<Answer> {
        self.has_allocation = false;
        self.refreshes(Some(0))
    }

    /// Another client takes this allocation's place: it is not this one's to end.
    pub(crate) fn hands_over(&mut self, to: &mut Self) {
        self.has_allocation = false;
        to.has_allocation = true;
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        if self.has_allocation && !std::thread::panicking() {
            let _ended = self.releases();
        }
    }
}

/// A server that answers nothing any more.
#[derive(Debug)]
pub(crate) struct Gone;

/// The first whole message of a stream.
fn cut(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let [first, _, l0, l1, ..] = bytes[..] else { return None };
    let head = if first >= 0x40 { 4 } else { 20 };
    let len = (head + usize::from(u16::from_be_bytes([l0, l1]))).next_multiple_of(4);
    (bytes.len() >= len).then(|| bytes.drain(..len).collect())
}

/// A request signed with a key of the caller's choice, with attributes before and behind the signature. For what no
/// honest client says.
pub(crate) struct Crafted<'a> {
    pub(crate) method: Method,
    pub(crate) before: &'a [(Attribute, Vec<u8>)],
    pub(crate) username: &'a [u8],
    pub(crate) realm: &'a [u8],
    pub(crate) nonce: &'a [u8],
    pub(crate) key: &'a Key,
    pub(crate) behind: &'a [(Attribute, Vec<u8>)],
}

impl Crafted<'_> {
    pub(crate) fn bytes(&self, transaction: TransactionId) -> Vec<u8> {
        let mut room = vec![0; 8192];
        let mut request = Reply::new(&mut room, self.method, Class::Request, transaction);
        for (attribute, value) in self.before {
            request.bytes(*attribute, value);
        }
        request.bytes(Attribute::USERNAME, self.username).bytes(Attribute::REALM, self.realm);
        request.bytes(Attribute::NONCE, self.nonce).sign(Algorithm::Sha1, self.key);
        for (attribute, value) in self.behind {
            request.bytes(*attribute, value);
        }
        let len = request.finish().expect("there is room");
        room.truncate(len);
        room
    }
}

/// A transaction id nobody has used.
pub(crate) fn transaction() -> TransactionId {
    let mut id = [0; 12];
    getrandom::fill(&mut id).expect("the system gives chance");
    id
}

/// The value of an XOR address attribute in a message with this transaction id.
pub(crate) fn xored(address: SocketAddr, transaction: &TransactionId) -> Vec<u8> {
    let (value, len) = turnserver::wire::stun::xor_address_value(address, transaction);
    value[..len].to_vec()
}

/// A time-limited credential that ends at this time.
pub(crate) fn minted(secret: &str, expires: u64, name: &str) -> (String, String) {
    let username = format!("{expires}:{name}");
    let password = credential::password(&Secret::new(secret), &username);
    (username, password.to_string())
}

#[expect(clippy::disallowed_methods, reason = "a time-limited name says when it ends")]
pub(crate) fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is after 1970").as_secs()
}
