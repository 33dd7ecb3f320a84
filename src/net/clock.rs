//! The one reader of the clocks for the packet path.

use crate::time::{Instant, Now, UnixSeconds};

/// Reads CLOCK_MONOTONIC and the wall clock.
pub fn now() -> Now {
    let wall = read(libc::CLOCK_REALTIME);
    Now {
        mono: monotonic(),
        // A clock before 1970 counts as 1970: every credential then lives, none is refused by accident.
        unix: UnixSeconds(u64::try_from(wall.tv_sec).unwrap_or(0)),
    }
}

/// Reads CLOCK_MONOTONIC alone.
pub fn monotonic() -> Instant {
    let mono = read(libc::CLOCK_MONOTONIC);
    Instant(mono.tv_sec as u64 * 1_000_000_000 + mono.tv_nsec as u64)
}

fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for one timespec; the two clocks exist on every Linux, so the call cannot fail.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time
}
