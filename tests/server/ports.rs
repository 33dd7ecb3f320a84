//! Relay ports: a small range, and others who sit in it.

use crate::caller::{Caller, Data, Peer, V4};
use crate::namespace::{alone, ip};
use crate::server::{Server, Setup, free_ports, until};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use turnserver::client::Success;
use turnserver::wire::codes::{Attribute, ErrorCode, Method};

fn with_ports(first: u16, count: u16) -> Server {
    let relay_lines = format!("ports = \"{first}-{}\"", first + count - 1);
    Server::start_with(&Setup { relay_lines, ..Setup::default() })
}

#[test]
fn l43_a_range_of_four_ports_has_four_allocations_and_each_port_comes_back() {
    let first = free_ports(4);
    let server = with_ports(first, 4);
    let mut callers: Vec<Caller> = (0..5).map(|_| Caller::udp(server.address())).collect();
    let mut ports: Vec<u16> = callers[..4].iter_mut().map(|it| it.allocate().expect("an allocation").port()).collect();
    ports.sort_unstable();
    assert_eq!(ports, Vec::from_iter(first..first + 4));
    assert_eq!(callers[4].allocate(), Err(ErrorCode::INSUFFICIENT_CAPACITY));
    assert_eq!(server.metric("turnserver_relay_ports{state=\"free\"}"), 0.0);
    for at in 0..4 {
        callers[at].release();
        callers[4].allocate().expect("the port that was released");
        callers[4].release();
        callers[at].allocate().expect("the port once more");
    }
    assert_eq!(server.metric("turnserver_relay_ports{state=\"used\"}"), 4.0);
    assert_eq!(server.metric("turnserver_allocation_failures_total{code=\"508\"}"), 1.0);
}

#[test]
fn a_port_that_another_program_has_is_passed_over() {
    let first = free_ports(4);
    let taken: Vec<UdpSocket> = [first, first + 2]
        .map(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port"))
        .into_iter()
        .collect();
    let server = with_ports(first, 4);
    let mut callers: Vec<Caller> = (0..3).map(|_| Caller::udp(server.address())).collect();
    let mut ports: Vec<u16> = callers[..2].iter_mut().map(|it| it.allocate().expect("an allocation").port()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [first + 1, first + 3]);
    assert_eq!(callers[2].allocate(), Err(ErrorCode::INSUFFICIENT_CAPACITY));
    assert_eq!(server.metric("turnserver_relay_ports{state=\"used\"}"), 2.0);
    drop(taken);
    callers[2].allocate().expect("the ports that the other program gave back");
}

/// An Allocate for UDP with these attributes besides.
fn asks_all(caller: &mut Caller, attributes: &[(Attribute, &[u8])]) -> Result<Success, ErrorCode> {
    caller.ask(|client| {
        client.request(Method::ALLOCATE, |request| {
            request.bytes(Attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            for (attribute, value) in attributes {
                request.bytes(*attribute, value);
            }
        })
    })
}

fn asks(caller: &mut Caller, attribute: Attribute, value: &[u8]) -> Result<Success, ErrorCode> {
    asks_all(caller, &[(attribute, value)])
}

/// Allocates an even port, and has the one above held back for the token that is returned with the address.
fn pair(caller: &mut Caller, relay: IpAddr) -> (SocketAddr, [u8; 8]) {
    let family: &[u8] = if relay.is_ipv4() { &[1, 0, 0, 0] } else { &[2, 0, 0, 0] };
    let attributes = [(Attribute::REQUESTED_ADDRESS_FAMILY, family), (Attribute::EVEN_PORT, &[0x80])];
    let success = asks_all(caller, &attributes).expect("a pair of ports");
    (success.relayed.expect("an address"), success.token.expect("a token"))
}

/// Shows the tokens of eight pairs to a server that relays at `own`, and hears what `peer` says to the port above.
fn pairs_are_kept(own: IpAddr, peer: IpAddr) {
    let first = (free_ports(3) + 1) & !1;
    let relay_lines = format!("ports = \"{first}-{}\"", first + 1);
    let allow = vec!["127.0.0.0/8", "fd00::/8"];
    // The token comes to either worker.
    let setup = Setup { listen: vec![own], relay: vec![own], allow, relay_lines, workers: 2, ..Setup::default() };
    let server = Server::start_with(&setup);
    let peer = Peer::at(SocketAddr::new(peer, 0));
    for _ in 0..8 {
        let [mut even, mut odd] = [(); 2].map(|()| Caller::udp(SocketAddr::new(own, server.port)));
        let (relay, token) = pair(&mut even, own);
        assert_eq!(relay, SocketAddr::new(own, first));
        let above = SocketAddr::new(own, first + 1);
        assert!(UdpSocket::bind(above).is_err(), "the port is held back, and another program has it");
        // It is nobody's yet, and what comes to it is for nobody.
        peer.says(above, b"too early");
        let success = asks(&mut odd, Attribute::RESERVATION_TOKEN, &token).expect("the port above");
        assert_eq!(success.relayed, Some(above));
        odd.permit(peer.address()).expect("a permission");
        peer.says(above, b"in time");
        assert_eq!(odd.data(), Data::From(peer.address(), b"in time".to_vec()));
        odd.sends_to(peer.address(), b"and back");
        assert_eq!(peer.hears(), (above, b"and back".to_vec()));
        assert!(UdpSocket::bind(above).is_err(), "the port is an allocation's, and another program has it");
        even.release();
        odd.release();
    }
    until("all are given back", || server.metric("turnserver_relay_ports{state=\"used\"}") == 0.0);
}

#[test]
fn l22_a_port_held_back_is_no_other_program_s_and_whoever_shows_the_token_has_it() {
    pairs_are_kept(V4, IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)));
}

#[test]
fn l22_so_it_is_over_ipv6() {
    alone("server::ports::l22_so_it_is_over_ipv6", || {
        let [own, peer] = [1, 2].map(|last| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)));
        ip("addr add fd00::1/128 dev lo nodad");
        ip("addr add fd00::2/128 dev lo nodad");
        pairs_are_kept(own, peer);
    });
}

#[test]
fn l22_a_pair_of_ports_is_two_that_no_other_program_has() {
    let first = (free_ports(5) + 1) & !1;
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, first + 1)).expect("a free port");
    let server = with_ports(first, 4);
    for _ in 0..4 {
        let mut caller = Caller::udp(server.address());
        let (relay, token) = pair(&mut caller, V4);
        assert_eq!(relay.port(), first + 2);
        assert_eq!(server.metric("turnserver_relay_ports{state=\"used\"}"), 2.0);
        let mut other = Caller::udp(server.address());
        asks(&mut other, Attribute::RESERVATION_TOKEN, &token).expect("the port above");
        caller.release();
        other.release();
    }
    drop(taken);
}
