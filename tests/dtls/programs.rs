//! Clients that nobody here wrote: coturn's, and OpenSSL's.
//!
//! coturn's client throws a coin for each association between DTLS 1.0, which RFC 8996 has ended, and 1.2. The alert
//! that it gets for 1.0 makes it throw again.

use crate::Server;
use crate::skip::has;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use turnserver::client::Client;

/// How long a client may take for its whole run, in seconds.
const PATIENCE: &str = "90";

struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn every_message_comes_back(options: &[&str]) {
    if !has("turnutils_uclient") || !has("turnutils_peer") {
        return;
    }
    // One crowd at a time: two would starve each other on a small machine and lose packets to that.
    static LANE: Mutex<()> = Mutex::new(());
    let _turn = LANE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start();
    let (port, peer_port) = (server.address.port().to_string(), free_port().to_string());
    let mut peer = Command::new("turnutils_peer");
    peer.args(["-L", "127.0.0.1", "-p", &peer_port]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _peer = Background(peer.spawn().unwrap());
    let common = ["-S", "-u", "u", "-w", "p", "-m", "20", "-n", "20", "-e", "127.0.0.1", "-r", &peer_port, "-p", &port];
    let mut command = Command::new("timeout");
    command.args([PATIENCE, "turnutils_uclient"]).args(options).args(common).arg("127.0.0.1").stdin(Stdio::null());

    let Output { stdout, stderr, .. } = command.output().unwrap();

    let output = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(output.contains("Total lost packets 0 (0.000000%), total send dropped 0"), "{output}");
    assert!(output.contains("cipher ECDHE-ECDSA-CHACHA20-POLY1305, method=DTLSv1.2"), "{output}");
    let counted = output.lines().rfind(|line| line.contains("tot_send_msgs=")).expect("a count of messages");
    let number = |name: &str| counted.split(name).nth(1)?.split(',').next()?.trim().parse::<u32>().ok();
    assert_eq!(number("tot_send_msgs="), number("tot_recv_msgs="), "{output}");
    assert!(number("tot_send_msgs=") >= Some(400), "{output}");
}

#[test]
fn coturns_client_relays_over_channels() {
    every_message_comes_back(&["-c"]);
}

#[test]
fn coturns_client_relays_by_indications() {
    every_message_comes_back(&["-s", "-c"]);
}

#[test]
fn coturns_clients_call_each_other() {
    every_message_comes_back(&["-y", "-c"]);
}

#[test]
fn s43_openssl_shakes_hands_with_every_suite_there_is() {
    if !has("openssl") {
        return;
    }
    let server = Server::start();
    for suite in ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"] {
        let suite = format!("ECDHE-ECDSA-{suite}");
        let mut command = Command::new("timeout");
        command.args([PATIENCE, "openssl", "s_client", "-dtls1_2", "-quiet", "-cipher", &suite, "-connect"]);
        command.arg(server.address.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut client = Background(command.spawn().unwrap());
        // One write is one record: a Binding request, and its answer on the other side.
        let request = Client::new("", "", 7).binding();
        client.0.stdin.as_mut().unwrap().write_all(&request).unwrap();
        let mut answer = [0; 20];
        client.0.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
        assert_eq!(answer[..2], [1, 1], "{suite}: no success");
        assert_eq!(answer[8..], request[8..20], "{suite}: another request's answer");
    }
}

#[test]
fn a_client_without_a_common_suite_gets_no_association() {
    if !has("openssl") {
        return;
    }
    let server = Server::start();
    let mut command = Command::new("timeout");
    command.args(["3", "openssl", "s_client", "-dtls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256", "-connect"]);
    let output = command.arg(server.address.to_string()).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    assert_eq!(server.associations(), 0);
}

/// A port, and the next one, that nobody has.
fn free_port() -> u16 {
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let next = port.checked_add(1).and_then(|next| UdpSocket::bind(("127.0.0.1", next)).ok());
        if next.is_some() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
