//! The sockets of HTTP: opened before anybody is served, gone with the server.
//!
//! Owns the files of unix-domain sockets. One that a crash left behind is replaced; one that somebody listens on, and any
//! file that is no socket, stays as it is and ends the start. At the end only a file of our own making is removed.
//! Never serves anything.
#![forbid(unsafe_code)]

use super::ServeError;
use super::http::connections::Listener;
use crate::config::HttpListeners;
use crate::net;
use core::net::SocketAddr;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, UnixListener};

/// Every socket of HTTP, and where it is.
pub(super) struct Opened {
    pub(super) listeners: Vec<Listener>,
    pub(super) addresses: Vec<SocketAddr>,
    /// Removed when this goes.
    pub(super) files: Vec<SocketFile>,
}

/// Opens all of them, or says which one cannot be.
pub(super) fn open(wanted: &HttpListeners, freebind: bool) -> Result<Opened, ServeError> {
    let mut opened = Opened { listeners: Vec::new(), addresses: Vec::new(), files: Vec::new() };
    for address in &wanted.addresses {
        let wrong = |error| ServeError::Http(*address, error);
        let listener = open_address(*address, freebind).map_err(wrong)?;
        opened.addresses.push(listener.local_addr().map_err(wrong)?);
        opened.listeners.push(Listener::Tcp(listener));
    }
    for path in &wanted.sockets {
        let (listener, file) = open_file(path).map_err(|error| ServeError::HttpSocket(path.clone(), error))?;
        opened.listeners.push(Listener::Unix(listener));
        opened.files.push(file);
    }
    Ok(opened)
}

/// What to mend when a socket cannot be opened.
pub(super) fn hint(error: &io::Error) -> &'static str {
    let kind = error.kind();
    if kind == io::ErrorKind::AddrInUse {
        "another program listens there: stop it, or choose another port"
    } else if kind == io::ErrorKind::AddrNotAvailable {
        "this host has no such address; listen.freebind = true waits for one that comes later"
    } else if kind == io::ErrorKind::PermissionDenied {
        "ports below 1024 need CAP_NET_BIND_SERVICE"
    } else {
        "choose another address"
    }
}

/// The same for the file of a socket.
pub(super) fn file_hint(error: &io::Error) -> &'static str {
    let kind = error.kind();
    if kind == io::ErrorKind::AddrInUse {
        "another program listens there: stop it, or choose another file"
    } else if kind == io::ErrorKind::AlreadyExists {
        "a file that is no socket is there: choose another name"
    } else if kind == io::ErrorKind::NotFound {
        "its folder does not exist: make it (under systemd with RuntimeDirectory=)"
    } else if kind == io::ErrorKind::PermissionDenied {
        "the server's user must be able to write to its folder"
    } else {
        "choose another file"
    }
}

fn open_address(address: SocketAddr, freebind: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?; // 0.0.0.0 has its own line
    }
    if freebind {
        net::permit_absent(&socket, address)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

const BACKLOG: i32 = 256;

fn open_file(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    make_way(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::at(path)?;
    // Nobody can connect before `listen`, so the mode is right from the first moment that counts.
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    socket.listen(BACKLOG)?;
    Ok((UnixListener::from_std(socket.into())?, file))
}

const SOCKET_MODE: u32 = 0o660; // the server's user and group: whoever connects counts as local

/// Removes a socket that nobody listens on.
fn make_way(path: &Path) -> io::Result<()> {
    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there?,
    };
    if !there.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Somebody listens, and gets to it late.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
        Ok(()) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// The file of a socket of ours.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: another server may have put its own file there since.
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // One that stays is replaced at the next start.
            let _stays = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("turnserver-listen-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _left_behind = fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn a_socket_file_is_for_user_and_group_and_goes_with_its_server() {
        let folder = Folder::new("mode");
        let path = folder.0.join("api.sock");
        let (listener, file) = open_file(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        assert_eq!(open_file(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop((listener, file));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_a_crash_left_is_replaced_and_what_is_no_socket_stays() {
        let folder = Folder::new("stale");
        let path = folder.0.join("api.sock");
        // The system leaves the file of a socket where it is.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (_listener, _file) = open_file(&path).expect("nobody listens on that one");
        let other = folder.0.join("notes");
        fs::write(&other, "mine").unwrap();
        assert_eq!(open_file(&other).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
        assert_eq!(open_file(&folder.0.join("no/api.sock")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_file_that_another_server_has_put_there_is_not_removed() {
        let folder = Folder::new("other");
        let path = folder.0.join("api.sock");
        let (_listener, file) = open_file(&path).unwrap();
        fs::rename(&path, folder.0.join("moved")).unwrap();
        let (_second, _keeps) = open_file(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }
}
