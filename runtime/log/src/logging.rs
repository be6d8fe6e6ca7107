//! Format, filter and destination of log lines.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer as _, reload};

use super::log_queue::LogQueue;
use super::recent_lines::RecentLayer;

/// The target of reports, which are periodic and are not notices.
pub const REPORT_TARGET: &str = "keylane::report";
/// The target of lines that a handler wrote.
pub const GUEST_TARGET: &str = "keylane::guest";

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a person: one line of text, in colour on a terminal.
    Human,
    /// For a machine: one JSON object per line.
    Json,
}

/// Why logging can't be started.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is invalid.
    #[error("`{filter}` is not a log filter: {source}")]
    Filter {
        /// The filter as given.
        filter: String,
        /// The error of its parser.
        source: tracing_subscriber::filter::ParseError,
    },
    /// This process already has a logger.
    #[error("logging was started twice: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Logs to standard error, including librdkafka's lines. No thread waits for the reader of standard error.
///
/// `filter` is a level, or levels by module: `info`, `keylane=debug,warn`. A level without modules applies to Keylane
/// and its Kafka client only. All other modules log at `warn`, because at `debug` the compiler of guests logs a
/// thousand lines for each component.
///
/// # Errors
///
/// If the filter is invalid, or logging is already started.
pub fn start_logging(filter: &str, format: Format) -> Result<(), LoggingError> {
    let writer = LogQueue::to_standard_error(format);
    let (subscriber, handle) = subscriber(filter, format, std::io::stderr().is_terminal(), writer)?;
    subscriber.try_init()?;
    let _first = FILTER.set(handle);
    Ok(())
}

/// Replaces the filter of the log.
///
/// # Errors
///
/// If the filter is invalid.
pub fn set_filter(filter: &str) -> Result<(), LoggingError> {
    let parsed = parse(filter)?;
    if let Some(handle) = FILTER.get() {
        handle(parsed);
    }
    Ok(())
}

/// Checks a filter.
///
/// # Errors
///
/// If the filter is invalid.
pub fn check_filter(filter: &str) -> Result<(), LoggingError> {
    parse(filter).map(|_| ())
}

/// Replaces the filter of the running log.
type FilterHandle = Box<dyn Fn(EnvFilter) + Send + Sync>;

static FILTER: OnceLock<FilterHandle> = OnceLock::new();

fn parse(filter: &str) -> Result<EnvFilter, LoggingError> {
    let level = filter.trim().parse::<tracing::Level>();
    let own = level.map(|level| format!("warn,keylane={level},librdkafka={level}"));
    EnvFilter::try_new(own.as_deref().unwrap_or(filter))
        .map_err(|source| LoggingError::Filter { filter: filter.to_owned(), source })
}

/// Creates the subscriber. It is returned as a `Dispatch` because the two formats have two types.
fn subscriber<W>(
    filter: &str,
    format: Format,
    in_colour: bool,
    writer: W,
) -> Result<(tracing::Dispatch, FilterHandle), LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (parsed, handle) = reload::Layer::new(parse(filter)?);
    let handle: FilterHandle = Box::new(move |filter| {
        // An error means that the subscriber is gone.
        let _gone = handle.reload(filter);
    });
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let registry = tracing_subscriber::registry().with(RecentLayer.with_filter(recent_filter()));
    let dispatch = match format {
        Format::Human => {
            let lines = lines.with_target(false).with_ansi(in_colour).with_filter(parsed);
            tracing::Dispatch::new(registry.with(lines))
        }
        // Fields are at the top level of the object, as log collectors expect them.
        Format::Json => {
            let lines = lines.json().flatten_event(true).with_filter(parsed);
            tracing::Dispatch::new(registry.with(lines))
        }
    };
    Ok((dispatch, handle))
}

/// Returns the filter of the lines that are kept for the admin server. It does not depend on the configured one.
fn recent_filter() -> Targets {
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("keylane", LevelFilter::INFO)
        .with_target(REPORT_TARGET, LevelFilter::OFF)
        .with_target(GUEST_TARGET, LevelFilter::OFF)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panics while it writes").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, format: Format) -> String {
        let written = Written::default();
        let writer = written.clone();
        let (dispatch, _) =
            subscriber(filter, format, false, move || writer.clone()).expect("the filter is valid");
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::info!(topic = "orders", "ownership started");
            tracing::debug!("below the level");
        });
        let bytes = written.0.lock().expect("no test panics while it writes").clone();
        String::from_utf8(bytes).expect("log lines are text")
    }

    #[test]
    fn json_lines_have_their_fields_at_the_top() {
        let line = logged("info", Format::Json);
        let value: serde_json::Value = serde_json::from_str(&line).expect("one JSON object");
        assert_eq!(value.get("message").and_then(|v| v.as_str()), Some("ownership started"), "{line}");
        assert_eq!(value.get("topic").and_then(|v| v.as_str()), Some("orders"), "{line}");
    }

    #[test]
    fn the_filter_selects_lines() {
        assert_eq!(logged("info", Format::Human).lines().count(), 1);
        assert_eq!(logged("debug", Format::Human).lines().count(), 2);
        assert_eq!(logged("error", Format::Human), "");
    }

    #[test]
    fn the_filter_can_be_replaced() {
        let written = Written::default();
        let writer = written.clone();
        let (dispatch, set_filter) =
            subscriber("error", Format::Human, false, move || writer.clone()).expect("the filter is valid");
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::info!("before");
            set_filter(parse("info").expect("the filter is valid"));
            tracing::info!("after");
        });
        let bytes = written.0.lock().expect("no test panics while it writes").clone();
        let text = String::from_utf8(bytes).expect("log lines are text");
        assert!(!text.contains("before") && text.contains("after"), "{text}");
    }

    #[test]
    fn an_invalid_filter_is_named() {
        let error = subscriber("keylane=loud", Format::Human, false, io::sink)
            .map(|_| ())
            .expect_err("there is no such level");
        assert!(error.to_string().starts_with("`keylane=loud` is not a log filter: "), "{error}");
    }
}
