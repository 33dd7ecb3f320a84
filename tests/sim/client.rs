//! Clients as they are out there: some good, some broken, all behind something that may change under them.

use crate::rules::{USERS, password_of};
use crate::world::{Event, PEERS, World};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use turnserver::client::{self, Client, Heard};
use turnserver::time::{Duration, seconds};
use turnserver::turn::tally::Transport;
use turnserver::turn::{FiveTuple, Path};
use turnserver::wire::channel::ChannelNumber;
use turnserver::wire::codes::{Attribute, Class, ErrorCode, Method};
use turnserver::wire::integrity::{self};
use turnserver::wire::reply::Reply;
use turnserver::wire::stun::Message;

/// One client: its credential, its way to the server, and what it believes to have.
#[derive(Debug)]
pub(crate) struct Actor {
    client: Client,
    host: usize,
    ip: IpAddr,
    /// The way it takes; another once a NAT or a new connection says so.
    path: Path,
    /// Whether its connection, if it has one, is open.
    is_open: bool,
    /// Further connections, and whether each has become a pipe to a peer.
    more: Vec<(Path, bool)>,
    /// Whether it believes to have an allocation.
    is_allocated: bool,
    ticket: Vec<u8>,
    token: Option<[u8; 8]>,
    channels: Vec<u16>,
    talks_to: Vec<SocketAddr>,
    connections: Vec<u32>,
    /// The request it waits for an answer to, and how to ask it again with a new nonce.
    waiting: Option<(Vec<u8>, Wish)>,
    retries: u8,
}

/// A request a client has in mind.
#[derive(Clone, Debug)]
struct Wish {
    method: Method,
    attributes: Vec<(Attribute, Value)>,
}

#[derive(Clone, Debug)]
enum Value {
    Bytes(Vec<u8>),
    Address(SocketAddr),
}

impl Wish {
    const fn new(method: Method) -> Self {
        Self { method, attributes: Vec::new() }
    }

    fn with(mut self, attribute: Attribute, value: &[u8]) -> Self {
        self.attributes.push((attribute, Value::Bytes(value.into())));
        self
    }

    fn with_peer(mut self, peer: SocketAddr) -> Self {
        self.attributes.push((Attribute::XOR_PEER_ADDRESS, Value::Address(peer)));
        self
    }

    fn write(&self, request: &mut Reply<'_>) {
        for (attribute, value) in &self.attributes {
            match value {
                Value::Bytes(value) => request.bytes(*attribute, value),
                Value::Address(address) => request.xor_address(*attribute, *address),
            };
        }
    }
}

impl Actor {
    pub(crate) fn new(number: usize, world: &mut World) -> Self {
        let host = world.chance.below(world.hosts.len() as u64) as usize;
        let transport =
            *world.chance.pick(&[Transport::Udp, Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Dtls]);
        let is_v4 = !world.chance.one_in(4);
        // Some share an address behind one NAT.
        let place = if world.chance.one_in(3) { 0 } else { 1 + number as u8 };
        let ip = match is_v4 {
            true => IpAddr::V4(Ipv4Addr::new(30, 0, 0, place)),
            false => IpAddr::V6(Ipv6Addr::new(0x2a00, 0x30, place.into(), 0, 0, 0, 0, 1)),
        };
        let path = world.path(host, transport, ip);
        let (name, password) = world.credential(host);
        let password = if world.chance.one_in(12) { "wrong".to_owned() } else { password };
        let client = Client::new(&name, &password, world.chance.number() as u32);
        Self {
            client,
            host,
            ip,
            path,
            is_open: true,
            more: Vec::new(),
            is_allocated: false,
            ticket: Vec::new(),
            token: None,
            channels: Vec::new(),
            talks_to: Vec::new(),
            connections: Vec::new(),
            waiting: None,
            retries: 0,
        }
    }

    /// Whether a message that was sent on this path still has somebody to come from.
    pub(crate) fn has_open(&self, path: &Path) -> bool {
        (self.path == *path && self.is_open) || self.more.iter().any(|(more, is_pipe)| more == path && !is_pipe)
    }

