//! Promise: an output that can't be published fails its own event and no other. Known topic limits
//! are checked before producing. Brokers enforce unknown and changed limits, and the rejection of a
//! batch is attributed to records.

use std::collections::BTreeMap;

use keylane_tests::check;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Received, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::restricted_user;
use keylane_tests::skip;
use keylane_tests::wait;
use serde_json::Value;

/// Batches are limited by the topic with the smallest limit, and an output that is too large is never sent.
#[test]
fn an_output_too_large_for_its_topic_ends_only_its_event() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let small = kafka::unique("small");
    cluster.admin().create_topic(&small, 1, &[("max.message.bytes", "2000")]);
    // Records that are produced together would form one batch; the other topic accepts far more.
    let settings = echo_into(&flow, &small).set("kafka.producer", "linger.ms", 50).set(
        "handlers.t.outputs.other",
        "topic",
        flow.output.as_str(),
    );
    flow.producer().send_all(&flow.input, events()).expect("acknowledged");
    let mut keylane = Keylane::run(&settings, &["--until-end"]);
    keylane.expect_exit(0);
    for dead_letter in dead_letters_of_long_events(&flow) {
        let error = dead_letter.text("keylane-error");
        assert!(error.contains(&small) && error.contains("`max.message.bytes` is 2000"), "{error}");
        assert_eq!(dead_letter.header("keylane-published"), None);
    }
    let outputs = outputs(&flow, &small);
    assert_eq!(outputs.len(), 196, "each of the others once");
    assert_eq!(out_of_order(&outputs), 0);
    assert!(!keylane.lines().iter().any(batch_rejected), "a broker rejected a batch{}", keylane.tail());
}

/// A topic that accepts large records receives them without a setting. A handler may have a lower
/// limit.
#[test]
fn large_outputs_are_published_if_their_topic_accepts_them() {
    let Some(cluster) = kafka::shared() else { return };
    for (setting, published) in [(None, 3), (Some("2MiB"), 1)] {
        let flow = Flow::new(cluster, 1, &[]);
        let large = kafka::unique("large");
        cluster.admin().create_topic(&large, 1, &[("max.message.bytes", "4194304")]);
        let events = ["done", "bloat"].map(|value| Record::new(value, value)); // 3 MiB
        flow.producer().send_all(&flow.input, events).expect("acknowledged");
        let mut settings = flow.settings(&guest("failing"), "t").output(&large);
        if let Some(bytes) = setting {
            settings = settings.set("handlers.t", "max_output_bytes", bytes);
        }
        let mut keylane = Keylane::run(&settings, &["--until-end"]);
        keylane.expect_exit(0);
        assert_eq!(outputs(&flow, &large).len(), published, "{setting:?}{}", keylane.tail());
        let dead_letters = kafka::read_all(&cluster.bootstrap(), &flow.dead_letters);
        assert_eq!(dead_letters.len(), usize::from(setting.is_some()), "{setting:?}");
        for dead_letter in dead_letters {
            let (reason, error) = (dead_letter.text("keylane-reason"), dead_letter.text("keylane-error"));
            assert_eq!((reason, dead_letter.number("keylane-attempt")), ("output-rejected", Some(1)));
            assert!(error.contains("3145728 bytes, the limit is 2097152"), "{error}");
        }
    }
}

/// The handler emits much per event, faster than the brokers store it. No call begins while the
/// output backlog is full.
#[test]
fn unacknowledged_outputs_stay_within_the_memory_budget() {
    const EVENTS: usize = 6_000;
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 4, &[]);
    let event = |number| Record::new(format!("key-{number}"), "fan");
    flow.producer().send_all(&flow.input, (0..EVENTS).map(event)).expect("acknowledged");
    let settings = flow.settings(&guest("failing"), "t").set("runtime", "memory_budget", "64MiB");
    let mut keylane = Keylane::run(&settings, &[]);
    flow.wait_until_committed();
    let peak = keylane.peak_bytes().expect("a running process") >> 20;
    keylane.terminate();
    keylane.expect_exit(0);
    skip::print_line(&format!("600 MiB of outputs, peak memory {peak} MiB"));
    assert!(peak < 350, "{peak} MiB");
}

