//! Random worlds beside a model that knows only the law: a datagram passes if and only if allocation, permission and
//! rule are alive, and every gauge is the number of things that live.

use crate::support::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use turnserver::turn::tally::Transport;
use turnserver::turn::{BindError, Verdict};
use turnserver::wire::codes::Attribute;
use turnserver::wire::stun::Family;

const CLIENTS: [(&str, &str, Transport); 4] = [
    ("desk", "alice", Transport::Udp),
    ("phone", "alice", Transport::Tcp),
    ("tablet", "alice", Transport::Udp),
    ("bob", "bob", Transport::Udp),
];
const PEERS: [SocketAddr; 6] = [PEER_A, PEER_A2, PEER_B, PEER_C, PRIVATE, PEER_V6];
const QUOTA: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    /// By whom, for how long, and whether in both families.
    Allocate(usize, u32, bool),
    /// By whom, for how long, and whether for one family only.
    Refresh(usize, u32, Option<Family>),
    Permit(usize, Vec<usize>),
    Bind(usize, u16, usize),
    Send(usize, usize),
    ChannelData(usize, u16),
    PeerSends(usize, usize),
    Wait(u64),
    SocketsFail(bool),
    Leave(usize),
    Deny(Option<usize>),
    Noise(usize, Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let (client, peer, number) = (0..CLIENTS.len(), 0..PEERS.len(), 0x4000u16..0x4003);
    let lifetime = prop_oneof![Just(600u32), 0u32..4000];
    let family = prop_oneof![2 => Just(None), 1 => Just(Some(Family::V4)), 1 => Just(Some(Family::V6))];
    prop_oneof![
        4 => (client.clone(), lifetime.clone(), any::<bool>())
            .prop_map(|(client, lifetime, dual)| Step::Allocate(client, lifetime, dual)),
        3 => (client.clone(), lifetime, family.clone())
            .prop_map(|(client, lifetime, family)| Step::Refresh(client, lifetime, family)),
        1 => (client.clone(), family).prop_map(|(client, family)| Step::Refresh(client, 0, family)),
        3 => (client.clone(), vec(peer.clone(), 1..4)).prop_map(|(client, peers)| Step::Permit(client, peers)),
        4 => (client.clone(), number.clone(), peer.clone()).prop_map(|(client, number, peer)| Step::Bind(client, number, peer)),
        3 => (client.clone(), peer.clone()).prop_map(|(client, peer)| Step::Send(client, peer)),
        4 => (client.clone(), number).prop_map(|(client, number)| Step::ChannelData(client, number)),
        4 => (client.clone(), peer.clone()).prop_map(|(client, peer)| Step::PeerSends(client, peer)),
        4 => prop_oneof![Just(1u64), Just(299), Just(300), Just(301), 0u64..700].prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::SocketsFail),
        1 => client.clone().prop_map(Step::Leave),
        1 => prop::option::of(peer).prop_map(Step::Deny),
        1 => (client, vec(any::<u8>(), 0..80)).prop_map(|(client, bytes)| Step::Noise(client, bytes)),
    ]
}

/// What the law says there is. Times are whole seconds.
#[derive(Debug, Default)]
struct Law {
    now: u64,
    allocations: BTreeMap<usize, Held>,
    denied: BTreeSet<IpAddr>,
    relayed: u64,
}

#[derive(Debug, Default)]
struct Held {
    /// When each family is over.
    legs: BTreeMap<u8, u64>,
    permissions: BTreeMap<IpAddr, u64>,
    channels: BTreeMap<u16, (SocketAddr, u64)>,
}

const REST: u64 = 300;

impl Held {
    /// When the last of it is over.
    fn expires(&self) -> u64 {
        self.legs.values().copied().max().unwrap_or(0)
    }

    fn has(&self, ip: IpAddr) -> bool {
        self.legs.contains_key(&Family::of(ip).number())
    }

