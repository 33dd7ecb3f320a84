//! UDP in batches: recvmmsg in, sendmmsg out, pktinfo on wildcard sockets.
//!
//! Owns the message headers both calls need, built once for each worker. Datagrams land in the slots the caller gives
//! and leave from them: nothing is copied here. A datagram that cannot be sent is told to the caller and costs the ones
//! after it nothing.

use crate::wire::Packet;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

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

/// Opens a relay socket; nobody shares its port.
pub fn relay(address: SocketAddr, freebind: bool) -> io::Result<OwnedFd> {
    let socket = open(address, freebind)?;
    set_buffers(&socket, RELAY_BUFFER);
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
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if freebind {
        super::permit_absent(&socket, address)?;
    }
    Ok(socket)
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
    let on: libc::c_int = 1;
    let size = size_of_val(&on) as libc::socklen_t;
    // SAFETY: `on` is a valid c_int of the size told.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
}

/// An address as the kernel reads and writes it. IPv6's is the larger of the two.
#[derive(Clone, Copy)]
#[repr(C)]
union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// Room for one control message with an in6_pktinfo: 16 + 20, and some.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

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
            controls: vec![Control([0; 64]); BATCH].into(),
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
        }
        Ok(received)
    }

    /// What is known of the datagram that the last [`Batch::receive`] put into slot `at`.
    pub fn meta(&self, at: usize) -> Option<Meta> {
        let header = &self.headers.get(at)?.msg_hdr;
        Some(Meta {
            from: read_name(self.names.get(at)?)?,
            to: destination(header),
            truncated: header.msg_flags & libc::MSG_TRUNC != 0,
        })
    }

    /// Sends datagrams from one socket in order. `failed` is told the place of each that the kernel refused, and why;
    /// the others go out.
    pub fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        packets: impl Iterator<Item = Outgoing<'a>>,
        mut failed: impl FnMut(usize, io::Error),
    ) {
        let mut packets = packets.peekable();
        let mut before = 0;
        while packets.peek().is_some() {
            let mut count = 0;
            for packet in packets.by_ref().take(BATCH) {
                self.put(count, &packet);
                count += 1;
            }
            self.send_prepared(socket, count, |at, error| failed(before + at, error));
            before += count;
        }
    }

    fn put(&mut self, at: usize, packet: &Outgoing<'_>) {
        let namelen = write_name(&mut self.names[at], packet.to);
        self.iovecs[at] = libc::iovec { iov_base: packet.data.as_ptr().cast_mut().cast(), iov_len: packet.data.len() };
        let controllen = packet.source.map_or(0, |source| write_source(&mut self.controls[at], source));
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
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            // The error is the first one's alone; the next call starts behind it.
            failed(at, error);
            at += 1;
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

/// Reads the pktinfo of a received header.
fn destination(header: &libc::msghdr) -> Option<IpAddr> {
    if header.msg_controllen == 0 {
        return None;
    }
    // SAFETY: the kernel filled msg_control up to msg_controllen; CMSG_FIRSTHDR checks that a header fits.
    let control = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }?;
    // SAFETY: CMSG_DATA of a control message we have a reference to lies within the same buffer.
    let data = unsafe { libc::CMSG_DATA(control) };
    match (control.cmsg_level, control.cmsg_type) {
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

/// Writes the pktinfo that makes a datagram leave from `source`; returns the bytes used.
fn write_source(control: &mut Control, source: IpAddr) -> usize {
    match source {
        IpAddr::V4(ip) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(ip).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            write_control(control, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        IpAddr::V6(ip) => {
            let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
            write_control(control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
    }
}

fn write_control<T: Copy>(control: &mut Control, level: i32, kind: i32, value: T) -> usize {
    const { assert!(size_of::<T>() <= 24, "a control message with T fits the buffer") };
    let size = size_of::<T>() as u32;
    let head = (&raw mut control.0).cast::<libc::cmsghdr>();
    // SAFETY: the buffer is aligned for a cmsghdr and has room for one with a T behind it (asserted above).
    unsafe {
        (*head).cmsg_len = libc::CMSG_LEN(size) as usize;
        (*head).cmsg_level = level;
        (*head).cmsg_type = kind;
        libc::CMSG_DATA(head).cast::<T>().write_unaligned(value);
        libc::CMSG_SPACE(size) as usize
    }
}
