//! The effects that a process keeps, and its own record of the events that have settled.

use std::collections::{BTreeMap, BTreeSet};

use keylane_core::{FailedEvent, KeptEffect, KeptEffects, OwnershipId, Reason};

use super::super::gates::is_of_gate;
use super::super::keyed::KeyedShell;
use super::super::log::Lane;
use super::super::plan::Micros;
use super::super::process::{CallRow, key_of};
use super::super::trace::Seen;
use super::super::world::World;
use super::producer::Producer;

/// Bytes of a dead letter besides the event itself, as the core counts them.
const DEAD_LETTER_BYTES: u64 = 1024;

/// The effects of one event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effect {
    pub(super) number: u64,
    pub(super) process: usize,
    pub(super) ownership: u64,
    pub(super) partition: usize,
    pub(super) incarnation: u32,
    pub(super) offset: i64,
    pub(super) lane: Lane,
    pub(super) bytes: u64,
}

/// An event that has settled.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settled {
    /// Outputs, a dead letter, or a state.
    pub(super) has_effects: bool,
    /// Outputs or a dead letter.
    pub(super) publishes: bool,
    /// The handler has processed it.
    pub(super) is_done: bool,
    /// The input of the core at which it settled.
    input: u64,
    /// The number of events of the process that have settled before it.
    pub(super) order: usize,
    pub(super) at: Micros,
}

/// What a transactional process has beside its core.
#[derive(Debug, Default)]
pub(crate) struct Shell {
    /// By number and offset: events that share a state have the same number.
    pub(super) kept: BTreeMap<(u64, i64), Effect>,
    /// By ownership and offset.
    pub(super) settled: BTreeMap<(u64, i64), Settled>,
    /// Per number of kept effects: the input of the core at which they were kept.
    input_of: BTreeMap<u64, u64>,
    /// The last effects that were kept, published or not.
    last_kept: Option<Effect>,
    /// Inputs of the core so far.
    pub(crate) inputs: u64,
    /// Per partition: the offset and metadata that the coordinator had stored when this process last read or wrote
    /// them.
    pub(super) known: BTreeMap<usize, Option<(i64, Vec<u8>)>>,
    /// Partitions that transactions exclude, with the ownership.
    pub(super) excluded: BTreeMap<usize, u64>,
    /// Counts the times that it joined the group.
    pub(super) member: u32,
    /// Counts look-ups: only the answer to the last one of a partition counts.
    pub(super) lookups: BTreeMap<usize, u64>,
    pub(super) producer: Producer,
    pub(crate) keyed: KeyedShell,
    /// Times that its producer was fenced.
    pub(super) fenced: u32,
    /// Another process with its name was started.
    pub(super) superseded: bool,
    /// Events that were dispatched, by ownership and offset.
    dispatched: BTreeSet<(u64, i64)>,
    /// The last call with new events that was dispatched while no more effects could be kept.
    call_while_full: Option<(u32, u32)>,
}

impl Shell {
    pub(crate) fn is_superseded(&self) -> bool {
        self.superseded
    }

    pub(super) fn kept_bytes(&self) -> u64 {
        self.kept.values().map(|effect| effect.bytes).sum()
    }

    /// The number of the last effects that were kept.
    pub(super) fn last_number(&self) -> Option<u64> {
        self.input_of.last_key_value().map(|(&number, _)| number)
    }

    /// Whether an event that settled without effects certainly has a number up to `through`: effects with such a number
    /// were kept later.
    pub(super) fn settled_before(&self, settled: &Settled, through: u64) -> bool {
        self.input_of.range(..=through).next_back().is_some_and(|(_, &input)| input > settled.input)
    }
}

impl World {
    /// Records an event that settles when the core handles the next input.
    fn record_settled(&mut self, p: usize, ownership: u64, offset: i64, settled: Settled) {
        let (now, shell) = (self.now, &mut self.processes[p].shell);
        let settled = Settled { input: shell.inputs, order: shell.settled.len(), at: now, ..settled };
        shell.settled.insert((ownership, offset), settled);
    }

