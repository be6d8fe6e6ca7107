//! Rebalances: events that are stored and answered later.
use std::time::Duration;

use keylane_core::{Partition, RebalanceId, StartAt};

use super::Source;
use crate::config::Assignor;
use crate::librdkafka::{ClientEvent, ErrorCode, EventKind, PartitionList};
use crate::source::errors::source_error;
use crate::source::event::SourceEvent;

/// The rebalances of a consumer.
#[derive(Debug, Default)]
pub(super) struct Rebalances {
    /// The rebalance whose answer the library waits for.
    pub(super) unanswered: Option<PendingRebalance>,
    /// The number of rebalances so far.
    pub(super) count: u64,
    /// Assigns deferred while a rebalance is unanswered: the library would take them for the answer.
    deferred: Vec<StartAt>,
}

/// A rebalance that is not answered yet.
#[derive(Debug)]
pub(super) struct PendingRebalance {
    pub(super) id: RebalanceId,
    pub(super) kind: RebalanceKind,
}

#[derive(Debug)]
pub(super) enum RebalanceKind {
    Assign,
    /// A revoke or a loss.
    Revoke(Vec<Partition>),
}

impl Rebalances {
    fn next_id(&mut self) -> RebalanceId {
        self.count += 1;
        RebalanceId(self.count)
    }

    /// Defers these assigns if a rebalance is unanswered. Returns whether they were deferred.
    pub(super) fn defer_while_unanswered(&mut self, starts: &[StartAt]) -> bool {
        let is_unanswered = self.unanswered.is_some();
        if is_unanswered {
            self.deferred.extend_from_slice(starts);
        }
        is_unanswered
    }
}

impl Source {
    pub(super) fn on_main_event(&mut self, event: ClientEvent) {
        match event.kind() {
            EventKind::Rebalance => self.on_rebalance(&event),
            EventKind::Error => {
                let mut error = source_error(event.error(), &event.text(), event.is_fatal());
                if let Some((code, text)) = self.context.consumer.client().fatal_error() {
                    error = source_error(code, &text, true);
                }
                self.pending_events.push_back(SourceEvent::Error(error));
            }
            EventKind::Statistics => {
                if let Some(statistics) = &self.statistics {
                    statistics.put(event);
                }
            }
            // A record dropped here would later look like a gap and be committed unprocessed.
            EventKind::Record => panic_on_orphaned_record(),
            EventKind::Commit | EventKind::Delivery | EventKind::Other(_) => {}
        }
    }

    fn on_rebalance(&mut self, event: &ClientEvent) {
        let partitions = self.known(&event.partitions());
        let id = self.rebalances.next_id();
        let revoke = RebalanceKind::Revoke(partitions.clone());
        let (kind, source_event) = match event.error() {
            ErrorCode::ASSIGN_PARTITIONS => {
                for partition in &partitions {
                    self.partitions.add(*partition);
                }
                if partitions.is_empty() {
                    self.lookups.check_members(); // otherwise, the lookups of the partitions do
                }
                (RebalanceKind::Assign, SourceEvent::Assign(id, partitions))
            }
            ErrorCode::REVOKE_PARTITIONS if !self.context.consumer.is_assignment_lost() => {
                (revoke, SourceEvent::Revoke(id, partitions))
            }
            _ => (revoke, SourceEvent::Lost(id, partitions)),
        };
        self.rebalances.unanswered = Some(PendingRebalance { id, kind });
        self.pending_events.push_back(source_event);
    }

    /// Processes the events that the library has already queued: it would take our next assign for the answer to a
    /// rebalance among them.
    pub(super) fn take_queued_rebalances(&mut self) {
        while let Some(event) = self.main_queue.poll(Duration::ZERO) {
            self.on_main_event(event);
        }
    }

