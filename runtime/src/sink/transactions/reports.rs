//! The delivery reports of a transaction's records.
use std::time::Duration;

use super::super::SinkTopic;
use crate::librdkafka::{ErrorCode, EventKind, Queue};

/// The records of one attempt.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// The topic of each produced record, by its id.
    topics: Vec<SinkTopic>,
    acknowledged: usize,
    failed: usize,
    first_failure: Option<(SinkTopic, ErrorCode)>,
}

impl Reports {
    /// Adds a record, and returns its id.
    pub(super) fn add(&mut self, topic: SinkTopic) -> usize {
        self.topics.push(topic);
        self.topics.len() - 1
    }

    /// Removes the last record: the client did not accept it.
    pub(super) fn remove_last(&mut self) {
        self.topics.pop();
    }

    pub(super) fn records(&self) -> usize {
        self.topics.len()
    }

    /// Returns whether every record was acknowledged.
    pub(super) fn all_acknowledged(&self) -> bool {
        self.acknowledged == self.topics.len()
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
                        self.take(report.id, report.error);
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

    fn take(&mut self, id: usize, error: ErrorCode) {
        if error.is_none() {
            self.acknowledged += 1;
            return;
        }
        self.failed += 1;
        if let Some(&topic) = self.topics.get(id) {
            self.first_failure.get_or_insert((topic, error));
        }
    }
}
