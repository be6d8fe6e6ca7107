//! Metrics of what the event loops observe: results of calls, dead letters, commits, rebalances and times.

use std::fmt;

use keylane_core::Histogram;

use crate::status::HandlerStatus;

use super::Metrics;
use super::families::{Families, Label, labels};
use crate::app::event_loop::{CALL_RESULTS, HandlerView};

const MILLIS: f64 = 1e3;
const MICROS: f64 = 1e6;

impl Metrics {
    pub(super) fn write_observed(&self, families: &mut Families<'_>) -> fmt::Result {
        let results = self.with_view().flat_map(|(handler, view)| {
            CALL_RESULTS.into_iter().zip(view.observed.results.0).map(|(result, count)| {
                (vec![("handler", handler.handler.as_str()), ("result", result)], count)
            })
        });
        families.counter(
            (
                "keylane_call_results",
                "Results of guest calls, counted once for each event. `failed`: the call of the event failed as a whole.",
            ),
            results,
        )?;
        let dead_letters = self.with_view().flat_map(|(handler, view)| {
            view.observed.dead_letters.iter().map(|(reason, count)| {
                (vec![("handler", handler.handler.as_str()), ("reason", *reason)], *count)
            })
        });
        families
            .counter(("keylane_dead_letters", "Events that are to be dead-lettered, by reason, counted before their dead letters are stored."), dead_letters)?;
        let commits = self.with_view().flat_map(|(handler, view)| {
            let results = [("stored", view.commits_stored), ("failed", view.commits_failed)];
            results.map(|(result, count)| {
                (vec![("handler", handler.handler.as_str()), ("result", result)], count)
            })
        });
        families.counter(
            (
                "keylane_commits",
                "Commits by result, one per partition. A commit without a response counts once as `failed`.",
            ),
            commits,
        )?;
        let rebalances = self.with_view().flat_map(|(handler, view)| {
            let counts = view.observed.rebalances;
            let kinds = [("assigned", counts.assigned), ("revoked", counts.revoked), ("lost", counts.lost)];
            kinds.map(|(kind, count)| (vec![("handler", handler.handler.as_str()), ("kind", kind)], count))
        });
        families.counter(
            ("keylane_rebalances", "Rebalance events by kind: assigned, revoked, lost."),
            rebalances,
        )?;
        let arena = self.with_view().map(|(handler, view)| (labels(handler), view.arena_bytes as u64));
        families.size(("keylane_arena_bytes", "Memory for records that are not settled."), arena)?;
        let backlog =
            self.with_view().map(|(handler, view)| (labels(handler), view.publishing.backlog_bytes as u64));
        families.size(("keylane_output_backlog_bytes", "Queued outputs and dead letters."), backlog)
    }

    pub(super) fn write_times(&self, families: &mut Families<'_>) -> fmt::Result {
        type Of = fn(&HandlerView) -> Histogram;
        let histograms: [(&str, &str, f64, Of); 3] = [
            (
                "keylane_lane_wait_seconds",
                "From the read of an event to its first dispatch.",
                MILLIS,
                |view| view.core.times.lane_wait,
            ),
            (
                "keylane_event_age_seconds",
                "From the time of a record to the settling of its event.",
                MILLIS,
                |view| view.core.times.event_age,
            ),
            (
                "keylane_loop_turn_seconds",
                "Turns of the event loop that handled something.",
                MICROS,
                |view| view.observed.loop_turns,
            ),
        ];
        for (name, help, per_second, of) in histograms {
            let samples = self.with_view().map(|(handler, view)| (labels(handler), of(view)));
            families.histogram((name, help), per_second, samples)?;
        }
        let calls = self.with_view().flat_map(|(handler, view)| {
            let (all, failed) = (&view.observed.call_times, &view.observed.failed_call_times);
            [("returned", all.since(failed)), ("failed", *failed)].map(|(result, times)| {
                (vec![("handler", handler.handler.as_str()), ("result", result)], times)
            })
        });
        let about = (
            "keylane_guest_call_seconds",
            "From the dispatch of a guest call to its result. `failed`: the call failed as a whole.",
        );
        families.histogram(about, MICROS, calls)
    }

    /// Writes metrics by the names and labels of the OpenTelemetry conventions for messaging.
    pub(super) fn write_messaging(&self, families: &mut Families<'_>) -> fmt::Result {
        fn labels<'s>(handler: &'s HandlerStatus, operation: &'static str) -> Vec<Label<'s>> {
            vec![
                ("handler", handler.handler.as_str()),
                ("messaging_system", "kafka"),
                ("messaging_consumer_group_name", handler.group.as_str()),
                ("messaging_operation_name", operation),
            ]
        }
        families.counter(
            (
                "messaging_client_consumed_messages",
                "Records that were read from the consumer, with those that the filter dropped.",
            ),
            self.with_view().map(|(handler, view)| (labels(handler, "poll"), view.records_read)),
        )?;
        families.histogram(
            (
                "messaging_process_duration_seconds",
                "The same values as `keylane_guest_call_seconds`, for OpenTelemetry dashboards: one for each call, which may have several events.",
            ),
            MICROS,
            self.with_view().map(|(handler, view)| (labels(handler, "process"), view.observed.call_times)),
        )
    }

    /// Returns the handlers that have a view.
    pub(super) fn with_view(&self) -> impl Iterator<Item = (&HandlerStatus, &HandlerView)> {
        let handlers = self.status.handlers.iter().zip(&self.views);
        handlers.filter_map(|(handler, view)| Some((handler, view.as_ref()?)))
    }
}
