//! The supervisor: start, reload, stop.
#![forbid(unsafe_code)]

pub mod watch;

use crate::config::{ApiKey, Config, Host, Mistake};
use crate::turn::credential::Secret;
use crate::turn::tally::Transport;
use core::fmt;
use core::net::SocketAddr;
use std::io;
use std::path::PathBuf;

/// What a server is started with.
pub struct Start {
    /// The settings.
    pub config: Config,
    /// What the settings mean depends on this.
    pub host: Host,
    /// Where the settings came from; a reload reads it again.
    pub config_file: Option<PathBuf>,
    /// Every secret, newest first: those written, those of `auth.secret_file`, and the kept one where there is none.
    pub secrets: Vec<Secret>,
    /// Every API key, the kept one included.
    pub keys: Vec<ApiKey>,
    /// Called once when everything is open.
    pub on_ready: Box<dyn FnOnce(&Ready)>,
}

/// What is open.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Where clients are served.
    pub listeners: Vec<(Transport, SocketAddr)>,
    /// Where HTTP is served.
    pub http: Vec<SocketAddr>,
    /// What minted answers list.
    pub uris: Vec<String>,
}

/// Why a server does not run, or no longer.
#[derive(Debug)]
pub enum ServeError {
    /// The settings do not fit this host.
    Mistakes(Vec<Mistake>),
    /// The configuration file cannot be read again.
    ConfigFile(PathBuf, io::Error),
    /// `auth.secret_file` cannot be read.
    SecretFile(PathBuf, io::Error),
    /// The operating system would not give what every server needs.
    System(io::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mistakes(mistakes) => mistakes.iter().try_for_each(|mistake| writeln!(f, "{mistake}")),
            Self::ConfigFile(path, error) | Self::SecretFile(path, error) => write!(f, "{}: {error}", path.display()),
            Self::System(error) => error.fmt(f),
        }
    }
}

/// Runs a server until a signal ends it.
pub fn serve(start: Start) -> Result<(), ServeError> {
    drop(start);
    Err(ServeError::System(io::ErrorKind::Unsupported.into()))
}
