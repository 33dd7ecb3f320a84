//! `GET /openapi.json`: every route, described for people and generators.
#![forbid(unsafe_code)]

use axum::Json;
use serde_json::{Value, json};

pub(super) async fn document() -> Json<Value> {
    Json(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "turnserver",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
            "summary": "Credentials, status, metrics, health and draining of a STUN/TURN relay.",
            "description": "Errors are RFC 9457 problem documents whose `detail` says what to mend. \
                            Keys and their scopes are the `[[http.keys]]` of the configuration: \
                            `mint` makes credentials, `read` sees status and metrics, `admin` may both and drain.",
        },
        "servers": [{ "url": "/" }],
        "paths": paths(),
        "components": {
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "description": "The secret of an API key." },
                "basic": { "type": "http", "scheme": "basic", "description": "The id and the secret of an API key." },
                "header": { "type": "apiKey", "in": "header", "name": "X-API-Key" },
                "key": { "type": "apiKey", "in": "query", "name": "key", "description": "On /turn only; in a form too." },
                "api": { "type": "apiKey", "in": "query", "name": "api", "description": "The same by another name." },
            },
            "schemas": schemas(),
            "responses": responses(),
        },
    }))
}

fn paths() -> Value {
    json!({
        "/": { "get": {
            "operationId": "testPage",
            "summary": "Test page: gathers candidates through this server and makes a relayed call to itself",
            "responses": { "200": { "description": "The page", "content": { "text/html": {} } } },
        } },
        "/healthz": { "get": {
            "operationId": "health",
            "summary": "Whether the process runs",
            "responses": { "200": { "description": "It does", "content": json_of("Status") } },
        } },
        "/readyz": { "get": {
            "operationId": "ready",
            "summary": "Whether new clients are welcome",
            "responses": {
                "200": { "description": "They are", "content": json_of("Status") },
                "503": response("Unavailable"),
            },
        } },
        "/metrics": { "get": {
            "operationId": "metrics",
            "summary": "Metrics in the Prometheus text format 0.0.4",
            "description": "Needs the scope `read`. No key is needed on this host itself, as long as no proxy forwards \
                            the request, nor anywhere when `http.metrics_public` is true.",
            "security": [{ "bearer": [] }, { "basic": [] }, { "header": [] }, {}],
            "responses": {
                "200": { "description": "The metrics", "content": { "text/plain": { "schema": { "type": "string" } } } },
                "401": response("Unauthorized"),
                "403": response("Forbidden"),
                "429": response("TooManyWrongKeys"),
            },
        } },
        "/openapi.json": { "get": {
            "operationId": "openapi",
            "summary": "This document",
            "responses": { "200": { "description": "OpenAPI 3.1", "content": { "application/json": {} } } },
        } },
        "/turn": { "get": turn("mintByQuery"), "post": turn("mintByForm") },
        "/v1/drain": {
            "post": drain(
                "drain",
                "Turns new allocations away until the server stops or this is taken back",
                "202",
                "The workers have been told. Live allocations go on and may be refreshed.",
            ),
            "delete": drain("cancelDrain", "Takes new allocations again", "200", "The workers have been told"),
        },
        "/v1/ice-servers": { "post": {
            "operationId": "mintIceServers",
            "summary": "A time-limited credential; `iceServers` drops straight into RTCPeerConnection",
            "description": "Needs the scope `mint`. The content type of the body is not looked at; an empty body asks \
                            for a credential without a user and with the default life.",
            "security": [{ "bearer": [] }, { "basic": [] }, { "header": [] }],
            "requestBody": { "required": false, "content": json_of("MintRequest") },
            "responses": {
                "201": { "description": "Minted", "content": json_of("IceServers") },
                "400": response("Unreadable"),
                "401": response("Unauthorized"),
                "403": response("Forbidden"),
                "408": response("TooSlow"),
                "413": response("TooLarge"),
                "422": response("Impossible"),
                "429": response("TooManyWrongKeys"),
                "503": response("Unavailable"),
            },
        } },
        "/v1/status": { "get": {
            "operationId": "status",
            "summary": "What runs, what it carries and by which data plane",
            "description": "Needs the scope `read`.",
            "security": [{ "bearer": [] }, { "basic": [] }, { "header": [] }],
            "responses": {
                "200": { "description": "The server as it is now", "content": json_of("ServerStatus") },
                "401": response("Unauthorized"),
                "403": response("Forbidden"),
                "429": response("TooManyWrongKeys"),
            },
        } },
    })
}

