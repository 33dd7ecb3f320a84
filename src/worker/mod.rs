//! One operating system thread a core, nothing shared between them per packet.
//!
//! A worker sleeps in epoll, takes a batch from each socket that is ready, asks the core for a verdict on every packet,
//! does what the effects say, and sends everything it gathered: one call a socket. Packets stay in the slots they were
//! received in until they leave. Never async, never HTTP, never a configuration file: it gets values.
#![forbid(unsafe_code)]

mod conns;
mod ledger;
mod mailbox;
mod sockets;

use crate::net::poll::{Events, Interest, Poll};
use crate::net::udp::{self, BATCH, Batch};
use crate::net::{self, clock};
use crate::time::{Instant, Now};
use crate::turn::peers::Destination;
use crate::turn::policy::Policy;
use crate::turn::refusal::{Dropped, Ended};
use crate::turn::tally::{Tally, Transport};
use crate::turn::{Bind, BindError, Bound, Effect, FiveTuple, Input, Link, Path, RelayId, Server, Session, Verdict};
use crate::wire::Packet;
use crate::wire::packet::SLOT;
use crate::wire::stream::{self, Frame};
use conns::{ConnId, Conns, End, READ_ROOM, READS_PER_TURN};
use ledger::Ledger;
use mailbox::{Command, Mailbox};
use sockets::{Outbox, Relays, TcpListener, Token, UdpListener};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;

pub use ledger::PortUse;
pub use sockets::StartError;

/// Open files under which a start is worth a warning.
const FEW_FILES: u64 = 4096;
/// Packets in the hands of one worker at once.
const SLOTS: usize = 256;
/// Events of one wake-up.
const EVENTS: usize = 256;
/// Connections accepted in one wake-up before the others get their turn.
const ACCEPTS_PER_TURN: usize = 64;
/// The part of the server's bandwidth that a worker draws at once: a hundredth of a second's worth.
const BANDWIDTH_SLICES: u64 = 100;

/// What the workers need to start.
#[derive(Clone, Debug)]
pub struct Setup {
    /// UDP listeners.
    pub udp: Vec<SocketAddr>,
    /// TCP listeners.
    pub tcp: Vec<SocketAddr>,
    /// Threads; 0 is one a core.
    pub workers: usize,
    /// The rules to begin with.
    pub policy: Arc<Policy>,
}

/// The running workers, as the control side holds them.
#[derive(Debug)]
pub struct Handle {
    workers: Vec<Running>,
    tallies: Vec<Arc<Tally>>,
    ledger: Arc<Ledger>,
    listeners: Vec<(Transport, SocketAddr)>,
}

#[derive(Debug)]
struct Running {
    mailbox: Arc<Mailbox>,
    thread: JoinHandle<()>,
}

/// Opens every socket, then starts the threads. When a socket cannot be opened nothing is left behind.
pub fn start(setup: Setup) -> Result<Handle, StartError> {
    let count = match setup.workers {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        count => count,
    };
    // Before any socket: each allocation and each connection needs a descriptor.
    let files = net::raise_file_limit().unwrap_or_else(|error| {
        tracing::warn!(%error, "the limit of open files cannot be raised");
        FEW_FILES
    });
    if files < FEW_FILES {
        tracing::warn!(
            limit = files,
            "few open files are permitted: raise LimitNOFILE (ulimit -Hn), one is needed a call"
        );
    }
    let shares = sockets::open(&setup.udp, &setup.tcp, count)?;
    let listeners = shares.first().map(sockets::Share::addresses).unwrap_or_default();
    let relay_ports = setup.policy.peers.relay_ports();
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| StartError::System(io::Error::other(error)))?;
    let ledger = Arc::new(Ledger::new(&setup.policy.relays, relay_ports, files, u64::from_ne_bytes(seed)));
    let mut handle = Handle { workers: Vec::new(), tallies: Vec::new(), ledger, listeners };
    for (number, share) in shares.into_iter().enumerate() {
        if let Err(error) = handle.add(number, share, &setup.policy) {
            handle.stop();
            return Err(error);
        }
    }
    Ok(handle)
}

