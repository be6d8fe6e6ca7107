//! Each gate against a naive model: one event at a time, and everything that may run has run before the next one.

#![expect(clippy::cast_possible_wrap, reason = "the numbers of the model are small")]

mod shell;

use std::collections::BTreeMap;
use std::time::Duration;

use keylane_core::{
    Config, Consecutive, Duplicates, First, GateRule, Input, LaneEnd, Late, MaxAhead, Newest, OnGap, Reason,
    Verdict, Window,
};
use shell::gated::{Gated, event, gated};
use shell::{P0, Shell};

const SEEDS: u64 = 3_000;
const EVENTS: i64 = 60;

/// An event that the model and the core get.
#[derive(Clone, Copy, Debug)]
struct Case {
    event: Gated,
    rejected: bool,
}

/// What became of an event: done or rejected by the handler, dead-lettered by the gate, or settled without a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Called(i64),
    Dead(i64),
    Passed(i64),
}

#[derive(Debug, Default)]
struct NaiveKey {
    mark: Option<i64>,
    holes: Vec<i64>,
    broken: bool,
    /// By value and offset.
    parked: BTreeMap<(i64, i64), Case>,
    ids: Vec<u128>,
}

struct Naive {
    rule: GateRule,
    keep: usize,
    max_ahead: Option<i64>,
    keys: BTreeMap<u64, NaiveKey>,
    outcomes: Vec<Outcome>,
}

impl Naive {
    fn admit(&mut self, case: Case) {
        let key = self.keys.entry(case.event.lane).or_default();
        let Gated { offset, value, tombstone, filtered, id, .. } = case.event;
        let is_duplicate = id != 0 && key.ids.contains(&id);
        let is_consecutive = matches!(self.rule, GateRule::Consecutive(_));
        if is_duplicate && (!is_consecutive || tombstone) {
            return self.outcomes.push(Outcome::Passed(offset));
        }
        if tombstone {
            self.outcomes.push(Outcome::Called(offset));
            let parked = std::mem::take(&mut key.parked);
            (key.mark, key.broken) = (None, false);
            key.holes.clear();
            if id != 0 && !case.rejected {
                remember(&mut key.ids, id, self.keep);
            }
            self.outcomes.extend(parked.keys().map(|&(_, offset)| Outcome::Passed(offset)));
            return;
        }
        let Some(value) = value else {
            let is_passed = filtered || is_duplicate;
            let outcome = if is_passed { Outcome::Passed(offset) } else { Outcome::Dead(offset) };
            return self.outcomes.push(outcome);
        };
        let base = match self.rule {
            GateRule::Consecutive(Consecutive { first: First::At(first), .. }) => {
                key.mark.or(Some(first - 1))
            }
            GateRule::Consecutive(_) | GateRule::Newest(_) | GateRule::Window(_) => {
                key.mark.or(key.parked.keys().next().map(|&(value, _)| value))
            }
        };
        if base.zip(self.max_ahead).is_some_and(|(base, ahead)| value > base + ahead) {
            let outcome = if filtered { Outcome::Passed(offset) } else { Outcome::Dead(offset) };
            return self.outcomes.push(outcome);
        }
        match self.rule {
            GateRule::Consecutive(rule) => self.consecutive(rule, case, value),
            GateRule::Newest(rule) => {
                let runs = key.mark.is_none_or(|mark| value > mark || (rule.equal_runs && value == mark));
                if !runs {
                    return self.outcomes.push(Outcome::Passed(offset));
                }
                self.outcomes.push(Outcome::Called(offset));
                if !case.rejected {
                    key.mark = key.mark.max(Some(value));
                    remember(&mut key.ids, id, self.keep);
                }
            }
            GateRule::Window(_) => {
                if key.mark.is_some_and(|mark| value <= mark) {
                    self.outcomes.push(Outcome::Called(offset)); // late, and delivered
                    if !case.rejected {
                        remember(&mut key.ids, id, self.keep);
                    }
                } else {
                    key.parked.insert((value, offset), case);
                }
            }
        }
    }

