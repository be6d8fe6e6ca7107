//! Keyed state: the deletion of states that were not changed for long.

mod shell;

use std::time::Duration;

use keylane_core::{AbortCause, Input, OwnershipId, Partition, RebalanceId, TransactionLimits};
use shell::transactional::{claimed, emit, end_with_output, kept, transactional};
use shell::{P0, P1, Shell};

/// Two partitions with one event each, which are committed, and their ownerships.
fn keyed(limits: TransactionLimits) -> (Shell, OwnershipId, OwnershipId) {
    let limits = TransactionLimits { keyed_state: true, ..limits };
    let mut shell = Shell::reading(transactional(limits), &[P0, P1], 64);
    for partition in [P0, P1] {
        shell.fetch(partition, &[(0, 1)]);
        end_with_output(&mut shell, 10);
    }
    let claims = shell.commit_transaction().claims;
    let [of_p0, of_p1] = claims.try_into().expect("both partitions have an event");
    (shell, of_p0.ownership, of_p1.ownership)
}

/// States of this partition have expired. Returns the numbers of their deletions.
fn expire(shell: &mut Shell, partition: Partition, ownership: OwnershipId) -> Vec<u64> {
    shell.give(Input::StatesExpired { partition, ownership, bytes: 100 });
    let forgotten = std::mem::take(&mut shell.forgotten);
    assert!(forgotten.iter().all(|&(of, _)| of == partition));
    forgotten.into_iter().map(|(_, number)| number).collect()
}

#[test]
fn a_deletion_is_in_a_transaction_with_the_offset_of_its_partition() {
    let (mut shell, _, of_p1) = keyed(TransactionLimits::default());
    assert_eq!(expire(&mut shell, P1, of_p1), [3]);
    let transaction = shell.commit_transaction();
    assert_eq!(transaction.entries.len(), 1, "nothing has settled in the other partition");
    assert_eq!((transaction.entries[0].partition, claimed(&transaction, 0)), (P1, (1, vec![])));
    assert_eq!(transaction.claims[0].through.0, 3);
    shell.wait(Duration::from_mins(2));
    assert!(shell.transactions.is_empty(), "it is committed once");
}

#[test]
fn an_abort_keeps_a_deletion_and_a_later_event_has_a_higher_number() {
    let (mut shell, of_p0, _) = keyed(TransactionLimits::default());
    assert_eq!(expire(&mut shell, P0, of_p0), [3]);
    shell.wait(Duration::from_millis(150));
    let aborted = shell.transactions.remove(0);
    emit(&mut shell, 1, 10);
    assert_eq!(kept(&shell).last().map(|kept| kept.0), Some(4));
    assert_eq!(expire(&mut shell, P0, of_p0), [5]);
    shell.give(Input::TransactionAborted { id: aborted.id, why: AbortCause::Other });
    let transaction = shell.commit_transaction();
    assert_eq!((claimed(&transaction, 0), transaction.claims[0].through.0), ((2, vec![]), 5));
    assert_eq!(shell.core.kept_effect_bytes(), 0);
}

#[test]
fn deletions_that_do_not_fit_are_claimed_by_a_later_transaction() {
    let limits = TransactionLimits { transaction_bytes: 150, ..TransactionLimits::default() };
    let (mut shell, of_p0, _) = keyed(limits);
    emit(&mut shell, 1, 100);
    assert_eq!(expire(&mut shell, P0, of_p0), [4]);
    emit(&mut shell, 2, 100);
    let mut all = Vec::new();
    while all.last() != Some(&(3, 5)) {
        shell.wait(Duration::from_millis(20));
        let transaction = shell.commit_transaction();
        all.push((claimed(&transaction, 0).0, transaction.claims[0].through.0));
    }
    assert_eq!(all, [(2, 3), (2, 4), (3, 5)]);
}

#[test]
fn nothing_is_deleted_without_an_open_ownership_or_while_its_transactions_are_held_up() {
    let limits = TransactionLimits { kept_bytes: 400, ..TransactionLimits::default() };
    let (mut shell, of_p0, of_p1) = keyed(limits);
    assert_eq!(expire(&mut shell, P0, OwnershipId(of_p0.0 + 7)), [], "of another ownership");
    assert_eq!(expire(&mut shell, Partition { topic: 0, number: 9 }, of_p0), [], "of an unknown partition");
    shell.give(Input::ExcludePartition { partition: P0, excluded: true });
    assert_eq!(expire(&mut shell, P0, of_p0), [], "the partition is excluded");
    shell.give(Input::ExcludePartition { partition: P0, excluded: false });
    emit(&mut shell, 1, 500);
    assert_eq!(expire(&mut shell, P0, of_p0), [], "no more effects may be kept");
    shell.commit_transaction();
    assert_eq!(expire(&mut shell, P0, of_p0).len(), 1);
    shell.commit_transaction();
    shell.fetch(P0, &[(2, 2)]);
    shell.give(Input::Revoked { request: RebalanceId(7), partitions: &[P0] });
    assert_eq!(expire(&mut shell, P0, of_p0), [], "the partition is being released");
    assert_eq!(expire(&mut shell, P1, of_p1).len(), 1, "the other one is not");
    shell.give(Input::Lost { request: RebalanceId(8), partitions: &[P1] });
    assert_eq!(shell.core.kept_effect_bytes(), 0, "a deletion ends with its ownership");
    assert_eq!(expire(&mut shell, P1, of_p1), [], "the partition is lost");
}
