//! The auditor: it knows only the law, sees every packet and effect, and says which invariant a step breaks.
//!
//! It keeps books of its own, made of what clients asked and what they were told; it never looks into a server. A
//! datagram must pass if and only if allocation, permission and rule are alive, and every answer must be the one the law
//! gives. It shares the codec with the server and nothing else.

use crate::rules::{PRIVATE, Rules};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use turnserver::time::{Duration, Instant, Now, minutes, seconds};
use turnserver::turn::refusal::{Dropped, Ended};
use turnserver::turn::tally::{Tally, Transport};
use turnserver::turn::{BindError, Effect, FiveTuple, Path, RelayId, StreamId, Usage, Verdict};
use turnserver::wire::channel::ChannelData;
use turnserver::wire::codes::{Attribute, Class, Method};
use turnserver::wire::icmp::Icmp;
use turnserver::wire::integrity::{Algorithm, Key, hmac_sha1};
use turnserver::wire::stun::{Family, Message, TransactionId, xor_address};
use turnserver::wire::{self, Kind};

/// The invariants, by their numbers in docs/threat-model.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Law {
    PermissionToPeer = 1,
    DeniedAddress,
    PermissionToClient,
    SameBytes,
    OnePortOneOwner,
    PortsAddUp,
    Quota,
    NothingOutlives,
    ExactLifetimes,
    ChannelsAreOneToOne,
    NothingBeforeProof,
    Amplification,
    NoAnswerToAnswers,
    AnswersFit,
    SameAnswerAgain,
    BoundedMemory,
    BoundedQueues,
    InIsOutAndDrops,
    Timers,
    AsNew,
    NoSecrets,
}

/// A law that was broken, and how.
#[derive(Clone, Debug)]
pub(crate) struct Breach {
    pub(crate) law: Law,
    pub(crate) what: String,
}

pub(crate) type Judged = Result<(), Breach>;

macro_rules! holds {
    ($law:ident, $fact:expr, $($what:tt)+) => {
        if !$fact {
            return Err(Breach { law: Law::$law, what: format!($($what)+) });
        }
    };
}

/// An allocation, by its worker and its id there.
pub(crate) type Id = (u8, RelayId);

/// A message of a client, and all that came of it.
#[derive(Debug)]
pub(crate) struct Heard<'a> {
    pub(crate) worker: u8,
    pub(crate) now: Now,
    pub(crate) path: Path,
    pub(crate) bytes: &'a [u8],
    pub(crate) ttl: Option<u8>,
    pub(crate) verdict: Verdict,
    pub(crate) out: &'a [u8],
    pub(crate) effects: &'a [Effect],
    pub(crate) tried: Option<Tried>,
}

/// What the shell made of a Bind: local and told address.
#[derive(Clone, Debug)]
pub(crate) struct Tried {
    pub(crate) relay: RelayId,
    pub(crate) account: String,
    pub(crate) first: Result<(SocketAddr, SocketAddr), BindError>,
    pub(crate) also: Option<Result<(SocketAddr, SocketAddr), BindError>>,
}

/// What reached a relay address, and what came of it.
#[derive(Debug)]
pub(crate) struct FromPeer<'a> {
    pub(crate) id: Id,
    pub(crate) now: Now,
    pub(crate) from: SocketAddr,
    pub(crate) bytes: &'a [u8],
    pub(crate) ttl: Option<u8>,
    pub(crate) verdict: Verdict,
    pub(crate) out: &'a [u8],
}

/// What the auditor knows of one server.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) rules: Rules,
    held: BTreeMap<Id, Held>,
    /// Answers to strangers in the last second.
    strangers: VecDeque<Instant>,
    relayed: Usage,
    drops: u64,
    /// Until when nobody could look after timers.
    asleep_until: Instant,
    /// When rules came into force that make older nonces anything.
    nonces_vary_until: Instant,
    usage_of_ended: Usage,
}

#[derive(Debug)]
struct Held {
    user: String,
    account: String,
    password: String,
    /// When the credential ends, in Unix seconds; static users have none.
    expires: Option<u64>,
    path: Path,
    is_adrift: bool,
    next: Option<(Path, TransactionId)>,
    is_mobile: bool,
    /// The ticket it moves with next; empty when there is none that opens.
    ticket: Vec<u8>,
    is_tcp: bool,
    legs: Vec<Leg>,
    permissions: BTreeMap<IpAddr, Instant>,
    channels: BTreeMap<u16, (SocketAddr, Instant)>,
    streams: BTreeMap<StreamId, Stream>,
    asked: TransactionId,
    told: Vec<SocketAddr>,
    up: Debt,
    down: Debt,
    usage: Usage,
}

#[derive(Clone, Copy, Debug)]
struct Leg {
    local: SocketAddr,
    told: SocketAddr,
    expires: Instant,
}

#[derive(Clone, Debug)]
struct Stream {
    peer: SocketAddr,
    is_ours: bool,
    connecting: Option<TransactionId>,
    waits_until: Option<Instant>,
}

/// A nonce as it was given out.
#[derive(Clone, Debug)]
struct Nonce {
    client: SocketAddr,
    at: Instant,
    lifetime: u64,
    key: String,
}

/// Every server of a world and every nonce that any of them has given out.
#[derive(Debug, Default)]
pub(crate) struct Auditor {
    pub(crate) hosts: Vec<Books>,
    nonces: BTreeMap<Vec<u8>, Vec<Nonce>>,
    /// How often each law was put to the test.
    pub(crate) tested: BTreeMap<u8, u64>,
}

/// Who a request is from.
enum Who {
    /// Nobody known; one of these codes is due.
    Nobody(Vec<u16>),
    Somebody(Somebody),
}

#[derive(Clone, Debug)]
struct Somebody {
    user: String,
    password: String,
    expires: Option<u64>,
    key: Key,
}

const REST: Duration = minutes(5);
const SUCCESS: u16 = 0;
/// The attributes of requests that a TURN server has to know (RFC 8489 §18.3, RFC 8656 §18, RFC 6062 §6.2).
const KNOWN: [u16; 22] = [
    0x01, 0x06, 0x08, 0x09, 0x0A, 0x0C, 0x0D, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x1C, 0x1D, 0x1E,
    0x20, 0x22, 0x2A,
];

impl Held {
    fn leg(&self, family: Family, now: Now) -> Option<&Leg> {
        self.legs.iter().find(|leg| Family::of(leg.told.ip()) == family && leg.expires > now.mono)
    }

    fn is_over(&self, now: Now) -> bool {
        self.legs.iter().all(|leg| leg.expires <= now.mono)
    }

    fn permits(&self, ip: IpAddr, now: Now) -> bool {
        self.permissions.get(&ip).is_some_and(|expires| *expires > now.mono)
    }

    fn channel_to(&self, peer: SocketAddr, now: Now) -> Option<u16> {
        let alive = |(_, (to, expires)): &(&u16, &(SocketAddr, Instant))| *to == peer && *expires > now.mono;
        self.channels.iter().find(alive).map(|(number, _)| *number)
    }

    /// What a family that ends takes along.
    fn loses(&mut self, family: Family) {
        self.legs.retain(|leg| Family::of(leg.told.ip()) != family);
        self.permissions.retain(|ip, _| Family::of(*ip) != family);
        self.channels.retain(|_, (peer, _)| Family::of(peer.ip()) != family);
    }

    fn is_on(&self, tuple: &FiveTuple) -> bool {
        (!self.is_adrift && self.path.tuple == *tuple) || self.next.is_some_and(|(path, _)| path.tuple == *tuple)
    }

    fn sweeps(&mut self, now: Now) {
        self.permissions.retain(|_, expires| *expires > now.mono);
        self.channels.retain(|_, (_, expires)| *expires + REST > now.mono);
    }
}

/// What one direction of a limited allocation has carried beyond its rate, as the time until it is paid.
#[derive(Clone, Copy, Debug, Default)]
struct Debt(Instant);

/// What rounding may explain.
const SLACK: Duration = Duration::from_micros(1);

impl Debt {
    fn cost(rate: u64, bytes: u64) -> Duration {
        Duration::from_nanos((u128::from(bytes) * 1_000_000_000 / u128::from(rate)) as u64)
    }

    /// Whether so many bytes may be too many: a second's worth is lent, and anything to whoever owes nothing.
    fn is_too_high(&self, now: Now, rate: u64, bytes: u64) -> bool {
        let owed = self.0.since(now.mono);
        owed + SLACK > SLACK && owed + Self::cost(rate, bytes) + SLACK > seconds(1)
    }

    /// Books so many bytes; `false` when they were too many.
    fn lends(&mut self, now: Now, rate: u64, bytes: u64) -> bool {
        let owed = self.0.since(now.mono);
        let cost = Self::cost(rate, bytes);
        self.0 = now.mono + owed + cost;
        owed <= SLACK || owed + cost <= seconds(1) + SLACK
    }
}

