//! Queues of events, and how they wake a thread.
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::client::Client;
use super::deadline::millis;
use super::event::ClientEvent;
use super::{WakeHandle, sys};

/// A queue of the library. It keeps its client alive.
#[derive(Debug)]
pub struct Queue {
    raw: RawQueue,
    /// The state that the library's threads write while the callback is set. It is declared after `raw`, whose drop
    /// removes the callback before this memory is freed.
    signal: Option<Box<Signal>>,
    client: Arc<Client>,
}

/// State that the library's threads use when a queue gets its first entry.
#[derive(Debug)]
struct Signal {
    ready: AtomicBool,
    wake: WakeHandle,
}

#[derive(Debug)]
struct RawQueue(NonNull<sys::KafkaQueue>);

// SAFETY: the library's queues have an internal lock; which thread serves one is up to us.
unsafe impl Send for RawQueue {}

impl Queue {
    /// Creates a queue for responses.
    pub fn new(client: &Arc<Client>) -> Queue {
        // SAFETY: the client is live.
        let raw = unsafe { sys::rd_kafka_queue_new(client.raw()) };
        Queue::from_raw(client, raw).expect("the library does not return null here")
    }

    pub(super) fn from_raw(client: &Arc<Client>, raw: *mut sys::KafkaQueue) -> Option<Queue> {
        let raw = NonNull::new(raw)?;
        Some(Queue { raw: RawQueue(raw), signal: None, client: Arc::clone(client) })
    }

    /// Makes the first entry that arrives in the empty queue wake the thread. The queue counts as ready at once, so
    /// that entries already in it are found.
    pub fn with_wake(mut self, wake: &WakeHandle) -> Queue {
        let signal = Box::new(Signal { ready: AtomicBool::new(true), wake: Arc::clone(wake) });
        let opaque: *const Signal = &raw const *signal;
        // SAFETY: the queue is live. The signal is not moved until `raw` is dropped, which removes the
        // callback under the queue's lock, under which it is called. It is only ever shared.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.raw(), Some(on_entry), opaque.cast_mut().cast());
        }
        self.signal = Some(signal);
        wake.wake();
        self
    }

    /// Returns whether the queue may have entries. Always true for a queue that wakes no thread.
    pub fn is_ready(&self) -> bool {
        self.signal.as_ref().is_none_or(|signal| signal.ready.load(Ordering::Acquire))
    }

    /// Sets whether the queue may have entries: cleared before a poll, and set again after a poll that may have left
    /// some.
    pub(super) fn set_ready(&self, ready: bool) {
        if let Some(signal) = &self.signal {
            signal.ready.store(ready, Ordering::Release);
        }
    }

    /// Returns the next event, if one arrives in time.
    pub fn poll(&self, timeout: Duration) -> Option<ClientEvent> {
        // SAFETY: the queue is live.
        let event = unsafe { sys::rd_kafka_queue_poll(self.raw(), millis(timeout)) };
        Some(ClientEvent::from_raw(NonNull::new(event)?))
    }

    /// Polls without waiting, and without calling the library when the queue is not ready.
    pub fn poll_now(&self) -> Option<ClientEvent> {
        if !self.is_ready() {
            return None;
        }
        self.set_ready(false);
        let event = self.poll(Duration::ZERO);
        if event.is_some() {
            self.set_ready(true);
        }
        event
    }

    pub(super) fn raw(&self) -> *mut sys::KafkaQueue {
        self.raw.0.as_ptr()
    }

    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Drop for RawQueue {
    fn drop(&mut self) {
        // SAFETY: the queue is live and the handle is ours; removing the callback waits for a running call of it,
        // because both happen under the queue's lock.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.0.as_ptr(), None, std::ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.0.as_ptr());
        }
    }
}

unsafe extern "C" fn on_entry(_rk: *mut sys::Kafka, opaque: *mut c_void) {
    // SAFETY: `opaque` is the signal that `with_wake` registered; it outlives the registration and is only shared.
    let signal = unsafe { &*opaque.cast::<Signal>() };
    signal.ready.store(true, Ordering::Release);
    signal.wake.wake();
}