impl Handle {
    /// What each worker has done.
    pub fn tallies(&self) -> &[Arc<Tally>] {
        &self.tallies
    }

    /// How the relay ports are used now.
    pub fn relay_ports(&self) -> PortUse {
        self.ledger.ports()
    }

    /// Where the workers listen.
    pub fn listeners(&self) -> &[(Transport, SocketAddr)] {
        &self.listeners
    }

    /// Puts other rules in force, in every worker between two batches. Relay addresses and ports stay as they were.
    pub fn set_policy(&self, policy: &Arc<Policy>) {
        self.workers.iter().for_each(|worker| worker.mailbox.post(Command::SetPolicy(Arc::clone(policy))));
    }

    /// Whether every thread has answered since the last call.
    pub fn is_alive(&self) -> bool {
        // Every worker is asked, also when one has not answered.
        self.workers.iter().fold(true, |alive, worker| {
            let answers = worker.mailbox.is_answered();
            alive && answers
        })
    }

    /// Whether a thread is gone that nobody has told to stop.
    pub fn has_failed(&self) -> bool {
        self.workers.iter().any(|worker| worker.thread.is_finished())
    }

    /// Ends every allocation and every thread.
    pub fn stop(self) {
        self.workers.iter().for_each(|worker| worker.mailbox.post(Command::Stop));
        for worker in self.workers {
            if worker.thread.join().is_err() {
                tracing::error!("a worker thread had failed");
            }
        }
    }

    fn add(&mut self, number: usize, share: sockets::Share, policy: &Arc<Policy>) -> Result<(), StartError> {
        let mailbox = Arc::new(Mailbox::new().map_err(StartError::System)?);
        let tally = Arc::new(Tally::default());
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| StartError::System(io::Error::other(error)))?;
        let worker =
            Worker::new(number, share, policy, &tally, &mailbox, &self.ledger, seed).map_err(StartError::System)?;
        let thread = std::thread::Builder::new().name(format!("worker-{number}"));
        let thread = thread.spawn(move || worker.run()).map_err(StartError::System)?;
        self.tallies.push(tally);
        self.workers.push(Running { mailbox, thread });
        Ok(())
    }
}

/// One thread's whole world.
struct Worker {
    number: usize,
    server: Server,
    policy: Arc<Policy>,
    tally: Arc<Tally>,
    ledger: Arc<Ledger>,
    mailbox: Arc<Mailbox>,
    poll: Poll,
    udp: Vec<UdpListener>,
    tcp: Vec<TcpListener>,
    relays: Relays,
    conns: Conns,
    /// Headers of what is received; what they say of a datagram is read while others of its batch are being handled.
    inbound: Batch,
    /// Headers of what is sent, which may happen in the middle of a received batch.
    outbound: Batch,
    /// Where packets lie; those before `used` wait in the outbox.
    slots: Vec<Packet>,
    used: usize,
    outbox: Outbox,
    effects: Vec<Effect>,
    /// Where a connection's bytes are read to.
    room: Box<[u8]>,
    /// Connections to be closed once nobody is in the middle of them.
    broken: Vec<ConnId>,
    now: Now,
    /// Bytes drawn from the server's bandwidth and not spent.
    drawn: u64,
}

