//! What can stand behind a key: the types, how each is read, and how it is shown.
//!
//! The types accept what is right and nothing more, so nobody checks again later.
#![forbid(unsafe_code)]

use super::load::{Given, Reading, Value, Word, gather};
use super::near::nearest;
use super::units::Fault;
use crate::turn::credential::{SEPARATOR, Secret};
use crate::turn::opaque::{Forbidden, OpaqueString};
use crate::turn::peers::{Prefix, PrefixError};
use crate::wire::integrity::Key as UserKey;
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;
use core::str::FromStr;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// A realm: not empty, under 128 characters (RFC 8489 §14.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realm(String);

/// Where a transport listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listeners {
    /// The addresses, without duplicates.
    pub addresses: Vec<SocketAddr>,
    /// Whether nobody wrote them. A default on an address family that the host lacks is passed over.
    pub is_default: bool,
}

/// Files of one kind, in an order that means something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths(pub Vec<PathBuf>);

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    V12,
    /// RFC 8446.
    V13,
}

/// Where HTTP is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpListeners {
    /// Over TCP, without duplicates.
    pub addresses: Vec<SocketAddr>,
    /// The files of unix-domain sockets, without duplicates.
    pub sockets: Vec<PathBuf>,
    /// Whether nobody wrote them.
    pub is_default: bool,
}

/// A local address for relay sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayFrom {
    /// Those of the default route.
    Auto,
    /// This one.
    Address(IpAddr),
}

/// What clients are told a relay address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct External {
    /// The relay address meant; `None` is the only one of the same family.
    pub local: Option<IpAddr>,
    /// What clients and peers see.
    pub external: IpAddr,
}

/// The ports of relay sockets: a range that is not empty and starts at 1024 or above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(RangeInclusive<u16>);

/// How a static user proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// The password.
    Plain(Secret),
    /// MD5(user:realm:password), so that the password itself is nowhere.
    Hmac(UserKey),
    /// SHA-256(user:realm:password), for clients of RFC 8489 alone.
    Sha256(UserKey),
}

/// What stands between expiry and user in a time-limited name: a printable ASCII character that is no digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Separator(char);

/// Prefixes that may not be relayed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deny {
    /// Whether the built-in set belongs to them.
    pub special_purpose: bool,
    /// The others.
    pub prefixes: Vec<Prefix>,
}

/// A URI for clients: `stun:`, `turn:` and their TLS forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri(String);

/// A DNS name or IP address that clients can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicName(String);

/// A key of the HTTP API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Who holds it: letters, digits, `.`, `_`, `-`; unique.
    pub id: String,
    /// What its holder sends.
    pub secret: Secret,
    /// What its holder may do; not empty.
    pub scopes: Vec<Scope>,
}

/// What the holder of an API key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Make credentials.
    Mint,
    /// See sessions, status and metrics.
    Read,
    /// Revoke, end sessions, drain, reload.
    Admin,
}

impl Scope {
    /// Its name in the configuration.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Mint => "mint",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// The least grave event that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What needs mending now.
    Error,
    /// What will need it.
    Warn,
    /// What began and ended.
    Info,
    /// Why.
    Debug,
    /// Everything.
    Trace,
}

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `human` on a terminal, `json` elsewhere.
    Auto,
    /// For eyes.
    Human,
    /// One JSON object a line.
    Json,
    /// `key=value` pairs.
    Logfmt,
}

impl Realm {
    /// The realm as it stands in a challenge.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Word for Realm {
    fn parse(text: &str) -> Result<Self, Fault> {
        let realm = OpaqueString::new(text).map_err(|why| Fault::new(format!("in the realm, {why}")))?;
        // Some letters become two in this form.
        if realm.as_str().chars().count() > REALM_MAX {
            return Err(Fault::new(format!("a realm has at most {REALM_MAX} characters (RFC 8489 §14.9)")));
        }
        Ok(Self(realm.as_str().to_owned()))
    }

    fn word(&self) -> String {
        self.0.clone()
    }
}

const REALM_MAX: usize = 127; // RFC 8489 §14.9: fewer than 128 characters

impl Value for Listeners {
    const LIST: bool = true;

