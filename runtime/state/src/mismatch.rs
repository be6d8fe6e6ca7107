//! Whether the states of a partition and the committed offset of its group are of the same transaction.

use thiserror::Error;

use crate::binding::{Binding, BindingIdentity, RESET_OFFSET, SEEDED_OFFSET};

/// Why a partition can't start with the states of its changelog. The caller adds the remedies.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Mismatch {
    /// The group has committed, and the changelog is empty.
    #[error(
        "the group has committed offset {} of {topic}/{partition}, but the changelog has no state of it: the changelog \
         was deleted or emptied, or these events were processed without state",
        grouped(*.committed)
    )]
    StateMissing {
        /// The input topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// The committed offset.
        committed: i64,
    },
    /// The changelog has records, but no binding.
    #[error(
        "the changelog of {topic}/{partition} has records but no binding record: they were not written by Keylane, or \
         the binding record was deleted"
    )]
    BindingMissing {
        /// The input topic.
        topic: String,
        /// Its partition.
        partition: i32,
    },
    /// The states are being deleted, or that was interrupted.
    #[error("the state of {topic}/{partition} is being reset, or its reset was interrupted")]
    ResetUnfinished {
        /// The input topic.
        topic: String,
        /// Its partition.
        partition: i32,
    },
    /// The marks were written for a first start, and the group has committed.
    #[error(
        "the marks of {topic}/{partition} were written for a first start, but the group has committed offset {}: events \
         before it were processed without them",
        grouped(*.committed)
    )]
    SeededAfterStart {
        /// The input topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// The committed offset.
        committed: i64,
    },
    /// The changelog has a binding, and the group has no offset.
    #[error(
        "the state is of {topic}/{partition} at offset {}, but the group has no committed offset: its offsets expired, \
         or it was deleted",
        grouped(*.state)
    )]
    CommitMissing {
        /// The input topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// The offset of the state.
        state: i64,
    },
    /// The group is at another offset.
    #[error(
        "the state is of {topic}/{partition} at offset {}, but the group's offset is {}: the offset was changed without \
         the state",
        grouped(*.state), grouped(*.committed)
    )]
    OtherOffset {
        /// The input topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// The offset of the state.
        state: i64,
        /// The committed offset.
        committed: i64,
    },
    /// The group is at this offset, with other metadata: the set of events that are done beyond it differs.
    #[error(
        "the state and the group are both at offset {} of {topic}/{partition}, but the commit's metadata is not that of \
         the state: the offset was committed again without the state",
        grouped(*.offset)
    )]
    OtherMetadata {
        /// The input topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// The offset of both.
        offset: i64,
    },
    /// The input topic was deleted and created again.
    #[error(
        "the state is of a former topic {topic}: the topic was deleted and created again (id {state}, now {now})",
        state = id(.state), now = id(.now)
    )]
    TopicRecreated {
        /// The input topic.
        topic: String,
        /// The id of the topic whose events made the state.
        state: [u8; 16],
        /// The id of the topic now.
        now: [u8; 16],
    },
    /// The state is that of another topic.
    #[error("the state is of topic {state}, but the handler reads {now}: two topics have the same changelog")]
    OtherTopic {
        /// The topic whose events made the state.
        state: String,
        /// The input topic.
        now: String,
    },
    /// The state is that of another handler or group.
    #[error(
        "the state is of handler {handler} in group {group}, not of {own_handler} in {own_group}: two handlers have the \
         same changelog, or one was renamed"
    )]
    OtherHandler {
        /// The group that wrote the state.
        group: String,
        /// The handler that wrote the state.
        handler: String,
        /// The group of this handler.
        own_group: String,
        /// The name of this handler.
        own_handler: String,
    },
    /// The ordering or the lane key was changed.
    #[error("the state of {topic}/{partition} has the keys of `{state}`, but the handler now has `{now}`")]
    OtherLaneKey {
        /// The input topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// The ordering and lane key of the state.
        state: String,
        /// Those of the configuration.
        now: String,
    },
    /// The number of partitions was changed, so that keys have moved between partitions.
    #[error(
        "the state is of topic {topic} with {state} partitions, but it now has {now}: the events of some keys are now \
         in another partition than their state"
    )]
    OtherPartitionCount {
        /// The input topic.
        topic: String,
        /// The number of partitions of the state.
        state: u32,
        /// The number of partitions now.
        now: u32,
    },
}

