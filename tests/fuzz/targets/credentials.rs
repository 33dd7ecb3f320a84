//! Whatever somebody shows as name, nonce, ticket or token: it is read without harm, and only what was made here opens.

use super::script::Script;
use super::strict;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use std::net::SocketAddr;
use std::sync::Arc;
use turnserver::time::{Instant, Now, UnixSeconds, seconds};
use turnserver::turn::credential::{self, Secret};
use turnserver::turn::opaque::OpaqueString;
use turnserver::turn::peers::RelayAddress;
use turnserver::turn::policy::{AeadKey, OAuth, OAuthKey, Policy, UserKeys};
use turnserver::turn::tally::{Tally, Transport};
use turnserver::turn::{Bound, Effect, FiveTuple, Input, Link, Path, Server, Verdict};
use turnserver::wire::Packet;
use turnserver::wire::codes::{Attribute, Class, Method};
use turnserver::wire::integrity::{Algorithm, Key};
use turnserver::wire::reply::Reply;

const REALM: &str = "example.org";
const PASSWORD: &str = "a password that no corpus has";
const SECRET: &str = "a secret that no corpus has";
const TOKEN_KEY: [u8; 32] = [0x5A; 32];
const SESSION_KEY: &[u8] = b"the key inside a token 1";
const NOW: Now = Now { mono: Instant(1_000_000_000_000), unix: UnixSeconds(1_700_000_000) };
const HOME: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 3478);

pub(crate) fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let what = script.byte();
    names(Script::new(bytes));
    match what % 5 {
        0 => nobody_guesses(script),
        1 => nonces(script),
        2 => tickets(script),
        3 => tokens(script),
        _ => {}
    }
}

/// Time-limited names, minted and read.
fn names(mut script: Script<'_>) {
    let separator = *script.pick(&[':', '.', '|', 'ß']);
    let (ttl, now) = (seconds(script.u32().into()), UnixSeconds(script.u32().into()));
    let text = String::from_utf8_lossy(script.rest());
    let (digits, user) = text.split_once(separator).map_or((&*text, None), |(digits, user)| (digits, Some(user)));
    let ends = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit())).map(UnixSeconds);
    assert_eq!(credential::expiry(&text, separator), ends);
    let whose = user.filter(|user| !user.is_empty() && ends.is_some()).unwrap_or(&text);
    assert_eq!(credential::user(&text, separator), whose);

    let secret = Secret::new(SECRET);
    let user = OpaqueString::new(&text).ok();
    assert!(
        user.as_ref().is_none_or(|user| OpaqueString::new(user.as_str()).as_ref() == Ok(user)),
        "prepared for good"
    );
    let minted = credential::mint(&secret, user.as_ref(), separator, ttl, now);
    assert_eq!(minted.expires.0, now.0 + ttl.as_secs());
    assert_eq!(credential::expiry(&minted.username, separator), Some(minted.expires));
    assert!(user.is_none_or(|user| credential::user(&minted.username, separator) == user.as_str()));
    assert_eq!(minted.password, credential::password(&secret, &minted.username));
}

/// Any name with any password.
fn nobody_guesses(mut script: Script<'_>) {
    let (name, password) = (script.counted(), script.counted());
    let mut world = World::new();
    let nonce = world.challenge(STRANGER);
    let (user, password) = (String::from_utf8_lossy(name), String::from_utf8_lossy(password));
    let key = Key::md5(&user, REALM, &password);
    let heard = world.allocates(STRANGER, &key, |request| {
        request.bytes(Attribute::USERNAME, name);
        request.bytes(Attribute::REALM, REALM.as_bytes());
        request.bytes(Attribute::NONCE, &nonce);
    });
    assert_ne!(heard, Heard::Welcome, "let in as {user:?} with {password:?}");
}

/// The right credential, and any nonce: bytes of the script, or a real nonce with some bits turned.
fn nonces(mut script: Script<'_>) {
    let mut world = World::new();
    let real = world.challenge(STRANGER);
    let shown = bent(&mut script, &real);
    let key = Key::md5("alice", REALM, PASSWORD);
    let heard = world.allocates(STRANGER, &key, |request| {
        request.bytes(Attribute::USERNAME, b"alice");
        request.bytes(Attribute::REALM, REALM.as_bytes());
        request.bytes(Attribute::NONCE, &shown);
    });
    match shown == real {
        true => assert_eq!(heard, Heard::Welcome),
        false => assert!(matches!(heard, Heard::Error(400 | 438)), "{heard:?} to {shown:?}"),
    }
}

