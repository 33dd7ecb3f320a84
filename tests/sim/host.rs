//! A server as its shell runs it: whole cores side by side, the relay ports, the quotas, routes between workers.
//!
//! Owns what the operating system would: sockets, connections, the port range. Every step goes past the auditor before
//! anybody else sees it.

use crate::auditor::{Auditor, FromPeer, Heard, Id, Judged, Tried};
use crate::chance::Chance;
use crate::lie::Lie;
use crate::rules::Rules;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::Arc;
use turnserver::time::{Instant, Now};
use turnserver::turn::limits::Strangers;
use turnserver::turn::peers::Destination;
use turnserver::turn::ports::{Claim, Ports};
use turnserver::turn::refusal::{Dropped, Ended};
use turnserver::turn::tally::Tally;
use turnserver::turn::{
    Bind, BindError, Bound, Effect, FiveTuple, Input, Path, Place, Protocol, Server, StreamId, Verdict,
};
use turnserver::wire::Packet;
use turnserver::wire::icmp::Icmp;
use turnserver::wire::packet::{Marks, SLOT};
use turnserver::wire::stun::Family;

/// What leaves a host.
#[derive(Debug)]
pub(crate) enum Out {
    /// To a client, on its path.
    ToClient(Path, Vec<u8>),
    /// From one of our relay addresses, as others see it, to a peer.
    ToPeer { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    /// Somebody is to be connected to.
    Connect { id: Id, stream: StreamId },
    /// Two connections are one from here on.
    Joined { id: Id, stream: StreamId, path: Path },
    /// A client's connection is closed by us.
    Hangup(Path),
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) number: usize,
    pub(crate) rules: Rules,
    pub(crate) workers: Vec<Server>,
    pub(crate) tallies: Vec<Arc<Tally>>,
    pub(crate) ports: Ports,
    /// Whether the system has no file descriptor left.
    pub(crate) is_out_of_files: bool,
    /// Whether every other port of the range belongs to another program.
    pub(crate) is_crowded: bool,
    /// Whether datagrams to peers find no room in the send buffer.
    pub(crate) is_stuffed: bool,
    held: BTreeMap<Id, Sockets>,
    by_local: BTreeMap<SocketAddr, Id>,
    accounts: BTreeMap<Box<str>, u32>,
    /// Which worker has what a path leads to, where the kernel chose another. Never walked through.
    routes: HashMap<FiveTuple, u8>,
    /// Connections with peers, by what the core calls them.
    pub(crate) streams: BTreeMap<StreamId, (Id, Option<Path>)>,
    packet: Packet,
    /// What this server gets wrong on purpose, to see whether the auditor notices.
    pub(crate) lie: Option<Lie>,
    /// The time of the step under way.
    last_now: Instant,
    hash: foldhash::fast::FixedState,
}

#[derive(Debug)]
struct Sockets {
    claims: Vec<Claim>,
    account: Box<str>,
    protocol: Protocol,
}

impl Host {
    pub(crate) fn new(
        number: usize,
        rules: Rules,
        lie: Option<Lie>,
        workers: u8,
        now: Now,
        chance: &mut Chance,
    ) -> Self {
        let hash = foldhash::fast::FixedState::with_seed(chance.number());
        let ports = Ports::new(&rules.relays, rules.relay_ports.clone());
        let packet = Packet::new(vec![0xAA; SLOT].into());
        let mut host = Self {
            number,
            rules,
            workers: Vec::new(),
            tallies: Vec::new(),
            ports,
            is_out_of_files: false,
            is_crowded: false,
            is_stuffed: false,
            held: BTreeMap::new(),
            by_local: BTreeMap::new(),
            accounts: BTreeMap::new(),
            routes: HashMap::new(),
            streams: BTreeMap::new(),
            packet,
            lie,
            last_now: now.mono,
            hash,
        };
        host.starts(workers, now, chance);
        host
    }

