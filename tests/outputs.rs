//! Promise: an output that can't be stored ends its own event and no other. What is known of a topic is looked at before
//! anything is sent; what is not known, or has changed, is found by the brokers, and their refusals are taken apart.

use std::collections::BTreeMap;

use keylane_tests::alice;
use keylane_tests::check;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Received, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::skip;
use keylane_tests::wait;
use serde_json::Value;

/// Batches are as small as the smallest topic wants them, and what is too large by itself never leaves.
#[test]
fn an_output_too_large_for_its_topic_ends_only_its_event() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let small = kafka::unique("small");
    cluster.admin().create_topic(&small, 1, &[("max.message.bytes", "2000")]);
    // Records that are handed over together would be one batch; the other topic takes far more.
    let settings = into(&flow, &small).set("kafka.producer", "linger.ms", 50).set(
        "handlers.t.outputs.other",
        "topic",
        flow.output.as_str(),
    );
    flow.producer().send_all(&flow.input, events()).expect("acknowledged");
    let mut keylane = Keylane::run(&settings, &["--until-end"]);
    keylane.expect_exit(0);
    for letter in letters_of_long_ones(&flow) {
        let error = letter.text("keylane-error");
        assert!(error.contains(&small) && error.contains("`max.message.bytes` is 2000"), "{error}");
        assert_eq!(letter.header("keylane-published"), None);
    }
    let outputs = outputs(&flow, &small);
    assert_eq!(outputs.len(), 196, "each of the others once");
    assert_eq!(out_of_order(&outputs), 0);
    assert!(!keylane.lines().iter().any(batch_refused), "a broker had to refuse{}", keylane.tail());
}

/// A topic that takes large records gets them without a setting; a handler may be given less.
#[test]
fn large_outputs_go_where_their_topic_takes_them() {
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
        let letters = kafka::read_all(&cluster.bootstrap(), &flow.letters);
        assert_eq!(letters.len(), usize::from(setting.is_some()), "{setting:?}");
        for letter in letters {
            let (reason, error) = (letter.text("keylane-reason"), letter.text("keylane-error"));
            assert_eq!((reason, letter.number("keylane-attempt")), ("output-refused", Some(1)));
            assert!(error.contains("3145728 bytes, and 2097152 are allowed"), "{error}");
        }
    }
}

/// Brokers are slower than a handler that makes much of little: no more calls begin while much of it waits.
#[test]
fn outputs_that_wait_for_the_brokers_take_no_more_than_their_share() {
    const EVENTS: usize = 6_000;
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 4, &[]);
    let event = |number| Record::new(format!("key-{number}"), "fan");
    flow.producer().send_all(&flow.input, (0..EVENTS).map(event)).expect("acknowledged");
    let settings = flow.settings(&guest("failing"), "t").set("runtime", "memory_budget", "64MiB");
    let mut keylane = Keylane::run(&settings, &[]);
    flow.wait_until_committed();
    let peak = keylane.peak_bytes().expect("it runs") >> 20;
    keylane.terminate();
    keylane.expect_exit(0);
    skip::say(&format!("600 MiB of outputs, at most {peak} MiB of memory"));
    assert!(peak < 350, "{peak} MiB");
}

/// Compacted topics take no record without a key.
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
    let mut keylane = Keylane::run(&into(&flow, &compacted), &["--until-end"]);
    keylane.expect_exit(0);
    let letters = kafka::read_all(&cluster.bootstrap(), &flow.letters);
    assert_eq!(letters.len(), 10);
    for letter in &letters {
        let (error, offset) = (letter.text("keylane-error"), letter.number("keylane-origin-offset"));
        assert_eq!(
            (offset.map(|offset| offset % 10), letter.text("keylane-reason")),
            (Some(3), "output-refused")
        );
        assert!(error.contains(&compacted) && error.contains("`cleanup.policy`"), "{error}");
    }
    assert_eq!(outputs(&flow, &compacted).len(), 90);
    assert!(!keylane.lines().iter().any(batch_refused), "a broker had to refuse{}", keylane.tail());
}

