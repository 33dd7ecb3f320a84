//! Packets that would go round for ever: between a server and itself, between two, through relays and past them.
//!
//! Each story has a network of its own, in which whoever lies about addresses also sees every answer, wherever it goes:
//! the attacker of RFC 8656 §21.1.7 at its strongest. What leaves is counted by the kernel.

use crate::caller::{CHANNEL, Caller, Data, channel_data};
use crate::forger::{Forger, stun};
use crate::namespace::{Counted, FAR, NEAR, alone};
use crate::server::{SECRET, Server, Setup, free_port, until};
use crate::skip::has;
use crate::temp::TempDir;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;
use turnserver::client::{Client, Heard, Success};
use turnserver::wire::codes::{Attribute, Class, ErrorCode, Method};
use turnserver::wire::reply::Reply;

/// Packets that one may cause, on all legs together.
const MOST: u64 = 8;
const LOOK: Duration = Duration::from_millis(20);
/// Looks without a packet after which nothing goes round.
const QUIET: u32 = 5;
/// Looks after which something does: 10 s.
const LOOKS: u32 = 500;
/// How long the processor time of a server is looked at, and how much of it may pass, in hundredths of a second.
const IDLE: Duration = Duration::from_secs(1);
const TICKS: u64 = 10;

/// Whoever sends from any address, and hears what goes to any.
struct Attacker {
    forger: Forger,
    /// A copy of each UDP datagram over IPv4, with its IP header.
    ear: Socket,
}

impl Attacker {
    fn new() -> Self {
        let ear = Socket::new(Domain::IPV4, Type::RAW.nonblocking(), Some(Protocol::UDP));
        Self { forger: Forger::new(), ear: ear.expect("whoever makes a network may listen in it") }
    }

    /// How many packets one datagram causes, once there are no more.
    fn causes(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> u64 {
        let before = settled();
        self.forger.sends(from, to, payload);
        settled().packets - before.packets - 1
    }

    /// What a request is answered that claims to come from `from`.
    fn asks(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        client: &mut Client,
        make: impl Fn(&mut Client) -> Vec<u8>,
    ) -> Result<Success, ErrorCode> {
        loop {
            let request = make(client);
            self.forger.sends(from, to, &request);
            let answer = self.hears(to, from, &request[8..20]);
            match client.hear(&answer).expect("the server speaks STUN") {
                Heard::Success(success) => return Ok(success),
                Heard::Error { is_challenge: true, .. } => {}
                Heard::Error { code, .. } => return Err(code),
                other @ (Heard::Data { .. } | Heard::Icmp { .. } | Heard::ChannelData { .. }) => panic!("{other:?}"),
            }
        }
    }

    /// The datagram between these two with this transaction.
    fn hears(&mut self, from: SocketAddr, to: SocketAddr, transaction: &[u8]) -> Vec<u8> {
        let mut found = None;
        let mut room = [0; 4096];
        until("the answer goes where the question seemed to come from", || {
            while let Ok(length) = self.ear.read(&mut room) {
                // Twenty bytes of IP header, eight of UDP.
                let packet = &room[..length];
                let ip = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).expect("four bytes"));
                let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
                let ends = (SocketAddr::new(ip(12), port(20)), SocketAddr::new(ip(16), port(22)));
                if ends == (from, to) && packet.get(36..48) == Some(transaction) {
                    found = Some(packet[28..].to_vec());
                }
            }
            found.is_some()
        });
        found.expect("it was heard")
    }
}

/// What is counted once nothing goes round.
#[track_caller]
fn settled() -> Counted {
    let (mut last, mut quiet) = (Counted::read(), 0);
    for _ in 0..LOOKS {
        sleep(LOOK);
        let next = Counted::read();
        quiet = if next.packets == last.packets { quiet + 1 } else { 0 };
        last = next;
        if quiet == QUIET {
            return last;
        }
    }
    panic!("packets go round for ever: {last:?}");
}

/// Processor time of a process, in hundredths of a second.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name ends").split_whitespace().collect();
    // utime and stime are fields 14 and 15; the first after the name is field 3.
    fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum()
}

/// A server has nothing to do any more.
#[track_caller]
fn is_idle(pid: u32) {
    let (before, packets) = (ticks(pid), settled().packets);
    sleep(IDLE);
    let spent = ticks(pid) - before;
    assert!(spent <= TICKS, "{spent} hundredths of a second in {IDLE:?}");
    assert_eq!(Counted::read().packets, packets);
}

