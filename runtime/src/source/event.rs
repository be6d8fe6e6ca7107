//! The events and results of a source.
use keylane_core::{CommitError, CommitId, Partition, ReadError, RebalanceId};

use crate::librdkafka::{ErrorCode, Message};

/// A record, borrowed for the duration of a callback.
pub type Record<'a> = Message<'a>;

/// An event of the consumer.
#[derive(Debug)]
pub enum SourceEvent {
    /// The group assigns these partitions: look up their start positions, then call [`Source::answer_assign`](super::Source).
    Assign(RebalanceId, Vec<Partition>),
    /// The group revokes these partitions; they stay owned until [`Source::answer_revoke`](super::Source).
    Revoke(RebalanceId, Vec<Partition>),
    /// These partitions may already have another owner: call [`Source::answer_revoke`](super::Source) at once.
    Lost(RebalanceId, Vec<Partition>),
    /// A requested start position.
    StartResolved(StartFound),
    /// A start position could not be found; request it again later.
    LookUpFailed {
        /// The partition.
        partition: Partition,
        /// Why not, for log lines.
        reason: String,
        /// A transaction of a former owner is still open.
        undecided: bool,
    },
    /// The end offset of this partition. Reported before its start position, except for a feed that is still being read.
    EndKnown {
        /// The partition.
        partition: Partition,
        /// Records at or past this offset are not processed.
        offset: i64,
    },
    /// A partition can't be read, as found outside a read. It is not read until it is repositioned.
    ReadFailed {
        /// The partition.
        partition: Partition,
        /// Why. A range error carries the current bounds of the log.
        why: ReadError,
    },
    /// The result of a commit for one partition.
    CommitResult {
        /// The commit.
        id: CommitId,
        /// The partition.
        partition: Partition,
        /// The coordinator's answer.
        result: Result<(), CommitError>,
        /// Its code, for log lines.
        code: ErrorCode,
    },
    /// A commit timed out; a later answer is dropped.
    CommitTimedOut {
        /// The commit.
        id: CommitId,
    },
    /// An error to be logged.
    Error(SourceError),
}

/// The start position of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFound {
    /// The partition.
    pub partition: Partition,
    /// The committed offset with its metadata, if any.
    pub committed: Option<(i64, Vec<u8>)>,
    /// Start offset without a commit.
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
    /// Its code; [`ErrorCode::NONE`] for the feed of the embedded broker.
    pub code: ErrorCode,
    /// The error and, if one exists, its remedy.
    pub text: String,
}

/// The result of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadResult {
    /// Number of records read.
    pub events: u32,
    /// The end of the partition was reached, at this offset.
    pub end_of_partition: Option<i64>,
    /// Reading failed after those records. Nothing more is read until the partition is repositioned.
    pub error: Option<ReadError>,
    /// More records may be available: no wake-up follows for them.
    pub more: bool,
}
