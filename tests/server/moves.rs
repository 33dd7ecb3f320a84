//! Clients that change their path (RFC 8016), on a server of several workers.

use crate::caller::Caller;
use crate::server::{Server, Setup};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use turnserver::client::Client;
use turnserver::wire::codes::{Attribute, Class, Method};
use turnserver::wire::stun::Message;

const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(11, 0, 0, 1)), 80);
/// New paths that are tried: the kernel gives about every other one to another worker.
const PATHS: usize = 8;

fn with_ticket(client: &mut Client, method: Method, ticket: &[u8]) -> Vec<u8> {
    client.request(method, |request| {
        if method == Method::ALLOCATE {
            request.bytes(Attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        }
        request.bytes(Attribute::MOBILITY_TICKET, ticket);
    })
}

/// The next answer, which has to be a success, and the ticket in it.
fn ticket_of(caller: &mut Caller, asked: &[u8]) -> Vec<u8> {
    caller.says(asked);
    let answer = caller.hears().expect("an answer comes");
    let message = Message::parse(&answer).expect("the server speaks STUN");
    assert_eq!(message.class, Class::Success, "{:?}", message.get(Attribute::ERROR_CODE));
    message.get(Attribute::MOBILITY_TICKET).expect("it has a ticket").to_vec()
}

/// Has the caller learn a nonce for its path.
fn challenged(mut caller: Caller) -> Caller {
    assert!(caller.permit(PEER).is_err(), "there is no allocation yet");
    caller
}

#[test]
fn a_path_that_an_allocation_has_moved_to_serves_the_next_one_as_well() {
    let setup = Setup { workers: 2, auth_lines: "mobility = true", ..Setup::default() };
    let server = Server::start_with(&setup);
    for _ in 0..PATHS {
        let mut home = challenged(Caller::udp(server.address()));
        let asked = with_ticket(&mut home.client, Method::ALLOCATE, &[]);
        let ticket = ticket_of(&mut home, &asked);
        let mut away = challenged(Caller::udp(server.address()));
        let asked = with_ticket(&mut away.client, Method::REFRESH, &ticket);
        ticket_of(&mut away, &asked);
        // Both are on their way before anybody has read that the first allocation is over.
        let (release, again) = (away.client.refresh(Some(0)), away.client.allocate(None));
        away.says(&release);
        away.says(&again);
        for _ in 0..2 {
            let answer = away.hears().expect("an answer comes");
            assert_eq!(Message::parse(&answer).map(|message| message.class), Ok(Class::Success));
        }
        away.permit(PEER).expect("the new allocation is found on its path");
        away.release();
    }
}

#[test]
fn m05_whoever_has_heard_that_it_moved_is_known_on_its_new_path() {
    // Where the answer can overtake the news, about one request in a hundred does; one is enough to end a call.
    const MOVES: usize = 100;
    let setup = Setup { workers: 2, auth_lines: "mobility = true", ..Setup::default() };
    let server = Server::start_with(&setup);
    let mut caller = challenged(Caller::udp(server.address()));
    let asked = with_ticket(&mut caller.client, Method::ALLOCATE, &[]);
    let mut ticket = ticket_of(&mut caller, &asked);
    for _ in 0..MOVES {
        let mut moved = challenged(Caller::udp(server.address()));
        let asked = with_ticket(&mut moved.client, Method::REFRESH, &ticket);
        ticket = ticket_of(&mut moved, &asked);
        moved.permit(PEER).expect("a permission at once");
    }
    assert_eq!(server.metric_sum("turnserver_allocations{"), 1.0);
}
