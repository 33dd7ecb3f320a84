//! The server: one input goes to the right chapter, the answer is written where the question was.
//!
//! Owns the table of allocations, the wheel of deadlines and the budget of unauthenticated answers of one worker.
#![forbid(unsafe_code)]

use super::allocate::{self, Allocated};
use super::allocation::{Allocation, Swept};
use super::auth::{self, Asker, Directory};
use super::discovery::{self, Discovered};
use super::limits::Strangers;
use super::policy::Policy;
use super::refusal::{AuthFailure, Dropped, Ended, Refusal};
use super::streams::StreamId;
use super::table::{NOT_DUE, Table};
use super::tally::{Tally, Transport};
use super::ticket::TICKET_LEN;
use super::wheel::Wheel;
use super::{Effect, FiveTuple, Input, Path, RelayId, Verdict};
use crate::time::{Duration, Instant, Now};
use crate::wire::codes::{Attribute, Class, HEADER, Method};
use crate::wire::integrity::{Algorithm, Key};
use crate::wire::packet::Marks;
use crate::wire::reply::Reply;
use crate::wire::stun::{Family, Malformed, Message, TransactionId};
use crate::wire::{self, Kind, Packet};
use core::net::{IpAddr, SocketAddr};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One worker's share of the relay: every allocation whose client the kernel hashed to this worker.
#[derive(Debug)]
pub struct Server {
    pub(super) policy: Arc<Policy>,
    pub(super) tally: Arc<Tally>,
    pub(super) table: Table,
    pub(super) rng: ChaCha12Rng,
    /// Which worker this is, among how many.
    pub(super) place: Place,
    /// Whose the connections with peers are, by their ids; the allocations own them.
    pub(super) streams: BTreeMap<StreamId, RelayId>,
    directory: Directory,
    wheel: Wheel,
    strangers: Arc<Strangers>,
    /// Kept between ticks so that none allocates.
    due: Vec<u32>,
    /// Since when there is more of that than one tick ends.
    behind: Option<Instant>,
}

/// A worker among the workers of a server: ids that others must understand carry the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Counted from 0.
    pub number: u8,
    /// How many there are.
    pub count: u8,
}

/// The comprehension-required attributes this server understands; others in a request get 420 (RFC 8489 §6.3.1).
const UNDERSTOOD: &[Attribute] = &[
    Attribute::MAPPED_ADDRESS,
    Attribute::USERNAME,
    Attribute::MESSAGE_INTEGRITY,
    Attribute::ERROR_CODE,
    Attribute::UNKNOWN_ATTRIBUTES,
    Attribute::CHANNEL_NUMBER,
    Attribute::LIFETIME,
    Attribute::XOR_PEER_ADDRESS,
    Attribute::DATA,
    Attribute::REALM,
    Attribute::NONCE,
    Attribute::XOR_RELAYED_ADDRESS,
    Attribute::REQUESTED_ADDRESS_FAMILY,
    Attribute::EVEN_PORT,
    Attribute::REQUESTED_TRANSPORT,
    Attribute::DONT_FRAGMENT,
    Attribute::MESSAGE_INTEGRITY_SHA256,
    Attribute::PASSWORD_ALGORITHM,
    Attribute::USERHASH,
    Attribute::XOR_MAPPED_ADDRESS,
    Attribute::RESERVATION_TOKEN,
    Attribute::CONNECTION_ID,
];

