//! The start of an ownership: lookups, answered assigns, and starts outside the log.

mod shell;

use std::time::Duration;

use keylane_core::codec::{Encoder, Identity};
use keylane_core::{CommittedStart, Config, Input, Notice, OutOfRange, PartitionStart, ReadError};
use shell::{P0, P1, REQUEST, Shell, start};

/// A commit at offset 0 that claims offset 1, as an earlier owner left it.
fn set_claiming_offset_1() -> String {
    let mut shell = Shell::reading(Config::default(), &[P0], 2);
    shell.fetch(P0, &[(0, 1), (1, 2)]);
    shell.calls.remove(0);
    shell.end(&[]);
    shell.store().sets.remove(0)
}

fn ignored(shell: &Shell) -> usize {
    shell.notices.iter().filter(|notice| matches!(notice, Notice::MetadataIgnored { .. })).count()
}

#[test]
fn a_set_waits_for_the_log_end_and_looks_it_up_again() {
    let set = set_claiming_offset_1();
    let committed = Some(CommittedStart { offset: 0, metadata: set.as_bytes() });
    let unknown = PartitionStart { committed, log_end: None, ..start() };
    let mut shell = Shell::new(Config::default());
    shell.give(Input::CapacityAdded { calls: 4 });
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    shell.give(Input::StartResolved { partition: P0, start: unknown });
    shell.wait(Duration::from_secs(1));
    assert_eq!(shell.lookups, [P0, P0], "the log end is looked up again");
    assert!(shell.assigned.is_empty());
    shell.give(Input::StartResolved { partition: P0, start: PartitionStart { committed, ..start() } });
    assert_eq!((shell.assigned.len(), ignored(&shell)), (1, 0));
    shell.fetch(P0, &[(0, 1), (1, 2)]);
    assert_eq!(shell.calls.len(), 1, "offset 1 is claimed");
}

#[test]
fn the_highest_commit_of_all_lookups_counts() {
    let set = set_claiming_offset_1();
    let mut shell = Shell::new(Config::default());
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    let found = |offset, metadata, log_end| {
        let committed = Some(CommittedStart { offset, metadata });
        Input::StartResolved { partition: P0, start: PartitionStart { committed, log_end, ..start() } }
    };
    shell.give(found(5, b"kl1:of-5", None));
    // A late commit of an older owner has replaced the one just found.
    shell.give(found(0, set.as_bytes(), Some(100)));
    let started = shell.notices.iter().find_map(|notice| {
        let Notice::OwnershipStarted { offset, claimed, .. } = notice else { return None };
        Some((*offset, *claimed))
    });
    assert_eq!(started, Some((5, 0)));
}

#[test]
fn an_unknown_log_end_does_not_hold_a_partition_forever() {
    let set = set_claiming_offset_1();
    let committed = Some(CommittedStart { offset: 0, metadata: set.as_bytes() });
    let unknown = PartitionStart { committed, log_end: None, ..start() };
    let mut shell = Shell::new(Config::default());
    shell.give(Input::CapacityAdded { calls: 4 });
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    shell.give(Input::StartResolved { partition: P0, start: unknown });
    shell.wait(Config::default().lookup_timeout);
    assert_eq!(shell.assigned, [[P0]]);
    assert_eq!(ignored(&shell), 1, "the ignored set is reported");
    shell.fetch(P0, &[(0, 1), (1, 2)]);
    assert_eq!(shell.calls.len(), 2);
    // Without a set, the start does not wait.
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P1] });
    let committed = Some(CommittedStart { offset: 5, metadata: b"" });
    shell.give(Input::StartResolved {
        partition: P1,
        start: PartitionStart { committed, log_end: None, ..start() },
    });
    assert_eq!(shell.assigned, [[P0], [P1]]);
}

#[test]
fn a_failed_lookup_is_repeated_and_the_partition_is_added_late() {
    let mut shell = Shell::new(Config::default());
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0, P1] });
    shell.start_at(P0, 0, b"");
    for lookups in 3..14 {
        shell.give(Input::LookupFailed { partition: P1, transaction_open: false });
        shell.wait(Duration::from_millis(500));
        assert_eq!(shell.lookups.len(), lookups);
    }
    assert_eq!(shell.assigned, [[P0]]);
    shell.start_at(P1, 7, b"");
    assert_eq!((shell.assigned.last(), shell.reads.last()), (Some(&vec![P1]), Some(&P1)));
}

