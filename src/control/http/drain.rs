//! `POST /v1/drain`, `DELETE /v1/drain`: no new allocations before a server stops, and the way back.
//!
//! Asks the supervisor and answers when the workers have been told. Minting goes on: a credential outlives this server.
#![forbid(unsafe_code)]

use super::problem::Problem;
use super::{App, Order, client};
use crate::config::Scope;
use crate::control::keys::Presented;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::oneshot;

pub(super) async fn begin(State(app): State<Arc<App>>, request: Request) -> Result<(StatusCode, Json<Value>), Problem> {
    set(&app, &request, true)?.told(&app).await.map(|answer| (StatusCode::ACCEPTED, answer))
}

pub(super) async fn cancel(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, Problem> {
    set(&app, &request, false)?.told(&app).await
}

fn set(app: &App, request: &Request, draining: bool) -> Result<Wait, Problem> {
    app.admit(client(request)?, Presented::in_headers(request.headers()), Scope::Admin)?;
    let (done, wait) = oneshot::channel();
    // A queue that is full says the same as one that nobody reads: the supervisor does not get to it.
    app.orders.try_send(Order::Drain { draining, done }).map_err(|_| unheard())?;
    Ok(Wait(wait))
}

/// Until the workers have been told.
struct Wait(oneshot::Receiver<()>);

impl Wait {
    async fn told(self, app: &App) -> Result<Json<Value>, Problem> {
        self.0.await.map_err(|_| unheard())?;
        Ok(Json(json!({ "draining": app.is_draining(), "allocations": app.live_allocations() })))
    }
}

fn unheard() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping, or too busy to be told: ask again")
}
