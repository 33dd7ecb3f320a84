//! What must never be shown, and what strangers must not be able to write into the log.

use crate::caller::{CHANNEL, Caller, Peer};
use crate::pair::{Authority, FAR, Files};
use crate::server::{KEY, SECRET, Server, Setup, exchange, until};
use std::fmt::Debug;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use turnserver::client::Client;
use turnserver::config::{self, Host};
use turnserver::control::http::{Settings, Uris};
use turnserver::control::keys::{Keyring, Presented};
use turnserver::net::tls::Pair;
use turnserver::time::{UnixSeconds, minutes};
use turnserver::turn::credential::{self, Secret};
use turnserver::turn::opaque::OpaqueString;
use turnserver::wire::codes::ErrorCode;
use turnserver::wire::integrity::Key;

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

/// A configuration with every kind of secret there is, and those secrets as they stand in it.
fn with_every_secret(server: &Server, pair: &Files) -> Vec<(&'static str, String)> {
    const MD5: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
    const SHA256: &str = "c0ffee00c0ffee11c0ffee22c0ffee33c0ffee44c0ffee55c0ffee66c0ffee77";
    const TOKEN_KEY: &str = "aHVzaC1odXNoLXZlcnktc2VjcmV0LWh1c2gtaHVzaCE=";
    const SPARE: &str = "a-spare-secret-that-nobody-may-read";
    const FROM_FILE: &str = "a-secret-of-the-file-that-nobody-may-read";
    let file = server.home.path().join("secrets");
    std::fs::write(&file, format!("{FROM_FILE}\n")).expect("a file is written");
    let config = std::fs::read_to_string(server.config_file()).expect("the configuration");
    let more = format!(
        "[auth]\nsecret_file = {file:?}\n\
         oauth = {{ kid = \"north\", key = \"{TOKEN_KEY}\", algorithm = \"A256GCM\" }}\n"
    );
    let config = config
        .replace("[auth]\n", &more)
        .replace("users = { ", &format!("users = {{ m = \"hmac:{MD5}\", s = \"sha256:{SHA256}\", "))
        .replace(&format!("secrets = [\"{SECRET}\""), &format!("secrets = [\"{SECRET}\", \"{SPARE}\""));
    std::fs::write(server.config_file(), config).expect("a file is written");
    let key = std::fs::read_to_string(&pair.key).expect("the key of the certificate");
    let key = key.lines().nth(1).expect("a line of base64").to_owned();
    [("MD5", MD5), ("SHA-256", SHA256), ("token key", TOKEN_KEY), ("spare", SPARE), ("file", FROM_FILE)]
        .map(|(kind, text)| (kind, text.to_owned()))
        .into_iter()
        .chain([("private key", key), ("secret", SECRET.into()), ("API key", KEY.into())])
        .collect()
}

#[test]
fn no_kind_of_secret_is_shown_in_any_form_of_log_nor_by_check_nor_in_a_problem() {
    const PASSWORD: &str = "a-password-that-nobody-may-read";
    let authority = Authority::new();
    let pair = authority.pair("server", &["localhost"]);
    for log_format in ["json", "human", "logfmt"] {
        let setup = Setup { tls: pair.lines(), password: PASSWORD, log_level: "trace", log_format, ..Setup::default() };
        let server = Server::start_with(&setup);
        let mut secrets = with_every_secret(&server, &pair);
        secrets.push(("password", PASSWORD.into()));
        server.signal("HUP");
        until("the reload is in the log", || server.log().contains("reloaded"));
        let credential = server.mint()["credential"].as_str().expect("a text").to_owned();
        let mut wrong = Caller::tcp(server.address()).with("m", &credential);
        assert_eq!(wrong.allocate(), Err(ErrorCode::UNAUTHENTICATED));
        secrets.push(("minted", credential));

        let mut check = Command::new(env!("CARGO_BIN_EXE_turnserver"));
        check.args(["check", "--config"]).arg(server.config_file()).env("STATE_DIRECTORY", server.home.path());
        let check = check.output().expect("check runs");
        let ask = |path: &str, head: &str| exchange(server.http, "GET", path, head, "").expect("an answer").1;
        let bearer = |key: &str| format!("Authorization: Bearer {key}\r\n");
        let (_, openapi) = server.request("GET", "/openapi.json", "").expect("an answer");
        let (status, lacking) = server.request("POST", "/v1/drain", "").expect("an answer");
        assert_eq!(status, 403, "the key lacks a scope: {lacking}");
        let shown = [
            ("the log", server.log()),
            ("check", String::from_utf8_lossy(&check.stdout).into_owned()),
            ("what check complains of", String::from_utf8_lossy(&check.stderr).into_owned()),
            ("the metrics", server.metrics()),
            ("a problem of a scope", lacking),
            ("a problem of a wrong key", ask("/metrics", &bearer(PASSWORD))),
            ("a problem of an unknown path", ask(&format!("/{SECRET}?key={KEY}"), "")),
            ("the description", openapi),
        ];
        assert!(shown[1].1.len() + shown[2].1.len() > 100, "check says something: {shown:?}");
        for (place, text) in &shown {
            for (kind, secret) in &secrets {
                assert!(!text.contains(secret.as_str()), "{place} ({log_format}) shows the {kind}:\n{text}");
            }
        }
    }
}