/// Compacted topics accept no record without a key.
#[test]
fn an_output_without_a_key_for_a_compacted_topic_ends_only_its_event() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let compacted = kafka::unique("compacted");
    cluster.admin().create_topic(&compacted, 1, &[("cleanup.policy", "delete,compact")]);
    let records = (0..100).map(|number| {
        let key = (number % 10 != 3).then(|| format!("key-{number}").into_bytes());
        Record { key, ..Record::new("", format!("event {number}")) }
    });
    flow.producer().send_all(&flow.input, records).expect("acknowledged");
    let mut keylane = Keylane::run(&echo_into(&flow, &compacted), &["--until-end"]);
    keylane.expect_exit(0);
    let dead_letters = kafka::read_all(&cluster.bootstrap(), &flow.dead_letters);
    assert_eq!(dead_letters.len(), 10);
    for dead_letter in &dead_letters {
        let (error, offset) =
            (dead_letter.text("keylane-error"), dead_letter.number("keylane-origin-offset"));
        assert_eq!(
            (offset.map(|offset| offset % 10), dead_letter.text("keylane-reason")),
            (Some(3), "output-rejected")
        );
        assert!(error.contains(&compacted) && error.contains("`cleanup.policy`"), "{error}");
    }
    assert_eq!(outputs(&flow, &compacted).len(), 90);
    assert!(!keylane.lines().iter().any(batch_rejected), "a broker rejected a batch{}", keylane.tail());
}

/// `stop` is the strictest outcome: no event behind the failed one may have an effect.
#[test]
fn no_output_behind_an_unpublishable_one_is_sent() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let small = kafka::unique("small");
    cluster.admin().create_topic(&small, 1, &[("max.message.bytes", "2000")]);
    let value = |number: usize| if number == 70 { "x".repeat(5_000) } else { format!("event {number}") };
    let records = (0..200).map(|number| Record::new("one lane", value(number)));
    flow.producer().send_all(&flow.input, records).expect("acknowledged");
    let settings = echo_into(&flow, &small).set("handlers.t.retry", "on_exhausted", "stop");
    let mut keylane = Keylane::run(&settings, &["--until-end"]);
    keylane.expect_exit(1);
    assert!(keylane.tail().contains("`max.message.bytes` is 2000"), "{}", keylane.tail());
    let origins: Vec<_> =
        outputs(&flow, &small).iter().filter_map(|output| output.number("keylane-origin-offset")).collect();
    assert_eq!(origins, (0..70).collect::<Vec<_>>());
    assert_eq!(flow.committed().first().and_then(|committed| committed.offset), Some(70));
}

/// A limit that is lowered while Keylane runs: brokers reject batches, and only the records that are rejected alone fail
/// their events.
#[test]
fn only_the_rejected_records_of_a_batch_fail_their_events() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let topic = kafka::unique("lowered");
    cluster.admin().create_topic(&topic, 1, &[]);
    let mut keylane = Keylane::run(&echo_into(&flow, &topic), &[]);
    flow.wait_for_members(&["echo"]);
    flow.lower_limit(&topic, 2_000);
    flow.producer().send_all(&flow.input, events()).expect("acknowledged");
    flow.wait_until_committed();
    for dead_letter in dead_letters_of_long_events(&flow) {
        let error = dead_letter.text("keylane-error");
        assert!(error.contains(&topic) && error.contains("MSG_SIZE_TOO_LARGE"), "{error}");
    }
    let outputs = outputs(&flow, &topic);
    assert_eq!(outputs.len(), 196, "each of the others once");
    keylane.terminate();
    keylane.expect_exit(0);
    assert!(keylane.lines().iter().any(batch_rejected), "no batch was rejected{}", keylane.tail());
}

