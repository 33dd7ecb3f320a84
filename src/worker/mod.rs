//! One operating system thread a core, nothing shared between them per packet.
//!
//! A worker sleeps in epoll, takes a batch from each socket that is ready, asks the core for a verdict on every packet,
//! does what the effects say, and sends everything it gathered: one call a socket. Packets stay in the slots they were
//! received in until they leave; those of trains get slots of their own. Never async, never HTTP, never a configuration file: it gets values.
#![forbid(unsafe_code)]

mod arrivals;
mod associations;
mod conns;
mod datagrams;
mod delivery;
mod effects;
mod joins;
mod ledger;
mod mailbox;
mod opening;
mod peers;
mod records;
mod sockets;
mod streams;
#[cfg(all(test, turnserver_loom))]
mod threads;
mod transfer;
mod web;

use crate::net::dtls;
use crate::net::poll::{Events, Interest, Poll};
use crate::net::tls::Certificates;
use crate::net::udp::{Abilities, Batch};
use crate::net::{self, clock};
use crate::time::{Instant, Now};
use crate::turn::policy::Policy;
use crate::turn::tally::{Tally, Transport};
use crate::turn::{Effect, FiveTuple, Input, Path, Place, RelayId, Server, StreamId, Verdict};
use crate::wire::Packet;
use crate::wire::packet::SLOT;
use crate::wire::stun::Family;
use associations::Associations;
use conns::{ConnId, Conns, READ_ROOM};
use ledger::Ledger;
use mailbox::{Command, Mailbox, Parcel};
use peers::{PeerConns, PeerId};
use sockets::{Outbox, Relays, TcpListener, Token, UdpListener};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;

pub use ledger::PortUse;
pub use opening::Entry;
pub use sockets::StartError;

/// Open files under which a start is worth a warning.
const FEW_FILES: u64 = 4096;
/// Workers of one server: their number is one byte in the ids that clients are given.
const MAX_WORKERS: usize = 255;
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
    /// Where clients are served, and how.
    pub listeners: Vec<(Transport, SocketAddr)>,
    /// Whether listeners and relay sockets may bind addresses that no interface has yet.
    pub freebind: bool,
    /// What a connection may be at its beginning.
    pub entry: Entry,
    /// Threads; 0 is one a core.
    pub workers: usize,
    /// The rules to begin with.
    pub policy: Arc<Policy>,
    /// What handshakes are made with; a TLS listener needs them.
    pub certificates: Option<Arc<Certificates>>,
    /// What DTLS listeners need.
    pub dtls: Option<Arc<dtls::Shared>>,
}

