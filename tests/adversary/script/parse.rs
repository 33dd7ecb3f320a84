//! What a parser makes of bytes that nobody honest sends.

use super::{Outcome, Stop, Target, flawed, succeeds};
use crate::visitor::{Answer, Crafted, Gone, Visitor, minted, transaction, xored};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;
use turnserver::wire::codes::{Attribute, Class, HEADER, Method};
use turnserver::wire::integrity::Key;
use turnserver::wire::reply::Reply;

const PATIENCE: Duration = Duration::from_secs(10);

/// What a fresh connection says to these bytes, once it is told that no more will come.
fn answer_of_a_stream(target: &Target, bytes: &[u8]) -> Result<Vec<u8>, Stop> {
    let mut stream = TcpStream::connect(target.address).map_err(|_| Gone)?;
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
    let _cut_off = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    let _cut_off = stream.read_to_end(&mut answer);
    Ok(answer)
}

pub(super) fn http_is_not_spoken(target: &Target) -> Outcome {
    let requests: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\nuname=a&pwd=b",
        b"POST /logon HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\nuname=\xFF&=&&==\r\n\r\n",
        b"POST  HTTP/1.1\r\n\r\n",
        b"PUT /%00%n HTTP/0.9\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n\r\n",
    ];
    for request in requests {
        let answer = answer_of_a_stream(target, request)?;
        if !answer.is_empty() {
            let first = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
            return flawed(format_args!("the TURN port answers HTTP: {first}"));
        }
    }
    target.is_well("6061")
}

pub(super) fn no_redirect_is_read(target: &Target) -> Outcome {
    for len in [0, 1, 43, 86, 255, 256, 1023, 4096] {
        for end in ["", " HTTP/1.1\r\n\r\n"] {
            let request = format!("GET /.well-known/acme-challenge/{}{end}", "A".repeat(len));
            let answer = answer_of_a_stream(target, request.as_bytes())?;
            if !answer.is_empty() {
                return flawed(format_args!("{} bytes come back for a path of {len}", answer.len()));
            }
        }
    }
    target.is_well("m23x")
}

/// The first attribute of a message whose padding is not zero.
fn dirty(message: &[u8]) -> Option<u16> {
    let mut at = HEADER;
    while let Some([t0, t1, l0, l1]) = message.get(at..at + 4) {
        let end = at + 4 + usize::from(u16::from_be_bytes([*l0, *l1]));
        let padded = end.next_multiple_of(4);
        if message.get(end..padded).is_none_or(|padding| padding.iter().any(|byte| *byte != 0)) {
            return Some(u16::from_be_bytes([*t0, *t1]));
        }
        at = padded;
    }
    None
}

pub(super) fn padding_is_zero(target: &Target) -> Outcome {
    let mut visitor = target.visitor("4067");
    let mut heard: Vec<Answer> = vec![visitor.learns().ok_or(Gone)?];
    heard.push(succeeds(visitor.allocates(&[]), "a good credential gets no allocation")?);
    for count in 1..=7 {
        // An odd number of unknown attributes makes a list that needs padding.
        let ask = |client: &mut turnserver::client::Client| {
            client.request(Method::REFRESH, |request| {
                for number in 0..count {
                    request.bytes(Attribute(0x7000 + number), b"\xAA\xAA\xAA");
                }
            })
        };
        heard.push(visitor.asks(ask).ok_or(Gone)?);
    }
    heard.push(visitor.refreshes(None).ok_or(Gone)?);
    heard.push(visitor.permits("0.0.0.0:1".parse().expect("an address")).ok_or(Gone)?);
    heard.push(Visitor::udp(target.address, "x", "y").allocates(&[]).ok_or(Gone)?);
    match heard.iter().find_map(|answer| dirty(&answer.0)) {
        Some(attribute) => flawed(format_args!("the padding of {:?} is not zero", Attribute(attribute))),
        None => Ok(()),
    }
}

pub(super) fn odd_offsets_are_read(target: &Target) -> Outcome {
    // Over TCP in pieces of every size, behind ChannelData of odd length, every read begins somewhere else.
    for piece in 1..=9 {
        let mut visitor = target.visitor_tcp("40613")?;
        let binding = visitor.client.binding();
        for bytes in binding.chunks(piece) {
            visitor.says(bytes);
        }
        visitor.hears().ok_or(Gone)?;
        succeeds(visitor.allocates(&[]), "a good credential gets no allocation")?;
        for len in 0..9 {
            let data = vec![7; len];
            visitor.says(&{
                let mut frame = turnserver::client::channel_data(turnserver::wire::channel::ChannelNumber::MIN, &data);
                frame.resize(frame.len().next_multiple_of(4), 0);
                frame
            });
            visitor.is_served().ok_or(Gone)?;
        }
    }
    let mut visitor = target.visitor("40613");
    for len in 0..64 {
        let software = vec![b'x'; len];
        let asks = |client: &mut turnserver::client::Client| {
            client.request(Method::BINDING, |request| {
                request.bytes(Attribute::SOFTWARE, &software).bytes(Attribute::PRIORITY, &software);
            })
        };
        let odd = asks(&mut visitor.client);
        visitor.tries(&odd)?;
    }
    Ok(())
}

