//! The threads that run guests.
//!
//! Each worker is one OS thread with its own runtime. It polls its calls as local futures; a task per call would
//! cost more than the call. Rules:
//!
//! - Queued calls are in one queue that all workers share. A worker takes a call only when none of its own is
//!   ready: calls that have begun are finished first.
//! - A call whose guest waits is suspended: it costs memory, but does not block the worker.
//! - A call that computes yields at each tick, so that timers, cancels and the worker's other calls get
//!   their turn.
//! - Events of calls are reported in batches: see `call_events`.
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
use super::clock::TickClock;
use super::engine::Engine;
use super::pool::Pool;

/// The worker threads. Dropping them cancels all calls.
pub struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<CallQueue>,
    mailboxes: Vec<WorkerMailbox>,
    pool: Pool,
    clock: Arc<TickClock>,
    closed: AtomicBool,
}

struct CallQueue {
    queued: VecDeque<Box<Call>>,
    /// Number of calls that may be submitted now.
    capacity: usize,
    /// Idle workers, the most recently busy one last.
    idle: Vec<usize>,
}

/// Requests to a worker from other threads.
#[derive(Default)]
struct WorkerMailbox {
    cancels: Mutex<Vec<CallKey>>,
    /// Wakes the worker's thread.
    waker: Mutex<Option<Waker>>,
}

impl Workers {
    /// Starts `threads` workers; the right number is one per core.
    pub fn start(engine: &Engine, threads: usize) -> std::io::Result<Workers> {
        let threads = threads.max(1);
        let capacity = usize::try_from(engine.max_instances()).unwrap_or(usize::MAX);
        let shared = Arc::new(Shared {
            queue: Mutex::new(CallQueue {
                queued: VecDeque::with_capacity(capacity),
                capacity,
                idle: Vec::with_capacity(threads),
            }),
            mailboxes: (0..threads).map(|_| WorkerMailbox::default()).collect(),
            pool: Pool::new(threads, capacity),
            clock: engine.clock().clone(),
            closed: AtomicBool::new(false),
        });
        let mut workers = Workers { shared, threads: Vec::with_capacity(threads) };
        for index in 0..threads {
            workers.threads.push(thread::spawn(workers.shared.clone(), index)?);
        }
        Ok(workers)
    }

    /// Submits calls, in order. They come back, with their buffers, through their
    /// [`CallObserver`](super::CallObserver). Calls stay in `calls` if as many calls are in progress as instances may
    /// live, or if the workers are shut down.
    ///
    /// One idle worker is woken for each `for_one` calls, the number that justifies the cost of waking it. Workers that
    /// are awake take the other calls, and each wakes another before it is blocked.
    pub fn submit(&self, calls: &mut Vec<Box<Call>>, for_one: usize) {
        calls.iter_mut().for_each(|call| call.renew());
        let taken = {
            let mut queue = self.shared.queue();
            let capacity = if self.shared.is_closed() { 0 } else { queue.capacity };
            let taken = capacity.min(calls.len());
            queue.capacity -= taken;
            queue.queued.extend(calls.drain(..taken));
            taken
        };
        self.shared.clock.calls_submitted(taken);
        // Workers are woken after the lock is released, and no more of them than there is work for: a worker that is
        // woken for each of many calls goes to sleep between them, which costs more than a short call.
        for _ in 0..taken.div_ceil(for_one.max(1)) {
            let Some(idle) = self.shared.queue().idle.pop() else { return };
            self.shared.wake(idle);
        }
    }

    /// Ends a call without a result. The call comes back as [`CallEvent::Terminated`] after its store is dropped, or as
    /// [`CallEvent::Ended`] if it ended before.
    pub fn cancel(&self, key: CallKey) {
        let queued = {
            let mut queue = self.shared.queue();
            let position = queue.queued.iter().position(|call| call.key == key);
            position.and_then(|position| queue.queued.remove(position))
        };
        if let Some(call) = queued {
            return self.shared.drop_cancelled(call);
        }
        // Only the worker that runs a call can find it. A worker that has just taken the call from the queue puts it
        // into a slot before it reads its mailbox again.
        for (worker, mailbox) in self.shared.mailboxes.iter().enumerate() {
            lock(&mailbox.cancels).push(key);
            self.shared.wake(worker);
        }
    }

    /// Cancels every call and waits until all have come back and the threads have ended.
    pub fn shutdown(&mut self) {
        let queued = {
            let mut queue = self.shared.queue();
            self.shared.closed.store(true, Ordering::Release);
            std::mem::take(&mut queue.queued)
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

    /// Returns the number of idle instances.
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

/// What a worker takes from the queue.
enum NextCall {
    Call(Box<Call>),
    /// The queue is empty: the worker is registered as idle and will be woken.
    Nothing,
    Closed,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, CallQueue> {
        lock(&self.queue)
    }

    /// Returns whether the workers are shut down. `closed` is written under the lock of the queue.
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn next(&self, worker: usize) -> NextCall {
        let mut queue = self.queue();
        queue.idle.retain(|idle| *idle != worker);
        if let Some(call) = queue.queued.pop_front() {
            return NextCall::Call(call);
        }
        if self.is_closed() {
            return NextCall::Closed;
        }
        queue.idle.push(worker);
        NextCall::Nothing
    }

    /// Marks a worker as busy with its own calls. If calls are queued, another idle worker is woken for them.
    fn busy(&self, worker: usize) {
        let other = {
            let mut queue = self.queue();
            queue.idle.retain(|idle| *idle != worker);
            if queue.queued.is_empty() { None } else { queue.idle.pop() }
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

    /// Frees the capacity of calls that have ended: others may be submitted.
    fn release_capacity(&self, calls: usize) {
        self.queue().capacity += calls;
        self.clock.calls_ended(calls);
    }

    /// Cancels a call that never ran.
    fn drop_cancelled(&self, call: Box<Call>) {
        self.release_capacity(1);
        call.observer().clone().notify(&mut vec![CallEvent::Terminated(call)]);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No panic can leave the data half updated.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
