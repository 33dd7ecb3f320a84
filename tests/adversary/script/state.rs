//! What a server keeps, for whom, and what it gives for nothing.

use super::{Outcome, Stop, Target, flawed, succeeds};
use crate::visitor::{Gone, Visitor};
use std::net::{Ipv4Addr, UdpSocket};
use turnserver::client::Client;
use turnserver::wire::codes::{Attribute, Class, ErrorCode, Method};
use turnserver::wire::reply::Reply;

/// How much a server may grow while nobody who proves anything comes. One session of most servers is 10 kB and more.
const GROWTH: u64 = 4 << 20;
/// How many come.
const STRANGERS: usize = 2000;
/// Datagrams that a socket's buffer surely holds at once.
const AT_ONCE: usize = 40;

/// Sends one datagram from each of many sockets, and sees that the server has read them. How much it has grown.
fn growth(target: &Target, address: std::net::SocketAddr, make: impl Fn(usize) -> Vec<u8>) -> Result<u64, Stop> {
    target.is_well("growth")?;
    let mut fence = target.visitor("fence");
    let mut send = |number: usize| -> Result<(), Stop> {
        // An address of its own for each, so that no budget by address hides what is kept.
        let [_, _, high, low] = (number as u32).to_be_bytes();
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 9, high, low), 0)).expect("loopback is wide");
        let _unsent = socket.send_to(&make(number), address);
        if number.is_multiple_of(AT_ONCE) {
            fence.is_served().ok_or(Gone)?;
        }
        Ok(())
    };
    // What is set up once is not growth.
    (0..100).try_for_each(&mut send)?;
    let before = target.memory()?;
    (100..100 + STRANGERS).try_for_each(&mut send)?;
    fence.is_served().ok_or(Gone)?;
    target.is_well("growth")?;
    Ok(target.memory()?.saturating_sub(before))
}

pub(super) fn strangers_leave_nothing_behind(target: &Target) -> Outcome {
    let forged = |number: usize| {
        let mut room = [0; 512];
        let mut id = [7; 12];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let mut request = Reply::new(&mut room, Method::ALLOCATE, Class::Request, id);
        request.bytes(Attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]).bytes(Attribute::USERNAME, b"u");
        request.bytes(Attribute::REALM, target.realm.as_bytes()).bytes(Attribute::NONCE, b"0123456789abcdef");
        request.bytes(Attribute::MESSAGE_INTEGRITY, &[9; 20]);
        let len = request.finish().expect("there is room");
        room[..len].to_vec()
    };
    let grown = growth(target, target.address, forged)?;
    if grown <= GROWTH {
        return Ok(());
    }
    flawed(format_args!("{STRANGERS} strangers leave {} bytes each behind", grown / STRANGERS as u64))
}

pub(super) fn hellos_leave_nothing_behind(target: &Target) -> Outcome {
    let Some(address) = target.dtls else { return Err(Stop::NotShown("there is no DTLS")) };
    let grown = growth(target, address, |number| {
        let mut random = [5; 32];
        random[..8].copy_from_slice(&number.to_be_bytes());
        hello(random)
    })?;
    if grown <= GROWTH {
        return Ok(());
    }
    flawed(format_args!("{STRANGERS} hellos without a cookie leave {} bytes each behind", grown / STRANGERS as u64))
}

/// A DTLS 1.2 ClientHello without a cookie.
fn hello(random: [u8; 32]) -> Vec<u8> {
    let extensions = [
        0, 23, 0, 0, // extended master secret
        0, 10, 0, 4, 0, 2, 0, 23, // P-256
        0, 11, 0, 2, 1, 0, // uncompressed points
        0, 13, 0, 4, 0, 2, 4, 3, // ECDSA with SHA-256
    ];
    let count = (extensions.len() as u16).to_be_bytes();
    // Version, random, no session, no cookie, one suite, no compression.
    let head = [&[0xFE, 0xFD][..], &random, &[0, 0], &[0, 2, 0xC0, 0x2B], &[1, 0]].concat();
    let body = [&head[..], &count, &extensions].concat();
    let length = &(body.len() as u32).to_be_bytes()[1..];
    let message = [&[1], length, &[0, 0, 0, 0, 0], length, &body].concat();
    let length = (message.len() as u16).to_be_bytes();
    [&[22, 0xFE, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0][..], &length, &message].concat()
}