/// The shortest TURN request that is challenged over UDP, in bytes: an Allocate with the one attribute it needs. Shorter
/// ones get 400, where RFC 8489 §9.2.4 would challenge them: a challenge of four times the question is what reflectors are
/// made of. Over a connection nobody can forge the source, and the RFC's order stands.
const MIN_CHALLENGED: usize = HEADER + 8;
/// Bytes of a challenge for ten bytes of a question over UDP, with an offer of password algorithms. Without the offer a
/// challenge is as short as it can be, and its length is the realm's affair.
const MAX_AMPLIFICATION: usize = 29;
/// Attributes named in one UNKNOWN-ATTRIBUTES at most: more would only make the answer longer.
const MAX_UNKNOWN: usize = 32;
/// SOFTWARE of authenticated answers; without a version, which would tell attackers what to try (RFC 8656 §21.1.6).
const SOFTWARE: &[u8] = b"turnserver";
/// Slots that one tick looks at, and effects after which it leaves the rest to the next one: about a millisecond of work for
/// the shell, which closes sockets and writes the log.
const LOOKS_PER_TICK: usize = 1024;
const EFFECTS_PER_TICK: usize = 32;

/// What an answer needs to know of its question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) path: Path,
    pub(super) method: Method,
    pub(super) transaction: TransactionId,
    /// Its bytes; 0 for one that was asked long ago.
    pub(super) len: usize,
    /// Whether the answer gets a FINGERPRINT, because the question had one.
    pub(super) fingerprint: bool,
}

/// A decided request.
#[derive(Debug)]
pub(super) struct Answer {
    /// What it is signed with: the asker's key, once the asker is known, and by which attribute.
    pub(super) signature: Option<(Key, Algorithm)>,
    pub(super) result: Result<Body, Refusal>,
}

/// What a success response says.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// XOR-MAPPED-ADDRESS, and what NAT behaviour discovery adds.
    Binding(Option<Discovered>),
    /// The relay address, the time left, the token.
    Allocated(Allocated),
    /// The time left, and the next ticket.
    Refreshed { left: Duration, ticket: Option<[u8; TICKET_LEN]> },
    /// CONNECTION-ID.
    Connected(StreamId),
    /// Nothing.
    Done,
}

impl Server {
    /// A server without allocations. `seed` is all the chance it will ever have.
    pub fn new(policy: Arc<Policy>, tally: Arc<Tally>, now: Now, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        Self {
            directory: Directory::new(&policy),
            place: Place { number: 0, count: 1 },
            streams: BTreeMap::new(),
            policy,
            tally,
            table: Table::new(rng.next_u64()),
            wheel: Wheel::new(now.mono),
            strangers: Arc::new(Strangers::new(rng.next_u64())),
            due: Vec::new(),
            behind: None,
            rng,
        }
    }

    /// Shares the budget of unauthenticated answers with other servers.
    #[must_use]
    pub fn with_strangers(mut self, strangers: Arc<Strangers>) -> Self {
        self.strangers = strangers;
        self
    }

    /// Makes it one worker of several.
    #[must_use]
    pub fn with_place(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// One thing happened; at most one packet leaves because of it, and it is in `packet` already.
    pub fn handle(&mut self, now: Now, input: Input, packet: &mut Packet, effects: &mut Vec<Effect>) -> Verdict {
        match input {
            Input::Client(path) => self.client_packet(now, path, packet, effects),
            Input::Peer { relay, from } => self.peer_data(now, relay, from, packet),
            Input::Icmp { relay, peer, icmp } => self.icmp(now, relay, peer, icmp, packet),
            Input::Bound { relay, result, also } => self.bound(now, relay, result, also, packet, effects),
            Input::Connected { relay, stream, is_open } => self.connected(now, relay, stream, is_open, packet),
            Input::Incoming { relay, from } => self.incoming(now, relay, from, packet, effects),
            Input::Carried { relay, to_peer, to_client, .. } => self.carried(now, relay, to_peer, to_client),
            Input::StreamClosed { relay, stream } => {
                self.stream_closed(relay, stream);
                Verdict::Nothing
            }
            Input::Closed(tuple) => {
                self.closed(now, &tuple, effects);
                Verdict::Nothing
            }
        }
    }

    /// A client's connection is gone, and its allocation with it, unless that may move to another (RFC 8016).
    fn closed(&mut self, now: Now, tuple: &FiveTuple, effects: &mut Vec<Effect>) {
        let Some(id) = self.table.find(tuple) else { return };
        let Some(allocation) = self.table.get(id) else { return };
        if allocation.is_moving_to(tuple) {
            self.table.set_next(id, None);
        } else if allocation.mobility.is_some() {
            self.table.set_adrift(id);
        } else {
            self.end(now, id, Ended::Disconnected, effects);
        }
    }

    /// Ends what is over: a part of it when that is much, so that no packet waits for all of it. What is over and has not
    /// ended yet relays no datagram either way; connections of peers (RFC 6062) carry on until their turn comes. Sends nothing.
    pub fn tick(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.due.is_empty() {
            self.wheel.advance(now.mono, &mut self.due);
        }
        for _ in 0..LOOKS_PER_TICK {
            let Some(slot) = self.due.pop() else { break };
            self.look_at(now, slot, effects);
            if effects.len() >= EFFECTS_PER_TICK {
                break;
            }
        }
        self.behind = (!self.due.is_empty()).then_some(now.mono);
    }

    /// When [`Server::tick`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        self.behind.or_else(|| self.wheel.deadline())
    }

