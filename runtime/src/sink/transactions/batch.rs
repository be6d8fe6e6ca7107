//! Records that are kept until a transaction publishes them, packed into one buffer.
use std::ops::Range;

use super::super::{RecordSize, SinkRecord, SinkTopic};
use crate::librdkafka::Header;

/// The records of one guest call, in the order of their events. Unchanged once it is complete.
#[derive(Debug, Default)]
pub struct RecordBatch {
    bytes: Vec<u8>,
    records: Vec<PackedRecord>,
    headers: Vec<(Bytes, Option<Bytes>)>,
}

/// A range of the buffer.
type Bytes = Range<usize>;

#[derive(Debug)]
struct PackedRecord {
    topic: SinkTopic,
    /// `None`: the partition of its key.
    partition: Option<i32>,
    timestamp: Option<i64>,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Range<usize>,
}

impl RecordBatch {
    /// Appends a copy of a record.
    pub fn push(&mut self, record: &SinkRecord<'_>) {
        self.push_to(None, record);
    }

    /// Appends a copy of a record. `partition`: `None`: that of its key.
    pub fn push_to(&mut self, partition: Option<i32>, record: &SinkRecord<'_>) {
        let key = record.key.map(|key| self.add(key));
        let value = record.value.map(|value| self.add(value));
        let first = self.headers.len();
        for (name, value) in record.headers {
            let header = (self.add(name), value.map(|value| self.add(value)));
            self.headers.push(header);
        }
        let headers = first..self.headers.len();
        let SinkRecord { topic, timestamp, .. } = *record;
        self.records.push(PackedRecord { topic, partition, timestamp, key, value, headers });
    }

    /// Returns a copy with another record in the place of one.
    pub fn with_replaced(&self, at: usize, replacement: &SinkRecord<'_>) -> RecordBatch {
        let mut copy = RecordBatch::default();
        for index in 0..self.len() {
            if index == at {
                copy.push(replacement);
            } else {
                self.lend(index, |record, partition| copy.push_to(partition, record));
            }
        }
        copy
    }

    /// Returns a copy of some of the records.
    pub fn copy_of(&self, records: impl IntoIterator<Item = usize>) -> RecordBatch {
        let mut copy = RecordBatch::default();
        for at in records {
            self.lend(at, |record, partition| copy.push_to(partition, record));
        }
        copy.bytes.shrink_to_fit();
        copy
    }

    /// Returns the memory that these records take.
    pub fn bytes_of(&self, records: Range<usize>) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, ExactSizeIterator::len);
        let bytes = |record: &PackedRecord| {
            let headers = self.headers.get(record.headers.clone()).unwrap_or_default();
            let of_header = |(name, value): &(Bytes, Option<Bytes>)| {
                name.len() + length(value) + size_of::<(Bytes, Option<Bytes>)>()
            };
            let headers: usize = headers.iter().map(of_header).sum();
            length(&record.key) + length(&record.value) + headers + size_of::<PackedRecord>()
        };
        self.records.get(records).unwrap_or_default().iter().map(bytes).sum()
    }

    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Passes one record to `to`, with its partition; `None`: there are fewer.
    pub fn lend<T>(&self, at: usize, to: impl FnOnce(&SinkRecord<'_>, Option<i32>) -> T) -> Option<T> {
        let record = self.records.get(at)?;
        let bytes = |range: &Bytes| self.bytes.get(range.clone()).unwrap_or_default();
        let headers = self.headers.get(record.headers.clone()).unwrap_or_default();
        let headers: Vec<Header<'_>> =
            headers.iter().map(|(name, value)| (bytes(name), value.as_ref().map(bytes))).collect();
        let lent = SinkRecord {
            topic: record.topic,
            timestamp: record.timestamp,
            key: record.key.as_ref().map(bytes),
            value: record.value.as_ref().map(bytes),
            headers: &headers,
        };
        Some(to(&lent, record.partition))
    }

    /// Returns the topics of these records.
    pub fn topics(&self, records: Range<usize>) -> impl Iterator<Item = SinkTopic> {
        self.records.get(records).unwrap_or_default().iter().map(|record| record.topic)
    }

    fn add(&mut self, bytes: &[u8]) -> Bytes {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        from..self.bytes.len()
    }
}

/// Returns the memory that a record takes in a batch, without its headers' names and values if there are none.
pub fn packed_bytes(size: RecordSize) -> usize {
    size.content() + size_of::<PackedRecord>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_returned_as_they_were_added() {
        let headers: [Header<'_>; 2] = [(b"a", Some(b"1")), (b"b", None)];
        let first = SinkRecord {
            topic: SinkTopic(3),
            timestamp: Some(7),
            key: Some(b""),
            value: Some(b"value"),
            headers: &headers,
        };
        let second =
            SinkRecord { topic: SinkTopic(1), timestamp: None, key: None, value: None, headers: &[] };
        let mut batch = RecordBatch::default();
        batch.push(&first);
        batch.push_to(Some(7), &second);
        let copy = |record: &SinkRecord<'_>, partition| (crate::sink::OwnedRecord::from(record), partition);
        assert_eq!(batch.lend(0, copy), Some(copy(&first, None)));
        assert_eq!(batch.lend(1, copy), Some(copy(&second, Some(7))));
        assert_eq!(batch.lend(2, copy), None);
        assert_eq!(batch.topics(0..2).collect::<Vec<_>>(), [SinkTopic(3), SinkTopic(1)]);
        let replaced = batch.with_replaced(1, &first);
        assert_eq!(
            [0, 1].map(|at| replaced.lend(at, copy)),
            [Some(copy(&first, None)), Some(copy(&first, None))]
        );
        assert_eq!(replaced.len(), 2);
        let copied = replaced.copy_of([1]);
        assert_eq!((copied.lend(0, copy), copied.len()), (Some(copy(&first, None)), 1));
        assert_eq!(copied.bytes_of(0..1), batch.bytes_of(0..1));
        let size = size_of::<PackedRecord>();
        assert_eq!(batch.bytes_of(1..2), size, "a record without content");
        assert!(batch.bytes_of(0..2) > 2 * size + "valuea1b".len());
    }
}
