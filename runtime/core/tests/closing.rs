//! How ownerships end: revoke, lost, drain, and what comes late.

mod shell;

use std::time::Duration;

use keylane_core::{CallFailure, Config, Fault, Input, LaneEnd, Notice, Partition};
use shell::{NEXT, P0, P1, REQUEST, STEP, Shell, start};

const DONE: LaneEnd = LaneEnd { done: 1, failure: None };

/// A call is out that carries an event of each partition.
fn two_partitions() -> Shell {
    let mut shell = Shell::reading(Config::default(), &[P0, P1], 1);
    shell.warm_up(P0);
    shell.fetch(P0, &[(NEXT, 1)]);
    shell.fetch(P0, &[(NEXT + 1, 2)]);
    shell.fetch(P1, &[(0, 3)]);
    shell.end(&[]);
    assert_eq!(shell.call().rows, [(P0, NEXT + 1), (P1, 0)], "one call carries both");
    shell.store_until(P0, NEXT + 1);
    shell.forget();
    shell
}

#[test]
fn outputs_of_a_session_that_is_closed_in_the_same_step_are_dropped() {
    let mut shell = two_partitions();
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    shell.uptime += Config::default().revoke_timeout - STEP;
    let call = shell.calls.remove(0).id;
    shell.end_call(call, &[DONE, DONE], &[0, 1]);
    assert_eq!(shell.handed_over, [(call, vec![1])], "row 0 is of the revoked partition, whose time is over");
    shell.give(Input::OutputsAcked { call, row: 0 });
    shell.give(Input::OutputsAcked { call, row: 1 });
    assert_eq!(shell.store().offset_of(P1), Some(1));
}

#[test]
fn a_call_that_carries_a_kept_partition_runs_on() {
    let mut shell = two_partitions();
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    shell.wait(Config::default().revoke_timeout);
    assert!(shell.cancelled.is_empty());
    shell.wait(STEP);
    assert_eq!(shell.revoked, [[P0]], "its revoked row is discarded");
    let call = shell.calls.remove(0).id;
    shell.end_call(call, &[DONE, DONE], &[0]);
    assert!(shell.handed_over.is_empty());
    assert_eq!(shell.store().offset_of(P1), Some(1));
    assert_eq!(shell.core.lanes(), 0);
}

#[test]
fn a_revoke_is_answered_when_what_was_cancelled_is_gone() {
    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1), (1, 1)]);
    let call = shell.call().id;
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    shell.wait(Config::default().revoke_timeout);
    assert_eq!(shell.cancelled, [call]);
    assert!(shell.revoked.is_empty());
    shell.give(Input::CallTerminated { call });
    assert_eq!(shell.revoked, [[P0]]);
    assert_eq!((shell.core.lanes(), shell.kept_places()), (0, 0));
}

#[test]
fn a_revoke_does_not_wait_for_ever_for_what_was_cancelled() {
    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1)]);
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    let Config { revoke_timeout, commit_timeout, .. } = Config::default();
    shell.wait(revoke_timeout + commit_timeout + STEP);
    assert_eq!(shell.revoked, [[P0]]);
    shell.wait(Duration::from_secs(6));
    assert_eq!(shell.saw("CallStuck"), 1);
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    shell.start_at(P0, 0, b"");
    shell.fetch(P0, &[(0, 1)]);
    assert!(shell.calls.is_empty(), "its lane is still with the guest");
}

