//! Requests and their answers: who asks, what is due, and what the books say afterwards.

use super::*;

impl Auditor {
    pub(super) fn request(&mut self, host: usize, heard: &Heard<'_>, message: &Message<'_>) -> Judged {
        let methods = [0x001, 0x003, 0x004, 0x008, 0x009, 0x00A, 0x00B];
        if !methods.contains(&message.method.bits()) {
            return self.is_ignored(host, heard, &[Dropped::UnknownMethod]);
        }
        let is_free = message.method == Method::BINDING && self.hosts[host].rules.anonymous_stun;
        let who = if is_free { Who::Nobody(vec![self.binding_code(message)]) } else { self.who(host, heard, message) };
        let (due, asker) = match who {
            Who::Nobody(codes) => (codes, None),
            Who::Somebody(asker) => (self.due(host, heard, message, &asker), Some(asker)),
        };
        match heard.verdict {
            Verdict::ToClient(to) => {
                let code = self.answer(host, heard, message, to, asker.as_ref())?;
                holds!(
                    AnswersFit,
                    due.contains(&code),
                    "{} is told {code}, where {due:?} is due",
                    message.method.name()
                );
                match (asker, code) {
                    (Some(asker), SUCCESS) => self.grants(host, heard, message, &asker),
                    // The path it spoke on may be its path from here on.
                    (Some(_), _) => self.absorbs(host, heard, true),
                    (None, _) => self.only_ends_what_is_over(host, heard.worker, heard.now, heard.effects),
                }
            }
            Verdict::Nothing if message.method == Method::CONNECT && due == [SUCCESS] => {
                let asker = asker.expect("a Connect that is granted has an asker");
                self.connects(host, heard, message, &asker)
            }
            Verdict::Dropped(Dropped::UnauthenticatedLimit) => {
                let rate = self.hosts[host].rules.unauthenticated as usize;
                let recent = self.hosts[host].strangers.iter().filter(|at| heard.now.mono.since(**at) <= seconds(1));
                holds!(
                    Amplification,
                    recent.count() >= rate.min(10) && heard.path.tuple.transport == Transport::Udp,
                    "silence before the limit"
                );
                self.only_ends_what_is_over(host, heard.worker, heard.now, heard.effects)
            }
            other => Err(Breach { law: Law::AnswersFit, what: format!("{} gets {other:?}", message.method.name()) }),
        }
    }

    pub(super) fn binding_code(&self, message: &Message<'_>) -> u16 {
        if has_unknown(message) { 420 } else { SUCCESS }
    }

