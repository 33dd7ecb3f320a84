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
use turnserver::turn::peers::{Own, Peers, Prefix, RelayAddress};
use turnserver::turn::policy::{Policy, UserKeys};
use turnserver::turn::ports::{Claim, Ports};
use turnserver::turn::refusal::{Dropped, Ended};
use turnserver::turn::tally::{Tally, Transport};
use turnserver::turn::{
    Bind, BindError, Bound, Effect, FiveTuple, Input, Link, Path, RelayId, Server, Session, Usage, Verdict,
};
use turnserver::wire::Packet;
use turnserver::wire::channel::ChannelNumber;
use turnserver::wire::codes::{Attribute, Class, Method};
use turnserver::wire::integrity::{Algorithm, Key};
use turnserver::wire::packet::{Marks, SLOT};
use turnserver::wire::reply::Reply;
use turnserver::wire::stun::{Family, Message};

pub(crate) use turnserver::time::{minutes, seconds};

pub(crate) const REALM: &str = "example.org";
/// The users of the configuration; each has the password `<name>'s password`.
pub(crate) const USERS: [&str; 3] = ["alice", "bob", "carol"];
/// The secret of time-limited credentials.
pub(crate) const SECRET: &str = "north";

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
    settings: Settings,
    held: BTreeMap<RelayId, Held>,
    waiting: Vec<Bind>,
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

