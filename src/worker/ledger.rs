//! What the workers share: who has how many allocations and connections, which relay ports are whose, and the
//! server's bandwidth. A dual allocation has two sockets and counts once.
//!
//! Locks are taken when an allocation or a connection begins or ends, never per packet; a packet reads one number
//! ([`Ledger::home`]) and only when it goes between two of our own relay ports. Every claim gives itself back; the
//! second port of a pair belongs to a token by then, and [`Ledger::cancel`] gives that back. Its socket waits here, so
//! that no other program has the port when the token is shown; it is closed once the one that relays is there.
#![forbid(unsafe_code)]

use super::sockets::RelaySocket;
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::time::{Instant, Now};
use crate::turn::Bind;
use crate::turn::BindError;
use crate::turn::limits::{SharedBucket, Strangers};
use crate::turn::peers::RelayAddress;
use crate::turn::policy::Limits;
use crate::turn::ports::{self, Ports, Token, Want};
use crate::turn::{Protocol, RelayId};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::RawFd;
use std::sync::{Arc, PoisonError};

/// The shared books of a server, whose relay sockets are `S`.
#[derive(Debug)]
pub(super) struct Ledger<S = RelaySocket> {
    ports: Mutex<HeldPorts<S>>,
    accounts: Mutex<Accounts>,
    connections: Mutex<Connections>,
    /// Connections of all networks together: half of the open files, so that relay sockets always find some. Half of
    /// them may go on to the web server behind us, and take a second file each.
    max_connections: u64,
    /// Descriptors from this number on are no relay socket's: they are for those who ask how the server is.
    spare_files: u64,
    live: Vec<LivePorts>,
    bandwidth: SharedBucket,
    strangers: Arc<Strangers>,
}

#[derive(Debug)]
struct HeldPorts<S> {
    ports: Ports,
    /// Sockets that hold their port for whoever shows the token.
    promised: HashMap<Token, S>,
}

impl<S> HeldPorts<S> {
    /// A port, and the socket that has waited on it.
    fn take(&mut self, now: Now, bind: &Bind, chance: [u8; 32]) -> Option<(ports::Claim, Option<S>)> {
        // Before a port is drawn: the socket that waited on it must be gone by then.
        self.end_reservations(now);
        let claim = self.ports.take(now.mono, bind.family, bind.want, &bind.user, chance)?;
        let socket = match bind.want {
            Want::Reserved(token) => self.promised.remove(&token),
            Want::Any | Want::Even | Want::Pair(_) => None,
        };
        Some((claim, socket))
    }

    fn end_reservations(&mut self, now: Now) {
        for token in self.ports.end_reservations(now.mono) {
            self.promised.remove(&token);
        }
    }
}

#[derive(Debug, Default)]
struct Accounts {
    allocations: u32,
    by_user: HashMap<Box<str>, u32>,
}

#[derive(Debug, Default)]
struct Connections {
    all: u64,
    /// Those that go on to the web server.
    web: u64,
    by_network: HashMap<IpAddr, u32>,
}

/// Which ports of one relay address an allocation lives on, and which. Another program may have the same port for the
/// other protocol.
#[derive(Debug)]
struct LivePorts {
    address: IpAddr,
    protocol: Protocol,
    first: u16,
    /// A [`Home`] in one number; 0 where nobody lives.
    homes: Box<[AtomicU64]>,
}

/// Where the allocation of a relay port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) worker: u8,
    pub(super) relay: RelayId,
}

impl Home {
    /// The worker, the generation with its 24 bits, and the index, of which the last is never reached.
    fn pack(self) -> u64 {
        u64::from(self.worker) << 56
            | u64::from(self.relay.generation & GENERATION) << 32
            | (u64::from(self.relay.index) + 1)
    }

    fn unpack(bits: u64) -> Option<Self> {
        let index = (bits as u32).checked_sub(1)?;
        let generation = (bits >> 32) as u32 & GENERATION;
        Some(Self { worker: (bits >> 56) as u8, relay: RelayId { index, generation } })
    }
}

const GENERATION: u32 = 0x00FF_FFFF;

/// How the relay ports are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortUse {
    /// Ports an allocation could get.
    pub free: u64,
    /// Ports that are taken or held back.
    pub used: u64,
}

/// A relay socket's place in the books; dropping it clears the place.
#[derive(Debug)]
pub(super) struct Claim<S = RelaySocket> {
    ledger: Arc<Ledger<S>>,
    /// Whose allocation is counted; the second socket of a dual one is not.
    user: Option<Box<str>>,
    /// The port, once there is one.
    port: Option<(ports::Claim, Protocol)>,
}

