//! Metrics of handlers: their events, calls and lanes.

use std::fmt;

use crate::status::{
    HandlerState, HandlerStatus, LIMIT_CAUSES, OwnershipState, PartitionStatus, STALL_REASONS,
};

use super::Metrics;
use super::families::{Families, count, labels};
use super::owned;

impl Metrics {
    pub(super) fn write_events(&self, families: &mut Families<'_>) -> fmt::Result {
        type Of = fn(&HandlerStatus) -> u64;
        let handlers = &self.status.handlers;
        let about = ("keylane_events_settled", "Events that settled, by outcome.");
        families.counter(
            about,
            handlers.iter().flat_map(|handler| {
                let totals = handler.totals;
                let gate = handler.gate.unwrap_or_default();
                let by_gate = gate.stale + gate.superseded + gate.late_dropped + gate.duplicates;
                let others = totals.filtered + totals.dead_letters + totals.skipped + by_gate;
                let outcomes = [
                    ("done", totals.settled.saturating_sub(others)),
                    ("dead_lettered", totals.dead_letters),
                    ("skipped", totals.skipped),
                    ("filtered", totals.filtered),
                    ("stale", gate.stale),
                    ("superseded", gate.superseded),
                    ("late", gate.late_dropped),
                    ("duplicate", gate.duplicates),
                ];
                let name = handler.handler.as_str();
                outcomes.map(|(outcome, events)| (vec![("handler", name), ("outcome", outcome)], events))
            }),
        )?;
        let counters: [(&str, &str, Of); 13] = [
            ("keylane_retries", "Attempts after the first one of an event.", |h| h.totals.retries),
            ("keylane_reruns", "Events that ran again without a charge.", |h| h.totals.reruns),
            ("keylane_outputs", "Outputs that the brokers acknowledged.", |h| h.totals.outputs),
            ("keylane_order_breaks", "Outputs stored after a later one of their lane.", |h| {
                h.totals.order_breaks
            }),
            (
                "keylane_outputs_restamped",
                "Outputs with the time of sending instead of that of their event.",
                |h| h.totals.restamped,
            ),
            ("keylane_headers_removed", "Output headers dropped because their names are reserved.", |h| {
                h.totals.removed_headers
            }),
            ("keylane_offsets_skipped", "Offsets skipped as configured by `out_of_range`.", |h| {
                h.totals.offsets_skipped
            }),
            (
                "keylane_inherited_claim_offsets",
                "Offsets that earlier owners had claimed as settled or missing.",
                |h| h.totals.inherited_claims,
            ),
            ("keylane_ownerships", "Ownerships of partitions that began.", |h| h.totals.ownerships),
            (
                "keylane_partitions_lost",
                "Ownerships that were lost: another member may already own the partition.",
                |h| h.totals.partitions_lost,
            ),
            (
                "keylane_partitions_recreated",
                "Partitions whose topic was recreated while it was read.",
                |h| h.totals.partitions_recreated,
            ),
            ("keylane_commit_metadata_ignored", "Commits whose metadata was ignored.", |h| {
                h.totals.metadata_ignored
            }),
            ("keylane_reader_repositions", "How often a reader was repositioned.", |h| h.totals.repositioned),
        ];
        for (name, help, of) in counters {
            families.counter((name, help), handlers.iter().map(|handler| (labels(handler), of(handler))))?;
        }
        Ok(())
    }

    pub(super) fn write_passed_over(&self, families: &mut Families<'_>) -> fmt::Result {
        let about = (
            "keylane_partitions_passed_over",
            "Partitions that others no longer waited for under `read_in_step`, because nothing of them could be handled.",
        );
        let passed = |handler: &HandlerStatus| handler.totals.partitions_passed_over;
        families.counter(about, self.status.handlers.iter().map(|handler| (labels(handler), passed(handler))))
    }

    pub(super) fn write_filters(&self, families: &mut Families<'_>) -> fmt::Result {
        let filtered = self.status.handlers.iter().flat_map(|handler| {
            handler.filter.iter().map(|rule| {
                let name = rule.rule.as_deref().unwrap_or("");
                let keep = if rule.keep { "true" } else { "false" };
                (vec![("handler", handler.handler.as_str()), ("rule", name), ("keep", keep)], rule.events)
            })
        });
        families.counter(
            (
                "keylane_filter_events",
                "Events by the filter rule that matched them; an empty rule: none did.",
            ),
            filtered,
        )
    }

    pub(super) fn write_loops(&self, families: &mut Families<'_>) -> fmt::Result {
        let handlers = &self.status.handlers;
        let about = (
            "keylane_handler_running",
            "1 while the handler runs; 0 before, while it drains, and after it has stopped.",
        );
        families.gauge(
            about,
            handlers.iter().map(|handler| (labels(handler), (handler.state == HandlerState::Running).into())),
        )?;
        let about = ("keylane_calls", "Guest calls that have not terminated.");
        families.gauge(about, handlers.iter().map(|handler| (labels(handler), handler.calls.into())))?;
        let about = ("keylane_calls_limit", "The setting `lanes.max_concurrency`.");
        families
            .gauge(about, handlers.iter().map(|handler| (labels(handler), handler.calls_limit.into())))?;
        let lanes = handlers.iter().flat_map(|handler| {
            let name = handler.handler.as_str();
            let states = [
                ("all", handler.lanes),
                ("ready", handler.ready_lanes),
                ("retrying", handler.retrying_lanes),
            ];
            states.map(|(state, lanes)| (vec![("handler", name), ("state", state)], count(lanes)))
        });
        families.gauge(("keylane_lanes", "Lanes by state; `all` are those with events or a call."), lanes)?;
        let limits = handlers.iter().filter(|handler| handler.limited_by.is_some()).flat_map(|handler| {
            LIMIT_CAUSES.iter().map(|cause| {
                let is_it = handler.limited_by.as_ref().is_some_and(|limit| limit.cause == cause.code);
                (vec![("handler", handler.handler.as_str()), ("cause", cause.code)], is_it.into())
            })
        });
        families.gauge(
            ("keylane_limited_by", "1 for what has limited the handler in the last ten seconds."),
            limits,
        )?;
        let blocked = handlers.iter().filter_map(|handler| {
            let topic = handler.blocking_topic.as_deref()?;
            Some((vec![("handler", handler.handler.as_str()), ("topic", topic)], 1))
        });
        families.gauge(
            ("keylane_backlog_full", "1 for a topic whose queued records block new calls."),
            blocked,
        )?;
        let stalled = handlers.iter().flat_map(|handler| {
            STALL_REASONS.iter().map(|reason| {
                let has_reason = |partition: &&PartitionStatus| {
                    partition.stalled
                        && partition.blocked.as_ref().is_some_and(|blocked| blocked.reason == reason.code)
                };
                let partitions = owned(handler).iter().filter(has_reason).count();
                let labels = vec![("handler", handler.handler.as_str()), ("reason", reason.code)];
                (labels, count(partitions as u64))
            })
        });
        families.gauge(("keylane_stalls", "Partitions without progress now, by reason."), stalled)?;
        let stopped = |partition: &&PartitionStatus| partition.state == OwnershipState::Stopped;
        let about =
            ("keylane_partitions_stopped", "Partitions that can't be read until they are assigned again.");
        families.gauge(
            about,
            handlers.iter().map(|handler| {
                (labels(handler), count(owned(handler).iter().filter(stopped).count() as u64))
            }),
        )
    }
}
