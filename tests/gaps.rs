//! Promise: missing offsets delay nothing. The committed offset reaches the end of the log and the
//! lag is 0, although compaction removed records from the middle and transactions left markers at
//! the end.

use std::collections::BTreeSet;

use keylane_tests::check;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record, Transactions, unique};
use keylane_tests::keylane::Keylane;
use keylane_tests::skip::print_line;
use keylane_tests::wait;

#[test]
fn a_compacted_topic_is_read_to_its_end() {
    let Some(cluster) = kafka::shared() else { return };
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.0001"),
        ("max.compaction.lag.ms", "100"),
    ];
    let flow = Flow::new(cluster, 1, &configs);
    let producer = flow.producer();
    let event = |number: usize| Record::new(format!("key-{}", number % 100), format!("{number}"));
    producer.send_all(&flow.input, (0..5_000).map(event)).expect("acknowledged");
    wait::until("compaction to leave gaps", wait::STATE_TIMEOUT, || {
        // The active segment is never compacted: a new record has to close it.
        producer.send_all(&flow.input, [event(0)]).expect("acknowledged");
        kafka::read_all(&cluster.bootstrap(), &flow.input).len() < 1_000
    });
    let before = kafka::read_all(&cluster.bootstrap(), &flow.input);
    let end = cluster.admin().watermarks(&flow.input)[0].high;
    print_line(&format!("{} of {end} offsets remain", before.len()));

    let mut keylane = Keylane::run(&flow.settings(&guest("echo"), "reader"), &["--until-end"]);
    keylane.expect_exit(0);
    assert_eq!(flow.committed()[0].offset, Some(end));
    assert_eq!(flow.lag(), 0);
    // Compaction may continue while the instance reads: every remaining event must have an output.
    let report = check::check(&remaining(&flow, &before));
    report.assert_clean();
    assert_eq!(report.repeats, [].into());
}

/// The history of the events that are in the log both before and after the run.
fn remaining(flow: &Flow<'_>, before: &[kafka::Received]) -> check::History {
    let outputs = kafka::read_all(&flow.cluster.bootstrap(), &flow.output);
    let after = kafka::read_all(&flow.cluster.bootstrap(), &flow.input);
    let after: BTreeSet<i64> = after.iter().map(|record| record.offset).collect();
    let mut history = check::History::of(before, &outputs, &flow.input);
    history.inputs.retain(|input| after.contains(&input.offset));
    history.outputs.retain(|outcome| after.contains(&outcome.offset));
    history
}

#[test]
fn transaction_markers_at_the_end_are_passed() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let transactions = Transactions::new(&cluster.bootstrap(), &unique("writer")).expect("a coordinator");
    let event = |number: i32| Record::new(format!("key-{number}"), "v").to(number % 2);
    transactions.commit(&flow.input, (0..20).map(event)).expect("committed");
    transactions.abort(&flow.input, (0..6).map(event)).expect("aborted");
    transactions.commit(&flow.input, (0..2).map(event)).expect("committed");
    let ends: Vec<i64> =
        cluster.admin().watermarks(&flow.input).iter().map(|watermarks| watermarks.high).collect();
    assert_eq!(ends, [17, 17], "14 records and 3 markers each");

    let mut keylane = Keylane::run(&flow.settings(&guest("echo"), "reader"), &["--until-end"]);
    keylane.expect_exit(0);
    let committed: Vec<Option<i64>> = flow.committed().iter().map(|committed| committed.offset).collect();
    assert_eq!(committed, [Some(17), Some(17)]);
    assert_eq!(flow.lag(), 0);

    let inputs = kafka::read_committed(&cluster.bootstrap(), &flow.input);
    assert_eq!(inputs.len(), 22);
    let outputs = kafka::read_all(&cluster.bootstrap(), &flow.output);
    let report = check::check(&check::History::of(&inputs, &outputs, &flow.input));
    report.assert_clean();
    assert_eq!((report.outcomes, report.repeated()), (22, 0), "aborted records are not events");
}
