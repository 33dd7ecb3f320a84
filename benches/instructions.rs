//! What a packet and a request cost the core, in instructions: no more than `benches/instructions.toml` says.
//!
//! Callgrind counts them in the optimised build, so a busy machine counts what an idle one does. Set-up, clients and the
//! shell are not counted: [`World::step`] and [`World::tick`] are, and in the cases of the codec [`count`]. Processors know
//! instructions that valgrind does not (SHA-1 in hardware): HMACs cost more here than in real life. What a system call
//! costs is not in it either, and that is most of a packet's price: `cargo bench --bench relay` measures the whole.
//!
//! `tests/instructions [--update]`; with `--update` the figures become the ceilings. They are those of the core alone: a
//! build with the server in it is counted and not judged.
#![forbid(unsafe_code)]
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a tool for people, and a gate")]

#[path = "../tests/support/skip.rs"]
mod skip;
#[path = "../tests/support/temp.rs"]
mod temp;
#[path = "support/world.rs"]
mod world;

use serde::Deserialize;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};
use turnserver::time::{minutes, seconds};
use turnserver::turn::Verdict;
use turnserver::wire::channel::{self, ChannelData};
use turnserver::wire::codes::{Attribute, Method};
use turnserver::wire::integrity::{Algorithm, Key};
use turnserver::wire::reply::Reply;
use turnserver::wire::stream;
use turnserver::wire::stun::Message;
use world::{CHANNEL, SIZE, World, media, stranger};

/// Allocations on the server while the cases of the core are counted.
const WORLDS: [usize; 2] = [1, 10_000];
/// How often each case is asked.
const ROUNDS: usize = 500;
/// What a count may be above its ceiling: another compiler lays the same program out otherwise.
const TOLERANCE: f64 = 0.03;
/// The same where up to half is the system's allocator: what it does to free a block depends on what lies around it.
const TOLERANCE_OF_EXPIRY: f64 = 0.10;
/// The argument that makes this program the one that is counted.
const COUNTED: &str = "--counted";
const HEAD: &str = "\
# Instructions that each case takes at most: `tests/instructions` counts, and fails more than 3 % above them (10 % for
# expiry). When a count is lower by more than that, it asks for a lower ceiling; `tests/instructions --update` writes
# what it counts.
# These figures only ever fall, unless a feature is worth what it costs; the commit says so then.
";

/// What happens to a server with allocations, in the order it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    ChannelDataToPeer,
    ChannelDataToClient,
    SendIndication,
    DataIndication,
    Binding,
    Refresh,
    CreatePermission,
    ChannelBind,
    Allocate,
    Expiry,
}

impl Case {
    const ALL: [Self; 10] = [
        Self::ChannelDataToPeer,
        Self::ChannelDataToClient,
        Self::SendIndication,
        Self::DataIndication,
        Self::Binding,
        Self::Refresh,
        Self::CreatePermission,
        Self::ChannelBind,
        Self::Allocate,
        Self::Expiry,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::ChannelDataToPeer => "channel_data_to_peer",
            Self::ChannelDataToClient => "channel_data_to_client",
            Self::SendIndication => "send_indication",
            Self::DataIndication => "data_indication",
            Self::Binding => "binding",
            Self::Refresh => "refresh",
            Self::CreatePermission => "create_permission",
            Self::ChannelBind => "channel_bind",
            Self::Allocate => "challenge_and_allocate",
            Self::Expiry => "expiry",
        }
    }
}

/// What the codec does, in the order it is counted.
const CODEC: [&str; 6] = ["parse", "verify", "write", "write_and_sign", "channel_data", "frame"];

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ceilings {
    /// With each of [`WORLDS`].
    turn: BTreeMap<String, [u64; WORLDS.len()]>,
    wire: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    let has = |name: &str| std::env::args().any(|argument| argument == name);
    if has(COUNTED) {
        run();
        return ExitCode::SUCCESS;
    }
    if !cfg!(target_arch = "x86_64") {
        skip::skip("the ceilings of instructions are those of x86-64");
        return ExitCode::SUCCESS;
    }
    if !skip::has("valgrind") {
        return ExitCode::SUCCESS;
    }
    let counted = count_all();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.toml");
    if has("--update") {
        if cfg!(feature = "server") {
            eprintln!("the ceilings are those of the core alone: tests/instructions --update");
            return ExitCode::FAILURE;
        }
        std::fs::write(&file, counted.to_string()).expect("the ceilings can be written");
    }
    let text = std::fs::read_to_string(&file).expect("the ceilings can be read");
    let ceilings: Ceilings = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    judge(&counted, &ceilings)
}