/// Checks whether a partition may start with the states of its changelog.
///
/// `committed`: the group's offset and its metadata, read with `require_stable` before the changelog was read to its
/// end. `found`: the binding record. `has_records`: whether the changelog has any other record, deletions included.
///
/// # Errors
/// The first difference, most telling first: another handler or topic explains a different offset.
pub fn compare(
    expected: &BindingIdentity,
    committed: Option<(i64, &[u8])>,
    found: Option<&Binding>,
    has_records: bool,
) -> Result<(), Mismatch> {
    let topic = || expected.topic.clone();
    let partition = expected.partition;
    let Some(found) = found else {
        return match committed {
            None if !has_records => Ok(()),
            Some((committed, _)) if !has_records => {
                Err(Mismatch::StateMissing { topic: topic(), partition, committed })
            }
            None | Some(_) => Err(Mismatch::BindingMissing { topic: topic(), partition }),
        };
    };
    compare_identity(expected, found)?;
    let state = found.offset;
    match committed {
        _ if state == RESET_OFFSET => Err(Mismatch::ResetUnfinished { topic: topic(), partition }),
        None if state == SEEDED_OFFSET => Ok(()),
        Some((committed, _)) if state == SEEDED_OFFSET => {
            Err(Mismatch::SeededAfterStart { topic: topic(), partition, committed })
        }
        None => Err(Mismatch::CommitMissing { topic: topic(), partition, state }),
        Some((committed, _)) if committed != state => {
            Err(Mismatch::OtherOffset { topic: topic(), partition, state, committed })
        }
        Some((_, metadata)) if metadata != found.metadata => {
            Err(Mismatch::OtherMetadata { topic: topic(), partition, offset: state })
        }
        Some(_) => Ok(()),
    }
}

fn compare_identity(expected: &BindingIdentity, found: &Binding) -> Result<(), Mismatch> {
    let topic = || expected.topic.clone();
    if (&found.group, &found.handler) != (&expected.group, &expected.handler) {
        return Err(Mismatch::OtherHandler {
            group: found.group.clone(),
            handler: found.handler.clone(),
            own_group: expected.group.clone(),
            own_handler: expected.handler.clone(),
        });
    }
    if found.topic != expected.topic {
        return Err(Mismatch::OtherTopic { state: found.topic.clone(), now: topic() });
    }
    if let (Some(state), Some(now)) = (found.topic_id, expected.topic_id)
        && state != now
    {
        return Err(Mismatch::TopicRecreated { topic: topic(), state, now });
    }
    if found.partition_count != expected.partition_count {
        let (state, now) = (found.partition_count, expected.partition_count);
        return Err(Mismatch::OtherPartitionCount { topic: topic(), state, now });
    }
    if found.lane_key != expected.lane_key {
        let (state, now) = (found.lane_key.clone(), expected.lane_key.clone());
        return Err(Mismatch::OtherLaneKey { topic: topic(), partition: expected.partition, state, now });
    }
    Ok(())
}

