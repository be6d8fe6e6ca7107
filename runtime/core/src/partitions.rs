//! The state of each partition and the phase of its ownership.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::codec::Identity;
use crate::ledger::Ledger;
use crate::unclaimed::UnclaimedEvents;
use crate::{OwnershipId, Partition, PartitionStop, ReadError, ReadLimit, SettleNumber};

/// Every partition that was named in an input, at a stable index.
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
    pub(crate) unclaimed: UnclaimedEvents,
    /// Bytes of events admitted and not settled. Set to 0 when the ownership closes.
    pub(crate) queued_bytes: u64,
    /// The highest offset dispatched in this ownership.
    pub(crate) dispatched_to: i64,
    /// The last offset of the round of the strict batch retry: nothing beyond it is dispatched until the round is
    /// committed.
    pub(crate) round: Option<i64>,
    /// Transactional delivery: nothing new beyond this offset is dispatched, because too many effects of the partition
    /// wait for a transaction that may claim them.
    pub(crate) hold: Option<i64>,
    /// `read_in_step`: events beyond this offset wait for slower partitions.
    pub(crate) waits_beyond: Option<i64>,
    /// Lanes of this ownership with a running call.
    pub(crate) running: u32,
    /// Lanes of this ownership that wait for acks, of outputs or of a dead letter.
    pub(crate) unacked: u32,
    pub(crate) commit: CommitState,
    pub(crate) reading: ReadState,
    /// Under `--until-end`: events at or past this offset are not processed.
    pub(crate) end: Option<i64>,
    /// Whether the partition belongs to the last answered assignment.
    pub(crate) in_assignment: bool,
    pub(crate) stall_watch: StallWatch,
    /// When a stall was last reported.
    pub(crate) stall_reported_at: Duration,
}

/// The phase of a partition's ownership, in the usual order. `core/closing.rs` has the exceptions: a stop, a loss, a
/// restart inside the log, and a recreated topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not ours.
    Vacant,
    /// Ours; its start is being looked up.
    LookingUp(Lookup),
    /// Its start is known, but the partition is not assigned to the reader yet.
    Resolved,
    /// Its start is committed before its first event is read.
    Starting,
    /// Its events are read, dispatched, settled and committed.
    Active,
    /// Nothing new is dispatched. Running calls may finish until this uptime.
    Closing { until: Duration },
    /// Results no longer count. The final commit and the end of cancelled calls are awaited until this uptime.
    Committing { until: Duration },
    /// Ready to be released.
    Closed,
    /// Ours, but it can't be read. The stop was reported. A restart, a revoke, a loss or a recreated topic ends it.
    Stopped,
}

/// A lookup in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lookup {
    /// When the lookup was first requested.
    pub(crate) since: Duration,
    /// When to request the lookup again, after a failure.
    pub(crate) again_at: Option<Duration>,
    /// Whether the assign was answered without this partition.
    pub(crate) late: bool,
    /// Transactional delivery: whether the partition stays assigned. The new ownership begins with another lookup, which
    /// shows what the transactions of the previous one have stored.
    pub(crate) in_place: bool,
    /// Transactional delivery: whether the lookup has to wait for the decision on a transaction that contains the
    /// partition.
    pub(crate) waits_for_transaction: bool,
    /// The result without the log end, if only that is missing.
    pub(crate) partial: Option<PartialStart>,
    /// How often the log has ended before the committed set. Counted instead of time, because a restore of states is part of
    /// a lookup.
    pub(crate) short_logs: u32,
}

impl Lookup {
    /// A lookup that is requested now.
    pub(crate) fn new(since: Duration) -> Self {
        Lookup {
            since,
            again_at: None,
            late: false,
            in_place: false,
            waits_for_transaction: false,
            partial: None,
            short_logs: 0,
        }
    }
}

/// A start without the log end: enough to begin an ownership, not enough to check claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartialStart {
    pub(crate) committed: Option<i64>,
    pub(crate) fallback: i64,
    pub(crate) log_start: i64,
    pub(crate) topic_id: [u8; 16],
    /// Whether the commit was made in another topic of this name.
    pub(crate) of_other_topic: bool,
}

