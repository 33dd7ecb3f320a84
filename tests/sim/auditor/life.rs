//! Beginnings and ends: connections that close, rules that change, timers, and the sums after each step.

use super::*;

impl Auditor {
    /// A client's connection has closed.
    pub(crate) fn closes(
        &mut self,
        host: usize,
        worker: u8,
        tuple: &FiveTuple,
        now: Now,
        effects: &[Effect],
    ) -> Judged {
        let books = &mut self.hosts[host];
        let mut ends = None;
        for (id, held) in books.held.iter_mut().filter(|(_, held)| held.is_on(tuple)) {
            if held.next.is_some_and(|(path, _)| path.tuple == *tuple) {
                held.next = None;
            } else if !held.is_mobile {
                ends = Some(*id);
            } else {
                held.is_adrift = true;
            }
        }
        if let Some(id) = ends {
            let has_ended = effects.iter().any(|effect| ended(effect) == Some(id.1));
            holds!(NothingOutlives, has_ended, "its connection closed, and it lives on");
            holds!(NothingOutlives, id.0 == worker, "the wrong worker is told");
        }
        self.ends(host, worker, now, effects, &|why| why == Ended::Disconnected)
    }

    /// Other rules are in force.
    pub(crate) fn reloads(&mut self, host: usize, rules: Rules, now: Now) {
        let books = &mut self.hosts[host];
        if rules.nonce_key != books.rules.nonce_key {
            // Tickets are sealed with that key.
            books.held.values_mut().for_each(|held| held.ticket.clear());
        }
        if rules.nonce_lifetime != books.rules.nonce_lifetime || rules.nonce_key != books.rules.nonce_key {
            books.nonces_vary_until = now.mono;
        }
        books.rules = rules;
    }

    /// What a worker says that has learnt of other rules.
    pub(crate) fn has_reloaded(&mut self, host: usize, worker: u8, now: Now, effects: &[Effect]) -> Judged {
        for law in [Law::DeniedAddress, Law::NothingOutlives] {
            self.tests(law);
        }
        let books = &mut self.hosts[host];
        let gone: BTreeSet<RelayId> = effects.iter().filter_map(ended).collect();
        for (id, held) in books.held.iter().filter(|(id, _)| id.0 == worker) {
            let is_welcome = held.expires.is_some() || books.rules.users.get(&held.user) == Some(&held.password);
            holds!(
                NothingOutlives,
                gone.contains(&id.1) != is_welcome,
                "{} and its allocation: {is_welcome}",
                held.user
            );
        }
        let permitted: Vec<(Id, BTreeSet<IpAddr>, BTreeSet<u16>)> = books
            .held
            .iter()
            .map(|(id, held)| {
                let ips = held.permissions.keys().copied().filter(|ip| books.permits(*ip, None)).collect();
                let alive =
                    |(_, (peer, _)): &(&u16, &(SocketAddr, Instant))| books.permits(peer.ip(), Some(peer.port()));
                (*id, ips, held.channels.iter().filter(alive).map(|(number, _)| *number).collect())
            })
            .collect();
        for (id, ips, numbers) in permitted.into_iter().filter(|(id, ..)| id.0 == worker) {
            let held = books.held.get_mut(&id).expect("it is listed");
            held.permissions.retain(|ip, _| ips.contains(ip));
            held.channels.retain(|number, _| numbers.contains(number));
        }
        self.ends(host, worker, now, effects, &|why| why == Ended::Revoked)
    }

    /// A tick: it ends what is over and does nothing else.
    pub(crate) fn ticks(
        &mut self,
        host: usize,
        worker: u8,
        now: Now,
        effects: &[Effect],
        deadline: Option<Instant>,
    ) -> Judged {
        self.only_ends_what_is_over(host, worker, now, effects)?;
        self.tests(Law::Timers);
        let held = self.hosts[host].held.iter().filter(|(id, _)| id.0 == worker);
        let first = held.flat_map(|(_, held)| held.legs.iter().map(|leg| leg.expires)).min();
        if let Some(first) = first {
            holds!(
                Timers,
                deadline.is_some_and(|deadline| deadline <= first.max(now.mono) + seconds(1)),
                "asleep until {deadline:?}, and {first:?} is due"
            );
        }
        holds!(Timers, deadline.is_none_or(|deadline| deadline > now.mono), "a deadline that a tick does not clear");
        Ok(())
    }

