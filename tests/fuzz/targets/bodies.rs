//! Any body and any query to the routes of the HTTP side that read one: an answer, never a failure of ours, and no secret in it.
//!
//! Each request goes to two servers that differ in their secrets and keys alone, without a socket: whatever of a secret
//! were in an answer would make the two differ. A runtime is there for a patience that nobody tries.

use super::script::Script;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, Uri};
use axum::response::Response;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tower::ServiceExt as _;
use turnserver::client::{Client, Heard};
use turnserver::config::{ApiKey, Scope};
use turnserver::control::data_plane::DataPlane;
use turnserver::control::http::{self, App, ORDERS, Order, Settings, Stage, Uris};
use turnserver::control::keys::Keyring;
use turnserver::control::metrics::Sources;
use turnserver::net::udp::Abilities;
use turnserver::time::{Instant, Now, UnixSeconds, minutes};
use turnserver::turn::credential::Secret;
use turnserver::turn::peers::RelayAddress;
use turnserver::turn::policy::Policy;
use turnserver::turn::tally::{Tally, Transport};
use turnserver::turn::{Effect, FiveTuple, Input, Link, Path, Server, Verdict};
use turnserver::wire::Packet;
use turnserver::worker::PortUse;

const NOW: Now = Now { mono: Instant(1_000_000_000_000), unix: UnixSeconds(1_700_000_000) };
const PATIENCE: Duration = minutes(60);
const MAX_TTL: Duration = minutes(24 * 60);
/// The most bytes a body may have (docs/http-api.md).
const BODY: usize = 16 * 1024;
/// The most bytes that any answer has, whatever the question.
const MOST: usize = 4096;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime without sockets"));

/// A route that reads what it is sent, and whose key opens it.
struct Route {
    method: Method,
    path: &'static str,
    scope: Scope,
    done: StatusCode,
}

const ROUTES: &[Route] = &[
    Route { method: Method::POST, path: "/v1/ice-servers", scope: Scope::Mint, done: StatusCode::CREATED },
    Route { method: Method::POST, path: "/turn", scope: Scope::Mint, done: StatusCode::OK },
    Route { method: Method::GET, path: "/turn", scope: Scope::Mint, done: StatusCode::OK },
    Route { method: Method::POST, path: "/v1/drain", scope: Scope::Admin, done: StatusCode::ACCEPTED },
    Route { method: Method::DELETE, path: "/v1/drain", scope: Scope::Admin, done: StatusCode::OK },
];

/// Whose key a request has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Minter,
    Admin,
    Reader,
    Guesser,
    Nobody,
}

/// Where a request has its key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Bearer,
    Own,
    Query,
    Form,
}

/// What a script asks for. `/turn` reads the first line as a query and the rest as a form.
struct Ask<'a> {
    route: &'a Route,
    who: Who,
    place: Place,
    query: &'a [u8],
    body: Vec<u8>,
}

pub(crate) fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let route = script.pick(ROUTES);
    let who = *script.pick(&[Who::Minter, Who::Admin, Who::Reader, Who::Guesser, Who::Nobody]);
    let place = *script.pick(&[Place::Bearer, Place::Own, Place::Query, Place::Form]);
    let separator = *script.pick(&[':', '.', '|', 'ß']);
    let times = *script.pick(&[1, 1, 1, 2, 8, 64]);
    let rest = script.rest();
    let line = if route.path == "/turn" { rest.iter().position(|byte| *byte == b'\n') } else { None };
    let (query, body) = line.map_or((&[][..], rest), |end| (&rest[..end], &rest[end + 1..]));
    let ask = Ask { route, who, place, query, body: body.repeat(times) };

    let [mut site, mut other] = ["one", "two"].map(|name| Site::new(name, separator));
    let (Some(answer), Some(others)) = (site.asks(&ask), other.asks(&ask)) else { return };
    answer.is_due(&ask);
    assert_eq!((answer.status, &answer.headers), (others.status, &others.headers));
    let (plain, minted) = answer.without_credential();
    let (others_plain, others_minted) = others.without_credential();
    assert_eq!(plain, others_plain, "a secret shows");
    match (minted, others_minted) {
        (None, None) => {}
        (Some(minted), Some(other)) => {
            assert_ne!(minted.1, other.1, "made with no secret");
            site.lets_in(&minted, separator);
        }
        (minted, other) => panic!("{minted:?} here and {other:?} there"),
    }
}