    pub(crate) fn hears_at(&self, to: SocketAddr, tuple: &FiveTuple) -> bool {
        let is_mine = |path: &Path| path.tuple.client == to && path.tuple.transport == tuple.transport;
        (self.is_open && is_mine(&self.path)) || self.more.iter().any(|(path, is_pipe)| !is_pipe && is_mine(path))
    }

    pub(crate) fn waits_for(&self, bytes: &[u8]) -> bool {
        self.waiting.as_ref().is_some_and(|(waiting, _)| waiting == bytes)
    }

    /// The connection has become a pipe.
    pub(crate) fn is_joined(&mut self, path: &Path) {
        self.more.iter_mut().filter(|(more, _)| more == path).for_each(|(_, is_pipe)| *is_pipe = true);
    }

    pub(crate) fn is_hung_up(&mut self, path: &Path) {
        self.more.retain(|(more, _)| more != path);
    }

    /// The server is gone, and with it every connection to it.
    pub(crate) fn loses_connections_to(&mut self, host: usize) {
        if self.host == host && self.path.tuple.transport != Transport::Udp {
            self.is_open = false;
            self.more.clear();
        }
    }

    fn forgets(&mut self) {
        self.is_allocated = false;
        self.ticket.clear();
        self.channels.clear();
        self.connections.clear();
    }
}

impl World {
    /// A client does something.
    pub(crate) fn acts(&mut self, number: usize) {
        let transport = self.clients[number].path.tuple.transport;
        if !self.clients[number].is_open {
            return self.reconnects(number);
        }
        let is_allocated = self.clients[number].is_allocated;
        let act = self.chance.below(if is_allocated { 100 } else { 40 });
        match act {
            0..3 => self.is_noisy(number),
            3..5 => {
                let bytes = self.clients[number].client.binding();
                self.says(number, bytes, 3);
            }
            5..28 if !is_allocated => self.allocates(number),
            5..7 => self.allocates(number),
            7..9 => self.is_odd(number),
            9..11 if transport != Transport::Udp => self.hangs_up(number),
            11..14 => self.rebinds(number),
            14..17 => self.renews(number),
            17..24 => self.refreshes(number),
            24..36 => self.permits(number),
            36..48 => self.binds(number),
            48..52 => self.connects(number),
            52..54 => self.moves(number),
            _ => self.talks(number),
        }
    }

    fn wishes(&mut self, number: usize, wish: Wish) {
        let actor = &mut self.clients[number];
        let bytes = actor.client.request(wish.method, |request| wish.write(request));
        actor.waiting = Some((bytes.clone(), wish));
        actor.retries = 0;
        self.says(number, bytes, 3);
    }

    /// A message leaves; over UDP it leaves again until somebody answers.
    pub(crate) fn says(&mut self, client: usize, bytes: Vec<u8>, left: u8) {
        let (host, path) = (self.clients[client].host, self.clients[client].path);
        let ttl = if path.tuple.transport == Transport::Udp { self.ttl() } else { None };
        if path.tuple.transport == Transport::Udp && left > 0 {
            self.later(
                Duration::from_millis(500 << (3 - left.min(3))),
                Event::AsksAgain { client, bytes: bytes.clone(), left },
            );
        }
        self.sends(path.tuple.transport, Event::Arrives { host, path, bytes, ttl });
    }

