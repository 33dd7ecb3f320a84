//! Every address that is worth a try as a peer, by every way there is to one.
//!
//! The lists are those of `deny-ranges.json`; what single rules mean is in `peers.rs`, what a reload does in `policy.rs`.

use crate::support::*;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use turnserver::turn::Effect;
use turnserver::turn::peers::Prefix;
use turnserver::turn::refusal::Dropped;
use turnserver::turn::tally::Transport;
use turnserver::wire::codes::{Attribute, Method};

const PORT: u16 = 80;

pub(crate) fn probes(name: &str) -> Vec<IpAddr> {
    let all: Value = serde_json::from_str(include_str!("deny-ranges.json")).expect("the file is JSON");
    let list = all["tests"][name].as_array().expect("the file has this list");
    list.iter().map(|probe| probe.as_str().expect("a text").parse().expect("an address")).collect()
}

/// A world with an allocation of each kind: for datagrams ("v4", "v6", "dual") and for connections ("tcp-v4", "tcp-v6").
fn every_kind() -> Turn {
    let mut t = Turn::new();
    let also: &[u8] = &[2, 0, 0, 0];
    let kinds: [(&str, Transport, u8, Attribute, &[u8]); 5] = [
        ("v4", Transport::Udp, 17, Attribute::REQUESTED_ADDRESS_FAMILY, &[1, 0, 0, 0]),
        ("v6", Transport::Udp, 17, Attribute::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]),
        ("dual", Transport::Udp, 17, Attribute::ADDITIONAL_ADDRESS_FAMILY, also),
        ("tcp-v4", Transport::Tcp, 6, Attribute::REQUESTED_ADDRESS_FAMILY, &[1, 0, 0, 0]),
        ("tcp-v6", Transport::Tcp, 6, Attribute::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]),
    ];
    for (name, transport, protocol, family, value) in kinds {
        let ask = request(Method::ALLOCATE).with(Attribute::REQUESTED_TRANSPORT, &[protocol, 0, 0, 0]);
        t.joins_as(name, "alice", &password_of("alice"), transport).obtains(ask.with(family, value));
    }
    t
}

