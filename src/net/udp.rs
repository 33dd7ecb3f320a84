//! UDP in batches: recvmmsg in, sendmmsg out, pktinfo on wildcard sockets, the marks of the IP header both ways, ICMP
//! errors out of the error queue.
//!
//! Owns the message headers both calls need, built once for each worker. Datagrams land in the slots the caller gives
//! and leave from them: nothing is copied here. A datagram that cannot be sent is told to the caller and costs the ones
//! after it nothing. "Don't fragment" has no control message on IPv4: it is a mode of the socket, changed where two
//! neighbours in a batch differ.

use crate::wire::Packet;
use crate::wire::icmp::Icmp;
use crate::wire::packet::Marks;
use crate::wire::stun::Family;
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::Cell;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Datagrams of one system call.
pub const BATCH: usize = 64;
/// Bytes a listener asks the kernel to queue each way; it may grant less (net.core.rmem_max).
const LISTENER_BUFFER: usize = 4 << 20;
/// Bytes a relay socket asks for each way: the burst of one call.
const RELAY_BUFFER: usize = 512 << 10;

/// Opens a listening socket that shares its port with the other workers' sockets. With `freebind` the address may be one
/// that no interface has yet; so it is with all sockets here.
pub fn listen(address: SocketAddr, freebind: bool) -> io::Result<OwnedFd> {
    let socket = open(address, freebind)?;
    socket.set_reuse_port(true)?;
    set_buffers(&socket, LISTENER_BUFFER);
    if address.ip().is_unspecified() {
        want_destination(&socket, address)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Opens a relay socket; nobody shares its port. ICMP errors that come back wait for [`errors`].
pub fn relay(address: SocketAddr, freebind: bool) -> io::Result<OwnedFd> {
    let socket = open(address, freebind)?;
    set_buffers(&socket, RELAY_BUFFER);
    let (level, option) = match address {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVERR),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    set_option(socket.as_raw_fd(), level, option, 1)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Whether another program has this address. A shared port hides that from [`listen`].
pub fn probe(address: SocketAddr, freebind: bool) -> io::Result<()> {
    open(address, freebind)?.bind(&address.into())
}

/// The address a socket is bound to.
pub fn local_address(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let address = socket2::SockRef::from(&socket).local_addr()?;
    address.as_socket().ok_or_else(|| io::Error::other("not an IP socket"))
}

fn open(address: SocketAddr, freebind: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    let fd = socket.as_raw_fd();
    match address {
        SocketAddr::V4(_) => {
            set_option(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
            set_option(fd, libc::IPPROTO_IP, libc::IP_RECVTTL, 1)?;
        }
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
            set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1)?;
        }
    }
    set_whole(fd, address.is_ipv6(), false)?;
    if freebind {
        super::permit_absent(&socket, address)?;
    }
    Ok(socket)
}

/// Whether datagrams may be cut on their way (RFC 8656 §14): those whose sender did not forbid it may.
fn set_whole(fd: RawFd, is_ipv6: bool, whole: bool) -> io::Result<()> {
    let (level, option, yes, no) = if is_ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO, libc::IPV6_PMTUDISC_DONT)
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO, libc::IP_PMTUDISC_DONT)
    };
    set_option(fd, level, option, if whole { yes } else { no })
}

fn set_option(fd: RawFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is a valid c_int of the size told.
    let result = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set_buffers(socket: &Socket, bytes: usize) {
    // Best effort: the kernel caps what it does not like, and a small buffer only drops sooner.
    let _ = socket.set_recv_buffer_size(bytes);
    let _ = socket.set_send_buffer_size(bytes);
}

/// Asks the kernel to tell which of the host's addresses a datagram was sent to.
fn want_destination(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    let (level, option) = match address {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    set_option(socket.as_raw_fd(), level, option, 1)
}

/// What is known of a datagram beside its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// Who sent it.
    pub from: SocketAddr,
    /// Which of our addresses it was sent to, where the socket was asked to tell.
    pub to: Option<IpAddr>,
    /// It was longer than the slot.
    pub truncated: bool,
}

/// A datagram to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Its bytes.
    pub data: &'a [u8],
    /// To whom.
    pub to: SocketAddr,
    /// From which of our addresses, where the socket has several.
    pub source: Option<IpAddr>,
    /// What its IP header says.
    pub marks: Marks,
}

/// An address as the kernel reads and writes it. IPv6's is the larger of the two.
#[derive(Clone, Copy)]
#[repr(C)]
union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// Room for the control messages of one datagram: an in6_pktinfo (16 + 20, aligned 40), and two numbers (24 each).
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 96]);

