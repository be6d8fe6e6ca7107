//! Calls between the core's decision and the workers: their boxes, filled from the arena and used again.

use std::sync::Arc;

use keylane_core::{CallId, Dispatch};

use crate::admit::Arena;
use crate::guest::{Call, CallEvents, CallKey, Handler, Workers};

use super::inbox::{Inbox, News};

/// Makes, fills and recycles the calls of one handler.
pub(super) struct GuestCalls {
    /// Names this loop among those that share the workers.
    consumer: u32,
    handler: Arc<Handler>,
    workers: Arc<Workers>,
    events: Arc<Inbox>,
    #[expect(clippy::vec_box, reason = "the boxes themselves go to the workers and come back")]
    idle: Vec<Box<Call>>,
}

impl GuestCalls {
    pub(super) fn new(
        consumer: u32,
        handler: Arc<Handler>,
        workers: Arc<Workers>,
        events: Arc<Inbox>,
    ) -> Self {
        GuestCalls { consumer, handler, workers, events, idle: Vec::new() }
    }

    /// Copies the rows out of the arena and hands the call to the workers.
    pub(super) fn submit(&mut self, dispatch: &Dispatch<'_>, topic: &str, arena: &Arena) {
        let mut call = self.idle.pop().unwrap_or_else(|| {
            let events: Arc<dyn CallEvents> = self.events.clone();
            Call::new(self.handler.clone(), events)
        });
        call.key = CallKey { consumer: self.consumer, call: dispatch.call };
        call.fresh = dispatch.fresh;
        call.batch.begin(topic, dispatch.attempt, dispatch.last_attempt);
        let mut rows = dispatch.rows.iter();
        for &lane in dispatch.lanes {
            for row in rows.by_ref().take(lane as usize) {
                let record = arena.get(row.place);
                call.batch.push_row(
                    row.partition.number.unsigned_abs(),
                    row.offset.unsigned_abs(),
                    row.timestamp,
                    record.key,
                    record.value,
                    record.headers,
                );
            }
            call.batch.end_lane();
        }
        let refused = self.workers.submit(call);
        assert!(refused.is_ok(), "the engine has room for `max_concurrency` calls of every handler");
    }

    pub(super) fn cancel(&self, call: CallId) {
        self.workers.cancel(CallKey { consumer: self.consumer, call });
    }

    /// Keeps the box of a call that is over for the next one.
    pub(super) fn recycle(&mut self, call: Box<Call>) {
        self.idle.push(call);
    }
}

impl CallEvents for Inbox {
    fn suspended(&self, call: CallId) {
        self.put(News::CallSuspended(call));
    }

    fn ended(&self, call: Box<Call>) {
        self.put(News::CallEnded(call));
    }

    fn really_ended(&self, call: Box<Call>) {
        self.put(News::CallReallyEnded(call));
    }
}
