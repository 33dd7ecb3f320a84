//! Packets through the relay: paced, or as fast as they come out at the far end.
//!
//! In a closed loop each arrival lets the next packet of its client go, and the clients take turns; a loss is written off
//! and stalls nobody. Latency counts from just before the system call that sends a packet, in a paced load from the moment
//! the schedule had for it: there a generator that is late is part of what it measures. No allocation for a packet.
#![forbid(unsafe_code)]

use super::engine::{Engine, Stage, TICK, cars};
use super::failure::Failure;
use super::flights::NOWHERE;
use super::pace::Pace;
use super::pipe::Pipe;
use super::plan::{Direction, Peer};
use super::report::Tally;
use super::stamp::Stamp;
use crate::net::clock::monotonic;
use crate::net::udp::{BATCH, Modes, Outgoing};
use crate::time::{Duration, Instant};
use crate::wire::channel::{self, ChannelData};
use crate::wire::codes::{Attribute, Class, Method, message_type};
use crate::wire::packet::Marks;
use crate::wire::stun::Message;
use core::net::{Ipv4Addr, SocketAddr};
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd as _;

/// Silence after which nothing more is expected of a paced load.
const QUIET: Duration = Duration::from_millis(300);
/// The most that is waited for packets on their way once nothing more is sent.
const DRAIN: Duration = Duration::from_secs(2);
/// Nearer to its moment than this a thread waits for the next packet awake: timers are that late.
const NEAR: Duration = Duration::from_micros(80);
/// The first two bytes of a Data indication.
const DATA: [u8; 2] = message_type(Method::DATA, Class::Indication).to_be_bytes();

