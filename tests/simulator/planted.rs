//! Known bugs of similar systems, planted between the core and the simulated environment.
//!
//! The core is unchanged: each bug corrupts its inputs or actions as the faulty program did. A
//! simulator that does not detect these bugs proves nothing about others.

/// The bug that a run contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// Commits the highest finished offset instead of the committable offset.
    CommitHighest,
    /// Treats the produce request of an output as its acknowledgement.
    SettleBeforeAck,
    /// Treats a late result as the result of the call that now uses its slot.
    StaleResult,
    /// Reports a cancelled call as terminated while its guest still runs.
    EndCallEarly,
    /// Treats the base offset as done if the completed set beyond it can't be read.
    ClaimBase,
    /// Loses the record that arrives right after the end of a partition was reported.
    SkipAfterEnd,
    /// Splits one read into rows and end, so that the end counts even if the rows are ignored.
    SplitReads,
    /// Does not notice that a reader continues at another position.
    HideReadErrors,
    /// Does not notice that a seek failed.
    HideSeekFailures,
    /// Does not notice that a topic was recreated.
    HideRecreatedTopic,
    /// Treats an offset that was committed in an earlier topic of this name as an offset of this
    /// topic.
    ForgetTopicIds,
    /// Charges every event of a call that failed as a whole.
    ChargeAll,
    /// Retries an event immediately.
    RetryTooSoon,
    /// Treats the sending of a dead letter as its acknowledgement.
    DeadLetterUnacked,
    /// Sends queued outputs of rows whose results no longer count.
    KeepOutputs,
    /// Does not report the output backlog.
    HideBacklog,
    /// Treats the sending of a commit as its response, so that events beyond a retry round do not
    /// wait for the response.
    RoundUncommitted,
    /// Shows the view from before the last input.
    StaleView,
    /// Reports the end of a log as one offset beyond it.
    LogEndTooHigh,
    /// Shows the lanes from before the last input.
    StaleLanes,
    /// Shows nothing that blocks a partition before and after its active phase.
    HideInactive,
    /// Publishes the effects of events below the committed offset, not those with the claimed numbers.
    EffectsByOffset,
    /// Publishes all kept effects of an ownership, also those of events that are not claimed.
    UnclaimedEffects,
    /// Replaces a completed set by an empty one.
    ClaimShrinks,
    /// Sends the offset of the ledger although events are withheld.
    LedgerPrefix,
    /// Does not claim an event without effects.
    EffectlessLeftOut,
    /// Answers a look-up while a transaction with the partition is undecided.
    UnstableLookUp,
    /// Keeps what an ownership had settled over a restart in place.
    LedgerKept,
    /// Ignores the completed set if the end of the log is unknown.
    SetIgnored,
    /// Rejoins before the core knows of a loss, and sends offsets as the new member.
    LossUnheard,
    /// Keeps the producer after a call that was not answered at its first try.
    ProducerKept,
    /// Drops the effects of a transaction that was aborted.
    EffectsDroppedOnAbort,
    /// Takes a commit without a certain answer for an abort.
    AmbiguousIsAbort,
    /// Takes a commit without a certain answer for a commit.
    AmbiguousIsCommit,
    /// Reads the result of a commit from a partition that another process owns.
    ForeignWitness,
    /// Drops an output that its topic refuses, and continues.
    RefusedDropped,
    /// Leaves the effects of a partition out of transactions, but claims its events.
    ExclusionUnheard,
    /// Keeps the state that an event which is not done has left.
    FailedStateKept,
    /// Writes a state to the store before a transaction has committed it.
    OverlayStored,
    /// Applies what an earlier session has queued for the store.
    OldStoreTask,
    /// Gives the answer to a load to the lane that waits first.
    LoadToOtherLane,
    /// Restores states up to the last stable offset instead of the end of the changelog.
    RestoreToStable,
    /// Reads the end of the changelog before the committed offset is stable.
    EndReadFirst,
    /// Uses a file that is older than the deletions that the changelog still contains.
    OldFileTrusted,
    /// Starts a partition without comparing its binding with the committed offset.
    BindingNotCompared,
    /// Writes no binding if a transaction has nothing else to write for a partition.
    BindingLeftOut,
    /// Numbers events separately although they share a state.
    StatesNumberedApart,
    /// Drops the states of a transaction that was aborted.
    StatesDroppedOnAbort,
    /// Keeps the states of an ownership for the next one, which may begin in place.
    StatesKept,
    /// Forgets states as they were found, although some have changed since.
    ForgottenOverNewer,
    /// Forgets states of keys that have events.
    ForgottenInUse,
    /// Moves the mark of a gate when an event is dispatched.
    MarkAtDispatch,
    /// Does not keep the values that a gate has passed over.
    HolesForgotten,
    /// Does not keep the mark that a filtered event has moved.
    FilteredMarkLost,
    /// Keeps the mark of a key that has ended.
    TombstoneLeavesMark,
    /// Remembers the id of an event that was dead-lettered.
    IdOfDeadLetter,
    /// Gives two gate keys with one hash one number.
    NumbersCollide,
    /// Answers a request for a key with the memory of the key that had its number before.
    OldKeyAnswered,
    /// Loses the answer to a request for a key.
    KeyAnswerLost,
    /// Does not count stale events.
    StaleUncounted,
    /// Begins an ownership with marks and ids that no transaction has committed.
    UncommittedMarks,
    /// Reports a log as read to its end although it is not.
    EndOfLogAssumed,
    /// Lets stream time follow the clock until the answer of a request, not until its sending.
    EndOfLogLater,
    /// Accepts order values that are too far ahead.
    AheadAccepted,
    /// Decides that an event is stale when it is read.
    StaleAtAdmission,
    /// Lets partitions be ten times as far ahead as allowed.
    StepTooLong,
    /// Takes the end of a read for the end of the log.
    ReadTakenForEnd,
    /// Treats only values below the mark as late, not the mark itself.
    LateBelowMarkOnly,
    /// Moves the mark of a window when events are released.
    WindowMarkAtRelease,
    /// Releases an event that has waited for its window without those of lower values.
    ReleasedAlone,
    /// Passes over lower values when the greatest one is dispatched.
    SupersededAtDispatch,
    /// Gives an event that takes the place of another one its first attempt.
    AttemptsReset,
    /// Treats an event as a duplicate of one that is in a call.
    DuplicateOfRunning,
    /// Does not close gaps that were waited for long enough.
    GapTimeoutIgnored,
    /// Lets stream time count while no call may begin.
    PauseCounted,
}

