//! The stream time of a partition: the clock of gaps and windows.
//!
//! While records come, it follows their timestamps; at the end of the log, it follows the monotonic clock. So a backlog is
//! merged by what the log says and not by how fast it is read, and while nothing can be read or handled, it stands.
//!
//! It takes several records until it follows their timestamps. So it may be far behind when the first events come after a
//! time without records, and an event with a [recent](StreamTime::is_recent) timestamp has not waited, whatever the stream time
//! was at its admission.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// The number of records whose timestamps may be wrong without an effect.
const OUTLIERS: usize = 31;
/// A timestamp this far above the wall clock is ignored, in milliseconds.
const AHEAD_MAX_MS: i64 = 60_000;
/// Maximum advance per step while a partition is full.
const STEP_MAX: Duration = Duration::from_millis(100);
/// Maximum advance per answer at the end of the log. Requests are at most 1 s apart, so a longer time without an answer is that
/// of an outage or of a frozen process, in which producers may have been cut off, too.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The stream time of one ownership.
#[derive(Debug)]
pub(crate) struct StreamTime {
    /// Milliseconds since the ownership began. Never goes back.
    now: Duration,
    /// The greatest timestamps, at most [`OUTLIERS`] + 1.
    greatest: BinaryHeap<Reverse<i64>>,
    /// The timestamp that `now` corresponds to; `None`: fewer timestamps were read.
    level_ms: Option<i64>,
    /// The uptime up to which the clock has counted, or must not count.
    counted_to: Duration,
}

impl StreamTime {
    pub(crate) fn new(uptime: Duration) -> StreamTime {
        StreamTime { now: Duration::ZERO, greatest: BinaryHeap::new(), level_ms: None, counted_to: uptime }
    }

    /// Returns the stream time in milliseconds.
    pub(crate) fn now_ms(&self) -> i64 {
        i64::try_from(self.now.as_millis()).unwrap_or(i64::MAX)
    }

    /// Returns whether a timestamp is less than this before the stream time. One that is ahead of it is not: it may be wrong.
    pub(crate) fn is_recent(&self, timestamp_ms: i64, than_ms: i64) -> bool {
        self.level_ms.is_some_and(|level_ms| {
            timestamp_ms >= 0 && (0..than_ms).contains(&level_ms.saturating_sub(timestamp_ms))
        })
    }

    /// Takes the timestamp of a record, in milliseconds since 1970; −1: none.
    pub(crate) fn record(&mut self, timestamp_ms: i64, wall_ms: i64) {
        if timestamp_ms < 0 || timestamp_ms > wall_ms.saturating_add(AHEAD_MAX_MS) {
            return;
        }
        let timestamp_ms = timestamp_ms.min(wall_ms);
        if self.greatest.len() <= OUTLIERS {
            self.greatest.push(Reverse(timestamp_ms));
        } else if self.greatest.peek().is_some_and(|&Reverse(lowest)| lowest < timestamp_ms) {
            self.greatest.pop();
            self.greatest.push(Reverse(timestamp_ms));
        }
        if self.greatest.len() > OUTLIERS
            && let Some(&Reverse(found)) = self.greatest.peek()
        {
            let level_ms = *self.level_ms.get_or_insert(found);
            if found > level_ms {
                self.now += Duration::from_millis(found.abs_diff(level_ms));
                self.level_ms = Some(found);
            }
        }
    }

    /// Records were read, or nothing can be read or handled: until now, the monotonic clock does not count.
    pub(crate) fn stand(&mut self, uptime: Duration) {
        self.counted_to = self.counted_to.max(uptime);
    }

    /// At the end of the log: the monotonic clock counts up to this uptime.
    pub(crate) fn at_end(&mut self, until: Duration) {
        let passed = until.saturating_sub(self.counted_to).min(ANSWER_MAX);
        self.advance(passed);
        self.counted_to = self.counted_to.max(until);
    }

    /// The partition is full of events that wait: the monotonic clock counts, in short steps.
    pub(crate) fn full(&mut self, uptime: Duration) {
        let passed = uptime.saturating_sub(self.counted_to).min(STEP_MAX);
        self.advance(passed);
        self.counted_to = self.counted_to.max(uptime);
    }

    fn advance(&mut self, passed: Duration) {
        self.now += passed;
        // The timestamps of records that arrive later have advanced, too.
        if let Some(level_ms) = &mut self.level_ms {
            *level_ms = level_ms.saturating_add(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: i64 = 1_000_000;

    fn with(timestamps: impl IntoIterator<Item = i64>) -> StreamTime {
        let mut time = StreamTime::new(Duration::ZERO);
        timestamps.into_iter().for_each(|timestamp| time.record(timestamp, WALL));
        time
    }

    #[test]
    fn a_few_wrong_timestamps_move_nothing() {
        let mut time = with((0..32).map(|_| 1_000));
        assert_eq!(time.now_ms(), 0, "the first level is the beginning");
        (0..31).for_each(|_| time.record(900_000, WALL));
        assert_eq!(time.now_ms(), 0);
        time.record(5_000, WALL);
        assert_eq!(time.now_ms(), 4_000, "the 32nd greatest");
        (0..99).for_each(|_| time.record(500, WALL));
        assert_eq!(time.now_ms(), 4_000, "it never goes back");
    }

    #[test]
    fn an_event_after_a_time_without_records_has_not_waited() {
        let mut time = with((0..32).map(|_| 1_000));
        let since = time.now_ms();
        (0..32).for_each(|number| time.record(21_000 + number, WALL));
        assert_eq!(time.now_ms() - since, 20_000);
        assert!(time.is_recent(21_000, 5_000) && !time.is_recent(1_000, 5_000));
        assert!(!time.is_recent(21_031, 5_000), "it may be wrong");
        time.at_end(Duration::from_secs(5));
        assert!(!time.is_recent(21_000, 5_000));
    }

    #[test]
    fn timestamps_ahead_of_the_clock_are_limited() {
        let mut time = with((0..32).map(|_| WALL - 10));
        (0..32).for_each(|_| time.record(WALL + 60_001, WALL));
        (0..32).for_each(|_| time.record(-1, WALL));
        assert_eq!(time.now_ms(), 0);
        (0..32).for_each(|_| time.record(WALL + 60_000, WALL));
        assert_eq!(time.now_ms(), 10);
    }

    #[test]
    fn at_the_end_the_clock_counts_from_the_last_record() {
        let ms = Duration::from_millis;
        let mut time = with([]);
        time.stand(ms(100));
        time.at_end(ms(90));
        assert_eq!(time.now_ms(), 0);
        time.at_end(ms(150));
        time.at_end(ms(120));
        assert_eq!(time.now_ms(), 50);
        time.full(ms(1_000));
        assert_eq!(time.now_ms(), 150, "in short steps");
        time.full(ms(1_030));
        assert_eq!(time.now_ms(), 180);
    }

    #[test]
    fn an_outage_counts_for_little() {
        let mut time = with([]);
        time.at_end(Duration::from_secs(600));
        assert_eq!(time.now_ms(), 10_000);
        time.at_end(Duration::from_secs(601));
        assert_eq!(time.now_ms(), 11_000);
    }

    #[test]
    fn what_the_clock_has_counted_is_not_counted_again() {
        let mut time = with((0..32).map(|_| 1_000));
        time.at_end(Duration::from_secs(2));
        assert_eq!(time.now_ms(), 2_000);
        (0..32).for_each(|_| time.record(3_500, WALL));
        assert_eq!(time.now_ms(), 2_500);
    }
}
