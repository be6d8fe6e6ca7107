//! Connections: how many there are, and how long one may take.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;

use crate::routes::{RequestContext, router};

/// Maximum number of connections.
pub(crate) const CONNECTIONS_MAX: usize = 32;
/// The number of them that are kept for health and metrics.
pub(crate) const RESERVED: usize = 8;
/// How long a client may take to send a request, or keep a connection without one.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// How long a client may leave a response unread.
const UNREAD_MAX: Duration = Duration::from_secs(10);
/// Maximum size of the buffer that holds the head of a request: the smallest that the library allows.
const HEAD_BYTES: usize = 8 << 10;
/// The pause after an error of the listener, such as no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until it is dropped.
pub(crate) async fn serve(listener: TcpListener, context: RequestContext) -> Infallible {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut pause = tokio::time::interval(ACCEPT_PAUSE);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // A connection beyond the maximum is closed at once: if it waited, the server would seem to hang.
                let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
                let reserved = slots.available_permits() < RESERVED;
                tokio::spawn(connection(stream, RequestContext { reserved, ..context.clone() }, slot));
            }
            Err(error) => {
                tracing::debug!(%error, "the admin server can't accept a connection");
                pause.reset();
                pause.tick().await;
            }
        }
    }
}

/// Serves one connection until it ends, and then releases its slot.
async fn connection(stream: TcpStream, context: RequestContext, slot: OwnedSemaphorePermit) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(UNREAD_MAX));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(REQUEST_MAX).max_buf_size(HEAD_BYTES);
    let service = TowerToHyperService::new(router(context));
    let io = TokioIo::new(Box::pin(stream));
    // An error is the client's: it did not send HTTP, or closed the connection.
    let _ended = http.serve_connection(io, service).await;
    drop(slot);
}

/// Returns whether only this machine can reach the address.
pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
