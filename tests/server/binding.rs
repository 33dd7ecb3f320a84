//! What the program binds: one family alone, and the ports beside those that were written.

use crate::caller::{Caller, V4};
use crate::server::{Server, Setup, until};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use turnserver::wire::codes::ErrorCode;
use turnserver::wire::stun::Family;

#[test]
fn a_server_of_one_family_serves_that_one() {
    let v6: IpAddr = "::1".parse().expect("an address");
    let server = Server::start_with(&Setup { listen: vec![v6], relay: vec![v6], ..Setup::default() });
    let address = SocketAddr::new(v6, server.port);
    for mut caller in [Caller::udp(address), Caller::tcp(address)] {
        assert_eq!(caller.binding(), Ok(caller.local()));
        assert_eq!(caller.allocate(), Err(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED));
        assert_eq!(caller.allocate_of(Some(Family::V6)).expect("an allocation").ip(), v6);
    }
    std::net::TcpStream::connect(server.address()).expect_err("nobody listens over IPv4");
}

#[test]
fn nat_discovery_opens_the_port_above_on_both_addresses_and_tells_nobody() {
    let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let wrapper = vec!["env", "TURNSERVER__AUTH__NAT_DISCOVERY=true"];
    let setup = Setup { listen: vec![V4, other], wrapper, ..Setup::default() };
    let server = Server::start_with(&setup);
    for ip in [V4, other] {
        for port in [server.port, server.port + 1] {
            let mut caller = Caller::udp(SocketAddr::new(ip, port));
            assert_eq!(caller.binding(), Ok(caller.local()), "{ip}:{port}");
        }
    }
    let minted = server.mint().to_string();
    assert!(minted.contains(&format!(":{}", server.port)), "{minted}");
    assert!(!minted.contains(&format!(":{}", server.port + 1)), "{minted}");
    server.signal("HUP");
    until("it is reloaded", || server.log().contains("\"reloaded\""));
    assert!(!server.log().contains("needs restart"), "what was added is no difference: {}", server.log());
}
