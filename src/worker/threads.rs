//! Where threads meet: models of what the workers share, in every order that two or three threads can have.
//!
//! Owns no code of the program. Each model is run by loom once for each order of its locks and atomics, with every value
//! that a relaxed load may see. Tables are small here (`cfg!(turnserver_loom)` beside their sizes), the code is the
//! program's own. Not in a model: epoll, sockets and the eventfd of a mailbox, which are the kernel's.
//!
//! `tests/threads` builds and runs them.
#![forbid(unsafe_code)]

use super::ledger::{Claim, Ledger};
use super::mailbox::{Command, Enclosed, Mailbox, Parcel};
use crate::net::poll::{Events, Interest, Poll};
use crate::time::{Duration, Instant, Now, UnixSeconds};
use crate::turn::limits::{SharedBucket, Strangers};
use crate::turn::peers::RelayAddress;
use crate::turn::policy::{Limits, Policy};
use crate::turn::ports::Want;
use crate::turn::tally::{Counter, Transport};
use crate::turn::{Bind, BindError, FiveTuple, Link, Path, Protocol, RelayId};
use crate::wire::packet::Marks;
use crate::wire::stun::Family;
use loom::thread::{self, JoinHandle};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::Arc;

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const NOW: Now = Now { mono: Instant(1_000_000_000), unix: UnixSeconds(0) };
/// Open files of a process whose ledger admits two connections.
const FILES: u64 = 4;

/// Books over the ports 2 to `last`.
fn ledger(last: u16) -> Arc<Ledger<SocketAddr>> {
    Arc::new(Ledger::new(&[RelayAddress { local: HOST, external: HOST }], 2..=last, FILES, 1))
}

fn limits(allocations: u32, allocations_per_user: u32) -> Limits {
    Limits { allocations, allocations_per_user, ..Limits::default() }
}

fn bind(user: &str, want: Want) -> Bind {
    let relay = RelayId { index: 0, generation: 0 };
    let (family, protocol) = (Family::V4, Protocol::Udp);
    Bind { relay, family, also: None, protocol, want, user: user.into(), chance: [7; 32] }
}

/// One Allocate on a thread of its own.
fn claims(
    ledger: &Arc<Ledger<SocketAddr>>,
    limits: Limits,
    user: &str,
    want: Want,
) -> JoinHandle<Result<(Claim<SocketAddr>, SocketAddr), BindError>> {
    let (ledger, bind) = (Arc::clone(ledger), bind(user, want));
    thread::spawn(move || {
        ledger.claim(NOW, &limits, &bind, 0, |address, _| Ok(address)).map(|(claim, _, address)| (claim, address))
    })
}

/// Whether the next `count` allocations of one user fit the books: nothing has leaked, and nothing is counted twice.
fn has_room_for_exactly(ledger: &Arc<Ledger<SocketAddr>>, limits: &Limits, user: &str, count: usize) {
    let claim = || ledger.claim(NOW, limits, &bind(user, Want::Any), 0, |address, _| Ok(address));
    let held: Vec<_> = (0..count).map(|_| claim().expect("there is room")).collect();
    assert_eq!(claim().expect_err("the quota is used up"), BindError::Quota);
    drop(held);
}

#[test]
fn two_allocates_of_one_user_never_exceed_its_quota() {
    loom::model(|| {
        let ledger = ledger(9);
        let threads = [(); 2].map(|()| claims(&ledger, limits(0, 1), "alice", Want::Any));
        let outcomes = threads.map(|thread| thread.join().unwrap());
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        assert!(outcomes.iter().any(|outcome| matches!(outcome, Err(BindError::Quota))));
        drop(outcomes);
        has_room_for_exactly(&ledger, &limits(0, 1), "alice", 1);
    });
}

#[test]
fn two_users_never_exceed_the_quota_of_the_server() {
    loom::model(|| {
        let ledger = ledger(9);
        let threads = ["alice", "bob"].map(|user| claims(&ledger, limits(1, 0), user, Want::Any));
        let outcomes = threads.map(|thread| thread.join().unwrap());
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        drop(outcomes);
        has_room_for_exactly(&ledger, &limits(1, 0), "carol", 1);
    });
}

#[test]
fn an_allocation_that_ends_while_another_begins_leaves_the_account_right() {
    loom::model(|| {
        let ledger = ledger(9);
        let (first, ..) =
            ledger.claim(NOW, &limits(0, 2), &bind("alice", Want::Any), 0, |address, _| Ok(address)).unwrap();
        let ending = thread::spawn(move || drop(first));
        let beginning = claims(&ledger, limits(0, 2), "alice", Want::Any);
        ending.join().unwrap();
        let second = beginning.join().unwrap().expect("there is room for two");
        has_room_for_exactly(&ledger, &limits(0, 2), "alice", 1);
        drop(second);
        has_room_for_exactly(&ledger, &limits(0, 2), "alice", 2);
    });
}

