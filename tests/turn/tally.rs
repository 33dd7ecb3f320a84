//! What is counted, and where: each thing once, in the place the metrics read it from.

use turnserver::time::Duration;
use turnserver::turn::refusal::{AuthFailure, Dropped, Refusal};
use turnserver::turn::tally::{CODES, Counter, DURATION_BOUNDS, METHODS, Tally, Transport};
use turnserver::wire::codes::{ErrorCode, Method};
use turnserver::wire::stun::Family;

/// The places of a row that are not zero, and what stands there.
fn counted(row: &[Counter]) -> Vec<(usize, u64)> {
    row.iter().map(Counter::get).enumerate().filter(|(_, count)| *count != 0).collect()
}

#[test]
fn a_lifetime_is_counted_below_the_first_bound_that_it_has_not_reached() {
    let tally = Tally::default();
    tally.ended(Duration::from_millis(999));
    assert_eq!(counted(&tally.durations), [(0, 1)]);
    for (at, bound) in (1..).zip(DURATION_BOUNDS) {
        tally.ended(Duration::from_secs(bound));
        assert_eq!(tally.durations[at].get(), 1, "{bound} s");
    }
    let sum = DURATION_BOUNDS.iter().sum::<u64>() * 1000 + 999;
    assert_eq!(tally.durations_ms.get(), sum);
}

#[test]
fn a_method_is_counted_by_its_name_and_one_without_with_all_others() {
    let last = METHODS.len() - 1;
    for (at, method) in METHODS.into_iter().enumerate().chain([(last, Method::new(0x777))]) {
        let tally = Tally::default();
        tally.request(method, Transport::Tls);
        tally.success(method);
        tally.refusal(method, Refusal::ServerError);
        assert_eq!(counted(&tally.successes), [(at, 1)], "{method:?}");
        assert_eq!(counted(&tally.requests[at]), [(Transport::Tls as usize, 1)]);
        assert_eq!(tally.requests.iter().flatten().map(Counter::get).sum::<u64>(), 1);
        let code = CODES.iter().position(|code| *code == ErrorCode::SERVER_ERROR).expect("it is counted");
        assert_eq!(counted(&tally.errors[at]), [(code, 1)]);
        let is_allocate = method == Method::ALLOCATE;
        assert_eq!(tally.allocation_failures[code].get(), u64::from(is_allocate));
    }
}

#[test]
fn the_first_step_of_every_client_is_no_failure_of_an_allocation() {
    let tally = Tally::default();
    tally.refusal(Method::ALLOCATE, Refusal::Unauthenticated(AuthFailure::Missing));
    assert_eq!((counted(&tally.auth_failures), counted(&tally.allocation_failures)), (vec![(0, 1)], vec![]));
    tally.refusal(Method::ALLOCATE, Refusal::Unauthenticated(AuthFailure::Expired));
    assert_eq!(tally.auth_failures[AuthFailure::Expired as usize].get(), 1);
    assert_eq!(counted(&tally.allocation_failures).len(), 1);
    assert_eq!((tally.peer_denied.get(), tally.limited_quota.get()), (0, 0));
    tally.refusal(Method::CREATE_PERMISSION, Refusal::PeerForbidden);
    tally.refusal(Method::ALLOCATE, Refusal::QuotaReached);
    assert_eq!((tally.peer_denied.get(), tally.limited_quota.get()), (1, 1));
}

#[test]
fn what_lives_is_counted_by_transport_and_family_and_never_below_nothing() {
    let tally = Tally::default();
    tally.allocations_of(Transport::Dtls, Family::V6).add(2);
    assert_eq!(tally.allocations[Transport::Dtls as usize][1].get(), 2);
    tally.allocations_of(Transport::Dtls, Family::V4).sub(1);
    assert_eq!(counted(&tally.allocations[Transport::Dtls as usize]), [(1, 2)]);
    tally.count_drop(Dropped::NoChannel);
    assert_eq!(counted(&tally.dropped), [(Dropped::NoChannel as usize, 1)]);
}

#[test]
fn a_stream_pads_and_a_secure_transport_hides() {
    let of = |what: fn(Transport) -> bool| Transport::ALL.map(what);
    assert_eq!(of(Transport::is_stream), [false, true, true, false]);
    assert_eq!(of(Transport::is_secure), [false, false, true, true]);
}

#[test]
fn drops_are_counted_as_many_as_there_were() {
    let tally = Tally::default();
    for count in [3, 0, 4] {
        tally.count_drops(Dropped::ReceiveBuffer, count);
    }
    tally.count_drop(Dropped::ReceiveBuffer);
    assert_eq!(tally.dropped[Dropped::ReceiveBuffer as usize].get(), 8);
}