    fn read(given: &Given<'_>) -> Reading<Self> {
        let mut addresses: Vec<SocketAddr> = Vec::new();
        let mut mistakes = Vec::new();
        for item in given.items()? {
            match item.word::<SocketAddr>() {
                Err(wrong) => mistakes.extend(wrong),
                Ok(address) if address.port() != 0 && addresses.contains(&address) => {
                    mistakes.push(item.wrong("listed twice"));
                }
                Ok(address) => addresses.push(address),
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Self { addresses, is_default: given.is_default() })
    }

    fn show(&self) -> toml::Value {
        self.addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().into()
    }
}

impl Value for Paths {
    const LIST: bool = true;

    fn read(given: &Given<'_>) -> Reading<Self> {
        let path = |given: &Given<'_>| match given.text()? {
            "" => Err(given.wrong("a path cannot be empty").into()),
            path => Ok(PathBuf::from(path)),
        };
        match given.text() {
            Ok("") => Ok(Self(Vec::new())),
            Ok(_) => path(given).map(|path| Self(vec![path])),
            Err(_) => {
                let items = given.items().map_err(|_| given.wrong("must be a path in quotes, or a list of paths"))?;
                gather(items.iter().map(path)).map(Self)
            }
        }
    }

    fn show(&self) -> toml::Value {
        let text = |path: &PathBuf| path.display().to_string();
        match self.0.as_slice() {
            [] => "".into(),
            [path] => text(path).into(),
            paths => paths.iter().map(text).collect::<Vec<_>>().into(),
        }
    }
}

impl Value for HttpListeners {
    const LIST: bool = true;

    fn read(given: &Given<'_>) -> Reading<Self> {
        let mut read = Self { addresses: Vec::new(), sockets: Vec::new(), is_default: given.is_default() };
        let mut mistakes = Vec::new();
        for item in given.items()? {
            let path = item.text().ok().and_then(|text| text.strip_prefix(UNIX));
            let outcome = match path.map(socket_path) {
                Some(Err(fault)) => Err(item.fault(fault).into()),
                Some(Ok(path)) if read.sockets.contains(&path) => Err(item.wrong("listed twice").into()),
                Some(Ok(path)) => {
                    read.sockets.push(path);
                    Ok(())
                }
                None => match item.word::<SocketAddr>() {
                    Ok(address) if address.port() != 0 && read.addresses.contains(&address) => {
                        Err(item.wrong("listed twice").into())
                    }
                    address => address.map(|address| read.addresses.push(address)),
                },
            };
            mistakes.extend(outcome.err().into_iter().flatten());
        }
        if mistakes.is_empty() { Ok(read) } else { Err(mistakes) }
    }

    fn show(&self) -> toml::Value {
        let sockets = self.sockets.iter().map(|path| format!("{UNIX}{}", path.display()));
        self.addresses.iter().map(SocketAddr::to_string).chain(sockets).collect::<Vec<_>>().into()
    }
}

pub(super) const UNIX: &str = "unix:";

pub(super) fn socket_path(text: &str) -> Result<PathBuf, Fault> {
    let path = PathBuf::from(text);
    if !path.is_absolute() || path.file_name().is_none() {
        return Err(Fault::new("the path of a socket begins with /").hint("write \"unix:/run/turnserver/api.sock\""));
    }
    if text.len() > SOCKET_PATH_MAX {
        return Err(Fault::new(format!("the path of a socket has at most {SOCKET_PATH_MAX} bytes")));
    }
    if text.contains('\0') {
        return Err(Fault::new("a path has no zero byte"));
    }
    Ok(path)
}

const SOCKET_PATH_MAX: usize = 107; // sun_path of unix(7) has 108, one of them the closing zero

impl Word for SocketAddr {
    fn parse(text: &str) -> Result<Self, Fault> {
        if let Ok(address) = text.parse() {
            return Ok(address);
        }
        if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Err(Fault::new("the port is missing").meant(Self::new(ip, DEFAULT_PORT)));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(Fault::new("not an \"ip:port\""));
        };
        if let (Ok(ip), Ok(port)) = (host.parse::<core::net::Ipv6Addr>(), port.parse::<u16>()) {
            return Err(Fault::new("an IPv6 address needs brackets").meant(Self::new(ip.into(), port)));
        }
        if let (true, Ok(port)) = (host.is_empty() || host == "*", port.parse::<u16>()) {
            let every = format!("every address is \"0.0.0.0:{port}\", \"[::]:{port}\"");
            return Err(Fault::new("the address is missing").hint(every));
        }
        if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return Err(Fault::new("a port is a number from 1 to 65535"));
        }
        Err(Fault::new("not an \"ip:port\"; names are not looked up"))
    }

    fn word(&self) -> String {
        self.to_string()
    }
}

