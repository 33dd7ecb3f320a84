//! Messages in a byte stream (RFC 8656 §12.5), and what becomes of a stream that holds something else.

use crate::caller::{CHANNEL, Caller, Data, Peer, V4, Wire, channel_data, padded};
use crate::server::{Server, Setup, until};
use socket2::{Domain, Socket, Type};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;
use turnserver::client::Client;

const CONNECTIONS: &str = "turnserver_connections{transport=\"tcp\"}";
const NOISE: &str = "turnserver_dropped_packets_total{reason=\"noise\"}";

fn opened() -> Server {
    Server::start_with(&Setup { allow: vec!["127.0.0.0/8"], ..Setup::default() })
}

/// A caller over TCP with a channel to a peer.
fn on_a_channel(server: &Server) -> (Caller, Peer, SocketAddr) {
    let (mut caller, peer) = (Caller::tcp(server.address()), Peer::new());
    let relay = caller.allocate().expect("an allocation");
    caller.bind(CHANNEL, peer.address()).expect("a channel");
    (caller, peer, relay)
}

fn stream(caller: &mut Caller) -> &mut TcpStream {
    let Wire::Tcp(stream, _) = &mut caller.wire else { panic!("a caller over TCP") };
    stream
}

#[test]
fn s23_three_requests_in_one_segment_get_three_answers_in_order() {
    let server = Server::start();
    let mut caller = Caller::tcp(server.address());
    let requests: Vec<Vec<u8>> = (0..3).map(|_| caller.client.binding()).collect();
    stream(&mut caller).write_all(&requests.concat()).expect("the server reads");
    for request in &requests {
        assert_eq!(caller.hears().expect("an answer")[8..20], request[8..20]);
    }
}

#[test]
fn s23_a_request_that_comes_byte_by_byte_is_answered() {
    let server = Server::start();
    let mut caller = Caller::tcp(server.address());
    let request = caller.client.allocate(None);
    for byte in &request {
        stream(&mut caller).write_all(&[*byte]).expect("the server reads");
    }
    assert_eq!(caller.hears().expect("an answer")[8..20], request[8..20]);
}

#[test]
fn s23_c20_stun_and_channel_data_stand_back_to_back() {
    let server = opened();
    let (mut caller, peer, relay) = on_a_channel(&server);
    let first = caller.client.binding();
    let last = caller.client.refresh(None);
    let all =
        [padded(&first), padded(&channel_data(CHANNEL, b"abc")), padded(&channel_data(CHANNEL, b"")), last.clone()];
    stream(&mut caller).write_all(&all.concat()).expect("the server reads");
    assert_eq!(caller.hears().expect("an answer")[8..20], first[8..20]);
    assert_eq!(caller.hears().expect("an answer")[8..20], last[8..20]);
    assert_eq!(peer.hears(), (relay, b"abc".to_vec()));
    assert_eq!(peer.hears(), (relay, Vec::new()));
}

#[test]
fn t06_c20_c21_channel_data_of_every_length_is_padded_both_ways() {
    let server = opened();
    let (mut caller, peer, relay) = on_a_channel(&server);
    for length in 0..10 {
        let payload = &b"0123456789"[..length];
        caller.sends_on(CHANNEL, payload);
        assert_eq!(peer.hears(), (relay, payload.to_vec()));
        peer.says(relay, payload);
        // The caller cuts messages at multiples of four and looks at the padding.
        assert_eq!(caller.data(), Data::On(CHANNEL, payload.to_vec()));
    }
    caller.binding().expect("the stream is still in step");
}

#[test]
fn h08_h09_the_largest_datagram_passes_over_tcp_both_ways() {
    let server = opened();
    let (mut caller, peer, relay) = on_a_channel(&server);
    let payload: Vec<u8> = (0..65_507u32).map(|at| at as u8).collect();
    caller.sends_on(CHANNEL, &payload);
    assert_eq!(peer.hears(), (relay, payload.clone()));
    peer.says(relay, &payload);
    assert_eq!(caller.data(), Data::On(CHANNEL, payload));
}

