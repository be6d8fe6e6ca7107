//! Log lines about keyed state.

use keylane_core::{Now, Partition};
use keylane_state::StoreEvent;

use crate::changelog::RestoreEvent;
use crate::logging::LinePermit;

use super::HandlerLog;
use super::limits::Cause;

/// Restores that take no longer are not logged.
const QUICK_MS: u64 = 1_000;

impl HandlerLog {
    /// Logs why a partition can't start with its state.
    pub(in crate::app::event_loop) fn state_refused(&self, partition: Partition, reason: &str) {
        let topic = self.topic(partition);
        let partition = partition.number;
        tracing::error!(handler = self.handler, topic, partition, reason, "keyed state can't be used");
    }

    /// Logs an event of the store of this topic, if an operator should know it.
    pub(in crate::app::event_loop) fn store_event(&self, topic: u16, event: &StoreEvent) {
        let (handler, topic) = (&self.handler, self.topic_at(topic));
        match event {
            StoreEvent::Opened { partition, note: Some(reason), .. } => {
                tracing::info!(
                    handler,
                    topic,
                    partition,
                    reason,
                    "file of keyed state not used; it is restored"
                );
            }
            StoreEvent::Failed { partition, error, .. } => {
                let remedy = "check the disk of `keys.dir`; it is tried again every 5 s";
                tracing::error!(handler, topic, partition, error, remedy, "file of keyed state failed");
            }
            StoreEvent::Recovered { partition, .. } => {
                tracing::info!(handler, topic, partition, "file of keyed state works again");
            }
            StoreEvent::Lost { partition, error, .. } => {
                tracing::error!(
                    handler,
                    topic,
                    partition,
                    error,
                    "file of keyed state damaged; it is restored"
                );
            }
            StoreEvent::Opened { .. }
            | StoreEvent::Loaded { .. }
            | StoreEvent::Scanned { .. }
            | StoreEvent::Applied { .. }
            | StoreEvent::Closed { .. } => {}
        }
    }

    /// Logs an event of the reader of changelogs.
    pub(in crate::app::event_loop) fn restore_event(&mut self, now: Now, event: &RestoreEvent) {
        match event {
            RestoreEvent::Progress { request, records, next, end } => {
                let Some(LinePermit { dropped }) = self.limits.permit(Cause::Restoring, now) else { return };
                let (handler, topic, partition) =
                    (&self.handler, self.topic_at(request.topic), request.partition);
                tracing::info!(
                    handler,
                    topic,
                    partition,
                    records,
                    next,
                    end,
                    dropped,
                    "keyed state is restored"
                );
            }
            RestoreEvent::Restored { request, records, took, .. } => {
                let (handler, topic) = (&self.handler, self.topic_at(request.topic));
                let partition = request.partition;
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                if took_ms >= QUICK_MS {
                    tracing::info!(handler, topic, partition, records, took_ms, "keyed state restored");
                } else {
                    tracing::debug!(handler, topic, partition, records, took_ms, "keyed state restored");
                }
            }
            RestoreEvent::Unavailable { request, reason } => {
                let Some(LinePermit { dropped }) = self.limits.permit(Cause::ChangelogUnavailable, now)
                else {
                    return;
                };
                let (handler, topic, partition) =
                    (&self.handler, self.topic_at(request.topic), request.partition);
                tracing::warn!(
                    handler,
                    topic,
                    partition,
                    reason,
                    dropped,
                    "changelog can't be read; it is tried again"
                );
            }
            RestoreEvent::Damaged { .. } => {} // the refusal of the partition is logged
        }
    }
}
