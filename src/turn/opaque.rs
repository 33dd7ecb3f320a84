//! Names and passwords in the one form that both sides sign with: OpaqueString (RFC 8265 §4.2, RFC 8489 §9.2.2).
//!
//! One letter can be spelled in two ways (`é`, or `e` and an accent), and a key made of the one is no key of the other.
//! What is configured and what is minted goes through here; what clients send never does: their bytes are taken as they
//! are, for they have signed with them. Knows the characters of Unicode 6.3, as the registry of RFC 8264 does.
#![forbid(unsafe_code)]

use crate::wire::integrity::equal;
use core::fmt;
use precis_profiles::OpaqueString as Profile;
use precis_profiles::precis_core::profile::PrecisFastInvocation as _;
use precis_profiles::precis_core::{CodepointInfo, Error, UnexpectedError};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A name, realm or password as both sides write it. Wiped when dropped, for it may be a password.
#[derive(Clone, Eq, Zeroize, ZeroizeOnDrop)]
pub struct OpaqueString(String);

/// Why a text is no OpaqueString. Never holds what the text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// There is nothing in it.
    Empty,
    /// The character at this place, counted from 1, may not stand there.
    Character(usize),
    /// Something else of RFC 8264 is against it.
    Text,
}

impl OpaqueString {
    /// The text with letters composed (NFC) and every kind of blank made a plain one, if it may be one at all.
    pub fn new(text: &str) -> Result<Self, Forbidden> {
        if text.is_empty() {
            return Err(Forbidden::Empty);
        }
        let once = enforce(text)?;
        // A composed letter may be one that may not stand there; what another pass would refuse or change is no
        // OpaqueString (RFC 8264 §7).
        if enforce(once.as_str()) == Ok(once.clone()) { Ok(once) } else { Err(Forbidden::Text) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn enforce(text: &str) -> Result<OpaqueString, Forbidden> {
    Profile::enforce(text).map(|text| OpaqueString(text.into_owned())).map_err(|error| match error {
        Error::BadCodepoint(CodepointInfo { position, .. })
        | Error::Unexpected(UnexpectedError::ContextRuleNotApplicable(CodepointInfo { position, .. }))
        | Error::Unexpected(UnexpectedError::MissingContextRule(CodepointInfo { position, .. })) => {
            Forbidden::Character(position + 1)
        }
        Error::Invalid | Error::Unexpected(_) => Forbidden::Text,
    })
}

impl PartialEq for OpaqueString {
    fn eq(&self, other: &Self) -> bool {
        equal(self.0.as_bytes(), other.0.as_bytes())
    }
}

impl fmt::Debug for OpaqueString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpaqueString(…)")
    }
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("cannot be empty"),
            Self::Character(at) => write!(
                f,
                "character {at} may not stand in it: control characters, invisible ones and those younger than Unicode \
                 6.3 have no place in names and passwords (RFC 8265 §4.2)"
            ),
            Self::Text => f.write_str("names and passwords cannot be like this (RFC 8265 §4.2)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prepared(text: &str) -> Result<String, Forbidden> {
        OpaqueString::new(text).map(|text| text.as_str().to_owned())
    }

    #[test]
    fn a24_two_spellings_of_a_text_are_one_and_no_letter_becomes_another() {
        assert_eq!(prepared("Ame\u{301}lie"), Ok("Amélie".into()));
        assert_eq!(prepared("a\u{3000}b\u{A0}c d"), Ok("a b c d".into()));
        // Case, width and compatibility letters stay as they are, unlike in the SASLprep of RFC 5389.
        for text in ["Correct Horse", "ＡＢＣ", "ﬁ", "\u{AA}\u{2168}", "マトリックス", "πßå", "☠", "1700003600:alice"]
        {
            assert_eq!(prepared(text), Ok(text.into()));
        }
    }

    #[test]
    fn a24_what_nobody_can_see_or_type_twice_is_refused_by_its_place() {
        for (text, at) in [
            ("a\nb", 2),
            ("\u{7F}", 1),
            ("The\u{AD}M\u{AA}tr\u{2168}", 4), // the password of RFC 5769 §2.4 before SASLprep, with its soft hyphen
            ("ab\u{200B}c", 3),
            ("\u{FEFF}a", 1),
            ("a\u{200D}b", 2),
            ("\u{1F920}", 1), // a face of Unicode 9
        ] {
            assert_eq!(prepared(text), Err(Forbidden::Character(at)), "{text:?}");
        }
        assert_eq!(prepared(""), Err(Forbidden::Empty));
        // Composed it is the dot that may only stand between two l.
        assert_eq!(prepared("\u{387}"), Err(Forbidden::Text));
    }

    proptest! {
        #[test]
        fn a24_prepared_once_is_prepared_for_good(text in any::<String>()) {
            if let Ok(once) = prepared(&text) {
                prop_assert_eq!(prepared(&once), Ok(once));
            }
        }
    }
}
