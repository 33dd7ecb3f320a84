//! What goes with a datagram beside its bytes: addresses and control messages, as the kernel writes and reads them.
//!
//! Owns their layout: which of our addresses, what the IP header said and is to say, trains of segments, ICMP errors.
//! Never makes a system call.

use super::udp::Outgoing;
use crate::wire::icmp::Icmp;
use crate::wire::packet::Marks;
use crate::wire::stun::Family;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// An address as the kernel reads and writes it. IPv6's is the larger of the two.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// Room for the control messages of one datagram: an in6_pktinfo (16 + 20, aligned 40), and four numbers (24 each): class,
/// hops, the segments of a train, and how many did not fit the socket's buffer.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control(pub(super) [u8; 136]);

/// What [`write_segment`] takes of it.
pub(super) const SEGMENT_SPACE: usize = 24;

/// What the kernel says of a received datagram.
#[derive(Clone, Copy, Default)]
pub(super) struct Beside {
    /// Which of our addresses it was sent to.
    pub(super) to: Option<IpAddr>,
    /// What its IP header said.
    pub(super) marks: Marks,
    /// The length of each datagram but the last, where it is a train of them; 0 where it is one.
    pub(super) segment: u16,
    /// How many the socket has had no room for since it was made, while there are any.
    pub(super) overflowed: u32,
}

/// Reads an address.
pub(super) fn read_name(name: &Name) -> Option<SocketAddr> {
    // SAFETY: the family field lies at the same place in both members.
    let family = unsafe { name.v4.sin_family };
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in.
            let v4 = unsafe { name.v4 };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in6.
            let v6 = unsafe { name.v6 };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Writes an address; returns its length.
pub(super) fn write_name(name: &mut Name, address: SocketAddr) -> libc::socklen_t {
    match address {
        SocketAddr::V4(address) => {
            name.v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
                sin_zero: [0; 8],
            };
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(address) => {
            name.v6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

/// The control messages of a received header: level, type, and where the data lies.
pub(super) fn controls(header: &libc::msghdr) -> impl Iterator<Item = (libc::c_int, libc::c_int, *const u8)> + '_ {
    // SAFETY: the kernel filled msg_control up to msg_controllen; CMSG_FIRSTHDR checks that a header fits.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    std::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        // SAFETY: `next` points at a control message within the buffer, and so does its data; CMSG_NXTHDR checks that another
        // one fits. No reference is made, which would reach no further than the head.
        unsafe {
            let told = ((*next).cmsg_level, (*next).cmsg_type, libc::CMSG_DATA(next).cast_const());
            next = libc::CMSG_NXTHDR(header, next);
            Some(told)
        }
    })
}

/// Reads a pktinfo.
fn destination(&(level, kind, data): &(libc::c_int, libc::c_int, *const u8)) -> Option<IpAddr> {
    match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // SAFETY: level and type say that the data is an in_pktinfo; read_unaligned asks nothing of its place.
            let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into())
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            // SAFETY: level and type say that the data is an in6_pktinfo; read_unaligned asks nothing of its place.
            let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
            Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into())
        }
        _ => None,
    }
}

/// Reads everything that is said of a datagram.
pub(super) fn beside(header: &libc::msghdr) -> Beside {
    let mut beside = Beside::default();
    for control in controls(header) {
        let (level, kind, data) = control;
        match (level, kind) {
            // SAFETY: level and type say that the data is one byte.
            (libc::IPPROTO_IP, libc::IP_TOS) => beside.marks.class = unsafe { data.read() },
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                beside.marks.ttl = u8::try_from(number(data)).ok();
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => beside.marks.class = u8::try_from(number(data)).unwrap_or(0),
            (libc::SOL_UDP, libc::UDP_GRO) => beside.segment = u16::try_from(number(data)).unwrap_or(0),
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => beside.overflowed = number(data) as u32,
            _ => beside.to = beside.to.or_else(|| destination(&control)),
        }
    }
    beside
}

/// Reads the number of a control message of one of the kinds above.
fn number(data: *const u8) -> libc::c_int {
    // SAFETY: of all these kinds the data is four bytes within the buffer; read_unaligned asks nothing of its place.
    unsafe { data.cast::<libc::c_int>().read_unaligned() }
}

/// Reads a sock_extended_err; `None` when it does not stem from the network.
pub(super) fn icmp(&(level, kind, data): &(libc::c_int, libc::c_int, *const u8)) -> Option<Icmp> {
    match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {}
        _ => return None,
    }
    // SAFETY: level and type say that the data is a sock_extended_err; read_unaligned asks nothing of its place.
    let error = unsafe { data.cast::<libc::sock_extended_err>().read_unaligned() };
    let family = match error.ee_origin {
        libc::SO_EE_ORIGIN_ICMP => Family::V4,
        libc::SO_EE_ORIGIN_ICMP6 => Family::V6,
        _ => return None,
    };
    Some(Icmp { family, kind: error.ee_type, code: error.ee_code, mtu: error.ee_info })
}

/// Writes what makes a datagram leave as it should, marks excepted; returns the bytes used.
pub(super) fn write_source_of(control: &mut Control, packet: &Outgoing<'_>) -> usize {
    packet.source.map_or(0, |source| write_source(control, 0, source))
}

/// Writes the hops and the class that a datagram has to say behind the first `at` bytes; returns the bytes used.
pub(super) fn write_marks(
    control: &mut Control,
    at: usize,
    is_ipv6: bool,
    (hops, class): (Option<u8>, Option<u8>),
) -> usize {
    let (level, hop_kind, class_kind) = match is_ipv6 {
        false => (libc::IPPROTO_IP, libc::IP_TTL, libc::IP_TOS),
        true => (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, libc::IPV6_TCLASS),
    };
    let mut used = 0;
    for (kind, value) in [(hop_kind, hops), (class_kind, class)] {
        used += value.map_or(0, |value| write_control(control, at + used, level, kind, libc::c_int::from(value)));
    }
    used
}

/// Writes how long each datagram of a train is behind the first `at` bytes; returns the bytes used.
pub(super) fn write_segment(control: &mut Control, at: usize, segment: u16) -> usize {
    write_control(control, at, libc::SOL_UDP, libc::UDP_SEGMENT, segment)
}

/// Writes the pktinfo that makes a datagram leave from `source`; returns the bytes used.
fn write_source(control: &mut Control, at: usize, source: IpAddr) -> usize {
    match source {
        IpAddr::V4(ip) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(ip).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            write_control(control, at, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        IpAddr::V6(ip) => {
            let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
            write_control(control, at, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
    }
}

/// Writes a control message behind the first `at` bytes; nothing when it does not fit.
fn write_control<T: Copy>(control: &mut Control, at: usize, level: i32, kind: i32, value: T) -> usize {
    const { assert!(align_of::<libc::cmsghdr>() <= 8, "a control message may start at any multiple of eight") };
    let size = size_of::<T>() as u32;
    // SAFETY: a calculation without a pointer.
    let (length, space) = unsafe { (libc::CMSG_LEN(size) as usize, libc::CMSG_SPACE(size) as usize) };
    let Some(room) = control.0.get_mut(at..at + space).filter(|_| at.is_multiple_of(8)) else { return 0 };
    let head = room.as_mut_ptr().cast::<libc::cmsghdr>();
    // SAFETY: the buffer is aligned to eight and so is `at`; `room` has place for a head with a T behind it.
    unsafe {
        (*head).cmsg_len = length;
        (*head).cmsg_level = level;
        (*head).cmsg_type = kind;
        libc::CMSG_DATA(head).cast::<T>().write_unaligned(value);
    }
    space
}
