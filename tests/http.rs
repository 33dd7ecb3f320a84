//! The HTTP side, asked as a backend, a browser, Prometheus and an attacker would ask it.
//!
//! Most stories go through the router in process, with a clock that only moves when told; the last ones need a real
//! socket, because what they are about is a client that dawdles.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use base64::Engine as _;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tower::ServiceExt as _;
use turnserver::config::{ApiKey, Scope};
use turnserver::control::data_plane::DataPlane;
use turnserver::control::http::connections::{Bounds, Door, Listener};
use turnserver::control::http::{self, App, Client, ORDERS, Order, Settings, Stage, Uris};
use turnserver::control::keys::Keyring;
use turnserver::control::metrics::Sources;
use turnserver::net::udp::Abilities;
use turnserver::time::{Instant, Now, UnixSeconds};
use turnserver::turn::credential::Secret;
use turnserver::turn::refusal::{AuthFailure, Refusal};
use turnserver::turn::tally::{Tally, Transport};
use turnserver::wire::codes;
use turnserver::wire::stun::Family;
use turnserver::worker::PortUse;

const NOW: u64 = 1_700_000_000; // 2023-11-14T22:13:20Z
const BACKEND: &str = "192.0.2.10:40000";
const LOCAL: &str = "127.0.0.1:40000";

