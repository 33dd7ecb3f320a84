//! The supervisor: start, reload, drain, stop.
//!
//! Owns the order of things: HTTP sockets before worker threads, so that a port that is taken ends the start before
//! anybody is served; ready only when all is open; threads joined before the process ends. One thread runs all of it,
//! a relayed packet never waits for it. A reload is all or nothing. Never sees a packet.
#![forbid(unsafe_code)]

pub mod certificates;
pub mod data_plane;
mod ebb;
pub mod http;
pub mod keys;
mod listen;
pub mod metrics;
pub mod rates;
pub mod watch;
mod web;

use crate::config::{self, ApiKey, Config, Host, HttpListeners, Listeners, Mistake};
use crate::net::fds::{ServiceManager, Word};
use crate::net::tls::Certificates;
use crate::net::{self, clock};
use crate::time::{Duration, seconds};
use crate::turn::credential::Secret;
use crate::turn::policy::Policy;
use crate::turn::tally::Transport;
use crate::worker::{self, Handle, PortUse, Setup, StartError};
use certificates::{CertificateError, Fresh};
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use data_plane::DataPlane;
use ebb::Ebb;
use http::connections::{Bounds, Door};
use http::{App, ORDERS, Order, Settings, Stage};
use keys::Keyring;
use metrics::Sources;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch as channel};
use tokio::time::{MissedTickBehavior, interval};
use watch::Watch;
use zeroize::Zeroizing;

/// What a server is started with.
pub struct Start {
    /// The settings.
    pub config: Config,
    /// What the settings mean depends on this.
    pub host: Host,
    /// Asks which addresses the host has now: peers must not reach it by one that came after the start.
    pub interfaces: fn() -> Vec<IpAddr>,
    /// Where the settings came from; a reload reads it again.
    pub config_file: Option<PathBuf>,
    /// Every secret, newest first: those written, those of `auth.secret_file`, and the kept one where there is none.
    pub secrets: Vec<Secret>,
    /// Every API key, the kept one included.
    pub keys: Vec<ApiKey>,
    /// Called once when everything is open.
    pub on_ready: Box<dyn FnOnce(&Ready)>,
}

/// What is open.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Where clients are served.
    pub listeners: Vec<(Transport, SocketAddr)>,
    /// Where HTTP is served.
    pub http: Vec<SocketAddr>,
    /// The files of its unix-domain sockets.
    pub http_sockets: Vec<PathBuf>,
    /// What minted answers list.
    pub uris: Vec<String>,
    /// Who carries the packets.
    pub data_plane: DataPlane,
}

/// Why a server does not run, or no longer.
#[derive(Debug)]
pub enum ServeError {
    /// The settings do not fit this host.
    Mistakes(Vec<Mistake>),
    /// The configuration file cannot be read again.
    ConfigFile(PathBuf, io::Error),
    /// `auth.secret_file` cannot be read.
    SecretFile(PathBuf, io::Error),
    /// `tls.cert` and `tls.key` cannot be served.
    Certificate(CertificateError),
    /// An address of `http.listen` cannot be opened.
    Http(SocketAddr, io::Error),
    /// A socket file of `http.listen` cannot be opened.
    HttpSocket(PathBuf, io::Error),
    /// A worker cannot start.
    Worker(StartError),
    /// The operating system would not give what every server needs.
    System(io::Error),
    /// A worker thread is gone. A server that serves half of its clients is worse than one that is started again.
    WorkerFailed,
    /// A second signal came while the server was stopping.
    Hurried,
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mistakes(mistakes) => {
                let lines: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::SecretFile(path, error) => write!(f, "auth.secret_file = \"{}\": {error}", path.display()),
            Self::ConfigFile(path, error) => write!(f, "{}: cannot be read: {error}", path.display()),
            Self::Certificate(error) => error.fmt(f),
            Self::Http(address, error) => {
                write!(f, "http.listen = \"{address}\": {error}; {}", listen::hint(error))
            }
            Self::HttpSocket(path, error) => {
                write!(f, "http.listen = \"unix:{}\": {error}; {}", path.display(), listen::file_hint(error))
            }
            Self::Worker(error) => error.fmt(f),
            Self::System(error) => write!(f, "the operating system refused: {error}"),
            Self::WorkerFailed => {
                f.write_str("a worker thread has failed; the server ends so that it can be started again")
            }
            Self::Hurried => f.write_str("ended at once by a second signal"),
        }
    }
}

