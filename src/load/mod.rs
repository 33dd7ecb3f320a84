//! The load generator: many clients of any TURN server at once, and what the server made of them.
//!
//! Owns the order of things: all threads open and set up, all measure at the same time, all release. What was allocated is
//! released whatever happens, a signal included. Knows the protocol and nothing of this project's server: it never names
//! `turn`, so that what it measures is what any client would see.
#![forbid(unsafe_code)]

mod engine;
mod failure;
mod flights;
mod frames;
mod pace;
mod pipe;
mod plan;
mod process;
mod relay;
mod report;
mod requests;
mod script;
mod stamp;
mod uri;

pub use failure::{Failure, Refusal};
pub use flights::Flights;
pub use pace::Pace;
pub use plan::{Direction, Kind, Mode, Peer, Plan, Transport};
pub use process::Process;
pub use report::{Cost, Own, Quantiles, Relayed, Report, Tally};
pub use script::{Script, Silence, Task, Verdict};
pub use stamp::Stamp;
pub use uri::{Uri, Way};

use crate::net;
use crate::net::clock::monotonic;
use crate::time::{Duration, Instant};
use core::ops::ControlFlow;
use engine::{Engine, SPARE};
use report::{per_second, rounded};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;

/// How far a load is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many of all clients are set up, or have done the present step of it.
    SetUp {
        /// Those that are.
        done: usize,
        /// All.
        clients: usize,
    },
    /// It runs.
    Running {
        /// Packets or requests sent.
        sent: u64,
        /// Of those, arrived or answered.
        received: u64,
        /// Since when.
        elapsed: Duration,
    },
    /// Allocations are released.
    Releasing,
}

/// How often progress is told.
const TELL: Duration = Duration::from_millis(100);

/// Does what the plan says. `progress` is told now and then how far it is, and may end it early: then the report is of what
/// was done.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Report, Failure> {
    plan.check()?;
    let needed = plan.clients + plan.threads * (plan.peers + 2) + SPARE;
    let limit = net::raise_file_limit().map_err(|error| Failure::Failed(format!("the file limit: {error}")))?;
    if needed as u64 > limit {
        return Err(Failure::Failed(format!(
            "--clients {} needs {needed} open files, and this process may have {limit}: raise the limit (ulimit -n)",
            plan.clients
        )));
    }
    let gauge = Gauge::new(plan)?;
    let shared = Shared::new(plan.threads);
    thread::scope(|scope| {
        let (tell, told) = channel();
        let mut crew = Crew { orders: Vec::new(), told, plan, shared: &shared, progress, is_interrupted: false };
        for number in 0..plan.threads {
            let (order, orders) = channel();
            crew.orders.push(order);
            let (tell, shared) = (tell.clone(), &shared);
            let spawned = thread::Builder::new().name(format!("load-{number}")).spawn_scoped(scope, move || {
                work(plan, shared, number, &orders, &tell);
            });
            spawned.map_err(|error| Failure::Failed(format!("no thread: {error}")))?;
        }
        drop(tell);
        crew.lead(gauge)
    })
}

/// What threads and their leader see of each other.
pub(in crate::load) struct Shared {
    /// Everything is to end.
    stop: AtomicBool,
    meters: Vec<Meter>,
}

