//! A world out of one number: servers, clients behind NATs, peers, links that lose, and what goes wrong.
//!
//! Everything that happens is an event with a moment; two at the same moment happen in the order they were thought of.
//! No clock, no thread, no map whose order is chance: the same number makes the same world, byte for byte.

use crate::auditor::{Auditor, Books, Breach, Id, Law, time_limited};
use crate::chance::Chance;
use crate::client::Actor;
use crate::fault::{Fault, Faults};
use crate::host::{Host, Out};
use crate::lie::Lie;
use crate::rules::{PRIVATE, Rules, USERS, host_v4, host_v6, password_of, secret_of};
use sha2::{Digest, Sha256};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use turnserver::time::{Duration, Instant, Now, UnixSeconds, seconds};
use turnserver::turn::tally::Transport;
use turnserver::turn::{FiveTuple, Link, Path, Protocol, StreamId};
use turnserver::wire::icmp::Icmp;
use turnserver::wire::stun::Family;

/// What a world was, once it is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Story {
    /// Events that happened.
    pub steps: u64,
    /// Simulated time.
    pub lasted: Duration,
    /// Allocations made.
    pub allocations: u64,
    /// Datagrams relayed.
    pub relayed: u64,
    /// What went wrong in it, by the numbers of the fault list.
    pub faults: BTreeMap<&'static str, u64>,
    /// How often each invariant was put to the test.
    pub tested: BTreeMap<u8, u64>,
    /// All that left a server, and when, as one number.
    pub digest: [u8; 32],
}

/// An invariant that did not hold.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// Which one.
    pub law: u8,
    /// In words.
    pub what: String,
    /// After how many events.
    pub step: u64,
    /// What happened last, the latest at the end; the whole story when it was asked for.
    pub trace: Vec<String>,
}

pub(crate) enum Event {
    /// A client thinks of something to do.
    Acts(usize),
    /// A client has heard no answer to this.
    AsksAgain {
        client: usize,
        bytes: Vec<u8>,
        left: u8,
    },
    /// A message reaches a server.
    Arrives {
        host: usize,
        path: Path,
        bytes: Vec<u8>,
        ttl: Option<u8>,
    },
    /// A message reaches whoever has this address.
    Reaches {
        to: SocketAddr,
        path: Path,
        bytes: Vec<u8>,
    },
    /// A datagram reaches somebody who is no client: a peer, or a relay address.
    Relays {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
        ttl: Option<u8>,
    },
    /// A peer thinks of something to say.
    PeerActs,
    /// A connection that the server asked for has come to be, or not.
    Connected {
        host: usize,
        id: Id,
        stream: StreamId,
        is_open: bool,
    },
    /// A client's connection closes.
    Closes {
        host: usize,
        tuple: FiveTuple,
    },
    Goes(Fault),
}

struct Due {
    at: Instant,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

pub(crate) struct World {
    pub(crate) now: Now,
    pub(crate) chance: Chance,
    pub(crate) hosts: Vec<Host>,
    pub(crate) clients: Vec<Actor>,
    pub(crate) auditor: Auditor,
    pub(crate) faults: Faults,
    pub(crate) link: LinkQuality,
    queue: BinaryHeap<Reverse<Due>>,
    thoughts: u64,
    story: Story,
    digest: Sha256,
    trace: Vec<String>,
    keeps_all: bool,
    /// Next public port of every NAT.
    pub(crate) next_port: u16,
    pub(crate) next_link: u32,
}

/// Of a hundred datagrams, how many share each fate.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkQuality {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) damaged: u64,
    /// Up to how many milliseconds late.
    pub(crate) jitter: u64,
}

/// Lines of the trace that a failure shows, unless all were asked for.
const LAST_LINES: usize = 40;
/// Events after which a world ends, however busy it is.
const MAX_STEPS: u64 = 3000;
const BEGIN: u64 = 1_000_000_000_000;

