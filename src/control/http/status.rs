//! `GET /v1/status`: what runs here, what it carries, and by which data plane.
//!
//! The numbers are those of the metrics, summed. No user, no client and no peer is named.
#![forbid(unsafe_code)]

use super::problem::Problem;
use super::{App, client};
use crate::config::Scope;
use crate::control::data_plane::DataPlane;
use crate::control::keys::Presented;
use crate::control::rates::{Relayed, Volume};
use crate::time::{Duration, Instant};
use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError};

pub(super) async fn status(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, Problem> {
    app.admit(client(&request)?, Presented::in_headers(request.headers()), Scope::Read)?;
    Ok(Json(answer(&app)))
}

fn answer(app: &App) -> Value {
    let (now, sources) = ((app.clock)().mono, &app.sources);
    let (relayed, ports, plane) = (sources.relayed(), (sources.relay_ports)(), sources.data_plane);
    let listener =
        |(transport, address): &(&'static str, String)| json!({ "transport": transport, "address": address });
    let mut answer = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": now.since(app.began).as_secs(),
        "draining": app.takes_no_work(),
        "listeners": app.listeners.iter().map(listener).collect::<Vec<_>>(),
        "allocations": sources.live_allocations(),
        "connections": sources.open_connections(),
        "relay_ports": { "free": ports.free, "used": ports.used },
        "relayed": { "to_peer": total(relayed.to_peer), "to_client": total(relayed.to_client) },
        "data_plane": {
            "path": DataPlane::PATH,
            "workers": plane.workers,
            "receives_trains": plane.abilities.receives_trains,
            "sends_trains": plane.abilities.sends_trains,
            "why": plane.why(),
        },
    });
    if let Some(rates) = rates(app, now, relayed) {
        answer["rates"] = rates;
    }
    answer
}

fn total(volume: Volume) -> Value {
    json!({ "packets": volume.packets, "bytes": volume.bytes })
}

/// Nothing in the first second: there is nothing to compare with.
fn rates(app: &App, now: Instant, relayed: Relayed) -> Option<Value> {
    let rates = app.rates.lock().unwrap_or_else(PoisonError::into_inner);
    let (passed, lately) = rates.lately(now, relayed)?;
    Some(json!({
        "over_seconds": tenths(passed.as_secs_f64()),
        "to_peer": a_second(lately.to_peer, passed),
        "to_client": a_second(lately.to_client, passed),
    }))
}

fn a_second(volume: Volume, passed: Duration) -> Value {
    let rate = |count: u64| tenths(count as f64 / passed.as_secs_f64());
    json!({ "packets_per_second": rate(volume.packets), "bytes_per_second": rate(volume.bytes) })
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}
