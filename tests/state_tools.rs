//! Promise: `keylane state` shows the states as the changelog has them, and brings states and committed offsets into
//! agreement again: `adopt` moves the group to the states, `reset` deletes the states and processes the log again, also
//! after an interrupted reset.
//! `keylane offsets accept` continues at a commit whose metadata can't be read. None of them works while a member runs.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use keylane_state::{BINDING_KEY, Binding, BindingIdentity, RESET_OFFSET};
use keylane_tests::campaign::{self, Delivery, event, expected};
use keylane_tests::check::fold::{self, Changelog};
use keylane_tests::child::Child;
use keylane_tests::flow::Flow;
use keylane_tests::kafka::{self, Options, Record};
use keylane_tests::keylane::{Keylane, Settings, binary};
use keylane_tests::terminal::Terminal;
use keylane_tests::{janitor, wait};
use serde_json::{Value, json};

const PARTITIONS: i32 = 2;
const EVENTS: usize = 2_000;
/// Metadata that no version of Keylane writes.
const FOREIGN: &[u8] = b"kl1:not-a-set";

/// The exit code, standard output and standard error of a command.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    fn refused(&self, code: i32, expected: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains(expected), "no {expected:?} in {}", self.err);
    }
}

#[test]
fn states_are_shown_as_the_changelog_has_them() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let settings = settings(&flow, "shown");
    state(&settings, &["count"]).refused(1, "the first start of the handler creates it");
    produce(&flow, 0);
    produce_one(&flow, Record::new(b"\xff".to_vec(), "1"));
    finish(&settings);

    let states = Changelog::read(&flow).states;
    let lines = state(&settings, &["list", "--json"]).succeeded();
    let lines: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(lines.len(), states.len());
    for ((partition, key), value) in &states {
        let text = key.as_ref().and_then(|key| std::str::from_utf8(key).ok());
        let key = match (key, text) {
            (None, _) => Value::Null,
            (Some(_), Some(text)) => text.into(),
            (Some(_), None) => json!({ "base64": "/w==" }),
        };
        let value = String::from_utf8_lossy(value);
        let line = json!({
            "topic": flow.input, "partition": partition, "key": key, "version": 1, "size": value.len(), "value": value,
        });
        assert!(lines.contains(&line), "no {line} in the list");
    }
    let limited = state(&settings, &["list", "t", "--limit", "3", "--values"]).succeeded();
    assert_eq!(limited.lines().count(), 3);
    let of_one = state(&settings, &["list", "--partition", "1"]).succeeded();
    assert!(
        of_one.lines().all(|line| line.starts_with("1\t") && line.ends_with(char::is_numeric)),
        "{of_one}"
    );

    let counted: Value =
        serde_json::from_str(&state(&settings, &["count", "--json"]).succeeded()).expect("JSON");
    let bytes: usize = states.values().map(Vec::len).sum();
    assert_eq!((&counted["keys"], &counted["bytes"]), (&states.len().into(), &bytes.into()));
    assert!(state(&settings, &["count"]).succeeded().ends_with("  in all\n"));

    let ((_, key), value) = states.iter().find(|((_, key), _)| key.is_some()).expect("a key");
    let key = String::from_utf8_lossy(key.as_deref().unwrap_or_default()).into_owned();
    for arguments in [&["get", &key][..], &["get", "t", &key]] {
        let found = state(&settings, arguments);
        assert!(found.err.contains(&format!("is in {}/", flow.input)), "{found:?}");
        assert_eq!(found.succeeded().as_bytes(), value.as_slice());
    }
    state(&settings, &["get", "nobody"]).refused(1, "the key \"nobody\" has no state");
    state(&settings, &["get", "t", "a", "b"]).refused(2, "has 1 parts, and 3 were given");
    state(&settings, &["list", "other"]).refused(2, "has no handler `other` with keyed state, but `t`");
    state(&settings, &["list", "--partition", "7"]).refused(1, "no selected topic has a partition 7");
}

