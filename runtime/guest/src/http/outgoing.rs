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
pub(super) enum Outgoing {
    /// The body from the guest, sent for the first time.
    First {
        body: WasiBody,
        /// The copy of the body; set if the request may be sent again.
        kept: Option<Kept>,
    },
    /// The kept pieces, sent again.
    Again(VecDeque<Bytes>),
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
pub(super) struct Again {
    head: Parts,
    kept: Kept,
}

/// Prepares a request for sending. The second value can send it again; it is present if the method is idempotent
/// (RFC 9110, section 9.2.2).
pub(super) fn prepare(request: Request<WasiBody>) -> (Request<Outgoing>, Option<Again>) {
    let (head, body) = request.into_parts();
    let idempotent =
        [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE].contains(&head.method);
    let again = idempotent.then(|| Again { head: head.clone(), kept: Kept::default() });
    let kept = again.as_ref().map(|again| again.kept.clone());
    if body.is_end_stream()
        && let Some(kept) = &kept
    {
        kept.end();
    }
    (Request::from_parts(head, Outgoing::First { body, kept }), again)
}

impl Again {
    /// Returns the request again; `None` if not all of its body was kept.
    pub(super) fn request(self) -> Option<Request<Outgoing>> {
        let mut pieces = self.kept.lock();
        let body = pieces.complete.then(|| std::mem::take(&mut pieces.pieces))?;
        drop(pieces);
        Some(Request::from_parts(self.head, Outgoing::Again(body)))
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

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut *self {
            Outgoing::First { body, kept } => {
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
            Outgoing::Again(pieces) => Poll::Ready(pieces.pop_front().map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outgoing::First { body, .. } => body.is_end_stream(),
            Outgoing::Again(pieces) => pieces.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::First { body, .. } => body.size_hint(),
            Outgoing::Again(pieces) => {
                SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum())
            }
        }
    }
}
