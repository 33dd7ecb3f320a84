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
    /// The key is the user's own, made by this hash.
    Hash(PasswordAlgorithm),
    /// Signed so, in this order, each with so many bytes.
    Signed(Vec<(Algorithm, usize)>),
    /// The first signature is wrong.
    FirstForged,
    Hidden,
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

pub(crate) fn connect(peer: SocketAddr) -> Ask {
    request(Method::CONNECT).with_peer(peer)
}

pub(crate) fn connection_bind(stream: StreamId) -> Ask {
    request(Method::CONNECTION_BIND).with(Attribute::CONNECTION_ID, &stream.0.to_be_bytes())
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

    /// With the key of another user under the own name, or another key of the own.
    pub(crate) fn keyed(self, key: Key) -> Self {
        self.edited(Edit::Key(key))
    }

    /// As a client of RFC 8489 says it: it has chosen SHA-256 out of the offer.
    pub(crate) fn sha256(self) -> Self {
        self.choosing(PasswordAlgorithm::Sha256).signed(&[(Algorithm::Sha256, 32)])
    }

    /// With the offer repeated and this algorithm chosen out of it.
    pub(crate) fn choosing(self, hash: PasswordAlgorithm) -> Self {
        let [n0, n1] = hash.number().to_be_bytes();
        self.but(Attribute::PASSWORD_ALGORITHMS, &OFFER)
            .but(Attribute::PASSWORD_ALGORITHM, &[n0, n1, 0, 0])
            .edited(Edit::Hash(hash))
    }

    /// With these signatures, in this order, each of so many bytes.
    pub(crate) fn signed(self, signatures: &[(Algorithm, usize)]) -> Self {
        self.edited(Edit::Signed(signatures.into()))
    }

    /// With a bit of the first of its signatures flipped.
    pub(crate) fn first_forged(self) -> Self {
        self.edited(Edit::FirstForged)
    }

    /// With USERHASH for USERNAME.
    pub(crate) fn hidden(self) -> Self {
        self.edited(Edit::Hidden)
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
        let own = |hash: PasswordAlgorithm| hash.key(&party.user, REALM, &party.password);
        let mut key = message.is_signed(Algorithm::Sha1).then(|| own(PasswordAlgorithm::Md5));
        let mut signatures = vec![(Algorithm::Sha1, integrity::SHA1_LEN)];
        let (mut trailing, mut forged, mut fingerprint) = (Vec::new(), None, false);
        for edit in &self.edits {
            match edit {
                Edit::Without(kind) => attributes.retain(|(seen, _)| seen != kind),
                Edit::Set(kind, value) => match attributes.iter_mut().find(|(seen, _)| seen == kind) {
                    Some((_, old)) => old.clone_from(value),
                    None => attributes.push((*kind, value.clone())),
                },
                Edit::Trailing(kind, value) => trailing.push((*kind, value.clone())),
                Edit::Key(other) => key = key.map(|_| other.clone()),
                Edit::Hash(hash) => key = key.map(|_| own(*hash)),
                Edit::Signed(kinds) => signatures.clone_from(kinds),
                Edit::Hidden => {
                    for (kind, value) in attributes.iter_mut().filter(|(kind, _)| *kind == Attribute::USERNAME) {
                        *kind = Attribute::USERHASH;
                        *value = integrity::userhash(&party.user, REALM).into();
                    }
                }
                Edit::Unsigned => key = None,
                Edit::Forged => forged = Some(usize::MAX),
                Edit::FirstForged => forged = Some(0),
                Edit::Fingerprint => fingerprint = true,
            }
        }
        let mut buf = vec![0; SLOT / 2];
        let mut reply = Reply::new(&mut buf, message.method, message.class, message.transaction);
        for (kind, value) in &attributes {
            reply.bytes(*kind, value);
        }
        let len = reply.finish().expect("it fits");
        buf.truncate(len);
        let last = signatures.len() - 1;
        for (at, (kind, size)) in signatures.into_iter().enumerate().filter(|_| key.is_some()) {
            let is_forged = forged.is_some_and(|which: usize| which.min(last) == at);
            signs(&mut buf, kind, size, key.as_ref().expect("there is one"), is_forged);
        }
        for (kind, value) in &trailing {
            appends(&mut buf, *kind, value);
        }
        if fingerprint {
            sets_length(&mut buf, 8);
            let crc = integrity::fingerprint(&[&buf]);
            appends(&mut buf, Attribute::FINGERPRINT, &crc.to_be_bytes());
        }
        buf
    }
}

/// Signs what there is, with a value of any size.
fn signs(buf: &mut Vec<u8>, kind: Algorithm, size: usize, key: &Key, is_forged: bool) {
    sets_length(buf, 4 + size);
    let (attribute, mut value) = match kind {
        Algorithm::Sha1 => (Attribute::MESSAGE_INTEGRITY, integrity::hmac_sha1(key.expose(), &[buf]).to_vec()),
        Algorithm::Sha256 => {
            (Attribute::MESSAGE_INTEGRITY_SHA256, integrity::hmac_sha256(key.expose(), &[buf]).to_vec())
        }
    };
    value.resize(size, 0);
    if let Some(last) = value.last_mut() {
        *last ^= u8::from(is_forged);
    }
    appends(buf, attribute, &value);
}

fn appends(buf: &mut Vec<u8>, attribute: Attribute, value: &[u8]) {
    buf.extend(attribute.0.to_be_bytes());
    buf.extend((value.len() as u16).to_be_bytes());
    buf.extend(value);
    buf.resize(buf.len().next_multiple_of(4), 0);
    sets_length(buf, 0);
}

/// Makes the length field count what there is and `more`.
fn sets_length(buf: &mut [u8], more: usize) {
    let length = ((buf.len() - 20 + more) as u16).to_be_bytes();
    buf[2..4].copy_from_slice(&length);
}
