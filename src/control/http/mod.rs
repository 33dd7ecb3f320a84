//! The HTTP side: routes, who may use them, and what every answer has in common.
//!
//! Owns what the handlers read: settings that a reload swaps whole, the stage of the server, the counts of the tallies.
//! Errors are problem documents, whichever layer says no. Never sees a packet, never logs a request: its query may be a key.
#![forbid(unsafe_code)]

pub mod connections;
mod draft;
mod drain;
mod health;
mod ice_servers;
mod openapi;
mod page;
mod problem;
mod status;

use super::keys::{Brake, Denied, Keyring, Presented};
use super::metrics::{Minted, Sources};
use super::rates::Rates;
use crate::config::Scope;
use crate::time::{Duration, Instant, Now, seconds};
use crate::turn::credential::{self, Secret};
use crate::turn::opaque::{Forbidden, OpaqueString};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Request, State};
use axum::http::header::{CACHE_CONTROL, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, post};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use problem::Problem;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::{mpsc, oneshot};

/// What a reload may change, swapped whole.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who may ask.
    pub keys: Keyring,
    /// What credentials are minted with; the first is the newest.
    pub secrets: Vec<Secret>,
    /// What stands between expiry and user in a minted name.
    pub separator: char,
    /// The longest life of a minted credential.
    pub max_ttl: Duration,
    /// What minted answers list.
    pub uris: Uris,
    /// Whether anybody may read the metrics.
    pub metrics_public: bool,
}

/// Where clients find the server, as minted answers list it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uris {
    /// `stun:` and `stuns:`, which take no credential.
    pub stun: Vec<String>,
    /// `turn:` and `turns:`.
    pub turn: Vec<String>,
}

impl FromIterator<String> for Uris {
    fn from_iter<I: IntoIterator<Item = String>>(uris: I) -> Self {
        let (stun, turn) = uris.into_iter().partition(|uri| uri.starts_with("stun"));
        Self { stun, turn }
    }
}

/// How far the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Listeners are being opened.
    Starting,
    /// Everything is open.
    Serving,
    /// A signal has come; no new work.
    Stopping,
}

/// What a request asks of the supervisor, which alone changes workers.
#[derive(Debug)]
pub enum Order {
    /// To turn new allocations away, or to take them again.
    Drain {
        /// Which of the two.
        draining: bool,
        /// Told when the workers have been.
        done: oneshot::Sender<()>,
    },
}

/// Orders that wait for the supervisor. Each takes it less than a millisecond.
pub const ORDERS: usize = 16;

/// What all handlers share.
pub struct App {
    settings: RwLock<Arc<Settings>>,
    stage: AtomicU8,
    draining: AtomicBool,
    orders: mpsc::Sender<Order>,
    brake: Mutex<Brake>,
    minted: Minted,
    sources: Sources,
    listeners: Vec<(&'static str, String)>,
    rates: Mutex<Rates>,
    began: Instant,
    clock: Box<dyn Fn() -> Now + Send + Sync>,
}

impl App {
    /// A server that is starting, with what it listens on: transport and address. What requests ask of the supervisor
    /// goes to `orders`.
    pub fn new(
        settings: Settings,
        sources: Sources,
        listeners: Vec<(&'static str, String)>,
        orders: mpsc::Sender<Order>,
        clock: impl Fn() -> Now + Send + Sync + 'static,
    ) -> Self {
        let began = clock().mono;
        Self {
            settings: RwLock::new(Arc::new(settings)),
            stage: AtomicU8::new(Stage::Starting as u8),
            draining: AtomicBool::new(false),
            orders,
            brake: Mutex::default(),
            minted: Minted::default(),
            sources,
            listeners,
            rates: Mutex::new(Rates::new(began)),
            began,
            clock: Box::new(clock),
        }
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts other settings in force; requests under way end with the ones they began with.
    pub fn set_settings(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// How far the server is.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Relaxed) {
            0 => Stage::Starting,
            1 => Stage::Serving,
            _ => Stage::Stopping,
        }
    }

    /// Says how far the server is.
    pub fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Relaxed);
    }