fn server(ip: IpAddr, relay_lines: &str) -> Server {
    Server::start_with(&setup(ip, relay_lines))
}

/// A server that sends clients to another one while it drains.
fn server_that_knows(other: &str, ip: IpAddr, relay_lines: &str) -> Server {
    Server::start_with(&Setup { limits: format!("redirect = [\"{other}\"]"), ..setup(ip, relay_lines) })
}

fn setup(ip: IpAddr, relay_lines: &str) -> Setup {
    let (listen, relay, allow) = (vec![ip], vec![ip], vec!["10.0.0.0/8"]);
    Setup { listen, relay, allow, relay_lines: relay_lines.into(), workers: 2, ..Setup::default() }
}

/// One of everything that a server may take for a question, or answers with.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let message = |method, class, write: &dyn Fn(&mut Reply<'_>)| {
        let mut room = [0; 256];
        let mut reply = Reply::new(&mut room, method, class, [9; 12]);
        write(&mut reply);
        let length = reply.finish().expect("there is room");
        room[..length].to_vec()
    };
    let home = SocketAddr::new(NEAR, 9);
    let mut classic = stun(1, [9; 12], &[]);
    classic[4] = 0;
    let mut error = [0; 128];
    let refused = Reply::error(&mut error, Method::ALLOCATE, [9; 12], ErrorCode::UNAUTHENTICATED, "").finish();
    vec![
        ("a Binding", stun(1, [9; 12], &[])),
        (
            "a Binding with what nobody knows",
            message(Method::BINDING, Class::Request, &|binding| {
                binding.bytes(Attribute(0x7777), &[]);
            }),
        ),
        ("an Allocate", Client::new("u", "p", 1).allocate(None)),
        ("a Refresh", Client::new("u", "p", 1).refresh(Some(600))),
        ("a Binding indication", stun(0x11, [9; 12], &[])),
        ("a Send indication", Client::new("u", "p", 1).send(home, b"round")),
        (
            "a Data indication",
            message(Method::DATA, Class::Indication, &|data| {
                data.xor_address(Attribute::XOR_PEER_ADDRESS, home).bytes(Attribute::DATA, b"round");
            }),
        ),
        (
            "a success",
            message(Method::BINDING, Class::Success, &|success| {
                success.xor_address(Attribute::XOR_MAPPED_ADDRESS, home);
            }),
        ),
        ("an error", error[..refused.expect("there is room")].to_vec()),
        ("a Binding of RFC 3489", classic),
        ("ChannelData", channel_data(CHANNEL, b"round")),
        ("a method nobody knows", stun(0x0FE, [9; 12], &[])),
        ("a hello of DTLS", crate::shapes::hello(&[], 100)),
        ("noise", b"round and round".to_vec()),
        ("nothing", Vec::new()),
    ]
}

#[test]
fn x01_nothing_goes_round_between_a_server_and_itself() {
    alone("flood::loops::x01_nothing_goes_round_between_a_server_and_itself", || {
        let server = server(NEAR, "");
        let door = SocketAddr::new(NEAR, server.port);
        let mut attacker = Attacker::new();
        // Two clients of its own, with a channel between their relays: the circle that is allowed.
        let mut callers = [Caller::udp(door), Caller::udp(door)];
        let relays = callers.each_mut().map(|caller| caller.allocate().expect("an allocation"));
        callers[0].bind(CHANNEL, relays[1]).expect("a channel");
        callers[1].bind(CHANNEL, relays[0]).expect("a channel");
        assert_eq!(callers[0].bind(CHANNEL + 1, door), Err(ErrorCode::FORBIDDEN), "its own door is no peer");
        // A permission has no port: another allocation of this host is behind it, and the door is not.
        callers[0].permit(door).expect("a permission");
        callers[0].sends_to(door, &stun(1, [9; 12], &[]));
        let denied = "turnserver_dropped_packets_total{reason=\"peer_denied\"}";
        until("what is sent to the door is dropped", || server.metric(denied) == 1.0);

        let ways = [(door, door), (relays[0], door), (door, relays[0]), (relays[0], relays[0]), (relays[0], relays[1])];
        for (name, message) in messages() {
            for (from, to) in ways {
                let count = attacker.causes(from, to, &message);
                // A relay hands what seems to come from a permitted address on to its client, and that is the end of it.
                let most = u64::from(to != door);
                assert!(count <= most, "{name} from {from} to {to} causes {count} packets");
            }
        }
        is_idle(server.pid());
        for (from, to) in [(0, 1), (1, 0)] {
            callers[from].sends_on(CHANNEL, b"the call goes on");
            // What was forged before comes first; that nothing more comes ends the story.
            while callers[to].data() != Data::On(CHANNEL, b"the call goes on".to_vec()) {}
        }
    });
}

