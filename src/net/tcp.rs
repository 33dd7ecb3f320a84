//! TCP sockets that never block.

use crate::time::{Duration, seconds};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Connections the kernel finishes for us before we accept them.
const BACKLOG: i32 = 1024;
/// Silence after which the kernel asks whether the client is still there.
const KEEPALIVE: Duration = seconds(60);
/// How long sent bytes may stay unacknowledged before the client counts as gone.
const USER_TIMEOUT: Duration = seconds(60);

/// Opens a listening socket that shares its port with the other workers' sockets. With `freebind` the address may be one
/// that no interface has yet.
pub fn listen(address: SocketAddr, freebind: bool) -> io::Result<TcpListener> {
    let socket = open(address, freebind)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether another program listens on this address. A shared port hides that from [`listen`].
pub fn probe(address: SocketAddr, freebind: bool) -> io::Result<()> {
    let socket = open(address, freebind)?;
    socket.bind(&address.into())?;
    socket.listen(1)
}

/// Takes the next connection that waits; `WouldBlock` when none does.
pub fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, from) = listener.accept()?;
    stream.set_nonblocking(true)?;
    // Best effort: without these a connection is slower, or its end is noticed later.
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(&stream);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(seconds(15)));
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
    Ok((stream, from))
}

/// Begins a connection from `local`, a port that [`listen`] may have open, to a peer. It is made, or has failed, when
/// the socket becomes writable.
pub fn connect(local: SocketAddr, peer: SocketAddr, freebind: bool) -> io::Result<TcpStream> {
    let socket = open(local, freebind)?;
    socket.set_reuse_port(true)?;
    socket.bind(&local.into())?;
    match socket.connect(&peer.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
    Ok(socket.into())
}

/// Begins a connection as a client of a server, from wherever the system likes. It is made, or has failed, when the
/// socket becomes writable.
pub fn call(server: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    match socket.connect(&server.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    let _ = socket.set_tcp_nodelay(true);
    Ok(socket.into())
}

fn open(address: SocketAddr, freebind: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if freebind {
        super::permit_absent(&socket, address)?;
    }
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    Ok(socket)
}
