//! The causes that end a run with `--until-end`.

use std::time::Duration;

/// What a run with `--until-end` has reached, and what prevents its end.
#[derive(Debug)]
pub(super) struct UntilEnd {
    /// The time after which an empty assignment ends the run.
    empty_assignment_max: Duration,
    /// Uptime since which no partition is assigned.
    empty_since: Duration,
    /// Whether partitions were lost.
    had_loss: bool,
    /// Whether a partition has stopped.
    partition_stopped: bool,
    /// The failure text of a partition that can't be read for now, or whose topic was recreated.
    unreadable: Option<String>,
    /// Whether every event up to the end of each partition is committed.
    end_reached: bool,
}

impl UntilEnd {
    pub(super) fn new(empty_assignment_max: Duration) -> UntilEnd {
        UntilEnd {
            empty_assignment_max,
            empty_since: Duration::ZERO,
            had_loss: false,
            partition_stopped: false,
            unreadable: None,
            end_reached: false,
        }
    }

    pub(super) fn begin(&mut self, now: Duration) {
        self.empty_since = now;
    }

    pub(super) fn partitions_lost(&mut self) {
        self.had_loss = true;
    }

    pub(super) fn partition_stopped(&mut self) {
        self.partition_stopped = true;
    }

    /// Records that a partition can't be read for now, or that its topic was recreated.
    pub(super) fn unreadable(&mut self, failure: String) {
        self.unreadable = Some(failure);
    }

    pub(super) fn end_reached(&mut self) {
        self.end_reached = true;
    }

    /// Returns whether the run must end: the end is reached, or can't be reached. Also returns the failure of a
    /// partition that can't be read, once.
    pub(super) fn check(&mut self) -> (bool, Option<String>) {
        let unreadable = self.unreadable.take();
        (self.end_reached || self.partition_stopped || unreadable.is_some(), unreadable)
    }

    /// Returns whether no partition has been assigned for the time limit. `is_empty`: whether none is assigned now.
    pub(super) fn is_empty_for_too_long(&mut self, is_empty: bool, now: Duration) -> bool {
        if !is_empty {
            self.empty_since = now;
        }
        now >= self.empty_since + self.empty_assignment_max
    }

    /// Returns the failure of a run that ends without a partition, if partitions were lost.
    pub(super) fn loss_failure(&self) -> Option<String> {
        self.had_loss.then(|| "its partitions were lost, and none was assigned again".to_owned())
    }
}
