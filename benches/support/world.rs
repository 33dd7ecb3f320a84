//! A server of the core alone, with as many allocations as are wanted: what the benches of the core speak to.
//!
//! Owns the shell's part (relay addresses by the count) and one client for each allocation, which has a permission and a
//! channel for one peer. Clients have time-limited credentials, as minting makes them. Everything follows from one seed:
//! two worlds of a size are the same. Never reads a clock, never opens a socket.

#![allow(dead_code, reason = "every bench uses its own part of this")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use turnserver::client::{Client, Heard};
use turnserver::time::{Duration, Instant, Now, UnixSeconds, minutes};
use turnserver::turn::credential::{self, Secret};
use turnserver::turn::opaque::OpaqueString;
use turnserver::turn::peers::RelayAddress;
use turnserver::turn::policy::Policy;
use turnserver::turn::tally::{Tally, Transport};
use turnserver::turn::{Bound, Effect, FiveTuple, Input, Link, Path, RelayId, Server, Verdict};
use turnserver::wire::Packet;
use turnserver::wire::channel::ChannelNumber;
use turnserver::wire::packet::SLOT;

/// Bytes of payload in every packet: what an audio codec sends every 20 ms.
pub(crate) const SIZE: usize = 160;
/// What every client calls the channel of its peer.
pub(crate) const CHANNEL: ChannelNumber = ChannelNumber::MIN;

const REALM: &str = "example.org";
const SECRET: &str = "a secret as long as the first start makes one";
const START: Now = Now { mono: Instant(1_000_000_000_000), unix: UnixSeconds(1_700_000_000) };
const HOST: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 1);
const CLIENTS: Ipv4Addr = Ipv4Addr::new(30, 0, 0, 1);
const PEERS: Ipv4Addr = Ipv4Addr::new(40, 0, 0, 1);
/// Relay ports of one address.
const PORTS: usize = 16_384;
const FIRST_PORT: u16 = 49_152;

/// A server, and who speaks to it.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) now: Now,
    pub(crate) calls: Vec<Call>,
    /// The slot that everything goes through.
    pub(crate) packet: Packet,
    pub(crate) effects: Vec<Effect>,
    /// Those of one step.
    step: Vec<Effect>,
    /// Relay addresses made so far.
    bound: usize,
    /// Whose the last of them is.
    last: Option<RelayId>,
}

/// One allocation, seen from its client.
pub(crate) struct Call {
    pub(crate) client: Client,
    pub(crate) path: Path,
    pub(crate) relay: RelayId,
    pub(crate) peer: SocketAddr,
}

/// A client that has no allocation yet.
pub(crate) struct Stranger {
    pub(crate) client: Client,
    pub(crate) path: Path,
    pub(crate) peer: SocketAddr,
}

impl World {
    /// A server with `count` allocations.
    pub(crate) fn new(count: usize) -> Self {
        let mut world = Self::empty();
        for _ in 0..count {
            world.joins();
        }
        world
    }

    /// A server nobody has spoken to.
    pub(crate) fn empty() -> Self {
        Self {
            server: Server::new(Arc::new(policy()), Arc::new(Tally::default()), START, [7; 32]),
            now: START,
            calls: Vec::new(),
            packet: Packet::new(vec![0; SLOT].into()),
            effects: Vec::new(),
            step: Vec::new(),
            bound: 0,
            last: None,
        }
    }

    /// One more client comes and has an allocation with a channel.
    pub(crate) fn joins(&mut self) {
        let mut stranger = stranger(self.calls.len() as u32);
        let relay = self.allocates(&mut stranger);
        let Stranger { client, path, peer } = stranger;
        self.calls.push(Call { client, path, relay, peer });
        self.asks(self.calls.len() - 1, |client, peer| client.channel_bind(CHANNEL.get(), peer));
    }

    /// A client that nobody knows asks for an allocation, is challenged, and asks again.
    pub(crate) fn allocates(&mut self, stranger: &mut Stranger) -> RelayId {
        for is_known in [false, true] {
            let request = stranger.client.allocate(None);
            assert_eq!(self.says(stranger.path, &request), Verdict::ToClient(stranger.path));
            let heard = stranger.client.hear(self.packet.data()).expect("an answer");
            assert_eq!(matches!(heard, Heard::Success(_)), is_known, "{heard:?}");
        }
        self.last.expect("an allocation has a relay address")
    }

