//! Random journeys beside a model that knows only the law of RFC 8016: an allocation is where it was until its client
//! speaks where it is going, a ticket is good once, and a path belongs to one allocation.

use crate::support::*;
use proptest::collection::vec;
use proptest::prelude::*;
use turnserver::turn::RelayId;
use turnserver::turn::refusal::Dropped;
use turnserver::turn::tally::Transport;
use turnserver::wire::codes::Attribute;

/// The paths of one user; the last two are connections.
const PLACES: [&str; 5] = ["home", "train", "hotel", "office", "plane"];

fn is_connection(place: usize) -> bool {
    place >= 3
}

#[derive(Clone, Debug)]
enum Step {
    Allocate(usize),
    /// The good ticket, or an old one, of an allocation, by its number, at a place.
    Move(usize, bool, usize),
    Speak(usize),
    Permit(usize),
    Release(usize),
    PeerSends(usize),
    Leave(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (place, number) = (0..PLACES.len(), 0..3usize);
    prop_oneof![
        2 => place.clone().prop_map(Step::Allocate),
        6 => (number.clone(), prop::bool::weighted(0.8), place.clone())
            .prop_map(|(number, is_good, place)| Step::Move(number, is_good, place)),
        3 => place.clone().prop_map(Step::Speak),
        1 => place.clone().prop_map(Step::Permit),
        1 => place.clone().prop_map(Step::Release),
        3 => number.prop_map(Step::PeerSends),
        1 => place.prop_map(Step::Leave),
    ]
}

/// Where an allocation is and where it is going.
#[derive(Debug)]
struct Journey {
    relay: RelayId,
    /// `None` once the connection there has closed.
    at: Option<usize>,
    next: Option<usize>,
    good: Vec<u8>,
    old: Option<Vec<u8>>,
}

/// Which allocation a place leads to.
fn here(journeys: &[Journey], place: usize) -> Option<usize> {
    journeys.iter().position(|journey| journey.at == Some(place) || journey.next == Some(place))
}

/// The client speaks here: if its allocation was on the way to this place, it has arrived.
fn arrives(journey: &mut Journey, place: usize) {
    if journey.next == Some(place) {
        journey.at = Some(place);
        journey.next = None;
    }
}

fn moves(t: &mut Turn, journeys: &mut [Journey], number: usize, is_good: bool, place: usize) {
    let journey = &journeys[number];
    let Some(ticket) = (if is_good { Some(&journey.good) } else { journey.old.as_ref() }) else { return };
    let ask = refresh().with(Attribute::MOBILITY_TICKET, ticket);
    let outcome = t.client(PLACES[place]).says(ask);
    let next_ticket = outcome.get(Attribute::MOBILITY_TICKET);
    match here(journeys, place) {
        // On its own path a ticket moves nothing, whosever it is.
        Some(other) if journeys[other].at == Some(place) => {
            outcome.hears(success());
            journeys[other].good = next_ticket.expect("it may move");
        }
        Some(other) if other != number => drop(outcome.hears(error(437))),
        _ if !is_good => drop(outcome.hears(error(437))),
        _ => {
            outcome.hears(success());
            let journey = &mut journeys[number];
            journey.next = Some(place);
            journey.old = Some(core::mem::replace(&mut journey.good, next_ticket.expect("it may move")));
            t.client(PLACES[place]).party().relay = Some(journey.relay);
        }
    }
}

fn takes(t: &mut Turn, journeys: &mut Vec<Journey>, step: &Step) {
    match *step {
        Step::Allocate(place) => {
            let ask = allocate().with(Attribute::MOBILITY_TICKET, &[]);
            let outcome = t.client(PLACES[place]).says(ask);
            if here(journeys, place).is_some() {
                return drop(outcome.hears(error(437)));
            }
            let good = outcome.hears(success()).get(Attribute::MOBILITY_TICKET).expect("it asked");
            t.client(PLACES[place]).says(create_permission(&[PEER_A])).hears(success());
            let relay = t.client(PLACES[place]).relay();
            journeys.push(Journey { relay, at: Some(place), next: None, good, old: None });
        }
        Step::Move(number, is_good, place) if number < journeys.len() => moves(t, journeys, number, is_good, place),
        Step::Speak(place) => {
            let outcome = t.client(PLACES[place]).says(send(PEER_A, b"to"));
            match here(journeys, place) {
                None => drop(outcome.hears(dropped(Dropped::NoAllocation))),
                Some(number) => {
                    outcome.reaches(PEER_A, b"to");
                    arrives(&mut journeys[number], place);
                }
            }
        }
        Step::Permit(place) => {
            let outcome = t.client(PLACES[place]).says(create_permission(&[PEER_A]));
            match here(journeys, place) {
                None => drop(outcome.hears(error(437))),
                Some(number) => {
                    outcome.hears(success());
                    arrives(&mut journeys[number], place);
                }
            }
        }
        Step::Release(place) => {
            let outcome = t.client(PLACES[place]).says(refresh_for(0));
            match here(journeys, place) {
                None => drop(outcome.hears(error(437))),
                Some(number) => {
                    outcome.hears(success());
                    journeys.remove(number);
                }
            }
        }
        Step::PeerSends(number) if number < journeys.len() => {
            let Some(place) = journeys[number].at.map(|at| PLACES[at]) else { return };
            let path = t.path_of(place);
            t.peer(PEER_A).sends_to(place, b"fro").hears(data(PEER_A, b"fro")).comes_by(path);
        }
        Step::Leave(place) if is_connection(place) => {
            t.client(PLACES[place]).leaves();
            if let Some(number) = here(journeys, place) {
                let journey = &mut journeys[number];
                match journey.next == Some(place) {
                    true => journey.next = None,
                    false => journey.at = None,
                }
            }
        }
        Step::Move(..) | Step::PeerSends(_) | Step::Leave(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn m08_m11_an_allocation_is_in_one_place_and_on_the_way_to_one_other(steps in vec(step(), 1..100)) {
        let mut t = Turn::with(|world| world.policy.auth.mobility = true);
        for (at, name) in PLACES.into_iter().enumerate() {
            let transport = if is_connection(at) { Transport::Tcp } else { Transport::Udp };
            t.joins_as(name, "alice", &password_of("alice"), transport).learns_a_nonce();
        }
        let mut journeys = Vec::new();
        for step in &steps {
            takes(&mut t, &mut journeys, step);
            prop_assert_eq!((t.gauges().0, t.sockets()), (journeys.len() as u64, journeys.len()));
        }
        t.stops();
        t.is_as_new();
        for name in PLACES {
            t.client(name).says(refresh()).hears(error(437));
        }
    }
}
