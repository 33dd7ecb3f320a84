//! aioice, the ICE and TURN of Python's aiortc, over UDP, TCP and TLS: channels, relay-only calls, and what goes wrong.
//!
//! `aioice_stories.py` tells the stories; here is what the server must know of them afterwards.

#![forbid(unsafe_code)]

use crate::pair::Authority;
use crate::server::{Server, Setup, until};
use crate::skip::skip;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
/// Debian's own interpreter, for its packages are not those of another one that may come first on the path.
const PYTHON: &str = "/usr/bin/python3";
/// How long a story may take, in seconds.
const PATIENCE: &str = "90";
const STORIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/aioice_stories.py");

/// A server for the stories, and the authority that vouches for it.
struct Stage {
    server: Server,
    authority: Authority,
}

impl Stage {
    /// `None` and a counted skip where aioice is missing. Two workers, so that calls cross between them.
    fn set() -> Option<Self> {
        let mut import = Command::new(PYTHON);
        let import = import.args(["-c", "import aioice.turn"]).stdin(Stdio::null()).stderr(Stdio::null());
        if !import.status().is_ok_and(|status| status.success()) {
            skip(&format!("aioice is not installed for {PYTHON}"));
            return None;
        }
        let authority = Authority::new();
        let tls = authority.pair("server", &["127.0.0.1", "::1"]).lines();
        let (listen, relay, allow) = (vec![V4, V6], vec![V4], vec!["127.0.0.0/8"]);
        let server = Server::start_with(&Setup { listen, relay, allow, tls, workers: 2, ..Setup::default() });
        Some(Self { server, authority })
    }

    fn tells(&self, story: &str, user: &str, password: &str) {
        let mut command = Command::new("timeout");
        command.args([PATIENCE, PYTHON, STORIES, story]);
        command.args([self.server.port, self.server.tls_port()].map(|port| port.to_string()));
        command.arg(self.authority.file()).args([user, password]);
        let output = command.stdin(Stdio::null()).output().expect("timeout is there");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{story}: {}\n{complaint}", output.status);
        // A task that nobody waits for complains here and ends nothing.
        assert!(!complaint.contains("exception was never retrieved"), "{story}: {complaint}");
    }

    /// The same with a credential that the server has made.
    fn tells_minted(&self, story: &str) {
        let minted = self.server.mint();
        let text = |name: &str| minted[name].as_str().expect("a text").to_owned();
        self.tells(story, &text("username"), &text("credential"));
    }

    fn made(&self) -> f64 {
        self.server.metric("turnserver_allocations_total")
    }

    fn all_are_given_back(&self) {
        until("no allocation is left", || self.server.metric_sum("turnserver_allocations{") < 1.0);
    }
}

#[test]
fn aioice_talks_to_a_peer_over_every_transport_and_not_one_packet_is_dropped() {
    let Some(stage) = Stage::set() else { return };
    stage.tells("data", "u", "p");
    stage.tells_minted("data");
    stage.all_are_given_back();
    assert!(stage.made() >= 12.0);
    assert!(stage.server.metric_sum("turnserver_dropped_packets_total{") < 1.0, "{}", stage.server.metrics());
}

#[test]
fn aioice_calls_itself_through_relays_alone_whatever_the_transports() {
    let Some(stage) = Stage::set() else { return };
    stage.tells_minted("calls");
    stage.all_are_given_back();
    assert!(stage.made() >= 18.0);
}

#[test]
fn aioice_comes_back_twenty_times_with_one_credential() {
    let Some(stage) = Stage::set() else { return };
    stage.tells_minted("again");
    stage.all_are_given_back();
    assert!(stage.made() >= 60.0);
}

#[test]
fn aioice_is_told_401_for_a_wrong_password_and_gives_up() {
    let Some(stage) = Stage::set() else { return };
    stage.tells("refused", "u", "wrong");
    assert!(stage.server.metric("turnserver_auth_failures_total{reason=\"wrong_password\"}") >= 3.0);
    assert!(stage.made() < 1.0);
}

#[test]
fn what_aioice_had_over_connections_ends_with_it() {
    let Some(stage) = Stage::set() else { return };
    stage.tells("vanish", "u", "p");
    stage.all_are_given_back();
    assert!(stage.made() >= 2.0);
}
