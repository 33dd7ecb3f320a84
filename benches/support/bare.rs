//! A forwarder that decides nothing: what a packet costs at least that is read alone and sent alone, on one thread.
//!
//! Clients set up calls with it as with any TURN server, and the core answers them; then each packet is one read, one
//! look at a map and one write, without a permission, a lifetime or a count. Never ends by itself.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use turnserver::net::clock;
use turnserver::net::poll::{Events, Interest, Poll};
use turnserver::turn::peers::{Own, Peers, Prefix, RelayAddress};
use turnserver::turn::policy::{Policy, UserKeys};
use turnserver::turn::tally::{Tally, Transport};
use turnserver::turn::{Bound, Effect, FiveTuple, Input, Link, Path, RelayId, Server, Verdict};
use turnserver::wire::Packet;
use turnserver::wire::channel::{self, ChannelData, ChannelNumber};
use turnserver::wire::codes::{Attribute, Method};
use turnserver::wire::integrity::Key;
use turnserver::wire::packet::SLOT;
use turnserver::wire::stun::Message;

const LISTENER: u64 = u64::MAX;
/// Datagrams read from the listener before the others have their turn.
const TURN: usize = 64;

/// One call.
struct Route {
    relay: UdpSocket,
    client: SocketAddr,
    /// The channel, once there is one, and its peer.
    channel: Option<(ChannelNumber, SocketAddr)>,
}

struct Bare {
    address: SocketAddr,
    listener: UdpSocket,
    poll: Poll,
    core: Server,
    packet: Packet,
    routes: Vec<Route>,
    by_client: HashMap<SocketAddr, usize>,
    by_relay: HashMap<RelayId, usize>,
}

/// Serves on this port of 127.0.0.1.
pub(crate) fn serve(port: u16, [user, password]: [&str; 2]) -> io::Result<()> {
    let host = Ipv4Addr::LOCALHOST;
    let address = SocketAddr::from((host, port));
    let mut policy = Policy { realm: "r".into(), ..Policy::default() };
    policy.auth.users = [(user.to_owned(), UserKeys { md5: Some(Key::md5(user, "r", password)), sha256: None })].into();
    policy.limits.unauthenticated_per_ip = 1_000_000;
    policy.relays = vec![RelayAddress { local: host.into(), external: host.into() }];
    let loopback = Prefix::new(Ipv4Addr::new(127, 0, 0, 0).into(), 8).into_iter().collect::<Vec<_>>();
    policy.peers = Peers::new(&loopback, &[], true, Own::default());
    let listener = UdpSocket::bind(address)?;
    listener.set_nonblocking(true)?;
    let poll = Poll::new()?;
    poll.add(listener.as_fd(), LISTENER, Interest::Read)?;
    let core = Server::new(Arc::new(policy), Arc::new(Tally::default()), clock::now(), [7; 32]);
    let packet = Packet::new(vec![0; SLOT].into());
    let (routes, by_client, by_relay) = (Vec::new(), HashMap::new(), HashMap::new());
    Bare { address, listener, poll, core, packet, routes, by_client, by_relay }.run()
}

impl Bare {
    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buf = vec![0; 1 << 16];
        loop {
            self.poll.wait(&mut events, None)?;
            for event in (0..events.len()).filter_map(|at| events.get(at)) {
                if event.token == LISTENER {
                    self.read_clients(&mut buf)?;
                } else {
                    self.read_peer(event.token as usize, &mut buf);
                }
            }
        }
    }

    fn read_clients(&mut self, buf: &mut [u8]) -> io::Result<()> {
        for _ in 0..TURN {
            let Ok((len, from)) = self.listener.recv_from(buf) else { break };
            let Ok(head) = ChannelData::parse(&buf[..len]) else {
                self.decide(from, &buf[..len])?;
                continue;
            };
            let Some(route) = self.by_client.get(&from).and_then(|at| self.routes.get(*at)) else { continue };
            let Some((_, peer)) = route.channel else { continue };
            let _ = route.relay.send_to(&buf[channel::HEAD..channel::HEAD + head.length], peer);
        }
        Ok(())
    }

    fn read_peer(&self, at: usize, buf: &mut [u8]) {
        let Some(route) = self.routes.get(at) else { return };
        let Ok((len, _)) = route.relay.recv_from(&mut buf[channel::HEAD..]) else { return };
        let Some((number, _)) = route.channel else { return };
        buf[..channel::HEAD].copy_from_slice(&channel::head(number, len as u16));
        let _ = self.listener.send_to(&buf[..channel::HEAD + len], route.client);
    }

    /// A request: the core decides, and what it grants becomes a route.
    fn decide(&mut self, from: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        let tuple = FiveTuple { transport: Transport::Udp, client: from, server: self.address };
        self.packet.fill(bytes);
        let mut effects = Vec::new();
        let input = Input::Client(Path { tuple, link: Link(0) });
        let mut verdict = self.core.handle(clock::now(), input, &mut self.packet, &mut effects);
        for effect in effects {
            if let Effect::Bind(bind) = effect {
                let bound = self.binds(bind.relay, from)?;
                let input = Input::Bound { relay: bind.relay, result: Ok(bound), also: None };
                verdict = self.core.handle(clock::now(), input, &mut self.packet, &mut Vec::new());
            } else if let Effect::Ended { relay, .. } = effect {
                self.ends(relay)?;
            }
        }
        if let (Ok(asked), Some(at)) = (Message::parse(bytes), self.by_client.get(&from))
            && asked.method == Method::CHANNEL_BIND
            && let Some(Ok([n0, n1, _, _])) = asked.bytes::<4>(Attribute::CHANNEL_NUMBER)
            && let Some(Ok(peer)) = asked.xor_address(Attribute::XOR_PEER_ADDRESS)
        {
            self.routes[*at].channel = ChannelNumber::new(u16::from_be_bytes([n0, n1])).map(|number| (number, peer));
        }
        if let Verdict::ToClient(_) = verdict {
            let _ = self.listener.send_to(self.packet.data(), from);
        }
        Ok(())
    }

    fn ends(&mut self, id: RelayId) -> io::Result<()> {
        let Some(at) = self.by_relay.remove(&id) else { return Ok(()) };
        let route = &mut self.routes[at];
        route.channel = None;
        self.by_client.remove(&route.client);
        self.poll.remove(route.relay.as_fd())
    }

    fn binds(&mut self, id: RelayId, client: SocketAddr) -> io::Result<Bound> {
        let relay = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        relay.set_nonblocking(true)?;
        let local = relay.local_addr()?;
        let at = self.routes.len();
        self.poll.add(relay.as_fd(), at as u64, Interest::Read)?;
        self.routes.push(Route { relay, client, channel: None });
        self.by_client.insert(client, at);
        self.by_relay.insert(id, at);
        Ok(Bound { address: RelayAddress { local: local.ip(), external: local.ip() }, port: local.port() })
    }
}
