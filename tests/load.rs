//! The load generator against real servers: ours and Debian's coturn. Every load ends by a count of packets.

#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "a story that cannot go on ends there")]

#[path = "support/pair.rs"]
mod pair;
#[path = "support/server.rs"]
mod server;
#[path = "support/skip.rs"]
mod skip;
#[path = "support/temp.rs"]
mod temp;

use pair::Authority;
use serde_json::Value;
use server::{SECRET, Server, Setup, free_port, until};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use temp::TempDir;
use turnserver::client::Client;

const STATIC: [&str; 4] = ["--username", "u", "--password", "p"];
const DIRECTIONS: [&str; 3] = ["up", "down", "echo"];

/// A server that relays to this host, and lets a flood of strangers in.
fn setup() -> Setup {
    Setup {
        allow: vec!["127.0.0.0/8", "::1/128"],
        limits: "unauthenticated_per_ip = \"1000000/s\"".into(),
        workers: 2,
        ..Setup::default()
    }
}

fn command(uri: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
    command.env_clear().args(["load", uri]).args(arguments).stdin(Stdio::null());
    command
}

fn uri(server: &Server) -> String {
    format!("turn:127.0.0.1:{}", server.port)
}

fn run(uri: &str, arguments: &[&str]) -> Output {
    command(uri, arguments).output().unwrap()
}

/// The one line of a load that went well.
fn line(output: &Output) -> Value {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    assert_eq!((out.lines().count(), &*err), (1, ""), "{out}");
    serde_json::from_str(&out).unwrap()
}

fn report(uri: &str, arguments: &[&str]) -> Value {
    line(&run(uri, &[&STATIC, arguments].concat()))
}

/// Everything that was sent arrived, in order, and everything was released.
#[track_caller]
fn nothing_is_lost(report: &Value, count: u64) {
    assert_eq!((&report["sent"], &report["received"]), (&count.into(), &count.into()), "{report}");
    for name in ["lost", "late", "not_sent", "out_of_order", "unreleased"] {
        assert!(report[name].is_null() || report[name] == 0, "{report}");
    }
    let times = if report["rtt_us"].is_null() { &report["latency_us"] } else { &report["rtt_us"] };
    let quantiles = ["p50", "p90", "p99", "p99_9", "max"].map(|name| times[name].as_f64().unwrap());
    assert!(quantiles[0] > 0.0 && quantiles.is_sorted(), "{report}");
}

/// Each direction in both framings, to peers and from relay to relay.
fn everything_over(uri: &str, options: &[&str]) {
    for direction in DIRECTIONS {
        for mode in ["channel", "send"] {
            let common = ["--direction", direction, "--mode", mode, "--clients", "4", "--packets", "100"];
            let told = report(uri, &[&common, options].concat());
            nothing_is_lost(&told, 100);
            assert_eq!((&told["direction"], &told["mode"]), (&direction.into(), &mode.into()));
            assert_eq!(
                (told["rtt_us"].is_null(), told["latency_us"].is_null()),
                (direction != "echo", direction == "echo")
            );
        }
    }
}

#[test]
fn packets_go_every_way_over_udp() {
    let server = Server::start_with(&setup());
    everything_over(&uri(&server), &[]);
    everything_over(&uri(&server), &["--peer", "same-server"]);
    assert!(server.metric_sum("turnserver_allocations{") < 1.0, "all are released");
}

#[test]
fn packets_go_every_way_over_tcp() {
    let server = Server::start_with(&setup());
    // A size that is no multiple of four: over a stream it is padded.
    everything_over(&format!("{}?transport=tcp", uri(&server)), &["--size", "163"]);
}

#[test]
fn packets_go_every_way_under_tls_to_whom_one_believes() {
    let authority = Authority::new();
    let tls = authority.pair("server", &["localhost", "127.0.0.1"]).lines();
    let server = Server::start_with(&Setup { tls, ..setup() });
    let uri = format!("turns:127.0.0.1:{}", server.tls_port());
    let ca = authority.file().display().to_string();
    everything_over(&uri, &["--ca", &ca]);
    nothing_is_lost(&report(&uri, &["--packets", "10", "--insecure", "--peer", "same-server"]), 10);
    let stranger = Authority::new();
    let ca = stranger.file().display().to_string();
    refused(&run(&uri, &[&STATIC[..], &["--ca", &ca]].concat()), 1, &["TLS with 127.0.0.1:", "--insecure"]);
}

