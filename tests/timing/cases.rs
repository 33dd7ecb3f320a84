//! Pairs of requests that a stranger must not be able to tell apart by how long the no takes.
//!
//! Owns a server of the core alone, without sockets, and what each side of a pair says to it. Every request is signed
//! wrongly, and the two names of a pair are as long as each other: a stranger chooses the length. Never reads a clock.

#![allow(dead_code, reason = "the test and the example each use their own part of this")]

use std::net::SocketAddr;
use std::sync::Arc;
use turnserver::time::{Instant, Now, UnixSeconds};
use turnserver::turn::credential::Secret;
use turnserver::turn::policy::{AeadKey, OAuth, OAuthKey, Policy, UserKeys};
use turnserver::turn::tally::{Tally, Transport};
use turnserver::turn::{FiveTuple, Input, Link, Path, Server, Verdict};
use turnserver::wire::Packet;
use turnserver::wire::codes::{Attribute, Class, Method};
use turnserver::wire::integrity::{self, Algorithm, Key};
use turnserver::wire::packet::SLOT;
use turnserver::wire::stun::Message;

const REALM: &str = "example.org";
const NOW: Now = Now { mono: Instant(1_000_000_000_000), unix: UnixSeconds(1_700_000_000) };
/// The only static user. Between two names that nobody has, so that a search for either looks at it.
const USER: &str = "mallory1";
const NOBODY: &str = "mallory2";

/// A pair of requests, by what differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pair {
    /// A static user with a wrong password; a name nobody has.
    User,
    /// The same where the server has no secrets.
    UserAlone,
    /// The same with SHA-256.
    UserSha256,
    /// A time-limited name with a wrong password; one that has ended, too.
    TimeLimited,
    /// The USERHASH of a static user; one of nobody.
    Hash,
    /// A token that is not sealed with the key of its id; the same with an id nobody has.
    Token,
    /// An HMAC whose first byte is wrong; one whose last byte is.
    Integrity,
    /// The same with SHA-256.
    IntegritySha256,
    /// A nonce whose MAC is wrong in its first letter; in its last.
    Nonce,
}

impl Pair {
    pub(crate) const ALL: [Self; 9] = [
        Self::User,
        Self::UserAlone,
        Self::UserSha256,
        Self::TimeLimited,
        Self::Hash,
        Self::Token,
        Self::Integrity,
        Self::IntegritySha256,
        Self::Nonce,
    ];
}

/// A server, and both requests of one pair.
pub(crate) struct World {
    server: Server,
    packet: Packet,
    path: Path,
    requests: [Vec<u8>; 2],
}

impl World {
    pub(crate) fn new(pair: Pair) -> Self {
        // By TCP nobody is turned away for asking too often.
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let tuple =
            FiveTuple { transport: Transport::Tcp, client: at("192.0.2.1:4000"), server: at("198.51.100.1:3478") };
        let server = Server::new(Arc::new(policy(pair)), Arc::new(Tally::default()), NOW, [7; 32]);
        let packet = Packet::new(vec![0; SLOT].into());
        let path = Path { tuple, link: Link(0) };
        let mut world = Self { server, packet, path, requests: [Vec::new(), Vec::new()] };
        let nonce = world.nonce();
        world.requests = [0, 1].map(|side| request(pair, side, &nonce));
        for side in [0, 1] {
            world.fill(side);
            world.ask();
            let code = if pair == Pair::Nonce { 38 } else { 1 };
            let answer = Message::parse(world.packet.data()).expect("an answer");
            assert_eq!(
                answer.get(Attribute::ERROR_CODE).and_then(|value| value.get(3)),
                Some(&code),
                "{pair:?} {side}"
            );
        }
        world
    }

    /// Lays a request out, the first or the second of the pair.
    pub(crate) fn fill(&mut self, side: usize) {
        self.packet.fill(&self.requests[side]);
    }

    /// What is measured: the server's whole answer to the request.
    #[inline(never)]
    pub(crate) fn ask(&mut self) {
        let verdict = self.server.handle(NOW, Input::Client(self.path), &mut self.packet, &mut Vec::new());
        assert!(matches!(verdict, Verdict::ToClient(_)), "{verdict:?}");
    }

    fn nonce(&mut self) -> Vec<u8> {
        self.packet.fill(&head(Method::ALLOCATE));
        self.ask();
        Message::parse(self.packet.data()).expect("a challenge").get(Attribute::NONCE).expect("a nonce").to_vec()
    }
}

