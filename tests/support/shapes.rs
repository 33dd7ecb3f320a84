//! Everything a stranger may say in one datagram: lengths, methods, classes, attributes, forged credentials, hellos.
//!
//! The same shapes go to the simulated core and to the real program. What each may be answered with stands in
//! [`Shape::bound`]; whoever tries them holds the answers to it.

#![allow(dead_code, reason = "every test target uses its own part of this")]
#![forbid(unsafe_code)]

use turnserver::wire::codes::{Attribute, Class, Method, PROTOCOL_UDP};
use turnserver::wire::integrity::{Algorithm, Key};
use turnserver::wire::reply::Reply;

/// The longest datagram that is tried: an Ethernet frame's payload.
const MTU: usize = 1500;

/// One datagram, and what kind of thing it is.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) kind: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// What an answer may be, in hundredths of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// None at all.
    Silence,
    Hundredths(usize),
}

impl Shape {
    /// By its type alone: a Binding request may get the sender's address, a request of TURN a challenge, a handshake of
    /// DTLS a request for proof, and all else nothing.
    pub(crate) fn bound(&self, is_v4: bool) -> Bound {
        match self.bytes.get(..2) {
            Some(&[22, ..]) => Bound::Hundredths(100),
            Some(&[0, 1]) => Bound::Hundredths(if is_v4 { 160 } else { 220 }),
            Some(&[0, 3 | 4 | 8 | 9 | 10 | 11]) => Bound::Hundredths(290),
            _ => Bound::Silence,
        }
    }

    /// Whether an answer of this many bytes is within the bound; 0 is none.
    pub(crate) fn allows(&self, answer: usize, is_v4: bool) -> bool {
        match self.bound(is_v4) {
            Bound::Silence => answer == 0,
            Bound::Hundredths(most) => answer * 100 <= self.bytes.len() * most,
        }
    }
}

/// A small generator with a fixed seed (xorshift64*): a failure comes again.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 40) as u8).collect()
    }
}

/// The most that was answered to each kind: bytes, and to how many.
#[derive(Debug, Default)]
pub(crate) struct Most(std::collections::BTreeMap<&'static str, (usize, usize)>);

impl Most {
    pub(crate) fn note(&mut self, shape: &Shape, answer: usize) {
        let most = self.0.entry(shape.kind).or_insert((0, 1));
        if answer * most.1 > most.0 * shape.bytes.len() {
            *most = (answer, shape.bytes.len());
        }
    }

    /// What was found, a line a kind.
    pub(crate) fn print(&self, where_: &str) {
        for (kind, (answer, question)) in &self.0 {
            eprintln!("{where_}: {kind}: {answer} bytes for {question}, {:.2}", *answer as f64 / *question as f64);
        }
    }
}

/// All of them. `realm` is the server's, for forged credentials that come far.
pub(crate) fn all(realm: &str) -> Vec<Shape> {
    let mut shapes = Vec::new();
    let mut add = |kind, bytes| shapes.push(Shape { kind, bytes });
    let mut chance = Chance::new(0x5A4E);
    for length in 1..=MTU {
        add("zeros", vec![0; length]);
        add("noise", chance.bytes(length));
        let mut cut = binding_head(0);
        cut.resize(length.max(20), 0);
        cut.truncate(length);
        add("a Binding whose length is wrong", cut);
        if length >= 20 {
            let mut whole = binding_head(length - 20);
            whole.extend(chance.bytes(length - 20));
            add("a Binding and noise", whole);
        }
        if length >= 24 {
            let mut whole = binding_head(length - 20);
            whole.extend([0xC0, 0, ((length - 24) >> 8) as u8, (length - 24) as u8]);
            whole.resize(length, 0);
            add("a Binding with one long attribute", whole);
        }
        let mut channel = vec![0x40 + (length % 64) as u8, length as u8];
        channel.extend((length as u16).to_be_bytes());
        channel.resize(length + 4, 7);
        add("ChannelData", channel);
    }
    for method in 0..0x1000 {
        for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
            let kind = match class {
                Class::Request if method == Method::BINDING.bits() => "a bare Binding",
                Class::Request => "a bare request of another method",
                Class::Indication | Class::Success | Class::Error => "no request",
            };
            add(kind, message(Method::new(method), class, |_| {}));
        }
        add("a request of 28 bytes", message(Method::new(method), Class::Request, transport));
        add(
            "a FINGERPRINT",
            message(Method::new(method), Class::Request, |request| {
                request.fingerprint();
            }),
        );
    }
    let methods = [
        Method::BINDING,
        Method::ALLOCATE,
        Method::REFRESH,
        Method::CREATE_PERMISSION,
        Method::CHANNEL_BIND,
        Method::CONNECT,
        Method::CONNECTION_BIND,
    ];
    let unknown = [0x0002, 0x0007, 0x1234, 0x7777, 0x7FFF, 0x8001, 0xC057, 0xFFFF].map(Attribute);
    let attributes = || Attribute::ALL.iter().copied().chain(unknown);
    for method in methods {
        for attribute in attributes() {
            for length in (0..=24).chain([64, 128, 508, 763, 1000]) {
                let value = chance.bytes(length);
                for is_marked in [false, true] {
                    add(
                        "one attribute",
                        message(method, Class::Request, |request| {
                            request.bytes(attribute, &value);
                            if is_marked && attribute != Attribute::FINGERPRINT {
                                request.fingerprint();
                            }
                        }),
                    );
                }
                add(
                    "an attribute in an Allocate's shape",
                    message(method, Class::Request, |request| {
                        transport(request);
                        request.bytes(attribute, &value);
                    }),
                );
            }
        }
        // Each would have to be understood; the answer names those that are not.
        for count in 1..=100u16 {
            add(
                "attributes nobody knows",
                message(method, Class::Request, |request| {
                    for at in 0..count {
                        request.bytes(Attribute(0x7000 + at), &[]);
                    }
                }),
            );
        }
        for username in [0, 1, 4, 100, 508] {
            for nonce in [0, 1, 20, 100] {
                for (algorithm, password) in [(Algorithm::Sha1, "p"), (Algorithm::Sha256, "p"), (Algorithm::Sha1, "")] {
                    let (username, nonce) = ("u".repeat(username), "obMatJos2gAAB".repeat(8)[..nonce].to_owned());
                    let forged = message(method, Class::Request, |request| {
                        request.bytes(Attribute::USERNAME, username.as_bytes());
                        request.bytes(Attribute::REALM, realm.as_bytes());
                        request.bytes(Attribute::NONCE, nonce.as_bytes());
                        request.sign(algorithm, &Key::md5(&username, realm, password));
                    });
                    add("a forged credential", forged);
                }
            }
        }
        for algorithm in [Algorithm::Sha1, Algorithm::Sha256] {
            let signed = message(method, Class::Request, |request| {
                request.sign(algorithm, &Key::md5("u", realm, "p"));
            });
            add("a signature alone", signed);
        }
    }
    shapes
}

