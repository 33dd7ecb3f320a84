//! Calls between two allocations of one server, on one worker and across workers.

use crate::caller::{CHANNEL, Caller, Data};
use crate::server::{Server, Setup, until};
use std::net::{IpAddr, Ipv4Addr};

const EXTERNAL: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5));

/// Callers enough that every worker has some and pairs on one worker are as sure as pairs across two.
const CALLERS: usize = 10;

fn everybody_reaches_everybody(setup: &Setup, shown_as: IpAddr) {
    let server = Server::start_with(setup);
    let mut callers: Vec<Caller> = (0..CALLERS)
        .map(|at| if at % 5 == 4 { Caller::tcp(server.address()) } else { Caller::udp(server.address()) })
        .collect();
    let relays: Vec<_> = callers.iter_mut().map(|caller| caller.allocate().expect("an allocation")).collect();
    for (caller, own) in callers.iter_mut().zip(&relays) {
        assert_eq!(own.ip(), shown_as);
        for (other, number) in relays.iter().zip(CHANNEL..) {
            // The second half of them talk without channels.
            if other < own {
                caller.bind(number, *other).expect("a channel");
            } else {
                caller.permit(*other).expect("a permission");
            }
        }
    }
    for from in 0..CALLERS {
        for to in 0..CALLERS {
            let payload = [from as u8, to as u8];
            callers[from].sends_to(relays[to], &payload);
            let expected = if relays[from] < relays[to] {
                Data::On(CHANNEL + from as u16, payload.to_vec())
            } else {
                Data::From(relays[from], payload.to_vec())
            };
            assert_eq!(callers[to].data(), expected, "from {from} to {to}");
        }
    }
    assert_eq!(server.metric_sum("turnserver_dropped_packets_total{"), 0.0);
}

#[test]
fn two_clients_of_one_worker_call_each_other() {
    everybody_reaches_everybody(&Setup { workers: 1, ..Setup::default() }, crate::caller::V4);
}

#[test]
fn two_clients_call_each_other_across_two_workers() {
    everybody_reaches_everybody(&Setup { workers: 2, ..Setup::default() }, crate::caller::V4);
}

#[test]
fn two_clients_call_each_other_across_four_workers() {
    everybody_reaches_everybody(&Setup { workers: 4, ..Setup::default() }, crate::caller::V4);
}

#[test]
fn behind_nat_two_clients_know_each_other_by_the_external_address() {
    let relay_lines = "external = [\"203.0.113.5\"]".into();
    everybody_reaches_everybody(&Setup { workers: 2, relay_lines, ..Setup::default() }, EXTERNAL);
}

#[test]
fn p04_x07_without_a_permission_on_the_other_side_nothing_passes() {
    let server = Server::start();
    let mut callers: Vec<Caller> = (0..2).map(|_| Caller::udp(server.address())).collect();
    let relays: Vec<_> = callers.iter_mut().map(|caller| caller.allocate().expect("an allocation")).collect();
    callers[0].permit(relays[1]).expect("a permission");
    callers[0].sends_to(relays[1], b"unwanted");
    until("it is dropped", || server.metric("turnserver_dropped_packets_total{reason=\"no_permission\"}") > 0.0);
    callers[1].permit(relays[0]).expect("a permission");
    callers[0].sends_to(relays[1], b"wanted");
    assert_eq!(callers[1].data(), Data::From(relays[0], b"wanted".to_vec()));
}

#[test]
fn x01_a_circle_of_channels_carries_a_packet_once() {
    let server = Server::start();
    let (mut one, mut other) = (Caller::udp(server.address()), Caller::udp(server.address()));
    let (from, to) = (one.allocate().expect("an allocation"), other.allocate().expect("an allocation"));
    one.bind(CHANNEL, to).expect("a channel");
    other.bind(CHANNEL, from).expect("a channel");
    one.sends_on(CHANNEL, b"round");
    assert_eq!(other.data(), Data::On(CHANNEL, b"round".to_vec()));
    one.binding().expect("the server is idle enough to answer");
    assert_eq!(server.metric_sum("turnserver_relayed_packets_total{"), 2.0);
}