    /// Begins with nothing, as after a crash.
    pub(crate) fn starts(&mut self, workers: u8, now: Now, chance: &mut Chance) {
        let wide = Rules { bandwidth: self.rules.bandwidth.map(|rate| rate * 20), ..self.rules.clone() };
        let policy = Arc::new(if self.lie == Some(Lie::Wide) { wide.policy() } else { self.rules.policy() });
        let strangers = Arc::new(Strangers::new(chance.number()));
        self.tallies = (0..workers).map(|_| Arc::new(Tally::default())).collect();
        let worker = |(number, tally): (usize, &Arc<Tally>)| {
            Server::new(Arc::clone(&policy), Arc::clone(tally), now, chance.seed())
                .with_strangers(Arc::clone(&strangers))
                .with_place(Place { number: number as u8, count: workers })
        };
        self.workers = self.tallies.iter().enumerate().map(worker).collect();
        self.ports = Ports::new(&self.rules.relays, self.rules.relay_ports.clone());
        self.held.clear();
        self.by_local.clear();
        self.accounts.clear();
        self.routes.clear();
        self.streams.clear();
    }

    /// The worker that the kernel gives this 5-tuple to.
    pub(crate) fn chosen(&self, tuple: &FiveTuple) -> u8 {
        (self.hash.hash_one(tuple) % self.workers.len() as u64) as u8
    }

    /// What time the core is told it is.
    fn clock(&self, now: Now, lies: &[Lie]) -> Now {
        let is_slow = self.lie.is_some_and(|lie| lies.contains(&lie));
        Now { mono: if is_slow { Instant(now.mono.0 - 90_000_000_000) } else { now.mono }, ..now }
    }

    /// What time it is, for ports given back.
    pub(crate) const fn is_at(&mut self, now: Now) {
        self.last_now = now.mono;
    }

    /// A message of a client arrives.
    pub(crate) fn hears(
        &mut self,
        now: Now,
        path: Path,
        bytes: &[u8],
        ttl: Option<u8>,
        judge: &mut Auditor,
        out: &mut Vec<Out>,
    ) -> Judged {
        let mut worker = self.routes.get(&path.tuple).copied().unwrap_or_else(|| self.chosen(&path.tuple));
        for _ in 0..2 {
            self.packet.fill(bytes);
            self.packet.marks = Marks { ttl, ..Marks::default() };
            let mut effects = Vec::new();
            let clock = self.clock(now, &[Lie::SlowClock]);
            let verdict =
                self.workers[usize::from(worker)].handle(clock, Input::Client(path), &mut self.packet, &mut effects);
            if let Verdict::Elsewhere(other) = verdict {
                assert!(effects.is_empty() && other != worker, "a packet handed on has done nothing yet");
                worker = other;
                continue;
            }
            return self.heard(now, worker, path, bytes, ttl, verdict, effects, judge, out);
        }
        panic!("a packet goes from worker to worker");
    }

    #[expect(clippy::too_many_arguments, reason = "one step and all that belongs to it")]
    fn heard(
        &mut self,
        now: Now,
        worker: u8,
        path: Path,
        bytes: &[u8],
        ttl: Option<u8>,
        mut verdict: Verdict,
        mut effects: Vec<Effect>,
        judge: &mut Auditor,
        out: &mut Vec<Out>,
    ) -> Judged {
        let mut tried = None;
        if let Some(at) = effects.iter().position(|effect| matches!(effect, Effect::Bind(_))) {
            let Effect::Bind(bind) = effects.remove(at) else { unreachable!() };
            let (attempt, answer) = self.binds(now, worker, &bind, &mut effects);
            tried = Some(attempt);
            verdict = answer;
        }
        let mut to_peer = None;
        if let Verdict::ToPeer { relay, peer, destination } = verdict {
            match self.reaches(now, (worker, relay), peer, destination) {
                Ok(sent) => to_peer = Some(sent),
                Err(why) => self.tallies[usize::from(worker)].count_drop(why),
            }
        }
        if let Verdict::Dropped(why) = verdict
            && self.lie != Some(Lie::SecretDrop)
        {
            self.tallies[usize::from(worker)].count_drop(why);
        }
        let mut left = self.packet.data().to_vec();
        if let Some(lie) = self.lie {
            lie.tells(path, bytes, &mut verdict, &mut left, &mut effects);
        }
        let heard = Heard { worker, now, path, bytes, ttl, verdict, out: &left, effects: &effects, tried };
        judge.hears(self.number, &heard)?;
        // What the core lets go and the system does not take is a drop of the shell's, counted apart.
        if matches!(verdict, Verdict::ToPeer { .. }) && to_peer.is_none() {
            judge.drops_at_the_door(self.number);
        }
        match verdict {
            Verdict::ToClient(to) => out.push(Out::ToClient(to, left)),
            Verdict::ToPeer { .. } => {
                out.extend(to_peer.map(|(from, to)| Out::ToPeer { from, to, bytes: left }));
            }
            _ => {}
        }
        self.performs(worker, effects, out);
        Ok(())
    }

