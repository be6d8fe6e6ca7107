//! Promise: leaders of partitions and the group's coordinator may move under load, whether their
//! broker stops cleanly, is killed, or hangs. The work continues meanwhile, nothing is lost, and
//! every key keeps its order.

use keylane_tests::check;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Cluster, Options, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::load::Load;
use keylane_tests::skip::print_line;

const PARTITIONS: i32 = 6;
const BACKLOG: usize = 2_000;

#[derive(Debug, Clone, Copy)]
enum BrokerFault {
    Stop,
    Kill,
    Freeze,
}

/// The client's limits are the defaults: one minute for a response, five minutes for metadata.
/// After the broker is killed, the consumer sessions of both members time out. The members get
/// their partitions back while the broker is unavailable.
#[test]
fn brokers_stop_or_die_and_nothing_is_lost() {
    move_brokers(&[BrokerFault::Stop, BrokerFault::Kill], settings);
}

#[test]
fn a_broker_hangs_and_nothing_is_lost() {
    move_brokers(&[BrokerFault::Freeze], |flow, client| {
        settings(flow, client)
            // A broker that hangs is fenced when its session of 4 s times out. Until then it delays
            // commits, and the members stay in the group.
            .set("kafka.client", "session.timeout.ms", 10_000)
            // Requests to a broker that hangs time out, and leaders are looked up again, within the time of a test.
            .set("kafka.client", "socket.timeout.ms", 5_000)
            .set("kafka.client", "topic.metadata.refresh.interval.ms", 1_000)
    });
}

/// Each fault is applied to the coordinator, or to a leader, while two instances work.
fn move_brokers(faults: &[BrokerFault], settings: impl Fn(&Flow<'_>, &str) -> Settings) {
    let Some(cluster) = kafka::dedicated(&Options { brokers: 3, ..Options::default() }) else { return };
    let flow = Flow::new(&cluster, PARTITIONS, &[]);
    let admin = cluster.admin();
    let mut load = Load::new(&flow, BACKLOG, event);
    let mut instances = ["one", "two"].map(|client| Keylane::run(&settings(&flow, client), &[]));
    load.until("both to be members", |_| is_settled(&flow));
    for &fault in faults {
        let victim = match fault {
            BrokerFault::Kill => *admin.leaders(&flow.input).first().expect("the topic has partitions"),
            BrokerFault::Stop | BrokerFault::Freeze => flow.members.coordinator(&admin),
        };
        let id = usize::try_from(victim).expect("every partition has a leader");
        apply(&cluster, fault, id);
        load.until("leaders and coordinator to move", |_| {
            !admin.leaders(&flow.input).contains(&victim) && flow.members.coordinator(&admin) != victim
        });
        load.until_more("the work to continue", BACKLOG);
        repair(&cluster, fault, id);
        load.until("all replicas to be in sync", |_| {
            [&flow.input, &flow.output, "__consumer_offsets"].iter().all(|topic| admin.is_in_sync(topic))
        });
        load.until("the group to settle", |_| is_settled(&flow));
        for keylane in &mut instances {
            assert!(!keylane.has_ended(), "ended after {fault:?}{}", keylane.tail());
        }
    }
    load.finish();
    flow.wait_until_committed();
    for keylane in &mut instances {
        keylane.terminate();
        keylane.expect_exit(0);
    }
    let report = check::check(&flow.history());
    print_line(&format!("{} events, after {faults:?}: {report}", load.produced()));
    report.assert_clean();
}

fn settings(flow: &Flow<'_>, client: &str) -> Settings {
    flow.settings(&guest("sleepy"), client)
        // At most 800 events per second, because throughput is not the subject of this test.
        .set("handlers.t.lanes", "max_concurrency", 16)
}

fn apply(cluster: &Cluster, fault: BrokerFault, broker: usize) {
    match fault {
        BrokerFault::Stop => cluster.stop(broker),
        BrokerFault::Kill => cluster.kill(broker),
        BrokerFault::Freeze => cluster.freeze(broker),
    }
}

fn repair(cluster: &Cluster, fault: BrokerFault, broker: usize) {
    match fault {
        BrokerFault::Stop | BrokerFault::Kill => cluster.restart(broker),
        BrokerFault::Freeze => cluster.thaw(broker),
    }
}

/// Only valid while every broker answers, because listing groups waits for all brokers.
fn is_settled(flow: &Flow<'_>) -> bool {
    flow.members.state().is_settled(&["one", "two"], usize::try_from(PARTITIONS).expect("few partitions"))
}

fn event(number: usize) -> Record {
    Record::new(format!("key-{}", number * 7 % 499), "v").with("sleep-ms", "20").with("emit", "")
}
