//! Promise: the events of an entity that are in several topics, with any numbers of partitions, are handled in the order of
//! their times: one handler brings them into one topic in step, and a gate restores their order. A kill changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use keylane_tests::guests::{example, guest};
use keylane_tests::kafka::{self, Cluster, Follower, Group, Producer, Received, Record, unique};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::skip::print_line;
use keylane_tests::wait;

/// Partitions of the topics of the three types.
const PARTITIONS: [i32; 3] = [4, 4, 6];
const CUSTOMERS: i64 = 12;
const SECOND: i64 = 1_000;
/// Events of each topic in five seconds. Stream time follows the records of a partition after 32 of them.
const PER_ROUND: i64 = 120;

/// The topics of one test.
struct Topics<'c> {
    cluster: &'c Cluster,
    types: [String; 3],
    merged: String,
    output: String,
    groups: [String; 2],
}

impl<'c> Topics<'c> {
    fn new(cluster: &'c Cluster) -> Self {
        let admin = cluster.admin();
        let create = |partitions: i32| {
            let topic = unique("in");
            admin.create_topic(&topic, partitions, &[]);
            admin.create_topic(&format!("{topic}.dlq"), 1, &[]);
            topic
        };
        let types = PARTITIONS.map(create);
        let (merged, output) = (create(4), create(4));
        Topics { cluster, types, merged, output, groups: [unique("rekey"), unique("customers")] }
    }

    /// Three topics into one.
    fn rekey(&self, instance: &str) -> Settings {
        let types: Vec<&str> = self.types.iter().map(String::as_str).collect();
        Settings::new(&self.cluster.bootstrap())
            .handler(&example("rekey"), &self.types[0], &self.groups[0])
            .set("handlers.t", "topics", types)
            .set("handlers.t", "delivery", "transactional")
            .set("handlers.t.lanes", "ordering", "partition")
            .set("handlers.t.outputs.events", "topic", self.merged.as_str())
            .set("runtime", "instance", instance)
    }

    /// Handles everything that is in the merged topic, in the order of the times.
    fn handle(&self, window: &str, max_queued: u32) {
        let settings = Settings::new(&self.cluster.bootstrap())
            .handler(&guest("echo"), &self.merged, &self.groups[1])
            .output(&self.output)
            .set("handlers.t.gate", "rule", "window")
            .set("handlers.t.gate", "by", "header:event-time")
            .set("handlers.t.gate", "format", "unix_ms")
            .set("handlers.t.gate", "window", window)
            .set("handlers.t.lanes", "max_queued", max_queued)
            .set("handlers.t.gate", "late", "dlq");
        Keylane::run(&settings, &["--until-end"]).expect_exit(0);
    }

    fn send(&self, events: &[Event]) {
        let producer = Producer::new(&self.cluster.bootstrap());
        for (kind, topic) in (0..).zip(&self.types) {
            let of_topic = events.iter().filter(|event| event.kind == kind).map(Event::record);
            producer.enqueue(topic, of_topic).expect("the queue has room");
        }
        producer.flush().expect("acknowledged");
    }

    /// Asserts that each event was brought into one topic once, and was handled once, in the order of the times of its
    /// customer. Returns how many events were behind a later one of their customer before.
    fn assert_in_order(&self, events: usize) -> usize {
        let read = |topic: &str| kafka::read_committed(&self.cluster.bootstrap(), topic);
        let (merged, outputs, late) =
            (read(&self.merged), read(&self.output), read(&format!("{}.dlq", self.merged)));
        for topic in [&merged, &outputs] {
            let ids: BTreeSet<&[u8]> = topic.iter().filter_map(|record| record.value.as_deref()).collect();
            assert_eq!((topic.len(), ids.len()), (events, events), "{} late events", late.len());
        }
        assert!(late.is_empty(), "{late:?}");
        assert_eq!(displaced(&outputs), 0, "behind a later event of the same customer");
        displaced(&merged)
    }
}

#[derive(Clone, Copy, Debug)]
struct Event {
    kind: i64,
    number: i64,
    time: i64,
}

