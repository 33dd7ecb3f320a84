//! What the core asks to be done to the world: relay sockets made and closed, words for the log.
#![forbid(unsafe_code)]

use super::sockets::{self, Token};
use super::{SLOTS, Worker};
use crate::net::poll::Interest;
use crate::net::udp;
use crate::turn::refusal::Ended;
use crate::turn::tally::Transport;
use crate::turn::{Bind, BindError, Bound, Effect, Input, Path, RelayId, Session, Verdict};
use std::os::fd::AsFd;

impl Worker {
    /// Does what the effects ask for. A socket that was wanted changes the verdict: its answer is due now.
    pub(super) fn perform(&mut self, slot: usize, mut verdict: Verdict) -> Verdict {
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

    /// Does what effects ask for that answer no packet: only ends come this way.
    pub(super) fn perform_without_packet(&mut self) {
        if !self.effects.is_empty() {
            let verdict = self.perform(SLOTS, Verdict::Nothing);
            self.deliver(SLOTS, verdict, false);
        }
    }

    pub(super) fn bind(&mut self, slot: usize, bind: &Bind) -> Verdict {
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

    pub(super) fn began(&mut self, relay: RelayId, session: &Session) {
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

    pub(super) fn ended(&mut self, relay: RelayId, session: &Session, why: Ended) {
        // What the relay still has to send leaves before its socket closes.
        self.send_outbox();
        if why != Ended::Disconnected {
            self.count_on_conn(session, false);
        }
        self.relays.remove(relay);
    }

    pub(super) fn count_on_conn(&mut self, session: &Session, began: bool) {
        let Path { tuple, link } = session.path;
        if tuple.transport.is_stream() {
            self.conns.count_allocation(link.0, &tuple, began, self.now.mono);
        } else if tuple.transport == Transport::Dtls {
            self.associations.count_allocation(link.0, &tuple, began, self.now.mono);
        }
    }
}
