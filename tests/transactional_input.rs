//! Promise: a topic that is written in transactions loses no committed record, however many transactions are aborted,
//! and whichever instances start, join or leave meanwhile. A reader never receives the offsets of markers and aborted
//! records. If a read begins at such an offset, only a reader with a verified position can distinguish a gap from a
//! loss.

use std::time::Duration;

use keylane_tests::background::Background;
use keylane_tests::check::{self, History};
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Received, Record, Transactions, unique};
use keylane_tests::keylane::{Keylane, binary};
use keylane_tests::skip::print_line;
use keylane_tests::wait;
use rustix::process::Signal;

/// New groups, one after another.
const STARTS: usize = 10;

#[test]
fn a_start_on_aborted_transactions_misses_nothing() {
    const PARTITIONS: i32 = 200;
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let transactions = Transactions::new(&cluster.bootstrap(), &unique("writer")).expect("a coordinator");
    let event = |number: i32| Record::new(format!("key-{number}"), "v").to(number % PARTITIONS);
    transactions.abort(&flow.input, (0..PARTITIONS).map(event)).expect("aborted");
    transactions.commit(&flow.input, (0..3 * PARTITIONS).map(event)).expect("committed");
    let trickle = Trickle::new(&flow);
    for start in 0..STARTS {
        let flow = flow.again();
        let settings = flow
            .settings(&guest("echo"), "reader")
            .set("handlers.t", "topics", vec![flow.input.as_str(), &trickle.topic])
            .set("handlers.t.dead_letters", "topic", flow.dead_letters.as_str());
        let mut keylane = Keylane::run(&settings, &[]);
        flow.wait_until_committed();
        keylane.terminate();
        keylane.expect_exit(0);
        let report = check::check(&committed_history(&flow));
        print_line(&format!("start {start}: {report}"));
        report.assert_clean();
    }
    trickle.load.stop();
}

#[test]
fn cooperative_joins_under_transactions_miss_nothing() {
    joins_under_transactions_miss_nothing("cooperative-sticky");
}

#[test]
fn range_joins_under_transactions_miss_nothing() {
    joins_under_transactions_miss_nothing("range");
}

/// One instance stays, another joins and leaves, while two writers commit and abort small transactions.
fn joins_under_transactions_miss_nothing(assignor: &str) {
    const PARTITIONS: i32 = 64;
    const JOINS: usize = 6;
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let writers = [0, 1].map(|writer| write(&flow, writer));
    let settings = |client: &str| {
        flow.settings(&guest("echo"), client).set("kafka", "assignor", assignor).set(
            "kafka.client",
            "session.timeout.ms",
            30_000,
        )
    };
    let mut staying = Keylane::run(&settings("staying"), &[]);
    flow.wait_for_members(&["staying"]);
    for _ in 0..JOINS {
        let mut visiting = Keylane::run(&settings("visiting"), &[]);
        flow.wait_for_members(&["staying", "visiting"]);
        until_more_is_written(&writers);
        visiting.terminate();
        visiting.expect_exit(0);
        flow.wait_for_members(&["staying"]);
    }
    let written: usize = writers.map(Background::stop).iter().sum();
    flow.wait_until_committed();
    staying.terminate();
    staying.expect_exit(0);

    let report = check::check(&committed_history(&flow));
    print_line(&format!("{assignor}: {written} transactions, {JOINS} joins: {report}"));
    report.assert_clean();
    assert!(
        report.ownerships.len() > usize::try_from(PARTITIONS).expect("few partitions"),
        "no partition changed its owner"
    );
}

/// One instance stays, others are killed (-9) while two writers commit and abort small transactions: the new owners
/// of their partitions begin at markers, at aborted records, and within open transactions.
#[test]
fn kills_under_transactions_miss_nothing() {
    const PARTITIONS: i32 = 64;
    const KILLS: usize = 4;
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let writers = [0, 1].map(|writer| write(&flow, writer));
    // Commits are rare: the uncommitted work of a killed instance is repeated.
    let settings = |client: &str| {
        flow.settings(&guest("echo"), client).set("handlers.t.commit", "interval", "5s").set(
            "handlers.t.commit",
            "every",
            1_000_000,
        )
    };
    let mut staying = Keylane::run(&settings("staying"), &[]);
    flow.wait_for_members(&["staying"]);
    for kill in 0..KILLS {
        let name = format!("killed-{kill}");
        let mut killed = Keylane::run(&settings(&name), &[]);
        flow.wait_for_members(&["staying", &name]);
        until_more_is_written(&writers);
        killed.kill();
        flow.wait_for_members(&["staying"]);
    }
    let written: usize = writers.map(Background::stop).iter().sum();
    flow.wait_until_committed();
    staying.terminate();
    staying.expect_exit(0);

    let report = check::check(&committed_history(&flow));
    print_line(&format!("{written} transactions, {KILLS} kills: {report}"));
    report.assert_clean();
    assert!(report.repeated() > 0, "no kill caused a repeat: the run proves nothing");
}

