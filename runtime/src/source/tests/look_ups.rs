//! Look-ups while the cluster changes.
use std::time::Duration;

use keylane_core::Partition;

use super::broker::PATIENCE;
use crate::librdkafka::{
    Deadline, Isolation, MockCluster, Producer, Properties, Queue, Requests, Wake, WakeHandle, admin_broker,
};
use crate::source::StartPolicy;
use crate::source::look_ups::{Answer, GroupCommits, LookUpId, LookUps, Subject, TopicFacts};

const BROKERS: u16 = 2;
const HANGS: i32 = 2;
const ANSWERS: i32 = 1;
/// Of one answer: longer than the test may take.
const LIMIT: Duration = Duration::from_secs(120);
const ASKED: LookUpId = LookUpId { partition: Partition { topic: 0, number: 0 }, epoch: 1 };

struct Bench {
    cluster: MockCluster,
    look_ups: LookUps,
    wake: WakeHandle,
}

impl Bench {
    fn new() -> Bench {
        let cluster = MockCluster::start(BROKERS).expect("the mock cluster starts");
        cluster.create_topic(c"orders", 1).expect("it takes topics");
        cluster.set_coordinator(c"group", ANSWERS).expect("it takes coordinators");
        cluster.set_leader(c"orders", 0, HANGS).expect("it takes leaders");
        let mut properties = Properties::default();
        properties.set("bootstrap.servers", cluster.bootstrap_servers());
        properties.set("group.id", "group");
        let client = Producer::new(&properties).expect("the properties are right");
        let wake = Wake::new().expect("an eventfd can be made");
        let subject = Subject {
            group: c"group".to_owned(),
            topics: vec![TopicFacts {
                name: c"orders".to_owned(),
                id: [0; 16],
                partitions: 1,
                has_commits: false,
            }],
            broker: admin_broker(client.client(), PATIENCE).expect("a broker answers"),
            policy: StartPolicy::Earliest,
            wants_ends: false,
            isolation: Isolation::Committed,
            limit: LIMIT,
        };
        let requests = Requests::new(client.client(), Queue::new(client.client()).wakes(&wake));
        let commits = GroupCommits::new(properties, &wake);
        Bench { cluster, look_ups: LookUps::new(subject, requests, commits), wake }
    }

    /// Asks until the start is known.
    fn find_start(&mut self) {
        let limit = Deadline::after(PATIENCE);
        let mut reason = String::new();
        self.look_ups.ask_start(ASKED);
        while !limit.is_over() {
            self.look_ups.send(Duration::ZERO, false);
            match self.look_ups.next(Duration::ZERO) {
                Some(Answer::Start { found: Ok(_), .. }) => return,
                Some(Answer::Start { found: Err(error), .. }) => {
                    reason = error.reason;
                    self.look_ups.ask_start(ASKED);
                }
                Some(_) => {}
                None => {
                    self.wake.wait(Some(limit.remaining()));
                }
            }
        }
        panic!("the start is not known: {reason}");
    }
}

/// The client asks the one that hangs until it does not expect its answer any more.
#[test]
fn a_start_is_found_after_the_leader_has_moved_from_a_broker_that_hangs() {
    let mut bench = Bench::new();
    bench.find_start();
    bench.cluster.set_round_trip_time(HANGS, LIMIT).expect("it can be slow");
    bench.cluster.set_leader(c"orders", 0, ANSWERS).expect("it takes leaders");
    bench.find_start();
}