    /// Puts other rules in force, at once: what they do not permit ends.
    pub fn set_policy(&mut self, now: Now, policy: Arc<Policy>, effects: &mut Vec<Effect>) {
        self.directory = Directory::new(&policy);
        self.policy = policy;
        let ids: Vec<RelayId> = self.table.ids().collect();
        for id in ids {
            let Some(allocation) = self.table.get_mut(id) else { continue };
            if !is_welcome(&self.policy, allocation) {
                self.end(now, id, Ended::Revoked, effects);
                continue;
            }
            let peers = &self.policy.peers;
            let swept = allocation.vet_again(peers);
            let cut = allocation.streams.take_unless(|stream| peers.vet(stream.peer).is_some());
            self.forget(swept);
            self.close_streams(id, cut, effects);
        }
    }

    /// Ends every allocation, as when the server stops.
    pub fn end_all(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let ids: Vec<RelayId> = self.table.ids().collect();
        for id in ids {
            self.end(now, id, Ended::Stopped, effects);
        }
    }

    fn client_packet(&mut self, now: Now, path: Path, packet: &mut Packet, effects: &mut Vec<Effect>) -> Verdict {
        match wire::classify(packet.data()) {
            Some(Kind::ChannelData) => self.channel_data(now, &path.tuple, packet, effects),
            Some(Kind::Stun) => self.stun(now, path, packet, effects),
            Some(Kind::Tls | Kind::Other) | None => Dropped::Noise.into(),
        }
    }

    fn stun(&mut self, now: Now, path: Path, packet: &mut Packet, effects: &mut Vec<Effect>) -> Verdict {
        let source = path.tuple.client;
        let is_datagram = path.tuple.transport == Transport::Udp;
        // A source we cannot answer, or the door of a server: answering would start a loop (RFC 8656 §21.1.7).
        if source.port() == 0 || (is_datagram && self.policy.is_door(source)) {
            return Dropped::BadSource.into();
        }
        let message = match Message::parse(packet.data()) {
            Ok(message) => message,
            Err(Malformed::Cookie) => return Dropped::ClassicStun.into(),
            Err(Malformed::Fingerprint) => return Dropped::Fingerprint.into(),
            Err(Malformed::Header | Malformed::Attribute) => return Dropped::Malformed.into(),
        };
        match (message.class, message.method) {
            (Class::Request, _) => {}
            (Class::Indication, Method::SEND) => return self.send(now, &path.tuple, packet, effects),
            (Class::Indication, Method::BINDING) => return Verdict::Nothing, // a keep-alive (RFC 8489 §12)
            (Class::Indication | Class::Success | Class::Error, _) => return Dropped::Unexpected.into(),
        }
        let question = Question {
            path,
            method: message.method,
            transaction: message.transaction,
            len: message.len(),
            fingerprint: message.has_fingerprint(),
        };
        if let Some(worker) = self.home(&message, &path.tuple) {
            return Verdict::Elsewhere(worker);
        }
        self.tally.request(message.method, path.tuple.transport);
        match self.request(now, &question, &message, effects) {
            Ok(Some(answer)) => self.write(now, &question, answer, packet),
            Ok(None) => Verdict::Nothing,
            Err(dropped) => dropped.into(),
        }
    }

