//! What an allocation weighs: in the core by a counting allocator, in the whole server by its resident set.
//!
//! `cargo bench --bench memory -- [--allocations 10000]`. Every allocation has one permission and one channel. The core is
//! told apart from its clients by dropping these before it is looked at. The server is started as `cargo bench --bench
//! relay` starts it, coturn beside it when it is installed; what remains a few seconds after all allocations are released
//! is what was not given back.
#![forbid(unsafe_code)]
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a tool for people")]

#[path = "support/network.rs"]
mod network;
#[path = "../tests/support/pair.rs"]
mod pair;
#[path = "support/servers.rs"]
mod servers;
#[path = "../tests/support/temp.rs"]
mod temp;
#[path = "support/world.rs"]
mod world;

use servers::{Certificate, Kind, Server, USER};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use turnserver::client::{Client, Heard};
use turnserver::time::{minutes, seconds};
use turnserver::wire::channel::ChannelNumber;
use turnserver::wire::codes::Method;
use world::World;

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How long a server is given to tidy up.
const REST: Duration = Duration::from_secs(3);

fn main() {
    network::enter();
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == "--allocations");
    let count = at.and_then(|at| arguments.get(at + 1)).map_or(10_000, |text| text.parse().expect("a number"));

    println!(
        "| bytes, {count} allocations with a channel each | before | with them | for each | after their release |"
    );
    println!("| --- | --- | --- | --- | --- |");
    row("the core alone, allocated", count, core(count));
    turnserver::net::raise_file_limit().expect("the file limit can be raised");
    let certificate = Certificate::new();
    for kind in [Kind::Ours, Kind::Coturn].into_iter().filter(|kind| kind.is_installed()) {
        let server = Server::start(kind, &certificate);
        row(&format!("{}, resident", kind.name()), count, resident(&server, count));
    }
}

fn row(name: &str, count: usize, [before, with, after]: [u64; 3]) {
    let each = with.saturating_sub(before) / count.max(1) as u64;
    println!("| {name} | {before} | {with} | {each} | {after} |");
}

/// Bytes that the core holds before, with and after so many allocations.
fn core(count: usize) -> [u64; 3] {
    let start = held();
    let mut world = World::empty();
    let before = held() - start;
    for _ in 0..count {
        world.joins();
    }
    world.calls = Vec::new();
    world.effects = Vec::new();
    let with = held() - start;
    world.waits(minutes(10) + seconds(1));
    world.ticks();
    assert_eq!(world.effects.len(), count, "all of them end");
    world.effects = Vec::new();
    [before, with, held() - start]
}

/// Bytes allocated and not given back.
fn held() -> u64 {
    let stats = COUNTING.stats();
    (stats.bytes_allocated - stats.bytes_deallocated) as u64
}

/// The resident set of a server before, with and after so many allocations.
fn resident(server: &Server, count: usize) -> [u64; 3] {
    let peer = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a socket");
    // What a server sets up for its first client is no client's.
    let warm: Vec<Call> = (0..10).map(|number| Call::set_up(server.address, peer, number)).collect();
    let before = server.memory();
    let calls: Vec<Call> = (0..count).map(|number| Call::set_up(server.address, peer, 10 + number as u32)).collect();
    let with = server.memory();
    calls.into_iter().for_each(Call::release);
    std::thread::sleep(REST);
    let after = server.memory();
    drop(warm);
    [before, with, after]
}

/// A client with an allocation and a channel.
struct Call {
    socket: UdpSocket,
    client: Client,
}

impl Call {
    fn set_up(server: SocketAddr, peer: SocketAddr, number: u32) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        socket.connect(server).expect("loopback is there");
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a time-out can be set");
        let mut call = Self { socket, client: Client::new(USER[0], USER[1], number) };
        call.asks(Method::ALLOCATE, |client| client.allocate(None));
        call.asks(Method::CHANNEL_BIND, |client| client.channel_bind(ChannelNumber::MIN.get(), peer));
        call
    }

    fn release(mut self) {
        self.asks(Method::REFRESH, |client| client.refresh(Some(0)));
    }

    /// Asks until the answer is yes: once more after a challenge, and when an answer is lost.
    fn asks(&mut self, method: Method, request: impl Fn(&mut Client) -> Vec<u8>) {
        let mut bytes = [0; 2048];
        for _ in 0..10 {
            self.socket.send(&request(&mut self.client)).expect("loopback is there");
            let Ok(len) = self.socket.recv(&mut bytes) else { continue };
            match self.client.hear(&bytes[..len]) {
                Ok(Heard::Success(_)) => return,
                Ok(Heard::Error { is_challenge: true, .. }) => {}
                other => panic!("{method:?}: {other:?}"),
            }
        }
        panic!("the server does not answer {method:?}");
    }
}