    fn reaches(
        &self,
        _now: Now,
        id: Id,
        peer: SocketAddr,
        destination: Destination,
    ) -> Result<(SocketAddr, SocketAddr), Dropped> {
        let claims = &self.held[&id].claims;
        let claim = claims.iter().find(|claim| Family::of(claim.address.local) == Family::of(peer.ip()));
        let claim = claim.expect("what leaves has a socket to leave from");
        let from = SocketAddr::new(claim.address.external, claim.port);
        if self.is_stuffed {
            return Err(Dropped::SendBuffer);
        }
        match destination {
            Destination::Elsewhere => Ok((from, peer)),
            Destination::OwnRelay { local, .. } if self.lives(local, Protocol::Udp) => {
                let relay = self.rules.relays.iter().find(|relay| relay.local == local.ip()).expect("it is ours");
                Ok((from, SocketAddr::new(relay.external, local.port())))
            }
            Destination::OwnRelay { opened: true, .. } => Ok((from, peer)),
            Destination::OwnRelay { opened: false, .. } => Err(Dropped::NoRelay),
        }
    }

    fn lives(&self, local: SocketAddr, protocol: Protocol) -> bool {
        self.by_local.get(&local).is_some_and(|id| self.held[id].protocol == protocol)
    }

    /// Which allocation has this relay address, as others see it.
    pub(crate) fn relay_at(&self, told: SocketAddr) -> Option<(Id, Protocol)> {
        let local = self.rules.relays.iter().find(|relay| relay.external == told.ip())?.local;
        let id = *self.by_local.get(&SocketAddr::new(local, told.port()))?;
        Some((id, self.held[&id].protocol))
    }

    /// A datagram reaches a relay address.
    #[expect(clippy::too_many_arguments, reason = "one step and all that belongs to it")]
    pub(crate) fn peer_says(
        &mut self,
        now: Now,
        id: Id,
        from: SocketAddr,
        bytes: &[u8],
        ttl: Option<u8>,
        judge: &mut Auditor,
        out: &mut Vec<Out>,
    ) -> Judged {
        self.packet.fill(bytes);
        self.packet.marks = Marks { ttl, ..Marks::default() };
        let mut effects = Vec::new();
        let (worker, relay) = id;
        let clock = self.clock(now, &[Lie::SlowClockForPeers]);
        let verdict = self.workers[usize::from(worker)].handle(
            clock,
            Input::Peer { relay, from },
            &mut self.packet,
            &mut effects,
        );
        assert!(effects.is_empty(), "a peer does nothing to the world");
        if self.lie == Some(Lie::Secret) {
            self.packet.fill(self.rules.nonce_key.as_bytes());
        }
        self.told(worker, verdict, out, |out| {
            judge.peer_says(self.number, &FromPeer { id, now, from, bytes, ttl, verdict, out })
        })
    }

    /// An ICMP error comes back to a relay socket.
    pub(crate) fn icmp(
        &mut self,
        now: Now,
        id: Id,
        peer: SocketAddr,
        icmp: Icmp,
        judge: &mut Auditor,
        out: &mut Vec<Out>,
    ) -> Judged {
        self.packet.clear();
        let mut effects = Vec::new();
        let (worker, relay) = id;
        let input = Input::Icmp { relay, peer, icmp };
        let verdict = self.workers[usize::from(worker)].handle(now, input, &mut self.packet, &mut effects);
        assert!(effects.is_empty(), "an ICMP error does nothing to the world");
        let said = |out: &[u8]| {
            judge.icmp(self.number, &FromPeer { id, now, from: peer, bytes: &[], ttl: None, verdict, out }, icmp)
        };
        self.told(worker, verdict, out, said)
    }

    fn told(&self, worker: u8, verdict: Verdict, out: &mut Vec<Out>, judge: impl FnOnce(&[u8]) -> Judged) -> Judged {
        if let Verdict::Dropped(why) = verdict {
            self.tallies[usize::from(worker)].count_drop(why);
        }
        let left = self.packet.data().to_vec();
        judge(&left)?;
        if let Verdict::ToClient(to) = verdict {
            out.push(Out::ToClient(to, left));
        }
        Ok(())
    }

