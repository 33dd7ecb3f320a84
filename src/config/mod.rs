//! The configuration: file, environment and defaults become a [`Config`], or a list of every [`Mistake`] at once.
//!
//! `keys` holds each key's type, default and reason, once; the example file and the reader both come from it. `values`,
//! `oauth`, `redirect` and `fallback` hold the types.
//! `check` compares keys with each other, `policy` and `discovery` turn them into what workers and minted answers need.
//! Never opens a file or a socket, never asks the host: what they say is handed in.
#![forbid(unsafe_code)]

mod check;
mod discovery;
mod fallback;
mod keys;
mod load;
mod mistake;
mod near;
mod oauth;
mod policy;
mod redirect;
mod units;
mod values;

pub use fallback::{WebPlace, WebServer};
pub use keys::{Auth, Config, DataPlane, Http, Limits, Listen, Log, PeerRules, Relay, SECTIONS, Section, Tls};
pub use load::{Loaded, load};
pub use mistake::{Mistake, Source};
pub use oauth::{OAuthKeys, ServerName};
pub use policy::Host;
pub use redirect::Redirects;
pub use units::{Rate, Rhythm, duration_text, parse_duration};
pub use values::{
    ApiKey, Deny, External, HttpListeners, Level, Listeners, LogFormat, Password, Paths, Ports, PublicName, Realm,
    RelayFrom, Scope, Separator, TlsVersion, Uri,
};

/// The text of `turnserver.toml.example`: every key with its default, commented out, and why it is there.
pub fn example() -> String {
    let mut text = String::from(EXAMPLE_HEAD);
    for section in SECTIONS {
        text.push('\n');
        section.about.iter().for_each(|line| text += &format!("#{line}\n"));
        if !section.name.is_empty() {
            text += &format!("[{}]\n", section.name);
        }
        for key in section.keys {
            key.why.iter().for_each(|line| text += &format!("#{line}\n"));
            text += &format!("#{} = {}\n", key.name, key.default);
        }
    }
    text
}

const EXAMPLE_HEAD: &str = "\
# turnserver.toml: every key with its default. A line that starts with # and a letter is a key: take the # off and edit.
# Any key can be set from the environment instead: TURNSERVER__RELAY__PORTS=50000-50999.
# Durations are \"90s\", \"10m\", \"1h30m\", \"1d\"; rates \"4 Mbit/s\", \"500 kB/s\", \"100/s\", \"600/min\".
# `turnserver check` names every mistake and shows the settings in force.
";
