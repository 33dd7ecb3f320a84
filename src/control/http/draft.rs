//! `GET|POST /turn`: draft-uberti-behave-turn-rest-00, as Janus, eturnal's users and older clients ask.
//!
//! Parameters stand in the query or in a form; where both have one, the query's counts. Unknown ones are ignored, because
//! clients of this draft send several. The key may be one of them, here only.
#![forbid(unsafe_code)]

use super::problem::Problem;
use super::{App, Wish, body, client};
use crate::config::Scope;
use crate::control::keys::Presented;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use serde_json::{Value, json};
use std::sync::Arc;
use zeroize::Zeroizing;

pub(super) async fn mint(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, Problem> {
    let client = client(&request)?;
    let in_headers = Presented::in_headers(request.headers());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let parameters = Parameters { query, form: body(request).await? };

    let in_parameters = || parameters.first("key").or_else(|| parameters.first("api"));
    let key = in_headers.map(|key| key.or_else(|| in_parameters().map(|key| Presented::bare(&Zeroizing::new(key)))));
    app.admit(client, key, Scope::Mint)?;

    if parameters.first("service").is_some_and(|service| service != "turn") {
        return Err(Problem::unreadable("service: only \"turn\" is served here"));
    }
    let user = parameters.first("username").map(|user| Wish::user(&user)).transpose()?.flatten();
    let ttl = parameters.first("ttl").map(|ttl| Wish::ttl(ttl.parse().ok())).transpose()?;
    let settings = app.settings();
    let credential = app.mint(&Wish { user, ttl }, &settings)?;
    app.minted.turn.add(1);
    Ok(Json(json!({
        "username": credential.minted.username,
        "password": *credential.minted.password,
        "ttl": credential.ttl,
        "uris": settings.uris.turn,
    })))
}

struct Parameters {
    query: String,
    form: Bytes,
}

impl Parameters {
    /// The first parameter of this name that is not empty.
    fn first(&self, name: &str) -> Option<String> {
        let query = form_urlencoded::parse(self.query.as_bytes());
        let form = form_urlencoded::parse(&self.form);
        query.chain(form).find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.into_owned())
    }
}
