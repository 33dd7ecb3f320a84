//! The web server that shares our TLS ports: what the configuration says of it, and asking it what it speaks.
//!
//! It is asked at the start, and again whenever a worker has not reached it, until it answers. Workers never wait for
//! that: they read what is known.
#![forbid(unsafe_code)]

use crate::config::{Listen, WebPlace};
use crate::net::web::{Place, Web};
use crate::time::{Duration, seconds};
use crate::worker::Entry;
use std::sync::Arc;

/// From one look at whether it is to be asked to the next.
const GLANCE: Duration = seconds(1);

/// What connections may be at their beginning.
pub(super) fn entry(listen: &Listen) -> Entry {
    let web = listen.https_fallback.as_ref().map(|server| {
        let place = match &server.place {
            WebPlace::Address(address) => Place::Address(*address),
            WebPlace::File(path) => Place::File(path.clone()),
        };
        Arc::new(Web::new(place, server.tls, listen.https_fallback_proxy))
    });
    let proxies = listen.proxy_protocol.then(|| listen.proxy_trusted.as_slice().into());
    Entry { detect: listen.detect, proxies, web }
}

/// Keeps what is known of the web server true.
pub(super) async fn know(web: Arc<Web>) {
    let (mut known, mut is_missed) = (None, false);
    let mut glance = tokio::time::interval(GLANCE);
    loop {
        glance.tick().await;
        if !web.is_unknown() {
            continue;
        }
        let asked = Arc::clone(&web);
        match tokio::task::spawn_blocking(move || asked.ask()).await {
            Ok(Ok(speaks)) => {
                if is_missed || known != Some(speaks) {
                    tracing::info!(server = %web.place(), speaks = speaks.label(), "the web server answers");
                }
                (known, is_missed) = (Some(speaks), false);
            }
            Ok(Err(error)) if !is_missed => {
                tracing::warn!(server = %web.place(), %error, "the web server cannot be reached");
                is_missed = true;
            }
            Ok(Err(_)) => {}
            Err(_) => return, // the server ends
        }
    }
}
