//! The fixture itself, against real brokers: the assumptions of the other tests are checked here.

use std::collections::BTreeMap;

use keylane_tests::campaign::{event, expected};
use keylane_tests::check::once::{self, Expected, History, Rule};
use keylane_tests::flow::Flow;
use keylane_tests::kafka::{
    self, Cluster, Follower, Group, Options, Producer, Received, Record, Transactions, unique,
};
use keylane_tests::skip::print_line;
use keylane_tests::wait;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use std::time::Duration;

#[test]
fn half_a_million_records_go_in_and_out() {
    const COUNT: usize = 500_000;
    let Some(cluster) = kafka::shared() else { return };
    let topic = unique("bulk");
    cluster.admin().create_topic(&topic, 8, &[]);
    let producer = Producer::new(&cluster.bootstrap());
    let records = (0..COUNT).map(|n| Record::new(format!("key-{}", n % 10_000), format!("value-{n:0>90}")));
    let (sent, producing) = wait::timed(|| producer.send_all(&topic, records));
    sent.expect("every record is acknowledged");
    let (read, consuming) = wait::timed(|| kafka::read_all(&cluster.bootstrap(), &topic));
    print_line(&format!("{COUNT} records: produced in {producing:?}, read in {consuming:?}"));

    assert_eq!(read.len(), COUNT);
    let high: i64 = cluster.admin().watermarks(&topic).iter().map(|watermarks| watermarks.high).sum();
    assert_eq!(usize::try_from(high), Ok(COUNT));
    let mut last: BTreeMap<Vec<u8>, (i32, u64)> = BTreeMap::new();
    for record in read {
        let value = String::from_utf8(record.value.expect("a value")).expect("text");
        let number: u64 = value.trim_start_matches("value-").parse().expect("a number");
        let before = last.insert(record.key.expect("a key"), (record.partition, number));
        assert!(before.is_none_or(|(partition, earlier)| partition == record.partition && earlier < number));
    }
}

#[test]
fn bytes_are_unchanged() {
    let Some(cluster) = kafka::shared() else { return };
    let topic = unique("bytes");
    cluster.admin().create_topic(&topic, 1, &[("max.message.bytes", "4194304")]);
    let mut without_value = Record::new("k", "v");
    without_value.headers = vec![(b"absent".to_vec(), None), (b"empty".to_vec(), Some(Vec::new()))];
    let records = vec![
        Record::new("k", "v").with(b"name-\xff\xfe", b"\x00\xff").with("twice", "1").with("twice", "2"),
        Record { key: None, ..Record::new("", "null key") },
        Record::new("", "empty key"),
        Record::new(vec![b'k'; 1 << 20], "large key"),
        Record { value: None, ..Record::new("tombstone", "") },
        Record::new("empty value", ""),
        Record::new("time", "v").at(1_234_567_890_123),
        without_value,
    ];
    let producer = Producer::new(&cluster.bootstrap());
    producer.send_all(&topic, records.clone()).expect("every record is acknowledged");
    let read = kafka::read_all(&cluster.bootstrap(), &topic);
    let back: Vec<Record> = read.iter().zip(&records).map(|(read, sent)| as_sent(read, sent)).collect();
    assert_eq!(back, records);
    assert_eq!(read[6].timestamp, 1_234_567_890_123);
    assert_eq!(read[0].header("twice"), Some(b"1".as_slice()));
}

/// The record as it was sent, with partition and time only if the sender set them.
fn as_sent(read: &Received, sent: &Record) -> Record {
    Record {
        partition: sent.partition,
        key: read.key.clone(),
        value: read.value.clone(),
        headers: read.headers.clone(),
        timestamp: sent.timestamp.map(|_| read.timestamp),
    }
}

#[test]
fn transactions_leave_markers() {
    let Some(cluster) = kafka::shared() else { return };
    let topic = unique("transactions");
    cluster.admin().create_topic(&topic, 1, &[]);
    let transactions = Transactions::new(&cluster.bootstrap(), &unique("writer")).expect("a coordinator");
    transactions.commit(&topic, (0..3).map(|n| Record::new("k", format!("seen {n}")))).expect("committed");
    transactions.abort(&topic, (0..2).map(|n| Record::new("k", format!("unseen {n}")))).expect("aborted");

    let watermarks = cluster.admin().watermarks(&topic);
    assert_eq!((watermarks[0].low, watermarks[0].high), (0, 7), "5 records and 2 markers");
    let committed = kafka::read_committed(&cluster.bootstrap(), &topic);
    assert_eq!(committed.iter().map(|record| record.offset).collect::<Vec<_>>(), [0, 1, 2]);
    let all = kafka::read_all(&cluster.bootstrap(), &topic);
    assert_eq!(all.iter().map(|record| record.offset).collect::<Vec<_>>(), [0, 1, 2, 4, 5]);
}

