//! System calls, as values and errors: sockets in batches, readiness, the clock, the service manager; and TLS.
//!
//! The only place, beside the kernel program to come, where `unsafe` lives; each block says which promise it keeps.
//! Never names `turn`, never decides anything.

pub mod clock;
mod cmsg;
pub mod dtls;
pub mod fds;
pub mod hello;
pub mod poll;
pub mod tcp;
pub mod tls;
pub mod trust;
pub mod udp;
pub mod web;

/// Lets a socket bind an address that no interface has yet (IP_FREEBIND).
pub fn permit_absent(socket: &socket2::Socket, address: std::net::SocketAddr) -> std::io::Result<()> {
    if address.is_ipv4() { socket.set_freebind_v4(true) } else { socket.set_freebind_v6(true) }
}

/// Raises the soft limit of open files to the hard one and returns it: every allocation needs a descriptor.
pub fn raise_file_limit() -> std::io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the kernel to write one rlimit to.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a valid rlimit that the kernel only reads.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}
