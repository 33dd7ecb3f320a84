//! UDP in batches: recvmmsg in, sendmmsg out, trains of equal datagrams as one (UDP_GRO, UDP_SEGMENT), ICMP errors out of
//! the error queue.
//!
//! Owns the message headers both calls need, built once for each worker. Datagrams land in the slots the caller gives
//! and leave from them: nothing is copied here. A datagram that cannot be sent is told to the caller and costs the ones
//! after it nothing. What a header says on every datagram is a mode of the socket, because a control message costs its share
//! of each call; "don't fragment" has no control message on IPv4 and is always one.

use super::cmsg::{self, Beside, Control, Name};
use crate::wire::Packet;
use crate::wire::icmp::Icmp;
use crate::wire::packet::{MAX_PAYLOAD, Marks};
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::Cell;
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Datagrams, or trains of them, that one system call receives.
pub const BATCH: usize = 64;
/// Datagrams that one system call sends.
const GATHERED: usize = 256;
/// Datagrams of one train: what every kernel that knows trains takes.
const TRAIN: usize = 64;
/// The longest datagrams of a train: those that fit an Ethernet frame. Longer ones are cut on most ways, which a train
/// cannot be.
const MAX_SEGMENT: usize = 1472;
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
    let socket = to_relay(address, freebind)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Opens a socket that holds a port for [`relay_on_held`] and hears next to nothing.
pub fn hold(address: SocketAddr, freebind: bool) -> io::Result<OwnedFd> {
    let socket = open(address, freebind)?;
    set_buffers(&socket, 0);
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Opens a relay socket on a port that a socket of [`hold`] has. Once that is closed nobody shares it.
pub fn relay_on_held(address: SocketAddr, freebind: bool) -> io::Result<OwnedFd> {
    let socket = to_relay(address, freebind)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.set_reuse_port(false)?;
    Ok(socket.into())
}

fn to_relay(address: SocketAddr, freebind: bool) -> io::Result<Socket> {
    let socket = open(address, freebind)?;
    set_buffers(&socket, RELAY_BUFFER);
    let (level, option) = match address {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVERR),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    set_option(socket.as_raw_fd(), level, option, 1)?;
    Ok(socket)
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
    // A count that comes with the next datagram after a loss; without it drops go unseen.
    let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
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

/// What this system can do for UDP, tried once at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// A train of datagrams is received as one (UDP_GRO).
    pub receives_trains: bool,
    /// A train of datagrams is sent as one (UDP_SEGMENT).
    pub sends_trains: bool,
}

impl Abilities {
    /// Tries each option on a socket that nobody uses.
    pub fn probe() -> Self {
        let Ok(socket) = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)) else {
            return Self { receives_trains: false, sends_trains: false };
        };
        Self {
            receives_trains: set_option(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).is_ok(),
            sends_trains: set_option(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 1).is_ok(),
        }
    }
}

/// Lets a socket receive trains of datagrams; [`Meta::segment`] tells them.
pub fn receive_trains(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, 1)
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
    /// The slot holds a train: datagrams of so many bytes each, the last one maybe shorter. 0 when it is one datagram.
    pub segment: usize,
    /// Datagrams that the socket has had no room for since it was opened; 0 also when that is not told.
    pub overflowed: u32,
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

/// What a socket writes into the IP header of every datagram that does not say otherwise.
#[derive(Debug)]
pub struct Modes {
    whole: Cell<bool>,
    /// 0 is what the system likes.
    hops: Cell<u8>,
    class: Cell<u8>,
    /// Hops and class that other datagrams have wanted lately, and how many more of those there were than of the rest.
    other: Cell<(u8, u8)>,
    lead: Cell<u8>,
}

/// The hops of a socket that nobody has told any: the default of Linux.
pub const HOPS: u8 = 64;
/// The lead with which other marks become the socket's. Datagrams that come by turns seldom get so far, and a changed
/// flow soon does.
const LEAD: u8 = 16;

impl Default for Modes {
    /// Those of a socket just opened.
    fn default() -> Self {
        Self {
            whole: Cell::new(false),
            hops: Cell::new(0),
            class: Cell::new(0),
            other: Cell::new((0, 0)),
            lead: Cell::new(0),
        }
    }
}

