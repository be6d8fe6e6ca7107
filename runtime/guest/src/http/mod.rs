//! HTTP requests of guests: to granted hosts only, over connections that all handlers share.
//!
//! [`hosts`] decides where a request may go. [`client`] has the connections and their thread,
//! [`connect`] opens them, [`outgoing`] is a request's body, which may be sent again, [`body`] passes on
//! the response, and [`errors`] maps errors to those of `wasi:http`.
//!
//! A request belongs to its call: when the store is dropped, at a deadline or a cancel, the request is aborted
//! and its connection closed.

mod body;
mod client;
mod connect;
mod errors;
mod hosts;
mod outgoing;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::{Request, Response, Uri};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpHooks};

pub use client::{HttpClient, HttpClientError};
pub use hosts::AllowedHost;

/// Denied hosts that are logged per handler; more lines are not worth it.
const WARNINGS_MAX: usize = 32;

/// Where one handler may send requests.
pub struct HttpGrant {
    handler: String,
    hosts: Vec<AllowedHost>,
    client: Arc<HttpClient>,
    /// Denied hosts that were logged.
    denied: Mutex<BTreeSet<String>>,
}

impl HttpGrant {
    /// A grant for the handler of this name.
    pub fn new(handler: impl Into<String>, hosts: Vec<AllowedHost>, client: Arc<HttpClient>) -> Arc<Self> {
        Arc::new(HttpGrant { handler: handler.into(), hosts, client, denied: Mutex::default() })
    }

    fn allows(&self, uri: &Uri) -> bool {
        self.hosts.iter().any(|host| host.allows(uri))
    }

    /// Logs once for each host that it is not granted.
    fn warn(&self, uri: &Uri) {
        let host = hosts::of(uri).map_or_else(|| "none".to_owned(), |(name, port)| format!("{name}:{port}"));
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

/// The HTTP state of an instance.
pub(super) struct InstanceHttp {
    pub(super) context: WasiHttpCtx,
    pub(super) hooks: Hooks,
}

impl InstanceHttp {
    pub(super) fn new(grant: Option<Arc<HttpGrant>>) -> InstanceHttp {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(HEADER_BYTES_MAX);
        InstanceHttp { context, hooks: Hooks { grant } }
    }
}

/// Headers of one request or response, by their size in memory.
const HEADER_BYTES_MAX: usize = 128 << 10;

/// A guest's body is read in pieces of at most this size, and no more than one piece is buffered.
const BODY_PIECE_MAX: usize = 64 << 10;

/// Allows or denies requests.
pub(super) struct Hooks {
    grant: Option<Arc<HttpGrant>>,
}

type Sent = Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        match &self.grant {
            Some(grant) if grant.allows(request.uri()) => {
                let response = grant.client.send(request, options.unwrap_or_default());
                Box::new(async move {
                    // The client drives the connection: there is nothing left to do besides the body.
                    let done: Box<dyn Future<Output = _> + Send> = Box::new(std::future::ready(Ok(())));
                    Ok((response.await?, done))
                })
            }
            Some(grant) => {
                grant.warn(request.uri());
                Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
            }
            None => Box::new(std::future::ready(Err(Error::HttpRequestDenied))),
        }
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        1
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_PIECE_MAX
    }
}

#[cfg(test)]
mod tests;
