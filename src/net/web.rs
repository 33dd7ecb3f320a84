//! The web server that shares our TLS ports: where it is, what it speaks, and connections to it.
//!
//! What it speaks the operator has said, or it is asked; workers read the answer as one atomic. [`Web::ask`] blocks and
//! is for the control side. Never sees what browsers say.

use super::tls;
use crate::time::{Duration, seconds};
use crate::wire::proxy::{self, Ends};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

/// How long the web server may take to take a connection.
pub const CONNECT: Duration = seconds(5); // it is near; browsers themselves wait longer
/// How long it may think about a question. One that says nothing to a TLS hello does not speak TLS.
const ANSWER: Duration = seconds(2);
/// Bytes of an answer that are enough to understand it: the head of a frame of HTTP/2 (RFC 9113 §4.1).
const ENOUGH: usize = 9;

/// A web server of the operator's.
#[derive(Debug)]
pub struct Web {
    place: Place,
    /// Whether it speaks TLS itself, as the operator says.
    told: Option<bool>,
    is_told_ends: bool,
    /// A [`Speaks`], or [`UNKNOWN`].
    found: AtomicU8,
}

/// Where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Over TCP.
    Address(SocketAddr),
    /// The file of a unix-domain socket.
    File(PathBuf),
}

/// What it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// TLS, with a certificate of its own.
    Tls,
    /// HTTP/1.1 in the clear.
    Http1,
    /// HTTP/1.1 and HTTP/2 in the clear.
    Http2,
}

const UNKNOWN: u8 = 0;

impl Speaks {
    const ALL: [Self; 3] = [Self::Tls, Self::Http1, Self::Http2];

    /// The word in the log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tls => "TLS",
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/1.1 and HTTP/2",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::File(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Web {
    /// A web server there; `tls` is whether it speaks TLS itself, where that is known. With `is_told_ends` it expects the
    /// PROXY protocol.
    pub const fn new(place: Place, tls: Option<bool>, is_told_ends: bool) -> Self {
        Self { place, told: tls, is_told_ends, found: AtomicU8::new(UNKNOWN) }
    }

    /// Where it is.
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// Whether it expects to be told of each connection whose it is.
    pub const fn is_told_ends(&self) -> bool {
        self.is_told_ends
    }

    /// What it speaks, as far as anybody knows.
    pub fn speaks(&self) -> Option<Speaks> {
        match (self.told, self.found()) {
            (Some(true), _) => Some(Speaks::Tls),
            (Some(false), None) => Some(Speaks::Http1),
            (_, found) => found,
        }
    }

    /// Whether it is to be asked.
    pub fn is_unknown(&self) -> bool {
        self.told != Some(true) && self.found().is_none()
    }

    /// It could not be reached: another one may be in its place by the time it can.
    pub fn is_lost(&self) {
        self.found.store(UNKNOWN, Ordering::Relaxed);
    }

    /// Begins a connection, which is made, or has failed, when the socket becomes writable. One over a unix-domain
    /// socket behaves as one over TCP in all that is done with it here.
    pub fn connect(&self) -> io::Result<TcpStream> {
        let (socket, address) = self.socket()?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(socket.into())
    }

    /// Asks it what it speaks. Blocks, for some ten seconds at most.
    pub fn ask(&self) -> io::Result<Speaks> {
        let speaks = if self.told.is_none() && is_tls(&self.answer(&tls::a_hello()?)?) {
            Speaks::Tls
        } else if is_http2(&self.answer(HTTP2)?) {
            Speaks::Http2
        } else {
            Speaks::Http1
        };
        self.found.store(1 + speaks as u8, Ordering::Relaxed);
        Ok(speaks)
    }

    fn found(&self) -> Option<Speaks> {
        let found = usize::from(self.found.load(Ordering::Relaxed));
        found.checked_sub(1).and_then(|found| Speaks::ALL.get(found).copied())
    }

    /// The first bytes that come back for `question`, which may be none.
    fn answer(&self, question: &[u8]) -> io::Result<Vec<u8>> {
        let (socket, address) = self.socket()?;
        match &self.place {
            Place::Address(_) => socket.connect_timeout(&address, CONNECT)?,
            // A listener takes it at once, or its queue is full.
            Place::File(_) => {
                socket.set_write_timeout(Some(CONNECT))?;
                socket.connect(&address)?;
            }
        }
        socket.set_read_timeout(Some(ANSWER))?;
        socket.set_write_timeout(Some(ANSWER))?;
        let mut stream = TcpStream::from(socket);
        let mut room = [0; proxy::MAX_WRITTEN];
        let header = if self.is_told_ends { proxy::write(&mut room, None) } else { &[] };
        let mut answer = Vec::new();
        // Whoever does not like the question hangs up on it: an answer as good as any.
        let _ = stream.write_all(&[header, question].concat());
        let mut room = [0; 64];
        while answer.len() < ENOUGH {
            match stream.read(&mut room) {
                Ok(count @ 1..) => answer.extend_from_slice(room.get(..count).unwrap_or_default()),
                Ok(0) | Err(_) => break,
            }
        }
        Ok(answer)
    }

    fn socket(&self) -> io::Result<(Socket, SockAddr)> {
        Ok(match &self.place {
            Place::Address(address) => {
                let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
                let _ = socket.set_tcp_nodelay(true); // without it a connection is slower
                (socket, (*address).into())
            }
            Place::File(path) => (Socket::new(Domain::UNIX, Type::STREAM, None)?, SockAddr::unix(path)?),
        })
    }
}

/// Of whom a connection is, as the web server is told.
pub fn header(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    proxy::write(&mut [0; proxy::MAX_WRITTEN], Some(Ends { source, destination })).to_vec()
}

/// The preface of HTTP/2 and empty settings (RFC 9113 §3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A handshake, or an alert: whoever sends either speaks TLS.
fn is_tls(answer: &[u8]) -> bool {
    matches!(answer, [21 | 22, 3, ..])
}

/// Settings of stream 0 that are no acknowledgement.
fn is_http2(answer: &[u8]) -> bool {
    matches!(answer, [_, _, _, 4, flags, 0, 0, 0, 0, ..] if flags & 1 == 0)
}
