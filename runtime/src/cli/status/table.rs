//! A status as text.

use std::fmt::Write as _;
use std::time::Duration;

use bytesize::ByteSize;

use crate::status::{
    BrokerState, BrokerStatus, GateStatus, HandlerState, HandlerStatus, KeyedStateStatus, OwnershipState,
    PartitionStatus, ProcessState, ProcessStatus, RateStatus, TransactionsStatus,
};

/// The line about a handler without a connection.
const NO_BROKER: &str = "no broker can be reached: every connection of the consumer is down, or has not responded for \
                         10 s; check that the brokers run and respond";

/// Formats the status of one process.
pub(super) fn of(status: &ProcessStatus, address: &str) -> String {
    let mut text = String::new();
    let up = humantime::format_duration(Duration::from_secs(status.uptime_ms / 1_000));
    let state = match &status.state {
        ProcessState::Starting { step, step_ms } => {
            format!("starting: {}, {} s", shown(step), step_ms / 1_000)
        }
        ProcessState::Running => "running".to_owned(),
        ProcessState::Draining => "draining".to_owned(),
    };
    line(&mut text, &format!("keylane {}  pid {}  up {up}  {address}  {state}", status.version, status.pid));
    for handler in &status.handlers {
        text.push('\n');
        of_handler(&mut text, handler, status.time_ms);
    }
    text
}

fn of_handler(text: &mut String, handler: &HandlerStatus, now_ms: i64) {
    let state = match handler.state {
        HandlerState::Starting => "starting",
        HandlerState::Joining => "joining",
        HandlerState::Running => "running",
        HandlerState::Draining => "draining",
        HandlerState::Stopped => "stopped",
    };
    let digest =
        handler.component_sha256.as_deref().map_or("not loaded", |digest| digest.get(..12).unwrap_or(digest));
    let HandlerStatus { calls, calls_limit, lanes, ready_lanes, retrying_lanes, instances, totals, .. } =
        handler;
    line(
        text,
        &format!(
            "handler {}  group {}  component {digest}  {state}",
            shown(&handler.handler),
            shown(&handler.group)
        ),
    );
    if let Some(since) = handler.unresponsive_ms {
        line(text, &format!("  no response for {} s: the rest is from its last response", since / 1_000));
    }
    for failure in &handler.failures {
        line(text, &format!("  failure: {}", shown(failure)));
    }
    if handler.no_broker_reachable {
        line(text, &format!("  {NO_BROKER}"));
    }
    if let Some(limit) = &handler.limited_by {
        line(text, &format!("  limited by {}: {}", shown(&limit.cause), shown(&limit.detail)));
    }
    if let Some(rates) = &handler.rates {
        of_rates(text, handler, rates);
    }
    if let Some(topic) = &handler.blocking_topic {
        line(text, &format!("  calls wait: too many records are queued for topic {}", shown(topic)));
    }
    line(
        text,
        &format!(
            "  calls {calls} of {calls_limit}  lanes {lanes} ({ready_lanes} ready, {retrying_lanes} retrying)  settled {}  \
             dead letters {}  retries {}  outputs {}",
            totals.settled, totals.dead_letters, totals.retries, totals.outputs
        ),
    );
    if let Some(transactions) = &handler.transactions {
        of_transactions(text, transactions, now_ms);
    }
    if let Some(state) = &handler.keyed_state {
        of_keyed_state(text, state);
    }
    if let Some(gate) = &handler.gate {
        of_gate(text, gate);
    }
    line(
        text,
        &format!(
            "  instances {} busy, {} idle  linear memory {}",
            instances.busy,
            instances.idle,
            ByteSize(handler.guest_memory_bytes)
        ),
    );
    if !handler.brokers.is_empty() {
        of_brokers(text, &handler.brokers);
    }
    if !handler.partitions.is_empty() {
        of_partitions(text, &handler.partitions);
    }
}