const DEFAULT_PORT: u16 = 3478; // RFC 8489 §18.6

impl Word for RelayFrom {
    fn parse(text: &str) -> Result<Self, Fault> {
        if text == AUTO {
            return Ok(Self::Auto);
        }
        let Ok(ip) = text.parse::<IpAddr>() else {
            let fault = Fault::new("neither an IP address nor \"auto\"");
            return Err(match nearest(text, [AUTO]) {
                Some(meant) => fault.meant(meant),
                None => fault,
            });
        };
        if ip.is_unspecified() || ip.is_multicast() {
            return Err(Fault::new("a relay address must name one address of this host").meant(AUTO));
        }
        Ok(Self::Address(ip))
    }

    fn word(&self) -> String {
        match self {
            Self::Auto => AUTO.into(),
            Self::Address(ip) => ip.to_string(),
        }
    }
}

const AUTO: &str = "auto";

impl Word for External {
    fn parse(text: &str) -> Result<Self, Fault> {
        let (local, external) = match text.split_once('=') {
            Some((local, external)) => (Some(local.trim()), external.trim()),
            None => (None, text),
        };
        let address = |text: &str| text.parse::<IpAddr>().map_err(|_| Fault::new(format!("{text:?} is no IP address")));
        let (local, external) = (local.map(address).transpose()?, address(external)?);
        if external.is_unspecified() || external.is_multicast() {
            return Err(Fault::new("nobody can reach that address"));
        }
        if local.is_some_and(|local| local.is_ipv4() != external.is_ipv4()) {
            return Err(Fault::new("both must be IPv4 or both IPv6"));
        }
        Ok(Self { local, external })
    }

    fn word(&self) -> String {
        match self.local {
            Some(local) => format!("{local}={}", self.external),
            None => self.external.to_string(),
        }
    }
}

impl Ports {
    /// The range.
    pub fn range(&self) -> RangeInclusive<u16> {
        self.0.clone()
    }
}

impl Word for Ports {
    fn parse(text: &str) -> Result<Self, Fault> {
        let Some((first, last)) = text.split_once('-') else {
            return Err(Fault::new("not a range").hint("write \"first-last\", such as \"49152-65535\""));
        };
        let port =
            |text: &str| u16::from_str(text.trim()).map_err(|_| Fault::new(format!("{:?} is no port", text.trim())));
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(Fault::new("the range is empty").meant(format!("{last}-{first}")));
        }
        if first < RELAY_PORT_MIN {
            let meant = format!("{RELAY_PORT_MIN}-{}", last.max(RELAY_PORT_MIN));
            return Err(Fault::new("ports below 1024 belong to system services (RFC 8656 §7.2)").meant(meant));
        }
        Ok(Self(first..=last))
    }

    fn word(&self) -> String {
        format!("{}-{}", self.0.start(), self.0.end())
    }
}

const RELAY_PORT_MIN: u16 = 1024;

impl Value for Secret {
    const SECRET: bool = true;
    const WORD: bool = true;

    fn read(given: &Given<'_>) -> Reading<Self> {
        let text = given.text()?;
        if text.is_empty() {
            return Err(given.wrong("a secret cannot be empty").into());
        }
        Ok(Self::new(text))
    }

    fn show(&self) -> toml::Value {
        HIDDEN.into()
    }
}

/// What stands where a secret would.
pub(super) const HIDDEN: &str = "…";

impl Word for PathBuf {
    fn parse(text: &str) -> Result<Self, Fault> {
        Ok(text.into())
    }

    fn word(&self) -> String {
        self.display().to_string()
    }
}

impl Value for BTreeMap<String, Password> {
    const SECRET: bool = true;

    fn read(given: &Given<'_>) -> Reading<Self> {
        let mut names = BTreeSet::new();
        gather(given.entries()?.into_iter().map(|(name, given)| {
            let name = match OpaqueString::new(&name) {
                Ok(name) if name.as_str().len() <= USER_MAX => name.as_str().to_owned(),
                Ok(_) | Err(Forbidden::Empty) => {
                    let message = format!("a user name has 1 to {USER_MAX} bytes (RFC 8489 §14.3)");
                    return Err(given.wrong(message).into());
                }
                Err(why @ (Forbidden::Character(_) | Forbidden::Text)) => {
                    return Err(given.wrong(format!("in the name of the user, {why}")).into());
                }
            };
            if !names.insert(name.clone()) {
                let message = "the same user is listed twice, in two spellings that are one (RFC 8265 §4.2)";
                return Err(given.wrong(message).into());
            }
            Ok((name, Password::read(&given)?))
        }))
    }