    fn consecutive(&mut self, rule: Consecutive, case: Case, value: i64) {
        let First::At(first) = rule.first else { unreachable!("the model has numbers only") };
        let key = self.keys.entry(case.event.lane).or_default();
        let Gated { offset, filtered, id, .. } = case.event;
        let next = key.mark.map_or(first, |mark| mark + 1);
        let passed_or = |outcome| if filtered { Outcome::Passed(offset) } else { outcome };
        if value > next {
            if key.broken {
                self.outcomes.push(passed_or(Outcome::Dead(offset)));
            } else {
                key.parked.insert((value, offset), case);
            }
            return;
        }
        if value < next {
            let is_hole = key.holes.contains(&value);
            let is_duplicate = id != 0 && key.ids.contains(&id);
            let outcome = match () {
                () if key.mark.is_none() => passed_or(Outcome::Dead(offset)),
                () if filtered || !is_hole || is_duplicate => Outcome::Passed(offset),
                () => Outcome::Called(offset),
            };
            self.outcomes.push(outcome);
            if outcome == Outcome::Called(offset) && !case.rejected {
                key.holes.retain(|&hole| hole != value);
                remember(&mut key.ids, id, self.keep);
            }
            return;
        }
        key.parked.insert((value, offset), case);
        while let Some(entry) = key.parked.first_entry() {
            let next = key.mark.map_or(first, |mark| mark + 1);
            let &(value, offset) = entry.key();
            if value > next {
                break;
            }
            let case = entry.remove();
            let is_duplicate = case.event.id != 0 && key.ids.contains(&case.event.id);
            let fills = value < next && key.holes.contains(&value) && !case.event.filtered && !is_duplicate;
            if fills {
                self.outcomes.push(Outcome::Called(offset));
                if !case.rejected {
                    key.holes.retain(|&hole| hole != value);
                    remember(&mut key.ids, case.event.id, self.keep);
                }
                continue;
            }
            if value < next || case.event.filtered || is_duplicate {
                self.outcomes.push(Outcome::Passed(offset));
                key.mark = key.mark.max(Some(value));
                key.broken &= value < next;
                continue;
            }
            self.outcomes.push(Outcome::Called(offset));
            (key.mark, key.broken) = (Some(value), false);
            if case.rejected {
                key.holes.push(value);
            } else {
                remember(&mut key.ids, case.event.id, self.keep);
            }
        }
    }

    /// The time of everything that waits has come.
    fn time_is_up(&mut self) {
        for key in self.keys.values_mut() {
            let parked = std::mem::take(&mut key.parked);
            if parked.is_empty() {
                continue;
            }
            match self.rule {
                GateRule::Consecutive(_) => {
                    key.broken = true;
                    for ((_, offset), case) in parked {
                        let dead = Outcome::Dead(offset);
                        self.outcomes.push(if case.event.filtered { Outcome::Passed(offset) } else { dead });
                    }
                }
                GateRule::Window(_) => {
                    let lowest = parked.keys().next().map(|&(value, _)| value);
                    let limit = lowest.zip(self.max_ahead).filter(|_| key.mark.is_none());
                    for ((value, offset), case) in parked {
                        if limit.is_some_and(|(lowest, ahead)| value > lowest + ahead) {
                            self.outcomes.push(Outcome::Dead(offset));
                            continue;
                        }
                        if case.event.id != 0 && key.ids.contains(&case.event.id) {
                            self.outcomes.push(Outcome::Passed(offset));
                            continue;
                        }
                        self.outcomes.push(Outcome::Called(offset));
                        if !case.rejected {
                            key.mark = key.mark.max(Some(value));
                            remember(&mut key.ids, case.event.id, self.keep);
                        }
                    }
                }
                GateRule::Newest(_) => {}
            }
        }
    }
}

fn remember(ids: &mut Vec<u128>, id: u128, keep: usize) {
    if id != 0 && keep > 0 {
        ids.push(id);
        let from = ids.len().saturating_sub(keep);
        ids.drain(..from);
    }
}

/// The core, with a handler that rejects some events.
struct Real {
    shell: Shell,
    rejected: Vec<i64>,
    outcomes: Vec<Outcome>,
    settled: u64,
}

