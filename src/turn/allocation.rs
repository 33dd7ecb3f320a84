//! One allocation with its permissions and channels: the only owner of that state.
//!
//! Nothing else keeps a copy that can decide. A channel implies no more than its permission: both must be alive for
//! data to pass. A channel number and a peer that were bound rest for five minutes after their time, or a late packet
//! would reach the wrong party (RFC 8656 §12). Never reads a clock; expiry is exact at the moment of use, and a sweep
//! only gives memory back.
#![forbid(unsafe_code)]

use super::limits::Bucket;
use super::peers::{Destination, Peers};
use super::ports::Token;
use super::{Bound, Path, Session, Usage, is_over};
use crate::time::{Duration, Instant, Now, UnixSeconds, minutes};
use crate::wire::channel::ChannelNumber;
use crate::wire::integrity::Key;
use crate::wire::stun::{Family, TransactionId};
use core::net::{IpAddr, SocketAddr};

/// RFC 8656 §9: exactly 300 seconds.
pub(super) const PERMISSION_LIFETIME: Duration = minutes(5);
/// RFC 8656 §12: exactly 600 seconds.
pub(super) const CHANNEL_LIFETIME: Duration = minutes(10);
/// RFC 8656 §12: how long a number or a peer whose binding ran out means nobody else.
pub(super) const CHANNEL_REST: Duration = minutes(5);

/// Everything about one allocation.
#[derive(Debug)]
pub(super) struct Allocation {
    /// The client, and the way back to it.
    pub(super) path: Path,
    /// Whose it is: the whole user name of the credential.
    pub(super) user: Box<str>,
    /// What kind of name that is.
    pub(super) identity: Identity,
    /// What its requests are signed with.
    pub(super) key: Key,
    /// The family of the relay address.
    pub(super) family: Family,
    /// The relay socket; `None` until the shell has made it.
    pub(super) bound: Option<Bound>,
    /// The Allocate that made it: the same again gets the same answer (RFC 8656 §7.2).
    pub(super) transaction: TransactionId,
    /// Whether that request had a FINGERPRINT.
    pub(super) fingerprint: bool,
    /// The token of the port held back with EVEN-PORT.
    pub(super) token: Option<Token>,
    /// The lifetime to be granted once the socket exists.
    pub(super) lifetime: Duration,
    pub(super) born: Instant,
    pub(super) expires: Instant,
    pub(super) usage: Usage,
    /// Bandwidth from the client.
    pub(super) upward: Bucket,
    /// Bandwidth to the client.
    pub(super) downward: Bucket,
    permissions: Vec<Permission>,
    /// In the order of their numbers.
    channels: Vec<Channel>,
}

/// Who a user name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// A user of the configuration.
    Static,
    /// The holder of a time-limited credential.
    TimeLimited {
        /// When the credential ends.
        expires: UnixSeconds,
    },
}

/// A peer address that may speak to the client and be spoken to.
#[derive(Clone, Copy, Debug)]
struct Permission {
    ip: IpAddr,
    expires: Instant,
}

/// A number that stands for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Channel {
    pub(super) number: ChannelNumber,
    pub(super) peer: SocketAddr,
    /// What kind of place the peer is, by the rules in force.
    pub(super) destination: Destination,
    pub(super) expires: Instant,
}

/// Why a table does not take another entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableError {
    /// The number means another peer, or the peer has another number.
    Taken,
    /// The table is full.
    Full,
}

/// Entries that went away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    pub(super) permissions: u64,
    pub(super) channels: u64,
}

impl Allocation {
    /// A new allocation without a socket, permissions or channels.
    pub(super) fn new(path: Path, user: &str, identity: Identity, key: Key, now: Now) -> Self {
        Self {
            path,
            user: user.into(),
            identity,
            key,
            family: Family::V4,
            bound: None,
            transaction: [0; 12],
            fingerprint: false,
            token: None,
            lifetime: Duration::ZERO,
            born: now.mono,
            expires: now.mono,
            usage: Usage::default(),
            upward: Bucket::default(),
            downward: Bucket::default(),
            permissions: Vec::new(),
            channels: Vec::new(),
        }
    }

    /// The relay address as clients know it.
    pub(super) fn relayed(&self) -> Option<SocketAddr> {
        self.bound.map(|bound| SocketAddr::new(bound.address.external, bound.port))
    }

