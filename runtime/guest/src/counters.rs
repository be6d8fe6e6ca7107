//! Resource usage of the guests of one handler: counters that instances, the pool and HTTP requests update, and that
//! any thread may read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::http::{HttpCounters, HttpUsage};

/// What the guests of a handler use now, and the HTTP requests that they have sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestUsage {
    /// The linear memory of all live instances, in bytes, idle ones included. The pages that were never written are not
    /// resident.
    pub memory_bytes: u64,
    /// Instances in the pool, which no call uses.
    pub idle_instances: u32,
    /// All other live instances: they start, run a call, or are being dropped.
    pub busy_instances: u32,
    /// HTTP requests; `None`: the handler may not send any.
    pub http: Option<HttpUsage>,
}

/// The counters of one handler. Each is exact, but [`GuestCounters::snapshot`] does not read them at one instant.
#[derive(Debug, Default)]
pub struct GuestCounters {
    memory: AtomicU64,
    instances: AtomicU32,
    idle: AtomicU32,
    http: Option<Arc<HttpCounters>>,
}

impl GuestCounters {
    pub(super) fn new(http: Option<Arc<HttpCounters>>) -> Arc<GuestCounters> {
        Arc::new(GuestCounters { http, ..GuestCounters::default() })
    }

    /// Reads the counters.
    pub fn snapshot(&self) -> GuestUsage {
        let idle_instances = self.idle.load(Ordering::Relaxed);
        GuestUsage {
            memory_bytes: self.memory.load(Ordering::Relaxed),
            idle_instances,
            busy_instances: self.instances.load(Ordering::Relaxed).saturating_sub(idle_instances),
            http: self.http.as_ref().map(|http| http.snapshot()),
        }
    }

    // Workers create, grow and drop instances concurrently, but rarely.

    pub(super) fn instance_created(&self) {
        self.instances.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn memory_grew(&self, bytes: usize) {
        self.memory.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts the end of an instance that had this much memory.
    pub(super) fn instance_dropped(&self, memory: usize) {
        self.memory.fetch_sub(memory as u64, Ordering::Relaxed);
        self.instances.fetch_sub(1, Ordering::Relaxed);
    }

    // These two run for every call. The pool calls them while it is locked, so there is one writer at a time, and a store
    // is enough.

    pub(super) fn idle_began(&self) {
        self.idle.store(self.idle.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
    }

    pub(super) fn idle_ended(&self) {
        self.idle.store(self.idle.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }
}
