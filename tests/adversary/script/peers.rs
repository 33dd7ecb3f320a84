//! Whom a client can reach through the relay.

use super::{Loopback, Outcome, Stop, Target, flawed, succeeds};
use crate::visitor::{Gone, V6, Visitor};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;
use turnserver::wire::codes::Attribute;

const CHANNEL: u16 = 0x4000;
/// How long a datagram may take that must come.
const PATIENCE: Duration = Duration::from_secs(10);
const PORT: u16 = 9; // discards what it gets, if anybody listens there at all

/// A client with an allocation of the address's family.
fn beside(target: &Target, name: &str, ip: IpAddr) -> Result<Visitor, Stop> {
    let family: &[(Attribute, &[u8])] = if ip.is_ipv6() { &[(Attribute::REQUESTED_ADDRESS_FAMILY, &V6)] } else { &[] };
    target.allocated(name, family)
}

/// Tries CreatePermission, ChannelBind and Send to each.
fn are_refused(target: &Target, name: &str, peers: &[&str]) -> Outcome {
    for peer in peers {
        let ip: IpAddr = peer.parse().expect("an address");
        let mut visitor = beside(target, name, ip)?;
        let to = SocketAddr::new(ip, PORT);
        let permitted = visitor.permits(to).ok_or(Gone)?.code();
        if permitted != 403 {
            return flawed(format_args!("CreatePermission for {ip} is answered {permitted}"));
        }
        let bound = visitor.binds(CHANNEL, to).ok_or(Gone)?.code();
        if bound != 403 {
            return flawed(format_args!("ChannelBind to {ip} is answered {bound}"));
        }
        let send = visitor.client.send(to, b"never");
        visitor.tries(&send)?;
        settles(&mut visitor)?;
        if visitor.has_data() {
            return flawed(format_args!("Send to {ip} has an answer"));
        }
    }
    Ok(())
}

/// Lets the server finish what it does with the datagrams before: each answer comes out of a later round of its work.
fn settles(visitor: &mut Visitor) -> Result<(), Gone> {
    (0..3).try_for_each(|_| visitor.is_served().ok_or(Gone))
}

/// A program on loopback.
fn witness() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
    let address = socket.local_addr().expect("a bound socket has an address");
    (socket, address)
}

pub(super) fn loopback_is_shut(target: &Target) -> Outcome {
    if target.loopback == Loopback::Open {
        return Err(Stop::NotShown("the operator has opened loopback"));
    }
    let (socket, address) = witness();
    let mut visitor = beside(target, "4058", address.ip())?;
    visitor.permits(address).ok_or(Gone)?;
    visitor.binds(CHANNEL, address).ok_or(Gone)?;
    let send = visitor.client.send(address, b"never");
    visitor.tries(&send)?;
    visitor.says(&turnserver::client::channel_data(turnserver::wire::channel::ChannelNumber::MIN, b"never"));
    settles(&mut visitor)?;
    socket.set_nonblocking(true).expect("a socket can be told not to wait");
    if socket.recv(&mut [0; 16]).is_ok() {
        return flawed("a program on loopback hears the client");
    }
    drop(visitor);
    // Of the relay address itself a permission may be had, for the sake of other allocations there.
    are_refused(target, "4058", &["127.0.0.2", "127.255.255.254"])
}

pub(super) fn unspecified_is_no_peer(target: &Target) -> Outcome {
    are_refused(target, "26262", &["0.0.0.0", "::"])
}

pub(super) fn mapped_loopback_is_no_peer(target: &Target) -> Outcome {
    are_refused(target, "27624", &["::ffff:127.0.0.1"])
}

pub(super) fn other_clothes_of_loopback_are_no_peers(target: &Target) -> Outcome {
    are_refused(target, "b057", &["::ffff:127.0.0.2", "::127.0.0.1", "::ffff:0.0.0.0", "::ffff:0:127.0.0.1"])
}

pub(super) fn translated_and_local_are_no_peers(target: &Target) -> Outcome {
    let peers = [
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "fe80::1",
        "fd00:ec2::254",
        "169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "10.0.0.1",
    ];
    are_refused(target, "cf4b", &peers)
}

pub(super) fn a_denied_range_is_denied_whole(target: &Target) -> Outcome {
    let (first, last) = (u128::from(*target.denied.start()), u128::from(*target.denied.end()));
    // Both ends, and steps between them in which single bytes lie outside the ends' bytes.
    let within = (0..=8).map(|step| first + (last - first) / 8 * step).chain([last]);
    let within: Vec<String> = within.map(|ip| std::net::Ipv6Addr::from(ip).to_string()).collect();
    are_refused(target, "6c13", &within.iter().map(String::as_str).collect::<Vec<_>>())
}

pub(super) fn own_doors_are_no_peers(target: &Target) -> Outcome {
    if target.loopback == Loopback::Shut {
        return Err(Stop::NotShown("all of loopback is shut"));
    }
    // That loopback is open has to be seen: else nothing is shown by what is shut.
    let (socket, address) = witness();
    let mut visitor = beside(target, "21382", address.ip())?;
    succeeds(visitor.permits(address), "loopback is not open")?;
    let send = visitor.client.send(address, b"open");
    visitor.tries(&send)?;
    if socket.recv(&mut [0; 16]).is_err() {
        return Err(Stop::NotShown("loopback is not open"));
    }
    for door in target.doors.iter().filter(|door| door.is_ipv4()) {
        let binding = visitor.client.binding();
        let send = visitor.client.send(*door, &binding);
        visitor.tries(&send)?;
        settles(&mut visitor)?;
        if visitor.has_data() {
            return flawed(format_args!("the server's own door {door} answers its client through the relay"));
        }
        let bound = visitor.binds(CHANNEL, *door).ok_or(Gone)?.code();
        if bound != 403 {
            return flawed(format_args!("ChannelBind to the server's own door {door} is answered {bound}"));
        }
    }
    let mut dialler = target.visitor_tcp("21382")?;
    succeeds(dialler.allocates_tcp(), "there is no relaying of connections")?;
    for door in target.doors.iter().filter(|door| door.is_ipv4()) {
        let connected = dialler.connects(*door).ok_or(Gone)?.code();
        if connected != 403 {
            return flawed(format_args!("Connect to the server's own door {door} is answered {connected}"));
        }
    }
    Ok(())
}

pub(super) fn connections_go_nowhere_inside(target: &Target) -> Outcome {
    let mut dialler = target.visitor_tcp("333419")?;
    succeeds(dialler.allocates_tcp(), "there is no relaying of connections")?;
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).expect("a listener");
    let inside = listener.local_addr().expect("a listener has an address");
    let metadata = ["169.254.169.254:80", "10.0.0.1:80", "192.168.0.1:80", "172.16.0.1:80"];
    let peers = metadata.map(|peer| peer.parse::<SocketAddr>().expect("an address"));
    let loopback = (target.loopback == Loopback::Shut).then_some(inside);
    for peer in peers.into_iter().chain(loopback) {
        // Permission first: nothing is dialled where that is granted already.
        let permitted = dialler.permits(peer).ok_or(Gone)?.code();
        if permitted != 403 {
            return flawed(format_args!("CreatePermission for {peer} is answered {permitted} over TCP"));
        }
        let connected = dialler.connects(peer).ok_or(Gone)?.code();
        if connected != 403 {
            return flawed(format_args!("Connect to {peer} is answered {connected}"));
        }
    }
    listener.set_nonblocking(true).expect("a listener can be told not to wait");
    if listener.accept().is_ok() { flawed("a program on loopback is called") } else { Ok(()) }
}