#[test]
fn a_start_outside_the_log_follows_the_configuration() {
    let (fail, earliest, latest) = (OutOfRange::Fail, OutOfRange::Earliest, OutOfRange::Latest);
    for (committed, out_of_range, begins) in [
        (50, fail, None),
        (50, earliest, Some(100)),
        (50, latest, Some(200)),
        (250, fail, None),
        (250, earliest, Some(100)),
        (250, latest, Some(200)),
        (100, fail, Some(100)),
        (200, fail, Some(200)),
    ] {
        let mut shell = Shell::new(Config { out_of_range, ..Config::default() });
        shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
        let committed_start = Some(CommittedStart { offset: committed, metadata: b"" });
        let found =
            PartitionStart { committed: committed_start, log_start: 100, log_end: Some(200), ..start() };
        shell.give(Input::StartResolved { partition: P0, start: found });
        assert_eq!(shell.assigned.len(), 1);
        assert_eq!(shell.count("PartitionStopped"), usize::from(begins.is_none()));
        let moved = begins.filter(|begins| *begins != committed);
        if moved.is_some() {
            assert_eq!(shell.store().offset_of(P0), moved, "{committed} {out_of_range:?}");
        }
        assert_eq!(shell.reads.len(), usize::from(begins.is_some()));
        shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
        assert_eq!(shell.revoked, [[P0]], "{committed} {out_of_range:?}");
    }
}

/// A start at offset 40 of a log from 0 to 200. The offset was committed when the topic had the id
/// `of`; the id is now `now`.
fn committed_in(of: [u8; 16], now: [u8; 16], out_of_range: OutOfRange, log_end: Option<i64>) -> Shell {
    let mut metadata = String::new();
    let identity = Identity { topic_id: of, partition: 0, offset: 40 };
    Encoder::default().encode(&identity, [(1, 2)].into_iter(), 4096, &mut metadata);
    let mut shell = Shell::new(Config { out_of_range, ..Config::default() });
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    let committed = Some(CommittedStart { offset: 40, metadata: metadata.as_bytes() });
    let found = PartitionStart { committed, log_end, topic_id: now, ..start() };
    shell.give(Input::StartResolved { partition: P0, start: found });
    shell
}

fn begins_at(shell: &Shell) -> Option<i64> {
    shell.notices.iter().find_map(|notice| {
        let Notice::OwnershipStarted { offset, .. } = notice else { return None };
        Some(*offset)
    })
}

/// The topic was recreated, and then a late commit of its former reader arrived.
/// The offset is inside the new log, but belongs to the old one.
#[test]
fn an_offset_that_was_committed_in_another_topic_is_outside_the_log() {
    let (fail, earliest, latest) = (OutOfRange::Fail, OutOfRange::Earliest, OutOfRange::Latest);
    for (out_of_range, begins) in [(fail, None), (earliest, Some(0)), (latest, Some(200))] {
        let shell = committed_in([1; 16], [2; 16], out_of_range, Some(200));
        assert_eq!(begins_at(&shell), begins, "{out_of_range:?}");
        assert_eq!(shell.count("PartitionStopped"), usize::from(begins.is_none()), "{out_of_range:?}");
    }
    let shell = committed_in([1; 16], [2; 16], earliest, None);
    assert_eq!(begins_at(&shell), Some(0), "the end of the log does not matter");
    for same in [[1; 16], [0; 16]] {
        let shell = committed_in(same, [1; 16], fail, Some(200));
        assert_eq!(begins_at(&shell), Some(40), "{same:?}");
    }
    let unknown = committed_in([1; 16], [0; 16], fail, Some(200));
    assert_eq!(begins_at(&unknown), Some(40), "the topic's id is unknown");
}

/// Offsets 0 to 9 are read, 0 to 4 are settled, and the guest runs the rest.
fn half_settled(out_of_range: OutOfRange) -> Shell {
    let mut shell = Shell::reading(Config { out_of_range, ..Config::default() }, &[P0], 10);
    let rows: Vec<_> = (0..10).zip(0..10).collect();
    shell.fetch(P0, &rows);
    assert_eq!(shell.calls.len(), 10);
    for _ in 0..5 {
        shell.end(&[]);
    }
    shell.clear_records();
    shell
}

fn end_cancelled_calls(shell: &mut Shell) {
    assert_eq!(shell.cancelled.len(), 5, "the ownership was closed");
    for call in std::mem::take(&mut shell.cancelled) {
        shell.give(Input::CallTerminated { call });
    }
}