impl Books {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            held: BTreeMap::new(),
            strangers: VecDeque::new(),
            relayed: Usage::default(),
            drops: 0,
            asleep_until: Instant(0),
            nonces_vary_until: Instant(0),
            usage_of_ended: Usage::default(),
        }
    }

    fn on(&self, tuple: &FiveTuple, now: Now) -> Option<(&Id, &Held)> {
        self.held.iter().find(|(_, held)| held.is_on(tuple) && !held.is_over(now))
    }

    /// Whether a peer may be relayed to, as the documentation says it. `None`: some port of that host may.
    fn permits(&self, ip: IpAddr, port: Option<u16>) -> bool {
        let rules = &self.rules;
        let is_relay = rules.relays.iter().any(|relay| relay.local == ip || relay.external == ip);
        let (never, special) = match ip {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                let never = ip.is_unspecified() || ip.is_multicast();
                let private = a == 10 || (a, b) == (192, 168) || a == 127 || (a, b) == (169, 254);
                (never, private || (a == 172 && (16..32).contains(&b)) || a == 0 || a >= 240)
            }
            IpAddr::V6(ip) => {
                let hides = ip.to_ipv4_mapped().is_some() || ip.octets()[..4] == [0, 0x64, 0xff, 0x9b];
                let hides = hides || ip.octets()[..2] == [0x20, 0x02] || ip.octets()[..4] == [0x20, 1, 0, 0];
                (ip.is_unspecified() || ip.is_multicast() || hides, ip.segments()[0] & 0xe000 != 0x2000)
            }
        };
        if never || port == Some(0) {
            return false;
        }
        if is_relay && port.is_none_or(|port| rules.relay_ports.contains(&port)) {
            return true;
        }
        if rules.denied.contains(&ip) || is_relay || rules.interfaces.contains(&ip) {
            return false;
        }
        !special || (ip == PRIVATE && rules.private_allowed)
    }

    /// The law of §1 and §2 for something about to leave to `peer`.
    fn may_send(&self, held: &Held, peer: SocketAddr, now: Now) -> Judged {
        holds!(PermissionToPeer, held.leg(Family::of(peer.ip()), now).is_some(), "no live relay address for {peer}");
        holds!(PermissionToPeer, held.permits(peer.ip(), now), "no live permission for {peer}");
        holds!(DeniedAddress, self.permits(peer.ip(), Some(peer.port())), "{peer} is denied");
        Ok(())
    }
}

impl Auditor {
    fn tests(&mut self, law: Law) {
        *self.tested.entry(law as u8).or_default() += 1;
    }

    /// A client has said something.
    pub(crate) fn hears(&mut self, host: usize, heard: &Heard<'_>) -> Judged {
        if let Verdict::Dropped(_) = heard.verdict {
            self.hosts[host].drops += 1;
        }
        holds!(
            InIsOutAndDrops,
            !matches!(heard.verdict, Verdict::Elsewhere(_) | Verdict::Wait(_)),
            "{:?}",
            heard.verdict
        );
        match wire::classify(heard.bytes) {
            Some(Kind::ChannelData) => self.channel_data(host, heard),
            Some(Kind::Stun) => self.stun(host, heard),
            Some(Kind::Tls | Kind::Other) | None => self.is_ignored(host, heard, &[Dropped::Noise]),
        }
    }

    /// Nothing leaves, for one of these reasons, and nothing changes.
    fn is_ignored(&mut self, host: usize, heard: &Heard<'_>, reasons: &[Dropped]) -> Judged {
        let law = match (heard.verdict, reasons) {
            (Verdict::ToPeer { .. }, [Dropped::NoPermission]) => Law::PermissionToPeer,
            (Verdict::ToPeer { .. }, [Dropped::NoChannel | Dropped::NoAllocation]) => Law::ExactLifetimes,
            (Verdict::ToPeer { .. }, _) => Law::DeniedAddress,
            (Verdict::ToClient(_), _) => Law::NoAnswerToAnswers,
            _ => Law::InIsOutAndDrops,
        };
        self.tests(Law::NoAnswerToAnswers);
        let is_named = matches!(heard.verdict, Verdict::Dropped(why) if reasons.contains(&why));
        if !is_named {
            return Err(Breach { law, what: format!("{:?}, where {reasons:?} is due", heard.verdict) });
        }
        self.only_ends_what_is_over(host, heard.worker, heard.now, heard.effects)
    }

    fn channel_data(&mut self, host: usize, heard: &Heard<'_>) -> Judged {
        let Ok(head) = ChannelData::parse(heard.bytes) else {
            return self.is_ignored(host, heard, &[Dropped::BadChannelData]);
        };
        let books = &self.hosts[host];
        let Some((id, held)) = books.on(&heard.path.tuple, heard.now) else {
            return self.is_ignored(host, heard, &[Dropped::NoAllocation]);
        };
        let alive = held.channels.get(&head.number.get()).filter(|(_, expires)| *expires > heard.now.mono);
        let Some((peer, _)) = alive.copied() else {
            self.tests(Law::ExactLifetimes);
            return self.is_ignored(host, heard, &[Dropped::NoChannel]);
        };
        let id = *id;
        let payload = heard.bytes.get(4..4 + head.length).unwrap_or_default().to_vec();
        self.data(host, heard, id, peer, &payload)
    }

    fn send(&mut self, host: usize, heard: &Heard<'_>, message: &Message<'_>) -> Judged {
        let peer = message.xor_address(Attribute::XOR_PEER_ADDRESS);
        let (Some(Ok(peer)), Some(payload)) = (peer, message.get(Attribute::DATA)) else {
            return self.is_ignored(host, heard, &[Dropped::BadIndication]);
        };
        if has_unknown(message) {
            return self.is_ignored(host, heard, &[Dropped::BadIndication]);
        }
        let books = &self.hosts[host];
        let Some((id, held)) = books.on(&heard.path.tuple, heard.now) else {
            return self.is_ignored(host, heard, &[Dropped::NoAllocation]);
        };
        let (id, is_tcp) = (*id, held.is_tcp);
        if is_tcp {
            return self.is_ignored(host, heard, &[Dropped::BadIndication]);
        }
        self.data(host, heard, id, peer, payload)
    }

    /// Data from a client for `peer`: it passes if and only if everything it needs is alive.
    fn data(&mut self, host: usize, heard: &Heard<'_>, id: Id, peer: SocketAddr, payload: &[u8]) -> Judged {
        for law in [Law::PermissionToPeer, Law::DeniedAddress, Law::SameBytes, Law::ExactLifetimes] {
            self.tests(law);
        }
        let books = &self.hosts[host];
        let held = &books.held[&id];
        let reason = if !held.permits(peer.ip(), heard.now) {
            Some(Dropped::NoPermission)
        } else if !books.permits(peer.ip(), Some(peer.port())) {
            Some(Dropped::PeerDenied)
        } else if held.leg(Family::of(peer.ip()), heard.now).is_none() {
            Some(Dropped::NoAllocation)
        } else if heard.ttl.is_some_and(|ttl| ttl <= 1) {
            Some(Dropped::Ttl)
        } else {
            None
        };
        if let Verdict::ToPeer { relay, peer: to, .. } = heard.verdict {
            books.may_send(held, to, heard.now)?;
            holds!(PermissionToPeer, (heard.worker, relay) == id, "it leaves from another allocation");
            holds!(
                SameBytes,
                to == peer && heard.out == payload,
                "{} bytes for {peer} left as {} for {to}",
                payload.len(),
                heard.out.len()
            );
            holds!(InIsOutAndDrops, reason.is_none(), "{reason:?} is due");
        } else if let Some(reason) = reason {
            return self.is_ignored(host, heard, &[reason]);
        } else {
            let rate = books.rules.bandwidth;
            let is_spent = rate.is_some_and(|rate| held.up.is_too_high(heard.now, rate, payload.len() as u64));
            // Between two relays of one server the shell asks whether the other lives.
            let is_own = books.rules.relays.iter().any(|relay| [relay.local, relay.external].contains(&peer.ip()));
            let is_excused = match heard.verdict {
                Verdict::Dropped(Dropped::Bandwidth) => is_spent,
                Verdict::Dropped(Dropped::NoRelay) => is_own && !books.is_live(peer, heard.now),
                _ => false,
            };
            holds!(PermissionToPeer, is_excused, "everything for {peer} is alive and {:?}", heard.verdict);
            if heard.verdict == Verdict::Dropped(Dropped::Bandwidth) {
                return self.only_ends_what_is_over(host, heard.worker, heard.now, heard.effects);
            }
        }
        let bytes = payload.len() as u64;
        let books = &mut self.hosts[host];
        let rate = books.rules.bandwidth;
        let held = books.held.get_mut(&id).expect("it was there");
        if let Some(rate) = rate {
            holds!(BoundedQueues, held.up.lends(heard.now, rate, bytes), "more than {rate} bytes a second");
        }
        for usage in [&mut held.usage, &mut books.relayed] {
            usage.packets_to_peer += 1;
            usage.bytes_to_peer += bytes;
        }
        self.absorbs(host, heard, true)
    }

    fn stun(&mut self, host: usize, heard: &Heard<'_>) -> Judged {
        let source = heard.path.tuple.client;
        let is_own = heard.path.tuple.transport == Transport::Udp && self.hosts[host].rules.listeners.contains(&source);
        if source.port() == 0 || is_own {
            return self.is_ignored(host, heard, &[Dropped::BadSource]);
        }
        let Ok(message) = Message::parse(heard.bytes) else {
            let broken = [Dropped::Malformed, Dropped::ClassicStun, Dropped::Fingerprint];
            return self.is_ignored(host, heard, &broken);
        };
        match (message.class, message.method) {
            (Class::Request, _) => self.request(host, heard, &message),
            (Class::Indication, Method::SEND) => self.send(host, heard, &message),
            (Class::Indication, Method::BINDING) => {
                holds!(NoAnswerToAnswers, heard.verdict == Verdict::Nothing, "{:?} to an indication", heard.verdict);
                self.only_ends_what_is_over(host, heard.worker, heard.now, heard.effects)
            }
            (Class::Indication | Class::Success | Class::Error, _) => {
                self.is_ignored(host, heard, &[Dropped::Unexpected])
            }
        }
    }

