//! Promise: the state of a key is the result of exactly its done events, in order: it is published together with their
//! effects and offsets, and no partition starts with a state of other events than the committed offset says.
//!
//! `make campaign` is the same with a million events and faults of brokers.

use std::fs::OpenOptions;
use std::path::PathBuf;

use keylane_tests::admin::{Admin, at};
use keylane_tests::campaign::{self, Delivery, Fault, Options, event, expected};
use keylane_tests::check::fold::{self, Changelog};
use keylane_tests::check::once::{self, Expected, History};
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Group, Record};
use keylane_tests::keylane::{Keylane, Settings, run_on_small_disk};
use keylane_tests::restricted_user;
use keylane_tests::skip::print_line;
use keylane_tests::wait;
use serde_json::Value;

const PARTITIONS: i32 = 3;
const EVENTS: usize = 3_000;

/// A run proves something only if a fault met an open transaction. Few do not; then another one follows, with another seed.
#[test]
fn a_state_is_the_fold_of_its_events_through_kills_freezes_and_moves() {
    let Some(cluster) = kafka::shared() else { return };
    let mut faults = vec![Fault::Kill; 5];
    faults.extend([Fault::Freeze, Fault::Restart, Fault::Resize]);
    let aborted = (2..5).any(|seed| {
        let options = Options {
            seed,
            partitions: 8,
            events: 60_000,
            faults: Fault::shuffled(faults.clone(), seed),
            instances: 3,
            delivery: Delivery::Transactional,
            state: true,
            // The open transaction of a killed instance holds its partitions for this long.
            timeout: Some("5s"),
            logs: None,
            verbose: false,
        };
        let summary = campaign::run(cluster, &options);
        print_line(&summary.to_string());
        summary.report.assert_clean();
        let fold = summary.fold.as_ref().expect("the handler has a state");
        fold.assert_clean();
        assert!(fold.keys > 1_000, "{fold}");
        summary.aborted > 0
    });
    assert!(aborted, "no fault of three runs met an open transaction: they prove nothing");
}

/// Only the last state of a key is written for each transaction.
#[test]
fn a_hot_key_writes_one_state_per_transaction() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    produce(&flow, (0..EVENTS).map(|number| Record::new("hot", format!("{number} "))));
    finish(&settings(&flow, 0));
    let report = fold::check(&flow, expected);
    report.assert_clean();
    assert!(report.records < EVENTS / 5, "{report}");
}

#[test]
fn a_restart_resumes_from_its_files_and_restores_them_when_they_are_gone_or_damaged() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let settings = settings(&flow, 0);
    let mut restored = Vec::new();
    for round in 0..4 {
        produce(&flow, (round * EVENTS..(round + 1) * EVENTS).map(event));
        match round {
            2 => std::fs::remove_dir_all(files(&settings)).expect("the files of the state"),
            3 => overwrite_files(&settings),
            _ => {}
        }
        let log = finish(&settings);
        restored.push(records_restored(&log));
        fold::check(&flow, expected).assert_clean();
        if round == 3 {
            assert!(log.iter().any(|line| line["message"] == "file of keyed state not used; it is restored"));
        }
    }
    print_line(&format!("records restored in each round: {restored:?}"));
    assert_eq!(restored[..2], [0, 0], "the files are complete");
    assert!(restored[2] > 0 && restored[3] > 0, "{restored:?}");
    once::check(&History::read(&flow, expected)).assert_clean();
}

/// Each of these would process events on states that are not those before them.
#[test]
fn a_partition_does_not_start_on_a_state_of_another_offset() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    produce(&flow, (0..EVENTS).map(event));
    finish(&settings(&flow, 0));
    let end = i64::try_from(EVENTS).expect("few events");
    let bound = Changelog::read(&flow).bindings[&0].clone();
    assert_eq!(bound.0, end);
    let refused = |expected: &str| refusal(&settings(&flow, 0), expected);

    flow.members.commit(&flow.input, 0, 0, b"");
    refused("the state is of");
    refused("at offset 3,000, but the group's offset is 0: the offset was changed without the state");
    flow.members.commit(&flow.input, 0, end, b"");
    refused("the commit's metadata is not that of the state");
    flow.members.commit(&flow.input, 0, bound.0, &bound.1);
    produce(&flow, (EVENTS..2 * EVENTS).map(event));
    finish(&settings(&flow, 0));
    fold::check(&flow, expected).assert_clean();

    let renamed = settings(&flow, 0).set("handlers.t.lanes", "lane_key", "header:outputs");
    refusal(&renamed, "has the keys of `key, or one lane for events without it`");
    let other = settings(&flow.again(), 0).set("handlers.t.keys", "topic", fold::topic(&flow));
    refusal(&other, "two handlers have the same changelog");
}

