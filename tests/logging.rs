//! Promise: a log that is not read neither delays nor ends a process. A command whose output can't be written ends with
//! exit code 1.

use std::fs::File;
use std::io::{PipeReader, pipe};
use std::process::{Command, Stdio};

use keylane_tests::child::Child;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Cluster, Record};
use keylane_tests::keylane::{Keylane, Settings, binary};
use keylane_tests::restricted_user;
use keylane_tests::{janitor, wait};
use rustix::process::Signal;
use serde_json::Value;

const EVENTS: usize = 4_000;

/// Each event prints two lines; the pipe holds about twenty.
#[test]
fn an_unread_log_stops_nothing() {
    let Some(cluster) = kafka::shared() else { return };
    run_with(cluster, || {
        let (reader, writer) = pipe().expect("a pipe");
        rustix::pipe::fcntl_setpipe_size(&writer, 4096).expect("pipes have sizes");
        (writer.into(), Some(reader))
    });
}

/// `keylane run 2>&1 | head -1`
#[test]
fn a_closed_log_stops_nothing() {
    let Some(cluster) = kafka::shared() else { return };
    run_with(cluster, || (pipe().expect("a pipe").1.into(), None));
}

#[test]
fn a_log_on_a_full_disk_stops_nothing() {
    let Some(cluster) = kafka::shared() else { return };
    run_with(cluster, || (full().into(), None));
}

/// The limit is two lines per second for each cause, with a count of the rest. The causes here are
/// events with a forged redrive count, which any producer can write, their dead letters, and
/// unavailable brokers.
#[test]
fn log_lines_about_every_event_are_limited() {
    let Some(cluster) = kafka::dedicated(&kafka::Options::default()) else { return };
    let flow = Flow::new(&cluster, 4, &[]);
    let event = |number: usize| {
        let record = Record::new(format!("key-{number}"), "reject");
        record.with("keylane-reason", "forged").with("keylane-redrives", "99")
    };
    flow.producer().send_all(&flow.input, (0..5_000).map(event)).expect("acknowledged");
    let mut keylane = Keylane::run(&flow.settings(&guest("failing"), "t"), &[]);
    flow.wait_until_committed();
    cluster.stop(1);
    keylane.wait_for("the brokers to be reported", |line| line["message"] == "consumer error");
    cluster.restart(1);
    cluster.wait_ready();
    keylane.terminate();
    keylane.expect_exit(0);
    keylane.assert_lines_are_limited();
    let mut events = 0;
    for line in keylane.lines() {
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        if text("message") == "event dead-lettered" {
            events += 1 + line["dropped"].as_u64().unwrap_or(0);
            assert_eq!((text("handler"), text("topic")), ("t".to_owned(), flow.input.clone()));
        }
        if text("message") == "log lines dropped" && text("cause") == "DeadLetter" {
            events += line["dropped"].as_u64().expect("a count");
        }
    }
    assert_eq!(events, 5_000, "events without a line are counted");
    let all =
        keylane.lines().into_iter().find(|line| line["message"] == "handler totals").expect("a summary");
    let count = |name: &str| all[name].as_u64();
    assert_eq!(["settled", "dead_letters", "outputs"].map(count), [Some(5_000), Some(5_000), Some(0)]);
}

/// The same for dead letters that are too large for their topic.
#[test]
fn log_lines_about_dead_letters_that_are_too_large_are_limited() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 4, &[]);
    let small = kafka::unique("small");
    cluster.admin().create_topic(&small, 1, &[("max.message.bytes", "2000")]);
    let event = |number: usize| {
        Record::new(format!("key-{number}"), "reject").with("filler", "x".repeat(3_000).as_str())
    };
    flow.producer().send_all(&flow.input, (0..1_000).map(event)).expect("acknowledged");
    let settings =
        flow.settings(&guest("failing"), "t").set("handlers.t.dead_letters", "topic", small.as_str());
    let mut keylane = Keylane::run(&settings, &["--until-end"]);
    keylane.expect_exit(0);
    assert_eq!(kafka::read_all(&cluster.bootstrap(), &small).len(), 1_000);
    keylane.assert_lines_are_limited();
    let lines = keylane.lines();
    let too_large = "dead letter too large: parts are omitted";
    let of_cause = |line: &&Value| line["message"] == too_large || line["cause"] == "TooLarge";
    let counted: u64 = lines.iter().filter(of_cause).map(|line| count(line, too_large)).sum();
    assert!(counted >= 1_000, "{counted} of 1,000 have a line or are counted");
}

/// Counts a line with this message, and the lines that were dropped before it.
fn count(line: &Value, message: &str) -> u64 {
    u64::from(line["message"] == message) + line["dropped"].as_u64().unwrap_or(0)
}

