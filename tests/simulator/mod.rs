//! A seeded simulator of a consumer group: brokers, coordinator, processes, guests, faults, and an oracle.
//!
//! The simulator replaces the production environment of the core, including the clock, and checks
//! every action of the core against the invariants. The seed determines everything: the same seed
//! results in the same trace.
//!
//! `plan` draws the configuration of a seed → `world` runs the events → `group`, `ownership`, `reading`, `calls`,
//! `results`, `outputs` and `commits` simulate the environment → `actions` carries out the actions of the cores →
//! `faults` injects faults → `attribution` records charged attempts, and `oracle` checks the end state. In some seeds,
//! delivery is transactional: `transactions` replaces `outputs` and `commits`. In some of these, `keyed` gives states to
//! the events. In some seeds, `in_step` lets partitions wait for slower ones. In some seeds, `gates` gives order values and
//! ids to the records, and the handler has a gate, perhaps together with states: then G1 to G10 replace I2, I3 and I4.
//!
//! The ids of the invariants. `tests/fixture/check` applies I1, I2, I3 and `unattributed` to the topics of a real
//! cluster.
//!
//! | id | meaning |
//! |---|---|
//! | I1 | No loss: every event has an outcome, unless retention or `out_of_range` removed it. |
//! | I2 | No gap: the first outputs of a key are stored in the order of its events. |
//! | I3 | Forward: within an ownership, the outputs of a key are stored in the order of its events, and none twice. |
//! | I4 | Lane order: a call contains the first queued events of a lane. |
//! | I5 | A lane has at most one call at a time, and none while it waits for acknowledgements. |
//! | I6 | Quiet: nothing is dispatched during a drain, after a stop or while the output backlog is full, and nothing is
//! sent for an ended ownership. |
//! | I8 | Commit safety: a commit covers and claims only events with outcomes, and is within the log. |
//! | I9 | Monotone: the committed offset never moves back, except by commits that arrive late. |
//! | I10 | A process reads, repositions and commits only partitions that it owns. |
//! | I11 | Drained: after the last fault everything is committed, and every process finishes its drain. |
//! | I13 | No repeats: an event has one outcome, unless a fault of the seed allows a repeat. |
//! | I-answer | Every assign and revoke is answered in time, with its partitions. |
//! | I-attempts | The number of an attempt is the charged attempts plus one, at most `max_attempts`. |
//! | I-attribution | An event of a call that failed as a whole runs alone next, on a fresh instance. A retry runs alone. |
//! | I-backoff | No attempt begins before its delay has passed. |
//! | I-counters | The counters of gates are what happened to the events of the process. |
//! | I-end | Under `--until-end`, nothing past the end is dispatched. A process drains when the rest is committed. |
//! | I-excluded | A transaction contains no partition that is excluded. |
//! | I-filter | An event that is filtered or rejected for its missing key is not dispatched. |
//! | I-idle | The number of simulated events is bounded: the core does not loop. |
//! | I-limits | The limits of queued events, reads, concurrent calls and commit metadata are kept. |
//! | I-outcomes | An event that failed permanently is not retried, and its dead letter has the reason of the failure. |
//! | I-protocol | Every action is valid in the current state: known calls and rows, lanes in order, one commit in flight. |
//! | I-round | During a strict round, nothing beyond its barrier is dispatched. |
//! | I-slots | An arena slot holds the event that the core names with it, and no event of a released partition. |
//! | I-start | No event is dispatched before the start of its partition is committed. |
//! | I-step | No event runs that is further ahead of a slower partition of the process than `read_in_step` allows. |
//! | I-view | A view shows the first unsettled offset of each partition, and what blocks it. |
//! | G1 consecutive | Each value runs after the value before it, but for holes, passed gaps and broken keys. |
//! | G2 newest | No value runs that is below one that was done, but for a tolerance. With `latest_first`, the greatest runs. |
//! | G3 without call | An event settles without a call, or is rejected, only for a reason that another event shows. Such an
//! event is not called. |
//! | G4 outcomes | Only admitted events without an outcome are called. I1, I8 and T2 check that each has one. |
//! | G5 window | Waiting events run in the order of their values, and not before their time. |
//! | G6 gaps | A gap is closed only when one of its limits is reached. I11 checks that it is closed. |
//! | G7 memory | What is remembered of a key is what its events have changed; durable: what claimed events have changed. |
//! | G8 duplicates | No event runs whose id is remembered. |
//! | G9 key identity | The core names only keys that have events. |
//! | G10 first unsettled | The lane of the first unsettled event of a partition runs or can be dispatched, unless the event
//! waits in its gate. If there is capacity, it is dispatched. |
//! | T1 once | Transactional delivery: a read_committed reader sees the effects of every event exactly once, unless its topic
//! was recreated, its record was deleted, or offsets of its partition were reset. |
//! | T2 effects and claims | A transaction claims an event if and only if it contains the effects of the event. |
//! | T2 claims grow | What a committed transaction claims stays claimed. A completed set is never ignored. |
//! | T2 left out | No event that settled before a claimed one is left out, even without effects. |
//! | T3 state | Keyed state: whenever a transaction is committed and whenever an ownership begins, the state of a key is the
//! fold of its done events in their order, none twice, none missing. |
//! | T4 zombie | The coordinator accepts offsets of a partition only from its owner, or while it has none. |
//! | T5 store | Keyed state: a store contains only states of committed transactions, and none that its file replaces. |
//! | T6 settle order | The effects of a lane are visible in the order in which its events settled. |
//! | T7 capacity | While no more effects may be kept, only retries run, and one call at a time with new events. |
//! | T8 binding | Keyed state: each transaction that stores an offset contains the binding of this offset and metadata. |
//! | T8 refused | Keyed state: a partition is refused only if its committed offset is not that of its states. |
//! | T8 start | Keyed state: no ownership begins with states of another offset or other metadata than the committed one. |
//! | T9 progress | At the end, no transaction is open. I11 checks that nothing waits for what could be dispatched. |
//! | unattributed | Every output names an input event with the same key. |
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    reason = "simulated numbers are small, and an index out of range must fail as a bug of the simulator"
)]