#[test]
fn a_topic_that_would_lose_states_is_refused_as_a_changelog() {
    let Some(cluster) = kafka::shared() else { return };
    let admin = cluster.admin();
    for (configs, partitions, expected) in [
        (&[("cleanup.policy", "compact,delete")][..], 2, "which deletes states"),
        (&[("cleanup.policy", "delete")], 2, "cleanup.policy=delete`, which deletes states"),
        (&[("cleanup.policy", "compact")], 3, "has 3 partitions and its input topic"),
        (
            &[("cleanup.policy", "compact"), ("max.message.bytes", "10000")],
            2,
            "accepts batches of 10000 bytes",
        ),
    ] {
        let flow = Flow::new(cluster, 2, &[]);
        admin.create_topic(&fold::topic(&flow), partitions, configs);
        let mut keylane = Keylane::run(&settings(&flow, 0), &["--until-end"]);
        assert_ne!(keylane.wait_exit(), Some(0));
        assert!(keylane.tail().contains(expected), "no {expected:?} in:\n{}", keylane.tail());
    }
}

/// The states before it stay, and other keys go on.
#[test]
fn a_state_that_is_too_large_or_a_failure_changes_nothing() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let commands =
        ["count", "large:2000", "count", "trap", "reject", "retry-once", "count", "delete", "count"];
    let records = commands.iter().flat_map(|command| ["a", "b"].map(|key| Record::new(key, *command)));
    produce(&flow, records);
    let settings = settings(&flow, 0)
        .set("handlers.t", "component", guest("counter").display().to_string())
        .set("handlers.t.state", "max_value", "1KiB")
        .set("handlers.t.retry", "max_attempts", 2);
    let log = finish(&settings);
    assert!(log.iter().any(|line| line.to_string().contains("2000")), "the size is named");
    let outputs = kafka::read_committed(&cluster.bootstrap(), &flow.output);
    for key in ["a", "b"] {
        let of_key = outputs.iter().filter(|output| output.key.as_deref() == Some(key.as_bytes()));
        let counts: Vec<u64> = of_key
            .map(|output| {
                let value: Value =
                    serde_json::from_slice(output.value.as_deref().unwrap_or_default()).expect("JSON");
                value["n"].as_u64().expect("a count")
            })
            .collect();
        // `large`, `trap` and `reject` are dead letters; `delete` is the fifth done event, and counting begins again.
        assert_eq!(counts, [1, 2, 3, 4, 5, 1], "{key}");
    }
    assert_eq!(kafka::read_committed(&cluster.bootstrap(), &flow.dead_letters).len(), 6);
    let states = Changelog::read(&flow).states;
    assert_eq!(states.len(), 2);
    assert!(states.values().all(|state| state.starts_with(b"1 ")), "{states:?}");
}

#[test]
fn a_state_of_a_newer_version_is_not_read() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    produce(&flow, (0..EVENTS).map(event));
    finish(&settings(&flow, 0).set("handlers.t.state", "version", 2));
    produce(&flow, (EVENTS..EVENTS + 1).map(event));
    // With files, and without.
    for number in [0, 1] {
        let older = settings(&flow, number).set("handlers.t.state", "version", 1);
        refusal(&older, "has version 2, and this component has 1");
    }
    finish(&settings(&flow, 0).set("handlers.t.state", "version", 3));
    fold::check(&flow, expected).assert_clean();
}

/// The memory does not depend on the number of keys. `KEYLANE_STATE_KEYS=10000000` is a long run, with the default cache.
#[test]
fn more_keys_than_the_cache_holds_are_kept_on_disk() {
    let Some(cluster) = kafka::shared() else { return };
    let long = std::env::var_os("KEYLANE_STATE_KEYS");
    let long = long.map(|keys| keys.to_str().and_then(|keys| keys.parse().ok()).expect("a number of keys"));
    let keys: usize = long.unwrap_or(100_000);
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let settings =
        settings(&flow, 0).set("handlers.t.keys", "cache", if long.is_some() { "64MiB" } else { "1MiB" });
    // Every key once, then a tenth of them again, from everywhere.
    let numbers = (0..keys).chain((0..keys / 10).map(|number| number * 7 % keys));
    produce(
        &flow,
        numbers.zip(0..).map(|(key, number): (_, usize)| {
            Record::new(format!("key-{key:09}"), format!("{number} ")).with("outputs", "0")
        }),
    );
    let mut keylane = Keylane::run(&settings, &[]);
    let mut peak = None;
    wait::until("everything to be committed", wait::STATE_TIMEOUT * 10, || {
        peak = keylane.peak_bytes().or(peak);
        flow.lag() == 0
    });
    keylane.terminate();
    keylane.expect_exit(0);
    let report = fold::check(&flow, |_| Expected::Outputs(0));
    report.assert_clean();
    assert_eq!(report.keys, keys);
    let peak = peak.expect("the process ran") >> 20;
    print_line(&format!("{keys} keys, peak memory {peak} MiB"));
    assert!(peak < 700, "{peak} MiB");
}

