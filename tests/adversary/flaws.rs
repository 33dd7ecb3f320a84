//! One test for each row of `docs/flaws.md`: the script's verdict on our server, and what only its owner can look at.

use crate::pair::Authority;
use crate::script::{Check, Loopback, SCRIPT, Target, Verdict};
use crate::server::{KEY, SECRET, Server, Setup, exchange, free_ports};
use crate::temp::TempDir;
use crate::visitor::{Visitor, unix_now};
use crate::{chance, coturn};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use turnserver::wire::codes::Attribute;

const PORTS: u16 = 40;

/// Our server as a target, set up like the one the script is tried on.
struct Ours {
    server: Server,
    target: Target,
    _authority: Authority,
}

fn ours(loopback: Loopback) -> Ours {
    let authority = Authority::new();
    let first = free_ports(PORTS);
    let (v4, v6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
    let setup = Setup {
        relay: vec![v4, v6],
        relay_lines: format!("ports = \"{first}-{}\"", first + PORTS - 1),
        allow: if loopback == Loopback::Open { vec!["127.0.0.0/8"] } else { Vec::new() },
        deny: vec!["special-purpose", "2a00:ff::/32", "2a00:100::/32"],
        limits: "allocations_per_user = 2".into(),
        auth_lines: "mobility = true\noauth = { kid = \"north\", key = \"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK\", algorithm = \"A256GCM\" }",
        tls: authority.pair("server", &["localhost"]).lines(),
        dtls: true,
        workers: 1,
        ..Setup::default()
    };
    let server = Server::start_with(&setup);
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let target = Target {
        address: server.address(),
        dtls: Some(at(server.dtls_port())),
        realm: "test.example",
        secret: SECRET,
        expires: unix_now() + 3600,
        loopback,
        doors: vec![server.address(), server.tls_address(), at(server.dtls_port()), server.http],
        console: None,
        denied: "2a00:ff::".parse().expect("an address")
            ..="2a00:100:ffff:ffff:ffff:ffff:ffff:ffff".parse().expect("an address"),
        ports: PORTS,
        quota: 2,
        origin: "https://other.example",
        pid: server.pid(),
        log: server.home.path().join("log"),
    };
    Ours { server, target, _authority: authority }
}

/// What the script cannot see of a server that withstands it.
const NOT_SHOWN: [&str; 2] = ["commit dbc28840", "commit e72930f5"];

/// Tries the flaw with loopback shut and with loopback open.
fn withstands(id: &str) -> [Ours; 2] {
    let servers = [Loopback::Shut, Loopback::Open].map(ours);
    let verdicts = servers.each_ref().map(|ours| Check::of(id).run(&ours.target));
    assert!(!verdicts.iter().any(|verdict| matches!(verdict, Verdict::Flawed(_))), "{id}: {verdicts:?}");
    assert_eq!(!verdicts.contains(&Verdict::Holds), NOT_SHOWN.contains(&id), "{id}: {verdicts:?}");
    servers
}

/// The sources of the program, with their paths.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file is text");
                found.push((path, text));
            }
        }
    }
    found
}

#[test]
fn adv_cve_2018_4056_quotes_log_nobody_in() {
    withstands("CVE-2018-4056");
}

#[test]
fn adv_cve_2018_4058_loopback_is_shut() {
    withstands("CVE-2018-4058");
}

#[test]
fn adv_cve_2018_4059_no_door_but_the_configured_ones() {
    let [ours, _] = withstands("CVE-2018-4059");
    for (method, path) in [("POST", "/v1/ice-servers"), ("GET", "/turn?service=turn"), ("POST", "/v1/drain")] {
        let answer = exchange(ours.server.http, method, path, "", "{}");
        assert!(matches!(answer, Some((401 | 403, _))), "{method} {path} without a key: {answer:?}");
    }
}

#[test]
fn adv_cve_2020_6061_6062_http_is_not_spoken_on_the_turn_port() {
    withstands("CVE-2020-6061/6062");
}

#[test]
fn adv_cve_2020_4067_padding_is_zero() {
    withstands("CVE-2020-4067");
}

#[test]
fn adv_cve_2020_26262_unspecified_is_no_peer() {
    withstands("CVE-2020-26262");
}

#[test]
fn adv_cve_2021_21382_own_doors_are_no_peers() {
    withstands("CVE-2021-21382");
}

