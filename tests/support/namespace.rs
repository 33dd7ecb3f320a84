//! A network for one test: its own loopback, its own counters, nobody else's packets.
//!
//! The test starts itself once more in a network that ends with its last process, so that nothing has to be taken down.
//! A test that is killed from outside leaves what it has started, and the network with that. In there any source address
//! can be had, and the kernel's counters tell of this test alone.

#![allow(dead_code, reason = "every test target uses its own part of this")]
#![forbid(unsafe_code)]

use crate::skip::{has, skip};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};

/// Says to the second start that it is inside.
const INSIDE: &str = "TURNSERVER_TEST_NETWORK";

/// Every address in 50.0.0.0/8 and 2a00:5000::/32 is this host's own in there.
pub(crate) const fn stranger(number: u32) -> Ipv4Addr {
    let [_, a, b, c] = number.to_be_bytes();
    Ipv4Addr::new(50, a, b, c)
}

/// An IPv6 address of network `network` (a /64), with `host` in it.
pub(crate) fn stranger_v6(network: u32, host: u64) -> Ipv6Addr {
    Ipv6Addr::from(0x2a00_5000_u128 << 96 | u128::from(network) << 64 | u128::from(host))
}

/// Runs `story`, the body of the test with this whole name, in a network of its own. Without the privilege that is a
/// counted skip.
pub(crate) fn alone(test: &str, story: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        furnish();
        story();
        return;
    }
    if !has("unshare") || !has("ip") {
        return;
    }
    // Root makes a network; whoever is root of a user namespace of its own can as well.
    let ways: [&[&str]; 2] = [&["--net"], &["--map-root-user", "--net"]];
    let works = |way: &&&[&str]| {
        let tried = Command::new("unshare").args(**way).args(["ip", "link", "set", "lo", "up"]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let Some(way) = ways.iter().find(works) else {
        skip("a network of its own cannot be made: that takes root, or user namespaces");
        return;
    };
    let program = std::env::current_exe().expect("a test knows its program");
    let name = test.split_once("::").map_or(test, |(_, name)| name);
    let mut command = Command::new("unshare");
    command.args(*way).arg("--").arg(program).args([name, "--exact", "--nocapture", "--test-threads=1"]);
    let output = command.env(INSIDE, "1").stdin(Stdio::null()).output().expect("an installed program starts");
    let told = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    eprintln!("{told}");
    assert!(output.status.success() && told.contains("1 passed"), "{test} failed in its own network");
}

fn furnish() {
    for words in [
        "link set lo up",
        "route add local 50.0.0.0/8 dev lo",
        "-6 route add local 2a00:5000::/32 dev lo",
        "addr add 10.1.0.1/24 dev lo",
        "addr add 10.2.0.1/24 dev lo",
    ] {
        ip(words);
    }
}

/// Changes something about this network, with the command `ip`.
pub(crate) fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status();
    assert!(status.is_ok_and(|status| status.success()), "ip {words}");
}

/// Two addresses of this network beside loopback's own.
pub(crate) const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));
pub(crate) const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1));

/// What the kernel has counted in this network, of datagrams of both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Taken from a socket by its program.
    pub(crate) read: u64,
    /// Sent by a program through a UDP socket; raw packets are not among them.
    pub(crate) sent: u64,
    /// Lost because a socket's buffer was full.
    pub(crate) lost: u64,
    /// Packets on loopback, of any protocol.
    pub(crate) packets: u64,
}

impl Counted {
    pub(crate) fn read() -> Self {
        let file = |name: &str| std::fs::read_to_string(name).expect("Linux counts packets");
        let (v4, v6, devices) = (file("/proc/net/snmp"), file("/proc/net/snmp6"), file("/proc/net/dev"));
        let mut udp = v4.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let names: Vec<&str> = udp.next().expect("a line of names").split(' ').collect();
        let values: Vec<u64> =
            udp.next().expect("a line of values").split(' ').map(|value| value.parse().expect("a number")).collect();
        let of = |name: &str| {
            let at = names.iter().position(|one| *one == name).expect("Linux has counted this for decades");
            let v6 =
                v6.lines().filter_map(|line| line.strip_prefix(&format!("Udp6{name}"))?.trim().parse::<u64>().ok());
            values[at] + v6.sum::<u64>()
        };
        let lo = devices.lines().find_map(|line| line.trim().strip_prefix("lo:")).expect("there is a loopback");
        let packets = lo.split_whitespace().nth(1).expect("the second column").parse().expect("a number");
        Self { read: of("InDatagrams"), sent: of("OutDatagrams"), lost: of("RcvbufErrors"), packets }
    }
}
