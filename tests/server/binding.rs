//! What the program can bind: addresses that no interface has, one family alone, the file of a socket.

use crate::caller::{Caller, V4};
use crate::server::{Server, Setup, free_port, until};
use crate::skip::{has, skip};
use crate::temp::TempDir;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use turnserver::wire::codes::ErrorCode;
use turnserver::wire::stun::Family;

/// Of a range for documentation: no host has it.
const ABSENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77));

fn try_to_start(config: &str) -> Output {
    let folder = TempDir::new("binding");
    let file = folder.path().join("turnserver.toml");
    std::fs::write(&file, config).expect("a file is written");
    let mut command = Command::new("timeout");
    command.args(["20", env!("CARGO_BIN_EXE_turnserver"), "serve", "--config"]).arg(file).stdin(Stdio::null());
    command.output().expect("timeout is there")
}

#[test]
fn an_address_that_comes_later_is_bound_when_the_operator_says_so() {
    let listen = vec![V4, ABSENT];
    let setup = Setup { listen, relay: vec![ABSENT], listen_lines: "freebind = true".into(), ..Setup::default() };
    let server = Server::start_with(&setup);
    let mut caller = Caller::udp(server.address());
    assert_eq!(caller.allocate().expect("an allocation").ip(), ABSENT);
    assert!(!server.log().contains("has no address"), "it is expected to lack it: {}", server.log());
}

#[test]
fn an_address_that_this_host_lacks_is_named_with_two_ways_out() {
    for key in ["udp", "tcp"] {
        let other = if key == "udp" { "tcp" } else { "udp" };
        let listen = format!("{key} = [\"{ABSENT}:3478\"]\n{other} = []");
        let output = try_to_start(&format!(
            "auth.secrets = [\"a-secret-of-the-test\"]\nrelay.addresses = [\"127.0.0.1\"]\nhttp.listen = []\n[listen]\n{listen}\n"
        ));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let sentence =
            "no interface of this host has 192.0.2.77: use 0.0.0.0 or [::] for all, or set listen.freebind = true";
        assert!(said.contains(&format!("listen.{key} = \"192.0.2.77:3478\"")) && said.contains(sentence), "{said}");
    }
}

#[test]
fn without_freebind_a_relay_address_that_is_gone_makes_no_allocation() {
    let server = Server::start_with(&Setup { relay: vec![ABSENT], ..Setup::default() });
    assert_eq!(Caller::udp(server.address()).allocate(), Err(ErrorCode::SERVER_ERROR));
    until("the log says why", || server.log().contains("the relay socket cannot be made"));
}

#[test]
fn http_too_waits_for_its_address() {
    let wanted = format!("127.0.0.1:{}", free_port());
    let config = |freebind| {
        format!(
            "auth.secrets = [\"a-secret-of-the-test\"]\nrelay.addresses = [\"127.0.0.1\"]\nlisten = {{ udp = [\"{wanted}\"], tcp = [], freebind = {freebind} }}\nhttp = {{ listen = [\"{ABSENT}:3480\", \"unix:/nowhere/http.sock\"], keys = [{{ id = \"a\", secret = \"0123456789abcdef\", scopes = [\"mint\"] }}] }}\n"
        )
    };
    let refused = try_to_start(&config(false));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("http.listen = \"192.0.2.77:3480\"") && said.contains("listen.freebind"), "{said}");
    let refused = try_to_start(&config(true));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("unix:/nowhere/http.sock") && said.contains("its folder does not exist"), "{said}");
}

#[test]
fn a_server_of_one_family_serves_that_one() {
    let v6: IpAddr = "::1".parse().expect("an address");
    let server = Server::start_with(&Setup { listen: vec![v6], relay: vec![v6], ..Setup::default() });
    let address = SocketAddr::new(v6, server.port);
    for mut caller in [Caller::udp(address), Caller::tcp(address)] {
        assert_eq!(caller.binding(), Ok(caller.local()));
        assert_eq!(caller.allocate(), Err(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED));
        assert_eq!(caller.allocate_of(Some(Family::V6)).expect("an allocation").ip(), v6);
    }
    std::net::TcpStream::connect(server.address()).expect_err("nobody listens over IPv4");
}

#[test]
fn nat_discovery_opens_the_port_above_on_both_addresses_and_tells_nobody() {
    let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let wrapper = vec!["env", "TURNSERVER__AUTH__NAT_DISCOVERY=true"];
    let setup = Setup { listen: vec![V4, other], wrapper, ..Setup::default() };
    let server = Server::start_with(&setup);
    for ip in [V4, other] {
        for port in [server.port, server.port + 1] {
            let mut caller = Caller::udp(SocketAddr::new(ip, port));
            assert_eq!(caller.binding(), Ok(caller.local()), "{ip}:{port}");
        }
    }
    let minted = server.mint().to_string();
    assert!(minted.contains(&format!(":{}", server.port)), "{minted}");
    assert!(!minted.contains(&format!(":{}", server.port + 1)), "{minted}");
    server.signal("HUP");
    until("it is reloaded", || server.log().contains("\"reloaded\""));
    assert!(!server.log().contains("needs restart"), "what was added is no difference: {}", server.log());
}

