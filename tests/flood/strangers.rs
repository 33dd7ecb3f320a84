//! A million strangers, each from an address of its own: nothing is kept for them, and a call goes on beside them.

use crate::caller::{CHANNEL, Caller, Wire, channel_data};
use crate::forger::{Forger, Pace, any, stun};
use crate::namespace::{alone, stranger, stranger_v6};
use crate::pair::Authority;
use crate::server::{Server, Setup, until};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};
use turnserver::client::{Client, Heard};
use turnserver::wire::codes::{Attribute, Class, ErrorCode, Method, PROTOCOL_UDP};
use turnserver::wire::integrity::{Algorithm, Key};
use turnserver::wire::reply::Reply;
use turnserver::wire::stun::Message;

/// Forged messages of each kind, unless `TURNSERVER_FLOOD` says another number.
const MILLION: u32 = 1_000_000;
/// Resident bytes that a flood may cost: the fixed tables are filled before it is measured.
const GROWTH: u64 = 1 << 20;
/// The default of `limits.unauthenticated_per_ip`.
const RATE: u64 = 100;
/// How often a handful is looked after before it counts as lost: 200 µs each, 20 s in all.
const LOOKS: u32 = 100_000;
const LOOK: Duration = Duration::from_micros(200);
/// Ports that strangers speak from. Below what relays and the system take; whoever lies about addresses has all of them.
const FIRST_PORT: u16 = 9000;
const PORTS: u16 = 8;
/// The longest answer of all for one byte of a question, in tenths (docs/security.md).
const MOST: u64 = 29;

fn count() -> u32 {
    std::env::var("TURNSERVER_FLOOD").map_or(MILLION, |text| text.parse().expect("TURNSERVER_FLOOD is a number"))
}

/// Everything a flood has an effect on.
struct Scene {
    server: Server,
    forger: Forger,
    /// Hears what strangers are answered, by port; of both families.
    sinks: Vec<UdpSocket>,
    pace: Pace,
    call: Call,
    /// What strangers were answered, since somebody last asked.
    answers: Answers,
    /// How many answers they were sent in all.
    heard: u64,
    /// Messages of STUN among what was forged, and hellos.
    messages: u64,
    hellos: u64,
    /// What the server had answered and dropped before.
    fates: (f64, f64),
    /// The server looks at its certificate again and again.
    _authority: Authority,
}

/// Answers to a flood.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    count: u64,
    bytes: u64,
    /// Bytes of the longest.
    longest: u64,
}

/// A client with an allocation, and a peer that sends everything back.
struct Call {
    caller: UdpSocket,
    peer: UdpSocket,
    relay: SocketAddr,
    sent: u32,
    came: u32,
    _caller: Caller,
}

impl Scene {
    fn new() -> Self {
        let authority = Authority::new();
        let tls = authority.pair("server", &["turn.example.org"]).lines();
        let listen = vec![crate::caller::V4, Ipv6Addr::LOCALHOST.into()];
        let auth_lines = "nonce_lifetime = \"2s\"\n";
        let (allow, dtls, log_level) = (vec!["127.0.0.0/8"], true, "debug");
        let setup = Setup { listen, tls, dtls, allow, auth_lines, log_level, workers: 2, ..Setup::default() };
        let server = Server::start_with(&setup);
        let mut sinks = Vec::new();
        for ip in [crate::caller::V4, Ipv6Addr::LOCALHOST.into()] {
            for port in FIRST_PORT..FIRST_PORT + PORTS {
                let domain = socket2::Domain::for_address(SocketAddr::new(ip, port));
                let socket = socket2::Socket::new(domain, socket2::Type::DGRAM.nonblocking(), None).expect("a socket");
                if ip.is_ipv6() {
                    socket.set_only_v6(true).expect("a socket can be of one family");
                }
                socket.bind(&SocketAddr::new(any(ip), port).into()).expect("the port is free in here");
                sinks.push(socket.into());
            }
        }
        let call = Call::begin(&server);
        let (pace, fates, answers) = (Pace::new(), fates(&server), Answers::default());
        let forger = Forger::new();
        let (heard, messages, hellos) = (0, 0, 0);
        Self { server, forger, sinks, pace, call, answers, heard, messages, hellos, fates, _authority: authority }
    }

    /// Counts from here on: what came before was no flood.
    fn begins(&mut self) {
        (self.pace, self.fates) = (Pace::new(), fates(&self.server));
    }