/// A mobility ticket: only the one that was handed out moves the allocation.
fn tickets(mut script: Script<'_>) {
    let mut world = World::new();
    let ticket = world.moves_about();
    let shown = bent(&mut script, &ticket);
    let nonce = world.challenge(STRANGER);
    let heard = world.asks(STRANGER, Method::REFRESH, &Key::md5("alice", REALM, PASSWORD), |request| {
        request.bytes(Attribute::MOBILITY_TICKET, &shown);
        sign_in(request, &nonce);
    });
    match shown == ticket {
        true => assert_eq!(heard, Heard::Welcome),
        false => assert!(matches!(heard, Heard::Error(_)), "{heard:?} to {shown:?}"),
    }
}

/// An access token: only one that was sealed with the key of a key id opens.
fn tokens(mut script: Script<'_>) {
    let mut world = World::new();
    let nonce = world.challenge(STRANGER);
    let (is_inside, kid) = (script.yes(), if script.yes() { "north" } else { "south" });
    // What is sealed may be any bytes, too: the layout inside is read with as much care.
    let token = if is_inside { sealed(script.rest()) } else { bent(&mut script, &sealed(&inside())) };
    let heard = world.allocates(STRANGER, &Key::from_bytes(SESSION_KEY).expect("it is short"), |request| {
        request.bytes(Attribute::USERNAME, kid.as_bytes());
        request.bytes(Attribute::REALM, REALM.as_bytes());
        request.bytes(Attribute::NONCE, &nonce);
        request.bytes(Attribute::ACCESS_TOKEN, &token);
    });
    let is_ours = kid == "north" && token == sealed(&inside());
    match is_ours {
        true => assert_eq!(heard, Heard::Welcome),
        false if is_inside => {}
        false => assert!(matches!(heard, Heard::Error(_)), "{heard:?}"),
    }
}

/// A token's inside as an authorisation server writes it (RFC 7635 §6.2).
fn inside() -> Vec<u8> {
    let made = (NOW.unix.0 << 16).to_be_bytes();
    [&(SESSION_KEY.len() as u16).to_be_bytes(), SESSION_KEY, &made, &3600u32.to_be_bytes()].concat()
}

fn sealed(plain: &[u8]) -> Vec<u8> {
    let nonce = [9; 12];
    let payload = Payload { msg: plain, aad: b"turn.example.org" };
    let sealed = Aes256Gcm::new(&TOKEN_KEY.into()).encrypt(&Nonce::from(nonce), payload).expect("it is short");
    [&12u16.to_be_bytes()[..], &nonce, &sealed].concat()
}

/// Bytes of the script, or a real thing with a few of its bits turned and perhaps another length.
fn bent(script: &mut Script<'_>, real: &[u8]) -> Vec<u8> {
    if script.yes() {
        return script.counted().into();
    }
    let mut shown = real.to_vec();
    for _ in 0..script.byte() % 4 {
        let (at, bits) = (usize::from(script.byte()) % real.len(), script.byte());
        shown[at] ^= bits;
    }
    match script.byte() % 8 {
        0 => shown.truncate(script.byte().into()),
        1 => shown.extend_from_slice(script.counted()),
        _ => {}
    }
    shown
}

fn sign_in(request: &mut Reply<'_>, nonce: &[u8]) {
    request.bytes(Attribute::USERNAME, b"alice");
    request.bytes(Attribute::REALM, REALM.as_bytes());
    request.bytes(Attribute::NONCE, nonce);
}

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// A success, or the wish for a relay socket.
    Welcome,
    Error(u16),
    Silence,
}

const FIRST: u16 = 4000;
const STRANGER: u16 = 5000;

/// A server, and what it said last.
struct World {
    server: Server,
    packet: Packet,
}