/// Those whose allocation is of the address's family, for datagrams and for connections; and those whose is not.
fn fitting(ip: IpAddr) -> ([&'static str; 2], &'static str, [&'static str; 2]) {
    if ip.is_ipv4() {
        (["v4", "dual"], "tcp-v4", ["v6", "tcp-v6"])
    } else {
        (["v6", "dual"], "tcp-v6", ["v4", "tcp-v4"])
    }
}

/// No way leads there.
#[track_caller]
fn is_shut(t: &mut Turn, ip: IpAddr) {
    let peer = SocketAddr::new(ip, PORT);
    let (datagrams, connections, others) = fitting(ip);
    for name in datagrams {
        t.client(name).says(create_permission(&[peer])).hears(error(403)).signed();
        t.client(name).says(channel_bind(0x4000, peer)).hears(error(403)).signed();
        t.client(name).says(send(peer, b"hello")).hears(silence());
        t.client(name).says(channel_data(0x4000, b"hello")).hears(dropped(Dropped::NoChannel));
        t.peer(peer).sends_to(name, b"hello").hears(silence());
    }
    t.client(connections).says(create_permission(&[peer])).hears(error(403)).signed();
    t.client(connections).says(connect(peer)).hears(error(403)).signed();
    t.client(connections).says(send(peer, b"hello")).hears(silence());
    for name in others {
        t.client(name).says(create_permission(&[peer])).hears(error(443));
    }
    t.client(others[0]).says(channel_bind(0x4000, peer)).hears(error(443));
    t.client(others[0]).says(send(peer, b"hello")).hears(silence());
    t.client(others[1]).says(connect(peer)).hears(error(443));
    let is_dialled = t.deeds.iter().any(|deed| matches!(deed, Effect::Connect { .. }));
    assert!(!is_dialled, "{ip} is called");
    t.passes(seconds(1));
}

#[test]
fn x03_x06_j08_p11_no_way_leads_to_an_address_of_the_deny_list() {
    let probes = probes("must_deny");
    assert_eq!(probes.len(), 119);
    let mut t = every_kind();
    probes.into_iter().for_each(|ip| is_shut(&mut t, ip));
    assert_eq!(t.gauges(), (5, 0, 0));
}

#[test]
fn x03_every_way_leads_to_an_address_beside_it() {
    let probes = probes("must_allow");
    assert_eq!(probes.len(), 30);
    let mut t = every_kind();
    for (number, ip) in (0x4000..).zip(probes) {
        let peer = SocketAddr::new(ip, PORT);
        let (datagrams, connections, _) = fitting(ip);
        for name in datagrams {
            t.client(name).says(create_permission(&[peer])).hears(success());
            t.client(name).says(send(peer, b"hello")).reaches(peer, b"hello");
            t.client(name).says(channel_bind(number, peer)).hears(success());
            t.client(name).says(channel_data(number, b"hello")).reaches(peer, b"hello");
        }
        t.client(connections).says(create_permission(&[peer])).hears(success());
        t.client(connections).says(connect(peer)).hears(silence());
        let called = |deed: &Effect| matches!(deed, Effect::Connect { peer: to, .. } if *to == peer);
        assert!(t.deeds.iter().any(called), "{ip} is not called");
        t.shell_connects(false).hears(error(447));
    }
}

#[test]
fn d04_x03_a_rule_that_comes_later_cuts_every_way_that_was_open() {
    let mut t = every_kind();
    for (number, ip) in (0x4000..).zip(probes("must_allow")) {
        let peer = SocketAddr::new(ip, PORT);
        let (datagrams, connections, _) = fitting(ip);
        for name in datagrams {
            t.client(name).says(channel_bind(number, peer)).hears(success());
            t.client(name).says(channel_data(number, b"hello")).reaches(peer, b"hello");
        }
        t.client(connections).says(connect(peer)).hears(silence());
        let stream = t.shell_connects(true).hears(success()).connection();
        t.reloads(|world| world.deny.push(ip.into()));
        assert_eq!(t.closed(), [stream], "the connection to {ip} closes");
        for name in datagrams {
            t.client(name).says(channel_data(number, b"hello")).hears(dropped(Dropped::NoChannel));
            t.peer(peer).sends_to(name, b"hello").hears(dropped(Dropped::NoPermission));
        }
        t.deeds.clear();
        is_shut(&mut t, ip);
    }
    assert_eq!(t.gauges(), (5, 0, 0));
}

/// The IPv6 forms that carry an IPv4 address.
pub(crate) fn clothes(ip: Ipv4Addr) -> [Ipv6Addr; 8] {
    let ip = u128::from(u32::from(ip));
    let (high, low) = (ip >> 16, ip & 0xFFFF);
    [
        ip,                                              // IPv4-compatible
        0xFFFF << 32 | ip,                               // IPv4-mapped
        0xFFFF << 48 | ip,                               // IPv4-translated
        0x0064_FF9B << 96 | ip,                          // NAT64
        0x0064_FF9B_0001 << 80 | high << 64 | low << 40, // NAT64 of a site, /48: around the octet of zeros
        0x2002 << 112 | ip << 80 | 1,                    // 6to4
        0x2001_0000 << 96 | ip << 64 | 0xFFFF_FFFF,      // Teredo: the server
        0x2001_0000 << 96 | (!ip & 0xFFFF_FFFF),         // Teredo: the client, every bit turned
    ]
    .map(Ipv6Addr::from)
}

#[test]
fn x03_no_ipv4_address_is_a_peer_in_ipv6_clothes_whatever_it_is_in_its_own() {
    let v4 = |ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None };
    let all: Vec<Ipv4Addr> = probes("must_deny").into_iter().chain(probes("must_allow")).filter_map(v4).collect();
    assert!(all.len() > 50, "{}", all.len());
    let mut t = every_kind();
    for ip in all {
        for hidden in clothes(ip).into_iter().filter(|hidden| *hidden != Ipv6Addr::LOCALHOST) {
            is_shut(&mut t, hidden.into());
        }
    }
    // Neither the address opened by name nor the form itself changes that.
    let everything: [Prefix; 2] = ["0.0.0.0/0", "::/0"].map(|all| all.parse().expect("a prefix"));
    for ip in [[8, 8, 8, 8], [10, 0, 0, 1], [127, 0, 0, 1], [169, 254, 169, 254]].map(Ipv4Addr::from) {
        for hidden in clothes(ip) {
            t.reloads(|world| {
                world.allow = everything.to_vec();
                world.allow.extend([IpAddr::V4(ip), IpAddr::V6(hidden)].map(Prefix::from));
            });
            is_shut(&mut t, hidden.into());
        }
    }
}
