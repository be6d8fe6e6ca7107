//! Promise: with a gate of rule `consecutive`, the versions of a key are handled in their order, none is left out, and what is
//! remembered of them survives crashes and rebalances.

use std::time::Duration;

use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Received, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::wait;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Versions 1, 3 and 2 of a row, of which each is a partial update.
#[test]
fn versions_are_handled_in_order() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    send(&flow, [("a", 1), ("a", 3), ("b", 1), ("a", 2), ("a", 3), ("b", 2)].map(version).into());
    Keylane::run(&consecutive(&flow), &["--until-end"]).expect_exit(0);
    assert_eq!(values_of(&flow, "a"), ["1", "2", "3"]);
    assert_eq!(values_of(&flow, "b"), ["1", "2"]);
    assert_eq!(flow.lag(), 0);
}

/// The process is killed while version 3 waits for version 2, twice: what is remembered is that of the last transaction.
#[test]
fn a_kill_between_two_versions_loses_and_repeats_nothing() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = consecutive(&flow);
    for round in 0..2 {
        let first = 3 * round + 1;
        send(&flow, [("a", first), ("a", first + 2)].map(version).into());
        let mut keylane = Keylane::run(&settings, &[]);
        wait::until("the first version is handled", TIMEOUT, || values_of(&flow, "a").len() == 3 * round + 1);
        keylane.kill();
        send(&flow, vec![version(("a", first + 1))]);
        let mut keylane = Keylane::run(&settings, &[]);
        wait::until("all versions are handled", TIMEOUT, || values_of(&flow, "a").len() == 3 * round + 3);
        keylane.kill();
    }
    assert_eq!(values_of(&flow, "a"), ["1", "2", "3", "4", "5", "6"]);
}

fn consecutive(flow: &Flow<'_>) -> Settings {
    flow.settings(&guest("echo"), "consecutive")
        .set("handlers.t", "delivery", "transactional")
        .set("handlers.t", "start", "earliest")
        .set("handlers.t.gate", "rule", "consecutive")
        .set("handlers.t.gate", "by", "header:version")
        .set("handlers.t.gate", "first", 1)
}

fn version((key, version): (&str, usize)) -> Record {
    Record::new(key, version.to_string()).with("version", version.to_string())
}

fn send(flow: &Flow<'_>, records: Vec<Record>) {
    flow.producer().send_all(&flow.input, records).expect("acknowledged");
}

/// Returns the values of the committed outputs of a key, in order.
fn values_of(flow: &Flow<'_>, key: &str) -> Vec<String> {
    let outputs = kafka::read_committed(&flow.cluster.bootstrap(), &flow.output);
    let of_key =
        outputs.into_iter().filter(|output: &Received| output.key.as_deref() == Some(key.as_bytes()));
    of_key.map(|output| String::from_utf8_lossy(&output.value.unwrap_or_default()).into_owned()).collect()
}
