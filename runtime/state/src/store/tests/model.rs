//! The store compared with a map, under random calls, faults and kills.

use std::collections::BTreeMap;

use proptest::prelude::*;

use std::sync::Arc;

use super::*;
use crate::KeyBytes;

#[derive(Clone, Debug)]
enum Step {
    /// Records of one transaction: key, and value or deletion.
    Apply(Vec<(u8, Option<u8>)>),
    Load(Vec<u8>),
    Wait(u64),
    SetFailing(bool),
    /// Closes and opens the partition.
    Reopen,
    /// Kills the process and opens the partition.
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let record = (0u8..30, prop::option::weighted(0.7, any::<u8>()));
    prop_oneof![
        8 => prop::collection::vec(record, 0..8).prop_map(Step::Apply),
        6 => prop::collection::vec(0u8..30, 1..4).prop_map(Step::Load),
        4 => (1u64..12).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::SetFailing),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
    ]
}

/// The changelog, and the fold of it.
#[derive(Default)]
struct Model {
    log: Vec<Entry>,
    values: BTreeMap<KeyBytes, Arc<[u8]>>,
}

impl Model {
    fn append(&mut self, entries: &[Entry]) -> i64 {
        for entry in entries {
            match &entry.value {
                Some(value) => drop(self.values.insert(entry.key.clone(), value.clone())),
                None => drop(self.values.remove(&entry.key)),
            }
        }
        self.log.extend_from_slice(entries);
        i64::try_from(self.log.len()).expect("a short log")
    }
}

fn key(number: u8) -> KeyBytes {
    let bytes = vec![number; usize::from(number % 5) + 1];
    KeyBytes::from(&bytes[..])
}

/// Opens the partition and reads the log from where the store says.
fn restore(store: &mut Store, model: &Model) {
    let (resume, _) = store.opened();
    let from = usize::try_from(resume.unwrap_or(0)).expect("an offset");
    assert!(from <= model.log.len(), "the file is ahead of the changelog");
    let end = i64::try_from(model.log.len()).expect("a short log");
    store.apply(model.log[from..].to_vec(), Some(end));
    store.at_log_end();
}

fn check(name: &str, cache_bytes: usize, steps: Vec<Step>) {
    let dir = TempDir::new(name);
    let mut store = Store::with(spec(Some(&dir), cache_bytes));
    let mut model = Model::default();
    let mut waiting: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    restore(&mut store, &model);
    for (token, step) in (0u64..).zip(steps) {
        let events = match step {
            Step::Apply(records) => {
                let entry = |(k, v): (u8, Option<u8>)| {
                    Entry::new(&key(k), v.map(|value| vec![value; 50]).as_deref(), None)
                };
                let entries = records.into_iter().map(entry);
                let entries: Vec<Entry> = entries.collect();
                let end = model.append(&entries);
                let events = store.apply(entries, Some(end));
                store.at_log_end();
                events
            }
            Step::Load(keys) => {
                waiting.insert(token, keys.clone());
                let session = store.current();
                let load = Load { token, keys: keys.into_iter().map(key).collect() };
                store.do_task(Task::Load { partition: 3, session, load })
            }
            Step::Wait(seconds) => store.advance(Duration::from_secs(seconds)),
            Step::SetFailing(failing) => {
                store.partitions.set_failing(3, failing);
                Vec::new()
            }
            Step::Reopen | Step::Kill => {
                if matches!(step, Step::Kill) {
                    store.partitions.crash()
                } else {
                    drop(store.close())
                }
                waiting.clear();
                restore(&mut store, &model);
                Vec::new()
            }
        };
        for event in events {
            if let StoreEvent::Loaded { token, values, .. } = event {
                let keys = waiting.remove(&token).expect("an answer to one load");
                let expected: Vec<_> = keys.iter().map(|&k| model.values.get(&key(k)).cloned()).collect();
                assert_eq!(values, expected);
            } else {
                assert!(!matches!(event, StoreEvent::Lost { .. }), "{event:?}");
            }
        }
    }
    store.partitions.set_failing(3, false);
    let last = store.advance(Duration::from_secs(10));
    let answers = last.iter().filter(|event| matches!(event, StoreEvent::Loaded { .. })).count();
    assert_eq!(answers, waiting.len(), "every load is answered");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_the_fold_of_its_changelog(steps in prop::collection::vec(step(), 1..60)) {
        check("model", 1 << 20, steps);
    }

    /// Nearly every call writes.
    #[test]
    fn a_store_without_memory_is_too(steps in prop::collection::vec(step(), 1..40)) {
        check("model-small", 1000, steps);
    }
}
