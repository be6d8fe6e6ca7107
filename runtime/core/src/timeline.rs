//! The record times of the events of one partition that are not handled, for `read_in_step`.
//!
//! The time of an event is the least timestamp of it and of the [`LOOK_AHEAD`] − 1 records after it: a few records in a row
//! whose clock is ahead do not keep their partition waiting. Apart from that, times don't go back.

use std::collections::VecDeque;

/// The number of records that must be ahead, one after the other, until their partition is.
pub(crate) const LOOK_AHEAD: u64 = 8;
/// A timestamp this far above the wall clock counts for nothing, in milliseconds.
const AHEAD_MAX_MS: i64 = 60_000;

/// The events that were read in one ownership.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    /// Ascending by offset and by time. Each step covers the events up to the next one.
    steps: VecDeque<Step>,
    /// The number of records that were read.
    read: u64,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    /// The offset of its first event.
    offset: i64,
    /// The time of its first event. Those of the others are at most one grain above it.
    time_ms: i64,
    /// The number of records that were read before it.
    record: u64,
}

impl Timeline {
    pub(crate) fn clear(&mut self) {
        self.steps.clear();
        self.read = 0;
    }

    /// Takes the timestamp of a record, in milliseconds since 1970; −1: none. `grain_ms`: times that differ by less are
    /// not told apart.
    pub(crate) fn record(&mut self, offset: i64, timestamp_ms: i64, wall_ms: i64, grain_ms: i64) {
        let record = self.read;
        self.read += 1;
        if timestamp_ms < 0 || timestamp_ms > wall_ms.saturating_add(AHEAD_MAX_MS) {
            return;
        }
        let mut new = Step { offset, time_ms: timestamp_ms.min(wall_ms), record };
        while let Some(last) = self.steps.back()
            && last.time_ms > new.time_ms
            && record - last.record < LOOK_AHEAD
        {
            (new.offset, new.record) = (last.offset, last.record);
            self.steps.pop_back();
        }
        if self.steps.back().is_none_or(|last| new.time_ms >= last.time_ms + grain_ms) {
            self.steps.push_back(new);
        }
    }

    /// Forgets the steps before this offset, whose events were handled. The last step stays.
    pub(crate) fn handled(&mut self, next: i64) {
        while self.steps.get(1).is_some_and(|second| second.offset <= next) {
            self.steps.pop_front();
        }
    }

    /// Returns the time of the first event that is not handled, or of the last one that was read.
    pub(crate) fn time_ms(&self) -> Option<i64> {
        self.steps.front().map(|step| step.time_ms)
    }

    /// Returns whether records were read, none of which has a time.
    pub(crate) fn is_timeless(&self) -> bool {
        self.read > 0 && self.steps.is_empty()
    }

    /// Returns the offset of the first event whose time is above the limit, and its time. It may have been handled.
    pub(crate) fn first_beyond(&self, limit_ms: i64) -> Option<(i64, i64)> {
        self.steps.get(self.beyond(limit_ms)).map(|step| (step.offset, step.time_ms))
    }

    /// Returns the number of records that were read from the first one on whose time is above the limit.
    pub(crate) fn records_beyond(&self, limit_ms: i64) -> u64 {
        self.steps.get(self.beyond(limit_ms)).map_or(0, |step| self.read - step.record)
    }

    fn beyond(&self, limit_ms: i64) -> usize {
        self.steps.partition_point(|step| step.time_ms <= limit_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: i64 = 1_000_000;

    /// Offsets are ten apart.
    fn with(timestamps: &[i64]) -> Timeline {
        let mut line = Timeline::default();
        timestamps.iter().zip(0..).for_each(|(&at, number)| line.record(number * 10, at, WALL, 10));
        line
    }

    #[test]
    fn the_first_event_that_is_not_handled_has_the_time() {
        let mut line = with(&[100, 105, 200, 300]);
        let mut times = Vec::new();
        for next in [0, 1, 10, 20, 21, 30, 31, 99] {
            line.handled(next);
            times.push(line.time_ms());
        }
        assert_eq!(times, [100, 100, 100, 200, 200, 300, 300, 300].map(Some));
    }

    #[test]
    fn events_beyond_a_limit_begin_with_the_first_one() {
        let line = with(&[100, 105, 200, 300]);
        assert_eq!((line.first_beyond(199), line.records_beyond(199)), (Some((20, 200)), 2));
        assert_eq!(line.first_beyond(200), Some((30, 300)));
        assert_eq!((line.first_beyond(300), line.records_beyond(300)), (None, 0));
        assert_eq!(line.records_beyond(i64::MIN), 4);
    }

    #[test]
    fn a_few_clocks_that_are_ahead_count_for_nothing() {
        let line = with(&[100, 9_000, 9_000, 9_000, 9_000, 9_000, 9_000, 9_000, 110, 120]);
        assert_eq!(line.first_beyond(200), None);
        let mut last_one = with(&[100, 9_000]);
        assert_eq!(last_one.first_beyond(200), Some((10, 9_000)), "nothing is known of those after it");
        last_one.record(20, 110, WALL, 10);
        assert_eq!(last_one.first_beyond(200), None);
    }

    #[test]
    fn more_of_them_are_the_time() {
        let line = with(&[100, 9_000, 9_000, 9_000, 9_000, 9_000, 9_000, 9_000, 9_000, 110]);
        assert_eq!(line.first_beyond(200), Some((10, 9_000)));
        assert_eq!(line.first_beyond(9_000), None, "the time does not go back further");
    }

    #[test]
    fn a_clock_that_is_behind_counts_once() {
        let mut line = with(&[500, 510, 3, 520]);
        assert_eq!(line.time_ms(), Some(3));
        line.handled(30);
        assert_eq!(line.time_ms(), Some(520));
    }

    #[test]
    fn timestamps_ahead_of_the_wall_clock_are_limited() {
        let mut line = with(&[-1, WALL + 60_001]);
        assert!(line.is_timeless() && line.time_ms().is_none());
        line.record(20, WALL + 60_000, WALL, 10);
        assert_eq!((line.is_timeless(), line.time_ms()), (false, Some(WALL)));
    }
}
