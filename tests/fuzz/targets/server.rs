//! The whole state machine in time, driven by a script: clients with true credentials, strangers, peers, ICMP, sockets that
//! come or fail, connections, reloads, hours.
//!
//! Owns what the shell would own, and judges every step by the law alone: one packet at most, to whom it belongs; nothing
//! to a peer that the rules refuse; little to whoever has proven nothing; and at the end nobody is left.

use super::script::Script;
use super::strict;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use turnserver::client::{self, Client};
use turnserver::time::{Duration, Instant, Now, UnixSeconds, minutes, seconds};
use turnserver::turn::credential::{self, Secret};
use turnserver::turn::opaque::OpaqueString;
use turnserver::turn::peers::{Own, Peers, RelayAddress};
use turnserver::turn::policy::{Policy, UserKeys};
use turnserver::turn::tally::{Tally, Transport};
use turnserver::turn::{
    Bind, BindError, Bound, Effect, FiveTuple, Input, Link, Path, RelayId, Server, StreamId, Verdict,
};
use turnserver::wire::channel::{ChannelData, ChannelNumber, HEAD};
use turnserver::wire::codes::{Attribute, Class, Method};
use turnserver::wire::icmp::Icmp;
use turnserver::wire::integrity::{Algorithm, Key};
use turnserver::wire::stun::{Family, Message};
use turnserver::wire::{self, Kind, Packet};

/// Things that happen in one script at most.
const MOST_STEPS: usize = 200;
/// Bytes of an answer for ten bytes of a question over UDP, while nothing is proven.
const AMPLIFICATION: usize = 29;
/// The same where a Binding needs a credential (`auth.anonymous_stun = false`).
const BINDING_AMPLIFICATION: usize = 34;
/// Longer than anything lives when nobody refreshes it: the longest allocation, a connection nobody binds, and the minutes
/// in which a channel rests.
const FOREVER: Duration = minutes(3 * 60);

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(20, 0, 0, 1));
const HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2a00, 0x20, 0, 0, 0, 0, 0, 1));
const PEERS: [SocketAddr; 6] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(11, 0, 0, 1)), 1111),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(11, 0, 0, 1)), 2222),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(11, 0, 0, 2)), 1111),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 1111),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2a00, 1, 0, 0, 0, 0, 0, 1)), 1111),
    SocketAddr::new(HOST, 50_000),
];
/// Each client's user and transport.
const CLIENTS: [(&str, Transport); 7] = [
    ("alice", Transport::Udp),
    ("alice", Transport::Tcp),
    ("alice", Transport::Tls),
    ("bob", Transport::Udp),
    ("bob", Transport::Tcp),
    ("guest", Transport::Dtls),
    ("nobody", Transport::Udp),
];
const METHODS: [Method; 9] = [
    Method::ALLOCATE,
    Method::REFRESH,
    Method::CREATE_PERMISSION,
    Method::CHANNEL_BIND,
    Method::CONNECT,
    Method::CONNECTION_BIND,
    Method::BINDING,
    Method::SEND,
    Method::OTHER,
];

pub(crate) fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut world = World::new(script.byte());
    world.is_met();
    for _ in 0..MOST_STEPS {
        if script.is_over() {
            break;
        }
        world.takes_a_step(&mut script);
        world.is_lawful();
    }
    world.comes_to_an_end();
}

struct Party {
    client: Client,
    path: Path,
    ticket: Vec<u8>,
}

struct World {
    server: Server,
    tally: Arc<Tally>,
    policy: Arc<Policy>,
    now: Now,
    packet: Packet,
    parties: Vec<Party>,
    /// Allocations that have begun and not ended.
    live: BTreeSet<RelayId>,
    /// What the shell was asked for and has not answered.
    waiting: Vec<Bind>,
    /// Connections with peers that the shell has or tries to make.
    streams: BTreeMap<StreamId, RelayId>,
    /// Those that it tries to make.
    attempts: BTreeSet<StreamId>,
    next_port: u16,
    last_token: [u8; 8],
}

/// What somebody sent, as far as the judgement of what comes back needs it.
struct Said {
    path: Path,
    len: usize,
}

