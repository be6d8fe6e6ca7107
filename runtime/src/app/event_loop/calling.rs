//! Prepares calls for the workers: fills boxed calls from the arena, and reuses the boxes.

use std::sync::Arc;
use std::time::Duration;

use keylane_core::{CallFailure, CallId, Dispatch, Input};

use crate::admit::Arena;
use crate::guest::{Call, CallEvent, CallKey, CallObserver, CallStatus, Handler, Workers};

use super::mailbox::{LoopEvent, Mailbox};

/// Creates, fills and recycles the calls of one handler.
pub(in crate::app) struct Calling {
    /// The number that identifies this loop to the shared workers.
    handler_index: u16,
    handler: Arc<Handler>,
    workers: Arc<Workers>,
    mailbox: Arc<Mailbox>,
    /// Maximum bytes of one output.
    max_output_bytes: usize,
    /// Calls that are filled but not submitted yet.
    #[expect(clippy::vec_box, reason = "the boxes themselves go to the workers and come back")]
    ready: Vec<Box<Call>>,
    ready_rows: usize,
    /// Moving average of the guest's work per call.
    work: Duration,
    #[expect(clippy::vec_box, reason = "the boxes themselves go to the workers and come back")]
    idle: Vec<Box<Call>>,
    calls_made: u64,
}

/// Calls of one event each are submitted together, up to this number: waking a worker costs as much as several such
/// calls. A call of many events is enough work by itself.
const READY_CALLS: usize = 16;
const READY_ROWS: usize = 64;
/// Amount of work that justifies waking an idle worker while another one is awake.
const WORTH_WAKING: Duration = Duration::from_micros(100);

impl Calling {
    pub(in crate::app) fn new(
        handler_index: u16,
        handler: Arc<Handler>,
        workers: Arc<Workers>,
        mailbox: Arc<Mailbox>,
        max_output_bytes: usize,
    ) -> Self {
        Calling {
            handler_index,
            handler,
            workers,
            mailbox,
            max_output_bytes,
            ready: Vec::new(),
            ready_rows: 0,
            work: WORTH_WAKING,
            idle: Vec::new(),
            calls_made: 0,
        }
    }

    /// Fills a call with copies of the rows.
    pub(super) fn prepare(&mut self, dispatch: &Dispatch<'_>, topic: &str, arena: &Arena) -> Box<Call> {
        let mut call = self.idle.pop().unwrap_or_else(|| {
            let observer: Arc<dyn CallObserver> = self.mailbox.clone();
            Call::new(self.handler.clone(), observer, self.max_output_bytes)
        });
        call.key = CallKey { event_loop: self.handler_index, call: dispatch.call };
        call.needs_fresh_instance = dispatch.fresh;
        call.batch.begin(topic, dispatch.attempt, dispatch.last_attempt);
        let mut rows = dispatch.rows.iter();
        for &lane in dispatch.lane_lengths {
            for row in rows.by_ref().take(lane as usize) {
                let record = arena.get(row.arena_slot);
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
        call
    }

    /// Adds a filled call to those that the next [`Calling::submit`] submits, if it is not submitted here.
    pub(super) fn enqueue(&mut self, call: Box<Call>) {
        self.calls_made += 1;
        self.ready_rows += call.batch.rows();
        self.ready.push(call);
        if self.ready.len() >= READY_CALLS || self.ready_rows >= READY_ROWS {
            self.submit();
        }
    }

    /// Submits the prepared calls to the workers.
    pub(super) fn submit(&mut self) {
        if !self.ready.is_empty() {
            let for_one = WORTH_WAKING.as_nanos() / self.work.as_nanos().max(1);
            self.workers.submit(&mut self.ready, usize::try_from(for_one).unwrap_or(usize::MAX));
            self.ready_rows = 0;
            assert!(
                self.ready.is_empty(),
                "the engine has capacity for `max_concurrency` calls of every handler"
            );
        }
    }

    pub(super) fn cancel(&mut self, call: CallId) {
        self.submit(); // the call may be among the prepared ones
        self.workers.cancel(CallKey { event_loop: self.handler_index, call });
    }

    /// Keeps the box of a finished call for the next one.
    pub(super) fn recycle(&mut self, call: Box<Call>) {
        self.work = (self.work * 7 + call.work_time) / 8;
        self.idle.push(call);
    }

    /// Returns the digest of the component that new calls go to.
    pub(super) fn digest(&self) -> &Arc<str> {
        self.handler.digest()
    }

    pub(super) fn calls_made(&self) -> u64 {
        self.calls_made
    }
}

/// Converts the end of a call to an input of the core. `output_bytes`: see [`Input::CallEnded`].
pub(super) fn end_of<'c>(ended: &'c Call, output_bytes: &'c [u32]) -> Input<'c> {
    let (call, results) = (ended.key.call, &ended.results);
    let (lanes, with_outputs) = (results.lane_ends(), results.rows_with_effects());
    match &ended.status {
        CallStatus::Failed(failure) => {
            let (fault, failing_row, fresh) = (failure.fault, failure.row, ended.failed_fresh());
            let failure = CallFailure { fault, failing_row, fresh };
            Input::CallFailed { call, failure, lanes, with_outputs, output_bytes }
        }
        CallStatus::Returned | CallStatus::NotRun => {
            Input::CallEnded { call, lanes, with_outputs, output_bytes, took: ended.work_time }
        }
    }
}

impl CallObserver for Mailbox {
    fn notify(&self, events: &mut Vec<CallEvent>) {
        self.put_all(events.drain(..).map(LoopEvent::Call));
    }
}
