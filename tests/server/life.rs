//! Start, reload and end, as those see them who are being served.

use crate::caller::{CHANNEL, Caller, Data, Peer};
use crate::server::{Server, Setup, free_port, until};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use turnserver::wire::codes::ErrorCode;

/// Starts the program where it must not stay, and waits for its end.
fn try_to_start(config: &Path) -> Output {
    let mut command = Command::new("timeout");
    command.args(["20", env!("CARGO_BIN_EXE_turnserver"), "serve", "--config"]).arg(config).stdin(Stdio::null());
    command.output().expect("timeout is there")
}

#[test]
fn sigterm_ends_every_allocation_in_the_log_and_closes_every_socket() {
    let mut server = Server::start_with(&Setup { allow: vec!["127.0.0.0/8"], ..Setup::default() });
    let peer = Peer::new();
    let mut callers = [Caller::udp(server.address()), Caller::tcp(server.address())];
    let relays = callers.each_mut().map(|caller| caller.allocate().expect("an allocation"));
    for (caller, relay) in callers.iter_mut().zip(relays) {
        caller.bind(CHANNEL, peer.address()).expect("a channel");
        caller.sends_on(CHANNEL, b"twelve bytes");
        assert_eq!(peer.hears(), (relay, b"twelve bytes".to_vec()));
    }
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));

    let log = server.log();
    let ended: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of the log is JSON"))
        .filter(|line| line["message"] == "allocation ended")
        .collect();
    assert_eq!(ended.len(), 2, "{log}");
    for line in &ended {
        assert_eq!((&line["reason"], &line["bytes_to_peer"]), (&"stopped".into(), &12.into()), "{line}");
        assert_eq!((&line["packets_to_peer"], &line["bytes_to_client"]), (&1.into(), &0.into()), "{line}");
    }
    assert!(callers[1].is_cut_off());
    for relay in relays {
        UdpSocket::bind(relay).expect("the relay port is free");
    }
    UdpSocket::bind(server.address()).expect("the listener is free");
    TcpStream::connect(server.address()).expect_err("nobody listens");
    assert!(log.lines().last().is_some_and(|line| line.contains("\"stopped\"")), "{log}");
}

#[test]
fn a_port_that_is_taken_is_named_with_what_to_do() {
    let server = Server::start();
    let config = std::fs::read_to_string(server.config_file()).expect("the configuration");
    let other = server.home.path().join("other.toml");
    let elsewhere = format!("127.0.0.1:{}", free_port());
    for (key, taken) in [("udp", "udp = ["), ("tcp", "tcp = [")] {
        // Only one of the two listeners stays where the first server is.
        let moved: Vec<String> = config
            .replace(&server.http.to_string(), &elsewhere)
            .lines()
            .map(|line| {
                let moves = line.starts_with("udp =") || line.starts_with("tcp =");
                if moves && !line.starts_with(taken) { format!("{} = []", &line[..3]) } else { line.to_owned() }
            })
            .collect();
        std::fs::write(&other, moved.join("\n")).expect("a file is written");
        let output = try_to_start(&other);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let (address, upper) = (server.address(), key.to_uppercase());
        assert!(said.contains(&format!("listen.{key} = \"{address}\"")), "{said}");
        assert!(said.contains(&format!("another program has this {upper} port")), "{said}");
    }
    Caller::udp(server.address()).allocate().expect("the first server never noticed");
    Caller::tcp(server.address()).allocate().expect("the first server never noticed");
}

#[test]
fn a_mistake_in_the_configuration_is_told_before_any_socket_opens() {
    let server = Server::start();
    // Every port of this configuration is taken: had one been opened, that would be the complaint.
    let config = std::fs::read_to_string(server.config_file()).expect("the configuration");
    let wrong = server.home.path().join("wrong.toml");
    std::fs::write(&wrong, config.replace("deny =", "dney =")).expect("a file is written");
    let line = config.lines().position(|line| line.starts_with("deny =")).expect("the key is there") + 1;
    let output = try_to_start(&wrong);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("{}:{line}", wrong.display())), "line {line} is not named:\n{said}");
    assert!(said.contains("peers.dney") && said.contains("deny"), "{said}");
    assert!(!said.contains("another program"), "{said}");
    Caller::udp(server.address()).binding().expect("the first server never noticed");
}