fn drain(id: &str, summary: &str, status: &str, about: &str) -> Value {
    json!({
        "operationId": id,
        "summary": summary,
        "description": "Needs the scope `admin`. Takes no body. A reload keeps it, a restart does not.",
        "security": [{ "bearer": [] }, { "basic": [] }, { "header": [] }],
        "responses": {
            status: { "description": about, "content": json_of("Draining") },
            "401": response("Unauthorized"),
            "403": response("Forbidden"),
            "429": response("TooManyWrongKeys"),
            "503": response("Unavailable"),
        },
    })
}

fn turn(id: &str) -> Value {
    let parameter = |name: &str, about: &str, schema: Value| json!({ "name": name, "in": "query", "required": false, "description": about, "schema": schema });
    let mut operation = json!({
        "operationId": id,
        "summary": "A time-limited credential as draft-uberti-behave-turn-rest-00 has it",
        "description": "Needs the scope `mint`. Parameters stand in the query or, with POST, in a form; the query's \
                        counts where both have one.",
        "security": [{ "bearer": [] }, { "basic": [] }, { "header": [] }, { "key": [] }, { "api": [] }],
        "parameters": [
            parameter("service", "Only `turn`.", json!({ "type": "string", "const": "turn" })),
            parameter("username", "Who it is for.", user()),
            parameter("ttl", "Seconds; cut to `auth.max_ttl`.", json!({ "type": "integer", "minimum": 1 })),
        ],
        "responses": {
            "200": { "description": "Minted", "content": json_of("TurnCredential") },
            "400": response("Unreadable"),
            "401": response("Unauthorized"),
            "403": response("Forbidden"),
            "408": response("TooSlow"),
            "413": response("TooLarge"),
            "422": response("Impossible"),
            "429": response("TooManyWrongKeys"),
            "503": response("Unavailable"),
        },
    });
    if id == "mintByForm" {
        let property = json!({ "type": "string" });
        let form = json!({ "type": "object", "properties": {
            "service": property, "username": property, "ttl": property, "key": property, "api": property,
        } });
        operation["requestBody"] = json!({ "content": { "application/x-www-form-urlencoded": { "schema": form } } });
    }
    operation
}

fn user() -> Value {
    json!({ "type": "string", "maxLength": 256, "description": "At most 256 bytes, in the form of OpaqueString (RFC 8265)." })
}

fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let urls = json!({ "type": "array", "items": { "type": "string", "format": "uri" } });
    let username = json!({ "type": "string", "description": "`<unix expiry>:<user>`, or the bare expiry." });
    let password = json!({ "type": "string", "description": "base64(HMAC-SHA1(secret, username))." });
    let ttl = json!({ "type": "integer", "description": "Seconds, after the cut to `auth.max_ttl`." });
    json!({
        "Status": { "type": "object", "required": ["status"], "properties": { "status": text } },
        "Draining": {
            "type": "object",
            "required": ["draining", "allocations"],
            "properties": {
                "draining": { "type": "boolean" },
                "allocations": { "type": "integer", "minimum": 0, "description": "Allocations that live now." },
            },
        },
        "ServerStatus": server_status(),
        "MintRequest": {
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "user": user(),
                "ttl": {
                    "type": "integer",
                    "minimum": 1,
                    "default": 86_400,
                    "description": "Seconds; cut to `auth.max_ttl`, which also bounds the default.",
                },
            },
        },
        "IceServers": {
            "type": "object",
            "required": ["iceServers", "username", "credential", "ttl", "expires"],
            "properties": {
                "iceServers": { "type": "array", "items": {
                    "type": "object",
                    "required": ["urls"],
                    "properties": { "urls": urls, "username": username, "credential": password },
                } },
                "username": username,
                "credential": password,
                "ttl": ttl,
                "expires": { "type": "string", "format": "date-time" },
            },
        },
        "TurnCredential": {
            "type": "object",
            "required": ["username", "password", "ttl", "uris"],
            "properties": { "username": username, "password": password, "ttl": ttl, "uris": urls },
        },
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": { "type": "string", "format": "uri-reference", "default": "about:blank" },
                "title": text,
                "status": { "type": "integer" },
                "detail": { "type": "string", "description": "What to mend." },
            },
        },
    })
}