impl core::error::Error for ServeError {}

impl From<Vec<Mistake>> for ServeError {
    fn from(mistakes: Vec<Mistake>) -> Self {
        Self::Mistakes(mistakes)
    }
}

/// Runs a server until a signal ends it.
pub fn serve(start: Start) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::System)?;
    let outcome = runtime.block_on(run(start));
    runtime.shutdown_background();
    outcome
}

async fn run(start: Start) -> Result<(), ServeError> {
    let mut signals = Signals::listen().map_err(ServeError::System)?;
    let manager = ServiceManager::from_env();
    let Start { mut config, host, interfaces, config_file, secrets, keys, on_ready } = start;
    let certificates = certificates::Kept::open(&config.tls, &mut config.listen).map_err(ServeError::Certificate)?;
    let http = listen::open(&config.http.listen, config.listen.freebind)?;
    let nonce_key = random_key().map_err(ServeError::System)?;
    let kept = Kept::of(&config, secrets, keys)?;

    config.http.listen.addresses.clone_from(&http.addresses);
    let policy = kept.policy(&config, &host, &nonce_key)?;
    let setup = Setup {
        listeners: config.listeners(),
        freebind: config.listen.freebind,
        entry: web::entry(&config.listen),
        workers: config.data_plane.workers as usize,
        policy: Arc::new(policy.clone()),
        certificates: certificates.as_ref().map(|kept| Arc::clone(kept.certificates())),
        dtls: certificates.as_ref().and_then(|kept| kept.dtls().cloned()),
    };
    let in_force = setup.certificates.clone();
    let web_server = setup.entry.web.clone();
    let handle = Arc::new(worker::start(setup).map_err(ServeError::Worker)?);
    // From here on the ports are those that are open: port 0 has become a real one.
    let added = config.discovery_listeners();
    let opened = |transport| {
        let of = handle.listeners().iter().filter(move |(with, _)| *with == transport).map(|(_, address)| *address);
        of.filter(|address| transport != Transport::Udp || !added.contains(address)).collect()
    };
    (config.listen.udp.addresses, config.listen.tcp.addresses) = (opened(Transport::Udp), opened(Transport::Tcp));
    (config.listen.tls.addresses, config.listen.dtls.addresses) = (opened(Transport::Tls), opened(Transport::Dtls));

    let (ask, orders) = mpsc::channel(ORDERS);
    let ready = Ready {
        listeners: handle.listeners().to_vec(),
        http: http.addresses,
        http_sockets: config.http.listen.sockets.clone(),
        uris: config.uris(&policy),
        data_plane: DataPlane::of(&handle),
    };
    let settings = kept.settings(&config, &policy);
    let app = App::new(settings, sources(&handle, in_force), ready.listening().collect(), ask, clock::now);
    let app = Arc::new(app);
    let (close, closing) = channel::channel(false);
    let bounds = Bounds::default();
    let door = Door::new(http::router(Arc::clone(&app), bounds.request), bounds, closing);
    drop(web_server.map(|web| tokio::spawn(web::know(web))));
    http.listeners.into_iter().for_each(|listener| drop(tokio::spawn(door.clone().open(listener))));
    app.set_stage(Stage::Serving);
    ready.log();
    manager.say(Word::Ready);
    on_ready(&ready);

    let secret_file = Watch::on(config.auth.secret_file.clone());
    let addresses = host.interfaces.clone();
    let mut server = Server {
        addresses,
        config,
        host,
        interfaces,
        config_file,
        kept,
        nonce_key,
        policy,
        secret_file,
        ebb: Ebb::default(),
        certificates,
        handle,
        app,
        manager,
    };
    // Whoever asks for something while the server stops learns that nobody listens.
    server.watch_over(&mut signals, orders).await?;
    let stopped = server.stop(&mut signals, &door, &close).await;
    drop(http.files);
    stopped
}