#[test]
fn a_port_is_one_allocations_and_who_gets_none_is_not_counted() {
    loom::model(|| {
        let ledger = ledger(2);
        let threads = ["alice", "bob"].map(|user| claims(&ledger, limits(2, 0), user, Want::Any));
        let outcomes = threads.map(|thread| thread.join().unwrap());
        let got: Vec<_> = outcomes.iter().flatten().map(|(_, address)| *address).collect();
        assert_eq!(got, [SocketAddr::new(HOST, 2)]);
        assert!(outcomes.iter().any(|outcome| matches!(outcome, Err(BindError::NoPort))));
        assert!(ledger.is_live(got[0], Protocol::Udp));
        drop(outcomes);
        assert!(!ledger.is_live(got[0], Protocol::Udp));
        assert_eq!(ledger.ports().used, 0);
    });
}

#[test]
fn a_socket_that_cannot_be_made_gives_everything_back_beside_one_that_can() {
    loom::model(|| {
        let ledger = ledger(9);
        let failing = thread::spawn({
            let ledger = Arc::clone(&ledger);
            move || {
                let open = |_, _| Err(io::Error::from_raw_os_error(libc::EMFILE));
                ledger.claim(NOW, &limits(0, 2), &bind("alice", Want::Any), 0, open).expect_err("no more files")
            }
        });
        let working = claims(&ledger, limits(0, 2), "alice", Want::Any);
        assert_eq!(failing.join().unwrap(), BindError::NoResources);
        let held = working.join().unwrap().expect("there is room for two");
        has_room_for_exactly(&ledger, &limits(0, 2), "alice", 1);
        assert_eq!(ledger.ports().used, 1);
        drop(held);
        assert_eq!(ledger.ports().used, 0);
    });
}

#[test]
fn a_reserved_port_is_taken_once_or_given_back_once() {
    const TOKEN: [u8; 8] = [9; 8];
    loom::model(|| {
        let ledger = ledger(3);
        let (first, ..) =
            ledger.claim(NOW, &limits(0, 0), &bind("alice", Want::Pair(TOKEN)), 0, |address, _| Ok(address)).unwrap();
        let taking = [(); 2].map(|()| claims(&ledger, limits(0, 0), "alice", Want::Reserved(TOKEN)));
        ledger.cancel(Want::Pair(TOKEN));
        let outcomes = taking.map(|thread| thread.join().unwrap());
        let got: Vec<_> = outcomes.iter().flatten().map(|(_, address)| *address).collect();
        assert!(got.is_empty() || got == [SocketAddr::new(HOST, 3)], "{got:?}");
        drop((first, outcomes));
        assert_eq!(ledger.ports().used, 0);
    });
}

#[test]
fn connections_of_one_network_and_of_all_stay_within_their_bounds() {
    loom::model(|| {
        let ledger = ledger(2);
        let connects = |from: [u8; 4]| {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || ledger.connect(from.into(), 1))
        };
        let threads = [connects([10, 0, 0, 1]), connects([10, 0, 0, 1]), connects([10, 0, 0, 2])];
        let admitted = threads.map(|thread| thread.join().unwrap());
        let of_one = admitted[..2].iter().flatten().count();
        assert!(of_one <= 1, "one network has one connection");
        assert!(admitted.iter().flatten().count() >= 1);
        drop(admitted);
        // As many as ever fit: whoever was refused has given back what it had.
        let again: Vec<_> = [[10, 0, 0, 1], [10, 0, 0, 2]].into_iter().map(|ip| ledger.connect(ip.into(), 1)).collect();
        assert!(again.iter().all(Option::is_some));
        assert!(ledger.connect([10, 0, 0, 3].into(), 1).is_none());
    });
}

#[test]
fn a_bucket_that_three_threads_take_from_gives_no_more_than_it_holds() {
    loom::model(|| {
        let bucket = Arc::new(SharedBucket::default());
        let takes = || {
            let bucket = Arc::clone(&bucket);
            thread::spawn(move || bucket.take(NOW.mono, 2, 1))
        };
        let threads = [takes(), takes(), takes()];
        assert_eq!(threads.map(|thread| thread.join().unwrap()).iter().filter(|taken| **taken).count(), 2);
    });
}

#[test]
fn what_two_threads_charge_a_bucket_is_owed_in_full() {
    loom::model(|| {
        let bucket = Arc::new(SharedBucket::default());
        let charges = || {
            let bucket = Arc::clone(&bucket);
            thread::spawn(move || bucket.charge(NOW.mono, 1, 1))
        };
        let threads = [charges(), charges()];
        let mut rests = threads.map(|thread| thread.join().unwrap().map(|until| until.0 - NOW.mono.0));
        rests.sort();
        assert_eq!(rests, [Some(500_000_000), Some(1_500_000_000)]);
    });
}

#[test]
fn a_stranger_whom_two_workers_hear_is_answered_once() {
    loom::model(|| {
        let strangers = Arc::new(Strangers::new(1));
        let asks = || {
            let strangers = Arc::clone(&strangers);
            thread::spawn(move || strangers.may_answer(NOW.mono, HOST, 1))
        };
        let threads = [asks(), asks()];
        assert_eq!(threads.map(|thread| thread.join().unwrap()).iter().filter(|answered| **answered).count(), 1);
    });
}

