use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

fn value(text: &str) -> StateValue {
    Some(text.as_bytes().into())
}

fn key(bytes: &[u8]) -> KeyBytes {
    bytes.into()
}

fn claimed(states: &KeyStates, through: u64) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut records = Vec::new();
    states.claimed(through, |key, value| records.push((key.to_vec(), value.map(<[u8]>::to_vec))));
    records
}

fn entry(key: &str, value: Option<&str>) -> (Vec<u8>, Option<Vec<u8>>) {
    (key.into(), value.map(Into::into))
}

#[test]
fn a_transaction_has_the_last_state_of_each_key_up_to_its_number() {
    let mut states = KeyStates::new(1 << 20);
    states.changed(1, &key(b"a"), value("a1"));
    states.changed(2, &key(b"b"), value("b2"));
    states.changed(4, &key(b"a"), value("a4"));
    states.changed(7, &key(b"a"), None);
    assert_eq!(claimed(&states, 1), [entry("a", Some("a1"))]);
    assert_eq!(claimed(&states, 5), [entry("b", Some("b2")), entry("a", Some("a4"))]);
    assert_eq!(claimed(&states, 9), [entry("b", Some("b2")), entry("a", None)]);
    assert_eq!(states.get(b"a"), Some(None), "the handler sees what the last event has left");
    let entries = states.committed(4, 70);
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].changed_ms, Some(70));
    assert_eq!((&*entries[1].key, entries[1].value.as_deref()), (&b"a"[..], Some(&b"a4"[..])));
    assert_eq!((states.uncommitted(), claimed(&states, 9)), (1, vec![entry("a", None)]));
    assert_eq!(states.committed(9, 70).len(), 1);
    assert_eq!((states.get(b"a"), states.get(b"b")), (Some(None), Some(value("b2"))));
}

#[test]
fn only_what_is_unknown_is_taken_from_the_store() {
    let mut states = KeyStates::new(1 << 20);
    assert_eq!(states.get(b"a"), None);
    states.loaded(&key(b"a"), value("stored"));
    states.changed(3, &key(b"b"), value("new"));
    states.loaded(&key(b"b"), value("old"));
    assert_eq!((states.get(b"a"), states.get(b"b")), (Some(value("stored")), Some(value("new"))));
    states.committed(3, 70);
    states.loaded(&key(b"b"), value("old"));
    assert_eq!(states.get(b"b"), Some(value("new")));
}

fn keys(keys: &[&str]) -> Vec<KeyBytes> {
    keys.iter().map(|key| KeyBytes::from(key.as_bytes())).collect()
}

#[test]
fn a_forgotten_state_is_deleted_and_a_later_change_is_newer() {
    let mut states = KeyStates::new(1 << 20);
    states.changed(1, &key(b"c"), value("c1"));
    states.forgotten(2, keys(&["a", "b"]));
    assert_eq!(states.get(b"a"), Some(None), "the next event finds no state");
    states.changed(3, &key(b"a"), value("a3"));
    assert_eq!(claimed(&states, 2), [entry("c", Some("c1")), entry("a", None), entry("b", None)]);
    assert_eq!(claimed(&states, 3), [entry("c", Some("c1")), entry("b", None), entry("a", Some("a3"))]);
    let entries = states.committed(2, 70);
    let committed: Vec<_> = entries.iter().map(|entry| (&*entry.key, entry.value.as_deref())).collect();
    assert_eq!(committed, [(&b"c"[..], Some(&b"c1"[..])), (b"a", None), (b"b", None)]);
    assert_eq!((states.uncommitted(), states.get(b"b")), (1, Some(None)));
}

#[test]
fn a_state_that_changed_while_the_store_searched_is_not_forgotten() {
    let mut states = KeyStates::new(0);
    assert_eq!(states.end_scan(keys(&["a"])), None, "no search has begun");
    states.changed(1, &key(b"before"), value("1"));
    states.committed(1, 70);
    states.changed(2, &key(b"first"), value("2"));
    states.begin_scan();
    states.changed(3, &key(b"then"), value("3"));
    states.changed(4, &key(b"uncommitted"), value("4"));
    states.committed(3, 70);
    let expired = keys(&["before", "first", "old", "then", "uncommitted"]);
    assert_eq!(states.end_scan(expired), Some(keys(&["before", "old"])));
    states.begin_scan();
    for number in 5..=100_010 {
        states.changed(number, &key(&u64::to_be_bytes(number)), value("5"));
    }
    states.committed(100_010, 70);
    assert_eq!(states.end_scan(keys(&["old"])), None, "too much has changed");
}

#[derive(Clone, Debug)]
enum Step {
    Change(u8, Option<u8>),
    /// Commits a part of what is uncommitted.
    Commit(u8),
    Read(u8),
}

proptest! {
    /// With any cache, states and store together are the fold of all changes; the store is that of the committed ones.
    #[test]
    fn states_and_store_are_the_fold_of_the_changes(
        cache in 0_usize..4000,
        steps in prop::collection::vec(prop_oneof![
            3 => (0..20_u8, prop::option::of(any::<u8>())).prop_map(|(key, value)| Step::Change(key, value)),
            1 => (0..=100_u8).prop_map(Step::Commit),
            2 => (0..20_u8).prop_map(Step::Read),
        ], 1..200),
    ) {
        let mut states = KeyStates::new(cache);
        let (mut all, mut committed): (BTreeMap<u8, Option<u8>>, BTreeMap<u8, Option<u8>>) = Default::default();
        let mut store: BTreeMap<u8, Option<u8>> = BTreeMap::new();
        let mut pending: VecDeque<(u64, u8, Option<u8>)> = VecDeque::new();
        let mut number = 0;
        for step in steps {
            match step {
                Step::Change(key, value) => {
                    number += 2;
                    states.changed(number, &KeyBytes::from([key].as_slice()), value.map(|byte| [byte].as_slice().into()));
                    all.insert(key, value);
                    pending.push_back((number, key, value));
                }
                Step::Commit(percent) => {
                    let count = pending.len() * usize::from(percent) / 100;
                    let through = count.checked_sub(1).map_or(0, |last| pending[last].0);
                    let records = claimed(&states, through);
                    let entries = states.committed(through, 70);
                    prop_assert_eq!(records.len(), entries.len());
                    for ((key, value), entry) in records.iter().zip(&entries) {
                        prop_assert_eq!(key.as_slice(), &*entry.key);
                        prop_assert_eq!(value.as_deref(), entry.value.as_deref());
                        store.insert(key[0], value.as_ref().map(|value| value[0]));
                    }
                    for (_, key, value) in pending.drain(..count) {
                        committed.insert(key, value);
                    }
                    prop_assert_eq!(&store, &committed);
                }
                Step::Read(key) => {
                    let stored = || store.get(&key).copied().flatten().map(|byte| Arc::from([byte].as_slice()));
                    let seen = states.get(&[key]).unwrap_or_else(|| {
                        states.loaded(&KeyBytes::from([key].as_slice()), stored());
                        stored()
                    });
                    let expected = all.get(&key).copied().flatten();
                    prop_assert_eq!(seen.map(|value| value[0]), expected);
                }
            }
        }
    }
}
