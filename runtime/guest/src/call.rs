//! One guest call: its input, its results, and the observer that is notified.

use std::sync::Arc;
use std::time::Duration;

use keylane_core::{CallId, Fault};

use super::batch::Batch;
use super::handler::Handler;
use super::results::{Results, StoppedLane};

/// The key of a call among all calls of the workers, which several event loops share, each with its own call ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallKey {
    /// The event loop that made the call.
    pub event_loop: u16,
    /// The core's id of the call.
    pub call: CallId,
}

/// Whether a call ran, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallStatus {
    /// The call was not run.
    NotRun,
    /// The guest returned and its result meets the contract: see [`Call::results`].
    Returned,
    /// The call failed as a whole.
    Failed(GuestFailure),
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestFailure {
    /// The kind of failure.
    pub fault: Fault,
    /// A description in one line, with the names of the guest's functions where they are known.
    pub message: String,
    /// For a `handler` or `keyed-handler` component: the row that was running. The rows before it that are done, and their outputs, are in
    /// [`Call::results`], where the lanes that were not reached have no done rows.
    pub row: Option<u32>,
}

impl GuestFailure {
    pub(super) fn new(fault: Fault, message: String) -> GuestFailure {
        GuestFailure { fault, message, row: None }
    }
}

/// A report of a worker about a call.
#[derive(Debug)]
pub enum CallEvent {
    /// The guest waits: its worker runs other calls meanwhile. Reported once per call.
    Suspended(CallId),
    /// The call is over and its status is set. Its instance is back in the pool, or was dropped.
    Ended(Box<Call>),
    /// A cancelled call is over: its store was dropped and its results do not count.
    Terminated(Box<Call>),
}

/// A receiver of the reports of workers.
pub trait CallObserver: Send + Sync {
    /// Takes all `events`, in order. Called on worker threads, so it must not block: it needs a bounded queue
    /// with capacity for every call that can be in progress, and a wake-up.
    fn notify(&self, events: &mut Vec<CallEvent>);
}

/// A call with its buffers. It is created once, then submitted and returned repeatedly.
pub struct Call {
    /// The key of the call in events and cancels. Set before the call is submitted.
    pub key: CallKey,
    /// The events. Filled before the call is submitted.
    pub batch: Batch,
    /// The results of the guest.
    pub results: Results,
    /// Whether the call ran, and how it ended.
    pub status: CallStatus,
    /// How long the guest worked, without the time that the call was queued or suspended.
    pub work_time: Duration,
    /// Whether the call was suspended at least once.
    pub was_suspended: bool,
    /// Whether the call needs an instance that has served no call. Set before the call is submitted.
    pub needs_fresh_instance: bool,
    /// Whether the call ran on such an instance.
    pub ran_on_fresh_instance: bool,
    handler: Arc<Handler>,
    observer: Arc<dyn CallObserver>,
}

impl Call {
    /// Creates a call with empty buffers. `max_output_bytes`: the limit of one output (key, value and headers).
    pub fn new(handler: Arc<Handler>, observer: Arc<dyn CallObserver>, max_output_bytes: usize) -> Box<Call> {
        Box::new(Call {
            key: CallKey { event_loop: 0, call: CallId { slot: 0, reuse_count: 0 } },
            batch: Batch::new(),
            results: Results::new(max_output_bytes),
            status: CallStatus::NotRun,
            work_time: Duration::ZERO,
            was_suspended: false,
            needs_fresh_instance: false,
            ran_on_fresh_instance: false,
            handler,
            observer,
        })
    }

    /// Returns the handler that is called.
    pub fn handler(&self) -> &Arc<Handler> {
        &self.handler
    }

    /// Returns whether the call failed on a fresh instance, before any row of the call was done. Of a `batch-handler`,
    /// the failing row is unknown: its instance may have processed other rows of the call before.
    pub fn failed_fresh(&self) -> bool {
        let CallStatus::Failed(failure) = &self.status else { return false };
        self.ran_on_fresh_instance && failure.row.is_none_or(|row| row == 0)
    }

    /// Fails the call as a whole, because a limit of its results is exceeded, or the state of a lane is unknown after a row
    /// was retracted: no row is done.
    pub fn fail(&mut self, message: String) {
        self.results.clear();
        self.status = CallStatus::Failed(GuestFailure::new(Fault::Limit, message));
    }

    /// Returns why lanes stopped, each with its first row that is not done.
    pub fn failed_rows(&self) -> impl Iterator<Item = (u32, &StoppedLane)> {
        let (mut lane, mut first) = (0, 0);
        self.results.stopped_lanes().iter().map(move |stopped| {
            let before = self.batch.lanes().get(lane..stopped.lane as usize);
            first += before.map_or(0, |lanes| lanes.iter().sum::<u32>());
            lane = stopped.lane as usize;
            let done = self.results.lane_ends().get(lane).map_or(0, |end| end.done);
            (first + done, stopped)
        })
    }

    pub(super) fn observer(&self) -> &Arc<dyn CallObserver> {
        &self.observer
    }

    /// Returns the parts that running the call borrows: handler, input, results, and whether the instance is new.
    pub(super) fn parts(&mut self) -> (&Handler, &Batch, &mut Results, &mut bool) {
        (&self.handler, &self.batch, &mut self.results, &mut self.ran_on_fresh_instance)
    }

    /// Resets the result of the previous run.
    pub(super) fn renew(&mut self) {
        self.status = CallStatus::NotRun;
        self.work_time = Duration::ZERO;
        self.was_suspended = false;
        self.ran_on_fresh_instance = false;
        self.results.clear();
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("key", &self.key)
            .field("handler", &self.handler)
            .field("rows", &self.batch.rows())
            .field("status", &self.status)
            .field("work_time", &self.work_time)
            .finish_non_exhaustive()
    }
}
