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
        assert!(answer.get(Attribute::USERNAME).is_none() && !answer.is_signed(Algorithm::Sha256));
        let code = error_code(&answer);
        let is_challenge = matches!(code, Some(401 | 438));
        for attribute in [Attribute::REALM, Attribute::NONCE] {
            assert_eq!(answer.get(attribute).is_some(), is_challenge, "{attribute:?}");
        }
        let is_signed = answer.is_signed(Algorithm::Sha1);
        let is_anonymous = question.method == Method::BINDING && self.policy.auth.anonymous_stun;
        match code {
            Some(400) => {}
            Some(401 | 438) => assert!(!is_signed, "a challenge is not signed"),
            _ => assert_eq!(is_signed, !is_anonymous, "whoever is known gets a signed answer"),
        }
        if is_signed {
            let key = self.key_of(&question).expect("who is answered with a signature has a name");
            assert!(answer.verify(Algorithm::Sha1, &key), "signed with another key");
        }
        let says_software = is_signed && matches!(question.method, Method::ALLOCATE | Method::REFRESH);
        assert_eq!(answer.get(Attribute::SOFTWARE).is_some(), says_software);
    }

    fn key_of(&self, question: &Message<'_>) -> Option<Key> {
        let user = question.text(Attribute::USERNAME)?.ok()?;
        let own = self.parties.iter().filter(|party| party.user == user);
        let mut keys = own.map(|party| Key::md5(user, REALM, &party.password));
        self.policy
            .auth
            .users
            .get(user)
            .and_then(|keys| keys.md5.clone())
            .or_else(|| keys.find(|key| question.verify(Algorithm::Sha1, key)))
    }
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
