//! The actions that the core requests from the shell.

use crate::{
    ArenaSlot, Blockage, CallId, CommitId, GateKey, LookUpId, MemoryChange, Notice, OwnershipId, Partition,
    PartitionStop, RebalanceId, SettleNumber,
};

/// One thing to do. Slices live until the next call of the core.
#[derive(Debug)]
pub enum Action<'a> {
    // -- ownership ------------------------------------------------------------------------------
    /// Look up the start of this partition; answer with `StartResolved` or `LookupFailed`.
    LookUpStart {
        /// The partition.
        partition: Partition,
    },
    /// Start reading these partitions.
    AnswerAssign {
        /// The assign that this answers. `None`: it answers none and adds partitions whose lookups timed out.
        request: Option<RebalanceId>,
        /// The first offset of each; may be empty.
        starts: &'a [StartAt],
    },
    /// Release these partitions. After a revoke, their running calls are finished and committed as far as possible.
    AnswerRevoke {
        /// The revoke, or the loss, that this answers.
        request: RebalanceId,
        /// All partitions of that request.
        partitions: &'a [Partition],
    },
    /// Move the reader.
    Reposition {
        /// The partition.
        partition: Partition,
        /// The next offset to read.
        offset: i64,
    },
    /// Unassign and reassign this partition (the client rejects a seek after an out-of-range error).
    Reassign {
        /// The partition.
        partition: Partition,
        /// The next offset to read.
        offset: i64,
    },
    // -- reading --------------------------------------------------------------------------------
    /// Permission for one read of this partition, up to these limits. The record that crosses a limit is still taken.
    /// Replaces an older permission; the next `Fetched` of the partition uses it up.
    PermitRead {
        /// The partition.
        partition: Partition,
        /// At least 1.
        max_events: u32,
        /// At least 1.
        max_bytes: u64,
    },
    /// Withdraw the permission to read.
    WithdrawRead {
        /// The partition.
        partition: Partition,
    },
    /// A gate waits for the end of these logs: request their ends, open transactions included; answer with `LogEndSeen`.
    RequestLogEnds {
        /// The partitions.
        partitions: &'a [Partition],
    },
    /// Look up what is remembered of a gate key; answer with `KeyKnown`. The answer must include every change that the shell
    /// was given before this action.
    LookUpKey {
        /// Repeated in the answer.
        request: LookUpId,
        /// The partition.
        partition: Partition,
        /// Its ownership.
        ownership: OwnershipId,
        /// The gate key.
        key: GateKey,
        /// An event of the key.
        arena_slot: ArenaSlot,
    },
    // -- calls ----------------------------------------------------------------------------------
    /// Call the guest. The arena slots of the rows stay in use until `ReleaseRows`: an event may be dispatched again.
    Dispatch(Dispatch<'a>),
    /// Drop the call; answer with `CallTerminated` (or with its end, if that came first).
    Cancel {
        /// The call.
        call: CallId,
    },
    /// The core is done with these events: free their arena slots.
    ReleaseRows {
        /// Their arena slots.
        slots: &'a [ArenaSlot],
    },
    // -- effects --------------------------------------------------------------------------------
    /// Submit the outputs of these rows to the producer, in this order. Drop the outputs of the other rows of the
    /// call.
    Produce {
        /// The call; it has terminated.
        call: CallId,
        /// Rows with outputs, ascending.
        rows: &'a [u32],
    },
    /// The results of these rows no longer count, because their ownership has ended or the handler is stopping: their
    /// queued outputs and dead letters must not be sent. Records that are in flight to the brokers can't be recalled.
    DropOutputs {
        /// The call.
        call: CallId,
        /// The first row.
        first: u32,
        /// One past the last row.
        end: u32,
    },
    /// Publish this event to the dead-letter topic; answer with `EffectsAcked`, however long it takes.
    DeadLetter(FailedEvent),
    /// Transactional delivery: keep these effects until a committed transaction claims them. No answer follows. Drop the
    /// outputs of the other rows of the calls.
    KeepEffects {
        /// In the order of their numbers.
        effects: &'a [KeptEffects],
    },
    /// Transactional delivery: the ownership has ended. Effects of it that no committed transaction claims are dropped.
    DropEffects {
        /// The ownership.
        ownership: OwnershipId,
    },
    /// Keyed state: delete the expired states of this partition, as if an event with this number had deleted them. No answer
    /// follows.
    ForgetStates {
        /// The partition.
        partition: Partition,
        /// The number: a transaction that claims it contains the deletions.
        number: SettleNumber,
    },
    /// Remember these changes of gate keys. Under transactional delivery, each belongs to the event with its number, and is
    /// claimed with it. The memory of an ownership that has ended is not changed any more.
    RememberKeys {
        /// In the order of their events.
        changes: &'a [MemoryChange],
    },
    // -- commits --------------------------------------------------------------------------------
    /// Store these offsets and sets at the coordinator.
    Commit {
        /// Repeated in the answer.
        id: CommitId,
        /// One per partition; offset and set come from one snapshot.
        entries: &'a [CommitEntry],
        /// The metadata of all entries, concatenated: see [`CommitEntry::metadata`].
        metadata: &'a str,
    },
    /// Transactional delivery: publish the effects that these entries claim, in the order of their numbers, and store
    /// the offsets and sets, in one transaction. Answer with `Committed` for each entry, or with `TransactionAborted`,
    /// however long it takes.
    BeginTransaction {
        /// Repeated in the answer.
        id: CommitId,
        /// One per partition; offset and set come from one snapshot.
        entries: &'a [CommitEntry],
        /// One per entry: the effects that belong to it.
        claims: &'a [EffectClaim],
        /// The metadata of all entries, concatenated: see [`CommitEntry::metadata`].
        metadata: &'a str,
    },
    // -- reporting ------------------------------------------------------------------------------
    /// A partition makes no progress.
    ReportStall(Blockage),
    /// The reported stall of a partition ended.
    StallEnded {
        /// The partition.
        partition: Partition,
        /// Whether the partition makes progress again; `false`: its ownership ended, or another cause replaced the stall.
        resumed: bool,
    },
    /// An event for the log.
    Notice(Notice),
    /// This partition stops until it is assigned again, or its topic is recreated. The other partitions continue.
    PartitionStopped {
        /// The partition.
        partition: Partition,
        /// The offset at which the partition stopped.
        offset: i64,
        /// The reason.
        reason: PartitionStop,
    },
    /// The handler can't continue: nothing is dispatched any more. The shell drains next.
    StopHandler {
        /// The partition of the event that can't be handled.
        partition: Partition,
        /// The offset of the event.
        offset: i64,
        /// Its last call, or the call slot of an outcome without a call.
        call: CallId,
        /// Its row in that call.
        row: u32,
        /// The reason.
        reason: Reason,
    },
    /// Every owned partition has stopped, and only a restart can change that. The shell drains next.
    AllStopped,
    /// Under `--until-end`: everything up to the ends is committed. The shell drains next.
    EndReached,
    /// The drain is over; nothing follows.
    Drained {
        /// Whether every call has ended and every settled event is committed.
        clean: bool,
        /// Calls that were cancelled and have not terminated. They may never terminate.
        unterminated_calls: u32,
    },
    /// A cancelled call did not terminate, usually because of a host call that can't be cancelled. The process must
    /// end.
    CallStuck {
        /// The call.
        call: CallId,
    },
}

