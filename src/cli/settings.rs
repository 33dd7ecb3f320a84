//! The configuration of this run: which file, which environment, what the host and the secret file add.
#![forbid(unsafe_code)]

use super::{Failure, host, unix_now};
use crate::config::{self, Config, Host, Loaded, Mistake, RelayFrom, Source};
use crate::control::certificates::{self, CertificateError, Ending};
use crate::control::watch;
use crate::net::tls::Pair;
use crate::time::UnixSeconds;
use crate::turn::credential::Secret;
use crate::turn::policy::Policy;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use zeroize::{Zeroize as _, Zeroizing};

/// All that a verb needs to know.
pub(super) struct Settings {
    pub(super) loaded: Loaded,
    pub(super) file: Option<PathBuf>,
    pub(super) host: Host,
    /// What the settings mean here, with the written secrets and a nonce key of nobody's.
    pub(super) policy: Policy,
}

impl Settings {
    /// Reads everything, or names every mistake.
    pub(super) fn read(flag: Option<PathBuf>) -> Result<Self, Failure> {
        let file = flag.or_else(configured).or_else(|| Some(PathBuf::from(USUAL)).filter(|path| path.exists()));
        let text = file.as_deref().map(read_file).transpose()?;
        let name = file.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        let (environment, mut mistakes) = environment();
        let loaded = config::load(text.as_ref().map(|text| (name.as_str(), text.as_str())), environment);
        let mut loaded = match loaded {
            Ok(loaded) => loaded,
            Err(more) => {
                mistakes.extend(more);
                return Err(mistakes.into());
            }
        };
        let host = host::discover();
        let file_secrets = secret_file(&mut loaded).unwrap_or_else(|more| {
            mistakes.extend(more);
            Vec::new()
        });
        let policy = loaded.config.policy(&host, Secret::new(""), &file_secrets);
        match policy {
            Ok(policy) if mistakes.is_empty() => {
                let absent = absent_addresses(&loaded, &host);
                loaded.warnings.extend(absent);
                Ok(Self { loaded, file, host, policy })
            }
            Ok(_) => Err(mistakes.into()),
            Err(more) => {
                mistakes.extend(more.into_iter().map(|mistake| loaded.locate(mistake)));
                Err(mistakes.into())
            }
        }
    }

    /// Reads the certificates and their keys: what a server needs, and nobody who mints.
    pub(super) fn certificates(&self) -> Result<Vec<Pair>, Failure> {
        let tell = |error: CertificateError| Failure::from(vec![self.loaded.locate(error.mistake())]);
        let pairs = certificates::read(&self.loaded.config.tls).map_err(tell)?;
        let dtls = &self.loaded.config.listen.dtls;
        if !dtls.is_default && !dtls.addresses.is_empty() {
            certificates::dtls_identity(&pairs).map_err(|error| tell(CertificateError::Dtls(error)))?;
        }
        Ok(pairs)
    }

    /// What is to be said of the ends of these certificates.
    pub(super) fn endings(&self, pairs: &[Pair]) -> Vec<Mistake> {
        let ending = |(path, pair): (&PathBuf, &Pair)| {
            let end = UnixSeconds(pair.not_after());
            let message = match Ending::of(pair, unix_now())? {
                Ending::Past => format!("the certificate has ended at {end}, and clients refuse it"),
                Ending::Near => format!("the certificate ends soon, at {end}"),
            };
            let warning = Mistake::new(Source::Default, "tls.cert", message).hint("renew it");
            Some(self.loaded.locate(warning.given(format!("{:?}", path.display().to_string()))))
        };
        self.loaded.config.tls.cert.0.iter().zip(pairs).filter_map(ending).collect()
    }

    pub(super) fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// Those that the operator wrote, newest first.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        self.policy.auth.secrets.clone()
    }

    /// Whether anybody can log in without a secret of our own making.
    pub(super) fn has_credentials(&self) -> bool {
        !self.policy.auth.secrets.is_empty() || !self.policy.auth.users.is_empty()
    }
}

const USUAL: &str = "/etc/turnserver/turnserver.toml";

fn configured() -> Option<PathBuf> {
    std::env::var_os("TURNSERVER_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The text, which may hold any secret.
fn read_file(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let wrong = |what: String| Failure::from(vec![Mistake::new(Source::Default, "", what)]);
    let bytes = std::fs::read(path).map_err(|error| wrong(format!("{}: cannot be read: {error}", path.display())))?;
    String::from_utf8(bytes).map(Zeroizing::new).map_err(|error| {
        error.into_bytes().zeroize();
        wrong(format!("{}: not UTF-8 text", path.display()))
    })
}

/// The environment, and what of ours in it is no text.
fn environment() -> (Vec<(String, String)>, Vec<Mistake>) {
    let mut mistakes = Vec::new();
    let text = |(name, value): (OsString, OsString)| {
        let name = name.into_string().ok()?;
        let is_ours = name.to_uppercase().starts_with("TURNSERVER__");
        match value.into_string() {
            Ok(value) => is_ours.then_some((name, value)),
            Err(_) if is_ours => {
                mistakes.push(Mistake::new(Source::Environment(name), "", "not UTF-8 text"));
                None
            }
            Err(_) => None,
        }
    };
    let environment = std::env::vars_os().filter_map(text).collect();
    (environment, mistakes)
}

fn secret_file(loaded: &mut Loaded) -> Result<Vec<Secret>, Vec<Mistake>> {
    let Some(path) = loaded.config.auth.secret_file.clone() else { return Ok(Vec::new()) };
    let given = format!("{:?}", path.display().to_string());
    let about = |message: String| Mistake::new(Source::Default, "auth.secret_file", message).given(&given);
    let secrets =
        watch::secrets(&path).map_err(|error| vec![loaded.locate(about(format!("cannot be read: {error}")))])?;
    if secrets.is_empty() {
        return Err(vec![
            loaded.locate(about("holds no secret".into()).hint("write one secret a line, the newest first")),
        ]);
    }
    if std::fs::metadata(&path).is_ok_and(|file| file.mode() & 0o007 != 0) {
        let readable = about("everybody on this host may read it".into());
        let readable = readable.hint(format!("run: chmod o= {}", path.display()));
        loaded.warnings.push(loaded.locate(readable));
    }
    Ok(secrets)
}

/// Addresses that this host lacks now. It may get them later, so they are no mistakes; with `listen.freebind` it is
/// expected to.
fn absent_addresses(loaded: &Loaded, host: &Host) -> Vec<Mistake> {
    let config = &loaded.config;
    if config.listen.freebind {
        return Vec::new();
    }
    let relays = config.relay.addresses.iter().filter_map(|from| match from {
        RelayFrom::Address(ip) => Some(("relay.addresses", *ip)),
        RelayFrom::Auto => None,
    });
    let lists = [
        ("listen.udp", &config.listen.udp.addresses),
        ("listen.tcp", &config.listen.tcp.addresses),
        ("listen.tls", &config.listen.tls.addresses),
        ("listen.dtls", &config.listen.dtls.addresses),
        ("http.listen", &config.http.listen.addresses),
    ];
    let listeners = lists.into_iter().flat_map(|(key, list)| list.iter().map(move |at| (key, at.ip())));
    let is_absent = |ip: core::net::IpAddr| !ip.is_unspecified() && !ip.is_loopback() && !host.interfaces.contains(&ip);
    let absent = relays.chain(listeners).filter(|(_, ip)| is_absent(*ip));
    absent
        .map(|(key, ip)| loaded.locate(Mistake::new(Source::Default, key, format!("this host has no address {ip}"))))
        .collect()
}