/// A server in a network of its own, which only its socket file leads out of.
struct Secluded {
    process: Child,
    folder: TempDir,
}

impl Secluded {
    /// `None` where this host does not permit such networks.
    fn starts(prepare: &str, config: &str) -> Option<Self> {
        if !has("unshare") || !has("ip") {
            return None;
        }
        if !Command::new("unshare").args(["-n", "true"]).status().is_ok_and(|status| status.success()) {
            skip("a network namespace needs root");
            return None;
        }
        let folder = TempDir::new("secluded");
        let file = folder.path().join("turnserver.toml");
        let socket = folder.path().join("http.sock");
        std::fs::write(&file, format!("{config}\nhttp.listen = [\"unix:{}\"]\n", socket.display())).expect("a file");
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let script = format!("set -e; {prepare}; exec \"$0\" serve --config \"$1\"");
        let process = Command::new("unshare")
            .args(["-n", "sh", "-c", &script, env!("CARGO_BIN_EXE_turnserver")])
            .arg(&file)
            .env("STATE_DIRECTORY", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("unshare starts");
        let mut server = Self { process, folder };
        until("the secluded server is ready", || {
            let ended = server.process.try_wait().expect("the process can be asked");
            assert!(ended.is_none(), "{ended:?}: {}", server.log());
            asks_for_readiness(&socket).is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
        });
        Some(server)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A command in the server's network.
    fn inside(&self, words: &[&str]) -> Output {
        let pid = self.process.id().to_string();
        Command::new("nsenter").args(["-t", &pid, "-n"]).args(words).output().expect("nsenter is there")
    }
}

impl Drop for Secluded {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn asks_for_readiness(socket: &Path) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn on_a_host_without_ipv6_the_usual_listeners_are_those_of_ipv4() {
    let prepare = "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.lo.disable_ipv6=1; ip link set lo up";
    let Some(server) = Secluded::starts(prepare, "") else { return };
    until("the log tells the listener", || server.log().contains("\"address\":\"0.0.0.0:3478\""));
    if has("turnutils_stunclient") {
        let answer = server.inside(&["turnutils_stunclient", "127.0.0.1"]);
        assert!(String::from_utf8_lossy(&answer.stdout).contains("reflexive addr: 127.0.0.1"), "{answer:?}");
    }
}

#[test]
fn on_a_host_without_ipv4_the_server_is_reached_over_ipv6() {
    let prepare = "ip link set lo up; ip -4 addr flush dev lo";
    let config = "listen = { udp = [\"[::]:3478\"], tcp = [\"[::]:3478\"] }\nrelay.addresses = [\"::1\"]";
    let Some(server) = Secluded::starts(prepare, config) else { return };
    if has("turnutils_stunclient") {
        let answer = server.inside(&["turnutils_stunclient", "::1"]);
        assert!(String::from_utf8_lossy(&answer.stdout).contains("reflexive addr: ::1"), "{answer:?}");
    }
}

#[test]
fn an_address_that_came_later_serves_without_a_restart() {
    let config =
        "listen = { udp = [\"192.0.2.77:3478\"], tcp = [], freebind = true }\nrelay.addresses = [\"192.0.2.77\"]";
    let Some(server) = Secluded::starts("ip link set lo up", config) else { return };
    if !has("turnutils_stunclient") {
        return;
    }
    assert!(server.inside(&["ip", "addr", "add", "192.0.2.77/32", "dev", "lo"]).status.success());
    let answer = server.inside(&["turnutils_stunclient", "192.0.2.77"]);
    assert!(String::from_utf8_lossy(&answer.stdout).contains("reflexive addr: 192.0.2.77"), "{answer:?}");
}

#[test]
fn a_socket_file_is_taken_from_the_dead_and_left_to_the_living() {
    let folder = TempDir::new("socket");
    let socket = folder.path().join("http.sock");
    let setup = Setup { http_socket: Some(socket.clone()), ..Setup::default() };
    let mut first = Server::start_with(&setup);
    assert!(asks_for_readiness(&socket).is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
    let config = std::fs::read_to_string(first.config_file()).expect("the configuration");
    let elsewhere = |text: &str| text.replace(&first.http.to_string(), &format!("127.0.0.1:{}", free_port()));
    let refused = try_to_start(&elsewhere(&config));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("another program listens there"), "{said}");
    assert!(asks_for_readiness(&socket).is_some(), "the first server never noticed");

    first.signal("KILL");
    first.wait();
    assert!(socket.exists(), "the dead clean up nothing");
    let mut second = Server::start_with(&setup);
    assert!(asks_for_readiness(&socket).is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
    second.signal("TERM");
    second.wait();
    assert!(!socket.exists());
}
