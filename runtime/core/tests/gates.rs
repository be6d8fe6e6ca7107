//! Gates: the order of events, and what is remembered.

mod shell;

use std::time::Duration;

use keylane_core::{
    Change, Consecutive, EarlyEvents, First, GateRule, Input, KeyMemory, LaneEnd, Late, Newest, Notice,
    OnGap, Reason, RetryScope, Verdict, Window,
};
use shell::gated::{Gated, event, gated};
use shell::{P0, REQUEST, Shell};

const NEWEST: Newest = Newest { equal_runs: false, tolerance: 0, latest_first: false };

const CONSECUTIVE: Consecutive = Consecutive {
    first: First::At(1),
    gap_timeout: Some(Duration::from_secs(1)),
    max_early: 100,
    on_gap: OnGap::DeadLetter,
    late: Late::Deliver,
};

const WINDOW: Window = Window {
    window: Duration::from_millis(300),
    consecutive: false,
    late: Late::Deliver,
    max_waiting: 1_000,
    max_waiting_bytes: 1 << 20,
    releases_on_overflow: true,
};

fn reading(rule: GateRule) -> Shell {
    Shell::reading(gated(rule), &[P0], 64)
}

/// The log ends at this offset, as a request that is sent now finds out.
fn at_end(shell: &mut Shell, end: i64) {
    let sent_at = shell.uptime;
    shell.give(Input::LogEndSeen { partition: P0, end, sent_at });
}

/// The brokers acknowledge the dead letters so far.
fn acknowledge(shell: &mut Shell) {
    for dead in std::mem::take(&mut shell.dead_letters) {
        shell.give(Input::EffectsAcked { call: dead.call, row: dead.row });
    }
}

fn changes(shell: &mut Shell) -> Vec<Change> {
    shell.remembered.drain(..).map(|change| change.change).collect()
}

#[test]
fn newest_passes_over_older_values() {
    let mut shell = reading(GateRule::Newest(NEWEST));
    shell.fetch_gated(P0, &[event(0, 1, 1), event(1, 1, 3), event(2, 1, 2), event(3, 1, 3), event(4, 1, 4)]);
    assert_eq!(shell.run_all(), [0, 1, 4]);
    assert_eq!(shell.core.counters().stale, 2);
    assert_eq!(changes(&mut shell), [Change::Mark(1), Change::Mark(3), Change::Mark(4)]);
    assert_eq!(shell.core.committable_offset(P0), Some(5));
}

#[test]
fn newest_remembers_the_mark_it_is_given() {
    let mut shell = reading(GateRule::Newest(NEWEST));
    shell.memories.insert(1, KeyMemory { mark: Some(7), ..KeyMemory::default() });
    shell.fetch_gated(P0, &[event(0, 1, 7), event(1, 1, 8)]);
    assert_eq!(shell.run_all(), [1]);
    // Unknown keys are looked up, and others go on.
    shell.fetch_gated(P0, &[Gated { unknown: true, ..event(2, 1, 8) }, event(3, 2, 1)]);
    assert_eq!(shell.run_all(), [3]);
    shell.answer_look_ups();
    assert_eq!(shell.run_all(), [0_i64; 0]);
    assert_eq!(shell.core.committable_offset(P0), Some(4));
}

#[test]
fn the_latest_runs_first_and_takes_over_the_attempts() {
    let mut shell = reading(GateRule::Newest(Newest { latest_first: true, ..NEWEST }));
    shell.fetch_gated(P0, &[event(0, 1, 1)]);
    shell.fetch_gated(P0, &[event(1, 1, 2), event(2, 1, 4), event(3, 1, 3)]);
    let call = shell.calls.remove(0);
    assert_eq!(call.rows, [(P0, 0)]);
    let lanes = [LaneEnd { done: 0, verdict: Some(Verdict::Retry { after: None }) }];
    let took = Duration::from_micros(1);
    shell.give(Input::CallEnded { call: call.id, lanes: &lanes, with_outputs: &[], output_bytes: &[], took });
    assert!(shell.calls.is_empty());
    shell.wait(Duration::from_secs(1));
    assert_eq!((shell.running_offsets(), shell.calls[0].attempt), (vec![2], 2));
    assert_eq!(shell.run_all(), [2]);
    let counters = shell.core.counters();
    assert_eq!((counters.superseded, counters.stale), (2, 1), "the first one had a call");
    assert_eq!(shell.core.committable_offset(P0), Some(4));
}

#[test]
fn consecutive_values_run_in_order() {
    let mut shell = reading(GateRule::Consecutive(CONSECUTIVE));
    shell.fetch_gated(P0, &[event(0, 1, 3), event(1, 1, 1), event(2, 1, 4), event(3, 2, 1)]);
    assert_eq!(shell.run_all(), [1, 3]);
    assert_eq!((shell.core.committable_offset(P0), shell.core.view().partitions[0].parked), (Some(0), 2));
    shell.fetch_gated(P0, &[event(4, 1, 2), event(5, 1, 2)]);
    assert_eq!(shell.run_all(), [4, 0, 2]);
    assert_eq!(shell.core.counters().stale, 1);
    assert_eq!(shell.core.committable_offset(P0), Some(6));
}

