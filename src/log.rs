//! The log: one record, one line on standard error, in the form that `log.format` asks for.
//!
//! Text from the network is escaped in every form, so that no record can forge a second line or steer a terminal.
//! Lines go through a bounded queue to a thread of their own: whoever logs never waits for whoever reads, and a reader
//! that is gone or asleep costs lines, never the server. That thread gives way to those that relay. Spans are not shown; every record carries its own fields.
//! Of what goes wrong, ten lines a second of one kind are written and the others counted: a flood of packets is no flood
//! of lines. What happened to an allocation (level `info`) is a record, of which none is left out.
#![forbid(unsafe_code)]

use crate::config::{Level, Log, LogFormat};
use crate::time::{Duration, seconds};
use core::fmt::{self, Write as _};
use serde_json::Value;
use std::io::{self, IsTerminal as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;

/// Starts the log for the whole process. What is still queued is written when the guard is dropped.
pub fn start(settings: &Log) -> Guard {
    let is_terminal = io::stderr().is_terminal();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let form = match settings.format {
        LogFormat::Json => Form::Json,
        LogFormat::Logfmt => Form::Logfmt,
        LogFormat::Auto if !is_terminal => Form::Json,
        LogFormat::Auto | LogFormat::Human => Form::Human { colors: is_terminal && !no_color },
    };
    let queue = Queue::to(io::stderr(), form);
    let layer = tracing_subscriber::fmt::layer()
        .event_format(Lines { form, crowds: Arc::clone(&queue.crowds) })
        .log_internal_errors(false) // it would tell standard error that standard error is broken, and panic
        .with_writer(queue.clone());
    let registry = tracing_subscriber::registry().with(filter(settings.level)).with(layer);
    // A log that is already there, as in tests, stays.
    let _already = tracing::subscriber::set_global_default(registry);
    Guard { queue }
}

/// Keeps the log until it is dropped.
#[derive(Debug)]
pub struct Guard {
    queue: Queue,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (done, written) = sync_channel(1);
        if self.queue.lines.try_send(Entry::Flush(done)).is_ok() {
            let _late = written.recv_timeout(FAREWELL);
        }
    }
}

const FAREWELL: Duration = seconds(1); // for a reader that still reads; another has lost interest
const QUEUE_MAX: usize = 8192; // lines: a crowd of allocations that end together
const PAGE: usize = 64 << 10; // bytes written at once, and the longest line more
const ALIKE_MAX: u32 = 10; // lines of one kind in a second: enough to see what it is, too few to fill a disk
const SECOND: Duration = seconds(1);

fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

