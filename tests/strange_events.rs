//! Promise: bytes are passed on unchanged. No record that a producer may write, and no foreign
//! metadata in the group's commits, stops an instance or makes it skip an event.

use keylane_tests::check;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Producer, Received, Record};
use keylane_tests::keylane::Keylane;
use keylane_tests::wait;
use serde_json::Value;

#[test]
fn keys_and_values_are_unchanged_in_the_output() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[("max.message.bytes", "4194304")]);
    let records = vec![
        Record { key: None, ..Record::new("", "null key") },
        Record { key: None, ..Record::new("", "null key again") },
        Record::new("", "empty key"),
        Record::new(vec![b'k'; 1 << 20], "a key of 1 MiB"),
        Record::new(b"\xff\x00\xfe", b"\x00\x01\xff"),
        Record { value: None, ..Record::new("gone", "") },
        Record::new("empty value", ""),
        Record::new("gone", "and back"),
        Record { key: None, value: None, ..Record::default() },
        Record::new("headers", "v").with("", "no name").with("same", "1").with("same", "2"),
    ];
    run_to_end(&flow, &records);

    let outputs = kafka::read_all(&cluster.bootstrap(), &flow.output);
    for (offset, sent) in (0_i64..).zip(&records) {
        let output = of_origin(&outputs, offset);
        assert_eq!((&output.key, &output.value), (&sent.key, &sent.value), "the event at offset {offset}");
        let own = |(name, _): &&(Vec<u8>, _)| !name.starts_with(b"keylane-");
        let headers: Vec<_> = output.headers.iter().filter(own).collect();
        assert_eq!(headers, sent.headers.iter().collect::<Vec<_>>(), "the headers at offset {offset}");
    }
    check::check(&flow.history()).assert_clean();
}

#[test]
fn header_names_that_are_not_text_are_repaired_for_the_handler() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let strange = Record::new("k", "v").with(b"na\xffme", b"\xff\xfe").with("text", "t");
    run_to_end(&flow, &[Record::new("k", "before"), strange, Record::new("k", "after")]);

    let outputs = kafka::read_all(&cluster.bootstrap(), &flow.output);
    let output = of_origin(&outputs, 1);
    assert_eq!(output.header("na\u{fffd}me"), Some(b"\xff\xfe".as_slice()), "{:?}", output.headers);
    assert_eq!(output.header("text"), Some(b"t".as_slice()));
    check::check(&flow.history()).assert_clean();
}

#[test]
fn foreign_metadata_claims_nothing() {
    let longest = "l".repeat(4096);
    let foreign: [&[u8]; 6] = [
        b"somebody else's",
        b"kl1:",
        b"kl1:AQAAAQAAAAAA",
        b"kl9:from-a-later-version",
        b"\xff\xfe not text",
        longest.as_bytes(),
    ];
    for metadata in foreign {
        let Some(cluster) = kafka::shared() else { return };
        let flow = Flow::new(cluster, 1, &[]);
        let records: Vec<Record> = (0..20).map(|number| Record::new(format!("{number}"), "v")).collect();
        flow.producer().send_all(&flow.input, records).expect("acknowledged");
        flow.members.commit(&flow.input, 0, 5, metadata);
        let mut keylane = Keylane::run(&flow.settings(&guest("echo"), "reader"), &["--until-end"]);
        keylane.expect_exit(0);

        let mut history = flow.history();
        history.inputs.retain(|input| input.offset >= 5);
        let report = check::check(&history);
        report.assert_clean();
        assert_eq!(report.outcomes, 15, "each event from the committed offset on, once");
    }
}

/// A batch is small when compressed and huge when decompressed. Its partition is reported with
/// offset and cause, memory does not grow, and other partitions continue.
#[test]
fn a_batch_that_decompresses_beyond_the_limit_stops_only_its_partition() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let fine = |number: usize| Record::new(format!("{number}"), "fine");
    flow.producer().send_all(&flow.input, (0..20).map(|number| fine(number).to(0))).expect("acknowledged");
    let zeros = (0..UNPACKED >> 20).map(|_| Record::new("zeros", vec![0; 1 << 20]).to(0));
    Producer::packing(&cluster.bootstrap()).send_all(&flow.input, zeros).expect("acknowledged");

    let mut keylane = Keylane::run(&flow.settings(&guest("echo"), "reader"), &[]);
    flow.wait_for_members(&["reader"]);
    let before = keylane.peak_bytes().expect("a running process");
    let report = keylane.wait_for("the report", |line: &Value| line["level"] == "ERROR");
    let at = (&report["topic"], &report["partition"], &report["offset"]);
    assert_eq!(at, (&Value::from(flow.input.as_str()), &Value::from(0), &Value::from(20)), "{report}");
    flow.producer().send_all(&flow.input, (0..500).map(|number| fine(number).to(1))).expect("acknowledged");
    let committed = |partition: usize| flow.committed().get(partition).and_then(|committed| committed.offset);
    wait::until("the other partition to continue", wait::STATE_TIMEOUT, || committed(1) == Some(500));
    assert_eq!(committed(0), Some(20), "no event behind the batch is committed");
    let after = keylane.peak_bytes().expect("a running process");
    assert!(after < before + (128 << 20), "memory grew from {before} to {after} bytes");
    keylane.terminate();
}

/// More than the client's receive limit.
const UNPACKED: usize = 256 << 20;

fn run_to_end(flow: &Flow<'_>, records: &[Record]) {
    flow.producer().send_all(&flow.input, records.to_vec()).expect("acknowledged");
    // The client uses the output topic's limit: `message.max.bytes` need not be raised.
    let mut keylane = Keylane::run(&flow.settings(&guest("echo"), "reader"), &["--until-end"]);
    keylane.expect_exit(0);
    assert_eq!(flow.lag(), 0);
}

fn of_origin(outputs: &[Received], offset: i64) -> &Received {
    let mut found = outputs.iter().filter(|output| output.number("keylane-origin-offset") == Some(offset));
    let output = found.next().expect("every event has an output");
    assert!(found.next().is_none(), "one output per event");
    output
}