#[tokio::test]
async fn a_backend_gets_ice_servers_that_a_browser_takes_as_they_are() {
    let heard = site().asks(post("/v1/ice-servers").bearer("m").body(r#"{"user":"alice","ttl":3600}"#)).await;
    heard.has(201);
    // printf 1700003600:alice | openssl dgst -sha1 -hmac north -binary | base64
    let (username, credential) = ("1700003600:alice", "wjwSXO2ch1B6VaLTLMy2Avn5O9o=");
    assert_eq!(
        heard.json(),
        json!({
            "iceServers": [
                { "urls": ["stun:turn.example.org:3478"] },
                {
                    "urls": ["turn:turn.example.org:3478?transport=udp", "turn:turn.example.org:3478?transport=tcp"],
                    "username": username,
                    "credential": credential,
                },
            ],
            "username": username,
            "credential": credential,
            "ttl": 3600,
            "expires": "2023-11-14T23:13:20Z",
        })
    );
    assert_eq!(heard.header("cache-control"), "no-store");
    assert_eq!(heard.header("content-type"), "application/json");
}

#[tokio::test]
async fn an_empty_body_asks_for_the_defaults() {
    for body in ["", " \n", "{}", r#"{"user":null,"ttl":null}"#] {
        let heard = site().asks(post("/v1/ice-servers").bearer("m").body(body)).await;
        heard.has(201);
        assert_eq!(heard.json()["username"], "1700086400");
        assert_eq!(heard.json()["credential"], "K+RlgFj3QLvB7WAVHfjfgMgyBeA=");
        assert_eq!(heard.json()["ttl"], 86_400);
    }
}

#[tokio::test]
async fn no_credential_lives_longer_than_max_ttl_whatever_is_asked() {
    let mut settings = settings();
    settings.max_ttl = Duration::from_secs(600);
    let site = site_with(settings);
    for body in ["{}", r#"{"ttl":601}"#, r#"{"ttl":18446744073709551615}"#] {
        let heard = site.asks(post("/v1/ice-servers").bearer("m").body(body)).await;
        assert_eq!(heard.has(201).json()["ttl"], 600);
        assert_eq!(heard.json()["expires"], "2023-11-14T22:23:20Z");
    }
}

#[tokio::test]
async fn a_user_may_contain_the_separator() {
    let heard = site().asks(post("/v1/ice-servers").bearer("m").body(r#"{"user":"a:b","ttl":3600}"#)).await;
    assert_eq!(heard.has(201).json()["username"], "1700003600:a:b");
    assert_eq!(heard.json()["credential"], "L3n1CH+M6nXPaYPoDfDI8Ev3K1Y=");
}

#[tokio::test]
async fn a24_a_user_is_minted_in_the_form_that_clients_sign_with() {
    let heard = site().asks(post("/v1/ice-servers").bearer("m").body(r#"{"user":"Ame\u0301lie"}"#)).await;
    assert!(heard.json()["username"].as_str().unwrap().ends_with(":Amélie"));
    let forbidden = post("/v1/ice-servers").bearer("m").body(r#"{"user":"a\u200Bb"}"#);
    site().asks(forbidden).await.is_problem(422, "user: character 2 may not stand in it");
}

#[tokio::test]
async fn an_impossible_wish_is_told_what_to_mend() {
    let long = json!({ "user": "x".repeat(257) }).to_string();
    for (body, status, detail) in [
        (r#"{"ttl":0}"#, 422, "ttl: must be a whole number of seconds, 1 or more"),
        (r#"{"ttl":-5}"#, 422, "ttl: must be a whole number"),
        (r#"{"ttl":1.5}"#, 422, "ttl: must be a whole number"),
        (r#"{"ttl":"3600"}"#, 422, "ttl: must be a whole number"),
        (r#"{"user":7}"#, 422, "user: must be a string"),
        (r#"{"user":"a\nb"}"#, 422, "user: character 2 may not stand in it: control characters"),
        (long.as_str(), 422, "user: 257 bytes; at most 256"),
        (r#"{"username":"alice"}"#, 422, "unknown field \"username\""),
        ("[]", 422, "the body must be an object"),
        ("{\"user\":", 400, "the body is not JSON: EOF"),
        ("user=alice", 400, "the body is not JSON"),
    ] {
        site().asks(post("/v1/ice-servers").bearer("m").body(body)).await.is_problem(status, detail);
    }
}

#[tokio::test]
async fn a_long_name_of_a_field_is_not_said_back_whole() {
    let body = json!({ "\u{10ffff}".repeat(4000): 1 }).to_string();
    let heard = site().asks(post("/v1/ice-servers").bearer("m").body(&body)).await;
    heard.is_problem(422, "there are \"user\" and \"ttl\"");
    assert!(heard.text().len() < 1024, "{} bytes", heard.text().len());
}

#[tokio::test]
async fn a_body_beyond_sixteen_kibibytes_is_not_read() {
    let body = " ".repeat(16 * 1024 + 1);
    site().asks(post("/v1/ice-servers").bearer("m").body(&body)).await.is_problem(413, "16384 bytes");
}

#[tokio::test]
async fn without_a_secret_there_is_nothing_to_mint_with() {
    let mut settings = settings();
    settings.secrets.clear();
    let site = site_with(settings);
    site.asks(post("/v1/ice-servers").bearer("m")).await.is_problem(503, "auth.secrets");
    site.asks(get("/turn").bearer("m")).await.is_problem(503, "auth.secrets");
}

#[tokio::test]
async fn a_key_comes_as_bearer_basic_or_its_own_header() {
    let site = site();
    let basic = |pair: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    site.asks(post("/v1/ice-servers").bearer("m")).await.has(201);
    site.asks(post("/v1/ice-servers").header("authorization", "bearer m")).await.has(201);
    site.asks(post("/v1/ice-servers").header("authorization", &basic("signaling:m"))).await.has(201);
    site.asks(post("/v1/ice-servers").header("authorization", &basic("prometheus:m"))).await.has(401);
    site.asks(post("/v1/ice-servers").header("x-api-key", "m")).await.has(201);
    site.asks(post("/v1/ice-servers?key=m")).await.has(401);
    site.asks(get("/turn?key=m")).await.has(200);
    site.asks(get("/turn?api=m")).await.has(200);
}

#[tokio::test]
async fn no_key_a_wrong_key_and_a_garbled_key_are_challenged() {
    for (request, detail) in [
        (post("/v1/ice-servers"), "this needs an API key"),
        (post("/v1/ice-servers").bearer("wrong"), "no key of [[http.keys]] is this one"),
        (post("/v1/ice-servers").bearer("forgotten-and-empty"), "no key of"),
        (post("/v1/ice-servers").header("authorization", "Bearer"), "cannot be read"),
        (post("/v1/ice-servers").header("authorization", "Basic ???"), "cannot be read"),
        (post("/v1/ice-servers").header("authorization", "Digest x"), "cannot be read"),
        (get("/turn"), "this needs an API key"),
        (get("/metrics"), "this needs an API key"),
    ] {
        let heard = site().asks(request).await;
        heard.is_problem(401, detail);
        assert!(heard.header("www-authenticate").starts_with("Bearer realm="));
    }
}

#[tokio::test]
async fn a_key_without_the_scope_is_told_which_one_it_lacks() {
    let site = site();
    site.asks(post("/v1/ice-servers").bearer("r")).await.is_problem(403, "add \"mint\"");
    site.asks(get("/metrics").bearer("m")).await.is_problem(403, "add \"read\"");
    site.asks(post("/v1/ice-servers").bearer("a")).await.has(201);
    site.asks(get("/metrics").bearer("a")).await.has(200);
    site.asks(get("/metrics").bearer("r")).await.has(200);
}

#[tokio::test]
async fn whoever_guesses_keys_is_told_to_wait_but_a_right_key_still_works() {
    let site = site();
    for _ in 0..5 {
        site.asks(post("/v1/ice-servers").bearer("guess")).await.has(401);
    }
    site.waits(10);
    let heard = site.asks(get("/turn?key=guess")).await;
    heard.is_problem(429, "wait 20 s");
    assert_eq!(heard.header("retry-after"), "20");
    // Whatever an attacker says of where it comes from.
    site.asks(post("/v1/ice-servers").bearer("guess").header("x-forwarded-for", "198.51.100.1")).await.has(429);
    site.asks(post("/v1/ice-servers").bearer("m")).await.has(201);
    site.asks(post("/v1/ice-servers").bearer("guess").from("192.0.2.11:1")).await.has(401);
    site.waits(20);
    site.asks(post("/v1/ice-servers").bearer("guess")).await.has(401);
}

#[tokio::test]
async fn asking_without_a_key_is_no_guess() {
    let site = site();
    for _ in 0..10 {
        site.asks(post("/v1/ice-servers")).await.has(401);
    }
}

#[tokio::test]
async fn a_client_of_the_draft_gets_turn_uris_only() {
    let expected = json!({
        "username": "1700003600:alice",
        "password": "wjwSXO2ch1B6VaLTLMy2Avn5O9o=",
        "ttl": 3600,
        "uris": ["turn:turn.example.org:3478?transport=udp", "turn:turn.example.org:3478?transport=tcp"],
    });
    let site = site();
    for request in [
        get("/turn?service=turn&username=alice&ttl=3600&key=m"),
        get("/turn?username=alice&ttl=3600").bearer("m"),
        post("/turn").body("service=turn&username=alice&ttl=3600&api=m"),
        post("/turn?service=turn&key=m").body("username=alice&ttl=3600"),
        post("/turn?username=alice").bearer("m").body("username=mallory&ttl=3600"),
    ] {
        let heard = site.asks(request).await;
        assert_eq!(heard.has(200).json(), expected);
        assert_eq!(heard.header("cache-control"), "no-store");
    }
}

#[tokio::test]
async fn a_wrong_parameter_of_the_draft_is_told_what_to_mend() {
    let site = site();
    site.asks(get("/turn?service=stun&key=m")).await.is_problem(400, "only \"turn\"");
    site.asks(get("/turn?ttl=0&key=m")).await.is_problem(422, "ttl: must be");
    site.asks(get("/turn?ttl=1h&key=m")).await.is_problem(422, "ttl: must be");
    site.asks(get("/turn?username=a%00b&key=m")).await.is_problem(422, "control characters");
    site.asks(get("/turn?key=r")).await.is_problem(403, "add \"mint\"");
}

#[tokio::test]
async fn metrics_need_no_key_on_this_host_unless_a_proxy_asks() {
    let site = site();
    site.asks(get("/metrics").from(LOCAL)).await.has(200);
    site.asks(get("/metrics").from("[::ffff:127.0.0.1]:1")).await.has(200);
    site.asks(get("/metrics").from(LOCAL).header("x-forwarded-for", "192.0.2.1")).await.has(401);
    site.asks(get("/metrics").from(LOCAL).bearer("wrong")).await.has(401);
    site.asks(get("/metrics").from(BACKEND)).await.has(401);
    let mut settings = settings();
    settings.metrics_public = true;
    site_with(settings).asks(get("/metrics").from(BACKEND)).await.has(200);
}

#[tokio::test]
async fn the_metrics_are_the_sum_of_all_workers() {
    let site = site();
    let [one, other] = site.tallies.as_slice() else { panic!("two workers") };
    one.allocations_of(Transport::Udp, Family::V4).add(2);
    other.allocations_of(Transport::Udp, Family::V4).add(3);
    one.to_peer.bytes.add(1000);
    one.to_client.packets.add(7);
    one.request(codes::Method::ALLOCATE, Transport::Tcp);
    one.success(codes::Method::ALLOCATE);
    other.refusal(codes::Method::ALLOCATE, Refusal::Unauthenticated(AuthFailure::Expired));
    one.refusal(codes::Method::CHANNEL_BIND, Refusal::PeerForbidden);
    other.refusal(codes::Method::ALLOCATE, Refusal::QuotaReached);
    one.ended(Duration::from_millis(2500));
    other.ended(Duration::from_secs(100_000));
    site.asks(post("/v1/ice-servers").bearer("m")).await.has(201);
    let heard = site.asks(get("/metrics").from(LOCAL)).await;
    let text = heard.has(200).text();
    for line in [
        r#"turnserver_allocations{transport="udp",family="ipv4"} 5"#,
        r#"turnserver_allocations{transport="tcp",family="ipv6"} 0"#,
        r#"turnserver_relayed_bytes_total{direction="to_peer",path="userspace"} 1000"#,
        r#"turnserver_relayed_packets_total{direction="to_client",path="userspace"} 7"#,
        r#"turnserver_stun_requests_total{method="allocate",transport="tcp"} 1"#,
        r#"turnserver_stun_responses_total{method="allocate",code="success"} 1"#,
        r#"turnserver_stun_responses_total{method="channel_bind",code="403"} 1"#,
        r#"turnserver_allocation_failures_total{code="486"} 1"#,
        r#"turnserver_auth_failures_total{reason="expired"} 1"#,
        "turnserver_peer_denied_total 1",
        r#"turnserver_rate_limited_total{reason="quota"} 1"#,
        r#"turnserver_dropped_packets_total{reason="no_permission"} 0"#,
        r#"turnserver_allocation_duration_seconds_bucket{le="1"} 0"#,
        r#"turnserver_allocation_duration_seconds_bucket{le="10"} 1"#,
        r#"turnserver_allocation_duration_seconds_bucket{le="+Inf"} 2"#,
        "turnserver_allocation_duration_seconds_sum 100002.5",
        r#"turnserver_connections{transport="tcp"} 0"#,
        r#"turnserver_credentials_minted_total{api="ice-servers"} 1"#,
        r#"turnserver_credentials_minted_total{api="turn"} 0"#,
        r#"turnserver_relay_ports{state="free"} 90"#,
        r#"turnserver_relay_ports{state="used"} 10"#,
        r#"turnserver_data_plane_info{path="userspace",receive="trains",send="single"} 1"#,
        "turnserver_draining 0",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\nis not in\n{text}");
    }
    assert!(text.contains("turnserver_build_info{version="));
    assert!(text.contains("process_resident_memory_bytes"));
}

#[tokio::test]
async fn the_status_says_what_the_workers_carry_and_how_fast() {
    let site = site();
    site.app.set_stage(Stage::Serving);
    let [one, other] = site.tallies.as_slice() else { panic!("two workers") };
    one.allocations_of(Transport::Udp, Family::V4).add(2);
    other.connections[Transport::Tls as usize].add(3);
    one.to_peer.packets.add(50);
    other.to_peer.packets.add(50);
    one.to_peer.bytes.add(16_000);
    site.asks(get("/v1/status")).await.is_problem(401, "this needs an API key");
    site.asks(get("/v1/status").bearer("m")).await.is_problem(403, "add \"read\"");
    let fresh = site.asks(get("/v1/status").bearer("r")).await.has(200).json();
    assert_eq!(fresh.get("rates"), None, "there is nothing to compare with");
    site.waits(10);
    let expected = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": 10,
        "draining": false,
        "listeners": [{ "transport": "udp", "address": "192.0.2.1:3478" }],
        "allocations": 2,
        "connections": 3,
        "relay_ports": { "free": 90, "used": 10 },
        "relayed": { "to_peer": { "packets": 100, "bytes": 16_000 }, "to_client": { "packets": 0, "bytes": 0 } },
        "rates": {
            "over_seconds": 10.0,
            "to_peer": { "packets_per_second": 10.0, "bytes_per_second": 1600.0 },
            "to_client": { "packets_per_second": 0.0, "bytes_per_second": 0.0 },
        },
        "data_plane": {
            "path": "userspace",
            "workers": 2,
            "receives_trains": true,
            "sends_trains": false,
            "why": "this version has no kernel path, and the system refuses UDP_SEGMENT, which Linux has since 4.18: \
                    each datagram is sent by itself",
        },
    });
    assert_eq!(site.asks(get("/v1/status").bearer("r")).await.has(200).json(), expected);
    // What came long ago says nothing of now.
    for _ in 0..5 {
        site.app.note_relayed();
        site.waits(2);
    }
    site.app.set_draining(true);
    one.to_client.packets.add(5);
    let later = site.asks(get("/v1/status").bearer("a")).await.has(200).json();
    assert_eq!((&later["draining"], &later["rates"]["over_seconds"]), (&json!(true), &json!(10.0)));
    assert_eq!(later["rates"]["to_peer"]["packets_per_second"], 0.0);
    assert_eq!(later["rates"]["to_client"]["packets_per_second"], 0.5);
}

#[tokio::test]
async fn promtool_has_nothing_to_say_about_the_metrics() {
    let heard = site().asks(get("/metrics").from(LOCAL)).await;
    assert_eq!(heard.header("content-type"), "text/plain; version=0.0.4");
    let started =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut promtool) = started else { return skipped("promtool is not installed: the metrics are not checked") };
    promtool.stdin.take().unwrap().write_all(heard.text().as_bytes()).unwrap();
    let outcome = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success() && said.is_empty(), "{said}");
}

#[tokio::test]
async fn health_is_always_well_and_readiness_follows_the_stage() {
    let site = site();
    for (stage, ready, draining) in [
        (Stage::Starting, Some("starting"), "turnserver_draining 0"),
        (Stage::Serving, None, "turnserver_draining 0"),
        (Stage::Stopping, Some("stopping"), "turnserver_draining 1"),
    ] {
        site.app.set_stage(stage);
        site.asks(get("/healthz")).await.has(200);
        let heard = site.asks(get("/readyz")).await;
        match ready {
            None => assert_eq!(heard.has(200).json()["status"], "ready"),
            Some(detail) => heard.is_problem(503, detail),
        }
        assert!(site.asks(get("/metrics").from(LOCAL)).await.text().contains(draining));
    }
}

#[tokio::test]
async fn draining_is_an_admin_s_word_and_is_seen_at_the_door() {
    let mut site = site();
    site.app.set_stage(Stage::Serving);
    site.tallies[1].allocations_of(Transport::Tcp, Family::V6).add(3);
    site.supervises();
    site.asks(post("/v1/drain")).await.has(401);
    site.asks(post("/v1/drain").bearer("m")).await.is_problem(403, "add \"admin\"");
    site.asks(request(Method::DELETE, "/v1/drain").bearer("r")).await.is_problem(403, "add \"admin\"");
    assert!(!site.app.is_draining());
    for _ in 0..2 {
        let heard = site.asks(post("/v1/drain").bearer("a")).await;
        assert_eq!(heard.has(202).json(), json!({ "draining": true, "allocations": 3 }));
    }
    site.asks(get("/healthz")).await.has(200);
    site.asks(get("/readyz")).await.is_problem(503, "draining");
    assert!(site.asks(get("/metrics").from(LOCAL)).await.text().contains("turnserver_draining 1"));
    site.asks(post("/v1/ice-servers").bearer("m")).await.has(201);
    let heard = site.asks(request(Method::DELETE, "/v1/drain").bearer("a")).await;
    assert_eq!(heard.has(200).json(), json!({ "draining": false, "allocations": 3 }));
    site.asks(get("/readyz")).await.has(200);
    assert!(site.asks(get("/metrics").from(LOCAL)).await.text().contains("turnserver_draining 0"));
}

#[tokio::test]
async fn an_order_that_nobody_hears_is_no_success() {
    let mut site = site();
    drop(site.orders.take());
    site.asks(post("/v1/drain").bearer("a")).await.is_problem(503, "stopping");
    assert!(!site.app.is_draining());
}

#[tokio::test]
async fn another_separator_stands_in_minted_names() {
    let site = site_with(Settings { separator: '-', ..settings() });
    let heard = site.asks(post("/v1/ice-servers").bearer("m").body(r#"{"user":"a:b-c","ttl":3600}"#)).await;
    assert_eq!(heard.has(201).json()["username"], "1700003600-a:b-c");
    let heard = site.asks(get("/turn?username=alice&ttl=3600&key=m")).await;
    assert_eq!(heard.has(200).json()["username"], "1700003600-alice");
}

#[tokio::test]
async fn who_comes_through_the_socket_is_local_unless_a_proxy_asks() {
    let site = site();
    site.asks(get("/metrics").through_a_socket()).await.has(200);
    site.asks(get("/metrics").through_a_socket().header("x-forwarded-for", "192.0.2.1")).await.has(401);
    site.asks(post("/v1/ice-servers").through_a_socket()).await.has(401);
    site.asks(post("/v1/ice-servers").through_a_socket().bearer("m")).await.has(201);
    for _ in 0..5 {
        site.asks(post("/v1/ice-servers").through_a_socket().bearer("guess")).await.has(401);
    }
    site.asks(post("/v1/ice-servers").through_a_socket().bearer("guess")).await.has(429);
    site.asks(post("/v1/ice-servers").through_a_socket().bearer("m")).await.has(201);
    site.asks(post("/v1/ice-servers").from("192.0.2.11:1").bearer("guess")).await.has(401);
}

#[tokio::test]
async fn a_reload_changes_keys_and_secrets_of_the_next_request() {
    let site = site();
    let mut settings = settings();
    settings.secrets.insert(0, Secret::new("south"));
    settings.keys = Keyring::new(&[key("signaling", "new", &[Scope::Mint])]);
    site.app.set_settings(settings);
    site.asks(post("/v1/ice-servers").bearer("m")).await.has(401);
    let heard = site.asks(post("/v1/ice-servers").bearer("new").body(r#"{"user":"alice","ttl":3600}"#)).await;
    assert_ne!(heard.has(201).json()["credential"], "wjwSXO2ch1B6VaLTLMy2Avn5O9o=");
}

#[tokio::test]
async fn the_test_page_may_reach_nothing_but_its_own_server() {
    let heard = site().asks(get("/")).await;
    heard.has(200);
    assert_eq!(heard.header("content-type"), "text/html; charset=utf-8");
    assert!(heard.header("content-security-policy").starts_with("default-src 'none'; script-src 'unsafe-inline'"));
    assert!(heard.header("content-security-policy").contains("frame-ancestors 'none'; base-uri 'none'"));
    assert_eq!(heard.header("referrer-policy"), "no-referrer");
    assert_eq!(heard.header("x-content-type-options"), "nosniff");
    assert!(heard.header("permissions-policy").starts_with("camera=(self)"));
    assert_eq!(heard.header("cache-control"), "no-store");
}

#[tokio::test]
async fn a_wrong_path_and_a_wrong_method_are_problems_too() {
    let site = site();
    site.asks(get("/v2/ice-servers")).await.is_problem(404, "/openapi.json");
    let heard = site.asks(get("/v1/ice-servers").bearer("m")).await;
    heard.is_problem(405, "Allow");
    assert_eq!(heard.header("allow"), "POST");
}

#[tokio::test]
async fn the_openapi_document_has_every_route_and_method_and_no_others() {
    let site = site();
    let document = site.asks(get("/openapi.json")).await.has(200).json();
    let described: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(described, http::routes().iter().map(|(path, _)| *path).collect());
    for path in described {
        let heard = site.asks(request(Method::PATCH, path)).await;
        heard.is_problem(405, "Allow");
        let allow = heard.header("allow").to_lowercase();
        let allowed: BTreeSet<&str> = allow.split(',').filter(|method| *method != "head").collect();
        let methods = document["paths"][path].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(allowed, methods, "{path}");
    }
}

#[tokio::test]
async fn every_reference_of_the_openapi_document_leads_somewhere() {
    fn walk(value: &Value, root: &Value) {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            assert!(root.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
        match value {
            Value::Object(fields) => fields.iter().for_each(|(_, value)| walk(value, root)),
            Value::Array(items) => items.iter().for_each(|value| walk(value, root)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = site().asks(get("/openapi.json")).await.json();
    walk(&document, &document);
}

#[tokio::test]
async fn who_dawdles_over_a_header_is_shown_out() {
    let (address, _door, _close) = open(quick(), site()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /healthz HTT").await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends").unwrap();
}

#[tokio::test]
async fn who_dawdles_over_a_body_is_answered_and_let_go() {
    let (address, _door, _close) = open(quick(), site()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST /v1/ice-servers HTTP/1.1\r\nhost: x\r\nauthorization: Bearer m\r\ncontent-length: 9\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("the connection ends").unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn an_idle_connection_gives_its_slot_to_who_waits() {
    let bounds = Bounds { connections: 1, ..quick() };
    let (address, _door, _close) = open(bounds, site()).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut beginning = [0; 15];
    idle.read_exact(&mut beginning).await.unwrap();
    assert_eq!(&beginning, b"HTTP/1.1 200 OK");
    let mut waiting = TcpStream::connect(address).await.unwrap();
    waiting.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    timeout(Duration::from_millis(50), waiting.read_exact(&mut beginning)).await.expect_err("the slot is taken");
    timeout(PATIENCE, waiting.read_exact(&mut beginning)).await.expect("the slot is free").unwrap();
    assert_eq!(&beginning, b"HTTP/1.1 200 OK");
}

#[tokio::test]
async fn curl_reaches_every_page_through_a_socket_file() {
    let path = std::env::temp_dir().join(format!("turnserver-http-{}.sock", std::process::id()));
    let _left_by_a_crash = std::fs::remove_file(&path);
    let site = site();
    let (_close, closing) = watch::channel(false);
    let door = Door::new(http::router(site.app, PATIENCE), Bounds::default(), closing);
    tokio::spawn(door.open(Listener::Unix(UnixListener::bind(&path).unwrap())));
    for (page, beginning) in [("/", "<!doctype html>"), ("/metrics", "# HELP"), ("/healthz", "{\"status\"")] {
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["-s", "--unix-socket"]).arg(&path).arg(format!("http://localhost{page}"));
        let Ok(answer) = curl.output().await else { return skipped("curl is not installed: no socket is asked") };
        let text = String::from_utf8_lossy(&answer.stdout).to_lowercase();
        assert!(text.starts_with(&beginning.to_lowercase()), "{page}: {text}");
    }
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn a_header_without_end_is_refused() {
    let (address, _door, _close) = open(Bounds::default(), site()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx-noise: {}", "x".repeat(64 * 1024));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut beginning = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut beginning)).await.expect("an answer").unwrap();
    assert_eq!(&beginning, b"HTTP/1.1 431");
}

#[tokio::test]
async fn a_closing_door_lets_nobody_in_and_sends_the_idle_home() {
    let (address, door, close) = open(Bounds::default(), site()).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    idle.read_exact(&mut [0; 15]).await.unwrap();
    close.send_replace(true);
    timeout(PATIENCE, door.emptied(PATIENCE)).await.expect("the idle go home");
    TcpStream::connect(address).await.expect_err("nobody listens");
}

const PATIENCE: Duration = Duration::from_secs(5); // for what must happen; never waited out when it does

fn quick() -> Bounds {
    let moment = Duration::from_millis(200);
    Bounds { header: moment, request: moment, ..Bounds::default() }
}

async fn open(bounds: Bounds, site: Site) -> (SocketAddr, Door, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (close, closing) = watch::channel(false);
    let door = Door::new(http::router(site.app, bounds.request), bounds, closing);
    tokio::spawn(door.clone().open(Listener::Tcp(listener)));
    (address, door, close)
}

/// A server without sockets.
struct Site {
    app: Arc<App>,
    tallies: Vec<Arc<Tally>>,
    elapsed: Arc<AtomicU64>,
    orders: Option<mpsc::Receiver<Order>>,
}

fn site() -> Site {
    site_with(settings())
}

fn site_with(settings: Settings) -> Site {
    let tallies: Vec<Arc<Tally>> = vec![Arc::default(), Arc::default()];
    let relay_ports = Box::new(|| PortUse { free: 90, used: 10 });
    let abilities = Abilities { receives_trains: true, sends_trains: false };
    let data_plane = DataPlane { workers: 2, abilities };
    let sources = Sources { tallies: tallies.clone(), relay_ports, certificates: None, data_plane };
    let listeners = vec![("udp", "192.0.2.1:3478".to_owned())];
    let elapsed = Arc::new(AtomicU64::new(0));
    let seconds = Arc::clone(&elapsed);
    let clock = move || {
        let mono = Instant::default() + Duration::from_secs(seconds.load(Relaxed));
        Now { mono, unix: UnixSeconds(NOW + seconds.load(Relaxed)) }
    };
    let (ask, orders) = mpsc::channel(ORDERS);
    let app = Arc::new(App::new(settings, sources, listeners, ask, clock));
    Site { app, tallies, elapsed, orders: Some(orders) }
}

fn settings() -> Settings {
    let uris = [
        "stun:turn.example.org:3478",
        "turn:turn.example.org:3478?transport=udp",
        "turn:turn.example.org:3478?transport=tcp",
    ];
    Settings {
        keys: Keyring::new(&[
            key("signaling", "m", &[Scope::Mint]),
            key("prometheus", "r", &[Scope::Read]),
            key("operator", "a", &[Scope::Admin]),
        ]),
        secrets: vec![Secret::new("north")],
        separator: ':',
        max_ttl: Duration::from_secs(86_400),
        uris: uris.map(String::from).into_iter().collect::<Uris>(),
        metrics_public: false,
    }
}

fn key(id: &str, secret: &str, scopes: &[Scope]) -> ApiKey {
    ApiKey { id: id.into(), secret: Secret::new(secret), scopes: scopes.to_vec() }
}

impl Site {
    fn waits(&self, seconds: u64) {
        self.elapsed.fetch_add(seconds, Relaxed);
    }

    /// Does at once what requests ask for, as the supervisor would.
    fn supervises(&mut self) {
        let (app, mut orders) = (Arc::clone(&self.app), self.orders.take().unwrap());
        tokio::spawn(async move {
            while let Some(Order::Drain { draining, done }) = orders.recv().await {
                app.set_draining(draining);
                done.send(()).unwrap();
            }
        });
    }

    async fn asks(&self, ask: Ask) -> Heard {
        let mut request = Request::builder().method(ask.method).uri(&ask.path).body(Body::from(ask.body)).unwrap();
        *request.headers_mut() = ask.headers;
        request.extensions_mut().insert(ask.from);
        let response = http::router(Arc::clone(&self.app), PATIENCE).oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Heard { status, headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }
}

struct Ask {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: String,
    from: Client,
}

fn get(path: &str) -> Ask {
    request(Method::GET, path)
}

fn post(path: &str) -> Ask {
    request(Method::POST, path)
}

fn request(method: Method, path: &str) -> Ask {
    let from = Client::Address(BACKEND.parse().unwrap());
    Ask { method, path: path.into(), headers: HeaderMap::new(), body: String::new(), from }
}

impl Ask {
    fn bearer(self, secret: &str) -> Self {
        self.header("authorization", &format!("Bearer {secret}"))
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    fn body(self, body: &str) -> Self {
        Self { body: body.into(), ..self }
    }

    fn from(self, from: &str) -> Self {
        Self { from: Client::Address(from.parse().unwrap()), ..self }
    }

    fn through_a_socket(self) -> Self {
        Self { from: Client::Socket, ..self }
    }
}

struct Heard {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Heard {
    #[track_caller]
    fn has(&self, status: u16) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self
    }

    #[track_caller]
    fn is_problem(&self, status: u16, detail: &str) {
        self.has(status);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["title"], self.status.canonical_reason().unwrap());
        assert_eq!(problem["status"], status);
        let said = problem["detail"].as_str().unwrap();
        assert!(said.contains(detail), "{said}");
    }

    #[track_caller]
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn text(&self) -> &str {
        &self.body
    }
}

/// Says that a witness is missing; in CI, where all of them are installed, that is a failure.
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
    assert!(std::env::var_os("CI").is_none(), "{why}");
    if let Some(file) = std::env::var_os("TURNSERVER_SKIPS") {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
        writeln!(file, "{why}").unwrap();
    }
}
