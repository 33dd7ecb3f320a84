//! What the law says to a known asker: which codes are due, and which lifetime.

use super::*;

impl Books {
    /// Whether an allocation lives on this relay address of ours.
    pub(super) fn is_live(&self, peer: SocketAddr, now: Now) -> bool {
        let on = |leg: &Leg| (leg.told == peer || leg.local == peer) && leg.expires > now.mono;
        self.held.values().any(|held| !held.is_tcp && held.legs.iter().any(on))
    }

    /// The lifetime that a request gets (RFC 8656 §7.2): never under the default, never over the maximum.
    pub(super) fn lifetime(&self, message: &Message<'_>, asker: &Somebody, now: Now) -> u64 {
        let wanted = message.bytes::<4>(Attribute::LIFETIME).and_then(Result::ok).map(u32::from_be_bytes);
        let wanted = wanted.map_or(self.rules.lifetime, u64::from);
        let usual = wanted.min(self.rules.max_lifetime).max(self.rules.lifetime);
        match asker.expires {
            Some(expires) if self.rules.strict_expiry => usual.min(expires.saturating_sub(now.unix.0)),
            _ => usual,
        }
    }

    pub(super) fn allocate_due(
        &self,
        heard: &Heard<'_>,
        message: &Message<'_>,
        asker: &Somebody,
        here: Option<&Held>,
        is_over: bool,
    ) -> Vec<u16> {
        if let Some(held) = here {
            let is_repeat = held.asked == message.transaction && held.user == asker.user;
            return vec![if is_repeat { SUCCESS } else { 437 }];
        }
        if is_over {
            return vec![401];
        }
        let rules = &self.rules;
        let bytes4 = |attribute| message.bytes::<4>(attribute);
        let mut codes = Vec::new();
        let transport = bytes4(Attribute::REQUESTED_TRANSPORT);
        let is_tcp = matches!(transport, Some(Ok([6, ..])));
        match transport {
            None | Some(Err(_)) => codes.push(400),
            Some(Ok([17, ..])) => {}
            Some(Ok([6, ..])) if rules.tcp_relays => {}
            Some(Ok(_)) => codes.push(442),
        }
        let (even, token) =
            (message.bytes::<1>(Attribute::EVEN_PORT), message.bytes::<8>(Attribute::RESERVATION_TOKEN));
        let (family, also) =
            (bytes4(Attribute::REQUESTED_ADDRESS_FAMILY), bytes4(Attribute::ADDITIONAL_ADDRESS_FAMILY));
        let also = also.or_else(|| bytes4(Attribute::ADDITIONAL_ADDRESS_FAMILY_DRAFT));
        let is_broken = matches!(even, Some(Err(_))) || matches!(token, Some(Err(_))) || matches!(family, Some(Err(_)));
        let is_broken = is_broken || matches!(bytes4(Attribute::LIFETIME), Some(Err(_)));
        let is_broken = is_broken || also.is_some_and(|also| !matches!(also, Ok([2, ..])));
        let is_whole = message.get(Attribute::DONT_FRAGMENT).is_some();
        let is_odd =
            is_tcp && (!heard.path.tuple.transport.is_stream() || is_whole || token.is_some() || even.is_some());
        let is_pair = matches!(even, Some(Ok([bits])) if bits & 0x80 != 0);
        let clashes = token.is_some() && (even.is_some() || family.is_some() || also.is_some());
        let clashes = clashes || (also.is_some() && (family.is_some() || is_pair));
        if is_broken || is_odd || clashes {
            codes.push(400);
        }
        match message.get(Attribute::MOBILITY_TICKET) {
            Some(_) if !rules.mobility => codes.push(405),
            Some([_, ..]) => codes.push(400),
            _ => {}
        }
        let has = |v4: bool| rules.relays.iter().any(|relay| relay.local.is_ipv4() == v4);
        let is_missing = match family {
            None => token.is_none() && also.is_none() && !has(true),
            Some(Ok([1, ..])) => !has(true),
            Some(Ok([2, ..])) => !has(false),
            Some(_) => true,
        };
        if is_missing {
            codes.push(440);
        }
        if !codes.is_empty() {
            return codes;
        }
        if rules.draining {
            let is_v4 = heard.path.tuple.client.is_ipv4();
            return vec![if rules.redirect.iter().any(|server| server.is_ipv4() == is_v4) { 300 } else { 508 }];
        }
        let Some(tried) = &heard.tried else { return vec![] };
        let outcomes = [Some(&tried.first), tried.also.as_ref()].into_iter().flatten();
        let mut failed = None;
        for outcome in outcomes {
            match outcome {
                Ok(_) => return vec![SUCCESS],
                Err(why) => failed = failed.or(Some(*why)),
            }
        }
        vec![match failed {
            Some(BindError::Quota) => 486,
            Some(BindError::NoPort | BindError::NoResources) => 508,
            Some(BindError::System) | None => 500,
        }]
    }

