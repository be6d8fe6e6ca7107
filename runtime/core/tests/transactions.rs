//! Transactional delivery: what is kept, what a transaction claims, and what waits for its end.

mod shell;

use std::time::Duration;

use keylane_core::{
    AbortCause, Admission, BlockedOn, Config, EffectClaim, Input, KeptEffect, LaneEnd, OutOfRange,
    OwnershipId, Partition, PartitionStop, ReadError, Reason, RebalanceId, SettleNumber, TransactionLimits,
    Verdict, codec,
};
use shell::transactional::{claimed, emit, end_with_output, kept, transactional};
use shell::{P0, P1, REQUEST, Shell};

fn reading(partitions: &[Partition]) -> Shell {
    Shell::reading(transactional(TransactionLimits::default()), partitions, 64)
}

#[test]
fn effects_are_kept_in_the_order_of_the_lane_and_nothing_waits_for_acknowledgements() {
    let mut shell = reading(&[P0]);
    shell.fetch(P0, &[(0, 7), (1, 7), (2, 7)]);
    end_with_output(&mut shell, 10);
    shell.end_with(Verdict::Reject);
    end_with_output(&mut shell, 10);
    let rejected = KeptEffect::DeadLetter(Reason::Rejected);
    assert_eq!(kept(&shell), [(1, 0, KeptEffect::Outputs), (2, 1, rejected), (3, 2, KeptEffect::Outputs)]);
    assert_eq!(shell.core.committable_offset(P0), Some(3));
    assert!(shell.produced.is_empty() && shell.dead_letters.is_empty() && shell.commits.is_empty());
}

#[test]
fn a_transaction_claims_what_has_settled_and_an_abort_drops_nothing() {
    let mut shell = reading(&[P0, P1]);
    shell.fetch(P0, &[(0, 7), (1, 8)]);
    shell.fetch(P1, &[(0, 9)]);
    let first = shell.calls.remove(0);
    shell.end(&[]);
    shell.end(&[]);
    shell.wait(Duration::from_millis(150));
    let transaction = shell.transactions.remove(0);
    assert_eq!(claimed(&transaction, 0), (0, vec![(1, 2)]));
    assert_eq!(claimed(&transaction, 1), (1, vec![]));
    assert_eq!(transaction.claims.iter().map(|claim| claim.through.0).collect::<Vec<_>>(), [1, 2]);
    shell.end_call(first.id, &[LaneEnd { done: 1, verdict: None }], &[]);
    shell.wait(Duration::from_secs(1));
    assert!(shell.transactions.is_empty(), "there is one transaction at a time");
    shell.give(Input::TransactionAborted { id: transaction.id, why: AbortCause::Other });
    shell.wait(Duration::from_millis(150));
    let transaction = shell.commit_transaction();
    assert_eq!((claimed(&transaction, 0), claimed(&transaction, 1)), ((2, vec![]), (1, vec![])));
    assert_eq!(shell.kept, []);
    shell.wait(Duration::from_mins(2));
    assert!(shell.transactions.is_empty(), "a clean partition is not committed again");
}

#[test]
fn events_whose_set_does_not_fit_are_withheld_with_their_effects() {
    let config = Config { metadata_limit: 46, ..transactional(TransactionLimits::default()) };
    let mut shell = Shell::reading(config, &[P0], 256);
    let rows: Vec<(i64, u64)> = (0..60).zip(0..60).collect();
    for row in rows {
        shell.fetch(P0, &[row]);
    }
    // Every second event settles, and the first one does not.
    let calls = std::mem::take(&mut shell.calls);
    for call in calls.iter().filter(|call| call.rows[0].1 % 2 == 1) {
        shell.calls.push(call.clone());
        end_with_output(&mut shell, 10);
    }
    let _first_event = shell.commit_transaction();
    let transaction = shell.commit_transaction();
    let (offset, claims) = claimed(&transaction, 0);
    assert!(offset == 0 && !claims.is_empty() && claims.len() < 30, "{claims:?}");
    let through = transaction.claims[0].through;
    assert_eq!(claims.iter().map(|&(from, _)| from).max(), Some(i64::try_from(through.0 * 2 - 1).unwrap()));
    assert_eq!(shell.kept.len(), 30 - claims.len(), "the others are still kept");
    shell.wait(Duration::from_secs(1));
    let more: Vec<_> = shell.transactions.iter().map(|transaction| claimed(transaction, 0)).collect();
    assert_eq!(more, [], "nothing more can be claimed than {claims:?}");
    for call in calls.iter().filter(|call| call.rows[0].1 % 2 == 0) {
        shell.calls.push(call.clone());
        end_with_output(&mut shell, 10);
    }
    while claimed(&shell.commit_transaction(), 0) != (60, vec![]) {}
    assert_eq!(shell.kept, []);
}

