//! Events that fail: attempts, backoff, outcomes, and which event is charged.

mod shell;

use std::time::Duration;

use keylane_core::{
    Admission, ArenaSlot, BlockedOn, CallFailure, Config, Fault, FetchedRow, Input, LaneEnd, OnExhausted,
    Partition, Reason, RetryPolicy, RetryScope, UNLIMITED_ATTEMPTS, Verdict,
};
use shell::{NEXT, P0, REQUEST, STEP, Shell};

const RETRY: Verdict = Verdict::Retry { after: None };

/// Three attempts, with delays of half a second and one second.
fn retry() -> RetryPolicy {
    RetryPolicy { max_attempts: 3, jitter: 0.0, ..RetryPolicy::default() }
}

fn reading(retry: RetryPolicy) -> Shell {
    Shell::reading(Config { retry, ..Config::default() }, &[P0], 4)
}

#[test]
fn attempts_are_counted_and_the_backoff_grows() {
    let mut shell = reading(retry());
    shell.fetch(P0, &[(0, 1), (1, 1)]);
    let mut waited = Vec::new();
    for attempt in 1..=3 {
        let call = shell.wait_for_call();
        assert_eq!(
            (call.rows.as_slice(), call.attempt, call.last_attempt),
            ([(P0, 0)].as_slice(), attempt, attempt == 3)
        );
        let at = shell.uptime;
        shell.end_with(RETRY);
        if attempt < 3 {
            shell.wait_for_call();
            waited.push(shell.uptime - at);
        }
    }
    let about = |wait: Duration, wanted: u64| wait.abs_diff(Duration::from_millis(wanted)) <= 4 * STEP;
    assert!(about(waited[0], 500) && about(waited[1], 1000), "{waited:?}");
    let dead_letter = shell.ack_dead_letter();
    assert_eq!(
        (dead_letter.event.offset, dead_letter.attempt, dead_letter.reason),
        (0, 3, Reason::RetriesExhausted)
    );
    assert_eq!(shell.call().rows, [(P0, 1)], "its lane continues after the dead letter was acknowledged");
    shell.end_all();
    shell.store_until(P0, 2);
    assert_eq!(shell.kept_slots(), 0);
    let failures = shell.core.counters();
    assert_eq!((failures.retries, failures.dead_letters), (2, 1));
}

#[test]
fn unlimited_attempts_end_only_with_the_event() {
    let retry = RetryPolicy {
        max_attempts: UNLIMITED_ATTEMPTS,
        initial_interval: STEP,
        max_interval: STEP,
        ..retry()
    };
    let mut shell = reading(retry);
    shell.fetch(P0, &[(0, 1)]);
    for attempt in 1..=1_000 {
        let call = shell.wait_for_call();
        assert_eq!((call.attempt, call.last_attempt), (attempt, false));
        shell.end_with(RETRY);
    }
    shell.wait_for_call();
    shell.end_with(Verdict::Reject);
    let dead_letter = shell.ack_dead_letter();
    assert_eq!(
        (dead_letter.attempt, dead_letter.reason),
        (1_001, Reason::Rejected),
        "a rejected event does not block its lane"
    );
}

#[test]
fn only_the_lane_of_a_failed_event_waits() {
    let mut shell = reading(retry());
    shell.fetch(P0, &[(0, 1), (1, 1), (2, 2)]);
    shell.end_with(RETRY);
    shell.fetch(P0, &[(3, 1), (4, 3)]);
    let in_flight: Vec<_> = shell.calls.iter().flat_map(|call| call.rows.iter().map(|row| row.1)).collect();
    assert_eq!(in_flight, [2, 4]);
    shell.end_all();
    shell.wait(Duration::from_secs(1));
    for offset in [0, 1, 3] {
        assert_eq!(shell.wait_for_call().rows, [(P0, offset)]);
        shell.end(&[]);
    }
}