/// Batches behind a rejected one are stored before its records are sent again. Keylane counts the
/// order breaks.
#[test]
fn order_breaks_after_a_rejection_are_counted() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let topic = kafka::unique("lowered");
    cluster.admin().create_topic(&topic, 1, &[]);
    // Each event has 42 outputs, and the second one is too large: the batches behind it are already with the client when
    // its own is rejected.
    let settings = flow
        .settings(&guest("failing"), "t")
        .output(&topic)
        .set("kafka.producer", "batch.num.messages", 3)
        .set("kafka.producer", "linger.ms", 50);
    let mut keylane = Keylane::run(&settings, &[]);
    flow.wait_for_members(&["t"]);
    flow.lower_limit(&topic, 2_000);
    // The client may also have sent the large output alone: repeat until another one shares its batch.
    let mut sent = 0;
    wait::until("outputs out of order", wait::STATE_TIMEOUT, || {
        flow.producer().send_all(&flow.input, [Record::new("k", "burst")]).expect("acknowledged");
        flow.wait_until_committed();
        sent += 1;
        out_of_order(&outputs(&flow, &topic)) > 0
    });
    keylane.terminate();
    keylane.expect_exit(0);
    let outputs = outputs(&flow, &topic);
    assert_eq!(outputs.len(), sent * 41, "each of the others once");
    let lost = out_of_order(&outputs);
    let counted = keylane.lines().iter().find_map(|line| line["order_breaks"].as_u64());
    assert_eq!(counted, Some(lost), "{}", keylane.tail());
}

/// As in stream processors, the output of a minute-old event has a minute-old timestamp.
#[test]
fn outputs_carry_the_time_of_their_events_unless_now_is_configured() {
    let Some(cluster) = kafka::shared() else { return };
    let started = wait::unix_ms();
    for now in [false, true] {
        let flow = Flow::new(cluster, 1, &[]);
        let time = |number: i64| started - 60_000 + number;
        let records = (0..100).map(|number| Record::new("k", format!("event {number}")).at(time(number)));
        flow.producer().send_all(&flow.input, records).expect("acknowledged");
        let mut settings = echo_into(&flow, &flow.output);
        if now {
            settings = settings.set("handlers.t.outputs.out", "timestamp", "now");
        }
        let mut keylane = Keylane::run(&settings, &["--until-end"]);
        keylane.expect_exit(0);
        let times: Vec<i64> = outputs(&flow, &flow.output).iter().map(|output| output.timestamp).collect();
        assert_eq!(times.len(), 100);
        if now {
            assert!(times.iter().all(|&time| time >= started), "{times:?}");
        } else {
            assert_eq!(times, (0..100).map(time).collect::<Vec<_>>());
        }
    }
}

/// A topic that rejects even the time of sending is blocked. Its outputs wait until it accepts
/// them.
#[test]
fn a_topic_that_rejects_the_time_of_sending_is_blocked_until_it_accepts_it() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let strict = kafka::unique("strict");
    // A record that takes a millisecond to arrive is too old.
    cluster.admin().create_topic(&strict, 1, &[("message.timestamp.before.max.ms", "0")]);
    let settings = echo_into(&flow, &strict).set("handlers.t.outputs.out", "timestamp", "now");
    let mut keylane = Keylane::run(&settings, &[]);
    flow.producer().send_all(&flow.input, (0..10).map(|_| Record::new("k", "v"))).expect("acknowledged");
    let blocked = |line: &Value| line["message"].as_str().is_some_and(|m| m.starts_with("topic blocked"));
    keylane.wait_for("the blocked topic", blocked);
    cluster.admin().set_topic_config(&strict, "message.timestamp.before.max.ms", &i64::MAX.to_string());
    flow.wait_until_committed();
    assert_eq!(outputs(&flow, &strict).len(), 10);
    assert!(kafka::read_all(&cluster.bootstrap(), &flow.dead_letters).is_empty());
    keylane.terminate();
    keylane.expect_exit(0);
}

/// The broker may delete such an output immediately, so a warning must explain it.
#[test]
fn an_output_older_than_its_topics_retention_is_reported_once() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let brief = kafka::unique("brief");
    cluster.admin().create_topic(&brief, 1, &[("retention.ms", "60000")]);
    let hour_ago = wait::unix_ms() - 3_600_000;
    let records = (0..100).map(|number| Record::new("k", format!("event {number}")).at(hour_ago));
    flow.producer().send_all(&flow.input, records).expect("acknowledged");
    let mut keylane = Keylane::run(&echo_into(&flow, &brief), &["--until-end"]);
    keylane.expect_exit(0);
    assert_eq!(flow.lag(), 0);
    let lines = keylane.lines();
    let is_warning =
        |line: &&Value| line["message"].as_str().is_some_and(|m| m.contains("the topic's retention"));
    let warnings: Vec<&Value> = lines.iter().filter(is_warning).collect();
    let [warning] = warnings.as_slice() else { panic!("not one warning: {warnings:?}") };
    assert_eq!((&warning["topic"], &warning["level"]), (&Value::from(brief), &Value::from("WARN")));
    assert!(warning["remedy"].as_str().is_some_and(|remedy| remedy.contains("`timestamp = \"now\"`")));
}

