//! One call in the hands of a worker: its future, its waker and its meter.

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
use crate::call::{Call, CallEvent, CallKey, CallResult, GuestFailure};
use crate::clock::{Meter, Stop, stopwatch, thread_cpu_time};
use crate::handler::Instance;
use crate::pool::Lease;

/// Slots of one worker that are to be polled, in the order in which they became ready.
pub(super) type Ready = Mutex<VecDeque<usize>>;

/// Where the calls of one worker are at home. Each of them refers to this and not to what the workers share: counting
/// references there is a write that all of them fight over.
pub(super) struct Home {
    pub(super) shared: Arc<Shared>,
    pub(super) worker: usize,
}

/// A place for calls, one after another.
pub(super) struct CallSlot {
    home: Rc<Home>,
    wake: Arc<SlotWake>,
    waker: Waker,
    running: Option<Running>,
}

struct Running {
    key: CallKey,
    future: Pin<Box<dyn Future<Output = Done>>>,
    worked: Duration,
    waited: bool,
    /// It gave way while it computed: from then on its processor time is counted.
    computes: bool,
    cpu: Duration,
    cpu_budget: Duration,
}

/// A call that came to its end.
pub(super) struct Done {
    call: Box<Call>,
    cancelled: bool,
}

/// How a poll went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Polled {
    /// The slot is free.
    Over,
    /// The guest computes and gave way.
    GaveWay,
    /// The guest waits.
    Waits,
}

impl CallSlot {
    pub(super) fn new(index: usize, home: Rc<Home>, ready: Arc<Ready>) -> CallSlot {
        let Home { shared, worker } = &*home;
        let (shared, worker) = (shared.clone(), *worker);
        let meter = Arc::new(Meter::new(shared.clock.clone()));
        let wake = Arc::new(SlotWake {
            index,
            worker,
            shared,
            ready,
            meter,
            queued: AtomicBool::new(false),
            polling: AtomicBool::new(false),
        });
        CallSlot { home, waker: Waker::from(wake.clone()), wake, running: None }
    }