    /// The worker that has what a request speaks of, when it is another than this.
    fn home(&self, message: &Message<'_>, tuple: &FiveTuple) -> Option<u8> {
        if self.place.count < 2 || self.table.find(tuple).is_some() {
            return None;
        }
        match message.method {
            Method::CONNECTION_BIND if tuple.transport.is_stream() => self.stream_home(message),
            Method::REFRESH => self.ticket_home(message),
            _ => None,
        }
    }

    /// Decides a request. `None`: the answer comes once the relay socket is there.
    fn request(
        &mut self,
        now: Now,
        question: &Question,
        message: &Message<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<Answer>, Dropped> {
        type Chapter = fn(&mut Server, Now, &Question, &Message<'_>, &Asker<'_>, &mut Vec<Effect>) -> Decided;
        let chapter: Option<Chapter> = match question.method {
            Method::BINDING => None,
            Method::ALLOCATE => Some(Self::allocate),
            Method::REFRESH => Some(Self::refresh),
            Method::CREATE_PERMISSION => Some(Self::create_permission),
            Method::CHANNEL_BIND => Some(Self::channel_bind),
            Method::CONNECT => Some(Self::connect),
            Method::CONNECTION_BIND => Some(Self::connection_bind),
            _ => return Err(Dropped::UnknownMethod),
        };
        let tuple = &question.path.tuple;
        if chapter.is_none() && self.policy.auth.anonymous_stun {
            return Ok(Some(Answer { signature: None, result: self.binding(question, message) }));
        }
        let known = self.live(now, tuple, effects).and_then(|id| self.table.get(id));
        let tuples = [tuple, self.control_tuple(message).unwrap_or(tuple)];
        let asker = match auth::authenticate(&self.policy, &self.directory, now, tuples, message, known) {
            Ok(asker) => asker,
            Err(Refusal::Unauthenticated(AuthFailure::Missing)) if is_short(message, tuple.transport) => {
                return Ok(Some(Answer { signature: None, result: Err(Refusal::BadRequest) }));
            }
            Err(refusal) => return Ok(Some(Answer { signature: None, result: Err(refusal) })),
        };
        let decided = match chapter {
            None => self.binding(question, message).map(Some),
            Some(_) if !self.understands(message, tuple) => Err(Refusal::UnknownAttributes),
            Some(chapter) => chapter(self, now, question, message, &asker, effects),
        };
        let result = match decided {
            Ok(Some(body)) => Ok(body),
            Ok(None) => return Ok(None),
            // A challenge is never signed: whoever gets one is not known, or not any more.
            Err(refusal @ Refusal::Unauthenticated(_)) => {
                return Ok(Some(Answer { signature: None, result: Err(refusal) }));
            }
            Err(refusal) => Err(refusal),
        };
        Ok(Some(Answer { signature: Some((asker.key, asker.integrity)), result }))
    }

    fn binding(&self, question: &Question, message: &Message<'_>) -> Result<Body, Refusal> {
        let tuple = &question.path.tuple;
        if !self.understands(message, tuple) {
            return Err(Refusal::UnknownAttributes);
        }
        discovery::read(&self.policy, tuple, message).map(Body::Binding)
    }

    fn understands(&self, message: &Message<'_>, tuple: &FiveTuple) -> bool {
        self.unknown(message, tuple).next().is_none()
    }

    /// The attributes that this server would have to understand and does not (RFC 8489 §6.3.1).
    fn unknown<'m>(&self, message: &Message<'m>, tuple: &FiveTuple) -> impl Iterator<Item = Attribute> + use<'m> {
        let discovery = message.method == Method::BINDING && discovery::is_on(&self.policy, tuple);
        let oauth = self.policy.auth.oauth.is_some();
        message.unknown_required(UNDERSTOOD).filter(move |attribute| {
            !(discovery && discovery::ATTRIBUTES.contains(attribute) || oauth && *attribute == Attribute::ACCESS_TOKEN)
        })
    }

    /// Where a client is sent while the server drains: the first address of its own family (RFC 8489 §10).
    pub(super) fn alternate(&self, client: IpAddr) -> Option<SocketAddr> {
        self.policy.redirect.servers.iter().copied().find(|server| server.is_ipv4() == client.is_ipv4())
    }

    /// Writes an answer into the packet.
    pub(super) fn write(&mut self, now: Now, question: &Question, answer: Answer, packet: &mut Packet) -> Verdict {
        let tuple = &question.path.tuple;
        let is_proven = answer.signature.is_some();
        let rate = self.policy.limits.unauthenticated_per_ip;
        // Whoever may have forged the source gets few answers; over a connection nobody can (RFC 8656 §21.1).
        if !is_proven
            && tuple.transport == Transport::Udp
            && !self.strangers.may_answer(now.mono, tuple.client.ip(), rate)
        {
            self.tally.limited_unauthenticated.add(1);
            return Dropped::UnauthenticatedLimit.into();
        }
        let (unknown, unknown_count) = match answer.result {
            Err(Refusal::UnknownAttributes) => self.list_unknown(packet, tuple),
            _ => ([Attribute(0); MAX_UNKNOWN], 0),
        };
        packet.marks = Marks::default();
        let mut reply = match &answer.result {
            Ok(body) => {
                self.tally.success(question.method);
                let mut reply = Reply::success(packet.space(), question.method, question.transaction);
                body.write(&mut reply, question);
                reply
            }
            Err(refusal) => {
                self.tally.refusal(question.method, *refusal);
                let (code, reason) = (refusal.code(), refusal.reason());
                let mut reply = Reply::error(packet.space(), question.method, question.transaction, code, reason);
                match refusal {
                    Refusal::Unauthenticated(_) | Refusal::StaleNonce => {
                        let auth = &self.policy.auth;
                        let is_offered = self.directory.offers_algorithms && self.has_room_for_offer(question);
                        let nonce = auth::nonce(auth, is_offered, now.mono, tuple);
                        reply.bytes(Attribute::REALM, self.policy.realm.as_bytes());
                        reply.bytes(Attribute::NONCE, &nonce);
                        if is_offered {
                            reply.bytes(Attribute::PASSWORD_ALGORITHMS, &auth::OFFER);
                        }
                        if let Some(oauth) = &auth.oauth {
                            reply.bytes(Attribute::THIRD_PARTY_AUTHORIZATION, oauth.server_name.as_bytes());
                        }
                    }
                    Refusal::TryAlternate => {
                        if let Some(server) = self.alternate(tuple.client.ip()) {
                            reply.address(Attribute::ALTERNATE_SERVER, server);
                        }
                        if let Some(domain) = &self.policy.redirect.domain {
                            reply.bytes(Attribute::ALTERNATE_DOMAIN, domain.as_bytes());
                        }
                    }
                    Refusal::UnknownAttributes => {
                        let listed = unknown.get(..unknown_count).unwrap_or_default();
                        reply.types(Attribute::UNKNOWN_ATTRIBUTES, listed);
                    }
                    Refusal::BadRequest
                    | Refusal::AllocationMismatch
                    | Refusal::WrongCredentials
                    | Refusal::PeerForbidden
                    | Refusal::FamilyNotSupported
                    | Refusal::PeerFamilyMismatch
                    | Refusal::UnsupportedTransport
                    | Refusal::QuotaReached
                    | Refusal::InsufficientCapacity
                    | Refusal::ServerError
                    | Refusal::MobilityForbidden
                    | Refusal::ConnectionExists
                    | Refusal::ConnectionFailed => {}
                }
                reply
            }
        };
        if let Some((key, algorithm)) = &answer.signature {
            if matches!(question.method, Method::ALLOCATE | Method::REFRESH) {
                reply.bytes(Attribute::SOFTWARE, SOFTWARE);
            }
            reply.sign(*algorithm, key);
        }
        if question.fingerprint {
            reply.fingerprint();
        }
        let Some(len) = reply.finish() else { return Dropped::Overflow.into() };
        packet.set_len(len);
        match answer.result {
            Ok(Body::Binding(Some(discovered))) => Verdict::ToClient(discovered.path(question.path)),
            _ => Verdict::ToClient(question.path),
        }
    }

    /// Whether a challenge may offer password algorithms and stay within [`MAX_AMPLIFICATION`]. Over a connection nobody
    /// can forge the source. A client that hears no offer logs in with MD5, as all clients before RFC 8489 do.
    fn has_room_for_offer(&self, question: &Question) -> bool {
        let fingerprint = if question.fingerprint { 8 } else { 0 };
        let challenge = auth::challenge_len(&self.policy) + fingerprint;
        question.path.tuple.transport != Transport::Udp || challenge * 10 <= question.len * MAX_AMPLIFICATION
    }

    /// The unknown attributes of the request in `packet`, read again before the answer overwrites it.
    fn list_unknown(&self, packet: &Packet, tuple: &FiveTuple) -> ([Attribute; MAX_UNKNOWN], usize) {
        let mut list = [Attribute(0); MAX_UNKNOWN];
        let mut count = 0;
        if let Ok(message) = Message::parse(packet.data()) {
            for (to, from) in list.iter_mut().zip(self.unknown(&message, tuple)) {
                *to = from;
                count += 1;
            }
        }
        (list, count)
    }

    /// The live allocation on a 5-tuple.
    pub(super) fn live(&mut self, now: Now, tuple: &FiveTuple, effects: &mut Vec<Effect>) -> Option<RelayId> {
        let id = self.table.find(tuple)?;
        self.is_live(now, id, effects).then_some(id)
    }

    /// Whether an allocation lives. What of it is over ends here, to the second: all of it, or one relay address.
    pub(super) fn is_live(&mut self, now: Now, id: RelayId, effects: &mut Vec<Effect>) -> bool {
        let Some(allocation) = self.table.get(id) else { return false };
        if !allocation.is_bound() {
            return true;
        }
        if allocation.is_over(now) {
            self.end(now, id, Ended::Expired, effects);
            return false;
        }
        let is_over = |family: &Family| allocation.has_leg(*family) && allocation.leg(*family, now).is_none();
        if let Some(family) = [Family::V4, Family::V6].into_iter().find(is_over) {
            self.end_leg(id, family, effects);
        }
        true
    }

    /// Takes one relay address of two away, with all that depends on it.
    pub(super) fn end_leg(&mut self, id: RelayId, family: Family, effects: &mut Vec<Effect>) {
        let Some(allocation) = self.table.get_mut(id) else { return };
        let swept = allocation.remove_leg(family);
        let cut = allocation.streams.take_unless(|stream| Family::of(stream.peer.ip()) != family);
        self.forget(swept);
        self.close_streams(id, cut, effects);
        effects.push(Effect::Unbind { relay: id, family });
    }

    /// Makes the wheel name this allocation when something of it is over.
    pub(super) fn schedule(&mut self, id: RelayId) {
        let Some(deadline) = self.table.get(id).map(Allocation::deadline) else { return };
        let Some(due) = self.table.due(id.index) else { return };
        if deadline.as_secs() + 1 < *due {
            *due = self.wheel.insert(id.index, deadline);
        }
    }

    /// Takes an allocation out of the world.
    pub(super) fn end(&mut self, now: Now, id: RelayId, why: Ended, effects: &mut Vec<Effect>) {
        let Some(mut allocation) = self.table.remove(id) else { return };
        self.forget(allocation.entries());
        let streams = allocation.streams.take_unless(|_| false);
        self.close_streams(id, streams, effects);
        let Some(family) = allocation.counted else { return };
        let lived = now.mono - allocation.born;
        self.tally.allocations_of(allocation.path.tuple.transport, family).sub(1);
        self.tally.ended(lived);
        if let Some((next, _)) = allocation.mobility.as_deref().and_then(|mobility| mobility.next) {
            effects.push(Effect::Detached(next));
        }
        effects.push(Effect::Ended { relay: id, session: allocation.session(), usage: allocation.usage, lived, why });
    }

    fn look_at(&mut self, now: Now, slot: u32, effects: &mut Vec<Effect>) {
        let Some(due) = self.table.due(slot) else { return };
        if *due > now.mono.as_secs() {
            return; // an entry that a sooner one has overtaken
        }
        *due = NOT_DUE;
        let Some(id) = self.table.id(slot) else { return };
        if !self.is_live(now, id, effects) {
            return;
        }
        let Some(allocation) = self.table.get_mut(id) else { return };
        let swept = allocation.sweep(now);
        let overdue = allocation.streams.take_overdue(now);
        self.forget(swept);
        self.close_streams(id, overdue, effects);
        self.schedule(id);
    }

    pub(super) fn forget(&self, swept: Swept) {
        self.tally.permissions.sub(swept.permissions);
        self.tally.channels.sub(swept.channels);
    }
}

