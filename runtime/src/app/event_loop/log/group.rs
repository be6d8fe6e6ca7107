//! Log lines about the group and its commits.

use std::fmt::Display;

use keylane_core::{CommitError, Now, Partition};

use crate::app::event_loop::GrownTopic;
use crate::logging::LinePermit;

use super::HandlerLog;
use super::limits::Cause;

impl HandlerLog {
    pub(in crate::app::event_loop) fn start_unresolved(
        &mut self,
        now: Now,
        partition: Partition,
        reason: &str,
    ) {
        let Some(LinePermit { dropped }) = self.limits.permit(Cause::StartUnknown, now) else { return };
        let (handler, topic, partition) = (&self.handler, self.topic(partition), partition.number);
        tracing::warn!(handler, topic, partition, reason, dropped, "partition start not resolved yet");
    }

    pub(in crate::app::event_loop) fn commit_rejected(
        &mut self,
        now: Now,
        partition: Partition,
        code: &dyn Display,
        why: CommitError,
    ) {
        let Some(LinePermit { dropped }) = self.limits.permit(Cause::CommitRejected, now) else { return };
        let (handler, topic, partition) = (&self.handler, self.topic(partition), partition.number);
        let remedy = commit_remedy(why);
        tracing::warn!(handler, topic, partition, %code, remedy, dropped, "commit rejected");
    }

    pub(in crate::app::event_loop) fn commit_timed_out(&self) {
        tracing::warn!(handler = self.handler, "commit timed out");
    }

    pub(in crate::app::event_loop) fn client_error(&mut self, now: Now, error: &str) {
        let Some(LinePermit { dropped }) = self.limits.permit(Cause::Client, now) else { return };
        let (handler, remedy) =
            (&self.handler, "check that the brokers are running; the client reconnects automatically");
        tracing::warn!(handler, error, remedy, dropped, "consumer error");
    }

    /// Logs that a member of the group does not have transactional delivery.
    pub(in crate::app::event_loop) fn other_delivery(&mut self, now: Now, member: &str) {
        let Some(LinePermit { dropped }) = self.limits.permit(Cause::OtherDelivery, now) else { return };
        let remedy =
            "stop all processes of the group before `delivery` is changed, and start them afterwards";
        tracing::error!(
            handler = self.handler,
            member,
            remedy,
            dropped,
            "no partition is taken: the group has a member without transactional delivery"
        );
    }

    /// Logs that members of the group have another assignor. The client retries the join, so a rolling change of the
    /// assignor continues when the last member with the old assignor has left.
    pub(in crate::app::event_loop) fn other_assignor(&mut self, now: Now) {
        let Some(LinePermit { dropped }) = self.limits.permit(Cause::OtherAssignor, now) else { return };
        let remedy = "wait until they have left; if they stay, set `kafka.assignor` to their assignor (most clients: \
                      \"range\"), or use another `group_id`";
        tracing::warn!(
            handler = self.handler,
            remedy,
            dropped,
            "waiting to join: the group has members with another assignor"
        );
    }
}

impl HandlerLog {
    /// Logs that a topic has more partitions than at the start.
    pub(in crate::app::event_loop) fn topic_grown(&self, grown: &GrownTopic) {
        let GrownTopic { topic, partitions, at_start } = *grown;
        let (handler, topic) = (&self.handler, self.topic_at(topic));
        let remedy = "see docs/recipes/partition-count.md: unless the old events of a key were settled before its first new \
                      one was produced, they have no order";
        tracing::warn!(
            handler,
            topic,
            partitions,
            at_start,
            remedy,
            "topic has more partitions than at the start: keys have moved to other partitions"
        );
    }
}

/// Returns the remedy for a rejected commit.
fn commit_remedy(why: CommitError) -> &'static str {
    match why {
        CommitError::MetadataTooLarge => {
            "shorter metadata is sent; check the broker's `offset.metadata.max.bytes` and `commit.metadata_limit`"
        }
        CommitError::TryAgain => "none: the commit is retried",
        CommitError::Stale => {
            "none: the group rebalances; if the partition moves to another member, that member processes the uncommitted events again"
        }
        CommitError::Other => "grant this user READ on the group, or look up the code; the commit is retried",
    }
}
