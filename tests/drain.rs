//! Promise: a clean stop repeats nothing. A signal comes while calls of 50 ms and acknowledgements are outstanding;
//! the process finishes what is out, commits all of it, and exits 0.

use keylane_tests::check;
use keylane_tests::child;
use keylane_tests::flow::{Flow, is_claimed};
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::Keylane;
use keylane_tests::progress::Progress;
use keylane_tests::skip::say;
use keylane_tests::wait;
use rustix::process::Signal;

const STOPS: usize = 10;
const PARTITIONS: i32 = 4;
const EVENTS_PER_STOP: usize = 4_000;

#[test]
fn a_signal_repeats_nothing() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let mut progress = Progress::of(&flow);
    let producer = flow.producer();
    let settings = flow.settings(&guest("sleepy"), "drained").set("handlers.t", "max_batch", 1).set(
        "handlers.t.commit",
        "interval",
        "5s",
    );
    let mut fed = 0;
    let mut beyond_the_offset = 0;
    for stop in 0..STOPS {
        producer.send_all(&flow.input, (fed..fed + EVENTS_PER_STOP).map(event)).expect("acknowledged");
        fed += EVENTS_PER_STOP;
        let mut keylane = Keylane::run(&settings, &[]);
        keylane.wait_for("its partitions", |line| line["message"] == "partition assigned");
        progress.advance(); // what the one before did last is not this one's work
        let before = progress.done();
        wait::until("calls to be out", wait::PATIENCE, || {
            progress.advance();
            progress.done() > before + 500 && (0..PARTITIONS).any(|partition| progress.open(partition) > 0)
        });
        // Under `nohup` the last one is ignored, as it should be.
        let signals = [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP];
        let signals =
            signals.get(..if child::is_ignored(Signal::HUP) { 3 } else { 4 }).expect("there are four");
        keylane.signal(signals[stop % signals.len()]);
        keylane.expect_exit(0);
        beyond_the_offset += assert_everything_settled_is_committed(&flow);
    }
    assert!(beyond_the_offset > 0, "no stop left a completed set: this run shows less than it should");

    let mut last = Keylane::run(&settings, &["--until-end"]);
    last.expect_exit(0);
    assert_eq!(flow.lag(), 0);
    let report = check::check(&flow.history());
    say(&format!("{fed} events, {STOPS} stops, {beyond_the_offset} claimed beyond offsets: {report}"));
    report.assert_clean();
    assert_eq!(report.repeats, [].into(), "a clean stop repeats nothing");
}

/// What does not end in time is cut, and the exit code says that something was.
#[test]
fn a_drain_that_had_to_cut_a_call_does_not_end_well() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = flow.settings(&guest("failing"), "cut").set("handlers.t", "timeout", "5m").set(
        "runtime",
        "drain_timeout",
        "1s",
    );
    let mut keylane = Keylane::run(&settings, &[]);
    flow.producer().send_all(&flow.input, [Record::new("k", "sleep")]).expect("acknowledged");
    keylane.wait_for("the call to be named", |line| line["message"] == "partition stalled");
    keylane.terminate();
    keylane.expect_exit(1);
    let said = |line: &serde_json::Value| line.to_string().contains("drain timed out");
    assert!(keylane.lines().iter().any(said), "{}", keylane.tail());
    assert_eq!(flow.committed()[0].offset.unwrap_or(0), 0, "its event runs again");
}

/// Whatever has an output is below the committed offset or in the completed set, and the reverse. Returns how many
/// outputs are claimed beyond the offsets.
fn assert_everything_settled_is_committed(flow: &Flow<'_>) -> usize {
    let committed = flow.committed();
    let mut beyond = 0;
    for record in kafka::read_all(&flow.cluster.bootstrap(), &flow.output) {
        let outcome = check::Outcome::of(&record, &flow.input).expect("every output says where it came from");
        let committed = committed.iter().find(|committed| committed.partition == outcome.partition);
        let committed = committed.expect("a partition of the input");
        assert!(
            is_claimed(committed, outcome.offset),
            "{outcome} is done, but {committed:?} does not say so"
        );
        beyond += usize::from(committed.offset.is_some_and(|offset| outcome.offset >= offset));
    }
    beyond
}

/// Every call takes 50 ms; many keys, so that lanes end in another order than they were read.
fn event(number: usize) -> Record {
    let key = format!("key-{}", number * 31 % 997);
    Record::new(key, format!("event {number}")).with("sleep-ms", "50").with("emit", "")
}