    /// The client of a call asks, and the answer is yes.
    pub(crate) fn asks(&mut self, at: usize, request: impl FnOnce(&mut Client, SocketAddr) -> Vec<u8>) {
        let call = &mut self.calls[at];
        let (path, request) = (call.path, request(&mut call.client, call.peer));
        assert_eq!(self.says(path, &request), Verdict::ToClient(path));
        let heard = self.calls[at].client.hear(self.packet.data()).expect("an answer");
        assert!(matches!(heard, Heard::Success(_)), "{heard:?}");
    }

    /// A message from a client reaches the server, and the shell does what that asks for.
    pub(crate) fn says(&mut self, path: Path, bytes: &[u8]) -> Verdict {
        self.packet.fill(bytes);
        let verdict = self.step(Input::Client(path));
        let wanted = self
            .effects
            .iter()
            .find_map(|effect| if let Effect::Bind(bind) = effect { Some(bind.relay) } else { None });
        self.effects.clear();
        let Some(relay) = wanted else { return verdict };
        let bound = self.binds();
        self.last = Some(relay);
        let verdict = self.step(Input::Bound { relay, result: Ok(bound), also: None });
        self.effects.clear();
        verdict
    }

    /// A datagram reaches the relay address of a call.
    pub(crate) fn hears(&mut self, at: usize, from: SocketAddr, payload: &[u8]) -> Verdict {
        self.packet.fill(payload);
        let relay = self.calls[at].relay;
        self.step(Input::Peer { relay, from })
    }

    /// All that the core does about one thing that happened. A function of its own, so that it can be counted.
    #[inline(never)]
    pub(crate) fn step(&mut self, input: Input) -> Verdict {
        self.server.handle(self.now, input, &mut self.packet, &mut self.effects)
    }

    /// All that the core does because time has passed, step by step.
    pub(crate) fn ticks(&mut self) {
        while self.server.deadline().is_some_and(|deadline| deadline <= self.now.mono) {
            self.tick();
        }
    }

    /// One step of that.
    #[inline(never)]
    pub(crate) fn tick(&mut self) {
        self.server.tick(self.now, &mut self.step);
        self.effects.append(&mut self.step);
    }

    /// Time passes, and nobody looks.
    pub(crate) fn waits(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.unix = UnixSeconds(self.now.unix.0 + time.as_secs());
    }

    /// The next relay address: as many hosts as it takes.
    fn binds(&mut self) -> Bound {
        let host = ip_at(HOST, self.bound / PORTS);
        let port = FIRST_PORT + (self.bound % PORTS) as u16;
        self.bound += 1;
        Bound { address: RelayAddress { local: host, external: host }, port }
    }
}

/// The rules of every world.
pub(crate) fn policy() -> Policy {
    let relays = vec![RelayAddress { local: HOST.into(), external: HOST.into() }];
    let mut policy = Policy { realm: REALM.into(), relays, ..Policy::default() };
    policy.auth.secrets = vec![Secret::new(SECRET)];
    policy.auth.nonce_key = Secret::new("a key for nonces");
    // All of them come within one second here.
    policy.limits.unauthenticated_per_ip = 1_000_000;
    policy
}

/// A client without an allocation, with an address of its own.
pub(crate) fn stranger(number: u32) -> Stranger {
    let user = OpaqueString::new("alice").expect("a name");
    let minted = credential::mint(&Secret::new(SECRET), Some(&user), credential::SEPARATOR, minutes(60), START.unix);
    let client = SocketAddr::new(ip_at(CLIENTS, number as usize), 4000);
    let tuple = FiveTuple { transport: Transport::Udp, client, server: SocketAddr::new(HOST.into(), 3478) };
    Stranger {
        client: Client::new(&minted.username, &minted.password, number),
        path: Path { tuple, link: Link(0) },
        peer: SocketAddr::new(ip_at(PEERS, number as usize), 1111),
    }
}

/// A payload that is no message of ours, as media is none.
pub(crate) fn media(size: usize) -> Vec<u8> {
    let mut payload = vec![7; size];
    payload[0] = 0x80; // RTP, version 2
    payload
}

fn ip_at(first: Ipv4Addr, number: usize) -> IpAddr {
    Ipv4Addr::from(u32::from(first) + number as u32).into()
}
