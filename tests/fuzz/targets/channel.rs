//! ChannelData, and the slot that it is framed in.

use super::script::Script;
use turnserver::client;
use turnserver::wire::Packet;
use turnserver::wire::channel::{self, ChannelData, ChannelError, ChannelNumber, HEAD};
use turnserver::wire::packet::{HEADROOM, Marks, TAILROOM};

/// Bytes of the small slot; what does not fit is a story, too.
const ROOM: usize = 512;

pub(crate) fn run(bytes: &[u8]) {
    match ChannelData::parse(bytes) {
        Ok(head) => {
            let payload = &bytes[HEAD..HEAD + head.length];
            assert!((0x4000..=0x7FFF).contains(&head.number.get()));
            let again = client::channel_data(head.number, payload);
            assert_eq!(again, bytes[..again.len()], "what was read is what is written");
        }
        Err(ChannelError::Number) => assert!(!matches!(bytes[0], 0x40..=0x7F)),
        Err(ChannelError::Short) => {
            let length = bytes.get(2..HEAD).map(|length| u16::from_be_bytes([length[0], length[1]]));
            assert!(length.is_none_or(|length| bytes.len() < HEAD + usize::from(length)));
        }
    }
    frames(Script::new(bytes));
}

/// The slot against a plain vector: what is cut and put before a packet changes nothing else of it.
fn frames(mut script: Script<'_>) {
    let mut packet = Packet::new(vec![0xAA; HEADROOM + ROOM + TAILROOM].into());
    let mut model: Vec<u8> = Vec::new();
    while !script.is_over() {
        match script.byte() % 5 {
            0 => {
                let bytes = script.counted();
                packet.fill(bytes);
                model = bytes[..bytes.len().min(ROOM)].to_vec();
                assert_eq!(packet.marks, Marks::default());
            }
            1 => {
                let (start, end) = (usize::from(script.byte()), usize::from(script.byte()));
                packet.keep(start..end);
                let end = end.min(model.len());
                model = model[start.min(end)..end].to_vec();
            }
            2 => {
                let Some(number) = ChannelNumber::new(script.u16()) else { continue };
                let head = channel::head(number, model.len() as u16);
                let before = packet.data().to_vec();
                if packet.prepend(&head) {
                    model.splice(..0, head);
                } else {
                    assert_eq!(packet.data(), before);
                }
            }
            3 => {
                packet.pad();
                model.resize(packet.len(), 0);
                assert!(packet.len().is_multiple_of(4) || packet.len() > ROOM);
            }
            _ => {
                let byte = script.byte();
                packet.data_mut().iter_mut().chain(&mut model).for_each(|seen| *seen ^= byte);
            }
        }
        assert_eq!(packet.data(), model);
        assert_eq!((packet.len(), packet.is_empty()), (model.len(), model.is_empty()));
    }
}