/// A connection's place in the books; dropping it clears the place.
#[derive(Debug)]
pub(super) struct Admission<S = RelaySocket> {
    ledger: Arc<Ledger<S>>,
    /// Not known while a proxy has not said whose it is.
    network: Option<IpAddr>,
    is_web: bool,
}

/// What a socket is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To relay from now on.
    Relay,
    /// To hold a port for whoever shows the token.
    Hold,
    /// To relay on a port that another one holds.
    TakeOver,
}

/// Files that no relay socket takes, where so many are an eighth of all or less.
const SPARE_FILES: u64 = 64;

/// Ports tried for one allocation when other programs sit in the range.
const ATTEMPTS: usize = 16;

impl<S> Ledger<S> {
    /// Empty books over these relay addresses and ports, for a process that may open `files`.
    pub(super) fn new(addresses: &[RelayAddress], range: RangeInclusive<u16>, files: u64, seed: u64) -> Self {
        let live = |address: &RelayAddress| {
            let local = address.local;
            [Protocol::Udp, Protocol::Tcp].map(|protocol| LivePorts {
                address: local,
                protocol,
                first: *range.start(),
                homes: range.clone().map(|_| AtomicU64::new(0)).collect(),
            })
        };
        let live = addresses.iter().flat_map(live).collect();
        Self {
            ports: Mutex::new(HeldPorts { ports: Ports::new(addresses, range), promised: HashMap::new() }),
            accounts: Mutex::default(),
            connections: Mutex::default(),
            max_connections: files / 2,
            spare_files: files - (files / 8).min(SPARE_FILES),
            live,
            bandwidth: SharedBucket::default(),
            strangers: Arc::new(Strangers::new(seed)),
        }
    }

    /// Whether an allocation lives on this relay port and relays by this protocol.
    pub(super) fn is_live(&self, local: SocketAddr, protocol: Protocol) -> bool {
        self.home(local, protocol).is_some()
    }

    /// Which allocation lives on this relay port and relays by this protocol.
    pub(super) fn home(&self, local: SocketAddr, protocol: Protocol) -> Option<Home> {
        Home::unpack(self.place(local, protocol)?.load(Ordering::Acquire))
    }

    /// Whether a relay socket may have this descriptor. The system gives the lowest that is free, so when it is a high one
    /// there are few left.
    pub(super) fn may_relay(&self, descriptor: RawFd) -> bool {
        u64::try_from(descriptor).is_ok_and(|descriptor| descriptor < self.spare_files)
    }

    /// How the relay ports are used now.
    pub(super) fn ports(&self) -> PortUse {
        let held = lock(&self.ports);
        PortUse { free: held.ports.free(), used: held.ports.used() }
    }

    /// Closes the sockets that waited for a token nobody has shown in time.
    pub(super) fn end_reservations(&self, now: Now) {
        lock(&self.ports).end_reservations(now);
    }

    /// Books an allocation of `worker`: the quota first, then ports, until `open` makes a socket on one.
    pub(super) fn claim(
        self: &Arc<Self>,
        now: Now,
        limits: &Limits,
        bind: &Bind,
        worker: u8,
        open: impl FnMut(SocketAddr, Purpose) -> io::Result<S>,
    ) -> Result<(Claim<S>, ports::Claim, S), BindError> {
        let claim = self.admit(limits, &bind.user)?;
        self.claim_port(now, claim, bind, worker, open)
    }

    /// Books the second socket of an allocation that is counted already.
    pub(super) fn claim_second(
        self: &Arc<Self>,
        now: Now,
        bind: &Bind,
        worker: u8,
        open: impl FnMut(SocketAddr, Purpose) -> io::Result<S>,
    ) -> Result<(Claim<S>, ports::Claim, S), BindError> {
        let claim = Claim { ledger: Arc::clone(self), user: None, port: None };
        self.claim_port(now, claim, bind, worker, open)
    }

    fn claim_port(
        &self,
        now: Now,
        mut claim: Claim<S>,
        bind: &Bind,
        worker: u8,
        mut open: impl FnMut(SocketAddr, Purpose) -> io::Result<S>,
    ) -> Result<(Claim<S>, ports::Claim, S), BindError> {
        let mut chance = bind.chance;
        for attempt in 0..ATTEMPTS {
            chance[0] = chance[0].wrapping_add(attempt as u8);
            let (taken, waiting) = lock(&self.ports).take(now, bind, chance).ok_or(BindError::NoPort)?;
            let address = SocketAddr::new(taken.address.local, taken.port);
            let opened = match waiting {
                Some(_holds) => open(address, Purpose::TakeOver),
                None => self.open(address, bind.want, &mut open),
            };
            match opened {
                Ok(socket) => {
                    claim.port = Some((taken, bind.protocol));
                    self.set_home(address, bind.protocol, Some(Home { worker, relay: bind.relay }));
                    return Ok((claim, taken, socket));
                }
                Err(error) => {
                    lock(&self.ports).ports.give_back(now.mono, taken);
                    self.cancel(bind.want);
                    match error.raw_os_error() {
                        Some(libc::EADDRINUSE | libc::EACCES) => {} // another program's port: try the next
                        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => {
                            return Err(BindError::NoResources);
                        }
                        _ => {
                            tracing::warn!(relay = %address, %error, "the relay socket cannot be made");
                            return Err(BindError::System);
                        }
                    }
                }
            }
        }
        Err(BindError::NoPort)
    }