#[test]
fn adv_cve_2025_69217_chance_cannot_be_foreseen() {
    const COUNT: usize = 128;
    withstands("CVE-2025-69217");
    let first = 36_000;
    let relay_lines = format!("ports = \"{first}-{}\"", u16::MAX);
    let limits = "allocations_per_user = 0\nunauthenticated_per_ip = \"100000/s\"".into();
    let server = Server::start_with(&Setup { relay_lines, limits, ..Setup::default() });
    let mut visitors = Vec::new();
    let (mut ports, mut tokens) = (Vec::new(), Vec::new());
    for _ in 0..COUNT {
        let mut visitor = Visitor::udp(server.address(), "u", "p");
        let granted = visitor.allocates(&[(Attribute::EVEN_PORT, &[0x80])]).expect("an answer");
        let relay = granted.message().and_then(|message| message.xor_address(Attribute::XOR_RELAYED_ADDRESS)?.ok());
        ports.push(u32::from(relay.expect("an allocation").port() - first) / 2);
        tokens.push(granted.get(Attribute::RESERVATION_TOKEN).expect("a token"));
        visitors.push(visitor);
    }
    assert_eq!(chance::is_foreseeable(&tokens), None);
    assert_eq!(chance::are_in_order(&ports, u32::from(u16::MAX - first) / 2), None, "{ports:?}");
}

#[test]
fn adv_ghsa_j8mm_mpf8_gvjg_mapped_loopback_is_no_peer() {
    withstands("CVE-2026-27624 = GHSA-j8mm-mpf8-gvjg");
}

#[test]
fn adv_commit_7f7dc99d_wrong_passwords_open_no_door() {
    let [ours, _] = withstands("commit 7f7dc99d");
    let half = &KEY[..KEY.len() / 2];
    for wrong in [String::new(), "x".into(), half.into(), format!("{KEY}x"), KEY.to_uppercase(), SECRET.into()] {
        let head = format!("Authorization: Bearer {wrong}\r\n");
        let by_header = exchange(ours.server.http, "POST", "/v1/ice-servers", &head, "{}");
        let by_query = exchange(ours.server.http, "GET", &format!("/turn?service=turn&key={wrong}"), "", "");
        for answer in [by_header, by_query] {
            let (status, body) = answer.expect("an answer");
            assert!(matches!(status, 401 | 403 | 429), "{wrong:?}: {status} {body}");
        }
    }
}

#[test]
fn adv_ghsa_j662_9wcj_mf36_odd_offsets_are_read() {
    withstands("CVE-2026-40613 = GHSA-j662-9wcj-mf36");
    for (path, text) in sources() {
        // `net` hands the kernel its own structures; no byte of a message is read there.
        let is_net = path.components().any(|part| part.as_os_str() == "net");
        assert!(is_net || text.contains("#![forbid(unsafe_code)]") || path.ends_with("lib.rs"), "{}", path.display());
    }
}

#[test]
fn adv_commit_46368b3e_tokens_of_any_length_are_refused() {
    withstands("commit 46368b3e");
}

#[test]
fn adv_commit_dbc28840_secrets_are_compared_in_constant_time() {
    withstands("commit dbc28840");
    let sources = sources();
    let (_, integrity) = sources.iter().find(|(path, _)| path.ends_with("wire/integrity.rs")).expect("it is there");
    let body = integrity.split("pub fn equal(").nth(1).and_then(|rest| rest.split("\n}").next()).expect("it is there");
    assert!(body.contains(".ct_eq(") && !body.contains("=="), "{body}");
    for (path, text) in &sources {
        for line in text.lines().filter(|line| line.contains("hmac_sha") || line.contains("mac(")) {
            let is_compared = line.contains(" == hmac") || line.contains(") == ") && line.contains("hmac_sha");
            let is_equal = line.contains("equal(");
            assert!(!is_compared || is_equal, "{}: {line}", path.display());
        }
    }
}

#[test]
fn adv_commit_c37ccf4d_origin_pins_nothing() {
    withstands("commit c37ccf4d");
}

#[test]
fn adv_ghsa_v8hj_2xx7_xmp5_statements_delete_nobody() {
    withstands("GHSA-v8hj-2xx7-xmp5");
}

#[test]
fn adv_ghsa_4g7c_p5wg_j4hp_names_are_data() {
    withstands("GHSA-4g7c-p5wg-j4hp");
}

