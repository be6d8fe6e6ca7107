//! Promise: an operator can set the marks of a gate with `keylane state set-mark` and `seed`, while no process runs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use std::process::Command;

use keylane_tests::flow::Flow;
use keylane_tests::janitor;
use keylane_tests::kafka;
use keylane_tests::keylane::{Keylane, Settings, binary};
use keylane_tests::versions::{consecutive, version};
use keylane_tests::wait;
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Version 2 never comes, so version 3 is dead-lettered, and so would be all later ones.
#[test]
fn a_broken_key_continues_after_its_mark_was_set() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = consecutive(&flow).set("handlers.t.gate", "gap_timeout", "1s");
    flow.send([("a", 1), ("a", 3)].map(version).into());
    let mut keylane = Keylane::run(&settings, &[]);
    wait::until("the event behind the gap is dead-lettered", TIMEOUT, || {
        kafka::read_committed(&cluster.bootstrap(), &flow.dead_letters).len() == 1
    });
    let joined = state(&settings, &["set-mark", "t", "0", "a", "3"]);
    assert!(joined.contains("exit code 1") && joined.contains("has members: "), "{joined}");
    keylane.terminate();
    keylane.expect_exit(0);
    let before: Value = serde_json::from_str(&succeeded(&settings, &["get", "--mark", "a"])).expect("JSON");
    assert_eq!((&before["mark"], &before["broken"]), (&1.into(), &true.into()), "{before}");

    let missing = state(&settings, &["set-mark", "t", "0", "a", "three"]);
    assert!(
        missing.contains("exit code 2") && missing.contains("`three` is not an order value"),
        "{missing}"
    );
    let set = succeeded(&settings, &["set-mark", "t", "0", "a", "3"]);
    assert_eq!(set, "the mark of \"a\" in partition 0 is 3\n");
    let after: Value =
        serde_json::from_str(&succeeded(&settings, &["get", "t", "--mark", "a"])).expect("JSON");
    let expected = json!({
        "topic": flow.input, "partition": 0, "mark": 3, "broken": false, "holes": [], "delivered": [],
    });
    assert_eq!(after, expected);
    flow.send(vec![version(("a", 4))]);
    Keylane::run(&settings, &["--until-end"]).expect_exit(0);
    assert_eq!(flow.values_of("a"), ["1", "4"]);
    assert_eq!(flow.lag(), 0);
}

/// A table exists before the handler: it starts with the versions of the table. Rows without a partition are placed as the
/// producer places them.
#[test]
fn a_first_start_continues_where_the_dump_of_a_table_is() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 3, &[]);
    let settings = consecutive(&flow);
    // The first start creates the changelog. Nothing is committed without events.
    let mut keylane = Keylane::run(&settings, &[]);
    flow.wait_for_members(&["consecutive"]);
    keylane.terminate();
    keylane.expect_exit(0);

    let folder = janitor::folder("mark-tools");
    let dump = |name: &str, content: &str| {
        let file = folder.join(name);
        fs::write(&file, content).expect("a temporary file can be written");
        file.display().to_string()
    };
    let rows: String = (0..20).map(|key| format!("key-{key},5\n")).collect();
    let csv = dump("table.csv", &format!("key,value\n{rows}"));
    let seeded = succeeded(&settings, &["seed", "t", &csv]);
    assert_eq!(seeded, "20 rows read; 20 marks written in 3 partitions\n");
    let events = (0..20).flat_map(|key| [6, 5].map(|number| version((&format!("key-{key}"), number))));
    flow.send(events.collect());
    flow.send(vec![version(("new", 1))]);
    Keylane::run(&settings, &["--until-end"]).expect_exit(0);
    for key in 0..20 {
        assert_eq!(flow.values_of(&format!("key-{key}")), ["6"], "key-{key}");
    }
    assert_eq!(flow.values_of("new"), ["1"]);

    // The handler has processed later events than a dump from before.
    let lines = "{\"key\": \"key-1\", \"value\": 5}\n{\"key\": \"key-2\", \"value\": 9}\n";
    let again = succeeded(&settings, &["seed", "t", &dump("again.jsonl", lines)]);
    assert_eq!(
        again,
        "2 rows read; 1 marks written in 1 partitions; 1 keys have kept a mark that is not lower\n"
    );
    flow.send(vec![version(("key-1", 7)), version(("key-2", 10))]);
    Keylane::run(&settings, &["--until-end"]).expect_exit(0);
    assert_eq!((flow.values_of("key-1"), flow.values_of("key-2")), (texts(&["6", "7"]), texts(&["6", "10"])));
    let refused = state(&settings, &["seed", "t", &dump("bad.csv", "key,value\na,1\nb\n")]);
    assert!(refused.contains("line 3 of the dump: it has 1 fields"), "{refused}");
    janitor::remove(&folder);
}

/// All events are processed again after a reset: with their old marks, they would be stale.
#[test]
fn a_reset_forgets_marks() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = consecutive(&flow);
    flow.send([("a", 1), ("a", 2)].map(version).into());
    Keylane::run(&settings, &["--until-end"]).expect_exit(0);
    let reset = state(&settings, &["reset", "--yes"]);
    assert!(
        reset.contains("exit code 0") && reset.contains("0 states and 1 marks of the gate are deleted"),
        "{reset}"
    );
    Keylane::run(&settings, &["--until-end"]).expect_exit(0);
    assert_eq!(flow.values_of("a"), ["1", "2", "1", "2"]);
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// Runs a command that succeeds, and returns its result.
fn succeeded(settings: &Settings, arguments: &[&str]) -> String {
    let folder = janitor::folder("mark-tools");
    let output = command(settings, &folder, arguments).output().expect("the binary was built");
    janitor::remove(&folder);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command, and returns its exit code and everything that it has printed.
fn state(settings: &Settings, arguments: &[&str]) -> String {
    let folder = janitor::folder("mark-tools");
    let output = command(settings, &folder, arguments).output().expect("the binary was built");
    janitor::remove(&folder);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    format!("exit code {code}\n{}{}", text(&output.stdout), text(&output.stderr))
}

fn command(settings: &Settings, folder: &Path, arguments: &[&str]) -> Command {
    let file = folder.join("keylane.toml");
    fs::write(&file, settings.to_toml()).expect("a temporary file can be written");
    let mut command = Command::new(binary());
    command.arg("-c").arg(&file).arg("state").args(arguments);
    command
}
