//! What /metrics says after a call whose every packet is known.

use crate::caller::{CHANNEL, Caller, Data, Peer};
use crate::server::{Server, Setup, free_ports};
use crate::skip::has;
use std::io::Write as _;
use std::process::{Command, Stdio};
use turnserver::wire::codes::ErrorCode;

#[test]
fn the_numbers_after_a_call_are_exact() {
    let first = free_ports(20);
    let relay_lines = format!("ports = \"{first}-{}\"", first + 19);
    let server = Server::start_with(&Setup { relay_lines, allow: vec!["127.0.0.2/32"], ..Setup::default() });
    let (mut caller, peer) = (Caller::udp(server.address()), Peer::at("127.0.0.2:0".parse().expect("an address")));
    let live = "turnserver_allocations{transport=\"udp\",family=\"ipv4\"}";
    let used = "turnserver_relay_ports{state=\"used\"}";
    let free = "turnserver_relay_ports{state=\"free\"}";
    let is = |series: &str, value: f64| assert_eq!(server.metric(series), value, "{series}");

    caller.binding().expect("an answer");
    let relay = caller.allocate().expect("an allocation");
    caller.permit(peer.address()).expect("a permission");
    for size in [1, 100, 1000] {
        caller.sends_to(peer.address(), &vec![0; size]);
        assert_eq!(peer.hears(), (relay, vec![0; size]));
    }
    peer.says(relay, &[0; 70]);
    assert_eq!(caller.data(), Data::From(peer.address(), vec![0; 70]));
    caller.bind(CHANNEL, peer.address()).expect("a channel");
    caller.sends_on(CHANNEL, &[0; 11]);
    assert_eq!(peer.hears(), (relay, vec![0; 11]));
    peer.says(relay, &[0; 7]);
    assert_eq!(caller.data(), Data::On(CHANNEL, vec![0; 7]));
    assert_eq!(caller.permit("10.0.0.1:1".parse().expect("an address")), Err(ErrorCode::FORBIDDEN));
    for (series, value) in [(live, 1.0), (used, 1.0), (free, 19.0)] {
        is(series, value);
    }
    is("turnserver_permissions", 1.0);
    is("turnserver_channels", 1.0);
    caller.refresh(None).expect("an answer");
    caller.release();
    // Nobody's data any more.
    caller.sends_on(CHANNEL, &[0; 5]);
    caller.binding().expect("an answer");

    for (series, value) in [(live, 0.0), (used, 0.0), (free, 20.0)] {
        is(series, value);
    }
    is("turnserver_permissions", 0.0);
    is("turnserver_channels", 0.0);
    is("turnserver_allocations_total", 1.0);
    is("turnserver_allocation_duration_seconds_count", 1.0);
    is("turnserver_relayed_bytes_total{direction=\"to_peer\",path=\"userspace\"}", 1112.0);
    is("turnserver_relayed_packets_total{direction=\"to_peer\",path=\"userspace\"}", 4.0);
    is("turnserver_relayed_bytes_total{direction=\"to_client\",path=\"userspace\"}", 77.0);
    is("turnserver_relayed_packets_total{direction=\"to_client\",path=\"userspace\"}", 2.0);
    is("turnserver_dropped_packets_total{reason=\"no_allocation\"}", 1.0);
    assert_eq!(server.metric_sum("turnserver_dropped_packets_total{"), 1.0);
    let requests =
        [("binding", 2.0), ("allocate", 2.0), ("refresh", 2.0), ("create_permission", 2.0), ("channel_bind", 1.0)];
    for (method, count) in requests {
        is(&format!("turnserver_stun_requests_total{{method=\"{method}\",transport=\"udp\"}}"), count);
        is(&format!("turnserver_stun_requests_total{{method=\"{method}\",transport=\"tcp\"}}"), 0.0);
    }
    let responses = [
        ("binding", "success", 2.0),
        ("allocate", "401", 1.0),
        ("allocate", "success", 1.0),
        ("create_permission", "success", 1.0),
        ("create_permission", "403", 1.0),
        ("channel_bind", "success", 1.0),
        ("refresh", "success", 2.0),
    ];
    for (method, code, count) in responses {
        is(&format!("turnserver_stun_responses_total{{method=\"{method}\",code=\"{code}\"}}"), count);
    }
    assert_eq!(server.metric_sum("turnserver_stun_responses_total{"), 9.0);
    is("turnserver_auth_failures_total{reason=\"missing\"}", 1.0);
    is("turnserver_peer_denied_total", 1.0);
}

#[test]
fn promtool_finds_nothing_to_mend_in_the_live_metrics() {
    if !has("promtool") {
        return;
    }
    let server = Server::start();
    Caller::udp(server.address()).allocate().expect("an allocation");
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("an installed program starts");
    let mut stdin = check.stdin.take().expect("it is piped");
    stdin.write_all(server.metrics().as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = check.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}