/// Headers for batches in both directions.
pub struct Batch {
    names: Box<[Name]>,
    controls: Box<[Control]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

// SAFETY: the raw pointers in the headers are only ever set and used within one call, by the thread that makes it.
unsafe impl Send for Batch {}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Batch")
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// Headers for [`BATCH`] datagrams.
    pub fn new() -> Self {
        // SAFETY: all-zero bytes are a valid value of each of these C structs.
        let (name, iovec, header) = unsafe { (mem::zeroed::<Name>(), mem::zeroed(), mem::zeroed()) };
        Self {
            names: vec![name; BATCH].into(),
            controls: vec![Control([0; 96]); BATCH].into(),
            iovecs: vec![iovec; BATCH].into(),
            headers: vec![header; BATCH].into(),
        }
    }

    /// Receives into the first slots of `slots`, at most [`BATCH`]; returns how many were filled. Never waits.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, slots: &mut [Packet]) -> io::Result<usize> {
        let count = slots.len().min(BATCH);
        for (at, slot) in slots.iter_mut().take(count).enumerate() {
            let space = slot.space();
            self.iovecs[at] = libc::iovec { iov_base: space.as_mut_ptr().cast(), iov_len: space.len() };
            let header = &mut self.headers[at].msg_hdr;
            header.msg_name = (&raw mut self.names[at]).cast();
            header.msg_namelen = size_of::<Name>() as libc::socklen_t;
            header.msg_iov = &raw mut self.iovecs[at];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.controls[at]).cast();
            header.msg_controllen = size_of::<Control>();
            header.msg_flags = 0;
        }
        let no_timeout = std::ptr::null_mut();
        // SAFETY: the first `count` headers point at names, controls and slots that live until after the call, with
        // their true sizes; `slots` is borrowed for us alone.
        let received = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT, no_timeout)
        };
        if received < 0 {
            return Err(io::Error::last_os_error());
        }
        let received = received as usize;
        for (slot, header) in slots.iter_mut().zip(self.headers.iter()).take(received) {
            slot.set_len(header.msg_len as usize);
            slot.marks = marks(&header.msg_hdr);
        }
        Ok(received)
    }

    /// What is known of the datagram that the last [`Batch::receive`] put into slot `at`.
    pub fn meta(&self, at: usize) -> Option<Meta> {
        let header = &self.headers.get(at)?.msg_hdr;
        Some(Meta {
            from: read_name(self.names.get(at)?)?,
            to: controls(header).find_map(|control| destination(&control)),
            truncated: header.msg_flags & libc::MSG_TRUNC != 0,
        })
    }

    /// Sends datagrams from one socket in order. `failed` is told the place of each that the kernel refused, and why;
    /// the others go out. `is_whole` is the mode of the socket, which stays as the last datagram wanted it: what comes
    /// back about a datagram that nobody may cut is told only in that mode.
    pub fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        is_whole: &Cell<bool>,
        packets: impl Iterator<Item = Outgoing<'a>>,
        mut failed: impl FnMut(usize, io::Error),
    ) {
        let mut packets = packets.peekable();
        let mut before = 0;
        while let Some(whole) = packets.peek().map(|packet| packet.marks.whole) {
            let is_ipv6 = packets.peek().is_some_and(|packet| packet.to.is_ipv6());
            let mut count = 0;
            while let Some(packet) = packets.next_if(|packet| count < BATCH && packet.marks.whole == whole) {
                self.put(count, &packet);
                count += 1;
            }
            if whole != is_whole.get() && set_whole(socket.as_raw_fd(), is_ipv6, whole).is_ok() {
                is_whole.set(whole);
            }
            self.send_prepared(socket, count, |at, error| failed(before + at, error));
            before += count;
        }
    }

    fn put(&mut self, at: usize, packet: &Outgoing<'_>) {
        let namelen = write_name(&mut self.names[at], packet.to);
        self.iovecs[at] = libc::iovec { iov_base: packet.data.as_ptr().cast_mut().cast(), iov_len: packet.data.len() };
        let controllen = write_controls(&mut self.controls[at], packet);
        let header = &mut self.headers[at].msg_hdr;
        header.msg_name = (&raw mut self.names[at]).cast();
        header.msg_namelen = namelen;
        header.msg_iov = &raw mut self.iovecs[at];
        header.msg_iovlen = 1;
        header.msg_control = if controllen == 0 { std::ptr::null_mut() } else { (&raw mut self.controls[at]).cast() };
        header.msg_controllen = controllen;
        header.msg_flags = 0;
    }

    fn send_prepared(&mut self, socket: BorrowedFd<'_>, count: usize, mut failed: impl FnMut(usize, io::Error)) {
        let mut at = 0;
        let mut told = None;
        while at < count {
            let left = &mut self.headers[at..count];
            // SAFETY: every header in `left` was filled by `put` from packets that the caller still borrows.
            let sent =
                unsafe { libc::sendmmsg(socket.as_raw_fd(), left.as_mut_ptr(), left.len() as u32, libc::MSG_DONTWAIT) };
            if sent > 0 {
                at += sent as usize;
                continue;
            }
            let error = io::Error::last_os_error();
            // What came back about an earlier datagram is told once, on whatever call comes next: this one has not been
            // tried yet.
            let is_old_news = ICMP_ERRORS.contains(&error.raw_os_error().unwrap_or(0)) && told != Some(at);
            if error.kind() == io::ErrorKind::Interrupted || is_old_news {
                told = is_old_news.then_some(at);
                continue;
            }
            // The error is the first one's alone; the next call starts behind it.
            failed(at, error);
            at += 1;
        }
    }
}

