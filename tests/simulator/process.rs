//! One process of the group: a core, and what its shell would know.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use keylane_core::{ArenaSlot, CallId, CommitId, Core, OutOfRange, RebalanceId, RetryPolicy};

use super::blame::Blame;
use super::log::Lane;
use super::plan::{Micros, Plan};
use super::world::Event;

#[derive(Debug)]
pub(crate) struct Process {
    /// `None` while it is being fed, and once it is over.
    pub(crate) core: Option<Core>,
    pub(crate) instance: usize,
    pub(crate) started: Micros,
    pub(crate) alive: bool,
    pub(crate) paused: bool,
    pub(crate) paused_at: Micros,
    /// When it last went on after a pause; 0: never.
    pub(crate) resumed_at: Micros,
    /// What happened to it while it was paused.
    pub(crate) parked: Vec<Event>,
    /// Dies after so many more actions.
    pub(crate) dies_after: Option<u64>,
    pub(crate) draining: bool,
    /// Nothing keeps its drain from being clean.
    pub(crate) expects_clean: bool,
    /// Its operator's answer to an offset outside the log.
    pub(crate) out_of_range: OutOfRange,
    /// What it does with events that fail.
    pub(crate) retry: RetryPolicy,
    /// Per ownership and offset.
    pub(crate) blames: BTreeMap<(u64, i64), Blame>,
    /// Per ownership: nothing beyond is dispatched until all up to it is committed.
    pub(crate) rounds: BTreeMap<u64, i64>,
    /// The highest offset dispatched, per ownership.
    pub(crate) dispatched_to: BTreeMap<u64, i64>,
    /// Its handler gave up.
    pub(crate) stopping: bool,
    pub(crate) left: bool,
    pub(crate) tick_at: Option<Micros>,
    /// Rebalances not yet delivered: in order, one at a time.
    pub(crate) controls: VecDeque<Control>,
    /// The one that the core has to answer, and since when.
    pub(crate) outstanding: Option<Outstanding>,
    /// Rebalances that it was asked about so far.
    pub(crate) rebalances: u64,
    /// The generation it knows.
    pub(crate) generation: u32,
    pub(crate) parts: Vec<Part>,
    /// Under `--until-end`: where the work ends, per partition.
    pub(crate) ends: Vec<Option<i64>>,
    /// When an assign was answered last.
    pub(crate) assigned_at: Micros,
    /// Per place: the event kept there, until it is released.
    places: Vec<Option<Kept>>,
    /// The same by lane, with the place.
    pub(crate) queue: BTreeSet<(usize, Lane, i64, u64)>,
    pub(crate) calls: BTreeMap<(u32, u32), Call>,
    /// Lanes whose guest has not really ended.
    pub(crate) lanes_out: BTreeMap<(usize, Lane), (u32, u32)>,
    /// Outputs handed over and not acked, per lane and ownership.
    pub(crate) unacked: BTreeMap<(usize, Lane, u64), u32>,
    /// So much waits for the producer that no call may begin.
    pub(crate) backlog: bool,
    /// Sessions that have ended: nothing of them may start or be handed over.
    pub(crate) ended: BTreeSet<u64>,
    pub(crate) commit: Option<CommitId>,
    pub(crate) outputs: Outputs,
    /// For a planted bug: results by place, kept for the next user of the place.
    pub(crate) stale: BTreeMap<u32, (u32, u32)>,
    /// For a planted bug: the highest finished offset.
    pub(crate) highest_done: BTreeMap<usize, i64>,
}

/// What the group says to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Assign(Vec<usize>),
    Revoke(Vec<usize>),
    /// Everything is someone else's already.
    Lost(Vec<usize>),
}

/// What the group waits for.
#[derive(Clone, Debug)]
pub(crate) struct Outstanding {
    pub(crate) id: RebalanceId,
    pub(crate) control: Control,
    pub(crate) since: Micros,
}

/// One partition as one process sees it.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// From the assign on, until a revoke is answered or it is lost.
    pub(crate) owned: bool,
    /// Counts ownerships.
    pub(crate) epoch: u32,
    pub(crate) reader: Option<Reader>,
    /// The ownership that the core named.
    pub(crate) ownership: Option<u64>,
    /// Commits of this ownership may not lie below: what was found, and what was committed since.
    pub(crate) floor: Option<i64>,
    /// Of the log, as the process knows it.
    pub(crate) incarnation: u32,
    /// Events kept and not released.
    pub(crate) kept: u32,
    pub(crate) stopped: bool,
}

#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) position: i64,
    /// Where it would be if nothing had moved it.
    pub(crate) sound: i64,
    pub(crate) permission: Option<(u32, u64)>,
    /// The end that was reported last.
    pub(crate) end_told: Option<i64>,
    /// It gives nothing until it is put somewhere.
    pub(crate) halted: bool,
    /// Out of range: it refuses to seek, and has to be assigned anew.
    pub(crate) needs_assign: bool,
    /// Its error was reported, and is not reported again.
    pub(crate) silent: bool,
    pub(crate) poll_scheduled: bool,
}

