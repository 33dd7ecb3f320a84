//! Random worlds by the thousand: `cargo run --profile sim --no-default-features --example sim -- --seeds 20000`.
//!
//! Shows progress, goes on where it stopped, and says for every seed that fails how to see that world again. The worlds
//! themselves are those of `tests/sim`.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a tool for a terminal")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a judge names what a law is about, and takes the rest together")]

#[path = "../tests/sim/auditor.rs"]
mod auditor;
#[path = "../tests/sim/chance.rs"]
mod chance;
#[path = "../tests/sim/client.rs"]
mod client;
#[path = "../tests/sim/fault.rs"]
mod fault;
#[path = "../tests/sim/host.rs"]
mod host;
#[expect(dead_code, reason = "only the tests tell lies")]
#[path = "../tests/sim/lie.rs"]
mod lie;
#[path = "../tests/sim/rules.rs"]
mod rules;
#[path = "../tests/sim/world.rs"]
mod world;

use clap::Parser;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

#[derive(Parser)]
#[command(about = "Runs simulated worlds and checks every step of each against the 21 invariants.")]
struct Args {
    /// How many worlds, one a seed.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Only this seed, with all that happens in it.
    #[arg(long)]
    seed: Option<u64>,
    /// Threads; a world is the same whichever runs it.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
    /// A file that keeps how far this came, and which seeds failed; a run that finds it goes on from there.
    #[arg(long)]
    resume: Option<PathBuf>,
}

#[derive(Default)]
struct Sum {
    steps: u64,
    lasted: Duration,
    allocations: u64,
    relayed: u64,
    faults: BTreeMap<&'static str, u64>,
    tested: BTreeMap<u8, u64>,
    failed: Vec<u64>,
}

/// Worlds between two words on progress, and between two notes of how far it came.
const CHUNK: u64 = 500;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.seed {
        return match world::run(seed, true) {
            Ok(story) => {
                println!("{story:#?}");
                ExitCode::SUCCESS
            }
            Err(failure) => {
                shows(seed, &failure);
                ExitCode::FAILURE
            }
        };
    }
    let kept = args.resume.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    let mut kept = kept.split_whitespace().filter_map(|number| number.parse().ok());
    let begin = kept.next().unwrap_or(args.first).max(args.first);
    let end = args.first + args.seeds;
    if begin > args.first {
        println!("going on at seed {begin}");
    }
    let sum = Mutex::new(Sum { failed: kept.collect(), ..Sum::default() });
    let mut at = begin;
    while at < end {
        let until = end.min(at + CHUNK);
        let next = AtomicU64::new(at);
        std::thread::scope(|scope| {
            for _ in 0..args.threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Relaxed);
                        if seed >= until {
                            return;
                        }
                        let ran = world::run(seed, false);
                        adds(&mut sum.lock().expect("no thread panics"), seed, ran);
                    }
                });
            }
        });
        at = until;
        let sum = sum.lock().expect("no thread panics");
        if let Some(file) = &args.resume {
            let numbers = [at].iter().chain(&sum.failed).map(u64::to_string).collect::<Vec<_>>().join(" ");
            std::fs::write(file, numbers).expect("the file can be written");
        }
        progress(at - args.first, args.seeds, &sum);
        if sum.failed.len() > 20 {
            break;
        }
    }
    let sum = sum.into_inner().expect("no thread panics");
    let years = sum.lasted.as_secs_f64() / (365.25 * 86_400.0);
    println!("{} worlds, {} steps, {years:.2} simulated years", at - begin, sum.steps);
    println!("{} allocations, {} datagrams relayed", sum.allocations, sum.relayed);
    println!("faults: {:?}", sum.faults);
    println!("invariants tested: {:?}", sum.tested);
    match sum.failed.as_slice() {
        [] => ExitCode::SUCCESS,
        failed => {
            println!("{} failed: {failed:?}; see one again with --seed {}", failed.len(), failed[0]);
            ExitCode::FAILURE
        }
    }
}

fn adds(sum: &mut Sum, seed: u64, ran: Result<world::Story, world::Failure>) {
    match ran {
        Ok(story) => {
            sum.steps += story.steps;
            sum.lasted += story.lasted;
            sum.allocations += story.allocations;
            sum.relayed += story.relayed;
            story.faults.into_iter().for_each(|(fault, count)| *sum.faults.entry(fault).or_default() += count);
            story.tested.into_iter().for_each(|(law, count)| *sum.tested.entry(law).or_default() += count);
        }
        Err(failure) => {
            shows(seed, &failure);
            sum.failed.push(seed);
        }
    }
}

fn shows(seed: u64, failure: &world::Failure) {
    println!("seed {seed}: invariant {} at step {}: {}", failure.law, failure.step, failure.what);
    failure.trace.iter().for_each(|line| println!("    {line}"));
}

fn progress(done: u64, of: u64, sum: &Sum) {
    let is_terminal = std::io::stdout().is_terminal();
    let (before, after) = if is_terminal { ("\r", "") } else { ("", "\n") };
    print!("{before}{done} of {of} worlds, {} failed{after}", sum.failed.len());
    let _ = std::io::stdout().flush();
    if done == of && is_terminal {
        println!();
    }
}
