//! The script on a server that is known to have flaws: what it finds there is asserted by name, so that it cannot go
//! blind.

use crate::pair::Authority;
use crate::script::{Loopback, SCRIPT, Target, Verdict};
use crate::server::{SECRET, free_ports, until};
use crate::skip::{has, skip};
use crate::temp::TempDir;
use crate::visitor::unix_now;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use turnserver::client::Client;

const PROGRAM: &str = "/usr/bin/turnserver";
/// The version whose flaws are listed here: Debian 12's.
const VERSION: &str = "4.6.1";
const REALM: &str = "test.example";
const ORIGIN: &str = "https://other.example";
const PORTS: u16 = 40;
const QUOTA: u16 = 2;
const CONSOLE_PASSWORD: &str = "the-password-of-the-console";

struct Coturn {
    process: Child,
    target: Target,
    _home: TempDir,
    _authority: Authority,
}

impl Coturn {
    /// coturn as its manual has it, and with what a check needs: mobility, a quota, a denied range, a console.
    fn start(loopback: Loopback) -> Self {
        let home = TempDir::new("coturn");
        let file = |name: &str| home.path().join(name).display().to_string();
        let authority = Authority::new();
        let pair = authority.pair("server", &["localhost"]);
        let port = free_ports(6);
        let first = free_ports(PORTS);
        let origin = ["-O", "-b", &file("db"), "-o", ORIGIN, "-r", "other.example"];
        let known = Command::new("turnadmin").args(origin).stdin(Stdio::null()).output();
        assert!(known.is_ok_and(|output| output.status.success()), "an origin can be made known");
        let words = format!(
            "-n --use-auth-secret --static-auth-secret {SECRET} --realm {REALM} --listening-ip 127.0.0.1 \
             --relay-ip 127.0.0.1 --relay-ip ::1 --listening-port {port} --tls-listening-port {tls} \
             --min-port {first} --max-port {last} --user-quota {QUOTA} --mobility --cli-ip 127.0.0.1 --cli-port {console} \
             --cli-password {CONSOLE_PASSWORD} --denied-peer-ip 2a00:ff::-2a00:100:ffff:ffff:ffff:ffff:ffff:ffff \
             --relay-threads 1 --no-stdout-log --simple-log -v",
            tls = port + 2,
            console = port + 4,
            last = first + PORTS - 1,
        );
        let mut command = Command::new(PROGRAM);
        command.args(words.split_whitespace());
        command.args(["--cert", &pair.cert.display().to_string(), "--pkey", &pair.key.display().to_string()]);
        command.args(["--userdb", &file("db"), "--log-file", &file("log"), "--pidfile", &file("pid")]);
        if loopback == Loopback::Open {
            command.arg("--allow-loopback-peers");
        }
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("an installed program starts");
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let target = Target {
            address: at(port),
            dtls: Some(at(port + 2)),
            realm: REALM,
            secret: SECRET,
            expires: unix_now() + 3600,
            loopback,
            doors: vec![at(port), at(port + 2), at(port + 4)],
            console: Some((at(port + 4), CONSOLE_PASSWORD)),
            denied: "2a00:ff::".parse().expect("an address")
                ..="2a00:100:ffff:ffff:ffff:ffff:ffff:ffff".parse().expect("an address"),
            ports: PORTS,
            quota: QUOTA,
            origin: ORIGIN,
            pid: process.id(),
            log: home.path().join("log"),
        };
        let coturn = Self { process, target, _home: home, _authority: authority };
        until("coturn answers", || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out can be set");
            let _ = socket.send_to(&Client::new("", "", 1).binding(), coturn.target.address);
            socket.recv(&mut [0; 1500]).is_ok()
        });
        coturn
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What each check says of a server on which the operator has shut loopback, and of one on which it is open.
fn verdicts(loopback: Loopback) -> Vec<(&'static str, Verdict)> {
    let coturn = Coturn::start(loopback);
    SCRIPT.iter().map(|check| (check.id, check.run(&coturn.target))).collect()
}

/// The flaws that are found with loopback shut, and those that are found with loopback open.
pub(crate) const FLAWS: [(Loopback, &[&str]); 2] = [
    (
        Loopback::Shut,
        &[
            "CVE-2026-27624 = GHSA-j8mm-mpf8-gvjg",
            "commit c37ccf4d",
            "GHSA-4g7c-p5wg-j4hp",
            "commit e72930f5",
            "commit b057acbe",
            "commits cf4b4952, d49ee56a, e2735cf0",
            "commit ab762f33",
            "commit 6c13608c",
            "issue 1999",
            "GHSA-5x2p-4vqj-f6m4",
            "HackerOne 333419",
            "netbird 3900",
            "Ghost Calls",
        ],
    ),
    (
        Loopback::Open,
        &[
            "CVE-2021-21382",
            "CVE-2026-27624 = GHSA-j8mm-mpf8-gvjg",
            "commit c37ccf4d",
            "GHSA-4g7c-p5wg-j4hp",
            "commit e72930f5",
            "commit b057acbe",
            "commits cf4b4952, d49ee56a, e2735cf0",
            "commit ab762f33",
            "commit 6c13608c",
            "issue 1999",
            "GHSA-5x2p-4vqj-f6m4",
            "HackerOne 333419",
            "netbird 3900",
            "Ghost Calls",
        ],
    ),
];

#[test]
fn the_script_has_teeth() {
    if !has("turnutils_uclient") {
        return;
    }
    let told =
        Command::new(PROGRAM).arg("--version").stdin(Stdio::null()).output().expect("an installed program starts");
    let version = String::from_utf8_lossy(&told.stdout).trim().to_owned();
    if !version.contains(VERSION) {
        return skip(&format!("the flaws of coturn {version} are not listed"));
    }
    for (loopback, expected) in FLAWS {
        let verdicts = verdicts(loopback);
        let told: Vec<String> = verdicts.iter().map(|(id, verdict)| format!("{id}: {verdict:?}")).collect();
        let is_flawed = |(id, verdict): &(&'static str, Verdict)| matches!(verdict, Verdict::Flawed(_)).then_some(*id);
        let found: Vec<&str> = verdicts.iter().filter_map(is_flawed).collect();
        assert_eq!(found, expected, "{loopback:?}\n{}", told.join("\n"));
    }
}