fn of_rates(text: &mut String, handler: &HandlerStatus, rates: &RateStatus) {
    let micros = |micros: Option<u64>| micros.map_or("-".to_owned(), |micros| format!("{micros} µs"));
    let times = handler.call_times.map_or(String::new(), |times| {
        format!("  calls p50 {}, p99 {}", micros(times.p50_us), micros(times.p99_us))
    });
    let end =
        handler.catch_up_ms.map_or(String::new(), |ms| format!("  caught up in about {}", duration(ms)));
    let RateStatus { settled, retries, dead_letters } = rates;
    line(
        text,
        &format!(
            "  {settled:.1} events/s  {retries:.1} retries/s  {dead_letters:.1} dead letters/s{times}{end}"
        ),
    );
}

fn of_transactions(text: &mut String, transactions: &TransactionsStatus, now_ms: i64) {
    let TransactionsStatus { committed, aborted, records, kept_bytes, .. } = transactions;
    let micros = |micros: Option<u64>| micros.map_or("-".to_owned(), |micros| format!("{micros} µs"));
    let number = |number: Option<f64>| number.map_or("-".to_owned(), |number| format!("{number:.1}"));
    line(
        text,
        &format!(
            "  transactions {}/s with {} records  p50 {}, p99 {}  committed {committed} with {records} records  aborted {aborted}  \
             kept {}",
            number(transactions.rate),
            number(transactions.records_per_transaction),
            micros(transactions.p50_us),
            micros(transactions.p99_us),
            ByteSize(*kept_bytes)
        ),
    );
    if let Some(abort) = &transactions.last_abort {
        let ago = duration(u64::try_from(now_ms - abort.time_ms).unwrap_or(0));
        line(text, &format!("  last abort {ago} ago: {}", shown(&abort.reason)));
    }
    if let Some(reason) = &transactions.unavailable {
        line(text, &format!("  the brokers can't keep transactions: {}", shown(reason)));
    }
}

fn of_gate(text: &mut String, gate: &GateStatus) {
    let GateStatus { stale, superseded, late_dropped, duplicates, .. } = gate;
    let (keys, bytes) = (gate.remembered_keys, ByteSize(gate.remembered_bytes));
    line(
        text,
        &format!(
            "  gate  stale {stale}  superseded {superseded}  late {late_dropped}  duplicates {duplicates}  remembers {keys} keys \
             ({bytes})"
        ),
    );
    let gaps = gate.gaps_passed + gate.gaps_dead_lettered;
    for (what, count) in [
        ("closed gaps", gaps),
        ("forgotten holes", gate.holes_forgotten),
        ("windows released early", gate.windows_released_early),
        ("forgotten keys", gate.forgotten_keys),
        ("forgotten ids", gate.forgotten_ids),
    ] {
        if count > 0 {
            line(text, &format!("  {what}: {count}"));
        }
    }
}

fn of_keyed_state(text: &mut String, state: &KeyedStateStatus) {
    let KeyedStateStatus { uncommitted, loading_calls, restores, restored_records, .. } = state;
    line(
        text,
        &format!(
            "  keyed state  {uncommitted} uncommitted  {loading_calls} calls wait for a file  restored {restores} times, \
             {restored_records} records"
        ),
    );
    for restoring in &state.restoring {
        let (topic, partition) = (shown(&restoring.topic), restoring.partition);
        line(text, &format!("  restoring {topic}/{partition}: {} of {}", restoring.next, restoring.end));
    }
    for failed in &state.failed {
        let (topic, partition) = (shown(&failed.topic), failed.partition);
        line(text, &format!("  file of {topic}/{partition} failed: {}", shown(&failed.error)));
    }
}

