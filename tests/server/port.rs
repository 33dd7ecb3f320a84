//! One port for all: TURN, TURN under TLS and a web server told apart, and clients that a load balancer speaks for.
//!
//! HAProxy is the load balancer, and both kinds of web server.

use crate::caller::{CHANNEL, Caller, Data, Peer, Wire};
use crate::pair::{Authority, Files};
use crate::server::{Server, Setup, free_port, until};
use crate::skip::{has, skip};
use crate::temp::TempDir;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use turnserver::wire::codes::ErrorCode;

const NAME: &str = "turn.example.org";
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const NOISE: &str = "turnserver_dropped_packets_total{reason=\"noise\"}";
const LIARS: &str = "turnserver_dropped_packets_total{reason=\"proxy\"}";
const UNSERVED: &str = "turnserver_dropped_packets_total{reason=\"web\"}";
const PLAIN: &str = "turnserver_connections{transport=\"tcp\"}";
const SECURE: &str = "turnserver_connections{transport=\"tls\"}";
const TRUSTED: &str = "proxy_protocol = true\nproxy_trusted = [\"127.0.0.1\"]\n";

/// A program that ends with the test.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn in_background(program: &str, arguments: &[&str]) -> Background {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Background(command.spawn().expect("an installed program starts"))
}

fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    let output =
        command.arg("90").arg(program).args(arguments).stdin(Stdio::null()).output().expect("timeout is there");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// HAProxy with these parts of a configuration, once it listens on `port`.
fn haproxy(home: &TempDir, parts: &str, port: u16) -> Background {
    let head = "defaults\n mode http\n timeout client 60s\n timeout server 60s\n timeout connect 5s\n";
    let file = home.path().join("haproxy.cfg");
    std::fs::write(&file, format!("{head}{parts}\n")).expect("a file is written");
    let process = in_background("haproxy", &["-db", "-f", &file.display().to_string()]);
    until("HAProxy listens", || TcpStream::connect((LOCAL, port)).is_ok());
    process
}

/// A web server of either kind that tells the client's address and the version of HTTP; over TLS with `pem`.
fn web(home: &TempDir, port: u16, options: &str) -> Background {
    let answer =
        "http-request return status 200 content-type text/plain lf-string \"%[src]:%[src_port] HTTP/%[req.ver]\"";
    haproxy(home, &format!("frontend web\n bind 127.0.0.1:{port} {options}\n {answer}"), port)
}

/// Certificate and key in one file, as HAProxy wants them.
fn pem(home: &TempDir, files: &Files) -> PathBuf {
    let both = [&files.cert, &files.key].map(|file| std::fs::read_to_string(file).expect("a file of the test"));
    let path = home.path().join("both.pem");
    std::fs::write(&path, both.concat()).expect("a file is written");
    path
}

struct World {
    server: Server,
    authority: Authority,
    home: TempDir,
}

/// A server with a certificate and these lines of `[listen]`.
fn served(lines: &str) -> World {
    served_by(lines, 0)
}

fn served_by(lines: &str, workers: u32) -> World {
    let authority = Authority::new();
    let tls = authority.pair("server", &[NAME, "127.0.0.1"]).lines();
    let limits = "connections_per_ip = 20000".into();
    let setup =
        Setup { tls, limits, listen_lines: lines.into(), allow: vec!["127.0.0.0/8"], workers, ..Setup::default() };
    World { server: Server::start_with(&setup), authority, home: TempDir::new("port") }
}

impl World {
    /// What curl gets from this port under TLS; the error where there is none.
    fn curl(&self, port: u16, options: &[&str]) -> String {
        let address = format!("https://{NAME}:{port}/");
        let resolve = format!("{NAME}:{port}:127.0.0.1");
        let common = ["-sS", "-m", "60", "--resolve", &resolve, &address];
        let authority = self.authority.file().display().to_string();
        run("curl", &[options, &["--cacert", &authority], &common].concat())
    }

