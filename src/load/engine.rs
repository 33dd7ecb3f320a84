//! One thread's clients and their peers: opened, set up, renewed and released.
//!
//! Owns every socket of its share. What relayed packets and floods of requests do with them stands in `relay.rs` and
//! `requests.rs`; here is what they have in common: one wait, one way for bytes in, requests in a window. Never talks to
//! another thread but through [`Shared`].
#![forbid(unsafe_code)]

use super::Shared;
use super::failure::{Failure, Refusal, spoken};
use super::flights::Flights;
use super::frames::{CHANNEL, Frames, head};
use super::pipe::{self, Pipe};
use super::plan::{Direction, Kind, Mode, Peer, Plan, Transport};
use super::report::Tally;
use super::requests::Requests;
use super::script::{Renewal, Script, Silence, Task, Verdict};
use crate::client::Client;
use crate::net::clock::monotonic;
use crate::net::poll::{Events, Interest, Poll};
use crate::net::udp::{BATCH, Batch, Modes, receive_trains};
use crate::time::{Duration, Instant};
use crate::wire::Packet;
use crate::wire::codes::ErrorCode;
use crate::wire::packet::{HEADROOM, MAX_PAYLOAD, TAILROOM};
use crate::wire::stun::Family;
use core::net::{IpAddr, SocketAddr};
use libc::{EADDRINUSE, EADDRNOTAVAIL, EAGAIN, EMFILE, EMSGSIZE, ENFILE, ENOBUFS};
use std::collections::VecDeque;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;

/// Requests of set-up and release under way at once.
const TASKS: usize = 64;
/// How long a thread that has nothing to do looks again and again before it sleeps. A server that has to wake whoever it
/// sends to pays for that, and the figures are to be its own.
const SPIN: Duration = Duration::from_millis(2);
/// How long it then sleeps at most.
const NAP: Duration = Duration::from_millis(5);
/// How often it looks at what is seldom due: losses, renewals, the meters.
pub(super) const TICK: Duration = Duration::from_millis(20);
/// How long a server may take to confirm releases once nobody waits for anything else.
const RELEASE: Duration = Duration::from_secs(5);
/// How many ports a client tries.
const MOVES: u32 = 5;
/// Bytes a peer's socket asks the kernel to queue each way.
const BUFFER: usize = 4 << 20;
/// Tokens from here on are those of peers' sockets.
const PEER: u64 = 1 << 32;
/// Bytes that one read of a stream takes.
const SCRATCH: usize = 64 << 10;
/// Descriptors that a program needs beside those of its clients and peers.
pub(super) const SPARE: usize = 32;

/// A client with all that belongs to it.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) pipe: Option<Pipe>,
    pub(super) script: Script,
    /// Its relay address.
    pub(super) relayed: Option<SocketAddr>,
    /// Whom it sends to.
    pub(super) peer: Option<SocketAddr>,
    /// What stands before each payload that it sends.
    pub(super) head: Box<[u8]>,
    /// The next packet's number.
    pub(super) sequence: u32,
    /// The newest of its packets that has arrived.
    pub(super) newest: u32,
    pub(super) under_way: usize,
    pub(super) is_queued: bool,
    /// Whether its socket is watched for room to write.
    is_watched: bool,
    /// Ports that it has given up.
    moves: u32,
}

/// A socket of the other side.
#[derive(Debug)]
pub(super) struct End {
    pub(super) socket: UdpSocket,
    pub(super) modes: Modes,
}

/// What messages mean now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Tasks,
    Relay,
    Requests,
}

/// One thread's share of a load.
pub(super) struct Engine<'a> {
    pub(super) plan: &'a Plan,
    pub(super) shared: &'a Shared,
    pub(super) thread: usize,
    /// The number of its first client among all.
    pub(super) first: usize,
    pub(super) callers: Vec<Caller>,
    pub(super) ends: Vec<End>,
    pub(super) batch: Batch,
    pub(super) slots: Vec<Packet>,
    pub(super) frames: Frames,
    pub(super) flights: Flights,
    /// Clients that may send, in the order of their turns; one list for each socket of peers.
    pub(super) ready: Vec<VecDeque<u32>>,
    /// The list whose turn was last.
    pub(super) lane: usize,
    pub(super) window: usize,
    pub(super) quota: u64,
    pub(super) tally: Tally,
    pub(super) requests: Requests,
    /// What ends the load early.
    pub(super) broken: Option<Failure>,
    stage: Stage,
    poll: Poll,
    events: Events,
    scratch: Vec<u8>,
    last_event: Instant,
    /// Verdicts of the tasks under way, for whoever began them.
    verdicts: Vec<(u32, Verdict)>,
    renewing: Vec<u32>,
    renewed: usize,
    renewals_from: Instant,
    renewal: Renewal,
}

