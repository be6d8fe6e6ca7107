//! The threads that run guests.
//!
//! Each worker is one OS thread with a runtime of its own. It polls the calls that it has taken, as local
//! futures; a task per call would cost more than the call. Rules:
//!
//! - Calls wait in one queue that all workers share. A worker takes one only when none of its own stands
//!   ready: what was begun is finished first.
//! - A call that waits is suspended: it costs memory, not the worker.
//! - A call that computes gives way at each tick, so that timers, cancels and the worker's other calls get
//!   their turn.
//! - What there is to say of calls is said several pieces at a time: see [`told`].
//! - No more calls are admitted than instances may live, so that an admitted call always gets one.

mod call_events;
mod slot;
mod thread;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::JoinHandle;

use super::call::{Call, CallEvent, CallKey};
use super::clock::Clock;
use super::engine::Engine;
use super::pool::Pool;

/// The worker threads. Dropping them cancels what runs.
pub struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    capacity: u32,
}

struct Shared {
    queue: Mutex<CallQueue>,
    mailboxes: Vec<WorkerMailbox>,
    pool: Pool,
    clock: Arc<Clock>,
    closed: AtomicBool,
}

struct CallQueue {
    waiting: VecDeque<Box<Call>>,
    /// Calls that may be submitted now.
    room: usize,
    /// Workers with nothing to do, the one that was busy last at the end.
    idle: Vec<usize>,
}

/// What a worker is told from outside.
#[derive(Default)]
struct WorkerMailbox {
    cancels: Mutex<Vec<CallKey>>,
    /// Wakes its thread.
    waker: Mutex<Option<Waker>>,
}

impl Workers {
    /// Starts `threads` workers; one per core is right.
    pub fn start(engine: &Engine, threads: usize) -> std::io::Result<Workers> {
        let threads = threads.max(1);
        let capacity = usize::try_from(engine.max_instances()).unwrap_or(usize::MAX);
        let shared = Arc::new(Shared {
            queue: Mutex::new(CallQueue {
                waiting: VecDeque::with_capacity(capacity),
                room: capacity,
                idle: Vec::with_capacity(threads),
            }),
            mailboxes: (0..threads).map(|_| WorkerMailbox::default()).collect(),
            pool: Pool::new(threads, capacity),
            clock: engine.clock().clone(),
            closed: AtomicBool::new(false),
        });
        let mut workers =
            Workers { shared, threads: Vec::with_capacity(threads), capacity: engine.max_instances() };
        for index in 0..threads {
            workers.threads.push(thread::spawn(workers.shared.clone(), index)?);
        }
        Ok(workers)
    }

    /// How many calls can be out or queued at once.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Hands calls over, in order. They come back, with their buffers, through their
    /// [`CallObserver`](super::CallObserver). What there is no room for stays in `calls`: as many are out as instances
    /// may live, or the workers are shut down.
    ///
    /// One idle worker is woken for each `for_one` calls, as many as are worth waking it. Whoever is awake takes the rest,
    /// and wakes another before it is held up.
    pub fn submit(&self, calls: &mut Vec<Box<Call>>, for_one: usize) {
        calls.iter_mut().for_each(|call| call.renew());
        let taken = {
            let mut queue = self.shared.queue();
            let room = if self.shared.is_closed() { 0 } else { queue.room };
            let taken = room.min(calls.len());
            queue.room -= taken;
            queue.waiting.extend(calls.drain(..taken));
            taken
        };
        self.shared.clock.calls_started(taken);
        // Afterwards, and no more than there is work for: a worker that is woken for each call of many goes to sleep
        // between them, which costs more than a short call.
        for _ in 0..taken.div_ceil(for_one.max(1)) {
            let Some(idle) = self.shared.queue().idle.pop() else { return };
            self.shared.wake(idle);
        }
    }

    /// Ends a call without a result. It comes back through `really_ended` once its store is dropped; if it
    /// came to its end first, through `ended`.
    pub fn cancel(&self, key: CallKey) {
        let queued = {
            let mut queue = self.shared.queue();
            let position = queue.waiting.iter().position(|call| call.key == key);
            position.and_then(|position| queue.waiting.remove(position))
        };
        if let Some(call) = queued {
            return self.shared.drop_cancelled(call);
        }
        // Only the worker that has it knows it. A worker that has just taken it from the queue has put it
        // into a slot before it looks at its mailbox again.
        for (worker, mailbox) in self.shared.mailboxes.iter().enumerate() {
            lock(&mailbox.cancels).push(key);
            self.shared.wake(worker);
        }
    }

    /// Cancels every call and waits until all have come back and the threads are gone.
    pub fn shutdown(&mut self) {
        let queued = {
            let mut queue = self.shared.queue();
            self.shared.closed.store(true, Ordering::Release);
            std::mem::take(&mut queue.waiting)
        };
        for call in queued {
            self.shared.drop_cancelled(call);
        }
        for worker in 0..self.shared.mailboxes.len() {
            self.shared.wake(worker);
        }
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }

    /// Instances that wait for calls.
    #[cfg(test)]
    pub(super) fn idle_instances(&self) -> usize {
        self.shared.pool.idle()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.shutdown();
        }
    }
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

/// What a worker finds in the queue.
enum NextCall {
    Call(Box<Call>),
    /// Nothing: the worker is entered as idle and will be woken.
    Nothing,
    Closed,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, CallQueue> {
        lock(&self.queue)
    }

    /// Written under the lock of the queue.
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn next(&self, worker: usize) -> NextCall {
        let mut queue = self.queue();
        queue.idle.retain(|idle| *idle != worker);
        if let Some(call) = queue.waiting.pop_front() {
            return NextCall::Call(call);
        }
        if self.is_closed() {
            return NextCall::Closed;
        }
        queue.idle.push(worker);
        NextCall::Nothing
    }

    /// The worker is about to be busy with calls of its own. If it was woken for a queued one, somebody else
    /// has to take that.
    fn busy(&self, worker: usize) {
        let other = {
            let mut queue = self.queue();
            queue.idle.retain(|idle| *idle != worker);
            if queue.waiting.is_empty() { None } else { queue.idle.pop() }
        };
        if let Some(other) = other {
            self.wake(other);
        }
    }

    fn wake(&self, worker: usize) {
        let waker = self.mailboxes.get(worker).and_then(|mailbox| lock(&mailbox.waker).clone());
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// So many calls have come to their end: others may be submitted.
    fn ended(&self, calls: usize) {
        self.queue().room += calls;
        self.clock.calls_ended(calls);
    }

    /// A call that never ran is cancelled.
    fn drop_cancelled(&self, call: Box<Call>) {
        self.ended(1);
        call.observer().clone().notify(&mut vec![CallEvent::Terminated(call)]);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here panics between two steps that belong together.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
