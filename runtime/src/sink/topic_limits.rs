//! The limits of the topics and the client, checked before a record is produced.
//!
//! Brokers reject batches, not records. A record that is rejected here costs no request and affects no other record.
use super::{SinkRecord, SinkTopic};
use crate::librdkafka::Properties;

/// Upper bound of a batch: slightly below Kafka's default of `max.message.bytes`, which is 1 MiB and 12 bytes.
const TOPIC_BYTES: usize = 1 << 20;
/// Bytes reserved for the header of a batch, so that a full batch stays below its topic's limit.
const BATCH_RESERVE: usize = 1 << 10;
/// The client's default of `message.max.bytes`.
const CLIENT_BYTES: usize = 1_000_000;
/// The largest value of `message.max.bytes` that the client accepts.
const CLIENT_BYTES_MAX: usize = 1_000_000_000;
/// Size of the header of a batch (record format 2).
const BATCH_HEADER: usize = 61;
/// Bytes that the client counts for a record's framing, whatever its real size.
const CLIENT_FRAMING: usize = 36;

/// The limits of one topic, as far as the brokers reported them when the sink started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TopicLimits {
    /// The maximum size of a batch, after compression: `max.message.bytes`.
    pub(super) batch_bytes: Option<usize>,
    /// Whether `cleanup.policy` contains `compact`: the topic accepts no record without a key.
    pub(super) compacted: bool,
    /// The timestamps that the topic accepts.
    pub(super) times: TimestampLimits,
}

/// The timestamps that a topic accepts, and its retention, in milliseconds. `None`: no known limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TimestampLimits {
    /// How far a timestamp may be behind the broker's clock.
    pub(super) before: Option<i64>,
    /// How far a timestamp may be ahead of the broker's clock.
    pub(super) after: Option<i64>,
    /// The topic's `retention.ms`, if retention depends on the timestamps of records.
    pub(super) retention: Option<i64>,
}

/// How a topic treats a record's timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeFit {
    /// The record is stored and kept.
    Kept,
    /// The record is stored, but already past the topic's retention.
    Expired,
    /// The record is rejected.
    Rejected,
}

/// The limits of all topics, and of the client.
#[derive(Debug, Default)]
pub(super) struct Limits {
    topics: Vec<TopicLimits>,
    client_bytes: usize,
    /// Whether records are compressed. Their size in the topic is then unknown before they are sent.
    compressed: bool,
}

/// Why a record can't be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpublishable {
    /// Its topic accepts no batch of this size.
    #[error(
        "takes {bytes} bytes, and the topic's `max.message.bytes` is {max}: emit less, or raise it and restart \
         Keylane"
    )]
    TooLargeForTopic {
        /// Size of a batch with only this record.
        bytes: usize,
        /// The topic's limit.
        max: usize,
    },
    /// The client sends no record of this size.
    #[error(
        "takes {bytes} bytes, and the client's `message.max.bytes` is {max}: emit less, or raise it under \
         [kafka.producer]"
    )]
    TooLargeForClient {
        /// Size as the client counts it.
        bytes: usize,
        /// The client's limit.
        max: usize,
    },
    /// A compacted topic accepts no record without a key.
    #[error(
        "has no key, and the topic is compacted: emit a key, or remove `compact` from the topic's \
         `cleanup.policy` and restart Keylane"
    )]
    MissingRecordKey,
}

/// The size of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordSize {
    keyed: bool,
    /// Bytes of key and value, and of headers with their encoded lengths.
    content: usize,
    /// Bytes of the encoded lengths of key and value.
    lengths: usize,
    headers: usize,
}

impl RecordSize {
    /// Returns the bytes of key, value and headers.
    pub(super) fn content(&self) -> usize {
        self.content
    }

    /// Determines the size of a whole record.
    pub fn of(record: &SinkRecord<'_>) -> RecordSize {
        let size = RecordSize::new(record.key, record.value);
        record.headers.iter().fold(size, |size, (name, value)| size.with(name, *value))
    }

    /// Determines the size of a record without headers.
    pub fn new(key: Option<&[u8]>, value: Option<&[u8]>) -> RecordSize {
        let bytes = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        RecordSize {
            keyed: key.is_some(),
            content: bytes(key) + bytes(value),
            lengths: varint(bytes(key)) + varint(bytes(value)),
            headers: 0,
        }
    }

    /// Returns the size with one more header.
    #[must_use]
    pub fn with(mut self, name: &[u8], value: Option<&[u8]>) -> RecordSize {
        let value = value.map_or(0, <[u8]>::len);
        self.content += varint(name.len()) + name.len() + varint(value) + value;
        self.headers += 1;
        self
    }

