//! Read errors: what each of them means for the reader, when it is put back, and what is reported.

mod shell;

use std::time::Duration;

use keylane_core::{BlockedOn, Config, Input, OutOfRange, Partition, ReadError};
use shell::{P0, P1, REQUEST, Shell};

const OUTSIDE: ReadError = ReadError::OutOfRange { log_start: 0, log_end: 50 };

fn fails(shell: &mut Shell, why: ReadError) {
    shell.read(P0, &[], None, Some(why));
}

/// Whole seconds at which the reader is put back within the next two minutes, from now on.
fn put_back_at(shell: &mut Shell) -> Vec<u64> {
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

/// Whatever the error was, offsets that are missing behind it may have been read by nobody.
#[test]
fn no_gap_behind_an_error_is_believed() {
    for why in [
        ReadError::Interrupted,
        ReadError::Damaged,
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
        assert_eq!(shell.kept_places(), 1, "{why:?}: only the first row was admitted");
    }
}

#[test]
fn an_interrupted_read_goes_on_by_itself() {
    let mut shell = Shell::reading(Config::default(), &[P0], 4);
    shell.read(P0, &[(0, 1)], None, Some(ReadError::Interrupted));
    shell.fetch(P0, &[(1, 1)]);
    assert_eq!((shell.repositions.len(), shell.reassigned.len(), shell.stalls.len()), (0, 0, 0));
    assert_eq!(shell.kept_places(), 2);
}

#[test]
fn what_may_be_damaged_on_its_way_is_read_again_at_once_and_then_later_each_time() {
    for why in [ReadError::Damaged, ReadError::Unknown] {
        let mut shell = Shell::reading(Config::default(), &[P0], 4);
        fails(&mut shell, why);
        assert_eq!((&shell.repositions[..], shell.stalls.len()), (&[(P0, 0)][..], 0), "{why:?}");
        fails(&mut shell, why);
        assert_eq!(shell.repositions.len(), 1, "{why:?}: not at once again");
        let reported: Vec<_> =
            shell.stalls.iter().map(|stall| (stall.partition, stall.offset, stall.blocked_on)).collect();
        assert_eq!(reported, [(P0, 0, BlockedOn::ReadFailed(why))]);
        assert_eq!(put_back_at(&mut shell), [1, 3, 7, 15, 31, 63], "{why:?}");
        assert_eq!(shell.stalls.len(), 1, "{why:?} is reported once");
    }
}

#[test]
fn what_was_refused_is_reported_at_once_and_tried_again_though_nothing_more_is_said() {
    for why in [ReadError::Denied, ReadError::Missing, ReadError::SeekFailed] {
        let mut shell = Shell::reading(Config::default(), &[P0], 4);
        fails(&mut shell, why);
        assert_eq!(shell.stalls.len(), 1, "{why:?}");
        assert_eq!(put_back_at(&mut shell), [1, 2, 4, 8, 16, 32, 64], "{why:?}");
        assert_eq!(shell.repositions.len(), 0, "{why:?}: the client refuses to seek where it does not fetch");
        shell.fetch(P0, &[(0, 1)]);
        assert_eq!(shell.stalls_ended, [P0], "{why:?} has passed");
        assert_eq!(put_back_at(&mut shell), [0; 0], "{why:?}");
    }
}

#[test]
fn an_end_is_as_good_as_a_row() {
    let mut shell = Shell::reading(Config::default(), &[P0], 4);
    fails(&mut shell, ReadError::Denied);
    shell.read(P0, &[], Some(0), None);
    assert_eq!(shell.stalls_ended, [P0]);
}

#[test]
fn a_failure_that_is_over_is_forgotten() {
    let mut shell = Shell::reading(Config::default(), &[P0], 4);
    for offset in 0..3 {
        fails(&mut shell, ReadError::Damaged);
        shell.fetch(P0, &[(offset, 1)]);
    }
    assert_eq!(shell.repositions, [(P0, 0), (P0, 1), (P0, 2)], "each is read again at once");
    assert_eq!(shell.stalls.len(), 0);
}

/// Also if it happens again and again: the ledger is inside the log, so nothing of it needs to end.
#[test]
fn a_reader_outside_the_log_is_put_back_and_no_session_ends() {
    let mut shell =
        Shell::reading(Config { out_of_range: OutOfRange::Latest, ..Config::default() }, &[P0], 4);
    shell.fetch(P0, &[(0, 1)]);
    for _ in 0..3 {
        fails(&mut shell, OUTSIDE);
    }
    assert_eq!(shell.reassigned, [(P0, 1)]);
    assert_eq!(put_back_at(&mut shell).first(), Some(&1));
    assert_eq!((shell.saw("Notice(OwnershipEnded"), shell.cancelled.len()), (0, 0));
}

/// The client may refuse the position of an assign, before anything was read.
#[test]
fn a_partition_that_was_not_assigned_is_assigned_again() {
    let mut shell = Shell::new(Config::default());
    shell.give(Input::WorkersFree { calls: 4 });
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    shell.give(Input::StartResolved { partition: P0, start: shell::start() });
    fails(&mut shell, ReadError::SeekFailed);
    shell.store();
    assert_eq!(put_back_at(&mut shell).first(), Some(&1));
    assert_eq!(shell.reassigned.first(), Some(&(P0, 0)));
}

#[test]
fn a_failure_ends_with_its_ownership() {
    let mut shell = Shell::reading(Config::default(), &[P0, P1], 4);
    fails(&mut shell, ReadError::Denied);
    shell.give(Input::Lost { request: REQUEST, partitions: &[P0] });
    assert_eq!(shell.stalls_ended, [P0]);
    assert_eq!(put_back_at(&mut shell), [0; 0]);
}

/// A handler that can't go on anywhere must not stay in its group as if all were well.
#[test]
fn a_handler_whose_partitions_have_all_stopped_says_so() {
    let partitions: [Partition; 2] = [P0, P1];
    let mut shell = Shell::reading(Config::default(), &partitions, 4);
    let far = ReadError::OutOfRange { log_start: 100, log_end: 200 };
    for (stopped, partition) in partitions.into_iter().enumerate() {
        assert_eq!(shell.saw("AllStopped"), 0, "{stopped} of 2 have stopped");
        shell.read(partition, &[], None, Some(far));
        shell.wait(Duration::from_secs(3));
    }
    assert_eq!((shell.saw("PartitionStopped"), shell.saw("AllStopped")), (2, 1));
}
