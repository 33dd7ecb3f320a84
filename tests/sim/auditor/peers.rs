//! What comes from peers: datagrams, ICMP errors, connections.

use super::*;

impl Auditor {
    /// The shell has tried to connect.
    #[expect(clippy::too_many_arguments, reason = "one step and all that belongs to it")]
    pub(crate) fn connected(
        &mut self,
        host: usize,
        id: Id,
        stream: StreamId,
        is_open: bool,
        now: Now,
        verdict: Verdict,
        out: &[u8],
    ) -> Judged {
        let books = &mut self.hosts[host];
        let Some(held) = books.held.get_mut(&id) else {
            holds!(
                NoAnswerToAnswers,
                !matches!(verdict, Verdict::ToClient(_)),
                "an answer for an allocation that is gone"
            );
            return Ok(());
        };
        let known = held.streams.get_mut(&stream).filter(|known| known.connecting.is_some());
        let Some(known) = known else {
            holds!(
                NoAnswerToAnswers,
                verdict == Verdict::Nothing,
                "{verdict:?} about a connection that nobody waits for"
            );
            return Ok(());
        };
        let asked = known.connecting.take().expect("it is connecting");
        known.waits_until = Some(now.mono + seconds(30));
        let Verdict::ToClient(to) = verdict else {
            return Err(Breach { law: Law::AnswersFit, what: format!("a Connect gets {verdict:?}") });
        };
        holds!(AnswersFit, to == held.path, "a Connect is answered elsewhere");
        let answer = Message::parse(out).map_err(|_| Breach { law: Law::AnswersFit, what: "unreadable".into() })?;
        holds!(AnswersFit, answer.transaction == asked, "an answer to another Connect");
        let told = answer.bytes::<4>(Attribute::CONNECTION_ID).and_then(Result::ok).map(u32::from_be_bytes);
        if is_open {
            holds!(AnswersFit, told == Some(stream.0) && answer.class == Class::Success, "{told:?} for {stream:?}");
        } else {
            holds!(AnswersFit, code_of(out) == Some(447), "{:?} for a failure", code_of(out));
            held.streams.remove(&stream);
        }
        is_padded_with_zeros(out)
    }

    /// A peer has connected.
    pub(crate) fn comes(&mut self, host: usize, from_peer: &FromPeer<'_>, effects: &[Effect]) -> Judged {
        self.tests(Law::PermissionToClient);
        let now = from_peer.now;
        let books = &mut self.hosts[host];
        if let Verdict::Dropped(_) = from_peer.verdict {
            books.drops += 1;
        }
        let ip = from_peer.from.ip();
        let held = books.held.get_mut(&from_peer.id).filter(|held| held.leg(Family::of(ip), now).is_some());
        let Some(held) = held.filter(|held| held.permits(ip, now)) else {
            holds!(
                PermissionToClient,
                matches!(from_peer.verdict, Verdict::Dropped(_)) && effects.is_empty(),
                "a stranger's connection is taken"
            );
            return Ok(());
        };
        let pending =
            held.streams.values().filter(|held| held.connecting.is_some() || held.waits_until.is_some()).count();
        if from_peer.verdict == Verdict::Dropped(Dropped::Overflow) {
            holds!(BoundedQueues, pending >= 16, "turned away with {pending} pending");
            return Ok(());
        }
        let accepted = effects.iter().find_map(|effect| match effect {
            Effect::Accept { stream, .. } => Some(*stream),
            _ => None,
        });
        let Some(stream) = accepted else {
            return Err(Breach {
                law: Law::PermissionToClient,
                what: "a permitted peer's connection is turned away".into(),
            });
        };
        holds!(BoundedQueues, pending < 16, "one more than 16 pending");
        holds!(
            AnswersFit,
            from_peer.verdict == Verdict::ToClient(held.path),
            "the client is told elsewhere: {:?}",
            from_peer.verdict
        );
        let attempt =
            Message::parse(from_peer.out).map_err(|_| Breach { law: Law::AnswersFit, what: "unreadable".into() })?;
        let told = attempt.xor_address(Attribute::XOR_PEER_ADDRESS).and_then(Result::ok);
        holds!(
            AnswersFit,
            (attempt.class, attempt.method, told)
                == (Class::Indication, Method::CONNECTION_ATTEMPT, Some(from_peer.from)),
            "{told:?}"
        );
        let waits = Stream {
            peer: from_peer.from,
            is_ours: false,
            connecting: None,
            waits_until: Some(now.mono + seconds(30)),
        };
        held.streams.insert(stream, waits);
        is_padded_with_zeros(from_peer.out)
    }

    /// A connection with a peer is over, or carries bytes.
    pub(crate) fn stream_closed(&mut self, host: usize, id: Id, stream: StreamId) {
        if let Some(held) = self.hosts[host].held.get_mut(&id) {
            held.streams.remove(&stream);
        }
    }

    pub(crate) fn carries(&mut self, host: usize, id: Id, to_peer: u64, to_client: u64) {
        let books = &mut self.hosts[host];
        let Some(held) = books.held.get_mut(&id) else { return };
        for usage in [&mut held.usage, &mut books.relayed] {
            usage.bytes_to_peer += to_peer;
            usage.bytes_to_client += to_client;
        }
    }

