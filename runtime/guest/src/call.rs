//! One guest call: what goes in, what came out, and whom to tell.

use std::sync::Arc;
use std::time::Duration;

use keylane_core::{CallId, Fault};

use super::batch::Batch;
use super::handler::Handler;
use super::results::{Refusal, Results};

/// Names a call among all that the workers have: several consumers share them, each with ids of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallKey {
    /// Whose call it is; chosen by the shell.
    pub consumer: u32,
    /// The core's name for it.
    pub call: CallId,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// It was not run.
    NotRun,
    /// The guest came back and its result keeps the contract: see [`Call::results`].
    Ended,
    /// The call failed as a whole.
    Failed(GuestFailure),
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestFailure {
    /// Which sort.
    pub fault: Fault,
    /// What happened, in one line, with the names of the guest's functions where they are known.
    pub message: String,
    /// For a `handler` component: the row that was running. The rows before it that are done, and their
    /// outputs, are in [`Call::results`]; lanes that were not reached are missing there.
    pub row: Option<u32>,
}

impl GuestFailure {
    pub(super) fn new(fault: Fault, message: String) -> GuestFailure {
        GuestFailure { fault, message, row: None }
    }
}

/// What a worker has to say of a call.
#[derive(Debug)]
pub enum CallEvent {
    /// The guest waits for something: its worker takes other calls meanwhile. Said once per call.
    Suspended(CallId),
    /// The call is over and its outcome is set. Its instance is back in the pool, or gone.
    Ended(Box<Call>),
    /// A cancelled call is over: its store was dropped, nothing of it counts.
    Terminated(Box<Call>),
}

/// Whom the workers tell.
pub trait CallObserver: Send + Sync {
    /// Takes everything out of `events`, in order. Called on worker threads, so it must not block: a bounded queue
    /// with room for every call that can be out, and a wake-up.
    fn notify(&self, events: &mut Vec<CallEvent>);
}

/// A call with its buffers. It is made once, goes to the workers and comes back, again and again.
pub struct Call {
    /// Its name, for events and cancelling. Set before it is submitted.
    pub key: CallKey,
    /// The events. Filled before it is submitted.
    pub batch: Batch,
    /// What the guest made of them.
    pub results: Results,
    /// How it ended.
    pub outcome: CallResult,
    /// How long the guest worked: standing in line and waiting not counted.
    pub took: Duration,
    /// It was suspended at least once.
    pub waited: bool,
    /// It needs an instance that has served no call. Set before it is submitted.
    pub fresh: bool,
    /// It had one.
    pub had_fresh: bool,
    handler: Arc<Handler>,
    observer: Arc<dyn CallObserver>,
}

impl Call {
    /// Empty buffers for calls of this handler, whose outputs may have so many bytes each (key, value and headers).
    pub fn new(handler: Arc<Handler>, observer: Arc<dyn CallObserver>, max_output_bytes: usize) -> Box<Call> {
        Box::new(Call {
            key: CallKey { consumer: 0, call: CallId { slot: 0, generation: 0 } },
            batch: Batch::new(),
            results: Results::new(max_output_bytes),
            outcome: CallResult::NotRun,
            took: Duration::ZERO,
            waited: false,
            fresh: false,
            had_fresh: false,
            handler,
            observer,
        })
    }

    /// Whose call it is.
    pub fn handler(&self) -> &Arc<Handler> {
        &self.handler
    }

    /// Whether the instance had served no event before the one that failed.
    pub fn failed_fresh(&self) -> bool {
        let CallResult::Failed(failure) = &self.outcome else { return false };
        self.had_fresh && failure.row.is_none_or(|row| row == 0)
    }

    /// Why lanes stopped, each with the row of the call that it stopped at.
    pub fn refusals(&self) -> impl Iterator<Item = (u32, &Refusal)> {
        let (mut lane, mut first) = (0, 0);
        self.results.refusals().iter().map(move |refusal| {
            let before = self.batch.lanes().get(lane..refusal.lane as usize);
            first += before.map_or(0, |lanes| lanes.iter().sum::<u32>());
            lane = refusal.lane as usize;
            let done = self.results.lane_ends().get(lane).map_or(0, |end| end.done);
            (first + done, refusal)
        })
    }

    pub(super) fn observer(&self) -> &Arc<dyn CallObserver> {
        &self.observer
    }

    /// What making the call needs at once: what is called, with what, what came of it, and whether on a new instance.
    pub(super) fn parts(&mut self) -> (&Handler, &Batch, &mut Results, &mut bool) {
        (&self.handler, &self.batch, &mut self.results, &mut self.had_fresh)
    }

    /// Forgets how it ended last.
    pub(super) fn renew(&mut self) {
        self.outcome = CallResult::NotRun;
        self.took = Duration::ZERO;
        self.waited = false;
        self.had_fresh = false;
        self.results.clear();
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("key", &self.key)
            .field("handler", &self.handler)
            .field("rows", &self.batch.rows())
            .field("outcome", &self.outcome)
            .field("took", &self.took)
            .finish_non_exhaustive()
    }
}
