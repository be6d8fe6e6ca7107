//! Promise: under transactional delivery, an output that its topic refuses, although it was checked, concerns only its
//! partition, which stops, or only itself, if it is dead-lettered.

use keylane_tests::admin::{Admin, at};
use keylane_tests::campaign::{self, Delivery};
use keylane_tests::flow::Flow;
use keylane_tests::kafka::{self, Received, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::wait;
use serde_json::Value;

/// A limit that single outputs of 200 bytes do not reach, but batches of them do.
const LIMIT: usize = 4_096;
const SMALL: usize = 100;
/// The offset behind that many events.
const COMMITTED: i64 = 100;

fn settings(flow: &Flow<'_>) -> Settings {
    campaign::settings(flow, "one", Delivery::Transactional)
        .set("handlers.t.transactions", "timeout", "5s")
        .set("admin", "listen", "127.0.0.1:0")
}

fn small(number: usize) -> Record {
    Record::new(format!("key-{}", number % 5), format!("{number} {}", "x".repeat(200)))
}

fn large() -> Record {
    Record::new("large", "x".repeat(2 * LIMIT))
}

/// The visible outputs, without those of the test that makes sure that a limit is in force.
fn outputs(flow: &Flow<'_>) -> Vec<Received> {
    let mut outputs = kafka::read_committed(&flow.cluster.bootstrap(), &flow.output);
    outputs.retain(|output| output.key.as_deref() != Some(b"probe"));
    outputs
}

/// The topic's limit is lowered while the handler runs. Batches of small outputs exceed it, too, but are accepted one by one.
#[test]
fn a_refused_output_stops_its_partition_and_no_other() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let mut keylane = Keylane::run(&settings(&flow), &[]);
    let shown = Admin::of(&mut keylane);
    flow.wait_for_members(&["one"]);
    flow.lower_limit(&flow.output, LIMIT);
    let records = (0..SMALL).map(|number| small(number).to(1));
    flow.producer()
        .send_all(&flow.input, [small(0).to(0), large().to(0)].into_iter().chain(records))
        .expect("acknowledged");
    let line = keylane.wait_for("the refused output", |line| line["message"] == "output rejected");
    assert_eq!((&line["output_topic"], &line["offset"]), (&flow.output.as_str().into(), &1.into()), "{line}");
    let stop = keylane.wait_for("the stop", |line| line["message"] == "partition stopped");
    let failure = stop["failure"].as_str().unwrap_or_default();
    assert!(failure.contains("partition 0 stopped: offset 1 has an output that its topic rejects"), "{stop}");
    wait::until("the other partition to be committed", wait::STATE_TIMEOUT, || {
        flow.committed().iter().any(|committed| committed.offset == Some(COMMITTED))
    });
    let handler = shown.handler();
    assert_eq!(at(&handler, "/partitions/0/state"), "stopped");
    assert_eq!(at(&handler, "/partitions/1/state"), "active");
    assert_eq!(at(&handler, "/partitions/1/left_out"), Value::Null);
    keylane.terminate();
    keylane.expect_exit(1);
    let of_other = outputs(&flow).iter().filter(|output| output.key.as_deref() != Some(b"large")).count();
    assert!((SMALL..=SMALL + 1).contains(&of_other), "{of_other}");
}

/// One output is too large, another has no key and its topic becomes compacted.
#[test]
fn refused_outputs_are_dead_lettered_and_their_events_are_done() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = settings(&flow).set("handlers.t.transactions", "on_refused_output", "dead-letter");
    let mut keylane = Keylane::run(&settings, &[]);
    let shown = Admin::of(&mut keylane);
    flow.wait_for_members(&["one"]);
    flow.lower_limit(&flow.output, LIMIT);
    let producer = flow.producer();
    producer.send_all(&flow.input, (0..SMALL).map(small).chain([large()])).expect("acknowledged");
    flow.wait_until_committed();

    // This also sets the limit to its default.
    cluster.admin().set_topic_config(&flow.output, "cleanup.policy", "compact");
    let without_key = || Record { key: None, value: Some(b"no key".to_vec()), ..Record::default() };
    wait::until("the policy to be in force", wait::STATE_TIMEOUT, || {
        producer.send_all(&flow.output, [without_key()]).is_err()
    });
    let events = std::iter::once(without_key().with("outputs", "2"));
    producer.send_all(&flow.input, events.chain((SMALL..2 * SMALL).map(small))).expect("acknowledged");
    flow.wait_until_committed();
    let handler = shown.handler();
    assert_eq!(at(&handler, "/totals/dead_letters"), 0, "the events are done");
    let reason = "keylane_dead_letters_total{handler=\"t\",reason=\"output-rejected\"}";
    assert_eq!(shown.metrics().get(reason).map(String::as_str), Some("3"));
    keylane.terminate();
    keylane.expect_exit(0);

    let large = |record: &Received| record.key.as_deref() == Some(b"large");
    let published = outputs(&flow);
    assert_eq!(published.iter().filter(|output| output.key.is_some()).count(), 2 * SMALL);
    assert!(!published.iter().any(large));
    let letters = kafka::read_committed(&cluster.bootstrap(), &flow.dead_letters);
    assert_eq!(letters.len(), 3, "{letters:?}");
    for letter in &letters {
        assert_eq!(
            (letter.text("keylane-reason"), letter.text("keylane-output-target")),
            ("output-rejected", "out")
        );
        let offset = COMMITTED + i64::from(letter.key.is_none());
        assert_eq!(
            (letter.text("keylane-origin-topic"), letter.number("keylane-origin-offset")),
            (flow.input.as_str(), Some(offset))
        );
    }
    let of_large = letters.iter().find(|letter| large(letter)).expect("it was refused");
    assert_eq!(of_large.value, Some(format!("0:{}", "x".repeat(2 * LIMIT)).into_bytes()));
}

/// A dead letter that is refused can't be published elsewhere, and its event can't be skipped.
#[test]
fn a_refused_dead_letter_stops_the_handler() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let mut keylane = Keylane::run(&settings(&flow), &[]);
    flow.wait_for_members(&["one"]);
    flow.lower_limit(&flow.dead_letters, LIMIT);
    flow.producer().send_all(&flow.input, [large().with("fail", "reject")]).expect("acknowledged");
    let line = keylane.wait_for("the stop", |line| line["message"] == "handler stopped");
    let failure = line["failure"].as_str().unwrap_or_default();
    assert!(failure.contains(&format!("topic {} rejects its dead letter", flow.dead_letters)), "{line}");
    keylane.expect_exit(1);
    assert_eq!(flow.lag(), 1, "the event is not committed");
}