    /// Assigns these partitions in the library, which starts to fetch them. An answer must reach the library even if it
    /// is empty. An assign that is not an answer is deferred while a rebalance is pending.
    pub(super) fn assign(&mut self, starts: &[StartAt], is_answer: bool) {
        if !is_answer {
            self.take_queued_rebalances();
            if self.rebalances.defer_while_unanswered(starts) {
                return;
            }
        }
        let mut opened: Vec<(Partition, i64)> = Vec::with_capacity(starts.len());
        // Under the eager protocol an assign replaces everything: partitions that are being read are opened again, at
        // their positions. (During a rebalance there are none, because all were revoked before.)
        let kept: Vec<(Partition, i64)> = match self.assignor {
            Assignor::Range => self.partitions.readers().collect(),
            Assignor::CooperativeSticky => Vec::new(),
        };
        let new = starts.iter().map(|start| (start.partition, start.offset));
        for (partition, offset) in kept.into_iter().chain(new) {
            if opened.iter().any(|(known, _)| *known == partition) {
                continue;
            }
            match self.partitions.open(&self.context, partition, offset, self.polled_at) {
                Ok(()) => opened.push((partition, offset)),
                Err(code) => {
                    self.log.queue_missing(partition, code);
                    self.not_positioned(partition);
                }
            }
        }
        if opened.is_empty() && !is_answer {
            return;
        }
        let list = self.context.list(opened.iter().copied());
        let result = match self.assignor {
            Assignor::CooperativeSticky => self.context.consumer.incremental_assign(&list),
            Assignor::Range => self.context.consumer.assign(Some(&list)),
        };
        if result.is_err() {
            opened.iter().for_each(|(partition, _)| self.not_positioned(*partition));
        }
        self.report(result, "assigning partitions failed");
    }

    /// Releases partitions, as the answer to a revoke. The list for the library must not contain partitions that were
    /// never assigned in it.
    pub(super) fn release(&mut self, partitions: &[Partition]) {
        let assigned: Vec<(Partition, i64)> =
            self.partitions.readers().filter(|(partition, _)| partitions.contains(partition)).collect();
        let list = self.context.list(assigned.into_iter());
        for partition in partitions {
            self.partitions.remove(*partition);
        }
        let result = match self.assignor {
            Assignor::CooperativeSticky => self.context.consumer.incremental_unassign(&list),
            Assignor::Range => self.context.consumer.assign(None),
        };
        self.report(result, "releasing partitions failed");
    }

    pub(super) fn unassign_one(&mut self, partition: Partition) {
        // Under the eager protocol the assign that follows replaces everything anyway.
        if self.assignor == Assignor::CooperativeSticky && self.partitions.reader(partition).is_some() {
            let list = self.context.list(std::iter::once((partition, 0)));
            let result = self.context.consumer.incremental_unassign(&list);
            self.report(result, "unassigning a partition failed");
        }
        self.partitions.close(partition);
    }

    /// Carries out the assigns that were deferred until the answer.
    pub(super) fn after_answer(&mut self) {
        for start in std::mem::take(&mut self.rebalances.deferred) {
            if self.partitions.is_owned(start.partition) {
                self.unassign_one(start.partition);
                self.assign(&[start], false);
            }
        }
    }

    fn report(&mut self, result: Result<(), ErrorCode>, what: &str) {
        if let Err(code) = result {
            self.pending_events.push_back(SourceEvent::Error(source_error(code, what, false)));
            self.context.wake.wake();
        }
    }

    /// Returns the partitions of the list that belong to our topics: all of them, unless a broker is faulty.
    fn known(&self, list: &PartitionList) -> Vec<Partition> {
        list.iter()
            .filter_map(|entry| {
                let index = self.context.topics.iter().position(|topic| topic.as_c_str() == entry.topic)?;
                Some(Partition { topic: u16::try_from(index).ok()?, number: entry.partition })
            })
            .collect()
    }
}

#[expect(clippy::panic, reason = "broken invariant: continuing would lose the record")]
fn panic_on_orphaned_record() -> ! {
    panic!("record on the consumer's main queue: a partition's queue was not detached before its assign")
}