    /// Whether new allocations are turned away.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Says whether new allocations are turned away.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Relaxed);
    }

    /// Whether new clients belong elsewhere: it drains or stops.
    fn takes_no_work(&self) -> bool {
        self.is_draining() || self.stage() == Stage::Stopping
    }

    /// Remembers what has been relayed so far, for the rates.
    pub fn note_relayed(&self) {
        let (now, relayed) = ((self.clock)().mono, self.sources.relayed());
        self.rates.lock().unwrap_or_else(PoisonError::into_inner).note(now, relayed);
    }

    /// Allocations that live now.
    pub fn live_allocations(&self) -> u64 {
        self.sources.live_allocations()
    }

    /// Client connections that are open now.
    pub fn open_connections(&self) -> u64 {
        self.sources.open_connections()
    }

    /// Allocations and client connections there have ever been.
    pub fn begun(&self) -> u64 {
        self.sources.begun()
    }

    /// Lets a request pass whose key grants `needed`. A wrong key is counted against the address it came from.
    fn admit(&self, client: Client, key: Result<Option<Presented>, Denied>, needed: Scope) -> Result<(), Problem> {
        let verdict = key.and_then(|key| self.settings().keys.check(key.as_ref(), needed));
        let Err(denied) = verdict else { return Ok(()) };
        match denied {
            Denied::Missing | Denied::Unreadable => Err(Problem::unauthorized(denied.to_string())),
            Denied::Scope(_) => Err(Problem::new(StatusCode::FORBIDDEN, denied.to_string())),
            Denied::Wrong => Err(self.refuse_guess(client, denied)),
        }
    }

    fn refuse_guess(&self, client: Client, denied: Denied) -> Problem {
        let now = (self.clock)().mono;
        let wait = self.brake.lock().unwrap_or_else(PoisonError::into_inner).wrong_key(client.ip(), now);
        let Some(wait) = wait else { return Problem::unauthorized(denied.to_string()) };
        let wait = wait.as_secs().max(1);
        Problem::wait(wait, format!("too many wrong keys from your address: wait {wait} s, or send a right one"))
    }

    /// Makes a credential with the newest secret, for at most `auth.max_ttl`.
    fn mint(&self, wish: &Wish, settings: &Settings) -> Result<Credential, Problem> {
        let Some(secret) = settings.secrets.first() else {
            return Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "there is nothing to mint with: auth.secrets and auth.secret_file are empty (static users have fixed passwords)",
            ));
        };
        let ttl = wish.ttl.unwrap_or(DEFAULT_TTL).min(settings.max_ttl);
        let now = (self.clock)().unix;
        let minted = credential::mint(secret, wish.user.as_ref(), settings.separator, ttl, now);
        Ok(Credential { minted, ttl: ttl.as_secs() })
    }
}

/// The life of a credential whose request names none, if `auth.max_ttl` permits: what coturn's scripts and the
/// draft use.
const DEFAULT_TTL: Duration = seconds(86_400);

/// Where a request came from. Forwarded addresses are not looked at: anybody can write one.
#[derive(Clone, Copy, Debug)]
pub enum Client {
    /// From this address.
    Address(SocketAddr),
    /// Through a unix-domain socket of this host.
    Socket,
}

