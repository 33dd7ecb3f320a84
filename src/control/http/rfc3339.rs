//! Seconds since 1970 as people and RFC 3339 write them.
#![forbid(unsafe_code)]

use crate::time::UnixSeconds;

/// `2033-05-18T03:33:20Z`.
pub(super) fn utc(time: UnixSeconds) -> String {
    let (days, second) = (time.0 / DAY, time.0 % DAY);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

const DAY: u64 = 86_400;

/// The Gregorian date of a day since 1970-01-01. Years begin in March here, so that the leap day is the last of its year;
/// every 400 of them are the same 146,097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    const BEFORE_1970: u64 = 719_468; // from 0000-03-01
    let days = days + BEFORE_1970;
    let (era, of_era) = (days / ERA, days % ERA);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reads_as_the_calendar_has_it() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_234_567_890, "2009-02-13T23:31:30Z"),
            (2_000_000_000, "2033-05-18T03:33:20Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(utc(UnixSeconds(seconds)), text);
        }
    }
}
