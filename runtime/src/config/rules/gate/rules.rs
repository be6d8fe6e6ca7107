//! The settings of each rule of a gate.

use std::time::Duration;

use keylane_core::{Consecutive, First, Late, Newest, OnGap as CoreOnGap, Window};

use super::super::super::checked::LaneKey;
use super::super::super::checked::Ordering;
use super::super::super::duration::HumanDuration;
use super::super::super::gate_values::{FirstValue, GapTimeout};
use super::super::super::problem::Problems;
use super::super::super::start_policy::StartPolicy;
use super::super::super::written_gate::{EqualValues, GateMemory, GateRule, OnGap, OnLate, OnOverflow};
use super::super::super::written_handler;
use super::super::ranges;
use super::InGate;

const FIRST_WAIT: HumanDuration = HumanDuration::from_secs(10);
const GAP_TIMEOUT: Duration = Duration::from_mins(5);
const MAX_EARLY: u32 = 10_000;
const MAX_WAITING: u32 = 10_000;
const MAX_WAITING_BYTES: u64 = 16 << 20;

impl InGate<'_> {
    /// Refuses settings without effect: their author expects one.
    pub(super) fn settings_of_other_rules(&self, problems: &mut Problems<'_, '_>) {
        use GateRule::{Consecutive, Newest, Window};
        let gate = self.gate;
        let settings: [(&str, bool, &[GateRule]); 15] = [
            ("late", gate.late.is_some(), &[Consecutive, Window]),
            ("partitioned_by_lane_key", gate.partitioned_by_lane_key, &[Consecutive]),
            ("supersedes_across_topics", gate.supersedes_across_topics, &[Newest]),
            ("first", gate.first.is_some(), &[Consecutive]),
            ("first_wait", gate.first_wait.is_some(), &[Consecutive]),
            ("gap_timeout", gate.gap_timeout.is_some(), &[Consecutive]),
            ("max_early", gate.max_early.is_some(), &[Consecutive]),
            ("on_gap", gate.on_gap.is_some(), &[Consecutive]),
            ("equal", gate.equal.is_some(), &[Newest]),
            ("skew_tolerance", gate.skew_tolerance.is_some(), &[Newest]),
            ("latest_first", gate.latest_first.is_some(), &[Newest]),
            ("window", gate.window.is_some(), &[Window]),
            ("consecutive", gate.consecutive.is_some(), &[Window]),
            ("max_waiting", gate.max_waiting.is_some() || gate.max_waiting_bytes.is_some(), &[Window]),
            ("on_overflow", gate.on_overflow.is_some(), &[Window]),
        ];
        for (setting, is_set, rules) in settings {
            if is_set && !rules.contains(&gate.rule) {
                let rules: Vec<String> = rules.iter().map(|rule| format!("\"{}\"", name_of(*rule))).collect();
                problems
                    .add(
                        &self.at(setting),
                        format!("`{setting}` has no effect with `rule = \"{}\"`", name_of(gate.rule)),
                    )
                    .remedy(format!("remove it: it is a setting of {}", rules.join(" and ")));
            }
        }
    }

    pub(super) fn consecutive(&self, is_time: bool, problems: &mut Problems<'_, '_>) -> Consecutive {
        let gate = self.gate;
        if is_time {
            problems
                .add(&self.at("by"), "times do not ascend by one, so that no missing one can be noticed")
                .remedy("use `rule = \"newest\"` or \"window\", or a version");
        }
        if gate.memory == Some(GateMemory::Session) {
            problems
                .add(
                    &self.at("memory"),
                    "`rule = \"consecutive\"` needs durable memory: after a rebalance between two events of a key, the later \
                     one would be taken for the first",
                )
                .remedy("remove `memory`");
        }
        self.needs_one_partition_per_key(problems);
        let gap_timeout = match gate.gap_timeout {
            None => Some(GAP_TIMEOUT),
            Some(GapTimeout::Never) => None,
            Some(GapTimeout::After(timeout)) => {
                Some(ranges::time(problems, &self.at("gap_timeout"), timeout, ranges::GAP_TIMEOUT))
            }
        };
        Consecutive {
            first: self.first(problems),
            gap_timeout,
            max_early: gate.max_early.map_or(MAX_EARLY, |max| {
                ranges::whole(problems, &self.at("max_early"), max, ranges::MAX_EARLY)
            }),
            on_gap: match gate.on_gap.unwrap_or_default() {
                OnGap::Dlq => CoreOnGap::DeadLetter,
                OnGap::Pass => CoreOnGap::Pass,
                OnGap::Stop => CoreOnGap::Stop,
            },
            late: self.late(),
        }
    }

    fn first(&self, problems: &mut Problems<'_, '_>) -> First {
        let (gate, path) = (self.gate, self.at("first"));
        if gate.first_wait.is_some() && gate.first != Some(FirstValue::Any) {
            problems
                .add(&self.at("first_wait"), "`first_wait` has no effect without `first = \"any\"`")
                .remedy("remove it");
        }
        match gate.first {
            None => {
                problems
                    .add(&path, "`rule = \"consecutive\"` needs `first`, the value with which a key begins")
                    .remedy("set `first = 1`, or `first = \"any\"` if the log does not have the first events of all keys");
                First::At(1)
            }
            Some(FirstValue::Any) => {
                let wait = gate.first_wait.unwrap_or(FIRST_WAIT);
                First::Any { wait: ranges::time(problems, &self.at("first_wait"), wait, ranges::FIRST_WAIT) }
            }
            Some(FirstValue::At(value)) => {
                let value = ranges::whole(problems, &path, value, ranges::FIRST);
                let (start, out_of_range) = (self.handler.start, self.handler.out_of_range);
                if start != StartPolicy::Earliest || out_of_range != written_handler::OutOfRange::Fail {
                    problems
                        .add(
                            &path,
                            format!("`first = {value}` needs the whole log: otherwise all keys whose first event is skipped wait for it"),
                        )
                        .remedy("set `start = \"earliest\"` and `out_of_range = \"fail\"`, or `first = \"any\"`");
                }
                First::At(value)
            }
        }
    }

    /// The values of a key must be in one partition.
    fn needs_one_partition_per_key(&self, problems: &mut Problems<'_, '_>) {
        let lanes = &self.handler.lanes;
        let is_derived = lanes.ordering == Ordering::Key && lanes.lane_key != LaneKey::Key;
        if is_derived && !self.gate.partitioned_by_lane_key {
            problems
                .add(
                    &["handlers", self.name, "lanes", "lane_key"],
                    "`rule = \"consecutive\"` waits for values in other partitions, unless the topic is partitioned by `lane_key`",
                )
                .remedy("if the producer does that, set `gate.partitioned_by_lane_key = true`");
        }
    }

    pub(super) fn newest(&self, is_time: bool, problems: &mut Problems<'_, '_>) -> Newest {
        let gate = self.gate;
        let equal_runs = gate.equal == Some(EqualValues::Deliver);
        let tolerance = gate.skew_tolerance.map_or(Duration::ZERO, |tolerance| {
            ranges::time(problems, &self.at("skew_tolerance"), tolerance, ranges::SKEW_TOLERANCE)
        });
        let latest_first = gate.latest_first.unwrap_or_default();
        if !tolerance.is_zero() && !is_time {
            problems
                .add(&self.at("skew_tolerance"), "`skew_tolerance` needs an order value that is a time")
                .remedy("remove it, or set `format` to that of the times");
        }
        if latest_first && equal_runs {
            problems
                .add(&self.at("latest_first"), "`latest_first` can't be combined with `equal = \"deliver\"`: of events with the same value only one runs")
                .remedy("remove one of the two");
        }
        if latest_first && !tolerance.is_zero() {
            problems
                .add(&self.at("latest_first"), "`latest_first` can't be combined with `skew_tolerance`: events below the newest one do not run")
                .remedy("remove one of the two");
        }
        if self.handler.topics.len() > 1 && !gate.supersedes_across_topics {
            problems
                .add(
                    &self.at("rule"),
                    "with several topics, `rule = \"newest\"` leaves out an event of one topic after a newer one of another topic",
                )
                .remedy("use one handler for each topic, or set `supersedes_across_topics = true` if all of them have states of the same things");
        }
        Newest {
            equal_runs,
            tolerance: u64::try_from(tolerance.as_nanos()).unwrap_or(u64::MAX),
            latest_first,
        }
    }

    pub(super) fn window(&self, is_time: bool, problems: &mut Problems<'_, '_>) -> Window {
        let gate = self.gate;
        if gate.window.is_none() {
            problems
                .add(&self.at("window"), "`rule = \"window\"` needs `window`, the time that events wait")
                .remedy("set it a little above the longest delay of an event: every event waits that long");
        }
        let consecutive = gate.consecutive.unwrap_or_default();
        if consecutive && is_time {
            problems
                .add(&self.at("consecutive"), "times have holes: no time follows another one directly")
                .remedy("remove `consecutive`");
        }
        Window {
            window: gate.window.map_or(Duration::ZERO, |window| {
                ranges::time(problems, &self.at("window"), window, ranges::WINDOW)
            }),
            consecutive,
            late: self.late(),
            max_waiting: gate.max_waiting.map_or(MAX_WAITING, |max| {
                ranges::whole(problems, &self.at("max_waiting"), max, ranges::MAX_WAITING)
            }),
            max_waiting_bytes: gate.max_waiting_bytes.map_or(MAX_WAITING_BYTES, |max| {
                ranges::size(problems, &self.at("max_waiting_bytes"), max, ranges::MAX_WAITING_BYTES)
            }),
            releases_on_overflow: gate.on_overflow.unwrap_or_default() == OnOverflow::Release,
        }
    }

    fn late(&self) -> Late {
        match self.gate.late.unwrap_or_default() {
            OnLate::Deliver => Late::Deliver,
            OnLate::Dlq => Late::DeadLetter,
            OnLate::Drop => Late::Drop,
        }
    }
}

fn name_of(rule: GateRule) -> &'static str {
    match rule {
        GateRule::Consecutive => "consecutive",
        GateRule::Newest => "newest",
        GateRule::Window => "window",
    }
}