/// Calls wait for a file that can't be written, and nothing is lost.
#[test]
fn a_full_disk_holds_its_partitions_until_there_is_room() {
    const KEYS: usize = 100_000;
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings =
        settings(&flow, 0).set("handlers.t.keys", "cache", "1MiB").set("admin", "listen", "127.0.0.1:0");
    let keys = |round: usize| {
        (0..KEYS).map(move |key| {
            Record::new(format!("key-{key}"), format!("{} ", round * KEYS + key)).with("outputs", "0")
        })
    };
    let Some(mut keylane) = run_on_small_disk(&settings, &files(&settings), "3m") else { return };
    let shown = Admin::of(&mut keylane);
    produce(&flow, keys(0));
    keylane.wait_for("a full disk", |line| line["message"] == "file of keyed state failed");
    produce(&flow, keys(1));
    wait::until("calls to wait for the file", wait::STATE_TIMEOUT, || {
        at(&shown.handler(), "/keyed_state/loading_calls").as_u64().is_some_and(|calls| calls > 0)
    });
    wait::until("the status to say so", wait::STATE_TIMEOUT, || {
        at(&shown.handler(), "/partitions/0/blocked/reason") == "state_loading"
    });
    let failed = at(&shown.handler(), "/keyed_state/failed/0");
    assert!(failed["error"].as_str().is_some_and(|error| error.contains("space")), "{failed}");
    keylane.resize_disk(&files(&settings), "64m");
    flow.wait_until_committed();
    keylane.terminate();
    keylane.expect_exit(0);
    let report = fold::check(&flow, |_| Expected::Outputs(0));
    report.assert_clean();
    assert_eq!(report.keys, KEYS);
}

/// The member has all partitions. The next refresh of the client's metadata, and so a rebalance, would be minutes later.
#[test]
fn a_handler_stops_when_its_input_topic_has_more_partitions() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let mut keylane = Keylane::run(&settings(&flow, 0), &[]);
    produce(&flow, (0..EVENTS).map(event));
    flow.wait_until_committed();
    cluster.admin().add_partitions(&flow.input, 4);
    let line = keylane.wait_for("the handler to stop", |line| line["message"] == "handler stopped");
    assert!(line.to_string().contains("has more partitions than the 2 of its changelog"), "{line}");
    assert!(line.to_string().contains("Adding partitions"), "{line}");
    keylane.expect_exit(1);
    fold::check(&flow, expected).assert_clean();
}

/// The changelog is deleted before it has a state, and created again later.
#[test]
fn a_missing_changelog_holds_only_the_partitions_of_its_topic() {
    let Some(cluster) = kafka::shared() else { return };
    let held = Flow::new(cluster, 2, &[]);
    let (admin, changelog) = (cluster.admin(), fold::topic(&held));
    let create = || admin.create_topic(&changelog, held.partitions, &[("cleanup.policy", "compact")]);
    holds_only_its_partitions(&held, settings(&held, 0), || admin.delete_topic(&changelog), create);
}

#[test]
fn a_changelog_without_the_right_to_write_holds_only_the_partitions_of_its_topic() {
    let Some(cluster) = kafka::dedicated(&restricted_user::options()) else { return };
    let held = Flow::new(&cluster, 2, &[]);
    let changelog = fold::topic(&held);
    let change = |arguments: &[&str], operations: &[&str]| {
        restricted_user::change_acl(&cluster, arguments, operations, &changelog);
    };
    change(&["--add", "--allow-principal", "User:alice"], &["All"]);
    let settings = restricted_user::settings(&cluster, settings(&held, 0));
    let revoke = || change(&["--add", "--deny-principal", "User:alice"], &["Write"]);
    let grant = || change(&["--remove", "--force", "--deny-principal", "User:alice"], &["Write"]);
    holds_only_its_partitions(&held, settings, revoke, grant);
}