    /// Keeps what lives at this moment: a family takes all that depends on it along.
    fn keeps(&mut self, now: u64) {
        self.legs.retain(|_, expires| *expires >= now);
        let legs = self.legs.clone();
        let has = |ip: IpAddr| legs.contains_key(&Family::of(ip).number());
        self.permissions.retain(|ip, expires| *expires >= now && has(*ip));
        self.channels.retain(|_, (peer, expires)| *expires + REST >= now && has(peer.ip()));
    }
}

impl Law {
    fn is_denied(&self, peer: usize) -> bool {
        PEERS[peer] == PRIVATE || self.denied.contains(&PEERS[peer].ip())
    }

    fn live(&mut self, client: usize) -> Option<&mut Held> {
        let now = self.now;
        self.allocations.get_mut(&client).filter(|held| held.expires() > now)
    }

    fn permits(&mut self, client: usize, ip: IpAddr) -> bool {
        let now = self.now;
        self.live(client).is_some_and(|held| {
            let is_reachable = held.legs.get(&Family::of(ip).number()).is_some_and(|expires| *expires > now);
            is_reachable && held.permissions.get(&ip).is_some_and(|expires| *expires > now)
        })
    }

    fn moves_to(&mut self, now: u64) {
        self.now = now;
        self.allocations.values_mut().for_each(|held| held.keeps(now));
        self.allocations.retain(|_, held| !held.legs.is_empty());
    }

    /// A client asks something: what of its allocation ends in this second is over before it is answered.
    fn asked(&mut self, client: usize) {
        let now = self.now;
        let Some(held) = self.allocations.get_mut(&client) else { return };
        held.legs.retain(|_, expires| *expires > now);
        held.keeps(now);
        self.allocations.retain(|_, held| !held.legs.is_empty());
    }

    /// What a request that names these peers is told, when not all of them may be.
    fn objection(&mut self, client: usize, peers: &[usize]) -> Option<u16> {
        let Some(held) = self.allocations.get(&client) else { return Some(437) };
        peers.iter().find_map(|peer| match (held.has(PEERS[*peer].ip()), self.is_denied(*peer)) {
            (false, _) => Some(443),
            (true, true) => Some(403),
            (true, false) => None,
        })
    }

    /// The gauges, at least and at most: what ends in this very second may have been swept or not.
    fn gauges(&self, strictly: bool) -> (u64, u64, u64) {
        let now = self.now + u64::from(strictly);
        let live = || self.allocations.values().filter(move |held| held.expires() >= now);
        let has = move |held: &Held, ip: IpAddr| {
            held.legs.get(&Family::of(ip).number()).is_some_and(|expires| *expires >= now)
        };
        let permissions = live().map(|held| {
            held.permissions.iter().filter(|(ip, expires)| **expires >= now && has(held, **ip)).count() as u64
        });
        let channels = live().map(|held| {
            let alive = |(peer, expires): &&(SocketAddr, u64)| *expires + REST >= now && has(held, peer.ip());
            held.channels.values().filter(alive).count() as u64
        });
        (live().count() as u64, permissions.sum(), channels.sum())
    }
}

fn lives_for(lifetime: u32) -> u64 {
    u64::from(lifetime).clamp(600, 3600)
}

/// Says it, and says it again with a new nonce when the old one was too old.
fn says(t: &mut Turn, client: usize, ask: Ask) -> Outcome {
    let name = CLIENTS[client].0;
    let outcome = t.client(name).says(ask.clone());
    if outcome.code() == Some(438) { t.client(name).says(ask) } else { outcome }
}

