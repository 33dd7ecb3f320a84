//! One client's conversation with the server: one request at a time, again when it is challenged, again when nothing
//! comes back.
//!
//! Pure: bytes and moments in, bytes and a verdict out. An answer to another request than the one under way is nobody's,
//! so that a challenge that comes twice is not taken for a refusal.
#![forbid(unsafe_code)]

use crate::client::{Client, Heard, Success};
use crate::time::{Duration, Instant};
use crate::wire::codes::{ErrorCode, Method};
use crate::wire::stun::Family;
use core::net::SocketAddr;

/// How long an answer may take before a request over datagrams is sent again (RFC 8489 §6.2.1).
const AGAIN: Duration = Duration::from_millis(500);
/// How often a request is sent in all.
const TRIES: u32 = 20; // ten seconds: a server may answer only so many strangers a second
/// Challenges to one request: the first, and a nonce that has grown old.
const CHALLENGES: u32 = 3;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// An allocation with a relay address of this family; `None` is the server's usual one, IPv4.
    Allocate(Option<Family>),
    /// Permission for a peer.
    Permit(SocketAddr),
    /// A channel to a peer.
    Bind(u16, SocketAddr),
    /// More time.
    Refresh,
    /// The end.
    Release,
}

impl Task {
    /// The method of its request.
    pub const fn method(self) -> Method {
        match self {
            Self::Allocate(_) => Method::ALLOCATE,
            Self::Permit(_) => Method::CREATE_PERMISSION,
            Self::Bind(..) => Method::CHANNEL_BIND,
            Self::Refresh | Self::Release => Method::REFRESH,
        }
    }

    /// The peer it is about.
    pub const fn peer(self) -> Option<SocketAddr> {
        match self {
            Self::Permit(peer) | Self::Bind(_, peer) => Some(peer),
            Self::Allocate(_) | Self::Refresh | Self::Release => None,
        }
    }
}

/// A client and what it is at.
#[derive(Clone, Debug)]
pub struct Script {
    client: Client,
    under_way: Option<UnderWay>,
    has_credential: bool,
}

#[derive(Clone, Debug)]
struct UnderWay {
    task: Task,
    request: Vec<u8>,
    is_signed: bool,
    challenges: u32,
    tries: u32,
    due: Instant,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it answers no request under way.
    Nobodys,
    /// The request is to be sent in another form: [`Script::request`].
    Again,
    /// Yes.
    Done(Task, Success),
    /// No.
    Refused(Task, ErrorCode),
}

/// What silence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Nothing yet.
    Early,
    /// The request is to be sent once more: [`Script::request`].
    Again,
    /// There will be no answer any more.
    Final(Task),
}

impl Script {
    /// A client at rest.
    pub fn new(client: Client) -> Self {
        Self { client, under_way: None, has_credential: false }
    }

    /// The client, to prepare messages with.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Whether an answer is waited for.
    pub fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Begins a task; its request is to be sent. What was under way is forgotten.
    pub fn begin(&mut self, task: Task, now: Instant) {
        let request = self.build(task);
        let is_signed = self.has_credential;
        self.under_way = Some(UnderWay { task, request, is_signed, challenges: 0, tries: 1, due: now + AGAIN });
    }

    /// The request under way; empty when there is none.
    pub fn request(&self) -> &[u8] {
        self.under_way.as_ref().map_or(&[], |under_way| &under_way.request)
    }

    /// Takes a message of the server.
    pub fn hear(&mut self, bytes: &[u8], now: Instant) -> Verdict {
        let Some(under_way) = &self.under_way else { return Verdict::Nobodys };
        if bytes.get(TRANSACTION) != under_way.request.get(TRANSACTION) {
            return Verdict::Nobodys;
        }
        let (task, was_signed, challenges) = (under_way.task, under_way.is_signed, under_way.challenges);
        match self.client.hear(bytes) {
            Ok(Heard::Success(success)) => {
                self.under_way = None;
                Verdict::Done(task, success)
            }
            Ok(Heard::Error { code, is_challenge, .. }) => {
                let is_new = !was_signed || code == ErrorCode::STALE_NONCE;
                if !is_challenge || !is_new || challenges == CHALLENGES {
                    self.under_way = None;
                    return Verdict::Refused(task, code);
                }
                self.has_credential = true;
                self.begin(task, now);
                if let Some(under_way) = &mut self.under_way {
                    under_way.challenges = challenges + 1;
                }
                Verdict::Again
            }
            Ok(Heard::Data { .. } | Heard::Icmp { .. } | Heard::ChannelData { .. }) | Err(_) => Verdict::Nobodys,
        }
    }

    /// Looks at the time.
    pub fn wait(&mut self, now: Instant) -> Silence {
        let Some(under_way) = &mut self.under_way else { return Silence::Early };
        if now < under_way.due {
            return Silence::Early;
        }
        if under_way.tries == TRIES {
            let task = under_way.task;
            self.under_way = None;
            return Silence::Final(task);
        }
        under_way.tries += 1;
        under_way.due = now + AGAIN;
        Silence::Again
    }

    fn build(&mut self, task: Task) -> Vec<u8> {
        match task {
            Task::Allocate(family) => self.client.allocate(family),
            Task::Permit(peer) => self.client.create_permission(&[peer]),
            Task::Bind(number, peer) => self.client.channel_bind(number, peer),
            Task::Refresh => self.client.refresh(None),
            Task::Release => self.client.refresh(Some(0)),
        }
    }
}

