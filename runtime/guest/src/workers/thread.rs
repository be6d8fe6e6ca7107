//! The loop of one worker.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

use super::call_events::CallEventBatches;
use super::slot::{Polled, Ready, WorkerContext, WorkerSlot};
use super::{NextCall, Shared, lock};
use crate::call::Call;

/// Maximum number of polls in a row before timers and cancels are checked: enough that the check costs little.
const POLLS_MAX: u32 = 32;

/// The interval at which the deadlines of suspended calls are checked.
const DEADLINE_CHECK: Duration = Duration::from_millis(10);

pub(super) fn spawn(shared: Arc<Shared>, index: usize) -> std::io::Result<JoinHandle<()>> {
    // Everything is enabled, because standard WASI is linked in full: a guest that tries a socket must get its error.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(format!("keylane-worker-{index}")).spawn(move || {
        let work = async {
            let mut deadline_checks = tokio::time::interval(DEADLINE_CHECK);
            deadline_checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut worker = Worker {
                worker_context: Rc::new(WorkerContext { shared, worker: index }),
                ready: Arc::default(),
                slots: Vec::new(),
                free: Vec::new(),
                call_events: CallEventBatches::default(),
                deadline_checks,
                next_deadline: Duration::MAX,
            };
            std::future::poll_fn(|context| worker.turn(context)).await;
        };
        // Tokio's budget shares a thread fairly between tasks; here one future has the whole thread.
        runtime.block_on(tokio::task::unconstrained(work));
    })
}

struct Worker {
    worker_context: Rc<WorkerContext>,
    ready: Arc<Ready>,
    slots: Vec<WorkerSlot>,
    free: Vec<usize>,
    call_events: CallEventBatches,
    deadline_checks: Interval,
    /// No deadline is earlier than this, on the engine's clock. Checking thousands of suspended calls is expensive.
    next_deadline: Duration,
}

impl Worker {
    /// Runs one turn. Returns `Ready` when the workers are shut down and no call is left.
    fn turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.register_waker(context);
        self.take_cancels();
        if self.worker_context.shared.is_closed() {
            self.cancel_all();
        }
        if !lock(&self.ready).is_empty() {
            self.worker_context.shared.busy(self.worker_context.worker);
        }
        for _ in 0..POLLS_MAX {
            let ready = lock(&self.ready).pop_front();
            let polled = match ready {
                Some(slot) => self.poll(slot),
                None => match self.worker_context.shared.next(self.worker_context.worker) {
                    NextCall::Call(call) => self.begin(call),
                    NextCall::Closed if self.is_empty() => {
                        self.call_events.deliver(&self.worker_context.shared);
                        return Poll::Ready(());
                    }
                    NextCall::Closed | NextCall::Nothing => return self.sleep(context),
                },
            };
            if polled == Polled::Yielded {
                break; // after a tick, timers and cancels get their turn
            }
            if self.call_events.is_due() {
                self.call_events.deliver(&self.worker_context.shared);
            }
        }
        self.call_events.deliver(&self.worker_context.shared);
        self.check_deadlines(context);
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Delivers events and checks deadlines before the thread sleeps, because no call is ready and none is queued.
    fn sleep(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.call_events.deliver(&self.worker_context.shared);
        self.check_deadlines(context);
        Poll::Pending
    }

    fn register_waker(&self, context: &Context<'_>) {
        let Some(mailbox) = self.worker_context.shared.mailboxes.get(self.worker_context.worker) else {
            return;
        };
        let mut waker = lock(&mailbox.waker);
        match waker.as_mut() {
            Some(waker) => waker.clone_from(context.waker()),
            None => *waker = Some(context.waker().clone()),
        }
    }

    fn take_cancels(&mut self) {
        let Some(mailbox) = self.worker_context.shared.mailboxes.get(self.worker_context.worker) else {
            return;
        };
        let cancels = std::mem::take(&mut *lock(&mailbox.cancels));
        for key in cancels {
            if let Some(slot) = self.slots.iter().find(|slot| slot.is_running(key)) {
                slot.cancel();
            }
        }
    }

    fn begin(&mut self, call: Box<Call>) -> Polled {
        self.call_events.register(&call);
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.slots.len();
            self.slots.push(WorkerSlot::new(index, self.worker_context.clone(), self.ready.clone()));
            index
        });
        self.next_deadline = self
            .next_deadline
            .min(self.worker_context.shared.clock.now().saturating_add(call.handler().timeout()));
        if let Some(slot) = self.slots.get_mut(index) {
            slot.begin(call);
        }
        self.poll(index)
    }

    fn poll(&mut self, index: usize) -> Polled {
        let Some(slot) = self.slots.get_mut(index) else { return Polled::SlotFree };
        let was_free = slot.is_free();
        let polled = slot.poll(&mut self.call_events);
        if polled == Polled::SlotFree && !was_free {
            self.free.push(index);
        }
        polled
    }

    fn check_deadlines(&mut self, context: &mut Context<'_>) {
        if self.is_empty() {
            return;
        }
        while self.deadline_checks.poll_tick(context).is_ready() {
            let now = self.worker_context.shared.clock.now();
            if now >= self.next_deadline {
                let left = self.slots.iter().filter_map(WorkerSlot::check_deadline).min();
                self.next_deadline = left.map_or(Duration::MAX, |left| now.saturating_add(left));
            }
        }
    }

    fn cancel_all(&mut self) {
        for slot in self.slots.iter().filter(|slot| !slot.is_free()) {
            slot.cancel();
        }
    }

    fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }
}
