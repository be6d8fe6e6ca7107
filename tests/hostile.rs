//! Promise: a failing guest fails only its own event, whatever it does. The reason is reported, no
//! output of the failed event is published, the other events are done, and the process continues.

use std::collections::BTreeMap;

use keylane_tests::check;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::skip::print_line;
use keylane_tests::wait;

/// The behaviour of the guest, the reason in the dead letter, a part of the error text, and the
/// number of attempts. Unpublishable outputs are not retried, because they would be the same in the
/// next attempt.
const CASES: [(&str, &str, &str, i64); 9] = [
    ("trap", "trap", "unreachable", 3),
    ("exit", "trap", "exit code 1", 3),
    ("recurse", "stack", "call stack exhausted", 3),
    ("hoard", "memory", "memory limit", 3),
    ("spin", "cpu", "CPU time", 3),
    ("sleep", "timeout", "deadline", 3),
    ("flood", "output-rejected", "more than 1000 outputs", 1),
    ("bloat", "output-rejected", "`max_output_bytes`", 1),
    ("unknown-target", "output-rejected", "`nowhere` is not configured", 1),
];
const HEALTHY: usize = 3_000;

#[test]
fn each_fault_fails_its_own_event_with_its_own_reason() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 4, &[]);
    let mut records: Vec<Record> =
        (0..HEALTHY).map(|number| Record::new(format!("key-{}", number % 700), "done")).collect();
    for (at, (behaviour, ..)) in CASES.iter().enumerate() {
        records.insert(at * 300 + 50, Record::new(format!("bad-{behaviour}"), *behaviour));
    }
    let mut keylane = run(&flow, &records, &settings(&flow, 3));
    let dead_letters = kafka::read_all(&cluster.bootstrap(), &flow.dead_letters);
    assert_eq!(dead_letters.len(), CASES.len());
    for (behaviour, reason, words, attempts) in CASES {
        let dead_letter = dead_letters
            .iter()
            .find(|dead_letter| dead_letter.value.as_deref() == Some(behaviour.as_bytes()));
        let dead_letter = dead_letter.expect("each failed event has a dead letter");
        let error = (dead_letter.text("keylane-reason"), dead_letter.text("keylane-error"));
        print_line(&format!("{behaviour}: {error:?}"));
        assert!(error.0 == reason && error.1.contains(words), "{behaviour} is reported as {error:?}");
        assert_eq!(dead_letter.number("keylane-attempt"), Some(attempts), "{behaviour}");
    }
    let outputs = kafka::read_all(&cluster.bootstrap(), &flow.output);
    assert_eq!(outputs.len(), HEALTHY, "each other event once, and no output of the failed events");
    assert!(keylane.resident_bytes().is_none() && keylane.has_ended());
    let mut history = flow.history();
    history.inputs.retain(|input| input.key.as_ref().is_some_and(|key| !key.starts_with(b"bad-")));
    check::check(&history).assert_clean();
}

/// Misbehaviour that fails no event: headers that a guest may not write, and a million log lines.
#[test]
fn forged_headers_and_floods_of_lines_are_dropped() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let records = ["forge", "chatter", "done"].map(|value| Record::new("k", value));
    let keylane = run(
        &flow,
        &records,
        &settings(&flow, 1).set("handlers.t", "timeout", "60s").set("handlers.t", "cpu_budget", "60s"),
    );
    let outputs = kafka::read_all(&cluster.bootstrap(), &flow.output);
    assert_eq!(outputs.len(), 4, "each event emits its value, and one forges another");
    let forged =
        outputs.iter().find(|output| output.key.as_deref() == Some(b"forged")).expect("a published output");
    assert_eq!(forged.number("keylane-origin-offset"), Some(0), "Keylane's header, not the guest's");
    assert_eq!(forged.header("own"), Some(&b"kept"[..]));
    let lines = keylane.lines();
    let of_guest = lines.iter().filter(|line| line["target"] == "keylane::guest").count();
    let dropped: u64 = lines.iter().filter_map(|line| line["dropped"].as_u64()).sum();
    assert!(of_guest < 100_000, "{of_guest} lines of the guest are in the log");
    assert_eq!(u64::try_from(of_guest).unwrap_or(0) + dropped, 1_000_000, "dropped lines are counted");
}

/// Access to a listening socket, a world-readable file and the variables of the process is not
/// granted.
#[test]
fn access_that_was_not_granted_is_denied() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let address = cluster.bootstrap();
    run(&flow, &[Record::new("k", format!("reach {address}"))], &settings(&flow, 1));
    let dead_letters = kafka::read_all(&address, &flow.dead_letters);
    let error = dead_letters.first().map(|dead_letter| dead_letter.text("keylane-error"));
    assert_eq!(error, Some("socket: false, file: false, variables: 0"));
}

/// Thousands of consecutive faults, of each kind that could leak memory in the engine. The process
/// continues, and its memory does not grow.
#[test]
fn a_storm_of_traps_costs_no_memory() {
    storm("trap", 20_000, "1s");
}

#[test]
fn a_storm_of_overflowing_stacks_costs_no_memory() {
    storm("recurse", 10_000, "1s");
}

/// Each call is cancelled while it waits, and its instance is dropped.
#[test]
fn a_storm_of_calls_that_never_return_costs_no_memory() {
    storm("sleep", 10_000, "200ms");
}

fn storm(behaviour: &str, events: i64, timeout: &str) {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let records: Vec<Record> =
        (0..events).map(|number| Record::new(format!("key-{number}"), behaviour)).collect();
    flow.producer().send_all(&flow.input, records).expect("acknowledged");
    let settings = settings(&flow, 1).set("handlers.t.retry", "on_exhausted", "skip").set(
        "handlers.t",
        "timeout",
        timeout,
    );
    // Commits are frequent enough to observe the storm while it lasts.
    let settings = settings.set("handlers.t.commit", "interval", "100ms");
    let mut keylane = Keylane::run(&settings, &[]);
    let mut peaks = BTreeMap::new();
    wait::until("everything to be committed", wait::STATE_TIMEOUT * 3, || {
        let lag = flow.lag();
        if let Some(bytes) = keylane.resident_bytes() {
            peaks.insert(events - lag, bytes);
        }
        lag == 0
    });
    let (committed, early) = peaks.range(events / 10..).next().expect("the lag was polled");
    assert!(
        *committed <= events / 2,
        "{committed} of {events} were committed at the first poll: the run proves nothing"
    );
    let (_, late) = peaks.last_key_value().expect("the lag was polled");
    print_line(&format!(
        "{behaviour}: {} MiB after the first, {} MiB after the last",
        early >> 20,
        late >> 20
    ));
    assert!(*late < early + (64 << 20), "from {early} to {late} bytes");
    keylane.terminate();
    keylane.expect_exit(0);
}

fn settings(flow: &Flow<'_>, attempts: u32) -> Settings {
    flow.settings(&guest("failing"), "hostile")
        .set("handlers.t", "timeout", "1s")
        .set("handlers.t", "cpu_budget", "300ms")
        .set("handlers.t", "max_output_bytes", "2MiB") // the topic accepts more
        .set("handlers.t.retry", "max_attempts", attempts)
        .set("handlers.t.retry", "initial_interval", "50ms")
}

fn run(flow: &Flow<'_>, records: &[Record], settings: &Settings) -> Keylane {
    flow.producer().send_all(&flow.input, records.to_vec()).expect("acknowledged");
    let mut keylane = Keylane::run(settings, &["--until-end"]);
    keylane.expect_exit(0);
    assert_eq!(flow.lag(), 0);
    keylane
}
