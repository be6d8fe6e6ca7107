//! What tests of transactional delivery look at.

use std::time::Duration;

use keylane_core::{Config, Input, KeptEffect, LaneEnd, Partition, RetryPolicy, TransactionLimits, codec};

use super::{P0, SentTransaction, Shell};

pub(crate) fn transactional(limits: TransactionLimits) -> Config {
    Config {
        transactions: Some(limits),
        retry: RetryPolicy { max_attempts: 1, ..RetryPolicy::default() },
        ..Config::default()
    }
}

/// The kept effects: their numbers, offsets and kinds.
pub(crate) fn kept(shell: &Shell) -> Vec<(u64, i64, KeptEffect)> {
    shell.kept.iter().map(|effects| (effects.number.0, effects.event.offset, effects.effect)).collect()
}

/// What a transaction claims beyond its offset.
pub(crate) fn claimed(transaction: &SentTransaction, at: usize) -> (i64, Vec<(i64, i64)>) {
    let found = transaction.entries.get(at).zip(transaction.sets.get(at));
    let (entry, set) = found.expect("the transaction has so many entries");
    let Partition { number, .. } = entry.partition;
    let identity = codec::Identity { topic_id: [0; 16], partition: number, offset: entry.offset };
    (entry.offset, codec::decode(set.as_bytes(), &identity, i64::MAX).expect("a valid set"))
}

/// One event of a lane of its own was read, and its call ends with an output of this size.
pub(crate) fn emit(shell: &mut Shell, offset: i64, bytes: u32) {
    shell.fetch(P0, &[(offset, offset.unsigned_abs())]);
    end_with_output(shell, bytes);
}

pub(crate) fn end_with_output(shell: &mut Shell, bytes: u32) {
    let call = shell.calls.remove(0);
    let lanes = [LaneEnd { done: 1, verdict: None }];
    assert_eq!(call.rows.len(), 1);
    let (took, call) = (Duration::from_millis(1), call.id);
    let with_outputs = &[0];
    shell.give(Input::CallEnded { call, lanes: &lanes, with_outputs, output_bytes: &[bytes], took });
}
