//! The trace of a run, the minimum coverage of all runs, and the rendering of a failure.

use std::fmt::Write;

use super::plan::Micros;

/// One line of a trace. It contains only numbers, because a trace is kept for every seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) at: Micros,
    pub(crate) process: i32,
    pub(crate) what: &'static str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) detail: i64,
}

#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) lines: Vec<Line>,
}

impl Trace {
    /// FNV-1a over all lines: equal traces have equal hashes.
    pub(crate) fn hash(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut update = |bytes: &[u8]| {
            for &byte in bytes {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        };
        for line in &self.lines {
            update(&line.at.to_le_bytes());
            update(&line.process.to_le_bytes());
            update(line.what.as_bytes());
            update(&line.partition.to_le_bytes());
            update(&line.offset.to_le_bytes());
            update(&line.detail.to_le_bytes());
        }
        hash
    }

    /// The last `count` lines that match `keep`, one per row.
    pub(crate) fn render(&self, count: usize, keep: impl Fn(&Line) -> bool) -> String {
        let mut kept: Vec<_> = self.lines.iter().rev().filter(|line| keep(line)).take(count).collect();
        kept.reverse();
        let mut text = String::new();
        for line in kept {
            let Line { at, process, what, partition, offset, detail } = line;
            let seconds = *at as f64 / 1e6;
            writeln!(text, "{seconds:11.6} p{process:<2} {what:<18} {partition:>3}/{offset:<7} {detail}")
                .expect("writing to a String can't fail");
        }
        text
    }
}

/// A violated invariant.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    /// Name of the invariant.
    pub(crate) rule: &'static str,
    pub(crate) text: String,
    pub(crate) partition: Option<usize>,
    pub(crate) offset: i64,
}

macro_rules! coverage {
    ($($name:ident $floor:literal)*) => {
        /// A condition that must occur often enough in a run for the run to prove anything.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Seen { $($name),* }

        const FLOORS: &[(&str, u64)] = &[$((stringify!($name), $floor)),*];
    };
}

