//! Tallies as Prometheus text (format 0.0.4).
//!
//! Every series of a fixed label set is there from the start, so that rates are right from the first event; `other`
//! methods appear once there are any. Reads and sums, keeps nothing of its own but the count of minted credentials.
//! No label carries a user name or an address.
#![forbid(unsafe_code)]

use super::certificates;
use super::data_plane::DataPlane;
use super::rates::{Relayed, Volume};
use crate::net::tls::Certificates;
use crate::turn::refusal::{AuthFailure, Dropped};
use crate::turn::tally::{CODES, Counter, DURATION_BOUNDS, Flow, METHODS, Tally, Transport};
use crate::wire::stun::Family;
use crate::worker::PortUse;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use prometheus::core::Collector as _;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{self, Bucket, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder as _, TextEncoder};
use std::sync::Arc;

/// What the numbers are read from.
pub struct Sources {
    /// One for each worker.
    pub tallies: Vec<Arc<Tally>>,
    /// Relay ports, asked at each reading.
    pub relay_ports: Box<dyn Fn() -> PortUse + Send + Sync>,
    /// What TLS is served with.
    pub certificates: Option<Arc<Certificates>>,
    /// Who carries the packets.
    pub data_plane: DataPlane,
}

impl Sources {
    /// Allocations that live now, of all workers.
    pub fn live_allocations(&self) -> u64 {
        let all = |tally: &Arc<Tally>| {
            let of = |transport| [Family::V4, Family::V6].map(|family| tally.allocations_of(transport, family).get());
            Transport::ALL.into_iter().flat_map(of).fold(0, u64::wrapping_add)
        };
        self.tallies.iter().map(all).fold(0, u64::wrapping_add)
    }

    /// Client connections that are open now, of all workers.
    pub fn open_connections(&self) -> u64 {
        let open = self.tallies.iter().flat_map(|tally| &tally.connections);
        open.map(Counter::get).fold(0, u64::wrapping_add)
    }

    /// Allocations and client connections there have ever been, of all workers.
    pub fn begun(&self) -> u64 {
        let of = |tally: &Arc<Tally>| tally.allocations_total.get().wrapping_add(tally.connections_total.get());
        self.tallies.iter().map(of).fold(0, u64::wrapping_add)
    }

    /// What all workers have relayed.
    pub fn relayed(&self) -> Relayed {
        let sum = |way: fn(&Tally) -> &Flow| {
            let all = |number: fn(&Flow) -> &Counter| {
                self.tallies.iter().map(|tally| number(way(tally)).get()).fold(0, u64::wrapping_add)
            };
            Volume { packets: all(|flow| &flow.packets), bytes: all(|flow| &flow.bytes) }
        };
        Relayed { to_peer: sum(|tally| &tally.to_peer), to_client: sum(|tally| &tally.to_client) }
    }
}

/// Credentials made over HTTP, by the API that asked.
#[derive(Debug, Default)]
pub struct Minted {
    /// `POST /v1/ice-servers`
    pub ice_servers: Count,
    /// `GET|POST /turn`
    pub turn: Count,
}

/// A number with many writers.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// All series, as text.
pub fn text(sources: &Sources, minted: &Minted, draining: bool) -> prometheus::Result<Vec<u8>> {
    let mut page = Page { tallies: &sources.tallies, families: Vec::new() };
    page.allocations();
    page.traffic();
    page.requests();
    page.refusals();
    page.server((sources.relay_ports)(), minted, draining);
    page.data_plane(sources.data_plane);
    if let Some(certificates) = &sources.certificates {
        page.certificates(certificates);
    }
    let mut families = page.families;
    families.extend(ProcessCollector::for_self().collect());
    families.sort_by(|one, other| one.name().cmp(other.name()));
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text)?;
    Ok(text)
}

struct Page<'a> {
    tallies: &'a [Arc<Tally>],
    families: Vec<MetricFamily>,
}

/// One series: its labels and its value now.
struct Sample(Vec<LabelPair>, u64);