/// The group's offsets are reset, or expire: only `adopt` makes the handler continue, without repeats.
#[test]
fn a_group_that_lost_its_offsets_adopts_those_of_the_states() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let settings = settings(&flow, "adopting");
    produce(&flow, 0);
    finish(&settings);
    assert!(state(&settings, &["adopt"]).succeeded().starts_with("nothing to adopt"));

    flow.members.commit(&flow.input, 0, 0, b"");
    refusal(&settings, "keylane state adopt");
    let adopted = state(&settings, &["adopt"]).succeeded();
    assert!(adopted.starts_with(&format!("{}/0: the offset was set from 0 to ", flow.input)), "{adopted}");
    assert_eq!(adopted.lines().count(), 1, "{adopted}");
    fold::check(&flow, expected).assert_clean();
    produce(&flow, 1);
    finish(&settings);
    fold::check(&flow, expected).assert_clean();

    let (bootstrap, group) = (cluster.bootstrap(), flow.group.as_str());
    let delete = ["--bootstrap-server", &bootstrap, "--delete", "--group", group];
    cluster
        .run_tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", &delete)
        .expect("an empty group");
    refusal(&settings, "the group has no committed offset");
    let adopted = state(&settings, &["adopt"]).succeeded();
    assert_eq!(adopted.lines().filter(|line| line.contains("from none to")).count(), 2, "{adopted}");
    produce(&flow, 2);
    finish(&settings);
    fold::check(&flow, expected).assert_clean();

    let renamed = settings.set("handlers.t.lanes", "lane_key", "header:none");
    flow.members.commit(&flow.input, 1, 0, b"");
    state(&renamed, &["adopt"]).refused(1, "has the keys of `key, or one lane for events without it`");
    assert_eq!(flow.committed()[1].offset, Some(0), "nothing was committed");
}

#[test]
fn a_reset_processes_the_log_again() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let settings = settings(&flow, "resetting");
    produce(&flow, 0);
    finish(&settings);
    let before = Changelog::read(&flow);
    cluster.admin().delete_records(&flow.input, 0, 10);
    state(&settings, &["reset"]).refused(2, "add `--yes`");
    let done = state(&settings, &["reset", "--yes"]);
    assert!(done.err.contains(&format!("{}/0: ", flow.input)), "{done:?}");
    assert!(done.err.contains(" to 10\n"), "the log begins at 10: {done:?}");
    assert!(done.succeeded().starts_with(&format!("{} states deleted", before.states.len())));
    let after = Changelog::read(&flow);
    assert!(after.states.is_empty(), "{after:?}");
    assert_eq!(after.bindings[&0], (10, Vec::new()));
    let committed: Vec<Option<i64>> = flow.committed().iter().map(|commit| commit.offset).collect();
    assert_eq!(committed, [Some(10), Some(0)]);
    // The files of the state are those of before.
    produce(&flow, 1);
    finish(&settings);
    fold::check(&flow, expected).assert_clean();

    let one = state(&settings, &["reset", "--yes", "--partition", "1"]).succeeded();
    assert!(one.ends_with("in 1 partitions\n"), "{one}");
    assert!(Changelog::read(&flow).states.keys().all(|(partition, _)| *partition == 0));
    finish(&settings);
    fold::check(&flow, expected).assert_clean();
}

/// The answer is the name of the group: anything else, and the end of the input, change nothing.
#[test]
fn a_reset_on_a_terminal_asks_for_the_name_of_the_group() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let settings = settings(&flow, "confirmed");
    produce(&flow, 0);
    finish(&settings);
    let everything = || {
        let Changelog { states, bindings, records } = Changelog::read(&flow);
        (states, bindings, records, flow.committed())
    };
    let before = everything();
    let end_of_input = "\u{4}";
    for answer in ["no\n", "yes\n", "\n", &format!("{}x\n", flow.group), end_of_input] {
        let (code, shown) = reset_on_a_terminal(&settings, &flow.group, answer);
        assert_eq!(code, Some(1), "{answer:?}: {shown}");
        assert!(
            shown.contains(&format!("{}/0: ", flow.input)) && shown.contains(" states are deleted"),
            "{shown}"
        );
        assert!(shown.ends_with("nothing was changed\r\n"), "{answer:?}: {shown}");
        assert_eq!(everything(), before, "{answer:?}");
    }
    let (code, shown) = reset_on_a_terminal(&settings, &flow.group, &format!("{}\n", flow.group));
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains(&format!("{} states deleted", before.0.len())), "{shown}");
    assert!(Changelog::read(&flow).states.is_empty());
    finish(&settings);
    fold::check(&flow, expected).assert_clean();
}

