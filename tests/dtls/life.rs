//! An association's life: messages, a client that begins anew, the end.

use crate::client::{Phone, answer, hello, is_verify_request, next};
use crate::{Server, identity, until};
use std::net::UdpSocket;
use turnserver::client;
use turnserver::client::Heard;
use turnserver::net::dtls::{Identity, IdentityError};
use turnserver::turn::tally::Transport;
use turnserver::wire::channel::ChannelNumber;
use turnserver::worker::{self, Setup, StartError};

#[test]
fn t06_s37_data_goes_both_ways_under_encryption() {
    let server = Server::start();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut phone = Phone::opened(server.address);
    assert!(phone.is_served(), "a Binding request needs no credential");
    let relayed = phone.allocates();
    phone.asks(|client| client.channel_bind(0x4001, peer.local_addr().unwrap()));
    let number = ChannelNumber::new(0x4001).unwrap();
    phone.says(&[&client::channel_data(number, b"hello")]);
    let mut room = [0; 100];
    let (count, from) = peer.recv_from(&mut room).unwrap();
    assert_eq!((&room[..count], from), (&b"hello"[..], relayed));
    peer.send_to(b"and back", relayed).unwrap();
    let message = phone.hears();
    let Ok(Heard::ChannelData { payload, .. }) = phone.turn.hear(&message) else { panic!("{message:?}") };
    assert_eq!(&message[payload], b"and back");
}

#[test]
fn a_datagram_of_many_records_brings_as_many_messages() {
    let server = Server::start();
    let mut phone = Phone::opened(server.address);
    let requests: Vec<Vec<u8>> = (0..8).map(|_| phone.turn.binding()).collect();
    phone.says(&requests.iter().map(Vec::as_slice).collect::<Vec<_>>());
    for request in &requests {
        assert_eq!(phone.hears()[8..20], request[8..20]);
    }
}

#[test]
fn s18_a_wildcard_listener_answers_from_the_address_that_was_asked() {
    let server = Server::with("0.0.0.0:0", |_| ());
    for host in ["127.0.0.1", "127.0.0.2"] {
        let mut address = server.address;
        address.set_ip(host.parse().unwrap());
        let mut phone = Phone::opened(address);
        assert!(phone.is_served());
    }
    assert_eq!(server.associations(), 2);
}

#[test]
fn lost_flights_are_sent_again() {
    let server = Server::start();
    let mut phone = Phone::new(server.address);
    phone.sends();
    let request = next(&phone.socket);
    assert!(is_verify_request(&request));
    phone.hears_datagram(&request);
    phone.sends();
    // The flight of the server is lost; it comes again by itself.
    assert_eq!(next(&phone.socket)[13], 2, "a ServerHello");
    let again = next(&phone.socket);
    assert_eq!(again[13], 2, "the same ServerHello");
    phone.hears_datagram(&again);
    // The client's is lost as well.
    assert!(!phone.written().is_empty());
    phone.opens();
    assert!(phone.is_served());
}

#[test]
fn a_client_that_begins_anew_takes_its_own_place_when_the_handshake_is_complete() {
    let server = Server::start();
    let mut old = Phone::opened(server.address);
    old.allocates();
    let mut new = Phone::on(old.socket.try_clone().unwrap());
    new.sends();
    let request = next(&new.socket);
    new.hears_datagram(&request);
    new.sends();
    let flight = next(&new.socket);
    assert_eq!(flight[13], 2, "a ServerHello");
    // Half way the old association is what it was.
    assert!(old.is_served());
    assert_eq!((server.associations(), server.allocations()), (1, 1));
    new.hears_datagram(&flight);
    new.opens();
    assert!(new.is_served());
    until("the old allocation has ended", || server.allocations() == 0);
    assert_eq!(server.associations(), 1);
    new.allocates();
    assert_eq!(server.allocations(), 1);
}

