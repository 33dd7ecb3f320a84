//! Durations, rates and rhythms as people write them, and back.
//!
//! A number never stands without its unit: a bare `90` could be seconds or minutes, so it is a fault that says so.
#![forbid(unsafe_code)]

use super::load::{Given, Reading, Value, Word};
use super::near::nearest;
use crate::time::{Duration, seconds};
use core::fmt::Display;

/// Why a word cannot be read, before it is known where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same, with what was probably meant.
    pub(super) fn meant(self, meant: impl Display) -> Self {
        self.hint(format!("did you mean \"{meant}\"?"))
    }

    /// The word is none of `words`.
    pub(super) fn one_of(text: &str, words: &[&str]) -> Self {
        let fault = Self::new(format!("must be one of {}", words.join(", ")));
        match nearest(&text.to_lowercase(), words.iter().copied()) {
            Some(meant) => fault.meant(meant),
            None => fault,
        }
    }
}

/// Bytes per second, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

/// How often a second, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rhythm(pub u32);

/// Reads `"90s"`, `"1h30m"`, `"1d"`; the `Err` is a sentence for whoever wrote it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    Duration::parse(text).map_err(|fault| match fault.hint {
        Some(hint) => format!("{}; {hint}", fault.message),
        None => fault.message,
    })
}

