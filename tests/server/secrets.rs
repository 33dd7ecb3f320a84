//! What must never be shown, and what strangers must not be able to write into the log.

use crate::caller::{CHANNEL, Caller, Peer};
use crate::server::{KEY, SECRET, Server, Setup, exchange, until};
use std::time::{SystemTime, UNIX_EPOCH};
use turnserver::turn::credential::{self, Secret};
use turnserver::wire::codes::ErrorCode;

#[test]
fn a28_no_secret_is_shown_anywhere_at_any_level() {
    const PASSWORD: &str = "a-password-that-nobody-may-read";
    const OTHER: &str = "another-password-that-nobody-may-read";
    let mut setup = Setup { allow: vec!["127.0.0.0/8"], password: PASSWORD, log_level: "trace", ..Setup::default() };
    let server = Server::start_with(&setup);
    let minted = server.mint();
    let text = |name: &str| minted[name].as_str().expect("a text").to_owned();
    let (username, credential) = (text("username"), text("credential"));
    let peer = Peer::new();
    for mut caller in
        [Caller::udp(server.address()).with("u", PASSWORD), Caller::tcp(server.address()).with(&username, &credential)]
    {
        caller.allocate().expect("an allocation");
        caller.permit(peer.address()).expect("a permission");
        caller.sends_to(peer.address(), b"data");
        peer.hears();
        caller.release();
    }
    let mut wrong = Caller::udp(server.address()).with("u", &credential);
    assert_eq!(wrong.allocate(), Err(ErrorCode::UNAUTHENTICATED));
    let draft = format!("/turn?service=turn&username=alice&key={KEY}");
    assert!(exchange(server.http, "GET", &draft, "", "").is_some_and(|(status, _)| status < 300));
    assert!(exchange(server.http, "GET", "/turn?service=turn&key=a-wrong-key-1234567890", "", "").is_some());
    setup.password = OTHER;
    server.rewrite(&setup);
    server.signal("HUP");
    until("the reload is in the log", || server.log().contains("\"reloaded\""));
    // Now a mistake that stands on the very line of a secret.
    let config = std::fs::read_to_string(server.config_file()).expect("the configuration");
    std::fs::write(server.config_file(), config.replace("secrets =", "secrts =").replace(" }\n", " \n"))
        .expect("a file");
    server.signal("HUP");
    until("the mistake is told", || server.log().contains("nothing has changed"));

    let (_, openapi) = server.request("GET", "/openapi.json", "").expect("the server answers");
    let cmdline = std::fs::read(format!("/proc/{}/cmdline", server.pid())).expect("the process runs");
    let environ = std::fs::read(format!("/proc/{}/environ", server.pid())).expect("the process runs");
    let shown = [
        ("the log", server.log()),
        ("the metrics", server.metrics()),
        ("the description", openapi),
        ("the command line", String::from_utf8_lossy(&cmdline).into_owned()),
        ("the environment", String::from_utf8_lossy(&environ).into_owned()),
    ];
    for (place, text) in &shown {
        for secret in [SECRET, KEY, PASSWORD, OTHER, &credential, "a-wrong-key-1234567890"] {
            assert!(!text.contains(secret), "{place} shows {secret}:\n{text}");
        }
    }
    assert!(shown[0].1.contains("allocation ended"), "the log says something at all");
    assert!(!shown[1].1.contains("alice") && !shown[1].1.contains("browser"), "no metric names a user");
}

#[test]
fn x05_the_log_says_who_called_and_at_no_level_whom() {
    // The decision: RFC 8656 §21.3.2 would permit a line for each permission. Whom somebody talks to is nobody's business,
    // and a line that a client can cause with each packet is a flood.
    let server = Server::start_with(&Setup { allow: vec!["127.0.0.0/8"], log_level: "trace", ..Setup::default() });
    let (mut caller, peer) = (Caller::udp(server.address()), Peer::new());
    caller.allocate().expect("an allocation");
    caller.permit(peer.address()).expect("a permission");
    caller.bind(CHANNEL, peer.address()).expect("a channel");
    caller.sends_to(peer.address(), b"data");
    peer.hears();
    caller.release();
    until("the end is in the log", || server.log().contains("allocation ended"));
    let log = server.log();
    assert!(log.contains(&caller.local().to_string()), "{log}");
    assert!(!log.contains(&format!(":{}", peer.address().port())), "{log}");
}

/// User names that would do harm in a log that believed them.
const HOSTILE: [&str; 6] = [
    "x\n2033-05-18T03:33:20Z  INFO allocation made user=root",
    "x\r\ntime=2033-05-18T03:33:20Z level=INFO message=\"stopped\"",
    "x\",\"level\":\"ERROR\",\"message\":\"stopped\"}\n{\"a\":\"",
    "\u{1b}[2J\u{1b}[31mred",
    "\u{9b}2J\u{85}\u{2028}\u{202e}",
    "%s%n$(reboot)`reboot`' OR 1=1 --",
];

/// A server that such users call, and the end of their calls.
#[expect(clippy::disallowed_methods, reason = "a time-limited name says when it ends")]
fn called_by_the_hostile(log_format: &'static str) -> Server {
    let server = Server::start_with(&Setup { log_format, ..Setup::default() });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    for name in HOSTILE {
        let username = format!("{}:{name}", now + 600);
        let password = credential::password(&Secret::new(SECRET), &username);
        let mut caller = Caller::udp(server.address()).with(&username, &password);
        caller.allocate().expect("an allocation");
        caller.release();
        let _refused = Caller::tcp(server.address()).with(name, "wrong").allocate();
    }
    until("every end is in the log", || server.log().matches("allocation ended").count() >= HOSTILE.len());
    server
}

/// One record is one line, and no line holds what a terminal obeys.
fn lines(server: &Server) -> Vec<String> {
    let log = server.log();
    let obeyed = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}');
    let lines: Vec<String> = log.lines().map(str::to_owned).collect();
    assert!(lines.iter().all(|line| !line.contains(obeyed)), "{log:?}");
    let listening = lines.iter().filter(|line| line.contains("listening")).count();
    let calls = lines.iter().filter(|line| line.contains(" allocation=") || line.contains("\"allocation\":")).count();
    assert_eq!((calls, lines.len()), (2 * HOSTILE.len(), listening + 2 * HOSTILE.len()), "{log}");
    lines
}

#[test]
fn a_user_name_stays_within_its_line_of_the_human_log() {
    let server = called_by_the_hostile("human");
    let lines = lines(&server);
    assert!(lines.iter().all(|line| line.starts_with("20")));
    let within_quotes = |line: &String| line.contains(" user=\"") || !line.contains("user=root");
    assert!(lines.iter().all(within_quotes), "{lines:?}");
}

#[test]
fn a_user_name_stays_within_its_line_of_the_logfmt_log() {
    let server = called_by_the_hostile("logfmt");
    let lines = lines(&server);
    assert!(lines.iter().all(|line| line.starts_with("time=20")));
    assert!(!lines.iter().any(|line| line.contains("message=\"stopped\"")));
}

#[test]
fn a_user_name_stays_within_its_field_of_the_json_log() {
    let server = called_by_the_hostile("json");
    let records: Vec<serde_json::Value> =
        lines(&server).iter().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    assert!(records.iter().all(|record| record["level"] != "ERROR" && record["message"] != "stopped"));
    for name in HOSTILE {
        let of_user = |record: &&serde_json::Value| record["user"].as_str().is_some_and(|user| user.ends_with(name));
        assert_eq!(records.iter().filter(of_user).count(), 2, "{name:?}");
    }
}