    fn allocates(&mut self, number: usize) {
        let chance = &mut self.chance;
        let is_stream = self.clients[number].path.tuple.transport.is_stream();
        let protocol = if is_stream && chance.one_in(3) { 6 } else { 17 };
        let mut wish = Wish::new(Method::ALLOCATE);
        if !chance.one_in(40) {
            let protocol = if chance.one_in(40) { 132 } else { protocol };
            wish = wish.with(Attribute::REQUESTED_TRANSPORT, &[protocol, 0, 0, 0]);
        }
        match chance.below(10) {
            0 => wish = wish.with(Attribute::REQUESTED_ADDRESS_FAMILY, &[*chance.pick(&[1, 2, 2, 3]), 0, 0, 0]),
            1 | 2 => wish = wish.with(Attribute::ADDITIONAL_ADDRESS_FAMILY, &[*chance.pick(&[2, 2, 2, 1]), 0, 0, 0]),
            3 => wish = wish.with(Attribute::EVEN_PORT, &[*chance.pick(&[0, 0x80])]),
            4 => {
                let tokens: Vec<[u8; 8]> = self.clients.iter().filter_map(|client| client.token).collect();
                if !tokens.is_empty() {
                    wish = wish.with(Attribute::RESERVATION_TOKEN, self.chance.pick::<[u8; 8]>(&tokens).as_slice());
                }
            }
            _ => {}
        }
        if self.chance.one_in(3) {
            let lifetime = *self.chance.pick(&[0u32, 1, 599, 700, 3600, u32::MAX]);
            wish = wish.with(Attribute::LIFETIME, &lifetime.to_be_bytes());
        }
        if self.chance.one_in(3) {
            wish = wish.with(Attribute::MOBILITY_TICKET, &[]);
        }
        self.wishes(number, wish);
    }

    fn refreshes(&mut self, number: usize) {
        let mut wish = Wish::new(Method::REFRESH);
        if self.chance.one_in(3) {
            let lifetime = *self.chance.pick(&[0u32, 0, 1, 900, u32::MAX]);
            wish = wish.with(Attribute::LIFETIME, &lifetime.to_be_bytes());
        }
        if self.chance.one_in(6) {
            wish = wish.with(Attribute::REQUESTED_ADDRESS_FAMILY, &[*self.chance.pick(&[1, 2]), 0, 0, 0]);
        }
        self.wishes(number, wish);
    }

    fn permits(&mut self, number: usize) {
        let mut wish = Wish::new(Method::CREATE_PERMISSION);
        for _ in 0..*self.chance.pick(&[1, 1, 1, 3, 0]) {
            let peer = self.destination();
            wish = wish.with_peer(peer);
            self.clients[number].talks_to.push(peer);
        }
        self.wishes(number, wish);
    }

    fn binds(&mut self, number: usize) {
        let channel = 0x4000 + self.chance.below(6) as u16;
        let channel = if self.chance.one_in(20) { 0x3FFF } else { channel };
        let peer = self.destination();
        let [c0, c1] = channel.to_be_bytes();
        let wish = Wish::new(Method::CHANNEL_BIND).with(Attribute::CHANNEL_NUMBER, &[c0, c1, 0, 0]).with_peer(peer);
        self.clients[number].talks_to.push(peer);
        self.wishes(number, wish);
    }

    fn talks(&mut self, number: usize) {
        let size = self.size();
        let payload = self.chance.bytes(size);
        let actor = &mut self.clients[number];
        let keep = actor.talks_to.len().saturating_sub(8);
        actor.talks_to.drain(..keep);
        let channel = 0x4000 + self.chance.below(6) as u16;
        let by_channel = self.chance.one_in(2);
        let is_stream = actor.path.tuple.transport.is_stream();
        let bytes = match (by_channel, actor.talks_to.is_empty()) {
            (false, false) => {
                let peer = *self.chance.pick(&self.clients[number].talks_to.clone());
                self.clients[number].client.send(peer, &payload[..payload.len().min(65_000)])
            }
            _ => {
                let mut bytes = client::channel_data(ChannelNumber::new(channel).expect("a channel"), &payload);
                if is_stream {
                    bytes.resize(bytes.len().next_multiple_of(4), 0);
                }
                bytes
            }
        };
        if bytes.len() <= 65_507 || is_stream {
            self.says(number, bytes, 0);
        }
    }

