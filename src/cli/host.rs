//! What this host looks like: its name, its addresses, where its default route leaves.
#![forbid(unsafe_code)]

use crate::config::Host;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::net::UdpSocket;

/// Asks the operating system. What it will not tell counts as absent.
pub(super) fn discover() -> Host {
    Host {
        name: std::fs::read_to_string(HOST_NAME).unwrap_or_default().trim().to_owned(),
        interfaces: interfaces(),
        default_v4: source_towards(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
        default_v6: source_towards(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))),
    }
}

/// The addresses of its interfaces, in order; none when the system will not tell.
pub(super) fn interfaces() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut addresses: Vec<IpAddr> = interfaces.iter().map(if_addrs::Interface::ip).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// The address that packets to a documentation address would leave from: nobody has it, so the default route decides.
/// Connecting a UDP socket sends nothing.
fn source_towards(somewhere: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if somewhere.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((somewhere, DISCARD)).ok()?;
    let ip = socket.local_addr().as_ref().map(SocketAddr::ip).ok()?;
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}

const DISCARD: u16 = 9; // RFC 863; never reached