    /// A row is done, and its result counts. `inputs` counts the input that reports it.
    pub(crate) fn record_done(&mut self, p: usize, row: &CallRow) {
        if !self.is_transactional() {
            return;
        }
        let is_kept = self.processes[p].keeps(row.partition, row.lane, row.offset);
        if is_kept && self.processes[p].parts[row.partition].ownership == Some(row.ownership) {
            self.processes[p].shell.inputs += 1;
            let settled = Settled {
                has_effects: row.has_outputs || row.changes_state,
                publishes: row.has_outputs,
                is_done: true,
                ..Settled::default()
            };
            self.record_settled(p, row.ownership, row.offset, settled);
            self.processes[p].shell.inputs -= 1;
        }
    }

    /// An event is skipped: it settles without effects.
    pub(crate) fn record_skipped(&mut self, p: usize, index: usize, offset: i64) {
        if let Some(ownership) = self.processes[p].parts[index].ownership {
            self.record_settled(p, ownership, offset, Settled::default());
        }
    }

    pub(crate) fn keep_effects(&mut self, p: usize, effects: &[KeptEffects]) {
        for kept in effects {
            let index = self.index(kept.event.partition);
            let row = self.row_of(p, index, &kept.event);
            self.check_kept_effect(p, kept, &row);
            let record = self.record_of(index, row.incarnation, row.offset);
            let bytes = u64::from(record.map_or(0, |record| record.bytes));
            let (bytes, publishes) = match kept.effect {
                KeptEffect::Outputs => (bytes, row.has_outputs),
                KeptEffect::DeadLetter(_) => (bytes + DEAD_LETTER_BYTES, true),
            };
            let number = kept.number.0;
            let effect = Effect {
                number,
                process: p,
                ownership: row.ownership,
                partition: index,
                incarnation: row.incarnation,
                offset: row.offset,
                lane: row.lane,
                bytes,
            };
            self.saw(Seen::EffectsKept);
            self.note(p, "keeps", Some(index), row.offset, number as i64);
            if let KeptEffect::DeadLetter(reason) = kept.effect {
                self.dead_letter_gated(p, &row, reason);
                self.saw(Seen::DeadLettersKept);
                let settled = Settled { has_effects: true, publishes: true, ..Settled::default() };
                self.record_settled(p, row.ownership, row.offset, settled);
            }
            let shell = &mut self.processes[p].shell;
            let input = shell.inputs;
            shell.input_of.insert(number, input);
            shell.last_kept = Some(effect);
            if publishes {
                shell.kept.insert((number, row.offset), effect);
            }
            self.keep_state(p, kept);
        }
    }

    fn check_kept_effect(&mut self, p: usize, kept: &KeptEffects, row: &CallRow) {
        let (index, offset, number) = (row.partition, row.offset, kept.number.0);
        let last = self.processes[p].shell.last_number();
        let follows = last < Some(number) || (last == Some(number) && self.shares_number(p, kept, row));
        self.require(follows, "T6 settle order", index, offset, || {
            format!("process {p} keeps effects with number {number} after {last:?}")
        });
        let slot = self.processes[p].kept_at(kept.event.arena_slot);
        let holds = slot.is_some_and(|slot| (slot.partition, slot.offset) == (index, offset));
        self.require(holds, "I-slots", index, offset, || {
            format!("process {p} keeps {kept:?} from a slot that holds {slot:?}")
        });
        let open = self.processes[p].is_open(row);
        self.require(open, "I6 quiet after ownership", index, offset, || {
            format!("process {p} keeps effects of ownership {}, which has ended", row.ownership)
        });
        let KeptEffect::DeadLetter(reason) = kept.effect else {
            return self.check_kept_outputs(p, kept, row);
        };
        let event = kept.event;
        let failed = FailedEvent { call: kept.call, row: kept.row, event, attempt: kept.attempt, reason };
        self.check_dead_letter(p, &failed, row);
        let before = self.processes[p].shell.settled.get(&(row.ownership, offset)).copied();
        self.require(before.is_none(), "T1 once", index, offset, || {
            format!("process {p} keeps a dead letter of an event that has settled: {before:?}")
        });
        let process = &self.processes[p];
        let must_be_quiet = process.draining || process.stopping || process.backlog;
        let quiet = !(reason == Reason::NoLaneKey || is_of_gate(reason)) || !must_be_quiet;
        self.require(quiet, "I6 quiet", index, offset, || {
            format!("process {p} keeps {failed:?} while it drains, stops or has a full backlog")
        });
    }

