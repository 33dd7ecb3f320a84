//! What the core asks to be done to the world: sockets made and closed, connections begun and joined, words for the log.
#![forbid(unsafe_code)]

use super::mailbox::Command;
use super::peers::Owner;
use super::sockets::{self, RelaySocket, Token};
use super::{SLOTS, Worker};
use crate::net::poll::Interest;
use crate::net::tcp;
use crate::turn::peers::Destination;
use crate::turn::refusal::Ended;
use crate::turn::tally::Transport;
use crate::turn::{Bind, BindError, Bound, Effect, Input, Path, Protocol, RelayId, Session, StreamId, Verdict};
use crate::wire::stun::Family;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _};

impl Worker {
    /// Does what the effects ask for. A socket that was wanted changes the verdict: its answer is due now.
    pub(super) fn perform(&mut self, slot: usize, mut verdict: Verdict) -> Verdict {
        let mut effects = core::mem::take(&mut self.effects);
        while !effects.is_empty() {
            for effect in effects.drain(..) {
                match effect {
                    Effect::Bind(bind) => verdict = self.bind(slot, &bind),
                    Effect::Unbind { relay, family } => {
                        self.send_outbox();
                        self.relays.remove_leg(relay, family);
                    }
                    Effect::Connect { relay, stream, peer, destination } => {
                        if !self.connect(relay, stream, peer, destination) {
                            verdict = self.ask(slot, Input::Connected { relay, stream, is_open: false });
                        }
                    }
                    Effect::Accept { relay, stream } => {
                        if let Some(accepted) = self.accepted.take() {
                            self.peers.add_held(accepted, self.owner(relay, stream), self.now.mono);
                        }
                    }
                    Effect::Join { relay, stream, path } => self.joining = Some((relay, stream, path)),
                    Effect::Close { stream, .. } => self.close_stream(stream),
                    Effect::Attached(path) => self.attach(path, true),
                    Effect::Detached(path) => self.attach(path, false),
                    Effect::Began { relay, session } => self.began(relay, &session),
                    Effect::Ended { relay, session, usage, lived, why } => {
                        self.ended(relay, &session, why);
                        let second_relay = session.second_relay.map(tracing::field::display);
                        tracing::info!(
                            allocation = %sockets::name(self.number, relay),
                            user = &*session.user,
                            client = %session.path.tuple.client,
                            relay = %session.relay,
                            second_relay,
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

    /// Does what effects ask for that answer no packet: only ends come this way.
    pub(super) fn perform_without_packet(&mut self) {
        if !self.effects.is_empty() {
            let verdict = self.perform(SLOTS, Verdict::Nothing);
            self.deliver(SLOTS, verdict, false);
        }
    }

    /// Whose a connection with a peer is that an allocation of this worker makes.
    fn owner(&self, relay: RelayId, stream: StreamId) -> Owner {
        Owner { home: self.place(), relay, stream }
    }

    fn bind(&mut self, slot: usize, bind: &Bind) -> Verdict {
        let result = self.bind_one(bind, true);
        let also = bind.also.map(|family| match result {
            Err(BindError::Quota) => Err(BindError::Quota),
            // The account counts the allocation once, whichever of its sockets there are.
            _ => self.bind_one(&Bind { family, ..bind.clone() }, result.is_err()),
        });
        self.ask(slot, Input::Bound { relay: bind.relay, result, also })
    }

    fn bind_one(&mut self, bind: &Bind, is_counted: bool) -> Result<Bound, BindError> {
        let (freebind, abilities) = (self.freebind, self.abilities);
        let open = |address, purpose| {
            let socket = RelaySocket::open(bind.protocol, address, purpose, freebind, abilities)?;
            match self.ledger.may_relay(socket.as_fd().as_raw_fd()) {
                true => Ok(socket),
                false => Err(io::Error::from_raw_os_error(libc::EMFILE)),
            }
        };
        let (claim, port, socket) = match is_counted {
            true => self.ledger.claim(self.now, &self.policy.limits, bind, self.place(), open)?,
            false => self.ledger.claim_second(self.now, bind, self.place(), open)?,
        };
        let family = Family::of(port.address.local);
        let token = Token::Relay(bind.relay, family).into();
        if self.poll.add(socket.as_fd(), token, Interest::Read).is_err() {
            self.ledger.cancel(bind.want);
            return Err(BindError::NoResources);
        }
        self.relays.insert(bind.relay, family, socket, claim);
        Ok(Bound { address: port.address, port: port.port })
    }

    /// Asks the core once more about the packet in `slot`.
    fn ask(&mut self, slot: usize, input: Input) -> Verdict {
        let Some(packet) = self.slots.get_mut(slot) else { return Verdict::Nothing };
        self.server.handle(self.now, input, packet, &mut self.effects)
    }

    /// Begins a connection with a peer. `false` when it has failed already.
    fn connect(&mut self, relay: RelayId, stream: StreamId, peer: SocketAddr, destination: Destination) -> bool {
        let Some(to) = self.reachable(peer, destination, Protocol::Tcp) else { return false };
        let attempt = || -> io::Result<TcpStream> {
            let socket = self.relays.socket(relay, Family::of(peer.ip()));
            let Some(RelaySocket::Connections(listener)) = socket else { return Err(io::ErrorKind::NotFound.into()) };
            let local = listener.local_addr()?;
            match tcp::connect(local, to, self.freebind) {
                // The peer has connected from just there: two connections cannot have the same two ends.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE)) => {
                    tcp::connect(SocketAddr::new(local.ip(), 0), to, self.freebind)
                }
                attempt => attempt,
            }
        };
        let Ok(attempt) = attempt() else { return false };
        let token = |id| Token::Peer(id).into();
        self.peers.add_attempt(&self.poll, token, attempt, self.owner(relay, stream), self.now.mono).is_ok()
    }

    /// Sends the answer in `slot` and joins a peer's connection to the client's. The client takes what comes behind the
    /// answer for the peer's, and may speak to the peer as soon as it has it: where another worker has the client's
    /// connection, answer and connection go there together.
    pub(super) fn join(&mut self, slot: usize, verdict: Verdict, (relay, stream, path): (RelayId, StreamId, Path)) {
        let (worker, _) = sockets::link_parts(path.link);
        if worker == self.place() {
            self.deliver(slot, verdict, false);
            self.join_here(self.owner(relay, stream), path);
            return;
        }
        let answer = self.slots.get(slot).map(|packet| packet.data().into()).unwrap_or_default();
        if let Some((socket, owner)) = self.peers.take(stream) {
            let _ = self.poll.remove(socket.as_fd());
            self.away.insert(stream, worker);
            self.tell(worker, Command::Join { stream: socket, owner, path, answer });
        }
    }

    /// Counts an allocation more, or less, on a path, and lets the worker that the path leads to know where it is.
    fn attach(&mut self, path: Path, attached: bool) {
        let (worker, _) = sockets::link_parts(path.link);
        if worker == self.place() {
            self.count_on_conn(path, attached);
        } else if attached {
            self.tell(worker, Command::Route { path, to: self.place() });
        } else {
            self.tell(worker, Command::Unroute { path });
        }
    }

    fn began(&mut self, relay: RelayId, session: &Session) {
        // A path may still lead here from an allocation that has just ended, and then it has to go on leading here.
        self.attach(session.path, true);
        let second_relay = session.second_relay.map(tracing::field::display);
        tracing::info!(
            allocation = %sockets::name(self.number, relay),
            user = &*session.user,
            client = %session.path.tuple.client,
            relay = %session.relay,
            second_relay,
            transport = session.path.tuple.transport.label(),
            "allocation made"
        );
    }

    fn ended(&mut self, relay: RelayId, session: &Session, why: Ended) {
        // What the relay still has to send leaves before its socket closes.
        self.send_outbox();
        if why != Ended::Disconnected {
            self.attach(session.path, false);
        }
        self.relays.remove(relay);
    }

    pub(super) fn count_on_conn(&mut self, path: Path, began: bool) {
        let (_, index) = sockets::link_parts(path.link);
        if path.tuple.transport.is_stream() {
            self.conns.count_allocation(index, &path.tuple, began, self.now.mono);
        } else if path.tuple.transport == Transport::Dtls {
            self.associations.count_allocation(index, &path.tuple, began, self.now.mono);
        }
    }
}