/// A server without sockets, whose secrets and keys have its name in them.
struct Site {
    name: &'static str,
    app: Arc<App>,
    orders: mpsc::Receiver<Order>,
}

impl Site {
    fn new(name: &'static str, separator: char) -> Self {
        let key =
            |scope: Scope, id: &str| ApiKey { id: id.into(), secret: Secret::new(&key(name, id)), scopes: vec![scope] };
        let uris = ["stun:turn.example.org:3478", "turn:turn.example.org:3478?transport=udp"];
        let settings = Settings {
            keys: Keyring::new(&[key(Scope::Mint, "minter"), key(Scope::Admin, "admin"), key(Scope::Read, "reader")]),
            secrets: vec![secret(name), Secret::new("the secret before")],
            separator,
            max_ttl: MAX_TTL,
            uris: uris.map(String::from).into_iter().collect::<Uris>(),
            metrics_public: false,
        };
        let relay_ports = Box::new(|| PortUse { free: 1, used: 0 });
        let data_plane = DataPlane { workers: 1, abilities: Abilities { receives_trains: true, sends_trains: true } };
        let sources = Sources { tallies: vec![Arc::default()], relay_ports, certificates: None, data_plane };
        let (ask, orders) = mpsc::channel(ORDERS);
        let app = App::new(settings, sources, Vec::new(), ask, || NOW);
        app.set_stage(Stage::Serving);
        Self { name, app: Arc::new(app), orders }
    }

    /// What the server says; `None` for a query that is no part of any request.
    fn asks(&mut self, ask: &Ask<'_>) -> Option<Answer> {
        let key = match ask.who {
            Who::Minter => key(self.name, "minter"),
            Who::Admin => key(self.name, "admin"),
            Who::Reader => key(self.name, "reader"),
            Who::Guesser => "a guess".into(),
            Who::Nobody => String::new(),
        };
        let (mut query, mut body) = (ask.query.to_vec(), ask.body.clone());
        let mut request = Request::builder().method(ask.route.method.clone());
        let parameter = format!("key={}&", key.replace(' ', "+"));
        match ask.place {
            _ if key.is_empty() => {}
            Place::Bearer => request = request.header("authorization", format!("Bearer {key}")),
            Place::Own => request = request.header("x-api-key", key),
            Place::Query => drop(query.splice(..0, parameter.bytes())),
            Place::Form => drop(body.splice(..0, parameter.bytes())),
        }
        let target = [ask.route.path.as_bytes(), b"?", &query].concat();
        let mut request = request.uri(Uri::try_from(&target[..]).ok()?).body(Body::from(body)).ok()?;
        request.extensions_mut().insert(http::Client::Address(SocketAddr::from(([192, 0, 2, 10], 40_000))));
        let answered = http::router(Arc::clone(&self.app), PATIENCE).oneshot(request);
        RUNTIME.block_on(async {
            let response = tokio::select! {
                response = answered => response.expect("a router has an answer for everything"),
                () = self.supervises() => unreachable!("a supervisor goes on"),
            };
            Some(Answer::read(response).await)
        })
    }

    /// Does at once what is ordered.
    async fn supervises(&mut self) {
        while let Some(Order::Drain { draining, done }) = self.orders.recv().await {
            self.app.set_draining(draining);
            done.send(()).expect("whoever orders waits");
        }
    }

