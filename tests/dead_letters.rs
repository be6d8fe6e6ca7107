//! Promise: an event that can't be handled is stored in the dead-letter topic, byte for byte, with
//! the reason, before its offset is committed. While that topic is unavailable, nothing is lost,
//! nothing is committed past the event, and other lanes continue.

use std::io::Write as _;
use std::process::Stdio;

use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Header, Received, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::progress::Progress;
use keylane_tests::skip;
use keylane_tests::wait;
use serde_json::Value;

#[test]
fn a_dead_letter_contains_the_whole_event() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 3, &[]);
    let odd =
        Record::new(b"\xff\x00key", "reject").with(b"na\xffme", b"\x80").with("same", "1").with("same", "2");
    let records = vec![
        odd.at(1_700_000_000_000).to(2),
        Record { key: None, ..Record::new("", "reject") }.to(1),
        Record { value: None, ..Record::new("tombstone", "") }.to(1),
        Record::new("", "reject").to(0),
        Record::new("fine", "done").to(0),
    ];
    run(&flow, &records, &failing(&flow));
    let dead_letters = kafka::read_all(&cluster.bootstrap(), &flow.dead_letters);
    assert_eq!(dead_letters.len(), 4);
    for (partition, offset, sent) in
        [(2, 0, &records[0]), (1, 0, &records[1]), (1, 1, &records[2]), (0, 0, &records[3])]
    {
        let dead_letter = of_origin(&dead_letters, partition, offset);
        assert_eq!((&dead_letter.key, &dead_letter.value), (&sent.key, &sent.value));
        let own: Vec<&Header> = dead_letter.headers.iter().take(sent.headers.len()).collect();
        assert_eq!(own, sent.headers.iter().collect::<Vec<_>>(), "its own headers come first, unchanged");
        let ours = dead_letter.headers.iter().skip(sent.headers.len());
        assert!(ours.clone().all(|(name, _)| name.starts_with(b"keylane-")), "{:?}", dead_letter.headers);
        assert_eq!(dead_letter.text("keylane-origin-topic"), flow.input);
        assert_eq!(dead_letter.text("keylane-reason"), "rejected");
        assert_eq!(
            (dead_letter.number("keylane-attempt"), dead_letter.text("keylane-handler")),
            (Some(1), "t")
        );
        assert_eq!(dead_letter.text("keylane-group"), flow.group);
    }
    let first = of_origin(&dead_letters, 2, 0);
    assert_eq!(first.number("keylane-origin-timestamp"), Some(1_700_000_000_000));
    assert_eq!(first.text("keylane-error"), "the value requests it");
}

#[test]
fn header_names_are_configurable() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = failing(&flow).set("handlers.t.dead_letters", "headers", "spring");
    run(&flow, &[Record::new("k", "done"), Record::new("k", "reject")], &settings);
    let dead_letters = kafka::read_all(&cluster.bootstrap(), &flow.dead_letters);
    let dead_letter = dead_letters.first().expect("one event was rejected");
    assert_eq!(dead_letter.text("kafka_dlt-original-topic"), flow.input);
    assert_eq!(dead_letter.header("kafka_dlt-original-partition"), Some(&0_i32.to_be_bytes()[..]));
    assert_eq!(dead_letter.header("kafka_dlt-original-offset"), Some(&1_i64.to_be_bytes()[..]));
    assert_eq!(dead_letter.text("kafka_dlt-exception-message"), "the value requests it");
}

/// A dead letter that is too large for its topic is reduced step by step, in the last step to a
/// reference to the original. The topic's limit is known, so the first attempt fits.
#[test]
fn a_dead_letter_that_is_too_large_is_reduced() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let small = kafka::unique("small");
    cluster.admin().create_topic(&small, 1, &[("max.message.bytes", "2000")]);
    flow.producer().send_all(&flow.input, too_large()).expect("acknowledged");
    let mut keylane = Keylane::run(&into_one_topic(&flow, &small), &["--until-end"]);
    keylane.expect_exit(0);
    check_reduced_dead_letters(&flow, &small);
    assert!(!keylane.lines().iter().any(batch_rejected), "a dead letter was rejected{}", keylane.tail());
}

