//! What a flood does to the log: ten lines a second of one kind, and the number of the others.

use crate::pair::Authority;
use crate::server::{Server, Setup, until};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

const CONNECTIONS: u64 = 1000;

#[test]
fn a_thousand_failed_handshakes_are_a_few_lines_that_count_them_all() {
    let authority = Authority::new();
    let tls = authority.pair("server", &["turn.example.org"]).lines();
    let setup = Setup { tls, log_level: "debug", log_format: "json", workers: 2, ..Setup::default() };
    let server = Server::start_with(&setup);
    #[expect(clippy::disallowed_methods, reason = "lines are bounded by the seconds they come in")]
    let begin = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(server.tls_address()).expect("the server listens");
        // A record of TLS that no handshake begins with. Whether its end comes as an alert or as a reset is all one.
        let _ = stream.write_all(&[22, 3, 1, 0, 4, 99, 99, 99, 99]);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let failed = || {
        let log = server.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let (mut said, mut left_out, mut counts) = (0, 0, 0);
        for line in lines {
            said += u64::from(line["message"] == "a TLS connection failed");
            if line["event"] == "a TLS connection failed" {
                assert_eq!(line["message"], "more like this were left out");
                left_out += line["left_out"].as_u64().expect("a number");
                counts += 1;
            }
        }
        (said, left_out, counts)
    };
    until("all are told", || {
        let (said, left_out, _) = failed();
        said + left_out >= CONNECTIONS
    });
    let seconds = begin.elapsed().as_secs() + 1;
    let (said, left_out, counts) = failed();
    assert_eq!(said + left_out, CONNECTIONS);
    assert!(said <= 10 * seconds && counts <= seconds, "{said} lines and {counts} counts in {seconds} s");
    assert_eq!(server.metric("turnserver_dropped_packets_total{reason=\"tls\"}"), CONNECTIONS as f64);
}
