//! What a running server says of itself: over HTTP, in a shell, in the metrics and in the log.

use crate::caller::{Caller, Peer};
use crate::server::{KEY, Server, Setup, err, out, verb};
use serde_json::{Value, json};
use std::process::Output;
use turnserver::net::udp::Abilities;

fn status(config: &std::path::Path, more: &[&str]) -> Output {
    verb("status", config, more)
}

#[test]
fn the_data_plane_in_use_is_visible_everywhere() {
    let server = Server::start_with(&Setup { workers: 2, log_format: "json", ..Setup::default() });
    let (heard, answer) = server.request("GET", "/v1/status", "").expect("the server answers");
    assert_eq!(heard, 200, "{answer}");
    let answer: Value = serde_json::from_str(&answer).expect("the answer is JSON");
    let Abilities { receives_trains, sends_trains } = Abilities::probe();
    let plane = &answer["data_plane"];
    assert_eq!((&plane["path"], &plane["workers"]), (&json!("userspace"), &json!(2)));
    assert_eq!((&plane["receives_trains"], &plane["sends_trains"]), (&json!(receives_trains), &json!(sends_trains)));
    assert!(plane["why"].as_str().is_some_and(|why| why.contains("no kernel path")), "{plane}");
    let here = server.address().to_string();
    let expected = json!([
        { "transport": "udp", "address": here },
        { "transport": "tcp", "address": here },
        { "transport": "http", "address": server.http.to_string() },
    ]);
    assert_eq!(answer["listeners"], expected);

    let label = |trains| if trains { "trains" } else { "single" };
    let (receive, send) = (label(receives_trains), label(sends_trains));
    let series = format!("turnserver_data_plane_info{{path=\"userspace\",receive=\"{receive}\",send=\"{send}\"}}");
    assert_eq!(server.metric(&series), 1.0);
    let log = server.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("\"data plane\"")).collect();
    let [line] = lines[..] else { panic!("it is told once\n{log}") };
    let fields =
        [("path", json!("userspace")), ("workers", json!(2)), ("receive", json!(receive)), ("send", json!(send))];
    for (name, value) in fields {
        assert!(line.contains(&format!("\"{name}\":{value}")), "{name}: {line}");
    }
}

#[test]
fn what_is_carried_is_told_in_a_shell() {
    let server = Server::start_with(&Setup { allow: vec!["127.0.0.1/32"], workers: 1, ..Setup::default() });
    let mut caller = Caller::tcp(server.address());
    caller.allocate().expect("an allocation");
    let peer = Peer::new();
    caller.bind(0x4000, peer.address()).expect("a channel");
    caller.sends_on(0x4000, &[7; 100]);
    let (relay, _) = peer.hears();
    peer.says(relay, &[8; 50]);
    caller.data();

    let json = status(&server.config_file(), &["--json"]);
    assert_eq!(json.status.code(), Some(0), "{}", err(&json));
    let answer: Value = serde_json::from_str(&out(&json)).expect("the answer is JSON");
    let carried = json!({ "to_peer": { "packets": 1, "bytes": 100 }, "to_client": { "packets": 1, "bytes": 50 } });
    assert_eq!(answer["relayed"], carried);
    assert_eq!((&answer["allocations"], &answer["connections"]), (&json!(1), &json!(1)));
    assert_eq!(answer["relay_ports"]["used"], 1);

    let page = out(&status(&server.config_file(), &[]));
    assert!(page.starts_with(concat!("turnserver   ", env!("CARGO_PKG_VERSION"), ", up ")), "{page}");
    for line in ["data plane   userspace, 1 worker; ", "allocations  1\n", "connections  1\n", "relay ports  1 used, "]
    {
        assert!(page.contains(line), "{line}\n{page}");
    }
    assert!(page.contains("to peers     1 packet, 100 B") && page.contains("to clients   1 packet, 50 B"), "{page}");
    assert!(page.contains(&format!("listening    udp {}\n", server.address())), "{page}");
}

#[test]
fn a_rate_is_there_once_a_second_has_passed() {
    let server = Server::start();
    crate::server::until("there is a rate", || {
        let (_, answer) = server.request("GET", "/v1/status", "").expect("the server answers");
        let answer: Value = serde_json::from_str(&answer).expect("the answer is JSON");
        let over = answer["rates"]["over_seconds"].as_f64();
        over.is_some_and(|over| over >= 1.0 && answer["rates"]["to_peer"]["packets_per_second"] == 0.0)
    });
}

#[test]
fn a_status_that_is_refused_or_that_nobody_gives_says_what_to_mend() {
    let mut server = Server::start_with(&Setup { scopes: r#""mint""#, ..Setup::default() });
    assert_eq!(server.request("GET", "/v1/status", "").map(|(status, _)| status), Some(403));
    let no_scope = status(&server.config_file(), &[]);
    assert_eq!(no_scope.status.code(), Some(2));
    assert!(err(&no_scope).contains("no key of http.keys has the scope \"read\""), "{}", err(&no_scope));

    let config = std::fs::read_to_string(server.config_file()).expect("the configuration");
    let other = server.home.path().join("other.toml");
    let read = config.replace(r#"scopes = ["mint"]"#, r#"scopes = ["read"]"#);
    std::fs::write(&other, read.replace(KEY, "another-key-0123456789")).expect("a file is written");
    let wrong_key = status(&other, &[]);
    assert_eq!(wrong_key.status.code(), Some(1));
    assert!(err(&wrong_key).contains("answered 401") && err(&wrong_key).contains("--config"), "{}", err(&wrong_key));
    assert!(!err(&wrong_key).contains("another-key"), "{}", err(&wrong_key));

    server.signal("TERM");
    server.wait();
    std::fs::write(&other, read).expect("a file is written");
    let nobody = status(&other, &["--json"]);
    assert_eq!((nobody.status.code(), out(&nobody)), (Some(1), String::new()));
    assert!(err(&nobody).contains("no server runs there"), "{}", err(&nobody));
}
