//! Clients under TLS: what they may ask for, which certificate they see, and what broken ones cost.

use crate::caller::{CHANNEL, Caller, Data, Peer, Wire};
use crate::pair::{Authority, FAR, Files, replace};
use crate::server::{Server, Setup, until};
use crate::skip::has;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

const NAME: &str = "turn.example.org";
const CONNECTIONS: &str = "turnserver_connections{transport=\"tls\"}";
const FAILED: &str = "turnserver_dropped_packets_total{reason=\"tls\"}";

fn setup(files: &Files) -> Setup {
    Setup { tls: files.lines(), allow: vec!["127.0.0.0/8"], ..Setup::default() }
}

/// The ordinary server with one certificate.
fn served() -> (Server, Authority, Files) {
    let authority = Authority::new();
    let files = authority.pair("server", &[NAME]);
    (Server::start_with(&setup(&files)), authority, files)
}

/// What `openssl s_client` tells of a handshake that it ends at once.
fn s_client(server: &Server, authority: &Path, options: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.args(["30", "openssl", "s_client", "-connect", &server.tls_address().to_string()]);
    command.arg("-CAfile").arg(authority).arg("-verify_return_error").args(options);
    let output = command.stdin(Stdio::null()).output().expect("timeout is there");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Whether the handshake was, and the certificate believed.
fn is_complete(told: &str) -> bool {
    told.contains("Verify return code: 0 (ok)") && !told.contains("Cipher is (NONE)")
}

#[test]
fn t06_s37_a_call_under_tls_goes_as_any_other() {
    let (server, authority, _) = served();
    let (mut caller, peer) = (Caller::tls(server.tls_address(), authority.pem(), NAME), Peer::new());
    assert_eq!(caller.binding(), Ok(caller.local()));
    let relay = caller.allocate().expect("an allocation");
    caller.bind(CHANNEL, peer.address()).expect("a channel");
    // Sizes around those of a record and of padding, both ways.
    for size in [0, 1, 3, 4, 1200, 16_383, 16_384, 16_385, 60_001] {
        caller.sends_on(CHANNEL, &vec![7; size]);
        assert_eq!(peer.hears(), (relay, vec![7; size]));
        peer.says(relay, &vec![9; size]);
        assert_eq!(caller.data(), Data::On(CHANNEL, vec![9; size]));
    }
    assert_eq!(server.metric(CONNECTIONS), 1.0);
    assert_eq!(server.metric("turnserver_allocations{transport=\"tls\",family=\"ipv4\"}"), 1.0);
    assert!(server.log().contains("\"transport\":\"tls\""), "{}", server.log());
    drop(caller);
    until("the call has ended with its connection", || {
        server.metric(CONNECTIONS) < 1.0 && server.log().contains("disconnected")
    });
    assert_eq!(server.metric(FAILED), 0.0);
}

#[test]
fn s44_a_client_may_ask_for_turn_or_discovery_or_nothing_by_alpn_and_for_nothing_else() {
    // The decision: who offers other names alone is refused by the alert that ALPN has for it.
    if !has("openssl") {
        return;
    }
    let (server, authority, _) = served();
    for (offer, answer) in [
        (vec!["-alpn", "stun.turn"], "ALPN protocol: stun.turn"),
        (vec!["-alpn", "stun.nat-discovery"], "ALPN protocol: stun.nat-discovery"),
        (vec!["-alpn", "h2,stun.turn"], "ALPN protocol: stun.turn"),
        (vec![], "No ALPN negotiated"),
    ] {
        let told = s_client(&server, &authority.file(), &offer);
        assert!(told.contains(answer) && is_complete(&told), "{offer:?}\n{told}");
    }
    let failed = server.metric(FAILED);
    let told = s_client(&server, &authority.file(), &["-alpn", "h2"]);
    assert!(told.contains("no application protocol"), "{told}");
    until("the refusal is counted", || server.metric(FAILED) > failed);
}

#[test]
fn s43_tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    if !has("openssl") {
        return;
    }
    let (server, authority, files) = served();
    let speaks = |server: &Server, version: &str| {
        let told = s_client(server, &authority.file(), &[version, "-cipher", "DEFAULT:@SECLEVEL=0"]);
        is_complete(&told)
    };
    assert!(speaks(&server, "-tls1_2") && speaks(&server, "-tls1_3"));
    assert!(!speaks(&server, "-tls1_1") && !speaks(&server, "-tls1"));
    let strict = Server::start_with(&Setup { tls: files.lines() + "min_version = \"1.3\"\n", ..setup(&files) });
    assert!(speaks(&strict, "-tls1_3") && !speaks(&strict, "-tls1_2"));
    // A reload does the same to the other one.
    server.rewrite(&Setup { tls: files.lines() + "min_version = \"1.3\"\n", ..setup(&files) });
    server.signal("HUP");
    until("the version is left out", || !speaks(&server, "-tls1_2"));
    assert!(speaks(&server, "-tls1_3"));
}

