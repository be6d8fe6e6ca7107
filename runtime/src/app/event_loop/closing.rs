//! The end of a loop: failures, causes of a drain, and the state of the drain.

use std::time::Duration;

use keylane_core::{Blockage, BlockedOn, CallId, Notice, Partition, PartitionStop, Reason};

use super::super::Totals;
use super::log::HandlerLog;
use super::reading::Reading;
use super::until_end::UntilEnd;
use super::{HandlerView, LoopEnd};

/// The end of one loop.
#[derive(Debug)]
pub(in crate::app) struct Closing {
    drain_timeout: Duration,
    /// The end of a run with `--until-end`.
    until_end: Option<UntilEnd>,
    /// The failures that prevent exit code 0.
    failures: Vec<String>,
    /// The deadline of the drain, if it has begun.
    deadline: Option<Duration>,
    /// Whether the handler can't continue.
    stop: bool,
    drained: bool,
    /// Whether a cancelled call does not terminate, so that the process must end.
    stuck: bool,
    /// Whether a cancelled call has not terminated at the end of the drain. The end of the process must not wait for
    /// it.
    has_unterminated_calls: bool,
}

impl Closing {
    /// Creates the state of a loop that is not closing. `empty_assignment_max`: under `--until-end`, the maximum time
    /// of an empty assignment.
    pub(in crate::app) fn new(drain_timeout: Duration, empty_assignment_max: Option<Duration>) -> Self {
        Closing {
            drain_timeout,
            until_end: empty_assignment_max.map(UntilEnd::new),
            failures: Vec::new(),
            deadline: None,
            stop: false,
            drained: false,
            stuck: false,
            has_unterminated_calls: false,
        }
    }

    pub(super) fn begin(&mut self, now: Duration) {
        if let Some(until_end) = &mut self.until_end {
            until_end.begin(now);
        }
    }

    /// Returns whether this is a run with `--until-end`.
    pub(super) fn is_until_end(&self) -> bool {
        self.until_end.is_some()
    }

    pub(super) fn is_over(&self) -> bool {
        self.drained || self.stuck
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.stuck
    }

    // -- causes -------------------------------------------------------------------------------------

    /// Logs and records a failure. With any failure, the exit code is not 0.
    fn fail(&mut self, log: &HandlerLog, message: &'static str, failure: String) {
        log.failure(message, &failure);
        self.failures.push(failure);
    }

    /// Logs and records that the handler could not join its group.
    pub(super) fn join_failed(&mut self, log: &HandlerLog, failure: String) {
        self.fail(log, "handler failed", failure);
    }

    /// Logs and records that the handler can't continue, with the failure.
    pub(super) fn stop(&mut self, log: &HandlerLog, failure: String) {
        self.fail(log, "handler stopped", failure);
        self.stop = true;
    }

    pub(super) fn handler_stopped(
        &mut self,
        log: &HandlerLog,
        at: (Partition, i64),
        reason: Reason,
        error: &str,
    ) {
        self.stop(log, log.handler_stop_failure(at, reason, error));
    }

    pub(super) fn all_stopped(&mut self, log: &HandlerLog) {
        self.stop(log, "all of its partitions have stopped".to_owned());
    }

    pub(super) fn partition_stopped(
        &mut self,
        log: &HandlerLog,
        partition: Partition,
        offset: i64,
        reason: PartitionStop,
    ) {
        self.fail(log, "partition stopped", log.partition_stop_failure(partition, offset, reason));
        if let Some(until_end) = &mut self.until_end {
            until_end.partition_stopped();
        }
    }

    pub(super) fn partition_stalled(&mut self, log: &HandlerLog, stall: &Blockage) {
        if let (Some(until_end), BlockedOn::ReadFailed(why)) = (&mut self.until_end, stall.blocked_on)
            && let Some(offset) = stall.offset
        {
            until_end.unreadable(log.unreadable_failure(stall.partition, offset, why));
        }
    }

    pub(super) fn noticed(&mut self, log: &HandlerLog, notice: Notice) {
        if let Notice::EarlyAtEnd(early) = notice {
            self.fail(log, "events wait for missing order values", log.early_failure(&early));
        }
        if let (Some(until_end), Notice::TopicRecreated { partition, .. }) = (&mut self.until_end, notice) {
            until_end.unreadable(log.replaced_failure(partition));
        }
    }

    pub(super) fn call_stuck(&mut self, log: &HandlerLog, call: CallId) {
        self.stuck = true;
        let failure =
            format!("guest call {call:?} did not terminate after it was cancelled; the process ends");
        self.fail(log, "guest call stuck", failure);
    }

    pub(super) fn end_reached(&mut self) {
        if let Some(until_end) = &mut self.until_end {
            until_end.end_reached();
        }
    }

    pub(super) fn partitions_lost(&mut self) {
        if let Some(until_end) = &mut self.until_end {
            until_end.partitions_lost();
        }
    }

    /// Records a drain that was requested from outside the loop: a failure under `--until-end`.
    pub(super) fn stopped_by(&mut self, why: &str) {
        if self.is_until_end() {
            self.failures.push(format!("stopped by {why} before the end"));
        }
    }

    // -- the drain ----------------------------------------------------------------------------------

    /// Checks the causes that require a drain, and logs and records their failures. Returns whether there is one.
    pub(super) fn check_drain_causes(&mut self, log: &HandlerLog, reading: &Reading, now: Duration) -> bool {
        let Some(until_end) = &mut self.until_end else { return self.stop };
        let (must_end, unreadable) = until_end.check();
        if let Some(failure) = unreadable {
            self.fail(log, "handler failed", failure);
        }
        self.stop || must_end || self.check_assignment(log, reading, now)
    }

    /// Checks whether, under `--until-end`, no partition has been assigned for the time limit, and logs it. In a group
    /// with more members than partitions, some members never get one.
    fn check_assignment(&mut self, log: &HandlerLog, reading: &Reading, now: Duration) -> bool {
        let Some(until_end) = &mut self.until_end else { return false };
        if !until_end.is_empty_for_too_long(reading.has_nothing_assigned(), now) || self.deadline.is_some() {
            return false;
        }
        tracing::warn!(handler = log.handler(), "no partition was assigned");
        self.failures.extend(until_end.loss_failure());
        true
    }

    /// Begins the drain and returns its deadline; `None`: it has already begun.
    pub(super) fn begin_drain(&mut self, now: Duration) -> Option<Duration> {
        if self.deadline.is_some() {
            return None;
        }
        self.deadline = Some(now + self.drain_timeout);
        self.deadline
    }

    pub(super) fn drained(&mut self, log: &HandlerLog, clean: bool, has_unterminated_calls: bool) {
        self.drained = true;
        self.has_unterminated_calls = has_unterminated_calls;
        tracing::info!(handler = log.handler(), clean, "drained");
        if !clean {
            let failure =
                "drain timed out with unfinished or uncommitted work: these events will be processed again";
            self.fail(log, "drain timed out", failure.to_owned());
        }
    }

    /// Returns the remaining time of the drain.
    pub(super) fn time_left(&self, now: Duration) -> Duration {
        self.deadline.map_or(Duration::ZERO, |deadline| deadline.saturating_sub(now))
    }

    pub(super) fn into_end(self, handler: String, totals: Totals, view: HandlerView) -> LoopEnd {
        let Closing { failures, stuck, has_unterminated_calls, .. } = self;
        LoopEnd { handler, failures, totals, view, stuck, has_unterminated_calls }
    }
}
