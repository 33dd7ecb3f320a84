//! What the workers share: who has how many allocations and connections, which relay ports are whose, and the
//! server's bandwidth. A dual allocation has two sockets and counts once.
//!
//! Locks are taken when an allocation or a connection begins or ends, never per packet; a packet reads one number
//! ([`Ledger::home`]) and only when it goes between two of our own relay ports. Every claim gives itself back; the
//! second port of a pair belongs to a token by then, and [`Ledger::cancel`] gives that back.
#![forbid(unsafe_code)]

use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::time::{Instant, Now};
use crate::turn::Bind;
use crate::turn::BindError;
use crate::turn::limits::{SharedBucket, Strangers};
use crate::turn::peers::RelayAddress;
use crate::turn::policy::Limits;
use crate::turn::ports::{self, Ports, Want};
use crate::turn::{Protocol, RelayId};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, PoisonError};

/// The shared books of a server.
#[derive(Debug)]
pub(super) struct Ledger {
    ports: Mutex<Ports>,
    accounts: Mutex<Accounts>,
    connections: Mutex<Connections>,
    /// Connections of all networks together: half of the open files, so that relay sockets always find some. Half of
    /// them may go on to the web server behind us, and take a second file each.
    max_connections: u64,
    live: Vec<LivePorts>,
    bandwidth: SharedBucket,
    strangers: Arc<Strangers>,
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
pub(super) struct Claim {
    ledger: Arc<Ledger>,
    /// Whose allocation is counted; the second socket of a dual one is not.
    user: Option<Box<str>>,
    /// The port, once there is one.
    port: Option<(ports::Claim, Protocol)>,
}

/// A connection's place in the books; dropping it clears the place.
#[derive(Debug)]
pub(super) struct Admission {
    ledger: Arc<Ledger>,
    /// Not known while a proxy has not said whose it is.
    network: Option<IpAddr>,
    is_web: bool,
}

/// Ports tried for one allocation when other programs sit in the range.
const ATTEMPTS: usize = 16;

impl Ledger {
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
            ports: Mutex::new(Ports::new(addresses, range)),
            accounts: Mutex::default(),
            connections: Mutex::default(),
            max_connections: files / 2,
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

    /// How the relay ports are used now.
    pub(super) fn ports(&self) -> PortUse {
        let ports = lock(&self.ports);
        PortUse { free: ports.free(), used: ports.used() }
    }

    /// Books an allocation of `worker`: the quota first, then ports, until `open` makes a socket on one.
    pub(super) fn claim<S>(
        self: &Arc<Self>,
        now: Now,
        limits: &Limits,
        bind: &Bind,
        worker: u8,
        open: impl FnMut(SocketAddr) -> std::io::Result<S>,
    ) -> Result<(Claim, ports::Claim, S), BindError> {
        let claim = self.admit(limits, &bind.user)?;
        self.claim_port(now, claim, bind, worker, open)
    }

    /// Books the second socket of an allocation that is counted already.
    pub(super) fn claim_second<S>(
        self: &Arc<Self>,
        now: Now,
        bind: &Bind,
        worker: u8,
        open: impl FnMut(SocketAddr) -> std::io::Result<S>,
    ) -> Result<(Claim, ports::Claim, S), BindError> {
        let claim = Claim { ledger: Arc::clone(self), user: None, port: None };
        self.claim_port(now, claim, bind, worker, open)
    }

    fn claim_port<S>(
        &self,
        now: Now,
        mut claim: Claim,
        bind: &Bind,
        worker: u8,
        mut open: impl FnMut(SocketAddr) -> std::io::Result<S>,
    ) -> Result<(Claim, ports::Claim, S), BindError> {
        let mut chance = bind.chance;
        for attempt in 0..ATTEMPTS {
            chance[0] = chance[0].wrapping_add(attempt as u8);
            let taken = lock(&self.ports).take(now.mono, bind.family, bind.want, &bind.user, chance);
            let taken = taken.ok_or(BindError::NoPort)?;
            let address = SocketAddr::new(taken.address.local, taken.port);
            match open(address) {
                Ok(socket) => {
                    claim.port = Some((taken, bind.protocol));
                    self.set_home(address, bind.protocol, Some(Home { worker, relay: bind.relay }));
                    return Ok((claim, taken, socket));
                }
                Err(error) => {
                    lock(&self.ports).give_back(now.mono, taken);
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

    /// Gives back the second port of a pair whose first could not be used.
    pub(super) fn cancel(&self, want: Want) {
        if let Want::Pair(token) = want {
            lock(&self.ports).cancel(token);
        }
    }

    /// Books a connection from `from`; `None` when its network, or all together, have as many as permitted.
    pub(super) fn connect(self: &Arc<Self>, from: IpAddr, limit: u32) -> Option<Admission> {
        let mut admission = self.connect_unnamed()?;
        admission.name(from, limit).then_some(admission)
    }

    /// Books a connection that a proxy makes for somebody; `None` when all together have as many as permitted.
    pub(super) fn connect_unnamed(self: &Arc<Self>) -> Option<Admission> {
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

    fn admit(self: &Arc<Self>, limits: &Limits, user: &str) -> Result<Claim, BindError> {
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

impl Claim {
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

impl Admission {
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

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some((port, protocol)) = self.port {
            self.ledger.set_home(SocketAddr::new(port.address.local, port.port), protocol, None);
            lock(&self.ledger.ports).give_back(crate::net::clock::now().mono, port);
        }
        let Some(user) = &self.user else { return };
        let mut accounts = lock(&self.ledger.accounts);
        accounts.allocations = accounts.allocations.saturating_sub(1);
        decrement(&mut accounts.by_user, user);
    }
}

impl Drop for Admission {
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
