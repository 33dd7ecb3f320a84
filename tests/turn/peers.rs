//! Who may be relayed to: the built-in set, the operator's rules, and what no rule opens.

use crate::probes::{clothes, probes};
use crate::support::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use turnserver::turn::peers::{Destination, Own, Peers, Prefix, PrefixError, RelayAddress};
use turnserver::turn::refusal::Dropped;
use turnserver::wire::codes::Attribute;

/// A world with an allocation of each family: "v4" and "v6".
fn both_families() -> Turn {
    let mut t = Turn::new();
    for (name, family) in [("v4", 1), ("v6", 2)] {
        let ask = allocate().with(Attribute::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]);
        t.joins_as(name, "alice", &password_of("alice"), turnserver::turn::tally::Transport::Udp).obtains(ask);
    }
    t
}

#[test]
fn d04_x03_a_probe_opened_by_name_is_shut_again_by_the_next_rule() {
    let mut t = both_families();
    let mut opened = 0;
    for ip in probes("must_deny") {
        let peer = SocketAddr::new(ip, 80);
        let own = if ip.is_ipv4() { "v4" } else { "v6" };
        t.reloads(|world| world.allow = vec![ip.into()]);
        let outcome = t.client(own).says(create_permission(&[peer]));
        if outcome.code() == Some(403) {
            continue; // one of those that no rule opens
        }
        opened += 1;
        t.client(own).says(send(peer, b"hello")).reaches(peer, b"hello");
        t.client(own).says(channel_bind(0x4000, peer)).hears(success());
        t.reloads(|world| world.allow.clear());
        t.client(own).says(send(peer, b"hello")).hears(silence());
        t.client(own).says(channel_data(0x4000, b"hello")).hears(dropped(Dropped::NoChannel));
    }
    assert!(opened > 50, "{opened}");
}

#[test]
fn x06_no_rule_opens_what_hides_another_address_or_names_no_host() {
    let shut = [
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "239.255.255.255",
        "::",
        "ff02::1",
        "ffff::1",
        "::2",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0:127.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::a00:1",
        "2001::a00:1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2002:a00:1::1",
    ];
    for ip in shut {
        let ip: IpAddr = ip.parse().expect("an address");
        let everything = ["0.0.0.0/0", "::/0", "224.0.0.0/4", "ff00::/8", "2000::/3"].map(prefix);
        let allow: Vec<_> = everything.into_iter().chain([ip.into()]).collect();
        for special_purpose in [false, true] {
            let peers = Peers::new(&allow, &[], special_purpose, Own::default());
            assert_eq!(peers.vet(SocketAddr::new(ip, 80)), None, "{ip}");
            assert!(!peers.vet_address(ip), "{ip}");
        }
    }
}

#[test]
fn class_1_what_the_operator_opens_is_open_and_nothing_beside_it() {
    let peers = Peers::new(&["10.0.0.0/8", "127.0.0.1", "::1", "fd00::/8"].map(prefix), &[], true, Own::default());
    for open in ["10.0.0.1:1", "10.255.255.255:1", "127.0.0.1:1", "[::1]:1", "[fd12::1]:1", "8.8.8.8:1"] {
        assert_eq!(peers.vet(at(open)), Some(Destination::Elsewhere), "{open}");
    }
    for shut in ["172.16.0.1:1", "127.0.0.2:1", "[fc00::1]:1", "[fe80::1]:1", "10.0.0.1:0"] {
        assert_eq!(peers.vet(at(shut)), None, "{shut}");
    }
}

