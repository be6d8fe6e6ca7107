//! One call on a worker: its future, its waker and its meter.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use keylane_core::Fault;

use super::call_events::CallEventBatches;
use super::{Shared, lock};
use crate::call::{Call, CallEvent, CallKey, CallStatus, GuestFailure};
use crate::clock::{Meter, StopReason, real_now, thread_cpu_time};
use crate::pool::Lease;

/// Slots of one worker that must be polled, in the order in which they became ready.
pub(super) type Ready = Mutex<VecDeque<usize>>;

/// The worker of a call. Calls refer to this instead of the workers' shared state, because all workers would contend
/// for writes to the reference count of that state.
pub(super) struct WorkerContext {
    pub(super) shared: Arc<Shared>,
    pub(super) worker: usize,
}

/// A slot that runs one call after another.
pub(super) struct WorkerSlot {
    worker_context: Rc<WorkerContext>,
    wake: Arc<SlotWake>,
    waker: Waker,
    running: Option<RunningCall>,
}

struct RunningCall {
    key: CallKey,
    future: Pin<Box<dyn Future<Output = EndedCall>>>,
    work_time: Duration,
    was_suspended: bool,
    /// Whether the call has yielded while it computed. From then on its CPU time is counted.
    computes: bool,
    cpu: Duration,
    cpu_budget: Duration,
}

/// A call that has ended.
pub(super) struct EndedCall {
    call: Box<Call>,
    cancelled: bool,
}

/// The result of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Polled {
    /// No call runs in the slot.
    SlotFree,
    /// The guest computes and has yielded.
    Yielded,
    /// The guest waits.
    Suspended,
}

impl WorkerSlot {
    pub(super) fn new(index: usize, worker_context: Rc<WorkerContext>, ready: Arc<Ready>) -> WorkerSlot {
        let WorkerContext { shared, worker } = &*worker_context;
        let (shared, worker) = (shared.clone(), *worker);
        let meter = Arc::new(Meter::new(shared.clock.clone()));
        let wake = Arc::new(SlotWake {
            index,
            worker,
            shared,
            ready,
            meter,
            is_ready: AtomicBool::new(false),
            polling: AtomicBool::new(false),
        });
        WorkerSlot { worker_context, waker: Waker::from(wake.clone()), wake, running: None }
    }

    /// Begins a call, which has to be polled once to start.
    pub(super) fn begin(&mut self, call: Box<Call>) {
        let wake = &self.wake;
        wake.meter.arm(call.handler().timeout());
        wake.is_ready.store(false, Ordering::SeqCst);
        let cpu_budget = call.handler().cpu_budget();
        self.running = Some(RunningCall {
            key: call.key,
            future: Box::pin(run(self.worker_context.clone(), call, wake.meter.clone())),
            work_time: Duration::ZERO,
            was_suspended: false,
            computes: false,
            cpu: Duration::ZERO,
            cpu_budget,
        });
    }

    pub(super) fn is_running(&self, key: CallKey) -> bool {
        self.running.as_ref().is_some_and(|running| running.key == key)
    }

    pub(super) fn is_free(&self) -> bool {
        self.running.is_none()
    }

    /// Makes the call end at its next poll, and wakes it.
    pub(super) fn cancel(&self) {
        self.wake.meter.cancel();
        self.waker.wake_by_ref();
    }

    /// Wakes a suspended call that has exceeded its deadline. Returns the time that the call has left.
    pub(super) fn check_deadline(&self) -> Option<Duration> {
        self.running.as_ref()?;
        if self.wake.meter.stop_reason().is_none() {
            return Some(self.wake.meter.left());
        }
        self.waker.wake_by_ref();
        None
    }

    /// Polls the call; its events are added to `call_events`.
    pub(super) fn poll(&mut self, call_events: &mut CallEventBatches) -> Polled {
        let wake = &self.wake;
        let Some(running) = &mut self.running else {
            wake.is_ready.store(false, Ordering::SeqCst);
            return Polled::SlotFree; // woken after its end
        };
        wake.polling.store(true, Ordering::SeqCst);
        wake.is_ready.store(false, Ordering::SeqCst);
        wake.meter.resume();
        let start = real_now();
        // Reading the CPU time costs as much as a short call, so it is not read for calls that end within a tick.
        let cpu_before = running.computes.then(thread_cpu_time);
        let polled = running.future.as_mut().poll(&mut Context::from_waker(&self.waker));
        let worked = start.elapsed();
        running.work_time += worked;
        call_events.worked(worked);
        if let Some(before) = cpu_before {
            running.cpu += thread_cpu_time().saturating_sub(before);
            if running.cpu >= running.cpu_budget {
                wake.meter.stop_out_of_cpu();
            }
        }
        wake.polling.store(false, Ordering::SeqCst);
        let ready = wake.is_ready.load(Ordering::SeqCst);
        match polled {
            Poll::Ready(ended) => {
                self.finish(ended, call_events);
                Polled::SlotFree
            }
            Poll::Pending => {
                if ready {
                    wake.meter.pause();
                }
                let yielded = wake.meter.take_yield();
                running.computes |= yielded;
                if !yielded && !ready && !running.was_suspended {
                    running.was_suspended = true;
                    call_events.add(running.key, CallEvent::Suspended(running.key.call));
                }
                if yielded { Polled::Yielded } else { Polled::Suspended }
            }
        }
    }

