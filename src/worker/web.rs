//! Browsers that come to a TLS port of ours: they are passed on to the operator's web server.
//!
//! Either as they came, when that one speaks TLS, or in the clear. The pair is joined as a client and a peer are
//! (`joins`), yet belongs to no allocation: the core never hears of it.
#![forbid(unsafe_code)]

use super::Worker;
use super::conns::{ConnId, End};
use super::sockets::Token;
use crate::net::web::{self, Speaks};
use crate::turn::refusal::Dropped;
use crate::turn::tally::Transport;
use crate::wire;

impl Worker {
    /// The first bytes of a client that has not said what it speaks. `true`: they are the web server's; `None`: more are
    /// needed.
    pub(super) fn is_for_web(&self, id: ConnId, bytes: &[u8]) -> Result<Option<bool>, End> {
        if wire::is_http(bytes) != Some(true) {
            return Ok(wire::is_http(bytes));
        }
        let is_secure = self.conns.tuple(id).is_some_and(|tuple| tuple.transport == Transport::Tls);
        let speaks = self.entry.web.as_ref().filter(|_| is_secure).map(|web| web.speaks());
        match speaks {
            // A request of HTTP, and nobody to answer it: in the clear, or inside TLS for a server that wants its own.
            None | Some(Some(Speaks::Tls)) => Err(End::Noise),
            Some(Some(Speaks::Http1 | Speaks::Http2)) => Ok(Some(true)),
            Some(None) => Err(End::Web),
        }
    }

    /// Begins a connection with the web server, which hears `first` at first, and joins the client's to it.
    pub(super) fn join_web(&mut self, id: ConnId, first: &[u8]) -> Result<(), End> {
        let (Some(web), Some(tuple)) = (self.entry.web.clone(), self.conns.tuple(id)) else { return Err(End::Web) };
        if !self.conns.go_on(id) {
            return Err(End::Web);
        }
        let stream = web.connect().map_err(|_| {
            web.is_lost();
            End::Web
        })?;
        let mut words = if web.is_told_ends() { web::header(tuple.client, tuple.server) } else { Vec::new() };
        words.extend_from_slice(first);
        let token = |id| Token::Peer(id).into();
        let peer = self.peers.add_web(&self.poll, token, stream, id, words, self.now.mono).map_err(|_| End::Web)?;
        self.conns.keep(id, &[], true, self.now.mono);
        self.conns.join(id, peer);
        self.balance(peer); // nothing is read from the client before the connection is made
        Ok(())
    }

    /// The web server did not take the connection made for this client.
    pub(super) fn web_is_lost(&mut self, id: ConnId) {
        if let Some(web) = &self.entry.web {
            web.is_lost();
        }
        self.tally.count_drop(Dropped::Web);
        let _ = self.conns.write(&self.poll, |id| Token::Conn(id).into(), id);
        self.drop_conn(id);
    }
}
