//! Relay ports: a small range, and others who sit in it.

use crate::caller::Caller;
use crate::server::{Server, Setup, free_ports};
use std::net::{Ipv4Addr, UdpSocket};
use turnserver::wire::codes::ErrorCode;

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
