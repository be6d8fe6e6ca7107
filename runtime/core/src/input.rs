//! The inputs of the core. To add a cause of work, add a variant.

use std::time::Duration;

use crate::{
    ArenaSlot, CallId, CommitId, EventOrder, KeyMemory, LookUpId, OwnershipId, Partition, RebalanceId,
};

/// How many calls with a single event each may take the place of one longer call. A worker that is idle for a few
/// microseconds goes to sleep, and waking it costs more than such a call.
pub const SHORT_CALLS_MAX: u32 = 16;

/// One thing that happened outside the core. Slices are read before `handle` returns.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    // -- ownership ------------------------------------------------------------------------------
    /// The group assigns these partitions to us. The rebalance waits for `AnswerAssign`.
    AssignRequested {
        /// Repeated in the answer.
        request: RebalanceId,
        /// Only the added ones, under either rebalance protocol.
        partitions: &'a [Partition],
    },
    /// The start of a partition was looked up.
    StartResolved {
        /// The partition.
        partition: Partition,
        /// The responses of the coordinator and of the partition's leader.
        start: PartitionStart<'a>,
    },
    /// The lookup of a start failed. The core requests it again later.
    LookupFailed {
        /// The partition.
        partition: Partition,
        /// Whether a transaction of a former owner is still open. It usually ends within moments, so the core retries
        /// sooner.
        transaction_open: bool,
    },
    /// Keyed state: the state of the partition can't be used, because it is not that of the committed offset, or is
    /// damaged. Sent in place of `StartResolved`: the partition stops.
    StartRefused {
        /// The partition.
        partition: Partition,
        /// The committed offset, or 0.
        offset: i64,
    },
    /// The group revokes these partitions. We own them until `AnswerRevoke`.
    Revoked {
        /// Repeated in the answer.
        request: RebalanceId,
        /// The revoked partitions.
        partitions: &'a [Partition],
    },
    /// These partitions may already have another owner: nothing may be committed. Answered with `AnswerRevoke`. The
    /// group no longer waits for answers to earlier requests.
    Lost {
        /// Repeated in the answer.
        request: RebalanceId,
        /// The lost partitions.
        partitions: &'a [Partition],
    },
    // -- reading --------------------------------------------------------------------------------
    /// The result of one read of a partition: rows, then possibly the end of the partition, then possibly an error. It
    /// is one input because all of it depends on the reader's position: if a row is discarded because the position is
    /// unverified, the end and the error after it are discarded too.
    Fetched {
        /// The partition.
        partition: Partition,
        /// In offset order; may be empty.
        rows: &'a [FetchedRow],
        /// With a gate, or with the detection of duplicates: one per row. Otherwise empty.
        orders: &'a [EventOrder],
        /// Set if the read reached the end of the partition: the lowest offset that the next record can have. It
        /// accounts for trailing control records.
        end: Option<i64>,
        /// Set if the read ended with an error.
        error: Option<ReadError>,
    },
    /// The end of the log of a partition from which nothing has arrived for a while.
    LogEnd {
        /// The partition.
        partition: Partition,
        /// The end.
        end: LogEnd,
    },
    /// The answer to `RequestLogEnds`, for one partition. A failed request has no answer: the core requests it again.
    LogEndSeen {
        /// The partition.
        partition: Partition,
        /// One past the last offset, open transactions included.
        end: i64,
        /// The uptime at which the request was sent.
        sent_at: Duration,
    },
    /// The answer to `LookUpKey`.
    KeyKnown {
        /// The request.
        request: LookUpId,
        /// What is remembered of the key.
        memory: &'a KeyMemory,
    },
    // -- calls ----------------------------------------------------------------------------------
    /// The workers accept this many more calls, or up to [`SHORT_CALLS_MAX`] times as many if each carries one event.
    CapacityAdded {
        /// Added to the previous capacity.
        calls: u32,
    },
    /// A guest call returned and its result is valid. Frees the worker.
    CallEnded {
        /// The call.
        call: CallId,
        /// One entry per lane of the call, in its order.
        lanes: &'a [LaneEnd],
        /// Rows of the call that have outputs, ascending.
        with_outputs: &'a [u32],
        /// Transactional delivery: the bytes of the outputs of each of these rows. Otherwise empty.
        output_bytes: &'a [u32],
        /// How long the guest worked, without the time in which it was queued or waited.
        took: Duration,
    },
    /// A guest call failed as a whole. Frees the worker.
    CallFailed {
        /// The call.
        call: CallId,
        /// The fault, and the failing row if it is known.
        failure: CallFailure,
        /// The rows done before the failure, one entry per lane; empty: no row counts. The failing row, and rows
        /// that did not run, are not done and have no verdict.
        lanes: &'a [LaneEnd],
        /// Rows that are done and have outputs, ascending.
        with_outputs: &'a [u32],
        /// As in `CallEnded`.
        output_bytes: &'a [u32],
    },
    /// The guest waits for I/O or a timer: its worker can take another call.
    CallSuspended {
        /// The call.
        call: CallId,
    },
    /// A cancelled call terminated: its store was dropped. Frees the worker.
    CallTerminated {
        /// The call.
        call: CallId,
    },
    // -- effects --------------------------------------------------------------------------------
    /// Every requested effect of this row is acknowledged by the brokers: its outputs, or its dead letter.
    EffectsAcked {
        /// The call.
        call: CallId,
        /// Row of the call.
        row: u32,
    },
    /// The brokers rejected an output of this row permanently. The row's other outputs also have delivery reports.
    OutputRejected {
        /// The call.
        call: CallId,
        /// Row of the call.
        row: u32,
    },
    /// The queue of outputs for the producer is full, or has capacity again.
    OutputBacklog {
        /// True: no more calls begin until an input with `false`.
        full: bool,
    },
    // -- commits --------------------------------------------------------------------------------
    /// The coordinator stored this partition's part of a commit.
    Committed {
        /// The commit.
        id: CommitId,
        /// The partition.
        partition: Partition,
    },
    /// The coordinator rejected this partition's part of a commit.
    CommitFailed {
        /// The commit.
        id: CommitId,
        /// The partition.
        partition: Partition,
        /// The class of its error.
        why: CommitError,
    },
    /// The commit was not answered in time. It may have been applied: it does not count as a success.
    CommitTimedOut {
        /// The commit.
        id: CommitId,
    },
    /// The transaction was aborted: nothing of it is visible, and the coordinator stored none of its offsets.
    TransactionAborted {
        /// The transaction.
        id: CommitId,
        /// The cause.
        why: AbortCause,
    },
    /// Transactional delivery: whether transactions exclude the partition, because its effects can't be published at the
    /// moment. The others continue.
    ExcludePartition {
        /// The partition.
        partition: Partition,
        /// False: transactions contain it again.
        excluded: bool,
    },
    /// Transactional delivery: a topic refuses an output of this settled event for ever. The partition stops: no
    /// transaction can contain the event, and nothing behind it.
    EffectRefused {
        /// The partition.
        partition: Partition,
        /// The ownership in which the event has settled.
        ownership: OwnershipId,
        /// The event.
        offset: i64,
    },
    /// Keyed state: the states of some keys were not changed for so long that they shall be deleted. None of these keys has
    /// an event or a change that is not committed. Answered with `ForgetStates`, or not at all if the ownership is not
    /// open, or if its transactions are held up.
    StatesExpired {
        /// The partition.
        partition: Partition,
        /// The ownership in which the states were found.
        ownership: OwnershipId,
        /// Memory that their deletions take until they are committed.
        bytes: u64,
    },
    // -- life -----------------------------------------------------------------------------------
    /// Under `--until-end`: the end of this partition. Sent once, before its first row.
    EndKnown {
        /// The partition.
        partition: Partition,
        /// Rows at or past this offset are not admitted.
        offset: i64,
    },
    /// Finish running calls, commit and leave the group.
    Drain {
        /// Uptime at which running calls are cancelled; if it has passed, they are cancelled at once.
        deadline: Duration,
    },
    /// Time passed.
    Tick,
}

