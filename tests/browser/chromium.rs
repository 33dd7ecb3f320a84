//! Headless Chromium behind chromedriver.
//!
//! Owns the driver process, its one session and a fresh profile, and ends all three, on a panic too.
//! Holds the turn of the only browser that runs. Waiting is polling with a deadline, never a guess.

use crate::server::exchange;
use crate::temp::TempDir;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

static TURN: Mutex<()> = Mutex::const_new(());

const WINDOW: (u32, u32) = (1280, 900); // what the page shows, without the browser's own rows
const POLL: Duration = Duration::from_millis(100);

pub(crate) struct Browser {
    client: Client,
    session: String,
    driver: Driver,
    _profile: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// `None`, and a counted skip, where Chromium or its driver is not installed.
    pub(crate) async fn start() -> Option<Self> {
        Self::believing(None).await
    }

    /// A browser that believes one more authority, whose certificate is in this file.
    pub(crate) async fn believing(authority: Option<&Path>) -> Option<Self> {
        if !(installed("chromedriver") && installed("chromium")) {
            skip("chromium-driver is not installed");
            return None;
        }
        let turn = TURN.lock().await;
        let profile = TempDir::new("chromium");
        if let Some(authority) = authority {
            if !installed("certutil") {
                skip("libnss3-tools is not installed");
                return None;
            }
            believe(profile.path(), authority);
        }
        let driver = Driver::start(profile.path());
        let capabilities = json!({
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments(profile.path()) },
        });
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.as_object().expect("an object was written above").clone())
            .connect(&format!("http://{}", driver.address))
            .await
            .expect("chromium starts");
        let session = client.session_id().await.expect("chromedriver answers").expect("a session has an id");
        // The session ends in `drop`, which also runs when a test panics and no runtime is left.
        client.persist().await.expect("the session is kept");
        let browser = Self { client, session, driver, _profile: profile, _turn: turn };
        browser.fit_window().await;
        Some(browser)
    }

    async fn fit_window(&self) {
        let (width, height) = WINDOW;
        let inner = self.evaluate("return [outerWidth - innerWidth, outerHeight - innerHeight]").await;
        let extra = |side: usize| u32::try_from(inner[side].as_u64().unwrap_or(0)).unwrap_or(0);
        self.client.set_window_size(width + extra(0), height + extra(1)).await.expect("the window is resized");
    }

    pub(crate) async fn open(&self, url: &str) {
        self.client.goto(url).await.expect("the page opens");
    }

    pub(crate) async fn address(&self) -> String {
        self.client.current_url().await.expect("the page has an address").to_string()
    }

    pub(crate) async fn click(&self, selector: &str) {
        let element = self.client.find(Locator::Css(selector)).await.expect("the element exists");
        element.click().await.expect("the element can be clicked");
    }

    pub(crate) async fn evaluate(&self, script: &str) -> Value {
        self.run(script, vec![]).await
    }

    pub(crate) async fn run(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.client.execute(script, arguments).await.expect("the script runs")
    }

    /// What the page says, for the message of a failed test.
    pub(crate) async fn text(&self) -> String {
        self.evaluate("return document.body.innerText").await.as_str().unwrap_or_default().to_owned()
    }

    /// Asks until the script returns something true, and returns that.
    pub(crate) async fn until(&self, what: &str, seconds: u64, script: &str) -> Value {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let value = self.evaluate(script).await;
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return value;
            }
            if Instant::now() >= deadline {
                panic!("not within {seconds} s: {what}; the page says:\n{}", self.text().await);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(crate) async fn screenshot(&self, path: &Path) {
        let png = self.client.screenshot().await.expect("a screenshot");
        std::fs::write(path, png).expect("the screenshot is written");
    }

    /// Ends the session in good order; `drop` does the rest.
    pub(crate) async fn close(self) {
        self.client.clone().close().await.expect("the session ends");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Killing the driver alone would leave Chromium behind. A session that is ended already is no matter.
        let _ = exchange(self.driver.address, "DELETE", &format!("/session/{}", self.session), "", "");
    }
}

struct Driver {
    process: Child,
    address: SocketAddr,
    // Kept open: the driver must not meet a closed pipe.
    _output: BufReader<ChildStdout>,
}

impl Driver {
    /// Chromium looks for the authorities of its user under `home`, so a home of its own keeps out those of the host.
    fn start(home: &Path) -> Self {
        let mut process = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let mut output = BufReader::new(process.stdout.take().expect("stdout is piped above"));
        let port = started_on(&mut output);
        Self { process, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), _output: output }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads up to "ChromeDriver was started successfully on port 40123."
fn started_on(output: &mut impl BufRead) -> u16 {
    let mut line = String::new();
    while output.read_line(&mut line).expect("chromedriver says something") > 0 {
        if let Some((_, port)) = line.split_once("successfully on port ") {
            return port.trim().trim_end_matches('.').parse().expect("a port number");
        }
        line.clear();
    }
    panic!("chromedriver ended before it listened");
}

/// Puts an authority into the certificate store of the user whose home this is.
fn believe(home: &Path, authority: &Path) {
    let store = home.join(".pki/nssdb");
    std::fs::create_dir_all(&store).expect("a folder is made");
    let store = format!("sql:{}", store.display());
    let certutil = |arguments: &[&str]| {
        let mut command = Command::new("certutil");
        command.args(["-d", &store]).args(arguments).stdin(Stdio::null());
        let output = command.output().expect("an installed program runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    certutil(&["-N", "--empty-password"]);
    // "C": it vouches for servers.
    let authority = authority.to_str().expect("a path of the tests is text");
    certutil(&["-A", "-n", "an authority for one test", "-t", "C,,", "-i", authority]);
}

fn arguments(profile: &Path) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--headless",
        "--no-sandbox", // Chromium refuses to run as root with it, and CI containers are root
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--allow-loopback-in-peer-connection",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
    ]
    .map(str::to_owned)
    .into();
    arguments.push(format!("--user-data-dir={}", profile.display()));
    arguments
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}, and CI skips nothing");
    // Not `eprintln`: the test harness swallows what passing tests say.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
    let Some(path) = std::env::var_os("TURNSERVER_SKIPS") else { return };
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("the list of skips opens");
    writeln!(file, "browser: {why}").expect("the skip is counted");
}