fn policy(pair: Pair) -> Policy {
    let mut policy = Policy { realm: REALM.into(), ..Policy::default() };
    policy.auth.nonce_key = Secret::new("a key for nonces");
    let keys = UserKeys { md5: Some(key_of(USER)), sha256: Some(Key::sha256(USER, REALM, "right")) };
    policy.auth.users = [(USER.to_owned(), keys)].into();
    if pair != Pair::UserAlone {
        policy.auth.secrets = vec![Secret::new("north"), Secret::new("south")];
    }
    if pair == Pair::Token {
        let keys = vec![OAuthKey { kid: USER.into(), key: AeadKey::A256Gcm([3; 32]) }];
        policy.auth.oauth = Some(OAuth { server_name: REALM.into(), keys });
    }
    policy
}

fn key_of(user: &str) -> Key {
    Key::md5(user, REALM, "right")
}

fn request(pair: Pair, side: usize, nonce: &[u8]) -> Vec<u8> {
    let mut buf = head(Method::ALLOCATE);
    let name = match (pair, side) {
        (Pair::Integrity | Pair::IntegritySha256 | Pair::Nonce, _) | (_, 0) if pair != Pair::TimeLimited => USER,
        (Pair::TimeLimited, 0) => "1700000100:a",
        (Pair::TimeLimited, _) => "1600000100:a",
        _ => NOBODY,
    };
    if pair == Pair::Hash {
        append(&mut buf, Attribute::USERHASH, &integrity::userhash(name, REALM));
    } else {
        append(&mut buf, Attribute::USERNAME, name.as_bytes());
    }
    append(&mut buf, Attribute::REALM, REALM.as_bytes());
    let mut nonce = nonce.to_vec();
    if pair == Pair::Nonce {
        // The cookie, the features and the time stay: what is left is the MAC.
        let at = if side == 0 { nonce.len() - 6 } else { nonce.len() - 1 };
        nonce[at] = if nonce[at] == b'A' { b'B' } else { b'A' };
    }
    append(&mut buf, Attribute::NONCE, &nonce);
    append(&mut buf, Attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    if pair == Pair::Token {
        append(&mut buf, Attribute::ACCESS_TOKEN, &[&[0, 12][..], &[9; 12 + 64]].concat());
    }
    let is_sha256 = matches!(pair, Pair::UserSha256 | Pair::IntegritySha256);
    let algorithm = if is_sha256 { Algorithm::Sha256 } else { Algorithm::Sha1 };
    sign(&mut buf, algorithm);
    let end = buf.len();
    match (pair, side) {
        (Pair::Nonce, _) => {}
        (Pair::Integrity, 0) => buf[end - 20] ^= 1,
        (Pair::IntegritySha256, 0) => buf[end - 32] ^= 1,
        _ => buf[end - 1] ^= 1,
    }
    buf
}

/// A request without attributes.
fn head(method: Method) -> Vec<u8> {
    let mut buf = vec![0; 20];
    let reply = turnserver::wire::reply::Reply::new(&mut buf, method, Class::Request, [5; 12]);
    let _whole = reply.finish();
    buf
}

fn sign(buf: &mut Vec<u8>, algorithm: Algorithm) {
    let key = key_of(USER);
    match algorithm {
        Algorithm::Sha1 => {
            count(buf, 24);
            append(buf, Attribute::MESSAGE_INTEGRITY, &integrity::hmac_sha1(key.expose(), &[buf]));
        }
        Algorithm::Sha256 => {
            count(buf, 36);
            append(buf, Attribute::MESSAGE_INTEGRITY_SHA256, &integrity::hmac_sha256(key.expose(), &[buf]));
        }
    }
}

fn append(buf: &mut Vec<u8>, attribute: Attribute, value: &[u8]) {
    buf.extend(attribute.0.to_be_bytes());
    buf.extend((value.len() as u16).to_be_bytes());
    buf.extend(value);
    buf.resize(buf.len().next_multiple_of(4), 0);
    count(buf, 0);
}

/// Makes the length field count what there is and `more`.
fn count(buf: &mut [u8], more: usize) {
    let length = ((buf.len() - 20 + more) as u16).to_be_bytes();
    buf[2..4].copy_from_slice(&length);
}
