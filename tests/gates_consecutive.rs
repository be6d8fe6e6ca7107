//! Promise: with a gate of rule `consecutive`, the versions of a key are handled in their order, none is left out, and what is
//! remembered of them survives crashes and rebalances.

use std::time::Duration;

use keylane_tests::flow::Flow;
use keylane_tests::kafka::{self, Received};
use keylane_tests::keylane::Keylane;
use keylane_tests::versions::{consecutive, version};
use keylane_tests::wait;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Versions 1, 3 and 2 of a row, of which each is a partial update.
#[test]
fn versions_are_handled_in_order() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    flow.send([("a", 1), ("a", 3), ("b", 1), ("a", 2), ("a", 3), ("b", 2)].map(version).into());
    Keylane::run(&consecutive(&flow), &["--until-end"]).expect_exit(0);
    assert_eq!(flow.values_of("a"), ["1", "2", "3"]);
    assert_eq!(flow.values_of("b"), ["1", "2"]);
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
        flow.send([("a", first), ("a", first + 2)].map(version).into());
        let mut keylane = Keylane::run(&settings, &[]);
        wait::until("the first version is handled", TIMEOUT, || flow.values_of("a").len() == 3 * round + 1);
        keylane.kill();
        flow.send(vec![version(("a", first + 1))]);
        let mut keylane = Keylane::run(&settings, &[]);
        wait::until("all versions are handled", TIMEOUT, || flow.values_of("a").len() == 3 * round + 3);
        keylane.kill();
    }
    assert_eq!(flow.values_of("a"), ["1", "2", "3", "4", "5", "6"]);
}

/// Version 2 is missing. Version 3 is dead-lettered with the missing version, and when both are published again, they are
/// handled in order.
#[test]
fn a_gap_is_dead_lettered_until_the_missing_version_comes() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = consecutive(&flow).set("handlers.t.gate", "gap_timeout", "300ms");
    let mut keylane = Keylane::run(&settings, &[]);
    flow.wait_for_members(&["consecutive"]);
    flow.send([("a", 1), ("a", 3), ("b", 1)].map(version).into());
    wait::until("the dead letter", TIMEOUT, || dead_letters(&flow).len() == 1);
    flow.wait_until_committed();
    let letters = dead_letters(&flow);
    let letter = letters.first().expect("one dead letter");
    assert_eq!(letter.text("keylane-reason"), "gap");
    assert_eq!(
        (letter.number("keylane-order-value"), letter.number("keylane-gap-expected")),
        (Some(3), Some(2))
    );
    keylane.wait_for("the gap in the log", |line| line["cause"] == "gap_timeout" && line["expected"] == 2);
    flow.send([("a", 2), ("a", 3)].map(version).into());
    wait::until("the other versions", TIMEOUT, || flow.values_of("a").len() == 3);
    keylane.terminate();
    keylane.expect_exit(0);
    assert_eq!(flow.values_of("a"), ["1", "2", "3"]);
    assert_eq!(flow.values_of("b"), ["1"]);
}

/// Version 2 is passed over, and is handled when it comes after all.
#[test]
fn a_gap_is_passed_over() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = consecutive(&flow)
        .set("handlers.t.gate", "gap_timeout", "300ms")
        .set("handlers.t.gate", "on_gap", "pass")
        .set("handlers.t.gate", "max_ahead", 100);
    let mut keylane = Keylane::run(&settings, &[]);
    flow.wait_for_members(&["consecutive"]);
    flow.send([("a", 1), ("a", 3)].map(version).into());
    wait::until("the version behind the gap", TIMEOUT, || flow.values_of("a").len() == 2);
    flow.send([("a", 2), ("a", 3), ("a", 4)].map(version).into());
    wait::until("the late version", TIMEOUT, || flow.values_of("a").len() == 4);
    flow.wait_until_committed();
    keylane.terminate();
    keylane.expect_exit(0);
    assert_eq!(flow.values_of("a"), ["1", "3", "2", "4"]);
}

/// The partition stops at the gap, and continues there when the missing version has come.
#[test]
fn a_gap_stops_the_partition() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = consecutive(&flow).set("handlers.t.gate", "gap_timeout", "300ms").set(
        "handlers.t.gate",
        "on_gap",
        "stop",
    );
    flow.send([("a", 1), ("a", 3)].map(version).into());
    let mut keylane = Keylane::run(&settings, &[]);
    keylane.expect_exit(1);
    let log = keylane.tail();
    assert!(log.contains("waited too long for the order values"), "{log}");
    assert!(log.contains("the partition stops") && !log.contains("dead letter"), "{log}");
    flow.send(vec![version(("a", 2))]);
    Keylane::run(&settings, &["--until-end"]).expect_exit(0);
    assert_eq!(flow.values_of("a"), ["1", "2", "3"]);
}

/// Under `--until-end`, a version that waits for one that is not in the log is a failure, and stays in the log.
#[test]
fn an_early_version_at_the_end_of_a_run_is_a_failure() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    flow.send([("a", 1), ("a", 3)].map(version).into());
    let mut keylane = Keylane::run(&consecutive(&flow), &["--until-end"]);
    keylane.expect_exit(1);
    let log = keylane.tail();
    assert!(
        log.contains("1 events of 1 keys wait") && log.contains("its value is 3, and 2 is missing"),
        "{log}"
    );
    assert_eq!((flow.values_of("a").as_slice(), flow.lag()), (&["1".to_owned()][..], 1));
}

/// Marks are durable, and ids are in memory: both are asked.
#[test]
fn duplicates_are_detected_beside_durable_marks() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = consecutive(&flow).set("handlers.t.duplicates", "id", "header:id").set(
        "handlers.t.duplicates",
        "memory",
        "session",
    );
    // A relay that sends an event again may give it a new version.
    let events = [(1, "x"), (2, "y"), (3, "y"), (4, "z")];
    let events = events.map(|(number, id)| version(("a", number)).with("id", id));
    flow.send(events.into());
    Keylane::run(&settings, &["--until-end"]).expect_exit(0);
    assert_eq!(flow.values_of("a"), ["1", "2", "4"]);
}

fn dead_letters(flow: &Flow<'_>) -> Vec<Received> {
    kafka::read_committed(&flow.cluster.bootstrap(), &flow.dead_letters)
}
