//! So many lines a second and no more: what a guest or a fault says a million times must not fill the disk.

use std::time::{Duration, Instant};

/// Counts lines per second.
#[derive(Debug)]
pub struct Throttle {
    /// Lines in each period.
    most: u32,
    period_seconds: u64,
    period: u64,
    lines: u32,
    dropped: u64,
}

impl Throttle {
    /// Lets so many lines of each second through.
    pub fn new(per_second: u32) -> Throttle {
        Throttle { most: per_second, period_seconds: 1, period: 0, lines: 0, dropped: 0 }
    }

    /// Lets one line of so many seconds through: for what repeats itself while it lasts.
    pub fn once_in(seconds: u64) -> Throttle {
        Throttle { period_seconds: seconds, ..Throttle::new(1) }
    }

    /// Whether a line may be written now, by any clock that does not go back.
    pub fn allows(&mut self, now: Duration) -> bool {
        let period = now.as_secs() / self.period_seconds;
        if period != self.period {
            self.period = period;
            self.lines = 0;
        }
        let allowed = self.lines < self.most;
        self.lines += u32::from(allowed);
        self.dropped += u64::from(!allowed);
        allowed
    }

    /// The same; with the line comes how many were dropped since the last one that was written.
    pub fn allow(&mut self, now: Duration) -> Option<u64> {
        self.allows(now).then(|| self.take_dropped())
    }

    /// How many were dropped since somebody was told last.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

/// A throttle with a clock of its own: for threads that have no `now`.
#[derive(Debug)]
pub struct LineLimit {
    throttle: Throttle,
    started: Instant,
}

impl LineLimit {
    /// Lets so many lines of each second through.
    #[expect(clippy::disallowed_methods, reason = "only how many lines are written depends on it")]
    pub fn new(per_second: u32) -> LineLimit {
        LineLimit { throttle: Throttle::new(per_second), started: Instant::now() }
    }

    /// As [`Throttle::allow`], now.
    pub fn allow(&mut self) -> Option<u64> {
        self.throttle.allow(self.started.elapsed())
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

    #[test]
    fn what_lasts_is_said_once_in_a_while() {
        let mut throttle = Throttle::once_in(10);
        let said: Vec<_> = [0, 1, 9, 10, 11, 30].map(|s| throttle.allow(Duration::from_secs(s))).into();
        assert_eq!(said, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
