//! The log lines about one handler's events and partitions. Lines that every event or every turn may cause are limited
//! ([`limits`]). The core's notices are in [`notices`].

mod limits;
mod notices;

use std::fmt::Display;

use keylane_core::{CommitError, DeadLetter, Now, Partition, Reason, Verdict};

use crate::guest::{Call, CallResult};
use crate::telemetry::Allowed;

use super::publishing::{Publishing, name_of};
use super::reading::Reading;

use limits::{Cause, LogLimits};

/// The log of one handler.
pub(in crate::app) struct HandlerLog {
    handler: String,
    topics: Vec<String>,
    limits: LogLimits,
}

impl HandlerLog {
    pub(in crate::app) fn new(handler: String, topics: Vec<String>) -> Self {
        HandlerLog { handler, topics, limits: LogLimits::new() }
    }

    pub(super) fn handler(&self) -> &str {
        &self.handler
    }

    pub(super) fn into_handler(self) -> String {
        self.handler
    }

    pub(super) fn topic(&self, partition: Partition) -> &str {
        self.topic_at(partition.topic)
    }

    pub(super) fn topic_at(&self, topic: u16) -> &str {
        self.topics.get(usize::from(topic)).map_or("?", String::as_str)
    }

    /// At the end: logs the number of lines dropped after the last one of each cause.
    pub(super) fn dropped_lines(&mut self) {
        for (cause, dropped) in self.limits.take_dropped() {
            tracing::warn!(handler = self.handler, ?cause, dropped, "log lines dropped");
        }
    }

    // -- the group ----------------------------------------------------------------------------------

    pub(super) fn start_unresolved(&mut self, now: Now, partition: Partition, reason: &str) {
        let Some(Allowed { dropped }) = self.limits.allow(Cause::StartUnknown, now) else { return };
        let (handler, topic, partition) = (&self.handler, self.topic(partition), partition.number);
        tracing::warn!(handler, topic, partition, reason, dropped, "partition start not resolved yet");
    }

    pub(super) fn commit_rejected(
        &mut self,
        now: Now,
        partition: Partition,
        code: &dyn Display,
        why: CommitError,
    ) {
        let Some(Allowed { dropped }) = self.limits.allow(Cause::CommitRejected, now) else { return };
        let (handler, topic, partition) = (&self.handler, self.topic(partition), partition.number);
        let remedy = commit_remedy(why);
        tracing::warn!(handler, topic, partition, %code, remedy, dropped, "commit rejected");
    }

    pub(super) fn client_error(&mut self, now: Now, error: &str) {
        let Some(Allowed { dropped }) = self.limits.allow(Cause::Client, now) else { return };
        let (handler, remedy) =
            (&self.handler, "check that the brokers run; the client reconnects by itself");
        tracing::warn!(handler, error, remedy, dropped, "the consumer reports an error");
    }

    /// The client retries the join: a rolling change of the assignor waits for the last member with the old one.
    pub(super) fn other_assignor(&mut self, now: Now) {
        let Some(Allowed { dropped }) = self.limits.allow(Cause::OtherAssignor, now) else { return };
        let remedy = "wait until they have left; if they stay, set `kafka.assignor` to their assignor (most clients: \
                      \"range\"), or use another `group_id`";
        tracing::warn!(
            handler = self.handler,
            remedy,
            dropped,
            "waiting to join: the group has members with another assignor"
        );
    }

    // -- events -------------------------------------------------------------------------------------

    /// Events without a lane key although the configuration names one.
    pub(super) fn missing_lane_keys(&mut self, now: Now, reading: &mut Reading) {
        let Some(missing) = reading.missing_lane_key() else { return };
        if self.limits.allow(Cause::NoLaneKey, now).is_none() {
            return;
        }
        let events = reading.report_missing();
        let remedy = if missing.registered {
            "the value has the prefix of a schema registry: use `registry-json:` instead of `json:`"
        } else {
            "check `lane_key`, or set `no_key = \"reject\"` to dead-letter such events"
        };
        let (handler, topic) = (&self.handler, self.topic(missing.partition));
        let (partition, offset) = (missing.partition.number, missing.offset);
        tracing::warn!(
            handler,
            topic,
            partition,
            offset,
            events,
            remedy,
            "events without the configured lane key are not ordered"
        );
    }