impl<'a> Engine<'a> {
    /// Opens the sockets of peers, and those of clients over UDP.
    pub(super) fn open(plan: &'a Plan, shared: &'a Shared, thread: usize) -> Result<Self, Failure> {
        let share = plan.share(thread);
        let clients = share.len();
        let system = |error: io::Error| Failure::Failed(format!("the operating system refuses: {error}"));
        let now = monotonic();
        let (window, under_way) = plan.windows(clients);
        let longest = if plan.trains { MAX_PAYLOAD } else { plan.size.max(1500) + 64 };
        let slot = HEADROOM + longest + TAILROOM;
        let mut engine = Self {
            plan,
            shared,
            thread,
            first: share.start,
            callers: Vec::with_capacity(clients),
            ends: Vec::new(),
            batch: Batch::new(plan.trains),
            slots: (0..BATCH).map(|_| Packet::new(vec![0; slot].into())).collect(),
            frames: Frames::new(0, plan.size, false),
            flights: Flights::new(under_way),
            ready: vec![VecDeque::new(); plan.peers],
            lane: 0,
            window,
            quota: plan.quota(thread),
            tally: Tally::new(now),
            requests: Requests::default(),
            broken: None,
            stage: Stage::Tasks,
            poll: Poll::new().map_err(system)?,
            events: Events::with_capacity(512),
            scratch: vec![0; SCRATCH],
            last_event: now,
            verdicts: Vec::new(),
            renewing: Vec::new(),
            renewed: 0,
            renewals_from: now,
            renewal: Renewal::default(),
        };
        engine.open_peers()?;
        for number in share {
            let client = Client::new(&plan.username, &plan.password, number as u32);
            engine.callers.push(Caller {
                pipe: None,
                script: Script::new(client),
                relayed: None,
                peer: None,
                head: Box::default(),
                sequence: 0,
                newest: 0,
                under_way: 0,
                is_queued: false,
                is_watched: false,
                moves: 0,
            });
        }
        if matches!(plan.transport, Transport::Udp) {
            (0..clients).try_for_each(|at| engine.open_pipe(at))?;
        }
        Ok(engine)
    }

    fn open_peers(&mut self) -> Result<(), Failure> {
        if self.plan.kind != Kind::Relay {
            return Ok(());
        }
        let Some(ip) = peer_address(self.plan)? else { return Ok(()) };
        for at in 0..self.plan.peers {
            let wrong = |error| Failure::Failed(format!("--peer {ip}: no socket can be opened there: {error}"));
            let socket = UdpSocket::bind((ip, 0)).map_err(wrong)?;
            socket.set_nonblocking(true).map_err(wrong)?;
            let buffers = socket2::SockRef::from(&socket);
            // The kernel grants what it likes; a small buffer is why there is a window.
            let _ = buffers.set_recv_buffer_size(BUFFER);
            let _ = buffers.set_send_buffer_size(BUFFER);
            if self.plan.trains {
                receive_trains(socket.as_fd()).map_err(wrong)?;
            }
            self.poll.add(socket.as_fd(), PEER + at as u64, Interest::Read).map_err(wrong)?;
            self.ends.push(End { socket, modes: Modes::default() });
        }
        Ok(())
    }

    /// Opens a client's way to the server, unless it is open.
    pub(super) fn open_pipe(&mut self, at: usize) -> Result<(), Failure> {
        if self.callers.get(at).is_none_or(|caller| caller.pipe.is_some()) {
            return Ok(());
        }
        let opened = Pipe::open(self.plan).and_then(|pipe| {
            if self.plan.trains && matches!(pipe, Pipe::Udp(_)) {
                receive_trains(pipe.as_fd())?;
            }
            let interest = if pipe.is_waiting() { Interest::ReadWrite } else { Interest::Read };
            self.poll.add(pipe.as_fd(), at as u64, interest)?;
            Ok((pipe, interest == Interest::ReadWrite))
        });
        let (pipe, is_watched) = opened.map_err(|error| self.unopened(at, &error))?;
        if let Some(caller) = self.callers.get_mut(at) {
            (caller.pipe, caller.is_watched) = (Some(pipe), is_watched);
        }
        Ok(())
    }

