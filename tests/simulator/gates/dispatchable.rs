//! The first unsettled event of a partition: what settles after it stays uncommitted, or is claimed in a set of limited
//! size. So nothing may hold its lane back without a reason.

use keylane_core::{BlockedOn, Core, GateRule, LaneProgress, LaneView, Late, PartitionView};

use super::super::trace::Seen;
use super::super::world::World;
use super::GatesPlan;
use super::model::{EventModel, EventState, KeyModel, Place};

impl World {
    /// The lane of the first unsettled event runs or can be dispatched, unless the event waits in its gate.
    pub(crate) fn check_first_unsettled(
        &mut self,
        p: usize,
        core: &Core,
        view: &PartitionView,
        lanes: &[LaneView],
    ) {
        let Some(plan) = self.plan.gates else { return };
        let (index, offset) = (self.index(view.partition), view.committable_offset);
        let blocked_on = view.blocked.map(|blocked| blocked.blocked_on);
        // An excluded partition is held back entirely. A failure to read is shown first.
        let may_be_excluded = matches!(blocked_on, Some(BlockedOn::Excluded | BlockedOn::ReadFailed(_)));
        if view.open == 0 || may_be_excluded || !self.reads_current_topic(p, index) {
            return;
        }
        let process = &self.processes[p];
        let part = process.gates.parts.get(&index).filter(|part| part.ownership == Some(view.ownership.0));
        let Some(model) = part.map(|part| &part.model) else { return };
        let is_open = |event: &&EventModel| matches!(event.state, EventState::Queued | EventState::Called);
        let Some(event) = model.events.get(&offset).filter(is_open) else { return };
        let (lane, held_first) = (event.lane, model.held_first);
        let is_its_lane = |other: &&LaneView| {
            let kept = process.kept_at(other.arena_slot);
            kept.is_some_and(|kept| (kept.partition, kept.lane) == (index, lane))
        };
        let progress = lanes.iter().find(is_its_lane).map(|lane| lane.progress);
        let is_loading = model.loading.values().any(|of| *of == lane);
        let runs = process.lanes_in_flight.contains_key(&(index, lane));
        // A retry round ends with its commit.
        let in_round = process.rounds.get(&view.ownership.0).is_some_and(|&last| offset > last);
        let (valid, seen) = match progress {
            Some(LaneProgress::Running | LaneProgress::Unacked) => (true, Seen::FirstsInCalls),
            Some(LaneProgress::Delayed(_)) => (true, Seen::FirstsDelayed),
            Some(LaneProgress::Barred) => (in_round, Seen::FirstsBarred),
            Some(LaneProgress::Ready) if is_loading => (true, Seen::FirstsLoading),
            Some(LaneProgress::Ready) => (!self.must_dispatch(p, core), Seen::FirstsReady),
            // A call of an earlier ownership.
            None if runs => (true, Seen::FirstsInCalls),
            None => {
                let key = model.keys.get(&event.order.key);
                (waits_in_gate(event, key.unwrap_or(&KeyModel::default()), &plan), Seen::FirstsInGates)
            }
        };
        self.saw(seen);
        let is_held = !valid && !self.may_be_rejected(p, index, offset, &plan);
        self.gate_part(p, index).model.held_first = is_held.then_some(offset);
        // A step may decide about the event, or end a round, after it has dispatched. The next one carries it out.
        if is_held && held_first == Some(offset) {
            let event = self.describe(p, index, offset);
            let text =
                format!("process {p} leaves the lane of the first unsettled event {progress:?}: {event}");
            self.report_violation("G10 first unsettled", text, Some(index), offset);
        }
    }

    /// Whether the gate may have rejected an event. Its dead letter may begin later, and waits in no lane.
    fn may_be_rejected(&mut self, p: usize, index: usize, offset: i64, plan: &GatesPlan) -> bool {
        let Some((event, key)) = self.event_and_key(p, index, offset) else { return false };
        let is_late = event.order.value.is_some() && event.order.value <= key.greatest_mark;
        event.lacks_value(plan)
            || event.is_below_first(plan)
            || key.was_broken
            || key.is_closed
            || (is_late && self.late(plan) == Some(Late::DeadLetter))
            || self.is_too_far_ahead(p, index, &event, &key, plan)
    }

    /// Whether a lane that is ready must be in a call after the step.
    fn must_dispatch(&self, p: usize, core: &Core) -> bool {
        let process = &self.processes[p];
        let is_quiet = process.draining || process.stopping || process.backlog;
        let has_capacity = process.busy() < self.plan.workers as usize
            && process.in_flight() < self.plan.config.max_concurrency as usize;
        let may_be_full = self.plan.config.transactions.is_some_and(|limits| {
            let counts = limits.max_uncommitted.is_some() || limits.max_uncommitted_age.is_some();
            counts || core.kept_effect_bytes() >= limits.kept_bytes
        });
        has_capacity && !is_quiet && !may_be_full
    }
}

/// Whether an event waits for others, or for stream time.
fn waits_in_gate(event: &EventModel, key: &KeyModel, plan: &GatesPlan) -> bool {
    let rule = plan.gate.map(|gate| gate.rule);
    let Some((rule, value)) = rule.zip(event.order.value).filter(|_| !event.ends_key(plan)) else {
        return false;
    };
    match (rule, key.place(rule, value)) {
        (GateRule::Consecutive(_), Place::Early | Place::PerhapsFirst) => true,
        (GateRule::Window(rule), Place::Due) => {
            !(rule.consecutive && key.mark.and_then(|mark| mark.checked_add(1)) == Some(value))
        }
        _ => false,
    }
}
