//! keylane-core: the rules of Keylane and nothing else.
//!
//! No clock, no I/O, no async, no randomness. The shell feeds [`Input`]s to [`Core::handle`] and carries out
//! the [`Action`]s that [`Core::poll`] gives until it gives none; [`Core::next_timeout`] says when to come
//! back at the latest. The core never sees a payload: it works on offsets, timestamps, lane hashes and sizes.
//!
//! The life of an event in it:
//!
//! ```text
//! Fetched ─► core/reading (gaps, limits) ─► lanes (one queue per key) ─► core/dispatching (calls)
//!         ─► core/settling (results, acks) ─► ledger (what is open) ─► core/committing (offset + set, by codec)
//!               └─► core/failing (attempts, endings) ─► back to its lane, or to the dead letters
//! ```
//!
//! Sessions, the uninterrupted ownerships of partitions, begin in `core/ownership` and end in `core/closing`.
//!
//! *Invariants.* The core never reads a clock. A lane has at most one call that has not really ended. The
//! committable offset never passes an open event. An event settles once per ownership. Results of an older ownership
//! change nothing. Nothing is committed after *lost*. In the steady state nothing is allocated.

#![forbid(unsafe_code)]

mod action;
mod bits;
mod calls;
pub mod codec;
mod config;
mod core;
mod ids;
mod input;
mod lanes;
pub mod ledger;
mod outbox;
mod partitions;
mod slab;

pub use action::*;
pub use config::{Config, OnExhausted, OutOfRange, RetryPolicy, RetryScope, UNLIMITED_ATTEMPTS};
pub use core::Core;
pub use ids::{ArenaSlot, CallId, CommitId, Now, OwnershipId, Partition, RebalanceId};
pub use input::*;
