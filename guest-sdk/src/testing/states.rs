//! The states of a handler in a native test.

use std::collections::BTreeMap;

use crate::State;
use crate::effects::OptionalBytes;

/// The states of all keys, as [`run_keyed`](super::TestEvent::run_keyed) leaves them. Events without a key share one
/// state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct States {
    by_key: BTreeMap<Option<Vec<u8>>, Vec<u8>>,
}

impl States {
    /// Creates an empty set: no key has a state.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the state of a key, if it has one.
    ///
    /// # Panics
    /// If the state does not decode to `T`, with the reason.
    #[expect(clippy::panic, reason = "a failing test must report the reason")]
    pub fn get<T: State>(&self, key: impl OptionalBytes) -> Option<T> {
        let decode = |bytes| T::decode(bytes).unwrap_or_else(|failure| panic!("the state: {failure}"));
        self.bytes(key).map(decode)
    }

    /// Sets the state of a key.
    ///
    /// # Panics
    /// If the state can't be encoded, with the reason.
    #[expect(clippy::panic, reason = "a failing test must report the reason")]
    pub fn set<T: State>(&mut self, key: impl OptionalBytes, state: &T) {
        let mut bytes = Vec::new();
        state.encode(&mut bytes).unwrap_or_else(|failure| panic!("the state: {failure}"));
        self.set_bytes(key, Some(&bytes));
    }

    /// Returns the encoded state of a key, if it has one.
    pub fn bytes(&self, key: impl OptionalBytes) -> Option<&[u8]> {
        let key = key.optional_bytes().map(<[u8]>::to_vec);
        self.by_key.get(&key).map(Vec::as_slice)
    }

    /// Sets the encoded state of a key; `None` deletes it.
    pub fn set_bytes(&mut self, key: impl OptionalBytes, state: Option<&[u8]>) {
        let key = key.optional_bytes().map(<[u8]>::to_vec);
        match state {
            Some(state) => self.by_key.insert(key, state.to_vec()),
            None => self.by_key.remove(&key),
        };
    }

    /// Returns the number of keys that have a state.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Returns whether no key has a state.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}