/// What the kernel makes of ICMP errors.
const ICMP_ERRORS: [libc::c_int; 7] = [
    libc::ECONNREFUSED,
    libc::EHOSTUNREACH,
    libc::ENETUNREACH,
    libc::ENOPROTOOPT,
    libc::EACCES,
    libc::EPROTO,
    libc::EMSGSIZE,
];
/// Errors taken out of a socket's queue at once; a flood of them must not keep the others waiting.
const ERRORS_PER_TURN: usize = 16;

/// Takes ICMP errors out of a relay socket's queue: where the datagram had been sent to, and what happened to it.
pub fn errors(socket: BorrowedFd<'_>, mut each: impl FnMut(SocketAddr, Icmp)) {
    for _ in 0..ERRORS_PER_TURN {
        // SAFETY: all-zero bytes are a valid value of each of these C structs.
        let (mut name, mut header) = unsafe { (mem::zeroed::<Name>(), mem::zeroed::<libc::msghdr>()) };
        // Room for a sock_extended_err with the address of who complains, 16 + 16 + 28, beside the marks.
        let mut control = [0u64; 20];
        header.msg_name = (&raw mut name).cast();
        header.msg_namelen = size_of::<Name>() as libc::socklen_t;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        // SAFETY: the header points at a name and a buffer that live until after the last use, with their true sizes.
        if unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, flags) } < 0 {
            return;
        }
        let icmp = controls(&header).find_map(|control| icmp(&control));
        if let (Some(icmp), Some(peer)) = (icmp, read_name(&name)) {
            each(peer, icmp);
        }
    }
}

fn read_name(name: &Name) -> Option<SocketAddr> {
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

fn write_name(name: &mut Name, address: SocketAddr) -> libc::socklen_t {
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
fn controls(header: &libc::msghdr) -> impl Iterator<Item = (libc::c_int, libc::c_int, *const u8)> + '_ {
    // SAFETY: the kernel filled msg_control up to msg_controllen; CMSG_FIRSTHDR checks that a header fits.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    std::iter::from_fn(move || {
        // SAFETY: `next` is null or points at a control message within the buffer.
        let control = unsafe { next.as_ref() }?;
        // SAFETY: CMSG_DATA of a control message we have a reference to lies within the same buffer.
        let data = unsafe { libc::CMSG_DATA(control) };
        // SAFETY: `control` belongs to `header`; CMSG_NXTHDR checks that another one fits.
        next = unsafe { libc::CMSG_NXTHDR(header, control) };
        Some((control.cmsg_level, control.cmsg_type, data.cast_const()))
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

/// Reads what the IP header said.
fn marks(header: &libc::msghdr) -> Marks {
    let mut marks = Marks::default();
    for (level, kind, data) in controls(header) {
        match (level, kind) {
            // SAFETY: level and type say that the data is one byte.
            (libc::IPPROTO_IP, libc::IP_TOS) => marks.class = unsafe { data.read() },
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                // SAFETY: level and type say that the data is a c_int.
                marks.ttl = u8::try_from(unsafe { data.cast::<libc::c_int>().read_unaligned() }).ok();
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                // SAFETY: level and type say that the data is a c_int.
                marks.class = u8::try_from(unsafe { data.cast::<libc::c_int>().read_unaligned() }).unwrap_or(0);
            }
            _ => {}
        }
    }
    marks
}

/// Reads a sock_extended_err; `None` when it does not stem from the network.
fn icmp(&(level, kind, data): &(libc::c_int, libc::c_int, *const u8)) -> Option<Icmp> {
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

/// Writes what makes a datagram leave as it should; returns the bytes used.
fn write_controls(control: &mut Control, packet: &Outgoing<'_>) -> usize {
    let mut used = 0;
    if let Some(source) = packet.source {
        used += write_source(control, used, source);
    }
    let (level, ttl, class) = match packet.to {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TTL, libc::IP_TOS),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, libc::IPV6_TCLASS),
    };
    if let Some(hops) = packet.marks.ttl {
        used += write_control(control, used, level, ttl, libc::c_int::from(hops));
    }
    if packet.marks.class != 0 {
        used += write_control(control, used, level, class, libc::c_int::from(packet.marks.class));
    }
    used
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
