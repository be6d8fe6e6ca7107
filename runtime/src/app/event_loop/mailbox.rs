//! The mailbox of a handler's loop. Events of calls and deliveries arrive in batches, each under one lock.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use keylane_state::StoreEvent;

use crate::changelog::RestoreEvent;
use crate::guest::CallEvent;
use crate::librdkafka::WakeHandle;
use crate::sink::{Delivery, TransactionEvent};

use super::{HandlerView, LanesRequest};

/// One event for a loop.
#[derive(Debug)]
pub(in crate::app) enum LoopEvent {
    /// An event of a guest call.
    Call(CallEvent),
    /// Acknowledgements and rejections of outputs and dead letters.
    Delivered(Vec<Delivery>),
    /// An event of the transactional producer.
    Transaction(TransactionEvent),
    /// An event of the store of keyed state of this topic.
    Store { topic: u16, event: StoreEvent },
    /// An event of the reader of changelogs.
    Restore(RestoreEvent),
    /// A request to log a report.
    Report,
    /// A request for a view of the handler.
    View(watch::Sender<Option<HandlerView>>),
    /// A request for the worst lanes.
    Lanes(LanesRequest),
    /// A request to drain, with the reason.
    Drain(&'static str),
}

/// The mailbox of one loop. Its size is limited by the possible events: two per call in progress, one per record in
/// flight, one per request to the stores of keyed state and per second of a restore, and one per request to drain, for a
/// report, for a view or for lanes. The admin server sends a request for a
/// view or for lanes only after the previous one was answered.
#[derive(Debug)]
pub(in crate::app) struct Mailbox {
    events: Mutex<VecDeque<LoopEvent>>,
    wake: WakeHandle,
}

impl Mailbox {
    pub(in crate::app) fn new(wake: WakeHandle) -> Self {
        Mailbox { events: Mutex::new(VecDeque::new()), wake }
    }

    /// Adds an event and wakes the loop.
    pub(in crate::app) fn put(&self, event: LoopEvent) {
        self.put_all(std::iter::once(event));
    }

    /// Adds several events, which wake the loop once.
    pub(in crate::app) fn put_all(&self, events: impl Iterator<Item = LoopEvent>) {
        // A panicking thread ends the process, so the data of a poisoned lock is not used for long.
        self.events.lock().unwrap_or_else(PoisonError::into_inner).extend(events);
        self.wake.wake();
    }

    /// Takes all events at once. `taken` must be empty.
    pub(super) fn take(&self, taken: &mut VecDeque<LoopEvent>) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *events, taken);
    }
}