#[test]
fn a_transaction_has_a_size_and_the_rest_follows_at_once() {
    let limits = TransactionLimits { transaction_bytes: 350, ..TransactionLimits::default() };
    let mut shell = Shell::reading(transactional(limits), &[P0], 64);
    for offset in 0..7 {
        emit(&mut shell, offset, 100);
    }
    let mut offsets = Vec::new();
    while offsets.last() != Some(&7) {
        shell.wait(Duration::from_millis(20));
        offsets.push(claimed(&shell.commit_transaction(), 0).0);
    }
    assert!(offsets.is_sorted_by(|a, b| a < b) && offsets.len() >= 3, "{offsets:?}");
    // One event whose effects are larger than a transaction may be.
    emit(&mut shell, 7, 5_000);
    shell.wait(Duration::from_millis(20));
    assert_eq!(claimed(&shell.commit_transaction(), 0), (8, vec![]));
}

#[test]
fn while_too_many_effects_are_kept_no_call_begins_and_nothing_is_read() {
    let limits = TransactionLimits { kept_bytes: 400, ..TransactionLimits::default() };
    let mut shell = Shell::reading(transactional(limits), &[P0], 64);
    emit(&mut shell, 0, 300);
    shell.fetch(P0, &[(1, 1)]);
    assert_eq!(shell.calls.len(), 1, "there is room for more");
    end_with_output(&mut shell, 300);
    shell.reads.clear();
    shell.fetch(P0, &[(2, 2)]);
    assert_eq!((shell.calls.len(), shell.reads.len()), (0, 0));
    shell.commit_transaction();
    while shell.calls.is_empty() {
        shell.wait(Duration::from_millis(5));
        if !shell.transactions.is_empty() {
            shell.commit_transaction();
        }
    }
    assert_eq!(shell.reads, [P0], "reading continues, too");
}

#[test]
fn a_lookup_waits_for_the_decision_on_a_transaction_that_contains_the_partition() {
    let mut shell = reading(&[P0]);
    emit(&mut shell, 0, 10);
    shell.wait(Duration::from_millis(150));
    let transaction = shell.transactions.remove(0);
    shell.give(Input::Lost { request: REQUEST, partitions: &[P0] });
    assert_eq!(shell.kept, [], "effects of a lost ownership are dropped");
    shell.give(Input::AssignRequested { request: RebalanceId(1), partitions: &[P0] });
    shell.wait(Duration::from_secs(3));
    assert_eq!(shell.lookups, []);
    shell.give(Input::TransactionAborted { id: transaction.id, why: AbortCause::Stale });
    assert_eq!(shell.lookups, [P0]);
}

#[test]
fn a_revoke_waits_for_the_last_transaction_but_not_forever() {
    let mut shell = reading(&[P0]);
    emit(&mut shell, 0, 10);
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    assert_eq!(claimed(&shell.commit_transaction(), 0), (1, vec![]));
    assert_eq!(shell.revoked, [[P0]]);

    let mut shell = reading(&[P0]);
    emit(&mut shell, 0, 10);
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    shell.wait(Duration::from_secs(4));
    assert_eq!(shell.revoked, [[P0]], "its offsets are with the coordinator, or refused");
}