impl Page<'_> {
    fn allocations(&mut self) {
        let mut live = Vec::new();
        for transport in Transport::ALL {
            for family in [Family::V4, Family::V6] {
                let now = self.sum(|tally| tally.allocations_of(transport, family));
                live.push(sample(&[("transport", transport.label()), ("family", family.name())], now));
            }
        }
        self.gauges("allocations", "Live allocations, by client transport and relay address family.", live);
        let total = self.sum(|tally| &tally.allocations_total);
        self.counter("allocations_total", "Allocations made.", total);
        let mut failures = Vec::new();
        for (i, code) in CODES.iter().enumerate() {
            let refused = self.sum(|tally| &tally.allocation_failures[i]);
            failures.push(sample(&[("code", &code.0.to_string())], refused));
        }
        self.counters("allocation_failures_total", "Allocate requests refused, by STUN error code.", failures);
        self.durations();
        let permissions = self.sum(|tally| &tally.permissions);
        self.gauge("permissions", "Live permissions.", permissions);
        let channels = self.sum(|tally| &tally.channels);
        self.gauge("channels", "Bound channels.", channels);
    }

    fn durations(&mut self) {
        let mut ended = 0;
        let mut buckets = Vec::new();
        for (i, bound) in DURATION_BOUNDS.iter().enumerate() {
            ended += self.sum(|tally| &tally.durations[i]);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound as f64);
            bucket.set_cumulative_count(ended);
            buckets.push(bucket);
        }
        ended += self.sum(|tally| &tally.durations[DURATION_BOUNDS.len()]);
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(ended);
        histogram.set_sample_sum(self.sum(|tally| &tally.durations_ms) as f64 / 1000.0);
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        let help = "How long ended allocations lived.";
        self.family("allocation_duration_seconds", help, MetricType::HISTOGRAM, vec![metric]);
    }

    fn traffic(&mut self) {
        let way = |direction, relayed| sample(&[("direction", direction), ("path", "userspace")], relayed);
        let bytes = vec![
            way("to_peer", self.sum(|tally| &tally.to_peer.bytes)),
            way("to_client", self.sum(|tally| &tally.to_client.bytes)),
        ];
        self.counters("relayed_bytes_total", "Payload bytes relayed, without any framing.", bytes);
        let packets = vec![
            way("to_peer", self.sum(|tally| &tally.to_peer.packets)),
            way("to_client", self.sum(|tally| &tally.to_client.packets)),
        ];
        self.counters("relayed_packets_total", "Datagrams relayed.", packets);
        let mut dropped = Vec::new();
        for (i, why) in Dropped::ALL.iter().enumerate() {
            dropped.push(sample(&[("reason", why.label())], self.sum(|tally| &tally.dropped[i])));
        }
        self.counters("dropped_packets_total", "Packets that went nowhere and were not answered.", dropped);
        let mut connections = Vec::new();
        for transport in Transport::ALL.into_iter().filter(|transport| *transport != Transport::Udp) {
            let open = self.sum(|tally| &tally.connections[transport as usize]);
            connections.push(sample(&[("transport", transport.label())], open));
        }
        self.gauges("connections", "Open client connections.", connections);
    }

    fn requests(&mut self) {
        let mut requests = Vec::new();
        let mut responses = Vec::new();
        for (i, method) in METHODS.iter().enumerate() {
            let of_note = |count: &u64| *count > 0 || method.name() != "other";
            for transport in Transport::ALL {
                let count = self.sum(|tally| &tally.requests[i][transport as usize]);
                let labels = [("method", method.name()), ("transport", transport.label())];
                requests.extend(Some(count).filter(of_note).map(|count| sample(&labels, count)));
            }
            let mut respond = |code: &str, count| {
                let labels = [("method", method.name()), ("code", code)];
                responses.extend(Some(count).filter(of_note).map(|count| sample(&labels, count)));
            };
            respond("success", self.sum(|tally| &tally.successes[i]));
            for (j, code) in CODES.iter().enumerate() {
                respond(&code.0.to_string(), self.sum(|tally| &tally.errors[i][j]));
            }
        }
        self.counters("stun_requests_total", "STUN and TURN requests.", requests);
        self.counters("stun_responses_total", "Responses, by error code or \"success\".", responses);
    }

    fn refusals(&mut self) {
        let mut failures = Vec::new();
        for (i, why) in AuthFailure::ALL.iter().enumerate() {
            failures.push(sample(&[("reason", why.label())], self.sum(|tally| &tally.auth_failures[i])));
        }
        let help = "Requests without valid credentials; \"missing\" is the first step of every client.";
        self.counters("auth_failures_total", help, failures);
        let denied = self.sum(|tally| &tally.peer_denied);
        self.counter("peer_denied_total", "Requests refused because of the peer's address.", denied);
        let limit = |reason, count| sample(&[("reason", reason)], count);
        let limited = vec![
            limit("unauthenticated", self.sum(|tally| &tally.limited_unauthenticated)),
            limit("bandwidth", self.sum(|tally| &tally.limited_bandwidth)),
            limit("connections", self.sum(|tally| &tally.limited_connections)),
            limit("quota", self.sum(|tally| &tally.limited_quota)),
        ];
        self.counters("rate_limited_total", "Packets, connections and allocations refused by a limit.", limited);
    }

    fn server(&mut self, ports: PortUse, minted: &Minted, draining: bool) {
        let ports = vec![sample(&[("state", "free")], ports.free), sample(&[("state", "used")], ports.used)];
        self.gauges("relay_ports", "Relay ports, over all relay addresses.", ports);
        let minted = vec![
            sample(&[("api", "ice-servers")], minted.ice_servers.get()),
            sample(&[("api", "turn")], minted.turn.get()),
        ];
        self.counters("credentials_minted_total", "Credentials made over HTTP.", minted);
        let build = vec![sample(&[("version", env!("CARGO_PKG_VERSION"))], 1)];
        self.gauges("build_info", "Always 1; the labels say what runs.", build);
        self.gauge("draining", "Whether the server takes no new work.", draining.into());
    }

    fn data_plane(&mut self, plane: DataPlane) {
        let labels = [("path", DataPlane::PATH), ("receive", plane.receive()), ("send", plane.send())];
        let help = "Always 1; the labels say which way packets take, and whether datagrams go in trains.";
        self.gauges("data_plane_info", help, vec![sample(&labels, 1)]);
    }

    fn certificates(&mut self, certificates: &Certificates) {
        let ends = certificates::expiries(certificates);
        let ends = ends.iter().map(|(name, end)| sample(&[("name", name)], *end)).collect();
        self.gauges("tls_certificate_expiry_seconds", "When each certificate ends, in seconds since 1970.", ends);
    }

    fn sum(&self, number: impl Fn(&Tally) -> &Counter) -> u64 {
        self.tallies.iter().map(|tally| number(tally).get()).fold(0, u64::wrapping_add)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.gauges(name, help, vec![sample(&[], value)]);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help, vec![sample(&[], value)]);
    }

    fn gauges(&mut self, name: &str, help: &str, samples: Vec<Sample>) {
        let gauge = |Sample(labels, value)| {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value as f64);
            let mut metric = Metric::from_label(labels);
            metric.set_gauge(gauge);
            metric
        };
        self.family(name, help, MetricType::GAUGE, samples.into_iter().map(gauge).collect());
    }

    fn counters(&mut self, name: &str, help: &str, samples: Vec<Sample>) {
        let counter = |Sample(labels, value)| {
            let mut counter = proto::Counter::default();
            counter.set_value(value as f64);
            let mut metric = Metric::from_label(labels);
            metric.set_counter(counter);
            metric
        };
        self.family(name, help, MetricType::COUNTER, samples.into_iter().map(counter).collect());
    }

    fn family(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(format!("turnserver_{name}"));
        family.set_help(help.into());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.families.push(family);
    }
}

fn sample(labels: &[(&str, &str)], value: u64) -> Sample {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).into());
        pair.set_value((*value).into());
        pair
    };
    Sample(labels.iter().map(pair).collect(), value)
}
