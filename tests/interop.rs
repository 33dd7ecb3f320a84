//! The server as clients see it that nobody here wrote: coturn's tools, libnice, aioice, the crates `turn` and
//! `turn-client-proto`.

#![cfg(feature = "server")]
#![forbid(unsafe_code)]

#[path = "interop/aioice.rs"]
mod aioice;
#[path = "support/capture.rs"]
mod capture;
#[path = "interop/coturn.rs"]
mod coturn;
#[path = "interop/libnice.rs"]
mod libnice;
#[path = "interop/marks.rs"]
mod marks;
#[path = "support/pair.rs"]
mod pair;
#[path = "support/server.rs"]
mod server;
#[path = "support/skip.rs"]
mod skip;
#[path = "support/temp.rs"]
mod temp;
#[path = "interop/turn_client_proto.rs"]
mod turn_client_proto;
#[path = "interop/uclient.rs"]
mod uclient;
#[path = "interop/webrtc_rs.rs"]
mod webrtc_rs;
#[path = "interop/wireshark.rs"]
mod wireshark;
