//! The loop of one worker.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

use super::slot::{Polled, Ready, Slot};
use super::told::Told;
use super::{Next, Shared, lock};
use crate::guest::call::Call;

/// Polls and calls in a row before timers and cancels get a look: enough that looking costs little.
const POLLS_MAX: u32 = 32;

/// How often the deadlines of calls that wait are looked at.
const DEADLINE_LOOK: Duration = Duration::from_millis(10);

pub(super) fn spawn(shared: Arc<Shared>, index: usize) -> std::io::Result<JoinHandle<()>> {
    // Everything, because standard WASI is linked in full: a guest that tries a socket must get its error.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(format!("keylane-worker-{index}")).spawn(move || {
        let work = async {
            let mut looks = tokio::time::interval(DEADLINE_LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut worker = Worker {
                shared,
                index,
                ready: Arc::default(),
                slots: Vec::new(),
                free: Vec::new(),
                told: Told::default(),
                looks,
            };
            std::future::poll_fn(|context| worker.turn(context)).await;
        };
        // Tokio's budget is for tasks that share a thread fairly; here one future is the whole thread.
        runtime.block_on(tokio::task::unconstrained(work));
    })
}

struct Worker {
    shared: Arc<Shared>,
    index: usize,
    ready: Arc<Ready>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    told: Told,
    looks: Interval,
}

impl Worker {
    /// Ready when the workers are shut down and nothing is left.
    fn turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.note_waker(context);
        self.take_cancels();
        if self.shared.is_closed() {
            self.cancel_all();
        }
        if !lock(&self.ready).is_empty() {
            self.shared.busy(self.index);
        }
        for _ in 0..POLLS_MAX {
            let ready = lock(&self.ready).pop_front();
            let polled = match ready {
                Some(slot) => self.poll(slot),
                None => match self.shared.next(self.index) {
                    Next::Call(call) => self.begin(call),
                    Next::Closed if self.is_empty() => {
                        self.told.deliver();
                        return Poll::Ready(());
                    }
                    Next::Closed => return self.rest(context),
                    Next::Nothing => return self.rest(context),
                },
            };
            if polled == Polled::GaveWay {
                break; // a tick went by: time for timers and cancels
            }
            if self.told.is_due() {
                self.told.deliver();
            }
        }
        self.told.deliver();
        self.look_at_deadlines(context);
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Nothing is ready and nothing is queued.
    fn rest(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.told.deliver();
        self.look_at_deadlines(context);
        Poll::Pending
    }

    fn note_waker(&self, context: &Context<'_>) {
        let Some(mailbox) = self.shared.mailboxes.get(self.index) else { return };
        let mut waker = lock(&mailbox.waker);
        match waker.as_mut() {
            Some(waker) => waker.clone_from(context.waker()),
            None => *waker = Some(context.waker().clone()),
        }
    }

    fn take_cancels(&mut self) {
        let Some(mailbox) = self.shared.mailboxes.get(self.index) else { return };
        let cancels = std::mem::take(&mut *lock(&mailbox.cancels));
        for key in cancels {
            if let Some(slot) = self.slots.iter().find(|slot| slot.is_running(key)) {
                slot.cancel();
            }
        }
    }

    fn begin(&mut self, call: Box<Call>) -> Polled {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.slots.len();
            self.slots.push(Slot::new(index, self.index, self.shared.clone(), self.ready.clone()));
            index
        });
        if let Some(slot) = self.slots.get_mut(index) {
            slot.begin(call);
        }
        self.poll(index)
    }

    fn poll(&mut self, index: usize) -> Polled {
        let Some(slot) = self.slots.get_mut(index) else { return Polled::Over };
        let was_free = slot.is_free();
        let polled = slot.poll(&mut self.told);
        if polled == Polled::Over && !was_free {
            self.free.push(index);
        }
        polled
    }

    fn look_at_deadlines(&mut self, context: &mut Context<'_>) {
        if self.is_empty() {
            return;
        }
        while self.looks.poll_tick(context).is_ready() {
            for slot in &self.slots {
                slot.look_at_deadline();
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
