//! The crate `turn` as a client.

use crate::server::{Server, Setup};
use ::turn::client::{Client, ClientConfig};
use std::sync::Arc;
use tokio::net::UdpSocket;
use webrtc_util::Conn as _;

async fn client(server: &Server, password: &str) -> Client {
    let address = server.address().to_string();
    let config = ClientConfig {
        stun_serv_addr: address.clone(),
        turn_serv_addr: address,
        username: "u".into(),
        password: password.into(),
        realm: "test.example".into(),
        software: String::new(),
        rto_in_ms: 0,
        conn: Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a socket")),
        vnet: None,
    };
    let client = Client::new(config).await.expect("a client");
    client.listen().await.expect("the client listens");
    client
}

#[tokio::test]
async fn data_goes_both_ways() {
    let server = Server::start_with(&Setup { allow: vec!["127.0.0.0/8"], ..Setup::default() });
    let client = client(&server, "p").await;
    let relay = client.allocate().await.expect("an allocation");
    let relayed = relay.local_addr().expect("a relay address");
    let peer = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let peer_address = peer.local_addr().expect("a bound socket");
    let mut bytes = [0; 1500];

    // The client begins with Send indications and binds a channel behind our back; both must carry.
    for round in 0..20u8 {
        let sent = [round; 900];
        relay.send_to(&sent, peer_address).await.expect("data is sent");
        let (len, from) = peer.recv_from(&mut bytes).await.expect("data arrives");
        assert_eq!((&bytes[..len], from), (&sent[..], relayed));
        peer.send_to(&sent, relayed).await.expect("data is sent");
        let (len, from) = relay.recv_from(&mut bytes).await.expect("data arrives");
        assert_eq!((&bytes[..len], from), (&sent[..], peer_address));
    }

    client.close().await.expect("the client closes");
}

#[tokio::test]
async fn a_wrong_password_is_refused_with_401() {
    let server = Server::start();
    let client = client(&server, "wrong").await;
    let refused = client.allocate().await.err().expect("no allocation").to_string();
    assert!(refused.contains("401"), "{refused}");
}
