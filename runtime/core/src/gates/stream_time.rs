//! The stream time of a partition: the clock of gaps and windows.
//!
//! While records come, it follows their timestamps; at the end of the log, it follows the monotonic clock. So a backlog is
//! merged by what the log says and not by how fast it is read, and while nothing can be read or handled, it stands.
//!
//! It takes several records until it follows their timestamps. After a time without records, an event must not wait from
//! before that time: the stream time is *ahead* of what it has counted, by at most the real time that has passed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// The number of records whose timestamps may be wrong without an effect.
const OUTLIERS: usize = 31;
/// A timestamp this far above the wall clock is ignored, in milliseconds.
const AHEAD_MAX_MS: i64 = 60_000;
/// Maximum advance per step while a partition is full.
const STEP_MAX: Duration = Duration::from_millis(100);

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
    /// How far it is ahead of `now`, in milliseconds: not counted before the end of the log, or the timestamps of more
    /// records, confirm it.
    ahead_ms: u64,
}

impl StreamTime {
    pub(crate) fn new(uptime: Duration) -> StreamTime {
        StreamTime {
            now: Duration::ZERO,
            greatest: BinaryHeap::new(),
            level_ms: None,
            counted_to: uptime,
            ahead_ms: 0,
        }
    }

    /// Returns the stream time in milliseconds.
    pub(crate) fn now_ms(&self) -> i64 {
        i64::try_from(self.now.as_millis()).unwrap_or(i64::MAX)
    }

    /// Returns the stream time from which an event waits that was just read, in milliseconds.
    pub(crate) fn waits_from_ms(&self) -> i64 {
        self.now_ms().saturating_add_unsigned(self.ahead_ms)
    }

    /// Takes the timestamp of a record that was read, in milliseconds since 1970; −1: none. `has_events`: whether the
    /// partition has events that may wait.
    pub(crate) fn record(&mut self, timestamp_ms: i64, wall_ms: i64, uptime: Duration, has_events: bool) {
        let passed = uptime.saturating_sub(self.counted_to);
        self.stand(uptime);
        if timestamp_ms < 0 || timestamp_ms > wall_ms.saturating_add(AHEAD_MAX_MS) {
            return;
        }
        let timestamp_ms = timestamp_ms.min(wall_ms);
        if let Some(level_ms) = self.level_ms {
            self.catch_up(passed, u64::try_from(timestamp_ms - level_ms).unwrap_or(0), has_events);
        }
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
                let risen_ms = found.abs_diff(level_ms);
                self.now += Duration::from_millis(risen_ms);
                self.level_ms = Some(found);
                self.ahead_ms = self.ahead_ms.saturating_sub(risen_ms);
            }
        }
    }

    /// A record is this much above the level, and came this long after the one before it.
    fn catch_up(&mut self, passed: Duration, above_ms: u64, has_events: bool) {
        let passed_ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).min(above_ms);
        if has_events {
            // A record that is older than the others does not make them older.
            self.ahead_ms = self.ahead_ms.max((self.ahead_ms + passed_ms).min(above_ms));
        } else {
            self.advance(Duration::from_millis(passed_ms));
            self.ahead_ms = 0;
        }
    }

    /// Nothing can be read or handled: until now, the monotonic clock does not count.
    pub(crate) fn stand(&mut self, uptime: Duration) {
        self.counted_to = self.counted_to.max(uptime);
    }

    /// At the end of the log: the monotonic clock counts up to this uptime.
    pub(crate) fn at_end(&mut self, until: Duration) {
        let passed = until.saturating_sub(self.counted_to);
        // No record comes between those that were read and now.
        let ahead = Duration::from_millis(std::mem::take(&mut self.ahead_ms));
        self.advance(passed + ahead);
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

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Records that come at once.
    fn read(time: &mut StreamTime, timestamps: impl IntoIterator<Item = i64>) {
        timestamps.into_iter().for_each(|timestamp| time.record(timestamp, WALL, Duration::ZERO, true));
    }

    fn with(timestamps: impl IntoIterator<Item = i64>) -> StreamTime {
        let mut time = StreamTime::new(Duration::ZERO);
        read(&mut time, timestamps);
        time
    }

    #[test]
    fn a_few_wrong_timestamps_move_nothing() {
        let mut time = with((0..32).map(|_| 1_000));
        assert_eq!(time.now_ms(), 0, "the first level is the beginning");
        read(&mut time, (0..31).map(|_| 900_000));
        assert_eq!((time.now_ms(), time.waits_from_ms()), (0, 0));
        read(&mut time, [5_000]);
        assert_eq!(time.now_ms(), 4_000, "the 32nd greatest");
        read(&mut time, (0..99).map(|_| 500));
        assert_eq!(time.now_ms(), 4_000, "it never goes back");
    }

    #[test]
    fn timestamps_ahead_of_the_clock_are_limited() {
        let mut time = with((0..32).map(|_| WALL - 10));
        read(&mut time, (0..32).map(|_| WALL + 60_001));
        read(&mut time, (0..32).map(|_| -1));
        assert_eq!(time.now_ms(), 0);
        read(&mut time, (0..32).map(|_| WALL + 60_000));
        assert_eq!(time.now_ms(), 10);
    }

    #[test]
    fn at_the_end_the_clock_counts_from_the_last_record() {
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
    fn what_the_clock_has_counted_is_not_counted_again() {
        let mut time = with((0..32).map(|_| 1_000));
        time.at_end(Duration::from_secs(2));
        assert_eq!(time.now_ms(), 2_000);
        (0..32).for_each(|_| time.record(3_500, WALL, Duration::from_secs(2), true));
        assert_eq!(time.now_ms(), 2_500);
    }

    #[test]
    fn an_event_does_not_wait_from_before_a_time_without_records() {
        for has_events in [false, true] {
            let mut time = with((0..32).map(|_| 1_000));
            let begin = time.waits_from_ms();
            time.record(21_000, WALL, Duration::from_secs(20), has_events);
            assert_eq!(time.waits_from_ms() - begin, 20_000);
            let since = time.waits_from_ms();
            (0..40).for_each(|_| time.record(21_100, WALL, Duration::from_secs(20), has_events));
            assert_eq!(time.now_ms() - since, 100, "the later records were sent 100 ms later");
        }
    }

    #[test]
    fn at_the_end_a_time_without_records_counts() {
        let mut time = with((0..32).map(|_| 1_000));
        time.record(21_000, WALL, Duration::from_secs(20), true);
        assert_eq!((time.now_ms(), time.waits_from_ms()), (0, 20_000));
        time.at_end(Duration::from_secs(21));
        assert_eq!((time.now_ms(), time.waits_from_ms()), (21_000, 21_000));
    }

    #[test]
    fn a_wrong_clock_is_not_ahead_of_the_real_time() {
        let mut time = with((0..32).map(|_| 1_000));
        time.record(WALL, WALL, ms(50), true);
        assert_eq!(time.waits_from_ms(), 50);
        time.record(1_010, WALL, ms(60), true);
        assert_eq!(time.waits_from_ms(), 50);
    }
}
