//! What the law answers to every shape of datagram that a stranger may send: the promise of docs/security.md.

use crate::shapes::{self, Most};
use crate::support::*;
use std::net::SocketAddr;
use turnserver::turn::tally::Transport;
use turnserver::turn::{FiveTuple, Verdict};

/// Realms of the lengths at which a challenge changes, up to the longest that has a promise.
const REALMS: [usize; 4] = [1, 12, 13, 24];

fn nobody_gets_more_than_is_promised(client: SocketAddr, server: SocketAddr) {
    for length in REALMS {
        let realm = "r".repeat(length);
        let mut t = Turn::with(|world| {
            world.policy.realm = realm.clone();
            world.policy.limits.unauthenticated_per_ip = u32::MAX;
        });
        let mut most = Most::default();
        for shape in shapes::all(&realm) {
            let outcome = t.datagram(FiveTuple { transport: Transport::Udp, client, server }, &shape.bytes);
            let answer = match outcome.verdict {
                Verdict::ToClient(_) => outcome.bytes.len(),
                Verdict::Nothing | Verdict::Dropped(_) => 0,
                Verdict::ToPeer { .. } | Verdict::Elsewhere(_) | Verdict::Wait(_) => {
                    panic!("{:?} for {shape:02x?}", outcome.verdict)
                }
            };
            assert!(shape.allows(answer, client.is_ipv4()), "{answer} for {}: {shape:02x?}", shape.bytes.len());
            most.note(&shape, answer);
        }
        most.print(&format!("{}, {length} characters of realm", if client.is_ipv4() { "IPv4" } else { "IPv6" }));
        t.is_as_new();
    }
}

#[test]
fn over_ipv4_no_shape_is_answered_with_more_than_is_promised() {
    nobody_gets_more_than_is_promised("31.0.0.1:999".parse().expect("an address"), SERVER);
}

#[test]
fn over_ipv6_no_shape_is_answered_with_more_than_is_promised() {
    nobody_gets_more_than_is_promised("[2a00:31::1]:999".parse().expect("an address"), SERVER_V6);
}
