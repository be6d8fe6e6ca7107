//! What is known of each partition, and where its ownership stands.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::codec::Identity;
use crate::ledger::Ledger;
use crate::{OwnershipId, Partition, ReadError};

/// Every partition this process was ever given, at a stable index.
#[derive(Debug, Default)]
pub(crate) struct Partitions {
    states: Vec<PartitionState>,
    index: BTreeMap<Partition, u32>,
}

#[derive(Debug)]
pub(crate) struct PartitionState {
    pub(crate) id: Partition,
    pub(crate) phase: Phase,
    /// The current ownership, or the last one.
    pub(crate) ownership: OwnershipId,
    pub(crate) topic_id: [u8; 16],
    pub(crate) ledger: Ledger,
    /// Bytes of events admitted and not settled.
    pub(crate) queued_bytes: u64,
    /// The highest offset that was dispatched in this ownership.
    pub(crate) dispatched_to: i64,
    /// The strict batch retry: nothing beyond this offset is dispatched until all up to it is committed.
    pub(crate) round: Option<i64>,
    /// Lanes of this ownership with the guest.
    pub(crate) running: u32,
    /// Lanes of this ownership that wait for acks, of outputs or of a dead letter.
    pub(crate) unacked: u32,
    pub(crate) commit: CommitState,
    pub(crate) reading: Reading,
    /// Under `--until-end`: where the work ends.
    pub(crate) end: Option<i64>,
    /// In the last answered assignment.
    pub(crate) awaited: bool,
    pub(crate) progress: StallWatch,
}

/// Where an ownership stands. It only ever moves down this list, and from the last back to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not ours.
    Vacant,
    /// Ours; its start is being looked up.
    LookingUp(LookUp),
    /// Its start is known; the group waits for the others.
    Resolved,
    /// Its start is being committed before anything of it is read.
    Starting,
    /// Read, dispatched, settled, committed.
    Active,
    /// Nothing new; what runs may finish until then.
    Closing { until: Duration },
    /// Closed to results; the final commit and the end of cancelled calls are awaited until then.
    Committing { until: Duration },
    /// Nothing is left to do but to give it up.
    Closed,
    /// Ours, but it can't be read: named, waiting for an operator or a revoke.
    Failed,
}

/// A look-up under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LookUp {
    /// When it was first asked for.
    pub(crate) since: Duration,
    /// When to ask again, after a failure.
    pub(crate) again_at: Option<Duration>,
    /// The assign was answered without it.
    pub(crate) late: bool,
    /// Everything but the log end is known.
    pub(crate) partial: Option<PartialStart>,
}

/// A start without the log end: enough to begin, not to believe a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartialStart {
    pub(crate) committed: Option<i64>,
    pub(crate) fallback: i64,
    pub(crate) log_start: i64,
    pub(crate) topic_id: [u8; 16],
    /// The commit was made in another topic of this name.
    pub(crate) of_other_topic: bool,
}

/// What the coordinator knows of this ownership.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CommitState {
    /// Stored offset; `None`: no commit exists.
    pub(crate) committed: Option<i64>,
    /// Counts what changed offset or set.
    pub(crate) changes: u64,
    /// `changes` as of the last applied commit.
    pub(crate) applied: u64,
    /// When the last commit was applied, or the ownership began.
    pub(crate) applied_at: Duration,
    /// The final commit was refused in a way that can't be mended.
    pub(crate) refused: bool,
}

/// How far what is read can be trusted to be without holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PositionState {
    /// The record before came in the same uninterrupted read: what is missing does not exist.
    Verified,
    /// A rebalance or an error lies between: the reader may stand anywhere.
    Unverified,
    /// It was positioned at the ledger's next offset: the next record or end is believed.
    Repositioned,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) position: PositionState,
    /// The shell holds a permission.
    pub(crate) granted: bool,
    /// A limit was reached; reading goes on at three quarters of it.
    pub(crate) full: bool,
    /// Reading failed, and nothing was read since.
    pub(crate) failure: Option<ReadFailure>,
    /// The ownership is being moved: it found itself outside this log.
    pub(crate) outside: Option<(i64, i64)>,
}

/// A read error that has not passed yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadFailure {
    pub(crate) why: ReadError,
    /// The offset that could not be read.
    pub(crate) offset: i64,
    /// How often in a row.
    pub(crate) failures: u32,
    /// When the reader is positioned again.
    pub(crate) retry_at: Duration,
    /// A stall was reported for it.
    pub(crate) reported: bool,
}

/// For the stall report.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StallWatch {
    pub(crate) seen: (i64, Option<i64>),
    pub(crate) at: Duration,
    pub(crate) reported: bool,
}

impl Partitions {
    /// Index of a partition, known from now on.
    pub(crate) fn index_of(&mut self, id: Partition) -> u32 {
        if let Some(&index) = self.index.get(&id) {
            return index;
        }
        let index = u32::try_from(self.states.len()).expect("a cluster has far less than 2^32 partitions");
        self.states.push(PartitionState::new(id));
        self.index.insert(id, index);
        index
    }

    /// Index of a partition that was given to us before.
    pub(crate) fn find(&self, id: Partition) -> Option<u32> {
        self.index.get(&id).copied()
    }

    pub(crate) fn get(&self, index: u32) -> &PartitionState {
        self.states.get(index as usize).expect("indexes come from `index_of`")
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> &mut PartitionState {
        self.states.get_mut(index as usize).expect("indexes come from `index_of`")
    }

    pub(crate) fn indexes(&self) -> impl Iterator<Item = u32> + use<> {
        0..u32::try_from(self.states.len()).expect("a cluster has far less than 2^32 partitions")
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PartitionState> {
        self.states.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut PartitionState> {
        self.states.iter_mut()
    }
}

impl PartitionState {
    fn new(id: Partition) -> Self {
        PartitionState {
            id,
            phase: Phase::Vacant,
            ownership: OwnershipId(0),
            topic_id: [0; 16],
            ledger: Ledger::default(),
            queued_bytes: 0,
            dispatched_to: -1,
            round: None,
            running: 0,
            unacked: 0,
            commit: CommitState::default(),
            reading: Reading::new(),
            end: None,
            awaited: false,
            progress: StallWatch::default(),
        }
    }

    /// What a set committed at `offset` is bound to.
    pub(crate) fn identity(&self, offset: i64) -> Identity {
        Identity { topic_id: self.topic_id, partition: self.id.number, offset }
    }

    /// Whether results of its ownership still count.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Active | Phase::Closing { .. })
    }

    /// Whether a round is over but for its commit.
    pub(crate) fn ends_round(&self) -> bool {
        self.round.is_some_and(|last| self.ledger.prefix() > last)
    }

    /// Whether something is settled that no commit has stored.
    pub(crate) fn is_dirty(&self) -> bool {
        self.commit.changes != self.commit.applied
    }

    /// Whether its ownership may commit.
    pub(crate) fn may_commit(&self) -> bool {
        matches!(
            self.phase,
            Phase::Starting | Phase::Active | Phase::Closing { .. } | Phase::Committing { .. }
        )
    }

    /// Under `--until-end`: whether everything up to the end is committed.
    pub(crate) fn is_at_end(&self) -> bool {
        match (self.end, self.commit.committed) {
            (Some(end), Some(committed)) => committed >= end,
            (Some(_) | None, Some(_) | None) => false,
        }
    }
}

impl Reading {
    pub(crate) fn new() -> Self {
        Reading {
            position: PositionState::Unverified,
            granted: false,
            full: false,
            failure: None,
            outside: None,
        }
    }
}
