//! Converts the snapshot of a handler to its status.

use keylane_core::{Blockage, Counters, Now, PartitionView};

use crate::status::{
    AbortStatus, BlockedStatus, CallTimeStatus, FilterRuleStatus, GateStatus, GrownTopicStatus,
    HandlerStatus, HandlerTotals, LeftOutStatus, OwnershipState, PartitionStatus, RateStatus,
    TransactionsStatus,
};

use super::super::event_loop::{
    GatesView, GrownTopic, HandlerView, LeftOut, ObservedPartition, TransactionView,
};
use super::super::limit_causes;
use super::super::stall_reasons::reason_of;
use super::handler_entry::millis;

/// Adds a snapshot to the status of its handler.
pub(super) fn add(status: &mut HandlerStatus, view: &HandlerView, now: Now) {
    let HandlerView { core, publishing, filter, commits_failed, log_ends, observed, .. } = view;
    let times = &observed.recent_call_times;
    status.limited_by = limit_causes::limited_by(view);
    status.rates = observed.pace.rates.map(|rates| RateStatus {
        settled: rates.settled,
        retries: rates.retries,
        dead_letters: rates.dead_letters,
    });
    status.call_times = (times.count() > 0)
        .then(|| CallTimeStatus { p50_us: times.quantile(0.5), p99_us: times.quantile(0.99) });
    status.catch_up_ms = limit_causes::catch_up_ms(view);
    status.waiting_calls = observed.load.suspended_calls;
    status.calls = core.unterminated_calls;
    status.lanes = core.lanes as u64;
    status.ready_lanes = core.ready_lanes as u64;
    status.retrying_lanes = core.retrying_lanes as u64;
    status.blocking_topic.clone_from(&publishing.blocking_topic);
    status.totals = totals(&core.counters);
    status.totals.outputs = publishing.outputs_acknowledged;
    status.totals.order_breaks = publishing.order_breaks;
    status.totals.restamped = publishing.restamped;
    status.totals.removed_headers = publishing.removed_headers;
    status.totals.producers_replaced = publishing.producer.replaced;
    status.totals.commits_failed = *commits_failed;
    status.filter = filter
        .iter()
        .map(|count| FilterRuleStatus { rule: count.rule.clone(), keep: count.keep, events: count.records })
        .collect();
    status.transactions = view.transactions.as_ref().map(transactions);
    status.keyed_state.clone_from(&view.keyed);
    status.gate = view.gates.map(|gates| gate(&core.counters, gates));
    let grown = |grown: &GrownTopic| GrownTopicStatus {
        topic: status.topics.get(usize::from(grown.topic)).cloned().unwrap_or_default(),
        partitions: grown.partitions,
        at_start: grown.at_start,
    };
    status.grown_topics = observed.grown_topics.iter().map(grown).collect();
    let left_out = view.transactions.as_ref().map_or(&[][..], |transactions| &transactions.left_out);
    let topics = &status.topics;
    let partition =
        |((partition, log_end), observed): ((&PartitionView, &Option<i64>), &ObservedPartition)| {
            let topic = topics.get(usize::from(partition.partition.topic)).cloned().unwrap_or_default();
            let mut status = partition_status(topic, partition, *log_end);
            status.oldest_record_age_ms =
                observed.oldest.and_then(|oldest| record_age(oldest.timestamp, now.wall_ms));
            status.oldest_queued_ms =
                observed.oldest.map(|oldest| millis(now.uptime.saturating_sub(oldest.read_at)));
            status.stalled_ms = partition.stalled_since.map(|since| millis(now.uptime.saturating_sub(since)));
            status.left_out =
                left_out.iter().find(|left| left.partition == partition.partition).map(left_out_status);
            status.stop_reason.clone_from(&observed.stop_reason);
            if let Some(blocked) = &mut status.blocked {
                blocked.lane.clone_from(&observed.lane);
                blocked.error.clone_from(&observed.error);
                blocked.awaited_topics.clone_from(&observed.awaited_topics);
            }
            status
        };
    let partitions = core.partitions.iter().zip(log_ends).zip(&observed.partitions);
    let mut partitions: Vec<PartitionStatus> = partitions.map(partition).collect();
    partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    status.partitions = partitions;
}

fn totals(counters: &Counters) -> HandlerTotals {
    HandlerTotals {
        settled: counters.settled,
        filtered: counters.filtered,
        dead_letters: counters.dead_letters,
        skipped: counters.skipped,
        retries: counters.retries,
        reruns: counters.reruns_after_faults + counters.reruns_after_unpublishable,
        offsets_skipped: counters.offsets_skipped,
        inherited_claims: counters.inherited_claims,
        ownerships: counters.ownerships,
        partitions_lost: counters.losses,
        partitions_recreated: counters.partitions_recreated,
        partitions_passed_over: counters.partitions_passed_over,
        metadata_ignored: counters.metadata_ignored,
        repositioned: counters.repositioned,
        ..HandlerTotals::default()
    }
}

