//! The PROXY protocol: what is believed, what is not, and that no byte behind a header is lost.

use core::net::SocketAddr;
use proptest::prelude::*;
use turnserver::wire::proxy::{self, Ends, Header, MAX_V1, MAX_V2, MAX_WRITTEN};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn ends(source: &str, destination: &str) -> Ends {
    Ends { source: source.parse().expect("an address"), destination: destination.parse().expect("an address") }
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    [V2, &[command, family], &(body.len() as u16).to_be_bytes(), body].concat()
}

#[test]
fn both_versions_name_the_client_and_what_it_came_to() {
    let line = b"PROXY TCP4 192.0.2.7 198.51.100.9 4711 443\r\nmore";
    let v4 = ends("192.0.2.7:4711", "198.51.100.9:443");
    assert_eq!(proxy::parse(line), Header::Whole { len: line.len() - 4, ends: Some(v4) });
    let line = b"PROXY TCP6 2001:db8::7 2001:db8::9 65535 1\r\n";
    let v6 = ends("[2001:db8::7]:65535", "[2001:db8::9]:1");
    assert_eq!(proxy::parse(line), Header::Whole { len: line.len(), ends: Some(v6) });
    let body = [192, 0, 2, 7, 198, 51, 100, 9, 0x12, 0x67, 1, 0xBB, 4, 0, 1, 0];
    assert_eq!(proxy::parse(&v2(0x21, 0x11, &body)), Header::Whole { len: 32, ends: Some(v4) });
    let mapped = b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.9 4711 443\r\n";
    assert_eq!(proxy::parse(mapped), Header::Whole { len: mapped.len(), ends: Some(v4) });
}

#[test]
fn a_proxy_that_speaks_for_itself_names_nobody() {
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), b"PROXY UNKNOWN what ever\r\n".to_vec(), v2(0x20, 0, &[])] {
        assert_eq!(proxy::parse(&header), Header::Whole { len: header.len(), ends: None });
    }
    assert_eq!(proxy::parse(&v2(0x20, 0x11, &[0; 12])), Header::Whole { len: 28, ends: None });
    assert_eq!(proxy::parse(&v2(0x21, 0, &[])), Header::Whole { len: 16, ends: None });
}

#[test]
fn what_cannot_be_is_not_believed() {
    for line in [
        "PROXY TCP4 0.0.0.0 198.51.100.9 4711 443\r\n",
        "PROXY TCP4 224.0.0.1 198.51.100.9 4711 443\r\n",
        "PROXY TCP4 255.255.255.255 198.51.100.9 4711 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.9 0 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.9 4711 0\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.9 65536 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.9 +711 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.9 4711 443 \r\n",
        "PROXY TCP4 192.0.2.7  198.51.100.9 4711 443\r\n",
        "PROXY TCP4 2001:db8::7 2001:db8::9 4711 443\r\n",
        "PROXY TCP6 192.0.2.7 198.51.100.9 4711 443\r\n",
        "PROXY TCP6 ff02::1 2001:db8::9 4711 443\r\n",
        "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::9 4711 443\r\n",
        "PROXY UDP4 192.0.2.7 198.51.100.9 4711 443\r\n",
        "PROXY TCP4 192.0.2.7\r\n",
        "PROXY \r\n",
    ] {
        assert_eq!(proxy::parse(line.as_bytes()), Header::Broken, "{line}");
    }
    let v4 = [192, 0, 2, 7, 198, 51, 100, 9, 0x12, 0x67, 1, 0xBB];
    for (command, family, body) in [
        (0x22, 0x11, &v4[..]),
        (0x11, 0x11, &v4[..]),
        (0x21, 0x12, &v4[..]),
        (0x21, 0x31, &[1; 216][..]),
        (0x21, 0x21, &v4[..]),
        (0x21, 0x11, &v4[..11]),
        (0x21, 0x11, &[0; 12][..]),
    ] {
        assert_eq!(proxy::parse(&v2(command, family, body)), Header::Broken, "{command:x} {family:x}");
    }
}

#[test]
fn every_start_of_a_line_is_partial() {
    let line = b"PROXY TCP4 192.0.2.7 198.51.100.9 4711 443\r\n";
    for end in 0..line.len() {
        assert_eq!(proxy::parse(&line[..end]), Header::Partial, "{end} bytes");
    }
}

#[test]
fn the_longest_header_that_is_written_fills_its_room() {
    let ends = ends("[2001:db8::7]:4711", "[2001:db8::9]:443");
    assert_eq!(proxy::write(&mut [0; MAX_WRITTEN], Some(ends)).len(), MAX_WRITTEN);
}

#[test]
fn the_longest_header_is_whole_and_one_byte_more_is_broken() {
    let line = |len: usize| [b"PROXY UNKNOWN ".as_slice(), &vec![b'x'; len - 16], b"\r\n"].concat();
    assert_eq!(proxy::parse(&line(MAX_V1)), Header::Whole { len: MAX_V1, ends: None });
    assert_eq!(proxy::parse(&line(MAX_V1 + 1)), Header::Broken);
    assert_eq!(proxy::parse(&v2(0x20, 0, &vec![0; MAX_V2 - 16])), Header::Whole { len: MAX_V2, ends: None });
    assert_eq!(proxy::parse(&v2(0x20, 0, &vec![0; MAX_V2 - 15])[..16]), Header::Broken, "before its body comes");
}

#[test]
fn turn_tls_and_http_begin_otherwise() {
    for bytes in [&[0, 1, 0, 0][..], &[22, 3, 1], &[0x40, 1], b"GET / HTTP/1.1", b"POST /", b"PRI * HTTP/2.0"] {
        assert_eq!(proxy::parse(bytes), Header::Absent);
    }
    assert_eq!(proxy::parse(b""), Header::Partial);
    assert_eq!(proxy::parse(b"P"), Header::Partial);
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let v4 = (1u8..=223, any::<[u8; 3]>(), 1..=u16::MAX).prop_map(|(a, [b, c, d], port)| ([a, b, c, d], port).into());
    let v6 = (any::<[u16; 7]>(), 1..=u16::MAX)
        .prop_map(|([b, c, d, e, f, g, h], port)| SocketAddr::from(([0x2001, b, c, d, e, f, g, h], port)));
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn nothing_panics_and_no_header_reaches_beyond_its_bytes(
        start in prop_oneof![Just(b"PROXY TCP4 ".to_vec()), Just(b"PROXY TCP6 ".to_vec()), Just(V2.to_vec()), Just(vec![])],
        rest in proptest::collection::vec(any::<u8>(), 0..700),
    ) {
        let bytes = [start, rest].concat();
        if let Header::Whole { len, .. } = proxy::parse(&bytes) {
            prop_assert!(len <= bytes.len() && len <= MAX_V2);
        }
    }

    #[test]
    fn what_is_written_is_read_and_every_start_of_it_is_partial(
        source in address(), destination in address(), after in proptest::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut room = [0; MAX_WRITTEN];
        let header = proxy::write(&mut room, Some(Ends { source, destination })).to_vec();
        for end in 0..header.len() {
            prop_assert_eq!(proxy::parse(&header[..end]), Header::Partial);
        }
        let read = proxy::parse(&[&header[..], &after].concat());
        if source.is_ipv4() == destination.is_ipv4() {
            prop_assert_eq!(read, Header::Whole { len: header.len(), ends: Some(Ends { source, destination }) });
        }
    }
}