/// A server that runs.
struct Server {
    /// In force. What needs a restart stays as it was at the start, whatever the file says by now.
    config: Config,
    /// As it was at the start; what "auto" means stays what it was.
    host: Host,
    interfaces: fn() -> Vec<IpAddr>,
    /// Its addresses when they were last looked at.
    addresses: Vec<IpAddr>,
    config_file: Option<PathBuf>,
    kept: Kept,
    nonce_key: Secret,
    /// In force. Whether it drains is said over HTTP and survives a reload.
    policy: Policy,
    secret_file: Watch,
    ebb: Ebb,
    /// As the configuration in force names them; `None` without TLS.
    certificates: Option<certificates::Kept>,
    handle: Arc<Handle>,
    app: Arc<App>,
    manager: ServiceManager,
}

/// Between two looks at the secret file, the host's addresses, the certificates and the workers, unless the watchdog is in a
/// hurry.
const GLANCE: Duration = seconds(2);
const FAREWELL: Duration = seconds(2); // for HTTP answers under way

impl Server {
    /// Returns when a signal asks for the end, or when it has come by itself.
    async fn watch_over(&mut self, signals: &mut Signals, mut orders: mpsc::Receiver<Order>) -> Result<(), ServeError> {
        let mut glance = interval(self.manager.heartbeat().map_or(GLANCE, |due| due.min(GLANCE)));
        // After a pause of the whole process one look is enough; two at once would find that nobody has answered the first.
        glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut was_alive = true;
        loop {
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::End => return Ok(()),
                    Asked::Reload => {
                        signals.hung_up = true;
                        self.reload();
                    }
                },
                Some(order) = orders.recv() => match order {
                    Order::Drain { draining, done } => {
                        self.drain(draining);
                        let _who_asked_is_gone = done.send(());
                    }
                },
                _ = glance.tick() => {
                    self.app.note_relayed();
                    self.handle.end_reservations(clock::now());
                    let live = self.app.live_allocations() + self.app.open_connections();
                    if self.ebb.has_come(live, self.app.begun()) {
                        net::give_memory_back();
                    }
                    if self.secret_file.has_changed() {
                        self.reload_secrets();
                    }
                    self.look_around();
                    if let Some(certificates) = &mut self.certificates {
                        certificates.glance(&self.config.tls, clock::now());
                    }
                    if signals.terminal_is_gone() {
                        return Ok(());
                    }
                    if self.handle.has_failed() {
                        return Err(ServeError::WorkerFailed);
                    }
                    // Asking is what makes the workers answer, so nobody else asks.
                    let is_alive = self.handle.is_alive();
                    if is_alive {
                        self.manager.say(Word::Alive);
                    } else if was_alive {
                        tracing::error!("a worker thread does not answer; restart the server if this stays so");
                    }
                    was_alive = is_alive;
                }
            }
        }
    }

    fn reload(&mut self) {
        self.manager.say(Word::Reloading(clock::now().mono));
        match self.read_again() {
            Ok(next) => self.take_over(next),
            Err(error) => error.to_string().lines().for_each(|line| {
                tracing::error!(mistake = line, "reload refused; nothing has changed");
            }),
        }
        self.manager.say(Word::Ready);
    }

    fn read_again(&self) -> Result<Next, ServeError> {
        let text = match &self.config_file {
            Some(file) => {
                let text =
                    std::fs::read_to_string(file).map_err(|error| ServeError::ConfigFile(file.clone(), error))?;
                Some((file.display().to_string(), Zeroizing::new(text)))
            }
            None => None,
        };
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let text = text.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
        let loaded = config::load(text, environment)?;
        let mut config = loaded.config.clone();
        let needs_restart = keep_what_needs_a_restart(&self.config, &mut config);
        let kept = Kept { file: secrets_of(&config)?, ..self.kept.clone() };
        let policy = kept.policy(&config, &self.host, &self.nonce_key);
        let locate = |mistakes: Vec<Mistake>| mistakes.into_iter().map(|mistake| loaded.locate(mistake)).collect();
        let certificates = Fresh::read(&config.tls);
        let certificates = certificates.map_err(|error| ServeError::Mistakes(locate(error.mistake().into())))?;
        let policy = policy.map_err(|mistakes| ServeError::Mistakes(locate(mistakes)))?;
        loaded.warnings.iter().for_each(|warning| tracing::warn!(%warning, "configuration"));
        Ok(Next { config, kept, certificates, policy, needs_restart })
    }

    fn take_over(&mut self, next: Next) {
        let Next { config, kept, certificates, policy, needs_restart } = next;
        for key in needs_restart {
            tracing::warn!(key, "needs restart: the old value stays in force");
        }
        let changed = changed_keys(&self.config, &config).join(" ");
        self.secret_file = Watch::on(config.auth.secret_file.clone());
        (self.config, self.kept) = (config, kept);
        if let Some(kept) = &mut self.certificates
            && let Err(error) = kept.take_over(&self.config.tls, certificates)
        {
            tracing::error!(mistake = %error, "certificates not reloaded; the old ones stay in force");
        }
        self.put_in_force(policy);
        tracing::info!(changed, "reloaded");
    }

    fn reload_secrets(&mut self) {
        let next = secrets_of(&self.config).and_then(|file| {
            let kept = Kept { file, ..self.kept.clone() };
            let policy = kept.policy(&self.config, &self.host, &self.nonce_key)?;
            Ok((kept, policy))
        });
        match next {
            Ok((kept, policy)) => {
                tracing::info!(secrets = policy.auth.secrets.len(), "secret file reloaded");
                self.kept = kept;
                self.put_in_force(policy);
            }
            Err(error) => tracing::error!(%error, "secret file not reloaded; nothing has changed"),
        }
    }

    /// Addresses come and go while a server runs. One that has come is refused as a peer from here on.
    fn look_around(&mut self) {
        let addresses = (self.interfaces)();
        if addresses.is_empty() || addresses == self.addresses {
            return;
        }
        let listed = |these: &[IpAddr], others: &[IpAddr]| {
            let only = these.iter().filter(|ip| !others.contains(ip)).map(IpAddr::to_string);
            only.collect::<Vec<_>>().join(" ")
        };
        let (came, went) = (listed(&addresses, &self.addresses), listed(&self.addresses, &addresses));
        tracing::info!(came, went, "addresses of this host changed");
        self.addresses = addresses;
        self.put_in_force(self.policy.clone());
    }

    fn put_in_force(&mut self, policy: Policy) {
        self.policy = Policy { draining: self.policy.draining, ..policy };
        self.policy.peers.set_interfaces(self.addresses.clone());
        self.app.set_settings(self.kept.settings(&self.config, &self.policy));
        self.handle.set_policy(&Arc::new(self.policy.clone()));
    }

    fn drain(&mut self, draining: bool) {
        if draining == self.policy.draining {
            return;
        }
        self.policy.draining = draining;
        self.handle.set_policy(&Arc::new(self.policy.clone()));
        self.app.set_draining(draining);
        let allocations = self.app.live_allocations();
        match draining {
            true => tracing::info!(allocations, "draining: new allocations are turned away"),
            false => tracing::info!(allocations, "draining cancelled: new allocations are taken again"),
        }
    }

    async fn stop(self, signals: &mut Signals, door: &Door, close: &channel::Sender<bool>) -> Result<(), ServeError> {
        tracing::info!("stopping");
        self.app.set_stage(Stage::Stopping);
        self.manager.say(Word::Stopping);
        close.send_replace(true);
        let end = async {
            // Both at once: no call may begin while the last HTTP answers leave.
            let workers = async {
                let Some(handle) = Arc::into_inner(self.handle) else { return };
                let _ended = tokio::task::spawn_blocking(|| handle.stop()).await;
            };
            tokio::join!(door.emptied(FAREWELL), workers);
        };
        tokio::select! {
            () = end => {
                tracing::info!("stopped");
                Ok(())
            }
            () = signals.end() => Err(ServeError::Hurried),
        }
    }
}

