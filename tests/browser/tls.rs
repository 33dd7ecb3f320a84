//! TURN under TLS as a browser wants it: an authority that it believes, and a certificate for the name it asks for.
#![forbid(unsafe_code)]

use crate::GATHER;
use crate::chromium::Browser;
use crate::pair::{Authority, FAR, Files};
use crate::server::{Server, Setup, until};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::sync::Arc;

const TICKS: &str = include_str!("ticks.js");
/// Echoes after which a call counts as alive.
const SOME: u64 = 20;

/// A server that shows this pair to clients of either loopback address: a name may lead to both.
fn server(files: &Files) -> Server {
    let listen = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    Server::start_with(&Setup { listen, tls: files.lines(), ..Setup::default() })
}

/// The one URL under TLS by a host name.
fn ice_servers(server: &Server, host: &str) -> Value {
    let url = format!("turns:{host}:{}?transport=tcp", server.tls_port());
    json!([{ "urls": [url], "username": "u", "credential": "p" }])
}

async fn echoed(browser: &Browser) -> u64 {
    browser.evaluate("return window.ticks.echoed").await.as_u64().unwrap_or(0)
}

async fn goes_on(browser: &Browser, what: &str) {
    let enough = echoed(browser).await + SOME;
    let ticks = browser.until(what, 60, &format!("return (ticks.failed || ticks.echoed >= {enough}) && ticks")).await;
    assert_eq!(ticks["failed"], Value::Null, "{what}: {ticks:#}");
}

#[tokio::test]
async fn a_call_under_tls_lives_through_a_new_certificate() {
    let authority = Authority::new();
    let Some(browser) = Browser::believing(Some(&authority.file())).await else { return };
    let files = authority.pair("server", &["localhost"]);
    let server = server(&files);
    browser.open(&server.url("/healthz")).await;
    browser.run(TICKS, vec![ice_servers(&server, "localhost")]).await;
    goes_on(&browser, "the call begins").await;
    browser.evaluate("window.look()").await;
    let pair = browser.until("the pair is known", 10, "return ticks.pair").await;
    assert_eq!(pair, json!({ "type": "relay", "relayProtocol": "tls" }));
    assert!(server.metric_sum("turnserver_connections{transport=\"tls\"}") >= 2.0, "{}", server.metrics());

    let before = shown(&server, &authority);
    let (cert, key) = authority.vouch(&["localhost"], FAR);
    files.write(&cert, &key);
    until("new connections are shown the new certificate", || shown(&server, &authority) != before);
    let new = CertificateDer::from_pem_slice(cert.as_bytes()).expect("a certificate");
    assert_eq!(shown(&server, &authority), new.to_vec());

    goes_on(&browser, "the call goes on").await;
    browser.run(GATHER, vec![ice_servers(&server, "localhost")]).await;
    let gathered = browser.until("gathering ends", 40, "return window.gather.done && window.gather").await;
    assert!(gathered["relays"].as_u64() > Some(0), "a new call under the new certificate: {gathered:#}");
    browser.close().await;
}

#[tokio::test]
async fn a_browser_gets_no_relay_from_a_server_that_it_cannot_verify() {
    let authority = Authority::new();
    let Some(browser) = Browser::believing(Some(&authority.file())).await else { return };
    let unknown = Authority::new();
    let stranger = unknown.pair("server", &["localhost"]);
    let elsewhere = authority.pair("elsewhere", &["turn.example.org"]);
    for files in [stranger, elsewhere] {
        let server = server(&files);
        browser.open(&server.url("/healthz")).await;
        browser.run(GATHER, vec![ice_servers(&server, "localhost")]).await;
        let seen = browser.until("gathering ends", 40, "return window.gather.done && window.gather").await;

        assert_eq!(seen["relays"], 0, "{seen:#}");
        let codes: Vec<_> = seen["errors"].as_array().expect("a list of errors").iter().map(|e| &e["code"]).collect();
        assert!(codes.contains(&&json!(701)), "{seen:#}");
        assert!(server.metric("turnserver_allocations_total") < 1.0);
    }
    browser.close().await;
}

/// The certificate that a new connection is shown.
fn shown(server: &Server, authority: &Authority) -> Vec<u8> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("a certificate");
    roots.add(root).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("the provider has them").with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut stream = TcpStream::connect(server.tls_address()).expect("the server listens");
    while client.is_handshaking() {
        client.complete_io(&mut stream).expect("hands are shaken");
    }
    client.peer_certificates().and_then(|all| all.first()).expect("the server shows one").to_vec()
}
