//! The connections of all handlers, and the thread that they live on.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::runtime::{Builder, Runtime};
use wasmtime_wasi::runtime::AbortOnDropJoinHandle;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::connect::{CONNECT_TIMEOUT, Connector, OPENED};
use super::outgoing::{self, Again, Outgoing};
use super::{body, errors};

/// Connections that wait for the next request, per host.
const IDLE_CONNECTIONS_MAX: usize = 256;

/// Shorter than the 60 s after which common servers and load balancers close theirs.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Names that are looked up at once: the system's resolver blocks a thread for each.
const LOOKUPS_MAX: usize = 16;

/// What one connection buffers of a response that its guest does not read.
const READ_BUFFER_MAX: usize = 256 << 10;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum HttpClientError {
    /// Its thread did not start.
    #[error("no thread for HTTP requests: {0}")]
    Thread(std::io::Error),
    /// TLS does not start.
    #[error("no TLS for HTTP requests: {reason}")]
    Tls {
        /// What it said.
        reason: String,
    },
}

/// One per process, and none if no handler may use HTTP.
///
/// Connections outlive calls and serve the guests of every worker, so they have a thread of their own: on a
/// worker's they would stand still whenever a guest computes there.
pub struct HttpClient {
    clients: Clients,
    /// Gone while it is dropped.
    runtime: Option<Runtime>,
}

/// Both open connections alike.
#[derive(Clone)]
struct Clients {
    /// Keeps connections for the next request.
    keeping: Client<Connector, Outgoing>,
    /// Opens one for each request: for what a kept connection did not answer.
    fresh: Client<Connector, Outgoing>,
}

impl HttpClient {
    /// Starts the thread. Connections are opened when they are needed.
    pub fn start() -> Result<HttpClient, HttpClientError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(LOOKUPS_MAX)
            .thread_name("keylane-http")
            .enable_all()
            .build()
            .map_err(HttpClientError::Thread)?;
        let connector = Connector::new()?;
        let client = |kept: usize| {
            Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_MAX)
                .pool_max_idle_per_host(kept)
                .http1_max_buf_size(READ_BUFFER_MAX)
                // Only such that a kept connection refused before it took anything of them.
                .retry_canceled_requests(true)
                // It is there: guests can't set it, the host's side of `wasi:http` does.
                .set_host(false)
                .build(connector.clone())
        };
        let clients = Clients { keeping: client(IDLE_CONNECTIONS_MAX), fresh: client(0) };
        Ok(HttpClient { clients, runtime: Some(runtime) })
    }

    /// Sends a request. Dropping the future, or later the body, gives the request up.
    pub(super) fn send(
        &self,
        request: Request<WasiBody>,
        options: RequestOptions,
    ) -> impl Future<Output = Result<Response<WasiBody>, Error>> + Send + use<> {
        let runtime = self.runtime.as_ref().expect("it is taken only when the client is dropped");
        let answered = answer(self.clients.clone(), request, options);
        let mut asking = AbortOnDropJoinHandle::from(runtime.spawn(answered));
        async move {
            // A task that is gone without an answer: the process ends, and the client with it.
            let ended = |_| Error::InternalError(Some("the request was given up".to_owned()));
            let response = (&mut *asking).await.map_err(ended)??;
            Ok(response.map(|incoming| body::of(incoming, options.between_bytes_timeout)))
        }
    }
}

/// Services close connections that nobody uses, and a request may meet that: a kept connection ends without an answer. If
/// to send the request twice is to send it once, it goes out again, over a new connection.
async fn answer(
    clients: Clients,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<Response<Incoming>, Error> {
    let (request, again) = outgoing::prepare(request);
    let opened = Arc::new(AtomicBool::new(false));
    let asked = OPENED.scope(Arc::clone(&opened), head(clients.keeping.request(request), options)).await;
    let ended = matches!(asked, Err(Error::HttpResponseIncomplete | Error::ConnectionTerminated));
    if ended
        && !opened.load(Ordering::Relaxed)
        && let Some(request) = again.and_then(Again::request)
    {
        return head(clients.fresh.request(request), options).await;
    }
    asked
}

/// Waits for the head of the response. The time for the first byte counts from the connection on; where
/// that was opened for this request, its own time is added.
async fn head(asked: legacy::ResponseFuture, options: RequestOptions) -> Result<Response<Incoming>, Error> {
    let asked = CONNECT_TIMEOUT.scope(options.connect_timeout, asked);
    let answered = match options.first_byte_timeout {
        None => asked.await,
        Some(limit) => {
            let limit = limit.saturating_add(options.connect_timeout.unwrap_or_default());
            tokio::time::timeout(limit, asked).await.map_err(|_| Error::HttpResponseTimeout)?
        }
    };
    answered.map_err(|error| errors::of(&error))
}

impl Drop for HttpClient {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Without waiting: a name that is being looked up can't be hurried, and nobody waits for it.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}
