//! Read errors: after each of them the reader's position must be verified again. After most of them, reading is retried
//! with a growing delay, and a stall is reported until something is read.

use std::mem::discriminant;
use std::time::Duration;

use super::Core;
use crate::outbox::Pending;
use crate::partitions::{LogBounds, Phase, PositionState, ReadFailure};
use crate::{Blockage, BlockedOn, Notice, ReadError};

/// The delay before a retry doubles from the minimum to the maximum.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

impl Core {
    pub(super) fn read_failed(&mut self, index: u32, why: ReadError) {
        let next = self.partitions.get(index).ledger.next();
        self.end_unfetched(index, false); // the read error is reported instead
        match why {
            ReadError::Interrupted => {
                self.partitions.get_mut(index).reading.position = PositionState::Unverified
            }
            ReadError::OutOfRange { log_start, log_end } if !(log_start..=log_end).contains(&next) => {
                self.end_outside_log(index, LogBounds { start: log_start, end: log_end });
            }
            ReadError::TopicRecreated { topic_id, log_start } => {
                self.topic_recreated(index, topic_id, log_start)
            }
            // `OutOfRange` here: the reader is outside the log, but the ledger's next offset is not, so nothing is
            // skipped.
            ReadError::OutOfRange { .. }
            | ReadError::Denied
            | ReadError::Missing
            | ReadError::Corrupt
            | ReadError::Unknown
            | ReadError::SeekFailed => self.schedule_read_retry(index, why),
        }
    }

    fn schedule_read_retry(&mut self, index: u32, why: ReadError) {
        let state = self.partitions.get_mut(index);
        let (partition, offset) = (state.id, state.ledger.next());
        state.reading.position = PositionState::Unverified;
        let before = state.reading.failure.filter(|before| before.offset == offset);
        // A read of data corrupted in transit, or at a wrong position, may succeed on the first retry. A rejected
        // request needs time.
        let may_be_transient =
            matches!(why, ReadError::Corrupt | ReadError::Unknown | ReadError::OutOfRange { .. });
        let retry_at_once = before.is_none() && may_be_transient;
        let tries = before.map_or(1, |before| before.tries);
        let since = before.map_or(self.now.uptime, |before| before.since);
        let reported =
            state.reading.failure.filter(|before| before.reported).map(|before| discriminant(&before.why));
        if !retry_at_once && reported != Some(discriminant(&why)) {
            self.report_stall(Blockage::of_partition(partition, Some(offset), BlockedOn::ReadFailed(why)));
        }
        let reported = reported.is_some() || !retry_at_once;
        let pause = if retry_at_once { Duration::ZERO } else { pause_after(tries) };
        let retry_at = self.now.uptime + pause;
        let state = self.partitions.get_mut(index);
        state.reading.failure = Some(ReadFailure { why, offset, tries, retry_at, since, reported });
        self.scans.read_failures = true;
        if retry_at_once {
            self.retry_read(index);
        }
    }

    /// Repositions the reader to the ledger's next offset. A corrupt batch must never become a gap: the next record
    /// must follow the last one.
    fn retry_read(&mut self, index: u32) {
        let state = self.partitions.get_mut(index);
        let (id, next) = (state.id, state.ledger.next());
        let Some(failure) = &mut state.reading.failure else { return };
        // The client rejects a seek in a partition that it does not fetch.
        let needs_assign = match failure.why {
            ReadError::Denied | ReadError::Missing | ReadError::SeekFailed | ReadError::OutOfRange { .. } => {
                true
            }
            ReadError::Corrupt
            | ReadError::Unknown
            | ReadError::Interrupted
            | ReadError::TopicRecreated { .. } => false,
        };
        // The next retry is scheduled now, because the client reports some errors only once.
        failure.tries += 1;
        failure.retry_at = self.now.uptime + pause_after(failure.tries);
        self.outbox.notice(Notice::Repositioned { partition: id, offset: next });
        if needs_assign {
            self.unverify_positions();
            self.partitions.get_mut(index).reading.position = PositionState::Repositioned;
            self.outbox.push(Pending::Reassign(id, next));
        } else {
            self.partitions.get_mut(index).reading.position = PositionState::Unverified;
            self.outbox.push(Pending::Reposition(id, next));
        }
    }

    /// Ends the failure, if there is one, after a successful read.
    pub(super) fn read_recovered(&mut self, index: u32) {
        let state = self.partitions.get_mut(index);
        if state.reading.failure.take().is_some_and(|failure| failure.reported) {
            self.end_stall(index, true);
        }
    }

    pub(super) fn check_read_retries(&mut self) {
        if !self.scans.read_failures {
            return;
        }
        let now = self.now.uptime;
        for index in self.partitions.indexes() {
            let state = self.partitions.get(index);
            let due = state.reading.failure.is_some_and(|failure| failure.retry_at <= now);
            if due && state.phase == Phase::Active {
                self.retry_read(index);
            }
        }
        self.scans.read_failures = self.partitions.iter().any(|state| state.reading.failure.is_some());
    }

    pub(super) fn next_read_retry(&self) -> Option<Duration> {
        if !self.scans.read_failures {
            return None;
        }
        let active = self.partitions.iter().filter(|state| state.phase == Phase::Active);
        active.filter_map(|state| Some(state.reading.failure?.retry_at)).min()
    }

    /// Reports that every owned partition has stopped: a handler that can't read any must not stay in its group.
    pub(super) fn check_all_stopped(&mut self) {
        let rebalancing = self.rebalance.assign.is_some() || self.rebalance.revoke.is_some();
        if !self.scans.stopped || rebalancing || self.drain.is_some() {
            return;
        }
        let ours = || self.partitions.iter().filter(|state| state.phase != Phase::Vacant);
        if ours().any(|state| state.phase != Phase::Stopped) {
            self.scans.stopped = ours().any(|state| state.phase == Phase::Stopped);
        } else {
            self.scans.stopped = false;
            self.outbox.push(Pending::AllStopped);
        }
    }
}

fn pause_after(tries: u32) -> Duration {
    RETRY_MIN.saturating_mul(1 << tries.saturating_sub(2).min(6)).min(RETRY_MAX)
}
