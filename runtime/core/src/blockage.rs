//! Why a partition makes no progress. To add a reason, add a variant; `core/stalls.rs` determines it.

use crate::{ArenaSlot, CallId, Partition, ReadError};

/// The offset that blocks a partition, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blockage {
    /// The partition.
    pub partition: Partition,
    /// The first offset that is not settled, or the next one to read if reading is what fails; `None`: not known,
    /// because no ownership has begun.
    pub offset: Option<i64>,
    /// The attempt of the event's call, or the one after its retry delay; 0: neither.
    pub attempt: u32,
    /// The record of the event, if it is in a call or between two attempts.
    pub arena_slot: Option<ArenaSlot>,
    /// The call and the row of the event, if it is in a call.
    pub call_row: Option<(CallId, u32)>,
    /// What blocks it.
    pub blocked_on: BlockedOn,
}

/// What blocks the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockedOn {
    /// The lookup of its start: no position is known yet.
    StartLookup,
    /// The rebalance: its start is known, but other partitions delay the answer to the group.
    Rebalance,
    /// Its release: nothing new is dispatched, and the next owner processes what is left.
    Release,
    /// The stop of the partition: it is not read until it is assigned again.
    Stopped,
    /// The dispatch to a worker.
    Undispatched,
    /// Slower partitions, because of `read_in_step`.
    OtherPartitions,
    /// The guest.
    Guest,
    /// The state of its key, which is loaded. The core does not know states and reports `Guest`: who gives the states to
    /// calls replaces it.
    StateLoading,
    /// The order values before that of the event, which have not come.
    Gap,
    /// The window of the event: lower order values may still come.
    Window,
    /// The time between two attempts.
    Retry,
    /// The acknowledgement of its outputs.
    OutputsUnacked,
    /// The acknowledgement of its dead letter.
    DeadLetterUnacked,
    /// The commit: every event is settled, or the ownership is closing, but the coordinator does not store the offset.
    Commit,
    /// A topic of its effects: transactions exclude the partition, and it keeps as many effects as it may.
    Excluded,
    /// The log: the offset can't be read. Reading is retried with a growing delay.
    ReadFailed(ReadError),
    /// The log: it has records from this offset on, as far as known, but none arrives and no error is reported.
    NotFetched {
        /// Whether the partition's leader responds. If so, an open transaction may hold the records back.
        leader_responds: bool,
    },
}

impl Blockage {
    /// Returns the blockage of a partition by no particular event.
    pub(crate) fn of_partition(partition: Partition, offset: Option<i64>, blocked_on: BlockedOn) -> Self {
        Blockage { partition, offset, attempt: 0, arena_slot: None, call_row: None, blocked_on }
    }
}