/// Where a message has its transaction id.
pub(super) const TRANSACTION: core::ops::Range<usize> = 8..20;

/// When clients renew what they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Renewal {
    /// The first does so this long after the load began: a short one is not to be disturbed.
    pub(super) from: Duration,
    /// Each does so every so often.
    pub(super) every: Duration,
}

impl Default for Renewal {
    /// For permissions, which live five minutes (RFC 8656 §9).
    fn default() -> Self {
        Self { from: Duration::from_secs(60), every: Duration::from_secs(200) }
    }
}

impl Renewal {
    /// The same, soon enough for allocations that live so many seconds, but never more than once a second: a server may say
    /// anything.
    pub(super) fn within(self, lifetime: Option<u32>) -> Self {
        let third = lifetime.map_or(self.every, |seconds| Duration::from_secs(seconds.max(3).into()) / 3);
        Self { from: self.from.min(third), every: self.every.min(third) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codes::{Attribute, Class};
    use crate::wire::integrity::Algorithm;
    use crate::wire::reply::Reply;
    use crate::wire::stun::Message;

    const START: Instant = Instant(1_000_000_000);

    fn script() -> Script {
        let mut script = Script::new(Client::new("u", "p", 1));
        script.begin(Task::Allocate(None), START);
        script
    }

    fn answer(to: &[u8], code: Option<u16>, nonce: &[u8]) -> Vec<u8> {
        let request = Message::parse(to).unwrap();
        let mut bytes = [0; 500];
        let mut reply = match code {
            None => Reply::success(&mut bytes, request.method, request.transaction),
            Some(code) => Reply::error(&mut bytes, request.method, request.transaction, ErrorCode(code), ""),
        };
        if !nonce.is_empty() {
            reply.bytes(Attribute::REALM, b"r").bytes(Attribute::NONCE, nonce);
        }
        let len = reply.finish().unwrap();
        bytes[..len].to_vec()
    }

    #[test]
    fn a_challenge_is_answered_with_a_signature_and_the_yes_ends_it() {
        let mut script = script();
        let bare = script.request().to_vec();
        assert_eq!(script.hear(&answer(&bare, Some(401), b"one"), START), Verdict::Again);
        let signed = script.request().to_vec();
        assert!(Message::parse(&signed).unwrap().is_signed(Algorithm::Sha1));
        // The first one was sent twice, and here is the second challenge.
        assert_eq!(script.hear(&answer(&bare, Some(401), b"two"), START), Verdict::Nobodys);
        assert!(matches!(script.hear(&answer(&signed, None, b""), START), Verdict::Done(Task::Allocate(None), _)));
        assert!(!script.is_busy() && script.request().is_empty());
    }

    #[test]
    fn a_challenge_to_a_signature_is_a_no_but_an_old_nonce_is_none() {
        let mut script = script();
        let bare = script.request().to_vec();
        script.hear(&answer(&bare, Some(401), b"one"), START);
        let signed = script.request().to_vec();
        assert_eq!(script.hear(&answer(&signed, Some(438), b"two"), START), Verdict::Again);
        let again = script.request().to_vec();
        let refused = Verdict::Refused(Task::Allocate(None), ErrorCode::UNAUTHENTICATED);
        assert_eq!(script.hear(&answer(&again, Some(401), b"three"), START), refused);
    }

    #[test]
    fn a_server_whose_nonces_are_always_old_is_given_up() {
        let mut script = script();
        for _ in 0..CHALLENGES {
            let request = script.request().to_vec();
            assert_eq!(script.hear(&answer(&request, Some(438), b"old"), START), Verdict::Again);
        }
        let request = script.request().to_vec();
        assert!(matches!(script.hear(&answer(&request, Some(438), b"old"), START), Verdict::Refused(..)));
    }

    #[test]
    fn silence_is_asked_again_and_then_final() {
        let mut script = script();
        let first = script.request().to_vec();
        assert_eq!(script.wait(START), Silence::Early);
        let mut now = START;
        for _ in 1..TRIES {
            now += AGAIN;
            assert_eq!(script.wait(now), Silence::Again);
            assert_eq!(script.request(), first);
        }
        assert_eq!(script.wait(now + AGAIN), Silence::Final(Task::Allocate(None)));
        assert_eq!(script.wait(now + AGAIN), Silence::Early);
    }

    #[test]
    fn an_indication_answers_nothing() {
        let mut script = script();
        let transaction = Message::parse(script.request()).unwrap().transaction;
        let mut bytes = [0; 100];
        let len = Reply::new(&mut bytes, Method::DATA, Class::Indication, transaction).finish().unwrap();
        assert_eq!(script.hear(&bytes[..len], START), Verdict::Nobodys);
        assert!(script.is_busy());
    }

    #[test]
    fn what_lives_shortly_is_renewed_before_it_ends() {
        let usual = Renewal::default().within(Some(600));
        assert_eq!(usual, Renewal::default());
        let short = usual.within(Some(30));
        assert!(short.from + short.every < Duration::from_secs(30), "{short:?}");
        assert_eq!(short.within(None), short);
        assert_eq!(short.within(Some(600)), short, "the shortest lifetime decides");
        assert_eq!(short.within(Some(0)).every, Duration::from_secs(1), "no server makes it a flood");
    }
}
