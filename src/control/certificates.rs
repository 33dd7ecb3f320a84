//! The files of `tls.cert` and `tls.key`: read, verified, watched, and put in force when they have changed.
//!
//! A pair that is not right changes nothing: what was in force stays. The files of a pair cannot be replaced at one
//! moment, so what does not fit is looked at again until it does, and told when it stays so. Never keeps a key itself.
#![forbid(unsafe_code)]

use super::watch::Watch;
use crate::config::{Listen, Mistake, Source, Tls, TlsVersion};
use crate::net::dtls::{self, Identity, IdentityError};
use crate::net::tls::{Algorithm, Certificates, CertificatesError, MinVersion, Pair, PairError};
use crate::time::{Duration, Instant, Now, UnixSeconds, seconds};
use core::fmt;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Why the certificates cannot be served.
#[derive(Debug)]
pub enum CertificateError {
    /// A file cannot be read.
    Unreadable {
        /// `tls.cert` or `tls.key`.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Two files are no pair.
    Unusable {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong with which.
        why: PairError,
    },
    /// TLS itself cannot be served.
    Engine(CertificatesError),
    /// No pair can be used for DTLS, and somebody wants DTLS.
    Dtls(IdentityError),
    /// DTLS itself cannot be served.
    DtlsEngine(io::Error),
}

impl CertificateError {
    /// The same as a mistake of the configuration.
    pub fn mistake(&self) -> Mistake {
        let (key, path, message) = self.parts();
        let mistake = Mistake::new(Source::Default, key, message);
        path.iter().fold(mistake, |mistake, path| mistake.given(format!("{:?}", path.display().to_string())))
    }

    /// The key of the configuration, the file and what is wrong with it.
    fn parts(&self) -> (&'static str, Option<&Path>, String) {
        match self {
            Self::Unreadable { key, path, source } => (key, Some(path), format!("cannot be read: {source}")),
            Self::Unusable { cert, key, why: PairError::Mismatch } => {
                let message = format!(
                    "does not belong to the certificate in {:?}; name the key that was made with that certificate",
                    cert.display().to_string()
                );
                ("tls.key", Some(key), message)
            }
            Self::Unusable { key, why, .. } if why.is_about_key() => ("tls.key", Some(key), why.to_string()),
            Self::Unusable { cert, why, .. } => ("tls.cert", Some(cert), why.to_string()),
            Self::Engine(error) => ("tls.cert", None, error.to_string()),
            Self::Dtls(error) => ("listen.dtls", None, error.to_string()),
            Self::DtlsEngine(error) => ("listen.dtls", None, error.to_string()),
        }
    }
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mistake().fmt(f)
    }
}

impl core::error::Error for CertificateError {}

/// Reads every pair; nothing at all when the configuration names none.
pub fn read(tls: &Tls) -> Result<Vec<Pair>, CertificateError> {
    tls.cert.0.iter().zip(&tls.key.0).map(|(cert, key)| read_pair(cert, key)).collect()
}

fn read_pair(cert: &Path, key: &Path) -> Result<Pair, CertificateError> {
    let read = |name, path: &Path| {
        fs::read(path).map_err(|source| CertificateError::Unreadable { key: name, path: path.into(), source })
    };
    let (chain, secret) = (read("tls.cert", cert)?, Zeroizing::new(read("tls.key", key)?));
    let unusable = |why| CertificateError::Unusable { cert: cert.into(), key: key.into(), why };
    Pair::from_pem(&chain, &secret).map_err(unusable)
}

/// The pair that DTLS is served with: the first whose key its engine has.
pub fn dtls_identity(pairs: &[Pair]) -> Result<Identity, IdentityError> {
    let usable = pairs.iter().find(|pair| pair.algorithm() == Algorithm::Ecdsa);
    let pair = usable.or_else(|| pairs.first()).ok_or(IdentityError::NoCertificate)?;
    Identity::new(pair.chain().iter().map(|der| der.to_vec()).collect(), pair.key().secret_der())
}

/// The version as TLS itself calls it.
fn min_version(tls: &Tls) -> MinVersion {
    match tls.min_version {
        TlsVersion::V12 => MinVersion::Tls12,
        TlsVersion::V13 => MinVersion::Tls13,
    }
}

/// How near the end of a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is over: clients refuse it.
    Past,
    /// In less than two weeks.
    Near,
}

impl Ending {
    /// `None` when there is time.
    pub fn of(pair: &Pair, now: UnixSeconds) -> Option<Self> {
        match pair.not_after().saturating_sub(now.0) {
            0 => Some(Self::Past),
            left => (left <= NEAR.as_secs()).then_some(Self::Near),
        }
    }
}

const NEAR: Duration = seconds(14 * 86_400); // certbot renews 30 days before the end; 14 days later something is wrong
const REMINDER: Duration = seconds(86_400);

/// When each certificate ends, by its name: of several with one name, the first that does.
pub fn expiries(certificates: &Certificates) -> BTreeMap<String, u64> {
    let mut ends = BTreeMap::new();
    for (i, pair) in certificates.pairs().iter().enumerate() {
        let name = pair.name().map_or_else(|| format!("certificate {}", i + 1), str::to_owned);
        let end = ends.entry(name).or_insert_with(|| pair.not_after());
        *end = pair.not_after().min(*end);
    }
    ends
}