#[test]
fn a_reload_with_a_new_rule_cuts_what_it_forbids_and_nothing_else() {
    let mut setup = Setup { allow: vec!["127.0.0.0/8"], ..Setup::default() };
    let server = Server::start_with(&setup);
    let (gone, stays) = (Peer::at("127.0.0.2:0".parse().expect("an address")), Peer::new());
    let mut callers: Vec<Caller> = (0..4).map(|_| Caller::udp(server.address())).collect();
    let relays: Vec<_> = callers.iter_mut().map(|caller| caller.allocate().expect("an allocation")).collect();
    for (caller, relay) in callers.iter_mut().zip(&relays) {
        caller.bind(CHANNEL, gone.address()).expect("a channel");
        caller.permit(stays.address()).expect("a permission");
        caller.sends_on(CHANNEL, b"before");
        assert_eq!(gone.hears(), (*relay, b"before".to_vec()));
    }

    setup.deny.push("127.0.0.2/32");
    server.rewrite(&setup);
    server.signal("HUP");
    until("the rule is in force", || server.metric("turnserver_channels") < 1.0);

    for (caller, relay) in callers.iter_mut().zip(&relays) {
        caller.sends_on(CHANNEL, b"after");
        caller.sends_to(gone.address(), b"after");
        gone.says(*relay, b"after");
        // What the rule leaves open still passes, both ways and after what it forbids.
        caller.sends_to(stays.address(), b"still");
        assert_eq!(stays.hears(), (*relay, b"still".to_vec()));
        stays.says(*relay, b"still");
        assert_eq!(caller.data(), Data::From(stays.address(), b"still".to_vec()));
        assert!(gone.hears_nothing());
        assert_eq!(caller.permit(gone.address()), Err(ErrorCode::FORBIDDEN));
        assert_eq!(caller.bind(CHANNEL, gone.address()), Err(ErrorCode::FORBIDDEN));
    }
}

#[test]
fn a_reload_with_a_mistake_cuts_nobody() {
    let mut setup = Setup { allow: vec!["127.0.0.0/8"], ..Setup::default() };
    let server = Server::start_with(&setup);
    let (mut caller, peer) = (Caller::udp(server.address()), Peer::new());
    let relay = caller.allocate().expect("an allocation");
    caller.bind(CHANNEL, peer.address()).expect("a channel");
    setup.deny.push("127.0.0.1/8"); // bits beyond the length
    setup.password = "another";
    server.rewrite(&setup);
    server.signal("HUP");
    until("the mistake is told", || server.log().contains("nothing has changed"));
    caller.sends_on(CHANNEL, b"still");
    assert_eq!(peer.hears(), (relay, b"still".to_vec()));
    caller.refresh(None).expect("the password is the old one");
    Caller::udp(server.address()).allocate().expect("the password is the old one");
}

#[test]
fn a_user_taken_out_of_the_configuration_loses_the_allocation() {
    let mut setup = Setup::default();
    let server = Server::start_with(&setup);
    let mut caller = Caller::udp(server.address());
    caller.allocate().expect("an allocation");
    setup.password = "another";
    server.rewrite(&setup);
    server.signal("HUP");
    until("the allocation ends", || server.log().contains("\"reason\":\"revoked\""));
    assert!(caller.allocate().is_err());
    Caller::udp(server.address()).with("u", "another").allocate().expect("the new password is in force");
}

#[test]
fn a_tcp_port_that_is_taken_by_another_program_is_left_to_it() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = other.local_addr().expect("a bound socket has an address");
    let home = crate::temp::TempDir::new("taken");
    let config = home.path().join("turnserver.toml");
    let text = format!(
        "[listen]\nudp = []\ntcp = [\"{taken}\"]\n[relay]\naddresses = [\"127.0.0.1\"]\n[auth]\nsecrets = [\"s\"]\n[http]\nlisten = []\n"
    );
    std::fs::write(&config, text).expect("a file is written");
    let output = try_to_start(&config);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&taken.to_string()), "{said}");
}
