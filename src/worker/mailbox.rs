//! Word from the control side and the other workers to one worker, and the worker's sign of life.
//!
//! The queue is a list under a lock that the worker empties when its waker fires. Commands are few; packets, which come
//! only from clients that moved to a path on which the kernel leads them to another worker, are bounded.
#![forbid(unsafe_code)]

use super::peers::Owner;
use crate::net::poll::Waker;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::time::Instant;
use crate::turn::policy::Policy;
use crate::turn::{FiveTuple, Input, Path, StreamId};
use crate::wire::packet::Marks;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, PoisonError};

/// What a worker can be told.
#[derive(Debug)]
pub(super) enum Command {
    /// Follow these rules from now on.
    SetPolicy(Arc<Policy>),
    /// End every allocation and the thread.
    Stop,
    /// A message that reached another worker and is about an allocation of this one.
    Packet { path: Path, marks: Marks, bytes: Box<[u8]> },
    /// A packet for a client whose connection this worker has.
    Deliver { path: Path, bytes: Box<[u8]>, is_data: bool },
    /// What comes on this path is for an allocation of that worker.
    Route { path: Path, to: u8 },
    /// Not any more.
    Unroute { path: Path },
    /// A client's connection, which another worker had, is gone.
    Closed(FiveTuple),
    /// Join a peer's connection to this client's, which gets this answer first.
    Join { stream: TcpStream, owner: Owner, path: Path, answer: Box<[u8]> },
    /// Close the connection with a peer.
    CloseStream(StreamId),
    /// What became of a peer's connection that another worker has.
    Told(Input),
    /// Read nothing from a joined pair before this moment.
    Rest { stream: StreamId, until: Instant },
}

/// Packets in one letter box at once: a worker that cannot follow loses what is beyond.
const MAX_PACKETS: usize = if cfg!(turnserver_loom) { 2 } else { 1024 };

/// The letter box of one worker.
#[derive(Debug)]
pub(super) struct Mailbox {
    commands: Mutex<Vec<Command>>,
    waker: Waker,
    asked: AtomicU64,
    answered: AtomicU64,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            commands: Mutex::default(),
            waker: Waker::new()?,
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        })
    }

    /// Tells the worker something.
    pub(super) fn post(&self, command: Command) {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push(command);
        self.waker.wake();
    }

    /// Hands the worker a packet, unless too many wait there already.
    pub(super) fn hand(&self, command: Command) -> bool {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = commands.len() < MAX_PACKETS;
        if has_room {
            commands.push(command);
            self.waker.wake();
        }
        has_room
    }

    /// Takes everything that was posted, and answers the question whether the worker lives.
    pub(super) fn take(&self) -> Vec<Command> {
        self.waker.rest();
        self.answered.store(self.asked.load(Ordering::Acquire), Ordering::Release);
        core::mem::take(&mut self.commands.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the worker has answered the last question; asks the next one.
    pub(super) fn is_answered(&self) -> bool {
        let is_answered = self.answered.load(Ordering::Acquire) == self.asked.load(Ordering::Acquire);
        if is_answered {
            self.asked.fetch_add(1, Ordering::AcqRel);
        }
        self.waker.wake();
        is_answered
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }
}
