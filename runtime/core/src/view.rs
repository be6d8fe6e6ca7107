//! Snapshots of a core for reports and metrics: plain data, created only on request. Creating one changes nothing.

use std::time::Duration;

use crate::core::Core;
use crate::partitions::{PartitionState, Phase};
use crate::{Blockage, EventTimes, Notice, OnGap, OwnershipEnd, OwnershipId, Partition, ReadLimit};

/// A snapshot of a core. Creating it scans the partitions, the lanes of calls and those with a retry state, but no
/// events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The owned partitions, in the order in which they were first named in an input.
    pub partitions: Vec<PartitionView>,
    /// Lanes with events or a call.
    pub lanes: usize,
    /// Lanes that a call could take now.
    pub ready_lanes: usize,
    /// Lanes with a retry state: their events are dispatched one per call.
    pub retrying_lanes: usize,
    /// Calls that have not terminated.
    pub unterminated_calls: u32,
    /// Whether no calls begin because too many outputs are queued for the producer.
    pub output_backlog_full: bool,
    /// The uptime at which the drain cancels running calls; `None`: no drain.
    pub drain_until: Option<Duration>,
    /// Whether the handler is stopping at an event that can't be handled: nothing is dispatched any more.
    pub stopping: bool,
    /// Totals so far.
    pub counters: Counters,
    /// How long events took so far.
    pub times: EventTimes,
}

/// How busy a core is. Cheap enough to be read once a second: it scans nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Lanes with events or a call.
    pub lanes: usize,
    /// Lanes that wait for a call, because no more calls are allowed or the workers are busy.
    pub ready_lanes: usize,
    /// Lanes whose first event waits for its next attempt.
    pub delayed_lanes: usize,
    /// Calls that have not terminated.
    pub calls: u32,
    /// Those of them that wait, for I/O or a timer, without a worker.
    pub suspended_calls: u32,
    /// Whether no more calls are allowed.
    pub at_call_limit: bool,
    /// Whether no calls begin because too many outputs are queued for the producer.
    pub output_backlog_full: bool,
}

/// One partition of a [`View`].
///
/// Until an ownership begins, `ownership`, the offsets and the counts of offsets are those of the previous ownership,
/// or 0. Its state is then `Starting`, or `Stopped` if it has no valid start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionView {
    /// The partition.
    pub partition: Partition,
    /// Its ownership.
    pub ownership: OwnershipId,
    /// The state of its ownership.
    pub state: OwnershipState,
    /// The offset that the coordinator has stored for the ownership; `None`: its start is not committed yet.
    pub committed: Option<i64>,
    /// The first offset that is not settled: the committable offset.
    pub committable_offset: i64,
    /// The next offset to read.
    pub next_offset: i64,
    /// Events that were read and are not settled.
    pub open: u64,
    /// Offsets beyond `committable_offset` that need no processing: settled, claimed or missing.
    pub completed_beyond: u64,
    /// Offsets beyond the committed one, settled or missing, that the last commit could not claim. A new owner would
    /// process their events again.
    pub unclaimed: u64,
    /// Transactional delivery: settled events that no transaction can claim now, because their set does not fit, or the
    /// partition is excluded.
    pub withheld: u64,
    /// Events that a gate has parked: they wait for lower order values, or for stream time.
    pub parked: u64,
    /// Bytes of events that were read and are not settled. Set to 0 when the ownership closes.
    pub queued_bytes: u64,
    /// Lanes with a running call.
    pub running_lanes: u32,
    /// Lanes that wait for acknowledgements, of outputs or of a dead letter.
    pub unacked_lanes: u32,
    /// The limit because of which reading is paused, until some of its events are settled.
    pub read_limit: Option<ReadLimit>,
    /// What blocks it now; `None`: nothing is known to be left to read, settle or commit.
    pub blocked: Option<Blockage>,
    /// The uptime since which it has made no progress, if a stall of it is reported.
    pub stalled_since: Option<Duration>,
}

/// The state of an ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnershipState {
    /// Its start is being looked up, or committed for the first time.
    Starting,
    /// Its events are being processed.
    Active,
    /// Running calls may finish; nothing new is dispatched.
    Closing,
    /// Its results no longer count. Its final commit, or the end of its cancelled calls, is awaited.
    Committing,
    /// It can't be read and waits for an operator.
    Stopped,
}

