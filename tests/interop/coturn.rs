//! coturn's STUN clients and token maker; and coturn itself, which must take our credentials. Its TURN client is in
//! `uclient.rs`.

use crate::server::{SECRET, Server, Setup, free_port, free_ports, until};
use crate::skip::has;
use crate::temp::TempDir;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use turnserver::client::Client;
use turnserver::wire::codes::{Attribute, Class, Method};
use turnserver::wire::integrity::{Algorithm, Key};
use turnserver::wire::reply::Reply;
use turnserver::wire::stun::Message;

/// How long a client may take for its whole run, in seconds.
const PATIENCE: &str = "90";

/// A program that ends with the test.
pub(crate) struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn in_background(program: &str, arguments: &[&str]) -> Background {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Background(command.spawn().expect("an installed program starts"))
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    let Output { stdout, stderr, .. } =
        command.arg(PATIENCE).arg(program).args(arguments).stdin(Stdio::null()).output().expect("timeout is there");
    String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr)
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

/// Two addresses with two ports each, as RFC 5780 §6 wants it.
fn discovering() -> Server {
    let listen = [1, 2].map(|last| Ipv4Addr::new(127, 0, 0, last).into()).to_vec();
    Server::start_with(&Setup { listen, auth_lines: "nat_discovery = true", ..Setup::default() })
}

#[test]
fn k03_the_stun_client_is_answered_from_every_address_and_port() {
    if !has("turnutils_stunclient") {
        return;
    }
    let server = discovering();
    let output = run("turnutils_stunclient", &["-f", "-p", &server.port.to_string(), "127.0.0.1"]);
    for number in 1..=3 {
        assert!(output.contains(&format!("RFC 5780 response {number}")), "{output}");
    }
    assert_eq!(output.matches("UDP reflexive addr: 127.0.0.1:").count(), 3, "{output}");
    let other = format!("127.0.0.2:{}", server.port + 1);
    assert!(output.contains(&format!("Other addr: : {other}")), "{output}");
    assert!(output.contains(&format!("Response origin: : {other}")), "{output}");
}

#[test]
fn k01_nat_discovery_finds_that_there_is_no_nat() {
    if !has("turnutils_natdiscovery") {
        return;
    }
    let server = discovering();
    let port = server.port.to_string();
    for padding in [&[][..], &["-P"]] {
        let output = run("turnutils_natdiscovery", &[padding, &["-m", "-f", "-p", &port, "127.0.0.1"]].concat());
        assert!(output.contains("NAT with Endpoint Independent Mapping!"), "{padding:?}\n{output}");
        assert!(output.contains("NAT with Endpoint Independent Filtering!"), "{padding:?}\n{output}");
        assert!(!output.contains("ALG: Mapped !="), "{padding:?}\n{output}");
    }
}

/// The key `north` of coturn's test clients.
const NORTH: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK";

#[test]
fn o04_a_token_that_coturns_tool_made_lets_its_bearer_in() {
    if !has("turnutils_oauth") {
        return;
    }
    let auth_lines = r#"
oauth = { kid = "north", key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK", algorithm = "A256GCM" }
oauth_server_name = "blackdow.carleon.gov""#;
    let server = Server::start_with(&Setup { auth_lines, ..Setup::default() });
    let mac_key = [b'k'; 32];
    let token = |server_name: &str| {
        let mac_key = BASE64.encode(mac_key);
        let sealed_by = ["-j", "north", "-k", NORTH, "-l", "1", "-m", "4000000000", "-n", "A256GCM", "-i", server_name];
        let output = run("turnutils_oauth", &[&["-e"][..], &sealed_by, &["-p", &mac_key]].concat());
        let token = output.split("\"access_token\":\"").nth(1).and_then(|rest| rest.split('"').next());
        BASE64.decode(token.unwrap_or_else(|| panic!("no token in {output}"))).expect("the tool writes base64")
    };

    assert_eq!(allocates_with(&server, &mac_key, &token("blackdow.carleon.gov")), Class::Success);
    assert_eq!(allocates_with(&server, &mac_key, &token("another.server")), Class::Error);
    assert_eq!(allocates_with(&server, &[b'x'; 32], &token("blackdow.carleon.gov")), Class::Error);
    assert!(server.metric("turnserver_auth_failures_total{reason=\"token\"}") >= 2.0);
}

/// What the server answers to an Allocate with a token, signed with the key that is said to be inside it.
fn allocates_with(server: &Server, mac_key: &[u8], token: &[u8]) -> Class {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(server.address()).expect("loopback is there");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out can be set");
    let ask = |transaction: [u8; 12], credential: &dyn Fn(&mut Reply<'_>)| {
        let mut room = [0; 2000];
        let mut request = Reply::new(&mut room, Method::ALLOCATE, Class::Request, transaction);
        request.bytes(Attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        credential(&mut request);
        let len = request.finish().expect("there is room");
        socket.send(&room[..len]).expect("loopback is there");
        let len = socket.recv(&mut room).expect("an answer");
        room[..len].to_vec()
    };
    let challenge = ask([1; 12], &|_| ());
    let challenge = Message::parse(&challenge).expect("the server speaks STUN");
    assert!(challenge.get(Attribute::THIRD_PARTY_AUTHORIZATION).is_some_and(|name| name == b"blackdow.carleon.gov"));
    let (realm, nonce) = (challenge.get(Attribute::REALM), challenge.get(Attribute::NONCE));
    let answer = ask([2; 12], &|request| {
        request.bytes(Attribute::USERNAME, b"north").bytes(Attribute::REALM, realm.expect("a realm"));
        request.bytes(Attribute::NONCE, nonce.expect("a nonce")).bytes(Attribute::ACCESS_TOKEN, token);
        request.sign(Algorithm::Sha1, &Key::from_bytes(mac_key).expect("a key of 32 bytes"));
    });
    let answer = Message::parse(&answer).expect("the server speaks STUN");
    answer.class
}

#[test]
fn a32_coturn_takes_a_credential_that_we_minted() {
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
    let peer_port = free_ports(2).to_string();
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
