//! What stands in IP headers on the far side, as Wireshark reads them: DSCP, ECN, TTL, DF (RFC 8656 §14).

#![forbid(unsafe_code)]

use crate::capture::Capture;
use crate::server::{Server, Setup, free_port};
use socket2::SockRef;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;
use turnserver::client::{Client, Heard};
use turnserver::wire::codes::{Attribute, Class, HEADER, Method};
use turnserver::wire::reply::Reply;
use turnserver::wire::stun::{Family, Message};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
/// DSCP 46 (expedited forwarding) and ECT(0).
const CLASS: u32 = 46 << 2 | 0b10;
const TTL: u32 = 40;
const PATIENCE: Duration = Duration::from_secs(20);

fn server(ip: IpAddr) -> Server {
    let allow = vec!["127.0.0.0/8", "::1/128"];
    Server::start_with(&Setup { listen: vec![ip], relay: vec![ip], allow, ..Setup::default() })
}

/// A socket whose datagrams carry [`CLASS`] and [`TTL`].
fn marked(ip: IpAddr) -> UdpSocket {
    let socket = plain(ip);
    let options = SockRef::from(&socket);
    let set = match ip {
        IpAddr::V4(_) => options.set_tos_v4(CLASS).and_then(|()| options.set_ttl_v4(TTL)),
        IpAddr::V6(_) => options.set_tclass_v6(CLASS).and_then(|()| options.set_unicast_hops_v6(TTL)),
    };
    set.expect("a socket takes marks");
    socket
}

fn plain(ip: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ip, free_port())).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
    socket
}

/// A client with an allocation, and a permission for one peer.
struct Caller {
    client: Client,
    socket: UdpSocket,
    relayed: SocketAddr,
}

impl Caller {
    fn new(server: &Server, ip: IpAddr, socket: UdpSocket, peer: SocketAddr) -> Self {
        socket.connect((ip, server.port)).expect("loopback is there");
        let mut caller = Self { client: Client::new("u", "p", 9), socket, relayed: peer };
        let family = Some(Family::of(peer.ip()));
        let _challenge = caller.ask(|client| client.allocate(family));
        let relayed = caller.ask(|client| client.allocate(family));
        let Heard::Success(success) = relayed else { panic!("no allocation: {relayed:?}") };
        caller.relayed = success.relayed.expect("a relay address");
        let permitted = caller.ask(|client| client.create_permission(&[peer]));
        assert!(matches!(permitted, Heard::Success(_)), "{permitted:?}");
        caller
    }

    fn ask(&mut self, make: impl FnOnce(&mut Client) -> Vec<u8>) -> Heard {
        let request = make(&mut self.client);
        self.socket.send(&request).expect("loopback is there");
        let answer = self.hears();
        self.client.hear(&answer).expect("an answer")
    }

    fn hears(&self) -> Vec<u8> {
        let mut room = vec![0; 2000];
        let len = self.socket.recv(&mut room).expect("a message comes in time");
        room.truncate(len);
        room
    }

    fn sends(&mut self, peer: SocketAddr, payload: &[u8]) {
        let message = self.client.send(peer, payload);
        self.socket.send(&message).expect("loopback is there");
    }
}

/// The header fields of the one datagram between these ports.
fn header(capture: &Capture, from: u16, to: u16, fields: &[&str]) -> Vec<String> {
    let mut found = capture.fields(&format!("udp.srcport == {from} && udp.dstport == {to} && data"), fields);
    assert_eq!(found.len(), 1, "{from} -> {to}: {found:?}");
    found.remove(0)
}

