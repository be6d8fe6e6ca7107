//! The states of lanes: their encoding, and the columns of those that changed.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::{BytesColumn, StateChanges};
use crate::columns::{ColumnReader, EMPTY, push, replace_last};
use crate::{Failure, Result};

/// A state that a handler keeps for each lane, usually for each key.
///
/// Every type of serde is a state; it is stored as JSON (UTF-8, compact, nothing before or after it), so that other
/// languages and tools can read it. [`Bytes`] stores bytes as they are. For another encoding, implement this trait for a
/// type that does not implement the traits of serde:
///
/// ```
/// use keylane_sdk::{OrFail, Result, State};
///
/// /// Stored as eight bytes, big-endian.
/// struct Count(u64);
///
/// impl State for Count {
///     fn decode(bytes: &[u8]) -> Result<Self> {
///         Ok(Self(u64::from_be_bytes(bytes.try_into().or_reject("not eight bytes")?)))
///     }
///
///     fn encode(&self, bytes: &mut Vec<u8>) -> Result {
///         bytes.extend_from_slice(&self.0.to_be_bytes());
///         Ok(())
///     }
/// }
/// ```
///
/// The state of a lane is stored when its bytes differ from those before. A map with a random order, such as
/// [`HashMap`](std::collections::HashMap), differs each time: prefer [`BTreeMap`](std::collections::BTreeMap).
pub trait State: Sized {
    /// Decodes a stored state.
    ///
    /// # Errors
    /// If the bytes are no such state. The event is rejected, with this reason.
    fn decode(bytes: &[u8]) -> Result<Self>;

    /// Appends the encoded state to `bytes`, which is empty.
    ///
    /// # Errors
    /// If the state can't be encoded. The event is rejected, with this reason.
    fn encode(&self, bytes: &mut Vec<u8>) -> Result;
}

impl<T: Serialize + DeserializeOwned> State for T {
    fn decode(bytes: &[u8]) -> Result<Self> {
        Ok(serde_json::from_slice(bytes)?)
    }

    fn encode(&self, bytes: &mut Vec<u8>) -> Result {
        Ok(serde_json::to_writer(bytes, self)?)
    }
}

/// A state that is stored byte for byte. (A `Vec<u8>` is a type of serde, and would be stored as a list of numbers.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl State for Bytes {
    fn decode(bytes: &[u8]) -> Result<Self> {
        Ok(Self(bytes.to_vec()))
    }

    fn encode(&self, bytes: &mut Vec<u8>) -> Result {
        bytes.extend_from_slice(&self.0);
        Ok(())
    }
}

/// The states of a batch, lane by lane.
#[derive(Debug)]
pub(crate) struct LaneStates<'a, T> {
    /// The states of the lanes from `next_lane` on. `None`: the handler is configured without state.
    unread: Option<ColumnReader<'a>>,
    next_lane: u32,
    /// The state of the current lane before its first row here.
    before: Option<&'a [u8]>,
    /// The state of the current lane.
    state: Option<T>,
    encoded: Vec<u8>,
    /// The lanes whose state changed, and their states after the last done row.
    lanes: Vec<u32>,
    values: BytesColumn,
}

impl<'a, T: State> LaneStates<'a, T> {
    pub(crate) fn new(states: Option<&'a BytesColumn>) -> Self {
        Self {
            unread: states.map(ColumnReader::new),
            next_lane: 0,
            before: None,
            state: None,
            encoded: Vec::new(),
            lanes: Vec::new(),
            values: EMPTY,
        }
    }

    /// Returns the state before the next row, which belongs to this lane. Lanes ascend.
    pub(crate) fn before_row(&mut self, lane: u32) -> Result<&mut Option<T>> {
        let unread = self.unread.as_mut().ok_or_else(|| Failure::retry(NOT_CONFIGURED))?;
        if self.next_lane <= lane {
            while self.next_lane <= lane {
                self.before = unread.read();
                self.next_lane += 1;
            }
            let decoded = self.before.map(T::decode).transpose();
            self.state = decoded.map_err(|failure| rejected("the stored state can't be decoded", failure))?;
        }
        Ok(&mut self.state)
    }

    /// Records the state after a row that is done, unless it can't be encoded.
    pub(crate) fn row_is_done(&mut self) -> Result {
        self.encoded.clear();
        let encoded = self.state.as_ref().map(|state| state.encode(&mut self.encoded)).transpose();
        let encoded = encoded.map_err(|failure| rejected("the new state can't be encoded", failure))?;
        let state = encoded.map(|()| self.encoded.as_slice());
        let lane = self.next_lane - 1;
        match (state == self.before, self.lanes.last() == Some(&lane)) {
            (true, false) => {}
            (true, true) => {
                self.lanes.pop();
                replace_last(&mut self.values, None);
                self.values.lengths.pop();
            }
            (false, true) => replace_last(&mut self.values, state),
            (false, false) => {
                self.lanes.push(lane);
                push(&mut self.values, state);
            }
        }
        Ok(())
    }

    /// Returns the columns for the host; `None` if no state changed.
    pub(crate) fn into_changes(self) -> Option<StateChanges> {
        (!self.lanes.is_empty()).then_some(StateChanges { lanes: self.lanes, values: self.values })
    }
}

/// The reason of every event of a handler that needs a state and has none: an absent state would be wrong.
const NOT_CONFIGURED: &str = "the handler needs a state: add `delivery = \"transactional\"` to its section of the \
                              configuration, and a section `[handlers.NAME.state]`";

/// Another attempt would have the same state, so it is a rejection in any case.
fn rejected(what: &str, failure: Failure) -> Failure {
    let (Failure::Retry { reason, .. } | Failure::Reject { reason }) = failure;
    Failure::reject(format!("{what}: {reason}"))
}

#[cfg(test)]
mod tests;