/// Hosts that clients want to talk to: good ones, and some that no server may lead to.
pub(crate) const PEERS: [IpAddr; 9] = [
    IpAddr::V4(Ipv4Addr::new(11, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(11, 0, 0, 2)),
    IpAddr::V4(Ipv4Addr::new(11, 0, 0, 3)),
    IpAddr::V6(Ipv6Addr::new(0x2a00, 1, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2a00, 1, 0, 0, 0, 0, 0, 2)),
    PRIVATE,
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x0b00, 0x0001)),
];

/// Runs the world of one number to its end.
///
/// # Errors
///
/// Which invariant broke, and how it came to that.
pub(crate) fn run(seed: u64, keeps_all: bool) -> Result<Story, Failure> {
    run_with(seed, keeps_all, None)
}

/// The same with servers that lie.
pub(crate) fn run_with(seed: u64, keeps_all: bool, lie: Option<Lie>) -> Result<Story, Failure> {
    let mut world = World::new(seed, keeps_all, lie);
    // A panic is a breach like any other, and the world it happened in can be seen again.
    let lived = catch_unwind(AssertUnwindSafe(|| world.lives()));
    let lived =
        lived.unwrap_or_else(|_| Err(Breach { law: Law::NothingBeforeProof, what: "somebody panicked".into() }));
    lived.map_err(|breach| world.failure(breach))?;
    world.story.tested = std::mem::take(&mut world.auditor.tested);
    world.story.faults = std::mem::take(&mut world.faults.seen);
    world.story.digest = world.digest.clone().finalize().into();
    if keeps_all {
        world.trace.iter().for_each(|line| eprintln!("{line}"));
    }
    Ok(world.story)
}

impl World {
    fn new(seed: u64, keeps_all: bool, lie: Option<Lie>) -> Self {
        let mut chance = Chance::new(seed);
        let mut faults = Faults::default();
        // 2023, the last minutes of 32-bit seconds, of their unsigned kin, and a battery that is empty.
        let starts =
            [(1_700_000_000, ""), (1_700_000_000, ""), (2_147_483_000, "F41"), (4_294_967_000, "F41"), (1000, "F41")];
        let (unix, late) = *chance.pick(&starts);
        faults.note(late);
        let now = Now { mono: Instant(BEGIN), unix: UnixSeconds(unix) };
        let count = if chance.one_in(5) { 2 } else { 1 };
        let is_fleet = chance.one_in(2);
        let mut auditor = Auditor::default();
        let mut hosts = Vec::new();
        for host in 0..count {
            let key = if is_fleet { "a key of the fleet".to_owned() } else { format!("a key of host {host}") };
            let rules = Rules::draw(&mut chance, host, &key);
            auditor.hosts.push(Books::new(rules.clone()));
            let workers = *chance.pick(&[1, 1, 2, 3]);
            hosts.push(Host::new(host, rules, lie, workers, now, &mut chance));
        }
        let link = *chance.pick(&[
            LinkQuality::default(),
            LinkQuality { jitter: 50, ..LinkQuality::default() },
            LinkQuality { lost: 5, doubled: 2, damaged: 1, jitter: 200 },
            LinkQuality { lost: 20, doubled: 10, damaged: 5, jitter: 1500 },
        ]);
        let mut world = Self {
            now,
            chance,
            hosts,
            clients: Vec::new(),
            auditor,
            faults,
            link,
            queue: BinaryHeap::new(),
            thoughts: 0,
            story: Story::default(),
            digest: Sha256::new(),
            trace: Vec::new(),
            keeps_all,
            next_port: 20_000,
            next_link: 0,
        };
        world.faults.of_settings(&world.hosts, world.link, is_fleet);
        world.peoples();
        world
    }

