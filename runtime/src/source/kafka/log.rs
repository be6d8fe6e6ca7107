//! The log lines of one handler's consumer. Lines that every read may cause are limited.

use std::time::Duration;

use keylane_core::{Partition, RebalanceId};

use super::rebalance::PendingRebalance;
use crate::librdkafka::ErrorCode;
use crate::logging::{LinePermit, LineThrottle};
use crate::source::partitions::FetchError;

/// Log lines per second and condition.
const LINES_PER_SECOND: u32 = 2;

pub(super) struct SourceLog {
    handler: String,
    /// Names of the inputs, by their index.
    topics: Vec<String>,
    read_errors: LineThrottle,
    unknown_bounds: LineThrottle,
}

impl SourceLog {
    pub(super) fn new(handler: String, topics: &[String]) -> Self {
        SourceLog {
            handler,
            topics: topics.to_vec(),
            read_errors: LineThrottle::new(LINES_PER_SECOND),
            unknown_bounds: LineThrottle::new(LINES_PER_SECOND),
        }
    }

    /// Logs the client's error; the core reports its consequences.
    pub(super) fn read_failed(&mut self, now: Duration, partition: Partition, error: &FetchError) {
        let Some(LinePermit { dropped }) = self.read_errors.permit(now) else { return };
        let (handler, topic, partition) = (&self.handler, self.topic(partition), partition.number);
        let FetchError { code, offset, text } = error;
        tracing::warn!(handler, topic, partition, offset, %code, text, dropped, "fetch failed");
    }

    pub(super) fn bounds_unknown(&mut self, now: Duration, partition: Partition, code: ErrorCode) {
        let Some(LinePermit { dropped }) = self.unknown_bounds.permit(now) else { return };
        let (handler, topic, partition) = (&self.handler, self.topic(partition), partition.number);
        let remedy = if code == ErrorCode::TOPIC_AUTHORIZATION_FAILED {
            "grant this user DESCRIBE on the topic"
        } else {
            "check that the partition's leader is running; the request is repeated"
        };
        tracing::warn!(handler, topic, partition, %code, remedy, dropped, "log bounds unknown");
    }

    /// Logs that more partitions are owned than were expected at startup. `each`: bytes of records that the client
    /// fetches ahead per partition.
    pub(super) fn more_partitions(&self, partitions: u64, expected: u64, each: u64) {
        tracing::warn!(
            handler = self.handler,
            partitions,
            expected,
            kib_each = each >> 10,
            remedy = "restart Keylane to divide the budget by the new number of partitions",
            "more partitions than expected at startup: prefetched records may exceed `memory_budget`"
        );
    }

    pub(super) fn late_answer(&self, request: RebalanceId, unanswered: &Option<PendingRebalance>) {
        tracing::debug!(handler = self.handler, ?request, ?unanswered, "late answer to a rebalance ignored");
    }

    pub(super) fn seek_failed(&self, partition: Partition, offset: i64, code: ErrorCode) {
        let (handler, topic, partition) = (&self.handler, self.topic(partition), partition.number);
        tracing::warn!(handler, topic, partition, offset, %code, "seek failed");
    }

    pub(super) fn queue_missing(&self, partition: Partition, code: ErrorCode) {
        let (handler, topic, partition) = (&self.handler, self.topic(partition), partition.number);
        tracing::warn!(handler, topic, partition, %code, "the client has no queue for the partition");
    }

    pub(super) fn unsubscribe_failed(&self, code: ErrorCode) {
        tracing::warn!(handler = self.handler, %code, "unsubscribe failed");
    }

    pub(super) fn close_failed(&self, code: ErrorCode) {
        tracing::warn!(handler = self.handler, %code, "consumer close failed");
    }

    fn topic(&self, partition: Partition) -> &str {
        self.topics.get(usize::from(partition.topic)).map_or("?", String::as_str)
    }
}