    /// Pours a flood: what `forge` makes of each number, to where, a handful at a time. In the middle of each handful the
    /// call has a datagram.
    fn pours(&mut self, numbers: core::ops::Range<u32>, mut forge: impl FnMut(u32, &mut Forger)) {
        self.messages += u64::from(numbers.end - numbers.start);
        for number in numbers {
            forge(number, &mut self.forger);
            self.pace.sent += 1;
            let in_handful = u64::from(number) % Pace::HANDFUL;
            if in_handful == Pace::HANDFUL / 2 {
                self.call.says(&mut self.pace);
            } else if in_handful == 0 {
                self.settles();
            }
        }
        self.settles();
    }

    /// Waits until everything that is on the way has been read.
    fn settles(&mut self) {
        for _ in 0..LOOKS {
            self.call.goes_on(&mut self.pace);
            let mut room = [0; 2048];
            for sink in &self.sinks {
                while let Ok(length) = sink.recv(&mut room) {
                    self.pace.heard += 1;
                    self.heard += 1;
                    let (answers, length) = (&mut self.answers, length as u64);
                    answers.count += 1;
                    answers.bytes += length;
                    answers.longest = answers.longest.max(length);
                }
            }
            if self.pace.is_done() {
                return;
            }
            sleep(LOOK);
        }
        panic!("the server does not read what was sent; {} datagrams were lost", self.pace.lost());
    }

    /// The same with hellos of DTLS, which are answered and counted apart.
    fn pours_hellos(&mut self, numbers: core::ops::Range<u32>, forge: impl FnMut(u32, &mut Forger)) {
        let count = u64::from(numbers.end - numbers.start);
        self.pours(numbers, forge);
        self.messages -= count;
        self.hellos += count;
    }

    /// What was answered since the last time. All of it: each message is answered or counted as dropped, and each hello
    /// is answered.
    fn takes_answers(&mut self) -> Answers {
        until("every answer has come", || {
            self.settles();
            let (answered, dropped) = fates(&self.server);
            let (answered, dropped) = (answered - self.fates.0, dropped - self.fates.1);
            answered + dropped >= self.messages as f64 && self.heard as f64 == answered + self.hellos as f64
        });
        core::mem::take(&mut self.answers)
    }

    /// Nobody but the call has anything.
    #[track_caller]
    fn has_kept_nothing(&self) {
        let server = &self.server;
        assert_eq!(server.metric_sum("turnserver_allocations{"), 1.0);
        assert_eq!(server.metric("turnserver_allocations_total"), 1.0);
        assert_eq!(server.metric_sum("turnserver_connections{"), 0.0);
        assert_eq!(self.pace.lost(), 0, "the flood is paced");
    }
}

/// Messages that the server has answered, and datagrams that it has dropped.
fn fates(server: &Server) -> (f64, f64) {
    (server.metric_sum("turnserver_stun_responses_total{"), server.metric_sum("turnserver_dropped_packets_total{"))
}

impl Call {
    fn begin(server: &Server) -> Self {
        let mut caller = Caller::udp(server.address());
        let relay = caller.allocate().expect("an allocation");
        let peer = UdpSocket::bind((crate::caller::V4, crate::server::free_port())).expect("a socket");
        caller.bind(CHANNEL, peer.local_addr().expect("a bound socket")).expect("a channel");
        let Wire::Udp(socket) = &caller.wire else { unreachable!("it was made so") };
        let socket = socket.try_clone().expect("a socket can be had twice");
        socket.set_nonblocking(true).and_then(|()| peer.set_nonblocking(true)).expect("a socket need not wait");
        Self { caller: socket, peer, relay, sent: 0, came: 0, _caller: caller }
    }

    fn says(&mut self, pace: &mut Pace) {
        self.sent += 1;
        let message = channel_data(CHANNEL, &self.sent.to_be_bytes());
        self.caller.send(&message).expect("loopback is there");
        pace.sent += 1;
    }

    /// The peer sends back what has come; the caller counts what it hears.
    fn goes_on(&mut self, pace: &mut Pace) {
        let mut room = [0; 2048];
        while let Ok(length) = self.peer.recv(&mut room) {
            self.peer.send_to(&room[..length], self.relay).expect("loopback is there");
            pace.heard += 1;
            pace.sent += 1;
        }
        while self.caller.recv(&mut room).is_ok() {
            pace.heard += 1;
            self.came += 1;
        }
    }

    /// At most one in a thousand of what was said did not come back.
    #[track_caller]
    fn lost_nothing(&mut self, pace: &mut Pace) {
        for _ in 0..LOOKS {
            self.goes_on(pace);
            if self.came == self.sent {
                break;
            }
            sleep(LOOK);
        }
        eprintln!("the call: {} of {} datagrams came back", self.came, self.sent);
        assert!((self.sent - self.came) * 1000 <= self.sent, "{} of {} came back", self.came, self.sent);
    }
}

