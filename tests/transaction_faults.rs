//! Promise: faults of single topics and of brokers in the middle of a transaction lose nothing, and repeat nothing.

use std::time::Duration;

use keylane_tests::admin::{Admin, at};
use keylane_tests::campaign::{self, Delivery};
use keylane_tests::check::once::{self, Expected, History};
use keylane_tests::flow::Flow;
use keylane_tests::kafka::{self, Options, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::skip::print_line;
use keylane_tests::wait;
use serde_json::Value;

/// Freezes after which the records of an aborted transaction were neither acknowledged nor lost.
const FREEZES: usize = 4;
/// The limit, if none of them met a transaction with records in the log.
const FREEZES_MAX: usize = 16;
/// Longer than a transaction with a timeout of 5 s waits for acknowledgements.
const FREEZE: Duration = Duration::from_secs(4);
const EVENTS: usize = 2_000;
const ABORTED: &str = "transaction aborted; it is repeated";

fn settings(flow: &Flow<'_>) -> Settings {
    campaign::settings(flow, "one", Delivery::Transactional)
        .set("handlers.t.transactions", "timeout", "5s")
        .set("kafka.client", "session.timeout.ms", 45_000)
}

/// The client may give the sequence numbers of records that were sent and not acknowledged before an abort to the records
/// of the next transaction, which the broker then drops as duplicates, although the commit succeeds. So a producer is
/// replaced after such an abort.
#[test]
fn records_without_an_acknowledgement_before_an_abort_are_published_once() {
    let Some(cluster) = kafka::dedicated(&Options::default()) else { return };
    let flow = Flow::new(&cluster, 1, &[]);
    // Large transactions, of many batches: some are in flight at a freeze.
    let settings = settings(&flow).set("handlers.t.transactions", "interval", "1s");
    let keylane = Keylane::run(&settings, &[]);
    flow.wait_for_members(&["one"]);
    let (producer, mut produced) = (flow.producer(), 0);
    let aborted = || {
        let (topic, bootstrap) = (&flow.output, cluster.bootstrap());
        kafka::read_all(&bootstrap, topic).len() - kafka::read_committed(&bootstrap, topic).len()
    };
    let mut freezes = 0;
    // A freeze may come after the commit, or before the first record is stored.
    while freezes < FREEZES || aborted() == 0 && freezes < FREEZES_MAX {
        freezes += 1;
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
    assert_once(keylane, &flow, &cluster);
}

/// The same fault, step by step: the broker has stored the records of a transaction, its response does not
/// arrive, and the connection is closed, so the records wait to be sent again when the transaction is aborted. A producer
/// that is kept would give their sequence numbers to the next records, which would be missing.
#[test]
fn records_that_were_stored_without_an_acknowledgement_are_published_once() {
    let Some(cluster) = kafka::dedicated(&Options { proxied: true, ..Options::default() }) else { return };
    let flow = Flow::new(&cluster, 1, &[]);
    let mut keylane = Keylane::run(&settings(&flow), &[]);
    flow.wait_for_members(&["one"]);
    let producer = flow.producer();
    let produce = |numbers: std::ops::Range<usize>| {
        let events = numbers.map(|number| Record::new(format!("key-{}", number % 5), format!("{number} x")));
        producer.send_all(&flow.input, events).expect("acknowledged");
        flow.wait_until_committed();
    };
    // The producer of Keylane has used some sequence numbers.
    produce(0..100);
    // One record: the broker drops a repeated batch, and rejects one that begins or ends elsewhere.
    cluster.proxy().cut("one");
    std::thread::scope(|scope| {
        scope.spawn(|| produce(100..101));
        keylane.wait_for("an aborted transaction", |line| line["message"] == ABORTED);
        cluster.proxy().mend();
    });
    produce(101..200);
    assert_once(keylane, &flow, &cluster);
}

/// Stops Keylane. Each event has its output once, although records of aborted transactions are in the log.
fn assert_once(mut keylane: Keylane, flow: &Flow<'_>, cluster: &kafka::Cluster) {
    keylane.terminate();
    keylane.expect_exit(0);
    let report = once::check(&History::read(flow, |_| Expected::Outputs(1)));
    let written = kafka::read_all(&cluster.bootstrap(), &flow.output).len();
    print_line(&format!("{report}; {} records of aborted transactions", written - report.outputs));
    report.assert_clean();
    assert!(written > report.outputs, "no aborted record was stored: the run proves nothing");
}

fn large(number: usize) -> String {
    format!("{number} {}", "x".repeat(8_000))
}

/// Partition 0 has an output for a topic that is deleted; partition 1 has only a dead letter and events without outputs.
#[test]
fn a_missing_topic_does_not_hold_partitions_without_effects_for_it() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let mut keylane = Keylane::run(&settings(&flow).set("admin", "listen", "127.0.0.1:0"), &[]);
    let shown = Admin::of(&mut keylane);
    flow.wait_for_members(&["one"]);
    let admin = cluster.admin();
    admin.delete_topic(&flow.output);
    let held = Record::new("held", "0 x").to(0);
    let others = (1..100).map(|number| {
        let other = Record::new("other", format!("{number} x")).to(1);
        if number == 50 { other.with("fail", "reject") } else { other.with("outputs", "0") }
    });
    flow.producer().send_all(&flow.input, std::iter::once(held).chain(others)).expect("acknowledged");
    keylane.wait_for("the blocked topic", |line| {
        line["message"] == "topic blocked: transactions can't be committed" && line["topic"] == flow.output
    });
    wait::until("the other partition to be committed", wait::STATE_TIMEOUT, || {
        flow.committed().iter().any(|committed| committed.partition == 1 && committed.offset == Some(99))
    });
    let held = flow.committed();
    let held = held.iter().find(|committed| committed.partition == 0).expect("two partitions");
    assert_eq!(held.offset.unwrap_or(0), 0, "its output is not published");

    let left_out = at(&shown.handler(), "/partitions/0/left_out");
    assert_eq!(left_out["topic"], flow.output.as_str());
    assert!(left_out["error"].as_str().is_some_and(|error| error.contains("UNKNOWN_")), "{left_out}");
    assert_eq!(at(&shown.handler(), "/partitions/1/left_out"), Value::Null);
    assert!(at(&shown.handler(), "/transactions/last_abort/reason").as_str().is_some());
    let metrics = shown.metrics();
    let value = |name: &str| metrics.get(&format!("{name}{{handler=\"t\"}}")).map(String::as_str);
    assert_eq!(value("keylane_partitions_left_out"), Some("1"));

    admin.create_topic(&flow.output, 2, &[]);
    flow.wait_until_committed();
    wait::until("the partition to be contained again", wait::STATE_TIMEOUT, || {
        at(&shown.handler(), "/partitions/0/left_out").is_null()
    });
    keylane.terminate();
    keylane.expect_exit(0);
    let expected = |event: &kafka::Received| match (event.header("fail"), event.header("outputs")) {
        (Some(_), _) => Expected::DeadLetter,
        (None, Some(_)) => Expected::Outputs(0),
        (None, None) => Expected::Outputs(1),
    };
    once::check(&History::read(&flow, expected)).assert_clean();
}
