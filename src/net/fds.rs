//! What the service manager is told: ready, reloading, stopping, alive (sd_notify).
//!
//! One datagram a word, to the socket that `$NOTIFY_SOCKET` names, abstract names included. Without that variable every
//! word is a silent no-op, and a word that cannot be delivered is lost: the server never stops because nobody listens.
//! Never removes the variables: a child process is not started here.
#![forbid(unsafe_code)]

use crate::time::{Duration, Instant};
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// A word to the service manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Every listener is open.
    Ready,
    /// The configuration is being read again, since this moment of CLOCK_MONOTONIC; `Ready` ends it.
    Reloading(Instant),
    /// The end has begun.
    Stopping,
    /// Every part that must turn over still does.
    Alive,
}

impl Word {
    fn text(self) -> String {
        match self {
            Self::Ready => "READY=1".into(),
            Self::Reloading(since) => format!("RELOADING=1\nMONOTONIC_USEC={}", since.0 / 1000),
            Self::Stopping => "STOPPING=1".into(),
            Self::Alive => "WATCHDOG=1".into(),
        }
    }
}

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that the environment names.
    pub fn from_env() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|name| open(&name).ok());
        let of_another = std::env::var("WATCHDOG_PID").is_ok_and(|pid| pid != std::process::id().to_string());
        let watchdog = std::env::var("WATCHDOG_USEC").ok().filter(|_| !of_another);
        let watchdog = watchdog.and_then(|micros| micros.parse().ok()).filter(|micros| *micros > 0);
        Self { socket, watchdog: watchdog.map(Duration::from_micros) }
    }

    /// The one that listens on this socket; a leading `@` means an abstract name.
    pub fn at(name: &OsStr) -> io::Result<Self> {
        Ok(Self { socket: Some(open(name)?), watchdog: None })
    }

    /// Says it. What cannot be delivered is lost.
    pub fn say(&self, word: Word) {
        if let Some((socket, address)) = &self.socket {
            let _lost = socket.send_to_addr(word.text().as_bytes(), address);
        }
    }

    /// How often [`Word::Alive`] is due: half of what the service manager tolerates.
    pub fn heartbeat(&self) -> Option<Duration> {
        self.socket.as_ref().and(self.watchdog).map(|limit| limit / 2)
    }
}

fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_with_an_abstract_name_hears_every_word() {
        let name = format!("turnserver-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let service = ServiceManager::at(OsStr::new(&format!("@{name}"))).unwrap();
        let hears = |word| {
            service.say(word);
            let mut buffer = [0; 256];
            let length = manager.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        assert_eq!(hears(Word::Ready), "READY=1");
        assert_eq!(hears(Word::Reloading(Instant(7_000_999))), "RELOADING=1\nMONOTONIC_USEC=7000");
        assert_eq!(hears(Word::Stopping), "STOPPING=1");
        assert_eq!(hears(Word::Alive), "WATCHDOG=1");
    }

    #[test]
    fn without_a_service_manager_every_word_is_a_no_op() {
        ServiceManager::default().say(Word::Ready);
        assert_eq!(ServiceManager::default().heartbeat(), None);
    }
}