    /// Clients, and what will go wrong.
    fn peoples(&mut self) {
        let until = self.chance.between(60, 5400);
        for number in 0..self.chance.between(2, 7) as usize {
            let actor = Actor::new(number, self);
            self.clients.push(actor);
            let first = self.chance.below(5000);
            self.later(Duration::from_millis(first), Event::Acts(number));
        }
        self.later(Duration::from_millis(700), Event::PeerActs);
        for _ in 0..self.chance.below(9) {
            let at = self.chance.below(until);
            let fault = Fault::draw(&mut self.chance);
            self.later(seconds(at), Event::Goes(fault));
        }
        self.story.lasted = seconds(until);
    }

    fn lives(&mut self) -> Result<(), Breach> {
        let end = Instant(BEGIN) + self.story.lasted;
        while self.story.steps < MAX_STEPS {
            let Some(Reverse(due)) = self.queue.pop() else { break };
            if due.at > end {
                break;
            }
            self.passes(due.at)?;
            self.story.steps += 1;
            self.happens(due.event)?;
            for host in 0..self.hosts.len() {
                self.hosts[host].counts(self.now, &mut self.auditor)?;
            }
        }
        self.ends()
    }

    /// Everybody goes; once every clock has run out, nothing is left.
    fn ends(&mut self) -> Result<(), Breach> {
        self.story.lasted = self.now.mono.since(Instant(BEGIN));
        self.queue.clear();
        for host in 0..self.hosts.len() {
            let tallies = &self.hosts[host].tallies;
            self.story.allocations += tallies.iter().map(|tally| tally.allocations_total.get()).sum::<u64>();
            let relayed = tallies.iter().map(|tally| tally.to_peer.packets.get() + tally.to_client.packets.get());
            self.story.relayed += relayed.sum::<u64>();
            if self.chance.one_in(2) {
                let mut out = Vec::new();
                self.hosts[host].is_at(self.now);
                let (now, judge) = (self.now, &mut self.auditor);
                self.hosts[host].stops(now, judge, &mut out)?;
                self.faults.note("F02");
            }
        }
        self.passes(self.now.mono + seconds(3 * 3600))?;
        for host in &mut self.hosts {
            host.forgets_reservations(self.now);
            host.counts(self.now, &mut self.auditor)?;
            let deadlines: Vec<_> = host.workers.iter().map(|worker| worker.deadline()).collect();
            self.auditor.is_as_new(host.number, host.ports.used(), &deadlines)?;
        }
        Ok(())
    }

    /// Time passes; every server is woken whenever it asked to be.
    fn passes(&mut self, until: Instant) -> Result<(), Breach> {
        loop {
            let wakes = |host: &Host| {
                let asleep = self.faults.paused(host.number).unwrap_or_default();
                Some((host.deadline()?.max(asleep), host.number))
            };
            let next = self.hosts.iter().filter_map(wakes).min();
            let Some((deadline, host)) = next.filter(|(deadline, _)| *deadline <= until) else { break };
            self.moves_to(deadline.max(self.now.mono));
            let mut out = Vec::new();
            self.hosts[host].is_at(self.now);
            let (now, judge) = (self.now, &mut self.auditor);
            self.hosts[host].ticks(now, judge, &mut out)?;
            self.goes_out(host, out);
        }
        self.moves_to(until);
        Ok(())
    }

    fn moves_to(&mut self, at: Instant) {
        let whole = at.as_secs() - self.now.mono.as_secs();
        self.now = Now { mono: at, unix: UnixSeconds(self.now.unix.0 + whole) };
    }

