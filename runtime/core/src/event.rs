//! An admitted event, from reading to its outcome.

use crate::slab::NONE;
use crate::{ArenaSlot, FetchedRow};

/// An event that waits for a call, or for an outcome without one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) offset: i64,
    /// Milliseconds since 1970; −1: none.
    pub(crate) timestamp: i64,
    pub(crate) arena_slot: ArenaSlot,
    /// Its share of the partition's `queued_bytes`.
    pub(crate) bytes: u32,
    /// When it was admitted: the uptime in milliseconds, modulo 2³².
    pub(crate) admitted_ms: u32,
    /// The number of its next attempt.
    pub(crate) attempt: u32,
    /// Whether the event was in a call that failed as a whole. Until such an event settles, it needs an instance that
    /// has processed no call.
    pub(crate) quarantined: bool,
    /// Whether the event was ever dispatched.
    pub(crate) dispatched: bool,
    /// Index of its order; [`NONE`]: the handler has no gate, or the order is not needed.
    pub(crate) order: u32,
}

impl Event {
    /// Returns whether the event had a call, so that it runs before others of its lane.
    pub(crate) fn is_in_progress(&self) -> bool {
        self.attempt > 1 || self.quarantined || self.dispatched
    }

    pub(crate) fn new(row: &FetchedRow, admitted_ms: u32) -> Self {
        let &FetchedRow { offset, timestamp, arena_slot, bytes, .. } = row;
        Event {
            offset,
            timestamp,
            arena_slot,
            bytes,
            admitted_ms,
            attempt: 1,
            quarantined: false,
            dispatched: false,
            order: NONE,
        }
    }
}