mod actions;
mod attribution;
mod calls;
mod commits;
mod faults;
mod gates;
mod group;
mod in_step;
mod keyed;
mod log;
mod oracle;
mod outputs;
mod ownership;
mod plan;
mod planted;
mod process;
mod reading;
mod recreating;
mod results;
mod rng;
mod trace;
mod transactions;
mod views;
mod world;

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(crate) use planted::{ALL as ALL_PLANTED, Planted};
pub(crate) use trace::{Coverage, Seen};

use trace::{Line, Violation};
use world::World;

/// The result of one seed.
#[derive(Debug)]
pub(crate) struct SeedResult {
    pub(crate) violated_rule: Option<&'static str>,
    /// Seed, invariant, description, and the command that replays it; empty if no invariant is violated.
    pub(crate) report: String,
    pub(crate) coverage: Coverage,
    pub(crate) trace_hash: u64,
}

/// Runs one seed to its end.
pub(crate) fn run(seed: u64, planted: Option<Planted>) -> SeedResult {
    let mut world = World::new(seed, planted);
    play(&mut world);
    let report =
        world.violation.as_ref().map_or_else(String::new, |violation| report(seed, &world, violation));
    SeedResult {
        violated_rule: world.violation.as_ref().map(|violation| violation.rule),
        report,
        trace_hash: world.trace.hash(),
        coverage: world.seen,
    }
}

/// The hash of the trace of one seed, with or without reads of the views.
pub(crate) fn trace_hash(seed: u64, reads_views: bool) -> u64 {
    let mut world = World::new(seed, None);
    world.reads_views = reads_views;
    play(&mut world);
    world.trace.hash()
}

/// The whole trace of one seed.
pub(crate) fn trace(seed: u64, planted: Option<Planted>) -> String {
    let mut world = World::new(seed, planted);
    play(&mut world);
    format!("classes {:?}\n{:#?}\n{}", world.classes, world.plan, world.trace.render(usize::MAX, |_| true))
}

/// A panic of the core is reported as a violation, with its seed.
fn play(world: &mut World) {
    let ended = catch_unwind(AssertUnwindSafe(|| world.run()));
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        world.report_violation(
            "an assertion",
            text.unwrap_or_else(|| "a panic without a message".into()),
            None,
            -1,
        );
    }
}

fn report(seed: u64, world: &World, violation: &Violation) -> String {
    let partition = violation.partition.map(|index| index as i32);
    let same_key = |line: &Line| {
        let log = violation.partition.map(|index| &world.logs[index]);
        let key = |offset| log.and_then(|log| log.record(offset)).map(|record| (record.key, record.lane));
        line.offset < 0
            || violation.offset < 0
            || key(line.offset).is_none_or(|at| Some(at) == key(violation.offset))
    };
    let about = |line: &Line| {
        line.partition < 0 || partition.is_none_or(|index| line.partition == index && same_key(line))
    };
    let mut text = String::new();
    let Violation { rule, text: what, offset, .. } = violation;
    write!(
        text,
        "seed {seed}: {rule}: {what}\npartition {partition:?}, offset {offset}, classes {:?}\n{}\
         replay: KEYLANE_SIM_SEED={seed} cargo test -p keylane-tests --test simulation replay -- --nocapture\n",
        world.classes,
        world.trace.render(40, about),
    )
    .expect("writing to a String can't fail");
    text
}