/// Totals over the life of a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Settled events with any outcome, including filtered ones.
    pub settled: u64,
    /// Attempts after the first, counted when they are scheduled.
    pub retries: u64,
    /// Events processed again, uncharged, because a call that they were in failed as a whole.
    pub reruns_after_faults: u64,
    /// Events processed again, uncharged, because an output of an event before them is unpublishable.
    pub reruns_after_unpublishable: u64,
    /// Events that were dead-lettered: their dead letters are acknowledged.
    pub dead_letters: u64,
    /// Events skipped because they could not be handled.
    pub skipped: u64,
    /// Events that the filter dropped.
    pub filtered: u64,
    /// Events that a gate passed over, because a greater order value had run or their key had ended.
    pub stale: u64,
    /// Events that a gate passed over, because a greater order value ran first.
    pub superseded: u64,
    /// Events that a gate dropped, because they came too late for their place.
    pub late_dropped: u64,
    /// Events that were done although they came too late for their place.
    pub late_delivered: u64,
    /// Events whose id had an event that was done.
    pub duplicates: u64,
    /// Gaps whose missing order values were passed over.
    pub gaps_passed: u64,
    /// Gaps whose early events were dead-lettered.
    pub gaps_dead_lettered: u64,
    /// Ranges of holes that were forgotten, because a key had too many.
    pub holes_forgotten: u64,
    /// Partitions that others no longer waited for, because they could not be read.
    pub partitions_passed_over: u64,
    /// Releases of waiting events before their time, because too many waited.
    pub windows_released_early: u64,
    /// Ownerships that began.
    pub ownerships: u64,
    /// Ownerships that were lost: another member may already have owned the partition.
    pub losses: u64,
    /// Offsets that earlier owners had claimed as settled or missing. Their events were not processed again.
    pub inherited_claims: u64,
    /// Commits whose metadata was ignored at the start of an ownership.
    pub metadata_ignored: u64,
    /// Offsets skipped as configured by `out_of_range`.
    pub offsets_skipped: u64,
    /// Partitions whose topic was recreated while it was read.
    pub partitions_recreated: u64,
    /// How often a reader was repositioned.
    pub repositioned: u64,
}

impl Counters {
    /// Counts a notice. Called for each one before it is sent to the shell.
    pub(crate) fn count(&mut self, notice: &Notice) {
        match notice {
            Notice::OwnershipStarted { claimed, .. } => {
                self.ownerships += 1;
                self.inherited_claims += claimed;
            }
            Notice::OwnershipEnded { end, .. } => self.losses += u64::from(*end == OwnershipEnd::Lost),
            Notice::MetadataIgnored { .. } => self.metadata_ignored += 1,
            Notice::OffsetsSkipped { count, .. } => self.offsets_skipped += count,
            Notice::TopicRecreated { .. } => self.partitions_recreated += 1,
            Notice::Repositioned { .. } => self.repositioned += 1,
            Notice::Skipped { .. } => self.skipped += 1,
            Notice::PassedOver { .. } => self.partitions_passed_over += 1,
            Notice::GapClosed(gap) => match gap.on_gap {
                OnGap::Pass => self.gaps_passed += 1,
                OnGap::DeadLetter => self.gaps_dead_lettered += 1,
                OnGap::Stop => {} // the partition stops with its gap
            },
            Notice::StaleRedrive { .. }
            | Notice::EarlyAtEnd(_)
            | Notice::MetadataLimitLowered { .. }
            | Notice::ReadingPaused { .. }
            | Notice::ReadingResumed { .. } => {}
        }
    }
}

impl Core {
    /// Returns how busy the core is.
    pub fn load(&self) -> Load {
        Load {
            lanes: self.lanes.count(),
            ready_lanes: self.lanes.ready(),
            delayed_lanes: self.lanes.delayed(),
            calls: self.calls.unterminated,
            suspended_calls: self.calls.unterminated - self.calls_on_workers(),
            at_call_limit: self.is_at_call_limit(),
            output_backlog_full: self.output_backlog_full,
        }
    }

    /// Returns a snapshot of the core.
    pub fn view(&self) -> View {
        View {
            partitions: self
                .partitions
                .iter()
                .zip(self.blocked())
                .filter_map(|(state, blocked)| {
                    partition_view(state, (self.withheld(state), self.parked(state.id)), blocked)
                })
                .collect(),
            lanes: self.lanes.count(),
            ready_lanes: self.lanes.ready(),
            retrying_lanes: self.lanes.retrying(),
            unterminated_calls: self.calls.unterminated,
            output_backlog_full: self.output_backlog_full,
            drain_until: self.drain_until(),
            stopping: self.stopping,
            counters: self.counters(),
            times: self.times,
        }
    }
}

/// Returns the view of a partition; `None`: the partition is not owned.
fn partition_view(
    state: &PartitionState,
    (withheld, parked): (u64, u64),
    blocked: Option<Blockage>,
) -> Option<PartitionView> {
    let ownership_state = match state.phase {
        Phase::Vacant | Phase::Closed => return None,
        Phase::LookingUp(_) | Phase::Resolved | Phase::Starting => OwnershipState::Starting,
        Phase::Active => OwnershipState::Active,
        Phase::Closing { .. } => OwnershipState::Closing,
        Phase::Committing { .. } => OwnershipState::Committing,
        Phase::Stopped => OwnershipState::Stopped,
    };
    let in_step = state.reading.is_ahead.then_some(ReadLimit::InStep);
    Some(PartitionView {
        partition: state.id,
        ownership: state.ownership,
        state: ownership_state,
        committed: state.commit.committed,
        committable_offset: state.ledger.committable(),
        next_offset: state.ledger.next(),
        open: state.ledger.open(),
        completed_beyond: state.ledger.completed_beyond(),
        unclaimed: state.commit.unclaimed,
        withheld,
        parked,
        queued_bytes: state.queued_bytes,
        running_lanes: state.running,
        unacked_lanes: state.unacked,
        read_limit: state.reading.paused.map(|pause| pause.limit).or(in_step),
        blocked,
        stalled_since: state.stalled_since(),
    })
}
