//! `turnserver status`: what a running server says of itself.
#![forbid(unsafe_code)]

use super::ask::ask;
use super::{Failure, say};
use crate::config::{Scope, duration_text};
use crate::time::seconds;
use axum::http::Method;
use clap::Args;
use serde_json::Value;
use std::path::PathBuf;

#[derive(Args)]
pub(super) struct StatusArgs {
    /// Print the JSON of GET /v1/status as it came
    #[arg(long)]
    json: bool,
}

/// Asks the running server, and says what it answered.
pub(super) fn run(config: Option<PathBuf>, args: &StatusArgs) -> Result<(), Failure> {
    let answer = ask(config, Method::GET, "/v1/status", Scope::Read)?;
    say(&if args.json { answer.text + "\n" } else { page(&answer.json) })?;
    Ok(())
}

/// A line for each thing, with what it is in front.
fn page(answer: &Value) -> String {
    let up = duration_text(seconds(number(&answer["uptime_seconds"])));
    let work = match answer["draining"].as_bool() {
        Some(true) => "draining: new allocations are turned away",
        _ => "new allocations are taken",
    };
    let (plane, ports) = (&answer["data_plane"], &answer["relay_ports"]);
    let mut lines = vec![
        ("turnserver", format!("{}, up {up}; {work}", text(&answer["version"]))),
        ("data plane", data_plane(plane)),
        ("", text(&plane["why"])),
        ("allocations", number(&answer["allocations"]).to_string()),
        ("connections", number(&answer["connections"]).to_string()),
        ("relay ports", format!("{} used, {} free", number(&ports["used"]), number(&ports["free"]))),
        ("to peers", relayed(answer, "to_peer")),
        ("to clients", relayed(answer, "to_client")),
    ];
    let listeners = answer["listeners"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (at, listener) in listeners.iter().enumerate() {
        let name = if at == 0 { "listening" } else { "" };
        lines.push((name, format!("{} {}", text(&listener["transport"]), text(&listener["address"]))));
    }
    lines.iter().map(|(name, line)| format!("{name:<12} {line}\n")).collect()
}

fn data_plane(plane: &Value) -> String {
    let how = |ability: &Value| if ability == &Value::Bool(true) { "in trains" } else { "one by one" };
    let workers = count(&plane["workers"], "worker");
    let (receives, sends) = (how(&plane["receives_trains"]), how(&plane["sends_trains"]));
    format!("{}, {workers}; datagrams are received {receives} and sent {sends}", text(&plane["path"]))
}

/// What went this way since the start, and how fast it goes now.
fn relayed(answer: &Value, way: &str) -> String {
    let total = &answer["relayed"][way];
    let bytes = scaled(number(&total["bytes"]) as f64, 1024.0, ["B", "KiB", "MiB", "GiB", "TiB"]);
    let mut line = format!("{}, {bytes}", count(&total["packets"], "packet"));
    let rate = &answer["rates"][way];
    if let (Some(packets), Some(bytes)) = (rate["packets_per_second"].as_f64(), rate["bytes_per_second"].as_f64()) {
        let bits = scaled(8.0 * bytes, 1000.0, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]);
        line += &format!("; now {packets} packets/s, {bits}");
    }
    line
}

/// In the unit that leaves it short.
fn scaled(mut number: f64, step: f64, units: [&str; 5]) -> String {
    let [smallest, larger @ ..] = units;
    let mut unit = smallest;
    for next in larger {
        if number < step {
            break;
        }
        (number, unit) = (number / step, next);
    }
    if unit == smallest { format!("{number:.0} {unit}") } else { format!("{number:.1} {unit}") }
}

fn count(value: &Value, thing: &str) -> String {
    match number(value) {
        1 => format!("1 {thing}"),
        many => format!("{many} {thing}s"),
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// Whoever answers cannot move the cursor of the terminal.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_page_has_a_line_for_each_thing() {
        let answer = json!({
            "version": "0.1.0", "uptime_seconds": 3723, "draining": false,
            "listeners": [
                { "transport": "udp", "address": "0.0.0.0:3478" },
                { "transport": "http", "address": "unix:/run/api\u{1b}.sock" },
            ],
            "allocations": 12, "connections": 3, "relay_ports": { "free": 90, "used": 10 },
            "relayed": { "to_peer": { "packets": 7, "bytes": 1023 }, "to_client": { "packets": 9, "bytes": 2_621_440 } },
            "rates": {
                "over_seconds": 8.0,
                "to_peer": { "packets_per_second": 0.5, "bytes_per_second": 100.0 },
                "to_client": { "packets_per_second": 1234.0, "bytes_per_second": 250_000.0 },
            },
            "data_plane": {
                "path": "userspace", "workers": 1, "receives_trains": true, "sends_trains": false, "why": "because",
            },
        });
        let expected = "\
turnserver   0.1.0, up 1h2m3s; new allocations are taken
data plane   userspace, 1 worker; datagrams are received in trains and sent one by one
             because
allocations  12
connections  3
relay ports  10 used, 90 free
to peers     7 packets, 1023 B; now 0.5 packets/s, 800 bit/s
to clients   9 packets, 2.5 MiB; now 1234 packets/s, 2.0 Mbit/s
listening    udp 0.0.0.0:3478
             http unix:/run/api\\u{1b}.sock
";
        assert_eq!(page(&answer), expected);
    }

    #[test]
    fn a_fresh_server_has_totals_and_no_rates_and_a_draining_one_says_so() {
        let answer = json!({ "draining": true, "relayed": { "to_peer": { "packets": 0, "bytes": 0 } } });
        let page = page(&answer);
        assert!(page.contains("\nto peers     0 packets, 0 B\n"), "{page}");
        assert!(page.starts_with("turnserver   , up 0s; draining: new allocations are turned away\n"), "{page}");
    }
}
