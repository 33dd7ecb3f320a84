//! What the auditor keeps of one server: allocations as their clients know them, and what each owes of its bandwidth.

use super::*;

impl Held {
    pub(super) fn leg(&self, family: Family, now: Now) -> Option<&Leg> {
        self.legs.iter().find(|leg| Family::of(leg.told.ip()) == family && leg.expires > now.mono)
    }

    pub(super) fn is_over(&self, now: Now) -> bool {
        self.legs.iter().all(|leg| leg.expires <= now.mono)
    }

    pub(super) fn permits(&self, ip: IpAddr, now: Now) -> bool {
        self.permissions.get(&ip).is_some_and(|expires| *expires > now.mono)
    }

    pub(super) fn channel_to(&self, peer: SocketAddr, now: Now) -> Option<u16> {
        let alive = |(_, (to, expires)): &(&u16, &(SocketAddr, Instant))| *to == peer && *expires > now.mono;
        self.channels.iter().find(alive).map(|(number, _)| *number)
    }

    /// What a family that ends takes along.
    pub(super) fn loses(&mut self, family: Family) {
        self.legs.retain(|leg| Family::of(leg.told.ip()) != family);
        self.permissions.retain(|ip, _| Family::of(*ip) != family);
        self.channels.retain(|_, (peer, _)| Family::of(peer.ip()) != family);
    }

    pub(super) fn is_on(&self, tuple: &FiveTuple) -> bool {
        (!self.is_adrift && self.path.tuple == *tuple) || self.next.is_some_and(|(path, _)| path.tuple == *tuple)
    }

    pub(super) fn sweeps(&mut self, now: Now) {
        self.permissions.retain(|_, expires| *expires > now.mono);
        self.channels.retain(|_, (_, expires)| *expires + REST > now.mono);
    }
}

/// What one direction of a limited allocation has carried beyond its rate, as the time until it is paid.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Debt(Instant);

/// What rounding may explain.
const SLACK: Duration = Duration::from_micros(1);

impl Debt {
    pub(super) fn cost(rate: u64, bytes: u64) -> Duration {
        Duration::from_nanos((u128::from(bytes) * 1_000_000_000 / u128::from(rate)) as u64)
    }

    /// Whether so many bytes may be too many: a second's worth is lent, and anything to whoever owes nothing.
    pub(super) fn is_too_high(&self, now: Now, rate: u64, bytes: u64) -> bool {
        let owed = self.0.since(now.mono);
        owed + SLACK > SLACK && owed + Self::cost(rate, bytes) + SLACK > seconds(1)
    }

    /// Books so many bytes; `false` when they were too many.
    pub(super) fn lends(&mut self, now: Now, rate: u64, bytes: u64) -> bool {
        let owed = self.0.since(now.mono);
        let cost = Self::cost(rate, bytes);
        self.0 = now.mono + owed + cost;
        owed <= SLACK || owed + cost <= seconds(1) + SLACK
    }
}

impl Books {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            held: BTreeMap::new(),
            strangers: VecDeque::new(),
            relayed: Usage::default(),
            drops: 0,
            asleep_until: Instant(0),
            nonces_vary_until: Instant(0),
            usage_of_ended: Usage::default(),
        }
    }

    pub(super) fn on(&self, tuple: &FiveTuple, now: Now) -> Option<(&Id, &Held)> {
        self.held.iter().find(|(_, held)| held.is_on(tuple) && !held.is_over(now))
    }

    /// Whether a peer may be relayed to, as the documentation says it. `None`: some port of that host may.
    pub(super) fn permits(&self, ip: IpAddr, port: Option<u16>) -> bool {
        let rules = &self.rules;
        let is_relay = rules.relays.iter().any(|relay| relay.local == ip || relay.external == ip);
        let (never, special) = match ip {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                let never = ip.is_unspecified() || ip.is_multicast();
                let private = a == 10 || (a, b) == (192, 168) || a == 127 || (a, b) == (169, 254);
                (never, private || (a == 172 && (16..32).contains(&b)) || a == 0 || a >= 240)
            }
            IpAddr::V6(ip) => {
                let hides = ip.to_ipv4_mapped().is_some() || ip.octets()[..4] == [0, 0x64, 0xff, 0x9b];
                let hides = hides || ip.octets()[..2] == [0x20, 0x02] || ip.octets()[..4] == [0x20, 1, 0, 0];
                (ip.is_unspecified() || ip.is_multicast() || hides, ip.segments()[0] & 0xe000 != 0x2000)
            }
        };
        if never || port == Some(0) {
            return false;
        }
        if is_relay && port.is_none_or(|port| rules.relay_ports.contains(&port)) {
            return true;
        }
        if rules.denied.contains(&ip) || is_relay || rules.interfaces.contains(&ip) {
            return false;
        }
        !special || (ip == PRIVATE && rules.private_allowed)
    }

    /// The law of §1 and §2 for something about to leave to `peer`.
    pub(super) fn may_send(&self, held: &Held, peer: SocketAddr, now: Now) -> Judged {
        holds!(PermissionToPeer, held.leg(Family::of(peer.ip()), now).is_some(), "no live relay address for {peer}");
        holds!(PermissionToPeer, held.permits(peer.ip(), now), "no live permission for {peer}");
        holds!(DeniedAddress, self.permits(peer.ip(), Some(peer.port())), "{peer} is denied");
        Ok(())
    }
}
