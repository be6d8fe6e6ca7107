//! The events and results of a source.
use std::time::Duration;

use keylane_core::{CommitError, CommitId, LogEnd, Partition, ReadError, RebalanceId};

use crate::librdkafka::ErrorCode;

/// An event of the consumer.
#[derive(Debug)]
pub enum SourceEvent {
    /// The group assigns these partitions: look up their start positions, then call
    /// [`Source::answer_assign`](super::Source).
    Assign(RebalanceId, Vec<Partition>),
    /// The group revokes these partitions; they stay owned until [`Source::answer_revoke`](super::Source).
    Revoke(RebalanceId, Vec<Partition>),
    /// These partitions may already have another owner: call [`Source::answer_revoke`](super::Source) at once.
    Lost(RebalanceId, Vec<Partition>),
    /// A requested start position.
    StartResolved(StartPosition),
    /// A start position could not be found; request it again later.
    LookupFailed {
        /// The partition.
        partition: Partition,
        /// The reason, for log lines.
        reason: String,
        /// Whether a transaction that commits an offset of the partition is still open.
        transaction_open: bool,
    },
    /// The number of partitions of a topic, reported with the first start position and when it changes. It is compared every
    /// few seconds while partitions of topics with a known id are owned.
    PartitionCount {
        /// The topic, by its index.
        topic: u16,
        /// The number.
        count: i32,
        /// The number when the source started, or when the topic was created again.
        at_start: i32,
    },
    /// Transactional delivery: the group has a member that does not have it. While it is a member, no partition is taken.
    OtherDelivery {
        /// The member, for log lines.
        member: String,
    },
    /// The end offset of this partition, reported once: before the start position, or later if it is the end of a feed
    /// whose input has not ended yet.
    EndKnown {
        /// The partition.
        partition: Partition,
        /// Records at or past this offset are not processed.
        offset: i64,
    },
    /// A partition can't be read. This was found by a lookup, a seek or an assign, not by a read. The partition must
    /// be repositioned before it is read again.
    ReadFailed {
        /// The partition.
        partition: Partition,
        /// The reason. A range error contains the current bounds of the log.
        why: ReadError,
    },
    /// The end of a log from which nothing has arrived for a while.
    LogEnd {
        /// The partition.
        partition: Partition,
        /// The end.
        end: LogEnd,
    },
    /// The response to [`Source::request_log_ends`](super::Source), for one partition.
    LogEndSeen {
        /// The partition.
        partition: Partition,
        /// One past the last offset, open transactions included.
        end: i64,
        /// The uptime at which the request was sent.
        sent_at: Duration,
    },
    /// The result of a commit for one partition.
    CommitResult {
        /// The commit.
        id: CommitId,
        /// The partition.
        partition: Partition,
        /// The coordinator's response.
        result: Result<(), CommitError>,
        /// The error code of the response, for log lines.
        code: ErrorCode,
    },
    /// A commit timed out; a later response is dropped.
    CommitTimedOut {
        /// The commit.
        id: CommitId,
    },
    /// An error to be logged.
    Error(SourceError),
}

/// The start position of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartPosition {
    /// The partition.
    pub partition: Partition,
    /// The committed offset with its metadata, if any.
    pub committed: Option<(i64, Vec<u8>)>,
    /// The start offset if there is no commit.
    pub fallback: i64,
    /// First offset of the log.
    pub log_start: i64,
    /// One past the last offset of the log.
    pub log_end: Option<i64>,
    /// One past the last offset that can be read now, if requested.
    pub stable_end: Option<i64>,
    /// The topic's id; zeros if the broker reports none.
    pub topic_id: [u8; 16],
}

/// An error that does not belong to one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    /// Whether the source can't continue.
    pub fatal: bool,
    /// The error code; [`ErrorCode::NONE`] if the feed of the embedded broker failed.
    pub code: ErrorCode,
    /// The error and its remedy, if one exists.
    pub text: String,
}

/// The result of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadResult {
    /// Number of records read.
    pub records: u32,
    /// The offset of the partition's end, if the read reached it.
    pub end_of_partition: Option<i64>,
    /// The error that ended the read, after those records. Unless it is [`ReadError::Interrupted`], nothing more is
    /// read until the partition is repositioned.
    pub error: Option<ReadError>,
    /// Whether more records may be available, for which no wake-up follows.
    pub more: bool,
}
