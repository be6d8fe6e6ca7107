//! Searches for old values.

use super::super::scan::Scan;
use super::*;

/// Does one step. Returns the old keys, and where the next step begins.
fn step(store: &mut Store, after: Option<&str>, changed_before_ms: i64) -> (Vec<String>, Option<String>) {
    let text = |key: &[u8]| String::from_utf8(key.to_vec()).expect("a text");
    let scan = Scan { after: after.map(|key| key.as_bytes().into()), changed_before_ms };
    let session = store.current();
    match store.do_task(Task::Scan { partition: 3, session, scan }).as_slice() {
        [StoreEvent::Scanned { partition: 3, session: of, expired, next }] if *of == session => {
            (expired.iter().map(|key| text(key)).collect(), next.as_deref().map(text))
        }
        events => panic!("{events:?}"),
    }
}

fn filled(dir: &TempDir, entries: Vec<Entry>) -> Store {
    let mut store = Store::new(dir);
    store.opened();
    store.apply(entries, Some(7));
    store.at_log_end();
    store
}

#[test]
fn old_values_are_found_by_the_times_of_their_changes() {
    let dir = TempDir::new("scan");
    let mut entries = vec![entry_at(10, "ada", Some("1")), entry_at(20, "bob", Some("2"))];
    entries.push(Entry::new(b"eve", Some(b"unknown"), None));
    entries.push(Entry::new(&crate::BINDING_KEY, Some(b"binding"), Some(1)));
    let mut store = filled(&dir, entries);
    assert_eq!(step(&mut store, None, 10), (vec![], None));
    assert_eq!(step(&mut store, None, 20), (vec!["ada".into()], None));
    assert_eq!(step(&mut store, None, i64::MAX), (vec!["ada".into(), "bob".into()], None));
    assert_eq!(step(&mut store, Some("ada"), i64::MAX), (vec!["bob".into()], None));
    // The times are in the file, and what was applied since is newer.
    store.close();
    assert_eq!(store.opened(), (Some(7), None));
    store.apply(vec![entry_at(30, "ada", Some("3"))], Some(8));
    store.at_log_end();
    store.check_values(&["ada", "bob"], &[Some("3"), Some("2")]);
    assert_eq!(step(&mut store, None, 25), (vec!["bob".into()], None));
    store.apply(vec![entry_at(30, "bob", None), entry_at(40, "ada", Some("4"))], Some(9));
    assert_eq!(step(&mut store, None, 100), (vec![], None), "both are only in the buffer");
    store.advance(Duration::from_secs(10));
    assert_eq!(step(&mut store, None, 100), (vec!["ada".into()], None));
}

#[test]
fn a_step_is_limited_and_the_next_one_continues() {
    let dir = TempDir::new("scan-steps");
    let key = |number: usize| format!("key-{number:05}");
    // The last quarter is old.
    let changed_ms = |number: usize| if number < 4500 { 50 } else { 10 };
    let entries = (0..6000).map(|number| entry_at(changed_ms(number), &key(number), Some("value")));
    let mut store = filled(&dir, entries.collect());
    let (mut after, mut counts, mut found) = (None, Vec::new(), Vec::new());
    loop {
        let (expired, next) = step(&mut store, after.as_deref(), 50);
        counts.push(expired.len());
        found.extend(expired);
        let Some(next) = next else { break };
        after = Some(next);
    }
    assert_eq!(found, (4500..6000).map(key).collect::<Vec<_>>());
    assert_eq!(counts, [0, 0, 1000, 500], "at most 2,000 rows, 1,000 of them old");
    let large = "x".repeat(3 << 20);
    let dir = TempDir::new("scan-bytes");
    let mut store = filled(&dir, ["a", "b", "c"].map(|key| entry_at(10, key, Some(&large))).into());
    assert_eq!(step(&mut store, None, 50), (vec!["a".into(), "b".into()], Some("b".into())), "4 MiB");
}

#[test]
fn a_search_waits_for_the_restore_and_for_a_failed_file() {
    let dir = TempDir::new("scan-waits");
    let mut store = Store::new(&dir);
    store.opened();
    store.apply(vec![entry_at(10, "ada", Some("1"))], Some(7));
    let scan = || Scan { after: None, changed_before_ms: 50 };
    let session = store.current();
    assert_eq!(store.do_task(Task::Scan { partition: 3, session, scan: scan() }), []);
    let scanned =
        StoreEvent::Scanned { partition: 3, session, expired: vec![b"ada".as_slice().into()], next: None };
    let now_ms = store.now_ms;
    let events = store.do_task(Task::AtLogEnd { partition: 3, session, now_ms });
    assert_eq!(events, std::slice::from_ref(&scanned));
    store.partitions.set_failing(3, true);
    store.apply(vec![entry_at(60, "bob", Some("1"))], Some(8));
    store.advance(Duration::from_secs(10));
    assert_eq!(store.do_task(Task::Scan { partition: 3, session, scan: scan() }), []);
    store.partitions.set_failing(3, false);
    assert!(store.advance(Duration::from_secs(5)).contains(&scanned));
    let old = SessionId(0);
    assert_eq!(store.do_task(Task::Scan { partition: 3, session: old, scan: scan() }), []);
}
