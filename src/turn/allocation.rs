//! One allocation with its permissions and channels: the only owner of that state.
//!
//! Nothing else keeps a copy that can decide. A channel implies no more than its permission: both must be alive for
//! data to pass. A channel number and a peer that were bound rest for five minutes after their time, or a late packet
//! would reach the wrong party (RFC 8656 §12). Never reads a clock; expiry is exact at the moment of use, and a sweep
//! only gives memory back.
#![forbid(unsafe_code)]

use super::auth::Asker;
use super::limits::Bucket;
use super::peers::{Destination, Peers};
use super::ports::Token;
use super::streams::Streams;
use super::{BindError, Bound, FiveTuple, Path, Session, Usage, is_over};
use crate::time::{Duration, Instant, Now, UnixSeconds, minutes};
use crate::wire::channel::ChannelNumber;
use crate::wire::integrity::{Algorithm, Key, PasswordAlgorithm, equal};
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
    /// What made that key.
    pub(super) hash: PasswordAlgorithm,
    /// What it relays: datagrams, or connections (RFC 6062).
    pub(super) protocol: Protocol,
    /// Its relay addresses, by family: none until the shell has made the socket, two for a dual allocation.
    legs: [Option<Leg>; 2],
    /// Under which family the gauge counts it, once it lives.
    pub(super) counted: Option<Family>,
    /// The Allocate that made it: the same again gets the same answer (RFC 8656 §7.2).
    pub(super) asked: Asked,
    /// The token of the port held back with EVEN-PORT.
    pub(super) token: Option<Token>,
    /// The lifetime to be granted once the socket exists.
    pub(super) lifetime: Duration,
    pub(super) born: Instant,
    pub(super) usage: Usage,
    /// Connections to and from peers (RFC 6062).
    pub(super) streams: Streams,
    /// What lets it move to another path (RFC 8016).
    pub(super) mobility: Option<Box<Mobility>>,
    /// Bandwidth from the client.
    pub(super) upward: Bucket,
    /// Bandwidth to the client.
    pub(super) downward: Bucket,
    permissions: Vec<Permission>,
    /// In the order of their numbers.
    channels: Vec<Channel>,
}

/// What an allocation relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Datagrams.
    Udp,
    /// Connections (RFC 6062).
    Tcp,
}

/// One relay address of an allocation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leg {
    pub(super) bound: Bound,
    pub(super) expires: Instant,
}

/// What has to be remembered of an Allocate to answer it later, or again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) transaction: TransactionId,
    /// Whether it had a FINGERPRINT.
    pub(super) fingerprint: bool,
    /// What the answer is signed with.
    pub(super) integrity: Algorithm,
    /// The family that was wished for as well, and how the attribute was numbered.
    pub(super) also: Option<Also>,
    /// What became of that wish, when it failed.
    pub(super) also_failed: Option<BindError>,
}

/// ADDITIONAL-ADDRESS-FAMILY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Also {
    /// Whether the client uses the number of the drafts.
    pub(super) is_draft: bool,
}

/// The state of an allocation that may move (RFC 8016).
#[derive(Clone, Debug)]
pub(super) struct Mobility {
    /// The last ticket made is the only one that opens.
    pub(super) serial: u32,
    /// The path that has shown the last ticket but one, and with which request. Data from there, or a request, ends the
    /// old path.
    pub(super) next: Option<(Path, TransactionId)>,
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
    /// The bearer of an access token (RFC 7635).
    Token {
        /// When the token ends.
        expires: UnixSeconds,
    },
}

impl Identity {
    /// Whether the time of the credential is over.
    pub(super) fn is_over(self, now: Now) -> bool {
        match self {
            Self::Static => false,
            Self::TimeLimited { expires } | Self::Token { expires } => expires <= now.unix,
        }
    }
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
    pub(super) fn new(path: Path, asker: &Asker<'_>, protocol: Protocol, asked: Asked, now: Now) -> Self {
        Self {
            path,
            user: (*asker.username).into(),
            identity: asker.identity,
            key: asker.key.clone(),
            hash: asker.hash,
            protocol,
            legs: [None; 2],
            counted: None,
            asked,
            token: None,
            lifetime: Duration::ZERO,
            born: now.mono,
            usage: Usage::default(),
            streams: Streams::default(),
            mobility: None,
            upward: Bucket::default(),
            downward: Bucket::default(),
            permissions: Vec::new(),
            channels: Vec::new(),
        }
    }

