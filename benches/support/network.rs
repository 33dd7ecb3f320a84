//! A network of its own for what is measured: nothing else of the machine speaks there, and every port is free.
//!
//! Only root can have one; others measure on the loopback that all share.

use std::process::Command;

/// Set in the process that has it.
const INSIDE: &str = "TURNSERVER_BENCH_INSIDE";
/// Ports of clients below those of relays, or the two would take each other's.
const SET_UP: &str = "ip link set lo up && echo 10000 48000 > /proc/sys/net/ipv4/ip_local_port_range && exec \"$@\"";

/// Starts this program again in a network of its own and ends with it; returns there, or where none is to be had.
pub(crate) fn enter() {
    use std::os::unix::fs::MetadataExt as _;
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0);
    if !is_root || is_own() {
        return;
    }
    let mut inside = Command::new("unshare");
    inside.args(["--net", "--", "sh", "-c", SET_UP, "sh"]).args(std::env::args()).env(INSIDE, "1");
    match inside.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => eprintln!("no network of its own: unshare: {error}"),
    }
}

/// Whether this process has one.
pub(crate) fn is_own() -> bool {
    std::env::var_os(INSIDE).is_some()
}
