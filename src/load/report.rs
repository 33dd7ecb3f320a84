//! What a load found: counted by each thread, added up, and told as one value.
//!
//! The field names are those of the JSON line; docs/load.md explains each of them.
#![forbid(unsafe_code)]

use super::plan::{Direction, Kind, Mode};
use crate::time::{Duration, Instant};
use hdrhistogram::Histogram;
use serde::Serialize;

/// What one thread has counted, or all of them.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Packets or requests that left.
    pub sent: u64,
    /// Packets that arrived at the far end, or answers.
    pub received: u64,
    /// Of an echo: packets that arrived at the peer.
    pub turned: u64,
    /// Packets that arrived behind a later one of their client.
    pub out_of_order: u64,
    /// Packets that came after they had been written off.
    pub late: u64,
    /// Packets that this host did not take.
    pub not_sent: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// When the first was due.
    pub began: Instant,
    /// When the last one left or arrived.
    pub ended: Instant,
    /// Time in which there was nothing to do.
    pub idle: Duration,
    latency: Histogram<u64>,
}

/// The longest time that is told apart.
const LATENCY_MAX: u64 = 60_000_000_000; // nanoseconds
/// Digits of a time that are kept.
const DIGITS: u8 = 3;

impl Tally {
    /// Nothing yet; it begins now.
    pub fn new(now: Instant) -> Self {
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX, DIGITS).expect("1 is below half of the highest");
        Self {
            sent: 0,
            received: 0,
            turned: 0,
            out_of_order: 0,
            late: 0,
            not_sent: 0,
            refused: 0,
            began: now,
            ended: now,
            idle: Duration::ZERO,
            latency,
        }
    }

    /// Notes how long one packet took.
    pub fn took(&mut self, nanos: u64) {
        self.latency.saturating_record(nanos.max(1));
    }

    /// Adds what another thread has counted.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.turned += other.turned;
        self.out_of_order += other.out_of_order;
        self.late += other.late;
        self.not_sent += other.not_sent;
        self.refused += other.refused;
        self.began = self.began.min(other.began);
        self.ended = self.ended.max(other.ended);
        self.idle += other.idle;
        // Both have the same bounds.
        let _infallible = self.latency.add(&other.latency);
    }

    /// How long it all took.
    pub fn lasted(&self) -> Duration {
        self.ended.since(self.began)
    }

    /// The quantiles in microseconds; `None` when nothing arrived.
    pub fn quantiles(&self) -> Option<Quantiles> {
        let at = |quantile| rounded(self.latency.value_at_quantile(quantile) as f64 / 1000.0);
        (!self.latency.is_empty()).then(|| Quantiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: rounded(self.latency.max() as f64 / 1000.0),
        })
    }
}

/// Microseconds that so many of all packets took at most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half of them.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p99_9: f64,
    /// All.
    pub max: f64,
}

/// What a load found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What the clients did.
    pub kind: Kind,
    /// How they reached the server.
    pub transport: &'static str,
    /// How many there were.
    pub clients: usize,
    /// How many threads played them.
    pub threads: usize,
    /// From the first packet or request to the last, in seconds.
    pub seconds: f64,
    /// Whether it was ended before its time.
    pub interrupted: bool,
    /// Of relayed packets alone.
    #[serde(flatten)]
    pub relay: Option<Relayed>,
    /// Packets or requests that left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<u64>,
    /// Packets that arrived at the far end, or answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<u64>,
    /// Those that left and did not arrive in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// The same, as a part of those that left: 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Those that came after they were counted as lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late: Option<u64>,
    /// Those that this host's kernel did not take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_sent: Option<u64>,
    /// Binding requests answered in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bindings_per_second: Option<f64>,
    /// Refresh requests answered in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refreshes_per_second: Option<f64>,
    /// How long a packet took, one way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<Quantiles>,
    /// How long a packet took there and back, or an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<Quantiles>,
    /// How many allocations were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocations: Option<usize>,
    /// How many in a second, challenges included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocations_per_second: Option<f64>,
    /// Allocations whose end the server did not confirm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreleased: Option<usize>,
    /// What it cost the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Cost>,
    /// What it cost this program.
    pub generator: Own,
}

/// What only a load of relayed packets has.
#[derive(Clone, Debug, Serialize)]
pub struct Relayed {
    /// Which way packets went.
    pub direction: Direction,
    /// How they were framed.
    pub mode: Mode,
    /// The address of the peers, or `same-server`.
    pub peer: String,
    /// Bytes of payload in each.
    pub size: usize,
    /// Packets a second and client, where they were paced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Packets under way of one client, where they were not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// Packets that arrived in a second.
    pub pps: f64,
    /// Bits of payload that arrived in a second.
    pub bit_per_second: f64,
    /// Packets that arrived behind a later one of their client.
    pub out_of_order: u64,
    /// From when times are counted: `schedule` or `send`.
    pub latency_from: &'static str,
}

/// What a load cost the server.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cost {
    /// Its process.
    pub pid: u32,
    /// CPU time of all its threads, as a part of one core: 1 is all of it.
    pub cpu_share: f64,
    /// CPU microseconds for each packet that came out at a far end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_packet: Option<f64>,
    /// CPU microseconds for each answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_request: Option<f64>,
    /// CPU microseconds for each allocation, challenge included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_allocation: Option<f64>,
    /// By how much its resident memory grew for each allocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_allocation: Option<f64>,
}

/// What a load cost this program.
#[derive(Clone, Debug, Serialize)]
pub struct Own {
    /// CPU time, as a part of one core.
    pub cpu_share: f64,
    /// The part of its threads' time in which they had something to do. Near 1, this program is what limits the load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy: Option<f64>,
}

/// Three digits behind the point: more would be noise.
pub(super) fn rounded(value: f64) -> f64 {
    if value.is_finite() { (value * 1000.0).round() / 1000.0 } else { 0.0 }
}

/// `count` in a second.
pub(super) fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { rounded(count as f64 / time.as_secs_f64()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_counted_adds_up() {
        let mut one = Tally::new(Instant(2_000_000_000));
        let mut two = Tally::new(Instant(1_000_000_000));
        (one.sent, two.sent, two.ended) = (3, 4, Instant(3_000_000_000));
        (1..=50).for_each(|us| one.took(us * 1000));
        (51..=100).for_each(|us| two.took(us * 1000));
        one.add(&two);
        assert_eq!((one.sent, one.lasted()), (7, Duration::from_secs(2)));
        let quantiles = one.quantiles().unwrap();
        for (value, expected) in [(quantiles.p50, 50.0), (quantiles.p90, 90.0), (quantiles.max, 100.0)] {
            assert!((value - expected).abs() < 0.2, "{quantiles:?}");
        }
        assert_eq!(Tally::new(Instant(0)).quantiles(), None);
    }

    #[test]
    fn a_second_of_nothing_is_no_rate() {
        assert_eq!((per_second(5, Duration::ZERO), per_second(5, Duration::from_millis(2500))), (0.0, 2.0));
        assert_eq!(rounded(f64::NAN), 0.0);
    }
}
