//! Limits lines per second: a guest or a fault that repeats a line a million times must not fill the disk.

use std::time::{Duration, Instant};

/// The permission to write a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinePermit {
    /// The number of lines dropped before this one, if any: a field of this line.
    pub dropped: Option<u64>,
}

/// A limit on the lines in each period. The caller passes the time.
#[derive(Debug)]
pub struct LineThrottle {
    /// Maximum number of lines in each period.
    lines_max: u32,
    period_seconds: u64,
    period: u64,
    lines: u32,
    dropped: u64,
}

impl LineThrottle {
    /// Allows this number of lines per second.
    pub fn new(per_second: u32) -> LineThrottle {
        LineThrottle { lines_max: per_second, period_seconds: 1, period: 0, lines: 0, dropped: 0 }
    }

    /// Allows one line in this number of seconds: for conditions that last.
    pub fn once_in(seconds: u64) -> LineThrottle {
        LineThrottle { period_seconds: seconds, ..LineThrottle::new(1) }
    }

    /// Returns whether a line may be written now, and counts it. `now` may come from any monotonic clock.
    pub fn try_count(&mut self, now: Duration) -> bool {
        let period = now.as_secs() / self.period_seconds;
        if period != self.period {
            self.period = period;
            self.lines = 0;
        }
        let allowed = self.lines < self.lines_max;
        self.lines += u32::from(allowed);
        self.dropped += u64::from(!allowed);
        allowed
    }

    /// Counts a line as [`LineThrottle::try_count`] does, and takes the number of dropped lines. `None`: the line must
    /// not be written.
    pub fn permit(&mut self, now: Duration) -> Option<LinePermit> {
        self.try_count(now)
            .then(|| LinePermit { dropped: Some(self.take_dropped()).filter(|lines| *lines > 0) })
    }

    /// Returns and resets the number of dropped lines.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

/// A throttle with its own clock: for threads that have no `now`.
#[derive(Debug)]
pub struct ClockedLineThrottle {
    throttle: LineThrottle,
    started: Instant,
}

impl ClockedLineThrottle {
    /// Allows this number of lines per second.
    #[expect(clippy::disallowed_methods, reason = "only the number of log lines depends on it")]
    pub fn new(per_second: u32) -> ClockedLineThrottle {
        ClockedLineThrottle { throttle: LineThrottle::new(per_second), started: Instant::now() }
    }

    /// Calls [`LineThrottle::permit`] with the current time.
    pub fn permit(&mut self) -> Option<LinePermit> {
        self.throttle.permit(self.started.elapsed())
    }

    /// Calls [`LineThrottle::take_dropped`].
    pub fn take_dropped(&mut self) -> u64 {
        self.throttle.take_dropped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(dropped: Option<u64>) -> Option<LinePermit> {
        Some(LinePermit { dropped })
    }

    #[test]
    fn excess_lines_are_dropped_and_counted() {
        let mut throttle = LineThrottle::new(2);
        let at = Duration::from_millis;
        let permits: Vec<_> =
            [0, 100, 200, 999, 1_000, 1_001, 1_002].map(|ms| throttle.permit(at(ms))).into();
        assert_eq!(
            permits,
            [written(None), written(None), None, None, written(Some(2)), written(None), None]
        );
    }

    #[test]
    fn a_lasting_condition_is_logged_once_per_period() {
        let mut throttle = LineThrottle::once_in(10);
        let permits: Vec<_> = [0, 1, 9, 10, 11, 30].map(|s| throttle.permit(Duration::from_secs(s))).into();
        assert_eq!(permits, [written(None), None, None, written(Some(2)), None, written(Some(1))]);
    }
}
