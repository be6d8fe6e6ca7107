//! Lookups during cluster changes.
use std::ffi::CStr;
use std::time::Duration;

use keylane_core::Partition;

use super::broker::TEST_LIMIT;
use crate::config::StartPolicy;
use crate::librdkafka::{
    Deadline, ErrorCode, Isolation, MockCluster, Producer, Properties, Queue, Requests, TopicDescription,
    Wake, WakeHandle, admin_broker,
};
use crate::source::lookups::{
    CommittedOffsetsReader, LookupId, LookupParameters, LookupResult, Lookups, TopicFacts,
};

const BROKERS: u16 = 2;
const HANGING_BROKER: i32 = 2;
const HEALTHY_BROKER: i32 = 1;
/// The time limit of one response, which is longer than the test may take.
const TIMEOUT: Duration = Duration::from_secs(120);
const ID: LookupId = LookupId { partition: Partition { topic: 0, number: 0 }, assignment: 1 };

struct Bench {
    cluster: MockCluster,
    lookups: Lookups,
    wake: WakeHandle,
}

impl Bench {
    fn new() -> Bench {
        let cluster = MockCluster::start(BROKERS).expect("the mock cluster starts");
        cluster.create_topic(c"orders", 1).expect("the topic is created");
        cluster.set_coordinator(c"group", HEALTHY_BROKER).expect("the coordinator is set");
        cluster.set_leader(c"orders", 0, HANGING_BROKER).expect("the leader is set");
        let mut properties = Properties::default();
        properties.set("bootstrap.servers", cluster.bootstrap_servers());
        properties.set("group.id", "group");
        let client = Producer::new(&properties).expect("the properties are valid");
        let wake = Wake::new().expect("an eventfd can be created");
        let parameters = LookupParameters {
            group: c"group".to_owned(),
            topics: [c"orders", c"returns"].map(topic).into(),
            broker: admin_broker(client.client(), TEST_LIMIT).expect("a broker responds"),
            policy: StartPolicy::Earliest,
            needs_ends: false,
            isolation: Isolation::Committed,
            timeout: TIMEOUT,
            member_check: None,
        };
        let requests = Requests::new(client.client(), Queue::new(client.client()).with_wake(&wake));
        let committed = CommittedOffsetsReader::new(properties, &wake);
        Bench { cluster, lookups: Lookups::new(parameters, requests, committed), wake }
    }

    /// Repeats the lookup until the start position is found.
    fn find_start(&mut self) {
        let limit = Deadline::after(TEST_LIMIT);
        let mut reason = String::new();
        self.lookups.request_start(ID);
        while !limit.is_over() {
            self.lookups.send(Duration::ZERO, false);
            match self.lookups.next(Duration::ZERO) {
                Some(LookupResult::Start { found: Ok(_), .. }) => return,
                Some(LookupResult::Start { found: Err(error), .. }) => {
                    reason = error.reason;
                    self.lookups.request_start(ID);
                }
                Some(_) => {}
                None => {
                    self.wake.wait(Some(limit.remaining()));
                }
            }
        }
        panic!("start position not found: {reason}");
    }
}

fn topic(name: &CStr) -> TopicFacts {
    TopicFacts { name: name.to_owned(), id: [0; 16], partitions: 1, start_policy_applies: true }
}

#[test]
fn every_topic_that_one_description_shows_as_recreated_is_reported() {
    let mut bench = Bench::new();
    for (id, replaced) in [([1; 16], &[][..]), ([2; 16], &[0, 1]), ([2; 16], &[])] {
        let described = |name: &CStr| TopicDescription {
            name: name.to_owned(),
            partitions: 1,
            id,
            error: ErrorCode::NONE,
        };
        bench.lookups.take_topics(&[c"orders", c"returns"].map(described));
        let mut reported = Vec::new();
        while let Some(result) = bench.lookups.next(Duration::ZERO) {
            if let LookupResult::TopicRecreated(topic) = result {
                reported.push(topic);
            }
        }
        assert_eq!(reported, replaced, "{id:?}");
    }
}

#[test]
fn the_partition_count_of_a_topic_is_reported_when_it_changes() {
    let mut bench = Bench::new();
    let failed = ErrorCode::UNKNOWN_TOPIC_OR_PART;
    for (partitions, error, expected) in [
        (3, ErrorCode::NONE, Some(3)),
        (3, ErrorCode::NONE, None),
        (0, failed, None),
        (4, ErrorCode::NONE, Some(4)),
        (4, ErrorCode::NONE, None),
    ] {
        // Brokers without topic ids have partition counts, too.
        let described = TopicDescription { name: c"returns".to_owned(), partitions, id: [0; 16], error };
        bench.lookups.take_topics(&[described]);
        let mut reported = None;
        while let Some(result) = bench.lookups.next(Duration::ZERO) {
            let LookupResult::PartitionCount(1, count) = result else { panic!("nothing else has changed") };
            assert_eq!(reported.replace(count), None);
        }
        assert_eq!(reported, expected);
    }
}

/// The client sends requests to the hanging broker until they time out.
#[test]
fn a_start_is_found_after_the_leader_moves_from_a_hanging_broker() {
    let mut bench = Bench::new();
    bench.find_start();
    bench.cluster.set_round_trip_time(HANGING_BROKER, TIMEOUT).expect("the round-trip time is set");
    bench.cluster.set_leader(c"orders", 0, HEALTHY_BROKER).expect("the leader is set");
    bench.find_start();
}