#[test]
fn after_a_position_outside_the_log_the_coordinator_says_what_has_taken_effect() {
    let config = Config { out_of_range: OutOfRange::Earliest, ..transactional(TransactionLimits::default()) };
    let mut set = String::new();
    let identity = codec::Identity { topic_id: [0; 16], partition: 0, offset: 0 };
    codec::Encoder::default().encode(&identity, [(8, 2)].into_iter(), 4096, &mut set);
    let mut shell = Shell::new(config);
    shell.give(Input::CapacityAdded { calls: 4 });
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    shell.found_at(P0, (0, set.as_bytes()), (0, 12));
    shell.fetch(P0, &[(0, 1), (1, 2)]);
    shell.lookups.clear();
    shell.read(P0, &[], None, Some(ReadError::OutOfRange { log_start: 7, log_end: 12 }));
    shell.wait(Duration::from_secs(4));
    assert_eq!(shell.lookups, [P0]);
    shell.found_at(P0, (0, set.as_bytes()), (7, 12));
    assert_eq!(shell.reassigned, [(P0, 7)]);
    assert_eq!(claimed(&shell.commit_transaction(), 0), (7, vec![(8, 10)]), "8 and 9 have taken effect");
    shell.calls.clear();
    shell.fetch(P0, &[(7, 3), (8, 4)]);
    assert_eq!(shell.calls.iter().map(|call| call.rows.len()).sum::<usize>(), 1);
}

#[test]
fn a_set_that_cannot_be_read_stops_the_partition() {
    let mut shell = Shell::new(transactional(TransactionLimits::default()));
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0, P1] });
    shell.found_at(P0, (4, b"not ours"), (0, 9));
    shell.start_at(P1, 0, b"");
    assert_eq!(shell.partition_stops, [(P0, 4, PartitionStop::UnreadableSet)]);
    assert_eq!(shell.assigned, [[P1]]);
}

#[test]
fn offsets_that_somebody_else_has_overwritten_begin_a_new_ownership_in_place() {
    let mut shell = reading(&[P0]);
    emit(&mut shell, 0, 10);
    shell.wait(Duration::from_millis(150));
    let transaction = shell.transactions.remove(0);
    shell.give(Input::TransactionAborted { id: transaction.id, why: AbortCause::OverwrittenOffsets });
    assert_eq!((shell.kept.as_slice(), shell.lookups.as_slice()), (&[][..], &[P0][..]));
    shell.start_at(P0, 5, b"");
    assert_eq!(shell.reassigned, [(P0, 5)]);
    shell.fetch(P0, &[(5, 1)]);
    assert_eq!(shell.calls.len(), 1);
}

#[test]
fn a_claim_names_the_ownership_of_its_effects() {
    let mut shell = reading(&[P0]);
    emit(&mut shell, 0, 10);
    shell.wait(Duration::from_millis(150));
    let transaction = shell.commit_transaction();
    let ownership = transaction.claims[0].ownership;
    assert_eq!(transaction.claims, [EffectClaim { ownership, through: SettleNumber(1) }]);
}

#[test]
fn an_excluded_partition_does_not_hold_the_others() {
    let mut shell = reading(&[P0, P1]);
    emit(&mut shell, 0, 10);
    shell.fetch(P1, &[(0, 9)]);
    end_with_output(&mut shell, 10);
    shell.wait(Duration::from_millis(150));
    let transaction = shell.transactions.remove(0);
    shell.give(Input::ExcludePartition { partition: P0, excluded: true });
    shell.give(Input::TransactionAborted { id: transaction.id, why: AbortCause::Excluded });
    let transaction = shell.commit_transaction();
    assert_eq!(transaction.entries.iter().map(|entry| entry.partition).collect::<Vec<_>>(), [P1]);
    assert_eq!(shell.kept.len(), 1, "the effects of the other one are kept");
    shell.wait(Duration::from_secs(1));
    assert!(shell.transactions.is_empty());
    shell.give(Input::ExcludePartition { partition: P0, excluded: false });
    assert_eq!(claimed(&shell.commit_transaction(), 0), (1, vec![]));
    shell.give(Input::ExcludePartition { partition: P1, excluded: true });
    shell.fetch(P1, &[(1, 9)]);
    end_with_output(&mut shell, 10);
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P1] });
    assert_eq!(shell.revoked, [[P1]], "nothing of it can be committed");
    assert_eq!(shell.kept, []);
}

