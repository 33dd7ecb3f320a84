//! `turnserver credential`: a time-limited credential, made offline from the secret.
#![forbid(unsafe_code)]

use super::settings::Settings;
use super::state::{SERVICE_STATE, State, StateError};
use super::{Failure, complain, say, unix_now};
use crate::config::{duration_text, parse_duration};
use crate::time::Duration;
use crate::turn::credential::{Minted, Secret, mint};
use crate::turn::opaque::OpaqueString;
use clap::{Args, ValueEnum};
use core::fmt::Write as _;
use serde_json::{Value, json};
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(super) struct CredentialArgs {
    /// Who it is for, as quotas and the log see it
    #[arg(long, value_name = "ID", value_parser = user)]
    user: Option<OpaqueString>,
    /// How long it lives, at most auth.max_ttl
    #[arg(long, default_value = "1h", value_parser = parse_duration)]
    ttl: Duration,
    /// json: for programs; env: lines for a shell or an environment file; uri: turn://user:password@host:port, as
    /// GStreamer's webrtcbin takes it [default: json, or a readable block on a terminal]
    #[arg(long)]
    format: Option<Format>,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Json,
    Env,
    Uri,
}

/// Mints one credential and prints it.
pub(super) fn run(config: Option<PathBuf>, args: &CredentialArgs) -> Result<(), Failure> {
    let settings = Settings::read(config)?;
    let secret = newest_secret(&settings)?;
    let max_ttl = settings.config().auth.max_ttl;
    let ttl = args.ttl.min(max_ttl);
    if ttl < args.ttl {
        complain(&format!("the ttl is {}: auth.max_ttl allows no more", duration_text(ttl)));
    }
    let now = unix_now();
    let separator = settings.policy.auth.separator;
    let minted = mint(&secret, args.user.as_ref(), separator, ttl, now);
    let offer = Offer::new(minted, ttl, settings.config().uris(&settings.policy));
    let format = if args.json { Some(Format::Json) } else { args.format };
    say(&match format {
        Some(Format::Json) => format!("{:#}\n", offer.json()),
        Some(Format::Env) => offer.env(),
        Some(Format::Uri) => offer.lines(),
        None if io::stdout().is_terminal() => offer.block(),
        None => format!("{:#}\n", offer.json()),
    })?;
    Ok(())
}

/// The one to mint with: as configured, or as the first start made it.
pub(super) fn newest_secret(settings: &Settings) -> Result<Secret, Failure> {
    if let Some(newest) = settings.secrets().into_iter().next() {
        return Ok(newest);
    }
    if settings.has_credentials() {
        let what = "there are only users with fixed passwords; configure auth.secrets to mint credentials";
        return Err(Failure::Wrong(what.into()));
    }
    let wrong = |error: StateError| Failure::Wrong(error.to_string());
    let state = State::find(|name| std::env::var_os(name)).map_err(wrong)?;
    state.secret().map_err(wrong)?.ok_or_else(|| {
        let mut what = format!("no secret is configured, and none is kept in {}", state.secret_path().display());
        let service = Path::new(SERVICE_STATE);
        if service.exists() && service.join("secret") != state.secret_path() {
            let _infallible = write!(what, "; the service's is found with STATE_DIRECTORY={SERVICE_STATE}");
        } else {
            what += "; start the server once to make one, or configure auth.secrets";
        }
        Failure::Wrong(what)
    })
}

fn user(text: &str) -> Result<OpaqueString, String> {
    let user = OpaqueString::new(text).map_err(|why| why.to_string())?;
    if user.as_str().len() > USER_MAX { Err(format!("longer than {USER_MAX} bytes")) } else { Ok(user) }
}

const USER_MAX: usize = 480; // with the expiry before it, within the 508 bytes of RFC 8489 §14.3

/// A credential and where to use it.
pub(super) struct Offer {
    pub(super) minted: Minted,
    ttl: Duration,
    uris: Vec<String>,
}

impl Offer {
    pub(super) fn new(minted: Minted, ttl: Duration, uris: Vec<String>) -> Self {
        Self { minted, ttl, uris }
    }

