//! A running server, asked over HTTP by the verbs that talk to one.
//!
//! Finds the server and a key where the server itself finds them, in the configuration or the state directory. Never
//! makes a key and never shows one.
#![forbid(unsafe_code)]

use super::Failure;
use super::serve::reachable;
use super::settings::Settings;
use super::state::{SERVICE_STATE, State, StateError};
use crate::config::{ApiKey, Scope};
use crate::time::{Duration, seconds};
use crate::turn::credential::Secret;
use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{HeaderValue, Method, Request, StatusCode};
use core::fmt;
use core::net::SocketAddr;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use zeroize::Zeroizing;

/// What a server answered when it did what it was asked.
#[derive(Debug)]
pub(super) struct Answer {
    /// As it came.
    pub(super) text: String,
    /// The same, read.
    pub(super) json: Value,
}

/// Asks the server that runs with this configuration, with a key that has the scope.
pub(super) fn ask(config: Option<PathBuf>, method: Method, path: &str, needed: Scope) -> Result<Answer, Failure> {
    let settings = Settings::read(config)?;
    let place = Place::of(&settings)?;
    let key = key(&settings, needed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("the operating system refused: {error}")))?;
    let answer = runtime.block_on(async {
        let asked = tokio::time::timeout(PATIENCE, place.asks(method, path, &key)).await;
        asked.unwrap_or(Err(Unanswered::Late))
    });
    let (status, body) = answer.map_err(|why| why.at(&place))?;
    understood(status, &body, &place)
}

const PATIENCE: Duration = seconds(10); // as long as the server gives a request
const ANSWER_MAX: usize = 64 * 1024; // bytes; what is expected has a few hundred

/// Every answer of ours says whether the server drains; a stranger's does not.
fn understood(status: StatusCode, body: &[u8], place: &Place) -> Result<Answer, Failure> {
    let json = serde_json::from_slice::<Value>(body).unwrap_or_default();
    if status.is_success() && json["draining"].is_boolean() {
        return Ok(Answer { text: String::from_utf8_lossy(body).into_owned(), json });
    }
    let detail = json["detail"].as_str().unwrap_or("it is no turnserver, or another version").escape_debug();
    let mend = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; it runs with other keys than this configuration has: reload it, or name its file with --config"
        }
        StatusCode::NOT_FOUND => "; it runs another version of this program: restart it",
        _ => "",
    };
    Err(Failure::Failed(format!("{place} answered {}: {detail}{mend}", status.as_u16())))
}

/// Where the running server listens for HTTP.
enum Place {
    File(PathBuf),
    Address(SocketAddr),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "unix:{}", path.display()),
            Self::Address(address) => write!(f, "http://{address}"),
        }
    }
}

/// Why there is no answer.
enum Unanswered {
    Connect(io::Error),
    Talk(String),
    Late,
}

impl Unanswered {
    fn at(self, place: &Place) -> Failure {
        Failure::Failed(match self {
            Self::Connect(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                format!("{place}: {error}; ask as root, or as a member of the server's group")
            }
            Self::Connect(error) => {
                format!("{place}: {error}; no server runs there, or it has another http.listen")
            }
            Self::Talk(what) => format!("{place}: {what}; is it this server that listens there?"),
            Self::Late => format!("{place}: no answer in {} seconds", PATIENCE.as_secs()),
        })
    }
}

impl Place {
    /// The socket file where there is one: it needs no network.
    fn of(settings: &Settings) -> Result<Self, Failure> {
        let listen = &settings.config().http.listen;
        if let Some(path) = listen.sockets.first() {
            return Ok(Self::File(path.clone()));
        }
        match listen.addresses.iter().find(|address| address.port() != 0) {
            Some(address) => Ok(Self::Address(reachable(*address))),
            None => Err(Failure::Wrong(
                "http.listen names no port and no socket, so a running server cannot be asked anything; configure one"
                    .into(),
            )),
        }
    }

    async fn asks(&self, method: Method, path: &str, key: &Secret) -> Result<(StatusCode, Vec<u8>), Unanswered> {
        match self {
            Self::File(file) => {
                let stream = UnixStream::connect(file).await.map_err(Unanswered::Connect)?;
                exchange(stream, method, path, "localhost", key).await
            }
            Self::Address(address) => {
                let stream = TcpStream::connect(address).await.map_err(Unanswered::Connect)?;
                exchange(stream, method, path, &address.to_string(), key).await
            }
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: Method,
    path: &str,
    host: &str,
    key: &Secret,
) -> Result<(StatusCode, Vec<u8>), Unanswered> {
    let talk = |error: hyper::Error| Unanswered::Talk(error.to_string());
    let bearer = Zeroizing::new([b"Bearer ", key.expose()].concat());
    let mut bearer = HeaderValue::from_bytes(&bearer)
        .map_err(|_| Unanswered::Talk("the key has characters that no header can carry".into()))?;
    bearer.set_sensitive(true);
    let request = Request::builder().method(method).uri(path).header(HOST, host).header(AUTHORIZATION, bearer);
    let request = request.body(Body::empty()).map_err(|error| Unanswered::Talk(error.to_string()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(talk)?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(talk)?;
    let status = answer.status();
    let body = to_bytes(Body::new(answer.into_body()), ANSWER_MAX).await;
    connection.abort();
    let body = body.map_err(|error| Unanswered::Talk(error.to_string()))?;
    Ok((status, body.to_vec()))
}

/// A configured key that has the scope, else one that may do everything; the one in the state directory where none is
/// configured.
fn key(settings: &Settings, needed: Scope) -> Result<Secret, Failure> {
    let has = |key: &ApiKey, scope| key.scopes.contains(&scope);
    let keys = &settings.config().http.keys;
    let fits = keys.iter().find(|key| has(key, needed));
    if let Some(key) = fits.or_else(|| keys.iter().find(|key| has(key, Scope::Admin))) {
        return Ok(key.secret.clone());
    }
    if !keys.is_empty() {
        let scope = needed.label();
        let what = format!("no key of http.keys has the scope \"{scope}\": add one, then reload the server");
        return Err(Failure::Wrong(what));
    }
    let wrong = |error: StateError| Failure::Wrong(error.to_string());
    let state = State::find(|name| std::env::var_os(name)).map_err(wrong)?;
    state.api_key().map_err(wrong)?.map(|key| key.secret).ok_or_else(|| {
        let path = state.api_key_path();
        let mut what = format!("no key is configured, and none is kept in {}", path.display());
        if Path::new(SERVICE_STATE).exists() && !path.starts_with(SERVICE_STATE) {
            what += &format!("; the service's is found with STATE_DIRECTORY={SERVICE_STATE}");
        }
        Failure::Wrong(what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_on_that_port_is_no_success() {
        let place = Place::Address("127.0.0.1:80".parse().unwrap());
        let Err(Failure::Failed(said)) = understood(StatusCode::OK, b"<html>", &place) else { panic!("no failure") };
        assert_eq!(said, "http://127.0.0.1:80 answered 200: it is no turnserver, or another version");
    }
}
