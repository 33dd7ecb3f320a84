//! `GET /`: the test page. One file without a single outside resource; the policy below lets it reach nothing else.
#![forbid(unsafe_code)]

use axum::http::HeaderName;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};

pub(super) async fn page() -> ([(HeaderName, &'static str); 3], &'static str) {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (HeaderName::from_static("permissions-policy"), "camera=(self), microphone=(), geolocation=()"),
    ];
    (headers, include_str!("page.html"))
}

const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                      img-src data:; media-src blob: mediastream:; frame-ancestors 'none'; base-uri 'none'";
