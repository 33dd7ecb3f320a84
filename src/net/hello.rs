//! A DTLS client's first word, and the proof of its address (RFC 6347 §4.2.1).
//!
//! Reads a ClientHello where it lies and writes the one answer a client without proof gets: a HelloVerifyRequest of
//! [`VERIFY_LEN`] bytes, never longer than the question. A cookie is a MAC over the client's address, what its hello
//! must repeat, and the half minute; so nothing has to be kept between the two hellos, and nothing is. Hellos in
//! fragments are not read: putting them together would need memory before proof.
#![forbid(unsafe_code)]

use crate::time::{Duration, Instant, seconds};
use crate::wire::integrity::{self, SHA256_LEN};
use std::net::{IpAddr, SocketAddr};

/// Bytes of a HelloVerifyRequest: record head 13, handshake head 12, version 2, length 1, cookie 32.
pub const VERIFY_LEN: usize = 13 + 12 + 2 + 1 + SHA256_LEN;
/// A cookie is good for its own period and the next one: a round trip fits, a collection of cookies ages.
pub const COOKIE_PERIOD: Duration = seconds(30);
/// Hellos a client may have said before the one with a good cookie: one each time its cookie aged on the way.
const MOST_HELLOS: u16 = 4;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const HELLO_VERIFY_REQUEST: u8 = 3;
/// DTLS 1.2; versions count downwards.
const DTLS_1_2: [u8; 2] = [0xFE, 0xFD];
/// HelloVerifyRequest says 1.0 whatever will be spoken (RFC 6347 §4.2.1).
const DTLS_1_0: [u8; 2] = [0xFE, 0xFF];

/// Bytes of the alert that a client without DTLS 1.2 gets: record head 13, level 1, description 1.
pub const REFUSAL_LEN: usize = 13 + 2;
const ALERT: u8 = 21;
const FATAL: u8 = 2;
const PROTOCOL_VERSION: u8 = 70;

/// The alert for a client whose newest version is DTLS 1.0 (RFC 8996 has ended it); `None` for any other datagram. A
/// client that hears nothing would try again until its time is over, and not try another version.
pub fn refusal(datagram: &[u8]) -> Option<[u8; REFUSAL_LEN]> {
    const VERSION_AT: usize = 13 + 12;
    let is_old = datagram.get(VERSION_AT..VERSION_AT + 2)? == DTLS_1_0;
    let sequence: [u8; 6] = datagram.get(5..11)?.try_into().ok()?;
    let parts: [&[u8]; 5] = [&[ALERT], &DTLS_1_0, &[0, 0], &sequence, &[0, 2, FATAL, PROTOCOL_VERSION]];
    let mut alert = [0; REFUSAL_LEN];
    alert.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
    (is_old && is_hello(datagram)).then_some(alert)
}

/// A whole ClientHello.
#[derive(Clone, Copy, Debug)]
pub struct Hello<'a> {
    /// The record it lies in, without what may follow in the datagram.
    pub(super) record: &'a [u8],
    /// The record's sequence number: our first record repeats it.
    pub(super) sequence: [u8; 6],
    /// Which of the client's handshake messages this is.
    pub(super) number: u16,
    /// What makes this handshake another one than the client's last.
    pub(super) random: [u8; 32],
    pub(super) cookie: &'a [u8],
    /// Cipher suites, two bytes each.
    suites: &'a [u8],
    /// Version, random and session, as they stand before the cookie.
    before: &'a [u8],
    /// Cipher suites and compression methods, as they stand behind it.
    behind: &'a [u8],
}

/// Whether a datagram begins with a ClientHello or a piece of one.
pub fn is_hello(datagram: &[u8]) -> bool {
    matches!(datagram, [HANDSHAKE, 0xFE, _, 0, 0, _, _, _, _, _, _, _, _, CLIENT_HELLO, ..])
}

impl<'a> Hello<'a> {
    /// Reads the ClientHello a datagram begins with. `None`: it is broken, in fragments, or not of our version.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let mut rest = datagram;
        let (_type_and_version, epoch) = (array::<3>(&mut rest)?, array::<2>(&mut rest)?);
        let sequence = array::<6>(&mut rest)?;
        let length = usize::from(u16::from_be_bytes(array(&mut rest)?));
        let mut message = take(&mut rest, length)?;
        let record = datagram.get(..datagram.len() - rest.len())?;

