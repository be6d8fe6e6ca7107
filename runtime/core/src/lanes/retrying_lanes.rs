//! The retry states of lanes. Few lanes have one, so it is not part of the lane.

use std::collections::BTreeMap;
use std::time::Duration;

use super::timers::TimerId;

/// Number of calls without a fault after which a lane shares calls with other lanes again.
const CLEAN_CALLS: u8 = 16;

/// The state of a lane whose events are dispatched one per call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RetryState {
    /// Calls without a fault that are still required.
    clean_calls_left: u8,
    /// The timer of its first event, and when it expires, while that event is between two attempts.
    delay: Option<(TimerId, Duration)>,
}

#[derive(Debug, Default)]
pub(super) struct RetryingLanes {
    by_lane: BTreeMap<u32, RetryState>,
    /// Number of lanes with a delay.
    delayed: usize,
}

impl RetryingLanes {
    pub(super) fn begin(&mut self, lane: u32) {
        self.by_lane.entry(lane).or_default();
    }

    pub(super) fn remove(&mut self, lane: u32) {
        let removed = self.by_lane.remove(&lane);
        self.delayed -= usize::from(removed.is_some_and(|state| state.delay.is_some()));
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = u32> {
        self.by_lane.keys().copied()
    }

    pub(super) fn is_delayed(&self, lane: u32) -> bool {
        self.waits_until(lane).is_some()
    }

    /// Returns when the next attempt of the lane's first event is due, if the lane waits for it.
    pub(super) fn waits_until(&self, lane: u32) -> Option<Duration> {
        self.by_lane.get(&lane)?.delay.map(|(_, until)| until)
    }

    pub(super) fn wait(&mut self, lane: u32, timer: TimerId, until: Duration) {
        let before = self.by_lane.entry(lane).or_default().delay.replace((timer, until));
        self.delayed += usize::from(before.is_none());
    }

    /// Handles an expired timer of the lane. Returns true if the lane waited for it.
    pub(super) fn expired(&mut self, lane: u32, timer: TimerId) -> bool {
        let Some(state) = self.by_lane.get_mut(&lane) else { return false };
        let expired = state.delay.take_if(|(own, _)| *own == timer).is_some();
        self.delayed -= usize::from(expired);
        expired
    }

    /// Returns the number of lanes whose first event is between two attempts.
    pub(super) fn delayed(&self) -> usize {
        self.delayed
    }

    /// Notes that a call of the lane failed as a whole.
    pub(super) fn record_fault(&mut self, lane: u32) {
        self.by_lane.entry(lane).or_default().clean_calls_left = CLEAN_CALLS;
    }

    /// Notes that a call of the lane ended without a fault. Returns true if no more are required, and no delay is
    /// set.
    pub(super) fn record_clean_call(&mut self, lane: u32) -> bool {
        let Some(state) = self.by_lane.get_mut(&lane) else { return true };
        state.clean_calls_left = state.clean_calls_left.saturating_sub(1);
        state.clean_calls_left == 0 && state.delay.is_none()
    }
}