impl Reader {
    pub(crate) fn new(position: i64) -> Self {
        Reader {
            position,
            sound: position,
            permission: None,
            end_told: None,
            halted: false,
            needs_assign: false,
            silent: false,
            poll_scheduled: false,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) rows: Vec<CallRow>,
    pub(crate) lanes: Vec<u32>,
    /// Its instance served no call before.
    pub(crate) fresh: bool,
    /// When it was asked to go away.
    pub(crate) cancelled: Option<Micros>,
    /// Its guest is gone.
    pub(crate) ended: bool,
    /// The core was told so.
    pub(crate) told: bool,
    pub(crate) suspended: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct CallRow {
    pub(crate) partition: usize,
    pub(crate) epoch: u32,
    pub(crate) ownership: u64,
    /// Of the log that it was read from.
    pub(crate) incarnation: u32,
    pub(crate) offset: i64,
    pub(crate) lane: Lane,
    pub(crate) has_outputs: bool,
    pub(crate) done: bool,
    pub(crate) handed_over: bool,
    /// Outputs or a dead letter of it have no answer yet.
    pub(crate) unanswered: bool,
    /// Its ownership is over: what has not left by then never will.
    pub(crate) dropped: Option<Micros>,
}

/// An event that was read and is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) partition: usize,
    /// Of the log that it was read from.
    pub(crate) incarnation: u32,
    pub(crate) lane: Lane,
    pub(crate) offset: i64,
}

/// What is on the wire: the producer keeps the order of each key.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    pub(crate) last_landing: BTreeMap<(usize, u64), Micros>,
    /// Nothing more of these keys lands: the process died, or the broker refused the one before.
    pub(crate) cut: BTreeSet<(usize, u64)>,
    /// The highest output of each ownership and key that landed.
    pub(crate) landed: BTreeMap<(u64, usize, u64), u32>,
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
            parked: Vec::new(),
            dies_after: None,
            draining: false,
            expects_clean: false,
            out_of_range: plan.config.out_of_range,
            retry: plan.config.retry.clone(),
            blames: BTreeMap::new(),
            rounds: BTreeMap::new(),
            dispatched_to: BTreeMap::new(),
            stopping: false,
            left: false,
            tick_at: None,
            controls: VecDeque::new(),
            outstanding: None,
            rebalances: 0,
            generation: 0,
            parts: (0..plan.partitions()).map(|_| Part::default()).collect(),
            ends: vec![None; plan.partitions()],
            assigned_at: 0,
            places: Vec::new(),
            queue: BTreeSet::new(),
            calls: BTreeMap::new(),
            lanes_out: BTreeMap::new(),
            unacked: BTreeMap::new(),
            backlog: false,
            ended: BTreeSet::new(),
            commit: None,
            outputs: Outputs::default(),
            stale: BTreeMap::new(),
            highest_done: BTreeMap::new(),
        }
    }

    /// Calls that a worker is busy with.
    pub(crate) fn busy(&self) -> usize {
        self.calls.values().filter(|call| !call.told && !call.suspended).count()
    }

    /// Calls that the core does not know the end of.
    pub(crate) fn out(&self) -> usize {
        self.calls.values().filter(|call| !call.told).count()
    }

    /// Whether results of this row still count, as the world sees it.
    pub(crate) fn is_open(&self, row: &CallRow) -> bool {
        let part = &self.parts[row.partition];
        self.alive && part.owned && part.epoch == row.epoch && !self.ended.contains(&row.ownership)
    }

    /// The ownership of a partition is over.
    pub(crate) fn give_up(&mut self, partition: usize) {
        let part = &mut self.parts[partition];
        part.owned = false;
        part.reader = None;
        part.stopped = false;
        self.ended.extend(part.ownership.take());
    }

    pub(crate) fn keep(&mut self, kept: Kept) -> ArenaSlot {
        let arena_slot = self.places.len() as u64;
        self.places.push(Some(kept));
        self.queue.insert((kept.partition, kept.lane, kept.offset, arena_slot));
        self.parts[kept.partition].kept += 1;
        ArenaSlot(arena_slot)
    }

    /// What is kept there.
    pub(crate) fn kept_at(&self, arena_slot: ArenaSlot) -> Option<Kept> {
        *self.places.get(arena_slot.0 as usize)?
    }

    /// The place is free again. Wrong: it was free already, or never given.
    pub(crate) fn release(&mut self, arena_slot: ArenaSlot) -> Option<(usize, i64)> {
        let Kept { partition, lane, offset, .. } = self.places.get_mut(arena_slot.0 as usize)?.take()?;
        self.queue.remove(&(partition, lane, offset, arena_slot.0));
        self.parts[partition].kept -= 1;
        Some((partition, offset))
    }

    /// Whether it stood still for a while since then.
    pub(crate) fn paused_since(&self, since: Micros) -> bool {
        self.paused || self.resumed_at > since
    }

    pub(crate) fn revoking(&self, partition: usize) -> bool {
        match self.outstanding.as_ref().map(|asked| &asked.control) {
            Some(Control::Revoke(list) | Control::Lost(list)) => list.contains(&partition),
            Some(Control::Assign(_)) | None => false,
        }
    }
}

pub(crate) fn key_of(call: CallId) -> (u32, u32) {
    (call.slot, call.generation)
}
