//! What the real program answers to every shape of datagram that a stranger may send, over both families and DTLS.
//!
//! A Binding follows each shape from the same socket: what comes before its answer is the answer to the shape.

use crate::forger::stun;
use crate::pair::Authority;
use crate::server::{Server, Setup};
use crate::shapes::{self, Most, Shape};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20); // on a busy machine; nothing is slow about an answer
const MARK: [u8; 4] = *b"mark";

/// The longest realm for which docs/security.md promises a bound.
const LONGEST_REALM: &str = "realm-of-24-characters.x";

fn server(realm: &'static str) -> (Server, Authority) {
    let authority = Authority::new();
    let tls = authority.pair("server", &["turn.example.org"]).lines();
    let listen = vec![crate::caller::V4, Ipv6Addr::LOCALHOST.into()];
    let limits = "unauthenticated_per_ip = \"1000000/s\"".into();
    let setup = Setup { realm, listen, tls, dtls: true, limits, workers: 1, ..Setup::default() };
    (Server::start_with(&setup), authority)
}

/// A socket that speaks to one listener.
struct Stranger {
    socket: UdpSocket,
    /// Of the last mark.
    count: u64,
}

impl Stranger {
    fn new(to: SocketAddr) -> Self {
        let any = crate::forger::any(to.ip());
        let socket = UdpSocket::bind((any, 0)).expect("a socket");
        socket.connect(to).expect("loopback is there");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        Self { socket, count: 0 }
    }

    /// The same to a listener of DTLS. The mark is a hello, whose number of record the request for proof repeats
    /// (RFC 6347 §4.2.1).
    fn tries_hello(&mut self, shape: &Shape) -> usize {
        self.count += 1;
        let number: [u8; 6] = (1 << 40 | self.count).to_be_bytes()[2..].try_into().expect("six bytes");
        let mut mark = shapes::hello(&[], 0);
        mark[5..11].copy_from_slice(&number);
        self.exchange(&shape.bytes, &mark, |answer| answer[5..11] == number)
    }

    /// Bytes of the answer to a shape; 0 when there is none.
    fn tries(&mut self, shape: &Shape) -> usize {
        self.count += 1;
        let transaction: [u8; 12] = [&MARK[..], &self.count.to_be_bytes()].concat().try_into().expect("twelve bytes");
        self.exchange(&shape.bytes, &stun(1, transaction, &[]), |answer| answer[8..20] == transaction)
    }

    /// Bytes of what comes before the answer to the mark.
    fn exchange(&self, shape: &[u8], mark: &[u8], is_marked: impl Fn(&[u8]) -> bool) -> usize {
        self.socket.send(shape).expect("loopback is there");
        self.socket.send(mark).expect("loopback is there");
        let mut bytes = 0;
        let mut room = [0; 4096];
        loop {
            let length = self.socket.recv(&mut room).expect("the mark is answered");
            if is_marked(&room) {
                return bytes;
            }
            assert_eq!(bytes, 0, "two answers to {shape:02x?}");
            bytes = length;
        }
    }
}

fn holds_to_what_is_promised(realm: &'static str) {
    let (server, _authority) = server(realm);
    for ip in [crate::caller::V4, IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let mut stranger = Stranger::new(SocketAddr::new(ip, server.port));
        let mut most = Most::default();
        for shape in shapes::all(realm) {
            let answer = stranger.tries(&shape);
            assert!(shape.allows(answer, ip.is_ipv4()), "{answer} bytes for {}: {shape:02x?}", shape.bytes.len());
            most.note(&shape, answer);
        }
        most.print(&format!("{ip}, {} characters of realm", realm.len()));
    }
    assert_eq!(server.metric("turnserver_allocations_total"), 0.0);
}

#[test]
fn no_datagram_of_any_shape_is_answered_with_more_than_is_promised() {
    holds_to_what_is_promised("test.example");
}

#[test]
fn with_the_longest_realm_that_has_a_promise_it_is_kept_too() {
    assert_eq!(LONGEST_REALM.len(), 24);
    holds_to_what_is_promised(LONGEST_REALM);
}

#[test]
fn no_hello_of_dtls_is_answered_with_more_bytes_than_it_has() {
    let (server, _authority) = server("test.example");
    let to = SocketAddr::new(crate::caller::V4, server.dtls_port());
    let mut stranger = Stranger::new(to);
    let mut most = Most::default();
    for shape in shapes::hellos() {
        let answer = stranger.tries_hello(&shape);
        assert!(shape.allows(answer, true), "{answer} bytes for {}: {shape:02x?}", shape.bytes.len());
        most.note(&shape, answer);
    }
    most.print("DTLS");
    assert_eq!(server.metric_sum("turnserver_connections{"), 0.0);
}
