//! Keyed state: the records of a changelog, and the local store that caches them.
//!
//! A handler with state has one changelog, a compacted topic with the partitions of its input topic. Each transaction
//! writes the states that its events changed, and with them the offset that it commits.
//!
//! - [`record_key`]: the key of a record, made of a lane key.
//! - [`KeyBytes`]: its bytes, as tables have them.
//! - [`StateRecord`]: the value of a record, the state of one key.
//! - [`MarkRecord`]: the value of another record, what a gate remembers of one key.
//! - [`Binding`]: the record that binds the states of a partition to the committed offset, and [`compare`], which
//!   decides whether a partition may start with them.
//! - [`KeyStates`]: the states as the handler sees them, with those that no transaction has committed yet.
//! - [`StateStore`]: a cache of the changelogs, one file for each partition, so that states are read without Kafka.
//!
//! Invariants: the crate is independent of Kafka and of guests. The store is never ahead of a changelog, and nothing
//! is lost with it.

#![forbid(unsafe_code)]

pub mod record_key;

mod binding;
mod key_bytes;
mod key_states;
mod mark_record;
mod mismatch;
mod record_error;
mod state_record;
mod store;

pub use binding::{Binding, BindingIdentity, RESET_OFFSET, SEEDED_OFFSET};
pub use key_bytes::KeyBytes;
pub use key_states::{KeyStates, StateValue};
pub use mark_record::MarkRecord;
pub use mismatch::{Mismatch, compare};
pub use record_error::RecordError;
pub use record_key::BINDING_KEY;
pub use state_record::{STATE_RECORD_OVERHEAD, StateRecord};
pub use store::{Entry, FileIdentity, SessionId, StateStore, StoreEvent, StoreSpec};
