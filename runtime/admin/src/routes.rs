//! The routes: one function per path.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::header::{ACCEPT, CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::access::{AccessRules, PathKind};
use crate::backend::{Backend, LaneOrder, LanesError, LanesRequest, MetricsFormat};
use crate::event_stream::{self, StreamSlots};
use crate::page;
use crate::responses::{Refusal, json, secured};

/// The number of lanes that a response has unless the request names one, and its maximum.
const LANES_DEFAULT: usize = 20;
const LANES_MAX: usize = 100;

/// What every request needs.
#[derive(Clone)]
pub(crate) struct RequestContext {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) access: Arc<AccessRules>,
    /// Whether the server listens on loopback only.
    pub(crate) loopback: bool,
    /// The free slots of `/v1/stream`.
    pub(crate) streams: StreamSlots,
    /// Whether this connection is one of those that are reserved for health and metrics.
    pub(crate) reserved: bool,
}

/// Builds the router of one connection.
pub(crate) fn router(context: RequestContext) -> Router {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/v1/lanes", get(lanes))
        .route("/v1/notices", get(notices))
        .route("/v1/stream", get(stream))
        .route("/", get(page::index))
        .route("/page.css", get(page::style))
        .route("/page.js", get(page::script))
        .route("/favicon.ico", get(page::no_icon))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(context.clone(), check))
        .with_state(context)
}

/// Checks the request before its route, and adds the security headers to every response.
async fn check(State(context): State<RequestContext>, request: Request, next: Next) -> Response {
    let kind = PathKind::of(request.uri().path());
    let allowed = if context.reserved && !kind.has_reserve() {
        Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many connections: the rest are reserved for health and metrics",
            "close some, and try again",
        ))
    } else {
        context.access.check(kind, request.headers(), context.loopback)
    };
    let mut response = secured(match allowed {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    });
    if context.reserved && !kind.has_reserve() {
        // The next connection of this client may be served.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn live(State(context): State<RequestContext>) -> Response {
    health(&context.backend.not_live())
}

async fn ready(
    State(context): State<RequestContext>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let mut strict = false;
    for (name, value) in &parameters {
        match (name.as_str(), value.as_str()) {
            ("strict", "true" | "") => strict = true,
            ("strict", "false") => {}
            _ => return Err(unknown_parameter(name, value, "`strict=true`")),
        }
    }
    Ok(health(&context.backend.not_ready(strict).await))
}

fn health(reasons: &[String]) -> Response {
    let (status, text) = match reasons {
        [] => (StatusCode::OK, "ok\n".to_owned()),
        reasons => (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n"),
    };
    (status, text).into_response()
}

async fn metrics(State(context): State<RequestContext>, headers: HeaderMap) -> Response {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = MetricsFormat::accepted(&accept.collect::<Vec<_>>().join(","));
    let mut response = Response::new(Body::from(context.backend.metrics(format).await));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    response
}

async fn status(State(context): State<RequestContext>) -> Response {
    json(context.backend.status().await)
}

async fn lanes(
    State(context): State<RequestContext>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let mut request = LanesRequest { handler: None, by: LaneOrder::Depth, limit: LANES_DEFAULT };
    for (name, value) in parameters {
        match (name.as_str(), value.as_str(), value.parse::<usize>()) {
            ("handler", ..) => request.handler = Some(value),
            ("by", "depth", _) => request.by = LaneOrder::Depth,
            ("by", "age", _) => request.by = LaneOrder::Age,
            ("by", "attempts", _) => request.by = LaneOrder::Attempts,
            ("limit", _, Ok(limit @ 1..=LANES_MAX)) => request.limit = limit,
            _ => {
                let known = "`handler=NAME`, `by=depth|age|attempts` or `limit=1` to `limit=100`";
                return Err(unknown_parameter(&name, &value, known));
            }
        }
    }
    match context.backend.lanes(request).await {
        Ok(lanes) => Ok(json(lanes)),
        Err(error) => Err(no_lanes(&error)),
    }
}

fn no_lanes(error: &LanesError) -> Refusal {
    match error {
        LanesError::UnknownHandler(names) => Refusal::new(
            StatusCode::NOT_FOUND,
            "no such handler in this process",
            format!("name one with `handler=NAME`: {}", names.join(", ")),
        ),
        LanesError::NotRunning => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the handler does not run",
            "see its state in /v1/status",
        ),
        LanesError::Unresponsive => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the event loop of the handler does not respond",
            "try again; if this lasts, see `unresponsive_ms` in /v1/status",
        ),
    }
}

async fn notices(
    State(context): State<RequestContext>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let mut since = 0;
    for (name, value) in &parameters {
        match (name.as_str(), value.parse()) {
            ("since", Ok(id)) => since = id,
            _ => return Err(unknown_parameter(name, value, "`since=ID`, the number of a notice")),
        }
    }
    let notices = context.backend.notices(since);
    let list: Vec<&str> = notices.iter().map(|notice| notice.json.as_str()).collect();
    Ok(json(format!("{{\"notices\":[{}]}}", list.join(","))))
}

async fn stream(State(context): State<RequestContext>) -> Result<Response, Refusal> {
    event_stream::response(context.backend, &context.streams)
}

fn unknown_parameter(name: &str, value: &str, known: &str) -> Refusal {
    Refusal::new(
        StatusCode::BAD_REQUEST,
        format!("unknown parameter `{name}={value}`"),
        format!("this path accepts {known}"),
    )
}

async fn unknown_path() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "unknown path",
        "the paths are /, /health/live, /health/ready, /metrics, /v1/status, /v1/lanes, /v1/notices and /v1/stream",
    )
}

async fn wrong_method() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this path can only be read", "use GET")
}
