//! Promise: faults of single topics and of brokers in the middle of a transaction lose nothing, and repeat nothing.

use std::time::Duration;

use keylane_tests::campaign::{self, Delivery};
use keylane_tests::check::once::{self, Expected, History};
use keylane_tests::flow::Flow;
use keylane_tests::kafka::{self, Options, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::skip::print_line;
use keylane_tests::wait;

/// Freezes after which the records of an aborted transaction were neither acknowledged nor lost.
const FREEZES: usize = 4;
/// Longer than a transaction with a timeout of 5 s waits for acknowledgements.
const FREEZE: Duration = Duration::from_secs(4);
const EVENTS: usize = 2_000;
const LIMIT: usize = 4_096;

fn settings(flow: &Flow<'_>) -> Settings {
    campaign::settings(flow, "one", Delivery::Transactional)
        .set("handlers.t.transactions", "timeout", "5s")
        .set("kafka.client", "session.timeout.ms", 45_000)
}

/// The client may give the sequence numbers of records that were sent and not acknowledged before an abort to the records
/// of the next transaction, which the broker then drops as duplicates, although the commit succeeds. So a producer is
/// replaced after such an abort. If it were kept, this test would find missing outputs.
#[test]
fn records_without_an_acknowledgement_before_an_abort_are_published_once() {
    let Some(cluster) = kafka::dedicated(&Options::default()) else { return };
    let flow = Flow::new(&cluster, 1, &[]);
    // Large transactions, of many batches: some are in flight at a freeze.
    let settings = settings(&flow).set("handlers.t.transactions", "interval", "1s");
    let mut keylane = Keylane::run(&settings, &[]);
    flow.wait_for_members(&["one"]);
    let (producer, mut produced) = (flow.producer(), 0);
    for _ in 0..FREEZES {
        let admin = cluster.admin();
        wait::until("an open transaction", wait::STATE_TIMEOUT, || {
            if flow.lag() == 0 {
                let event = |number: usize| Record::new(format!("key-{}", number % 50), large(number));
                producer
                    .send_all(&flow.input, (produced..produced + EVENTS).map(event))
                    .expect("acknowledged");
                produced += EVENTS;
            }
            admin.has_open_transaction(&flow.output)
        });
        cluster.freeze(1);
        wait::let_last(FREEZE);
        cluster.thaw(1);
        flow.wait_until_committed();
    }
    keylane.terminate();
    keylane.expect_exit(0);
    let report = once::check(&History::read(&flow, |_| Expected::Outputs(1)));
    let written = kafka::read_all(&cluster.bootstrap(), &flow.output).len();
    print_line(&format!("{report}; {} records of aborted transactions", written - report.outputs));
    report.assert_clean();
    assert!(written > report.outputs, "no freeze met an open transaction: the run proves nothing");
}

fn large(number: usize) -> String {
    format!("{number} {}", "x".repeat(8_000))
}

/// Partition 0 has an output that its topic rejects; partition 1 has only a dead letter and events without outputs.
#[test]
fn a_topic_that_rejects_a_record_does_not_hold_partitions_without_effects_for_it() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let mut keylane = Keylane::run(&settings(&flow), &[]);
    flow.wait_for_members(&["one"]);
    let admin = cluster.admin();
    admin.set_topic_config(&flow.output, "max.message.bytes", &LIMIT.to_string());
    wait::until("the limit", wait::STATE_TIMEOUT, || {
        admin.topic_config(&flow.output, "max.message.bytes").as_deref() == Some("4096")
    });
    let producer = flow.producer();
    let event = |key: &str, value: String| Record::new(key, value);
    let held = event("large", large(0)).to(0);
    let others = (1..100).map(|number| {
        let other = event("small", format!("{number} x")).to(1);
        if number == 50 { other.with("fail", "reject") } else { other.with("outputs", "0") }
    });
    producer.send_all(&flow.input, std::iter::once(held).chain(others)).expect("acknowledged");
    keylane.wait_for("the blocked topic", |line| {
        line["message"] == "topic blocked: transactions can't be committed" && line["topic"] == flow.output
    });
    wait::until("the other partition to be committed", wait::STATE_TIMEOUT, || {
        flow.committed().iter().any(|committed| committed.partition == 1 && committed.offset == Some(99))
    });
    let held = flow.committed();
    let held = held.iter().find(|committed| committed.partition == 0).expect("two partitions");
    assert_eq!(held.offset.unwrap_or(0), 0, "its output is not published");
    admin.set_topic_config(&flow.output, "max.message.bytes", "1048576");
    flow.wait_until_committed();
    keylane.terminate();
    keylane.expect_exit(0);
    let expected = |event: &kafka::Received| match (event.header("fail"), event.header("outputs")) {
        (Some(_), _) => Expected::DeadLetter,
        (None, Some(_)) => Expected::Outputs(0),
        (None, None) => Expected::Outputs(1),
    };
    once::check(&History::read(&flow, expected)).assert_clean();
}