    fn request(&mut self, host: usize, heard: &Heard<'_>, message: &Message<'_>) -> Judged {
        let methods = [0x001, 0x003, 0x004, 0x008, 0x009, 0x00A, 0x00B];
        if !methods.contains(&message.method.bits()) {
            return self.is_ignored(host, heard, &[Dropped::UnknownMethod]);
        }
        let is_free = message.method == Method::BINDING && self.hosts[host].rules.anonymous_stun;
        let who = if is_free { Who::Nobody(vec![self.binding_code(message)]) } else { self.who(host, heard, message) };
        let (due, asker) = match who {
            Who::Nobody(codes) => (codes, None),
            Who::Somebody(asker) => (self.due(host, heard, message, &asker), Some(asker)),
        };
        match heard.verdict {
            Verdict::ToClient(to) => {
                let code = self.answer(host, heard, message, to, asker.as_ref())?;
                holds!(
                    AnswersFit,
                    due.contains(&code),
                    "{} is told {code}, where {due:?} is due",
                    message.method.name()
                );
                match (asker, code) {
                    (Some(asker), SUCCESS) => self.grants(host, heard, message, &asker),
                    // The path it spoke on may be its path from here on.
                    (Some(_), _) => self.absorbs(host, heard, true),
                    (None, _) => self.only_ends_what_is_over(host, heard.worker, heard.now, heard.effects),
                }
            }
            Verdict::Nothing if message.method == Method::CONNECT && due == [SUCCESS] => {
                let asker = asker.expect("a Connect that is granted has an asker");
                self.connects(host, heard, message, &asker)
            }
            Verdict::Dropped(Dropped::UnauthenticatedLimit) => {
                let rate = self.hosts[host].rules.unauthenticated as usize;
                let recent = self.hosts[host].strangers.iter().filter(|at| heard.now.mono.since(**at) <= seconds(1));
                holds!(
                    Amplification,
                    recent.count() >= rate.min(10) && heard.path.tuple.transport == Transport::Udp,
                    "silence before the limit"
                );
                self.only_ends_what_is_over(host, heard.worker, heard.now, heard.effects)
            }
            other => Err(Breach { law: Law::AnswersFit, what: format!("{} gets {other:?}", message.method.name()) }),
        }
    }

    fn binding_code(&self, message: &Message<'_>) -> u16 {
        if has_unknown(message) { 420 } else { SUCCESS }
    }

    /// Who signed the request, by the RFC's order of checks (RFC 8489 §9.2.4).
    fn who(&self, host: usize, heard: &Heard<'_>, message: &Message<'_>) -> Who {
        let rules = &self.hosts[host].rules;
        if message.is_signed(Algorithm::Sha256) || message.get(Attribute::PASSWORD_ALGORITHM).is_some() {
            return Who::Nobody(vec![400, 401]); // no client of these worlds speaks it: damage on the way
        }
        if !message.is_signed(Algorithm::Sha1) {
            let least = if message.has_fingerprint() { 36 } else { 28 };
            let is_short = heard.bytes.len() < least && message.method != Method::BINDING;
            let is_short = is_short && heard.path.tuple.transport == Transport::Udp;
            return Who::Nobody(vec![if is_short { 400 } else { 401 }]);
        }
        let name = message.text(Attribute::USERNAME);
        let (Some(Ok(name)), Some(Ok(realm)), Some(nonce)) =
            (name, message.text(Attribute::REALM), message.get(Attribute::NONCE))
        else {
            return Who::Nobody(vec![400]);
        };
        if name.len() > 508
            || realm.len() > 763
            || nonce.len() > 763
            || message.get(Attribute::PASSWORD_ALGORITHMS).is_some()
        {
            return Who::Nobody(vec![400]);
        }
        if realm != rules.realm {
            return Who::Nobody(vec![401]);
        }
        let signed_by = |password: &str| {
            let key = Key::md5(name, realm, password);
            message.verify(Algorithm::Sha1, &key).then_some(key)
        };
        let known = self.hosts[host].on(&heard.path.tuple, heard.now).map(|(_, held)| held);
        let known = known.filter(|held| held.user == name);
        let by_known = known.and_then(|held| Some((held.password.clone(), held.expires, signed_by(&held.password)?)));
        let by_rules = || {
            if let Some(password) = rules.users.get(name) {
                return Some((password.clone(), None, signed_by(password)?));
            }
            let expires: u64 =
                name.split(':').next().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
            let passwords = rules.secrets.iter().map(|secret| time_limited(secret, name));
            let found = passwords.filter_map(|password| Some((signed_by(&password)?, password))).next()?;
            let is_good = expires > heard.now.unix.0 && expires <= heard.now.unix.0 + (24 * 60 + 5) * 60;
            is_good.then_some((found.1, Some(expires), found.0))
        };
        let Some((password, expires, key)) = by_known.or_else(by_rules) else { return Who::Nobody(vec![401]) };
        let somebody = Somebody { user: name.into(), password, expires, key };
        let mut tuples = vec![heard.path.tuple.client];
        if message.method == Method::CONNECTION_BIND {
            let id = message.bytes::<4>(Attribute::CONNECTION_ID).and_then(Result::ok).map(u32::from_be_bytes);
            let of = |held: &&Held| id.is_some_and(|id| held.streams.contains_key(&StreamId(id)));
            tuples.extend(self.hosts[host].held.values().find(of).map(|held| held.path.tuple.client));
        }
        match self.is_fresh(host, &tuples, nonce, heard.now) {
            Some(true) => Who::Somebody(somebody),
            Some(false) => Who::Nobody(vec![438]),
            // In the last step of its life a nonce may go either way: what the server said decides.
            None => match heard.verdict {
                Verdict::ToClient(_) if code_of(heard.out) == Some(438) => Who::Nobody(vec![438]),
                _ => Who::Somebody(somebody),
            },
        }
    }

    /// Whether a nonce is good: given to this address, by a server with the same key, not too long ago.
    fn is_fresh(&self, host: usize, clients: &[SocketAddr], nonce: &[u8], now: Now) -> Option<bool> {
        let books = &self.hosts[host];
        let (key, lifetime) = (&books.rules.nonce_key, books.rules.nonce_lifetime);
        let given = self.nonces.get(nonce).into_iter().flatten();
        let ours = given.filter(|given| clients.contains(&given.client) && given.key == *key);
        let Some(latest) = ours.max_by_key(|given| given.at) else { return Some(false) };
        let step = lifetime.div_ceil(60).max(1);
        let age = now.mono.since(latest.at);
        if latest.lifetime != lifetime || now.mono <= books.nonces_vary_until {
            return None;
        }
        match age.as_secs() {
            age if age > lifetime => Some(false),
            age if age + step + 1 < lifetime => Some(true),
            _ => None,
        }
    }

    /// Reads an answer strictly; its code, 0 for success.
    fn answer(
        &mut self,
        host: usize,
        heard: &Heard<'_>,
        asked: &Message<'_>,
        to: Path,
        asker: Option<&Somebody>,
    ) -> Result<u16, Breach> {
        self.tests(Law::AnswersFit);
        holds!(AnswersFit, to == heard.path, "the answer goes to {to:?}");
        let Ok(answer) = Message::parse(heard.out) else {
            return Err(Breach { law: Law::AnswersFit, what: "an answer that cannot be read".into() });
        };
        holds!(
            AnswersFit,
            (answer.method, answer.transaction) == (asked.method, asked.transaction),
            "an answer to something else"
        );
        holds!(AnswersFit, matches!(answer.class, Class::Success | Class::Error), "{:?} as an answer", answer.class);
        holds!(
            AnswersFit,
            answer.has_fingerprint() == asked.has_fingerprint(),
            "FINGERPRINT comes unasked, or not at all"
        );
        is_padded_with_zeros(heard.out)?;
        self.keeps_secrets(host, heard.out)?;
        let code = code_of(heard.out).unwrap_or(SUCCESS);
        let is_challenge = matches!(code, 401 | 438);
        if let Some(asker) = asker.filter(|_| !is_challenge) {
            holds!(
                AnswersFit,
                answer.verify(Algorithm::Sha1, &asker.key),
                "an answer that the asker's key did not sign"
            );
            return Ok(code);
        }
        let is_signed = answer.is_signed(Algorithm::Sha1) || answer.is_signed(Algorithm::Sha256);
        holds!(AnswersFit, !is_signed, "an answer to nobody, signed");
        let now = heard.now;
        if let Some(nonce) = answer.get(Attribute::NONCE) {
            let rules = &self.hosts[host].rules;
            let (lifetime, key) = (rules.nonce_lifetime, rules.nonce_key.clone());
            let given = Nonce { client: heard.path.tuple.client, at: now.mono, lifetime, key };
            let old = self.nonces.entry(nonce.to_vec()).or_default();
            let is_shared = old.iter().any(|old| old.client != given.client);
            holds!(NothingBeforeProof, !is_shared, "two addresses get the same nonce");
            old.push(given);
        }
        holds!(
            AnswersFit,
            is_challenge == answer.get(Attribute::NONCE).is_some(),
            "a challenge without NONCE, or the reverse"
        );
        if heard.path.tuple.transport == Transport::Udp && asker.is_none() {
            self.tests(Law::Amplification);
            // XOR-MAPPED-ADDRESS of IPv6 makes a Binding answer of 44 bytes out of 20.
            let tenths = match (asked.method, heard.path.tuple.client.is_ipv4()) {
                (Method::BINDING, true) if code == SUCCESS => 16,
                (Method::BINDING, false) if code == SUCCESS => 22,
                _ => 29,
            };
            // A Binding of 20 bytes that needs a credential has no shorter challenge.
            let is_bare = asked.method == Method::BINDING && is_challenge;
            let within = heard.out.len() * 10 <= heard.bytes.len() * tenths;
            holds!(Amplification, within || is_bare, "{} bytes for {}", heard.out.len(), heard.bytes.len());
            let strangers = &mut self.hosts[host].strangers;
            strangers.push_back(now.mono);
            while strangers.front().is_some_and(|at| now.mono.since(*at) > seconds(2)) {
                strangers.pop_front();
            }
        }
        Ok(code)
    }