#[test]
fn s43_every_suite_that_is_spoken_is_forward_secret() {
    if !has("openssl") {
        return;
    }
    let authority = Authority::new();
    let folder = authority.file();
    let folder = folder.parent().expect("a file lies in a folder");
    let files = Files::named(folder, "x");
    let make = "req -x509 -newkey rsa:2048 -nodes -keyout x.key -subj /CN=x -days 30 -out x.pem";
    let made = Command::new("openssl").args(make.split(' ')).current_dir(folder).output().expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let server = Server::start_with(&setup(&files));
    let speaks = |suite: &str| {
        let suite = format!("{suite}:@SECLEVEL=0");
        let told = s_client(&server, &files.cert, &["-tls1_2", "-cipher", &suite]);
        assert!(!told.contains("Compression: zlib"), "{told}");
        is_complete(&told)
    };
    for suite in ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"] {
        assert!(speaks(suite), "{suite}");
    }
    // RFC 8489 §6.2.3 names DHE-RSA beside ECDHE-RSA; whoever has the one has the other, and rustls has no DHE.
    for suite in ["DHE-RSA-AES128-GCM-SHA256", "AES128-GCM-SHA256", "AES128-SHA", "ECDHE-RSA-AES128-SHA", "ALL:!ECDHE"]
    {
        assert!(!speaks(suite), "{suite}");
    }
}

#[test]
fn each_name_gets_its_certificate_and_a_stranger_the_first() {
    let authority = Authority::new();
    let (one, two) = (authority.pair("one", &[NAME]), authority.pair("two", &["*.example.net", "example.net"]));
    let tls = format!("cert = [{:?}, {:?}]\nkey = [{:?}, {:?}]\n", one.cert, two.cert, one.key, two.key);
    let server = Server::start_with(&Setup { tls, ..Setup::default() });
    let is_served = |name: &str| {
        let mut caller = Caller::tls(server.tls_address(), authority.pem(), name);
        caller.shakes_hands().is_ok()
    };
    // The client believes a certificate for the name it asked for, and no other.
    for name in [NAME, "a.example.net", "A.Example.NET", "example.net"] {
        assert!(is_served(name), "{name}");
    }
    for name in ["a.b.example.net", "example.org", "127.0.0.1"] {
        assert!(!is_served(name), "{name}");
    }
    if has("openssl") {
        for (options, subject) in [
            (vec!["-noservername"], "subject=CN = turn.example.org"),
            (vec!["-servername", "elsewhere.example"], "subject=CN = turn.example.org"),
            (vec!["-servername", "b.example.net"], "subject=CN = *.example.net"),
        ] {
            let told = s_client(&server, &authority.file(), &options);
            assert!(told.contains(subject), "{options:?}\n{told}");
        }
    }
    let expiry = |name: &str| server.metric(&format!("turnserver_tls_certificate_expiry_seconds{{name=\"{name}\"}}"));
    assert_eq!(expiry(NAME), 3_976_128_000.0); // 2095-12-31
    assert_eq!(expiry("*.example.net"), 3_976_128_000.0);
}

