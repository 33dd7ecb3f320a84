//! What an attacker may try: forged hellos, cookies of others, records of strangers.

use crate::client::{Phone, answer, bare_hello, cookie_in, hello, is_verify_request, next, socket};
use crate::{Server, until};
use std::net::UdpSocket;
use std::time::Duration;
use turnserver::turn::refusal::Dropped;

const RANDOM: [u8; 32] = [5; 32];

#[test]
fn a_request_for_proof_is_never_longer_than_the_hello() {
    let server = Server::start();
    let socket = socket(server.address);
    for hello in
        [bare_hello(0, &[]), hello(0, RANDOM, &[], 0), hello(0, RANDOM, &[], 1200), hello(1, RANDOM, &[7; 255], 0)]
    {
        let request = answer(&socket, &hello);
        assert!(is_verify_request(&request) && request.len() <= hello.len(), "{} for {}", request.len(), hello.len());
    }
    assert_eq!(server.dropped(Dropped::Dtls), 0);
}

#[test]
fn a_hello_that_is_broken_or_in_pieces_has_no_answer() {
    let server = Server::start();
    let socket = socket(server.address);
    let whole = hello(0, RANDOM, &[], 100);
    let mut piece = whole.clone();
    piece[22..25].copy_from_slice(&[0, 0, 100]);
    let mut other_version = whole.clone();
    other_version[26] = 0xFC;
    let endless = hello(0, RANDOM, &[], 5000);
    for wrong in [&piece, &other_version, &endless, &whole[..whole.len() - 1].to_vec(), &whole[..59].to_vec()] {
        socket.send(wrong).unwrap();
    }
    until("all five are dropped", || server.dropped(Dropped::Dtls) == 5);
    // What is answered next is the next question.
    assert!(is_verify_request(&answer(&socket, &whole)));
}

#[test]
fn s40_stun_without_the_cookie_is_not_spoken_under_encryption_either() {
    // RFC 8489 §11 has a 500 for the request. Whoever has no cookie has no DTLS either, so it is dropped as everywhere.
    let server = Server::start();
    let mut phone = Phone::opened(server.address);
    let mut classic = phone.turn.binding();
    classic[4] ^= 1;
    let mut indication = classic.clone();
    indication[1] |= 0x10;
    phone.says(&[&classic, &indication]);
    until("both are dropped", || server.dropped(Dropped::ClassicStun) == 2);
    let next = phone.turn.binding();
    phone.says(&[&next]);
    assert_eq!(phone.hears()[8..20], next[8..20], "what is answered next is the next question");
}

#[test]
fn s43_a_client_of_dtls_1_0_is_told_so_and_leaves_nothing_behind() {
    let server = Server::start();
    let socket = socket(server.address);
    let mut old = hello(0, RANDOM, &[], 100);
    old[26] = 0xFF;
    let alert = answer(&socket, &old);
    assert_eq!((alert[0], &alert[13..]), (21, &[2, 70][..]), "a fatal alert: protocol_version");
    assert_eq!(server.dropped(Dropped::Dtls), 1);
}

#[test]
fn a_flood_of_hellos_leaves_nothing_behind() {
    const SOURCES: usize = 100;
    const EACH: usize = 1000;
    let server = Server::start();
    let sockets: Vec<UdpSocket> = (0..SOURCES).map(|_| socket(server.address)).collect();
    let mut random = RANDOM;
    for round in 0..EACH {
        random[..8].copy_from_slice(&round.to_be_bytes());
        let hello = hello(0, random, &[], 50);
        for socket in &sockets {
            let _ = socket.send(&hello);
        }
    }
    assert!(Phone::opened(server.address).is_served());
    assert_eq!((server.associations(), server.dropped(Dropped::HalfOpen)), (1, 0));
}

#[test]
fn a_cookie_of_another_port_buys_nothing_but_a_new_one() {
    let server = Server::start();
    let (honest, thief) = (socket(server.address), socket(server.address));
    let cookie = cookie_in(&answer(&honest, &hello(0, RANDOM, &[], 0)));
    let request = answer(&thief, &hello(1, RANDOM, &cookie, 0));
    assert!(is_verify_request(&request));
    assert_ne!(cookie_in(&request), cookie);
    // Where it was made for it is worth a ServerHello.
    assert_eq!(answer(&honest, &hello(1, RANDOM, &cookie, 0))[13], 2);
}

#[test]
fn a_record_of_no_association_is_dropped() {
    let server = Server::start();
    let socket = socket(server.address);
    for kind in [20, 21, 22, 23, 99] {
        socket.send(&[kind, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, 1, 0, 3, 9, 9, 9]).unwrap();
    }
    socket.send(&[]).unwrap();
    until("all are dropped", || server.dropped(Dropped::Dtls) == 6);
    assert_eq!(server.associations(), 0);
}