    /// A call that goes on while others come, over plain TCP or TLS, through whatever stands at `address`.
    fn call(&self, address: SocketAddr, is_secure: bool) -> Call {
        let mut caller = match is_secure {
            true => Caller::tls(address, self.authority.pem(), NAME),
            false => Caller::tcp(address),
        };
        let relay = caller.allocate().expect("an allocation");
        let peer = Peer::new();
        caller.bind(CHANNEL, peer.address()).expect("a channel");
        Call { caller, peer, relay }
    }
}

struct Call {
    caller: Caller,
    peer: Peer,
    relay: SocketAddr,
}

impl Call {
    fn goes_on(&mut self) {
        self.caller.sends_on(CHANNEL, b"there");
        assert_eq!(self.peer.hears(), (self.relay, b"there".to_vec()));
        self.peer.says(self.relay, b"and back");
        assert_eq!(self.caller.data(), Data::On(CHANNEL, b"and back".to_vec()));
    }
}

/// Says these bytes on a connection of its own, and whether the server then closes it, without many bytes of its own.
fn is_cut_off(address: SocketAddr, bytes: &[u8]) -> bool {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out can be set");
    let _ = stream.write_all(bytes);
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => rest.len() <= 7, // an alert
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// coturn's client with these options loses nothing of what it sends to a peer and back.
fn coturn_loses_nothing(options: &[&str], port: u16) {
    let peer_port = free_port().to_string();
    let port = port.to_string();
    let _peer = in_background("turnutils_peer", &["-L", "127.0.0.1", "-p", &peer_port]);
    let common = ["-c", "-u", "u", "-w", "p", "-m", "4", "-n", "10", "-e", "127.0.0.1", "-r", &peer_port];
    let told = run("turnutils_uclient", &[options, &common, &["-p", &port, "127.0.0.1"]].concat());
    assert!(told.contains("Total lost packets 0 (0.000000%), total send dropped 0"), "{options:?}\n{told}");
}

#[test]
fn with_detection_every_port_takes_both_and_the_books_tell_them_apart() {
    let world = served("detect = true\n");
    for address in [world.server.address(), world.server.tls_address()] {
        let (mut plain, mut secure) = (world.call(address, false), world.call(address, true));
        plain.goes_on();
        secure.goes_on();
        assert_eq!((world.server.metric(PLAIN), world.server.metric(SECURE)), (1.0, 1.0));
        assert!(
            world.server.log().contains("\"transport\":\"tls\"")
                && world.server.log().contains("\"transport\":\"tcp\"")
        );
        drop((plain, secure));
        until("both are gone", || world.server.metric(PLAIN) + world.server.metric(SECURE) < 1.0);
    }
    // One that says nothing counts for its listener.
    let silent = TcpStream::connect(world.server.tls_address()).expect("the server listens");
    until("it is there", || world.server.metric(SECURE) >= 1.0);
    drop(silent);
    // Anything else ends at its first bytes.
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"PRI * HTTP/2.0", &[0x80; 12], &[21, 3, 3]] {
        assert!(is_cut_off(world.server.address(), bytes), "{bytes:?}");
    }
    until("each is counted", || world.server.metric(NOISE) >= 4.0);
    assert_eq!(world.server.metric(LIARS), 0.0);
}

#[test]
fn openssl_and_coturn_use_the_one_port() {
    if !has("openssl") || !has("turnutils_uclient") || !has("turnutils_peer") {
        return;
    }
    let world = served("detect = true\n");
    let address = world.server.address().to_string();
    let authority = world.authority.file().display().to_string();
    let told = run("openssl", &["s_client", "-connect", &address, "-CAfile", &authority, "-alpn", "stun.turn"]);
    assert!(told.contains("Verify return code: 0 (ok)") && told.contains("ALPN protocol: stun.turn"), "{told}");
    coturn_loses_nothing(&["-t", "-S"], world.server.port);
    coturn_loses_nothing(&["-t"], world.server.port);
    Caller::tcp(world.server.address()).binding().expect("an answer over TCP");
}

#[test]
fn without_detection_a_port_speaks_what_it_is_for() {
    let world = served("");
    let mut hello = Caller::tls(world.server.address(), world.authority.pem(), NAME);
    assert!(hello.shakes_hands().is_err());
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"POST / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n"] {
        assert!(is_cut_off(world.server.address(), bytes), "{bytes:?}");
    }
    until("all are counted", || world.server.metric(NOISE) >= 4.0);
    let plain = turnserver::client::Client::new("", "", 1).binding();
    assert!(is_cut_off(world.server.tls_address(), &plain));
    until("it is counted", || world.server.metric("turnserver_dropped_packets_total{reason=\"tls\"}") >= 1.0);
}

