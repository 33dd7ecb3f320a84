//! What goes wrong in a world, by the numbers of the fault list in docs/testing.md.

use crate::chance::Chance;
use crate::host::Host;
use crate::world::LinkQuality;
use std::collections::BTreeMap;
use turnserver::time::Instant;

/// Something that goes wrong at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The server dies and starts with nothing.
    Killed,
    /// New allocations are turned away, or welcome again.
    Drain,
    /// The wall clock jumps.
    WallClock,
    /// The machine sleeps for 30 s.
    Asleep,
    /// No file descriptor is left, or some are again.
    NoFiles,
    /// Another program sits on every fourth port of the range.
    Crowded,
    /// The send buffers are full.
    Stuffed,
    /// Limits change.
    Reload,
    /// Users and secrets change.
    Rotation,
    /// The rules about peers change.
    Rule,
    /// An address of the host comes or goes.
    Address,
    /// The nonces of before are worth nothing.
    NewKey,
    /// A client disappears without a word.
    Gone,
    /// Requests without credentials, from everywhere.
    Flood,
    /// One client sends far more than its share.
    Loud,
    /// Datagrams as if from the server itself, and from port 0.
    Spoofed,
    /// Messages of RFC 3489 and channel numbers that RFC 5766 had.
    OldClient,
    /// A NAT gives a client another port, or another client's.
    Rebinding,
}

const ALL: [Fault; 18] = [
    Fault::Killed,
    Fault::Drain,
    Fault::WallClock,
    Fault::Asleep,
    Fault::NoFiles,
    Fault::Crowded,
    Fault::Stuffed,
    Fault::Reload,
    Fault::Rotation,
    Fault::Rule,
    Fault::Address,
    Fault::NewKey,
    Fault::Gone,
    Fault::Flood,
    Fault::Loud,
    Fault::Spoofed,
    Fault::OldClient,
    Fault::Rebinding,
];

impl Fault {
    pub(crate) fn draw(chance: &mut Chance) -> Self {
        *chance.pick(&ALL)
    }

    /// Its number in the list.
    pub(crate) const fn id(self) -> &'static str {
        match self {
            Self::Killed => "F01",
            Self::Drain => "F02",
            Self::WallClock => "F05",
            Self::Asleep => "F06",
            Self::NoFiles => "F07",
            Self::Crowded => "F09",
            Self::Stuffed => "F10",
            Self::Reload => "F19 limits",
            Self::Rotation => "F19 credentials",
            Self::Rule => "F19 peers",
            Self::Address => "F31",
            Self::NewKey => "F42 key",
            Self::Gone => "F26",
            Self::Flood => "F27",
            Self::Loud => "F28",
            Self::Spoofed => "F47",
            Self::OldClient => "F48",
            Self::Rebinding => "F43",
        }
    }
}

/// What has gone wrong so far, and what still is.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) seen: BTreeMap<&'static str, u64>,
    paused: BTreeMap<usize, Instant>,
}

impl Faults {
    /// Counts one; the empty name is none.
    pub(crate) fn note(&mut self, id: &'static str) {
        if !id.is_empty() {
            *self.seen.entry(id).or_default() += 1;
        }
    }

    pub(crate) fn pause(&mut self, host: usize, until: Instant) {
        self.paused.insert(host, until);
    }

    pub(crate) fn paused(&self, host: usize) -> Option<Instant> {
        self.paused.get(&host).copied()
    }

    /// Counts what a world has gone wrong from its beginning.
    pub(crate) fn of_settings(&mut self, hosts: &[Host], link: LinkQuality, is_fleet: bool) {
        let share = |percent: u64, id: &'static str| if percent > 0 { id } else { "" };
        for id in [share(link.lost, "F23 loss"), share(link.doubled, "F23 double"), share(link.jitter, "F23 late")] {
            self.note(id);
        }
        if hosts.len() > 1 && is_fleet {
            self.note("F42");
        }
        for host in hosts {
            let rules = &host.rules;
            let families = rules.relays.iter().filter(|relay| relay.local.is_ipv4()).count();
            self.note(match (families, rules.relays.len() - families) {
                (0, _) => "F30 IPv6 alone",
                (_, 0) => "F30 IPv4 alone",
                _ => "",
            });
            self.note(if rules.relay_ports.len() < 20 { "F08" } else { "" });
            self.note(if rules.relays.iter().any(|relay| relay.local != relay.external) { "F32" } else { "" });
            self.note(if host.workers.len() > 1 { "F38" } else { "" });
        }
    }
}
