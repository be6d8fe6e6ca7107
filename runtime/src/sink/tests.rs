//! The sink against a mock cluster.
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use keylane_core::CallId;

use super::{Delivery, Error, OutputRecord, ProduceError, RecordSize, Route, Sink, SinkSpec, Token};
use crate::librdkafka::{Deadline, ErrorCode, MockCluster, PermanentStartupError};

/// Kafka's number of the request that stores records.
const PRODUCE: i16 = 0;
const PATIENCE: Duration = Duration::from_secs(30);

fn cluster(topics: &[&std::ffi::CStr]) -> MockCluster {
    let mock = MockCluster::start(1).expect("the mock cluster starts");
    for topic in topics {
        mock.create_topic(topic, 4).expect("it takes topics");
    }
    mock
}

fn spec(mock: &MockCluster, topics: &[&str]) -> SinkSpec {
    SinkSpec {
        client_properties: vec![("bootstrap.servers".to_owned(), mock.bootstrap_servers())],
        credentials: None,
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        create_topics: false,
        as_many_as: BTreeMap::new(),
        max_bytes_per_topic: 1 << 20,
    }
}

fn start(spec: &SinkSpec, handlers: usize) -> (Sink, Vec<Receiver<Delivery>>) {
    let mut routes: Vec<Route> = Vec::new();
    let mut inboxes = Vec::new();
    for _ in 0..handlers {
        let (sender, inbox) = sync_channel(10_000);
        routes.push(Box::new(move |deliveries| {
            for delivery in deliveries {
                sender.send(*delivery).expect("the test still listens");
            }
        }));
        inboxes.push(inbox);
    }
    let sink = Sink::start(spec, routes, Box::new(|| ()), &mut |_| ControlFlow::Continue(()))
        .expect("the sink starts");
    (sink, inboxes)
}

fn token(handler: u16, row: u32) -> Token {
    Token { handler, call: CallId { slot: 3, generation: 4 }, row, lane: 0, output: row, dead_letter: false }
}

fn output(key: &[u8]) -> OutputRecord<'_> {
    OutputRecord { topic: 0, timestamp: None, key: Some(key), value: Some(b"v"), headers: &[(b"h", None)] }
}

/// Produces as soon as the topic has room.
fn produce_when_open(sink: &Sink, output: &OutputRecord<'_>, token: Token) {
    let limit = Deadline::after(PATIENCE);
    loop {
        match sink.produce(output, token) {
            Err(ProduceError::Full) => assert!(!limit.is_over(), "the topic stays full"),
            taken => return taken.expect("there is room"),
        }
        std::thread::yield_now();
    }
}

/// Produces until the topic has no room. Returns how many records it took.
fn produce_until_full(
    sink: &Sink,
    output: &OutputRecord<'_>,
    token: Token,
    mut meanwhile: impl FnMut(),
) -> usize {
    let limit = Deadline::after(PATIENCE);
    let mut taken = 0;
    while sink.produce(output, token) != Err(ProduceError::Full) {
        assert!(!limit.is_over(), "the topic stays open");
        taken += 1;
        meanwhile();
    }
    taken
}

#[test]
fn reports_reach_the_handler_and_keys_keep_their_order() {
    let mock = cluster(&[c"out"]);
    let (sink, inboxes) = start(&spec(&mock, &["out"]), 2);
    for row in 0..1_000_u32 {
        let handler = u16::try_from(row % 2).expect("small");
        let key = (row % 10).to_be_bytes();
        sink.produce(&output(&key), token(handler, row)).expect("there is room");
    }
    assert!(sink.flush(PATIENCE), "everything is acknowledged");
    assert_eq!(sink.in_flight(), 0);
    assert_eq!(
        sink.check(0, RecordSize::new(None, Some(&[0; 900_000]))),
        Ok(()),
        "the mock cluster does not say what topics take"
    );
    let mut landed: BTreeMap<u32, Vec<(i32, i64)>> = BTreeMap::new();
    for (handler, inbox) in inboxes.iter().enumerate() {
        for _ in 0..500 {
            let delivery = inbox.recv_timeout(PATIENCE).expect("every record has a report");
            assert_eq!((usize::from(delivery.token.handler), delivery.again), (handler, false));
            let place = delivery.result.expect("it landed");
            landed.entry(delivery.token.row % 10).or_default().push((place.partition, place.offset));
        }
        assert!(inbox.try_recv().is_err(), "one report per record");
    }
    for (key, places) in landed {
        assert_eq!(places.len(), 100);
        assert!(places.is_sorted_by(|a, b| a.0 == b.0 && a.1 < b.1), "key {key} lost its order: {places:?}");
    }
}

