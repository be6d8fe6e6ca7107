//! Everything the core can ask of the shell.

use crate::{ArenaSlot, CallId, CommitId, OwnershipId, Partition, ReadError, RebalanceId};

/// One thing to do. Slices live until the next call of the core.
#[derive(Debug)]
pub enum Action<'a> {
    // -- ownership ------------------------------------------------------------------------------
    /// Find out where this partition starts; answer with `StartResolved` or `AssignFailed`.
    LookUpStart {
        /// Which.
        partition: Partition,
    },
    /// Start reading these.
    AnswerAssign {
        /// Which assign it answers; `None`: none, it adds partitions whose look-up took too long.
        request: Option<RebalanceId>,
        /// Where each starts; may be empty.
        starts: &'a [StartAt],
    },
    /// Give these up: they are drained and committed as far as possible.
    AnswerRevoke {
        /// Which revoke, or loss, it answers.
        request: RebalanceId,
        /// All that were asked for.
        partitions: &'a [Partition],
    },
    /// Move the reader.
    Reposition {
        /// Which.
        partition: Partition,
        /// The next offset to read.
        offset: i64,
    },
    /// Unassign and assign this partition anew (a seek is refused after an out-of-range error).
    Reassign {
        /// Which.
        partition: Partition,
        /// The next offset to read.
        offset: i64,
    },
    /// Nothing is owned any more that matters: leave the group.
    LeaveGroup,
    // -- reading --------------------------------------------------------------------------------
    /// One read of this partition may take so much. A record that crosses a limit is still taken.
    /// Replaces an older permission; the next `Fetched` of the partition uses it up.
    Read {
        /// Which.
        partition: Partition,
        /// At least 1.
        max_events: u32,
        /// At least 1.
        max_bytes: u64,
    },
    /// Take the permission back.
    StopReading {
        /// Which.
        partition: Partition,
    },
    // -- calls ----------------------------------------------------------------------------------
    /// Call the guest. The places of the rows stay in use until `ReleaseRows`: an event may be dispatched again.
    Dispatch(Dispatch<'a>),
    /// Drop the call; answer with `CallTerminated` (or with its end, if that came first).
    Cancel {
        /// Which.
        call: CallId,
    },
    /// These events have reached their ending here: forget them.
    ReleaseRows {
        /// Their arena slots.
        slots: &'a [ArenaSlot],
    },
    // -- results --------------------------------------------------------------------------------
    /// Hand the outputs of these rows to the producer, in this order. Outputs of other rows of an ended
    /// call are to be dropped.
    Produce {
        /// Which call; it has ended.
        call: CallId,
        /// Rows with outputs, ascending.
        rows: &'a [u32],
    },
    /// The ownership of these rows is over: what is still here of their outputs and dead letters must not be sent any
    /// more. What is on its way to the brokers can't be recalled.
    DropOutputs {
        /// Which call.
        call: CallId,
        /// The first row.
        first: u32,
        /// One past the last row.
        end: u32,
    },
    /// Send this event to the dead-letter topic; answer with `DeadLetterAcked`, however long it takes.
    DeadLetter(DeadLetter),
    // -- commits --------------------------------------------------------------------------------
    /// Store these offsets and sets at the coordinator.
    Commit {
        /// Named in the answer.
        id: CommitId,
        /// One per partition; offset and set come from one snapshot.
        entries: &'a [CommitEntry],
        /// The metadata of all entries, back to back: see [`CommitEntry::metadata`].
        metadata: &'a str,
    },
    // -- people ---------------------------------------------------------------------------------
    /// A partition does not move.
    ReportStall(Stall),
    /// It moves again.
    StallEnded {
        /// Which.
        partition: Partition,
    },
    /// Something worth a log line or a counter happened.
    Notice(Notice),
    /// This partition stops, until it is taken away or the process starts again; the others go on.
    PartitionStopped {
        /// Which.
        partition: Partition,
        /// The offset that could not be passed.
        offset: i64,
        /// Why.
        reason: PartitionStop,
    },
    /// The handler can't go on: nothing is dispatched any more. The shell drains next.
    StopHandler {
        /// The event that it can't pass.
        partition: Partition,
        /// See `partition`.
        offset: i64,
        /// The call that it was in last.
        call: CallId,
        /// Its row there.
        row: u32,
        /// Why.
        reason: Reason,
    },
    /// Every partition that is ours has stopped, and nothing but a restart can change that. The shell drains next.
    AllStopped,
    /// Under `--until-end`: everything up to the ends is committed. The shell drains next.
    EndReached,
    /// The drain is over; nothing follows.
    Drained {
        /// Everything that ran has ended and everything settled is committed.
        clean: bool,
        /// Calls that were cancelled and have not ended: whoever waits for them may wait for ever.
        calls_left: u32,
    },
    /// A cancelled call did not end: a host call that can't be cancelled. The process must end.
    CallStuck {
        /// Which.
        call: CallId,
    },
}

/// A partition and its first offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartAt {
    /// Which.
    pub partition: Partition,
    /// The first offset to read.
    pub offset: i64,
}

