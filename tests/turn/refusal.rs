//! Every "no" by its name: metrics and logs tell them apart by these alone.

use std::collections::BTreeSet;
use turnserver::turn::refusal::{AuthFailure, Dropped, Ended, Refusal};
use turnserver::turn::tally::Transport;
use turnserver::wire::stun::Family;

#[track_caller]
fn are_labels<const N: usize>(labels: [&str; N]) {
    for label in labels {
        let is_plain = label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        assert!(!label.is_empty() && is_plain, "no label of a metric: {label:?}");
    }
    assert_eq!(BTreeSet::from(labels).len(), N, "{labels:?}");
}

#[test]
fn no_two_reasons_share_a_label() {
    are_labels(AuthFailure::ALL.map(AuthFailure::label));
    are_labels(Dropped::ALL.map(Dropped::label));
    are_labels(Transport::ALL.map(Transport::label));
    are_labels([Family::V4, Family::V6].map(Family::name));
    let ends = [Ended::Released, Ended::Expired, Ended::Disconnected, Ended::Revoked, Ended::Stopped];
    are_labels(ends.map(Ended::label));
}

#[test]
fn class_04_no_reason_phrase_makes_an_answer_to_a_stranger_longer() {
    for failure in AuthFailure::ALL {
        assert_eq!(Refusal::Unauthenticated(failure).reason(), "");
    }
    for refusal in [Refusal::BadRequest, Refusal::StaleNonce, Refusal::UnknownAttributes] {
        assert_eq!(refusal.reason(), "");
    }
    assert_eq!(Refusal::PeerForbidden.reason(), "Forbidden");
}
