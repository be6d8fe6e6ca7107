//! So many lines a second and no more: what a guest or a fault says a million times must not fill the disk.

use std::time::Duration;

/// Counts lines per second.
#[derive(Debug)]
pub struct Throttle {
    per_second: u32,
    second: u64,
    lines: u32,
    dropped: u64,
}

impl Throttle {
    /// Lets so many lines of each second through.
    pub fn new(per_second: u32) -> Throttle {
        Throttle { per_second, second: 0, lines: 0, dropped: 0 }
    }

    /// Whether a line may be written now, by any clock that does not go back. With the first line of a second comes
    /// how many were dropped since the last one that was written.
    pub fn allow(&mut self, now: Duration) -> Option<u64> {
        if now.as_secs() != self.second {
            self.second = now.as_secs();
            self.lines = 0;
        }
        if self.lines >= self.per_second {
            self.dropped += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_dropped_and_counted() {
        let mut throttle = Throttle::new(2);
        let at = Duration::from_millis;
        let said: Vec<_> = [0, 100, 200, 999, 1_000, 1_001, 1_002].map(|ms| throttle.allow(at(ms))).into();
        assert_eq!(said, [Some(0), Some(0), None, None, Some(2), Some(0), None]);
    }
}
