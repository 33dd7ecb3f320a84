//! TCP relays (RFC 6062) over real sockets: bytes that nobody reads between a client and a peer.

use crate::caller::{Caller, V4, Wire};
use crate::server::{Server, Setup, until};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;
use turnserver::wire::codes::{Attribute, Method, PROTOCOL_TCP};
use turnserver::wire::stun::Message;

const PATIENCE: Duration = Duration::from_secs(10);
/// More than all buffers on the way hold.
const MUCH: usize = 8 << 20;

/// A server whose workers both have clients: a second connection may reach another one than the first.
fn two_workers() -> Server {
    Server::start_with(&Setup { workers: 2, allow: vec!["127.0.0.0/8"], ..Setup::default() })
}

/// A client with a TCP relay, and the relay address.
pub(crate) fn dialling(server: &Server) -> (Caller, SocketAddr) {
    let mut caller = Caller::tcp(server.address());
    let relay = allocate(&mut caller);
    (caller, relay)
}

/// The same client, with a TCP relay.
pub(crate) fn dials(mut caller: Caller) -> Caller {
    allocate(&mut caller);
    caller
}

fn allocate(caller: &mut Caller) -> SocketAddr {
    let wish = [PROTOCOL_TCP, 0, 0, 0];
    let answer = caller.ask(|client| {
        client.request(Method::ALLOCATE, |request| {
            request.bytes(Attribute::REQUESTED_TRANSPORT, &wish);
        })
    });
    answer.expect("an allocation").relayed.expect("a relay address")
}

/// The CONNECTION-ID of a Connect, or its error code.
pub(crate) fn connect(caller: &mut Caller, peer: SocketAddr) -> Result<[u8; 4], u16> {
    let request = caller.client.request(Method::CONNECT, |request| {
        request.xor_address(Attribute::XOR_PEER_ADDRESS, peer);
    });
    caller.says(&request);
    let answer = caller.hears().expect("an answer");
    let answer = Message::parse(&answer).expect("STUN");
    match answer.get(Attribute::ERROR_CODE) {
        Some([_, _, class, number, ..]) => Err(u16::from(*class) * 100 + u16::from(*number)),
        _ => Ok(answer.bytes(Attribute::CONNECTION_ID).expect("an id").expect("of four bytes")),
    }
}

/// The client's second connection, once it is joined to the peer's, and what the peer has said by then.
fn bound(server: &Server, id: [u8; 4]) -> (TcpStream, Vec<u8>) {
    let mut data = Caller::tcp(server.address());
    let bind = |client: &mut turnserver::client::Client| {
        client.request(Method::CONNECTION_BIND, |request| {
            request.bytes(Attribute::CONNECTION_ID, &id);
        })
    };
    data.ask(bind).expect("the connections are joined");
    let Wire::Tcp(stream, rest) = data.wire else { panic!("over TCP") };
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
    (stream, rest)
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((V4, 0)).expect("a listener");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

fn pattern(seed: usize) -> Vec<u8> {
    (0..MUCH).map(|at| ((at * 31 + seed) % 251) as u8).collect()
}

/// Writes all of it while the other side reads all of it.
fn carries(mut from: &TcpStream, mut to: &TcpStream, bytes: &[u8]) {
    thread::scope(|scope| {
        scope.spawn(|| from.write_all(bytes).expect("it is taken"));
        let mut received = vec![0; bytes.len()];
        to.read_exact(&mut received).expect("it arrives");
        assert!(received == bytes, "unchanged");
    });
}

#[test]
fn j09_j10_j17_what_client_and_peer_say_arrives_unchanged_whichever_workers_have_them() {
    let server = two_workers();
    for seed in 0..6 {
        let (mut caller, relay) = dialling(&server);
        let (peers, address) = listener();
        let id = connect(&mut caller, address).expect("the peer listens");
        let (peer, from) = peers.accept().unwrap();
        assert_eq!(from, relay, "the peer sees the relay address");
        assert_eq!(connect(&mut caller, address), Err(446), "there is one already");
        (&peer).write_all(b"before the client is there").unwrap();
        let (data, mut early) = bound(&server, id);
        let said = early.len();
        early.resize(26, 0);
        (&data).read_exact(&mut early[said..]).unwrap();
        assert_eq!(early, b"before the client is there");
        peer.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        carries(&data, &peer, &pattern(seed));
        carries(&peer, &data, &pattern(seed + 100));
    }
}

#[test]
fn j10_what_a_peer_says_before_the_bind_waits_with_the_peer() {
    let server = two_workers();
    let (mut caller, _) = dialling(&server);
    let (peers, address) = listener();
    let id = connect(&mut caller, address).expect("the peer listens");
    let (mut peer, _) = peers.accept().unwrap();
    let bytes = pattern(7).repeat(4);
    let memory = server.memory();
    peer.set_nonblocking(true).expect("a stream can be told not to wait");
    let mut said = 0;
    until("the peer has to wait", || match peer.write(&bytes[said..]) {
        Ok(count) => {
            said += count;
            false
        }
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    });
    assert!(said < bytes.len(), "the window has shrunk");
    caller.refresh(None).expect("the control connection does not wait with it");
    assert!(server.memory() < memory + (4 << 20), "what waits does so in the kernel");
    peer.set_nonblocking(false).expect("a stream can be told to wait");
    thread::scope(|scope| {
        scope.spawn(|| (&peer).write_all(&bytes[said..]).expect("it is taken"));
        let (data, mut received) = bound(&server, id);
        let early = received.len();
        received.resize(bytes.len(), 0);
        (&data).read_exact(&mut received[early..]).expect("it arrives");
        assert!(received == bytes, "all of it, unchanged");
    });
}

#[test]
fn j12_j13_j19_a_peer_that_comes_is_announced_and_each_side_hears_the_others_end() {
    let server = two_workers();
    let (mut caller, relay) = dialling(&server);
    let mut stranger = TcpStream::connect(relay).unwrap();
    stranger.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
    assert!(!matches!(stranger.read(&mut [0; 1]), Ok(1..)), "without a permission the connection closes");
    let (_, elsewhere) = listener();
    caller.permit(elsewhere).expect("a permission");
    let peer = TcpStream::connect(relay).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
    let attempt = caller.hears().expect("word of it");
    let attempt = Message::parse(&attempt).unwrap();
    assert_eq!(attempt.method, Method::CONNECTION_ATTEMPT);
    assert_eq!(attempt.xor_address(Attribute::XOR_PEER_ADDRESS), Some(Ok(peer.local_addr().unwrap())));
    let (data, _) = bound(&server, attempt.bytes(Attribute::CONNECTION_ID).unwrap().unwrap());
    (&data).write_all(b"a question").unwrap();
    data.shutdown(Shutdown::Write).unwrap();
    let mut question = String::new();
    (&peer).read_to_string(&mut question).unwrap();
    assert_eq!(question, "a question");
    (&peer).write_all(b"an answer after that").unwrap();
    drop(peer);
    let mut answer = String::new();
    (&data).read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "an answer after that");
}

