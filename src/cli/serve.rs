//! `turnserver serve`: configuration and state in, a server up, and what to paste where.
#![forbid(unsafe_code)]

use super::credential::{Offer, percent_encoded, shell_word};
use super::settings::Settings;
use super::state::{State, StateError};
use super::{Failure, host, say, unix_now};
use crate::config::{ApiKey, Scope};
use crate::control::{self, Ready, ServeError, Start};
use crate::log;
use crate::time::{Duration, UnixSeconds, minutes};
use crate::turn::credential::{SEPARATOR, Secret, mint};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

/// Runs a server until a signal ends it.
pub(super) fn run(config: Option<PathBuf>) -> Result<(), Failure> {
    let settings = Settings::read(config)?;
    // The supervisor reads them again; from here a mistake has its line.
    drop(settings.certificates()?);
    let kept = Kept::beside(&settings)?;
    let secrets =
        if settings.has_credentials() { settings.secrets() } else { kept.secret.clone().into_iter().collect() };
    let keys = match &kept.key {
        Some(key) => vec![key.clone()],
        None => settings.config().http.keys.clone(),
    };
    let _log = log::start(&settings.config().log);
    for warning in &settings.loaded.warnings {
        tracing::warn!(%warning, "configuration");
    }
    let greet = Greet {
        secret: secrets.first().cloned(),
        key: key_for_page(&keys),
        kept,
        max_ttl: settings.config().auth.max_ttl,
    };
    let start = Start {
        config: settings.loaded.config,
        host: settings.host,
        interfaces: host::interfaces,
        config_file: settings.file,
        secrets,
        keys,
        on_ready: Box::new(move |ready| greet.after(ready)),
    };
    control::serve(start).map_err(|error| match error {
        ServeError::Mistakes(mistakes) => Failure::Mistakes(mistakes),
        ServeError::ConfigFile(..) | ServeError::SecretFile(..) | ServeError::Certificate(_) => {
            Failure::Wrong(error.to_string())
        }
        ServeError::Http(..)
        | ServeError::HttpSocket(..)
        | ServeError::Worker(_)
        | ServeError::System(_)
        | ServeError::WorkerFailed
        | ServeError::Hurried => Failure::Failed(error.to_string()),
    })
}

/// What the state directory adds where nothing is configured.
struct Kept {
    secret: Option<Secret>,
    key: Option<ApiKey>,
    /// Where they are.
    files: Vec<(&'static str, PathBuf)>,
}

impl Kept {
    fn beside(settings: &Settings) -> Result<Self, Failure> {
        let http = &settings.config().http;
        let needs_secret = !settings.has_credentials();
        let serves = !http.listen.addresses.is_empty() || !http.listen.sockets.is_empty();
        let needs_key = http.keys.is_empty() && serves;
        let mut kept = Self { secret: None, key: None, files: Vec::new() };
        if !needs_secret && !needs_key {
            return Ok(kept);
        }
        let wrong = |error: StateError| Failure::Wrong(error.to_string());
        let state = State::find(|name| std::env::var_os(name)).map_err(wrong)?;
        if needs_secret {
            kept.secret = Some(state.secret_or_new().map_err(wrong)?);
            kept.files.push(("secret", state.secret_path()));
        }
        if needs_key {
            kept.key = Some(state.api_key_or_new().map_err(wrong)?);
            kept.files.push(("API key", state.api_key_path()));
        }
        Ok(kept)
    }
}

/// The key that can open the test page: one that may mint.
fn key_for_page(keys: &[ApiKey]) -> Option<ApiKey> {
    keys.iter().find(|key| key.scopes.iter().any(|scope| matches!(scope, Scope::Mint | Scope::Admin))).cloned()
}

/// What the greeting needs that is known before the server is up.
struct Greet {
    secret: Option<Secret>,
    key: Option<ApiKey>,
    kept: Kept,
    max_ttl: Duration,
}

impl Greet {
    fn after(self, ready: &Ready) {
        let text = if io::stdout().is_terminal() {
            greeting(&Greeting {
                uris: &ready.uris,
                http: ready.http.first().copied(),
                socket: ready.http_sockets.first().map(PathBuf::as_path),
                secret: self.secret.as_ref(),
                key: self.key.as_ref().map(|key| &key.secret),
                ttl: EXAMPLE_TTL.min(self.max_ttl),
                now: unix_now(),
                files: &self.kept.files,
            })
        } else {
            files(&self.kept.files)
        };
        if let Err(error) = say(&text) {
            tracing::warn!(%error, "standard output");
        }
    }
}

const EXAMPLE_TTL: Duration = minutes(60);

/// What a greeting tells.
#[derive(Clone, Copy, Debug)]
pub struct Greeting<'a> {
    /// Where clients come.
    pub uris: &'a [String],
    /// Where the HTTP API is.
    pub http: Option<SocketAddr>,
    /// The file of its socket, for whom it has no address.
    pub socket: Option<&'a Path>,
    /// What the example credential is made with.
    pub secret: Option<&'a Secret>,
    /// The API key to show.
    pub key: Option<&'a Secret>,
    /// How long the example credential lives.
    pub ttl: Duration,
    /// When it begins.
    pub now: UnixSeconds,
    /// Which secrets are kept where.
    pub files: &'a [(&'static str, PathBuf)],
}

