//! The command line: one file a verb, text for people.
//!
//! Exit codes: 0 fine, 1 failed while running, 2 bad usage or configuration. Secrets go to standard output when they
//! were asked for, never to standard error. A reader that closes the pipe early is no failure.
#![forbid(unsafe_code)]

mod ask;
mod check;
mod credential;
mod drain;
mod host;
mod load;
mod serve;
mod settings;
mod state;
mod status;

use crate::config::Mistake;
use crate::time::UnixSeconds;
use clap::{Args, Parser, Subcommand};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

pub use serve::{Greeting, greeting};

#[derive(Parser)]
#[command(name = "turnserver", version, about)]
struct Line {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    source: SourceArgs,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the server (the default verb)
    Serve,
    /// Validate the configuration: effective settings, mistakes, warnings
    Check(check::CheckArgs),
    /// Mint a credential offline, from the secret
    Credential(credential::CredentialArgs),
    /// Show what a running server carries, and by which data plane
    Status(status::StatusArgs),
    /// Tell a running server to take no new allocations
    Drain(drain::DrainArgs),
    /// Be many clients of a TURN server, and measure what it can carry
    Load(Box<load::LoadArgs>),
}

#[derive(Args)]
struct SourceArgs {
    /// Configuration file [default: $TURNSERVER_CONFIG, else /etc/turnserver/turnserver.toml if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let line = match Line::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let _unread = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_WRONG) } else { ExitCode::SUCCESS };
        }
    };
    let config = line.source.config;
    let outcome = match line.verb.unwrap_or(Verb::Serve) {
        Verb::Serve => serve::run(config),
        Verb::Check(args) => check::run(config, &args),
        Verb::Credential(args) => credential::run(config, &args),
        Verb::Status(args) => status::run(config, &args),
        Verb::Drain(args) => drain::run(config, &args),
        Verb::Load(args) => load::run(config, &args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Why a verb did not do its work.
#[derive(Debug)]
enum Failure {
    /// The configuration: every mistake.
    Mistakes(Vec<Mistake>),
    /// Something else to mend before it can run.
    Wrong(String),
    /// It ran, and failed.
    Failed(String),
}

impl From<Vec<Mistake>> for Failure {
    fn from(mistakes: Vec<Mistake>) -> Self {
        Self::Mistakes(mistakes)
    }
}

impl From<io::Error> for Failure {
    /// Standard output is the only thing written without a name to it.
    fn from(error: io::Error) -> Self {
        Self::Failed(format!("standard output: {error}"))
    }
}

impl Failure {
    fn report(self) -> ExitCode {
        match self {
            Self::Mistakes(mistakes) => {
                mistakes.iter().for_each(|mistake| complain(&mistake.to_string()));
                let count = mistakes.len();
                complain(&red(&format!("{count} {}", if count == 1 { "mistake" } else { "mistakes" })));
                ExitCode::from(EXIT_WRONG)
            }
            Self::Wrong(what) => {
                complain(&format!("{} {what}", red("error:")));
                ExitCode::from(EXIT_WRONG)
            }
            Self::Failed(what) => {
                complain(&format!("{} {what}", red("error:")));
                ExitCode::FAILURE
            }
        }
    }
}

const EXIT_WRONG: u8 = 2; // bad usage or configuration

/// Writes to standard output. A reader that has seen enough is no error.
fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Writes a line to standard error, if anybody reads it.
fn complain(line: &str) {
    let _unread = writeln!(io::stderr().lock(), "{line}");
}

fn red(text: &str) -> String {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if io::stderr().is_terminal() && !no_color { format!("\x1b[31m{text}\x1b[0m") } else { text.into() }
}

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "a shell: time enters the program here")]
fn unix_now() -> UnixSeconds {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixSeconds(since_1970.map_or(0, |time| time.as_secs()))
}
