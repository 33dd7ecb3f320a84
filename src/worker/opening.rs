//! The beginning of a connection: whose it is, and what it speaks.
//!
//! Only where the configuration leaves that open; an ordinary listener knows. A proxy's header comes first, then the
//! first bytes decide, then, where a web server shares the port, the first word of TLS. All of it is bounded in bytes
//! and in time: [`HEADER`] for the one, a handshake's ten seconds for the other. Nothing is told to the core before the connection has its name.
#![forbid(unsafe_code)]

use super::Worker;
use super::conns::{ConnId, End, Received, Says};
use crate::net::tls::{Certificates, Heard, Hello, Offer, Protocol, Session};
use crate::net::web::{Speaks, Web};
use crate::time::{Duration, seconds};
use crate::turn::FiveTuple;
use crate::turn::peers::Prefix;
use crate::turn::tally::Transport;
use crate::wire::proxy::{self, Ends, Header};
use crate::wire::{self, Kind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// How long a proxy may take for its header.
pub(super) const HEADER: Duration = seconds(5); // it sends it with the first packet
/// Bytes read at once while it is not known what they are; the longest header of a proxy fits.
pub(super) const OPENING_ROOM: usize = 4096;
const _: () = assert!(OPENING_ROOM > proxy::MAX_V2, "a header fits");

/// What a connection may be at its beginning, the same for all TCP and TLS listeners.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// Whether the first bytes tell what is spoken, whatever the listener is for.
    pub detect: bool,
    /// Whose connections begin with a header of the PROXY protocol; `None`: nobody's, and nobody is suspected of it.
    pub proxies: Option<Arc<[Prefix]>>,
    /// The web server that shares the TLS ports.
    pub web: Option<Arc<Web>>,
}

/// What is not known of a connection yet.
#[derive(Debug)]
pub(super) enum Opening {
    /// Whose it is: a header must come.
    Header(Option<Arc<Certificates>>),
    /// What it speaks.
    Word {
        /// Nobody here may send a header.
        bars_header: bool,
        /// What TLS is answered with.
        certificates: Option<Arc<Certificates>>,
    },
    /// Who answers its first word of TLS.
    Hello(Box<Hello>, Arc<Certificates>),
}

/// How far a connection has come.
enum Step {
    /// More bytes are needed; of these, so many are to be kept.
    Wait(Opening, usize),
    /// A stage is over, and has used up so many.
    Next(Opening, usize),
    /// It speaks plainly, from here on.
    Plain(usize),
    /// It speaks TLS, and the session wants the bytes from here on.
    Secure(Box<Session>, Says, usize),
    /// The web server has it.
    Web,
}

impl Entry {
    /// What is to be found out of a connection from `from`; `None`: nothing.
    pub(super) fn opening(
        &self,
        from: IpAddr,
        transport: Transport,
        certificates: Option<&Arc<Certificates>>,
    ) -> Option<Opening> {
        let is_shared = self.web.is_some() && transport == Transport::Tls;
        let certificates = || certificates.cloned();
        match &self.proxies {
            Some(proxies) if proxies.iter().any(|proxy| proxy.contains(from.to_canonical())) => {
                Some(Opening::Header(certificates()))
            }
            Some(_) => Some(Opening::Word { bars_header: true, certificates: certificates() }),
            None if self.detect || is_shared => {
                Some(Opening::Word { bars_header: false, certificates: certificates() })
            }
            None => None,
        }
    }
}

impl Worker {
    /// Reads once from a connection at its beginning. `None`: nothing can be handled yet, or the web server has it.
    pub(super) fn open(&mut self, id: ConnId, room: &mut [u8]) -> Result<Option<Received>, End> {
        let Some(read) = self.conns.read_opening(id, room)? else { return Ok(None) };
        // The stages go one way, so this ends.
        let (mut at, mut opening) = (0, self.conns.take_opening(id));
        while let Some(now) = opening {
            let bytes = room.get(at..read.len).unwrap_or_default();
            match self.step(id, now, bytes)? {
                Step::Next(next, used) => {
                    at += used;
                    opening = Some(next);
                    self.conns.begin_again(id, self.now.mono);
                }
                Step::Wait(next, kept) => {
                    let kept = bytes.get(bytes.len().saturating_sub(kept)..).unwrap_or_default();
                    self.conns.wait_opening(id, next, kept);
                    return Ok(None);
                }
                Step::Plain(used) => {
                    at += used;
                    self.begin(id, Transport::Tcp, None, Says::Nothing);
                    room.copy_within(at..read.len, 0);
                    return Ok(Some(Received { len: read.len - at, ..read }));
                }
                Step::Secure(session, says, used) => {
                    let wire = bytes.get(used..).unwrap_or_default().to_vec(); // what one small read has brought
                    self.begin(id, Transport::Tls, Some(*session), says);
                    return self.conns.feed(id, &wire, room);
                }
                Step::Web => return Ok(None),
            }
        }
        Ok(None)
    }

