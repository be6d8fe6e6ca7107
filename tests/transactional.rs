//! Promise: with `delivery = "transactional"`, every event takes effect exactly once for a reader of committed records:
//! its outputs or its dead letter, and its offset, become visible together or not at all, whatever is killed, frozen or
//! moved.
//!
//! `make campaign` is the same with a million events and faults of brokers.

use keylane_tests::admin::Admin;
use keylane_tests::campaign::{self, Delivery, Fault, Options, event, expected};
use keylane_tests::check::once::{self, History, Report};
use keylane_tests::flow::Flow;
use keylane_tests::kafka;
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::skip::print_line;
use keylane_tests::wait;
use rustix::process::Signal;
use serde_json::Value;

const PARTITIONS: i32 = 6;
const EVENTS: usize = 5_000;

#[test]
fn every_event_takes_effect_once_through_kills_freezes_and_moves() {
    let Some(cluster) = kafka::shared() else { return };
    let mut faults = vec![Fault::Kill; 8];
    faults.extend([Fault::Freeze, Fault::Restart, Fault::Resize]);
    let options = Options {
        seed: 1,
        partitions: 12,
        events: 120_000,
        faults: Fault::shuffled(faults, 1),
        instances: 3,
        delivery: Delivery::Transactional,
        state: false,
        // The open transaction of a killed instance holds its partitions for this long.
        timeout: Some("5s"),
        logs: None,
        verbose: false,
    };
    let summary = campaign::run(cluster, &options);
    print_line(&summary.to_string());
    summary.report.assert_clean();
    assert!(summary.aborted > 0, "no fault met an open transaction: the run proves nothing");
}

/// The outputs of a long interval are not visible, and are not in the log. The next owner produces them.
#[test]
fn a_killed_instance_leaves_nothing_visible() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    flow.producer().send_all(&flow.input, (0..EVENTS).map(event)).expect("acknowledged");
    let mut killed = Keylane::run(&with_interval(&flow, "killed", "1m"), &[]);
    flow.wait_for_members(&["killed"]);
    wait::until("all events to be settled, and nothing to be committed", wait::STATE_TIMEOUT, || {
        settled(&mut killed) == EVENTS
    });
    killed.kill();
    let report = read(&flow);
    report.assert_clean_so_far();
    assert_eq!((report.outputs, report.dead_letters), (0, 0), "the interval had not passed");
    assert!(flow.committed().iter().all(|committed| committed.offset.unwrap_or(0) == 0));

    let mut next = Keylane::run(&settings(&flow, "next"), &[]);
    flow.wait_until_committed();
    stop(&mut next);
    read(&flow).assert_clean();
}

/// Records of a killed instance are in the log, in a transaction that nobody commits.
#[test]
fn an_open_transaction_of_a_killed_instance_is_aborted() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let mut killed = Keylane::run(&settings(&flow, "killed"), &[]);
    flow.wait_for_members(&["killed"]);
    let produced = freeze_in_transaction(&flow, &mut killed);
    killed.kill();
    let mut next = Keylane::run(&settings(&flow, "next"), &[]);
    flow.wait_until_committed();
    stop(&mut next);
    let report = read(&flow);
    print_line(&format!("killed in a transaction: {report}"));
    report.assert_clean();
    assert_eq!(report.events, produced);
    assert!(aborted(&flow, &report) > 0, "the transaction was not aborted");
}

/// A zombie: its transaction was open when it was frozen, its partitions have a new owner when it is resumed.
#[test]
fn a_frozen_instance_changes_nothing_and_continues() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let mut frozen = Keylane::run(&settings(&flow, "frozen"), &[]);
    flow.wait_for_members(&["frozen"]);
    let produced = freeze_in_transaction(&flow, &mut frozen);
    let mut other = Keylane::run(&settings(&flow, "other"), &[]);
    flow.wait_for_members(&["other"]);
    flow.wait_until_committed();
    let before = read(&flow);
    before.assert_clean();
    assert_eq!(before.events, produced);

    frozen.thaw();
    flow.wait_for_members(&["frozen", "other"]);
    let after = read(&flow);
    after.assert_clean();
    assert_eq!((after.outputs, after.dead_letters), (before.outputs, before.dead_letters));

    flow.producer().send_all(&flow.input, (produced..produced + EVENTS).map(event)).expect("acknowledged");
    stop(&mut other);
    flow.wait_until_committed();
    assert!(!frozen.has_ended(), "{}", frozen.tail());
    stop(&mut frozen);
    read(&flow).assert_clean();
}

