//! Promise: with `keys.forget_after`, a state that was not changed for this long is deleted, and only such a state. The next
//! event of its key finds no state. No restart brings it back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use keylane_tests::admin::Admin;
use keylane_tests::campaign::{self, Delivery};
use keylane_tests::check::fold::{self, Changelog};
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::wait;
use serde_json::Value;

const PARTITIONS: i32 = 2;
/// The keys whose states grow old.
const OLD: usize = 40;
const FORGET_AFTER_MS: i64 = 10_000;
/// The type byte of a key that is a record key.
const BYTES: u8 = 1;
/// With the lines about restored partitions.
const LOG: [&str; 2] = ["--log", "info,keylane=debug"];
/// A state is in its file after 10 s, and files are searched each second.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(120);

#[test]
fn only_old_states_are_forgotten_and_no_restart_brings_them_back() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let (settings, files) = settings(&flow, "10s");
    let with_admin = settings.clone().set("admin", "listen", "127.0.0.1:0");
    let mut keylane = Keylane::run(&with_admin, &[]);
    let admin = Admin::of(&mut keylane);
    produce(&flow, (0..OLD).map(|number| (format!("old-{number}"), "count")));
    produce(&flow, [("only-read".to_owned(), "count")]);
    let forgotten: BTreeSet<String> =
        (0..OLD).map(|number| format!("old-{number}")).chain(["only-read".to_owned()]).collect();
    let mut counted = 0;
    wait::until("the old states are deleted", FORGOTTEN_WITHIN, || {
        produce(&flow, [("changing".to_owned(), "count"), ("only-read".to_owned(), "read")]);
        counted += 1;
        deletions(&flow).keys().cloned().collect::<BTreeSet<_>>().is_superset(&forgotten)
    });
    for (key, ages_ms) in deletions(&flow) {
        assert!(ages_ms.iter().all(|age| *age >= FORGET_AFTER_MS), "{key} is forgotten after {ages_ms:?} ms");
    }
    assert!(!deletions(&flow).contains_key("changing"), "it was never old");
    let metrics = admin.metrics();
    let metric = metrics.iter().find(|(name, _)| name.starts_with("keylane_state_forgotten_total"));
    assert_eq!(metric.map(|(_, value)| value.as_str()), Some((OLD + 1).to_string().as_str()));

    produce(&flow, ["old-0", "only-read", "changing"].map(|key| (key.to_owned(), "count")));
    flow.wait_until_committed();
    keylane.terminate();
    keylane.expect_exit(0);
    assert_eq!(last_counts(&flow, &["old-0", "only-read", "changing"]), [1, 1, counted + 1]);

    // From the files, and without them.
    let finish = |settings: &Settings, key: &str| {
        produce(&flow, [key, "changing"].map(|key| (key.to_owned(), "count")));
        finish(settings)
    };
    let kept = settings.set("handlers.t.keys", "forget_after", "never");
    let restored = finish(&kept, "old-1");
    assert_eq!((restored, last_counts(&flow, &["old-1", "changing"])), (0, vec![1, counted + 2]));
    std::fs::remove_dir_all(files).expect("the files of the state");
    assert!(finish(&kept, "old-2") > 0, "the changelog is read");
    assert_eq!(last_counts(&flow, &["old-2", "changing"]), [1, counted + 3]);
    let left: BTreeSet<_> = Changelog::read(&flow).states.into_keys().filter_map(|(_, key)| key).collect();
    let expected = ["changing", "old-0", "old-1", "old-2", "only-read"];
    assert!(left.iter().map(Vec::as_slice).eq(expected.map(str::as_bytes)), "{left:?}");
}

/// The ages of states are those of their last changes, whether they come from the files or from the changelog.
#[test]
fn states_grow_old_across_restarts() {
    let Some(cluster) = kafka::shared() else { return };
    for with_files in [true, false] {
        let flow = Flow::new(cluster, PARTITIONS, &[]);
        let (settings, files) = settings(&flow, "never");
        produce(&flow, (0..OLD).map(|number| (format!("old-{number}"), "count")));
        assert_eq!(finish(&settings), 0);
        if !with_files {
            std::fs::remove_dir_all(files).expect("the files of the state");
        }
        let settings = settings.set("handlers.t.keys", "forget_after", "10s");
        let mut keylane = Keylane::run(&settings, &LOG);
        wait::until("the states are deleted", FORGOTTEN_WITHIN, || deletions(&flow).len() == OLD);
        keylane.terminate();
        keylane.expect_exit(0);
        assert_eq!(restored(&keylane.lines()) == 0, with_files);
        let ages_ms = deletions(&flow);
        assert!(ages_ms.values().flatten().all(|age| *age >= FORGET_AFTER_MS), "{ages_ms:?}");
        assert_eq!(Changelog::read(&flow).states.len(), 0);
    }
}

/// Returns the settings, and the folder of the files.
fn settings(flow: &Flow<'_>, forget_after: &str) -> (Settings, std::path::PathBuf) {
    let settings = campaign::settings(flow, "one", Delivery::Transactional);
    let settings = campaign::with_state(settings, &flow.group, 0)
        .set("handlers.t", "component", guest("counter").display().to_string())
        .set("handlers.t.keys", "forget_after", forget_after);
    let text = settings.to_toml();
    let dir = text.lines().find_map(|line| line.strip_prefix("\"dir\" = ")).expect("`keys.dir` is set");
    (settings, Path::new(dir.trim_matches('"')).to_owned())
}

fn produce(flow: &Flow<'_>, events: impl IntoIterator<Item = (String, &'static str)>) {
    let records = events.into_iter().map(|(key, command)| Record::new(key, command));
    flow.producer().send_all(&flow.input, records).expect("acknowledged");
}

/// Processes everything. Returns the number of records that were restored.
fn finish(settings: &Settings) -> u64 {
    let mut keylane = Keylane::run(settings, &[&LOG[..], &["--until-end"]].concat());
    keylane.expect_exit(0);
    restored(&keylane.lines())
}

fn restored(log: &[Value]) -> u64 {
    let restored = log.iter().filter(|line| line["message"] == "keyed state restored");
    restored.map(|line| line["records"].as_u64().expect("a number of records")).sum()
}

/// The deleted keys, and how old the states were, by the timestamps of the changelog's records.
fn deletions(flow: &Flow<'_>) -> BTreeMap<String, Vec<i64>> {
    let (mut changed, mut deletions) = (BTreeMap::new(), BTreeMap::<String, Vec<i64>>::new());
    for record in kafka::read_committed(&flow.cluster.bootstrap(), &fold::topic(flow)) {
        let key = record.key.as_deref().and_then(|key| key.strip_prefix(&[BYTES]));
        let Some(key) = key.map(|key| String::from_utf8_lossy(key).into_owned()) else { continue };
        if record.value.is_some() {
            changed.insert(key, record.timestamp);
        } else {
            let changed = changed.remove(&key).expect("a state is deleted once");
            deletions.entry(key).or_default().push(record.timestamp - changed);
        }
    }
    deletions
}

/// The numbers in the last outputs of these keys.
fn last_counts(flow: &Flow<'_>, keys: &[&str]) -> Vec<u64> {
    let outputs = kafka::read_committed(&flow.cluster.bootstrap(), &flow.output);
    let last = |key: &&str| {
        let output = outputs.iter().rfind(|output| output.key.as_deref() == Some(key.as_bytes()));
        let value = output.and_then(|output| output.value.as_deref()).expect("an output");
        let value: Value = serde_json::from_slice(value).expect("JSON");
        value.get("n").and_then(Value::as_u64).expect("a count")
    };
    keys.iter().map(last).collect()
}
