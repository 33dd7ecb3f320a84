//! coturn's own client, peer and STUN client; and coturn itself, which must take our credentials.

use crate::pair::Authority;
use crate::server::{SECRET, Server, Setup, free_port, until};
use crate::skip::has;
use crate::temp::TempDir;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use turnserver::client::Client;

/// How long a client may take for its whole run, in seconds.
const PATIENCE: &str = "90";

/// A program that ends with the test.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn in_background(program: &str, arguments: &[&str]) -> Background {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Background(command.spawn().expect("an installed program starts"))
}

fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    let Output { stdout, stderr, .. } =
        command.arg(PATIENCE).arg(program).args(arguments).stdin(Stdio::null()).output().expect("timeout is there");
    String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr)
}

fn opened(ip: IpAddr) -> Server {
    let allow = if ip.is_ipv4() { "127.0.0.0/8" } else { "::1/128" };
    // These clients speak TLS with any certificate, whatever they are told to believe.
    let authority = Authority::new();
    let tls = authority.pair("server", &["turn.example.org"]).lines();
    Server::start_with(&Setup { listen: vec![ip], relay: vec![ip], allow: vec![allow], tls, ..Setup::default() })
}

/// Runs `turnutils_uclient` with fifty clients of twenty messages each and expects every one back.
fn every_message_comes_back(ip: IpAddr, options: &[&str], credential: &[&str]) {
    if !has("turnutils_uclient") || !has("turnutils_peer") {
        return;
    }
    // Two such crowds at a time: more would starve each other on a small machine and lose packets to that.
    static LANES: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let lane = &LANES[NEXT.fetch_add(1, Ordering::Relaxed) % LANES.len()];
    let _turn = lane.lock().unwrap_or_else(PoisonError::into_inner);
    let server = opened(ip);
    let peer_port = free_port().to_string();
    let port = if options.contains(&"-S") { server.tls_port() } else { server.port };
    let (ip, port) = (ip.to_string(), port.to_string());
    let _peer = in_background("turnutils_peer", &["-L", &ip, "-p", &peer_port]);
    let common = ["-m", "50", "-n", "20", "-e", &ip, "-r", &peer_port, "-p", &port];
    let arguments = [options, credential, &common, &[&ip]].concat();

    let output = run("turnutils_uclient", &arguments);

    assert!(output.contains("Total lost packets 0 (0.000000%), total send dropped 0"), "{arguments:?}\n{output}");
    let counted = output.lines().rfind(|line| line.contains("tot_send_msgs=")).expect("a count of messages");
    let number = |name: &str| counted.split(name).nth(1).and_then(|rest| rest.split(',').next()).map(str::trim);
    assert_eq!(number("tot_send_msgs="), number("tot_recv_msgs="), "{output}");
    assert!(number("tot_send_msgs=") >= Some("1000"), "{output}");
}

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const STATIC: &[&str] = &["-u", "u", "-w", "p"];
const MINTED: &[&str] = &["-u", "alice", "-W", SECRET];

#[test]
fn channels_over_udp_lose_nothing() {
    every_message_comes_back(V4, &["-c"], STATIC);
}

#[test]
fn channels_over_tcp_lose_nothing() {
    every_message_comes_back(V4, &["-t", "-c"], STATIC);
}

#[test]
fn send_indications_over_udp_lose_nothing() {
    every_message_comes_back(V4, &["-s", "-c"], MINTED);
}

#[test]
fn send_indications_over_tcp_lose_nothing() {
    every_message_comes_back(V4, &["-t", "-s", "-c"], MINTED);
}

#[test]
fn a_minted_credential_works_with_rtcp_pairs_and_reservations() {
    every_message_comes_back(V4, &[], MINTED);
}

#[test]
fn clients_call_each_other_through_two_relay_addresses() {
    every_message_comes_back(V4, &["-y"], MINTED);
}

#[test]
fn clients_call_each_other_over_tcp() {
    every_message_comes_back(V4, &["-y", "-t", "-c"], STATIC);
}