    /// A relay with the same secret takes the credential.
    fn lets_in(&self, (username, password): &(String, String), separator: char) {
        let home = RelayAddress { local: [192, 0, 2, 1].into(), external: [192, 0, 2, 1].into() };
        let mut policy = Policy { realm: "example.org".into(), relays: vec![home], ..Policy::default() };
        policy.auth.secrets = vec![Secret::new("the secret of tomorrow"), secret(self.name)];
        (policy.auth.separator, policy.auth.max_ttl) = (separator, MAX_TTL);
        let mut server = Server::new(Arc::new(policy), Arc::new(Tally::default()), NOW, [7; 32]);
        let client = SocketAddr::from(([198, 51, 100, 1], 4000));
        let tuple = FiveTuple { transport: Transport::Udp, client, server: SocketAddr::new(home.local, 3478) };
        let path = Path { tuple, link: Link(1) };
        let mut packet = Packet::new(vec![0xAA; 4096].into());
        let mut client = Client::new(username, password, 1);
        packet.fill(&client.allocate(None));
        assert_eq!(server.handle(NOW, Input::Client(path), &mut packet, &mut Vec::new()), Verdict::ToClient(path));
        assert!(matches!(client.hear(packet.data()), Ok(Heard::Error { is_challenge: true, .. })));
        let mut effects = Vec::new();
        packet.fill(&client.allocate(None));
        let _nothing_yet = server.handle(NOW, Input::Client(path), &mut packet, &mut effects);
        assert!(
            matches!(&effects[..], [Effect::Bind(_)]),
            "{username:?} is not let in: {:?}",
            client.hear(packet.data())
        );
    }
}

fn secret(name: &str) -> Secret {
    Secret::new(&format!("secret {name} that no corpus has"))
}

fn key(name: &str, id: &str) -> String {
    format!("key of {id} {name} that no corpus has")
}

/// What a server said.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
    len: usize,
}

impl Answer {
    async fn read(response: Response) -> Self {
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, MOST).await.expect("an answer is short");
        let value = serde_json::from_slice(&body).expect("an answer is JSON");
        Self { status: head.status, headers: head.headers, body: value, len: body.len() }
    }

    /// Whether this may be said to whoever asks so.
    fn is_due(&self, ask: &Ask<'_>) {
        let Self { status, headers, body, len } = self;
        let reads_body = ask.route.scope == Scope::Mint;
        let in_parameters = matches!(ask.place, Place::Query | Place::Form) && ask.who != Who::Nobody;
        let is_heard = !in_parameters || ask.route.path == "/turn";
        let is_granted = ask.who == Who::Admin || ask.who == Who::Minter && ask.route.scope == Scope::Mint;
        let is_long = ask.body.len() > BODY - 64; // there may be a key before it
        let due: &[StatusCode] = match () {
            () if is_long && reads_body && *status == StatusCode::PAYLOAD_TOO_LARGE => &[StatusCode::PAYLOAD_TOO_LARGE],
            // What a query has counts before what a form has.
            () if is_heard && ask.place == Place::Form && *status == StatusCode::UNAUTHORIZED => {
                &[StatusCode::UNAUTHORIZED]
            }
            () if !is_heard || [Who::Nobody, Who::Guesser].contains(&ask.who) => &[StatusCode::UNAUTHORIZED],
            () if !is_granted => &[StatusCode::FORBIDDEN],
            () if reads_body => &[ask.route.done, StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY],
            () => &[ask.route.done],
        };
        assert!(due.contains(status), "{status} to what may have {due:?}: {body}");
        assert!(*len <= MOST);
        assert_eq!(headers.get("cache-control").map(|value| value.as_bytes()), Some(&b"no-store"[..]));
        if *status == ask.route.done {
            return;
        }
        assert_eq!(headers.get("content-type").map(|value| value.as_bytes()), Some(&b"application/problem+json"[..]));
        assert_eq!(body["status"], status.as_u16());
        assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }

    /// What is the same whatever the secret, and the name and password that are not.
    fn without_credential(&self) -> (Value, Option<(String, String)>) {
        let mut plain = self.body.clone();
        let Some(username) = plain.get("username").and_then(Value::as_str).map(String::from) else {
            return (plain, None);
        };
        let ttl = plain["ttl"].as_u64().expect("a credential has a life");
        assert!((1..=MAX_TTL.as_secs()).contains(&ttl));
        assert!(username.starts_with(&(NOW.unix.0 + ttl).to_string()));
        let mut takes = |pointer: &str| match plain.pointer_mut(pointer).map(Value::take) {
            Some(Value::String(password)) => Some(password),
            _ => None,
        };
        let inner = takes("/iceServers/1/credential");
        let password = takes("/credential").or_else(|| takes("/password")).expect("a name comes with a password");
        assert!(inner.is_none_or(|inner| inner == password));
        (plain, Some((username, password)))
    }
}