    /// Gives it a relay address.
    pub(super) fn add_leg(&mut self, bound: Bound, expires: Instant) {
        self.legs[Family::of(bound.address.local) as usize] = Some(Leg { bound, expires });
    }

    /// Takes the relay address of this family away, with all that depends on it.
    pub(super) fn remove_leg(&mut self, family: Family) -> Swept {
        self.legs[family as usize] = None;
        let before = self.entries();
        self.permissions.retain(|permission| Family::of(permission.ip) != family);
        self.channels.retain(|channel| Family::of(channel.peer.ip()) != family);
        self.since(before)
    }

    /// The relay addresses: IPv4 before IPv6.
    pub(super) fn legs(&self) -> impl Iterator<Item = &Leg> {
        self.legs.iter().flatten()
    }

    /// The live relay address of this family.
    pub(super) fn leg(&self, family: Family, now: Now) -> Option<&Leg> {
        self.legs[family as usize].as_ref().filter(|leg| !is_over(leg.expires, now))
    }

    /// Whether it has a relay address of this family, its time over or not.
    pub(super) fn has_leg(&self, family: Family) -> bool {
        self.legs[family as usize].is_some()
    }

    /// Makes the relay addresses, or the one of `family`, live until `expires`.
    pub(super) fn extend(&mut self, family: Option<Family>, expires: Instant) {
        let is_meant = |leg: &&mut Leg| family.is_none_or(|family| Family::of(leg.bound.address.local) == family);
        self.legs.iter_mut().flatten().filter(is_meant).for_each(|leg| leg.expires = expires);
    }

    /// Whether the client moves to this path and has not spoken there yet.
    pub(super) fn is_moving_to(&self, tuple: &FiveTuple) -> bool {
        let next = self.mobility.as_deref().and_then(|mobility| mobility.next.as_ref());
        next.is_some_and(|(path, _)| path.tuple == *tuple)
    }

    /// Whether the asker, who comes on another path, is who made it. All bearers of tokens from one authorisation server
    /// have the same user name, the id of the key that sealed them (RFC 7635 §4): the key inside tells them apart.
    pub(super) fn is_of(&self, asker: &Asker<'_>) -> bool {
        match self.identity {
            Identity::Token { .. } => equal(self.key.expose(), asker.key.expose()),
            Identity::Static | Identity::TimeLimited { .. } => *self.user == *asker.username,
        }
    }

    /// Whether the shell has made its socket.
    pub(super) fn is_bound(&self) -> bool {
        self.legs().next().is_some()
    }

    /// Whether nothing of it lives any more.
    pub(super) fn is_over(&self, now: Now) -> bool {
        self.legs().all(|leg| is_over(leg.expires, now))
    }

    /// When the last of it ends; its birth while there is no socket.
    pub(super) fn expires(&self) -> Instant {
        self.legs().map(|leg| leg.expires).max().unwrap_or(self.born)
    }

    /// What an operator is shown.
    pub(super) fn session(&self) -> Session {
        let mut relays = self.legs().map(|leg| leg.bound.told());
        let unbound = SocketAddr::from(([0; 4], 0));
        let relay = relays.next().unwrap_or(unbound);
        Session { user: self.user.clone(), path: self.path, relay, second_relay: relays.next() }
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
        let legs = self.legs().map(|leg| leg.expires);
        let first = permissions.chain(channels).chain(legs).chain(self.streams.deadline()).min();
        first.unwrap_or(self.born)
    }

    fn since(&self, before: Swept) -> Swept {
        let after = self.entries();
        Swept { permissions: before.permissions - after.permissions, channels: before.channels - after.channels }
    }
}
