//! Whom a client cannot reach, and peers that are not there.

use crate::caller::{CHANNEL, Caller, Data, Peer, V4};
use crate::namespace::{alone, ip};
use crate::pair::Authority;
use crate::relayed::{connect, dialling, dials};
use crate::server::{Server, Setup, free_port, free_ports, until};
use std::io::Read as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;
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

const NAME: &str = "turn.example.org";

/// A server with every kind of listener and a web server behind it, and a client by each way in: for datagrams, and for
/// connections where there may be such.
fn with_every_door(allow: Vec<&'static str>) -> (Server, Authority, Peer) {
    let authority = Authority::new();
    let back_end = Peer::new();
    let setup = Setup {
        allow,
        tls: authority.pair("server", &[NAME]).lines(),
        dtls: true,
        listen_lines: format!("https_fallback = \"{}\"", back_end.address()),
        ..Setup::default()
    };
    (Server::start_with(&setup), authority, back_end)
}

/// Clients for datagrams over UDP, TCP and TLS, each with an allocation.
fn senders(server: &Server, authority: &Authority) -> [Caller; 3] {
    let tls = Caller::tls(server.tls_address(), authority.pem(), NAME);
    let mut callers = [Caller::udp(server.address()), Caller::tcp(server.address()), tls];
    for caller in &mut callers {
        caller.allocate().expect("an allocation");
    }
    callers
}

/// Clients for connections over TCP and TLS, each with an allocation.
fn diallers(server: &Server, authority: &Authority) -> [Caller; 2] {
    let tls = Caller::tls(server.tls_address(), authority.pem(), NAME);
    [Caller::tcp(server.address()), tls].map(dials)
}

/// None of these ways leads to `peer`: what is asked is refused, what is sent is dropped.
fn nobody_gets_to(peer: SocketAddr, server: &Server, senders: &mut [Caller], diallers: &mut [Caller]) {
    // For want of a permission, or by the rules: where there is none the rules are not asked.
    let dropped = || {
        let by = |reason| server.metric(&format!("turnserver_dropped_packets_total{{reason=\"{reason}\"}}"));
        by("peer_denied") + by("no_permission")
    };
    for caller in senders {
        assert_eq!(caller.bind(CHANNEL, peer), Err(ErrorCode::FORBIDDEN), "{peer}");
        let before = dropped();
        let binding = Caller::udp(server.address()).client.binding();
        caller.sends_to(peer, &binding);
        until("it is dropped", || dropped() > before);
        caller.sends_on(CHANNEL, &binding);
        caller.binding().expect("the server has seen to what came before");
        assert!(!caller.has_kept_data(), "{peer} answers");
    }
    for caller in diallers {
        assert_eq!(connect(caller, peer), Err(403), "{peer}");
    }
}

#[test]
fn no_client_gets_to_the_servers_own_doors_or_what_is_behind_them() {
    for allow in [vec![], vec!["127.0.0.0/8"]] {
        let (server, authority, back_end) = with_every_door(allow);
        let (mut senders, mut diallers) = (senders(&server, &authority), diallers(&server, &authority));
        let dtls = SocketAddr::new(V4, server.dtls_port());
        for caller in &mut senders {
            // To be had in both cases, so that it is the rules that Send meets.
            caller.permit(SocketAddr::new(V4, free_port())).expect("a permission");
        }
        // The metrics are behind the HTTP port, too.
        for own in [server.address(), server.tls_address(), dtls, server.http, back_end.address()] {
            nobody_gets_to(own, &server, &mut senders, &mut diallers);
        }
        assert!(back_end.hears_nothing());
        assert_eq!(server.metric(DENIED), 15.0, "five doors, three clients");
        assert_eq!(server.metric_sum("turnserver_relayed_packets_total{"), 0.0);
    }
}

#[test]
fn no_client_gets_to_the_servers_own_doors_over_ipv6() {
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let authority = Authority::new();
    let tls = authority.pair("server", &[NAME]).lines();
    let (listen, relay) = (vec![V4, v6], vec![V4, v6]);
    let server = Server::start_with(&Setup { listen, relay, allow: vec!["::1"], tls, ..Setup::default() });
    let by_tls = Caller::tls(server.tls_address(), authority.pem(), NAME);
    let mut senders = [Caller::udp(server.address()), Caller::tcp(server.address()), by_tls];
    let witness = Peer::at(SocketAddr::new(v6, free_port()));
    for caller in &mut senders {
        caller.allocate_of(Some(Family::V6)).expect("an allocation");
        caller.permit(witness.address()).expect("it is open");
        caller.sends_to(witness.address(), b"open");
        assert_eq!(witness.hears().1, b"open");
    }
    for port in [server.port, server.tls_port()] {
        nobody_gets_to(SocketAddr::new(v6, port), &server, &mut senders, &mut []);
    }
    assert_eq!(server.metric(DENIED), 6.0, "two doors, three clients");
    // The same doors in the clothes of IPv4.
    let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().expect("an address"), server.port);
    nobody_gets_to(mapped, &server, &mut senders, &mut []);
}