/// The same, with a limit that is lowered at run time. Keylane learns the limit from the
/// rejections.
#[test]
fn a_dead_letter_that_is_rejected_as_too_large_is_reduced() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let small = kafka::unique("small");
    cluster.admin().create_topic(&small, 1, &[]);
    let mut keylane = Keylane::run(&into_one_topic(&flow, &small), &[]);
    flow.wait_for_members(&["failing"]);
    flow.lower_limit(&small, 2_000);
    flow.producer().send_all(&flow.input, too_large()).expect("acknowledged");
    flow.wait_until_committed();
    check_reduced_dead_letters(&flow, &small);
    assert!(keylane.lines().iter().any(batch_rejected), "no rejection was logged{}", keylane.tail());
    keylane.terminate();
    keylane.expect_exit(0);
}

/// One topic for outputs and dead letters.
fn into_one_topic(flow: &Flow<'_>, topic: &str) -> Settings {
    failing(flow).set("handlers.t.dead_letters", "topic", topic).set("handlers.t.outputs.out", "topic", topic)
}

/// The guest does not reject the long value: its output is rejected by the broker.
fn too_large() -> Vec<Record> {
    let filler = "x".repeat(10_000);
    vec![
        Record::new("k", "reject"),
        Record::new("long value", filler.as_str()),
        Record::new(filler.as_str(), "reject"),
        Record::new("k", "done"),
    ]
}

fn check_reduced_dead_letters(flow: &Flow<'_>, topic: &str) {
    assert_eq!(flow.lag(), 0);
    let dead_letters: Vec<Received> = kafka::read_all(&flow.cluster.bootstrap(), topic)
        .into_iter()
        .filter(|record| record.header("keylane-reason").is_some())
        .collect();
    assert_eq!(dead_letters.len(), 3);
    assert_eq!(of_origin(&dead_letters, 0, 0).value.as_deref(), Some(&b"reject"[..]));
    let without_value = of_origin(&dead_letters, 0, 1);
    assert_eq!((without_value.key.as_deref(), &without_value.value), (Some(&b"long value"[..]), &None));
    assert_eq!(without_value.text("keylane-reason"), "output-rejected");
    assert_eq!(without_value.number("keylane-value-omitted"), Some(10_000));
    let described = kafka::tool("org.apache.kafka.tools.TopicCommand")
        .args(["--bootstrap-server", &flow.cluster.bootstrap(), "--describe", "--topic", &flow.input])
        .output();
    let described = String::from_utf8_lossy(&described.expect("java can be run").stdout).into_owned();
    let id = without_value.text("keylane-origin-topic-id");
    assert!(described.contains(&format!("TopicId: {id}\t")) && id.len() == 22, "{id:?} in {described}");
    let metadata_only = of_origin(&dead_letters, 0, 2);
    assert_eq!(
        (&metadata_only.key, &metadata_only.value, metadata_only.text("keylane-reason")),
        (&None, &None, "rejected")
    );
    assert_eq!(metadata_only.number("keylane-value-omitted"), Some(6), "not a tombstone");
}

fn batch_rejected(line: &Value) -> bool {
    line["message"].as_str().is_some_and(|message| message.starts_with("batch rejected"))
}

/// With `create_topics` the dead-letter topic is created with the partitions of its input.
#[test]
fn a_missing_topic_is_reported_or_created_like_its_input() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 3, &[]);
    let dead_letters = kafka::unique("dead-letters");
    let settings = failing(&flow).set("handlers.t.dead_letters", "topic", dead_letters.as_str());
    let mut refused = Keylane::run(&settings, &["--until-end"]);
    refused.expect_exit(1);
    assert!(
        refused.tail().contains(&dead_letters) && refused.tail().contains("create_topics"),
        "{}",
        refused.tail()
    );
    run(&flow, &[Record::new("k", "reject")], &settings.set("kafka", "create_topics", true));
    assert_eq!(cluster.admin().partitions(&dead_letters), Some(3));
    assert_eq!(kafka::read_all(&cluster.bootstrap(), &dead_letters).len(), 1);
}