    /// Returns the size with this many more bytes, to check whether they fit before they are written.
    #[must_use]
    pub fn with_extra_bytes(mut self, bytes: usize) -> RecordSize {
        self.content += bytes;
        self
    }

    /// Returns the size of a batch with only this record, as its topic counts it.
    fn of_batch(self) -> usize {
        // Attributes, and the deltas to the timestamp and offset of the batch: one byte each.
        let record = 3 + self.lengths + varint(self.headers) + self.content;
        BATCH_HEADER + varint(record) + record
    }
}

impl Limits {
    /// Combines the limits of topics and client. `properties`: those of the client that requested the topics' limits.
    pub(super) fn new(topics: Vec<TopicLimits>, properties: &Properties) -> Limits {
        let value = |names: [&str; 2]| names.into_iter().find_map(|name| properties.get(name));
        let client_bytes = value(["message.max.bytes"; 2]).and_then(|bytes| bytes.parse().ok());
        // The client counts fewer bytes for an uncompressed record than its topic does, so with the topics' largest
        // limit the client is never the one that rejects it.
        let largest = topics.iter().filter_map(|topic| topic.batch_bytes).max().unwrap_or(0);
        let compression = value(["compression.codec", "compression.type"]).unwrap_or("none");
        Limits {
            topics,
            client_bytes: client_bytes.unwrap_or(largest.clamp(CLIENT_BYTES, CLIENT_BYTES_MAX)),
            compressed: compression != "none",
        }
    }

    /// Sets the client properties that follow from the limits.
    pub(super) fn apply(&self, properties: &mut Properties) {
        properties.set("batch.size", self.batch_size());
        properties.set_default("message.max.bytes", self.client_bytes);
    }

    /// Returns the size of a full batch, which fits into every topic. A larger record is sent alone, because the client
    /// puts at least one record into each batch.
    fn batch_size(&self) -> usize {
        let smallest = self.topics.iter().filter_map(|topic| topic.batch_bytes).fold(TOPIC_BYTES, usize::min);
        smallest.saturating_sub(BATCH_RESERVE).max(1)
    }

    /// Checks whether a record can be stored, as far as known.
    pub(super) fn check(&self, topic: SinkTopic, size: RecordSize) -> Result<(), Unpublishable> {
        let topic = self.topics.get(topic.index()).copied().unwrap_or_default();
        let (bytes, max) = (CLIENT_FRAMING + size.content, self.client_bytes);
        if topic.compacted && !size.keyed {
            return Err(Unpublishable::MissingRecordKey);
        }
        if let Some(max) = topic.batch_bytes
            && !self.compressed
            && size.of_batch() > max
        {
            return Err(Unpublishable::TooLargeForTopic { bytes: size.of_batch(), max });
        }
        if bytes > max { Err(Unpublishable::TooLargeForClient { bytes, max }) } else { Ok(()) }
    }

    /// Returns the size of the largest record that the topic may accept, in bytes.
    pub(super) fn max_record_bytes(&self, topic: SinkTopic) -> usize {
        let topic = self.topics.get(topic.index()).and_then(|topic| topic.batch_bytes);
        let topic = topic.filter(|_| !self.compressed); // the topic does not limit the size before compression
        topic.unwrap_or(self.client_bytes).min(self.client_bytes)
    }

    /// Returns how the topic treats this timestamp, as far as known. Times are in milliseconds since the Unix epoch.
    pub(super) fn timestamp_fit(&self, topic: SinkTopic, timestamp: i64, now: i64) -> TimeFit {
        let times = self.topics.get(topic.index()).map(|topic| topic.times).unwrap_or_default();
        let (age, ahead) = (now.saturating_sub(timestamp), timestamp.saturating_sub(now));
        let is_over = |value: i64, limit: Option<i64>| limit.is_some_and(|limit| value > limit);
        if is_over(age, times.before) || is_over(ahead, times.after) {
            TimeFit::Rejected
        } else if is_over(age, times.retention) {
            TimeFit::Expired
        } else {
            TimeFit::Kept
        }
    }

    /// Returns whether the topic accepts no record without a key.
    pub(super) fn is_compacted(&self, topic: SinkTopic) -> bool {
        self.topics.get(topic.index()).is_some_and(|topic| topic.compacted)
    }
}

