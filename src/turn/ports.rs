//! Which relay ports are whose.
//!
//! Owns the free, used, resting and reserved ports of every relay address. A port is drawn by chance from all free
//! ones (RFC 6056), in constant time however full the range is; EVEN-PORT may have to search. A port just released
//! rests, so that a late packet of the last owner's peer finds nobody; it is drawn early only when nothing else will do.
//! Never binds a socket, never reads a clock.
#![forbid(unsafe_code)]

use super::peers::RelayAddress;
use crate::time::{Duration, Instant, seconds};
use crate::wire::integrity::equal;
use crate::wire::stun::Family;
use core::ops::RangeInclusive;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::VecDeque;

/// How long a released port is left alone while others are free.
const REST: Duration = seconds(30);
/// How long EVEN-PORT's second port is held (RFC 8656 §7.2: at least 30 s).
const RESERVATION: Duration = seconds(30);
/// Reservations held at once, by all users and by one: whoever reserves in a loop must leave ports for the others.
const MAX_RESERVATIONS: usize = 4096;
const MAX_RESERVATIONS_OF_ONE: usize = 256;

/// A RESERVATION-TOKEN (RFC 8656 §18.10).
pub type Token = [u8; 8];

/// Which port is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Any.
    Any,
    /// An even one (EVEN-PORT, R = 0).
    Even,
    /// An even one, and the next held back for whoever shows the token (EVEN-PORT, R = 1).
    Pair(Token),
    /// The one held back for this token.
    Reserved(Token),
}

/// A port taken, to be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// On which address.
    pub address: RelayAddress,
    /// Which port.
    pub port: u16,
    pool: usize,
}

/// The relay ports of a server.
#[derive(Debug)]
pub struct Ports {
    pools: Vec<Pool>,
    reservations: Vec<Reservation>,
}

#[derive(Debug)]
struct Pool {
    address: RelayAddress,
    first: u16,
    /// Free ports in no order.
    free: Vec<u16>,
    /// Where in `free` a port stands, by port - `first`; `NOWHERE` when it is not free.
    place: Vec<u32>,
    /// Released ports, oldest first.
    resting: VecDeque<(u16, Instant)>,
    used: u32,
}

#[derive(Debug)]
struct Reservation {
    token: Token,
    user: Box<str>,
    claim: Claim,
    expires: Instant,
}

const NOWHERE: u32 = u32::MAX;

impl Ports {
    /// All ports of `range` on each of `addresses`, all free.
    pub fn new(addresses: &[RelayAddress], range: RangeInclusive<u16>) -> Self {
        let pool = |address: &RelayAddress| {
            let free: Vec<u16> = range.clone().collect();
            let place = (0..free.len() as u32).collect();
            Pool { address: *address, first: *range.start(), free, place, resting: VecDeque::new(), used: 0 }
        };
        Self { pools: addresses.iter().map(pool).collect(), reservations: Vec::new() }
    }

    /// Takes a port for `user`. `None` when none is to be had.
    pub fn take(&mut self, now: Instant, family: Family, want: Want, user: &str, chance: [u8; 32]) -> Option<Claim> {
        self.end_reservations(now);
        if let Want::Reserved(token) = want {
            let held = self.reservations.iter().position(|held| equal(&held.token, &token) && *held.user == *user)?;
            return Some(self.reservations.swap_remove(held).claim);
        }
        let mut rng = ChaCha12Rng::from_seed(chance);
        let of_family = self.pools.iter().filter(|pool| Family::of(pool.address.local) == family).count();
        if of_family == 0 {
            return None;
        }
        let start = below(&mut rng, of_family);
        let indices: Vec<usize> =
            (0..self.pools.len()).filter(|at| Family::of(self.pools[*at].address.local) == family).collect();
        for step in 0..of_family {
            let index = indices[(start + step) % of_family];
            if let Some(port) = self.take_from(index, now, want, user, &mut rng) {
                return Some(Claim { address: self.pools[index].address, port, pool: index });
            }
        }
        None
    }

    /// Gives a port back; it rests for a while.
    pub fn give_back(&mut self, now: Instant, claim: Claim) {
        if let Some(pool) = self.pools.get_mut(claim.pool) {
            pool.used = pool.used.saturating_sub(1);
            pool.resting.push_back((claim.port, now + REST));
        }
    }

