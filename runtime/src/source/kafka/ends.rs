//! The ends of partitions, and the end of the feed.
use std::collections::BTreeSet;

use keylane_core::Partition;

use crate::librdkafka::ErrorCode;
use crate::source::embedded::SourceProgress;
use crate::source::event::{SourceError, SourceEvent};
use crate::source::spec::Ends;

/// Where the processing of partitions ends, and what was reported about it.
pub(super) struct PartitionEnds {
    pub(super) ends_at: Ends,
    /// Partitions whose end was reported.
    reported: BTreeSet<Partition>,
    feed: Option<SourceProgress>,
    feed_failed: bool,
}

impl PartitionEnds {
    pub(super) fn new(ends_at: Ends, feed: Option<SourceProgress>) -> PartitionEnds {
        PartitionEnds { ends_at, reported: BTreeSet::new(), feed, feed_failed: false }
    }

    /// Returns the event for the end of a partition; `None` if it was reported before.
    pub(super) fn report(&mut self, partition: Partition, offset: i64) -> Option<SourceEvent> {
        self.reported.insert(partition).then_some(SourceEvent::EndKnown { partition, offset })
    }

    /// Reports the read position of a partition to the feed.
    pub(super) fn advance(&self, partition: Partition, next: i64) {
        if let Some(feed) = &self.feed {
            feed.advance(partition, next);
        }
    }

    /// Returns the failure of the feed, or the ends of these partitions that became known.
    pub(super) fn check_feed(&mut self, partitions: impl Iterator<Item = Partition>) -> Vec<SourceEvent> {
        let Some(feed) = &self.feed else { return Vec::new() };
        if let Some(reason) = feed.failure()
            && !self.feed_failed
        {
            self.feed_failed = true;
            return vec![SourceEvent::Error(SourceError {
                fatal: true,
                code: ErrorCode::NONE,
                text: reason,
            })];
        }
        if self.ends_at != Ends::Feed {
            return Vec::new();
        }
        let known: Vec<(Partition, i64)> = partitions
            .filter(|partition| !self.reported.contains(partition))
            .filter_map(|partition| Some((partition, feed.end(partition)?)))
            .collect();
        known.into_iter().filter_map(|(partition, offset)| self.report(partition, offset)).collect()
    }
}
