//! What a relayed packet and a request cost: this server, coturn, the crate `turn` and a bare forwarder side by side.
//!
//! Each server runs on CPU 0, one after the other, and `turnserver load` on CPU 1. Each round takes every server through a case
//! before the next round begins, so that a machine that drifts drifts for all of them. The table has medians of the rounds,
//! and medians of the rounds' ratios: these alone mean anything on another machine. `CPU µs` is the time of all of a
//! server's threads divided by the packets that came out at the far end. Started by root, everything happens in a network of its own.
//! What a server cannot do, or fails at, is a dash.
//!
//! `cargo bench --bench relay -- [--rounds 3] [--seconds 2] [--only WORD]... [--json FILE] [--svg FILE]`
//!
//! `--only` picks the cases whose names have the word in them. `--json` adds to the file when it is there, so
//! that a long run can be made in parts; the table and the picture then show all that the file has.
#![forbid(unsafe_code)]
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a tool for people")]

#[path = "support/bare.rs"]
mod bare;
#[path = "support/cases.rs"]
mod cases;
#[path = "support/network.rs"]
mod network;
#[path = "../tests/support/pair.rs"]
mod pair;
#[path = "support/report.rs"]
mod report;
#[path = "support/servers.rs"]
mod servers;
#[path = "../tests/support/temp.rs"]
mod temp;
#[path = "support/webrtc_rs.rs"]
mod webrtc_rs;

use cases::{CASES, Case};
use report::Report;
use serde_json::Value;
use servers::{Certificate, Kind, SERVE, Server, USER};
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == SERVE) {
        return serve(&arguments[at + 1], arguments[at + 2].parse().expect("a port"));
    }
    network::enter();
    let options = Options::parse(&arguments);
    turnserver::net::raise_file_limit().expect("the file limit can be raised");
    let certificate = Certificate::new();
    let mut report = Report::read(options.json.as_deref());
    let cases = CASES.iter().filter(|case| options.wants(case));
    for case in cases {
        report.begin(case);
        let mut kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| case.is_for(*kind)).collect();
        for round in 0..options.rounds {
            for kind in &kinds {
                let server = Server::start(*kind, &certificate);
                let answer = measure(case, &server, &certificate, &options);
                report.note(case, *kind, answer.as_ref().ok());
                if let Err(why) = answer {
                    eprintln!("{}: {} fails: {why}", case.name, kind.name());
                }
            }
            eprintln!("{}: round {} of {} done", case.name, round + 1, options.rounds);
            kinds.rotate_left(1); // nobody is always the first
        }
        if let Some(file) = &options.json {
            report.write(file).expect("the figures can be written");
        }
    }
    print!("{}", report.table());
    if let Some(file) = &options.svg {
        std::fs::write(file, report.picture()).expect("the picture can be written");
    }
}

/// Is one of the servers that this program has in itself.
fn serve(name: &str, port: u16) {
    turnserver::net::raise_file_limit().expect("the file limit can be raised");
    if name == Kind::Bare.name() {
        bare::serve(port, USER).expect("the forwarder runs");
    } else {
        webrtc_rs::serve(port, USER).expect("the server runs");
    }
}

/// Runs the generator on one case, and returns its line.
fn measure(case: &Case, server: &Server, certificate: &Certificate, options: &Options) -> Result<Value, String> {
    let uri = match case.transport {
        "tls" => format!("turns:{}?transport=tcp", server.tls),
        transport => format!("turn:{}?transport={transport}", server.address),
    };
    let mut generator = Command::new("taskset");
    generator.args(["-c", "1", env!("CARGO_BIN_EXE_turnserver"), "load", &uri]);
    generator.args(["--username", USER[0], "--password", USER[1], "--server-pid", &server.pid().to_string()]);
    generator.args(case.arguments.split_whitespace());
    if case.is_timed {
        generator.args(["--seconds", &options.seconds.to_string()]);
    }
    if case.transport == "tls" {
        generator.arg("--ca").arg(certificate.authority());
    }
    let output = generator.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let line = String::from_utf8_lossy(&output.stdout);
    let answer = serde_json::from_str(line.trim()).map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())?;
    if output.status.success() { Ok(answer) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

struct Options {
    rounds: usize,
    seconds: u64,
    only: Vec<String>,
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
}

impl Options {
    fn parse(arguments: &[String]) -> Self {
        let all = |name: &str| {
            let at = arguments.windows(2).filter(move |pair| pair[0] == name);
            at.map(|pair| pair[1].clone()).collect::<Vec<_>>()
        };
        let number =
            |name: &str, default: u64| all(name).last().map_or(default, |text| text.parse().expect("a number"));
        Self {
            rounds: number("--rounds", 3) as usize,
            seconds: number("--seconds", 2),
            only: all("--only"),
            json: all("--json").pop().map(PathBuf::from),
            svg: all("--svg").pop().map(PathBuf::from),
        }
    }

    fn wants(&self, case: &Case) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| case.name.contains(word.as_str()))
    }
}