#[test]
fn a_lane_waits_for_the_call_of_an_older_session() {
    let mut shell = Shell::reading(Config::default(), &[P0], 2);
    shell.fetch(P0, &[(0, 1)]);
    let old = shell.calls.remove(0).id;
    shell.give(Input::Lost { request: REQUEST, partitions: &[P0] });
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    shell.start_at(P0, 0, b"");
    shell.fetch(P0, &[(0, 1), (1, 2)]);
    assert_eq!(shell.calls.iter().map(|call| call.rows[0].1).collect::<Vec<_>>(), [1]);
    let failure = CallFailure { fault: Fault::Trap, failing_row: None, fresh: true };
    shell.give(Input::CallFailed { call: old, failure, lanes: &[], with_outputs: &[] });
    assert_eq!(shell.calls.iter().map(|call| call.rows[0].1).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(shell.saw("StopHandler"), 0, "a failure of an older ownership changes nothing");
    shell.end_all();
    assert_eq!(shell.store().offset_of(P0), Some(2));
}

#[test]
fn lost_while_a_revoke_waits_answers_both() {
    let mut shell = Shell::reading(Config::default(), &[P0, P1], 2);
    shell.fetch(P0, &[(0, 1)]);
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0, P1] });
    assert!(shell.revoked.is_empty());
    shell.give(Input::Lost { request: REQUEST, partitions: &[P0, P1] });
    assert_eq!(shell.revoked, [[P0, P1], [P0, P1]]);
    let call = shell.cancelled_call();
    shell.give(Input::CallTerminated { call });
    shell.give(Input::CallTerminated { call });
    shell.give(Input::OutputsAcked { call, row: 0 });
    assert_eq!(shell.core.lanes(), 0);
    assert!(shell.commits.is_empty(), "nothing is committed after a loss");
}

#[test]
fn acks_after_the_session_closed_change_nothing() {
    let mut shell = Shell::reading(Config::default(), &[P0], 2);
    shell.fetch(P0, &[(0, 1)]);
    let call = shell.end(&[0]);
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    shell.wait(Config::default().revoke_timeout + STEP);
    assert_eq!(shell.revoked, [[P0]]);
    assert_eq!(shell.dropped, [(call, 0..1)], "what has not left must not follow");
    shell.give(Input::OutputsAcked { call, row: 0 });
    shell.give(Input::OutputRefused { call, row: 0 });
    assert_eq!((shell.core.lanes(), shell.saw("StopHandler")), (0, 0));
    assert!(shell.commits.is_empty());
}

#[test]
fn acks_of_a_call_whose_place_was_reused_change_nothing() {
    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1), (1, 1)]);
    let old = shell.end(&[0]);
    shell.give(Input::OutputsAcked { call: old, row: 0 });
    let new = shell.end(&[0]);
    assert_eq!((old.slot, old != new), (new.slot, true));
    shell.give(Input::OutputsAcked { call: old, row: 0 });
    assert_eq!(shell.store().offset_of(P0), Some(1), "offset 1 is not acked");
}

#[test]
fn every_session_that_was_said_to_begin_is_said_to_end() {
    let ends = [
        Input::Revoked { request: REQUEST, partitions: &[P0] },
        Input::Lost { request: REQUEST, partitions: &[P0] },
        Input::DrainNow,
    ];
    for end in ends {
        for step in 0..3 {
            let mut shell = Shell::new(Config::default());
            shell.give(Input::AssignRequested {
                request: REQUEST,
                partitions: if step == 0 { &[P0, P1] } else { &[P0] },
            });
            shell.give(Input::StartResolved { partition: P0, start: start() });
            if step == 2 {
                shell.store();
            }
            shell.give(end);
            let count = |wanted: fn(&Notice) -> bool| shell.notices.iter().filter(|n| wanted(n)).count();
            let began = count(|notice| matches!(notice, Notice::OwnershipStarted { .. }));
            let ended = count(|notice| matches!(notice, Notice::OwnershipEnded { .. }));
            assert_eq!((began, ended), (1, 1), "{end:?}, step {step}");
        }
    }
}

#[test]
fn a_stall_ends_with_its_session() {
    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1)]);
    shell.wait(Duration::from_secs(20));
    assert_eq!(shell.stalls.len(), 1);
    shell.give(Input::Lost { request: REQUEST, partitions: &[P0] });
    assert_eq!(shell.stalls_ended, [P0]);
}

