//! How long the codec takes: reading, writing and signing messages, framing a byte stream, seeing through nested relays.
//!
//! `cargo bench --bench wire`. For people who change the codec; `benches/instructions.rs` is the gate.
#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a tool for people")]

#[path = "support/world.rs"]
mod world;

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use turnserver::client::channel_data;
use turnserver::wire::channel::ChannelData;
use turnserver::wire::codes::{Attribute, Method};
use turnserver::wire::integrity::{Algorithm, Key, fingerprint};
use turnserver::wire::reply::Reply;
use turnserver::wire::stream::{self, Frame};
use turnserver::wire::stun::Message;
use turnserver::wire::{classify, nesting};
use world::{CHANNEL, SIZE, World, media};

fn read(criterion: &mut Criterion) {
    let mut world = World::new(1);
    let binding = world.calls[0].client.binding();
    let request = world.calls[0].client.allocate(None);
    let payload = media(SIZE);
    let framed = channel_data(CHANNEL, &payload);
    let key = Key::md5("alice", "example.org", "a password");
    let message = Message::parse(&request).expect("a request");

    let mut group = criterion.benchmark_group("read");
    group.bench_function("classify", |bench| bench.iter(|| classify(black_box(&framed))));
    group.bench_function("ChannelData", |bench| bench.iter(|| ChannelData::parse(black_box(&framed))));
    group.bench_function("Binding", |bench| bench.iter(|| Message::parse(black_box(&binding)).is_ok()));
    group.bench_function("Allocate with credentials", |bench| {
        bench.iter(|| Message::parse(black_box(&request)).is_ok());
    });
    group.bench_function("verify SHA-1", |bench| bench.iter(|| message.verify(Algorithm::Sha1, black_box(&key))));
    group.bench_function("nesting of media", |bench| bench.iter(|| nesting::is_deeper_than(black_box(&payload), 7)));
    group.finish();
}

fn write(criterion: &mut Criterion) {
    let key = Key::md5("alice", "example.org", "a password");
    let address = "192.0.2.1:49152".parse().expect("an address");
    let mut buf = vec![0; 2048];
    let mut answer = |signature: Option<Algorithm>| {
        let mut reply = Reply::success(black_box(&mut buf), Method::ALLOCATE, [5; 12]);
        reply.xor_address(Attribute::XOR_RELAYED_ADDRESS, address).number(Attribute::LIFETIME, 600);
        if let Some(algorithm) = signature {
            reply.sign(algorithm, &key);
        }
        reply.finish()
    };

    let mut group = criterion.benchmark_group("write");
    group.bench_function("success", |bench| bench.iter(|| answer(None)));
    group.bench_function("success, SHA-1", |bench| bench.iter(|| answer(Some(Algorithm::Sha1))));
    group.bench_function("success, SHA-256", |bench| bench.iter(|| answer(Some(Algorithm::Sha256))));
    let bytes = media(100);
    group.bench_function("fingerprint of 100 bytes", |bench| bench.iter(|| fingerprint(&[black_box(&bytes)])));
    group.finish();
}

fn frame(criterion: &mut Criterion) {
    let one = channel_data(CHANNEL, &media(SIZE));
    let stream = one.repeat(64); // 160 bytes need no padding

    let mut group = criterion.benchmark_group("frame");
    group.bench_function("64 messages", |bench| {
        bench.iter(|| {
            let (mut rest, mut count) = (black_box(&stream[..]), 0);
            while let Frame::Whole { next, .. } = stream::next(rest) {
                rest = &rest[next..];
                count += 1;
            }
            assert_eq!(count, 64);
        });
    });
    group.finish();
}

criterion_group!(benches, read, write, frame);
criterion_main!(benches);