    /// The system did not take what the core had let go.
    pub(crate) fn drops_at_the_door(&mut self, host: usize) {
        self.hosts[host].drops += 1;
    }

    /// The server could not look after its timers for a while.
    pub(crate) fn sleeps(&mut self, host: usize, until: Instant) {
        self.hosts[host].asleep_until = until;
    }

    /// The server has died, and with it all it held.
    pub(crate) fn dies(&mut self, host: usize, now: Now) {
        let books = &mut self.hosts[host];
        books.held.clear();
        books.strangers.clear();
        books.relayed = Usage::default();
        books.usage_of_ended = Usage::default();
        books.drops = 0;
        books.nonces_vary_until = now.mono;
    }

    /// The server stops.
    pub(crate) fn stops(&mut self, host: usize, worker: u8, now: Now, effects: &[Effect]) -> Judged {
        self.ends(host, worker, now, effects, &|why| why == Ended::Stopped)
    }

    /// The gauges and sums of a server, after any step.
    pub(crate) fn counts(
        &mut self,
        host: usize,
        now: Now,
        tallies: &[std::sync::Arc<Tally>],
        free: u64,
        used: u64,
    ) -> Judged {
        for law in
            [Law::PortsAddUp, Law::BoundedMemory, Law::NothingOutlives, Law::InIsOutAndDrops, Law::NothingBeforeProof]
        {
            self.tests(law);
        }
        let books = &self.hosts[host];
        let sum = |of: &dyn Fn(&Tally) -> u64| tallies.iter().map(|tally| of(tally)).sum::<u64>();
        let gauge = sum(&|tally| tally.allocations.iter().flatten().map(|counter| counter.get()).sum());
        holds!(
            NothingBeforeProof,
            gauge == books.held.len() as u64,
            "{gauge} allocations, and the books have {}",
            books.held.len()
        );
        let late = Duration::from_millis(2001);
        let is_awake = books.asleep_until < now.mono;
        let over = books.held.values().find(|held| held.legs.iter().all(|leg| leg.expires + late < now.mono));
        holds!(NothingOutlives, !is_awake || over.is_none(), "it lives on after its time");
        let (mut least, mut most) = ((0, 0), (0, 0));
        for held in books.held.values() {
            least.0 += held.permissions.values().filter(|expires| **expires > now.mono).count() as u64;
            most.0 += held.permissions.values().filter(|expires| **expires + late >= now.mono).count() as u64;
            least.1 += held.channels.values().filter(|(_, expires)| *expires + REST > now.mono).count() as u64;
            most.1 += held.channels.values().filter(|(_, expires)| *expires + REST + late >= now.mono).count() as u64;
        }
        let (permissions, channels) = (sum(&|tally| tally.permissions.get()), sum(&|tally| tally.channels.get()));
        let fits = |least: u64, is: u64, most: u64| least <= is && (is <= most || !is_awake);
        // A leg that is over takes its own along, at the second of its end or one later.
        let has_over = books.held.values().any(|held| held.legs.iter().any(|leg| leg.expires <= now.mono));
        holds!(
            BoundedMemory,
            has_over || fits(least.0, permissions, most.0),
            "{permissions} permissions of {least:?} to {most:?}"
        );
        holds!(
            BoundedMemory,
            has_over || fits(least.1, channels, most.1),
            "{channels} channels of {least:?} to {most:?}"
        );
        let ports = (books.rules.relay_ports.len() * books.rules.relays.len()) as u64;
        holds!(PortsAddUp, free + used == ports, "{free} free and {used} used of {ports}");
        let relayed = Usage {
            packets_to_peer: sum(&|tally| tally.to_peer.packets.get()),
            bytes_to_peer: sum(&|tally| tally.to_peer.bytes.get()),
            packets_to_client: sum(&|tally| tally.to_client.packets.get()),
            bytes_to_client: sum(&|tally| tally.to_client.bytes.get()),
        };
        holds!(InIsOutAndDrops, relayed == books.relayed, "{relayed:?} counted, {:?} seen", books.relayed);
        let dropped = sum(&|tally| tally.dropped.iter().map(|counter| counter.get()).sum());
        holds!(InIsOutAndDrops, dropped == books.drops, "{dropped} drops counted, {} seen", books.drops);
        Ok(())
    }

