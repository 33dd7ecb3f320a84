//! Whether a clock can tell the two sides of a pair apart: `cargo run --release --example timing -- --samples 1000000`.
//!
//! For each pair of `tests/timing` and for API keys: many requests of either side in an order that chance makes, the
//! slowest of them left out as noise of the machine, and Welch's t of the two means. |t| above 4.5 in run after run is a
//! leak; once, on a busy machine, it is a busy machine. `tests/timing.rs` counts instructions and needs no judgement.
#![forbid(unsafe_code)]
#![expect(clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a tool that measures time")]

#[path = "../tests/timing/cases.rs"]
mod cases;

use cases::{Pair, World};
use clap::Parser;
use std::hint::black_box;
use std::time::Instant;
use turnserver::config::{ApiKey, Scope};
use turnserver::control::keys::{Keyring, Presented};
use turnserver::turn::credential::Secret;

#[derive(Parser)]
#[command(about = "Measures whether refusals can be told apart by the time they take.")]
struct Args {
    /// Requests for each pair, both sides together.
    #[arg(long, default_value_t = 200_000)]
    samples: usize,
    /// How much of the slow end is left out, in percent.
    #[arg(long, default_value_t = 10)]
    crop: usize,
}

/// The bar of dudect and of most who use the test: chance alone passes it once in 150,000 runs.
const SUSPICIOUS: f64 = 4.5;

fn main() {
    let args = Args::parse();
    println!("{:<16} {:>10} {:>10} {:>8}", "pair", "first, ns", "second, ns", "t");
    for pair in Pair::ALL {
        let mut world = World::new(pair);
        let sample = |side| {
            world.fill(side);
            timed(|| world.ask())
        };
        report(&format!("{pair:?}"), &args, sample);
    }
    let key = "a-key-of-the-operator-0123456789";
    let ring = Keyring::new(&[ApiKey { id: "id".into(), secret: Secret::new(key), scopes: vec![Scope::Mint] }]);
    let wrong = [format!("b{}", &key[1..]), format!("{}0", &key[..key.len() - 1])].map(|key| Presented::bare(&key));
    report("ApiKey", &args, |side| {
        timed(|| {
            black_box(ring.check(Some(&wrong[side]), Scope::Mint)).expect_err("a wrong key");
        })
    });
}

fn timed(mut what: impl FnMut()) -> f64 {
    let start = Instant::now();
    what();
    start.elapsed().as_nanos() as f64
}

fn report(name: &str, args: &Args, mut sample: impl FnMut(usize) -> f64) {
    let mut times = [Vec::new(), Vec::new()];
    // xorshift64: which side comes next must not follow any beat of the machine.
    let mut chance = 0x9E37_79B9_7F4A_7C15_u64;
    for _ in 0..args.samples {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        let side = (chance >> 40) as usize % 2;
        times[side].push(sample(side));
    }
    // One bar for both sides: a bar each would cut a difference away.
    let mut all = times.concat();
    all.sort_by(f64::total_cmp);
    let slow = all.get(all.len() * (100 - args.crop.min(99)) / 100).copied().unwrap_or(f64::MAX);
    times.iter_mut().for_each(|times| times.retain(|time| *time <= slow));
    let [first, second] = times.each_ref().map(|times| Moments::of(times));
    let t = (first.mean - second.mean) / (first.error() + second.error()).sqrt();
    let remark = if t.abs() > SUSPICIOUS { "  look again" } else { "" };
    println!("{name:<16} {:>10.1} {:>10.1} {t:>8.2}{remark}", first.mean, second.mean);
}

struct Moments {
    count: f64,
    mean: f64,
    variance: f64,
}

impl Moments {
    fn of(times: &[f64]) -> Self {
        let count = times.len() as f64;
        let mean = times.iter().sum::<f64>() / count;
        let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        Self { count, mean, variance }
    }

    /// The squared error of the mean.
    fn error(&self) -> f64 {
        self.variance / self.count
    }
}
