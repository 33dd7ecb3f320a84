//! `turnserver drain`: tells a running server to take no new allocations, or to take them again.
#![forbid(unsafe_code)]

use super::ask::ask;
use super::{Failure, say};
use crate::config::Scope;
use axum::http::Method;
use clap::Args;
use serde_json::Value;
use std::path::PathBuf;

#[derive(Args)]
pub(super) struct DrainArgs {
    /// Take new allocations again
    #[arg(long)]
    cancel: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks the running server, and says what it answered.
pub(super) fn run(config: Option<PathBuf>, args: &DrainArgs) -> Result<(), Failure> {
    let method = if args.cancel { Method::DELETE } else { Method::POST };
    let answer = ask(config, method, "/v1/drain", Scope::Admin)?;
    say(&if args.json { answer.text + "\n" } else { sentence(&answer.json) })?;
    Ok(())
}

fn sentence(answer: &Value) -> String {
    let live = match answer["allocations"].as_u64().unwrap_or_default() {
        1 => "1 allocation lives".to_owned(),
        live => format!("{live} allocations live"),
    };
    match answer["draining"].as_bool() {
        Some(true) => format!("draining: new allocations are turned away; {live}\n"),
        _ => format!("not draining: new allocations are taken; {live}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_server_did_is_one_line() {
        let one = sentence(&json!({ "draining": true, "allocations": 1 }));
        assert_eq!(one, "draining: new allocations are turned away; 1 allocation lives\n");
        let none = sentence(&json!({ "draining": false, "allocations": 0 }));
        assert_eq!(none, "not draining: new allocations are taken; 0 allocations live\n");
    }
}
