//! The hosts that a handler may send requests to.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::Uri;

use super::allowed_host::{self, AllowedHost};
use super::client::HttpClient;
use super::counters::{AllowedRequest, HttpCounters};

/// Maximum number of denied hosts that are logged per handler.
const WARNINGS_MAX: usize = 32;

/// The grant of one handler: where it may send requests.
pub struct HttpGrant {
    handler: String,
    hosts: Vec<AllowedHost>,
    client: Arc<HttpClient>,
    counters: Arc<HttpCounters>,
    /// Denied hosts that were logged.
    denied: Mutex<BTreeSet<String>>,
}

impl HttpGrant {
    /// Creates a grant for the handler of this name.
    pub fn new(handler: impl Into<String>, hosts: Vec<AllowedHost>, client: Arc<HttpClient>) -> Arc<Self> {
        let counters = HttpCounters::new(hosts.iter().map(|host| host.grant.clone()));
        Arc::new(HttpGrant { handler: handler.into(), hosts, client, counters, denied: Mutex::default() })
    }

    pub(super) fn client(&self) -> &Arc<HttpClient> {
        &self.client
    }

    /// Returns the counters of the handler's requests.
    pub(crate) fn counters(&self) -> &Arc<HttpCounters> {
        &self.counters
    }

    /// Allows a request to this URI, or denies it: then it is counted and logged here.
    pub(super) fn allow(&self, uri: &Uri) -> Option<AllowedRequest> {
        let Some(grant) = self.hosts.iter().position(|host| host.allows(uri)) else {
            self.counters.denied();
            self.warn(uri);
            return None;
        };
        Some(AllowedRequest::new(self.counters.clone(), grant))
    }

    /// Logs each denied host once, up to `WARNINGS_MAX` hosts.
    fn warn(&self, uri: &Uri) {
        let host = allowed_host::destination_of(uri)
            .map_or_else(|| "none".to_owned(), |(name, port)| format!("{name}:{port}"));
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        if denied.len() < WARNINGS_MAX && denied.insert(host.clone()) {
            tracing::warn!(
                handler = self.handler,
                host,
                remedy = "add the host to the handler's `grants.http`",
                "HTTP request denied"
            );
        }
    }
}

impl fmt::Debug for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpGrant").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}
