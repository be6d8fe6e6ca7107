//! Promise: the status and the metrics show with which brokers the clients are connected, and report within seconds
//! that no broker can be reached. Without the admin server, the clients emit no statistics.

use std::process::Command;

use keylane_tests::admin::{Admin, at};
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Cluster, Options, Record};
use keylane_tests::keylane::{Keylane, Settings, binary};
use keylane_tests::wait;
use serde_json::Value;

/// An outage must be visible before the client's default session timeout.
fn settings(flow: &Flow<'_>) -> Settings {
    let settings = flow.settings(&guest("echo"), "brokers").set("admin", "listen", "127.0.0.1:0");
    settings.set("kafka.client", "session.timeout.ms", 45_000)
}

/// Runs a handler until it has processed an event, so that its consumer and the producer are connected.
fn run(flow: &Flow<'_>) -> (Keylane, Admin) {
    let mut keylane = Keylane::run(&settings(flow), &[]);
    let admin = Admin::of(&mut keylane);
    flow.producer().send_all(&flow.input, [Record::new("k", "v")]).expect("acknowledged");
    flow.wait_until_committed();
    (keylane, admin)
}

/// Waits until the broker of the handler's consumer has this state, and returns the status of the process.
fn wait_for_state(admin: &Admin, state: &str) -> Value {
    wait::until_ok(&format!("a broker that is {state}"), wait::STATE_TIMEOUT, || {
        let status = admin.status();
        let is_it = at(&status, "/handlers/0/brokers/0/state") == state;
        if is_it { Ok(status) } else { Err(at(&status, "/handlers/0").to_string()) }
    })
}

/// What `keylane status` shows.
fn shown(admin: &Admin) -> String {
    let output = Command::new(binary()).args(["status", "--admin", &admin.url]).output();
    String::from_utf8(output.expect("the binary was built").stdout).expect("text")
}

#[test]
fn a_connected_broker_is_up_with_its_round_trip() {
    let Some(cluster) = kafka::shared() else { return };
    let (mut keylane, admin) = run(&Flow::new(cluster, 1, &[]));
    let status = wait_for_state(&admin, "up");
    let (handler, broker) = (at(&status, "/handlers/0"), at(&status, "/handlers/0/brokers/0"));
    // One broker, although it is also the bootstrap server and the coordinator.
    assert_eq!(handler["brokers"].as_array().map(Vec::len), Some(1), "{handler}");
    assert_eq!(broker["broker"], format!("{}/1", cluster.bootstrap()));
    assert!(broker["round_trip_us"].as_u64().is_some_and(|micros| micros > 0), "{broker}");
    assert!(broker["round_trip_p99_us"].as_u64() >= broker["round_trip_us"].as_u64(), "{broker}");
    assert_eq!(handler["no_broker_reachable"], false);
    assert!(at(&status, "/memory/fetch_queue_bytes").is_u64(), "{status}");

    let of_producer = wait::until_some("the statistics of the producer", wait::STATE_TIMEOUT, || {
        Some(at(&admin.status(), "/producer_brokers/0")).filter(Value::is_object)
    });
    assert_eq!((&of_producer["broker"], &of_producer["state"]), (&broker["broker"], &"up".into()));

    let metrics = admin.metrics();
    let value = |name: &str| metrics.get(name).map(String::as_str);
    assert_eq!(value("keylane_brokers{client=\"consumer\",handler=\"t\",state=\"up\"}"), Some("1"));
    assert_eq!(value("keylane_brokers{client=\"consumer\",handler=\"t\",state=\"down\"}"), Some("0"));
    assert_eq!(value("keylane_brokers{client=\"producer\",state=\"up\"}"), Some("1"));
    assert!(metrics.contains_key("keylane_fetch_queue_bytes{handler=\"t\"}"), "{metrics:?}");
    let is_consumed = |name: &&String| name.starts_with("messaging_client_consumed_messages_total{");
    let consumed = metrics.keys().find(is_consumed).expect("the counter exists");
    assert_eq!(value(consumed), Some("1"));
    assert!(shown(&admin).contains("  brokers 1 up  slowest round trip "), "{}", shown(&admin));
    keylane.terminate();
    keylane.expect_exit(0);
}