#[test]
fn no_client_gets_to_another_address_of_the_host_unless_it_is_opened() {
    let own = own_addresses();
    let witnesses: Vec<Peer> = own.iter().map(|ip| Peer::at(SocketAddr::new(*ip, 0))).collect();
    // Without the built-in set it is the host's own addresses alone that are shut.
    for deny in [vec!["special-purpose"], vec![]] {
        let authority = Authority::new();
        let tls = authority.pair("server", &[NAME]).lines();
        let server = Server::start_with(&Setup { deny, tls, ..Setup::default() });
        let (mut senders, mut diallers) = (senders(&server, &authority), diallers(&server, &authority));
        for witness in &witnesses {
            for caller in &mut senders {
                assert_eq!(caller.permit(witness.address()), Err(ErrorCode::FORBIDDEN), "{}", witness.address());
            }
            nobody_gets_to(witness.address(), &server, &mut senders, &mut diallers);
            assert!(witness.hears_nothing());
        }
    }
}

/// IPv4 addresses of this host beside the relay address: of loopback, and of its interfaces.
fn own_addresses() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().expect("the system tells its addresses");
    let of_interfaces = interfaces.into_iter().map(|interface| interface.ip()).filter(|ip| ip.is_ipv4() && *ip != V4);
    let of_loopback = ["127.0.0.2", "127.255.255.254"].map(|ip| ip.parse().expect("an address"));
    of_interfaces.chain(of_loopback).collect()
}

#[test]
fn a_reload_with_a_new_rule_cuts_connections_of_every_client_too() {
    let authority = Authority::new();
    let tls = authority.pair("server", &[NAME]).lines();
    let mut setup = Setup { allow: vec!["127.0.0.0/8"], tls, workers: 2, ..Setup::default() };
    let server = Server::start_with(&setup);
    let (gone, stays) = (Peer::at(address("127.0.0.2:0")), Peer::new());
    let mut senders = senders(&server, &authority);
    for caller in &mut senders {
        caller.bind(CHANNEL, gone.address()).expect("a channel");
        caller.permit(stays.address()).expect("a permission");
        caller.sends_on(CHANNEL, b"before");
        assert_eq!(gone.hears().1, b"before");
    }
    let listener = TcpListener::bind(address("127.0.0.2:0")).expect("a listener");
    let closed = listener.local_addr().expect("a listener has an address");
    let mut diallers = diallers(&server, &authority);
    let mut called = Vec::new();
    for caller in &mut diallers {
        connect(caller, closed).expect("loopback is open");
        let (stream, _) = listener.accept().expect("it is called");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out can be set");
        called.push(stream);
    }

    setup.deny.push("127.0.0.2/32");
    server.rewrite(&setup);
    server.signal("HUP");
    until("the rule is in force", || server.metric("turnserver_channels") < 1.0);

    for mut stream in called {
        assert!(!matches!(stream.read(&mut [0; 1]), Ok(1..)), "the connection closes");
    }
    nobody_gets_to(gone.address(), &server, &mut senders, &mut []);
    nobody_gets_to(closed, &server, &mut [], &mut diallers);
    for caller in &mut senders {
        caller.sends_to(stays.address(), b"still");
        assert_eq!(stays.hears().1, b"still");
    }
    assert!(gone.hears_nothing());
    listener.set_nonblocking(true).expect("a listener can be told not to wait");
    assert!(listener.accept().is_err(), "nobody calls any more");
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

#[test]
fn an_address_that_this_host_gets_later_is_no_peer_from_then_on() {
    alone("server::peers::an_address_that_this_host_gets_later_is_no_peer_from_then_on", || {
        let server = Server::start();
        let mut caller = Caller::udp(server.address());
        caller.allocate().expect("an allocation");
        let peer = address("11.9.9.9:7000");
        caller.bind(CHANNEL, peer).expect("somebody else's address is a peer");
        caller.permit(peer).expect("somebody else's address is a peer");

        ip("address add 11.9.9.9/32 dev lo");
        until("the new address is refused", || caller.permit(peer) == Err(ErrorCode::FORBIDDEN));
        let witness = Peer::at(peer);
        caller.sends_on(CHANNEL, b"to the channel of before");
        caller.sends_to(peer, b"by the permission of before");
        assert_eq!(caller.bind(CHANNEL, peer), Err(ErrorCode::FORBIDDEN));
        witness.0.set_nonblocking(true).expect("a socket can be told not to wait");
        // Both were handled before the answer to the ChannelBind.
        assert!(witness.0.recv(&mut [0; 64]).is_err(), "nothing reaches this host by its new address");
        assert!(server.log().contains("addresses of this host changed"));

        ip("address del 11.9.9.9/32 dev lo");
        until("it is somebody else's again", || caller.permit(peer).is_ok());
    });
}