    /// What broken and hostile clients say.
    fn is_noisy(&mut self, number: usize) {
        let chance = &mut self.chance;
        let actor = &mut self.clients[number];
        let wish = Wish::new(Method::REFRESH).with(Attribute::LIFETIME, &[0; 4]);
        let mut bytes = match chance.below(7) {
            0 => {
                let size = chance.below(200) as usize;
                chance.bytes(size)
            }
            1 => {
                let mut response = actor.client.binding();
                response[0] |= 1; // a success response
                response
            }
            2 => actor.client.request(Method::new(chance.below(0x1000) as u16), |_| {}),
            3 => actor.client.request(Method::REFRESH, |request| {
                request.bytes(Attribute(0x7777), b"what?");
            }),
            // Somebody else's credential on this path.
            4 => {
                let user = *chance.pick(&USERS);
                let mut other = Client::new(user, &password_of(user), chance.number() as u32);
                let challenge = actor.client.request(Method::REFRESH, |_| {});
                borrow_challenge(&mut other, &challenge);
                other.request(wish.method, |request| wish.write(request))
            }
            5 => actor.client.allocate(None),
            _ => actor.client.request(wish.method, |request| wish.write(request)),
        };
        if self.chance.one_in(2) && !bytes.is_empty() {
            let at = self.chance.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.chance.below(8);
            self.faults.note("F24");
        }
        // Over a connection the framing would end it; here it just goes nowhere.
        self.says(number, bytes, 0);
    }

    /// A request that is signed, and wrong.
    fn is_odd(&mut self, number: usize) {
        let peer = self.destination();
        let wish = match self.chance.below(6) {
            0 => Wish::new(Method::ALLOCATE).with(Attribute::REQUESTED_TRANSPORT, &[17, 0]),
            1 => Wish::new(Method::CREATE_PERMISSION)
                .with(Attribute::XOR_PEER_ADDRESS, &[0, 3, 1, 2, 3, 4, 5, 6])
                .with_peer(peer),
            2 => Wish::new(Method::CHANNEL_BIND).with_peer(peer),
            3 => Wish::new(Method::CONNECT).with_peer(peer),
            4 => Wish::new(Method::REFRESH).with(Attribute(0x0077), &[1, 2, 3]),
            _ => Wish::new(Method::CREATE_PERMISSION).with_peer(SocketAddr::new(PEERS[6], 80)).with_peer(peer),
        };
        self.wishes(number, wish);
    }

    /// RFC 6062: a peer to be connected to, or a connection of one to be taken.
    fn connects(&mut self, number: usize) {
        if !self.clients[number].path.tuple.transport.is_stream() {
            return;
        }
        if let Some(id) = self.clients[number].connections.pop() {
            let (host, ip, transport) = {
                let actor = &self.clients[number];
                (actor.host, actor.ip, actor.path.tuple.transport)
            };
            let path = self.path(host, transport, ip);
            let id = if self.chance.one_in(10) { id ^ 1 } else { id };
            let actor = &mut self.clients[number];
            actor.more.push((path, false));
            let bytes = actor.client.request(Method::CONNECTION_BIND, |request| {
                request.number(Attribute::CONNECTION_ID, id);
            });
            return self.sends(transport, Event::Arrives { host, path, bytes, ttl: None });
        }
        let peer = self.destination();
        self.wishes(number, Wish::new(Method::CONNECT).with_peer(peer));
    }

    /// RFC 8016: the same allocation from another path.
    fn moves(&mut self, number: usize) {
        if self.clients[number].ticket.is_empty() {
            return;
        }
        self.rebinds(number);
        let actor = &self.clients[number];
        let wish = Wish::new(Method::REFRESH).with(Attribute::MOBILITY_TICKET, &actor.ticket.clone());
        self.wishes(number, wish);
    }

