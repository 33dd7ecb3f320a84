//! coturn's TURN client over UDP, TCP, TLS and DTLS, with every extension that it knows.
//!
//! It counts what it sends and what comes back; not one message may be missing. A run takes it five seconds whatever it
//! is asked, nearly all of them waiting, so one story asks over all transports at once. Left out: `-T -P`, which loses
//! half of its messages through coturn's own server as well.

#![forbid(unsafe_code)]

use crate::coturn::{Background, in_background, run};
use crate::pair::Authority;
use crate::server::{SECRET, Server, Setup, free_ports};
use crate::skip::has;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread::scope;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const STATIC: &[&str] = &["-u", "u", "-w", "p"];
const MINTED: &[&str] = &["-u", "alice", "-W", SECRET];
/// Each session of `-J` takes one of these by chance. The keys are longer than their algorithms want, by a line's end.
const COTURNS_KEYS: &str = r#"oauth = [
    { kid = "north", key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK", algorithm = "A256GCM" },
    { kid = "union", key = "MTIzNDU2Nzg5MDEyMzQ1Ngo=", algorithm = "A128GCM" },
    { kid = "oldempire", key = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIK", algorithm = "A256GCM" },
]"#;

/// How the client reaches the server.
#[derive(Clone, Copy, Debug)]
enum Over {
    Udp,
    Tcp,
    Tls,
    Dtls,
}

const EVERY: [Over; 4] = [Over::Udp, Over::Tcp, Over::Tls, Over::Dtls];
const STREAMS: [Over; 2] = [Over::Tcp, Over::Tls];

impl Over {
    const fn options(self) -> &'static [&'static str] {
        match self {
            Self::Udp => &[],
            Self::Tcp => &["-t"],
            Self::Tls => &["-t", "-S"],
            Self::Dtls => &["-S"],
        }
    }

    fn port(self, server: &Server) -> u16 {
        match self {
            Self::Udp | Self::Tcp => server.port,
            Self::Tls => server.tls_port(),
            Self::Dtls => server.dtls_port(),
        }
    }
}

/// A server with every transport. Two workers, so that what moves between them is seen on a machine of one core as well.
fn server(ip: IpAddr, auth_lines: &'static str) -> Server {
    // This client speaks TLS with any certificate, unless it is told to believe one.
    let authority = Authority::new();
    let tls = authority.pair("server", &["turn.example.org"]).lines();
    let relay = if ip == V4 { vec![V4, V6] } else { vec![V6] };
    let allow = vec!["127.0.0.0/8", "::1/128"];
    let setup = Setup { listen: vec![ip], relay, allow, tls, dtls: true, auth_lines, workers: 2, ..Setup::default() };
    Server::start_with(&setup)
}

/// Runs four clients of ten messages over each of the transports and expects every message back.
fn nothing_is_lost(server: &Server, ip: IpAddr, transports: &[Over], options: &[&str]) {
    let run_over = |over: Over| {
        let (port, ip) = (over.port(server).to_string(), ip.to_string());
        let common = ["-m", "4", "-n", "10", "-p", &port, &ip];
        let arguments = [over.options(), options, &common].concat();
        let output = run("turnutils_uclient", &arguments);
        let at = format!("{arguments:?}\n{output}");
        assert!(!output.contains("read_mobility_ticket: ERROR"), "the client has no room for the ticket: {at}");
        assert!(output.contains("Total lost packets 0 (0.000000%), total send dropped 0"), "{at}");
        let counted = output.lines().rfind(|line| line.contains("tot_send_msgs=")).expect("a count of messages");
        let number = |name: &str| counted.split(name).nth(1)?.split(',').next()?.trim().parse::<u32>().ok();
        assert_eq!(number("tot_send_msgs="), number("tot_recv_msgs="), "{at}");
        assert!(number("tot_send_msgs=") >= Some(40), "{at}");
    };
    let run_over = &run_over;
    scope(|threads| {
        for over in transports {
            threads.spawn(move || run_over(*over));
        }
    });
}

