//! Wildcard listeners: which of the host's addresses an answer leaves from.

use crate::caller::{CHANNEL, Caller, Data, Peer, V4};
use crate::server::{Server, Setup};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One server on every address of the host, and three of those addresses.
fn everywhere() -> (Server, [SocketAddr; 3]) {
    let listen = vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let server = Server::start_with(&Setup { listen, allow: vec!["127.0.0.0/8"], ..Setup::default() });
    let asked = ["127.0.0.1", "127.0.0.2", "::1"];
    let asked = asked.map(|ip| SocketAddr::new(ip.parse().expect("an address"), server.port));
    (server, asked)
}

#[test]
fn s18_s37_an_answer_leaves_from_the_very_address_that_was_asked() {
    let (_server, asked) = everywhere();
    for address in asked {
        // Connected sockets hear nobody else.
        let mut caller = Caller::udp(address);
        assert_eq!(caller.binding(), Ok(caller.local()));
        let mut caller = Caller::tcp(address);
        assert_eq!(caller.binding(), Ok(caller.local()));
    }
}

#[test]
fn t05_s18_l42_data_leaves_from_the_very_address_that_the_allocation_was_made_on() {
    let (_server, asked) = everywhere();
    for address in asked {
        let (mut caller, peer) = (Caller::udp(address), Peer::new());
        let relay = caller.allocate().expect("an allocation");
        caller.permit(peer.address()).expect("a permission");
        caller.sends_to(peer.address(), b"there");
        assert_eq!(peer.hears(), (relay, b"there".to_vec()));
        peer.says(relay, b"back");
        assert_eq!(caller.data(), Data::From(peer.address(), b"back".to_vec()));
        caller.bind(CHANNEL, peer.address()).expect("a channel");
        peer.says(relay, b"on a channel");
        assert_eq!(caller.data(), Data::On(CHANNEL, b"on a channel".to_vec()));
    }
}

#[test]
fn t07_one_socket_has_an_allocation_on_each_address_it_asks() {
    let (server, [one, other, _]) = everywhere();
    let mut caller = Caller::udp(one);
    let first = caller.allocate().expect("an allocation");
    let crate::caller::Wire::Udp(socket) = &caller.wire else { unreachable!("a client over UDP") };
    socket.connect(other).expect("loopback is there");
    let second = caller.allocate().expect("another allocation");
    assert_ne!(first, second);
    assert_eq!(first.ip(), V4);
    assert_eq!(server.metric_sum("turnserver_allocations{"), 2.0);
}
