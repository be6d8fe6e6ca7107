//! `read_in_step`: no partition is further ahead than this, by record time, of the slowest one that is not at the end of its
//! log. The others wait for it: their events beyond the limit are not dispatched, and beyond a few of them, nothing is read.
//!
//! The time of a partition is that of its first event that is not handled: not settled, and not between two attempts while
//! nothing of the partition is in a call. So a retry holds only what is behind it.
//!
//! With a gate, only reading waits, and what was read within the limit counts as dispatched: events may wait in the gate for
//! records that are not read yet, and it decides in which order they run.
//!
//! *No dead-lock.* The slowest partition never waits, because its limit is that of the next one. It ends the wait of others
//! when it is handled or at its end, or else, after [`PASSED_OVER_AFTER`], because it is passed over.

use std::time::Duration;

use super::Core;
use crate::partitions::{PartitionState, Phase};
use crate::timeline::{LOOK_AHEAD, Timeline};
use crate::{Notice, OwnershipId};

/// How long others wait for a partition of which nothing is read or handled.
const PASSED_OVER_AFTER: Duration = Duration::from_mins(10);
/// Time counts in steps of at most this length: while the process is suspended, no partition can be read.
const WAIT_STEP_MAX: Duration = Duration::from_secs(2);
/// Times that differ by less than this part of the limit are not told apart.
const GRAINS: i64 = 16;

/// The partitions of a handler with `read_in_step`.
#[derive(Debug)]
pub(super) struct InStep {
    /// How far ahead a partition may be, in milliseconds.
    ahead_max_ms: i64,
    /// By the index of the partition.
    partitions: Vec<PartitionTime>,
    /// The uptime of the last check of partitions to pass over.
    checked_at: Duration,
}

#[derive(Debug)]
struct PartitionTime {
    /// The ownership that the rest belongs to.
    ownership: OwnershipId,
    timeline: Timeline,
    /// Whether the last read has reached the end of the log: under `read_committed`, the last stable offset.
    read_to_end: bool,
    /// The greatest time that an event of it may have.
    limit_ms: i64,
    /// Everything below this offset had a call, when no call of the partition was left.
    handled_to: i64,
    /// Events beyond this offset wait.
    waits_beyond: Option<i64>,
    /// The next offset to handle and the next one to read, as of the last check.
    seen: (i64, i64),
    /// How long others have waited for it, without a change of `seen`.
    waited: Duration,
    passed_over: bool,
}

/// How the others wait for a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// They do not: it is not ours, has stopped, is at its end, is passed over, or its records have no times.
    Ignored,
    /// Nothing of it was read yet.
    Unknown,
    /// Its time in milliseconds.
    At(i64),
}

impl InStep {
    pub(super) fn new(ahead_max: Duration) -> InStep {
        let ahead_max_ms = i64::try_from(ahead_max.as_millis()).unwrap_or(i64::MAX);
        InStep { ahead_max_ms, partitions: Vec::new(), checked_at: Duration::ZERO }
    }

    /// Returns what is known of an ownership.
    fn of(&mut self, index: u32, ownership: OwnershipId) -> &mut PartitionTime {
        let at = index as usize;
        while self.partitions.len() <= at {
            self.partitions.push(PartitionTime::default());
        }
        let found = self.partitions.get_mut(at).expect("it was just added");
        if found.ownership != ownership {
            found.timeline.clear();
            let timeline = std::mem::take(&mut found.timeline);
            *found = PartitionTime { ownership, timeline, ..PartitionTime::default() };
        }
        found
    }

    fn get(&self, index: u32) -> Option<&PartitionTime> {
        self.partitions.get(index as usize)
    }
}

impl Default for PartitionTime {
    fn default() -> Self {
        PartitionTime {
            ownership: OwnershipId(0),
            timeline: Timeline::default(),
            read_to_end: false,
            limit_ms: i64::MIN,
            handled_to: 0,
            waits_beyond: None,
            seen: (0, 0),
            waited: Duration::ZERO,
            passed_over: false,
        }
    }
}

impl PartitionTime {
    /// Returns the offset of the first event that is not handled.
    fn next_to_handle(&mut self, state: &PartitionState, has_gate: bool) -> i64 {
        if has_gate {
            let waiting = self.timeline.first_beyond(self.limit_ms);
            return waiting.map_or(state.ledger.next(), |(offset, _)| offset);
        }
        if state.running + state.unacked == 0 {
            self.handled_to = self.handled_to.max(state.dispatched_to + 1);
        }
        state.ledger.committable().max(self.handled_to)
    }

    fn standing(&self, state: &PartitionState, next_to_handle: i64) -> Standing {
        let next = state.ledger.next();
        let is_read = self.read_to_end || state.end.is_some_and(|end| next >= end);
        match state.phase {
            _ if self.passed_over => Standing::Ignored,
            Phase::LookingUp(_) | Phase::Resolved | Phase::Starting => Standing::Unknown,
            Phase::Active if is_read && next_to_handle >= next => Standing::Ignored,
            Phase::Active if self.timeline.is_timeless() => Standing::Ignored,
            Phase::Active => self.timeline.time_ms().map_or(Standing::Unknown, Standing::At),
            Phase::Vacant
            | Phase::Closing { .. }
            | Phase::Committing { .. }
            | Phase::Closed
            | Phase::Stopped => Standing::Ignored,
        }
    }
}

