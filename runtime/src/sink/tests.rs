//! The sink against a mock cluster.
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use keylane_core::CallId;

use super::{
    Delivery, Error, ProduceError, RecordId, RecordSize, Route, Sink, SinkRecord, SinkSpec, SinkTopic,
};
use crate::librdkafka::{Deadline, ErrorCode, MockCluster, StartupError};

/// API key of Produce.
const PRODUCE: i16 = 0;
const TEST_TIMEOUT: Duration = Duration::from_mins(2);

fn cluster(topics: &[&std::ffi::CStr]) -> MockCluster {
    let mock = MockCluster::start(1).expect("the mock cluster starts");
    for topic in topics {
        mock.create_topic(topic, 4).expect("the topic is created");
    }
    mock
}

fn spec(mock: &MockCluster, topics: &[&str]) -> SinkSpec {
    SinkSpec {
        client_properties: vec![("bootstrap.servers".to_owned(), mock.bootstrap_servers())],
        credentials: None,
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        create_topics: false,
        partitions_like: BTreeMap::new(),
        max_bytes_per_topic: 1 << 20,
        statistics: None,
    }
}

fn start(spec: &SinkSpec, handlers: usize) -> (Sink, Vec<Receiver<Delivery>>) {
    let mut routes: Vec<Route> = Vec::new();
    let mut receivers = Vec::new();
    for _ in 0..handlers {
        let (sender, receiver) = sync_channel(10_000);
        routes.push(Box::new(move |deliveries| {
            for delivery in deliveries {
                sender.send(*delivery).expect("the receiver is alive");
            }
        }));
        receivers.push(receiver);
    }
    let sink = Sink::start(spec, routes, Box::new(|| ()), &mut |_| ControlFlow::Continue(()))
        .expect("the sink starts");
    (sink, receivers)
}

fn id(handler: u16, row: u32) -> RecordId {
    RecordId {
        handler,
        call: CallId { slot: 3, reuse_count: 4 },
        row,
        lane: 0,
        output: row,
        dead_letter: false,
    }
}

fn record(key: &[u8]) -> SinkRecord<'_> {
    SinkRecord {
        topic: SinkTopic(0),
        timestamp: None,
        key: Some(key),
        value: Some(b"v"),
        headers: &[(b"h", None)],
    }
}

/// Produces as soon as the topic has capacity.
fn produce_when_open(sink: &Sink, record: &SinkRecord<'_>, id: RecordId) {
    let limit = Deadline::after(TEST_TIMEOUT);
    loop {
        match sink.produce(record, id) {
            Err(ProduceError::NotNow) => assert!(!limit.is_over(), "the topic has no capacity"),
            result => return result.expect("the topic has capacity"),
        }
        std::thread::yield_now();
    }
}

/// Produces until the topic has no capacity. Returns the number of accepted records.
fn produce_until_full(
    sink: &Sink,
    record: &SinkRecord<'_>,
    id: RecordId,
    mut meanwhile: impl FnMut(),
) -> usize {
    let limit = Deadline::after(TEST_TIMEOUT);
    let mut accepted = 0;
    while sink.produce(record, id) != Err(ProduceError::NotNow) {
        assert!(!limit.is_over(), "the topic never becomes full");
        accepted += 1;
        meanwhile();
    }
    accepted
}

#[test]
fn reports_reach_the_handler_and_keys_keep_their_order() {
    let mock = cluster(&[c"out"]);
    let (sink, receivers) = start(&spec(&mock, &["out"]), 2);
    for row in 0..1_000_u32 {
        let handler = u16::try_from(row % 2).expect("small");
        let key = (row % 10).to_be_bytes();
        sink.produce(&record(&key), id(handler, row)).expect("the topic has capacity");
    }
    assert!(sink.flush(TEST_TIMEOUT), "every record is acknowledged");
    assert_eq!(sink.unreported(), 0);
    assert_eq!(
        sink.check(SinkTopic(0), RecordSize::new(None, Some(&[0; 900_000]))),
        Ok(()),
        "the mock cluster reports no topic limits"
    );
    let mut stored: BTreeMap<u32, Vec<(i32, i64)>> = BTreeMap::new();
    for (handler, receiver) in receivers.iter().enumerate() {
        for _ in 0..500 {
            let delivery = receiver.recv_timeout(TEST_TIMEOUT).expect("every record has a report");
            assert_eq!((usize::from(delivery.id.handler), delivery.resent), (handler, false));
            let metadata = delivery.result.expect("the record is stored");
            stored.entry(delivery.id.row % 10).or_default().push((metadata.partition, metadata.offset));
        }
        assert!(receiver.try_recv().is_err(), "one report per record");
    }
    for (key, positions) in stored {
        assert_eq!(positions.len(), 100);
        assert!(
            positions.is_sorted_by(|a, b| a.0 == b.0 && a.1 < b.1),
            "key {key} lost its order: {positions:?}"
        );
    }
}

