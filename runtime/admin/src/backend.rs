//! The source of everything that the server serves.

use std::future::Future;
use std::pin::Pin;

/// A response that may have to wait for an event loop.
pub type ResponseFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The source of everything that the server serves, except the page. The methods run on the server's thread: none may
/// block it.
pub trait Backend: Send + Sync + 'static {
    /// Called once a second. The server's own ticks are the clock for liveness: a process that was suspended as a whole
    /// has not failed.
    fn tick(&self);

    /// Returns the reasons why the process must be restarted; empty: it is live.
    fn not_live(&self) -> Vec<String>;

    /// Returns the reasons why the process is not ready; empty: it is ready. `strict` includes conditions that an alert
    /// should report, but that must not hold up a rollout.
    fn not_ready(&self, strict: bool) -> ResponseFuture<'_, Vec<String>>;

    /// Returns the metrics in this format.
    fn metrics(&self, format: MetricsFormat) -> ResponseFuture<'_, String>;

    /// Returns the status as JSON.
    fn status(&self) -> ResponseFuture<'_, String>;

    /// Returns the kept notices after the one with this number, in order. 0: all of them.
    fn notices(&self, after: u64) -> Vec<Notice>;

    /// Returns the worst lanes of a handler as JSON.
    ///
    /// # Errors
    ///
    /// The handler is unknown or not running, or does not respond.
    fn lanes(&self, request: LanesRequest) -> ResponseFuture<'_, Result<String, LanesError>>;
}

/// One notice: something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Its number. Later notices have higher ones.
    pub id: u64,
    /// The notice as JSON.
    pub json: String,
}

/// A request for the worst lanes of a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanesRequest {
    /// The handler; `None`: the only one.
    pub handler: Option<String>,
    /// What makes a lane worse than another.
    pub by: LaneOrder,
    /// Maximum number of lanes.
    pub limit: usize,
}

/// What makes a lane worse than another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneOrder {
    /// The number of its events.
    Depth,
    /// The age of its first event.
    Age,
    /// The attempts of its first event.
    Attempts,
}

/// Why there are no lanes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LanesError {
    /// No handler has this name, or none was named although there are several. With the known names.
    UnknownHandler(Vec<String>),
    /// The handler does not run.
    NotRunning,
    /// Its event loop did not respond in time.
    Unresponsive,
}

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsFormat {
    /// The Prometheus text format, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl MetricsFormat {
    /// Returns the format that a client with this `Accept` header receives.
    pub(crate) fn accepted(accept: &str) -> MetricsFormat {
        let open = accept.split(',').any(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            let name = parts.next().unwrap_or("");
            let refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
            name.eq_ignore_ascii_case("application/openmetrics-text") && !refused
        });
        if open { MetricsFormat::OpenMetrics } else { MetricsFormat::Prometheus }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            MetricsFormat::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            MetricsFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}