/// A client with its 5-tuple and what it remembers.
#[derive(Debug)]
pub(crate) struct Party {
    name: String,
    pub(crate) client: Client,
    pub(crate) user: String,
    password: String,
    pub(crate) path: Path,
    pub(crate) relayed: Option<SocketAddr>,
    pub(crate) token: Option<[u8; 8]>,
    pub(crate) nonce: Vec<u8>,
    relay: Option<RelayId>,
    last: Vec<u8>,
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
        };
        change(&mut settings);
        let policy = settings.policy_now();
        let now = Now { mono: Instant(1_000_000_000_000), unix: UnixSeconds(1_700_000_000) };
        let tally = Arc::new(Tally::default());
        Self {
            server: Server::new(Arc::new(policy.clone()), tally.clone(), now, [7; 32]),
            ports: Ports::new(&policy.relays, settings.relay_ports.clone()),
            tally,
            policy,
            now,
            bind_fails: None,
            shell_is_slow: false,
            ended: Vec::new(),
            deeds: Vec::new(),
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

    /// How many binds wait for the slow shell.
    pub(crate) fn binds_waiting(&self) -> usize {
        self.waiting.len()
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
        let mut effects = Vec::new();
        let verdict = self.server.handle(self.now, Input::Client(path), &mut self.packet, &mut effects);
        let verdict = self.performs(effects, verdict);
        if let Verdict::ToClient(to) = verdict {
            assert_eq!(to, path, "the answer goes where the question came from");
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

    /// Reads an answer as strictly as the RFCs let a client be.
    fn reads_answer(&self, asked: &[u8]) {
        let question = Message::parse(asked).expect("only a sound message is answered");
        assert_eq!(question.class, Class::Request, "only requests are answered");
        let answer = reads_strictly(self.packet.data());
        assert!(matches!(answer.class, Class::Success | Class::Error));
        assert_eq!((answer.method, answer.transaction), (question.method, question.transaction));
        assert_eq!(answer.has_fingerprint(), question.has_fingerprint());
        assert!(answer.get(Attribute::USERNAME).is_none() && !answer.is_signed(Algorithm::Sha256));
        let code = error_code(&answer);
        let is_challenge = matches!(code, Some(401 | 438));
        for attribute in [Attribute::REALM, Attribute::NONCE] {
            assert_eq!(answer.get(attribute).is_some(), is_challenge, "{attribute:?}");
        }
        let is_signed = answer.is_signed(Algorithm::Sha1);
        let is_anonymous = question.method == Method::BINDING && self.policy.auth.anonymous_stun;
        match code {
            Some(400) => {}
            Some(401 | 438) => assert!(!is_signed, "a challenge is not signed"),
            _ => assert_eq!(is_signed, !is_anonymous, "whoever is known gets a signed answer"),
        }
        if is_signed {
            let key = self.key_of(&question).expect("who is answered with a signature has a name");
            assert!(answer.verify(Algorithm::Sha1, &key), "signed with another key");
        }
        let says_software = is_signed && matches!(question.method, Method::ALLOCATE | Method::REFRESH);
        assert_eq!(answer.get(Attribute::SOFTWARE).is_some(), says_software);
    }

    fn key_of(&self, question: &Message<'_>) -> Option<Key> {
        let user = question.text(Attribute::USERNAME)?.ok()?;
        let own = self.parties.iter().filter(|party| party.user == user);
        let mut keys = own.map(|party| Key::md5(user, REALM, &party.password));
        self.policy
            .auth
            .users
            .get(user)
            .and_then(|keys| keys.md5.clone())
            .or_else(|| keys.find(|key| question.verify(Algorithm::Sha1, key)))
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

/// Reads a STUN message, and looks at what a lenient reader would overlook.
pub(crate) fn reads_strictly(bytes: &[u8]) -> Message<'_> {
    let message = Message::parse(bytes).expect("what the server says is STUN");
    let mut at = 20;
    while at < bytes.len() {
        let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        let padding = &bytes[at + 4 + length..at + 4 + length.next_multiple_of(4)];
        assert!(padding.iter().all(|byte| *byte == 0), "padding that is not zero tells what lay there before");
        at += 4 + length.next_multiple_of(4);
    }
    if message.class == Class::Error {
        let value = message.get(Attribute::ERROR_CODE).expect("an error has a code");
        let [0, 0, class @ 3..=6, number @ 0..=99, reason @ ..] = value else { panic!("no error code: {value:?}") };
        let _ = (class, number);
        assert!(std::str::from_utf8(reason).is_ok_and(|reason| reason.chars().count() < 128));
    } else {
        assert!(message.get(Attribute::ERROR_CODE).is_none());
    }
    message
}

fn error_code(message: &Message<'_>) -> Option<u16> {
    let [_, _, class, number, ..] = message.get(Attribute::ERROR_CODE)? else { return None };
    Some(u16::from(*class) * 100 + u16::from(*number))
}

/// One client, about to speak.
#[derive(Debug)]
pub(crate) struct Voice<'t> {
    turn: &'t mut Turn,
    at: usize,
}

impl Voice<'_> {
    #[must_use = "a story says what it expects"]
    pub(crate) fn says(&mut self, ask: Ask) -> Outcome {
        let bytes = ask.bytes(&mut self.turn.parties[self.at]);
        self.says_bytes(&bytes)
    }

    /// Says exactly these bytes.
    #[must_use = "a story says what it expects"]
    pub(crate) fn says_bytes(&mut self, bytes: &[u8]) -> Outcome {
        let party = &mut self.turn.parties[self.at];
        party.last = bytes.to_vec();
        let path = party.path;
        let outcome = self.turn.datagram_on(path, bytes);
        if let Verdict::ToClient(_) = outcome.verdict {
            self.listens(&outcome);
        }
        if let Verdict::ToPeer { relay, .. } = outcome.verdict {
            assert_eq!(Some(relay), self.turn.parties[self.at].relay, "it leaves from the client's own relay address");
        }
        outcome
    }

    /// The same bytes as the last time.
    #[must_use = "a story says what it expects"]
    pub(crate) fn repeats(&mut self) -> Outcome {
        let bytes = self.turn.parties[self.at].last.clone();
        self.says_bytes(&bytes)
    }

    /// Asks for an allocation until it is granted; a challenge may come first.
    pub(crate) fn allocates(&mut self) -> Outcome {
        self.obtains(allocate())
    }

    /// Says something that must succeed once the client has answered a challenge.
    pub(crate) fn obtains(&mut self, ask: Ask) -> Outcome {
        let first = self.says(ask.clone());
        if first.code() == Some(401) || first.code() == Some(438) {
            return self.says(ask).hears(success());
        }
        first.hears(success())
    }

    /// Asks for an allocation without a credential, to learn realm and nonce.
    pub(crate) fn learns_a_nonce(&mut self) -> &mut Self {
        let path = self.turn.parties[self.at].path;
        let bytes = allocate().unsigned().bytes(&mut self.turn.parties[self.at]);
        let outcome = self.turn.datagram_on(path, &bytes).hears(error(401));
        self.listens(&outcome);
        self
    }

    /// Its connection closes.
    pub(crate) fn leaves(&mut self) {
        let tuple = self.turn.parties[self.at].path.tuple;
        let mut effects = Vec::new();
        let verdict = self.turn.server.handle(self.turn.now, Input::Closed(tuple), &mut self.turn.packet, &mut effects);
        assert_eq!(self.turn.performs(effects, verdict), Verdict::Nothing);
    }

    pub(crate) fn party(&mut self) -> &mut Party {
        &mut self.turn.parties[self.at]
    }

    pub(crate) fn relayed(&self) -> SocketAddr {
        self.turn.parties[self.at].relayed.expect("the client has an allocation")
    }

    /// Which slot of the server's table its allocation has.
    pub(crate) fn slot(&self) -> u32 {
        self.turn.parties[self.at].relay.expect("the client has had an allocation").index
    }

    fn listens(&mut self, outcome: &Outcome) {
        let party = &mut self.turn.parties[self.at];
        let _ = party.client.hear(&outcome.bytes);
        let Ok(message) = Message::parse(&outcome.bytes) else { return };
        if let Some(nonce) = message.get(Attribute::NONCE) {
            party.nonce = nonce.to_vec();
        }
        if message.class == Class::Success && message.method == Method::ALLOCATE {
            party.relayed = message.xor_address(Attribute::XOR_RELAYED_ADDRESS).and_then(Result::ok);
            party.token = message.bytes(Attribute::RESERVATION_TOKEN).and_then(Result::ok);
        }
    }
}

/// One peer, about to speak.
#[derive(Debug)]
pub(crate) struct PeerVoice<'t> {
    turn: &'t mut Turn,
    from: SocketAddr,
}