#[test]
fn packets_go_over_ipv6_from_end_to_end() {
    let ip = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let server = Server::start_with(&Setup { listen: vec![ip], relay: vec![ip], ..setup() });
    let uri = format!("turn:[::1]:{}", server.port);
    for direction in DIRECTIONS {
        nothing_is_lost(&report(&uri, &["--direction", direction, "--packets", "50", "--mode", "send"]), 50);
    }
}

#[test]
fn a_paced_load_counts_from_its_schedule() {
    let server = Server::start_with(&setup());
    for direction in DIRECTIONS {
        let told =
            report(&uri(&server), &["--rate", "100", "--clients", "10", "--packets", "300", "--direction", direction]);
        nothing_is_lost(&told, 300);
        assert_eq!(
            (&told["latency_from"], &told["rate"], &told["window"]),
            (&"schedule".into(), &100.into(), &Value::Null)
        );
    }
}

#[test]
fn threads_peers_and_windows_share_the_load() {
    let server = Server::start_with(&setup());
    for direction in DIRECTIONS {
        let told = report(
            &uri(&server),
            &[
                "--threads",
                "2",
                "--peers",
                "3",
                "--window",
                "5",
                "--clients",
                "7",
                "--packets",
                "501",
                "--direction",
                direction,
            ],
        );
        nothing_is_lost(&told, 501);
        assert_eq!((&told["threads"], &told["window"], &told["latency_from"]), (&2.into(), &5.into(), &"send".into()));
    }
    // One client sends in batches.
    nothing_is_lost(&report(&uri(&server), &["--clients", "1", "--window", "64", "--packets", "500"]), 500);
}

#[test]
fn trains_carry_what_single_packets_do() {
    let server = Server::start_with(&setup());
    for direction in DIRECTIONS {
        for (clients, mode) in [("1", "channel"), ("6", "send")] {
            let common = ["--gso", "on", "--window", "16", "--packets", "501", "--direction", direction];
            nothing_is_lost(
                &report(&uri(&server), &[&common[..], &["--clients", clients, "--mode", mode]].concat()),
                501,
            );
        }
    }
    nothing_is_lost(&report(&uri(&server), &["--gso", "on", "--peer", "same-server", "--packets", "200"]), 200);
}

#[test]
fn requests_come_in_floods() {
    let server = Server::start_with(&setup());
    for transport in ["udp", "tcp"] {
        let uri = format!("{}?transport={transport}", uri(&server));
        // Nobody needs to be known for that.
        let told = line(&run(&uri, &["--kind", "binding", "--packets", "500", "--clients", "8"]));
        nothing_is_lost(&told, 500);
        assert!(told["bindings_per_second"].as_f64() > Some(0.0) && told["allocations"].is_null(), "{told}");
        let told = report(&uri, &["--kind", "refresh", "--packets", "500", "--clients", "8", "--window", "3"]);
        nothing_is_lost(&told, 500);
        assert!(told["refreshes_per_second"].as_f64() > Some(0.0), "{told}");
        let told = report(&uri, &["--kind", "allocate", "--clients", "200"]);
        assert_eq!((&told["allocations"], &told["unreleased"], &told["sent"]), (&200.into(), &0.into(), &Value::Null));
        assert!(told["allocations_per_second"].as_f64() > Some(0.0), "{told}");
    }
    assert!(server.metric_sum("turnserver_allocations_total") >= 416.0);
    assert!(server.metric_sum("turnserver_allocations{") < 1.0, "all are released");
}