/// Returns the number of bytes of a length in the record format (zigzag, seven bits per byte).
fn varint(length: usize) -> usize {
    let bits = usize::BITS - length.leading_zeros() + 1;
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(topics: &[Option<usize>], properties: &[(&str, &str)]) -> Limits {
        let topics = topics.iter().map(|&batch_bytes| TopicLimits { batch_bytes, ..TopicLimits::default() });
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Limits::new(topics.collect(), &Properties::new(properties.collect()))
    }

    fn applied(limits: &Limits) -> (String, String) {
        let mut properties = Properties::default();
        limits.apply(&mut properties);
        let value = |name| properties.get(name).expect("it was set").to_owned();
        (value("batch.size"), value("message.max.bytes"))
    }

    #[test]
    fn a_full_batch_fits_into_every_topic() {
        for (topics, batch, client) in [
            (&[][..], 1_047_552, 1_000_000),
            (&[None], 1_047_552, 1_000_000),
            (&[Some(1_048_588), None], 1_047_552, 1_048_588),
            (&[Some(2_000), Some(5_000_000)], 976, 5_000_000),
            (&[Some(100)], 1, 1_000_000),
            (&[Some(2_147_483_647)], 1_047_552, 1_000_000_000),
        ] {
            let wanted = (batch.to_string(), client.to_string());
            assert_eq!(applied(&limits(topics, &[])), wanted, "{topics:?}");
        }
    }

    #[test]
    fn the_users_limit_is_kept() {
        let limits = limits(&[Some(5_000)], &[("message.max.bytes", "3000")]);
        let record = |bytes: usize| RecordSize::new(None, Some(&vec![0; bytes]));
        assert_eq!(limits.check(SinkTopic(0), record(2_964)), Ok(()));
        let refused = Err(Unpublishable::TooLargeForClient { bytes: 3_001, max: 3_000 });
        assert_eq!(limits.check(SinkTopic(0), record(2_965)), refused);
    }

    #[test]
    fn a_topics_limit_applies_unless_records_are_compressed() {
        let record = RecordSize::new(Some(b"k"), Some(&[0; 1_930]));
        let refused = Err(Unpublishable::TooLargeForTopic { bytes: 2_001, max: 2_000 });
        assert_eq!(limits(&[Some(2_000)], &[]).check(SinkTopic(0), record), refused);
        assert_eq!(limits(&[Some(2_001)], &[]).check(SinkTopic(0), record), Ok(()));
        for (codec, name) in [("zstd", "compression.type"), ("lz4", "compression.codec")] {
            assert_eq!(
                limits(&[Some(2_000)], &[(name, codec)]).check(SinkTopic(0), record),
                Ok(()),
                "the compressed size is unknown"
            );
        }
        assert_eq!(
            limits(&[Some(2_000)], &[("compression.type", "none")]).check(SinkTopic(0), record),
            refused
        );
    }

    #[test]
    fn a_compacted_topic_accepts_empty_keys_but_not_absent_ones() {
        let compacted = TopicLimits { compacted: true, ..TopicLimits::default() };
        let limits = Limits::new(vec![compacted], &Properties::default());
        assert_eq!(limits.check(SinkTopic(0), RecordSize::new(Some(b""), None)), Ok(()));
        assert_eq!(
            limits.check(SinkTopic(0), RecordSize::new(None, Some(b"v"))),
            Err(Unpublishable::MissingRecordKey)
        );
        assert!(limits.is_compacted(SinkTopic(0)) && !limits.is_compacted(SinkTopic(1)));
    }

    #[test]
    fn a_timestamp_is_accepted_within_the_topics_bounds() {
        let times = TimestampLimits { before: Some(1_000), after: Some(100), retention: Some(500) };
        let limits = Limits::new(
            vec![TopicLimits { times, ..TopicLimits::default() }, TopicLimits::default()],
            &Properties::default(),
        );
        for (timestamp, fit) in [
            (8_999, TimeFit::Rejected),
            (9_000, TimeFit::Expired),
            (9_500, TimeFit::Kept),
            (10_100, TimeFit::Kept),
            (10_101, TimeFit::Rejected),
            (i64::MAX, TimeFit::Rejected),
        ] {
            assert_eq!(limits.timestamp_fit(SinkTopic(0), timestamp, 10_000), fit, "{timestamp}");
            assert_eq!(
                limits.timestamp_fit(SinkTopic(1), timestamp, 10_000),
                TimeFit::Kept,
                "the limits of this topic are unknown"
            );
        }
    }

    #[test]
    fn varint_lengths_match_the_record_format() {
        for (length, bytes) in [(0, 1), (63, 1), (64, 2), (8_191, 2), (8_192, 3), (1 << 20, 4)] {
            assert_eq!(varint(length), bytes, "{length}");
        }
    }
}
