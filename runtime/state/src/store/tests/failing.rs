//! Files that fail: full disks and I/O errors.

use super::*;

const ERROR: &str = "no storage space";

fn failed(store: &Store) -> StoreEvent {
    StoreEvent::Failed { partition: 3, session: store.current(), error: format!("I/O error: {ERROR}") }
}

fn recovered(store: &Store) -> StoreEvent {
    StoreEvent::Recovered { partition: 3, session: store.current() }
}

fn applied(store: &Store, entries: &[Entry], through: i64) -> StoreEvent {
    let bytes = entries.iter().map(Entry::bytes).sum();
    StoreEvent::Applied { partition: 3, session: store.current(), through: Some(through), bytes }
}

/// A store with one value in its file and none in its caches.
fn reopened(dir: &TempDir) -> Store {
    let mut store = Store::new(dir);
    store.fill(7);
    assert_eq!(store.opened(), (Some(7), None));
    store.at_log_end();
    store
}

#[test]
fn a_write_that_fails_is_repeated_until_it_works() {
    let dir = TempDir::new("write");
    let mut store = reopened(&dir);
    store.apply(vec![entry("ada", Some("2"))], Some(8));
    store.partitions.set_failing(3, true);
    assert_eq!(store.advance(Duration::from_secs(10)), [failed(&store)]);
    let entries = vec![entry("bob", Some("1"))];
    assert_eq!(store.apply(entries.clone(), Some(9)), [applied(&store, &entries, 9)]);
    assert_eq!(store.load(1, &["ada", "bob"]), []);
    for _ in 0..3 {
        assert_eq!(store.advance(Duration::from_secs(5)), [], "reported once");
    }
    store.partitions.set_failing(3, false);
    assert_eq!(store.advance(Duration::from_millis(4999)), [], "the next attempt is after 5 s");
    let loaded = store.loaded(1, &[Some("2"), Some("1")]);
    assert_eq!(store.advance(Duration::from_millis(1)), [loaded, recovered(&store)]);
    store.partitions.crash();
    assert_eq!(store.opened(), (Some(9), None), "the entries were written");
    store.check_values(&["ada", "bob"], &[Some("2"), Some("1")]);
}

#[test]
fn a_read_that_fails_is_repeated_until_it_works() {
    let dir = TempDir::new("read");
    let mut store = Store::with(spec(Some(&dir), 0));
    store.opened();
    let keys: Vec<String> = (0..50_000).map(|number| format!("key-{number}")).collect();
    store.apply(keys.iter().map(|key| entry(key, Some(key))).collect(), Some(7));
    store.at_log_end();
    store.partitions.set_failing(3, true);
    let mut events = Vec::new();
    let mut loads = 0;
    // The cache keeps 256 KiB, so one of these is not in it.
    while events.is_empty() && loads < keys.len() {
        let key = &keys[loads];
        events = store.load(loads as u64, &[key]);
        loads += 1;
        events.retain(|event| !matches!(event, StoreEvent::Loaded { .. }));
    }
    assert_eq!(events, [failed(&store)]);
    assert_eq!(store.load(70_000, &["key-1"]), []);
    store.partitions.set_failing(3, false);
    let last = &keys[loads - 1];
    let waiting = store.loaded(loads as u64 - 1, &[Some(last)]);
    let second = store.loaded(70_000, &[Some("key-1")]);
    assert_eq!(store.advance(Duration::from_secs(5)), [waiting, second, recovered(&store)]);
}

#[test]
fn a_full_memory_holds_the_reports_of_a_failing_file() {
    let dir = TempDir::new("full");
    let mut store = Store::with(spec(Some(&dir), 13_400));
    store.fill(7);
    store.opened();
    store.at_log_end();
    store.partitions.set_failing(3, true);
    let value = "x".repeat(6_000);
    let entries = |key: &str| vec![entry(key, Some(&value))];
    assert_eq!(store.apply(entries("a"), Some(8)), [applied(&store, &entries("a"), 8)]);
    assert_eq!(store.apply(entries("b"), Some(9)), [failed(&store)], "12 kB of at most 10 kB");
    assert_eq!(store.apply(entries("c"), Some(10)), []);
    assert_eq!(store.apply(entries("c"), Some(11)), []);

    // Another partition is not affected by it.
    store.session += 1;
    let session = store.current();
    store.do_task(Task::Open(Open { partition: 4, session, identity: IDENTITY, now_ms: START_MS }));
    let bytes = entries("d").iter().map(Entry::bytes).sum();
    let other = store.do_task(Task::Apply { partition: 4, session, entries: entries("d"), through: Some(1) });
    assert_eq!(other, [StoreEvent::Applied { partition: 4, session, through: Some(1), bytes }]);

    store.session -= 1;
    store.partitions.set_failing(3, false);
    let reports = [
        recovered(&store),
        applied(&store, &entries("b"), 9),
        applied(&store, &entries("c"), 10),
        applied(&store, &entries("c"), 11),
    ];
    assert_eq!(store.advance(Duration::from_secs(5)), reports);
    store.check_values(&["a", "b", "c"], &[Some(&value), Some(&value), Some(&value)]);
    store.partitions.crash();
    assert_eq!(store.opened(), (Some(11), None), "a file has recovered only when it was written");
}

#[test]
fn a_close_while_the_file_fails_leaves_what_was_written() {
    let dir = TempDir::new("close-failing");
    let mut store = reopened(&dir);
    store.partitions.set_failing(3, true);
    store.apply(vec![entry("ada", Some("2"))], Some(8));
    store.load(1, &["ada"]);
    assert_eq!(store.close(), [StoreEvent::Closed { partition: 3, session: store.current() }]);
    assert_eq!(store.opened(), (Some(7), None));
    store.check_values(&["ada"], &[Some("1")]);
}

#[test]
fn a_folder_that_cannot_be_made_is_tried_again() {
    let dir = TempDir::new("folder");
    fs::write(dir.path(), b"a file in its place").expect("written");
    let mut store = Store::new(&dir);
    match store.open().as_slice() {
        [StoreEvent::Failed { partition: 3, error, .. }] => {
            assert!(error.starts_with("can't open ") && error.contains("3.redb: "), "{error}");
        }
        events => panic!("{events:?}"),
    }
    assert_eq!(store.advance(Duration::from_secs(5)), []);
    fs::remove_file(dir.path()).expect("removed");
    let opened = StoreEvent::Opened { partition: 3, session: store.current(), resume: None, note: None };
    assert_eq!(store.advance(Duration::from_secs(5)), [opened, recovered(&store)]);
    store.check_values(&["ada"], &[None]);
}

#[test]
fn a_file_that_was_emptied_while_it_failed_is_lost() {
    let dir = TempDir::new("lost");
    let mut store = reopened(&dir);
    store.apply(vec![entry("ada", Some("2"))], Some(8));
    store.partitions.set_failing(3, true);
    assert_eq!(store.advance(Duration::from_secs(10)), [failed(&store)]);
    fs::OpenOptions::new().write(true).truncate(true).open(dir.path().join("3.redb")).expect("emptied");
    store.partitions.set_failing(3, false);
    let session = store.current();
    let lost = StoreEvent::Lost { partition: 3, session, error: "the file was emptied".to_owned() };
    assert_eq!(store.advance(Duration::from_secs(5)), [lost]);
    assert_eq!(store.load(1, &["ada"]), [], "the session is over");
    assert_eq!(store.opened(), (None, None));
}