/// The start of a partition, as looked up.
#[derive(Clone, Copy, Debug)]
pub struct PartitionStart<'a> {
    /// The group's commit, if there is one.
    pub committed: Option<CommittedStart<'a>>,
    /// The offset to start from without a commit: the resolved `start` policy.
    pub fallback: i64,
    /// First offset of the log.
    pub log_start: i64,
    /// One past the last offset of the log; `None`: not known yet, and the core may wait for it.
    pub log_end: Option<i64>,
    /// The topic's id; zeros if the broker returns none.
    pub topic_id: [u8; 16],
}

/// A commit as the coordinator returned it.
#[derive(Clone, Copy, Debug)]
pub struct CommittedStart<'a> {
    /// The committed offset: every offset below it was settled.
    pub offset: i64,
    /// Its metadata, untrusted: any client of the group may have written it.
    pub metadata: &'a [u8],
}

/// The fields of a record that the core needs.
#[derive(Clone, Copy, Debug)]
pub struct FetchedRow {
    /// Kafka's offset.
    pub offset: i64,
    /// Milliseconds since 1970; −1: none.
    pub timestamp: i64,
    /// Memory that the event takes until it is settled.
    pub bytes: u32,
    /// Where the shell keeps the event. Meaningless for a filtered event, which is not kept.
    pub arena_slot: ArenaSlot,
    /// Its lane, or its outcome.
    pub admission: Admission,
}

