//! The states of a partition, as its changelog has them.

use std::collections::BTreeMap;

use keylane_state::{BINDING_KEY, Binding, MarkRecord, RecordError, StateRecord, record_key};

use super::log_reader::Bound;
use super::{KeyedTools, ToolPartition};

/// Which states a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted<'k> {
    /// Those of all keys, without the states themselves.
    Keys,
    /// Those of all keys.
    Values,
    /// Those of all keys, without the states themselves, and all marks.
    KeysAndMarks,
    /// The marks of all keys.
    Marks,
    /// That of this record key, which may be the key of a mark.
    Only(&'k [u8]),
    /// None: only the binding.
    Binding,
}

/// The state of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateOfKey {
    /// The version that the handler had which wrote it.
    pub version: u32,
    /// Bytes of the state.
    pub size: usize,
    /// The state, if it was requested.
    pub value: Option<Vec<u8>>,
}

/// The states of a partition.
#[derive(Debug, Default)]
pub struct PartitionStates {
    /// By record key: the state, or why its record can't be decoded.
    pub states: BTreeMap<Box<[u8]>, Result<StateOfKey, RecordError>>,
    /// What the gate remembers, by the key of the mark record, or why the record can't be decoded.
    pub(super) marks: BTreeMap<Box<[u8]>, Result<MarkRecord, RecordError>>,
    /// Whether the changelog has records of states, deletions included.
    pub(super) has_states: bool,
    /// The binding record; `None`: there is none.
    pub(super) binding: Option<Result<Binding, RecordError>>,
    /// Whether the changelog has any other record, deletions included.
    pub(super) has_records: bool,
}

impl KeyedTools {
    /// Reads the committed states of a partition. `values`: whether the states themselves are kept in memory.
    ///
    /// # Errors
    /// The changelog can't be read.
    pub fn states(&mut self, partition: &ToolPartition, values: bool) -> anyhow::Result<PartitionStates> {
        let wanted = if values { Wanted::Values } else { Wanted::Keys };
        self.read_states(partition, wanted, Bound::Committed)
    }

    /// Reads the state of one record key in a partition.
    ///
    /// # Errors
    /// The changelog can't be read, or the record can't be decoded.
    pub fn state_of(&mut self, partition: &ToolPartition, key: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
        let mut found = self.read_states(partition, Wanted::Only(key), Bound::Committed)?;
        let state = found.states.remove(key).transpose()?;
        Ok(state.and_then(|state| state.value))
    }

    /// Reads what the gate remembers of one key in a partition. `key`: of the mark record.
    ///
    /// # Errors
    /// The changelog can't be read, or the record can't be decoded.
    pub fn mark_of(&mut self, partition: &ToolPartition, key: &[u8]) -> anyhow::Result<Option<MarkRecord>> {
        let mut found = self.read_states(partition, Wanted::Only(key), Bound::Committed)?;
        Ok(found.marks.remove(key).transpose()?)
    }

    pub(super) fn read_states(
        &mut self,
        partition: &ToolPartition,
        wanted: Wanted<'_>,
        until: Bound,
    ) -> anyhow::Result<PartitionStates> {
        let topic = self.changelog(partition)?.name.clone();
        let mut states = PartitionStates::default();
        self.reader.read(&topic, partition.number, until, &mut |record| {
            states.take(record.key().unwrap_or_default(), record.value(), wanted);
        })?;
        Ok(states)
    }
}

impl PartitionStates {
    /// Takes the next record of the changelog.
    fn take(&mut self, key: &[u8], value: Option<&[u8]>, wanted: Wanted<'_>) {
        if *key == BINDING_KEY {
            self.binding = value.map(Binding::decode);
            return;
        }
        self.has_records = true;
        if record_key::is_mark(key) {
            return self.take_mark(key, value, wanted);
        }
        self.has_states = true;
        let is_wanted = match wanted {
            Wanted::Keys | Wanted::Values | Wanted::KeysAndMarks => true,
            Wanted::Only(only) => only == key,
            Wanted::Marks | Wanted::Binding => false,
        };
        if !is_wanted {
            return;
        }
        let Some(value) = value else {
            self.states.remove(key);
            return;
        };
        let state = StateRecord::decode(value).map(|StateRecord { version, state }| StateOfKey {
            version,
            size: state.len(),
            value: (!matches!(wanted, Wanted::Keys | Wanted::KeysAndMarks)).then(|| state.to_vec()),
        });
        self.states.insert(key.into(), state);
    }

    /// What a gate remembers is not a state.
    fn take_mark(&mut self, key: &[u8], value: Option<&[u8]>, wanted: Wanted<'_>) {
        let is_wanted = match wanted {
            Wanted::Marks | Wanted::KeysAndMarks => true,
            Wanted::Only(only) => only == key,
            Wanted::Keys | Wanted::Values | Wanted::Binding => false,
        };
        match value {
            _ if !is_wanted => {}
            Some(value) => {
                self.marks.insert(key.into(), MarkRecord::decode(value));
            }
            None => {
                self.marks.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_record_of_a_key_counts() {
        let value = |state: &[u8]| {
            let mut value = Vec::new();
            StateRecord::encode(3, state, &mut value);
            value
        };
        let mut states = PartitionStates::default();
        states.take(b"\x01ada", Some(&value(b"1")), Wanted::Values);
        states.take(b"\x01bob", Some(&value(b"1")), Wanted::Values);
        states.take(b"\x01ada", Some(&value(b"22")), Wanted::Values);
        states.take(b"\x01bob", None, Wanted::Values);
        states.take(b"\x01eve", Some(b"?"), Wanted::Values);
        let ada = StateOfKey { version: 3, size: 2, value: Some(b"22".to_vec()) };
        assert_eq!(states.states.get(&b"\x01ada"[..]), Some(&Ok(ada)));
        assert!(states.states.get(&b"\x01eve"[..]).is_some_and(Result::is_err));
        assert_eq!((states.states.len(), states.has_records, states.binding.is_none()), (2, true, true));
        assert!(states.has_states && states.marks.is_empty());
        let mut mark = Vec::new();
        MarkRecord { mark: Some(3), ..MarkRecord::default() }.encode(&mut mark);
        let key = b"\x09\0\0\0\x04\x01ada";
        let mut marks = PartitionStates::default();
        marks.take(key, Some(&mark), Wanted::Values);
        assert!(marks.states.is_empty() && marks.marks.is_empty() && !marks.has_states);
        marks.take(key, Some(&mark), Wanted::Only(key));
        let found = marks.marks.get(&key[..]).and_then(|found| found.as_ref().ok());
        assert_eq!(found.and_then(|record| record.mark), Some(3));
        marks.take(key, None, Wanted::Marks);
        assert!(marks.marks.is_empty() && marks.has_records);
        states.take(&BINDING_KEY, Some(b"?"), Wanted::Keys);
        assert!(states.binding.is_some_and(|binding| binding.is_err()));
    }
}
