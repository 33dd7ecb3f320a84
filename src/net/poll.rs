//! Readiness: epoll, and an eventfd to wake its sleeper.

use crate::time::Duration;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// An epoll instance.
#[derive(Debug)]
pub struct Poll(OwnedFd);

/// What to wait for. Readiness is level-triggered: what is not taken is told again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Bytes, a connection, or an end.
    Read,
    /// That, or room to write.
    ReadWrite,
    /// Room to write alone.
    Write,
}

/// Something is ready.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// What [`Poll::add`] was given.
    pub token: u64,
    /// There is something to read, or the other side is gone.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// Something went wrong: what did waits in the socket, or in its error queue.
    pub failed: bool,
}

/// Events of one wait, at most as many as it was made for.
pub struct Events {
    raw: Vec<libc::epoll_event>,
    len: usize,
}

impl Poll {
    /// A new instance.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Watches a descriptor. Closing it ends the watch.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, interest)
    }

    /// Changes what a watched descriptor is watched for.
    pub fn modify(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, interest)
    }

    /// Watches a descriptor no longer.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, Interest::Read)
    }

    /// Waits until something is ready, or for `timeout`; `None` waits without end. A signal ends the wait early.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        // Rounded up: waking a moment early would only wait again.
        let millis = timeout.map_or(-1, |wait| i32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
        let room = events.raw.capacity();
        // SAFETY: the buffer has room for `room` events, and the kernel writes no more than that.
        let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.raw.as_mut_ptr(), room as i32, millis) };
        events.take(count)
    }

    /// The same to the nanosecond. A kernel without such a wait (before Linux 5.11) waits whole milliseconds, rounded down.
    pub fn wait_exactly(&self, events: &mut Events, timeout: Duration) -> io::Result<()> {
        let nanos = libc::timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        let room = events.raw.capacity();
        // SAFETY: the buffer has room for `room` events, and the kernel writes no more than that; `nanos` is a valid
        // timespec that it only reads, and no signal mask is passed.
        let count = unsafe {
            let mask = std::ptr::null();
            libc::epoll_pwait2(self.0.as_raw_fd(), events.raw.as_mut_ptr(), room as i32, &nanos, mask)
        };
        if count < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
            return self.wait(events, Some(Duration::from_millis(timeout.as_millis() as u64)));
        }
        events.take(count)
    }

    fn control(&self, operation: i32, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        let events = match interest {
            Interest::Read => libc::EPOLLIN,
            Interest::ReadWrite => libc::EPOLLIN | libc::EPOLLOUT,
            Interest::Write => libc::EPOLLOUT,
        };
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        // SAFETY: both descriptors are open, and `event` is a valid event that the kernel only reads.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd.as_raw_fd(), &mut event) })?;
        Ok(())
    }
}

impl Events {
    /// Room for `count` events a wait.
    pub fn with_capacity(count: usize) -> Self {
        Self { raw: Vec::with_capacity(count.max(1)), len: 0 }
    }

    /// Notes what a wait has returned.
    fn take(&mut self, count: i32) -> io::Result<()> {
        self.len = match check(count) {
            Ok(count) => count as usize,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        // SAFETY: the kernel has written the first `len` events, and `len` is within the capacity.
        unsafe { self.raw.set_len(self.len) };
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The event at this place.
    pub fn get(&self, at: usize) -> Option<Event> {
        let event = self.raw.get(at)?;
        let bits = event.events as i32;
        Some(Event {
            token: event.u64,
            readable: bits & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLRDHUP) != 0,
            writable: bits & (libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR) != 0,
            failed: bits & libc::EPOLLERR != 0,
        })
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Wakes a thread out of [`Poll::wait`].
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    /// A waker, to be watched for reading.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Wakes. A waker already awake stays so: the result says nothing more.
    pub fn wake(&self) {
        let one = 1u64;
        // SAFETY: eight valid bytes are passed, as an eventfd wants.
        let _ = unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Makes the waker quiet again.
    pub fn rest(&self) {
        let mut count = 0u64;
        // SAFETY: there is room for the eight bytes the kernel writes.
        let _ = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
