//! A world with one server, clients by name, peers, and a clock that moves when told.
//!
//! Owns what the shell would own: the relay ports, the quotas, the sockets. Every packet the server emits is read
//! strictly here, whatever the story is about: structure, zero padding, transaction, signature, addressee.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use turnserver::client::{self, Client};
use turnserver::time::{Duration, Instant, Now, UnixSeconds};
use turnserver::turn::credential::{self, Secret};
use turnserver::turn::opaque::OpaqueString;
use turnserver::turn::peers::{Own, Peers, Prefix, RelayAddress};
use turnserver::turn::policy::{Policy, UserKeys};
use turnserver::turn::ports::{Claim, Ports};
use turnserver::turn::refusal::{Dropped, Ended};
use turnserver::turn::tally::{Tally, Transport};
use turnserver::turn::{
    Bind, BindError, Bound, Effect, FiveTuple, Input, Link, Path, Place, RelayId, Server, Session, StreamId, Usage,
    Verdict,
};
use turnserver::wire::Packet;
use turnserver::wire::channel::ChannelNumber;
use turnserver::wire::codes::{Attribute, Class, Method};
use turnserver::wire::icmp::Icmp;
use turnserver::wire::integrity::{self, Algorithm, Key, PasswordAlgorithm};
use turnserver::wire::packet::{Marks, SLOT};
use turnserver::wire::reply::Reply;
use turnserver::wire::stun::{Family, Message, xor_address};

mod ask;
mod outcome;
mod strict;
mod voice;

pub(crate) use ask::*;
pub(crate) use outcome::*;
use strict::error_code;
pub(crate) use strict::reads_strictly;
pub(crate) use turnserver::time::{minutes, seconds};
pub(crate) use voice::*;

pub(crate) const REALM: &str = "example.org";
/// The users of the configuration; each has the password `<name>'s password`.
pub(crate) const USERS: [&str; 3] = ["alice", "bob", "carol"];
/// The secret of time-limited credentials.
pub(crate) const SECRET: &str = "north";

/// What the nonces of a server begin with that offers password algorithms, and its PASSWORD-ALGORITHMS.
pub(crate) const OFFERING: &[u8] = b"obMatJos2gAAB";
pub(crate) const OFFER: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];

pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 1);
pub(crate) const HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2a00, 0x20, 0, 0, 0, 0, 0, 1);
pub(crate) const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(HOST), 3478);
pub(crate) const SERVER_V6: SocketAddr = SocketAddr::new(IpAddr::V6(HOST_V6), 3478);
pub(crate) const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(HOST), 8080);

pub(crate) const PEER_A: SocketAddr = peer_at(1, 1111);
/// Another port of the same host.
pub(crate) const PEER_A2: SocketAddr = peer_at(1, 2222);
pub(crate) const PEER_B: SocketAddr = peer_at(2, 1111);
pub(crate) const PEER_C: SocketAddr = peer_at(3, 1111);
pub(crate) const PEER_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2a00, 1, 0, 0, 0, 0, 0, 1)), 1111);
/// A peer no default permits.
pub(crate) const PRIVATE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 1111);

pub(crate) const fn peer_at(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(11, 0, 0, host)), port)
}

pub(crate) fn password_of(user: &str) -> String {
    format!("{user}'s password")
}

/// What a world begins with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) policy: Policy,
    pub(crate) relay_ports: RangeInclusive<u16>,
    pub(crate) allow: Vec<Prefix>,
    pub(crate) deny: Vec<Prefix>,
    pub(crate) relays: Vec<RelayAddress>,
    /// Which worker of how many.
    pub(crate) place: Place,
}

