//! The end of a loop: failures, causes of a drain, and the state after it.

use std::time::Duration;

use keylane_core::{BlockedOn, CallId, Notice, Partition, PartitionStop, Reason, Stall};

use super::super::Totals;
use super::LoopEnd;
use super::log::HandlerLog;
use super::reading::Reading;

/// The end of one loop.
#[derive(Debug)]
pub(in crate::app) struct Closing {
    drain_timeout: Duration,
    /// Under `--until-end`, the time after which an empty assignment ends the run.
    until_end: Option<Duration>,
    /// Uptime since which no partition is assigned.
    empty_since: Duration,
    had_loss: bool,
    /// The failures that prevent exit code 0.
    failures: Vec<String>,
    /// The deadline of the drain, if it has begun.
    deadline: Option<Duration>,
    /// Whether the handler can't continue.
    stop: bool,
    /// Whether a partition has stopped.
    partition_stopped: bool,
    /// The failure text of a partition that can't be read for now, or whose topic was replaced.
    unreadable: Option<String>,
    /// Whether every event up to the end of each partition is committed.
    end_reached: bool,
    drained: bool,
    /// Whether a cancelled call does not terminate, so that the process must end.
    stuck: bool,
    /// Whether a cancelled call has not terminated at the end of the drain. The end of the process must not wait for
    /// it.
    calls_left: bool,
}

impl Closing {
    /// Creates the state of a loop that is not closing. `until_end`: under `--until-end`, the maximum time of an empty
    /// assignment.
    pub(in crate::app) fn new(drain_timeout: Duration, until_end: Option<Duration>) -> Self {
        Closing {
            drain_timeout,
            until_end,
            empty_since: Duration::ZERO,
            had_loss: false,
            failures: Vec::new(),
            deadline: None,
            stop: false,
            partition_stopped: false,
            unreadable: None,
            end_reached: false,
            drained: false,
            stuck: false,
            calls_left: false,
        }
    }

    pub(super) fn begin(&mut self, now: Duration) {
        self.empty_since = now;
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
    pub(super) fn fail(&mut self, log: &HandlerLog, failure: String) {
        tracing::error!(handler = log.handler(), failure, "handler failed");
        self.failures.push(failure);
    }

    /// Notes that the handler can't continue, with the failure.
    pub(super) fn stop(&mut self, log: &HandlerLog, failure: String) {
        self.fail(log, failure);
        self.stop = true;
    }

    pub(super) fn handler_stopped(
        &mut self,
        log: &HandlerLog,
        at: (Partition, i64),
        reason: Reason,
        error: &str,
    ) {
        self.stop(log, log.handler_stop(at, reason, error));
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
        self.fail(log, log.partition_stop(partition, offset, reason));
        self.partition_stopped = true;
    }

    pub(super) fn partition_stalled(&mut self, log: &HandlerLog, stall: &Stall) {
        if let BlockedOn::ReadFailed(why) = stall.blocked_on {
            self.unreadable = Some(log.unreadable(stall.partition, stall.offset, why));
        }
    }

    pub(super) fn noticed(&mut self, log: &HandlerLog, notice: Notice) {
        if let Notice::TopicReplaced { partition, .. } = notice {
            self.unreadable = Some(log.replaced(partition));
        }
    }

    pub(super) fn call_stuck(&mut self, log: &HandlerLog, call: CallId) {
        self.stuck = true;
        self.fail(
            log,
            format!("guest call {call:?} did not terminate after it was cancelled; the process ends"),
        );
    }

    pub(super) fn end_reached(&mut self) {
        self.end_reached = true;
    }

    pub(super) fn partitions_lost(&mut self) {
        self.had_loss = true;
    }

    /// Records a drain that was requested from outside the loop: a failure under `--until-end`.
    pub(super) fn stopped_by(&mut self, why: &str) {
        if self.is_until_end() {
            self.failures.push(format!("stopped by {why} before the end"));
        }
    }

    // -- the drain ----------------------------------------------------------------------------------

    /// Returns whether one of the causes requires a drain. Records the failure if a partition can't be read.
    pub(super) fn must_drain(&mut self, log: &HandlerLog, reading: &Reading, now: Duration) -> bool {
        let unreadable = self.unreadable.take().filter(|_| self.is_until_end());
        let cannot_end = self.is_until_end() && self.partition_stopped || unreadable.is_some();
        if let Some(failure) = unreadable {
            self.fail(log, failure);
        }
        self.stop || self.end_reached || cannot_end || self.stays_empty(log, reading, now)
    }

    /// Returns whether, under `--until-end`, no partition has been assigned for the time limit. In a group with more
    /// members than partitions, some members never get one.
    fn stays_empty(&mut self, log: &HandlerLog, reading: &Reading, now: Duration) -> bool {
        let Some(limit) = self.until_end else { return false };
        if !reading.has_nothing_assigned() {
            self.empty_since = now;
        }
        if now < self.empty_since + limit || self.deadline.is_some() {
            return false;
        }
        tracing::warn!(handler = log.handler(), "no partition was assigned");
        if self.had_loss {
            self.failures.push("its partitions were lost, and none was assigned again".to_owned());
        }
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

    pub(super) fn drained(&mut self, log: &HandlerLog, clean: bool, calls_left: bool) {
        self.drained = true;
        self.calls_left = calls_left;
        tracing::info!(handler = log.handler(), clean, "drained");
        if !clean {
            let failure =
                "drain timed out with unfinished or uncommitted work: these events will be processed again";
            self.fail(log, failure.to_owned());
        }
    }

    /// Returns the remaining time of the drain.
    pub(super) fn time_left(&self, now: Duration) -> Duration {
        self.deadline.map_or(Duration::ZERO, |deadline| deadline.saturating_sub(now))
    }

    pub(super) fn into_end(self, handler: String, totals: Totals) -> LoopEnd {
        let Closing { failures, stuck, calls_left, .. } = self;
        LoopEnd { handler, failures, totals, stuck, calls_left }
    }
}