/// `stop` is the strictest ending: nothing behind the event that can't be passed may have an effect.
#[test]
fn nothing_behind_such_an_output_is_sent_before_it() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let small = kafka::unique("small");
    cluster.admin().create_topic(&small, 1, &[("max.message.bytes", "2000")]);
    let value = |number: usize| if number == 70 { "x".repeat(5_000) } else { format!("event {number}") };
    let records = (0..200).map(|number| Record::new("one lane", value(number)));
    flow.producer().send_all(&flow.input, records).expect("acknowledged");
    let settings = into(&flow, &small).set("handlers.t.retry", "on_exhausted", "stop");
    let mut keylane = Keylane::run(&settings, &["--until-end"]);
    keylane.expect_exit(1);
    assert!(keylane.tail().contains("`max.message.bytes` is 2000"), "{}", keylane.tail());
    let origins: Vec<_> =
        outputs(&flow, &small).iter().filter_map(|output| output.number("keylane-origin-offset")).collect();
    assert_eq!(origins, (0..70).collect::<Vec<_>>());
    assert_eq!(flow.committed().first().and_then(|committed| committed.offset), Some(70));
}

/// A limit that was lowered while Keylane runs: brokers refuse batches, and only the records that are refused alone end
/// their events.
#[test]
fn a_refused_batch_is_taken_apart() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let topic = kafka::unique("lowered");
    cluster.admin().create_topic(&topic, 1, &[]);
    let mut keylane = Keylane::run(&into(&flow, &topic), &[]);
    flow.wait_for_members(&["echo"]);
    flow.lower_limit(&topic, 2_000);
    flow.producer().send_all(&flow.input, events()).expect("acknowledged");
    flow.wait_until_committed();
    for letter in letters_of_long_ones(&flow) {
        let error = letter.text("keylane-error");
        assert!(error.contains(&topic) && error.contains("MSG_SIZE_TOO_LARGE"), "{error}");
    }
    let outputs = outputs(&flow, &topic);
    assert_eq!(outputs.len(), 196, "each of the others once");
    keylane.terminate();
    keylane.expect_exit(0);
    assert!(keylane.lines().iter().any(batch_refused), "no batch was refused{}", keylane.tail());
}

/// Batches behind a refused one land before its records are sent again: Keylane says how many outputs lost their place.
#[test]
fn what_lost_its_place_is_counted() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let topic = kafka::unique("lowered");
    cluster.admin().create_topic(&topic, 1, &[]);
    // Small batches, of one lane: some are on their way when one before them is refused.
    let settings =
        into(&flow, &topic).set("handlers.t", "max_batch", 64).set("kafka.producer", "batch.num.messages", 3);
    let mut keylane = Keylane::run(&settings, &[]);
    flow.wait_for_members(&["echo"]);
    flow.lower_limit(&topic, 2_000);
    let value = |number: usize| "x".repeat(if number % 20 == 7 { 5_000 } else { 10 });
    // Whether something is on its way behind a refused batch is the client's matter: go on until it was.
    let mut sent = 0;
    wait::until("outputs to lose their place", wait::PATIENCE, || {
        let records = (0..400).map(|number| Record::new("one lane", value(number)));
        flow.producer().send_all(&flow.input, records).expect("acknowledged");
        flow.wait_until_committed();
        sent += 400;
        out_of_order(&outputs(&flow, &topic)) > 0
    });
    keylane.terminate();
    keylane.expect_exit(0);
    let outputs = outputs(&flow, &topic);
    assert_eq!(outputs.len(), sent / 20 * 19, "each of the others once");
    let lost = out_of_order(&outputs);
    let counted = keylane.lines().iter().find_map(|line| line["order_breaks"].as_u64());
    assert_eq!(counted, Some(lost), "{}", keylane.tail());
}