/// Adds the number of brokers by state, those without a connection that is needed, and the slowest round trip.
fn of_brokers(text: &mut String, brokers: &[BrokerStatus]) {
    let by_state = BrokerState::ALL.into_iter().filter_map(|state| {
        let of_state: Vec<&BrokerStatus> = brokers.iter().filter(|broker| broker.state == state).collect();
        let names: Vec<String> = of_state.iter().map(|broker| shown(&broker.broker)).collect();
        let names = match state {
            BrokerState::Up | BrokerState::Idle => String::new(),
            BrokerState::Down | BrokerState::Unresponsive => format!(" ({})", names.join(", ")),
        };
        (!of_state.is_empty()).then(|| format!("{} {}{names}", of_state.len(), state.name()))
    });
    let by_state: Vec<String> = by_state.collect();
    let slowest = brokers.iter().filter(|broker| broker.round_trip_us.is_some());
    let slowest = slowest.max_by_key(|broker| broker.round_trip_us).map_or(String::new(), |broker| {
        let time = |micros: Option<u64>| micros.map_or("-".to_owned(), |micros| format!("{micros} µs"));
        let (average, p99) = (time(broker.round_trip_us), time(broker.round_trip_p99_us));
        format!("  slowest round trip {average}, p99 {p99}")
    });
    let throttle = brokers.iter().map(|broker| broker.throttle_ms).max().filter(|millis| *millis > 0);
    let throttle = throttle.map_or(String::new(), |millis| format!("  throttled for up to {millis} ms"));
    line(text, &format!("  brokers {}{slowest}{throttle}", by_state.join(", ")));
}

fn of_partitions(text: &mut String, partitions: &[PartitionStatus]) {
    let name = |partition: &PartitionStatus| format!("{}/{}", shown(&partition.topic), partition.partition);
    let width = partitions.iter().map(|partition| name(partition).chars().count()).max().unwrap_or(0).max(9);
    line(
        text,
        &format!(
            "  {:<width$}  {:<10}  {:>12}  {:>9}  {:>9}  {:>8}  {:>8}",
            "partition", "state", "committed", "lag", "unsettled", "queued", "age"
        ),
    );
    let number = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
    let lag = |lag: Option<u64>| lag.map_or("-".to_owned(), |lag| lag.to_string());
    for partition in partitions {
        let state = match partition.state {
            OwnershipState::Starting => "starting",
            OwnershipState::Active => "active",
            OwnershipState::Closing => "closing",
            OwnershipState::Committing => "committing",
            OwnershipState::Stopped => "stopped",
        };
        line(
            text,
            &format!(
                "  {:<width$}  {state:<10}  {:>12}  {:>9}  {:>9}  {:>8}  {:>8}",
                name(partition),
                number(partition.committed),
                lag(partition.lag_committed),
                lag(partition.lag_unsettled),
                partition.queued,
                partition.oldest_record_age_ms.map_or("-".to_owned(), duration),
            ),
        );
        if let Some(reason) = &partition.stop_reason {
            line(text, &format!("  {:<width$}  {}", "", shown(reason)));
        }
        if let Some(left_out) = &partition.left_out {
            let (topic, error) = (shown(&left_out.topic), shown(&left_out.error));
            line(text, &format!("  {:<width$}  left out of transactions: topic {topic}: {error}", ""));
        }
        if partition.parked > 0 {
            line(text, &format!("  {:<width$}  held back by the gate: {}", "", partition.parked));
        }
        if partition.withheld > 0 {
            line(text, &format!("  {:<width$}  withheld events: {}", "", partition.withheld));
        }
        if let Some(limit) = &partition.read_limit {
            line(text, &format!("  {:<width$}  reading is paused by `{}`", "", shown(limit)));
        }
        if let Some(blocked) = partition.blocked.as_ref().filter(|_| partition.stalled) {
            let attempt =
                if blocked.attempt == 0 { String::new() } else { format!(", attempt {}", blocked.attempt) };
            let lane = blocked.lane.as_ref().map_or(String::new(), |lane| format!(", lane {}", shown(lane)));
            let (reason, remedy) = (shown(&blocked.reason), shown(&blocked.remedy));
            let since = partition
                .stalled_ms
                .map_or(String::new(), |ms| format!("no progress for {}: ", duration(ms)));
            let offset = blocked.offset.map_or(String::new(), |offset| format!(" at {offset}"));
            let topics = match shown(&blocked.awaited_topics.join(", ")) {
                topics if topics.is_empty() => topics,
                topics => format!(", topic {topics}"),
            };
            line(
                text,
                &format!("  {:<width$}  {since}{reason}{offset}{attempt}{lane}{topics}: {remedy}", ""),
            );
            if let Some(error) = &blocked.error {
                line(text, &format!("  {:<width$}  last error: {}", "", shown(error)));
            }
        }
    }
}

