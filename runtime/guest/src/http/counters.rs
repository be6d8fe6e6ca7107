//! Counters of HTTP requests, by the grant that allowed them and by how they ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::StatusCode;

/// How a request ended: the class of the status of its response. `error`: there was no response before the call ended,
/// or its status belongs to none of these classes.
pub const HTTP_CLASSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "error"];

/// The position of `error` in [`HTTP_CLASSES`].
const ERROR: usize = 4;

/// The HTTP requests of a handler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpUsage {
    /// Requests that ended, for each grant, in the order of the grants.
    pub grants: Vec<GrantUsage>,
    /// Requests that no grant allowed.
    pub denied: u64,
}

/// The requests that one grant allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantUsage {
    /// The text of the grant.
    pub grant: Arc<str>,
    /// The number of requests by class, in the order of [`HTTP_CLASSES`].
    pub requests: [u64; HTTP_CLASSES.len()],
}

/// The counters of one handler. Workers write them concurrently, once for each request.
#[derive(Debug, Default)]
pub(crate) struct HttpCounters {
    grants: Vec<GrantCounters>,
    denied: AtomicU64,
}

#[derive(Debug)]
struct GrantCounters {
    grant: Arc<str>,
    requests: [AtomicU64; HTTP_CLASSES.len()],
}

impl HttpCounters {
    /// Creates the counters of these grants.
    pub(super) fn new(grants: impl Iterator<Item = Arc<str>>) -> Arc<HttpCounters> {
        let counters = |grant| GrantCounters { grant, requests: Default::default() };
        Arc::new(HttpCounters { grants: grants.map(counters).collect(), denied: AtomicU64::new(0) })
    }

    pub(crate) fn snapshot(&self) -> HttpUsage {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let grants = self.grants.iter().map(|GrantCounters { grant, requests }| GrantUsage {
            grant: grant.clone(),
            requests: requests.each_ref().map(read),
        });
        HttpUsage { grants: grants.collect(), denied: read(&self.denied) }
    }

    pub(super) fn denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }
}

/// A request that a grant allowed. It is counted when this is dropped: as an error, unless there was a response. A
/// request of a call that ended before the response is dropped with its call.
#[must_use]
pub(super) struct AllowedRequest {
    counters: Arc<HttpCounters>,
    /// The index of the grant.
    grant: usize,
    /// The position in [`HTTP_CLASSES`].
    class: usize,
}

impl AllowedRequest {
    pub(super) fn new(counters: Arc<HttpCounters>, grant: usize) -> AllowedRequest {
        AllowedRequest { counters, grant, class: ERROR }
    }

    /// Counts the request by the status of its response.
    pub(super) fn end(mut self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).checked_sub(2);
        self.class = class.filter(|class| *class < ERROR).unwrap_or(ERROR);
    }
}

impl Drop for AllowedRequest {
    fn drop(&mut self) {
        let grant = self.counters.grants.get(self.grant);
        if let Some(requests) = grant.and_then(|grant| grant.requests.get(self.class)) {
            requests.fetch_add(1, Ordering::Relaxed);
        }
    }
}