/// Ten of a hundred events are older than the topic accepts. No event fails because of the time of
/// its output, whether the limit is known at the start or the brokers reject the batches.
#[test]
fn a_timestamp_that_a_topic_rejects_fails_no_event() {
    let Some(cluster) = kafka::shared() else { return };
    for known in [true, false] {
        let flow = Flow::new(cluster, 1, &[]);
        let topic = kafka::unique("strict");
        let (limit, hour) = ("message.timestamp.before.max.ms", "3600000");
        let configs = [(limit, hour)];
        cluster.admin().create_topic(&topic, 1, configs.get(..usize::from(known)).unwrap_or_default());
        let started = wait::unix_ms();
        let event = |number: i64| {
            let record = Record::new(format!("key-{}", number % 7), format!("event {number}"));
            record.at(if number % 10 == 3 { started - 7_200_000 } else { started })
        };
        let mut keylane = Keylane::run(&echo_into(&flow, &topic), &[]);
        flow.wait_for_members(&["echo"]);
        if !known {
            cluster.admin().set_topic_config(&topic, limit, hour);
            let old = || Record::new("probe", "old").at(started - 7_200_000);
            let producer = flow.producer();
            wait::until("the limit to be in force", wait::STATE_TIMEOUT, || {
                producer.send_all(&topic, [old()]).is_err()
            });
        }
        flow.producer().send_all(&flow.input, (0..100).map(event)).expect("acknowledged");
        flow.wait_until_committed();
        keylane.terminate();
        keylane.expect_exit(0);
        let outputs = outputs(&flow, &topic);
        assert_eq!(outputs.len(), 100, "each once{}", keylane.tail());
        assert!(kafka::read_all(&cluster.bootstrap(), &flow.dead_letters).is_empty(), "no event must fail");
        let restamped = outputs.iter().filter(|output| output.timestamp > started).count();
        assert_eq!(restamped, 10);
        let own = outputs.iter().filter(|output| output.timestamp == started).count();
        assert_eq!(own, 90, "the others carry the time of their events");
        let counted = keylane.lines().iter().find_map(|line| line["restamped"].as_u64());
        assert_eq!(counted, Some(10), "{}", keylane.tail());
        assert_eq!(keylane.lines().iter().any(batch_rejected), !known, "{}", keylane.tail());
    }
}

/// A user with WRITE but without DESCRIBE_CONFIGS: one warning, and the brokers enforce the limits.
#[test]
fn limits_that_can_not_be_read_are_left_to_the_brokers() {
    let Some(cluster) = kafka::dedicated(&restricted_user::options()) else { return };
    let flow = Flow::new(&cluster, 1, &[]);
    let guarded = kafka::unique("guarded");
    cluster.admin().create_topic(&guarded, 1, &[("max.message.bytes", "2000")]);
    restricted_user::change_acl(
        &cluster,
        &["--add", "--allow-principal", "User:alice"],
        &["Write", "Describe"],
        &guarded,
    );
    flow.producer().send_all(&flow.input, events()).expect("acknowledged");
    let mut keylane =
        Keylane::run(&restricted_user::settings(&cluster, echo_into(&flow, &guarded)), &["--until-end"]);
    keylane.expect_exit(0);
    let lines = keylane.lines();
    let warnings: Vec<&Value> =
        lines.iter().filter(|line| line.to_string().contains("DESCRIBE_CONFIGS")).collect();
    let [warning] = warnings.as_slice() else { panic!("not one warning: {warnings:?}") };
    assert_eq!(
        (&warning["topics"], &warning["level"]),
        (&Value::from(guarded.as_str()), &Value::from("WARN"))
    );
    for dead_letter in dead_letters_of_long_events(&flow) {
        assert!(dead_letter.text("keylane-error").contains("MSG_SIZE_TOO_LARGE"));
    }
    assert_eq!(outputs(&flow, &guarded).len(), 196, "each of the others once");
}