#[test]
fn an_ownership_outside_the_log_ends_and_restarts_like_a_start() {
    let (fail, earliest, latest) = (OutOfRange::Fail, OutOfRange::Earliest, OutOfRange::Latest);
    for (log_start, log_end, out_of_range, restart) in [
        // Retention has deleted its next record.
        (100, 200, fail, None),
        (100, 200, earliest, Some(100)),
        (100, 200, latest, Some(200)),
        // The log was truncated below the settled offsets.
        (0, 3, fail, None),
        (0, 3, earliest, Some(0)),
        (0, 3, latest, Some(3)),
        // The settled offsets are still inside the log: nothing is skipped, and no decision is
        // needed.
        (0, 8, fail, Some(5)),
        (0, 8, earliest, Some(5)),
        (0, 8, latest, Some(5)),
    ] {
        let name = format!("{log_start}..{log_end} {out_of_range:?}");
        let mut shell = half_settled(out_of_range);
        let why = ReadError::OutOfRange { log_start, log_end };
        shell.give(Input::Fetched { partition: P0, rows: &[], orders: &[], end: None, error: Some(why) });
        assert_eq!(shell.store().offset_of(P0), Some(5), "{name}: settled offsets are committed");
        end_cancelled_calls(&mut shell);
        assert_eq!(shell.count("PartitionStopped"), usize::from(restart.is_none()), "{name}");
        assert_eq!(shell.reassigned, Vec::from_iter(restart.map(|offset| (P0, offset))), "{name}");
        if let Some(offset) = restart {
            shell.store();
            assert_eq!(shell.reads, [P0], "{name}");
            shell.fetch(P0, &[(offset, 1)]);
            assert_eq!(shell.call().rows, [(P0, offset)], "{name}");
        }
    }
}

/// No event of the deleted log is committed, and late results of such events do not count.
#[test]
fn a_topic_that_was_replaced_is_read_from_its_first_record() {
    let mut shell = half_settled(OutOfRange::Fail);
    let why = ReadError::TopicRecreated { topic_id: [2; 16], log_start: 0 };
    shell.read(P0, &[], None, Some(why));
    assert_eq!((shell.cancelled.len(), &shell.reassigned[..]), (5, &[(P0, 0)][..]));
    assert_eq!(
        shell.store().offset_of(P0),
        Some(0),
        "the start of the new log is committed before the first read"
    );
    shell.fetch(P0, &[(0, 90), (1, 91)]);
    let rows: Vec<_> = shell.calls.iter().flat_map(|call| call.rows.iter().map(|row| row.1)).collect();
    assert_eq!(rows, [0, 1]);
    end_cancelled_calls(&mut shell);
    shell.end_all();
    assert_eq!(shell.store().offset_of(P0), Some(2));
}

#[test]
fn a_topic_that_was_replaced_is_not_committed_by_a_revoke() {
    let mut shell = half_settled(OutOfRange::Fail);
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    let why = ReadError::TopicRecreated { topic_id: [2; 16], log_start: 0 };
    shell.read(P0, &[], None, Some(why));
    assert!(shell.revoked.is_empty(), "the cancelled calls may still run");
    end_cancelled_calls(&mut shell);
    assert_eq!((shell.revoked.len(), shell.reassigned.len(), shell.commits.len()), (1, 0, 0));
}

/// The partition may start again although it waited for an operator, whose decision is no longer
/// needed.
#[test]
fn a_stopped_partition_whose_topic_was_replaced_is_read() {
    let mut shell = committed_in([1; 16], [1; 16], OutOfRange::Fail, Some(20));
    assert_eq!((shell.count("PartitionStopped"), begins_at(&shell)), (1, None));
    let why = ReadError::TopicRecreated { topic_id: [2; 16], log_start: 7 };
    shell.read(P0, &[], None, Some(why));
    assert_eq!((begins_at(&shell), &shell.reassigned[..]), (Some(7), &[(P0, 7)][..]));
}

#[test]
fn a_revoke_or_a_drain_overtakes_an_ownership_outside_the_log() {
    for rebalance in
        [Input::Revoked { request: REQUEST, partitions: &[P0] }, Input::Drain { deadline: Duration::ZERO }]
    {
        let mut shell = half_settled(OutOfRange::Earliest);
        let why = ReadError::OutOfRange { log_start: 100, log_end: 200 };
        shell.give(Input::Fetched { partition: P0, rows: &[], orders: &[], end: None, error: Some(why) });
        shell.give(rebalance);
        shell.store();
        end_cancelled_calls(&mut shell);
        assert_eq!((shell.reassigned.len(), shell.reads.len()), (0, 0), "{rebalance:?}");
        assert!(shell.revoked.len() + usize::from(shell.drained.is_some()) == 1, "{rebalance:?}");
    }
}