/// An Allocate with this in it, and the credential of the user `u` signed with `password`.
fn signed(nonce: &[u8], password: &str) -> Vec<u8> {
    let mut room = [0; 512];
    let mut request = Reply::new(&mut room, Method::ALLOCATE, Class::Request, [7; 12]);
    request.bytes(Attribute::REQUESTED_TRANSPORT, &[PROTOCOL_UDP, 0, 0, 0]);
    request.bytes(Attribute::USERNAME, b"u").bytes(Attribute::REALM, b"test.example").bytes(Attribute::NONCE, nonce);
    request.sign(Algorithm::Sha1, &Key::md5("u", "test.example", password));
    let length = request.finish().expect("there is room");
    room[..length].to_vec()
}

/// A nonce that was good once, for another address than any stranger's.
fn expired_nonce(server: &Server) -> Vec<u8> {
    let mut caller = Caller::udp(server.address());
    let request = caller.client.refresh(Some(600));
    caller.says(&request);
    let challenge = caller.hears().expect("a challenge");
    caller.client.hear(&challenge).expect("the server speaks STUN");
    // Without an allocation this gets 437 as long as the nonce is good.
    let request = caller.client.refresh(Some(600));
    until("the nonce is too old", || {
        let Heard::Error { code, .. } = caller.answer(&request) else { return false };
        assert!([ErrorCode::ALLOCATION_MISMATCH, ErrorCode::STALE_NONCE].contains(&code), "{code:?}");
        code == ErrorCode::STALE_NONCE
    });
    let challenge = Message::parse(&challenge).expect("it was read before");
    challenge.get(Attribute::NONCE).expect("a challenge has a nonce").to_vec()
}

/// The answers that one network may have got since `begin`: a second's worth at once, and then the rate.
fn allowance(begin: Instant) -> u64 {
    RATE + begin.elapsed().as_millis() as u64 * RATE / 1000 + 1
}

#[expect(clippy::disallowed_methods, reason = "a rate is answers in a time, however long that is")]
fn clock() -> Instant {
    Instant::now()
}

#[test]
fn a_million_allocates_of_strangers_leave_nothing_and_a_call_goes_on() {
    alone("flood::strangers::a_million_allocates_of_strangers_leave_nothing_and_a_call_goes_on", || {
        let mut scene = Scene::new();
        let to = scene.server.address();
        let nonce = expired_nonce(&scene.server);
        scene.begins();
        let bare = Client::new("u", "p", 1).allocate(None);
        let kinds = [bare, signed(b"obMatJos2AAAAgarbage", "guess"), signed(b"garbage", "p"), signed(&nonce, "p")];
        let shortest = kinds[0].len() as u64;
        // An address of its own for each, and eight ports.
        let forge = |number: u32, forger: &mut Forger| {
            let from = SocketAddr::new(stranger(number).into(), FIRST_PORT + number as u16 % PORTS);
            let kind = (number / u32::from(PORTS)) as usize % kinds.len();
            forger.sends(from, to, &kinds[kind]);
        };
        let (warm, all) = (count() / 50, count());
        scene.pours(0..warm, forge);
        let (memory, log) = (scene.server.memory(), scene.server.log().lines().count());
        scene.takes_answers();
        let begin = clock();
        scene.pours(warm..warm + all, forge);
        let Answers { count: answers, bytes, longest } = scene.takes_answers();
        let grown = scene.server.memory().saturating_sub(memory);
        let spent: u64 = kinds.iter().map(|kind| kind.len() as u64).sum::<u64>() * u64::from(all) / kinds.len() as u64;
        let seconds = begin.elapsed().as_secs_f64();
        eprintln!(
            "{all} Allocates in {seconds:.1} s: {answers} answers, {bytes} bytes for {spent}, {grown} bytes more"
        );
        assert!(grown <= GROWTH, "{grown} bytes more");
        assert!(bytes * 10 <= spent * MOST, "{bytes} bytes for {spent}");
        assert!(longest * 10 <= shortest * MOST, "{longest} bytes for {shortest}");
        assert!(answers <= u64::from(all) && answers > 0);
        scene.call.lost_nothing(&mut scene.pace);
        scene.has_kept_nothing();
        assert_eq!(scene.server.log().lines().count(), log, "{}", scene.server.log());
    });
}

