//! The servers that are measured, each a process of its own on CPU 0: this one, Debian's coturn, the crate `turn`, and a
//! forwarder that decides nothing.
//!
//! Owns how each is started, where it listens, and what the system says of its memory. All know the user `u` with the
//! password `p`, relay on 127.0.0.1 and permit peers there. Ends the process on drop.

#![allow(dead_code, reason = "every bench uses its own part of this")]

use crate::network;
use crate::pair::{Authority, Files};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use turnserver::client::Client;

/// A server that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// This one.
    Ours,
    /// Debian's package.
    Coturn,
    /// The crate `turn`, which this program serves when it is asked to.
    WebrtcRs,
    /// One read and one write a packet, and no rule; this program, too.
    Bare,
}

/// The argument that makes this program one of the last two; its name and its port follow.
pub(crate) const SERVE: &str = "--serve";

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Ours, Self::Coturn, Self::WebrtcRs, Self::Bare];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "turnserver",
            Self::Coturn => "coturn",
            Self::WebrtcRs => "webrtc-rs",
            Self::Bare => "bare",
        }
    }

    /// Whether clients can come by TCP and TLS.
    pub(crate) fn has_streams(self) -> bool {
        matches!(self, Self::Ours | Self::Coturn)
    }

    pub(crate) fn is_installed(self) -> bool {
        self != Self::Coturn || std::path::Path::new(COTURN).exists()
    }
}

const COTURN: &str = "/usr/bin/turnserver";
/// The user, and the password.
pub(crate) const USER: [&str; 2] = ["u", "p"];
const LOCALHOST: [u8; 4] = [127, 0, 0, 1];

/// A server that runs.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
    pub(crate) tls: SocketAddr,
}

/// The certificate of all servers, and whoever vouches for it.
pub(crate) struct Certificate {
    authority: Authority,
    files: Files,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let authority = Authority::new();
        let files = authority.pair("server", &["localhost", "127.0.0.1"]);
        Self { authority, files }
    }

    /// Whom clients have to trust.
    pub(crate) fn authority(&self) -> std::path::PathBuf {
        self.authority.file()
    }
}

impl Server {
    /// Starts it on CPU 0, and waits until it answers.
    pub(crate) fn start(kind: Kind, certificate: &Certificate) -> Self {
        let [port, tls_port] = if network::is_own() { [3478, 5349] } else { [free_port(), free_port()] };
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]);
        let Files { cert, key } = &certificate.files;
        let (cert, key) = (cert.display().to_string(), key.display().to_string());
        match kind {
            Kind::Ours => {
                command.arg(env!("CARGO_BIN_EXE_turnserver")).envs([
                    ("TURNSERVER__REALM", "r".into()),
                    ("TURNSERVER__LISTEN__UDP", format!("[\"127.0.0.1:{port}\"]")),
                    ("TURNSERVER__LISTEN__TCP", format!("[\"127.0.0.1:{port}\"]")),
                    ("TURNSERVER__LISTEN__TLS", format!("[\"127.0.0.1:{tls_port}\"]")),
                    ("TURNSERVER__LISTEN__DTLS", "[]".into()),
                    ("TURNSERVER__TLS__CERT", cert),
                    ("TURNSERVER__TLS__KEY", key),
                    ("TURNSERVER__HTTP__LISTEN", "[]".into()),
                    ("TURNSERVER__RELAY__ADDRESSES", "[\"127.0.0.1\"]".into()),
                    ("TURNSERVER__AUTH__USERS", format!("{{ {} = \"{}\" }}", USER[0], USER[1])),
                    ("TURNSERVER__PEERS__ALLOW", "[\"127.0.0.0/8\"]".into()),
                    ("TURNSERVER__LIMITS__UNAUTHENTICATED_PER_IP", "1000000/s".into()),
                    ("TURNSERVER__LIMITS__CONNECTIONS_PER_IP", "100000".into()),
                    ("TURNSERVER__DATA_PLANE__WORKERS", "1".into()),
                    ("TURNSERVER__LOG__LEVEL", "warn".into()),
                ]);
            }
            Kind::Coturn => {
                let arguments = "--no-cli --lt-cred-mech --user=u:p --realm=r --listening-ip 127.0.0.1 --relay-ip \
                                 127.0.0.1 --allow-loopback-peers --no-stdout-log --log-file /dev/null -c /dev/null \
                                 -m 1 --listening-port";
                command.arg(COTURN).args(arguments.split_whitespace()).arg(port.to_string());
                command.args(["--cert", &cert, "--pkey", &key, "--tls-listening-port", &tls_port.to_string()]);
            }
            Kind::WebrtcRs | Kind::Bare => {
                let this = std::env::current_exe().expect("this program has a file");
                command.arg(this).args([SERVE, kind.name(), &port.to_string()]);
            }
        }
        let quiet = [Stdio::null(), Stdio::null(), Stdio::null()];
        let [stdin, stdout, stderr] = quiet;
        command.stdin(stdin).stdout(stdout);
        if kind == Kind::Coturn {
            command.stderr(stderr); // it tells at length what it does not do
        }
        let process = command.spawn().expect("taskset and the server are installed");
        let address = |port| SocketAddr::from((LOCALHOST, port));
        let server = Self { process, address: address(port), tls: address(tls_port) };
        server.wait(kind);
        server
    }

    /// Waits until the server answers, on every transport that it has.
    fn wait(&self, kind: Kind) {
        let socket = UdpSocket::bind((std::net::Ipv4Addr::from(LOCALHOST), 0)).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time-out can be set");
        let binding = Client::new("", "", 0).binding();
        let mut answer = [0; 1500];
        for _ in 0..200 {
            let sent = socket.send_to(&binding, self.address);
            let is_up = sent.is_ok() && socket.recv(&mut answer).is_ok();
            if is_up && (!kind.has_streams() || TcpStream::connect(self.tls).is_ok()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{} does not answer on {}", kind.name(), self.address);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Resident bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the server runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has a resident set");
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that is free for datagrams and connections.
fn free_port() -> u16 {
    loop {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
        let address = listener.local_addr().expect("a bound socket");
        if UdpSocket::bind(address).is_ok() {
            return address.port();
        }
    }
}
