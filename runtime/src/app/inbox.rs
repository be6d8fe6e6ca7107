//! What other threads tell a handler's loop. One lock per batch of news, never one per event.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::guest::CallNews;
use crate::librdkafka::WakeHandle;
use crate::sink::Delivery;

/// One piece of news.
#[derive(Debug)]
pub(super) enum News {
    /// Of a guest call.
    Call(CallNews),
    /// Outputs arrived, or were refused.
    Delivered(Vec<Delivery>),
    /// Finish what runs and leave; for this reason.
    Drain(&'static str),
}

/// News for one loop. It is bounded by what can be on its way: two pieces per call that is out, outputs in flight, and
/// the signals.
#[derive(Debug)]
pub(super) struct Inbox {
    news: Mutex<VecDeque<News>>,
    wake: WakeHandle,
}

impl Inbox {
    pub(super) fn new(wake: WakeHandle) -> Self {
        Inbox { news: Mutex::new(VecDeque::new()), wake }
    }

    /// Leaves a piece of news and wakes the loop.
    pub(super) fn put(&self, news: News) {
        self.put_all(std::iter::once(news));
    }

    /// Leaves several pieces, which wake the loop once.
    pub(super) fn put_all(&self, news: impl Iterator<Item = News>) {
        // A panicking thread ends the process: whatever a poisoned lock guards is never used for long.
        self.news.lock().unwrap_or_else(PoisonError::into_inner).extend(news);
        self.wake.wake();
    }

    /// Takes everything at once: `taken`, which is empty, is left in its place.
    pub(super) fn take(&self, taken: &mut VecDeque<News>) {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *news, taken);
    }
}