        let [kind] = array(&mut message)?;
        let length = u24(&mut message)?;
        let number = u16::from_be_bytes(array(&mut message)?);
        let (offset, fragment) = (u24(&mut message)?, u24(&mut message)?);
        let is_whole = offset == 0 && fragment == length && message.len() == length;
        if epoch != [0, 0] || kind != CLIENT_HELLO || !is_whole || number > MOST_HELLOS {
            return None;
        }

        let body = message;
        let version: [u8; 2] = array(&mut message)?;
        let random = array(&mut message)?;
        let _session = counted(&mut message)?;
        let before = body.get(..body.len() - message.len())?;
        let cookie = counted(&mut message)?;
        let after_cookie = message;
        let length = usize::from(u16::from_be_bytes(array(&mut message)?));
        let suites = take(&mut message, length)?;
        let _compression = counted(&mut message)?;
        let behind = after_cookie.get(..after_cookie.len() - message.len())?;
        (version == DTLS_1_2).then_some(Self { record, sequence, number, random, cookie, suites, before, behind })
    }

    /// Whether the client has this cipher suite.
    pub(super) fn offers(&self, suite: [u8; 2]) -> bool {
        self.suites.chunks_exact(2).any(|offered| offered == suite)
    }

    /// Whether the cookie is one that `key` made for this client at `from`.
    pub fn is_proven(&self, key: &[u8], from: SocketAddr, now: Instant) -> bool {
        if self.cookie.len() != SHA256_LEN {
            return false;
        }
        let period = period(now);
        let matches = |period| integrity::equal(self.cookie, &self.cookie_of(key, from, period));
        matches(period) | matches(period.wrapping_sub(1))
    }

    /// The answer that asks for proof.
    pub fn verify_request(&self, key: &[u8], from: SocketAddr, now: Instant) -> [u8; VERIFY_LEN] {
        const BODY: u8 = (2 + 1 + SHA256_LEN) as u8;
        let cookie = self.cookie_of(key, from, period(now));
        let parts: [&[u8]; 12] = [
            &[HANDSHAKE],
            &DTLS_1_2,
            &[0, 0],
            &self.sequence,
            &[0, 12 + BODY],
            &[HELLO_VERIFY_REQUEST, 0, 0, BODY],
            &self.number.to_be_bytes(),
            &[0, 0, 0],
            &[0, 0, BODY],
            &DTLS_1_0,
            &[SHA256_LEN as u8],
            &cookie,
        ];
        let mut answer = [0; VERIFY_LEN];
        answer.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        answer
    }

    fn cookie_of(&self, key: &[u8], from: SocketAddr, period: u64) -> [u8; SHA256_LEN] {
        let ip = match from.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let (ip, port, period) = (ip.octets(), from.port().to_be_bytes(), period.to_be_bytes());
        integrity::hmac_sha256(key, &[&period, &ip, &port, self.before, self.behind])
    }
}

/// A ClientHello without a cookie as number `number` of its client, which any server answers by asking for one.
pub(super) fn opener(number: u16) -> Vec<u8> {
    const BODY: u8 = 2 + 32 + 1 + 1 + 4 + 2;
    let suite = [0, 2, 0xC0, 0x2B]; // ECDHE-ECDSA with AES-128-GCM
    let parts: [&[u8]; 13] = [
        &[HANDSHAKE],
        &DTLS_1_2,
        &[0; 6],
        &number.to_be_bytes(),
        &[0, 12 + BODY],
        &[CLIENT_HELLO, 0, 0, BODY],
        &number.to_be_bytes(),
        &[0, 0, 0],
        &[0, 0, BODY],
        &DTLS_1_2,
        &[0; 32 + 1 + 1],
        &suite,
        &[1, 0],
    ];
    parts.concat()
}

fn period(now: Instant) -> u64 {
    now.as_secs() / COOKIE_PERIOD.as_secs()
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    take(bytes, N)?.try_into().ok()
}