    /// Gives back what was held for a token that nobody will hear of.
    pub fn cancel(&mut self, token: Token) {
        for held in self.reservations.extract_if(.., |held| equal(&held.token, &token)) {
            if let Some(pool) = self.pools.get_mut(held.claim.pool) {
                pool.release(held.claim.port);
            }
        }
    }

    /// Gives back what was held for tokens whose time is over, and returns those. [`Self::take`] does the same first.
    pub fn end_reservations(&mut self, now: Instant) -> Vec<Token> {
        let ended = self.reservations.extract_if(.., |held| held.expires <= now).map(|held| {
            if let Some(pool) = self.pools.get_mut(held.claim.pool) {
                pool.release(held.claim.port);
            }
            held.token
        });
        ended.collect()
    }

    /// How many ports are not taken, over all addresses.
    pub fn free(&self) -> u64 {
        self.pools.iter().map(|pool| (pool.free.len() + pool.resting.len()) as u64).sum()
    }

    /// How many ports are taken or reserved, over all addresses.
    pub fn used(&self) -> u64 {
        self.pools.iter().map(|pool| u64::from(pool.used)).sum()
    }

    fn take_from(&mut self, index: usize, now: Instant, want: Want, user: &str, rng: &mut ChaCha12Rng) -> Option<u16> {
        let pool = &mut self.pools[index];
        let fits = |pool: &Pool, port: u16| match want {
            Want::Any => true,
            Want::Even | Want::Reserved(_) => port.is_multiple_of(2),
            Want::Pair(_) => port.is_multiple_of(2) && port.checked_add(1).is_some_and(|next| pool.is_free(next)),
        };
        if matches!(want, Want::Pair(_)) {
            let of_user = self.reservations.iter().filter(|held| *held.user == *user).count();
            if self.reservations.len() >= MAX_RESERVATIONS || of_user >= MAX_RESERVATIONS_OF_ONE {
                return None;
            }
        }
        pool.wake(now);
        let port = pool.draw(rng, fits).or_else(|| {
            pool.wake_until(|pool, port| pool.is_free(port) && fits(pool, port));
            pool.draw(rng, fits)
        })?;
        if let Want::Pair(token) = want {
            let next = port + 1;
            pool.remove(next);
            let claim = Claim { address: pool.address, port: next, pool: index };
            self.reservations.push(Reservation { token, user: user.into(), claim, expires: now + RESERVATION });
        }
        Some(port)
    }
}

impl Pool {
    /// Ends the rest of the ports whose time is over.
    fn wake(&mut self, now: Instant) {
        while let Some((port, until)) = self.resting.front().copied() {
            if until > now {
                break;
            }
            self.resting.pop_front();
            self.insert(port);
        }
    }

    /// Ends the rest of one port after the other, oldest first, until one of them, or the even one before it, will do.
    fn wake_until(&mut self, will_do: impl Fn(&Self, u16) -> bool) {
        while let Some((port, _)) = self.resting.pop_front() {
            self.insert(port);
            if will_do(self, port) || will_do(self, port & !1) {
                break;
            }
        }
    }

    /// Draws one free port that `fits`, each with equal chance.
    fn draw(&mut self, rng: &mut ChaCha12Rng, fits: impl Fn(&Self, u16) -> bool) -> Option<u16> {
        let count = self.free.len();
        if count == 0 {
            return None;
        }
        let start = below(rng, count);
        let port = (0..count).map(|step| self.free[(start + step) % count]).find(|port| fits(self, *port))?;
        self.remove(port);
        Some(port)
    }

    fn is_free(&self, port: u16) -> bool {
        let at = port.checked_sub(self.first).map(usize::from);
        at.and_then(|at| self.place.get(at)).is_some_and(|place| *place != NOWHERE)
    }

    fn insert(&mut self, port: u16) {
        self.place[usize::from(port - self.first)] = self.free.len() as u32;
        self.free.push(port);
    }

    fn remove(&mut self, port: u16) {
        let place = core::mem::replace(&mut self.place[usize::from(port - self.first)], NOWHERE);
        self.free.swap_remove(place as usize);
        if let Some(moved) = self.free.get(place as usize) {
            self.place[usize::from(*moved - self.first)] = place;
        }
        self.used += 1;
    }

    fn release(&mut self, port: u16) {
        self.used = self.used.saturating_sub(1);
        self.insert(port);
    }
}

/// A number below `bound`, each with the same chance to within 2^-32.
fn below(rng: &mut ChaCha12Rng, bound: usize) -> usize {
    (rng.next_u64() % bound.max(1) as u64) as usize
}
