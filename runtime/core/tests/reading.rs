//! Permissions to read, and the gaps that count.

mod shell;

use keylane_core::{Config, Input, Partition, ReadError};
use shell::{P0, P1, REQUEST, Shell, start};

fn offsets(shell: &Shell) -> Vec<i64> {
    shell.calls.iter().flat_map(|call| call.rows.iter().map(|row| row.1)).collect()
}

#[test]
fn reading_continues_at_the_smallest_limit() {
    for max_queued in [1, 2, 3, 4, 5, 100] {
        let mut shell = Shell::reading(Config { max_queued, ..Config::default() }, &[P0], 4);
        for offset in 0..20 {
            shell.fetch(P0, &[(offset, 1)]);
            shell.end_all();
        }
        shell.clear_records();
        shell.fetch(P0, &[(20, 1)]);
        shell.end_all();
        assert!(shell.reads.contains(&P0), "max_queued = {max_queued}: reading has stopped");
    }
}

#[test]
fn a_gap_across_an_answered_assign_does_not_count() {
    let mut shell = Shell::reading(Config::default(), &[P0], 4);
    shell.fetch(P0, &[(0, 1)]);
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P1] });
    // Records that the reader had already fetched still arrive, without a gap.
    shell.fetch(P0, &[(1, 1)]);
    shell.start_at(P1, 0, b"");
    assert_eq!(shell.assigned, [[P1]]);
    shell.fetch(P0, &[(5, 1)]);
    assert_eq!(shell.repositions, [(P0, 2)], "the answer may have moved readers");
    shell.fetch(P0, &[(5, 1)]);
    assert_eq!(shell.repositions.len(), 1, "now the gap counts");
}

#[test]
fn a_gap_across_an_answered_revoke_does_not_count() {
    let mut shell = Shell::reading(Config::default(), &[P0, P1], 4);
    shell.fetch(P1, &[(0, 1)]);
    shell.fetch(P0, &[(0, 1)]);
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P1] });
    shell.fetch(P0, &[(1, 1)]);
    assert!(shell.revoked.is_empty(), "a call of the partition is in flight");
    shell.end_all();
    shell.store();
    assert_eq!(shell.revoked, [[P1]]);
    shell.fetch(P0, &[(5, 1)]);
    assert_eq!(shell.repositions, [(P0, 2)], "the answer may have moved readers");
}

/// The missing offsets may hold events: only a read that begins at the ledger's next offset can show that they do not.
#[test]
fn the_end_of_a_read_whose_rows_were_ignored_does_not_count() {
    let mut shell = Shell::reading(Config::default(), &[P0], 4);
    shell.read(P0, &[(3, 1), (4, 1)], Some(5), None);
    assert_eq!((offsets(&shell), &shell.repositions[..]), (vec![], &[(P0, 0)][..]));
    shell.read(P0, &[(3, 1), (4, 1)], Some(5), None);
    shell.end_all();
    assert_eq!(shell.kept_slots(), 0, "both were handled");
    assert_eq!(shell.store().offset_of(P0), Some(5));
}

#[test]
fn the_error_of_a_read_whose_rows_or_end_were_ignored_does_not_count() {
    let error = Some(ReadError::OutOfRange { log_start: 0, log_end: 2 });
    for (rows, end) in [(&[(3, 1)][..], None), (&[], Some(3))] {
        let mut shell = Shell::reading(Config::default(), &[P0], 4);
        shell.read(P0, rows, end, error);
        assert_eq!(shell.repositions, [(P0, 0)], "{rows:?} {end:?}");
        assert!(shell.reassigned.is_empty(), "{rows:?} {end:?}: the error belongs to another position");
    }
}

#[test]
fn a_read_is_processed_in_order() {
    let mut shell = Shell::reading(Config::default(), &[P0], 4);
    shell.read(P0, &[(0, 1), (1, 1)], Some(4), Some(ReadError::Corrupt));
    assert_eq!(shell.repositions, [(P0, 4)], "rows and end come before the error");
    shell.end_all();
    assert_eq!(shell.store().offset_of(P0), Some(4));
}

#[test]
fn adding_a_late_partition_moves_readers_too() {
    let mut shell = Shell::new(Config::default());
    shell.give(Input::CapacityAdded { calls: 4 });
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0, P1] });
    shell.start_at(P0, 0, b"");
    shell.wait(Config::default().lookup_timeout);
    assert_eq!(shell.assigned, [[P0]], "the group does not wait longer");
    shell.fetch(P0, &[(0, 1)]);
    shell.start_at(P1, 0, b"");
    assert_eq!(shell.assigned, [[P0], [P1]]);
    shell.fetch(P0, &[(5, 1)]);
    assert_eq!(shell.repositions, [(P0, 1)]);
}

#[test]
fn rows_of_a_partition_that_is_not_owned_are_released() {
    let mut shell = Shell::new(Config::default());
    shell.fetch(P0, &[(0, 1), (1, 1)]);
    assert_eq!(shell.kept_slots(), 0);
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    shell.fetch(P0, &[(0, 1)]);
    assert_eq!(shell.kept_slots(), 0, "its start is not resolved");
    shell.give(Input::StartResolved { partition: P0, start: start() });
    shell.fetch(P0, &[(0, 1)]);
    assert_eq!((shell.kept_slots(), offsets(&shell)), (0, vec![]), "its start is not committed");
}

#[test]
fn the_share_of_memory_grows_when_partitions_are_released() {
    let config = Config { arena_bytes: 4000, ..Config::default() };
    let partitions: Vec<Partition> = (0..4).map(|number| Partition { topic: 0, number }).collect();
    let mut shell = Shell::reading(config, &partitions, 1);
    let rows: Vec<_> = (0..10).map(|offset| (offset, 1)).collect();
    shell.fetch(P0, &rows);
    assert!(!shell.reads.contains(&P0), "ten events of 100 bytes use up its share");
    shell.give(Input::Lost { request: REQUEST, partitions: &partitions[1..] });
    shell.end(&[]);
    assert!(shell.reads.contains(&P0), "the partition may use all the memory");
}

#[test]
#[should_panic(expected = "a limit must not be zero")]
fn a_limit_of_zero_is_refused() {
    Shell::new(Config { max_batch: 0, ..Config::default() });
}