#[test]
fn channels_over_ipv6_udp_lose_nothing() {
    every_message_comes_back(V6, &["-x", "-c"], STATIC);
}

#[test]
fn send_indications_over_ipv6_tcp_lose_nothing() {
    every_message_comes_back(V6, &["-t", "-x", "-s", "-c"], MINTED);
}

#[test]
fn channels_under_tls_lose_nothing() {
    every_message_comes_back(V4, &["-t", "-S", "-c"], STATIC);
}

#[test]
fn send_indications_under_tls_lose_nothing() {
    every_message_comes_back(V4, &["-t", "-S", "-s", "-c"], MINTED);
}

#[test]
fn clients_call_each_other_under_tls_over_ipv6() {
    every_message_comes_back(V6, &["-y", "-t", "-S", "-x", "-c"], MINTED);
}

#[test]
fn a_wrong_password_gets_no_allocation() {
    if !has("turnutils_uclient") {
        return;
    }
    let server = Server::start();
    let port = server.port.to_string();
    let output = run("turnutils_uclient", &["-y", "-c", "-u", "u", "-w", "wrong", "-p", &port, "127.0.0.1"]);
    assert!(output.contains("Cannot complete Allocation"), "{output}");
    assert!(server.metric("turnserver_auth_failures_total{reason=\"wrong_password\"}") >= 1.0);
    assert!(server.metric("turnserver_allocations_total") < 1.0);
}

#[test]
fn the_stun_client_learns_its_address() {
    if !has("turnutils_stunclient") {
        return;
    }
    let server = Server::start();
    let output = run("turnutils_stunclient", &["-p", &server.port.to_string(), "127.0.0.1"]);
    assert!(output.contains("UDP reflexive addr: 127.0.0.1:"), "{output}");
}

#[test]
fn coturn_takes_a_credential_that_we_minted() {
    if !has("turnutils_uclient") {
        return;
    }
    let home = TempDir::new("coturn");
    let config = home.path().join("turnserver.toml");
    std::fs::write(&config, format!("realm = \"r\"\n[auth]\nsecrets = [\"{SECRET}\"]\n")).expect("a file is written");
    let minted = Command::new(env!("CARGO_BIN_EXE_turnserver"))
        .args(["credential", "--user", "alice", "--format", "json", "--config"])
        .arg(&config)
        .env("STATE_DIRECTORY", home.path())
        .output()
        .expect("the program runs");
    let minted: serde_json::Value = serde_json::from_slice(&minted.stdout).expect("credential prints JSON");
    let text = |name: &str| minted[name].as_str().expect("a text").to_owned();
    let (username, credential) = (text("username"), text("credential"));

    let port = free_port().to_string();
    let peer_port = free_port().to_string();
    let files = home.path().join("coturn").display().to_string();
    let _coturn = in_background(
        "/usr/bin/turnserver",
        &[
            "-c",
            "/dev/null",
            "--no-cli",
            "--use-auth-secret",
            "--static-auth-secret",
            SECRET,
            "--realm",
            "r",
            "--listening-ip",
            "127.0.0.1",
            "--relay-ip",
            "127.0.0.1",
            "--listening-port",
            &port,
            "--allow-loopback-peers",
            "--no-tls",
            "--no-dtls",
            "--log-file",
            "/dev/null",
            "--pidfile",
            &files,
        ],
    );
    let _peer = in_background("turnutils_peer", &["-L", "127.0.0.1", "-p", &peer_port]);
    until("coturn answers", || {
        // Asked by hand: the STUN client sends once and then waits for ever.
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out can be set");
        let _ = socket.send_to(&Client::new("", "", 1).binding(), format!("127.0.0.1:{port}"));
        socket.recv(&mut [0; 1500]).is_ok()
    });
    let credential = ["-u", &username, "-w", &credential];
    let common = ["-c", "-n", "5", "-e", "127.0.0.1", "-r", &peer_port, "-p", &port, "127.0.0.1"];

    let output = run("turnutils_uclient", &[&credential[..], &common[..]].concat());

    assert!(output.contains("Total lost packets 0 (0.000000%)"), "{output}");
}
