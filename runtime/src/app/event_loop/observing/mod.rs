//! What the loop observes only for reports: nothing depends on it. Everything here is bounded, and costs nothing per
//! event, except for failed ones.

mod ages;
mod call_times;
mod lane_ranking;
mod last_errors;
mod pace;

use std::collections::BTreeMap;
use std::time::Duration;

use keylane_core::{
    Blockage, CallId, Core, FailedEvent, Histogram, KeptEffect, KeptEffects, LaneScan, LaneView, Load,
    Notice, Now, OwnershipState, Partition, PartitionStop, PartitionView, View,
};

use crate::admit::{Arena, LaneRule, lane_key_text, lane_name};
use crate::guest::Call;

use super::log::HandlerLog;
use super::publishing::{self, Publishing, REASON_NAMES};
use ages::Ages;
pub(in crate::app) use ages::OldestEvent;
use call_times::CallTimes;
pub(in crate::app) use call_times::{CALL_RESULTS, CallResults};
use lane_ranking::LaneRanking;
pub(in crate::app) use lane_ranking::{LaneOrder, LanesRequest, RankedLane};
use last_errors::LastErrors;
use pace::Pace;
pub(in crate::app) use pace::{LimitedBy, PaceView};

/// The deepest lane is determined only up to this number of lanes.
const FEW_LANES: usize = 1_024;
/// Maximum number of lane slots that are scanned for the deepest lane.
const SLOTS_MAX: u32 = 16_384;

/// What the loop observes for reports.
pub(in crate::app) struct Observing {
    group: String,
    show_keys: bool,
    ages: Ages,
    call_times: CallTimes,
    last_errors: LastErrors,
    pace: Pace,
    /// How long busy turns of the loop took, in microseconds.
    loop_turns: Histogram,
    ranking: Option<LaneRanking>,
    rebalances: Rebalances,
    /// Why partitions have stopped, until they are assigned again.
    stop_reasons: BTreeMap<Partition, String>,
    /// Topics with more partitions than at the start.
    grown_topics: Vec<GrownTopic>,
    /// The number of events that are to be dead-lettered, by reason: counted when the core requests the dead letter.
    dead_letters: BTreeMap<&'static str, u64>,
}

/// How often the group has changed the assignment of this member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::app) struct Rebalances {
    pub(in crate::app) assigned: u64,
    pub(in crate::app) revoked: u64,
    pub(in crate::app) lost: u64,
}

/// A snapshot of what was observed.
#[derive(Clone, Debug, Default)]
pub(in crate::app) struct ObservedView {
    pub(in crate::app) pace: PaceView,
    pub(in crate::app) load: Load,
    pub(in crate::app) deepest_lane: Option<DeepestLane>,
    /// The durations of all calls, of those that failed as a whole, and of those of about the last ten seconds, in
    /// microseconds.
    pub(in crate::app) call_times: Histogram,
    pub(in crate::app) failed_call_times: Histogram,
    pub(in crate::app) recent_call_times: Histogram,
    pub(in crate::app) results: CallResults,
    pub(in crate::app) loop_turns: Histogram,
    pub(in crate::app) rebalances: Rebalances,
    pub(in crate::app) dead_letters: BTreeMap<&'static str, u64>,
    pub(in crate::app) grown_topics: Vec<GrownTopic>,
    /// The partitions of the core's view, in its order.
    pub(in crate::app) partitions: Vec<ObservedPartition>,
}

/// A topic with more partitions than at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::app) struct GrownTopic {
    pub(in crate::app) topic: u16,
    pub(in crate::app) partitions: i32,
    pub(in crate::app) at_start: i32,
}

/// The lane with the most events.
#[derive(Clone, Debug)]
pub(in crate::app) struct DeepestLane {
    /// Its name; `None`: it is not that of a key.
    pub(in crate::app) name: Option<String>,
    pub(in crate::app) events: u32,
}

/// What was observed of one partition.
#[derive(Clone, Debug, Default)]
pub(in crate::app) struct ObservedPartition {
    /// Its first unsettled event, or the last event kept before it.
    pub(in crate::app) oldest: Option<OldestEvent>,
    /// The name of the lane that blocks it.
    pub(in crate::app) lane: Option<String>,
    /// The last error of the event that blocks it.
    pub(in crate::app) error: Option<String>,
    /// The topics whose acknowledgements that event waits for.
    pub(in crate::app) awaited_topics: Vec<String>,
    /// Why it has stopped.
    pub(in crate::app) stop_reason: Option<String>,
}

