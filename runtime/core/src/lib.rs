//! keylane-core: the rules of Keylane and nothing else.
//!
//! No clock, no I/O, no async, no randomness. The shell (the event loop, or a test) feeds [`Input`]s to
//! [`Core::handle`] and carries out the [`Action`]s that [`Core::poll`] returns, until it returns `None`.
//! [`Core::next_timeout`] is the time at which `handle` must be called again at the latest. The core never sees a
//! payload: it works on offsets, timestamps, lane hashes and sizes.
//!
//! The life of an event:
//!
//! ```text
//! Fetched ─► core/reading (gaps, limits) ─► lanes (one queue per key) ─► core/dispatching (calls)
//!         ─► core/settling (results, acks) ─► ledger (open events) ─► core/committing (offset + set, by codec)
//!               └─► core/attempts (attempts, outcomes) ─► back to its lane, or to the dead-letter topic
//! ```
//!
//! Ownerships begin in `core/ownership` and end in `core/closing`.
//!
//! *Invariants.* The core never reads a clock. A lane has at most one call that has not terminated. The
//! committable offset never passes an open event. An event settles once per ownership. Results of an older ownership
//! change nothing. Nothing is committed after *lost*. In the steady state nothing is allocated.

#![forbid(unsafe_code)]

mod action;
mod bits;
mod blockage;
mod calls;
#[doc(hidden)]
pub mod codec; // public for its tests
mod config;
mod core;
mod event;
mod event_times;
mod gates;
mod histogram;
mod ids;
mod input;
mod lane_scan;
mod lanes;
#[doc(hidden)]
pub mod ledger; // public for its tests
mod notice;
mod outbox;
mod partitions;
mod slab;
mod timeline;
mod unclaimed;
mod view;

pub use action::*;
pub use blockage::{Blockage, BlockedOn};
pub use config::{
    Config, OnExhausted, OutOfRange, RetryPolicy, RetryScope, TransactionLimits, UNLIMITED_ATTEMPTS,
};
pub use core::Core;
pub use event_times::EventTimes;
pub use gates::{
    Change, Consecutive, DELIVERED_MAX, Duplicates, EventId, EventOrder, First, GateConfig, GateKey,
    GateRule, HOLES_MAX, KeyMemory, Known, Late, MaxAhead, MemoryChange, Newest, NoValue, OnGap,
    RememberedId, Window,
};
pub use histogram::{BOUNDS, BUCKETS, Histogram};
pub use ids::{
    ArenaSlot, CallId, CommitId, LookUpId, Now, OwnershipId, Partition, RebalanceId, SettleNumber,
};
pub use input::*;
pub use lane_scan::{LaneProgress, LaneScan, LaneView};
pub use notice::*;
pub use view::{Counters, Load, OwnershipState, PartitionView, View};