fn marks_go_both_ways(ip: IpAddr, fields: &[&str]) {
    let server = server(ip);
    let peer = marked(ip);
    let at = peer.local_addr().expect("a bound socket");
    // Ports of the relay range may belong to other protocols, which Wireshark would read there.
    let decode_as = vec![format!("udp.port=={},stun", server.port), format!("udp.port=={},data", at.port())];
    let filter = format!("udp port {} or udp port {}", server.port, at.port());
    let Some(mut capture) = Capture::start(&filter, decode_as) else { return };
    let mut caller = Caller::new(&server, ip, marked(ip), at);
    let client = caller.socket.local_addr().expect("a bound socket");
    let mut room = [0; 100];

    caller.sends(at, b"to the peer");
    let (_, from) = peer.recv_from(&mut room).expect("the datagram is relayed");
    assert_eq!(from, caller.relayed);
    peer.send_to(b"to the client", from).expect("loopback is there");
    let message = caller.hears();
    assert!(matches!(caller.client.hear(&message), Ok(Heard::Data { .. })));
    capture.end();

    let expected = ["46", "2", "39"];
    assert_eq!(header(&capture, from.port(), at.port(), fields), expected, "to the peer");
    let data = format!("udp.srcport == {} && udp.dstport == {} && stun.type == 0x17", server.port, client.port());
    assert_eq!(capture.fields(&data, fields), [expected], "to the client");
}

#[test]
fn h01_h02_h04_dscp_ecn_and_ttl_go_both_ways_over_ipv4() {
    marks_go_both_ways(V4, &["ip.dsfield.dscp", "ip.dsfield.ecn", "ip.ttl"]);
}

#[test]
fn h01_h02_h04_the_traffic_class_and_hop_limit_go_both_ways_over_ipv6() {
    marks_go_both_ways(V6, &["ipv6.tclass.dscp", "ipv6.tclass.ecn", "ipv6.hlim"]);
}

#[test]
fn h03_d06_dont_fragment_sets_df_and_nothing_else_does() {
    let server = server(V4);
    let peers = [plain(V4), plain(V4)];
    let at = peers.each_ref().map(|peer| peer.local_addr().expect("a bound socket"));
    let decode_as = at.iter().map(|at| format!("udp.port=={},data", at.port())).collect();
    let filter = format!("udp port {} or udp port {}", at[0].port(), at[1].port());
    let Some(mut capture) = Capture::start(&filter, decode_as) else { return };
    let mut caller = Caller::new(&server, V4, plain(V4), at[0]);

    caller.sends(at[0], b"in pieces, if need be");
    caller.socket.send(&in_one_piece(at[1])).expect("loopback is there");
    for peer in &peers {
        peer.recv(&mut [0; 200]).expect("the datagram is relayed");
    }
    capture.end();

    let flag = |to: SocketAddr| header(&capture, caller.relayed.port(), to.port(), &["ip.flags.df"]);
    assert_eq!(flag(at[0]), ["0"]);
    assert_eq!(flag(at[1]), ["1"]);
}

#[test]
fn h05_h06_from_ipv6_to_ipv4_the_class_crosses_and_dont_fragment_means_nothing() {
    let allow = vec!["127.0.0.0/8"];
    let server = Server::start_with(&Setup { listen: vec![V6], relay: vec![V4], allow, ..Setup::default() });
    let peer = plain(V4);
    let at = peer.local_addr().expect("a bound socket");
    let decode_as = vec![format!("udp.port=={},data", at.port())];
    let Some(mut capture) = Capture::start(&format!("udp port {}", at.port()), decode_as) else { return };
    let caller = Caller::new(&server, V6, marked(V6), at);

    caller.socket.send(&in_one_piece(at)).expect("loopback is there");
    peer.recv(&mut [0; 200]).expect("the datagram is relayed");
    capture.end();

    let fields = ["ip.dsfield.dscp", "ip.dsfield.ecn", "ip.ttl", "ip.flags.df"];
    assert_eq!(header(&capture, caller.relayed.port(), at.port(), &fields), ["46", "2", "39", "0"]);
}

