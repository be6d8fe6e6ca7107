//! Promise: a backlog closes no gap of a consecutive gate. How long a version waits is measured by the timestamps of the records,
//! not by how fast they are read.

use std::collections::BTreeMap;

use keylane_tests::flow::Flow;
use keylane_tests::kafka::{self, Received, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::versions::{consecutive, displaced, handled, version};
use keylane_tests::wait;

const EVENTS: usize = 24_000;
const KEYS: usize = 100;
const PARTITIONS: i32 = 3;
/// Milliseconds from one event to the next: the events of an hour.
const INTERVAL: i64 = 150;
/// The maximum number of unsettled events of a partition: the backlog is read in many steps, with open gaps between them. With a
/// `gap_timeout` of 30 s, about ninety of these gaps would be closed.
const QUEUED: usize = 500;
/// By how many places an event is displaced at most: two and a half minutes of the hour.
const PLACES: usize = 1_000;

/// Every gap is filled by a record that comes two and a half minutes later at most.
#[test]
fn an_hour_of_backlog_closes_no_gap() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    flow.send(backlog());
    let mut keylane = Keylane::run(&settings(&flow), &["--until-end"]);
    keylane.expect_exit(0);
    assert_eq!(closed_gaps(&keylane), 0);
    assert_eq!(dead_letters(&flow), []);
    assert_eq!(handled(&flow), all());
    assert_eq!(flow.lag(), 0);
}

/// One version never comes. Its gap is closed in a run of seconds, because five minutes of records have passed.
#[test]
fn five_minutes_of_records_close_a_gap() {
    const MISSING: usize = 5;
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let mut events = backlog();
    events.retain(|event| *event != Record { timestamp: event.timestamp, ..version(("key-7", MISSING)) });
    assert_eq!(events.len(), EVENTS - 1);
    flow.send(events);
    let mut keylane = Keylane::run(&settings(&flow), &["--until-end"]);
    keylane.expect_exit(0);
    assert_eq!(closed_gaps(&keylane), 1);
    let mut expected = all();
    expected.insert("key-7".to_owned(), (1..MISSING).collect());
    assert_eq!(handled(&flow), expected, "no version is handled after the missing one");
    let letters = dead_letters(&flow);
    assert!(letters.iter().all(|letter| letter.text("keylane-reason") == "gap"));
    assert_eq!(letters.len(), EVENTS / KEYS - MISSING);
    assert_eq!(flow.lag(), 0);
}

fn settings(flow: &Flow<'_>) -> Settings {
    let settings = consecutive(flow).set("handlers.t.gate", "gap_timeout", "5m");
    settings.set("handlers.t.lanes", "max_queued", QUEUED)
}

/// The versions of all keys, with timestamps of the last hour. One of twenty comes after later versions.
fn backlog() -> Vec<Record> {
    let now = wait::unix_ms();
    let event = |number: usize| {
        let before_now = INTERVAL * i64::try_from(EVENTS - number).expect("few events");
        version((&format!("key-{}", number % KEYS), number / KEYS + 1)).at(now - before_now)
    };
    displaced(EVENTS, PLACES).into_iter().map(event).collect()
}

/// All versions of each key, in order.
fn all() -> BTreeMap<String, Vec<usize>> {
    (0..KEYS).map(|key| (format!("key-{key}"), (1..=EVENTS / KEYS).collect())).collect()
}

/// The number of closed gaps in the log.
fn closed_gaps(keylane: &Keylane) -> usize {
    keylane.lines().iter().filter(|line| line["cause"] == "gap_timeout").count()
}

fn dead_letters(flow: &Flow<'_>) -> Vec<Received> {
    kafka::read_committed(&flow.cluster.bootstrap(), &flow.dead_letters)
}