impl Real {
    fn run(&mut self) {
        loop {
            self.shell.answer_look_ups();
            for dead in std::mem::take(&mut self.shell.dead_letters) {
                if dead.reason != Reason::Rejected {
                    self.outcomes.push(Outcome::Dead(dead.event.offset));
                }
                self.shell.give(Input::EffectsAcked { call: dead.call, row: dead.row });
            }
            if self.shell.calls.is_empty() {
                if self.shell.dead_letters.is_empty() && self.shell.key_lookups.is_empty() {
                    return;
                }
                continue;
            }
            let call = self.shell.calls.remove(0);
            let mut rows = call.rows.iter();
            let mut lanes = Vec::new();
            for &length in &call.lanes {
                let of_lane: Vec<i64> =
                    rows.by_ref().take(length as usize).map(|&(_, offset)| offset).collect();
                let done = of_lane.iter().take_while(|offset| !self.rejected.contains(offset)).count();
                let verdict = (done < of_lane.len()).then_some(Verdict::Reject);
                let called = (done + usize::from(verdict.is_some())).min(of_lane.len());
                self.outcomes.extend(of_lane.iter().take(called).map(|&offset| Outcome::Called(offset)));
                lanes.push(LaneEnd { done: u32::try_from(done).expect("it is small"), verdict });
            }
            let took = Duration::from_micros(1);
            self.shell.give(Input::CallEnded {
                call: call.id,
                lanes: &lanes,
                with_outputs: &[],
                output_bytes: &[],
                took,
            });
        }
    }
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

fn draw_rule(rng: &mut Rng) -> GateRule {
    match rng.below(3) {
        0 => GateRule::Consecutive(Consecutive {
            first: First::At(1),
            gap_timeout: Some(Duration::from_secs(1)),
            max_early: 1_000,
            on_gap: OnGap::DeadLetter,
            late: Late::Deliver,
        }),
        1 => {
            let equal_runs = rng.percent(30);
            GateRule::Newest(Newest { equal_runs, tolerance: 0, latest_first: false })
        }
        _ => GateRule::Window(Window {
            window: Duration::from_secs(1),
            consecutive: false,
            late: Late::Deliver,
            max_waiting: 1_000,
            max_waiting_bytes: 1 << 20,
            releases_on_overflow: true,
        }),
    }
}

fn config(rule: GateRule, max_ahead: Option<i64>, keep: usize) -> Config {
    let mut config = gated(rule);
    if let Some(gate) = &mut config.gate {
        gate.ends_at_tombstone = true;
        gate.max_ahead = max_ahead.map(|ahead| MaxAhead::OfMark(ahead.unsigned_abs()));
    }
    let keep = u32::try_from(keep).expect("it is small");
    config.duplicates = (keep > 0).then_some(Duplicates { keep, window: Duration::from_hours(1) });
    config
}

#[test]
fn gates_do_what_a_naive_model_does() {
    for seed in 0..SEEDS {
        let mut rng = Rng(seed);
        let rule = draw_rule(&mut rng);
        let max_ahead = rng.percent(30).then(|| 3 + rng.below(20) as i64);
        let keep = if rng.percent(40) { usize::try_from(1 + rng.below(4)).expect("it is small") } else { 0 };
        let mut shell = Shell::reading(config(rule, max_ahead, keep), &[P0], 4);
        shell.keep_ids = keep;
        let mut real = Real { shell, rejected: Vec::new(), outcomes: Vec::new(), settled: 0 };
        let mut naive = Naive { rule, keep, max_ahead, keys: BTreeMap::new(), outcomes: Vec::new() };
        let is_consecutive = matches!(rule, GateRule::Consecutive(_));
        for offset in 0..EVENTS {
            let lane = 1 + rng.below(3);
            let value = offset / 4 + 1 + rng.below(5) as i64 - 2;
            let id = if keep > 0 && rng.percent(60) { 1 + u128::from(rng.below(8)) } else { 0 };
            let tombstone = rng.percent(3);
            let filtered = is_consecutive && rng.percent(10) && !tombstone;
            let mut event = Gated { id, tombstone, filtered, ..event(offset, lane, value) };
            if rng.percent(3) || tombstone {
                event.value = None;
            }
            let case = Case { event, rejected: rng.percent(8) };
            if case.rejected {
                real.rejected.push(offset);
            }
            naive.admit(case);
            real.shell.fetch_gated(P0, &[case.event]);
            real.run();
            if rng.percent(5) {
                naive.time_is_up();
                real.shell.wait(Duration::from_secs(2));
                let sent_at = real.shell.uptime;
                real.shell.give(Input::LogEndSeen { partition: P0, end: offset + 1, sent_at });
                real.run();
            }
            let calls = |outcomes: &[Outcome]| -> Vec<Outcome> {
                let mut called: Vec<_> =
                    outcomes.iter().filter(|one| !matches!(one, Outcome::Passed(_))).copied().collect();
                called.sort_unstable();
                called
            };
            assert_eq!(
                calls(&real.outcomes),
                calls(&naive.outcomes),
                "seed {seed}, offset {offset}, {rule:?}, {case:?}\nreal {:?}\nnaive {:?}",
                real.outcomes,
                naive.outcomes
            );
            let parked: usize = naive.keys.values().map(|key| key.parked.len()).sum();
            let view = real.shell.core.view();
            assert_eq!(
                view.partitions[0].parked, parked as u64,
                "seed {seed}, offset {offset}, {rule:?}\nreal {:?}\nnaive {:?}\n{:?}",
                real.outcomes, naive.outcomes, naive.keys
            );
            real.settled = view.counters.settled;
            assert_eq!(
                real.settled,
                offset.unsigned_abs() + 1 - parked as u64,
                "seed {seed}, offset {offset}"
            );
        }
    }
}