#[test]
fn the_guest_may_set_the_delay_up_to_the_maximum_interval() {
    let mut shell = reading(RetryPolicy { max_interval: Duration::from_secs(2), ..retry() });
    for (after, wanted) in [(Duration::from_millis(40), 40), (Duration::from_secs(3600), 2_000)] {
        shell.fetch(P0, &[(if wanted == 40 { 0 } else { 1 }, 1)]);
        shell.end_with(Verdict::Retry { after: Some(after) });
        let at = shell.uptime;
        shell.wait_for_call();
        let waited = shell.uptime - at;
        assert!(waited.abs_diff(Duration::from_millis(wanted)) <= 4 * STEP, "{waited:?} for {after:?}");
        shell.end_all();
    }
}

#[test]
fn a_dead_letter_holds_its_lane_and_the_offset_until_it_is_acknowledged() {
    let mut shell = reading(retry());
    shell.fetch(P0, &[(0, 1), (1, 1), (2, 2)]);
    shell.end_with(Verdict::Reject);
    shell.end_all();
    assert_eq!(shell.dead_letters[0].reason, Reason::Rejected);
    assert_eq!(
        shell.store().offset_of(P0),
        Some(0),
        "2 is in the completed set, but the committed offset does not move"
    );
    shell.wait(Duration::from_secs(20));
    assert_eq!((shell.stalls[0].offset, shell.stalls[0].blocked_on), (Some(0), BlockedOn::DeadLetterUnacked));
    assert!(shell.calls.is_empty());
    shell.ack_dead_letter();
    shell.end_all();
    shell.store_until(P0, 3);
}

#[test]
fn skipped_events_settle_at_once() {
    let mut shell = reading(RetryPolicy { on_exhausted: OnExhausted::Skip, ..retry() });
    shell.fetch(P0, &[(0, 1)]);
    shell.end_with(Verdict::Reject);
    assert_eq!(shell.store().offset_of(P0), Some(1));
    assert_eq!((shell.core.counters().skipped, shell.dead_letters.len()), (1, 0));
}

#[test]
fn an_old_record_is_not_retried() {
    let mut shell = reading(RetryPolicy { max_record_age: Some(Duration::from_secs(60)), ..retry() });
    shell.wall_ms = 59_000;
    shell.fetch(P0, &[(0, 1)]);
    shell.end_with(RETRY);
    assert!(shell.dead_letters.is_empty(), "its age is checked only when a retry would be scheduled");
    shell.wall_ms = 61_000;
    shell.wait_for_call();
    shell.end_with(RETRY);
    assert_eq!(shell.ack_dead_letter().reason, Reason::TooOld);
}

/// The guest traps on a batch, so no result of the call counts. The events run again one by one on
/// fresh instances, and only the event that fails alone is charged.
#[test]
fn only_the_failing_event_of_a_failed_call_is_charged() {
    let mut shell = reading(retry());
    shell.warm_up(P0);
    shell.fetch(P0, &[(NEXT, 1), (NEXT + 1, 2), (NEXT + 2, 2), (NEXT + 3, 3)]);
    shell.fail(Fault::Trap);
    assert_eq!(shell.core.counters().reruns_after_faults, 4);
    let mut ran = Vec::new();
    while ran.len() < 4 {
        let call = shell.wait_for_call();
        assert!(call.fresh && call.rows.len() == 1 && call.attempt == 1, "{call:?}");
        ran.push(call.rows[0].1);
        if call.rows[0].1 == NEXT + 1 && ran.len() < 4 {
            shell.fail(Fault::Trap);
            let counters = shell.core.counters();
            assert_eq!(
                (counters.retries, counters.reruns_after_faults),
                (1, 4),
                "it failed alone on a fresh instance"
            );
        } else {
            shell.end(&[]);
        }
        if ran == [NEXT, NEXT + 1, NEXT + 3] {
            let again = shell.wait_for_call();
            assert_eq!((again.rows[0].1, again.attempt), (NEXT + 1, 2));
            shell.end(&[]);
        }
    }
    assert_eq!(ran, [NEXT, NEXT + 1, NEXT + 3, NEXT + 2]);
    shell.store_until(P0, NEXT + 4);
}