/// Every message between the doors of two servers, both ways.
fn two_doors(attacker: &mut Attacker, one: SocketAddr, other: SocketAddr) {
    for (name, message) in messages() {
        for (from, to) in [(one, other), (other, one)] {
            let count = attacker.causes(from, to, &message);
            eprintln!("{name} from {from} to {to}: {count} packets");
            assert!(count <= MOST, "{name} from {from} to {to} causes {count} packets");
        }
    }
}

#[test]
fn x01_two_servers_do_not_answer_each_others_answers() {
    alone("flood::loops::x01_two_servers_do_not_answer_each_others_answers", || {
        let servers = [server(NEAR, ""), server(FAR, "")];
        let doors = [SocketAddr::new(NEAR, servers[0].port), SocketAddr::new(FAR, servers[1].port)];
        two_doors(&mut Attacker::new(), doors[0], doors[1]);
        servers.iter().for_each(|server| is_idle(server.pid()));
    });
}

#[test]
fn x01_coturn_and_this_server_do_not_answer_each_others_answers() {
    if !has("turnutils_uclient") {
        return;
    }
    alone("flood::loops::x01_coturn_and_this_server_do_not_answer_each_others_answers", || {
        let server = server(NEAR, "");
        let coturn = Coturn::start();
        two_doors(&mut Attacker::new(), SocketAddr::new(NEAR, server.port), coturn.door);
        is_idle(server.pid());
        is_idle(coturn.process.id());
    });
}

/// The other server, as its package has it.
struct Coturn {
    process: Child,
    door: SocketAddr,
    _home: TempDir,
}