impl PeerVoice<'_> {
    /// Sends a datagram to the first client's relay address.
    #[must_use = "a story says what it expects"]
    pub(crate) fn sends(&mut self, payload: &[u8]) -> Outcome {
        self.sends_to_party(0, payload)
    }

    /// Sends a datagram to this client's relay address.
    #[must_use = "a story says what it expects"]
    pub(crate) fn sends_to(&mut self, name: &str, payload: &[u8]) -> Outcome {
        let at = self.turn.parties.iter().position(|party| party.name == name).expect("the client has joined");
        self.sends_to_party(at, payload)
    }

    fn sends_to_party(&mut self, at: usize, payload: &[u8]) -> Outcome {
        let turn = &mut *self.turn;
        let relay = turn.parties[at].relay.expect("the client has had an allocation");
        let path = turn.parties[at].path;
        let is_open = turn.held.contains_key(&relay);
        turn.packet.fill(payload);
        let mut effects = Vec::new();
        let input = Input::Peer { relay, from: self.from };
        let verdict = turn.server.handle(turn.now, input, &mut turn.packet, &mut effects);
        assert!(effects.is_empty(), "data has no effect on the world");
        if let Verdict::ToClient(to) = verdict {
            assert_eq!(to, path, "data reaches the client of this relay address");
            assert!(is_open);
            let bytes = turn.packet.data();
            assert!(!path.tuple.transport.is_stream() || bytes.len().is_multiple_of(4));
            if bytes[0] < 0x40 {
                reads_strictly(bytes);
            } else if path.tuple.transport.is_stream() {
                assert!(bytes[4 + payload.len()..].iter().all(|byte| *byte == 0));
            } else {
                assert_eq!(bytes.len(), 4 + payload.len());
            }
        }
        turn.outcome(verdict, Vec::new())
    }
}

/// Something a client says.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    what: What,
    attributes: Vec<(Attribute, Value)>,
    edits: Vec<Edit>,
}

#[derive(Clone, Debug)]
enum What {
    /// With the client's credential, once it has a challenge.
    Request(Method),
    /// Without one.
    Bare(Method, Class),
    Bytes(Vec<u8>),
}

