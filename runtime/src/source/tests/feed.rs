//! The feed of the embedded broker and the output reader.
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keylane_core::Partition;

use super::broker::{Sent, TOPIC, broker, send, spec};
use super::member::Member;
use crate::config::{Assignor, FeedConfig, FeedSource};
use crate::librdkafka::partition_for_key;
use crate::source::Ends;
use crate::source::embedded::feed::FeedError;
use crate::source::embedded::{FeedProgress, Feeder, OutputReader};

/// A file that is removed after the test.
struct TestFile(PathBuf);

impl TestFile {
    fn new(name: &str, content: &[u8]) -> TestFile {
        let path = std::env::temp_dir().join(format!("keylane-{}-{name}", std::process::id()));
        fs::write(&path, content).expect("the temporary directory is writable");
        TestFile(path)
    }

    fn feeds(&self) -> Vec<FeedConfig> {
        vec![FeedConfig { topic: TOPIC.to_owned(), source: FeedSource::File(self.0.clone()) }]
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}

#[test]
fn a_feed_larger_than_the_broker_is_read_completely() {
    const PARTITIONS: i32 = 2;
    const RECORDS: usize = 6_500;
    let padding = "p".repeat(4_096);
    let mut text = String::new();
    for number in 0..RECORDS {
        writeln!(text, r#"{{"key":"k{}","value":"{number} {padding}"}}"#, number % 37)
            .expect("writing to a string succeeds");
    }
    assert!(text.len() > 24 << 20);
    let compressed = zstd::encode_all(text.as_bytes(), 1).expect("compression succeeds");
    let file = TestFile::new("large.jsonl.zst", &compressed);

    let broker = broker(PARTITIONS);
    let progress = FeedProgress::new();
    let mut spec = spec(&broker, Assignor::CooperativeSticky);
    spec.ends = Ends::Feed;
    spec.feed = Some(Arc::clone(&progress));
    let mut member = Member::join(&spec);
    let feeder = Feeder::start(&broker, &file.feeds(), &progress).expect("the feeder starts");
    member.until("all records are read", |m| m.records.len() == RECORDS);
    member.until("the ends are known", |m| m.ends.len() == 2);
    assert_eq!(feeder.finish().expect("every line is valid"), RECORDS as u64);
    assert_eq!(member.out_of_order, []);
    assert_eq!(member.ends, member.next);
    let mut seen = vec![false; RECORDS];
    for (partition, _, value) in &member.records {
        let text = std::str::from_utf8(value).expect("the value is UTF-8");
        let number: usize =
            text.split(' ').next().and_then(|n| n.parse().ok()).expect("the value starts with a number");
        let key = format!("k{}", number % 37);
        assert_eq!(partition.number, partition_for_key(key.as_bytes(), PARTITIONS), "{key}");
        assert!(!std::mem::replace(&mut seen[number], true), "{number} was read twice");
    }
    assert!(seen.iter().all(|seen| *seen));
    assert!(member.source.leave(Duration::from_secs(10), Duration::from_secs(10)));
}

#[test]
fn a_bad_line_is_reported_to_the_source_with_file_and_line() {
    let broker = broker(1);
    let file = TestFile::new("bad.jsonl", b"{\"value\":\"a\"}\n\n{\"value\":1}\n");
    let progress = FeedProgress::new();
    let mut spec = spec(&broker, Assignor::CooperativeSticky);
    spec.ends = Ends::Feed;
    spec.feed = Some(Arc::clone(&progress));
    let mut member = Member::join(&spec);
    let feeder = Feeder::start(&broker, &file.feeds(), &progress).expect("the feeder starts");
    member.until("the error is reported", |m| !m.errors.is_empty());
    let error = &member.errors[0];
    assert!(error.fatal && error.text.contains("bad.jsonl: line 3"), "{error:?}");
    assert!(matches!(feeder.finish(), Err(FeedError::Line { error, .. }) if error.line == 3));
    member.until("the record before it is read", |m| m.records.len() == 1);
    assert_eq!(member.ends.len(), 0, "a failed feed has no end");
    assert!(member.source.leave(Duration::from_secs(10), Duration::from_secs(10)));
}

#[test]
fn a_missing_file_is_an_immediate_error() {
    let broker = broker(1);
    let missing = FeedSource::File(PathBuf::from("no/such/file.jsonl"));
    let feeds = [FeedConfig { topic: TOPIC.to_owned(), source: missing }];
    let error = Feeder::start(&broker, &feeds, &FeedProgress::new()).expect_err("the file does not exist");
    assert!(error.to_string().contains("no/such/file.jsonl"), "{error}");
}

#[test]
fn all_outputs_are_read_back() {
    let broker = broker(3);
    broker.create_topic("out").expect("the topic is created");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let collected = Arc::clone(&seen);
    let topics = [TOPIC.to_owned(), "out".to_owned()];
    let reader = OutputReader::start(&broker, &topics, move |topic, partition, record| {
        let partition = Partition { topic: u16::try_from(topic).expect("small"), number: partition };
        collected.lock().expect("the lock is not poisoned").push((partition, record.offset()));
    })
    .expect("the feeder starts");
    let records = (0..300).map(|number| Sent { partition: number % 3, ..Sent::default() });
    send(&broker.bootstrap_servers(), "out", records);
    send(&broker.bootstrap_servers(), TOPIC, [Sent::default()]);
    assert_eq!(reader.finish().expect("no record was dropped"), 301);
    let mut seen = seen.lock().expect("the lock is not poisoned").clone();
    seen.sort_unstable();
    let mut expected = vec![(Partition { topic: 0, number: 0 }, 0)];
    for number in 0..3 {
        expected.extend((0..100).map(|offset| (Partition { topic: 1, number }, offset)));
    }
    assert_eq!(seen, expected);
}