/// The dead-letter topic is unavailable while events fail.
#[test]
fn nothing_is_committed_past_an_event_while_the_topic_is_unavailable() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let mut keylane = Keylane::run(&failing(&flow), &[]);
    flow.wait_for_members(&["failing"]);
    cluster.admin().delete_topic(&flow.dead_letters);
    let event =
        |number: usize| Record::new(format!("key-{number}"), if number == 10 { "reject" } else { "done" });
    flow.producer().send_all(&flow.input, (0..500).map(event)).expect("acknowledged");
    let mut progress = Progress::of(&flow);
    wait::until("all other lanes to continue", wait::STATE_TIMEOUT, || {
        progress.advance();
        progress.done() == 499
    });
    keylane.wait_for("an alarm that names the topic", |line: &Value| {
        line["level"] == "ERROR" && line.to_string().contains(&flow.dead_letters)
    });
    let offset = || flow.committed().first().and_then(|committed| committed.offset);
    wait::until("the done events to be committed", wait::STATE_TIMEOUT, || offset() == Some(10));
    cluster.admin().create_topic(&flow.dead_letters, 1, &[]);
    flow.wait_until_committed();
    let dead_letters = kafka::read_all(&cluster.bootstrap(), &flow.dead_letters);
    assert_eq!(
        dead_letters
            .iter()
            .filter_map(|dead_letter| dead_letter.number("keylane-origin-offset"))
            .collect::<Vec<_>>(),
        [10]
    );
    keylane.terminate();
    keylane.expect_exit(0);
}

/// Events that are rejected without a call wait for the producer as other events do, and their dead
/// letters are not copies. The dead-letter topic is available, or it is unavailable until the
/// partition is reported as stalled.
#[test]
fn events_without_a_key_take_no_more_memory_than_others() {
    const EVENTS: usize = 300_000;
    let Some(cluster) = kafka::shared() else { return };
    let run = |key: Option<&str>, unavailable: bool| {
        let flow = Flow::new(cluster, 1, &[]);
        let event = |number: usize| Record {
            key: key.map(|key| format!("{key}-{number}").into_bytes()),
            ..Record::new("", "x".repeat(150))
        };
        let settings = flow.settings(&guest("noop"), "t").set("runtime", "memory_budget", "64MiB").set(
            "handlers.t.lanes",
            "no_key",
            "reject",
        );
        let mut keylane = Keylane::run(&settings, &[]);
        flow.wait_for_members(&["t"]);
        if unavailable {
            cluster.admin().delete_topic(&flow.dead_letters);
        }
        flow.producer().send_all(&flow.input, (0..EVENTS).map(event)).expect("acknowledged");
        if unavailable {
            keylane.wait_for("the partition to be reported", |line: &Value| {
                line["message"].as_str().is_some_and(|message| message == "partition stalled")
            });
            cluster.admin().create_topic(&flow.dead_letters, 1, &[]);
        }
        flow.wait_until_committed();
        let peak = keylane.peak_bytes().expect("a running process") >> 20;
        keylane.terminate();
        keylane.expect_exit(0);
        peak
    };
    let [with_keys, without, unavailable] =
        [(Some("key"), false), (None, false), (None, true)].map(|(key, unavailable)| run(key, unavailable));
    skip::print_line(&format!(
        "peak MiB: {with_keys} with keys, {without} without, {unavailable} with an unavailable topic"
    ));
    assert!(
        without <= with_keys + 128 && unavailable <= with_keys + 128,
        "{with_keys} {without} {unavailable}"
    );
}