#[derive(Clone, Debug)]
enum Value {
    Bytes(Vec<u8>),
    Address(SocketAddr),
}

#[derive(Clone, Debug)]
enum Edit {
    Without(Attribute),
    Set(Attribute, Vec<u8>),
    Trailing(Attribute, Vec<u8>),
    Key(Key),
    Unsigned,
    Forged,
    Fingerprint,
}

fn ask(what: What) -> Ask {
    Ask { what, attributes: Vec::new(), edits: Vec::new() }
}

pub(crate) fn request(method: Method) -> Ask {
    ask(What::Request(method))
}

pub(crate) fn binding() -> Ask {
    ask(What::Bare(Method::BINDING, Class::Request))
}

pub(crate) fn message(method: Method, class: Class) -> Ask {
    ask(What::Bare(method, class))
}

pub(crate) fn bytes(bytes: &[u8]) -> Ask {
    ask(What::Bytes(bytes.into()))
}

pub(crate) fn allocate() -> Ask {
    request(Method::ALLOCATE).with(Attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
}

pub(crate) fn refresh() -> Ask {
    request(Method::REFRESH)
}

pub(crate) fn refresh_for(lifetime: u32) -> Ask {
    refresh().with(Attribute::LIFETIME, &lifetime.to_be_bytes())
}

pub(crate) fn create_permission(peers: &[SocketAddr]) -> Ask {
    peers.iter().fold(request(Method::CREATE_PERMISSION), |ask, peer| ask.with_peer(*peer))
}

pub(crate) fn channel_bind(number: u16, peer: SocketAddr) -> Ask {
    let [n0, n1] = number.to_be_bytes();
    request(Method::CHANNEL_BIND).with(Attribute::CHANNEL_NUMBER, &[n0, n1, 0, 0]).with_peer(peer)
}

pub(crate) fn send(peer: SocketAddr, payload: &[u8]) -> Ask {
    message(Method::SEND, Class::Indication).with_peer(peer).with(Attribute::DATA, payload)
}

pub(crate) fn channel_data(number: u16, payload: &[u8]) -> Ask {
    bytes(&client::channel_data(ChannelNumber::new(number).expect("a channel"), payload))
}

impl Ask {
    /// With one more attribute.
    pub(crate) fn with(mut self, attribute: Attribute, value: &[u8]) -> Self {
        self.attributes.push((attribute, Value::Bytes(value.into())));
        self
    }

    /// With one more XOR-PEER-ADDRESS.
    pub(crate) fn with_peer(mut self, peer: SocketAddr) -> Self {
        self.attributes.push((Attribute::XOR_PEER_ADDRESS, Value::Address(peer)));
        self
    }

    /// Leaves an attribute out; the rest is signed as ever.
    pub(crate) fn without(self, attribute: Attribute) -> Self {
        self.edited(Edit::Without(attribute))
    }

    /// Gives an attribute of the credential another value; the whole is signed as ever.
    pub(crate) fn but(self, attribute: Attribute, value: &[u8]) -> Self {
        self.edited(Edit::Set(attribute, value.into()))
    }

    /// With an attribute after the signature.
    pub(crate) fn then(self, attribute: Attribute, value: &[u8]) -> Self {
        self.edited(Edit::Trailing(attribute, value.into()))
    }

    /// With another user's name and password.
    pub(crate) fn by_user(self, user: &str, password: &str) -> Self {
        self.but(Attribute::USERNAME, user.as_bytes()).edited(Edit::Key(Key::md5(user, REALM, password)))
    }

    /// Without any trace of a credential.
    pub(crate) fn unsigned(self) -> Self {
        [Attribute::USERNAME, Attribute::REALM, Attribute::NONCE]
            .into_iter()
            .fold(self, Self::without)
            .edited(Edit::Unsigned)
    }

    /// With a bit of the signature flipped.
    pub(crate) fn forged(self) -> Self {
        self.edited(Edit::Forged)
    }

    pub(crate) fn fingerprinted(self) -> Self {
        self.edited(Edit::Fingerprint)
    }

    fn edited(mut self, edit: Edit) -> Self {
        self.edits.push(edit);
        self
    }

    pub(crate) fn bytes(&self, party: &mut Party) -> Vec<u8> {
        let write = |to: &mut Reply<'_>| {
            for (attribute, value) in &self.attributes {
                match value {
                    Value::Bytes(value) => to.bytes(*attribute, value),
                    Value::Address(address) => to.xor_address(*attribute, *address),
                };
            }
        };
        let plain = match &self.what {
            What::Bytes(bytes) => bytes.clone(),
            What::Request(method) => party.client.request(*method, write),
            What::Bare(method, class) => {
                let mut id = [0; 12];
                id.copy_from_slice(&party.client.binding()[8..20]);
                let mut buf = vec![0; SLOT / 2];
                let mut reply = Reply::new(&mut buf, *method, *class, id);
                write(&mut reply);
                let len = reply.finish().expect("a message as long as this fits");
                buf.truncate(len);
                buf
            }
        };
        if self.edits.is_empty() { plain } else { self.edit(&plain, party) }
    }

    fn edit(&self, plain: &[u8], party: &Party) -> Vec<u8> {
        let message = Message::parse(plain).expect("only messages are edited");
        let mut attributes: Vec<_> = message.attributes().map(|(kind, value)| (kind, value.to_vec())).collect();
        let mut key = message.is_signed(Algorithm::Sha1).then(|| Key::md5(&party.user, REALM, &party.password));
        let (mut trailing, mut is_forged, mut fingerprint) = (Vec::new(), false, false);
        for edit in &self.edits {
            match edit {
                Edit::Without(kind) => attributes.retain(|(seen, _)| seen != kind),
                Edit::Set(kind, value) => match attributes.iter_mut().find(|(seen, _)| seen == kind) {
                    Some((_, old)) => old.clone_from(value),
                    None => attributes.push((*kind, value.clone())),
                },
                Edit::Trailing(kind, value) => trailing.push((*kind, value.clone())),
                Edit::Key(other) => key = Some(other.clone()),
                Edit::Unsigned => key = None,
                Edit::Forged => is_forged = true,
                Edit::Fingerprint => fingerprint = true,
            }
        }
        let mut buf = vec![0; SLOT / 2];
        let mut reply = Reply::new(&mut buf, message.method, message.class, message.transaction);
        for (kind, value) in &attributes {
            reply.bytes(*kind, value);
        }
        if let Some(key) = &key {
            reply.sign(Algorithm::Sha1, key);
        }
        let signed = reply.finish().expect("it fits");
        for (kind, value) in &trailing {
            reply.bytes(*kind, value);
        }
        if fingerprint {
            reply.fingerprint();
        }
        let len = reply.finish().expect("it fits");
        if is_forged {
            assert!(key.is_some() && !fingerprint, "a forged signature under a true fingerprint is another story");
            buf[signed - 1] ^= 1;
        }
        buf.truncate(len);
        buf
    }
}