/// What the coordinator has stored for this ownership.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CommitState {
    /// The stored offset; `None`: the start of the ownership is not committed yet.
    pub(crate) committed: Option<i64>,
    /// Number of changes to the offset or the set.
    pub(crate) changes: u64,
    /// `changes` as of the last applied commit.
    pub(crate) applied: u64,
    /// When the last commit was applied, or else when the ownership began.
    pub(crate) applied_at: Duration,
    /// Offsets beyond the committed one, settled or missing, that the last commit did not claim.
    pub(crate) unclaimed: u64,
    /// Transactional delivery: the highest number that a committed transaction of this ownership claims.
    pub(crate) claimed_through: SettleNumber,
    /// Transactional delivery: whether events are withheld from the transactions because their set does not fit.
    pub(crate) withholds: bool,
    /// Transactional delivery: whether none of the events that are not claimed fit in the last snapshot.
    pub(crate) fits_nothing: bool,
    /// Transactional delivery: the last snapshot whose set did not fit.
    pub(crate) too_long: Option<TooLong>,
    /// Transactional delivery: whether transactions exclude the partition.
    pub(crate) excluded: bool,
    /// The event at which the partition stops when the ownership has ended, and why.
    pub(crate) stops_at: Option<(i64, PartitionStop)>,
    /// Whether nothing more is committed: the final commit was rejected, or the topic was recreated.
    pub(crate) commits_ended: bool,
}

/// A snapshot of a partition whose set did not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong {
    /// [`CommitState::changes`].
    pub(crate) changes: u64,
    /// Number of settled offsets beyond the committable one.
    pub(crate) completed_beyond: u64,
    /// When a later snapshot is tried, whatever has changed.
    pub(crate) until: Duration,
}

/// Whether the rows that are read next are known to follow the rows before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PositionState {
    /// The reader has not moved since the previous record or end: missing offsets do not exist.
    Verified,
    /// There was a rebalance or an error since then: the reader may be at any offset.
    Unverified,
    /// The reader was set to the ledger's next offset: the next record or end verifies its position.
    Repositioned,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadState {
    pub(crate) position: PositionState,
    /// Whether the shell has a permission to read.
    pub(crate) permitted: bool,
    /// The limit that was reached, if reading is paused. Reading resumes at three quarters of the limit.
    pub(crate) paused: Option<ReadPause>,
    /// Whether reading resumes at the limit itself: what its events wait for must be read.
    pub(crate) reads_to_limit: bool,
    /// Whether reading waits for slower partitions.
    pub(crate) is_ahead: bool,
    /// The last read failure, if nothing was read since.
    pub(crate) failure: Option<ReadFailure>,
    /// Set while the log is known to have records that do not arrive.
    pub(crate) unfetched: Option<Unfetched>,
    /// When a record last arrived, or when the reader was last at the end of the log or not reading.
    pub(crate) up_to_date_at: Duration,
    /// The log to restart in, if the ownership ends because its position is outside the log.
    pub(crate) restart_in: Option<LogBounds>,
}

/// Records of the log that do not arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unfetched {
    pub(crate) leader_responds: bool,
    /// When it was first known.
    pub(crate) known_at: Duration,
    /// Whether a stall was reported for it.
    pub(crate) reported: bool,
}

/// The bounds of a partition's log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogBounds {
    /// The first offset.
    pub(crate) start: i64,
    /// One past the last offset.
    pub(crate) end: i64,
}

/// A read error that no successful read has followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadFailure {
    pub(crate) why: ReadError,
    /// The offset that could not be read.
    pub(crate) offset: i64,
    /// Retries so far, plus one.
    pub(crate) tries: u32,
    /// When the reader is repositioned.
    pub(crate) retry_at: Duration,
    /// When the first of these errors occurred.
    pub(crate) since: Duration,
    /// Whether a stall was reported for the error.
    pub(crate) reported: bool,
}

/// A pause of reading, because a limit is reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadPause {
    pub(crate) limit: ReadLimit,
    /// When it began.
    pub(crate) since: Duration,
    /// Whether it was reported.
    pub(crate) reported: bool,
}

/// The last progress of a partition, for stall detection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StallWatch {
    pub(crate) seen: (i64, Option<i64>),
    pub(crate) at: Duration,
    pub(crate) reported: bool,
}

impl Partitions {
    /// Returns the index of a partition, which is added if it is new.
    pub(crate) fn index_of(&mut self, id: Partition) -> u32 {
        if let Some(&index) = self.index.get(&id) {
            return index;
        }
        let index = u32::try_from(self.states.len()).expect("a cluster has far fewer than 2^32 partitions");
        self.states.push(PartitionState::new(id));
        self.index.insert(id, index);
        index
    }