    /// The codes one of which the law gives a known asker; 0 is success.
    fn due(&self, host: usize, heard: &Heard<'_>, message: &Message<'_>, asker: &Somebody) -> Vec<u16> {
        let books = &self.hosts[host];
        if has_unknown(message) {
            return vec![420];
        }
        let now = heard.now;
        let tuple = &heard.path.tuple;
        let here = books.on(tuple, now);
        let is_over = asker.expires.is_some_and(|expires| expires <= now.unix.0);
        match message.method {
            Method::BINDING => vec![SUCCESS],
            Method::ALLOCATE => books.allocate_due(heard, message, asker, here.map(|(_, held)| held), is_over),
            Method::REFRESH => books.refresh_due(heard, message, asker, here, is_over),
            Method::CONNECTION_BIND => books.connection_bind_due(heard, message, asker, here.is_some()),
            _ => {
                let Some((_, held)) = here else { return vec![437] };
                if held.user != asker.user {
                    return vec![441];
                }
                match message.method {
                    Method::CREATE_PERMISSION => books.permission_due(held, message, now),
                    Method::CHANNEL_BIND => books.channel_due(held, message, now),
                    _ => books.connect_due(held, message, now),
                }
            }
        }
    }

    /// A request was granted: the books say so from here on.
    fn grants(&mut self, host: usize, heard: &Heard<'_>, message: &Message<'_>, asker: &Somebody) -> Judged {
        let now = heard.now;
        let answer = Message::parse(heard.out).expect("it was read before");
        let told = |attribute| answer.bytes::<4>(attribute).and_then(Result::ok).map(u32::from_be_bytes);
        let lifetime = self.hosts[host].lifetime(message, asker, now);
        match message.method {
            Method::ALLOCATE => {
                self.allocates(host, heard, message, asker, &answer, lifetime)?;
                return self.absorbs(host, heard, true);
            }
            Method::REFRESH => {
                return self.refreshes(host, heard, message, asker, &answer, told(Attribute::LIFETIME), lifetime);
            }
            _ => {}
        }
        self.absorbs(host, heard, true)?;
        let books = &mut self.hosts[host];
        let mut tested = None;
        let on = books.held.iter_mut().find(|(_, held)| held.is_on(&heard.path.tuple)).map(|(_, held)| held);
        match (message.method, on) {
            (Method::CREATE_PERMISSION, Some(held)) => {
                for peer in peers(message).flatten() {
                    held.permissions.insert(peer.ip(), now.mono + minutes(5));
                }
                holds!(
                    BoundedMemory,
                    held.permissions.len() <= books.rules.permissions + swept_later(&held.permissions, now),
                    "{} permissions",
                    held.permissions.len()
                );
                tested = Some(Law::BoundedMemory);
            }
            (Method::CHANNEL_BIND, Some(held)) => {
                let number = message.bytes::<4>(Attribute::CHANNEL_NUMBER).and_then(Result::ok).unwrap_or_default();
                let number = u16::from_be_bytes([number[0], number[1]]);
                let peer =
                    message.xor_address(Attribute::XOR_PEER_ADDRESS).and_then(Result::ok).expect("it was granted");
                held.sweeps(now);
                let clashes = held.channels.iter().any(|(other, (to, _))| (*other == number) != (*to == peer));
                holds!(ChannelsAreOneToOne, !clashes, "channel {number:#06x} and {peer} mean something else already");
                let is_new = held.channels.insert(number, (peer, now.mono + minutes(10))).is_none();
                held.permissions.insert(peer.ip(), now.mono + minutes(5));
                let is_within = !is_new || held.channels.len() <= books.rules.channels;
                holds!(BoundedMemory, is_within, "{} channels", held.channels.len());
                tested = Some(Law::ChannelsAreOneToOne);
            }
            (Method::BINDING, _) | (Method::CONNECTION_BIND, _) => {}
            (method, _) => {
                return Err(Breach { law: Law::AnswersFit, what: format!("{} succeeds for nobody", method.name()) });
            }
        }
        if let Some(law) = tested {
            self.tests(law);
        }
        Ok(())
    }

    fn allocates(
        &mut self,
        host: usize,
        heard: &Heard<'_>,
        message: &Message<'_>,
        asker: &Somebody,
        answer: &Message<'_>,
        lifetime: u64,
    ) -> Judged {
        let now = heard.now;
        let told: Vec<SocketAddr> = addresses(answer, Attribute::XOR_RELAYED_ADDRESS);
        let left = answer.bytes::<4>(Attribute::LIFETIME).and_then(Result::ok).map(u32::from_be_bytes).map(u64::from);
        let mapped = answer.xor_address(Attribute::XOR_MAPPED_ADDRESS).and_then(Result::ok);
        holds!(AnswersFit, mapped == Some(heard.path.tuple.client), "XOR-MAPPED-ADDRESS {mapped:?}");
        let Some(tried) = &heard.tried else {
            self.tests(Law::SameAnswerAgain);
            let (_, held) = self.hosts[host].on(&heard.path.tuple, now).expect("the law found it");
            holds!(SameAnswerAgain, told == held.told, "{told:?} for what was {:?}", held.told);
            let end = held.legs.iter().map(|leg| leg.expires).max().unwrap_or(now.mono);
            holds!(SameAnswerAgain, left == Some(end.since(now.mono).as_secs()), "{left:?} s left");
            return Ok(());
        };
        holds!(ExactLifetimes, left == Some(lifetime), "a lifetime of {left:?}, where {lifetime} is due");
        let id = (heard.worker, tried.relay);
        let legs: Vec<Leg> = [Some(&tried.first), tried.also.as_ref()]
            .into_iter()
            .flatten()
            .flatten()
            .map(|(local, told)| Leg { local: *local, told: *told, expires: now.mono + seconds(lifetime) })
            .collect();
        let mut shown: Vec<SocketAddr> = legs.iter().map(|leg| leg.told).collect();
        shown.sort_by_key(|told| told.is_ipv6());
        holds!(AnswersFit, told == shown, "{told:?} shown of {shown:?}");
        for law in [Law::OnePortOneOwner, Law::Quota] {
            self.tests(law);
        }
        let books = &mut self.hosts[host];
        let is_tcp = message.get(Attribute::REQUESTED_TRANSPORT).is_some_and(|value| value.first() == Some(&6));
        for leg in &legs {
            let owner = |held: &&Held| held.legs.iter().any(|other| other.local == leg.local);
            holds!(OnePortOneOwner, !books.held.values().any(|held| owner(&held)), "{} has an owner", leg.local);
            holds!(OnePortOneOwner, books.rules.relay_ports.contains(&leg.told.port()), "{} is out of range", leg.told);
        }
        if let Some([bits]) = message.bytes::<1>(Attribute::EVEN_PORT).and_then(Result::ok) {
            let is_even = legs.iter().all(|leg| leg.told.port() % 2 == 0);
            holds!(AnswersFit, is_even, "EVEN-PORT makes {told:?}");
            let reserved = answer.get(Attribute::RESERVATION_TOKEN).is_some();
            holds!(AnswersFit, reserved == (bits & 0x80 != 0), "RESERVATION-TOKEN: {reserved}");
        }
        let of_account = books.held.values().filter(|held| held.account == tried.account && !held.is_over(now)).count();
        let is_within = |limit: u32, count: usize| limit == 0 || count < limit as usize;
        holds!(
            Quota,
            is_within(books.rules.allocations_per_user, of_account),
            "{} has {of_account} already",
            tried.account
        );
        let of_all = books.held.values().filter(|held| !held.is_over(now)).count();
        holds!(Quota, is_within(books.rules.allocations, of_all), "{of_all} on the server already");
        let has_begun =
            heard.effects.iter().any(|effect| matches!(effect, Effect::Began { relay, .. } if *relay == tried.relay));
        holds!(AnswersFit, has_begun, "an allocation that nobody hears of");
        let ticket = answer.get(Attribute::MOBILITY_TICKET).unwrap_or_default().to_vec();
        let wanted = message.get(Attribute::MOBILITY_TICKET).is_some();
        holds!(AnswersFit, wanted != ticket.is_empty(), "a ticket nobody asked for, or none");
        let held = Held {
            user: asker.user.clone(),
            account: tried.account.clone(),
            password: asker.password.clone(),
            expires: asker.expires,
            path: heard.path,
            is_adrift: false,
            next: None,
            is_mobile: !ticket.is_empty(),
            ticket,
            is_tcp,
            legs,
            permissions: BTreeMap::new(),
            channels: BTreeMap::new(),
            streams: BTreeMap::new(),
            asked: message.transaction,
            told,
            up: Debt::default(),
            down: Debt::default(),
            usage: Usage::default(),
        };
        let others = books.held.values().filter(|held| held.is_on(&heard.path.tuple) && !held.is_over(now)).count();
        holds!(OnePortOneOwner, others == 0, "{:?} leads to two allocations", heard.path.tuple);
        books.held.insert(id, held);
        Ok(())
    }