/// The certificates of a server that runs.
#[derive(Debug)]
pub(super) struct Kept {
    certificates: Arc<Certificates>,
    /// What DTLS is served with, where it is.
    dtls: Option<Arc<dtls::Shared>>,
    files: Vec<Watch>,
    trouble: Option<Trouble>,
    /// When the ends of certificates are looked at next.
    reminder: Option<Instant>,
}

/// Pairs as a reload found them.
#[derive(Debug)]
pub(super) struct Fresh {
    files: Vec<Watch>,
    pairs: Vec<Pair>,
}

impl Fresh {
    pub(super) fn read(tls: &Tls) -> Result<Self, CertificateError> {
        // The files are stamped first: what changes while they are read is seen at the next glance.
        let files = watches(tls);
        Ok(Self { files, pairs: read(tls)? })
    }
}

/// What is wrong with the files since they have changed.
#[derive(Debug)]
struct Trouble {
    what: String,
    is_told: bool,
}

impl Kept {
    /// Reads the files for a start; `None` when the configuration names none.
    /// DTLS that nobody has asked for by name is left out where no pair can serve it.
    pub(super) fn open(tls: &Tls, listen: &mut Listen) -> Result<Option<Self>, CertificateError> {
        if tls.cert.0.is_empty() {
            return Ok(None);
        }
        let files = watches(tls);
        let pairs = read(tls)?;
        let dtls = match dtls_identity(&pairs) {
            _ if listen.dtls.addresses.is_empty() && !listen.detect => None,
            Ok(identity) => {
                if identity.unsent() > 0 {
                    tracing::info!(
                        certificates = identity.unsent(),
                        "DTLS sends the server's own certificate alone: clients that verify it must know its issuer"
                    );
                }
                Some(Arc::new(dtls::Shared::new(identity).map_err(CertificateError::DtlsEngine)?))
            }
            Err(error) if listen.dtls.is_default || listen.dtls.addresses.is_empty() => {
                tracing::warn!(%error, "DTLS is off");
                listen.dtls.addresses.clear();
                None
            }
            Err(error) => return Err(CertificateError::Dtls(error)),
        };
        let certificates = Certificates::new(pairs, min_version(tls)).map_err(CertificateError::Engine)?;
        Ok(Some(Self { certificates: Arc::new(certificates), dtls, files, trouble: None, reminder: None }))
    }

    /// What the workers make DTLS handshakes with.
    pub(super) fn dtls(&self) -> Option<&Arc<dtls::Shared>> {
        self.dtls.as_ref()
    }

    /// What the workers make handshakes with.
    pub(super) fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    /// Looks at the files, and takes over what is new in them.
    pub(super) fn glance(&mut self, tls: &Tls, now: Now) {
        // Every file is looked at, also when one has changed.
        let changed = self.files.iter_mut().filter_map(|file| file.has_changed().then_some(())).count();
        if (changed > 0 || self.trouble.is_some())
            && let Err(error) = read(tls).and_then(|pairs| self.put_in_force(tls, pairs))
        {
            self.complain(error.to_string());
        }
        self.remind(now);
    }

    /// Puts in force what a reload has read, perhaps from other files.
    pub(super) fn take_over(&mut self, tls: &Tls, fresh: Fresh) -> Result<(), CertificateError> {
        self.files = fresh.files;
        self.put_in_force(tls, fresh.pairs)
    }

    fn put_in_force(&mut self, tls: &Tls, pairs: Vec<Pair>) -> Result<(), CertificateError> {
        let identity = self.dtls.as_ref().map(|shared| (shared, dtls_identity(&pairs)));
        self.certificates.replace(pairs, min_version(tls)).map_err(CertificateError::Engine)?;
        match identity {
            Some((shared, Ok(identity))) => shared.set_identity(identity),
            Some((_, Err(error))) => {
                tracing::error!(%error, "DTLS goes on with the certificate before this one");
            }
            None => {}
        }
        self.trouble = None;
        self.reminder = None;
        for (name, end) in expiries(&self.certificates) {
            tracing::info!(name, expires = %UnixSeconds(end), "certificates reloaded");
        }
        Ok(())
    }

    /// Tells what is wrong once, and only when it has stayed from one look to the next: between the two files of a
    /// renewal nothing is wrong.
    fn complain(&mut self, what: String) {
        let known = self.trouble.take().filter(|trouble| trouble.what == what);
        let is_told = known.is_some();
        if known.is_some_and(|trouble| !trouble.is_told) {
            tracing::error!(mistake = what, "certificates not reloaded; the old ones stay in force");
        }
        self.trouble = Some(Trouble { what, is_told });
    }

    fn remind(&mut self, now: Now) {
        if self.reminder.is_some_and(|due| due > now.mono) {
            return;
        }
        self.reminder = Some(now.mono + REMINDER);
        for pair in self.certificates.pairs().iter() {
            let name = pair.name().unwrap_or_default();
            let expires = UnixSeconds(pair.not_after());
            match Ending::of(pair, now.unix) {
                Some(Ending::Past) => tracing::warn!(name, %expires, "a certificate has ended"),
                Some(Ending::Near) => tracing::warn!(name, %expires, "a certificate ends soon"),
                None => {}
            }
        }
    }
}

fn watches(tls: &Tls) -> Vec<Watch> {
    tls.cert.0.iter().chain(&tls.key.0).map(|path| Watch::on(Some(path.clone()))).collect()
}
