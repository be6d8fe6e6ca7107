//! A seeded simulator of a consumer group: brokers, coordinator, processes, guests, faults, and an oracle.
//!
//! The environment of the core in production is simulated here with a simulated clock, and every action of the core is
//! checked against the invariants. The seed determines everything: the same seed gives the same trace.
//!
//! `plan` draws the configuration of a seed → `world` runs the events → `group`, `ownership`, `reading`, `calls`,
//! `outcomes`, `outputs` and `commits` simulate the environment → `actions` carries out the actions of the cores →
//! `faults` injects faults → `attribution` records charged attempts, and `oracle` checks the end state.
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
mod group;
mod log;
mod oracle;
mod outcomes;
mod outputs;
mod ownership;
mod plan;
mod planted;
mod process;
mod reading;
mod replacing;
mod rng;
mod trace;
mod world;

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(crate) use planted::{ALL as ALL_PLANTED, Planted};
pub(crate) use trace::{Coverage, Seen};

use trace::{Line, Violation};
use world::World;

/// The result of one seed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) broken: Option<&'static str>,
    /// Seed, invariant, description, and the command that replays it; empty if no invariant is violated.
    pub(crate) report: String,
    pub(crate) coverage: Coverage,
    pub(crate) trace_hash: u64,
}

/// Runs one seed to its end.
pub(crate) fn run(seed: u64, planted: Option<Planted>) -> Outcome {
    let mut world = World::new(seed, planted);
    play(&mut world);
    let report = world.violation.as_ref().map_or_else(String::new, |broken| report(seed, &world, broken));
    Outcome {
        broken: world.violation.as_ref().map(|broken| broken.rule),
        report,
        trace_hash: world.trace.hash(),
        coverage: world.seen,
    }
}

/// The whole trace of one seed.
pub(crate) fn trace(seed: u64) -> String {
    let mut world = World::new(seed, None);
    play(&mut world);
    format!("classes {:?}\n{:#?}\n{}", world.classes, world.plan, world.trace.render(usize::MAX, |_| true))
}

/// A panic of the core is reported as a violation, with its seed.
fn play(world: &mut World) {
    let ended = catch_unwind(AssertUnwindSafe(|| world.run()));
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        world.broken("an assertion", text.unwrap_or_else(|| "a panic without a message".into()), None, -1);
    }
}

fn report(seed: u64, world: &World, broken: &Violation) -> String {
    let partition = broken.partition.map(|index| index as i32);
    let same_key = |line: &Line| {
        let log = broken.partition.map(|index| &world.logs[index]);
        let key = |offset| log.and_then(|log| log.record(offset)).map(|record| (record.key, record.lane));
        line.offset < 0
            || broken.offset < 0
            || key(line.offset).is_none_or(|at| Some(at) == key(broken.offset))
    };
    let about = |line: &Line| {
        line.partition < 0 || partition.is_none_or(|index| line.partition == index && same_key(line))
    };
    let mut text = String::new();
    let Violation { rule, text: what, offset, .. } = broken;
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