    /// Who signed the request, by the RFC's order of checks (RFC 8489 §9.2.4).
    pub(super) fn who(&self, host: usize, heard: &Heard<'_>, message: &Message<'_>) -> Who {
        let rules = &self.hosts[host].rules;
        if message.is_signed(Algorithm::Sha256) || message.get(Attribute::PASSWORD_ALGORITHM).is_some() {
            return Who::Nobody(vec![400, 401]); // no client of these worlds speaks it: damage on the way
        }
        if !message.is_signed(Algorithm::Sha1) {
            let least = if message.has_fingerprint() { 36 } else { 28 };
            let is_short = heard.bytes.len() < least && message.method != Method::BINDING;
            let is_short = is_short && heard.path.tuple.transport == Transport::Udp;
            return Who::Nobody(vec![if is_short { 400 } else { 401 }]);
        }
        let name = message.text(Attribute::USERNAME);
        let (Some(Ok(name)), Some(Ok(realm)), Some(nonce)) =
            (name, message.text(Attribute::REALM), message.get(Attribute::NONCE))
        else {
            return Who::Nobody(vec![400]);
        };
        if name.len() > 508
            || realm.len() > 763
            || nonce.len() > 763
            || message.get(Attribute::PASSWORD_ALGORITHMS).is_some()
        {
            return Who::Nobody(vec![400]);
        }
        if realm != rules.realm {
            return Who::Nobody(vec![401]);
        }
        let signed_by = |password: &str| {
            let key = Key::md5(name, realm, password);
            message.verify(Algorithm::Sha1, &key).then_some(key)
        };
        let known = self.hosts[host].on(&heard.path.tuple, heard.now).map(|(_, held)| held);
        let known = known.filter(|held| held.user == name);
        let by_known = known.and_then(|held| Some((held.password.clone(), held.expires, signed_by(&held.password)?)));
        let by_rules = || {
            if let Some(password) = rules.users.get(name) {
                return Some((password.clone(), None, signed_by(password)?));
            }
            let expires: u64 =
                name.split(':').next().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
            let passwords = rules.secrets.iter().map(|secret| time_limited(secret, name));
            let found = passwords.filter_map(|password| Some((signed_by(&password)?, password))).next()?;
            let is_good = expires > heard.now.unix.0 && expires <= heard.now.unix.0 + (24 * 60 + 5) * 60;
            is_good.then_some((found.1, Some(expires), found.0))
        };
        let Some((password, expires, key)) = by_known.or_else(by_rules) else { return Who::Nobody(vec![401]) };
        let somebody = Somebody { user: name.into(), password, expires, key };
        let mut tuples = vec![heard.path.tuple.client];
        if message.method == Method::CONNECTION_BIND {
            let id = message.bytes::<4>(Attribute::CONNECTION_ID).and_then(Result::ok).map(u32::from_be_bytes);
            let of = |held: &&Held| id.is_some_and(|id| held.streams.contains_key(&StreamId(id)));
            tuples.extend(self.hosts[host].held.values().find(of).map(|held| held.path.tuple.client));
        }
        match self.is_fresh(host, &tuples, nonce, heard.now) {
            Some(true) => Who::Somebody(somebody),
            Some(false) => Who::Nobody(vec![438]),
            // In the last step of its life a nonce may go either way: what the server said decides.
            None => match heard.verdict {
                Verdict::ToClient(_) if code_of(heard.out) == Some(438) => Who::Nobody(vec![438]),
                _ => Who::Somebody(somebody),
            },
        }
    }

    /// Whether a nonce is good: given to this address, by a server with the same key, not too long ago.
    pub(super) fn is_fresh(&self, host: usize, clients: &[SocketAddr], nonce: &[u8], now: Now) -> Option<bool> {
        let books = &self.hosts[host];
        let (key, lifetime) = (&books.rules.nonce_key, books.rules.nonce_lifetime);
        let given = self.nonces.get(nonce).into_iter().flatten();
        let ours = given.filter(|given| clients.contains(&given.client) && given.key == *key);
        let Some(latest) = ours.max_by_key(|given| given.at) else { return Some(false) };
        let step = lifetime.div_ceil(60).max(1);
        let age = now.mono.since(latest.at);
        if latest.lifetime != lifetime || now.mono <= books.nonces_vary_until {
            return None;
        }
        match age.as_secs() {
            age if age > lifetime => Some(false),
            age if age + step + 1 < lifetime => Some(true),
            _ => None,
        }
    }

