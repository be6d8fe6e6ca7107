//! Promise: an event that fails is retried with growing intervals, and only its lane waits for it.
//! With `retry.scope = "partition"`, no event of its partition overtakes it. An attempt is charged
//! for a verdict of the guest, or for a fault of a call with only this event, on a fresh instance.

use keylane_tests::check;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::{Keylane, Settings};

#[test]
fn a_lane_waits_for_its_event_and_the_others_do_not() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let values = ["a", "retry-once", "b", "c", "d"];
    let keys = ["1", "2", "2", "3", "2"];
    run(&flow, keys.iter().zip(values).map(|(key, value)| Record::new(*key, value)), &one_by_one(&flow));
    assert_eq!(offsets(&flow), [0, 3, 1, 2, 4], "1 is done after 3, and the later events of its key after 1");
    let outputs = kafka::read_all(&cluster.bootstrap(), &flow.output);
    let attempts: Vec<_> = outputs.iter().map(|output| output.number("keylane-attempt")).collect();
    assert_eq!(attempts, [1, 1, 2, 1, 1].map(Some));
}

/// The strict batch retry: offset 2 fails once. No event beyond it is handled before it is done and
/// committed.
#[test]
fn no_event_overtakes_a_strict_retry() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let values = ["a", "b", "retry-once", "c", "retry-once", "d"];
    let records = (0..).zip(values).map(|(key, value)| Record::new(format!("key-{key}"), value));
    run(&flow, records, &one_by_one(&flow).set("handlers.t.retry", "scope", "partition"));
    assert_eq!(offsets(&flow), [0, 1, 2, 3, 4, 5]);
}

/// The guest traps on some events of a batch. These are retried as configured, and the others are
/// done once.
#[test]
fn a_trap_is_charged_to_its_event_alone() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let traps = [100, 500, 501, 999];
    let records = (0..1_000).map(|number| {
        let value = if traps.contains(&number) { "trap" } else { "done" };
        Record::new(format!("key-{}", number % 300), value)
    });
    run(&flow, records, &failing(&flow).set("handlers.t.retry", "max_attempts", 3));
    let dead_letters = kafka::read_all(&cluster.bootstrap(), &flow.dead_letters);
    assert_eq!(dead_letters.len(), traps.len());
    for dead_letter in &dead_letters {
        assert_eq!(
            (dead_letter.value.as_deref(), dead_letter.text("keylane-reason")),
            (Some(&b"trap"[..]), "trap")
        );
        assert_eq!(dead_letter.number("keylane-attempt"), Some(3));
        let error = dead_letter.text("keylane-error");
        assert!(error.contains("unreachable"), "the trap must be named: {error}");
    }
    let mut history = flow.history();
    let dead_lettered = |partition, offset| {
        dead_letters.iter().any(|dead_letter| {
            (dead_letter.number("keylane-origin-partition"), dead_letter.number("keylane-origin-offset"))
                == (Some(i64::from(partition)), Some(offset))
        })
    };
    history.inputs.retain(|input| !dead_lettered(input.partition, input.offset));
    let report = check::check(&history);
    report.assert_clean();
    assert_eq!(
        (report.outcomes, report.repeats),
        (996, [].into()),
        "no output of a failed call is published"
    );
}

#[test]
fn old_events_are_not_retried_and_the_outcome_is_configurable() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[("message.timestamp.before.max.ms", "9223372036854775807")]);
    let old = Record::new("old", "retry").at(1_000_000);
    let settings = failing(&flow)
        .set("handlers.t.retry", "max_record_age", "1h")
        .set("handlers.t.retry", "initial_interval", "1h")
        .set("handlers.t.retry", "max_interval", "1h");
    run(&flow, [old, Record::new("new", "done")], &settings);
    let dead_letters = kafka::read_all(&cluster.bootstrap(), &flow.dead_letters);
    assert_eq!(
        dead_letters.iter().map(|dead_letter| dead_letter.text("keylane-reason")).collect::<Vec<_>>(),
        ["too-old"]
    );

    let flow = Flow::new(cluster, 1, &[]);
    let settings = failing(&flow).set("handlers.t.retry", "on_exhausted", "skip");
    run(&flow, ["reject", "done"].map(|value| Record::new("k", value)), &settings);
    assert_eq!(
        (offsets(&flow), kafka::read_all(&cluster.bootstrap(), &flow.dead_letters).len()),
        (vec![1], 0)
    );

    let flow = Flow::new(cluster, 1, &[]);
    flow.producer()
        .send_all(&flow.input, ["done", "reject"].map(|value| Record::new("k", value)))
        .expect("acknowledged");
    let settings = failing(&flow).set("handlers.t.retry", "on_exhausted", "stop");
    let mut stopped = Keylane::run(&settings, &["--until-end"]);
    stopped.expect_exit(1);
    assert_eq!(
        flow.committed().first().and_then(|committed| committed.offset),
        Some(1),
        "the failed event is not committed"
    );
    let names_the_reason = |line: &serde_json::Value| line.to_string().contains("the value requests it");
    assert!(stopped.lines().iter().any(names_the_reason), "no reason is reported{}", stopped.tail());
}

/// Outputs are in the order in which their events were done: one call at a time, each acknowledged before the next.
fn one_by_one(flow: &Flow<'_>) -> Settings {
    failing(flow).set("handlers.t.lanes", "max_concurrency", 1).set("runtime", "workers", 1)
}

fn failing(flow: &Flow<'_>) -> Settings {
    flow.settings(&guest("failing"), "failing").set("handlers.t.retry", "initial_interval", "200ms")
}

fn run(flow: &Flow<'_>, records: impl IntoIterator<Item = Record>, settings: &Settings) {
    flow.producer().send_all(&flow.input, records.into_iter().collect::<Vec<_>>()).expect("acknowledged");
    Keylane::run(settings, &["--until-end"]).expect_exit(0);
    assert_eq!(flow.lag(), 0);
}

/// Offsets of the events with outputs, in the order of the output topic, which has one partition.
fn offsets(flow: &Flow<'_>) -> Vec<i64> {
    let outputs = kafka::read_all(&flow.cluster.bootstrap(), &flow.output);
    outputs.iter().filter_map(|output| output.number("keylane-origin-offset")).collect()
}