/// What to paste where, for whoever started the server at a terminal. Holds secrets: never for the log.
pub fn greeting(of: &Greeting<'_>) -> String {
    let mut text = String::from("turnserver is up.\n");
    if let Some(secret) = of.secret {
        // The name without a user needs no separator.
        let offer = Offer::new(mint(secret, None, SEPARATOR, of.ttl, of.now), of.ttl, of.uris.to_vec());
        text += &format!("\nFor RTCPeerConnection, until {}:\n", offer.minted.expires);
        text += &format!("  {{\"iceServers\":{}}}\n", offer.ice_servers());
    }
    if let (Some(http), Some(key)) = (of.http.map(reachable), of.key) {
        let shown = String::from_utf8_lossy(key.expose());
        text += &minting(key, "", &format!("http://{http}"));
        text += &format!("\nTest page:\n  http://{http}/#key={}\n", percent_encoded(&shown));
    } else if let (Some(socket), Some(key)) = (of.socket, of.key) {
        let through = format!("--unix-socket {} ", shell_word(&socket.display().to_string()));
        text += &minting(key, &through, "http://localhost");
    }
    if !of.files.is_empty() {
        text += &format!("\n{}", files(of.files));
    }
    text
}

fn minting(key: &Secret, through: &str, root: &str) -> String {
    let header = shell_word(&format!("Authorization: Bearer {}", String::from_utf8_lossy(key.expose())));
    let body = "'{\"user\":\"alice\"}'";
    format!("\nYour backend mints more:\n  curl {through}-X POST -H {header} -d {body} {root}/v1/ice-servers\n")
}

/// Where the kept secrets are; nothing secret itself.
fn files(files: &[(&'static str, PathBuf)]) -> String {
    let lines = files.iter().map(|(what, path)| format!("{what} kept in {}\n", path.display()));
    lines.collect()
}

/// A wildcard as this host itself reaches it.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::seconds;

    fn greets(http: &str, key: &str) -> String {
        let uris = ["stun:192.0.2.1:3478", "turn:192.0.2.1:3478?transport=udp"].map(str::to_owned);
        greeting(&Greeting {
            uris: &uris,
            http: http.parse().ok(),
            socket: Some(Path::new("/run/api.sock")),
            secret: Some(&Secret::new("north")),
            key: Some(&Secret::new(key)),
            ttl: seconds(3600),
            now: UnixSeconds(1_700_000_000),
            files: &[("secret", "/state/secret".into())],
        })
    }

    #[test]
    fn the_greeting_can_be_pasted_as_it_stands() {
        let text = greets("0.0.0.0:3480", "k-_1");
        assert!(text.contains("until 2023-11-14T23:13:20Z"), "{text}");
        let json = text.lines().find(|line| line.contains("iceServers")).unwrap();
        let json: serde_json::Value = serde_json::from_str(json.trim()).unwrap();
        assert_eq!(json["iceServers"][1]["username"], "1700003600");
        assert!(text.contains("curl -X POST -H 'Authorization: Bearer k-_1' -d '{\"user\":\"alice\"}' http://127.0.0.1:3480/v1/ice-servers\n"));
        assert!(text.contains("http://127.0.0.1:3480/#key=k-_1\n"));
        assert!(text.ends_with("secret kept in /state/secret\n"));
    }

    #[test]
    fn a_key_with_quotes_in_it_cannot_leave_its_word() {
        let text = greets("[::]:3480", "a' b#");
        assert!(text.contains("-H 'Authorization: Bearer a'\\'' b#'"), "{text}");
        assert!(text.contains("http://[::1]:3480/#key=a%27%20b%23\n"));
    }

    #[test]
    fn without_an_address_the_socket_is_what_can_be_pasted() {
        let text = greets("no address", "k-_1");
        assert!(text.contains("curl --unix-socket /run/api.sock -X POST -H 'Authorization: Bearer k-_1' -d '{\"user\":\"alice\"}' http://localhost/v1/ice-servers\n"));
        assert!(!text.contains("Test page"), "browsers open no sockets");
    }

    #[test]
    fn what_is_printed_into_a_pipe_names_files_and_no_secret() {
        assert_eq!(files(&[("API key", "/state/api-key".into())]), "API key kept in /state/api-key\n");
    }
}
