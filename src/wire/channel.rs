//! ChannelData: four bytes of head, then the payload (RFC 8656 §12.4).
//!
//! Over a stream a message is padded to four bytes and the length does not count the padding; over datagrams whatever
//! follows the payload is ignored (§12.5).

use core::fmt;

/// Bytes of the head.
pub const HEAD: usize = 4;

/// The number of a channel: 0x4000 to 0x7FFF. No other value can be made.
///
/// RFC 8656 §12 ends the range at 0x4FFF, RFC 5766 §11 at 0x7FFF, and clients of the older text choose from all of it at
/// random (coturn's do). Refusing those would break three calls of four for them and protect nobody: the client itself
/// tells channels from RTP, and a number above 0x4FFF means something here only after the client has bound it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelNumber(u16);

impl ChannelNumber {
    /// The lowest channel.
    pub const MIN: Self = Self(0x4000);
    /// The highest channel.
    pub const MAX: Self = Self(0x7FFF);

    /// `None` outside 0x4000–0x7FFF.
    pub const fn new(number: u16) -> Option<Self> {
        if number >= Self::MIN.0 && number <= Self::MAX.0 { Some(Self(number)) } else { None }
    }

    /// The number on the wire.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for ChannelNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

/// What a ChannelData message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelData {
    /// Which channel.
    pub number: ChannelNumber,
    /// Bytes of payload after the head.
    pub length: usize,
}

/// Why bytes are no ChannelData.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelError {
    /// Fewer bytes than the head, or than its length promises.
    Short,
    /// The number is outside 0x4000–0x7FFF.
    Number,
}

impl ChannelData {
    /// Reads the head of `bytes` and checks that the payload is there. More bytes than promised are padding.
    pub fn parse(bytes: &[u8]) -> Result<Self, ChannelError> {
        let [n0, n1, l0, l1, payload @ ..] = bytes else { return Err(ChannelError::Short) };
        let number = ChannelNumber::new(u16::from_be_bytes([*n0, *n1])).ok_or(ChannelError::Number)?;
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        if payload.len() < length {
            return Err(ChannelError::Short);
        }
        Ok(Self { number, length })
    }
}

/// The head for a payload of `length` bytes.
pub fn head(number: ChannelNumber, length: u16) -> [u8; HEAD] {
    let [n0, n1] = number.get().to_be_bytes();
    let [l0, l1] = length.to_be_bytes();
    [n0, n1, l0, l1]
}