/// What a reload would put in force.
struct Next {
    config: Config,
    kept: Kept,
    certificates: Fresh,
    policy: Policy,
    needs_restart: Vec<&'static str>,
}

/// Secrets and keys that the configuration does not hold itself.
#[derive(Clone)]
struct Kept {
    /// Those of `auth.secret_file`.
    file: Vec<Secret>,
    /// Made at the first start. They count while the operator has written none, as after a restart.
    secrets: Vec<Secret>,
    keys: Vec<ApiKey>,
}

impl Kept {
    fn of(config: &Config, secrets: Vec<Secret>, keys: Vec<ApiKey>) -> Result<Self, ServeError> {
        let file = secrets_of(config)?;
        let is_made = |secret: &Secret| !config.auth.secrets.contains(secret) && !file.contains(secret);
        let secrets = secrets.into_iter().filter(is_made).collect();
        let keys = keys.into_iter().filter(|key| !config.http.keys.contains(key)).collect();
        Ok(Self { file, secrets, keys })
    }

    fn policy(&self, config: &Config, host: &Host, nonce_key: &Secret) -> Result<Policy, Vec<Mistake>> {
        let has_written = !config.auth.secrets.is_empty() || !self.file.is_empty() || !config.auth.users.is_empty();
        let more = if has_written { &self.file } else { &self.secrets };
        config.policy(host, nonce_key.clone(), more)
    }

