//! The body of a response, as a guest reads it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;
use wasmtime_wasi_http::{Error, WasiBody};

use super::errors;

/// Wraps the body of a response. `between_bytes`: how long the guest may wait for the next piece.
pub(super) fn wasi_body(incoming: Incoming, between_bytes: Option<Duration>) -> WasiBody {
    WasiBody::new(ResponseBody { incoming, between_bytes, timeout: None })
}

struct ResponseBody {
    incoming: Incoming,
    between_bytes: Option<Duration>,
    /// Set while the guest waits.
    timeout: Option<Pin<Box<Sleep>>>,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(context) {
            self.timeout = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| errors::wasi_error(&error))));
        }
        let Some(limit) = self.between_bytes else { return Poll::Pending };
        #[expect(clippy::disallowed_methods, reason = "the guest's own timer, on the runtime of its worker")]
        let timeout = self.timeout.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        timeout.as_mut().poll(context).map(|()| Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