#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) server: Server,
    pub(crate) tally: Arc<Tally>,
    pub(crate) policy: Policy,
    pub(crate) now: Now,
    pub(crate) ports: Ports,
    /// What the shell answers to every Bind, when it is to fail.
    pub(crate) bind_fails: Option<BindError>,
    /// Whether Binds wait for [`Turn::shell_binds`].
    pub(crate) shell_is_slow: bool,
    /// Sessions that are over.
    pub(crate) ended: Vec<(Session, Usage, Ended)>,
    /// What else the shell was asked to do.
    pub(crate) deeds: Vec<Effect>,
    /// What the IP headers of arriving datagrams say.
    pub(crate) arriving: Marks,
    /// The keys in the access tokens of this story.
    pub(crate) token_keys: Vec<Key>,
    settings: Settings,
    held: BTreeMap<RelayId, Held>,
    /// What the slow shell has not done yet.
    pub(crate) waiting: Vec<Bind>,
    parties: Vec<Party>,
    packet: Packet,
}

/// A relay socket as the shell holds it.
#[derive(Debug)]
struct Held {
    /// One for each family it relays.
    claims: Vec<Claim>,
    user: Box<str>,
}

impl Turn {
    /// A server nobody has spoken to.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// A server with one client, by this name, that has an allocation.
    pub(crate) fn allocated(name: &str) -> Self {
        let mut turn = Self::new();
        turn.joins(name);
        turn.client(name).allocates();
        turn
    }

