//! Gates: in some seeds, events have order values or ids, and the handler has a gate, or detects duplicates.
//!
//! `draw` draws the configuration → `sequence` gives each record its order value and its id → `shell` passes them to the
//! core, and answers its requests → `memory` is what is remembered of the keys, in a process and in committed transactions →
//! `steps` collects what the core does in one step, and `checks` explains it with the rules of `model`, which has its own
//! idea of the memory: `without_call`, `gaps` and `calls` are the parts of a step, and `quiet` compares the memory after it.
//! `counters` compares the counters of a core with what
//! was seen. `dispatchable` checks after each step that the first unsettled event of a partition is not held back. `stream_time` is the
//! most that the stream time can have advanced. `planted` contains known bugs.

mod calls;
mod checks;
mod counters;
mod dispatchable;
mod draw;
mod gaps;
mod memory;
mod model;
mod planted;
mod quiet;
mod sequence;
mod shell;
mod steps;
mod stream_time;
mod without_call;

use std::collections::BTreeMap;

use keylane_core::{Change, Consecutive, Duplicates, GateConfig, GateRule, KeyMemory, Newest, OnGap};

use super::rng::Rng;
use super::world::World;

use counters::Counted;
use memory::GateMemory;
use model::{KeyModel, Model};
use sequence::Sequence;
use shell::{Numbers, SlotKeys};
use steps::Step;

pub(crate) use draw::draw;
pub(crate) use memory::NumberedChange;
pub(crate) use sequence::RecordOrder;
pub(crate) use shell::Answer;
pub(crate) use steps::is_of_gate;

/// The id of a gate key, or of the key of ids, within its partition.
pub(crate) type KeyName = u64;

#[derive(Clone, Copy, Debug)]
pub(crate) struct GatesPlan {
    pub(crate) gate: Option<GateConfig>,
    pub(crate) duplicates: Option<Duplicates>,
    /// Marks and holes are part of transactions. Otherwise, they end with the ownership.
    pub(crate) durable_marks: bool,
    /// The same for ids.
    pub(crate) durable_ids: bool,
    /// Gate keys per lane.
    keys_per_lane: u64,
    /// Order values are times in nanoseconds.
    times: bool,
    /// By how many records of its key an order value is displaced, at most.
    displacement: u64,
    /// Percentage of order values that are displaced.
    displaced: u64,
    /// Percentage of records with a wrong timestamp.
    wrong_clocks: u64,
    /// Percentage of keys whose mark is known at once, if nothing else is remembered.
    known_at_once: u64,
    /// Numbers of gate keys are hashes with collisions. Otherwise, the lowest free number is used.
    hashed_numbers: bool,
    /// Everything that a key is missing is sent again at the end, because gaps are not closed.
    resends: bool,
}

impl GatesPlan {
    /// Whether transactions carry such a change.
    pub(crate) fn is_durable(&self, change: Change) -> bool {
        if matches!(change, Change::Id(_)) { self.durable_ids } else { self.durable_marks }
    }

    pub(crate) fn stops_at_gaps(&self) -> bool {
        let rule = self.gate.map(|gate| gate.rule);
        matches!(rule, Some(GateRule::Consecutive(Consecutive { on_gap: OnGap::Stop, .. })))
    }

    /// Whether more events may wait for their window than the simulator lets wait.
    fn has_small_window(&self) -> bool {
        let Some(GateRule::Window(rule)) = self.gate.map(|gate| gate.rule) else { return false };
        rule.max_waiting < 10_000 || rule.max_waiting_bytes < 16 << 20
    }

    fn runs_latest_first(&self) -> bool {
        let rule = self.gate.map(|gate| gate.rule);
        matches!(rule, Some(GateRule::Newest(Newest { latest_first: true, .. })))
    }

    pub(crate) fn is_consecutive(&self) -> bool {
        matches!(self.gate.map(|gate| gate.rule), Some(GateRule::Consecutive(_)))
    }
}

/// What exists outside of processes.
#[derive(Debug)]
pub(crate) struct Gates {
    rng: Rng,
    /// By partition and gate key.
    sequences: BTreeMap<(usize, KeyName), Sequence>,
    /// By partition and lane key: the ids that its records have.
    ids: BTreeMap<(usize, KeyName), Vec<u128>>,
    /// Per partition: what the committed transactions have left.
    committed: Vec<BTreeMap<KeyName, KeyMemory>>,
    /// For a planted bug: per partition, with the changes that no transaction has committed.
    uncommitted: Vec<BTreeMap<KeyName, KeyMemory>>,
    /// Per partition: what the events that are claimed must have left.
    expected: Vec<BTreeMap<KeyName, KeyModel>>,
}

impl Gates {
    pub(crate) fn new(partitions: usize, seed: u64) -> Gates {
        Gates {
            rng: Rng::new(seed ^ 0x6f72_6465_7276_616c),
            sequences: BTreeMap::new(),
            ids: BTreeMap::new(),
            committed: vec![BTreeMap::new(); partitions],
            uncommitted: vec![BTreeMap::new(); partitions],
            expected: vec![BTreeMap::new(); partitions],
        }
    }
}

/// What a process has for its gates.
#[derive(Debug, Default)]
pub(crate) struct GateShell {
    /// By partition.
    parts: BTreeMap<usize, GatePart>,
    /// The keys of the events in arena slots.
    slots: BTreeMap<u64, SlotKeys>,
    step: Step,
    /// By ownership: what its events have changed, in the order in which they settled.
    journals: BTreeMap<u64, Vec<model::Entry>>,
    counted: Counted,
}

/// One partition of a process.
#[derive(Debug, Default)]
struct GatePart {
    ownership: Option<u64>,
    numbers: Numbers,
    memory: GateMemory,
    model: Model,
}

impl World {
    pub(crate) fn is_gated(&self) -> bool {
        self.plan.gates.is_some()
    }

    fn gate_part(&mut self, p: usize, index: usize) -> &mut GatePart {
        self.processes[p].gates.parts.entry(index).or_default()
    }

    /// The topic was recreated, empty.
    pub(crate) fn forget_gate_keys(&mut self, index: usize) {
        self.gates.sequences.retain(|&(partition, _), _| partition != index);
        self.gates.ids.retain(|&(partition, _), _| partition != index);
        self.gates.committed[index].clear();
        self.gates.expected[index].clear();
    }
}