#[test]
fn a_browser_reaches_a_plain_web_server_and_a_call_on_the_same_port_goes_on() {
    if !has("curl") || !has("haproxy") {
        return;
    }
    let (home, port) = (TempDir::new("web"), free_port());
    let world = served(&format!("detect = true\nhttps_fallback = \"127.0.0.1:{port}\"\n"));
    // Nobody is there yet.
    assert!(world.curl(world.server.tls_port(), &[]).contains("curl: "));
    until("it is counted", || world.server.metric(UNSERVED) >= 1.0);
    until("it is told", || world.server.log().contains("the web server cannot be reached"));
    let mut call = world.call(world.server.tls_address(), true);
    let _web = web(&home, port, "");
    until("it is found", || world.server.log().contains("the web server answers"));
    for on in [world.server.port, world.server.tls_port()] {
        assert!(world.curl(on, &["--http1.1"]).ends_with("HTTP/1.1"));
        assert!(world.curl(on, &["--http2"]).ends_with("HTTP/2.0"));
        // Without ALPN the request itself tells.
        assert!(world.curl(on, &["--http1.1", "--no-alpn"]).ends_with("HTTP/1.1"));
        call.goes_on();
    }
    // In the clear it is no TURN and no TLS.
    assert!(is_cut_off(world.server.address(), b"GET / HTTP/1.1\r\n\r\n"));
    until("browsers are gone", || world.server.metric(SECURE) < 2.0);
    call.goes_on();
}

#[test]
fn a_web_server_with_its_own_certificate_keeps_it() {
    if !has("curl") || !has("haproxy") {
        return;
    }
    let (home, port) = (TempDir::new("web"), free_port());
    let world = served(&format!("https_fallback = \"127.0.0.1:{port}\"\n"));
    let other = Authority::new();
    let file = pem(&home, &other.pair("web", &[NAME])).display().to_string();
    let _web = web(&home, port, &format!("ssl crt {file} alpn h2,http/1.1"));
    until("it is found", || world.server.log().contains("the web server answers"));
    let on = world.server.tls_port();
    assert!(world.curl(on, &[]).contains("curl: "), "our own authority has not vouched for it");
    let trust = other.file().display().to_string();
    let resolve = format!("{NAME}:{on}:127.0.0.1");
    for (version, ends) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
        let told =
            run("curl", &["-sS", version, "--cacert", &trust, "--resolve", &resolve, &format!("https://{NAME}:{on}/")]);
        assert!(told.ends_with(ends), "{told}");
    }
    // A request by first bytes would need TLS once more.
    let noise = world.server.metric(NOISE);
    assert!(world.curl(on, &["--http1.1", "--no-alpn"]).contains("curl: "));
    until("it is counted", || world.server.metric(NOISE) > noise);
    world.call(world.server.tls_address(), true).goes_on();
}

#[test]
fn the_web_server_is_told_the_client_and_much_goes_through_whole() {
    if !has("curl") || !has("haproxy") {
        return;
    }
    let (home, port) = (TempDir::new("web"), free_port());
    let lines = format!("https_fallback = \"http://127.0.0.1:{port}\"\nhttps_fallback_proxy = true\n");
    let world = served(&lines);
    let big = home.path().join("big");
    let body: Vec<u8> = (0..8 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&big, &body).expect("a file is written");
    let part = format!(
        "frontend web\n bind 127.0.0.1:{port} accept-proxy\n option http-buffer-request\n \
         http-request return status 200 content-type text/plain lf-string \"%[src]:%[src_port]\" if {{ path / }}\n \
         http-request return status 200 content-type application/octet-stream file {}\n",
        big.display()
    );
    // Its answers lie in memory, so its buffers must hold them.
    let part = format!("global\n tune.bufsize {}\n{part}", 9 << 20);
    let _web = haproxy(&home, &part, port);
    let on = world.server.tls_port();
    let told = world.curl(on, &["-w", " %{local_ip}:%{local_port}"]);
    let (seen, own) = told.split_once(' ').expect("two addresses");
    assert_eq!(seen, own, "the web server hears of the client itself");
    let copy = world.home.path().join("copy");
    let told = run(
        "curl",
        &["-sS", "-k", "-m", "80", "-o", &copy.display().to_string(), &format!("https://127.0.0.1:{on}/big")],
    );
    assert!(std::fs::read(&copy).is_ok_and(|copy| copy == body), "{told}");
}

