//! The metrics, in one place. Each function is one metric; labels never carry a key.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use keylane_admin::MetricsFormat;

use crate::status::{
    HandlerState, HandlerStatus, OwnershipState, PartitionStatus, ProcessStatus, STALL_REASONS,
};

/// Encodes the metrics of a process.
pub(super) fn encode(status: ProcessStatus, of_partitions: bool, format: MetricsFormat) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics { status, of_partitions }));
    let mut encoded = String::new();
    match format {
        MetricsFormat::Prometheus => prometheus_text::encode(&mut encoded, &registry),
        MetricsFormat::OpenMetrics => text::encode(&mut encoded, &registry),
    }
    .expect("writing to a string can't fail");
    encoded
}

#[derive(Debug)]
struct Metrics {
    status: ProcessStatus,
    of_partitions: bool,
}

/// The value of a sample.
enum Value {
    Counter(u64),
    Gauge(i64),
}

/// A label of a sample.
type Label<'a> = (&'static str, &'a str);

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = Families { encoder };
        self.of_process(&mut family)?;
        self.of_events(&mut family)?;
        self.of_filters(&mut family)?;
        self.of_loops(&mut family)?;
        if self.of_partitions { self.of_partitions(&mut family) } else { Ok(()) }
    }
}

/// Writes families of samples.
struct Families<'e> {
    encoder: DescriptorEncoder<'e>,
}

