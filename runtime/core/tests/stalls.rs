//! The reasons reported for a partition without progress, with one test per reason. Failed reads
//! are tested in `read_errors`.

mod shell;

use std::time::Duration;

use keylane_core::{BlockedOn, Config, Input, RetryPolicy, Verdict};
use shell::{P0, Shell};

/// A partition with one event.
fn with_event(calls: u32, retry: RetryPolicy) -> Shell {
    let mut shell = Shell::reading(Config { retry, ..Config::default() }, &[P0], calls);
    shell.fetch(P0, &[(0, 1)]);
    shell
}

/// The attempt and the reason of the stall that is reported after the usual time.
fn stall(shell: &mut Shell) -> (u32, BlockedOn) {
    shell.wait(Duration::from_secs(20));
    assert_eq!(shell.stalls.len(), 1, "it is reported once");
    let stall = shell.stalls.first().expect("counted above");
    assert_eq!((stall.partition, stall.offset), (P0, 0));
    (stall.attempt, stall.blocked_on)
}

#[test]
fn an_event_that_no_worker_takes_is_queued() {
    let mut shell = with_event(0, RetryPolicy::default());
    assert_eq!(stall(&mut shell), (0, BlockedOn::Queued));
}

#[test]
fn a_guest_that_does_not_return_is_named() {
    let mut shell = with_event(1, RetryPolicy::default());
    assert_eq!(stall(&mut shell), (1, BlockedOn::Guest));
}

#[test]
fn an_event_between_two_attempts_is_named_with_its_next_attempt() {
    let minute = Duration::from_secs(60);
    let mut shell = with_event(
        1,
        RetryPolicy { initial_interval: minute, max_interval: minute, ..RetryPolicy::default() },
    );
    shell.end_with(Verdict::Retry { after: None });
    assert_eq!(stall(&mut shell), (2, BlockedOn::Retry));
}

#[test]
fn outputs_that_are_not_acknowledged_are_named() {
    let mut shell = with_event(1, RetryPolicy::default());
    shell.end(&[0]);
    assert_eq!(stall(&mut shell), (1, BlockedOn::Unacked));
}

#[test]
fn a_dead_letter_that_is_not_acknowledged_is_named() {
    let mut shell = with_event(1, RetryPolicy::default());
    shell.end_with(Verdict::Reject);
    assert_eq!(stall(&mut shell), (1, BlockedOn::DeadLetter));
}

#[test]
fn a_commit_that_is_not_stored_is_named() {
    let mut shell = with_event(1, RetryPolicy::default());
    shell.end_all();
    shell.wait(Duration::from_secs(20));
    let stall = shell.stalls.first().expect("it is reported");
    assert_eq!((stall.offset, stall.blocked_on), (1, BlockedOn::Commit));
    shell.store_until(P0, 1);
    shell.give(Input::Tick);
    shell.wait(Duration::from_secs(2));
    assert_eq!(shell.core.view().partitions.first().and_then(|partition| partition.stall), None);
}