fn server_status() -> Value {
    let object = |properties: Value| {
        let required: Vec<&String> = properties.as_object().into_iter().flat_map(|fields| fields.keys()).collect();
        json!({ "type": "object", "required": required, "properties": properties })
    };
    let (text, yes_or_no) = (json!({ "type": "string" }), json!({ "type": "boolean" }));
    let count = |about: &str| json!({ "type": "integer", "minimum": 0, "description": about });
    let rate = |about: &str| json!({ "type": "number", "minimum": 0, "description": about });
    let total = object(json!({
        "packets": count("Datagrams."),
        "bytes": count("Payload bytes, without any framing."),
    }));
    let a_second = object(json!({
        "packets_per_second": rate("Datagrams a second."),
        "bytes_per_second": rate("Payload bytes a second."),
    }));
    let mut status = object(json!({
        "version": text,
        "uptime_seconds": count("Seconds since the listeners are open."),
        "draining": { "type": "boolean", "description": "Whether the server drains or stops." },
        "listeners": { "type": "array", "items": object(json!({
            "transport": { "type": "string", "enum": ["udp", "tcp", "tls", "dtls", "http"] },
            "address": { "type": "string", "description": "Address and port; `unix:` and a path for a socket file." },
        })) },
        "allocations": count("Allocations that live now."),
        "connections": count("Client connections that are open now."),
        "relay_ports": object(json!({ "free": count("Free."), "used": count("Taken or held back.") })),
        "relayed": object(json!({ "to_peer": total, "to_client": total })),
        "data_plane": object(json!({
            "path": { "type": "string", "const": "userspace" },
            "workers": count("Threads that relay."),
            "receives_trains": yes_or_no,
            "sends_trains": yes_or_no,
            "why": { "type": "string", "description": "Why it is this data plane and no faster one." },
        })),
    }));
    // Not required: a server has none in its first second.
    status["properties"]["rates"] = object(json!({
        "over_seconds": rate("Over how many of the last seconds."),
        "to_peer": a_second,
        "to_client": a_second,
    }));
    status
}

fn responses() -> Value {
    let problem = |about: &str| {
        let schema = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
        json!({ "description": about, "content": { "application/problem+json": schema } })
    };
    let with = |about: &str, header: &str| {
        let mut problem = problem(about);
        problem["headers"] = json!({ header: { "schema": { "type": "string" } } });
        problem
    };
    json!({
        "Unreadable": problem("Cannot be read: broken JSON, or another service than turn"),
        "Unauthorized": with("No key, or a wrong one", "WWW-Authenticate"),
        "Forbidden": problem("The key lacks the scope"),
        "TooSlow": problem("The request did not arrive whole in time"),
        "TooLarge": problem("The body is larger than 16 KiB"),
        "Impossible": problem("A value is not possible, or a field is unknown"),
        "TooManyWrongKeys": with("Too many wrong keys from this address; a right one is still welcome", "Retry-After"),
        "Unavailable": problem("Starting, draining or stopping, or no secret to mint with"),
    })
}

fn json_of(schema: &str) -> Value {
    json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } })
}

fn response(name: &str) -> Value {
    json!({ "$ref": format!("#/components/responses/{name}") })
}
