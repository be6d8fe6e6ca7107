//! Read errors: their effect on the reader, when it is repositioned, and the reports.

mod shell;

use std::time::Duration;

use keylane_core::{BlockedOn, Config, Input, Notice, OutOfRange, Partition, ReadError};
use shell::{P0, P1, REQUEST, Shell};

const OUTSIDE: ReadError = ReadError::OutOfRange { log_start: 0, log_end: 50 };

fn fail_read(shell: &mut Shell, why: ReadError) {
    shell.read(P0, &[], None, Some(why));
}

/// The times at which the reader is repositioned within the next two minutes, in whole seconds from now.
fn reposition_times(shell: &mut Shell) -> Vec<u64> {
    let begin = shell.uptime;
    let mut at = Vec::new();
    while shell.uptime < begin + Duration::from_secs(120) {
        let before = shell.repositions.len() + shell.reassigned.len();
        shell.wait(Duration::from_millis(100));
        if shell.repositions.len() + shell.reassigned.len() > before {
            at.push((shell.uptime - begin).as_secs());
        }
    }
    at
}

/// After any error, the offsets that are missing after it may not have been read.
#[test]
fn no_gap_after_an_error_counts() {
    for why in [
        ReadError::Interrupted,
        ReadError::Corrupt,
        ReadError::Unknown,
        ReadError::Denied,
        ReadError::Missing,
        ReadError::SeekFailed,
    ] {
        let mut shell = Shell::reading(Config::default(), &[P0], 4);
        shell.read(P0, &[(0, 1)], None, Some(why));
        let before = shell.repositions.len();
        shell.fetch(P0, &[(5, 1)]);
        assert_eq!(shell.repositions[before..], [(P0, 1)], "{why:?}");
        assert_eq!(shell.kept_slots(), 1, "{why:?}: only the first row was admitted");
    }
}

#[test]
fn an_interrupted_read_continues_by_itself() {
    let mut shell = Shell::reading(Config::default(), &[P0], 4);
    shell.read(P0, &[(0, 1)], None, Some(ReadError::Interrupted));
    shell.fetch(P0, &[(1, 1)]);
    assert_eq!((shell.repositions.len(), shell.reassigned.len(), shell.stalls.len()), (0, 0, 0));
    assert_eq!(shell.kept_slots(), 2);
}

#[test]
fn a_damaged_read_is_repeated_immediately_and_then_with_growing_intervals() {
    for why in [ReadError::Corrupt, ReadError::Unknown] {
        let mut shell = Shell::reading(Config::default(), &[P0], 4);
        fail_read(&mut shell, why);
        assert_eq!((&shell.repositions[..], shell.stalls.len()), (&[(P0, 0)][..], 0), "{why:?}");
        fail_read(&mut shell, why);
        assert_eq!(shell.repositions.len(), 1, "{why:?} must not be repeated immediately a second time");
        let reported: Vec<_> =
            shell.stalls.iter().map(|stall| (stall.partition, stall.offset, stall.blocked_on)).collect();
        assert_eq!(reported, [(P0, Some(0), BlockedOn::ReadFailed(why))]);
        assert_eq!(reposition_times(&mut shell), [1, 3, 7, 15, 31, 63], "{why:?}");
        assert_eq!(shell.stalls.len(), 1, "{why:?} is reported once");
    }
}

#[test]
fn a_denied_read_is_reported_immediately_and_retried_without_further_errors() {
    for why in [ReadError::Denied, ReadError::Missing, ReadError::SeekFailed] {
        let mut shell = Shell::reading(Config::default(), &[P0], 4);
        fail_read(&mut shell, why);
        assert_eq!(shell.stalls.len(), 1, "{why:?}");
        assert_eq!(reposition_times(&mut shell), [1, 2, 4, 8, 16, 32, 64], "{why:?}");
        assert_eq!(
            shell.repositions.len(),
            0,
            "{why:?}: the client can't seek a partition that it does not fetch"
        );
        shell.fetch(P0, &[(0, 1)]);
        assert_eq!(shell.stalls_ended, [P0], "{why:?} is over");
        assert_eq!(reposition_times(&mut shell), [0; 0], "{why:?}");
    }
}

#[test]
fn the_end_of_the_log_ends_a_stall_like_a_row() {
    let mut shell = Shell::reading(Config::default(), &[P0], 4);
    fail_read(&mut shell, ReadError::Denied);
    shell.read(P0, &[], Some(0), None);
    assert_eq!(shell.stalls_ended, [P0]);
}

#[test]
fn a_successful_read_resets_the_failure() {
    let mut shell = Shell::reading(Config::default(), &[P0], 4);
    for offset in 0..3 {
        fail_read(&mut shell, ReadError::Corrupt);
        shell.fetch(P0, &[(offset, 1)]);
    }
    assert_eq!(shell.repositions, [(P0, 0), (P0, 1), (P0, 2)], "each read is repeated immediately");
    assert_eq!(shell.stalls.len(), 0);
}

/// The ledger is inside the log, so no ownership needs to end, even if the error repeats.
#[test]
fn a_reader_outside_the_log_is_repositioned_and_no_ownership_ends() {
    let mut shell =
        Shell::reading(Config { out_of_range: OutOfRange::Latest, ..Config::default() }, &[P0], 4);
    shell.fetch(P0, &[(0, 1)]);
    for _ in 0..3 {
        fail_read(&mut shell, OUTSIDE);
    }
    assert_eq!(shell.reassigned, [(P0, 1)]);
    assert_eq!(reposition_times(&mut shell).first(), Some(&1));
    let has_ended = shell.notices.iter().any(|notice| matches!(notice, Notice::OwnershipEnded { .. }));
    assert!(!has_ended && shell.cancelled.is_empty());
}

/// The client may reject the position of an assign before the first read.
#[test]
fn a_partition_that_was_not_assigned_is_assigned_again() {
    let mut shell = Shell::new(Config::default());
    shell.give(Input::CapacityAdded { calls: 4 });
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    shell.give(Input::StartResolved { partition: P0, start: shell::start() });
    fail_read(&mut shell, ReadError::SeekFailed);
    shell.store();
    assert_eq!(reposition_times(&mut shell).first(), Some(&1));
    assert_eq!(shell.reassigned.first(), Some(&(P0, 0)));
}

#[test]
fn a_failure_ends_with_its_ownership() {
    let mut shell = Shell::reading(Config::default(), &[P0, P1], 4);
    fail_read(&mut shell, ReadError::Denied);
    shell.give(Input::Lost { request: REQUEST, partitions: &[P0] });
    assert_eq!(shell.stalls_ended, [P0]);
    assert_eq!(reposition_times(&mut shell), [0; 0]);
}

/// A handler whose partitions have all stopped must not stay in its group.
#[test]
fn a_handler_whose_partitions_have_all_stopped_reports_it() {
    let partitions: [Partition; 2] = [P0, P1];
    let mut shell = Shell::reading(Config::default(), &partitions, 4);
    let far = ReadError::OutOfRange { log_start: 100, log_end: 200 };
    for (stopped, partition) in partitions.into_iter().enumerate() {
        assert_eq!(shell.count("AllStopped"), 0, "{stopped} of 2 have stopped");
        shell.read(partition, &[], None, Some(far));
        shell.wait(Duration::from_secs(3));
    }
    assert_eq!((shell.count("PartitionStopped"), shell.count("AllStopped")), (2, 1));
}
