//! The crate `turn` as a server: its own relay, on one thread.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use turn::Error;
use turn::auth::{AuthHandler, generate_auth_key};
use turn::relay::relay_static::RelayAddressGeneratorStatic;
use turn::server::Server;
use turn::server::config::{ConnConfig, ServerConfig};
use webrtc_util::vnet::net::Net;

struct OneUser {
    name: String,
    key: Vec<u8>,
}

impl AuthHandler for OneUser {
    fn auth_handle(&self, name: &str, _realm: &str, _from: SocketAddr) -> Result<Vec<u8>, Error> {
        if name == self.name { Ok(self.key.clone()) } else { Err(Error::ErrFakeErr) }
    }
}

/// Serves on this port of 127.0.0.1. Never ends by itself.
pub(crate) fn serve(port: u16, [user, password]: [&str; 2]) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let host = Ipv4Addr::LOCALHOST;
    runtime.block_on(async {
        let conn = Arc::new(tokio::net::UdpSocket::bind((host, port)).await?);
        let relay_addr_generator = Box::new(RelayAddressGeneratorStatic {
            relay_address: host.into(),
            address: host.to_string(),
            net: Arc::new(Net::new(None)),
        });
        let auth_handler = Arc::new(OneUser { name: user.to_owned(), key: generate_auth_key(user, "r", password) });
        let _server = Server::new(ServerConfig {
            conn_configs: vec![ConnConfig { conn, relay_addr_generator }],
            realm: "r".into(),
            auth_handler,
            channel_bind_timeout: Duration::ZERO,
            alloc_close_notify: None,
        })
        .await?;
        std::future::pending().await
    })
}