    fn happens(&mut self, event: Event) -> Result<(), Breach> {
        match event {
            Event::Acts(client) => {
                self.acts(client);
                let pause = *self.chance.pick(&[20, 200, 1000, 4000, 20_000, 100_000]);
                let pause = self.chance.between(pause / 2, pause);
                self.later(Duration::from_millis(pause), Event::Acts(client));
                Ok(())
            }
            Event::AsksAgain { client, bytes, left } => {
                if left > 0 && self.clients[client].waits_for(&bytes) {
                    self.says(client, bytes, left - 1);
                }
                Ok(())
            }
            Event::Arrives { host, path, bytes, ttl } => self.arrives(host, path, bytes, ttl),
            Event::Reaches { to, path, bytes } => {
                let named = |client: &Actor| client.hears_at(to, &path.tuple);
                if let Some(client) = self.clients.iter().position(named) {
                    self.hears(client, &path, &bytes);
                }
                Ok(())
            }
            Event::Relays { from, to, bytes, ttl } => self.relays(from, to, bytes, ttl),
            Event::PeerActs => {
                self.peer_acts()?;
                let pause = self.chance.between(50, 20_000);
                self.later(Duration::from_millis(pause), Event::PeerActs);
                Ok(())
            }
            Event::Connected { host, id, stream, is_open } => {
                let mut out = Vec::new();
                self.hosts[host].is_at(self.now);
                let (now, judge) = (self.now, &mut self.auditor);
                self.hosts[host].connected(now, id, stream, is_open, judge, &mut out)?;
                self.goes_out(host, out);
                Ok(())
            }
            Event::Closes { host, tuple } => {
                let mut out = Vec::new();
                self.hosts[host].is_at(self.now);
                let (now, judge) = (self.now, &mut self.auditor);
                self.hosts[host].closes(now, tuple, judge, &mut out)?;
                self.goes_out(host, out);
                Ok(())
            }
            Event::Goes(fault) => self.goes_wrong(fault),
        }
    }

    fn arrives(&mut self, host: usize, path: Path, bytes: Vec<u8>, ttl: Option<u8>) -> Result<(), Breach> {
        if let Some(until) = self.faults.paused(host).filter(|until| *until > self.now.mono) {
            self.at(until, Event::Arrives { host, path, bytes, ttl });
            return Ok(());
        }
        // A connection that closed takes what was on its way along.
        let is_open = |client: &Actor| client.has_open(&path);
        if path.tuple.transport != Transport::Udp && !self.clients.iter().any(is_open) {
            return Ok(());
        }
        self.notes(|| format!("{} to host {host}: {}", path.tuple.client, short(&bytes)));
        let mut out = Vec::new();
        self.hosts[host].is_at(self.now);
        let (now, judge) = (self.now, &mut self.auditor);
        self.hosts[host].hears(now, path, &bytes, ttl, judge, &mut out)?;
        self.goes_out(host, out);
        Ok(())
    }

    /// A datagram on its way to a peer or a relay address.
    fn relays(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>, ttl: Option<u8>) -> Result<(), Breach> {
        let found = self.hosts.iter().find_map(|host| Some((host.number, host.relay_at(to)?)));
        let Some((host, (id, protocol))) = found else {
            self.peer_hears(to, from, &bytes);
            return Ok(());
        };
        if protocol == Protocol::Tcp {
            return Ok(()); // nobody listens for datagrams there
        }
        if let Some(until) = self.faults.paused(host).filter(|until| *until > self.now.mono) {
            self.at(until, Event::Relays { from, to, bytes, ttl });
            return Ok(());
        }
        self.notes(|| format!("{from} to relay address {to}: {}", short(&bytes)));
        let mut out = Vec::new();
        self.hosts[host].is_at(self.now);
        let (now, judge) = (self.now, &mut self.auditor);
        self.hosts[host].peer_says(now, id, from, &bytes, ttl, judge, &mut out)?;
        self.goes_out(host, out);
        Ok(())
    }

