//! `turnserver load`: a load generator for any TURN server, and what the server made of it.
//!
//! One JSON line goes to standard output at the end; progress goes to standard error, if that is a terminal. A credential
//! need not stand on the command line, where every user of the host can read it.
#![forbid(unsafe_code)]

use super::credential::newest_secret;
use super::settings::Settings;
use super::{Failure, complain, say, unix_now};
use crate::control::watch;
use crate::load::{self, Direction, Kind, Mode, Peer, Plan, Progress, Transport, Uri, Way};
use crate::net::trust::Trust;
use crate::time::Duration;
use crate::turn::credential::{Minted, SEPARATOR, Secret, mint};
use crate::turn::opaque::OpaqueString;
use clap::{Args, ValueEnum};
use core::net::{IpAddr, SocketAddr};
use core::ops::ControlFlow;
use core::str::FromStr;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

#[derive(Args)]
pub(super) struct LoadArgs {
    /// The server: turn:HOST:PORT?transport=udp or tcp, turns:HOST:PORT
    uri: Uri,
    /// What the clients do: relay data; ask for their address; allocate as fast as they can; refresh as fast as they can
    #[arg(long, value_enum, default_value = "relay")]
    kind: KindArg,
    /// How many clients there are, each with an allocation of its own
    #[arg(long, value_name = "N", default_value_t = 100)]
    clients: usize,
    /// Bytes of payload in each packet [default: 160]
    #[arg(long, value_name = "BYTES")]
    size: Option<usize>,
    /// Packets a second and client [default: as many as come out at the far end]
    #[arg(long, value_name = "PPS")]
    rate: Option<u32>,
    /// How long the load lasts [default: 10, or until --packets]
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// End after so many packets or requests
    #[arg(long, value_name = "N")]
    packets: Option<u64>,
    /// Client to peer, peer to client, or there and back [default: up]
    #[arg(long, value_enum)]
    direction: Option<DirectionArg>,
    /// ChannelData, or Send and Data indications [default: channel]
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,
    /// Where the peers are: an address of this host, or same-server for relay to relay [default: the address that
    /// reaches the server]
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<PeerArg>,
    /// Sockets of the peers, for each thread [default: 1]
    #[arg(long, value_name = "N")]
    peers: Option<usize>,
    /// Packets or requests of one client under way without --rate [default: 128 divided by the clients]
    #[arg(long, value_name = "N")]
    window: Option<usize>,
    /// Threads that play the clients
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Send packets of one client that leave together as one train, and take trains: less CPU here, other work there
    #[arg(long, value_enum, default_value = "off")]
    gso: Switch,
    /// The server's process, if it is on this host: its CPU time and memory are told
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Shared secret of time-limited credentials [default: $TURN_SECRET, else that of this host's configuration]
    #[arg(long, value_name = "SECRET", conflicts_with_all = ["secret_file", "username"])]
    secret: Option<String>,
    /// File with that secret on its first line
    #[arg(long, value_name = "FILE", conflicts_with = "username")]
    secret_file: Option<PathBuf>,
    /// User with a fixed password [default: $TURN_USERNAME]
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// The password [default: $TURN_PASSWORD]
    #[arg(long, value_name = "PASSWORD", requires = "username")]
    password: Option<String>,
    /// Believe any certificate of a turns: server
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// File with the certificates to believe [default: $SSL_CERT_FILE, else those of the system]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum KindArg {
    Relay,
    Binding,
    Allocate,
    Refresh,
}

#[derive(Clone, Copy, ValueEnum)]
enum DirectionArg {
    Up,
    Down,
    Echo,
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeArg {
    Channel,
    Send,
}

#[derive(Clone, Copy, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy)]
struct PeerArg(Peer);

impl FromStr for PeerArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "same-server" {
            return Ok(Self(Peer::SameServer));
        }
        let ip = text.parse::<IpAddr>().map_err(|_| "neither an address nor same-server".to_owned())?;
        Ok(Self(Peer::At(ip)))
    }
}

