//! A record that is buffered until it can be sent.
use super::{RecordSize, SinkRecord};
use crate::librdkafka::{Header, Record};

/// Memory overhead of a record in addition to its bytes.
pub(super) const RECORD_OVERHEAD: usize = 200;

/// A topic of the sink: an index into the topics of the [`SinkSpec`](super::SinkSpec).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SinkTopic(pub u16);

impl SinkTopic {
    /// Returns the index.
    pub fn index(self) -> usize {
        self.0.into()
    }

    /// Returns the first `count` topics.
    pub fn all(count: usize) -> impl Iterator<Item = SinkTopic> {
        (0..).map(SinkTopic).take(count)
    }
}

/// A record that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Its topic.
    pub topic: SinkTopic,
    /// Milliseconds since the Unix epoch; `None`: the time at which it is sent.
    pub timestamp: Option<i64>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names and values, in order; names are bytes.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl From<&SinkRecord<'_>> for OwnedRecord {
    fn from(record: &SinkRecord<'_>) -> OwnedRecord {
        let owned = |bytes: &[u8]| bytes.to_vec();
        OwnedRecord {
            topic: record.topic,
            timestamp: record.timestamp,
            key: record.key.map(owned),
            value: record.value.map(owned),
            headers: record.headers.iter().map(|(name, value)| (name.to_vec(), value.map(owned))).collect(),
        }
    }
}

impl OwnedRecord {
    /// Copies a record that the client returned without its timestamp.
    pub(super) fn copy_of(topic: SinkTopic, timestamp: Option<i64>, message: &Record<'_>) -> OwnedRecord {
        let owned = |bytes: &[u8]| bytes.to_vec();
        OwnedRecord {
            topic,
            timestamp,
            key: message.key().map(owned),
            value: message.value().map(owned),
            headers: message.headers().map(|(name, value)| (name.to_vec(), value.map(owned))).collect(),
        }
    }

    /// Returns the size of the record.
    pub fn size(&self) -> RecordSize {
        let size = RecordSize::new(self.key.as_deref(), self.value.as_deref());
        self.headers.iter().fold(size, |size, (name, value)| size.with(name, value.as_deref()))
    }

    /// Returns the memory use in bytes.
    pub fn memory(&self) -> usize {
        self.size().content() + RECORD_OVERHEAD
    }

    /// Borrows the record as a [`SinkRecord`] and passes that to `to`.
    pub fn lend<T>(&self, to: impl FnOnce(&SinkRecord<'_>) -> T) -> T {
        let headers: Vec<Header<'_>> =
            self.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref())).collect();
        let OwnedRecord { topic, timestamp, key, value, .. } = self;
        to(&SinkRecord {
            topic: *topic,
            timestamp: *timestamp,
            key: key.as_deref(),
            value: value.as_deref(),
            headers: &headers,
        })
    }
}