/// The marks are committed, and the process is killed before the deletion, or between the deletion and the last
/// transaction. Each of the three transactions sends one request with records: there is one partition, and the second
/// time only one key.
#[test]
fn an_interrupted_reset_is_finished_by_another_one() {
    let Some(cluster) = kafka::dedicated(&Options { proxied: true, ..Options::default() }) else { return };
    for transactions in [1, 2] {
        let flow = Flow::new(&cluster, 1, &[]);
        let settings = settings(&flow, "interrupted");
        match transactions {
            1 => produce(&flow, 0),
            _ => (0..3).for_each(|number| produce_one(&flow, Record::new("k", format!("{number} x")))),
        }
        finish(&settings);
        let (before, committed) = (Changelog::read(&flow), flow.committed());

        cluster.proxy().close_after("interrupted", transactions);
        let folder = janitor::folder("state-tools");
        let mut reset = command(&settings, &folder, &["state", "reset", "--yes"]);
        let mut reset =
            Child::start(reset.stdout(Stdio::null()).stderr(Stdio::null())).expect("the binary was built");
        let is_reached = |changelog: &Changelog| {
            changelog.bindings[&0] == (RESET_OFFSET, Vec::new())
                && changelog.states.is_empty() == (transactions == 2)
        };
        wait::until_ok("the transactions to be committed", wait::STATE_TIMEOUT, || {
            assert_eq!(
                reset.exit_status(),
                None,
                "it ended by itself, not after {transactions} transactions"
            );
            let changelog = Changelog::read(&flow);
            if is_reached(&changelog) { Ok(()) } else { Err(format!("{:?}", changelog.bindings)) }
        });
        reset.kill();
        janitor::remove(&folder);
        cluster.proxy().mend();

        refusal(&settings, "its reset was interrupted");
        state(&settings, &["adopt"]).refused(1, "its reset was interrupted");
        let left = Changelog::read(&flow);
        assert!(is_reached(&left), "{left:?}");
        assert!(transactions == 2 || left.states == before.states, "no state was deleted");
        assert_eq!(flow.committed(), committed, "the group is still at the end");

        let done = state(&settings, &["reset", "--yes"]).succeeded();
        assert!(done.starts_with(&format!("{} states deleted", left.states.len())), "{done}");
        let after = Changelog::read(&flow);
        assert_eq!((after.states.len(), &after.bindings[&0]), (0, &(0, Vec::new())));
        assert_eq!(flow.committed()[0].offset, Some(0));
        produce(&flow, 1);
        finish(&settings);
        fold::check(&flow, expected).assert_clean();
    }
}

/// The log keeps these records until its compaction: after the reset, they are followed by tombstones.
#[test]
fn a_reset_deletes_records_that_cannot_be_used() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let settings = settings(&flow, "unusable");
    produce(&flow, 0);
    let newer = settings.clone().set("handlers.t.state", "version", 2);
    finish(&newer);
    let foreign = ["\u{1}nobody", ""].map(|key| Record::new(key, "written by another program").to(1));
    flow.producer().send_all(&fold::topic(&flow), foreign).expect("acknowledged");
    refusal(&newer, "the record has format 119, and this version of Keylane reads up to 1");
    let without_files = campaign::with_state(settings, &flow.group, 1);
    refusal(&without_files, "its state has version 2, and this component has 1");

    state(&without_files, &["reset", "--yes"]).succeeded();
    finish(&without_files);
    fold::check(&flow, expected).assert_clean();
}

#[test]
fn a_topic_made_anew_needs_a_reset() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let settings = settings(&flow, "anew");
    produce(&flow, 0);
    finish(&settings);
    let admin = cluster.admin();
    admin.delete_topic(&flow.input);
    wait::until("the topic to be deleted", wait::STATE_TIMEOUT, || admin.partitions(&flow.input).is_none());
    admin.create_topic(&flow.input, flow.partitions, &[]);
    produce(&flow, 1);
    refusal(&settings, "the topic was deleted and created again");
    state(&settings, &["adopt"]).refused(1, "the topic was deleted and created again");
    state(&settings, &["reset", "--yes"]).succeeded();
    finish(&settings);
    fold::check(&flow, expected).assert_clean();
}