impl Observing {
    /// `group`: the consumer group, which is part of the names of lanes. `show_keys`: whether lanes are shown with
    /// their keys.
    pub(in crate::app) fn new(group: String, show_keys: bool) -> Observing {
        Observing {
            group,
            show_keys,
            ages: Ages::default(),
            call_times: CallTimes::default(),
            last_errors: LastErrors::default(),
            pace: Pace::default(),
            loop_turns: Histogram::default(),
            ranking: None,
            rebalances: Rebalances::default(),
            stop_reasons: BTreeMap::new(),
            grown_topics: Vec::new(),
            // A series must exist before its first value, or Prometheus misses the first increase.
            dead_letters: REASON_NAMES.iter().map(|reason| (*reason, 0)).collect(),
        }
    }

    /// Takes the number of partitions of a topic. Returns whether it has grown.
    pub(super) fn partitions_counted(&mut self, counted: GrownTopic) -> bool {
        let has_grown = counted.partitions > counted.at_start;
        self.grown_topics.retain(|known| known.topic != counted.topic);
        self.grown_topics.extend(has_grown.then_some(counted));
        has_grown
    }

    /// Records how long a busy turn took.
    pub(super) fn turn_ended(&mut self, took: Duration) {
        self.loop_turns.record(micros(took));
    }

    /// Records that an event was read. Only one event a second is kept for each partition.
    pub(super) fn event_read(&mut self, partition: Partition, event: OldestEvent, core: &Core) {
        self.ages.event_read(partition, event, || core.committable_offset(partition));
    }

    pub(super) fn call_began(&mut self, call: CallId, now: Duration) {
        self.call_times.began(call, now);
    }

    /// Records the duration of a call, and the errors of its events.
    pub(super) fn call_ended(&mut self, call: &Call, core: &Core, log: &HandlerLog, now: Duration) {
        self.call_times.ended(call, now);
        let committable = |partition| core.committable_offset(partition);
        self.last_errors.call_ended(call, || log.topic_number(call.batch.topic()), committable);
    }

    pub(super) fn partition_stopped(
        &mut self,
        log: &HandlerLog,
        partition: Partition,
        offset: i64,
        reason: PartitionStop,
    ) {
        self.stop_reasons.insert(partition, log.partition_stop_failure(partition, offset, reason));
    }

    /// Drops the stop reason when a new ownership starts, and the ages and errors when an ownership ends.
    pub(super) fn noticed(&mut self, notice: Notice) {
        if let Notice::OwnershipStarted { partition, .. } = notice {
            self.stop_reasons.remove(&partition);
        }
        if let Notice::OwnershipEnded { partition, .. } = notice {
            self.ages.forget(partition);
            self.last_errors.forget(partition);
        }
    }

    /// Counts and logs the dead letters among kept effects.
    pub(super) fn effects_kept(
        &mut self,
        (log, now): (&mut HandlerLog, Now),
        effects: &[KeptEffects],
        publishing: &Publishing,
    ) {
        for &KeptEffects { effect, call, row, event, attempt, .. } in effects {
            if let KeptEffect::DeadLetter(reason) = effect {
                self.dead_letter_requested(publishing::name_of(reason));
                let failed = FailedEvent { call, row, event, attempt, reason };
                log.dead_letter(now, &failed, publishing.error_of(call, row, reason));
            }
        }
    }

    pub(super) fn dead_letter_requested(&mut self, reason: &'static str) {
        *self.dead_letters.entry(reason).or_default() += 1;
    }

    pub(super) fn assigned(&mut self) {
        self.pace.restart();
        self.rebalances.assigned += 1;
    }

    pub(super) fn revoked(&mut self) {
        self.pace.restart();
        self.rebalances.revoked += 1;
    }

    pub(super) fn lost(&mut self) {
        self.pace.restart();
        self.rebalances.lost += 1;
    }

    /// Records the pace of the handler, once a second. `lag`: the number of offsets up to the ends of the logs that are
    /// not settled.
    pub(super) fn sample(&mut self, now: Duration, core: &Core, lag: impl FnOnce() -> u64) {
        if self.pace.is_due(now) {
            self.pace.sample(now, core.load(), core.counters(), lag());
            self.call_times.sample();
        }
    }

    /// Returns the name of the lane of a blocked event.
    pub(super) fn lane_of(&self, blockage: &Blockage, rule: &LaneRule, arena: &Arena) -> Option<String> {
        // The record may have been released since the core reported the stall.
        let lane_key = rule.lane_key(&arena.find(blockage.arena_slot?)?)?;
        Some(lane_name(&self.group, &lane_key))
    }

