//! The real program on free loopback ports, with a key that may mint.
//!
//! Speaks HTTP by hand, bodies with a length alone: two requests do not earn a client library. Ends the process on drop.

use crate::temp::TempDir;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

pub(crate) const KEY: &str = "a-key-for-the-browser-tests-0123456789abcdef";

const READY: Duration = Duration::from_secs(20); // a debug build on a busy machine
const ANSWER: Duration = Duration::from_secs(10);

pub(crate) struct Server {
    process: Child,
    http: SocketAddr,
    _home: TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let home = TempDir::new("server");
        let turn = free_port();
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let config = home.path().join("turnserver.toml");
        std::fs::write(&config, configuration(turn, http)).expect("the configuration is written");
        let process = Command::new(env!("CARGO_BIN_EXE_turnserver"))
            .args(["serve", "--config"])
            .arg(&config)
            .env("STATE_DIRECTORY", home.path())
            .stdin(Stdio::null())
            .spawn()
            .expect("turnserver starts");
        let mut server = Self { process, http, _home: home };
        server.wait_until_ready().await;
        server
    }

    async fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + READY;
        loop {
            if let Some(status) = self.process.try_wait().expect("the process can be asked") {
                panic!("turnserver ended before it was ready: {status}");
            }
            if matches!(self.request("GET", "/readyz", ""), Some((200, _))) {
                return;
            }
            assert!(Instant::now() < deadline, "turnserver is not ready after {READY:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// What `POST /v1/ice-servers` answers.
    pub(crate) fn mint(&self) -> Value {
        let body = r#"{"user":"browser","ttl":600}"#;
        let (status, answer) = self.request("POST", "/v1/ice-servers", body).expect("the server answers");
        assert_eq!(status, 201, "{answer}");
        serde_json::from_str(&answer).expect("the answer is JSON")
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let head = format!("Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n");
        exchange(self.http, method, path, &head, body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One request over a fresh connection; `None` when nobody answers in time.
pub(crate) fn exchange(to: SocketAddr, method: &str, path: &str, head: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&to, ANSWER).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    let size = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n{head}Content-Length: {size}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;

    let mut answer = BufReader::new(stream);
    let mut line = String::new();
    answer.read_line(&mut line).ok()?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let mut size = 0;
    loop {
        line.clear();
        answer.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            size = value.trim().parse().ok()?;
        }
    }
    // By length, for chromedriver keeps the connection open whatever it is asked.
    let mut body = vec![0; size];
    answer.read_exact(&mut body).ok()?;
    Some((status, String::from_utf8(body).ok()?))
}

fn configuration(turn: u16, http: SocketAddr) -> String {
    format!(
        r#"
realm = "test.example"
[listen]
udp = ["127.0.0.1:{turn}"]
tcp = ["127.0.0.1:{turn}"]
[relay]
addresses = ["127.0.0.1"]
[auth]
secrets = ["a-secret-for-the-browser-tests-0123456789abcdef"]
[http]
listen = ["{http}"]
[[http.keys]]
id = "test"
secret = "{KEY}"
scopes = ["mint"]
"#
    )
}

/// A number that is free for UDP and TCP alike.
fn free_port() -> u16 {
    const TRIES: u32 = 50;
    for _ in 0..TRIES {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free TCP port");
        let port = tcp.local_addr().expect("a bound socket has an address").port();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free for both UDP and TCP");
}