impl Modes {
    /// Lets the socket forbid or permit that what it sends next is cut.
    fn set_whole(&self, socket: BorrowedFd<'_>, is_ipv6: bool, whole: bool) {
        if whole != self.whole.get() && set_whole(socket.as_raw_fd(), is_ipv6, whole).is_ok() {
            self.whole.set(whole);
        }
    }

    /// What of its marks a datagram has to say itself, hops and class, because the socket would say something else.
    fn odd(&self, marks: Marks) -> (Option<u8>, Option<u8>) {
        let wanted = (marks.ttl.unwrap_or(0), marks.class);
        if wanted != (self.hops.get(), self.class.get()) {
            self.consider(wanted);
        } else if self.lead.get() > 0 {
            self.lead.set(self.lead.get() - 1);
        }
        let hops = (wanted.0 != self.hops.get()).then(|| marks.ttl.unwrap_or(HOPS));
        (hops, (wanted.1 != self.class.get()).then_some(wanted.1))
    }

    fn consider(&self, wanted: (u8, u8)) {
        let lead = self.lead.get();
        if wanted == self.other.get() {
            self.lead.set((lead + 1).min(LEAD));
        } else {
            self.other.set(if lead == 0 { wanted } else { self.other.get() });
            self.lead.set(lead.saturating_sub(1));
        }
    }

    /// Lets a socket that has been wrong most of the time change its mind. Nothing may be gathered and not sent: it would
    /// leave with marks that are not its own.
    fn settle(&self, socket: BorrowedFd<'_>, is_ipv6: bool) {
        if self.lead.get() == LEAD {
            self.lead.set(0);
            // What the system refuses goes on with each datagram.
            let _ = self.adopt(socket, is_ipv6, self.other.get());
        }
    }

    fn adopt(&self, socket: BorrowedFd<'_>, is_ipv6: bool, (hops, class): (u8, u8)) -> io::Result<()> {
        let (level, hop_kind, class_kind) = match is_ipv6 {
            false => (libc::IPPROTO_IP, libc::IP_TTL, libc::IP_TOS),
            true => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, libc::IPV6_TCLASS),
        };
        let told = if hops == 0 { -1 } else { libc::c_int::from(hops) }; // -1 is what the system likes
        set_option(socket.as_raw_fd(), level, hop_kind, told)?;
        self.hops.set(hops);
        set_option(socket.as_raw_fd(), level, class_kind, class.into())?;
        self.class.set(class);
        Ok(())
    }
}

/// Headers for batches in both directions.
pub struct Batch {
    names: Box<[Name]>,
    controls: Box<[Control]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    /// Where among the datagrams that are being sent each header's begin.
    firsts: Box<[usize]>,
    /// What was said of each received datagram.
    beside: Box<[Beside]>,
    sends_trains: bool,
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
        Self::new(false)
    }
}

