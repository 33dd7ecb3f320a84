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
        assert!(self.answer().is_some_and(|message| message.is_signed(Algorithm::Sha1)));
        self
    }

    /// The answer bears none.
    #[track_caller]
    pub(crate) fn unsigned(self) -> Self {
        assert!(self.answer().is_some_and(|message| !message.is_signed(Algorithm::Sha1)));
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

    fn class(&self) -> Option<Class> {
        self.answer().map(|message| message.class)
    }

    fn answer(&self) -> Option<Message<'_>> {
        let Verdict::ToClient(_) = self.verdict else { return None };
        (self.bytes.first()? < &0x40).then(|| Message::parse(&self.bytes).expect("what the server says is STUN"))
    }
}
