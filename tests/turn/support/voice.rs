//! Clients and peers, about to speak.

use super::*;

/// A client with its 5-tuple and what it remembers.
#[derive(Debug)]
pub(crate) struct Party {
    pub(super) name: String,
    pub(crate) client: Client,
    pub(crate) user: String,
    pub(super) password: String,
    pub(crate) path: Path,
    pub(crate) relayed: Option<SocketAddr>,
    pub(crate) token: Option<[u8; 8]>,
    pub(crate) nonce: Vec<u8>,
    /// The last MOBILITY-TICKET.
    pub(crate) ticket: Vec<u8>,
    pub(crate) relay: Option<RelayId>,
    pub(super) last: Vec<u8>,
}

/// One client, about to speak.
#[derive(Debug)]
pub(crate) struct Voice<'t> {
    pub(super) turn: &'t mut Turn,
    pub(super) at: usize,
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

    /// Says it with the last ticket of another client. If that moves the allocation, both speak for it.
    #[must_use = "a story says what it expects"]
    pub(crate) fn says_with_ticket_of(&mut self, name: &str, ask: Ask) -> Outcome {
        let other = self.turn.client(name).at;
        let ticket = self.turn.parties[other].ticket.clone();
        let outcome = self.says(ask.with(Attribute::MOBILITY_TICKET, &ticket));
        if outcome.class() == Some(Class::Success) {
            self.turn.parties[self.at].relay = self.turn.parties[other].relay;
        }
        outcome
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

    pub(crate) fn relay(&self) -> RelayId {
        self.turn.parties[self.at].relay.expect("the client has had an allocation")
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
        if let Some(ticket) = message.get(Attribute::MOBILITY_TICKET) {
            party.ticket = ticket.to_vec();
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
    pub(super) turn: &'t mut Turn,
    pub(super) from: SocketAddr,
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

    /// What was sent to it from this client's relay address meets this error.
    #[must_use = "a story says what it expects"]
    pub(crate) fn refuses(&mut self, name: &str, icmp: Icmp) -> Outcome {
        let relay = self.turn.client(name).relay();
        self.turn.packet.fill(b"what the error quotes");
        let verdict = self.turn.handles(Input::Icmp { relay, peer: self.from, icmp });
        if let Verdict::ToClient(_) = verdict {
            reads_strictly(self.turn.packet.data());
        }
        self.turn.outcome(verdict, Vec::new())
    }

    /// Connects to this client's relay address.
    #[must_use = "a story says what it expects"]
    pub(crate) fn connects_to(&mut self, name: &str) -> Outcome {
        let relay = self.turn.client(name).relay();
        self.turn.packet.clear();
        let verdict = self.turn.handles(Input::Incoming { relay, from: self.from });
        if let Verdict::ToClient(_) = verdict {
            reads_strictly(self.turn.packet.data());
        }
        self.turn.outcome(verdict, Vec::new())
    }

    fn sends_to_party(&mut self, at: usize, payload: &[u8]) -> Outcome {
        let turn = &mut *self.turn;
        let relay = turn.parties[at].relay.expect("the client has had an allocation");
        let is_open = turn.held.contains_key(&relay);
        let paths: Vec<_> =
            turn.parties.iter().filter(|party| party.relay == Some(relay)).map(|party| party.path).collect();
        turn.packet.fill(payload);
        turn.packet.marks = turn.arriving;
        let mut effects = Vec::new();
        let input = Input::Peer { relay, from: self.from };
        let verdict = turn.server.handle(turn.now, input, &mut turn.packet, &mut effects);
        assert!(effects.is_empty(), "data has no effect on the world");
        if let Verdict::ToClient(to) = verdict {
            assert!(paths.contains(&to), "data reaches the client of this relay address");
            assert!(is_open);
            let bytes = turn.packet.data();
            assert!(!to.tuple.transport.is_stream() || bytes.len().is_multiple_of(4));
            if bytes[0] < 0x40 {
                reads_strictly(bytes);
            } else if to.tuple.transport.is_stream() {
                assert!(bytes[4 + payload.len()..].iter().all(|byte| *byte == 0));
            } else {
                assert_eq!(bytes.len(), 4 + payload.len());
            }
        }
        turn.outcome(verdict, Vec::new())
    }
}
