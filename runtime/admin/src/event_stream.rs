//! The stream of `/v1/stream`: server-sent events with a status each second, and each notice when it comes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::backend::Backend;
use crate::responses::Refusal;

/// Maximum number of streams.
pub(crate) const STREAMS_MAX: usize = 8;
/// Interval of the statuses.
const INTERVAL: Duration = Duration::from_secs(1);

/// The free slots of streams.
#[derive(Clone, Debug)]
pub(crate) struct StreamSlots(Arc<Semaphore>);

impl StreamSlots {
    pub(crate) fn new() -> StreamSlots {
        StreamSlots(Arc::new(Semaphore::new(STREAMS_MAX)))
    }
}

/// The state of one stream.
struct Following {
    backend: Arc<dyn Backend>,
    ticks: Interval,
    /// The number of the last notice that was sent.
    last_notice: u64,
    _slot: OwnedSemaphorePermit,
}

/// Returns a response that streams until the client goes away.
pub(crate) fn response(backend: Arc<dyn Backend>, slots: &StreamSlots) -> Result<Response, Refusal> {
    let Ok(slot) = Arc::clone(&slots.0).try_acquire_owned() else {
        return Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{STREAMS_MAX} streams are open already"),
            "close a page, or use /v1/status",
        ));
    };
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let following = Following { backend, ticks, last_notice: 0, _slot: slot };
    Ok(Sse::new(events(following)).into_response())
}

fn events(following: Following) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(following, |mut following| async move {
        following.ticks.tick().await;
        let notices = following.backend.notices(following.last_notice);
        following.last_notice = notices.last().map_or(following.last_notice, |notice| notice.id);
        let notices = notices.into_iter().map(|notice| Event::default().event("notice").data(notice.json));
        let mut events: Vec<_> = notices.map(Ok).collect();
        events.push(Ok(Event::default().event("status").data(following.backend.status().await)));
        Some((stream::iter(events), following))
    })
    .flatten()
}