/// The wrong histories that the checker must reject are in its own tests.
#[test]
fn the_checker_reads_committed_effects() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let events = (0..400).map(|number| event(number).to(i32::from(number % 2 == 1)));
    flow.producer().send_all(&flow.input, events).expect("acknowledged");
    let read = || once::check(&History::read(&flow, expected));
    assert_eq!(read().count(Rule::Uncommitted), 400);

    let inputs = kafka::read_all(&cluster.bootstrap(), &flow.input);
    let (mut outputs, mut dead_letters) = (Vec::new(), Vec::new());
    for input in &inputs {
        let value = String::from_utf8(input.value.clone().expect("a value")).expect("text");
        let effect = |value: String| Record { key: input.key.clone(), ..Record::new("", value) }.to(0);
        match expected(input) {
            Expected::Outputs(count) => {
                outputs.extend((0..count).map(|index| effect(format!("{index}:{value}"))));
            }
            Expected::DeadLetter => dead_letters.push(effect(value)),
        }
    }
    let effects = outputs.len() + dead_letters.len();
    assert!(!dead_letters.is_empty(), "no event of the test is rejected");
    let writer = Transactions::new(&cluster.bootstrap(), &unique("writer")).expect("a coordinator");
    writer.abort(&flow.output, outputs.clone()).expect("aborted");
    writer.commit(&flow.output, outputs.clone()).expect("committed");
    writer.commit(&flow.dead_letters, dead_letters).expect("committed");
    assert_eq!(read().count(Rule::Uncovered), effects, "effects are visible, and nothing is committed");
    for partition in [0, 1] {
        flow.members.commit(&flow.input, partition, 200, b"");
    }
    read().assert_clean();

    writer.open(&flow.output, outputs.clone()).expect("written");
    assert!(cluster.admin().has_open_transaction(&flow.output));
    read().assert_clean();
    writer.commit_open().expect("committed");
    wait::until("the transaction to be visible", wait::STATE_TIMEOUT, || {
        !cluster.admin().has_open_transaction(&flow.output)
    });
    let report = read();
    assert_eq!((report.count(Rule::Twice), report.violations.len()), (outputs.len(), outputs.len()));
}

#[test]
fn commits_are_set_and_read_as_bytes() {
    let Some(cluster) = kafka::shared() else { return };
    let topic = unique("commits");
    cluster.admin().create_topic(&topic, 2, &[]);
    let group = Group::new(&cluster.bootstrap(), &unique("group"));
    assert_eq!(group.state().members, []);
    assert!(group.committed(&topic, 2).iter().all(|committed| committed.offset.is_none()));

    group.commit(&topic, 1, 42, "somebody else's, äöü".as_bytes());
    let committed = group.committed(&topic, 2);
    assert_eq!((committed[0].offset, committed[1].offset), (None, Some(42)));
    assert_eq!(committed[1].metadata, "somebody else's, äöü".as_bytes());

    group.commit(&topic, 0, 7, b"\xff\xfenot text");
    let committed = group.committed(&topic, 2);
    assert_eq!(committed[0].offset, Some(7));
    assert!(!committed[0].metadata.is_empty());
    print_line(&format!("metadata that is not UTF-8 comes back as {:?}", committed[0].metadata));
}

#[test]
fn members_and_their_partitions_are_listed() {
    let Some(cluster) = kafka::shared() else { return };
    let topic = unique("members");
    let name = unique("group");
    cluster.admin().create_topic(&topic, 4, &[]);
    let consumer: BaseConsumer = kafka::client(&cluster.bootstrap())
        .set("group.id", &name)
        .set("client.id", "member-a")
        .set("session.timeout.ms", "3000")
        .create()
        .expect("the settings are valid");
    consumer.subscribe(&[&topic]).expect("one topic");
    let group = Group::new(&cluster.bootstrap(), &name);
    wait::until("the group to settle", wait::STATE_TIMEOUT, || {
        drop(consumer.poll(Duration::from_millis(10)));
        group.state().is_settled(&["member-a"], 4)
    });
    assert_eq!(group.state().partitions_of("member-a"), [0, 1, 2, 3]);
}

#[test]
fn topics_are_described_and_trimmed() {
    let Some(cluster) = kafka::shared() else { return };
    let topic = unique("trimmed");
    let admin = cluster.admin();
    admin.create_topic(&topic, 1, &[("cleanup.policy", "compact,delete")]);
    assert_eq!(admin.topic_config(&topic, "cleanup.policy").as_deref(), Some("compact,delete"));
    Producer::new(&cluster.bootstrap())
        .send_all(&topic, (0..10).map(|n| Record::new(format!("{n}"), "v")))
        .expect("every record is acknowledged");
    admin.delete_records(&topic, 0, 4);
    let watermarks = admin.watermarks(&topic);
    assert_eq!((watermarks[0].low, watermarks[0].high), (4, 10));

    let listed = cluster
        .run_tool(
            "org.apache.kafka.tools.TopicCommand",
            &["--bootstrap-server", &cluster.bootstrap(), "--list"],
        )
        .expect("Kafka's own tools run");
    assert!(listed.lines().any(|line| line == topic), "{listed}");
    admin.delete_topic(&topic);
    wait::until("the topic to be deleted", wait::STATE_TIMEOUT, || admin.partitions(&topic).is_none());
}

