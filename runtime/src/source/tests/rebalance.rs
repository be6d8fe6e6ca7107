//! Two members of one group join and leave, with late answers to rebalances.
use std::collections::BTreeSet;
use std::time::Duration;

use keylane_core::RebalanceId;

use super::broker::{Sent, TEST_LIMIT, TOPIC, broker, send, spec};
use super::member::Member;
use crate::config::Assignor;
use crate::librdkafka::Deadline;

const PARTITIONS: i32 = 4;

/// The library treats any answer as the answer to the pending rebalance, so a late answer must not
/// reach it.
#[test]
fn an_answer_to_another_rebalance_is_ignored() {
    let broker = broker(2);
    let mut member = Member::join(&spec(&broker, Assignor::CooperativeSticky));
    member.holds_answers = true;
    member.until("an assign is pending", |m| m.assigning.is_some());
    let request = member.assigning.expect("an assign is pending");
    let other = RebalanceId(request.0 + 1);
    member.source.answer_revoke(request);
    member.source.answer_revoke(other);
    member.source.answer_assign(other, &[]);
    member.holds_answers = false;
    member.until("the partitions are assigned", |m| m.next.len() == 2);
    send(
        &broker.bootstrap_servers(),
        TOPIC,
        (0..4).map(|number| Sent { partition: number % 2, ..Sent::default() }),
    );
    member.until("all records are read", |m| m.records.len() == 4);
    assert_eq!(member.errors, []);
    assert!(member.source.leave(Duration::from_secs(10), Duration::from_secs(10)));
}

#[test]
fn cooperative_sticky() {
    two_members(Assignor::CooperativeSticky);
}

#[test]
fn range() {
    two_members(Assignor::Range);
}

/// Every record is read exactly once, in order, by one member or the other: read positions are committed before each
/// reassignment. (The test commits outside the revoke, because the mock cluster rejects commits while members join.) A
/// record on the main queue would make the source panic.
fn two_members(assignor: Assignor) {
    let broker = broker(PARTITIONS);
    let spec = spec(&broker, assignor);
    let mut sent = 0;
    let mut send_more = |count: i32| {
        let records = (0..count).map(|number| Sent { partition: number % PARTITIONS, ..Sent::default() });
        send(&broker.bootstrap_servers(), TOPIC, records);
        sent += usize::try_from(count).expect("the count is positive");
        sent
    };
    let mut first = Member::join(&spec);
    first.revoke_delay = 20;
    let total = send_more(2_000);
    first.until("the first member reads all records", |m| m.next.len() == 4 && m.records.len() == total);
    first.commit_all();

    let mut second = Member::join(&spec);
    second.revoke_delay = 20;
    let limit = Deadline::after(TEST_LIMIT);
    while first.next.len() != 2 || second.next.len() != 2 {
        assert!(!limit.is_over(), "partitions are not divided: {:?} {:?}", first.next, second.next);
        first.step();
        second.step();
    }
    assert!(first.delayed_steps > 0, "no revoke was answered late");
    let total = send_more(2_000);
    while first.records.len() + second.records.len() < total {
        assert!(
            !limit.is_over(),
            "records read: {} + {} of {total}",
            first.records.len(),
            second.records.len()
        );
        first.step();
        second.step();
    }

    // The second member leaves. The first continues at the offsets that the second has committed.
    first.commit_all();
    second.commit_all();
    let (second_records, second_order) = (second.records, second.out_of_order);
    assert!(
        second.source.leave(Duration::from_secs(10), Duration::from_secs(10)),
        "the member leaves in time"
    );
    first.until("the first member owns all partitions again", |m| m.next.len() == 4);
    let total = send_more(2_000);
    first.until("all records are read", |m| m.records.len() + second_records.len() >= total);

    assert_eq!((&first.out_of_order, &second_order), (&vec![], &vec![]));
    let mut seen = BTreeSet::new();
    for (partition, offset, _) in first.records.iter().chain(&second_records) {
        assert!(seen.insert((*partition, *offset)), "{partition} offset {offset} was read twice");
    }
    assert_eq!(seen.len(), total);
    assert!(
        first.source.leave(Duration::from_secs(10), Duration::from_secs(10)),
        "the member leaves in time"
    );
}
