//! Promise: with a gate of rule `window`, events that arrive out of order within the window are handled in order. Events that
//! wait survive a crash, their number is limited, and those that come too late are handled as configured.

use std::time::Duration;

use keylane_tests::admin::{Admin, at};
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::wait;

/// Ten events with one sequence over all keys, in one partition.
#[test]
fn ten_events_are_handled_in_order_of_their_sequence() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let mut keylane = Keylane::run(&windowed(&flow, "300ms"), &[]);
    flow.wait_for_members(&["windowed"]);
    send(&flow, &[4, 1, 3, 2, 10, 7, 5, 6, 9, 8]);
    wait_for(&flow, 10);
    assert_eq!(handled(&flow), (1..=10).collect::<Vec<_>>());
    flow.wait_until_committed();
    keylane.terminate();
    keylane.expect_exit(0);
}

/// The events come in bursts, and each burst has gaps that a later one fills.
#[test]
fn bursts_are_merged_within_the_window() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let mut keylane = Keylane::run(&windowed(&flow, "2s"), &[]);
    flow.wait_for_members(&["windowed"]);
    for burst in [&[3, 1, 5][..], &[2, 7, 4], &[6, 10, 8, 9]] {
        send(&flow, burst);
        wait::let_last(Duration::from_millis(100));
    }
    wait_for(&flow, 10);
    assert_eq!(handled(&flow), (1..=10).collect::<Vec<_>>());
    keylane.terminate();
    keylane.expect_exit(0);
    assert_eq!(flow.lag(), 0);
}

/// At the end of a run, all events that wait are released in order. A late one is handled out of order.
#[test]
fn the_end_of_a_run_releases_all_events() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    send(&flow, &[3, 2, 1]);
    Keylane::run(&windowed(&flow, "1h"), &["--until-end"]).expect_exit(0);
    assert_eq!(handled(&flow), [1, 2, 3]);
    assert_eq!(flow.lag(), 0);
}

/// An event that comes after its window, with each policy.
#[test]
fn late_events_are_handled_as_configured() {
    let Some(cluster) = kafka::shared() else { return };
    for (late, expected, dead) in
        [("deliver", &[1, 3, 2, 4][..], 0), ("drop", &[1, 3, 4], 0), ("dlq", &[1, 3, 4], 1)]
    {
        let flow = Flow::new(cluster, 1, &[]);
        let settings = windowed(&flow, "300ms").set("handlers.t.gate", "late", late);
        let mut keylane = Keylane::run(&settings, &[]);
        flow.wait_for_members(&["windowed"]);
        send(&flow, &[1, 3]);
        wait_for(&flow, 2);
        flow.wait_until_committed();
        send(&flow, &[2, 4]);
        wait_for(&flow, expected.len());
        flow.wait_until_committed();
        keylane.terminate();
        keylane.expect_exit(0);
        assert_eq!(handled(&flow), expected, "{late}");
        let lines = keylane.lines();
        let totals = lines.iter().find(|line| line["message"] == "handler totals").expect("the last report");
        let counted = ["late_delivered", "late_dropped"].map(|count| totals[count] == 1);
        assert_eq!(counted, [late == "deliver", late == "drop"], "{late}: {totals}");
        let letters = kafka::read_all(&cluster.bootstrap(), &flow.dead_letters);
        assert_eq!(letters.len(), dead, "{late}: {letters:?}");
        for letter in letters {
            let of_gate = (letter.text("keylane-reason"), letter.number("keylane-order-value"));
            assert_eq!(of_gate, ("late", Some(2)));
        }
    }
}

/// A process is killed (-9) while events wait. They are read again, and none is lost.
#[test]
fn a_kill_with_a_full_buffer_loses_nothing() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = windowed(&flow, "1h").set("admin", "listen", "127.0.0.1:0");
    let mut keylane = Keylane::run(&settings, &[]);
    let admin = Admin::of(&mut keylane);
    send(&flow, &[3, 5, 1, 4, 2]);
    wait::until("the events to wait", wait::STATE_TIMEOUT, || {
        at(&admin.handler(), "/partitions/0/parked") == 5
    });
    let blocked = at(&admin.handler(), "/partitions/0/blocked/reason");
    assert_eq!(blocked, "window", "the status names what the partition waits for");
    keylane.kill();
    assert_eq!(handled(&flow), [] as [i64; 0]);
    Keylane::run(&windowed(&flow, "1h"), &["--until-end"]).expect_exit(0);
    assert_eq!(handled(&flow), [1, 2, 3, 4, 5]);
}

/// More events wait than may: the oldest ones are released before their time, in order, and this is counted.
#[test]
fn a_buffer_beyond_its_limit_releases_the_oldest_events() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings =
        windowed(&flow, "1h").set("handlers.t.gate", "max_waiting", 4).set("admin", "listen", "127.0.0.1:0");
    let mut keylane = Keylane::run(&settings, &[]);
    let admin = Admin::of(&mut keylane);
    send(&flow, &[2, 1, 4, 3, 6, 5]);
    wait_for(&flow, 2);
    assert_eq!(handled(&flow), [1, 2]);
    assert!(at(&admin.handler(), "/gate/windows_released_early").as_u64() > Some(0), "{}", admin.handler());
    keylane.terminate();
    keylane.expect_exit(0);
}

/// The broker replaces the timestamps of this topic, so they say nothing about the order in which events occurred.
#[test]
fn a_topic_without_the_times_of_producers_is_refused() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[("message.timestamp.type", "LogAppendTime")]);
    let settings = flow
        .settings(&guest("echo"), "refused")
        .set("handlers.t.gate", "rule", "window")
        .set("handlers.t.gate", "by", "timestamp")
        .set("handlers.t.gate", "window", "1s");
    let mut keylane = Keylane::run(&settings, &["--until-end"]);
    keylane.expect_exit(1);
    let log = keylane.tail();
    assert!(log.contains("LogAppendTime") && log.contains(&flow.input), "{log}");
}

fn windowed(flow: &Flow<'_>, window: &str) -> Settings {
    flow.settings(&guest("echo"), "windowed")
        .set("handlers.t.lanes", "ordering", "partition")
        .set("handlers.t.gate", "rule", "window")
        .set("handlers.t.gate", "by", "header:sequence")
        .set("handlers.t.gate", "window", window)
        .set("handlers.t.gate", "max_ahead", 1_000)
}

/// Sends one event of a key of its own for each number, in this order.
fn send(flow: &Flow<'_>, numbers: &[i64]) {
    let records = numbers.iter().map(|number| {
        Record::new(format!("key-{number}"), number.to_string()).with("sequence", number.to_string())
    });
    flow.producer().send_all(&flow.input, records.collect::<Vec<_>>()).expect("acknowledged");
}

/// Returns the numbers of the outputs, in order.
fn handled(flow: &Flow<'_>) -> Vec<i64> {
    let outputs = kafka::read_all(&flow.cluster.bootstrap(), &flow.output);
    outputs.iter().filter_map(|output| output.number("sequence")).collect()
}

fn wait_for(flow: &Flow<'_>, outputs: usize) {
    wait::until_ok("all events to be handled", wait::STATE_TIMEOUT, || {
        let handled = handled(flow);
        if handled.len() >= outputs { Ok(()) } else { Err(format!("only {handled:?}")) }
    });
}