/// Prints every count beside its ceiling. Fails when one is above, or when the two lists are not the same, where the core
/// was built alone.
fn judge(counted: &Ceilings, ceilings: &Ceilings) -> ExitCode {
    let (is, may) = (counted.rows(), ceilings.rows());
    println!("{:<34} {:>12} {:>12}", "instructions", "counted", "ceiling");
    let mut is_good = true;
    for (name, count) in &is {
        let Some(ceiling) = may.get(name) else {
            println!("{name:<34} {count:>12}              has no ceiling: give it one with --update");
            is_good = false;
            continue;
        };
        let ratio = *count as f64 / *ceiling as f64;
        let is_expiry = name.contains(Case::Expiry.name());
        let tolerance = if is_expiry { TOLERANCE_OF_EXPIRY } else { TOLERANCE };
        let word = match ratio {
            ratio if ratio > 1.0 + tolerance => "TOO MANY",
            ratio if ratio < 1.0 - tolerance => "fewer: lower the ceiling with --update",
            _ => "",
        };
        is_good &= ratio <= 1.0 + tolerance;
        println!("{name:<34} {count:>12} {ceiling:>12}  {word}");
    }
    for name in may.keys().filter(|name| !is.contains_key(*name)) {
        println!("{name:<34} is not counted any more: take its ceiling away with --update");
        is_good = false;
    }
    if is_good || cfg!(feature = "server") { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Ceilings {
    /// Every figure under a name of its own.
    fn rows(&self) -> BTreeMap<String, u64> {
        let turn = self.turn.iter().flat_map(|(name, counts)| {
            WORLDS.into_iter().zip(counts).map(move |(world, count)| (format!("turn.{name}, {world}"), *count))
        });
        turn.chain(self.wire.iter().map(|(name, count)| (format!("wire.{name}"), *count))).collect()
    }
}

impl std::fmt::Display for Ceilings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{HEAD}\n# On a server with {} allocation, and with {}.\n[turn]\n", WORLDS[0], WORLDS[1])?;
        for case in Case::ALL {
            writeln!(f, "{} = {:?}", case.name(), self.turn[case.name()])?;
        }
        writeln!(f, "\n[wire]")?;
        CODEC.iter().try_for_each(|name| writeln!(f, "{name} = {}", self.wire[*name]))
    }
}

/// Runs this program under callgrind and reads what each case took.
fn count_all() -> Ceilings {
    let folder = temp::TempDir::new("instructions");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--dump-after=instructions::mark"]);
    for counted in ["instructions::world::World::step", "instructions::world::World::tick", "instructions::count"] {
        valgrind.arg(format!("--toggle-collect={counted}"));
    }
    valgrind.arg(format!("--callgrind-out-file={}", folder.path().join("count").display()));
    valgrind.arg(std::env::current_exe().expect("this program has a file")).arg(COUNTED);
    let output = valgrind.output().expect("valgrind runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let mut counted = Ceilings::default();
    let mut dump = 0;
    let mut next = || {
        dump += 2; // between the cases lies what prepares them
        let all = total(&folder.path().join(format!("count.{dump}")));
        assert!(all > 1_000, "something was counted: {all}");
        all
    };
    for (at, world) in WORLDS.into_iter().enumerate() {
        for case in Case::ALL {
            let times = if case == Case::Expiry { world + ROUNDS } else { ROUNDS };
            counted.turn.entry(case.name().into()).or_default()[at] = next() / times as u64;
        }
    }
    for name in CODEC {
        counted.wire.insert(name.into(), next() / ROUNDS as u64);
    }
    counted
}

/// Instructions in one dump of callgrind.
fn total(file: &Path) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    totals.and_then(|count| count.trim().parse().ok()).unwrap_or_else(|| panic!("no total in {}", file.display()))
}