    /// Reads an answer strictly; its code, 0 for success.
    pub(super) fn answer(
        &mut self,
        host: usize,
        heard: &Heard<'_>,
        asked: &Message<'_>,
        to: Path,
        asker: Option<&Somebody>,
    ) -> Result<u16, Breach> {
        self.tests(Law::AnswersFit);
        holds!(AnswersFit, to == heard.path, "the answer goes to {to:?}");
        let Ok(answer) = Message::parse(heard.out) else {
            return Err(Breach { law: Law::AnswersFit, what: "an answer that cannot be read".into() });
        };
        holds!(
            AnswersFit,
            (answer.method, answer.transaction) == (asked.method, asked.transaction),
            "an answer to something else"
        );
        holds!(AnswersFit, matches!(answer.class, Class::Success | Class::Error), "{:?} as an answer", answer.class);
        holds!(
            AnswersFit,
            answer.has_fingerprint() == asked.has_fingerprint(),
            "FINGERPRINT comes unasked, or not at all"
        );
        is_padded_with_zeros(heard.out)?;
        self.keeps_secrets(host, heard.out)?;
        let code = code_of(heard.out).unwrap_or(SUCCESS);
        let is_challenge = matches!(code, 401 | 438);
        if let Some(asker) = asker.filter(|_| !is_challenge) {
            holds!(
                AnswersFit,
                answer.verify(Algorithm::Sha1, &asker.key),
                "an answer that the asker's key did not sign"
            );
            return Ok(code);
        }
        let is_signed = answer.is_signed(Algorithm::Sha1) || answer.is_signed(Algorithm::Sha256);
        holds!(AnswersFit, !is_signed, "an answer to nobody, signed");
        let now = heard.now;
        if let Some(nonce) = answer.get(Attribute::NONCE) {
            let rules = &self.hosts[host].rules;
            let (lifetime, key) = (rules.nonce_lifetime, rules.nonce_key.clone());
            let given = Nonce { client: heard.path.tuple.client, at: now.mono, lifetime, key };
            let old = self.nonces.entry(nonce.to_vec()).or_default();
            let is_shared = old.iter().any(|old| old.client != given.client);
            holds!(NothingBeforeProof, !is_shared, "two addresses get the same nonce");
            old.push(given);
        }
        holds!(
            AnswersFit,
            is_challenge == answer.get(Attribute::NONCE).is_some(),
            "a challenge without NONCE, or the reverse"
        );
        if heard.path.tuple.transport == Transport::Udp && asker.is_none() {
            self.tests(Law::Amplification);
            // XOR-MAPPED-ADDRESS of IPv6 makes a Binding answer of 44 bytes out of 20.
            let tenths = match (asked.method, heard.path.tuple.client.is_ipv4()) {
                (Method::BINDING, true) if code == SUCCESS => 16,
                (Method::BINDING, false) if code == SUCCESS => 22,
                _ => 29,
            };
            // A Binding of 20 bytes that needs a credential has no shorter challenge.
            let is_bare = asked.method == Method::BINDING && is_challenge;
            let within = heard.out.len() * 10 <= heard.bytes.len() * tenths;
            holds!(Amplification, within || is_bare, "{} bytes for {}", heard.out.len(), heard.bytes.len());
            let strangers = &mut self.hosts[host].strangers;
            strangers.push_back(now.mono);
            while strangers.front().is_some_and(|at| now.mono.since(*at) > seconds(2)) {
                strangers.pop_front();
            }
        }
        Ok(code)
    }

    /// The codes one of which the law gives a known asker; 0 is success.
    pub(super) fn due(&self, host: usize, heard: &Heard<'_>, message: &Message<'_>, asker: &Somebody) -> Vec<u16> {
        let books = &self.hosts[host];
        if has_unknown(message) {
            return vec![420];
        }
        let now = heard.now;
        let tuple = &heard.path.tuple;
        let here = books.on(tuple, now);
        let is_over = asker.expires.is_some_and(|expires| expires <= now.unix.0);
        match message.method {
            Method::BINDING => vec![SUCCESS],
            Method::ALLOCATE => books.allocate_due(heard, message, asker, here.map(|(_, held)| held), is_over),
            Method::REFRESH => books.refresh_due(heard, message, asker, here, is_over),
            Method::CONNECTION_BIND => books.connection_bind_due(heard, message, asker, here.is_some()),
            _ => {
                let Some((_, held)) = here else { return vec![437] };
                if held.user != asker.user {
                    return vec![441];
                }
                match message.method {
                    Method::CREATE_PERMISSION => books.permission_due(held, message, now),
                    Method::CHANNEL_BIND => books.channel_due(held, message, now),
                    _ => books.connect_due(held, message, now),
                }
            }
        }
    }