#[derive(Default)]
#[repr(align(64))]
struct Meter {
    set_up: AtomicUsize,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Shared {
    fn new(threads: usize) -> Self {
        Self { stop: AtomicBool::new(false), meters: (0..threads).map(|_| Meter::default()).collect() }
    }

    fn set_up(&self, thread: usize, done: usize) {
        if let Some(meter) = self.meters.get(thread) {
            meter.set_up.store(done, Ordering::Relaxed);
        }
    }

    fn counted(&self, thread: usize, tally: &Tally) {
        if let Some(meter) = self.meters.get(thread) {
            meter.sent.store(tally.sent, Ordering::Relaxed);
            meter.received.store(tally.received, Ordering::Relaxed);
        }
    }

    fn sum<T: core::iter::Sum>(&self, of: impl FnMut(&Meter) -> T) -> T {
        self.meters.iter().map(of).sum()
    }
}

/// What a thread is to do next.
enum Order {
    SetUp,
    Load,
    Release,
}

/// What a thread has done.
enum Told {
    Open,
    /// Its last allocation was made at this moment; so many were made.
    SetUp(Instant, usize),
    Loaded(Box<Tally>),
    Released(usize),
    Failed(Failure),
}

fn work(plan: &Plan, shared: &Shared, number: usize, orders: &Receiver<Order>, tell: &Sender<Told>) {
    let mut engine = match Engine::open(plan, shared, number) {
        Ok(engine) => engine,
        Err(failure) => {
            let _nobody_listens = tell.send(Told::Failed(failure));
            return;
        }
    };
    let mut told = Told::Open;
    loop {
        if tell.send(told).is_err() {
            return;
        }
        let Ok(order) = orders.recv() else { return };
        told = match order {
            Order::SetUp => match engine.set_up() {
                Ok(allocated) => Told::SetUp(allocated, engine.allocations()),
                Err(failure) => Told::Failed(failure),
            },
            Order::Load => {
                let tally = if plan.kind == Kind::Relay { engine.relay() } else { engine.ask() };
                match engine.broken.take() {
                    None => Told::Loaded(Box::new(tally)),
                    Some(failure) => Told::Failed(failure),
                }
            }
            Order::Release => Told::Released(engine.release()),
        };
    }
}

/// The threads, as their leader sees them.
struct Crew<'a> {
    orders: Vec<Sender<Order>>,
    told: Receiver<Told>,
    plan: &'a Plan,
    shared: &'a Shared,
    progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    is_interrupted: bool,
}

