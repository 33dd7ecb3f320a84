//! What every payload begins with: when it was sent, by whom, and which one it is.
//!
//! 16 bytes, so that the smallest voice packets have room for them: 48 bits of nanoseconds since the load began (78
//! hours), 24 of the client, 16 of the place among packets under way, 32 of the sequence, and a mark. Never reads a clock.
#![forbid(unsafe_code)]

/// The stamp of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Nanoseconds since the load began.
    pub at: u64,
    /// Which client of its thread.
    pub client: u32,
    /// Its place among packets under way.
    pub slot: u16,
    /// Which packet of its client.
    pub sequence: u32,
}

/// The last byte: whatever else may reach a socket by accident seldom has it there.
const MARK: u8 = 0xA7;

impl Stamp {
    /// Bytes of a stamp.
    pub const LEN: usize = 16;

    /// The bytes.
    pub fn bytes(self) -> [u8; Self::LEN] {
        let at = u128::from(self.at & 0xFFFF_FFFF_FFFF) << 80;
        let client = u128::from(self.client & 0xFF_FFFF) << 56;
        let rest = u128::from(self.slot) << 40 | u128::from(self.sequence) << 8 | u128::from(MARK);
        (at | client | rest).to_be_bytes()
    }

    /// The stamp that a payload begins with.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let bits = u128::from_be_bytes(*payload.first_chunk::<{ Self::LEN }>()?);
        (bits as u8 == MARK).then_some(Self {
            at: (bits >> 80) as u64,
            client: (bits >> 56) as u32 & 0xFF_FFFF,
            slot: (bits >> 40) as u16,
            sequence: (bits >> 8) as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(at in 0..1u64 << 48, client in 0..1u32 << 24, slot: u16, sequence: u32) {
            let stamp = Stamp { at, client, slot, sequence };
            let payload = [&stamp.bytes()[..], b"and the rest"].concat();
            prop_assert_eq!(Stamp::read(&payload), Some(stamp));
        }
    }

    #[test]
    fn a_payload_without_a_stamp_has_none() {
        assert_eq!(Stamp::read(&[MARK; 15]), None);
        assert_eq!(Stamp::read(&[0; 160]), None);
    }
}
