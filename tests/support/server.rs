//! The real program on free loopback ports, as the tests of several targets start it.
//!
//! Speaks HTTP by hand, bodies with a length alone: a few requests do not earn a client library. Ends the process on
//! drop; what it wrote to the log is kept for those who ask.

#![allow(dead_code, reason = "every test target uses its own part of this")]

use crate::temp::TempDir;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(crate) const KEY: &str = "a-key-for-the-tests-0123456789abcdef";
pub(crate) const SECRET: &str = "a-secret-for-the-tests-0123456789abcdef";

const READY: Duration = Duration::from_secs(20); // a debug build on a busy machine
const ANSWER: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// What a test changes of the ordinary set-up: loopback, one static user `u` with password `p`, one secret, one key.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// `realm`.
    pub(crate) realm: &'static str,
    /// The listeners' addresses, all on one port.
    pub(crate) listen: Vec<IpAddr>,
    /// `relay.addresses`.
    pub(crate) relay: Vec<IpAddr>,
    /// More lines of `[relay]`.
    pub(crate) relay_lines: String,
    /// `peers.allow`.
    pub(crate) allow: Vec<&'static str>,
    /// `peers.deny`.
    pub(crate) deny: Vec<&'static str>,
    /// The password of the static user `u`.
    pub(crate) password: &'static str,
    /// Lines of `[limits]`.
    pub(crate) limits: String,
    /// Lines of `[tls]`; with them there is a TLS listener for each of `listen`, on a port of its own.
    pub(crate) tls: String,
    /// Whether there is a DTLS listener beside each TLS listener, on a port of its own.
    pub(crate) dtls: bool,
    /// More lines of `[auth]`.
    pub(crate) auth_lines: &'static str,
    /// `data_plane.workers`; 0 is one a core.
    pub(crate) workers: u32,
    /// `log.level`.
    pub(crate) log_level: &'static str,
    /// `log.format`.
    pub(crate) log_format: &'static str,
    /// A command the program is started by, such as `prlimit`.
    pub(crate) wrapper: Vec<&'static str>,
    /// More lines of `[listen]`.
    pub(crate) listen_lines: String,
    /// A socket file of `http.listen`, beside its address.
    pub(crate) http_socket: Option<PathBuf>,
    /// Scopes of the key.
    pub(crate) scopes: &'static str,
}

impl Default for Setup {
    fn default() -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            realm: "test.example",
            listen: vec![loopback],
            relay: vec![loopback],
            relay_lines: String::new(),
            allow: Vec::new(),
            deny: vec!["special-purpose"],
            password: "p",
            limits: String::new(),
            tls: String::new(),
            dtls: false,
            auth_lines: "",
            workers: 0,
            log_level: "info",
            log_format: "auto",
            wrapper: Vec::new(),
            listen_lines: String::new(),
            http_socket: None,
            scopes: r#""mint", "read""#,
        }
    }
}

pub(crate) struct Server {
    process: Child,
    /// The port of every listener without TLS.
    pub(crate) port: u16,
    pub(crate) http: SocketAddr,
    pub(crate) home: TempDir,
}

impl Server {
    /// The ordinary server.
    pub(crate) fn start() -> Self {
        Self::start_with(&Setup::default())
    }