impl Client {
    /// Whose guesses of keys count together. Everybody behind the sockets of this host is one.
    fn ip(self) -> IpAddr {
        match self {
            Self::Address(address) => address.ip(),
            Self::Socket => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Whether the request was made on this host, and not through a proxy that runs here.
    fn is_local(self, headers: &HeaderMap) -> bool {
        let forwarded = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];
        self.ip().to_canonical().is_loopback() && !forwarded.iter().any(|name| headers.contains_key(*name))
    }
}

/// What a minting request asks for.
#[derive(Debug, Default)]
struct Wish {
    user: Option<OpaqueString>,
    ttl: Option<Duration>,
}

const USER_BYTES: usize = 256; // with the expiry well inside STUN's 508 (RFC 8489 §14.3)

impl Wish {
    /// The user as both sides write it; an empty one is nobody.
    fn user(text: &str) -> Result<Option<OpaqueString>, Problem> {
        let too_long = |len| Problem::impossible(format!("user: {len} bytes; at most {USER_BYTES} are possible"));
        if text.len() > USER_BYTES {
            return Err(too_long(text.len()));
        }
        match OpaqueString::new(text) {
            Ok(user) if user.as_str().len() > USER_BYTES => Err(too_long(user.as_str().len())),
            Ok(user) => Ok(Some(user)),
            Err(Forbidden::Empty) => Ok(None),
            Err(why @ (Forbidden::Character(_) | Forbidden::Text)) => Err(Problem::impossible(format!("user: {why}"))),
        }
    }

    fn ttl(number: Option<u64>) -> Result<Duration, Problem> {
        let number = number.filter(|seconds| *seconds > 0);
        number.map(seconds).ok_or_else(|| Problem::impossible("ttl: must be a whole number of seconds, 1 or more"))
    }
}

/// A credential as the answers show it.
struct Credential {
    minted: credential::Minted,
    ttl: u64,
}

/// Every route, by path. The OpenAPI document describes exactly these; a test compares.
pub fn routes() -> Vec<(&'static str, MethodRouter<Arc<App>>)> {
    vec![
        ("/", get(page::page)),
        ("/healthz", get(health::healthz)),
        ("/metrics", get(metrics)),
        ("/openapi.json", get(openapi::document)),
        ("/readyz", get(health::readyz)),
        ("/turn", get(draft::mint).post(draft::mint)),
        ("/v1/drain", post(drain::begin).delete(drain::cancel)),
        ("/v1/ice-servers", post(ice_servers::mint)),
        ("/v1/status", get(status::status)),
    ]
}

const BODY: usize = 16 * 1024; // the largest sensible request is a few hundred bytes

/// The whole HTTP side. A request carries its [`Client`] as an extension; `patience` is how long one may take.
pub fn router(app: Arc<App>, patience: Duration) -> Router {
    let mut router = Router::new();
    for (path, methods) in routes() {
        router = router.route(path, methods);
    }
    router
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(BODY))
        .layer(from_fn(move |request, next| envelope(patience, request, next)))
        .with_state(app)
}

async fn no_path() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no such path: GET /openapi.json lists every one")
}

async fn no_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path has other methods: see the Allow header")
}

/// What every answer has in common.
async fn envelope(patience: Duration, request: Request, next: Next) -> Response {
    let late = || Problem::new(StatusCode::REQUEST_TIMEOUT, "the request did not arrive whole in time").into_response();
    let answer = tokio::time::timeout(patience, next.run(request)).await;
    let mut response = answer.unwrap_or_else(|_| late());
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn body(request: Request) -> Result<Bytes, Problem> {
    Bytes::from_request(request, &()).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {BODY} bytes"))
        }
        _ => Problem::unreadable("the body ended early"),
    })
}

/// Where a request came from; the listener puts it there.
fn client(request: &Request) -> Result<Client, Problem> {
    let client = request.extensions().get().copied();
    client.ok_or_else(|| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the listener did not say who asks"))
}

/// `GET /metrics`
async fn metrics(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let client = client(&request)?;
    let key = Presented::in_headers(request.headers());
    let keyless = app.settings().metrics_public || client.is_local(request.headers());
    if !(keyless && matches!(key, Ok(None))) {
        app.admit(client, key, Scope::Read)?;
    }
    let text = super::metrics::text(&app.sources, &app.minted, app.takes_no_work());
    let text = text.map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(([("content-type", prometheus::TEXT_FORMAT)], text).into_response())
}
