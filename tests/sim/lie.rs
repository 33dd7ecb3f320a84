//! Servers that lie: each breaks one law on purpose, so that the auditor can show that it sees it.

use turnserver::turn::refusal::Dropped;
use turnserver::turn::{Effect, Path, RelayId, StreamId, Verdict};
use turnserver::wire::codes::{Attribute, Method};
use turnserver::wire::stun::Message;

/// What a server gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Its clock is late when clients speak.
    SlowClock,
    /// Its clock is late when peers speak.
    SlowClockForPeers,
    /// It goes on with the peers it was told to leave alone.
    DeafToRules,
    /// It changes a byte of what it relays.
    ChangedByte,
    /// It gives two allocations one port.
    SamePort,
    /// It loses count of its ports.
    LostPort,
    /// It grants more than the quota.
    NoQuota,
    /// It never looks after its timers.
    NoTicks,
    /// It does something for whoever asks.
    Generous,
    /// It says more than it was asked.
    Talkative,
    /// It answers answers.
    Echo,
    /// It answers another request than the one it heard.
    WrongTransaction,
    /// It keeps what nobody needs.
    Hoard,
    /// It lets through more than the limit.
    Wide,
    /// It drops without counting.
    SecretDrop,
    /// It forgets when it has something to do.
    LostTimer,
    /// It does not give its ports back.
    KeptPort,
    /// It sends a secret along.
    Secret,
}

/// Every lie, and the invariants by which it is found out.
pub(crate) const LIES: [(Lie, &[u8]); 18] = [
    (Lie::SlowClock, &[1, 9, 14, 16]),
    (Lie::SlowClockForPeers, &[3, 4]),
    (Lie::DeafToRules, &[1, 2, 8, 14, 16]),
    (Lie::ChangedByte, &[4]),
    (Lie::SamePort, &[5]),
    (Lie::LostPort, &[6]),
    (Lie::NoQuota, &[7]),
    (Lie::NoTicks, &[8, 16]),
    (Lie::Generous, &[11]),
    (Lie::Talkative, &[12]),
    (Lie::Echo, &[13]),
    (Lie::WrongTransaction, &[14]),
    (Lie::Hoard, &[16]),
    (Lie::Wide, &[17]),
    (Lie::SecretDrop, &[18]),
    (Lie::LostTimer, &[19]),
    (Lie::KeptPort, &[20]),
    (Lie::Secret, &[21]),
];

impl Lie {
    /// Changes what came of a client's message.
    pub(crate) fn tells(
        self,
        path: Path,
        asked: &[u8],
        verdict: &mut Verdict,
        left: &mut Vec<u8>,
        effects: &mut Vec<Effect>,
    ) {
        let is_answer = matches!(verdict, Verdict::ToClient(_)) && left.len() >= 20;
        match self {
            Self::ChangedByte if matches!(verdict, Verdict::ToPeer { .. }) => {
                if let Some(last) = left.last_mut() {
                    *last ^= 1;
                }
            }
            Self::Generous
                if is_answer && Message::parse(asked).is_ok_and(|message| message.method == Method::ALLOCATE) =>
            {
                effects.push(Effect::Accept { relay: RelayId { index: 7, generation: 7 }, stream: StreamId(7) });
            }
            Self::Talkative if is_answer => {
                // SOFTWARE of 200 zeros, before nothing: no answer to a stranger may be as long.
                let is_challenge = Message::parse(left).is_ok_and(|message| message.get(Attribute::NONCE).is_some());
                if is_challenge && Message::parse(left).is_ok_and(|message| !message.has_fingerprint()) {
                    left.extend([0x80, 0x22, 0, 200]);
                    left.extend([0; 200]);
                    let length = (left.len() - 20) as u16;
                    left[2..4].copy_from_slice(&length.to_be_bytes());
                }
            }
            Self::Echo if matches!(verdict, Verdict::Dropped(Dropped::Unexpected | Dropped::UnknownMethod)) => {
                *verdict = Verdict::ToClient(path);
            }
            Self::WrongTransaction if is_answer => left[12] ^= 1,
            _ => {}
        }
    }
}