    fn check_kept_outputs(&mut self, p: usize, kept: &KeptEffects, row: &CallRow) {
        let process = &mut self.processes[p];
        let call = process.calls.get_mut(&key_of(kept.call));
        let known = call.and_then(|call| call.rows.get_mut(kept.row as usize));
        let valid = known.is_some_and(|known| {
            let same = (known.partition, known.offset, known.ownership)
                == (row.partition, row.offset, row.ownership);
            let has_effects = known.has_outputs || known.changes_state;
            same && known.done && has_effects && !std::mem::replace(&mut known.produced, true)
        });
        let settled = self.processes[p].shell.settled.get(&(row.ownership, row.offset)).copied();
        let valid = valid && settled.is_some_and(|settled| settled.has_effects);
        self.require(valid, "I-protocol", row.partition, row.offset, || {
            format!("process {p} keeps outputs that do not exist, or twice: {kept:?}, {settled:?}")
        });
    }

    /// Events that one call has done in one lane share a state, and so a number.
    fn shares_number(&self, p: usize, kept: &KeptEffects, row: &CallRow) -> bool {
        let last = self.processes[p].shell.last_kept;
        let same_lane = last.is_none_or(|last| {
            (last.number, last.ownership, last.lane) == (kept.number.0, row.ownership, row.lane)
                && (last.offset < row.offset || self.is_gated())
        });
        self.is_keyed() && same_lane
    }

    pub(crate) fn drop_effects(&mut self, p: usize, ownership: OwnershipId) {
        self.saw(Seen::EffectsDropped);
        self.note(p, "drops effects", None, -1, ownership.0 as i64);
        self.processes[p].shell.kept.retain(|_, effect| effect.ownership != ownership.0);
    }

    /// No effects of an ended ownership may be published later.
    pub(crate) fn check_dropped_effects(&mut self, p: usize, ownership: u64) {
        let kept = self.processes[p].shell.kept.values().find(|effect| effect.ownership == ownership);
        if let Some(&Effect { partition, offset, .. }) = kept {
            let text = format!("process {p} keeps effects of ownership {ownership}, which has ended");
            self.report_violation("I6 outputs dropped", text, Some(partition), offset);
        }
    }

    /// While no more effects may be kept, only retries are dispatched, and one call at a time with new events.
    pub(crate) fn check_capacity(&mut self, p: usize, call: (u32, u32), row: &CallRow) {
        let Some(limits) = self.plan.config.transactions else { return };
        let rows = self.processes[p].calls[&call].rows.clone();
        let shell = &mut self.processes[p].shell;
        let mut new = rows;
        new.retain(|row| shell.dispatched.insert((row.ownership, row.offset)));
        let is_retry = new.is_empty();
        for row in &new {
            self.check_share(p, row);
        }
        let shell = &mut self.processes[p].shell;
        let excluded = &shell.excluded;
        let counts = |effect: &&Effect| excluded.get(&effect.partition) != Some(&effect.ownership);
        let kept = shell.kept.values().filter(counts).count() as u64;
        let full =
            shell.kept_bytes() >= limits.kept_bytes || limits.max_uncommitted.is_some_and(|max| kept >= max);
        if !full || is_retry {
            return;
        }
        self.saw(Seen::CallsWhileFull);
        let before = self.processes[p].shell.call_while_full.replace(call);
        let runs = |key| self.processes[p].calls.get(&key).is_some_and(|call| !call.reported);
        let runs = before.is_some_and(runs);
        self.require(!runs, "T7 capacity", row.partition, row.offset, || {
            format!("process {p} dispatches {call:?} while {kept} effects are kept and {before:?} runs")
        });
    }
}
