//! The web server that shares our TLS ports: where it is, and what it speaks.
#![forbid(unsafe_code)]

use super::load::Word;
use super::units::Fault;
use super::values::{UNIX, socket_path};
use core::fmt;
use core::net::SocketAddr;
use std::path::PathBuf;

/// A web server of the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebServer {
    /// Where it listens.
    pub place: WebPlace,
    /// Whether it speaks TLS itself; `None`: nobody said so, it is to be asked.
    pub tls: Option<bool>,
}

/// Where a web server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebPlace {
    /// Over TCP.
    Address(SocketAddr),
    /// The file of a unix-domain socket.
    File(PathBuf),
}

impl fmt::Display for WebPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::File(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl Word for WebServer {
    fn parse(text: &str) -> Result<Self, Fault> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return Ok(Self { place: WebPlace::File(socket_path(path)?), tls: None });
        }
        let (tls, rest) = match (text.strip_prefix(HTTPS), text.strip_prefix(HTTP)) {
            (Some(rest), _) => (Some(true), rest),
            (None, Some(rest)) => (Some(false), rest),
            (None, None) => (None, text),
        };
        if tls.is_some() && rest.contains('/') {
            let meant = text.split_inclusive('/').take(3).collect::<String>();
            return Err(Fault::new("a web server has no path here").meant(meant.trim_end_matches('/')));
        }
        let address = <SocketAddr as Word>::parse(rest)?;
        if address.ip().is_unspecified() || address.port() == 0 {
            return Err(Fault::new("nobody can be reached there").hint("write \"127.0.0.1:8080\""));
        }
        Ok(Self { place: WebPlace::Address(address), tls })
    }

    fn word(&self) -> String {
        let scheme = match self.tls {
            Some(true) => HTTPS,
            Some(false) => HTTP,
            None => "",
        };
        format!("{scheme}{}", self.place)
    }
}

const HTTPS: &str = "https://";
const HTTP: &str = "http://";