#[test]
fn a_counter_that_is_read_while_it_is_written_never_goes_back_and_loses_nothing() {
    loom::model(|| {
        let counter = Arc::new(Counter::default());
        let writer = thread::spawn({
            let counter = Arc::clone(&counter);
            move || (0..3).for_each(|_| counter.add(1))
        });
        let read = [counter.get(), counter.get(), counter.get()];
        assert!(read.is_sorted() && read[2] <= 3, "{read:?}");
        writer.join().unwrap();
        assert_eq!(counter.get(), 3);
    });
}

fn packet(number: u8) -> Command {
    let tuple = FiveTuple { transport: Transport::Udp, client: (HOST, 1).into(), server: (HOST, 2).into() };
    Command::Packet { path: Path { tuple, link: Link(0) }, marks: Marks::default(), bytes: Box::new([number]) }
}

/// Whether the worker would wake.
fn is_awake(mailbox: &Mailbox) -> bool {
    let (poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(1));
    poll.add(mailbox.as_fd(), 0, Interest::Read).unwrap();
    poll.wait(&mut events, Some(Duration::default())).unwrap();
    !events.is_empty()
}

#[test]
fn no_letter_is_lost_or_told_twice_and_none_waits_in_a_box_that_sleeps() {
    loom::model(|| {
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let posts = |number| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || mailbox.post(packet(number)))
        };
        let threads = [posts(1), posts(2)];
        let mut taken = mailbox.take();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        if taken.len() < 2 {
            assert!(is_awake(&mailbox), "a letter waits, and nobody is told");
        }
        taken.extend(mailbox.take());
        let mut numbers: Vec<u8> = taken.iter().map(number_of).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2]);
    });
}

fn number_of(command: &Command) -> u8 {
    let Command::Packet { bytes, .. } = command else { panic!("only packets are posted here: {command:?}") };
    bytes[0]
}

#[test]
fn packets_beyond_the_bound_are_refused_and_never_lost_in_silence() {
    loom::model(|| {
        let mailbox = Arc::new(Mailbox::new().unwrap());
        assert!(mailbox.hand(packet(1)));
        let hands = |number| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || mailbox.hand(packet(number)))
        };
        let threads = [hands(2), hands(3)];
        let accepted = threads.map(|thread| thread.join().unwrap());
        assert_eq!(accepted.iter().filter(|accepted| **accepted).count(), 1);
        assert_eq!(mailbox.take().len(), 2);
    });
}

#[test]
fn parcels_beyond_the_bound_are_refused_and_a_box_that_was_emptied_has_room_again() {
    loom::model(|| {
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let parcel = || {
            let from = SocketAddr::from(([127, 0, 0, 1], 9));
            let to = RelayId { index: 0, generation: 0 };
            Parcel { packets: vec![Enclosed { to, from, marks: Marks::default(), len: 0 }], bytes: Vec::new() }
        };
        let other = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || mailbox.hand_parcel(parcel()))
        };
        assert!(mailbox.hand_parcel(parcel()));
        let taken = mailbox.take().len();
        assert!(other.join().unwrap(), "there is room for two");
        let left = mailbox.take().len();
        assert_eq!(taken + left, 2);
        assert!(mailbox.hand_parcel(parcel()) && mailbox.hand_parcel(parcel()) && !mailbox.hand_parcel(parcel()));
        assert!(is_awake(&mailbox));
    });
}

#[test]
fn of_two_policies_the_later_is_in_force() {
    loom::model(|| {
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let supervisor = thread::spawn({
            let mailbox = Arc::clone(&mailbox);
            move || {
                for realm in ["first", "second"] {
                    let policy = Policy { realm: realm.into(), ..Policy::default() };
                    mailbox.post(Command::SetPolicy(Arc::new(policy)));
                }
            }
        });
        let mut told = mailbox.take();
        supervisor.join().unwrap();
        told.extend(mailbox.take());
        let realms: Vec<_> = told.iter().filter_map(realm_of).collect();
        assert_eq!(realms, ["first", "second"]);
    });
}

fn realm_of(command: &Command) -> Option<&str> {
    if let Command::SetPolicy(policy) = command { Some(&policy.realm) } else { None }
}

#[test]
fn a_worker_that_answers_is_alive_and_one_that_does_not_is_not() {
    loom::model(|| {
        let mailbox = Arc::new(Mailbox::new().unwrap());
        assert!(mailbox.is_answered(), "nobody has asked yet");
        let worker = thread::spawn({
            let mailbox = Arc::clone(&mailbox);
            move || drop(mailbox.take())
        });
        let _either = mailbox.is_answered();
        worker.join().unwrap();
        drop(mailbox.take());
        assert!(mailbox.is_answered());
        assert!(!mailbox.is_answered(), "the question is open");
    });
}
