//! The metrics: those of the process here, others by subject. Labels never contain a key.

mod brokers;
mod families;
mod gates;
mod guests;
mod handlers;
mod keyed_state;
mod observed;
mod partitions;
mod transactions;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;

use keylane_admin::MetricsFormat;

use crate::status::{HandlerState, HandlerStatus, PartitionStatus, ProcessStatus};

use super::process::ProcessUsage;
use crate::app::event_loop::HandlerView;
use crate::guest::GuestUsage;
use families::{Families, count};

/// Encodes the metrics of a process.
pub(super) fn encode(metrics: Metrics, format: MetricsFormat) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(metrics));
    let mut encoded = String::new();
    match format {
        MetricsFormat::Prometheus => prometheus_text::encode(&mut encoded, &registry),
        MetricsFormat::OpenMetrics => text::encode(&mut encoded, &registry),
    }
    .expect("writing to a string can't fail");
    encoded
}

/// The source of the metrics.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) status: ProcessStatus,
    /// The last view of each handler, in the order of the status.
    pub(super) views: Vec<Option<HandlerView>>,
    /// What the guests of each handler use, in the order of the status.
    pub(super) guests: Vec<Option<GuestUsage>>,
    pub(super) include_partitions: bool,
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families { encoder };
        self.write_process(&mut families)?;
        self.write_events(&mut families)?;
        self.write_passed_over(&mut families)?;
        self.write_filters(&mut families)?;
        self.write_loops(&mut families)?;
        self.write_observed(&mut families)?;
        self.write_transactions(&mut families)?;
        self.write_keyed_state(&mut families)?;
        self.write_gates(&mut families)?;
        self.write_guests(&mut families)?;
        self.write_times(&mut families)?;
        self.write_messaging(&mut families)?;
        self.write_brokers(&mut families)?;
        if self.include_partitions { self.write_partitions(&mut families) } else { Ok(()) }
    }
}

impl Metrics {
    fn write_process(&self, families: &mut Families<'_>) -> fmt::Result {
        let ProcessStatus { version, workers, memory_budget_bytes, .. } = &self.status;
        let about = ("keylane_build_info", "The version; the value is 1.");
        families.gauge(about, std::iter::once((vec![("version", version.as_str())], 1)))?;
        let about = ("keylane_workers", "Threads that run guests.");
        families.gauge(about, std::iter::once((Vec::new(), count(*workers as u64))))?;
        let about = ("keylane_memory_budget_bytes", "The setting `runtime.memory_budget`.");
        families.gauge(about, std::iter::once((Vec::new(), count(*memory_budget_bytes))))?;
        let about = ("keylane_log_lines_dropped", "Log lines dropped because standard error was not read.");
        families.counter(about, std::iter::once((Vec::new(), self.status.log_lines_dropped)))?;
        ProcessUsage::read().map_or(Ok(()), |own| write_process_usage(families, &own))
    }
}

/// Writes the metrics that Prometheus clients have in common.
fn write_process_usage(families: &mut Families<'_>, own: &ProcessUsage) -> fmt::Result {
    let one = |value: f64| std::iter::once((Vec::new(), value));
    let size = |value: u64| std::iter::once((Vec::new(), value));
    families.seconds(("process_cpu_seconds", "CPU time of the user and of the system."), own.cpu_seconds)?;
    families.size(("process_resident_memory_bytes", "The resident set."), size(own.resident_bytes))?;
    families.size(("process_virtual_memory_bytes", "The virtual memory."), size(own.virtual_bytes))?;
    families.size(("process_open_fds", "Open file descriptors."), size(own.open_files))?;
    let about = ("process_start_time_seconds", "When the process was started, in seconds since 1970.");
    families.fraction(about, one(own.started))
}

