//! `POST /v1/ice-servers`: a credential in the shape that `RTCPeerConnection` takes.
#![forbid(unsafe_code)]

use super::problem::Problem;
use super::{App, Wish, body, client};
use crate::config::Scope;
use crate::control::keys::Presented;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn mint(State(app): State<Arc<App>>, request: Request) -> Result<(StatusCode, Json<Value>), Problem> {
    app.admit(client(&request)?, Presented::in_headers(request.headers()), Scope::Mint)?;
    let wish = wish(&body(request).await?)?;
    let settings = app.settings();
    let credential = app.mint(&wish, &settings)?;
    app.minted.ice_servers.add(1);

    let (username, password) = (&credential.minted.username, &*credential.minted.password);
    let mut servers = Vec::new();
    if !settings.uris.stun.is_empty() {
        servers.push(json!({ "urls": settings.uris.stun }));
    }
    if !settings.uris.turn.is_empty() {
        servers.push(json!({ "urls": settings.uris.turn, "username": username, "credential": password }));
    }
    let answer = json!({
        "iceServers": servers,
        "username": username,
        "credential": password,
        "ttl": credential.ttl,
        "expires": credential.minted.expires.to_string(),
    });
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Characters of a field's name that an answer repeats: enough to see the mistake, whatever was sent.
const NAME_SHOWN: usize = 64;

/// The body, whatever its content type says; none at all is a wish for the defaults.
fn wish(body: &Bytes) -> Result<Wish, Problem> {
    let mut wish = Wish::default();
    if body.trim_ascii().is_empty() {
        return Ok(wish);
    }
    let value = serde_json::from_slice(body);
    let value = value.map_err(|error| Problem::unreadable(format!("the body is not JSON: {error}")))?;
    let Value::Object(fields) = value else {
        return Err(Problem::impossible("the body must be an object: {\"user\": \"alice\", \"ttl\": 3600}"));
    };
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("user" | "ttl", Value::Null) => {}
            ("user", Value::String(user)) => wish.user = Wish::user(&user)?,
            ("user", _) => return Err(Problem::impossible("user: must be a string")),
            ("ttl", value) => wish.ttl = Some(Wish::ttl(value.as_u64())?),
            _ => {
                let name: String = name.chars().take(NAME_SHOWN).flat_map(char::escape_debug).collect();
                return Err(Problem::impossible(format!("unknown field \"{name}\": there are \"user\" and \"ttl\"")));
            }
        }
    }
    Ok(wish)
}