fn u24(bytes: &mut &[u8]) -> Option<usize> {
    let [high, middle, low] = array(bytes)?;
    Some(usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low))
}

/// Bytes with their count, of one byte, before them.
fn counted<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let [count] = array(bytes)?;
    take(bytes, count.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"a key of the test";
    const NOON: Instant = Instant(1_000_000_000_000);

    fn home() -> SocketAddr {
        "192.0.2.1:5000".parse().unwrap()
    }

    /// A hello of the client's own making: number, cookie, extensions.
    fn hello(number: u16, cookie: &[u8], extensions: &[u8]) -> Vec<u8> {
        let head = [&DTLS_1_2[..], &[7; 32], &[0], &[cookie.len() as u8], cookie].concat();
        let body = [&head[..], &[0, 2, 0xC0, 0x2B, 1, 0], extensions].concat();
        let length = &(body.len() as u32).to_be_bytes()[1..];
        let message = [&[CLIENT_HELLO], length, &number.to_be_bytes(), &[0; 3], length, &body].concat();
        let record = [&[HANDSHAKE][..], &DTLS_1_0, &[0; 7], &[9], &(message.len() as u16).to_be_bytes()].concat();
        [record, message].concat()
    }

    fn cookie_in(answer: &[u8]) -> &[u8] {
        answer.get(VERIFY_LEN - SHA256_LEN..).unwrap()
    }

    #[test]
    fn a_cookie_proves_its_own_client_for_a_while() {
        let first = hello(0, &[], &[]);
        let answer = Hello::parse(&first).unwrap().verify_request(KEY, home(), NOON);
        let second = hello(1, cookie_in(&answer), &[]);
        let second = Hello::parse(&second).unwrap();
        assert!(second.is_proven(KEY, home(), NOON));
        assert!(second.is_proven(KEY, home(), NOON + COOKIE_PERIOD));
        assert!(!second.is_proven(KEY, home(), NOON + COOKIE_PERIOD * 2));
        assert!(!second.is_proven(KEY, "192.0.2.1:5001".parse().unwrap(), NOON));
        assert!(!second.is_proven(KEY, "192.0.2.2:5000".parse().unwrap(), NOON));
        assert!(!second.is_proven(b"another key", home(), NOON));
    }

    #[test]
    fn no_hello_is_shorter_than_its_answer() {
        let shortest = hello(0, &[], &[]);
        assert!(Hello::parse(&shortest).is_some());
        assert!(shortest.len() >= VERIFY_LEN);
        for end in 0..shortest.len() {
            assert!(Hello::parse(&shortest[..end]).is_none(), "{end} of {} bytes", shortest.len());
        }
    }

    #[test]
    fn an_answer_repeats_the_numbers_of_its_question() {
        let first = hello(2, &[], &[0; 40]);
        let answer = Hello::parse(&first).unwrap().verify_request(KEY, home(), NOON);
        assert_eq!(answer[5..11], [0, 0, 0, 0, 0, 9]);
        assert_eq!(answer[17..19], [0, 2]);
        assert_eq!(usize::from(answer[12]) + 13, VERIFY_LEN);
        assert_eq!(usize::from(answer[16]) + 25, VERIFY_LEN);
    }

    #[test]
    fn a_client_of_an_ended_version_is_told_so_in_fewer_bytes_than_it_sent() {
        let mut old = hello(0, &[], &[]);
        assert_eq!(refusal(&old), None);
        old[26] = 0xFF;
        assert_eq!(refusal(&old).unwrap(), [21, 0xFE, 0xFF, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 70]);
        for end in 0..27 {
            assert_eq!(refusal(&old[..end]), None);
        }
    }

    #[test]
    fn fragments_and_other_versions_are_not_read() {
        let mut piece = hello(0, &[], &[]);
        piece[24] -= 1;
        assert!(is_hello(&piece) && Hello::parse(&piece).is_none());
        let mut old = hello(0, &[], &[]);
        old[26] = 0xFF;
        assert!(is_hello(&old) && Hello::parse(&old).is_none());
        assert!(Hello::parse(&hello(MOST_HELLOS + 1, &[], &[])).is_none());
        assert!(Hello::parse(&opener(0)).is_some());
    }
}
