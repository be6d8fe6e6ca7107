//! A status as text.

use std::fmt::Write as _;
use std::time::Duration;

use bytesize::ByteSize;

use crate::status::{
    BrokerState, BrokerStatus, GateStatus, GrownTopicStatus, HandlerState, HandlerStatus, KeyedStateStatus,
    OwnershipState, PartitionStatus, ProcessState, ProcessStatus, RateStatus, TransactionsStatus,
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
    let instances = &handler.instances;
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
    of_calls(text, handler);
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
    for GrownTopicStatus { topic, partitions, at_start } in &handler.grown_topics {
        let topic = shown(topic);
        line(
            text,
            &format!(
                "  topic {topic} has {partitions} partitions, at start {at_start}: see docs/recipes/partition-count.md"
            ),
        );
    }
    if !handler.partitions.is_empty() {
        of_partitions(text, &handler.partitions);
    }
}

fn of_calls(text: &mut String, handler: &HandlerStatus) {
    let HandlerStatus { calls, calls_limit, lanes, ready_lanes, retrying_lanes, totals, .. } = handler;
    line(
        text,
        &format!(
            "  calls {calls} of {calls_limit}  lanes {lanes} ({ready_lanes} ready, {retrying_lanes} retrying)  settled {}  \
             dead letters {}  retries {}  outputs {}",
            totals.settled, totals.dead_letters, totals.retries, totals.outputs
        ),
    );
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
        ("handled late", gate.late_delivered),
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
mod tests;