    /// Everybody has gone and every clock has run out.
    pub(crate) fn is_as_new(&mut self, host: usize, used: u64, deadlines: &[Option<Instant>]) -> Judged {
        self.tests(Law::AsNew);
        let books = &self.hosts[host];
        holds!(AsNew, books.held.is_empty(), "{} allocations are left", books.held.len());
        holds!(AsNew, used == 0, "{used} ports are left");
        holds!(AsNew, deadlines.iter().all(Option::is_none), "timers are left: {deadlines:?}");
        holds!(
            AsNew,
            books.usage_of_ended == books.relayed,
            "{:?} told at the ends, {:?} seen",
            books.usage_of_ended,
            books.relayed
        );
        Ok(())
    }

    pub(super) fn only_ends_what_is_over(&mut self, host: usize, worker: u8, now: Now, effects: &[Effect]) -> Judged {
        let harmless = |effect: &Effect| {
            matches!(
                effect,
                Effect::Ended { .. }
                    | Effect::Unbind { .. }
                    | Effect::Close { .. }
                    | Effect::Attached(_)
                    | Effect::Detached(_)
            )
        };
        holds!(NothingBeforeProof, effects.iter().all(harmless), "{effects:?} before any proof");
        self.ends(host, worker, now, effects, &|_| false)
    }

    /// Takes in what a message that was granted did to the world.
    pub(super) fn absorbs(&mut self, host: usize, heard: &Heard<'_>, is_proven: bool) -> Judged {
        self.ends(host, heard.worker, heard.now, heard.effects, &|why| is_proven && why == Ended::Released)?;
        for effect in heard.effects {
            match effect {
                Effect::Join { stream, path, .. } => {
                    holds!(AnswersFit, *path == heard.path, "joined to another's connection");
                    let books = &mut self.hosts[host];
                    let known = books.held.values_mut().find_map(|held| held.streams.get_mut(stream));
                    let is_waiting = known.is_some_and(|known| known.waits_until.take().is_some());
                    holds!(AnswersFit, is_waiting, "a connection is joined that nobody waits for");
                }
                Effect::Detached(old) => {
                    let books = &mut self.hosts[host];
                    let mover = books.held.values_mut().find(|held| held.path == *old && held.next.is_some());
                    let Some(held) = mover else { continue };
                    let is_there = held.next.is_some_and(|(path, _)| path == heard.path);
                    holds!(AnswersFit, is_there, "an allocation moves that nobody has spoken for");
                    held.path = heard.path;
                    held.is_adrift = false;
                    held.next = None;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes in ends: of what is over, always; for another reason where `may_end` says so.
    pub(super) fn ends(
        &mut self,
        host: usize,
        worker: u8,
        now: Now,
        effects: &[Effect],
        may_end: &dyn Fn(Ended) -> bool,
    ) -> Judged {
        let books = &mut self.hosts[host];
        for effect in effects {
            match effect {
                Effect::Ended { relay, why, usage, session, .. } => {
                    let Some(held) = books.held.remove(&(worker, *relay)) else {
                        return Err(Breach { law: Law::NothingOutlives, what: format!("{relay:?} ends twice") });
                    };
                    let is_due = match why {
                        Ended::Expired => held.is_over(now),
                        other => may_end(*other),
                    };
                    holds!(NothingOutlives, is_due, "an allocation of {} ends: {why:?}", session.user);
                    holds!(InIsOutAndDrops, *usage == held.usage, "{usage:?} told, {:?} seen", held.usage);
                    books.usage_of_ended.packets_to_peer += usage.packets_to_peer;
                    books.usage_of_ended.bytes_to_peer += usage.bytes_to_peer;
                    books.usage_of_ended.packets_to_client += usage.packets_to_client;
                    books.usage_of_ended.bytes_to_client += usage.bytes_to_client;
                }
                Effect::Unbind { relay, family } => {
                    let Some(held) = books.held.get_mut(&(worker, *relay)) else {
                        return Err(Breach {
                            law: Law::NothingOutlives,
                            what: format!("{relay:?} is gone and loses a port"),
                        });
                    };
                    let is_over = held.leg(*family, now).is_none();
                    holds!(NothingOutlives, is_over || may_end(Ended::Released), "a live relay address is taken away");
                    held.loses(*family);
                }
                Effect::Close { relay, stream } => {
                    if let Some(held) = books.held.get_mut(&(worker, *relay)) {
                        held.streams.remove(stream);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}
