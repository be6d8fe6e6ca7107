//! Gates: a rule that decides from the order value of an event whether the event is due, or waits for lower ones, or is
//! passed over without a call. The rules and their words are those of the reference of the configuration.

mod config;
mod event_order;
mod memory;

pub use config::{
    Consecutive, Duplicates, First, GateConfig, GateRule, Late, MaxAhead, Newest, NoValue, OnGap, Window,
};
pub use event_order::{EventId, EventOrder, GateKey, Known};
pub use memory::{Change, DELIVERED_MAX, HOLES_MAX, KeyMemory, MemoryChange, RememberedId};