#[test]
fn a_topic_at_its_in_flight_limit_is_full_and_others_are_not() {
    let mock = cluster(&[c"slow", c"other"]);
    mock.set_round_trip_time(1, Duration::from_millis(300)).expect("the round trip is slow");
    let mut spec = spec(&mock, &["slow", "other"]);
    spec.max_bytes_per_topic = 1_000;
    let (sink, receivers) = start(&spec, 1);
    let mut accepted = 0;
    while sink.produce(&record(b"k"), id(0, accepted)) != Err(ProduceError::NotNow) {
        accepted += 1;
        assert!(accepted < 10, "the limit is not enforced");
    }
    assert!(accepted > 0);
    let other = SinkRecord { topic: SinkTopic(1), ..record(b"k") };
    sink.produce(&other, id(0, 99)).expect("the other topic has capacity");
    assert!(sink.flush(TEST_TIMEOUT));
    let reports: Vec<_> = receivers[0].try_iter().collect();
    assert_eq!(reports.len(), accepted as usize + 1);
    sink.produce(&record(b"k"), id(0, 100)).expect("the topic has capacity again");
    assert!(sink.flush(TEST_TIMEOUT));
}

#[test]
fn a_rejected_record_is_reported_with_its_error() {
    let mock = cluster(&[c"out"]);
    let (sink, receivers) = start(&spec(&mock, &["out"]), 1);
    let large = vec![0; 2 << 20];
    let too_large = sink.produce(&SinkRecord { value: Some(&large), ..record(b"k") }, id(0, 2));
    let Err(ProduceError::Rejected(error)) = too_large else { panic!("not rejected: {too_large:?}") };
    assert_eq!((error.topic, error.code), (SinkTopic(0), ErrorCode::MSG_SIZE_TOO_LARGE));
    // The first error is for the batch, the second for the record alone.
    mock.push_errors(PRODUCE, &[ErrorCode::INVALID_RECORD, ErrorCode::INVALID_RECORD]);
    sink.produce(&record(b"k"), id(0, 1)).expect("the topic has capacity");
    let delivery = receivers[0].recv_timeout(TEST_TIMEOUT).expect("the record has a report");
    let error = delivery.result.expect_err("the record was rejected");
    assert_eq!(error.code, ErrorCode::INVALID_RECORD);
    assert_eq!(sink.unreported(), 0);
}

/// After a rejected batch each of its records is sent again, alone and in order. Only a record that is rejected alone
/// counts as rejected.
#[test]
fn records_of_a_rejected_batch_are_sent_one_by_one() {
    let mock = cluster(&[c"out"]);
    let mut spec = spec(&mock, &["out"]);
    spec.client_properties.push(("linger.ms".to_owned(), "200".to_owned()));
    let (sink, receivers) = start(&spec, 1);
    // The first error is for the whole batch, the last for its second record alone.
    mock.push_errors(
        PRODUCE,
        &[ErrorCode::MSG_SIZE_TOO_LARGE, ErrorCode::NONE, ErrorCode::MSG_SIZE_TOO_LARGE],
    );
    for row in 0..4 {
        sink.produce(&record(b"k"), id(0, row)).expect("the topic has capacity");
    }
    let reports: Vec<Delivery> =
        (0..4).map(|_| receivers[0].recv_timeout(TEST_TIMEOUT).expect("every record has a report")).collect();
    let rows: Vec<u32> = reports.iter().map(|report| report.id.row).collect();
    assert_eq!(rows, [0, 1, 2, 3], "in the original order");
    let stored: Vec<bool> = reports.iter().map(|report| report.result.is_ok()).collect();
    assert_eq!(stored, [true, false, true, true]);
    assert!(reports.iter().all(|report| report.resent), "each was sent again");
    produce_when_open(&sink, &record(b"k"), id(0, 9)); // the topic opens when the last record has its report
    assert!(sink.flush(TEST_TIMEOUT));
}

/// A rejected timestamp is replaced once. After that, the error blocks the topic and the record is sent again.
#[test]
fn a_rejected_timestamp_fails_no_event() {
    let mock = cluster(&[c"out"]);
    let (sink, receivers) = start(&spec(&mock, &["out"]), 1);
    // The errors are for the batch, the record alone, and the record with the time of sending. Then the record is
    // stored.
    mock.push_errors(PRODUCE, &[ErrorCode::INVALID_TIMESTAMP; 3]);
    sink.produce(&SinkRecord { timestamp: Some(1), ..record(b"k") }, id(0, 1))
        .expect("the topic has capacity");
    let delivery = receivers[0].recv_timeout(TEST_TIMEOUT).expect("the record has a report");
    assert!(delivery.result.is_ok() && delivery.resent && delivery.restamped, "{delivery:?}");
    produce_when_open(&sink, &SinkRecord { timestamp: Some(2), ..record(b"k") }, id(0, 2));
    let delivery = receivers[0].recv_timeout(TEST_TIMEOUT).expect("the record has a report");
    assert!(delivery.result.is_ok() && !delivery.restamped, "{delivery:?}");
}