    fn refreshes(
        &mut self,
        host: usize,
        heard: &Heard<'_>,
        message: &Message<'_>,
        asker: &Somebody,
        answer: &Message<'_>,
        told: Option<u32>,
        lifetime: u64,
    ) -> Judged {
        let (now, tuple) = (heard.now, heard.path.tuple);
        let books = &mut self.hosts[host];
        let is_release = message.bytes::<4>(Attribute::LIFETIME).and_then(Result::ok) == Some([0; 4]);
        let family = message.bytes::<4>(Attribute::REQUESTED_ADDRESS_FAMILY).and_then(Result::ok);
        let family = family.and_then(|[number, ..]| Family::from_number(number));
        let ticket = message.get(Attribute::MOBILITY_TICKET);
        let on_own = |held: &Held| !held.is_adrift && held.path.tuple == tuple;
        let is_mover =
            |held: &Held| ticket.is_some_and(|ticket| is_ticket_of(held, ticket, heard.path, message.transaction));
        let found = books.held.iter().find(|(_, held)| !held.is_over(now) && on_own(held));
        let found = found.or_else(|| books.held.iter().find(|(_, held)| !held.is_over(now) && is_mover(held)));
        let found = found.or_else(|| books.held.iter().find(|(_, held)| !held.is_over(now) && held.is_on(&tuple)));
        let Some((id, _)) = found else {
            return Err(Breach { law: Law::AnswersFit, what: "a Refresh of nothing succeeds".into() });
        };
        let id = *id;
        let due = if is_release { 0 } else { lifetime };
        holds!(ExactLifetimes, told.map(u64::from) == Some(due), "a lifetime of {told:?}, where {due} is due");
        if is_release {
            let ends: BTreeSet<RelayId> = heard.effects.iter().filter_map(ended).collect();
            let held = &books.held[&id];
            let is_half = family.is_some() && held.legs.iter().filter(|leg| leg.expires > now.mono).count() > 1;
            let unbound = |effect: &Effect| matches!(effect, Effect::Unbind { relay, family: of } if *relay == id.1 && Some(*of) == family);
            let is_done = if is_half { heard.effects.iter().any(unbound) } else { ends.contains(&id.1) };
            holds!(AnswersFit, is_done, "released, and it lives on");
            return self.absorbs(host, heard, true);
        }
        let held = books.held.get_mut(&id).expect("it was found");
        let is_meant = |leg: &&mut Leg| family.is_none_or(|family| Family::of(leg.told.ip()) == family);
        held.legs
            .iter_mut()
            .filter(|leg| leg.expires > now.mono)
            .filter(is_meant)
            .for_each(|leg| leg.expires = now.mono + seconds(lifetime));
        (held.password, held.expires) = (asker.password.clone(), asker.expires);
        let is_move = !on_own(held) && is_mover(held);
        if is_move {
            held.next = Some((heard.path, message.transaction));
        }
        if let Some(next) = answer.get(Attribute::MOBILITY_TICKET) {
            held.ticket = next.to_vec();
        }
        if is_move {
            self.only_ends_what_is_over(host, heard.worker, now, heard.effects)
        } else {
            self.absorbs(host, heard, true)
        }
    }

    fn connects(&mut self, host: usize, heard: &Heard<'_>, message: &Message<'_>, asker: &Somebody) -> Judged {
        self.tests(Law::DeniedAddress);
        let peer = message.xor_address(Attribute::XOR_PEER_ADDRESS).and_then(Result::ok).expect("the law has read it");
        let wanted = heard.effects.iter().find_map(|effect| match effect {
            Effect::Connect { relay, stream, peer, .. } => Some((*relay, *stream, *peer)),
            _ => None,
        });
        let Some((relay, stream, to)) = wanted else {
            return Err(Breach { law: Law::AnswersFit, what: "a Connect that nobody makes".into() });
        };
        let _ = asker;
        self.absorbs(host, heard, true)?;
        let books = &mut self.hosts[host];
        holds!(DeniedAddress, to == peer && books.permits(to.ip(), Some(to.port())), "a connection to {to}");
        let held = books.held.get_mut(&(heard.worker, relay));
        let Some(held) = held else { return Err(Breach { law: Law::AnswersFit, what: "a Connect for nobody".into() }) };
        held.streams
            .insert(stream, Stream { peer, is_ours: true, connecting: Some(message.transaction), waits_until: None });
        Ok(())
    }

    /// The shell has tried to connect.
    pub(crate) fn connected(
        &mut self,
        host: usize,
        id: Id,
        stream: StreamId,
        is_open: bool,
        now: Now,
        verdict: Verdict,
        out: &[u8],
    ) -> Judged {
        let books = &mut self.hosts[host];
        let Some(held) = books.held.get_mut(&id) else {
            holds!(
                NoAnswerToAnswers,
                !matches!(verdict, Verdict::ToClient(_)),
                "an answer for an allocation that is gone"
            );
            return Ok(());
        };
        let known = held.streams.get_mut(&stream).filter(|known| known.connecting.is_some());
        let Some(known) = known else {
            holds!(
                NoAnswerToAnswers,
                verdict == Verdict::Nothing,
                "{verdict:?} about a connection that nobody waits for"
            );
            return Ok(());
        };
        let asked = known.connecting.take().expect("it is connecting");
        known.waits_until = Some(now.mono + seconds(30));
        let Verdict::ToClient(to) = verdict else {
            return Err(Breach { law: Law::AnswersFit, what: format!("a Connect gets {verdict:?}") });
        };
        holds!(AnswersFit, to == held.path, "a Connect is answered elsewhere");
        let answer = Message::parse(out).map_err(|_| Breach { law: Law::AnswersFit, what: "unreadable".into() })?;
        holds!(AnswersFit, answer.transaction == asked, "an answer to another Connect");
        let told = answer.bytes::<4>(Attribute::CONNECTION_ID).and_then(Result::ok).map(u32::from_be_bytes);
        if is_open {
            holds!(AnswersFit, told == Some(stream.0) && answer.class == Class::Success, "{told:?} for {stream:?}");
        } else {
            holds!(AnswersFit, code_of(out) == Some(447), "{:?} for a failure", code_of(out));
            held.streams.remove(&stream);
        }
        is_padded_with_zeros(out)
    }

    /// A peer has connected.
    pub(crate) fn comes(&mut self, host: usize, from_peer: &FromPeer<'_>, effects: &[Effect]) -> Judged {
        self.tests(Law::PermissionToClient);
        let now = from_peer.now;
        let books = &mut self.hosts[host];
        if let Verdict::Dropped(_) = from_peer.verdict {
            books.drops += 1;
        }
        let ip = from_peer.from.ip();
        let held = books.held.get_mut(&from_peer.id).filter(|held| held.leg(Family::of(ip), now).is_some());
        let Some(held) = held.filter(|held| held.permits(ip, now)) else {
            holds!(
                PermissionToClient,
                matches!(from_peer.verdict, Verdict::Dropped(_)) && effects.is_empty(),
                "a stranger's connection is taken"
            );
            return Ok(());
        };
        let pending =
            held.streams.values().filter(|held| held.connecting.is_some() || held.waits_until.is_some()).count();
        if from_peer.verdict == Verdict::Dropped(Dropped::Overflow) {
            holds!(BoundedQueues, pending >= 16, "turned away with {pending} pending");
            return Ok(());
        }
        let accepted = effects.iter().find_map(|effect| match effect {
            Effect::Accept { stream, .. } => Some(*stream),
            _ => None,
        });
        let Some(stream) = accepted else {
            return Err(Breach {
                law: Law::PermissionToClient,
                what: "a permitted peer's connection is turned away".into(),
            });
        };
        holds!(BoundedQueues, pending < 16, "one more than 16 pending");
        holds!(
            AnswersFit,
            from_peer.verdict == Verdict::ToClient(held.path),
            "the client is told elsewhere: {:?}",
            from_peer.verdict
        );
        let attempt =
            Message::parse(from_peer.out).map_err(|_| Breach { law: Law::AnswersFit, what: "unreadable".into() })?;
        let told = attempt.xor_address(Attribute::XOR_PEER_ADDRESS).and_then(Result::ok);
        holds!(
            AnswersFit,
            (attempt.class, attempt.method, told)
                == (Class::Indication, Method::CONNECTION_ATTEMPT, Some(from_peer.from)),
            "{told:?}"
        );
        let waits = Stream {
            peer: from_peer.from,
            is_ours: false,
            connecting: None,
            waits_until: Some(now.mono + seconds(30)),
        };
        held.streams.insert(stream, waits);
        is_padded_with_zeros(from_peer.out)
    }

    /// A connection with a peer is over, or carries bytes.
    pub(crate) fn stream_closed(&mut self, host: usize, id: Id, stream: StreamId) {
        if let Some(held) = self.hosts[host].held.get_mut(&id) {
            held.streams.remove(&stream);
        }
    }

    pub(crate) fn carries(&mut self, host: usize, id: Id, to_peer: u64, to_client: u64) {
        let books = &mut self.hosts[host];
        let Some(held) = books.held.get_mut(&id) else { return };
        for usage in [&mut held.usage, &mut books.relayed] {
            usage.bytes_to_peer += to_peer;
            usage.bytes_to_client += to_client;
        }
    }

    /// A datagram from a peer: it passes if and only if the peer has a permission.
    pub(crate) fn peer_says(&mut self, host: usize, said: &FromPeer<'_>) -> Judged {
        for law in [Law::PermissionToClient, Law::SameBytes, Law::ExactLifetimes] {
            self.tests(law);
        }
        self.keeps_secrets(host, said.out)?;
        let (now, ip) = (said.now, said.from.ip());
        let books = &mut self.hosts[host];
        let rate = books.rules.bandwidth;
        let held = books.held.get_mut(&said.id);
        let held = held.filter(|held| held.leg(Family::of(ip), now).is_some() && !held.is_tcp);
        let Some(held) = held else {
            books.drops += 1;
            holds!(
                PermissionToClient,
                matches!(said.verdict, Verdict::Dropped(Dropped::NoAllocation | Dropped::NoPermission)),
                "{:?} for nobody",
                said.verdict
            );
            return Ok(());
        };
        let bytes = said.bytes.len() as u64;
        if let Verdict::Dropped(why) = said.verdict {
            books.drops += 1;
            let is_due = match why {
                Dropped::NoPermission => !held.permits(ip, now),
                Dropped::Ttl => said.ttl.is_some_and(|ttl| ttl <= 1),
                Dropped::Bandwidth => rate.is_some_and(|rate| held.down.is_too_high(now, rate, bytes)),
                Dropped::TooLarge => bytes > 65_400,
                _ => false,
            };
            holds!(PermissionToClient, is_due, "everything for {} is alive and {why:?}", said.from);
            return Ok(());
        }
        holds!(PermissionToClient, held.permits(ip, now), "no live permission for {}", said.from);
        holds!(PermissionToClient, said.verdict == Verdict::ToClient(held.path), "{:?}", said.verdict);
        holds!(InIsOutAndDrops, said.ttl.is_none_or(|ttl| ttl > 1), "its last hop was over");
        if let Some(rate) = rate {
            holds!(BoundedQueues, held.down.lends(now, rate, bytes), "more than {rate} bytes a second");
        }
        let is_stream = held.path.tuple.transport.is_stream();
        match held.channel_to(said.from, now) {
            Some(number) => {
                let mut framed = [number.to_be_bytes(), (said.bytes.len() as u16).to_be_bytes()].concat();
                framed.extend(said.bytes);
                if is_stream {
                    framed.resize(framed.len().next_multiple_of(4), 0);
                }
                holds!(
                    SameBytes,
                    framed == said.out,
                    "not the ChannelData of {} bytes on {number:#06x}",
                    said.bytes.len()
                );
            }
            None => {
                let Ok(message) = Message::parse(said.out) else {
                    return Err(Breach { law: Law::SameBytes, what: "neither channel nor Data indication".into() });
                };
                let peer = message.xor_address(Attribute::XOR_PEER_ADDRESS).and_then(Result::ok);
                let is_data = (message.class, message.method) == (Class::Indication, Method::DATA);
                holds!(SameBytes, is_data && peer == Some(said.from), "a Data indication of {peer:?}");
                holds!(SameBytes, message.get(Attribute::DATA) == Some(said.bytes), "DATA is not what came");
                is_padded_with_zeros(said.out)?;
            }
        }
        for usage in [&mut held.usage, &mut books.relayed] {
            usage.packets_to_client += 1;
            usage.bytes_to_client += bytes;
        }
        Ok(())
    }