/// Returns the partitions that the handler owns. Those of its last view may have other owners after its end.
fn owned(handler: &HandlerStatus) -> &[PartitionStatus] {
    if handler.state == HandlerState::Stopped { &[] } else { &handler.partitions }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::guest::{GrantUsage, HttpUsage};
    use crate::status::{
        BrokerState, BrokerStatus, DeliveryMode, FilterRuleStatus, HandlerTotals, InstanceStatus,
        LimitStatus, MemoryStatus, OwnershipState, ProcessState,
    };

    fn partition() -> PartitionStatus {
        PartitionStatus {
            topic: "in".to_owned(),
            partition: 3,
            state: OwnershipState::Active,
            committed: Some(7),
            committable: Some(8),
            completed_beyond: 0,
            unclaimed: 0,
            withheld: 0,
            left_out: None,
            next_offset: Some(9),
            log_end: Some(10),
            lag_committed: Some(3),
            lag_unsettled: Some(2),
            queued: 1,
            queued_bytes: 100,
            parked: 1,
            running_lanes: 1,
            unacked_lanes: 0,
            oldest_record_age_ms: Some(1_500),
            oldest_queued_ms: Some(1_000),
            read_limit: None,
            stalled: false,
            stalled_ms: None,
            stop_reason: None,
            blocked: None,
        }
    }

    fn status() -> ProcessStatus {
        let handler = HandlerStatus {
            handler: "t".to_owned(),
            group: "g".to_owned(),
            topics: vec!["in".to_owned()],
            dead_letter_topics: Vec::new(),
            delivery: DeliveryMode::AtLeastOnce,
            transactions: None,
            keyed_state: None,
            gate: None,
            component: "t.wasm".to_owned(),
            component_sha256: None,
            state: HandlerState::Running,
            failures: Vec::new(),
            unresponsive_ms: None,
            limited_by: Some(LimitStatus {
                cause: "cpu".to_owned(),
                meaning: String::new(),
                detail: String::new(),
                remedy: String::new(),
            }),
            rates: None,
            call_times: None,
            catch_up_ms: None,
            calls: 1,
            waiting_calls: 0,
            calls_limit: 256,
            instances: InstanceStatus::default(),
            guest_memory_bytes: 0,
            lanes: 1,
            ready_lanes: 0,
            retrying_lanes: 0,
            blocking_topic: Some("out\"\n".to_owned()),
            totals: HandlerTotals { settled: 10, filtered: 3, dead_letters: 2, ..HandlerTotals::default() },
            filter: vec![FilterRuleStatus { rule: None, keep: true, events: 7 }],
            brokers: vec![broker("b:9092/1", BrokerState::Up), broker("b:9093/2", BrokerState::Down)],
            no_broker_reachable: false,
            fetch_queue_bytes: Some(300),
            grown_topics: Vec::new(),
            partitions: vec![partition()],
        };
        ProcessStatus {
            version: "0.1.0".to_owned(),
            pid: 1,
            host: "worker".to_owned(),
            time_ms: 0,
            uptime_ms: 1,
            configuration_sha256: "00".to_owned(),
            state: ProcessState::Running,
            workers: 2,
            memory_budget_bytes: 1 << 20,
            memory: MemoryStatus::default(),
            log_lines_dropped: 0,
            handlers: vec![handler],
            producer_brokers: vec![broker("b:9092/1", BrokerState::Up)],
        }
    }

    fn broker(name: &str, state: BrokerState) -> BrokerStatus {
        let has_responded = state == BrokerState::Up;
        BrokerStatus {
            broker: name.to_owned(),
            state,
            round_trip_us: has_responded.then_some(1_500),
            round_trip_p99_us: has_responded.then_some(20_000),
            throttle_ms: 250,
        }
    }

    fn metrics() -> Metrics {
        Metrics {
            status: status(),
            views: vec![Some(HandlerView::default())],
            guests: vec![Some(GuestUsage::default())],
            include_partitions: true,
        }
    }

    #[test]
    fn the_page_lists_every_metric_with_its_type_and_help() {
        let text = encode(metrics(), MetricsFormat::Prometheus);
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let mut table = String::new();
        for (name, kind) in types {
            let help = text
                .lines()
                .find_map(|line| line.strip_prefix("# HELP ")?.strip_prefix(name)?.strip_prefix(' '));
            writeln!(table, "| `{name}` | {kind} | {} |", help.expect("every metric has a help text"))
                .expect("a string");
        }
        let page = include_str!("../../../../../docs/metrics.md");
        let rows: String = page
            .lines()
            .filter(|line| {
                ["keylane_", "messaging_", "process_"].iter().any(|prefix| has_prefix(line, prefix))
            })
            .fold(String::new(), |rows, line| rows + line + "\n");
        assert_eq!(rows, table, "docs/metrics.md must be:\n{table}");
    }

    /// Returns whether a line of the page is the row of a metric with this prefix.
    fn has_prefix(line: &str, prefix: &str) -> bool {
        line.strip_prefix("| `").is_some_and(|name| name.starts_with(prefix))
    }

    #[test]
    fn brokers_are_counted_by_client_and_state() {
        let text = encode(metrics(), MetricsFormat::Prometheus);
        for sample in [
            "keylane_brokers{client=\"consumer\",handler=\"t\",state=\"up\"} 1",
            "keylane_brokers{client=\"consumer\",handler=\"t\",state=\"down\"} 1",
            "keylane_brokers{client=\"producer\",state=\"down\"} 0",
            "keylane_broker_round_trip_seconds{client=\"consumer\",handler=\"t\",broker=\"b:9092/1\"} 0.0015",
            "keylane_broker_round_trip_p99_seconds{client=\"producer\",broker=\"b:9092/1\"} 0.02",
            "keylane_broker_throttle_seconds{client=\"producer\",broker=\"b:9092/1\"} 0.25",
            "keylane_fetch_queue_bytes{handler=\"t\"} 300",
        ] {
            assert!(text.lines().any(|line| line == sample), "{sample}\n{text}");
        }
        assert!(!text.contains("round_trip_seconds{client=\"consumer\",handler=\"t\",broker=\"b:9093/2\"}"));
    }

    #[test]
    fn messages_have_the_labels_of_the_conventions() {
        let mut view = HandlerView { records_read: 42, ..HandlerView::default() };
        view.observed.call_times.record(5);
        view.observed.failed_call_times.record(5);
        let text = encode(Metrics { views: vec![Some(view)], ..metrics() }, MetricsFormat::Prometheus);
        let labels = "handler=\"t\",messaging_system=\"kafka\",messaging_consumer_group_name=\"g\"";
        for sample in [
            format!(
                "messaging_client_consumed_messages_total{{{labels},messaging_operation_name=\"poll\"}} 42"
            ),
            format!(
                "messaging_process_duration_seconds_count{{{labels},messaging_operation_name=\"process\"}} 1"
            ),
            "keylane_guest_call_seconds_count{handler=\"t\",result=\"returned\"} 0".to_owned(),
            "keylane_guest_call_seconds_count{handler=\"t\",result=\"failed\"} 1".to_owned(),
        ] {
            assert!(text.lines().any(|line| line == sample), "{sample}\n{text}");
        }
    }

    #[test]
    fn outcomes_add_up_to_the_settled_events_and_labels_are_escaped() {
        let text = encode(metrics(), MetricsFormat::Prometheus);
        for sample in [
            "keylane_events_settled_total{handler=\"t\",outcome=\"done\"} 5",
            "keylane_events_settled_total{handler=\"t\",outcome=\"filtered\"} 3",
            "keylane_backlog_full{handler=\"t\",topic=\"out\\\"\\n\"} 1",
            "keylane_lag_offsets{handler=\"t\",topic=\"in\",partition=\"3\",kind=\"unsettled\"} 2",
        ] {
            assert!(text.lines().any(|line| line == sample), "{sample}\n{text}");
        }
        let open = encode(metrics(), MetricsFormat::OpenMetrics);
        assert!(open.ends_with("# EOF\n"), "{open}");
    }

    #[test]
    fn requests_of_guests_are_counted_by_grant_and_denied_ones_have_none() {
        let grant = GrantUsage { grant: "*.example.com:8443".into(), requests: [1, 0, 2, 0, 3] };
        let http = Some(HttpUsage { grants: vec![grant], denied: 4 });
        let guests = GuestUsage { memory_bytes: 65_536, idle_instances: 1, busy_instances: 2, http };
        let text = encode(Metrics { guests: vec![Some(guests)], ..metrics() }, MetricsFormat::Prometheus);
        let samples = text.lines().filter(|line| {
            line.starts_with("keylane_guest_memory")
                || line.starts_with("keylane_guest_instances")
                || line.starts_with("keylane_http")
        });
        let expected = [
            "keylane_guest_memory_bytes{handler=\"t\"} 65536",
            "keylane_guest_instances{handler=\"t\",state=\"idle\"} 1",
            "keylane_guest_instances{handler=\"t\",state=\"busy\"} 2",
            "keylane_http_requests_total{handler=\"t\",grant=\"*.example.com:8443\",class=\"2xx\"} 1",
            "keylane_http_requests_total{handler=\"t\",grant=\"*.example.com:8443\",class=\"3xx\"} 0",
            "keylane_http_requests_total{handler=\"t\",grant=\"*.example.com:8443\",class=\"4xx\"} 2",
            "keylane_http_requests_total{handler=\"t\",grant=\"*.example.com:8443\",class=\"5xx\"} 0",
            "keylane_http_requests_total{handler=\"t\",grant=\"*.example.com:8443\",class=\"error\"} 3",
            "keylane_http_requests_total{handler=\"t\",grant=\"\",class=\"denied\"} 4",
        ];
        assert_eq!(samples.collect::<Vec<_>>(), expected, "{text}");
    }

    #[test]
    fn the_last_bucket_of_a_histogram_counts_everything() {
        for format in [MetricsFormat::Prometheus, MetricsFormat::OpenMetrics] {
            let mut view = HandlerView::default();
            view.observed.loop_turns.record(5);
            view.observed.loop_turns.record(u64::MAX);
            let text = encode(Metrics { views: vec![Some(view)], ..metrics() }, format);
            let of =
                |line: &&str| line.starts_with("keylane_loop_turn_seconds_bucket") && line.contains("+Inf");
            let last: Vec<&str> = text.lines().filter(of).collect();
            assert!(matches!(last[..], [line] if line.ends_with(" 2")), "{last:?}\n{text}");
        }
    }

    #[test]
    fn metrics_of_partitions_can_be_left_out() {
        let metrics = Metrics { include_partitions: false, ..metrics() };
        assert!(!encode(metrics, MetricsFormat::Prometheus).contains("partition=\""));
    }
}
