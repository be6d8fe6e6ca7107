//! Promise: on Kafka, the example `accounts` applies partial updates in the order of their versions, through a crash.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use keylane_tests::guests::example;
use keylane_tests::janitor;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::{Keylane, workspace};
use keylane_tests::wait;
use serde_json::Value;

const PARTITIONS: i32 = 4;

/// Outputs or events as text, by account.
type Accounts = BTreeMap<String, Vec<String>>;

#[test]
fn accounts_are_updated_in_the_order_of_their_versions() {
    let Some(cluster) = kafka::shared() else { return };
    let bootstrap = cluster.bootstrap();
    for topic in ["account-changes", "balances"] {
        cluster.admin().create_topic(topic, PARTITIONS, &[]);
    }
    let file = configuration();
    let run = |arguments: &[&str]| Keylane::run_with_variables(&file, arguments, &[("KAFKA", &bootstrap)]);
    let balances = || {
        let mut accounts = Accounts::new();
        for output in kafka::read_committed(&bootstrap, "balances") {
            let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.expect("present")).expect("text");
            accounts.entry(text(output.key)).or_default().push(text(output.value));
        }
        accounts
    };
    let (mut arrived, expected) = (lines("events.jsonl"), lines("expected.jsonl"));
    let send = |events: &[(String, String)]| {
        let records = events.iter().map(|(key, value)| Record::new(key.as_str(), value.as_str()));
        kafka::Producer::new(&bootstrap).send_all("account-changes", records).expect("acknowledged");
    };

    // The process is killed (-9) while versions of three accounts wait for those before them.
    let later = arrived.split_off(16);
    send(&arrived);
    let mut killed = run(&[]);
    wait::until("all versions that are due to be handled", wait::STATE_TIMEOUT, || {
        balances().values().map(Vec::len).sum::<usize>() == due(&arrived)
    });
    killed.kill();
    send(&later);
    run(&["--until-end"]).expect_exit(0);

    assert!(due(&arrived) < arrived.len(), "some versions waited");
    let mut by_account = Accounts::new();
    for (account, output) in expected {
        by_account.entry(account).or_default().push(output);
    }
    assert_eq!(balances(), by_account);
}

/// The number of events that do not wait for a version.
fn due(events: &[(String, String)]) -> usize {
    let mut versions: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (account, update) in events {
        let update: Value = serde_json::from_str(update).expect("an update is JSON");
        let version = update.get("version").and_then(Value::as_u64).expect("an update has a version");
        versions.entry(account).or_default().push(version);
    }
    let due = |versions: Vec<u64>| (1..).take_while(|version| versions.contains(version)).count();
    versions.into_values().map(due).sum()
}

fn folder() -> PathBuf {
    workspace().join("examples/accounts")
}

/// The keys and values in a file of the example.
fn lines(file: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(folder().join(file)).expect("the example has the file");
    let line = |line| {
        let line: Value = serde_json::from_str(line).expect("a line is JSON");
        let text = |name| line.get(name).and_then(Value::as_str).expect("key and value are text").to_owned();
        (text("key"), text("value"))
    };
    text.lines().map(line).collect()
}

/// The example's configuration for Kafka, with the built component and a directory for states that is removed with the test.
fn configuration() -> PathBuf {
    let text = fs::read_to_string(folder().join("kafka.toml")).expect("the example has its configuration");
    let written = "../target/wasm32-wasip2/release/accounts.wasm";
    assert!(text.contains(written), "the example runs its own component");
    let text = text.replace(written, &example("accounts").display().to_string());
    let states = janitor::folder("states");
    let more = format!(
        "[admin]\nlisten = \"off\"\n[handlers.accounts.keys]\ndir = {states:?}\n\
         [kafka.client]\n\"session.timeout.ms\" = 3000\n"
    );
    let file = janitor::folder("accounts").join("kafka.toml");
    fs::write(&file, text + &more).expect("a temporary file can be written");
    file
}