#[test]
fn compaction_makes_gaps() {
    let Some(cluster) = kafka::shared() else { return };
    let topic = unique("compacted");
    cluster.admin().create_topic(&topic, 1, &compacted());
    let producer = Producer::new(&cluster.bootstrap());
    producer
        .send_all(&topic, (0..2_000).map(|n| Record::new(format!("{}", n % 10), "v")))
        .expect("acknowledged");
    wait::until("compaction", wait::STATE_TIMEOUT, || {
        // The active segment is never compacted: a new record has to close it.
        producer.send_all(&topic, [Record::new("roll", "v")]).expect("acknowledged");
        kafka::read_all(&cluster.bootstrap(), &topic).len() < 1_000
    });
}

/// Segments are closed and compacted as soon as Kafka allows.
fn compacted() -> [(&'static str, &'static str); 4] {
    [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.0001"),
        ("max.compaction.lag.ms", "100"),
    ]
}

#[test]
fn a_broker_is_killed_frozen_and_restarted_with_its_data() {
    let Some(cluster) = kafka::dedicated(&Options::default()) else { return };
    let topic = unique("faults");
    cluster.admin().create_topic(&topic, 2, &[]);
    let producer = Producer::new(&cluster.bootstrap());
    let mut follower = Follower::new(&cluster.bootstrap(), &topic);
    round(&cluster, &producer, &mut follower, &topic, 1, |_| {});
    round(&cluster, &producer, &mut follower, &topic, 2, |cluster| {
        cluster.kill(1);
        cluster.restart(1);
    });
    round(&cluster, &producer, &mut follower, &topic, 3, |cluster| {
        cluster.stop(1);
        cluster.restart(1);
    });
    round(&cluster, &producer, &mut follower, &topic, 4, |cluster| {
        cluster.freeze(1);
        assert!(!answers(cluster), "a frozen broker must not answer");
        cluster.thaw(1);
    });
    assert_eq!(kafka::read_all(&cluster.bootstrap(), &topic).len(), 400);
}

/// Produces 100 records, applies the fault, and checks that a reader that existed before receives all of them.
fn round(
    cluster: &Cluster,
    producer: &Producer,
    follower: &mut Follower,
    topic: &str,
    number: usize,
    fault: impl FnOnce(&Cluster),
) {
    producer
        .enqueue(topic, (0..100).map(|n| Record::new(format!("{n}"), format!("{number}"))))
        .expect("capacity in the queue");
    fault(cluster);
    producer.flush().expect("every record is acknowledged");
    let mut seen = 0;
    wait::until("all records of a round", wait::STATE_TIMEOUT, || {
        seen += follower.take().len();
        seen == 100
    });
}

fn answers(cluster: &Cluster) -> bool {
    let consumer: BaseConsumer =
        kafka::client(&cluster.bootstrap()).create().expect("the settings are valid");
    consumer.fetch_metadata(None, Duration::from_secs(1)).is_ok()
}

#[test]
fn a_cluster_survives_the_loss_of_one_broker() {
    let Some(cluster) = kafka::dedicated(&Options { brokers: 3, ..Options::default() }) else { return };
    let topic = unique("replicated");
    cluster.admin().create_topic(&topic, 3, &[]);
    let producer = Producer::new(&cluster.bootstrap());
    producer.send_all(&topic, (0..300).map(|n| Record::new(format!("{n}"), "v"))).expect("acknowledged");
    cluster.kill(2);
    producer
        .send_all(&topic, (0..300).map(|n| Record::new(format!("{n}"), "w")))
        .expect("acknowledged by two");
    assert_eq!(kafka::read_all(&cluster.bootstrap(), &topic).len(), 600);
    cluster.restart(2);
    assert_eq!(kafka::read_all(&cluster.bootstrap(), &topic).len(), 600);
}

#[test]
fn passwords_are_checked() {
    let users = vec![("alice".to_owned(), "secret".to_owned())];
    let Some(cluster) = kafka::dedicated(&Options { users, ..Options::default() }) else { return };
    let brokers_seen = |password: &str| {
        let consumer: BaseConsumer = kafka::client(&cluster.sasl_bootstrap())
            .set("security.protocol", "sasl_plaintext")
            .set("sasl.mechanism", "PLAIN")
            .set("sasl.username", "alice")
            .set("sasl.password", password)
            .create()
            .expect("the settings are valid");
        consumer.fetch_metadata(None, Duration::from_secs(3)).map(|metadata| metadata.brokers().len())
    };
    wait::until("the right password to be accepted", wait::STATE_TIMEOUT, || brokers_seen("secret") == Ok(1));
    assert!(brokers_seen("wrong").is_err());
}