#[test]
fn a_single_event_that_fails_on_a_used_instance_is_rerun_once_uncharged() {
    let mut shell = reading(RetryPolicy { max_attempts: 1, ..retry() });
    shell.fetch(P0, &[(0, 1)]);
    assert!(!shell.call().fresh);
    shell.fail(Fault::Timeout);
    assert!(shell.dead_letters.is_empty() && shell.call().fresh);
    shell.fail(Fault::Timeout);
    assert_eq!(shell.ack_dead_letter().reason, Reason::Fault(Fault::Timeout));
    assert_eq!(shell.kept_slots(), 0);
}

/// The guest is called once per event. Results before the fault count, and later events were not
/// run.
#[test]
fn a_known_failing_row_does_not_quarantine_the_other_lanes() {
    let mut shell = reading(retry());
    shell.warm_up(P0);
    shell.fetch(P0, &[(NEXT, 1), (NEXT + 1, 1), (NEXT + 2, 2), (NEXT + 3, 3)]);
    let call = shell.calls.remove(0);
    assert_eq!(call.lanes, [2, 1, 1]);
    let done = |done| LaneEnd { done, verdict: None };
    let failure = CallFailure { fault: Fault::Memory, failing_row: Some(1), fresh: false };
    let lanes = [done(1), done(0), done(0)];
    shell.give(Input::CallFailed {
        call: call.id,
        failure,
        lanes: &lanes,
        with_outputs: &[],
        output_bytes: &[],
    });
    assert_eq!(shell.core.counters().reruns_after_faults, 1);
    let fresh: Vec<_> = shell.calls.iter().map(|call| (call.rows.clone(), call.fresh)).collect();
    assert_eq!(fresh, [(vec![(P0, NEXT + 1)], true), (vec![(P0, NEXT + 2), (P0, NEXT + 3)], false)]);
}

/// After sixteen calls without a fault, a lane shares calls with other lanes again.
#[test]
fn quarantine_ends() {
    let mut shell = reading(retry());
    shell.warm_up(P0);
    let rows: Vec<_> = (NEXT..NEXT + 30).map(|offset| (offset, 1)).collect();
    shell.fetch(P0, &rows);
    assert_eq!(shell.call().rows.len(), 30);
    shell.fail(Fault::Trap);
    let mut sizes = Vec::new();
    while !shell.calls.is_empty() {
        sizes.push(shell.call().rows.len());
        shell.end(&[]);
    }
    // Thirty events were in the failed call. Each is rerun alone, and then the quarantine ends.
    assert_eq!(sizes, vec![1; 30]);
    let rows: Vec<_> = (NEXT + 30..NEXT + 34).map(|offset| (offset, 1)).collect();
    shell.fetch(P0, &rows);
    assert_eq!(shell.call().rows.len(), 4);
}

/// The strict batch retry. Offset 1 fails after 0 to 3 were dispatched. Offsets 4 and 5 are beyond
/// the barrier and wait for the commit.
#[test]
fn nothing_overtakes_a_round() {
    let mut shell = reading(RetryPolicy { scope: RetryScope::Partition, ..retry() });
    shell.fetch(P0, &[(0, 10), (1, 11), (2, 12), (3, 13)]);
    assert_eq!(shell.calls.len(), 4);
    shell.end(&[]);
    shell.end_with(RETRY);
    shell.fetch(P0, &[(4, 14), (5, 10)]);
    assert_eq!(
        shell.calls.iter().map(|call| call.rows[0].1).collect::<Vec<_>>(),
        [2, 3],
        "members of the round"
    );
    shell.end_all();
    let again = shell.wait_for_call();
    assert_eq!((again.rows[0].1, again.attempt), (1, 2));
    shell.end_all();
    assert!(shell.calls.is_empty(), "the round is settled, but not committed");
    shell.store_until(P0, 4);
    assert_eq!(shell.calls.iter().map(|call| call.rows[0].1).collect::<Vec<_>>(), [4, 5]);
    shell.end_all();
    shell.store_until(P0, 6);
}