    /// An ICMP error about what a relay address has sent.
    pub(crate) fn icmp(&mut self, host: usize, said: &FromPeer<'_>, icmp: Icmp) -> Judged {
        let now = said.now;
        let books = &mut self.hosts[host];
        let is_told = match icmp.family {
            Family::V4 => matches!(icmp.kind, 3 | 11),
            Family::V6 => matches!(icmp.kind, 1..=3),
        };
        let held = books.held.get(&said.id).filter(|held| held.leg(icmp.family, now).is_some());
        let held = held.filter(|held| held.permits(said.from.ip(), now) && is_told);
        let Some(held) = held else {
            books.drops += 1;
            holds!(
                PermissionToClient,
                matches!(said.verdict, Verdict::Dropped(_)),
                "{:?} about {}",
                said.verdict,
                said.from
            );
            return Ok(());
        };
        holds!(PermissionToClient, said.verdict == Verdict::ToClient(held.path), "{:?}", said.verdict);
        let message =
            Message::parse(said.out).map_err(|_| Breach { law: Law::SameBytes, what: "unreadable".into() })?;
        let peer = message.xor_address(Attribute::XOR_PEER_ADDRESS).and_then(Result::ok);
        holds!(
            SameBytes,
            peer == Some(said.from) && message.get(Attribute::DATA).is_none(),
            "an ICMP error of {peer:?}"
        );
        holds!(SameBytes, message.get(Attribute::ICMP).is_some_and(|value| value.len() == 8), "without ICMP");
        is_padded_with_zeros(said.out)
    }

    /// A client's connection has closed.
    pub(crate) fn closes(
        &mut self,
        host: usize,
        worker: u8,
        tuple: &FiveTuple,
        now: Now,
        effects: &[Effect],
    ) -> Judged {
        let books = &mut self.hosts[host];
        let mut ends = None;
        for (id, held) in books.held.iter_mut().filter(|(_, held)| held.is_on(tuple)) {
            if held.next.is_some_and(|(path, _)| path.tuple == *tuple) {
                held.next = None;
            } else if !held.is_mobile {
                ends = Some(*id);
            } else {
                held.is_adrift = true;
            }
        }
        if let Some(id) = ends {
            let has_ended = effects.iter().any(|effect| ended(effect) == Some(id.1));
            holds!(NothingOutlives, has_ended, "its connection closed, and it lives on");
            holds!(NothingOutlives, id.0 == worker, "the wrong worker is told");
        }
        self.ends(host, worker, now, effects, &|why| why == Ended::Disconnected)
    }

    /// Other rules are in force.
    pub(crate) fn reloads(&mut self, host: usize, rules: Rules, now: Now) {
        let books = &mut self.hosts[host];
        if rules.nonce_key != books.rules.nonce_key {
            // Tickets are sealed with that key.
            books.held.values_mut().for_each(|held| held.ticket.clear());
        }
        if rules.nonce_lifetime != books.rules.nonce_lifetime || rules.nonce_key != books.rules.nonce_key {
            books.nonces_vary_until = now.mono;
        }
        books.rules = rules;
    }

    /// What a worker says that has learnt of other rules.
    pub(crate) fn has_reloaded(&mut self, host: usize, worker: u8, now: Now, effects: &[Effect]) -> Judged {
        for law in [Law::DeniedAddress, Law::NothingOutlives] {
            self.tests(law);
        }
        let books = &mut self.hosts[host];
        let gone: BTreeSet<RelayId> = effects.iter().filter_map(ended).collect();
        for (id, held) in books.held.iter().filter(|(id, _)| id.0 == worker) {
            let is_welcome = held.expires.is_some() || books.rules.users.get(&held.user) == Some(&held.password);
            holds!(
                NothingOutlives,
                gone.contains(&id.1) != is_welcome,
                "{} and its allocation: {is_welcome}",
                held.user
            );
        }
        let permitted: Vec<(Id, BTreeSet<IpAddr>, BTreeSet<u16>)> = books
            .held
            .iter()
            .map(|(id, held)| {
                let ips = held.permissions.keys().copied().filter(|ip| books.permits(*ip, None)).collect();
                let alive =
                    |(_, (peer, _)): &(&u16, &(SocketAddr, Instant))| books.permits(peer.ip(), Some(peer.port()));
                (*id, ips, held.channels.iter().filter(alive).map(|(number, _)| *number).collect())
            })
            .collect();
        for (id, ips, numbers) in permitted.into_iter().filter(|(id, ..)| id.0 == worker) {
            let held = books.held.get_mut(&id).expect("it is listed");
            held.permissions.retain(|ip, _| ips.contains(ip));
            held.channels.retain(|number, _| numbers.contains(number));
        }
        self.ends(host, worker, now, effects, &|why| why == Ended::Revoked)
    }

    /// A tick: it ends what is over and does nothing else.
    pub(crate) fn ticks(
        &mut self,
        host: usize,
        worker: u8,
        now: Now,
        effects: &[Effect],
        deadline: Option<Instant>,
    ) -> Judged {
        self.only_ends_what_is_over(host, worker, now, effects)?;
        self.tests(Law::Timers);
        let held = self.hosts[host].held.iter().filter(|(id, _)| id.0 == worker);
        let first = held.flat_map(|(_, held)| held.legs.iter().map(|leg| leg.expires)).min();
        if let Some(first) = first {
            holds!(
                Timers,
                deadline.is_some_and(|deadline| deadline <= first.max(now.mono) + seconds(1)),
                "asleep until {deadline:?}, and {first:?} is due"
            );
        }
        holds!(Timers, deadline.is_none_or(|deadline| deadline > now.mono), "a deadline that a tick does not clear");
        Ok(())
    }

    /// The system did not take what the core had let go.
    pub(crate) fn drops_at_the_door(&mut self, host: usize) {
        self.hosts[host].drops += 1;
    }

    /// The server could not look after its timers for a while.
    pub(crate) fn sleeps(&mut self, host: usize, until: Instant) {
        self.hosts[host].asleep_until = until;
    }

    /// The server has died, and with it all it held.
    pub(crate) fn dies(&mut self, host: usize, now: Now) {
        let books = &mut self.hosts[host];
        books.held.clear();
        books.strangers.clear();
        books.relayed = Usage::default();
        books.usage_of_ended = Usage::default();
        books.drops = 0;
        books.nonces_vary_until = now.mono;
    }

    /// The server stops.
    pub(crate) fn stops(&mut self, host: usize, worker: u8, now: Now, effects: &[Effect]) -> Judged {
        self.ends(host, worker, now, effects, &|why| why == Ended::Stopped)
    }

    /// The gauges and sums of a server, after any step.
    pub(crate) fn counts(
        &mut self,
        host: usize,
        now: Now,
        tallies: &[std::sync::Arc<Tally>],
        free: u64,
        used: u64,
    ) -> Judged {
        for law in
            [Law::PortsAddUp, Law::BoundedMemory, Law::NothingOutlives, Law::InIsOutAndDrops, Law::NothingBeforeProof]
        {
            self.tests(law);
        }
        let books = &self.hosts[host];
        let sum = |of: &dyn Fn(&Tally) -> u64| tallies.iter().map(|tally| of(tally)).sum::<u64>();
        let gauge = sum(&|tally| tally.allocations.iter().flatten().map(|counter| counter.get()).sum());
        holds!(
            NothingBeforeProof,
            gauge == books.held.len() as u64,
            "{gauge} allocations, and the books have {}",
            books.held.len()
        );
        let late = Duration::from_millis(2001);
        let is_awake = books.asleep_until < now.mono;
        let over = books.held.values().find(|held| held.legs.iter().all(|leg| leg.expires + late < now.mono));
        holds!(NothingOutlives, !is_awake || over.is_none(), "it lives on after its time");
        let (mut least, mut most) = ((0, 0), (0, 0));
        for held in books.held.values() {
            least.0 += held.permissions.values().filter(|expires| **expires > now.mono).count() as u64;
            most.0 += held.permissions.values().filter(|expires| **expires + late >= now.mono).count() as u64;
            least.1 += held.channels.values().filter(|(_, expires)| *expires + REST > now.mono).count() as u64;
            most.1 += held.channels.values().filter(|(_, expires)| *expires + REST + late >= now.mono).count() as u64;
        }
        let (permissions, channels) = (sum(&|tally| tally.permissions.get()), sum(&|tally| tally.channels.get()));
        let fits = |least: u64, is: u64, most: u64| least <= is && (is <= most || !is_awake);
        // A leg that is over takes its own along, at the second of its end or one later.
        let has_over = books.held.values().any(|held| held.legs.iter().any(|leg| leg.expires <= now.mono));
        holds!(
            BoundedMemory,
            has_over || fits(least.0, permissions, most.0),
            "{permissions} permissions of {least:?} to {most:?}"
        );
        holds!(
            BoundedMemory,
            has_over || fits(least.1, channels, most.1),
            "{channels} channels of {least:?} to {most:?}"
        );
        let ports = (books.rules.relay_ports.len() * books.rules.relays.len()) as u64;
        holds!(PortsAddUp, free + used == ports, "{free} free and {used} used of {ports}");
        let relayed = Usage {
            packets_to_peer: sum(&|tally| tally.to_peer.packets.get()),
            bytes_to_peer: sum(&|tally| tally.to_peer.bytes.get()),
            packets_to_client: sum(&|tally| tally.to_client.packets.get()),
            bytes_to_client: sum(&|tally| tally.to_client.bytes.get()),
        };
        holds!(InIsOutAndDrops, relayed == books.relayed, "{relayed:?} counted, {:?} seen", books.relayed);
        let dropped = sum(&|tally| tally.dropped.iter().map(|counter| counter.get()).sum());
        holds!(InIsOutAndDrops, dropped == books.drops, "{dropped} drops counted, {} seen", books.drops);
        Ok(())
    }