    pub(super) fn refresh_due(
        &self,
        heard: &Heard<'_>,
        message: &Message<'_>,
        asker: &Somebody,
        here: Option<(&Id, &Held)>,
        is_over: bool,
    ) -> Vec<u16> {
        let now = heard.now;
        let lifetime = message.bytes::<4>(Attribute::LIFETIME);
        let family = message.bytes::<4>(Attribute::REQUESTED_ADDRESS_FAMILY);
        if matches!(lifetime, Some(Err(_))) || matches!(family, Some(Err(_))) {
            return vec![400];
        }
        let tuple = heard.path.tuple;
        let is_next = here.is_some_and(|(_, held)| held.next.is_some_and(|(path, _)| path.tuple == tuple));
        let ticket = message.get(Attribute::MOBILITY_TICKET).filter(|_| here.is_none() || is_next);
        let held = match ticket {
            Some(_) if !self.rules.mobility => return vec![405],
            Some(ticket) => {
                let is_shown =
                    |held: &&Held| !held.is_over(now) && is_ticket_of(held, ticket, heard.path, message.transaction);
                let Some(held) = self.held.values().find(is_shown) else {
                    // The ticket of nobody, of somebody gone, or one that is used: whoever it was for, this is all one hears.
                    return vec![437, 441];
                };
                if here.is_some_and(|(_, here)| here.path != held.path) {
                    return vec![437];
                }
                if held.user != asker.user {
                    return vec![441];
                }
                if held.is_tcp && !tuple.transport.is_stream() {
                    return vec![400];
                }
                held
            }
            None => {
                let Some((_, held)) = here else { return vec![437] };
                if held.user != asker.user {
                    return vec![441];
                }
                held
            }
        };
        if let Some(Ok([number, ..])) = family {
            let has = Family::from_number(number).is_some_and(|family| held.leg(family, now).is_some());
            if !has {
                return vec![443];
            }
        }
        let is_release = matches!(lifetime, Some(Ok([0, 0, 0, 0])));
        vec![if is_over && !is_release { 401 } else { SUCCESS }]
    }

    pub(super) fn permission_due(&self, held: &Held, message: &Message<'_>, now: Now) -> Vec<u16> {
        let mut ips = BTreeSet::new();
        for peer in peers(message) {
            let Some(peer) = peer else { return vec![400] };
            if held.leg(Family::of(peer.ip()), now).is_none() {
                return vec![443];
            }
            if !self.permits(peer.ip(), None) {
                return vec![403];
            }
            ips.insert(peer.ip());
        }
        if ips.is_empty() {
            return vec![400];
        }
        let count = peers(message).count();
        ips.extend(held.permissions.iter().filter(|(_, expires)| **expires > now.mono).map(|(ip, _)| *ip));
        let is_full = ips.len() > self.rules.permissions || count > self.rules.permissions;
        vec![if is_full { 508 } else { SUCCESS }]
    }

    pub(super) fn channel_due(&self, held: &Held, message: &Message<'_>, now: Now) -> Vec<u16> {
        let number = message.bytes::<4>(Attribute::CHANNEL_NUMBER).and_then(Result::ok);
        let number =
            number.map(|[n0, n1, ..]| u16::from_be_bytes([n0, n1])).filter(|number| (0x4000..=0x7FFF).contains(number));
        let peer = message.xor_address(Attribute::XOR_PEER_ADDRESS).and_then(Result::ok);
        let (Some(number), Some(peer), false) = (number, peer, held.is_tcp) else { return vec![400] };
        if held.leg(Family::of(peer.ip()), now).is_none() {
            return vec![443];
        }
        if !self.permits(peer.ip(), Some(peer.port())) {
            return vec![403];
        }
        let resting = |(_, (_, expires)): &(&u16, &(SocketAddr, Instant))| *expires + REST > now.mono;
        let taken = held.channels.iter().filter(resting);
        let clashes = taken.clone().any(|(other, (to, _))| (*other == number) != (*to == peer));
        let is_new = !taken.clone().any(|(other, _)| *other == number);
        let mut ips: BTreeSet<IpAddr> =
            held.permissions.iter().filter(|(_, expires)| **expires > now.mono).map(|(ip, _)| *ip).collect();
        ips.insert(peer.ip());
        if ips.len() > self.rules.permissions {
            return vec![508];
        }
        match (clashes, is_new && taken.count() >= self.rules.channels) {
            (true, _) => vec![400],
            (false, true) => vec![508],
            (false, false) => vec![SUCCESS],
        }
    }

    pub(super) fn connect_due(&self, held: &Held, message: &Message<'_>, now: Now) -> Vec<u16> {
        let Some(peer) = message.xor_address(Attribute::XOR_PEER_ADDRESS).and_then(Result::ok) else {
            return vec![400];
        };
        if !held.is_tcp {
            return vec![437];
        }
        if held.leg(Family::of(peer.ip()), now).is_none() {
            return vec![443];
        }
        if !self.permits(peer.ip(), Some(peer.port())) {
            return vec![403];
        }
        let is_own = self.rules.relays.iter().any(|relay| [relay.local, relay.external].contains(&peer.ip()));
        if held.streams.values().any(|stream| stream.peer == peer && (stream.is_ours || !is_own)) {
            return vec![446];
        }
        let pending =
            held.streams.values().filter(|stream| stream.connecting.is_some() || stream.waits_until.is_some());
        vec![if pending.count() >= 16 || held.streams.len() >= 128 { 508 } else { SUCCESS }]
    }

    pub(super) fn connection_bind_due(
        &self,
        heard: &Heard<'_>,
        message: &Message<'_>,
        asker: &Somebody,
        is_taken: bool,
    ) -> Vec<u16> {
        let id = message.bytes::<4>(Attribute::CONNECTION_ID).and_then(Result::ok).map(u32::from_be_bytes);
        let now = heard.now;
        let waits = |held: &Held| {
            let stream = id.and_then(|id| held.streams.get(&StreamId(id)));
            stream.is_some_and(|stream| stream.waits_until.is_some_and(|until| until > now.mono))
        };
        let found = self.held.values().find(|held| waits(held) && held.user == asker.user && !held.is_over(now));
        let is_good = found.is_some() && heard.path.tuple.transport.is_stream() && !is_taken;
        vec![if is_good { SUCCESS } else { 400 }]
    }
}
