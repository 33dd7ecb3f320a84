//! Certificates made for one test: an authority of its own, and what it vouches for.

#![allow(dead_code, reason = "every test target uses its own part of this")]

use crate::temp::TempDir;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use std::path::{Path, PathBuf};

/// An authority whose certificate is in `ca.pem`.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    home: TempDir,
}

/// Where a pair lies.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no name is wrong");
        params.distinguished_name.push(DnType::CommonName, "an authority for one test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let home = TempDir::new("authority");
        std::fs::write(home.path().join("ca.pem"), &pem).expect("a file is written");
        Self { issuer: Issuer::new(params, key), pem, home }
    }

    /// The authority's own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.home.path().join("ca.pem")
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// The text of a chain and a key for these names; it ends with `year`.
    pub(crate) fn vouch(&self, names: &[&str], year: i32) -> (String, String) {
        let all: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(all).expect("the names are right");
        params.distinguished_name.push(DnType::CommonName, names[0]);
        params.not_after = date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        (leaf + &self.pem, key.serialize_pem())
    }

    /// The same in files named after `name`.
    pub(crate) fn pair(&self, name: &str, names: &[&str]) -> Files {
        let files = Files::named(self.home.path(), name);
        let (cert, key) = self.vouch(names, FAR);
        files.write(&cert, &key);
        files
    }
}

/// A year that is not over yet.
pub(crate) const FAR: i32 = 2095;

impl Files {
    pub(crate) fn named(folder: &Path, name: &str) -> Self {
        Self { cert: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) }
    }

    pub(crate) fn write(&self, cert: &str, key: &str) {
        replace(&self.cert, cert);
        replace(&self.key, key);
    }

    /// Lines of `[tls]`.
    pub(crate) fn lines(&self) -> String {
        format!("cert = {:?}\nkey = {:?}\n", self.cert, self.key)
    }
}

/// Puts a file in its place, whole or not at all.
pub(crate) fn replace(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, text).expect("a file is written");
    std::fs::rename(&draft, path).expect("a file is renamed");
}