#[test]
fn random_bindings_and_hellos_of_strangers_leave_nothing_either() {
    alone("flood::strangers::random_bindings_and_hellos_of_strangers_leave_nothing_either", || {
        let mut scene = Scene::new();
        let (plain, secure) = (scene.server.address(), SocketAddr::new(crate::caller::V4, scene.server.dtls_port()));
        let from = |number: u32| SocketAddr::new(stranger(number).into(), FIRST_PORT + number as u16 % PORTS);
        let mut chance = crate::shapes::Chance::new(0xF100D);
        // A header of Binding that is right, or its length is not; what follows is noise.
        let mut noise = |number: u32| {
            let filler = chance.bytes(number as usize % 25 * 4);
            let mut message = stun(1, [number as u8; 12], &filler);
            if number.is_multiple_of(3) {
                message[3] ^= 4;
            }
            message
        };
        let hello = hello();
        let (warm, bindings, hellos) = (count() / 50, count(), count());
        scene.pours(0..warm, |number, forger| forger.sends(from(number), plain, &noise(number)));
        scene.pours_hellos(0..warm, |number, forger| forger.sends(from(number), secure, &hello));
        scene.takes_answers();
        let (memory, log) = (scene.server.memory(), scene.server.log().lines().count());

        let mut spent = 0;
        let begin = clock();
        scene.pours(warm..warm + bindings, |number, forger| {
            let message = noise(number);
            spent += message.len() as u64;
            forger.sends(from(number), plain, &message);
        });
        let Answers { count: answers, bytes, .. } = scene.takes_answers();
        let seconds = begin.elapsed().as_secs_f64();
        eprintln!("{bindings} Bindings in {seconds:.1} s: {answers} answers, {bytes} bytes for {spent}");
        assert!(bytes * 10 <= spent * 16, "{bytes} bytes for {spent}");

        let begin = clock();
        scene.pours_hellos(warm..warm + hellos, |number, forger| forger.sends(from(number), secure, &hello));
        let Answers { count: answers, longest, .. } = scene.takes_answers();
        let grown = scene.server.memory().saturating_sub(memory);
        let (asked, seconds) = (hello.len(), begin.elapsed().as_secs_f64());
        eprintln!(
            "{hellos} hellos in {seconds:.1} s: {answers} answers of {longest} bytes for {asked}; {grown} bytes more"
        );
        assert!(longest <= hello.len() as u64 && answers == u64::from(hellos));
        assert!(grown <= GROWTH, "{grown} bytes more");
        scene.call.lost_nothing(&mut scene.pace);
        scene.has_kept_nothing();
        assert_eq!(scene.server.log().lines().count(), log, "{}", scene.server.log());
    });
}

#[test]
fn one_network_gets_its_answers_a_second_and_no_more_whatever_its_ports_and_hosts() {
    alone("flood::strangers::one_network_gets_its_answers_a_second_and_no_more_whatever_its_ports_and_hosts", || {
        let mut scene = Scene::new();
        let allocate = Client::new("u", "p", 1).allocate(None);
        let mut binding = Client::new("u", "p", 1).binding();
        let all = count() / 50;
        let port = |number: u32| FIRST_PORT + number as u16 % PORTS;

        let to = scene.server.address();
        let begin = clock();
        scene.pours(0..all, |number, forger| {
            let message = if number % 2 == 0 { &allocate } else { &binding };
            forger.sends(SocketAddr::new(stranger(1).into(), port(number)), to, message);
        });
        let answers = scene.takes_answers().count;
        eprintln!("one IPv4 address asks {all} times and is answered {answers} times in {:?}", begin.elapsed());
        assert!(answers <= allowance(begin) && answers >= RATE.min(all.into()) / 2, "{answers} answers");

        let to = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), to.port());
        let begin = clock();
        scene.pours(0..all, |number, forger| {
            let host = u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            binding[8..12].copy_from_slice(&number.to_be_bytes());
            forger.sends(SocketAddr::new(stranger_v6(1, host).into(), port(number)), to, &binding);
        });
        let answers = scene.takes_answers().count;
        eprintln!("one IPv6 /64 asks {all} times and is answered {answers} times in {:?}", begin.elapsed());
        assert!(answers <= allowance(begin) && answers >= RATE.min(all.into()) / 2, "{answers} answers");

        // Another network has answers of its own.
        let home = SocketAddr::new(stranger_v6(2, 1).into(), port(0));
        scene.pours(0..10, |_, forger| forger.sends(home, to, &binding));
        assert_eq!(scene.takes_answers().count, 10);
        scene.call.lost_nothing(&mut scene.pace);
        scene.has_kept_nothing();
    });
}

/// A ClientHello of DTLS 1.2 as short as one can be: ECDHE with ECDSA and AES-128-GCM, no extension.
fn hello() -> Vec<u8> {
    crate::shapes::hello(&[], 0)
}
