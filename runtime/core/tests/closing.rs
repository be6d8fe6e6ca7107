//! The ends of an ownership: revoke, lost and drain, and late results.

mod shell;

use std::time::Duration;

use keylane_core::{CallFailure, Config, Fault, Input, LaneEnd, Notice, Partition};
use shell::{NEXT, P0, P1, REQUEST, STEP, Shell, start};

const DONE: LaneEnd = LaneEnd { done: 1, verdict: None };

/// One call is in flight, with an event of each partition.
fn two_partitions() -> Shell {
    let mut shell = Shell::reading(Config::default(), &[P0, P1], 1);
    shell.warm_up(P0);
    shell.fetch(P0, &[(NEXT, 1)]);
    shell.fetch(P0, &[(NEXT + 1, 2)]);
    shell.fetch(P1, &[(0, 3)]);
    shell.end(&[]);
    assert_eq!(shell.call().rows, [(P0, NEXT + 1), (P1, 0)], "one call carries both");
    shell.store_until(P0, NEXT + 1);
    shell.clear_records();
    shell
}

#[test]
fn outputs_of_an_ownership_that_closes_in_the_same_step_are_dropped() {
    let mut shell = two_partitions();
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    shell.uptime += Config::default().revoke_timeout - STEP;
    let call = shell.calls.remove(0).id;
    shell.end_call(call, &[DONE, DONE], &[0, 1]);
    assert_eq!(
        shell.produced,
        [(call, vec![1])],
        "row 0 belongs to the revoked partition, whose deadline has passed"
    );
    shell.give(Input::EffectsAcked { call, row: 0 });
    shell.give(Input::EffectsAcked { call, row: 1 });
    assert_eq!(shell.store().offset_of(P1), Some(1));
}

#[test]
fn a_call_with_events_of_a_kept_partition_is_not_cancelled() {
    let mut shell = two_partitions();
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    shell.wait(Config::default().revoke_timeout);
    assert!(shell.cancelled.is_empty());
    shell.wait(STEP);
    assert_eq!(shell.revoked, [[P0]], "its revoked row is discarded");
    let call = shell.calls.remove(0).id;
    shell.end_call(call, &[DONE, DONE], &[0]);
    assert!(shell.produced.is_empty());
    assert_eq!(shell.store().offset_of(P1), Some(1));
    assert_eq!(shell.core.view().lanes, 0);
}

#[test]
fn a_revoke_is_answered_when_the_cancelled_call_has_ended() {
    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1), (1, 1)]);
    let call = shell.call().id;
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    shell.wait(Config::default().revoke_timeout);
    assert_eq!(shell.cancelled, [call]);
    assert!(shell.revoked.is_empty());
    shell.give(Input::CallTerminated { call });
    assert_eq!(shell.revoked, [[P0]]);
    assert_eq!((shell.core.view().lanes, shell.kept_slots()), (0, 0));
}

#[test]
fn a_revoke_does_not_wait_forever_for_a_cancelled_call() {
    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1)]);
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    let Config { revoke_timeout, commit_timeout, .. } = Config::default();
    shell.wait(revoke_timeout + commit_timeout + STEP);
    assert_eq!(shell.revoked, [[P0]]);
    shell.wait(Duration::from_secs(6));
    assert_eq!(shell.count("CallStuck"), 1);
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    shell.start_at(P0, 0, b"");
    shell.fetch(P0, &[(0, 1)]);
    assert!(shell.calls.is_empty(), "the guest still runs an event of its lane");
}

#[test]
fn a_lane_waits_for_the_call_of_an_older_ownership() {
    let mut shell = Shell::reading(Config::default(), &[P0], 2);
    shell.fetch(P0, &[(0, 1)]);
    let old = shell.calls.remove(0).id;
    shell.give(Input::Lost { request: REQUEST, partitions: &[P0] });
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    shell.start_at(P0, 0, b"");
    shell.fetch(P0, &[(0, 1), (1, 2)]);
    assert_eq!(shell.calls.iter().map(|call| call.rows[0].1).collect::<Vec<_>>(), [1]);
    let failure = CallFailure { fault: Fault::Trap, failing_row: None, fresh: true };
    shell.give(Input::CallFailed { call: old, failure, lanes: &[], with_outputs: &[], output_bytes: &[] });
    assert_eq!(shell.calls.iter().map(|call| call.rows[0].1).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(shell.count("StopHandler"), 0, "a failure of an older ownership changes nothing");
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
    shell.give(Input::EffectsAcked { call, row: 0 });
    assert_eq!(shell.core.view().lanes, 0);
    assert!(shell.commits.is_empty(), "nothing is committed after a loss");
}

#[test]
fn acks_after_the_end_of_the_ownership_change_nothing() {
    let mut shell = Shell::reading(Config::default(), &[P0], 2);
    shell.fetch(P0, &[(0, 1)]);
    let call = shell.end(&[0]);
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    shell.wait(Config::default().revoke_timeout + STEP);
    assert_eq!(shell.revoked, [[P0]]);
    assert_eq!(shell.dropped, [(call, 0..1)], "unsent outputs must not be sent");
    shell.give(Input::EffectsAcked { call, row: 0 });
    shell.give(Input::OutputRejected { call, row: 0 });
    assert_eq!((shell.core.view().lanes, shell.count("StopHandler")), (0, 0));
    assert!(shell.commits.is_empty());
}

#[test]
fn acks_of_a_call_whose_slot_was_reused_change_nothing() {
    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1), (1, 1)]);
    let old = shell.end(&[0]);
    shell.give(Input::EffectsAcked { call: old, row: 0 });
    let new = shell.end(&[0]);
    assert_eq!((old.slot, old != new), (new.slot, true));
    shell.give(Input::EffectsAcked { call: old, row: 0 });
    assert_eq!(shell.store().offset_of(P0), Some(1), "offset 1 is not acked");
}

