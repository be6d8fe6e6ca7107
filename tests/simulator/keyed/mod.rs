//! Keyed state: each key has a state, which the events of its lane change, and which the transactions of its partition
//! publish in a changelog, together with a binding record.
//!
//! `changelog` is the log with its transactions and its compaction → `restore` reads it when an ownership begins, from
//! where the file in `store` ends, and compares the binding with the committed offset → `calls` gives the states to calls,
//! and `fold` changes them → `transactions` adds the key records to a transaction, and passes them to the store when it is
//! committed → `checks` compares every committed transaction, every start and every store with the events that are done.
//! `forgetting` deletes states that were not changed for long. `operator` resets offsets while nobody runs, and repairs the partitions that do not start. States, records and the
//! comparison are those of `keylane-state`.

mod calls;
mod changelog;
mod checks;
mod fold;
mod forgetting;
mod operator;
mod restore;
mod store;
mod transactions;

use std::collections::BTreeMap;

use keylane_core::Config;
use keylane_state::KeyStates;

use super::plan::{Class, Micros, Plan, SECOND};
use super::planted::Planted;
use super::rng::Rng;
use super::world::World;

use calls::{CallStates, Change};
use changelog::Changelog;
use checks::Truth;
use forgetting::Deletion;
use operator::Visit;
use restore::Session;
use store::Disk;

pub(crate) use changelog::KeyRecord;
pub(crate) use store::Task;

/// Percentage of transactional seeds with keyed state.
const KEYED: u64 = 40;

/// Percentage of these in which old states are forgotten.
const FORGETTING: u64 = 50;

const CLASSES: [Class; 2] = [Class::StoreSlow, Class::StoreFiles];

#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyedPlan {
    /// Memory for states that a process has used recently.
    cache_bytes: usize,
    /// The processes of a host have one folder for their stores.
    hosts: usize,
    /// How long compaction keeps a deletion.
    deletions_kept: Micros,
    /// How long a state is kept that does not change; `None`: for ever.
    forget_after: Option<Micros>,
}

/// What exists outside of processes.
#[derive(Debug)]
pub(crate) struct Keyed {
    /// Per partition.
    changelogs: Vec<Changelog>,
    /// Per partition: what the changelog must contain.
    truths: Vec<Truth>,
    /// Per host and partition: what a process leaves to the next one.
    disks: BTreeMap<(usize, usize), Disk>,
    operator: Option<Visit>,
    /// Counts the sessions of all processes.
    sessions: u64,
}

/// What a process has for its keyed states.
#[derive(Debug, Default)]
pub(crate) struct KeyedShell {
    /// By partition.
    sessions: BTreeMap<usize, Session>,
    calls: BTreeMap<(u32, u32), CallStates>,
    /// By call and row: the states that the results of a call contain, until the core keeps them.
    changes: BTreeMap<((u32, u32), u32), Change>,
    /// The deletions of old states that no transaction has published.
    deletions: Vec<Deletion>,
    /// For a planted bug: the states of ownerships that have ended.
    of_ended: BTreeMap<usize, KeyStates>,
    /// For a planted bug: the ends of changelogs.
    ends: BTreeMap<usize, i64>,
}

impl Keyed {
    pub(crate) fn new(partitions: usize) -> Keyed {
        Keyed {
            changelogs: (0..partitions).map(|_| Changelog::default()).collect(),
            truths: (0..partitions).map(|_| Truth::default()).collect(),
            disks: BTreeMap::new(),
            operator: None,
            sessions: 0,
        }
    }
}

/// Draws whether the events of a transactional seed have states.
pub(crate) fn draw(plan: &mut Plan, seed: u64) {
    let mut rng = Rng::new(seed ^ 0x6b65_7965_6473_7461);
    let Some(limits) = &mut plan.config.transactions else { return };
    if !rng.percent(KEYED) {
        return;
    }
    limits.keyed_state = true;
    limits.key_records = true;
    // Every event has a lane key, and every key has a lane of its own.
    plan.rejects_unkeyed = true;
    plan.keys_per_hash = 1;
    plan.keyed = Some(KeyedPlan {
        hosts: rng.range(1, 3) as usize,
        cache_bytes: rng.pick(&[0, 0, 600, 1 << 20]),
        deletions_kept: rng.range(2, 16) * SECOND / 2,
        forget_after: draw_forgetting(seed),
    });
    if !plan.classes().is_empty() {
        let chance = rng.range(30, 70);
        plan.enable(CLASSES.into_iter().filter(|_| rng.percent(chance)).collect());
    }
}

/// The draw does not change what the seed is otherwise.
fn draw_forgetting(seed: u64) -> Option<Micros> {
    let mut rng = Rng::new(seed ^ 0x666f_7267_6f74_7465);
    rng.percent(FORGETTING).then(|| rng.range(SECOND / 5, 4 * SECOND))
}

impl World {
    pub(crate) fn is_keyed(&self) -> bool {
        self.plan.keyed.is_some()
    }

    /// A planted bug: the core does not know that events have states.
    pub(crate) fn planted_config(&self) -> Config {
        let mut config = self.plan.config.clone();
        self.planted_gate(&mut config);
        self.planted_step(&mut config);
        if self.planted == Some(Planted::StatesNumberedApart)
            && let Some(limits) = &mut config.transactions
        {
            limits.keyed_state = false;
        }
        config
    }

    fn session(&mut self, p: usize, index: usize) -> Option<&mut Session> {
        self.processes[p].shell.keyed.sessions.get_mut(&index)
    }
}
