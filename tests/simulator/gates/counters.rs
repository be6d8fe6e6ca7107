//! The counters of a core are what happened to the events of its process.

use keylane_core::{Core, Counters, GateRule, HOLES_MAX, OnGap};

use super::super::planted::Planted;
use super::super::trace::Seen;
use super::super::world::World;

/// What the simulator has counted in one process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    stale: u64,
    superseded: u64,
    late_dropped: u64,
    duplicates: u64,
    /// Duplicates and filtered events that were stale, too.
    either: u64,
    gaps_passed: u64,
    gaps_dead_lettered: u64,
    late_delivered: u64,
    /// Events with the value of one that ran before them. They are late unless they waited in the gate at that time.
    perhaps_late: u64,
    /// An event was released in the step in which it was read. If an earlier owner had claimed it, it is not counted.
    pub(super) at_admission: bool,
    /// What has settled in some step is not known.
    pub(super) is_unknown: bool,
}

impl Counted {
    /// An event has settled without a call. `is_either`: which of several outcomes it has depends on when that was decided.
    pub(super) fn outcome(&mut self, seen: Seen, is_either: bool) {
        let counter = match () {
            () if is_either => &mut self.either,
            () if matches!(seen, Seen::GateStale) => &mut self.stale,
            () if matches!(seen, Seen::GateSuperseded) => &mut self.superseded,
            () if matches!(seen, Seen::GateLate) => &mut self.late_dropped,
            () if matches!(seen, Seen::GateDuplicates) => &mut self.duplicates,
            () => return, // the filter counts other events, too
        };
        *counter += 1;
    }

    pub(super) fn gap(&mut self, on_gap: OnGap) {
        match on_gap {
            OnGap::Pass => self.gaps_passed += 1,
            OnGap::DeadLetter => self.gaps_dead_lettered += 1,
            OnGap::Stop => {}
        }
    }

    pub(super) fn late(&mut self, is_sure: bool) {
        *if is_sure { &mut self.late_delivered } else { &mut self.perhaps_late } += 1;
    }
}

impl World {
    /// Compares the counters of gates at the end of a step.
    /// `unknown`: some events of this step may have settled or not.
    pub(super) fn check_counters(&mut self, p: usize, core: &Core, unknown: bool) {
        let Some(plan) = self.plan.gates else { return };
        let is_current = (0..self.logs.len()).all(|index| self.reads_current_topic(p, index));
        let counted = &mut self.processes[p].gates.counted;
        let may_be_claimed = counted.at_admission && core.counters().inherited_claims > 0;
        counted.is_unknown |= unknown || may_be_claimed || !is_current;
        let counted = *counted;
        let counters = self.counters_of(core);
        let Counters { stale, superseded, late_dropped, duplicates, late_delivered, .. } = counters;
        let Counters { gaps_passed, gaps_dead_lettered, holes_forgotten, windows_released_early, .. } =
            counters;
        let has_window = matches!(plan.gate.map(|gate| gate.rule), Some(GateRule::Window(_)));
        let has_limits = has_window && (self.has_clock_of_full_partitions() || plan.has_small_window());
        let parts = self.processes[p].gates.parts.values();
        let mut keys = parts.flat_map(|part| part.model.keys.values());
        let either = counted.either;
        let passed_over = counted.stale + counted.superseded + counted.duplicates;
        let is_between = |count: u64, least: u64, more: u64| least <= count && count <= least + more;
        let valid = [
            ("stale", is_between(stale, counted.stale, either)),
            ("superseded", is_between(superseded, counted.superseded, either)),
            ("duplicates", is_between(duplicates, counted.duplicates, either)),
            ("events passed over", is_between(stale + superseded + duplicates, passed_over, either)),
            ("late_dropped", late_dropped == counted.late_dropped),
            ("late_delivered", is_between(late_delivered, counted.late_delivered, counted.perhaps_late)),
            ("gaps_passed", gaps_passed == counted.gaps_passed),
            ("gaps_dead_lettered", gaps_dead_lettered == counted.gaps_dead_lettered),
            ("holes_forgotten", holes_forgotten == 0 || keys.any(|key| key.ranges() >= HOLES_MAX)),
            ("windows_released_early", windows_released_early == 0 || has_limits),
        ];
        if !counted.is_unknown {
            self.saw(Seen::GateCountersCompared);
        }
        let wrong = valid.into_iter().find(|&(_, valid)| !valid && !counted.is_unknown);
        if let Some((name, _)) = wrong {
            let text = format!("process {p} counts {name} wrongly: {counters:?}, not {counted:?}");
            self.report_violation("I-counters", text, None, -1);
        }
    }

    /// With a planted bug, events that were passed over are not counted.
    fn counters_of(&self, core: &Core) -> Counters {
        let counters = core.counters();
        let is_lost = self.planted == Some(Planted::StaleUncounted);
        Counters { stale: if is_lost { 0 } else { counters.stale }, ..counters }
    }
}