    /// Everybody has gone and every clock has run out.
    pub(crate) fn is_as_new(&mut self, host: usize, used: u64, deadlines: &[Option<Instant>]) -> Judged {
        self.tests(Law::AsNew);
        let books = &self.hosts[host];
        holds!(AsNew, books.held.is_empty(), "{} allocations are left", books.held.len());
        holds!(AsNew, used == 0, "{used} ports are left");
        holds!(AsNew, deadlines.iter().all(Option::is_none), "timers are left: {deadlines:?}");
        holds!(
            AsNew,
            books.usage_of_ended == books.relayed,
            "{:?} told at the ends, {:?} seen",
            books.usage_of_ended,
            books.relayed
        );
        Ok(())
    }

    fn only_ends_what_is_over(&mut self, host: usize, worker: u8, now: Now, effects: &[Effect]) -> Judged {
        let harmless = |effect: &Effect| {
            matches!(
                effect,
                Effect::Ended { .. }
                    | Effect::Unbind { .. }
                    | Effect::Close { .. }
                    | Effect::Attached(_)
                    | Effect::Detached(_)
            )
        };
        holds!(NothingBeforeProof, effects.iter().all(harmless), "{effects:?} before any proof");
        self.ends(host, worker, now, effects, &|_| false)
    }

    /// Takes in what a message that was granted did to the world.
    fn absorbs(&mut self, host: usize, heard: &Heard<'_>, is_proven: bool) -> Judged {
        self.ends(host, heard.worker, heard.now, heard.effects, &|why| is_proven && why == Ended::Released)?;
        for effect in heard.effects {
            match effect {
                Effect::Join { stream, path, .. } => {
                    holds!(AnswersFit, *path == heard.path, "joined to another's connection");
                    let books = &mut self.hosts[host];
                    let known = books.held.values_mut().find_map(|held| held.streams.get_mut(stream));
                    let is_waiting = known.is_some_and(|known| known.waits_until.take().is_some());
                    holds!(AnswersFit, is_waiting, "a connection is joined that nobody waits for");
                }
                Effect::Detached(old) => {
                    let books = &mut self.hosts[host];
                    let mover = books.held.values_mut().find(|held| held.path == *old && held.next.is_some());
                    let Some(held) = mover else { continue };
                    let is_there = held.next.is_some_and(|(path, _)| path == heard.path);
                    holds!(AnswersFit, is_there, "an allocation moves that nobody has spoken for");
                    held.path = heard.path;
                    held.is_adrift = false;
                    held.next = None;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes in ends: of what is over, always; for another reason where `may_end` says so.
    fn ends(
        &mut self,
        host: usize,
        worker: u8,
        now: Now,
        effects: &[Effect],
        may_end: &dyn Fn(Ended) -> bool,
    ) -> Judged {
        let books = &mut self.hosts[host];
        for effect in effects {
            match effect {
                Effect::Ended { relay, why, usage, session, .. } => {
                    let Some(held) = books.held.remove(&(worker, *relay)) else {
                        return Err(Breach { law: Law::NothingOutlives, what: format!("{relay:?} ends twice") });
                    };
                    let is_due = match why {
                        Ended::Expired => held.is_over(now),
                        other => may_end(*other),
                    };
                    holds!(NothingOutlives, is_due, "an allocation of {} ends: {why:?}", session.user);
                    holds!(InIsOutAndDrops, *usage == held.usage, "{usage:?} told, {:?} seen", held.usage);
                    books.usage_of_ended.packets_to_peer += usage.packets_to_peer;
                    books.usage_of_ended.bytes_to_peer += usage.bytes_to_peer;
                    books.usage_of_ended.packets_to_client += usage.packets_to_client;
                    books.usage_of_ended.bytes_to_client += usage.bytes_to_client;
                }
                Effect::Unbind { relay, family } => {
                    let Some(held) = books.held.get_mut(&(worker, *relay)) else {
                        return Err(Breach {
                            law: Law::NothingOutlives,
                            what: format!("{relay:?} is gone and loses a port"),
                        });
                    };
                    let is_over = held.leg(*family, now).is_none();
                    holds!(NothingOutlives, is_over || may_end(Ended::Released), "a live relay address is taken away");
                    held.loses(*family);
                }
                Effect::Close { relay, stream } => {
                    if let Some(held) = books.held.get_mut(&(worker, *relay)) {
                        held.streams.remove(stream);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// No byte that leaves is part of a secret.
    fn keeps_secrets(&mut self, host: usize, out: &[u8]) -> Judged {
        self.tests(Law::NoSecrets);
        let rules = &self.hosts[host].rules;
        let secrets = rules.users.values().chain(&rules.secrets).chain([&rules.nonce_key]);
        for secret in secrets {
            let is_there = out.windows(secret.len()).any(|bytes| bytes == secret.as_bytes());
            holds!(NoSecrets, !is_there, "a secret leaves");
        }
        Ok(())
    }
}

impl Books {
    /// Whether an allocation lives on this relay address of ours.
    fn is_live(&self, peer: SocketAddr, now: Now) -> bool {
        let on = |leg: &Leg| (leg.told == peer || leg.local == peer) && leg.expires > now.mono;
        self.held.values().any(|held| !held.is_tcp && held.legs.iter().any(on))
    }

    /// The lifetime that a request gets (RFC 8656 §7.2): never under the default, never over the maximum.
    fn lifetime(&self, message: &Message<'_>, asker: &Somebody, now: Now) -> u64 {
        let wanted = message.bytes::<4>(Attribute::LIFETIME).and_then(Result::ok).map(u32::from_be_bytes);
        let wanted = wanted.map_or(self.rules.lifetime, u64::from);
        let usual = wanted.min(self.rules.max_lifetime).max(self.rules.lifetime);
        match asker.expires {
            Some(expires) if self.rules.strict_expiry => usual.min(expires.saturating_sub(now.unix.0)),
            _ => usual,
        }
    }

    fn allocate_due(
        &self,
        heard: &Heard<'_>,
        message: &Message<'_>,
        asker: &Somebody,
        here: Option<&Held>,
        is_over: bool,
    ) -> Vec<u16> {
        if let Some(held) = here {
            let is_repeat = held.asked == message.transaction && held.user == asker.user;
            return vec![if is_repeat { SUCCESS } else { 437 }];
        }
        if is_over {
            return vec![401];
        }
        let rules = &self.rules;
        let bytes4 = |attribute| message.bytes::<4>(attribute);
        let mut codes = Vec::new();
        let transport = bytes4(Attribute::REQUESTED_TRANSPORT);
        let is_tcp = matches!(transport, Some(Ok([6, ..])));
        match transport {
            None | Some(Err(_)) => codes.push(400),
            Some(Ok([17, ..])) => {}
            Some(Ok([6, ..])) if rules.tcp_relays => {}
            Some(Ok(_)) => codes.push(442),
        }
        let (even, token) =
            (message.bytes::<1>(Attribute::EVEN_PORT), message.bytes::<8>(Attribute::RESERVATION_TOKEN));
        let (family, also) =
            (bytes4(Attribute::REQUESTED_ADDRESS_FAMILY), bytes4(Attribute::ADDITIONAL_ADDRESS_FAMILY));
        let also = also.or(bytes4(Attribute::ADDITIONAL_ADDRESS_FAMILY_DRAFT));
        let is_broken = matches!(even, Some(Err(_))) || matches!(token, Some(Err(_))) || matches!(family, Some(Err(_)));
        let is_broken = is_broken || matches!(bytes4(Attribute::LIFETIME), Some(Err(_)));
        let is_broken = is_broken || also.is_some_and(|also| !matches!(also, Ok([2, ..])));
        let is_whole = message.get(Attribute::DONT_FRAGMENT).is_some();
        let is_odd =
            is_tcp && (!heard.path.tuple.transport.is_stream() || is_whole || token.is_some() || even.is_some());
        let is_pair = matches!(even, Some(Ok([bits])) if bits & 0x80 != 0);
        let clashes = token.is_some() && (even.is_some() || family.is_some() || also.is_some());
        let clashes = clashes || (also.is_some() && (family.is_some() || is_pair));
        if is_broken || is_odd || clashes {
            codes.push(400);
        }
        match message.get(Attribute::MOBILITY_TICKET) {
            Some(_) if !rules.mobility => codes.push(405),
            Some([_, ..]) => codes.push(400),
            _ => {}
        }
        let has = |v4: bool| rules.relays.iter().any(|relay| relay.local.is_ipv4() == v4);
        let is_missing = match family {
            None => token.is_none() && also.is_none() && !has(true),
            Some(Ok([1, ..])) => !has(true),
            Some(Ok([2, ..])) => !has(false),
            Some(_) => true,
        };
        if is_missing {
            codes.push(440);
        }
        if !codes.is_empty() {
            return codes;
        }
        if rules.draining {
            let is_v4 = heard.path.tuple.client.is_ipv4();
            return vec![if rules.redirect.iter().any(|server| server.is_ipv4() == is_v4) { 300 } else { 508 }];
        }
        let Some(tried) = &heard.tried else { return vec![] };
        let outcomes = [Some(&tried.first), tried.also.as_ref()].into_iter().flatten();
        let mut failed = None;
        for outcome in outcomes {
            match outcome {
                Ok(_) => return vec![SUCCESS],
                Err(why) => failed = failed.or(Some(*why)),
            }
        }
        vec![match failed {
            Some(BindError::Quota) => 486,
            Some(BindError::NoPort | BindError::NoResources) => 508,
            Some(BindError::System) | None => 500,
        }]
    }

    fn refresh_due(
        &self,
        heard: &Heard<'_>,
        message: &Message<'_>,
        asker: &Somebody,
        here: Option<(&Id, &Held)>,
        is_over: bool,
    ) -> Vec<u16> {
        let now = heard.now;
        let lifetime = message.bytes::<4>(Attribute::LIFETIME);
        let family = message.bytes::<4>(Attribute::REQUESTED_ADDRESS_FAMILY);
        if matches!(lifetime, Some(Err(_))) || matches!(family, Some(Err(_))) {
            return vec![400];
        }
        let tuple = heard.path.tuple;
        let is_next = here.is_some_and(|(_, held)| held.next.is_some_and(|(path, _)| path.tuple == tuple));
        let ticket = message.get(Attribute::MOBILITY_TICKET).filter(|_| here.is_none() || is_next);
        let held = match ticket {
            Some(_) if !self.rules.mobility => return vec![405],
            Some(ticket) => {
                let is_shown =
                    |held: &&Held| !held.is_over(now) && is_ticket_of(held, ticket, heard.path, message.transaction);
                let Some(held) = self.held.values().find(is_shown) else {
                    // The ticket of nobody, of somebody gone, or one that is used: whoever it was for, this is all one hears.
                    return vec![437, 441];
                };
                if here.is_some_and(|(_, here)| here.path != held.path) {
                    return vec![437];
                }
                if held.user != asker.user {
                    return vec![441];
                }
                if held.is_tcp && !tuple.transport.is_stream() {
                    return vec![400];
                }
                held
            }
            None => {
                let Some((_, held)) = here else { return vec![437] };
                if held.user != asker.user {
                    return vec![441];
                }
                held
            }
        };
        if let Some(Ok([number, ..])) = family {
            let has = Family::from_number(number).is_some_and(|family| held.leg(family, now).is_some());
            if !has {
                return vec![443];
            }
        }
        let is_release = matches!(lifetime, Some(Ok([0, 0, 0, 0])));
        vec![if is_over && !is_release { 401 } else { SUCCESS }]
    }

    fn permission_due(&self, held: &Held, message: &Message<'_>, now: Now) -> Vec<u16> {
        let mut ips = BTreeSet::new();
        for peer in peers(message) {
            let Some(peer) = peer else { return vec![400] };
            if held.leg(Family::of(peer.ip()), now).is_none() {
                return vec![443];
            }
            if !self.permits(peer.ip(), None) {
                return vec![403];
            }
            ips.insert(peer.ip());
        }
        if ips.is_empty() {
            return vec![400];
        }
        let count = peers(message).count();
        ips.extend(held.permissions.iter().filter(|(_, expires)| **expires > now.mono).map(|(ip, _)| *ip));
        let is_full = ips.len() > self.rules.permissions || count > self.rules.permissions;
        vec![if is_full { 508 } else { SUCCESS }]
    }

    fn channel_due(&self, held: &Held, message: &Message<'_>, now: Now) -> Vec<u16> {
        let number = message.bytes::<4>(Attribute::CHANNEL_NUMBER).and_then(Result::ok);
        let number =
            number.map(|[n0, n1, ..]| u16::from_be_bytes([n0, n1])).filter(|number| (0x4000..=0x7FFF).contains(number));
        let peer = message.xor_address(Attribute::XOR_PEER_ADDRESS).and_then(Result::ok);
        let (Some(number), Some(peer), false) = (number, peer, held.is_tcp) else { return vec![400] };
        if held.leg(Family::of(peer.ip()), now).is_none() {
            return vec![443];
        }
        if !self.permits(peer.ip(), Some(peer.port())) {
            return vec![403];
        }
        let resting = |(_, (_, expires)): &(&u16, &(SocketAddr, Instant))| *expires + REST > now.mono;
        let taken = held.channels.iter().filter(resting);
        let clashes = taken.clone().any(|(other, (to, _))| (*other == number) != (*to == peer));
        let is_new = !taken.clone().any(|(other, _)| *other == number);
        let mut ips: BTreeSet<IpAddr> =
            held.permissions.iter().filter(|(_, expires)| **expires > now.mono).map(|(ip, _)| *ip).collect();
        ips.insert(peer.ip());
        if ips.len() > self.rules.permissions {
            return vec![508];
        }
        match (clashes, is_new && taken.count() >= self.rules.channels) {
            (true, _) => vec![400],
            (false, true) => vec![508],
            (false, false) => vec![SUCCESS],
        }
    }

    fn connect_due(&self, held: &Held, message: &Message<'_>, now: Now) -> Vec<u16> {
        let Some(peer) = message.xor_address(Attribute::XOR_PEER_ADDRESS).and_then(Result::ok) else {
            return vec![400];
        };
        if !held.is_tcp {
            return vec![437];
        }
        if held.leg(Family::of(peer.ip()), now).is_none() {
            return vec![443];
        }
        if !self.permits(peer.ip(), Some(peer.port())) {
            return vec![403];
        }
        let is_own = self.rules.relays.iter().any(|relay| [relay.local, relay.external].contains(&peer.ip()));
        if held.streams.values().any(|stream| stream.peer == peer && (stream.is_ours || !is_own)) {
            return vec![446];
        }
        let pending =
            held.streams.values().filter(|stream| stream.connecting.is_some() || stream.waits_until.is_some());
        vec![if pending.count() >= 16 || held.streams.len() >= 128 { 508 } else { SUCCESS }]
    }

    fn connection_bind_due(
        &self,
        heard: &Heard<'_>,
        message: &Message<'_>,
        asker: &Somebody,
        is_taken: bool,
    ) -> Vec<u16> {
        let id = message.bytes::<4>(Attribute::CONNECTION_ID).and_then(Result::ok).map(u32::from_be_bytes);
        let now = heard.now;
        let waits = |held: &Held| {
            let stream = id.and_then(|id| held.streams.get(&StreamId(id)));
            stream.is_some_and(|stream| stream.waits_until.is_some_and(|until| until > now.mono))
        };
        let found = self.held.values().find(|held| waits(held) && held.user == asker.user && !held.is_over(now));
        let is_good = found.is_some() && heard.path.tuple.transport.is_stream() && !is_taken;
        vec![if is_good { SUCCESS } else { 400 }]
    }
}

/// Whether this ticket moves an allocation: its last one, or the one before when the same request comes again.
fn is_ticket_of(held: &Held, ticket: &[u8], path: Path, transaction: TransactionId) -> bool {
    let is_repeat = held.next == Some((path, transaction));
    !ticket.is_empty() && !held.ticket.is_empty() && (held.ticket == ticket || is_repeat)
}

fn swept_later(permissions: &BTreeMap<IpAddr, Instant>, now: Now) -> usize {
    permissions.values().filter(|expires| **expires <= now.mono).count()
}

fn has_unknown(message: &Message<'_>) -> bool {
    message.attributes().any(|(attribute, _)| attribute.0 < 0x8000 && !KNOWN.contains(&attribute.0))
}

fn peers<'m>(message: &'m Message<'_>) -> impl Iterator<Item = Option<SocketAddr>> + 'm {
    let all = message.attributes().filter(|(attribute, _)| *attribute == Attribute::XOR_PEER_ADDRESS);
    all.map(|(_, value)| xor_address(value, &message.transaction).ok())
}

fn addresses(message: &Message<'_>, wanted: Attribute) -> Vec<SocketAddr> {
    let all = message.attributes().filter(|(attribute, _)| *attribute == wanted);
    all.filter_map(|(_, value)| xor_address(value, &message.transaction).ok()).collect()
}

fn code_of(bytes: &[u8]) -> Option<u16> {
    let message = Message::parse(bytes).ok().filter(|message| message.class == Class::Error)?;
    let [_, _, class, number, ..] = message.get(Attribute::ERROR_CODE)? else { return None };
    Some(u16::from(*class) * 100 + u16::from(*number))
}

fn ended(effect: &Effect) -> Option<RelayId> {
    if let Effect::Ended { relay, .. } = effect { Some(*relay) } else { None }
}

/// The password of a time-limited name: base64 of its HMAC-SHA1.
pub(crate) fn time_limited(secret: &str, name: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(hmac_sha1(secret.as_bytes(), &[name.as_bytes()]))
}

/// Every padding byte of a message is zero: nothing of what lay in the buffer before goes out.
fn is_padded_with_zeros(bytes: &[u8]) -> Judged {
    let mut rest = bytes.get(20..).unwrap_or_default();
    while let [_, _, l0, l1, value @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let padded = length.next_multiple_of(4);
        let padding = value.get(length..padded);
        holds!(
            AnswersFit,
            padding.is_some_and(|padding| padding.iter().all(|byte| *byte == 0)),
            "padding that is not zero"
        );
        rest = value.get(padded..).unwrap_or_default();
    }
    Ok(())
}