    fn unopened(&self, at: usize, error: &io::Error) -> Failure {
        let number = self.first + at;
        let mend = match error.raw_os_error() {
            Some(EMFILE | ENFILE) => ": this host allows no more open files; raise the limit (ulimit -n)",
            Some(EAGAIN | EADDRINUSE | EADDRNOTAVAIL) => {
                ": this host has no more ports for clients; widen net.ipv4.ip_local_port_range"
            }
            _ => "",
        };
        Failure::Failed(format!("no socket for client {number} of {}: {error}{mend}", self.plan.clients))
    }

    /// Makes every allocation, then every permission or channel.
    pub(super) fn set_up(&mut self) -> Result<Instant, Failure> {
        let family = match self.ends.first().map(|end| end.socket.local_addr()) {
            Some(Ok(SocketAddr::V6(_))) => Some(Family::V6),
            _ => None,
        };
        self.everyone(|_| Some(Task::Allocate(family)))?;
        let allocated = monotonic();
        if self.plan.kind == Kind::Relay && !self.is_stopped() {
            self.introduce()?;
            self.everyone(|caller| caller.permission())?;
        }
        Ok(allocated)
    }

    /// Tells each client who its peer is, and makes ready what it will send.
    fn introduce(&mut self) -> Result<(), Failure> {
        let plan = self.plan;
        let ends: Vec<SocketAddr> = self.ends.iter().filter_map(|end| end.socket.local_addr().ok()).collect();
        let mut longest = 0;
        for at in 0..self.callers.len() {
            let peer = match plan.peer {
                Peer::SameServer => self.callers.get(at ^ 1).and_then(|partner| partner.relayed),
                Peer::Auto | Peer::At(_) => ends.get(at % ends.len().max(1)).copied(),
            };
            let (Some(peer), Some(caller)) = (peer, self.callers.get_mut(at)) else {
                return Err(Failure::Failed("the server gives allocations without a relay address".into()));
            };
            caller.peer = Some(peer);
            caller.head = head(caller.script.client(), plan.mode, peer, plan.size);
            longest = caller.head.len();
        }
        let is_down = plan.direction == Direction::Down && plan.peer != Peer::SameServer;
        let padded = !is_down && (plan.mode == Mode::Send || plan.transport.is_reliable());
        self.frames = Frames::new(if is_down { 0 } else { longest }, plan.size, padded);
        Ok(())
    }

    /// Ends every allocation and says how many ends were not confirmed.
    pub(super) fn release(&mut self) -> usize {
        self.stage = Stage::Tasks;
        self.renewing.clear();
        let deadline = monotonic() + RELEASE;
        let done = self.tasks(Some(deadline), |caller| caller.relayed.map(|_| Task::Release));
        let left = self.allocations();
        if done.is_err() { left.max(1) } else { left }
    }

    /// How many allocations there are.
    pub(super) fn allocations(&self) -> usize {
        self.callers.iter().filter(|caller| caller.relayed.is_some()).count()
    }

    fn everyone(&mut self, task: impl FnMut(&Caller) -> Option<Task>) -> Result<(), Failure> {
        self.tasks(None, task)
    }

