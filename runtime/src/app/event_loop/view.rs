//! Snapshots, reports and stalls of a handler. A stall is logged; under `--until-end`, a partition that can't be read
//! also ends the run.

use keylane_core::{Blockage, PartitionView, View};

use crate::admit::FilterCount;
use crate::status::KeyedStateStatus;

use super::log::StallDetails;
use super::observing::ObservedView;
use super::publishing::PublishingView;
use super::report;
use super::transacting::TransactionView;
use super::{EventLoop, Gates, GatesView, Keyed};

/// A snapshot of one handler.
#[derive(Clone, Debug, Default)]
pub(in crate::app) struct HandlerView {
    pub(in crate::app) core: View,
    pub(in crate::app) publishing: PublishingView,
    /// Number of records that were read, with those that the filter dropped.
    pub(in crate::app) records_read: u64,
    /// The number of events by the filter rule that matched them; empty without a filter.
    pub(in crate::app) filter: Vec<FilterCount>,
    /// Number of rejected commits, counted per partition, and of commits without an answer.
    pub(in crate::app) commits_failed: u64,
    /// Number of stored commits, counted per partition.
    pub(in crate::app) commits_stored: u64,
    /// Number of offsets up to the ends of the logs that are not settled, over all partitions.
    pub(in crate::app) lag: u64,
    /// One past the last offset of each partition's log, in the order of the core's partitions, as far as known.
    pub(in crate::app) log_ends: Vec<Option<i64>>,
    /// `None`: at-least-once delivery.
    pub(in crate::app) transactions: Option<TransactionView>,
    /// `None`: no keyed state.
    pub(in crate::app) keyed: Option<KeyedStateStatus>,
    /// What is remembered of keys; `None`: neither a gate nor a detection of duplicates.
    pub(in crate::app) gates: Option<GatesView>,
    pub(in crate::app) observed: ObservedView,
    /// Memory that the arena has allocated, in bytes, in use or not.
    pub(in crate::app) arena_bytes: usize,
}

impl EventLoop {
    /// Samples the pace, continues the ranking of the worst lanes, and logs the report when it is due. Returns true if
    /// the ranking has work left.
    pub(super) fn observe(&mut self) -> bool {
        let EventLoop { core, source, reading, transacting, observing, log, now, .. } = self;
        transacting.sample(now.uptime);
        observing.sample(now.uptime, core, || report::lag(core, &report::log_ends(source, reading)));
        let busy = observing.continue_ranking(core, reading.lane_rule(), reading.arena(), log);
        if self.report.is_due(self.now.uptime) {
            self.log_report();
        }
        busy
    }

    pub(super) fn report_stall(&mut self, mut blockage: Blockage) {
        let EventLoop { keyed, log, reading, publishing, closing, observing, .. } = self;
        if let Some(keyed) = keyed {
            keyed.correct(&mut blockage);
        }
        let blockage = &blockage;
        let lane = observing.lane_of(blockage, reading.lane_rule(), reading.arena());
        let awaited = publishing.awaited_topics(blockage).join(", ");
        let details = StallDetails {
            lane: lane.as_deref(),
            error: observing.error_of(blockage),
            blocking_topic: publishing.blocking_topic(),
            awaited_topics: Some(awaited.as_str()).filter(|awaited| !awaited.is_empty()),
        };
        log.stall(blockage, &details);
        closing.partition_stalled(log, blockage);
    }

    pub(super) fn log_report(&mut self) {
        let view = self.view();
        self.report.log(self.log.handler(), self.now.uptime, &view);
    }

    /// Returns a snapshot of the handler. It is made only on request, because it scans the partitions.
    pub(super) fn view(&self) -> HandlerView {
        let mut core = self.core.view();
        if let Some(keyed) = &self.keyed {
            let blockages = core.partitions.iter_mut().filter_map(|partition| partition.blocked.as_mut());
            blockages.for_each(|blockage| keyed.correct(blockage));
        }
        let (rule, arena) = (self.reading.lane_rule(), self.reading.arena());
        let awaited_topics = |blockage: &Blockage| self.publishing.awaited_topics(blockage);
        let observed = self.observing.view(&self.core, &core, (rule, arena), awaited_topics);
        let known_ends = report::log_ends(&self.source, &self.reading);
        let log_end = |view: &PartitionView| {
            let index = known_ends.binary_search_by_key(&view.partition, |(partition, _)| *partition).ok()?;
            known_ends.get(index).map(|(_, end)| *end)
        };
        let log_ends = core.partitions.iter().map(log_end).collect();
        HandlerView {
            core,
            publishing: self.publishing.view(self.transacting.outputs()),
            records_read: self.reading.records(),
            filter: self.reading.filter_counts(),
            commits_stored: self.committing.stored(),
            commits_failed: self.committing.failed(),
            lag: report::lag(&self.core, &known_ends),
            log_ends,
            transactions: self.transacting.view(
                self.core.kept_effect_bytes(),
                self.keyed.as_ref(),
                |topic| self.publishing.topic_name(topic).to_owned(),
            ),
            keyed: self.keyed.as_ref().map(Keyed::view),
            gates: self.reading.gates().map(Gates::view),
            observed,
            arena_bytes: self.reading.arena().bytes(),
        }
    }
}
