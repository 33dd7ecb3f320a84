//! The data plane in use, as the status, the metrics and the log tell it.
//!
//! Known at the start and the same to the end: a reload changes neither the workers nor what the system can do.
#![forbid(unsafe_code)]

use crate::net::udp::Abilities;
use crate::worker::Handle;

/// Who carries the packets, and how.
#[derive(Clone, Copy, Debug)]
pub struct DataPlane {
    /// Threads that relay.
    pub workers: usize,
    /// What the system can do for them.
    pub abilities: Abilities,
}

impl DataPlane {
    /// Through this program; there is no other way.
    pub const PATH: &str = "userspace";

    /// That of these workers.
    pub fn of(handle: &Handle) -> Self {
        Self { workers: handle.tallies().len(), abilities: handle.abilities() }
    }

    /// How datagrams are received: the metric label.
    pub fn receive(self) -> &'static str {
        label(self.abilities.receives_trains)
    }

    /// How datagrams are sent: the metric label.
    pub fn send(self) -> &'static str {
        label(self.abilities.sends_trains)
    }

    /// Why it is this one and no faster one, in a sentence.
    pub fn why(self) -> &'static str {
        match (self.abilities.receives_trains, self.abilities.sends_trains) {
            (true, true) => "this version has no kernel path",
            (false, true) => {
                "this version has no kernel path, and the system refuses UDP_GRO, which Linux has since 5.0: \
                 each datagram is received by itself"
            }
            (true, false) => {
                "this version has no kernel path, and the system refuses UDP_SEGMENT, which Linux has since 4.18: \
                 each datagram is sent by itself"
            }
            (false, false) => {
                "this version has no kernel path, and the system refuses UDP_GRO and UDP_SEGMENT, which Linux has \
                 since 5.0: each datagram is received and sent by itself"
            }
        }
    }
}

fn label(trains: bool) -> &'static str {
    if trains { "trains" } else { "single" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_is_named_and_nothing_else() {
        for (receives_trains, sends_trains) in [(true, true), (false, true), (true, false), (false, false)] {
            let plane = DataPlane { workers: 1, abilities: Abilities { receives_trains, sends_trains } };
            assert_eq!(plane.why().contains("UDP_GRO"), !receives_trains);
            assert_eq!(plane.why().contains("UDP_SEGMENT"), !sends_trains);
            assert_eq!(plane.receive() == "trains", receives_trains);
            assert_eq!(plane.send() == "trains", sends_trains);
        }
    }
}