/// As stream processors do; an event of a minute ago stays one of a minute ago.
#[test]
fn outputs_carry_the_time_of_their_events_unless_now_is_wanted() {
    let Some(cluster) = kafka::shared() else { return };
    let started = wait::unix_ms();
    for now in [false, true] {
        let flow = Flow::new(cluster, 1, &[]);
        let time = |number: i64| started - 60_000 + number;
        let records = (0..100).map(|number| Record::new("k", format!("event {number}")).at(time(number)));
        flow.producer().send_all(&flow.input, records).expect("acknowledged");
        let mut settings = into(&flow, &flow.output);
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

/// The broker may delete such an output at once: somebody should know before they look for it.
#[test]
fn an_output_older_than_its_topic_keeps_is_warned_about_once() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let brief = kafka::unique("brief");
    cluster.admin().create_topic(&brief, 1, &[("retention.ms", "60000")]);
    let hour_ago = wait::unix_ms() - 3_600_000;
    let records = (0..100).map(|number| Record::new("k", format!("event {number}")).at(hour_ago));
    flow.producer().send_all(&flow.input, records).expect("acknowledged");
    let mut keylane = Keylane::run(&into(&flow, &brief), &["--until-end"]);
    keylane.expect_exit(0);
    assert_eq!(flow.lag(), 0);
    let lines = keylane.lines();
    let is_warning =
        |line: &&Value| line["message"].as_str().is_some_and(|m| m.contains("older than its topic"));
    let warnings: Vec<&Value> = lines.iter().filter(is_warning).collect();
    let [warning] = warnings.as_slice() else { panic!("not one warning: {warnings:?}") };
    assert_eq!((&warning["topic"], &warning["level"]), (&Value::from(brief), &Value::from("WARN")));
    assert!(warning["remedy"].as_str().is_some_and(|remedy| remedy.contains("`timestamp = \"now\"`")));
}

/// Ten of a hundred events are older than what the topic takes: no event ends by the time of its output. The limit is
/// known at the start, or the brokers refuse the batches.
#[test]
fn a_time_that_a_topic_refuses_ends_no_event() {
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
        let mut keylane = Keylane::run(&into(&flow, &topic), &[]);
        flow.wait_for_members(&["echo"]);
        if !known {
            cluster.admin().set_topic_config(&topic, limit, hour);
            let old = || Record::new("probe", "old").at(started - 7_200_000);
            let producer = flow.producer();
            wait::until("the limit to be in force", wait::PATIENCE, || {
                producer.send_all(&topic, [old()]).is_err()
            });
        }
        flow.producer().send_all(&flow.input, (0..100).map(event)).expect("acknowledged");
        flow.wait_until_committed();
        keylane.terminate();
        keylane.expect_exit(0);
        let outputs = outputs(&flow, &topic);
        assert_eq!(outputs.len(), 100, "each once{}", keylane.tail());
        assert!(kafka::read_all(&cluster.bootstrap(), &flow.letters).is_empty(), "no event is at fault");
        let restamped = outputs.iter().filter(|output| output.timestamp > started).count();
        assert_eq!(restamped, 10);
        let own = outputs.iter().filter(|output| output.timestamp == started).count();
        assert_eq!(own, 90, "the others carry the time of their events");
        let counted = keylane.lines().iter().find_map(|line| line["restamped"].as_u64());
        assert_eq!(counted, Some(10), "{}", keylane.tail());
        assert_eq!(keylane.lines().iter().any(batch_refused), !known, "{}", keylane.tail());
    }
}

/// A user who may write, but not look at the topic's configuration: one warning, and the brokers decide.
#[test]
fn what_the_brokers_do_not_tell_is_left_to_them() {
    let Some(cluster) = kafka::own(&alice::options()) else { return };
    let flow = Flow::new(&cluster, 1, &[]);
    let guarded = kafka::unique("guarded");
    cluster.admin().create_topic(&guarded, 1, &[("max.message.bytes", "2000")]);
    alice::rights(&cluster, &["--add", "--allow-principal", "User:alice"], &["Write", "Describe"], &guarded);
    flow.producer().send_all(&flow.input, events()).expect("acknowledged");
    let mut keylane = Keylane::run(&alice::settings(&cluster, into(&flow, &guarded)), &["--until-end"]);
    keylane.expect_exit(0);
    let lines = keylane.lines();
    let warnings: Vec<&Value> =
        lines.iter().filter(|line| line.to_string().contains("DESCRIBE_CONFIGS")).collect();
    let [warning] = warnings.as_slice() else { panic!("not one warning: {warnings:?}") };
    assert_eq!(
        (&warning["topics"], &warning["level"]),
        (&Value::from(guarded.as_str()), &Value::from("WARN"))
    );
    for letter in letters_of_long_ones(&flow) {
        assert!(letter.text("keylane-error").contains("MSG_SIZE_TOO_LARGE"));
    }
    assert_eq!(outputs(&flow, &guarded).len(), 196, "each of the others once");
}

