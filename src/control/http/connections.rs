//! Connections of HTTP clients, each bounded in time and all in number.
//!
//! Owns the patience: a client that dawdles over its header, lets its connection idle or keeps it too long is shown out.
//! Never answers anything itself.
#![forbid(unsafe_code)]

use super::Client;
use crate::time::{Duration, minutes, seconds};
use axum::Router;
use axum::extract::Request;
use core::pin::pin;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

/// How long and how many.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For the header of a request, also the longest idle time between two.
    pub header: Duration,
    /// For one whole request and its answer.
    pub request: Duration,
    /// For a connection, however busy it is: a client that never reads its answers ends here.
    pub age: Duration,
    /// Open at once, over all listeners. More wait in the kernel's queue.
    pub connections: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { header: seconds(10), request: seconds(10), age: minutes(2), connections: 256 }
    }
}

const HEADER_BYTES: usize = 16 * 1024;
const PAUSE: Duration = Duration::from_millis(100); // out of file descriptors: trying at once again would spin

/// A socket that HTTP clients come to.
#[derive(Debug)]
pub enum Listener {
    /// From anywhere that reaches it.
    Tcp(TcpListener),
    /// From this host, by whoever may open its file.
    Unix(UnixListener),
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Stream, Client)> {
        match self {
            Self::Tcp(listener) => {
                listener.accept().await.map(|(stream, from)| (Stream::Tcp(stream), Client::Address(from)))
            }
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| (Stream::Unix(stream), Client::Socket)),
        }
    }
}

/// The listeners' common part.
#[derive(Clone, Debug)]
pub struct Door {
    router: Router,
    bounds: Bounds,
    slots: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
}

impl Door {
    /// A door that closes when `closing` says so.
    pub fn new(router: Router, bounds: Bounds, closing: watch::Receiver<bool>) -> Self {
        Self { router, bounds, slots: Arc::new(Semaphore::new(bounds.connections)), closing }
    }

    /// Takes connections until the door closes.
    pub async fn open(self, listener: Listener) {
        let mut closing = self.closing.clone();
        tokio::select! {
            () = self.admit_all(listener) => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
    }

    async fn admit_all(self, listener: Listener) {
        loop {
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return };
            let Ok((stream, client)) = listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let door = self.clone();
            tokio::spawn(async move {
                match stream {
                    Stream::Tcp(stream) => {
                        let _best_effort = stream.set_nodelay(true);
                        door.converse(stream, client).await;
                    }
                    Stream::Unix(stream) => door.converse(stream, client).await,
                }
                drop(slot);
            });
        }
    }

    async fn converse(mut self, stream: impl AsyncRead + AsyncWrite + Unpin, client: Client) {
        let router = self.router;
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(client);
            TowerToHyperService::new(router.clone()).call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.bounds.header)
            .max_buf_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = self.closing.wait_for(|closing| *closing) => {}
            () = tokio::time::sleep(self.bounds.age) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _cut_off = tokio::time::timeout(self.bounds.request, connection).await;
    }

    /// Waits until every connection has ended, for at most `patience`.
    pub async fn emptied(&self, patience: Duration) {
        let all = u32::try_from(self.bounds.connections).unwrap_or(u32::MAX);
        let _or_not = tokio::time::timeout(patience, self.slots.acquire_many(all)).await;
    }
}
