//! Restores that are larger than the memory.

use super::*;

const KEYS: usize = 30_000;

/// Values of the last of three rounds, in which each fifth key is deleted.
fn expected(key: usize) -> Option<String> {
    (key % 5 != 4).then(|| format!("value-2-{key}"))
}

/// Applies three rounds of all keys, each in another order.
fn apply_rounds(store: &mut Store) {
    let mut offset = 0;
    for (round, factor) in [7, 11, 13].into_iter().enumerate() {
        for start in (0..KEYS).step_by(1000) {
            let keys = (start..start + 1000).map(|number| number * factor % KEYS);
            let entries = keys.map(|key| {
                let value = if round == 2 { expected(key) } else { Some(format!("value-{round}-{key}")) };
                entry(&format!("key-{key}"), value.as_deref())
            });
            offset += 1000;
            store.apply(entries.collect(), Some(offset));
        }
    }
}

#[track_caller]
fn check_all(store: &mut Store) {
    for start in (0..KEYS).step_by(1000) {
        let keys: Vec<String> = (start..start + 1000).map(|key| format!("key-{key}")).collect();
        let values: Vec<_> = (start..start + 1000).map(expected).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        store.check_values(&keys, &values.iter().map(Option::as_deref).collect::<Vec<_>>());
    }
}

fn restoring(dir: &TempDir) -> Store {
    let mut store = Store::new(dir);
    store.opened();
    apply_rounds(&mut store);
    store
}

const THROUGH: Option<i64> = Some(90_000);

#[test]
fn the_newest_values_are_in_the_file() {
    let dir = TempDir::new("restore");
    let mut store = restoring(&dir);
    store.at_log_end();
    store.partitions.crash();
    assert_eq!(store.opened(), (THROUGH, None), "the end of the merge is durable");
    check_all(&mut store);
}

#[test]
fn the_records_since_an_older_file_are_merged_into_it() {
    let dir = TempDir::new("catch-up");
    let mut store = Store::new(&dir);
    store.opened();
    let entries = ["key-4", "other"].map(|key| entry(key, Some("old")));
    store.apply(entries.to_vec(), Some(7));
    store.at_log_end();
    store.close();
    assert_eq!(store.opened(), (Some(7), None));
    apply_rounds(&mut store);
    check_all(&mut store);
    store.check_values(&["other"], &[Some("old")]);
}

#[test]
fn an_interrupted_restore_begins_again() {
    let dir = TempDir::new("interrupted");
    let mut store = restoring(&dir);
    store.close();
    let note = Some("it was never complete, or has another format".to_owned());
    assert_eq!(store.opened(), (None, note));
    store.check_values(&["key-1"], &[None]);
}

#[test]
fn a_close_finishes_the_merge() {
    let dir = TempDir::new("merging");
    let mut store = restoring(&dir);
    let (session, now_ms) = (store.current(), store.now_ms);
    store.partitions.handle(Task::AtLogEnd { partition: 3, session, now_ms }, store.now);
    store.close();
    assert_eq!(store.opened(), (THROUGH, None));
    check_all(&mut store);
}

#[test]
fn a_merge_that_fails_is_repeated() {
    let dir = TempDir::new("merge-fails");
    let mut store = restoring(&dir);
    let (session, now_ms) = (store.current(), store.now_ms);
    store.partitions.handle(Task::AtLogEnd { partition: 3, session, now_ms }, store.now);
    store.partitions.tick(store.now);
    store.partitions.set_failing(3, true);
    store.events();
    store.load(1, &["key-3", "key-4"]);
    store.advance(Duration::from_secs(5));
    store.partitions.set_failing(3, false);
    store.advance(Duration::from_secs(5));
    // One step for each tick.
    let events: Vec<StoreEvent> = (0..10).flat_map(|_| store.advance(Duration::ZERO)).collect();
    assert_eq!(events, [store.loaded(1, &[expected(3).as_deref(), None])]);
    check_all(&mut store);
}

/// The files that are opened meanwhile make the share of the cache smaller, for which the file is closed.
#[test]
fn a_merge_goes_on_when_the_file_is_opened_again() {
    for failing in [false, true] {
        let dir = TempDir::new(&format!("merge-share-{failing}"));
        let mut store = restoring(&dir);
        let (session, now_ms) = (store.current(), store.now_ms);
        store.partitions.handle(Task::AtLogEnd { partition: 3, session, now_ms }, store.now);
        store.partitions.tick(store.now);
        store.partitions.set_failing(3, failing);
        let open = Open { partition: 4, session, identity: IDENTITY, now_ms };
        store.partitions.handle(Task::Open(open), store.now);
        store.partitions.set_failing(3, false);
        store.events();
        check_all(&mut store);
    }
}

#[test]
fn large_values_are_merged_in_several_steps() {
    const MIB: usize = 1 << 20;
    for (steps, is_complete) in [(1, false), (3, false), (4, true)] {
        let dir = TempDir::new("large-values");
        let mut store = Store::new(&dir);
        store.opened();
        let value = "v".repeat(MIB);
        for number in 0..16 {
            store.apply(vec![entry(&format!("key-{number}"), Some(&value))], Some(number + 1));
        }
        let (session, now_ms) = (store.current(), store.now_ms);
        store.partitions.handle(Task::AtLogEnd { partition: 3, session, now_ms }, store.now);
        (0..steps).for_each(|_| store.partitions.tick(store.now));
        store.partitions.crash();
        let (resume, _) = store.opened();
        assert_eq!(resume, is_complete.then_some(16), "{steps} steps of about 4 MiB");
    }
}