#[test]
fn what_it_costs_the_server_is_told_beside_it() {
    let server = Server::start_with(&setup());
    let pid = server.pid().to_string();
    let told = report(&uri(&server), &["--packets", "20000", "--server-pid", &pid]);
    let cost = |told: &Value, name: &str| told["server"][name].as_f64();
    assert!(cost(&told, "cpu_us_per_packet") > Some(0.0), "{told}");
    assert!(cost(&told, "cpu_share") > Some(0.0) && told["generator"]["busy"].as_f64() > Some(0.0), "{told}");
    let told = report(&uri(&server), &["--kind", "allocate", "--clients", "1000", "--server-pid", &pid]);
    assert!(cost(&told, "bytes_per_allocation").is_some_and(|bytes| (100.0..100_000.0).contains(&bytes)), "{told}");
    assert!(cost(&told, "cpu_us_per_allocation") > Some(0.0), "{told}");
    let output = run(&uri(&server), &[&STATIC[..], &["--server-pid", "4000000000"]].concat());
    refused(&output, 1, &["--server-pid 4000000000"]);
}

#[test]
fn a_loss_is_written_off_and_stalls_nobody() {
    let limits = format!("{}\nbandwidth_per_allocation = \"80 kbit/s\"", setup().limits);
    let server = Server::start_with(&Setup { limits, ..setup() });
    let told = report(&uri(&server), &["--clients", "2", "--size", "1000", "--packets", "300"]);
    let number = |name: &str| told[name].as_u64().unwrap();
    assert_eq!(number("sent"), 300);
    assert!(number("received") > 0 && number("lost") > 100, "{told}");
    assert_eq!(number("lost"), 300 - number("received"));
    assert!(told["loss"].as_f64().is_some_and(|loss| loss > 0.3 && loss < 1.0), "{told}");
}

#[test]
fn the_credential_need_not_stand_on_the_command_line() {
    let server = Server::start_with(&setup());
    let (uri, home) = (uri(&server), TempDir::new("load"));
    let file = home.path().join("secret");
    std::fs::write(&file, format!("{SECRET}\nan-old-one\n")).unwrap();
    let file = file.display().to_string();
    let count = ["--packets", "5"];
    nothing_is_lost(&line(&run(&uri, &[&["--secret", SECRET][..], &count].concat())), 5);
    nothing_is_lost(&line(&run(&uri, &[&["--secret-file", &file][..], &count].concat())), 5);
    nothing_is_lost(&line(&command(&uri, &count).env("TURN_SECRET", SECRET).output().unwrap()), 5);
    let known = command(&uri, &count).env("TURN_USERNAME", "u").env("TURN_PASSWORD", "p").output().unwrap();
    nothing_is_lost(&line(&known), 5);
    let password =
        command(&uri, &[&["--username", "u"][..], &count].concat()).env("TURN_PASSWORD", "p").output().unwrap();
    nothing_is_lost(&line(&password), 5);
    let config = server.config_file().display().to_string();
    nothing_is_lost(&line(&run(&uri, &[&["--config", &config][..], &count].concat())), 5);
    let state = home.path().join("state").display().to_string();
    let nobody = command(&uri, &count).env("STATE_DIRECTORY", state).output().unwrap();
    refused(&nobody, 2, &["no secret is configured", "--secret-file"]);
    refused(&run(&uri, &["--username", "u"]), 2, &["--password", "$TURN_PASSWORD"]);
}

/// Exit code, and what the one sentence says; nothing on standard output.
#[track_caller]
fn refused(output: &Output, code: i32, words: &[&str]) {
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*output.stdout), (Some(code), &b""[..]), "{err}");
    assert!(words.iter().all(|word| err.contains(word)), "{words:?}: {err}");
}

#[test]
fn a_refusal_names_the_code_and_what_to_mend() {
    let server = Server::start_with(&setup());
    let at = uri(&server);
    let wrong = ["--username", "u", "--password", "wrong"];
    refused(&run(&at, &wrong), 1, &["refuses Allocate with 401", "auth.secrets", "static-auth-secret"]);
    refused(&run(&at, &["--secret", "a-wrong-secret"]), 1, &["with 401", "--secret"]);

    let ordinary = Server::start();
    let at = uri(&ordinary);
    let loopback = ["peers.allow = [\"127.0.0.1/32\"]", "--allow-loopback-peers", "same-server"];
    // A peer on a port of the relay range could be another client of this server: it is not refused, but what is for it is
    // dropped. Which port the peer has is chance.
    let output = run(&at, &[&STATIC[..], &["--packets", "10"]].concat());
    refused(&output, 1, &loopback);
    let output = run(&at, &[&STATIC[..], &["--packets", "10", "--mode", "send"]].concat());
    refused(&output, 1, &[&["not one of 10 packets arrived"][..], &loopback].concat());
    assert!(ordinary.metric_sum("turnserver_allocations{") < 1.0, "what was allocated is released all the same");

    let limits = format!("{}\nallocations_per_user = 3", setup().limits);
    let server = Server::start_with(&Setup { limits, ..setup() });
    let output = run(&uri(&server), &STATIC);
    refused(&output, 1, &["Allocate with 486", "limits.allocations_per_user", "user-quota"]);
    let server = Server::start_with(&Setup { relay_lines: "ports = \"39000-39003\"".into(), ..setup() });
    refused(&run(&uri(&server), &STATIC), 1, &["Allocate with 508", "relay.ports", "min-port"]);
}