pub(super) fn tokens_of_any_length_are_refused(target: &Target) -> Outcome {
    let mut visitor = Visitor::udp(target.address, "north", "");
    let challenge = visitor.learns().ok_or(Gone)?;
    if challenge.get(Attribute::THIRD_PARTY_AUTHORIZATION).is_none() {
        return Err(Stop::NotShown("the server takes no tokens"));
    }
    let (realm, nonce) = (challenge.get(Attribute::REALM), challenge.get(Attribute::NONCE));
    let (realm, nonce) = (realm.ok_or(Gone)?, nonce.ok_or(Gone)?);
    let key = Key::from_bytes(&[b'k'; 32]).expect("a key of 32 bytes");
    for len in [0, 1, 2, 3, 13, 14, 15, 63, 64, 65, 127, 128, 129, 255, 256, 511, 512, 1023, 1300] {
        for inner in [0u16, 12, 0x00FF, 0x7FFF, 0xFFFF] {
            // A token begins with the length of its nonce.
            let mut token = vec![0x41; len];
            token.iter_mut().zip(inner.to_be_bytes()).for_each(|(to, from)| *to = from);
            let before = [(Attribute::REQUESTED_TRANSPORT, vec![17, 0, 0, 0]), (Attribute::ACCESS_TOKEN, token)];
            let crafted = Crafted {
                method: Method::ALLOCATE,
                before: &before,
                username: b"north",
                realm: &realm,
                nonce: &nonce,
                key: &key,
                behind: &[],
            };
            let answer = visitor.tries(&crafted.bytes(transaction()))?;
            if answer.is_some_and(|answer| answer.code() == 200) {
                return flawed(format_args!("a token of {len} times 0x41 lets its bearer in"));
            }
        }
    }
    target.is_well("46368")
}

/// What no name may do to the log: begin a line of its own.
const HOSTILE: &str = "%s%n%x'\"}{$(id)\nforged";

pub(super) fn names_are_data(target: &Target) -> Outcome {
    let (username, password) = minted(target.secret, target.expires, HOSTILE);
    let mut visitor = Visitor::udp(target.address, &username, &password);
    let allocated = visitor.allocates(&[]).ok_or(Gone)?.code();
    if allocated == 200 {
        visitor.releases().ok_or(Gone)?;
    }
    // Before anything is known of the asker, in every text attribute.
    for text in ["%n%n%n%n%s%s%s%s", HOSTILE, "\0", "\u{1b}[2J"] {
        let mut stranger = Visitor::udp(target.address, text, text);
        let asks = |client: &mut turnserver::client::Client| {
            client.request(Method::ALLOCATE, |request| {
                request.bytes(Attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
                request.bytes(Attribute::SOFTWARE, text.as_bytes()).bytes(Attribute(0x802F), text.as_bytes());
            })
        };
        if stranger.asks(asks).ok_or(Gone)?.code() == 200 {
            return flawed("a stranger has an allocation");
        }
        let mut room = [0; 1024];
        let mut bare = Reply::new(&mut room, Method::ALLOCATE, Class::Request, transaction());
        bare.bytes(Attribute::USERNAME, text.as_bytes()).bytes(Attribute::REALM, text.as_bytes());
        bare.bytes(Attribute::NONCE, text.as_bytes()).bytes(Attribute::MESSAGE_INTEGRITY, &[b'%'; 20]);
        let len = bare.finish().expect("there is room");
        stranger.tries(&room[..len])?;
    }
    target.is_well("4g7c")?;
    let log = std::fs::read_to_string(&target.log).map_err(|_| Stop::NotShown("there is no log"))?;
    if log.lines().any(|line| line.starts_with("forged")) {
        return flawed("a user name begins a line of the log");
    }
    if log.contains('\0') || log.contains("\u{1b}[2J") {
        return flawed("a user name is obeyed by the terminal that shows the log");
    }
    if log.contains("%s%n%x") { Ok(()) } else { Err(Stop::NotShown("the log names no users")) }
}

pub(super) fn what_follows_the_signature_does_nothing(target: &Target) -> Outcome {
    let (username, password) = minted(target.secret, target.expires, "ab76");
    let mut visitor = Visitor::udp(target.address, &username, &password);
    let challenge = visitor.learns().ok_or(Gone)?;
    let nonce = challenge.get(Attribute::NONCE).ok_or(Gone)?;
    succeeds(visitor.allocates(&[]), "a good credential gets no allocation")?;
    let key = Key::md5(&username, target.realm, &password);
    let crafted = |method, behind: &[(Attribute, Vec<u8>)], id| {
        let (username, realm) = (username.as_bytes(), target.realm.as_bytes());
        Crafted { method, before: &[], username, realm, nonce: &nonce, key: &key, behind }.bytes(id)
    };
    // A peer that was never signed for: without one the request is a bad one.
    let id = transaction();
    let peer = "1.1.1.1:9".parse().expect("an address");
    let request = crafted(Method::CREATE_PERMISSION, &[(Attribute::XOR_PEER_ADDRESS, xored(peer, &id))], id);
    let answer = visitor.tries(&request)?;
    if answer.is_some_and(|answer| answer.code() == 200) {
        return flawed("XOR-PEER-ADDRESS behind MESSAGE-INTEGRITY makes a permission");
    }
    let request = crafted(Method::REFRESH, &[(Attribute::LIFETIME, vec![0; 4])], transaction());
    let answer = visitor.tries(&request)?;
    if answer.is_some_and(|answer| answer.lifetime() == Some(0)) {
        return flawed("LIFETIME behind MESSAGE-INTEGRITY ends the allocation");
    }
    succeeds(visitor.refreshes(None), "the allocation is gone").map(drop)
}