impl Core {
    /// Takes the time of a record that was read.
    pub(super) fn record_time(&mut self, index: u32, offset: i64, timestamp: i64) {
        let wall_ms = self.now.wall_ms;
        let Some(in_step) = &mut self.in_step else { return };
        let grain_ms = (in_step.ahead_max_ms / GRAINS).max(1);
        let times = in_step.of(index, self.partitions.get(index).ownership);
        (times.read_to_end, times.passed_over) = (false, false);
        times.timeline.record(offset, timestamp, wall_ms, grain_ms);
    }

    /// The last read has reached the end of the log, and all before it was admitted.
    pub(super) fn record_end(&mut self, index: u32) {
        let ownership = self.partitions.get(index).ownership;
        if let Some(in_step) = &mut self.in_step {
            let times = in_step.of(index, ownership);
            (times.read_to_end, times.passed_over) = (true, false);
        }
    }

    /// Decides which events wait for slower partitions.
    pub(super) fn keep_in_step(&mut self) {
        let Some(in_step) = &mut self.in_step else { return };
        let has_gate = self.lanes.gates.is_some();
        // Those of the slowest partition and of the next one, and the index of the slowest.
        let (mut first_ms, mut second_ms, mut slowest) = (i64::MAX, i64::MAX, None);
        for index in self.partitions.indexes() {
            let state = self.partitions.get(index);
            let times = in_step.of(index, state.ownership);
            let next = times.next_to_handle(state, has_gate);
            times.timeline.handled(next);
            let time_ms = match times.standing(state, next) {
                Standing::Ignored => continue,
                Standing::Unknown => i64::MIN,
                Standing::At(time_ms) => time_ms,
            };
            if slowest.is_none() || time_ms < first_ms {
                (second_ms, first_ms, slowest) = (first_ms, time_ms, Some(index));
            } else {
                second_ms = second_ms.min(time_ms);
            }
        }
        for index in self.partitions.indexes() {
            let InStep { ahead_max_ms, .. } = *in_step;
            let state = self.partitions.get_mut(index);
            let times = in_step.of(index, state.ownership);
            let least_ms = if slowest == Some(index) { second_ms } else { first_ms };
            times.limit_ms = least_ms.saturating_add(ahead_max_ms);
            let beyond = times.timeline.first_beyond(times.limit_ms).filter(|_| state.phase == Phase::Active);
            let beyond = beyond.map(|(offset, _)| offset - 1);
            if std::mem::replace(&mut times.waits_beyond, beyond) == beyond {
                continue;
            }
            self.reads.to_decide.push(index);
            if !has_gate {
                state.waits_beyond = beyond;
                // A hold comes first, and sets the barrier itself.
                if state.hold.is_none() {
                    let barrier = state.barrier();
                    self.lanes.set_barrier(index, barrier, None);
                }
            }
        }
    }

    /// Returns whether reading waits for slower partitions: enough records were read to know that the first one beyond the
    /// limit is not one whose clock is ahead.
    pub(super) fn is_ahead(&self, index: u32) -> bool {
        let times = self.in_step.as_ref().and_then(|in_step| in_step.get(index));
        times.is_some_and(|times| times.timeline.records_beyond(times.limit_ms) >= LOOK_AHEAD)
    }

    /// Ends the wait of a partition, with its ownership.
    pub(super) fn end_wait(&mut self, index: u32) {
        let state = self.partitions.get_mut(index);
        if state.waits_beyond.take().is_some() {
            let barrier = state.barrier();
            self.lanes.set_barrier(index, barrier, None);
        }
    }

    /// Passes over partitions for which others have waited for too long.
    pub(super) fn check_passed_over(&mut self) {
        let Some(in_step) = &mut self.in_step else { return };
        let has_gate = self.lanes.gates.is_some();
        let passed = (self.now.uptime - in_step.checked_at).min(WAIT_STEP_MAX);
        in_step.checked_at = self.now.uptime;
        // The greatest time of an event that waits.
        let waiting = self.partitions.iter().zip(&in_step.partitions).filter_map(|(state, times)| {
            times.waits_beyond.filter(|_| state.phase == Phase::Active)?;
            times.timeline.first_beyond(times.limit_ms)
        });
        let waiting_ms = waiting.map(|(_, time_ms)| time_ms).max();
        for index in self.partitions.indexes() {
            let state = self.partitions.get(index);
            let ahead_max_ms = in_step.ahead_max_ms;
            let times = in_step.of(index, state.ownership);
            let next = times.next_to_handle(state, has_gate);
            let seen = (next, state.ledger.next());
            if std::mem::replace(&mut times.seen, seen) != seen {
                (times.waited, times.passed_over) = (Duration::ZERO, false);
            }
            let is_waited_for = match (times.standing(state, next), waiting_ms) {
                (Standing::Ignored, _) | (_, None) => false,
                (Standing::Unknown, Some(_)) => true,
                (Standing::At(time_ms), Some(waiting_ms)) => {
                    time_ms.saturating_add(ahead_max_ms) < waiting_ms
                }
            };
            if !is_waited_for {
                times.waited = Duration::ZERO;
                continue;
            }
            times.waited += passed;
            if times.waited >= PASSED_OVER_AFTER {
                times.passed_over = true;
                self.outbox.notice(Notice::PassedOver { partition: state.id, offset: next });
            }
        }
    }
}