#[test]
fn s19_each_connection_hears_the_answers_to_its_own_questions() {
    let server = Server::start_with(&Setup { workers: 2, ..Setup::default() });
    let mut callers: Vec<Caller> = (0..4).map(|_| Caller::tcp(server.address())).collect();
    let mut asked = vec![Vec::new(); callers.len()];
    for round in 0..6 {
        for (caller, asked) in callers.iter_mut().zip(&mut asked) {
            let request = if round % 2 == 0 { caller.client.binding() } else { caller.client.allocate(None) };
            caller.says(&request);
            asked.push(request[8..20].to_vec());
        }
    }
    // The last to ask reads first.
    for (caller, asked) in callers.iter_mut().zip(&asked).rev() {
        for transaction in asked {
            assert_eq!(caller.hears().expect("an answer")[8..20], *transaction);
        }
    }
}

#[test]
fn s21_s45_after_its_answer_a_connection_stays_open_and_nothing_is_said_again() {
    const LONG: Duration = Duration::from_secs(10); // RFC 8489 §6.2.2 has no less
    let server = Server::start();
    let (mut tcp, mut udp) = (Caller::tcp(server.address()), Caller::udp(server.address()));
    let Wire::Udp(socket) = &udp.wire else { panic!("a caller over UDP") };
    // Both wait at once: the datagrams that do not come lie in the socket meanwhile.
    let socket = socket.try_clone().expect("a socket can be shared");
    udp.binding().expect("an answer");
    tcp.binding().expect("an answer");
    stream(&mut tcp).set_read_timeout(Some(LONG)).expect("a time-out can be set");
    let silence = stream(&mut tcp).read(&mut [0; 1]).expect_err("neither a byte nor an end");
    assert_eq!(silence.kind(), std::io::ErrorKind::WouldBlock);
    socket.set_nonblocking(true).expect("a socket can be told not to wait");
    assert!(socket.recv(&mut [0; 1]).is_err(), "no answer comes twice");
    socket.set_nonblocking(false).expect("a socket can be told to wait");
    tcp.binding().expect("it is still open");
    udp.binding().expect("and nothing else is in the way");
}

#[test]
fn s22_nobody_is_called_back_to_be_answered() {
    const ASKED: &str = "turnserver_stun_requests_total{method=\"binding\",transport=\"tcp\"}";
    let server = Server::start();
    for round in 1..=3 {
        // Whoever wanted to bring the answer would come to the port that the request was sent from.
        let socket = |local: SocketAddr| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_reuse_port(true).expect("a port can be shared");
            socket.bind(&local.into()).expect("the port is free");
            socket
        };
        let client = socket(SocketAddr::new(V4, 0));
        client.connect(&server.address().into()).expect("the server listens");
        let door = socket(client.local_addr().expect("an address").as_socket().expect("of the internet"));
        door.listen(1).expect("a socket can listen");
        door.set_nonblocking(true).expect("a listener can be told not to wait");
        TcpStream::from(client).write_all(&Client::new("u", "p", 1).binding()).expect("the server reads");
        until("the request is read", || server.metric(ASKED) >= f64::from(round));
        until("the connection is gone", || server.metric(CONNECTIONS) < 1.0);
        assert!(door.accept().is_err(), "nobody comes");
    }
}

#[test]
fn c28_what_a_length_covers_is_never_read_as_a_message() {
    let server = opened();
    let (mut caller, peer, relay) = on_a_channel(&server);
    // The longest frame there is, for a channel that nobody bound, full of requests that would be answered.
    let mut frame = vec![0x4F, 0xFF, 0xFF, 0xFF];
    while frame.len() + 20 <= 65_540 {
        frame.extend(caller.client.binding());
    }
    frame.resize(65_540, 0);
    stream(&mut caller).write_all(&frame[..40_000]).expect("the server reads");
    peer.says(relay, b"undisturbed");
    assert_eq!(caller.data(), Data::On(CHANNEL, b"undisturbed".to_vec()), "no answer came before it");
    stream(&mut caller).write_all(&frame[40_000..]).expect("the server reads");
    let next = caller.client.binding();
    caller.says(&next);
    assert_eq!(caller.hears().expect("an answer")[8..20], next[8..20], "the stream is in step");
}

