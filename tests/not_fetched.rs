//! Promise: the log, the status and the metrics name a partition from which nothing arrives, although the
//! client reports no error: an open transaction holds its records back, or its leader hangs.

use keylane_tests::admin::{Admin, at};
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Options, Record, Transactions, unique};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::wait;

fn settings(flow: &Flow<'_>) -> Settings {
    flow.settings(&guest("echo"), "reader").set("admin", "listen", "127.0.0.1:0")
}

/// Waits until partition 0 is shown, counted and logged as stalled for this reason.
fn expect_stall(keylane: &mut Keylane, admin: &Admin, reason: &str) {
    wait::until_ok("the stall", wait::STATE_TIMEOUT, || {
        let handler = admin.handler();
        let partition = at(&handler, "/partitions/0");
        let is_shown = at(&partition, "/stalled") == true && at(&partition, "/blocked/reason") == reason;
        if is_shown { Ok(()) } else { Err(handler.to_string()) }
    });
    let stalls = admin.metrics().remove(&format!("keylane_stalls{{handler=\"t\",reason=\"{reason}\"}}"));
    assert!(stalls.is_some_and(|stalls| stalls != "0"));
    keylane.wait_for("the stall in the log", |line| {
        let is_of_partition = line["message"] == "partition stalled" && line["partition"] == 0;
        is_of_partition && line["blocked_on"] == reason && line["remedy"].is_string()
    });
}

/// Waits until the stall of partition 0 has ended, and is logged as such.
fn expect_resumed(keylane: &mut Keylane, admin: &Admin) {
    wait::until("the stall to end", wait::STATE_TIMEOUT, || {
        at(&admin.handler(), "/partitions/0/stalled") == false
    });
    keylane.wait_for("the end in the log", |line| line["message"] == "partition resumed");
}

#[test]
fn an_open_transaction_is_the_reason() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let mut keylane = Keylane::run(&settings(&flow), &[]);
    let admin = Admin::of(&mut keylane);
    wait::until("the handler to be ready", wait::STATE_TIMEOUT, || admin.get("/health/ready").0 == 200);
    let transactions = Transactions::new(&cluster.bootstrap(), &unique("writer")).expect("a coordinator");
    transactions.open(&flow.input, [Record::new("k", "held back")]).expect("acknowledged");
    flow.producer().send_all(&flow.input, [Record::new("k", "behind it")]).expect("acknowledged");
    expect_stall(&mut keylane, &admin, "not_fetched");
    transactions.commit_open().expect("committed");
    flow.wait_until_committed();
    expect_resumed(&mut keylane, &admin);
    keylane.terminate();
    keylane.expect_exit(0);
}

#[test]
fn a_leader_that_hangs_is_the_reason() {
    let Some(cluster) = kafka::dedicated(&Options { brokers: 3, ..Options::default() }) else { return };
    let (flow, leader) = Flow::with_leader_apart(&cluster);
    let mut keylane = Keylane::run(&settings(&flow), &[]);
    let admin = Admin::of(&mut keylane);
    flow.producer().send_all(&flow.input, [Record::new("k", "v")]).expect("acknowledged");
    flow.wait_until_committed();
    let frozen = usize::try_from(leader).expect("brokers are numbered from 1");
    cluster.freeze(frozen);
    expect_stall(&mut keylane, &admin, "leader_unavailable");
    cluster.thaw(frozen);
    expect_resumed(&mut keylane, &admin);
    keylane.terminate();
    keylane.expect_exit(0);
}

/// A partition without new records is idle, not stalled.
#[test]
fn an_idle_partition_is_not_reported() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let mut keylane = Keylane::run(&settings(&flow), &[]);
    let admin = Admin::of(&mut keylane);
    let transactions = Transactions::new(&cluster.bootstrap(), &unique("writer")).expect("a coordinator");
    transactions.commit(&flow.input, [Record::new("k", "v")]).expect("committed");
    transactions.abort(&flow.input, [Record::new("k", "v")]).expect("aborted");
    flow.wait_until_committed();
    let uptime = || admin.status()["uptime_ms"].as_u64().unwrap_or(0);
    let end = uptime() + 30_000;
    wait::until("the end of the time in which a stall would be reported", wait::STATE_TIMEOUT, || {
        uptime() > end
    });
    let partition = at(&admin.handler(), "/partitions/0");
    assert_eq!((&partition["stalled"], &partition["blocked"]), (&false.into(), &serde_json::Value::Null));
    assert!(!keylane.lines().iter().any(|line| line["message"] == "partition stalled"));
    keylane.terminate();
    keylane.expect_exit(0);
}