    /// Takes a call in; it has to be polled once to begin.
    pub(super) fn begin(&mut self, call: Box<Call>) {
        let wake = &self.wake;
        wake.meter.arm(call.handler().timeout());
        wake.queued.store(false, Ordering::SeqCst);
        let cpu_budget = call.handler().cpu_budget();
        self.running = Some(Running {
            key: call.key,
            future: Box::pin(run(self.home.clone(), call, wake.meter.clone())),
            worked: Duration::ZERO,
            waited: false,
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

    /// Makes the call end at its next poll.
    pub(super) fn cancel(&self) {
        self.wake.meter.cancel();
        self.waker.wake_by_ref();
    }

    /// A call that only waits notices its deadline here. Gives the time that it has left.
    pub(super) fn check_deadline(&self) -> Option<Duration> {
        self.running.as_ref()?;
        if self.wake.meter.stop().is_none() {
            return Some(self.wake.meter.left());
        }
        self.waker.wake_by_ref();
        None
    }

    /// What is to be said of the call is left with `call_events`.
    pub(super) fn poll(&mut self, call_events: &mut CallEventBatches) -> Polled {
        let wake = &self.wake;
        let Some(running) = &mut self.running else {
            wake.queued.store(false, Ordering::SeqCst);
            return Polled::Over; // woken after its end
        };
        wake.polling.store(true, Ordering::SeqCst);
        wake.queued.store(false, Ordering::SeqCst);
        wake.meter.resume();
        let start = stopwatch();
        // Asking for it costs as much as a short call: those that end within a tick are not asked for.
        let cpu_before = running.computes.then(thread_cpu_time);
        let polled = running.future.as_mut().poll(&mut Context::from_waker(&self.waker));
        let worked = start.elapsed();
        running.worked += worked;
        call_events.worked(worked);
        if let Some(before) = cpu_before {
            running.cpu += thread_cpu_time().saturating_sub(before);
            if running.cpu >= running.cpu_budget {
                wake.meter.out_of_cpu();
            }
        }
        wake.polling.store(false, Ordering::SeqCst);
        let ready = wake.queued.load(Ordering::SeqCst);
        match polled {
            Poll::Ready(done) => {
                self.finish(done, call_events);
                Polled::Over
            }
            Poll::Pending => {
                if ready {
                    wake.meter.pause();
                }
                let gave_way = wake.meter.take_yield();
                running.computes |= gave_way;
                if !gave_way && !ready && !running.waited {
                    running.waited = true;
                    call_events.add(running.key, CallEvent::Suspended(running.key.call));
                }
                if gave_way { Polled::GaveWay } else { Polled::Waits }
            }
        }
    }

    fn finish(&mut self, done: Done, call_events: &mut CallEventBatches) {
        let Some(running) = self.running.take() else { return };
        let Done { mut call, cancelled } = done;
        call.took = running.worked;
        call.waited = running.waited;
        let event = if cancelled { CallEvent::Terminated(call) } else { CallEvent::Ended(call) };
        call_events.add(running.key, event);
    }
}

/// Puts its slot into the worker's queue, once, and wakes the worker.
struct SlotWake {
    index: usize,
    worker: usize,
    shared: Arc<Shared>,
    ready: Arc<Ready>,
    meter: Arc<Meter>,
    /// The slot is in `ready`.
    queued: AtomicBool,
    /// The slot is being polled: its time is its own until the poll ends.
    polling: AtomicBool,
}

impl Wake for SlotWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::SeqCst) {
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
        // Whoever came before has woken the worker, which does not rest before it has seen that nothing is left.
        if first {
            self.shared.wake(self.worker);
        }
    }
}

/// One call from its instance to its outcome.
async fn run(home: Rc<Home>, mut call: Box<Call>, meter: Arc<Meter>) -> Done {
    let Home { shared, worker } = &*home;
    let lease = if call.fresh { shared.pool.take_room() } else { shared.pool.take(*worker, call.handler()) };
    let stopped = {
        let made = pin!(serve(&home, &mut call, &meter, lease));
        until_stopped(&meter, made).await
        // What was under way is dropped here, with its store, before anybody hears of its end.
    };
    let cancelled = match stopped {
        Ok(outcome) => {
            call.outcome = outcome;
            false
        }
        Err(stop) => {
            // The store went with the future.
            shared.pool.gone();
            let (fault, message) = match stop {
                Stop::OutOfCpu => {
                    (Fault::Cpu, format!("it used {:?} of processor time", call.handler().cpu_budget()))
                }
                Stop::Deadline | Stop::Cancelled => (
                    Fault::Timeout,
                    format!("the deadline of {:?} is over, waiting", call.handler().timeout()),
                ),
            };
            let row = call.results.fail(call.batch.lanes().len());
            call.outcome = CallResult::Failed(GuestFailure { row, ..GuestFailure::new(fault, message) });
            stop == Stop::Cancelled
        }
    };
    if cancelled {
        call.renew();
    }
    Done { call, cancelled }
}

/// Makes the call and gives the instance back if it may serve again. The outcome is complete then.
async fn serve(home: &Home, call: &mut Call, meter: &Arc<Meter>, lease: Lease) -> CallResult {
    let Home { shared, worker } = home;
    let (handler, batch, results, had_fresh) = call.parts();
    let instance = match lease {
        Lease::Used(instance) => Ok(instance),
        Lease::Room(evicted) => {
            drop(evicted);
            // Said before it is made: a start that outlasts the deadline is the event's own failure, too.
            *had_fresh = true;
            handler.instance(meter).await
        }
    };
    let made = match instance {
        Ok(instance) => {
            let mut instance: Instance = instance;
            let made = instance.call(handler, meter, batch, results).await;
            made.map(|()| instance)
        }
        Err(failure) => Err(failure),
    };
    match made {
        Ok(instance) if instance.may_stay(handler) => {
            shared.pool.keep(*worker, handler, instance);
            CallResult::Ended
        }
        Ok(instance) => {
            drop(instance);
            shared.pool.gone();
            CallResult::Ended
        }
        Err(failure) => {
            shared.pool.gone();
            CallResult::Failed(failure)
        }
    }
}

/// Drives `future` as long as the meter lets it.
async fn until_stopped<F: Future>(meter: &Meter, mut future: Pin<&mut F>) -> Result<F::Output, Stop> {
    std::future::poll_fn(|context| match meter.stop() {
        Some(stop) => Poll::Ready(Err(stop)),
        None => future.as_mut().poll(context).map(Ok),
    })
    .await
}