#[test]
fn what_cannot_work_is_said_at_once() {
    let nobody = format!("turn:127.0.0.1:{}", free_port());
    refused(&run(&nobody, &STATIC), 1, &["nobody listens on 127.0.0.1:", "over udp"]);
    refused(&run(&format!("{nobody}?transport=tcp"), &STATIC), 1, &["nobody listens", "over tcp"]);
    refused(&run(&nobody, &["--kind", "binding"]), 1, &["nobody listens"]);
    let deaf = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let silent = format!("turn:{}", deaf.local_addr().unwrap());
    refused(&run(&silent, &["--kind", "binding", "--packets", "2"]), 1, &["not one of 2 requests was answered"]);
    for (uri, word) in [
        ("turns:127.0.0.1?transport=udp", "a load over DTLS is not in this version"),
        ("stun:127.0.0.1", "turn:127.0.0.1"),
        ("turn:127.0.0.1?transport=sctp", "udp or tcp"),
    ] {
        refused(&run(uri, &STATIC), 2, &[word]);
    }
    refused(&run(&nobody, &[&STATIC[..], &["--size", "8"]].concat()), 2, &["--size", "16 bytes"]);
    refused(&run(&nobody, &[&STATIC[..], &["--clients", "3", "--peer", "same-server"]].concat()), 2, &["even"]);
    for words in
        [["--size", "160"], ["--direction", "up"], ["--mode", "send"], ["--peer", "127.0.0.1"], ["--peers", "2"]]
    {
        refused(&run(&nobody, &[&["--kind", "binding"], &words[..]].concat()), 2, &[words[0], "--kind relay"]);
    }
    if skip::has("prlimit") {
        let mut few = Command::new("prlimit");
        few.args(["--nofile=100", env!("CARGO_BIN_EXE_turnserver"), "load", &nobody]).args(STATIC);
        refused(&few.output().unwrap(), 1, &["--clients 100 needs", "ulimit -n"]);
    }
}

#[test]
fn a_signal_ends_the_load_and_not_its_report() {
    let server = Server::start_with(&setup());
    for signal in ["INT", "TERM"] {
        let mut command = command(&uri(&server), &[&STATIC[..], &["--seconds", "3600"]].concat());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let relayed = server.metric_sum("turnserver_relayed_packets_total{direction=\"to_peer\"");
        until("packets are relayed", || {
            server.metric_sum("turnserver_relayed_packets_total{direction=\"to_peer\"") > relayed
        });
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()));
        let told = line(&child.wait_with_output().unwrap());
        assert_eq!((&told["interrupted"], &told["unreleased"]), (&true.into(), &0.into()), "{told}");
        assert!(told["received"].as_u64() > Some(0));
        assert!(server.metric_sum("turnserver_allocations{") < 1.0, "all are released");
    }
}

