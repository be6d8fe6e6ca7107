//! Promise: an event that can't be handled lies in the dead-letter topic, byte for byte, with the reason, before its
//! offset is passed. While that topic is away nothing is passed, nothing is lost, and other lanes go on.

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
fn everything_of_the_event_is_in_it() {
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
    let letters = kafka::read_all(&cluster.bootstrap(), &flow.letters);
    assert_eq!(letters.len(), 4);
    for (partition, offset, sent) in
        [(2, 0, &records[0]), (1, 0, &records[1]), (1, 1, &records[2]), (0, 0, &records[3])]
    {
        let letter = of_origin(&letters, partition, offset);
        assert_eq!((&letter.key, &letter.value), (&sent.key, &sent.value));
        let own: Vec<&Header> = letter.headers.iter().take(sent.headers.len()).collect();
        assert_eq!(own, sent.headers.iter().collect::<Vec<_>>(), "its own headers come first, as they were");
        let ours = letter.headers.iter().skip(sent.headers.len());
        assert!(ours.clone().all(|(name, _)| name.starts_with(b"keylane-")), "{:?}", letter.headers);
        assert_eq!(letter.text("keylane-origin-topic"), flow.input);
        assert_eq!(letter.text("keylane-reason"), "rejected");
        assert_eq!((letter.number("keylane-attempt"), letter.text("keylane-handler")), (Some(1), "t"));
        assert_eq!(letter.text("keylane-group"), flow.group);
    }
    let first = of_origin(&letters, 2, 0);
    assert_eq!(first.number("keylane-origin-timestamp"), Some(1_700_000_000_000));
    assert_eq!(first.text("keylane-error"), "the value asks for it");
}

#[test]
fn other_names_on_request() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = failing(&flow).set("handlers.t.dead_letters", "headers", "spring");
    run(&flow, &[Record::new("k", "done"), Record::new("k", "reject")], &settings);
    let letters = kafka::read_all(&cluster.bootstrap(), &flow.letters);
    let letter = letters.first().expect("one event was rejected");
    assert_eq!(letter.text("kafka_dlt-original-topic"), flow.input);
    assert_eq!(letter.header("kafka_dlt-original-partition"), Some(&0_i32.to_be_bytes()[..]));
    assert_eq!(letter.header("kafka_dlt-original-offset"), Some(&1_i64.to_be_bytes()[..]));
    assert_eq!(letter.text("kafka_dlt-exception-message"), "the value asks for it");
}

/// What the dead-letter topic does not take is made smaller, in the end to a note of where the original is. What it takes
/// is known, so the first try fits.
#[test]
fn what_is_too_large_leaves_a_note() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let small = kafka::unique("small");
    cluster.admin().create_topic(&small, 1, &[("max.message.bytes", "2000")]);
    flow.producer().send_all(&flow.input, too_large()).expect("acknowledged");
    let mut keylane = Keylane::run(&into_one(&flow, &small), &["--until-end"]);
    keylane.expect_exit(0);
    check_notes(&flow, &small);
    assert!(!keylane.lines().iter().any(batch_refused), "a letter was refused{}", keylane.tail());
}

/// The same where the topic's limit is lowered while Keylane runs: it learns of it from the refusals.
#[test]
fn what_turns_out_to_be_too_large_leaves_a_note() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let small = kafka::unique("small");
    cluster.admin().create_topic(&small, 1, &[]);
    let mut keylane = Keylane::run(&into_one(&flow, &small), &[]);
    flow.wait_for_members(&["failing"]);
    flow.lower_limit(&small, 2_000);
    flow.producer().send_all(&flow.input, too_large()).expect("acknowledged");
    flow.wait_until_committed();
    check_notes(&flow, &small);
    assert!(keylane.lines().iter().any(batch_refused), "nothing was refused{}", keylane.tail());
    keylane.terminate();
    keylane.expect_exit(0);
}

/// One topic for outputs and dead letters.
fn into_one(flow: &Flow<'_>, topic: &str) -> Settings {
    failing(flow).set("handlers.t.dead_letters", "topic", topic).set("handlers.t.outputs.out", "topic", topic)
}

/// The long value is not rejected: the guest's output is refused.
fn too_large() -> Vec<Record> {
    let filler = "x".repeat(10_000);
    vec![
        Record::new("k", "reject"),
        Record::new("long value", filler.as_str()),
        Record::new(filler.as_str(), "reject"),
        Record::new("k", "done"),
    ]
}