/// The committed offset is above the last stable offset, but not above the end of the log. So it is
/// inside the log.
#[test]
fn a_commit_inside_an_open_transaction_waits_for_it() {
    let Some(cluster) = kafka::shared() else { return };
    // Built before a transaction is opened, because the transaction would time out meanwhile.
    let component = guest("echo");
    binary();
    for out_of_range in ["fail", "earliest", "latest"] {
        let flow = Flow::new(cluster, 1, &[]);
        let event = |number: usize| Record::new(format!("key-{number}"), "v");
        flow.producer().send_all(&flow.input, (0..10).map(event)).expect("acknowledged");
        let transactions = Transactions::new(&cluster.bootstrap(), &unique("writer")).expect("a coordinator");
        transactions.open(&flow.input, (10..20).map(event)).expect("written");
        flow.members.commit(&flow.input, 0, 20, b"");
        let settings = flow.settings(&component, "reader").set("handlers.t", "out_of_range", out_of_range);
        let mut keylane = Keylane::run(&settings, &[]);
        let begun =
            keylane.wait_for("the partition to be assigned", |line| line["message"] == "ownership started");
        assert_eq!(begun["offset"], 20, "{out_of_range}");
        keylane.signal(Signal::USR1);
        let report = keylane.wait_for("the report", |line| line["message"] == "handler report");
        assert_eq!(
            (&report["settled"], &report["partitions"]),
            (&0.into(), &1.into()),
            "the partition waits: {report}"
        );
        transactions.commit_open().expect("committed");
        flow.producer().send_all(&flow.input, [event(21)]).expect("acknowledged");
        flow.wait_until_committed();
        keylane.terminate();
        keylane.expect_exit(0);
        assert_eq!(handled(&flow, 0), [21], "{out_of_range}");
    }
}

/// An open transaction of a former owner may commit an offset of one partition. Only that partition
/// waits for it.
#[test]
fn an_undecided_commit_holds_only_its_own_partition() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 4, &[]);
    let event = |number: i32| Record::new(format!("key-{number}"), "v").to(number % 4);
    flow.producer().send_all(&flow.input, (0..40).map(event)).expect("acknowledged");
    let owner = Transactions::new(&cluster.bootstrap(), &unique("owner")).expect("a coordinator");
    owner
        .begin_offset_commit(&cluster.bootstrap(), &flow.group, &flow.input, 0, 5)
        .expect("an open transaction");
    let mut keylane = Keylane::run(&flow.settings(&guest("echo"), "reader"), &[]);
    wait::until("the others to be done", wait::STATE_TIMEOUT, || {
        (1..4).all(|partition| handled(&flow, partition) == (0..10).collect::<Vec<i64>>())
    });
    assert!(handled(&flow, 0).is_empty());
    keylane.wait_for("the wait to be reported", |line| {
        line["partition"] == 0 && line.to_string().contains("transaction")
    });
    owner.commit_open().expect("committed");
    flow.wait_until_committed();
    keylane.terminate();
    keylane.expect_exit(0);
    assert_eq!(handled(&flow, 0), (5..10).collect::<Vec<i64>>());
}

/// Offsets of this partition's events that have an output, ascending.
fn handled(flow: &Flow<'_>, partition: i64) -> Vec<i64> {
    let outputs = kafka::read_all(&flow.cluster.bootstrap(), &flow.output);
    let of_it = |output: &&Received| output.number("keylane-origin-partition") == Some(partition);
    let offset = |output: &Received| output.number("keylane-origin-offset");
    let mut offsets: Vec<i64> = outputs.iter().filter(of_it).filter_map(offset).collect();
    offsets.sort_unstable();
    offsets
}

/// Transactions of one to three events on each of 16 partitions; every tenth is aborted.
fn write(flow: &Flow<'_>, writer: usize) -> Background {
    let transactions =
        Transactions::new(&flow.cluster.bootstrap(), &unique("writer")).expect("a coordinator");
    let topic = flow.input.clone();
    Background::repeat(Duration::from_millis(20), move |step| {
        let partitions = (0..16).map(|at| i32::try_from((step * 16 + at) % 64).expect("few partitions"));
        let events = partitions.flat_map(|partition| (0..=step % 3).map(move |number| (partition, number)));
        let records = events.map(|(partition, number)| {
            Record::new(format!("key-{writer}-{partition}-{}", number % 2), format!("{step}")).to(partition)
        });
        if step % 10 == writer {
            transactions.abort(&topic, records).expect("aborted");
        } else {
            transactions.commit(&topic, records).expect("committed");
        }
    })
}

fn until_more_is_written(writers: &[Background]) {
    let written = || writers.iter().map(Background::steps).sum::<usize>();
    let before = written();
    wait::until("the writers to continue", wait::STATE_TIMEOUT, || written() > before + 50);
}

/// The history of the committed events.
fn committed_history(flow: &Flow<'_>) -> History {
    let inputs = kafka::read_committed(&flow.cluster.bootstrap(), &flow.input);
    let outputs = kafka::read_all(&flow.cluster.bootstrap(), &flow.output);
    let of_input = |record: &Received| record.text("keylane-origin-topic") == flow.input;
    let outputs: Vec<Received> = outputs.into_iter().filter(of_input).collect();
    History::of(&inputs, &outputs, &flow.input)
}

/// A little traffic on a separate topic, so that the readers are never idle.
struct Trickle {
    topic: String,
    load: Background,
}

impl Trickle {
    fn new(flow: &Flow<'_>) -> Self {
        let topic = unique("trickle");
        flow.cluster.admin().create_topic(&topic, 4, &[]);
        let (producer, to) = (flow.producer(), topic.clone());
        let load = Background::repeat(Duration::from_millis(5), move |step| {
            let record = Record::new(format!("{step}"), "v");
            producer.enqueue(&to, [record]).expect("capacity in the queue");
        });
        Trickle { topic, load }
    }
}
