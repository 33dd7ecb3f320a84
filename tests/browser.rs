//! What a browser makes of this server: the check that no library client can stand in for.
//!
//! Starts the real program on loopback and drives headless Chromium through chromedriver.
//! One browser at a time, since two at once would measure each other.
//! Where Chromium is not installed, each story is a counted skip; under `CI` it is a failure.

#![cfg(feature = "server")]

#[path = "browser/chromium.rs"]
mod chromium;
#[path = "support/pair.rs"]
mod pair;
#[path = "support/server.rs"]
mod server;
#[path = "support/temp.rs"]
mod temp;
#[path = "browser/tls.rs"]
mod tls;

use chromium::Browser;
use serde_json::{Value, json};
use server::{KEY, Server};

/// The call of a page that knows nothing of this project but the minted answer.
const CALL: &str = include_str!("browser/call.js");
/// Gathers through one server alone and reports candidates and errors.
const GATHER: &str = include_str!("browser/gather.js");

/// The states of the verdicts once neither is open.
const BOTH_VERDICTS: &str = "
    const states = ['udp', 'tcp'].map((t) => document.getElementById(`verdict-${t}`).dataset.state);
    return states.every((s) => s === 'ok' || s === 'failed') && states";
/// Bytes that [`CALL`] sends and expects back.
const MEGABYTE: u64 = 1_000_000;
/// More frames than a decoder shows for a path that carries the first key frame and nothing after.
const FRAMES: u64 = 50;

#[tokio::test]
async fn minted_ice_servers_carry_data_and_video_over_udp() {
    a_relayed_call_works_over("udp").await;
}

#[tokio::test]
async fn minted_ice_servers_carry_data_and_video_over_tcp() {
    a_relayed_call_works_over("tcp").await;
}

async fn a_relayed_call_works_over(transport: &str) {
    let Some(browser) = Browser::start().await else { return };
    let server = Server::start();
    let ice_servers = only(transport, &server.mint()["iceServers"]);
    browser.open(&server.url("/healthz")).await;
    browser.run(CALL, vec![ice_servers, json!(MEGABYTE), json!(FRAMES)]).await;

    let call = browser.until("the call ends", 60, "return window.call.done && window.call").await;

    assert_eq!(call["failed"], Value::Null, "{call:#}");
    assert_eq!(call["echoed"], MEGABYTE, "{call:#}");
    assert_eq!(call["intact"], true, "{call:#}");
    assert!(call["frames"].as_u64() > Some(FRAMES), "{call:#}");
    for end in ["near", "far"] {
        assert_eq!(call[end]["local"], "relay", "{call:#}");
        assert_eq!(call[end]["remote"], "relay", "{call:#}");
        assert_eq!(call[end]["relayProtocol"], transport, "{call:#}");
    }
    browser.close().await;
}

#[tokio::test]
async fn with_no_configuration_at_all_the_test_page_calls_itself() {
    let Some(browser) = Browser::start().await else { return };
    let server = Server::start_bare();
    browser.open(&server.url(&format!("/#key={}", server.made_key()))).await;
    browser.click("#start").await;

    let states = browser.until("both verdicts stand", 90, BOTH_VERDICTS).await;

    assert_eq!(states, json!(["ok", "ok"]), "{}", browser.text().await);
    browser.close().await;
}

#[tokio::test]
async fn the_test_page_calls_itself_after_one_click() {
    let Some(browser) = Browser::start().await else { return };
    let server = Server::start();
    browser.open(&server.url(&format!("/#key={KEY}"))).await;
    assert!(!browser.address().await.contains(KEY), "the key must not stay in the address bar");
    browser.click("#start").await;

    let states = browser.until("both verdicts stand", 90, BOTH_VERDICTS).await;
    assert_eq!(states, json!(["ok", "ok"]), "{}", browser.text().await);

    let seen = "return {
        relays: document.querySelectorAll('#candidates tr[data-type=relay]').length,
        pairs: ['udp', 'tcp'].map((t) => ({ ...document.getElementById(`pair-${t}`).dataset })),
        error: document.getElementById('error').textContent,
        json: document.getElementById('ice-servers').textContent,
    }";
    let pairs_known = "return ['udp', 'tcp'].every((t) => document.getElementById(`pair-${t}`).dataset.local)";
    browser.until("both pairs are shown", 10, pairs_known).await;
    let seen = browser.evaluate(seen).await;
    assert!(seen["relays"].as_u64() > Some(0), "{seen:#}");
    for pair in 0..2 {
        assert_eq!(seen["pairs"][pair]["local"], "relay", "{seen:#}");
        assert_eq!(seen["pairs"][pair]["remote"], "relay", "{seen:#}");
    }
    assert_eq!(seen["error"], "", "{seen:#}");
    assert!(seen["json"].as_str().is_some_and(|text| text.contains("\"credential\": \"••••••••\"")), "{seen:#}");

    if let Some(path) = std::env::var_os("PAGE_SCREENSHOT") {
        // A picture of plots wants something plotted.
        let plotted = "const shown = document.querySelector('[data-value=frames] .muted');
            return Number((shown?.textContent ?? '').replace(/[^0-9]/g, '')) > 700";
        browser.until("the plots have a history", 60, plotted).await;
        browser.screenshot(path.as_ref()).await;
    }

    browser.click("#stop").await;
    let after = "return [...document.querySelectorAll('video')].every((v) => v.srcObject === null)
        && document.getElementById('stop').disabled
        && document.getElementById('verdict-udp').dataset.state";
    assert_eq!(browser.until("everything is closed", 10, after).await, "ok", "Stop keeps the verdict");
    browser.close().await;
}