    /// What a host says goes on its way.
    pub(crate) fn goes_out(&mut self, host: usize, out: Vec<Out>) {
        for one in out {
            match one {
                Out::ToClient(path, bytes) => {
                    self.digest.update(self.now.mono.0.to_be_bytes());
                    self.digest.update(&bytes);
                    self.notes(|| format!("host {host} to {}: {}", path.tuple.client, short(&bytes)));
                    let event = Event::Reaches { to: path.tuple.client, path, bytes };
                    self.sends(path.tuple.transport, event);
                }
                Out::ToPeer { from, to, bytes } => {
                    self.digest.update(self.now.mono.0.to_be_bytes());
                    self.digest.update(&bytes);
                    self.notes(|| format!("relay address {from} to {to}: {} bytes", bytes.len()));
                    self.sends(Transport::Udp, Event::Relays { from, to, bytes, ttl: None });
                }
                Out::Connect { id, stream } => {
                    // Black holes give up after half a minute; closed ports at once.
                    let wait = *self.chance.pick(&[5, 40, 900, 30_000]);
                    let is_open = wait < 30_000 && !self.chance.one_in(3);
                    self.later(Duration::from_millis(wait), Event::Connected { host, id, stream, is_open });
                }
                Out::Joined { id, stream, path } => {
                    self.notes(|| format!("host {host}: {stream:?} of {id:?} and {} are one", path.tuple.client));
                    self.clients.iter_mut().for_each(|client| client.is_joined(&path));
                }
                Out::Hangup(path) => self.clients.iter_mut().for_each(|client| client.is_hung_up(&path)),
            }
        }
    }

    /// Puts something on a link: datagrams may be lost, doubled, damaged and late; a connection keeps order.
    pub(crate) fn sends(&mut self, by: Transport, event: Event) {
        let link = self.link;
        if by != Transport::Udp {
            return self.later(Duration::from_millis(20), event);
        }
        if self.chance.percent(link.lost) {
            return;
        }
        let event = if self.chance.percent(link.damaged) { self.damaged(event) } else { event };
        if self.chance.percent(link.doubled) {
            let late = self.chance.between(1, 1 + link.jitter);
            let again = copy_of(&event);
            self.later(Duration::from_millis(late), again);
        }
        let late = self.chance.between(1, 1 + link.jitter);
        self.later(Duration::from_millis(late), event);
    }

    fn damaged(&mut self, mut event: Event) -> Event {
        if let Event::Arrives { bytes, .. } | Event::Reaches { bytes, .. } | Event::Relays { bytes, .. } = &mut event
            && !bytes.is_empty()
        {
            match self.chance.below(3) {
                0 => bytes.truncate(self.chance.below(bytes.len() as u64) as usize),
                _ => {
                    let at = self.chance.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1 << self.chance.below(8);
                }
            }
            self.faults.note("F24");
        }
        event
    }

    pub(crate) fn later(&mut self, after: Duration, event: Event) {
        self.at(self.now.mono + after, event);
    }

    pub(crate) fn at(&mut self, at: Instant, event: Event) {
        self.thoughts += 1;
        self.queue.push(Reverse(Due { at, number: self.thoughts, event }));
    }

    pub(crate) fn notes(&mut self, line: impl FnOnce() -> String) {
        let time = Duration::from_nanos(self.now.mono.0 - BEGIN);
        if !self.keeps_all && self.trace.len() >= 2 * LAST_LINES {
            self.trace.drain(..LAST_LINES);
        }
        self.trace.push(format!("{:>12.6} {}", time.as_secs_f64(), line()));
    }

    fn failure(&mut self, breach: Breach) -> Failure {
        let from = if self.keeps_all { 0 } else { self.trace.len().saturating_sub(LAST_LINES) };
        Failure {
            law: breach.law as u8,
            what: format!("{:?}: {}", breach.law, breach.what),
            step: self.story.steps,
            trace: self.trace.split_off(from),
        }
    }

    /// A listener of a host, of this family.
    pub(crate) fn listener(&self, host: usize, is_v4: bool) -> SocketAddr {
        let ip = if is_v4 { host_v4(host).into() } else { IpAddr::V6(host_v6(host)) };
        SocketAddr::new(ip, 3478)
    }

    /// A way to a server that nobody has gone yet.
    pub(crate) fn path(&mut self, host: usize, transport: Transport, ip: IpAddr) -> Path {
        self.next_port = if self.next_port > 60_000 { 20_000 } else { self.next_port + 1 };
        self.next_link += 1;
        let client = SocketAddr::new(ip, self.next_port);
        let tuple = FiveTuple { transport, client, server: self.listener(host, ip.is_ipv4()) };
        let link = u32::from(self.hosts[host].chosen(&tuple)) << 24 | (self.next_link & 0xff_ffff);
        Path { tuple, link: Link(link) }
    }