    /// Has every client do its task, a window of them at a time. Ends early when the load is to end.
    fn tasks(
        &mut self,
        deadline: Option<Instant>,
        mut task: impl FnMut(&Caller) -> Option<Task>,
    ) -> Result<(), Failure> {
        let is_release = deadline.is_some();
        let (mut next, mut done, mut busy) = (0, 0, Vec::with_capacity(TASKS));
        let mut tick = monotonic();
        loop {
            let now = monotonic();
            if deadline.map_or_else(|| self.is_stopped(), |deadline| now > deadline) {
                return Ok(());
            }
            while busy.len() < TASKS && next < self.callers.len() {
                let at = next;
                next += 1;
                let Some(task) = self.callers.get(at).and_then(&mut task) else { continue };
                match self.begin(at, task, now) {
                    Ok(()) => busy.push(at as u32),
                    // The others may still be released.
                    Err(_) if is_release => {}
                    Err(failure) => return Err(failure),
                }
            }
            if busy.is_empty() {
                return Ok(());
            }
            self.turn(self.patience(now));
            for (at, verdict) in core::mem::take(&mut self.verdicts) {
                match verdict {
                    Verdict::Nobodys => continue,
                    Verdict::Again => {
                        self.say(at as usize);
                        continue;
                    }
                    Verdict::Done(..) => {}
                    // An allocation of an earlier client lives on under this port: another one is free (RFC 8656 §7.4).
                    Verdict::Refused(task, ErrorCode::ALLOCATION_MISMATCH) if self.moves(at as usize) => {
                        self.begin(at as usize, task, now)?;
                        continue;
                    }
                    // Whatever the server says to a release: there is nothing to be released any more.
                    Verdict::Refused(Task::Release, _) => self.forget(at as usize),
                    Verdict::Refused(task, code) => {
                        let (method, peer) = (task.method(), task.peer());
                        return Err(Failure::Refused(Refusal { method, code, peer, before: done }));
                    }
                }
                busy.retain(|one| *one != at);
                done += 1;
            }
            if let Some(failure) = self.broken.take()
                && !is_release
            {
                return Err(failure);
            }
            if now.since(tick) >= TICK {
                tick = now;
                self.shared.set_up(self.thread, done);
                self.look_for_silence(now, &mut busy, done, is_release)?;
            }
        }
    }

    fn look_for_silence(
        &mut self,
        now: Instant,
        busy: &mut Vec<u32>,
        done: usize,
        is_release: bool,
    ) -> Result<(), Failure> {
        for at in busy.clone() {
            let Some(caller) = self.callers.get_mut(at as usize) else { continue };
            match caller.script.wait(now) {
                Silence::Early => {}
                Silence::Again if self.plan.transport.is_reliable() => {}
                Silence::Again => self.say(at as usize),
                Silence::Final(_) if is_release => busy.retain(|one| *one != at),
                Silence::Final(task) => return Err(self.silent(task, done)),
            }
        }
        Ok(())
    }

    fn silent(&self, task: Task, done: usize) -> Failure {
        let Plan { server, transport, .. } = self.plan;
        let what = spoken(task.method());
        let transport = transport.name();
        Failure::Failed(if done == 0 {
            format!(
                "{server} does not answer {what} over {transport}: does a server run there, and do firewalls let it through?"
            )
        } else {
            format!("{server} no longer answers {what} over {transport}, after {done} clients")
        })
    }

    fn begin(&mut self, at: usize, task: Task, now: Instant) -> Result<(), Failure> {
        self.open_pipe(at)?;
        if let Some(caller) = self.callers.get_mut(at) {
            caller.script.begin(task, now);
        }
        self.say(at);
        Ok(())
    }

    /// Sends the request that a client is at.
    fn say(&mut self, at: usize) {
        let Some(Caller { pipe: Some(pipe), script, .. }) = self.callers.get_mut(at) else { return };
        let sent = pipe.send(script.request());
        self.sent(at, sent);
    }

    /// Notes what became of sending; `false` when nothing left.
    pub(super) fn sent(&mut self, at: usize, sent: io::Result<()>) -> bool {
        let is_ok = sent.is_ok();
        match sent {
            Ok(()) => self.watch(at),
            Err(error) => self.cannot(at, &error),
        }
        is_ok
    }

    /// Watches a stream for room while something waits in it.
    fn watch(&mut self, at: usize) {
        let Some(caller) = self.callers.get_mut(at) else { return };
        let Some(pipe @ Pipe::Stream(_)) = &caller.pipe else { return };
        let wants = pipe.is_waiting();
        if wants != caller.is_watched {
            let interest = if wants { Interest::ReadWrite } else { Interest::Read };
            caller.is_watched = wants;
            if let Err(error) = self.poll.modify(pipe.as_fd(), at as u64, interest) {
                self.cannot(at, &error);
            }
        }
    }

    /// What a failed call means. A full buffer passes, anything else ends the load.
    pub(super) fn cannot(&mut self, at: usize, error: &io::Error) {
        if error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(ENOBUFS) || self.broken.is_some() {
            return;
        }
        let (server, number) = (self.plan.server, self.first + at);
        let transport = self.plan.transport.name();
        let is_of = |kinds: &[io::ErrorKind]| kinds.contains(&error.kind());
        let what = if is_of(&[io::ErrorKind::ConnectionRefused]) {
            format!("nobody listens on {server} over {transport}")
        } else if is_of(&[io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe]) {
            format!("{server} closed the connection of client {number}")
        } else if error.raw_os_error() == Some(EMSGSIZE) {
            format!("--size {}: a packet is longer than the way to {server} takes", self.plan.size)
        } else if matches!(self.plan.transport, Transport::Tls(_)) {
            format!("TLS with {server}: {error}; --ca FILE names whom to believe, --insecure believes anybody")
        } else {
            format!("client {number} and {server}: {error}")
        };
        self.broken = Some(Failure::Failed(what));
    }