/// The running workers, as the control side holds them.
#[derive(Debug)]
pub struct Handle {
    workers: Vec<Running>,
    tallies: Vec<Arc<Tally>>,
    ledger: Arc<Ledger>,
    listeners: Vec<(Transport, SocketAddr)>,
    abilities: Abilities,
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
    let count = count.min(MAX_WORKERS);
    // Before any socket: each allocation and each connection needs a descriptor.
    let files = net::raise_file_limit().unwrap_or_else(|error| {
        tracing::warn!(%error, "the limit of open files cannot be raised");
        FEW_FILES
    });
    net::widen_file_table(files);
    if files < FEW_FILES {
        tracing::warn!(
            limit = files,
            "few open files are permitted: raise LimitNOFILE (ulimit -Hn), one is needed a call"
        );
    }
    let Setup { listeners, freebind, entry, dtls, .. } = &setup;
    if let Some(&(transport, address)) = listeners.iter().find(|(transport, _)| *transport == Transport::Dtls)
        && dtls.is_none()
    {
        let source = io::Error::other("DTLS needs a certificate");
        return Err(StartError::Listen { transport, address, source });
    }
    let abilities = Abilities::probe();
    let shares = sockets::open(listeners, setup.certificates.as_ref(), count, *freebind, entry.detect, abilities)?;
    let listeners = shares.first().map(sockets::Share::addresses).unwrap_or_default();
    let relay_ports = setup.policy.peers.relay_ports();
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| StartError::System(io::Error::other(error)))?;
    let ledger = Arc::new(Ledger::new(&setup.policy.relays, relay_ports, files, u64::from_ne_bytes(seed)));
    let mailboxes: io::Result<Vec<_>> = shares.iter().map(|_| Mailbox::new().map(Arc::new)).collect();
    let mailboxes: Arc<[Arc<Mailbox>]> = mailboxes.map_err(StartError::System)?.into();
    let mut handle = Handle { workers: Vec::new(), tallies: Vec::new(), ledger, listeners, abilities };
    for (number, share) in shares.into_iter().enumerate() {
        if let Err(error) = handle.add(number, share, &setup, &mailboxes) {
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

    /// Gives back the relay ports that were held for clients who have not come in time.
    pub fn end_reservations(&self, now: Now) {
        self.ledger.end_reservations(now);
    }

    /// What the system can do for the packets.
    pub fn abilities(&self) -> Abilities {
        self.abilities
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

    fn add(
        &mut self,
        number: usize,
        share: sockets::Share,
        setup: &Setup,
        mailboxes: &Arc<[Arc<Mailbox>]>,
    ) -> Result<(), StartError> {
        let mailbox = Arc::clone(&mailboxes[number]);
        let tally = Arc::new(Tally::default());
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| StartError::System(io::Error::other(error)))?;
        let worker =
            Worker::new(number, share, setup, &tally, mailboxes, &self.ledger, seed).map_err(StartError::System)?;
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
    /// Those of all workers, this one's included, by number.
    mailboxes: Arc<[Arc<Mailbox>]>,
    poll: Poll,
    udp: Vec<UdpListener>,
    tcp: Vec<TcpListener>,
    relays: Relays,
    /// What a connection may be at its beginning.
    entry: Entry,
    /// Whether relay sockets may bind addresses that no interface has yet.
    freebind: bool,
    abilities: Abilities,
    /// What goes to relay addresses of other workers at the end of the wake-up, by worker.
    parcels: Box<[Parcel]>,
    conns: Conns,
    peers: PeerConns,
    /// Connections by the names that proxies gave them.
    introduced: HashMap<FiveTuple, ConnId>,
    /// The connection of a peer that the core is being asked about.
    accepted: Option<TcpStream>,
    /// What is to be joined as soon as the answer that says so is on its way.
    joining: Option<(RelayId, StreamId, Path)>,
    /// Relay addresses whose peers wait in the backlog, because there was no descriptor for them.
    resting: Vec<(RelayId, Family)>,
    /// When those are looked at again.
    rest_until: Option<Instant>,
    /// Connections of allocations here that joined a client's on another worker.
    away: BTreeMap<StreamId, u8>,
    /// Clients that come here, because the kernel or they chose so, and whose allocation another worker has.
    routes: HashMap<FiveTuple, u8>,
    dtls: Option<Arc<dtls::Shared>>,
    associations: Associations,
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
    /// Where DTLS engines put what they have to say.
    engine_room: Box<[u8]>,
    /// Slots with messages that one DTLS datagram brought.
    messages: Vec<usize>,
    /// Associations whose engine failed, to be ended once nobody is in the middle of them.
    lost: Vec<(u32, FiveTuple)>,
    /// Peers whose clients have just been written to.
    relieved: Vec<PeerId>,
    now: Now,
    /// How often it has woken up.
    wakeup: u32,
    /// Bytes drawn from the server's bandwidth and not spent.
    drawn: u64,
}

impl Worker {
    fn new(
        number: usize,
        share: sockets::Share,
        setup: &Setup,
        tally: &Arc<Tally>,
        mailboxes: &Arc<[Arc<Mailbox>]>,
        ledger: &Arc<Ledger>,
        seed: [u8; 32],
    ) -> io::Result<Self> {
        let (now, policy) = (clock::now(), &setup.policy);
        let poll = Poll::new()?;
        let mailbox = &mailboxes[number];
        poll.add(mailbox.as_fd(), Token::Mailbox.into(), Interest::Read)?;
        for (at, listener) in share.udp.iter().enumerate() {
            poll.add(listener.socket.as_fd(), Token::Udp(at as u32).into(), Interest::Read)?;
        }
        for (at, listener) in share.tcp.iter().enumerate() {
            poll.add(listener.socket.as_fd(), Token::Tcp(at as u32).into(), Interest::Read)?;
        }
        Ok(Self {
            number,
            server: Server::new(Arc::clone(policy), Arc::clone(tally), now, seed)
                .with_strangers(ledger.strangers())
                .with_place(Place { number: number as u8, count: mailboxes.len() as u8 }),
            policy: Arc::clone(policy),
            tally: Arc::clone(tally),
            ledger: Arc::clone(ledger),
            mailbox: Arc::clone(mailbox),
            mailboxes: Arc::clone(mailboxes),
            poll,
            udp: share.udp,
            tcp: share.tcp,
            relays: Relays::default(),
            entry: setup.entry.clone(),
            freebind: share.freebind,
            abilities: share.abilities,
            parcels: mailboxes.iter().map(|_| Parcel::default()).collect(),
            conns: Conns::default(),
            peers: PeerConns::default(),
            introduced: HashMap::new(),
            accepted: None,
            joining: None,
            resting: Vec::new(),
            rest_until: None,
            away: BTreeMap::new(),
            routes: HashMap::new(),
            dtls: setup.dtls.clone(),
            associations: Associations::default(),
            inbound: Batch::new(false),
            outbound: Batch::new(share.abilities.sends_trains),
            slots: (0..SLOTS).map(|_| Packet::new(vec![0; SLOT].into())).collect(),
            used: 0,
            outbox: Outbox::default(),
            effects: Vec::new(),
            room: vec![0; READ_ROOM].into(),
            broken: Vec::new(),
            engine_room: vec![0; dtls::ROOM].into(),
            messages: Vec::new(),
            lost: Vec::new(),
            relieved: Vec::new(),
            now,
            wakeup: 0,
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
            self.wakeup = self.wakeup.wrapping_add(1);
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
                    Token::Relay(id, family) => {
                        if event.failed {
                            self.read_errors(id, family);
                        }
                        self.read_relay(id, family);
                    }
                    Token::Peer(id) => self.peer_ready(id, event.readable, event.writable),
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
        let clients = self.conns.deadline().into_iter().chain(self.associations.deadline());
        retry.chain(self.rest_until).chain(self.server.deadline()).chain(clients).chain(self.peers.deadline()).min()
    }

    /// Asks the core about the packet in `slot` and does what it says. Whether a packet leaves.
    fn dispatch(&mut self, slot: usize, input: Input) -> bool {
        let is_data = matches!(input, Input::Peer { .. });
        let client = if let Input::Client(path) = &input { Some(*path) } else { None };
        let Some(packet) = self.slots.get_mut(slot) else { return false };
        let mut verdict = self.server.handle(self.now, input, packet, &mut self.effects);
        if !self.effects.is_empty() {
            verdict = self.perform(slot, verdict);
        }
        if let (Verdict::Elsewhere(worker), Some(path)) = (verdict, client) {
            return self.hand_over(worker, slot, path);
        }
        match self.joining.take() {
            Some(joining) => self.join(slot, verdict, joining),
            None => self.deliver(slot, verdict, is_data),
        }
        matches!(verdict, Verdict::ToPeer { .. } | Verdict::ToClient(_))
    }

    /// What time brings: the end of allocations and of silent or unfinished connections, a handshake's second try.
    fn tick(&mut self) {
        self.server.tick(self.now, &mut self.effects);
        self.perform_without_packet();
        self.close_overdue();
        self.tick_associations();
        self.tick_peers();
        for (at, listener) in self.tcp.iter_mut().enumerate() {
            listener.resume(&self.poll, at as u32, self.now.mono);
        }
    }
}