pub(super) fn origin_pins_nothing(target: &Target) -> Outcome {
    let mut stranger = Visitor::udp(target.address, "x", "y");
    let ask = |client: &mut Client| {
        client.request(Method::ALLOCATE, |request| {
            request.bytes(Attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            request.bytes(Attribute(0x802F), target.origin.as_bytes()); // ORIGIN
        })
    };
    let request = ask(&mut stranger.client);
    stranger.answer(&request).ok_or(Gone)?;
    // The same address and port again, as whoever comes there next.
    let realm = stranger.learns().ok_or(Gone)?.get(Attribute::REALM).ok_or(Gone)?;
    if realm != target.realm.as_bytes() {
        return flawed(format_args!(
            "an ORIGIN without a credential leaves the realm {:?}",
            String::from_utf8_lossy(&realm)
        ));
    }
    Ok(())
}

pub(super) fn strangers_get_less_than_they_send(target: &Target) -> Outcome {
    const REQUESTS: usize = 1000;
    let mut stranger = Visitor::udp(target.address, "x", "y");
    // No answer to what is none of a client's business to say.
    for class in [Class::Success, Class::Error, Class::Indication] {
        let mut room = [0; 64];
        let reply = Reply::new(&mut room, Method::BINDING, class, [class as u8; 12]);
        let len = reply.finish().expect("there is room");
        if stranger.tries(&room[..len])?.is_some() {
            return flawed(format_args!("a {class:?} is answered"));
        }
    }
    let (mut sent, mut heard) = (0, 0);
    // As fast as it goes: whoever is paced is within any budget.
    for number in 0..REQUESTS {
        let request = stranger.client.allocate(None);
        sent += request.len();
        stranger.says(&request);
        if number % AT_ONCE == 0 {
            heard += stranger.takes_what_came();
        }
    }
    stranger.is_served().ok_or(Gone)?;
    heard += stranger.takes_what_came();
    if heard > sent {
        return flawed(format_args!("{heard} bytes come back for {sent} of a stranger"));
    }
    Ok(())
}

pub(super) fn even_ports_come_back(target: &Target) -> Outcome {
    // Some servers let a port go seconds after its allocation: only what never comes back is lost.
    const PATIENCE: u32 = 12;
    for round in 0..target.ports * 2 {
        let mut visitor = target.visitor("4adb");
        let mut tries = 0;
        let code = loop {
            let code = visitor.allocates(&[(Attribute::EVEN_PORT, &[0])]).ok_or(Gone)?.code();
            if ErrorCode(code) != ErrorCode::INSUFFICIENT_CAPACITY || tries == PATIENCE {
                break code;
            }
            tries += 1;
            visitor.hears(); // nothing, and a second has passed
        };
        if ErrorCode(code) == ErrorCode::INSUFFICIENT_CAPACITY {
            return flawed(format_args!(
                "of {} relay ports none is left after {round} allocations ended",
                target.ports
            ));
        }
        if code != 200 {
            return Err(Stop::NotShown("EVEN-PORT is refused"));
        }
        succeeds(visitor.releases(), "an allocation does not end")?;
    }
    Ok(())
}

/// A client that may move, and its ticket.
fn mobile(target: &Target, name: &str) -> Result<(Visitor, Vec<u8>), Stop> {
    let mut visitor = target.visitor_of(name);
    let granted = succeeds(visitor.allocates(&[(Attribute::MOBILITY_TICKET, &[])]), "there is no mobility")?;
    let ticket = granted.get(Attribute::MOBILITY_TICKET).ok_or(Stop::NotShown("there is no mobility"))?;
    Ok((visitor, ticket))
}

/// Moves the allocation to another visitor; the next ticket.
fn moves(from: &mut Visitor, to: &mut Visitor, ticket: &[u8]) -> Result<Vec<u8>, Stop> {
    let answer = to.asks(|client| {
        client.request(Method::REFRESH, |request| {
            request.bytes(Attribute::MOBILITY_TICKET, ticket);
        })
    });
    let answer = succeeds(answer, "the allocation does not move")?;
    from.hands_over(to);
    answer.get(Attribute::MOBILITY_TICKET).ok_or(Stop::NotShown("the allocation moves once"))
}

pub(super) fn moves_leave_nothing_behind(target: &Target) -> Outcome {
    const MOVES: usize = 400;
    // What the moves cost, and what as many strangers cost who do not move.
    let weigh = |is_moving: bool| -> Result<u64, Stop> {
        let (mut at, mut ticket) = mobile(target, "a97f")?;
        let before = target.memory()?;
        for _ in 0..MOVES {
            let mut next = target.visitor_of("a97f");
            next.learns().ok_or(Gone)?;
            if is_moving {
                let before = next.repeated;
                ticket = moves(&mut at, &mut next, &ticket)?;
                if next.repeated > before {
                    return Err(Stop::NotShown("a move is answered too late to make many"));
                }
                at = next;
            }
        }
        let after = target.memory()?;
        Ok(after.saturating_sub(before))
    };
    let (still, moving) = (weigh(false)?, weigh(true)?);
    if moving > still + GROWTH {
        return flawed(format_args!("{MOVES} moves leave {} bytes each behind", (moving - still) / MOVES as u64));
    }
    Ok(())
}

pub(super) fn a_move_frees_no_quota(target: &Target) -> Outcome {
    let name = "3c5b";
    let (mut at, mut ticket) = mobile(target, name)?;
    let _others: Vec<Visitor> = (1..target.quota)
        .map(|_| {
            let mut other = target.visitor_of(name);
            succeeds(other.allocates(&[]), "a good credential gets no allocation").map(|_| other)
        })
        .collect::<Result<_, _>>()?;
    for round in 0..4 {
        let mut beyond = target.visitor_of(name);
        let code = beyond.allocates(&[]).ok_or(Gone)?.code();
        if code == 200 {
            let what = if round == 0 { "before any move" } else { "after a move" };
            return flawed(format_args!("{what} a user has more than {} allocations", target.quota));
        }
        let mut next = target.visitor_of(name);
        ticket = moves(&mut at, &mut next, &ticket)?;
        at = next;
    }
    Ok(())
}