    /// A user name and its password: of the configuration, or made for some time.
    pub(crate) fn credential(&mut self, host: usize) -> (String, String) {
        let secrets = &self.hosts[host].rules.secrets;
        if secrets.is_empty() || self.chance.one_in(2) {
            let user = *self.chance.pick(&USERS);
            return (user.into(), password_of(user));
        }
        let secret = self.chance.pick(&secrets.clone()).clone();
        let ttl = *self.chance.pick(&[30, 400, 3600, 80_000]);
        let name = format!("{}:{}", self.now.unix.0 + ttl, self.chance.pick(&["ann", "ben"]));
        let password = time_limited(&secret, &name);
        (name, password)
    }

    /// Somewhere a client wants to talk to: a peer, or another client's relay address.
    pub(crate) fn destination(&mut self) -> SocketAddr {
        let relays: Vec<SocketAddr> = self.hosts.iter().flat_map(Host::relays).collect();
        match self.chance.below(12) {
            0 | 1 if !relays.is_empty() => *self.chance.pick(&relays),
            2 => {
                let host = self.chance.below(self.hosts.len() as u64) as usize;
                let is_v4 = self.chance.one_in(2);
                self.listener(host, is_v4)
            }
            3 => SocketAddr::new(*self.chance.pick(&PEERS), self.chance.between(1, 65_535) as u16),
            4..6 => SocketAddr::new(PEERS[self.chance.below(9) as usize], 5000),
            _ => SocketAddr::new(PEERS[self.chance.below(5) as usize], 5000 + self.chance.below(2) as u16),
        }
    }

    /// A peer gets a datagram; it may say something back.
    fn peer_hears(&mut self, peer: SocketAddr, from: SocketAddr, bytes: &[u8]) {
        self.notes(|| format!("{peer} hears {} bytes of {from}", bytes.len()));
        if self.chance.percent(60) {
            let bytes = if self.chance.one_in(4) { b"another thing".to_vec() } else { bytes.to_vec() };
            let ttl = self.ttl();
            self.sends(Transport::Udp, Event::Relays { from: peer, to: from, bytes, ttl });
        }
    }

    /// Somebody out there speaks, connects, or a router complains.
    fn peer_acts(&mut self) -> Result<(), Breach> {
        let relays: Vec<SocketAddr> = self.hosts.iter().flat_map(Host::relays).collect();
        if relays.is_empty() {
            return Ok(());
        }
        let to = *self.chance.pick(&relays);
        let of_family: Vec<IpAddr> = PEERS.into_iter().filter(|ip| ip.is_ipv4() == to.is_ipv4()).collect();
        let mut from = SocketAddr::new(*self.chance.pick(&of_family), 5000 + self.chance.below(3) as u16);
        if self.chance.one_in(8) {
            // As if from one of our own relay addresses (F47), or from nowhere (F46).
            let own: Vec<SocketAddr> = relays.iter().copied().filter(|relay| relay.is_ipv4() == to.is_ipv4()).collect();
            from = *self.chance.pick(&own);
            self.faults.note("F47");
        } else if self.chance.one_in(10) {
            from.set_port(0);
            self.faults.note("F46");
        }
        let host = self.hosts.iter().position(|host| host.relay_at(to).is_some()).expect("it is one of theirs");
        let (id, protocol) = self.hosts[host].relay_at(to).expect("it is there");
        match (protocol, self.chance.below(6)) {
            (Protocol::Tcp, _) => {
                let mut out = Vec::new();
                self.hosts[host].is_at(self.now);
                let (now, judge) = (self.now, &mut self.auditor);
                self.hosts[host].comes(now, id, from, judge, &mut out)?;
                self.goes_out(host, out);
                self.streams_act(host);
            }
            (Protocol::Udp, 0) => {
                let family = Family::of(to.ip());
                let kind = *self.chance.pick(&[3, 3, 11, 1, 2, 8, 5]);
                let mtu = if self.chance.one_in(2) { 1280 } else { 0 };
                let icmp = Icmp { family, kind, code: self.chance.below(5) as u8, mtu };
                self.faults.note(if mtu == 0 { "F21" } else { "F22" });
                let mut out = Vec::new();
                self.hosts[host].is_at(self.now);
                let (now, judge) = (self.now, &mut self.auditor);
                self.hosts[host].icmp(now, id, from, icmp, judge, &mut out)?;
                self.goes_out(host, out);
            }
            (Protocol::Udp, _) => {
                let size = self.size();
                let bytes = self.chance.bytes(size);
                let ttl = self.ttl();
                self.sends(Transport::Udp, Event::Relays { from, to, bytes, ttl });
            }
        }
        Ok(())
    }