#[test]
fn a_round_ends_with_its_ownership() {
    let mut shell = reading(RetryPolicy { scope: RetryScope::Partition, ..retry() });
    shell.fetch(P0, &[(0, 10), (1, 11)]);
    shell.end_with(RETRY);
    shell.end_all();
    shell.give(Input::Lost { request: REQUEST, partitions: &[P0] });
    assert_eq!((shell.core.view().lanes, shell.kept_slots()), (0, 0));
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    shell.start_at(P0, 0, b"");
    shell.fetch(P0, &[(0, 10), (1, 11), (2, 12), (3, 13), (4, 14)]);
    assert_eq!(shell.calls.len(), 4);
    assert!(shell.calls.iter().all(|call| call.attempt == 1), "attempts start again");
}

#[test]
fn a_revoke_does_not_wait_for_retries() {
    let mut shell = reading(retry());
    shell.fetch(P0, &[(0, 1), (1, 2)]);
    shell.end_with(RETRY);
    shell.end_all();
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    let commit = shell.store();
    assert_eq!(
        (commit.offset_of(P0), commit.entries[0].unclaimed),
        (Some(0), 0),
        "1 is in the completed set"
    );
    assert_eq!(shell.revoked, [[P0]]);
    assert_eq!((shell.core.view().lanes, shell.kept_slots()), (0, 0));
}

#[test]
fn a_retry_during_a_revoke_is_left_to_the_next_owner() {
    let mut shell = reading(retry());
    shell.fetch(P0, &[(0, 1), (1, 1)]);
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    shell.end_with(RETRY);
    assert_eq!(shell.revoked, [[P0]]);
    assert_eq!((shell.core.view().lanes, shell.kept_slots()), (0, 0));
}

#[test]
fn filtered_events_settle_without_a_call_and_unkeyed_ones_have_an_outcome() {
    let mut shell = reading(retry());
    let row = |offset, admission| FetchedRow {
        offset,
        timestamp: 0,
        bytes: 100,
        arena_slot: ArenaSlot(0),
        admission,
    };
    shell.give(Input::Fetched {
        partition: P0,
        rows: &[row(0, Admission::Filtered)],
        orders: &[],
        end: None,
        error: None,
    });
    assert_eq!((shell.store().offset_of(P0), shell.core.counters().filtered), (Some(1), 1));
    shell.fetch_as(P0, &[1], Admission::NoLaneKey);
    assert!(shell.calls.is_empty());
    assert_eq!(shell.ack_dead_letter().reason, Reason::NoLaneKey);
    shell.store_until(P0, 2);
    assert_eq!((shell.core.view().lanes, shell.kept_slots()), (0, 0));
}

#[test]
fn an_outcome_without_a_call_waits_for_the_producer_like_a_call() {
    let config = Config { retry: retry(), revoke_timeout: Duration::from_secs(60), ..Config::default() };
    let mut shell = Shell::reading(config, &[P0], 4);
    shell.give(Input::OutputBacklog { full: true });
    let offsets: Vec<i64> = (0..2_000).collect();
    for offset in &offsets {
        shell.fetch_as(P0, &[*offset], Admission::NoLaneKey);
    }
    assert!(shell.dead_letters.is_empty(), "there is no capacity for a dead letter");
    shell.give(Input::OutputBacklog { full: false });
    assert_eq!(shell.dead_letters.len(), 1_024, "the maximum in flight");
    shell.ack_dead_letter();
    assert_eq!(shell.dead_letters.len(), 1_024, "one was acknowledged, and the next one was sent");
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    while !shell.dead_letters.is_empty() {
        shell.ack_dead_letter();
    }
    // Dead letters that were not sent are left to the next owner.
    shell.store_until(P0, 1_025);
    assert_eq!(shell.revoked, [[P0]]);
    assert_eq!((shell.core.view().lanes, shell.kept_slots()), (0, 0));
}