impl Coturn {
    fn start() -> Self {
        let home = TempDir::new("coturn");
        let door = SocketAddr::new(FAR, free_port());
        let words = format!(
            "-n --use-auth-secret --static-auth-secret {SECRET} --realm test.example --listening-ip {ip} \
             --relay-ip {ip} --listening-port {port} --no-tls --no-dtls --no-cli --no-stdout-log --relay-threads 1",
            ip = door.ip(),
            port = door.port(),
        );
        let file = |name: &str| home.path().join(name).display().to_string();
        let mut command = Command::new("/usr/bin/turnserver");
        command.args(words.split_whitespace());
        command.args(["--userdb", &file("db"), "--log-file", &file("log"), "--pidfile", &file("pid")]);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("an installed program starts");
        let coturn = Self { process, door, _home: home };
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
        socket.set_read_timeout(Some(LOOK)).expect("a time-out can be set");
        until("coturn answers", || {
            let _ = socket.send_to(&stun(1, [1; 12], &[]), door);
            socket.recv(&mut [0; 100]).is_ok()
        });
        coturn
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port range so small that whoever knows it knows the next relay address before it is there.
const FORESEEABLE: &str = "ports = \"50000-50000\"";
const FORESEEN: u16 = 50_000;

/// A circle through two servers (RFC 8656 §21.1.7): each has something of the other for its client and for its peer.
struct Circle {
    servers: [Server; 2],
    doors: [SocketAddr; 2],
    relays: [SocketAddr; 2],
    attacker: Attacker,
}

impl Circle {
    /// `ends` makes the client and the peer of a server out of the door and the relay address of the other.
    fn closes(ends: fn(SocketAddr, SocketAddr) -> (SocketAddr, SocketAddr)) -> Self {
        let servers = [server(NEAR, FORESEEABLE), server(FAR, FORESEEABLE)];
        let doors = [SocketAddr::new(NEAR, servers[0].port), SocketAddr::new(FAR, servers[1].port)];
        let relays = [SocketAddr::new(NEAR, FORESEEN), SocketAddr::new(FAR, FORESEEN)];
        let mut attacker = Attacker::new();
        for (own, other) in [(0, 1), (1, 0)] {
            let mut client = Client::new("u", "p", own as u32);
            let ((from, peer), to) = (ends(doors[other], relays[other]), doors[own]);
            let made = attacker.asks(from, to, &mut client, |client| client.allocate(None));
            assert_eq!(made.map(|success| success.relayed), Ok(Some(relays[own])));
            let bound = attacker.asks(from, to, &mut client, |client| client.channel_bind(CHANNEL, peer));
            assert!(bound.is_ok(), "{bound:?}");
        }
        Self { servers, doors, relays, attacker }
    }
}

#[test]
fn x01_h04_a_circle_of_channels_through_two_servers_costs_a_hop_and_a_header_each_pass() {
    alone("flood::loops::x01_h04_a_circle_of_channels_through_two_servers_costs_a_hop_and_a_header_each_pass", || {
        let Circle { servers, doors, relays, mut attacker } = Circle::closes(|door, relay| (relay, door));
        let nested = |levels: usize| (0..levels).fold(b"round".to_vec(), |inner, _| channel_data(CHANNEL, &inner));
        // A server that finds no header left drops what came, and so does one that finds no hop left.
        // More heads than any call needs are dropped before the first pass.
        for (levels, hops) in [(1, 255), (2, 255), (4, 255), (8, 255), (8, 8), (8, 3), (9, 255), (300, 255)] {
            attacker.forger.hops = hops;
            let count = attacker.causes(relays[1], doors[0], &nested(levels));
            eprintln!("{levels} headers and {hops} hops: {count} packets");
            let due = if levels as u64 > MOST { 0 } else { (levels as u64).min(u64::from(hops) - 1) };
            assert_eq!(count, due);
        }
        // The other way round each relay puts a header on what the other's door sends, and what has too many goes no further.
        for (levels, hops) in [(0, 255), (0, 64), (0, 3), (4, 255), (7, 255), (8, 255)] {
            attacker.forger.hops = hops;
            let count = attacker.causes(doors[1], relays[0], &nested(levels));
            eprintln!("{levels} headers from a peer and {hops} hops: {count} packets");
            assert_eq!(count, (MOST - levels as u64).min(u64::from(hops) - 1));
        }
        servers.iter().for_each(|server| is_idle(server.pid()));
    });
}

#[test]
fn x01_a_circle_that_keeps_its_size_does_not_close_where_one_server_knows_the_other() {
    alone("flood::loops::x01_a_circle_that_keeps_its_size_does_not_close_where_one_server_knows_the_other", || {
        let near = server(NEAR, FORESEEABLE);
        let far = server_that_knows(&format!("{NEAR}:{}", near.port), FAR, FORESEEABLE);
        let doors = [SocketAddr::new(NEAR, near.port), SocketAddr::new(FAR, far.port)];
        let relays = [SocketAddr::new(NEAR, FORESEEN), SocketAddr::new(FAR, FORESEEN)];
        let mut attacker = Attacker::new();
        // The one that knows nothing takes the other's door for a client.
        let mut client = Client::new("u", "p", 0);
        let made = attacker.asks(doors[1], doors[0], &mut client, |client| client.allocate(None));
        assert_eq!(made.map(|success| success.relayed), Ok(Some(relays[0])));
        let bound = attacker.asks(doors[1], doors[0], &mut client, |client| client.channel_bind(CHANNEL, relays[1]));
        assert!(bound.is_ok(), "{bound:?}");
        // The one that knows does not even challenge: it has dropped what the other answered, and drops this.
        let dropped = |reason: &str| far.metric(&format!("turnserver_dropped_packets_total{{reason=\"{reason}\"}}"));
        let before = dropped("bad_source");
        let allocate = Client::new("u", "p", 1).allocate(None);
        assert_eq!(attacker.causes(doors[0], doors[1], &allocate), 0);
        assert_eq!(dropped("bad_source"), before + 1.0);
        // What the first hands to its client ends at that door.
        assert_eq!(attacker.causes(relays[1], relays[0], b"round"), 1);
        assert_eq!(dropped("no_allocation"), 1.0);
        [near, far].iter().for_each(|server| is_idle(server.pid()));
    });
}

#[test]
fn x01_a_circle_that_puts_a_head_on_and_takes_it_off_ends_with_its_hops() {
    alone("flood::loops::x01_a_circle_that_puts_a_head_on_and_takes_it_off_ends_with_its_hops", || {
        let Circle { servers, relays, mut attacker, .. } = Circle::closes(|door, relay| (door, relay));
        for hops in [64, 3] {
            attacker.forger.hops = hops;
            let count = attacker.causes(relays[1], relays[0], b"round");
            eprintln!("{hops} hops: {count} packets");
            assert!(count < u64::from(hops), "{count} packets of {hops} hops");
        }
        servers.iter().for_each(|server| is_idle(server.pid()));
    });
}
