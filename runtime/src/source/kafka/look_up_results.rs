//! Results of look-ups, and the end of the feed.
use keylane_core::{Partition, ReadError};

use super::Source;
use crate::librdkafka::ErrorCode;
use crate::source::event::{SourceError, SourceEvent, StartFound};
use crate::source::look_ups::{Bounds, LookUpResult, NotFound};
use crate::source::spec::Ends;

impl Source {
    pub(super) fn on_look_up_result(&mut self, result: LookUpResult) {
        match result {
            LookUpResult::Start { id, found } if self.partitions.is_current(id) => {
                self.on_start(id.partition, found);
            }
            LookUpResult::Bounds { id, found } if self.partitions.is_current(id) => {
                self.on_bounds(id.partition, found);
            }
            LookUpResult::BoundsUnknown { partition, code } => {
                self.log.bounds_unknown(self.polled, partition, code)
            }
            LookUpResult::TopicReplaced(topic) => self.on_topic_replaced(topic),
            LookUpResult::Start { .. } | LookUpResult::Bounds { .. } => {}
        }
    }

    fn on_start(&mut self, partition: Partition, found: Result<StartFound, NotFound>) {
        let failed = |reason: String, undecided| SourceEvent::LookUpFailed { partition, reason, undecided };
        let start = match found {
            Ok(start) => start,
            Err(NotFound { reason, undecided }) => return self.ready.push_back(failed(reason, undecided)),
        };
        match (self.ends, start.stable_end) {
            (Ends::LogEnd, Some(offset)) => self.report_end(partition, offset),
            (Ends::LogEnd, None) => {
                let reason = "the end of the log is unknown".to_owned();
                return self.ready.push_back(failed(reason, false));
            }
            (Ends::Never | Ends::Feed, _) => {}
        }
        self.partitions.set_topic_id(partition, start.topic_id);
        self.ready.push_back(SourceEvent::StartResolved(start));
    }

    fn on_bounds(&mut self, partition: Partition, found: Bounds) {
        let Bounds { start, end, topic_id } = found;
        let why = if is_another(self.partitions.topic_id(partition), topic_id) {
            self.partitions.set_topic_id(partition, topic_id);
            ReadError::TopicReplaced { topic_id, log_start: start }
        } else {
            ReadError::OutOfRange { log_start: start, log_end: end }
        };
        self.ready.push_back(SourceEvent::ReadFailed { partition, why });
    }

    /// Requests the bounds of the topic's logs: records may already come from a new log, whose first offset is reported
    /// with the replacement.
    fn on_topic_replaced(&mut self, topic: u16) {
        let now = self.look_ups.topic_id(topic);
        let of_topic = self.partitions.all().filter(|partition| partition.topic == topic);
        let replaced: Vec<Partition> =
            of_topic.filter(|partition| is_another(self.partitions.topic_id(*partition), now)).collect();
        for id in replaced.into_iter().filter_map(|partition| self.partitions.look_up_id(partition)) {
            self.look_ups.request_bounds(id);
        }
    }

    fn report_end(&mut self, partition: Partition, offset: i64) {
        if self.ended.insert(partition) {
            self.ready.push_back(SourceEvent::EndKnown { partition, offset });
        }
    }

    /// Reports the failure of the feed, or the known ends of owned partitions. Returns whether there was anything to
    /// report.
    pub(super) fn check_feed(&mut self) -> bool {
        let Some(feed) = &self.feed else { return false };
        if let Some(reason) = feed.failure()
            && !self.feed_failed
        {
            self.feed_failed = true;
            let error = SourceError { fatal: true, code: ErrorCode::NONE, text: reason };
            self.ready.push_back(SourceEvent::Error(error));
            return true;
        }
        if self.ends != Ends::Feed {
            return false;
        }
        let known: Vec<(Partition, i64)> = self
            .partitions
            .all()
            .filter(|partition| !self.ended.contains(partition))
            .filter_map(|partition| Some((partition, feed.end(partition)?)))
            .collect();
        for (partition, offset) in &known {
            self.report_end(*partition, *offset);
        }
        !known.is_empty()
    }
}

/// Returns whether both ids are known and differ.
fn is_another(before: [u8; 16], now: [u8; 16]) -> bool {
    before != [0; 16] && now != [0; 16] && before != now
}