    /// Makes the socket of a port, and of the one above where a token stands for that.
    fn open(
        &self,
        address: SocketAddr,
        want: Want,
        open: &mut impl FnMut(SocketAddr, Purpose) -> io::Result<S>,
    ) -> io::Result<S> {
        let socket = open(address, Purpose::Relay)?;
        if let Want::Pair(token) = want {
            let above = SocketAddr::new(address.ip(), address.port().wrapping_add(1));
            let waiting = open(above, Purpose::Hold)?;
            lock(&self.ports).promised.insert(token, waiting);
        }
        Ok(socket)
    }

    /// Gives back the second port of a pair whose first could not be used.
    pub(super) fn cancel(&self, want: Want) {
        if let Want::Pair(token) = want {
            let mut held = lock(&self.ports);
            held.promised.remove(&token);
            held.ports.cancel(token);
        }
    }

    /// Books a connection from `from`; `None` when its network, or all together, have as many as permitted.
    pub(super) fn connect(self: &Arc<Self>, from: IpAddr, limit: u32) -> Option<Admission<S>> {
        let mut admission = self.connect_unnamed()?;
        admission.name(from, limit).then_some(admission)
    }

    /// Books a connection that a proxy makes for somebody; `None` when all together have as many as permitted.
    pub(super) fn connect_unnamed(self: &Arc<Self>) -> Option<Admission<S>> {
        let mut connections = lock(&self.connections);
        if connections.all >= self.max_connections {
            return None;
        }
        connections.all += 1;
        Some(Admission { ledger: Arc::clone(self), network: None, is_web: false })
    }

    /// The budget of unauthenticated answers.
    pub(super) fn strangers(&self) -> Arc<Strangers> {
        Arc::clone(&self.strangers)
    }

    /// Draws `amount` bytes of the server's bandwidth of `rate` bytes a second.
    pub(super) fn draw(&self, now: Instant, rate: u64, amount: u64) -> bool {
        self.bandwidth.take(now, rate, amount)
    }

    /// Draws what connections have carried already; the moment when they may carry more, if they have to wait.
    pub(super) fn charge(&self, now: Instant, rate: u64, amount: u64) -> Option<Instant> {
        self.bandwidth.charge(now, rate, amount)
    }

    fn admit(self: &Arc<Self>, limits: &Limits, user: &str) -> Result<Claim<S>, BindError> {
        let mut accounts = lock(&self.accounts);
        if limits.allocations != 0 && accounts.allocations >= limits.allocations {
            return Err(BindError::Quota);
        }
        let has = accounts.by_user.get(user).copied().unwrap_or(0);
        if limits.allocations_per_user != 0 && has >= limits.allocations_per_user {
            return Err(BindError::Quota);
        }
        accounts.allocations += 1;
        accounts.by_user.insert(user.into(), has + 1);
        Ok(Claim { ledger: Arc::clone(self), user: Some(user.into()), port: None })
    }

    fn set_home(&self, local: SocketAddr, protocol: Protocol, home: Option<Home>) {
        if let Some(place) = self.place(local, protocol) {
            place.store(home.map_or(0, Home::pack), Ordering::Release);
        }
    }

    fn place(&self, local: SocketAddr, protocol: Protocol) -> Option<&AtomicU64> {
        let ports = self.live.iter().find(|ports| ports.address == local.ip() && ports.protocol == protocol)?;
        ports.homes.get(usize::from(local.port().checked_sub(ports.first)?))
    }
}

impl<S> Claim<S> {
    /// The relay address as clients and peers know it.
    pub(super) fn told(&self) -> Option<SocketAddr> {
        self.port.map(|(port, _)| SocketAddr::new(port.address.external, port.port))
    }

    /// Lets the other socket of the allocation stand for it in the account.
    pub(super) fn hand_account_to(&mut self, other: &mut Self) {
        if let Some(user) = self.user.take() {
            other.user = Some(user);
        }
    }
}