/// What waited for a topic that could not be written is dropped with its partition: another instance has the events.
#[test]
fn outputs_of_a_partition_that_was_given_up_do_not_land_later() {
    let Some(cluster) = kafka::own(&alice::options()) else { return };
    let flow = Flow::new(&cluster, 2, &[]);
    let mut barred = Keylane::run(&alice::settings(&cluster, flow.settings(&guest("echo"), "barred")), &[]);
    flow.wait_for_members(&["barred"]);
    alice::rights(&cluster, &["--add", "--deny-principal", "User:alice"], &["Write"], &flow.output);
    let event = |number| Record::new(format!("key-{number}"), format!("event {number}"));
    flow.producer().send_all(&flow.input, (0..200).map(event)).expect("acknowledged");
    barred.wait_for("the alarm", |line| line["message"].as_str().is_some_and(|m| m.contains("is blocked")));

    let mut other = Keylane::run(&flow.settings(&guest("echo"), "other"), &[]);
    flow.wait_for_members(&["barred", "other"]);
    let done = |flow: &Flow<'_>| flow.committed().iter().any(|committed| committed.offset.unwrap_or(0) > 50);
    wait::until("one partition to be done by the other instance", wait::PATIENCE, || done(&flow));
    alice::rights(
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
    assert_eq!(report.repeats, [].into(), "what was given up landed, too: {report}");
}

fn into(flow: &Flow<'_>, topic: &str) -> Settings {
    flow.settings(&guest("echo"), "echo").output(topic)
}

/// 200 events of ten keys; four of them are long. Several of the others together are too much for a batch of 2,000
/// bytes, too.
fn events() -> Vec<Record> {
    let value = |number: usize| "x".repeat(if number % 50 == 7 { 5_000 } else { 300 });
    (0..200).map(|number| Record::new(format!("key-{}", number % 10), value(number))).collect()
}

fn letters_of_long_ones(flow: &Flow<'_>) -> Vec<Received> {
    let letters = kafka::read_all(&flow.cluster.bootstrap(), &flow.letters);
    let mut offsets: Vec<_> =
        letters.iter().filter_map(|letter| letter.number("keylane-origin-offset")).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, [7, 57, 107, 157]);
    assert!(letters.iter().all(|letter| letter.text("keylane-reason") == "output-refused"));
    letters
}

/// Those of Keylane.
fn outputs(flow: &Flow<'_>, topic: &str) -> Vec<Received> {
    let mut outputs = kafka::read_all(&flow.cluster.bootstrap(), topic);
    outputs.retain(|output| output.key.as_deref() != Some(b"probe"));
    outputs
}

/// How many of them, of one partition, lie behind one of their key that comes from a later event.
fn out_of_order(outputs: &[Received]) -> u64 {
    let mut latest: BTreeMap<&[u8], i64> = BTreeMap::new();
    let mut breaks = 0;
    for output in outputs {
        let key = output.key.as_deref().expect("every event has a key");
        let origin = output.number("keylane-origin-offset").expect("outputs say where they come from");
        let latest = latest.entry(key).or_insert(origin);
        breaks += u64::from(origin < *latest);
        *latest = origin.max(*latest);
    }
    breaks
}

fn batch_refused(line: &Value) -> bool {
    line["message"].as_str().is_some_and(|message| message.starts_with("a batch of outputs is refused"))
}
