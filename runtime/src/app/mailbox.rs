//! What other threads tell a handler's loop. One lock per batch of news, never one per event.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::guest::CallEvent;
use crate::librdkafka::WakeHandle;
use crate::sink::Delivery;

/// One piece of news.
#[derive(Debug)]
pub(super) enum LoopEvent {
    /// Of a guest call.
    Call(CallEvent),
    /// Outputs arrived, or were refused.
    Delivered(Vec<Delivery>),
    /// Finish what runs and leave; for this reason.
    Drain(&'static str),
}

/// LoopEvent for one loop. It is bounded by what can be on its way: two pieces per call that is out, outputs in flight, and
/// the signals.
#[derive(Debug)]
pub(super) struct Mailbox {
    events: Mutex<VecDeque<LoopEvent>>,
    wake: WakeHandle,
}

impl Mailbox {
    pub(super) fn new(wake: WakeHandle) -> Self {
        Mailbox { events: Mutex::new(VecDeque::new()), wake }
    }

    /// Leaves a piece of news and wakes the loop.
    pub(super) fn put(&self, events: LoopEvent) {
        self.put_all(std::iter::once(events));
    }

    /// Leaves several pieces, which wake the loop once.
    pub(super) fn put_all(&self, events: impl Iterator<Item = LoopEvent>) {
        // A panicking thread ends the process: whatever a poisoned lock guards is never used for long.
        self.events.lock().unwrap_or_else(PoisonError::into_inner).extend(events);
        self.wake.wake();
    }

    /// Takes everything at once: `taken`, which is empty, is left in its place.
    pub(super) fn take(&self, taken: &mut VecDeque<LoopEvent>) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *events, taken);
    }
}
