//! The states of a partition, as its changelog has them.

use std::collections::BTreeMap;

use keylane_state::{BINDING_KEY, Binding, RecordError, StateRecord, record_key};

use super::log_reader::Bound;
use super::{KeyedTools, ToolPartition};

/// Which states a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted<'k> {
    /// Those of all keys, without the states themselves.
    Keys,
    /// Those of all keys.
    Values,
    /// That of this record key.
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
            return; // what a gate remembers is not a state
        }
        let is_wanted = match wanted {
            Wanted::Keys | Wanted::Values => true,
            Wanted::Only(only) => only == key,
            Wanted::Binding => false,
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
            value: (wanted != Wanted::Keys).then(|| state.to_vec()),
        });
        self.states.insert(key.into(), state);
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
        states.take(&BINDING_KEY, Some(b"?"), Wanted::Keys);
        assert!(states.binding.is_some_and(|binding| binding.is_err()));
    }
}
