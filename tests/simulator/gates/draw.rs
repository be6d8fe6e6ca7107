//! The configuration of a gate. Combinations that the configuration refuses are not drawn.

use std::time::Duration;

use keylane_core::{
    Consecutive, Duplicates, First, GateConfig, GateRule, Late, MaxAhead, Newest, NoValue, OnGap, RetryScope,
    Window,
};

use super::super::plan::{Class, Plan};
use super::super::rng::Rng;
use super::GatesPlan;

/// Percentage of seeds with gates.
const GATED: u64 = 30;

/// Nanoseconds per millisecond.
pub(super) const MS_NS: i64 = 1_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    Consecutive,
    Newest,
    Window,
    DuplicatesOnly,
}

/// Draws whether a seed has a gate. With keyed state, it is one with durable memory. The draw does not change what the seed
/// is otherwise.
pub(crate) fn draw(plan: &mut Plan, seed: u64) {
    let mut rng = Rng::new(seed ^ 0x6761_7465_7320_6f6e);
    if !rng.percent(GATED) {
        return;
    }
    let (is_transactional, is_keyed) = (plan.config.transactions.is_some(), plan.keyed.is_some());
    let rule = if is_keyed {
        rng.pick(&[Rule::Consecutive, Rule::Newest])
    } else if is_transactional {
        rng.pick(&[Rule::Consecutive, Rule::Consecutive, Rule::Newest, Rule::Window, Rule::DuplicatesOnly])
    } else {
        rng.pick(&[Rule::Newest, Rule::Newest, Rule::Window, Rule::Window, Rule::DuplicatesOnly])
    };
    let times = matches!(rule, Rule::Newest | Rule::Window) && rng.percent(40);
    let longest = if plan.has(Class::SmallLimits) { 300 } else { 3_000 };
    let rule_config = match rule {
        Rule::Consecutive => Some(GateRule::Consecutive(draw_consecutive(&mut rng, longest))),
        Rule::Newest => Some(GateRule::Newest(draw_newest(&mut rng, times))),
        Rule::Window => Some(GateRule::Window(draw_window(&mut rng, longest))),
        Rule::DuplicatesOnly => None,
    };
    let passes = matches!(rule_config, Some(GateRule::Consecutive(rule)) if rule.on_gap == OnGap::Pass);
    let must_limit = passes || rule == Rule::Window;
    let gate = rule_config.map(|rule| GateConfig {
        rule,
        no_value: rng.pick(&[NoValue::Reject, NoValue::Pass]),
        max_ahead: (must_limit || times || rng.percent(40)).then(|| draw_max_ahead(&mut rng, times)),
        ends_at_tombstone: rng.percent(40),
    });
    let has_duplicates = rule == Rule::DuplicatesOnly || rng.percent(35);
    let duplicates = has_duplicates.then(|| Duplicates {
        keep: rng.range(1, 16) as u32,
        window: Duration::from_millis(rng.range(1_000, 60_000)),
    });
    let durable_marks = is_transactional
        && match rule {
            Rule::Consecutive => true,
            Rule::Newest | Rule::Window => is_keyed || rng.percent(50),
            Rule::DuplicatesOnly => false,
        };
    let durable_ids = is_transactional && has_duplicates && rng.percent(60);
    let resends = matches!(rule_config, Some(GateRule::Consecutive(rule)) if rule.gap_timeout.is_none());
    plan.gates = Some(GatesPlan {
        gate,
        duplicates,
        durable_marks,
        durable_ids,
        keys_per_lane: rng.pick(&[1, 1, 1, 2, 3]),
        times,
        displacement: rng.pick(&[1, 3, 10]),
        displaced: rng.pick(&[0, 10, 30]),
        wrong_clocks: rng.pick(&[0, 5, 30]),
        known_at_once: rng.pick(&[0, 30, 90, 100]),
        hashed_numbers: rng.percent(50),
        resends,
    });
    plan.config.gate = gate;
    plan.config.duplicates = duplicates;
    let factor = rng.pick(&[1, 2, 4]);
    // With small limits, a few events at a time are read and wait.
    plan.records *= if plan.has(Class::SmallLimits) { 1 } else { factor };
    fit(plan, rule, durable_marks || durable_ids);
}

/// Changes the rest of the plan so that it fits.
fn fit(plan: &mut Plan, rule: Rule, is_durable: bool) {
    // Every event has a lane key, and every key has a lane of its own.
    plan.rejects_unkeyed = true;
    plan.keys_per_hash = 1;
    // The simulator does not know how long an event was held by its gate.
    plan.config.retry.max_record_age = None;
    let is_latest_first = matches!(
        plan.config.gate.map(|gate| gate.rule),
        Some(GateRule::Newest(Newest { latest_first: true, .. }))
    );
    if matches!(rule, Rule::Consecutive | Rule::Window) || is_latest_first {
        plan.config.retry.scope = RetryScope::Key;
    }
    if rule == Rule::Consecutive {
        plan.until_end = false; // it does not end while a gap is open
    }
    if is_durable {
        plan.disable(&[Class::OffsetsReset, Class::ForeignMetadata]);
    }
}

fn draw_consecutive(rng: &mut Rng, longest: u64) -> Consecutive {
    let first = match rng.below(3) {
        0 => First::At(0),
        1 => First::At(1),
        _ => First::Any { wait: Duration::from_millis(rng.range(100, longest)) },
    };
    Consecutive {
        first,
        gap_timeout: (!rng.percent(15)).then(|| Duration::from_millis(rng.range(200, longest))),
        max_early: if rng.percent(40) { rng.range(2, 8) as u32 } else { 10_000 },
        on_gap: rng.pick(&[OnGap::DeadLetter, OnGap::DeadLetter, OnGap::Pass, OnGap::Pass, OnGap::Stop]),
        late: draw_late(rng),
    }
}

fn draw_newest(rng: &mut Rng, times: bool) -> Newest {
    let tolerance = if times && rng.percent(40) { rng.range(1, 500) * MS_NS as u64 } else { 0 };
    let equal_runs = tolerance == 0 && rng.percent(40);
    Newest { equal_runs, tolerance, latest_first: !equal_runs && tolerance == 0 && rng.percent(50) }
}

fn draw_window(rng: &mut Rng, longest: u64) -> Window {
    let small = rng.percent(30);
    Window {
        window: Duration::from_millis(rng.range(50, longest.min(1_000))),
        consecutive: rng.percent(30),
        late: draw_late(rng),
        max_waiting: if small { rng.range(2, 20) as u32 } else { 10_000 },
        max_waiting_bytes: if rng.percent(15) { rng.range(1_000, 10_000) } else { 16 << 20 },
        releases_on_overflow: rng.percent(60),
    }
}

fn draw_late(rng: &mut Rng) -> Late {
    rng.pick(&[Late::Deliver, Late::DeadLetter, Late::Drop])
}

fn draw_max_ahead(rng: &mut Rng, times: bool) -> MaxAhead {
    if times {
        MaxAhead::OfClock(Duration::from_millis(rng.range(1_000, 60_000)))
    } else {
        MaxAhead::OfMark(rng.range(20, 10_000))
    }
}
