//! The program as a shell sees it: exit codes, what goes to which stream, what is kept in which file.
#![expect(clippy::unwrap_used, reason = "a story that cannot go on ends there")]

#[path = "support/pair.rs"]
mod pair;
#[path = "support/temp.rs"]
mod temp;

use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};
use temp::TempDir;

/// A directory of its own for each story.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(TempDir::new("cli"))
    }

    fn with(config: &str) -> Self {
        let home = Self::new();
        std::fs::write(home.0.path().join("turnserver.toml"), config).unwrap();
        home
    }

    fn config(&self) -> String {
        self.0.path().join("turnserver.toml").display().to_string()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnserver"));
        command.env_clear().env("STATE_DIRECTORY", self.0.path().join("state")).args(args);
        if self.0.path().join("turnserver.toml").exists() {
            command.env("TURNSERVER_CONFIG", self.config());
        }
        command
    }

    fn runs(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    fn keeps(&self, name: &str, text: &str, mode: u32) -> String {
        let folder = self.0.path().join("state");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

const SECRET: &str = "auth.secrets = [\"0123456789abcdef\"]\n";

#[test]
fn a_wrong_line_is_exit_code_two_and_a_right_one_zero() {
    let home = Home::new();
    assert_eq!(code(&home.runs(&["--nonsense"])), 2);
    assert_eq!(code(&home.runs(&["dance"])), 2);
    let version = home.runs(&["--version"]);
    assert_eq!((code(&version), out(&version)), (0, format!("turnserver {}\n", env!("CARGO_PKG_VERSION"))));
    assert_eq!(code(&home.runs(&["--help"])), 0);
}

#[test]
fn check_names_every_mistake_and_counts_them() {
    let home = Home::with("relay.ports = \"65000-60000\"\nprots = 1\n");
    let output = home.runs(&["check"]);
    let config = home.config();
    assert_eq!(code(&output), 2);
    assert_eq!(out(&output), "");
    assert_eq!(
        err(&output),
        format!(
            "{config}:1: relay.ports = \"65000-60000\": the range is empty; did you mean \"60000-65000\"?\n{config}:2: prots: unknown key; did you mean relay.ports?\n2 mistakes\n"
        )
    );
    let json: Value = serde_json::from_str(&out(&home.runs(&["check", "--json"]))).unwrap();
    assert_eq!((&json["ok"], json["mistakes"].as_array().unwrap().len()), (&Value::Bool(false), 2));
    for line in [&[][..], &["serve"], &["credential"]] {
        assert_eq!(code(&home.runs(line)), 2, "{line:?}");
    }
}

#[test]
fn check_shows_the_settings_in_force_as_toml_that_can_be_read_again() {
    let home = Home::with(&format!("{SECRET}relay.ports = \"50000-50999\"\npeers.deny = []\n"));
    let output = home.command(&["check"]).env("TURNSERVER__LOG__LEVEL", "debug").output().unwrap();
    let text = out(&output);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(text.contains(&format!("ports = \"50000-50999\"  # {}:2\n", home.config())), "{text}");
    assert!(text.contains("level = \"debug\"  # TURNSERVER__LOG__LEVEL\n"), "{text}");
    assert!(text.contains("secrets = [\"…\"]") && !text.contains("0123456789abcdef"), "{text}");
    assert!(err(&output).starts_with("warning: ") && err(&output).contains("special-purpose"), "{}", err(&output));
    std::fs::write(home.0.path().join("turnserver.toml"), &text).unwrap();
    assert_eq!(code(&home.runs(&["check"])), 0);

    let json: Value = serde_json::from_str(&out(&home.runs(&["check", "--json"]))).unwrap();
    assert_eq!((&json["ok"], &json["settings"]["log"]["level"]), (&Value::Bool(true), &"debug".into()));
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake_and_no_reason_to_run_without() {
    let home = Home::new();
    let absent = home.runs(&["check", "--config", "/nowhere/turnserver.toml"]);
    assert_eq!(code(&absent), 2);
    assert!(err(&absent).starts_with("/nowhere/turnserver.toml: cannot be read: No such file"), "{}", err(&absent));
    let home = Home::with("auth.secret_file = \"/nowhere/secrets\"\n");
    let absent = home.runs(&["check"]);
    assert_eq!(code(&absent), 2);
    assert!(
        err(&absent).contains(":1: auth.secret_file = \"/nowhere/secrets\": cannot be read: No such file"),
        "{}",
        err(&absent)
    );
}

#[test]
fn a_pair_that_cannot_be_served_is_a_mistake_that_names_its_file() {
    let authority = pair::Authority::new();
    let (one, two) = (authority.pair("one", &["a.example"]), authority.pair("two", &["b.example"]));
    let text = |path: &std::path::Path| format!("{:?}", path.display().to_string());
    let (cert, key, other) = (text(&one.cert), text(&one.key), text(&two.key));
    let listen = "listen.tls = [\"127.0.0.1:0\"]\n";
    for (cert, key, sentence) in [
        ("\"/nowhere/x.pem\"", &*key, ":3: tls.cert = \"/nowhere/x.pem\": cannot be read: No such file".to_owned()),
        (&*key, &*key, format!(":3: tls.cert = {key}: holds no certificate; it must be PEM")),
        (&*cert, &*cert, format!(":4: tls.key = {cert}: holds no private key; it must be PEM")),
        (&*cert, &*other, format!(":4: tls.key = {other}: does not belong to the certificate in {cert}; ")),
    ] {
        let home = Home::with(&format!("{SECRET}{listen}tls.cert = {cert}\ntls.key = {key}\n"));
        let output = home.runs(&["check"]);
        assert_eq!((code(&output), out(&output)), (2, String::new()));
        assert!(err(&output).contains(&sentence), "{sentence}\n{}", err(&output));
        let output = home.runs(&["serve"]);
        assert_eq!(code(&output), 2, "{}", err(&output));
        assert!(err(&output).contains(&sentence), "{sentence}\n{}", err(&output));
        // A backend that mints beside the server needs no certificate.
        assert_eq!(code(&home.runs(&["credential"])), 0);
    }
}

#[test]
fn check_warns_of_a_certificate_that_has_ended() {
    let authority = pair::Authority::new();
    let files = authority.pair("one", &["a.example"]);
    let home = Home::with(&format!("{SECRET}[tls]\n{}", files.lines()));
    let output = home.runs(&["check"]);
    assert_eq!((code(&output), err(&output)), (0, String::new()));
    assert!(out(&output).contains("5349?transport=tcp"), "{}", out(&output));
    let (cert, key) = authority.vouch(&["a.example"], 2020);
    files.write(&cert, &key);
    let output = home.runs(&["check"]);
    assert_eq!(code(&output), 0);
    let ended = "the certificate has ended at 2020-12-31T00:00:00Z, and clients refuse it; renew it";
    assert!(err(&output).contains(ended), "{}", err(&output));
}

#[test]
fn addresses_that_this_host_lacks_are_warnings() {
    let home = Home::with("relay.addresses = [\"192.0.2.77\"]\n");
    let output = home.runs(&["check"]);
    assert_eq!(code(&output), 0);
    assert!(err(&output).contains("relay.addresses: this host has no address 192.0.2.77"), "{}", err(&output));
}

#[test]
fn a_credential_is_minted_offline_in_each_form() {
    let home = Home::with(&format!(
        "{SECRET}http.uris = [\"stun:t.example\", \"turn:t.example?transport=udp\"]\nauth.max_ttl = \"2h\"\n"
    ));
    let piped = home.runs(&["credential", "--user", "alice"]);
    let json: Value = serde_json::from_str(&out(&piped)).unwrap();
    assert_eq!((code(&piped), &json["ttl"]), (0, &3600.into()));
    assert!(json["username"].as_str().unwrap().ends_with(":alice"));
    assert_eq!(json["iceServers"][1]["urls"][0], "turn:t.example?transport=udp");
    let clamped = home.runs(&["credential", "--ttl", "3h", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out(&clamped)).unwrap()["ttl"], 7200);
    assert_eq!(err(&clamped), "the ttl is 2h: auth.max_ttl allows no more\n");
    let env = out(&home.runs(&["credential", "--format", "env"]));
    let names: Vec<&str> = env.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert_eq!(names, ["TURN_USERNAME", "TURN_PASSWORD", "TURN_URIS"]);
    let uri = out(&home.runs(&["credential", "--format", "uri", "--user", "a b"]));
    assert!(
        uri.starts_with("turn://") && uri.contains("%3Aa%20b:") && uri.ends_with("@t.example?transport=udp\n"),
        "{uri}"
    );
    assert_eq!(code(&home.runs(&["credential", "--ttl", "90"])), 2);
    assert_eq!(code(&home.runs(&["credential", "--user", "a\nb"])), 2);
}

#[test]
fn the_configured_separator_stands_in_minted_names() {
    let home = Home::with(&format!("{SECRET}auth.username_separator = \"|\"\nhttp.uris = [\"turn:t.example\"]\n"));
    let json: Value = serde_json::from_str(&out(&home.runs(&["credential", "--user", "al:ice"]))).unwrap();
    let (expiry, user) = json["username"].as_str().unwrap().split_once('|').unwrap();
    assert!(expiry.bytes().all(|byte| byte.is_ascii_digit()) && user == "al:ice", "{json}");
}

#[test]
fn check_shows_the_extensions_and_none_of_their_keys() {
    let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlBQkNERUY=";
    let home = Home::with(&format!(
        "{SECRET}auth.oauth = {{ kid = \"north\", key = \"{key}\", algorithm = \"A256GCM\" }}\nlimits.redirect = [\"192.0.2.9:3478\", \"b.example\"]\nhttp.listen = [\"unix:/run/turnserver/api.sock\"]\n"
    ));
    let output = home.command(&["check"]).env("TURNSERVER__AUTH__STRICT_EXPIRY", "true").output().unwrap();
    let text = out(&output);
    assert_eq!(code(&output), 0, "{}", err(&output));
    for line in [
        "tcp = true\n",
        "freebind = false\n",
        "strict_expiry = true  # TURNSERVER__AUTH__STRICT_EXPIRY\n",
        "mobility = false\n",
        "nat_discovery = false\n",
        "username_separator = \":\"\n",
        "redirect = [\"192.0.2.9:3478\", \"b.example\"]  # ",
        "listen = [\"unix:/run/turnserver/api.sock\"]  # ",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(text.contains("north") && text.contains("A256GCM") && !text.contains(&key[..12]), "{text}");
    let json = out(&home.runs(&["check", "--json"]));
    assert!(json.contains("north") && !json.contains(&key[..12]), "{json}");
}

#[test]
fn addresses_that_come_later_are_no_warnings_with_freebind() {
    let home = Home::with(&format!("{SECRET}relay.addresses = [\"192.0.2.77\"]\nlisten.freebind = true\n"));
    let output = home.runs(&["check"]);
    assert_eq!((code(&output), err(&output)), (0, String::new()));
}

#[test]
fn a_drain_without_server_or_key_is_told_before_anything_is_made() {
    let home = Home::with(&format!("{SECRET}http.listen = []\n"));
    let output = home.runs(&["drain"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("http.listen names no port and no socket"), "{}", err(&output));
    let home = Home::with(SECRET);
    let output = home.runs(&["drain"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("no key is configured, and none is kept in"), "{}", err(&output));
    assert!(!home.0.path().join("state").exists(), "no key is made up");
}

#[test]
fn a_status_without_server_or_key_is_told_what_to_mend() {
    let home = Home::with(&format!("{SECRET}http.listen = []\n"));
    let output = home.runs(&["status"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("http.listen names no port and no socket"), "{}", err(&output));
    let home = Home::with(SECRET);
    let output = home.runs(&["status", "--json"]);
    assert_eq!((code(&output), out(&output)), (2, String::new()));
    assert!(err(&output).contains("no key is configured, and none is kept in"), "{}", err(&output));
    let keys = "http.keys = [{ id = \"m\", secret = \"0123456789abcdef\", scopes = [\"mint\"] }]\n";
    let home = Home::with(&format!("{SECRET}{keys}"));
    let output = home.runs(&["status"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("no key of http.keys has the scope \"read\": add one"), "{}", err(&output));
}

#[test]
fn without_a_configured_secret_the_kept_one_mints_and_none_is_made_up() {
    let home = Home::new();
    let none = home.runs(&["credential"]);
    assert_eq!(code(&none), 2);
    assert!(err(&none).contains("no secret is configured, and none is kept in"), "{}", err(&none));
    home.keeps("secret", "0123456789abcdef\n", 0o600);
    assert_eq!(code(&home.runs(&["credential"])), 0);
}

#[test]
fn a_kept_secret_that_others_can_read_is_refused() {
    let home = Home::new();
    let path = home.keeps("secret", "0123456789abcdef\n", 0o644);
    let refused = home.runs(&["credential"]);
    assert_eq!(code(&refused), 2);
    assert_eq!(
        err(&refused),
        format!("error: {path}: others can use this secret (mode 0644); run: chmod 600 '{path}'\n")
    );
    assert_eq!(code(&home.runs(&["serve"])), 2);
}

#[test]
fn a_first_start_keeps_a_secret_and_a_key_that_nobody_else_can_read() {
    let home = Home::new();
    // A port that is taken ends the start before anybody is served, and after everything was made.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let http = taken.local_addr().unwrap().to_string();
    let start = || home.command(&[]).env("TURNSERVER__HTTP__LISTEN", &http).output().unwrap();
    let read = |name: &str| std::fs::read_to_string(home.0.path().join("state").join(name)).unwrap();
    assert_eq!(code(&start()), 1);
    let kept = (read("secret"), read("api-key"));
    let output = start();
    assert_eq!((read("secret"), read("api-key")), kept, "the second start takes what the first one made");
    for name in ["secret", "api-key"] {
        let mode = std::fs::metadata(home.0.path().join("state").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
        let shown = out(&output) + &err(&output);
        assert!(!shown.contains(read(name).trim()), "{name} is not shown to a pipe");
    }
}

#[test]
fn users_with_fixed_passwords_alone_cannot_be_minted_for() {
    let home = Home::with("auth.users = { alice = \"pw\" }\n");
    let output = home.runs(&["credential"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("configure auth.secrets"), "{}", err(&output));
}

#[test]
fn a_reader_that_leaves_early_is_no_panic() {
    let home = Home::with(SECRET);
    let mut child = home.command(&["check"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), err(&output)), (0, String::new()));
}