impl World {
    fn new() -> Self {
        let relay = RelayAddress { local: HOME.ip(), external: HOME.ip() };
        let mut policy = Policy { realm: REALM.into(), relays: vec![relay], ..Policy::default() };
        let keys = UserKeys {
            md5: Some(Key::md5("alice", REALM, PASSWORD)),
            sha256: Some(Key::sha256("alice", REALM, PASSWORD)),
        };
        policy.auth.users.insert("alice".into(), keys);
        policy.auth.secrets = vec![Secret::new(SECRET)];
        policy.auth.nonce_key = Secret::new("a key for nonces");
        policy.auth.mobility = true;
        policy.auth.oauth = Some(OAuth {
            server_name: "turn.example.org".into(),
            keys: vec![OAuthKey { kid: "north".into(), key: AeadKey::A256Gcm(TOKEN_KEY) }],
        });
        let server = Server::new(Arc::new(policy), Arc::new(Tally::default()), NOW, [7; 32]);
        Self { server, packet: Packet::new(vec![0xAA; 4096].into()) }
    }

    /// The nonce for a client who shows nothing.
    fn challenge(&mut self, port: u16) -> Vec<u8> {
        let heard = self.handles(port, Method::ALLOCATE, |request| {
            request.bytes(Attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        });
        assert_eq!(heard.0, Heard::Error(401));
        let answer = strict::read(self.packet.data());
        answer.get(Attribute::NONCE).expect("a challenge has a nonce").to_vec()
    }

    /// Alice has an allocation on the first port and is told a ticket.
    fn moves_about(&mut self) -> Vec<u8> {
        let nonce = self.challenge(FIRST);
        let key = Key::md5("alice", REALM, PASSWORD);
        let (_, effects) = self.handles(FIRST, Method::ALLOCATE, |request| {
            request.bytes(Attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            request.bytes(Attribute::MOBILITY_TICKET, &[]);
            sign_in(request, &nonce);
            request.sign(Algorithm::Sha1, &key);
        });
        let [Effect::Bind(bind)] = &effects[..] else { panic!("alice is welcome: {effects:?}") };
        let address = RelayAddress { local: HOME.ip(), external: HOME.ip() };
        let bound = Input::Bound { relay: bind.relay, result: Ok(Bound { address, port: 50_000 }), also: None };
        let verdict = self.server.handle(NOW, bound, &mut self.packet, &mut Vec::new());
        assert!(matches!(verdict, Verdict::ToClient(_)));
        let answer = strict::read(self.packet.data());
        answer.get(Attribute::MOBILITY_TICKET).expect("mobility is on").to_vec()
    }

    fn allocates(&mut self, port: u16, key: &Key, write: impl FnOnce(&mut Reply<'_>)) -> Heard {
        self.asks(port, Method::ALLOCATE, key, |request| {
            request.bytes(Attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            write(request);
        })
    }

    fn asks(&mut self, port: u16, method: Method, key: &Key, write: impl FnOnce(&mut Reply<'_>)) -> Heard {
        let (heard, _) = self.handles(port, method, |request| {
            write(request);
            request.sign(Algorithm::Sha1, key);
        });
        heard
    }

    fn handles(&mut self, port: u16, method: Method, write: impl FnOnce(&mut Reply<'_>)) -> (Heard, Vec<Effect>) {
        let client = SocketAddr::from(([198, 51, 100, 1], port));
        let path = Path { tuple: FiveTuple { transport: Transport::Udp, client, server: HOME }, link: Link(1) };
        let mut buf = [0; 4000];
        let mut request = Reply::new(&mut buf, method, Class::Request, [3; 12]);
        write(&mut request);
        let Some(len) = request.finish() else { return (Heard::Silence, Vec::new()) };
        self.packet.fill(&buf[..len]);
        let mut effects = Vec::new();
        let verdict = self.server.handle(NOW, Input::Client(path), &mut self.packet, &mut effects);
        let is_welcome = effects.iter().any(|effect| matches!(effect, Effect::Bind(_)));
        if is_welcome || verdict != Verdict::ToClient(path) {
            return (if is_welcome { Heard::Welcome } else { Heard::Silence }, effects);
        }
        let answer = strict::read(self.packet.data());
        let heard = match answer.get(Attribute::ERROR_CODE) {
            Some([_, _, class, number, ..]) => Heard::Error(u16::from(*class) * 100 + u16::from(*number)),
            _ => Heard::Welcome,
        };
        (heard, effects)
    }
}
