//! The most that the stream time of a partition can have advanced. The core may be behind it, never ahead.

use std::time::Duration;

/// As many greatest timestamps may be wrong without an effect.
const OUTLIERS: usize = 31;
/// A timestamp this far above the wall clock does not count, in milliseconds.
const AHEAD_MAX: i64 = 60_000;
/// More time between two answers does not count.
const ANSWER_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct StreamTime {
    /// The greatest timestamps, ascending.
    greatest: Vec<i64>,
    level: Option<i64>,
    advanced: Duration,
    /// The uptime up to which the clock has counted, or must not count.
    counted_to: Duration,
}

impl StreamTime {
    pub(super) fn begin(uptime: Duration) -> StreamTime {
        StreamTime { counted_to: uptime, ..StreamTime::default() }
    }

    pub(super) fn now(&self) -> Duration {
        self.advanced
    }

    /// A record was admitted.
    pub(super) fn record(&mut self, timestamp: i64, wall_ms: i64, uptime: Duration) {
        self.counted_to = self.counted_to.max(uptime);
        if timestamp < 0 || timestamp > wall_ms + AHEAD_MAX {
            return;
        }
        let timestamp = timestamp.min(wall_ms);
        let at = self.greatest.partition_point(|&other| other < timestamp);
        self.greatest.insert(at, timestamp);
        if self.greatest.len() > OUTLIERS + 1 {
            self.greatest.remove(0);
        }
        if self.greatest.len() == OUTLIERS + 1 {
            let found = self.greatest[0];
            let before = self.level.replace(found).unwrap_or(found);
            self.advanced += Duration::from_millis(found.abs_diff(before));
        }
    }

    /// Nothing can be handled: until now, the clock does not count.
    pub(super) fn stand(&mut self, uptime: Duration) {
        self.counted_to = self.counted_to.max(uptime);
    }

    /// Everything up to the end of the log was read when this request was answered.
    pub(super) fn at_end(&mut self, sent_at: Duration) {
        self.advanced += sent_at.saturating_sub(self.counted_to).min(ANSWER_MAX);
        self.counted_to = self.counted_to.max(sent_at);
    }
}
