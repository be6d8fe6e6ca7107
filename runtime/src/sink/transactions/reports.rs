//! The delivery reports of a transaction's records.
use std::collections::BTreeMap;
use std::time::Duration;

use super::super::SinkTopic;
use super::super::errors::is_about_the_record;
use super::Written;
use crate::librdkafka::{DeliveryReport, ErrorCode, EventKind, Queue};

/// The records of one attempt.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// The topic of each produced record, by its id, and whether the offset of the record is of interest.
    topics: Vec<(SinkTopic, bool)>,
    /// The last offset of such records in each partition.
    written: BTreeMap<(SinkTopic, i32), i64>,
    acknowledged: usize,
    failed: usize,
    first_failure: Option<(SinkTopic, ErrorCode)>,
    /// The first record that was refused because of itself, or of its batch.
    refused: Option<(usize, ErrorCode)>,
}

impl Reports {
    /// Adds a record, and returns its id. `keeps_offset`: whether [`Reports::written`] should contain its offset.
    pub(super) fn add(&mut self, topic: SinkTopic, keeps_offset: bool) -> usize {
        self.topics.push((topic, keeps_offset));
        self.topics.len() - 1
    }

    /// Removes the last record: the client did not accept it.
    pub(super) fn remove_last(&mut self) {
        self.topics.pop();
    }

    pub(super) fn records(&self) -> usize {
        self.topics.len()
    }

    /// Returns the last offsets of the records whose offsets are of interest.
    pub(super) fn written(&self) -> Vec<Written> {
        let written = |(&(topic, partition), &offset)| Written { topic, partition, offset };
        self.written.iter().map(written).collect()
    }

    /// Returns whether every record was acknowledged.
    pub(super) fn all_acknowledged(&self) -> bool {
        self.acknowledged == self.topics.len()
    }

    /// Returns whether every record was acknowledged or has failed.
    pub(super) fn is_complete(&self) -> bool {
        self.acknowledged + self.failed == self.topics.len()
    }

    /// Returns the id of the first record that was refused because of itself or of its batch, with the error.
    pub(super) fn refused(&self) -> Option<(usize, ErrorCode)> {
        self.refused
    }

    /// Returns the first record that failed, with its error.
    pub(super) fn first_failure(&self) -> Option<(SinkTopic, ErrorCode)> {
        self.first_failure
    }

    /// Takes the reports that arrive, and waits at most this long for the first.
    pub(super) fn serve(&mut self, queue: &Queue, wait: Duration) {
        let mut wait = wait;
        while let Some(mut event) = queue.poll(wait) {
            wait = Duration::ZERO;
            match event.kind() {
                EventKind::Delivery => {
                    while let Some(report) = event.next_report() {
                        self.take(&report);
                    }
                }
                EventKind::Error => {
                    tracing::debug!(code = %event.error(), text = event.text(), "transactional producer");
                }
                EventKind::Rebalance
                | EventKind::Statistics
                | EventKind::Record
                | EventKind::Commit
                | EventKind::Other(_) => {}
            }
        }
    }

    fn take(&mut self, report: &DeliveryReport<'_>) {
        let record = self.topics.get(report.id).copied();
        if report.error.is_none() {
            self.acknowledged += 1;
            if let Some((topic, true)) = record {
                let last = self.written.entry((topic, report.partition)).or_default();
                *last = report.offset.max(*last);
            }
            return;
        }
        self.failed += 1;
        if is_about_the_record(report.error) {
            self.refused.get_or_insert((report.id, report.error));
        }
        if let Some((topic, _)) = record {
            self.first_failure.get_or_insert((topic, report.error));
        }
    }
}
