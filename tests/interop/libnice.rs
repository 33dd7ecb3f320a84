//! libnice, the ICE and TURN of GStreamer, Janus and Pidgin, over UDP and TCP: calls between relay addresses alone.
//!
//! `libnice.c` is the call, built here with the compiler and the library of the system.

#![forbid(unsafe_code)]

use crate::coturn::run;
use crate::server::{Server, Setup, until};
use crate::skip::{has, skip};
use crate::temp::TempDir;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::thread::scope;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/libnice.c");
const EVERY: [(&str, &str); 4] = [("udp", "udp"), ("udp", "tcp"), ("tcp", "udp"), ("tcp", "tcp")];
/// Messages of one call, both ways together.
const MESSAGES: u32 = 100;

/// The program that calls.
struct Caller {
    home: TempDir,
}

impl Caller {
    /// `None` and a counted skip where it cannot be built.
    fn built() -> Option<Self> {
        if !has("cc") || !has("pkg-config") {
            return None;
        }
        let flags = Command::new("pkg-config").args(["--cflags", "--libs", "nice"]).stdin(Stdio::null()).output();
        let flags = flags.expect("an installed program starts");
        if !flags.status.success() {
            skip("libnice's headers are not installed");
            return None;
        }
        let flags = String::from_utf8_lossy(&flags.stdout).into_owned();
        let home = TempDir::new("libnice");
        let mut compiler = Command::new("cc");
        compiler.arg("-o").arg(home.path().join("call")).arg(SOURCE).args(flags.split_whitespace());
        let output = compiler.stdin(Stdio::null()).output().expect("an installed program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(Self { home })
    }

    /// What a call comes to.
    fn call(&self, server: &Server, host: IpAddr, over: (&str, &str), user: &str, password: &str) -> String {
        let (host, port) = (host.to_string(), server.port.to_string());
        let program = self.home.path().join("call");
        let program = program.to_str().expect("a path of plain letters");
        run(program, &[&host, &port, over.0, over.1, user, password]).trim().to_owned()
    }
}

/// Two workers, so that calls cross between them.
fn server() -> Server {
    let (listen, relay, allow) = (vec![V4, V6], vec![V4], vec!["127.0.0.0/8"]);
    Server::start_with(&Setup { listen, relay, allow, workers: 2, ..Setup::default() })
}

#[test]
fn libnice_calls_itself_through_relays_alone() {
    let Some(caller) = Caller::built() else { return };
    let server = server();
    let minted = server.mint();
    let text = |name: &str| minted[name].as_str().expect("a text").to_owned();
    let (name, credential) = (text("username"), text("credential"));
    let mut calls = Vec::new();
    for over in EVERY {
        calls.push((V4, over, "u", "p"));
        calls.push((V6, over, name.as_str(), credential.as_str()));
    }
    scope(|threads| {
        for (host, over, user, password) in calls {
            let (caller, server) = (&caller, &server);
            threads.spawn(move || assert_eq!(caller.call(server, host, over, user, password), "ok", "{host} {over:?}"));
        }
    });
    until("no allocation is left", || server.metric_sum("turnserver_allocations{") < 1.0);
    let relayed = server.metric_sum("turnserver_relayed_packets_total{direction=\"to_client\"");
    assert!(relayed >= f64::from(MESSAGES * 8), "calls go past the relays: {relayed}");
}

#[test]
fn libnice_gets_no_relay_address_for_a_wrong_password() {
    let Some(caller) = Caller::built() else { return };
    let server = server();
    for over in EVERY {
        assert_eq!(caller.call(&server, V4, over, "u", "wrong"), "no relay", "{over:?}");
    }
    assert!(server.metric("turnserver_auth_failures_total{reason=\"wrong_password\"}") >= 8.0);
    assert!(server.metric("turnserver_allocations_total") < 1.0);
}