#[test]
fn a_goodbye_ends_the_allocation() {
    let server = Server::start();
    let mut phone = Phone::opened(server.address);
    phone.allocates();
    phone.closes();
    until("everything has ended", || server.allocations() == 0 && server.associations() == 0);
    assert_eq!(next(&phone.socket)[0], 21, "the server says goodbye as well");
    // The place is free: the same port begins as a stranger.
    assert!(is_verify_request(&answer(&phone.socket, &hello(0, [1; 32], &[], 0))));
}

#[test]
fn a_server_that_stops_says_goodbye() {
    let server = Server::start();
    let mut phone = Phone::opened(server.address);
    server.stop();
    phone.goes_on_until("the goodbye is heard", |phone| phone.is_closed);
}

#[test]
fn another_certificate_is_shown_to_new_clients_alone() {
    let server = Server::start();
    let mut first = Phone::opened(server.address);
    let (identity, certificate) = identity("two.example.org");
    server.shared.set_identity(identity);
    let second = Phone::opened(server.address);
    assert_eq!(first.shown.as_ref(), Some(&server.certificate));
    assert_eq!(second.shown.as_ref(), Some(&certificate));
    assert!(first.is_served());
}

#[test]
fn connections_are_limited_over_dtls_as_over_tcp() {
    let server = Server::with("127.0.0.1:0", |policy| policy.limits.connections_per_ip = 1);
    let mut first = Phone::opened(server.address);
    let mut second = Phone::new(server.address);
    second.sends();
    let request = next(&second.socket);
    second.hears_datagram(&request);
    second.sends();
    until("one is too many", || server.limited_connections() == 1);
    first.closes();
    until("the place is free", || server.associations() == 0);
    second.opens();
}

#[test]
fn strangers_are_answered_without_a_budget_once_they_have_proven_their_address() {
    let server = Server::with("127.0.0.1:0", |policy| policy.limits.unauthenticated_per_ip = 1);
    let mut phone = Phone::opened(server.address);
    for _ in 0..20 {
        assert!(phone.is_served());
    }
}

#[test]
fn a_key_that_is_not_ecdsa_is_refused_with_advice() {
    const RSA: [u8; 25] = [48, 23, 2, 1, 0, 48, 13, 6, 9, 42, 134, 72, 134, 247, 13, 1, 1, 1, 5, 0, 4, 3, 48, 1, 0];
    const PKCS1: [u8; 8] = [48, 6, 2, 1, 0, 2, 1, 9];
    let refused = |key: &[u8]| Identity::new(vec![vec![1]], key).unwrap_err().to_string();
    let advice = "DTLS needs an ECDSA certificate on P-256 or P-384, for example from `certbot --key-type ecdsa`";
    assert_eq!(refused(&RSA), format!("the private key is an RSA key; {advice}"));
    assert_eq!(refused(&PKCS1), format!("the private key is an RSA key; {advice}"));
    assert_eq!(refused(b"?"), format!("the private key cannot be read; {advice}"));
}

#[test]
fn a_certificate_of_another_key_is_refused() {
    let made = || rcgen::generate_simple_self_signed(["name".to_owned()]).unwrap();
    let (one, other) = (made(), made());
    let refused = Identity::new(vec![other.cert.der().to_vec()], one.signing_key.serialized_der());
    assert_eq!(refused.unwrap_err(), IdentityError::Mismatch);
    assert_eq!(Identity::new(Vec::new(), b"").unwrap_err(), IdentityError::NoCertificate);
    let chain = vec![one.cert.der().to_vec(), other.cert.der().to_vec()];
    assert_eq!(Identity::new(chain, one.signing_key.serialized_der()).unwrap().unsent(), 1);
}

#[test]
fn a_listener_without_a_certificate_does_not_start() {
    let listeners = vec![(Transport::Dtls, "127.0.0.1:0".parse().unwrap())];
    let refused = worker::start(Setup {
        listeners,
        workers: 1,
        policy: crate::policy().into(),
        freebind: false,
        entry: worker::Entry::default(),
        certificates: None,
        dtls: None,
    });
    let Err(StartError::Listen { transport: Transport::Dtls, .. }) = refused else { panic!("it started") };
}
