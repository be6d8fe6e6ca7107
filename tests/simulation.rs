//! The guarantees of the core under injected faults, in thousands of seeded simulations.
//!
//! `KEYLANE_SIM_SEED=n … replay -- --nocapture` prints one simulation; `KEYLANE_SIM_SEEDS=n` sets the number of seeds;
//! `KEYLANE_SIM_FIRST=n` sets the first seed; `KEYLANE_SIM_PLANTED=name` selects a planted bug, for `planted` and `replay`.

mod simulator;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use simulator::{ALL_PLANTED, Coverage, Planted, Seen};

const SEEDS: u64 = 20_000;
/// A planted bug that is not found in this many seeds shows that the simulator does not detect it.
const PLANTED_SEEDS: u64 = 5_000;

#[test]
fn promises_hold_in_every_schedule() {
    let (first, seeds) = (env_number("KEYLANE_SIM_FIRST", 0), env_number("KEYLANE_SIM_SEEDS", SEEDS));
    let coverage = Mutex::new(Coverage::new());
    let failed = find_first(first, seeds, |seed| {
        let result = simulator::run(seed, None);
        coverage.lock().unwrap_or_else(PoisonError::into_inner).add(&result.coverage);
        result.violated_rule.map(|_| result.report)
    });
    if let Some((_, report)) = failed {
        panic!("{report}");
    }
    let coverage = coverage.into_inner().unwrap_or_else(PoisonError::into_inner);
    print(&coverage.summary());
    let missing = coverage.missing(seeds);
    assert!(missing.is_empty(), "coverage is too low:\n{}", missing.join("\n"));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let mut idle = 0;
    for seed in 0..200 {
        let (one, other) = (simulator::run(seed, None), simulator::run(seed, None));
        idle += u32::from(one.coverage.count(Seen::Events) == 0);
        assert_eq!(one.trace_hash, other.trace_hash, "seed {seed}");
    }
    // A gate may reject the few events of a seed.
    assert!(idle <= 2, "{idle} of 200 seeds dispatched nothing");
}

#[test]
fn reading_a_view_changes_nothing() {
    for seed in 0..500 {
        let (read, unread) = (simulator::trace_hash(seed, true), simulator::trace_hash(seed, false));
        assert_eq!(read, unread, "seed {seed}");
    }
}