impl Engine<'_> {
    /// Sends and receives for as long as the plan says.
    pub(super) fn relay(&mut self) -> Tally {
        self.enter(Stage::Relay);
        let start = monotonic();
        self.tally = Tally::new(start);
        let senders = self.senders();
        let mut pace = self.plan.rate.map(|rate| Pace::new(start, senders.len(), rate));
        if pace.is_none() {
            senders.iter().for_each(|at| self.queue(*at));
        }
        let (end, mut tick) = (start + self.plan.lasts, start);
        loop {
            let now = monotonic();
            if now >= end || self.quota == 0 || self.is_stopped() {
                break;
            }
            let before = self.tally.sent;
            let wait = match &mut pace {
                None => {
                    self.launch();
                    self.patience(now)
                }
                Some(pace) => {
                    self.launch_due(pace, &senders, now);
                    let left = pace.due().min(end).since(monotonic());
                    if left < NEAR { Duration::ZERO } else { (left - NEAR).min(TICK) }
                }
            };
            self.turn(wait);
            if self.is_quiet() && self.tally.sent == before {
                self.tally.idle += monotonic().since(now);
            }
            if now.since(tick) >= TICK {
                tick = now;
                self.look_round(now);
            }
        }
        self.tally.ended = monotonic();
        self.drain();
        self.tally.clone()
    }

    fn drain(&mut self) {
        let start = monotonic();
        let mut last = (self.tally.received, start);
        loop {
            let now = monotonic();
            if self.tally.received != last.0 {
                last = (self.tally.received, now);
                self.tally.ended = now;
            }
            let is_over = match self.plan.rate {
                None => self.flights.under_way() == 0,
                Some(_) => self.tally.received >= self.tally.sent || now.since(last.1) > QUIET,
            };
            if is_over || now.since(start) > DRAIN || self.broken.is_some() {
                return;
            }
            self.turn(self.patience(now));
            self.look_round(now);
        }
    }

    /// What is seldom due.
    fn look_round(&mut self, now: Instant) {
        let mut lost = Vec::new();
        self.flights.write_off(now, |client| lost.push(client));
        for client in lost {
            if let Some(caller) = self.callers.get_mut(client as usize) {
                caller.under_way = caller.under_way.saturating_sub(1);
            }
            self.queue(client);
        }
        self.renew(now);
        self.shared.counted(self.thread, &self.tally);
    }

    /// The clients that packets begin with, or go to.
    fn senders(&self) -> Vec<u32> {
        let clients = 0..self.callers.len() as u32;
        match (self.plan.peer, self.plan.direction) {
            (Peer::SameServer, Direction::Down) => clients.skip(1).step_by(2).collect(),
            (Peer::SameServer, Direction::Up | Direction::Echo) => clients.step_by(2).collect(),
            (Peer::Auto | Peer::At(_), _) => clients.collect(),
        }
    }

    fn is_down(&self) -> bool {
        self.plan.direction == Direction::Down && self.plan.peer != Peer::SameServer
    }

    /// In which list a client waits for its turn: that of the socket its packets leave from, where clients share one.
    fn lane(&self, client: u32) -> usize {
        if self.is_down() { client as usize % self.ends.len().max(1) } else { 0 }
    }

    /// Gives a client its turn.
    fn queue(&mut self, client: u32) {
        let lane = self.lane(client);
        if let (Some(caller), Some(ready)) = (self.callers.get_mut(client as usize), self.ready.get_mut(lane))
            && !caller.is_queued
        {
            caller.is_queued = true;
            ready.push_back(client);
        }
    }

    /// Takes the client whose turn it is.
    fn next(&mut self, lane: usize) -> Option<u32> {
        let client = self.ready.get_mut(lane)?.pop_front()?;
        self.callers.get_mut(client as usize)?.is_queued = false;
        Some(client)
    }

    /// Sends as much as may be under way.
    fn launch(&mut self) {
        if self.is_down() {
            // The sockets take turns with batches, so that none has all the places.
            let lanes = self.ready.len().max(1);
            let mut idle = 0;
            while idle < lanes {
                self.lane = (self.lane + 1) % lanes;
                idle = if self.launch_down(self.lane) == 0 { idle + 1 } else { 0 };
            }
            return;
        }
        while self.flights.room() > 0 && self.quota > 0 && self.broken.is_none() {
            let Some(client) = self.next(0) else { break };
            // Whoever is alone sends a batch at a time, and so does whoever sends trains; otherwise all take turns.
            let is_alone = self.plan.trains || self.ready.first().is_none_or(VecDeque::is_empty);
            let room = self.room(client).min(self.flights.room());
            let sent = self.send_up(client, if is_alone { room } else { room.min(1) }, None);
            if self.room(client) > 0 {
                self.queue(client);
            }
            if sent == 0 {
                break;
            }
        }
    }

    /// How many more packets of this client may be under way.
    fn room(&self, client: u32) -> usize {
        self.callers.get(client as usize).map_or(0, |caller| self.window.saturating_sub(caller.under_way))
    }

    /// Sends what the schedule has, at most a batch: what arrives meanwhile wants to be looked at.
    fn launch_due(&mut self, pace: &mut Pace, senders: &[u32], now: Instant) {
        let most = BATCH.min(usize::try_from(self.quota).unwrap_or(BATCH));
        let mut due = [(0, Instant(0)); BATCH];
        let mut count = 0;
        for place in due.iter_mut().take(most) {
            let Some((turn, at)) = pace.take(now) else { break };
            let Some(client) = senders.get(turn) else { break };
            *place = (*client, at);
            count += 1;
        }
        let mut due = due.get(..count).unwrap_or_default();
        while let [(client, at), rest @ ..] = due {
            if !self.is_down() {
                self.send_up(*client, 1, Some(*at));
                due = rest;
                continue;
            }
            // A run that leaves from one socket.
            let lane = self.lane(*client);
            let len = 1 + rest.iter().take_while(|(client, _)| self.lane(*client) == lane).count();
            let (run, rest) = due.split_at(len);
            self.send_down(lane, run, true);
            due = rest;
        }
    }

    /// Sends packets of one client to its peer and says how many left. Without a moment of the schedule they are waited
    /// for.
    fn send_up(&mut self, client: u32, count: usize, due: Option<Instant>) -> usize {
        let count = count.min(BATCH).min(usize::try_from(self.quota).unwrap_or(BATCH));
        let now = monotonic();
        let Some(caller) = self.callers.get_mut(client as usize) else { return 0 };
        let mut slots = [NOWHERE; BATCH];
        let mut ready = 0;
        for slot in slots.iter_mut().take(count) {
            let sequence = caller.sequence.wrapping_add(ready as u32);
            if due.is_none() {
                let Some(place) = self.flights.begin(client, sequence, now) else { break };
                *slot = place;
            }
            let at = due.unwrap_or(now).since(self.tally.began).as_nanos() as u64;
            self.frames.write(ready, &caller.head, Stamp { at, client, slot: *slot, sequence });
            ready += 1;
        }
        let mut failed = 0u64;
        let mut failure = None;
        match &mut caller.pipe {
            None => failed = u64::MAX,
            Some(Pipe::Udp(socket)) if ready == 1 => {
                if let Err(error) = socket.send(self.frames.get(0)) {
                    (failed, failure) = (1, Some(error));
                }
            }
            Some(Pipe::Udp(socket)) => {
                let to = self.plan.server;
                let marks = Marks::default();
                let packets = self.frames.first(ready).map(|data| Outgoing { data, to, source: None, marks });
                self.batch.send(socket.as_fd(), &Modes::default(), packets, |at, error| {
                    failed |= 1 << at;
                    failure = Some(error);
                });
            }
            Some(Pipe::Stream(stream)) => {
                for (at, frame) in self.frames.first(ready).enumerate() {
                    if let Err(error) = stream.push(frame) {
                        failed |= 1 << at;
                        failure = Some(error);
                    }
                }
                if let Err(error) = stream.flush() {
                    failure = Some(error);
                }
            }
        }
        let first = caller.sequence;
        caller.sequence = first.wrapping_add(ready as u32);
        let mut sent = 0;
        for (at, slot) in slots.iter().take(ready).enumerate() {
            if failed >> at & 1 == 0 {
                caller.under_way += usize::from(due.is_none());
                sent += 1;
            } else {
                self.tally.not_sent += 1;
                self.flights.end(*slot, client, first.wrapping_add(at as u32));
            }
        }
        self.tally.sent += sent;
        self.quota -= sent;
        self.sent(client as usize, failure.map_or(Ok(()), Err));
        sent as usize
    }

    /// Sends one batch from a peer's socket to clients whose turn it is; how many left.
    fn launch_down(&mut self, end: usize) -> usize {
        let mut waiting = [(0, Instant(0)); BATCH];
        let most = BATCH.min(usize::try_from(self.quota).unwrap_or(BATCH)).min(self.flights.room());
        let mut count = 0;
        if self.broken.is_some() {
            return 0;
        }
        while count < most {
            let Some(client) = self.next(end) else { break };
            let room = self.room(client).min(most - count);
            let turns = if self.plan.trains { room } else { room.min(1) };
            waiting[count..count + turns].fill((client, Instant(0)));
            count += turns;
            if let Some(caller) = self.callers.get_mut(client as usize) {
                caller.under_way += turns;
            }
            if self.room(client) > 0 {
                self.queue(client);
            }
        }
        if count == 0 { 0 } else { self.send_down(end, &waiting[..count], false) }
    }

    /// Sends packets from a peer's socket to relay addresses. Unless they are paced they are waited for, and counted among
    /// those under way of their clients already.
    fn send_down(&mut self, end: usize, packets: &[(u32, Instant)], is_paced: bool) -> usize {
        let now = monotonic();
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let (mut slots, mut to) = ([(0, NOWHERE); BATCH], [nowhere; BATCH]);
        let mut count = 0;
        for (client, due) in packets {
            let Some(caller) = self.callers.get_mut(*client as usize) else { continue };
            let (Some(relayed), sequence) = (caller.relayed, caller.sequence) else { continue };
            let place = if is_paced { Some(NOWHERE) } else { self.flights.begin(*client, sequence, now) };
            let Some(slot) = place else { break };
            caller.sequence = sequence.wrapping_add(1);
            let at = if is_paced { *due } else { now }.since(self.tally.began).as_nanos() as u64;
            self.frames.write(count, &[], Stamp { at, client: *client, slot, sequence });
            slots[count] = (sequence, slot);
            to[count] = relayed;
            count += 1;
        }
        let Some(end) = self.ends.get(end) else { return 0 };
        let marks = Marks::default();
        let outgoing = self.frames.first(count).zip(to).map(|(data, to)| Outgoing { data, to, source: None, marks });
        let (mut failed, mut failure) = (0u64, None);
        self.batch.send(end.socket.as_fd(), &end.modes, outgoing, |at, error| {
            failed |= 1 << at;
            failure = Some(error);
        });
        let sent = count as u64 - u64::from(failed.count_ones());
        for (at, (client, _)) in packets.iter().enumerate().filter(|(at, _)| failed >> at & 1 == 1) {
            self.tally.not_sent += 1;
            let (sequence, slot) = slots[at];
            self.flights.end(slot, *client, sequence);
            if !is_paced {
                if let Some(caller) = self.callers.get_mut(*client as usize) {
                    caller.under_way = caller.under_way.saturating_sub(1);
                }
                self.queue(*client);
            }
        }
        self.tally.sent += sent;
        self.quota -= sent;
        if let Some(error) = failure {
            self.peer_cannot(&error);
        }
        sent as usize
    }

    fn peer_cannot(&mut self, error: &io::Error) {
        if error.kind() == io::ErrorKind::PermissionDenied || error.kind() == io::ErrorKind::NetworkUnreachable {
            let relayed = self.callers.first().and_then(|caller| caller.relayed);
            let place = relayed.map_or_else(String::new, |relayed| format!(" such as {relayed}"));
            let what = format!("peers cannot send to relay addresses{place}: {error}; name an address with --peer");
            self.broken.get_or_insert(Failure::Failed(what));
            return;
        }
        self.cannot(0, error);
    }

    /// A peer's socket has packets.
    pub(super) fn peer_hears(&mut self, end: usize) {
        let Some(place) = self.ends.get(end) else { return };
        let count = match self.batch.receive(place.socket.as_fd(), &mut self.slots) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => return self.cannot(0, &error),
        };
        let now = monotonic();
        let slots = core::mem::take(&mut self.slots);
        if self.plan.direction == Direction::Echo {
            self.turn_back(end, slots.get(..count).unwrap_or_default());
        } else {
            for (place, slot) in slots.iter().take(count).enumerate() {
                let segment = self.segment(place);
                let stamps = cars(slot.data(), segment).filter_map(Stamp::read);
                stamps.for_each(|stamp| self.arrived(stamp, now));
            }
        }
        self.slots = slots;
    }

    /// Sends packets back to where they came from.
    fn turn_back(&mut self, end: usize, slots: &[crate::wire::Packet]) {
        let mut from = [None; BATCH];
        from.iter_mut().enumerate().take(slots.len()).for_each(|(at, from)| {
            *from = self.batch.meta(at).map(|meta| (meta.from, meta.segment));
        });
        let Some(end) = self.ends.get(end) else { return };
        let marks = Marks::default();
        let trains = slots.iter().zip(from).filter_map(|(slot, from)| Some((slot.data(), from?)));
        let packets = trains.flat_map(|(data, (to, segment))| cars(data, segment).map(move |data| (data, to)));
        let mut turned = 0;
        let packets = packets.inspect(|_| turned += 1);
        let packets = packets.map(|(data, to)| Outgoing { data, to, source: None, marks });
        let (mut failed, mut failure) = (0, None);
        self.batch.send(end.socket.as_fd(), &end.modes, packets, |_, error| {
            failed += 1;
            failure = Some(error);
        });
        self.tally.turned += turned;
        self.tally.not_sent += failed;
        if let Some(error) = failure {
            self.peer_cannot(&error);
        }
    }

    /// A message for a client.
    pub(super) fn relay_hears(&mut self, at: usize, bytes: &[u8], now: Instant) {
        let payload = match bytes {
            [0x40..=0x7F, ..] => {
                ChannelData::parse(bytes).ok().and_then(|data| bytes.get(channel::HEAD..channel::HEAD + data.length))
            }
            [first, second, ..] if [*first, *second] == DATA => {
                Message::parse(bytes).ok().and_then(|message| message.get(Attribute::DATA))
            }
            _ => return self.task_hears(at, bytes, now),
        };
        let Some(stamp) = payload.and_then(Stamp::read) else { return };
        let is_own = stamp.client == at as u32;
        if self.plan.peer != Peer::SameServer {
            if is_own {
                self.arrived(stamp, now);
            }
        } else if self.plan.direction != Direction::Echo || is_own {
            self.arrived(stamp, now);
        } else {
            self.tally.turned += 1;
            self.reply(at, stamp);
        }
    }

    /// Sends a partner's packet back.
    fn reply(&mut self, at: usize, stamp: Stamp) {
        let Some(caller) = self.callers.get_mut(at) else { return };
        self.frames.write(0, &caller.head, stamp);
        let Some(pipe) = &mut caller.pipe else { return };
        let sent = pipe.send(self.frames.get(0));
        if !self.sent(at, sent) {
            self.tally.not_sent += 1;
        }
    }

    /// A packet has come to its end.
    fn arrived(&mut self, stamp: Stamp, now: Instant) {
        let Some(caller) = self.callers.get_mut(stamp.client as usize) else { return };
        if stamp.slot != NOWHERE {
            if !self.flights.end(stamp.slot, stamp.client, stamp.sequence) {
                self.tally.late += 1;
                return;
            }
            caller.under_way = caller.under_way.saturating_sub(1);
        }
        if stamp.sequence < caller.newest {
            self.tally.out_of_order += 1;
        }
        caller.newest = caller.newest.max(stamp.sequence);
        self.tally.received += 1;
        self.tally.took(now.since(self.tally.began).as_nanos() as u64 - stamp.at.min(now.0 - self.tally.began.0));
        if stamp.slot != NOWHERE {
            self.queue(stamp.client);
        }
    }
}
