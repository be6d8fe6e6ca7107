//! The effects of the end of a call and of the acks of its outputs.

mod shell;

use std::time::Duration;

use keylane_core::{
    CallFailure, CallId, CommitEntry, Config, Fault, Input, LaneEnd, OnExhausted, RetryPolicy, Verdict,
};
use shell::{NEXT, P0, Shell};

/// One call is in flight, with these events: their offsets, from `NEXT` on, and their lanes.
fn one_call(rows: &[(i64, u64)]) -> (Shell, CallId) {
    let retry = RetryPolicy { max_attempts: 1, on_exhausted: OnExhausted::Stop, ..RetryPolicy::default() };
    let mut shell = Shell::reading(Config { retry, ..Config::default() }, &[P0], 1);
    shell.warm_up(P0);
    shell.fetch(P0, rows);
    let call = shell.call().id;
    assert_eq!(shell.call().rows.len(), rows.len(), "one call carries all: {:?}", shell.calls);
    shell.calls.clear();
    (shell, call)
}

/// The last commit of a drain.
fn last_commit(shell: &mut Shell) -> CommitEntry {
    let deadline = shell.uptime + Duration::from_secs(10);
    shell.give(Input::Drain { deadline });
    let mut last = None;
    while shell.drained.is_none() {
        last = shell.store().entries.first().copied();
    }
    last.expect("a drain commits")
}

#[test]
fn a_lane_settles_in_order_whatever_the_order_of_its_acks() {
    let rows: Vec<_> = (NEXT..NEXT + 4).map(|offset| (offset, 1)).collect();
    let (mut shell, call) = one_call(&rows);
    shell.fetch(P0, &[(NEXT + 4, 1)]);
    shell.end_call(call, &[LaneEnd { done: 4, verdict: None }], &[0, 2, 3]);
    for (row, settled) in [(3, 0), (2, 0), (3, 0), (0, 4)] {
        assert!(shell.calls.is_empty(), "the lane waits for its acks");
        shell.give(Input::EffectsAcked { call, row });
        let commit = if settled > 0 { shell.store().offset_of(P0) } else { None };
        assert_eq!(commit, (settled > 0).then_some(NEXT + settled), "row {row}");
    }
    assert_eq!(shell.call().rows, [(P0, NEXT + 4)]);
}

#[test]
fn rows_before_a_failed_one_settle_and_the_lane_stops() {
    for verdict in [Verdict::Retry { after: None }, Verdict::Reject] {
        let (mut shell, call) = one_call(&[(NEXT, 1), (NEXT + 1, 1), (NEXT + 2, 1), (NEXT + 3, 2)]);
        let ends = [LaneEnd { done: 1, verdict: Some(verdict) }, LaneEnd { done: 1, verdict: None }];
        shell.end_call(call, &ends, &[0, 1, 3]);
        assert_eq!(shell.produced, [(call, vec![0, 3])], "row 1 is not done: its outputs are dropped");
        shell.give(Input::EffectsAcked { call, row: 0 });
        assert_eq!(shell.count("StopHandler"), 1);
        shell.fetch(P0, &[(NEXT + 4, 3)]);
        assert!(shell.calls.is_empty(), "dispatching has stopped");
        shell.give(Input::EffectsAcked { call, row: 3 });
        let last = last_commit(&mut shell);
        assert_eq!((last.offset, last.unclaimed), (NEXT + 1, 0));
        assert_eq!((shell.kept_slots(), shell.drained), (0, Some(true)));
    }
}

#[test]
fn a_call_that_failed_settles_nothing() {
    let (mut shell, call) = one_call(&[(NEXT, 1), (NEXT + 1, 1), (NEXT + 2, 2)]);
    let failure = CallFailure { fault: Fault::Trap, failing_row: None, fresh: false };
    shell.give(Input::CallFailed { call, failure, lanes: &[], with_outputs: &[], output_bytes: &[] });
    assert_eq!((shell.stops.len(), shell.core.view().lanes), (0, 2), "its events run again, one by one");
    shell.give(Input::EffectsAcked { call, row: 0 });
    let rerun = shell.calls.remove(0).id;
    shell.give(Input::Drain { deadline: Duration::ZERO });
    shell.give(Input::CallTerminated { call: rerun });
    assert_eq!((shell.drained, shell.commits.len()), (Some(false), 0));
}

#[test]
fn acks_after_a_rejection_still_settle_the_rows_before_it() {
    let rows: Vec<_> = (NEXT..NEXT + 4).map(|offset| (offset, 1)).collect();
    let (mut shell, call) = one_call(&rows);
    shell.end_call(call, &[LaneEnd { done: 4, verdict: None }], &[0, 1, 2, 3]);
    shell.give(Input::OutputRejected { call, row: 2 });
    assert_eq!(shell.count("StopHandler"), 0, "the rows before it settle first");
    for row in [3, 1, 0] {
        shell.give(Input::EffectsAcked { call, row });
    }
    assert_eq!(shell.count("StopHandler"), 1);
    shell.give(Input::OutputRejected { call, row: 2 });
    assert_eq!(last_commit(&mut shell).offset, NEXT + 2);
    assert_eq!((shell.drained, shell.core.view().lanes), (Some(true), 0));
}

#[test]
fn a_rejection_of_the_first_row_ends_the_lane_immediately() {
    let (mut shell, call) = one_call(&[(NEXT, 1), (NEXT + 1, 1)]);
    shell.end_call(call, &[LaneEnd { done: 2, verdict: None }], &[0, 1]);
    shell.give(Input::OutputRejected { call, row: 1 });
    shell.give(Input::OutputRejected { call, row: 0 });
    assert_eq!(shell.count("StopHandler"), 1);
    shell.give(Input::Drain { deadline: Duration::ZERO });
    assert_eq!((shell.drained, shell.core.view().lanes), (Some(true), 0));
}

#[test]
#[should_panic(expected = "neither done nor failed, or both")]
fn a_row_that_is_neither_done_nor_failed_is_never_passed_silently() {
    let (mut shell, call) = one_call(&[(NEXT, 1), (NEXT + 1, 1)]);
    shell.end_call(call, &[LaneEnd { done: 1, verdict: None }], &[]);
}

#[test]
fn a_suspended_call_frees_its_worker_once() {
    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1), (1, 2), (2, 3), (3, 4)]);
    let first = shell.call().id;
    shell.give(Input::CallSuspended { call: first });
    shell.give(Input::CallSuspended { call: first });
    assert_eq!(shell.calls.len(), 2, "there is one worker, and it was freed once");
    shell.end(&[]);
    assert_eq!(shell.calls.len(), 1, "the second call occupies its worker");
    shell.end(&[]);
    assert_eq!(shell.calls.len(), 1);
    assert!(
        shell.calls.iter().all(|call| call.rows.len() == 1),
        "a handler that suspends gets single events"
    );
}

#[test]
fn no_call_begins_while_the_output_backlog_is_full() {
    let mut shell = Shell::reading(Config::default(), &[P0], 2);
    shell.give(Input::OutputBacklog { full: true });
    shell.fetch(P0, &[(0, 1)]);
    assert!(shell.calls.is_empty());
    shell.give(Input::OutputBacklog { full: false });
    assert_eq!(shell.calls.len(), 1);
}
