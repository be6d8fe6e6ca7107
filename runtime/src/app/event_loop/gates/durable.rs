//! What is remembered of keys in the changelog of the handler (`memory = "durable"`). Here is only that of the keys with
//! events; mark records have the rest.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use keylane_core::{Change, KeyMemory, Known, LookUpId};
use keylane_state::{KeyBytes, MarkRecord, RecordError, StateValue, record_key};

use super::GATE_KEY;
use crate::admit::KeyIndex;

/// The keys with events whose memory is known, and those whose memory is being loaded.
#[derive(Debug, Default)]
pub(super) struct DurableMemory {
    /// By the index of the key.
    live: Vec<LiveKey>,
    loading: HashMap<LookUpId, KeyIndex, RandomState>,
    /// Reused: the key or the value of a mark record.
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct LiveKey {
    /// The key of its mark record.
    record_key: KeyBytes,
    memory: LiveMemory,
}

#[derive(Debug)]
enum LiveMemory {
    /// It was not requested, or the key has no events.
    Unknown,
    Loading(LookUpId),
    Known(KeyMemory),
}

impl DurableMemory {
    /// The memory of a key with events is loaded. `key`: its bytes. Returns the key of its mark record.
    pub(super) fn look_up(&mut self, request: LookUpId, index: KeyIndex, key: &[u8]) -> KeyBytes {
        let record_key = mark_key(key, &mut self.bytes);
        self.loading.insert(request, index);
        let memory = LiveMemory::Loading(request);
        *self.live_mut(index) = LiveKey { record_key: record_key.clone(), memory };
        record_key
    }

    /// Remembers a key whose first event was read, if its mark record is in memory. `key`: its bytes.
    pub(super) fn remembered(
        &mut self,
        index: KeyIndex,
        key: &[u8],
        cached: impl FnOnce(&KeyBytes) -> Option<StateValue>,
    ) -> Known {
        let record_key = mark_key(key, &mut self.bytes);
        // A record that can't be read is reported when it is requested.
        let Some(Ok(memory)) = cached(&record_key).map(|value| decoded(value.as_deref())) else {
            return Known::No;
        };
        let known = if memory.is_only_mark() { Known::Mark(memory.mark) } else { Known::No };
        *self.live_mut(index) = LiveKey { record_key, memory: LiveMemory::Known(memory) };
        known
    }

    fn live_mut(&mut self, index: KeyIndex) -> &mut LiveKey {
        let at = index.0 as usize;
        let unused = || LiveKey { record_key: [].as_slice().into(), memory: LiveMemory::Unknown };
        self.live.resize_with(self.live.len().max(at + 1), unused);
        self.live.get_mut(at).expect("it was just added")
    }

    /// The memory of a key was loaded. Returns the key; `None`: it has no events any more.
    pub(super) fn loaded(&mut self, request: LookUpId, memory: KeyMemory) -> Option<KeyIndex> {
        let index = self.loading.remove(&request)?;
        self.live.get_mut(index.0 as usize)?.memory = LiveMemory::Known(memory);
        Some(index)
    }

    /// Returns what is remembered of a key with events, if it is known.
    pub(super) fn get(&self, index: KeyIndex) -> Option<&KeyMemory> {
        match &self.live.get(index.0 as usize)?.memory {
            LiveMemory::Known(memory) => Some(memory),
            LiveMemory::Unknown | LiveMemory::Loading(_) => None,
        }
    }

    /// Applies a change. Returns the key of the mark record, and its value; `None`: it is deleted.
    pub(super) fn change(&mut self, index: KeyIndex, change: Change) -> Option<(&KeyBytes, Option<&[u8]>)> {
        let LiveKey { record_key, memory } = self.live.get_mut(index.0 as usize)?;
        let LiveMemory::Known(memory) = memory else {
            unreachable!("the core knows the memory of a key that changes")
        };
        // What is forgotten here, the core has counted.
        let _forgotten = memory.apply(change, 0);
        self.bytes.clear();
        let is_kept = encode(memory, &mut self.bytes);
        Some((record_key, is_kept.then_some(&*self.bytes)))
    }

    /// The last event of a key has settled, or is no longer owned.
    pub(super) fn idle(&mut self, index: KeyIndex) {
        let Some(live) = self.live.get_mut(index.0 as usize) else { return };
        if let LiveMemory::Loading(request) = std::mem::replace(&mut live.memory, LiveMemory::Unknown) {
            self.loading.remove(&request);
        }
    }
}

/// Returns the key of the mark record of a gate key.
fn mark_key(key: &[u8], buffer: &mut Vec<u8>) -> KeyBytes {
    buffer.clear();
    match key.split_first() {
        // Behind its first byte, a gate key that is not the lane key is written as in the key of a mark record.
        Some((&GATE_KEY, parts)) => record_key::push_mark_parts(parts, buffer),
        Some(_) | None => record_key::push_mark(key, None, buffer),
    }
    buffer.as_slice().into()
}

/// Appends the value of a mark record. Returns false if nothing is remembered.
fn encode(memory: &KeyMemory, value: &mut Vec<u8>) -> bool {
    let KeyMemory { mark, broken, holes, delivered, ids: _ } = memory.clone();
    let record = MarkRecord { mark, broken, holes, delivered };
    let is_empty = record.is_empty();
    if !is_empty {
        record.encode(value);
    }
    !is_empty
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

    const KEY: KeyIndex = KeyIndex(7);

    fn memory(mark: i64) -> KeyMemory {
        KeyMemory { mark: Some(mark), ..KeyMemory::default() }
    }

    #[test]
    fn a_change_is_written_with_everything_that_is_remembered() {
        let mut durable = DurableMemory::default();
        let key = durable.look_up(LookUpId(1), KEY, b"\x01ada");
        assert_eq!(key, KeyBytes::from(b"\x09\0\0\0\x04\x01ada".as_slice()));
        assert_eq!(durable.loaded(LookUpId(1), memory(3)), Some(KEY));
        assert_eq!(durable.get(KEY), Some(&memory(3)));
        let mut change = |change| {
            durable.change(KEY, change).map(|(_, value)| value.map(<[u8]>::to_vec)).expect("a live key")
        };
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
        durable.look_up(LookUpId(1), KEY, b"\x01ada");
        durable.idle(KEY);
        durable.look_up(LookUpId(2), KEY, b"\x01bob");
        assert_eq!(durable.loaded(LookUpId(1), memory(3)), None);
        assert_eq!(durable.get(KEY), None);
        assert_eq!(durable.loaded(LookUpId(2), memory(4)), Some(KEY));
    }

    #[test]
    fn a_gate_key_beside_the_lane_key_has_a_record_of_its_own() {
        let mut key = vec![GATE_KEY];
        key.extend_from_slice(b"\0\0\0\x04\x01ada\x037");
        let mut expected = Vec::new();
        record_key::push_mark(b"\x01ada", Some(b"\x037"), &mut expected);
        assert_eq!(mark_key(&key, &mut Vec::new()), KeyBytes::from(expected.as_slice()));
    }
}
