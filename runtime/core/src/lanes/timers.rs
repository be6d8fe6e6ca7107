//! The timers of lanes, by time. A lane has at most one; setting another one replaces it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Distinguishes a timer from older ones of the lane, or of an earlier lane with the same index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimerId(u64);

#[derive(Debug, Default)]
pub(super) struct Timers {
    /// All timers, including replaced ones and those of removed lanes, which are recognized when they expire.
    heap: BinaryHeap<Reverse<(Duration, TimerId, u32)>>,
    set: u64,
}

impl Timers {
    pub(super) fn set(&mut self, lane: u32, until: Duration) -> TimerId {
        self.set += 1;
        let id = TimerId(self.set);
        self.heap.push(Reverse((until, id, lane)));
        id
    }

    /// Returns when the next timer expires.
    pub(super) fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse((until, ..))| *until)
    }

    /// Removes the next timer that has expired. The caller checks that it is still the lane's own.
    pub(super) fn pop_expired(&mut self, now: Duration) -> Option<(u32, TimerId)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, id, lane))| (lane, id))
    }
}
