//! The life of a server as its service manager sees it: signals in, words and log lines out.
//!
//! Runs the real program on loopback, on ports of the system's choice.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

#[test]
fn the_service_manager_hears_ready_alive_and_stopping() {
    let mut server = Server::starts("words", CONFIG);
    server.tells("READY=1");
    server.tells("WATCHDOG=1");
    server.gets("TERM");
    server.tells("STOPPING=1");
    server.logs("stopped");
    assert_eq!(server.ends(), Some(0));
}

#[test]
fn a_reload_swaps_keys_and_names_what_needs_a_restart() {
    let mut server = Server::starts("reload", CONFIG);
    server.tells("READY=1");
    assert_eq!(server.mints("first-key-first-key"), 201);
    let next =
        CONFIG.replace("first-key-first-key", "other-key-other-key").replace("127.0.0.1:0\"] # udp", "127.0.0.1:9\"]");
    server.reads(&next);
    server.gets("HUP");
    server.tells("RELOADING=1");
    assert!(server.logs("needs restart").contains("listen.udp"));
    assert!(server.logs("reloaded").contains("http.keys"));
    server.tells("READY=1");
    assert_eq!(server.mints("first-key-first-key"), 401);
    assert_eq!(server.mints("other-key-other-key"), 201);
}

#[test]
fn a_reload_with_a_mistake_changes_nothing() {
    let mut server = Server::starts("mistake", CONFIG);
    server.tells("READY=1");
    server.reads(&CONFIG.replace("first-key-first-key", "other-key-other-key").replace("max_ttl", "max_tll"));
    server.gets("HUP");
    assert!(server.logs("nothing has changed").contains("auth.max_tll"));
    server.tells("READY=1");
    assert_eq!(server.mints("first-key-first-key"), 201);
}

#[test]
fn an_http_port_that_is_taken_is_named_before_anybody_is_served() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut server = Server::starts("taken", &CONFIG.replace("127.0.0.1:0\"] # http", &format!("{address}\"]")));
    assert!(server.logs("http.listen").contains(&address));
    assert_eq!(server.ends(), Some(1));
}

const CONFIG: &str = r#"
[listen]
udp = ["127.0.0.1:0"] # udp
tcp = ["127.0.0.1:0"]
[relay]
addresses = ["127.0.0.1"]
[auth]
secrets = ["a-secret-of-the-test"]
max_ttl = "1h"
[http]
listen = ["127.0.0.1:0"] # http
keys = [{ id = "test", secret = "first-key-first-key", scopes = ["mint"] }]
[data_plane]
workers = 1
[log]
format = "logfmt"
"#;

const PATIENCE: Duration = Duration::from_secs(20); // for what must happen; never waited out when it does

struct Server {
    process: Child,
    folder: PathBuf,
    manager: UnixDatagram,
    lines: Receiver<String>,
    http: Option<SocketAddr>,
}

impl Server {
    fn starts(name: &str, config: &str) -> Self {
        let name = format!("turnserver-supervisor-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("turnserver.toml");
        fs::write(&file, config).unwrap();
        let manager = UnixDatagram::bind_addr(&UnixAddress::from_abstract_name(&name).unwrap()).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_turnserver"))
            .args(["serve".as_ref(), "--config".as_ref(), file.as_os_str()])
            .env("NOTIFY_SOCKET", format!("@{name}"))
            .env("WATCHDOG_USEC", "400000")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (say, lines) = channel();
        let log = BufReader::new(process.stderr.take().unwrap());
        std::thread::spawn(move || log.lines().map_while(Result::ok).for_each(|line| drop(say.send(line))));
        Self { process, folder, manager, lines, http: None }
    }

    fn reads(&self, config: &str) {
        fs::write(self.folder.join("turnserver.toml"), config).unwrap();
    }

    fn gets(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// Waits for this word to the service manager.
    fn tells(&self, word: &str) {
        let mut heard = [0; 256];
        loop {
            let length = self.manager.recv(&mut heard).unwrap_or_else(|error| panic!("{word}: {error}"));
            if heard[..length].starts_with(word.as_bytes()) {
                return;
            }
        }
    }

    /// Waits for a line with these words.
    fn logs(&mut self, words: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{words}: {error}"));
            assert!(!line.contains("first-key") && !line.contains("other-key") && !line.contains("a-secret"), "{line}");
            if line.contains("listening") && line.contains("http") {
                let address = line.split(['=', '"', ' ']).find_map(|word| word.parse().ok());
                self.http = self.http.or(address);
            }
            if line.contains(words) {
                return line;
            }
        }
    }

    fn mints(&mut self, key: &str) -> u16 {
        while self.http.is_none() {
            self.logs("http");
        }
        let mut stream = TcpStream::connect(self.http.unwrap()).unwrap();
        let head = format!("POST /v1/ice-servers HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: {key}\r\n");
        stream.write_all(format!("{head}content-length: 0\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn ends(&mut self) -> Option<i32> {
        self.process.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _already_gone = self.process.kill();
        let _reaped = self.process.wait();
        let _left_behind = fs::remove_dir_all(&self.folder);
    }
}
