//! What the topics and the client take, and whether a record fits: known before it is handed over.
//!
//! Brokers refuse batches, not records. What is found here costs no trip, and no other record of a batch.
use super::OutputRecord;
use crate::librdkafka::Properties;

/// What a topic takes unless it is configured otherwise.
const TOPIC_BYTES: usize = 1 << 20;
/// What a batch's own header may need: a full batch stays below what its topic takes.
const BATCH_ROOM: usize = 1 << 10;
/// The client's own default and its largest value for `message.max.bytes`.
const CLIENT_BYTES: usize = 1_000_000;
const CLIENT_BYTES_MAX: usize = 1_000_000_000;
/// The header of a batch (record format 2).
const BATCH_HEADER: usize = 61;
/// What the client counts for a record's framing, whatever it really is.
const CLIENT_FRAMING: usize = 36;

/// What one topic takes, as far as the brokers told it when the sink started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TopicLimits {
    /// Its `max.message.bytes`: the size of a batch, after compression.
    pub(super) batch_bytes: Option<usize>,
    /// `compact` is in its `cleanup.policy`: it takes no record without a key.
    pub(super) compacted: bool,
    /// Which times of records it takes.
    pub(super) times: Times,
}

/// Which times of records a topic takes, and how long it keeps them. Milliseconds; `None`: without a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// So far behind the broker's clock.
    pub(super) before: Option<i64>,
    /// So far ahead of it.
    pub(super) after: Option<i64>,
    /// Its `retention.ms`, where the time of a record counts for it.
    pub(super) retention: Option<i64>,
}

/// What a topic makes of a record's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeFit {
    /// It is stored and kept.
    Kept,
    /// It is stored, and already older than the topic keeps records.
    Expired,
    /// It is refused.
    Refused,
}

/// What all topics take, and the client.
#[derive(Debug, Default)]
pub(super) struct Limits {
    topics: Vec<TopicLimits>,
    client_bytes: usize,
    /// How large a record is for its topic is then not known before it is sent.
    compressed: bool,
}

/// Why a record will not be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpublishable {
    /// Its topic takes no batch of this size.
    #[error(
        "takes {bytes} bytes, and the topic's `max.message.bytes` is {max}: emit less, or raise it and start \
         Keylane again"
    )]
    TooLargeForTopic {
        /// Of a batch with this record alone.
        bytes: usize,
        /// What the topic takes.
        max: usize,
    },
    /// The client sends no record of this size.
    #[error(
        "takes {bytes} bytes, and the client's `message.max.bytes` is {max}: emit less, or raise it under \
         [kafka.producer]"
    )]
    TooLargeForClient {
        /// As the client counts.
        bytes: usize,
        /// What it sends.
        max: usize,
    },
    /// A compacted topic takes no record without a key.
    #[error(
        "has no key, and the topic is compacted: emit a key, or take `compact` out of the topic's \
         `cleanup.policy` and start Keylane again"
    )]
    NoKey,
}

/// How large a record is.
#[derive(Clone, Copy, Debug)]
pub struct RecordSize {
    keyed: bool,
    /// Key, value, and headers with their lengths.
    content: usize,
    /// The lengths of key and value.
    lengths: usize,
    headers: usize,
}

impl RecordSize {
    /// Bytes of key, value and headers.
    pub(super) fn content(&self) -> usize {
        self.content
    }

    /// Of a whole record.
    pub fn of(output: &OutputRecord<'_>) -> RecordSize {
        let size = RecordSize::new(output.key, output.value);
        output.headers.iter().fold(size, |size, (name, value)| size.with(name, *value))
    }

    /// Of a record that has no headers yet.
    pub fn new(key: Option<&[u8]>, value: Option<&[u8]>) -> RecordSize {
        let bytes = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        RecordSize {
            keyed: key.is_some(),
            content: bytes(key) + bytes(value),
            lengths: varint(bytes(key)) + varint(bytes(value)),
            headers: 0,
        }
    }

    /// With one more header.
    #[must_use]
    pub fn with(mut self, name: &[u8], value: Option<&[u8]>) -> RecordSize {
        let value = value.map_or(0, <[u8]>::len);
        self.content += varint(name.len()) + name.len() + varint(value) + value;
        self.headers += 1;
        self
    }

    /// With so many more bytes: for those who do not want to write them to know that they fit.
    #[must_use]
    pub fn with_room_for(mut self, bytes: usize) -> RecordSize {
        self.content += bytes;
        self
    }

    /// Of a batch with this record alone, as its topic counts.
    fn of_batch(self) -> usize {
        // Attributes, and the differences to the batch's own time and offset: a byte each.
        let record = 3 + self.lengths + varint(self.headers) + self.content;
        BATCH_HEADER + varint(record) + record
    }
}

impl Limits {
    /// `properties`: with which the topics were asked for.
    pub(super) fn new(topics: Vec<TopicLimits>, properties: &Properties) -> Limits {
        let value = |names: [&str; 2]| names.into_iter().find_map(|name| properties.get(name));
        let client_bytes = value(["message.max.bytes"; 2]).and_then(|bytes| bytes.parse().ok());
        // The client counts less for a record than its topic does: it must not be what refuses it.
        let largest = topics.iter().filter_map(|topic| topic.batch_bytes).max().unwrap_or(0);
        let compression = value(["compression.codec", "compression.type"]).unwrap_or("none");
        Limits {
            topics,
            client_bytes: client_bytes.unwrap_or(largest.clamp(CLIENT_BYTES, CLIENT_BYTES_MAX)),
            compressed: compression != "none",
        }
    }