/// Runs a handler of two topics. `block` makes the changelog of the first one unusable, and `unblock` ends that.
fn holds_only_its_partitions(held: &Flow<'_>, settings: Settings, block: impl Fn(), unblock: impl Fn()) {
    let other = with_another_input(held, 1);
    let settings = settings
        .set("handlers.t", "topics", vec![held.input.as_str(), other.input.as_str()])
        .set("handlers.t.dead_letters", "topic", held.dead_letters.as_str())
        .set("admin", "listen", "127.0.0.1:0");
    let mut keylane = Keylane::run(&settings, &[]);
    let shown = Admin::of(&mut keylane);
    produce(&other, (0..EVENTS).map(event));
    other.wait_until_committed();
    let changelog = fold::topic(held);
    block();
    produce(held, (0..EVENTS).map(event));
    keylane.wait_for("the blocked topic", |line| {
        line["message"] == "topic blocked: transactions can't be committed" && line["topic"] == changelog
    });
    produce(&other, (EVENTS..2 * EVENTS).map(event));
    other.wait_until_committed();
    assert!(held.lag() > 0, "its states are not published");

    let partitions = at(&shown.handler(), "/partitions");
    for partition in partitions.as_array().expect("the partitions of the handler") {
        let left_out = &partition["left_out"];
        if partition["topic"] == held.input.as_str() {
            assert_eq!(left_out["topic"], changelog.as_str(), "{partition}");
            assert!(left_out["error"].is_string(), "{left_out}");
        } else {
            assert_eq!(*left_out, Value::Null, "{partition}");
        }
    }

    unblock();
    held.wait_until_committed();
    wait::until("the partitions to be contained again", wait::STATE_TIMEOUT, || {
        let partitions = at(&shown.handler(), "/partitions");
        partitions.as_array().is_some_and(|all| all.iter().all(|partition| partition["left_out"].is_null()))
    });
    keylane.terminate();
    keylane.expect_exit(0);
    fold::check(held, expected).assert_clean();
    fold::check(&other, expected).assert_clean();
}

fn settings(flow: &Flow<'_>, files: usize) -> Settings {
    let settings = campaign::settings(flow, "one", Delivery::Transactional);
    campaign::with_state(settings, &flow.group, files)
}

/// Another input topic for the same group, with the same topics for outputs and dead letters.
fn with_another_input<'c>(flow: &Flow<'c>, partitions: i32) -> Flow<'c> {
    let input = kafka::unique("in");
    flow.cluster.admin().create_topic(&input, partitions, &[]);
    let (output, dead_letters, group) = (flow.output.clone(), flow.dead_letters.clone(), flow.group.clone());
    let members = Group::new(&flow.cluster.bootstrap(), &group);
    Flow { cluster: flow.cluster, input, output, dead_letters, group, members, partitions }
}

fn files(settings: &Settings) -> PathBuf {
    let text = settings.to_toml();
    let dir = text.lines().find_map(|line| line.strip_prefix("\"dir\" = ")).expect("`keys.dir` is set");
    PathBuf::from(dir.trim_matches('"'))
}

/// Overwrites a part of each file.
fn overwrite_files(settings: &Settings) {
    use std::io::{Seek as _, SeekFrom, Write as _};
    let mut count = 0;
    for folder in std::fs::read_dir(files(settings)).expect("the files of the state") {
        for file in std::fs::read_dir(folder.expect("a folder").path()).expect("a folder for each changelog")
        {
            let path = file.expect("a file").path();
            let mut file = OpenOptions::new().write(true).open(path).expect("a file of the state");
            file.seek(SeekFrom::Start(0)).expect("the file has bytes");
            file.write_all(&[0x5a; 8192]).expect("the file can be written");
            count += 1;
        }
    }
    assert_eq!(count, PARTITIONS);
}

fn produce(flow: &Flow<'_>, records: impl Iterator<Item = Record>) {
    flow.producer().send_all(&flow.input, records).expect("acknowledged");
}

/// Processes everything. Returns the log.
fn finish(settings: &Settings) -> Vec<Value> {
    let mut keylane = Keylane::run(settings, &["--until-end", "--log", "info,keylane=debug"]);
    keylane.expect_exit(0);
    keylane.lines()
}

/// Expects that a partition does not start, and that the log names the reason.
fn refusal(settings: &Settings, expected: &str) {
    let mut keylane = Keylane::run(settings, &["--until-end"]);
    assert_eq!(keylane.wait_exit(), Some(1), "{}", keylane.tail());
    let lines = keylane.lines();
    let reasons: Vec<String> =
        lines.iter().filter(|line| line["level"] == "ERROR").map(Value::to_string).collect();
    assert!(reasons.iter().any(|line| line.contains(expected)), "no {expected:?} in {reasons:#?}");
}

fn records_restored(log: &[Value]) -> u64 {
    let restored = log.iter().filter(|line| line["message"] == "keyed state restored");
    restored.map(|line| line["records"].as_u64().expect("a number of records")).sum()
}