#[test]
fn rsa_and_ec_keys_of_every_form_are_served() {
    if !has("openssl") {
        return;
    }
    let authority = Authority::new();
    let folder = authority.file();
    let folder = folder.parent().expect("a file lies in a folder");
    let openssl = |arguments: &str| {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().expect("openssl");
        assert!(output.status.success(), "{arguments}\n{}", String::from_utf8_lossy(&output.stderr));
    };
    for (make, head) in [
        ("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out x.key", "-----BEGIN PRIVATE KEY-----"),
        ("genrsa -traditional -out x.key 2048", "-----BEGIN RSA PRIVATE KEY-----"),
        ("ecparam -name prime256v1 -genkey -noout -out x.key", "-----BEGIN EC PRIVATE KEY-----"),
        ("ecparam -name secp384r1 -genkey -out x.key", "-----BEGIN EC PARAMETERS-----"),
        ("genpkey -algorithm ED25519 -out x.key", "-----BEGIN PRIVATE KEY-----"),
    ] {
        openssl(make);
        openssl("req -x509 -key x.key -subj /CN=x -addext subjectAltName=DNS:x.example -days 30 -out x.pem");
        let files = Files::named(folder, "x");
        let key = std::fs::read_to_string(&files.key).expect("the key");
        assert!(key.starts_with(head), "{make}: {key}");
        let server = Server::start_with(&setup(&files));
        let told = s_client(&server, &files.cert, &["-verify_hostname", "x.example"]);
        assert!(is_complete(&told), "{make}\n{told}");
    }
}

#[test]
fn a_client_that_comes_again_resumes_its_session() {
    if !has("openssl") {
        return;
    }
    let (server, authority, _) = served();
    let session = server.home.path().join("session");
    let session = session.display().to_string();
    for version in ["-tls1_2", "-tls1_3"] {
        // With something to say the client stays long enough for the ticket that TLS 1.3 sends after the handshake.
        let binding = turnserver::client::Client::new("", "", 1).binding();
        let mut first = Command::new("timeout");
        let address = server.tls_address().to_string();
        first.args(["30", "openssl", "s_client", "-quiet", "-connect", &address, version, "-sess_out", &session]);
        let mut first = first.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it");
        let mut stdin = first.stdin.take().expect("a pipe");
        stdin.write_all(&binding).expect("the client reads");
        let mut answer = [0; 20];
        first.stdout.as_mut().expect("a pipe").read_exact(&mut answer).expect("an answer");
        assert_eq!(answer[..2], [1, 1], "a Binding response");
        drop(stdin);
        first.kill().expect("the client ends");
        first.wait().expect("the client ends");
        let told = s_client(&server, &authority.file(), &[version, "-sess_in", &session]);
        assert!(told.contains("Reused, TLSv1."), "{version}\n{told}");
    }
}

#[test]
fn a_renewal_reaches_new_handshakes_and_no_call_notices() {
    let (server, authority, files) = served();
    let (mut caller, peer) = (Caller::tls(server.tls_address(), authority.pem(), NAME), Peer::new());
    let relay = caller.allocate().expect("an allocation");
    caller.bind(CHANNEL, peer.address()).expect("a channel");
    let shown = || {
        let mut caller = Caller::tls(server.tls_address(), authority.pem(), NAME);
        caller.shakes_hands().expect("the certificate is good");
        caller.certificate().expect("it was shown")
    };
    let first = shown();
    assert_eq!(caller.certificate(), Some(first.clone()));

    // The certificate comes a good while before its key.
    let (cert, key) = authority.vouch(&[NAME], FAR);
    replace(&files.cert, &cert);
    until("the mismatch is told", || server.log().contains("the old ones stay in force"));
    assert!(server.log().contains("does not belong to the certificate in"), "{}", server.log());
    assert!(server.log().contains(&files.key.display().to_string()), "{}", server.log());
    assert_eq!(shown(), first, "the old pair stays in force");
    replace(&files.key, &key);
    until("the pair is complete", || server.log().contains("certificates reloaded"));
    let second = shown();
    assert_ne!(second, first);

    // Garbage changes nothing, and is told once.
    replace(&files.cert, "no certificate at all");
    until("the garbage is told", || server.log().contains("holds no certificate"));
    assert_eq!(shown(), second);
    assert_eq!(server.log().matches("the old ones stay in force").count(), 2, "{}", server.log());

    caller.sends_on(CHANNEL, b"still here");
    assert_eq!(peer.hears(), (relay, b"still here".to_vec()));
    assert_eq!(caller.certificate(), Some(first));
}