/// Every case once, a mark before and after it.
fn run() {
    for size in WORLDS {
        let mut world = World::new(size);
        for case in Case::ALL {
            run_case(&mut world, case);
        }
    }
    run_codec();
}

/// Where callgrind writes down what was counted since the last mark.
#[inline(never)]
fn mark() {
    black_box(());
}

/// What is counted of the codec.
#[inline(never)]
fn count(what: &mut dyn FnMut()) {
    for _ in 0..ROUNDS {
        what();
    }
}

fn run_case(world: &mut World, case: Case) {
    let payload = media(SIZE);
    let mut framed = channel::head(CHANNEL, SIZE as u16).to_vec();
    framed.extend_from_slice(&payload);
    if case == Case::Expiry {
        world.waits(minutes(9)); // what only sweeps permissions is done
        world.ticks();
        world.effects.clear();
        mark();
        world.waits(seconds(61));
        world.ticks();
        assert_eq!(world.effects.len(), world.calls.len() + ROUNDS, "all of them end at once");
        mark();
        return;
    }
    mark();
    for round in 0..ROUNDS {
        // A prime steps through all of them without an order that a table could have.
        let at = round * 7919 % world.calls.len();
        let (path, peer) = (world.calls[at].path, world.calls[at].peer);
        let verdict = match case {
            Case::ChannelDataToPeer => world.says(path, &framed),
            Case::ChannelDataToClient => world.hears(at, peer, &payload),
            Case::SendIndication => {
                let message = world.calls[at].client.send(peer, &payload);
                world.says(path, &message)
            }
            Case::DataIndication => {
                let other_port = (peer.ip(), peer.port() + 1).into();
                world.hears(at, other_port, &payload)
            }
            Case::Binding => {
                let message = world.calls[at].client.binding();
                world.says(path, &message)
            }
            Case::Refresh => {
                world.asks(at, |client, _| client.refresh(None));
                continue;
            }
            Case::CreatePermission => {
                world.asks(at, |client, peer| client.create_permission(&[peer]));
                continue;
            }
            Case::ChannelBind => {
                world.asks(at, |client, peer| client.channel_bind(CHANNEL.get(), peer));
                continue;
            }
            Case::Allocate => {
                world.allocates(&mut stranger((world.calls.len() + round) as u32));
                continue;
            }
            Case::Expiry => Verdict::Nothing,
        };
        assert!(matches!(verdict, Verdict::ToPeer { .. } | Verdict::ToClient(_)), "{case:?}: {verdict:?}");
    }
    mark();
}

fn run_codec() {
    let key = Key::md5("alice", "example.org", "a password");
    let mut buf = vec![0; 2048];
    let mut world = World::new(1);
    let request = world.calls[0].client.allocate(None);
    let message = Message::parse(&request).expect("a request");
    let framed = turnserver::client::channel_data(CHANNEL, &media(SIZE));
    let address = world.calls[0].peer;
    let write = |buf: &mut [u8], key: Option<&Key>| {
        let mut reply = Reply::success(buf, Method::ALLOCATE, message.transaction);
        reply.xor_address(Attribute::XOR_RELAYED_ADDRESS, address).number(Attribute::LIFETIME, 600);
        if let Some(key) = key {
            reply.sign(Algorithm::Sha1, key).fingerprint();
        }
        reply.finish()
    };
    for name in CODEC {
        mark();
        match name {
            "parse" => count(&mut || {
                black_box(Message::parse(black_box(&request)).is_ok());
            }),
            "verify" => count(&mut || {
                black_box(message.verify(Algorithm::Sha1, black_box(&key)));
            }),
            "write" => count(&mut || {
                black_box(write(black_box(&mut buf), None));
            }),
            "write_and_sign" => count(&mut || {
                black_box(write(black_box(&mut buf), Some(&key)));
            }),
            "channel_data" => count(&mut || {
                black_box(ChannelData::parse(black_box(&framed)).is_ok());
            }),
            _ => count(&mut || {
                black_box(stream::next(black_box(&framed)));
            }),
        }
        mark();
    }
}