impl World {
    fn new(settings: u8) -> Self {
        let policy = Arc::new(policy_of(settings));
        let now = Now { mono: Instant(1_000_000_000_000), unix: UnixSeconds(1_700_000_000) };
        let tally = Arc::new(Tally::default());
        let guest = credential::mint(
            &Secret::new("north"),
            OpaqueString::new("guest").ok().as_ref(),
            ':',
            minutes(20),
            now.unix,
        );
        let parties = CLIENTS.into_iter().zip(0..).map(|((user, transport), number)| {
            let (user, password) = match user {
                "guest" => (guest.username.as_str(), guest.password.as_str()),
                user => (user, user),
            };
            let client = SocketAddr::from(([30, 0, 0, number], 4000 + u16::from(number)));
            let tuple = FiveTuple { transport, client, server: SocketAddr::new(HOST, 3478) };
            let path = Path { tuple, link: Link(number.into()) };
            Party { client: Client::new(user, password, number.into()), path, ticket: Vec::new() }
        });
        Self {
            parties: parties.collect(),
            server: Server::new(policy.clone(), tally.clone(), now, [7; 32]),
            tally,
            policy,
            now,
            packet: Packet::new(vec![0xAA; 4096].into()),
            live: BTreeSet::new(),
            waiting: Vec::new(),
            streams: BTreeMap::new(),
            attempts: BTreeSet::new(),
            next_port: 50_000,
            last_token: [0; 8],
        }
    }

    /// Every client has heard a challenge, so that its first request of the story has a signature.
    fn is_met(&mut self) {
        for at in 0..self.parties.len() {
            let bytes = self.parties[at].client.allocate(None);
            self.says(self.parties[at].path, &bytes);
        }
    }