#[test]
fn h09_over_udp_every_size_passes_that_fits_with_its_head() {
    let server = opened();
    let (mut caller, peer) = (Caller::udp(server.address()), Peer::new());
    let relay = caller.allocate().expect("an allocation");
    caller.permit(peer.address()).expect("a permission");
    // An IPv4 datagram holds 65507 bytes: DATA is padded behind 36 bytes of head, ChannelData is not behind its 4.
    for (most, is_bound) in [(65_468, false), (65_503, true)] {
        if is_bound {
            caller.bind(CHANNEL, peer.address()).expect("a channel");
        }
        for size in (1400..1500).step_by(9).chain([1500, 9000, most - 1, most]) {
            let payload: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            if is_bound {
                caller.sends_on(CHANNEL, &payload)
            } else {
                caller.sends_to(peer.address(), &payload)
            }
            assert_eq!(peer.hears(), (relay, payload.clone()));
            peer.says(relay, &payload);
            let expected = if is_bound { Data::On(CHANNEL, payload) } else { Data::From(peer.address(), payload) };
            assert_eq!(caller.data(), expected);
        }
    }
}

#[test]
fn h09_a_datagram_too_large_for_udp_is_counted_and_costs_nothing_else() {
    let server = opened();
    let (mut caller, peer, relay) = on_a_channel(&server);
    caller.sends_on(CHANNEL, &vec![1; 65_535]);
    caller.sends_on(CHANNEL, b"after");
    assert_eq!(peer.hears(), (relay, b"after".to_vec()));
    assert_eq!(server.metric("turnserver_dropped_packets_total{reason=\"too_large\"}"), 1.0);
}

#[test]
fn noise_closes_its_connection_and_no_other() {
    let server = opened();
    let (mut caller, peer, relay) = on_a_channel(&server);
    let tls = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC];
    let cookieless = [0, 1, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let noises: [&[u8]; 4] = [&tls, &cookieless, b"\r\n\r\n", &[0xFF; 64]];
    for (already, noise) in noises.into_iter().enumerate() {
        let mut noisy = TcpStream::connect(server.address()).expect("the server listens");
        noisy.write_all(noise).expect("the server reads");
        let mut heard = Vec::new();
        let _reset_or_ended = noisy.read_to_end(&mut heard);
        assert_eq!(heard, b"", "noise is not answered");
        assert_eq!(server.metric(NOISE), already as f64 + 1.0);
    }
    peer.says(relay, b"undisturbed");
    assert_eq!(caller.data(), Data::On(CHANNEL, b"undisturbed".to_vec()));
    assert_eq!(server.metric(CONNECTIONS), 1.0);
}

#[test]
fn http_on_a_turn_port_is_not_answered() {
    let server = Server::start();
    for request in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST /v1/ice-servers HTTP/1.1\r\nContent-Length: 0\r\n\r\n"] {
        // "GE" and "PO" are channel numbers, and "T " or "ST" the length of what never comes.
        let mut browser = TcpStream::connect(server.address()).expect("the server listens");
        browser.write_all(request.as_bytes()).expect("the server reads");
        browser.shutdown(std::net::Shutdown::Write).expect("a stream can be half closed");
        let mut heard = Vec::new();
        let _reset_or_ended = browser.read_to_end(&mut heard);
        assert_eq!(heard, b"");
    }
    until("the connections are gone", || server.metric(CONNECTIONS) < 1.0);
}

#[test]
fn half_a_message_and_a_close_leaves_nothing_behind() {
    let server = Server::start();
    for half in [1, 3, 19, 27] {
        let mut caller = Caller::tcp(server.address());
        caller.binding().expect("an answer");
        let request = Client::new("u", "p", 1).allocate(None);
        assert_eq!(request.len(), 28);
        stream(&mut caller).write_all(&request[..half]).expect("the server reads");
    }
    until("every connection is gone", || server.metric(CONNECTIONS) < 1.0);
}

#[test]
fn closing_the_connection_ends_its_allocation_at_once() {
    let server = opened();
    let (caller, _peer, relay) = on_a_channel(&server);
    assert_eq!(server.metric_sum("turnserver_allocations{"), 1.0);
    drop(caller);
    until("the allocation is gone", || server.metric_sum("turnserver_allocations{") < 1.0);
    UdpSocket::bind(relay).expect("the relay port is free");
    until("the end is in the log", || server.log().contains("\"reason\":\"disconnected\""));
    assert_eq!(server.metric("turnserver_permissions"), 0.0);
    assert_eq!(server.metric("turnserver_channels"), 0.0);
}