/// A partition and its first offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartAt {
    /// The partition.
    pub partition: Partition,
    /// The first offset to read.
    pub offset: i64,
}

/// An event that can't be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedEvent {
    /// Repeated in the answer.
    pub call: CallId,
    /// Repeated in the answer.
    pub row: u32,
    /// The event. Its arena slot is freed after the answer, or when the ownership accepts no more results.
    pub event: Row,
    /// The number of its last attempt; 1 if the event had no call.
    pub attempt: u32,
    /// The reason.
    pub reason: Reason,
}

/// The effects of one event that has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptEffects {
    /// The number of the event: effects are published in the order of these numbers.
    pub number: SettleNumber,
    /// What is kept.
    pub effect: KeptEffect,
    /// The event's last call, or the call slot of an outcome without a call.
    pub call: CallId,
    /// Its row in that call.
    pub row: u32,
    /// The event. Its arena slot is freed after this action.
    pub event: Row,
    /// The number of its last attempt; 1 if the event had no call.
    pub attempt: u32,
}

/// What is kept for an event that has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptEffect {
    /// Its outputs.
    Outputs,
    /// Its dead letter.
    DeadLetter(Reason),
}

/// The kept effects that a transaction publishes for one of its entries: those of the ownership up to the number, without
/// those that an earlier transaction published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectClaim {
    /// The ownership.
    pub ownership: OwnershipId,
    /// The highest number that is claimed.
    pub through: SettleNumber,
}

/// Why an event can't be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The guest requested a retry in the last attempt.
    RetriesExhausted,
    /// The guest rejected the event.
    Rejected,
    /// The guest failed on the event, whose attempts are exhausted.
    Fault(crate::Fault),
    /// The event failed, and is too old for a retry.
    TooOld,
    /// One of its outputs is unpublishable, or was rejected by the brokers.
    OutputRejected,
    /// The event has no lane key.
    NoLaneKey,
    /// The event has no order value that can be read.
    NoOrderValue,
    /// The order value of the event is too far ahead.
    OrderValueAhead,
    /// The order value of the event is below the first one.
    BelowFirst,
    /// The event has waited too long for the values before it, or follows such events.
    Gap,
    /// The event has come too late for its place in the order.
    Late,
}

/// One call to make: events of one topic and one attempt number.
#[derive(Debug)]
pub struct Dispatch<'a> {
    /// Repeated in every input about the call.
    pub call: CallId,
    /// Index into the handler's `topics`.
    pub topic: u16,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Whether this is the last of the configured attempts.
    pub last_attempt: bool,
    /// Whether the call needs an instance that has processed no call. Such a call has one row, which is quarantined.
    pub fresh: bool,
    /// At least one; grouped by lane, in lane order.
    pub rows: &'a [Row],
    /// Rows per lane; their sum is the number of rows.
    pub lane_lengths: &'a [u32],
}

/// One event of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its partition.
    pub partition: Partition,
    /// The ownership that it was read in.
    pub ownership: OwnershipId,
    /// Kafka's offset.
    pub offset: i64,
    /// Milliseconds since 1970; −1: none.
    pub timestamp: i64,
    /// Where the shell keeps the event.
    pub arena_slot: ArenaSlot,
}

/// One partition's part of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitEntry {
    /// The partition.
    pub partition: Partition,
    /// Every offset below it is settled.
    pub offset: i64,
    /// Byte range of its metadata in [`Action::Commit`]'s `metadata`.
    pub metadata: (u32, u32),
    /// Offsets beyond `offset`, settled or missing, that the metadata does not claim. A new owner processes the events
    /// among them again.
    pub unclaimed: u64,
}

impl CommitEntry {
    /// Returns the metadata of this entry. `metadata`: that of all entries.
    pub fn metadata_in<'m>(&self, metadata: &'m str) -> &'m str {
        let (from, to) = self.metadata;
        metadata.get(from as usize..to as usize).expect("the range is within the metadata of all entries")
    }
}
