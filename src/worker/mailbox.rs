//! Word from the control side to one worker, and the worker's sign of life.
//!
//! Commands are few; the queue is a list under a lock that the worker empties when its waker fires.
#![forbid(unsafe_code)]

use crate::net::poll::Waker;
use crate::turn::policy::Policy;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What a worker can be told.
#[derive(Debug)]
pub(super) enum Command {
    /// Follow these rules from now on.
    SetPolicy(Arc<Policy>),
    /// End every allocation and the thread.
    Stop,
}

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