#[test]
fn a_server_that_ends_while_one_only_listens_is_told() {
    let server = Server::start_with(&setup());
    let mut command = command(&uri(&server), &[&STATIC[..], &["--direction", "down", "--seconds", "2"]].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("packets are relayed", || {
        server.metric_sum("turnserver_relayed_packets_total{direction=\"to_client\"") > 0.0
    });
    server.signal("KILL");
    refused(&child.wait_with_output().unwrap(), 1, &["allocations could be released", "has ended"]);
}

#[test]
fn the_line_has_the_documented_fields_and_no_others() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/load.md")).unwrap();
    let table = page.lines().skip_while(|line| !line.starts_with("| field |")).skip(2);
    let cells = table.take_while(|line| line.starts_with('|')).filter_map(|line| line.split('|').nth(1));
    let documented: BTreeSet<String> =
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect();

    let server = Server::start_with(&setup());
    let (uri, pid) = (uri(&server), server.pid().to_string());
    let mut told = BTreeSet::new();
    for options in [
        &["--direction", "echo", "--rate", "1000"][..],
        &["--direction", "up"],
        &["--kind", "binding"],
        &["--kind", "refresh"],
        &["--kind", "allocate"],
    ] {
        // Enough for the server to be seen at work.
        let common = ["--packets", "2000", "--clients", "20", "--server-pid", &pid];
        let report = report(&uri, &[&common, options].concat());
        for (name, value) in report.as_object().unwrap() {
            match value.as_object() {
                Some(inner) if !name.ends_with("_us") => told.extend(inner.keys().map(|key| format!("{name}.{key}"))),
                _ => drop(told.insert(name.clone())),
            }
        }
    }
    assert_eq!(told, documented);
}

/// Debian's coturn, ended with the test.
struct Coturn {
    process: Child,
    port: u16,
    _home: TempDir,
}

impl Coturn {
    fn start(options: &[&str]) -> Self {
        let (home, port) = (TempDir::new("coturn"), free_port());
        let words = format!(
            "-c /dev/null --no-cli --use-auth-secret --static-auth-secret {SECRET} --realm r --listening-ip 127.0.0.1 \
             --relay-ip 127.0.0.1 --listening-port {port} --no-tls --no-dtls --log-file /dev/null --relay-threads 1"
        );
        let mut command = Command::new("/usr/bin/turnserver");
        command.args(words.split_whitespace()).args(options);
        command.arg("--pidfile").arg(home.path().join("pid"));
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let coturn = Self { process, port, _home: home };
        until("coturn answers", || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let _ = socket.send_to(&Client::new("", "", 1).binding(), (Ipv4Addr::LOCALHOST, coturn.port));
            socket.recv(&mut [0; 1500]).is_ok()
        });
        coturn
    }

    fn uri(&self, transport: &str) -> String {
        format!("turn:127.0.0.1:{}?transport={transport}", self.port)
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn coturn_carries_a_load_as_well() {
    if !skip::has("turnutils_uclient") {
        return;
    }
    let coturn = Coturn::start(&["--allow-loopback-peers"]);
    let pid = coturn.process.id().to_string();
    let load = |transport: &str, options: &[&str]| {
        let common = ["--secret", SECRET, "--clients", "10", "--server-pid", &pid];
        line(&run(&coturn.uri(transport), &[&common, options].concat()))
    };
    for direction in DIRECTIONS {
        for mode in ["channel", "send"] {
            nothing_is_lost(&load("udp", &["--direction", direction, "--mode", mode, "--packets", "300"]), 300);
        }
        nothing_is_lost(&load("tcp", &["--direction", direction, "--packets", "300"]), 300);
        nothing_is_lost(&load("udp", &["--direction", direction, "--packets", "100", "--peer", "same-server"]), 100);
    }
    nothing_is_lost(&load("udp", &["--kind", "binding", "--packets", "300"]), 300);
    nothing_is_lost(&load("udp", &["--kind", "refresh", "--packets", "300"]), 300);
    let told = load("udp", &["--kind", "allocate"]);
    assert_eq!((&told["allocations"], &told["unreleased"]), (&10.into(), &0.into()));
}

#[test]
fn coturn_s_refusals_are_told_too() {
    if !skip::has("turnutils_uclient") {
        return;
    }
    let coturn = Coturn::start(&["--user-quota", "2"]);
    let output = run(&coturn.uri("udp"), &["--secret", SECRET, "--clients", "1"]);
    refused(&output, 1, &["ChannelBind with 403", "--allow-loopback-peers"]);
    refused(&run(&coturn.uri("udp"), &["--secret", "wrong", "--clients", "1"]), 1, &["Allocate with 401"]);
    let quota = run(&coturn.uri("udp"), &["--secret", SECRET, "--clients", "5", "--kind", "allocate"]);
    refused(&quota, 1, &["Allocate with 486", "user-quota"]);
}