impl<S> Admission<S> {
    /// Counts the connection for the network of `from`; `false` when that has `limit` already.
    pub(super) fn name(&mut self, from: IpAddr, limit: u32) -> bool {
        let network = match from {
            IpAddr::V4(_) => from,
            IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
        };
        let mut connections = lock(&self.ledger.connections);
        let has = connections.by_network.get(&network).copied().unwrap_or(0);
        if has >= limit || self.network.is_some() {
            return false;
        }
        connections.by_network.insert(network, has + 1);
        self.network = Some(network);
        true
    }

    /// Lets the connection go on to the web server; `false` when half of all that may be do so already.
    pub(super) fn go_on(&mut self) -> bool {
        let mut connections = lock(&self.ledger.connections);
        if self.is_web || connections.web >= self.ledger.max_connections / 2 {
            return false;
        }
        connections.web += 1;
        self.is_web = true;
        true
    }
}

impl<S> Drop for Claim<S> {
    fn drop(&mut self) {
        if let Some((port, protocol)) = self.port {
            self.ledger.set_home(SocketAddr::new(port.address.local, port.port), protocol, None);
            lock(&self.ledger.ports).ports.give_back(crate::net::clock::now().mono, port);
        }
        let Some(user) = &self.user else { return };
        let mut accounts = lock(&self.ledger.accounts);
        accounts.allocations = accounts.allocations.saturating_sub(1);
        decrement(&mut accounts.by_user, user);
    }
}

impl<S> Drop for Admission<S> {
    fn drop(&mut self) {
        let mut connections = lock(&self.ledger.connections);
        connections.all = connections.all.saturating_sub(1);
        connections.web = connections.web.saturating_sub(self.is_web.into());
        if let Some(network) = &self.network {
            decrement(&mut connections.by_network, network);
        }
    }
}

fn decrement<K: std::hash::Hash + Eq + std::borrow::Borrow<Q>, Q: std::hash::Hash + Eq + ?Sized>(
    counts: &mut HashMap<K, u32>,
    key: &Q,
) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// The books are right after every statement, so a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{UnixSeconds, seconds};
    use crate::wire::stun::Family;
    use std::net::Ipv4Addr;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const TOKEN: Token = [9; 8];

    fn bind(want: Want) -> Bind {
        let relay = RelayId { index: 0, generation: 0 };
        let (family, protocol) = (Family::V4, Protocol::Udp);
        Bind { relay, family, also: None, protocol, want, user: "alice".into(), chance: [7; 32] }
    }

    #[test]
    fn a_socket_waits_on_the_second_port_of_a_pair_and_is_closed_when_nobody_comes() {
        let ledger = Arc::new(Ledger::new(&[RelayAddress { local: HOST, external: HOST }], 2..=3, 4, 1));
        let socket = Arc::new(());
        let at = |mono| Now { mono, unix: UnixSeconds(0) };
        let open = |_, _| Ok(Arc::clone(&socket));
        let now = Instant(0);
        let pair = ledger.claim(at(now), &Limits::default(), &bind(Want::Pair(TOKEN)), 0, open).unwrap();
        // One is held here, one by the allocation, one waits.
        assert_eq!((Arc::strong_count(&socket), ledger.ports().used), (3, 2));
        ledger.end_reservations(at(now + seconds(29)));
        assert_eq!((Arc::strong_count(&socket), ledger.ports().used), (3, 2));
        ledger.end_reservations(at(now + seconds(30)));
        assert_eq!((Arc::strong_count(&socket), ledger.ports().used), (2, 1));
        let late = ledger.claim(at(now + seconds(30)), &Limits::default(), &bind(Want::Reserved(TOKEN)), 0, open);
        assert_eq!(late.unwrap_err(), BindError::NoPort);
        drop(pair);
        assert_eq!((Arc::strong_count(&socket), ledger.ports().used), (1, 0));
    }

    #[test]
    fn a_pair_whose_second_port_another_program_has_leaves_nothing_behind() {
        let ledger = Arc::new(Ledger::new(&[RelayAddress { local: HOST, external: HOST }], 2..=3, 4, 1));
        let socket = Arc::new(());
        let now = Now { mono: Instant(0), unix: UnixSeconds(0) };
        let open = |_, purpose| match purpose {
            Purpose::Relay | Purpose::TakeOver => Ok(Arc::clone(&socket)),
            Purpose::Hold => Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
        };
        let pair = ledger.claim(now, &Limits::default(), &bind(Want::Pair(TOKEN)), 0, open);
        assert_eq!(pair.unwrap_err(), BindError::NoPort);
        assert_eq!((Arc::strong_count(&socket), ledger.ports().used), (1, 0));
    }
}