#[test]
fn nothing_is_changed_while_a_member_runs() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let settings = settings(&flow, "running");
    let mut keylane = Keylane::run(&settings, &[]);
    produce(&flow, 0);
    flow.wait_until_committed();
    let counted = state(&settings, &["count", "--json"]).succeeded();
    assert!(!counted.contains("\"keys\":0,"), "{counted}");
    for arguments in [&["reset", "--yes"][..], &["adopt"]] {
        state(&settings, arguments).refused(1, "has members: running at 127.0.0.1; stop all of them first");
    }
    keylane_command(&settings, &["offsets", "accept"]).refused(1, "has members: running at ");
    fold::check(&flow, expected).assert_clean();
    keylane.terminate();
    keylane.expect_exit(0);
    let other = settings.set("handlers.t", "group_id", flow.again().group).set(
        "handlers.t.keys",
        "topic",
        fold::topic(&flow),
    );
    state(&other, &["reset", "--yes"]).refused(1, "the state is of handler t in group");
    fold::check(&flow, expected).assert_clean();
}

#[test]
fn a_commit_with_unreadable_metadata_is_accepted() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    produce(&flow, 0);
    let stateless = campaign::settings(&flow, "accepting", Delivery::Transactional);
    flow.members.commit(&flow.input, 0, 5, FOREIGN);
    refusal(&stateless, "keylane offsets accept");
    let accepted = keylane_command(&stateless, &["offsets", "accept"]).succeeded();
    assert!(accepted.contains("/0: offset 5 was committed without metadata"), "{accepted}");
    assert!(flow.committed()[0].metadata.is_empty());
    let again = keylane_command(&stateless, &["offsets", "accept"]).succeeded();
    assert!(again.starts_with("nothing to accept"), "{again}");
    finish(&stateless);

    let flow = Flow::new(cluster, 1, &[]);
    let settings = settings(&flow, "accepting");
    produce(&flow, 0);
    finish(&settings);
    let bound = Changelog::read(&flow).bindings[&0].0;
    flow.members.commit(&flow.input, 0, bound, FOREIGN);
    keylane_command(&settings, &["offsets", "accept"]).refused(1, "use `keylane state adopt`");
    assert_eq!(flow.committed()[0].metadata, FOREIGN);
}

/// The states and the commit are of the same transaction, whose metadata this version can't read.
#[test]
fn a_commit_with_unreadable_metadata_is_accepted_with_its_states() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let settings = settings(&flow, "bound");
    produce(&flow, 0);
    finish(&settings);
    let before = Changelog::read(&flow);
    let offset = before.bindings[&1].0;
    bind(&flow, 1, FOREIGN);
    flow.members.commit(&flow.input, 1, offset, FOREIGN);
    produce(&flow, 1);
    let mut keylane = Keylane::run(&settings, &[]);
    let stop = keylane.wait_for("the stop", |line| line["message"] == "partition stopped");
    let failure = stop["failure"].to_string();
    assert!(failure.contains("partition 1 stopped") && failure.contains("keylane offsets accept"), "{stop}");
    let ends = cluster.admin().watermarks(&flow.input);
    wait::until("the other partition to be committed", wait::STATE_TIMEOUT, || {
        flow.committed()[0].offset == Some(ends[0].high)
    });
    keylane.terminate();
    keylane.expect_exit(1);
    let stopped = flow.committed();
    assert_eq!((stopped[1].offset, stopped[1].metadata.as_slice()), (Some(offset), FOREIGN));

    let accepted = keylane_command(&settings, &["offsets", "accept"]).succeeded();
    let line = format!("{}/1: offset {offset} was committed without metadata; ", flow.input);
    assert!(accepted.starts_with(&line) && accepted.lines().count() == 1, "{accepted}");
    let (after, committed) = (Changelog::read(&flow), flow.committed());
    assert_eq!(committed[0], stopped[0]);
    assert_eq!((committed[1].offset, committed[1].metadata.as_slice()), (Some(offset), &b""[..]));
    assert_eq!(after.bindings[&1], (offset, Vec::new()));
    let states = |changelog: Changelog| {
        changelog.states.into_iter().filter(|((partition, _), _)| *partition == 1).collect::<Vec<_>>()
    };
    assert_eq!(states(after), states(before));
    finish(&settings);
    fold::check(&flow, expected).assert_clean();
}