/// Returns a number with commas between thousands.
fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns the first digits of a topic id.
fn id(topic_id: &[u8; 16]) -> String {
    topic_id.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binding::tests::{binding, identity};

    const SET: &[u8] = b"set";

    fn check(
        expected: &BindingIdentity,
        committed: Option<(i64, &[u8])>,
        found: Option<&Binding>,
        has_records: bool,
        message: &str,
    ) {
        let mismatch = compare(expected, committed, found, has_records).expect_err("a mismatch");
        assert_eq!(mismatch.to_string(), message);
    }

    #[test]
    fn a_first_start_and_the_same_transaction_are_right() {
        assert_eq!(compare(&identity(), None, None, false), Ok(()));
        for has_records in [false, true] {
            let found = binding(1200, SET);
            assert_eq!(compare(&identity(), Some((1200, SET)), Some(&found), has_records), Ok(()));
        }
    }

    #[test]
    fn a_partition_whose_reset_is_not_finished_agrees_with_no_commit() {
        let unfinished = "the state of orders/3 is being reset, or its reset was interrupted";
        for committed in [None, Some((0, &b""[..])), Some((-1, b""))] {
            check(&identity(), committed, Some(&binding(RESET_OFFSET, b"")), true, unfinished);
        }
    }

    #[test]
    fn a_first_start_may_begin_with_seeded_marks() {
        let seeded = binding(SEEDED_OFFSET, b"");
        for has_records in [false, true] {
            assert_eq!(compare(&identity(), None, Some(&seeded), has_records), Ok(()));
        }
        for committed in [0, SEEDED_OFFSET] {
            let expected = Mismatch::SeededAfterStart { topic: "orders".to_owned(), partition: 3, committed };
            assert_eq!(compare(&identity(), Some((committed, b"")), Some(&seeded), true), Err(expected));
        }
        check(
            &identity(),
            Some((1200, b"")),
            Some(&seeded),
            true,
            "the marks of orders/3 were written for a first start, but the group has committed offset 1,200: events before \
             it were processed without them",
        );
        let other = BindingIdentity { lane_key: "key: header user".to_owned(), ..identity() };
        let mismatch = compare(&other, None, Some(&seeded), true);
        assert!(matches!(mismatch, Err(Mismatch::OtherLaneKey { .. })), "{mismatch:?}");
    }

    #[test]
    fn a_topic_id_is_compared_only_if_it_is_known() {
        let unknown = BindingIdentity { topic_id: None, ..identity() };
        assert_eq!(compare(&unknown, Some((1200, SET)), Some(&binding(1200, SET)), true), Ok(()));
        let found = Binding { topic_id: None, ..binding(1200, SET) };
        assert_eq!(compare(&identity(), Some((1200, SET)), Some(&found), true), Ok(()));
    }

    #[test]
    fn one_of_state_and_offset_is_missing() {
        check(
            &identity(),
            Some((1200, SET)),
            None,
            false,
            "the group has committed offset 1,200 of orders/3, but the changelog has no state of it: the changelog was \
             deleted or emptied, or these events were processed without state",
        );
        for committed in [None, Some((1200, SET))] {
            check(
                &identity(),
                committed,
                None,
                true,
                "the changelog of orders/3 has records but no binding record: they were not written by Keylane, or the \
                 binding record was deleted",
            );
        }
        check(
            &identity(),
            None,
            Some(&binding(1_234_567, SET)),
            true,
            "the state is of orders/3 at offset 1,234,567, but the group has no committed offset: its offsets expired, \
             or it was deleted",
        );
    }

    #[test]
    fn the_commit_is_not_that_of_the_state() {
        check(
            &identity(),
            Some((0, SET)),
            Some(&binding(1200, SET)),
            true,
            "the state is of orders/3 at offset 1,200, but the group's offset is 0: the offset was changed without the \
             state",
        );
        check(
            &identity(),
            Some((100, b"other")),
            Some(&binding(100, SET)),
            true,
            "the state and the group are both at offset 100 of orders/3, but the commit's metadata is not that of the \
             state: the offset was committed again without the state",
        );
    }

    /// Each also differs in the offset, which is the consequence and not the cause.
    #[test]
    fn the_state_is_of_something_else() {
        let check = |expected: BindingIdentity, message| {
            for committed in [None, Some((0, &b""[..]))] {
                check(&expected, committed, Some(&binding(1200, SET)), true, message);
            }
        };
        let handler = "the state is of handler balances in group bank, not of sums in bank: two handlers have the same \
                       changelog, or one was renamed";
        check(BindingIdentity { handler: "sums".to_owned(), ..identity() }, handler);
        let group = "the state is of handler balances in group bank, not of balances in bank-2: two handlers have the \
                     same changelog, or one was renamed";
        check(BindingIdentity { group: "bank-2".to_owned(), ..identity() }, group);
        let topic =
            "the state is of topic orders, but the handler reads bills: two topics have the same changelog";
        check(BindingIdentity { topic: "bills".to_owned(), ..identity() }, topic);
        let recreated = "the state is of a former topic orders: the topic was deleted and created again (id 07070707, \
                         now 09090909)";
        check(BindingIdentity { topic_id: Some([9; 16]), ..identity() }, recreated);
        let count = "the state is of topic orders with 12 partitions, but it now has 16: the events of some keys are \
                     now in another partition than their state";
        check(BindingIdentity { partition_count: 16, ..identity() }, count);
        let lane_key = "the state of orders/3 has the keys of `key: record key`, but the handler now has `key: header \
                        user`";
        check(BindingIdentity { lane_key: "key: header user".to_owned(), ..identity() }, lane_key);
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (-12_345_678, "-12,345,678")] {
            assert_eq!(grouped(number), text);
        }
    }
}