    fn settings(&self, config: &Config, policy: &Policy) -> Settings {
        let keys = if config.http.keys.is_empty() { &self.keys } else { &config.http.keys };
        Settings {
            keys: Keyring::new(keys),
            secrets: policy.auth.secrets.clone(),
            separator: policy.auth.separator,
            max_ttl: policy.auth.max_ttl,
            uris: config.uris(policy).into_iter().collect(),
            metrics_public: config.http.metrics_public,
        }
    }
}

fn secrets_of(config: &Config) -> Result<Vec<Secret>, ServeError> {
    let Some(path) = &config.auth.secret_file else { return Ok(Vec::new()) };
    let secrets = watch::secrets(path).and_then(|secrets| match secrets.is_empty() {
        // An editor that empties a file before it writes must not leave us without secrets in between.
        true => Err(io::Error::new(io::ErrorKind::InvalidData, "holds no secret; write one a line, the newest first")),
        false => Ok(secrets),
    });
    secrets.map_err(|error| ServeError::SecretFile(path.clone(), error))
}

/// Puts the running values of what only a start can change into `next`, and names those that differ.
fn keep_what_needs_a_restart(running: &Config, next: &mut Config) -> Vec<&'static str> {
    fn keep<T: Clone + PartialEq>(key: &'static str, running: &T, next: &mut T) -> Option<&'static str> {
        let differs = running != next;
        next.clone_from(running);
        differs.then_some(key)
    }
    // Without a certificate at the start there is no TLS listener, and one that is there cannot be without.
    let has_tls = |config: &Config| !config.tls.cert.0.is_empty();
    let switched = has_tls(running) != has_tls(next);
    if switched {
        next.tls.clone_from(&running.tls);
    }
    [
        switched.then_some("tls.cert"),
        keep_listeners("listen.udp", &running.listen.udp, &mut next.listen.udp),
        keep_listeners("listen.tcp", &running.listen.tcp, &mut next.listen.tcp),
        keep_listeners("listen.tls", &running.listen.tls, &mut next.listen.tls),
        keep_listeners("listen.dtls", &running.listen.dtls, &mut next.listen.dtls),
        keep("listen.detect", &running.listen.detect, &mut next.listen.detect),
        keep("listen.proxy_protocol", &running.listen.proxy_protocol, &mut next.listen.proxy_protocol),
        keep("listen.proxy_trusted", &running.listen.proxy_trusted, &mut next.listen.proxy_trusted),
        keep("listen.https_fallback", &running.listen.https_fallback, &mut next.listen.https_fallback),
        keep(
            "listen.https_fallback_proxy",
            &running.listen.https_fallback_proxy,
            &mut next.listen.https_fallback_proxy,
        ),
        keep("listen.freebind", &running.listen.freebind, &mut next.listen.freebind),
        keep_http_listeners(&running.http.listen, &mut next.http.listen),
        keep("relay.addresses", &running.relay.addresses, &mut next.relay.addresses),
        keep("relay.external", &running.relay.external, &mut next.relay.external),
        keep("relay.ports", &running.relay.ports, &mut next.relay.ports),
        keep("auth.nat_discovery", &running.auth.nat_discovery, &mut next.auth.nat_discovery),
        keep("data_plane.workers", &running.data_plane.workers, &mut next.data_plane.workers),
        keep("log.level", &running.log.level, &mut next.log.level),
        keep("log.format", &running.log.format, &mut next.log.format),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Port 0 is whatever was opened, and a default may have left a family out: neither is a difference.
fn keep_listeners(key: &'static str, running: &Listeners, next: &mut Listeners) -> Option<&'static str> {
    let both_default = running.is_default && next.is_default;
    let all_same = are_same(&running.addresses, &next.addresses);
    *next = running.clone();
    (!both_default && !all_same).then_some(key)
}

fn keep_http_listeners(running: &HttpListeners, next: &mut HttpListeners) -> Option<&'static str> {
    let all_same = are_same(&running.addresses, &next.addresses) && running.sockets == next.sockets;
    *next = running.clone();
    (!all_same).then_some("http.listen")
}

fn are_same(running: &[SocketAddr], next: &[SocketAddr]) -> bool {
    let same = |running: &SocketAddr, next: &SocketAddr| {
        running.ip() == next.ip() && (running.port() == next.port() || next.port() == 0)
    };
    running.len() == next.len() && running.iter().all(|one| next.iter().any(|other| same(one, other)))
}

/// The keys that differ, in the order of the example. Those that hold secrets are compared, never shown.
fn changed_keys(before: &Config, after: &Config) -> Vec<&'static str> {
    let differs_unseen = |key: &str| match key {
        "auth.secrets" => before.auth.secrets != after.auth.secrets,
        "auth.users" => before.auth.users != after.auth.users,
        "auth.oauth" => before.auth.oauth != after.auth.oauth,
        "http.keys" => before.http.keys != after.http.keys,
        _ => false,
    };
    let pairs = before.effective().into_iter().zip(after.effective());
    let differing = pairs.filter(|((key, before), (_, after))| before != after || differs_unseen(key));
    differing.map(|((key, _), _)| key).collect()
}

fn random_key() -> io::Result<Secret> {
    let mut bytes = Zeroizing::new([0; 16]);
    getrandom::fill(&mut *bytes).map_err(io::Error::other)?;
    Ok(Secret::new(&Zeroizing::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())))
}

