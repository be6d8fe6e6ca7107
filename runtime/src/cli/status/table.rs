//! A status as text.

use std::fmt::Write as _;
use std::time::Duration;

use crate::status::{
    HandlerState, HandlerStatus, OwnershipState, PartitionStatus, ProcessState, ProcessStatus,
};

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
        of_handler(&mut text, handler);
    }
    text
}

fn of_handler(text: &mut String, handler: &HandlerStatus) {
    let state = match handler.state {
        HandlerState::Starting => "starting",
        HandlerState::Joining => "joining",
        HandlerState::Running => "running",
        HandlerState::Draining => "draining",
        HandlerState::Stopped => "stopped",
    };
    let digest =
        handler.component_sha256.as_deref().map_or("not loaded", |digest| digest.get(..12).unwrap_or(digest));
    let HandlerStatus { calls, calls_limit, lanes, ready_lanes, retrying_lanes, totals, .. } = handler;
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
    if !handler.partitions.is_empty() {
        of_partitions(text, &handler.partitions);
    }
}

fn of_partitions(text: &mut String, partitions: &[PartitionStatus]) {
    let name = |partition: &PartitionStatus| format!("{}/{}", shown(&partition.topic), partition.partition);
    let width = partitions.iter().map(|partition| name(partition).chars().count()).max().unwrap_or(0).max(9);
    line(
        text,
        &format!(
            "  {:<width$}  {:<10}  {:>12}  {:>9}  {:>9}  {:>8}",
            "partition", "state", "committed", "lag", "unsettled", "queued"
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
                "  {:<width$}  {state:<10}  {:>12}  {:>9}  {:>9}  {:>8}",
                name(partition),
                number(partition.committed),
                lag(partition.lag_committed),
                lag(partition.lag_unsettled),
                partition.queued,
            ),
        );
        if let Some(limit) = &partition.read_limit {
            line(text, &format!("  {:<width$}  reading is paused by `{}`", "", shown(limit)));
        }
        if let Some(blocked) = partition.blocked.as_ref().filter(|_| partition.stalled) {
            let attempt =
                if blocked.attempt == 0 { String::new() } else { format!(", attempt {}", blocked.attempt) };
            let (reason, remedy) = (shown(&blocked.reason), shown(&blocked.remedy));
            line(text, &format!("  {:<width$}  {reason} at {}{attempt}: {remedy}", "", blocked.offset));
        }
    }
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{}", line.trim_end()).expect("writing to a string can't fail");
}

/// Returns text from elsewhere as it may be written to a terminal: without control characters.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{BlockedStatus, HandlerTotals};

    fn partition(number: i32, blocked: Option<BlockedStatus>) -> PartitionStatus {
        PartitionStatus {
            topic: "orders".to_owned(),
            partition: number,
            state: OwnershipState::Active,
            committed: (number > 0).then_some(41),
            committable: Some(41),
            completed_beyond: 2,
            unclaimed: 0,
            next_offset: Some(60),
            log_end: Some(100),
            lag_committed: (number > 0).then_some(59),
            lag_unsettled: Some(57),
            queued: 17,
            queued_bytes: 2_000,
            running_lanes: 1,
            unacked_lanes: 0,
            read_limit: blocked.as_ref().map(|_| "max_queued".to_owned()),
            stalled: blocked.is_some(),
            blocked,
        }
    }

    #[test]
    fn a_status_is_shown_with_stalls_and_their_remedies() {
        let blocked = BlockedStatus {
            reason: "retrying".to_owned(),
            offset: 41,
            attempt: 3,
            remedy: "look at\x1b[31m the log".to_owned(),
        };
        let status = ProcessStatus {
            version: "0.1.0".to_owned(),
            pid: 7,
            uptime_ms: 192_400,
            configuration_sha256: "00".to_owned(),
            state: ProcessState::Running,
            workers: 2,
            memory_budget_bytes: 128 << 20,
            handlers: vec![HandlerStatus {
                handler: "orders".to_owned(),
                group: "orders-v1".to_owned(),
                topics: vec!["orders".to_owned()],
                component: "orders.wasm".to_owned(),
                component_sha256: Some("0123456789abcdef".to_owned()),
                state: HandlerState::Running,
                failures: Vec::new(),
                unresponsive_ms: None,
                calls: 3,
                calls_limit: 256,
                lanes: 12,
                ready_lanes: 4,
                retrying_lanes: 1,
                blocking_topic: None,
                totals: HandlerTotals { settled: 9, ..HandlerTotals::default() },
                filter: Vec::new(),
                partitions: vec![partition(0, None), partition(1, Some(blocked))],
            }],
        };
        assert_eq!(
            of(&status, "http://127.0.0.1:9277"),
            "keylane 0.1.0  pid 7  up 3m 12s  http://127.0.0.1:9277  running

handler orders  group orders-v1  component 0123456789ab  running
  calls 3 of 256  lanes 12 (4 ready, 1 retrying)  settled 9  dead letters 0  retries 0  outputs 0
  partition  state          committed        lag  unsettled    queued
  orders/0   active                 -          -         57        17
  orders/1   active                41         59         57        17
             reading is paused by `max_queued`
             retrying at 41, attempt 3: look at [31m the log
"
        );
    }
}