/// Blocked dead letters of one topic block neither another topic nor the keyed events of their own
/// topic.
#[test]
fn outcomes_of_one_topic_do_not_wait_for_those_of_another() {
    let other = Partition { topic: 1, number: 0 };
    let config = Config { retry: retry(), topics: 2, ..Config::default() };
    let mut shell = Shell::reading(config, &[P0, other], 4);
    let offsets: Vec<i64> = (0..1_500).collect();
    shell.fetch_as(P0, &offsets, Admission::NoLaneKey);
    assert_eq!(shell.dead_letters.len(), 1_024);
    shell.fetch_as(other, &[0], Admission::NoLaneKey);
    assert_eq!(shell.dead_letters.last().map(|dead_letter| dead_letter.event.partition), Some(other));
    shell.fetch(P0, &[(1_500, 1)]);
    assert_eq!(shell.call().rows, [(P0, 1_500)]);
    assert_eq!(shell.core.ready_lanes(), 0, "no lane waits");
}

#[test]
fn a_rejected_output_fails_its_event_and_no_other() {
    let mut shell = reading(retry());
    shell.warm_up(P0);
    shell.fetch(P0, &[(NEXT, 1), (NEXT + 1, 1), (NEXT + 2, 1)]);
    let call = shell.end(&[0, 1, 2]);
    shell.give(Input::OutputRejected { call, row: 1 });
    shell.give(Input::EffectsAcked { call, row: 2 });
    assert!(shell.dead_letters.is_empty(), "the event before it has not settled");
    shell.give(Input::EffectsAcked { call, row: 0 });
    assert_eq!(
        (shell.dead_letters[0].event.offset, shell.dead_letters[0].reason),
        (NEXT + 1, Reason::OutputRejected)
    );
    shell.ack_dead_letter();
    assert_eq!(shell.store().offset_of(P0), Some(NEXT + 3));
}

/// An output known to be too large is not produced. No output after it is produced before its
/// event has an outcome.
#[test]
fn an_unpublishable_output_holds_back_the_outputs_behind_it() {
    let mut shell = reading(retry());
    shell.warm_up(P0);
    shell.fetch(P0, &[(NEXT, 1), (NEXT + 1, 1), (NEXT + 2, 1), (NEXT + 3, 2)]);
    let call = shell.calls.remove(0).id;
    let ends =
        [LaneEnd { done: 1, verdict: Some(Verdict::Unpublishable) }, LaneEnd { done: 1, verdict: None }];
    shell.end_call(call, &ends, &[0, 1, 2, 3]);
    assert_eq!(
        shell.produced.last(),
        Some(&(call, vec![0, 3])),
        "no outputs of the row or of later rows in its lane"
    );
    assert!(shell.dead_letters.is_empty(), "the event before it has not settled");
    shell.give(Input::EffectsAcked { call, row: 0 });
    let (event, reason) = (shell.dead_letters[0].event.offset, shell.dead_letters[0].reason);
    assert_eq!((event, reason), (NEXT + 1, Reason::OutputRejected));
    assert!(shell.calls.is_empty(), "its lane waits for the dead letter");
    shell.ack_dead_letter();
    assert_eq!(shell.core.counters().reruns_after_unpublishable, 1);
    let again = shell.calls.remove(0);
    assert_eq!((again.rows, again.attempt), (vec![(P0, NEXT + 2)], 1), "uncharged");
}

/// A call of a guest with outbound requests does not continue for events of a revoked partition.
#[test]
fn kept_events_of_a_cancelled_call_run_again() {
    let config = Config { cancels_partly_revoked_calls: true, max_batch_is_fixed: true, ..Config::default() };
    let mut shell = Shell::reading(config, &[P0, shell::P1], 1);
    shell.warm_up(P0);
    shell.fetch(P0, &[(NEXT, 1)]); // occupies the only worker
    shell.fetch(P0, &[(NEXT + 1, 2)]);
    shell.fetch(shell::P1, &[(0, 1)]);
    shell.end(&[]);
    let call = shell.call().clone();
    assert_eq!(call.rows.len(), 2, "one call carries rows of both: {call:?}");
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    shell.wait(Config::default().revoke_timeout + STEP);
    assert_eq!(shell.cancelled, [call.id]);
    shell.give(Input::CallTerminated { call: call.id });
    assert_eq!(shell.call().rows, [(shell::P1, 0)], "it runs again, uncharged");
    assert_eq!(shell.call().attempt, 1);
}