/// What became of something that was said.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) bytes: Vec<u8>,
    asked: Vec<u8>,
}

/// What a story expects.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    Success,
    Error(u16),
    Silence,
    Dropped(Dropped),
    Data(SocketAddr, Vec<u8>),
    ChannelData(u16, Vec<u8>),
}

pub(crate) fn success() -> Expected {
    Expected::Success
}

pub(crate) fn error(code: u16) -> Expected {
    Expected::Error(code)
}

/// Nothing comes back, and nothing goes anywhere.
pub(crate) fn silence() -> Expected {
    Expected::Silence
}

/// Silence, counted under this reason.
pub(crate) fn dropped(why: Dropped) -> Expected {
    Expected::Dropped(why)
}

pub(crate) fn data(from: SocketAddr, payload: &[u8]) -> Expected {
    Expected::Data(from, payload.into())
}

pub(crate) fn channel(number: u16, payload: &[u8]) -> Expected {
    Expected::ChannelData(number, payload.into())
}

impl Outcome {
    #[track_caller]
    pub(crate) fn hears(self, expected: Expected) -> Self {
        let is_heard = match &expected {
            Expected::Success => self.class() == Some(Class::Success),
            Expected::Error(code) => self.code() == Some(*code),
            Expected::Silence => matches!(self.verdict, Verdict::Nothing | Verdict::Dropped(_)),
            Expected::Dropped(why) => self.verdict == Verdict::Dropped(*why),
            Expected::Data(from, payload) => self.answer().is_some_and(|message| {
                let peer = message.xor_address(Attribute::XOR_PEER_ADDRESS);
                (message.class, message.method) == (Class::Indication, Method::DATA)
                    && peer == Some(Ok(*from))
                    && message.get(Attribute::DATA) == Some(payload)
            }),
            Expected::ChannelData(number, payload) => {
                let [n0, n1] = number.to_be_bytes();
                let [l0, l1] = (payload.len() as u16).to_be_bytes();
                let whole = [&[n0, n1, l0, l1], payload.as_slice()].concat();
                matches!(self.verdict, Verdict::ToClient(_)) && self.bytes.starts_with(&whole)
            }
        };
        assert!(is_heard, "expected {expected:?}, got {:?} {:?} {:?}", self.verdict, self.class(), self.code());
        self
    }