impl Event {
    /// The record has a key of its own: the events of a customer are in all partitions.
    fn record(&self) -> Record {
        let Event { kind, number, time } = self;
        let customer = number % CUSTOMERS;
        let value = format!(r#"{{"customer":"customer-{customer}","type":{kind},"number":{number}}}"#);
        Record::new(format!("{kind}-{number}"), value).at(*time)
    }
}

/// The number of records that come after one of their customer with a later time.
fn displaced(records: &[Received]) -> usize {
    let mut greatest: BTreeMap<&[u8], i64> = BTreeMap::new();
    let mut count = 0;
    for record in records {
        let time = record.number("event-time").expect("the time of the event");
        let last = greatest.entry(record.key.as_deref().expect("the customer")).or_insert(time);
        count += usize::from(time < *last);
        *last = time.max(*last);
    }
    count
}

fn wait_for_lag_0(topics: &Topics<'_>) {
    let group = Group::new(&topics.cluster.bootstrap(), &topics.groups[0]);
    wait::until_ok("everything to be committed", wait::STATE_TIMEOUT, || {
        let committed = |(topic, partitions): (&String, i32)| {
            let ends = topics.cluster.admin().watermarks(topic);
            let offsets = group.committed(topic, partitions);
            ends.iter().zip(&offsets).all(|(end, at)| at.offset == Some(end.high))
        };
        let all = topics.types.iter().zip(PARTITIONS).all(committed);
        if all { Ok(()) } else { Err("the lag is above 0") }
    });
}

/// The number of events in all three topics.
fn all(of_each: i64) -> usize {
    usize::try_from(3 * of_each).expect("it is not negative")
}

/// The producer of one topic is 10 s behind those of the others.
#[test]
fn a_topic_that_lags_is_merged_by_the_window() {
    let Some(cluster) = kafka::shared() else { return };
    let topics = Topics::new(cluster);
    let mut rekey = Keylane::run(&topics.rekey("lagging"), &[]);
    let mut merged = Follower::of_committed(&cluster.bootstrap(), &topics.merged);
    let (mut sent, mut arrived) = (0, 0_usize);
    let begin = wait::unix_ms() - 3_600 * SECOND;
    for round in 0..12 {
        if round == 6 {
            rekey.kill();
            rekey = Keylane::run(&topics.rekey("lagging"), &[]);
        }
        let at = |kind: i64| begin + 5 * SECOND * round - if kind == 2 { 10 * SECOND } else { 0 };
        let events: Vec<Event> = (0..3)
            .flat_map(|kind| (0..PER_ROUND).map(move |step| (kind, step)))
            .map(|(kind, step)| Event { kind, number: sent + step, time: at(kind) + 40 * step + kind })
            .collect();
        topics.send(&events);
        sent += PER_ROUND;
        wait::until("the events to be in one topic", wait::STATE_TIMEOUT, || {
            arrived += merged.take().len();
            arrived >= all(sent)
        });
    }
    wait_for_lag_0(&topics);
    rekey.terminate();
    rekey.expect_exit(0);
    topics.handle("30s", 100_000);
    let before = topics.assert_in_order(all(sent));
    print_line(&format!("{before} of {} events were behind a later one", all(sent)));
    assert!(before > all(sent) / 2, "the gate had nothing to do");
}

/// Three topics with 1 : 10 : 100 events of the same time, from their beginning.
#[test]
fn topics_of_any_size_are_loaded_in_step() {
    let Some(cluster) = kafka::shared() else { return };
    let topics = Topics::new(cluster);
    let span = 10_000 * SECOND;
    let begin = wait::unix_ms() - 2 * span;
    let events: Vec<Event> = [(0, 100), (1, 1_000), (2, 10_000)]
        .into_iter()
        .flat_map(|(kind, count)| (0..count).map(move |number| (kind, number, count)))
        .map(|(kind, number, count)| {
            let distance = span / count;
            let jitter = (number * 7_919 % 997) * distance / 1_000;
            // In each topic in order, and no two at the same time.
            let time = (begin + number * distance + jitter) / 4 * 4 + kind;
            Event { kind, number, time }
        })
        .collect();
    topics.send(&events);
    let settings = topics
        .rekey("loading")
        .set("handlers.t", "read_in_step", "60s")
        // Many small transactions, so that the kill is between two of them.
        .set("handlers.t", "max_batch", 1)
        .set("handlers.t.transactions", "interval", "10ms")
        .set("handlers.t.transactions", "max_bytes", "64KiB");
    let mut rekey = Keylane::run(&settings, &[]);
    let mut merged = Follower::of_committed(&cluster.bootstrap(), &topics.merged);
    let mut arrived = 0;
    wait::until("some events to be in one topic", wait::STATE_TIMEOUT, || {
        arrived += merged.take().len();
        arrived > 500
    });
    rekey.kill();
    let before = kafka::read_committed(&cluster.bootstrap(), &topics.merged).len();
    Keylane::run(&settings, &["--until-end"]).expect_exit(0);
    // Far fewer events than there are: what is far apart in the log is not read at once.
    topics.handle("3m", 400);
    let displaced = topics.assert_in_order(events.len());
    print_line(&format!(
        "killed after {before} of {} events; {displaced} were behind a later one",
        events.len()
    ));
    assert!(displaced > 0, "the gate had nothing to do");
    assert!(before < events.len(), "it was killed when everything was done");
}