    /// A server set up in another way.
    pub(crate) fn start_with(setup: &Setup) -> Self {
        let home = TempDir::new("server");
        let port = free_ports(3);
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let config = home.path().join("turnserver.toml");
        std::fs::write(&config, configuration(setup, port, http)).expect("the configuration is written");
        let log = std::fs::File::create(home.path().join("log")).expect("the log is made");
        let mut words = setup.wrapper.iter().copied().chain([env!("CARGO_BIN_EXE_turnserver")]);
        let process = Command::new(words.next().expect("there is at least the program"))
            .args(words)
            .args(["serve", "--config"])
            .arg(&config)
            .env("STATE_DIRECTORY", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("turnserver starts");
        let mut server = Self { process, port, http, home };
        server.wait_until_ready();
        server
    }

    /// A server without a configuration file, on other ports than the default ones. It makes its own secret and key.
    pub(crate) fn start_bare() -> Self {
        let home = TempDir::new("bare");
        let port = free_port();
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let log = std::fs::File::create(home.path().join("log")).expect("the log is made");
        let listeners = format!("[\"0.0.0.0:{port}\", \"[::]:{port}\"]");
        let process = Command::new(env!("CARGO_BIN_EXE_turnserver"))
            .env("STATE_DIRECTORY", home.path())
            .env("TURNSERVER__LISTEN__UDP", &listeners)
            .env("TURNSERVER__LISTEN__TCP", &listeners)
            .env("TURNSERVER__HTTP__LISTEN", http.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("turnserver starts");
        let mut server = Self { process, port, http, home };
        server.wait_until_ready();
        server
    }

    /// The API key that the server made at its first start.
    pub(crate) fn made_key(&self) -> String {
        let key = std::fs::read_to_string(self.home.path().join("api-key")).expect("the key is kept");
        key.trim().to_owned()
    }

    /// The port of the TLS listeners.
    pub(crate) fn tls_port(&self) -> u16 {
        self.port + 1
    }

    /// The port of the DTLS listeners.
    pub(crate) fn dtls_port(&self) -> u16 {
        self.port + 2
    }

    /// The first IPv4 listener under TLS.
    pub(crate) fn tls_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.tls_port()))
    }

    /// The first IPv4 listener.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Resident memory of the program, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells it");
        1024 * line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    }

    /// What the program has written to its log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// Puts another set-up into the configuration file; the program reads it when it is told to.
    pub(crate) fn rewrite(&self, setup: &Setup) {
        std::fs::write(self.config_file(), configuration(setup, self.port, self.http)).expect("a file is written");
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.home.path().join("turnserver.toml")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// What `POST /v1/ice-servers` answers.
    pub(crate) fn mint(&self) -> Value {
        let body = r#"{"user":"browser","ttl":600}"#;
        let (status, answer) = self.request("POST", "/v1/ice-servers", body).expect("the server answers");
        assert_eq!(status, 201, "{answer}");
        serde_json::from_str(&answer).expect("the answer is JSON")
    }

    /// What `/metrics` says.
    pub(crate) fn metrics(&self) -> String {
        let (status, text) = self.request("GET", "/metrics", "").expect("the server answers");
        assert_eq!(status, 200, "{text}");
        text
    }

    /// The sum of all series whose name with labels starts so.
    pub(crate) fn metric_sum(&self, start: &str) -> f64 {
        let values = self.metrics();
        let values = values.lines().filter(|line| line.starts_with(start)).filter_map(|line| line.rsplit(' ').next());
        values.map(|value| value.parse::<f64>().expect("a metric is a number")).sum()
    }

    /// The value of one metric, by its whole name with labels; 0 when it has none.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.trim().parse().expect("a metric is a number"))
    }

    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let head = format!("Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n");
        exchange(self.http, method, path, &head, body)
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the signal {name} is sent");
    }

    /// How the program ended, once it has.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        until("the program ends", || {
            ended = self.process.try_wait().expect("the process can be asked");
            ended.is_some()
        });
        ended.expect("the program has ended")
    }

    fn wait_until_ready(&mut self) {
        until("turnserver is ready", || {
            if let Some(status) = self.process.try_wait().expect("the process can be asked") {
                panic!("turnserver ended before it was ready: {status}\n{}", self.log());
            }
            matches!(self.request("GET", "/readyz", ""), Some((200, _)))
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("the log of turnserver:\n{}", self.log());
        }
    }
}

/// Looks again and again until `done`, and fails after a while.
#[expect(clippy::disallowed_methods, reason = "waiting for another process has to end some time")]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + READY;
    while !done() {
        assert!(Instant::now() < deadline, "in {READY:?} it did not happen that {what}");
        sleep(POLL);
    }
}

