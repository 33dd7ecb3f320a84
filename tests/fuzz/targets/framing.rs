//! Messages out of a byte stream: however the network cuts it, the same messages come out, and no more is kept than one.

use super::script::Script;
use turnserver::wire::packet::MAX_MESSAGE;
use turnserver::wire::stream::{self, Frame};

/// Pieces whose sizes the script tells; the rest of the stream is cut the same way again.
const CUTS: usize = 8;

pub(crate) fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let cuts: [u8; CUTS] = script.array();
    let stream = script.rest();
    let whole = frames(stream, [stream.len().max(1)].into_iter().cycle());
    let cut = frames(stream, cuts.into_iter().map(|cut| usize::from(cut) + 1).cycle());
    assert_eq!(whole, cut, "a cut of the network changed what was said");
}

/// The messages of a stream that comes in pieces, and whether it ends in noise.
fn frames(mut stream: &[u8], mut cuts: impl Iterator<Item = usize>) -> (Vec<Vec<u8>>, bool) {
    let (mut kept, mut messages) = (Vec::new(), Vec::new());
    while !stream.is_empty() {
        let cut = cuts.next().expect("a cycle has no end").min(stream.len());
        let (piece, rest) = stream.split_at(cut);
        stream = rest;
        kept.extend_from_slice(piece);
        loop {
            match stream::next(&kept) {
                Frame::Noise => return (messages, true),
                Frame::Partial { total } => {
                    assert!(total > kept.len(), "waiting for bytes that are there already");
                    assert!(total <= MAX_MESSAGE.next_multiple_of(4), "waiting for more than a message can be");
                    break;
                }
                Frame::Whole { message, next } => {
                    assert!(0 < message && message <= next && next <= kept.len() && next < message + 4);
                    assert!(message <= MAX_MESSAGE);
                    messages.push(kept[..message].to_vec());
                    kept.drain(..next);
                }
            }
        }
    }
    (messages, false)
}
