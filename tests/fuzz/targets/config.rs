//! Any text as a configuration: it is read, or every mistake has a place in it.

use turnserver::config::{self, Host, Source};
use turnserver::turn::credential::Secret;

const NAME: &str = "turnserver.toml";

/// The text up to the first zero byte is the file; each part behind is a variable, `NAME=value`.
pub(crate) fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split('\0');
    let file = parts.next().unwrap_or_default();
    let environment: Vec<(String, String)> = parts
        .filter_map(|part| part.split_once('='))
        .map(|(name, value)| (format!("TURNSERVER__{name}"), value.to_string()))
        .collect();
    match config::load(Some((NAME, file)), environment.clone()) {
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "refused without a mistake");
            mistakes.iter().for_each(|mistake| has_a_place(mistake, file, &environment));
            assert!(mistakes.is_sorted(), "mistakes stand in the order of the file");
        }
        Ok(loaded) => {
            loaded.warnings.iter().for_each(|warning| has_a_place(warning, file, &environment));
            let shown = loaded.config.effective();
            assert!(!shown.is_empty() && shown.iter().all(|(_, value)| !value.to_string().is_empty()));
            for host in hosts() {
                match loaded.config.policy(&host, Secret::new("a key for nonces"), &[]) {
                    Ok(policy) => drop(loaded.config.uris(&policy)),
                    Err(mistakes) => {
                        mistakes
                            .into_iter()
                            .for_each(|mistake| has_a_place(&loaded.locate(mistake), file, &environment));
                    }
                }
            }
        }
    }
}

fn has_a_place(mistake: &config::Mistake, file: &str, environment: &[(String, String)]) {
    assert!(!mistake.message.is_empty() && mistake.to_string().contains(&mistake.message));
    match &mistake.source {
        Source::File { name, line } => {
            let lines = file.split('\n').count();
            assert!(name == NAME && (1..=lines).contains(line), "line {line} of {lines}: {mistake}");
        }
        Source::Environment(name) => assert!(environment.iter().any(|(known, _)| known == name), "{mistake}"),
        Source::Default => {}
    }
}

/// A host that has all, and one that has nothing.
fn hosts() -> [Host; 2] {
    let (v4, v6) = ([192, 0, 2, 1].into(), "2001:db8::1".parse().expect("an address"));
    let name = || "host.example.org".to_string();
    [
        Host { name: name(), interfaces: vec![v4, v6], default_v4: Some(v4), default_v6: Some(v6) },
        Host { name: name(), interfaces: Vec::new(), default_v4: None, default_v6: None },
    ]
}
