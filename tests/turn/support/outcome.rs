//! What became of something that was said, and what a story expects of it.

use super::*;

/// What became of something that was said.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) bytes: Vec<u8>,
    pub(super) asked: Vec<u8>,
}

/// What a story expects.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    Success,
    Error(u16),
    Silence,
    Dropped(Dropped),
    Data(SocketAddr, Vec<u8>),
    ChannelData(u16, Vec<u8>),
    Attempt(SocketAddr),
    Icmp(SocketAddr, [u8; 8]),
}

pub(crate) fn success() -> Expected {
    Expected::Success
}

pub(crate) fn error(code: u16) -> Expected {
    Expected::Error(code)
}

/// Nothing comes back, and nothing goes anywhere.
pub(crate) fn silence() -> Expected {
    Expected::Silence
}

/// Silence, counted under this reason.
pub(crate) fn dropped(why: Dropped) -> Expected {
    Expected::Dropped(why)
}

pub(crate) fn data(from: SocketAddr, payload: &[u8]) -> Expected {
    Expected::Data(from, payload.into())
}

pub(crate) fn channel(number: u16, payload: &[u8]) -> Expected {
    Expected::ChannelData(number, payload.into())
}

/// A ConnectionAttempt of this peer.
pub(crate) fn attempt(from: SocketAddr) -> Expected {
    Expected::Attempt(from)
}

/// A Data indication without data: what was sent to this peer met an error.
pub(crate) fn icmp(peer: SocketAddr, value: [u8; 8]) -> Expected {
    Expected::Icmp(peer, value)
}

impl Outcome {
    #[track_caller]
    pub(crate) fn hears(self, expected: Expected) -> Self {
        let is_heard = match &expected {
            Expected::Success => self.class() == Some(Class::Success),
            Expected::Error(code) => self.code() == Some(*code),
            Expected::Silence => matches!(self.verdict, Verdict::Nothing | Verdict::Dropped(_)),
            Expected::Dropped(why) => self.verdict == Verdict::Dropped(*why),
            Expected::Data(from, payload) => self.answer().is_some_and(|message| {
                let peer = message.xor_address(Attribute::XOR_PEER_ADDRESS);
                (message.class, message.method) == (Class::Indication, Method::DATA)
                    && peer == Some(Ok(*from))
                    && message.get(Attribute::DATA) == Some(payload)
            }),
            Expected::Attempt(from) => self.answer().is_some_and(|message| {
                (message.class, message.method) == (Class::Indication, Method::CONNECTION_ATTEMPT)
                    && message.xor_address(Attribute::XOR_PEER_ADDRESS) == Some(Ok(*from))
                    && message.get(Attribute::CONNECTION_ID).is_some_and(|id| id.len() == 4)
            }),
            Expected::Icmp(peer, value) => self.answer().is_some_and(|message| {
                (message.class, message.method) == (Class::Indication, Method::DATA)
                    && message.xor_address(Attribute::XOR_PEER_ADDRESS) == Some(Ok(*peer))
                    && message.get(Attribute::ICMP) == Some(value)
                    && message.get(Attribute::DATA).is_none()
            }),
            Expected::ChannelData(number, payload) => {
                let [n0, n1] = number.to_be_bytes();
                let [l0, l1] = (payload.len() as u16).to_be_bytes();
                let whole = [&[n0, n1, l0, l1], payload.as_slice()].concat();
                matches!(self.verdict, Verdict::ToClient(_)) && self.bytes.starts_with(&whole)
            }
        };
        assert!(is_heard, "expected {expected:?}, got {:?} {:?} {:?}", self.verdict, self.class(), self.code());
        self
    }

    /// It left to this peer, byte for byte.
    #[track_caller]
    pub(crate) fn reaches(self, peer: SocketAddr, payload: &[u8]) -> Self {
        let Verdict::ToPeer { peer: to, .. } = self.verdict else {
            panic!("expected a datagram, got {:?}", self.verdict)
        };
        assert_eq!(to, peer);
        assert!(self.bytes == payload, "other bytes than were sent");
        self
    }

