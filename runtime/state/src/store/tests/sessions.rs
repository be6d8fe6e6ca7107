//! Sessions: work of an older one has no effect.

use super::*;

#[test]
fn a_new_session_ends_the_older_one() {
    let dir = TempDir::new("sessions");
    let mut store = Store::new(&dir);
    store.opened();
    let old = store.current();
    store.apply(vec![entry("ada", Some("1"))], Some(7));
    store.at_log_end();
    store.apply(vec![entry("bob", Some("1"))], Some(8));
    assert_eq!(store.opened(), (Some(8), None), "the older session was closed with its entries");
    let keys = || vec![b"ada".as_slice().into()];
    let load = Task::Load { partition: 3, session: old, load: Load { token: 1, keys: keys() } };
    assert_eq!(store.do_task(load), [], "not answered");
    let entries = vec![entry("ada", Some("2"))];
    let bytes = entries.iter().map(Entry::bytes).sum();
    let apply = Task::Apply { partition: 3, session: old, entries, through: Some(9) };
    let dropped = StoreEvent::Applied { partition: 3, session: old, through: Some(9), bytes };
    assert_eq!(store.do_task(apply), [dropped], "reported and dropped");
    store.do_task(Task::AtLogEnd { partition: 3, session: old, now_ms: i64::MAX });
    let close = Task::Close { partition: 3, session: old };
    assert_eq!(store.do_task(close), [StoreEvent::Closed { partition: 3, session: old }]);
    store.check_values(&["ada", "bob"], &[Some("1"), Some("1")]);
    store.close();
    assert_eq!(store.opened(), (Some(8), None));
}

#[test]
fn waiting_loads_of_a_session_that_ends_are_not_answered() {
    let dir = TempDir::new("waiting");
    let mut store = Store::new(&dir);
    store.fill(7);
    store.opened();
    store.at_log_end();
    store.apply(vec![entry("bob", Some("1"))], Some(8));
    store.partitions.set_failing(3, true);
    store.advance(Duration::from_secs(10));
    assert_eq!(store.load(1, &["ada"]), []);
    assert_eq!(store.opened(), (Some(7), None));
    assert_eq!(store.advance(Duration::from_secs(60)), []);
    store.check_values(&["ada", "bob"], &[Some("1"), None]);
}

/// Each new file makes the shares of the others smaller, for which they are opened again.
#[test]
fn many_partitions_share_the_cache() {
    let dir = TempDir::new("share");
    let mut store = Store::with(spec(Some(&dir), 16 << 20));
    let partitions = 0..40;
    for partition in partitions.clone() {
        let key = format!("key-{partition}");
        store.open_as(partition, IDENTITY);
        let (session, entries) = (store.current(), vec![entry(&key, Some("1")), entry("all", Some(&key))]);
        store.do_task(Task::Apply { partition, session, entries, through: Some(1) });
        if partition % 3 == 0 {
            store.advance(Duration::from_secs(10));
        }
    }
    for partition in partitions {
        let session = SessionId(u64::try_from(partition).expect("positive") + 1);
        let keys = vec![b"all".as_slice().into(), b"key-0".as_slice().into()];
        let load = Load { token: 5, keys };
        let events = store.do_task(Task::Load { partition, session, load });
        let all = Some(format!("key-{partition}").into_bytes().into());
        let values = vec![all, (partition == 0).then(|| b"1".as_slice().into())];
        assert_eq!(events, [StoreEvent::Loaded { partition, session, token: 5, values }]);
    }
}