/// Where lines wait to be written.
#[derive(Clone, Debug)]
struct Queue {
    lines: SyncSender<Entry>,
    lost: Arc<AtomicU64>,
    crowds: Arc<Crowds>,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

impl Queue {
    fn to(sink: impl io::Write + Send + 'static, form: Form) -> Self {
        let (lines, waiting) = sync_channel(QUEUE_MAX);
        let queue = Self { lines, lost: Arc::default(), crowds: Arc::default() };
        let (lost, crowds) = (Arc::clone(&queue.lost), Arc::clone(&queue.crowds));
        let writer = std::thread::Builder::new().name("log".into());
        // Without its thread the log is silent: `try_send` then counts lines as lost.
        let _silent = writer.spawn(move || write_all(sink, form, &waiting, &lost, &crowds));
        queue
    }
}

fn write_all(mut sink: impl io::Write, form: Form, waiting: &Receiver<Entry>, lost: &AtomicU64, crowds: &Crowds) {
    crate::net::give_way();
    let (mut is_quiet, mut page) = (true, Vec::new());
    loop {
        // What is left out comes within a second of a line of its kind, so one look a second after the last line finds
        // it all, and a log in which nothing happens wakes nobody.
        let mut next = match is_quiet {
            true => waiting.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => waiting.recv_timeout(SECOND),
        };
        is_quiet = next.is_err();
        // Whatever waits is written at once: a line costs far less than a write.
        while let Ok(Entry::Line(line)) = next {
            page.extend_from_slice(&line);
            if page.len() >= PAGE {
                next = Err(RecvTimeoutError::Timeout);
                break;
            }
            next = waiting.try_recv().map_err(|error| match error {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            });
        }
        let is_last = matches!(next, Ok(Entry::Flush(_)) | Err(RecvTimeoutError::Disconnected));
        for (event, count) in crowds.take(now(), is_last) {
            let message = "more like this were left out";
            let fields = vec![("message", message.into()), ("event", event.into()), ("left_out", count.into())];
            page.extend_from_slice(said(form, fields).as_bytes());
        }
        let lost = lost.swap(0, Relaxed);
        if lost > 0 {
            let fields = vec![("message", "lines of the log were lost".into()), ("lines", lost.into())];
            page.extend_from_slice(said(form, fields).as_bytes());
        }
        // A page that cannot be written has nowhere else to go.
        let _gone = sink.write_all(&page);
        page.clear();
        match next {
            Ok(Entry::Flush(done)) => {
                let _nobody_waits = done.try_send(());
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Ok(Entry::Line(_)) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// A line in which the log warns about itself.
fn said(form: Form, fields: Vec<(&'static str, Value)>) -> String {
    form.line(&time(), tracing::Level::WARN, module_path!(), fields) + "\n"
}

/// What is said too often to be said each time. A kind is a place in the source that logs, so there are no more of them
/// than the program has, whatever the network does.
#[derive(Debug, Default)]
struct Crowds(Mutex<Vec<Crowd>>);

/// The events of one kind.
#[derive(Debug)]
struct Crowd {
    kind: Identifier,
    /// When its first line of this second was written.
    began: Instant,
    lines: u32,
    /// In this second.
    left_out: u64,
    /// In the seconds before it, and not told yet.
    due: u64,
    /// What it says; known once one is left out.
    event: Option<String>,
}

impl Crowds {
    /// Whether one more event of this kind becomes a line. `event` is asked for what it says when it does not.
    fn admit(&self, kind: Identifier, now: Instant, event: impl FnOnce() -> String) -> bool {
        let mut crowds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(crowd) = crowds.iter_mut().find(|crowd| crowd.kind == kind) else {
            crowds.push(Crowd { kind, began: now, lines: 1, left_out: 0, due: 0, event: None });
            return true;
        };
        if crowd.is_over(now) {
            crowd.close();
            (crowd.began, crowd.lines) = (now, 0);
        }
        if crowd.lines < ALIKE_MAX {
            crowd.lines += 1;
            return true;
        }
        crowd.left_out += 1;
        crowd.event.get_or_insert_with(event);
        false
    }

    /// What was left out in the seconds that are over, or in all of them: what it says, and how often.
    fn take(&self, now: Instant, is_last: bool) -> Vec<(String, u64)> {
        let mut crowds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = |crowd: &mut Crowd| {
            if is_last || crowd.is_over(now) {
                crowd.close();
            }
            let count = core::mem::take(&mut crowd.due);
            (count > 0).then(|| (crowd.event.clone().unwrap_or_default(), count))
        };
        crowds.iter_mut().filter_map(due).collect()
    }
}

impl Crowd {
    fn is_over(&self, now: Instant) -> bool {
        now >= self.began + SECOND
    }

    fn close(&mut self) {
        self.due += core::mem::take(&mut self.left_out);
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { queue: self, bytes: Vec::new() }
    }
}

/// One record on its way into the queue.
struct Line<'a> {
    queue: &'a Queue,
    bytes: Vec<u8>,
}

impl io::Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let line = core::mem::take(&mut self.bytes);
        if !line.is_empty() && self.queue.lines.try_send(Entry::Line(line)).is_err() {
            self.queue.lost.fetch_add(1, Relaxed);
        }
    }
}

/// What a line looks like.
#[derive(Clone, Copy, Debug)]
enum Form {
    Human { colors: bool },
    Json,
    Logfmt,
}

/// Which events become lines, and how those look.
#[derive(Debug)]
struct Lines {
    form: Form,
    crowds: Arc<Crowds>,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let is_record = level == tracing::Level::INFO;
        let said = || Fields::of(event).message();
        if !is_record && !self.crowds.admit(event.metadata().callsite(), now(), said) {
            return Ok(()); // an empty line, which is not written
        }
        writeln!(to, "{}", self.form.line(&time(), level, target, Fields::of(event).0))
    }
}

/// When an event comes, for the count of its kind.
#[expect(clippy::disallowed_methods, reason = "whoever logs gives no time; the log is a shell, and reads the clock")]
fn now() -> Instant {
    Instant::now()
}

fn time() -> String {
    let mut time = String::new();
    // A clock that cannot be written leaves the time empty; the record counts more.
    let _timeless = SystemTime.format_time(&mut Writer::new(&mut time));
    time
}

impl Form {
    fn line(self, time: &str, level: tracing::Level, target: &str, mut fields: Vec<(&'static str, Value)>) -> String {
        if let Self::Json = self {
            let head = [("timestamp", time), ("level", level.as_str()), ("target", target)];
            let head = head.map(|(name, value)| (name, value.into()));
            let pairs = head.into_iter().chain(fields).map(|(name, value)| format!("\"{name}\":{value}"));
            return without_controls(&format!("{{{}}}", pairs.collect::<Vec<_>>().join(",")));
        }
        let message = fields.iter().position(|(name, _)| *name == "message").map(|at| fields.remove(at).1);
        let message = message.unwrap_or_default();
        let message = message.as_str().unwrap_or_default();
        let mut line = match self {
            Self::Human { colors: true } => {
                format!("\x1b[2m{time}\x1b[0m {}{level:>5}\x1b[0m {}", color(level), message.escape_debug())
            }
            Self::Human { colors: false } | Self::Json => format!("{time} {level:>5} {}", message.escape_debug()),
            Self::Logfmt => format!("time={time} level={level} target={target} message={message:?}"),
        };
        for (name, value) in fields {
            let value = value.as_str().map_or_else(|| value.to_string(), quoted_if_needed);
            line += &format!(" {name}={value}");
        }
        line
    }
}

fn color(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::ERROR => "\x1b[31m",
        tracing::Level::WARN => "\x1b[33m",
        tracing::Level::INFO => "\x1b[32m",
        _ => "\x1b[2m",
    }
}

fn quoted_if_needed(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_.:/[]+@%,;".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) { text.into() } else { format!("{text:?}") }
}

/// JSON escapes the old control characters; this adds DEL and C1, which some terminals obey, and bidirectional marks.
fn without_controls(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_control() || ('\u{200e}'..='\u{2069}').contains(&c) && !('\u{2010}'..='\u{2027}').contains(&c) {
            let _infallible = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// The fields of one record.
struct Fields(Vec<(&'static str, Value)>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

impl Fields {
    fn of(event: &Event<'_>) -> Self {
        let mut fields = Self(Vec::new());
        event.record(&mut fields);
        fields
    }

    fn message(self) -> String {
        let message = self.0.into_iter().find(|(name, _)| *name == "message");
        message.and_then(|(_, value)| value.as_str().map(str::to_owned)).unwrap_or_default()
    }

    fn put(&mut self, field: &Field, value: Value) {
        self.0.push((field.name(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::sync::Mutex;

    const ALL: [Form; 4] = [Form::Human { colors: false }, Form::Human { colors: true }, Form::Json, Form::Logfmt];

    fn line(form: Form, user: &str) -> String {
        let fields = vec![("message", "allocation began".into()), ("user", user.into()), ("relay_port", 50_000.into())];
        form.line("2033-05-18T03:33:20Z", tracing::Level::INFO, "turnserver", fields)
    }

    #[test]
    fn every_form_has_message_and_fields() {
        let plain = "2033-05-18T03:33:20Z  INFO allocation began user=alice relay_port=50000";
        assert_eq!(line(Form::Human { colors: false }, "alice"), plain);
        let json: Value = serde_json::from_str(&line(Form::Json, "alice")).unwrap();
        assert_eq!(
            (&json["message"], &json["user"], &json["relay_port"]),
            (&"allocation began".into(), &"alice".into(), &50_000.into())
        );
        assert!(
            line(Form::Logfmt, "alice b").ends_with("message=\"allocation began\" user=\"alice b\" relay_port=50000")
        );
    }

    #[test]
    fn a_user_name_can_neither_begin_a_line_nor_color_it() {
        for form in ALL {
            let innocent = line(form, "x").chars().filter(|c| c.is_control()).count();
            for name in
                ["x\nlevel=ERROR", "x\r\n", "\x1b[2J", "\u{9b}2J", "\u{7f}", "\u{85}", "x\" user=\"root", "\u{202e}x"]
            {
                let line = line(form, name);
                assert_eq!(line.chars().filter(|c| c.is_control()).count(), innocent, "{line:?}");
                assert!(!line.contains(['\n', '\u{202e}']) && !line.contains(" user=\"root"), "{line:?}");
            }
        }
    }

    #[test]
    fn json_stays_json_whatever_the_network_says() {
        let name = "\u{9b}\u{7f}\u{202e}\"\\\n";
        let json: Value = serde_json::from_str(&line(Form::Json, name)).unwrap();
        assert_eq!(json["user"], name);
    }

    #[test]
    fn a_reader_that_is_gone_costs_lines_and_nothing_else() {
        struct Gone(Arc<Mutex<usize>>);
        impl io::Write for Gone {
            fn write(&mut self, page: &[u8]) -> io::Result<usize> {
                *self.0.lock().unwrap() += page.split_inclusive(|byte| *byte == b'\n').count();
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let tried = Arc::new(Mutex::new(0));
        let queue = Queue::to(Gone(Arc::clone(&tried)), Form::Json);
        for _ in 0..10 {
            queue.make_writer().write_all(b"line\n").unwrap();
        }
        drop(Guard { queue });
        assert_eq!(*tried.lock().unwrap(), 10);
    }

    #[test]
    fn a_reader_that_sleeps_delays_nobody() {
        let (lines, asleep) = sync_channel(QUEUE_MAX);
        let queue = Queue { lines, lost: Arc::default(), crowds: Arc::default() };
        for _ in 0..QUEUE_MAX + 5 {
            queue.make_writer().write_all(b"line\n").unwrap();
        }
        assert_eq!(queue.lost.load(Relaxed), 5);
        drop(asleep);
    }

    /// Everything that is written, for whoever looks later.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Page {
        fn lines(&self) -> Vec<Value> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    /// A place that logs. It has a size, so that two of them lie in two places.
    struct Place(#[expect(dead_code, reason = "it is there for its size")] u8);

    impl tracing::Callsite for Place {
        fn set_interest(&self, _: tracing::subscriber::Interest) {}
        fn metadata(&self) -> &tracing::Metadata<'_> {
            unreachable!("nobody asks")
        }
    }

    static OFTEN: Place = Place(1);
    static SELDOM: Place = Place(2);

    #[test]
    fn of_one_kind_ten_a_second_are_said_and_the_others_counted() {
        let crowds = Crowds::default();
        let (often, seldom) = (Identifier(&OFTEN), Identifier(&SELDOM));
        let start = now();
        let said = (0..1000).filter(|_| crowds.admit(often.clone(), start, || "too often".into())).count();
        assert_eq!(said, 10);
        assert!(crowds.admit(seldom, start, || unreachable!("it is said")), "another kind has its own ten");
        assert_eq!(crowds.take(start, false), [], "the second is not over");
        assert_eq!(crowds.take(start + SECOND, false), [("too often".into(), 990)]);
        assert_eq!(crowds.take(start + SECOND, false), [], "it is told once");
    }

    #[test]
    fn a_flood_that_goes_on_is_counted_second_by_second() {
        let crowds = Crowds::default();
        let often = Identifier(&OFTEN);
        let mut now = now();
        for _ in 0..3 {
            let said = (0..50).filter(|_| crowds.admit(often.clone(), now, || "too often".into())).count();
            assert_eq!(said, 10);
            now += SECOND;
        }
        assert_eq!(crowds.take(now, false), [("too often".into(), 120)]);
        assert!(crowds.admit(often.clone(), now, || unreachable!("it is said")));
        assert_eq!(crowds.take(now, true), []);
        assert_eq!((0..50).filter(|_| crowds.admit(often.clone(), now, || "too often".into())).count(), 9);
        assert_eq!(crowds.take(now, true), [("too often".into(), 41)], "the last look waits for no second");
    }

    #[test]
    fn what_goes_wrong_is_limited_and_no_record_is() {
        let page = Page::default();
        let queue = Queue::to(page.clone(), Form::Json);
        let lines = Lines { form: Form::Json, crowds: Arc::clone(&queue.crowds) };
        let layer = tracing_subscriber::fmt::layer().event_format(lines).with_writer(queue.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for number in 0..100 {
                failed(number);
                happened(number);
            }
        });
        drop(Guard { queue });
        let lines = page.lines();
        let count = |message: &str| lines.iter().filter(|line| line["message"] == message).count();
        assert_eq!(count("it happened"), 100);
        // The seconds of a busy machine may be over while the hundred are said.
        let left_out: u64 = lines.iter().filter_map(|line| line["left_out"].as_u64()).sum();
        assert_eq!(count("it failed") as u64 + left_out, 100);
        assert!(lines.iter().all(|line| line["left_out"].is_null() || line["event"] == "it failed"));
        assert!(left_out > 0, "{lines:?}");
    }

    fn failed(number: u32) {
        tracing::event!(tracing::Level::WARN, number, "it failed");
    }

    fn happened(number: u32) {
        tracing::event!(tracing::Level::INFO, number, "it happened");
    }
}