/// The transactions would time out later than the test: only the instances themselves can end them in time.
#[test]
fn a_clean_stop_commits_everything() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let start = |client: &str| {
        let settings = with_interval(&flow, client, "1m").set("handlers.t.transactions", "timeout", "4m");
        Keylane::run(&settings, &[])
    };
    let mut instances = ["one", "two"].map(start);
    flow.wait_for_members(&["one", "two"]);
    flow.producer().send_all(&flow.input, (0..EVENTS).map(event)).expect("acknowledged");
    wait::until("settled events", wait::STATE_TIMEOUT, || {
        instances.iter_mut().all(|instance| settled(instance) > EVENTS / 10)
    });
    for instance in &mut instances {
        instance.terminate();
    }
    for instance in &mut instances {
        instance.expect_exit(0);
    }
    let report = read(&flow);
    print_line(&format!("stopped: {report}"));
    report.assert_clean_so_far();
    assert!(report.outputs > EVENTS / 10, "settled events were not committed");

    let mut next = Keylane::run(&settings(&flow, "next"), &[]);
    flow.wait_until_committed();
    stop(&mut next);
    // When one of the two leaves, the last transaction of the other may be of the generation before: then it is repeated.
    read(&flow).assert_clean();
}

/// Commits cover the visible effects at any moment.
#[test]
fn outputs_and_offsets_become_visible_together() {
    const READS: usize = 10;
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let settings = with_interval(&flow, "one", "10ms").set("admin", "listen", "127.0.0.1:0");
    let mut keylane = Keylane::run(&settings, &[]);
    let shown = Admin::of(&mut keylane);
    flow.wait_for_members(&["one"]);
    let producer = flow.producer();
    let mut outputs = 0;
    for read_number in 0..READS {
        let numbers = read_number * EVENTS..(read_number + 1) * EVENTS;
        producer.send_all(&flow.input, numbers.map(event)).expect("acknowledged");
        wait::until("more outputs", wait::STATE_TIMEOUT, || {
            let report = read_now(&flow);
            report.assert_clean_while_running();
            let more = report.outputs > outputs;
            outputs = report.outputs;
            more
        });
    }
    flow.wait_until_committed();
    let handler = shown.handler();
    let report = read(&flow);
    report.assert_clean();
    assert_eq!(handler["delivery"], "transactional");
    let transactions = &handler["transactions"];
    assert_eq!(transactions["records"], report.outputs + report.dead_letters);
    assert!(transactions["committed"].as_u64() >= Some(READS as u64), "{transactions}");
    assert!(transactions["p50_us"].is_u64() && transactions["unavailable"].is_null(), "{transactions}");
    let metrics = shown.metrics();
    let value = |name: &str| metrics.get(&format!("{name}{{handler=\"t\"}}")).map(String::as_str);
    assert_eq!(value("keylane_withheld_events"), Some("0"));
    assert_eq!(value("keylane_transactions_available"), Some("1"));
    stop(&mut keylane);
    read(&flow).assert_clean();
}

fn settings(flow: &Flow<'_>, client: &str) -> Settings {
    with_interval(flow, client, "10ms")
}

fn with_interval(flow: &Flow<'_>, client: &str, interval: &str) -> Settings {
    campaign::settings(flow, client, Delivery::Transactional).set(
        "handlers.t.transactions",
        "interval",
        interval,
    )
}

/// Produces events until the only instance is frozen with records of an open transaction in the log. Returns the
/// number of events.
fn freeze_in_transaction(flow: &Flow<'_>, keylane: &mut Keylane) -> usize {
    let (producer, admin) = (flow.producer(), flow.cluster.admin());
    let mut produced = 0;
    wait::until("an open transaction", wait::STATE_TIMEOUT, || {
        keylane.thaw();
        producer.send_all(&flow.input, (produced..produced + EVENTS).map(event)).expect("acknowledged");
        produced += EVENTS;
        keylane.freeze();
        admin.has_open_transaction(&flow.output)
    });
    produced
}

/// The history, after all transactions are decided.
fn read(flow: &Flow<'_>) -> Report {
    let admin = flow.cluster.admin();
    wait::until("all transactions to be decided", wait::STATE_TIMEOUT, || {
        !admin.has_open_transaction(&flow.output) && !admin.has_open_transaction(&flow.dead_letters)
    });
    read_now(flow)
}

fn read_now(flow: &Flow<'_>) -> Report {
    once::check(&History::read(flow, expected))
}

/// Records of aborted transactions.
fn aborted(flow: &Flow<'_>, report: &Report) -> usize {
    let written = |topic: &str| kafka::read_all(&flow.cluster.bootstrap(), topic).len();
    written(&flow.output) + written(&flow.dead_letters) - report.outputs - report.dead_letters
}

/// The settled events of an instance, by its own report, which is used only to find a moment.
fn settled(keylane: &mut Keylane) -> usize {
    let reports = |keylane: &Keylane| -> Vec<Value> {
        let mut lines = keylane.lines();
        lines.retain(|line| line["message"] == "handler report");
        lines
    };
    let before = reports(keylane).len();
    keylane.signal(Signal::USR1);
    let report = wait::until_some("a report", wait::STATE_TIMEOUT, || reports(keylane).get(before).cloned());
    let settled = report.get("settled").and_then(Value::as_u64).expect("a report counts settled events");
    usize::try_from(settled).expect("few events")
}

fn stop(keylane: &mut Keylane) {
    keylane.terminate();
    keylane.expect_exit(0);
}