#[test]
fn the_embedded_broker_has_no_changelogs() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let feed = json!([{ "topic": flow.input.as_str(), "file": "-" }]);
    let settings = settings(&flow, "embedded")
        .set("kafka", "bootstrap_servers", "embedded")
        .set("embedded", "feed", feed);
    state(&settings, &["list"]).refused(2, "the embedded broker runs inside");
}

fn settings(flow: &Flow<'_>, client: &str) -> Settings {
    campaign::with_state(campaign::settings(flow, client, Delivery::Transactional), &flow.group, 0)
}

/// Produces the next events.
fn produce(flow: &Flow<'_>, round: usize) {
    let events = (round * EVENTS..(round + 1) * EVENTS).map(event);
    flow.producer().send_all(&flow.input, events).expect("acknowledged");
}

fn produce_one(flow: &Flow<'_>, record: Record) {
    flow.producer().send_all(&flow.input, [record]).expect("acknowledged");
}

/// Replaces the binding record of a partition by one with other metadata.
fn bind(flow: &Flow<'_>, partition: i32, metadata: &[u8]) {
    let changelog = fold::topic(flow);
    let records = kafka::read_committed(&flow.cluster.bootstrap(), &changelog);
    let mut bindings = records
        .iter()
        .filter(|record| record.partition == partition && record.key.as_deref() == Some(&BINDING_KEY));
    let last = bindings.next_back().and_then(|record| record.value.as_deref()).expect("a binding record");
    let Binding { group, handler, topic, topic_id, partition_count, lane_key, offset, .. } =
        Binding::decode(last).expect("Keylane has written it");
    let identity = BindingIdentity { group, handler, topic, partition, topic_id, partition_count, lane_key };
    let mut value = Vec::new();
    identity.encode(offset, metadata, &mut value);
    let record = Record::new(BINDING_KEY, value).to(partition);
    flow.producer().send_all(&changelog, [record]).expect("acknowledged");
}

/// Processes everything.
fn finish(settings: &Settings) {
    Keylane::run(settings, &["--until-end"]).expect_exit(0);
}

/// Expects that a partition does not start, and that the log names the reason.
fn refusal(settings: &Settings, expected: &str) {
    let mut keylane = Keylane::run(settings, &["--until-end"]);
    assert_eq!(keylane.wait_exit(), Some(1), "{}", keylane.tail());
    assert!(keylane.tail().contains(expected), "no {expected:?} in {}", keylane.tail());
}

fn state(settings: &Settings, arguments: &[&str]) -> Ended {
    keylane_command(settings, &[&["state"], arguments].concat())
}

fn keylane_command(settings: &Settings, arguments: &[&str]) -> Ended {
    let folder = janitor::folder("state-tools");
    let output = command(settings, &folder, arguments).output().expect("the binary was built");
    janitor::remove(&folder);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Types an answer when `keylane state reset` asks for it. Returns its exit code, and what the terminal shows.
fn reset_on_a_terminal(settings: &Settings, group: &str, answer: &str) -> (Option<i32>, String) {
    let folder = janitor::folder("state-tools");
    let (mut terminal, end) = Terminal::open();
    let another = || end.try_clone().expect("an open file can be duplicated");
    let mut command = command(settings, &folder, &["state", "reset"]);
    command.stdin(another()).stdout(another()).stderr(another());
    drop(end);
    let mut reset = Child::start(&mut command).expect("the binary was built");
    drop(command); // it has the terminal open
    terminal.wait_for(&format!("Type the name of the group, {group}, to continue: "));
    terminal.type_text(answer);
    let code = reset.wait("keylane state reset", wait::STATE_TIMEOUT).code();
    janitor::remove(&folder);
    (code, terminal.finish())
}

/// Returns a command whose configuration file is in this folder.
fn command(settings: &Settings, folder: &Path, arguments: &[&str]) -> Command {
    let file = folder.join("keylane.toml");
    fs::write(&file, settings.to_toml()).expect("a temporary file can be written");
    let mut command = Command::new(binary());
    command.arg("-c").arg(&file).args(arguments);
    command
}
