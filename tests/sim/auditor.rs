//! The auditor: it knows only the law, sees every packet and effect, and says which invariant a step breaks.
//!
//! It keeps books of its own, made of what clients asked and what they were told; it never looks into a server. A
//! datagram must pass if and only if allocation, permission and rule are alive, and every answer must be the one the law
//! gives. It shares the codec with the server and nothing else.

#[macro_use]
#[path = "auditor/law.rs"]
mod law;
#[path = "auditor/books.rs"]
mod books;
#[path = "auditor/due.rs"]
mod due;
#[path = "auditor/life.rs"]
mod life;
#[path = "auditor/peers.rs"]
mod peers;
#[path = "auditor/requests.rs"]
mod requests;

use crate::rules::{PRIVATE, Rules};
use books::Debt;
pub(crate) use law::{Breach, Judged, Law};
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
            *self.tested.entry(Law::BoundedQueues as u8).or_default() += 1;
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