fn check_notes(flow: &Flow<'_>, topic: &str) {
    assert_eq!(flow.lag(), 0);
    let letters: Vec<Received> = kafka::read_all(&flow.cluster.bootstrap(), topic)
        .into_iter()
        .filter(|record| record.header("keylane-reason").is_some())
        .collect();
    assert_eq!(letters.len(), 3);
    assert_eq!(of_origin(&letters, 0, 0).value.as_deref(), Some(&b"reject"[..]));
    let without_value = of_origin(&letters, 0, 1);
    assert_eq!((without_value.key.as_deref(), &without_value.value), (Some(&b"long value"[..]), &None));
    assert_eq!(without_value.text("keylane-reason"), "output-refused");
    assert_eq!(without_value.number("keylane-value-omitted"), Some(10_000));
    let described = kafka::tool("org.apache.kafka.tools.TopicCommand")
        .args(["--bootstrap-server", &flow.cluster.bootstrap(), "--describe", "--topic", &flow.input])
        .output();
    let described = String::from_utf8_lossy(&described.expect("java can be run").stdout).into_owned();
    let id = without_value.text("keylane-origin-topic-id");
    assert!(described.contains(&format!("TopicId: {id}\t")) && id.len() == 22, "{id:?} in {described}");
    let stub = of_origin(&letters, 0, 2);
    assert_eq!((&stub.key, &stub.value, stub.text("keylane-reason")), (&None, &None, "rejected"));
    assert_eq!(stub.number("keylane-value-omitted"), Some(6), "not a tombstone");
}

fn batch_refused(line: &Value) -> bool {
    line["message"].as_str().is_some_and(|message| message.starts_with("a batch of outputs is refused"))
}

/// With `create_topics` the dead-letter topic is made like its input.
#[test]
fn a_missing_topic_is_named_or_made_like_its_input() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 3, &[]);
    let letters = kafka::unique("letters");
    let settings = failing(&flow).set("handlers.t.dead_letters", "topic", letters.as_str());
    let mut refused = Keylane::run(&settings, &["--until-end"]);
    refused.expect_exit(1);
    assert!(
        refused.tail().contains(&letters) && refused.tail().contains("create_topics"),
        "{}",
        refused.tail()
    );
    run(&flow, &[Record::new("k", "reject")], &settings.set("kafka", "create_topics", true));
    assert_eq!(cluster.admin().partitions(&letters), Some(3));
    assert_eq!(kafka::read_all(&cluster.bootstrap(), &letters).len(), 1);
}

/// The dead-letter topic is away while events fail.
#[test]
fn nothing_is_passed_while_the_topic_is_away() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let mut keylane = Keylane::run(&failing(&flow), &[]);
    flow.wait_for_members(&["failing"]);
    cluster.admin().delete_topic(&flow.letters);
    let event =
        |number: usize| Record::new(format!("key-{number}"), if number == 10 { "reject" } else { "done" });
    flow.producer().send_all(&flow.input, (0..500).map(event)).expect("acknowledged");
    let mut progress = Progress::of(&flow);
    wait::until("all other lanes to go on", wait::PATIENCE, || {
        progress.advance();
        progress.done() == 499
    });
    keylane.wait_for("an alarm that names the topic", |line: &Value| {
        line["level"] == "ERROR" && line.to_string().contains(&flow.letters)
    });
    let offset = || flow.committed().first().and_then(|committed| committed.offset);
    wait::until("what is done to be committed", wait::PATIENCE, || offset() == Some(10));
    cluster.admin().create_topic(&flow.letters, 1, &[]);
    flow.wait_until_committed();
    let letters = kafka::read_all(&cluster.bootstrap(), &flow.letters);
    assert_eq!(
        letters.iter().filter_map(|letter| letter.number("keylane-origin-offset")).collect::<Vec<_>>(),
        [10]
    );
    keylane.terminate();
    keylane.expect_exit(0);
}