#[test]
fn nothing_printed_for_a_developer_shows_a_secret() {
    const HUSH: &str = "hush-hush-very-secret";
    let config = format!(
        "auth.secrets = [\"{HUSH}\"]\nauth.users = {{ alice = \"{HUSH}\" }}\nauth.oauth = {{ kid = \"north\", key = \
         \"aHVzaC1odXNoLXZlcnktc2VjcmV0LWh1c2gtaHVzaCE=\", algorithm = \"A256GCM\" }}\n[[http.keys]]\nid = \
         \"backend\"\nsecret = \"{HUSH}0\"\nscopes = [\"mint\"]\n"
    );
    let loaded = config::load(Some(("file", &config)), []).expect("a configuration");
    let host = Host { name: "h".into(), interfaces: vec![[127, 0, 0, 1].into()], ..Host::default() };
    let policy = loaded.config.policy(&host, Secret::new(HUSH), &[Secret::new(HUSH)]).expect("a policy");
    let name = OpaqueString::new(HUSH).expect("a text");
    let minted = credential::mint(&Secret::new(HUSH), None, credential::SEPARATOR, minutes(1), UnixSeconds(0));
    let password = minted.password.to_string();
    let (chain, pem) = Authority::new().vouch(&["localhost"], FAR);
    let pair = Pair::from_pem(chain.as_bytes(), pem.as_bytes()).expect("a pair");
    let der: &[u8] = pair.key().secret_der();
    let keys = Keyring::new(&loaded.config.http.keys);
    let settings = Settings {
        keys,
        secrets: policy.auth.secrets.clone(),
        separator: ':',
        max_ttl: minutes(1),
        uris: Uris::default(),
        metrics_public: false,
    };
    let all: [&dyn Debug; 11] = [
        &loaded,
        &policy,
        &policy.auth.users,
        &policy.auth.oauth,
        &settings,
        &Presented::bare(HUSH),
        &name,
        &minted,
        &Client::new("alice", HUSH, 1),
        &Key::from_bytes(HUSH.as_bytes()).expect("a short key"),
        &pair,
    ];
    let numbers = |bytes: &[u8]| format!("{bytes:?}").trim_matches(['[', ']']).to_owned();
    let hidden = [HUSH.to_owned(), password, numbers(HUSH.as_bytes()), numbers(&der[..16])];
    for shown in all.iter().flat_map(|value| [format!("{value:?}"), format!("{value:#?}").replace(['\n', ' '], "")]) {
        for secret in &hidden {
            assert!(!shown.contains(secret.as_str()) && !shown.contains(&secret.replace(' ', "")), "{shown}");
        }
    }
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
    let is_of_start = |line: &&String| line.contains("listening") || line.contains("data plane");
    let started = lines.iter().filter(is_of_start).count();
    let calls = lines.iter().filter(|line| line.contains(" allocation=") || line.contains("\"allocation\":")).count();
    assert_eq!((calls, lines.len()), (2 * HOSTILE.len(), started + 2 * HOSTILE.len()), "{log}");
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
