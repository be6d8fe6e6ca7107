//! Promise: a handler of several topics, with any numbers of partitions, loses no event of any
//! topic and keeps the order of each key in each partition, while instances join and leave.

use std::collections::BTreeSet;

use keylane_tests::check::{self, History};
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Follower, Group, Received, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::skip::print_line;
use keylane_tests::wait;

/// Partitions of the three topics.
const PARTITIONS: [i32; 3] = [5, 1, 3];
const ALL_PARTITIONS: usize = 9;
/// Events of each topic that are produced at a time, and in total.
const PORTION: usize = 700;
const EVENTS: usize = 4 * PORTION;

#[test]
fn each_topic_keeps_its_events_and_their_order_while_an_instance_joins_and_leaves() {
    let Some(cluster) = kafka::shared() else { return };
    let flows = flows(cluster);
    let mut produced = 0;
    // Every topic has unhandled events whenever partitions move.
    let mut produce = || {
        for flow in &flows {
            flow.producer()
                .send_all(&flow.input, (produced..produced + PORTION).map(event))
                .expect("acknowledged");
        }
        produced += PORTION;
    };
    let mut done = Done::of(&flows[0]);
    let mut staying = Keylane::run(&settings(&flows, "staying"), &[]);
    produce();
    done.wait_for(PORTION);
    produce();
    let mut visiting = Keylane::run(&settings(&flows, "visiting"), &[]);
    wait_for_members(&flows[0].members, &["staying", "visiting"]);
    produce();
    done.wait_for(6 * PORTION);
    produce();
    visiting.terminate();
    visiting.expect_exit(0);
    wait_for_members(&flows[0].members, &["staying"]);
    flows.iter().for_each(Flow::wait_until_committed);
    staying.terminate();
    staying.expect_exit(0);

    let outputs = kafka::read_all(&cluster.bootstrap(), &flows[0].output);
    assert_eq!(outputs.len(), 3 * EVENTS, "each event of each topic once");
    let mut ownerships = 0;
    for flow in &flows {
        let inputs = kafka::read_all(&cluster.bootstrap(), &flow.input);
        let of_it = |output: &&Received| output.text("keylane-origin-topic") == flow.input;
        let outputs: Vec<Received> = outputs.iter().filter(of_it).cloned().collect();
        let report = check::check(&History::of(&inputs, &outputs, &flow.input));
        print_line(&format!("{} partitions: {report}", flow.partitions));
        report.assert_clean();
        assert_eq!((report.outcomes, report.repeats), (EVENTS, [].into()));
        ownerships += report.ownerships.len();
    }
    assert!(ownerships > ALL_PARTITIONS, "no partition changed its owner");
}

/// Three input topics of one group, with the output and the dead letters of the first one.
fn flows(cluster: &kafka::Cluster) -> [Flow<'_>; 3] {
    let first = Flow::new(cluster, PARTITIONS[0], &[]);
    let other = |partitions: i32| {
        let input = kafka::unique("in");
        cluster.admin().create_topic(&input, partitions, &[]);
        let (output, dead_letters, group) =
            (first.output.clone(), first.dead_letters.clone(), first.group.clone());
        let members = Group::new(&cluster.bootstrap(), &group);
        Flow { cluster, input, output, dead_letters, group, members, partitions }
    };
    let (second, third) = (other(PARTITIONS[1]), other(PARTITIONS[2]));
    [first, second, third]
}

fn settings(flows: &[Flow<'_>; 3], client: &str) -> Settings {
    let topics: Vec<&str> = flows.iter().map(|flow| flow.input.as_str()).collect();
    flows[0]
        .settings(&guest("sleepy"), client)
        .set("handlers.t", "topics", topics)
        .set("handlers.t.dead_letters", "topic", flows[0].dead_letters.as_str())
        // No process fails here. A slow machine must not cause the eviction of a member, and a call
        // must end before its partition is revoked.
        .set("kafka.client", "session.timeout.ms", 30_000)
        .set("handlers.t", "max_batch", 1)
        .set("handlers.t.lanes", "max_concurrency", 16)
}

/// The topics share their keys: only topic and partition distinguish their lanes.
fn event(number: usize) -> Record {
    Record::new(format!("key-{}", number * 31 % 97), "v").with("sleep-ms", "10").with("emit", "")
}

fn wait_for_members(group: &Group, clients: &[&str]) {
    wait::until_ok("the group to settle", wait::STATE_TIMEOUT, || match group.state() {
        state if state.is_settled(clients, ALL_PARTITIONS) => Ok(()),
        state => Err(format!("it is {state:?}")),
    });
}

/// The events of all topics with an output so far.
struct Done {
    follower: Follower,
    events: BTreeSet<(String, Option<i64>, Option<i64>)>,
}

impl Done {
    fn of(flow: &Flow<'_>) -> Self {
        Self { follower: Follower::new(&flow.cluster.bootstrap(), &flow.output), events: BTreeSet::new() }
    }

    fn count(&mut self) -> usize {
        self.events.extend(self.follower.take().iter().map(|output| {
            let number = |name: &str| output.number(name);
            let topic = output.text("keylane-origin-topic").to_owned();
            (topic, number("keylane-origin-partition"), number("keylane-origin-offset"))
        }));
        self.events.len()
    }

    fn wait_for(&mut self, events: usize) {
        wait::until("events to be done", wait::STATE_TIMEOUT, || self.count() >= events);
    }
}
