//! What is remembered of keys in the changelog of the handler (`memory = "durable"`). Here is only that of the keys with
//! events; mark records have the rest.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use keylane_core::{Change, KeyMemory, LookUpId, Partition};
use keylane_state::{KeyBytes, MarkRecord, RecordError, record_key};

use super::GATE_KEY;

/// The keys with events whose memory is known, and those whose memory is being loaded.
#[derive(Debug, Default)]
pub(super) struct DurableMemory {
    live: HashMap<(Partition, u64), LiveKey, RandomState>,
    loading: HashMap<LookUpId, (Partition, u64), RandomState>,
}

#[derive(Debug)]
struct LiveKey {
    /// The key of its mark record.
    record_key: KeyBytes,
    /// `None`: it is being loaded.
    memory: Option<KeyMemory>,
}

impl DurableMemory {
    /// The memory of a key with events is loaded. `key`: its bytes. Returns the key of its mark record.
    pub(super) fn look_up(
        &mut self,
        request: LookUpId,
        (partition, number): (Partition, u64),
        key: &[u8],
    ) -> KeyBytes {
        let record_key = mark_key(key);
        self.loading.insert(request, (partition, number));
        let live = LiveKey { record_key: record_key.clone(), memory: None };
        self.live.insert((partition, number), live);
        record_key
    }

    /// The memory of a key was loaded. Returns the partition and the number of the key; `None`: it has no events any more.
    pub(super) fn loaded(&mut self, request: LookUpId, memory: KeyMemory) -> Option<(Partition, u64)> {
        let at = self.loading.remove(&request)?;
        let live = self.live.get_mut(&at).filter(|live| live.memory.is_none())?;
        live.memory = Some(memory);
        Some(at)
    }

    /// Returns what is remembered of a key with events, if it is known.
    pub(super) fn get(&self, partition: Partition, number: u64) -> Option<&KeyMemory> {
        self.live.get(&(partition, number))?.memory.as_ref()
    }

    /// Applies a change. Returns the key of the mark record, and its value; `None`: it is deleted.
    pub(super) fn change(
        &mut self,
        partition: Partition,
        number: u64,
        change: Change,
    ) -> Option<(&KeyBytes, Option<Vec<u8>>)> {
        let LiveKey { record_key, memory } = self.live.get_mut(&(partition, number))?;
        let memory = memory.as_mut().expect("the core knows the memory of a key that changes");
        // What is forgotten here, the core has counted.
        let _forgotten = memory.apply(change, 0);
        Some((record_key, encoded(memory)))
    }

    /// The last event of a key has settled, or is no longer owned.
    pub(super) fn idle(&mut self, partition: Partition, number: u64) {
        let ended = self.live.remove(&(partition, number));
        if ended.is_some_and(|live| live.memory.is_none()) {
            self.loading.retain(|_, at| *at != (partition, number));
        }
    }
}

/// Returns the key of the mark record of a gate key.
fn mark_key(key: &[u8]) -> KeyBytes {
    let mut record_key = Vec::with_capacity(key.len() + 5);
    match key.split_first() {
        // Behind its first byte, a gate key that is not the lane key is written as in the key of a mark record.
        Some((&GATE_KEY, parts)) => record_key::push_mark_parts(parts, &mut record_key),
        Some(_) | None => record_key::push_mark(key, None, &mut record_key),
    }
    record_key.as_slice().into()
}

/// Returns the value of a mark record; `None`: nothing is remembered.
fn encoded(memory: &KeyMemory) -> Option<Vec<u8>> {
    let KeyMemory { mark, broken, holes, delivered, ids: _ } = memory.clone();
    let record = MarkRecord { mark, broken, holes, delivered };
    (!record.is_empty()).then(|| {
        let mut value = Vec::new();
        record.encode(&mut value);
        value
    })
}

/// Returns what a mark record remembers; `None`: there is none.
pub(in crate::app::event_loop) fn decoded(value: Option<&[u8]>) -> Result<KeyMemory, RecordError> {
    let MarkRecord { mark, broken, holes, delivered } =
        value.map(MarkRecord::decode).transpose()?.unwrap_or_default();
    Ok(KeyMemory { mark, holes, broken, delivered, ids: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const P0: Partition = Partition { topic: 0, number: 0 };

    fn memory(mark: i64) -> KeyMemory {
        KeyMemory { mark: Some(mark), ..KeyMemory::default() }
    }

    #[test]
    fn a_change_is_written_with_everything_that_is_remembered() {
        let mut durable = DurableMemory::default();
        let key = durable.look_up(LookUpId(1), (P0, 7), b"\x01ada");
        assert_eq!(key, KeyBytes::from(b"\x09\0\0\0\x04\x01ada".as_slice()));
        assert_eq!(durable.loaded(LookUpId(1), memory(3)), Some((P0, 7)));
        assert_eq!(durable.get(P0, 7), Some(&memory(3)));
        let mut change = |change| durable.change(P0, 7, change).map(|(_, value)| value).expect("a live key");
        let value = change(Change::Mark(4)).expect("a mark");
        assert_eq!(decoded(Some(&value)), Ok(memory(4)));
        let value = change(Change::Holes(2, 3)).expect("a mark");
        assert_eq!(decoded(Some(&value)), Ok(KeyMemory { holes: vec![(2, 3)], ..memory(4) }));
        assert_eq!(change(Change::Ended), None);
        assert_eq!(decoded(None), Ok(KeyMemory::default()));
    }

    #[test]
    fn a_load_for_a_key_that_is_gone_changes_nothing() {
        let mut durable = DurableMemory::default();
        durable.look_up(LookUpId(1), (P0, 7), b"\x01ada");
        durable.idle(P0, 7);
        durable.look_up(LookUpId(2), (P0, 7), b"\x01bob");
        assert_eq!(durable.loaded(LookUpId(1), memory(3)), None);
        assert_eq!(durable.get(P0, 7), None);
        assert_eq!(durable.loaded(LookUpId(2), memory(4)), Some((P0, 7)));
    }

    #[test]
    fn a_gate_key_beside_the_lane_key_has_a_record_of_its_own() {
        let mut key = vec![GATE_KEY];
        key.extend_from_slice(b"\0\0\0\x04\x01ada\x037");
        let mut expected = Vec::new();
        record_key::push_mark(b"\x01ada", Some(b"\x037"), &mut expected);
        assert_eq!(mark_key(&key), KeyBytes::from(expected.as_slice()));
    }
}
