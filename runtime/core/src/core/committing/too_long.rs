//! Transactional delivery: sets that do not fit in the metadata, and when they are tried again.

use std::time::Duration;

use crate::partitions::{PartitionState, Phase, TooLong};

/// A set that is too long is tried again after one interval of transactions for this many settled offsets.
const OFFSETS_PER_PAUSE: u64 = 256;

/// Returns what is compared with later snapshots of a partition, of which not everything did fit.
pub(super) fn too_long(state: &PartitionState, now: Duration, interval: Duration) -> TooLong {
    let pauses = 1 + state.ledger.completed_beyond() / OFFSETS_PER_PAUSE;
    TooLong {
        changes: state.commit.changes,
        completed_beyond: state.ledger.completed_beyond(),
        until: now + interval * u32::try_from(pauses).unwrap_or(u32::MAX),
    }
}

/// Returns whether the set of a partition is not tried again yet. To find out how much of it fits takes time in proportion
/// to its length, so this is done after changes in proportion to its length, or after such a time.
pub(super) fn is_still_too_long(state: &PartitionState, now: Duration) -> bool {
    let Some(TooLong { changes, completed_beyond, until }) = state.commit.too_long else { return false };
    let settled = state.commit.changes - changes;
    let has_changed_much =
        settled * 4 >= completed_beyond || state.ledger.completed_beyond() * 2 <= completed_beyond;
    let is_waited_for = matches!(state.phase, Phase::Committing { .. }) || state.ends_round();
    !(has_changed_much || is_waited_for || now >= until)
}
