//! Everything that can wake Keylane up. To add a cause, add a variant.

use std::time::Duration;

use crate::{ArenaSlot, CallId, CommitId, Partition, RebalanceId};

/// How many calls may stand for one where each carries a single event: a worker that has to wait for the next one after
/// a few microseconds goes to sleep, and waking it costs more than such a call.
pub const SHORT_CALLS_MAX: u32 = 16;

/// One thing that happened outside the core. Slices are read before `handle` returns.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    // -- ownership ------------------------------------------------------------------------------
    /// The group gives these partitions to us; it stands still until `AnswerAssign`.
    AssignRequested {
        /// Named in the answer.
        request: RebalanceId,
        /// Only the new ones, under either rebalance protocol.
        partitions: &'a [Partition],
    },
    /// Where a partition starts is known.
    StartResolved {
        /// Whose start it is.
        partition: Partition,
        /// What the coordinator and the partition's leader said.
        start: PartitionStart<'a>,
    },
    /// The look-up of a start failed; the core asks again later.
    AssignFailed {
        /// Whose look-up failed.
        partition: Partition,
        /// A transaction of a former owner has not ended, which may take moments: the core asks again sooner.
        undecided: bool,
    },
    /// The group takes these partitions away; we own them until `AnswerRevoke`.
    Revoked {
        /// Named in the answer.
        request: RebalanceId,
        /// Those to give up.
        partitions: &'a [Partition],
    },
    /// These partitions already belong to someone else: nothing may be committed. Answered with `AnswerRevoke`; nobody waits
    /// for the answers of requests before it any more.
    Lost {
        /// Named in the answer.
        request: RebalanceId,
        /// Those that are gone.
        partitions: &'a [Partition],
    },
    // -- reading --------------------------------------------------------------------------------
    /// What one read of a partition found: rows, then perhaps the end of the partition, then perhaps an error. It is
    /// one input because all of it depends on the reader's position: if a row is refused because that is unverified,
    /// the end and the error behind it mean nothing either.
    Fetched {
        /// Where it was read.
        partition: Partition,
        /// In offset order; may be empty.
        rows: &'a [FetchedRow],
        /// The read ended at the end of the partition: the lowest offset that the next record can have. It bridges
        /// trailing control records.
        end: Option<i64>,
        /// The read ended with an error.
        error: Option<ReadError>,
    },
    // -- calls ----------------------------------------------------------------------------------
    /// The workers take so many more calls, or up to [`SHORT_CALLS_MAX`] times as many where each carries one event.
    WorkersFree {
        /// Added to what was free before.
        calls: u32,
    },
    /// A guest call returned and its result was found sound. Gives the worker's place back.
    CallEnded {
        /// Which.
        call: CallId,
        /// One entry per lane of the call, in its order.
        lanes: &'a [LaneEnd],
        /// Rows of the call that have outputs, ascending.
        with_outputs: &'a [u32],
        /// How long the guest worked, standing in line not counted.
        took: Duration,
    },
    /// A guest call failed as a whole. Gives the worker's place back.
    CallFailed {
        /// Which.
        call: CallId,
        /// How.
        failure: CallFailure,
        /// What was done before, one entry per lane; empty: nothing of the call counts. The failing row, and rows
        /// that were not run, are neither done nor given a verdict.
        lanes: &'a [LaneEnd],
        /// Rows that are done and have outputs, ascending.
        with_outputs: &'a [u32],
    },
    /// The guest waits for something: its worker can take another call.
    CallSuspended {
        /// Which.
        call: CallId,
    },
    /// A cancelled call is gone: its store was dropped. Gives the worker's place back.
    CallTerminated {
        /// Which.
        call: CallId,
    },
    // -- results --------------------------------------------------------------------------------
    /// Every output of this row was acknowledged by the brokers.
    OutputsAcked {
        /// Which call.
        call: CallId,
        /// Row of the call.
        row: u32,
    },
    /// An output of this row was refused for good.
    OutputRefused {
        /// Which call.
        call: CallId,
        /// Row of the call.
        row: u32,
    },
    /// The brokers have this row's dead letter.
    DeadLetterAcked {
        /// Which call.
        call: CallId,
        /// Row of the call.
        row: u32,
    },
    /// Outputs wait for the producer: with so many of them no more calls begin, or there is room again.
    OutputBacklog {
        /// No more calls begin until it is said that this is over.
        full: bool,
    },
    // -- commits --------------------------------------------------------------------------------
    /// The coordinator stored this partition's part of a commit.
    Committed {
        /// Which commit.
        id: CommitId,
        /// Which part of it.
        partition: Partition,
    },
    /// The coordinator refused this partition's part of a commit.
    CommitFailed {
        /// Which commit.
        id: CommitId,
        /// Which part of it.
        partition: Partition,
        /// What it said.
        why: CommitError,
    },
    /// No answer came. The commit may have been applied or not: it is not a success.
    CommitTimedOut {
        /// Which commit.
        id: CommitId,
    },
    // -- life -----------------------------------------------------------------------------------
    /// Under `--until-end`: where this partition's work ends. Sent once, before its first row.
    EndKnown {
        /// Which partition.
        partition: Partition,
        /// Rows at or past it are not admitted.
        offset: i64,
    },
    /// Finish what runs, commit and leave.
    Drain {
        /// Uptime at which what still runs is cancelled.
        deadline: Duration,
    },
    /// Leave without waiting for what runs; what is settled is still committed.
    DrainNow,
    /// Time passed.
    Tick,
}

