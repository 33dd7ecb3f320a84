//! Wireshark reads along while other people's clients use every extension, and must find no fault in a message.

#![forbid(unsafe_code)]

use crate::capture::Capture;
use crate::coturn::run;
use crate::pair::Authority;
use crate::server::{Server, Setup, free_port};
use crate::skip::has;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread::scope;
use std::time::Duration;
use turnserver::client::{Client, Heard};

const AUTH: &str = r#"
nat_discovery = true
mobility = true
oauth = [
    { kid = "north", key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK", algorithm = "A256GCM" },
    { kid = "union", key = "MTIzNDU2Nzg5MDEyMzQ1Ngo=", algorithm = "A128GCM" },
    { kid = "oldempire", key = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIK", algorithm = "A256GCM" },
]"#;

/// What must have been on the wire, or its being faultless says nothing.
const SEEN: &[(&str, &str)] = &[
    ("a challenge with password algorithms", "stun.type == 0x0113 && stun.att.type == 0x8002"),
    // coturn's client knows ADDITIONAL-ADDRESS-FAMILY by its number in the drafts.
    ("an Allocate of both families", "stun.type == 0x0003 && stun.att.type == 0x8032"),
    ("its answer", "stun.type == 0x0103 && stun.att.ipv6-xord && stun.att.ipv4-xord"),
    ("an Allocate over IPv6 relays", "stun.type == 0x0103 && stun.att.ipv6-xord"),
    ("a reservation", "stun.type == 0x0103 && stun.att.token"),
    ("the answer to a Connect", "stun.type == 0x010a && stun.att.type == 0x002a"),
    ("the answer to a ConnectionBind", "stun.type == 0x010b"),
    ("a ConnectionAttempt", "stun.type == 0x001c && stun.att.type == 0x002a"),
    ("RESPONSE-ORIGIN and OTHER-ADDRESS", "stun.type == 0x0101 && stun.att.type == 0x802b && stun.att.type == 0x802c"),
    ("a move", "stun.type == 0x0104 && stun.att.type == 0x8030"),
    ("a mobility ticket", "stun.type == 0x0103 && stun.att.type == 0x8030"),
    ("THIRD-PARTY-AUTHORIZATION", "stun.type == 0x0113 && stun.att.type == 0x802e"),
    ("an access token", "stun.type == 0x0003 && stun.att.type == 0x001b"),
    ("a Data indication", "stun.type == 0x0017 && stun.value"),
    // Wireshark 4.0 reads type and code in the first two octets, which are reserved (RFC 8656 §18.13).
    ("a Data indication about an ICMP error", "stun.type == 0x0017 && stun.att.type == 0x8004"),
    ("ChannelData", "stun.channel"),
    ("the server's side of a TLS handshake", "tls.handshake.type == 2"),
    ("the server's side of a DTLS handshake", "dtls.handshake.type == 2 && dtls.handshake.version == 0xfefd"),
    ("the cookie of a DTLS handshake", "dtls.handshake.type == 3"),
];

#[test]
fn wireshark_finds_no_fault_in_any_message() {
    if !has("turnutils_uclient") || !has("turnutils_natdiscovery") {
        return;
    }
    let authority = Authority::new();
    let tls = authority.pair("server", &["turn.example.org"]).lines();
    let listen = [1, 2].map(|last| Ipv4Addr::new(127, 0, 0, last).into()).to_vec();
    let relay = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let allow = vec!["127.0.0.0/8", "::1/128"];
    let auth_lines = AUTH;
    let setup = Setup { listen, relay, allow, tls, dtls: true, auth_lines, workers: 2, ..Setup::default() };
    let server = Server::start_with(&setup);
    let (plain, secure, datagrams) = (server.port, server.tls_port(), server.dtls_port());
    let ports = format!("port {plain} or port {secure} or port {datagrams}");
    let decode_as = vec![
        format!("udp.port=={plain},stun"),
        format!("tcp.port=={plain},stun"),
        // The second port of NAT discovery, which TLS has over TCP.
        format!("udp.port=={secure},stun"),
        format!("tcp.port=={secure},tls"),
        format!("udp.port=={datagrams},dtls"),
    ];
    let Some(mut capture) = Capture::start(&ports, decode_as) else { return };

    let [plain, secure, datagrams] = [plain, secure, datagrams].map(|port| port.to_string());
    let user = ["-u", "u", "-w", "p", "-y", "-m", "2", "-n", "3", "-p"];
    let uclient = |options: &[&str], port: &str| {
        let output = run("turnutils_uclient", &[&user[..], &[port], options, &["127.0.0.1"]].concat());
        assert!(output.contains("Total lost packets 0 (0.000000%)"), "{options:?}\n{output}");
    };
    scope(|threads| {
        for options in [&["-Z"][..], &["-x", "-s"], &["-s", "-g"], &["-M", "-c"], &["-J", "-c"], &["-T"], &["-t", "-s"]]
        {
            let (uclient, port) = (&uclient, &plain);
            threads.spawn(move || uclient(options, port));
        }
        threads.spawn(|| uclient(&["-t", "-S", "-c"], &secure));
        threads.spawn(|| uclient(&["-S", "-c"], &datagrams));
        threads.spawn(|| run("turnutils_natdiscovery", &["-m", "-f", "-P", "-p", &plain, "127.0.0.1"]));
        threads.spawn(|| meets_a_closed_port(&server));
    });
    capture.end();

    // Warnings and errors; what TCP itself does under load is nobody's fault.
    let faults = "_ws.malformed || _ws.expert.severity >= 0x00600000 && (stun || tls || dtls) && !tcp.analysis.flags";
    let faults =
        capture.fields(faults, &["frame.number", "udp.srcport", "tcp.srcport", "stun.type", "_ws.expert.message"]);
    assert!(faults.is_empty(), "{faults:#?}");
    let unseen = SEEN.iter().filter(|(_, filter)| capture.fields(filter, &["frame.number"]).is_empty());
    let unseen: Vec<_> = unseen.map(|(what, _)| what).collect();
    assert!(unseen.is_empty(), "never seen: {unseen:?}");
}

/// Sends to a peer that nobody is, and waits for what the server says of it.
fn meets_a_closed_port(server: &Server) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(server.address()).expect("loopback is there");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out can be set");
    let mut client = Client::new("u", "p", 5);
    let mut room = [0; 2000];
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let mut ask = |client: &mut Client, message: Vec<u8>| {
        socket.send(&message).expect("loopback is there");
        let len = socket.recv(&mut room).expect("an answer");
        client.hear(&room[..len])
    };
    let allocate = client.allocate(None);
    let _challenge = ask(&mut client, allocate);
    let allocate = client.allocate(None);
    assert!(matches!(ask(&mut client, allocate), Ok(Heard::Success(_))));
    let permit = client.create_permission(&[peer]);
    assert!(matches!(ask(&mut client, permit), Ok(Heard::Success(_))));
    let send = client.send(peer, b"is anybody there?");
    assert!(matches!(ask(&mut client, send), Ok(Heard::Icmp { kind: 3, code: 3, .. })));
}
