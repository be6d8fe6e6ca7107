//! Promise: a new group starts at the configured `start`. A group with a commit continues from its
//! commits, and a partition that is new to the group starts at its beginning.

use std::collections::BTreeSet;

use keylane_tests::check;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::Keylane;
use keylane_tests::wait;

const PARTITIONS: i32 = 3;
const EVENTS_PER_PARTITION: i64 = 50;
/// Midnight of 1 and of 31 January 2026, UTC, in milliseconds since 1970.
const NEW_YEAR: i64 = 1_767_225_600_000;
const MONTH_END: i64 = 1_769_817_600_000;

#[test]
fn a_time_is_looked_up_in_every_partition() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[("message.timestamp.before.max.ms", "9223372036854775807")]);
    send(&flow, 0..PARTITIONS, NEW_YEAR);
    // One partition has no record since that time. It starts at its end.
    send(&flow, 0..PARTITIONS - 1, MONTH_END);
    run_to_end(&flow, "2026-01-31T00:00:00Z");
    let late = (0..PARTITIONS - 1).flat_map(|partition| {
        (EVENTS_PER_PARTITION..2 * EVENTS_PER_PARTITION).map(move |offset| (partition, offset))
    });
    assert_eq!(handled(&flow), late.collect());
}

#[test]
fn latest_is_the_end_of_the_log_at_the_groups_first_start() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    send(&flow, 0..PARTITIONS, NEW_YEAR);
    let settings = flow.settings(&guest("sleepy"), "latest").set("handlers.t", "start", "latest");
    let mut keylane = Keylane::run(&settings, &[]);
    wait::until("every start to be committed", wait::STATE_TIMEOUT, || {
        flow.committed().iter().all(|committed| committed.offset == Some(EVENTS_PER_PARTITION))
    });
    // The instance is killed before it handled an event. The next one must not skip the events that
    // arrive meanwhile.
    keylane.kill();
    send(&flow, 0..PARTITIONS, NEW_YEAR);
    run_to_end(&flow, "latest");
    let late = (0..PARTITIONS).flat_map(|partition| {
        (EVENTS_PER_PARTITION..2 * EVENTS_PER_PARTITION).map(move |offset| (partition, offset))
    });
    assert_eq!(handled(&flow), late.collect());
}

/// `start` applies to groups that are new to the topic. Here the group has a commit for one partition of three.
#[test]
fn a_group_with_a_commit_misses_nothing() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    send(&flow, 0..PARTITIONS, NEW_YEAR);
    flow.members.commit(&flow.input, 1, 20, b"");
    run_to_end(&flow, "latest");
    let all = (0..PARTITIONS)
        .flat_map(|partition| (0..EVENTS_PER_PARTITION).map(move |offset| (partition, offset)));
    assert_eq!(handled(&flow), all.filter(|&(partition, offset)| partition != 1 || offset >= 20).collect());
}

/// Partitions that are added while the group runs are new to it. All their events are handled.
#[test]
fn an_added_partition_starts_at_its_beginning() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    send(&flow, 0..1, NEW_YEAR);
    let settings = flow
        .settings(&guest("sleepy"), "grown")
        .set("kafka.consumer", "topic.metadata.refresh.interval.ms", 1_000)
        .set("handlers.t", "start", "latest");
    let mut keylane = Keylane::run(&settings, &[]);
    wait::until("the start to be committed", wait::STATE_TIMEOUT, || {
        flow.committed().iter().all(|committed| committed.offset == Some(EVENTS_PER_PARTITION))
    });
    cluster.admin().add_partitions(&flow.input, 2);
    send(&flow, 1..2, NEW_YEAR);
    wait::until("the new partition's events to be committed", wait::STATE_TIMEOUT, || {
        flow.members
            .committed(&flow.input, 2)
            .iter()
            .all(|committed| committed.offset == Some(EVENTS_PER_PARTITION))
    });
    keylane.terminate();
    keylane.expect_exit(0);
    assert_eq!(handled(&flow), (0..EVENTS_PER_PARTITION).map(|offset| (1, offset)).collect());
}

fn run_to_end(flow: &Flow<'_>, start: &str) {
    let settings = flow.settings(&guest("sleepy"), "starter").set("handlers.t", "start", start);
    Keylane::run(&settings, &["--until-end"]).expect_exit(0);
    assert_eq!(flow.lag(), 0);
}

/// Produces `EVENTS_PER_PARTITION` events to each of these partitions.
fn send(flow: &Flow<'_>, partitions: std::ops::Range<i32>, timestamp: i64) {
    let records = partitions.flat_map(|partition| {
        (0..EVENTS_PER_PARTITION).map(move |number| {
            Record::new(format!("key-{number}"), "")
                .with("sleep-ms", "0")
                .with("emit", "")
                .at(timestamp)
                .to(partition)
        })
    });
    flow.producer().send_all(&flow.input, records).expect("acknowledged");
}

/// Partition and offset of every event with an output.
fn handled(flow: &Flow<'_>) -> BTreeSet<(i32, i64)> {
    let outputs = kafka::read_all(&flow.cluster.bootstrap(), &flow.output);
    let origin =
        |record| check::AttributedOutput::of(record, &flow.input).expect("every output names its origin");
    outputs.iter().map(origin).map(|outcome| (outcome.partition, outcome.offset)).collect()
}