/// An event that can't be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Named in the answer.
    pub call: CallId,
    /// Named in the answer.
    pub row: u32,
    /// The event. Its place is released after the answer, not before.
    pub event: Row,
    /// The attempt that was the last.
    pub attempt: u32,
    /// Why it can't be handled.
    pub reason: Reason,
}

/// What happened to events that failed, counted over the life of a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Events that have reached their ending, whatever it was; what was filtered is among them.
    pub settled: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Events that came again, uncharged, after a call that failed as a whole or behind an output that can't be stored.
    pub reruns: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Events that were skipped because they could not be handled.
    pub skipped: u64,
    /// Events that the handler did not want.
    pub filtered: u64,
}

/// Why an event can't be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The guest asked for one more retry than there are attempts.
    RetriesExhausted,
    /// The guest rejected it.
    Rejected,
    /// The guest failed at it, in each of its attempts.
    Fault(crate::Fault),
    /// It failed, and is too old to be tried again.
    TooOld,
    /// An output of it can't be stored, or the brokers refused it.
    OutputRefused,
    /// It has no lane key.
    NoKey,
}

/// One call to make: events of one topic and one attempt number.
#[derive(Debug)]
pub struct Dispatch<'a> {
    /// Named in every input about it.
    pub call: CallId,
    /// Index of the topic.
    pub topic: u16,
    /// 1 for the first try.
    pub attempt: u32,
    /// Whether this is the last of the configured attempts.
    pub last_attempt: bool,
    /// The call needs an instance that has served no call before: it has one row, which is under suspicion.
    pub fresh: bool,
    /// At least one; grouped by lane, in lane order.
    pub rows: &'a [Row],
    /// Rows per lane; their sum is the number of rows.
    pub lanes: &'a [u32],
}

/// One event of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where it came from.
    pub partition: Partition,
    /// Under which ownership.
    pub ownership: OwnershipId,
    /// Kafka's offset.
    pub offset: i64,
    /// Milliseconds since 1970; −1: none.
    pub timestamp: i64,
    /// Where the shell keeps it.
    pub arena_slot: ArenaSlot,
}

/// One partition's part of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitEntry {
    /// Which.
    pub partition: Partition,
    /// Every offset below is settled.
    pub offset: i64,
    /// Byte range of its metadata in [`Action::Commit`]'s `metadata`.
    pub metadata: (u32, u32),
    /// Settled events beyond the offset that the metadata does not claim: they repeat after a hand-over.
    pub unclaimed: u64,
}

/// What holds a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Which.
    pub partition: Partition,
    /// The first offset that is not settled.
    pub offset: i64,
    /// Which attempt it is in; 0: not dispatched.
    pub attempt: u32,
    /// What it waits for.
    pub blocked_on: BlockedOn,
}

/// What an unsettled event waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockedOn {
    /// A place among the workers.
    Queued,
    /// The guest.
    Out,
    /// The time between two attempts.
    Retry,
    /// The acknowledgement of its outputs.
    Unacked,
    /// The acknowledgement of its dead letter.
    DeadLetter,
    /// The commit itself: everything is settled, the coordinator does not store it.
    Commit,
    /// The log: the offset can't be read. It is tried again, later each time.
    ReadFailed(ReadError),
}

/// Facts for logs and counters; nothing has to be done about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An ownership began.
    OwnershipStarted {
        /// Where.
        partition: Partition,
        /// Its id.
        ownership: OwnershipId,
        /// First unsettled offset.
        offset: i64,
        /// Events beyond it that an earlier owner settled: they will not run again.
        claimed: u64,
    },
    /// An ownership ended.
    OwnershipEnded {
        /// Where.
        partition: Partition,
        /// Its id.
        ownership: OwnershipId,
        /// True if someone else owned the partition already.
        lost: bool,
    },
    /// Commit metadata that is not ours, or does not fit what is known: nothing beyond the offset is done.
    MetadataIgnored {
        /// Where.
        partition: Partition,
    },
    /// Offsets passed over because `out_of_range` says so.
    OffsetsSkipped {
        /// Where.
        partition: Partition,
        /// How many.
        count: u64,
    },
    /// The topic was deleted and created again while it was read: it is read from its first record.
    TopicReplaced {
        /// Where.
        partition: Partition,
        /// The first offset of its log.
        offset: i64,
    },
    /// The reader was not where the ledger is: it was positioned once more.
    Repositioned {
        /// Where.
        partition: Partition,
        /// To which offset.
        offset: i64,
    },
    /// An event is passed over, because it can't be handled.
    Skipped {
        /// Where.
        partition: Partition,
        /// Its offset.
        offset: i64,
        /// The call that it was in last.
        call: CallId,
        /// Its row there.
        row: u32,
        /// Why.
        reason: Reason,
    },
    /// This broker takes less metadata than configured: the limit was halved.
    MetadataLimitLowered {
        /// The new limit in characters.
        limit: usize,
    },
}

/// Why one partition can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionStop {
    /// The offset is outside the log and `out_of_range = "fail"`.
    OutOfRange,
    /// The offset was committed in another topic of this name, and `out_of_range = "fail"`.
    OtherTopic,
}
