//! Promise: with a gate of rule `newest`, an event that is older than one of its key that was handled settles without a call.

use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Received, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::wait;

/// Versions 1, 3 and 2 of a row: 2 is acknowledged without a call. Another row is not affected.
#[test]
fn an_older_version_is_acknowledged_without_a_call() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = newest(&flow, "header:version");
    flow.send([("a", "1"), ("a", "3"), ("b", "2"), ("a", "2"), ("a", "3"), ("b", "3")].map(version).into());
    run(&settings);
    assert_eq!(flow.values_of("a"), ["1", "3"]);
    assert_eq!(flow.values_of("b"), ["2", "3"]);
    assert_eq!(flow.lag(), 0);
}

/// While version 1 runs, others arrive. Of those that wait, only the newest runs.
#[test]
fn of_waiting_versions_only_the_newest_runs() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let events = ["3", "1", "5", "4", "2"].map(|number| version(("a", number)));
    flow.send(events.into());
    run(&newest(&flow, "header:version").set("handlers.t.gate", "latest_first", true));
    let handled = flow.values_of("a");
    assert_eq!(handled.last().map(String::as_str), Some("5"), "{handled:?}");
    assert!(handled.len() <= 2, "versions that were superseded did not run: {handled:?}");
    assert_eq!(flow.lag(), 0);
}

/// Another process gets the partition between version 3 and version 2, after a stop or a kill (-9) of the first one. With
/// durable memory it knows that 3 was handled. With session memory it does not.
#[test]
fn the_next_owner_knows_durable_marks() {
    let Some(cluster) = kafka::shared() else { return };
    for (memory, killed, expected) in [
        ("durable", false, &["1", "3", "4"][..]),
        ("durable", true, &["1", "3", "4"]),
        ("session", false, &["1", "3", "2", "4"]),
    ] {
        let flow = Flow::new(cluster, 1, &[]);
        let settings = newest(&flow, "header:version").set("handlers.t", "delivery", "transactional").set(
            "handlers.t.gate",
            "memory",
            memory,
        );
        let mut first = Keylane::run(&settings, &[]);
        flow.send([("a", "1"), ("a", "3")].map(version).into());
        flow.wait_until_committed();
        if killed {
            first.kill();
        } else {
            first.terminate();
            first.expect_exit(0);
        }
        flow.send([("a", "2"), ("a", "4")].map(version).into());
        run(&settings);
        assert_eq!(flow.values_of("a"), expected, "{memory}, killed: {killed}");
        assert_eq!(flow.lag(), 0);
    }
}

/// A value that can't be read is dead-lettered, and does not hold its key up.
#[test]
fn an_event_without_a_version_is_dead_lettered() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    flow.send(vec![
        version(("a", "1")),
        version(("a", "two")),
        Record::new("a", "none"),
        version(("a", "3")),
    ]);
    run(&newest(&flow, "header:version"));
    assert_eq!(flow.values_of("a"), ["1", "3"]);
    let reasons: Vec<String> =
        dead_letters(&flow).iter().map(|letter| letter.text("keylane-reason").to_owned()).collect();
    assert_eq!(reasons, ["no-order-value", "no-order-value"]);
}

/// The times at which a database has updated a row, in the formats in which databases write them.
#[test]
fn older_update_times_are_acknowledged_without_a_call() {
    let Some(cluster) = kafka::shared() else { return };
    for (format, times) in [
        ("unix_us", ["1769860800000001", "1769860800000003", "1769860800000002"]),
        (
            "rfc3339",
            [
                "2026-01-31T12:00:00.000001Z",
                "2026-01-31T13:00:00.000003+01:00",
                "2026-01-31T12:00:00.000002Z",
            ],
        ),
        (
            "rfc3339",
            ["2026-01-31 12:00:00.000001", "2026-01-31 12:00:00.000003+00", "2026-01-31 12:00:00.000002"],
        ),
    ] {
        let flow = Flow::new(cluster, 1, &[]);
        let events =
            times.map(|time| Record::new("a", format!("{{\"updated_at\": \"{time}\", \"name\": \"x\"}}")));
        flow.send(events.into());
        run(&newest(&flow, "json:/updated_at").set("handlers.t.gate", "format", format));
        let handled = flow.values_of("a");
        assert_eq!(handled.len(), 2, "{format}: {handled:?}");
        assert!(handled[0].contains(times[0]) && handled[1].contains(times[1]), "{format}: {handled:?}");
        assert_eq!(flow.lag(), 0);
    }
}

/// Two updates at the same time: both runs of the setting.
#[test]
fn equal_times_are_stale_unless_they_are_delivered() {
    let Some(cluster) = kafka::shared() else { return };
    for (equal, expected) in [("stale", &["one", "three"][..]), ("deliver", &["one", "two", "three"])] {
        let flow = Flow::new(cluster, 1, &[]);
        let at = |value: &str, time: i64| Record::new("a", value).at(time);
        flow.send(vec![at("one", 1_000), at("two", 1_000), at("three", 2_000)]);
        run(&newest(&flow, "timestamp").set("handlers.t.gate", "equal", equal));
        assert_eq!(flow.values_of("a"), expected, "{equal}");
    }
}

/// Two servers write, and the clock of one of them is 50 ms behind: within the tolerance, its events are delivered.
#[test]
fn clocks_may_differ_within_the_tolerance() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let now = wait::unix_ms();
    let at = |value: &str, after: i64| Record::new("a", value).at(now + after);
    flow.send(vec![
        at("first", 0),
        at("behind", -50),
        at("far behind", -200),
        at("again", -50),
        at("last", 10),
    ]);
    run(&newest(&flow, "timestamp").set("handlers.t.gate", "skew_tolerance", "100ms"));
    assert_eq!(flow.values_of("a"), ["first", "behind", "last"]);
}

/// The clock of a server is a day ahead. Its event does not end the key: it is dead-lettered.
#[test]
fn a_clock_that_is_far_ahead_does_not_end_its_key() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let now = wait::unix_ms();
    let at = |value: &str, after: i64| Record::new("a", value).with("updated", (now + after).to_string());
    flow.send(vec![at("first", 0), at("tomorrow", 86_400_000), at("second", 1)]);
    run(&newest(&flow, "header:updated").set("handlers.t.gate", "format", "unix_ms"));
    assert_eq!(flow.values_of("a"), ["first", "second"]);
    let letters = dead_letters(&flow);
    let [letter] = letters.as_slice() else { panic!("one event is too far ahead: {letters:?}") };
    assert_eq!(
        (letter.text("keylane-reason"), letter.value.as_deref()),
        ("order-value-ahead", Some(&b"tomorrow"[..]))
    );
}

fn newest(flow: &Flow<'_>, by: &str) -> Settings {
    flow.settings(&guest("echo"), "newest")
        .set("handlers.t.gate", "rule", "newest")
        .set("handlers.t.gate", "by", by)
        .set("handlers.t.gate", "memory", "session")
}

fn version((key, version): (&str, &str)) -> Record {
    Record::new(key, version).with("version", version)
}

fn run(settings: &Settings) {
    Keylane::run(settings, &["--until-end"]).expect_exit(0);
}

fn dead_letters(flow: &Flow<'_>) -> Vec<Received> {
    kafka::read_all(&flow.cluster.bootstrap(), &flow.dead_letters)
}