#[test]
fn a_topic_with_too_much_on_its_way_is_full_and_others_are_not() {
    let mock = cluster(&[c"slow", c"other"]);
    mock.set_round_trip_time(1, Duration::from_millis(300)).expect("it can be slow");
    let mut spec = spec(&mock, &["slow", "other"]);
    spec.max_bytes_per_topic = 1_000;
    let (sink, inboxes) = start(&spec, 1);
    let mut taken = 0;
    while sink.produce(&output(b"k"), token(0, taken)) != Err(ProduceError::Full) {
        taken += 1;
        assert!(taken < 10, "the limit does not hold");
    }
    assert!(taken > 0);
    let other = OutputRecord { topic: 1, ..output(b"k") };
    sink.produce(&other, token(0, 99)).expect("the other topic has room");
    assert!(sink.flush(PATIENCE));
    let reports: Vec<_> = inboxes[0].try_iter().collect();
    assert_eq!(reports.len(), taken as usize + 1);
    sink.produce(&output(b"k"), token(0, 100)).expect("there is room again");
    assert!(sink.flush(PATIENCE));
}

#[test]
fn a_refused_record_says_why() {
    let mock = cluster(&[c"out"]);
    let (sink, inboxes) = start(&spec(&mock, &["out"]), 1);
    let large = vec![0; 2 << 20];
    let too_large = sink.produce(&OutputRecord { value: Some(&large), ..output(b"k") }, token(0, 2));
    let Err(ProduceError::Refused(error)) = too_large else { panic!("not refused: {too_large:?}") };
    assert_eq!((error.topic, error.code), (0, ErrorCode::MSG_SIZE_TOO_LARGE));
    // The batch, then the record alone.
    mock.push_errors(PRODUCE, &[ErrorCode::INVALID_RECORD, ErrorCode::INVALID_RECORD]);
    sink.produce(&output(b"k"), token(0, 1)).expect("there is room");
    let delivery = inboxes[0].recv_timeout(PATIENCE).expect("it has a report");
    let error = delivery.result.expect_err("it was refused");
    assert_eq!(error.code, ErrorCode::INVALID_RECORD);
    assert_eq!(sink.in_flight(), 0);
}

/// A batch comes back: each of its records is sent again, alone and in order, and only the one that is refused then is
/// refused.
#[test]
fn a_refused_batch_is_taken_apart() {
    let mock = cluster(&[c"out"]);
    let mut spec = spec(&mock, &["out"]);
    spec.client_properties.push(("linger.ms".to_owned(), "200".to_owned()));
    let (sink, inboxes) = start(&spec, 1);
    // The whole batch, then its second record.
    mock.push_errors(
        PRODUCE,
        &[ErrorCode::MSG_SIZE_TOO_LARGE, ErrorCode::NONE, ErrorCode::MSG_SIZE_TOO_LARGE],
    );
    for row in 0..4 {
        sink.produce(&output(b"k"), token(0, row)).expect("there is room");
    }
    let reports: Vec<Delivery> =
        (0..4).map(|_| inboxes[0].recv_timeout(PATIENCE).expect("every record has a report")).collect();
    let rows: Vec<u32> = reports.iter().map(|report| report.token.row).collect();
    assert_eq!(rows, [0, 1, 2, 3], "in their order");
    let landed: Vec<bool> = reports.iter().map(|report| report.result.is_ok()).collect();
    assert_eq!(landed, [true, false, true, true]);
    assert!(reports.iter().all(|report| report.again), "each was sent again");
    produce_when_open(&sink, &output(b"k"), token(0, 9)); // the topic opens when the last one has its answer
    assert!(sink.flush(PATIENCE));
}

/// A time that the brokers refuse is the record's only if it has one.
#[test]
fn a_refused_time_ends_no_event() {
    let mock = cluster(&[c"out"]);
    let (sink, inboxes) = start(&spec(&mock, &["out"]), 1);
    // The batch, then the record alone; then the record with the time of sending; then it is taken.
    mock.push_errors(PRODUCE, &[ErrorCode::INVALID_TIMESTAMP; 3]);
    sink.produce(&OutputRecord { timestamp: Some(1), ..output(b"k") }, token(0, 1)).expect("there is room");
    let delivery = inboxes[0].recv_timeout(PATIENCE).expect("it has a report");
    assert!(delivery.result.is_ok() && delivery.again && delivery.restamped, "{delivery:?}");
    assert_eq!(sink.health().last_error.as_deref(), Some(&*ErrorCode::INVALID_TIMESTAMP.to_string()));
    produce_when_open(&sink, &OutputRecord { timestamp: Some(2), ..output(b"k") }, token(0, 2));
    let delivery = inboxes[0].recv_timeout(PATIENCE).expect("it has a report");
    assert!(delivery.result.is_ok() && !delivery.restamped, "{delivery:?}");
}