    /// Returns the last error of a blocked event.
    pub(super) fn error_of(&self, blockage: &Blockage) -> Option<&str> {
        self.last_errors.of(blockage.partition, blockage.offset?)
    }

    // -- the worst lanes ----------------------------------------------------------------------------

    /// Begins to rank the lanes. The admin server sends no further request before this one has its response.
    pub(super) fn rank_lanes(&mut self, request: LanesRequest) {
        self.ranking = Some(LaneRanking::new(request));
    }

    /// Continues to rank the lanes, up to a number of lanes. Returns true if lanes are left.
    pub(super) fn continue_ranking(
        &mut self,
        core: &Core,
        rule: &LaneRule,
        arena: &Arena,
        log: &HandlerLog,
    ) -> bool {
        let Observing { group, show_keys, last_errors, ranking, .. } = self;
        let describe = |lane: LaneView| {
            let lane_key = arena.find(lane.arena_slot).and_then(|record| rule.lane_key(&record));
            RankedLane {
                name: lane_key.as_deref().map(|lane_key| lane_name(group, lane_key)),
                key: lane_key.as_deref().filter(|_| *show_keys).map(lane_key_text),
                topic: log.topic(lane.partition).to_owned(),
                lane,
                error: last_errors.of(lane.partition, lane.offset).map(str::to_owned),
            }
        };
        let Some(mut scanning) = ranking.take() else { return false };
        if scanning.continue_scan(core, describe) {
            scanning.respond();
        } else {
            *ranking = Some(scanning);
        }
        true
    }

    // -- snapshots ----------------------------------------------------------------------------------

    /// Returns a snapshot that matches this view of the core. `awaited_topics`: returns the topics whose
    /// acknowledgements a blocked event waits for.
    pub(super) fn view(
        &self,
        core: &Core,
        view: &View,
        (rule, arena): (&LaneRule, &Arena),
        awaited_topics: impl Fn(&Blockage) -> Vec<String>,
    ) -> ObservedView {
        let partition = |view: &PartitionView| {
            let oldest = self.ages.oldest(view.partition, view.committable_offset);
            let error = view.blocked.as_ref().and_then(|blocked| self.error_of(blocked));
            ObservedPartition {
                oldest: oldest.filter(|_| view.open > 0),
                // A key may have to be parsed out of a large value, so only the lanes of interest are named.
                lane: view
                    .blocked
                    .filter(|blocked| view.stalled_since.is_some() || blocked.attempt > 1)
                    .and_then(|blocked| self.lane_of(&blocked, rule, arena)),
                error: error.map(str::to_owned),
                awaited_topics: view.blocked.as_ref().map(&awaited_topics).unwrap_or_default(),
                stop_reason: self
                    .stop_reasons
                    .get(&view.partition)
                    .cloned()
                    .filter(|_| view.state == OwnershipState::Stopped),
            }
        };
        ObservedView {
            pace: self.pace.view(),
            deepest_lane: self.deepest_lane(core, rule, arena),
            load: core.load(),
            call_times: self.call_times.all(),
            failed_call_times: self.call_times.failed(),
            recent_call_times: self.call_times.recent(),
            results: self.call_times.results(),
            loop_turns: self.loop_turns,
            rebalances: self.rebalances,
            dead_letters: self.dead_letters.clone(),
            grown_topics: self.grown_topics.clone(),
            partitions: view.partitions.iter().map(partition).collect(),
        }
    }

    /// Returns the lane with the most events, if there are few lanes: with many, finding it would take too long.
    fn deepest_lane(&self, core: &Core, rule: &LaneRule, arena: &Arena) -> Option<DeepestLane> {
        if core.load().lanes > FEW_LANES {
            return None;
        }
        let (mut scan, mut deepest) = (LaneScan::default(), None::<LaneView>);
        let mut each = |lane: LaneView| {
            if deepest.is_none_or(|deepest| deepest.events < lane.events) {
                deepest = Some(lane);
            }
        };
        core.scan_lanes(&mut scan, 0, &mut each); // those of calls
        if !core.scan_lanes(&mut scan, SLOTS_MAX, &mut each) {
            return None;
        }
        let lane = deepest?;
        let lane_key = arena.find(lane.arena_slot).and_then(|record| rule.lane_key(&record));
        Some(DeepestLane { name: lane_key.map(|key| lane_name(&self.group, &key)), events: lane.events })
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