#[test]
fn adv_commit_e72930f5_no_command_writes_a_file() {
    withstands("commit e72930f5");
    for verb in ["serve", "check", "credential", "drain"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
        let output = command.args([verb, "--help"]).stdin(Stdio::null()).output().expect("the program runs");
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        let takes_file = |line: &&str| line.contains("<FILE>") || line.contains("<PATH>");
        let options: Vec<&str> = help.lines().filter(takes_file).map(str::trim_start).collect();
        assert!(matches!(options[..], [only] if only.starts_with("--config")), "{verb}: {options:?}");
    }
    // The one file that a verb is given is read.
    let home = TempDir::new("precious");
    let file = home.path().join("precious");
    for verb in ["serve", "check", "credential", "drain"] {
        std::fs::write(&file, "precious").expect("a file is written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
        let command = command.arg(verb).arg("--config").arg(&file).env("STATE_DIRECTORY", home.path());
        let output = command.stdin(Stdio::null()).output().expect("the program runs");
        assert_eq!(output.status.code(), Some(2), "{verb}: no configuration is like this");
        assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "precious", "{verb}");
    }
}

#[test]
fn adv_commit_b057acbe_other_clothes_of_loopback_are_no_peers() {
    withstands("commit b057acbe");
}

#[test]
fn adv_commits_cf4b4952_d49ee56a_e2735cf0_translated_and_local_are_no_peers() {
    withstands("commits cf4b4952, d49ee56a, e2735cf0");
}

#[test]
fn adv_ghsa_m23x_5qf5_988g_no_redirect_is_read() {
    withstands("GHSA-m23x-5qf5-988g");
}

#[test]
fn adv_commit_ab762f33_what_follows_the_signature_does_nothing() {
    withstands("commit ab762f33");
}

#[test]
fn adv_commit_6c13608c_a_denied_range_is_denied_whole() {
    withstands("commit 6c13608c");
}

#[test]
fn adv_commit_a97f1924_moves_leave_nothing_behind() {
    withstands("commit a97f1924");
}

#[test]
fn adv_issue_1999_strangers_leave_nothing_behind() {
    withstands("issue 1999");
}

#[test]
fn adv_ghsa_5x2p_4vqj_f6m4_hellos_leave_nothing_behind() {
    withstands("GHSA-5x2p-4vqj-f6m4");
}

#[test]
fn adv_commit_3c5b2615_a_move_frees_no_quota() {
    withstands("commit 3c5b2615");
}

#[test]
fn adv_hackerone_333419_connections_go_nowhere_inside() {
    withstands("HackerOne 333419");
}

#[test]
fn adv_netbird_3900_strangers_get_less_than_they_send() {
    withstands("netbird 3900");
}

#[test]
fn adv_ghost_calls_credentials_live_a_day_at_most() {
    let [ours, _] = withstands("Ghost Calls");
    let ended = ours.server.log();
    let ended = ended.lines().filter(|line| line.contains("allocation ended")).collect::<Vec<_>>();
    assert!(!ended.is_empty());
    assert!(ended.iter().all(|line| line.contains("bytes_to_peer") && line.contains("\"user\"")), "{ended:?}");
}

#[test]
fn adv_commit_4adbd82e_even_ports_come_back() {
    withstands("commit 4adbd82e");
}

/// The cells of the table of `docs/flaws.md`.
fn rows() -> Vec<Vec<String>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/flaws.md");
    let text = std::fs::read_to_string(page).expect("the page is there");
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    text.lines().filter(|line| line.starts_with("| ")).skip(2).map(cells).collect()
}

#[test]
fn every_flaw_of_the_table_is_a_test_and_every_test_a_row() {
    let tests: BTreeSet<String> = include_str!("flaws.rs")
        .split("#[test]\nfn ")
        .skip(1)
        .filter_map(|rest| {
            rest.split('(').next().filter(|name| name.starts_with("adv_")).map(|name| format!("`{name}`"))
        })
        .collect();
    let rows = rows();
    assert_eq!(rows.iter().map(|row| row[4].clone()).collect::<BTreeSet<_>>(), tests);
    let flaws: BTreeSet<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(flaws, SCRIPT.iter().map(|check| check.id).collect());
    assert_eq!(rows.len(), SCRIPT.len());
    let seen: BTreeSet<&str> = rows.iter().filter(|row| row[5] == "yes").map(|row| row[0].as_str()).collect();
    assert_eq!(seen, coturn::FLAWS.iter().flat_map(|(_, found)| *found).copied().collect());
}