#[test]
fn a_reload_takes_other_files_and_refuses_wrong_ones() {
    let (server, authority, files) = served();
    let other = authority.pair("other", &["other.example"]);
    let serves = |name: &str| Caller::tls(server.tls_address(), authority.pem(), name).shakes_hands().is_ok();
    server.rewrite(&setup(&Files { cert: other.cert.clone(), key: files.key.clone() }));
    server.signal("HUP");
    until("the reload is refused", || server.log().contains("reload refused"));
    assert!(serves(NAME) && !serves("other.example"));
    server.rewrite(&setup(&other));
    server.signal("HUP");
    until("the other certificate is there", || serves("other.example"));
    assert!(!serves(NAME));
    // What the new files become is seen as well.
    let (cert, key) = authority.vouch(&["third.example"], FAR);
    other.write(&cert, &key);
    until("the third certificate is there", || serves("third.example"));
    // Without certificates there would be nothing to listen with: that takes a restart.
    server.rewrite(&Setup { tls: String::new(), ..setup(&files) });
    server.signal("HUP");
    until("the restart is asked for", || server.log().contains("needs restart"));
    assert!(serves("third.example"));
}

#[test]
fn a_certificate_that_has_ended_is_told_at_the_start() {
    let authority = Authority::new();
    let files = authority.pair("old", &[NAME]);
    let (cert, key) = authority.vouch(&[NAME], 2020);
    files.write(&cert, &key);
    let server = Server::start_with(&setup(&files));
    until("the end is told", || server.log().contains("a certificate has ended"));
    assert!(server.log().contains("2020-12-31T00:00:00Z"), "{}", server.log());
    assert!(Caller::tls(server.tls_address(), authority.pem(), NAME).shakes_hands().is_err());
    until("the client's alert is counted", || server.metric(FAILED) >= 1.0);
}

#[test]
fn noise_on_the_tls_port_is_refused_and_counted() {
    let (server, authority, _) = served();
    // Plain STUN, HTTP, a record of a version nobody speaks, one too long, and a hello that is none.
    let plain = turnserver::client::Client::new("", "", 1).binding();
    let noise: [&[u8]; 5] = [
        &plain,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[22, 2, 0, 0, 4, 1, 0, 0, 0],
        &[22, 3, 1, 0xFF, 0xFF, 1, 0, 0, 0],
        &[22, 3, 1, 0, 6, 1, 0, 0, 2, 0xFF, 0xFF],
    ];
    for (i, bytes) in noise.iter().enumerate() {
        let mut stream = TcpStream::connect(server.tls_address()).expect("the server listens");
        stream.write_all(bytes).expect("the server reads");
        let mut rest = Vec::new();
        let _reset_or_alert = stream.read_to_end(&mut rest);
        assert!(rest.len() <= 7, "at most an alert comes back: {rest:?}");
        until("it is counted", || server.metric(FAILED) >= (i + 1) as f64);
    }
    // Messages inside TLS are held to the same rules as outside.
    let mut caller = Caller::tls(server.tls_address(), authority.pem(), NAME);
    caller.says(&[0xFF; 64]);
    assert!(caller.is_cut_off(), "noise ends the connection with a goodbye");
    assert_eq!(server.metric("turnserver_dropped_packets_total{reason=\"noise\"}"), 1.0);
    // A record that somebody has changed on the way ends it as well.
    let mut caller = Caller::tls(server.tls_address(), authority.pem(), NAME);
    caller.binding().expect("an answer");
    let Wire::Tls(stream, _) = &mut caller.wire else { unreachable!("it is a TLS client") };
    stream.sock.write_all(&[23, 3, 3, 0, 32]).expect("the server reads");
    stream.sock.write_all(&[0; 32]).expect("the server reads");
    assert!(caller.hears().is_none());
    until("it is counted", || server.metric(FAILED) >= (noise.len() + 1) as f64);
    until("all are gone", || server.metric(CONNECTIONS) < 1.0);
}

#[test]
fn a_goodbye_of_the_client_ends_the_connection_though_its_socket_stays_open() {
    let (server, authority, _) = served();
    let mut caller = Caller::tls(server.tls_address(), authority.pem(), NAME);
    caller.allocate().expect("an allocation");
    let request = caller.client.binding();
    let Wire::Tls(stream, _) = &mut caller.wire else { unreachable!("it is a TLS client") };
    // A last request in the same segment is still answered.
    stream.conn.writer().write_all(&request).expect("there is room");
    stream.conn.send_close_notify();
    stream.flush().expect("the server reads");
    assert!(caller.hears().is_some(), "what stood before the goodbye is answered");
    assert!(caller.is_cut_off());
    until("the call has ended", || server.log().contains("disconnected"));
    assert_eq!(server.metric(FAILED), 0.0);
}