/// Plays the clients, and tells what came of it.
pub(super) fn run(config: Option<PathBuf>, args: &LoadArgs) -> Result<(), Failure> {
    let plan = plan(config, args)?;
    let stop = Arc::new(AtomicBool::new(false));
    heed_signals(stop.clone())?;
    let mut line = Line::new();
    let ended = load::run(&plan, &mut |progress| {
        line.show(progress);
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    line.clear();
    let report = ended.map_err(|failure| match failure {
        load::Failure::Wrong(what) => Failure::Wrong(what),
        other @ (load::Failure::Refused(_) | load::Failure::Failed(_)) => Failure::Failed(other.to_string()),
    })?;
    let json = serde_json::to_string(&report).map_err(|error| Failure::Failed(error.to_string()))?;
    say(&format!("{json}\n"))?;
    Ok(())
}

fn plan(config: Option<PathBuf>, args: &LoadArgs) -> Result<Plan, Failure> {
    let Uri { host, port, way } = &args.uri;
    let server = resolve(host, *port)?;
    let lasts = match (args.seconds, args.packets) {
        (Some(seconds), _) => Duration::from_secs(seconds),
        (None, Some(_)) => LONGEST,
        (None, None) => USUAL,
    };
    if lasts > LONGEST {
        return Err(Failure::Wrong(format!("--seconds: at most {}", LONGEST.as_secs())));
    }
    let kind = match args.kind {
        KindArg::Relay => Kind::Relay,
        KindArg::Binding => Kind::Binding,
        KindArg::Allocate => Kind::Allocate,
        KindArg::Refresh => Kind::Refresh,
    };
    let of_relay = [
        ("--size", args.size.is_some()),
        ("--direction", args.direction.is_some()),
        ("--mode", args.mode.is_some()),
        ("--peer", args.peer.is_some()),
        ("--peers", args.peers.is_some()),
    ];
    if let Some((name, _)) = of_relay.iter().find(|(_, is_given)| *is_given && kind != Kind::Relay) {
        return Err(Failure::Wrong(format!("{name} is for --kind relay: the other kinds have no packets for peers")));
    }
    let (username, password) =
        if kind.allocates() { credential(config, args, lasts)? } else { (String::new(), Zeroizing::default()) };
    let usual = Plan::new(server, &username, "");
    Ok(Plan {
        transport: transport(*way, host, args)?,
        password,
        kind,
        clients: args.clients,
        threads: args.threads,
        size: args.size.unwrap_or(usual.size),
        rate: args.rate,
        window: args.window,
        lasts,
        packets: args.packets,
        direction: args.direction.map_or(usual.direction, |direction| match direction {
            DirectionArg::Up => Direction::Up,
            DirectionArg::Down => Direction::Down,
            DirectionArg::Echo => Direction::Echo,
        }),
        mode: args.mode.map_or(usual.mode, |mode| match mode {
            ModeArg::Channel => Mode::Channel,
            ModeArg::Send => Mode::Send,
        }),
        peer: args.peer.map_or(Peer::Auto, |peer| peer.0),
        peers: args.peers.unwrap_or(usual.peers),
        trains: matches!(args.gso, Switch::On),
        server_pid: args.server_pid,
        ..usual
    })
}

const USUAL: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(72 * 3600); // what a stamp can tell

fn resolve(host: &str, port: u16) -> Result<SocketAddr, Failure> {
    let unknown = |why: String| Failure::Failed(format!("{host}: the name leads nowhere: {why}"));
    let mut addresses = (host, port).to_socket_addrs().map_err(|error| unknown(error.to_string()))?;
    addresses.next().ok_or_else(|| unknown("it has no address".into()))
}

fn transport(way: Way, host: &str, args: &LoadArgs) -> Result<Transport, Failure> {
    match way {
        Way::Udp => return Ok(Transport::Udp),
        Way::Tcp => return Ok(Transport::Tcp),
        Way::Tls => {}
    }
    if args.insecure {
        let trust = Trust::in_anybody(host).map_err(|error| Failure::Wrong(error.to_string()))?;
        return Ok(Transport::Tls(Arc::new(trust)));
    }
    let configured = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let file = args.ca.clone().or(configured).or_else(|| BUNDLES.map(PathBuf::from).into_iter().find(|at| at.exists()));
    let Some(file) = file else {
        let what = "this host has no file of certificates to believe: name one with --ca, or --insecure";
        return Err(Failure::Wrong(what.into()));
    };
    let wrong = |why: String| Failure::Wrong(format!("{}: {why}", file.display()));
    let pem = std::fs::read(&file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    Ok(Transport::Tls(Arc::new(Trust::in_authorities(&pem, host).map_err(|error| wrong(error.to_string()))?)))
}

/// Where distributions keep the authorities that they believe.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The user of all clients: what the line says, else what the environment says, else what this host's server would take.
fn credential(
    config: Option<PathBuf>,
    args: &LoadArgs,
    lasts: Duration,
) -> Result<(String, Zeroizing<String>), Failure> {
    let ttl = (lasts + SPARE).min(TTL_MAX);
    let minted = |secret: &Secret| {
        let user = OpaqueString::new(USER).ok();
        let Minted { username, password, .. } = mint(secret, user.as_ref(), SEPARATOR, ttl, unix_now());
        (username, password)
    };
    if let Some(secret) = &args.secret {
        return Ok(minted(&Secret::new(secret)));
    }
    if let Some(file) = &args.secret_file {
        return Ok(minted(&first_secret(file)?));
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(username) = args.username.clone() {
        let Some(password) = args.password.clone().or_else(|| variable("TURN_PASSWORD")) else {
            return Err(Failure::Wrong("--username needs --password, or $TURN_PASSWORD".into()));
        };
        return Ok((username, Zeroizing::new(password)));
    }
    if let Some(secret) = variable("TURN_SECRET").map(Zeroizing::new) {
        return Ok(minted(&Secret::new(&secret)));
    }
    if let (Some(username), Some(password)) = (variable("TURN_USERNAME"), variable("TURN_PASSWORD")) {
        return Ok((username, Zeroizing::new(password)));
    }
    let settings = Settings::read(config)?;
    let secret = newest_secret(&settings).map_err(|failure| match failure {
        Failure::Wrong(why) => Failure::Wrong(format!("{why}; or give --secret-file, --secret or --username")),
        other @ (Failure::Mistakes(_) | Failure::Failed(_)) => other,
    })?;
    Ok(minted(&secret))
}

const USER: &str = "load";
const SPARE: Duration = Duration::from_secs(3600);
const TTL_MAX: Duration = Duration::from_secs(24 * 3600); // auth.max_ttl as it is where nobody has changed it

fn first_secret(file: &Path) -> Result<Secret, Failure> {
    let wrong = |why: String| Failure::Wrong(format!("--secret-file {}: {why}", file.display()));
    let secrets = watch::secrets(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    secrets.into_iter().next().ok_or_else(|| wrong("holds no secret".into()))
}

/// The first signal ends the load, which then releases what it has and reports; the second ends the program.
fn heed_signals(stop: Arc<AtomicBool>) -> Result<(), Failure> {
    let refused = |error: io::Error| Failure::Failed(format!("the operating system refused: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(refused)?;
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        (signal(SignalKind::terminate()).map_err(refused)?, signal(SignalKind::interrupt()).map_err(refused)?)
    };
    let heed = move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if stop.swap(true, Ordering::Relaxed) {
                    complain("ended at once by a second signal");
                    std::process::exit(1);
                }
            }
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(heed).map_err(refused)?;
    Ok(())
}

/// The line of progress, on a terminal alone.
struct Line {
    is_shown: bool,
    length: usize,
}

impl Line {
    fn new() -> Self {
        Self { is_shown: io::stderr().is_terminal(), length: 0 }
    }

    fn show(&mut self, progress: Progress) {
        if !self.is_shown {
            return;
        }
        let text = match progress {
            Progress::SetUp { done, clients } => format!("set up: {done} of {clients} clients"),
            Progress::Running { sent, received, elapsed } => {
                let lost = sent.saturating_sub(received);
                format!("{} s: {sent} sent, {received} received, {lost} under way or lost", elapsed.as_secs())
            }
            Progress::Releasing => "releasing".into(),
        };
        let _unread = write!(io::stderr().lock(), "\r{text:<width$}", width = self.length);
        self.length = text.len();
    }

    fn clear(&mut self) {
        if self.length > 0 {
            let _unread = write!(io::stderr().lock(), "\r{:width$}\r", "", width = self.length);
        }
    }
}
