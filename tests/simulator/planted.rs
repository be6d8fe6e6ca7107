//! Bugs that systems of this kind had, planted between the core and the world.
//!
//! The production core stays as it is: each bug corrupts what the core is told, or what it asks for, in the way
//! the faulty program did. A simulator that does not notice them proves nothing about the ones it looks for.

/// Which bug this run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// Commits the highest finished offset, not the prefix.
    CommitHighest,
    /// Takes handing an output over for its acknowledgement.
    SettleBeforeAck,
    /// Takes a result that comes late for that of the call which has its place now.
    StaleResult,
    /// Says that a cancelled call is gone while its guest still runs.
    ForgetOldCall,
    /// Takes the base offset for done when the set beyond it can't be read.
    ClaimBase,
    /// Loses the record that arrives right after the end of a partition was reported.
    SkipAfterEnd,
    /// Takes rows and end of one read for two things: if the rows are refused, the end still counts.
    SplitReads,
    /// Does not notice that a reader goes on from somewhere else.
    HideReadErrors,
    /// Does not notice that a reader was not moved.
    HideSeekFailures,
    /// Does not notice that a topic is another one.
    HideReplacedTopic,
    /// Takes an offset that was committed in another topic of this name for one of this topic.
    ForgetTopicIds,
    /// Charges every event of a call that failed as a whole.
    ChargeAll,
    /// Tries an event again at once.
    RetryTooSoon,
    /// Takes sending a dead letter for its acknowledgement.
    LetterUnacked,
    /// Sends what waits for the producer although its ownership is over.
    KeepOutputs,
    /// Does not say that too much waits for the producer.
    HideBacklog,
    /// Takes sending a commit for its answer: what lies behind a round does not wait for it.
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
    Planted::LetterUnacked,
    Planted::KeepOutputs,
    Planted::HideBacklog,
    Planted::RoundUncommitted,
];
