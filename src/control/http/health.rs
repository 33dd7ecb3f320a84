//! `GET /healthz`, `GET /readyz`: for load balancers and orchestrators, without a key.
#![forbid(unsafe_code)]

use super::problem::Problem;
use super::{App, Stage};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

pub(super) async fn readyz(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    match app.stage() {
        Stage::Serving if app.is_draining() => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "draining: send new clients elsewhere"))
        }
        Stage::Serving => Ok(Json(json!({ "status": "ready" }))),
        Stage::Starting => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "starting: not every listener is open")),
        Stage::Stopping => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping: send new clients elsewhere")),
    }
}