#[test]
fn behind_a_load_balancer_the_log_and_the_limits_see_the_client() {
    if !has("haproxy") || !has("turnutils_uclient") || !has("turnutils_peer") {
        return;
    }
    let world = served(&format!("detect = true\n{TRUSTED}"));
    let (v1, v2) = (free_port(), free_port());
    let to = world.server.address();
    let part = format!(
        "listen one\n mode tcp\n bind 127.0.0.1:{v1}\n server s {to} send-proxy\n\
         listen two\n mode tcp\n bind 127.0.0.1:{v2}\n server s {to} send-proxy-v2\n"
    );
    let _proxy = haproxy(&world.home, &part, v2);
    for port in [v1, v2] {
        for is_secure in [false, true] {
            let mut call = world.call(SocketAddr::from((LOCAL, port)), is_secure);
            call.goes_on();
            let client = format!("\"client\":\"{}\"", call.caller.local());
            assert!(world.server.log().contains(&client), "{client}\n{}", world.server.log());
            assert_eq!(call.caller.binding(), Ok(call.caller.local()), "also XOR-MAPPED-ADDRESS");
        }
        coturn_loses_nothing(&["-t"], port);
        coturn_loses_nothing(&["-t", "-S"], port);
    }
    assert_eq!(world.server.metric(LIARS), 0.0, "HAProxy tells the truth");
}

#[test]
fn whoever_lies_in_a_header_is_closed_and_counted_and_nobody_else_notices() {
    // Two connections of one name meet on one worker.
    let world = served_by(&format!("detect = true\n{TRUSTED}"), 1);
    let address = world.server.address();
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.9 4711 443\r\n".as_slice();
    let v2 = |command: u8, length: u16| {
        [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, 0x11], &length.to_be_bytes(), &[1; 12]].concat()
    };
    let binding = turnserver::client::Client::new("", "", 1).binding();
    let lies: [Vec<u8>; 7] = [
        binding.to_vec(), // none at all
        b"PROXY TCP4 0.0.0.0 198.51.100.9 4711 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.9 0 443\r\n".to_vec(),
        [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat(),
        v2(0x21, 2000),
        v2(0x2F, 12),
        v2(0x21, 4),
    ];
    for (i, lie) in lies.iter().enumerate() {
        assert!(is_cut_off(address, lie), "{lie:?}");
        until("it is counted", || world.server.metric(LIARS) >= (i + 1) as f64);
    }
    // Cut short.
    let mut short = TcpStream::connect(address).expect("the server listens");
    short.write_all(&header[..20]).expect("the server reads");
    short.shutdown(Shutdown::Write).expect("it is open");
    until("it is counted", || world.server.metric(LIARS) >= (lies.len() + 1) as f64);
    // A byte at a time is no lie while it ends in time, and what follows at once is not lost.
    let mut slow = TcpStream::connect(address).expect("the server listens");
    slow.set_nodelay(true).expect("it is open");
    for byte in &header[..header.len() - 1] {
        slow.write_all(&[*byte]).expect("the server reads");
    }
    slow.write_all(&[b"\n", &binding[..]].concat()).expect("the server reads");
    let mut answer = [0; 20];
    slow.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer[..2], [1, 1], "a Binding response");
    // One that never ends has five seconds.
    assert!(is_cut_off(address, &header[..header.len() - 1]), "late");
    until("it is counted", || world.server.metric(LIARS) >= (lies.len() + 2) as f64);
    let mut again = TcpStream::connect(address).expect("the server listens");
    again.write_all(&[header, &binding].concat()).expect("the server reads");
    again.read_exact(&mut answer).expect("an answer to the one that came later");
    let ended = slow.read(&mut [0; 64]).and_then(|_| slow.read_to_end(&mut Vec::new()));
    assert!(ended.is_ok(), "of two connections with one name the older one is a dead one");
}

