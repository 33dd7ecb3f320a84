//! The messages of one batch: heads that differ, payloads that are all alike behind their stamps.
//!
//! Made once; a packet costs a copy of its head and its stamp. Never allocates after it was made.
#![forbid(unsafe_code)]

use super::plan::Mode;
use super::stamp::Stamp;
use crate::client::Client;
use crate::net::udp::BATCH;
use crate::wire::channel::{self, ChannelNumber};
use core::net::SocketAddr;

/// Room for a batch of messages.
#[derive(Debug)]
pub(super) struct Frames {
    rows: Vec<Box<[u8]>>,
    head: usize,
}

/// What fills a payload behind its stamp.
const FILLER: u8 = 0x55;

impl Frames {
    /// Messages with heads of `head` bytes and payloads of `size`. A `padded` one ends at a multiple of four.
    pub(super) fn new(head: usize, size: usize, padded: bool) -> Self {
        let end = head + size;
        let len = if padded { end.next_multiple_of(4) } else { end };
        let mut row = vec![0; len];
        row.get_mut(head..end).unwrap_or_default().fill(FILLER);
        Self { rows: vec![row.into_boxed_slice(); BATCH], head }
    }

    /// Writes the message at this place.
    pub(super) fn write(&mut self, at: usize, head: &[u8], stamp: Stamp) {
        let Some(row) = self.rows.get_mut(at) else { return };
        let (to, payload) = row.split_at_mut(self.head.min(row.len()));
        to.copy_from_slice(head);
        if let Some(to) = payload.first_chunk_mut::<{ Stamp::LEN }>() {
            *to = stamp.bytes();
        }
    }

    /// The message at this place.
    pub(super) fn get(&self, at: usize) -> &[u8] {
        self.rows.get(at).map_or(&[], |row| row)
    }

    /// The first so many.
    pub(super) fn first(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        self.rows.iter().take(count).map(|row| &**row)
    }
}

/// The channel of every client.
pub(super) const CHANNEL: ChannelNumber = ChannelNumber::MIN;

/// What stands before the payload of each message to this peer.
pub(super) fn head(client: &mut Client, mode: Mode, peer: SocketAddr, size: usize) -> Box<[u8]> {
    match mode {
        Mode::Channel => channel::head(CHANNEL, size as u16).into(),
        Mode::Send => {
            let mut message = client.send(peer, &vec![0; size]);
            message.truncate(message.len() - size.next_multiple_of(4));
            message.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::channel_data;
    use crate::wire::codes::Attribute;
    use crate::wire::stun::Message;

    #[test]
    fn a_frame_is_the_message_that_a_client_would_send() {
        let peer = "[2001:db8::1]:9".parse().unwrap();
        for size in 16..24 {
            let stamp = Stamp { at: 1, client: 2, slot: 3, sequence: 4 };
            let payload = [&stamp.bytes()[..], &vec![FILLER; size - Stamp::LEN]].concat();
            let head_of = |mode| head(&mut Client::new("u", "p", 1), mode, peer, size);

            let channel = head_of(Mode::Channel);
            let mut frames = Frames::new(channel.len(), size, false);
            frames.write(1, &channel, stamp);
            assert_eq!(frames.get(1), channel_data(CHANNEL, &payload));

            let send = head_of(Mode::Send);
            let mut frames = Frames::new(send.len(), size, true);
            frames.write(0, &send, stamp);
            assert_eq!(frames.get(0), Client::new("u", "p", 1).send(peer, &payload));
            assert_eq!(Message::parse(frames.get(0)).unwrap().get(Attribute::DATA), Some(&*payload));
        }
    }
}