    /// A NAT gives it another port, or a port that another client had; a connection is a new one.
    pub(crate) fn rebinds(&mut self, number: usize) {
        let (host, ip, old) = {
            let actor = &self.clients[number];
            (actor.host, actor.ip, actor.path)
        };
        let mut path = self.path(host, old.tuple.transport, ip);
        if old.tuple.transport == Transport::Udp && self.chance.one_in(3) {
            let same_nat =
                |other: &&Actor| other.ip == ip && other.host == host && other.path.tuple.transport == Transport::Udp;
            let others: Vec<Path> = self.clients.iter().filter(same_nat).map(|other| other.path).collect();
            path = *self.chance.pick(&others);
        }
        self.faults.note("F43");
        if old.tuple.transport != Transport::Udp {
            self.later(Duration::from_millis(30), Event::Closes { host, tuple: old.tuple });
        }
        self.clients[number].path = path;
    }

    /// Closes its connection.
    fn hangs_up(&mut self, number: usize) {
        let (host, path) = (self.clients[number].host, self.clients[number].path);
        self.later(Duration::from_millis(30), Event::Closes { host, tuple: path.tuple });
        let actor = &mut self.clients[number];
        actor.is_open = false;
        if actor.ticket.is_empty() {
            actor.forgets();
        }
    }

    fn reconnects(&mut self, number: usize) {
        let (host, ip, transport) = {
            let actor = &self.clients[number];
            (actor.host, actor.ip, actor.path.tuple.transport)
        };
        let path = self.path(host, transport, ip);
        let actor = &mut self.clients[number];
        actor.path = path;
        actor.is_open = true;
    }

    /// Nobody hears of it again, and nobody is told.
    pub(crate) fn disappears(&mut self, number: usize) {
        let fresh = Actor::new(number, self);
        let old = std::mem::replace(&mut self.clients[number], fresh);
        if old.path.tuple.transport != Transport::Udp {
            // The system finds out after a while that the connection is dead.
            self.later(seconds(60), Event::Closes { host: old.host, tuple: old.path.tuple });
        }
    }

    /// Another credential, because the old one is over.
    fn renews(&mut self, number: usize) {
        let host = self.clients[number].host;
        let (name, password) = self.credential(host);
        let seed = self.chance.number() as u32;
        self.clients[number].client = Client::new(&name, &password, seed);
    }

    /// A message of a server.
    pub(crate) fn hears(&mut self, number: usize, path: &Path, bytes: &[u8]) {
        let actor = &mut self.clients[number];
        let Ok(heard) = actor.client.hear(bytes) else { return };
        if path.tuple != actor.path.tuple {
            return; // about one of its further connections
        }
        match heard {
            Heard::Success(success) => {
                let is_mine =
                    actor.waiting.as_ref().is_some_and(|(asked, _)| asked.get(8..20) == Some(&success.transaction));
                if !is_mine || !success.is_signed {
                    return;
                }
                let (_, wish) = actor.waiting.take().expect("it waits");
                let message = Message::parse(bytes).expect("it was heard");
                if let Some(ticket) = message.get(Attribute::MOBILITY_TICKET) {
                    actor.ticket = ticket.to_vec();
                }
                match success.method {
                    Method::ALLOCATE => {
                        actor.is_allocated = true;
                        actor.token = success.token.or(actor.token);
                    }
                    Method::REFRESH if success.lifetime == Some(0) => actor.forgets(),
                    Method::CONNECT => {
                        let id = message.bytes::<4>(Attribute::CONNECTION_ID).and_then(Result::ok);
                        actor.connections.extend(id.map(u32::from_be_bytes));
                    }
                    _ => drop(wish),
                }
            }
            Heard::Error { is_challenge: true, .. } => {
                let Some((_, wish)) = actor.waiting.take() else { return };
                if actor.retries < 2 {
                    let retries = actor.retries + 1;
                    self.wishes(number, wish);
                    self.clients[number].retries = retries;
                }
            }
            Heard::Error { code, .. } => {
                actor.waiting = None;
                if code == ErrorCode::ALLOCATION_MISMATCH {
                    actor.is_allocated ^= true;
                }
            }
            Heard::Data { .. } | Heard::Icmp { .. } | Heard::ChannelData { .. } => {}
        }
    }

