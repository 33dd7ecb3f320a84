//! When a server has far fewer allocations and connections than it had: the moment to give their memory back.
//!
//! Owns the highest number since the last such moment. Decides, and gives nothing back itself.
#![forbid(unsafe_code)]

use std::mem;

/// Allocations and connections below which their memory is not worth the trouble: ten megabytes, if each was a connection
/// that read slowly.
const FEW: u64 = 32;

/// How many allocations and connections there were.
#[derive(Debug, Default)]
pub(super) struct Ebb {
    most: u64,
    /// At the last look.
    live: u64,
    begun: u64,
}

impl Ebb {
    /// Whether half or more of them have ended since the last time, or the highest tide after it. `begun` counts all there
    /// have ever been: a crowd may come and go between two looks, and none was larger than those before it and all who
    /// have come since.
    pub(super) fn has_come(&mut self, live: u64, begun: u64) -> bool {
        let came = begun.wrapping_sub(mem::replace(&mut self.begun, begun));
        let before = mem::replace(&mut self.live, live);
        self.most = self.most.max(live).max(before.saturating_add(came));
        let has_come = self.most >= FEW && live <= self.most / 2;
        if has_come {
            self.most = live;
        }
        has_come
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ebb_comes_when_half_are_gone_and_once_for_each_half() {
        let mut ebb = Ebb::default();
        let (mut begun, mut before) = (0, 0);
        let seen = [0, 10_000, 6000, 5000, 4000, 2500, 20, 0, 31, 0].map(|live: u64| {
            begun += live.saturating_sub(before);
            before = live;
            ebb.has_come(live, begun)
        });
        assert_eq!(seen, [false, false, false, true, false, true, true, false, false, false]);
    }

    #[test]
    fn a_crowd_that_nobody_saw_leaves_an_ebb_behind_once() {
        let mut ebb = Ebb::default();
        let seen =
            [(10, 10), (10, 31), (10, 2000), (10, 2000), (2000, 4000)].map(|(live, begun)| ebb.has_come(live, begun));
        assert_eq!(seen, [false, false, true, false, false]);
    }
}