fn sources(handle: &Arc<Handle>, certificates: Option<Arc<Certificates>>) -> Sources {
    let weak: Weak<Handle> = Arc::downgrade(handle);
    let relay_ports = move || weak.upgrade().map_or(PortUse { free: 0, used: 0 }, |handle| handle.relay_ports());
    Sources {
        tallies: handle.tallies().to_vec(),
        relay_ports: Box::new(relay_ports),
        certificates,
        data_plane: DataPlane::of(handle),
    }
}

impl Ready {
    /// Every listener: its transport, and its address as text.
    fn listening(&self) -> impl Iterator<Item = (&'static str, String)> {
        let clients = self.listeners.iter().map(|(transport, address)| (transport.label(), address.to_string()));
        let http = self.http.iter().map(|address| ("http", address.to_string()));
        let files = self.http_sockets.iter().map(|path| ("http", format!("unix:{}", path.display())));
        clients.chain(http).chain(files)
    }

    fn log(&self) {
        for (transport, address) in self.listening() {
            tracing::info!(transport, %address, "listening");
        }
        let DataPlane { workers, .. } = self.data_plane;
        let (receive, send) = (self.data_plane.receive(), self.data_plane.send());
        tracing::info!(path = DataPlane::PATH, workers, receive, send, "data plane");
    }
}

/// What a signal asks for.
#[derive(PartialEq, Eq)]
enum Asked {
    End,
    Reload,
}

struct Signals {
    /// Whether somebody started the server at a terminal and watches it there.
    on_terminal: bool,
    /// Whether a hang-up has come.
    hung_up: bool,
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            on_terminal: io::stderr().is_terminal(),
            hung_up: false,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// Whether somebody closed the terminal that the server was started at: that sends the same signal as a reload, a
    /// moment before the terminal is gone, and whoever did it is done with the server.
    fn terminal_is_gone(&self) -> bool {
        self.on_terminal && self.hung_up && !io::stderr().is_terminal()
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.reload.recv() => Asked::Reload,
        }
    }

    async fn end(&mut self) {
        while self.next().await != Asked::End {}
    }
}