    fn finish(&mut self, ended: EndedCall, call_events: &mut CallEventBatches) {
        let Some(running) = self.running.take() else { return };
        let EndedCall { mut call, cancelled } = ended;
        call.work_time = running.work_time;
        call.was_suspended = running.was_suspended;
        let event = if cancelled { CallEvent::Terminated(call) } else { CallEvent::Ended(call) };
        call_events.add(running.key, event);
    }
}

/// The waker of a slot: puts the slot into the worker's queue, once, and wakes the worker.
struct SlotWake {
    index: usize,
    worker: usize,
    shared: Arc<Shared>,
    ready: Arc<Ready>,
    meter: Arc<Meter>,
    /// Whether the slot is in `ready`.
    is_ready: AtomicBool,
    /// Whether the slot is being polled. The time is charged to its call until the poll ends.
    polling: AtomicBool,
}

impl Wake for SlotWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_ready.swap(true, Ordering::SeqCst) {
            return;
        }
        if !self.polling.load(Ordering::SeqCst) {
            self.meter.pause();
        }
        let first = {
            let mut ready = lock(&self.ready);
            ready.push_back(self.index);
            ready.len() == 1
        };
        // If `ready` had other slots, the worker is already awake, and it does not sleep before `ready` is empty.
        if first {
            self.shared.wake(self.worker);
        }
    }
}

/// Runs one call, from its instance to its result.
async fn run(worker_context: Rc<WorkerContext>, mut call: Box<Call>, meter: Arc<Meter>) -> EndedCall {
    let WorkerContext { shared, worker } = &*worker_context;
    let lease = if call.needs_fresh_instance {
        shared.pool.take_permit()
    } else {
        shared.pool.take(*worker, call.handler())
    };
    let stopped = {
        let running = pin!(run_on_instance(&worker_context, &mut call, &meter, lease));
        until_stopped(&meter, running).await
        // The running call is dropped here, with its store, before its end is reported.
    };
    let stop = match stopped {
        Ok(status) => {
            call.status = status;
            return EndedCall { call, cancelled: false };
        }
        Err(stop) => stop,
    };
    // The store was dropped with the future.
    shared.pool.return_permit();
    let (fault, message) = match stop {
        StopReason::Cancelled => {
            call.renew();
            return EndedCall { call, cancelled: true };
        }
        StopReason::OutOfCpu => {
            (Fault::Cpu, format!("the budget of {:?} of CPU time is used up", call.handler().cpu_budget()))
        }
        StopReason::Deadline => {
            (Fault::Timeout, format!("deadline of {:?} exceeded while waiting", call.handler().timeout()))
        }
    };
    let row = call.results.fail(call.batch.lanes().len());
    call.status = CallStatus::Failed(GuestFailure { row, ..GuestFailure::new(fault, message) });
    EndedCall { call, cancelled: false }
}

/// Runs the call and returns the instance to the pool if it may serve again. The result is complete when this returns.
async fn run_on_instance(
    worker_context: &WorkerContext,
    call: &mut Call,
    meter: &Arc<Meter>,
    lease: Lease,
) -> CallStatus {
    let WorkerContext { shared, worker } = worker_context;
    let (handler, batch, results, ran_on_fresh_instance) = call.parts();
    let instance = match lease {
        Lease::Used(instance) => Ok(instance),
        Lease::Permit(evicted) => {
            drop(evicted);
            // Set before the instance is created: a start that exceeds the deadline is the event's own failure, too.
            *ran_on_fresh_instance = true;
            handler.instance(meter).await
        }
    };
    let returned = match instance {
        Ok(mut instance) => instance.call(handler, meter, batch, results).await.map(|()| instance),
        Err(failure) => Err(failure),
    };
    match returned {
        Ok(instance) if instance.may_stay(handler) => {
            shared.pool.keep(*worker, handler, instance);
            CallStatus::Returned
        }
        Ok(instance) => {
            drop(instance);
            shared.pool.return_permit();
            CallStatus::Returned
        }
        Err(failure) => {
            shared.pool.return_permit();
            CallStatus::Failed(failure)
        }
    }
}

/// Drives `future` until the meter stops it.
async fn until_stopped<F: Future>(meter: &Meter, mut future: Pin<&mut F>) -> Result<F::Output, StopReason> {
    std::future::poll_fn(|context| match meter.stop_reason() {
        Some(stop) => Poll::Ready(Err(stop)),
        None => future.as_mut().poll(context).map(Ok),
    })
    .await
}
