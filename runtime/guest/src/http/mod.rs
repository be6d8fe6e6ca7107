//! HTTP requests of guests: to granted hosts only, over connections that all handlers share.
//!
//! [`hosts`] decides where a request may go. [`client`] has the connections and the thread that they live
//! on, [`connect`] opens them, [`outgoing`] is a request's body, which may be sent once more, [`body`] hands on
//! what comes back, and [`errors`] says what went wrong in the words of `wasi:http`.
//!
//! A request belongs to its call: when the store is dropped, at a deadline or a cancel, the request is given
//! up and its connection closed.

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

/// Hosts that one handler's log names as denied; a guest that asks for more is not worth more lines.
const WARNINGS_MAX: usize = 32;

/// Where one handler may send requests.
pub struct HttpGrant {
    handler: String,
    hosts: Vec<AllowedHost>,
    client: Arc<HttpClient>,
    /// Denied before, and said so.
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

    /// Says once for each host that it is not granted.
    fn warn(&self, uri: &Uri) {
        let host = hosts::of(uri).map_or_else(|| "none".to_owned(), |(name, port)| format!("{name}:{port}"));
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        if denied.len() < WARNINGS_MAX && denied.insert(host.clone()) {
            tracing::warn!(
                handler = self.handler,
                host,
                "HTTP request denied: the host is not in the handler's `grants.http`"
            );
        }
    }
}

impl fmt::Debug for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpGrant").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// What an instance has for HTTP.
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

/// Headers of one request or response, as they lie in memory.
const HEADER_BYTES_MAX: usize = 128 << 10;

/// A guest's body is taken over in one piece of at most this size, and no more than one piece waits.
const BODY_PIECE_MAX: usize = 64 << 10;

/// Decides about requests.
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
                    // The connection is driven by the client: there is nothing left to do beside the body.
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