/// Events that are rejected before any guest sees them wait for the producer as others do, and their letters are no copies
/// of them: with a topic of dead letters that works, and with one that is away until the partition is reported to stand.
#[test]
fn events_without_a_key_take_no_more_memory_than_others() {
    const EVENTS: usize = 300_000;
    let Some(cluster) = kafka::shared() else { return };
    let run = |key: Option<&str>, away: bool| {
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
        if away {
            cluster.admin().delete_topic(&flow.letters);
        }
        flow.producer().send_all(&flow.input, (0..EVENTS).map(event)).expect("acknowledged");
        if away {
            keylane.wait_for("the partition to be reported", |line: &Value| {
                line["message"].as_str().is_some_and(|message| message.contains("does not move"))
            });
            cluster.admin().create_topic(&flow.letters, 1, &[]);
        }
        flow.wait_until_committed();
        let peak = keylane.peak_bytes().expect("it runs") >> 20;
        keylane.terminate();
        keylane.expect_exit(0);
        peak
    };
    let [with_keys, without, away] =
        [(Some("key"), false), (None, false), (None, true)].map(|(key, away)| run(key, away));
    skip::say(&format!(
        "MiB at most: {with_keys} with keys, {without} without, {away} with their topic away"
    ));
    assert!(without <= with_keys + 128 && away <= with_keys + 128, "{with_keys} {without} {away}");
}

/// The recipe of docs/dead-letters.md, with Kafka's own tools: what was set aside is handled once it can be.
#[test]
fn the_recipe_puts_events_back() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let keyless = Record { key: None, ..Record::new("", "reject").with("trace", "no key, and a\ttab") };
    let records = [Record::new("k", "reject").with("trace", "a: b, c"), Record::new("k", "done"), keyless];
    run(&flow, &records, &failing(&flow));
    // Of this one the topic of dead letters takes only a part: put back it would be a tombstone.
    cluster.admin().set_topic_config(&flow.letters, "max.message.bytes", "2000");
    run(&flow, &[Record::new("large", format!("reject{}", " ".repeat(5_000)))], &failing(&flow));
    assert_eq!(kafka::read_all(&cluster.bootstrap(), &flow.letters).len(), 3);

    let bootstrap = cluster.bootstrap();
    let mut look = kafka::tool("org.apache.kafka.tools.consumer.ConsoleConsumer");
    let group = kafka::unique("redrive");
    look.args(["--bootstrap-server", &bootstrap, "--topic", &flow.letters, "--group", &group]);
    look.args(["--command-property", "auto.offset.reset=earliest", "--timeout-ms", "10000"]);
    let shown = ["print.headers=true", "print.key=true", "key.separator=\u{1f}", "headers.separator=\u{1e}"];
    look.args(
        shown.iter().chain(&["null.literal=<absent>"]).flat_map(|shown| ["--formatter-property", shown]),
    );
    let seen = look.stdin(Stdio::null()).stderr(Stdio::null()).output().expect("java can be run");
    let lines = String::from_utf8_lossy(&seen.stdout);
    assert_eq!(lines.matches("keylane-reason:rejected").count(), 3, "{lines}");
    let whole = whole_letters(&seen.stdout);
    let mut put = kafka::tool("org.apache.kafka.tools.ConsoleProducer");
    put.args(["--bootstrap-server", &bootstrap, "--topic", &flow.input]);
    let read = ["parse.headers=true", "parse.key=true", "headers.delimiter=\u{1f}", "key.separator=\u{1f}"];
    let read = read.iter().chain(&["headers.separator=\u{1e}", "null.marker=<absent>"]);
    put.args(read.flat_map(|read| ["--reader-property", read]));
    let mut put = put.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("java can be run");
    put.stdin.take().expect("it was asked for").write_all(&whole).expect("it reads");
    assert!(put.wait().expect("it ends").success());

    // Somebody has mended the handler: now it takes everything.
    let mended = flow.settings(&guest("echo"), "mended");
    Keylane::run(&mended, &["--until-end"]).expect_exit(0);
    assert_eq!(flow.lag(), 0);
    let outputs = kafka::read_all(&bootstrap, &flow.output);
    assert!(outputs.iter().all(|output| output.key.as_deref() != Some(b"large")), "a tombstone was put back");
    let mut put_back: Vec<_> = outputs
        .iter()
        .filter(|output| output.value.as_deref() == Some(b"reject"))
        .map(|output| (output.key.as_deref(), output.text("trace")))
        .collect();
    put_back.sort_unstable();
    assert_eq!(put_back, [(None, "no key, and a\ttab"), (Some(&b"k"[..]), "a: b, c")]);
}

