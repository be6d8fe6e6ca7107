//! Promise: with a gate of rule `window`, events that arrive out of order within the window are handled in order.

use std::time::Duration;

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