#[test]
fn filtered_values_take_their_place() {
    let mut shell = reading(GateRule::Consecutive(CONSECUTIVE));
    let filtered = |offset, value| Gated { filtered: true, ..event(offset, 1, value) };
    shell.fetch_gated(P0, &[event(0, 1, 4), filtered(1, 3), filtered(2, 1), event(3, 1, 2)]);
    assert_eq!(shell.run_all(), [3, 0]);
    assert_eq!(changes(&mut shell), [1, 2, 3, 4].map(Change::Mark));
    assert_eq!((shell.core.counters().filtered, shell.core.committable_offset(P0)), (2, Some(4)));
}

#[test]
fn a_gap_is_closed_after_its_time() {
    for on_gap in [OnGap::Pass, OnGap::DeadLetter] {
        let mut shell = reading(GateRule::Consecutive(Consecutive { on_gap, ..CONSECUTIVE }));
        shell.fetch_gated(P0, &[event(0, 1, 3), event(1, 1, 1), event(2, 1, 4)]);
        assert_eq!(shell.run_all(), [1]);
        shell.wait(Duration::from_secs(5));
        assert!(shell.running_offsets().is_empty() && shell.dead_letters.is_empty(), "the end is not known");
        assert!(!shell.end_requests.is_empty());
        at_end(&mut shell, 4);
        assert!(shell.running_offsets().is_empty(), "a record has not arrived");
        at_end(&mut shell, 3);
        if on_gap == OnGap::Pass {
            assert_eq!(shell.run_all(), [0, 2]);
            shell.fetch_gated(P0, &[event(3, 1, 2), event(4, 1, 2)]);
            shell.answer_look_ups();
            assert_eq!(shell.run_all(), [3], "the hole is filled once");
            assert_eq!(shell.core.counters().late_delivered, 1);
            let expected =
                [Change::Mark(1), Change::Holes(2, 2), Change::Mark(2), Change::Mark(3), Change::Mark(4)];
            let all = changes(&mut shell);
            assert_eq!((&all[..5], all[5]), (&expected[..], Change::Filled(2)));
        } else {
            let dead: Vec<_> =
                shell.dead_letters.iter().map(|dead| (dead.event.offset, dead.reason)).collect();
            assert_eq!(dead, [(0, Reason::Gap), (2, Reason::Gap)]);
            acknowledge(&mut shell);
            shell.fetch_gated(P0, &[event(3, 1, 5)]);
            shell.answer_look_ups();
            assert_eq!(shell.dead_letters.len(), 1, "it follows");
            acknowledge(&mut shell);
            shell.fetch_gated(P0, &[event(4, 1, 2), event(5, 1, 3)]);
            shell.answer_look_ups();
            assert_eq!(shell.run_all(), [4, 5], "the key continues");
        }
    }
}

#[test]
fn a_window_orders_what_it_holds() {
    let mut shell = reading(GateRule::Window(WINDOW));
    shell.fetch_gated(P0, &[event(0, 1, 5), event(1, 1, 2)]);
    at_end(&mut shell, 2);
    shell.wait(Duration::from_millis(200));
    at_end(&mut shell, 2);
    shell.fetch_gated(P0, &[event(2, 1, 4), event(3, 1, 9)]);
    assert!(shell.calls.is_empty());
    shell.wait(Duration::from_millis(200));
    at_end(&mut shell, 4);
    assert_eq!(shell.run_all(), [1, 2, 0], "those up to the oldest");
    shell.wait(Duration::from_millis(300));
    at_end(&mut shell, 4);
    assert_eq!(shell.run_all(), [3]);
    shell.fetch_gated(P0, &[event(4, 1, 7)]);
    assert_eq!(shell.run_all(), [4], "late ones run at once");
    assert_eq!(shell.core.counters().late_delivered, 1);
}

/// A value that waits when another event with it runs has nothing to wait for, and neither has the next one.
#[test]
fn a_window_does_not_hold_a_value_that_has_run() {
    let mut shell = reading(GateRule::Window(Window { consecutive: true, ..WINDOW }));
    shell.memories.insert(1, KeyMemory { mark: Some(1), ..KeyMemory::default() });
    shell.fetch_gated(P0, &[event(0, 1, 3), event(1, 1, 3), event(2, 1, 4)]);
    assert!(shell.calls.is_empty());
    shell.fetch_gated(P0, &[event(3, 1, 2)]);
    assert_eq!(shell.run_all(), [3, 0, 1, 2]);
}