/// Hellos of DTLS, short and long, whole and broken; only a DTLS listener is asked these.
pub(crate) fn hellos() -> Vec<Shape> {
    let mut shapes = Vec::new();
    let mut add = |bytes| shapes.push(Shape { kind: "a hello of DTLS", bytes });
    for cookie in (0..=255).step_by(5) {
        for padding in [0, 1, 16, 300, 1000] {
            add(hello(&vec![7; cookie], padding));
        }
    }
    let whole = hello(&[], 64);
    for at in 0..whole.len() {
        add(whole[..at + 1].to_vec());
        for bit in 0..8 {
            let mut wrong = whole.clone();
            wrong[at] ^= 1 << bit;
            add(wrong);
        }
    }
    shapes.retain(|shape| shape.bytes.first() == Some(&22));
    shapes
}

/// A ClientHello of DTLS 1.2 with one cipher suite: without `padding` as short as one can be.
pub(crate) fn hello(cookie: &[u8], padding: usize) -> Vec<u8> {
    let mut body = [&[0xFE, 0xFD][..], &[9; 32], &[0, cookie.len() as u8], cookie, &[0, 2, 0xC0, 0x2B, 1, 0]].concat();
    if padding > 0 {
        body.extend((padding as u16 + 4).to_be_bytes());
        body.extend([0, 21]);
        body.extend((padding as u16).to_be_bytes());
        body.resize(body.len() + padding, 0);
    }
    let length = &(body.len() as u32).to_be_bytes()[1..];
    let message = [&[1], length, &[0, 0, 0, 0, 0], length, &body].concat();
    [&[22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0][..], &(message.len() as u16).to_be_bytes(), &message].concat()
}

fn transport(request: &mut Reply<'_>) {
    request.bytes(Attribute::REQUESTED_TRANSPORT, &[PROTOCOL_UDP, 0, 0, 0]);
}

fn binding_head(length: usize) -> Vec<u8> {
    let length = (length as u16).to_be_bytes();
    [&[0, 1][..], &length, &[0x21, 0x12, 0xA4, 0x42], &[3; 12]].concat()
}

fn message(method: Method, class: Class, write: impl FnOnce(&mut Reply<'_>)) -> Vec<u8> {
    let mut room = [0; 2048];
    let mut message = Reply::new(&mut room, method, class, [5; 12]);
    write(&mut message);
    let length = message.finish().expect("there is room");
    room[..length].to_vec()
}
