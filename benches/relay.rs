//! What a relayed packet costs: this server and Debian's coturn side by side, in one run, on this machine.
//!
//! The server runs on CPU 0, the generator on CPU 1. Each round takes both servers through the same cases, so that a
//! noisy machine is noisy for both; the medians are compared. `CPU µs` is the time of all the server's threads divided
//! by the packets that came out at the far end; memory is the growth of the resident set per allocation.
//!
//! `cargo bench --bench relay -- [--rounds 3] [--clients 100] [--size 160] [--seconds 2] [--allocations 2000]`

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use turnserver::client::{Client, Heard};
use turnserver::net::udp::{Batch, Modes, Outgoing};
use turnserver::wire::Packet;
use turnserver::wire::channel::{self, ChannelNumber};
use turnserver::wire::codes::ErrorCode;
use turnserver::wire::packet::Marks;

/// Packets under way in a closed loop.
const WINDOW: usize = 64;
/// Silence after which packets under way count as lost.
const LOSS: Duration = Duration::from_millis(20);

fn main() {
    let options = Options::parse();
    turnserver::net::raise_file_limit().expect("the file limit can be raised");
    pin_to(1);
    let mut results: BTreeMap<(&'static str, &'static str), Vec<f64>> = BTreeMap::new();
    for round in 0..options.rounds {
        for kind in [Kind::Ours, Kind::Coturn] {
            let server = Server::start(kind);
            let mut note = |case, value| results.entry((case, kind.name())).or_default().push(value);
            let mut calls = Calls::set_up(&server, options.clients, options.size);
            let (to_peer, rate) = calls.measure(&server, options.seconds, Direction::ToPeer);
            note("client to peer, CPU µs", to_peer);
            note("client to peer, packets/s", rate);
            let (to_client, rate) = calls.measure(&server, options.seconds, Direction::ToClient);
            note("peer to client, CPU µs", to_client);
            note("peer to client, packets/s", rate);
            drop(calls);
            drop(server);
            let server = Server::start(kind);
            note("memory per allocation, bytes", memory(&server, options.allocations));
            eprintln!("round {} of {}: {} done", round + 1, options.rounds, kind.name());
        }
    }
    report(&options, &results);
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn report(options: &Options, results: &BTreeMap<(&'static str, &'static str), Vec<f64>>) {
    println!("| {} clients, {} bytes | turnserver | coturn | ratio |", options.clients, options.size);
    println!("|---|---|---|---|");
    let cases: std::collections::BTreeSet<_> = results.keys().map(|(case, _)| *case).collect();
    for case in cases {
        let median = |name| {
            let mut values = results.get(&(case, name)).cloned().unwrap_or_default();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
        };
        let (ours, theirs) = (median(Kind::Ours.name()), median(Kind::Coturn.name()));
        println!("| {case} | {ours:.2} | {theirs:.2} | {:.2} |", ours / theirs);
    }
}

struct Options {
    rounds: usize,
    clients: usize,
    size: usize,
    seconds: u64,
    allocations: usize,
}

impl Options {
    fn parse() -> Self {
        let arguments: Vec<String> = std::env::args().collect();
        let get = |name: &str, default: usize| {
            let at = arguments.iter().position(|argument| argument == name);
            at.and_then(|at| arguments.get(at + 1)).map_or(default, |value| value.parse().expect("a number"))
        };
        Self {
            rounds: get("--rounds", 3),
            clients: get("--clients", 100),
            size: get("--size", 160),
            seconds: get("--seconds", 2) as u64,
            allocations: get("--allocations", 2000),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    Coturn,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Ours => "turnserver",
            Self::Coturn => "coturn",
        }
    }
}

struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(kind: Kind) -> Self {
        let port = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]);
        match kind {
            Kind::Ours => {
                command.arg(env!("CARGO_BIN_EXE_turnserver")).envs([
                    ("TURNSERVER__REALM", "r".into()),
                    ("TURNSERVER__LISTEN__UDP", format!("[\"127.0.0.1:{port}\"]")),
                    ("TURNSERVER__LISTEN__TCP", "[]".into()),
                    ("TURNSERVER__HTTP__LISTEN", "[]".into()),
                    ("TURNSERVER__RELAY__ADDRESSES", "[\"127.0.0.1\"]".into()),
                    ("TURNSERVER__AUTH__USERS", "{ u = \"p\" }".into()),
                    ("TURNSERVER__PEERS__ALLOW", "[\"127.0.0.0/8\"]".into()),
                    ("TURNSERVER__LIMITS__UNAUTHENTICATED_PER_IP", "1000000/s".into()),
                    ("TURNSERVER__DATA_PLANE__WORKERS", "1".into()),
                    ("TURNSERVER__LOG__LEVEL", "warn".into()),
                ]);
            }
            Kind::Coturn => {
                let arguments = "/usr/bin/turnserver --no-cli --lt-cred-mech --user=u:p --realm=r --listening-ip \
                                 127.0.0.1 --relay-ip 127.0.0.1 --allow-loopback-peers --no-stdout-log --log-file \
                                 /dev/null -c /dev/null -m 1 --no-tls --no-dtls --listening-port";
                command.args(arguments.split_whitespace()).arg(port.to_string());
            }
        }
        let process = command.stdout(Stdio::null()).spawn().expect("taskset and the server are installed");
        let server = Self { process, address: SocketAddr::from(([127, 0, 0, 1], port)) };
        server.wait();
        server
    }

    fn wait(&self) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time-out can be set");
        let binding = Client::new("", "", 0).binding();
        let mut answer = [0; 1500];
        for _ in 0..200 {
            let _ = socket.send_to(&binding, self.address);
            if socket.recv(&mut answer).is_ok() {
                return;
            }
        }
        panic!("the server does not answer on {}", self.address);
    }

    /// CPU time of all threads so far, in nanoseconds.
    fn cpu(&self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("the server runs");
        let time = |task: std::fs::DirEntry| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        };
        tasks.filter_map(|task| time(task.ok()?)).sum()
    }

    /// Resident bytes.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("the server runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a process has a resident set");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("a number") * 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToPeer,
    ToClient,
}

