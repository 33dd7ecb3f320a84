//! A server that has run out of file descriptors.

use crate::caller::{CHANNEL, Caller, Data, Peer};
use crate::relayed::dialling;
use crate::server::{Server, Setup, until};
use crate::skip::has;
use std::time::{Duration, Instant};
use turnserver::wire::codes::ErrorCode;

const OPEN_FILES: &str = "--nofile=64:64";

/// Processor time that a process has used.
fn processor_time(pid: u32) -> Duration {
    const TICK: Duration = Duration::from_millis(10); // USER_HZ is 100 on every Linux
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let after_name = stat.rsplit(") ").next().expect("Linux tells it");
    let ticks = |at: usize| after_name.split(' ').nth(at).and_then(|text| text.parse::<u32>().ok());
    TICK * (ticks(11).expect("user time") + ticks(12).expect("system time"))
}

#[test]
#[expect(clippy::disallowed_methods, reason = "idle means little processor time for the time that passed")]
fn without_descriptors_calls_go_on_newcomers_are_refused_and_nothing_spins() {
    if !has("prlimit") {
        return;
    }
    let wrapper = vec!["prlimit", OPEN_FILES];
    let server = Server::start_with(&Setup { allow: vec!["127.0.0.0/8"], wrapper, ..Setup::default() });
    let (mut caller, peer) = (Caller::udp(server.address()), Peer::new());
    let relay = caller.allocate().expect("an allocation");
    caller.bind(CHANNEL, peer.address()).expect("a channel");
    let (_listening, connections) = dialling(&server);
    let mut others: Vec<Caller> = Vec::new();
    let refused = loop {
        let mut other = Caller::udp(server.address());
        let answer = other.allocate();
        others.push(other);
        if let Err(code) = answer {
            break code;
        }
        assert!(others.len() < 64, "descriptors never ran out");
    };
    assert_eq!(refused, ErrorCode::INSUFFICIENT_CAPACITY);
    // Whoever asks how the server is learns it: the last descriptors are no allocation's.
    assert_eq!(server.request("GET", "/healthz", "").map(|(code, _)| code), Some(200));
    assert!(server.metric("turnserver_allocation_failures_total{code=\"508\"}") >= 1.0);

    // Each door has somebody waiting whom nobody can let in.
    let _crowd: Vec<_> = (0..8).map(|_| std::net::TcpStream::connect(server.address())).collect();
    let mut waiting = Caller::tcp(server.address());
    let request = waiting.client.binding();
    waiting.says(&request);
    let _http = std::net::TcpStream::connect(server.http).expect("the kernel takes connections");
    let _peer = std::net::TcpStream::connect(connections).expect("the kernel takes connections");
    until("the shortage is told", || server.log().contains("cannot be accepted"));
    let told = || server.log().matches("cannot be accepted").count() as u64;
    let told_before = told();
    let (began, before) = (Instant::now(), processor_time(server.pid()));
    let mut rounds = 0u32;
    until("fifty rounds are done", || {
        rounds += 1;
        caller.sends_on(CHANNEL, &rounds.to_be_bytes());
        assert_eq!(peer.hears(), (relay, rounds.to_be_bytes().to_vec()));
        peer.says(relay, &rounds.to_be_bytes());
        assert_eq!(caller.data(), Data::On(CHANNEL, rounds.to_be_bytes().to_vec()));
        rounds >= 50
    });
    let (used, passed) = (processor_time(server.pid()) - before, began.elapsed());
    assert!(used < passed / 4, "{used:?} of processor time in {passed:?}");
    let told = told() - told_before;
    assert!(told <= 20 * (1 + passed.as_secs()), "the log is told {told} times in {passed:?}");

    // Room for the three that wait at the doors, and for one call more.
    let mut newcomer = others.pop().expect("the one that was refused");
    others.drain(..5).for_each(|mut other| other.release());
    waiting.hears().expect("who waited is let in and answered");
    newcomer.allocate().expect("there is room again");
    caller.refresh(None).expect("the call goes on");
    assert!(server.metric("turnserver_allocation_failures_total{code=\"508\"}") >= 1.0);
}