    /// A request was granted: the books say so from here on.
    pub(super) fn grants(&mut self, host: usize, heard: &Heard<'_>, message: &Message<'_>, asker: &Somebody) -> Judged {
        let now = heard.now;
        let answer = Message::parse(heard.out).expect("it was read before");
        let told = |attribute| answer.bytes::<4>(attribute).and_then(Result::ok).map(u32::from_be_bytes);
        let lifetime = self.hosts[host].lifetime(message, asker, now);
        match message.method {
            Method::ALLOCATE => {
                self.allocates(host, heard, message, asker, &answer, lifetime)?;
                return self.absorbs(host, heard, true);
            }
            Method::REFRESH => {
                return self.refreshes(host, heard, message, asker, &answer, told(Attribute::LIFETIME), lifetime);
            }
            _ => {}
        }
        self.absorbs(host, heard, true)?;
        let books = &mut self.hosts[host];
        let mut tested = None;
        let on = books.held.iter_mut().find(|(_, held)| held.is_on(&heard.path.tuple)).map(|(_, held)| held);
        match (message.method, on) {
            (Method::CREATE_PERMISSION, Some(held)) => {
                for peer in peers(message).flatten() {
                    held.permissions.insert(peer.ip(), now.mono + minutes(5));
                }
                holds!(
                    BoundedMemory,
                    held.permissions.len() <= books.rules.permissions + swept_later(&held.permissions, now),
                    "{} permissions",
                    held.permissions.len()
                );
                tested = Some(Law::BoundedMemory);
            }
            (Method::CHANNEL_BIND, Some(held)) => {
                let number = message.bytes::<4>(Attribute::CHANNEL_NUMBER).and_then(Result::ok).unwrap_or_default();
                let number = u16::from_be_bytes([number[0], number[1]]);
                let peer =
                    message.xor_address(Attribute::XOR_PEER_ADDRESS).and_then(Result::ok).expect("it was granted");
                held.sweeps(now);
                let clashes = held.channels.iter().any(|(other, (to, _))| (*other == number) != (*to == peer));
                holds!(ChannelsAreOneToOne, !clashes, "channel {number:#06x} and {peer} mean something else already");
                let is_new = held.channels.insert(number, (peer, now.mono + minutes(10))).is_none();
                held.permissions.insert(peer.ip(), now.mono + minutes(5));
                let is_within = !is_new || held.channels.len() <= books.rules.channels;
                holds!(BoundedMemory, is_within, "{} channels", held.channels.len());
                tested = Some(Law::ChannelsAreOneToOne);
            }
            (Method::BINDING, _) | (Method::CONNECTION_BIND, _) => {}
            (method, _) => {
                return Err(Breach { law: Law::AnswersFit, what: format!("{} succeeds for nobody", method.name()) });
            }
        }
        if let Some(law) = tested {
            self.tests(law);
        }
        Ok(())
    }