/// The same for commits, and for lookups of log bounds, that brokers reject because of missing
/// rights.
#[test]
fn log_lines_about_denied_commits_and_log_bounds_are_limited() {
    let Some(cluster) = kafka::dedicated(&restricted_user::options()) else { return };
    let flow = Flow::new(&cluster, 2, &[]);
    let settings = restricted_user::settings(&cluster, flow.settings(&guest("sleepy"), "alice"))
        .set("handlers.t", "out_of_range", "earliest")
        .set("handlers.t", "timeout", "60s")
        // The instance stays a member while it is frozen.
        .set("kafka.client", "session.timeout.ms", 60_000);
    let mut keylane = Keylane::run(&settings, &[]);
    let produce = |count: usize, millis: &str| {
        let events = (0..count).map(|number| Record::new(format!("key-{number}"), millis));
        flow.producer().send_all(&flow.input, events).expect("acknowledged");
    };
    let deny = |right: &str| {
        restricted_user::change_acl(
            &cluster,
            &["--add", "--deny-principal", "User:alice"],
            &[right],
            &flow.input,
        );
    };
    let allow = |right: &str| {
        let arguments = ["--remove", "--force", "--deny-principal", "User:alice"];
        restricted_user::change_acl(&cluster, &arguments, &[right], &flow.input);
    };
    // Without this, a denied READ denies DESCRIBE, too: the client would drop the topic when it refreshes its metadata.
    restricted_user::change_acl(
        &cluster,
        &["--add", "--allow-principal", "User:alice"],
        &["Read"],
        &flow.input,
    );
    produce(100, "0");
    flow.wait_until_committed();
    // This event settles while the right to commit is denied.
    produce(1, "15000");
    deny("Read");
    keylane.wait_for("the commit to be rejected", |line| line["message"] == "commit rejected");
    allow("Read");
    flow.wait_until_committed();

    // The next records are deleted, and the right to look up the bounds of the log is denied. If the client looks up
    // the end of the log before it fetches, it drops the topic instead; then the records are deleted again.
    for attempt in 1.. {
        assert!(attempt <= 10, "no denied lookup in ten attempts");
        let reported = keylane.lines().len();
        let has = |keylane: &Keylane, message: &str| {
            keylane.lines().iter().skip(reported).any(|line| line["message"] == message)
        };
        keylane.freeze();
        produce(100, "0");
        delete_all_records(&cluster, &flow.input);
        deny("Describe");
        keylane.thaw();
        wait::until("the denial to be reported", wait::STATE_TIMEOUT, || {
            has(&keylane, "log bounds unknown") || has(&keylane, "fetch failed")
        });
        let is_bounds_unknown = has(&keylane, "log bounds unknown");
        allow("Describe");
        produce(100, "0");
        flow.wait_until_committed();
        if is_bounds_unknown {
            break;
        }
    }
    keylane.terminate();
    keylane.expect_exit(0);
    keylane.assert_lines_are_limited();
}

fn delete_all_records(cluster: &Cluster, topic: &str) {
    let records = kafka::read_all(&cluster.bootstrap(), topic);
    for partition in 0..2 {
        let of_partition = records.iter().filter(|record| record.partition == partition);
        let end = of_partition.map(|record| record.offset + 1).max();
        cluster.admin().delete_records(topic, partition, end.expect("every partition has events"));
    }
}

/// Commands that print end with an exit code, whether or not their output can be written.
#[test]
fn output_that_can_not_be_written_is_an_exit_code() {
    let folder = janitor::folder("logging");
    let valid = folder.join("keylane.toml");
    let settings = Settings::new("localhost:9092").handler(&guest("noop"), "in", "group");
    std::fs::write(&valid, settings.to_toml()).expect("a temporary file can be written");
    let invalid = folder.join("invalid.toml");
    std::fs::write(&invalid, "[kafka]\nbootstrap = 7\n").expect("a temporary file can be written");
    let (valid, invalid, component) = (path(&valid), path(&invalid), path(&guest("noop")));
    let commands: [&[&str]; 5] = [
        &["check", "-c", &valid],
        &["check", "-c", &invalid],
        &["inspect", &component],
        &["schema"],
        &["schema", "--format", "markdown"],
    ];
    for command in commands {
        let closed = || Stdio::from(pipe().expect("a pipe").1);
        let streams: [(Stdio, Stdio); 3] =
            [(full().into(), Stdio::null()), (closed(), closed()), (full().into(), full().into())];
        for (output, errors) in streams {
            let status = Command::new(binary())
                .args(command)
                .stdin(Stdio::null())
                .stdout(output)
                .stderr(errors)
                .status();
            assert_eq!(status.expect("the binary can be started").code(), Some(1), "{command:?}");
        }
        let output =
            Command::new(binary()).args(command).stdout(full()).output().expect("the binary can be started");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("can't be written") || errors.contains("problem"), "{command:?}: {errors}");
    }
}

/// The destination of the log, and the reader that must stay open.
type Log = (Stdio, Option<PipeReader>);

fn run_with(cluster: &Cluster, log: impl Fn() -> Log) {
    let flow = Flow::new(cluster, 4, &[]);
    let event = |number: usize| {
        Record::new(format!("key-{number}"), if number.is_multiple_of(2) { "print" } else { "reject" })
    };
    flow.producer().send_all(&flow.input, (0..EVENTS).map(event)).expect("acknowledged");
    let file = janitor::folder("logging").join("keylane.toml");
    std::fs::write(&file, flow.settings(&guest("failing"), "t").to_toml())
        .expect("a temporary file can be written");
    let (stderr, _unread) = log();
    let mut command = Command::new(binary());
    command
        .args(["run", "--log", "debug", "-c"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    let mut keylane = Child::start(&mut command).expect("the binary was just built");
    drop(command); // the command holds the writing end
    flow.wait_until_committed();
    keylane.signal(Signal::TERM);
    let ended = wait::until_some("keylane to end", wait::STATE_TIMEOUT, || keylane.exit_status());
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(kafka::read_all(&cluster.bootstrap(), &flow.dead_letters).len(), EVENTS / 2);
}

fn full() -> File {
    File::options().write(true).open("/dev/full").expect("Linux has /dev/full")
}

fn path(path: &std::path::Path) -> String {
    path.to_str().expect("paths of tests are UTF-8").to_owned()
}
