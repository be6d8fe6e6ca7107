//! Results of lookups.
use keylane_core::{Partition, ReadError};

use super::Source;
use crate::source::event::{SourceEvent, StartPosition};
use crate::source::lookups::{Bounds, LookupResult, NotFound};
use crate::source::spec::Ends;

impl Source {
    pub(super) fn on_lookup_result(&mut self, result: LookupResult) {
        match result {
            LookupResult::Start { id, found } if self.partitions.is_current(id) => {
                self.on_start(id.partition, found);
            }
            LookupResult::Bounds { id, found } if self.partitions.is_current(id) => {
                self.on_bounds(id.partition, found);
            }
            LookupResult::BoundsUnknown { partition, code } => {
                self.log.bounds_unknown(self.polled_at, partition, code)
            }
            LookupResult::TopicRecreated(topic) => self.on_topic_recreated(topic),
            LookupResult::PartitionCount(topic, count) => {
                let at_start = self.lookups.partitions_at_start(topic);
                self.pending_events.push_back(SourceEvent::PartitionCount { topic, count, at_start });
            }
            LookupResult::OtherDelivery(member) => {
                self.pending_events.push_back(SourceEvent::OtherDelivery { member });
            }
            LookupResult::Start { .. } | LookupResult::Bounds { .. } => {}
        }
    }

    fn on_start(&mut self, partition: Partition, found: Result<StartPosition, NotFound>) {
        let failed = |reason: String, transaction_open| SourceEvent::LookupFailed {
            partition,
            reason,
            transaction_open,
        };
        let start = match found {
            Ok(start) => start,
            Err(NotFound { reason, transaction_open }) => {
                return self.pending_events.push_back(failed(reason, transaction_open));
            }
        };
        match (self.ends.ends_at, start.stable_end) {
            (Ends::LogEnd, Some(offset)) => self.pending_events.extend(self.ends.report(partition, offset)),
            (Ends::LogEnd, None) => {
                let reason = "the end of the log is unknown".to_owned();
                return self.pending_events.push_back(failed(reason, false));
            }
            (Ends::Never | Ends::Feed, _) => {}
        }
        self.partitions.set_topic_id(partition, start.topic_id);
        self.pending_events.push_back(SourceEvent::StartResolved(start));
    }

    fn on_bounds(&mut self, partition: Partition, found: Bounds) {
        let Bounds { start, end, topic_id } = found;
        let why = if is_another(self.partitions.topic_id(partition), topic_id) {
            self.partitions.set_topic_id(partition, topic_id);
            ReadError::TopicRecreated { topic_id, log_start: start }
        } else {
            ReadError::OutOfRange { log_start: start, log_end: end }
        };
        self.pending_events.push_back(SourceEvent::ReadFailed { partition, why });
    }

    /// Requests the bounds of the topic's logs: records may already come from a new log, whose first offset is reported
    /// with the replacement.
    fn on_topic_recreated(&mut self, topic: u16) {
        let now = self.lookups.topic_id(topic);
        let of_topic = self.partitions.all().filter(|partition| partition.topic == topic);
        let replaced: Vec<Partition> =
            of_topic.filter(|partition| is_another(self.partitions.topic_id(*partition), now)).collect();
        for id in replaced.into_iter().filter_map(|partition| self.partitions.lookup_id(partition)) {
            self.lookups.request_bounds(id);
        }
    }
}

/// Returns whether both ids are known and differ.
fn is_another(before: [u8; 16], now: [u8; 16]) -> bool {
    before != [0; 16] && now != [0; 16] && before != now
}
