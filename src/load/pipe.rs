//! What lies between one client and the server: a socket, TLS where it is wanted, messages cut out of the stream.
//!
//! Never blocks. What a stream cannot take at once waits here, up to a bound; datagrams never wait.
#![forbid(unsafe_code)]

use super::plan::{Plan, Transport};
use crate::net::{tcp, trust};
use crate::wire::stream::{self, Frame};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes that may wait for a slow server.
const WAITING_MAX: usize = 256 << 10;

/// A client's way to the server.
#[derive(Debug)]
pub(super) enum Pipe {
    /// A connected socket.
    Udp(UdpSocket),
    /// A connection.
    Stream(Box<Stream>),
}

/// A connection, made or being made.
#[derive(Debug)]
pub(super) struct Stream {
    socket: TcpStream,
    tls: Option<trust::Session>,
    is_connecting: bool,
    /// Bytes for the wire, and how many of them have left.
    out: Vec<u8>,
    gone: usize,
    /// Plaintext that is no whole message yet.
    clear: Vec<u8>,
}

impl Pipe {
    /// Opens a socket, or begins a connection.
    pub(super) fn open(plan: &Plan) -> io::Result<Self> {
        let tls = match &plan.transport {
            Transport::Udp => {
                let any: IpAddr =
                    if plan.server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
                socket.connect(plan.server)?;
                socket.set_nonblocking(true)?;
                return Ok(Self::Udp(socket));
            }
            Transport::Tcp => None,
            Transport::Tls(trust) => Some(trust.session().map_err(io::Error::other)?),
        };
        let socket = tcp::call(plan.server)?;
        let (out, clear) = (Vec::new(), Vec::new());
        Ok(Self::Stream(Box::new(Stream { socket, tls, is_connecting: true, out, gone: 0, clear })))
    }

    /// Sends one message, which over a stream is padded already, or keeps it until the stream takes it.
    pub(super) fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(message).map(drop),
            Self::Stream(stream) => {
                stream.push(message)?;
                stream.flush()
            }
        }
    }

    /// Whether there is more to be sent once the socket has room.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Self::Stream(stream) if stream.is_connecting || !stream.out.is_empty())
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Stream(stream) => stream.socket.as_fd(),
        }
    }
}

impl Stream {
    /// Puts one message behind those that wait; [`Stream::flush`] sends them.
    pub(super) fn push(&mut self, message: &[u8]) -> io::Result<()> {
        if self.out.len() - self.gone > WAITING_MAX {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match &mut self.tls {
            None => self.out.extend_from_slice(message),
            Some(tls) => tls.send(message, &mut self.out)?,
        }
        Ok(())
    }

    /// Sends what the socket takes now.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.is_connecting {
            return Ok(());
        }
        while let Some(rest @ [_, ..]) = self.out.get(self.gone..) {
            match self.socket.write(rest) {
                Ok(count) => self.gone += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.gone = 0;
        Ok(())
    }

    /// The socket has room: the connection is made, or more can be sent.
    pub(super) fn is_writable(&mut self) -> io::Result<()> {
        if self.is_connecting {
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
            self.is_connecting = false;
            if let Some(tls) = &mut self.tls {
                tls.take_output(&mut self.out);
            }
        }
        self.flush()
    }

    /// Reads once; whole messages then come from [`Stream::take_clear`].
    pub(super) fn read(&mut self, scratch: &mut [u8]) -> io::Result<()> {
        let count = match self.socket.read(scratch) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let wire = scratch.get(..count).unwrap_or_default();
        match &mut self.tls {
            None => self.clear.extend_from_slice(wire),
            Some(tls) => {
                tls.receive(wire, &mut self.clear)?;
                tls.take_output(&mut self.out);
            }
        }
        self.flush()
    }

    /// The bytes received so far, to be given back with [`Stream::put_back`].
    pub(super) fn take_clear(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.clear)
    }

    /// Keeps what of them was no whole message.
    pub(super) fn put_back(&mut self, mut clear: Vec<u8>, used: usize) {
        clear.drain(..used.min(clear.len()));
        self.clear = clear;
    }
}

/// The first message in these bytes, and where the next one begins; `None` when there is no whole one.
pub(super) fn first(bytes: &[u8]) -> io::Result<Option<(&[u8], usize)>> {
    match stream::next(bytes) {
        Frame::Whole { message, next } => Ok(bytes.get(..message).map(|message| (message, next))),
        Frame::Partial { .. } => Ok(None),
        Frame::Noise => Err(io::Error::other("the server sends what is no message of TURN")),
    }
}
