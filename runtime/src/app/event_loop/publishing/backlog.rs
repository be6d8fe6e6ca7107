//! The backlog: outputs and dead letters that the producer has no capacity for yet.

use std::collections::VecDeque;

use crate::sink::{DeliveryError, OwnedRecord, ProduceError, RecordId, SinkTopic};

/// Queued records by topic of the sink, in order. They are sent before newer records of their topic.
#[derive(Debug)]
pub(super) struct Backlog {
    topics: Vec<VecDeque<QueuedRecord>>,
    bytes: usize,
    limit: usize,
    full: bool,
}

#[derive(Debug)]
struct QueuedRecord {
    item: QueuedItem,
    id: RecordId,
    bytes: usize,
}

/// A queued record.
#[derive(Debug)]
pub(super) enum QueuedItem {
    /// An output with a copy of its bytes: the buffers of its call are reused.
    Output(OwnedRecord),
    /// A dead letter: its event is in the arena, and its other content is looked up by the record id.
    DeadLetter,
}

impl Backlog {
    /// Creates an empty backlog. `limit`: the number of bytes above which it is full.
    pub(super) fn new(topics: usize, limit: usize) -> Self {
        Backlog { topics: (0..topics).map(|_| VecDeque::new()).collect(), bytes: 0, limit, full: false }
    }

    /// Returns whether nothing is queued for this topic, so that a new record may be produced directly.
    pub(super) fn is_empty(&self, topic: SinkTopic) -> bool {
        self.topics.get(topic.index()).is_none_or(VecDeque::is_empty)
    }

    pub(super) fn push(&mut self, record: OwnedRecord, id: RecordId) {
        let (topic, bytes) = (record.topic, record.memory());
        self.add(topic, QueuedRecord { item: QueuedItem::Output(record), id, bytes });
    }

    /// Adds a dead letter. `bytes`: the memory that its record takes while it is sent.
    pub(super) fn push_dead_letter(&mut self, topic: SinkTopic, id: RecordId, bytes: usize) {
        self.add(topic, QueuedRecord { item: QueuedItem::DeadLetter, id, bytes });
    }

    fn add(&mut self, topic: SinkTopic, queued: QueuedRecord) {
        self.bytes += queued.bytes;
        let topic = self.topics.get_mut(topic.index());
        topic.expect("every topic of the sink has a queue").push_back(queued);
    }

    /// Produces queued records of each topic, until the producer has no capacity for the topic. Returns true if any
    /// record left the backlog.
    pub(super) fn produce(
        &mut self,
        mut send: impl FnMut(&QueuedItem, RecordId) -> Result<(), ProduceError>,
        mut rejected: impl FnMut(RecordId, DeliveryError),
    ) -> bool {
        let mut moved = false;
        for topic in &mut self.topics {
            while let Some(queued) = topic.front() {
                match send(&queued.item, queued.id) {
                    Err(ProduceError::NotNow) => break,
                    Ok(()) => {}
                    Err(ProduceError::Rejected(error)) => rejected(queued.id, error),
                }
                self.bytes -= queued.bytes;
                topic.pop_front();
                moved = true;
            }
        }
        moved
    }

    /// Drops the records of disowned rows.
    pub(super) fn discard(&mut self, is_disowned: impl Fn(&RecordId) -> bool) {
        for topic in &mut self.topics {
            topic.retain(|queued| !is_disowned(&queued.id));
        }
        self.bytes = self.topics.iter().flatten().map(|queued| queued.bytes).sum();
    }

    /// Returns the memory of the queued records, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the topic with the most queued bytes while the backlog is full.
    pub(super) fn fullest(&self) -> Option<usize> {
        let bytes = |topic: &VecDeque<QueuedRecord>| topic.iter().map(|queued| queued.bytes).sum::<usize>();
        let sizes = self.topics.iter().map(bytes).enumerate().filter(|_| self.full);
        sizes.max_by_key(|(_, bytes)| *bytes).map(|(topic, _)| topic)
    }

    /// Updates and returns whether no more calls should begin. Once full, the backlog stays full until half of the
    /// limit or less is queued, so that the state does not change at every record.
    pub(super) fn update_full(&mut self) -> bool {
        self.full = self.bytes > if self.full { self.limit / 2 } else { self.limit };
        self.full
    }
}

#[cfg(test)]
mod tests {
    use keylane_core::CallId;

    use super::*;

    fn id(row: u32) -> RecordId {
        let call = CallId { slot: 0, reuse_count: 1 };
        RecordId { handler: 0, call, row, lane: 0, output: row, dead_letter: false }
    }

    fn record(topic: SinkTopic) -> OwnedRecord {
        OwnedRecord { topic, timestamp: None, key: None, value: Some(vec![0; 800]), headers: Vec::new() }
    }

    #[test]
    fn a_full_topic_does_not_block_another_and_order_is_kept() {
        let mut backlog = Backlog::new(2, 10_000);
        for row in 0..4 {
            backlog.push(record(SinkTopic(u16::try_from(row % 2).expect("0 or 1"))), id(row));
        }
        let mut sent = Vec::new();
        let moved = backlog.produce(
            |item, id| {
                if let QueuedItem::Output(OwnedRecord { topic: SinkTopic(0), .. }) = item {
                    return Err(ProduceError::NotNow);
                }
                sent.push(id.row);
                Ok(())
            },
            |_, _| (),
        );
        assert!(moved && sent == [1, 3]);
        assert!(!backlog.is_empty(SinkTopic(0)) && backlog.is_empty(SinkTopic(1)));
    }

    #[test]
    fn it_is_full_until_half_of_it_was_sent() {
        let mut backlog = Backlog::new(1, 4_000);
        let states: Vec<bool> = (0..5)
            .map(|row| {
                backlog.push(record(SinkTopic(0)), id(row));
                backlog.update_full()
            })
            .collect();
        assert_eq!(states, [false, false, false, false, true]);
        assert_eq!(backlog.fullest(), Some(0));
        let mut left = 1;
        let mut one = |_: &QueuedItem, _: RecordId| {
            left -= 1;
            if left < 0 { Err(ProduceError::NotNow) } else { Ok(()) }
        };
        backlog.produce(&mut one, |_, _| ());
        assert!(backlog.update_full(), "four are left, and two would be few enough");
        backlog.discard(|id| id.row < 4);
        assert!(!backlog.update_full() && backlog.fullest().is_none(), "one is left");
    }
}
