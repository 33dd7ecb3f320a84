//! Ten thousand datagrams nobody meant, at a server in the middle of a call.

use crate::support::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use turnserver::turn::FiveTuple;
use turnserver::turn::tally::Transport;

#[test]
fn no_datagram_harms_the_server_or_the_call_it_comes_into() {
    let mut t = Turn::with(|world| world.policy.limits.unauthenticated_per_ip = u32::MAX);
    t.joins("alice").allocates();
    t.joins_by_tcp("bob").allocates();
    for name in ["alice", "bob"] {
        t.client(name).says(channel_bind(0x4000, PEER_A)).hears(success());
    }
    let asks = [
        binding(),
        binding().fingerprinted(),
        allocate(),
        refresh(),
        refresh_for(3000),
        create_permission(&[PEER_A, PEER_B]),
        channel_bind(0x4000, PEER_A),
        send(PEER_A, b"hello, hello"),
        channel_data(0x4000, b"hello, hello"),
        allocate().unsigned(),
    ];
    let seeds: Vec<Vec<u8>> = asks.iter().map(|ask| ask.bytes(t.first().party())).collect();
    let stranger = FiveTuple { transport: Transport::Udp, client: "31.0.0.1:999".parse().unwrap(), server: SERVER };
    let mut rng = ChaCha8Rng::from_seed([42; 32]);
    for round in 0..10_000 {
        let bytes = mangled(&mut rng, &seeds);
        match round % 4 {
            0 => drop(t.client("alice").says_bytes(&bytes)),
            1 => drop(t.client("bob").says_bytes(&bytes)),
            2 => drop(t.datagram(stranger, &bytes)),
            _ => drop(t.peer(PEER_A).sends(&bytes)),
        }
        if round % 1000 == 0 {
            t.waits(seconds(20));
        }
    }
    t.joins("carol");
    t.client("carol").says(binding()).hears(success());
    for name in ["alice", "bob"] {
        t.client(name).says(channel_bind(0x4000, PEER_A)).hears(success());
        t.client(name).says(channel_data(0x4000, b"hello")).reaches(PEER_A, b"hello");
        t.peer(PEER_A).sends_to(name, b"hello").hears(channel(0x4000, b"hello"));
    }
    t.stops();
    t.is_as_new();
}

/// Random bytes, or a sound message with something done to it.
fn mangled(rng: &mut ChaCha8Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut below = |bound: usize| rng.next_u32() as usize % bound.max(1);
    let mut bytes = seeds[below(seeds.len())].clone();
    match below(8) {
        0 => bytes = (0..below(1500)).map(|_| below(256) as u8).collect(),
        1 => bytes.truncate(below(bytes.len())),
        2 => {
            let other = &seeds[below(seeds.len())];
            bytes.truncate(below(bytes.len()));
            bytes.extend(&other[below(other.len())..]);
        }
        3 => {
            let at = 20.min(bytes.len());
            bytes.splice(at..at, [below(2) as u8 * 0x80, below(48) as u8, 0, 4, 1, 2, 3, 4]);
            set_length(&mut bytes);
        }
        4 => {
            bytes.truncate(20 + below(bytes.len()) / 4 * 4);
            set_length(&mut bytes);
        }
        _ => {
            for _ in 0..1 + below(6) {
                let bit = below(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
    bytes
}

fn set_length(bytes: &mut [u8]) {
    let length = (bytes.len().saturating_sub(20) as u16).to_be_bytes();
    if let Some([_, _, l0, l1, ..]) = bytes.get_mut(..) {
        [*l0, *l1] = length;
    }
}
