//! What a source has to tell.
use keylane_core::{CommitError, CommitId, Partition, ReadError, RebalanceId};

use crate::librdkafka::{ErrorCode, Message};

/// A record, lent for the time of a callback.
pub type Record<'a> = Message<'a>;

/// One thing that happened.
#[derive(Debug)]
pub enum SourceEvent {
    /// The group gives these to us: look up their starts, then [`Source::answer_assign`](super::Source).
    Assign(RebalanceId, Vec<Partition>),
    /// The group takes these away; they are ours until [`Source::answer_revoke`](super::Source).
    Revoke(RebalanceId, Vec<Partition>),
    /// These belong to someone else already: [`Source::answer_revoke`](super::Source) at once.
    Lost(RebalanceId, Vec<Partition>),
    /// A start that was asked for.
    StartResolved(StartFound),
    /// A start that could not be found; ask again later.
    AssignFailed {
        /// Whose.
        partition: Partition,
        /// Why not, for people.
        reason: String,
        /// A transaction of a former owner has not ended.
        undecided: bool,
    },
    /// Where this partition's work ends. Comes before its start, except for a feed that is still being read.
    EndKnown {
        /// Which.
        partition: Partition,
        /// Nothing at or past it is wanted.
        offset: i64,
    },
    /// A partition can't be read, as was found outside a read. It is not read until it is put back.
    ReadFailed {
        /// Which.
        partition: Partition,
        /// Why; outside its log: with the bounds as found now.
        why: ReadError,
    },
    /// One partition's part of a commit was answered.
    CommitResult {
        /// Which commit.
        id: CommitId,
        /// Which part of it.
        partition: Partition,
        /// What the coordinator says.
        result: Result<(), CommitError>,
        /// Its code, for people.
        code: ErrorCode,
    },
    /// No answer came in time; a later one is dropped.
    CommitTimedOut {
        /// Which commit.
        id: CommitId,
    },
    /// Something that people should know.
    Error(SourceError),
}

/// Where a partition starts, as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFound {
    /// Whose start.
    pub partition: Partition,
    /// What the group committed, with its metadata.
    pub committed: Option<(i64, Vec<u8>)>,
    /// Where to start without a commit.
    pub fallback: i64,
    /// First offset of the log.
    pub log_start: i64,
    /// One past the last offset of the log.
    pub log_end: Option<i64>,
    /// One past the last offset that can be read now, if it was asked for.
    pub stable_end: Option<i64>,
    /// The topic's id; zeros where the broker has none.
    pub topic_id: [u8; 16],
}

/// An error that does not belong to one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    /// Whether the source can't go on.
    pub fatal: bool,
    /// Its code; [`ErrorCode::NONE`] for the feed of the embedded broker.
    pub code: ErrorCode,
    /// What happened and, where there is one, the remedy.
    pub text: String,
}

/// How a read ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadResult {
    /// Records handed over.
    pub events: u32,
    /// The reader stands at the end of the partition, which has this offset.
    pub end_of_partition: Option<i64>,
    /// Reading failed after those records. Nothing more is read of it until it is put back.
    pub error: Option<ReadError>,
    /// There may be more to read at once: nobody is woken for it.
    pub more: bool,
}