/// A barrier holds the lane of a released event. When the barrier moves, the event does not wait for its window again.
#[test]
fn a_barrier_does_not_take_back_a_release() {
    let mut config = gated(GateRule::Window(WINDOW));
    config.retry.scope = RetryScope::Partition;
    let mut shell = Shell::reading(config, &[P0], 1);
    shell.fetch_gated(P0, &[event(0, 1, 1), event(1, 2, 1)]);
    at_end(&mut shell, 2);
    shell.wait(Duration::from_millis(400));
    at_end(&mut shell, 2);
    assert_eq!(shell.running_offsets(), [0]);
    shell.end_with(Verdict::Retry { after: None });
    assert!(shell.calls.is_empty(), "the other event is beyond the round");
    shell.wait_for_call();
    assert_eq!(shell.run_all(), [0]);
    shell.store_until(P0, 1);
    assert_eq!(shell.run_all(), [1]);
}

/// Events with one value that wait together run in the order of their arrival, and none of them is late.
#[test]
fn equal_values_in_a_window_are_not_late() {
    let mut shell = reading(GateRule::Window(Window { late: Late::DeadLetter, ..WINDOW }));
    shell.fetch_gated(P0, &[event(0, 1, 5), event(1, 2, 5), event(2, 1, 5), event(3, 2, 6), event(4, 1, 5)]);
    at_end(&mut shell, 5);
    shell.wait(Duration::from_millis(400));
    at_end(&mut shell, 5);
    assert_eq!(shell.run_all(), [0, 1, 2, 3, 4]);
    assert_eq!(shell.dead_letters.len(), 0);
}

/// A released event that does not fit in the call of the one before it does not wait for its window again.
#[test]
fn a_full_call_does_not_take_back_a_release() {
    let mut shell = reading(GateRule::Window(WINDOW));
    let large = |event| Gated { bytes: 600 << 10, ..event };
    shell.fetch_gated(P0, &[large(event(0, 1, 1)), large(event(1, 1, 2))]);
    at_end(&mut shell, 2);
    shell.wait(Duration::from_millis(400));
    at_end(&mut shell, 2);
    assert_eq!(shell.running_offsets(), [0]);
    assert_eq!(shell.run_all(), [0, 1]);
}

#[test]
fn early_events_at_the_end_are_reported() {
    let mut shell = Shell::new(gated(GateRule::Consecutive(CONSECUTIVE)));
    shell.give(Input::CapacityAdded { calls: 1 });
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    shell.start_at(P0, 0, b"");
    shell.give(Input::EndKnown { partition: P0, offset: 3 });
    shell.clear_records();
    shell.fetch_gated(P0, &[event(0, 1, 1), event(1, 1, 3), event(2, 2, 9)]);
    assert_eq!(shell.run_all(), [0]);
    assert!(!shell.names.contains(&"EndReached".to_owned()));
    shell.store_until(P0, 1);
    let early = EarlyEvents { partition: P0, events: 2, keys: 2, early: (3, 1), expected: Some(2) };
    assert!(shell.notices.contains(&Notice::EarlyAtEnd(early)), "{:?}", shell.notices);
    assert!(shell.names.contains(&"EndReached".to_owned()), "{:?}", shell.names);
}

/// After a time without records, 32 new ones move the stream time past it. Events that came with them have not waited that
/// long, even if a backlog is read at once.
#[test]
fn a_window_does_not_begin_before_a_time_without_records() {
    let mut shell = reading(GateRule::Window(WINDOW));
    let at = |offset: i64, value, timestamp| Gated {
        timestamp,
        ..event(offset, 1 + offset.unsigned_abs() % 2, value)
    };
    shell.wall_ms = 100_000;
    let before: Vec<Gated> = (0..40).map(|offset| at(offset, offset, 10_000)).collect();
    shell.fetch_gated(P0, &before);
    shell.wait(Duration::from_secs(1));
    at_end(&mut shell, 40);
    assert_eq!(shell.run_all().len(), 40);
    let mut later: Vec<Gated> = (40..80).map(|offset| at(offset, offset, 31_000 + offset)).collect();
    later.push(at(80, 41, 31_081));
    shell.fetch_gated(P0, &later);
    assert!(shell.running_offsets().is_empty(), "nothing has waited for the window");
    shell.wait(Duration::from_millis(400));
    at_end(&mut shell, 81);
    let even: Vec<i64> = shell.run_all().into_iter().filter(|offset| offset % 2 == 0).collect();
    assert_eq!(even[..3], [40, 80, 42], "the displaced event is in its place");
}

#[test]
fn a_tombstone_ends_its_key() {
    let mut config = gated(GateRule::Newest(NEWEST));
    config.gate.as_mut().expect("it has a gate").ends_at_tombstone = true;
    let mut shell = Shell::reading(config, &[P0], 64);
    let tombstone = Gated { value: None, tombstone: true, ..event(1, 1, 0) };
    shell.fetch_gated(P0, &[event(0, 1, 5), tombstone, event(2, 1, 1)]);
    assert_eq!(shell.run_all(), [0, 1, 2]);
    assert_eq!(changes(&mut shell), [Change::Mark(5), Change::Ended, Change::Mark(1)]);
}
