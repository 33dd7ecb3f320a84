//! What an ICMP error says to a TURN client (RFC 8656 §11.5, §18.13).
#![forbid(unsafe_code)]

use super::stun::Family;

/// An ICMP error that a relayed packet met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Whether it is ICMP (IPv4) or ICMPv6.
    pub family: Family,
    /// The type.
    pub kind: u8,
    /// The code.
    pub code: u8,
    /// The MTU of the next hop, where the error tells one.
    pub mtu: u32,
}

/// "Fragmentation needed": the one code of "destination unreachable" that tells an MTU (RFC 1191).
const FRAGMENTATION_NEEDED: (u8, u8) = (3, 4);
/// ICMPv6 "packet too big" (RFC 4443 §3.2).
const PACKET_TOO_BIG: u8 = 2;

impl Icmp {
    /// Whether clients hear of it: unreachable and time exceeded, and ICMPv6's packet too big (RFC 8656 §11.5).
    pub const fn is_relayed(self) -> bool {
        match self.family {
            Family::V4 => matches!(self.kind, 3 | 11),
            Family::V6 => matches!(self.kind, 1..=3),
        }
    }

    /// The value of the ICMP attribute: 16 reserved bits, 7 of type, 9 of code, 32 of error data.
    pub fn value(self) -> [u8; 8] {
        let tells_mtu = match self.family {
            Family::V4 => (self.kind, self.code) == FRAGMENTATION_NEEDED,
            Family::V6 => self.kind == PACKET_TOO_BIG,
        };
        let [k0, k1] = (u16::from(self.kind & 0x7F) << 9 | u16::from(self.code)).to_be_bytes();
        let [d0, d1, d2, d3] = if tells_mtu { self.mtu } else { 0 }.to_be_bytes();
        [0, 0, k0, k1, d0, d1, d2, d3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d14_only_an_error_that_tells_an_mtu_has_error_data() {
        let icmp = |family, kind, code| Icmp { family, kind, code, mtu: 1400 }.value();
        assert_eq!(icmp(Family::V4, 3, 4), [0, 0, 6, 4, 0, 0, 5, 0x78]);
        assert_eq!(icmp(Family::V4, 3, 3), [0, 0, 6, 3, 0, 0, 0, 0]);
        assert_eq!(icmp(Family::V6, 2, 0), [0, 0, 4, 0, 0, 0, 5, 0x78]);
        assert_eq!(icmp(Family::V6, 1, 4), [0, 0, 2, 4, 0, 0, 0, 0]);
    }

    #[test]
    fn d11_echo_and_redirect_are_nobodys_business() {
        for (family, kind, is_relayed) in [
            (Family::V4, 0, false),
            (Family::V4, 3, true),
            (Family::V4, 5, false),
            (Family::V4, 11, true),
            (Family::V4, 12, false),
            (Family::V6, 1, true),
            (Family::V6, 2, true),
            (Family::V6, 3, true),
            (Family::V6, 4, false),
            (Family::V6, 129, false),
        ] {
            assert_eq!(Icmp { family, kind, code: 0, mtu: 0 }.is_relayed(), is_relayed, "{family:?} {kind}");
        }
    }
}