#[test]
fn h07_from_a_connection_datagrams_leave_unmarked_but_for_the_df_that_was_asked_for() {
    let server = server(V4);
    let peers = [plain(V4), plain(V4)];
    let at = peers.each_ref().map(|peer| peer.local_addr().expect("a bound socket"));
    let decode_as = at.iter().map(|at| format!("udp.port=={},data", at.port())).collect();
    let filter = format!("udp port {} or udp port {}", at[0].port(), at[1].port());
    let Some(mut capture) = Capture::start(&filter, decode_as) else { return };
    let mut stream = TcpStream::connect((V4, server.port)).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
    let options = SockRef::from(&stream);
    options.set_tos_v4(CLASS).and_then(|()| options.set_ttl_v4(TTL)).expect("a socket takes marks");
    let mut client = Client::new("u", "p", 9);
    let mut ask = |make: &dyn Fn(&mut Client) -> Vec<u8>| {
        stream.write_all(&make(&mut client)).expect("the server reads");
        let mut answer = vec![0; HEADER];
        stream.read_exact(&mut answer).expect("an answer comes in time");
        answer.resize(HEADER + usize::from(u16::from_be_bytes([answer[2], answer[3]])), 0);
        stream.read_exact(&mut answer[HEADER..]).expect("all of it comes");
        client.hear(&answer).expect("an answer")
    };
    let _challenge = ask(&|client| client.allocate(None));
    let Heard::Success(success) = ask(&|client| client.allocate(None)) else { panic!("no allocation") };
    let relayed = success.relayed.expect("a relay address");
    assert!(matches!(ask(&|client| client.create_permission(&at)), Heard::Success(_)));

    stream.write_all(&client.send(at[0], b"unmarked")).expect("the server reads");
    stream.write_all(&in_one_piece(at[1])).expect("the server reads");
    for peer in &peers {
        peer.recv(&mut [0; 200]).expect("the datagram is relayed");
    }
    capture.end();

    let marks = |to: SocketAddr| {
        let fields = ["ip.dsfield.dscp", "ip.dsfield.ecn", "ip.ttl", "ip.flags.df"];
        header(&capture, relayed.port(), to.port(), &fields)
    };
    assert_eq!(marks(at[0]), ["0", "0", "64", "0"]);
    assert_eq!(marks(at[1]), ["0", "0", "64", "1"]);
}

/// A Send that must not be cut.
fn in_one_piece(peer: SocketAddr) -> Vec<u8> {
    let mut room = [0; 200];
    let mut send = Reply::new(&mut room, Method::SEND, Class::Indication, [1; 12]);
    send.xor_address(Attribute::XOR_PEER_ADDRESS, peer).bytes(Attribute::DONT_FRAGMENT, &[]);
    let len = send.bytes(Attribute::DATA, b"in one piece").finish().expect("there is room");
    room[..len].to_vec()
}

/// What the client is told of a port that is closed: type, code and error data (RFC 8656 §18.13).
fn a_closed_port_tells(ip: IpAddr, value: [u8; 8]) {
    let server = server(ip);
    let peer = SocketAddr::new(ip, free_port());
    let mut caller = Caller::new(&server, ip, plain(ip), peer);

    caller.sends(peer, b"is anybody there?");

    let told = caller.hears();
    let told = Message::parse(&told).expect("the server speaks STUN");
    assert_eq!((told.class, told.method), (Class::Indication, Method::DATA));
    assert_eq!(told.xor_address(Attribute::XOR_PEER_ADDRESS), Some(Ok(peer)));
    assert_eq!(told.get(Attribute::ICMP), Some(&value[..]));
    assert_eq!(told.get(Attribute::DATA), None);
    assert!(told.len() > HEADER);
}

#[test]
fn d11_a_closed_port_comes_back_as_port_unreachable() {
    a_closed_port_tells(V4, [0, 0, 3 << 1, 3, 0, 0, 0, 0]);
}

#[test]
fn d11_a_closed_port_over_ipv6_comes_back_as_port_unreachable() {
    a_closed_port_tells(V6, [0, 0, 1 << 1, 4, 0, 0, 0, 0]);
}