/// Writes a duration as it would be read: `1h30m`.
pub fn duration_text(duration: Duration) -> String {
    let mut rest = duration.as_secs();
    let mut text = String::new();
    for (unit, size) in DURATION_UNITS {
        if rest >= size {
            text += &format!("{}{unit}", rest / size);
            rest %= size;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

const DURATION_UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
const DURATION_MAX: u64 = 0xFFFF_FFFF; // LIFETIME counts seconds in 32 bits, RFC 8656 §18.2

impl Value for Duration {
    const WORD: bool = true;

    fn read(given: &Given<'_>) -> Reading<Self> {
        if let Some(number) = given.integer() {
            return Err(given.fault(unit_is_missing(&number)).into());
        }
        given.word()
    }

    fn show(&self) -> toml::Value {
        duration_text(*self).into()
    }
}

impl Word for Duration {
    fn parse(text: &str) -> Result<Self, Fault> {
        let text = text.trim();
        let mut rest = text;
        let mut total = 0u64;
        let mut finer_than = u64::MAX;
        while !rest.is_empty() {
            let (digits, after) = split_while(rest, |c| c.is_ascii_digit());
            let (unit, after) = split_while(after.trim_start(), |c| c.is_alphabetic());
            let Ok(count) = digits.parse::<u64>() else {
                return Err(not_a_duration());
            };
            if unit.is_empty() && after.trim().is_empty() {
                return Err(unit_is_missing(text));
            }
            let Some((_, size)) = DURATION_UNITS.into_iter().find(|(name, _)| *name == unit) else {
                return Err(not_a_duration());
            };
            if size >= finer_than {
                return Err(Fault::new("units go from large to small, each once").hint("write it as \"1h30m\""));
            }
            finer_than = size;
            total = total.saturating_add(count.saturating_mul(size));
            rest = after.trim_start();
        }
        match total {
            0 if text.is_empty() => Err(not_a_duration()),
            0 => Err(Fault::new("a duration cannot be zero")),
            1..=DURATION_MAX => Ok(seconds(total)),
            _ => Err(Fault::new("longer than 136 years")),
        }
    }

    fn word(&self) -> String {
        duration_text(*self)
    }
}

fn unit_is_missing(number: &str) -> Fault {
    Fault::new("the unit is missing")
        .hint(format!("write \"{number}s\", \"{number}m\", \"{number}h\" or \"{number}d\""))
}

fn not_a_duration() -> Fault {
    Fault::new("not a duration").hint("write it as \"90s\", \"10m\", \"1h30m\" or \"1d\"")
}

impl Word for Rate {
    fn parse(text: &str) -> Result<Self, Fault> {
        let (number, unit) = split_while(text.trim(), |c| c.is_ascii_digit() || c == '.');
        let unit = unit.trim();
        let example = "write it as \"4 Mbit/s\" or \"500 kB/s\"";
        let Some(number) = thousandths(number) else {
            return Err(Fault::new("not a rate").hint(example));
        };
        if unit.is_empty() {
            return Err(Fault::new("the unit is missing").hint(example));
        }
        let Some((_, bits)) = RATE_UNITS.into_iter().find(|(name, _)| *name == unit) else {
            let fault = Fault::new(format!("{unit:?} is no unit of a rate"));
            let meant = RATE_UNITS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(&spelled_out(unit)));
            return Err(match meant {
                Some((name, _)) => fault.meant(format!("{} {name}", text.trim().trim_end_matches(unit).trim())),
                None => fault.hint(example),
            });
        };
        match u64::try_from(number * u128::from(bits) / 8_000) {
            Ok(0) => Err(Fault::new("less than one byte a second").hint("\"\" is no limit")),
            Ok(bytes) => Ok(Self(bytes)),
            Err(_) => Err(Fault::new("too large")),
        }
    }

    fn word(&self) -> String {
        let bits = u128::from(self.0) * 8;
        let exact = RATE_UNITS.into_iter().find(|(_, size)| bits.is_multiple_of(u128::from(*size)));
        let (unit, size) = exact.unwrap_or(("bit/s", 1));
        format!("{} {unit}", bits / u128::from(size))
    }
}

/// Units in bits per second; those that a rate is shown in come first.
const RATE_UNITS: [(&str, u64); 11] = [
    ("Gbit/s", 1_000_000_000),
    ("Mbit/s", 1_000_000),
    ("kbit/s", 1_000),
    ("bit/s", 1),
    ("GB/s", 8_000_000_000),
    ("MB/s", 8_000_000),
    ("kB/s", 8_000),
    ("B/s", 8),
    ("GiB/s", 8 << 30),
    ("MiB/s", 8 << 20),
    ("KiB/s", 8 << 10),
];

/// The habits `4 Mbps`, `4 Mb/s`, `4 Mbit` in the spelling of the table.
fn spelled_out(unit: &str) -> String {
    let stem = unit.strip_suffix("ps").or_else(|| unit.strip_suffix("/s")).unwrap_or(unit);
    match stem.strip_suffix('b') {
        Some(stem) => format!("{stem}bit/s"),
        None => format!("{stem}/s"),
    }
}

/// A decimal number in thousandths: rates need no more.
fn thousandths(number: &str) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = fraction.get(..fraction.len().min(3)).filter(|digits| !digits.is_empty())?;
    let scale = [1000, 100, 10, 1].get(digits.len())?;
    let whole: u64 = whole.parse().ok()?;
    Some(u128::from(whole) * 1000 + digits.parse::<u128>().ok()? * scale)
}

impl Word for Rhythm {
    fn parse(text: &str) -> Result<Self, Fault> {
        let example = "write it as \"100/s\" or \"600/min\"";
        let Some((count, unit)) = text.split_once('/') else {
            return Err(Fault::new("the unit is missing").hint(example));
        };
        let size = match unit.trim() {
            "s" | "sec" | "second" => 1,
            "m" | "min" | "minute" => 60,
            "h" | "hour" => 3600,
            unit => return Err(Fault::new(format!("{unit:?} is no unit of time")).hint(example)),
        };
        let Ok(count) = count.trim().parse::<u32>() else {
            return Err(Fault::new("not a whole number").hint(example));
        };
        match count / size {
            0 if count == 0 => Err(Fault::new("nothing would ever be answered, not even the first step of a login")),
            0 => Err(Fault::new("less than once a second").meant("1/s")),
            per_second => Ok(Self(per_second)),
        }
    }

    fn word(&self) -> String {
        format!("{}/s", self.0)
    }
}

fn split_while(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn duration(text: &str) -> Result<u64, String> {
        parse_duration(text).map(|duration| duration.as_secs())
    }

    fn rate(text: &str) -> Result<u64, Fault> {
        Rate::parse(text).map(|rate| rate.0)
    }

    #[test]
    fn durations_add_up_from_large_to_small() {
        assert_eq!(duration("90s"), Ok(90));
        assert_eq!(duration("10m"), Ok(600));
        assert_eq!(duration("1h30m"), Ok(5400));
        assert_eq!(duration("1d 2h"), Ok(93_600));
        assert_eq!(duration("30m1h"), Err("units go from large to small, each once; write it as \"1h30m\"".into()));
    }

    #[test]
    fn a_duration_without_its_unit_is_no_duration() {
        let missing = "the unit is missing; write \"90s\", \"90m\", \"90h\" or \"90d\"";
        assert_eq!(duration("90"), Err(missing.into()));
        for text in ["", "s", "ten", "1x", "-5s", "1.5h", "999999999999999999999s"] {
            assert_eq!(duration(text), Err("not a duration; write it as \"90s\", \"10m\", \"1h30m\" or \"1d\"".into()));
        }
        assert_eq!(duration("0s"), Err("a duration cannot be zero".into()));
        assert_eq!(duration("18446744073709551615d"), Err("longer than 136 years".into()));
    }

    #[test]
    fn durations_read_as_they_were_written() {
        for text in ["1s", "1h30m", "1d", "1d1h1m1s", "10m"] {
            assert_eq!(duration_text(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn rates_become_bytes_a_second() {
        assert_eq!(rate("4 Mbit/s"), Ok(500_000));
        assert_eq!(rate("500 kbit/s"), Ok(62_500));
        assert_eq!(rate("1 MB/s"), Ok(1_000_000));
        assert_eq!(rate("1.5Mbit/s"), Ok(187_500));
        assert_eq!(rate("2 MiB/s"), Ok(2 << 20));
        assert_eq!(Rate(500_000).word(), "4 Mbit/s");
        assert_eq!(Rate(1).word(), "8 bit/s");
    }

    #[test]
    fn a_rate_in_another_spelling_is_told_the_right_one() {
        let meant = |text| rate(text).unwrap_err().hint.unwrap();
        assert_eq!(meant("4 Mbps"), "did you mean \"4 Mbit/s\"?");
        assert_eq!(meant("4 mbit/s"), "did you mean \"4 Mbit/s\"?");
        assert_eq!(meant("4 Mb/s"), "did you mean \"4 Mbit/s\"?");
        assert_eq!(meant("4 MB"), "did you mean \"4 MB/s\"?");
        assert_eq!(meant("4"), "write it as \"4 Mbit/s\" or \"500 kB/s\"");
        assert!(rate("1.2.3 MB/s").is_err() && rate("bit/s").is_err() && rate("1. MB/s").is_err());
        assert!(rate("99999999999999999999 GB/s").is_err() && rate("0 MB/s").is_err());
    }

    #[test]
    fn rhythms_count_per_second() {
        let rhythm = |text| Rhythm::parse(text).map(|rhythm| rhythm.0);
        assert_eq!(rhythm("100/s"), Ok(100));
        assert_eq!(rhythm("600/min"), Ok(10));
        assert_eq!(rhythm("30/min"), Err(Fault::new("less than once a second").meant("1/s")));
        assert!(rhythm("100").is_err() && rhythm("0/s").is_err() && rhythm("5/fortnight").is_err());
    }
}