/// The recipe's own line that leaves out what is not whole.
fn whole_letters(letters: &[u8]) -> Vec<u8> {
    let page = include_str!("../docs/dead-letters.md");
    let line = page.lines().find(|line| line.starts_with("awk") && line.ends_with("> whole.txt"));
    let line = line.expect("the recipe leaves out what is not whole");
    let command = format!("field=$(printf '\\037'); {}", line.replace("letters.txt > whole.txt", "-"));
    let mut shell = std::process::Command::new("sh")
        .args(["-c", &command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    shell.stdin.take().expect("it was asked for").write_all(letters).expect("it reads");
    let output = shell.wait_with_output().expect("it ends");
    assert!(output.status.success());
    output.stdout
}

/// Names are bytes, NUL among them; a time that a broker wrote is not called the producer's; and what an earlier letter
/// said is replaced: a value stays in the letter however often it was put back.
#[test]
fn headers_are_kept_and_do_not_pile_up() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[("message.timestamp.type", "LogAppendTime")]);
    cluster.admin().set_topic_config(&flow.letters, "max.message.bytes", "6000");
    let settings = failing(&flow).set("handlers.t.dead_letters", "headers", "spring");
    let value = format!("reject{}", " ".repeat(4_000));
    let own = |record: Record| record.with(b"a\0b", "1").with("none", "").with(b"\0", "2");
    let mut record = own(Record::new("k", value.as_str()));
    let mut keylane = Keylane::run(&settings, &[]);
    flow.wait_for_members(&["failing"]);
    for redrives in 0..25 {
        flow.producer().send_all(&flow.input, [record]).expect("acknowledged");
        flow.wait_until_committed();
        let letters = kafka::read_all(&cluster.bootstrap(), &flow.letters);
        let letter = letters.last().expect("it was rejected");
        assert_eq!(letter.value.as_deref(), Some(value.as_bytes()), "at redrive {redrives}");
        let names = |wanted: &[u8]| letter.headers.iter().filter(|(name, _)| name == wanted).count();
        assert_eq!([&b"a\0b"[..], b"\0", b"none", b"a"].map(names), [1, 1, 1, 0], "{:?}", letter.headers);
        assert_eq!((names(b"keylane-reason"), names(b"kafka_dlt-original-topic")), (1, 1));
        assert_eq!(letter.number("keylane-redrives").unwrap_or(0), redrives);
        assert_eq!(letter.text("keylane-origin-timestamp-type"), "LogAppendTime");
        assert_eq!(letter.text("kafka_dlt-original-timestamp-type"), "LogAppendTime");
        let (key, value, headers) = (letter.key.clone(), letter.value.clone(), letter.headers.clone());
        record = Record { key, value, headers, ..Record::default() };
    }
    keylane.terminate();
    keylane.expect_exit(0);
}

/// An event that somebody put back with its headers says how often it was here.
#[test]
fn an_event_that_comes_back_again_and_again_raises_an_alarm() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = failing(&flow).set("handlers.t.dead_letters", "max_redrives", 2);
    let mut record = Record::new("k", "reject");
    for redrives in 0..3 {
        flow.producer().send_all(&flow.input, [record]).expect("acknowledged");
        let mut keylane = Keylane::run(&settings, &["--until-end"]);
        keylane.expect_exit(0);
        let letters = kafka::read_all(&cluster.bootstrap(), &flow.letters);
        let letter = letters.last().expect("it was rejected");
        assert_eq!(letter.number("keylane-redrives").unwrap_or(0), redrives);
        assert_eq!(letter.header("keylane-redrives-exceeded").is_some(), redrives == 2);
        let alarm = |line: &Value| line["level"] == "ERROR" && line.to_string().contains("set aside again");
        assert_eq!(keylane.lines().iter().any(alarm), redrives == 2, "{}", keylane.tail());
        let (key, value, headers) = (letter.key.clone(), letter.value.clone(), letter.headers.clone());
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

fn of_origin(letters: &[Received], partition: i64, offset: i64) -> &Received {
    let is = |letter: &&Received| {
        let origin = (letter.number("keylane-origin-partition"), letter.number("keylane-origin-offset"));
        origin == (Some(partition), Some(offset))
    };
    let mut found = letters.iter().filter(is);
    let letter = found.next().expect("every event that can't be handled has a letter");
    assert!(found.next().is_none(), "one letter per event");
    letter
}
