//! One process of the group: a core, and the state of its shell.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use keylane_core::{ArenaSlot, CallId, CommitId, Core, OutOfRange, OwnershipId, RebalanceId, RetryPolicy};

use super::attribution::RetryState;
use super::gates::GateShell;
use super::in_step::ReadTimes;
use super::log::Lane;
use super::plan::{Micros, Plan};
use super::transactions::{Coverage, Shell};
use super::world::Event;

#[derive(Debug)]
pub(crate) struct Process {
    /// `None` while it receives an input, and after its end.
    pub(crate) core: Option<Core>,
    pub(crate) instance: usize,
    pub(crate) started: Micros,
    pub(crate) alive: bool,
    pub(crate) paused: bool,
    pub(crate) paused_at: Micros,
    /// When it was last resumed; 0: never.
    pub(crate) resumed_at: Micros,
    /// Events that arrived while it was paused.
    pub(crate) deferred: Vec<Event>,
    /// It is killed after this many more actions.
    pub(crate) actions_until_kill: Option<u64>,
    pub(crate) draining: bool,
    /// Its drain must be clean.
    pub(crate) expects_clean: bool,
    /// Its configuration for an offset outside the log.
    pub(crate) out_of_range: OutOfRange,
    /// Its configuration for events that fail.
    pub(crate) retry: RetryPolicy,
    /// Per ownership and offset.
    pub(crate) retry_states: BTreeMap<(u64, i64), RetryState>,
    /// Per ownership: no event beyond this offset is dispatched until everything up to it is committed.
    pub(crate) rounds: BTreeMap<u64, i64>,
    /// The highest offset dispatched, per ownership.
    pub(crate) dispatched_to: BTreeMap<u64, i64>,
    /// `read_in_step`: the times of what was read, per ownership.
    pub(crate) times: BTreeMap<u64, ReadTimes>,
    /// Its handler stopped.
    pub(crate) stopping: bool,
    pub(crate) left: bool,
    pub(crate) tick_at: Option<Micros>,
    /// Undelivered rebalance events, in order; one is delivered at a time.
    pub(crate) controls: VecDeque<Control>,
    /// The rebalance event that the core has to answer, and its time.
    pub(crate) outstanding: Option<Outstanding>,
    /// Rebalance events so far.
    pub(crate) rebalances: u64,
    /// The latest generation that it received.
    pub(crate) generation: u32,
    pub(crate) parts: Vec<MemberPartition>,
    /// Under `--until-end`: the end of the work, per partition.
    pub(crate) ends: Vec<Option<i64>>,
    /// The time of the last answered assign.
    pub(crate) assigned_at: Micros,
    /// Per arena slot: its event, until it is released.
    arena: Vec<Option<Kept>>,
    /// The same by lane, with the slot.
    pub(crate) queue: BTreeSet<(usize, Lane, i64, u64)>,
    pub(crate) calls: BTreeMap<(u32, u32), Call>,
    /// Lanes whose guest still runs.
    pub(crate) lanes_in_flight: BTreeMap<(usize, Lane), (u32, u32)>,
    /// Outputs produced and not acknowledged, per lane and ownership.
    pub(crate) unacked: BTreeMap<(usize, Lane, u64), u32>,
    /// The output backlog is full: no call may begin.
    pub(crate) backlog: bool,
    /// Ended ownerships: none of their events may be dispatched or produced.
    pub(crate) ended: BTreeSet<u64>,
    pub(crate) commit: Option<CommitId>,
    pub(crate) outputs: Outputs,
    /// Transactional delivery: what it has beside its core.
    pub(crate) shell: Shell,
    /// What it has for its gates.
    pub(crate) gates: GateShell,
    /// For a planted bug: results by slot, kept for the next call of the slot.
    pub(crate) stale: BTreeMap<u32, (u32, u32)>,
    /// For a planted bug: the highest finished offset.
    pub(crate) highest_done: BTreeMap<usize, i64>,
}

/// A rebalance event that the group sends to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Assign(Vec<usize>),
    Revoke(Vec<usize>),
    /// All partitions already have other owners.
    Lost(Vec<usize>),
}

/// The unanswered rebalance event.
#[derive(Clone, Debug)]
pub(crate) struct Outstanding {
    pub(crate) id: RebalanceId,
    pub(crate) control: Control,
    pub(crate) since: Micros,
}

