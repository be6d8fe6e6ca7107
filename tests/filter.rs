//! Promise: a handler receives the events that its filter selects, in the configured lanes. Several handlers read one
//! topic, each with its own filter, group and lanes; filtered events are settled, counted by rule, and never stop a
//! partition.

use std::path::Path;

use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Group, Received, Record};
use keylane_tests::keylane::{Keylane, Settings};
use serde_json::{Value, json};

#[test]
fn several_handlers_share_a_topic_by_type() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 3, &[]);
    let kinds = ["made", "paid", "sent"];
    let records = (0..3_000_usize).map(|number| {
        let kind = kinds[number % 3];
        Record::new(format!("key-{}", number % 100), kind).with("event-type", kind)
    });
    flow.producer().send_all(&flow.input, records.collect::<Vec<_>>()).expect("acknowledged");
    let other = kafka::unique("group");
    let paid = json!([{ "name": "paid", "header": "event-type", "equals": "paid" }]);
    let rest = json!([{ "name": "not paid", "header": "event-type", "any_of": ["paid"], "keep": false }]);
    let settings = flow
        .settings(&guest("echo"), "both")
        .set("handlers.t", "filter", paid)
        .set("handlers.u", "component", path(&guest("echo")))
        .set("handlers.u", "topics", vec![flow.input.as_str()])
        .set("handlers.u", "group_id", other.as_str())
        .set("handlers.u", "filter", rest)
        .set("handlers.u.outputs.out", "topic", flow.output.as_str())
        .set("handlers.u.outputs.out", "provenance", true);
    let mut keylane = Keylane::run(&settings, &["--until-end"]);
    keylane.expect_exit(0);
    assert_eq!(flow.lag(), 0);
    let of_other = Group::new(&cluster.bootstrap(), &other).committed(&flow.input, 3);
    assert_eq!(of_other.iter().filter_map(|committed| committed.offset).sum::<i64>(), 3_000);
    let outputs = kafka::read_all(&cluster.bootstrap(), &flow.output);
    for kind in kinds {
        let of_kind = outputs.iter().filter(|output| output.value.as_deref() == Some(kind.as_bytes()));
        assert_eq!(of_kind.count(), 1_000, "{kind}: each handler has its own events");
    }
    let counted = |rule: &str, events: u64| {
        let matches = |line: &Value| {
            line["message"] == "filter rule total" && line["rule"] == rule && line["events"] == events
        };
        assert!(keylane.lines().iter().any(matches), "`{rule}` is not reported with {events} events");
    };
    counted("paid", 1_000);
    counted("not paid", 1_000);
}

/// The topic has no event for the handler. Its lag reaches 0 without a call.
#[test]
fn filtered_events_are_settled() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let records = (0..2_000).map(|number| Record { value: None, ..Record::new(format!("eu-{number}"), "") });
    flow.producer().send_all(&flow.input, records.collect::<Vec<_>>()).expect("acknowledged");
    let rules = json!([{ "key_prefix": "eu-", "tombstone": true, "keep": false }]);
    let settings = flow.settings(&guest("failing"), "filtered").set("handlers.t", "filter", rules);
    Keylane::run(&settings, &["--until-end"]).expect_exit(0);
    assert_eq!(flow.lag(), 0);
    assert!(kafka::read_all(&cluster.bootstrap(), &flow.output).is_empty());
}

/// With lanes by customer, a slow customer delays only its own orders, whatever the records' keys.
#[test]
fn lane_keys_may_come_from_a_header_or_the_value() {
    let Some(cluster) = kafka::shared() else { return };
    for lane_key in
        [json!("header:customer"), json!("json:/customer"), json!(["json:/customer", "header:customer"])]
    {
        let flow = Flow::new(cluster, 1, &[]);
        let event = |number: usize, customer: &str, millis: &str| {
            Record::new(format!("order-{number}"), json!({ "customer": customer }).to_string())
                .with("customer", customer)
                .with("sleep-ms", millis)
                .with("emit", "")
        };
        let records = vec![event(0, "a", "400"), event(1, "a", "0"), event(2, "b", "0"), event(3, "a", "0")];
        flow.producer().send_all(&flow.input, records).expect("acknowledged");
        let settings = flow.settings(&guest("sleepy"), "lanes").set("handlers.t", "max_batch", 1).set(
            "handlers.t.lanes",
            "lane_key",
            lane_key.clone(),
        );
        Keylane::run(&settings, &["--until-end"]).expect_exit(0);
        assert_eq!(origins(&kafka::read_all(&cluster.bootstrap(), &flow.output)), [2, 0, 1, 3], "{lane_key}");
    }
}

/// Values of a schema registry are not JSON texts. Without a warning, the order would be lost
/// silently.
#[test]
fn a_missing_lane_key_is_reported() {
    let Some(cluster) = kafka::shared() else { return };
    for (lane_key, reported) in [("json:/id", true), ("registry-json:/id", false)] {
        let flow = Flow::new(cluster, 1, &[]);
        let value =
            |number: i64| [&b"\0\0\0\0\x07"[..], json!({ "id": number % 3 }).to_string().as_bytes()].concat();
        let records = (0..50).map(|number| Record { value: Some(value(number)), ..Record::new("k", "") });
        flow.producer().send_all(&flow.input, records).expect("acknowledged");
        let settings = flow.settings(&guest("noop"), "lanes").set("handlers.t.lanes", "lane_key", lane_key);
        let mut keylane = Keylane::run(&settings, &["--until-end"]);
        keylane.expect_exit(0);
        let lines = keylane.lines();
        let line = lines.iter().find(|line| {
            line["message"].as_str().is_some_and(|text| text.contains("without the configured lane key"))
        });
        assert_eq!(line.is_some(), reported, "{}", keylane.tail());
        if let Some(line) = line {
            assert_eq!(
                (line["offset"].as_i64(), line["topic"].as_str()),
                (Some(0), Some(flow.input.as_str()))
            );
            assert!(
                line["events"].as_u64().is_some_and(|events| events > 0)
                    && line.to_string().contains("registry-json:")
            );
        }
    }
}

#[test]
fn events_without_a_lane_key_may_be_rejected() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let keyless = Record { key: None, ..Record::new("", "no key") };
    let records = vec![Record::new("k", "one"), keyless, Record::new("", "an empty key is a key")];
    flow.producer().send_all(&flow.input, records).expect("acknowledged");
    let settings: Settings =
        flow.settings(&guest("echo"), "strict").set("handlers.t.lanes", "no_key", "reject");
    Keylane::run(&settings, &["--until-end"]).expect_exit(0);
    assert_eq!(flow.lag(), 0);
    let mut done = origins(&kafka::read_all(&cluster.bootstrap(), &flow.output));
    done.sort_unstable();
    assert_eq!(done, [0, 2]);
    let dead_letters = kafka::read_all(&cluster.bootstrap(), &flow.dead_letters);
    assert_eq!(
        dead_letters.iter().map(|dead_letter| dead_letter.header("keylane-reason")).collect::<Vec<_>>(),
        [Some(&b"no-key"[..])]
    );
}

fn origins(outputs: &[Received]) -> Vec<i64> {
    outputs.iter().filter_map(|output| output.number("keylane-origin-offset")).collect()
}

fn path(component: &Path) -> String {
    component.display().to_string()
}
