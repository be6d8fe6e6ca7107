//! Known bugs of systems of this kind, planted between the core and the simulated environment.
//!
//! The core is unchanged: each bug corrupts its inputs or its actions in the way the faulty program did. A simulator
//! that does not detect them proves nothing about other bugs.

/// The bug that a run contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// Commits the highest finished offset instead of the committable offset.
    CommitHighest,
    /// Takes producing an output for its acknowledgement.
    SettleBeforeAck,
    /// Takes a late result for the result of the call that now uses its slot.
    StaleResult,
    /// Reports a cancelled call as gone while its guest still runs.
    ForgetOldCall,
    /// Takes the base offset as done when the completed set beyond it can't be read.
    ClaimBase,
    /// Loses the record that arrives right after the end of a partition was reported.
    SkipAfterEnd,
    /// Splits one read into rows and end: if the rows are ignored, the end still counts.
    SplitReads,
    /// Does not notice that a reader continues at another position.
    HideReadErrors,
    /// Does not notice that a seek failed.
    HideSeekFailures,
    /// Does not notice that a topic was replaced.
    HideReplacedTopic,
    /// Takes an offset that was committed in an earlier topic of this name as one of this topic.
    ForgetTopicIds,
    /// Charges every event of a call that failed as a whole.
    ChargeAll,
    /// Retries an event immediately.
    RetryTooSoon,
    /// Takes sending a dead letter for its acknowledgement.
    DeadLetterUnacked,
    /// Sends queued outputs although their ownership has ended.
    KeepOutputs,
    /// Does not report the output backlog.
    HideBacklog,
    /// Takes sending a commit for its response: events beyond a retry round do not wait for it.
    RoundUncommitted,
}

pub(crate) const ALL: [Planted; 17] = [
    Planted::CommitHighest,
    Planted::SettleBeforeAck,
    Planted::StaleResult,
    Planted::ForgetOldCall,
    Planted::ClaimBase,
    Planted::SkipAfterEnd,
    Planted::SplitReads,
    Planted::HideReadErrors,
    Planted::HideSeekFailures,
    Planted::HideReplacedTopic,
    Planted::ForgetTopicIds,
    Planted::ChargeAll,
    Planted::RetryTooSoon,
    Planted::DeadLetterUnacked,
    Planted::KeepOutputs,
    Planted::HideBacklog,
    Planted::RoundUncommitted,
];
