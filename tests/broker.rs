//! Promise: the loss of a broker never stops Keylane permanently and loses nothing. A broker that
//! rejects the credentials is reported.

use keylane_tests::check;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Cluster, Options, Producer, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::progress::Progress;
use keylane_tests::skip::print_line;
use keylane_tests::wait;
use serde_json::Value;

const EVENTS: usize = 20_000;

#[test]
fn a_restart_of_the_broker_loses_nothing() {
    let Some(cluster) = kafka::dedicated(&Options::default()) else { return };
    let flow = Flow::new(&cluster, 4, &[]);
    let producer = flow.producer();
    producer.send_all(&flow.input, (0..EVENTS).map(event)).expect("acknowledged");
    let mut keylane = Keylane::run(&flow.settings(&guest("sleepy"), "worker"), &[]);
    let mut progress = Progress::of(&flow);
    for round in 1..=3 {
        let goal = EVENTS * round / 5;
        wait::until("work to be under way", wait::STATE_TIMEOUT, || {
            progress.advance();
            progress.done() >= goal
        });
        cluster.kill(1);
        cluster.restart(1);
        assert!(!keylane.has_ended(), "ended while the broker was unavailable{}", keylane.tail());
    }
    wait::until("everything to have an output", wait::STATE_TIMEOUT, || {
        progress.advance();
        progress.done() == EVENTS
    });
    flow.wait_until_committed();
    keylane.terminate();
    keylane.expect_exit(0);
    let report = check::check(&flow.history());
    print_line(&format!("{EVENTS} events, 3 restarts of the broker: {report}"));
    report.assert_clean();
}

#[test]
fn keylane_waits_for_a_frozen_broker() {
    let Some(cluster) = kafka::dedicated(&Options::default()) else { return };
    let flow = Flow::new(&cluster, 4, &[]);
    let producer = flow.producer();
    producer.send_all(&flow.input, (0..EVENTS).map(event)).expect("acknowledged");
    let mut keylane = Keylane::run(&flow.settings(&guest("sleepy"), "worker"), &[]);
    let mut progress = Progress::of(&flow);
    wait::until("work to be under way", wait::STATE_TIMEOUT, || {
        progress.advance();
        progress.done() >= EVENTS / 5
    });
    cluster.freeze(1);
    // No heartbeat is answered: the consumer session times out, and every partition is lost.
    for partition in 0..4 {
        keylane.wait_for("every partition to be lost", |line| {
            line["message"] == "ownership ended" && line["end"] == "lost" && line["partition"] == partition
        });
    }
    assert!(!keylane.has_ended(), "ended while the broker was frozen{}", keylane.tail());
    cluster.thaw(1);
    wait::until("everything to have an output", wait::STATE_TIMEOUT, || {
        progress.advance();
        progress.done() == EVENTS
    });
    flow.wait_until_committed();
    keylane.terminate();
    keylane.expect_exit(0);
    let report = check::check(&flow.history());
    report.assert_clean();
}

#[test]
fn keylane_waits_for_an_unavailable_broker_at_start() {
    let Some(cluster) = kafka::dedicated(&Options::default()) else { return };
    let flow = Flow::new(&cluster, 2, &[]);
    flow.producer().send_all(&flow.input, (0..100).map(event)).expect("acknowledged");
    cluster.stop(1);
    let mut keylane = Keylane::run(&flow.settings(&guest("sleepy"), "early"), &["--until-end"]);
    let address = cluster.bootstrap();
    keylane.wait_for("the broker to be reported as unavailable", |line| {
        is_warning_or_error(line) && mentions(line, &address)
    });
    cluster.restart(1);
    keylane.expect_exit(0);
    let report = check::check(&flow.history());
    report.assert_clean();
    assert_eq!(report.outcomes, 100);
}

#[test]
fn a_rejected_password_is_reported() {
    let Some((cluster, topic)) = with_passwords() else { return };
    let mut refused = Keylane::run(&with_password(&cluster, &topic, "wrong"), &[]);
    refused.wait_for("the rejection to be reported", |line| {
        is_warning_or_error(line) && mentions(line, "uthenticat")
    });
    if refused.has_ended() {
        assert_ne!(refused.wait_exit(), Some(0), "a rejection must not exit with 0");
    }
    assert!(!refused.lines().iter().any(|line| mentions(line, "wrong-password")), "a password is in the log");
}

#[test]
fn the_right_password_is_accepted() {
    let Some((cluster, topic)) = with_passwords() else { return };
    let mut accepted = Keylane::run(&with_password(&cluster, &topic, "right"), &["--until-end"]);
    accepted.expect_exit(0);
}

fn with_passwords() -> Option<(Cluster, String)> {
    let users = vec![("alice".to_owned(), "right-password".to_owned())];
    let cluster = kafka::dedicated(&Options { users, ..Options::default() })?;
    let topic = kafka::unique("guarded");
    cluster.admin().create_topic(&topic, 1, &[]);
    let producer = Producer::new(&cluster.bootstrap());
    producer.send_all(&topic, (0..10).map(event)).expect("acknowledged");
    Some((cluster, topic))
}

fn with_password(cluster: &Cluster, topic: &str, which: &str) -> Settings {
    Settings::new(&cluster.sasl_bootstrap())
        .set("kafka.client", "security.protocol", "sasl_plaintext")
        .set("kafka.client", "sasl.mechanism", "PLAIN")
        .set("kafka.client", "sasl.username", "alice")
        .set("kafka.client", "sasl.password", format!("{which}-password"))
        .handler(&guest("noop"), topic, &kafka::unique("group"))
        .set("handlers.t.retry", "on_exhausted", "stop")
}

/// A warning or error in the log, or the error of a process that ends.
fn is_warning_or_error(line: &Value) -> bool {
    line.is_string() || matches!(line["level"].as_str(), Some("ERROR" | "WARN"))
}

fn mentions(line: &Value, what: &str) -> bool {
    line.to_string().contains(what)
}

fn event(number: usize) -> Record {
    let millis = if number.is_multiple_of(20) { "5" } else { "0" };
    Record::new(format!("key-{}", number % 400), "v").with("sleep-ms", millis).with("emit", "")
}