    /// Requests without any credential from everywhere, and with bad ones.
    pub(crate) fn floods(&mut self, host: usize) {
        let mut stranger = Client::new("nobody", "nothing", self.chance.number() as u32);
        for _ in 0..150 {
            let ip = IpAddr::V4(Ipv4Addr::new(40, 0, self.chance.below(2) as u8, self.chance.below(3) as u8));
            let path = self.path(host, Transport::Udp, ip);
            let bytes = match self.chance.below(3) {
                0 => stranger.allocate(None),
                1 => stranger.binding(),
                _ => {
                    let key = integrity::Key::md5("nobody", "nowhere", "nothing");
                    let mut buf = vec![0; 400];
                    let mut request = Reply::new(&mut buf, Method::ALLOCATE, Class::Request, [7; 12]);
                    request.bytes(Attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
                    request.bytes(Attribute::USERNAME, b"nobody").bytes(Attribute::REALM, b"example.org");
                    request.bytes(Attribute::NONCE, b"obMatJos2gAABabcdefg");
                    let len = request.sign(integrity::Algorithm::Sha1, &key).finish().expect("it fits");
                    buf.truncate(len);
                    buf
                }
            };
            let late = self.chance.below(500);
            self.later(Duration::from_millis(late), Event::Arrives { host, path, bytes, ttl: None });
        }
    }

    /// One client sends far more than its share, in one burst.
    pub(crate) fn is_loud(&mut self) {
        let allocated: Vec<usize> = (0..self.clients.len()).filter(|at| self.clients[*at].is_allocated).collect();
        if allocated.is_empty() {
            return;
        }
        let number = *self.chance.pick(&allocated);
        for _ in 0..60 {
            self.talks(number);
        }
    }

    /// As if from the server's own sockets, and from nowhere.
    pub(crate) fn spoofs(&mut self, host: usize) {
        let mut stranger = Client::new("nobody", "nothing", self.chance.number() as u32);
        let own = self.listener(host, true);
        let relays: Vec<SocketAddr> = self.hosts[host].relays().filter(SocketAddr::is_ipv4).collect();
        let from = [own, SocketAddr::new(own.ip(), 0), relays.first().copied().unwrap_or(own)];
        for client in from {
            let mut path = self.path(host, Transport::Udp, client.ip());
            path.tuple.client = client;
            let bytes = if self.chance.one_in(2) { stranger.binding() } else { stranger.allocate(None) };
            self.later(Duration::from_millis(1), Event::Arrives { host, path, bytes, ttl: None });
        }
    }

    /// A client of 2003, and one that uses the upper channel numbers of RFC 5766.
    pub(crate) fn speaks_old(&mut self, host: usize) {
        let number = self.chance.below(self.clients.len() as u64) as usize;
        let path = self.path(host, Transport::Udp, Ipv4Addr::new(41, 0, 0, 1).into());
        let mut classic = vec![0, 1, 0, 0];
        classic.extend(self.chance.bytes(16));
        self.later(Duration::from_millis(1), Event::Arrives { host, path, bytes: classic, ttl: None });
        let peer = self.destination();
        let channel = 0x5000 + self.chance.below(0x2fff) as u16;
        let [c0, c1] = channel.to_be_bytes();
        self.wishes(
            number,
            Wish::new(Method::CHANNEL_BIND).with(Attribute::CHANNEL_NUMBER, &[c0, c1, 0, 0]).with_peer(peer),
        );
    }
}

/// Lets `other` answer the challenge that this request has answered.
fn borrow_challenge(other: &mut Client, request: &[u8]) {
    let Ok(message) = Message::parse(request) else { return };
    let (Some(realm), Some(nonce)) = (message.get(Attribute::REALM), message.get(Attribute::NONCE)) else { return };
    let mut buf = vec![0; 400];
    let mut challenge = Reply::error(&mut buf, Method::REFRESH, message.transaction, ErrorCode::UNAUTHENTICATED, "");
    challenge.bytes(Attribute::REALM, realm).bytes(Attribute::NONCE, nonce);
    let Some(len) = challenge.finish() else { return };
    buf.truncate(len);
    let _ = other.hear(&buf);
}
