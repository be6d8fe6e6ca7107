//! What the source reports: rebalances, starts, commit responses, errors.

use keylane_core::{CommittedStart, Input, PartitionStart, RebalanceId, StartAt};

use crate::librdkafka::ErrorCode;
use crate::source::{Source, SourceEvent, StartPosition};

use super::super::admin::Pulse;
use super::super::authentication::ClientKind;
use super::reading::Reading;
use super::{EventLoop, GrownTopic};

/// Answers an assign, or reads more partitions of the assignment.
pub(super) fn answer_assign(
    (source, reading, pulse): (&mut Source, &mut Reading, &Pulse),
    request: Option<RebalanceId>,
    starts: &[StartAt],
) {
    reading.assigned(starts);
    pulse.assigned();
    match request {
        Some(request) => source.answer_assign(request, starts),
        None => source.start_reading(starts),
    }
}

impl EventLoop {
    /// Handles what the source reports. Returns false if there was nothing.
    pub(super) fn poll_source(&mut self) -> bool {
        let mut busy = false;
        while let Some(event) = self.source.next_event(self.now.uptime) {
            busy = true;
            self.handle_source_event(event);
        }
        busy
    }

    fn handle_source_event(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Assign(request, partitions) => {
                self.observing.assigned();
                self.feed(Input::AssignRequested { request, partitions: &partitions });
            }
            SourceEvent::Revoke(request, partitions) => {
                self.observing.revoked();
                self.feed(Input::Revoked { request, partitions: &partitions });
            }
            SourceEvent::Lost(request, partitions) => {
                self.closing.partitions_lost();
                self.observing.lost();
                self.feed(Input::Lost { request, partitions: &partitions });
            }
            SourceEvent::StartResolved(found) => self.start_found(found),
            SourceEvent::LookupFailed { partition, reason, transaction_open } => {
                self.log.start_unresolved(self.now, partition, &reason);
                self.feed(Input::LookupFailed { partition, transaction_open });
            }
            SourceEvent::PartitionCount { topic, count, at_start } => {
                self.partitions_counted(topic, count, at_start);
            }
            SourceEvent::OtherDelivery { member } => self.log.other_delivery(self.now, &member),
            SourceEvent::EndKnown { partition, offset } => self.feed(Input::EndKnown { partition, offset }),
            SourceEvent::ReadFailed { partition, why } => {
                self.reading.withdraw_permission(partition); // a failed read uses up the permission, too
                self.feed(Input::Fetched { partition, rows: &[], orders: &[], end: None, error: Some(why) });
            }
            SourceEvent::LogEnd { partition, end } => self.feed(Input::LogEnd { partition, end }),
            SourceEvent::LogEndSeen { partition, end, sent_at } => {
                self.feed(Input::LogEndSeen { partition, end, sent_at });
            }
            SourceEvent::CommitResult { id, partition, result, code } => {
                if let Some(gates) = self.reading.gates_mut() {
                    gates.commit_answered(id, partition, result.is_ok());
                }
                let input = self.committing.answered(&mut self.log, self.now, (id, partition), result, &code);
                self.feed(input);
            }
            SourceEvent::CommitTimedOut { id } => {
                let input = self.committing.timed_out(&self.log, id);
                self.feed(input);
            }
            SourceEvent::Error(error)
                if error.code == ErrorCode::INCONSISTENT_GROUP_PROTOCOL && !self.closing.is_until_end() =>
            {
                self.log.other_assignor(self.now);
            }
            // Members with another assignor may stay: under `--until-end` the run does not wait for them.
            SourceEvent::Error(error)
                if error.fatal || error.code == ErrorCode::INCONSISTENT_GROUP_PROTOCOL =>
            {
                self.closing.stop(&self.log, error.text);
            }
            SourceEvent::Error(error) => {
                if error.code.is_authentication_failure() {
                    self.rejection_sender.report(ClientKind::Consumers);
                }
                self.log.client_error(self.now, &error.text);
            }
        }
    }

    /// Compares the number of partitions of a topic with the one at the start. With more partitions, keys are in others than
    /// before.
    fn partitions_counted(&mut self, topic: u16, count: i32, at_start: i32) {
        let grown = GrownTopic { topic, partitions: count, at_start };
        let has_grown = self.observing.partitions_counted(grown);
        match self.keyed.as_ref().map_or(Ok(()), |keyed| keyed.check_partitions(topic, count)) {
            Ok(()) if has_grown => self.log.topic_grown(&grown),
            Ok(()) => {}
            Err(reason) => self.closing.stop(&self.log, reason),
        }
    }

    /// Feeds the start of a partition to the core.
    pub(super) fn feed_start(&mut self, found: &StartPosition) {
        let committed = found.committed.as_ref();
        if let Some(gates) = self.reading.gates_mut() {
            gates.starts(found.partition, committed.map(|(offset, metadata)| (*offset, metadata.as_slice())));
        }
        let start = PartitionStart {
            committed: committed.map(|(offset, metadata)| CommittedStart { offset: *offset, metadata }),
            fallback: found.fallback,
            log_start: found.log_start,
            log_end: found.log_end,
            topic_id: found.topic_id,
        };
        self.transacting.start_resolved(found.partition, &found.committed);
        self.feed(Input::StartResolved { partition: found.partition, start });
    }
}