    /// A datagram from a peer: it passes if and only if the peer has a permission.
    pub(crate) fn peer_says(&mut self, host: usize, said: &FromPeer<'_>) -> Judged {
        for law in [Law::PermissionToClient, Law::SameBytes, Law::ExactLifetimes] {
            self.tests(law);
        }
        self.keeps_secrets(host, said.out)?;
        let (now, ip) = (said.now, said.from.ip());
        let books = &mut self.hosts[host];
        let rate = books.rules.bandwidth;
        let held = books.held.get_mut(&said.id);
        let held = held.filter(|held| held.leg(Family::of(ip), now).is_some() && !held.is_tcp);
        let Some(held) = held else {
            books.drops += 1;
            holds!(
                PermissionToClient,
                matches!(said.verdict, Verdict::Dropped(Dropped::NoAllocation | Dropped::NoPermission)),
                "{:?} for nobody",
                said.verdict
            );
            return Ok(());
        };
        let bytes = said.bytes.len() as u64;
        if let Verdict::Dropped(why) = said.verdict {
            books.drops += 1;
            let is_due = match why {
                Dropped::NoPermission => !held.permits(ip, now),
                Dropped::Ttl => said.ttl.is_some_and(|ttl| ttl <= 1),
                Dropped::Bandwidth => rate.is_some_and(|rate| held.down.is_too_high(now, rate, bytes)),
                Dropped::TooLarge => bytes > 65_400,
                _ => false,
            };
            holds!(PermissionToClient, is_due, "everything for {} is alive and {why:?}", said.from);
            return Ok(());
        }
        holds!(PermissionToClient, held.permits(ip, now), "no live permission for {}", said.from);
        holds!(PermissionToClient, said.verdict == Verdict::ToClient(held.path), "{:?}", said.verdict);
        holds!(InIsOutAndDrops, said.ttl.is_none_or(|ttl| ttl > 1), "its last hop was over");
        if let Some(rate) = rate {
            holds!(BoundedQueues, held.down.lends(now, rate, bytes), "more than {rate} bytes a second");
        }
        let is_stream = held.path.tuple.transport.is_stream();
        match held.channel_to(said.from, now) {
            Some(number) => {
                let mut framed = [number.to_be_bytes(), (said.bytes.len() as u16).to_be_bytes()].concat();
                framed.extend(said.bytes);
                if is_stream {
                    framed.resize(framed.len().next_multiple_of(4), 0);
                }
                holds!(
                    SameBytes,
                    framed == said.out,
                    "not the ChannelData of {} bytes on {number:#06x}",
                    said.bytes.len()
                );
            }
            None => {
                let Ok(message) = Message::parse(said.out) else {
                    return Err(Breach { law: Law::SameBytes, what: "neither channel nor Data indication".into() });
                };
                let peer = message.xor_address(Attribute::XOR_PEER_ADDRESS).and_then(Result::ok);
                let is_data = (message.class, message.method) == (Class::Indication, Method::DATA);
                holds!(SameBytes, is_data && peer == Some(said.from), "a Data indication of {peer:?}");
                holds!(SameBytes, message.get(Attribute::DATA) == Some(said.bytes), "DATA is not what came");
                is_padded_with_zeros(said.out)?;
            }
        }
        for usage in [&mut held.usage, &mut books.relayed] {
            usage.packets_to_client += 1;
            usage.bytes_to_client += bytes;
        }
        Ok(())
    }

    /// An ICMP error about what a relay address has sent.
    pub(crate) fn icmp(&mut self, host: usize, said: &FromPeer<'_>, icmp: Icmp) -> Judged {
        let now = said.now;
        let books = &mut self.hosts[host];
        let is_told = match icmp.family {
            Family::V4 => matches!(icmp.kind, 3 | 11),
            Family::V6 => matches!(icmp.kind, 1..=3),
        };
        let held = books.held.get(&said.id).filter(|held| held.leg(icmp.family, now).is_some());
        let held = held.filter(|held| held.permits(said.from.ip(), now) && is_told);
        let Some(held) = held else {
            books.drops += 1;
            holds!(
                PermissionToClient,
                matches!(said.verdict, Verdict::Dropped(_)),
                "{:?} about {}",
                said.verdict,
                said.from
            );
            return Ok(());
        };
        holds!(PermissionToClient, said.verdict == Verdict::ToClient(held.path), "{:?}", said.verdict);
        let message =
            Message::parse(said.out).map_err(|_| Breach { law: Law::SameBytes, what: "unreadable".into() })?;
        let peer = message.xor_address(Attribute::XOR_PEER_ADDRESS).and_then(Result::ok);
        holds!(
            SameBytes,
            peer == Some(said.from) && message.get(Attribute::DATA).is_none(),
            "an ICMP error of {peer:?}"
        );
        holds!(SameBytes, message.get(Attribute::ICMP).is_some_and(|value| value.len() == 8), "without ICMP");
        is_padded_with_zeros(said.out)
    }
}
