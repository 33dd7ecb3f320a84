//! What is measured of every server, and where the generator's line says it.

use crate::servers::Kind;

/// One load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// How clients come.
    pub(crate) transport: &'static str,
    /// What the generator is told.
    pub(crate) arguments: &'static str,
    /// Whether it runs for a time, or until it is through.
    pub(crate) is_timed: bool,
    /// Whether it is about relayed data; a forwarder has its requests decided by the core of this server.
    pub(crate) is_relayed: bool,
    pub(crate) figures: &'static [Figure],
}

impl Case {
    /// Whether a server can do it, and is there.
    pub(crate) fn is_for(&self, kind: Kind) -> bool {
        let is_able = self.transport == "udp" || kind.has_streams();
        is_able && kind.is_installed() && (self.is_relayed || kind != Kind::Bare)
    }
}

/// One figure of a load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) unit: &'static str,
    /// A JSON pointer into the generator's line.
    pub(crate) at: &'static str,
    /// Whether less of it is better; its bars are drawn then.
    pub(crate) is_cost: bool,
}

const CPU: Figure = Figure { unit: "CPU µs per packet", at: "/server/cpu_us_per_packet", is_cost: true };
const RATE: Figure = Figure { unit: "packets/s", at: "/pps", is_cost: false };
const ALLOCATIONS: Figure = Figure { unit: "allocations/s", at: "/allocations_per_second", is_cost: false };
const REFRESHES: Figure = Figure { unit: "refreshes/s", at: "/refreshes_per_second", is_cost: false };
const BINDINGS: Figure = Figure { unit: "answers/s", at: "/bindings_per_second", is_cost: false };
const CPU_OF_REQUEST: Figure = Figure { unit: "CPU µs per request", at: "/server/cpu_us_per_request", is_cost: true };
const MEMORY: Figure = Figure { unit: "resident bytes", at: "/server/bytes_per_allocation", is_cost: true };
const BUSY: &[Figure] = &[CPU, RATE];

const fn relay(name: &'static str, transport: &'static str, arguments: &'static str) -> Case {
    Case { name, transport, arguments, is_timed: true, is_relayed: true, figures: BUSY }
}

/// All of them.
pub(crate) const CASES: &[Case] = &[
    relay("160 B, 100 clients, to peer", "udp", "--clients 100 --size 160 --direction up"),
    relay("160 B, 100 clients, to client", "udp", "--clients 100 --size 160 --direction down"),
    relay("160 B, 1000 clients, to peer", "udp", "--clients 1000 --size 160 --direction up"),
    relay("160 B, 1000 clients, to client", "udp", "--clients 1000 --size 160 --direction down"),
    relay("1200 B, one flow in trains, to peer", "udp", "--clients 1 --size 1200 --direction up --gso on"),
    relay("1200 B, one flow in trains, to client", "udp", "--clients 1 --size 1200 --direction down --gso on"),
    relay("160 B, 100 clients, relay to relay", "udp", "--clients 100 --size 160 --direction up --peer same-server"),
    relay("160 B, 100 TCP clients, to peer", "tcp", "--clients 100 --size 160 --direction up"),
    relay("160 B, 100 TCP clients, to client", "tcp", "--clients 100 --size 160 --direction down"),
    relay("160 B, 100 TLS clients, to peer", "tls", "--clients 100 --size 160 --direction up"),
    relay("160 B, 100 TLS clients, to client", "tls", "--clients 100 --size 160 --direction down"),
    Case {
        name: "160 B, 100 clients, 20,000 packets/s in all",
        transport: "udp",
        arguments: "--clients 100 --size 160 --direction up --rate 200",
        is_timed: true,
        is_relayed: true,
        figures: &[CPU],
    },
    Case {
        name: "Binding",
        transport: "udp",
        arguments: "--kind binding --clients 100",
        is_timed: true,
        is_relayed: false,
        figures: &[CPU_OF_REQUEST, BINDINGS],
    },
    Case {
        name: "10,000 allocations",
        transport: "udp",
        arguments: "--kind allocate --clients 10000",
        is_timed: false,
        is_relayed: false,
        figures: &[ALLOCATIONS, MEMORY],
    },
    Case {
        name: "Refresh",
        transport: "udp",
        arguments: "--kind refresh --clients 1000",
        is_timed: true,
        is_relayed: false,
        figures: &[CPU_OF_REQUEST, REFRESHES],
    },
];