    fn show(&self) -> toml::Value {
        toml::Value::Table(self.keys().map(|name| (name.clone(), HIDDEN.into())).collect())
    }
}

pub(super) const USER_MAX: usize = 508; // RFC 8489 §14.3: fewer than 509 bytes

impl Password {
    fn read(given: &Given<'_>) -> Reading<Self> {
        let text = given.text()?;
        if text.is_empty() {
            return Err(given.wrong("a password cannot be empty").into());
        }
        let key = |digits, length| {
            unhex(digits).filter(|bytes| bytes.len() == length).and_then(|bytes| UserKey::from_bytes(&bytes))
        };
        if let Some(digits) = text.strip_prefix("hmac:") {
            let message = "after \"hmac:\" come the 32 hex digits of MD5(user:realm:password)";
            return key(digits, MD5_LEN).map(Self::Hmac).ok_or_else(|| given.wrong(message).into());
        }
        if let Some(digits) = text.strip_prefix("sha256:") {
            let message = "after \"sha256:\" come the 64 hex digits of SHA-256(user:realm:password)";
            return key(digits, SHA256_LEN).map(Self::Sha256).ok_or_else(|| given.wrong(message).into());
        }
        let password = OpaqueString::new(text).map_err(|why| given.wrong(format!("in the password, {why}")))?;
        Ok(Self::Plain(Secret::new(password.as_str())))
    }
}

const MD5_LEN: usize = 16;
const SHA256_LEN: usize = 32;

fn unhex(digits: &str) -> Option<Zeroizing<Vec<u8>>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    rest.is_empty().then_some(())?;
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
    bytes.map(Zeroizing::new)
}

impl Separator {
    /// The character.
    pub fn as_char(self) -> char {
        self.0
    }
}

impl Word for Separator {
    fn parse(text: &str) -> Result<Self, Fault> {
        let mut characters = text.chars();
        let (Some(one), None) = (characters.next(), characters.next()) else {
            return Err(Fault::new("must be one character").meant(SEPARATOR));
        };
        if one.is_ascii_digit() {
            return Err(Fault::new("a digit cannot be told from the expiry before it").meant(SEPARATOR));
        }
        if !one.is_ascii_graphic() {
            return Err(Fault::new("must be a printable ASCII character, and no blank").meant(SEPARATOR));
        }
        Ok(Self(one))
    }

    fn word(&self) -> String {
        self.0.into()
    }
}

impl Word for Prefix {
    fn parse(text: &str) -> Result<Self, Fault> {
        Self::from_str(text).map_err(|error| match error {
            PrefixError::HostBits(meant) => Fault::new("bits beyond the prefix length are set").meant(meant),
            PrefixError::Length => Fault::new("the prefix length is at most 32 for IPv4 and 128 for IPv6"),
            PrefixError::Address if text == SPECIAL_PURPOSE => {
                Fault::new("the named set can only be denied").hint("write the prefixes to open")
            }
            PrefixError::Address => match nearest(text, [SPECIAL_PURPOSE]) {
                Some(meant) => Fault::new("not an address prefix").meant(meant),
                None => Fault::new("not an address prefix; names are not looked up, their answers may change")
                    .hint("write it as \"10.20.0.0/16\""),
            },
        })
    }

    fn word(&self) -> String {
        self.to_string()
    }
}

const SPECIAL_PURPOSE: &str = "special-purpose";

impl Value for Deny {
    const LIST: bool = true;

    fn read(given: &Given<'_>) -> Reading<Self> {
        let is_set = |item: &Given<'_>| item.text().is_ok_and(|text| text == SPECIAL_PURPOSE);
        let (sets, others): (Vec<_>, Vec<_>) = given.items()?.into_iter().partition(is_set);
        let prefixes = gather(others.iter().map(Prefix::read))?;
        Ok(Self { special_purpose: !sets.is_empty(), prefixes })
    }

    fn show(&self) -> toml::Value {
        let set = self.special_purpose.then(|| SPECIAL_PURPOSE.to_owned());
        set.into_iter().chain(self.prefixes.iter().map(Prefix::to_string)).collect::<Vec<_>>().into()
    }
}