/// An error that is not about the record blocks its topic, not the others, and no record is lost.
#[test]
fn a_blocked_topic_does_not_block_others() {
    let mock = cluster(&[c"denied", c"other"]);
    let (sink, receivers) = start(&spec(&mock, &["denied", "other"]), 1);
    mock.push_errors(PRODUCE, &[ErrorCode::TOPIC_AUTHORIZATION_FAILED]);
    sink.produce(&record(b"k"), id(0, 1)).expect("the topic has capacity");
    produce_until_full(&sink, &record(b"k"), id(0, 2), || receivers[0].try_iter().for_each(drop));
    sink.produce(&SinkRecord { topic: SinkTopic(1), ..record(b"k") }, id(0, 3))
        .expect("the other topic is open");
    let mut stored = Vec::new();
    while !stored.contains(&1) || !stored.contains(&3) {
        let delivery = receivers[0].recv_timeout(TEST_TIMEOUT).expect("the record has a report");
        delivery.result.expect("the record is stored in the end");
        stored.push(delivery.id.row);
    }
}

#[test]
fn discarded_records_are_not_sent_again() {
    let mock = cluster(&[c"denied"]);
    let (sink, receivers) = start(&spec(&mock, &["denied"]), 1);
    mock.push_errors(PRODUCE, &[ErrorCode::TOPIC_AUTHORIZATION_FAILED]);
    sink.produce(&record(b"k"), id(0, 1)).expect("the topic has capacity");
    let others = produce_until_full(&sink, &record(b"k"), id(0, 2), || {});
    sink.discard(0, &|id| id.row == 1);
    produce_when_open(&sink, &record(b"k"), id(0, 2)); // the topic opens when no record is left to send again
    assert!(sink.flush(TEST_TIMEOUT));
    let stored: Vec<u32> = receivers[0].try_iter().map(|delivery| delivery.id.row).collect();
    assert_eq!(stored, vec![2; others + 1], "row 1 is neither stored nor reported");
    assert_eq!(sink.unreported(), 0);
}

#[test]
fn a_failed_producer_is_replaced() {
    let mock = cluster(&[c"out"]);
    mock.set_round_trip_time(1, Duration::from_millis(50)).expect("the round trip is slow");
    let (sink, receivers) = start(&spec(&mock, &["out"]), 1);
    for row in 0..100 {
        sink.produce(&record(b"k"), id(0, row)).expect("the topic has capacity");
        if row == 50 {
            sink.break_down();
            break;
        }
    }
    let mut rows: Vec<u32> = Vec::new();
    while rows.len() < 51 {
        let delivery = receivers[0].recv_timeout(TEST_TIMEOUT).expect("every record has a report");
        delivery.result.expect("the record is stored, by one producer or the other");
        rows.push(delivery.id.row);
    }
    assert_eq!(rows, (0..51).collect::<Vec<_>>(), "each once, in the original order");
    assert_eq!(sink.totals().replaced, 1);
    produce_when_open(&sink, &record(b"k"), id(0, 99));
    assert!(sink.flush(TEST_TIMEOUT));
}

/// Producing threads race with the replacement of the producer: no record overtakes another one of its key.
#[test]
fn no_record_overtakes_those_of_a_failed_producer() {
    let mock = cluster(&[c"out"]);
    let (sink, receivers) = start(&spec(&mock, &["out"]), 1);
    let rows = 0..20_000_u32;
    std::thread::scope(|scope| {
        for key in 0..2_u32 {
            let (sink, rows) = (&sink, rows.clone());
            scope.spawn(move || {
                for row in rows.filter(|row| row % 2 == key) {
                    produce_when_open(sink, &record(&key.to_be_bytes()), id(0, row));
                }
            });
        }
        let mut stored: BTreeMap<u32, (u32, i64)> = BTreeMap::new();
        for count in rows.clone() {
            if count % 1_000 == 500 {
                sink.break_down();
            }
            let delivery = receivers[0].recv_timeout(TEST_TIMEOUT).expect("every record has a report");
            let at = delivery.result.expect("the record is stored").offset;
            let now = (delivery.id.row, at);
            let before = stored.insert(now.0 % 2, now);
            assert!(
                before.is_none_or(|before| before.0 < now.0 && before.1 < now.1),
                "one key (row, offset): {before:?}, then {now:?}"
            );
        }
    });
    assert!(sink.totals().replaced > 0);
}

#[test]
fn a_missing_output_topic_is_an_error_with_a_remedy() {
    let mock = cluster(&[c"out"]);
    let result = Sink::start(&spec(&mock, &["out", "nowhere"]), Vec::new(), Box::new(|| ()), &mut |_| {
        ControlFlow::Continue(())
    });
    let Err(error) = result else { panic!("the sink must not start") };
    assert!(
        matches!(&error, Error::Startup(StartupError::TopicsMissing { topics, .. }) if topics == &["nowhere"]),
        "{error}"
    );
}