/// The procedure of docs/dead-letters.md, with Kafka's own tools: dead-lettered events are handled once they can be.
#[test]
fn the_documented_redrive_works() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let keyless = Record { key: None, ..Record::new("", "reject").with("trace", "no key, and a\ttab") };
    let records = [Record::new("k", "reject").with("trace", "a: b, c"), Record::new("k", "done"), keyless];
    run(&flow, &records, &failing(&flow));
    // The dead-letter topic accepts only a part of this event, so a redrive would write a
    // tombstone.
    cluster.admin().set_topic_config(&flow.dead_letters, "max.message.bytes", "2000");
    run(&flow, &[Record::new("large", format!("reject{}", " ".repeat(5_000)))], &failing(&flow));
    assert_eq!(kafka::read_all(&cluster.bootstrap(), &flow.dead_letters).len(), 3);

    let bootstrap = cluster.bootstrap();
    let mut consumer = kafka::tool("org.apache.kafka.tools.consumer.ConsoleConsumer");
    let group = kafka::unique("redrive");
    consumer.args(["--bootstrap-server", &bootstrap, "--topic", &flow.dead_letters, "--group", &group]);
    consumer.args(["--command-property", "auto.offset.reset=earliest", "--timeout-ms", "10000"]);
    let shown = ["print.headers=true", "print.key=true", "key.separator=\u{1f}", "headers.separator=\u{1e}"];
    consumer.args(
        shown.iter().chain(&["null.literal=<absent>"]).flat_map(|shown| ["--formatter-property", shown]),
    );
    let seen = consumer.stdin(Stdio::null()).stderr(Stdio::null()).output().expect("java can be run");
    let lines = String::from_utf8_lossy(&seen.stdout);
    assert_eq!(lines.matches("keylane-reason:rejected").count(), 3, "{lines}");
    let complete = complete_dead_letters(&seen.stdout);
    let mut put = kafka::tool("org.apache.kafka.tools.ConsoleProducer");
    put.args(["--bootstrap-server", &bootstrap, "--topic", &flow.input]);
    let read = ["parse.headers=true", "parse.key=true", "headers.delimiter=\u{1f}", "key.separator=\u{1f}"];
    let read = read.iter().chain(&["headers.separator=\u{1e}", "null.marker=<absent>"]);
    put.args(read.flat_map(|read| ["--reader-property", read]));
    let mut put = put.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("java can be run");
    put.stdin.take().expect("stdin is piped").write_all(&complete).expect("the tool reads its input");
    assert!(put.wait().expect("the tool exits").success());

    // The handler is fixed and accepts every event.
    let fixed = flow.settings(&guest("echo"), "fixed");
    Keylane::run(&fixed, &["--until-end"]).expect_exit(0);
    assert_eq!(flow.lag(), 0);
    let outputs = kafka::read_all(&bootstrap, &flow.output);
    assert!(outputs.iter().all(|output| output.key.as_deref() != Some(b"large")), "a tombstone was written");
    let mut put_back: Vec<_> = outputs
        .iter()
        .filter(|output| output.value.as_deref() == Some(b"reject"))
        .map(|output| (output.key.as_deref(), output.text("trace")))
        .collect();
    put_back.sort_unstable();
    assert_eq!(put_back, [(None, "no key, and a\ttab"), (Some(&b"k"[..]), "a: b, c")]);
}

