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

use std::os::fd::AsRawFd as _;

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

/// Makes the process's table of open files wide enough for `files` at once. It doubles by itself as it fills, and in a process
/// with threads every doubling waits until all CPUs have seen it, some ten milliseconds in which no packet moves.
pub fn widen_file_table(files: u64) {
    let highest = files.min(WIDEST_TABLE).saturating_sub(1);
    let Ok(any) = std::fs::File::open("/dev/null") else { return };
    // SAFETY: no pointer is passed; the descriptor that comes back is ours alone and closed at once. Without it the table
    // grows as it did.
    unsafe {
        let wide = libc::fcntl(any.as_raw_fd(), libc::F_DUPFD_CLOEXEC, highest as libc::c_int);
        if wide >= 0 {
            libc::close(wide);
        }
    }
}

/// Entries of the widest table that is asked for: four allocations for each port of the default range, in half a megabyte of the
/// kernel's memory.
const WIDEST_TABLE: u64 = 65_536;

/// Lets other threads of this process and others run before the calling one (a nice value of 10): on a busy CPU it gets a
/// tenth of what they get. Best effort.
pub fn give_way() {
    // SAFETY: the call takes three numbers; 0 is the calling thread.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 10);
    }
}

/// Gives memory that nothing uses any more back to the system; the allocator keeps it otherwise. Only glibc's has such a call,
/// and only it needs one.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes a number and touches nothing but memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}
