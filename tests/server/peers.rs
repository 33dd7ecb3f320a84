//! Whom a client cannot reach, and peers that are not there.

use crate::caller::{CHANNEL, Caller, Data, Peer, V4};
use crate::relayed::{connect, dialling};
use crate::server::{Server, Setup, free_port, free_ports, until};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use turnserver::wire::codes::ErrorCode;
use turnserver::wire::stun::Family;

const DENIED: &str = "turnserver_dropped_packets_total{reason=\"peer_denied\"}";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn x03_x06_by_default_no_address_is_a_peer_that_the_internet_could_not_reach() {
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let server = Server::start_with(&Setup { listen: vec![V4, v6], relay: vec![V4, v6], ..Setup::default() });
    let mut caller = Caller::udp(server.address());
    caller.allocate().expect("an allocation");
    let peers = [
        "10.0.0.1:80",
        "172.16.0.1:80",
        "192.168.1.1:80",
        "100.64.0.1:80",
        "169.254.169.254:80",
        "127.0.0.2:80",
        "0.0.0.0:80",
        "255.255.255.255:80",
        "224.0.0.1:80",
        "192.0.2.1:80",
        "168.63.129.16:80",
    ];
    for peer in peers.map(address) {
        assert_eq!(caller.permit(peer), Err(ErrorCode::FORBIDDEN), "{peer}");
        assert_eq!(caller.bind(CHANNEL, peer), Err(ErrorCode::FORBIDDEN), "{peer}");
    }
    let mut caller = Caller::udp(server.address());
    caller.allocate_of(Some(Family::V6)).expect("an allocation");
    let port = free_port();
    let peers = [
        "[::ffff:127.0.0.1]:80",
        "[::ffff:8.8.8.8]:80",
        "[64:ff9b::7f00:1]:80",
        "[2002:7f00:1::]:80",
        "[fe80::1]:80",
        "[fd00:ec2::254]:80",
        "[::]:80",
        "[ff02::1]:80",
        "[2001:db8::1]:80",
    ];
    for peer in peers.map(address) {
        assert_eq!(caller.permit(peer), Err(ErrorCode::FORBIDDEN), "{peer}");
        assert_eq!(caller.bind(CHANNEL, peer), Err(ErrorCode::FORBIDDEN), "{peer}");
    }
    assert_eq!(caller.bind(CHANNEL, SocketAddr::new(v6, port)), Err(ErrorCode::FORBIDDEN));
    assert_eq!(server.metric("turnserver_peer_denied_total"), 41.0);
}

#[test]
fn a_program_on_the_relay_address_itself_hears_nothing_by_default() {
    let server = Server::start();
    let (mut caller, peer) = (Caller::udp(server.address()), Peer::new());
    caller.allocate().expect("an allocation");
    // The permission is for the sake of other allocations on this address, and opens nothing else.
    caller.permit(peer.address()).expect("a permission");
    assert_eq!(caller.bind(CHANNEL, peer.address()), Err(ErrorCode::FORBIDDEN));
    caller.sends_to(peer.address(), b"never");
    until("it is dropped", || server.metric(DENIED) > 0.0);
    assert!(peer.hears_nothing());
}

#[test]
fn a_relay_port_without_an_allocation_gets_nothing() {
    let first = free_ports(8);
    let relay_lines = format!("ports = \"{first}-{}\"", first + 7);
    let taken = Peer::at(SocketAddr::new(V4, first + 3));
    let server = Server::start_with(&Setup { relay_lines, ..Setup::default() });
    let mut caller = Caller::udp(server.address());
    caller.allocate().expect("an allocation");
    caller.bind(CHANNEL, taken.address()).expect("an allocation may come to live there");
    caller.sends_on(CHANNEL, b"never");
    until("it is dropped", || server.metric("turnserver_dropped_packets_total{reason=\"no_relay\"}") > 0.0);
    assert!(taken.hears_nothing());
}

#[test]
fn x03_the_servers_own_doors_stay_shut_when_loopback_is_opened() {
    let server = Server::start_with(&Setup { allow: vec!["127.0.0.0/8"], ..Setup::default() });
    let (mut caller, peer) = (Caller::udp(server.address()), Peer::new());
    let relay = caller.allocate().expect("an allocation");
    caller.bind(CHANNEL, peer.address()).expect("loopback is open");
    for own in [server.address(), server.http] {
        assert_eq!(caller.bind(CHANNEL + 1, own), Err(ErrorCode::FORBIDDEN));
        let before = server.metric(DENIED);
        let binding = Caller::udp(server.address()).client.binding();
        caller.sends_to(own, &binding);
        until("it is dropped", || server.metric(DENIED) > before);
    }
    caller.sends_on(CHANNEL, b"open");
    assert_eq!(peer.hears(), (relay, b"open".to_vec()));
}

#[test]
fn a_peer_that_is_not_there_harms_no_other() {
    // 198.51.100.0/24 cannot be reached from a loopback address: the kernel refuses, and nothing leaves.
    let server = Server::start_with(&Setup { allow: vec!["127.0.0.0/8", "198.51.100.0/24"], ..Setup::default() });
    let (mut caller, peer) = (Caller::udp(server.address()), Peer::new());
    let relay = caller.allocate().expect("an allocation");
    let (closed, unreachable) = (SocketAddr::new(V4, free_port()), address("198.51.100.7:9"));
    caller.permit(peer.address()).expect("a permission");
    caller.permit(unreachable).expect("a permission");
    caller.bind(CHANNEL, unreachable).expect("a channel");
    for round in 0..100u8 {
        caller.sends_to(closed, b"nobody listens");
        caller.sends_to(unreachable, b"no way there");
        caller.sends_on(CHANNEL, b"no way there");
        caller.sends_to(peer.address(), &[round]);
        assert_eq!(peer.hears(), (relay, vec![round]));
        peer.says(relay, &[round]);
        assert_eq!(caller.data(), Data::From(peer.address(), vec![round]));
    }
    assert_eq!(server.metric("turnserver_dropped_packets_total{reason=\"send_failed\"}"), 200.0);
    caller.refresh(None).expect("the allocation lives");
}

#[test]
fn a_program_that_has_a_relay_port_for_the_other_protocol_hears_nothing() {
    let first = free_ports(2);
    let relay_lines = format!("ports = \"{first}-{}\"", first + 1);
    let server = Server::start_with(&Setup { relay_lines, ..Setup::default() });
    let mut sender = Caller::udp(server.address());
    let by_datagrams = sender.allocate().expect("an allocation");
    let (mut dialler, by_connections) = dialling(&server);
    let _listener = TcpListener::bind(by_datagrams).expect("nobody has it for connections");
    let program = Peer::at(by_connections);

    assert_eq!(connect(&mut dialler, by_datagrams), Err(447));
    sender.permit(by_connections).expect("another relay address may be a peer");
    sender.sends_to(by_connections, b"x");
    sender.binding().expect("the server has seen to what came before");
    assert!(program.hears_nothing());
}
