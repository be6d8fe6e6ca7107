//! Limits lines per second: a guest or a fault that repeats a line a million times must not fill the disk.

use std::time::{Duration, Instant};

/// The permission to write a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The number of lines dropped before this one, if any: a field of this line.
    pub dropped: Option<u64>,
}

/// A limit on the lines in each period.
#[derive(Debug)]
pub struct Throttle {
    /// Maximum number of lines in each period.
    most: u32,
    period_seconds: u64,
    period: u64,
    lines: u32,
    dropped: u64,
}

impl Throttle {
    /// Allows this number of lines per second.
    pub fn new(per_second: u32) -> Throttle {
        Throttle { most: per_second, period_seconds: 1, period: 0, lines: 0, dropped: 0 }
    }

    /// Allows one line in this number of seconds: for conditions that last.
    pub fn once_in(seconds: u64) -> Throttle {
        Throttle { period_seconds: seconds, ..Throttle::new(1) }
    }

    /// Returns whether a line may be written now, and counts it. `now` may come from any monotonic clock.
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

    /// Does the same as [`Throttle::allows`], and takes the number of dropped lines. `None`: the line must not be
    /// written.
    pub fn allow(&mut self, now: Duration) -> Option<Allowed> {
        self.allows(now).then(|| Allowed { dropped: Some(self.take_dropped()).filter(|lines| *lines > 0) })
    }

    /// Returns and resets the number of dropped lines.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

/// A throttle with its own clock: for threads that have no `now`.
#[derive(Debug)]
pub struct LineLimit {
    throttle: Throttle,
    started: Instant,
}

impl LineLimit {
    /// Allows this number of lines per second.
    #[expect(clippy::disallowed_methods, reason = "only the number of log lines depends on it")]
    pub fn new(per_second: u32) -> LineLimit {
        LineLimit { throttle: Throttle::new(per_second), started: Instant::now() }
    }

    /// Calls [`Throttle::allow`] with the current time.
    pub fn allow(&mut self) -> Option<Allowed> {
        self.throttle.allow(self.started.elapsed())
    }

    /// Calls [`Throttle::take_dropped`].
    pub fn take_dropped(&mut self) -> u64 {
        self.throttle.take_dropped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(dropped: Option<u64>) -> Option<Allowed> {
        Some(Allowed { dropped })
    }

    #[test]
    fn excess_lines_are_dropped_and_counted() {
        let mut throttle = Throttle::new(2);
        let at = Duration::from_millis;
        let allowed: Vec<_> = [0, 100, 200, 999, 1_000, 1_001, 1_002].map(|ms| throttle.allow(at(ms))).into();
        assert_eq!(
            allowed,
            [written(None), written(None), None, None, written(Some(2)), written(None), None]
        );
    }

    #[test]
    fn a_lasting_condition_is_logged_once_per_period() {
        let mut throttle = Throttle::once_in(10);
        let allowed: Vec<_> = [0, 1, 9, 10, 11, 30].map(|s| throttle.allow(Duration::from_secs(s))).into();
        assert_eq!(allowed, [written(None), None, None, written(Some(2)), None, written(Some(1))]);
    }
}
