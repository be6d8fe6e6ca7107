//! The retry states of lanes: attempt, delay and quarantine of their first events.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

/// Number of calls without a fault after which a lane shares calls with other lanes again.
const CLEAN_CALLS: u8 = 16;

/// The retry state of a lane. Few lanes have one, so it is not part of the lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryState {
    /// The next attempt of the first event.
    pub(crate) attempt: u32,
    /// Events up to this offset need an instance that has processed no call.
    fresh_to: Option<i64>,
    /// Calls without a fault that are still required.
    clean_calls_left: u8,
    /// When the first event may be retried.
    pub(crate) until: Option<Duration>,
    /// Distinguishes this wait from older ones of the lane, or of an earlier lane with the same index.
    wait: u64,
}

/// All retrying lanes, and the waiting ones by time.
#[derive(Debug, Default)]
pub(super) struct RetryStates {
    by_lane: BTreeMap<u32, RetryState>,
    waits: BinaryHeap<Reverse<(Duration, u64, u32)>>,
    last_wait: u64,
}

impl RetryState {
    fn new() -> Self {
        RetryState { attempt: 1, fresh_to: None, clean_calls_left: 0, until: None, wait: 0 }
    }

    fn is_over(&self) -> bool {
        self.attempt == 1 && self.fresh_to.is_none() && self.clean_calls_left == 0 && self.until.is_none()
    }
}

impl RetryStates {
    pub(super) fn get(&self, lane: u32) -> Option<&RetryState> {
        self.by_lane.get(&lane)
    }

    pub(super) fn remove(&mut self, lane: u32) {
        self.by_lane.remove(&lane);
    }

    /// All lanes with a retry state.
    pub(super) fn lanes(&self) -> impl Iterator<Item = (u32, &RetryState)> {
        self.by_lane.iter().map(|(lane, retry_state)| (*lane, retry_state))
    }

    /// Sets the next attempt of the lane's first event.
    pub(super) fn attempt(&mut self, lane: u32, attempt: u32) {
        self.entry(lane).attempt = attempt;
    }

    /// Sets the retry time of the lane's first event.
    pub(super) fn wait(&mut self, lane: u32, until: Duration) {
        self.last_wait += 1;
        let wait = self.last_wait;
        let retry_state = self.entry(lane);
        retry_state.until = Some(until);
        retry_state.wait = wait;
        self.waits.push(Reverse((until, wait, lane)));
    }

    /// Quarantines the events of the lane up to this offset: they were in a call that failed as a whole.
    pub(super) fn quarantine(&mut self, lane: u32, last: i64) {
        let retry_state = self.entry(lane);
        retry_state.fresh_to = retry_state.fresh_to.max(Some(last));
        retry_state.clean_calls_left = CLEAN_CALLS;
    }

    /// Records the dispatch of the lane's first event. Returns its attempt, and whether it needs a fresh instance.
    pub(super) fn dispatched(&mut self, lane: u32, offset: i64) -> (u32, bool) {
        let retry_state = self.entry(lane);
        let fresh = retry_state.fresh_to >= Some(offset);
        if retry_state.fresh_to <= Some(offset) {
            retry_state.fresh_to = None;
        }
        (std::mem::replace(&mut retry_state.attempt, 1), fresh)
    }

    /// Records a call of the lane that ended without a fault. Returns true if the retry state ended and was removed.
    pub(super) fn record_clean_call(&mut self, lane: u32) -> bool {
        let retry_state = self.entry(lane);
        retry_state.clean_calls_left = retry_state.clean_calls_left.saturating_sub(1);
        let over = retry_state.is_over();
        if over {
            self.remove(lane);
        }
        over
    }

    pub(super) fn next_wake(&self) -> Option<Duration> {
        self.waits.peek().map(|Reverse((until, ..))| *until)
    }

    /// The next lane whose retry delay has passed.
    pub(super) fn wake(&mut self, now: Duration) -> Option<u32> {
        while self.waits.peek().is_some_and(|Reverse((until, ..))| *until <= now) {
            let Reverse((_, wait, lane)) = self.waits.pop()?;
            let retry_state = self.by_lane.get_mut(&lane);
            if let Some(retry_state) =
                retry_state.filter(|retry_state| retry_state.wait == wait && retry_state.until.is_some())
            {
                retry_state.until = None;
                return Some(lane);
            }
        }
        None
    }

    fn entry(&mut self, lane: u32) -> &mut RetryState {
        self.by_lane.entry(lane).or_insert_with(RetryState::new)
    }
}