    fn takes_a_step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 16 {
            0..=4 => self.asks(script),
            5 => self.says_well(script),
            6 => {
                let at = usize::from(script.byte()) % self.parties.len();
                let bytes = script.counted();
                self.says(self.parties[at].path, bytes);
            }
            7 => {
                let client = script.address();
                let transport = *script.pick(&Transport::ALL);
                let tuple = FiveTuple { transport, client, server: SocketAddr::new(HOST, 3478) };
                self.says(Path { tuple, link: Link(99) }, script.counted());
            }
            8 => self.hears_a_peer(script),
            9 => {
                let (relay, peer) = (self.some_relay(script), *script.pick(&PEERS));
                let family = *script.pick(&[Family::V4, Family::V6]);
                let icmp = Icmp { family, kind: script.byte(), code: script.byte(), mtu: script.u32() };
                self.packet.fill(script.counted());
                self.handles(Input::Icmp { relay, peer, icmp }, None);
            }
            10 => self.binds(script),
            11 => self.waits(*script.pick(&WAITS)),
            12 => {
                let mut effects = Vec::new();
                self.policy = Arc::new(policy_of(script.byte()));
                self.server.set_policy(self.now, self.policy.clone(), &mut effects);
                self.performs(effects);
            }
            13 => {
                let at = usize::from(script.byte()) % self.parties.len();
                let path = self.parties[at].path;
                self.handles(Input::Closed(path.tuple), None);
            }
            14 => self.hears_of_a_connection(script),
            _ => self.waits(seconds(1)),
        }
    }

    /// A client asks for something that can be had.
    fn asks(&mut self, script: &mut Script<'_>) {
        let at = usize::from(script.byte()) % self.parties.len();
        let (flags, peer) = (script.byte(), *script.pick(&PEERS));
        let number = 0x4000 + u16::from(flags % 4);
        let (token, ticket) = (self.last_token, self.parties[(at + 1) % self.parties.len()].ticket.clone());
        let stream = self.streams.keys().nth(usize::from(flags % 4)).copied().unwrap_or(StreamId(0));
        let party = &mut self.parties[at];
        let bytes = match script.byte() % 8 {
            0 | 1 => party.client.request(Method::ALLOCATE, |request| {
                let protocol = if flags & 0x40 != 0 { 6 } else { 17 };
                request.bytes(Attribute::REQUESTED_TRANSPORT, &[protocol, 0, 0, 0]);
                match flags & 7 {
                    1 => drop(request.bytes(Attribute::EVEN_PORT, &[flags & 0x80])),
                    2 => drop(request.bytes(Attribute::RESERVATION_TOKEN, &token)),
                    3 => drop(request.bytes(Attribute::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0])),
                    4 => drop(request.bytes(Attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0])),
                    5 => drop(request.bytes(Attribute::DONT_FRAGMENT, &[])),
                    6 => drop(request.number(Attribute::LIFETIME, u32::from(flags) * 100)),
                    _ => {}
                }
                if flags & 8 != 0 {
                    request.bytes(Attribute::MOBILITY_TICKET, &[]);
                }
            }),
            2 => party.client.request(Method::REFRESH, |request| {
                if flags & 1 != 0 {
                    request.number(Attribute::LIFETIME, u32::from(flags >> 2) * 60);
                }
                if flags & 2 != 0 {
                    request.bytes(Attribute::MOBILITY_TICKET, &ticket);
                }
            }),
            3 => party.client.create_permission(&[peer, PEERS[usize::from(flags) % PEERS.len()]]),
            4 => party.client.channel_bind(number, peer),
            5 => party.client.send(peer, script.counted()),
            6 => {
                let number = ChannelNumber::new(number).expect("it is a channel");
                client::channel_data(number, script.counted())
            }
            _ if flags & 1 != 0 => party.client.request(Method::CONNECT, |request| {
                request.xor_address(Attribute::XOR_PEER_ADDRESS, peer);
            }),
            _ => party.client.request(Method::CONNECTION_BIND, |request| {
                request.number(Attribute::CONNECTION_ID, stream.0);
            }),
        };
        self.says(self.parties[at].path, &bytes);
        // Most sockets are there at once; a story may make the shell slow.
        if flags & 0x10 == 0 {
            self.binds(&mut Script::new(&[0xFF]));
        }
    }

    /// A client with its true credential says anything at all.
    fn says_well(&mut self, script: &mut Script<'_>) {
        let at = usize::from(script.byte()) % self.parties.len();
        let (method, count) = (*script.pick(&METHODS), script.byte() % 6);
        let attributes: Vec<(Attribute, &[u8])> =
            (0..count).map(|_| (*script.pick(Attribute::ALL), script.counted())).collect();
        let bytes = self.parties[at].client.request(method, |request| {
            for (attribute, value) in &attributes {
                request.bytes(*attribute, value);
            }
        });
        self.says(self.parties[at].path, &bytes);
    }

    fn says(&mut self, path: Path, bytes: &[u8]) {
        self.packet.fill(bytes);
        let said = Said { path, len: self.packet.len() };
        let input = Input::Client(path);
        self.handles(input, Some(said));
    }

    fn hears_a_peer(&mut self, script: &mut Script<'_>) {
        let (relay, from) = (self.some_relay(script), *script.pick(&PEERS));
        self.packet.fill(script.counted());
        self.handles(Input::Peer { relay, from }, None);
    }

    fn hears_of_a_connection(&mut self, script: &mut Script<'_>) {
        self.packet.clear();
        let some = self.streams.iter().nth(usize::from(script.byte() % 4)).map(|(stream, relay)| (*stream, *relay));
        let (stream, relay) = some.unwrap_or_else(|| (StreamId(script.u32()), self.some_relay(script)));
        let input = match script.byte() % 4 {
            0 if self.attempts.remove(&stream) => {
                let is_open = script.yes();
                if !is_open {
                    self.streams.remove(&stream);
                }
                Input::Connected { relay, stream, is_open }
            }
            1 => Input::Incoming { relay: self.some_relay(script), from: *script.pick(&PEERS) },
            2 => Input::Carried { relay, stream, to_peer: script.u32().into(), to_client: script.u32().into() },
            _ => {
                self.attempts.remove(&stream);
                self.streams.remove(&stream);
                Input::StreamClosed { relay, stream }
            }
        };
        self.handles(input, None);
    }

    /// A relay address of ours, or one that is not.
    fn some_relay(&self, script: &mut Script<'_>) -> RelayId {
        let at = usize::from(script.byte() % 8);
        let nobody = RelayId { index: u32::from(script.byte()), generation: 0 };
        self.live.iter().nth(at).copied().unwrap_or(nobody)
    }

    /// The shell has tried to make a socket that was wanted.
    fn binds(&mut self, script: &mut Script<'_>) {
        let how = script.byte();
        if self.waiting.is_empty() {
            return;
        }
        let bind = self.waiting.remove(usize::from(how >> 4) % self.waiting.len());
        let why = *script.pick(&[BindError::Quota, BindError::NoPort, BindError::NoResources, BindError::System]);
        let mut socket = |is_made, family| {
            let ip = if family == Family::V4 { HOST } else { HOST_V6 };
            self.next_port = self.next_port.wrapping_add(2).max(50_000);
            let bound = Bound { address: RelayAddress { local: ip, external: ip }, port: self.next_port };
            if is_made { Ok(bound) } else { Err(why) }
        };
        let result = socket(how & 3 != 0, bind.family);
        let also = bind.also.map(|family| socket(how & 4 != 0, family));
        self.packet.clear();
        self.handles(Input::Bound { relay: bind.relay, result, also }, None);
    }

    /// Time passes; the server is woken whenever it asked to be.
    fn waits(&mut self, time: Duration) {
        let end = self.now.mono + time;
        loop {
            let deadline = self.server.deadline().filter(|deadline| *deadline <= end);
            let step = deadline.unwrap_or(end).since(self.now.mono);
            let wall = self.now.unix.0 * 1_000_000_000 + self.now.mono.0 % 1_000_000_000 + step.as_nanos() as u64;
            self.now = Now { mono: self.now.mono + step, unix: UnixSeconds(wall / 1_000_000_000) };
            let mut effects = Vec::new();
            self.server.tick(self.now, &mut effects);
            self.performs(effects);
            if deadline.is_none() {
                return;
            }
            assert_ne!(self.server.deadline(), deadline, "a deadline that a tick does not clear is a busy loop");
        }
    }

    fn handles(&mut self, input: Input, said: Option<Said>) {
        let question = self.packet.data().to_vec();
        let before = self.packet.len();
        let is_reading = matches!(input, Input::Peer { .. });
        let mut effects = Vec::new();
        let verdict = self.server.handle(self.now, input, &mut self.packet, &mut effects);
        match verdict {
            Verdict::ToClient(to) => self.reaches_a_client(to, said.as_ref(), &question),
            Verdict::ToPeer { relay, peer, .. } => {
                assert!(self.live.contains(&relay), "through an allocation that is not there");
                assert!(said.is_some(), "only what a client sends goes to a peer");
                assert!(self.policy.peers.vet(peer).is_some(), "to a peer that the rules refuse: {peer}");
                assert!(self.packet.len() < before, "a payload as long as the message that carried it");
            }
            Verdict::Elsewhere(_) => panic!("there is no other worker"),
            Verdict::Wait(until) => assert!(until > self.now.mono),
            Verdict::Nothing | Verdict::Dropped(_) => {}
        }
        assert!(!is_reading || effects.is_empty(), "data has no effect on the world");
        let wanted = effects.iter().filter(|effect| matches!(effect, Effect::Bind(_))).count();
        assert!(wanted == 0 || wanted == 1 && verdict == Verdict::Nothing, "success is promised before it is there");
        self.performs(effects);
        if let (Verdict::ToClient(to), Some(_)) = (verdict, said) {
            self.remembers(to);
        }
    }

    /// What goes to a client is sound, belongs to it, and is not worth forging a source for.
    fn reaches_a_client(&self, to: Path, said: Option<&Said>, question: &[u8]) {
        let bytes = self.packet.data();
        if wire::classify(bytes) == Some(Kind::ChannelData) {
            assert!(said.is_none(), "a client hears of a channel when a peer speaks");
            let head = ChannelData::parse(bytes).expect("what we write is ChannelData");
            let padding = &bytes[HEAD + head.length..];
            let expected = if to.tuple.transport.is_stream() { (4 - head.length % 4) % 4 } else { 0 };
            assert!(padding.len() == expected && padding.iter().all(|byte| *byte == 0));
            return;
        }
        let answer = strict::read(bytes);
        let Some(said) = said else {
            return assert_ne!(answer.class, Class::Request);
        };
        assert_eq!(to, said.path, "an answer goes where the question came from");
        let question = Message::parse(question).expect("only a sound message is answered");
        assert_eq!(question.class, Class::Request, "only requests are answered");
        assert_eq!((answer.method, answer.transaction), (question.method, question.transaction));
        let is_signed = [Algorithm::Sha1, Algorithm::Sha256].into_iter().any(|kind| answer.is_signed(kind));
        if to.tuple.transport == Transport::Udp && !is_signed {
            // A Binding has no attribute to be longer by when it must show a credential.
            let is_challenge = answer.get(Attribute::NONCE).is_some();
            let is_short = is_challenge && answer.method == Method::BINDING;
            let most = if is_short { BINDING_AMPLIFICATION } else { AMPLIFICATION };
            let is_little = bytes.len() * 10 <= said.len * most;
            assert!(is_little, "{} bytes for {} that prove nothing", bytes.len(), said.len);
        }
        let is_let_in = is_signed || answer.method == Method::BINDING || answer.class == Class::Error;
        assert!(is_let_in, "a success for somebody who is not known");
    }

    /// The client at the end of this path takes note of what it hears.
    fn remembers(&mut self, to: Path) {
        let bytes = self.packet.data();
        let Some(party) = self.parties.iter_mut().find(|party| party.path == to) else { return };
        let _ = party.client.hear(bytes);
        let Ok(message) = Message::parse(bytes) else { return };
        if let Some(ticket) = message.get(Attribute::MOBILITY_TICKET) {
            party.ticket = ticket.to_vec();
        }
        if let Some(Ok(token)) = message.bytes(Attribute::RESERVATION_TOKEN) {
            self.last_token = token;
        }
    }

    fn performs(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Bind(bind) => {
                    assert!(!self.live.contains(&bind.relay), "an id that somebody has");
                    self.waiting.push(bind);
                }
                Effect::Began { relay, .. } => assert!(self.live.insert(relay), "it has begun before"),
                Effect::Ended { relay, .. } => {
                    assert!(self.live.remove(&relay), "what has not begun cannot end");
                    assert!(!self.streams.values().any(|of| *of == relay), "a connection that nobody owns");
                }
                Effect::Unbind { relay, .. } => assert!(self.live.contains(&relay)),
                Effect::Connect { relay, stream, peer, .. } => {
                    assert!(self.policy.peers.vet(peer).is_some(), "to a peer that the rules refuse: {peer}");
                    assert!(self.streams.insert(stream, relay).is_none(), "a number that another connection has");
                    self.attempts.insert(stream);
                }
                Effect::Accept { relay, stream } => {
                    assert!(self.streams.insert(stream, relay).is_none(), "a number that another connection has");
                }
                Effect::Join { relay, stream, .. } => assert_eq!(self.streams.get(&stream), Some(&relay)),
                Effect::Close { relay, stream } => {
                    self.attempts.remove(&stream);
                    assert_eq!(self.streams.remove(&stream), Some(relay), "closed twice, or never opened");
                }
                Effect::Attached(_) | Effect::Detached(_) => {}
            }
        }
    }

    /// The gauges say what the shell sees.
    fn is_lawful(&self) {
        let allocations: u64 = self.tally.allocations.iter().flatten().map(|counter| counter.get()).sum();
        assert_eq!(allocations, self.live.len() as u64);
        if self.live.is_empty() {
            assert_eq!((self.tally.permissions.get(), self.tally.channels.get()), (0, 0));
        }
    }

    /// Nobody says anything any more: everything ends by itself.
    fn comes_to_an_end(&mut self) {
        for bind in std::mem::take(&mut self.waiting) {
            self.packet.clear();
            self.handles(Input::Bound { relay: bind.relay, result: Err(BindError::System), also: None }, None);
        }
        self.waits(FOREVER);
        self.is_lawful();
        assert_eq!(self.live.len(), 0, "an allocation that nobody refreshes does not live forever");
        assert_eq!(self.streams.len(), 0, "nor does a connection");
        assert_eq!(self.server.deadline(), None);
    }
}

