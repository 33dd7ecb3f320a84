//! When a server has far fewer allocations and connections than it had: the moment to give their memory back.
//!
//! Owns the highest number since the last such moment. Decides, and gives nothing back itself.
#![forbid(unsafe_code)]

/// Allocations and connections below which their memory is not worth the trouble: a megabyte, or ten of TLS.
const FEW: u64 = 1000;

/// How many allocations and connections there were.
#[derive(Debug, Default)]
pub(super) struct Ebb {
    most: u64,
}

impl Ebb {
    /// Whether half or more of them have ended since the last time, or the highest tide after it.
    pub(super) fn has_come(&mut self, live: u64) -> bool {
        self.most = self.most.max(live);
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
        let seen: Vec<bool> = [0, 10_000, 6000, 5000, 4000, 2500, 20, 0, 900, 0].map(|live| ebb.has_come(live)).into();
        assert_eq!(seen, [false, false, false, true, false, true, true, false, false, false]);
    }
}