/// One allocation with a channel.
struct Call {
    socket: UdpSocket,
    relayed: SocketAddr,
}

struct Calls {
    calls: Vec<Call>,
    peer: UdpSocket,
    size: usize,
    batch: Batch,
    modes: Modes,
    slots: Vec<Packet>,
}

impl Calls {
    fn set_up(server: &Server, count: usize, size: usize) -> Self {
        let peer = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let address = peer.local_addr().expect("a bound socket");
        let calls = (0..count).map(|number| Call::set_up(server.address, address, number as u32)).collect();
        peer.set_nonblocking(true).expect("a socket can be made non-blocking");
        let slots = (0..WINDOW).map(|_| Packet::new(vec![0; 4096].into())).collect();
        Self { calls, peer, size, batch: Batch::new(false), modes: Modes::default(), slots }
    }

    /// CPU microseconds per packet that arrived, and packets a second.
    fn measure(&mut self, server: &Server, seconds: u64, direction: Direction) -> (f64, f64) {
        let payload = vec![7; self.size];
        let mut framed = channel::head(ChannelNumber::MIN, self.size as u16).to_vec();
        framed.extend_from_slice(&payload);
        let (cpu, start) = (server.cpu(), now());
        let (mut arrived, mut next) = (0u64, 0);
        while now() - start < Duration::from_secs(seconds) {
            for _ in 0..WINDOW {
                let call = &self.calls[next % self.calls.len()];
                next += 1;
                match direction {
                    Direction::ToPeer => drop(call.socket.send(&framed)),
                    Direction::ToClient => {
                        let out = Outgoing { data: &payload, to: call.relayed, source: None, marks: Marks::default() };
                        self.batch.send(self.peer.as_fd(), &self.modes, std::iter::once(out), |_, _| {});
                    }
                }
            }
            arrived += self.collect(direction, next);
        }
        let spent = (server.cpu() - cpu) as f64 / 1000.0;
        (spent / arrived as f64, arrived as f64 / (now() - start).as_secs_f64())
    }

    /// Waits for one window of packets.
    fn collect(&mut self, direction: Direction, next: usize) -> u64 {
        let mut arrived = 0;
        let mut last = now();
        let first = next - WINDOW;
        while arrived < WINDOW as u64 && now() - last < LOSS {
            let mut got = 0;
            match direction {
                Direction::ToPeer => {
                    got += self.batch.receive(self.peer.as_fd(), &mut self.slots).unwrap_or(0);
                }
                Direction::ToClient => {
                    let calls = self.calls.len();
                    for at in (first..next).map(|at| at % calls).take(calls) {
                        got += self.batch.receive(self.calls[at].socket.as_fd(), &mut self.slots).unwrap_or(0);
                    }
                }
            }
            if got > 0 {
                last = now();
                arrived += got as u64;
            }
        }
        arrived
    }
}

impl Call {
    fn set_up(server: SocketAddr, peer: SocketAddr, number: u32) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(server).expect("loopback is there");
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a time-out can be set");
        let mut client = Client::new("u", "p", number);
        let allocated = ask(&socket, &mut client, |client| client.allocate(None));
        ask(&socket, &mut client, |client| client.channel_bind(ChannelNumber::MIN.get(), peer));
        socket.set_nonblocking(true).expect("a socket can be made non-blocking");
        Self { socket, relayed: allocated.relayed.expect("Allocate answers with an address") }
    }
}

fn ask(
    socket: &UdpSocket,
    client: &mut Client,
    request: impl Fn(&mut Client) -> Vec<u8>,
) -> turnserver::client::Success {
    let mut bytes = [0; 2048];
    for _ in 0..10 {
        socket.send(&request(client)).expect("loopback is there");
        let Ok(len) = socket.recv(&mut bytes) else { continue };
        match client.hear(&bytes[..len]) {
            Ok(Heard::Success(success)) => return success,
            Ok(Heard::Error { is_challenge: true, .. }) => {}
            Ok(Heard::Error { code, .. }) if code != ErrorCode::ALLOCATION_MISMATCH => panic!("refused: {code:?}"),
            _ => {}
        }
    }
    panic!("the server does not answer");
}

/// Bytes of resident memory that one allocation with a channel adds.
fn memory(server: &Server, count: usize) -> f64 {
    let peer = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a socket");
    let warm: Vec<Call> = (0..10).map(|number| Call::set_up(server.address, peer, number)).collect();
    let before = server.memory();
    let calls: Vec<Call> = (10..10 + count).map(|number| Call::set_up(server.address, peer, number as u32)).collect();
    let grown = server.memory() - before;
    drop((warm, calls));
    grown / count as f64
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}

fn pin_to(cpu: usize) {
    let done = Command::new("taskset").args(["-pc", &cpu.to_string(), &std::process::id().to_string()]).output();
    assert!(done.is_ok_and(|output| output.status.success()), "taskset can pin this process to CPU {cpu}");
}