#[test]
fn planted_bugs_are_caught() {
    let mut wrong = Vec::new();
    let selected = planted_by_env();
    for planted in ALL_PLANTED.into_iter().filter(|one| selected.is_none_or(|other| other == *one)) {
        match find_first(0, PLANTED_SEEDS, |seed| simulator::run(seed, Some(planted)).violated_rule) {
            None => wrong.push(format!("{planted:?} was not caught by {PLANTED_SEEDS} seeds")),
            Some((seed, rule)) => {
                print(&format!("{planted:?}: seed {seed}, {rule}\n"));
                if !expected(planted).contains(&rule) {
                    wrong.push(format!("{planted:?} was caught at seed {seed} by {rule}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A wrong memory of a gate key is seen in itself, or in the events that it lets through or holds.
const WRONG_MEMORY: &[&str] = &[
    "G1 consecutive",
    "G2 newest",
    "G3 without call",
    "G5 window",
    "G6 gaps",
    "G7 memory",
    "G7 durable memory",
    "G8 duplicates",
    "G9 key identity",
    "G10 first unsettled",
];

/// The invariants that a planted bug violates. Any other violation does not count as a detection.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others are bugs of gates")]
fn expected(planted: Planted) -> &'static [&'static str] {
    match planted {
        Planted::CommitHighest
        | Planted::SettleBeforeAck
        | Planted::StaleResult
        | Planted::SkipAfterEnd
        | Planted::SplitReads
        | Planted::HideReadErrors
        | Planted::HideSeekFailures
        | Planted::ForgetTopicIds => &["I8 commit safety", "I2 no gap", "I1 no loss"],
        Planted::HideRecreatedTopic => &["I8 commit safety", "I2 no gap", "I1 no loss", "I11 drained"],
        Planted::EndCallEarly => &["I5 one call per lane", "I6 quiet after ownership"],
        Planted::ChargeAll => &["I-attempts", "I-attribution", "I-outcomes"],
        Planted::RetryTooSoon => &["I-backoff"],
        Planted::DeadLetterUnacked => &["I8 commit safety", "I2 no gap", "I1 no loss"],
        Planted::KeepOutputs => &["I6 outputs dropped"],
        Planted::RoundUncommitted => &["I-round"],
        Planted::HideBacklog => &["I6 quiet"],
        Planted::StaleView | Planted::LogEndTooHigh | Planted::StaleLanes | Planted::HideInactive => {
            &["I-view"]
        }
        Planted::ClaimBase => &["I8 commit safety", "I2 no gap", "I1 no loss"],
        Planted::EffectsByOffset
        | Planted::UnclaimedEffects
        | Planted::EffectsDroppedOnAbort
        | Planted::ForeignWitness
        | Planted::RefusedDropped
        | Planted::ExclusionUnheard => &["T2 effects and claims", "T1 once"],
        Planted::ProducerKept => &["T2 effects and claims", "T1 once", "T8 binding", "T3 state", "T5 store"],
        // The binding is that of the claims.
        Planted::LedgerPrefix => &["T2 effects and claims", "T1 once", "T8 binding", "T5 store"],
        // The effects are published again, after later ones of their lane.
        Planted::AmbiguousIsAbort => &["T2 effects and claims", "T1 once", "T6 settle order"],
        Planted::AmbiguousIsCommit => &["T2 effects and claims", "T1 once", "I-start", "T5 store"],
        // An event of the transaction may be part of the set that is left out.
        Planted::ClaimShrinks => &["T2 claims grow", "T2 effects and claims"],
        Planted::EffectlessLeftOut => &["T2 left out"],
        // Or the changelog is newer than the offset that was found.
        Planted::UnstableLookUp => &["T1 once", "T2 effects and claims", "T2 claims grow", "T8 refused"],
        Planted::SetIgnored => &["T1 once", "T2 effects and claims", "T2 claims grow"],
        Planted::LedgerKept => &["I8 commit safety", "I-end"],
        Planted::LossUnheard => &["T4 zombie"],
        Planted::FailedStateKept
        | Planted::LoadToOtherLane
        | Planted::OldFileTrusted
        | Planted::StatesNumberedApart
        | Planted::StatesDroppedOnAbort
        | Planted::StatesKept => &["T3 state"],
        Planted::ForgottenOverNewer | Planted::ForgottenInUse => &["T3 state", "T3 forgotten"],
        // Or a file becomes older than its position, so that a search finds a state that is old there only.
        Planted::OldStoreTask => &["T3 state", "T3 forgotten", "T5 store"],
        Planted::OverlayStored => &["T5 store"],
        // The binding that was read last is not that of the committed offset.
        Planted::RestoreToStable | Planted::EndReadFirst => &["T8 refused", "T3 state"],
        Planted::BindingNotCompared => &["T8 start"],
        // The store may notice first.
        Planted::BindingLeftOut => &["T8 binding", "T5 store"],
        _ => expected_of_gates(planted),
    }
}

/// The same for bugs of what gates need.
#[expect(clippy::wildcard_enum_match_arm, reason = "a bug without an expectation makes the test fail")]
fn expected_of_gates(planted: Planted) -> &'static [&'static str] {
    match planted {
        Planted::MarkAtDispatch
        | Planted::HolesForgotten
        | Planted::FilteredMarkLost
        | Planted::TombstoneLeavesMark
        | Planted::IdOfDeadLetter
        | Planted::NumbersCollide
        | Planted::OldKeyAnswered
        | Planted::UncommittedMarks => WRONG_MEMORY,
        Planted::EndOfLogAssumed | Planted::EndOfLogLater => {
            &["G5 window", "G6 gaps", "G1 consecutive", "G3 without call"]
        }
        Planted::StepTooLong | Planted::ReadTakenForEnd => &["I-step"],
        // Nothing else is ready, or the partition may be held.
        Planted::KeyAnswerLost => &["G10 first unsettled", "I11 drained"],
        Planted::StaleUncounted => &["I-counters"],
        // It waits for its window, and runs.
        Planted::LateBelowMarkOnly => &["G10 first unsettled", "G5 window"],
        Planted::ReleasedAlone => &["G5 window"],
        // Such an event is dropped or dead-lettered, or runs too early.
        Planted::WindowMarkAtRelease => &["G3 without call", "G5 window"],
        Planted::SupersededAtDispatch | Planted::DuplicateOfRunning => &["G3 without call"],
        Planted::AttemptsReset => &["I-attempts"],
        Planted::GapTimeoutIgnored => &["I11 drained"],
        // A gap is closed too early, and what it passes over is stale, or a window.
        Planted::PauseCounted => &["G5 window", "G6 gaps", "G1 consecutive", "G3 without call"],
        Planted::AheadAccepted => &["G3 without call"],
        Planted::StaleAtAdmission => &["I8 commit safety", "I1 no loss", "G7 memory"],
        _ => &[],
    }
}

/// Prints one simulation. Without `KEYLANE_SIM_SEED`, seed 0 runs without a trace.
#[test]
fn replay() {
    let seed = env_number("KEYLANE_SIM_SEED", 0);
    if seed != 0 {
        print(&simulator::trace(seed, planted_by_env()));
    }
    let result = simulator::run(seed, planted_by_env());
    assert!(result.violated_rule.is_none(), "{}", result.report);
}

/// Runs seeds on all CPU cores until one returns a value. Returns the lowest such seed among those that ran.
fn find_first<T: Send>(first: u64, seeds: u64, run: impl Fn(u64) -> Option<T> + Sync) -> Option<(u64, T)> {
    let next = AtomicU64::new(first);
    let found: Mutex<Option<(u64, T)>> = Mutex::new(None);
    let stop = AtomicBool::new(false);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    if let Some(result) = run(seed) {
                        stop.store(true, Ordering::Relaxed);
                        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                        if found.as_ref().is_none_or(|(other, _)| *other > seed) {
                            *found = Some((seed, result));
                        }
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the seed to replay comes from the environment; tests have no configuration"
)]
fn env_number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("this KEYLANE_SIM_… variable must be a number"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the bug to replay comes from the environment; tests have no configuration"
)]
fn planted_by_env() -> Option<Planted> {
    let name = std::env::var("KEYLANE_SIM_PLANTED").ok()?;
    let found = ALL_PLANTED.into_iter().find(|planted| format!("{planted:?}") == name);
    Some(found.expect("KEYLANE_SIM_PLANTED must be the name of a planted bug"))
}

#[expect(clippy::print_stderr, reason = "the output of a test is shown with --nocapture")]
fn print(text: &str) {
    eprint!("{text}");
}
