//! Promise: with `duplicates`, an event that a producer has sent twice is handled once.

use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::{Keylane, Settings};

/// An id is that of a lane key: other keys may use it, too. Events without an id are never duplicates.
#[test]
fn the_second_event_with_an_id_is_acknowledged_without_a_call() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let events = [
        event("a", "1", "first"),
        event("a", "1", "again"),
        event("b", "1", "other key"),
        event("a", "2", "second"),
        event("a", "1", "once more"),
        Record::new("a", "without id"),
        Record::new("a", "without id"),
    ];
    flow.producer().send_all(&flow.input, events).expect("acknowledged");
    let mut keylane = Keylane::run(&settings(&flow), &["--until-end"]);
    keylane.expect_exit(0);
    assert_eq!(flow.values_of("a"), ["first", "second", "without id", "without id"]);
    assert_eq!(flow.values_of("b"), ["other key"]);
    assert_eq!(flow.lag(), 0);
    let lines = keylane.lines();
    let totals = lines.iter().find(|line| line["message"] == "handler totals").expect("the last report");
    assert_eq!((&totals["settled"], &totals["duplicates"]), (&7.into(), &2.into()));
}

/// The id of a dead letter is not remembered, so that its redrive is handled.
#[test]
fn a_redriven_event_is_no_duplicate() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = flow
        .settings(&guest("failing"), "redriven")
        .set("handlers.t.duplicates", "id", "header:id")
        .set("handlers.t.duplicates", "memory", "session");
    let events = [event("a", "1", "reject"), event("a", "1", "reject")];
    flow.producer().send_all(&flow.input, events).expect("acknowledged");
    Keylane::run(&settings, &["--until-end"]).expect_exit(0);
    assert_eq!(kafka::read_all(&cluster.bootstrap(), &flow.dead_letters).len(), 2);
}

fn settings(flow: &Flow<'_>) -> Settings {
    flow.settings(&guest("echo"), "duplicates").set("handlers.t.duplicates", "id", "header:id").set(
        "handlers.t.duplicates",
        "memory",
        "session",
    )
}

fn event(key: &str, id: &str, value: &str) -> Record {
    Record::new(key, value).with("id", id)
}
