//! How long the core takes with one allocation and with very many, and the longest that it keeps a packet waiting.
//!
//! `cargo bench --bench table` first measures one packet each way and a Refresh beside 1 to 100,000 allocations, then prints
//! the longest single steps: 100,000 allocations that expire in one tick, a reload that looks at all of them, and the
//! Allocate that makes the table grow. A worker does one thing at a time, so each is what a packet waits for at worst.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a tool for people")]

#[path = "support/clock.rs"]
mod clock;
#[path = "support/world.rs"]
mod world;

use clock::timed;
use criterion::{BenchmarkId, Criterion};
use std::sync::Arc;
use turnserver::client::channel_data;
use turnserver::time::{minutes, seconds};
use turnserver::turn::{Input, Verdict};
use world::{CHANNEL, SIZE, World, media, policy};

const SIZES: [usize; 6] = [1, 10, 100, 1_000, 10_000, 100_000];
/// Allocations in the worlds that show the longest steps.
const MANY: usize = 100_000;
/// Each step is the shortest of so many: what else the machine did is not the step's.
const ROUNDS: usize = 3;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for size in SIZES {
        packets(&mut criterion, size);
    }
    criterion.final_summary();
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    longest_steps();
}

fn packets(criterion: &mut Criterion, size: usize) {
    let mut world = World::new(size);
    let payload = media(SIZE);
    let framed = channel_data(CHANNEL, &payload);
    // A prime steps through all of them without an order that a table or a cache could have.
    let mut next = 0;
    let mut turn = |world: &World| {
        next = (next + 7919) % world.calls.len();
        next
    };
    let mut group = criterion.benchmark_group("beside");
    group.bench_function(BenchmarkId::new("ChannelData to peer", size), |bench| {
        bench.iter(|| {
            let at = turn(&world);
            let path = world.calls[at].path;
            world.packet.fill(&framed);
            assert!(matches!(world.step(Input::Client(path)), Verdict::ToPeer { .. }));
        });
    });
    group.bench_function(BenchmarkId::new("ChannelData to client", size), |bench| {
        bench.iter(|| {
            let at = turn(&world);
            let peer = world.calls[at].peer;
            assert!(matches!(world.hears(at, peer, &payload), Verdict::ToClient(_)));
        });
    });
    let refreshes: Vec<Vec<u8>> = world.calls.iter_mut().map(|call| call.client.refresh(None)).collect();
    group.bench_function(BenchmarkId::new("Refresh", size), |bench| {
        bench.iter(|| {
            let at = turn(&world);
            let path = world.calls[at].path;
            assert!(matches!(world.says(path, &refreshes[at]), Verdict::ToClient(_)));
        });
    });
    group.finish();
}

fn longest_steps() {
    let mut joins = vec![f64::INFINITY; MANY];
    let (mut reload, mut expiry) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        let mut world = World::empty();
        world.calls.reserve(MANY); // what the bench itself holds must not grow meanwhile
        for shortest in &mut joins {
            *shortest = shortest.min(timed(|| world.joins()));
        }
        let again = Arc::new(policy());
        reload = reload.min(timed(|| world.server.set_policy(world.now, again, &mut world.effects)));
        assert!(world.effects.is_empty(), "the same rules end nothing");
        world.waits(minutes(9)); // what only sweeps permissions is done
        world.ticks();
        world.waits(seconds(61));
        let mut longest: f64 = 0.0;
        while world.server.deadline().is_some_and(|deadline| deadline <= world.now.mono) {
            longest = longest.max(timed(|| world.tick()));
        }
        expiry = expiry.min(longest);
        assert_eq!(world.effects.len(), MANY, "all of them end at once");
    }
    joins.sort_by(f64::total_cmp);
    println!("\n| the longest single step of the core, {MANY} allocations | ms |\n| --- | --- |");
    println!("| the longest tick while all of them expire at once | {:.2} |", 1e3 * expiry);
    println!("| a reload looks at all of them | {:.2} |", 1e3 * reload);
    println!("| the longest of their Allocates, with the client's part | {:.2} |", 1e3 * joins[MANY - 1]);
    println!("| half of their Allocates take no longer than | {:.3} |", 1e3 * joins[MANY / 2]);
}
