//! The events that the core reports, and the reasons that they name. To add one, add a variant.

use crate::{CallId, OnGap, OwnershipId, Partition, Reason};

/// Events for logs and counters, which require no action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An ownership began.
    OwnershipStarted {
        /// The partition.
        partition: Partition,
        /// Its id.
        ownership: OwnershipId,
        /// The first unsettled offset.
        offset: i64,
        /// Offsets beyond it that an earlier owner claimed as settled or missing. Their events are not processed again.
        claimed: u64,
    },
    /// An ownership ended.
    OwnershipEnded {
        /// The partition.
        partition: Partition,
        /// Its id.
        ownership: OwnershipId,
        /// How it ended.
        end: OwnershipEnd,
    },
    /// Commit metadata was ignored: it is not ours, does not match topic, offset or log, or can't be checked because
    /// the end of the log is unknown. Nothing beyond the offset counts as settled.
    MetadataIgnored {
        /// The partition.
        partition: Partition,
    },
    /// Offsets were skipped as configured by `out_of_range`.
    OffsetsSkipped {
        /// The partition.
        partition: Partition,
        /// The number of offsets.
        count: u64,
    },
    /// The topic was recreated while it was read. Reading restarts at its first record.
    TopicRecreated {
        /// The partition.
        partition: Partition,
        /// The first offset of its log.
        offset: i64,
    },
    /// The reader was repositioned to the ledger's next offset, because its position was unverified or a read failed.
    Repositioned {
        /// The partition.
        partition: Partition,
        /// The next offset to read.
        offset: i64,
    },
    /// An event is skipped because it can't be handled.
    Skipped {
        /// The partition.
        partition: Partition,
        /// Its offset.
        offset: i64,
        /// Its last call, or the call slot of an outcome without a call.
        call: CallId,
        /// Its row in that call.
        row: u32,
        /// The reason.
        reason: Reason,
    },
    /// Nothing was read for a while, because a limit is reached: the partition's events settle more slowly than they
    /// arrive, or some lane of it is stalled.
    ReadingPaused {
        /// The partition.
        partition: Partition,
        /// The limit.
        limit: ReadLimit,
    },
    /// Reading resumed after a pause that was reported.
    ReadingResumed {
        /// The partition.
        partition: Partition,
    },
    /// `read_in_step`: nothing of the partition could be read or handled for a long time while others waited for it. They no
    /// longer do, until it is read again.
    PassedOver {
        /// The partition.
        partition: Partition,
        /// The next offset to handle.
        offset: i64,
    },
    /// An event waited too long for the values before it.
    GapClosed(ClosedGap),
    /// Under `--until-end`: events still wait at the end, for order values that are not in the log.
    EarlyAtEnd(EarlyEvents),
    /// A redriven event is not called, because its order value is not above the mark.
    StaleRedrive {
        /// The partition.
        partition: Partition,
        /// Its offset.
        offset: i64,
        /// Its order value.
        value: i64,
        /// The mark of its gate key.
        mark: i64,
    },
    /// The broker accepts less metadata than the limit, which was lowered.
    MetadataLimitLowered {
        /// The new limit in characters.
        limit: usize,
    },
}

/// A gap that is not waited for any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedGap {
    /// The partition.
    pub partition: Partition,
    /// The lowest order value that waited, and the offset of its event.
    pub early: (i64, i64),
    /// The first missing order value; `None`: the key had no mark.
    pub expected: Option<i64>,
    /// The number of events of the key that waited.
    pub waiting: u32,
    /// What happens to the key.
    pub on_gap: OnGap,
    /// Why it is closed.
    pub cause: GapCause,
}

/// Events of a partition that wait at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EarlyEvents {
    /// The partition.
    pub partition: Partition,
    /// Their number.
    pub events: u64,
    /// The number of their gate keys.
    pub keys: usize,
    /// The order value and the offset of the event that has waited longest.
    pub early: (i64, i64),
    /// The order value that its key expects; `None`: the key has no mark.
    pub expected: Option<i64>,
}

/// Why a gap is not waited for any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapCause {
    /// Its first event has waited for `gap_timeout`.
    Timeout,
    /// More than `max_early` events of the key wait.
    TooManyEarly,
    /// The partition is full of events that wait, so that what they wait for can't be read.
    PartitionFull,
}

/// A limit on the events of a partition that are read and not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadLimit {
    /// Their number.
    Events,
    /// Their bytes.
    Bytes,
    /// The offsets between the first of them and the last one read.
    Window,
    /// The events that wait for their window, if none is released before its time.
    Waiting,
    /// The time by which the partition may be ahead of the slowest one.
    InStep,
}

impl ReadLimit {
    /// Returns the name of its setting.
    pub fn setting(self) -> &'static str {
        match self {
            ReadLimit::Events => "max_queued",
            ReadLimit::Bytes => "memory_budget",
            ReadLimit::Window => "max_window",
            ReadLimit::Waiting => "gate.max_waiting",
            ReadLimit::InStep => "read_in_step",
        }
    }
}

/// How an ownership ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnershipEnd {
    /// It was revoked or drained, or its position was outside the log. Its settled events were committed, if the
    /// coordinator accepted the commit in time.
    Closed,
    /// Another member may already have owned the partition: nothing more could be committed.
    Lost,
    /// The topic was recreated: nothing more could be committed.
    TopicRecreated,
}

/// Why a partition stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionStop {
    /// The offset is outside the log and `out_of_range = "fail"`.
    OutOfRange,
    /// The offset was committed in another topic of this name, and `out_of_range = "fail"`.
    OtherTopic,
    /// Transactional delivery: a topic refuses an output of the event at this offset.
    OutputRefused,
    /// Transactional delivery: the metadata of the committed offset is not a completed set of this offset. Events beyond
    /// it may have taken effect.
    UnreadableSet,
    /// An event waited too long for the order values before it, and `on_gap = "stop"`.
    Gap,
    /// The keyed state of the partition can't be used: [`Input::StartRefused`](crate::Input::StartRefused).
    UnusableState,
}