/// The result of the filter and of the lane key extraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The seeded hash of the lane key.
    Lane(u64),
    /// The event has a lane of its own: no order is guaranteed.
    Unkeyed,
    /// The filter drops the event, which is settled at once. (With a consecutive gate, see [`EventOrder::filtered`].)
    Filtered,
    /// The event has no lane key, and the handler is configured to reject such events. It is handled as
    /// rejected, without a call.
    NoLaneKey,
}

/// How one lane of a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneEnd {
    /// Number of rows done, from the lane's first row on.
    pub done: u32,
    /// The verdict on the row after them; `None` only if all are done, or if the call failed as a whole.
    pub verdict: Option<Verdict>,
}

/// The verdict on a row that is not done: of the guest, or of a check of its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Retry the row later.
    Retry {
        /// The delay, if the guest returned one.
        after: Option<Duration>,
    },
    /// The row can never succeed.
    Reject,
    /// The guest is done with the row, but one of its outputs is unpublishable. None of its outputs is produced. The
    /// rows after it run again when it has its outcome, whatever their verdicts: none of their outputs may be
    /// published before.
    Unpublishable,
}

/// How a whole call failed, and the attribution of the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallFailure {
    /// The kind of failure.
    pub fault: Fault,
    /// The row that the guest was processing, if that is known.
    pub failing_row: Option<u32>,
    /// Whether the call had a fresh instance, and no row is known to have run before the failing one.
    pub fresh: bool,
}

/// How a guest fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It trapped.
    Trap,
    /// It ran past its deadline.
    Timeout,
    /// It used more CPU time than one call may.
    Cpu,
    /// It requested more memory than its limit.
    Memory,
    /// Its stack overflowed.
    Stack,
    /// It exceeded another limit of a call, such as the size of its result.
    Limit,
    /// Its result violates the contract.
    Contract,
}

/// Why reading failed. After each of these the reader's position is unverified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// A connection failed, or the leader moved. The client resumes by itself.
    Interrupted,
    /// The position is outside the log.
    OutOfRange {
        /// First offset of the log as known now.
        log_start: i64,
        /// One past the last offset of the log as known now.
        log_end: i64,
    },
    /// The topic was recreated: events read and settled before belong to another log.
    TopicRecreated {
        /// The id of the new topic.
        topic_id: [u8; 16],
        /// First offset of its log.
        log_start: i64,
    },
    /// We are not authorized to read this topic.
    Denied,
    /// The topic or the partition does not exist.
    Missing,
    /// The data is corrupt or can't be decoded.
    Corrupt,
    /// An error code that this version does not handle.
    Unknown,
    /// The client rejected the position.
    SeekFailed,
}

/// Why a commit was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitError {
    /// The metadata is longer than this broker accepts.
    MetadataTooLarge,
    /// A rebalance is in progress, or the coordinator is loading or moved: the same commit may succeed soon.
    TryAgain,
    /// The coordinator no longer accepts this member: the same commit can't succeed before a rebalance.
    Stale,
    /// Anything else.
    Other,
}

/// Why a transaction was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortCause {
    /// The coordinator does not accept this generation of the group.
    Stale,
    /// The metadata of a partition is longer than the broker accepts.
    MetadataTooLarge,
    /// The metadata of all partitions together is more than one request may carry.
    RequestTooLarge,
    /// Not all of it was stored in time.
    TooSlow,
    /// Some of it can't be published at the moment. The partitions with these effects are excluded: see
    /// [`Input::ExcludePartition`].
    Excluded,
    /// Anything else.
    Other,
    /// It can't be known whether it was committed: the coordinator has offsets that are neither those of the transaction
    /// nor those before it.
    OverwrittenOffsets,
}

/// The response to a request for the end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEnd {
    /// One past the last offset, open transactions included.
    At(i64),
    /// The leader does not respond, or there is none.
    LeaderUnavailable,
    /// The request failed otherwise. The error is transient, or a read reports it.
    Unknown,
}
