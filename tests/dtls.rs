//! Clients over DTLS: the workers on loopback, without configuration or control side, and clients that nobody here
//! wrote beside one whose every datagram the test holds in its hand.

#![cfg(feature = "server")]
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a story that cannot go on ends there")]

#[path = "dtls/client.rs"]
mod client;
#[path = "dtls/doubt.rs"]
mod doubt;
#[path = "dtls/life.rs"]
mod life;
#[path = "dtls/programs.rs"]
mod programs;
#[path = "support/skip.rs"]
mod skip;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;
use turnserver::net::dtls::{Identity, Shared};
use turnserver::turn::peers::{Own, Peers, RelayAddress};
use turnserver::turn::policy::{Policy, UserKeys};
use turnserver::turn::refusal::Dropped;
use turnserver::turn::tally::{Tally, Transport};
use turnserver::wire::integrity::Key;
use turnserver::wire::stun::Family;
use turnserver::worker::{self, Handle, Setup};

pub(crate) const REALM: &str = "example.org";
/// Ports the system gives to nobody who asks for any: the clients of a test sit elsewhere.
const RELAY_PORTS: std::ops::RangeInclusive<u16> = 61_000..=65_535;

/// Workers with one DTLS listener, and one user `u` with password `p`.
pub(crate) struct Server {
    handle: Option<Handle>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) address: SocketAddr,
    /// The certificate that clients are shown at first.
    pub(crate) certificate: Vec<u8>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with("127.0.0.1:0", |_| ())
    }

    pub(crate) fn with(listen: &str, change: impl FnOnce(&mut Policy)) -> Self {
        let (identity, certificate) = identity("one.example.org");
        let shared = Arc::new(Shared::new(identity).unwrap());
        let mut policy = policy();
        change(&mut policy);
        let handle = worker::start(Setup {
            freebind: false,
            entry: worker::Entry::default(),
            certificates: None,
            listeners: vec![(Transport::Dtls, listen.parse().unwrap())],
            workers: 1,
            policy: Arc::new(policy),
            dtls: Some(Arc::clone(&shared)),
        });
        let handle = handle.unwrap();
        let mut address = handle.listeners()[0].1;
        if address.ip().is_unspecified() {
            address.set_ip("127.0.0.1".parse().unwrap());
        }
        Self { handle: Some(handle), shared, address, certificate }
    }

    fn tally(&self) -> &Tally {
        &self.handle.as_ref().unwrap().tallies()[0]
    }

    pub(crate) fn associations(&self) -> u64 {
        self.tally().connections[Transport::Dtls as usize].get()
    }

    pub(crate) fn allocations(&self) -> u64 {
        self.tally().allocations_of(Transport::Dtls, Family::V4).get()
    }

    pub(crate) fn dropped(&self, why: Dropped) -> u64 {
        self.tally().dropped[why as usize].get()
    }

    pub(crate) fn limited_connections(&self) -> u64 {
        self.tally().limited_connections.get()
    }

    /// Ends the workers in good order, as a drop does.
    pub(crate) fn stop(mut self) {
        self.handle.take().unwrap().stop();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.stop();
        }
    }
}

/// A fresh certificate and key for `name`.
pub(crate) fn identity(name: &str) -> (Identity, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let certificate = made.cert.der().to_vec();
    let identity = Identity::new(vec![certificate.clone()], made.signing_key.serialized_der()).unwrap();
    (identity, certificate)
}

fn policy() -> Policy {
    let loopback = "127.0.0.1".parse().unwrap();
    let relays = vec![RelayAddress { local: loopback, external: loopback }];
    let own = Own { relays: relays.clone(), relay_ports: RELAY_PORTS, ..Own::default() };
    let peers = Peers::new(&["127.0.0.0/8".parse().unwrap()], &[], true, own);
    let mut policy = Policy { realm: REALM.into(), peers, relays, ..Policy::default() };
    let keys = UserKeys { md5: Some(Key::md5("u", REALM, "p")), sha256: None };
    policy.auth.users.insert("u".into(), keys);
    policy.limits.connections_per_ip = 10_000;
    policy
}

/// Waits until `is_true`, and fails when that takes very long.
#[track_caller]
pub(crate) fn until(what: &str, is_true: impl Fn() -> bool) {
    for _ in 0..1500 {
        if is_true() {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    panic!("it never came that {what}");
}