#[test]
fn an_excluded_partition_keeps_no_more_than_its_share() {
    let limits = TransactionLimits { kept_bytes: 400, ..TransactionLimits::default() };
    let mut shell = Shell::reading(transactional(limits), &[P0, P1], 64);
    shell.give(Input::ExcludePartition { partition: P0, excluded: true });
    emit(&mut shell, 0, 300);
    shell.fetch(P0, &[(1, 1), (2, 2)]);
    shell.wait(Duration::from_secs(1));
    assert!(shell.calls.is_empty(), "nothing that settles could be claimed");
    let view = shell.core.view();
    let excluded = view.partitions.first().expect("two partitions are owned");
    assert_eq!(excluded.withheld, 1);
    assert_eq!(excluded.blocked.map(|blocked| blocked.blocked_on), Some(BlockedOn::Excluded));
    shell.fetch(P1, &[(0, 9)]);
    end_with_output(&mut shell, 10);
    shell.wait(Duration::from_millis(150));
    assert_eq!(
        shell.commit_transaction().entries.iter().map(|entry| entry.partition).collect::<Vec<_>>(),
        [P1]
    );
    shell.give(Input::ExcludePartition { partition: P0, excluded: false });
    shell.wait(Duration::from_millis(150));
    assert_eq!(claimed(&shell.commit_transaction(), 0), (1, vec![]));
    assert_eq!(shell.calls.len(), 2, "the partition continues");
    assert_eq!(shell.core.view().partitions.first().map(|view| view.withheld), Some(0));
}

#[test]
fn no_call_begins_while_settled_events_wait_too_long_or_are_too_many() {
    let age = Duration::from_secs(1);
    let limits = TransactionLimits { max_uncommitted_age: Some(age), ..TransactionLimits::default() };
    let mut shell = Shell::reading(transactional(limits), &[P0], 64);
    emit(&mut shell, 0, 10);
    shell.fetch(P0, &[(1, 1)]);
    end_with_output(&mut shell, 10);
    shell.wait(age); // the transaction is not committed
    assert_eq!(shell.transactions.len(), 1);
    shell.fetch(P0, &[(2, 2), (3, 3)]);
    assert_eq!(shell.calls.len(), 0);
    shell.commit_transaction();
    shell.wait(Duration::from_millis(150));
    assert_eq!(shell.calls.len(), 2, "{:?}", shell.calls);

    let limits = TransactionLimits { max_uncommitted: Some(2), ..TransactionLimits::default() };
    let mut shell = Shell::reading(transactional(limits), &[P0, P1], 64);
    shell.give(Input::ExcludePartition { partition: P0, excluded: true });
    for offset in 0..4 {
        emit(&mut shell, offset, 10); // excluded: they do not count
    }
    for (offset, lane) in [(0, 9), (1, 10), (2, 11)] {
        shell.fetch(P1, &[(offset, lane)]);
        end_with_output(&mut shell, 10);
    }
    shell.fetch(P1, &[(3, 20), (4, 21)]);
    assert_eq!(shell.calls.len(), 1, "only the lane of the first unsettled event: too many others wait");
}

