//! Transactional delivery: the brokers keep transactions, and the shell of each process has one transactional producer.
//!
//! `kept` holds the effects that a process keeps → `snapshot` selects those of a transaction → `producer` publishes them
//! with the procedure of the real shell, in `requests` → `coordinator` decides on transactions, `fencing` refuses stale
//! offsets → `outputs` is the log of the effects with its read_committed reader → `checks` compares each committed
//! transaction with the events that have settled → `results` reports the result to the core. `read_back` finds out what
//! became of a commit whose result is unknown, `refusals` are those of topics, `faults` resets offsets and replaces processes, `planted` contains known
//! bugs.

mod checks;
mod coordinator;
mod faults;
mod fencing;
mod kept;
mod outputs;
mod planted;
mod producer;
mod read_back;
mod refusals;
mod requests;
mod results;
mod snapshot;

use std::collections::BTreeMap;
use std::time::Duration;

use keylane_core::TransactionLimits;

use super::plan::{Class, Micros, Plan};
use super::rng::Rng;
use super::world::World;

use coordinator::TransactionalId;
use outputs::OutputLog;

pub(crate) use checks::Coverage;
pub(crate) use kept::Shell;
pub(crate) use outputs::TransactionState;
pub(crate) use producer::{Attempt, Step};
pub(crate) use requests::{Entry, Request};

/// Percentage of seeds with transactional delivery.
const TRANSACTIONAL: u64 = 40;

const CLASSES: [Class; 7] = [
    Class::AnswersLost,
    Class::LateRequests,
    Class::SlowProduce,
    Class::CoordinatorAway,
    Class::ProducerFails,
    Class::OffsetsReset,
    Class::Superseded,
];

/// These are drawn apart, so that the other seeds stay as they were.
const REFUSALS: [Class; 2] = [Class::TopicsBlocked, Class::EffectsRefused];

/// The state of transactions at the brokers.
#[derive(Debug)]
pub(crate) struct Brokers {
    /// By transactional id.
    ids: BTreeMap<usize, TransactionalId>,
    /// The transaction coordinator does not respond until this time.
    away_until: Micros,
    /// Effects that were produced, per input partition.
    outputs: Vec<OutputLog>,
    /// Per input partition: what the committed transactions claim.
    claimed: Vec<Coverage>,
}

/// What the group coordinator checks: a member keeps its number until it is expelled or leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    member: u32,
    generation: u32,
}

impl Brokers {
    pub(crate) fn new(partitions: usize) -> Brokers {
        Brokers {
            ids: BTreeMap::new(),
            away_until: 0,
            outputs: (0..partitions).map(|_| OutputLog::default()).collect(),
            claimed: vec![Coverage::nothing(); partitions],
        }
    }
}

/// Draws whether a seed is transactional. The draw does not change what the seed is otherwise.
pub(crate) fn draw(plan: &mut Plan, seed: u64) {
    let mut rng = Rng::new(seed ^ 0x7472_616e_7361_6374);
    if !rng.percent(TRANSACTIONAL) {
        return;
    }
    let (small, full) = (rng.percent(50), rng.percent(50));
    plan.config.transactions = Some(TransactionLimits {
        interval: Duration::from_millis(rng.range(20, 200)),
        timeout: Duration::from_millis(rng.range(2_000, 10_000)),
        transaction_bytes: if small { rng.range(200, 3_000) } else { 8 << 20 },
        kept_bytes: if full { rng.range(400, 6_000) } else { 32 << 20 },
        max_uncommitted: rng.percent(30).then(|| rng.range(1, 40)),
        max_uncommitted_age: rng.percent(15).then(|| Duration::from_millis(rng.range(200, 3_000))),
        keyed_state: false,
        key_records: false,
        event_bytes: 0,
        metadata_total: if rng.percent(25) { rng.range(40, 9_000) as usize } else { 512 << 10 },
    });
    plan.named_producers = rng.percent(50);
    if plan.has(Class::TooLarge) && rng.percent(50) {
        plan.request_metadata_limit = plan.broker_metadata_limit * rng.range(1, 3) as usize;
    }
    if !plan.classes().is_empty() {
        let chance = rng.range(20, 60);
        plan.enable(CLASSES.into_iter().filter(|_| rng.percent(chance)).collect());
        let mut rng = Rng::new(seed ^ 0x7265_6675_7361_6c73);
        plan.enable(REFUSALS.into_iter().filter(|_| rng.percent(20)).collect());
    }
}

impl World {
    pub(crate) fn is_transactional(&self) -> bool {
        self.plan.config.transactions.is_some()
    }

    /// How long a transaction may take before the brokers abort it.
    fn transaction_timeout(&self) -> Micros {
        self.plan.config.transactions.map_or(0, |limits| limits.timeout.as_micros() as Micros)
    }
}