/// One partition as one process sees it.
#[derive(Debug, Default)]
pub(crate) struct MemberPartition {
    /// From the assign until a revoke is answered or the partition is lost.
    pub(crate) owned: bool,
    /// Counts ownerships.
    pub(crate) epoch: u32,
    pub(crate) reader: Option<Reader>,
    /// The ownership that the core named.
    pub(crate) ownership: Option<u64>,
    /// Commits of this ownership may not be below this offset. It is the offset that was found, and
    /// then the last committed offset.
    pub(crate) floor: Option<i64>,
    /// The incarnation of the log, as the process found it.
    pub(crate) incarnation: u32,
    /// With gates: the events that were claimed when the start was found.
    pub(crate) claimed: Coverage,
    /// Events kept and not released.
    pub(crate) kept: u32,
    pub(crate) stopped: bool,
}

#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) position: i64,
    /// The position that the reader would have if nothing had moved it.
    pub(crate) expected: i64,
    pub(crate) permission: Option<(u32, u64)>,
    /// The most recently reported end.
    pub(crate) end_reported: Option<i64>,
    /// The reader returns nothing until it is positioned.
    pub(crate) halted: bool,
    /// The reader is out of range. It can't seek and must be reassigned.
    pub(crate) needs_assign: bool,
    /// The error of the reader was reported and is not reported again.
    pub(crate) error_reported: bool,
    pub(crate) poll_scheduled: bool,
}

impl Reader {
    pub(crate) fn new(position: i64) -> Self {
        Reader {
            position,
            expected: position,
            permission: None,
            end_reported: None,
            halted: false,
            needs_assign: false,
            error_reported: false,
            poll_scheduled: false,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) rows: Vec<CallRow>,
    pub(crate) lanes: Vec<u32>,
    /// The instance has served no call before.
    pub(crate) fresh: bool,
    /// When it was cancelled.
    pub(crate) cancelled: Option<Micros>,
    /// Its guest has ended.
    pub(crate) ended: bool,
    /// The end was reported to the core.
    pub(crate) reported: bool,
    pub(crate) suspended: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct CallRow {
    pub(crate) partition: usize,
    pub(crate) epoch: u32,
    pub(crate) ownership: u64,
    /// The incarnation of the log that it was read from.
    pub(crate) incarnation: u32,
    pub(crate) offset: i64,
    pub(crate) lane: Lane,
    pub(crate) has_outputs: bool,
    /// Keyed state: its effects contain the state of its lane.
    pub(crate) changes_state: bool,
    pub(crate) done: bool,
    pub(crate) produced: bool,
    /// Its outputs or its dead letter are unacknowledged.
    pub(crate) unanswered: bool,
    /// The results of the row no longer count. Outputs that are not sent by this time are never sent.
    pub(crate) dropped: Option<Micros>,
}

/// An event that was read and is not released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) partition: usize,
    /// The incarnation of the log that it was read from.
    pub(crate) incarnation: u32,
    pub(crate) lane: Lane,
    pub(crate) offset: i64,
}

/// Outputs in flight: the producer keeps the order of each key.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    pub(crate) last_stored_at: BTreeMap<(usize, u64), Micros>,
    /// No more outputs of these keys are stored, because the process has died.
    pub(crate) stopped_keys: BTreeSet<(usize, u64)>,
    /// The highest stored output of each ownership and key.
    pub(crate) stored: BTreeMap<(u64, usize, u64), u32>,
}