fn gate(counters: &Counters, view: GatesView) -> GateStatus {
    GateStatus {
        stale: counters.stale,
        superseded: counters.superseded,
        late_dropped: counters.late_dropped,
        late_delivered: counters.late_delivered,
        duplicates: counters.duplicates,
        without_id: view.without_id,
        gaps_passed: counters.gaps_passed,
        gaps_dead_lettered: counters.gaps_dead_lettered,
        holes_forgotten: counters.holes_forgotten,
        windows_released_early: counters.windows_released_early,
        remembered_keys: view.memory.keys as u64,
        remembered_bytes: view.memory.bytes as u64,
        forgotten_keys: view.memory.evicted,
        forgotten_ids: view.memory.ids_evicted,
    }
}

fn transactions(view: &TransactionView) -> TransactionsStatus {
    let recent = view.recent.as_ref();
    let time = |share| recent.filter(|recent| recent.times.count() > 0)?.times.quantile(share);
    TransactionsStatus {
        committed: view.totals.committed,
        aborted: view.totals.aborted,
        records: view.totals.records,
        rate: recent.map(|recent| recent.rate),
        records_per_transaction: recent.and_then(|recent| recent.records),
        p50_us: time(0.5),
        p99_us: time(0.99),
        kept_bytes: view.kept_bytes,
        last_abort: view
            .last_abort
            .as_ref()
            .map(|abort| AbortStatus { time_ms: abort.time_ms, reason: abort.reason.clone() }),
        unavailable: view.unavailable.clone(),
    }
}

fn left_out_status(left_out: &LeftOut) -> LeftOutStatus {
    LeftOutStatus { topic: left_out.topic.clone(), error: left_out.error.clone() }
}

fn partition_status(topic: String, view: &PartitionView, log_end: Option<i64>) -> PartitionStatus {
    let left = |from: i64| Some(u64::try_from(log_end? - from).unwrap_or(0));
    // Before its start is known, the offsets are those of an earlier ownership, or none.
    let has_start = view.state != keylane_core::OwnershipState::Starting;
    let committable = has_start.then_some(view.committable_offset);
    let committed = view.committed.filter(|_| has_start);
    let lag_unsettled = committable.and_then(left).map(|left| left.saturating_sub(view.completed_beyond));
    PartitionStatus {
        topic,
        partition: view.partition.number,
        state: match view.state {
            keylane_core::OwnershipState::Starting => OwnershipState::Starting,
            keylane_core::OwnershipState::Active => OwnershipState::Active,
            keylane_core::OwnershipState::Closing => OwnershipState::Closing,
            keylane_core::OwnershipState::Committing => OwnershipState::Committing,
            keylane_core::OwnershipState::Stopped => OwnershipState::Stopped,
        },
        committed,
        committable,
        completed_beyond: view.completed_beyond,
        unclaimed: view.unclaimed,
        withheld: view.withheld,
        left_out: None,
        next_offset: has_start.then_some(view.next_offset),
        log_end,
        lag_committed: committed.and_then(left),
        lag_unsettled,
        queued: view.open,
        queued_bytes: view.queued_bytes,
        parked: view.parked,
        running_lanes: view.running_lanes,
        unacked_lanes: view.unacked_lanes,
        oldest_record_age_ms: None,
        oldest_queued_ms: None,
        read_limit: view.read_limit.map(|limit| limit.setting().to_owned()),
        stalled: view.stalled_since.is_some(),
        stalled_ms: None,
        stop_reason: None,
        blocked: view.blocked.as_ref().map(blocked_status),
    }
}

/// Returns the age of a record; `None`: it has no time. The clock of its producer may be ahead.
fn record_age(timestamp: i64, now_ms: i64) -> Option<u64> {
    (timestamp >= 0).then(|| u64::try_from(now_ms - timestamp).unwrap_or(0))
}

fn blocked_status(blockage: &Blockage) -> BlockedStatus {
    let reason = reason_of(blockage.blocked_on);
    BlockedStatus {
        reason: reason.code.to_owned(),
        meaning: reason.meaning.to_owned(),
        offset: blockage.offset,
        attempt: blockage.attempt,
        lane: None,
        error: None,
        awaited_topics: Vec::new(),
        remedy: reason.remedy.to_owned(),
        see: reason.see(),
    }
}
