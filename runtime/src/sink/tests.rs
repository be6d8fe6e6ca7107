//! The sink against a mock cluster.
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use keylane_core::CallId;

use super::{Delivery, Error, Output, ProduceError, Refusal, Route, Sink, SinkSpec, Token};
use crate::librdkafka::{ErrorCode, MockCluster};

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
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        create_topics: false,
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
    let sink = Sink::start(spec, routes, &mut |_| ControlFlow::Continue(())).expect("the sink starts");
    (sink, inboxes)
}

fn token(handler: u16, row: u32) -> Token {
    Token { handler, call: CallId { slot: 3, generation: 4 }, row }
}

fn output(key: &[u8]) -> Output<'_> {
    Output { topic: 0, key: Some(key), value: Some(b"v"), headers: &[(b"h", None)] }
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
    let mut landed: BTreeMap<u32, Vec<(i32, i64)>> = BTreeMap::new();
    for (handler, inbox) in inboxes.iter().enumerate() {
        for _ in 0..500 {
            let delivery = inbox.recv_timeout(PATIENCE).expect("every record has a report");
            assert_eq!(usize::from(delivery.token.handler), handler);
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
    let other = Output { topic: 1, ..output(b"k") };
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
    let refused = |result: Result<(), ProduceError>| match result {
        Err(ProduceError::Refused(error)) => (error.code, error.refusal),
        other => panic!("not refused: {other:?}"),
    };
    let large = vec![0; 2 << 20];
    let too_large = sink.produce(&Output { value: Some(&large), ..output(b"k") }, token(0, 2));
    assert_eq!(refused(too_large), (ErrorCode::MSG_SIZE_TOO_LARGE, Refusal::Record));
    for (code, refusal) in [
        (ErrorCode::INVALID_RECORD, Refusal::Record),
        (ErrorCode(1_234), Refusal::Again),
        (ErrorCode::TOPIC_AUTHORIZATION_FAILED, Refusal::Topic),
    ] {
        mock.push_errors(PRODUCE, &[code]);
        sink.produce(&output(b"k"), token(0, 1)).expect("there is room");
        let delivery = inboxes[0].recv_timeout(PATIENCE).expect("it has a report");
        let error = delivery.result.expect_err("it was refused");
        assert_eq!((error.code, error.refusal), (code, refusal));
    }
    // The client remembers that, and asks no broker until it has looked at the topic again.
    let denied = sink.produce(&output(b"k"), token(0, 3));
    assert_eq!(refused(denied), (ErrorCode::TOPIC_AUTHORIZATION_FAILED, Refusal::Topic));
    assert_eq!(sink.in_flight(), 0);
}

#[test]
fn a_missing_output_topic_is_an_error_with_a_remedy() {
    let mock = cluster(&[c"out"]);
    let result =
        Sink::start(&spec(&mock, &["out", "nowhere"]), Vec::new(), &mut |_| ControlFlow::Continue(()));
    let Err(error) = result else { panic!("it must not start") };
    assert!(matches!(&error, Error::TopicMissing(topic) if topic == "nowhere"), "{error}");
}