#[test]
fn a_refused_output_stops_its_partition() {
    let mut shell = reading(&[P0, P1]);
    emit(&mut shell, 0, 10);
    shell.fetch(P0, &[(1, 1)]);
    shell.fetch(P1, &[(0, 9)]);
    shell.wait(Duration::from_millis(150));
    let transaction = shell.transactions.remove(0);
    let ownership = transaction.claims[0].ownership;
    let refused = |ownership| Input::EffectRefused { partition: P0, ownership, offset: 0 };
    shell.give(refused(OwnershipId(ownership.0 + 7)));
    assert_eq!(shell.partition_stops, [], "the ownership of the event has ended");
    shell.give(refused(ownership));
    shell.give(Input::TransactionAborted { id: transaction.id, why: AbortCause::Excluded });
    assert_eq!(shell.partition_stops, [], "a call of the partition still runs");
    let call = shell.cancelled.remove(0);
    shell.give(Input::CallTerminated { call });
    assert_eq!(shell.partition_stops, [(P0, 0, PartitionStop::OutputRefused)]);
    assert_eq!(shell.kept, [], "they have not taken effect");
    end_with_output(&mut shell, 10);
    let transaction = shell.commit_transaction();
    assert_eq!(transaction.entries.iter().map(|entry| entry.partition).collect::<Vec<_>>(), [P1]);
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    assert_eq!(shell.revoked, [[P0]]);

    // An ownership that is released is not stopped: its next owner finds the same.
    let mut shell = reading(&[P0]);
    emit(&mut shell, 0, 10);
    shell.wait(Duration::from_millis(150));
    let transaction = shell.transactions.remove(0);
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    shell.give(refused(transaction.claims[0].ownership));
    shell.give(Input::TransactionAborted { id: transaction.id, why: AbortCause::Excluded });
    assert_eq!((shell.revoked.as_slice(), shell.partition_stops.len()), (&[vec![P0]][..], 0));
}

#[test]
fn a_revoke_during_a_drain_does_not_wait_longer_than_any_other() {
    let mut shell = reading(&[P0]);
    emit(&mut shell, 0, 10);
    let deadline = shell.uptime + Duration::from_secs(10);
    shell.give(Input::Drain { deadline });
    assert_eq!(shell.transactions.len(), 1, "the drain waits for its last transaction");
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    shell.wait(Duration::from_secs(4));
    assert_eq!(shell.revoked, [[P0]]);
}

#[test]
fn dead_letters_of_events_without_a_call_are_kept_up_to_the_limit() {
    let limits = TransactionLimits { kept_bytes: 3_000, ..TransactionLimits::default() };
    let mut shell = Shell::reading(transactional(limits), &[P0], 64);
    let offsets: Vec<i64> = (0..10).collect();
    shell.fetch_as(P0, &offsets, Admission::NoLaneKey);
    assert_eq!(shell.kept.len(), 3);
    while claimed(&shell.commit_transaction(), 0) != (10, vec![]) {
        assert!(shell.kept.len() <= 3, "{:?}", shell.kept);
        shell.wait(Duration::from_millis(150));
    }
}

#[test]
fn a_transaction_may_be_larger_if_its_set_fits_only_with_later_events() {
    let limits = TransactionLimits { transaction_bytes: 150, ..TransactionLimits::default() };
    let config = Config { metadata_limit: 0, ..transactional(limits) };
    let mut shell = Shell::reading(config, &[P0], 64);
    shell.fetch(P0, &[(0, 0)]);
    let first = shell.calls.remove(0);
    for offset in 1..4 {
        emit(&mut shell, offset, 100);
    }
    shell.wait(Duration::from_millis(500));
    assert!(shell.transactions.is_empty(), "no set fits");
    shell.calls.push(first);
    end_with_output(&mut shell, 100);
    assert_eq!(claimed(&shell.commit_transaction(), 0), (4, vec![]));
}

#[test]
fn a_partition_of_which_nothing_fits_does_not_hold_the_others() {
    let limits = TransactionLimits { transaction_bytes: 150, ..TransactionLimits::default() };
    let config = Config { metadata_limit: 0, ..transactional(limits) };
    let mut shell = Shell::reading(config, &[P0, P1], 64);
    shell.fetch(P0, &[(0, 0)]);
    let _first = shell.calls.remove(0);
    emit(&mut shell, 1, 100);
    shell.fetch(P1, &[(0, 9)]);
    end_with_output(&mut shell, 100);
    let transaction = shell.commit_transaction();
    assert_eq!(transaction.entries.iter().map(|entry| entry.partition).collect::<Vec<_>>(), [P1]);
    shell.wait(Duration::from_secs(1));
    assert!(shell.transactions.is_empty(), "a transaction claims something");
}

