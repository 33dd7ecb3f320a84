//! What a client can say, well or badly.

use super::*;

/// Something a client says.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    what: What,
    attributes: Vec<(Attribute, Value)>,
    edits: Vec<Edit>,
}

#[derive(Clone, Debug)]
enum What {
    /// With the client's credential, once it has a challenge.
    Request(Method),
    /// Without one.
    Bare(Method, Class),
    Bytes(Vec<u8>),
}

#[derive(Clone, Debug)]
enum Value {
    Bytes(Vec<u8>),
    Address(SocketAddr),
}

#[derive(Clone, Debug)]
enum Edit {
    Without(Attribute),
    Set(Attribute, Vec<u8>),
    Trailing(Attribute, Vec<u8>),
    Key(Key),
    Unsigned,
    Forged,
    Fingerprint,
}

fn ask(what: What) -> Ask {
    Ask { what, attributes: Vec::new(), edits: Vec::new() }
}

pub(crate) fn request(method: Method) -> Ask {
    ask(What::Request(method))
}

pub(crate) fn binding() -> Ask {
    ask(What::Bare(Method::BINDING, Class::Request))
}

pub(crate) fn message(method: Method, class: Class) -> Ask {
    ask(What::Bare(method, class))
}

pub(crate) fn bytes(bytes: &[u8]) -> Ask {
    ask(What::Bytes(bytes.into()))
}

pub(crate) fn allocate() -> Ask {
    request(Method::ALLOCATE).with(Attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
}

pub(crate) fn refresh() -> Ask {
    request(Method::REFRESH)
}

pub(crate) fn refresh_for(lifetime: u32) -> Ask {
    refresh().with(Attribute::LIFETIME, &lifetime.to_be_bytes())
}

pub(crate) fn create_permission(peers: &[SocketAddr]) -> Ask {
    peers.iter().fold(request(Method::CREATE_PERMISSION), |ask, peer| ask.with_peer(*peer))
}

pub(crate) fn channel_bind(number: u16, peer: SocketAddr) -> Ask {
    let [n0, n1] = number.to_be_bytes();
    request(Method::CHANNEL_BIND).with(Attribute::CHANNEL_NUMBER, &[n0, n1, 0, 0]).with_peer(peer)
}

pub(crate) fn send(peer: SocketAddr, payload: &[u8]) -> Ask {
    message(Method::SEND, Class::Indication).with_peer(peer).with(Attribute::DATA, payload)
}

pub(crate) fn channel_data(number: u16, payload: &[u8]) -> Ask {
    bytes(&client::channel_data(ChannelNumber::new(number).expect("a channel"), payload))
}

impl Ask {
    /// With one more attribute.
    pub(crate) fn with(mut self, attribute: Attribute, value: &[u8]) -> Self {
        self.attributes.push((attribute, Value::Bytes(value.into())));
        self
    }

    /// With one more XOR-PEER-ADDRESS.
    pub(crate) fn with_peer(mut self, peer: SocketAddr) -> Self {
        self.attributes.push((Attribute::XOR_PEER_ADDRESS, Value::Address(peer)));
        self
    }

    /// Leaves an attribute out; the rest is signed as ever.
    pub(crate) fn without(self, attribute: Attribute) -> Self {
        self.edited(Edit::Without(attribute))
    }

    /// Gives an attribute of the credential another value; the whole is signed as ever.
    pub(crate) fn but(self, attribute: Attribute, value: &[u8]) -> Self {
        self.edited(Edit::Set(attribute, value.into()))
    }

    /// With an attribute after the signature.
    pub(crate) fn then(self, attribute: Attribute, value: &[u8]) -> Self {
        self.edited(Edit::Trailing(attribute, value.into()))
    }

    /// With another user's name and password.
    pub(crate) fn by_user(self, user: &str, password: &str) -> Self {
        self.but(Attribute::USERNAME, user.as_bytes()).edited(Edit::Key(Key::md5(user, REALM, password)))
    }

    /// Without any trace of a credential.
    pub(crate) fn unsigned(self) -> Self {
        [Attribute::USERNAME, Attribute::REALM, Attribute::NONCE]
            .into_iter()
            .fold(self, Self::without)
            .edited(Edit::Unsigned)
    }

    /// With a bit of the signature flipped.
    pub(crate) fn forged(self) -> Self {
        self.edited(Edit::Forged)
    }

    pub(crate) fn fingerprinted(self) -> Self {
        self.edited(Edit::Fingerprint)
    }

    fn edited(mut self, edit: Edit) -> Self {
        self.edits.push(edit);
        self
    }

    pub(crate) fn bytes(&self, party: &mut Party) -> Vec<u8> {
        let write = |to: &mut Reply<'_>| {
            for (attribute, value) in &self.attributes {
                match value {
                    Value::Bytes(value) => to.bytes(*attribute, value),
                    Value::Address(address) => to.xor_address(*attribute, *address),
                };
            }
        };
        let plain = match &self.what {
            What::Bytes(bytes) => bytes.clone(),
            What::Request(method) => party.client.request(*method, write),
            What::Bare(method, class) => {
                let mut id = [0; 12];
                id.copy_from_slice(&party.client.binding()[8..20]);
                let mut buf = vec![0; SLOT / 2];
                let mut reply = Reply::new(&mut buf, *method, *class, id);
                write(&mut reply);
                let len = reply.finish().expect("a message as long as this fits");
                buf.truncate(len);
                buf
            }
        };
        if self.edits.is_empty() { plain } else { self.edit(&plain, party) }
    }

    fn edit(&self, plain: &[u8], party: &Party) -> Vec<u8> {
        let message = Message::parse(plain).expect("only messages are edited");
        let mut attributes: Vec<_> = message.attributes().map(|(kind, value)| (kind, value.to_vec())).collect();
        let mut key = message.is_signed(Algorithm::Sha1).then(|| Key::md5(&party.user, REALM, &party.password));
        let (mut trailing, mut is_forged, mut fingerprint) = (Vec::new(), false, false);
        for edit in &self.edits {
            match edit {
                Edit::Without(kind) => attributes.retain(|(seen, _)| seen != kind),
                Edit::Set(kind, value) => match attributes.iter_mut().find(|(seen, _)| seen == kind) {
                    Some((_, old)) => old.clone_from(value),
                    None => attributes.push((*kind, value.clone())),
                },
                Edit::Trailing(kind, value) => trailing.push((*kind, value.clone())),
                Edit::Key(other) => key = Some(other.clone()),
                Edit::Unsigned => key = None,
                Edit::Forged => is_forged = true,
                Edit::Fingerprint => fingerprint = true,
            }
        }
        let mut buf = vec![0; SLOT / 2];
        let mut reply = Reply::new(&mut buf, message.method, message.class, message.transaction);
        for (kind, value) in &attributes {
            reply.bytes(*kind, value);
        }
        if let Some(key) = &key {
            reply.sign(Algorithm::Sha1, key);
        }
        let signed = reply.finish().expect("it fits");
        for (kind, value) in &trailing {
            reply.bytes(*kind, value);
        }
        if fingerprint {
            reply.fingerprint();
        }
        let len = reply.finish().expect("it fits");
        if is_forged {
            assert!(key.is_some() && !fingerprint, "a forged signature under a true fingerprint is another story");
            buf[signed - 1] ^= 1;
        }
        buf.truncate(len);
        buf
    }
}
