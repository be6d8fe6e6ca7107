//! Converts the snapshot of a handler to its status.

use keylane_core::{Counters, PartitionView, Stall};

use crate::status::{
    BlockedStatus, FilterRuleStatus, HandlerStatus, HandlerTotals, OwnershipState, PartitionStatus,
};

use super::super::event_loop::HandlerView;
use super::super::stall_reasons::reason_of;

/// Adds a snapshot to the status of its handler.
pub(super) fn add(status: &mut HandlerStatus, view: &HandlerView) {
    let HandlerView { core, publishing, filter, commits_failed, log_ends, .. } = view;
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
    let topics = &status.topics;
    let partition = |(partition, log_end): (&PartitionView, &Option<i64>)| {
        let topic = topics.get(usize::from(partition.partition.topic)).cloned().unwrap_or_default();
        partition_status(topic, partition, *log_end)
    };
    let mut partitions: Vec<PartitionStatus> = core.partitions.iter().zip(log_ends).map(partition).collect();
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
        claimed: counters.claimed,
        ownerships: counters.ownerships,
        partitions_lost: counters.losses,
        partitions_replaced: counters.partitions_replaced,
        metadata_ignored: counters.metadata_ignored,
        repositioned: counters.repositioned,
        ..HandlerTotals::default()
    }
}

fn partition_status(topic: String, view: &PartitionView, log_end: Option<i64>) -> PartitionStatus {
    let left = |from: i64| Some(u64::try_from(log_end? - from).unwrap_or(0));
    // Before its start is known, the offsets are those of an earlier ownership, or none.
    let has_start = view.status != keylane_core::OwnershipStatus::Starting;
    let committable = has_start.then_some(view.committable_offset);
    let committed = view.committed.filter(|_| has_start);
    let lag_unsettled = committable.and_then(left).map(|left| left.saturating_sub(view.completed_beyond));
    PartitionStatus {
        topic,
        partition: view.partition.number,
        state: match view.status {
            keylane_core::OwnershipStatus::Starting => OwnershipState::Starting,
            keylane_core::OwnershipStatus::Active => OwnershipState::Active,
            keylane_core::OwnershipStatus::Closing => OwnershipState::Closing,
            keylane_core::OwnershipStatus::Committing => OwnershipState::Committing,
            keylane_core::OwnershipStatus::Stopped => OwnershipState::Stopped,
        },
        committed,
        committable,
        completed_beyond: view.completed_beyond,
        unclaimed: view.unclaimed,
        next_offset: has_start.then_some(view.next_offset),
        log_end,
        lag_committed: committed.and_then(left),
        lag_unsettled,
        queued: view.open,
        queued_bytes: view.queued_bytes,
        running_lanes: view.running_lanes,
        unacked_lanes: view.unacked_lanes,
        read_limit: view.read_limit.map(|limit| limit.setting().to_owned()),
        stalled: view.is_stalled,
        blocked: view.blocked.as_ref().map(blocked_status),
    }
}

fn blocked_status(stall: &Stall) -> BlockedStatus {
    let reason = reason_of(stall.blocked_on);
    BlockedStatus {
        reason: reason.code.to_owned(),
        offset: stall.offset,
        attempt: stall.attempt,
        remedy: reason.remedy.to_owned(),
    }
}
