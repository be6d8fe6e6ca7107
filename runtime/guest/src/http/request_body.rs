//! The body of a request, kept while it is small, so that the request can be sent again.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::http::request::Parts;
use hyper::{Method, Request};
use wasmtime_wasi_http::{Error, WasiBody};

/// A larger body is not kept, so its request is sent once.
const KEPT_MAX: usize = 64 << 10;

/// A body as it is sent.
pub(super) enum RequestBody {
    /// The body from the guest, sent for the first time.
    First {
        body: WasiBody,
        /// The copy of the body; set if the request may be sent again.
        kept: Option<Kept>,
    },
    /// The kept pieces, sent again.
    Resent(VecDeque<Bytes>),
}

/// The part of a body that was sent, kept for sending it again.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<Mutex<Pieces>>);

#[derive(Default)]
struct Pieces {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// Whether the body has ended and all of it is kept.
    complete: bool,
}

/// A request that may be sent again.
pub(super) struct Resend {
    head: Parts,
    kept: Kept,
}

/// Prepares a request for sending. The second value can send it again; it is present if the method is idempotent
/// (RFC 9110, section 9.2.2).
pub(super) fn prepare(request: Request<WasiBody>) -> (Request<RequestBody>, Option<Resend>) {
    let (head, body) = request.into_parts();
    let idempotent =
        [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE].contains(&head.method);
    let resend = idempotent.then(|| Resend { head: head.clone(), kept: Kept::default() });
    let kept = resend.as_ref().map(|resend| resend.kept.clone());
    if body.is_end_stream()
        && let Some(kept) = &kept
    {
        kept.end();
    }
    (Request::from_parts(head, RequestBody::First { body, kept }), resend)
}

impl Resend {
    /// Returns the request again; `None` if not all of its body was kept.
    pub(super) fn request(self) -> Option<Request<RequestBody>> {
        let mut pieces = self.kept.lock();
        let body = pieces.complete.then(|| std::mem::take(&mut pieces.pieces))?;
        drop(pieces);
        Some(Request::from_parts(self.head, RequestBody::Resent(body)))
    }
}

impl Kept {
    fn lock(&self) -> std::sync::MutexGuard<'_, Pieces> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, frame: &Frame<Bytes>) {
        let mut kept = self.lock();
        let Some(data) = frame.data_ref() else {
            kept.bytes = usize::MAX; // trailers are not kept
            return;
        };
        kept.bytes = kept.bytes.saturating_add(data.len());
        if kept.bytes <= KEPT_MAX {
            kept.pieces.push_back(data.clone());
        } else {
            kept.pieces.clear();
        }
    }

    fn end(&self) {
        let mut kept = self.lock();
        kept.complete = kept.bytes <= KEPT_MAX;
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut *self {
            RequestBody::First { body, kept } => {
                let frame = ready!(Pin::new(&mut *body).poll_frame(context));
                let ended = frame.is_none() || body.is_end_stream();
                if let Some(kept) = kept {
                    if let Some(Ok(frame)) = &frame {
                        kept.add(frame);
                    }
                    if ended && !matches!(frame, Some(Err(_))) {
                        kept.end();
                    }
                }
                Poll::Ready(frame)
            }
            RequestBody::Resent(pieces) => {
                Poll::Ready(pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::First { body, .. } => body.is_end_stream(),
            RequestBody::Resent(pieces) => pieces.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::First { body, .. } => body.size_hint(),
            RequestBody::Resent(pieces) => {
                SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum())
            }
        }
    }
}
