//! Promise: handlers of one process are independent. A handler that stops, or can't read its topic,
//! does not affect the partitions, events and order of another handler.

use keylane_tests::check;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::restricted_user;
use keylane_tests::wait;

const EVENTS: usize = 2_000;

#[test]
fn a_handler_that_stops_does_not_stop_the_other_one() {
    let Some(cluster) = kafka::shared() else { return };
    let (stopping, other) = (Flow::new(cluster, 2, &[]), Flow::new(cluster, 2, &[]));
    let settings = both(&stopping, &other).set("handlers.t.retry", "on_exhausted", "stop");
    let mut keylane = Keylane::run(&settings, &[]);
    stopping.wait_for_members(&["both"]);
    other.wait_for_members(&["both"]);
    send(&other, EVENTS / 2);
    let values = ["done", "reject", "done"].map(|value| Record::new("k", value));
    stopping.producer().send_all(&stopping.input, values.map(|record| record.to(0))).expect("acknowledged");
    wait::until("the handler to leave its group", wait::STATE_TIMEOUT, || {
        stopping.members.state().members.is_empty()
    });
    let names_the_reason = |line: &serde_json::Value| {
        line["level"] == "ERROR" && line.to_string().contains("the value requests it")
    };
    keylane.wait_for("the reason to be logged", names_the_reason);
    // From here on only the other handler runs.
    send(&other, EVENTS / 2);
    stopping.producer().send_all(&stopping.input, [Record::new("k", "done").to(1)]).expect("acknowledged");
    other.wait_until_committed();
    assert!(!keylane.has_ended(), "one of two handlers must still run{}", keylane.tail());
    keylane.terminate();
    keylane.expect_exit(1);
    assert_untouched(&other);
    let committed: Vec<_> = stopping.committed().iter().map(|committed| committed.offset).collect();
    assert_eq!(committed, [Some(1), Some(0)], "the event that stopped it is not committed");
}

#[test]
fn a_handler_that_loses_its_read_right_does_not_stop_the_other_one() {
    let Some(cluster) = kafka::dedicated(&restricted_user::options()) else { return };
    let (barred, other) = (Flow::new(&cluster, 2, &[]), Flow::new(&cluster, 2, &[]));
    let mut keylane = Keylane::run(&restricted_user::settings(&cluster, both(&barred, &other)), &[]);
    barred.wait_for_members(&["both"]);
    other.wait_for_members(&["both"]);
    for flow in [&barred, &other] {
        send(flow, EVENTS / 2);
        flow.wait_until_committed();
    }
    restricted_user::change_acl(
        &cluster,
        &["--add", "--deny-principal", "User:alice"],
        &["Read"],
        &barred.input,
    );
    keylane.wait_for("the denial to be reported", |line| {
        line["level"] == "ERROR" && line["handler"] == "t" && line["remedy"].to_string().contains("READ")
    });
    let before = barred.committed();
    send(&barred, EVENTS / 2);
    send(&other, EVENTS / 2);
    other.wait_until_committed();
    assert_eq!(offsets(&barred.committed()), offsets(&before), "unread events are not committed");
    assert!(!keylane.has_ended(), "ended instead of waiting for the read right{}", keylane.tail());
    keylane.terminate();
    keylane.expect_exit(0);
    assert_untouched(&other);
}

/// The handler `t` with the first flow, the handler `other` with the second one.
fn both(first: &Flow<'_>, second: &Flow<'_>) -> Settings {
    let failing = guest("failing");
    first
        .settings(&failing, "both")
        .set("handlers.other", "component", failing.display().to_string())
        .set("handlers.other", "topics", vec![second.input.as_str()])
        .set("handlers.other", "group_id", second.group.as_str())
        .set("handlers.other.outputs.out", "topic", second.output.as_str())
        .set("handlers.other.outputs.out", "provenance", true)
}

fn send(flow: &Flow<'_>, events: usize) {
    let event = |number: usize| Record::new(format!("key-{}", number % 97), "done");
    flow.producer().send_all(&flow.input, (0..events).map(event)).expect("acknowledged");
}

fn offsets(committed: &[kafka::Committed]) -> Vec<Option<i64>> {
    committed.iter().map(|committed| committed.offset).collect()
}

/// Asserts that every event was handled once, in order, and in one ownership of each partition.
fn assert_untouched(flow: &Flow<'_>) {
    let report = check::check(&flow.history());
    report.assert_clean();
    assert_eq!((report.outcomes, report.repeats), (EVENTS, [].into()));
    assert_eq!(
        report.ownerships.len(),
        usize::try_from(flow.partitions).expect("few partitions"),
        "no partition moved"
    );
}
