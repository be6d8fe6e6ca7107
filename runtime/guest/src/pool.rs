//! Instances between calls. Each worker has its own, last in first out: the set of instances in use stays
//! as small as the real concurrency, and hot. The number of all that live is bounded.

use std::sync::{Mutex, PoisonError};

use super::handler::{Handler, Instance};

/// Shared by the workers.
pub(super) struct Pool {
    state: Mutex<PoolState>,
}

struct PoolState {
    /// How many more may be made.
    room: usize,
    /// By worker.
    idle: Vec<Vec<Idle>>,
}

struct Idle {
    handler: u64,
    instance: Instance,
}

/// What a call gets.
pub(super) enum Lease {
    /// An instance that served calls before.
    Used(Instance),
    /// The right to make one. What had to make room for it is dropped by the caller, outside of the lock.
    Room(Option<Instance>),
}

impl Pool {
    pub(super) fn new(workers: usize, room: usize) -> Pool {
        let idle = (0..workers).map(|_| Vec::new()).collect();
        Pool { state: Mutex::new(PoolState { room, idle }) }
    }

    /// The right to make an instance, whatever idle ones there are.
    pub(super) fn take_room(&self) -> Lease {
        self.with(|state| {
            if state.room > 0 {
                state.room -= 1;
                return Lease::Room(None);
            }
            Lease::Room(Some(state.evict()))
        })
    }

    /// The worker's own last instance of this handler; else a new one; else another worker's; else in place
    /// of any that is idle.
    pub(super) fn take(&self, worker: usize, handler: &Handler) -> Lease {
        self.with(|state| {
            if let Some(instance) = state.take_of(worker, handler.id()) {
                return Lease::Used(instance);
            }
            if state.room > 0 {
                state.room -= 1;
                return Lease::Room(None);
            }
            if let Some(instance) = (0..state.idle.len()).find_map(|other| state.take_of(other, handler.id()))
            {
                return Lease::Used(instance);
            }
            Lease::Room(Some(state.evict()))
        })
    }

    /// Keeps an instance that is in order.
    pub(super) fn keep(&self, worker: usize, handler: &Handler, instance: Instance) {
        let idle = Idle { handler: handler.id(), instance };
        let kept = self.with(|state| match state.idle.get_mut(worker) {
            Some(pool) => {
                pool.push(idle);
                None
            }
            None => Some(idle),
        });
        if kept.is_some() {
            self.gone();
        }
    }

    /// An instance was dropped, or could not be made.
    pub(super) fn gone(&self) {
        self.with(|state| state.room += 1);
    }

    /// Idle instances over all workers.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.with(|state| state.idle.iter().map(Vec::len).sum())
    }

    fn with<T>(&self, work: impl FnOnce(&mut PoolState) -> T) -> T {
        // Nothing in here panics between two steps that belong together.
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl PoolState {
    /// An instance that makes room for another.
    fn evict(&mut self) -> Instance {
        let oldest = self.idle.iter_mut().find(|idle| !idle.is_empty()).map(|idle| idle.remove(0));
        // Calls that are out never outnumber instances: one of them is idle if this call has none.
        oldest.expect("no more calls are admitted than instances may live").instance
    }

    fn take_of(&mut self, worker: usize, handler: u64) -> Option<Instance> {
        let idle = self.idle.get_mut(worker)?;
        let last = idle.iter().rposition(|idle| idle.handler == handler)?;
        Some(idle.remove(last).instance)
    }
}