    /// Connections between peers and clients carry something, or end.
    fn streams_act(&mut self, host: usize) {
        let streams: Vec<StreamId> = self.hosts[host].streams.keys().copied().collect();
        for stream in streams {
            let bytes = match self.chance.below(8) {
                0 => None,
                1..4 => Some((self.chance.below(9000), self.chance.below(9000))),
                _ => continue,
            };
            let mut out = Vec::new();
            let (now, judge) = (self.now, &mut self.auditor);
            // What waits for its ConnectionBind ends by itself; what is connecting ends when the attempt does.
            let is_joined = self.hosts[host].streams.get(&stream).is_some_and(|(_, path)| path.is_some());
            if is_joined {
                self.hosts[host].carries(now, stream, bytes, judge, &mut out);
            }
            self.goes_out(host, out);
        }
    }

    pub(crate) fn ttl(&mut self) -> Option<u8> {
        let ttl = *self.chance.pick(&[None, None, None, Some(64), Some(2), Some(1)]);
        if ttl == Some(1) && self.chance.one_in(2) { None } else { ttl }
    }

    /// Bytes of a payload.
    pub(crate) fn size(&mut self) -> usize {
        let most = *self.chance.pick(&[0, 8, 160, 160, 1200, 1200, 9000]);
        if self.chance.one_in(200) {
            self.faults.note("F33");
            return self.chance.between(65_300, 65_507) as usize;
        }
        self.chance.below(most + 1) as usize
    }

    fn goes_wrong(&mut self, fault: Fault) -> Result<(), Breach> {
        self.faults.note(fault.id());
        self.notes(|| format!("{fault:?}"));
        let host = self.chance.below(self.hosts.len() as u64) as usize;
        self.hosts[host].is_at(self.now);
        match fault {
            Fault::Killed => {
                let workers = self.hosts[host].workers.len() as u8;
                self.auditor.dies(host, self.now);
                let (now, chance) = (self.now, &mut self.chance);
                self.hosts[host].starts(workers, now, chance);
                for client in &mut self.clients {
                    client.loses_connections_to(host);
                }
            }
            Fault::WallClock => {
                let unix = self.now.unix.0;
                let jumps = [unix + 3600, unix.saturating_sub(3600), 1000, unix + 10];
                self.now.unix = UnixSeconds(*self.chance.pick(&jumps));
            }
            Fault::Asleep => {
                let until = self.now.mono + seconds(30);
                self.faults.pause(host, until);
                self.auditor.sleeps(host, until + seconds(1));
            }
            Fault::NoFiles => self.hosts[host].is_out_of_files ^= true,
            Fault::Crowded => self.hosts[host].is_crowded ^= true,
            Fault::Stuffed => self.hosts[host].is_stuffed ^= true,
            Fault::Rebinding => {
                let client = self.chance.below(self.clients.len() as u64) as usize;
                self.rebinds(client);
            }
            Fault::Gone => {
                let client = self.chance.below(self.clients.len() as u64) as usize;
                self.disappears(client);
            }
            Fault::Flood => self.floods(host),
            Fault::Loud => self.is_loud(),
            Fault::Spoofed => self.spoofs(host),
            Fault::OldClient => self.speaks_old(host),
            Fault::Reload | Fault::Drain | Fault::Rotation | Fault::Rule | Fault::Address | Fault::NewKey => {
                let rules = self.other_rules(host, fault);
                let mut out = Vec::new();
                let (now, judge) = (self.now, &mut self.auditor);
                self.hosts[host].reloads(now, rules, judge, &mut out)?;
                self.goes_out(host, out);
            }
        }
        Ok(())
    }