    /// The system has tried to connect.
    pub(crate) fn connected(
        &mut self,
        now: Now,
        id: Id,
        stream: StreamId,
        is_open: bool,
        judge: &mut Auditor,
        out: &mut Vec<Out>,
    ) -> Judged {
        self.packet.clear();
        let (worker, relay) = id;
        let mut effects = Vec::new();
        let input = Input::Connected { relay, stream, is_open };
        let verdict = self.workers[usize::from(worker)].handle(now, input, &mut self.packet, &mut effects);
        if !is_open {
            self.streams.remove(&stream);
        }
        if let Verdict::Dropped(why) = verdict {
            self.tallies[usize::from(worker)].count_drop(why);
            judge.drops_at_the_door(self.number);
        }
        let left = self.packet.data().to_vec();
        judge.connected(self.number, id, stream, is_open, now, verdict, &left)?;
        if let Verdict::ToClient(to) = verdict {
            out.push(Out::ToClient(to, left));
        }
        self.performs(worker, effects, out);
        Ok(())
    }

    /// A peer connects to a relay address.
    pub(crate) fn comes(
        &mut self,
        now: Now,
        id: Id,
        from: SocketAddr,
        judge: &mut Auditor,
        out: &mut Vec<Out>,
    ) -> Judged {
        self.packet.clear();
        let (worker, relay) = id;
        let mut effects = Vec::new();
        let verdict = self.workers[usize::from(worker)].handle(
            now,
            Input::Incoming { relay, from },
            &mut self.packet,
            &mut effects,
        );
        if let Verdict::Dropped(why) = verdict {
            self.tallies[usize::from(worker)].count_drop(why);
        }
        let left = self.packet.data().to_vec();
        judge.comes(self.number, &FromPeer { id, now, from, bytes: &[], ttl: None, verdict, out: &left }, &effects)?;
        if let Verdict::ToClient(to) = verdict {
            out.push(Out::ToClient(to, left));
        }
        self.performs(worker, effects, out);
        Ok(())
    }

    /// Joined connections carry bytes, or end.
    pub(crate) fn carries(
        &mut self,
        now: Now,
        stream: StreamId,
        bytes: Option<(u64, u64)>,
        judge: &mut Auditor,
        out: &mut Vec<Out>,
    ) {
        let Some((id, path)) = self.streams.get(&stream).copied() else { return };
        let (worker, relay) = id;
        let mut effects = Vec::new();
        let input = match bytes {
            Some((to_peer, to_client)) if path.is_some() => {
                judge.carries(self.number, id, to_peer, to_client);
                Input::Carried { relay, stream, to_peer, to_client }
            }
            Some(_) => return,
            None => {
                judge.stream_closed(self.number, id, stream);
                self.streams.remove(&stream);
                out.extend(path.map(Out::Hangup));
                Input::StreamClosed { relay, stream }
            }
        };
        let verdict = self.workers[usize::from(worker)].handle(now, input, &mut self.packet, &mut effects);
        assert!(
            effects.is_empty() && matches!(verdict, Verdict::Nothing | Verdict::Wait(_)),
            "{verdict:?} about bytes"
        );
    }

    /// A client's connection has closed.
    pub(crate) fn closes(&mut self, now: Now, tuple: FiveTuple, judge: &mut Auditor, out: &mut Vec<Out>) -> Judged {
        let worker = self.routes.remove(&tuple).unwrap_or_else(|| self.chosen(&tuple));
        let mut effects = Vec::new();
        let verdict =
            self.workers[usize::from(worker)].handle(now, Input::Closed(tuple), &mut self.packet, &mut effects);
        assert_eq!(verdict, Verdict::Nothing, "nobody is told that somebody has gone");
        judge.closes(self.number, worker, &tuple, now, &effects)?;
        self.performs(worker, effects, out);
        Ok(())
    }

