//! `turnserver check`: the settings in force, where each comes from, and what is wrong.
#![forbid(unsafe_code)]

use super::settings::Settings;
use super::{Failure, complain, say};
use crate::config::{Loaded, Mistake};
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

#[derive(Args)]
pub(super) struct CheckArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Reads everything a server would read, and opens nothing.
pub(super) fn run(config: Option<PathBuf>, args: &CheckArgs) -> Result<(), Failure> {
    let read = Settings::read(config).and_then(|mut settings| {
        let endings = settings.endings(&settings.certificates()?);
        settings.loaded.warnings.extend(endings);
        Ok(settings)
    });
    let settings = match read {
        Ok(settings) => settings,
        Err(Failure::Mistakes(mistakes)) if args.json => {
            say(&format!("{:#}\n", json!({ "ok": false, "mistakes": texts(&mistakes) })))?;
            return Err(Failure::Mistakes(mistakes));
        }
        Err(failure) => return Err(failure),
    };
    settings.loaded.warnings.iter().for_each(|warning| complain(&format!("warning: {warning}")));
    say(&if args.json { as_json(&settings) } else { as_toml(&settings) })?;
    Ok(())
}

fn as_toml(settings: &Settings) -> String {
    let mut text = match &settings.file {
        Some(file) => format!("# {}\n", file.display()),
        None => "# no configuration file\n".into(),
    };
    text += &format!("# realm: {}\n", settings.policy.realm);
    for relay in &settings.policy.relays {
        text += &match relay.local == relay.external {
            true => format!("# relay address: {}\n", relay.local),
            false => format!("# relay address: {}, known to clients as {}\n", relay.local, relay.external),
        };
    }
    for uri in settings.config().uris(&settings.policy) {
        text += &format!("# uri: {uri}\n");
    }
    let mut section = "";
    for (path, value) in settings.config().effective() {
        let (of, name) = path.split_once('.').unwrap_or(("", path));
        if of != section {
            text += &format!("\n[{of}]\n");
            section = of;
        }
        let origin = settings.loaded.origins.get(path).map(|origin| format!("  # {}", origin.source));
        text += &format!("{name} = {value}{}\n", origin.unwrap_or_default());
    }
    text
}

fn as_json(settings: &Settings) -> String {
    let relay = |relay: &crate::turn::peers::RelayAddress| json!({ "local": relay.local, "external": relay.external });
    let answer = json!({
        "ok": true,
        "file": settings.file.as_ref().map(|file| file.display().to_string()),
        "settings": nested(&settings.loaded),
        "origins": origins(&settings.loaded),
        "warnings": texts(&settings.loaded.warnings),
        "realm": settings.policy.realm,
        "relays": settings.policy.relays.iter().map(relay).collect::<Vec<_>>(),
        "uris": settings.config().uris(&settings.policy),
    });
    format!("{answer:#}\n")
}

fn nested(loaded: &Loaded) -> Value {
    let mut root = Map::new();
    for (path, value) in loaded.config.effective() {
        let value = serde_json::to_value(value).unwrap_or_default();
        match path.split_once('.') {
            None => drop(root.insert(path.into(), value)),
            Some((section, name)) => {
                let section = root.entry(section).or_insert_with(|| json!({}));
                section[name] = value;
            }
        }
    }
    Value::Object(root)
}

fn origins(loaded: &Loaded) -> Value {
    loaded
        .origins
        .iter()
        .map(|(path, origin)| ((*path).to_owned(), origin.source.to_string().into()))
        .collect::<Map<_, _>>()
        .into()
}

fn texts(mistakes: &[Mistake]) -> Vec<String> {
    mistakes.iter().map(Mistake::to_string).collect()
}