    fn turn_uris(&self) -> impl Iterator<Item = &String> {
        self.uris.iter().filter(|uri| uri.starts_with("turn"))
    }

    /// What `RTCPeerConnection` takes.
    pub(super) fn ice_servers(&self) -> Value {
        let stun: Vec<&String> = self.uris.iter().filter(|uri| uri.starts_with("stun")).collect();
        let turn: Vec<&String> = self.turn_uris().collect();
        let mut servers = Vec::new();
        if !stun.is_empty() {
            servers.push(json!({ "urls": stun }));
        }
        if !turn.is_empty() {
            let Minted { username, password, .. } = &self.minted;
            servers.push(json!({ "urls": turn, "username": username, "credential": **password }));
        }
        servers.into()
    }

    fn json(&self) -> Value {
        json!({
            "username": self.minted.username,
            "credential": *self.minted.password,
            "ttl": self.ttl.as_secs(),
            "expires": self.minted.expires.to_string(),
            "iceServers": self.ice_servers(),
        })
    }

    fn env(&self) -> String {
        let uris = self.turn_uris().map(String::as_str).collect::<Vec<_>>().join(",");
        let lines = [("USERNAME", &self.minted.username), ("PASSWORD", &*self.minted.password), ("URIS", &uris)];
        lines.map(|(name, value)| format!("TURN_{name}={}\n", shell_word(value))).concat()
    }

    fn lines(&self) -> String {
        let Minted { username, password, .. } = &self.minted;
        let login = format!("{}:{}", percent_encoded(username), percent_encoded(password));
        let line = |uri: &String| uri.split_once(':').map(|(scheme, place)| format!("{scheme}://{login}@{place}\n"));
        self.turn_uris().filter_map(line).collect()
    }

    fn block(&self) -> String {
        let Minted { username, password, expires } = &self.minted;
        let password = password.as_str();
        let mut text = format!("username  {username}\npassword  {password}\nexpires   {expires}\n");
        self.uris.iter().for_each(|uri| text += &format!("uri       {uri}\n"));
        text
    }
}

/// A word that a shell, and a file of environment lines where it needs no quotes, reads as it is.
pub(super) fn shell_word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=,@%[]".contains(&byte);
    let is_safe = !text.is_empty() && text.bytes().all(is_plain);
    if is_safe && !text.contains(['[', ']']) { text.into() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Everything but the unreserved characters of RFC 3986 §2.3 as %XX.
pub(super) fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixSeconds;
    use crate::turn::credential::SEPARATOR;

    fn offer(user: &str) -> Offer {
        let uris = ["stun:192.0.2.1:3478", "turn:192.0.2.1:3478?transport=udp"].map(str::to_owned).to_vec();
        let (ttl, now) = (Duration::from_secs(3600), UnixSeconds(1_700_000_000));
        let user = OpaqueString::new(user).expect("a name");
        Offer::new(mint(&Secret::new("north"), Some(&user), SEPARATOR, ttl, now), ttl, uris)
    }

    #[test]
    fn the_password_is_coturn_s() {
        // printf 1700003600:alice | openssl dgst -sha1 -hmac north -binary | base64
        let json = offer("alice").json();
        assert_eq!(json["username"], "1700003600:alice");
        assert_eq!(json["credential"], "wjwSXO2ch1B6VaLTLMy2Avn5O9o=");
        assert_eq!(json["expires"], "2023-11-14T23:13:20Z");
        assert_eq!(json["iceServers"][0]["urls"][0], "stun:192.0.2.1:3478");
        assert_eq!(json["iceServers"][1]["username"], "1700003600:alice");
    }

    #[test]
    fn a_strange_user_breaks_neither_a_shell_nor_a_uri() {
        let strange = offer("o'neil $(id) @x");
        assert!(strange.env().starts_with("TURN_USERNAME='1700003600:o'\\''neil $(id) @x'\n"));
        assert!(strange.lines().starts_with("turn://1700003600%3Ao%27neil%20%24%28id%29%20%40x:"));
        assert!(strange.lines().ends_with("@192.0.2.1:3478?transport=udp\n"));
    }
}
