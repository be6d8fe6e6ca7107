//! Promise: a topic that gets more partitions while a handler runs is reported, because its keys move to other partitions. A
//! handler with keyed state stops instead: see `keyed_state.rs`.

use std::process::Command;
use std::time::Duration;

use keylane_tests::admin::Admin;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::{Keylane, binary};
use keylane_tests::wait;
use serde_json::{Value, json};

const MESSAGE: &str = "topic has more partitions than at the start: keys have moved to other partitions";

#[test]
fn a_topic_that_grows_is_reported_once_for_each_change() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let settings = flow.settings(&guest("echo"), "growing").set("admin", "listen", "127.0.0.1:0").set(
        "kafka.consumer",
        "topic.metadata.refresh.interval.ms",
        1_000,
    );
    let mut keylane = Keylane::run(&settings, &[]);
    let admin = Admin::of(&mut keylane);
    flow.producer().send_all(&flow.input, [Record::new("a", "1")]).expect("acknowledged");
    flow.wait_until_committed();
    assert_eq!(admin.handler()["grown_topics"], json!([]));

    cluster.admin().add_partitions(&flow.input, 3);
    let line = keylane.wait_for("the warning", |line| line["message"] == MESSAGE);
    assert_eq!((&line["partitions"], &line["at_start"]), (&3.into(), &2.into()), "{line}");
    assert_eq!((&line["topic"], &line["level"]), (&flow.input.as_str().into(), &"WARN".into()), "{line}");
    let expected = json!([{ "topic": flow.input, "partitions": 3, "at_start": 2 }]);
    assert_eq!(admin.handler()["grown_topics"], expected);
    let output = Command::new(binary()).args(["status", "--admin", &admin.url]).output();
    let shown = String::from_utf8(output.expect("the binary was built").stdout).expect("text");
    let expected = format!("topic {} has 3 partitions, at start 2: ", flow.input);
    assert!(shown.contains(&expected), "{shown}");

    // The new partition is read, and only another change is reported again.
    flow.producer().send_all(&flow.input, [Record::new("a", "2").to(2)]).expect("acknowledged");
    wait::until("the new partition is read", Duration::from_secs(30), || {
        flow.members.committed(&flow.input, 3).last().is_some_and(|last| last.offset == Some(1))
    });
    cluster.admin().add_partitions(&flow.input, 4);
    keylane.wait_for("the second warning", |line| line["message"] == MESSAGE && line["partitions"] == 4);
    let is_warning = |line: &&Value| line["message"] == MESSAGE;
    assert_eq!(keylane.lines().iter().filter(is_warning).count(), 2, "one for each change");
    keylane.terminate();
    keylane.expect_exit(0);
}
