//! Log lines about events and their calls.

use keylane_core::{FailedEvent, Now, Partition, Reason, Verdict};

use crate::app::event_loop::publishing::{Publishing, name_of};
use crate::app::event_loop::reading::Reading;
use crate::guest::{Call, CallStatus};
use crate::logging::LinePermit;

use super::HandlerLog;
use super::limits::Cause;

impl HandlerLog {
    /// Logs events without the configured lane key.
    pub(in crate::app::event_loop) fn missing_lane_keys(&mut self, now: Now, reading: &mut Reading) {
        let Some(missing) = reading.missing_lane_key() else { return };
        if self.limits.permit(Cause::NoLaneKey, now).is_none() {
            return;
        }
        let events = reading.take_missing_count();
        let remedy = if missing.has_registry_prefix {
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

    /// Logs retries that the guest requested, and calls that failed.
    pub(in crate::app::event_loop) fn call_ended(&mut self, now: Now, call: &Call) {
        for (row, failed) in call.failed_rows() {
            if let Verdict::Retry { .. } = failed.verdict
                && let Some(LinePermit { dropped }) = self.limits.permit(Cause::Retry, now)
            {
                let (partition, offset) = call.batch.position(row as usize).unwrap_or_default();
                let (handler, topic, attempt) = (&self.handler, call.batch.topic(), call.batch.attempt());
                let error = failed.reason.as_str();
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
        if let CallStatus::Failed(failure) = &call.status
            && let Some(LinePermit { dropped }) = self.limits.permit(Cause::CallFailed, now)
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

    pub(in crate::app::event_loop) fn dead_letter(
        &mut self,
        now: Now,
        dead_letter: &FailedEvent,
        error: &str,
    ) {
        let Some(LinePermit { dropped }) = self.limits.permit(Cause::DeadLetter, now) else { return };
        let FailedEvent { event, attempt, reason, .. } = *dead_letter;
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

    pub(in crate::app::event_loop) fn skipped(
        &mut self,
        now: Now,
        at: (Partition, i64),
        reason: Reason,
        error: &str,
    ) {
        let Some(LinePermit { dropped }) = self.limits.permit(Cause::Skipped, now) else { return };
        let (handler, topic) = (&self.handler, self.topic(at.0));
        let (partition, offset, reason) = (at.0.number, at.1, name_of(reason));
        tracing::warn!(handler, topic, partition, offset, reason, error, dropped, "event skipped");
    }

    /// Logs that a resent output was stored after a later one of its lane.
    pub(in crate::app::event_loop) fn order_break(&mut self, now: Now, publishing: &mut Publishing) {
        let Some((topic, record)) = publishing.take_order_break() else { return };
        let Some(LinePermit { dropped }) = self.limits.permit(Cause::OrderBreak, now) else { return };
        let (handler, partition, offset) = (&self.handler, record.partition, record.offset);
        let breaks = publishing.order_breaks();
        tracing::warn!(
            handler,
            topic,
            partition,
            offset,
            breaks,
            dropped,
            "output order broken: a resent output was stored after a later output of its lane"
        );
    }
}