impl Worker {
    fn new(
        number: usize,
        share: sockets::Share,
        policy: &Arc<Policy>,
        tally: &Arc<Tally>,
        mailbox: &Arc<Mailbox>,
        ledger: &Arc<Ledger>,
        seed: [u8; 32],
    ) -> io::Result<Self> {
        let now = clock::now();
        let poll = Poll::new()?;
        poll.add(mailbox.as_fd(), Token::Mailbox.into(), Interest::Read)?;
        for (at, listener) in share.udp.iter().enumerate() {
            poll.add(listener.socket.as_fd(), Token::Udp(at as u32).into(), Interest::Read)?;
        }
        for (at, listener) in share.tcp.iter().enumerate() {
            poll.add(listener.socket.as_fd(), Token::Tcp(at as u32).into(), Interest::Read)?;
        }
        Ok(Self {
            number,
            server: Server::new(Arc::clone(policy), Arc::clone(tally), now, seed).with_strangers(ledger.strangers()),
            policy: Arc::clone(policy),
            tally: Arc::clone(tally),
            ledger: Arc::clone(ledger),
            mailbox: Arc::clone(mailbox),
            poll,
            udp: share.udp,
            tcp: share.tcp,
            relays: Relays::default(),
            conns: Conns::default(),
            inbound: Batch::new(),
            outbound: Batch::new(),
            slots: (0..SLOTS).map(|_| Packet::new(vec![0; SLOT].into())).collect(),
            used: 0,
            outbox: Outbox::default(),
            effects: Vec::new(),
            room: vec![0; READ_ROOM].into(),
            broken: Vec::new(),
            now,
            drawn: 0,
        })
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let timeout = self.deadline().map(|deadline| deadline - clock::now().mono);
            if let Err(error) = self.poll.wait(&mut events, timeout) {
                tracing::error!(%error, "the worker cannot wait for its sockets");
                return;
            }
            self.now = clock::now();
            let mut goes_on = true;
            for event in (0..events.len()).filter_map(|at| events.get(at)) {
                match Token::from(event.token) {
                    Token::Mailbox if !self.read_mail() => {
                        goes_on = false;
                        break; // nothing begins after the end
                    }
                    Token::Mailbox => {}
                    Token::Udp(at) => self.read_listener(at),
                    Token::Tcp(at) => self.accept(at),
                    Token::Relay(id) => self.read_relay(id),
                    Token::Conn(id) => {
                        if event.writable {
                            self.write_conn(id);
                        }
                        if event.readable {
                            self.read_conn(id);
                        }
                    }
                }
            }
            self.flush();
            self.tick();
            if !goes_on {
                return;
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let retry = self.tcp.iter().filter_map(|listener| listener.paused_until);
        retry.chain(self.server.deadline()).chain(self.conns.deadline()).min()
    }

    /// One batch from a UDP listener.
    fn read_listener(&mut self, at: u32) {
        self.make_room(BATCH);
        let Some(listener) = self.udp.get(at as usize) else { return };
        let (bound, is_wildcard) = (listener.address, listener.is_wildcard);
        let slots = self.slots.get_mut(self.used..).unwrap_or_default();
        // An error here is a leftover of an earlier datagram's fate, or nothing to read after all: epoll tells again.
        let Ok(count) = self.inbound.receive(listener.socket.as_fd(), slots) else { return };
        let first = self.used;
        self.used += count;
        for (place, slot) in (first..first + count).enumerate() {
            let Some(meta) = self.inbound.meta(place) else { continue };
            if meta.truncated {
                self.tally.count_drop(Dropped::TooLarge);
                continue;
            }
            if self.policy.peers.own_relay(meta.from).is_some_and(|local| self.ledger.is_live(local)) {
                // A relay of ours as a client of ours would be the start of a loop (RFC 8656 §21.1.7).
                self.tally.count_drop(Dropped::BadSource);
                continue;
            }
            let ip = if is_wildcard { meta.to.unwrap_or_else(|| bound.ip()) } else { bound.ip() };
            let server = SocketAddr::new(ip, bound.port());
            let tuple = FiveTuple { transport: Transport::Udp, client: meta.from, server };
            self.dispatch(slot, Input::Client(Path { tuple, link: Link(at) }));
        }
    }

    /// A few datagrams from a relay socket: one, unless it has shown that more wait.
    fn read_relay(&mut self, id: RelayId) {
        let depth = self.relays.depth(id);
        self.make_room(depth);
        let Some(socket) = self.relays.socket(id) else { return };
        let slots = self.slots.get_mut(self.used..self.used + depth).unwrap_or_default();
        let Ok(count) = self.inbound.receive(socket, slots) else { return };
        self.relays.note_depth(id, count);
        let first = self.used;
        self.used += count;
        for (place, slot) in (first..first + count).enumerate() {
            let Some(meta) = self.inbound.meta(place) else { continue };
            if meta.truncated {
                self.tally.count_drop(Dropped::TooLarge);
                continue;
            }
            let Some(from) = self.known_as(meta.from) else {
                self.tally.count_drop(Dropped::BadSource);
                continue;
            };
            self.dispatch(slot, Input::Peer { relay: id, from });
        }
    }

    /// The name of a peer towards clients: another allocation of ours is known by its external address. `None` for a
    /// datagram from the network that claims to come from us.
    fn known_as(&self, from: SocketAddr) -> Option<SocketAddr> {
        match self.policy.peers.own_relay(from) {
            None => Some(from),
            Some(local) if local != from => None,
            Some(local) if self.ledger.is_live(local) => self.policy.peers.seen_as(from),
            Some(_) => Some(from),
        }
    }

    fn accept(&mut self, at: u32) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = self.tcp.get_mut(at as usize) else { return };
            let (stream, from) = match listener.accept(&self.poll, self.now.mono) {
                Ok(Some(accepted)) => accepted,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(listener = %listener.address, %error, "a TCP client cannot be accepted");
                    return;
                }
            };
            let limit = self.policy.limits.connections_per_ip;
            let Some(admission) = self.ledger.connect(from.ip(), limit) else {
                self.tally.limited_connections.add(1);
                continue;
            };
            // The connection's own local address: the listener may be a wildcard.
            let Ok(server) = stream.local_addr() else { continue };
            let tuple =
                FiveTuple { transport: Transport::Tcp, client: sockets::plain(from), server: sockets::plain(server) };
            let token = |id| Token::Conn(id).into();
            match self.conns.add(&self.poll, token, stream, tuple, admission, self.now.mono) {
                Ok(_) => self.tally.connections[Transport::Tcp as usize].add(1),
                Err(error) => tracing::warn!(client = %from, %error, "a TCP client cannot be watched"),
            }
        }
    }

    fn read_conn(&mut self, id: ConnId) {
        let mut room = core::mem::take(&mut self.room);
        for _ in 0..READS_PER_TURN {
            match self.read_messages(id, &mut room) {
                Ok(true) => {}
                Ok(false) => break,
                Err(end) => {
                    if end == End::Noise {
                        self.tally.count_drop(Dropped::Noise);
                    }
                    // What stood before the end has its answer.
                    let _ = self.conns.write(&self.poll, |id| Token::Conn(id).into(), id);
                    self.close(id);
                    break;
                }
            }
        }
        self.room = room;
    }

    /// Reads once and handles every whole message. `true` when more may be waiting.
    fn read_messages(&mut self, id: ConnId, room: &mut [u8]) -> Result<bool, End> {
        let Some(tuple) = self.conns.tuple(id) else { return Ok(false) };
        let Some(received) = self.conns.read(id, room)? else { return Ok(false) };
        let mut bytes = room.get(..received.len).unwrap_or_default();
        let mut was_useful = false;
        while let Frame::Whole { message, next } = stream::next(bytes) {
            self.make_room(1);
            if self.conns.tuple(id).is_none() {
                return Ok(false); // it broke while answers to its own messages were sent
            }
            let slot = self.used;
            self.used += 1;
            let (whole, rest) = bytes.split_at(next.min(bytes.len()));
            bytes = rest;
            if let Some(packet) = self.slots.get_mut(slot) {
                packet.fill(whole.get(..message).unwrap_or(whole));
            }
            // Only what was worth an answer or was relayed keeps a connection open.
            was_useful |= self.dispatch(slot, Input::Client(Path { tuple, link: Link(id.index) }));
        }
        if stream::next(bytes) == Frame::Noise {
            return Err(End::Noise);
        }
        self.conns.keep(id, bytes, was_useful, self.now.mono);
        Ok(!received.is_all)
    }

    fn write_conn(&mut self, id: ConnId) {
        if self.conns.write(&self.poll, |id| Token::Conn(id).into(), id).is_err() {
            self.close(id);
        }
    }

    /// Asks the core about the packet in `slot` and does what it says. Whether a packet leaves.
    fn dispatch(&mut self, slot: usize, input: Input) -> bool {
        let is_data = matches!(input, Input::Peer { .. });
        let Some(packet) = self.slots.get_mut(slot) else { return false };
        let mut verdict = self.server.handle(self.now, input, packet, &mut self.effects);
        if !self.effects.is_empty() {
            verdict = self.perform(slot, verdict);
        }
        self.deliver(slot, verdict, is_data);
        matches!(verdict, Verdict::ToPeer { .. } | Verdict::ToClient(_))
    }

    /// Does what the effects ask for. A socket that was wanted changes the verdict: its answer is due now.
    fn perform(&mut self, slot: usize, mut verdict: Verdict) -> Verdict {
        let mut effects = core::mem::take(&mut self.effects);
        while !effects.is_empty() {
            for effect in effects.drain(..) {
                match effect {
                    Effect::Bind(bind) => verdict = self.bind(slot, &bind),
                    Effect::Began { relay, session } => self.began(relay, &session),
                    Effect::Ended { relay, session, usage, lived, why } => {
                        self.ended(relay, &session, why);
                        tracing::info!(
                            allocation = %sockets::name(self.number, relay),
                            user = &*session.user,
                            client = %session.path.tuple.client,
                            relay = %session.relay,
                            transport = session.path.tuple.transport.label(),
                            reason = why.label(),
                            seconds = lived.as_secs(),
                            bytes_to_peer = usage.bytes_to_peer,
                            packets_to_peer = usage.packets_to_peer,
                            bytes_to_client = usage.bytes_to_client,
                            packets_to_client = usage.packets_to_client,
                            "allocation ended"
                        );
                    }
                }
            }
            core::mem::swap(&mut effects, &mut self.effects);
        }
        self.effects = effects;
        verdict
    }

    fn bind(&mut self, slot: usize, bind: &Bind) -> Verdict {
        let result =
            self.ledger.claim(self.now, &self.policy.limits, bind, udp::relay).and_then(|(claim, port, socket)| {
                let token = Token::Relay(bind.relay).into();
                self.poll.add(socket.as_fd(), token, Interest::Read).map_err(|_| {
                    self.ledger.cancel(bind.want);
                    BindError::NoResources
                })?;
                self.relays.insert(bind.relay, socket, claim);
                Ok(Bound { address: port.address, port: port.port })
            });
        let Some(packet) = self.slots.get_mut(slot) else { return Verdict::Nothing };
        self.server.handle(self.now, Input::Bound { relay: bind.relay, result }, packet, &mut self.effects)
    }

    fn began(&mut self, relay: RelayId, session: &Session) {
        self.count_on_conn(session, true);
        tracing::info!(
            allocation = %sockets::name(self.number, relay),
            user = &*session.user,
            client = %session.path.tuple.client,
            relay = %session.relay,
            transport = session.path.tuple.transport.label(),
            "allocation made"
        );
    }

    fn ended(&mut self, relay: RelayId, session: &Session, why: Ended) {
        // What the relay still has to send leaves before its socket closes.
        self.send_outbox();
        if why != Ended::Disconnected {
            self.count_on_conn(session, false);
        }
        self.relays.remove(relay);
    }

    fn count_on_conn(&mut self, session: &Session, began: bool) {
        let Path { tuple, link } = session.path;
        if tuple.transport.is_stream() {
            self.conns.count_allocation(link.0, &tuple, began, self.now.mono);
        }
    }

    /// Puts the packet in `slot` on its way.
    fn deliver(&mut self, slot: usize, verdict: Verdict, is_data: bool) {
        match verdict {
            Verdict::Nothing => {}
            Verdict::Dropped(why) => self.tally.count_drop(why),
            Verdict::ToPeer { .. } if !self.may_spend(slot, true) => {}
            Verdict::ToClient(_) if !self.may_spend(slot, is_data) => {}
            Verdict::ToPeer { relay, peer, destination } => self.deliver_to_peer(slot, relay, peer, destination),
            Verdict::ToClient(path) if path.tuple.transport == Transport::Udp => {
                let is_wildcard = self.udp.get(path.link.0 as usize).is_some_and(|listener| listener.is_wildcard);
                let source = is_wildcard.then(|| path.tuple.server.ip());
                self.outbox.push_to_client(path.link.0, slot, path.tuple.client, source);
            }
            Verdict::ToClient(path) => {
                let bytes = self.slots.get(slot).map(Packet::data).unwrap_or_default();
                match self.conns.queue(path.link.0, &path.tuple, bytes, is_data) {
                    Ok(true) => {}
                    Ok(false) => self.tally.count_drop(Dropped::SlowClient),
                    Err(_) => self.broken.extend(self.conns.id(path.link.0)),
                }
            }
        }
    }

    fn deliver_to_peer(&mut self, slot: usize, relay: RelayId, peer: SocketAddr, destination: Destination) {
        let to = match destination {
            Destination::Elsewhere => peer,
            Destination::OwnRelay { local, .. } if self.ledger.is_live(local) => local,
            Destination::OwnRelay { opened: true, .. } => peer,
            Destination::OwnRelay { opened: false, .. } => {
                self.tally.count_drop(Dropped::NoRelay);
                return;
            }
        };
        self.outbox.push_to_peer(relay, slot, to);
    }

    /// Whether the server's bandwidth has room for the data in `slot`; counts the drop when not. Answers are free: a call
    /// must not end because others are loud.
    fn may_spend(&mut self, slot: usize, is_data: bool) -> bool {
        let Some(rate) = self.policy.limits.bandwidth.filter(|_| is_data) else { return true };
        let bytes = self.slots.get(slot).map_or(0, Packet::len) as u64;
        if self.drawn < bytes {
            let slice = (rate / BANDWIDTH_SLICES).max(bytes);
            if !self.ledger.draw(self.now.mono, rate, slice) {
                self.tally.limited_bandwidth.add(1);
                self.tally.count_drop(Dropped::Bandwidth);
                return false;
            }
            self.drawn += slice;
        }
        self.drawn -= bytes;
        true
    }

    /// Makes sure that `count` slots are free.
    fn make_room(&mut self, count: usize) {
        if self.used + count > self.slots.len() {
            self.flush();
        }
    }

    /// Sends everything that waits; every slot is free after.
    fn flush(&mut self) {
        self.send_outbox();
        self.used = 0;
        let mut broken = core::mem::take(&mut self.broken);
        self.conns.flush(&self.poll, |id| Token::Conn(id).into(), &mut broken);
        for id in broken.drain(..) {
            self.close(id);
        }
        self.broken = broken;
    }

    fn send_outbox(&mut self) {
        self.outbox.send(&mut self.outbound, &self.slots, &self.udp, &self.relays, |why| self.tally.count_drop(why));
    }

    /// What time brings: the end of allocations and of silent connections.
    fn tick(&mut self) {
        self.server.tick(self.now, &mut self.effects);
        self.perform_without_packet();
        for id in self.conns.idle(self.now.mono) {
            self.close(id);
        }
        for (at, listener) in self.tcp.iter_mut().enumerate() {
            listener.resume(&self.poll, at as u32, self.now.mono);
        }
    }

    /// Does what effects ask for that answer no packet: only ends come this way.
    fn perform_without_packet(&mut self) {
        if !self.effects.is_empty() {
            let verdict = self.perform(SLOTS, Verdict::Nothing);
            self.deliver(SLOTS, verdict, false);
        }
    }

    fn close(&mut self, id: ConnId) {
        let Some(tuple) = self.conns.close(id) else { return };
        self.tally.connections[Transport::Tcp as usize].sub(1);
        let mut none = Packet::new(Box::default());
        let verdict = self.server.handle(self.now, Input::Closed(tuple), &mut none, &mut self.effects);
        debug_assert_eq!(verdict, Verdict::Nothing, "a closed connection is answered by nobody");
        self.perform_without_packet();
    }

    fn read_mail(&mut self) -> bool {
        for command in self.mailbox.take() {
            match command {
                Command::SetPolicy(policy) => {
                    self.policy = Arc::clone(&policy);
                    self.server.set_policy(self.now, policy, &mut self.effects);
                    self.perform_without_packet();
                }
                Command::Stop => {
                    self.flush();
                    self.server.end_all(self.now, &mut self.effects);
                    self.perform_without_packet();
                    return false;
                }
            }
        }
        true
    }
}