impl Batch {
    /// Headers for both ways. With `sends_trains` a run of equal datagrams to one place leaves as one.
    pub fn new(sends_trains: bool) -> Self {
        // SAFETY: all-zero bytes are a valid value of each of these C structs.
        let (name, iovec, header) = unsafe { (mem::zeroed::<Name>(), mem::zeroed(), mem::zeroed()) };
        Self {
            names: vec![name; GATHERED].into(),
            controls: vec![Control([0; _]); GATHERED].into(),
            iovecs: vec![iovec; GATHERED].into(),
            headers: vec![header; GATHERED].into(),
            firsts: vec![0; GATHERED].into(),
            beside: vec![Beside::default(); BATCH].into(),
            sends_trains,
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
        let received = self.receive_prepared(socket, count)?;
        for (at, (slot, header)) in slots.iter_mut().zip(self.headers.iter()).take(received).enumerate() {
            slot.set_len(header.msg_len as usize);
            self.beside[at] = cmsg::beside(&header.msg_hdr);
            slot.marks = self.beside[at].marks;
        }
        Ok(received)
    }

    fn receive_prepared(&mut self, socket: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
        let fd = socket.as_raw_fd();
        let [first, ..] = &mut *self.headers else { return Ok(0) };
        if count == 1 {
            // SAFETY: the header points at a name, a control buffer and a slot that live until after the call, with
            // their true sizes; the slot is borrowed for us alone.
            let received = unsafe { libc::recvmsg(fd, &raw mut first.msg_hdr, libc::MSG_DONTWAIT) };
            first.msg_len = u32::try_from(received).map_err(|_| io::Error::last_os_error())?;
            return Ok(1);
        }
        let no_timeout = std::ptr::null_mut();
        // SAFETY: the first `count` headers point at names, controls and slots that live until after the call, with
        // their true sizes; the slots are borrowed for us alone.
        let received =
            unsafe { libc::recvmmsg(fd, self.headers.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT, no_timeout) };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// What is known of the datagram that the last [`Batch::receive`] put into slot `at`.
    pub fn meta(&self, at: usize) -> Option<Meta> {
        let header = &self.headers.get(at)?.msg_hdr;
        let beside = self.beside.get(at)?;
        Some(Meta {
            from: cmsg::read_name(self.names.get(at)?)?,
            to: beside.to,
            truncated: header.msg_flags & libc::MSG_TRUNC != 0,
            segment: beside.segment.into(),
            overflowed: beside.overflowed,
        })
    }

    /// Sends datagrams from one socket in order. `failed` is told the place of each that the kernel refused, and why;
    /// the others go out. The modes of the socket stay as the datagrams wanted them: what comes back about a datagram that
    /// nobody may cut is told only in that mode.
    pub fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        modes: &Modes,
        packets: impl Iterator<Item = Outgoing<'a>>,
        mut failed: impl FnMut(usize, io::Error),
    ) {
        let mut packets = packets.peekable();
        let mut before = 0;
        while let Some((whole, is_ipv6)) = packets.peek().map(|packet| (packet.marks.whole, packet.to.is_ipv6())) {
            modes.set_whole(socket, is_ipv6, whole);
            modes.settle(socket, is_ipv6);
            let (mut count, mut gathered) = (0, 0);
            let mut train: Option<Train<'a>> = None;
            while let Some(packet) = packets.next_if(|packet| gathered < GATHERED && packet.marks.whole == whole) {
                self.iovecs[gathered] =
                    libc::iovec { iov_base: packet.data.as_ptr().cast_mut().cast(), iov_len: packet.data.len() };
                match train.as_mut().filter(|train| self.sends_trains && train.takes(&packet)) {
                    Some(train) => self.append(count - 1, train, &packet),
                    None => {
                        self.put(count, gathered, &packet, modes.odd(packet.marks));
                        train = Some(Train::of(packet));
                        count += 1;
                    }
                }
                gathered += 1;
            }
            self.send_prepared(socket, count, |at, error| failed(before + at, error));
            before += gathered;
        }
    }

    /// Makes the header at `at` say what is to become of the datagram at `gathered`.
    fn put(&mut self, at: usize, gathered: usize, packet: &Outgoing<'_>, odd: (Option<u8>, Option<u8>)) {
        let control = &mut self.controls[at];
        let mut controllen = cmsg::write_source_of(control, packet);
        controllen += cmsg::write_marks(control, controllen, packet.to.is_ipv6(), odd);
        let header = &mut self.headers[at].msg_hdr;
        header.msg_namelen = cmsg::write_name(&mut self.names[at], packet.to);
        header.msg_name = (&raw mut self.names[at]).cast();
        header.msg_iovlen = 1;
        header.msg_control = if controllen == 0 { std::ptr::null_mut() } else { (&raw mut self.controls[at]).cast() };
        header.msg_controllen = controllen;
        header.msg_flags = 0;
        self.firsts[at] = gathered;
    }

    /// Lets the header at `at` take one more datagram, the next in line.
    fn append(&mut self, at: usize, train: &mut Train<'_>, packet: &Outgoing<'_>) {
        let header = &mut self.headers[at].msg_hdr;
        if header.msg_iovlen == 1 {
            let control = &mut self.controls[at];
            header.msg_controllen += cmsg::write_segment(control, header.msg_controllen, train.head.data.len() as u16);
            header.msg_control = (&raw mut *control).cast();
        }
        header.msg_iovlen += 1;
        train.add(packet);
    }

    fn send_prepared(&mut self, socket: BorrowedFd<'_>, count: usize, mut failed: impl FnMut(usize, io::Error)) {
        let iovecs = self.iovecs.as_mut_ptr();
        for (header, first) in self.headers.iter_mut().zip(&self.firsts).take(count) {
            header.msg_hdr.msg_iov = iovecs.wrapping_add(*first);
        }
        let mut at = 0;
        let mut told = None;
        while at < count {
            let error = match self.submit(socket, at, count) {
                Ok(sent) => {
                    at += sent;
                    continue;
                }
                Err(error) => error,
            };
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            if is_news_of_another(&error) && told != Some(at) {
                told = Some(at);
                continue;
            }
            // The error is the first header's alone; the next call starts behind it.
            self.despair(socket, at, &error, &mut failed);
            at += 1;
        }
    }

    /// Hands the kernel the headers from `at` on; returns how many it has taken.
    fn submit(&mut self, socket: BorrowedFd<'_>, at: usize, count: usize) -> io::Result<usize> {
        let left = &mut self.headers[at..count];
        if let [only] = left {
            return send_one(socket, &only.msg_hdr).map(|()| 1);
        }
        // SAFETY: every header in `left` was filled by `put` from packets that the caller of `send` still borrows.
        let sent =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), left.as_mut_ptr(), left.len() as u32, libc::MSG_DONTWAIT) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// What the header at `at` holds could not be sent. A train may be no train on this way (its datagrams do not fit the
    /// link, or it goes through a tunnel): then they leave one by one.
    fn despair(
        &mut self,
        socket: BorrowedFd<'_>,
        at: usize,
        error: &io::Error,
        failed: &mut impl FnMut(usize, io::Error),
    ) {
        let (train, first) = (self.headers[at].msg_hdr, self.firsts[at]);
        let code = error.raw_os_error().unwrap_or(libc::EIO);
        let is_lost = train.msg_iovlen == 1 || [libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM].contains(&code);
        for place in 0..train.msg_iovlen {
            if is_lost {
                failed(first + place, io::Error::from_raw_os_error(code));
                continue;
            }
            let mut header = train;
            header.msg_iov = train.msg_iov.wrapping_add(place);
            header.msg_iovlen = 1;
            header.msg_controllen -= cmsg::SEGMENT_SPACE; // it was written last
            let mut sent = send_one(socket, &header);
            if sent.as_ref().is_err_and(is_news_of_another) {
                sent = send_one(socket, &header);
            }
            if let Err(error) = sent {
                failed(first + place, error);
            }
        }
    }
}