#[test]
fn dropped_effects_make_room_for_reading() {
    let limits = TransactionLimits { kept_bytes: 400, ..TransactionLimits::default() };
    let mut shell = Shell::reading(transactional(limits), &[P0, P1], 64);
    emit(&mut shell, 0, 300);
    emit(&mut shell, 1, 300);
    shell.fetch(P1, &[(0, 9)]);
    shell.reads.clear();
    shell.wait(Duration::from_secs(1));
    assert_eq!(shell.reads, []);
    shell.give(Input::Lost { request: REQUEST, partitions: &[P0] });
    assert_eq!(shell.reads, [P1]);
}

#[test]
fn the_first_unsettled_event_of_a_held_partition_is_read() {
    let limits = TransactionLimits { kept_bytes: 200, ..TransactionLimits::default() };
    let mut set = String::new();
    let identity = codec::Identity { topic_id: [0; 16], partition: 0, offset: 0 };
    codec::Encoder::default().encode(&identity, [(5, 2)].into_iter(), 4096, &mut set);
    let mut shell = Shell::new(Config { metadata_limit: 0, ..transactional(limits) });
    shell.give(Input::CapacityAdded { calls: 4 });
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    shell.found_at(P0, (0, set.as_bytes()), (0, 12));
    emit(&mut shell, 0, 300);
    shell.reads.clear();
    shell.fetch(P0, &[]);
    shell.wait(Duration::from_millis(500));
    assert!(shell.transactions.is_empty(), "the set of the former owner does not fit any more");
    assert_eq!(shell.reads, [P0], "its gaps have to be closed");
    shell.fetch(P0, &[(1, 1), (2, 2)]);
    assert_eq!(shell.calls.iter().map(|call| call.rows.clone()).collect::<Vec<_>>(), [[(P0, 1)]]);
}

#[test]
fn a_transaction_that_was_too_slow_is_followed_by_a_smaller_one() {
    let mut shell = reading(&[P0]);
    for offset in 0..4 {
        emit(&mut shell, offset, 100);
    }
    shell.wait(Duration::from_millis(150));
    let transaction = shell.transactions.remove(0);
    assert_eq!(claimed(&transaction, 0), (4, vec![]));
    shell.give(Input::TransactionAborted { id: transaction.id, why: AbortCause::TooSlow });
    shell.wait(Duration::from_millis(150));
    assert_eq!(claimed(&shell.transactions.remove(0), 0), (2, vec![]));
}

#[test]
fn a_set_beyond_the_end_of_the_log_is_looked_up_again() {
    let mut set = String::new();
    let identity = codec::Identity { topic_id: [0; 16], partition: 0, offset: 4 };
    codec::Encoder::default().encode(&identity, [(2, 3)].into_iter(), 4096, &mut set);
    let mut shell = Shell::new(transactional(TransactionLimits::default()));
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    shell.lookups.clear();
    shell.found_at(P0, (4, set.as_bytes()), (0, 6));
    shell.wait(Duration::from_secs(1));
    assert_eq!((shell.lookups.as_slice(), shell.partition_stops.len()), (&[P0][..], 0));
    shell.found_at(P0, (4, set.as_bytes()), (0, 9));
    assert_eq!(shell.core.committable_offset(P0), Some(4));

    // The set of another log stays beyond the end, however long a lookup takes.
    let mut shell = Shell::new(transactional(TransactionLimits::default()));
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    for _ in 0..2 {
        shell.wait(Duration::from_secs(6));
        shell.found_at(P0, (4, set.as_bytes()), (0, 6));
        assert!(shell.partition_stops.is_empty());
    }
    shell.wait(Duration::from_secs(6));
    shell.found_at(P0, (4, set.as_bytes()), (0, 6));
    assert_eq!(shell.partition_stops, [(P0, 4, PartitionStop::UnreadableSet)]);
}
