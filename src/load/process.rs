//! What the kernel tells of a process: the CPU time of its threads, its memory.
//!
//! Reads /proc. Children are not counted; neither is what threads have spent that ended meanwhile.
#![forbid(unsafe_code)]

use crate::time::Duration;
use std::fs;
use std::io;
use std::path::PathBuf;

/// A process of this host.
#[derive(Clone, Debug)]
pub struct Process(PathBuf);

/// Ticks a second of the times in `stat`, as Linux shows them to programs on every machine.
const USER_HZ: u64 = 100;

impl Process {
    /// The one of this number.
    pub fn new(pid: u32) -> Self {
        Self(format!("/proc/{pid}").into())
    }

    /// This program.
    pub fn own() -> Self {
        Self("/proc/self".into())
    }

    /// CPU time of all its threads so far.
    pub fn cpu(&self) -> io::Result<Duration> {
        let threads = fs::read_dir(self.0.join("task"))?;
        let spent = threads.filter_map(|thread| {
            // A thread may end between the listing and the reading.
            let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        match spent.sum() {
            0 => self.ticks(),
            nanos => Ok(Duration::from_nanos(nanos)),
        }
    }

    /// The same in hundredths of a second, from a kernel that keeps no finer account.
    fn ticks(&self) -> io::Result<Duration> {
        let text = fs::read_to_string(self.0.join("stat"))?;
        // The name stands in parentheses and may hold anything.
        let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 1000 / USER_HZ))
    }

    /// Resident bytes.
    pub fn resident(&self) -> io::Result<u64> {
        let text = fs::read_to_string(self.0.join("status"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("it has no memory of its own"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_time_and_memory_and_nobody_has_none() {
        let own = Process::own();
        assert!(own.resident().unwrap() > 100_000);
        assert!(own.cpu().is_ok() && own.ticks().is_ok());
        assert!(Process::new(u32::MAX).cpu().is_err() && Process::new(u32::MAX).resident().is_err());
    }
}