#[test]
fn of_equal_prefixes_deny_wins_and_of_others_the_longer() {
    let peers = Peers::new(
        &["11.0.0.0/8", "12.0.0.0/16", "10.1.0.0/16"].map(prefix),
        &["11.0.0.0/8", "12.0.0.0/8", "10.1.2.0/24"].map(prefix),
        true,
        Own::default(),
    );
    assert_eq!(peers.vet(at("11.0.0.1:1")), None);
    assert!(peers.vet(at("12.0.0.1:1")).is_some());
    assert_eq!(peers.vet(at("12.1.0.1:1")), None);
    assert!(peers.vet(at("10.1.1.1:1")).is_some());
    assert_eq!(peers.vet(at("10.1.2.1:1")), None);
    assert_eq!(peers.vet(at("10.2.0.1:1")), None);
}

#[test]
fn without_the_built_in_set_private_addresses_are_open_and_own_ones_are_not() {
    let peers = Peers::new(&[], &[], false, own());
    assert_eq!(peers.vet(at("10.0.0.1:1")), Some(Destination::Elsewhere));
    assert_eq!(peers.vet(at("127.0.0.1:1")), None);
    assert_eq!(peers.vet(at("20.0.0.1:80")), None);
}

fn own() -> Own {
    Own {
        interfaces: vec![HOST.into(), "20.0.0.2".parse().expect("an address")],
        relays: vec![RelayAddress { local: HOST.into(), external: HOST.into() }],
        relay_ports: 49_152..=65_535,
        services: vec![SERVER, HTTP, at("[::]:5349")],
    }
}

#[test]
fn class_3_our_own_ports_are_no_peers_and_no_rule_makes_them_so() {
    for allow in [vec![], vec![prefix("20.0.0.1")], vec![prefix("20.0.0.0/8"), prefix("127.0.0.0/8"), prefix("::1")]] {
        let peers = Peers::new(&allow, &[], true, own());
        for service in [SERVER, HTTP, at("127.0.0.1:5349"), at("[::1]:5349"), at("20.0.0.2:5349")] {
            assert_eq!(peers.vet(service), None, "{service}");
            assert!(peers.is_own_service(service), "{service}");
        }
        let is_opened = !allow.is_empty();
        assert_eq!(peers.vet(at("20.0.0.1:80")).is_some(), is_opened);
        assert!(!peers.is_own_service(at("20.0.0.1:80")));
        assert!(!peers.is_own_service(at("8.8.8.8:3478")));
        assert!(
            !peers.is_own_service(at("8.8.8.8:5349")),
            "a stranger's port has the number of one that is open on all addresses"
        );
        assert!(!peers.is_own_service(at("20.0.0.2:3478")), "the other address, where nobody listens on that port");
    }
}

#[test]
fn class_3_own_relay_ports_lead_to_allocations_whatever_the_rules_say() {
    let relay = at("20.0.0.1:50000");
    for (allow, opened) in [(vec![], false), (vec![prefix("20.0.0.1")], true)] {
        let peers = Peers::new(&allow, &[prefix("20.0.0.0/8")], true, own());
        assert_eq!(peers.vet(relay), Some(Destination::OwnRelay { local: relay, opened }));
        assert!(peers.vet_address(relay.ip()));
    }
    let peers = Peers::new(&[], &[], true, own());
    assert_eq!(peers.vet(at("20.0.0.1:49151")), None);
    assert_eq!(peers.vet(at("20.0.0.2:50000")), None, "an own address on which nothing is relayed");
}

#[test]
fn class_3_two_clients_of_one_server_call_each_other() {
    let mut t = Turn::allocated("alice");
    t.joins("bob").allocates();
    let (alice, bob) = (t.client("alice").relayed(), t.client("bob").relayed());
    t.client("alice").says(create_permission(&[bob])).hears(success());
    t.client("alice").says(channel_bind(0x4000, bob)).hears(success());
    let outcome = t.client("alice").says(channel_data(0x4000, b"hello")).reaches(bob, b"hello");
    let turnserver::turn::Verdict::ToPeer { destination, .. } = outcome.verdict else { unreachable!("it reached bob") };
    assert_eq!(destination, Destination::OwnRelay { local: bob, opened: false });
    t.peer(alice).sends_to("bob", b"hello").hears(dropped(Dropped::NoPermission));
    t.client("bob").says(create_permission(&[alice])).hears(success());
    t.peer(alice).sends_to("bob", b"hello").hears(data(alice, b"hello"));
    t.client("alice").says(channel_bind(0x4001, SERVER)).hears(error(403));
    t.client("alice").says(send(SERVER, b"hello")).hears(dropped(Dropped::PeerDenied));
    t.client("alice").says(send(HTTP, b"hello")).hears(dropped(Dropped::PeerDenied));
}

