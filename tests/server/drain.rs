//! Draining, as the operator asks for it from a shell.

use crate::caller::Caller;
use crate::server::{KEY, Server, Setup, err, exchange, out, until, verb};
use crate::temp::TempDir;
use std::process::{Command, Output, Stdio};

const ADMIN: &str = r#""admin""#;

fn drain(config: &std::path::Path, more: &[&str]) -> Output {
    verb("drain", config, more)
}

#[test]
fn a_drain_is_told_from_a_shell_and_survives_a_reload() {
    let setup = Setup { scopes: ADMIN, ..Setup::default() };
    let server = Server::start_with(&setup);
    let mut caller = Caller::udp(server.address());
    caller.allocate().expect("an allocation");

    let told = drain(&server.config_file(), &[]);
    assert_eq!(told.status.code(), Some(0), "{}", err(&told));
    assert_eq!(out(&told), "draining: new allocations are turned away; 1 allocation lives\n");
    assert_eq!(server.request("GET", "/readyz", "").map(|(status, _)| status), Some(503));
    assert_eq!(server.request("GET", "/healthz", "").map(|(status, _)| status), Some(200));
    assert_eq!(server.metric("turnserver_draining"), 1.0);
    server.mint();

    server.rewrite(&Setup { limits: "allocations = 7".into(), ..setup });
    server.signal("HUP");
    until("it is reloaded", || server.log().contains("\"reloaded\""));
    assert_eq!(server.metric("turnserver_draining"), 1.0);
    caller.refresh(None).expect("a call under way goes on");

    let json = drain(&server.config_file(), &["--cancel", "--json"]);
    assert_eq!(out(&json), "{\"allocations\":1,\"draining\":false}\n");
    assert_eq!(server.request("GET", "/readyz", "").map(|(status, _)| status), Some(200));
    assert_eq!(server.metric("turnserver_draining"), 0.0);
    Caller::udp(server.address()).allocate().expect("the server takes new work");
    let log = server.log();
    assert!(log.contains("draining: new allocations are turned away") && log.contains("draining cancelled"), "{log}");
}

#[test]
fn the_socket_file_is_as_good_as_an_address() {
    let folder = TempDir::new("drain");
    let socket = folder.path().join("http.sock");
    let server = Server::start_with(&Setup { scopes: ADMIN, http_socket: Some(socket.clone()), ..Setup::default() });
    // The address alone would lead nowhere from here on.
    let config = std::fs::read_to_string(server.config_file()).expect("the configuration");
    let here = folder.path().join("turnserver.toml");
    std::fs::write(&here, config.replace(&server.http.to_string(), "127.0.0.1:9")).expect("a file is written");
    let told = drain(&here, &[]);
    assert_eq!(told.status.code(), Some(0), "{}", err(&told));
    assert_eq!(server.metric("turnserver_draining"), 1.0);
}

#[test]
fn a_drain_that_cannot_be_told_says_why() {
    let mut server = Server::start();
    let no_scope = drain(&server.config_file(), &[]);
    assert_eq!(no_scope.status.code(), Some(2));
    assert!(err(&no_scope).contains("no key of http.keys has the scope \"admin\""), "{}", err(&no_scope));

    let config = std::fs::read_to_string(server.config_file()).expect("the configuration");
    let other = server.home.path().join("other.toml");
    let admin = config.replace(r#""mint", "read""#, ADMIN);
    std::fs::write(&other, admin.replace(KEY, "another-key-0123456789")).expect("a file is written");
    let wrong_key = drain(&other, &[]);
    assert_eq!(wrong_key.status.code(), Some(1));
    assert!(err(&wrong_key).contains("answered 401") && err(&wrong_key).contains("--config"), "{}", err(&wrong_key));
    assert!(!err(&wrong_key).contains("another-key"), "{}", err(&wrong_key));
    std::fs::write(&other, &admin).expect("a file is written");
    let no_scope_there = drain(&other, &[]);
    assert_eq!(no_scope_there.status.code(), Some(1));
    assert!(err(&no_scope_there).contains("answered 403"), "{}", err(&no_scope_there));

    server.signal("TERM");
    server.wait();
    let nobody = drain(&other, &[]);
    assert_eq!(nobody.status.code(), Some(1));
    let said = err(&nobody);
    assert!(said.contains(&format!("http://{}", server.http)) && said.contains("no server runs there"), "{said}");
}

#[test]
fn a_server_without_configuration_is_drained_with_the_key_it_made() {
    let server = Server::start_bare();
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
    command.arg("drain").env("STATE_DIRECTORY", server.home.path()).stdin(Stdio::null());
    let told = command.env("TURNSERVER__HTTP__LISTEN", server.http.to_string()).output().expect("turnserver starts");
    assert_eq!(told.status.code(), Some(0), "{}", err(&told));
    let ready = exchange(server.http, "GET", "/readyz", "", "").expect("the server answers");
    assert!(ready.0 == 503 && ready.1.contains("draining"), "{ready:?}");
}
