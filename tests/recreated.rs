//! Promise: a topic that is recreated while it is read is read from its first record, whatever was
//! committed for the earlier topic.

use std::collections::BTreeSet;

use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Group, Record};
use keylane_tests::keylane::Keylane;
use keylane_tests::wait;
use serde_json::Value;

/// The new log extends beyond the committed offset of the old one, ends below it, or is empty for a while.
#[test]
fn a_topic_that_is_created_again_at_once_is_read_from_its_first_record() {
    let Some(cluster) = kafka::shared() else { return };
    for count in [300, 20] {
        let flow = Flow::new(cluster, 1, &[]);
        let mut keylane = Keylane::run(&flow.settings(&guest("echo"), "again"), &[]);
        produce(&flow, "old", 100);
        flow.wait_until_committed();
        cluster.admin().delete_topic(&flow.input);
        create_again(&flow);
        produce(&flow, "new", count);
        expect_all_of_both(&flow, count);
        keylane.wait_for("the new topic to be reported", reports_new_topic);
        keylane.terminate();
        keylane.expect_exit(0);
    }
}

#[test]
fn a_topic_that_is_created_again_later_is_read_from_its_first_record() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 3, &[]);
    // Otherwise, the client assumes for 30 s that the topic is not yet propagated.
    let settings = flow.settings(&guest("echo"), "later").set(
        "kafka.consumer",
        "topic.metadata.propagation.max.ms",
        1_000,
    );
    let mut keylane = Keylane::run(&settings, &[]);
    produce(&flow, "old", 100);
    flow.wait_until_committed();
    cluster.admin().delete_topic(&flow.input);
    keylane.wait_for("the missing topic to be reported", |line| {
        line["level"] == "ERROR" && line["topic"] == flow.input.as_str()
    });
    create_again(&flow);
    produce(&flow, "new", 300);
    expect_all_of_both(&flow, 300);
    keylane.terminate();
    keylane.expect_exit(0);
}

/// Each replacement is handled, even if one description of the topics shows several.
#[test]
fn topics_that_are_created_again_together_are_all_read_from_their_first_record() {
    let Some(cluster) = kafka::shared() else { return };
    let first = &Flow::new(cluster, 1, &[]);
    let others = [0, 1].map(|_| Flow {
        input: Flow::new(cluster, 1, &[]).input,
        group: first.group.clone(),
        members: Group::new(&cluster.bootstrap(), &first.group),
        ..first.again()
    });
    let flows = [first, &others[0], &others[1]];
    let topics: Vec<&str> = flows.iter().map(|flow| flow.input.as_str()).collect();
    let settings = first.settings(&guest("echo"), "all").set("handlers.t", "topics", topics);
    let mut keylane = Keylane::run(&settings, &[]);
    let produce_to_all = |stem: &str, count: usize| {
        for (number, flow) in flows.iter().enumerate() {
            produce(flow, &format!("{stem}-{number}"), count);
        }
    };
    let outputs_of = |stem: &str| {
        let outputs: BTreeSet<String> = outputs(first).into_iter().collect();
        outputs.iter().filter(|key| key.starts_with(stem)).count()
    };
    produce_to_all("old", 100);
    wait::until("the old events to be done", wait::STATE_TIMEOUT, || outputs_of("old") == 300);
    flows.iter().for_each(|flow| flow.wait_until_committed());
    flows.iter().for_each(|flow| cluster.admin().delete_topic(&flow.input));
    flows.iter().for_each(|flow| create_again(flow));
    produce_to_all("new", 200);
    wait::until_ok("the new events to have outputs", wait::STATE_TIMEOUT, || {
        let found = outputs_of("new");
        if found == 600 { Ok(()) } else { Err(format!("{found} of 600{}", keylane.tail())) }
    });
    keylane.terminate();
    keylane.expect_exit(0);
}

/// An instance that was frozen while the topic was replaced finds no commits, or its own late commit.
#[test]
fn an_instance_that_was_frozen_meanwhile_reads_the_new_topic() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let mut keylane = Keylane::run(&flow.settings(&guest("echo"), "frozen"), &[]);
    produce(&flow, "old", 100);
    flow.wait_until_committed();
    keylane.freeze();
    cluster.admin().delete_topic(&flow.input);
    create_again(&flow);
    produce(&flow, "new", 300);
    keylane.thaw();
    expect_all_of_both(&flow, 300);
    keylane.terminate();
    keylane.expect_exit(0);
}

fn reports_new_topic(line: &Value) -> bool {
    line["level"] == "WARN" && line["message"] == "topic recreated; reading restarts at its first record"
}

fn create_again(flow: &Flow<'_>) {
    let admin = flow.cluster.admin();
    wait::until("the topic to be deleted", wait::STATE_TIMEOUT, || admin.partitions(&flow.input).is_none());
    admin.create_topic(&flow.input, flow.partitions, &[]);
}

fn produce(flow: &Flow<'_>, stem: &str, count: usize) {
    let event = |number| Record::new(format!("{stem}-{number}"), "v");
    flow.producer().send_all(&flow.input, (0..count).map(event)).expect("acknowledged");
}

/// Waits until each event of both topics has an output, and everything in the new one is committed.
fn expect_all_of_both(flow: &Flow<'_>, count: usize) {
    let keys: Vec<String> = (0..100).map(|number| format!("old-{number}")).collect();
    let keys: BTreeSet<String> =
        keys.into_iter().chain((0..count).map(|number| format!("new-{number}"))).collect();
    wait::until_ok("everything to have an output", wait::STATE_TIMEOUT, || {
        let outputs = outputs(flow);
        let found: BTreeSet<String> = outputs.iter().cloned().collect();
        if found == keys { Ok(()) } else { Err(format!("{} of {}", found.len(), keys.len())) }
    });
    flow.wait_until_committed();
    // Records of the new topic that were read before the replacement was noticed are read twice.
    let old = outputs(flow).iter().filter(|key| key.starts_with("old")).count();
    assert_eq!(old, 100, "no event of the old topic is repeated");
}

fn outputs(flow: &Flow<'_>) -> Vec<String> {
    let records = kafka::read_all(&flow.cluster.bootstrap(), &flow.output);
    records
        .iter()
        .map(|record| String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into())
        .collect()
}