impl Uri {
    /// The URI.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Word for Uri {
    fn parse(text: &str) -> Result<Self, Fault> {
        let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, _)| URI_SCHEMES.contains(scheme)) else {
            return Err(Fault::new("not a URI of a STUN or TURN server")
                .hint("write it as \"turn:turn.example.org:3478?transport=udp\""));
        };
        if let Some(rest) = rest.strip_prefix("//") {
            return Err(Fault::new("these URIs have no // (RFC 7065)").meant(format!("{scheme}:{rest}")));
        }
        if rest.is_empty() || rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(Fault::new("the host is missing or has blanks in it"));
        }
        Ok(Self(text.into()))
    }

    fn word(&self) -> String {
        self.0.clone()
    }
}

const URI_SCHEMES: [&str; 4] = ["stun", "stuns", "turn", "turns"];

impl PublicName {
    /// The name, in brackets when it is an IPv6 address.
    pub fn for_uri(&self) -> String {
        match self.0.parse::<core::net::Ipv6Addr>() {
            Ok(ip) => format!("[{ip}]"),
            Err(_) => self.0.clone(),
        }
    }
}

impl Word for PublicName {
    fn parse(text: &str) -> Result<Self, Fault> {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        let is_name = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
        if !is_name && bare.parse::<IpAddr>().is_err() {
            return Err(Fault::new("not a host name").hint("write the name alone, without port or scheme"));
        }
        Ok(Self(bare.into()))
    }

    fn word(&self) -> String {
        self.0.clone()
    }
}

impl Value for ApiKey {
    const SECRET: bool = true;

    fn read(given: &Given<'_>) -> Reading<Self> {
        let (mut id, mut secret, mut scopes) = (None, None, None);
        let mut mistakes = Vec::new();
        for (name, given) in given.entries()? {
            let read = match name.as_str() {
                "id" => given.open().id().map(|read| id = Some(read)),
                "secret" => Secret::read(&given).map(|read| secret = Some(read)),
                "scopes" => Vec::<Scope>::read(&given.open()).map(|read| scopes = Some(read)),
                _ => Err(given.unknown(nearest(&name, API_KEY_FIELDS)).into()),
            };
            mistakes.extend(read.err().into_iter().flatten());
        }
        let present = [id.is_some(), secret.is_some(), scopes.as_ref().is_some_and(|scopes| !scopes.is_empty())];
        match (id, secret, scopes) {
            (Some(id), Some(secret), Some(scopes)) if !scopes.is_empty() && mistakes.is_empty() => {
                Ok(Self { id, secret, scopes })
            }
            _ => {
                let missing = API_KEY_FIELDS.iter().zip(present).filter(|(_, present)| !present);
                if mistakes.is_empty() {
                    let complete = "write { id = \"signaling\", secret = \"…\", scopes = [\"mint\"] }";
                    mistakes.extend(missing.map(|(name, _)| given.wrong(format!("{name} is missing")).hint(complete)));
                }
                Err(mistakes)
            }
        }
    }

    fn show(&self) -> toml::Value {
        let id = ("id".to_owned(), self.id.clone().into());
        let secret = ("secret".to_owned(), HIDDEN.into());
        let scopes = ("scopes".to_owned(), self.scopes.show());
        toml::Value::Table([id, secret, scopes].into_iter().collect())
    }
}

const API_KEY_FIELDS: [&str; 3] = ["id", "secret", "scopes"];

impl Given<'_> {
    fn id(&self) -> Reading<String> {
        let text = self.text()?;
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            return Err(self.wrong("an id has letters, digits, \".\", \"_\" and \"-\" only").into());
        }
        Ok(text.into())
    }
}

/// Words of which one is meant.
macro_rules! choice {
    ($name:ident { $( $word:literal => $variant:ident, )+ }) => {
        impl $name {
            /// The word in the file.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }

        impl Word for $name {
            fn parse(text: &str) -> Result<Self, Fault> {
                match text {
                    $( $word => Ok(Self::$variant), )+
                    _ => Err(Fault::one_of(text, &[$($word),+])),
                }
            }

            fn word(&self) -> String {
                self.as_str().into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

choice!(Scope { "mint" => Mint, "read" => Read, "admin" => Admin, });
choice!(Level { "error" => Error, "warn" => Warn, "info" => Info, "debug" => Debug, "trace" => Trace, });
choice!(TlsVersion { "1.2" => V12, "1.3" => V13, });
choice!(LogFormat { "auto" => Auto, "human" => Human, "json" => Json, "logfmt" => Logfmt, });
