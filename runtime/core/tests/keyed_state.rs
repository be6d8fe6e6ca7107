//! Keyed state: what a transaction claims, and starts that are refused.

mod shell;

use std::time::Duration;

use keylane_core::{Input, LaneEnd, PartitionStop, ReadError, TransactionLimits, Verdict};
use shell::transactional::{claimed, emit, kept, transactional};
use shell::{P0, P1, REQUEST, Shell};

#[test]
fn events_that_share_a_state_are_claimed_together() {
    let limits =
        TransactionLimits { keyed_state: true, transaction_bytes: 350, ..TransactionLimits::default() };
    let mut shell = Shell::reading(transactional(limits), &[P0], 64);
    let end_fast = |shell: &mut Shell, call: shell::Dispatched, done: u32, verdict: Option<Verdict>| {
        let (lanes, took) = ([LaneEnd { done, verdict }], Duration::from_micros(1));
        let last = done - 1;
        let (with_outputs, output_bytes) = (&[last][..], &[100][..]);
        shell.give(Input::CallEnded { call: call.id, lanes: &lanes, with_outputs, output_bytes, took });
    };
    // Until the handler is known to be fast, a call has one event.
    for offset in 0..40 {
        shell.fetch(P0, &[(offset, 1)]);
        let call = shell.calls.remove(0);
        end_fast(&mut shell, call, 1, None);
    }
    while shell.core.next_timeout().is_some() && !shell.kept.is_empty() {
        shell.wait(Duration::from_millis(20));
        if !shell.transactions.is_empty() {
            shell.commit_transaction();
        }
    }
    let first: Vec<(i64, u64)> = (40..52).map(|offset| (offset, 1)).collect();
    shell.fetch(P0, &first);
    let call = shell.calls.remove(0);
    assert_eq!(call.rows.len(), 12);
    end_fast(&mut shell, call, 11, Some(Verdict::Reject));
    let numbers: Vec<u64> = kept(&shell).iter().map(|&(number, ..)| number).collect();
    let shared = numbers[0];
    assert_eq!(numbers, [shared, shared + 1], "the eleven events before the dead letter have one number");
    // With 32 bytes per event besides its effects, six of the eleven would fit.
    shell.wait(Duration::from_millis(150));
    assert_eq!(claimed(&shell.commit_transaction(), 0), (51, vec![]));
}

#[test]
fn a_state_that_can_not_be_used_stops_the_partition() {
    let mut shell = Shell::new(transactional(TransactionLimits::default()));
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0, P1] });
    shell.give(Input::StartRefused { partition: P0, offset: 4 });
    shell.start_at(P1, 0, b"");
    assert_eq!(shell.partition_stops, [(P0, 4, PartitionStop::UnusableState)]);
    assert_eq!(shell.assigned, [[P1]]);
}

/// The states are those of the former topic, which only a lookup finds out.
#[test]
fn with_keyed_state_a_recreated_topic_is_looked_up() {
    let limits = TransactionLimits { keyed_state: true, key_records: true, ..TransactionLimits::default() };
    let why = ReadError::TopicRecreated { topic_id: [2; 16], log_start: 0 };
    let mut shell = Shell::reading(transactional(limits), &[P0], 64);
    emit(&mut shell, 0, 10);
    shell.clear_records();
    shell.read(P0, &[], None, Some(why));
    assert_eq!((&shell.lookups[..], shell.reassigned.len(), shell.transactions.len()), (&[P0][..], 0, 0));
    shell.give(Input::StartRefused { partition: P0, offset: 0 });
    assert_eq!(shell.partition_stops, [(P0, 0, PartitionStop::UnusableState)]);

    // The assign waits for the other partition.
    let mut shell = Shell::new(transactional(limits));
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0, P1] });
    shell.start_at(P0, 0, b"");
    shell.lookups.clear();
    shell.read(P0, &[], None, Some(why));
    assert_eq!((&shell.lookups[..], shell.reassigned.len()), (&[P0][..], 0));
    shell.start_at(P1, 0, b"");
    assert!(shell.assigned.is_empty(), "{:?}", shell.assigned);
    shell.start_at(P0, 0, b"");
    assert_eq!((&shell.assigned[..], shell.reassigned.len()), (&[vec![P0, P1]][..], 0));
}

/// The pending assign is of another partition, so a late one must add the partition.
#[test]
fn a_late_partition_whose_topic_is_recreated_is_added_late() {
    let limits = TransactionLimits { keyed_state: true, key_records: true, ..TransactionLimits::default() };
    let config = transactional(limits);
    let timeout = config.lookup_timeout;
    let mut shell = Shell::new(config);
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    shell.wait(timeout);
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P1] });
    shell.start_at(P0, 0, b"");
    let why = ReadError::TopicRecreated { topic_id: [2; 16], log_start: 0 };
    shell.read(P0, &[], None, Some(why));
    shell.start_at(P1, 0, b"");
    shell.start_at(P0, 0, b"");
    assert_eq!(shell.assigned, [vec![], vec![P1], vec![P0]]);
}