/// Where a partition starts, as found.
#[derive(Clone, Copy, Debug)]
pub struct PartitionStart<'a> {
    /// What the group committed, if it ever did.
    pub committed: Option<CommittedStart<'a>>,
    /// Where to start without a commit: the resolved `start` policy.
    pub fallback: i64,
    /// First offset of the log.
    pub log_start: i64,
    /// One past the last offset of the log; `None`: not known yet, the core may wait for it.
    pub log_end: Option<i64>,
    /// The topic's id as the broker gives it; zeros where it gives none.
    pub topic_id: [u8; 16],
}

/// A commit as found at the coordinator.
#[derive(Clone, Copy, Debug)]
pub struct CommittedStart<'a> {
    /// Every offset below was settled.
    pub offset: i64,
    /// Its metadata, untrusted: anyone in the group may have written it.
    pub metadata: &'a [u8],
}

/// What the core needs of a record.
#[derive(Clone, Copy, Debug)]
pub struct FetchedRow {
    /// Kafka's offset.
    pub offset: i64,
    /// Milliseconds since 1970; −1: none.
    pub timestamp: i64,
    /// Memory that the event takes while it is queued.
    pub bytes: u32,
    /// Where the shell keeps it. Means nothing for a filtered event, of which nothing is kept.
    pub arena_slot: ArenaSlot,
    /// Which lane it belongs to.
    pub admission: Admission,
}

/// What the pure looks at a record's bytes came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The seeded hash of its lane key.
    Lane(u64),
    /// No order is promised: a lane of its own.
    NoLane,
    /// The handler does not want it: it is settled at once.
    Filtered,
    /// It has no lane key, and the handler wants none without: it is not called, its ending is that of a reject.
    Rejected,
}

/// How one lane of a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneEnd {
    /// Rows done, from the lane's first row on.
    pub done: u32,
    /// Why the row after them is not done; `None` only if all are, or if the call failed as a whole.
    pub failure: Option<Verdict>,
}

/// What is said of a row that is not done: by the guest, or by a look at what it returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try it again later.
    Retry {
        /// When, if the guest says so.
        after: Option<Duration>,
    },
    /// It can never succeed.
    Reject,
    /// The guest is done with it, but an output of it can't be stored. None of its outputs is handed over, and the rows
    /// behind it run again when it has had its ending, whatever the guest said of them: nothing of them may land before.
    Unpublishable,
}

/// How a whole call failed, and how much is known about who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallFailure {
    /// How.
    pub fault: Fault,
    /// The row that the guest was in, if that is known.
    pub failing_row: Option<u32>,
    /// The instance had served no event before the one that failed.
    pub fresh: bool,
}

/// How a guest fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It trapped.
    Trap,
    /// It ran past its deadline.
    Timeout,
    /// It used more processor time than one call may.
    Cpu,
    /// It wanted more memory than it may have.
    Memory,
    /// Its stack overflowed.
    Stack,
    /// It hit another limit: outputs, size of a result.
    Limit,
    /// Its result breaks the contract.
    Contract,
}

/// Why reading failed. After each of these the reader may be anywhere: what comes next has to prove that it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// A connection failed, or the leader moved. The client reads on by itself.
    Interrupted,
    /// The position is outside the log.
    OutOfRange {
        /// First offset of the log as known now.
        log_start: i64,
        /// One past the last offset of the log as known now.
        log_end: i64,
    },
    /// The topic was deleted and created again: what was read and settled before is of another log.
    TopicReplaced {
        /// The id of the topic that is there now.
        topic_id: [u8; 16],
        /// First offset of its log.
        log_start: i64,
    },
    /// We may not read this topic.
    Denied,
    /// The topic or the partition does not exist.
    Missing,
    /// The data is damaged or can't be understood.
    Damaged,
    /// A code that this version does not know.
    Unknown,
    /// The client did not take the position that it was given.
    SeekFailed,
}

/// Why a commit was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitError {
    /// The metadata is longer than this broker takes.
    MetadataTooLarge,
    /// A rebalance is under way, or the coordinator loads or moved: the same commit may succeed soon.
    TryAgain,
    /// We are no longer the member that it takes: not to be retried blindly.
    Stale,
    /// Anything else.
    Other,
}
