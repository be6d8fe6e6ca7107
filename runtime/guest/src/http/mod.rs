//! HTTP requests of guests: to granted hosts only, over connections that all handlers share.
//!
//! [`grant`] decides where a request may go. [`client`] has the connections and their thread, [`connect`] opens
//! connections, [`request_body`] is the body of a request, which may be sent again, [`response_body`] passes on the
//! response, [`errors`] maps errors to those of `wasi:http`, and [`counters`] counts the requests.
//!
//! A request belongs to its call: when the store is dropped, at a deadline or a cancel, the request is aborted
//! and its connection closed.

mod allowed_host;
mod client;
mod connect;
mod counters;
mod errors;
mod grant;
mod request_body;
mod response_body;

use std::sync::Arc;

use hyper::{Request, Response};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpHooks};

pub use allowed_host::AllowedHost;
pub use client::{HttpClient, HttpClientError};
pub(super) use counters::HttpCounters;
pub use counters::{GrantUsage, HTTP_CLASSES, HttpUsage};
pub use grant::HttpGrant;

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

/// Maximum size of the headers of one request or response, in memory.
const HEADER_BYTES_MAX: usize = 128 << 10;

/// A guest's body is read in pieces of at most this size, and no more than one piece is buffered.
const BODY_PIECE_MAX: usize = 64 << 10;

/// The hooks that allow or deny requests.
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
        let allowed = self.grant.as_ref().and_then(|grant| Some((grant, grant.allow(request.uri())?)));
        let Some((grant, allowed)) = allowed else {
            return Box::new(std::future::ready(Err(Error::HttpRequestDenied)));
        };
        let response = grant.client().send(request, options.unwrap_or_default());
        Box::new(async move {
            let response = response.await?; // an error drops `allowed`, which counts it
            allowed.end(response.status());
            // The client drives the connection: there is nothing left to do besides the body.
            let done: Box<dyn Future<Output = _> + Send> = Box::new(std::future::ready(Ok(())));
            Ok((response, done))
        })
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