    /// Time for whatever is due.
    pub(crate) fn ticks(&mut self, now: Now, judge: &mut Auditor, out: &mut Vec<Out>) -> Judged {
        for worker in 0..self.workers.len() as u8 {
            let core = &mut self.workers[usize::from(worker)];
            if core.deadline().is_none_or(|deadline| deadline > now.mono) {
                continue;
            }
            let mut effects = Vec::new();
            core.tick(now, &mut effects);
            let deadline = core.deadline().filter(|_| self.lie != Some(Lie::LostTimer));
            judge.ticks(self.number, worker, now, &effects, deadline)?;
            self.performs(worker, effects, out);
        }
        Ok(())
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.lie == Some(Lie::NoTicks) {
            return None;
        }
        self.workers.iter().filter_map(Server::deadline).min()
    }

    /// Other rules come into force, one worker after the other.
    pub(crate) fn reloads(&mut self, now: Now, rules: Rules, judge: &mut Auditor, out: &mut Vec<Out>) -> Judged {
        self.rules = rules.clone();
        let policy = Arc::new(rules.policy());
        judge.reloads(self.number, rules.clone(), now);
        if self.lie == Some(Lie::DeafToRules) {
            let deaf = Rules { denied: Vec::new(), private_allowed: true, ..rules };
            let effects = &mut Vec::new();
            self.workers.iter_mut().for_each(|worker| worker.set_policy(now, Arc::new(deaf.policy()), effects));
            return Ok(());
        }
        for worker in 0..self.workers.len() as u8 {
            let mut effects = Vec::new();
            self.workers[usize::from(worker)].set_policy(now, Arc::clone(&policy), &mut effects);
            judge.has_reloaded(self.number, worker, now, &effects)?;
            self.performs(worker, effects, out);
        }
        Ok(())
    }

    /// The server stops in good order.
    pub(crate) fn stops(&mut self, now: Now, judge: &mut Auditor, out: &mut Vec<Out>) -> Judged {
        for worker in 0..self.workers.len() as u8 {
            let mut effects = Vec::new();
            self.workers[usize::from(worker)].end_all(now, &mut effects);
            judge.stops(self.number, worker, now, &effects)?;
            self.performs(worker, effects, out);
        }
        Ok(())
    }

    /// Ends the reservations that are over: the range does so when it is asked for a port.
    pub(crate) fn forgets_reservations(&mut self, now: Now) {
        for family in [Family::V4, Family::V6] {
            let claim = self.ports.take(now.mono, family, turnserver::turn::ports::Want::Any, "nobody", [0; 32]);
            claim.into_iter().for_each(|claim| self.ports.give_back(now.mono, claim));
        }
    }

    /// The books of the shell and of the auditor agree.
    pub(crate) fn counts(&self, now: Now, judge: &mut Auditor) -> Judged {
        if self.lie == Some(Lie::Hoard) {
            self.tallies[0].permissions.add(1);
        }
        let lost = u64::from(self.lie == Some(Lie::LostPort));
        judge.counts(self.number, now, &self.tallies, self.ports.free() - lost, self.ports.used())
    }

    fn performs(&mut self, worker: u8, effects: Vec<Effect>, out: &mut Vec<Out>) {
        for effect in effects {
            match effect {
                Effect::Connect { relay, stream, .. } => {
                    self.streams.insert(stream, ((worker, relay), None));
                    out.push(Out::Connect { id: (worker, relay), stream });
                }
                Effect::Accept { relay, stream } => {
                    self.streams.insert(stream, ((worker, relay), None));
                }
                Effect::Join { relay, stream, path } => {
                    let id = (worker, relay);
                    self.streams.insert(stream, (id, Some(path)));
                    out.push(Out::Joined { id, stream, path });
                }
                Effect::Close { stream, .. } => {
                    let joined = self.streams.remove(&stream).and_then(|(_, path)| path);
                    out.extend(joined.map(Out::Hangup));
                }
                Effect::Attached(path) => self.leads(path, worker),
                Effect::Detached(path) => drop(self.routes.remove(&path.tuple)),
                Effect::Ended { relay, session, why, .. } => {
                    if why != Ended::Disconnected {
                        self.routes.remove(&session.path.tuple);
                    }
                    self.gives_back((worker, relay), |_| true);
                }
                Effect::Unbind { relay, family } => {
                    self.gives_back((worker, relay), |claim| Family::of(claim.address.local) == family);
                }
                Effect::Began { session, .. } => self.leads(session.path, worker),
                Effect::Bind(_) => unreachable!("a Bind is answered at once"),
            }
        }
    }

