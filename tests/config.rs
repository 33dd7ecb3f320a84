//! The configuration as operators meet it: each mistake in its own words, all of them at once, no secret among them.
#![expect(clippy::unwrap_used, reason = "a story that cannot go on ends there")]

use std::net::IpAddr;
use turnserver::config::{self, Config, Host, Loaded, Mistake, Source};
use turnserver::time::seconds;
use turnserver::turn::credential::Secret;
use turnserver::turn::peers::RelayAddress;
use turnserver::turn::policy::{self, AeadKey, OAuthKey};
use turnserver::wire::integrity::Key;

const FILE: &str = "turnserver.toml";

fn load(text: &str) -> Result<Loaded, Vec<Mistake>> {
    config::load(Some((FILE, text)), [])
}

fn good(text: &str) -> Config {
    load(text).unwrap_or_else(|mistakes| panic!("{}", lines(&mistakes))).config
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n")
}

/// What is said about a file.
fn complaint(text: &str) -> String {
    lines(&load(text).map(|loaded| loaded.config).expect_err("a mistake"))
}

/// What is said about one variable without a file.
fn complaint_env(name: &str, value: &str) -> String {
    lines(&config::load(None, [(name.into(), value.into())]).map(|loaded| loaded.config).expect_err("a mistake"))
}

fn env(variables: &[(&str, &str)]) -> Config {
    let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    config::load(None, variables).unwrap_or_else(|mistakes| panic!("{}", lines(&mistakes))).config
}

