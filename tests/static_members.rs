//! Promise: a static member that stops and returns within the session timeout keeps its partitions.
//! No other member is affected, and nothing is repeated. Of two processes with the same
//! `group_instance_id`, only one keeps running.

use keylane_tests::check;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::progress::Progress;
use keylane_tests::wait;
use serde_json::Value;

const PARTITIONS: i32 = 4;
const RETURNS: usize = 3;
const EVENTS: usize = 2_000;

#[test]
fn a_static_member_that_returns_causes_no_rebalance() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let mut progress = Progress::of(&flow);
    let producer = flow.producer();
    let mut produced = 0;
    let mut staying = Keylane::run(&settings(&flow, "staying"), &[]);
    let mut returning = Keylane::run(&settings(&flow, "returning"), &[]);
    flow.wait_for_members(&["staying", "returning"]);
    let before = flow.members.state();
    let released =
        |keylane: &Keylane| keylane.lines().iter().filter(|line| is_message(line, "ownership ended")).count();
    let released_before = released(&staying);
    for _ in 0..RETURNS {
        producer.send_all(&flow.input, (produced..produced + EVENTS).map(event)).expect("acknowledged");
        produced += EVENTS;
        let done = progress.done();
        wait::until("the load to be handled", wait::STATE_TIMEOUT, || {
            progress.advance();
            progress.done() > done + 200
        });
        returning.terminate();
        returning.expect_exit(0);
        assert!(
            flow.members.state().is_settled(&["staying", "returning"], 4),
            "a static member does not leave"
        );
        returning = Keylane::run(&settings(&flow, "returning"), &[]);
        wait::until("everything to be done", wait::STATE_TIMEOUT, || {
            progress.advance();
            progress.done() == produced
        });
    }
    let after = flow.members.state();
    for client in ["staying", "returning"] {
        assert_eq!(sorted(after.partitions_of(client)), sorted(before.partitions_of(client)), "{client}");
    }
    flow.wait_until_committed();
    assert_eq!(released(&staying), released_before, "no partition was taken from the member that stayed");
    staying.terminate();
    staying.expect_exit(0);
    let report = check::check(&flow.history());
    report.assert_clean();
    assert_eq!(report.repeats, [].into());
}

#[test]
fn the_older_of_two_members_with_the_same_id_ends_with_a_reason() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let mut first = Keylane::run(&settings(&flow, "same"), &[]);
    flow.wait_for_members(&["same"]);
    let mut second = Keylane::run(&settings(&flow, "same"), &[]);
    first.expect_exit(1);
    let names_the_reason = |line: &Value| line.to_string().contains("group_instance_id");
    assert!(first.lines().iter().any(names_the_reason), "no reason is reported{}", first.tail());
    flow.producer().send_all(&flow.input, (0..EVENTS).map(event)).expect("acknowledged");
    flow.wait_until_committed();
    second.terminate();
    second.expect_exit(0);
    check::check(&flow.history()).assert_clean();
}

fn settings(flow: &Flow<'_>, name: &str) -> Settings {
    flow.settings(&guest("sleepy"), name)
        .set("handlers.t", "group_instance_id", name)
        // Long enough for a restart on a slow machine.
        .set("kafka.client", "session.timeout.ms", 60_000)
        .set("handlers.t", "max_batch", 1)
}

fn event(number: usize) -> Record {
    Record::new(format!("key-{}", number * 31 % 997), "").with("sleep-ms", "5").with("emit", "")
}

fn is_message(line: &Value, message: &str) -> bool {
    line.get("message").and_then(Value::as_str) == Some(message)
}

fn sorted(mut partitions: Vec<i32>) -> Vec<i32> {
    partitions.sort_unstable();
    partitions
}
