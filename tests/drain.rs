//! Promise: a clean stop repeats nothing. A signal arrives while calls of 50 ms and acknowledgements are outstanding;
//! the process finishes the calls in flight, commits all of them, and exits with 0.

use keylane_tests::check;
use keylane_tests::child;
use keylane_tests::flow::{Flow, is_claimed};
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::Keylane;
use keylane_tests::progress::Progress;
use keylane_tests::skip::print_line;
use keylane_tests::wait;
use rustix::process::Signal;

const STOPS: usize = 10;
const PARTITIONS: i32 = 4;
const EVENTS_PER_STOP: usize = 4_000;

#[test]
fn sigusr1_logs_a_report() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    flow.producer().send_all(&flow.input, (0..100).map(event)).expect("acknowledged");
    let mut keylane = Keylane::run(&flow.settings(&guest("sleepy"), "reporting"), &[]);
    flow.wait_until_committed();
    keylane.signal(Signal::USR1);
    keylane.wait_for("the report", |line| {
        let expected = |field: &str, count: i64| line[field] == count;
        line["message"] == "handler report"
            && expected("settled", 100)
            && expected("partitions", PARTITIONS.into())
            && expected("lag", 0)
    });
    keylane.terminate();
    keylane.expect_exit(0);
}

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
    let mut produced = 0;
    let mut beyond_the_offset = 0;
    for stop in 0..STOPS {
        producer
            .send_all(&flow.input, (produced..produced + EVENTS_PER_STOP).map(event))
            .expect("acknowledged");
        produced += EVENTS_PER_STOP;
        let mut keylane = Keylane::run(&settings, &[]);
        keylane.wait_for("an ownership", |line| line["message"] == "ownership started");
        progress.advance(); // the last outputs of the previous instance do not count
        let before = progress.done();
        wait::until("calls to be in flight", wait::STATE_TIMEOUT, || {
            progress.advance();
            progress.done() > before + 500 && (0..PARTITIONS).any(|partition| progress.open(partition) > 0)
        });
        // Under `nohup` SIGHUP is ignored, as it should be.
        let signals = [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP];
        let signals = signals
            .get(..if child::is_ignored(Signal::HUP) { 3 } else { 4 })
            .expect("there are four signals");
        keylane.signal(signals[stop % signals.len()]);
        keylane.expect_exit(0);
        beyond_the_offset += assert_everything_settled_is_committed(&flow);
    }
    assert!(beyond_the_offset > 0, "no stop left a completed set: the run proves too little");

    let mut last = Keylane::run(&settings, &["--until-end"]);
    last.expect_exit(0);
    assert_eq!(flow.lag(), 0);
    let report = check::check(&flow.history());
    print_line(&format!(
        "{produced} events, {STOPS} stops, {beyond_the_offset} claimed beyond offsets: {report}"
    ));
    report.assert_clean();
    assert_eq!(report.repeats, [].into(), "a clean stop repeats nothing");
}

/// Calls that do not end in time are cancelled, and the exit code reports it.
#[test]
fn a_drain_that_had_to_cancel_a_call_exits_with_1() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = flow.settings(&guest("failing"), "cancelled").set("handlers.t", "timeout", "5m").set(
        "runtime",
        "drain_timeout",
        "1s",
    );
    let mut keylane = Keylane::run(&settings, &[]);
    flow.producer().send_all(&flow.input, [Record::new("k", "sleep")]).expect("acknowledged");
    keylane.wait_for("the call to be reported", |line| line["message"] == "partition stalled");
    keylane.terminate();
    keylane.expect_exit(1);
    let timed_out = |line: &serde_json::Value| line.to_string().contains("drain timed out");
    assert!(keylane.lines().iter().any(timed_out), "{}", keylane.tail());
    assert_eq!(flow.committed()[0].offset.unwrap_or(0), 0, "the event of the cancelled call runs again");
}

/// Every event with an output must be below the committed offset or in the completed set. Returns the number of
/// outputs claimed beyond the offsets.
fn assert_everything_settled_is_committed(flow: &Flow<'_>) -> usize {
    let committed = flow.committed();
    let mut beyond = 0;
    for record in kafka::read_all(&flow.cluster.bootstrap(), &flow.output) {
        let outcome =
            check::AttributedOutput::of(&record, &flow.input).expect("every output names its origin");
        let committed = committed.iter().find(|committed| committed.partition == outcome.partition);
        let committed = committed.expect("a partition of the input");
        assert!(is_claimed(committed, outcome.offset), "{outcome} is done, but not in {committed:?}");
        beyond += usize::from(committed.offset.is_some_and(|offset| outcome.offset >= offset));
    }
    beyond
}

/// Every call takes 50 ms. The events have many keys, so that lanes end in a different order than
/// they were read.
fn event(number: usize) -> Record {
    let key = format!("key-{}", number * 31 % 997);
    Record::new(key, format!("event {number}")).with("sleep-ms", "50").with("emit", "")
}