    fn other_rules(&mut self, host: usize, fault: Fault) -> Rules {
        let mut rules = self.hosts[host].rules.clone();
        let chance = &mut self.chance;
        match fault {
            Fault::Drain => {
                rules.draining ^= true;
                if chance.one_in(2) {
                    rules.redirect = vec![SocketAddr::new(host_v4(9).into(), 3478)];
                }
            }
            Fault::Rotation => {
                let user = chance.pick(&USERS).to_string();
                match chance.below(3) {
                    0 => drop(rules.users.remove(&user)),
                    1 => drop(rules.users.insert(user.clone(), format!("another password of {user}"))),
                    _ => drop(rules.users.insert(user.clone(), password_of(&user))),
                }
                let first = chance.below(3);
                rules.secrets = (first..first + chance.below(3)).map(secret_of).collect();
            }
            Fault::Rule => {
                rules.denied = (0..chance.below(3)).map(|_| PEERS[chance.below(5) as usize]).collect();
                rules.private_allowed = chance.one_in(2);
            }
            // An interface comes or goes: 11.0.0.3 belongs to this host, or to somebody else.
            Fault::Address if rules.interfaces.contains(&PEERS[2]) => rules.interfaces.retain(|ip| *ip != PEERS[2]),
            Fault::Address => rules.interfaces.push(PEERS[2]),
            Fault::NewKey => rules.nonce_key = format!("key {}", chance.number()),
            _ => {
                rules.allocations_per_user = *chance.pick(&[0, 1, 3]);
                rules.bandwidth = *chance.pick(&[None, Some(4000), Some(50_000)]);
                rules.mobility = chance.one_in(2);
                rules.strict_expiry = chance.one_in(2);
                rules.nonce_lifetime = *chance.pick(&[60, 600, 3600]);
                rules.lifetime = 600;
                rules.max_lifetime = *chance.pick(&[600, 3600]);
                rules.permissions = *chance.pick(&[2, 256]);
                rules.channels = *chance.pick(&[2, 256]);
                rules.anonymous_stun = chance.one_in(2);
                rules.tcp_relays = chance.one_in(2);
            }
        }
        rules
    }
}

/// The beginning of a message, for the trace.
fn short(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    if let Ok(message) = turnserver::wire::stun::Message::parse(bytes) {
        let _ = write!(text, "{} {:?}", message.method.name(), message.class);
        for (attribute, value) in message.attributes() {
            let _ = write!(text, " {}", attribute.name().unwrap_or("?"));
            if value.len() <= 8 {
                value.iter().for_each(|byte| {
                    let _ = write!(text, " {byte:02x}");
                });
            }
        }
        return text;
    }
    for byte in bytes.iter().take(8) {
        let _ = write!(text, "{byte:02x}");
    }
    format!("{text}… ({} bytes)", bytes.len())
}

fn copy_of(event: &Event) -> Event {
    match event {
        Event::Arrives { host, path, bytes, ttl } => {
            Event::Arrives { host: *host, path: *path, bytes: bytes.clone(), ttl: *ttl }
        }
        Event::Reaches { to, path, bytes } => Event::Reaches { to: *to, path: *path, bytes: bytes.clone() },
        Event::Relays { from, to, bytes, ttl } => {
            Event::Relays { from: *from, to: *to, bytes: bytes.clone(), ttl: *ttl }
        }
        _ => unreachable!("only what is on a link is doubled"),
    }
}
