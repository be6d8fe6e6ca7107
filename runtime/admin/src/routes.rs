//! The routes: one function per path.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::access::{AccessRules, PathKind};
use crate::backend::{Backend, MetricsFormat};
use crate::responses::{Refusal, json, secured};

/// What every request needs.
#[derive(Clone)]
pub(crate) struct RequestContext {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) access: Arc<AccessRules>,
    /// Whether the server listens on loopback only.
    pub(crate) loopback: bool,
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
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(context.clone(), check))
        .with_state(context)
}

/// Checks the request before its route, and adds the security headers to every answer.
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
    secured(match allowed {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    })
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

fn unknown_parameter(name: &str, value: &str, known: &str) -> Refusal {
    Refusal::new(
        StatusCode::BAD_REQUEST,
        format!("unknown parameter `{name}={value}`"),
        format!("the parameter of this path is {known}"),
    )
}

async fn unknown_path() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "unknown path",
        "the paths are /health/live, /health/ready, /metrics and /v1/status",
    )
}

async fn wrong_method() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this path can only be read", "use GET")
}