    pub(super) fn allocates(
        &mut self,
        host: usize,
        heard: &Heard<'_>,
        message: &Message<'_>,
        asker: &Somebody,
        answer: &Message<'_>,
        lifetime: u64,
    ) -> Judged {
        let now = heard.now;
        let told: Vec<SocketAddr> = addresses(answer, Attribute::XOR_RELAYED_ADDRESS);
        let left = answer.bytes::<4>(Attribute::LIFETIME).and_then(Result::ok).map(u32::from_be_bytes).map(u64::from);
        let mapped = answer.xor_address(Attribute::XOR_MAPPED_ADDRESS).and_then(Result::ok);
        holds!(AnswersFit, mapped == Some(heard.path.tuple.client), "XOR-MAPPED-ADDRESS {mapped:?}");
        let Some(tried) = &heard.tried else {
            self.tests(Law::SameAnswerAgain);
            let (_, held) = self.hosts[host].on(&heard.path.tuple, now).expect("the law found it");
            let lives = |told: &SocketAddr| held.legs.iter().any(|leg| leg.told == *told && leg.expires > now.mono);
            let left_of_it: Vec<SocketAddr> = held.told.iter().copied().filter(lives).collect();
            holds!(SameAnswerAgain, told == left_of_it, "{told:?} for what was {:?}", held.told);
            let end = held.legs.iter().map(|leg| leg.expires).max().unwrap_or(now.mono);
            holds!(SameAnswerAgain, left == Some(end.since(now.mono).as_secs()), "{left:?} s left");
            return Ok(());
        };
        holds!(ExactLifetimes, left == Some(lifetime), "a lifetime of {left:?}, where {lifetime} is due");
        let id = (heard.worker, tried.relay);
        let legs: Vec<Leg> = [Some(&tried.first), tried.also.as_ref()]
            .into_iter()
            .flatten()
            .flatten()
            .map(|(local, told)| Leg { local: *local, told: *told, expires: now.mono + seconds(lifetime) })
            .collect();
        let mut shown: Vec<SocketAddr> = legs.iter().map(|leg| leg.told).collect();
        shown.sort_by_key(|told| told.is_ipv6());
        holds!(AnswersFit, told == shown, "{told:?} shown of {shown:?}");
        for law in [Law::OnePortOneOwner, Law::Quota] {
            self.tests(law);
        }
        let books = &mut self.hosts[host];
        let is_tcp = message.get(Attribute::REQUESTED_TRANSPORT).is_some_and(|value| value.first() == Some(&6));
        for leg in &legs {
            let owner = |held: &&Held| held.legs.iter().any(|other| other.local == leg.local);
            holds!(OnePortOneOwner, !books.held.values().any(|held| owner(&held)), "{} has an owner", leg.local);
            holds!(OnePortOneOwner, books.rules.relay_ports.contains(&leg.told.port()), "{} is out of range", leg.told);
        }
        if let Some([bits]) = message.bytes::<1>(Attribute::EVEN_PORT).and_then(Result::ok) {
            let is_even = legs.iter().all(|leg| leg.told.port() % 2 == 0);
            holds!(AnswersFit, is_even, "EVEN-PORT makes {told:?}");
            let reserved = answer.get(Attribute::RESERVATION_TOKEN).is_some();
            holds!(AnswersFit, reserved == (bits & 0x80 != 0), "RESERVATION-TOKEN: {reserved}");
        }
        let of_account = books.held.values().filter(|held| held.account == tried.account && !held.is_over(now)).count();
        let is_within = |limit: u32, count: usize| limit == 0 || count < limit as usize;
        holds!(
            Quota,
            is_within(books.rules.allocations_per_user, of_account),
            "{} has {of_account} already",
            tried.account
        );
        let of_all = books.held.values().filter(|held| !held.is_over(now)).count();
        holds!(Quota, is_within(books.rules.allocations, of_all), "{of_all} on the server already");
        let has_begun =
            heard.effects.iter().any(|effect| matches!(effect, Effect::Began { relay, .. } if *relay == tried.relay));
        holds!(AnswersFit, has_begun, "an allocation that nobody hears of");
        let ticket = answer.get(Attribute::MOBILITY_TICKET).unwrap_or_default().to_vec();
        let wanted = message.get(Attribute::MOBILITY_TICKET).is_some();
        holds!(AnswersFit, wanted != ticket.is_empty(), "a ticket nobody asked for, or none");
        let held = Held {
            user: asker.user.clone(),
            account: tried.account.clone(),
            password: asker.password.clone(),
            expires: asker.expires,
            path: heard.path,
            is_adrift: false,
            next: None,
            is_mobile: !ticket.is_empty(),
            ticket,
            is_tcp,
            legs,
            permissions: BTreeMap::new(),
            channels: BTreeMap::new(),
            streams: BTreeMap::new(),
            asked: message.transaction,
            told,
            up: Debt::default(),
            down: Debt::default(),
            usage: Usage::default(),
        };
        let others = books.held.values().filter(|held| held.is_on(&heard.path.tuple) && !held.is_over(now)).count();
        holds!(OnePortOneOwner, others == 0, "{:?} leads to two allocations", heard.path.tuple);
        books.held.insert(id, held);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one step and all that belongs to it")]
    pub(super) fn refreshes(
        &mut self,
        host: usize,
        heard: &Heard<'_>,
        message: &Message<'_>,
        asker: &Somebody,
        answer: &Message<'_>,
        told: Option<u32>,
        lifetime: u64,
    ) -> Judged {
        let (now, tuple) = (heard.now, heard.path.tuple);
        let books = &mut self.hosts[host];
        let is_release = message.bytes::<4>(Attribute::LIFETIME).and_then(Result::ok) == Some([0; 4]);
        let family = message.bytes::<4>(Attribute::REQUESTED_ADDRESS_FAMILY).and_then(Result::ok);
        let family = family.and_then(|[number, ..]| Family::from_number(number));
        let ticket = message.get(Attribute::MOBILITY_TICKET);
        let on_own = |held: &Held| !held.is_adrift && held.path.tuple == tuple;
        let is_mover =
            |held: &Held| ticket.is_some_and(|ticket| is_ticket_of(held, ticket, heard.path, message.transaction));
        let found = books.held.iter().find(|(_, held)| !held.is_over(now) && on_own(held));
        let found = found.or_else(|| books.held.iter().find(|(_, held)| !held.is_over(now) && is_mover(held)));
        let found = found.or_else(|| books.held.iter().find(|(_, held)| !held.is_over(now) && held.is_on(&tuple)));
        let Some((id, _)) = found else {
            return Err(Breach { law: Law::AnswersFit, what: "a Refresh of nothing succeeds".into() });
        };
        let id = *id;
        let due = if is_release { 0 } else { lifetime };
        holds!(ExactLifetimes, told.map(u64::from) == Some(due), "a lifetime of {told:?}, where {due} is due");
        if is_release {
            let ends: BTreeSet<RelayId> = heard.effects.iter().filter_map(ended).collect();
            let held = &books.held[&id];
            let is_half = family.is_some() && held.legs.iter().filter(|leg| leg.expires > now.mono).count() > 1;
            let unbound = |effect: &Effect| matches!(effect, Effect::Unbind { relay, family: of } if *relay == id.1 && Some(*of) == family);
            let is_done = if is_half { heard.effects.iter().any(unbound) } else { ends.contains(&id.1) };
            holds!(AnswersFit, is_done, "released, and it lives on");
            return self.absorbs(host, heard, true);
        }
        let held = books.held.get_mut(&id).expect("it was found");
        let is_meant = |leg: &&mut Leg| family.is_none_or(|family| Family::of(leg.told.ip()) == family);
        held.legs
            .iter_mut()
            .filter(|leg| leg.expires > now.mono)
            .filter(is_meant)
            .for_each(|leg| leg.expires = now.mono + seconds(lifetime));
        (held.password, held.expires) = (asker.password.clone(), asker.expires);
        let is_move = !on_own(held) && is_mover(held);
        if is_move {
            held.next = Some((heard.path, message.transaction));
        }
        if let Some(next) = answer.get(Attribute::MOBILITY_TICKET) {
            held.ticket = next.to_vec();
        }
        if is_move {
            self.only_ends_what_is_over(host, heard.worker, now, heard.effects)
        } else {
            self.absorbs(host, heard, true)
        }
    }

    pub(super) fn connects(
        &mut self,
        host: usize,
        heard: &Heard<'_>,
        message: &Message<'_>,
        asker: &Somebody,
    ) -> Judged {
        self.tests(Law::DeniedAddress);
        let peer = message.xor_address(Attribute::XOR_PEER_ADDRESS).and_then(Result::ok).expect("the law has read it");
        let wanted = heard.effects.iter().find_map(|effect| match effect {
            Effect::Connect { relay, stream, peer, .. } => Some((*relay, *stream, *peer)),
            _ => None,
        });
        let Some((relay, stream, to)) = wanted else {
            return Err(Breach { law: Law::AnswersFit, what: "a Connect that nobody makes".into() });
        };
        let _ = asker;
        self.absorbs(host, heard, true)?;
        let books = &mut self.hosts[host];
        holds!(DeniedAddress, to == peer && books.permits(to.ip(), Some(to.port())), "a connection to {to}");
        let held = books.held.get_mut(&(heard.worker, relay));
        let Some(held) = held else { return Err(Breach { law: Law::AnswersFit, what: "a Connect for nobody".into() }) };
        held.streams
            .insert(stream, Stream { peer, is_ours: true, connecting: Some(message.transaction), waits_until: None });
        Ok(())
    }
}
