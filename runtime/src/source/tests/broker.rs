//! Fixture of the source's tests.
use std::ffi::CString;
use std::time::Duration;

use crate::config::FetchLimits;
use crate::config::{Assignor, StartPolicy};
use crate::librdkafka::{Deadline, ErrorCode, Header, Producer, ProducerRecord, Properties};
use crate::source::embedded::EmbeddedBroker;
use crate::source::{Ends, SourceSpec};

pub(super) const TOPIC: &str = "orders";
/// Time limit of a test.
pub(super) const TEST_LIMIT: Duration = Duration::from_secs(60);

pub(super) fn broker(partitions: i32) -> EmbeddedBroker {
    let broker = EmbeddedBroker::start(partitions).expect("the embedded broker starts");
    broker.create_topic(TOPIC).expect("the topic is created");
    broker
}

pub(super) fn spec(broker: &EmbeddedBroker, assignor: Assignor) -> SourceSpec {
    SourceSpec {
        handler: "t".to_owned(),
        client_properties: vec![
            ("bootstrap.servers".to_owned(), broker.bootstrap_servers()),
            // Whenever a member joins or leaves, the mock cluster waits for the session timeout less one second.
            ("session.timeout.ms".to_owned(), "3000".to_owned()),
            ("heartbeat.interval.ms".to_owned(), "200".to_owned()),
        ],
        credentials: None,
        topics: vec![TOPIC.to_owned()],
        group_id: "group".to_owned(),
        group_instance_id: None,
        delivery: crate::status::DeliveryMode::AtLeastOnce,
        assignor,
        start: StartPolicy::Earliest,
        ends: Ends::Never,
        create_topics: false,
        fetch: FetchLimits {
            queue_bytes: 1 << 20,
            partition_response_bytes: 1 << 20,
            response_bytes: 16 << 20,
            partitions: 8,
        },
        commit_timeout: Duration::from_secs(2),
        needs: crate::source::TopicNeeds::default(),
        feed: None,
        statistics: None,
    }
}

/// A record for [`send`].
#[derive(Clone, Copy, Default)]
pub(super) struct Sent<'a> {
    pub(super) partition: i32,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: &'a [Header<'a>],
}

/// Sends records in order and waits for their acks.
pub(super) fn send<'a>(bootstrap: &str, topic: &str, records: impl IntoIterator<Item = Sent<'a>>) {
    let mut properties = Properties::default();
    properties.set("bootstrap.servers", bootstrap);
    properties.set("enable.idempotence", "true");
    let producer = Producer::new(&properties).expect("the properties are valid");
    let name = CString::new(topic).expect("the name has no NUL byte");
    let topic = producer.topic(&name).expect("the topic name is valid");
    let mut sent = 0;
    for record in records {
        let produce = ProducerRecord {
            partition: Some(record.partition),
            timestamp: Some(1_000),
            key: record.key,
            value: record.value,
            headers: record.headers,
            id: 0,
        };
        producer.produce(&topic, &produce).expect("the queue has capacity");
        sent += 1;
    }
    let reports = producer.main_queue();
    let limit = Deadline::after(TEST_LIMIT);
    while sent > 0 {
        let Some(mut event) = reports.poll(limit.remaining()) else {
            panic!("no delivery report for {sent} records")
        };
        while let Some(report) = event.next_report() {
            assert_eq!(report.error, ErrorCode::NONE);
            sent -= 1;
        }
    }
}