/// What says nothing about the record blocks its topic, not the others, and nothing of it is lost.
#[test]
fn a_topic_that_can_t_be_written_blocks_only_itself() {
    let mock = cluster(&[c"denied", c"other"]);
    let (sink, inboxes) = start(&spec(&mock, &["denied", "other"]), 1);
    mock.push_errors(PRODUCE, &[ErrorCode::TOPIC_AUTHORIZATION_FAILED]);
    sink.produce(&output(b"k"), token(0, 1)).expect("there is room");
    produce_until_full(&sink, &output(b"k"), token(0, 2), || inboxes[0].try_iter().for_each(drop));
    sink.produce(&OutputRecord { topic: 1, ..output(b"k") }, token(0, 3)).expect("the other topic is open");
    let mut landed = Vec::new();
    while !landed.contains(&1) || !landed.contains(&3) {
        let delivery = inboxes[0].recv_timeout(PATIENCE).expect("it has a report");
        delivery.result.expect("it landed, in the end");
        landed.push(delivery.token.row);
    }
}

#[test]
fn what_nobody_waits_for_is_not_sent_again() {
    let mock = cluster(&[c"denied"]);
    let (sink, inboxes) = start(&spec(&mock, &["denied"]), 1);
    mock.push_errors(PRODUCE, &[ErrorCode::TOPIC_AUTHORIZATION_FAILED]);
    sink.produce(&output(b"k"), token(0, 1)).expect("there is room");
    let others = produce_until_full(&sink, &output(b"k"), token(0, 2), || {});
    sink.forget(0, &|token| token.row == 1);
    produce_when_open(&sink, &output(b"k"), token(0, 2)); // the topic opens when nothing is left to be sent again
    assert!(sink.flush(PATIENCE));
    let landed: Vec<u32> = inboxes[0].try_iter().map(|delivery| delivery.token.row).collect();
    assert_eq!(landed, vec![2; others + 1], "row 1 never lands, and nobody is told of it");
    assert_eq!(sink.in_flight(), 0);
}

#[test]
fn a_producer_that_can_t_go_on_is_replaced() {
    let mock = cluster(&[c"out"]);
    mock.set_round_trip_time(1, Duration::from_millis(50)).expect("it can be slow");
    let (sink, inboxes) = start(&spec(&mock, &["out"]), 1);
    for row in 0..100 {
        sink.produce(&output(b"k"), token(0, row)).expect("there is room");
        if row == 50 {
            sink.break_down();
            break;
        }
    }
    let mut rows: Vec<u32> = Vec::new();
    while rows.len() < 51 {
        let delivery = inboxes[0].recv_timeout(PATIENCE).expect("every record has a report");
        delivery.result.expect("it landed, by one producer or the other");
        rows.push(delivery.token.row);
    }
    assert_eq!(rows, (0..51).collect::<Vec<_>>(), "each once, in their order");
    assert_eq!(sink.health().replaced, 1);
    produce_when_open(&sink, &output(b"k"), token(0, 99));
    assert!(sink.flush(PATIENCE));
}

/// Those who produce and the thread that replaces the producer meet at every moment: nothing overtakes.
#[test]
fn nothing_overtakes_what_a_lost_producer_had() {
    let mock = cluster(&[c"out"]);
    let (sink, inboxes) = start(&spec(&mock, &["out"]), 1);
    let rows = 0..20_000_u32;
    std::thread::scope(|scope| {
        for key in 0..2_u32 {
            let (sink, rows) = (&sink, rows.clone());
            scope.spawn(move || {
                for row in rows.filter(|row| row % 2 == key) {
                    produce_when_open(sink, &output(&key.to_be_bytes()), token(0, row));
                }
            });
        }
        let mut landed: BTreeMap<u32, (u32, i64)> = BTreeMap::new();
        for count in rows.clone() {
            if count % 1_000 == 500 {
                sink.break_down();
            }
            let delivery = inboxes[0].recv_timeout(PATIENCE).expect("every record has a report");
            let at = delivery.result.expect("it landed").offset;
            let now = (delivery.token.row, at);
            let before = landed.insert(now.0 % 2, now);
            assert!(
                before.is_none_or(|before| before.0 < now.0 && before.1 < now.1),
                "of one key (row, offset): {before:?}, then {now:?}"
            );
        }
    });
    assert!(sink.health().replaced > 0);
}

#[test]
fn a_missing_output_topic_is_an_error_with_a_remedy() {
    let mock = cluster(&[c"out"]);
    let result = Sink::start(&spec(&mock, &["out", "nowhere"]), Vec::new(), Box::new(|| ()), &mut |_| {
        ControlFlow::Continue(())
    });
    let Err(error) = result else { panic!("it must not start") };
    assert!(
        matches!(&error, Error::PermanentStartupError(PermanentStartupError::TopicsMissing { topics, .. }) if topics == &["nowhere"]),
        "{error}"
    );
}