    /// Retries that the guest requested, and calls that failed.
    pub(super) fn call_ended(&mut self, now: Now, call: &Call) {
        for (row, refusal) in call.failed_rows() {
            if let Verdict::Retry { .. } = refusal.verdict
                && let Some(Allowed { dropped }) = self.limits.allow(Cause::Retry, now)
            {
                let (partition, offset) = call.batch.position(row as usize).unwrap_or_default();
                let (handler, topic, attempt) = (&self.handler, call.batch.topic(), call.batch.attempt());
                let error = refusal.reason.as_str();
                tracing::info!(
                    handler,
                    topic,
                    partition,
                    offset,
                    attempt,
                    error,
                    dropped,
                    "handler requested a retry"
                );
            }
        }
        if let CallResult::Failed(failure) = &call.result
            && let Some(Allowed { dropped }) = self.limits.allow(Cause::CallFailed, now)
        {
            let (handler, topic, fault) = (&self.handler, call.batch.topic(), failure.fault);
            let (partition, offset) =
                call.batch.position(failure.row.unwrap_or(0) as usize).unwrap_or_default();
            let (rows, error) = (call.batch.rows(), failure.message.as_str());
            tracing::warn!(
                handler,
                ?fault,
                topic,
                partition,
                offset,
                rows,
                error,
                dropped,
                "guest call failed"
            );
        }
    }

    pub(super) fn dead_letter(&mut self, now: Now, dead_letter: &DeadLetter, error: &str) {
        let Some(Allowed { dropped }) = self.limits.allow(Cause::DeadLetter, now) else { return };
        let DeadLetter { event, attempt, reason, .. } = *dead_letter;
        let (handler, topic) = (&self.handler, self.topic(event.partition));
        let (partition, offset, reason) = (event.partition.number, event.offset, name_of(reason));
        tracing::warn!(
            handler,
            topic,
            partition,
            offset,
            attempt,
            reason,
            error,
            dropped,
            "event dead-lettered"
        );
    }

    pub(super) fn skipped(&mut self, now: Now, at: (Partition, i64), reason: Reason, error: &str) {
        let Some(Allowed { dropped }) = self.limits.allow(Cause::Skipped, now) else { return };
        let (handler, topic) = (&self.handler, self.topic(at.0));
        let (partition, offset, reason) = (at.0.number, at.1, name_of(reason));
        tracing::warn!(handler, topic, partition, offset, reason, error, dropped, "event skipped");
    }

    /// A resent output is stored behind a later one of its lane.
    pub(super) fn order_break(&mut self, now: Now, publishing: &mut Publishing) {
        let Some((topic, record)) = publishing.take_order_break() else { return };
        let Some(Allowed { dropped }) = self.limits.allow(Cause::OrderBreak, now) else { return };
        let (handler, partition, offset) = (&self.handler, record.partition, record.offset);
        let breaks = publishing.order_breaks();
        tracing::warn!(
            handler,
            topic,
            partition,
            offset,
            breaks,
            dropped,
            "output order broken: an output that was sent again is stored behind a later one of its lane"
        );
    }
}

/// The remedy for a rejected commit.
fn commit_remedy(why: CommitError) -> &'static str {
    match why {
        CommitError::MetadataTooLarge => {
            "shorter metadata is sent; check the broker's `offset.metadata.max.bytes` and `commit.metadata_limit`"
        }
        CommitError::TryAgain => "none: the commit is retried",
        CommitError::Stale => {
            "none: the partition has another owner, which processes the uncommitted events again"
        }
        CommitError::Other => "grant this user READ on the group, or look up the code; the commit is retried",
    }
}
