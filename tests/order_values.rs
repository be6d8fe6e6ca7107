//! Promise: outputs with `order_value` have the order value of their event in a header, so that a reader can restore the order.

use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::{Keylane, Settings};

/// Without a gate the value is the time of the record, in the unit in which a gate reads it.
#[test]
fn outputs_have_the_order_value_of_their_event() {
    let Some(cluster) = kafka::shared() else { return };
    for delivery in ["at-least-once", "transactional"] {
        let flow = Flow::new(cluster, 1, &[]);
        let settings = settings(&flow).set("handlers.t", "delivery", delivery);
        let at = |value: &str, time: i64| Record::new("a", value).at(time);
        let events = [at("1", 1_700_000_000_001), at("2", 1_700_000_000_000)];
        flow.producer().send_all(&flow.input, events).expect("acknowledged");
        Keylane::run(&settings, &["--until-end"]).expect_exit(0);
        let expected = [("1", Some(1_700_000_000_001_000_000)), ("2", Some(1_700_000_000_000_000_000))];
        assert_eq!(values(&flow), expected.map(|(value, order)| (value.to_owned(), order)), "{delivery}");
    }
}

/// The echo emits the headers of its events, so that the outputs have the header twice: the last one counts.
#[test]
fn the_order_value_of_a_gate_is_passed_on() {
    let Some(cluster) = kafka::shared() else { return };
    for delivery in ["at-least-once", "transactional"] {
        let flow = Flow::new(cluster, 1, &[]);
        let settings = settings(&flow)
            .set("handlers.t", "delivery", delivery)
            .set("handlers.t.gate", "rule", "newest")
            .set("handlers.t.gate", "by", "header:version")
            .set("handlers.t.gate", "no_value", "pass")
            .set("handlers.t.gate", "memory", "session");
        let event = |value: &str| Record::new("a", value);
        let events = [
            event("first").with("version", "0005").with("order", "of the guest"),
            event("none"),
            event("second").with("version", "7"),
        ];
        flow.producer().send_all(&flow.input, events).expect("acknowledged");
        Keylane::run(&settings, &["--until-end"]).expect_exit(0);
        let expected = [("first", Some(5)), ("none", None), ("second", Some(7))];
        assert_eq!(values(&flow), expected.map(|(value, order)| (value.to_owned(), order)), "{delivery}");
        let outputs = kafka::read_all(&cluster.bootstrap(), &flow.output);
        let first = outputs.first().map(|output| output.headers.iter().filter(|(name, _)| name == b"order"));
        assert_eq!(first.map(Iterator::count), Some(2), "the header of the guest is kept");
    }
}

fn settings(flow: &Flow<'_>) -> Settings {
    flow.settings(&guest("echo"), "order").set("handlers.t.outputs.out", "order_value", "header:order")
}

/// Returns the value of each output, and the number in its last header `order`.
fn values(flow: &Flow<'_>) -> Vec<(String, Option<i64>)> {
    let outputs = kafka::read_all(&flow.cluster.bootstrap(), &flow.output);
    let value = |output: &kafka::Received| {
        let last = output.headers.iter().rfind(|(name, _)| name == b"order");
        let order = last.and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok()?.parse().ok());
        (String::from_utf8_lossy(output.value.as_deref().unwrap_or_default()).into_owned(), order)
    };
    outputs.iter().map(value).collect()
}