/// Outputs that wait for a blocked topic are dropped when their partition is released, because
/// another instance owns the events.
#[test]
fn outputs_of_a_released_partition_are_not_stored_later() {
    let Some(cluster) = kafka::dedicated(&restricted_user::options()) else { return };
    let flow = Flow::new(&cluster, 2, &[]);
    let mut barred =
        Keylane::run(&restricted_user::settings(&cluster, flow.settings(&guest("echo"), "barred")), &[]);
    flow.wait_for_members(&["barred"]);
    restricted_user::change_acl(
        &cluster,
        &["--add", "--deny-principal", "User:alice"],
        &["Write"],
        &flow.output,
    );
    let event = |number| Record::new(format!("key-{number}"), format!("event {number}"));
    flow.producer().send_all(&flow.input, (0..200).map(event)).expect("acknowledged");
    barred.wait_for("the topic to be reported as blocked", |line| {
        line["message"].as_str().is_some_and(|m| m.starts_with("topic blocked"))
    });

    let mut other = Keylane::run(&flow.settings(&guest("echo"), "other"), &[]);
    flow.wait_for_members(&["barred", "other"]);
    let done = |flow: &Flow<'_>| flow.committed().iter().any(|committed| committed.offset.unwrap_or(0) > 50);
    wait::until("one partition to be done by the other instance", wait::STATE_TIMEOUT, || done(&flow));
    restricted_user::change_acl(
        &cluster,
        &["--remove", "--force", "--deny-principal", "User:alice"],
        &["Write"],
        &flow.output,
    );
    flow.wait_until_committed();
    for keylane in [&mut barred, &mut other] {
        keylane.terminate();
        keylane.expect_exit(0);
    }
    let report = check::check(&flow.history());
    report.assert_clean();
    assert_eq!(report.repeats, [].into(), "dropped outputs were stored, too: {report}");
}

fn echo_into(flow: &Flow<'_>, topic: &str) -> Settings {
    flow.settings(&guest("echo"), "echo").output(topic)
}

/// 200 events of ten keys. Four of them are too long, and several of the others together also
/// exceed a batch of 2,000 bytes.
fn events() -> Vec<Record> {
    let value = |number: usize| "x".repeat(if number % 50 == 7 { 5_000 } else { 300 });
    (0..200).map(|number| Record::new(format!("key-{}", number % 10), value(number))).collect()
}

fn dead_letters_of_long_events(flow: &Flow<'_>) -> Vec<Received> {
    let dead_letters = kafka::read_all(&flow.cluster.bootstrap(), &flow.dead_letters);
    let mut offsets: Vec<_> =
        dead_letters.iter().filter_map(|dead_letter| dead_letter.number("keylane-origin-offset")).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, [7, 57, 107, 157]);
    assert!(dead_letters.iter().all(|dead_letter| dead_letter.text("keylane-reason") == "output-rejected"));
    dead_letters
}

/// The outputs without the probes.
fn outputs(flow: &Flow<'_>, topic: &str) -> Vec<Received> {
    let mut outputs = kafka::read_all(&flow.cluster.bootstrap(), topic);
    outputs.retain(|output| output.key.as_deref() != Some(b"probe"));
    outputs
}

/// The number of outputs of a partition that are behind the output of a later event of their key.
fn out_of_order(outputs: &[Received]) -> u64 {
    let mut latest: BTreeMap<&[u8], (i64, i64)> = BTreeMap::new();
    let mut breaks = 0;
    for output in outputs {
        let key = output.key.as_deref().expect("every event has a key");
        let number = |name| output.number(name).expect("outputs name their origin");
        let (origin, index) = (number("keylane-origin-offset"), number("keylane-output-index"));
        let latest = latest.entry(key).or_insert((origin, index));
        breaks += u64::from((origin, index) < *latest);
        *latest = (origin, index).max(*latest);
    }
    breaks
}

fn batch_rejected(line: &Value) -> bool {
    line["message"].as_str().is_some_and(|message| message.starts_with("batch rejected"))
}