/// One request over a fresh connection; `None` when nobody answers in time.
pub(crate) fn exchange(to: SocketAddr, method: &str, path: &str, head: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&to, ANSWER).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    let size = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n{head}Content-Length: {size}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;

    let mut answer = BufReader::new(stream);
    let mut line = String::new();
    answer.read_line(&mut line).ok()?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let mut size = 0;
    loop {
        line.clear();
        answer.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            size = value.trim().parse().ok()?;
        }
    }
    // By length, for chromedriver keeps the connection open whatever it is asked.
    let mut body = vec![0; size];
    answer.read_exact(&mut body).ok()?;
    Some((status, String::from_utf8(body).ok()?))
}

fn configuration(setup: &Setup, port: u16, http: SocketAddr) -> String {
    let quoted = |items: Vec<String>| items.iter().map(|item| format!("\"{item}\"")).collect::<Vec<_>>().join(", ");
    let on = |port| quoted(setup.listen.iter().map(|ip| SocketAddr::new(*ip, port).to_string()).collect());
    let listen = on(port);
    let secure = if setup.tls.is_empty() { String::new() } else { on(port + 1) };
    let datagrams = if setup.dtls { on(port + 2) } else { String::new() };
    let relay = quoted(setup.relay.iter().map(ToString::to_string).collect());
    let allow = quoted(setup.allow.iter().map(ToString::to_string).collect());
    let deny = quoted(setup.deny.iter().map(ToString::to_string).collect());
    let socket = setup.http_socket.iter().map(|path| format!("unix:{}", path.display()));
    let http = quoted(std::iter::once(http.to_string()).chain(socket).collect());
    let Setup { relay_lines, listen_lines, auth_lines, password, limits, tls, .. } = setup;
    let Setup { realm, workers, log_level, log_format, scopes, .. } = setup;
    format!(
        r#"
realm = "{realm}"
[listen]
udp = [{listen}]
tcp = [{listen}]
tls = [{secure}]
dtls = [{datagrams}]
{listen_lines}
[tls]
{tls}
[relay]
addresses = [{relay}]
{relay_lines}
[auth]
secrets = ["{SECRET}"]
users = {{ u = "{password}" }}
{auth_lines}
[peers]
allow = [{allow}]
deny = [{deny}]
[limits]
{limits}
[http]
listen = [{http}]
[[http.keys]]
id = "test"
secret = "{KEY}"
scopes = [{scopes}]
[data_plane]
workers = {workers}
[log]
level = "{log_level}"
format = "{log_format}"
"#
    )
}

/// A port that is free for UDP and TCP alike.
pub(crate) fn free_port() -> u16 {
    free_ports(1)
}

/// The first of `count` ports in a row that are free for UDP and TCP alike. They lie below the range the kernel hands out
/// by itself (32768 and up), so that no client socket of another test takes one before it is bound.
pub(crate) fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    let start = std::process::id().wrapping_mul(7919);
    // A host without IPv6 refuses for another reason, which says nothing of the port.
    let is_taken = |error: std::io::Error| error.kind() == std::io::ErrorKind::AddrInUse;
    let is_taken = |ip: IpAddr, port| {
        TcpListener::bind((ip, port)).err().is_some_and(is_taken)
            || UdpSocket::bind((ip, port)).err().is_some_and(is_taken)
    };
    let is_free = |port| !is_taken(Ipv4Addr::UNSPECIFIED.into(), port) && !is_taken(Ipv6Addr::UNSPECIFIED.into(), port);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(count.into(), Ordering::Relaxed).wrapping_add(start);
        let first = FIRST + (step % u32::from(COUNT)) as u16;
        if (first..first + count).all(is_free) {
            return first;
        }
    }
    panic!("no {count} ports in a row are free for both UDP and TCP");
}

/// What a verb of the program has printed for people to read.
pub(crate) fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What it has complained about.
pub(crate) fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a verb that asks the server of this configuration.
pub(crate) fn verb(name: &str, config: &std::path::Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
    command.arg(name).args(more).arg("--config").arg(config).stdin(Stdio::null());
    command.output().expect("turnserver starts")
}
