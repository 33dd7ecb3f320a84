//! TCP connections that are many, silent or slow: what they cost the others.

use crate::caller::{CHANNEL, Caller, Data, Peer};
use crate::server::{Server, Setup, until};
use std::net::TcpStream;

const CONNECTIONS: &str = "turnserver_connections{transport=\"tcp\"}";

#[test]
fn a_client_that_never_reads_loses_data_and_costs_little_memory() {
    const SLOW: &str = "turnserver_dropped_packets_total{reason=\"slow_client\"}";
    const BOUND: u64 = 4 << 20;
    let server = Server::start_with(&Setup { allow: vec!["127.0.0.0/8"], workers: 1, ..Setup::default() });
    let (mut slow, flood) = (Caller::tcp(server.address()), Peer::new());
    let flooded = slow.allocate().expect("an allocation");
    slow.bind(CHANNEL, flood.address()).expect("a channel");
    let (mut other, peer) = (Caller::tcp(server.address()), Peer::new());
    let relay = other.allocate().expect("an allocation");
    other.bind(CHANNEL, peer.address()).expect("a channel");

    let mut round = 0u32;
    let mut flood_until = |what: &str, enough: &dyn Fn() -> bool| {
        until(what, || {
            for _ in 0..64 {
                for _ in 0..16 {
                    flood.says(flooded, &[0; 1200]);
                }
                // The other client's data passes after every burst, whole and in order.
                round += 1;
                peer.says(relay, &round.to_be_bytes());
                assert_eq!(other.data(), Data::On(CHANNEL, round.to_be_bytes().to_vec()));
            }
            enough()
        });
    };
    let before = server.memory();
    flood_until("much is dropped", &|| server.metric(SLOW) > 5000.0);
    let after = server.memory();

    assert!(after < before + BOUND, "memory grew from {before} to {after} bytes");
    assert_eq!(server.metric(CONNECTIONS), 2.0, "a slow reader loses data, not its call");
    // It reads again, and hears whole messages; what was dropped was dropped whole.
    assert_eq!(slow.data(), Data::On(CHANNEL, vec![0; 1200]));
    slow.refresh(None).expect("an answer");
}

#[test]
fn one_connection_more_than_an_address_may_have_is_closed() {
    let limits = "connections_per_ip = 3".into();
    let server = Server::start_with(&Setup { limits, ..Setup::default() });
    let mut callers: Vec<Caller> = (0..3).map(|_| Caller::tcp(server.address())).collect();
    for caller in &mut callers {
        caller.binding().expect("an answer");
    }
    assert!(Caller::tcp(server.address()).is_cut_off());
    assert_eq!(server.metric("turnserver_rate_limited_total{reason=\"connections\"}"), 1.0);
    callers.pop();
    until("the connection is gone", || server.metric(CONNECTIONS) < 3.0);
    Caller::tcp(server.address()).binding().expect("there is room again");
    for caller in &mut callers {
        caller.binding().expect("the others never noticed");
    }
}

#[test]
fn five_hundred_silent_connections_cost_the_others_nothing() {
    let limits = "connections_per_ip = 1000".into();
    let server = Server::start_with(&Setup { limits, ..Setup::default() });
    let silent: Vec<TcpStream> =
        (0..500).map(|_| TcpStream::connect(server.address()).expect("the server listens")).collect();
    Caller::udp(server.address()).binding().expect("an answer over UDP");
    Caller::tcp(server.address()).allocate().expect("an allocation over TCP");
    until("all are accepted", || server.metric(CONNECTIONS) >= 500.0);
    Caller::udp(server.address()).binding().expect("an answer over UDP");
    drop(silent);
    until("all are gone", || server.metric(CONNECTIONS) < 1.0);
}