/// Whether an error may be what came back about an earlier datagram: that is told once, on whatever call comes next, and
/// the datagram of this call has not been tried yet.
fn is_news_of_another(error: &io::Error) -> bool {
    ICMP_ERRORS.contains(&error.raw_os_error().unwrap_or(0))
}

/// Sends what one header holds.
fn send_one(socket: BorrowedFd<'_>, header: &libc::msghdr) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    // SAFETY: the header was filled by `Batch::put` from packets that the caller of `send` still borrows.
    let sent = match unsafe { header.msg_iov.as_ref() } {
        // The plain call asks less of the kernel.
        Some(bytes) if header.msg_iovlen == 1 && header.msg_controllen == 0 => {
            let name = header.msg_name.cast();
            // SAFETY: as above.
            unsafe { libc::sendto(fd, bytes.iov_base, bytes.iov_len, libc::MSG_DONTWAIT, name, header.msg_namelen) }
        }
        // SAFETY: as above.
        _ => unsafe { libc::sendmsg(fd, header, libc::MSG_DONTWAIT) },
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Datagrams that leave as one: of one length, to one place, under one header. The last one may be shorter.
struct Train<'a> {
    head: Outgoing<'a>,
    bytes: usize,
    count: usize,
    is_closed: bool,
}

impl<'a> Train<'a> {
    fn of(head: Outgoing<'a>) -> Self {
        let bytes = head.data.len();
        Self { head, bytes, count: 1, is_closed: bytes == 0 || bytes > MAX_SEGMENT }
    }

    fn takes(&self, packet: &Outgoing<'_>) -> bool {
        let fits = packet.data.len() <= self.head.data.len() && !packet.data.is_empty();
        !self.is_closed
            && fits
            && self.count < TRAIN
            && self.bytes + packet.data.len() <= MAX_PAYLOAD
            && (packet.to, packet.source, packet.marks) == (self.head.to, self.head.source, self.head.marks)
    }

    fn add(&mut self, packet: &Outgoing<'_>) {
        self.bytes += packet.data.len();
        self.count += 1;
        self.is_closed = packet.data.len() < self.head.data.len();
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
        let icmp = cmsg::controls(&header).find_map(|control| cmsg::icmp(&control));
        if let (Some(icmp), Some(peer)) = (icmp, cmsg::read_name(&name)) {
            each(peer, icmp);
        }
    }
}