    /// A server with other settings than most stories need.
    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut policy = Policy { realm: REALM.into(), ..Policy::default() };
        policy.auth.users = USERS.iter().map(|user| (user.to_string(), keys_of(user, &password_of(user)))).collect();
        policy.auth.secrets = vec![Secret::new(SECRET)];
        policy.auth.nonce_key = Secret::new("a key for nonces");
        let plain = |ip| RelayAddress { local: ip, external: ip };
        let mut settings = Settings {
            policy,
            relay_ports: 49152..=65535,
            allow: Vec::new(),
            deny: Vec::new(),
            relays: vec![plain(HOST.into()), plain(HOST_V6.into())],
            place: Place { number: 0, count: 1 },
        };
        change(&mut settings);
        let policy = settings.policy_now();
        let now = Now { mono: Instant(1_000_000_000_000), unix: UnixSeconds(1_700_000_000) };
        let tally = Arc::new(Tally::default());
        Self {
            server: Server::new(Arc::new(policy.clone()), tally.clone(), now, [7; 32]).with_place(settings.place),
            ports: Ports::new(&policy.relays, settings.relay_ports.clone()),
            tally,
            policy,
            now,
            bind_fails: None,
            shell_is_slow: false,
            ended: Vec::new(),
            deeds: Vec::new(),
            arriving: Marks::default(),
            token_keys: Vec::new(),
            settings,
            held: BTreeMap::new(),
            waiting: Vec::new(),
            parties: Vec::new(),
            packet: Packet::new(vec![0xAA; SLOT].into()),
        }
    }

    /// A client over UDP, whose user has its name.
    pub(crate) fn joins(&mut self, name: &str) -> Voice<'_> {
        self.joins_as(name, name, &password_of(name), Transport::Udp)
    }

    /// A client over TCP, whose user has its name.
    pub(crate) fn joins_by_tcp(&mut self, name: &str) -> Voice<'_> {
        self.joins_as(name, name, &password_of(name), Transport::Tcp)
    }

    /// A client with any credential.
    pub(crate) fn joins_as(&mut self, name: &str, user: &str, password: &str, transport: Transport) -> Voice<'_> {
        let number = self.parties.len() as u16;
        let [high, low] = number.to_be_bytes();
        let client = SocketAddr::from(([30, 0, high, low], 4000 + number % 20_000));
        self.joins_at(name, user, password, FiveTuple { transport, client, server: SERVER })
    }

    /// A client with any credential on any 5-tuple.
    pub(crate) fn joins_at(&mut self, name: &str, user: &str, password: &str, tuple: FiveTuple) -> Voice<'_> {
        let number = self.parties.len() as u32;
        self.parties.push(Party {
            name: name.into(),
            client: Client::new(user, password, number),
            user: user.into(),
            password: password.into(),
            path: Path { tuple, link: Link(number) },
            relayed: None,
            token: None,
            nonce: Vec::new(),
            ticket: Vec::new(),
            relay: None,
            last: Vec::new(),
        });
        Voice { turn: self, at: number as usize }
    }

    /// A client that joined before.
    pub(crate) fn client(&mut self, name: &str) -> Voice<'_> {
        let at = self.parties.iter().position(|party| party.name == name).expect("the client has joined");
        Voice { turn: self, at }
    }

    /// The path of a client that joined before.
    pub(crate) fn path_of(&self, name: &str) -> Path {
        self.parties.iter().find(|party| party.name == name).expect("the client has joined").path
    }

    /// The first client says something.
    #[must_use = "a story says what it expects"]
    pub(crate) fn says(&mut self, ask: Ask) -> Outcome {
        self.first().says(ask)
    }

    /// The first client.
    pub(crate) fn first(&mut self) -> Voice<'_> {
        Voice { turn: self, at: 0 }
    }

    /// A peer, which speaks from this address.
    pub(crate) fn peer(&mut self, from: SocketAddr) -> PeerVoice<'_> {
        PeerVoice { turn: self, from }
    }

    /// Time passes; the server is woken whenever it asked to be.
    pub(crate) fn waits(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while let Some(deadline) = self.server.deadline().filter(|deadline| *deadline <= end) {
            let step = deadline.since(self.now.mono);
            self.passes(step);
            self.ticks();
            assert!(self.server.deadline() != Some(deadline), "a deadline that a tick does not clear is a busy loop");
        }
        let rest = end.since(self.now.mono);
        self.passes(rest);
    }

    /// Time passes and nobody wakes the server.
    pub(crate) fn passes(&mut self, time: Duration) {
        let wall = self.now.unix.0 * 1_000_000_000 + self.now.mono.0 % 1_000_000_000;
        self.now.mono += time;
        self.now.unix = UnixSeconds((wall + time.as_nanos() as u64) / 1_000_000_000);
    }

    pub(crate) fn ticks(&mut self) {
        let mut effects = Vec::new();
        self.server.tick(self.now, &mut effects);
        let verdict = self.performs(effects, Verdict::Nothing);
        assert_eq!(verdict, Verdict::Nothing, "no timer makes a packet");
    }

    /// Puts other settings in force.
    pub(crate) fn reloads(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
        self.policy = self.settings.policy_now();
        let mut effects = Vec::new();
        self.server.set_policy(self.now, Arc::new(self.policy.clone()), &mut effects);
        assert_eq!(self.performs(effects, Verdict::Nothing), Verdict::Nothing);
    }

    /// Everything ends, as when the server stops.
    pub(crate) fn stops(&mut self) {
        let mut effects = Vec::new();
        self.server.end_all(self.now, &mut effects);
        assert_eq!(self.performs(effects, Verdict::Nothing), Verdict::Nothing);
    }

    /// A datagram from anybody.
    #[must_use = "a story says what it expects"]
    pub(crate) fn datagram(&mut self, tuple: FiveTuple, bytes: &[u8]) -> Outcome {
        self.datagram_on(Path { tuple, link: Link(u32::MAX) }, bytes)
    }

    /// The slow shell makes the sockets it was asked for; the last answer is the outcome.
    #[must_use = "a story says what it expects"]
    pub(crate) fn shell_binds(&mut self) -> Outcome {
        let mut verdict = Verdict::Nothing;
        for bind in core::mem::take(&mut self.waiting) {
            verdict = self.binds(bind);
        }
        self.outcome(verdict, Vec::new())
    }

    /// The shell has tried the connection it was asked for last: the answer is read like any other.
    #[must_use = "a story says what it expects"]
    pub(crate) fn shell_connects(&mut self, is_open: bool) -> Outcome {
        let wanted = |deed: &Effect| {
            if let Effect::Connect { relay, stream, .. } = deed { Some((*relay, *stream)) } else { None }
        };
        let connect = self.deeds.iter().rev().find_map(wanted);
        let (relay, stream) = connect.expect("the shell was asked to connect");
        self.packet.clear();
        let verdict = self.handles(Input::Connected { relay, stream, is_open });
        if let Verdict::ToClient(to) = verdict {
            let asker = self.parties.iter().find(|party| party.path == to).expect("somebody asked");
            self.reads_answer(&asker.last);
        }
        self.outcome(verdict, Vec::new())
    }

    /// Something happened that is no packet.
    pub(crate) fn handles(&mut self, input: Input) -> Verdict {
        let mut effects = Vec::new();
        let verdict = self.server.handle(self.now, input, &mut self.packet, &mut effects);
        self.performs(effects, verdict)
    }

    /// The connections the shell was asked to close, since the last time this was asked.
    pub(crate) fn closed(&mut self) -> Vec<StreamId> {
        let closed = |deed: &mut Effect| matches!(deed, Effect::Close { .. });
        let stream = |deed| if let Effect::Close { stream, .. } = deed { Some(stream) } else { None };
        self.deeds.extract_if(.., closed).filter_map(stream).collect()
    }

    /// Live allocations, as the shell sees them.
    pub(crate) fn sockets(&self) -> usize {
        self.held.len()
    }

    /// Live allocations, permissions and channels, as the metrics see them.
    pub(crate) fn gauges(&self) -> (u64, u64, u64) {
        let allocations = self.tally.allocations.iter().flatten().map(|counter| counter.get()).sum();
        (allocations, self.tally.permissions.get(), self.tally.channels.get())
    }

    /// The server is as if nobody had ever come.
    pub(crate) fn is_as_new(&self) {
        assert_eq!(self.gauges(), (0, 0, 0));
        assert_eq!((self.sockets(), self.ports.used()), (0, 0));
        assert_eq!(self.ports.free(), (self.settings.relay_ports.len() * self.settings.relays.len()) as u64);
    }

    /// What the IP header of the packet that left last says.
    pub(crate) fn marks(&self) -> Marks {
        self.packet.marks
    }

    pub(crate) fn dropped(&self, why: Dropped) -> u64 {
        self.tally.dropped[why as usize].get()
    }

    fn datagram_on(&mut self, path: Path, bytes: &[u8]) -> Outcome {
        self.packet.fill(bytes);
        self.packet.marks = self.arriving;
        let mut effects = Vec::new();
        let verdict = self.server.handle(self.now, Input::Client(path), &mut self.packet, &mut effects);
        let verdict = self.performs(effects, verdict);
        if let Verdict::ToClient(to) = verdict {
            if self.policy.nat_discovery.is_empty() {
                assert_eq!(to, path, "the answer goes where the question came from");
            }
            assert_eq!((to.link, to.tuple.client.ip()), (path.link, path.tuple.client.ip()), "never to another host");
            self.reads_answer(bytes);
        }
        self.outcome(verdict, bytes.to_vec())
    }

    fn outcome(&self, verdict: Verdict, asked: Vec<u8>) -> Outcome {
        Outcome { verdict, bytes: self.packet.data().to_vec(), asked }
    }

    fn performs(&mut self, effects: Vec<Effect>, mut verdict: Verdict) -> Verdict {
        for effect in effects {
            match effect {
                Effect::Bind(bind) if self.shell_is_slow => self.waiting.push(bind),
                Effect::Bind(bind) => {
                    assert_eq!(verdict, Verdict::Nothing, "success is never promised before the socket is there");
                    verdict = self.binds(bind);
                }
                Effect::Began { relay, session } => {
                    let held = self.held.get(&relay).expect("it began with a socket");
                    let told = |claim: &Claim| SocketAddr::new(claim.address.external, claim.port);
                    let relays: Vec<SocketAddr> = held.claims.iter().map(told).collect();
                    assert_eq!(relays, Vec::from_iter([session.relay].into_iter().chain(session.second_relay)));
                    if let Some(party) = self.parties.iter_mut().find(|party| party.path == session.path) {
                        party.relay = Some(relay);
                    }
                }
                Effect::Ended { relay, session, usage, why, .. } => {
                    let held = self.held.remove(&relay).expect("what ends had a socket");
                    held.claims.into_iter().for_each(|claim| self.ports.give_back(self.now.mono, claim));
                    self.ended.push((session, usage, why));
                }
                Effect::Unbind { relay, family } => {
                    let held = self.held.get_mut(&relay).expect("it has sockets");
                    let is_gone = |claim: &mut Claim| Family::of(claim.address.local) == family;
                    let gone: Vec<Claim> = held.claims.extract_if(.., is_gone).collect();
                    assert_eq!(gone.len(), 1, "a socket that was there closes");
                    gone.into_iter().for_each(|claim| self.ports.give_back(self.now.mono, claim));
                }
                deed @ (Effect::Connect { .. }
                | Effect::Accept { .. }
                | Effect::Join { .. }
                | Effect::Close { .. }
                | Effect::Attached(_)
                | Effect::Detached(_)) => self.deeds.push(deed),
            }
        }
        verdict
    }

    fn binds(&mut self, bind: Bind) -> Verdict {
        let relay = bind.relay;
        let first = self.claims(&bind, bind.family);
        let also = bind.also.map(|family| self.claims(&bind, family));
        let bound = |claim: &Claim| Bound { address: claim.address, port: claim.port };
        let result = first.as_ref().map(bound).map_err(|why| *why);
        let second = also.as_ref().map(|also| also.as_ref().map(bound).map_err(|why| *why));
        let claims: Vec<Claim> = [Some(first), also].into_iter().flatten().flatten().collect();
        if !claims.is_empty() {
            self.held.insert(relay, Held { claims, user: bind.user });
        }
        let mut effects = Vec::new();
        let input = Input::Bound { relay, result, also: second };
        let verdict = self.server.handle(self.now, input, &mut self.packet, &mut effects);
        if verdict == Verdict::Dropped(Dropped::NoAllocation)
            && let Some(held) = self.held.remove(&relay)
        {
            // The client went away in between.
            held.claims.into_iter().for_each(|claim| self.ports.give_back(self.now.mono, claim));
        }
        self.performs(effects, verdict)
    }

    fn claims(&mut self, bind: &Bind, family: Family) -> Result<Claim, BindError> {
        let limits = &self.policy.limits;
        let of_user = self.held.values().filter(|held| held.user == bind.user).count() as u32;
        let is_full = |limit: u32, count: u32| limit != 0 && count >= limit;
        if is_full(limits.allocations, self.held.len() as u32) || is_full(limits.allocations_per_user, of_user) {
            return Err(BindError::Quota);
        }
        if let Some(why) = self.bind_fails {
            return Err(why);
        }
        self.ports.take(self.now.mono, family, bind.want, &bind.user, bind.chance).ok_or(BindError::NoPort)
    }
}

/// What the server keeps of a password.
pub(crate) fn keys_of(user: &str, password: &str) -> UserKeys {
    UserKeys { md5: Some(Key::md5(user, REALM, password)), sha256: Some(Key::sha256(user, REALM, password)) }
}

impl Settings {
    fn policy_now(&self) -> Policy {
        let own = Own {
            interfaces: vec![HOST.into(), HOST_V6.into()],
            relays: self.relays.clone(),
            relay_ports: self.relay_ports.clone(),
            services: vec![SERVER, SERVER_V6, HTTP],
        };
        let peers = Peers::new(&self.allow, &self.deny, true, own);
        Policy { peers, relays: self.relays.clone(), ..self.policy.clone() }
    }
}

/// A time-limited credential that ends so long from now.
pub(crate) fn minted(turn: &Turn, user: &str, ttl: Duration) -> (String, String) {
    let user = OpaqueString::new(user).expect("a name");
    let minted = credential::mint(&Secret::new(SECRET), Some(&user), credential::SEPARATOR, ttl, turn.now.unix);
    (minted.username, minted.password.to_string())
}

/// The family of a relay address.
pub(crate) fn family(address: SocketAddr) -> Family {
    Family::of(address.ip())
}