fn takes(t: &mut Turn, law: &mut Law, step: &Step) {
    match step {
        Step::Wait(time) => {
            t.waits(seconds(*time));
            law.moves_to(t.now.mono.as_secs());
        }
        Step::SocketsFail(fail) => t.bind_fails = fail.then_some(BindError::NoResources),
        Step::Allocate(client, lifetime, dual) => {
            law.asked(*client);
            let users = law
                .allocations
                .iter()
                .filter(|(other, held)| held.expires() > law.now && CLIENTS[**other].1 == CLIENTS[*client].1);
            // An allocation that ends in this second holds its place until somebody looks.
            let swept = t.sockets() == law.allocations.values().filter(|held| held.expires() > law.now).count();
            let is_full = users.count() >= QUOTA;
            let expected = match law.live(*client) {
                Some(_) => error(437),
                None if is_full => error(486),
                None if t.bind_fails.is_some() => error(508),
                None => success(),
            };
            let ask = allocate().with(Attribute::LIFETIME, &lifetime.to_be_bytes());
            let both = ask.clone().with(Attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
            let outcome = says(t, *client, if *dual { both } else { ask });
            if !swept && outcome.code() == Some(486) {
                return;
            }
            let outcome = outcome.hears(expected);
            if outcome.code().is_none() {
                let expires = law.now + lives_for(*lifetime);
                let legs = (1..=1 + u8::from(*dual)).map(|family| (family, expires)).collect();
                law.allocations.insert(*client, Held { legs, ..Held::default() });
            }
        }
        Step::Refresh(client, lifetime, family) => {
            let mut ask = refresh_for(*lifetime);
            if let Some(family) = family {
                ask = ask.with(Attribute::REQUESTED_ADDRESS_FAMILY, &[family.number(), 0, 0, 0]);
            }
            let outcome = says(t, *client, ask);
            law.asked(*client);
            let now = law.now;
            let is_meant = |leg: &u8| family.is_none_or(|family| family.number() == *leg);
            match law.live(*client) {
                None => drop(outcome.hears(error(437))),
                Some(held) if !held.legs.keys().any(is_meant) => drop(outcome.hears(error(443))),
                Some(held) if *lifetime == 0 => {
                    outcome.hears(success()).for_seconds(0);
                    held.legs.retain(|leg, _| !is_meant(leg));
                    held.keeps(now);
                    law.allocations.retain(|_, held| !held.legs.is_empty());
                }
                Some(held) => {
                    outcome.hears(success()).for_seconds(lives_for(*lifetime) as u32);
                    let meant = held.legs.iter_mut().filter(|(leg, _)| is_meant(leg));
                    meant.for_each(|(_, expires)| *expires = now + lives_for(*lifetime));
                }
            }
        }
        Step::Permit(client, peers) => {
            let named: Vec<_> = peers.iter().map(|peer| PEERS[*peer]).collect();
            let outcome = says(t, *client, create_permission(&named));
            law.asked(*client);
            if let Some(code) = law.objection(*client, peers) {
                return drop(outcome.hears(error(code)));
            }
            outcome.hears(success());
            let now = law.now;
            let held = law.live(*client).expect("nobody objects");
            held.permissions.extend(named.iter().map(|peer| (peer.ip(), now + 300)));
        }
        Step::Bind(client, number, peer) => {
            let outcome = says(t, *client, channel_bind(*number, PEERS[*peer]));
            law.asked(*client);
            if let Some(code) = law.objection(*client, &[*peer]) {
                return drop(outcome.hears(error(code)));
            }
            let now = law.now;
            let held = law.live(*client).expect("nobody objects");
            let is_taken = held.channels.iter().any(|(other, (bound, expires))| {
                *expires + REST > now && (other == number) != (*bound == PEERS[*peer])
            });
            if is_taken {
                return drop(outcome.hears(error(400)));
            }
            outcome.hears(success());
            held.channels.retain(|_, (_, expires)| *expires + REST > now);
            held.channels.insert(*number, (PEERS[*peer], now + 600));
            held.permissions.insert(PEERS[*peer].ip(), now + 300);
        }
        Step::Send(client, peer) => {
            let outcome = t.client(CLIENTS[*client].0).says(send(PEERS[*peer], b"hello"));
            if law.permits(*client, PEERS[*peer].ip()) {
                outcome.reaches(PEERS[*peer], b"hello");
                law.relayed += 1;
            } else {
                outcome.hears(silence());
            }
        }
        Step::ChannelData(client, number) => {
            let outcome = t.client(CLIENTS[*client].0).says(channel_data(*number, b"hi"));
            let now = law.now;
            let bound = law.live(*client).and_then(|held| held.channels.get(number).copied());
            match bound.filter(|(_, expires)| *expires > now) {
                Some((peer, _)) if law.permits(*client, peer.ip()) => {
                    outcome.reaches(peer, b"hi");
                    law.relayed += 1;
                }
                _ => drop(outcome.hears(silence())),
            }
        }
        Step::PeerSends(client, peer) => {
            let name = CLIENTS[*client].0;
            if t.client(name).party().relayed.is_none() {
                return;
            }
            let outcome = t.peer(PEERS[*peer]).sends_to(name, b"back");
            let now = law.now;
            if !law.permits(*client, PEERS[*peer].ip()) {
                return drop(outcome.hears(silence()));
            }
            law.relayed += 1;
            let held = law.live(*client).expect("it permits");
            let bound = held.channels.iter().find(|(_, (bound, expires))| *bound == PEERS[*peer] && *expires > now);
            match bound {
                Some((number, _)) => outcome.hears(channel(*number, b"back")),
                None => outcome.hears(data(PEERS[*peer], b"back")),
            };
        }
        Step::Leave(client) => {
            if CLIENTS[*client].2 == Transport::Tcp {
                t.client(CLIENTS[*client].0).leaves();
                law.allocations.remove(client);
            }
        }
        Step::Deny(peer) => {
            law.denied = peer.map(|peer| PEERS[peer].ip()).into_iter().collect();
            let denied = law.denied.clone();
            t.reloads(|world| world.deny = denied.iter().map(|ip| (*ip).into()).collect());
            for held in law.allocations.values_mut() {
                held.permissions.retain(|ip, _| !denied.contains(ip));
                held.channels.retain(|_, (peer, _)| !denied.contains(&peer.ip()));
            }
        }
        Step::Noise(client, bytes) => {
            let outcome = t.client(CLIENTS[*client].0).says_bytes(bytes);
            assert!(!matches!(outcome.verdict, Verdict::ToPeer { .. }) || bytes[0] == 0x40);
            law.relayed += u64::from(matches!(outcome.verdict, Verdict::ToPeer { .. }));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_datagram_passes_if_and_only_if_everything_it_needs_is_alive(steps in vec(step(), 1..120)) {
        let mut t = Turn::with(|world| world.policy.limits.allocations_per_user = QUOTA as u32);
        let mut law = Law { now: t.now.mono.as_secs(), ..Law::default() };
        for (name, user, transport) in CLIENTS {
            t.joins_as(name, user, &password_of(user), transport).learns_a_nonce();
        }
        for step in &steps {
            takes(&mut t, &mut law, step);
            let (least, most, seen) = (law.gauges(true), law.gauges(false), t.gauges());
            prop_assert!(least.0 <= seen.0 && seen.0 <= most.0, "{:?} <= {:?} <= {:?}", least, seen, most);
            prop_assert!(least.1 <= seen.1 && seen.1 <= most.1, "{:?} <= {:?} <= {:?}", least, seen, most);
            prop_assert!(least.2 <= seen.2 && seen.2 <= most.2, "{:?} <= {:?} <= {:?}", least, seen, most);
            prop_assert_eq!(t.sockets() as u64, seen.0);
        }
        t.stops();
        t.is_as_new();
        let relayed: u64 = t.ended.iter().map(|(_, usage, _)| usage.packets_to_peer + usage.packets_to_client).sum();
        prop_assert_eq!(relayed, law.relayed);
        prop_assert_eq!(t.tally.to_peer.packets.get() + t.tally.to_client.packets.get(), law.relayed);
    }
}
