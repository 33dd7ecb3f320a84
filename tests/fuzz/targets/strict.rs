//! How what the server writes is read: as strictly as the RFCs let anybody be.

use turnserver::wire::codes::{Attribute, Class};
use turnserver::wire::stun::Message;

/// Reads a message that we wrote. Padding that is not zero would tell what lay in memory before.
pub(crate) fn read(bytes: &[u8]) -> Message<'_> {
    let message = Message::parse(bytes).expect("what we write is STUN");
    assert!(is_padded_with_zeros(bytes), "padding that is not zero");
    let code = message.get(Attribute::ERROR_CODE);
    assert_eq!(code.is_some(), message.class == Class::Error);
    if let Some(code) = code {
        assert!(matches!(code, [0, 0, 3..=6, 0..=99, ..]), "no error code: {code:?}");
    }
    message
}

/// Whether no byte between the attributes of a sound message is set.
pub(crate) fn is_padded_with_zeros(bytes: &[u8]) -> bool {
    attributes(bytes).all(|(_, value, padding)| padding.iter().all(|byte| *byte == 0) && value.len() < bytes.len())
}

/// Every attribute of a sound message, also those behind a signature: type, value, padding. Reads them another way than
/// the codec does.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    let mut rest = &bytes[20..];
    std::iter::from_fn(move || {
        let (head, behind) = rest.split_first_chunk::<4>()?;
        let [kind, length] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_be_bytes);
        let (value, behind) = behind.split_at(length.into());
        let (padding, behind) = behind.split_at((4 - value.len() % 4) % 4);
        rest = behind;
        Some((kind, value, padding))
    })
}
