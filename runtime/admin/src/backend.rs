//! The source of everything that the server serves.

use std::future::Future;
use std::pin::Pin;

/// An answer that may have to wait for an event loop.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The source of health, metrics and status. The methods run on the server's thread: none may block it.
pub trait Backend: Send + Sync + 'static {
    /// Called once a second. The server's own turns are the clock for liveness: a process that was suspended as a whole
    /// has not failed.
    fn tick(&self);

    /// Returns the reasons why the process must be restarted; empty: it is live.
    fn not_live(&self) -> Vec<String>;

    /// Returns the reasons why the process is not ready; empty: it is ready. `strict` includes conditions that an alert
    /// should report, but that must not hold up a rollout.
    fn not_ready(&self, strict: bool) -> Answer<'_, Vec<String>>;

    /// Returns the metrics in this format.
    fn metrics(&self, format: MetricsFormat) -> Answer<'_, String>;

    /// Returns the status as JSON.
    fn status(&self) -> Answer<'_, String>;
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