    /// What an operator is shown.
    pub(super) fn session(&self) -> Session {
        let unbound = match self.family {
            Family::V4 => SocketAddr::from(([0; 4], 0)),
            Family::V6 => SocketAddr::from(([0; 16], 0)),
        };
        Session { user: self.user.clone(), path: self.path, relay: self.relayed().unwrap_or(unbound) }
    }

    /// Whether `ip` has a live permission.
    pub(super) fn permits(&self, ip: IpAddr, now: Now) -> bool {
        self.permissions.iter().any(|permission| permission.ip == ip && !is_over(permission.expires, now))
    }

    /// The live channel of this number.
    pub(super) fn channel(&self, number: ChannelNumber, now: Now) -> Option<&Channel> {
        let at = self.channels.binary_search_by_key(&number, |channel| channel.number).ok()?;
        self.channels.get(at).filter(|channel| !is_over(channel.expires, now))
    }

    /// The live channel bound to this peer.
    pub(super) fn channel_to(&self, peer: SocketAddr, now: Now) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.peer == peer).filter(|channel| !is_over(channel.expires, now))
    }

    /// How many entries the permission table would have with `ips` added.
    pub(super) fn permissions_with(&self, ips: impl Iterator<Item = IpAddr> + Clone) -> usize {
        let is_new = |(at, ip): &(usize, IpAddr)| {
            let is_first = !ips.clone().take(*at).any(|earlier| earlier == *ip);
            is_first && !self.permissions.iter().any(|permission| permission.ip == *ip)
        };
        self.permissions.len() + ips.clone().enumerate().filter(is_new).count()
    }

    /// Installs or refreshes a permission for 300 s. Returns whether it is a new entry.
    pub(super) fn permit(&mut self, ip: IpAddr, now: Now) -> bool {
        let expires = now.mono + PERMISSION_LIFETIME;
        if let Some(permission) = self.permissions.iter_mut().find(|permission| permission.ip == ip) {
            permission.expires = expires;
            return false;
        }
        self.permissions.push(Permission { ip, expires });
        true
    }

    /// Binds or refreshes a channel for 600 s. Returns whether it is a new entry.
    pub(super) fn bind(&mut self, wanted: Channel, limit: usize, now: Now) -> Result<bool, TableError> {
        let is_taken = |channel: &&mut Channel| channel.number == wanted.number || channel.peer == wanted.peer;
        let expires = now.mono + CHANNEL_LIFETIME;
        let mut taken = self.channels.iter_mut().filter(is_taken);
        match (taken.next(), taken.next()) {
            (None, _) => {}
            (Some(channel), None) if channel.number == wanted.number && channel.peer == wanted.peer => {
                *channel = Channel { expires, ..wanted };
                return Ok(false);
            }
            _ => return Err(TableError::Taken),
        }
        if self.channels.len() >= limit {
            return Err(TableError::Full);
        }
        let at = self.channels.partition_point(|channel| channel.number < wanted.number);
        self.channels.insert(at, Channel { expires, ..wanted });
        Ok(true)
    }

    /// Removes what is over: permissions at their expiry, channels after their rest.
    pub(super) fn sweep(&mut self, now: Now) -> Swept {
        let before = self.entries();
        self.permissions.retain(|permission| !is_over(permission.expires, now));
        self.channels.retain(|channel| !is_over(channel.expires + CHANNEL_REST, now));
        self.since(before)
    }

    /// Removes what the rules no longer permit.
    pub(super) fn vet_again(&mut self, peers: &Peers) -> Swept {
        let before = self.entries();
        self.permissions.retain(|permission| peers.vet_address(permission.ip));
        self.channels.retain_mut(|channel| match peers.vet(channel.peer) {
            Some(destination) => {
                channel.destination = destination;
                true
            }
            None => false,
        });
        self.since(before)
    }

    /// How many permissions and channels there are, those included that a sweep will take.
    pub(super) fn entries(&self) -> Swept {
        Swept { permissions: self.permissions.len() as u64, channels: self.channels.len() as u64 }
    }

    /// When something here is over next.
    pub(super) fn deadline(&self) -> Instant {
        let permissions = self.permissions.iter().map(|permission| permission.expires);
        let channels = self.channels.iter().map(|channel| channel.expires + CHANNEL_REST);
        permissions.chain(channels).fold(self.expires, Instant::min)
    }

    fn since(&self, before: Swept) -> Swept {
        let after = self.entries();
        Swept { permissions: before.permissions - after.permissions, channels: before.channels - after.channels }
    }
}