#[test]
fn j08_j09_a_peer_that_is_closed_or_forbidden_is_said_so() {
    let server = two_workers();
    let (mut caller, _) = dialling(&server);
    let (closed, address) = listener();
    drop(closed);
    assert_eq!(connect(&mut caller, address), Err(447));
    assert_eq!(connect(&mut caller, "10.0.0.1:80".parse().unwrap()), Err(403));
    assert_eq!(connect(&mut caller, server.address()), Err(403), "the server's own port");
    let (_open, address) = listener();
    assert!(connect(&mut caller, address).is_ok(), "none of it did harm");
}

#[test]
fn j18_j21_the_end_of_the_allocation_is_the_end_of_its_connections() {
    let server = two_workers();
    for is_released in [true, false] {
        let (mut caller, _) = dialling(&server);
        let (peers, address) = listener();
        let id = connect(&mut caller, address).unwrap();
        let (mut peer, _) = peers.accept().unwrap();
        peer.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        let (mut data, _) = bound(&server, id);
        if is_released {
            caller.refresh(Some(0)).expect("it ends");
        } else {
            drop(caller);
        }
        assert!(!matches!(peer.read(&mut [0; 1]), Ok(1..)));
        assert!(!matches!(data.read(&mut [0; 1]), Ok(1..)));
    }
    until("every connection is closed", || server.metric("turnserver_connections{transport=\"tcp\"}") == 0.0);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a rate is bytes in the time that passed")]
fn connections_keep_within_the_bandwidth_of_the_server() {
    const RATE: usize = 1_000_000;
    let limits = "bandwidth = \"8 Mbit/s\"".to_owned();
    let server = Server::start_with(&Setup { workers: 2, allow: vec!["127.0.0.0/8"], limits, ..Setup::default() });
    let (mut caller, _) = dialling(&server);
    let (listener, peer) = listener();
    let id = connect(&mut caller, peer).expect("a connection");
    let (mut peer, _) = listener.accept().expect("the relay connects");
    let (client, _) = bound(&server, id);
    let bytes = 2 * RATE;
    let began = std::time::Instant::now();
    let says = thread::spawn(move || peer.write_all(&vec![7; bytes]).map(|()| peer));
    let count = std::io::copy(&mut (&client).take(bytes as u64), &mut std::io::sink()).expect("it all comes");
    let passed = began.elapsed();
    assert_eq!(count, bytes as u64);
    assert!(says.join().is_ok_and(|said| said.is_ok()));
    assert!(passed > Duration::from_millis(700), "{bytes} bytes in {passed:?}");
}
