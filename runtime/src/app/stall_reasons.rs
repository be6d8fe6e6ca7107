//! The reasons of stalls, as the log and the status name them.

use keylane_core::{BlockedOn, ReadError};

use crate::status::{StallReason, stall_reason};

/// Returns the reason for a partition that is blocked by this.
pub(super) fn reason_of(blocked_on: BlockedOn) -> StallReason {
    match blocked_on {
        BlockedOn::StartLookup => stall_reason::START_UNKNOWN,
        BlockedOn::Rebalance => stall_reason::REBALANCE_PENDING,
        BlockedOn::Release => stall_reason::RELEASING,
        BlockedOn::Stopped => stall_reason::STOPPED,
        BlockedOn::Undispatched => stall_reason::WAITING,
        BlockedOn::OtherPartitions => stall_reason::AHEAD,
        BlockedOn::Guest => stall_reason::RUNNING,
        BlockedOn::StateLoading => stall_reason::STATE_LOADING,
        BlockedOn::Gap => stall_reason::GAP,
        BlockedOn::Window => stall_reason::WINDOW,
        BlockedOn::Retry => stall_reason::RETRYING,
        BlockedOn::OutputsUnacked => stall_reason::OUTPUTS_UNACKED,
        BlockedOn::DeadLetterUnacked => stall_reason::DEAD_LETTER_UNACKED,
        BlockedOn::Commit => stall_reason::COMMIT_NOT_STORED,
        BlockedOn::Excluded => stall_reason::LEFT_OUT,
        BlockedOn::ReadFailed(ReadError::SeekFailed) => stall_reason::SEEK_FAILED,
        BlockedOn::ReadFailed(_) => stall_reason::READ_ERROR,
        BlockedOn::NotFetched { leader_responds: true } => stall_reason::NOT_FETCHED,
        BlockedOn::NotFetched { leader_responds: false } => stall_reason::LEADER_UNAVAILABLE,
    }
}
