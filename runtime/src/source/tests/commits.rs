//! Commits: metadata, results per partition, timeouts.
use std::time::Duration;

use keylane_core::{CommitError, CommitId, Partition};

use super::broker::{Sent, TOPIC, broker, send, spec};
use super::member::Member;
use crate::config::Assignor;
use crate::librdkafka::ErrorCode;
use crate::source::SourceEvent;

/// API key of OffsetCommit.
const OFFSET_COMMIT: i16 = 8;
const P0: Partition = Partition { topic: 0, number: 0 };
const P1: Partition = Partition { topic: 0, number: 1 };

fn ready(partitions: i32) -> (crate::source::embedded::EmbeddedBroker, Member) {
    let broker = broker(partitions);
    let records = (0..10).map(|number| Sent { partition: number % partitions, ..Sent::default() });
    send(&broker.bootstrap_servers(), TOPIC, records);
    let mut member = Member::join(&spec(&broker, Assignor::CooperativeSticky));
    member.until("all records are read", |m| m.records.len() == 10);
    (broker, member)
}

fn results(member: &mut Member) -> Vec<(CommitId, Partition, Result<(), CommitError>)> {
    let mut found: Vec<_> = std::mem::take(&mut member.other_events)
        .into_iter()
        .filter_map(|event| {
            let SourceEvent::CommitResult { id, partition, result, .. } = event else { return None };
            Some((id, partition, result))
        })
        .collect();
    found.sort_by_key(|(_, partition, _)| *partition);
    found
}

#[test]
fn the_next_owner_receives_the_metadata() {
    let (broker, mut member) = ready(2);
    let metadata = "kl1:".to_owned() + &"x".repeat(3_000);
    let id = member.commit_positions(&[P0, P1], &metadata);
    member.until("both partitions have a result", |m| m.other_events.len() == 2);
    assert_eq!(results(&mut member), [(id, P0, Ok(())), (id, P1, Ok(()))]);
    assert!(member.source.leave(Duration::from_secs(10), Duration::from_secs(10)));

    let mut next = Member::join(&spec(&broker, Assignor::CooperativeSticky));
    next.until("both start positions are found", |m| m.starts.len() == 2);
    for start in &next.starts {
        assert_eq!(start.committed, Some((5, metadata.clone().into_bytes())), "{}", start.partition);
    }
    assert!(next.source.leave(Duration::from_secs(10), Duration::from_secs(10)));
}

#[test]
fn errors_are_reported_per_partition_and_classified() {
    let (broker, mut member) = ready(1);
    for (code, error) in [
        (ErrorCode::OFFSET_METADATA_TOO_LARGE, CommitError::MetadataTooLarge),
        (ErrorCode::REBALANCE_IN_PROGRESS, CommitError::TryAgain),
        (ErrorCode::GROUP_AUTHORIZATION_FAILED, CommitError::Other),
        // A code that the client does not define.
        (ErrorCode(1_234), CommitError::Other),
    ] {
        broker.mock().push_errors(OFFSET_COMMIT, &[code]);
        let id = member.commit_positions(&[P0], "m");
        member.until("the commit has a result", |m| !m.other_events.is_empty());
        assert_eq!(results(&mut member), [(id, P0, Err(error))], "{code:?}");
    }
    let id = member.commit_positions(&[P0], "m");
    member.until("the commit has a result", |m| !m.other_events.is_empty());
    assert_eq!(results(&mut member), [(id, P0, Ok(()))]);
    assert!(member.source.leave(Duration::from_secs(10), Duration::from_secs(10)));
}

#[test]
fn a_commit_without_a_response_times_out() {
    let (broker, mut member) = ready(1);
    broker.mock().set_round_trip_time(1, Duration::from_secs(3)).expect("the round-trip time is set");
    let id = member.commit_positions(&[P0], "m");
    let late = |member: &mut Member, now| {
        let mut late = Vec::new();
        while let Some(event) = member.source.next_event(now) {
            if let SourceEvent::CommitTimedOut { id } = event {
                late.push(id);
            }
        }
        late
    };
    let timeout = Duration::from_secs(2);
    assert_eq!(late(&mut member, timeout - Duration::from_millis(1)), []);
    assert_eq!(member.source.next_timeout(), timeout, "the timeout is the commit's deadline");
    assert_eq!(late(&mut member, timeout), [id]);
    assert_eq!(late(&mut member, timeout), [], "reported once");
    broker.mock().set_round_trip_time(1, Duration::ZERO).expect("the round-trip time is set");
    assert!(member.source.leave(Duration::from_secs(20), Duration::from_secs(20)));
}
