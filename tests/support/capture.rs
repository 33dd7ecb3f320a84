//! What Wireshark makes of the packets on loopback while a story runs.
//!
//! Owns one `tshark` that records, and asks another one about the record. A mark of its own, sent before and after,
//! tells that the record has begun and is whole: nothing is guessed by waiting.

#![allow(dead_code, reason = "every test target uses its own part of this")]
#![forbid(unsafe_code)]

use crate::server::until;
use crate::skip::{has, skip};
use crate::temp::TempDir;
use std::fs::File;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Where the marks go: the port that discards what it gets (RFC 863), whether anybody listens there or not.
const DISCARD: u16 = 9;

pub(crate) struct Capture {
    process: Child,
    home: TempDir,
    marker: UdpSocket,
    /// How ports are to be read that say nothing by their number, as in `udp.port==4000,stun`.
    decode_as: Vec<String>,
}

impl Capture {
    /// Records what `filter` (in the words of pcap) lets through. `None` and a counted skip where that cannot be.
    pub(crate) fn start(filter: &str, decode_as: Vec<String>) -> Option<Self> {
        if !has("tshark") {
            return None;
        }
        let home = TempDir::new("capture");
        let filter = format!("({filter}) or udp dst port {DISCARD}");
        let told = File::create(home.path().join("told")).expect("a file is made");
        let mut command = Command::new("tshark");
        command.args(["-q", "-i", "lo", "-f", &filter, "-w"]).arg(home.path().join("record.pcapng"));
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(told);
        let process = command.spawn().expect("an installed program starts");
        let marker = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let mut capture = Self { process, home, marker, decode_as };
        let mut is_refused = false;
        until("the record begins", || {
            is_refused = capture.process.try_wait().expect("the process can be asked").is_some();
            is_refused || capture.holds("the record begins")
        });
        if is_refused {
            let told = std::fs::read_to_string(capture.home.path().join("told")).unwrap_or_default();
            skip(&format!("packets on loopback cannot be recorded: {told}"));
            return None;
        }
        Some(capture)
    }

    /// Sends a mark, and looks whether one is in the record. Each is of this process alone.
    fn holds(&self, mark: &str) -> bool {
        let mark = format!("{mark}, says {} {}", std::process::id(), self.home.path().display());
        let _ = self.marker.send_to(mark.as_bytes(), ("127.0.0.1", DISCARD));
        let record = std::fs::read(self.record()).unwrap_or_default();
        record.windows(mark.len()).any(|bytes| bytes == mark.as_bytes())
    }

    fn record(&self) -> PathBuf {
        self.home.path().join("record.pcapng")
    }

    /// Ends the record, once everything that was sent so far is in it.
    pub(crate) fn end(&mut self) {
        until("the record is whole", || self.holds("the record ends"));
        self.stop();
    }

    fn stop(&mut self) {
        // Ended by a signal it takes the program along that records for it.
        let _ = Command::new("kill").args(["-s", "INT", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
    }

    /// These fields of every packet that `filter` (in the words of Wireshark) lets through; several values of one field
    /// stand with commas.
    pub(crate) fn fields(&self, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
        let mut command = Command::new("tshark");
        // Two passes: a message may be judged by one that comes later.
        command.args(["-n", "-2", "-T", "fields", "-Y", filter, "-r"]).arg(self.record());
        command.args(self.decode_as.iter().flat_map(|how| ["-d", how]));
        command.args(fields.iter().flat_map(|field| ["-e", field]));
        let output = command.stdin(Stdio::null()).output().expect("an installed program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}