    /// It left to this peer, byte for byte.
    #[track_caller]
    pub(crate) fn reaches(self, peer: SocketAddr, payload: &[u8]) -> Self {
        let Verdict::ToPeer { peer: to, .. } = self.verdict else {
            panic!("expected a datagram, got {:?}", self.verdict)
        };
        assert_eq!(to, peer);
        assert!(self.bytes == payload, "other bytes than were sent");
        self
    }

    /// The answer bears the asker's signature.
    #[track_caller]
    pub(crate) fn signed(self) -> Self {
        assert!(self.answer().is_some_and(|message| message.is_signed(Algorithm::Sha1)));
        self
    }

    /// The answer bears none.
    #[track_caller]
    pub(crate) fn unsigned(self) -> Self {
        assert!(self.answer().is_some_and(|message| !message.is_signed(Algorithm::Sha1)));
        self
    }

    #[track_caller]
    pub(crate) fn for_seconds(self, lifetime: u32) -> Self {
        assert_eq!(self.lifetime(), Some(lifetime));
        self
    }

    pub(crate) fn lifetime(&self) -> Option<u32> {
        self.get(Attribute::LIFETIME).and_then(|value| value.try_into().ok()).map(u32::from_be_bytes)
    }

    pub(crate) fn get(&self, attribute: Attribute) -> Option<Vec<u8>> {
        self.answer()?.get(attribute).map(<[u8]>::to_vec)
    }

    pub(crate) fn address(&self, attribute: Attribute) -> Option<SocketAddr> {
        self.answer()?.xor_address(attribute)?.ok()
    }

    /// The attributes of the answer, in order.
    pub(crate) fn attributes(&self) -> Vec<Attribute> {
        self.answer().map(|message| message.attributes().map(|(kind, _)| kind).collect()).unwrap_or_default()
    }

    pub(crate) fn code(&self) -> Option<u16> {
        error_code(&self.answer()?)
    }

    /// Bytes out for bytes in.
    pub(crate) fn amplification(&self) -> f64 {
        match self.verdict {
            Verdict::ToClient(_) => self.bytes.len() as f64 / self.asked.len() as f64,
            Verdict::ToPeer { .. } => panic!("nobody unknown is relayed for"),
            Verdict::Nothing | Verdict::Dropped(_) | Verdict::Elsewhere(_) | Verdict::Wait(_) => 0.0,
        }
    }

    fn class(&self) -> Option<Class> {
        self.answer().map(|message| message.class)
    }

    fn answer(&self) -> Option<Message<'_>> {
        let Verdict::ToClient(_) = self.verdict else { return None };
        (self.bytes.first()? < &0x40).then(|| Message::parse(&self.bytes).expect("what the server says is STUN"))
    }
}

/// A time-limited credential that ends so long from now.
pub(crate) fn minted(turn: &Turn, user: &str, ttl: Duration) -> (String, String) {
    let minted = credential::mint(&Secret::new(SECRET), Some(user), credential::SEPARATOR, ttl, turn.now.unix);
    (minted.username, minted.password)
}

/// The family of a relay address.
pub(crate) fn family(address: SocketAddr) -> Family {
    Family::of(address.ip())
}