#[test]
fn behind_one_to_one_nat_the_outer_address_is_ours_too() {
    let (local, external): (IpAddr, IpAddr) = ("10.0.0.5".parse().unwrap(), "21.0.0.1".parse().unwrap());
    let own = Own {
        interfaces: vec![local],
        relays: vec![RelayAddress { local, external }],
        relay_ports: 50_000..=59_999,
        services: vec![at("10.0.0.5:3478")],
    };
    let peers = Peers::new(&[prefix("21.0.0.0/8"), prefix("10.0.0.5")], &[], true, own);
    let here = Some(Destination::OwnRelay { local: at("10.0.0.5:50001"), opened: true });
    assert_eq!(peers.vet(at("21.0.0.1:50001")), here);
    assert_eq!(peers.vet(at("10.0.0.5:50001")), here);
    assert_eq!(peers.vet(at("21.0.0.1:3478")), None);
    assert_eq!(peers.vet(at("10.0.0.5:3478")), None);
    assert!(peers.is_own_service(at("21.0.0.1:3478")));
    assert_eq!(peers.seen_as(at("10.0.0.5:50001")), Some(at("21.0.0.1:50001")));
    assert_eq!(peers.seen_as(at("21.0.0.1:50001")), None);
    assert_eq!(peers.seen_as(at("21.0.0.1:40000")), Some(at("21.0.0.1:40000")));
    assert_eq!(peers.own_relay(at("21.0.0.1:50001")), Some(at("10.0.0.5:50001")));
    assert_eq!(peers.own_relay(at("21.0.0.1:40000")), None);
}

#[test]
fn either_form_of_a_relay_address_may_be_permitted_whatever_the_rules_say() {
    let (local, external) = ("10.0.0.5".parse().expect("an address"), "20.0.0.1".parse().expect("an address"));
    let own = Own { relays: vec![RelayAddress { local, external }], ..Own::default() };
    let peers = Peers::new(&[], &[prefix("20.0.0.0/8")], true, own);
    assert!(peers.vet_address(local) && peers.vet_address(external));
    assert!(!peers.vet_address("10.0.0.6".parse().expect("an address")));
    assert!(!peers.vet_address("20.0.0.2".parse().expect("an address")));
}

#[test]
fn a_prefix_is_shown_as_it_is_written() {
    assert_eq!(format!("{:?} {0}", prefix("10.0.0.0/8")), "10.0.0.0/8 10.0.0.0/8");
}

#[test]
fn a_prefix_with_host_bits_is_told_which_one_was_meant() {
    assert_eq!("10.0.0.1/8".parse::<Prefix>(), Err(PrefixError::HostBits(prefix("10.0.0.0/8"))));
    assert_eq!("2001:db8::1/32".parse::<Prefix>(), Err(PrefixError::HostBits(prefix("2001:db8::/32"))));
    for wrong in ["10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8/8", "10.0.0.0/x"] {
        assert_eq!(wrong.parse::<Prefix>(), Err(PrefixError::Length), "{wrong}");
    }
    for wrong in ["", "/8", "example.org", "example.org/8", "10.0.0/8", "010.0.0.0/8", "10.0.0.0.0"] {
        assert_eq!(wrong.parse::<Prefix>(), Err(PrefixError::Address), "{wrong}");
    }
    assert_eq!(prefix("10.0.0.1").length(), 32);
    assert_eq!(prefix("::1").length(), 128);
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|ip| Ipv4Addr::from(ip).into()),
        any::<u128>().prop_map(|ip| Ipv6Addr::from(ip).into())
    ]
}

