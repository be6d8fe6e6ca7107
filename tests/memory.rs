//! Promise: prefetched records stay within the budget, however many partitions and consumers exist.

use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Producer, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::skip;
use keylane_tests::wait;

/// Bytes of the input, several times the prefetch limit.
const EVENTS: usize = 100_000;
const VALUE_BYTES: usize = 2_000;
/// Less than the share of one of 256 partitions.
const BATCH_BYTES: usize = 16_384;
/// Threads, engine and clients vary a little from run to run.
const NOISE: u64 = 96;

/// The same bytes are in 8 partitions and in 256. The handler waits for each event, so the prefetch limit is reached.
#[test]
fn many_partitions_take_no_more_memory_than_few() {
    let Some(cluster) = kafka::shared() else { return };
    let peak = |partitions: i32| {
        let flow = Flow::new(cluster, partitions, &[]);
        fill(&flow);
        run(&[&flow], &budget(flow.settings(&guest("pauses"), "t")))
    };
    let (few, many) = (peak(8), peak(256));
    skip::print_line(&format!("peak MiB: {few} for 8 partitions, {many} for 256"));
    assert!(many <= few + NOISE, "{few} MiB for 8 partitions, {many} for 256");
}

/// Four handlers on one topic share the memory that one handler may use.
#[test]
fn four_consumers_take_no_more_memory_than_one() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 8, &[]);
    fill(&flow);
    let others: Vec<Flow<'_>> = (0..3).map(|_| flow.again()).collect();
    let one = budget(flow.settings(&guest("noop"), "t"));
    let four = others.iter().enumerate().fold(
        budget(flow.again().settings(&guest("noop"), "t")),
        |settings, (at, other)| {
            let section = format!("handlers.h{at}");
            settings
                .set(&section, "component", guest("noop").display().to_string())
                .set(&section, "topics", vec![other.input.as_str()])
                .set(&section, "group_id", other.group.as_str())
        },
    );
    let alone = run(&[&flow], &one);
    let together = run(&others.iter().collect::<Vec<_>>(), &four);
    skip::print_line(&format!("peak MiB: {alone} for one handler, {together} for four"));
    assert!(together <= alone + NOISE, "{alone} MiB for one handler, {together} for four");
}

/// A topic that gets 31 more partitions while it is read does not take 32 times the budget, and the growth is reported.
#[test]
fn added_partitions_take_little_more_memory() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = budget(flow.settings(&guest("noop"), "t")).set(
        "kafka.client",
        "topic.metadata.refresh.interval.ms",
        1000,
    );
    let mut keylane = Keylane::run(&settings, &[]);
    flow.wait_for_members(&["t"]);
    let before = keylane.peak_bytes().expect("a running process") >> 20;
    cluster.admin().add_partitions(&flow.input, 32);
    keylane.wait_for("the growth to be reported", |line| {
        line.to_string().contains("more partitions than expected at startup")
    });
    fill(&flow);
    let grown = Flow { partitions: 32, ..flow };
    grown.wait_until_committed();
    let after = keylane.peak_bytes().expect("a running process") >> 20;
    keylane.terminate();
    keylane.expect_exit(0);
    skip::print_line(&format!("peak MiB: {before} with one empty partition, {after} with 32"));
    assert!(after <= before + 128 + NOISE, "{before} MiB, then {after}");
}

fn budget(settings: Settings) -> Settings {
    settings.set("runtime", "memory_budget", "32MiB")
}

/// A batch is fetched whole, even if it is larger than the share of its partition, so large batches would add up to more
/// than the budget.
fn fill(flow: &Flow<'_>) {
    let event = |number: usize| Record::new(format!("key-{number}"), "x".repeat(VALUE_BYTES));
    let producer = Producer::in_batches(&flow.cluster.bootstrap(), BATCH_BYTES);
    producer.send_all(&flow.input, (0..EVENTS).map(event)).expect("acknowledged");
}

/// The peak memory of a run to the end, in MiB.
fn run(flows: &[&Flow<'_>], settings: &Settings) -> u64 {
    let mut keylane = Keylane::run(settings, &[]);
    for flow in flows {
        flow.wait_until_committed();
    }
    let peak = wait::until_some("the peak memory", wait::STATE_TIMEOUT, || keylane.peak_bytes()) >> 20;
    keylane.terminate();
    keylane.expect_exit(0);
    peak
}