    /// Returns the index of a partition that has a state.
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
        0..u32::try_from(self.states.len()).expect("a cluster has far fewer than 2^32 partitions")
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PartitionState> + Clone {
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
            unclaimed: UnclaimedEvents::default(),
            queued_bytes: 0,
            dispatched_to: -1,
            round: None,
            hold: None,
            waits_beyond: None,
            running: 0,
            unacked: 0,
            commit: CommitState::default(),
            reading: ReadState::new(Duration::ZERO),
            end: None,
            in_assignment: false,
            stall_watch: StallWatch::default(),
            stall_reported_at: Duration::ZERO,
        }
    }

    /// Resets what belongs to an ownership, for a new one that starts at an offset. `claims`: what earlier owners have
    /// settled beyond it. `committed`: the offset that the coordinator has stored; `None`: the start is still to be
    /// committed.
    pub(crate) fn begin(
        &mut self,
        ownership: OwnershipId,
        (start, claims): (i64, &[(i64, i64)]),
        committed: Option<i64>,
        now: Duration,
    ) {
        self.ownership = ownership;
        self.ledger.begin(start, claims);
        self.unclaimed.clear();
        self.queued_bytes = 0;
        let changes = u64::from(committed.is_none());
        self.commit = CommitState { committed, changes, applied_at: now, ..CommitState::default() };
        self.reading = ReadState::new(now);
    }

    /// Returns the identity that a set committed at `offset` is bound to.
    pub(crate) fn identity(&self, offset: i64) -> Identity {
        Identity { topic_id: self.topic_id, partition: self.id.number, offset }
    }

    /// Transactional delivery: whether nothing can be published before the first unsettled event settles.
    pub(crate) fn waits_for_first(&self) -> bool {
        self.hold.is_some() && !self.commit.excluded
    }

    /// Returns whether results of the ownership still count.
    pub(crate) fn accepts_results(&self) -> bool {
        matches!(self.phase, Phase::Active | Phase::Closing { .. })
    }

    /// Returns whether a round only waits for its commit.
    pub(crate) fn ends_round(&self) -> bool {
        self.round.is_some_and(|last| self.ledger.committable() > last)
    }

    /// Returns the offset beyond which nothing is dispatched, if there is one.
    pub(crate) fn barrier(&self) -> Option<i64> {
        // What is held must settle, so that others can go on: it does not wait for them.
        let waits_beyond = self.waits_beyond.filter(|_| self.hold.is_none());
        self.round.into_iter().chain(self.hold).chain(waits_beyond).min()
    }

    /// Returns whether its first unsettled event waits for slower partitions.
    pub(crate) fn waits_for_others(&self) -> bool {
        self.hold.is_none() && self.waits_beyond.is_some_and(|last| self.ledger.committable() > last)
    }

    /// Returns the progress that stall detection compares.
    pub(crate) fn progress_now(&self) -> (i64, Option<i64>) {
        (self.ledger.committable(), self.commit.committed)
    }

    /// Returns since when it has made no progress, if a stall of it is reported.
    pub(crate) fn stalled_since(&self) -> Option<Duration> {
        let failure = self.reading.failure.filter(|failure| failure.reported).map(|failure| failure.since);
        let unfetched = self.reading.unfetched.filter(|unfetched| unfetched.reported);
        let is_unmoved = self.stall_watch.reported && self.stall_watch.seen == self.progress_now();
        failure
            .or(unfetched.map(|_| self.reading.up_to_date_at))
            .or(is_unmoved.then_some(self.stall_watch.at))
    }

    /// Returns whether offset or set changed since the last stored commit.
    pub(crate) fn is_dirty(&self) -> bool {
        self.commit.changes != self.commit.applied
    }

    /// Returns whether the ownership may commit.
    pub(crate) fn may_commit(&self) -> bool {
        matches!(
            self.phase,
            Phase::Starting | Phase::Active | Phase::Closing { .. } | Phase::Committing { .. }
        )
    }

    /// Returns whether the next commit may contain the partition.
    pub(crate) fn may_be_committed(&self) -> bool {
        self.may_commit() && !self.commit.commits_ended && !self.commit.excluded
    }

    /// Returns whether, under `--until-end`, every event up to the end is committed.
    pub(crate) fn is_at_end(&self) -> bool {
        match (self.end, self.commit.committed) {
            (Some(end), Some(committed)) => committed >= end,
            (Some(_) | None, Some(_) | None) => false,
        }
    }
}

impl LogBounds {
    /// Returns whether reading can continue at an offset: at a record, or at the end.
    pub(crate) fn contains(self, offset: i64) -> bool {
        (self.start..=self.end).contains(&offset)
    }
}

impl ReadState {
    pub(crate) fn new(now: Duration) -> Self {
        ReadState {
            position: PositionState::Unverified,
            permitted: false,
            paused: None,
            reads_to_limit: false,
            is_ahead: false,
            failure: None,
            unfetched: None,
            up_to_date_at: now,
            restart_in: None,
        }
    }
}
