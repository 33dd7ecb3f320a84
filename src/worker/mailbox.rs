//! Word from the control side and the other workers to one worker, and the worker's sign of life.
//!
//! The queue is a list under a lock that the worker empties when its waker fires. Commands are few; packets are bounded.
//! Those from one relay address to another come in parcels, a few in one wake-up; single ones are of clients that moved to
//! a path on which the kernel leads them to another worker, or that have a second connection there.
#![forbid(unsafe_code)]

use super::peers::Owner;
use crate::net::poll::Waker;
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::time::Instant;
use crate::turn::policy::Policy;
use crate::turn::{FiveTuple, Input, Path, RelayId, StreamId};
use crate::wire::packet::Marks;
use std::io;
use std::net::{SocketAddr, TcpStream};
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
    /// What relay addresses of another worker send to relay addresses of this one.
    Parcel(Parcel),
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
/// Bytes of all parcels in one letter box, heads counted: about a thousand packets of a call. The worker deals with all of
/// them before it looks at another socket.
const MAX_PARCELS: usize = if cfg!(turnserver_loom) { 2 * size_of::<Enclosed>() } else { 256 << 10 };

/// Packets from relay addresses of one worker to those of another, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    /// To whom, from where as clients name it, with which marks, and how long.
    pub(super) packets: Vec<Enclosed>,
    /// Their bytes.
    pub(super) bytes: Vec<u8>,
}

/// One packet of a parcel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Enclosed {
    pub(super) to: RelayId,
    pub(super) from: SocketAddr,
    pub(super) marks: Marks,
    pub(super) len: usize,
}

/// The letter box of one worker.
#[derive(Debug)]
pub(super) struct Mailbox {
    letters: Mutex<Letters>,
    waker: Waker,
    asked: AtomicU64,
    answered: AtomicU64,
}

#[derive(Debug, Default)]
struct Letters {
    commands: Vec<Command>,
    /// Bytes of the parcels among them.
    parcels: usize,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            letters: Mutex::default(),
            waker: Waker::new()?,
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        })
    }

    /// Tells the worker something.
    pub(super) fn post(&self, command: Command) {
        let mut letters = self.letters();
        self.put(&mut letters, command);
    }

    /// Hands the worker a packet, unless too many wait there already.
    pub(super) fn hand(&self, command: Command) -> bool {
        let mut letters = self.letters();
        let has_room = letters.commands.len() < MAX_PACKETS;
        if has_room {
            self.put(&mut letters, command);
        }
        has_room
    }

    /// Hands the worker a parcel, unless too much waits there already.
    pub(super) fn hand_parcel(&self, parcel: Parcel) -> bool {
        let mut letters = self.letters();
        let weight = parcel.bytes.len() + size_of_val(&*parcel.packets);
        let has_room = letters.parcels + weight <= MAX_PARCELS && letters.commands.len() < MAX_PACKETS;
        if has_room {
            letters.parcels += weight;
            self.put(&mut letters, Command::Parcel(parcel));
        }
        has_room
    }

    /// Takes everything that was posted, and answers the question whether the worker lives.
    pub(super) fn take(&self) -> Vec<Command> {
        self.waker.rest();
        self.answered.store(self.asked.load(Ordering::Acquire), Ordering::Release);
        core::mem::take(&mut *self.letters()).commands
    }

    /// Who finds the box empty rings; for the others the bell has rung, and nobody has come yet.
    fn put(&self, letters: &mut Letters, command: Command) {
        letters.commands.push(command);
        if letters.commands.len() == 1 {
            self.waker.wake();
        }
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
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