impl Planted {
    /// Returns whether the bug is in what gates need.
    pub(crate) fn is_of_gates(self) -> bool {
        matches!(
            self,
            Planted::MarkAtDispatch
                | Planted::HolesForgotten
                | Planted::FilteredMarkLost
                | Planted::TombstoneLeavesMark
                | Planted::IdOfDeadLetter
                | Planted::NumbersCollide
                | Planted::OldKeyAnswered
                | Planted::KeyAnswerLost
                | Planted::StaleUncounted
                | Planted::UncommittedMarks
                | Planted::EndOfLogAssumed
                | Planted::EndOfLogLater
                | Planted::AheadAccepted
                | Planted::StaleAtAdmission
                | Planted::LateBelowMarkOnly
                | Planted::WindowMarkAtRelease
                | Planted::ReleasedAlone
                | Planted::SupersededAtDispatch
                | Planted::AttemptsReset
                | Planted::DuplicateOfRunning
                | Planted::GapTimeoutIgnored
                | Planted::PauseCounted
        )
    }

    /// Returns whether the bug is in what `read_in_step` needs.
    pub(crate) fn is_of_steps(self) -> bool {
        matches!(self, Planted::StepTooLong | Planted::ReadTakenForEnd)
    }
}

pub(crate) const ALL: [Planted; 75] = [
    Planted::CommitHighest,
    Planted::SettleBeforeAck,
    Planted::StaleResult,
    Planted::EndCallEarly,
    Planted::ClaimBase,
    Planted::SkipAfterEnd,
    Planted::SplitReads,
    Planted::HideReadErrors,
    Planted::HideSeekFailures,
    Planted::HideRecreatedTopic,
    Planted::ForgetTopicIds,
    Planted::ChargeAll,
    Planted::RetryTooSoon,
    Planted::DeadLetterUnacked,
    Planted::KeepOutputs,
    Planted::HideBacklog,
    Planted::RoundUncommitted,
    Planted::StaleView,
    Planted::LogEndTooHigh,
    Planted::StaleLanes,
    Planted::HideInactive,
    Planted::EffectsByOffset,
    Planted::UnclaimedEffects,
    Planted::ClaimShrinks,
    Planted::LedgerPrefix,
    Planted::EffectlessLeftOut,
    Planted::UnstableLookUp,
    Planted::LedgerKept,
    Planted::SetIgnored,
    Planted::LossUnheard,
    Planted::ProducerKept,
    Planted::EffectsDroppedOnAbort,
    Planted::AmbiguousIsAbort,
    Planted::AmbiguousIsCommit,
    Planted::ForeignWitness,
    Planted::RefusedDropped,
    Planted::ExclusionUnheard,
    Planted::FailedStateKept,
    Planted::OverlayStored,
    Planted::OldStoreTask,
    Planted::LoadToOtherLane,
    Planted::RestoreToStable,
    Planted::EndReadFirst,
    Planted::OldFileTrusted,
    Planted::BindingNotCompared,
    Planted::BindingLeftOut,
    Planted::StatesNumberedApart,
    Planted::StatesDroppedOnAbort,
    Planted::StatesKept,
    Planted::ForgottenOverNewer,
    Planted::ForgottenInUse,
    Planted::MarkAtDispatch,
    Planted::HolesForgotten,
    Planted::FilteredMarkLost,
    Planted::TombstoneLeavesMark,
    Planted::IdOfDeadLetter,
    Planted::NumbersCollide,
    Planted::OldKeyAnswered,
    Planted::KeyAnswerLost,
    Planted::StaleUncounted,
    Planted::UncommittedMarks,
    Planted::EndOfLogAssumed,
    Planted::EndOfLogLater,
    Planted::AheadAccepted,
    Planted::StaleAtAdmission,
    Planted::StepTooLong,
    Planted::ReadTakenForEnd,
    Planted::LateBelowMarkOnly,
    Planted::WindowMarkAtRelease,
    Planted::ReleasedAlone,
    Planted::SupersededAtDispatch,
    Planted::AttemptsReset,
    Planted::DuplicateOfRunning,
    Planted::GapTimeoutIgnored,
    Planted::PauseCounted,
];
