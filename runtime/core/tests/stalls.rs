//! The reasons reported for a partition without progress, with one test per reason. Failed reads
//! are tested in `read_errors`.

mod shell;

use std::time::Duration;

use keylane_core::{BlockedOn, Config, Input, LaneEnd, LogEnd, RetryPolicy, Verdict};
use shell::{NEXT, P0, P1, REQUEST, Shell};

/// A partition with one event.
fn with_event(calls: u32, retry: RetryPolicy) -> Shell {
    let mut shell = Shell::reading(Config { retry, ..Config::default() }, &[P0], calls);
    shell.fetch(P0, &[(0, 1)]);
    shell
}

/// The attempt and the reason of the stall that is reported after the usual time.
fn stall(shell: &mut Shell) -> (u32, BlockedOn) {
    stall_at(shell, 0)
}

/// The same for a stall at this offset.
fn stall_at(shell: &mut Shell, offset: i64) -> (u32, BlockedOn) {
    shell.wait(Duration::from_secs(20));
    assert_eq!(shell.stalls.len(), 1, "it is reported once");
    let stall = shell.stalls.first().expect("counted above");
    assert_eq!((stall.partition, stall.offset), (P0, Some(offset)));
    (stall.attempt, stall.blocked_on)
}

#[test]
fn an_event_that_no_worker_takes_is_queued() {
    let mut shell = with_event(0, RetryPolicy::default());
    assert_eq!(stall(&mut shell), (0, BlockedOn::Undispatched));
}

#[test]
fn a_guest_that_does_not_return_is_the_reason() {
    let mut shell = with_event(1, RetryPolicy::default());
    assert_eq!(stall(&mut shell), (1, BlockedOn::Guest));
}

#[test]
fn an_event_between_two_attempts_is_reported_with_its_next_attempt() {
    let minute = Duration::from_secs(60);
    let mut shell = with_event(
        1,
        RetryPolicy { initial_interval: minute, max_interval: minute, ..RetryPolicy::default() },
    );
    shell.end_with(Verdict::Retry { after: None });
    assert_eq!(stall(&mut shell), (2, BlockedOn::Retry));
}

#[test]
fn outputs_that_are_not_acknowledged_are_the_reason() {
    let mut shell = with_event(1, RetryPolicy::default());
    shell.end(&[0]);
    assert_eq!(stall(&mut shell), (1, BlockedOn::OutputsUnacked));
}

#[test]
fn a_dead_letter_that_is_not_acknowledged_is_the_reason() {
    let mut shell = with_event(1, RetryPolicy::default());
    shell.end_with(Verdict::Reject);
    assert_eq!(stall(&mut shell), (1, BlockedOn::DeadLetterUnacked));
}

/// Offsets of different partitions may be equal, also within one call.
#[test]
fn an_event_of_another_partition_is_not_the_reason() {
    let mut shell = Shell::reading(Config::default(), &[P0, P1], 1);
    shell.warm_up(P0);
    shell.warm_up(P1);
    shell.give(Input::OutputBacklog { full: true });
    shell.fetch(P0, &[(NEXT, 1)]);
    shell.fetch(P1, &[(NEXT, 2)]);
    shell.give(Input::OutputBacklog { full: false });
    let call = shell.calls.remove(0);
    assert_eq!(call.rows, [(P0, NEXT), (P1, NEXT)], "one call carries both");
    let ends = [LaneEnd { done: 0, verdict: Some(Verdict::Reject) }, LaneEnd { done: 1, verdict: None }];
    shell.end_call(call.id, &ends, &[1]);
    shell.wait(Duration::from_secs(20));
    let reported: Vec<_> =
        shell.stalls.iter().map(|stall| (stall.partition, stall.offset, stall.blocked_on)).collect();
    let expected =
        [(P0, Some(NEXT), BlockedOn::DeadLetterUnacked), (P1, Some(NEXT), BlockedOn::OutputsUnacked)];
    assert_eq!(reported, expected);
}

