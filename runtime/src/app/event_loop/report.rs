//! The report of a handler as a log line: once a minute, on SIGUSR1, and at the end of the loop.

use std::time::Duration;

use keylane_core::{Core, Counters, Partition};

use crate::admit::FilterCount;
use crate::logging::REPORT_TARGET;
use crate::source::Source;

use super::super::limit_causes;
use super::reading::Reading;
use super::view::HandlerView;

/// Interval of the reports.
const INTERVAL: Duration = Duration::from_mins(1);

/// The uptime of the last report, and the number of settled events at that time.
#[derive(Debug)]
pub(in crate::app) struct LastReport {
    at: Duration,
    settled: u64,
}

impl LastReport {
    pub(in crate::app) fn new(now: Duration) -> LastReport {
        LastReport { at: now, settled: 0 }
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        now >= self.at + INTERVAL
    }

    pub(super) fn log(&mut self, handler: &str, now: Duration, view: &HandlerView) {
        let settled = view.core.counters.settled;
        let rate = per_second(settled - self.settled, now.saturating_sub(self.at));
        write(handler, view, rate, "handler report");
        *self = LastReport { at: now, settled };
    }
}

/// Logs the final report, with a line for each rule of the filter. `active`: time from the first read to the end.
pub(super) fn log_totals(handler: &str, view: &HandlerView, active: Duration) {
    write(handler, view, per_second(view.core.counters.settled, active), "handler totals");
    for FilterCount { rule, keep, records } in &view.filter {
        let rule = rule.as_deref().unwrap_or("no rule");
        tracing::info!(target: REPORT_TARGET, handler, rule, keep, events = records, "filter rule total");
    }
}

fn write(handler: &str, view: &HandlerView, rate: u64, what: &str) {
    let HandlerView { core, publishing, .. } = view;
    let Counters { settled, filtered, dead_letters, skipped, retries, .. } = core.counters;
    let reruns = core.counters.reruns_after_faults + core.counters.reruns_after_unpublishable;
    let unclaimed = core.partitions.iter().map(|partition| partition.unclaimed).sum();
    let stalled = core.partitions.iter().filter(|partition| partition.stalled_since.is_some()).count();
    // Rare conditions have a field only if they occurred.
    let unless_none = |count: u64| (count > 0).then_some(count);
    let Counters { stale, superseded, late_dropped, late_delivered, duplicates, .. } = core.counters;
    tracing::info!(
        target: REPORT_TARGET,
        handler,
        settled,
        filtered,
        dead_letters,
        skipped,
        retries,
        reruns,
        outputs = publishing.outputs_acknowledged,
        rate,
        lag = view.lag,
        limited_by = limit_causes::limit_cause(view).map(|cause| cause.code),
        partitions = core.partitions.len(),
        stalled = unless_none(stalled as u64),
        stale = unless_none(stale),
        superseded = unless_none(superseded),
        late_dropped = unless_none(late_dropped),
        late_delivered = unless_none(late_delivered),
        duplicates = unless_none(duplicates),
        offsets_skipped = unless_none(core.counters.offsets_skipped),
        partitions_recreated = unless_none(core.counters.partitions_recreated),
        metadata_ignored = unless_none(core.counters.metadata_ignored),
        partitions_lost = unless_none(core.counters.losses),
        commits_failed = unless_none(view.commits_failed),
        unclaimed = unless_none(unclaimed),
        order_breaks = unless_none(publishing.order_breaks),
        restamped = unless_none(publishing.restamped),
        removed_headers = unless_none(publishing.removed_headers),
        producers_replaced = unless_none(publishing.producer.replaced),
        blocking_topic = publishing.blocking_topic,
        "{what}"
    );
}

/// Returns the ends of the logs, as far as they are known, in the order of the partitions. Ended ownerships are included,
/// because the last report needs them.
pub(super) fn log_ends(source: &Source, reading: &Reading) -> Vec<(Partition, i64)> {
    let end = |partition: &Partition| Some((*partition, source.last_known_end(*partition)?));
    let mut ends: Vec<(Partition, i64)> = reading.owned().iter().filter_map(end).collect();
    ends.sort_unstable();
    ends
}

/// Returns the number of offsets up to these ends of logs that are not settled.
pub(super) fn lag(core: &Core, log_ends: &[(Partition, i64)]) -> u64 {
    log_ends.iter().filter_map(|(partition, end)| core.unsettled_below(*partition, *end)).sum()
}

/// Returns the rate per second, rounded down.
fn per_second(events: u64, time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    events.saturating_mul(1_000) / millis
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_due_once_a_minute() {
        let at = Duration::from_secs;
        let mut report = LastReport::new(at(10));
        assert!(!report.is_due(at(69)) && report.is_due(at(70)));
        let mut view = HandlerView::default();
        view.core.counters.settled = 660;
        report.log("t", at(71), &view);
        assert_eq!((report.is_due(at(130)), report.is_due(at(131)), report.settled), (false, true, 660));
        assert_eq!((per_second(600, at(60)), per_second(1, Duration::ZERO)), (10, 1_000));
    }
}
