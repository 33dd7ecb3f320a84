//! How the answers of the server are read: as strictly as the RFCs let a client be.

use super::*;

impl Turn {
    /// Reads an answer as strictly as the RFCs let a client be.
    pub(super) fn reads_answer(&self, asked: &[u8]) {
        let question = Message::parse(asked).expect("only a sound message is answered");
        assert_eq!(question.class, Class::Request, "only requests are answered");
        let answer = reads_strictly(self.packet.data());
        assert!(matches!(answer.class, Class::Success | Class::Error));
        assert_eq!((answer.method, answer.transaction), (question.method, question.transaction));
        assert_eq!(answer.has_fingerprint(), question.has_fingerprint());
        assert!(answer.get(Attribute::USERNAME).is_none() && answer.get(Attribute::USERHASH).is_none());
        let code = error_code(&answer);
        let is_challenge = matches!(code, Some(401 | 438));
        for attribute in [Attribute::REALM, Attribute::NONCE] {
            assert_eq!(answer.get(attribute).is_some(), is_challenge, "{attribute:?}");
        }
        self.reads_offers(&answer, is_challenge);
        let signatures: Vec<_> = BOTH.into_iter().filter(|kind| answer.is_signed(*kind)).collect();
        let is_signed = !signatures.is_empty();
        let is_anonymous = question.method == Method::BINDING && self.policy.auth.anonymous_stun;
        match code {
            Some(400) => {}
            Some(401 | 438) => assert!(!is_signed, "a challenge is not signed"),
            _ => assert_eq!(is_signed, !is_anonymous, "whoever is known gets a signed answer"),
        }
        if is_signed {
            let key = self.key_of(&question).expect("who is answered with a signature has shown a key");
            let kind = expected_signature(&question);
            assert_eq!(signatures, [kind], "RFC 8489 §9.2.4");
            assert!(answer.verify(kind, &key), "signed with another key");
        }
        let says_software = is_signed && matches!(question.method, Method::ALLOCATE | Method::REFRESH);
        assert_eq!(answer.get(Attribute::SOFTWARE).is_some(), says_software);
    }

    /// What a challenge offers beside realm and nonce, and nothing else does.
    fn reads_offers(&self, answer: &Message<'_>, is_challenge: bool) {
        let offer = answer.get(Attribute::PASSWORD_ALGORITHMS);
        let is_promised = answer.get(Attribute::NONCE).is_some_and(|nonce| nonce.starts_with(OFFERING));
        assert_eq!(offer.is_some(), is_challenge && is_promised, "the offer and its bit in the nonce");
        assert!(offer.is_none_or(|offer| offer == OFFER));
        let oauth = self.policy.auth.oauth.as_ref().filter(|_| is_challenge);
        let name = answer.get(Attribute::THIRD_PARTY_AUTHORIZATION);
        assert_eq!(name, oauth.map(|oauth| oauth.server_name.as_bytes()));
    }

    /// The key that a question is signed with.
    fn key_of(&self, question: &Message<'_>) -> Option<Key> {
        let is_meant = |user: &str| match question.get(Attribute::USERNAME) {
            Some(name) => user.as_bytes() == name,
            None => question.get(Attribute::USERHASH) == Some(&integrity::userhash(user, REALM)),
        };
        let users = self.policy.auth.users.iter().filter(|(user, _)| is_meant(user));
        let parties = self.parties.iter().filter(|party| is_meant(&party.user));
        let mut keys = users
            .map(|(_, keys)| keys.clone())
            .chain(parties.map(|party| keys_of(&party.user, &party.password)))
            .flat_map(|keys| [keys.md5, keys.sha256])
            .flatten()
            .chain(self.token_keys.iter().cloned());
        let kind = BOTH.into_iter().find(|kind| question.is_signed(*kind))?;
        keys.find(|key| question.verify(kind, key))
    }
}

/// Both kinds of integrity; the first decides where both are there.
const BOTH: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha1];

/// What an answer to this question is signed with.
fn expected_signature(question: &Message<'_>) -> Algorithm {
    if question.is_signed(Algorithm::Sha256) { Algorithm::Sha256 } else { Algorithm::Sha1 }
}

/// Reads a STUN message, and looks at what a lenient reader would overlook.
pub(crate) fn reads_strictly(bytes: &[u8]) -> Message<'_> {
    let message = Message::parse(bytes).expect("what the server says is STUN");
    let mut at = 20;
    while at < bytes.len() {
        let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        let padding = &bytes[at + 4 + length..at + 4 + length.next_multiple_of(4)];
        assert!(padding.iter().all(|byte| *byte == 0), "padding that is not zero tells what lay there before");
        at += 4 + length.next_multiple_of(4);
    }
    if message.class == Class::Error {
        let value = message.get(Attribute::ERROR_CODE).expect("an error has a code");
        let [0, 0, class @ 3..=6, number @ 0..=99, reason @ ..] = value else { panic!("no error code: {value:?}") };
        let _ = (class, number);
        assert!(std::str::from_utf8(reason).is_ok_and(|reason| reason.chars().count() < 128));
    } else {
        assert!(message.get(Attribute::ERROR_CODE).is_none());
    }
    message
}

pub(super) fn error_code(message: &Message<'_>) -> Option<u16> {
    let [_, _, class, number, ..] = message.get(Attribute::ERROR_CODE)? else { return None };
    Some(u16::from(*class) * 100 + u16::from(*number))
}
