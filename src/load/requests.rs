//! Requests in a closed loop: Binding, or Refresh of allocations.
//!
//! Each client has a window of requests that are written and signed beforehand, so that the server is what is measured; an
//! answer lets the same request go again. What is not answered in time is written off and asked again.
#![forbid(unsafe_code)]

use super::engine::{Engine, Stage, TICK};
use super::failure::{Failure, Refusal};
use super::flights::PATIENCE;
use super::plan::Kind;
use super::report::Tally;
use super::script::TRANSACTION;
use crate::client::{Client, Heard};
use crate::net::clock::monotonic;
use crate::time::Instant;
use crate::wire::codes::{Class, HEADER, Method, message_type};
use std::collections::VecDeque;

/// The requests of all clients of one thread: those of one client stand side by side.
#[derive(Debug, Default)]
pub(super) struct Requests {
    prepared: Vec<Prepared>,
    /// Places of requests that may be sent, in the order of their turns.
    waiting: VecDeque<u32>,
    under_way: usize,
}

/// A request, and since when it is under way.
#[derive(Debug)]
struct Prepared {
    bytes: Vec<u8>,
    since: Option<Instant>,
}

impl Engine<'_> {
    /// Asks for as long as the plan says.
    pub(super) fn ask(&mut self) -> Tally {
        self.enter(Stage::Requests);
        self.prepare();
        if let Err(failure) = (0..self.callers.len()).try_for_each(|at| self.open_pipe(at)) {
            self.broken = Some(failure);
        }
        let start = monotonic();
        self.tally = Tally::new(start);
        let (end, mut tick) = (start + self.plan.lasts, start);
        let most = self.flights.room();
        loop {
            let now = monotonic();
            if now >= end || self.quota == 0 || self.is_stopped() {
                break;
            }
            let before = self.tally.sent;
            while self.requests.under_way < most && self.quota > 0 && self.broken.is_none() {
                let Some(place) = self.requests.waiting.pop_front() else { break };
                self.ask_once(place as usize);
            }
            self.turn(self.patience(now));
            if self.is_quiet() && self.tally.sent == before {
                self.tally.idle += monotonic().since(now);
            }
            if now.since(tick) >= TICK {
                tick = now;
                self.give_up(now);
                self.shared.counted(self.thread, &self.tally);
            }
        }
        self.tally.ended = monotonic();
        while self.requests.under_way > 0 && monotonic().since(self.tally.ended) < PATIENCE && self.broken.is_none() {
            self.turn(self.patience(monotonic()));
        }
        self.tally.clone()
    }

    fn prepare(&mut self) {
        let method = self.asked();
        let (window, clients) = (self.window, self.callers.len());
        let prepared = self.callers.iter_mut().flat_map(|caller| {
            let client = caller.script.client();
            let requests: Vec<Prepared> =
                (0..window).map(|_| Prepared { bytes: write(client, method), since: None }).collect();
            requests
        });
        let prepared = prepared.collect();
        // All clients have their turn before one has its second.
        let waiting = (0..window).flat_map(|turn| (0..clients).map(move |at| (at * window + turn) as u32)).collect();
        self.requests = Requests { prepared, waiting, under_way: 0 };
    }

    fn asked(&self) -> Method {
        if self.plan.kind == Kind::Binding { Method::BINDING } else { Method::REFRESH }
    }

    fn ask_once(&mut self, place: usize) {
        let at = place / self.window;
        let Some(pipe) = self.callers.get_mut(at).and_then(|caller| caller.pipe.as_mut()) else { return };
        let Some(request) = self.requests.prepared.get_mut(place) else { return };
        let sent = pipe.send(&request.bytes);
        request.since = Some(monotonic());
        self.requests.under_way += 1;
        // What the kernel did not take is given up in time, like anything that gets no answer.
        if self.sent(at, sent) {
            self.tally.sent += 1;
            self.quota -= 1;
        } else {
            self.tally.not_sent += 1;
        }
    }

    /// A message for a client.
    pub(super) fn request_hears(&mut self, at: usize, bytes: &[u8], now: Instant) {
        let first = at * self.window;
        let number = |bytes: &[u8]| bytes.get(TRANSACTION)?.last_chunk().copied().map(u64::from_be_bytes);
        let turn =
            self.requests.prepared.get(first).and_then(|first| number(bytes)?.checked_sub(number(&first.bytes)?));
        let Some(place) = turn.map(|turn| turn as usize).filter(|turn| *turn < self.window) else { return };
        let place = first + place;
        let Some(request) = self.requests.prepared.get_mut(place) else { return };
        if bytes.get(TRANSACTION) != request.bytes.get(TRANSACTION) || bytes.len() < HEADER {
            return;
        }
        let Some(since) = request.since.take() else {
            self.tally.late += 1;
            return;
        };
        self.requests.under_way -= 1;
        self.requests.waiting.push_back(place as u32);
        if bytes.starts_with(&message_type(self.asked(), Class::Success).to_be_bytes()) {
            self.tally.received += 1;
            self.tally.took(now.since(since).as_nanos() as u64);
            return;
        }
        self.refused(at, bytes);
    }

    /// A nonce that has grown old is a reason to sign again; anything else ends the load.
    fn refused(&mut self, at: usize, bytes: &[u8]) {
        let method = self.asked();
        let Some(caller) = self.callers.get_mut(at) else { return };
        let client = caller.script.client();
        match client.hear(bytes) {
            Ok(Heard::Error { is_challenge: true, .. }) if method == Method::REFRESH => {
                let first = at * self.window;
                let requests = self.requests.prepared.iter_mut().skip(first).take(self.window);
                for request in requests {
                    request.bytes = write(client, method);
                    // Those under way are given up: their answers name transactions that are gone.
                }
            }
            Ok(Heard::Error { code, .. }) => {
                let refusal = Refusal { method, code, peer: None, before: 0 };
                self.broken.get_or_insert(Failure::Refused(refusal));
            }
            Ok(Heard::Success(_) | Heard::Data { .. } | Heard::Icmp { .. } | Heard::ChannelData { .. }) | Err(_) => {}
        }
    }

    fn give_up(&mut self, now: Instant) {
        let Requests { prepared, waiting, under_way } = &mut self.requests;
        for (place, request) in (0..).zip(prepared) {
            if request.since.is_some_and(|since| now.since(since) > PATIENCE) {
                request.since = None;
                *under_way -= 1;
                waiting.push_back(place);
            }
        }
    }
}

fn write(client: &mut Client, method: Method) -> Vec<u8> {
    if method == Method::BINDING { client.binding() } else { client.refresh(None) }
}
