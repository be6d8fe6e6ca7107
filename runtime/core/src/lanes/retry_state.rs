//! Lanes whose first event failed before: when it may be tried again, and how carefully.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

/// Calls without a fault after which a lane shares calls with others again.
const CLEAN_CALLS: u8 = 16;

/// What is known against a lane. Few lanes have one, so it does not lie in the lane itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryState {
    /// Which attempt the first event is in.
    pub(crate) attempt: u32,
    /// Events up to this offset need an instance that has served no call.
    fresh_to: Option<i64>,
    /// So many calls without a fault are missing.
    clean_calls_left: u8,
    /// When the first event may be tried again.
    pub(crate) until: Option<Duration>,
    /// Tells this wait from older ones of the lane, or of an earlier lane with its index.
    wait: u64,
}

/// All retrying lanes, and who of them waits.
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

    pub(super) fn forget(&mut self, lane: u32) {
        self.by_lane.remove(&lane);
    }

    /// Lanes with a trouble.
    pub(super) fn lanes(&self) -> impl Iterator<Item = (u32, &RetryState)> {
        self.by_lane.iter().map(|(lane, retry_state)| (*lane, retry_state))
    }

    /// The first event of the lane is in this attempt.
    pub(super) fn attempt(&mut self, lane: u32, attempt: u32) {
        self.of(lane).attempt = attempt;
    }

    /// The first event of the lane waits.
    pub(super) fn wait(&mut self, lane: u32, until: Duration) {
        self.last_wait += 1;
        let wait = self.last_wait;
        let retry_state = self.of(lane);
        retry_state.until = Some(until);
        retry_state.wait = wait;
        self.waits.push(Reverse((until, wait, lane)));
    }

    /// The events of the lane up to this offset were in a call that failed as a whole.
    pub(super) fn quarantine(&mut self, lane: u32, last: i64) {
        let retry_state = self.of(lane);
        retry_state.fresh_to = retry_state.fresh_to.max(Some(last));
        retry_state.clean_calls_left = CLEAN_CALLS;
    }

    /// The first event of the lane is dispatched: gives its attempt, and whether it needs an instance of its own.
    pub(super) fn dispatched(&mut self, lane: u32, offset: i64) -> (u32, bool) {
        let retry_state = self.of(lane);
        let fresh = retry_state.fresh_to >= Some(offset);
        if retry_state.fresh_to <= Some(offset) {
            retry_state.fresh_to = None;
        }
        (std::mem::replace(&mut retry_state.attempt, 1), fresh)
    }

    /// A call of the lane ended without a fault. True: nothing is left against it.
    pub(super) fn clean(&mut self, lane: u32) -> bool {
        let retry_state = self.of(lane);
        retry_state.clean_calls_left = retry_state.clean_calls_left.saturating_sub(1);
        let over = retry_state.is_over();
        if over {
            self.forget(lane);
        }
        over
    }

    pub(super) fn next_wake(&self) -> Option<Duration> {
        self.waits.peek().map(|Reverse((until, ..))| *until)
    }

    /// The next lane whose wait is over.
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

    fn of(&mut self, lane: u32) -> &mut RetryState {
        self.by_lane.entry(lane).or_insert_with(RetryState::new)
    }
}