// The number is the minimum count per 20,000 seeds: about a third of the count when it was written.
coverage! {
    Events 1_000_000
    Commits 200_000
    CommitsTimedOut 4_000
    CommitsStale 3_000
    CommitsTooLarge 3_000
    CommitsTryAgain 2_000
    CommitsLate 1_000
    SetsCommitted 100_000
    SetsTruncated 20_000
    SetsApplied 8_000
    SetsIgnored 1_000
    Kills 3_000
    KillsMidStep 1_000
    Pauses 3_000
    Losses 2_000
    LossesWhileUnanswered 700
    AnswersTooLate 700
    TopicsReplaced 200
    TopicsFoundReplaced 200
    CommitsOfAnotherTopic 250
    CooperativeRebalances 50_000
    EagerRebalances 30_000
    Revokes 20_000
    RevokesWithCallsInFlight 6_000
    Drains 40_000
    DrainsUrgent 200
    Cancels 3_000
    CancelsThatEndedFirst 1_000
    DroppedResults 2_000
    Repositions 10_000
    Reassigns 1_000
    OutOfRange 1_000
    ReadErrors 18_000
    ReadsOfEnd 75_000
    ReadsOfRowsAndEnd 80_000
    ReadsOfError 11_000
    ReadsOfRowsAndError 7_000
    ReadsInterrupted 12_000
    SeeksFailed 1_500
    ReadStalls 3_500
    PartitionsStopped 1_400
    HandlersStopped 2_000
    CallsFailed 25_000
    Retries 25_000
    Reruns 15_000
    Rounds 6_000
    TooOld 2_000
    Skipped 5_000
    DeadLetters 40_000
    DeadLettersWithoutCall 40_000
    Filtered 90_000
    LookUpsFailed 6_000
    LookUpsLate 600
    LogEndsUnknown 5_000
    Stalls 2_000
    OutputsStored 600_000
    OutputsStoredAfterKill 150
    OutputsRejected 600
    OutputsDropped 600
    Backlogs 3_000
    OutputsUnpublishable 300
    CallsSuspended 20_000
    FullQueues 70_000
    EndsReached 20_000
    ReadsWhileUnanswered 1_000
    Repeats 30_000
    SeedsWithoutRepeats 4_000
    Transactions 100_000
    TransactionsDecided 100_000
    TransactionsCommitted 100_000
    TransactionsStale 1_000
    TransactionsMetadataTooLarge 1_000
    TransactionsRequestTooLarge 100
    TransactionsTooSlow 1_000
    TransactionsFailed 1_000
    TransactionsRefused 250
    EffectsRefused 90
    PartitionsExcluded 190
    TransactionsTimedOut 400
    TransactionsTakenOver 1_000
    CommitsRepeated 1_000
    CommitsAmbiguous 400
    ReadBackCommitted 200
    ReadBackAborted 200
    OffsetsOverwritten 10
    ProducersReplaced 3_000
    ProducersFenced 200
    RequestsFenced 1_000
    RequestsLate 1_000
    RepliesLost 1_000
    CoordinatorsAway 2_000
    KillsInTransactions 100
    ProcessesSuperseded 90
    EffectsKept 200_000
    EffectsDropped 3_000
    EffectsCommitted 200_000
    EffectsAborted 7_000
    DeadLettersKept 10_000
    EventsWithheld 40_000
    CallsWhileFull 20_000
    SetsInTransactions 100_000
    SetsUnreadable 400
    LookUpsUnstable 2_000
    LookUpsInPlace 100
    OffsetsReset 1_000
    RevokesWhileUndecided 3_000
    LossesWhileUndecided 400
    DrainsWhileUndecided 1_000
    StatesChanged 60_000
    StatesDeleted 10_000
    StatesLoaded 30_000
    StatesRestored 10_000
    RestoresWaited 20_000
    StartsRefused 400
    StatesAdopted 200
    StatesReset 200
    StoresResumed 4_000
    StoresTooOld 7_000
    StoresPrivate 40
    StoresDeleted 700
    StoresReplaced 300
    StoreTasksDropped 1_000
    StoreTasksOutdated 10
    DeletionsCompacted 900
    StatesForgotten 3_000
    StatesChangedMeanwhile 4_000
    DeletionsRefused 3_000
    GateStale 20_000
    GateSuperseded 10_000
    Preemptions 30
    GateLate 2_000
    GateDuplicates 9_000
    GateFiltered 3_000
    GateLateDelivered 8_000
    RejectedNoValue 4_000
    RejectedAhead 4_000
    RejectedBelowFirst 50
    RejectedGap 6_000
    RejectedLate 2_000
    FirstsChosen 1_000
    GapsTimedOut 1_000
    GapsTooManyEarly 200
    GapsInFullPartitions 300
    GatesStopped 100
    HolesFilled 200
    GateKeysEnded 3_000
    GateKeysBroken 3_000
    GateKeysLookedUp 100_000
    GateNumbersReused 60_000
    GateMemoriesCommitted 20_000
    LogEndsRequested 30_000
    LogEndsReached 20_000
    WaitsForOthers 130_000
    StatesOfGatedEvents 30_000
    GateCountersCompared 1_000_000
    FirstsInCalls 600_000
    FirstsDelayed 80_000
    FirstsLoading 350_000
    FirstsReady 400_000
    FirstsBarred 4_000
    FirstsInGates 350_000
}

#[derive(Clone, Debug)]
pub(crate) struct Coverage([u64; FLOORS.len()]);

impl Coverage {
    pub(crate) fn new() -> Self {
        Coverage([0; FLOORS.len()])
    }

    pub(crate) fn saw(&mut self, seen: Seen) {
        self.0[seen as usize] += 1;
    }

    pub(crate) fn count(&self, seen: Seen) -> u64 {
        self.0[seen as usize]
    }

    pub(crate) fn add(&mut self, other: &Coverage) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// The conditions that were seen too rarely in a run of this many seeds.
    pub(crate) fn missing(&self, seeds: u64) -> Vec<String> {
        let counts = FLOORS.iter().zip(self.0);
        let low = counts.filter(|&(&(_, floor), count)| count * 20_000 < floor * seeds);
        low.map(|(&(name, floor), count)| format!("{name}: {count} of {floor} per 20,000 seeds")).collect()
    }

    pub(crate) fn summary(&self) -> String {
        let counts = FLOORS.iter().zip(self.0);
        counts.map(|((name, _), count)| format!("{name} {count}\n")).collect()
    }
}