    /// The answer bears the asker's signature.
    #[track_caller]
    pub(crate) fn signed(self) -> Self {
        self.signed_with(Algorithm::Sha1)
    }

    /// The answer bears the asker's signature of this kind, and no other.
    #[track_caller]
    pub(crate) fn signed_with(self, algorithm: Algorithm) -> Self {
        let message = self.answer().expect("an answer");
        let signatures = [Algorithm::Sha1, Algorithm::Sha256].map(|kind| message.is_signed(kind));
        assert_eq!(signatures, [algorithm == Algorithm::Sha1, algorithm == Algorithm::Sha256]);
        self
    }

    /// The answer bears none.
    #[track_caller]
    pub(crate) fn unsigned(self) -> Self {
        assert!(
            self.answer().is_some_and(|message| {
                !message.is_signed(Algorithm::Sha1) && !message.is_signed(Algorithm::Sha256)
            })
        );
        self
    }

    #[track_caller]
    pub(crate) fn for_seconds(self, lifetime: u32) -> Self {
        assert_eq!(self.lifetime(), Some(lifetime));
        self
    }

    pub(crate) fn lifetime(&self) -> Option<u32> {
        self.get(Attribute::LIFETIME).and_then(|value| value.try_into().ok()).map(u32::from_be_bytes)
    }

    pub(crate) fn get(&self, attribute: Attribute) -> Option<Vec<u8>> {
        self.answer()?.get(attribute).map(<[u8]>::to_vec)
    }

    pub(crate) fn address(&self, attribute: Attribute) -> Option<SocketAddr> {
        self.answer()?.xor_address(attribute)?.ok()
    }

    /// The attributes of the answer, in order.
    pub(crate) fn attributes(&self) -> Vec<Attribute> {
        self.answer().map(|message| message.attributes().map(|(kind, _)| kind).collect()).unwrap_or_default()
    }

    pub(crate) fn code(&self) -> Option<u16> {
        error_code(&self.answer()?)
    }

    /// Bytes out for bytes in.
    pub(crate) fn amplification(&self) -> f64 {
        match self.verdict {
            Verdict::ToClient(_) => self.bytes.len() as f64 / self.asked.len() as f64,
            Verdict::ToPeer { .. } => panic!("nobody unknown is relayed for"),
            Verdict::Nothing | Verdict::Dropped(_) | Verdict::Elsewhere(_) | Verdict::Wait(_) => 0.0,
        }
    }

    /// It goes to the client on this path.
    #[track_caller]
    pub(crate) fn comes_by(self, path: Path) -> Self {
        assert_eq!(self.verdict, Verdict::ToClient(path));
        self
    }

    /// CONNECTION-ID.
    pub(crate) fn connection(&self) -> StreamId {
        let id = self.get(Attribute::CONNECTION_ID).expect("a connection has an id");
        StreamId(u32::from_be_bytes(id.try_into().expect("an id has four bytes")))
    }

    /// Every XOR-RELAYED-ADDRESS.
    pub(crate) fn relayed(&self) -> Vec<SocketAddr> {
        let Some(message) = self.answer() else { return Vec::new() };
        let relayed = message.attributes().filter(|(kind, _)| *kind == Attribute::XOR_RELAYED_ADDRESS);
        relayed.map(|(_, value)| xor_address(value, &message.transaction).expect("an address")).collect()
    }

    pub(super) fn class(&self) -> Option<Class> {
        self.answer().map(|message| message.class)
    }

    fn answer(&self) -> Option<Message<'_>> {
        let Verdict::ToClient(_) = self.verdict else { return None };
        (self.bytes.first()? < &0x40).then(|| Message::parse(&self.bytes).expect("what the server says is STUN"))
    }
}