#[tokio::test]
async fn the_test_page_asks_for_the_camera_only_when_told_to() {
    let Some(browser) = Browser::start().await else { return };
    let server = Server::start();
    browser.open(&server.url(&format!("/#key={KEY}"))).await;
    let count = "const devices = navigator.mediaDevices;
        const ask = devices.getUserMedia.bind(devices);
        window.asked = 0;
        devices.getUserMedia = (wish) => { window.asked += 1; return ask(wish); };";
    browser.evaluate(count).await;
    let works = "return document.getElementById('verdict-udp').dataset.state === 'ok'";

    browser.click("#start").await;
    browser.until("the drawn picture comes through", 90, works).await;
    assert_eq!(browser.evaluate("return window.asked").await, 0);

    browser.click("#camera").await;
    browser.click("#start").await;
    browser.until("the camera is asked for", 10, "return window.asked === 1").await;
    browser.until("the camera's picture comes through", 90, works).await;
    assert_eq!(browser.evaluate("return document.getElementById('error').textContent").await, "");
    browser.close().await;
}

#[tokio::test]
async fn the_test_page_says_that_a_key_is_wrong() {
    let Some(browser) = Browser::start().await else { return };
    let server = Server::start();
    browser.open(&server.url("/#key=not-the-key")).await;
    browser.click("#start").await;

    let shown = "const error = document.getElementById('error'); return !error.hidden && error.textContent";
    let error = browser.until("an error is shown", 20, shown).await;

    assert!(error.as_str().is_some_and(|text| text.contains("key is wrong")), "{error}");
    let states = "return ['udp', 'tcp'].map((t) => document.getElementById(`verdict-${t}`).dataset.state)";
    assert_eq!(browser.evaluate(states).await, json!(["idle", "idle"]));
    browser.close().await;
}

#[tokio::test]
async fn a_wrong_password_is_a_401_to_the_browser() {
    let Some(browser) = Browser::start().await else { return };
    let server = Server::start();
    let minted = server.mint();
    browser.open(&server.url("/healthz")).await;
    for transport in ["udp", "tcp"] {
        let mut ice_servers = only(transport, &minted["iceServers"]);
        ice_servers[0]["credential"] = json!("bm90IHRoZSBwYXNzd29yZA==");
        browser.run(GATHER, vec![ice_servers]).await;

        let seen = browser.until("gathering ends", 40, "return window.gather.done && window.gather").await;

        let codes: Vec<_> = seen["errors"].as_array().expect("a list of errors").iter().map(|e| &e["code"]).collect();
        assert!(codes.contains(&&json!(401)), "over {transport}: {seen:#}");
        assert_eq!(seen["relays"], 0, "over {transport}: {seen:#}");
    }
    browser.close().await;
}

/// The minted list, cut down to the TURN URLs of one transport and otherwise unchanged.
fn only(transport: &str, ice_servers: &Value) -> Value {
    let end = format!("?transport={transport}");
    let wanted = |url: &Value| url.as_str().is_some_and(|url| url.starts_with("turn:") && url.ends_with(&end));
    let mut kept = Vec::new();
    for server in ice_servers.as_array().expect("iceServers is a list") {
        let mut server = server.clone();
        server["urls"].as_array_mut().expect("urls is a list").retain(wanted);
        if server["urls"] != json!([]) {
            kept.push(server);
        }
    }
    assert!(!kept.is_empty(), "no TURN URL over {transport} in {ice_servers:#}");
    Value::Array(kept)
}