/// What the clock is moved by: what is just short of something, just over, or long.
const WAITS: [Duration; 8] =
    [seconds(1), seconds(29), seconds(31), minutes(5), minutes(4), minutes(10), seconds(601), minutes(61)];

/// Settings by their bits.
fn policy_of(settings: u8) -> Policy {
    let has = |bit: u8| settings & 1 << bit != 0;
    let plain = |ip| RelayAddress { local: ip, external: ip };
    let relays = vec![plain(HOST), plain(HOST_V6)];
    let own = Own {
        interfaces: vec![HOST, HOST_V6],
        relays: relays.clone(),
        relay_ports: 49_152..=65_535,
        services: vec![SocketAddr::new(HOST, 3478)],
    };
    let denied = PEERS[0].ip().into();
    let deny = if has(0) { vec![denied] } else { Vec::new() };
    let mut policy = Policy {
        realm: "example.org".into(),
        peers: Peers::new(&[], &deny, true, own),
        relays,
        draining: has(1),
        tcp_relays: !has(2),
        ..Policy::default()
    };
    let users: &[&str] = if has(3) { &["alice"] } else { &["alice", "bob"] };
    let keys = |user| UserKeys {
        md5: Some(Key::md5(user, "example.org", user)),
        sha256: (!has(4)).then(|| Key::sha256(user, "example.org", user)),
    };
    policy.auth.users = users.iter().map(|user| (user.to_string(), keys(user))).collect();
    policy.auth.secrets = vec![Secret::new("north")];
    policy.auth.nonce_key = Secret::new("a key for nonces");
    policy.auth.mobility = !has(5);
    policy.auth.strict_expiry = has(6);
    policy.auth.anonymous_stun = !has(7);
    policy.limits.bandwidth_per_allocation = has(6).then_some(1000);
    policy.limits.permissions_per_allocation = 4;
    policy.limits.channels_per_allocation = 3;
    if has(1) && has(0) {
        policy.redirect.servers = vec![SocketAddr::from(([40, 0, 0, 1], 3478))];
    }
    policy
}
