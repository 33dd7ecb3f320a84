//! Datagrams that are nothing, or nearly something.

use crate::caller::{Caller, Peer};
use crate::server::{Server, Setup};
use turnserver::client::Client;
use turnserver::wire::codes::{Attribute, Method};

const RANDOM: usize = 10_000;
const MUTATED: usize = 4_000;

/// A small generator with a fixed seed (xorshift64*): a failure comes again.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 40) as u8).collect()
    }
}

/// Sends datagrams, never more at once than a socket's buffer holds: after each few a Binding must be answered.
/// Returns how many were sent in all.
fn pour(server: &Server, datagrams: impl Iterator<Item = Vec<u8>>) -> f64 {
    const AT_ONCE: usize = 50;
    let mut caller = Caller::udp(server.address());
    for (at, datagram) in datagrams.enumerate() {
        caller.says(&datagram);
        if at % AT_ONCE == 0 {
            caller.binding().expect("a Binding is answered whatever came before");
        }
    }
    caller.binding().expect("a Binding is answered whatever came before");
    caller.sent.into()
}

/// A server that answers strangers as often as they ask, for they ask often here.
fn talkative() -> Server {
    let limits = "unauthenticated_per_ip = \"100000/s\"".into();
    Server::start_with(&Setup { limits, ..Setup::default() })
}

/// Datagrams that were answered, and that were dropped.
fn fates(server: &Server) -> (f64, f64) {
    (server.metric_sum("turnserver_stun_responses_total{"), server.metric_sum("turnserver_dropped_packets_total{"))
}

#[test]
fn s47_ten_thousand_random_datagrams_are_each_counted_once() {
    let server = talkative();
    let mut chance = Chance(0x5EED);
    let mut first = 0u8;
    let random = (0..RANDOM).map(|_| {
        let len = chance.below(200);
        let mut bytes = chance.bytes(len);
        // Every first byte comes up, so that every kind of message is tried.
        if let Some(byte) = bytes.first_mut() {
            first = first.wrapping_add(1);
            *byte = first;
        }
        bytes
    });
    let sent = pour(&server, random);
    let (answered, dropped) = fates(&server);
    assert_eq!((answered, dropped), (sent - RANDOM as f64, RANDOM as f64));
}

#[test]
fn a_message_with_one_wrong_bit_is_answered_or_counted_as_dropped() {
    let server = talkative();
    let mut client = Client::new("u", "p", 9);
    let peer = Peer::new().address();
    let messages = [
        client.binding(),
        client.allocate(None),
        client.refresh(Some(600)),
        client.channel_bind(0x4000, peer),
        client.create_permission(&[peer]),
        client.send(peer, b"data"),
        client.request(Method::ALLOCATE, |request| {
            request.bytes(Attribute::USERNAME, b"u").bytes(Attribute::NONCE, b"none").fingerprint();
        }),
    ];
    let mut chance = Chance(0xB17);
    let mutated = (0..MUTATED).filter_map(|_| {
        let mut message = messages[chance.below(messages.len())].clone();
        match chance.below(4) {
            0 => message.truncate(chance.below(message.len())),
            1 => {
                let more = chance.below(40);
                message.extend(chance.bytes(more));
            }
            _ => {
                let at = chance.below(message.len());
                message[at] ^= 1 << chance.below(8);
            }
        }
        // A Binding indication is a keep-alive: neither answered nor lost.
        let is_keep_alive = message.get(..2) == Some(&[0x00, 0x11][..]);
        (!is_keep_alive).then_some(message)
    });
    let sent = pour(&server, mutated);
    let (answered, dropped) = fates(&server);
    assert_eq!(answered + dropped, sent, "{answered} answered, {dropped} dropped");
    assert!(dropped > sent / 2.0, "{dropped} of {sent} were dropped");
    Caller::tcp(server.address()).allocate().expect("the server is well");
}
