//! keylane-core: the rules of Keylane and nothing else.
//!
//! No clock, no I/O, no async, no randomness. The shell feeds [`Input`]s to [`Core::handle`] and carries out
//! the [`Action`]s that [`Core::poll`] gives until it gives none; [`Core::next_timeout`] says when to come
//! back at the latest. The core never sees a payload: it works on offsets, timestamps, lane hashes and sizes.
mod action;
mod config;
mod ids;
mod input;

pub use action::*;
pub use config::{Config, OutOfRange};
pub use ids::{CallId, CommitId, Now, Partition, Place, SessionId};
pub use input::*;

mod bits;
pub mod codec;
pub mod ledger;
mod slab;