#[test]
fn a_server_that_stops_says_goodbye() {
    let (mut server, authority, _) = served();
    let mut caller = Caller::tls(server.tls_address(), authority.pem(), NAME);
    caller.binding().expect("an answer");
    server.signal("TERM");
    assert!(caller.is_cut_off(), "the end is not a truncation");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn s23_messages_come_through_whatever_records_they_are_cut_into() {
    let (server, authority, _) = served();
    let (mut caller, peer) = (Caller::tls(server.tls_address(), authority.pem(), NAME), Peer::new());
    caller.shakes_hands().expect("the certificate is good");
    let relay = caller.allocate().expect("an allocation");
    caller.bind(CHANNEL, peer.address()).expect("a channel");
    let Wire::Tls(stream, _) = &mut caller.wire else { unreachable!("it is a TLS client") };
    // One byte a record, and the bytes of the records one by one.
    let message = [&[0x40, 0x01, 0, 5][..], b"hello", &[0; 3]].concat();
    let mut wire = Vec::new();
    for byte in &message {
        stream.conn.writer().write_all(&[*byte]).expect("there is room");
        stream.conn.write_tls(&mut wire).expect("a buffer takes all");
    }
    for byte in &wire {
        stream.sock.write_all(&[*byte]).expect("the server reads");
    }
    assert_eq!(peer.hears(), (relay, b"hello".to_vec()));
    // And many messages in few records.
    for i in 0..200u8 {
        stream.conn.writer().write_all(&[0x40, 0x01, 0, 1, i, 0, 0, 0]).expect("there is room");
    }
    stream.flush().expect("the server reads");
    for i in 0..200 {
        assert_eq!(peer.hears(), (relay, vec![i]));
    }
}

#[test]
fn three_hundred_idle_connections_cost_little_and_half_handshakes_nobody() {
    const EACH: u64 = 20 << 10;
    let authority = Authority::new();
    let files = authority.pair("server", &[NAME]);
    let limits = "connections_per_ip = 1000".into();
    let server = Server::start_with(&Setup { limits, workers: 1, ..setup(&files) });
    let new = || {
        let mut caller = Caller::tls(server.tls_address(), authority.pem(), NAME);
        caller.binding().expect("an answer");
        caller
    };
    let warm: Vec<Caller> = (0..20).map(|_| new()).collect();
    let before = server.memory();
    let idle: Vec<Caller> = (0..300).map(|_| new()).collect();
    let each = server.memory().saturating_sub(before) / idle.len() as u64;
    assert!(each < EACH, "an idle connection takes {each} bytes");
    eprintln!("an idle connection takes {each} bytes");

    // Half a hello each.
    let halves: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = TcpStream::connect(server.tls_address()).expect("the server listens");
            stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xFC]).expect("the server reads");
            stream
        })
        .collect();
    until("all are there", || server.metric(CONNECTIONS) >= 620.0);
    Caller::udp(server.address()).binding().expect("an answer over UDP");
    new();
    drop((warm, idle, halves));
    until("all are gone", || server.metric(CONNECTIONS) < 1.0);
    assert_eq!(server.metric(FAILED), 300.0, "a handshake that its client left has failed");
}

#[test]
fn a_client_that_never_reads_loses_data_and_costs_little_memory() {
    const SLOW: &str = "turnserver_dropped_packets_total{reason=\"slow_client\"}";
    const BOUND: u64 = 4 << 20;
    let authority = Authority::new();
    let server = Server::start_with(&Setup { workers: 1, ..setup(&authority.pair("server", &[NAME])) });
    let (mut slow, flood) = (Caller::tls(server.tls_address(), authority.pem(), NAME), Peer::new());
    let flooded = slow.allocate().expect("an allocation");
    slow.bind(CHANNEL, flood.address()).expect("a channel");
    let before = server.memory();
    until("much is dropped", || {
        for _ in 0..1000 {
            flood.says(flooded, &[0; 1200]);
        }
        server.metric(SLOW) > 5000.0
    });
    let after = server.memory();
    assert!(after < before + BOUND, "memory grew from {before} to {after} bytes");
    assert_eq!(server.metric(CONNECTIONS), 1.0, "a slow reader loses data, not its call");
    assert_eq!(slow.data(), Data::On(CHANNEL, vec![0; 1200]));
    slow.refresh(None).expect("an answer");
}