#[test]
fn what_is_forged_into_an_association_ends_nothing() {
    let server = Server::start();
    let mut phone = Phone::opened(server.address);
    phone.allocates();
    // The same socket: whoever forges its address looks like this.
    let binding = phone.turn.binding();
    let clear = |kind: u8, epoch: u8, body: &[u8]| {
        let length = (body.len() as u16).to_be_bytes();
        [&[kind, 0xFE, 0xFD, 0, epoch, 0, 0, 0, 0, 0, 77][..], &length, body].concat()
    };
    let forged = [
        clear(23, 0, &binding),                                // data that nobody has encrypted
        clear(21, 0, &[2, 40]),                                // a fatal alert
        clear(21, 0, &[1, 0]),                                 // a goodbye
        clear(23, 1, &[7; 60]),                                // data under no key
        clear(22, 1, &[7; 60]),                                // a Finished under no key
        clear(20, 0, &[1]),                                    // ChangeCipherSpec
        clear(23, 9, &[7; 60]),                                // an epoch to come
        [clear(20, 0, &[1]), clear(23, 0, &binding)].concat(), // one behind the other
        vec![23, 0xFE, 0xFD],                                  // less than a head
    ];
    let before = server.dropped(Dropped::Dtls);
    for datagram in &forged {
        phone.socket.send(datagram).unwrap();
    }
    until("all are dropped", || server.dropped(Dropped::Dtls) == before + forged.len() as u64);
    assert!(phone.is_served());
    assert_eq!((server.associations(), server.allocations()), (1, 1));
}

#[test]
fn a_hello_with_a_good_cookie_ends_nothing_either() {
    let server = Server::start();
    let mut phone = Phone::opened(server.address);
    phone.allocates();
    let cookie = cookie_in(&answer(&phone.socket, &hello(0, RANDOM, &[], 0)));
    assert_eq!(answer(&phone.socket, &hello(1, RANDOM, &cookie, 0))[13], 2, "a ServerHello");
    phone.says(&[&phone.turn.clone().binding()]);
    until("the association is served", || server.allocations() == 1 && server.associations() == 1);
    assert!(phone.is_served());
}

#[test]
fn our_records_go_on_from_the_number_of_the_hello() {
    let server = Server::start();
    let socket = socket(server.address);
    let cookie = cookie_in(&answer(&socket, &hello(0, RANDOM, &[], 0)));
    let mut late = hello(1, RANDOM, &cookie, 0);
    late[9..11].copy_from_slice(&[2, 7]);
    let flight = answer(&socket, &late);
    assert_eq!(flight[5..11], [0, 0, 0, 0, 2, 7], "the record");
    assert_eq!(flight[17..19], [0, 1], "the message");
}

#[test]
fn a_client_whose_cookie_aged_on_the_way_gets_another_and_is_let_in() {
    let server = Server::start();
    let socket = socket(server.address);
    let stale = hello(1, RANDOM, &[7; 32], 0);
    let cookie = cookie_in(&answer(&socket, &stale));
    let flight = answer(&socket, &hello(2, RANDOM, &cookie, 0));
    assert_eq!((flight[13], &flight[17..19]), (2, &[0, 2][..]), "a ServerHello with the number that comes next");
}

#[test]
fn damage_on_the_way_costs_one_client_at_most() {
    let server = Server::start();
    let mut phone = Phone::new(server.address);
    phone.sends();
    let request = next(&phone.socket);
    phone.hears_datagram(&request);
    let second = phone.written();
    phone.socket.send(&second[0]).unwrap();
    let flight = next(&phone.socket);
    phone.hears_datagram(&flight);
    let third = phone.written();
    for datagram in second.iter().chain(&third) {
        for at in 0..datagram.len() {
            let mut damaged = datagram.clone();
            damaged[at] ^= 1 << (at % 8);
            phone.socket.send(&damaged).unwrap();
            phone.socket.send(&damaged[..at]).unwrap();
        }
    }
    assert!(Phone::opened(server.address).is_served());
}

#[test]
fn one_worker_has_1024_handshakes_in_hand_and_goes_on_answering() {
    const CAP: usize = 1024;
    let server = Server::start();
    let begins = |socket: &UdpSocket| {
        let cookie = cookie_in(&answer(socket, &hello(0, RANDOM, &[], 0)));
        socket.send(&hello(1, RANDOM, &cookie, 0)).unwrap();
    };
    let mut half_open = Vec::new();
    while server.dropped(Dropped::HalfOpen) == 0 {
        let socket = socket(server.address);
        begins(&socket);
        half_open.push(socket);
        assert!(half_open.len() < 4 * CAP, "there is no bound");
    }
    assert!(half_open.len() > CAP);
    // Their time over, the next one finds room.
    let socket = socket(server.address);
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let is_let_in = || {
        begins(&socket);
        socket.recv(&mut [0; 2000]).is_ok()
    };
    until("there is room again", is_let_in);
    assert_eq!(server.associations(), 0);
}
