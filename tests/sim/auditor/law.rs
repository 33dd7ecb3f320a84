//! The invariants by number, and what a broken one says.

/// The invariants, by their numbers in docs/threat-model.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Law {
    PermissionToPeer = 1,
    DeniedAddress,
    PermissionToClient,
    SameBytes,
    OnePortOneOwner,
    PortsAddUp,
    Quota,
    NothingOutlives,
    ExactLifetimes,
    ChannelsAreOneToOne,
    NothingBeforeProof,
    Amplification,
    NoAnswerToAnswers,
    AnswersFit,
    SameAnswerAgain,
    BoundedMemory,
    BoundedQueues,
    InIsOutAndDrops,
    Timers,
    AsNew,
    NoSecrets,
}

/// A law that was broken, and how.
#[derive(Clone, Debug)]
pub(crate) struct Breach {
    pub(crate) law: Law,
    pub(crate) what: String,
}

pub(crate) type Judged = Result<(), Breach>;

/// Says which law is broken unless the fact holds.
macro_rules! holds {
    ($law:ident, $fact:expr, $($what:tt)+) => {
        if !$fact {
            return Err(Breach { law: Law::$law, what: format!($($what)+) });
        }
    };
}