/// An address and a length, the bits beyond it cleared.
fn any_prefix() -> impl Strategy<Value = Prefix> {
    (ip(), 0u8..=128).prop_map(|(ip, length)| {
        let width = if ip.is_ipv4() { 32 } else { 128 };
        let length = length % (width + 1);
        let (first, _) = range(ip, length);
        Prefix::new(of_number(first, ip.is_ipv4()), length).expect("no host bits are left")
    })
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn of_number(number: u128, is_v4: bool) -> IpAddr {
    if is_v4 { Ipv4Addr::from(number as u32).into() } else { Ipv6Addr::from(number).into() }
}

/// The first and the last address of a prefix, as numbers.
fn range(ip: IpAddr, length: u8) -> (u128, u128) {
    let width = if ip.is_ipv4() { 32 } else { 128 };
    let size_less_one = (0..width - length).fold(0u128, |mask, _| mask << 1 | 1);
    let first = number(ip) & !size_less_one;
    (first, first + size_less_one)
}

/// The prefixes that make up a range, its ends included.
fn covering(first: u128, last: u128, is_v4: bool) -> Vec<Prefix> {
    let width: u8 = if is_v4 { 32 } else { 128 };
    let (mut at, mut found) = (first, Vec::new());
    loop {
        // The widest prefix that begins here and does not reach beyond the end.
        let fits = |length: &u8| {
            let (begin, end) = range(of_number(at, is_v4), *length);
            begin == at && end <= last
        };
        let length = (0..=width).find(fits).expect("one address fits");
        found.push(Prefix::new(of_number(at, is_v4), length).expect("it begins here"));
        let (_, end) = range(of_number(at, is_v4), length);
        if end == last {
            return found;
        }
        at = end + 1;
    }
}

/// An address that is shut by default: any of the sets by its first bits, an own one, or one in other clothes.
fn any_shut() -> impl Strategy<Value = IpAddr> {
    let listed = (0..probes("must_deny").len()).prop_map(|at| probes("must_deny")[at]);
    let hidden = (any::<u32>(), 0usize..8).prop_map(|(ip, at)| clothes(ip.into())[at].into());
    let of = |head: u32, length: u32| any::<u32>().prop_map(move |ip| Ipv4Addr::from(head | ip >> length).into());
    let private = prop_oneof![of(0x0A00_0000, 8), of(0x7F00_0000, 8), of(0xA9FE_0000, 16), of(0xE000_0000, 4)];
    let v6 = (0u128..8, any::<u128>()).prop_map(|(at, ip)| {
        let heads = [0xFC, 0xFD, 0xFE, 0xFF, 0x00, 0x01, 0x5F, 0x40];
        Ipv6Addr::from((heads[at as usize] as u128) << 120 | ip >> 8).into()
    });
    prop_oneof![listed, hidden, private, v6, Just(HOST.into()), Just("20.0.0.2".parse().expect("an address"))]
}

/// What no rule opens, told once more by other means than the server's.
fn is_shut_for_ever(ip: IpAddr) -> bool {
    let IpAddr::V6(ip) = ip else { return ip.is_unspecified() || ip.is_multicast() || number(ip) == 0xFFFF_FFFF };
    let words = ip.segments();
    let hides = match words {
        [0, 0, 0, 0, 0, 0, ..] => ip != Ipv6Addr::LOCALHOST,
        [0, 0, 0, 0, 0, 0xFFFF, ..] | [0, 0, 0, 0, 0xFFFF, 0, ..] => true,
        [0x64, 0xFF9B, 0, 0, 0, 0, ..] | [0x64, 0xFF9B, 1, ..] => true,
        [0x2001, 0, ..] | [0x2002, ..] => true,
        _ => false,
    };
    hides || words[0] >> 8 == 0xFF
}

fn is_of_this_host(ip: IpAddr) -> bool {
    ip.is_loopback() || own().interfaces.contains(&ip)
}

proptest! {
    #[test]
    fn class_1_a_prefix_holds_what_lies_between_its_ends(base in ip(), length in 0u8..=128, near in any::<i8>(), far in ip()) {
        let width = if base.is_ipv4() { 32 } else { 128 };
        let length = length % (width + 1);
        let (first, last) = range(base, length);
        let prefix = Prefix::new(of_number(first, base.is_ipv4()), length).expect("no host bits");
        prop_assert_eq!(Prefix::new(base, length).is_some(), number(base) == first);
        let most = if base.is_ipv4() { u128::from(u32::MAX) } else { u128::MAX };
        let around = |edge: u128| edge.saturating_add_signed(near.into()).min(most);
        for probe in [first, last, around(first), around(last), number(base)] {
            let is_inside = (first..=last).contains(&probe);
            prop_assert_eq!(prefix.contains(of_number(probe, base.is_ipv4())), is_inside);
        }
        let is_inside = far.is_ipv4() == base.is_ipv4() && (first..=last).contains(&number(far));
        prop_assert_eq!(prefix.contains(far), is_inside);
    }

    #[test]
    fn the_longest_rule_decides(
        allow in vec(any_prefix(), 0..6), deny in vec(any_prefix(), 0..6), host in any::<u128>(), which in any::<usize>(),
    ) {
        let rules: Vec<_> = allow.iter().map(|rule| (rule, true)).chain(deny.iter().map(|rule| (rule, false))).collect();
        let Some((rule, _)) = rules.get(which % rules.len().max(1)) else { return Ok(()) };
        let text = format!("{rule}");
        let base: IpAddr = text.split('/').next().expect("an address").parse().expect("an address");
        let (first, last) = range(base, rule.length());
        let inside = first | (host & (last - first));
        let ip = of_number(inside, base.is_ipv4());
        let best = rules.iter().filter(|(rule, _)| rule.contains(ip)).max_by_key(|(rule, is_allow)| (rule.length(), !is_allow));
        let expected = best.is_none_or(|(_, is_allow)| *is_allow);
        let peers = Peers::new(&allow, &deny, false, Own::default());
        let shut_for_ever = !Peers::new(&[], &[], false, Own::default()).vet_address(ip);
        prop_assert_eq!(peers.vet_address(ip), expected && (!shut_for_ever || ip.is_loopback()));
    }

    #[test]
    fn class_1_an_ipv4_address_in_ipv6_clothes_is_never_a_peer(ip: u32, tail: u128, allow_all: bool) {
        let ip = u128::from(ip);
        let clothes = [
            ip,
            0xFFFF_0000_0000 | ip,
            0xFFFF_0000_0000_0000 | ip,
            0x0064_FF9B << 96 | ip,
            0x0064_FF9B_0001 << 80 | tail >> 48,
            0x2001_0000 << 96 | tail >> 32,
            0x2002 << 112 | ip << 80 | tail >> 48,
        ];
        for hidden in clothes.map(Ipv6Addr::from).into_iter().filter(|hidden| *hidden != Ipv6Addr::LOCALHOST) {
            let allow = if allow_all { vec![prefix("::/0"), IpAddr::from(hidden).into()] } else { vec![] };
            let peers = Peers::new(&allow, &[], false, Own::default());
            prop_assert!(!peers.vet_address(hidden.into()), "{}", hidden);
            prop_assert_eq!(peers.vet(SocketAddr::new(hidden.into(), 80)), None);
        }
    }

    #[test]
    fn class_1_an_address_in_other_clothes_is_never_judged_milder_than_in_its_own(
        ip: u32, port: u16, allow in vec(any_prefix(), 0..6), deny in vec(any_prefix(), 0..6), special_purpose: bool,
    ) {
        let peers = Peers::new(&allow, &deny, special_purpose, own());
        let plain = peers.vet_address(Ipv4Addr::from(ip).into());
        for hidden in clothes(ip.into()).into_iter().filter(|hidden| *hidden != Ipv6Addr::LOCALHOST) {
            let open = peers.vet_address(hidden.into()) || peers.vet(SocketAddr::new(hidden.into(), port)).is_some();
            prop_assert!(!open, "{}, which is {} itself", hidden, if plain { "open" } else { "shut" });
        }
        // However it is written, an address is one address.
        for text in [format!("{}", Ipv4Addr::from(ip)), format!("{}/32", Ipv4Addr::from(ip))] {
            prop_assert_eq!(text.parse::<Prefix>(), Ok(IpAddr::from(Ipv4Addr::from(ip)).into()));
        }
    }

    #[test]
    fn class_1_a_range_between_any_two_addresses_is_denied_whole_and_nothing_beside_it(
        one in ip(), other in any::<u128>(), width in 0u32..128, probe in any::<u128>(), near in any::<i8>(),
    ) {
        let is_v4 = one.is_ipv4();
        let most = if is_v4 { u128::from(u32::MAX) } else { u128::MAX };
        // Far ends and near ones: a random pair alone would nearly always be half of all there is.
        let (a, b) = (number(one), (number(one) ^ (other >> width)) & most);
        let (first, last) = (a.min(b), a.max(b));
        let deny = covering(first, last, is_v4);
        let peers = Peers::new(&[], &deny, false, Own::default());
        let by_default = Peers::new(&[], &[], false, Own::default());
        let around = |edge: u128| edge.saturating_add_signed(near.into()).min(most);
        let inside = first + (last - first) / 2;
        for probe in [first, last, inside, around(first), around(last), probe & most] {
            let ip = of_number(probe, is_v4);
            let is_denied = (first..=last).contains(&probe);
            prop_assert_eq!(deny.iter().any(|prefix| prefix.contains(ip)), is_denied, "{}", ip);
            prop_assert_eq!(peers.vet_address(ip), by_default.vet_address(ip) && !is_denied, "{}", ip);
        }
    }

    #[test]
    fn class_1_a_rule_opens_what_is_shut_by_default_and_never_what_is_shut_for_ever(
        ip in any_shut(), length in 0u8..=128, port in 1u16.., more in vec(any_prefix(), 0..4),
    ) {
        let width = if ip.is_ipv4() { 32 } else { 128 };
        let (first, _) = range(ip, length % (width + 1));
        let wide = Prefix::new(of_number(first, ip.is_ipv4()), length % (width + 1)).expect("no host bits are left");
        let allow: Vec<Prefix> = more.into_iter().chain([wide, ip.into()]).collect();
        let peers = Peers::new(&allow, &[], true, own());
        let peer = SocketAddr::new(ip, port);
        let is_own_door = own().services.iter().any(|own| {
            own.port() == port && (own.ip() == ip || own.ip().is_unspecified() && is_of_this_host(ip))
        });
        prop_assert_eq!(peers.vet_address(ip), !is_shut_for_ever(ip), "{}", ip);
        prop_assert_eq!(peers.vet(peer).is_some(), !is_shut_for_ever(ip) && !is_own_door, "{}", peer);
        for service in own().services.iter().filter(|service| !service.ip().is_unspecified()) {
            prop_assert_eq!(peers.vet(*service), None);
        }
    }

    #[test]
    fn whoever_may_be_spoken_to_may_be_permitted(ip in ip(), port in 1u16..) {
        let peers = Peers::new(&[], &[], true, own());
        if peers.vet(SocketAddr::new(ip, port)).is_some() {
            prop_assert!(peers.vet_address(ip));
        }
    }
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}