impl Families<'_> {
    /// Writes one metric. Its type is that of its values.
    fn write<'a>(
        &mut self,
        (name, help, kind): (&str, &str, MetricType),
        samples: impl Iterator<Item = (Vec<Label<'a>>, Value)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in samples {
            let labels = labels.as_slice();
            let mut sample = metric.encode_family(&labels)?;
            match value {
                Value::Counter(value) => sample.encode_counter::<NoLabelSet, u64, u64>(&value, None)?,
                Value::Gauge(value) => sample.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    fn counter<'a>(
        &mut self,
        (name, help): (&str, &str),
        samples: impl Iterator<Item = (Vec<Label<'a>>, u64)>,
    ) -> fmt::Result {
        let samples = samples.map(|(labels, value)| (labels, Value::Counter(value)));
        self.write((name, help, MetricType::Counter), samples)
    }

    fn gauge<'a>(
        &mut self,
        (name, help): (&str, &str),
        samples: impl Iterator<Item = (Vec<Label<'a>>, i64)>,
    ) -> fmt::Result {
        let samples = samples.map(|(labels, value)| (labels, Value::Gauge(value)));
        self.write((name, help, MetricType::Gauge), samples)
    }
}

impl Metrics {
    fn of_process(&self, family: &mut Families<'_>) -> fmt::Result {
        let ProcessStatus { version, workers, memory_budget_bytes, .. } = &self.status;
        let about = ("keylane_build_info", "The version; the value is 1.");
        family.gauge(about, std::iter::once((vec![("version", version.as_str())], 1)))?;
        let about = ("keylane_workers", "Threads that run guests.");
        family.gauge(about, std::iter::once((Vec::new(), count(*workers as u64))))?;
        let about = ("keylane_memory_budget_bytes", "The setting `runtime.memory_budget`.");
        family.gauge(about, std::iter::once((Vec::new(), count(*memory_budget_bytes))))
    }

    fn of_events(&self, family: &mut Families<'_>) -> fmt::Result {
        type Of = fn(&HandlerStatus) -> u64;
        let handlers = &self.status.handlers;
        let about = ("keylane_events_settled", "Events that settled, by outcome.");
        family.counter(
            about,
            handlers.iter().flat_map(|handler| {
                let totals = handler.totals;
                let others = totals.filtered + totals.dead_letters + totals.skipped;
                let outcomes = [
                    ("done", totals.settled.saturating_sub(others)),
                    ("dead_lettered", totals.dead_letters),
                    ("skipped", totals.skipped),
                    ("filtered", totals.filtered),
                ];
                let name = handler.handler.as_str();
                outcomes.map(|(outcome, events)| (vec![("handler", name), ("outcome", outcome)], events))
            }),
        )?;
        let counters: [(&str, &str, Of); 14] = [
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
            (
                "keylane_commits_failed",
                "Partitions whose commit was rejected, and commits without a response.",
                |h| h.totals.commits_failed,
            ),
            ("keylane_offsets_skipped", "Offsets skipped as configured by `out_of_range`.", |h| {
                h.totals.offsets_skipped
            }),
            (
                "keylane_offsets_claimed",
                "Offsets that earlier owners had claimed as settled or missing.",
                |h| h.totals.claimed,
            ),
            ("keylane_ownerships", "Ownerships of partitions that began.", |h| h.totals.ownerships),
            (
                "keylane_partitions_lost",
                "Ownerships that were lost: another member may already own the partition.",
                |h| h.totals.partitions_lost,
            ),
            ("keylane_partitions_replaced", "Partitions whose topic was recreated while it was read.", |h| {
                h.totals.partitions_replaced
            }),
            ("keylane_commit_metadata_ignored", "Commits whose metadata was ignored.", |h| {
                h.totals.metadata_ignored
            }),
            ("keylane_reader_repositions", "How often a reader was repositioned.", |h| h.totals.repositioned),
        ];
        for (name, help, of) in counters {
            family.counter((name, help), handlers.iter().map(|handler| (labels(handler), of(handler))))?;
        }
        Ok(())
    }

    fn of_filters(&self, family: &mut Families<'_>) -> fmt::Result {
        let filtered = self.status.handlers.iter().flat_map(|handler| {
            handler.filter.iter().map(|rule| {
                let name = rule.rule.as_deref().unwrap_or("");
                let keep = if rule.keep { "true" } else { "false" };
                (vec![("handler", handler.handler.as_str()), ("rule", name), ("keep", keep)], rule.events)
            })
        });
        family.counter(
            (
                "keylane_filter_events",
                "Events by the filter rule that matched them; an empty rule: none did.",
            ),
            filtered,
        )
    }

    fn of_loops(&self, family: &mut Families<'_>) -> fmt::Result {
        let handlers = &self.status.handlers;
        let about = (
            "keylane_handler_running",
            "1 while the handler runs; 0 before, while it drains, and after it has stopped.",
        );
        family.gauge(
            about,
            handlers.iter().map(|handler| (labels(handler), (handler.state == HandlerState::Running).into())),
        )?;
        let about = ("keylane_calls", "Guest calls that have not terminated.");
        family.gauge(about, handlers.iter().map(|handler| (labels(handler), handler.calls.into())))?;
        let about = ("keylane_calls_limit", "The setting `lanes.max_concurrency`.");
        family.gauge(about, handlers.iter().map(|handler| (labels(handler), handler.calls_limit.into())))?;
        let lanes = handlers.iter().flat_map(|handler| {
            let name = handler.handler.as_str();
            let states = [
                ("all", handler.lanes),
                ("ready", handler.ready_lanes),
                ("retrying", handler.retrying_lanes),
            ];
            states.map(|(state, lanes)| (vec![("handler", name), ("state", state)], count(lanes)))
        });
        family.gauge(("keylane_lanes", "Lanes by state; `all` are those with events or a call."), lanes)?;
        let blocked = handlers.iter().filter_map(|handler| {
            let topic = handler.blocking_topic.as_deref()?;
            Some((vec![("handler", handler.handler.as_str()), ("topic", topic)], 1))
        });
        family.gauge(
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
        family.gauge(("keylane_stalls", "Partitions without progress now, by reason."), stalled)?;
        let stopped = |partition: &&PartitionStatus| partition.state == OwnershipState::Stopped;
        let about =
            ("keylane_partitions_stopped", "Partitions that can't be read until they are assigned again.");
        family.gauge(
            about,
            handlers.iter().map(|handler| {
                (labels(handler), count(owned(handler).iter().filter(stopped).count() as u64))
            }),
        )
    }

    fn of_partitions(&self, family: &mut Families<'_>) -> fmt::Result {
        type Of = fn(&PartitionStatus) -> Option<i64>;
        let numbers: Vec<(&HandlerStatus, &PartitionStatus, String)> = self
            .status
            .handlers
            .iter()
            .flat_map(|handler| owned(handler).iter().map(move |partition| (handler, partition)))
            .map(|(handler, partition)| (handler, partition, partition.partition.to_string()))
            .collect();
        let gauges: [(&str, &str, Of); 6] = [
            ("keylane_committed_offset", "The offset that the coordinator has stored.", |p| p.committed),
            ("keylane_committable_offset", "The first offset that is not settled.", |p| p.committable),
            ("keylane_log_end_offset", "One past the last offset of the log, as of the last fetch.", |p| {
                p.log_end
            }),
            ("keylane_queued_events", "Events that were read and are not settled.", |p| {
                Some(count(p.queued))
            }),
            ("keylane_queued_bytes", "Bytes of events that were read and are not settled.", |p| {
                Some(count(p.queued_bytes))
            }),
            (
                "keylane_commit_unclaimed_offsets",
                "Settled offsets that the last commit could not claim.",
                |p| Some(count(p.unclaimed)),
            ),
        ];
        for (name, help, of) in gauges {
            let samples = numbers.iter().filter_map(|(handler, partition, number)| {
                let labels = vec![
                    ("handler", handler.handler.as_str()),
                    ("topic", partition.topic.as_str()),
                    ("partition", number.as_str()),
                ];
                Some((labels, of(partition)?))
            });
            family.gauge((name, help), samples)?;
        }
        let lags = numbers.iter().flat_map(|(handler, partition, number)| {
            let kinds = [("committed", partition.lag_committed), ("unsettled", partition.lag_unsettled)];
            kinds.into_iter().filter_map(move |(kind, lag)| {
                let labels = vec![
                    ("handler", handler.handler.as_str()),
                    ("topic", partition.topic.as_str()),
                    ("partition", number.as_str()),
                    ("kind", kind),
                ];
                Some((labels, count(lag?)))
            })
        });
        family.gauge(
            (
                "keylane_lag_offsets",
                "Offsets up to the end of the log that are not committed, or not settled.",
            ),
            lags,
        )
    }
}

/// Returns the partitions that the handler owns. Those of its last view may have other owners after its end.
fn owned(handler: &HandlerStatus) -> &[PartitionStatus] {
    if handler.state == HandlerState::Stopped { &[] } else { &handler.partitions }
}

fn labels(handler: &HandlerStatus) -> Vec<Label<'_>> {
    vec![("handler", handler.handler.as_str())]
}

/// Converts a count to the type of gauges.
fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::status::{FilterRuleStatus, HandlerTotals, ProcessState};

    fn status() -> ProcessStatus {
        let partition = PartitionStatus {
            topic: "in".to_owned(),
            partition: 3,
            state: OwnershipState::Active,
            committed: Some(7),
            committable: Some(8),
            completed_beyond: 0,
            unclaimed: 0,
            next_offset: Some(9),
            log_end: Some(10),
            lag_committed: Some(3),
            lag_unsettled: Some(2),
            queued: 1,
            queued_bytes: 100,
            running_lanes: 1,
            unacked_lanes: 0,
            read_limit: None,
            stalled: false,
            blocked: None,
        };
        let handler = HandlerStatus {
            handler: "t".to_owned(),
            group: "g".to_owned(),
            topics: vec!["in".to_owned()],
            component: "t.wasm".to_owned(),
            component_sha256: None,
            state: HandlerState::Running,
            failures: Vec::new(),
            unresponsive_ms: None,
            calls: 1,
            calls_limit: 256,
            lanes: 1,
            ready_lanes: 0,
            retrying_lanes: 0,
            blocking_topic: Some("out\"\n".to_owned()),
            totals: HandlerTotals { settled: 10, filtered: 3, dead_letters: 2, ..HandlerTotals::default() },
            filter: vec![FilterRuleStatus { rule: None, keep: true, events: 7 }],
            partitions: vec![partition],
        };
        ProcessStatus {
            version: "0.1.0".to_owned(),
            pid: 1,
            uptime_ms: 1,
            configuration_sha256: "00".to_owned(),
            state: ProcessState::Running,
            workers: 2,
            memory_budget_bytes: 1 << 20,
            handlers: vec![handler],
        }
    }

    #[test]
    fn the_page_lists_every_metric_with_its_type_and_help() {
        let text = encode(status(), true, MetricsFormat::Prometheus);
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let mut table = String::new();
        for (name, kind) in types {
            let help = text
                .lines()
                .find_map(|line| line.strip_prefix("# HELP ")?.strip_prefix(name)?.strip_prefix(' '));
            writeln!(table, "| `{name}` | {kind} | {} |", help.expect("every metric has a help text"))
                .expect("a string");
        }
        let page = include_str!("../../../../docs/metrics.md");
        let rows: String = page
            .lines()
            .filter(|line| line.starts_with("| `keylane_"))
            .fold(String::new(), |rows, line| rows + line + "\n");
        assert_eq!(rows, table, "docs/metrics.md must be:\n{table}");
    }

    #[test]
    fn outcomes_add_up_to_the_settled_events_and_labels_are_escaped() {
        let text = encode(status(), true, MetricsFormat::Prometheus);
        for sample in [
            "keylane_events_settled_total{handler=\"t\",outcome=\"done\"} 5",
            "keylane_events_settled_total{handler=\"t\",outcome=\"filtered\"} 3",
            "keylane_backlog_full{handler=\"t\",topic=\"out\\\"\\n\"} 1",
            "keylane_lag_offsets{handler=\"t\",topic=\"in\",partition=\"3\",kind=\"unsettled\"} 2",
        ] {
            assert!(text.lines().any(|line| line == sample), "{sample}\n{text}");
        }
        let open = encode(status(), true, MetricsFormat::OpenMetrics);
        assert!(open.ends_with("# EOF\n"), "{open}");
    }

    #[test]
    fn metrics_of_partitions_can_be_left_out() {
        assert!(!encode(status(), false, MetricsFormat::Prometheus).contains("partition=\""));
    }
}