/// A call is kept while another lane of it waits for acknowledgements, although its first row is in a newer call.
#[test]
fn an_older_call_with_the_event_is_not_the_reason() {
    let retry = RetryPolicy { initial_interval: Duration::ZERO, ..RetryPolicy::default() };
    let mut shell = Shell::reading(Config { retry, ..Config::default() }, &[P0], 2);
    shell.warm_up(P0);
    // The first call has slot 0, so that the newer call of the event gets a lower slot than the older one.
    shell.fetch(P0, &[(NEXT, 9)]);
    let first = shell.calls.remove(0);
    shell.give(Input::OutputBacklog { full: true });
    shell.fetch(P0, &[(NEXT + 1, 1), (NEXT + 2, 2)]);
    shell.give(Input::OutputBacklog { full: false });
    let older = shell.calls.remove(0);
    assert_eq!(older.rows, [(P0, NEXT + 1), (P0, NEXT + 2)], "one call carries both");
    shell.end_call(first.id, &[LaneEnd { done: 1, verdict: None }], &[]);
    let again = Verdict::Retry { after: None };
    let ends = [LaneEnd { done: 0, verdict: Some(again) }, LaneEnd { done: 1, verdict: None }];
    shell.end_call(older.id, &ends, &[1]);
    let newer = shell.wait_for_call();
    assert_eq!(newer.rows, [(P0, NEXT + 1)], "it is retried while the output is in flight");
    assert!(newer.id.slot < older.id.slot, "the older call is scanned last");
    assert_eq!(stall_at(&mut shell, NEXT + 1), (2, BlockedOn::Guest));
}

#[test]
fn a_commit_that_is_not_stored_is_the_reason() {
    let mut shell = with_event(1, RetryPolicy::default());
    shell.end_all();
    shell.wait(Duration::from_secs(20));
    let stall = shell.stalls.first().expect("it is reported");
    assert_eq!((stall.offset, stall.blocked_on), (Some(1), BlockedOn::Commit));
    shell.store_until(P0, 1);
    shell.give(Input::Tick);
    shell.wait(Duration::from_secs(2));
    assert!(shell.core.view().partitions.iter().all(|partition| partition.stalled_since.is_none()));
}

#[test]
fn a_stall_that_lasts_is_reported_every_ten_minutes() {
    let mut shell = with_event(1, RetryPolicy::default());
    shell.wait(Duration::from_secs(15 + 3 * 600 + 20));
    let reported: Vec<_> = shell.stalls.iter().map(|stall| (stall.offset, stall.blocked_on)).collect();
    assert_eq!(reported, [(Some(0), BlockedOn::Guest); 4]);
    let view = shell.core.view();
    let since = view.partitions.first().and_then(|partition| partition.stalled_since);
    assert!(since.is_some_and(|since| since <= Duration::from_secs(1)), "{since:?}");
}

/// A start that is not found is reported, and its stall ends when it is found.
#[test]
fn a_lookup_without_a_result_is_the_reason() {
    let mut shell = Shell::new(Config::default());
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    shell.wait(Duration::from_secs(20));
    let reported: Vec<_> = shell.stalls.iter().map(|stall| (stall.offset, stall.blocked_on)).collect();
    assert_eq!(reported, [(None, BlockedOn::StartLookup)]);
    assert!(shell.core.view().partitions.iter().all(|partition| partition.stalled_since.is_some()));
    shell.start_at(P0, 0, b"");
    assert_eq!(shell.stalls_ended, [P0]);
    assert!(shell.core.view().partitions.iter().all(|partition| partition.stalled_since.is_none()));
}

/// The same, if the partition is revoked before.
#[test]
fn a_lookup_that_is_revoked_has_no_stall_left() {
    let mut shell = Shell::new(Config::default());
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    shell.wait(Duration::from_secs(20));
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    assert_eq!((shell.stalls.len(), shell.stalls_ended.as_slice()), (1, &[P0][..]));
    assert_eq!(shell.core.view().partitions, [], "nothing is owned");
}

/// The reason is that nothing arrived for the usual time, not that this was known for so long.
#[test]
fn records_that_do_not_arrive_are_reported_from_the_last_arrival_on() {
    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.warm_up(P0);
    shell.wait(Duration::from_secs(14));
    shell.give(Input::LogEnd { partition: P0, end: LogEnd::At(NEXT + 1) });
    assert_eq!(shell.stalls, [], "the record may still arrive");
    shell.wait(Duration::from_secs(3));
    let reported: Vec<_> = shell.stalls.iter().map(|stall| (stall.offset, stall.blocked_on)).collect();
    assert_eq!(reported, [(Some(NEXT), BlockedOn::NotFetched { leader_responds: true })]);
    shell.fetch(P0, &[(NEXT, 1)]);
    assert_eq!(shell.stalls_ended, [P0]);
}
