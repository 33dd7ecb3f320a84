//! Quotas, budgets and bandwidth, as they are kept over several workers and both transports.

use crate::caller::{CHANNEL, Caller, Data, Peer};
use crate::server::{SECRET, Server, Setup, until};
use turnserver::client::Client;
use turnserver::turn::credential::{self, Secret};
use turnserver::wire::codes::ErrorCode;

fn limited(limits: &str) -> Server {
    let (allow, limits) = (vec!["127.0.0.0/8"], limits.into());
    Server::start_with(&Setup { allow, limits, workers: 2, ..Setup::default() })
}

/// Ten callers of one user, over both transports and from ports that fall to both workers.
fn ten(server: &Server) -> Vec<Caller> {
    let caller = |at| if at % 2 == 0 { Caller::udp(server.address()) } else { Caller::tcp(server.address()) };
    (0..10).map(caller).collect()
}

#[test]
fn t13_x04_a_quota_of_two_holds_on_every_worker_and_transport() {
    let server = limited("allocations_per_user = 2");
    let mut callers = ten(&server);
    let mut holders: Vec<usize> = vec![0, 1];
    for at in &holders {
        callers[*at].allocate().expect("an allocation");
    }
    for next in 2..10 {
        assert_eq!(callers[next].allocate(), Err(ErrorCode::ALLOCATION_QUOTA_REACHED));
        callers[holders.remove(0)].release();
        callers[next].allocate().expect("a place was given back");
        holders.push(next);
    }
    assert_eq!(server.metric("turnserver_rate_limited_total{reason=\"quota\"}"), 8.0);
    let username = "4102444800:v"; // 2100, and so beyond what max_ttl permits
    let password = credential::password(&Secret::new(SECRET), username);
    let mut too_long = Caller::udp(server.address()).with(username, &password);
    assert_eq!(too_long.allocate(), Err(ErrorCode::UNAUTHENTICATED));
    let minted = server.mint();
    let text = |name: &str| minted[name].as_str().expect("a text").to_owned();
    let mut other = Caller::udp(server.address()).with(&text("username"), &text("credential"));
    other.allocate().expect("another user has a quota of its own");
}

#[test]
fn two_names_of_one_user_share_a_quota() {
    let server = limited("allocations_per_user = 1");
    let mut callers: Vec<Caller> = ["600", "601"]
        .map(|ttl| {
            let body = format!("{{\"user\":\"alice\",\"ttl\":{ttl}}}");
            let (_, answer) = server.request("POST", "/v1/ice-servers", &body).expect("the server answers");
            let minted: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
            let text = |name: &str| minted[name].as_str().expect("a text").to_owned();
            Caller::udp(server.address()).with(&text("username"), &text("credential"))
        })
        .into();
    callers[0].allocate().expect("an allocation");
    assert_eq!(callers[1].allocate(), Err(ErrorCode::ALLOCATION_QUOTA_REACHED));
    callers[0].release();
    callers[1].allocate().expect("the place was given back");
}

#[test]
fn the_whole_server_has_no_more_allocations_than_permitted() {
    let server = limited("allocations = 4");
    let mut callers = ten(&server);
    for caller in &mut callers[..4] {
        caller.allocate().expect("an allocation");
    }
    for caller in &mut callers[4..] {
        assert_eq!(caller.allocate(), Err(ErrorCode::ALLOCATION_QUOTA_REACHED));
    }
    assert_eq!(server.metric_sum("turnserver_allocations{"), 4.0);
    // A connection that closes gives its place back as well as a Refresh does.
    drop(callers.remove(1));
    until("the place is free", || server.metric_sum("turnserver_allocations{") < 4.0);
    callers[8].allocate().expect("a place was given back");
}

#[test]
fn a_flood_of_strangers_gets_few_answers_and_its_neighbours_still_get_in() {
    const REQUESTS: &str = "turnserver_stun_requests_total{method=\"allocate\",transport=\"udp\"}";
    let server = limited("unauthenticated_per_ip = \"50/s\"");
    let mut flood = Caller::udp(server.address());
    let mut stranger = Client::new("u", "p", 3);
    for sent in 1..=1000 {
        let request = stranger.allocate(None);
        flood.says(&request);
        if sent % 200 == 0 {
            until("the server has seen them", || server.metric(REQUESTS) >= f64::from(sent));
        }
    }
    let answered = server.metric("turnserver_stun_responses_total{method=\"allocate\",code=\"401\"}");
    let limited = server.metric("turnserver_rate_limited_total{reason=\"unauthenticated\"}");
    assert_eq!(limited, server.metric("turnserver_dropped_packets_total{reason=\"unauthenticated_limit\"}"));
    assert_eq!(answered + limited, 1000.0);
    assert!((50.0..500.0).contains(&answered), "{answered} of 1000 were answered");
    Caller::tcp(server.address()).allocate().expect("over TCP nobody can lie about an address");
}

#[test]
fn t14_x04_what_exceeds_an_allocations_bandwidth_is_dropped_and_its_refresh_is_not() {
    a_flood_is_dropped("bandwidth_per_allocation = \"80 kbit/s\"");
}

#[test]
fn what_exceeds_the_servers_bandwidth_is_dropped_and_a_refresh_is_not() {
    a_flood_is_dropped("bandwidth = \"80 kbit/s\"");
}

#[test]
fn from_relay_to_relay_a_packet_spends_the_servers_bandwidth_once() {
    // A second's worth is ten packets.
    let server = limited("bandwidth = \"80 kbit/s\"");
    let [mut one, mut other] = [(); 2].map(|()| Caller::udp(server.address()));
    let [from, to] = [&mut one, &mut other].map(|caller| caller.allocate().expect("an allocation"));
    one.bind(CHANNEL, to).expect("a channel");
    other.bind(CHANNEL, from).expect("a channel");
    for at in 0..8u8 {
        one.sends_on(CHANNEL, &[at; 1000]);
        assert_eq!(other.data(), Data::On(CHANNEL, vec![at; 1000]));
    }
    assert_eq!(server.metric("turnserver_dropped_packets_total{reason=\"bandwidth\"}"), 0.0);
}

fn a_flood_is_dropped(limits: &str) {
    const DROPPED: &str = "turnserver_dropped_packets_total{reason=\"bandwidth\"}";
    const LIMITED: &str = "turnserver_rate_limited_total{reason=\"bandwidth\"}";
    let server = limited(limits);
    let (mut caller, peer) = (Caller::udp(server.address()), Peer::new());
    let relay = caller.allocate().expect("an allocation");
    caller.bind(CHANNEL, peer.address()).expect("a channel");
    caller.sends_on(CHANNEL, b"before");
    assert_eq!(peer.hears(), (relay, b"before".to_vec()));
    until("the flood is dropped", || {
        (0..50).for_each(|_| caller.sends_on(CHANNEL, &[0; 1000]));
        // Many more bytes than the limit, yet a call must not end because of its own noise.
        caller.refresh(None).expect("an answer");
        server.metric(DROPPED) > 100.0
    });
    let upward = server.metric(DROPPED);
    until("the flood the other way is dropped too", || {
        (0..50).for_each(|_| peer.says(relay, &[0; 1000]));
        caller.refresh(None).expect("an answer");
        server.metric(DROPPED) > upward + 100.0
    });
    assert_eq!(server.metric(DROPPED), server.metric(LIMITED));
    until("there is room again", || {
        caller.sends_on(CHANNEL, b"after");
        !peer.hears_nothing()
    });
    until("there is room the other way too", || {
        peer.says(relay, b"after");
        caller.has_data()
    });
}