#[test]
fn brokers_that_are_gone_or_hang_are_reported_and_come_back() {
    let Some(cluster) = kafka::dedicated(&Options::default()) else { return };
    let (mut keylane, admin) = run(&Flow::new(&cluster, 1, &[]));
    wait_for_state(&admin, "up");
    cluster.kill(1);
    expect_unreachable(&admin, "down");
    cluster.restart(1);
    wait_for_state(&admin, "up");
    assert!(!shown(&admin).contains("no broker"), "{}", shown(&admin));
    cluster.freeze(1);
    expect_unreachable(&admin, "unresponsive");
    cluster.thaw(1);
    wait_for_state(&admin, "up");
    keylane.terminate();
    keylane.expect_exit(0);
}

#[test]
fn an_outage_of_one_broker_of_three_is_not_one_of_all() {
    let Some(cluster) = kafka::dedicated(&Options { brokers: 3, ..Options::default() }) else { return };
    let (flow, leader) = Flow::with_leader_apart(&cluster);
    let (mut keylane, admin) = run(&flow);
    let wait_until_leader = |is_up: bool| {
        wait::until_ok(&format!("the leader to be up: {is_up}"), wait::STATE_TIMEOUT, || {
            let handler = admin.handler();
            let brokers = handler["brokers"].as_array().cloned().unwrap_or_default();
            let is_leader = |name: &str| name.ends_with(&format!("/{leader}"));
            let found = brokers
                .iter()
                .any(|broker| broker["broker"].as_str().is_some_and(is_leader) && broker["state"] == "up");
            let is_it = !brokers.is_empty() && found == is_up;
            if is_it { Ok(handler) } else { Err(handler["brokers"].to_string()) }
        })
    };
    wait_until_leader(true);
    cluster.kill(usize::try_from(leader).expect("brokers are numbered from 1"));
    let handler = wait_until_leader(false);
    assert_eq!(handler["no_broker_reachable"], false, "{handler}");
    keylane.terminate();
    keylane.expect_exit(0);
}

/// Waits until the only broker has this state. Then no broker is reachable, although the partition is not lost yet.
fn expect_unreachable(admin: &Admin, state: &str) {
    let status = wait_for_state(admin, state);
    let handler = at(&status, "/handlers/0");
    assert_eq!(at(&handler, "/no_broker_reachable"), true, "{handler}");
    assert_eq!(at(&handler, "/partitions").as_array().map(Vec::len), Some(1), "{handler}");
    assert!(shown(admin).contains("  no broker can be reached: "), "{}", shown(admin));
    let up = "keylane_brokers{client=\"consumer\",handler=\"t\",state=\"up\"}";
    assert_eq!(admin.metrics().get(up).map(String::as_str), Some("0"));
}

/// With `debug = "conf"`, each client logs its properties.
#[test]
fn statistics_are_on_only_with_the_admin_server() {
    let Some(cluster) = kafka::shared() else { return };
    assert_eq!(intervals(cluster, "off"), [""; 0]);
    // Other clients, such as those that read offsets, have none.
    assert_eq!(intervals(cluster, "127.0.0.1:0"), ["5000"; 2]);
}

/// Runs a handler, and returns the intervals of statistics that its clients have set.
fn intervals(cluster: &Cluster, listen: &str) -> Vec<String> {
    let flow = Flow::new(cluster, 1, &[]);
    let settings = settings(&flow)
        .set("admin", "listen", listen)
        .set("log", "filter", "info,librdkafka=debug")
        .set("kafka.client", "debug", "conf");
    let mut keylane = Keylane::run(&settings, &[]);
    flow.producer().send_all(&flow.input, [Record::new("k", "v")]).expect("acknowledged");
    flow.wait_until_committed();
    keylane.terminate();
    keylane.expect_exit(0);
    let lines = keylane.lines();
    let properties: Vec<&str> = lines.iter().filter_map(|line| line["text"].as_str()).collect();
    assert!(properties.iter().any(|text| text.contains("enable.idempotence = true")), "{properties:?}");
    let interval = |text: &&str| Some(text.split_once("statistics.interval.ms = ")?.1.trim().to_owned());
    properties.iter().filter_map(interval).collect()
}
