//! The published flaws of TURN servers as a script: each is tried on a server from outside, and judged.
//!
//! Owns the list. Knows nothing of whose server it is: an address, a realm, a secret, and what its operator has set.
//! What one cannot see from outside is `NotShown` and never `Holds`. Sends nothing beyond loopback: the relay address
//! is one of 127.0.0.0/8 or ::1, from which the kernel finds no way out.

mod login;
mod parse;
mod peers;
mod state;

use crate::visitor::{Answer, Gone, Visitor, minted};
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use turnserver::wire::codes::Attribute;

/// A server to try.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Where it takes clients over UDP and TCP.
    pub(crate) address: SocketAddr,
    /// Where it takes clients over DTLS.
    pub(crate) dtls: Option<SocketAddr>,
    pub(crate) realm: &'static str,
    /// The secret of time-limited credentials.
    pub(crate) secret: &'static str,
    /// When the ones that are good end.
    pub(crate) expires: u64,
    /// Whether the operator lets clients relay to 127.0.0.0/8.
    pub(crate) loopback: Loopback,
    /// Every socket address that the operator has asked for, relay ports apart.
    pub(crate) doors: Vec<SocketAddr>,
    /// An operator's console over TCP, and its password.
    pub(crate) console: Option<(SocketAddr, &'static str)>,
    /// Addresses that the operator has denied beside what the server denies by itself.
    pub(crate) denied: RangeInclusive<Ipv6Addr>,
    /// How many relay ports there are.
    pub(crate) ports: u16,
    /// How many allocations one user may have.
    pub(crate) quota: u16,
    /// An ORIGIN that belongs to another realm, where the server knows such a thing.
    pub(crate) origin: &'static str,
    /// Its process, to weigh it.
    pub(crate) pid: u32,
    /// What it writes about its sessions.
    pub(crate) log: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loopback {
    Shut,
    Open,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The server withstands it.
    Holds,
    /// It does not; what was seen.
    Flawed(String),
    /// Nothing can be said; why.
    NotShown(&'static str),
}

/// The way to a verdict that is not `Holds`.
enum Stop {
    Flawed(String),
    NotShown(&'static str),
}

impl From<Gone> for Stop {
    fn from(Gone: Gone) -> Self {
        Self::Flawed("the server answers nothing any more".into())
    }
}

type Outcome = Result<(), Stop>;

fn flawed(what: impl fmt::Display) -> Outcome {
    Err(Stop::Flawed(what.to_string()))
}

/// One flaw: its name, and how it is tried.
pub(crate) struct Check {
    pub(crate) id: &'static str,
    try_it: fn(&Target) -> Outcome,
}

/// Every flaw, in the order of the table. The one that loses relay ports stands last: nothing could be tried afterwards.
pub(crate) const SCRIPT: &[Check] = &[
    Check { id: "CVE-2018-4056", try_it: login::quotes_log_nobody_in },
    Check { id: "CVE-2018-4058", try_it: peers::loopback_is_shut },
    Check { id: "CVE-2018-4059", try_it: login::no_door_but_the_configured_ones },
    Check { id: "CVE-2020-6061/6062", try_it: parse::http_is_not_spoken },
    Check { id: "CVE-2020-4067", try_it: parse::padding_is_zero },
    Check { id: "CVE-2020-26262", try_it: peers::unspecified_is_no_peer },
    Check { id: "CVE-2021-21382", try_it: peers::own_doors_are_no_peers },
    Check { id: "CVE-2025-69217", try_it: login::nonces_cannot_be_foreseen },
    Check { id: "CVE-2026-27624 = GHSA-j8mm-mpf8-gvjg", try_it: peers::mapped_loopback_is_no_peer },
    Check { id: "commit 7f7dc99d", try_it: login::wrong_passwords_log_nobody_in },
    Check { id: "CVE-2026-40613 = GHSA-j662-9wcj-mf36", try_it: parse::odd_offsets_are_read },
    Check { id: "commit 46368b3e", try_it: parse::tokens_of_any_length_are_refused },
    Check { id: "commit dbc28840", try_it: login::forged_signatures_are_refused },
    Check { id: "commit c37ccf4d", try_it: state::origin_pins_nothing },
    Check { id: "GHSA-v8hj-2xx7-xmp5", try_it: login::statements_delete_nobody },
    Check { id: "GHSA-4g7c-p5wg-j4hp", try_it: parse::names_are_data },
    Check { id: "commit e72930f5", try_it: login::no_command_writes_a_file },
    Check { id: "commit b057acbe", try_it: peers::other_clothes_of_loopback_are_no_peers },
    Check { id: "commits cf4b4952, d49ee56a, e2735cf0", try_it: peers::translated_and_local_are_no_peers },
    Check { id: "GHSA-m23x-5qf5-988g", try_it: parse::no_redirect_is_read },
    Check { id: "commit ab762f33", try_it: parse::what_follows_the_signature_does_nothing },
    Check { id: "commit 6c13608c", try_it: peers::a_denied_range_is_denied_whole },
    Check { id: "commit a97f1924", try_it: state::moves_leave_nothing_behind },
    Check { id: "issue 1999", try_it: state::strangers_leave_nothing_behind },
    Check { id: "GHSA-5x2p-4vqj-f6m4", try_it: state::hellos_leave_nothing_behind },
    Check { id: "commit 3c5b2615", try_it: state::a_move_frees_no_quota },
    Check { id: "HackerOne 333419", try_it: peers::connections_go_nowhere_inside },
    Check { id: "netbird 3900", try_it: state::strangers_get_less_than_they_send },
    Check { id: "Ghost Calls", try_it: login::credentials_live_a_day_at_most },
    Check { id: "commit 4adbd82e", try_it: state::even_ports_come_back },
];

impl Check {
    pub(crate) fn of(id: &str) -> &'static Self {
        SCRIPT.iter().find(|check| check.id == id).unwrap_or_else(|| panic!("the script has no {id}"))
    }

    pub(crate) fn run(&self, target: &Target) -> Verdict {
        match (self.try_it)(target) {
            Ok(()) => Verdict::Holds,
            Err(Stop::Flawed(seen)) => Verdict::Flawed(seen),
            Err(Stop::NotShown(why)) => Verdict::NotShown(why),
        }
    }
}

impl Target {
    /// A client with a good credential, of a user nobody else is: quotas of others do not count.
    fn visitor(&self, name: &str) -> Visitor {
        self.visitor_of(&new_user(name))
    }

    /// A client of this user.
    fn visitor_of(&self, user: &str) -> Visitor {
        let (username, password) = minted(self.secret, self.expires, user);
        Visitor::udp(self.address, &username, &password)
    }

    /// A new user's client over TCP.
    fn visitor_tcp(&self, name: &str) -> Result<Visitor, Stop> {
        let (username, password) = minted(self.secret, self.expires, &new_user(name));
        Ok(Visitor::tcp(self.address, &username, &password).ok_or(Gone)?)
    }

    /// A client with an allocation.
    fn allocated(&self, name: &str, more: &[(Attribute, &[u8])]) -> Result<Visitor, Stop> {
        let mut visitor = self.visitor(name);
        succeeds(visitor.allocates(more), "a good credential gets no allocation")?;
        Ok(visitor)
    }

    /// Whether the server is as well as before.
    fn is_well(&self, name: &str) -> Outcome {
        self.allocated(name, &[]).map(drop)
    }

    /// Resident memory in bytes.
    fn memory(&self) -> Result<u64, Stop> {
        let told = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).map_err(|_| Gone)?;
        let line = told.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or(Gone)?;
        Ok(1024 * line.trim().trim_end_matches(" kB").parse::<u64>().map_err(|_| Gone)?)
    }
}

/// A user nobody else is.
fn new_user(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What must go well before anything can be tried.
fn succeeds(answer: Option<Answer>, what: &'static str) -> Result<Answer, Stop> {
    let answer = answer.ok_or(Gone)?;
    if answer.code() == 200 { Ok(answer) } else { Err(Stop::NotShown(what)) }
}