/// Runs the command of the procedure that omits incomplete dead letters.
fn complete_dead_letters(dead_letters: &[u8]) -> Vec<u8> {
    let page = include_str!("../docs/dead-letters.md");
    let line = page.lines().find(|line| line.starts_with("awk") && line.ends_with("> whole.txt"));
    let line = line.expect("the procedure omits incomplete dead letters");
    let command = format!("field=$(printf '\\037'); {}", line.replace("dead-letters.txt > whole.txt", "-"));
    let mut shell = std::process::Command::new("sh")
        .args(["-c", &command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell exists");
    shell.stdin.take().expect("stdin is piped").write_all(dead_letters).expect("the shell reads its input");
    let output = shell.wait_with_output().expect("the shell exits");
    assert!(output.status.success());
    output.stdout
}

/// Header names are bytes, including NUL. A timestamp written by a broker is not reported as the
/// producer's. Headers of an earlier dead letter are replaced, so the value stays in the dead
/// letter however often the event is redriven.
#[test]
fn headers_are_kept_and_do_not_accumulate() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[("message.timestamp.type", "LogAppendTime")]);
    cluster.admin().set_topic_config(&flow.dead_letters, "max.message.bytes", "6000");
    let settings = failing(&flow).set("handlers.t.dead_letters", "headers", "spring");
    let value = format!("reject{}", " ".repeat(4_000));
    let own = |record: Record| record.with(b"a\0b", "1").with("none", "").with(b"\0", "2");
    let mut record = own(Record::new("k", value.as_str()));
    let mut keylane = Keylane::run(&settings, &[]);
    flow.wait_for_members(&["failing"]);
    for redrives in 0..25 {
        flow.producer().send_all(&flow.input, [record]).expect("acknowledged");
        flow.wait_until_committed();
        let dead_letters = kafka::read_all(&cluster.bootstrap(), &flow.dead_letters);
        let dead_letter = dead_letters.last().expect("it was rejected");
        assert_eq!(dead_letter.value.as_deref(), Some(value.as_bytes()), "at redrive {redrives}");
        let names = |wanted: &[u8]| dead_letter.headers.iter().filter(|(name, _)| name == wanted).count();
        assert_eq!(
            [&b"a\0b"[..], b"\0", b"none", b"a"].map(names),
            [1, 1, 1, 0],
            "{:?}",
            dead_letter.headers
        );
        assert_eq!((names(b"keylane-reason"), names(b"kafka_dlt-original-topic")), (1, 1));
        assert_eq!(dead_letter.number("keylane-redrives").unwrap_or(0), redrives);
        assert_eq!(dead_letter.text("keylane-origin-timestamp-type"), "LogAppendTime");
        assert_eq!(dead_letter.text("kafka_dlt-original-timestamp-type"), "LogAppendTime");
        let (key, value, headers) =
            (dead_letter.key.clone(), dead_letter.value.clone(), dead_letter.headers.clone());
        record = Record { key, value, headers, ..Record::default() };
    }
    keylane.terminate();
    keylane.expect_exit(0);
}

/// An event that is redriven with its headers carries the number of its redrives.
#[test]
fn an_event_that_is_redriven_too_often_is_reported() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = failing(&flow).set("handlers.t.dead_letters", "alert_after_redrives", 2);
    let mut record = Record::new("k", "reject");
    for redrives in 0..3 {
        flow.producer().send_all(&flow.input, [record]).expect("acknowledged");
        let mut keylane = Keylane::run(&settings, &["--until-end"]);
        keylane.expect_exit(0);
        let dead_letters = kafka::read_all(&cluster.bootstrap(), &flow.dead_letters);
        let dead_letter = dead_letters.last().expect("it was rejected");
        assert_eq!(dead_letter.number("keylane-redrives").unwrap_or(0), redrives);
        assert_eq!(dead_letter.header("keylane-redrives-alert").is_some(), redrives == 2);
        let alarm =
            |line: &Value| line["level"] == "ERROR" && line.to_string().contains("dead-lettered again");
        assert_eq!(keylane.lines().iter().any(alarm), redrives == 2, "{}", keylane.tail());
        let (key, value, headers) =
            (dead_letter.key.clone(), dead_letter.value.clone(), dead_letter.headers.clone());
        record = Record { key, value, headers, ..Record::default() };
    }
}

fn failing(flow: &Flow<'_>) -> Settings {
    flow.settings(&guest("failing"), "failing")
}

fn run(flow: &Flow<'_>, records: &[Record], settings: &Settings) {
    flow.producer().send_all(&flow.input, records.to_vec()).expect("acknowledged");
    Keylane::run(settings, &["--until-end"]).expect_exit(0);
    assert_eq!(flow.lag(), 0);
}

fn of_origin(dead_letters: &[Received], partition: i64, offset: i64) -> &Received {
    let is = |dead_letter: &&Received| {
        let origin =
            (dead_letter.number("keylane-origin-partition"), dead_letter.number("keylane-origin-offset"));
        origin == (Some(partition), Some(offset))
    };
    let mut found = dead_letters.iter().filter(is);
    let dead_letter = found.next().expect("every event that can't be handled has a dead letter");
    assert!(found.next().is_none(), "one dead letter per event");
    dead_letter
}