#[test]
fn a_stranger_may_not_speak_for_others_and_is_served_as_itself() {
    let strangers = "proxy_protocol = true\nproxy_trusted = [\"192.0.2.0/24\"]\n";
    let world = served(strangers);
    let address = world.server.address();
    let mut call = world.call(address, false);
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.9 4711 443\r\n";
    assert!(is_cut_off(address, header));
    assert!(is_cut_off(address, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C"));
    assert!(is_cut_off(world.server.tls_address(), header));
    until("all are counted", || world.server.metric(LIARS) >= 3.0);
    call.goes_on();
    world.call(world.server.tls_address(), true).goes_on();
}

#[test]
fn connections_count_for_the_client_that_the_proxy_names() {
    let limits = "connections_per_ip = 2".into();
    let server = Server::start_with(&Setup { limits, listen_lines: TRUSTED.into(), ..Setup::default() });
    let binding = turnserver::client::Client::new("", "", 1).binding();
    let connection = |client: u8, port: u16| {
        let mut stream = TcpStream::connect(server.address()).expect("the server listens");
        let header = format!("PROXY TCP4 192.0.2.{client} 198.51.100.9 {port} 443\r\n");
        stream.write_all(&[header.as_bytes(), &binding].concat()).expect("the server reads");
        let is_served = stream.read_exact(&mut [0; 20]).is_ok();
        is_served.then_some(stream)
    };
    let served: Vec<TcpStream> = (1..=8).filter_map(|client| connection(client, 4711)).collect();
    assert_eq!(served.len(), 8, "all come from one load balancer");
    let second = connection(1, 4712).expect("one more of the first client");
    assert!(connection(1, 4713).is_none());
    until("it is counted", || server.metric("turnserver_rate_limited_total{reason=\"connections\"}") >= 1.0);
    drop((served, second));
    until("there is room again", || connection(1, 4714).is_some());
}

#[test]
fn a_client_with_one_of_our_own_addresses_reaches_no_more_than_others() {
    let world = served(TRUSTED);
    let mut caller = Caller::tcp(world.server.address());
    let Wire::Tcp(stream, _) = &mut caller.wire else { unreachable!("it is a TCP client") };
    let header = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", world.server.port, world.server.tls_port());
    stream.write_all(header.as_bytes()).expect("the server reads");
    assert_eq!(caller.binding(), Ok(world.server.address()), "that is what the load balancer says");
    caller.allocate().expect("an allocation");
    for own in [world.server.address(), world.server.tls_address(), world.server.http] {
        assert_eq!(caller.bind(CHANNEL, own), Err(ErrorCode::FORBIDDEN), "{own}");
    }
    caller.bind(CHANNEL, Peer::new().address()).expect("any other peer");
}

#[test]
fn five_thousand_idle_connections_leave_a_call_alone() {
    const MANY: usize = 5000;
    const SPARE: u64 = 1000;
    let limit = run("prlimit", &["--nofile", "--noheadings", "-o", "SOFT,HARD"]);
    let mut limits = limit.split_whitespace().map(|word| word.parse().unwrap_or(u64::MAX));
    let (soft, hard) = (limits.next().unwrap_or(0), limits.next().unwrap_or(0));
    if soft < MANY as u64 + SPARE || hard < 2 * (MANY as u64 + SPARE) {
        skip(&format!("{MANY} connections need more open files than {soft} (soft) and {hard} (hard)"));
        return;
    }
    let world = served("detect = true\n");
    let mut call = world.call(world.server.address(), true);
    let mut silent = Vec::with_capacity(MANY);
    while silent.len() < MANY {
        silent.extend((0..500).map(|_| TcpStream::connect(world.server.address()).expect("the server listens")));
        call.goes_on();
    }
    until("all are accepted", || world.server.metric(PLAIN) >= MANY as f64);
    for _ in 0..100 {
        call.goes_on();
    }
    drop(silent);
    until("all are gone", || world.server.metric(PLAIN) < 1.0);
    call.goes_on();
}
