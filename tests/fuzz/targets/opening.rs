//! What a connection or a datagram begins with: PROXY, HTTP, TLS, DTLS. Said early, never taken back.

use super::script::Script;
use std::net::SocketAddr;
use turnserver::net::hello::{self, Hello, REFUSAL_LEN, VERIFY_LEN};
use turnserver::net::tls;
use turnserver::time::{Instant, seconds};
use turnserver::wire;
use turnserver::wire::proxy::{self, Ends, Header, MAX_V1, MAX_V2};

const KEY: &[u8] = b"a key for cookies";
const NOW: Instant = Instant(1_000_000_000_000);

pub(crate) fn run(bytes: &[u8]) {
    proxies(bytes);
    browses(bytes);
    greets(bytes);
    hears_tls(bytes);
    names_ends(Script::new(bytes));
}

/// The header of a proxy: once said, an answer stands however many bytes follow.
fn proxies(bytes: &[u8]) {
    let mut said = Header::Partial;
    for end in 0..=bytes.len().min(MAX_V2 + 1) {
        let seen = &bytes[..end];
        let header = proxy::parse(seen);
        if said != Header::Partial {
            assert_eq!(header, said, "an answer was taken back");
        }
        match header {
            Header::Absent => assert_eq!(proxy::is_header(seen), Some(false)),
            Header::Partial => assert!(end < MAX_V2.max(MAX_V1), "waiting without end"),
            Header::Whole { len, ends } => {
                assert!(len <= end && len <= MAX_V2);
                assert!(ends.is_none_or(|ends| ends.source.port() != 0 && !ends.source.ip().is_unspecified()));
            }
            Header::Broken => assert_eq!(proxy::is_header(seen), Some(true)),
        }
        said = header;
    }
}

fn browses(bytes: &[u8]) {
    let mut said = None;
    for end in 0..=bytes.len().min(32) {
        let answer = wire::is_http(&bytes[..end]);
        assert!(said.is_none() || answer == said, "an answer was taken back");
        said = answer;
    }
}

/// A ClientHello of DTLS: no answer is longer than its question, and only a cookie of ours is proof.
fn greets(bytes: &[u8]) {
    let from = SocketAddr::from(([192, 0, 2, 1], 5000));
    if let Some(alert) = hello::refusal(bytes) {
        assert!(hello::is_hello(bytes) && alert.len() == REFUSAL_LEN && REFUSAL_LEN <= bytes.len());
    }
    let Some(hello) = Hello::parse(bytes) else { return };
    assert!(!hello.is_proven(KEY, from, NOW), "proven by a cookie that nobody gave");
    let answer = hello.verify_request(KEY, from, NOW);
    assert!(answer.len() == VERIFY_LEN && VERIFY_LEN <= bytes.len(), "an answer longer than its question");
    let Some(repeated) = with_cookie(bytes, &answer[VERIFY_LEN - COOKIE_LEN..]) else { return };
    let repeated = Hello::parse(&repeated).expect("with a cookie it is a hello, too");
    assert!(repeated.is_proven(KEY, from, NOW));
    assert!(!repeated.is_proven(KEY, from, NOW + seconds(60)));
    assert!(!repeated.is_proven(KEY, SocketAddr::from(([192, 0, 2, 1], 5001)), NOW));
}

const COOKIE_LEN: usize = 32;

/// The same hello with this cookie; `None` when it does not fit into one record any more.
fn with_cookie(bytes: &[u8], cookie: &[u8]) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes([bytes[11], bytes[12]]));
    let mut record = bytes[..13 + length].to_vec();
    let cookie_at = 13 + 12 + 2 + 32 + 1 + usize::from(record[13 + 12 + 34]);
    let old = usize::from(record[cookie_at]);
    let counted = [&[cookie.len() as u8], cookie].concat();
    record.splice(cookie_at..cookie_at + 1 + old, counted);
    let message = record.len() - 13;
    record[11..13].copy_from_slice(&u16::try_from(message).ok()?.to_be_bytes());
    let body = ((message - 12) as u32).to_be_bytes();
    record[14..17].copy_from_slice(&body[1..]);
    record[22..25].copy_from_slice(&body[1..]);
    Some(record)
}

/// A ClientHello of TLS in two pieces: memory is bounded, and what is behind it is given back.
fn hears_tls(bytes: &[u8]) {
    if bytes.first() != Some(&22) {
        return;
    }
    let mut hello = tls::Hello::default();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for piece in [first, second] {
        match hello.hear(piece) {
            tls::Heard::Partial => assert!(hello.raw().len() <= bytes.len()),
            tls::Heard::Whole { rest, .. } => return assert!(rest <= piece.len()),
            tls::Heard::Failed(..) => return,
        }
    }
}

/// A header that we write is read as it was meant, unless it names what no host can be.
fn names_ends(mut script: Script<'_>) {
    let ends = Ends { source: script.address(), destination: script.address() };
    let mut room = [0xAA; proxy::MAX_WRITTEN];
    let written = proxy::write(&mut room, Some(ends));
    match proxy::parse(written) {
        Header::Whole { len, ends: Some(read) } => {
            assert_eq!(len, written.len());
            let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
            assert_eq!((read.source, read.destination), (plain(ends.source), plain(ends.destination)));
        }
        Header::Broken => {}
        other @ (Header::Absent | Header::Partial | Header::Whole { .. }) => panic!("{other:?} of a whole header"),
    }
}