    /// Waits for bytes, at most that long, and gives each message to whom it is for.
    pub(super) fn turn(&mut self, timeout: Duration) {
        if let Err(error) = self.poll.wait_exactly(&mut self.events, timeout) {
            self.cannot(0, &error);
            return;
        }
        if self.events.is_empty() {
            if timeout.is_zero() {
                // On a machine with few cores the server may wait for this one.
                std::thread::yield_now();
            }
            return;
        }
        self.last_event = monotonic();
        for at in 0..self.events.len() {
            let Some(event) = self.events.get(at) else { break };
            if event.token >= PEER {
                self.peer_hears((event.token - PEER) as usize);
            } else {
                self.client_hears(event.token as usize, event.readable, event.writable);
            }
        }
    }

    /// Of how many bytes each datagram is that the last receive put into this slot together; 0 when it is one alone.
    pub(super) fn segment(&self, slot: usize) -> usize {
        if self.plan.trains { self.batch.meta(slot).map_or(0, |meta| meta.segment) } else { 0 }
    }

    /// Whether the last [`Engine::turn`] brought nothing.
    pub(super) fn is_quiet(&self) -> bool {
        self.events.is_empty()
    }

    /// How long to wait when there is nothing to send.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        if now.since(self.last_event) < SPIN { Duration::ZERO } else { NAP }
    }

    fn client_hears(&mut self, at: usize, readable: bool, writable: bool) {
        let Some(caller) = self.callers.get_mut(at) else { return };
        match &mut caller.pipe {
            Some(Pipe::Udp(socket)) => {
                let expected = caller.under_way.clamp(1, BATCH);
                let slots = self.slots.get_mut(..expected).unwrap_or_default();
                let received = receive(&mut self.batch, socket, slots, self.plan.trains);
                match received {
                    Ok(count) => {
                        let slots = core::mem::take(&mut self.slots);
                        let now = monotonic();
                        for (place, slot) in slots.iter().take(count).enumerate() {
                            let segment = self.segment(place);
                            cars(slot.data(), segment).for_each(|message| self.message(at, message, now));
                        }
                        self.slots = slots;
                    }
                    Err(error) => self.cannot(at, &error),
                }
            }
            Some(Pipe::Stream(stream)) => {
                let written = if writable { stream.is_writable() } else { Ok(()) };
                let read = written.and_then(|()| if readable { stream.read(&mut self.scratch) } else { Ok(()) });
                let clear = stream.take_clear();
                let (mut used, now) = (0, monotonic());
                let cut = loop {
                    match pipe::first(clear.get(used..).unwrap_or_default()) {
                        Ok(None) => break Ok(()),
                        Ok(Some((message, next))) => {
                            self.message(at, message, now);
                            used += next;
                        }
                        Err(error) => break Err(error),
                    }
                };
                if let Some(Caller { pipe: Some(Pipe::Stream(stream)), .. }) = self.callers.get_mut(at) {
                    stream.put_back(clear, used);
                }
                if self.sent(at, read.and(cut)) {
                    return;
                }
                // A connection that has ended would be told again and again.
                if self.broken.is_some()
                    && let Some(caller) = self.callers.get_mut(at)
                {
                    caller.pipe = None;
                    caller.relayed = None;
                }
            }
            None => {}
        }
    }

    fn message(&mut self, at: usize, bytes: &[u8], now: Instant) {
        match self.stage {
            Stage::Tasks => self.task_hears(at, bytes, now),
            Stage::Relay => self.relay_hears(at, bytes, now),
            Stage::Requests => self.request_hears(at, bytes, now),
        }
    }

    /// An answer to a task of set-up, renewal or release.
    pub(super) fn task_hears(&mut self, at: usize, bytes: &[u8], now: Instant) {
        let Some(caller) = self.callers.get_mut(at) else { return };
        let verdict = caller.script.hear(bytes, now);
        match verdict {
            Verdict::Nobodys => return,
            Verdict::Done(Task::Allocate(_), success) => {
                caller.relayed = success.relayed;
                self.renewal = self.renewal.within(success.lifetime);
            }
            Verdict::Done(Task::Release, _) => caller.relayed = None,
            Verdict::Done(..) | Verdict::Again | Verdict::Refused(..) => {}
        }
        self.verdicts.push((at as u32, verdict));
    }

    /// Gives up a client's socket, so that its next request comes from another port; `false` after a few times, and once
    /// it has an allocation.
    fn moves(&mut self, at: usize) -> bool {
        let Some(caller) = self.callers.get_mut(at) else { return false };
        if caller.relayed.is_some() || caller.moves == MOVES {
            return false;
        }
        caller.moves += 1;
        caller.pipe = None;
        true
    }

    fn forget(&mut self, at: usize) {
        if let Some(caller) = self.callers.get_mut(at) {
            caller.relayed = None;
        }
    }

    /// From now on messages mean something else.
    pub(super) fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.verdicts.clear();
        self.renewals_from = monotonic() + self.renewal.from;
    }

    /// Whether the load is to end before its time.
    pub(super) fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed) || self.broken.is_some()
    }

    /// Renews allocations, permissions and channels that grow old, a few at a time.
    pub(super) fn renew(&mut self, now: Instant) {
        for (at, verdict) in core::mem::take(&mut self.verdicts) {
            let then = match verdict {
                Verdict::Nobodys => continue,
                Verdict::Again => {
                    self.say(at as usize);
                    continue;
                }
                Verdict::Done(Task::Refresh, _) => self.callers.get(at as usize).and_then(Caller::permission),
                Verdict::Done(..) => None,
                Verdict::Refused(task, code) => {
                    let (method, peer) = (task.method(), task.peer());
                    let refusal = Refusal { method, code, peer, before: 0 };
                    self.broken.get_or_insert(Failure::Refused(refusal));
                    None
                }
            };
            match then {
                Some(task) => drop(self.begin(at as usize, task, now)),
                None => self.renewing.retain(|one| *one != at),
            }
        }
        let mut renewing = core::mem::take(&mut self.renewing);
        let silent = self.look_for_silence(now, &mut renewing, self.callers.len(), false);
        self.renewing = renewing;
        if let Err(failure) = silent {
            self.broken.get_or_insert(failure);
        }
        let clients = self.callers.len() as u128;
        let due = clients * now.since(self.renewals_from).as_nanos() / self.renewal.every.as_nanos();
        while (self.renewed as u128) < due && self.renewing.len() < TASKS {
            let at = self.renewed % self.callers.len().max(1);
            self.renewed += 1;
            self.renewing.push(at as u32);
            let _opened_already = self.begin(at, Task::Refresh, now);
        }
    }
}