impl Process {
    pub(crate) fn new(core: Core, instance: usize, started: Micros, plan: &Plan) -> Self {
        Process {
            core: Some(core),
            instance,
            started,
            alive: true,
            paused: false,
            paused_at: 0,
            resumed_at: 0,
            deferred: Vec::new(),
            actions_until_kill: None,
            draining: false,
            expects_clean: false,
            out_of_range: plan.config.out_of_range,
            retry: plan.config.retry.clone(),
            retry_states: BTreeMap::new(),
            rounds: BTreeMap::new(),
            dispatched_to: BTreeMap::new(),
            times: BTreeMap::new(),
            stopping: false,
            left: false,
            tick_at: None,
            controls: VecDeque::new(),
            outstanding: None,
            rebalances: 0,
            generation: 0,
            parts: (0..plan.partitions()).map(|_| MemberPartition::default()).collect(),
            ends: vec![None; plan.partitions()],
            assigned_at: 0,
            arena: Vec::new(),
            queue: BTreeSet::new(),
            calls: BTreeMap::new(),
            lanes_in_flight: BTreeMap::new(),
            unacked: BTreeMap::new(),
            backlog: false,
            ended: BTreeSet::new(),
            commit: None,
            outputs: Outputs::default(),
            shell: Shell::default(),
            gates: GateShell::default(),
            stale: BTreeMap::new(),
            highest_done: BTreeMap::new(),
        }
    }

    /// Calls that occupy a worker.
    pub(crate) fn busy(&self) -> usize {
        self.calls.values().filter(|call| !call.reported && !call.suspended).count()
    }

    /// Calls whose end was not reported to the core.
    pub(crate) fn in_flight(&self) -> usize {
        self.calls.values().filter(|call| !call.reported).count()
    }

    /// Whether results of this row still count, as seen by the simulator.
    pub(crate) fn is_open(&self, row: &CallRow) -> bool {
        let part = &self.parts[row.partition];
        self.alive && part.owned && part.epoch == row.epoch && !self.ended.contains(&row.ownership)
    }

    /// The ownership of a partition has ended.
    pub(crate) fn release_partition(&mut self, partition: usize) {
        let part = &mut self.parts[partition];
        part.owned = false;
        part.reader = None;
        part.stopped = false;
        self.ended.extend(part.ownership.take());
    }

    pub(crate) fn keep(&mut self, kept: Kept) -> ArenaSlot {
        let arena_slot = self.arena.len() as u64;
        self.arena.push(Some(kept));
        self.queue.insert((kept.partition, kept.lane, kept.offset, arena_slot));
        self.parts[kept.partition].kept += 1;
        ArenaSlot(arena_slot)
    }

    /// The event in a slot.
    pub(crate) fn kept_at(&self, arena_slot: ArenaSlot) -> Option<Kept> {
        *self.arena.get(arena_slot.0 as usize)?
    }

    /// Whether the event is kept in some slot.
    pub(crate) fn keeps(&self, partition: usize, lane: Lane, offset: i64) -> bool {
        let (from, to) = ((partition, lane, offset, 0), (partition, lane, offset, u64::MAX));
        self.queue.range(from..=to).next().is_some()
    }

    /// Whether an event of the key is kept.
    pub(crate) fn has_events(&self, partition: usize, key: u64) -> bool {
        let lane = Lane::Key(key);
        let (from, to) = ((partition, lane, i64::MIN, 0), (partition, lane, i64::MAX, u64::MAX));
        self.queue.range(from..=to).next().is_some()
    }

    /// Frees the slot. `None`: the slot was already free, or never used.
    pub(crate) fn release(&mut self, arena_slot: ArenaSlot) -> Option<(usize, i64)> {
        let Kept { partition, lane, offset, .. } = self.arena.get_mut(arena_slot.0 as usize)?.take()?;
        self.queue.remove(&(partition, lane, offset, arena_slot.0));
        self.parts[partition].kept -= 1;
        Some((partition, offset))
    }

    /// Whether a guest call with this event has not ended.
    pub(crate) fn runs(&self, partition: usize, offset: i64, ownership: OwnershipId) -> bool {
        let is_event =
            |row: &CallRow| (row.partition, row.offset, row.ownership) == (partition, offset, ownership.0);
        self.calls.values().any(|call| !call.ended && call.rows.iter().any(is_event))
    }

    /// Whether the process was paused since that time.
    pub(crate) fn paused_since(&self, since: Micros) -> bool {
        self.paused || self.resumed_at > since
    }

    pub(crate) fn revoking(&self, partition: usize) -> bool {
        match self.outstanding.as_ref().map(|outstanding| &outstanding.control) {
            Some(Control::Revoke(list) | Control::Lost(list)) => list.contains(&partition),
            Some(Control::Assign(_)) | None => false,
        }
    }
}

pub(crate) fn key_of(call: CallId) -> (u32, u32) {
    (call.slot, call.reuse_count)
}