/// What a chapter decides: a success, an answer that comes later, or a refusal.
pub(super) type Decided = Result<Option<Body>, Refusal>;

impl Body {
    fn write(&self, reply: &mut Reply<'_>, question: &Question) {
        let tuple = &question.path.tuple;
        match self {
            Self::Binding(discovered) => {
                reply.xor_address(Attribute::XOR_MAPPED_ADDRESS, tuple.client);
                if let Some(discovered) = discovered {
                    discovered.write(reply, tuple.client, question.fingerprint);
                }
            }
            Self::Allocated(allocated) => allocate::write(allocated, reply, tuple),
            Self::Refreshed { left, ticket } => {
                reply.number(Attribute::LIFETIME, whole_seconds(*left));
                if let Some(ticket) = ticket {
                    reply.bytes(Attribute::MOBILITY_TICKET, ticket);
                }
            }
            Self::Connected(stream) => {
                reply.number(Attribute::CONNECTION_ID, stream.0);
            }
            Self::Done => {}
        }
    }
}

/// A LIFETIME on the wire.
pub(super) fn whole_seconds(lifetime: Duration) -> u32 {
    u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)
}

/// Whether the running configuration still knows this user. A time-limited credential outlives the secret that made
/// it: taking an old secret away must not cut calls, which end by the credential's own expiry.
fn is_welcome(policy: &Policy, allocation: &Allocation) -> bool {
    match allocation.identity {
        super::allocation::Identity::Static => {
            let keys = policy.auth.users.get(&*allocation.user);
            keys.is_some_and(|keys| [&keys.md5, &keys.sha256].contains(&&Some(allocation.key.clone())))
        }
        super::allocation::Identity::TimeLimited { .. } | super::allocation::Identity::Token { .. } => true,
    }
}

pub(super) fn is_understood(message: &Message<'_>) -> bool {
    message.unknown_required(UNDERSTOOD).next().is_none()
}

/// Whether the request is shorter than any that deserves a challenge. A FINGERPRINT buys nothing: the answer has one, too.
/// A Binding has no attribute to be longer by.
fn is_short(message: &Message<'_>, transport: Transport) -> bool {
    let fingerprint = if message.has_fingerprint() { 8 } else { 0 };
    let is_turn = message.method != Method::BINDING;
    transport == Transport::Udp && is_turn && message.len() < MIN_CHALLENGED + fingerprint
}

impl From<AuthFailure> for Refusal {
    fn from(why: AuthFailure) -> Self {
        Self::Unauthenticated(why)
    }
}