#[test]
fn a_revoke_of_what_is_still_looked_up_leaves_the_assign_to_the_others() {
    let mut shell = Shell::new(Config::default());
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0, P1] });
    shell.start_at(P0, 0, b"");
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P1] });
    assert_eq!(shell.revoked, [[P1]]);
    assert_eq!(shell.assigned, [[P0]]);
    shell.start_at(P1, 0, b"");
    assert_eq!(shell.assigned.len(), 1, "it is not ours any more");
}

#[test]
fn a_drain_answers_every_rebalance_and_ends() {
    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1), (1, 2)]);
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P1] });
    let deadline = shell.uptime + Duration::from_secs(10);
    shell.give(Input::Drain { deadline });
    assert_eq!(shell.assigned, [[]; 1] as [[Partition; 0]; 1]);
    shell.start_at(P1, 0, b"");
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0, P1] });
    let asked_at = shell.uptime;
    shell.wait(Config::default().revoke_timeout);
    let call = shell.cancelled_call();
    shell.give(Input::CallTerminated { call });
    assert_eq!(shell.revoked, [[P0, P1]]);
    assert_eq!(shell.drained, Some(false), "a call was cut");
    assert!(shell.uptime < asked_at + Duration::from_secs(2), "the earlier deadline holds");
    assert_eq!((shell.kept_places(), shell.core.lanes()), (0, 0));
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    assert_eq!(shell.assigned.len(), 2, "the group does not wait for us");
}

#[test]
fn a_drain_that_nothing_stands_in_the_way_of_is_clean() {
    let mut shell = Shell::reading(Config::default(), &[P0, P1], 2);
    shell.fetch(P0, &[(0, 1), (1, 2), (2, 1)]);
    let call = shell.call().id;
    shell.end(&[0]);
    let deadline = shell.uptime + Duration::from_secs(10);
    shell.give(Input::Drain { deadline });
    shell.end_all();
    assert_eq!(shell.drained, None);
    shell.give(Input::OutputsAcked { call, row: 0 });
    assert_eq!(shell.store().offset_of(P0), Some(2));
    assert_eq!((shell.drained, shell.kept_places()), (Some(true), 0));
}

#[test]
fn a_second_drain_only_shortens_the_first() {
    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1)]);
    shell.give(Input::Drain { deadline: Duration::from_secs(10) });
    shell.give(Input::Drain { deadline: Duration::from_secs(100) });
    shell.give(Input::DrainNow);
    let call = shell.cancelled_call();
    shell.give(Input::CallTerminated { call });
    assert_eq!(shell.drained, Some(false));
}

#[test]
fn of_a_lost_session_only_what_is_not_acked_is_dropped() {
    let mut shell = two_partitions();
    let call = shell.calls.remove(0).id;
    shell.end_call(call, &[DONE, DONE], &[0, 1]);
    shell.give(Input::OutputsAcked { call, row: 0 });
    shell.give(Input::Lost { request: REQUEST, partitions: &[P0] });
    assert!(shell.dropped.is_empty(), "{:?}", shell.dropped);
    shell.give(Input::Lost { request: REQUEST, partitions: &[P1] });
    assert_eq!(shell.dropped, [(call, 1..2)]);
}

#[test]
fn a_drain_says_what_it_could_not_end() {
    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1)]);
    shell.give(Input::Drain { deadline: shell.uptime + STEP });
    shell.wait(Duration::from_secs(4));
    assert_eq!(
        (shell.drained, shell.calls_left),
        (Some(false), 1),
        "the call was cancelled, and is still there"
    );
}

#[test]
fn a_loss_before_the_last_commit_is_no_clean_end() {
    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1)]);
    shell.end(&[]);
    shell.give(Input::Drain { deadline: shell.uptime + STEP });
    shell.give(Input::Lost { request: REQUEST, partitions: &[P0] });
    assert_eq!((shell.drained, shell.calls_left), (Some(false), 0));
}