impl Crew<'_> {
    fn lead(&mut self, mut gauge: Gauge) -> Result<Report, Failure> {
        let plan = self.plan;
        self.all(|crew| crew.set_up_so_far())?;
        let began = monotonic();
        gauge.mark()?;
        let mut made = (began, 0);
        let mut tally = Tally::new(began);
        let mut loaded = Ok(());
        if plan.kind.allocates() {
            self.order(|| Order::SetUp);
            loaded = self.each(Self::set_up_so_far, |told| {
                if let Told::SetUp(at, count) = told {
                    made = (made.0.max(at), made.1 + count);
                }
            });
            gauge.allocated()?;
        }
        if loaded.is_ok() && !self.is_interrupted && plan.kind != Kind::Allocate {
            gauge.mark()?;
            let start = monotonic();
            tally = Tally::new(start);
            self.order(|| Order::Load);
            let running = |crew: &Self| Progress::Running {
                sent: crew.shared.sum(|meter| meter.sent.load(Ordering::Relaxed)),
                received: crew.shared.sum(|meter| meter.received.load(Ordering::Relaxed)),
                elapsed: monotonic().since(start),
            };
            loaded = self.each(running, |told| {
                if let Told::Loaded(other) = told {
                    tally.add(&other);
                }
            });
        }
        let cost = gauge.read(&tally, plan, made.1);
        let unreleased = self.release();
        loaded?;
        if tally.sent > 0 && tally.received == 0 && !self.is_interrupted {
            return Err(Failure::nothing_arrived(plan, tally.sent, engine::peer_address(plan)?));
        }
        let (server, generator) = cost?;
        if unreleased > 0 && unreleased == made.1 && !self.is_interrupted {
            return Err(Failure::nobody_released(plan, unreleased));
        }
        Ok(report(plan, &tally, self.is_interrupted, (made.1, made.0.since(began), unreleased), server, generator))
    }

    fn set_up_so_far(&self) -> Progress {
        let done = self.shared.sum(|meter| meter.set_up.load(Ordering::Relaxed));
        Progress::SetUp { done, clients: self.plan.clients }
    }

    fn release(&mut self) -> usize {
        let mut unreleased = 0;
        if !self.plan.kind.allocates() {
            return unreleased;
        }
        // A signal that has come ends the load, not its tidying up.
        self.order(|| Order::Release);
        let _told_before = self.each(
            |_| Progress::Releasing,
            |told| {
                if let Told::Released(left) = told {
                    unreleased += left;
                }
            },
        );
        unreleased
    }

    fn order(&self, order: impl Fn() -> Order) {
        self.orders.iter().for_each(|orders| {
            let _gone = orders.send(order());
        });
    }

    fn all(&mut self, progress: impl Fn(&Self) -> Progress) -> Result<(), Failure> {
        self.each(progress, |_| {})
    }

    /// Waits until every thread has told something. The first failure counts, once all have ended what they do.
    fn each(&mut self, progress: impl Fn(&Self) -> Progress, mut take: impl FnMut(Told)) -> Result<(), Failure> {
        let mut failed = None;
        let mut waiting = self.orders.len();
        while waiting > 0 {
            match self.told.recv_timeout(TELL) {
                Ok(Told::Failed(failure)) => {
                    waiting -= 1;
                    failed.get_or_insert(failure);
                    self.shared.stop.store(true, Ordering::Relaxed);
                }
                Ok(told) => {
                    waiting -= 1;
                    take(told);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let now = progress(self);
                    if (self.progress)(now).is_break() {
                        self.is_interrupted = true;
                        self.shared.stop.store(true, Ordering::Relaxed);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// What the load costs, in both programs.
struct Gauge {
    server: Option<(u32, Process)>,
    own: Process,
    before: Readings,
    memory: Option<(u64, u64)>,
    allocating: Option<Duration>,
}

#[derive(Clone, Copy, Default)]
struct Readings {
    at: Instant,
    server: Duration,
    own: Duration,
}

impl Gauge {
    fn new(plan: &Plan) -> Result<Self, Failure> {
        let server = plan.server_pid.map(|pid| (pid, Process::new(pid)));
        let own = Process::own();
        let before = Readings::default();
        let mut gauge = Self { server, own, before, memory: None, allocating: None };
        gauge.memory = gauge.resident()?.map(|bytes| (bytes, bytes));
        gauge.mark()?;
        Ok(gauge)
    }

    fn unread(&self, error: &io::Error) -> Failure {
        let pid = self.server.as_ref().map_or(0, |(pid, _)| *pid);
        Failure::Failed(format!("--server-pid {pid}: the process cannot be read: {error}"))
    }

    fn resident(&self) -> Result<Option<u64>, Failure> {
        let resident = self.server.as_ref().map(|(_, process)| process.resident()).transpose();
        resident.map_err(|error| self.unread(&error))
    }

    fn readings(&self) -> Result<Readings, Failure> {
        let server = self.server.as_ref().map(|(_, process)| process.cpu()).transpose();
        let server = server.map_err(|error| self.unread(&error))?.unwrap_or_default();
        Ok(Readings { at: monotonic(), server, own: self.own.cpu().unwrap_or_default() })
    }

    /// What follows is measured from here.
    fn mark(&mut self) -> Result<(), Failure> {
        self.before = self.readings()?;
        Ok(())
    }

    /// Set-up is over.
    fn allocated(&mut self) -> Result<(), Failure> {
        self.allocating = Some(self.readings()?.server.saturating_sub(self.before.server));
        let now = self.resident()?;
        self.memory = self.memory.zip(now).map(|((before, _), now)| (before, now));
        Ok(())
    }

    fn read(&self, tally: &Tally, plan: &Plan, allocations: usize) -> Result<(Option<Cost>, Own), Failure> {
        let now = self.readings()?;
        let elapsed = now.at.since(self.before.at);
        let share = |spent: Duration| rounded(spent.as_secs_f64() / elapsed.as_secs_f64());
        let own = now.own.saturating_sub(self.before.own);
        let idle = tally.idle.as_secs_f64() / (tally.lasted().as_secs_f64() * plan.threads as f64);
        let busy = idle.is_finite().then(|| rounded((1.0 - idle).clamp(0.0, 1.0)));
        let own = Own { cpu_share: share(own), busy };
        let Some((pid, _)) = self.server else { return Ok((None, own)) };
        let spent = now.server.saturating_sub(self.before.server);
        let each = |spent: Duration, count: u64| (count > 0).then(|| rounded(spent.as_secs_f64() * 1e6 / count as f64));
        let grown = self.memory.map(|(before, now)| now.saturating_sub(before) as f64);
        let is_relay = plan.kind == Kind::Relay;
        let is_asked = matches!(plan.kind, Kind::Binding | Kind::Refresh);
        let cost = Cost {
            pid,
            cpu_share: share(spent),
            cpu_us_per_packet: is_relay.then(|| each(spent, tally.received + tally.turned)).flatten(),
            cpu_us_per_request: is_asked.then(|| each(spent, tally.received)).flatten(),
            cpu_us_per_allocation: self.allocating.and_then(|spent| each(spent, allocations as u64)),
            bytes_per_allocation: grown.filter(|_| allocations > 0).map(|grown| rounded(grown / allocations as f64)),
        };
        Ok((Some(cost), own))
    }
}

fn report(
    plan: &Plan,
    tally: &Tally,
    interrupted: bool,
    (allocations, allocating, unreleased): (usize, Duration, usize),
    server: Option<Cost>,
    generator: Own,
) -> Report {
    let lasted = tally.lasted();
    let is_relay = plan.kind == Kind::Relay;
    let is_loaded = plan.kind != Kind::Allocate;
    let lost = tally.sent.saturating_sub(tally.received);
    let clients = plan.share(0).len();
    let relay = is_relay.then(|| Relayed {
        direction: plan.direction,
        mode: plan.mode,
        peer: match plan.peer {
            Peer::SameServer => "same-server".into(),
            Peer::Auto => "auto".into(),
            Peer::At(ip) => ip.to_string(),
        },
        size: plan.size,
        rate: plan.rate,
        window: plan.rate.is_none().then(|| plan.windows(clients).0),
        pps: per_second(tally.received, lasted),
        bit_per_second: per_second(tally.received * plan.size as u64 * 8, lasted),
        out_of_order: tally.out_of_order,
        latency_from: if plan.rate.is_some() { "schedule" } else { "send" },
    });
    let is_round = !is_relay || plan.direction == Direction::Echo;
    let answered = per_second(tally.received, lasted);
    Report {
        kind: plan.kind,
        transport: plan.transport.name(),
        clients: plan.clients,
        threads: plan.threads,
        seconds: rounded(if is_loaded { lasted } else { allocating }.as_secs_f64()),
        interrupted,
        relay,
        sent: is_loaded.then_some(tally.sent),
        received: is_loaded.then_some(tally.received),
        lost: is_loaded.then_some(lost),
        loss: is_loaded.then(|| if tally.sent == 0 { 0.0 } else { lost as f64 / tally.sent as f64 }),
        late: is_loaded.then_some(tally.late),
        not_sent: is_loaded.then_some(tally.not_sent),
        bindings_per_second: (plan.kind == Kind::Binding).then_some(answered),
        refreshes_per_second: (plan.kind == Kind::Refresh).then_some(answered),
        latency_us: tally.quantiles().filter(|_| !is_round),
        rtt_us: tally.quantiles().filter(|_| is_round),
        allocations: plan.kind.allocates().then_some(allocations),
        allocations_per_second: plan.kind.allocates().then(|| per_second(allocations as u64, allocating)),
        unreleased: plan.kind.allocates().then_some(unreleased),
        server,
        generator,
    }
}
