//! Log lines about transactions.

use keylane_core::{Now, Partition};

use crate::librdkafka::ErrorCode;
use crate::logging::LinePermit;

use super::HandlerLog;
use super::limits::Cause;

impl HandlerLog {
    /// Logs that a transaction was aborted. Everything in it is kept, and published by a later one.
    pub(in crate::app::event_loop) fn transaction_aborted(&mut self, now: Now, reason: &str) {
        let Some(LinePermit { dropped }) = self.limits.permit(Cause::TransactionAborted, now) else { return };
        tracing::warn!(handler = self.handler, reason, dropped, "transaction aborted; it is repeated");
    }

    /// Logs that a topic rejects records of a transaction, or can't be written.
    pub(in crate::app::event_loop) fn topic_blocked(&mut self, now: Now, topic: &str, code: ErrorCode) {
        let Some(LinePermit { dropped }) = self.limits.permit(Cause::TopicBlocked, now) else { return };
        let remedy = match code {
            ErrorCode::TOPIC_AUTHORIZATION_FAILED => "grant this user WRITE on it",
            ErrorCode::UNKNOWN_TOPIC_OR_PART | ErrorCode::UNKNOWN_TOPIC | ErrorCode::UNKNOWN_PARTITION => {
                "create it, or grant this user DESCRIBE on it"
            }
            ErrorCode::MSG_SIZE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE => {
                "raise the topic's `max.message.bytes`"
            }
            _ => "look up the code; the records are published again until the topic accepts them",
        };
        let handler = &self.handler;
        tracing::error!(handler, topic, %code, remedy, dropped, "topic blocked: transactions can't be committed");
    }

    /// Logs that a topic rejects an output that was checked before. `stops`: its partition stops; otherwise, the output is
    /// dead-lettered.
    pub(in crate::app::event_loop) fn output_refused(
        &mut self,
        now: Now,
        (partition, offset): (Partition, i64),
        (output_topic, code): (&str, ErrorCode),
        stops: bool,
    ) {
        let Some(LinePermit { dropped }) = self.limits.permit(Cause::OutputRefused, now) else { return };
        let (handler, topic, partition) = (&self.handler, self.topic(partition), partition.number);
        let remedy = "compare the output with the limits of its topic: `max.message.bytes`, and `cleanup.policy` if it has no \
                      key";
        if stops {
            tracing::error!(handler, topic, partition, offset, output_topic, %code, remedy, dropped, "output rejected");
        } else {
            tracing::warn!(
                handler,
                topic,
                partition,
                offset,
                output_topic,
                %code,
                remedy,
                dropped,
                "output rejected: it is dead-lettered"
            );
        }
    }

    /// Returns the failure text of a handler with a dead letter that its topic rejects.
    pub(in crate::app::event_loop) fn dead_letter_refused_failure(
        &self,
        (partition, offset): (Partition, i64),
        dead_letter_topic: &str,
        code: ErrorCode,
    ) -> String {
        let topic = self.topic(partition);
        format!(
            "topic {topic} partition {} offset {offset}: topic {dead_letter_topic} rejects its dead letter: {code}; raise its \
             `max.message.bytes`, give it `cleanup.policy=delete`, and restart",
            partition.number
        )
    }

    pub(in crate::app::event_loop) fn transactions_unavailable(&self, reason: &str) {
        let remedy = "check that the brokers are running; it is tried again";
        tracing::warn!(handler = self.handler, reason, remedy, "the brokers can't keep transactions");
    }

    pub(in crate::app::event_loop) fn transactions_available(&self) {
        tracing::info!(handler = self.handler, "the brokers keep transactions again");
    }
}