/// Returns a time as text, in whole seconds.
fn duration(millis: u64) -> String {
    humantime::format_duration(Duration::from_secs(millis / 1_000)).to_string()
}

/// Adds a line.
pub(super) fn line(text: &mut String, line: &str) {
    writeln!(text, "{}", line.trim_end()).expect("writing to a string can't fail");
}

/// Returns text from elsewhere as it may be written to a terminal: without control characters.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{
        AbortStatus, BlockedStatus, CallTimeStatus, DeliveryMode, HandlerTotals, InstanceStatus,
        LeftOutStatus, LimitStatus, MemoryStatus, RateStatus,
    };

    fn partition(number: i32, blocked: Option<BlockedStatus>) -> PartitionStatus {
        PartitionStatus {
            topic: "orders".to_owned(),
            partition: number,
            state: OwnershipState::Active,
            committed: (number > 0).then_some(41),
            committable: Some(41),
            completed_beyond: 2,
            unclaimed: 0,
            withheld: 0,
            left_out: None,
            next_offset: Some(60),
            log_end: Some(100),
            lag_committed: (number > 0).then_some(59),
            lag_unsettled: Some(57),
            queued: 17,
            queued_bytes: 2_000,
            parked: 0,
            running_lanes: 1,
            unacked_lanes: 0,
            oldest_record_age_ms: Some(1_500),
            oldest_queued_ms: Some(1_000),
            read_limit: blocked.as_ref().map(|_| "max_queued".to_owned()),
            stalled: blocked.is_some(),
            stalled_ms: blocked.as_ref().map(|_| 32_000),
            stop_reason: None,
            blocked,
        }
    }

    fn broker(name: &str, state: BrokerState, round_trip_us: Option<u64>) -> BrokerStatus {
        BrokerStatus {
            broker: name.to_owned(),
            state,
            round_trip_us,
            round_trip_p99_us: round_trip_us.map(|micros| 2 * micros),
            throttle_ms: 30,
        }
    }

    fn handler(partitions: Vec<PartitionStatus>) -> HandlerStatus {
        HandlerStatus {
            handler: "orders".to_owned(),
            group: "orders-v1".to_owned(),
            topics: vec!["orders".to_owned()],
            dead_letter_topics: vec!["orders.dlq".to_owned()],
            delivery: DeliveryMode::AtLeastOnce,
            transactions: None,
            keyed_state: None,
            gate: None,
            component: "orders.wasm".to_owned(),
            component_sha256: Some("0123456789abcdef".to_owned()),
            state: HandlerState::Running,
            failures: Vec::new(),
            unresponsive_ms: None,
            limited_by: Some(LimitStatus {
                cause: "retries".to_owned(),
                meaning: "all lanes wait".to_owned(),
                detail: "lanes that wait for their next attempt: 1 of 12".to_owned(),
                remedy: "see the errors".to_owned(),
            }),
            rates: Some(RateStatus { settled: 1_234.56, retries: 0.25, dead_letters: 0.0 }),
            call_times: Some(CallTimeStatus { p50_us: Some(244), p99_us: None }),
            catch_up_ms: Some(65_000),
            calls: 3,
            waiting_calls: 0,
            calls_limit: 256,
            instances: InstanceStatus { idle: 5, busy: 3 },
            guest_memory_bytes: (11 << 20) + (1 << 19),
            lanes: 12,
            ready_lanes: 4,
            retrying_lanes: 1,
            blocking_topic: None,
            totals: HandlerTotals { settled: 9, ..HandlerTotals::default() },
            filter: Vec::new(),
            brokers: vec![
                broker("b-1:9092/1", BrokerState::Up, Some(1_500)),
                broker("b-2:9092/2", BrokerState::Down, None),
                broker("b-3:9092/3", BrokerState::Up, Some(100_000)),
            ],
            no_broker_reachable: false,
            fetch_queue_bytes: None,
            partitions,
        }
    }

    #[test]
    fn a_status_is_shown_with_stalls_and_their_remedies() {
        let blocked = BlockedStatus {
            reason: "retrying".to_owned(),
            meaning: "the event failed".to_owned(),
            offset: Some(41),
            attempt: 3,
            lane: Some("0123456789ab".to_owned()),
            error: Some("no price\nfor it".to_owned()),
            awaited_topics: vec!["out\x07".to_owned()],
            remedy: "look at\x1b[31m the log".to_owned(),
            see: "docs/operations.md#retrying".to_owned(),
        };
        let status = ProcessStatus {
            version: "0.1.0".to_owned(),
            pid: 7,
            host: "worker-1".to_owned(),
            time_ms: 0,
            uptime_ms: 192_400,
            configuration_sha256: "00".to_owned(),
            state: ProcessState::Running,
            workers: 2,
            memory_budget_bytes: 128 << 20,
            memory: MemoryStatus { resident_bytes: Some(96 << 20), ..MemoryStatus::default() },
            log_lines_dropped: 0,
            handlers: vec![handler(vec![partition(0, None), partition(1, Some(blocked))])],
            producer_brokers: Vec::new(),
        };
        assert_eq!(
            of(&status, "http://127.0.0.1:9277"),
            "keylane 0.1.0  pid 7  up 3m 12s  http://127.0.0.1:9277  running

handler orders  group orders-v1  component 0123456789ab  running
  limited by retries: lanes that wait for their next attempt: 1 of 12
  1234.6 events/s  0.2 retries/s  0.0 dead letters/s  calls p50 244 µs, p99 -  caught up in about 1m 5s
  calls 3 of 256  lanes 12 (4 ready, 1 retrying)  settled 9  dead letters 0  retries 0  outputs 0
  instances 3 busy, 5 idle  linear memory 11.5 MiB
  brokers 2 up, 1 down (b-2:9092/2)  slowest round trip 100000 µs, p99 200000 µs  throttled for up to 30 ms
  partition  state          committed        lag  unsettled    queued       age
  orders/0   active                 -          -         57        17        1s
  orders/1   active                41         59         57        17        1s
             reading is paused by `max_queued`
             no progress for 32s: retrying at 41, attempt 3, lane 0123456789ab, topic out : look at [31m the log
             last error: no price for it
"
        );
    }

    #[test]
    fn transactions_are_shown_with_what_they_leave_out() {
        let mut left_out = partition(0, None);
        left_out.left_out = Some(LeftOutStatus {
            topic: "totals".to_owned(),
            error: "Broker: Message size too large (MSG_SIZE_TOO_LARGE)".to_owned(),
        });
        left_out.withheld = 7;
        let mut handler = handler(vec![left_out]);
        handler.delivery = DeliveryMode::Transactional;
        handler.transactions = Some(TransactionsStatus {
            committed: 12,
            aborted: 1,
            records: 300,
            rate: Some(9.96),
            records_per_transaction: Some(25.0),
            p50_us: Some(6_103),
            p99_us: None,
            kept_bytes: 1 << 20,
            last_abort: Some(AbortStatus { time_ms: 1_000, reason: "topic `totals`: too large".to_owned() }),
            unavailable: Some("no broker\nanswers".to_owned()),
        });
        let mut text = String::new();
        of_handler(&mut text, &handler, 63_500);
        for line in [
            "  transactions 10.0/s with 25.0 records  p50 6103 µs, p99 -  committed 12 with 300 records  aborted 1  kept 1.0 MiB",
            "  last abort 1m 2s ago: topic `totals`: too large",
            "  the brokers can't keep transactions: no broker answers",
            "             left out of transactions: topic totals: Broker: Message size too large (MSG_SIZE_TOO_LARGE)",
            "             withheld events: 7",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_handler_without_a_reachable_broker_is_shown_before_its_numbers() {
        let mut handler = handler(Vec::new());
        handler.no_broker_reachable = true;
        handler.brokers = vec![
            broker("b-1:9092/1", BrokerState::Unresponsive, None),
            broker("b-2:9092/2", BrokerState::Idle, None),
        ];
        let mut text = String::new();
        of_handler(&mut text, &handler, 0);
        assert!(
            text.lines().nth(1).is_some_and(|line| line.contains("no broker can be reached: ")),
            "{text}"
        );
        assert!(text.contains("\n  brokers 1 unresponsive (b-1:9092/1), 1 idle  throttled"), "{text}");
    }
}