impl Caller {
    /// What lets its packets pass.
    fn permission(&self) -> Option<Task> {
        let peer = self.peer?;
        Some(if self.head.len() == crate::wire::channel::HEAD {
            Task::Bind(CHANNEL.get(), peer)
        } else {
            Task::Permit(peer)
        })
    }
}

/// The datagrams of a train, or the one that is none.
pub(super) fn cars(data: &[u8], segment: usize) -> impl Iterator<Item = &[u8]> {
    data.chunks(if segment == 0 { data.len().max(1) } else { segment })
}

/// Receives what is there, at most as much as there are slots.
fn receive(batch: &mut Batch, socket: &UdpSocket, slots: &mut [Packet], trains: bool) -> io::Result<usize> {
    let received = match slots {
        // One is cheaper to ask for by itself; what it is a train of would not be told.
        [slot] if !trains => socket.recv(slot.space()).map(|len| {
            slot.set_len(len);
            1
        }),
        slots => batch.receive(socket.as_fd(), slots),
    };
    match received {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

/// Where the peers' sockets are; `None` when there are none.
pub(super) fn peer_address(plan: &Plan) -> Result<Option<IpAddr>, Failure> {
    match plan.peer {
        Peer::SameServer => Ok(None),
        Peer::At(ip) => Ok(Some(ip)),
        Peer::Auto => {
            let found = towards(plan.server).map(Some);
            found.map_err(|error| Failure::Failed(format!("{} cannot be reached: {error}", plan.server)))
        }
    }
}

/// The address of this host that packets to `server` leave from. Connecting a UDP socket sends nothing.
fn towards(server: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    Ok(socket.local_addr()?.ip())
}