    /// A path leads to a worker, whichever the kernel chose.
    fn leads(&mut self, path: Path, worker: u8) {
        if self.chosen(&path.tuple) != worker {
            self.routes.insert(path.tuple, worker);
        }
    }

    fn gives_back(&mut self, id: Id, which: impl Fn(&Claim) -> bool) {
        let sockets = self.held.get_mut(&id).expect("what ends had a socket");
        for claim in sockets.claims.extract_if(.., |claim| which(claim)) {
            self.by_local.remove(&SocketAddr::new(claim.address.local, claim.port));
            if self.lie != Some(Lie::KeptPort) {
                self.ports.give_back(self.last_now, claim);
            }
        }
        if sockets.claims.is_empty() {
            let count = self.accounts.get_mut(&sockets.account).expect("it was counted");
            *count -= 1;
            self.held.remove(&id);
        }
    }

    fn binds(&mut self, now: Now, worker: u8, bind: &Bind, effects: &mut Vec<Effect>) -> (Tried, Verdict) {
        let total: u32 = self.accounts.values().sum();
        let own = self.accounts.get(&bind.user).copied().unwrap_or(0);
        let is_full = |limit: u32, count: u32| limit != 0 && count >= limit;
        let is_full = is_full(self.rules.allocations, total) || is_full(self.rules.allocations_per_user, own);
        let is_full = is_full && self.lie != Some(Lie::NoQuota);
        let first = if is_full { Err(BindError::Quota) } else { self.claims(now, bind, bind.family) };
        let also = bind.also.map(|family| if is_full { Err(BindError::Quota) } else { self.claims(now, bind, family) });
        let bound = |claim: &Claim| Bound { address: claim.address, port: claim.port };
        let ends = |claim: &Claim| {
            let [local, told] = [claim.address.local, claim.address.external].map(|ip| SocketAddr::new(ip, claim.port));
            (local, told)
        };
        let tried = Tried {
            relay: bind.relay,
            account: bind.user.to_string(),
            first: first.as_ref().map(ends).map_err(|why| *why),
            also: also.as_ref().map(|also| also.as_ref().map(ends).map_err(|why| *why)),
        };
        let input = Input::Bound {
            relay: bind.relay,
            result: first.as_ref().map(bound).map_err(|why| *why),
            also: also.as_ref().map(|also| also.as_ref().map(bound).map_err(|why| *why)),
        };
        let claims: Vec<Claim> = [Some(first), also].into_iter().flatten().flatten().collect();
        if !claims.is_empty() {
            for claim in &claims {
                self.by_local.insert(SocketAddr::new(claim.address.local, claim.port), (worker, bind.relay));
            }
            *self.accounts.entry(bind.user.clone()).or_default() += 1;
            let sockets = Sockets { claims, account: bind.user.clone(), protocol: bind.protocol };
            self.held.insert((worker, bind.relay), sockets);
        }
        let verdict = self.workers[usize::from(worker)].handle(now, input, &mut self.packet, effects);
        (tried, verdict)
    }

    fn claims(&mut self, now: Now, bind: &Bind, family: Family) -> Result<Claim, BindError> {
        if self.is_out_of_files {
            return Err(BindError::NoResources);
        }
        let mut chance = bind.chance;
        for attempt in 0..16 {
            chance[0] = chance[0].wrapping_add(attempt);
            let claim = self.ports.take(now.mono, family, bind.want, &bind.user, chance).ok_or(BindError::NoPort)?;
            if self.is_crowded && claim.port % 4 == 1 {
                self.ports.give_back(now.mono, claim);
                if let turnserver::turn::ports::Want::Pair(token) = bind.want {
                    self.ports.cancel(token);
                }
                continue;
            }
            let twice = self.held.values().flat_map(|sockets| &sockets.claims).copied();
            let mut twice = twice.filter(|other| Family::of(other.address.local) == family);
            return Ok(twice.next().filter(|_| self.lie == Some(Lie::SamePort)).unwrap_or(claim));
        }
        Err(BindError::NoPort)
    }

    /// Every relay address there is, as others see it.
    pub(crate) fn relays(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let told = |claim: &Claim| SocketAddr::new(claim.address.external, claim.port);
        self.held.values().flat_map(move |sockets| sockets.claims.iter().map(told))
    }
}
