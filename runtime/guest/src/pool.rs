//! Idle instances. Each worker has its own and uses the most recent one first: only as many instances are used as calls
//! run at once, and their memory stays in the caches. The total number of live instances is bounded.

use std::sync::{Mutex, PoisonError};

use super::handler::{Handler, Instance};

/// The pool of instances, shared by the workers.
pub(super) struct Pool {
    state: Mutex<PoolState>,
}

struct PoolState {
    /// Number of instances that may still be created.
    capacity: usize,
    /// Idle instances by worker.
    idle: Vec<Vec<Idle>>,
}

struct Idle {
    /// The id of the instance's handler in this process.
    handler_id: u64,
    instance: Instance,
}

/// What a call receives.
pub(super) enum Lease {
    /// An instance that has served calls.
    Used(Instance),
    /// The permit to create an instance. The caller drops the replaced instance, if there is one, outside of the lock.
    Permit(Option<Instance>),
}

impl Pool {
    pub(super) fn new(workers: usize, capacity: usize) -> Pool {
        let idle = (0..workers).map(|_| Vec::new()).collect();
        Pool { state: Mutex::new(PoolState { capacity, idle }) }
    }

    /// Takes the permit to create an instance, regardless of idle ones.
    pub(super) fn take_permit(&self) -> Lease {
        self.with(|state| {
            if state.capacity > 0 {
                state.capacity -= 1;
                return Lease::Permit(None);
            }
            Lease::Permit(Some(state.evict()))
        })
    }

    /// Takes, in this order of preference: the worker's own most recent instance of this handler; a permit for a new
    /// one; another worker's instance of this handler; a permit in place of any idle instance.
    pub(super) fn take(&self, worker: usize, handler: &Handler) -> Lease {
        self.with(|state| {
            if let Some(instance) = state.take_of(worker, handler) {
                return Lease::Used(instance);
            }
            if state.capacity > 0 {
                state.capacity -= 1;
                return Lease::Permit(None);
            }
            if let Some(instance) = (0..state.idle.len()).find_map(|other| state.take_of(other, handler)) {
                return Lease::Used(instance);
            }
            Lease::Permit(Some(state.evict()))
        })
    }

    /// Keeps an instance for later calls.
    pub(super) fn keep(&self, worker: usize, handler: &Handler, instance: Instance) {
        let idle = Idle { handler_id: handler.id(), instance };
        let rejected = self.with(|state| match state.idle.get_mut(worker) {
            Some(idle_instances) => {
                idle_instances.push(idle);
                handler.counters().idle_began();
                None
            }
            None => Some(idle),
        });
        if let Some(rejected) = rejected {
            drop(rejected);
            self.return_permit();
        }
    }

    /// Returns the permit of an instance that was dropped, or could not be created.
    pub(super) fn return_permit(&self) {
        self.with(|state| state.capacity += 1);
    }

    /// Returns the number of idle instances over all workers.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.with(|state| state.idle.iter().map(Vec::len).sum())
    }

    fn with<T>(&self, work: impl FnOnce(&mut PoolState) -> T) -> T {
        // No panic can leave the state half updated.
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The counters may outlive the pool.
        self.with(|state| state.idle.iter().flatten().for_each(|idle| idle.instance.counters().idle_ended()));
    }
}

impl PoolState {
    /// Removes an idle instance, so that another can be created.
    fn evict(&mut self) -> Instance {
        let evicted = self.idle.iter_mut().find(|idle| !idle.is_empty()).map(|idle| idle.remove(0));
        // There are never more calls than instances that may live. So if this call has no instance, another one is
        // idle.
        let instance = evicted.expect("no more calls are admitted than instances may live").instance;
        instance.counters().idle_ended();
        instance
    }

    fn take_of(&mut self, worker: usize, handler: &Handler) -> Option<Instance> {
        let idle = self.idle.get_mut(worker)?;
        let last = idle.iter().rposition(|idle| idle.handler_id == handler.id())?;
        handler.counters().idle_ended();
        Some(idle.remove(last).instance)
    }
}