    /// What the client has to know.
    pub(super) fn apply(&self, properties: &mut Properties) {
        properties.set("batch.size", self.batch_size());
        properties.default_value("message.max.bytes", self.client_bytes);
    }

    /// A full batch fits into every topic. A record that is larger goes alone: the client puts at least one into each
    /// batch.
    fn batch_size(&self) -> usize {
        let smallest = self.topics.iter().filter_map(|topic| topic.batch_bytes).fold(TOPIC_BYTES, usize::min);
        smallest.saturating_sub(BATCH_ROOM).max(1)
    }

    /// Whether a record can be stored, as far as it is known.
    pub(super) fn check(&self, topic: u16, size: RecordSize) -> Result<(), Unpublishable> {
        let topic = self.topics.get(usize::from(topic)).copied().unwrap_or_default();
        let (bytes, max) = (CLIENT_FRAMING + size.content, self.client_bytes);
        if topic.compacted && !size.keyed {
            return Err(Unpublishable::NoKey);
        }
        if let Some(max) = topic.batch_bytes
            && !self.compressed
            && size.of_batch() > max
        {
            return Err(Unpublishable::TooLargeForTopic { bytes: size.of_batch(), max });
        }
        if bytes > max { Err(Unpublishable::TooLargeForClient { bytes, max }) } else { Ok(()) }
    }

    /// Bytes of the largest record that the topic may take.
    pub(super) fn largest_taken(&self, topic: u16) -> usize {
        let topic = self.topics.get(usize::from(topic)).and_then(|topic| topic.batch_bytes);
        let topic = topic.filter(|_| !self.compressed); // how large a record is before that is not limited
        topic.unwrap_or(self.client_bytes).min(self.client_bytes)
    }

    /// What the topic makes of this time, as far as it is known; milliseconds since 1970.
    pub(super) fn time(&self, topic: u16, timestamp: i64, now: i64) -> TimeFit {
        let times = self.topics.get(usize::from(topic)).map(|topic| topic.times).unwrap_or_default();
        let (age, ahead) = (now.saturating_sub(timestamp), timestamp.saturating_sub(now));
        let is_over = |value: i64, limit: Option<i64>| limit.is_some_and(|limit| value > limit);
        if is_over(age, times.before) || is_over(ahead, times.after) {
            TimeFit::Refused
        } else if is_over(age, times.retention) {
            TimeFit::Expired
        } else {
            TimeFit::Kept
        }
    }

    /// Whether the topic takes no record without a key.
    pub(super) fn is_compacted(&self, topic: u16) -> bool {
        self.topics.get(usize::from(topic)).is_some_and(|topic| topic.compacted)
    }
}

/// Bytes of a length in the record format: zigzag, seven bits a byte.
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
    fn the_users_limit_stands() {
        let limits = limits(&[Some(5_000)], &[("message.max.bytes", "3000")]);
        let record = |bytes: usize| RecordSize::new(None, Some(&vec![0; bytes]));
        assert_eq!(limits.check(0, record(2_964)), Ok(()));
        let refused = Err(Unpublishable::TooLargeForClient { bytes: 3_001, max: 3_000 });
        assert_eq!(limits.check(0, record(2_965)), refused);
    }

    #[test]
    fn a_topics_limit_counts_unless_records_are_compressed() {
        let record = RecordSize::new(Some(b"k"), Some(&[0; 1_930]));
        let refused = Err(Unpublishable::TooLargeForTopic { bytes: 2_001, max: 2_000 });
        assert_eq!(limits(&[Some(2_000)], &[]).check(0, record), refused);
        assert_eq!(limits(&[Some(2_001)], &[]).check(0, record), Ok(()));
        for (codec, name) in [("zstd", "compression.type"), ("lz4", "compression.codec")] {
            assert_eq!(limits(&[Some(2_000)], &[(name, codec)]).check(0, record), Ok(()), "nobody knows yet");
        }
        assert_eq!(limits(&[Some(2_000)], &[("compression.type", "none")]).check(0, record), refused);
    }

    #[test]
    fn a_compacted_topic_takes_empty_keys_and_no_absent_ones() {
        let compacted = TopicLimits { compacted: true, ..TopicLimits::default() };
        let limits = Limits::new(vec![compacted], &Properties::default());
        assert_eq!(limits.check(0, RecordSize::new(Some(b""), None)), Ok(()));
        assert_eq!(limits.check(0, RecordSize::new(None, Some(b"v"))), Err(Unpublishable::NoKey));
        assert!(limits.is_compacted(0) && !limits.is_compacted(1));
    }

    #[test]
    fn a_time_is_taken_within_the_topics_bounds() {
        let times = Times { before: Some(1_000), after: Some(100), retention: Some(500) };
        let limits = Limits::new(
            vec![TopicLimits { times, ..TopicLimits::default() }, TopicLimits::default()],
            &Properties::default(),
        );
        for (timestamp, fit) in [
            (8_999, TimeFit::Refused),
            (9_000, TimeFit::Expired),
            (9_500, TimeFit::Kept),
            (10_100, TimeFit::Kept),
            (10_101, TimeFit::Refused),
            (i64::MAX, TimeFit::Refused),
        ] {
            assert_eq!(limits.time(0, timestamp, 10_000), fit, "{timestamp}");
            assert_eq!(limits.time(1, timestamp, 10_000), TimeFit::Kept, "nothing is known of this topic");
        }
    }

    #[test]
    fn lengths_take_as_many_bytes_as_in_the_record_format() {
        for (length, bytes) in [(0, 1), (63, 1), (64, 2), (8_191, 2), (8_192, 3), (1 << 20, 4)] {
            assert_eq!(varint(length), bytes, "{length}");
        }
    }
}