fn is_installed() -> bool {
    has("turnutils_uclient") && has("turnutils_peer")
}

/// Over every transport with a server of its own.
fn nothing_is_lost_over_any(auth_lines: &'static str, options: &[&str]) {
    if is_installed() {
        nothing_is_lost(&server(V4, auth_lines), V4, &EVERY, options);
    }
}

/// The same with coturn's echo on the other side.
fn nothing_is_lost_to_a_peer(ip: IpAddr, options: &[&str]) {
    if !is_installed() {
        return;
    }
    // The peer takes the port above as well.
    let (peer, port) = (ip.to_string(), free_ports(2).to_string());
    let _peer: Background = in_background("turnutils_peer", &["-L", &peer, "-p", &port]);
    nothing_is_lost(&server(ip, ""), ip, &EVERY, &[options, &["-e", &peer, "-r", &port]].concat());
}

#[test]
fn clients_call_each_other_over_channels() {
    nothing_is_lost_over_any("", &[STATIC, &["-y"]].concat());
}

#[test]
fn clients_call_each_other_by_indications() {
    nothing_is_lost_over_any("", &[STATIC, &["-y", "-s"]].concat());
}

#[test]
fn a32_a_minted_credential_is_as_good_as_a_password() {
    nothing_is_lost_over_any("", &[MINTED, &["-y", "-G"]].concat());
}

#[test]
fn a_peer_answers_on_channels() {
    nothing_is_lost_to_a_peer(V4, &[STATIC, &["-c"]].concat());
}

#[test]
fn a_peer_answers_indications_to_pairs_and_reservations() {
    nothing_is_lost_to_a_peer(V4, &[MINTED, &["-s"]].concat());
}

#[test]
fn v05_a_peer_answers_over_ipv6_from_end_to_end() {
    nothing_is_lost_to_a_peer(V6, &[MINTED, &["-x", "-c"]].concat());
}

#[test]
fn v05_relay_addresses_can_be_ipv6() {
    nothing_is_lost_over_any("", &[STATIC, &["-y", "-x"]].concat());
}

#[test]
fn relay_addresses_can_be_asked_to_be_ipv4() {
    nothing_is_lost_over_any("", &[MINTED, &["-y", "-X"]].concat());
}

#[test]
fn l27_one_allocation_has_both_families() {
    nothing_is_lost_over_any("", &[STATIC, &["-y", "-Z"]].concat());
}

/// Every client refreshes with its ticket from another port, and may land on the other worker. Not under TLS or DTLS: on
/// the second connection this client stops with "send: Success", through coturn's own server as well.
fn allocations_move(options: &[&str]) {
    if is_installed() {
        let server = server(V4, "mobility = true");
        nothing_is_lost(&server, V4, &[Over::Udp, Over::Tcp], &[STATIC, &["-y", "-M"], options].concat());
    }
}

#[test]
fn m05_allocations_move_with_their_clients() {
    allocations_move(&[]);
}

#[test]
fn m05_allocations_move_with_clients_that_send_indications() {
    allocations_move(&["-s"]);
}

#[test]
fn d06_datagrams_may_ask_not_to_be_fragmented() {
    nothing_is_lost_over_any("", &[STATIC, &["-y", "-s", "-g"]].concat());
}

#[test]
fn o04_tokens_of_three_authorisation_servers_let_their_bearers_in() {
    // Without `-c` a session would claim the port that another key id has reserved, and a reservation is its user's.
    nothing_is_lost_over_any(COTURNS_KEYS, &["-y", "-c", "-J"]);
}

#[test]
fn j17_peers_are_reached_by_tcp() {
    if is_installed() {
        nothing_is_lost(&server(V4, ""), V4, &STREAMS, &[STATIC, &["-T"]].concat());
    }
}