fn warnings(text: &str) -> String {
    lines(&load(text).unwrap().warnings)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn host() -> Host {
    Host {
        name: "relay1".into(),
        interfaces: ["127.0.0.1", "10.0.0.5", "10.0.0.6", "fe80::1", "2001:db8::5"].map(ip).to_vec(),
        default_v4: Some(ip("10.0.0.5")),
        default_v6: Some(ip("2001:db8::5")),
    }
}

fn policy_of(text: &str) -> Result<policy::Policy, String> {
    good(text).policy(&host(), Secret::new("nonce"), &[]).map_err(|mistakes| lines(&mistakes))
}

#[test]
fn an_empty_file_is_no_file() {
    assert_eq!(good("").effective(), config::load(None, []).unwrap().config.effective());
    assert!(load("").unwrap().warnings.is_empty(), "the defaults warn of nothing");
}

#[test]
fn each_mistake_says_where_what_and_how_to_mend_it() {
    for (text, sentence) in [
        (
            "[relay]\nports = \"65000-60000\"",
            "turnserver.toml:2: relay.ports = \"65000-60000\": the range is empty; did you mean \"60000-65000\"?",
        ),
        (
            "relay.ports = \"80-2000\"",
            "turnserver.toml:1: relay.ports = \"80-2000\": ports below 1024 belong to system services (RFC 8656 §7.2); did you mean \"1024-2000\"?",
        ),
        (
            "relay.ports = \"50000\"",
            "turnserver.toml:1: relay.ports = \"50000\": not a range; write \"first-last\", such as \"49152-65535\"",
        ),
        ("relay.ports = \"a-b\"", "turnserver.toml:1: relay.ports = \"a-b\": \"a\" is no port"),
        ("relay.ports = 5", "turnserver.toml:1: relay.ports = 5: must be a text in quotes, not an integer"),
        (
            "relay.addresses = [\"0.0.0.0\"]",
            "turnserver.toml:1: relay.addresses = \"0.0.0.0\": a relay address must name one address of this host; did you mean \"auto\"?",
        ),
        (
            "relay.addresses = [\"atuo\"]",
            "turnserver.toml:1: relay.addresses = \"atuo\": neither an IP address nor \"auto\"; did you mean \"auto\"?",
        ),
        (
            "relay.addresses = \"auto\"",
            "turnserver.toml:1: relay.addresses = \"auto\": must be a list, not a text; put it in brackets: [\"auto\"]",
        ),
        (
            "relay.external = [\"10.0.0.5=2001:db8::1\"]",
            "turnserver.toml:1: relay.external = \"10.0.0.5=2001:db8::1\": both must be IPv4 or both IPv6",
        ),
        (
            "relay.external = [\"192.0.2.1\", \"192.0.2.2\"]",
            "turnserver.toml:1: relay.external = [\"192.0.2.1\", \"192.0.2.2\"]: 192.0.2.2 is the second answer for the same relay address; write \"local=external\" for each",
        ),
        (
            "listen.udp = [\"0.0.0.0\"]",
            "turnserver.toml:1: listen.udp = \"0.0.0.0\": the port is missing; did you mean \"0.0.0.0:3478\"?",
        ),
        (
            "listen.udp = [\"::\"]",
            "turnserver.toml:1: listen.udp = \"::\": the port is missing; did you mean \"[::]:3478\"?",
        ),
        (
            "listen.tcp = [\"2001:db8:0:0:0:0:0:1:3478\"]",
            "turnserver.toml:1: listen.tcp = \"2001:db8:0:0:0:0:0:1:3478\": an IPv6 address needs brackets; did you mean \"[2001:db8::1]:3478\"?",
        ),
        (
            "listen.tcp = [\":3478\"]",
            "turnserver.toml:1: listen.tcp = \":3478\": the address is missing; every address is \"0.0.0.0:3478\", \"[::]:3478\"",
        ),
        (
            "listen.tcp = [\"turn.example.org:3478\"]",
            "turnserver.toml:1: listen.tcp = \"turn.example.org:3478\": not an \"ip:port\"; names are not looked up",
        ),
        (
            "listen.tcp = [\"0.0.0.0:70000\"]",
            "turnserver.toml:1: listen.tcp = \"0.0.0.0:70000\": a port is a number from 1 to 65535",
        ),
        (
            "listen.udp = [\n  \"0.0.0.0:3478\",\n  \"0.0.0.0:3478\",\n]",
            "turnserver.toml:3: listen.udp = \"0.0.0.0:3478\": listed twice",
        ),
        (
            "listen = { udp = [], tcp = [] }",
            "turnserver.toml:1: listen.udp = []: no listener is left: nobody could reach the server; leave out listen.udp or listen.tcp to get its default",
        ),
        (
            "http.listen = [\"127.0.0.1:3478\"]",
            "turnserver.toml:1: http.listen = [\"127.0.0.1:3478\"]: listen.tcp has port 3478 too",
        ),
        (
            "listen.tls = [\"0.0.0.0:443\"]",
            "turnserver.toml:1: listen.tls = [\"0.0.0.0:443\"]: there is no certificate for it; set tls.cert and tls.key",
        ),
        (
            "tls.cert = \"a.pem\"",
            "turnserver.toml:1: tls.cert = \"a.pem\": tls.key is missing; name the file of its private key",
        ),
        (
            "tls.key = \"a.key\"",
            "turnserver.toml:1: tls.key = \"a.key\": tls.cert is missing; name the file of the certificate it is for",
        ),
        (
            "tls = { cert = [\"a.pem\", \"b.pem\"], key = \"a.key\" }",
            "turnserver.toml:1: tls.key = \"a.key\": 1 for 2 in tls.cert; each certificate needs its key, in the same order",
        ),
        ("tls.cert = 7", "turnserver.toml:1: tls.cert = 7: must be a path in quotes, or a list of paths"),
        ("tls.cert = [\"\"]", "turnserver.toml:1: tls.cert = \"\": a path cannot be empty"),
        (
            "tls.min_version = \"1.1\"",
            "turnserver.toml:1: tls.min_version = \"1.1\": must be one of 1.2, 1.3; did you mean \"1.2\"?",
        ),
        (
            "tls = { cert = \"a.pem\", key = \"a.key\" }\nlisten.tls = [\"127.0.0.1:3478\"]",
            "turnserver.toml:2: listen.tls = [\"127.0.0.1:3478\"]: listen.tcp has port 3478 too",
        ),
        (
            "tls = { cert = \"a.pem\", key = \"a.key\" }\nhttp.listen = [\"127.0.0.1:5349\"]",
            "turnserver.toml:2: http.listen = [\"127.0.0.1:5349\"]: listen.tls has port 5349 too",
        ),
        (
            "auth.max_ttl = 3600",
            "turnserver.toml:1: auth.max_ttl = 3600: the unit is missing; write \"3600s\", \"3600m\", \"3600h\" or \"3600d\"",
        ),
        (
            "auth.max_ttl = \"soon\"",
            "turnserver.toml:1: auth.max_ttl = \"soon\": not a duration; write it as \"90s\", \"10m\", \"1h30m\" or \"1d\"",
        ),
        (
            "auth.anonymous_stun = \"yes\"",
            "turnserver.toml:1: auth.anonymous_stun = \"yes\": must be true or false, not a text",
        ),
        ("limits.allocations = -1", "turnserver.toml:1: limits.allocations = -1: must lie between 0 and 4294967295"),
        ("limits.connections_per_ip = 0", "turnserver.toml:1: limits.connections_per_ip = 0: cannot be 0"),
        (
            "limits.bandwidth = \"4 Mbps\"",
            "turnserver.toml:1: limits.bandwidth = \"4 Mbps\": \"Mbps\" is no unit of a rate; did you mean \"4 Mbit/s\"?",
        ),
        (
            "limits.unauthenticated_per_ip = \"30/min\"",
            "turnserver.toml:1: limits.unauthenticated_per_ip = \"30/min\": less than once a second; did you mean \"1/s\"?",
        ),
        (
            "limits.channels_per_allocation = 5000",
            "turnserver.toml:1: limits.channels_per_allocation = 5000: 4096 is the most, as many as RFC 8656 §12 has channel numbers",
        ),
        (
            "limits.allocation_lifetime = \"20s\"",
            "turnserver.toml:1: limits.allocation_lifetime = \"20s\": shorter than 30s: clients could not refresh in time",
        ),
        (
            "limits.max_allocation_lifetime = \"5m\"",
            "turnserver.toml:1: limits.max_allocation_lifetime = \"5m\": the longest lifetime (5m) is shorter than the usual one (10m)",
        ),
        (
            "peers.allow = [\"10.0.0.1/8\"]",
            "turnserver.toml:1: peers.allow = \"10.0.0.1/8\": bits beyond the prefix length are set; did you mean \"10.0.0.0/8\"?",
        ),
        (
            "peers.deny = [\"10.0.0.0/33\"]",
            "turnserver.toml:1: peers.deny = \"10.0.0.0/33\": the prefix length is at most 32 for IPv4 and 128 for IPv6",
        ),
        (
            "peers.allow = [\"peer.example.org\"]",
            "turnserver.toml:1: peers.allow = \"peer.example.org\": not an address prefix; names are not looked up, their answers may change; write it as \"10.20.0.0/16\"",
        ),
        (
            "peers.allow = [\"special-purpose\"]",
            "turnserver.toml:1: peers.allow = \"special-purpose\": the named set can only be denied; write the prefixes to open",
        ),
        (
            "peers.deny = [\"special_purpose\"]",
            "turnserver.toml:1: peers.deny = \"special_purpose\": not an address prefix; did you mean \"special-purpose\"?",
        ),
        (
            "http.uris = [\"turn://example.org\"]",
            "turnserver.toml:1: http.uris = \"turn://example.org\": these URIs have no // (RFC 7065); did you mean \"turn:example.org\"?",
        ),
        (
            "http.name = \"https://example.org\"",
            "turnserver.toml:1: http.name = \"https://example.org\": not a host name; write the name alone, without port or scheme",
        ),
        (
            "log.level = \"INFO\"",
            "turnserver.toml:1: log.level = \"INFO\": must be one of error, warn, info, debug, trace; did you mean \"info\"?",
        ),
        ("log.format = \"xml\"", "turnserver.toml:1: log.format = \"xml\": must be one of auto, human, json, logfmt"),
        ("listen = 3478", "turnserver.toml:1: listen: a section, not a key; write [listen] and its keys below"),
    ] {
        assert_eq!(complaint(text), sentence);
    }
    // The second is of letters that become two each in the form of OpaqueString.
    for long in ["r".repeat(128), "\u{958}".repeat(64)] {
        let said = complaint(&format!("realm = {long:?}"));
        assert!(said.ends_with("a realm has at most 127 characters (RFC 8489 §14.9)"), "{said}");
    }
}

#[test]
fn extensions_say_what_to_mend_as_well() {
    for (text, sentence) in [
        (
            "auth.username_separator = \"::\"",
            "turnserver.toml:1: auth.username_separator = \"::\": must be one character; did you mean \":\"?",
        ),
        (
            "auth.username_separator = \"7\"",
            "turnserver.toml:1: auth.username_separator = \"7\": a digit cannot be told from the expiry before it; did you mean \":\"?",
        ),
        (
            "auth.username_separator = \"ß\"",
            "turnserver.toml:1: auth.username_separator = \"ß\": must be a printable ASCII character, and no blank; did you mean \":\"?",
        ),
        (
            "auth.users = { a = \"sha256:00\" }",
            "turnserver.toml:1: auth.users.a = …: after \"sha256:\" come the 64 hex digits of SHA-256(user:realm:password)",
        ),
        (
            "auth.oauth = { kid = \"a\", key = \"MDEyMzQ1Njc4OWFiY2RlZg==\" }",
            "turnserver.toml:1: auth.oauth = …: kid, key or algorithm is missing; write { kid = \"…\", key = \"base64…\", algorithm = \"A256GCM\" }",
        ),
        (
            "auth.oauth = { kid = \"a\", key = \"MDEyMzQ1Njc4OWFiY2RlZg==\", algorithm = \"A256GCM\" }",
            "turnserver.toml:1: auth.oauth.key = …: the key has 16 bytes; A256GCM needs 32; make one with `openssl rand -base64 32`",
        ),
        (
            "auth.oauth = { kid = \"a\", key = \"MDEyMzQ1Njc4OWFiY2RlZg==\", algorithm = \"A192GCM\" }",
            "turnserver.toml:1: auth.oauth.algorithm = \"A192GCM\": must be one of A128GCM, A256GCM",
        ),
        (
            "auth.nat_discovery = true",
            "turnserver.toml:1: auth.nat_discovery = true: listen.udp has no two addresses of one family with the same port (RFC 5780 §6); 0.0.0.0 and [::] do not count; write listen.udp = [\"198.51.100.7:3478\", \"198.51.100.8:3478\"] with addresses of this host",
        ),
        (
            "limits.redirect = [\"0.0.0.0:3478\"]",
            "turnserver.toml:1: limits.redirect = \"0.0.0.0:3478\": nobody can reach that address",
        ),
        (
            "limits.redirect = [\"[::ffff:198.51.100.9]:3478\"]",
            "turnserver.toml:1: limits.redirect = \"[::ffff:198.51.100.9]:3478\": an IPv4 address is written as one; did you mean \"198.51.100.9:3478\"?",
        ),
        (
            "limits.redirect = [\"turn2.example.org\"]",
            "turnserver.toml:1: limits.redirect = [\"turn2.example.org\"]: a name alone leads nowhere: clients are told an address (RFC 8489 §14.15); add the \"ip:port\" of the other server",
        ),
        (
            "limits.redirect = [\"a.example\", \"198.51.100.9:3478\", \"b.example\"]",
            "turnserver.toml:1: limits.redirect = \"b.example\": the second name: there is one for all addresses",
        ),
        (
            "limits.redirect = [\"turn2.example.org:3478\"]",
            "turnserver.toml:1: limits.redirect = \"turn2.example.org:3478\": not an \"ip:port\"; names are not looked up; a name stands alone, without a port, beside the addresses it belongs to",
        ),
        (
            "http.listen = [\"unix:api.sock\"]",
            "turnserver.toml:1: http.listen = \"unix:api.sock\": the path of a socket begins with /; write \"unix:/run/turnserver/api.sock\"",
        ),
        ("http.listen = [\"unix:/a\", \"unix:/a\"]", "turnserver.toml:1: http.listen = \"unix:/a\": listed twice"),
    ] {
        assert_eq!(complaint(text), sentence);
    }
    let long = format!("http.listen = [\"unix:/{}\"]", "x".repeat(107));
    assert!(complaint(&long).ends_with("the path of a socket has at most 107 bytes"));
    let twice = "auth.oauth = [{ kid = \"a\", key = \"K\", algorithm = \"A128GCM\" }, { kid = \"a\", key = \"K\", algorithm = \"A128GCM\" }]";
    assert!(complaint(&twice.replace('K', "MDEyMzQ1Njc4OWFiY2RlZg==")).ends_with("the kid \"a\" is there twice"));
}

#[test]
fn an_unknown_key_is_led_to_the_nearest_known_one() {
    for (text, sentence) in [
        ("ports = \"50000-50999\"", "turnserver.toml:1: ports: unknown key; did you mean relay.ports?"),
        ("\n[auth]\nsecret = \"hush-hush\"", "turnserver.toml:3: auth.secret: unknown key; did you mean auth.secrets?"),
        ("[relay]\nprots = \"1-2\"", "turnserver.toml:2: relay.prots: unknown key; did you mean relay.ports?"),
        ("listen.workers = 2", "turnserver.toml:1: listen.workers: unknown key; did you mean data_plane.workers?"),
        ("[relays]\nports = \"50000-50999\"", "turnserver.toml:1: relays: unknown section; did you mean [relay]?"),
        ("listen.dtl = []", "turnserver.toml:1: listen.dtl: unknown key; did you mean listen.dtls?"),
    ] {
        assert_eq!(complaint(text), sentence);
    }
    let elsewhere = complaint_env("TURNSERVER__PORTS", "50000-50999");
    assert_eq!(elsewhere, "TURNSERVER__PORTS: ports: unknown key; did you mean relay.ports?");
    let inside = complaint_env("TURNSERVER__AUTH__USERS__ALICE", "hush-hush");
    assert_eq!(
        inside,
        "TURNSERVER__AUTH__USERS__ALICE: auth.users.alice: auth.users is set as a whole; TURNSERVER__AUTH__USERS takes TOML"
    );
}

#[test]
fn all_mistakes_come_at_once_in_the_order_of_the_file() {
    let text = "relay.ports = \"9-1\"\nprots = 1\n[limits]\nallocations = \"many\"\nallocation_lifetime = \"2h\"\n";
    let said = config::load(Some((FILE, text)), [("TURNSERVER__LOG__LEVEL".into(), "loud".into())]);
    let said = said.map(|loaded| loaded.config).unwrap_err();
    let places: Vec<String> = said.iter().map(|mistake| format!("{} {}", mistake.source, mistake.key)).collect();
    assert_eq!(
        places,
        [
            "turnserver.toml:1 relay.ports",
            "turnserver.toml:2 prots",
            "turnserver.toml:4 limits.allocations",
            "turnserver.toml:5 limits.allocation_lifetime",
            "TURNSERVER__LOG__LEVEL log.level",
        ]
    );
}

#[test]
fn a_mistake_in_one_key_raises_no_false_alarm_about_another() {
    let said = complaint("limits.max_allocation_lifetime = 5\nlimits.allocation_lifetime = \"2h\"");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn broken_toml_is_named_by_line_beside_every_other_mistake() {
    let said = complaint("realm = example.org\nrelay.ports = \"9-1\"\n");
    assert!(said.starts_with("turnserver.toml:1: not valid TOML: "), "{said}");
    assert!(said.contains("turnserver.toml:2: relay.ports"), "{said}");
}

const HUSH: &str = "hush-hush-very-secret";

#[test]
fn no_message_shows_a_secret() {
    let files = [
        "auth.secrets = \"HUSH\"",
        "auth.secrets = [\"HUSH\", 5, [\"HUSH\"]]",
        "auth.secrets = [HUSH]",
        "auth.secrets = [\"HUSH]\n",
        "auth.secrets = [\"HUSH\"] HUSH",
        "auth.secret = [\"HUSH\"]",
        "secrets = [\"HUSH\"]",
        "auth.users = { alice = \"HUSH\", bob = [\"HUSH\"] }",
        "auth.users = { alice = \"sha256:HUSH\" }",
        "auth.users = { alice = \"hmac:HUSH\" }",
        "auth.oauth = \"HUSH\"",
        "auth.oauth = [\"HUSH\"]",
        "auth.oauth = { kid = \"a\", key = \"HUSH!\", algorithm = \"A256GCM\" }",
        "auth.oauth = { kid = \"a\", key = \"aHVzaC1odXNo\", algorithm = \"HUSH\", secret = \"HUSH\" }",
        "auth.oauth = { kid = \"a\", kye = \"HUSH\" }",
        "auth.users = \"alice:HUSH\"",
        "http.keys = [\"HUSH\"]",
        "http.keys = [{ id = \"x\", secret = \"HUSH\", scopes = [\"mnit\"] }]",
        "http.keys = [{ id = \"x\", key = \"HUSH\", scopes = [\"mint\"] }]",
        "http.keys = [{ id = \"x\", secret = [\"HUSH\"] }]",
        "http.key = \"HUSH\"",
        "[[http.keys]]\nsecret = 'HUSH'\nid = 'x'\nscopes = ['mint']\nrealm = HUSH\n[relay]\nports = ''",
    ];
    for file in files {
        let said = load(&file.replace("HUSH", HUSH)).map(|loaded| loaded.config).expect_err(file);
        assert!(!lines(&said).contains(HUSH), "{file}: {}", lines(&said));
        assert!(!format!("{said:?}").contains(HUSH), "{file}");
    }
    for (name, value) in [
        ("TURNSERVER__AUTH__USERS", HUSH.to_owned()),
        ("TURNSERVER__AUTH__SECRET", HUSH.to_owned()),
        ("TURNSERVER__HTTP__KEYS", format!("[{{ secret = \"{HUSH}\" }}]")),
        ("TURNSERVER__HTTP__KEYS", HUSH.to_owned()),
        ("TURNSERVER__AUTH__SECRETS", format!("[\"{HUSH}\", 5]")),
        ("TURNSERVER__AUTH__SECRETS", format!("[\"{HUSH}")),
    ] {
        assert!(!complaint_env(name, &value).contains(HUSH), "{name}={value}");
    }
}

#[test]
fn settings_in_force_show_no_secret() {
    let text = format!(
        "auth.oauth = {{ kid = \"north\", key = \"aHVzaC1odXNoLXZlcnktc2VjcmV0LWh1c2gtaHVzaCE=\", algorithm = \"A256GCM\" }}\nauth.secrets = [\"{HUSH}\"]\nauth.users = {{ alice = \"{HUSH}\" }}\n[[http.keys]]\nid = \"backend\"\nsecret = \"{HUSH}\"\nscopes = [\"mint\"]"
    );
    let loaded = load(&text).unwrap();
    let shown = format!("{:?} {:?} {}", loaded, loaded.config.effective(), lines(&loaded.warnings));
    assert!(!shown.contains("aHVzaC1odXNo") && shown.contains("north") && shown.contains("A256GCM"), "{shown}");
    assert!(!shown.contains(HUSH) && shown.contains("backend") && shown.contains("alice"), "{shown}");
    assert_eq!(lines(&loaded.warnings), "turnserver.toml:4: http.keys = …: \"backend\" has the secret of auth.secrets");
}

#[test]
fn an_api_key_lacks_nothing_and_no_two_share_an_id() {
    let said = complaint("http.keys = [{ id = \"a\", secret = \"0123456789abcdef\" }]");
    assert_eq!(
        said,
        "turnserver.toml:1: http.keys = …: scopes is missing; write { id = \"signaling\", secret = \"…\", scopes = [\"mint\"] }"
    );
    let said = complaint("http.keys = [{ id = \"a\", secret = \"0123456789abcdef\", scopes = [\"mnit\"] }]");
    assert_eq!(
        said,
        "turnserver.toml:1: http.keys.scopes = \"mnit\": must be one of mint, read, admin; did you mean \"mint\"?"
    );
    let key = "[[http.keys]]\nid = \"a\"\nsecret = \"0123456789abcdef\"\nscopes = [\"mint\"]\n";
    assert!(complaint(&key.repeat(2)).contains("the id \"a\" is there twice"));
    assert!(
        warnings(&key.replace("0123456789abcdef", "short"))
            .contains("the secret of \"a\" has fewer than 16 characters")
    );
}

#[test]
fn what_may_hurt_is_a_warning() {
    assert!(warnings("peers.deny = []").contains("without \"special-purpose\" clients may reach private networks"));
    assert!(warnings("listen.udp = [\"0.0.0.0:50000\"]").contains("port 50000 lies in relay.ports"));
    assert!(
        warnings("auth.secrets = [\"0123456789abcdef\", \"0123456789abcdef\"]")
            .contains("the same secret is there twice")
    );
    assert!(warnings("limits.allocation_lifetime = \"5m\"").contains("the usual 10 minutes"));
    assert!(warnings("auth.nonce_lifetime = \"2h\"").contains("at least once an hour"));
}

#[test]
fn the_environment_overrides_the_file_in_any_capitals() {
    let file = "[relay]\nports = \"50000-50999\"\n";
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let loaded = config::load(Some((FILE, file)), [variable("turnserver__Relay__PORTS", "60000-60999")]).unwrap();
    assert_eq!(loaded.config.relay.ports.range(), 60_000..=60_999);
    assert_eq!(loaded.origins["relay.ports"].source, Source::Environment("turnserver__Relay__PORTS".into()));
}

#[test]
fn a_variable_is_toml_or_a_bare_text_or_a_list_with_commas() {
    let config = env(&[
        ("TURNSERVER__REALM", "12345"),
        ("TURNSERVER__LIMITS__ALLOCATIONS", "7"),
        ("TURNSERVER__HTTP__METRICS_PUBLIC", "true"),
        ("TURNSERVER__LISTEN__TCP", ""),
        ("TURNSERVER__LISTEN__UDP", "0.0.0.0:3478, [::]:3479"),
        ("TURNSERVER__AUTH__SECRETS", "0123456789abcdef,fedcba9876543210"),
        ("TURNSERVER__AUTH__USERS", "{ alice = \"pw\" }"),
        ("TURNSERVER__AUTH__MAX_TTL", "2h"),
        ("TURNSERVER__PEERS__DENY", "special-purpose,203.0.114.0/24"),
        ("TURNSERVER__LIMITS__BANDWIDTH", "\"8 Mbit/s\""),
        ("TURNSERVER__HTTP__KEYS", "[{ id = \"a\", secret = \"0123456789abcdef\", scopes = [\"mint\", \"read\"] }]"),
        ("TURNSERVER_CONFIG", "not ours"),
        ("PATH", "/bin"),
    ]);
    assert_eq!(config.realm.unwrap().as_str(), "12345");
    assert_eq!((config.limits.allocations, config.http.metrics_public), (7, true));
    assert!(config.listen.tcp.addresses.is_empty() && !config.listen.tcp.is_default);
    assert_eq!(config.listen.udp.addresses.len(), 2);
    assert_eq!(config.auth.secrets, [Secret::new("0123456789abcdef"), Secret::new("fedcba9876543210")]);
    assert!(config.auth.users.contains_key("alice"));
    assert_eq!(config.auth.max_ttl, seconds(7200));
    assert!(config.peers.deny.special_purpose && config.peers.deny.prefixes.len() == 1);
    assert_eq!(config.limits.bandwidth.unwrap().0, 1_000_000);
    assert_eq!(config.http.keys[0].scopes.len(), 2);
    assert_eq!(
        complaint_env("TURNSERVER__LIMITS__ALLOCATIONS", "-1"),
        "TURNSERVER__LIMITS__ALLOCATIONS: limits.allocations = -1: must lie between 0 and 4294967295"
    );
    let twice =
        config::load(None, [("TURNSERVER__REALM".into(), "a".into()), ("turnserver__realm".into(), "b".into())]);
    assert_eq!(lines(&twice.map(|_| ()).unwrap_err()), "turnserver__realm: realm: set twice, in different capitals");
}

#[test]
fn auto_is_the_default_route_s_address_and_external_is_what_clients_hear() {
    let relays = |text: &str| policy_of(text).map(|policy| policy.relays);
    let relay = |local, external| RelayAddress { local: ip(local), external: ip(external) };
    let v6 = relay("2001:db8::5", "2001:db8::5");
    assert_eq!(relays(""), Ok(vec![relay("10.0.0.5", "10.0.0.5"), v6]));
    assert_eq!(relays("relay.external = [\"192.0.2.1\"]"), Ok(vec![relay("10.0.0.5", "192.0.2.1"), v6]));
    let two = "relay.addresses = [\"10.0.0.5\", \"10.0.0.6\"]\n";
    let mapped = format!("{two}relay.external = [\"10.0.0.6=192.0.2.6\"]");
    assert_eq!(relays(&mapped), Ok(vec![relay("10.0.0.5", "10.0.0.5"), relay("10.0.0.6", "192.0.2.6")]));
    let vague = format!("{two}relay.external = [\"192.0.2.6\"]");
    assert_eq!(relays(&vague), Err("relay.external = \"192.0.2.6\": there are several relay addresses of this family; write which one is meant: \"10.0.0.5=192.0.2.6\"".into()));
    let strange = "relay.external = [\"10.0.0.9=192.0.2.6\"]";
    assert_eq!(relays(strange), Err("relay.external = \"10.0.0.9=192.0.2.6\": 10.0.0.9 is no relay address; the relay addresses are 10.0.0.5, 2001:db8::5".into()));
    let absent = "relay.addresses = [\"10.0.0.5\"]\nrelay.external = [\"2001:db8::7\"]";
    assert_eq!(
        relays(absent),
        Err("relay.external = \"2001:db8::7\": there is no relay address of this family".into())
    );
}

#[test]
fn without_a_route_another_address_serves_and_loopback_at_last() {
    let relays = |interfaces: &[&str]| {
        let interfaces = interfaces.iter().map(|text| ip(text)).collect();
        let host = Host { name: String::new(), interfaces, ..Host::default() };
        let policy = good("").policy(&host, Secret::new("n"), &[]).unwrap();
        assert_eq!(policy.realm, "localhost");
        policy.relays.iter().map(|relay| relay.local.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(relays(&["127.0.0.1", "::1", "169.254.1.1", "fe80::1", "10.0.0.5"]), "10.0.0.5");
    assert_eq!(relays(&["127.0.0.1", "::1", "fe80::1"]), "127.0.0.1");
}

#[test]
fn users_become_keys_of_the_realm_and_secrets_stand_in_order() {
    let text = "auth.secrets = [\"newest-of-them-all\"]\nauth.users = { alice = \"pw\", bob = \"hmac:8493FBC53BA582FB4C044C456BDC40EB\" }";
    let more = [Secret::new("from the file"), Secret::new("newest-of-them-all")];
    let policy = good(text).policy(&host(), Secret::new("nonce"), &more).unwrap();
    assert_eq!(policy.realm, "relay1");
    assert_eq!(policy.auth.users["alice"].md5, Some(Key::md5("alice", "relay1", "pw")));
    assert_eq!(policy.auth.users["bob"].md5.as_ref().unwrap().expose()[..2], [0x84, 0x93]); // RFC 5769's user/realm/pass
    assert_eq!(policy.auth.secrets, [Secret::new("newest-of-them-all"), Secret::new("from the file")]);
}

#[test]
fn a24_names_and_passwords_are_brought_into_the_form_that_clients_sign_with() {
    let text = "realm = \"me\u{0301}tro\"\nauth.users = { \"Ame\u{0301}lie\" = \"pass\u{3000}e\u{0301}\" }";
    let policy = good(text).policy(&host(), Secret::new("nonce"), &[]).unwrap();
    assert_eq!(policy.realm, "métro");
    assert_eq!(policy.auth.users["Amélie"].md5, Some(Key::md5("Amélie", "métro", "pass é")));
    assert_eq!(policy.auth.users["Amélie"].sha256, Some(Key::sha256("Amélie", "métro", "pass é")));
}

#[test]
fn a24_a_name_or_password_that_cannot_be_is_named_by_its_place_and_never_shown() {
    let of = "may not stand in it: control characters, invisible ones and those younger than Unicode 6.3 have no place in names and passwords (RFC 8265 §4.2)";
    for (text, sentence) in [
        ("auth.users = { \"a\\tb\" = \"pw\" }", format!("in the name of the user, character 2 {of}")),
        ("auth.users = { a = \"The\u{00AD}MatrIX\" }", format!("in the password, character 4 {of}")),
        ("realm = \"a\u{200B}b\"", format!("in the realm, character 2 {of}")),
        (
            "auth.users = { \"\u{00E9}\" = \"one\", \"e\u{0301}\" = \"two\" }",
            "the same user is listed twice, in two spellings that are one (RFC 8265 §4.2)".into(),
        ),
    ] {
        let said = complaint(text);
        assert!(said.ends_with(&sentence), "{said}");
        assert!(!said.contains("MatrIX"));
    }
}

#[test]
fn a_sha256_user_has_no_other_key_and_one_is_warned() {
    let key = Key::sha256("alice", "relay1", "pw");
    let hex: String = key.expose().iter().map(|byte| format!("{byte:02X}")).collect();
    let text = format!("auth.users = {{ alice = \"sha256:{hex}\", bob = \"pw\" }}");
    let policy = policy_of(&text).unwrap();
    assert_eq!(policy.auth.users["alice"].md5, None);
    assert_eq!(policy.auth.users["alice"].sha256, Some(key));
    assert_eq!(policy.auth.users["bob"].sha256, Some(Key::sha256("bob", "relay1", "pw")));
    assert_eq!(
        warnings(&text),
        "turnserver.toml:1: auth.users = …: only clients of RFC 8489 can log in as alice, which browsers are not; with the password itself, or \"hmac:\", the others can too"
    );
}

#[test]
fn extensions_are_what_the_file_says() {
    let text = "auth.username_separator = \"-\"\nauth.strict_expiry = true\nauth.mobility = true\nrelay.tcp = false";
    let policy = policy_of(text).unwrap();
    assert_eq!((policy.auth.separator, policy.tcp_relays), ('-', false));
    assert!(policy.auth.strict_expiry && policy.auth.mobility && !policy.draining);
    assert_eq!((policy.auth.oauth, policy.nat_discovery), (None, Vec::new()));
}

#[test]
fn a_128_bit_key_is_the_beginning_of_a_longer_one_as_in_coturn() {
    // base64 of "0123456789abcdef0123456789ABCDEF", and of its first half without the padding
    let (long, short) = ("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlBQkNERUY=", "MDEyMzQ1Njc4OWFiY2RlZg");
    let one = |key: &str, algorithm: &str| {
        format!("{{ kid = \"k-{algorithm}\", key = \"{key}\", algorithm = \"{algorithm}\" }}")
    };
    let oauth = |text: &str| policy_of(text).unwrap().auth.oauth.unwrap();
    let single = oauth(&format!("realm = \"north.gov\"\nauth.oauth = {}", one(long, "A128GCM")));
    assert_eq!(single.server_name, "north.gov");
    assert_eq!(single.keys[0].key, AeadKey::A128Gcm(*b"0123456789abcdef"));
    let both = format!(
        "auth.oauth_server_name = \"turn\"\nauth.oauth = [{}, {}]",
        one(short, "A128GCM"),
        one(long, "A256GCM")
    );
    let both = oauth(&both);
    assert_eq!((both.server_name.as_str(), both.keys.len()), ("turn", 2));
    assert_eq!(both.keys[0].key, single.keys[0].key);
    assert_eq!(
        both.keys[1],
        OAuthKey { kid: "k-A256GCM".into(), key: AeadKey::A256Gcm(*b"0123456789abcdef0123456789ABCDEF") }
    );
    assert!(warnings("auth.oauth_server_name = \"turn\"").contains("without auth.oauth nobody is told"));
}

#[test]
fn nat_discovery_takes_two_addresses_and_adds_the_second_port() {
    let sockets = |texts: [[&str; 2]; 2]| texts.map(|ports| ports.map(|text| text.parse().unwrap()));
    let head = "auth.nat_discovery = true\n";
    let bare =
        format!("{head}listen.udp = [\"0.0.0.0:3478\", \"10.0.0.5:3478\", \"[2001:db8::5]:3478\", \"10.0.0.6:3478\"]");
    let policy = policy_of(&bare).unwrap();
    let wanted = sockets([["10.0.0.5:3478", "10.0.0.5:3479"], ["10.0.0.6:3478", "10.0.0.6:3479"]]);
    assert_eq!(policy.nat_discovery, [policy::Discovery { sockets: wanted, told: wanted }]);
    let config = good(&bare);
    assert_eq!(config.listeners().len(), config.listen.all().len() + 2);
    assert_eq!(config.discovery_listeners(), [wanted[0][1], wanted[1][1]]);
    assert!(config.uris(&policy).iter().all(|uri| !uri.contains("3479")), "clients find the second port by themselves");
    assert!(policy.peers.vet("10.0.0.6:3479".parse().unwrap()).is_none(), "no peer there");

    let own_port = format!(
        "{head}listen.udp = [\"10.0.0.5:3478\", \"10.0.0.6:3478\", \"10.0.0.6:4000\", \"10.0.0.5:4000\"]\nrelay.addresses = [\"10.0.0.5\", \"10.0.0.6\"]\nrelay.external = [\"10.0.0.5=192.0.2.5\", \"10.0.0.6=192.0.2.6\"]"
    );
    assert!(good(&own_port).discovery_listeners().is_empty());
    let discovery = policy_of(&own_port).unwrap().nat_discovery[0];
    assert_eq!(discovery.sockets, sockets([["10.0.0.5:3478", "10.0.0.5:4000"], ["10.0.0.6:3478", "10.0.0.6:4000"]]));
    assert_eq!(discovery.told, sockets([["192.0.2.5:3478", "192.0.2.5:4000"], ["192.0.2.6:3478", "192.0.2.6:4000"]]));

    let merged = format!("{bare}\nrelay.external = [\"192.0.2.5\"]");
    assert!(policy_of(&merged).unwrap_err().contains("clients would be told 192.0.2.5 for both 10.0.0.5 and 10.0.0.6"));
    let no_port_above = format!("{head}listen.udp = [\"10.0.0.5:65535\", \"10.0.0.6:65535\"]");
    assert!(complaint(&no_port_above).contains("no two addresses"));
}

#[test]
fn nobody_is_sent_in_a_circle() {
    let text = "limits.redirect = [\"198.51.100.9:3478\", \"[2001:db8::9]:3478\", \"turn2.example.org\"]";
    let redirect = policy_of(text).unwrap().redirect;
    assert_eq!(redirect.servers.len(), 2);
    assert_eq!(redirect.domain.as_deref(), Some("turn2.example.org"));
    for own in ["10.0.0.6:3478", "127.0.0.1:3478", "[2001:db8::5]:3478"] {
        let said = policy_of(&format!("limits.redirect = [\"{own}\"]")).unwrap_err();
        assert_eq!(
            said,
            format!("limits.redirect = \"{own}\": that is this server itself; name other servers, or nobody")
        );
    }
    let mapped = "relay.external = [\"192.0.2.1\"]\nlimits.redirect = [\"192.0.2.1:3478\"]";
    assert!(policy_of(mapped).unwrap_err().contains("this server itself"));
    assert!(policy_of("limits.redirect = [\"10.0.0.6:3479\"]").is_ok(), "another server may run beside this one");
}

#[test]
fn http_listens_on_addresses_and_socket_files() {
    let config = good("http.listen = [\"unix:/run/turnserver/api.sock\", \"127.0.0.1:3480\"]");
    assert_eq!(config.http.listen.sockets, [std::path::Path::new("/run/turnserver/api.sock")]);
    assert_eq!(config.http.listen.addresses.len(), 1);
    let config = env(&[("TURNSERVER__HTTP__LISTEN", "127.0.0.1:3480,unix:/a/b")]);
    assert_eq!((config.http.listen.addresses.len(), config.http.listen.sockets.len()), (1, 1));
    let shown = config.effective().into_iter().find(|(key, _)| *key == "http.listen").unwrap().1;
    assert_eq!(shown.to_string(), "[\"127.0.0.1:3480\", \"unix:/a/b\"]");
}

#[test]
fn the_defaults_of_the_file_are_the_defaults_of_the_core() {
    let policy = policy_of("").unwrap();
    let core = policy::Policy::default();
    assert_eq!(policy.limits, core.limits);
    assert_eq!(
        (policy.auth.max_ttl, policy.auth.nonce_lifetime, policy.auth.anonymous_stun),
        (core.auth.max_ttl, core.auth.nonce_lifetime, core.auth.anonymous_stun)
    );
    assert_eq!(
        (policy.auth.separator, policy.auth.strict_expiry, policy.auth.mobility, policy.tcp_relays),
        (core.auth.separator, core.auth.strict_expiry, core.auth.mobility, core.tcp_relays)
    );
    assert_eq!((policy.auth.oauth, policy.nat_discovery, policy.redirect), (None, core.nat_discovery, core.redirect));
}

#[test]
fn a_web_server_is_no_listener_of_ours_and_somebody_must_come_to_it() {
    const PAIR: &str = "tls = { cert = \"a.pem\", key = \"a.key\" }\n";
    let said = |value: &str| complaint(&format!("{PAIR}listen.https_fallback = \"{value}\""));
    for (value, why) in [
        ("127.0.0.1:5349", "that is listen.tls: connections would come back"),
        ("https://127.0.0.1:3478", "that is listen.tcp: connections would come back"),
        ("127.0.0.1:3480", "that is http.listen: connections would come back"),
        ("0.0.0.0:8080", "nobody can be reached there; write \"127.0.0.1:8080\""),
        ("https://127.0.0.1:8443/", "a web server has no path here; did you mean \"https://127.0.0.1:8443\"?"),
        ("unix:web.sock", "the path of a socket begins with /"),
        ("localhost:80", "names are not looked up"),
    ] {
        assert!(said(value).contains(why), "{value}: {}", said(value));
    }
    let alone = complaint("listen.https_fallback = \"127.0.0.1:8080\"");
    assert!(alone.contains("nothing speaks TLS here, so no browser could come; set tls.cert, tls.key"), "{alone}");
    let by_detection = format!("{PAIR}listen = {{ tls = [], detect = true, https_fallback = \"unix:/run/web.sock\" }}");
    good(&by_detection);
    let own = policy_of(&format!("{PAIR}listen.https_fallback = \"10.0.0.5:5349\"")).unwrap_err();
    assert!(own.contains("a listener of this server has that port on every address"), "{own}");
    // It is no peer either, wherever it is.
    let text = format!("{PAIR}peers.allow = [\"10.0.0.0/8\"]\nlisten.https_fallback = \"https://10.0.0.9:8443\"");
    let policy = policy_of(&text).unwrap();
    let vet = |peer: &str| policy.peers.vet(peer.parse().unwrap()).is_some();
    assert!(vet("10.0.0.9:8080") && !vet("10.0.0.9:8443"));
    assert!(warnings("listen.https_fallback_proxy = true").contains("there is no web server to tell"));
}

#[test]
fn load_balancers_are_named_or_there_are_none() {
    let said = complaint("listen.proxy_protocol = true");
    let expected = "turnserver.toml:1: listen.proxy_protocol = true: listen.proxy_trusted is empty, so nobody may send the \
                    header; name the load balancers: listen.proxy_trusted = [\"10.0.0.0/24\"]";
    assert_eq!(said, expected);
    let listen = good("listen = { proxy_protocol = true, proxy_trusted = [\"10.0.0.2\", \"2001:db8::/64\"] }").listen;
    assert_eq!(listen.proxy_trusted.len(), 2);
}

#[test]
fn own_services_stay_closed_to_peers() {
    let policy = policy_of("peers.allow = [\"10.0.0.0/8\", \"127.0.0.0/8\"]").unwrap();
    let vet = |peer: &str| policy.peers.vet(peer.parse().unwrap()).is_some();
    assert!(vet("10.0.0.5:8080") && !vet("10.0.0.5:3478") && !vet("127.0.0.1:3480"));
}

#[test]
fn l35_a_relay_port_is_never_one_of_the_first_1024() {
    // The decision: the operator is told, and the server does not start.
    for range in ["0-1023", "1-65535", "443-443", "1023-2000"] {
        let said = complaint(&format!("relay.ports = \"{range}\""));
        assert!(said.contains("ports below 1024 belong to system services (RFC 8656 §7.2)"), "{range}: {said}");
    }
    assert_eq!(good("relay.ports = \"1024-2000\"").relay.ports.range(), 1024..=2000);
    assert_eq!(good("").relay.ports.range(), 49_152..=65_535);
}

#[test]
fn t08_the_usual_ports_are_those_of_the_rfcs() {
    let listen = good("tls = { cert = \"a.pem\", key = \"a.key\" }\nlisten.dtls = [\"0.0.0.0:5349\"]").listen;
    let ports = |listeners: &config::Listeners| listeners.addresses.iter().map(|at| at.port()).collect::<Vec<_>>();
    assert_eq!([ports(&listen.udp), ports(&listen.tcp)], [[3478, 3478], [3478, 3478]]);
    assert_eq!(ports(&listen.tls), [5349, 5349]);
    assert_eq!(ports(&listen.dtls), [5349], "DTLS has to be asked for, by its usual port or another");
}

#[test]
fn t08_a_certificate_brings_the_usual_tls_listeners_unless_others_are_written() {
    let pair = "tls = { cert = \"a.pem\", key = \"a.key\" }\n";
    let listeners = |text: &str| good(text).listen.tls.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(listeners(""), Vec::<String>::new());
    assert_eq!(listeners(pair), ["0.0.0.0:5349", "[::]:5349"]);
    assert_eq!(listeners(&format!("{pair}listen.tls = []")), Vec::<String>::new());
    assert_eq!(listeners(&format!("{pair}listen.tls = [\"0.0.0.0:443\"]")), ["0.0.0.0:443"]);
    let open = good(&format!("{pair}peers.allow = [\"10.0.0.0/8\"]"));
    let policy = open.policy(&host(), Secret::new("n"), &[]).unwrap();
    assert!(policy.peers.vet("10.0.0.5:5349".parse().unwrap()).is_none(), "no peer is behind a listener");
    let variables = [("TURNSERVER__TLS__CERT", "a.pem,b.pem"), ("TURNSERVER__TLS__KEY", "[\"a.key\", \"b.key\"]")];
    let variables = variables.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let loaded = config::load(None, variables).unwrap();
    assert_eq!(loaded.config.tls.cert.0, ["a.pem", "b.pem"].map(std::path::PathBuf::from));
    assert_eq!(loaded.config.tls.key.0.len(), 2);
}

#[test]
fn minted_uris_name_every_listener_once() {
    let uris = |text: &str| {
        let config = good(text);
        config.uris(&config.policy(&host(), Secret::new("n"), &[]).unwrap())
    };
    assert_eq!(
        uris("relay.external = [\"192.0.2.1\"]"),
        [
            "stun:192.0.2.1:3478",
            "stun:[2001:db8::5]:3478",
            "turn:192.0.2.1:3478?transport=udp",
            "turn:[2001:db8::5]:3478?transport=udp",
            "turn:192.0.2.1:3478?transport=tcp",
            "turn:[2001:db8::5]:3478?transport=tcp",
        ]
    );
    assert_eq!(
        uris("http.name = \"turn.example.org\"\nlisten.tcp = []"),
        ["stun:turn.example.org:3478", "turn:turn.example.org:3478?transport=udp"]
    );
    assert_eq!(
        uris("http.name = \"turn.example.org\"\ntls = { cert = \"a.pem\", key = \"a.key\" }"),
        [
            "stun:turn.example.org:3478",
            "turn:turn.example.org:3478?transport=udp",
            "turn:turn.example.org:3478?transport=tcp",
            "turns:turn.example.org:5349?transport=tcp",
        ]
    );
    assert_eq!(uris("http.uris = [\"turn:a.example:443?transport=tcp\"]"), ["turn:a.example:443?transport=tcp"]);
    assert_eq!(uris("listen = { udp = [\"10.0.0.6:3478\"], tcp = [] }")[0], "stun:10.0.0.6:3478");
    let v4_only = "relay.addresses = [\"10.0.0.5\"]\nlisten.tcp = []";
    assert_eq!(uris(v4_only), ["stun:10.0.0.5:3478", "turn:10.0.0.5:3478?transport=udp"]);
}

#[test]
fn the_example_is_true() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/turnserver.toml.example");
    let text = config::example();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(committed, text, "turnserver.toml.example is out of date: run UPDATE=1 cargo test --test config");

    assert_eq!(good(&text), good(""), "as it stands the example changes nothing");
    let is_key = |line: &&str| {
        line.starts_with('[')
            || line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    let active: Vec<&str> = text.lines().filter(is_key).map(|line| line.trim_start_matches('#')).collect();
    let active = load(&active.join("\n")).unwrap();
    let keys = config::SECTIONS.iter().map(|section| section.keys.len()).sum::<usize>();
    assert_eq!(active.origins.len(), keys, "every key is in the example");
    let mut spelled_out = active.config;
    let (listen, http) = (&mut spelled_out.listen, &mut spelled_out.http.listen);
    let (udp, tcp) = (&mut listen.udp.is_default, &mut listen.tcp.is_default);
    let (tls, dtls) = (&mut listen.tls.is_default, &mut listen.dtls.is_default);
    for is_default in [udp, tcp, tls, dtls, &mut http.is_default] {
        assert!(!core::mem::replace(is_default, true), "somebody wrote it");
    }
    assert_eq!(spelled_out, good(""), "the defaults shown are the defaults in force");
}
