//! Promise: a static member that stops and comes back within the session timeout finds its partitions where it left
//! them: nobody else is disturbed, nothing is repeated. Two processes with one `group_instance_id` never both run.

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
fn a_member_that_comes_back_disturbs_nobody() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let mut progress = Progress::of(&flow);
    let producer = flow.producer();
    let mut fed = 0;
    let mut staying = Keylane::run(&settings(&flow, "staying"), &[]);
    let mut returning = Keylane::run(&settings(&flow, "returning"), &[]);
    flow.wait_for_members(&["staying", "returning"]);
    let before = flow.members.state();
    let given_up = |keylane: &Keylane| {
        keylane.lines().iter().filter(|line| is_message(line, "partition released")).count()
    };
    let at_first = given_up(&staying);
    for _ in 0..RETURNS {
        producer.send_all(&flow.input, (fed..fed + EVENTS).map(event)).expect("acknowledged");
        fed += EVENTS;
        let done = progress.done();
        wait::until("the load to be under way", wait::PATIENCE, || {
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
        wait::until("everything to be done", wait::PATIENCE, || {
            progress.advance();
            progress.done() == fed
        });
    }
    let after = flow.members.state();
    for client in ["staying", "returning"] {
        assert_eq!(sorted(after.partitions_of(client)), sorted(before.partitions_of(client)), "{client}");
    }
    flow.wait_until_committed();
    assert_eq!(given_up(&staying), at_first, "no partition was taken from the member that stayed");
    staying.terminate();
    staying.expect_exit(0);
    let report = check::check(&flow.history());
    report.assert_clean();
    assert_eq!(report.repeats, [].into());
}

#[test]
fn of_two_with_the_same_id_the_older_one_ends_and_says_why() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let mut first = Keylane::run(&settings(&flow, "same"), &[]);
    flow.wait_for_members(&["same"]);
    let mut second = Keylane::run(&settings(&flow, "same"), &[]);
    first.expect_exit(1);
    let says_why = |line: &Value| line.to_string().contains("group_instance_id");
    assert!(first.lines().iter().any(says_why), "nobody says why it ended{}", first.tail());
    flow.producer().send_all(&flow.input, (0..EVENTS).map(event)).expect("acknowledged");
    flow.wait_until_committed();
    second.terminate();
    second.expect_exit(0);
    check::check(&flow.history()).assert_clean();
}

fn settings(flow: &Flow<'_>, name: &str) -> Settings {
    flow.settings(&guest("sleepy"), name)
        .set("handlers.t", "group_instance_id", name)
        // Long enough that a restart on a slow machine is a return.
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
