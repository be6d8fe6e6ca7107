//! The connections of all handlers, and their thread.

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
use super::request_body::{self, RequestBody, Resend};
use super::{errors, response_body};

/// Maximum number of idle connections per host.
const IDLE_CONNECTIONS_MAX: usize = 256;

/// How long a connection may be idle: less than the 60 s after which common servers and load balancers close it.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Maximum number of concurrent name lookups: the system's resolver blocks a thread for each.
const LOOKUPS_MAX: usize = 16;

/// How much of a response one connection buffers while its guest does not read.
const READ_BUFFER_MAX: usize = 256 << 10;

/// Why the client could not be created.
#[derive(Debug, thiserror::Error)]
pub enum HttpClientError {
    /// Its thread can't be started.
    #[error("can't start the thread for HTTP requests: {0}")]
    Thread(std::io::Error),
    /// TLS can't be initialized.
    #[error("can't initialize TLS for HTTP requests: {reason}")]
    Tls {
        /// The error message.
        reason: String,
    },
}

/// The HTTP client: one per process, and none if no handler may use HTTP.
///
/// Connections outlive calls and serve the guests of every worker, so they have their own thread: on a
/// worker's thread they would stall whenever a guest computes there.
pub struct HttpClient {
    clients: Clients,
    /// `None` only while the client is dropped.
    runtime: Option<Runtime>,
}

/// The two clients, which open connections in the same way.
#[derive(Clone)]
struct Clients {
    /// The client that keeps connections for later requests.
    pooled: Client<Connector, RequestBody>,
    /// The client that opens a new connection for each request, for requests that a kept connection did not answer.
    unpooled: Client<Connector, RequestBody>,
}

impl HttpClient {
    /// Starts the thread. Connections are opened on demand.
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
                // Retries only requests of which a closing connection has sent nothing.
                .retry_canceled_requests(true)
                // Guests can't set the `host` header; the host's side of `wasi:http` has set it.
                .set_host(false)
                .build(connector.clone())
        };
        let clients = Clients { pooled: client(IDLE_CONNECTIONS_MAX), unpooled: client(0) };
        Ok(HttpClient { clients, runtime: Some(runtime) })
    }

    /// Sends a request. Dropping the future, or later the body, aborts the request.
    pub(super) fn send(
        &self,
        request: Request<WasiBody>,
        options: RequestOptions,
    ) -> impl Future<Output = Result<Response<WasiBody>, Error>> + Send + use<> {
        let runtime = self.runtime.as_ref().expect("the runtime is taken only when the client is dropped");
        let sending = send_with_resend(self.clients.clone(), request, options);
        let mut sending = AbortOnDropJoinHandle::from(runtime.spawn(sending));
        async move {
            // The task ends without an answer only if the process ends, and the client with it.
            let ended = |_| Error::InternalError(Some("request aborted".to_owned()));
            let response = (&mut *sending).await.map_err(ended)??;
            Ok(response.map(|incoming| response_body::wasi_body(incoming, options.between_bytes_timeout)))
        }
    }
}

/// Sends a request. Services close idle connections, and a request on one that is just being closed gets no answer. If
/// the request is idempotent, it is then sent again, over a new connection.
async fn send_with_resend(
    clients: Clients,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<Response<Incoming>, Error> {
    let (request, resend) = request_body::prepare(request);
    let opened = Arc::new(AtomicBool::new(false));
    let answered = OPENED.scope(Arc::clone(&opened), head(clients.pooled.request(request), options)).await;
    let ended = matches!(answered, Err(Error::HttpResponseIncomplete | Error::ConnectionTerminated));
    if ended
        && !opened.load(Ordering::Relaxed)
        && let Some(request) = resend.and_then(Resend::request)
    {
        return head(clients.unpooled.request(request), options).await;
    }
    answered
}

/// Waits for the head of the response. The timeout of the first byte excludes the time to connect, so the connect
/// timeout is added: the connection may have to be opened for this request.
async fn head(request: legacy::ResponseFuture, options: RequestOptions) -> Result<Response<Incoming>, Error> {
    let request = CONNECT_TIMEOUT.scope(options.connect_timeout, request);
    let answered = match options.first_byte_timeout {
        None => request.await,
        Some(limit) => {
            let limit = limit.saturating_add(options.connect_timeout.unwrap_or_default());
            tokio::time::timeout(limit, request).await.map_err(|_| Error::HttpResponseTimeout)?
        }
    };
    answered.map_err(|error| errors::wasi_error(&error))
}

impl Drop for HttpClient {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The shutdown does not wait: a running name lookup can't be aborted, and nothing needs its result.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}