    fn step(&mut self, id: ConnId, opening: Opening, bytes: &[u8]) -> Result<Step, End> {
        match opening {
            Opening::Header(certificates) => match proxy::parse(bytes) {
                Header::Partial => Ok(Step::Wait(Opening::Header(certificates), bytes.len())),
                Header::Absent | Header::Broken => Err(End::Proxy),
                Header::Whole { len, ends } => {
                    self.introduce(id, ends)?;
                    Ok(Step::Next(Opening::Word { bars_header: false, certificates }, len))
                }
            },
            Opening::Word { bars_header, certificates } => self.first_byte(id, bars_header, certificates, bytes),
            Opening::Hello(mut hello, certificates) => match hello.hear(bytes) {
                Heard::Partial => Ok(Step::Wait(Opening::Hello(hello, certificates), 0)),
                Heard::Failed(error, alert) => Err(self.tls_failed(id, &error, &alert)),
                Heard::Whole { offer, hello: accepted, rest } => {
                    let Some(protocol) = self.web_protocol(offer)? else {
                        self.name(id, Transport::Tls);
                        self.join_web(id, hello.raw())?;
                        return Ok(Step::Web);
                    };
                    let says = if protocol == Protocol::Turn { Says::Nothing } else { Says::Http };
                    match certificates.answer(*accepted, protocol) {
                        Ok(session) => Ok(Step::Secure(session.into(), says, bytes.len() - rest.min(bytes.len()))),
                        Err((error, alert)) => Err(self.tls_failed(id, &error, &alert)),
                    }
                }
            },
        }
    }

    fn first_byte(
        &mut self,
        id: ConnId,
        bars_header: bool,
        certificates: Option<Arc<Certificates>>,
        bytes: &[u8],
    ) -> Result<Step, End> {
        let more = |certificates| Ok(Step::Wait(Opening::Word { bars_header, certificates }, bytes.len()));
        let (Some(first), Some(tuple)) = (bytes.first(), self.conns.tuple(id)) else { return more(certificates) };
        if bars_header {
            match proxy::is_header(bytes) {
                Some(false) => {}
                Some(true) => return Err(End::Proxy),
                None => return more(certificates),
            }
        }
        let is_secure = match (self.entry.detect, wire::classify(bytes)) {
            (false, _) => tuple.transport == Transport::Tls,
            (true, Some(Kind::Stun | Kind::ChannelData)) => false,
            (true, Some(Kind::Tls)) if *first == HANDSHAKE => true,
            (true, _) => return Err(End::Noise),
        };
        if !is_secure {
            return Ok(Step::Plain(0));
        }
        let Some(certificates) = certificates else { return Err(End::Noise) };
        if self.entry.web.is_some() {
            return Ok(Step::Next(Opening::Hello(Box::default(), certificates), 0));
        }
        match certificates.session() {
            Ok(session) => Ok(Step::Secure(session.into(), Says::Nothing, 0)),
            Err(error) => {
                tracing::warn!(client = %tuple.client, %error, "a TLS session cannot be made");
                Err(End::Gone)
            }
        }
    }

    /// A proxy has said whose the connection is; from here on it is that client's, also in the books.
    fn introduce(&mut self, id: ConnId, ends: Option<Ends>) -> Result<(), End> {
        let Some(mut tuple) = self.conns.tuple(id) else { return Err(End::Gone) };
        if let Some(Ends { source, destination }) = ends {
            (tuple.client, tuple.server) = (source, destination);
        }
        if !self.conns.introduce(id, tuple, self.policy.limits.connections_per_ip) {
            self.tally.limited_connections.add(1);
            return Err(End::Gone);
        }
        Ok(())
    }

    fn begin(&mut self, id: ConnId, transport: Transport, session: Option<Session>, says: Says) {
        self.name(id, transport);
        self.conns.begin(id, session, says, self.now.mono);
    }

    /// The connection has its name for good, and counts under its transport.
    fn name(&mut self, id: ConnId, transport: Transport) {
        let Some(before) = self.conns.tuple(id) else { return };
        let tuple = FiveTuple { transport, ..before };
        self.tally.connections[before.transport as usize].sub(1);
        self.tally.connections[transport as usize].add(1);
        self.conns.rename(id, tuple);
        if self.entry.proxies.is_none() {
            return;
        }
        // The kernel gives each connection a name of its own; proxies may repeat one, as when a client comes again from the
        // port it had. The older connection is a dead one then.
        if let Some(older) = self.introduced.insert(tuple, id) {
            self.close(older);
        }
    }

    /// Which protocol we answer with; `None`: the web server answers itself.
    fn web_protocol(&self, offer: Offer) -> Result<Option<Protocol>, End> {
        let Offer::Http { http1, http2, prefers_http2 } = offer else { return Ok(Some(Protocol::Turn)) };
        let speaks = self.entry.web.as_ref().and_then(|web| web.speaks()).ok_or(End::Web)?;
        Ok(match speaks {
            Speaks::Tls => None,
            Speaks::Http2 if http2 && (prefers_http2 || !http1) => Some(Protocol::Http2),
            Speaks::Http1 | Speaks::Http2 if http1 => Some(Protocol::Http1),
            // There is nothing that both speak, and the client is told so.
            Speaks::Http1 | Speaks::Http2 => Some(Protocol::Turn),
        })
    }

    fn tls_failed(&mut self, id: ConnId, error: &rustls::Error, alert: &[u8]) -> End {
        if let Some(tuple) = self.conns.tuple(id) {
            log_failure(tuple.client, error);
            let _ = self.conns.queue(id.index, &tuple, alert, false); // it ends anyway
        }
        End::Tls
    }
}

/// One place for it, because the log counts by place what is said too often.
pub(super) fn log_failure(client: SocketAddr, error: &rustls::Error) {
    tracing::debug!(%client, %error, "a TLS connection failed");
}

/// The type of the record that TLS begins with (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;