#[test]
fn every_ownership_that_is_reported_as_started_is_reported_as_ended() {
    let ends = [
        Input::Revoked { request: REQUEST, partitions: &[P0] },
        Input::Lost { request: REQUEST, partitions: &[P0] },
        Input::Drain { deadline: Duration::ZERO },
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
            let count = |matches: fn(&Notice) -> bool| shell.notices.iter().filter(|n| matches(n)).count();
            let began = count(|notice| matches!(notice, Notice::OwnershipStarted { .. }));
            let ended = count(|notice| matches!(notice, Notice::OwnershipEnded { .. }));
            assert_eq!((began, ended), (1, 1), "{end:?}, step {step}");
        }
    }
}

#[test]
fn a_stall_ends_with_its_ownership() {
    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1)]);
    shell.wait(Duration::from_secs(20));
    assert_eq!(shell.stalls.len(), 1);
    shell.give(Input::Lost { request: REQUEST, partitions: &[P0] });
    assert_eq!(shell.stalls_ended, [P0]);
}

#[test]
fn a_revoke_during_a_lookup_does_not_block_the_assign_of_other_partitions() {
    let mut shell = Shell::new(Config::default());
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0, P1] });
    shell.start_at(P0, 0, b"");
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P1] });
    assert_eq!(shell.revoked, [[P1]]);
    assert_eq!(shell.assigned, [[P0]]);
    shell.start_at(P1, 0, b"");
    assert_eq!(shell.assigned.len(), 1, "the partition is no longer owned");
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
    let revoked_at = shell.uptime;
    shell.wait(Config::default().revoke_timeout);
    let call = shell.cancelled_call();
    shell.give(Input::CallTerminated { call });
    assert_eq!(shell.revoked, [[P0, P1]]);
    assert_eq!(shell.drained, Some(false), "a call was cancelled");
    assert!(shell.uptime < revoked_at + Duration::from_secs(2), "the earlier deadline applies");
    assert_eq!((shell.kept_slots(), shell.core.view().lanes), (0, 0));
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    assert_eq!(shell.assigned.len(), 2, "an assign after the drain must be answered");
}

#[test]
fn a_drain_without_obstacles_is_clean() {
    let mut shell = Shell::reading(Config::default(), &[P0, P1], 2);
    shell.fetch(P0, &[(0, 1), (1, 2), (2, 1)]);
    let call = shell.call().id;
    shell.end(&[0]);
    let deadline = shell.uptime + Duration::from_secs(10);
    shell.give(Input::Drain { deadline });
    shell.end_all();
    assert_eq!(shell.drained, None);
    shell.give(Input::EffectsAcked { call, row: 0 });
    assert_eq!(shell.store().offset_of(P0), Some(2));
    assert_eq!((shell.drained, shell.kept_slots()), (Some(true), 0));
}

#[test]
fn a_second_drain_only_shortens_the_first() {
    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1)]);
    shell.give(Input::Drain { deadline: Duration::from_secs(10) });
    shell.give(Input::Drain { deadline: Duration::from_secs(100) });
    shell.give(Input::Drain { deadline: Duration::ZERO });
    let call = shell.cancelled_call();
    shell.give(Input::CallTerminated { call });
    assert_eq!(shell.drained, Some(false));
}

#[test]
fn only_unacknowledged_outputs_of_a_lost_ownership_are_dropped() {
    let mut shell = two_partitions();
    let call = shell.calls.remove(0).id;
    shell.end_call(call, &[DONE, DONE], &[0, 1]);
    shell.give(Input::EffectsAcked { call, row: 0 });
    shell.give(Input::Lost { request: REQUEST, partitions: &[P0] });
    assert!(shell.dropped.is_empty(), "{:?}", shell.dropped);
    shell.give(Input::Lost { request: REQUEST, partitions: &[P1] });
    assert_eq!(shell.dropped, [(call, 1..2)]);
}

#[test]
fn a_drain_reports_the_calls_that_it_could_not_end() {
    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1)]);
    shell.give(Input::Drain { deadline: shell.uptime + STEP });
    shell.wait(Duration::from_secs(4));
    assert_eq!(
        (shell.drained, shell.unterminated_calls),
        (Some(false), 1),
        "the call was cancelled and still runs"
    );
}

#[test]
fn a_loss_before_the_last_commit_is_not_a_clean_drain() {
    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1)]);
    shell.end(&[]);
    shell.give(Input::Drain { deadline: shell.uptime + STEP });
    shell.give(Input::Lost { request: REQUEST, partitions: &[P0] });
    assert_eq!((shell.drained, shell.unterminated_calls), (Some(false), 0));
}
